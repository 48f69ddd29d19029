"""A door: session files, read.

A file may be torn, damaged, in use, or from another version: whatever in it is a record is read.
"""

import errno
import json
import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from voicechat.errors import StoreError
from voicechat.transcript import RECORDS, Record, Renamed, Said, Speaking, Transcript, Usage

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""How an error says that there is no room."""
LARGEST = 10**15
"""Of any number in a record: no session lasts that many milliseconds."""

_raw_decode = json.JSONDecoder().raw_decode
_Parsed = tuple[datetime | None, Record]


@dataclass(frozen=True, slots=True)
class Sum:
    """What a session's file comes to."""

    transcript: Transcript
    started: datetime | None
    """The first time of writing that can be read; None if there is none."""
    last_used: datetime | None
    """The last, but for a new name: giving one is no use of the session."""
    records: int
    passed_over: int
    """Lines that hold no record that this version reads."""
    size: int
    """Of the file, in bytes."""


def read(path: Path) -> Iterator[_Parsed]:
    """Yield the records of a session's file, oldest first, each with the time of its writing.

    Whatever is torn, damaged, of an unknown kind or not of the known form is passed over, and so
    are fields that this version does not know.  The file may be in use.

    Raises:
        StoreError: The file cannot be read at all.
    """
    for line in contents(path).split(b"\n"):
        if parsed := parse(line):
            yield parsed


def add_up(path: Path) -> Sum:
    """What `Transcript.of` makes of all that `read` yields, in some 60 % of the time.

    A line that is just as `append` writes it is matched, not parsed.  Of the lines about one turn,
    most of which a later one replaces, only the sum becomes a record.

    Raises:
        StoreError: The file cannot be read at all.
    """
    data = contents(path)
    transcript, passed_over = Transcript(), 0
    times: list[str | None] = []
    turns: dict[str, _Heard] = {}
    responses: dict[str | None, list[tuple[str | None, ...]]] = {}
    for line in _LINES.finditer(data.decode(errors="replace")):
        kind = line.lastgroup
        if kind is None:
            odd = line[0].encode()
            if parsed := parse(odd):
                at, record = parsed
                is_use = not isinstance(record, Renamed)
                times.append(at.isoformat() if at and is_use else None)
                _apply(turns, transcript)
                transcript.apply(record)
            elif odd.strip():
                passed_over += 1
            continue
        values = line.groups()[_PLACES[kind]]
        times.append(values[0])
        if kind == Usage.type:
            responses.setdefault(values[-1], []).append(values[1:-1])
            continue
        if kind == Said.type:
            _, item_id, role, text, status, previous, start, end = values
            status, end_ms = status or "complete", int(end or 0)
        else:
            _, item_id, role, text, previous, start = values
            status, end_ms = None, int(start or 0)
        if item_id in turns:
            first_role, words, is_final, place, _, reached_ms = turns[item_id]
            if is_final or place != previous or reached_ms > end_ms:
                _apply(turns, transcript)  # what came first is not simply replaced
            elif not status:
                role, text = first_role, (words or "") + (text or "")
        turns[item_id] = role, text, status, previous, start, end_ms
    _apply(turns, transcript)
    for model, took in responses.items():
        sums = [sum(int(number or 0) for number in column) for column in zip(*took, strict=True)]
        tokens: dict[str, Any] = dict(zip(_TOKENS, sums, strict=True))
        transcript.apply(Usage(**tokens, model=model))
    return Sum(
        transcript=transcript,
        started=next(filter(None, map(_read_time, times)), None),
        last_used=next(filter(None, map(_read_time, reversed(times))), None),
        records=len(times),
        passed_over=passed_over,
        size=len(data),
    )


_Heard = tuple[Any, str | None, Any, str | None, str | None, int]
"""Of a turn: role, text, status if it was said, the item before it, start, end so far in ms."""


