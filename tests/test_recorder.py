"""Conversations as stereo files, whatever happens to the program, the disk and the clock."""

import os
import signal
import stat
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tests.test_log import no_file_larger_than
from voicechat.audio.parts import joined
from voicechat.audio.recorder import Recorder
from voicechat.errors import OutputError, UsageError
from voicechat.pcm import SAMPLE_RATE

Frames = NDArray[np.int16]
ENDINGS = [".wav", ".flac"]


def sound(ms: int, seed: int = 0) -> bytes:
    """So many milliseconds in which no sample is silent."""
    return np.random.default_rng(seed).integers(1, 20_000, ms * 24).astype("<i2").tobytes()


def samples(pcm: bytes) -> Frames:
    return np.frombuffer(pcm, dtype="<i2")


def read(path: Path) -> Frames:
    """All that any program would find: shape (n, 2)."""
    with soundfile.SoundFile(path) as file:
        assert (file.samplerate, file.channels, file.subtype) == (SAMPLE_RATE, 2, "PCM_16")
        frames: Frames = file.read(dtype="int16")
    return frames


def whole(path: Path, start_ms: int = 0) -> Frames:
    """What `voicechat export` finds, shape (n, 2)."""
    pcm = b"".join(joined([(start_ms, path)]))
    return np.frombuffer(pcm, dtype="<i2").reshape(-1, 2)


