"""Stores that machines share: complete lines of session files, by offset and hash.

A store knows nothing of what is in a line.  It holds for each *log* (the name of a session's file,
without its ending) bytes that only ever grow, and its `Head`: how many they are, and their SHA-256.
Whoever adds to a log says how long it was when he looked; if someone else was quicker, nothing is
added.  What was added is there as a whole or not at all, whenever a process or the store dies.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

VERSION = 1
"""Of the way in which logs lie in a store.  A store says its own; a newer one is not touched."""


@dataclass(frozen=True, slots=True)
class Head:
    """How far a log goes, or went when it was deleted."""

    length: int
    """In bytes."""
    sha256: str
    """Of all of them, in hexadecimal digits."""
    is_deleted: bool = False
    """Nothing but this is left of the log, for ever: a tombstone."""


@dataclass(frozen=True, slots=True)
class Addition:
    """Bytes that follow a log."""

    log: str
    before: int
    """Length of the log that they follow; 0: the store has no such log."""
    data: bytes
    after: Head
    """What the log is then."""


class Store(Protocol):
    """A place where machines meet.  Everything may raise `SharedStoreError`."""

    id: str
    """Of the store, made up when it was first used: the same under whatever address."""

    def heads(self) -> dict[str, Head]:
        """Every log there is, the deleted ones included."""

    def read(self, starts: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
        """What is in some logs, each from an offset to its end.

        Yields each log once, in any order; one that is not there, or no longer, not at all.
        """

    def add(self, additions: Sequence[Addition]) -> set[str]:
        """Add to logs, at most once to each; return those to which nothing was added.

        Those are the ones that are not as long as `Addition.before` says any more, or deleted.
        """

    def bury(self, log: str, seen: Head, tombstone: Head) -> bool:
        """Delete a log and leave a tombstone, if it is still as it was `seen`; was it?"""

    def close(self) -> None:
        """Let go of the store.  Safe to do twice."""
