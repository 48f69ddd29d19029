"""What the microphone heard, kept until it is certain that the server has it in words.

Frames are counted in the milliseconds of the connection that they were sent on, which is how the
server says where speech began.  When that connection is lost, the utterance that it lost with it is
said again on the next one, together with what was said meanwhile.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from voicechat.pcm import BYTES_PER_MS, FRAME_MS

HELD_MS = 30_000
"""So much of what is said is kept while there is no line."""
KEPT_BYTES = 600_000 * BYTES_PER_MS
"""Of the utterances that are not yet in words: ten minutes."""
MEMORY_MS = 12_000
"""A line may be dead for ten seconds before it is noticed."""
LONG_AGO_MS = 1_000_000
RUN_UP_MS = 300
PAUSE_MS = 1000
"""Longer than the silence that ends a turn."""


class Gate:
    """Tells loud frames from quiet ones, relative to how loud it always is.

    Rather too many are taken for loud than too few: it decides what to keep, not what is speech.
    """

    LEAST = 200
    """Of 32 767: below, it is quiet wherever one is."""
    ABOVE = 3
    RISE = 1.0023
    """A frame: 1 dB a second, so that a lasting noise is soon taken for silence."""

    def __init__(self) -> None:
        self._floor = float(self.LEAST)

    def is_loud(self, pcm: bytes) -> bool:
        """Whether someone may be speaking in this frame."""
        if len(pcm) < 2:
            return False
        samples = np.frombuffer(pcm, dtype="<i2", count=len(pcm) // 2)
        peak = max(int(samples.max()), -int(samples.min()))
        self._floor = min(peak, self._floor * self.RISE)
        self._floor = max(self._floor, self.LEAST / self.ABOVE)
        return peak > self.ABOVE * self._floor


@dataclass(frozen=True, slots=True)
class Heard:
    """A frame that no line has taken yet."""

    pcm: bytes
    at: float
    """When its last sample was heard."""


@dataclass(frozen=True, slots=True)
class _Frame:
    start_ms: int
    pcm: bytes
    is_loud: bool
    at: float | None
    """When its last sample was heard, if that was not when it was sent."""

    @property
    def end_ms(self) -> int:
        return self.start_ms + len(self.pcm) // BYTES_PER_MS


class Recording:
    """What was heard, by what has become of it: in an item, on its way, or still to be sent."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        """PCM of turns that are not yet in words, by item id."""
        self.quiet_ms = LONG_AGO_MS
        """For so long nothing loud was heard."""
        self.dropped_ms = 0
        """What was said while there was no line, and was too long to be kept."""
        self._gate = Gate()
        self._sent: deque[_Frame] = deque()
        """On the line that serves, since the end of the last turn."""
        self._start_ms: int | None = None
        """Where the utterance that is being spoken began."""
        self._end_ms: int | None = None
        self._closed: deque[bytes] = deque()
        """Turns that were handed over with the talk key, and are no items yet."""
        self._lost: list[Heard] = []
        """The utterance that a lost line cut in two, from its beginning."""
        self._held: deque[Heard] = deque()
        """Heard while there is no line."""
        self._run_up: deque[Heard] = deque(maxlen=RUN_UP_MS // FRAME_MS)

    @property
    def is_waiting(self) -> bool:
        """Something was said that no line has taken yet."""
        return bool(self._lost or self._held)

    @property
    def waiting(self) -> list[Heard]:
        """What no line has taken yet, in order."""
        return [*self._lost, *self._held]

    # On a line -----------------------------------------------------------------------------------

    def send(self, start_ms: int, pcm: bytes, at: float | None = None) -> None:
        """This frame goes out, so many ms into what the line was sent.

        Args:
            start_ms: There it begins.
            pcm: What is in it.
            at: When it was heard, if not just now.
        """
        self._sent.append(_Frame(start_ms, pcm, self._listen(pcm), at))
        if self._start_ms is None:
            self._forget_before(start_ms - MEMORY_MS)
        elif start_ms - self._sent[0].start_ms > KEPT_BYTES // BYTES_PER_MS:
            self._sent.popleft()

    def heard_at(self, ms: int) -> float | None:
        """When the moment was that is `ms` into what the line was sent; None: it was just sent."""
        frame = next((frame for frame in self._sent if frame.start_ms <= ms <= frame.end_ms), None)
        if frame is None or frame.at is None:
            return None
        return frame.at - (frame.end_ms - ms) / 1000

    def begin(self, start_ms: int) -> None:
        """An utterance began there; what is before it is none."""
        if self._sent and start_ms > self._sent[-1].end_ms:  # a server that counts in its own way
            start_ms = self._sent[-1].end_ms - RUN_UP_MS
        self._start_ms, self._end_ms = start_ms, None
        self._forget_before(start_ms)

    def stop(self, end_ms: int) -> None:
        """It ended there, if it began at all."""
        if self._start_ms is not None and end_ms > self._start_ms:
            self._end_ms = end_ms

    def commit(self, item_id: str) -> None:
        """What was being said is an item now."""
        if not self._closed:
            self.close()
        self.keep(item_id, self._closed.popleft())

    def close(self) -> None:
        """What was being said is whole."""
        self._closed.append(b"".join(frame.pcm for frame in self._utterance()))
        if self._end_ms is None:
            self._sent.clear()
        else:
            self._forget_before(self._end_ms)
        self._start_ms = self._end_ms = None

    def refuse(self) -> None:
        """The server made no item of the turn that was handed over."""
        if self._closed:
            self._closed.popleft()

    def dismiss(self) -> None:
        """What seemed to be an utterance was none."""
        if self._end_ms is not None:
            self._forget_before(self._end_ms)
        self._start_ms = self._end_ms = None

    def keep(self, item_id: str, pcm: bytes) -> None:
        """Remember a turn until it is in words; the oldest goes where there are too many."""
        if pcm:
            self.kept[item_id] = pcm
        while self.kept and sum(map(len, self.kept.values())) > KEPT_BYTES:
            del self.kept[next(iter(self.kept))]

    def settle(self, item_id: str) -> None:
        """A turn is in words, or will never be."""
        self.kept.pop(item_id, None)

    def clear(self) -> None:
        """What was heard so far is no part of any turn."""
        self._sent.clear()
        self._start_ms = self._end_ms = None

    # Without a line ------------------------------------------------------------------------------

    def lose(self, unheard_ms: int, now: float) -> None:
        """The line is gone, and with it the utterance that was being spoken, if there is one.

        Args:
            unheard_ms: What was sent so recently that the server may not have heard it: if it was
                loud, someone had begun to speak.
            now: When that happens; the last frame was heard then.
        """
        frames: list[_Frame] = []
        if self._start_ms is not None:
            frames = self._utterance()
        elif self._sent:
            frames = self._unannounced(self._sent[-1].end_ms - unheard_ms)
        for frame in frames:
            since = (self._sent[-1].end_ms - frame.end_ms) / 1000
            self._lost.append(Heard(frame.pcm, now - since if frame.at is None else frame.at))
        self.clear()

    def take_closed(self) -> list[bytes]:
        """The turns that were handed over, and that no server will make items of any more."""
        closed = list(self._closed)
        self._closed.clear()
        return closed

    def hold(self, pcm: bytes, now: float, *, is_speech: bool = False) -> bool:
        """Keep a frame for the next line; False the first time that there is no more room.

        Pauses are not kept, so that there is room for what is said, unless they are part of a turn
        that someone holds the talk key for.
        """
        is_speech |= self._listen(pcm)
        if is_speech or (self.is_waiting and self.quiet_ms <= PAUSE_MS):
            self._held += self._run_up
            self._held.append(Heard(pcm, now))
            self._run_up.clear()
        else:
            self._run_up.append(Heard(pcm, now))
        if len(self._held) * FRAME_MS <= HELD_MS:
            return True
        self._held.popleft()
        self.dropped_ms += FRAME_MS
        return self.dropped_ms > FRAME_MS

    def release(self) -> list[Heard]:
        """All that the next line must hear, in order."""
        frames = self.waiting
        self._lost = []
        self.dropped_ms = 0
        self._held.clear()
        self._run_up.clear()
        return frames

    # ---------------------------------------------------------------------------------------------

    def _listen(self, pcm: bytes) -> bool:
        is_loud = self._gate.is_loud(pcm)
        self.quiet_ms = 0 if is_loud else self.quiet_ms + len(pcm) // BYTES_PER_MS
        return is_loud

    def _utterance(self) -> list[_Frame]:
        start = self._start_ms or 0
        end = self._end_ms
        return [f for f in self._sent if f.end_ms > start and (end is None or f.start_ms < end)]

    def _unannounced(self, since_ms: int) -> list[_Frame]:
        """From where someone began to speak, if they did so late enough."""
        frames = list(self._sent)
        loud = [n for n, frame in enumerate(frames) if frame.is_loud and frame.end_ms > since_ms]
        if not loud:
            return []
        first = loud[0]
        for number in range(first, -1, -1):  # it may have begun before
            if frames[number].is_loud:
                first = number
            elif frames[first].start_ms - frames[number].end_ms >= RUN_UP_MS:
                break
        begins = frames[first].start_ms - RUN_UP_MS
        return [frame for frame in frames if frame.end_ms > begins]

    def _forget_before(self, ms: int) -> None:
        while self._sent and self._sent[0].end_ms <= ms:
            self._sent.popleft()
