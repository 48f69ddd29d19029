"""The room's door to sound files and pipes: what hears and speaks where there is no sound card.

This module never imports sounddevice, so that files work on machines without PortAudio.
"""

import asyncio
import os
import shlex
import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import BinaryIO, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from voicechat.audio.playback import PlaybackBuffer
from voicechat.errors import AudioFileError, OutputError
from voicechat.pcm import BYTES_PER_SAMPLE, FRAME_BYTES, FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE
from voicechat.resampling import Resampler

FRAME_SECONDS = FRAME_MS / 1000
SILENCE = bytes(FRAME_BYTES)

# Reading WAV files ------------------------------------------------------------------------------

# Why not the standard library's `wave`: that of Python 3.11 refuses WAVE_FORMAT_EXTENSIBLE and
# float samples, wants to seek, and believes the sizes that streaming programs make up.

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
    def open(self, on_frame: Callable[[bytes], object]) -> Iterator[None]:
        """Hear from now on: `on_frame` is called with 960 bytes at a time."""
        self._on_frame = on_frame
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
        self._on_finished: Callable[[str, int], object] = lambda item_id, heard_ms: None
        self._on_failure: Callable[[OutputError], object] = lambda error: None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._hurry = False
        self.stop = self._playback.stop

    @contextmanager
    def open(
        self,
        on_finished: Callable[[str, int], object],
        on_failure: Callable[[OutputError], object],
    ) -> Iterator[None]:
        """Be heard until the block is left.

        Args:
            on_finished: Called with an item that was heard to its end, and how many ms it had.
            on_failure: Called once if what was heard cannot be written; after that it is heard as
                before, but nothing more is written.
        """
        self._on_finished, self._on_failure = on_finished, on_failure
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
        self._write(heard.tobytes())
        for item_id, heard_ms in finished:
            self._on_finished(item_id, heard_ms)

    def _write(self, pcm: bytes) -> None:
        if self._sink is None or not pcm:
            return
        try:
            self._sink.write(pcm)
        except OutputError as error:
            self._sink = None
            self._on_failure(error)


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
