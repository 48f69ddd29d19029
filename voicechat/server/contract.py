"""What can happen to a server session, and what it wants done: the mirror of the client's contract.

Inputs are past tense, effects imperative.  Sound is PCM16, little-endian, mono, 24 kHz throughout.
"""

from dataclasses import dataclass
from typing import Literal

from voicechat.realtime.events import Event, MalformedError

HOP_MS = 32
"""Voice activity is told for every so many milliseconds of sound."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn as the mind reads it."""

    role: Literal["user", "assistant", "system"]
    text: str


# Inputs -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Received:
    """The client said something."""

    event: Event


@dataclass(frozen=True, slots=True)
class FrameRefused:
    """The client sent a frame that is not an event."""

    error: MalformedError
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class VoiceHeard:
    """How likely it is that someone speaks, for the next hops of the sound from `Listen`."""

    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Transcribed:
    """The words of `Transcribe`; empty if there were none."""

    item_id: str
    take: int
    text: str


@dataclass(frozen=True, slots=True)
class TranscriptionFailed:
    """`Transcribe` came to nothing; `message` says why in a sentence fit to be spoken."""

    item_id: str
    take: int
    message: str


@dataclass(frozen=True, slots=True)
class SentenceReady:
    """The next sentence of an answer."""

    response_id: str
    text: str
    pcm: bytes
    """Empty where the answer is not spoken, or the sentence cannot be."""


@dataclass(frozen=True, slots=True)
class AnswerEnded:
    """Every sentence of an answer is there."""

    response_id: str
    was_cut: bool = False
    """The limit on tokens was reached."""


@dataclass(frozen=True, slots=True)
class AnswerFailed:
    """No more sentences of this answer will come."""

    response_id: str
    message: str


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The clock passed `ServerSession.deadline`."""


Input = (
    Received
    | FrameRefused
    | VoiceHeard
    | Transcribed
    | TranscriptionFailed
    | SentenceReady
    | AnswerEnded
    | AnswerFailed
    | DeadlineReached
)


# Effects ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Say:
    """Send this event to the client."""

    event: Event


@dataclass(frozen=True, slots=True)
class Listen:
    """Tell how likely speech is in this sound, which follows the last: `VoiceHeard`."""

    pcm: bytes


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Put this sound into words: `Transcribed` or `TranscriptionFailed`, with the same `take`."""

    item_id: str
    take: int
    pcm: bytes


@dataclass(frozen=True, slots=True)
class Generate:
    """Let the mind answer: `SentenceReady` for every sentence, then `AnswerEnded` or failed."""

    response_id: str
    messages: tuple[Message, ...]
    instructions: str
    speed: float | None
    """Of the voice, 1 is normal; None if the answer is written, not spoken."""
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Utter:
    """Answer with just these words, as `Generate` would with its own."""

    response_id: str
    text: str
    speed: float | None


@dataclass(frozen=True, slots=True)
class Stop:
    """Nobody waits for this answer any more."""

    response_id: str


@dataclass(frozen=True, slots=True)
class Close:
    """Close the socket."""

    code: int
    reason: str


Effect = Say | Listen | Transcribe | Generate | Utter | Stop | Close
