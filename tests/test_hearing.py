"""From raw blocks of both streams to clean frames of the user's."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.rooms import ROOMS, Samples, assistant, level
from voicechat.audio.echo import Canceller
from voicechat.audio.hearing import Hearing
from voicechat.pcm import FRAME_SAMPLES, SAMPLE_RATE
from voicechat.resampling import resample


def at_rate(samples: Samples, rate: int) -> Samples:
    converted = resample(samples.astype(np.float32), SAMPLE_RATE, rate)
    return np.clip(np.rint(converted), -32768, 32767).astype(np.int16)


def blocks(samples: Samples, rate: int) -> list[Samples]:
    """20 ms each."""
    size = rate // 50
    return [samples[at : at + size] for at in range(0, len(samples) - size + 1, size)]


def column(block: Samples) -> NDArray[np.int16]:
    return block.reshape(-1, 1)


def test_at_24_khz_without_echo_handling_not_a_bit_is_changed() -> None:
    said = np.random.default_rng(0).integers(-32768, 32767, 50 * FRAME_SAMPLES, dtype=np.int16)
    hearing = Hearing("off")
    heard = [frame for block in blocks(said, SAMPLE_RATE) for frame in hearing.hear(column(block))]
    assert {len(frame) for frame in heard} == {FRAME_SAMPLES}
    assert np.array_equal(np.concatenate(heard), said)


@pytest.mark.parametrize("rate", [48_000, 44_100, 16_000])
def test_other_rates_come_as_whole_frames_and_nothing_is_shifted(rate: int) -> None:
    seconds = 2
    time = np.arange(seconds * rate) / rate
    said = np.rint(10_000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)
    hearing = Hearing("off", near_rate=rate)
    frames = [frame for block in blocks(said, rate) for frame in hearing.hear(column(block))]
    assert {len(frame) for frame in frames} == {FRAME_SAMPLES}
    heard = np.concatenate(frames)
    assert len(heard) > (seconds - 0.05) * SAMPLE_RATE
    ideal = 10_000 * np.sin(2 * np.pi * 440 * np.arange(len(heard)) / SAMPLE_RATE)
    assert np.abs(heard - ideal)[480:].max() < 100


def test_of_many_channels_the_first_two_are_the_microphone() -> None:
    block = np.zeros((480, 4), dtype=np.int16)
    block[:, 0], block[:, 1], block[:, 2] = 1000, 3000, 30_000
    [frame] = Hearing("off").hear(block)
    assert set(frame.tolist()) == {2000}


@pytest.mark.parametrize(("near_rate", "far_rate"), [(48_000, 44_100), (16_000, 48_000)])
def test_echo_is_cancelled_between_devices_of_different_rates(
    near_rate: int, far_rate: int
) -> None:
    far = assistant(6)
    near = ROOMS[1].hears(far)
    hearing = Hearing("cancel", near_rate=near_rate, far_rate=far_rate, delay_ms=200)
    cleaned = []
    pairs = zip(
        blocks(at_rate(near, near_rate), near_rate),
        blocks(at_rate(far, far_rate), far_rate),
        strict=True,
    )
    for heard, played in pairs:
        hearing.play(played)
        cleaned += hearing.hear(column(heard))
    late = slice(3 * SAMPLE_RATE, None)
    assert level(near[late]) - level(np.concatenate(cleaned)[late]) > 25


def test_a_canceller_that_breaks_down_is_replaced_and_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> Samples:
        raise RuntimeError("out of order")

    monkeypatch.setattr(Canceller, "process", fail)
    hearing = Hearing("auto")
    block = np.full(480, 100, dtype=np.int16)
    modes = [hearing.echo]
    [frame] = hearing.hear(column(block))
    assert np.array_equal(frame, block)  # nothing plays, so that the microphone is open
    assert [*modes, hearing.echo] == ["cancel", "half-duplex"]
    assert str(hearing.take_problem()) == "out of order"
    assert hearing.take_problem() is None
    hearing.play(np.full(480, 9_000, dtype=np.int16))
    [frame] = hearing.hear(column(block))
    assert not frame.any()


def test_pure_silence_is_counted_until_there_is_a_sound() -> None:
    hearing = Hearing("off")
    for _ in range(5):
        hearing.hear(np.zeros((480, 1), dtype=np.int16))
    assert hearing.silent_ms == 100
    hearing.hear(np.ones((480, 1), dtype=np.int16))
    assert hearing.silent_ms == 0


def test_when_far_samples_are_dropped_the_canceller_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resets = []
    monkeypatch.setattr(Canceller, "reset", lambda self: resets.append(self))
    hearing = Hearing("cancel")
    silence = np.zeros(FRAME_SAMPLES, dtype=np.int16)
    for _ in range(25):  # half a second that the microphone has lost
        hearing.play(silence)
    for _ in range(75):
        hearing.play(silence)
        hearing.hear(column(silence))
    assert len(resets) == 1