@pytest.fixture(params=ENDINGS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"talk{request.param}"


# In its place -----------------------------------------------------------------------------------


def test_both_sides_are_where_they_were_to_the_sample(path: Path) -> None:
    user, assistant = sound(2_000, 1), sound(2_000, 2)
    with Recorder(path, 10_000) as recorder:
        for at in range(0, 2_000, 20):
            recorder.user(user[at * 48 : at * 48 + 960], 10_000 + at + 20)
            recorder.assistant(assistant[at * 48 : at * 48 + 960], 10_000 + at + 20)
    frames = read(path)
    assert (frames[:, 0] == samples(user)).all()
    assert (frames[:, 1] == samples(assistant)).all()


def test_a_wav_file_says_exactly_how_long_it_is(tmp_path: Path) -> None:
    with Recorder(tmp_path / "talk.WAV") as recorder:
        recorder.user(sound(1_000), 1_000)
    with wave.open(str(tmp_path / "talk.WAV")) as file:
        assert file.getparams()[:4] == (2, 2, SAMPLE_RATE, SAMPLE_RATE)
    assert (tmp_path / "talk.WAV").stat().st_size == 44 + 4 * SAMPLE_RATE


def test_a_side_that_says_nothing_is_silent(path: Path) -> None:
    with Recorder(path) as recorder:
        for at in range(20, 3_020, 20):
            recorder.user(sound(20), at)
        recorder.assistant(sound(100), 2_600)
    frames = read(path)
    assert len(frames) == 3_000 * 24
    assert frames[:, 0].all()
    assert not frames[: 2_500 * 24, 1].any()
    assert (frames[2_500 * 24 : 2_600 * 24, 1] == samples(sound(100))).all()
    assert not frames[2_600 * 24 :, 1].any()


def test_what_stops_for_a_while_goes_on_in_its_place(path: Path) -> None:
    with Recorder(path, 500) as recorder:
        recorder.user(sound(100), 600)
        recorder.user(sound(100), 951)  # 251 ms late: a gap
        recorder.user(sound(100), 1_300)  # 249 ms late: it was only slow
    left = read(path)[:, 0]
    expected = bytes(251 * 48).join([sound(100), sound(100) + sound(100)])
    assert (left == samples(expected)).all()


def test_what_is_ahead_of_the_clock_goes_on(path: Path) -> None:
    with Recorder(path) as recorder:
        for _ in range(5):
            recorder.assistant(sound(1_000), 20)
        recorder.user(sound(20), 20)
    frames = read(path)
    assert (frames[:, 1] == samples(sound(1_000) * 5)).all()
    # 500 ms behind is silent, not late: what the user says now follows that silence.
    assert not frames[: 4_500 * 24, 0].any()
    assert (frames[4_500 * 24 : 4_520 * 24, 0] == samples(sound(20))).all()
    assert len(frames) == 5_000 * 24


def test_an_hour_without_a_sound_is_an_hour_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "talk.flac"
    an_hour = 3600 * 1000
    with Recorder(path) as recorder:
        recorder.CLOSING_SECONDS = 60
        recorder.user(sound(20), 20)
        recorder.user(sound(20), an_hour)
    with soundfile.SoundFile(path) as file:
        assert file.frames == an_hour * 24
        file.seek(-480, os.SEEK_END)
        assert (file.read(dtype="int16")[:, 0] == samples(sound(20))).all()
    assert path.stat().st_size < 4_000_000


def test_without_a_word_the_file_holds_nothing(path: Path) -> None:
    Recorder(path).close()
    assert whole(path).shape == (0, 2)


def test_a_file_that_is_there_is_overwritten_and_stays_as_private(path: Path) -> None:
    path.write_bytes(bytes(1_000_000))
    path.chmod(0o600)
    with Recorder(path) as recorder:
        recorder.user(sound(20), 20)
    assert len(read(path)) == 480
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def record_until_told(recorder: Recorder) -> OutputError:
    """Go on until it says that it cannot; its thread says so a little later."""
    for at in range(100, 1_000_000, 100):
        try:
            recorder.user(sound(100), at)
            recorder.assistant(sound(100), at)
        except OutputError as error:
            return error
        time.sleep(0.001)
    raise AssertionError


# Whatever ends it -------------------------------------------------------------------------------

CONVERSATION = """
import sys, time
from pathlib import Path
import numpy as np
from voicechat.audio.recorder import Recorder
user = np.arange(1, 24_001, dtype="<i2").tobytes()
recorder = Recorder(Path(sys.argv[1]))
at = 0
while True:
    frame = user[at % 1000 * 48:][:960]
    recorder.user(frame, at + 20)
    if at // 1000 % 2:  # it speaks every other second, and then is not even silent
        recorder.assistant(frame, at + 20)
    at += 20
    print(at, flush=True)
    time.sleep(0.02)
"""


@pytest.mark.parametrize("after_ms", [40, 700, 1_480, 2_340, 3_660])
def test_all_but_the_last_second_is_there_when_the_program_is_killed(
    path: Path, after_ms: int
) -> None:
    command = [sys.executable, "-c", CONVERSATION, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        for line in program.stdout:
            if int(line) >= after_ms:
                break
        program.send_signal(signal.SIGKILL)
        told_ms = max([after_ms, *map(int, program.stdout.read().split())])
    frames = whole(path)
    assert told_ms - 1_000 < len(frames) / 24 <= told_ms + 20
    at = np.arange(len(frames))
    assert (frames[:, 0] == at % SAMPLE_RATE + 1).all()
    speaks = at // SAMPLE_RATE % 2 == 1
    assert (frames[speaks, 1] == frames[speaks, 0]).all()
    assert not frames[~speaks, 1].any()
    # Other programs find the same.
    if path.suffix == ".wav":
        assert (read(path) == frames).all()
    elif len(frames):
        with soundfile.SoundFile(path) as file:
            file.seekable = lambda: False
            assert (file.read(len(frames), dtype="int16") == frames).all()


def test_closing_does_not_wait_for_a_disk_that_takes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = path.with_name(f"pipe{path.suffix}")  # nobody reads it to the end
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setattr(Recorder, "CLOSING_SECONDS", 0.3)
    recorder = Recorder(pipe)
    began = time.monotonic()
    for at in range(1_000, 61_000, 1_000):
        recorder.user(sound(1_000), at)
    assert time.monotonic() - began < 30
    with pytest.raises(OutputError, match="the disk is too slow for its end"):
        recorder.close()
    assert time.monotonic() - began < 30
    os.close(reader)  # lets the thread go
    recorder._thread.join(30)


def test_a_disk_that_is_too_slow_for_ever_is_told_of(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicechat.audio.recorder.MOST_WAITING", 20)
    pipe = path.with_name(f"pipe{path.suffix}")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    recorder = Recorder(pipe)
    assert "the disk is too slow" in record_until_told(recorder).message
    recorder.user(sound(20), 1_000_020)  # told once
    recorder.close()
    os.close(reader)
    recorder._thread.join(30)


# Where it cannot be written ---------------------------------------------------------------------


@contextmanager
def full_disk(directory: Path) -> Iterator[Path]:
    """A directory with room for some 200 kB."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(directory)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        with no_file_larger_than(200_000):
            yield directory
        return
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def test_a_full_disk_is_told_of_once_and_what_was_written_can_be_read(
    path: Path, tmp_path: Path
) -> None:
    with full_disk(tmp_path / "small") as directory:
        recorder = Recorder(directory / path.name)
        error = record_until_told(recorder)
        assert str(directory / path.name) in error.message
        assert "No space left" in error.message or "File too large" in error.message
        assert "--record FILE" in error.remedy
        recorder.user(sound(100), 1_000_000)
        recorder.assistant(sound(100), 1_000_000)
        recorder.close()
        frames = whole(directory / path.name)
    said = np.tile(samples(sound(100)), 1 + len(frames) // 2_400)[: len(frames)]
    assert len(frames) > 30_000
    assert (frames == said[:, None]).all()


def test_a_full_disk_is_told_of_at_the_end(path: Path, tmp_path: Path) -> None:
    with full_disk(tmp_path / "small") as directory:
        recorder = Recorder(directory / path.name)
        recorder.user(sound(10_000), 10_000)
        with pytest.raises(OutputError):
            recorder.close()
        recorder.close()


def test_a_recording_that_is_deleted_is_told_of(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicechat.audio.recorder.SYNC_SECONDS", 0.05)
    recorder = Recorder(path)
    recorder.user(sound(100), 100)
    path.unlink()
    assert "it was deleted" in record_until_told(recorder).message
    recorder.close()


def test_a_place_where_nothing_can_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "directory.flac").mkdir()
    for path in (tmp_path / "directory.flac", tmp_path / "missing" / "talk.wav"):
        with pytest.raises(OutputError) as caught:
            Recorder(path)
        assert repr(str(path)) in caught.value.message
    for ending in ENDINGS:
        link = tmp_path / f"full{ending}"
        link.symlink_to("/dev/full")
        with (
            pytest.raises(OutputError, match="No space left on device"),
            Recorder(link) as recorder,
        ):
            recorder.user(sound(200), 200)


@pytest.mark.parametrize("name", ["talk", "talk.mp3", "talk.ogg", ".flac", "auto"])
def test_only_wav_and_flac_are_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        Recorder(tmp_path / name)
    assert "talk.flac" in caught.value.remedy
    assert not (tmp_path / name).exists()


def test_without_libsndfile_only_flac_is_refused(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; sys.modules['soundfile'] = None\n"
        "from voicechat.audio.recorder import Recorder\n"
        "from voicechat.errors import OutputError\n"
        f"Recorder(Path({str(tmp_path / 'talk.wav')!r})).close()\n"
        f"try: Recorder(Path({str(tmp_path / 'talk.flac')!r}))\n"
        "except OutputError as error: print(error.message)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "libsndfile" in run.stdout, run.stderr
    assert (tmp_path / "talk.wav").stat().st_size == 44


def test_nothing_is_printed_when_a_recording_is_abandoned(tmp_path: Path) -> None:
    program = (
        "import gc; from pathlib import Path\n"
        "from voicechat.audio.libsndfile import FlacWriter\n"
        f"file = Path({str(tmp_path / 'talk.flac')!r}).open('wb', buffering=0)\n"
        "writer = FlacWriter(file, 2); writer.write(bytes(9600)); file.close()\n"
        "del writer; gc.collect()\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
