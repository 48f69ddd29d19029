"""A door: sound files, read into the one audio format, and WAV files written from it.

WAV is read here, everything else by libsndfile.  That reads WAV, too, but not from a pipe, not if
the size is said to be 0 as streaming programs do, and without a word if the file is cut short.
The standard library's `wave` of Python 3.11 refuses WAVE_FORMAT_EXTENSIBLE and float samples.
"""

import shlex
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from voicechat.audio.libsndfile import SoundReader, UnreadableError, silenced
from voicechat.errors import AudioFileError, OutputError
from voicechat.pcm import BYTES_PER_SAMPLE, SAMPLE_RATE
from voicechat.resampling import Resampler

UNKNOWN_SIZE = 0x7FFFF000
"""From here on, and 0: a program that wrote to a pipe did not know how much would come."""
PIECE_BYTES = 1 << 16
LONGEST_HOURS = 6
"""Longer than any session; a wrong header must not fill the memory."""
LARGEST_COPY = 1 << 30
"""Bytes of what comes through a pipe and must be kept, since libsndfile wants to seek."""
RATES = range(1_000, 384_001)
MISSING_SECONDS = 0.25
"""A file that lacks less is as good as whole: headers of MP3 files are not exact."""
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
SUBFORMAT_TAIL = bytes.fromhex("000000001000800000aa00389b71")
"""Of the GUIDs that stand for the two-byte formats (RFC 2361)."""
UNREAD = [
    (4, b"ftyp", "an MP4 file (AAC or video)"),
    (0, b"\x1a\x45\xdf\xa3", "a WebM or Matroska file"),
    (8, b"AVI ", "an AVI video"),
    (0, b"\x30\x26\xb2\x75", "a Windows Media file"),
    (0, b"#!AMR", "an AMR file"),
]
"""What many programs write and libsndfile does not read: where to look, for what, its name."""


class _Format(NamedTuple):
    """How the samples of a WAV file are written."""

    tag: int
    """PCM, FLOAT, or the number of a codec."""
    width: int
    """Bytes of one sample, if it is not compressed."""
    channels: int
    rate: int


def read_audio(path: Path) -> bytes:
    """Read a sound file of any kind, rate and channel count as PCM16, 24 kHz, mono.

    Raises:
        AudioFileError: It cannot be read, is of no kind that is known here, is cut short, or holds
            no sound.
    """
    try:
        with path.open("rb") as file:
            pcm = _read(path, file)
    except FileNotFoundError as error:
        raise AudioFileError(
            f"the sound file {str(path)!r} does not exist",
            remedy=f"Check the path; the current directory is {str(Path.cwd())!r}.",
        ) from error
    except OSError as error:
        raise AudioFileError(
            f"the sound file {str(path)!r} cannot be read: {error.strerror}",
            remedy="Name a sound file that you may read.",
        ) from error
    if not pcm:
        raise _unusable(path, "holds no sound", "Record it again, or name another file.")
    return pcm


def _unusable(path: Path, why: str, remedy: str | None = None) -> AudioFileError:
    convert = f"Convert it: `ffmpeg -i {shlex.quote(str(path))} -ar 24000 -ac 1 out.wav`."
    return AudioFileError(f"the sound file {str(path)!r} {why}", remedy=remedy or convert)


