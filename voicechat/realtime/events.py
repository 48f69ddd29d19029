"""The words of the Realtime API, as typed events.

Both ends of the wire live here, so the local server cannot drift from the client.  A class is
named after its ``type``: ``response.output_audio.delta`` is `ResponseOutputAudioDelta`.  Fields
that voicechat does not use are not declared and pass unread; an event of an unknown type becomes an
`UnknownEvent`, because servers add events without asking us.  Only GA names are written; the names
of the beta are read too (`OLDER_NAMES`), since many compatible servers still speak them.

Source: OpenAI's Realtime API reference, "Client events" and "Server events".
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
from typing import Any, ClassVar, cast

Json = Mapping[str, Any]


class Event:
    """Something one side says to the other: one JSON text frame."""

    __slots__ = ()
    type: ClassVar[str]


class MalformedError(ValueError):
    """A frame that is not an event, in the words that the API itself uses for it."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


_ABSENT = {"absent": True}
"""Marks a field that is left out of the JSON when it is None, rather than sent as null."""


# Client events ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionUpdate(Event):
    """Set the voice, instructions and turn detection of this connection."""

    type: ClassVar[str] = "session.update"
    session: Json
    event_id: str | None = field(default=None, metadata=_ABSENT)


@dataclass(frozen=True, slots=True)
class InputAudioBufferAppend(Event):
    """The next slice of what the microphone hears."""

    type: ClassVar[str] = "input_audio_buffer.append"
    audio: bytes
    """PCM16, little-endian, mono, 24 kHz; base64 on the wire."""
    event_id: str | None = field(default=None, metadata=_ABSENT)


@dataclass(frozen=True, slots=True)
class InputAudioBufferCommit(Event):
    """What was appended is a turn: only needed where the server detects none itself."""

    type: ClassVar[str] = "input_audio_buffer.commit"
    event_id: str | None = field(default=None, metadata=_ABSENT)


@dataclass(frozen=True, slots=True)
class InputAudioBufferClear(Event):
    """Forget what was appended and not yet committed."""

    type: ClassVar[str] = "input_audio_buffer.clear"
    event_id: str | None = field(default=None, metadata=_ABSENT)


@dataclass(frozen=True, slots=True)
class ConversationItemCreate(Event):
    """Add a finished item to the conversation, as replay does for every remembered turn."""

    type: ClassVar[str] = "conversation.item.create"
    item: Json
    previous_item_id: str | None = field(default=None, metadata=_ABSENT)
    """``root``: at the head.  None: at the tail."""
    event_id: str | None = field(default=None, metadata=_ABSENT)


@dataclass(frozen=True, slots=True)
class ConversationItemRetrieve(Event):
    """Ask for an item as the server has it, audio included."""

    type: ClassVar[str] = "conversation.item.retrieve"
    item_id: str
    event_id: str | None = field(default=None, metadata=_ABSENT)


@dataclass(frozen=True, slots=True)
class ConversationItemTruncate(Event):
    """Make the server forget the part of an item's audio and text that was never heard."""

    type: ClassVar[str] = "conversation.item.truncate"
    item_id: str
    content_index: int
    audio_end_ms: int
    """How much was heard; the server refuses more than it sent."""
    event_id: str | None = field(default=None, metadata=_ABSENT)


@dataclass(frozen=True, slots=True)
class ConversationItemDelete(Event):
    """Remove an item, such as an answer of which nothing was heard."""

    type: ClassVar[str] = "conversation.item.delete"
    item_id: str
    event_id: str | None = field(default=None, metadata=_ABSENT)


@dataclass(frozen=True, slots=True)
class ResponseCreate(Event):
    """Ask for an answer now, where the server would not give one by itself."""

    type: ClassVar[str] = "response.create"
    response: Json | None = field(default=None, metadata=_ABSENT)
    event_id: str | None = field(default=None, metadata=_ABSENT)


@dataclass(frozen=True, slots=True)
class ResponseCancel(Event):
    """Stop the answer that is being made."""

    type: ClassVar[str] = "response.cancel"
    response_id: str | None = field(default=None, metadata=_ABSENT)
    event_id: str | None = field(default=None, metadata=_ABSENT)


