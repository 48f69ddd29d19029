"""A door: what is wrong with session files, and what can be done about it.

`voicechat.history.reading` passes over whatever is no record; here that is told, line by line.
Repairing never takes anything away: a new file gets every line that can be read, and the old one
stays beside it under another name.
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Literal

from voicechat.errors import SessionInUseError, StoreError
from voicechat.history.deleting import remember
from voicechat.history.log import ENDING, OLD, files, held, others_of, put_down, repaired_id
from voicechat.history.reading import complete, contents, parse, unusable
from voicechat.history.recordings import rename_recordings
from voicechat.transcript import RECORDS, Back, Record, Said, Speaking, Transcript, printable

Kind = Literal["torn", "unknown", "malformed", "empty", "out of order", "unreadable"]

SHOWN = 40
"""Letters of a line that are shown."""
ATTEMPTS = 100
"""How often a torn line is tried for a record in it; a crash tears one."""

_raw_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a line; its text is safe to show."""

    line: int
    """Its number, counted from 1; 0: it is about the whole file."""
    kind: Kind
    text: str
    is_remark: bool = False
    """Nothing is lost by it, and nothing is to be done about it."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """What became of a file."""

    new: Path | None
    """The session's file now; None: nothing in the old one could be read."""
    old: Path
    """What was there, under another name."""


@dataclass(frozen=True, slots=True)
class _Line:
    """What is kept of a file."""

    number: int
    data: bytes
    at: datetime | None
    record: Record | None
    """None: it is of a kind that this version does not know."""


def session_files(directory: Path) -> list[Path]:
    """Every session's file, whatever is in it; the first to begin is first.

    Raises:
        StoreError: The directory cannot be read.
    """
    return sorted(directory / entry.name for entry in files(directory))


def check(path: Path) -> list[Finding]:
    """What is wrong with a session's file.

    What another process may be writing just now, at the end of the file, is not.
    """
    try:
        data = contents(path)
        if data and data == complete(data):
            return look(data)
        with held(path) as file:
            return look(file.readall())
    except SessionInUseError:
        written = complete(contents(path))
        return look(written) if written else []
    except StoreError as error:
        with suppress(StoreError):
            return look(contents(path))  # it may be read, but not written
        return [Finding(0, "unreadable", printable(error.message))]


def look(data: bytes) -> list[Finding]:
    """What is wrong with what is in a session's file, the first line first."""
    lines, findings = _sorted_out(data)
    findings += [*_against_time(lines), *_without_beginning(lines)]
    if not lines:
        said = "nothing in it can be read" if data.strip() else "there is nothing in it"
        findings.append(Finding(0, "empty", said))
    return sorted(findings, key=lambda finding: finding.line)


def repair(path: Path) -> Repaired | None:
    """Give a session a file in which everything is well, and keep the old one under another name.

    The session keeps its id.  Its file is called differently, because to shared stores a log is
    what it once began with.  A repair that broke off is gone on with: the new file is there then.

    Returns:
        None if there is nothing that could be done.

    Raises:
        SessionInUseError: Another process talks in it.
        StoreError: It cannot be read, or the new file cannot be made.
    """
    with held(path) as file:
        data = contents(path)
        mended = repaired(data)
        if mended == data and mended:
            return None
        new = (_begun_with(path, mended) or _put_down(path, mended)) if mended else None
        if new is not None:
            rename_recordings(path, new)
        if sys.platform == "win32":  # which renames no open file
            file.close()
        old = _set_aside(path)
    if new is not None:  # else a store may have what is lost here, and bring it back
        remember(path.parent, path.stem, data)
    return Repaired(new, old)


def is_mendable(path: Path) -> bool:
    """Would a repair change anything?

    Raises:
        StoreError: The file cannot be read.
    """
    data = contents(path)
    mended = repaired(data)
    return mended != data or not mended


def repaired(data: bytes) -> bytes:
    """Every line that can be read, as it is; in the order of time if that changes no sum."""
    lines, findings = _sorted_out(data)
    is_changed = not all(finding.is_remark for finding in findings) or not lines
    if not all(finding.is_remark for finding in _against_time(lines)):
        lines, is_changed = _in_order_of_time(lines), True
    return b"".join(line.data + b"\n" for line in lines) if is_changed else data


def objects(line: bytes) -> list[bytes]:
    """The JSON objects on a line: the line as it is, or the records that stand in a torn one."""
    return [line] if isinstance(_value(line), dict) else _rescued(line)


# Line by line -----------------------------------------------------------------------------------


def _sorted_out(data: bytes) -> tuple[list[_Line], list[Finding]]:
    """What of a file is kept, and what is wrong with its lines, each looked at alone."""
    lines: list[_Line] = []
    findings: list[Finding] = []
    pieces = data.split(b"\n")
    for number, piece in enumerate(pieces, 1):
        is_ended = number < len(pieces)
        if parsed := parse(piece):
            lines.append(_Line(number, piece, *parsed))
            if not is_ended:
                findings.append(Finding(number, "torn", "the line has no end"))
            continue
        value = _value(piece)
        if isinstance(value, dict):
            kind = value.get("type")
            if isinstance(kind, str) and kind in RECORDS:
                text = f"a record of the kind {kind} does not look like this: {_shown(piece)}"
                findings.append(Finding(number, "malformed", text))
                continue
            lines.append(_Line(number, piece, _time(value), None))
            text = f"this version knows no such kind of record: {_shown(piece)}"
            findings.append(Finding(number, "unknown", text, is_remark=True))
            if not is_ended:
                findings.append(Finding(number, "torn", "the line has no end"))
        elif piece.strip() or (piece and not is_ended):
            rescued = _rescued(piece)
            for each in rescued:
                if found := parse(each):
                    lines.append(_Line(number, each, *found))
            findings.append(Finding(number, "torn", _torn(piece, len(rescued))))
    return lines, findings