def _read(path: Path, file: IO[bytes]) -> bytes:
    head = file.read(12)
    if not head:
        raise _unusable(path, "is empty", "Record it again, or name another file.")
    unread = "is no sound file of a known kind"
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        form, size = _find_samples(path, file)
        if form.tag in (PCM, FLOAT):
            frame = form.width * form.channels
            pieces = _pieces(path, file, size, max(1, PIECE_BYTES // frame) * frame)
            whole = (piece[: len(piece) // frame * frame] for piece in pieces)
            return _convert(path, form.rate, (_samples(piece, form) for piece in whole))
        unread = f"is compressed (codec number 0x{form.tag:04x})"
        if not file.seekable():  # what was read is gone
            raise _unusable(path, unread)
    for at, mark, name in UNREAD:
        if head[at:].startswith(mark):
            raise _unusable(path, f"is {name}, which is not read here")
    if file.seekable():
        return _decode(path, file, unread)
    with TemporaryFile() as copy:
        copy.write(head)
        for piece in _pieces(path, file, None, PIECE_BYTES):
            copy.write(piece)
            if copy.tell() > LARGEST_COPY:
                raise _unusable(path, "is too much for a pipe", "Save it to a file, and name that.")
        copy.flush()
        return _decode(path, copy, unread)


def _decode(path: Path, file: IO[bytes], unread: str) -> bytes:
    """Let libsndfile read it; `unread` says what it is if that cannot."""
    with silenced():
        try:
            reader = SoundReader(file)
        except UnreadableError as error:
            raise _unusable(path, unread) from error
        with reader:
            if reader.rate not in RATES:
                raise _wrong_rate(path, reader.rate)
            return _convert(path, reader.rate, _mixed(path, reader))


def _mixed(path: Path, reader: SoundReader) -> Iterator[NDArray[np.float32]]:
    """All of a file, its channels mixed into one."""
    heard = 0
    is_damaged = False
    try:
        for block in reader.blocks():
            heard += len(block)
            yield _tamed(block).mean(axis=1)
    except UnreadableError:
        is_damaged = True
    missing = ((reader.frames or 0) - heard) / reader.rate
    if is_damaged or missing > MISSING_SECONDS:
        raise _unusable(path, f"is cut short or damaged after {heard / reader.rate:.1f} s")


def _convert(path: Path, rate: int, blocks: Iterable[NDArray[np.float32]]) -> bytes:
    """Resample block by block, so that hours need no more memory than their own."""
    resampler = Resampler(rate, SAMPLE_RATE)
    pcm = bytearray()
    heard = 0
    for samples in blocks:
        heard += len(samples)
        if heard > LONGEST_HOURS * 3600 * rate:
            raise _unusable(path, f"is longer than {LONGEST_HOURS} hours", "Cut it into parts.")
        pcm += _pcm(resampler.push(samples))
    pcm += _pcm(resampler.flush())
    return bytes(pcm)


def _find_samples(path: Path, file: IO[bytes]) -> tuple[_Format, int | None]:
    """Read up to the first sample: how they are written, how many bytes (None: to the end).

    The head of the file has been read already.
    """
    form = None
    while len(chunk := file.read(8)) == 8:
        kind, size = struct.unpack("<4sI", chunk)
        if kind == b"data":
            if form is None:
                raise _unusable(path, "is damaged: it does not say how its sound is written")
            return form, None if size == 0 or size >= UNKNOWN_SIZE else size
        if kind == b"fmt ":
            if size > PIECE_BYTES:
                raise _unusable(path, f"is damaged: its format takes {size} bytes")
            form = _read_format(path, file.read(size + size % 2))
        else:
            for _ in _pieces(path, file, size + size % 2, PIECE_BYTES):
                pass  # not seek: it may be a pipe
    raise _unusable(path, "holds no sound", "Record it again, or name another file.")


def _read_format(path: Path, header: bytes) -> _Format:
    """Understand the ``fmt`` chunk (Microsoft, "Multiple Channel Audio Data and WAVE Files")."""
    if len(header) < 16:
        raise _unusable(path, "is damaged: its header is cut short")
    tag, channels, rate, _, frame, bits = struct.unpack("<HHIIHH", header[:16])
    if tag == EXTENSIBLE and header[26:40] == SUBFORMAT_TAIL:
        tag = struct.unpack("<H", header[24:26])[0]
    if tag not in (PCM, FLOAT):
        return _Format(tag, 0, channels, rate)
    width = frame // channels if channels else 0  # 20 bits are written in 3 bytes, or in 4
    if frame != width * channels or width not in ((4, 8) if tag == FLOAT else (1, 2, 3, 4)):
        raise _unusable(path, f"is damaged: {channels} channels of {bits} bits in {frame} bytes")
    if rate not in RATES:
        raise _wrong_rate(path, rate)
    return _Format(tag, width, channels, rate)


def _wrong_rate(path: Path, rate: int) -> AudioFileError:
    return _unusable(path, f"has {rate} samples a second, not {RATES[0]} to {RATES[-1]}")


def _pieces(path: Path, file: IO[bytes], size: int | None, at_most: int) -> Iterator[bytes]:
    """So many bytes (None: all that is left), in pieces."""
    left = size
    while left is None or left > 0:
        wanted = at_most if left is None else min(left, at_most)
        piece = file.read(wanted)
        if left is not None:
            left -= len(piece)
            if len(piece) < wanted:
                raise _unusable(
                    path,
                    f"is cut short: {left} of {size} bytes are missing",
                    "Copy or record it again.",
                )
        elif not piece:
            return
        yield piece


def _samples(piece: bytes, form: _Format) -> NDArray[np.float32]:
    """One piece as samples between -1 and 1, its channels mixed into one, shape (n,)."""
    full = float(1 << (8 * form.width - 1))
    samples: NDArray[np.float32]
    if form.tag == FLOAT:
        samples = _tamed(np.frombuffer(piece, dtype=f"<f{form.width}"))
    elif form.width == 1:  # the only size without a sign
        samples = (np.frombuffer(piece, dtype=np.uint8).astype(np.float32) - full) / full
    elif form.width == 3:
        wide = np.zeros((len(piece) // 3, 4), dtype=np.uint8)
        wide[:, 1:] = np.frombuffer(piece, dtype=np.uint8).reshape(-1, 3)
        samples = wide.view("<i4")[:, 0].astype(np.float32) / (full * 256)
    else:
        samples = np.frombuffer(piece, dtype=f"<i{form.width}").astype(np.float32) / full
    share = np.full(form.channels, 1 / form.channels, dtype=np.float32)
    mixed: NDArray[np.float32] = samples.reshape(-1, form.channels) @ share
    return mixed


def _tamed(samples: NDArray[np.floating]) -> NDArray[np.float32]:
    """Floats as samples: between -1 and 1, and numbers."""
    tamed: NDArray[np.float32] = np.nan_to_num(samples, posinf=1, neginf=-1).astype(np.float32)
    return tamed.clip(-1, 1)


def _pcm(samples: NDArray[np.float32]) -> bytes:
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()


class WavWriter:
    """Sound that is being written as WAV, 24 kHz, 16 bits.

    It can be read at any time, even if the program is killed: until `finish`, its header says that
    the sound goes on to the end of the file.

    Args:
        file: Open for writing, without a buffer.  It is finished but not closed.

    Raises:
        OSError: It cannot be written, by any method.
    """

    def __init__(self, file: IO[bytes], channels: int = 1) -> None:
        self._file = file
        self._channels = channels
        self._bytes = 0
        self._put(self._header(0xFFFF_FFFF))

    def write(self, pcm: bytes) -> None:
        """Add sound, the channels taking turns; it is in the file when this returns."""
        self._put(pcm)
        self._bytes += len(pcm)

    def finish(self) -> None:
        """Say in the header how much there is, unless this is a pipe."""
        if self._file.seekable():
            self._file.seek(0)
            self._put(self._header(self._bytes))

    def _put(self, block: bytes) -> None:
        left = memoryview(block)
        while left:
            left = left[self._file.write(left) :]

    def _header(self, size: int) -> bytes:
        riff_size = min(size + 36, 0xFFFF_FFFF)
        frame = self._channels * BYTES_PER_SAMPLE
        form = (16, PCM, self._channels, SAMPLE_RATE, SAMPLE_RATE * frame, frame)
        riff = struct.pack("<4sI4s", b"RIFF", riff_size, b"WAVE")
        riff += struct.pack("<4sIHHIIHH", b"fmt ", *form, 8 * BYTES_PER_SAMPLE)
        return riff + struct.pack("<4sI", b"data", min(size, 0xFFFF_FFFF))


class WavFile:
    """A WAV file of a user's, mono.

    Raises:
        OutputError: It cannot be written, at construction or later.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise self._failure(error) from error
        try:
            self._writer = WavWriter(self._file)
        except OSError as error:
            self._file.close()
            raise self._failure(error) from error

    def write(self, pcm: bytes) -> None:
        """Add sound; it is in the file when this returns."""
        try:
            self._writer.write(pcm)
        except OSError as error:
            self._file.close()
            raise self._failure(error) from error

    def close(self) -> None:
        """Say in the header how much there is."""
        if self._file.closed:  # it failed, and that was told
            return
        try:
            self._writer.finish()
        except OSError as error:
            raise self._failure(error) from error
        finally:
            self._file.close()

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(
            f"{str(self._path)!r} cannot be written: {error.strerror}",
            remedy="Name a file in a directory that exists and has room, with `--output FILE`.",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
