"""Sound files and pipes as microphone and speaker."""

import asyncio
import os
import struct
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.listener import Notes
from voicechat.audio import wav
from voicechat.audio.files import FileMicrophone, FileSpeaker, RawOutput
from voicechat.audio.wav import WavFile, read_audio
from voicechat.errors import AudioFileError, OutputError, VoicechatError
from voicechat.pcm import FRAME_BYTES, SAMPLE_RATE, duration_ms

Samples = NDArray[np.float64]
SILENT_FRAME = bytes(FRAME_BYTES)


def tone(rate: int = SAMPLE_RATE, seconds: float = 0.5, hertz: float = 440) -> Samples:
    wave_form: Samples = 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)
    return wave_form


def pcm16(samples: Samples) -> bytes:
    return np.rint(samples * 32768).astype("<i2").tobytes()


def pcm24(samples: Samples) -> bytes:
    wide = np.rint(samples * (1 << 23)).astype("<i4")
    return wide.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()


def chunk(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    size = len(content) if size is None else size
    return struct.pack("<4sI", kind, size) + content + b"\0" * (len(content) % 2)


def form(tag: int = 1, channels: int = 1, rate: int = SAMPLE_RATE, width: int = 2) -> bytes:
    frame = channels * width
    return struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, width * 8)


def extensible(tag: int, width: int, channels: int = 1) -> bytes:
    guid = struct.pack("<H", tag) + bytes.fromhex("000000001000800000aa00389b71")
    return form(0xFFFE, channels, width=width) + struct.pack("<HHI", 22, width * 8, 4) + guid


def riff(*chunks: bytes) -> bytes:
    return chunk(b"RIFF", b"WAVE" + b"".join(chunks))


def simple(data: bytes, size: int | None = None) -> bytes:
    return riff(chunk(b"fmt ", form()), chunk(b"data", data, size))


def hear(directory: Path, content: bytes) -> Samples:
    path = directory / "question.wav"
    path.write_bytes(content)
    return np.frombuffer(read_audio(path), dtype="<i2") / 32768


def hear_through_a_pipe(directory: Path, content: bytes) -> Samples:
    pipe = directory / "question"
    os.mkfifo(pipe)

    def write() -> None:
        with suppress(BrokenPipeError):
            pipe.write_bytes(content)

    writer = Thread(target=write)
    writer.start()
    try:
        return np.frombuffer(read_audio(pipe), dtype="<i2") / 32768
    finally:
        writer.join()


def refused(directory: Path, content: bytes) -> AudioFileError:
    with pytest.raises(AudioFileError) as caught:
        hear(directory, content)
    assert "\n" not in caught.value.message
    assert caught.value.remedy.endswith(".")
    return caught.value


def decibel(samples: Samples) -> float:
    return float(10 * np.log10(2 * np.mean(samples**2) + 1e-20))


# Reading ----------------------------------------------------------------------------------------


