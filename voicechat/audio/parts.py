"""A door: the recordings of a session's runs, put together on its timeline."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voicechat.audio.libsndfile import SoundReader, UnreadableError
from voicechat.errors import AudioFileError
from voicechat.pcm import SAMPLE_RATE

BLOCK = SAMPLE_RATE
"""Frames that are put together at a time."""


class _Part:
    """One recording, from its beginning to where it can be read."""

    def __init__(self, start_ms: int, path: Path) -> None:
        self.start = start_ms * SAMPLE_RATE // 1000
        """In frames, on the session's timeline."""
        self._path = path
        self._files = ExitStack()
        self._blocks: Iterator[NDArray[Any]] = iter(())
        self._rest = np.empty((0, 2), dtype="<i2")

    def open(self) -> None:
        """Begin to read; a file without so much as a header holds nothing."""
        try:
            file = self._files.enter_context(self._path.open("rb"))
            reader = self._files.enter_context(SoundReader(file))
        except UnreadableError:
            return
        except OSError as error:
            raise self._unusable(f"cannot be read: {error.strerror}") from error
        if (reader.rate, reader.channels) != (SAMPLE_RATE, 2):
            raise self._unusable("is not one that voicechat made")
        self._blocks = reader.blocks("int16")

    def take(self, count: int) -> NDArray[np.int16]:
        """The next frames, shape (count, 2); fewer at its end, and then it is closed."""
        pieces = [self._rest]
        have = len(self._rest)
        while have < count:
            try:
                piece = next(self._blocks, None)
            except UnreadableError:  # the program was killed while it wrote this
                piece = None
            if piece is None:
                self.close()
                break
            pieces.append(piece)
            have += len(piece)
        frames = np.concatenate(pieces)
        self._rest = frames[count:]
        return frames[:count]

    def close(self) -> None:
        """Let go of the file."""
        self._files.close()

    def _unusable(self, why: str) -> AudioFileError:
        return AudioFileError(
            f"the recording {str(self._path)!r} {why}", remedy="Move it away, and export again."
        )


def end_ms(recordings: Sequence[tuple[int, Path]]) -> int:
    """Where on the session's timeline the last of its recordings ends; what is no sound is passed
    over.

    Args:
        recordings: Where each begins on the session's timeline, in ms, and its file.
    """
    return max((start_ms + _length_ms(path) for start_ms, path in recordings), default=0)


def _length_ms(path: Path) -> int:
    frames = 0
    with (
        suppress(UnreadableError, AudioFileError, OSError),
        path.open("rb") as file,
        SoundReader(file) as reader,
    ):
        if reader.frames is not None:
            frames = reader.frames
        else:  # killed at once, so this is short
            for block in reader.blocks("int16"):
                frames += len(block)
    return -(-frames * 1000 // SAMPLE_RATE)


def joined(recordings: Sequence[tuple[int, Path]]) -> Iterator[bytes]:
    """All of a session as PCM16, 24 kHz, stereo: from its beginning on, a second at a time.

    Where nothing was recorded it is silent.  Where two recordings overlap, both are heard: so do
    runs of older versions, which began at the last word that was saved, and of other machines.

    Args:
        recordings: Where each begins on the session's timeline, in ms, and its file.

    Raises:
        AudioFileError: One of them cannot be used.
    """
    waiting = deque(_Part(*recording) for recording in sorted(recordings))
    sounding: list[_Part] = []
    at = 0
    with ExitStack() as stack:
        while waiting or sounding:
            while waiting and waiting[0].start < at + BLOCK:
                sounding.append(part := waiting.popleft())
                stack.callback(part.close)
                part.open()
            mixed = np.zeros((BLOCK, 2), dtype=np.int32)
            end = BLOCK if waiting else 0
            for part in tuple(sounding):
                first = max(0, part.start - at)
                piece = part.take(BLOCK - first)
                mixed[first : first + len(piece)] += piece
                end = max(end, first + len(piece))
                if first + len(piece) < BLOCK:
                    sounding.remove(part)
            yield mixed[:end].clip(-32768, 32767).astype("<i2").tobytes()
            at += BLOCK
