"""What can happen to a conversation, in the past tense.

Together with `realtime.effects` this is the whole contract between the conversation and the world.
A connection is named by its number, because two can be alive at once: a late word of an old one
must not be taken for the new one's.
"""

from dataclasses import dataclass

from voicechat.errors import VoicechatError
from voicechat.realtime.events import Event


@dataclass(frozen=True, slots=True)
class Connected:
    """The WebSocket is open.  The server has not said anything yet."""

    connection: int
    server_time: float | None = None
    """What the server's clock says, in Unix time: `expires_at` is meant by that one."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is gone, or never came to be."""

    connection: int
    error: VoicechatError


@dataclass(frozen=True, slots=True)
class Silent:
    """Nothing at all has come from the server for so long, not even an answer to a ping."""

    connection: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Received:
    """The server said something."""

    connection: int
    event: Event


@dataclass(frozen=True, slots=True)
class Garbled:
    """The server sent a frame that is not an event."""

    connection: int
    reason: str


@dataclass(frozen=True, slots=True)
class MicCaptured:
    """The microphone heard a frame (20 ms of PCM16, 24 kHz, mono)."""

    pcm: bytes


@dataclass(frozen=True, slots=True)
class PlaybackStopped:
    """The speaker obeyed `StopPlayback`: of each item it had, so many ms had been heard.

    The item being heard is first, those still waiting follow with 0.
    """

    heard: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class PlaybackFinished:
    """An item was heard to its end."""

    item_id: str
    heard_ms: int


@dataclass(frozen=True, slots=True)
class TextTyped:
    """The user typed a turn."""

    text: str


@dataclass(frozen=True, slots=True)
class Typing:
    """The user writes a turn and has not sent it, or looks at what the keys do."""


@dataclass(frozen=True, slots=True)
class MuteToggled:
    """The user closed the microphone, or opened it again."""


@dataclass(frozen=True, slots=True)
class TalkKeyPressed:
    """Without voice detection: the user begins to speak, or is done speaking."""


@dataclass(frozen=True, slots=True)
class TalkKeyReleased:
    """The terminal tells when keys are let go: the user is done speaking."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The user wants no more of the answer, and has nothing to say instead."""


@dataclass(frozen=True, slots=True)
class RepeatRequested:
    """The user wants to hear the last answer once more."""


@dataclass(frozen=True, slots=True)
class WaitSkipped:
    """The user does not want to wait until older turns are summarised."""


@dataclass(frozen=True, slots=True)
class SavingFailed:
    """What was said could not be put on disk, and nothing more will be."""

    error: VoicechatError


@dataclass(frozen=True, slots=True)
class GoOnUnsaved:
    """The user goes on though nothing more is saved."""


@dataclass(frozen=True, slots=True)
class Woke:
    """The machine slept for so long, or the whole program was stopped."""

    seconds: float


@dataclass(frozen=True, slots=True)
class QuitRequested:
    """The user hung up, or something happened after which going on makes no sense."""

    error: VoicechatError | None = None


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The clock passed `Conversation.deadline`."""


Input = (
    Connected
    | Disconnected
    | Silent
    | Received
    | Garbled
    | MicCaptured
    | PlaybackStopped
    | PlaybackFinished
    | TextTyped
    | Typing
    | MuteToggled
    | TalkKeyPressed
    | TalkKeyReleased
    | Interrupted
    | RepeatRequested
    | WaitSkipped
    | SavingFailed
    | GoOnUnsaved
    | Woke
    | QuitRequested
    | DeadlineReached
)
