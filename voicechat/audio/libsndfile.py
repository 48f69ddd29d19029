"""A door: libsndfile, which reads FLAC, Ogg, MP3 and many other kinds, and writes FLAC.

It is loaded only when such a file is met, so that nothing else needs it or waits for it.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import IO, Any, Self

from numpy.typing import NDArray

from voicechat.errors import AudioFileError, OutputError
from voicechat.pcm import BYTES_PER_SAMPLE, SAMPLE_RATE

PIECE = 1024
"""Frames that are read at a time; of a file that breaks off, so many at most are lost."""
UNKNOWN_FRAMES = 1 << 62
"""From here on: the file does not say how many it has."""
FASTEST = 0.0
"""FLAC's lowest compression: blocks of 48 ms, not 170, and files some 4 % larger."""


LENGTH_AT = 18
"""Where a FLAC file says how long it is, in bytes from its beginning."""
UNFINISHED = SAMPLE_RATE // 10
"""Frames that the encoder may still hold back, of blocks that are not full."""
TELLING = SAMPLE_RATE * 3 // 10


class UnreadableError(Exception):
    """It is of no kind that libsndfile reads, or from here on it is damaged."""


class SoundReader:
    """A sound file, read once from its beginning to its end.

    Args:
        file: Open, and able to seek.

    Raises:
        UnreadableError: At construction, it is of no known kind.
        AudioFileError: There is no libsndfile.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._library = _library(AudioFileError)
        os.lseek(file.fileno(), 0, os.SEEK_SET)  # not `seek`, which trusts a buffer
        try:
            # By descriptor: a name may say .raw, and a file object has callbacks that cannot fail.
            self._sound = self._library.SoundFile(file.fileno(), closefd=False)
        except self._library.SoundFileError as error:
            raise UnreadableError(str(error)) from error
        _read_straight_on(self._sound)
        self.rate: int = self._sound.samplerate
        self.channels: int = self._sound.channels
        self.frames: int | None = self._sound.frames
        """How many it says it has."""
        if self._sound.frames >= UNKNOWN_FRAMES:
            self.frames = None

    def blocks(self, dtype: str = "float32") -> Iterator[NDArray[Any]]:
        """All of it, shape (n, channels) each.

        Raises:
            UnreadableError: It goes on, but not so that it can be understood.
        """
        while len(block := self._read(dtype)):
            yield block

    def _read(self, dtype: str) -> NDArray[Any]:
        try:
            block: NDArray[Any] = self._sound.read(PIECE, dtype=dtype, always_2d=True)
        except self._library.SoundFileError as error:
            raise UnreadableError(str(error)) from error
        return block

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._sound.close()


class FlacWriter:
    """Sound that is being written as FLAC, 24 kHz, 16 bits.

    It can be read at any time, up to the last half second: the header says how much there is at
    least, because many programs make nothing of a file that does not say.

    Args:
        file: Open for writing.  It is finished but not closed.

    Raises:
        OSError: It cannot be written, by any method.  What was written can still be read.
        OutputError: There is no libsndfile.
    """

    def __init__(self, file: IO[bytes], channels: int) -> None:
        library = _library(OutputError)
        self._target = _Target(file)
        self._channels = channels
        self._frames = self._told = 0
        self._sound = library.SoundFile(
            self._target,
            "w",
            samplerate=SAMPLE_RATE,
            channels=channels,
            format="FLAC",
            subtype="PCM_16",
            compression_level=FASTEST,
        )
        _read_straight_on(self._sound)
        self._target.check()

    def write(self, pcm: bytes) -> None:
        """Add sound, the channels taking turns sample by sample."""
        self._sound.buffer_write(pcm, dtype="int16")
        self._frames += len(pcm) // (self._channels * BYTES_PER_SAMPLE)
        if self._frames - self._told > TELLING:
            self._told = self._frames - UNFINISHED
            self._target.correct(LENGTH_AT, self._length(self._told))
        self._target.check()

    def _length(self, frames: int) -> bytes:
        """That part of the header (RFC 9639, section 8.2)."""
        bits = SAMPLE_RATE << 44 | (self._channels - 1) << 41 | (16 - 1) << 36 | frames
        return bits.to_bytes(8, "big")

    def finish(self) -> None:
        """Write what is left, and say in the header how much there is, unless this is a pipe."""
        self._sound.close()
        self._target.check()


class _Target:
    """A file as libsndfile's callbacks see it: an error in them would be printed, and forgotten."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._can_seek = file.seekable()
        self._at = self._end = 0
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise what has gone wrong, each time: nothing is written any more after that."""
        if self._error is not None:
            raise OSError(self._error.errno, self._error.strerror) from self._error

    def write(self, block: bytes) -> int:
        """Write all of it."""
        is_correction = self._at < self._end
        if self._error is None and (self._can_seek or not is_correction):
            try:
                left = memoryview(block)
                while left:
                    left = left[self._file.write(left) :]
            except OSError as error:
                self._error = error
            except ValueError:  # it was closed since: what is unfinished remains so
                self._error = OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._at += len(block)
        self._end = max(self._at, self._end)
        return len(block)

    def correct(self, at: int, block: bytes) -> None:
        """Write over what is there, and stay where this is."""
        here = self.tell()
        self.seek(at)
        self.write(block)
        self.seek(here)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to another place."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        at = base + offset
        if self._error is None and self._can_seek and at != self._at:
            try:
                self._file.seek(at)
            except OSError as error:
                self._error = error
            except ValueError:
                self._error = OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._at = at
        return at

    def tell(self) -> int:
        """Say where this is."""
        return self._at


def _library(error: type[AudioFileError] | type[OutputError]) -> ModuleType:
    try:
        import soundfile
    except (ImportError, OSError) as missing:  # the package, or the C library that it looks for
        raise error(
            "the library libsndfile, which only WAV does without, is missing",
            remedy="Install it: `sudo apt install libsndfile1`, `brew install libsndfile`, or "
            "`pip install --force-reinstall soundfile`.",
        ) from missing
    module: ModuleType = soundfile
    return module


def _read_straight_on(sound: Any) -> None:
    """Do without the seek after every block, by which soundfile makes sure of where it is.

    It tears MP3 (whose frames lean on those before) and loses the last block of a FLAC file that
    does not say how long it is.
    """
    sound.seekable = lambda: False


@contextmanager
def silenced() -> Iterator[None]:
    """Let nothing reach standard error: libsndfile's MP3 decoder complains there by itself."""
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
