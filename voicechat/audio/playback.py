"""What is waiting to be heard, and how much of it has been."""

from collections import Counter, deque
from dataclasses import dataclass
from math import inf
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from voicechat.pcm import SAMPLE_RATE

Samples = NDArray[np.int16]


@dataclass(slots=True)
class _Item:
    waiting: int = 0
    taken: int = 0
    """Samples that the card has not taken yet, and those it has."""
    last: float = inf
    """The card's time after the last sample that it took, or of what came before, if none came."""
    odd: bytes = b""
    """Half a sample that waits for its other half."""
    is_ended: bool = False


@dataclass(slots=True)
class _Run:
    """Sound of one item that the card took without a gap, as a range of the card's time."""

    item_id: str
    start: int
    end: int


class PlaybackBuffer:
    """The queue between the event loop, which fills it, and the sound card, which drains it.

    Sound is heard in the order in which it was pushed, and none of it is ever dropped except by
    `stop`.  The position in an item is counted in samples that the card has taken of it, less
    those that the card has not played yet.  No clock is consulted: time passed is not sound heard,
    and PortAudio's timestamps are missing or zero on several systems (PortAudio issues 121, 498,
    531).  `pull` may run on another thread than the rest.
    """

    def __init__(self, latency: int = 0) -> None:
        self.latency = latency
        """Samples between `pull` and the listener's ear.  Set it before the first `pull`."""
        self._queue: deque[tuple[str, Samples | None]] = deque()
        """None stands for an item that ended without any sound."""
        self._begun = 0
        """Samples taken of the first block in the queue."""
        self._items: dict[str, _Item] = {}
        self._taken = 0
        """The card's time: samples pulled so far, silence included."""
        self._last = -inf
        """The card's time after the last sample that it took of any item."""
        self._runs: deque[_Run] = deque()
        """What the card took and nobody has heard to the end."""
        self._lock = Lock()

    @property
    def waiting(self) -> int:
        """Samples that the card has not taken yet."""
        with self._lock:
            return sum(item.waiting for item in self._items.values())

    @property
    def is_empty(self) -> bool:
        """All that came was heard, and every item that ended was reported."""
        with self._lock:
            return not any(item.waiting or item.is_ended for item in self._items.values())

    def push(self, item_id: str, pcm: bytes) -> None:
        """Queue sound behind what is already waiting; a sample may be cut between two calls."""
        rest = memoryview(pcm)
        with self._lock:
            item = self._items.setdefault(item_id, _Item())
            if item.odd and rest:
                self._queue.append((item_id, np.frombuffer(item.odd + rest[:1], dtype="<i2")))
                item.odd, rest = b"", rest[1:]
                item.waiting += 1
            if len(rest) % 2:
                item.odd, rest = bytes(rest[-1:]), rest[:-1]
            if rest:
                self._queue.append((item_id, np.frombuffer(rest, dtype="<i2")))
                item.waiting += len(rest) // 2

    def end(self, item_id: str) -> None:
        """No more sound of this item comes; say so once, even if none came at all."""
        with self._lock:
            item = self._items.setdefault(item_id, _Item())
            if not (item.waiting or item.taken or item.is_ended):
                self._queue.append((item_id, None))
            item.is_ended = True

    def pull(self, out: Samples) -> list[tuple[str, int]]:
        """Fill `out`, shape (n,), with what is queued, then silence.

        Returns:
            Items whose last sample has now left the card, and how many ms they had.
        """
        filled = 0
        with self._lock:
            while self._queue:
                item_id, block = self._queue[0]
                if block is None:
                    self._items[item_id].last = self._last
                elif filled == len(out):
                    break
                else:
                    piece = block[self._begun : self._begun + len(out) - filled]
                    out[filled : filled + len(piece)] = piece
                    self._account(item_id, self._taken + filled, len(piece))
                    filled += len(piece)
                    self._begun += len(piece)
                    if self._begun < len(block):
                        break
                    self._begun = 0
                self._queue.popleft()
            self._taken += len(out)
            finished = self._let_go()
        out[filled:] = 0
        return finished

    def _account(self, item_id: str, start: int, count: int) -> None:
        """The card took so many samples of an item, from this time of its own on."""
        item = self._items[item_id]
        item.taken += count
        item.waiting -= count
        item.last = self._last = end = start + count
        if self._runs and self._runs[-1].end == start and self._runs[-1].item_id == item_id:
            self._runs[-1].end = end
        else:
            self._runs.append(_Run(item_id, start, end))

    def _let_go(self) -> list[tuple[str, int]]:
        """Forget what has now reached the ear."""
        ear = self._taken - self.latency
        while self._runs and self._runs[0].end <= ear:
            self._runs.popleft()
        finished = [
            (item_id, _milliseconds(item.taken))
            for item_id, item in self._items.items()
            if item.is_ended and not item.waiting and item.last <= ear
        ]
        for item_id, _ in finished:
            del self._items[item_id]
        return finished

    def stop(self) -> tuple[tuple[str, int], ...]:
        """Drop what is queued.

        Returns:
            Every item not yet reported as finished, in order, and how many ms of it were heard.
        """
        with self._lock:
            ear = self._taken - self.latency
            inside: Counter[str] = Counter()
            for run in self._runs:
                inside[run.item_id] += run.end - max(run.start, ear)
            heard = tuple(
                (item_id, _milliseconds(item.taken - inside[item_id]))
                for item_id, item in self._items.items()
            )
            for everything in (self._queue, self._items, self._runs):
                everything.clear()
            self._begun = 0
            self._last = -inf
        return heard


def _milliseconds(samples: int) -> int:
    return samples * 1000 // SAMPLE_RATE
