"""A door: the recordings of a session, files beside its log, one for each run.

A recording is called like the log, with the place on the session's timeline at which it begins:
``20260822-093000-k7f3a2.61500.flac``.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from voicechat.errors import StoreError

_NAME = re.compile(r"\.([0-9]{1,10})(?:-([0-9]{1,4}))?\.flac")
"""What follows the log's name: a place in ms, and a number if several begin there."""


def new_recording(log_path: Path, start_ms: int) -> Path:
    """Make an empty file for what is recorded from `start_ms` on, which only its owner may read.

    Raises:
        StoreError: It cannot be made.
    """
    number = 1
    while True:
        place = f"{start_ms}" if number == 1 else f"{start_ms}-{number}"
        path = log_path.with_name(f"{log_path.stem}.{place}.flac")
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            number += 1
            continue
        except OSError as error:
            raise StoreError(
                f"cannot make the recording {path}: {(error.strerror or str(error)).lower()}",
                remedy="Set VOICECHAT_HOME to a directory of yours, or talk without --record.",
            ) from error
        return path


def recordings_of(log_path: Path) -> list[tuple[int, Path]]:
    """The recordings of a session that hold anything: where each begins, in ms, the first first.

    Raises:
        StoreError: The directory cannot be read.
    """
    try:
        return [(start_ms, path) for start_ms, path in _all(log_path) if path.stat().st_size]
    except OSError as error:
        raise StoreError(
            f"cannot read {log_path.parent}: {(error.strerror or str(error)).lower()}",
            remedy="Make it readable for you, or set VOICECHAT_HOME to another directory.",
        ) from error


def discard_recordings(log_path: Path) -> None:
    """Remove them if the log is gone, as it is when nothing was said: nobody would find them."""
    with suppress(OSError):
        if not log_path.exists():
            for _, path in _all(log_path):
                path.unlink()


def rename_recordings(log_path: Path, new_path: Path) -> None:
    """Let the recordings of a session follow its log, whose file is called differently now.

    Raises:
        StoreError: One cannot be renamed.
    """
    try:
        for start_ms, path in _all(log_path):
            target = path.with_name(new_path.stem + path.name[len(log_path.stem) :])
            number = 2
            while target.exists():
                target = path.with_name(f"{new_path.stem}.{start_ms}-{number}.flac")
                number += 1
            path.rename(target)
    except OSError as error:
        raise StoreError(
            f"cannot rename the recordings of {log_path}: {(error.strerror or str(error)).lower()}",
            remedy="Make their directory writable for you.",
        ) from error


def _all(log_path: Path) -> list[tuple[int, Path]]:
    found = []
    with os.scandir(log_path.parent) as entries:
        for entry in entries:
            stem, rest = entry.name[: len(log_path.stem)], entry.name[len(log_path.stem) :]
            match = _NAME.fullmatch(rest) if stem == log_path.stem else None
            if match and os.path.isfile(entry):  # noqa: PTH113  # a link in circles is none
                start_ms, number = (int(group or 1) for group in match.groups())
                found.append((start_ms, number, Path(entry.path)))
    return [(start_ms, path) for start_ms, _, path in sorted(found)]
