"""A voice: hibari, which speaks English at 24 kHz, two hundred times faster than it sounds."""

import numpy as np
from numpy.typing import NDArray

from voicechat.pcm import SAMPLE_RATE
from voicechat.server.engines.sentences import speakable

SILENCE = 0.004
"""The engine leaves 0.3 s below this level at both ends of a sentence."""
MARGIN = SAMPLE_RATE * 20 // 1000
PAUSE = SAMPLE_RATE * 150 // 1000
"""Samples of silence after a sentence."""
PEAK = 0.7  # -3 dB: the engine is quiet


class Hibari:
    """Speaks.  For one thread at a time."""

    def __init__(self) -> None:
        """Load the voice and speak once: the first time takes 0.2 s."""
        import hibari

        self._voice = hibari.Hibari(threads=1)
        self.speak("Hello.", 1.0)

    def speak(self, text: str, speed: float) -> bytes:
        """The sentence as PCM16, 24 kHz; empty if there is nothing in it to be read aloud."""
        words = speakable(text)
        if not words:
            return b""
        samples: NDArray[np.float32] = self._voice(words, speed=speed, seed=0)
        loud = np.flatnonzero(np.abs(samples) > SILENCE)
        if not len(loud):
            return b""
        samples = samples[max(0, loud[0] - MARGIN) : loud[-1] + MARGIN]
        samples = samples * (PEAK / np.abs(samples).max())
        spoken = np.concatenate([samples, np.zeros(PAUSE, np.float32)])
        return np.round(spoken * 32767).astype("<i2").tobytes()
