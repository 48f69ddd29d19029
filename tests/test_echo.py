"""Does the assistant hear itself, and does it hear you?  In dB, in rooms that stay the same.

What a voice detector makes of the sound counts in the end: it begins the user's turns.
"""

import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.rooms import ROOMS, TALKER_DB, Room, Samples, Sound, assistant, level, spoken
from voicechat.audio.echo import (
    KEPT,
    PATIENCE,
    STANDING,
    Canceller,
    EchoProcessor,
    FarEnd,
    HalfDuplex,
    PassThrough,
    can_cancel,
    processor,
)
from voicechat.errors import DeviceError
from voicechat.pcm import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE
from voicechat.server.contract import HOP_MS
from voicechat.server.engines.activity import Silero
from voicechat.sound import EchoMode

SECONDS = 12
MS = SAMPLE_RATE // 1000
CARD_MS = 60
"""What the card tells of its delay; the rooms add theirs."""
INTERRUPTIONS = [
    *("hb_01", "goforward", "hb_02", "cards_001", "hb_04"),
    *("cards_003", "hb_11", "arctic_a0009", "cards_005", "hb_03"),
]
SPEECH_HOPS = 6
"""A detector that is not nervous wants 192 ms of speech before it begins a turn."""


def frames(samples: Samples) -> Iterator[Samples]:
    for at in range(0, len(samples), FRAME_SAMPLES):
        yield samples[at : at + FRAME_SAMPLES]


def clean(echo: EchoProcessor, near: Samples, far: Samples) -> Samples:
    """All of it, frame by frame."""
    pairs = zip(frames(near), frames(far), strict=True)
    return np.concatenate([echo.process(heard, played) for heard, played in pairs])


def seconds(sound: Samples, start: float, end: float) -> Samples:
    return sound[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]


def erle(near: Samples, cleaned: Samples, start: float, end: float) -> float:
    """Echo return loss enhancement in dB: how much weaker it became (ITU-T G.168)."""
    return level(seconds(near, start, end)) - level(seconds(cleaned, start, end))


def speech(sound: Samples) -> NDArray[np.bool_]:
    """Which 32 ms a voice detector takes for speech."""
    return np.array(Silero().hear(sound.tobytes())) > 0.5


def silence(ms: int) -> Samples:
    return np.zeros(ms * MS, np.int16)


def ramp(start: int, end: int) -> Samples:
    """Samples that tell their place."""
    return np.arange(start, end, dtype=np.int64).astype(np.int16)


# The canceller


@pytest.fixture(scope="module")
def far() -> Samples:
    return assistant(SECONDS)


@pytest.fixture(scope="module")
def heard(far: Samples) -> dict[str, tuple[Samples, Samples]]:
    """For each room what the microphone heard and what was left of it; nobody but the echo."""
    near = {room.name: room.hears(far) for room in ROOMS}
    return {name: (it, clean(Canceller(CARD_MS), it, far)) for name, it in near.items()}


def test_echo_loses_20_db_within_3_s_and_28_db_after_5_s_in_the_median_room(
    heard: dict[str, tuple[Samples, Samples]],
) -> None:
    early = [erle(*sounds, 1, 3) for sounds in heard.values()]
    late = [erle(*sounds, 5, SECONDS) for sounds in heard.values()]
    assert np.median(early) >= 20
    assert np.median(late) >= 28


def test_echo_loses_25_db_in_every_room_and_10_db_even_if_the_speaker_faces_away(
    heard: dict[str, tuple[Samples, Samples]],
) -> None:
    for room in ROOMS:
        wanted = 10 if room.is_diffuse else 25
        for start, end in ((1, 3), (3, 5), (5, SECONDS)):
            assert erle(*heard[room.name], start, end) >= wanted, room.name


@pytest.mark.local
def test_less_than_2_percent_of_the_echo_is_taken_for_speech_and_without_canceller_most_of_it(
    heard: dict[str, tuple[Samples, Samples]],
) -> None:
    judged = [[speech(seconds(it, 1, SECONDS)) for it in sounds] for sounds in heard.values()]
    assert np.mean([near for near, _ in judged]) > 0.9
    assert np.mean([cleaned for _, cleaned in judged]) < 0.02


