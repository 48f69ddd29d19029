"""The room's door to sound files and pipes: what hears and speaks where there is no sound card.

This module never imports sounddevice, so that files work on machines without PortAudio.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Protocol, Self

import numpy as np

from voicechat.audio.playback import PlaybackBuffer
from voicechat.errors import OutputError
from voicechat.pcm import BYTES_PER_SAMPLE, FRAME_BYTES, FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE
from voicechat.sound import Listener

FRAME_SECONDS = FRAME_MS / 1000
SILENCE = bytes(FRAME_BYTES)

# Files as a microphone --------------------------------------------------------------------------


class _Source(Protocol):
    """Where frames come from."""

    def take(self) -> bytes | None:
        """The next frame; nothing (``b""``) if it is not there yet; None if no more comes."""

    def close(self) -> None:
        """Stop whatever fills it."""


class _Speech:
    """Sound that is all there."""

    def __init__(self, pcm: bytes) -> None:
        self._pcm = pcm
        self._at = 0

    def take(self) -> bytes | None:
        frame = self._pcm[self._at : self._at + FRAME_BYTES]
        self._at += FRAME_BYTES
        return frame.ljust(FRAME_BYTES, b"\0") if frame else None

    def close(self) -> None:
        pass


class _Stream:
    """Sound that comes through a pipe, read ahead by a second at most.

    Read by descriptor: a thread that waits in a buffered file's `read` aborts the interpreter when
    it exits (cpython issue 26037 and kin).
    """

    READ_AHEAD = 1000 // FRAME_MS

    def __init__(self, descriptor: int, on_arrival: Callable[[], object]) -> None:
        self._descriptor = descriptor
        self._on_arrival = on_arrival
        self._loop = asyncio.get_running_loop()
        self._frames: deque[bytes | None] = deque()
        self._room = Semaphore(self.READ_AHEAD)
        self._closed = Event()
        Thread(target=self._read, name="standard input", daemon=True).start()

    def take(self) -> bytes | None:
        if not self._frames:
            return b""
        if self._frames[0] is not None:  # the end stays where it is
            self._room.release()
            return self._frames.popleft()
        return None

    def close(self) -> None:
        self._closed.set()
        self._room.release()

    def _read(self) -> None:
        frame = b""
        while not self._closed.is_set():
            try:
                block = os.read(self._descriptor, FRAME_BYTES - len(frame))
            except OSError:  # closed, or a directory: nothing will come
                block = b""
            frame += block
            if len(frame) == FRAME_BYTES or not block:
                whole = frame[: len(frame) - len(frame) % BYTES_PER_SAMPLE]
                if whole:
                    self._room.acquire()
                    self._post(whole.ljust(FRAME_BYTES, b"\0"))
                frame = b""
            if not block:
                self._post(None)
                return

    def _post(self, frame: bytes | None) -> None:
        def arrive() -> None:
            self._frames.append(frame)
            self._on_arrival()

        with suppress(RuntimeError):  # the loop is closed: nobody is listening any more
            self._loop.call_soon_threadsafe(arrive)


class FileMicrophone:
    """A microphone that hears what it is given, 20 ms every 20 ms, as a real one would.

    After what it was given it hears silence, until `rest`; a room does not vanish after a sentence.
    Everything happens on the event loop.
    """

    LATEST = 1.0
    """Seconds by which it may lag behind a busy loop before it lets the lost time be."""

    def __init__(self) -> None:
        self._on_frame: Callable[[bytes], object] = lambda pcm: None
        self._on_end: Callable[[], object] | None = None
        self._source: _Source | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    @contextmanager
    def open(self, listener: Listener) -> Iterator[None]:
        """Hear from now on, until the block is left."""
        self._on_frame = listener.captured
        try:
            yield
        finally:
            self.rest()

    def say(self, pcm: bytes, on_end: Callable[[], object]) -> None:
        """Hear this, then call `on_end` once, then hear silence."""
        self._hear(_Speech(pcm), on_end)

    def say_stream(self, descriptor: int, on_end: Callable[[], object]) -> None:
        """Hear raw PCM16, 24 kHz, mono from a pipe or file: as it comes, but in real time."""
        self._hear(_Stream(descriptor, self._wake), on_end)

    def rest(self) -> None:
        """Hear nothing any more, not even silence."""
        if self._timer is not None:
            self._timer.cancel()
        if self._source is not None:
            self._source.close()
        self._timer = self._source = self._on_end = None

    def _hear(self, source: _Source, on_end: Callable[[], object]) -> None:
        loop = asyncio.get_running_loop()
        due = self._due if self._timer is not None else loop.time() + FRAME_SECONDS
        self.rest()
        self._source, self._on_end = source, on_end
        self._schedule(due)

    def _schedule(self, due: float) -> None:
        self._due = due
        self._timer = asyncio.get_running_loop().call_at(due, self._tick)

    def _wake(self) -> None:
        """A frame arrived; if it is late, hear it now and count from now."""
        if self._timer is None:
            self._schedule(max(self._due, asyncio.get_running_loop().time()))

    def _tick(self) -> None:
        """Hear one frame.  Its time is counted from the one before, so that delays do not add up.

        One frame a call: what is called may call `say` and `rest`.
        """
        self._timer = None
        if self._source is None or (frame := self._source.take()) == b"":
            return  # until `_wake`
        earliest = asyncio.get_running_loop().time() - self.LATEST
        self._schedule(max(self._due, earliest) + FRAME_SECONDS)
        if frame is None and self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            on_end()
        if self._source is not None:
            self._on_frame(frame or SILENCE)


# Files as a speaker -----------------------------------------------------------------------------


class Sink(Protocol):
    """Where heard sound is written."""

    def write(self, pcm: bytes) -> object:
        """Add sound.  Raises `OutputError` if it cannot."""


class FileSpeaker:
    """A speaker that writes down what it plays, and takes as long for it as a real one.

    Only what was heard is written: no silence around answers, nothing of what `stop` cut off.
    Everything happens on the event loop.
    """

    def __init__(self, sink: Sink | None = None) -> None:
        self._sink = sink
        self._playback = PlaybackBuffer()
        self._listener: Listener
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._hurry = False
        self.stop = self._playback.stop

    @contextmanager
    def open(self, listener: Listener) -> Iterator[None]:
        """Be heard until the block is left.

        If what was heard cannot be written, the listener is told that it failed; after that it is
        heard as before, but nothing more is written.
        """
        self._listener = listener
        try:
            yield
        finally:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    @property
    def hurry(self) -> bool:
        """Nothing can interrupt any more: what is queued is heard at once."""
        return self._hurry

    @hurry.setter
    def hurry(self, hurry: bool) -> None:
        self._hurry = hurry
        if self._timer is not None:
            self._timer.cancel()
            self._schedule(asyncio.get_running_loop().time())

    def play(self, item_id: str, pcm: bytes) -> None:
        """Queue sound behind what is already waiting to be heard."""
        self._playback.push(item_id, pcm)
        self._wake()

    def end(self, item_id: str) -> None:
        """No more sound of this item comes."""
        self._playback.end(item_id)
        self._wake()

    def _wake(self) -> None:
        if self._timer is None:
            wait = 0.0 if self._hurry or not self._playback.waiting else FRAME_SECONDS
            self._schedule(asyncio.get_running_loop().time() + wait)

    def _schedule(self, due: float) -> None:
        self._due = due
        self._timer = asyncio.get_running_loop().call_at(due, self._tick)

    def _tick(self) -> None:
        """The last 20 ms of what is queued have now been heard, or, in a hurry, the next second."""
        self._timer = None
        count = min(self._playback.waiting, SAMPLE_RATE if self._hurry else FRAME_SAMPLES)
        heard = np.empty(count, dtype="<i2")
        finished = self._playback.pull(heard)
        if not self._playback.is_empty:
            self._schedule(self._due + (0 if self._hurry else FRAME_SECONDS))
        if count:
            self._listener.played(heard.tobytes())
            self._write(heard.tobytes())
        for item_id, heard_ms in finished:
            self._listener.finished(item_id, heard_ms)

    def _write(self, pcm: bytes) -> None:
        if self._sink is None:
            return
        try:
            self._sink.write(pcm)
        except OutputError as error:
            self._sink = None
            self._listener.failed(error)


class RawOutput:
    """Raw PCM16, 24 kHz, mono, into a pipe: standard output, by its descriptor.

    A thread writes, since whoever reads may pause for as long as they like, and the conversation
    must not.

    Raises:
        OutputError: Nobody reads any more; by `write` or `close`, whichever comes first.
    """

    PIECE = 4096
    PATIENCE = 2.0
    """Seconds without anything read after which `close` gives up on whoever reads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._progress = Event()
        self._error: OSError | None = None
        self._thread = Thread(target=self._run, name="standard output", daemon=True)
        self._thread.start()

    def write(self, pcm: bytes) -> None:
        """Add sound; it is written soon."""
        self._check()
        self._queue.put(pcm)

    def close(self) -> None:
        """Wait until all is written, for as long as it is being read."""
        self._queue.put(None)
        while self._thread.is_alive() and self._progress.wait(self.PATIENCE):
            self._progress.clear()
            self._thread.join(self.PIECE / SAMPLE_RATE / BYTES_PER_SAMPLE)
        if self._thread.is_alive():
            raise self._failure(f"nobody read it for {self.PATIENCE:g} s")
        self._check()

    def _check(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise self._failure(error.strerror) from error

    def _failure(self, why: str | None) -> OutputError:
        return OutputError(
            f"the sound cannot be written to standard output: {why}",
            remedy="Write it to a file, with `--output FILE`.",
        )

    def _run(self) -> None:
        while (pcm := self._queue.get()) is not None:
            left = memoryview(pcm)
            while left:
                try:
                    left = left[os.write(self._descriptor, left[: self.PIECE]) :]
                except OSError as error:
                    self._error = error
                    self._progress.set()
                    return
                self._progress.set()
        self._progress.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
