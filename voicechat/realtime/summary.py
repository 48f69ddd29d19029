"""A summary of older turns, made by the server in a response of its own."""

from dataclasses import dataclass, field

from voicechat.realtime.abilities import Abilities, tokens_of
from voicechat.realtime.events import (
    Event,
    Json,
    ResponseCreate,
    ResponseDone,
    ResponseOutputAudioTranscriptDelta,
    ResponseOutputTextDelta,
    ResponseOutputTextDone,
)
from voicechat.realtime.replay import ITEM_TOKENS, SUMMARY_ID, as_text
from voicechat.transcript import Summary, Transcript, Turn

MOST_TOKENS = 2048
EVENT_ID = "summarise"
INSTRUCTIONS = (
    "You keep the memory of a spoken conversation. Sum up what is given to you in at most 300 "
    "words, in the language of the conversation, in the third person. Keep names, dates, numbers, "
    "wishes, promises and open questions as they were said. Write the summary and nothing else."
)


@dataclass(slots=True)
class Summariser:
    """One summary on its way."""

    covers: Turn
    """The last turn that it is about."""
    turns: int
    """How many it is about."""
    text: str = ""
    """The text to be summed up."""
    response_id: str | None = None
    """While the server makes it."""
    _parts: dict[tuple[str, int], str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, transcript: Transcript, turns: tuple[Turn, ...], abilities: Abilities
    ) -> "Summariser | None":
        """Plan the next summary: of the one there is, and as many `turns` behind it as fit."""
        before = transcript.summary.text if transcript.summary is not None else ""
        known = transcript.summary.turns if transcript.summary is not None else 0
        room = (abilities.context_tokens - abilities.output_tokens) * 3 // 4 - tokens_of(before)
        chosen: list[Turn] = []
        for turn in turns:
            room -= tokens_of(turn.text) + ITEM_TOKENS
            if room < 0 and chosen:
                break
            chosen.append(turn)
        if not chosen:
            return None
        earlier = f"What was said before, in short:\n{before}\n\nThen:\n" if before else ""
        return cls(chosen[-1], known + len(chosen), earlier + as_text(chosen))

    def request(self) -> ResponseCreate:
        """Ask for it out of band: the conversation does not notice."""
        content = [{"type": "input_text", "text": self.text}]
        return ResponseCreate(
            {
                "conversation": "none",
                "output_modalities": ["text"],
                "metadata": {"job": SUMMARY_ID},
                "instructions": INSTRUCTIONS,
                "input": [{"type": "message", "role": "user", "content": content}],
                "max_output_tokens": MOST_TOKENS,
            },
            event_id=EVENT_ID,
        )

    def read(self, event: Event) -> None:
        """Take in some of its words."""
        match event:
            case ResponseOutputTextDelta(
                item_id, delta, content_index=index
            ) | ResponseOutputAudioTranscriptDelta(item_id, delta, content_index=index):
                key = (item_id, index)
                self._parts[key] = self._parts.get(key, "") + delta
            case ResponseOutputTextDone(item_id, text, content_index=index) if text:
                self._parts[item_id, index] = text
            case ResponseDone(response) if not self._parts:
                self._parts["", 0] = _text_in(response)
            case _:
                pass

    def record(self) -> Summary | None:
        """What has come, or None if nothing did."""
        text = "".join(self._parts.values()).strip()
        return Summary(text=text, covers=self.covers.item_id, turns=self.turns) if text else None


def _text_in(response: Json) -> str:
    output = response.get("output")
    items = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    contents = [item.get("content") for item in items]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    texts = (p.get("text") or p.get("transcript") for p in parts if isinstance(p, dict))
    return "".join(str(text) for text in texts if text)
