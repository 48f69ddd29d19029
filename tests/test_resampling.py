"""Sample rates, in dB."""

import numpy as np
import pytest
from numpy.typing import NDArray

from voicechat.resampling import Resampler, resample

Samples = NDArray[np.float32]

RATES = [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000]
ODD_RATES = [22_254, 23_999, 44_101]
PAIRS = [
    *((rate, 24_000) for rate in RATES + ODD_RATES),
    *((24_000, rate) for rate in RATES),
]


def tone(hertz: float, rate: int, seconds: float = 0.2) -> Samples:
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


def noise(count: int) -> Samples:
    return np.random.default_rng(0).uniform(-0.5, 0.5, count).astype(np.float32)


def middle(samples: Samples) -> Samples:
    return samples[len(samples) // 4 : -len(samples) // 4]


def level(samples: Samples) -> float:
    """In dB, where a full tone has 0."""
    return float(10 * np.log10(2 * np.mean(samples.astype(np.float64) ** 2) + 1e-20))


@pytest.mark.parametrize(("from_rate", "to_rate"), PAIRS)
def test_a_tone_stays_itself_and_in_its_place_within_80_db(from_rate: int, to_rate: int) -> None:
    for hertz in (100.0, 997.0, min(from_rate, to_rate) / 2 - 1_800):
        out = resample(tone(hertz, from_rate), from_rate, to_rate)
        assert level(middle(out - tone(hertz, to_rate, len(out) / to_rate + 1)[: len(out)])) < -80


@pytest.mark.parametrize(("from_rate", "to_rate"), [(f, t) for f, t in PAIRS if f > t])
def test_what_the_lower_rate_cannot_carry_is_gone_below_80_db(from_rate: int, to_rate: int) -> None:
    for hertz in np.linspace(to_rate / 2 + 1, from_rate / 2, 7, endpoint=False):
        assert level(middle(resample(tone(hertz, from_rate), from_rate, to_rate))) < -80


@pytest.mark.parametrize(("from_rate", "to_rate"), PAIRS)
@pytest.mark.parametrize("count", [0, 1, 7, 10_001])
def test_the_length_is_exact(from_rate: int, to_rate: int, count: int) -> None:
    out = resample(noise(count), from_rate, to_rate)
    assert out.dtype == np.float32
    assert len(out) == round(count * to_rate / from_rate)


@pytest.mark.parametrize(("from_rate", "to_rate"), PAIRS)
def test_the_way_a_stream_is_cut_does_not_matter(from_rate: int, to_rate: int) -> None:
    sound = noise(from_rate // 5)
    cuts = np.sort(np.random.default_rng(1).integers(0, len(sound), 40))
    resampler = Resampler(from_rate, to_rate)
    pieces = [resampler.push(piece) for piece in np.split(sound, cuts)]
    streamed = np.concatenate([*pieces, resampler.flush()])
    np.testing.assert_allclose(streamed, resample(sound, from_rate, to_rate), atol=1e-6)


@pytest.mark.parametrize(("from_rate", "to_rate"), PAIRS)
def test_less_than_2_ms_are_held_back(from_rate: int, to_rate: int) -> None:
    resampler = Resampler(from_rate, to_rate)
    given = 0
    for frame in range(1, 11):
        given += len(resampler.push(noise(from_rate // 50)))
        assert frame * (from_rate // 50) / from_rate - given / to_rate < 0.002


def test_a_flushed_resampler_begins_anew() -> None:
    resampler = Resampler(48_000, 24_000)
    first = np.concatenate([resampler.push(noise(999)), resampler.flush()])
    second = np.concatenate([resampler.push(noise(999)), resampler.flush()])
    np.testing.assert_array_equal(first, second)


def test_an_equal_rate_changes_no_sample() -> None:
    np.testing.assert_array_equal(resample(noise(999), 24_000, 24_000), noise(999))