@pytest.mark.local
def test_an_interruption_is_taken_for_speech_within_700_ms() -> None:
    start_s, every_s = 4, 3
    far = assistant(start_s + every_s * len(INTERRUPTIONS))
    talker: Sound = np.zeros(len(far))
    for number, name in enumerate(INTERRUPTIONS):
        place = (start_s + every_s * number) * SAMPLE_RATE
        said = spoken(name, TALKER_DB)[: 3 * SAMPLE_RATE // 2]
        talker[place : place + len(said)] += said
    cleaned = clean(Canceller(CARD_MS), ROOMS[0].hears(far, talker), far)
    judged = speech(cleaned)
    assert not judged[1000 // HOP_MS : 1000 * start_s // HOP_MS].any()
    starts = [1000 * (start_s + every_s * number) // HOP_MS for number in range(len(INTERRUPTIONS))]
    counts = [np.count_nonzero(judged[at : at + 700 // HOP_MS]) for at in starts]
    assert sum(count >= SPEECH_HOPS for count in counts) >= len(INTERRUPTIONS) - 1


def delay_ms(near: Samples, cleaned: Samples) -> float:
    """By which one comes after the other, to an eighth of a sample (cross-correlation)."""
    size, finer = 2 * len(near), 8
    spectrum = (
        np.fft.rfft(cleaned.astype(float), size) * np.fft.rfft(near.astype(float), size).conj()
    )
    return float(np.argmax(np.fft.irfft(spectrum, finer * size)[: finer * size // 2])) / finer / MS


def test_the_user_alone_keeps_their_level_and_comes_less_than_16_ms_late_always() -> None:
    said = np.concatenate([spoken(name, TALKER_DB) for name in ("hb_10", "arctic_a0009", "hb_11")])
    near = ROOMS[0].hears(silence(len(said) // MS), said)
    cleaned = clean(Canceller(CARD_MS), near, np.zeros_like(near))
    assert abs(level(cleaned) - level(near)) < 1.5
    pairs = pairwise(range(0, len(near) // SAMPLE_RATE + 1, 2))
    delays = [delay_ms(seconds(near, *pair), seconds(cleaned, *pair)) for pair in pairs]
    assert len(delays) >= 4
    assert max(delays) < 16
    assert max(delays) - min(delays) < 0.2


# The far end, and what becomes of the canceller when the card stumbles

STUMBLE = 250
"""Frame, 5 s."""


def stumble(room: Room, *, speaker_ms: int = 0, microphone_ms: int = 0) -> float:
    """ERLE from 1.5 s after one of them stood still on, where the card's callbacks go on as usual.

    A speaker that stands still is given nothing and plays silence; a microphone loses what it
    should have heard.
    """
    voice = [*frames(assistant(SECONDS))]
    still, lost = speaker_ms // FRAME_MS, range(STUMBLE, STUMBLE + microphone_ms // FRAME_MS)
    given = [*voice[:STUMBLE], *still * [silence(0)], *voice[STUMBLE:]]
    played = [*voice[:STUMBLE], *still * [silence(FRAME_MS)], *voice[STUMBLE:]]
    far, echo = FarEnd(), Canceller(CARD_MS)
    near, cleaned = [], []
    for number, frame in enumerate(frames(room.hears(np.concatenate(played)))):
        far.push(given[number])
        if number not in lost:
            dropped = far.dropped
            reference = far.take(FRAME_SAMPLES)
            if far.dropped > dropped:
                echo.reset()
            near.append(frame)
            cleaned.append(echo.process(frame, reference))
    start = STUMBLE * FRAME_MS / 1000 + 1.5
    return erle(np.concatenate(near), np.concatenate(cleaned), start, SECONDS - 1)


@pytest.mark.parametrize("ms", [60, 200, 400])
@pytest.mark.parametrize("room", [ROOMS[0], ROOMS[3]], ids=lambda room: str(room.name))
def test_soon_after_a_part_of_the_card_stood_still_echo_loses_20_db_again(
    room: Room, ms: int
) -> None:
    assert stumble(room, speaker_ms=ms) >= 20
    assert stumble(room, microphone_ms=ms) >= 20


def test_an_echo_that_comes_before_the_far_end_is_not_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which is why hardly anything may stand in the way of the far end."""
    monkeypatch.setattr("voicechat.audio.echo.STANDING", 250 * MS)
    assert stumble(ROOMS[0], microphone_ms=200) < 10


def test_what_was_pushed_is_taken_in_order_however_it_is_cut() -> None:
    far = FarEnd()
    far.push(ramp(0, 700))
    assert far.take(480).tolist() == [*range(480)]
    far.push(ramp(700, 1000))
    assert far.take(480).tolist() == [*range(480, 960)]
    assert (far.starved, far.dropped) == (0, 0)


def test_silence_follows_what_was_pushed_too_late_and_is_counted() -> None:
    far = FarEnd()
    assert far.take(480).tolist() == [0] * 480
    far.push(ramp(1, 101))
    assert far.take(480).tolist() == [*range(1, 101), *[0] * 380]
    far.push(ramp(101, 581))
    assert far.take(480).tolist() == [*range(101, 581)]
    assert far.starved == 480 + 380


def test_what_stands_for_half_a_second_is_dropped_but_for_half_of_what_may() -> None:
    far = FarEnd()
    far.push(ramp(0, STANDING + 1))
    for at in range(0, PATIENCE, FRAME_SAMPLES):
        assert far.dropped == 0
        far.push(ramp(STANDING + 1 + at, STANDING + 1 + at + FRAME_SAMPLES))
        assert far.take(FRAME_SAMPLES)[0] == at
    assert far.dropped == STANDING + 1 - STANDING // 2
    assert far.take(FRAME_SAMPLES)[0] == PATIENCE + far.dropped
    assert far.starved == 0


def test_nothing_is_dropped_if_the_microphone_comes_late_but_with_everything() -> None:
    far = FarEnd()
    for _ in range(20):
        far.push(silence(FRAME_MS))
    for _ in range(20):
        far.take(FRAME_SAMPLES)
    far.push(ramp(0, FRAME_SAMPLES))
    assert far.take(FRAME_SAMPLES).tolist() == [*range(FRAME_SAMPLES)]
    assert (far.starved, far.dropped) == (0, 0)


def test_nothing_is_dropped_as_long_as_little_is_left_at_times() -> None:
    far = FarEnd()
    for _ in range(20):  # a card that takes 200 ms at once
        far.push(silence(200))
        for _ in range(0, 200, FRAME_MS):
            far.take(FRAME_SAMPLES)
    assert (far.starved, far.dropped) == (0, 0)


def test_what_a_card_takes_at_once_is_not_dropped_with_what_stands_below_it() -> None:
    far = FarEnd()
    far.push(silence(100))
    for number in range(100):
        if number % 5 == 2:
            far.push(silence(100))
        far.take(FRAME_SAMPLES)
    assert far.starved == 0
    assert far.dropped == (60 - FRAME_MS) * MS


def test_clocks_that_drift_by_1000_ppm_for_10_minutes_never_put_the_far_end_60_ms_late() -> None:
    far, waiting = FarEnd(), 0.0
    for number in range(10 * 60 * 50):
        # Every 1000th frame of the faster speaker meets no frame of the microphone.
        far.push(silence(FRAME_MS))
        if number % 1000:
            far.take(FRAME_SAMPLES)
            waiting = max(waiting, far.waiting)
    assert far.dropped > 0
    assert waiting <= 60 * MS


def test_a_microphone_that_never_comes_leaves_a_second_waiting() -> None:
    far = FarEnd()
    for _ in range(100):
        far.push(silence(FRAME_MS))
    assert (far.waiting, far.dropped) == (KEPT, 100 * FRAME_SAMPLES - KEPT)


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 2000)), max_size=60))
def test_every_sample_is_taken_dropped_or_waits(steps: list[tuple[int, int]]) -> None:
    far, pushed, taken = FarEnd(), 0, 0
    for push, take in steps:
        far.push(np.ones(push, np.int16))
        pushed += push
        out = far.take(take)
        assert len(out) == take
        taken += int(out.sum())
    rest = int(far.take(KEPT).sum())
    assert pushed == taken + rest + far.dropped


# Without a canceller


def test_half_duplex_is_silent_while_the_assistant_sounds_and_exactly_its_tail_longer() -> None:
    far = np.zeros(50 * FRAME_SAMPLES, np.int16)
    far[5_000], far[6_000], far[7_777] = -32_768, 101, -101
    near = np.full_like(far, 1_000)
    tail_ms = 250
    cleaned = clean(HalfDuplex(tail_ms), near, far)
    silent = np.flatnonzero(cleaned == 0)
    assert silent.tolist() == [*range(5_000, 7_777 + tail_ms * MS + 1)]
    assert (np.delete(cleaned, silent) == 1_000).all()


def test_half_duplex_leaves_the_user_untouched_while_the_assistant_is_silent_or_nearly() -> None:
    near = ramp(0, 4_800)
    far = np.resize(np.array([100, -100], np.int16), 4_800)
    np.testing.assert_array_equal(clean(HalfDuplex(250), near, far), near)


def test_half_duplex_hears_no_echo_in_any_room(far: Samples) -> None:
    said = np.concatenate([seconds(far, 0, 3), silence(2000)])
    for room in ROOMS[:3]:
        echo = processor("half-duplex", room.delay_ms)
        assert level(clean(echo, room.hears(said), said)) < -64


def test_off_leaves_everything_as_it_is() -> None:
    near = ramp(0, 480)
    np.testing.assert_array_equal(PassThrough().process(near, ramp(480, 960)), near)


# Which it is


@pytest.fixture(params=["missing", "broken", "empty"])
def no_canceller(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """pywebrtc-audio is not installed, lacks a system library, or is an empty placeholder."""
    name = "pywebrtc_audio"
    match request.param:
        case "missing":
            monkeypatch.setitem(sys.modules, name, None)
        case "broken":
            monkeypatch.delitem(sys.modules, name, raising=False)
            monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
        case _:
            monkeypatch.setitem(sys.modules, name, ModuleType(name))


class Broken:
    """Finds a package whose library cannot be loaded."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "pywebrtc_audio":
            raise OSError("libstdc++.so.6: version `GLIBCXX_3.4.32' not found")


@pytest.mark.parametrize("mode", ["cancel", "half-duplex", "off"])
def test_every_mode_says_what_it_is(mode: EchoMode) -> None:
    assert processor(mode, CARD_MS).mode == mode


def test_auto_cancels_where_it_can() -> None:
    assert can_cancel()
    assert processor("auto", CARD_MS).mode == "cancel"


@pytest.mark.usefixtures("no_canceller")
def test_without_the_package_auto_is_half_duplex() -> None:
    assert not can_cancel()
    assert processor("auto", CARD_MS).mode == "half-duplex"


@pytest.mark.usefixtures("no_canceller")
def test_without_the_package_cancel_says_how_to_get_it_and_how_to_do_without() -> None:
    with pytest.raises(DeviceError) as caught:
        processor("cancel", CARD_MS)
    assert "pip install pywebrtc-audio" in caught.value.remedy
    assert "--echo half-duplex" in caught.value.remedy


def test_the_package_is_imported_only_when_it_is_needed() -> None:
    code = "import sys, voicechat.audio.echo; sys.exit('pywebrtc_audio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_canceller_that_breaks_is_not_silent() -> None:
    frame = np.zeros(FRAME_SAMPLES, np.int16)
    with pytest.raises(ValueError, match="length"):
        Canceller(CARD_MS).process(frame, frame[:240])
