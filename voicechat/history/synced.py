"""A door: what this machine and a store last had in common.

It saves work: without it, or with an old one, more is read and fetched.  And it tells what others
deleted from what they never had, which stays: so without it, what was deleted elsewhere comes back.
"""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from voicechat.history.log import BINARY
from voicechat.history.stores import Head


@dataclass(frozen=True, slots=True)
class Known:
    """Of a log: what both sides held."""

    head: Head
    size: int
    """Of the file in bytes when it held just that; -1: it held more, or was not looked at."""
    modified: int
    """When it was changed, in ns."""


def load(directory: Path, store: str) -> dict[str, Known]:
    """What is known of a store, by log.

    Args:
        directory: Where the session files are.
        store: Id of the store.
    """
    with suppress(OSError, ValueError, TypeError, OverflowError, RecursionError):
        values = json.loads(_path(directory, store).read_bytes())
        return {
            log: Known(Head(int(length), str(digest)), int(size), int(modified))
            for log, (length, digest, size, modified) in values.items()
        }
    return {}


def is_synced(directory: Path, log: str) -> bool:
    """Has any store ever held what is in this log?"""
    for path in directory.parent.glob(_name("*")):
        with suppress(OSError, ValueError, TypeError, RecursionError):
            if log in json.loads(path.read_bytes()):
                return True
    return False


def save(directory: Path, store: str, known: dict[str, Known], before: dict[str, Known]) -> None:
    """Remember it for the next time; where that is not possible, it takes longer then.

    Args:
        directory: Where the session files are.
        store: Id of the store.
        known: What is known.
        before: What was known at first; what others have found out since stays.
    """
    path = _path(directory, store)
    found = load(directory, store)
    changed = {log: each for log, each in known.items() if before.get(log) != each}
    known = {
        log: each for log, each in found.items() if log in known or log not in before
    } | changed
    values = {
        log: [each.head.length, each.head.sha256, each.size, each.modified]
        for log, each in known.items()
    }
    new = path.with_name(f".{os.urandom(4).hex()}.part")
    with suppress(OSError):
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(json.dumps(values).encode())
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def _path(directory: Path, store: str) -> Path:
    return directory.parent / _name(sha256(store.encode()).hexdigest()[:16])


def _name(store: str) -> str:
    return f"synced-{store}.json"
