"""A door: sessions that are no more.

A session that is deleted leaves a tombstone, a line in a file beside the sessions: which log it was
and how far it went, nothing of what was said.  Shared stores are told by it (`history.sync`).
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from glob import escape
from hashlib import sha256
from io import FileIO
from pathlib import Path

from voicechat.errors import StoreError
from voicechat.history.log import BINARY, ENDING, OLD, held, others_of, remove, session_id, stamp
from voicechat.history.reading import FULL, complete, unusable
from voicechat.history.recordings import discard_recordings
from voicechat.history.stores import Head
from voicechat.transcript import to_json

NAME = "deleted.jsonl"


def delete(path: Path, before: Callable[[bytes], object] | None = None) -> None:
    """Delete a session with all that was kept of it, and remember that.

    Args:
        path: The session's file.
        before: Is told what is in the file, when nobody can write to it any more.

    Raises:
        SessionInUseError: Another process talks in it.
        StoreError: It cannot be deleted.
    """
    with held(path) as file:
        data = file.readall()
        if before is not None:
            before(data)
        try:
            remember(path.parent, path.stem, data)  # first: without it, a store would bring it back
        except StoreError as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in FULL:
                raise
            remove(path, file)
            file.close()  # makes room for it
            remember(path.parent, path.stem, data)
        else:
            remove(path, file)
    discard_recordings(path)
    with suppress(OSError):
        repaired = list(path.parent.glob(f"*-{escape(session_id(path))}{ENDING}{OLD}*"))
        if repaired and not others_of(path):  # else the session goes on, and they are its own
            for old in repaired:
                old.unlink()


def remember(directory: Path, log: str, data: bytes) -> None:
    """Note that a log is no more: one write, so that several processes may do it at once.

    Args:
        directory: Where the session files are.
        log: Name of the file, without its ending.
        data: What was in it.

    Raises:
        StoreError: It cannot be noted.
    """
    head = head_of(data)
    path = directory.parent / NAME
    value = {
        "type": "deleted",
        "at": stamp(datetime.now(UTC)),
        "log": log,
        "length": head.length,
        "sha256": head.sha256,
    }
    line = b"\n" + to_json(value).encode() + b"\n"  # whatever the line before it lacks
    try:
        with FileIO(
            os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | BINARY, 0o600), "wb"
        ) as file:
            file.write(line)
            os.fsync(file.fileno())
    except OSError as error:
        raise unusable(path, error) from error


def deleted(directory: Path) -> dict[str, Head]:
    """The tombstones, by log.

    Raises:
        StoreError: They cannot be read.
    """
    found = {}
    try:
        data = (directory.parent / NAME).read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise unusable(directory.parent / NAME, error, doing="read") from error
    for line in data.splitlines():
        with suppress(ValueError, TypeError, KeyError, RecursionError):  # torn
            value = json.loads(line)
            log, length, digest = value["log"], value["length"], value["sha256"]
            if isinstance(log, str) and isinstance(length, int) and isinstance(digest, str):
                found[log] = Head(length, digest, is_deleted=True)
    return found


def head_of(data: bytes) -> Head:
    """How far a log goes that holds this: its complete lines."""
    lines = complete(data)
    return Head(len(lines), sha256(lines).hexdigest())
