"""What is done against the assistant hearing itself: near end + far end -> clean near end.

The near end is what the microphone heard, the far end what the speaker was given at the same
moment.  All arrays are int16, 24 kHz, mono, and a frame has 480 samples.
"""

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from voicechat.audio.echo_path import EchoPath
from voicechat.errors import DeviceError
from voicechat.pcm import FRAME_SAMPLES, SAMPLE_RATE
from voicechat.sound import EchoMode

if TYPE_CHECKING:
    from pywebrtc_audio import AudioProcessor

Samples = NDArray[np.int16]

KEPT = SAMPLE_RATE
"""Samples that wait at most for a microphone which does not come for them."""
STANDING = 2 * FRAME_SAMPLES
"""No more samples than this may always be left, or than half the delay that the card tells.

What is left comes that much too late.  If that is more than the way through speaker, room and
microphone, 60 to 80 ms on a fast card, the echo comes before the far end, and nothing is cancelled.
"""
DEAF = SAMPLE_RATE * 2 // 5
"""After a reset, in samples: what is left of the echo meanwhile would be taken for speech."""
PATIENCE = SAMPLE_RATE // 2
"""Samples after which "always" is certain: what a card holds back and then gives at once."""
NOISE_SUPPRESSION = 1
"""12 dB; 3 would be 21."""
SOUNDING = 100
"""-50 dBFS: what is weaker comes back weaker than any microphone's own noise."""
REVERBERATION_MS = 250
"""An echo in a furnished room is 60 dB weaker by then."""


