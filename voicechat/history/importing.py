"""A door: conversations from files become saved sessions.

What is read: session files, several in one, too; the objects that ``export --format json`` writes;
and messages as OpenAI's APIs know them, in a list, on a line each, or a list a line.  The same file
a second time makes nothing new; but a list of messages, which brings no id, becomes one session
each on machines that do not know of each other's.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from hashlib import sha256
from itertools import count, islice
from pathlib import Path

from voicechat import __version__
from voicechat.errors import ImportFileError, StoreError
from voicechat.history.checking import objects, session_files
from voicechat.history.deleting import deleted
from voicechat.history.index import Index
from voicechat.history.log import ENDING, id_of, line, put_down, session_id, stamp
from voicechat.history.reading import contents, parse, read
from voicechat.history.sessions import LAST
from voicechat.transcript import (
    Back,
    Opened,
    Record,
    Renamed,
    Role,
    Said,
    Speaking,
    Transcript,
    Usage,
    to_json,
)

ROLES: dict[str, Role] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
}
"""Of messages; others are no part of what was said."""
WRITTEN = {"text", "input_text", "output_text"}
"""Parts of messages with words in them."""
SPOKEN = {"audio", "input_audio", "output_audio"}
"""Parts that may say what was spoken."""

_ID = re.compile("[0-9a-z]{4,12}")
_OF_TURNS = ("item_id", "status", "start_ms", "end_ms")


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a conversation."""

    path: Path
    transcript: Transcript
    is_new: bool
    """Otherwise all of it was here already."""

    @property
    def session(self) -> str:
        """The session's id."""
        return session_id(self.path)


@dataclass(frozen=True, slots=True)
class Conversation:
    """What was found in a file, and is to become a session."""

    lines: list[bytes]
    """Of a session's file, without their ends."""
    began: datetime
    opened: Opened | None = None
    """What comes before the lines, if they do not say it themselves."""
    called: str | None = None
    """The session's id in the file: it may be anything."""
    left_out: int = 0
    """Lines, messages or parts of messages of which nothing could be made."""
    is_dated: bool = True
    """False: it is no session file, and does not say when it began."""

    @property
    def session(self) -> str | None:
        """The id, if a session may have it."""
        is_id = self.called is not None and _ID.fullmatch(self.called) and self.called != LAST
        return self.called if is_id else None

    @property
    def is_bare(self) -> bool:
        """It brings neither an id nor a time: what it says is all that there is of it."""
        return self.session is None and not self.is_dated

    def as_session(self, session: str) -> list[bytes]:
        """The lines of a session's file with this id."""
        if self.opened is not None:
            return [_line(replace(self.opened, session=session), self.began), *self.lines]
        if self.called is None or self.called == session:
            return self.lines
        opened = Transcript.of(_records(self.lines)).opened or Opened(session="")
        moved = replace(opened, session=session, parent=self.session or opened.parent, pid=0)
        return [*self.lines, _line(moved, max(_times(self.lines), default=self.began))]


