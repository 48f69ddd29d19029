"""From what the microphone captured and the speaker took to what the user said."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from voicechat.audio.echo import FarEnd, processor
from voicechat.pcm import FRAME_SAMPLES, SAMPLE_RATE
from voicechat.resampling import Resampler
from voicechat.sound import EchoMode

Samples = NDArray[np.int16]


class Hearing:
    """One microphone and one speaker, from when they were opened on.

    `play` and `hear` are to be called in the order in which the card took and gave the blocks, so
    that the echo of a block is looked for where it can be.

    Args:
        near_rate: Of the microphone, in Hz.
        far_rate: Of the speaker.
        delay_ms: Between the two, as far as the card knows.
    """

    def __init__(
        self,
        echo: EchoMode,
        *,
        near_rate: int = SAMPLE_RATE,
        far_rate: int = SAMPLE_RATE,
        delay_ms: int = 0,
    ) -> None:
        self.silent_ms = 0
        """For so long the microphone has given exactly 0, as none in a room ever does."""
        self._near_rate = near_rate
        self._delay_ms = delay_ms
        self._processor = processor(echo, delay_ms)
        self._problem: Exception | None = None
        self._is_starving = False
        self._far_end = FarEnd(delay_ms)
        self._from_near = _converter(near_rate)
        self._from_far = _converter(far_rate)
        self._rest: Samples = np.empty(0, dtype="<i2")

    @property
    def echo(self) -> EchoMode:
        """What is done about it at this moment."""
        return self._processor.mode

    def take_problem(self) -> Exception | None:
        """Why the canceller broke down, once."""
        problem, self._problem = self._problem, None
        return problem

    def play(self, block: Samples) -> Samples:
        """The speaker took these, shape (n,); return them at 24 kHz."""
        played = self._from_far(block)
        self._far_end.push(played)
        return played

    def hear(self, block: Samples) -> list[Samples]:
        """The microphone gave these, shape (n, channels); return the frames that are complete."""
        self.silent_ms = 0 if block.any() else self.silent_ms + len(block) * 1000 // self._near_rate
        near = np.concatenate((self._rest, self._from_near(_mono(block))))
        whole = len(near) // FRAME_SAMPLES * FRAME_SAMPLES
        self._rest = near[whole:]
        cleaned = self._clean(near[:whole]) if whole else near[:0]
        return [cleaned[at : at + FRAME_SAMPLES] for at in range(0, whole, FRAME_SAMPLES)]

    def _clean(self, near: Samples) -> Samples:
        dropped, starved = self._far_end.dropped, self._far_end.starved
        far = self._far_end.take(len(near))
        was_starving, self._is_starving = self._is_starving, self._far_end.starved > starved
        if self._far_end.dropped > dropped or (was_starving and not self._is_starving):
            self._processor.reset()  # from now on, the echo comes at another distance
        try:
            return self._processor.process(near, far)
        except (RuntimeError, ValueError) as error:
            self._problem = error
            self._processor = processor("half-duplex", self._delay_ms)
            return self._processor.process(near, far)


def _mono(samples: Samples) -> Samples:
    """Shape (n, channels) becomes (n,): of many channels, the first two are the microphone."""
    if samples.shape[1] == 1:
        return samples[:, 0]
    mixed: NDArray[np.float64] = samples[:, :2].mean(axis=1)
    return np.rint(mixed).astype("<i2")


def _converter(rate: int) -> Callable[[Samples], Samples]:
    """From this rate to ours."""
    if rate == SAMPLE_RATE:
        return lambda samples: samples
    resampler = Resampler(rate, SAMPLE_RATE)

    def convert(samples: Samples) -> Samples:
        converted = resampler.push(samples.astype(np.float32))
        return np.clip(np.rint(converted), -32768, 32767).astype("<i2")

    return convert