# Server events ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Error(Event):
    """Something the client sent was refused, or the server has a problem."""

    type: ClassVar[str] = "error"
    error: Json
    """``type``, ``message``, and often ``code``, ``param`` and the client's ``event_id``."""
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class SessionCreated(Event):
    """The first frame: only now is the client connected."""

    type: ClassVar[str] = "session.created"
    session: Json
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class SessionUpdated(Event):
    """The server has taken our `SessionUpdate`; from now on it may be spoken to."""

    type: ClassVar[str] = "session.updated"
    session: Json = field(default_factory=dict)
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ConversationItemAdded(Event):
    """An item entered the conversation."""

    type: ClassVar[str] = "conversation.item.added"
    item: Json
    previous_item_id: str | None = None
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ConversationItemDone(Event):
    """An item is final."""

    type: ClassVar[str] = "conversation.item.done"
    item: Json
    previous_item_id: str | None = None
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ConversationItemCreated(Event):
    """The older acknowledgement of an item; GA servers send added and done instead."""

    type: ClassVar[str] = "conversation.item.created"
    item: Json
    previous_item_id: str | None = None
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ConversationItemRetrieved(Event):
    """An item with its audio, as asked for."""

    type: ClassVar[str] = "conversation.item.retrieved"
    item: Json
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ConversationItemDeleted(Event):
    """An item is gone."""

    type: ClassVar[str] = "conversation.item.deleted"
    item_id: str
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ConversationItemTruncated(Event):
    """The unheard rest of an item is gone, and its transcript with it."""

    type: ClassVar[str] = "conversation.item.truncated"
    item_id: str
    content_index: int = 0
    audio_end_ms: int = 0
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ConversationItemInputAudioTranscriptionDelta(Event):
    """The next words of what the user said."""

    type: ClassVar[str] = "conversation.item.input_audio_transcription.delta"
    item_id: str
    content_index: int = 0
    delta: str = ""
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ConversationItemInputAudioTranscriptionUpdated(Event):
    """xAI's own: all words of the user's so far, while they are still being spoken."""

    type: ClassVar[str] = "conversation.item.input_audio_transcription.updated"
    item_id: str = ""
    transcript: str = ""
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ConversationItemInputAudioTranscriptionCompleted(Event):
    """All that the user said in this item; may come long after the answer to it."""

    type: ClassVar[str] = "conversation.item.input_audio_transcription.completed"
    item_id: str
    content_index: int = 0
    transcript: str = ""
    usage: Json = field(default_factory=dict)
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ConversationItemInputAudioTranscriptionFailed(Event):
    """What the user said in this item could not be put into words."""

    type: ClassVar[str] = "conversation.item.input_audio_transcription.failed"
    item_id: str
    content_index: int = 0
    error: Json = field(default_factory=dict)
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class InputAudioBufferCommitted(Event):
    """What was heard has become an item."""

    type: ClassVar[str] = "input_audio_buffer.committed"
    item_id: str
    previous_item_id: str | None = None
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class InputAudioBufferCleared(Event):
    """What was appended and not committed is forgotten."""

    type: ClassVar[str] = "input_audio_buffer.cleared"
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class InputAudioBufferSpeechStarted(Event):
    """The server's voice detector heard the user begin to speak."""

    type: ClassVar[str] = "input_audio_buffer.speech_started"
    item_id: str = ""
    """Of the item to come, if it comes."""
    audio_start_ms: int = 0
    """Milliseconds of audio appended on this connection before the speech, padding included."""
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class InputAudioBufferSpeechStopped(Event):
    """The user stopped speaking; a commit follows."""

    type: ClassVar[str] = "input_audio_buffer.speech_stopped"
    item_id: str = ""
    audio_end_ms: int = 0
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class RateLimitsUpdated(Event):
    """What is left of the account's limits; arrives shortly after a response."""

    type: ClassVar[str] = "rate_limits.updated"
    rate_limits: list[Any] = field(default_factory=list)
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ResponseCreated(Event):
    """An answer is being made."""

    type: ClassVar[str] = "response.created"
    response: Json
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ResponseDone(Event):
    """An answer is over, whatever became of it; ``response.status`` says what."""

    type: ClassVar[str] = "response.done"
    response: Json
    usage: Json | None = field(default=None, metadata=_ABSENT)
    """Where some compatible servers say what it took; the API has it in the response."""
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ResponseOutputItemAdded(Event):
    """An answer has a new item; it may have several."""

    type: ClassVar[str] = "response.output_item.added"
    item: Json
    response_id: str = ""
    output_index: int = 0
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ResponseOutputItemDone(Event):
    """An item of an answer is final."""

    type: ClassVar[str] = "response.output_item.done"
    item: Json
    response_id: str = ""
    output_index: int = 0
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ResponseContentPartAdded(Event):
    """An item has a new part: ``text`` or ``audio`` (these names are the older ones even in GA)."""

    type: ClassVar[str] = "response.content_part.added"
    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    part: Json = field(default_factory=dict)
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ResponseContentPartDone(Event):
    """A part is final."""

    type: ClassVar[str] = "response.content_part.done"
    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    part: Json = field(default_factory=dict)
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ResponseOutputAudioDelta(Event):
    """A slice of the assistant's voice; slices arrive faster than they can be played."""

    type: ClassVar[str] = "response.output_audio.delta"
    item_id: str
    delta: bytes
    """PCM16, little-endian, mono, 24 kHz; base64 on the wire."""
    response_id: str = ""
    output_index: int = 0
    content_index: int = 0
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ResponseOutputAudioDone(Event):
    """The assistant's voice is all there."""

    type: ClassVar[str] = "response.output_audio.done"
    item_id: str
    response_id: str = ""
    output_index: int = 0
    content_index: int = 0
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ResponseOutputAudioTranscriptDelta(Event):
    """The words of the assistant's voice; they often run ahead of it."""

    type: ClassVar[str] = "response.output_audio_transcript.delta"
    item_id: str
    delta: str
    response_id: str = ""
    output_index: int = 0
    content_index: int = 0
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ResponseOutputAudioTranscriptDone(Event):
    """All the words of the assistant's voice."""

    type: ClassVar[str] = "response.output_audio_transcript.done"
    item_id: str
    transcript: str = ""
    response_id: str = ""
    output_index: int = 0
    content_index: int = 0
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ResponseOutputTextDelta(Event):
    """The next words of an answer that is written, not spoken."""

    type: ClassVar[str] = "response.output_text.delta"
    item_id: str
    delta: str
    response_id: str = ""
    output_index: int = 0
    content_index: int = 0
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class ResponseOutputTextDone(Event):
    """All the words of an answer that is written."""

    type: ClassVar[str] = "response.output_text.done"
    item_id: str
    text: str = ""
    response_id: str = ""
    output_index: int = 0
    content_index: int = 0
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class UnknownEvent(Event):
    """An event this version does not use; shown with --verbose, otherwise passed over."""

    type: ClassVar[str] = "?"
    payload: Json = field(default_factory=dict)