def conversations(data: bytes, file: str) -> list[Conversation]:
    """What there is to import in a file.

    Args:
        data: What the file holds.
        file: What it is called, for errors.

    Raises:
        ImportFileError: There is no conversation in it.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # as PowerShell writes what it is piped
        data = data.decode("utf-16", "replace").encode(errors="replace")
    value = None
    with suppress(ValueError, RecursionError):
        value = json.loads(data.decode().lstrip("\ufeff"))
    match value:
        case list():
            found = [_messages(value)]
        case {"messages": list(messages)}:
            found = [_messages(messages)]
        case {"turns": list(turns), **facts}:
            found = [_exported(facts, turns)]
        case _:
            found = _with_turns(_logs(data)) or _listed(data)
    found = _with_turns(found)
    if not found:
        raise ImportFileError(
            f"{file} holds no conversation{_because(data)}",
            remedy="Give a session file, what `voicechat export` writes with --format jsonl, json "
            'or openai, or a list of messages: [{"role": "user", "content": "Hello"}, ...].',
        )
    return found


def _with_turns(found: Iterable[Conversation]) -> list[Conversation]:
    return [each for each in found if Transcript.of(_records(each.lines)).turns]


def put_in(directory: Path, found: Conversation, name: str | None = None) -> Imported:
    """Make a session of a conversation, unless there is one already that holds all of it.

    Args:
        directory: Where the session files are; it is made if need be.
        found: The conversation.
        name: What it is called from now on.

    Raises:
        StoreError: It cannot be made.
    """
    files = session_files(directory)
    if found.opened is None and (same := _with_contents(files, found.lines)):
        return _imported(same, is_new=False)
    if found.is_bare and files and (same := _made_before(directory, found)):
        return _imported(same, is_new=False)
    ids = _ids(found)
    while True:
        id = next(ids)
        taken = [path for path in files if session_id(path).lower() == id]
        if here := next((path for path in taken if _is_in(path, found, id)), None):
            return _imported(here, is_new=False)
        path = directory / f"{_stem(directory, found, id)}{ENDING}"
        lines = found.as_session(id)
        if name is not None:
            lines = [*lines, _line(Renamed(name=name), datetime.now(UTC))]
        if not taken and put_down(path, b"".join(each + b"\n" for each in lines)):
            return _imported(path, is_new=True)


def _imported(path: Path, *, is_new: bool) -> Imported:
    return Imported(path, Transcript.of(record for _, record in read(path)), is_new)


# Which session it is ----------------------------------------------------------------------------


def _ids(found: Conversation) -> Iterator[str]:
    """Ids that it may have; the same each time, so that it is found when it comes again.

    Of what is bare, they are of this import alone.  Its file is called by the time of that, and so
    two machines make two files of it, which must not have one id when they meet.
    """
    if found.session is not None:
        yield found.session
    seed, at = _seed(found), stamp(found.began) if found.is_bare else ""
    for number in count():
        yield _id(seed, at, number)


def _id(seed: str, at: str, number: int = 0) -> str:
    return id_of(sha256(f"{number} {at} {seed}".encode()).digest())


def _seed(found: Conversation) -> str:
    """Stands for what it says, however long that is."""
    said = repr((found.called, _records(found.lines)))
    return sha256(said.encode(errors="replace")).hexdigest()


def _made_before(directory: Path, found: Conversation) -> Path | None:
    """What an earlier import made of it: the session whose id is that of an import when it began.

    So no other file is read, and a list that only begins as another one does is not taken for it.
    """
    seed = _seed(found)
    with closing(Index(directory)) as index:
        rows = [row for row in index.rows("true") if row.id == _id(seed, stamp(row.started))]
        paths = [index.path(row.file) for row in rows]
    return next((path for path in paths if _is_in(path, found, session_id(path))), None)


def _stem(directory: Path, found: Conversation, id: str) -> str:
    """The name of its file: that which it had, unless shared stores know that as deleted."""
    stem = f"{found.began.astimezone(UTC):%Y%m%d-%H%M%S}-{id}"
    return stem if stem not in deleted(directory) else f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{id}"


def _with_contents(files: Sequence[Path], lines: Sequence[bytes]) -> Path | None:
    data = b"".join(line + b"\n" for line in lines)
    for path in files:
        with suppress(FileNotFoundError, StoreError):  # it is gone, or not for us to read
            if path.stat().st_size == len(data) and contents(path) == data:
                return path
    return None


def _is_in(path: Path, found: Conversation, id: str) -> bool:
    """Does a session with this id hold all of it?  It may have been gone on with."""
    if found.opened is not None:
        turns = _told(_records(found.lines))
        return _told(record for _, record in read(path))[: len(turns)] == turns
    lines = [line.strip() for line in found.as_session(id)]
    there = (each.strip() for line in contents(path).split(b"\n") for each in objects(line))
    return list(islice(there, len(lines))) == lines


def _told(records: Iterable[Record]) -> list[tuple[str | int, ...]]:
    return [
        (turn.item_id, turn.role, turn.text, turn.status, turn.start_ms, turn.end_ms)
        for turn in Transcript.of(records).turns
    ]


# Session files ----------------------------------------------------------------------------------


def _logs(data: bytes) -> list[Conversation]:
    """The sessions whose records follow each other in a file."""
    lines: list[bytes] = []
    left_out = 0
    for each in data.split(b"\n"):
        found = objects(each)
        left_out += not found and each.strip() != b""
        lines += found
    logs = []
    for part in _parted(lines):
        opened = Transcript.of(_records(part)).opened
        began = next(iter(_times(part)), datetime.now(UTC))
        called = opened.session if opened is not None else None
        logs.append(Conversation(part, began, called=called, left_out=left_out))
        left_out = 0
    return logs


def _parted(lines: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Part the sessions in ``export --all --format jsonl``.

    One begins with a record that opens a session which the one before it has nothing to do with:
    it has another id, that is no fork of it, and its first turn follows none of its turns.  A fork
    behind its parent begins with the same line as that.
    """
    records = [found[1] if (found := parse(line)) else None for line in lines]
    follows: list[str | None] = []  # of each line, which item the next turn follows
    next_one = None
    for record in reversed(records):
        if isinstance(record, Said | Speaking):
            next_one = record.previous_item_id
        follows.append(next_one)
    part: list[bytes] = []
    sessions: set[str] = set()
    items: set[str] = set()
    first = b""
    for each, record, followed in zip(lines, records, reversed(follows), strict=True):
        if isinstance(record, Opened):
            is_known = not sessions or record.session in sessions or record.parent in sessions
            is_copy = each == first
            if (is_copy or not is_known) and followed not in items:
                yield part
                part, sessions, items, first = [], set(), set(), b""
            sessions.add(record.session)
            first = first or each
        elif isinstance(record, Said | Speaking):
            items.add(record.item_id)
        part.append(each)
    yield part


