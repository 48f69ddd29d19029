"""A door: WAV files, read into the one audio format and written from it.

Why not the standard library's `wave`: that of Python 3.11 refuses WAVE_FORMAT_EXTENSIBLE and float
samples, wants to seek, and believes the sizes that streaming programs make up.
"""

import shlex
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from voicechat.errors import AudioFileError, OutputError
from voicechat.pcm import BYTES_PER_SAMPLE, SAMPLE_RATE
from voicechat.resampling import Resampler

UNKNOWN_SIZE = 0x7FFFF000
"""From here on, and 0: a program that wrote to a pipe did not know how much would come."""
PIECE_BYTES = 1 << 16
LONGEST_HOURS = 6
"""Longer than any session; a wrong header must not fill the memory."""
RATES = range(1_000, 384_001)
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
SUBFORMAT_TAIL = bytes.fromhex("000000001000800000aa00389b71")
"""Of the GUIDs that stand for the two-byte formats (RFC 2361)."""
COMPRESSED = {
    0x02: "ADPCM",
    0x06: "A-law",
    0x07: "mu-law",
    0x11: "IMA ADPCM",
    0x31: "GSM 6.10",
    0x50: "MPEG audio",
    0x55: "MP3",
    0xFF: "AAC",
    0x674F: "Vorbis",
    0x704F: "Opus",
}
LOOKS_LIKE = [
    (0, b"ID3", "an MP3 file"),
    (0, b"\xff\xfb", "an MP3 file"),
    (0, b"\xff\xf3", "an MP3 file"),
    (0, b"fLaC", "a FLAC file"),
    (0, b"OggS", "an Ogg file (Vorbis or Opus)"),
    (4, b"ftyp", "an MP4 file (AAC or video)"),
    (0, b"\x1a\x45\xdf\xa3", "a WebM or Matroska video"),
    (8, b"AVI ", "an AVI video"),
    (8, b"AIF", "an AIFF file"),
    (0, b".snd", "a Sun audio file"),
    (0, b"RF64", "an RF64 file, a WAV of more than 4 GB"),
    (0, b"RIFX", "a big-endian WAV"),
]


class _Format(NamedTuple):
    """How the samples of a WAV file are written."""

    is_float: bool
    width: int
    """Bytes of one sample."""
    channels: int
    rate: int


def read_audio(path: Path) -> bytes:
    """Read a WAV file of any rate, channel count and sample size as PCM16, 24 kHz, mono.

    Raises:
        AudioFileError: It cannot be read, is not an uncompressed WAV file, is cut short, or holds
            no sound.
    """
    try:
        with path.open("rb") as file:
            pcm = b"".join(_convert(path, file))
    except FileNotFoundError as error:
        raise AudioFileError(
            f"the sound file {str(path)!r} does not exist",
            remedy=f"Check the path; the current directory is {str(Path.cwd())!r}.",
        ) from error
    except OSError as error:
        raise AudioFileError(
            f"the sound file {str(path)!r} cannot be read: {error.strerror}",
            remedy="Name a WAV file that you may read.",
        ) from error
    if not pcm:
        raise _unusable(path, "holds no sound", "Record it again, or name another file.")
    return pcm


def _unusable(path: Path, why: str, remedy: str | None = None) -> AudioFileError:
    convert = f"Convert it: `ffmpeg -i {shlex.quote(str(path))} -ar 24000 -ac 1 out.wav`."
    return AudioFileError(f"the sound file {str(path)!r} {why}", remedy=remedy or convert)


def _convert(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """The sound of an open WAV file, piece by piece, so that hours need little memory."""
    form, size = _find_samples(path, file)
    resampler = Resampler(form.rate, SAMPLE_RATE)
    frame = form.width * form.channels
    piece_bytes = max(1, PIECE_BYTES // frame) * frame
    heard = 0
    for piece in _pieces(path, file, size, piece_bytes):
        samples = _samples(piece[: len(piece) // frame * frame], form)
        heard += len(samples)
        if heard > LONGEST_HOURS * 3600 * form.rate:
            raise _unusable(path, f"is longer than {LONGEST_HOURS} hours", "Cut it into parts.")
        yield _pcm(resampler.push(samples))
    yield _pcm(resampler.flush())


def _find_samples(path: Path, file: BinaryIO) -> tuple[_Format, int | None]:
    """Read up to the first sample: how they are written, how many bytes (None: to the end)."""
    head = file.read(12)
    if not head:
        raise _unusable(path, "is empty", "Record it again, or name another file.")
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        names = (f" but {name}" for at, mark, name in LOOKS_LIKE if head[at:].startswith(mark))
        raise _unusable(path, f"is not a WAV file{next(names, '')}")
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
        codec = COMPRESSED.get(tag, f"codec number 0x{tag:04x}")
        raise _unusable(path, f"is compressed ({codec})")
    width = frame // channels if channels else 0  # 20 bits are written in 3 bytes, or in 4
    if frame != width * channels or width not in ((4, 8) if tag == FLOAT else (1, 2, 3, 4)):
        raise _unusable(path, f"is damaged: {channels} channels of {bits} bits in {frame} bytes")
    if rate not in RATES:
        raise _unusable(path, f"has {rate} samples a second, not {RATES[0]} to {RATES[-1]}")
    return _Format(tag == FLOAT, width, channels, rate)


def _pieces(path: Path, file: BinaryIO, size: int | None, at_most: int) -> Iterator[bytes]:
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
    if form.is_float:
        loose = np.frombuffer(piece, dtype=f"<f{form.width}")
        samples = np.clip(np.nan_to_num(loose, posinf=1, neginf=-1), -1, 1).astype(np.float32)
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


def _pcm(samples: NDArray[np.float32]) -> bytes:
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()


class WavFile:
    """A WAV file that is being written, 24 kHz, mono, 16 bits.

    It can be read at any time, even if the program is killed: until it is closed, its header says
    that the sound goes on to the end of the file.

    Raises:
        OutputError: It cannot be written, at construction or later.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes = 0
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise self._failure(error) from error
        self._put(self._header(0xFFFF_FFFF))

    def write(self, pcm: bytes) -> None:
        """Add sound; it is in the file when this returns."""
        self._put(pcm)
        self._bytes += len(pcm)

    def close(self) -> None:
        """Say in the header how much there is."""
        if self._file.closed:  # it failed, and that was told
            return
        if self._file.seekable():  # a pipe keeps the open end
            self._file.seek(0)
            self._put(self._header(self._bytes))
        self._file.close()

    def _put(self, block: bytes) -> None:
        left = memoryview(block)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._file.close()
            raise self._failure(error) from error

    def _header(self, size: int) -> bytes:
        riff_size = min(size + 36, 0xFFFF_FFFF)
        byte_rate = SAMPLE_RATE * BYTES_PER_SAMPLE
        form = (16, PCM, 1, SAMPLE_RATE, byte_rate, BYTES_PER_SAMPLE, 8 * BYTES_PER_SAMPLE)
        riff = struct.pack("<4sI4s", b"RIFF", riff_size, b"WAVE")
        return riff + struct.pack("<4sIHHIIHH4sI", b"fmt ", *form, b"data", min(size, 0xFFFF_FFFF))

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(
            f"{str(self._path)!r} cannot be written: {error.strerror}",
            remedy="Name a file in a directory that exists and has room, with `--output FILE`.",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
