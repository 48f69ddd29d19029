"""What is said arrives at the server, and what it says at the ear, whatever rate the card has.

Through the program.  Bit for bit at 24 kHz; at other rates, one that is converted.
"""

import os
import pty
import time
import wave
from pathlib import Path
from subprocess import DEVNULL
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from tests import strict_server
from tests.jack_card import JackCard
from tests.program import SPEECH
from tests.strict_server import KEY, StrictServer
from tests.test_card import loud_seconds
from tests.test_card_loss import Call
from tests.virtual_card import Recording, VirtualCard
from voicechat.pcm import SAMPLE_RATE
from voicechat.resampling import resample

pytestmark = pytest.mark.card

Samples = NDArray[np.int16]
Sound = NDArray[np.float64]

FAITHFUL = 45
"""dB; 53 are usual."""
CLEAN = 65
"""dB; 78 are usual."""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def noise(seconds: float, rate: int, seed: int) -> Samples:
    """Loud enough for a turn, and without a zero in it, so that it can be told from silence."""
    return np.random.default_rng(seed).integers(1, 3_000, int(seconds * rate)).astype("<i2")


def tones(seconds: float, rate: int, *hertz: int) -> Sound:
    """Of -12 dB each, without a click at either end."""
    times = np.arange(int(seconds * rate)) / rate
    sound = np.sum([np.sin(2 * np.pi * frequency * times) for frequency in hertz], axis=0)
    near_an_end = np.minimum(1, np.minimum(times, times[::-1]) / 0.05)
    swelling: Sound = 8_000 * sound * (0.5 - 0.5 * np.cos(np.pi * near_an_end))
    return swelling


def converted(samples: Samples, from_rate: int, to_rate: int) -> Sound:
    return resample(samples.astype(np.float32), from_rate, to_rate).astype(np.float64)


def pcm16(sound: Sound) -> Samples:
    return np.rint(sound).astype("<i2")


def file_of(samples: Samples, path: Path, rate: int) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


def sounding(pcm: bytes | bytearray) -> list[int]:
    samples = np.frombuffer(pcm, "<i2")
    return [int(sample) for sample in samples[samples != 0]]


def fidelity(heard: Sound, said: Sound) -> float:
    """By how many dB `said` is louder than all else in `heard`.

    It may have been said at any time, also between two samples, and at another volume.
    """
    fine, size = 16, len(heard) + len(said)
    spectrum = np.fft.rfft(said, size)
    cross = np.fft.rfft(heard, size) * spectrum.conj()
    likeness = np.fft.irfft(cross, fine * size)
    peak = int(np.argmax(likeness))
    before, at, after = likeness[[peak - 1, peak, peak + 1]]
    delay = (peak + (before - after) / (before - 2 * at + after) / 2) / fine
    turned = spectrum * np.exp(-2j * np.pi * np.fft.rfftfreq(size) * delay)
    fitting = np.fft.irfft(turned, size)[: len(heard)]
    fitting *= (fitting @ heard) / (fitting @ fitting)
    rest = heard - fitting
    return float(10 * np.log10((fitting @ fitting) / (rest @ rest)))


def talk(
    card: VirtualCard | JackCard, server: StrictServer, *options: str, stdin: int = DEVNULL
) -> Call:
    """Both cards are to a program what is in their environment."""
    options = ("talk", "--url", server.url, "--echo", "off", "--no-log", *options)
    return Call(cast(VirtualCard, card), *options, stdin=stdin)


def play_out(call: Call, recording: Recording, answers: int) -> bytes:
    """Wait for an answer, until the last of it has left the card."""
    call.until(lambda: len(call.out) == 2 * answers)
    call.until(lambda: not any(recording.pcm[-9600:]))
    return recording.stop()


def test_at_24_khz_not_a_bit_is_changed_in_either_direction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question, answer = noise(1.2345, SAMPLE_RATE, 1), noise(2.3456, SAMPLE_RATE, 2)
    monkeypatch.setattr(strict_server, "tone", lambda _: answer.tobytes())
    with VirtualCard() as card, StrictServer().running() as server, talk(card, server) as call:
        recording = card.record()
        call.listening(server)
        card.speak(file_of(question, tmp_path / "question.wav", SAMPLE_RATE))
        played = play_out(call, recording, 1)
        call.hang_up()
    # PulseAudio may put in silence on a busy machine, but nothing is lost or changed.
    assert sounding(played) == answer.tolist()
    assert sounding(server.peers[0].heard) == question.tolist()


@pytest.mark.parametrize("rate", [48_000, 44_100])
def test_a_card_of_another_rate_hears_and_plays_the_same_without_aliases(
    rate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question, answer = noise(1, rate, 1), noise(2, SAMPLE_RATE, 2)
    monkeypatch.setattr(strict_server, "tone", lambda _: answer.tobytes())
    with (
        JackCard(rate=rate) as card,
        StrictServer().running() as server,
        talk(card, server) as call,
    ):
        recording = card.record()
        call.listening(server)
        card.speak(file_of(question, tmp_path / "question.wav", rate))
        played = play_out(call, recording, 1)
        heard = np.frombuffer(bytes(server.peers[0].heard), "<i2").astype(float)
        # 15 kHz would fold down to 9 kHz.
        both = pcm16(tones(1, rate, 1_000, 15_000))
        card.speak(file_of(both, tmp_path / "tones.wav", rate))
        call.until(lambda: len(call.out) == 4)
        then = np.frombuffer(bytes(server.peers[0].heard), "<i2")[len(heard) :].astype(float)
        call.hang_up()
    assert sounding(played) == sounding(pcm16(converted(answer, SAMPLE_RATE, rate)).tobytes())
    assert fidelity(heard, converted(question, rate, SAMPLE_RATE)) > FAITHFUL
    assert fidelity(then, tones(1, SAMPLE_RATE, 1_000)) > CLEAN


@pytest.mark.parametrize("latency", ["low", "0.3"])
def test_a_turn_is_answered_at_other_latencies(latency: str) -> None:
    with (
        VirtualCard() as card,
        StrictServer().running() as server,
        talk(card, server, "--latency", latency) as call,
    ):
        call.listening(server)
        recording = card.record()
        call.turn(card)
        assert loud_seconds(play_out(call, recording, 1)) == pytest.approx(0.6, abs=0.1)
        call.hang_up()


def test_when_the_jack_server_dies_one_goes_on_typing_and_hangs_up_without_a_crash() -> None:
    ours, terminal = pty.openpty()
    with (
        JackCard() as card,
        StrictServer().running() as server,
        talk(card, server, stdin=terminal) as call,
    ):
        call.listening(server)
        server.answer_ms, server.deltas = 3_000, 20
        card.speak(SPEECH / "cards_001.wav")
        call.printed(1)
        time.sleep(0.5)  # in the middle of the answer
        card.kill_server()
        call.gone("microphone 'system'")
        call.gone("speaker 'system'")
        heard = len(server.peers[0].heard)
        call.printed(2)
        assert len(server.peers[0].heard) > heard + 48_000  # silence, in its place
        server.answer_ms, server.deltas = 600, 3
        os.write(ours, b"tAre you still there?\n")
        call.printed(4)
        assert call.out[2] == "You: Are you still there?\n"
        call.hang_up()
    os.close(ours)
    os.close(terminal)
    assert call.err[-1].startswith("Not saved (--no-log) · 4 turns · ")
    said = (
        "Connecting.",
        "Microphone '",
        "Listening.",
        "The microphone '",
        "The speaker '",
        "Not saved",
    )
    assert [line for line in call.err if not line.startswith(said)] == []