def _records(lines: Iterable[bytes]) -> list[Record]:
    return [found[1] for line in lines if (found := parse(line))]


def _times(lines: Iterable[bytes]) -> list[datetime]:
    return [found[0] for line in lines if (found := parse(line)) and found[0] is not None]


# Objects and messages ---------------------------------------------------------------------------


def _exported(facts: Mapping[object, object], turns: list[object]) -> Conversation:
    """What ``export --format json`` wrote, or someone else in its form."""

    def fact(name: str) -> str | None:
        return value if isinstance(value := facts.get(name), str) else None

    began = _times([_as_line(Back.type, {"at": fact("started")})])
    at = began[0] if began else datetime.now(UTC)
    records: list[Record] = list(_said(turns))
    left_out = len(turns) - len(records)
    if isinstance(usage := facts.get("usage"), dict):
        taken = {each.name: usage[each.name] for each in fields(Usage) if each.name in usage}
        records += _records([_as_line(Usage.type, taken)] if any(taken.values()) else [])
    opened = Opened(
        session="",
        version=__version__,
        name=fact("name"),
        parent=fact("parent"),
        model=fact("model"),
        voice=fact("voice"),
        instructions=fact("instructions"),
        language=fact("language"),
        transcription_model=fact("transcription_model"),
        vad=fact("vad"),
        local=facts.get("local") is True,
        provider=fact("provider"),
    )
    lines = [_line(record, at) for record in records]
    return Conversation(lines, at, opened, fact("session"), left_out, is_dated=bool(began))