class FarEnd:
    """What the speaker was given, waiting for the microphone's frame of the same moment.

    Sample goes with sample: as long as neither stream loses any, what is taken keeps its distance
    to its echo, which is all that a canceller needs.  No clock is consulted.

    Args:
        delay_ms: From giving a sample to the speaker until its echo comes, as the card tells it.
    """

    def __init__(self, delay_ms: int = 0) -> None:
        self._standing = max(STANDING, delay_ms // 2 * SAMPLE_RATE // 1000)
        self.starved = 0
        """Samples that the microphone asked for and the speaker had not been given yet."""
        self.dropped = 0
        """Samples that the microphone never came for.  Reset the processor when this grows."""
        self._waiting: Samples = np.zeros(0, np.int16)
        self._since = 0
        """Samples taken since no more than that were left."""
        self._fewest = KEPT
        """The fewest that were left in that time."""

    @property
    def waiting(self) -> int:
        """Samples that the microphone has not come for yet."""
        return len(self._waiting)

    def push(self, samples: Samples) -> None:
        """The speaker was given exactly these, shape (n,), silence included."""
        self._waiting = np.concatenate((self._waiting, samples))
        self._drop(len(self._waiting) - KEPT)

    def take(self, count: int) -> Samples:
        """What goes with the microphone's next samples, shape (count,)."""
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        self._watch(count)
        if missing := count - len(taken):
            self.starved += missing
            # Behind, not before: a speaker that gets nothing plays what it has, then silence.
            taken = np.concatenate((taken, np.zeros(missing, np.int16)))
        return taken

    def _watch(self, count: int) -> None:
        """Get rid of what stays: the microphone lost samples, the speaker did, or clocks drift."""
        if len(self._waiting) <= self._standing:
            self._since, self._fewest = 0, KEPT
            return
        self._since += count
        self._fewest = min(self._fewest, len(self._waiting))
        if self._since >= PATIENCE:
            self._drop(self._fewest - self._standing // 2)
            self._since, self._fewest = 0, KEPT

    def _drop(self, count: int) -> None:
        """Forget the oldest."""
        if count > 0:
            self.dropped += count
            self._waiting = self._waiting[count:]


class EchoProcessor(Protocol):
    """Takes the assistant's voice out of what the microphone heard."""

    @property
    def mode(self) -> EchoMode:
        """What it does, in a word for the user; never "auto"."""

    def process(self, near: Samples, far: Samples) -> Samples:
        """Clean the next samples, all of shape (n,); n is a multiple of 240, 10 ms."""

    def reset(self) -> None:
        """Samples were lost, and the echo comes at another time from now on."""


class Canceller:
    """Takes out the echo and leaves the user (WebRTC's AEC3), so that they can interrupt.

    It finds the delay of the echo by itself, up to half a second.  What comes out is 15.3 ms late,
    and background noise is 12 dB weaker.  Where there is no echo, as with headphones, nothing is
    taken for one after the first second.  About 0.3 ms a frame.

    Raises:
        ImportError: pywebrtc-audio is not installed, or there is none for this platform.
        OSError: It is installed but cannot be loaded.
    """

    mode: EchoMode = "cancel"

    def __init__(self, delay_ms: int) -> None:
        self._path = EchoPath()
        self._deaf = 0
        # Neither a high-pass filter, as the canceller has one of its own, nor automatic gain,
        # which makes what is left of the echo louder as well.
        self._processor = _load()(
            sample_rate=SAMPLE_RATE,
            echo_cancellation=True,
            noise_suppression=True,
            ns_level=NOISE_SUPPRESSION,
            stream_delay_ms=delay_ms,
        )

    def process(self, near: Samples, far: Samples) -> Samples:
        """Clean the next samples."""
        there = far if self._path.look(near, far) else np.zeros_like(far)
        cleaned = self._processor.process(near, there)
        if self._deaf > 0:
            self._deaf -= len(near)
            return np.zeros_like(near)
        return cleaned

    def reset(self) -> None:
        """Begin anew: that takes half a second, to find out that all has changed takes two."""
        self._processor.reset()
        self._deaf = DEAF if self._path.is_there else 0


class HalfDuplex:
    """Hears nothing while the assistant is heard and for `tail_ms` after: nobody can interrupt."""

    mode: EchoMode = "half-duplex"

    def __init__(self, tail_ms: int) -> None:
        self._tail = tail_ms * SAMPLE_RATE // 1000
        self._since = self._tail + 1
        """Samples since the far end last sounded, at the first of the next frame."""

    def process(self, near: Samples, far: Samples) -> Samples:
        """Clean the next samples."""
        places = np.arange(len(far))
        # In int16, the absolute value of -32768 is negative.
        is_sounding = (far > SOUNDING) | (far < -SOUNDING)
        last = np.maximum.accumulate(np.where(is_sounding, places, -self._since))
        since = places - last
        self._since = int(since[-1]) + 1
        return np.where(since > self._tail, near, np.int16(0))

    def reset(self) -> None:
        """Nothing to do."""


class PassThrough:
    """Leaves everything as it is: headphones, or a system that cancels echo itself."""

    mode: EchoMode = "off"

    def process(self, near: Samples, far: Samples) -> Samples:
        """Leave it."""
        return near

    def reset(self) -> None:
        """Nothing to do."""


def can_cancel() -> bool:
    """Is there a canceller for this platform, and is it installed?"""
    try:
        _load()
    except (ImportError, OSError):
        return False
    return True


def processor(mode: EchoMode, delay_ms: int) -> EchoProcessor:
    """The processor for this mode; "auto" cancels where it can and is half-duplex elsewhere.

    Args:
        mode: What the user wants.
        delay_ms: From giving a sample to the speaker until the microphone gives its echo, as the
            card tells it.  Too little costs the canceller nothing; if it is 150 ms too much, most
            of the first second's echo stays.

    Raises:
        DeviceError: The user wants to cancel, and there is nothing to do it with.
    """
    match mode:
        case "auto":
            return processor("cancel" if can_cancel() else "half-duplex", delay_ms)
        case "cancel":
            try:
                return Canceller(delay_ms // 2)  # cards tell of more than there is
            except (ImportError, OSError) as error:
                raise DeviceError(
                    f"the echo of the speaker cannot be cancelled: {error}",
                    remedy="Install the canceller with `pip install pywebrtc-audio`, or let the "
                    "microphone pause while the assistant speaks with `--echo half-duplex`.",
                ) from error
        case "half-duplex":
            return HalfDuplex(delay_ms + REVERBERATION_MS)
        case "off":
            return PassThrough()


def _load() -> "type[AudioProcessor]":
    """Import it only when it is needed: on some platforms there is none, or only an empty one."""
    from pywebrtc_audio import AudioProcessor

    return AudioProcessor
