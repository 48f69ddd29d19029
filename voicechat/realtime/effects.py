"""What a conversation wants done, in the imperative; `talk.Talk` does it."""

from dataclasses import dataclass

from voicechat.errors import VoicechatError
from voicechat.realtime.events import Event
from voicechat.transcript import Record


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a connection; answer with `Connected` or `Disconnected`."""

    connection: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close a connection: nothing more is expected of it, not even `Disconnected`."""

    connection: int


@dataclass(frozen=True, slots=True)
class Send:
    """Say something to the server."""

    connection: int
    event: Event


@dataclass(frozen=True, slots=True)
class Play:
    """Queue sound behind what is already waiting to be heard."""

    item_id: str
    pcm: bytes


@dataclass(frozen=True, slots=True)
class EndPlayback:
    """No more sound of this item comes; answer with `PlaybackFinished` when it has been heard."""

    item_id: str


@dataclass(frozen=True, slots=True)
class StopPlayback:
    """Fall silent at once; answer with `PlaybackStopped`."""


@dataclass(frozen=True, slots=True)
class Write:
    """Put a record on disk."""

    record: Record


@dataclass(frozen=True, slots=True)
class Notice:
    """Tell the user something that is not part of what was said."""

    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The conversation is over."""

    error: VoicechatError | None = None


Effect = Connect | Close | Send | Play | EndPlayback | StopPlayback | Write | Notice | Finish
