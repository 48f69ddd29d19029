"""A door: where things are kept, here and elsewhere."""

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from voicechat.config import config_path
from voicechat.doctor.examination import Finding, Status
from voicechat.keys import keys_file
from voicechat.settings import data_directory, sessions_directory
from voicechat.transcript import printable

LITTLE = 100_000_000
"""Bytes: less is soon full of recordings."""
TOO_LITTLE = 1_000_000
STORE_SECONDS = 5.0


def about_directories() -> Iterator[Finding]:
    """Whether something can be written there, and how much."""
    remedy = "Set VOICECHAT_HOME to a directory of yours, or talk without saving: --no-log"
    yield _about(data_directory(), "data", remedy)
    yield _about(config_path().parent, "settings", "Make it writable for you.")
    yield from _about_keys(keys_file())


def _about_keys(path: Path) -> Iterator[Finding]:
    """Whether others get at the saved keys; Windows has no modes of files that tell."""
    with suppress(OSError):  # where one may not look, using a key tells so
        if os.name == "posix" and path.stat().st_mode & 0o066:
            told = f"others than you may read or change {printable(str(path))}"
            yield Finding("keys", "warn", told, f"chmod 600 {shlex.quote(str(path))}")


def _about(directory: Path, check: str, remedy: str) -> Finding:
    """What can be done there; where there is nothing yet, in the directory it would be made in."""
    shown = printable(str(directory))
    place = directory
    try:
        while not os.path.lexists(place) and place != place.parent:
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
        free = shutil.disk_usage(place).free
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        status: Status = "fail" if check == "data" else "warn"
        return Finding(check, status, f"{shown} cannot be written: {reason.lower()}", remedy)
    room = f"{free / 1e9:.1f} GB free" if free >= 1e9 else f"{free / 1e6:.0f} MB free"
    if free < LITTLE:
        status = "fail" if free < TOO_LITTLE else "warn"
        return Finding(check, status, f"{shown}: only {room}", "Free some space there.")
    is_there = place == directory
    return Finding(check, "ok", f"{shown}{'' if is_there else ' (made when needed)'}, {room}")


def about_sessions() -> Iterator[Finding]:
    """How many there are, and how many cannot be read."""
    from voicechat.history.checking import session_files
    from voicechat.history.sessions import list_sessions

    directory = sessions_directory()
    if not session_files(directory):
        yield Finding("sessions", "ok", "none yet")
        return
    sessions, unreadable = list_sessions(directory)
    yield Finding("sessions", "ok", f"{len(sessions)} saved")
    if unreadable:
        names = ", ".join(printable(path.name) for path in unreadable[:3])
        more = " and others" if len(unreadable) > 3 else ""
        what = f"of {len(unreadable)} nothing can be read: {names}{more}"
        yield Finding("sessions", "warn", what, "See what is wrong: voicechat history check")


def about_store(url: str | None) -> Iterator[Finding]:
    """The store that machines share, if there is one."""
    from voicechat.history.stores.opening import open_store, shown

    if not url:
        return
    store = open_store(url, os.environ.get("VOICECHAT_STORE_PASSWORD"), STORE_SECONDS)
    try:
        number = len(store.heads())
    finally:
        store.close()
    yield Finding("store", "ok", f"{shown(url)}: {number} sessions, the deleted ones included")
