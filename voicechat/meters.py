"""How loud it is, for the eye."""

from collections import deque

import numpy as np

LEVELS = 6
QUIETEST_DB, LOUDEST_DB = -54, -12
"""RMS, of full scale: a quiet room, and someone who speaks up close."""
LATEST = 10
"""Frames that are listened to, at most: what came before them is over."""


class Meter:
    """Takes in sound as it comes, and says how loud it was since it was last asked."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque(maxlen=LATEST)

    def hear(self, pcm: bytes) -> None:
        """Take in a frame, which costs next to nothing."""
        self._frames.append(pcm)

    def read(self) -> int:
        """From 0, which is silence, to `LEVELS`."""
        if not self._frames:
            return 0
        pcm = b"".join(self._frames)
        self._frames.clear()
        return level(pcm)


def level(pcm: bytes) -> int:
    """How loud PCM16 is, from 0 to `LEVELS`."""
    samples = np.frombuffer(pcm, "<i2", count=len(pcm) // 2).astype(np.float32)
    power = float(np.dot(samples, samples)) / max(1, len(samples)) / 32_768**2
    if power <= 0:
        return 0
    db = 10 * np.log10(power)
    return int(np.clip((db - QUIETEST_DB) * LEVELS / (LOUDEST_DB - QUIETEST_DB), 0, LEVELS))
