"""From a transcript to the items that restore it on a server that knows nothing of us."""

from dataclasses import dataclass, field

from voicechat.realtime.events import ConversationItemCreate, Json
from voicechat.transcript import Transcript, Turn, unbroken

PART_TYPES = {"user": "input_text", "assistant": "output_text", "system": "input_text"}
"""What each role accepts; anything else is refused, one error an item (reference, section 4.1)."""


@dataclass(slots=True)
class Replay:
    """The items of an earlier conversation, and which of them the server has confirmed.

    Items get ids of their own (``h0001``, ...): the old ones mean nothing to a new connection, may
    be longer than the 32 characters that are allowed, and a server that numbers its items would
    use them again.
    """

    turns: dict[str, Turn]
    """By wire id, in order."""
    waiting: dict[str, Turn]
    """Not yet confirmed, in order."""
    events: list[ConversationItemCreate]
    """What to send, in one burst: the order of sending is the order of the items.  They are made
    when the replay is planned, while the connection is not there yet, and cost no time later."""
    lost: list[tuple[Turn, str]] = field(default_factory=list)
    """Turns the server refused or never confirmed, and why."""
    wordless: int = 0
    """Turns whose words are not known."""
    _renamed: dict[str, Turn] = field(default_factory=dict)
    """By the id that the server gave it instead."""

    @classmethod
    def of(cls, transcript: Transcript) -> "Replay":
        """Plan the replay of everything that was said and heard."""
        spoken = [turn for turn in transcript.spoken if turn.text.strip()]
        turns = {f"h{number:04d}": turn for number, turn in enumerate(spoken, start=1)}
        events = [
            ConversationItemCreate(
                {
                    "id": wire_id,
                    "type": "message",
                    "role": turn.role,
                    "content": [{"type": PART_TYPES[turn.role], "text": unbroken(turn.text)}],
                },
                event_id=f"replay-{wire_id}",
            )
            for wire_id, turn in turns.items()
        ]
        return cls(turns, dict(turns), events, wordless=len(transcript.spoken) - len(spoken))

    def confirm(self, item: Json) -> Turn | None:
        """The turn that this item of the server's is, if it is one of ours.

        Some servers give items ids of their own: then the words tell which one it is.
        """
        wire_id = str(item.get("id"))
        turn = self.turns.get(wire_id) or self._renamed.get(wire_id)
        if turn is None and self.waiting and (text := text_of(item)):
            role = item.get("role")
            same = (
                w for w, t in self.waiting.items() if unbroken(t.text) == text and t.role == role
            )
            if (own := next(same, None)) is not None:
                turn = self._renamed[wire_id] = self.waiting.pop(own)
        elif turn is not None and self.waiting.pop(wire_id, None) is None and self.lost:
            self.lost = [loss for loss in self.lost if loss[0] is not turn]  # late, but there
        return turn

    def refuse(self, error: Json, reason: str) -> bool:
        """Find the turn that an ``error`` is about; True if there is one.

        Servers often leave the client's ``event_id`` out of errors.  Then the item whose id the
        message quotes is meant, or else the first that is waiting: a server works in order.
        """
        if not self.waiting:
            return False
        event_id, message = str(error.get("event_id") or ""), str(error.get("message"))
        about = event_id.removeprefix("replay-")
        if not event_id:
            quoted = (wire_id for wire_id in self.waiting if f"'{wire_id}'" in message)
            about = next(quoted, next(iter(self.waiting)))
        turn = self.waiting.pop(about, None)
        if turn is not None:
            self.lost.append((turn, reason))
        return turn is not None

    def give_up(self, reason: str) -> None:
        """Stop waiting."""
        self.lost += [(turn, reason) for turn in self.waiting.values()]
        self.waiting.clear()

    def summary(self) -> list[str]:
        """What to tell the user, a line each; nothing where there was nothing to restore."""
        if not self.turns and not self.wordless:
            return []
        restored = len(self.turns) - len(self.lost)
        lines = [f"{restored} {'turn' if restored == 1 else 'turns'} restored."]
        for turn, reason in self.lost:
            lines.append(f"Not restored: {turn.role}, “{_first_words(turn.text)}”: {reason}")
        if self.wordless:
            turns = "turn" if self.wordless == 1 else "turns"
            lines.append(f"Not restored: {self.wordless} {turns} whose words are not known.")
        return lines


def text_of(item: Json) -> str:
    """The written words of an item; of a spoken one, none."""
    content = item.get("content")
    parts = content if isinstance(content, list) else []
    return "".join(str(p.get("text") or "") for p in parts if isinstance(p, dict))


def _first_words(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"