Vocabulary = Mapping[str, type[Event]]

CLIENT_EVENTS: Vocabulary = {
    event.type: event
    for event in (
        SessionUpdate,
        InputAudioBufferAppend,
        InputAudioBufferCommit,
        InputAudioBufferClear,
        ConversationItemCreate,
        ConversationItemRetrieve,
        ConversationItemTruncate,
        ConversationItemDelete,
        ResponseCreate,
        ResponseCancel,
    )
}
SERVER_EVENTS: Vocabulary = {
    event.type: event
    for event in (
        Error,
        SessionCreated,
        SessionUpdated,
        ConversationItemAdded,
        ConversationItemDone,
        ConversationItemCreated,
        ConversationItemRetrieved,
        ConversationItemDeleted,
        ConversationItemTruncated,
        ConversationItemInputAudioTranscriptionDelta,
        ConversationItemInputAudioTranscriptionUpdated,
        ConversationItemInputAudioTranscriptionCompleted,
        ConversationItemInputAudioTranscriptionFailed,
        InputAudioBufferCommitted,
        InputAudioBufferCleared,
        InputAudioBufferSpeechStarted,
        InputAudioBufferSpeechStopped,
        RateLimitsUpdated,
        ResponseCreated,
        ResponseDone,
        ResponseOutputItemAdded,
        ResponseOutputItemDone,
        ResponseContentPartAdded,
        ResponseContentPartDone,
        ResponseOutputAudioDelta,
        ResponseOutputAudioDone,
        ResponseOutputAudioTranscriptDelta,
        ResponseOutputAudioTranscriptDone,
        ResponseOutputTextDelta,
        ResponseOutputTextDone,
    )
}

