"""Does the microphone hear the speaker at all?

With headphones it does not.  A canceller that is not sure yet takes whatever the microphone hears
while the assistant speaks for an echo, and the user cannot interrupt: for six to ten seconds with
AEC3.  The delayed far end in the near end, which makes the two coherent, shows within one.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from voicechat.pcm import SAMPLE_RATE

Samples = NDArray[np.int16]

DECIMATION = 3
RATE = SAMPLE_RATE // DECIMATION
WINDOW = RATE
"""So much of the near end, a second, is looked for in the far end,"""
LONGEST_DELAY = RATE * 6 // 10
"""up to so long before."""
HOP, LATER_HOP = SAMPLE_RATE * 24 // 100, SAMPLE_RATE * 72 // 100
"""Every 240 ms, and every 720 when the first question is answered; in samples as they come."""
SIZE = 16_384
TAPER = np.hanning(WINDOW).astype(np.float32)
BAND = slice(150 * SIZE // RATE, 3_800 * SIZE // RATE)
SOUNDING = 150
"""Samples of the far end that are louder are sound."""
CLEAR = 9.0
"""Times the standard deviation: a peak that chance never makes.  Two voices that have nothing to do
with each other reach 8, an echo that is 30 dB below the far end 20 to 40."""
FAINT = 6.5
"""What is usually below this has no echo in it: one 10 dB below the room's noise is at 10."""
LOOKS = 3


class EchoPath:
    """Tells whether there is one between the speaker and the microphone; so it is taken at first.

    Generalized cross-correlation with phase transform (Knapp and Carter, 1976) of the last second,
    about 1 ms of work a second while the far end sounds.
    """

    def __init__(self) -> None:
        self.is_there = True
        self._near = np.zeros(WINDOW, dtype=np.float32)
        self._far = np.zeros(WINDOW + LONGEST_DELAY, dtype=np.float32)
        self._new: list[tuple[Samples, Samples]] = []
        self._count = 0
        self._peaks: deque[float] = deque(maxlen=LOOKS)

    def look(self, near: Samples, far: Samples) -> bool:
        """Take in what both sides have at the same time; return whether there is an echo path.

        Both are of shape (n,); n is a multiple of 3.
        """
        self._new.append((near, far))
        self._count += len(near)
        if self._count >= (HOP if len(self._peaks) < LOOKS else LATER_HOP):
            self._near = _shift(self._near, [near for near, _ in self._new])
            self._far = _shift(self._far, [far for _, far in self._new])
            self._new.clear()
            self._count = 0
            if np.mean(np.abs(self._far[-WINDOW:]) > SOUNDING) > 0.2:
                self._judge()
        return self.is_there

    def _judge(self) -> None:
        self._peaks.append(_peak(self._near, self._far))
        if self._peaks[-1] > CLEAR:
            self.is_there = True
        elif len(self._peaks) == LOOKS and np.median(self._peaks) < FAINT:
            self.is_there = False


def _shift(old: NDArray[np.float32], frames: list[Samples]) -> NDArray[np.float32]:
    """Put these at the end, at a third of their rate."""
    new = np.concatenate(frames).astype(np.float32).reshape(-1, DECIMATION).mean(axis=1)
    return np.concatenate((old[len(new) :], new))


def _peak(near: NDArray[np.float32], far: NDArray[np.float32]) -> float:
    """How much the likeliest delay sticks out, in standard deviations."""
    cross = np.conj(np.fft.rfft(near * TAPER, SIZE)) * np.fft.rfft(far, SIZE)
    size = np.abs(cross)
    whitened = np.zeros_like(cross)
    whitened[BAND] = cross[BAND] / (size[BAND] + 1e-3 * size.mean() + 1e-9)
    likeness = np.fft.irfft(whitened, SIZE)
    return float(np.abs(likeness[: LONGEST_DELAY + 1]).max() / (likeness.std() + 1e-12))