def _said(turns: list[object]) -> Iterator[Said]:
    """Exported turns, one behind the other; what is not of their form is left out of them."""
    ids = {
        turn["item_id"]
        for turn in turns
        if isinstance(turn, dict) and isinstance(turn.get("item_id"), str)
    }
    free = (id for number in count(1) if (id := _item_id(number)) not in ids)
    used: set[str] = set()
    previous = None
    for turn in turns:
        if not isinstance(turn, dict) or (role := _role(turn)) is None:
            continue
        text = turn["text"] if isinstance(turn.get("text"), str) else ""
        needed = {"item_id": next(free), "role": role, "text": text}
        whole = needed | {key: turn[key] for key in _OF_TURNS if key in turn}
        for record in _records([_as_line(Said.type, whole), _as_line(Said.type, needed)])[:1]:
            if isinstance(record, Said):
                item_id = needed["item_id"] if record.item_id in used else record.item_id
                used.add(item_id)
                yield replace(record, item_id=item_id, previous_item_id=previous)
                previous = item_id


def _listed(data: bytes) -> list[Conversation]:
    """Messages on a line each, or whole lists of them."""
    values: list[object] = []
    for piece in filter(bytes.strip, data.split(b"\n")):
        values.append(None)
        with suppress(ValueError, RecursionError):
            values[-1] = json.loads(piece)
    match next(iter(values), None):
        case dict():
            named = [
                each["messages"] for each in values if isinstance(each, dict) and "messages" in each
            ]
            lists = named or [values]
        case list():
            lists = values
        case _:
            return []  # such as what is left of one list
    return [_messages(each) for each in lists if isinstance(each, list)]


def _messages(messages: list[object]) -> Conversation:
    """A list of messages, their content as text or in parts."""
    now = datetime.now(UTC)
    lines: list[bytes] = []
    left_out = 0
    for message in messages:
        role = _role(message) if isinstance(message, dict) else None
        texts, silent = _texts(message) if isinstance(message, dict) else ([], 0)
        text = "\n".join(texts)
        if role is None or not text.strip():
            left_out += 1
            continue
        number = len(lines) + 1
        previous = _item_id(number - 1) if lines else None
        record = Said(item_id=_item_id(number), role=role, text=text, previous_item_id=previous)
        lines.append(_line(record, now))
        left_out += silent
    opened = Opened(session="", version=__version__)
    return Conversation(lines, now, opened, left_out=left_out, is_dated=False)


def _texts(message: dict[str, object]) -> tuple[list[str], int]:
    """The words in a message, and how many of its parts have none."""
    content = message.get("content")
    if isinstance(content, str) and content:
        return [content], 0
    parts = content if isinstance(content, list) else []
    spoken = message.get("audio")  # beside the content, in the answers of Chat Completions
    if not parts and isinstance(spoken, dict):
        parts = [{**spoken, "type": "audio"}]
    if not parts:  # and so are refusals
        parts = [{**message, "type": "refusal"}]
    texts = [text for part in parts if (text := _text(part))]
    return texts, len(parts) - len(texts)


def _text(part: object) -> str:
    if not isinstance(part, dict):
        return part if isinstance(part, str) else ""
    text, kind = None, part.get("type")
    if not isinstance(kind, str):
        kind = None
    if kind in WRITTEN:
        text = part.get("text")
    elif kind == "refusal":
        text = part.get("refusal")
    elif kind in SPOKEN:
        text = part.get("transcript")
    return text if isinstance(text, str) else ""


def _role(message: dict[str, object]) -> Role | None:
    role = message.get("role")
    return ROLES.get(role) if isinstance(role, str) else None


def _item_id(number: int) -> str:
    return f"item_{number:04d}"


def _line(record: Record, at: datetime) -> bytes:
    return line(record, at).removesuffix(b"\n")


def _as_line(kind: str, values: dict[str, object]) -> bytes:
    """Values from a file as the line of a record; whether they make one, `parse` tells."""
    plain = {key: value for key, value in values.items() if isinstance(value, str | int)}
    return to_json({"type": kind, **plain}).encode()


def _because(data: bytes) -> str:
    """What stands in the way, if it is that."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return ": it is not UTF-8 text"
    return "" if data.strip() else ": it is empty"
