"""`--record` and `export --format wav`, from the microphone and the speaker into a file and out."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tests.program import SPEECH, records, voicechat
from tests.strict_server import KEY, StrictServer
from tests.test_card import Live
from tests.virtual_card import VirtualCard
from tests.waiting import wait_until
from voicechat.audio.wav import read_audio
from voicechat.pcm import SAMPLE_RATE

Sides = tuple[NDArray[np.int16], NDArray[np.int16]]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def sides(path: Path) -> Sides:
    samples, rate = soundfile.read(path, dtype="int16", always_2d=True)
    assert rate == SAMPLE_RATE
    assert samples.shape[1] == 2
    return samples[:, 0], samples[:, 1]


def loud(side: NDArray[np.int16]) -> tuple[float, float]:
    """From when to when, in seconds, there is any sound."""
    places = np.flatnonzero(np.abs(side.astype(int)) > 500)
    return places[0] / SAMPLE_RATE, places[-1] / SAMPLE_RATE


def test_files_are_recorded_beside_the_session_and_come_back_over_two_runs(
    home: Path, tmp_path: Path
) -> None:
    with StrictServer().running() as server:
        question = SPEECH / "hb_02.wav"
        run = voicechat("talk", "--url", server.url, "--input", question, "--record", "auto")
        assert run.code == 0, run.err
        [recording] = (home / "sessions").glob("*.flac")
        assert f"Recording to {recording}.\n" in run.err
        assert recording.stat().st_mode & 0o777 == 0o600
        second = voicechat(
            *("resume", "--url", server.url, "--input", question, "--record", "auto")
        )
        assert second.code == 0, second.err
        exported = tmp_path / "talk.wav"
        export = voicechat("export", "last", "--format", "wav", "-o", exported)
        assert export.code == 0, export.err
    user, assistant = sides(exported)
    said = np.frombuffer(read_audio(question), "<i2")
    assert bytes(said.tobytes()) in user.tobytes()
    spoken = [each for each in records(home) if each["type"] == "said"]
    answers = [each for each in spoken if each["role"] == "assistant"]
    assert len(answers) == 2
    for each in answers:  # the tone, at the place that the session's timeline gives it
        start, end = (each[name] * SAMPLE_RATE // 1000 for name in ("start_ms", "end_ms"))
        assert np.abs(assistant[start + 6_000 : end - 6_000]).max() > 7_000, each
    tone = np.abs(assistant.astype(int)) > 500
    assert np.count_nonzero(tone) == pytest.approx(2 * 0.6 * SAMPLE_RATE, rel=0.1)


def size_of_one(directory: Path) -> int:
    """Of the recordings there."""
    return next((path.stat().st_size for path in directory.glob("*.flac")), 0)


@pytest.mark.parametrize("is_answered", [True, False])
def test_what_a_killed_run_recorded_stays_by_itself(
    home: Path, tmp_path: Path, *, is_answered: bool
) -> None:
    with StrictServer().running() as server:
        spoken = tmp_path / "spoken.wav"
        question = np.frombuffer(read_audio(SPEECH / "hb_02.wav"), "<i2")
        noise = np.random.default_rng(0).integers(-9_000, 9_000, 20 * SAMPLE_RATE, "<i2")
        first = [question, np.zeros(2 * SAMPLE_RATE, "<i2")] if is_answered else []
        soundfile.write(spoken, np.concatenate([*first, noise]), SAMPLE_RATE, "PCM_16")
        talk = ("--url", server.url, "--record", "auto", "--input")
        with subprocess.Popen(
            [sys.executable, "-m", "voicechat", "talk", *talk, spoken], stderr=subprocess.PIPE
        ) as program:
            try:
                wait_until(lambda: size_of_one(home / "sessions") > (500_000 if first else 200_000))
            finally:
                program.kill()
        [recorded] = (home / "sessions").glob("*.flac")
        ended, _ = sides(recorded)
        [log] = (home / "sessions").glob("*.jsonl")
        saved = len(records(home))
        resumed = voicechat("resume", log.stem[-6:], *talk, SPEECH / "hb_02.wav")
        assert resumed.code == 0, resumed.err
        exported = tmp_path / "talk.wav"
        export = voicechat("export", log.stem[-6:], "-o", exported)
        assert export.code == 0, export.err
    user, assistant = sides(exported)
    assert user[: len(ended)].tolist() == ended.tolist()
    assert question.tobytes() in user[len(ended) :].tobytes()
    said = [each for each in records(home)[saved:] if each["type"] == "said"]
    [answer] = [each for each in said if each["role"] == "assistant"]
    start, end = (answer[name] * SAMPLE_RATE // 1000 for name in ("start_ms", "end_ms"))
    assert start > len(ended)
    assert np.abs(assistant[start + 6_000 : end - 6_000]).max() > 7_000


@pytest.mark.card
def test_a_talk_at_the_card_is_recorded_as_it_was_and_muting_is_silence(tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    with (
        VirtualCard() as card,
        StrictServer().running() as server,
        Live(card, "talk", "--url", server.url, "--echo", "off", "--record", str(path)) as live,
    ):
        live.until(lambda: bool(server.received and server.received[0][2:]))
        card.speak(SPEECH / "hb_02.wav")
        live.until(lambda: len(live.out) == 2)
        live.hang_up()
    user, assistant = sides(path)
    said = np.frombuffer(read_audio(SPEECH / "hb_02.wav"), "<i2")
    heard = user[user != 0]
    assert heard.tolist() == said[said != 0].tolist()
    assert np.count_nonzero(np.abs(assistant.astype(int)) > 500) > 0.5 * SAMPLE_RATE
    assert loud(assistant)[0] > loud(user)[1]  # the answer after the question


@pytest.mark.card
@pytest.mark.parametrize("name", ["talk.wav", "talk.flac"])
def test_after_kill_9_the_recording_is_there_up_to_the_last_second(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    with (
        VirtualCard() as card,
        StrictServer().running() as server,
        Live(card, "talk", "--url", server.url, "--record", str(path)) as live,
    ):
        live.until(lambda: bool(server.received and server.received[0][2:]))
        began = time.monotonic()
        card.speak(SPEECH / "austen_0870.wav", block=False)
        time.sleep(3.3)
        live.process.send_signal(signal.SIGKILL)
        live.process.wait()
        lasted = time.monotonic() - began
    user, _ = sides(path)
    assert lasted - 1.0 < len(user) / SAMPLE_RATE
    assert np.abs(user[-SAMPLE_RATE:]).max() > 1000


def test_record_auto_needs_a_saved_session_and_another_ending_is_refused(tmp_path: Path) -> None:
    question = SPEECH / "hb_02.wav"
    talk = ("talk", "--url", "ws://127.0.0.1:9", "--input", question)
    run = voicechat(*talk, "--no-log", "--record", "auto")
    assert run.code == 2
    assert len(run.err.splitlines()) == 2
    run = voicechat(*talk, "--record", tmp_path / "talk.mp3")
    assert run.code == 2
    assert not (tmp_path / "talk.mp3").exists()
    run = voicechat(*talk, "--record", tmp_path / "nowhere" / "talk.wav")
    assert run.code == 14


def test_a_recording_that_cannot_go_on_does_not_end_the_talk(tmp_path: Path) -> None:
    with StrictServer().running() as server:
        program = subprocess.Popen(
            [
                *(sys.executable, "-m", "voicechat", "talk", "--url", server.url),
                *("--input", SPEECH / "austen_0870.wav", "--record", tmp_path / "talk.flac"),
            ],
            env=os.environ,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: size_of_one(tmp_path) > 20_000)
        (tmp_path / "talk.flac").unlink()
        out, err = program.communicate(timeout=60)
    assert program.returncode == 0, err
    assert len(out.splitlines()) == 2
    assert len(re.findall("The recording ends here", err)) == 1
