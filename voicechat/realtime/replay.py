"""From a transcript to the items that restore it on a server that knows nothing of us.

`plan` is a pure function: what was said, what the endpoint takes, how much of it, and out come the
items.  `Replay` keeps count of which of them the server has confirmed.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count

from voicechat.pcm import duration_ms
from voicechat.realtime.abilities import Abilities, tokens_of
from voicechat.realtime.events import ConversationItemCreate, Json
from voicechat.transcript import UNTRANSCRIBED, Role, Transcript, Turn, unbroken

TEXT = "input_text"
"""What parts of items are called, but for the assistant's; anything else is refused, one error an
item (reference, section 4.1)."""

NOTE_ID = "restored"
NOTE = (
    "(The connection was restored. This is the same conversation: go on with it in the same "
    "language, do not greet again, and do not mention this.)"
)
SUMMARY_ID = "summary"
PACKED_ID = "history"
NAMES = {"user": "User", "assistant": "Assistant", "system": "Note"}

ITEM_TOKENS = 5
"""What an item takes beside its words."""
AUDIO_MS_A_TOKEN = 100  # of the user's voice (reference, section 1.6)


@dataclass(frozen=True, slots=True)
class Entry:
    """One item to be restored."""

    wire_id: str
    role: Role
    text: str
    turns: tuple[Turn, ...] = ()
    """What it restores: one turn; several where they are packed; none for what we add."""
    pcm: bytes = b""
    """A turn whose words are not known is said again: PCM16 24 kHz."""
    part: str = TEXT
    """What its content is called."""

    def event(self, previous_wire_id: str | None = None) -> ConversationItemCreate:
        """What adds it: at the end, or behind another item (``root``: at the head)."""
        content = [{"type": self.part, "text": self.text}]
        item = {"id": self.wire_id, "type": "message", "role": self.role, "content": content}
        return ConversationItemCreate(item, previous_wire_id, event_id=f"replay-{self.wire_id}")


@dataclass(frozen=True, slots=True)
class Plan:
    """Which items restore a conversation, and what they leave out."""

    entries: tuple[Entry, ...] = ()
    restored: int = 0
    """Turns that are restored whole."""
    summarised: int = 0
    """Older turns that a summary stands for."""
    left_out: tuple[Turn, ...] = ()
    """Turns for which there is no room, and that no summary stands for."""
    wordless: int = 0
    """Turns whose words are not known, and whose sound is gone."""


def plan(
    transcript: Transcript,
    budget: int,
    abilities: Abilities | None = None,
    *,
    sound: Mapping[str, bytes] | None = None,
    unheard: Container[str] = (),
    use_summary: bool = True,
) -> Plan:
    """Choose what restores a conversation: the newest turns whole, a summary for the older ones.

    Args:
        transcript: What was said.
        budget: The most tokens that the items may have, by `tokens_of`.  The last turn is
            restored whatever it has, and no turn is ever cut.
        abilities: What the endpoint takes.
        sound: PCM of turns that are not yet in words, by item id.  They are always restored: no
            summary can stand for them.
        unheard: Items whose end is still being heard: they are restored when that is known.
        use_summary: Whether a summary may stand for older turns.
    """
    sound, abilities = sound or {}, abilities or Abilities()
    turns, wordless = [], 0
    for turn in transcript.turns:
        if turn.item_id in unheard or turn.status == "written":
            continue
        if turn.text.strip() or turn.item_id in sound:
            turns.append(turn)
        else:
            wordless += turn.mark == UNTRANSCRIBED
    summary = transcript.summary if use_summary else None
    first = _first_that_fits(turns, budget, sound)
    covered = 0
    if first and summary is not None:
        places = {turn.item_id: place for place, turn in enumerate(turns, start=1)}
        covered = places.get(summary.covers, 0)
    entries: list[Entry] = []
    if covered and summary is not None:
        words = f"Summary of the conversation so far: {unbroken(summary.text)}"
        entries.append(Entry(SUMMARY_ID, _ours(abilities), words))
        first = _first_that_fits(turns, budget - tokens_of(words) - ITEM_TOKENS, sound)
    older = [place for place in range(first) if turns[place].text.strip()]
    kept = [turn for turn in turns[:first] if not turn.text.strip()] + turns[first:]
    restore = _whole if abilities.takes_assistant else _packed
    entries += restore(kept, sound, abilities)
    if entries:
        entries.append(Entry(NOTE_ID, _ours(abilities), NOTE))
    return Plan(
        tuple(entries),
        restored=len(kept),
        summarised=sum(place < covered for place in older),
        left_out=tuple(turns[place] for place in older if place >= covered),
        wordless=wordless,
    )


def _first_that_fits(turns: list[Turn], budget: int, sound: Mapping[str, bytes]) -> int:
    """Where the newest turns begin that fit into the budget; the last one always does."""
    left = budget
    for place in range(len(turns) - 1, -1, -1):
        pcm = sound.get(turns[place].item_id)
        cost = duration_ms(pcm) // AUDIO_MS_A_TOKEN if pcm else tokens_of(turns[place].text)
        left -= cost + ITEM_TOKENS
        if left < 0 and place < len(turns) - 1:
            return place + 1
    return 0


def _ours(abilities: Abilities) -> Role:
    """Who says what we add."""
    return "system" if abilities.takes_system else "user"


def _whole(
    turns: Iterable[Turn], sound: Mapping[str, bytes], abilities: Abilities
) -> Iterator[Entry]:
    for number, turn in enumerate(turns, start=1):
        yield entry_of(f"h{number:04d}", turn, sound, abilities)


def entry_of(wire_id: str, turn: Turn, sound: Mapping[str, bytes], abilities: Abilities) -> Entry:
    """The item for one turn: its words, or its sound where there are none."""
    text = unbroken(turn.text) if turn.text.strip() else ""
    pcm = b"" if text else sound[turn.item_id]
    takes = {"assistant": abilities.takes_assistant, "system": abilities.takes_system}
    if not takes.get(turn.role, True):
        return Entry(wire_id, "user", f"({NAMES[turn.role]}: {text})", (turn,), pcm)
    part = abilities.assistant_part if turn.role == "assistant" else TEXT
    return Entry(wire_id, turn.role, text, (turn,), pcm, part)


def _packed(
    turns: Iterable[Turn], sound: Mapping[str, bytes], abilities: Abilities
) -> Iterator[Entry]:
    """All turns with words in one message of the user's; the others are said again behind it."""
    turns = list(turns)
    written = tuple(turn for turn in turns if turn.item_id not in sound or turn.text.strip())
    if written:
        yield Entry(PACKED_ID, "user", f"This was said so far:\n{as_text(written)}", written)
    for number, turn in enumerate((turn for turn in turns if turn not in written), start=1):
        yield entry_of(f"h{number:04d}", turn, sound, abilities)


