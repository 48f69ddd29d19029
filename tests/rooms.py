"""Rooms in which a loudspeaker is heard by a microphone; every one is the same each time."""

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voicechat.pcm import FRAME_SAMPLES, SAMPLE_RATE
from voicechat.resampling import resample

Sound = NDArray[np.float64]
"""Samples between -1 and 1, shape (n,), at 24 kHz."""
Samples = NDArray[np.int16]

SPEECH = Path(__file__).parent / "speech"
NOISE_DB = -65
"""Level of the quiet in every room, dBFS."""
TALKER_DB = -24
"""Level of somebody who speaks into the microphone, dBFS while they speak."""
ASSISTANT_DB = -20
REVERBERATION = 0.2
"""Seconds until an echo has lost 60 dB."""
BAND = (150, 8_000)
"""Hz that a small loudspeaker gives."""


@dataclass(frozen=True)
class Room:
    """How what is played comes back."""

    name: str
    delay_ms: int
    echo_db: float
    """Level of the echo, relative to what is played."""
    drift_ppm: int = 0
    """The microphone's clock is so much slower than the speaker's."""
    is_clipping: bool = False
    """The speaker is driven beyond what it can give."""
    is_diffuse: bool = False
    """Nothing goes straight from the speaker to the microphone."""

    def echo(self, far: Samples) -> Sound:
        """What of this arrives at the microphone, as long as `far`."""
        played = far / 32_768
        if self.is_clipping:
            played = np.tanh(4 * played) / 4
        heard = at_level(convolve(played, self.response()), level(far) + self.echo_db)
        heard = np.concatenate([np.zeros(self.delay_ms * SAMPLE_RATE // 1000), heard])
        if self.drift_ppm:
            places = np.arange(len(heard)) * (1 + self.drift_ppm / 1e6)
            heard = np.interp(places, np.arange(len(heard)), heard)
        return heard[: len(far)]

    def hears(self, far: Samples, talker: Sound | None = None) -> Samples:
        """The microphone's samples: echo, quiet and perhaps somebody who is there."""
        sound = self.echo(far) + noise(len(far))
        return pcm16(sound if talker is None else sound + talker)

    def response(self) -> Sound:
        """The impulse response behind the delay: noise that dies away, shape (n,).

        What comes straight is as strong as all that follows, about as in a laptop, unless it is
        diffuse.
        """
        length = int(1.25 * REVERBERATION * SAMPLE_RATE)
        random = np.random.default_rng(self.delay_ms)
        dying = np.exp(-np.log(1_000) * np.arange(length) / (REVERBERATION * SAMPLE_RATE))
        response = random.standard_normal(length) * dying
        if not self.is_diffuse:
            response[0] = np.sqrt(np.sum(response**2))
        hertz = np.fft.rfftfreq(2 * length, 1 / SAMPLE_RATE)
        low, high = BAND
        passed = 1 / np.sqrt((1 + (low / np.maximum(hertz, 1)) ** 8) * (1 + (hertz / high) ** 16))
        banded: Sound = np.fft.irfft(np.fft.rfft(response, 2 * length) * passed)[:length]
        return banded


ROOMS = [
    Room("40 ms, -12 dB", 40, -12),
    Room("120 ms, -6 dB", 120, -6),
    Room("250 ms, -9 dB", 250, -9),
    Room("450 ms, -9 dB", 450, -9),
    Room("clocks drift by 100 ppm", 120, -9, drift_ppm=100),
    Room("the speaker clips", 120, -9, is_clipping=True),
    Room("the speaker faces away", 250, -9, is_diffuse=True),
]


def convolve(sound: Sound, response: Sound) -> Sound:
    """As long as `sound`."""
    size = len(sound) + len(response)
    product = np.fft.rfft(sound, size) * np.fft.rfft(response, size)
    whole: Sound = np.fft.irfft(product, size)
    return whole[: len(sound)]


def level(sound: Sound | Samples) -> float:
    """RMS in dBFS, where a constant full scale has 0."""
    full = 32_768 if sound.dtype == np.int16 else 1
    return float(10 * np.log10(np.mean((sound / full) ** 2) + 1e-20))


def at_level(sound: Sound, db: float) -> Sound:
    """The same, louder or weaker."""
    return sound * 10 ** ((db - level(sound)) / 20)


def noise(count: int) -> Sound:
    """The quiet of a room."""
    return at_level(np.random.default_rng(1).standard_normal(count), NOISE_DB)


def pcm16(sound: Sound) -> Samples:
    """As a card gives it, clipped."""
    return np.clip(np.rint(sound * 32_768), -32_768, 32_767).astype(np.int16)


def spoken(name: str, db: float) -> Sound:
    """A file of tests/speech, at this level while it is not quiet, without the quiet around it."""
    with wave.open(str(SPEECH / f"{name}.wav")) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        samples = pcm.astype(np.float32) / np.float32(32_768)
        sound = resample(samples, file.getframerate(), SAMPLE_RATE).astype(np.float64)
    frames = sound[: len(sound) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    power = np.mean(frames**2, axis=1)
    active = np.flatnonzero(power > 0.01 * np.quantile(power, 0.9))
    gain = 10 ** (db / 20) / np.sqrt(np.mean(power[active]))
    speech: Sound = frames[active[0] : active[-1] + 1].ravel() * gain
    return speech


def assistant(seconds: float) -> Samples:
    """An assistant who never pauses."""
    names = [f"austen_{number}" for number in ("0870", "0890", "0920", "0880", "0930")]
    speech = np.concatenate([spoken(name, ASSISTANT_DB) for name in names])
    return pcm16(np.resize(speech, int(seconds * SAMPLE_RATE)))
