"""Sound files that are not plain WAV, which libsndfile reads."""

import base64
import io
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.program import SPEECH, voicechat
from tests.strict_server import KEY, StrictServer
from tests.test_files import (
    Samples,
    decibel,
    hear,
    hear_through_a_pipe,
    pcm16,
    refused,
    simple,
    tone,
)
from voicechat.audio import wav
from voicechat.audio.wav import read_audio
from voicechat.errors import AudioFileError
from voicechat.pcm import SAMPLE_RATE

KINDS = {
    "flac": ("FLAC", "PCM_16"),
    "flac24": ("FLAC", "PCM_24"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_24"),
    "caf": ("CAF", "FLOAT"),
    "au": ("AU", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "alaw": ("WAV", "ALAW"),
    "mulaw": ("WAV", "ULAW"),
    "adpcm": ("WAV", "IMA_ADPCM"),
}
EXACT = {"flac", "flac24", "aiff", "caf", "au", "w64", "rf64"}


def spoken(times: int = 1) -> Samples:
    """Three seconds, repeated."""
    return np.tile(
        np.frombuffer(read_audio(SPEECH / "austen_0880.wav"), dtype="<i2") / 32768, times
    )


def encoded(samples: Samples, kind: str, rate: int = SAMPLE_RATE) -> bytes:
    major, subtype = KINDS[kind]
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=major, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("through", [hear, hear_through_a_pipe])
def test_speech_of_every_kind_is_read(
    tmp_path: Path, kind: str, through: Callable[[Path, bytes], Samples]
) -> None:
    said = spoken()
    content = encoded(said, kind)
    if content[:4] == b"RIFF" and through is hear_through_a_pipe:
        with pytest.raises(AudioFileError, match=r"is compressed \(codec number 0x"):
            through(tmp_path, content)
        return
    heard = through(tmp_path, content)
    if kind in EXACT:
        assert (heard == said).all()
        return
    assert abs(len(heard) - len(said)) < 0.15 * SAMPLE_RATE
    loudness = [decibel(each) for each in (heard, said)]
    assert abs(loudness[0] - loudness[1]) < 1
    length = min(len(heard), len(said))
    assert np.corrcoef(heard[:length], said[:length])[0, 1] > 0.9  # nothing is shifted


def test_an_mp3_file_is_read_as_if_in_one_go(tmp_path: Path) -> None:
    # soundfile by itself seeks after every block, which tears each frame from those before it.
    content = encoded(spoken(4), "mp3")
    heard = hear(tmp_path, content)
    whole, _ = soundfile.read(io.BytesIO(content))
    assert np.abs(heard - whole).max() <= 1 / 32768


@pytest.mark.parametrize(("kind", "rate"), [("flac", 44_100), ("mp3", 44_100), ("opus", 48_000)])
def test_other_kinds_have_any_rate_and_channels(tmp_path: Path, kind: str, rate: int) -> None:
    left, right = tone(rate, hertz=300), tone(rate, hertz=700)
    heard = hear(tmp_path, encoded(np.column_stack([left, right]), kind, rate))
    expected = (tone(hertz=300) + tone(hertz=700)) / 2
    inner = slice(2_400, 9_600)
    assert abs(len(heard) - len(expected)) < 0.15 * SAMPLE_RATE
    assert decibel((heard[: len(expected)] - expected)[inner]) < -30


@pytest.mark.parametrize("kind", ["flac", "mp3"])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.8])
def test_a_file_that_says_how_long_it_is_may_not_be_cut_short(
    tmp_path: Path, kind: str, part: float, capfd: pytest.CaptureFixture[str]
) -> None:
    content = encoded(spoken(4), kind)
    error = refused(tmp_path, content[: int(part * len(content))])
    seconds = float(error.message.removesuffix(" s").split()[-1])
    assert "is cut short or damaged after" in error.message
    assert abs(seconds - 12 * part) < 1.5
    assert capfd.readouterr() == ("", "")  # the decoder's own complaints are kept to itself


@pytest.mark.parametrize("kind", ["vorbis", "opus"])
def test_an_ogg_file_that_is_cut_short_is_heard_as_far_as_it_goes(
    tmp_path: Path, kind: str
) -> None:
    content = encoded(spoken(4), kind)
    assert 4 < len(hear(tmp_path, content[: len(content) // 2])) / SAMPLE_RATE < 8


@pytest.mark.parametrize("kind", KINDS)
def test_damage_anywhere_is_told_or_heard_but_never_a_crash(tmp_path: Path, kind: str) -> None:
    content = encoded(tone(), kind)
    random = np.random.default_rng(0)
    for _ in range(30):
        damaged = bytearray(content[: random.integers(1, len(content) + 1)])
        for at in random.integers(0, len(damaged), 3):
            damaged[at] = random.integers(256)
        with suppress(AudioFileError):
            hear(tmp_path, bytes(damaged))


def test_hours_of_another_kind_do_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wav, "LONGEST_HOURS", 0.0001)
    assert "is longer than 0.0001 hours" in refused(tmp_path, encoded(tone(), "flac")).message


def test_a_pipe_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wav, "LARGEST_COPY", 1 << 17)
    with pytest.raises(AudioFileError, match="is too much for a pipe"):
        hear_through_a_pipe(tmp_path, encoded(spoken(4), "flac"))


def test_a_name_does_not_say_what_a_file_is(tmp_path: Path) -> None:
    for name in ("question.raw", "question.mp3", "question"):
        (tmp_path / name).write_bytes(encoded(tone(), "flac"))
        assert read_audio(tmp_path / name) == pcm16(tone())


WITHOUT_LIBRARY = """
import sys
from pathlib import Path
sys.modules["soundfile"] = None
from voicechat.audio.wav import read_audio
print(len(read_audio(Path(sys.argv[1]))))
"""


def test_wav_files_do_not_need_libsndfile_and_others_say_so(tmp_path: Path) -> None:
    path = tmp_path / "question"
    for content, said in ((simple(pcm16(tone())), "24000"), (encoded(tone(), "flac"), "missing")):
        path.write_bytes(content)
        command = [sys.executable, "-c", WITHOUT_LIBRARY, str(path)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert said in (run.stdout + run.stderr).splitlines()[-1]


def test_libsndfile_is_not_loaded_before_it_is_needed(tmp_path: Path) -> None:
    program = (
        "import sys, voicechat.cli.main, voicechat.start, voicechat.audio.recorder; "
        "voicechat.cli.main.program(); "
        "sys.exit('soundfile' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("kind", ["opus", "mp3"])
def test_the_program_hears_what_is_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    question = tmp_path / "question.sound"
    question.write_bytes(encoded(spoken(), kind))
    with StrictServer().running() as server:
        run = voicechat("talk", "--url", server.url, "--input", question)
    assert run.lines == ["You: hello there", "Assistant: All right. I heard you."], run.err
    sent = b"".join(
        base64.b64decode(event["audio"]) for event in server.said(0, "input_audio_buffer.append")
    )
    heard = read_audio(question)
    assert sent[: len(heard)] == heard
    assert "libmpg123" not in run.err