OLDER_NAMES: Mapping[str, str] = {
    "response.audio.delta": "response.output_audio.delta",
    "response.audio.done": "response.output_audio.done",
    "response.audio_transcript.delta": "response.output_audio_transcript.delta",
    "response.audio_transcript.done": "response.output_audio_transcript.done",
    "response.text.delta": "response.output_text.delta",
    "response.text.done": "response.output_text.done",
}
"""Names of the beta that compatible servers still send.  Read, never written."""


_to_json = json.JSONEncoder(separators=(",", ":")).encode


def encode(event: Event) -> str:
    """Write an event as the JSON text of one WebSocket frame."""
    payload: dict[str, Any] = {"type": event.type}
    for name, _, _, _, may_be_absent in _SHAPES[type(event)]:
        value = getattr(event, name)
        if value is None and may_be_absent:
            continue
        payload[name] = b64encode(value).decode() if isinstance(value, bytes) else value
    return _to_json(payload)


def decode(message: str | bytes, vocabulary: Vocabulary) -> Event:
    """Read one WebSocket frame, as the client (`SERVER_EVENTS`) or the server (`CLIENT_EVENTS`).

    Raises:
        MalformedError: It is binary, not a JSON object with a ``type``, or a field that its type
            requires is missing or of the wrong kind.
    """
    if isinstance(message, bytes):
        raise MalformedError("invalid_event", "Binary frames are not supported.")
    try:
        payload = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise MalformedError("invalid_json", f"The message is not valid JSON: {error}") from error
    if not isinstance(payload, dict) or not isinstance(kind := payload.get("type"), str):
        raise MalformedError("invalid_event", "The message has no event type.", "type")
    known = vocabulary.get(OLDER_NAMES.get(kind, kind))
    if known is None:
        return UnknownEvent(payload)
    values: dict[str, Any] = {}
    for name, kinds, convert, is_required, _ in _SHAPES[known]:
        value = payload.get(name)
        if value is None:  # null means the same as absent, everywhere in this protocol
            if is_required:
                message = f"Missing required parameter: '{name}'."
                raise MalformedError("missing_required_parameter", message, name)
            continue
        if type(value) not in kinds:  # exactly: True is not a number
            found = f"expected {_NAMES[kinds[0]]}, but got {_NAMES[type(value)]} instead."
            raise MalformedError("invalid_type", f"Invalid type for '{name}': {found}", name)
        if convert is not None:
            try:
                value = convert(value)
            except (ValueError, OverflowError) as error:  # such as 1e999, which is no int
                message = f"Invalid type for '{name}': {error}"
                raise MalformedError("invalid_type", message, name) from error
        values[name] = value
    return known(**values)


_NAMES: Mapping[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "an integer",
    float: "a decimal",
    bool: "a boolean",
}

_Convert = Callable[[Any], Any]

_KINDS: Mapping[Any, tuple[tuple[type, ...], _Convert | None]] = {
    str: ((str,), None),
    str | None: ((str,), None),
    int: ((int, float), int),  # some servers write 1480.0
    bytes: ((str,), partial(b64decode, validate=True)),
    Json: ((dict,), None),
    Json | None: ((dict,), None),
    list[Any]: ((list,), None),
}
"""Of each type of field: what it is in JSON, and how to make it what it is here."""

_Shape = tuple[tuple[str, tuple[type, ...], _Convert | None, bool, bool], ...]


def _shape(event: type[Event]) -> _Shape:
    """Of each field: name, kinds in JSON, conversion, must it be there, may None be left out."""
    return tuple(
        (
            f.name,
            *_KINDS[f.type],
            f.default is MISSING and f.default_factory is MISSING,
            "absent" in f.metadata,
        )
        for f in fields(cast(Any, event))
    )


_SHAPES: Mapping[type[Event], _Shape] = {
    event: _shape(event) for event in (*CLIENT_EVENTS.values(), *SERVER_EVENTS.values())
}
