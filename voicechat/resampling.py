"""From one sample rate to another, as sound arrives.

A windowed sinc, evaluated where output samples fall between input samples.  Aliases are below
-80 dB, and 1.5 ms of sound (more below 8 kHz) is held back until what follows it is known.
"""

from fractions import Fraction
from math import ceil, gcd

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Samples = NDArray[np.float32]

ATTENUATION = 85
"""dB in the stop band; float32 and the tests' own windows leave 5 of them unproven."""
HALF_WIDTH = 12
"""Zero crossings on each side of the sinc at 8 kHz, proportionally more at higher rates."""
LARGEST_MATRIX = 1_000_000
"""Ratios that need more weights than this take them from a table of `PHASES` and interpolate."""
PHASES = 512
PIECE = 1 << 14
"""Samples that `resample` takes at a time, so that hours need no more memory than their own."""


class Resampler:
    """Turns a stream at `from_rate` into one at `to_rate`, both in Hz.

    Output sample j belongs to the time j / `to_rate`, so nothing is shifted; what a call of `push`
    cannot know yet comes with the next one.  The result does not depend on how the sound was cut.
    """

    _waiting: Samples
    """Inputs that are still needed."""
    _given: int
    """Outputs already returned, counted from the first sample of `_waiting`."""
    _taken: int
    _total: int
    """Inputs taken and outputs returned since the stream began."""

    def __init__(self, from_rate: int, to_rate: int) -> None:
        common = gcd(from_rate, to_rate)
        self._step, self._period = from_rate // common, to_rate // common
        """So many input samples last as long as so many output samples."""
        half_seconds = HALF_WIDTH / min(8_000, from_rate, to_rate)
        self._half = ceil(half_seconds * from_rate)
        # J. F. Kaiser's estimate of how wide a transition this attenuation and this length allow.
        transition = (ATTENUATION - 7.95) / (2.285 * 4 * np.pi * half_seconds)
        # Nothing may fold back from above to_rate / 2; images above from_rate / 2 may be centred.
        cutoff = min(from_rate / 2, to_rate / 2 - transition / 2)
        self._bandwidth = 2 * cutoff / from_rate
        self._groups = max(1, self._half // self._step)
        """Periods in one multiplication: many when they are short."""
        rows = self._groups * self._step + 2 * self._half - 1
        columns = self._groups * self._period
        self._by_matrix = rows * columns <= LARGEST_MATRIX
        if self._by_matrix:
            places = np.arange(columns) * self._step / self._period
            self._weights = self._weigh(places, rows)
        else:
            self._groups = 1
            self._weights = self._weigh(np.arange(PHASES + 1) / PHASES, 2 * self._half).T.copy()
        self._start_over()

    def push(self, samples: Samples) -> Samples:
        """Take the next samples, shape (n,); return those that are now certain, shape (m,)."""
        if self._step == self._period:
            return samples
        self._taken += len(samples)
        self._waiting = np.concatenate((self._waiting, samples))
        # Output j needs the inputs up to `half` after its own place.
        known = len(self._waiting) - 2 * self._half + 1
        ready = max(self._given, -(-known * self._period // self._step))
        if ready == self._given:
            return np.empty(0, dtype=np.float32)
        out = self._compute(self._given, ready)
        whole = ready // (self._groups * self._period)
        self._waiting = self._waiting[whole * self._groups * self._step :]
        self._given = ready - whole * self._groups * self._period
        self._total += len(out)
        return out

    def flush(self) -> Samples:
        """Return what was held back, as if silence followed, and begin a new stream.

        All that was returned is then round(n * `to_rate` / `from_rate`) samples long.
        """
        rest = round(Fraction(self._taken * self._period, self._step)) - self._total
        tail = self.push(np.zeros(self._half + self._step, dtype=np.float32))[:rest]
        self._start_over()
        return tail

    def _start_over(self) -> None:
        self._waiting = np.zeros(self._half - 1, dtype=np.float32)
        self._given = self._taken = self._total = 0

    def _weigh(self, places: NDArray[np.float64], rows: int) -> Samples:
        """What each of `rows` inputs counts for an output at each place, shape (rows, places)."""
        distance = np.arange(rows)[:, None] - (self._half - 1) - places
        inside = np.clip(1 - (distance / self._half) ** 2, 0, None)
        window = np.i0(0.1102 * (ATTENUATION - 8.7) * np.sqrt(inside))
        weights = np.where(inside > 0, np.sinc(self._bandwidth * distance) * window, 0)
        return np.asarray(weights / weights.sum(axis=0), dtype=np.float32)

    def _compute(self, start: int, end: int) -> Samples:
        """Outputs `start` to `end`, counted from the first sample of `_waiting`."""
        if not self._by_matrix:
            return self._interpolate(np.arange(start, end))
        rows, columns = self._weights.shape
        step = self._groups * self._step
        blocks = -(-end // columns)
        needed = (blocks - 1) * step + rows
        padded = np.zeros(needed, dtype=np.float32)  # the last block need not be full yet
        padded[: len(self._waiting)] = self._waiting[:needed]
        windows = np.ascontiguousarray(sliding_window_view(padded, rows)[::step])
        out: Samples = (windows @ self._weights).ravel()[start:end]
        return out

    def _interpolate(self, outputs: NDArray[np.int_]) -> Samples:
        """The same for ratios such as 44101 : 24000, whose every output has weights of its own."""
        first, remainder = np.divmod(outputs * self._step, self._period)
        phase = remainder * (PHASES / self._period)
        low = phase.astype(np.int_)
        between = (phase - low).astype(np.float32)
        windows = sliding_window_view(self._waiting, 2 * self._half)[first]
        below = np.einsum("ij,ij->i", windows, self._weights[low])
        above = np.einsum("ij,ij->i", windows, self._weights[low + 1])
        out: Samples = below + between * (above - below)
        return out


def resample(samples: Samples, from_rate: int, to_rate: int) -> Samples:
    """All of it at once: shape (n,) becomes (round(n * `to_rate` / `from_rate`),), not shifted."""
    resampler = Resampler(from_rate, to_rate)
    pieces = [resampler.push(samples[at : at + PIECE]) for at in range(0, len(samples), PIECE)]
    return np.concatenate([*pieces, resampler.flush()])