def as_text(turns: Iterable[Turn]) -> str:
    """A line a turn, for a model to read."""
    return "\n".join(f"{NAMES[turn.role]}: {unbroken(turn.text).strip()}" for turn in turns)


@dataclass(slots=True)
class Replay:
    """The items of an earlier conversation, and which of them the server has confirmed.

    Items get ids of their own (``h0001``, ...): the old ones mean nothing to a new connection, may
    be longer than the 32 characters that are allowed, and a server that numbers its items would
    use them again.
    """

    plan: Plan
    waiting: dict[str, Entry] = field(default_factory=dict)
    """Not yet confirmed, by wire id, in order."""
    lost: list[tuple[Entry, str]] = field(default_factory=list)
    """What the server refused twice or never confirmed, and why."""
    is_end_confirmed: bool = False
    """The last item is there: in an ordered stream, an older one that waits has got lost."""
    _entries: dict[str, Entry] = field(default_factory=dict)
    """All that were sent, by wire id, in the order of the conversation as far as it is known."""
    _sent_again: set[str] = field(default_factory=set)
    _renamed: dict[str, str] = field(default_factory=dict)
    """Our wire id by the one that the server gave the item instead."""
    _given: dict[str, str] = field(default_factory=dict)
    """The other way round."""

    def __post_init__(self) -> None:
        for entry in self.plan.entries:
            self.add(entry)

    @property
    def progress(self) -> tuple[int, int]:
        """How many are confirmed or lost, and how many there are."""
        return len(self._entries) - len(self.waiting), len(self._entries)

    def add(self, entry: Entry) -> None:
        """Wait for one more."""
        self._entries[entry.wire_id] = self.waiting[entry.wire_id] = entry
        self.is_end_confirmed = False

    def knows(self, wire_id: str) -> bool:
        """It was sent, and is not lost."""
        return wire_id in self._entries and all(lost.wire_id != wire_id for lost, _ in self.lost)

    def is_ours(self, wire_id: str) -> bool:
        """It is an item of ours, by whichever name."""
        return wire_id in self._entries or wire_id in self._renamed

    @property
    def last_turn_id(self) -> str | None:
        """The id of the last turn that is restored, if there is one."""
        turns = (
            turn for entry in reversed(self._entries.values()) for turn in reversed(entry.turns)
        )
        return next((turn.item_id for turn in turns), None)

    def new_wire_id(self) -> str:
        """An id for one more turn."""
        names = (f"h{number:04d}" for number in count(len(self._entries) + 1))
        return next(name for name in names if name not in self._entries)

    def confirm(self, item: Json) -> Entry | None:
        """What this item of the server's restores, if it is one of ours.

        Some servers give items ids of their own: then the words tell which one it is.
        """
        wire_id = str(item.get("id"))
        if (entry := self._entries.get(wire_id)) is None:
            if (own := self._renamed.get(wire_id) or self._own(item)) is None:
                return None
            entry = self._entries[own]
            self._renamed[wire_id], self._given[own] = own, wire_id
        self._settle(entry)
        return entry

    def takes_note(self, item: Json) -> bool:
        """Confirm an item if nothing follows from that: it has the name that we gave it, its turn
        is final, and another one is still waited for."""
        wire_id = str(item.get("id"))
        entry = self._entries.get(wire_id)
        if entry is None or entry.pcm or self.lost or self.is_end_confirmed:
            return False
        if wire_id == next(reversed(self._entries)):
            return False
        for turn in entry.turns:
            if turn.status == "speaking":
                return False
        self.waiting.pop(wire_id, None)
        return True

    def confirm_spoken(self, wire_id: str) -> Entry | None:
        """The server has made an item of what was said again: it confirms them in order."""
        if wire_id in self._renamed:
            return None
        own = next((each for each, entry in self.waiting.items() if entry.pcm), None)
        if own is None:
            return None
        self._renamed[wire_id], self._given[own] = own, wire_id
        self._settle(self._entries[own])
        return self._entries[own]

    def _settle(self, entry: Entry) -> None:
        if self.waiting.pop(entry.wire_id, None) is None and self.lost:
            self.lost = [loss for loss in self.lost if loss[0] is not entry]  # late, but there
        if entry.wire_id == next(reversed(self._entries)):
            self.is_end_confirmed = True

    def _own(self, item: Json) -> str | None:
        if not self.waiting or not (text := text_of(item)):
            return None
        role = item.get("role")
        return next((w for w, e in self.waiting.items() if e.text == text and e.role == role), None)

    def refused(self, error: Json) -> Entry | None:
        """What an ``error`` is about, if it is one of ours.

        Servers often leave the client's ``event_id`` out of errors.  Then the item whose id the
        message quotes is meant, or else the first that is waiting: a server works in order.
        """
        if not self.waiting:
            return None
        event_id, message = str(error.get("event_id") or ""), str(error.get("message"))
        about = event_id.removeprefix("replay-")
        if not event_id:
            quoted = (wire_id for wire_id in self.waiting if f"'{wire_id}'" in message)
            about = next(quoted, next(iter(self.waiting)))
        return self.waiting.get(about)

    def may_be_sent_again(self, entry: Entry) -> bool:
        """It was not yet: there is one more try, unless it is sound."""
        return not entry.pcm and entry.wire_id not in self._sent_again

    def lose(self, entry: Entry, reason: str) -> None:
        """It will not be there."""
        self.waiting.pop(entry.wire_id, None)
        self.lost.append((entry, reason))

    @property
    def has_lost_the_assistant(self) -> bool:
        """There were answers to restore, more than one, and the server has refused each."""
        lost = [entry.wire_id for entry, _ in self.lost]
        answers = [each for each, entry in self._entries.items() if entry.role == "assistant"]
        return len(answers) > 1 and all(each in lost for each in answers)

    def give_up(self, reason: str) -> None:
        """Stop waiting."""
        self.lost += [(entry, reason) for entry in self.waiting.values()]
        self.waiting.clear()

    def again(self, entry: Entry) -> ConversationItemCreate:
        """An item once more, in its place: behind the nearest one before it that is there."""
        self._sent_again.add(entry.wire_id)
        absent = {lost.wire_id for lost, _ in self.lost} | self.waiting.keys()
        before = "root"
        for wire_id in self._entries:
            if wire_id == entry.wire_id:
                break
            if wire_id not in absent:
                before = self._given.get(wire_id, wire_id)
        return entry.event(before)

    def summary(self) -> list[str]:
        """What to tell the user, a line each; nothing where there was nothing to restore."""
        plan, lines = self.plan, []
        if plan.entries:
            restored = plan.restored - sum(len(entry.turns) for entry, _ in self.lost)
            parts = [f"{counted(restored)} restored"]
            if plan.summarised:
                parts.append(f"{_spaced(plan.summarised)} older ones summarised")
            if plan.left_out:
                parts.append(f"{_spaced(len(plan.left_out))} older ones left out")
            lines.append(", ".join(parts) + ".")
        lines += self.take_losses()
        if plan.wordless:
            lines.append(f"Not restored: {counted(plan.wordless)} whose words are not known.")
        return lines

    def take_losses(self) -> list[str]:
        """What was lost since the last time, a line each."""
        lost, self.lost = [(e, reason) for e, reason in self.lost if e.turns], []
        return [f"Not restored: {e.role}, {_what(e)}: {reason}" for e, reason in lost]


def text_of(item: Json) -> str:
    """The written words of an item; of a spoken one, none."""
    content = item.get("content")
    parts = content if isinstance(content, list) else []
    return "".join(str(p.get("text") or "") for p in parts if isinstance(p, dict))


def counted(turns: int) -> str:
    """So many turns, in words."""
    return f"{_spaced(turns)} {'turn' if turns == 1 else 'turns'}"


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _what(entry: Entry) -> str:
    text = entry.text
    return f"“{text if len(text) <= 40 else text[:39] + '…'}”" if text else "not transcribed"
