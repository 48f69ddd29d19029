"""What is waiting to be heard, and how much of it has been."""

from collections import Counter, deque
from dataclasses import dataclass
from math import inf
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from voicechat.pcm import FRAME_MS, SAMPLE_RATE
from voicechat.resampling import Resampler

Samples = NDArray[np.int16]


@dataclass(slots=True)
class _Item:
    came: int = 0
    """Samples that came, at `SAMPLE_RATE`; all other numbers are at the rate of the card."""
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
    `stop`.  It is converted to the card's rate when it is pushed, so that `pull` only copies.  The
    position in an item is counted in samples that the card has taken of it, less those that it has
    not played yet.  No clock is consulted: time passed is not sound heard, and PortAudio's
    timestamps are missing or zero on several systems (PortAudio issues 121, 498, 531).  `pull` may
    run on another thread than the rest.

    Args:
        start_up_ms: At the beginning and after a gap, sound is held back until there is so much of
            it, or all there will be.
        fade_ms: How long it takes to fall silent when it is stopped or breaks off, and to come back
            after a gap: 5 are short, and no click.
    """

    def __init__(self, start_up_ms: int = 0, fade_ms: int = 0) -> None:
        self.gaps = 0
        """How often the sound of an item came too late to go on without a gap."""
        self._start_up_ms = start_up_ms
        self._fade_ms = fade_ms
        self._rate = SAMPLE_RATE
        self._latency = 0
        """Samples between `pull` and the listener's ear."""
        self._queue: deque[tuple[str, Samples | None]] = deque()
        """None stands for an item that ended without any sound."""
        self._begun = 0
        """Samples taken of the first block in the queue."""
        self._items: dict[str, _Item] = {}
        self._taken = 0
        """The card's time: samples pulled so far, silence included."""
        self._last = -inf
        """The card's time after the last sample that it took of any item."""
        self._last_item = ""
        self._runs: deque[_Run] = deque()
        """What the card took and nobody has heard to the end."""
        self._resampler: Resampler | None = None
        self._in_resampler = ""
        """The item whose last samples the resampler holds back."""
        self._is_holding = True
        self._broken_off = ""
        """The item in whose middle there was nothing left to play."""
        self._level = 0
        """The last sample that the card took."""
        self._fade_out = _NOTHING
        """What is heard first, of that which was cut off."""
        self._fade_in = 0
        """Samples until sound that comes after a gap has its full level again."""
        self._lock = Lock()

    @property
    def waiting(self) -> int:
        """Samples that the card has not taken yet."""
        with self._lock:
            return sum(item.waiting for item in self._items.values())

    @property
    def frame_samples(self) -> int:
        """How many samples the card takes in 20 ms."""
        return self._rate * FRAME_MS // 1000

    @property
    def is_empty(self) -> bool:
        """All that came was heard, and every item that ended was reported."""
        with self._lock:
            return not any(item.waiting or item.is_ended for item in self._items.values())

    def connect(self, rate: int, latency: float) -> None:
        """A card takes over, which works at `rate` (Hz) and plays `latency` (s) after it pulls.

        What the one before it took counts as heard.
        """
        with self._lock:
            self._latency = round(latency * rate)
            self._runs.clear()
            self._fade_out = _NOTHING
            self._level = 0
            self._is_holding = True
            if rate != self._rate:
                self._convert_all(rate)

    def _convert_all(self, rate: int) -> None:
        """From now on, everything is at another rate."""
        self._flush()
        self._resampler = Resampler(self._rate, rate)
        queue, self._queue = self._queue, deque()
        for item in self._items.values():
            item.taken, item.waiting = item.taken * rate // self._rate, 0
        begun, self._begun = self._begun, 0
        for item_id, block in queue:
            if block is None:
                self._queue.append((item_id, None))
            else:
                self._convert(item_id, block[begun:])
                begun = 0
        self._flush()
        self._rate = rate
        self._resampler = Resampler(SAMPLE_RATE, rate) if rate != SAMPLE_RATE else None

    def push(self, item_id: str, pcm: bytes) -> None:
        """Queue sound behind what is already waiting; a sample may be cut between two calls."""
        rest = memoryview(pcm)
        with self._lock:
            item = self._items.setdefault(item_id, _Item())
            if item.odd and rest:
                self._append(item_id, np.frombuffer(item.odd + rest[:1], dtype="<i2"))
                item.odd, rest = b"", rest[1:]
            if len(rest) % 2:
                item.odd, rest = bytes(rest[-1:]), rest[:-1]
            if rest:
                self._append(item_id, np.frombuffer(rest, dtype="<i2"))

    def _append(self, item_id: str, samples: Samples) -> None:
        self._items[item_id].came += len(samples)
        if item_id == self._broken_off:
            self._broken_off = ""
            self._fade_in = self._fade
            self.gaps += 1
        self._convert(item_id, samples)

    def _convert(self, item_id: str, samples: Samples) -> None:
        if self._resampler is None:
            self._enqueue(item_id, samples)
            return
        if item_id != self._in_resampler:
            self._flush()
            self._in_resampler = item_id
        self._enqueue(item_id, _int16(self._resampler.push(samples.astype(np.float32))))

    def _flush(self) -> None:
        """The item whose end the resampler holds back is over, or another follows."""
        item_id, self._in_resampler = self._in_resampler, ""
        if self._resampler is not None and item_id in self._items:
            self._enqueue(item_id, _int16(self._resampler.flush()))

    def _enqueue(self, item_id: str, samples: Samples) -> None:
        if len(samples):
            self._queue.append((item_id, samples))
            self._items[item_id].waiting += len(samples)

    def end(self, item_id: str) -> None:
        """No more sound of this item comes; say so once, even if none came at all."""
        with self._lock:
            item = self._items.setdefault(item_id, _Item())
            if item_id == self._in_resampler:
                self._flush()
            if item_id == self._broken_off:
                self._broken_off = ""  # it was no gap, but the end
            if not (item.waiting or item.taken or item.is_ended):
                self._queue.append((item_id, None))
            item.is_ended = True

    def pull(self, out: Samples) -> list[tuple[str, int]]:
        """Fill `out`, shape (n,), with what is queued, then silence.

        Returns:
            Items whose last sample has now left the card, and how many ms they had.
        """
        with self._lock:
            filled = self._continue_fade(out)
            filled = self._take(out, filled)
            if filled < len(out):
                self._run_dry(out, filled)
            self._taken += len(out)
            if len(out):
                self._level = int(out[-1])
            return self._let_go()

    def _continue_fade(self, out: Samples) -> int:
        """Put what is left of a fade at the beginning of `out`; return how much that was."""
        count = min(len(self._fade_out), len(out))
        out[:count] = self._fade_out[:count]
        self._fade_out = self._fade_out[count:]
        return count

    def _take(self, out: Samples, filled: int) -> int:
        """Go on filling `out` from the queue; return how much of it is filled then."""
        is_held = self._must_hold()
        while self._queue:
            item_id, block = self._queue[0]
            if block is None:
                self._items[item_id].last = self._last
            elif is_held or filled == len(out):
                break
            else:
                piece = block[self._begun : self._begun + len(out) - filled]
                out[filled : filled + len(piece)] = piece
                if self._fade_in:
                    self._come_back(out[filled : filled + len(piece)])
                self._account(item_id, self._taken + filled, len(piece))
                filled += len(piece)
                self._begun += len(piece)
                if self._begun < len(block):
                    break
                self._begun = 0
            self._queue.popleft()
        return filled

    def _must_hold(self) -> bool:
        """Too little has come yet to begin with, and more will come."""
        if self._is_holding:
            items = [item for item in self._items.values() if item.waiting]
            enough = self._start_up_ms * self._rate // 1000
            is_enough = sum(item.waiting for item in items) >= enough
            self._is_holding = not (is_enough or any(item.is_ended for item in items))
        return self._is_holding

    def _come_back(self, samples: Samples) -> None:
        """Raise the beginning of what follows a gap, in place."""
        count = min(self._fade_in, len(samples))
        ramp = 1 - np.arange(self._fade_in, self._fade_in - count, -1) / self._fade
        samples[:count] = samples[:count] * ramp
        self._fade_in -= count

    def _run_dry(self, out: Samples, filled: int) -> None:
        """Nothing is left to fill `out` with: silence, after a fade if it broke off in an item."""
        out[filled:] = 0
        if self._last != self._taken + filled:
            return
        self._is_holding = True
        item = self._items.get(self._last_item)
        if item is not None and not item.is_ended:
            self._broken_off = self._last_item
            if filled:
                self._level = int(out[filled - 1])
            self._fade_out = self._fading(_NOTHING)
            self._continue_fade(out[filled:])

    @property
    def _fade(self) -> int:
        return self._rate * self._fade_ms // 1000

    def _fading(self, samples: Samples) -> Samples:
        """What follows the last sample on the way to silence: these, as far as there are any."""
        last = samples[-1] if len(samples) else self._level
        held = np.full(self._fade - len(samples), last, dtype="<i2")
        ramp = 1 - np.arange(1, self._fade + 1) / max(1, self._fade)
        return _int16(np.concatenate((samples, held)) * ramp)

    def _next(self, count: int) -> Samples:
        """The next samples in the queue, as far as there are so many."""
        pieces = [_NOTHING]
        begun = self._begun
        for _, block in self._queue:
            if block is not None and count > 0:
                pieces.append(block[begun : begun + count])
                count -= len(pieces[-1])
                begun = 0
        return np.concatenate(pieces)

    def _account(self, item_id: str, start: int, count: int) -> None:
        """The card took so many samples of an item, from this time of its own on."""
        item = self._items[item_id]
        item.taken += count
        item.waiting -= count
        item.last = self._last = end = start + count
        self._last_item = item_id
        if self._runs and self._runs[-1].end == start and self._runs[-1].item_id == item_id:
            self._runs[-1].end = end
        else:
            self._runs.append(_Run(item_id, start, end))

    def _let_go(self) -> list[tuple[str, int]]:
        """Forget what has now reached the ear."""
        ear = self._taken - self._latency
        while self._runs and self._runs[0].end <= ear:
            self._runs.popleft()
        finished = [
            (item_id, item.came * 1000 // SAMPLE_RATE)
            for item_id, item in self._items.items()
            if item.is_ended and not item.waiting and item.last <= ear
        ]
        for item_id, _ in finished:
            del self._items[item_id]
        return finished

    def stop(self) -> tuple[tuple[str, int], ...]:
        """Drop what is queued, but for a fade.

        Returns:
            Every item not yet reported as finished, in order, and how many ms of it were heard.
        """
        with self._lock:
            ear = self._taken - self._latency
            inside: Counter[str] = Counter()
            for run in self._runs:
                inside[run.item_id] += run.end - max(run.start, ear)
            heard = tuple(
                (item_id, (item.taken - inside[item_id]) * 1000 // self._rate)
                for item_id, item in self._items.items()
            )
            if self._last == self._taken:  # else it is silent already
                self._fade_out = self._fading(self._next(self._fade))
            for everything in (self._queue, self._items, self._runs):
                everything.clear()
            self._begun = self._fade_in = 0
            self._last = -inf
            self._broken_off = ""
            self._is_holding = True
            if self._resampler is not None:
                self._resampler.flush()
                self._in_resampler = ""
        return heard


_NOTHING: Samples = np.empty(0, dtype="<i2")


def _int16(samples: NDArray[np.float32] | NDArray[np.float64]) -> Samples:
    return np.clip(np.rint(samples), -32768, 32767).astype("<i2")