def _apply(turns: dict[str, _Heard], transcript: Transcript) -> None:
    """Apply what was heard, in the order of arrival, and forget it."""
    for item_id, (role, text, status, previous, start, end_ms) in turns.items():
        record = (
            Said(
                item_id=item_id,
                role=role,
                text=text or "",
                status=status,
                previous_item_id=previous,
                start_ms=int(start or 0),
                end_ms=end_ms,
            )
            if status
            else Speaking(
                item_id=item_id,
                role=role,
                text=text or "",
                previous_item_id=previous,
                start_ms=end_ms,
            )
        )
        transcript.apply(record)
    turns.clear()


def _as_written(kind: type[Record]) -> str:
    """The pattern of a record's line, if it needs no escape and no sign: a group for each value."""
    string, number = r'"([^"\\\x00-\x1f]*+)"', "(0|[1-9][0-9]{0,14})"
    pattern = rf'(?P<{kind.type}>\{{"type": "{kind.type}", "at": {string}'
    for field in fields(kind):
        value = number if field.type is int else string
        if get_origin(field.type) is Literal:
            value = f'"({"|".join(get_args(field.type))})"'
        pattern += f'(?:, "{field.name}": {value})' + ("" if field.default is MISSING else "?+")
    return pattern + r"\})$"


_LINES = re.compile("|".join([*map(_as_written, (Said, Speaking, Usage)), ".+"]), re.MULTILINE)
"""Matches each line.  The last group tells the kind, and is None where `parse` is needed."""
_PLACES = {
    kind: slice(first, first + 1 + len(fields(RECORDS[kind])))
    for kind, first in _LINES.groupindex.items()
}
"""Of each kind, its values among the groups: the time, then the fields."""
_TOKENS = [field.name for field in fields(Usage) if field.type is int]


def contents(path: Path) -> bytes:
    """All that is in a session's file.

    Raises:
        StoreError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise unusable(path, error, doing="read") from error


def complete(data: bytes) -> bytes:
    """Without what is behind the last end of a line: still being written, or torn."""
    return data[: data.rfind(b"\n") + 1]


def parse(line: bytes) -> _Parsed | None:
    """Read one line of a session's file; None if it holds no record."""
    # A damaged byte costs one letter, not the turn; editors add byte order marks and CRs.
    text = line.decode(errors="replace").strip("\ufeff \t\r")
    try:
        values, end = _raw_decode(text)  # json.loads takes twice as long for it
        kind = RECORDS[values["type"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if end < len(text):
        return None
    shape = _SHAPES[kind]
    known = {}
    for name, value in values.items():
        if name in shape:
            kinds, choices = shape[name]
            if type(value) not in kinds or (choices and value not in choices):
                return None
            if type(value) is int and abs(value) > LARGEST:
                return None
            known[name] = value
    try:
        return _read_time(values.get("at")), kind(**known)
    except TypeError:  # a field that must be there is not
        return None


_Shape = dict[str, tuple[tuple[type, ...], tuple[str, ...]]]


def _shape(kind: type[Record]) -> _Shape:
    """Of each field: which types it may have, and which values if not all of them."""
    return {
        field.name: ((str,), get_args(field.type))
        if get_origin(field.type) is Literal
        else (get_args(field.type) or (field.type,), ())
        for field in fields(kind)
    }


_SHAPES = {kind: _shape(kind) for kind in RECORDS.values()}


def _read_time(value: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        return None
    if not 1970 < at.year < 9999:  # no local time can be told at the ends of the calendar
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def unusable(path: Path, error: OSError, *, doing: str = "write") -> StoreError:
    """What is wrong with the place where sessions are kept, and what helps."""
    reason = (error.strerror or str(error)).lower()
    if error.errno in FULL:
        remedy = "Free some space. One can talk without saving, too: voicechat talk --no-log"
    elif doing == "write":
        remedy = (
            "Make it writable for you, or set VOICECHAT_HOME to a directory of yours. "
            "One can talk without saving, too: voicechat talk --no-log"
        )
    else:
        remedy = "Make it readable for you, or set VOICECHAT_HOME to another directory."
    return StoreError(f"cannot {doing} {path}: {reason}", remedy=remedy)