def _torn(line: bytes, rescued: int) -> str:
    whole = {0: "", 1: ", with a whole record in it"}.get(rescued, f", with {rescued} whole ones")
    return f"written in part{whole}: {_shown(line)}"


def _shown(line: bytes) -> str:
    text = printable(line[: 4 * SHOWN].decode(errors="replace"))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _value(line: bytes) -> object:
    """What stands on a line, if it is JSON."""
    with suppress(ValueError, RecursionError):
        return json.loads(line.decode(errors="replace").strip("\ufeff \t\r"))
    return None


def _time(value: dict[str, object]) -> datetime | None:
    """When a record was written, of whatever kind it is."""
    if not isinstance(at := value.get("at"), str):
        return None
    found = parse(json.dumps({"type": Back.type, "at": at}).encode())
    return found[0] if found else None


_BEGINNING = re.compile(r'\{\s*+"type"')


def _rescued(line: bytes) -> list[bytes]:
    """The whole records on a line that is none: behind a torn piece, or before one."""
    found = []
    text = line.decode(errors="surrogateescape")
    place = failed = 0
    while (begins := _BEGINNING.search(text, place)) and failed < ATTEMPTS:
        try:
            _, place = _raw_decode(text, begins.start())
        except (ValueError, RecursionError):
            place = begins.end()
            failed += 1
            continue
        piece = text[begins.start() : place].encode(errors="surrogateescape")
        if parse(piece):
            found.append(piece)
    return found


# All lines together -----------------------------------------------------------------------------


def _against_time(lines: Sequence[_Line]) -> list[Finding]:
    """Where time goes back.  Sorted lines must say the same, or else it was the clock."""
    back: list[tuple[int, int]] = []
    before = None
    for line in lines:
        if line.at is None:
            continue
        if before is not None and line.at < before[1]:
            back.append((line.number, before[0]))
        before = line.number, line.at
    is_remark = bool(back) and _sum(_in_order_of_time(lines)) != _sum(lines)
    why = ", as when a clock is set back" if is_remark else ""
    return [
        Finding(number, "out of order", f"it was written before line {other}{why}", is_remark)
        for number, other in back
    ]


def _without_beginning(lines: Sequence[_Line]) -> Iterator[Finding]:
    """What follows a turn that nobody knows: it is put where it came."""
    turns = [
        (line.number, line.record) for line in lines if isinstance(line.record, Said | Speaking)
    ]
    known = {turn.item_id for _, turn in turns}
    for number, turn in turns:
        previous = turn.previous_item_id
        if previous is not None and previous not in known:
            text = f"it follows {_quoted(previous)}, which is not in the file"
            yield Finding(number, "out of order", text, is_remark=True)


def _quoted(item_id: str) -> str:
    return repr(printable(item_id)[:SHOWN])


def _in_order_of_time(lines: Sequence[_Line]) -> list[_Line]:
    """Sorted; what has no time stays behind the line before it."""
    times = []
    at = datetime.min.replace(tzinfo=UTC)
    for line in lines:
        at = line.at or at
        times.append(at)
    places = sorted(range(len(lines)), key=times.__getitem__)
    return [lines[place] for place in places]


def _sum(lines: Sequence[_Line]) -> tuple[object, ...]:
    """What matters of what lines come to: the turns in their order, and how the session goes on."""
    transcript = Transcript.of(line.record for line in lines if line.record is not None)
    opened = transcript.opened and replace(transcript.opened, pid=0, version="")
    turns = [
        (turn.item_id, turn.role, turn.text, turn.status, turn.start_ms, turn.end_ms)
        for turn in transcript.turns
    ]
    return turns, opened, transcript.name, transcript.summary, transcript.was_hung_up


# Files ------------------------------------------------------------------------------------------


def _begun_with(path: Path, mended: bytes) -> Path | None:
    """The file of the same session that begins with this, if a repair was broken off."""
    return next((each for each in others_of(path) if contents(each).startswith(mended)), None)


def _put_down(path: Path, mended: bytes) -> Path:
    """Make a file for the session of another one.

    It is called by the time of the last record, so that two machines that repair the same file make
    the same one.
    """
    session = repaired_id(path.stem)
    parsed = (parse(line) for line in mended.split(b"\n"))
    at = max((found[0] for found in parsed if found and found[0]), default=datetime.now(UTC))
    while True:
        at += timedelta(seconds=1)
        new = path.with_name(f"{at.astimezone(UTC):%Y%m%d-%H%M%S}-{session}{ENDING}")
        if put_down(new, mended) or contents(new) == mended:
            return new


def _set_aside(path: Path) -> Path:
    """Rename a file so that nothing takes it for a session any more."""
    names = (f"{path.name}{OLD}{'' if number == 1 else f'-{number}'}" for number in count(1))
    old = next(each for each in map(path.with_name, names) if not os.path.lexists(each))
    try:
        path.rename(old)
    except OSError as error:
        raise unusable(path, error) from error
    return old
