"""The engines themselves, and what is done with text before and after them."""

import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from voicechat import pcm
from voicechat.resampling import resample
from voicechat.server.contract import HOP_MS, Message
from voicechat.server.engines.activity import Loudness, Silero, VoiceActivity
from voicechat.server.engines.ears import Whisper
from voicechat.server.engines.mind import HEAD, SHORT_ORDERS, SmolLM, prompt
from voicechat.server.engines.sentences import Sentences, speakable
from voicechat.server.engines.voice import Hibari
from voicechat.server.models import SMOLLM, ensure
from voicechat.server.turns import Began, Ended, TurnDetector, TurnRules

SPEECH = Path(__file__).parent / "speech"


def speech(name: str) -> bytes:
    with wave.open(str(SPEECH / f"{name}.wav")) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        rate = file.getframerate()
    samples = resample(sound.astype(np.float32), rate, pcm.SAMPLE_RATE)
    return np.clip(np.round(samples), -32768, 32767).astype("<i2").tobytes()


def turns(detector: VoiceActivity, sound: bytes) -> list[str]:
    """Which turns begin and end in this sound, fed as a microphone would."""
    follower, found = TurnDetector(), []
    rules = TurnRules(silence_duration_ms=600)
    for start in range(0, len(sound), pcm.FRAME_BYTES):
        for probability in detector.hear(sound[start : start + pcm.FRAME_BYTES]):
            match follower.hear(probability, rules):
                case Began():
                    found.append("began")
                case Ended():
                    found.append("ended")
                case _:
                    pass
    return found


def room(ms: int, level: float) -> bytes:
    """The hiss of a quiet room."""
    noise = np.random.default_rng(0).normal(0, level, ms * 24)
    return noise.astype("<i2").tobytes()


def test_sentences_come_as_soon_as_they_are_complete() -> None:
    sentences = Sentences()
    got = [sentences.push(text) for text in ("Dr. Smith is", " here. How", " are you? Fi", "ne.")]
    assert got == [[], ["Dr. Smith is here."], ["How are you?"], []]
    assert sentences.rest() == "Fine."
    assert sentences.rest() == ""


def test_only_the_first_piece_may_end_at_a_comma_and_only_a_long_one() -> None:
    sentences = Sentences()
    assert sentences.push("Well, if you ask me about that, I say yes, of course. ") == [
        "Well, if you ask me about that,",
        "I say yes, of course.",
    ]


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("**Bold** and `code`.", "Bold and code ."),
        ("See [the page](https://example.org/a?b) now.", "See the page now."),
        ("Look at https://example.org/x?y=1 please.", "Look at please."),
        ("# Title\n- one\n- two", "Title one two"),
        ("🙂", "🙂"),
        ("```\nx = 1\n```", ""),
    ],
)
def test_markdown_and_addresses_are_not_read_aloud(text: str, spoken: str) -> None:
    assert speakable(text) == spoken


def test_the_mind_reads_the_last_turns_and_forgets_in_blocks() -> None:
    talk = [
        Message(role, f"{role} {turn}.") for turn in range(9) for role in ("user", "assistant")
    ][:-1]
    for length in range(1, len(talk) + 1, 2):
        text = prompt(talk[:length], "")
        assert text.startswith(HEAD)
        assert text.endswith(f"Person: {talk[length - 1].text}\nAssistant:")
        remembered = text.removeprefix(HEAD).count("Person:")
        assert min(2, (length + 1) // 2) <= remembered <= 4
    assert len({prompt(talk[:n], "").removeprefix(HEAD)[:20] for n in range(9, 15, 2)}) == 1


def test_the_mind_is_spared_long_orders_and_its_own_refusals() -> None:
    talk = [
        Message("user", "Hi"),
        Message("assistant", "I'm sorry, I can't."),
        Message("user", "A"),
    ]
    assert prompt(talk, "x" * (SHORT_ORDERS + 1)) == f"{HEAD}Person: Hi\nPerson: A\nAssistant:"
    assert "Be kind." in prompt(talk, "Be  kind.")


def test_loudness_tells_a_turn_from_a_quiet_room() -> None:
    sound = room(1500, 30) + speech("hb_02") + room(1500, 30)
    assert turns(Loudness(), sound) == ["began", "ended"]
    assert turns(Loudness(), room(4000, 100)) == []


@pytest.mark.local
def test_silero_tells_a_turn_from_a_quiet_and_from_a_noisy_room() -> None:
    sound = room(1500, 30) + speech("hb_02") + room(1500, 30)
    assert turns(Silero(), sound) == ["began", "ended"]
    assert turns(Silero(), room(4000, 2000)) == []


@pytest.mark.local
def test_a_hop_is_told_for_every_32_ms() -> None:
    for detector in (Silero(), Loudness()):
        told = sum(len(detector.hear(room(20, 30))) for _ in range(160))
        assert 3200 // HOP_MS - 1 <= told <= 3200 // HOP_MS


@pytest.mark.local
def test_whisper_hears_people_and_nothing_where_nobody_speaks() -> None:
    ears = Whisper(threads=1)
    heard = ears.transcribe(speech("arctic_a0009")).lower()
    assert "turned sharply" in heard
    assert "across the table" in heard
    hum = (3000 * np.sin(np.arange(48_000) * 2 * np.pi * 50 / 24_000)).astype("<i2").tobytes()
    assert [ears.transcribe(s) for s in (b"", pcm.silence(2000), room(2000, 500), hum)] == [""] * 4


@pytest.mark.local
def test_hibari_speaks_without_idle_ends_and_is_silent_where_there_is_nothing_to_say() -> None:
    voice = Hibari()
    sound = np.frombuffer(voice.speak("The capital of France is Paris.", 1.0), "<i2")
    assert 1.0 < len(sound) / 24_000 < 3.5
    assert np.abs(sound[:1200]).max() > 130
    assert 20_000 < np.abs(sound).max() < 24_000
    assert len(voice.speak("The capital of France is Paris.", 1.5)) < 2 * len(sound) * 0.8
    assert voice.speak("```x```", 1.0) == b""


@pytest.mark.local
def test_the_mind_stops_at_the_next_token_when_nobody_waits() -> None:
    mind = SmolLM(ensure(SMOLLM))
    asked = 0

    def is_stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked >= 3

    said: list[str] = []
    talk = [Message("user", "Why is the sky blue?")]
    assert mind.answer(talk, "", None, said.append, is_stopped) is False
    assert (asked, said) == (4, [])
    assert mind.answer(talk, "", 4, said.append, lambda: False) is True
    assert len(said) == 1


@pytest.mark.local
def test_the_engines_report_to_nobody(tmp_path: Path) -> None:
    """Left alone, onnxruntime keeps a device id and events in the user's cache, to be sent."""
    program = "from voicechat.server.workshop import load_engines; load_engines(None)"
    places = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=os.environ | places, check=True, timeout=60)
    assert list(tmp_path.rglob("*onnxruntime*")) == []
