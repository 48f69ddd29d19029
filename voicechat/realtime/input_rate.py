"""The microphone's sound at the rate that a server wants to hear."""

import numpy as np

from voicechat.pcm import SAMPLE_RATE
from voicechat.resampling import Resampler, Samples


class InputRate:
    """Turns PCM16 at 24 kHz into PCM16 at another rate, as it comes.

    So many milliseconds go in, so many come out, in all; 1.5 ms of them wait for what follows.
    """

    def __init__(self, rate: int) -> None:
        self._resampler = Resampler(SAMPLE_RATE, rate) if rate != SAMPLE_RATE else None

    def push(self, pcm: bytes) -> bytes:
        """The next sound, without what must still wait."""
        if self._resampler is None:
            return pcm
        samples = np.frombuffer(pcm, dtype="<i2").astype(np.float32)
        return _pcm(self._resampler.push(samples))

    def flush(self) -> bytes:
        """What waited, as if silence followed."""
        return _pcm(self._resampler.flush()) if self._resampler is not None else b""


def _pcm(samples: Samples) -> bytes:
    return np.clip(np.rint(samples), -32_768, 32_767).astype("<i2").tobytes()
