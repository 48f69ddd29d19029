"""A door: a conversation as one stereo file, the user on the left, the assistant on the right."""

import errno
import os
import time
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Self

import numpy as np

from voicechat.audio.libsndfile import FlacWriter
from voicechat.audio.wav import WavWriter
from voicechat.errors import OutputError
from voicechat.pcm import BYTES_PER_MS, BYTES_PER_SAMPLE, SAMPLE_RATE
from voicechat.sound import check_recording_name

WRITERS = {".wav": WavWriter, ".flac": FlacWriter}
MOST_LATE = 250 * BYTES_PER_MS
"""Sound that comes this much after the end of what came before it is put in its own place."""
MOST_BEHIND = 500 * BYTES_PER_MS
"""A side that lags so much behind the other is silent, not late."""
PIECE = SAMPLE_RATE * BYTES_PER_SAMPLE
"""Bytes of silence that are written at a time, a second of one side."""
SYNC_SECONDS = 1.0
MOST_WAITING = 60_000
"""Calls that wait for a slow disk: ten minutes or more, some 60 MB."""


class _Side:
    """One side of the conversation: contiguous sound."""

    def __init__(self) -> None:
        self.waiting = bytearray()
        self.end = 0
        """Where its sound ends, in bytes since the recording began."""

    def add(self, pcm: bytes) -> None:
        self.waiting += pcm
        self.end += len(pcm)


class Recorder:
    """Writes a conversation down as it is heard: stereo, 24 kHz, 16 bits, WAV or FLAC.

    A side that stopped for a while is silent there, and one that is ahead of the clock goes on, so
    that both stay what they are.  A thread writes, since the conversation must not wait for a disk.
    Whatever ends the program, all but the last second is in the file and can be read.

    Args:
        path: Ends in ``.wav`` or ``.flac``; a file that is there already is overwritten.
        start_ms: Where the file begins on the session's timeline.

    Raises:
        UsageError: The path ends in something else.
        OutputError: It cannot be written, at construction or, once, by any method; what was
            written until then can be read.
    """

    CLOSING_SECONDS = 1.0
    """After which `close` gives up on a disk that takes nothing."""

    def __init__(self, path: Path, start_ms: int = 0) -> None:
        self._path = path
        self._start_ms = start_ms
        check_recording_name(str(path))
        kind = WRITERS[path.suffix.lower()]
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise self._failure(error.strerror) from error
        try:
            self._writer = kind(self._file, 2)
        except OSError as error:
            self._file.close()
            raise self._failure(error.strerror) from error
        except OutputError:
            self._file.close()
            raise
        self._links = os.fstat(self._file.fileno()).st_nlink
        self._synced = time.monotonic()
        self._user, self._assistant = _Side(), _Side()
        self._error: OSError | None = None
        self._is_over = self._is_written = False
        self._queue: SimpleQueue[tuple[_Side, bytes, int] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def user(self, pcm: bytes, now_ms: int) -> None:
        """Add what the user said up to `now_ms` on the session's timeline; return at once."""
        self._put(self._user, pcm, now_ms)

    def assistant(self, pcm: bytes, now_ms: int) -> None:
        """Add what was heard of the assistant up to `now_ms`; return at once."""
        self._put(self._assistant, pcm, now_ms)

    def close(self) -> None:
        """Write what is left, and wait for it, but not for long."""
        if self._is_over:  # it failed, and that was told
            return
        self._is_over = True
        self._queue.put(None)
        self._thread.join(self.CLOSING_SECONDS)
        if self._thread.is_alive() and not self._is_written:
            raise self._failure("the disk is too slow for its end")
        self._check()

    def _put(self, side: _Side, pcm: bytes, now_ms: int) -> None:
        if self._is_over:
            return
        self._check()
        if self._queue.qsize() >= MOST_WAITING:
            self._is_over = True
            self._queue.put(None)
            raise self._failure("the disk is too slow")
        self._queue.put((side, pcm, now_ms))

    def _check(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            self._is_over = True
            raise self._failure(error.strerror) from error

    def _failure(self, why: str | None) -> OutputError:
        return OutputError(
            f"the recording {str(self._path)!r} cannot be written: {why}",
            remedy="Name a file in a directory that exists and has room, with `--record FILE`.",
        )

    # On the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (added := self._queue.get()) is not None:
                self._add(*added)
                self._sync()
            self._pad(self._user, self._assistant.end)
            self._pad(self._assistant, self._user.end)
            self._writer.finish()
            self._is_written = True
            self._onto_disk()
        except OSError as error:
            self._error = error
        finally:
            self._file.close()

    def _add(self, side: _Side, pcm: bytes, now_ms: int) -> None:
        begins = (now_ms - self._start_ms) * BYTES_PER_MS - len(pcm)
        if begins - side.end > MOST_LATE:
            self._pad(side, begins)
        side.add(pcm)
        self._even_out(side)

    def _pad(self, side: _Side, end: int) -> None:
        """Silence up to there; by the second, since a machine may have slept for a night."""
        while side.end < end:
            side.add(bytes(min(PIECE, end - side.end)))
            self._even_out(side)

    def _even_out(self, leading: _Side) -> None:
        """Write what both sides have, once the other one has what must not be waited for."""
        other = self._assistant if leading is self._user else self._user
        missing = leading.end - MOST_BEHIND - other.end
        if missing > 0:
            other.add(bytes(missing))
        samples = min(len(leading.waiting), len(other.waiting)) // BYTES_PER_SAMPLE
        if not samples:
            return
        stereo = np.empty((samples, 2), dtype="<i2")
        for channel, side in enumerate((self._user, self._assistant)):
            size = samples * BYTES_PER_SAMPLE
            stereo[:, channel] = np.frombuffer(bytes(side.waiting[:size]), dtype="<i2")
            del side.waiting[:size]
        self._writer.write(stereo.tobytes())

    def _sync(self) -> None:
        now = time.monotonic()
        if now - self._synced < SYNC_SECONDS:
            return
        self._synced = now
        self._onto_disk()
        if os.fstat(self._file.fileno()).st_nlink < self._links:
            raise FileNotFoundError(0, "it was deleted")

    def _onto_disk(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            if error.errno != errno.EINVAL:  # a pipe or a device has no disk
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