def test_24_khz_mono_16_bit_is_read_bit_for_bit(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(-32768, 32768, 200_001).astype("<i2").tobytes()
    (tmp_path / "a.wav").write_bytes(simple(data))
    assert read_audio(tmp_path / "a.wav") == data


@pytest.mark.parametrize(
    ("header", "write"),
    [
        (form(width=1), lambda samples: (np.rint(samples * 128) + 128).astype("u1").tobytes()),
        (form(width=2), pcm16),
        (form(width=3), pcm24),
        (form(width=4), lambda samples: np.rint(samples * (1 << 31)).astype("<i4").tobytes()),
        (form(3, width=4), lambda samples: samples.astype("<f4").tobytes()),
        (form(3, width=8), lambda samples: samples.astype("<f8").tobytes()),
        (extensible(1, 2), pcm16),
        (extensible(1, 3), pcm24),
        (extensible(3, 4), lambda samples: samples.astype("<f4").tobytes()),
    ],
    ids=["8", "16", "24", "32", "float32", "float64", "ext16", "ext24", "extfloat"],
)
def test_every_sample_size_is_read(
    tmp_path: Path, header: bytes, write: Callable[[Samples], bytes]
) -> None:
    heard = hear(tmp_path, riff(chunk(b"fmt ", header), chunk(b"data", write(tone()))))
    assert len(heard) == len(tone())
    assert decibel(heard - tone()) < (-40 if header == form(width=1) else -85)


@pytest.mark.parametrize("rate", [1_000, 8_000, 11_025, 22_254, 44_100, 48_000, 192_000, 384_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_every_rate_and_channel_count_becomes_24_khz_mono(
    tmp_path: Path, rate: int, channels: int
) -> None:
    data = pcm16(np.repeat(tone(rate, hertz=100), channels))
    header = form(channels=channels, rate=rate)
    heard = hear(tmp_path, riff(chunk(b"fmt ", header), chunk(b"data", data)))
    assert len(heard) == round(len(tone(rate)) * SAMPLE_RATE / rate)
    inner = slice(2_400, 9_600)
    assert decibel((heard - tone(hertz=100)[: len(heard)])[inner]) < -70


def test_channels_are_mixed(tmp_path: Path) -> None:
    left, right = tone(hertz=300), tone(hertz=700)
    data = pcm16(np.column_stack([left, right]).ravel())
    heard = hear(tmp_path, riff(chunk(b"fmt ", form(channels=2)), chunk(b"data", data)))
    assert decibel(heard - (left + right) / 2) < -85


def test_too_loud_and_impossible_floats_are_tamed(tmp_path: Path) -> None:
    data = np.array([2, -2, np.nan, np.inf, -np.inf, 0.5], dtype="<f4").tobytes()
    heard = hear(tmp_path, riff(chunk(b"fmt ", form(3, width=4)), chunk(b"data", data)))
    assert heard.tolist() == [32767 / 32768, -1, 0, 32767 / 32768, -1, 0.5]


def test_chunks_that_are_no_sound_are_passed_over(tmp_path: Path) -> None:
    odd, large = chunk(b"LIST", b"abc"), chunk(b"bext", bytes(300_000))
    data = chunk(b"data", pcm16(tone()))
    heard = hear(tmp_path, riff(odd, chunk(b"fmt ", form()), large, data, odd))
    assert decibel(heard - tone()) < -85


@pytest.mark.parametrize("size", [0, 0x7FFF_F000, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_a_size_made_up_by_a_streaming_program_means_to_the_end(tmp_path: Path, size: int) -> None:
    assert len(hear(tmp_path, simple(pcm16(tone()), size) + b"\0")) == len(tone())


def test_a_pipe_is_read_as_well_as_a_file(tmp_path: Path) -> None:
    content = riff(chunk(b"LIST", bytes(9)), chunk(b"fmt ", form()), chunk(b"data", pcm16(tone())))
    assert decibel(hear_through_a_pipe(tmp_path, content) - tone()) < -85


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, simple(pcm16(tone()))[:-100])
    assert "cut short: 100 of 24000 bytes are missing" in error.message


def test_a_file_without_sound_is_refused(tmp_path: Path) -> None:
    assert "is empty" in refused(tmp_path, b"").message
    assert "holds no sound" in refused(tmp_path, simple(b"")).message
    assert "holds no sound" in refused(tmp_path, riff(chunk(b"fmt ", form()))).message
    assert "holds no sound" in refused(tmp_path, simple(b"\0", 1)).message


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\0\0\0\x20ftypisom" + bytes(99), "is an MP4 file"),
        (b"\x1a\x45\xdf\xa3" + bytes(99), "is a WebM or Matroska file"),
        (b"RIFF\0\0\0\0AVI " + bytes(99), "is an AVI video"),
        (b"ID3\4" + bytes(99), "is no sound file of a known kind"),
        (b"fLaC" + bytes(99), "is no sound file of a known kind"),
        (b"OggS" + bytes(99), "is no sound file of a known kind"),
        (b"Dear diary,\n", "is no sound file of a known kind"),
    ],
)
@pytest.mark.parametrize("through", [hear, hear_through_a_pipe])
def test_what_is_not_a_sound_file_is_named(
    tmp_path: Path, content: bytes, name: str, through: Callable[[Path, bytes], Samples]
) -> None:
    with pytest.raises(AudioFileError) as caught:
        through(tmp_path, content)
    assert name in caught.value.message
    assert f"ffmpeg -i {tmp_path}/question" in caught.value.remedy


@pytest.mark.parametrize("header", [form(0x55), form(0xBEEF)])
def test_compressed_sound_that_is_not_read_is_named(tmp_path: Path, header: bytes) -> None:
    error = refused(tmp_path, riff(chunk(b"fmt ", header), chunk(b"data", bytes(999))))
    assert "is compressed (codec number 0x" in error.message
    assert "ffmpeg" in error.remedy


@pytest.mark.parametrize(
    "header",
    [
        form(channels=0),
        form(width=0),
        form(width=5),
        form(3, width=2),
        form(rate=0),
        form(rate=999),
        form(rate=400_000),
        form()[:10],
    ],
)
def test_an_impossible_header_is_refused(tmp_path: Path, header: bytes) -> None:
    refused(tmp_path, riff(chunk(b"fmt ", header), chunk(b"data", bytes(960))))


def test_a_file_cut_at_any_byte_or_with_any_byte_changed_is_read_or_refused(tmp_path: Path) -> None:
    whole = riff(
        chunk(b"LIST", b"abc"), chunk(b"fmt ", extensible(1, 2)), chunk(b"data", b"\1" * 8)
    )
    for at in range(len(whole)):
        refused(tmp_path, whole[:at])
        for value in (0, 1, 0x7F, 0xFF):
            with suppress(AudioFileError):
                hear(tmp_path, whole[:at] + bytes([value]) + whole[at + 1 :])


def test_sound_without_end_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wav, "LONGEST_HOURS", 0.0001)
    assert "is longer than 0.0001 hours" in refused(tmp_path, simple(bytes(48_000))).message


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    for path, why in (
        (tmp_path / "missing.wav", "does not exist"),
        (tmp_path, "Is a directory"),
        (Path("/proc/self/mem"), "cannot be read"),
    ):
        with pytest.raises(AudioFileError, match=why) as caught:
            read_audio(path)
        assert repr(str(path)) in caught.value.message


# Hearing ----------------------------------------------------------------------------------------


def speech(frames: float) -> bytes:
    return np.random.default_rng(0).integers(1, 9, int(frames * 480)).astype("<i2").tobytes()


class Ears(Notes):
    """Everything a microphone delivered, and when; `end` is kept as an empty frame."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []
        self._changed = asyncio.Event()

    def captured(self, pcm: bytes) -> None:
        assert len(pcm) in (0, FRAME_BYTES)
        super().captured(pcm)
        self.times.append(asyncio.get_running_loop().time())
        self._changed.set()

    def end(self) -> None:
        self.captured(b"")

    async def have(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.frames) < count:
                self._changed.clear()
                await self._changed.wait()


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


def test_a_file_is_heard_frame_by_frame_then_silence() -> None:
    async def story() -> None:
        ears, microphone = Ears(), FileMicrophone()
        with microphone.open(ears):
            microphone.say(speech(2.5), ears.end)
            await ears.have(6)
        last_half = speech(2.5)[2 * FRAME_BYTES :].ljust(FRAME_BYTES, b"\0")
        assert b"".join(ears.frames[:2]) == speech(2.5)[: 2 * FRAME_BYTES]
        assert ears.frames[2:6] == [last_half, b"", SILENT_FRAME, SILENT_FRAME]

    run(story)


def test_a_file_takes_as_long_as_it_lasts_even_if_the_loop_was_late() -> None:
    async def story() -> float:
        class Slow(Ears):
            def captured(self, pcm: bytes) -> None:
                super().captured(pcm)
                if len(self.frames) == 3:
                    time.sleep(0.3)

        ears, microphone = Slow(), FileMicrophone()
        with microphone.open(ears):
            began = asyncio.get_running_loop().time()
            microphone.say(speech(15), ears.end)
            await ears.have(15)
        for number, at in enumerate(ears.times[:15], start=1):
            assert at - began > number * 0.02 - 0.005
        return ears.times[14] - began

    # 0.6 if what was late stayed late; once, on a machine that is busy.
    assert any(asyncio.run(story()) < 0.55 for _ in range(10))


def test_without_anything_said_and_at_rest_nothing_is_heard() -> None:
    async def story() -> None:
        ears, microphone = Ears(), FileMicrophone()
        with microphone.open(ears):
            await asyncio.sleep(0.06)
            assert ears.frames == []
            microphone.say(speech(1), microphone.rest)
            await ears.have(1)
            await asyncio.sleep(0.06)
            assert ears.frames == [speech(1)]
            microphone.say(speech(50), ears.end)
            await ears.have(3)
        count = len(ears.frames)
        await asyncio.sleep(0.06)
        assert len(ears.frames) == count

    run(story)


def test_the_next_file_follows_in_the_rhythm_of_the_one_before() -> None:
    async def story() -> None:
        ears, microphone = Ears(), FileMicrophone()
        with microphone.open(ears):
            began = asyncio.get_running_loop().time()
            microphone.say(speech(2), lambda: microphone.say(speech(3), ears.end))
            await ears.have(6)
        assert ears.frames[2] == SILENT_FRAME
        assert b"".join(ears.frames[3:6]) == speech(3)
        assert ears.times[5] - began > 0.115

    run(story)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for end in (read, write):
        with suppress(OSError):
            os.close(end)


def test_a_stream_is_heard_as_it_comes(pipe: tuple[int, int]) -> None:
    async def story() -> None:
        ears, microphone = Ears(), FileMicrophone()
        with microphone.open(ears):
            microphone.say_stream(pipe[0], ears.end)
            os.write(pipe[1], speech(1)[:100])
            await asyncio.sleep(0.06)
            assert ears.frames == []  # half a frame is no frame, and silence would tear it
            os.write(pipe[1], speech(1)[100:])
            await ears.have(1)
            os.write(pipe[1], speech(1) + b"\1\2\3")
            os.close(pipe[1])
            await ears.have(5)
        rest = b"\1\2".ljust(FRAME_BYTES, b"\0")
        assert ears.frames[:5] == [speech(1), speech(1), rest, b"", SILENT_FRAME]

    run(story)


def test_a_stream_that_is_a_file_is_heard_in_real_time_and_read_a_second_ahead(
    tmp_path: Path,
) -> None:
    (tmp_path / "long.raw").write_bytes(speech(500))

    async def story() -> None:
        ears, microphone = Ears(), FileMicrophone()
        with (tmp_path / "long.raw").open("rb") as file, microphone.open(ears):
            began = asyncio.get_running_loop().time()
            microphone.say_stream(file.fileno(), ears.end)
            await ears.have(10)
            assert os.lseek(file.fileno(), 0, os.SEEK_CUR) <= (len(ears.frames) + 51) * FRAME_BYTES
            assert ears.times[9] - began > 0.175
        assert b"".join(ears.frames[:10]) == speech(500)[: 10 * FRAME_BYTES]

    run(story)


def test_a_stream_that_cannot_be_read_has_ended() -> None:
    async def story() -> None:
        ears, microphone = Ears(), FileMicrophone()
        with microphone.open(ears):
            microphone.say_stream(-1, ears.end)
            await ears.have(2)
        assert ears.frames[:2] == [b"", SILENT_FRAME]

    run(story)


# Speaking ---------------------------------------------------------------------------------------


class Stage(Notes):
    """A speaker, and what it said of itself."""

    def __init__(self, speaker: FileSpeaker) -> None:
        super().__init__()
        self.speaker = speaker
        self._changed = asyncio.Event()

    def finished(self, item_id: str, heard_ms: int) -> None:
        super().finished(item_id, heard_ms)
        self._changed.set()

    def failed(self, error: VoicechatError) -> None:
        super().failed(error)
        self._changed.set()

    async def until(self, is_so: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not is_so():
                self._changed.clear()
                await self._changed.wait()


def perform(act: Callable[[Stage], Coroutine[Any, Any, None]], speaker: FileSpeaker) -> Stage:
    stages: list[Stage] = []

    async def story() -> None:
        stage = Stage(speaker)
        stages.append(stage)
        with speaker.open(stage):
            await act(stage)

    asyncio.run(story())
    return stages[0]


class Tape:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.pcm = bytearray()

    def write(self, pcm: bytes) -> None:
        self.pcm += pcm


def test_answers_are_heard_in_real_time_and_written_without_the_silence_between() -> None:
    tape = Tape()
    times: list[float] = []

    async def act(stage: Stage) -> None:
        loop = asyncio.get_running_loop()
        times.append(loop.time())
        stage.speaker.play("item_1", speech(5)[:4001])
        stage.speaker.play("item_1", speech(5)[4001:])
        stage.speaker.end("item_1")
        await stage.until(lambda: stage.ended)
        times.append(loop.time())
        await asyncio.sleep(0.05)
        stage.speaker.play("item_2", speech(1.5))
        stage.speaker.end("item_2")
        stage.speaker.end("item_3")
        await stage.until(lambda: len(stage.ended) == 3)

    stage = perform(act, FileSpeaker(tape))
    assert tape.pcm == speech(5) + speech(1.5)
    assert stage.ended == [("item_1", 100), ("item_2", 30), ("item_3", 0)]
    assert times[1] - times[0] > 0.095


def test_an_interrupted_answer_is_cut_where_it_was_cut() -> None:
    tape = Tape()
    heard: list[tuple[tuple[str, int], ...]] = []

    async def act(stage: Stage) -> None:
        stage.speaker.play("item_1", speech(500))
        stage.speaker.play("item_2", speech(500))
        await asyncio.sleep(0.1)
        heard.append(stage.speaker.stop())
        stage.speaker.play("item_3", speech(2))
        stage.speaker.end("item_3")
        await stage.until(lambda: stage.ended)

    stage = perform(act, FileSpeaker(tape))
    (item_1, heard_ms), item_2 = heard[0]
    assert (item_1, item_2) == ("item_1", ("item_2", 0))
    assert 40 <= heard_ms < 5_000
    assert tape.pcm == speech(500)[: heard_ms * 48] + speech(2)
    assert stage.ended == [("item_3", 40)]


def test_nothing_is_heard_before_its_time() -> None:
    async def act(stage: Stage) -> None:
        stage.speaker.play("item_1", speech(500))
        assert stage.speaker.stop() == (("item_1", 0),)

    perform(act, FileSpeaker())


@pytest.mark.parametrize("is_queued_first", [True, False])
def test_in_a_hurry_ten_minutes_are_heard_at_once(is_queued_first: bool) -> None:
    tape = Tape()
    minutes = bytes(10 * 60 * 2 * SAMPLE_RATE)

    async def act(stage: Stage) -> None:
        stage.speaker.hurry = not is_queued_first
        stage.speaker.play("item_1", minutes)
        stage.speaker.end("item_1")
        stage.speaker.hurry = True
        await stage.until(lambda: stage.ended)

    stage = perform(act, FileSpeaker(tape))
    assert stage.ended == [("item_1", 600_000)]
    assert tape.pcm == minutes


def test_without_a_sink_answers_are_heard_all_the_same() -> None:
    async def act(stage: Stage) -> None:
        stage.speaker.play("item_1", speech(1))
        stage.speaker.end("item_1")
        await stage.until(lambda: stage.ended)

    assert perform(act, FileSpeaker()).ended == [("item_1", 20)]


def test_what_cannot_be_written_is_told_once_and_the_answer_is_still_heard() -> None:
    class Broken:
        def write(self, pcm: bytes) -> None:
            raise OutputError("the disk is full", remedy="Empty it.")

    async def act(stage: Stage) -> None:
        stage.speaker.play("item_1", speech(3))
        stage.speaker.end("item_1")
        await stage.until(lambda: stage.ended)

    stage = perform(act, FileSpeaker(Broken()))
    assert [error.message for error in stage.failures] == ["the disk is full"]
    assert stage.ended == [("item_1", 60)]


def test_a_wav_file_is_readable_while_it_grows_and_exact_when_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "answer.wav"
    with WavFile(path) as file:
        file.write(speech(2))
        assert read_audio(path) == speech(2)
        file.write(speech(1))
    assert read_audio(path) == speech(2) + speech(1)
    with wave.open(str(path)) as reader:
        assert reader.getparams()[:4] == (1, 2, SAMPLE_RATE, 3 * 480)
    assert path.stat().st_size == 44 + duration_ms(speech(3)) * 48


def test_a_wav_file_may_be_a_pipe(tmp_path: Path) -> None:
    path, heard = tmp_path / "pipe", list[bytes]()
    os.mkfifo(path)
    reader = Thread(target=lambda: heard.append(read_audio(path)))
    reader.start()
    with WavFile(path) as file:
        file.write(speech(2))
    reader.join()
    assert heard == [speech(2)]


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "answer.wav", Path("/dev/full")):
        with pytest.raises(OutputError) as caught:
            WavFile(path)
        assert repr(str(path)) in caught.value.message
        assert "--output" in caught.value.remedy


def test_raw_sound_goes_through_a_pipe(pipe: tuple[int, int]) -> None:
    with RawOutput(pipe[1]) as output:
        output.write(speech(2))
        output.write(speech(1))
    os.close(pipe[1])
    with os.fdopen(pipe[0], "rb") as reader:
        assert reader.read() == speech(2) + speech(1)


def test_a_reader_that_has_gone_is_told_of(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    output = RawOutput(pipe[1])
    output.write(speech(1))
    with pytest.raises(OutputError, match="standard output: Broken pipe"):
        output.close()
    output.close()


def test_a_slow_reader_holds_up_nothing_but_the_end(pipe: tuple[int, int]) -> None:
    output, heard = RawOutput(pipe[1]), bytearray()
    output.write(speech(500))  # far more than a pipe holds
    output.write(speech(500))

    def read() -> None:
        while len(heard) < 2 * len(speech(500)):
            heard.extend(os.read(pipe[0], 1 << 14))

    reader = Thread(target=read)
    reader.start()
    output.close()
    reader.join()
    assert heard == speech(500) * 2


def test_a_reader_that_does_not_read_is_not_waited_for(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RawOutput, "PATIENCE", 0.2)
    output = RawOutput(pipe[1])
    output.write(speech(500))
    began = time.monotonic()
    with pytest.raises(OutputError, match="nobody read it"):
        output.close()
    assert time.monotonic() - began < 30
    os.close(pipe[0])  # lets the thread go


def test_files_need_no_sound_card() -> None:
    program = "import sys, voicechat.audio.files; sys.exit('sounddevice' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
