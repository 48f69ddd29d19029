"""One response, from `response.created` to `response.done`: which events say what, in which order.

Source: Realtime API reference, "response.*"; the order at the end was captured from the real
service (reference 3.4): sound, transcript, part, conversation item, output item, response.
"""

from dataclasses import dataclass, field
from typing import Literal

from voicechat import pcm
from voicechat.realtime.events import (
    ConversationItemAdded,
    ConversationItemDone,
    Event,
    Json,
    ResponseContentPartAdded,
    ResponseContentPartDone,
    ResponseCreated,
    ResponseDone,
    ResponseOutputAudioDelta,
    ResponseOutputAudioDone,
    ResponseOutputAudioTranscriptDelta,
    ResponseOutputAudioTranscriptDone,
    ResponseOutputItemAdded,
    ResponseOutputItemDone,
    ResponseOutputTextDelta,
    ResponseOutputTextDone,
)
from voicechat.server.items import Item

DELTA_BYTES = 200 * pcm.BYTES_PER_MS
USER_TOKEN_MS = 100  # "User audio: 1 token per 100 ms", "assistant audio: 1 token per 50 ms"
ASSISTANT_TOKEN_MS = 50

Outcome = Literal["completed", "cancelled", "failed", "incomplete"]


def text_tokens(text: str) -> int:
    """About how many tokens a text is: English has some four letters to one."""
    return (len(text) + 3) // 4


@dataclass(slots=True)
class Answer:
    """A response in the making.  Its methods tell what the client is to be told."""

    response_id: str
    conversation_id: str | None
    """None: out of band, its items never enter the conversation."""
    settings: Json
    """As `response.create` and the session ask for."""
    speed: float | None
    """Of the voice; None if the answer is written."""
    context: tuple[Item, ...]
    """What it answers."""
    item: Item | None = None
    """None until there are words."""
    previous_item_id: str | None = None
    waits_for: set[str] = field(default_factory=set)
    """Items whose words are not known yet."""
    is_plain: bool = False
    """The server itself speaks, not the mind."""

    @property
    def is_in_conversation(self) -> bool:
        """Not out of band."""
        return self.conversation_id is not None

    @property
    def max_tokens(self) -> int | None:
        """What the client allows; None if it does not mind."""
        limit = self.settings["max_output_tokens"]
        return None if limit == "inf" else int(limit)

    def created(self) -> list[Event]:
        """An answer is coming."""
        return [ResponseCreated(self._wire("in_progress", None, None))]

    def begun(self, item: Item, previous_item_id: str | None) -> list[Event]:
        """The first words are here, and with them the item that holds them."""
        self.item, self.previous_item_id = item, previous_item_id
        item.status, item.is_plain = "in_progress", self.is_plain
        item.fields = {"type": "message", "role": "assistant", "content": []}
        wire = item.wire()
        events: list[Event] = [ResponseOutputItemAdded(wire, self.response_id)]
        if self.is_in_conversation:
            events.append(ConversationItemAdded(wire, previous_item_id))
        part = {"type": "audio", "transcript": ""} if self._spoken else {"type": "text", "text": ""}
        return [*events, ResponseContentPartAdded(self.response_id, item.item_id, part=part)]

    def said(self, text: str, sound: bytes) -> list[Event]:
        """The next sentence: its words first, then its sound in a burst."""
        item = self._item
        delta = f" {text}" if item.text else text
        item.text += delta
        if self._spoken:
            item.audio += sound
            item.sentences.append((text, len(sound)))
            words = ResponseOutputAudioTranscriptDelta(item.item_id, delta, self.response_id)
            bursts = range(0, len(sound), DELTA_BYTES)
            return [
                words,
                *(
                    ResponseOutputAudioDelta(
                        item.item_id, sound[start : start + DELTA_BYTES], self.response_id
                    )
                    for start in bursts
                ),
            ]
        return [ResponseOutputTextDelta(item.item_id, delta, self.response_id)]

    def ended(self, outcome: Outcome, details: Json | None) -> list[Event]:
        """It is over, whatever became of it."""
        events = self._item_ended(outcome) if self.item else []
        return [*events, ResponseDone(self._wire(outcome, details, self._usage()))]

    def _item_ended(self, outcome: Outcome) -> list[Event]:
        item, response_id = self._item, self.response_id
        item.status = "completed" if outcome == "completed" else "incomplete"
        events: list[Event]
        if self._spoken:
            content = {"type": "output_audio", "transcript": item.text}
            part = {"type": "audio", "transcript": item.text}
            events = [
                ResponseOutputAudioDone(item.item_id, response_id),
                ResponseOutputAudioTranscriptDone(item.item_id, item.text, response_id),
            ]
        else:
            content = {"type": "output_text", "text": item.text}
            part = {"type": "text", "text": item.text}
            events = [ResponseOutputTextDone(item.item_id, item.text, response_id)]
        item.fields = {**item.fields, "content": [content]}
        events.append(ResponseContentPartDone(response_id, item.item_id, part=part))
        if self.is_in_conversation:
            events.append(ConversationItemDone(item.wire(), self.previous_item_id))
        return [*events, ResponseOutputItemDone(item.wire(), response_id)]

    @property
    def _spoken(self) -> bool:
        return self.speed is not None

    @property
    def _item(self) -> Item:
        assert self.item is not None
        return self.item

    def _wire(self, status: str, details: Json | None, usage: Json | None) -> Json:
        settings = self.settings
        return {
            "object": "realtime.response",
            "id": self.response_id,
            "status": status,
            "status_details": details,
            "output": [self.item.wire()] if self.item else [],
            "conversation_id": self.conversation_id,
            "output_modalities": settings["output_modalities"],
            "max_output_tokens": settings["max_output_tokens"],
            "audio": settings["audio"],
            "usage": usage,
            "metadata": settings["metadata"],
        }

    def _usage(self) -> Json:
        """An estimate, by the real service's own rules for sound and by length for text."""
        spoken = [item for item in self.context if item.is_user_audio]
        heard = sum(item.audio_ms for item in spoken) // USER_TOKEN_MS
        read = text_tokens(self.settings["instructions"]) + sum(
            text_tokens(item.text) for item in self.context if not item.is_user_audio
        )
        said = text_tokens(self.item.text) if self.item else 0
        sound = self.item.audio_ms // ASSISTANT_TOKEN_MS if self.item else 0
        cached = {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0}
        return {
            "total_tokens": heard + read + said + sound,
            "input_tokens": heard + read,
            "output_tokens": said + sound,
            "input_token_details": {
                "text_tokens": read,
                "audio_tokens": heard,
                "image_tokens": 0,
                "cached_tokens": 0,
                "cached_tokens_details": cached,
            },
            "output_token_details": {"text_tokens": said, "audio_tokens": sound},
        }
