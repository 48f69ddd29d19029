"""What was said, as far as anyone heard it: records, and the transcript that is their sum.

A record is one line of a session file.  `Transcript.apply` adds them up, the same way whether they
were just emitted by the conversation or are read back from disk, so memory and disk cannot
disagree.
"""

import json
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import ClassVar, Literal
from unicodedata import combining, normalize

FORMAT = 1
"""Version of the session file; `Opened` carries it."""

Role = Literal["user", "assistant", "system"]
Status = Literal["speaking", "complete", "interrupted", "untranscribed", "written"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A run began: who it is about and with which settings."""

    type: ClassVar[str] = "opened"
    session: str
    """Id of the session, the same in every run."""
    format: int = FORMAT
    version: str = ""
    """The voicechat that wrote this."""
    pid: int = 0
    """Process that holds the session, so that a second one can be told."""
    name: str | None = None
    local: bool = False
    """The built-in server answers."""
    model: str | None = None
    voice: str | None = None
    instructions: str | None = None
    language: str | None = None
    transcription_model: str | None = None
    vad: str | None = None
    parent: str | None = None
    """Id of the session that this one was forked from, with all that had been said there."""
    provider: str | None = None
    """Whose server answers, but not where it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaking:
    """Part of a turn that is not over: the next words of an answer, or a user not yet transcribed.

    The words of several records about one item add up, until `Said` replaces them.
    """

    type: ClassVar[str] = "speaking"
    item_id: str
    role: Role
    text: str = ""
    previous_item_id: str | None = None
    start_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A turn is final.  `text` is what was heard of it."""

    type: ClassVar[str] = "said"
    item_id: str
    role: Role
    text: str
    status: Status = "complete"
    """``interrupted``: `text` was heard, the rest was not.  ``untranscribed``: words unknown.
    ``written``: an answer that came in writing where speech was wanted, and was asked for again."""
    previous_item_id: str | None = None
    """The item before this one; it gives the order.  None: at the end of what is known."""
    start_ms: int = 0
    """On the session's own timeline, which does not count the time between runs."""
    end_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The line to the server was lost."""

    type: ClassVar[str] = "lost"
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Back:
    """The line to the server is there again, and the server knows what was said."""

    type: ClassVar[str] = "back"
    restored: int = 0
    """Turns that it was told of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The older turns in short, for a server that cannot be told all of them."""

    type: ClassVar[str] = "summary"
    text: str
    covers: str
    """The last item that it is about; it is about all those before, too."""
    turns: int = 0
    """How many those are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a response took, in tokens.

    Of the input, some were cached and some were sound: they are parts of it, not added to it.
    """

    type: ClassVar[str] = "usage"
    input_tokens: int = 0
    cached_tokens: int = 0
    input_audio_tokens: int = 0
    cached_audio_tokens: int = 0
    output_tokens: int = 0
    output_audio_tokens: int = 0
    model: str | None = None

    @property
    def total_tokens(self) -> int:
        """Input and output."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            input_audio_tokens=self.input_audio_tokens + other.input_audio_tokens,
            cached_audio_tokens=self.cached_audio_tokens + other.cached_audio_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            output_audio_tokens=self.output_audio_tokens + other.output_audio_tokens,
            model=self.model,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Renamed:
    """The user gave the session another name."""

    type: ClassVar[str] = "renamed"
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A run ended as it should; without this record it was killed."""

    type: ClassVar[str] = "closed"
    end_ms: int = 0


Record = Opened | Speaking | Said | Lost | Back | Summary | Usage | Renamed | Closed
RECORDS: dict[str, type[Record]] = {
    record.type: record
    for record in (Opened, Speaking, Said, Lost, Back, Summary, Usage, Renamed, Closed)
}


UNTRANSCRIBED = "not transcribed"


@dataclass(slots=True)
class Turn:
    """What one party said before the other did: one item."""

    item_id: str
    role: Role
    text: str = ""
    status: Status = "speaking"
    previous_item_id: str | None = None
    start_ms: int = 0
    end_ms: int = 0

    @property
    def is_settled(self) -> bool:
        """Nothing more is expected of this turn."""
        return self.status != "speaking"

    @property
    def mark(self) -> str:
        """What a reader must be told about this turn, or nothing."""
        if self.status == "interrupted" or (self.status == "speaking" and self.text):
            return "interrupted"
        if self.text:
            return "in writing" if self.status == "written" else ""
        is_heard = self.role == "user" or self.status == "untranscribed"
        return UNTRANSCRIBED if is_heard else "nothing heard"


@dataclass(slots=True)
class Transcript:
    """The sum of the records so far.  Reading a log back gives what living through it gave."""

    opened: Opened | None = None
    name: str | None = None
    parent: str | None = None
    """Id of the session that this one was forked from, if it was."""
    end_ms: int = 0
    """Where the session's timeline has got to."""
    was_hung_up: bool = False
    """The last run ended because someone wished it, and nothing was said since."""
    _is_lost: bool = False
    """The line was lost, and was not there again."""
    summary: Summary | None = None
    """The latest."""
    usages: dict[str | None, Usage] = field(default_factory=dict)
    """Of all responses of a model together, by model; None where that is not known."""
    _turns: dict[str, Turn] = field(default_factory=dict)
    """By item id, in the order of arrival."""
    _order: list[Turn] | None = field(default_factory=list, compare=False, repr=False)
    """In the order of the conversation; None when that has to be worked out again."""
    _awaited: set[str] = field(default_factory=set, compare=False, repr=False)
    """Ids that some turn follows, and that were not known when it came."""

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Transcript":
        """Add up a log."""
        transcript = cls()
        for record in records:
            transcript.apply(record)
        return transcript

    def records(self) -> Iterator[Record]:
        """Records whose sum is this transcript."""
        if self.opened is not None:
            if self.parent != self.opened.parent:
                yield Opened(session=self.opened.session, parent=self.parent)
            yield self.opened
        if self.name:
            yield Renamed(name=self.name)
        for turn in self._turns.values():  # in the order in which they came: places depend on it
            yield from _records_of(turn)
        if self.summary is not None:
            yield self.summary
        yield from self.usages.values()
        if not self.was_hung_up:
            yield Lost()
        yield Closed(end_ms=self.end_ms)
        yield Lost() if self._is_lost else Back()

    @property
    def usage(self) -> Usage:
        """Of all responses together."""
        return sum(self.usages.values(), Usage())

    @property
    def turns(self) -> list[Turn]:
        """Every turn, in the order of the conversation, those without words included."""
        if self._order is None:
            self._order = _in_order(self._turns)
        return self._order.copy()

    @property
    def spoken(self) -> list[Turn]:
        """The turns that a reader wants: an answer of which nothing was heard never happened."""
        return [turn for turn in self.turns if turn.text or turn.mark == UNTRANSCRIBED]

    @property
    def restorable(self) -> list[Turn]:
        """The turns that another server can be told of: those with words that still stand."""
        return [turn for turn in self.turns if turn.text.strip() and turn.status != "written"]

    @property
    def last_item_id(self) -> str | None:
        """The item at the end of the conversation, which a new one follows."""
        if self._order is None:
            self._order = _in_order(self._turns)
        return self._order[-1].item_id if self._order else None

    def behind_written(self, item_id: str) -> str:
        """The last of the answers in writing that follow this item, which servers have forgotten;
        without any, the item itself."""
        for turn in reversed(self._turns.values()):
            if turn.status == "written" and turn.previous_item_id == item_id:
                return self.behind_written(turn.item_id)
        return item_id

    def free_id(self, kind: str, taken: Container[str] = ()) -> str:
        """An id for a turn of ours that no server has named, and that is not `taken` otherwise."""
        names = (f"{kind}_{number:04d}" for number in count(1))
        return next(name for name in names if name not in self._turns and name not in taken)

    def get(self, item_id: str) -> Turn | None:
        """The turn with this id, if there is one."""
        return self._turns.get(item_id)

    def apply(self, record: Record) -> None:
        """Take in one record.  It may be about an item said long before."""
        match record:
            case Opened():
                self.opened, self._is_lost = record, False
                self.name = record.name or self.name
                self.parent = record.parent or self.parent
            case Speaking():
                self.was_hung_up = False
                turn = self._place(record)
                if not turn.is_settled:
                    turn.text += record.text
                    turn.start_ms = record.start_ms
                    self.end_ms = max(self.end_ms, record.start_ms)
            case Said():
                self.was_hung_up = False
                turn = self._place(record)
                turn.role, turn.text, turn.status = record.role, record.text, record.status
                turn.start_ms, turn.end_ms = record.start_ms, record.end_ms
                self.end_ms = max(self.end_ms, record.end_ms)
            case Closed(end_ms=end_ms):
                self.end_ms = max(self.end_ms, end_ms)
                self.was_hung_up = not self._is_lost
            case Summary():
                self.summary = record
            case Usage():
                known = self.usages.get(record.model, Usage(model=record.model))
                self.usages[record.model] = known + record
            case Renamed(name=name):
                self.name = name or self.name
            case Lost() | Back():
                self._is_lost = isinstance(record, Lost)

    def _place(self, record: Speaking | Said) -> Turn:
        """The turn of a record, its place in the item chain noted.  O(1), in whatever order."""
        item_id, previous = record.item_id, record.previous_item_id
        if previous == item_id:
            previous = None
        turn = self._turns.get(item_id)
        if turn is not None:
            if previous is None or previous == turn.previous_item_id:
                return turn
            del self._turns[item_id]  # it moves: from now on it counts as having come just now
            self._order = None
        else:
            turn = Turn(item_id, record.role)
        turn.previous_item_id = previous
        self._turns[item_id] = turn
        is_follower = previous in self._turns
        if previous is not None and not is_follower:
            self._awaited.add(previous)
        if self._order is not None:
            is_last = not is_follower or self._order[-1].item_id == previous
            if is_last and item_id not in self._awaited:
                self._order.append(turn)  # nearly always
            else:
                self._order = None
        return turn


def _records_of(turn: Turn) -> Iterator[Record]:
    if turn.status == "speaking":
        yield Speaking(
            item_id=turn.item_id,
            role=turn.role,
            text=turn.text,
            previous_item_id=turn.previous_item_id,
            start_ms=turn.start_ms,
        )
    else:
        yield Said(
            item_id=turn.item_id,
            role=turn.role,
            text=turn.text,
            status=turn.status,
            previous_item_id=turn.previous_item_id,
            start_ms=turn.start_ms,
            end_ms=turn.end_ms,
        )


def _in_order(turns: dict[str, Turn]) -> list[Turn]:
    """Sort turns, given in the order of their arrival, by the item chain.

    Each stands right behind the one it follows; of two that follow the same one, the later arrival
    (as in the API, where a new item is inserted behind the one it names).  A chain whose beginning
    is not known stands where its first arrival did.  A chain that bites its own tail, which only a
    broken file holds, is opened somewhere; no turn is ever left out.
    """
    followers: dict[str | None, list[Turn]] = {}
    for turn in turns.values():
        followers.setdefault(turn.previous_item_id, []).append(turn)
    ordered: dict[str, Turn] = {}
    for turn in turns.values():
        if turn.item_id in ordered:
            continue
        climbed: set[str] = set()
        first = turn
        while first.item_id not in climbed:
            climbed.add(first.item_id)
            if first.previous_item_id in turns:
                first = turns[first.previous_item_id]
        ahead = [first]
        while ahead:
            if (next_turn := ahead.pop()).item_id not in ordered:
                ordered[next_turn.item_id] = next_turn
                ahead.extend(followers.get(next_turn.item_id, ()))
    return list(ordered.values())


# Control characters (escape sequences begin with one), and those that reorder or hide text.
_HIDDEN = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff"
_UNPRINTABLE = re.compile(f"[\x00-\x1f{_HIDDEN}]+")
_TO_ESCAPE = re.compile(f"[{_HIDDEN}]")


def printable(text: str) -> str:
    """Text from a model or a file as one line that is safe to show in a terminal."""
    return _UNPRINTABLE.sub(" ", text).strip()


def clock(ms: int) -> str:
    """A place on the session's timeline, or a length of it: ``m:ss``, or ``h:mm:ss``."""
    minutes, seconds = divmod(max(0, ms) // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def folded(text: str) -> str:
    """Text as it is compared: without case, accents and the differences that only fonts make."""
    if text.isascii():
        return text.lower()
    letters = normalize("NFKD", normalize("NFKD", text).casefold())
    return "".join(letter for letter in letters if not combining(letter))


def unbroken(text: str) -> str:
    """Text without the halves of characters that odd bytes become: no server takes them."""
    return text.encode("utf-8", "replace").decode("utf-8")


def to_json(value: object, indent: int | None = None) -> str:
    """JSON that means the same and is safe to show in a terminal, other alphabets left readable."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _TO_ESCAPE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
