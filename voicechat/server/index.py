"""A door: the package index without pip, by its simple API, for environments that have no pip.

Source: the simple repository API (PEP 503 for HTML, PEP 691 for JSON).
"""

import configparser
import json
import os
import ssl
import sys
from base64 import b64encode
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import IO, Any
from urllib.error import URLError
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from voicechat.errors import LocalError

ACCEPTED = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
BLOCK = 1 << 18
TIMEOUT = 60.0


def download_wheel(
    distribution: str,
    version: str,
    directory: Path,
    progress: Callable[[int], None],
    is_stopped: Callable[[], bool],
) -> Path:
    """Put the wheel of a pure package into `directory`, telling how many bytes have come.

    Raises:
        LocalError: No index is known, it cannot be reached, or it does not have the wheel.
    """
    index = index_url()
    if index is None:
        raise LocalError(
            f"there is neither pip nor the address of a package index to fetch {distribution} from",
            remedy="Install pip (python -m ensurepip, or apt install python3-pip), or set "
            "PIP_INDEX_URL.",
        )
    name = f"{distribution.replace('-', '_')}-{version}-"
    page = f"{index.rstrip('/')}/{distribution}/"
    try:
        with _open(page, ACCEPTED) as answer:
            links = _links(answer.read(), answer.headers.get_content_type(), answer.url)
        wheels = {Path(unquote(urlsplit(link).path)).name: link for link in links}
        fitting = [w for w in wheels if w.startswith(name) and w.endswith("-none-any.whl")]
        if not fitting:
            raise LocalError(
                f"the package index does not have {distribution} {version}",
                remedy="Set PIP_INDEX_URL to an index that has it.",
            )
        target = directory / fitting[0]
        with _open(wheels[fitting[0]], "*/*") as answer, target.open("wb") as file:
            while block := answer.read(BLOCK):
                if is_stopped():
                    raise LocalError("the download was stopped", remedy="Run it again.")
                file.write(block)
                progress(file.tell())
    except (URLError, TimeoutError, ConnectionError, ssl.SSLError, ValueError) as error:
        raise LocalError(
            f"{distribution} {version} cannot be fetched from the package index: {error}",
            remedy="Go online once and run: voicechat local setup",
        ) from error
    return target


def index_url() -> str | None:
    """The index that pip, or uv, is set up for; None if neither names one."""
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if os.environ.get(name):
            return os.environ[name]
    found = configparser.RawConfigParser()
    try:
        found.read(_pip_files(), encoding="utf-8")
    except configparser.Error:
        return None
    for section in ("download", "global"):
        if found.has_option(section, "index-url"):
            return found.get(section, "index-url").strip()
    return None


def _pip_files() -> list[Path]:
    """Where pip reads its settings, the weakest first.  Source: pip's user guide."""
    home, named = Path.home(), os.environ.get("PIP_CONFIG_FILE")
    user = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf"
    legacy = home / ".pip" / "pip.conf"
    if sys.platform == "darwin":
        user = home / "Library" / "Application Support" / "pip" / "pip.conf"
    files = [Path("/etc/pip.conf"), legacy, user, Path(sys.prefix) / "pip.conf"]
    if sys.platform == "win32":
        roaming = Path(os.environ.get("APPDATA") or home)
        files = [roaming / "pip" / "pip.ini", Path(sys.prefix) / "pip.ini"]
    return [*files, Path(named)] if named else files


def _open(url: str, accepted: str) -> Any:
    """Open a URL, with the name and password it may contain, and pip's certificates."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", "file"):
        raise ValueError(f"{url} is not an address")
    headers = {"Accept": accepted}
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT") or None)
    request = Request(urlunsplit(parts), headers=headers)
    answer: IO[bytes] = urlopen(request, timeout=TIMEOUT, context=context)
    return answer


def _links(page: bytes, content_type: str, base: str) -> list[str]:
    """The files that a page of the index lists."""
    if content_type == "application/vnd.pypi.simple.v1+json":
        return [urljoin(base, file["url"]) for file in json.loads(page)["files"]]
    anchors = _Anchors()
    anchors.feed(page.decode(errors="replace"))
    return [urljoin(base, link) for link in anchors.links]


class _Anchors(HTMLParser):
    """Collects where the anchors of a page lead."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]
