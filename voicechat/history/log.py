"""The room's door to what was said: one append-only JSON Lines file per session.

A line is one record: ``type``, ``at`` (UTC, stamped here: nothing else in voicechat reads the wall
clock) and the record's fields (`voicechat.transcript`).  A field that is empty (None, "", 0 or
false) and need not be there is left out.
"""

import errno
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from voicechat.errors import SessionInUseError, StoreError
from voicechat.transcript import (
    RECORDS,
    Opened,
    Record,
    Said,
    Speaking,
    Transcript,
    Usage,
    to_json,
)

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
"""Of session ids: easy to type and to say, no two letters look alike."""
ID_LENGTH = 6
ENDING = ".jsonl"

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
    """The last."""
    records: int
    passed_over: int
    """Lines that hold no record that this version reads."""
    size: int
    """Of the file, in bytes."""


class SessionLog:
    """The file of one session, held so that no other process writes to it.

    A record is on disk when `append` returns, by one unbuffered write.  Nothing is ever rewritten:
    a crash at any byte loses at most the record being written, whose line gets its end when the log
    is next opened, and `read` passes over it.
    """

    def __init__(self, path: Path, *, is_new: bool = False) -> None:
        """Open a session's file to go on with it.

        Raises:
            SessionInUseError: Another process holds it.
            StoreError: It cannot be written.
        """
        self.path = path
        self._is_torn = False
        flags = os.O_WRONLY | os.O_APPEND | (os.O_CREAT | os.O_EXCL if is_new else 0)
        try:
            descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o600)
        except FileExistsError:
            raise  # only of a new one: `create` chooses another id
        except OSError as error:
            _fail(path, error)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        try:
            _lock(descriptor)
            if _ends_within_a_line(path):
                self._write(b"\n")
        except BlockingIOError as error:
            self.close()
            holder = _last_pid(path)
            raise SessionInUseError(
                f"session {self.session} is in use by "
                + (f"process {holder}" if holder else "another process"),
                remedy="Hang up there first, or begin a new session with: voicechat talk",
            ) from error
        except OSError as error:
            self.close()
            _fail(path, error)
        except StoreError:
            self.close()
            raise

    @classmethod
    def create(cls, directory: Path) -> "SessionLog":
        """Begin a session: a new file, named after the moment and an id that is unique here.

        Raises:
            StoreError: The directory or the file cannot be made.
        """
        try:
            directory.mkdir(mode=0o700, parents=True)
            directory.chmod(0o700)  # whatever the umask
        except FileExistsError:
            if not directory.is_dir():
                _fail(directory, NotADirectoryError(errno.ENOTDIR, "it is not a directory"))
        except OSError as error:
            _fail(directory, error)
        while True:
            session = "".join(ALPHABET[byte % len(ALPHABET)] for byte in os.urandom(ID_LENGTH))
            path = directory / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{session}{ENDING}"
            if list(directory.glob(f"*-{session}{ENDING}")):
                continue
            try:
                log = cls(path, is_new=True)
            except FileExistsError:
                continue
            if len(list(directory.glob(f"*-{session}{ENDING}"))) == 1:
                break
            log.discard()  # another process had the same idea; both step back
        _sync_directory(directory)
        return log

    @property
    def session(self) -> str:
        """The session's id."""
        return session_id(self.path)

    def append(self, record: Record) -> None:
        """Write one record and wait until the disk has it.

        Raises:
            StoreError: The record is not on disk.  Those before it are, and more may be appended.
        """
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        values = {"type": record.type, "at": at}
        for field in fields(record):
            value = getattr(record, field.name)
            if value or value != field.default:
                values[field.name] = value
        self._write(to_json(values).encode() + b"\n")

    def close(self) -> None:
        """Let others have the file."""
        self._file.close()

    def discard(self) -> None:
        """Close the log, and remove the file if nothing was said in this session."""
        try:
            if not Transcript.of(record for _, record in read(self.path)).spoken:
                if sys.platform == "win32":  # which removes no open file
                    self.close()
                self.path.unlink(missing_ok=True)
        except OSError as error:
            _fail(self.path, error)
        finally:
            self.close()

    def _write(self, line: bytes) -> None:
        if self._is_torn:
            line = b"\n" + line
        self._is_torn = True
        try:
            written = self._file.write(line)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            _fail(self.path, error)
        self._is_torn = False


def session_id(path: Path) -> str:
    """The id in the name of a session's file; of a file that was renamed, its new name."""
    started, _, session = path.stem.rpartition("-")
    return session if len(started) == len("20260131-235959") else path.stem


def read(path: Path) -> Iterator[_Parsed]:
    """Yield the records of a session's file, oldest first, each with the time of its writing.

    Whatever is torn, damaged, of an unknown kind or not of the known form is passed over, and so
    are fields that this version does not know.  The file may be in use.

    Raises:
        StoreError: The file cannot be read at all.
    """
    for line in _contents(path).split(b"\n"):
        if parsed := parse(line):
            yield parsed


def add_up(path: Path) -> Sum:
    """What `Transcript.of` makes of all that `read` yields, in some 60 % of the time.

    A line that is just as `append` writes it is matched, not parsed.  Of the lines about one turn,
    most of which a later one replaces, only the sum becomes a record.

    Raises:
        StoreError: The file cannot be read at all.
    """
    contents = _contents(path)
    transcript, passed_over = Transcript(), 0
    times: list[str | None] = []
    turns: dict[str, _Heard] = {}
    responses: list[tuple[str | None, ...]] = []
    for line in _LINES.finditer(contents.decode(errors="replace")):
        kind = line.lastgroup
        if kind is None:
            data = line[0].encode()
            if parsed := parse(data):
                at, record = parsed
                times.append(at.isoformat() if at else None)
                _apply(turns, transcript)
                transcript.apply(record)
            elif data.strip():
                passed_over += 1
            continue
        values = line.groups()[_PLACES[kind]]
        times.append(values[0])
        if kind == Usage.type:
            responses.append(values[1:-1])
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
    tokens: dict[str, Any] = {
        name: sum(int(number or 0) for number in column)
        for name, column in zip(_TOKENS, zip(*responses, strict=True), strict=False)
    }
    transcript.apply(Usage(**tokens))
    return Sum(
        transcript=transcript,
        started=next(filter(None, map(_read_time, times)), None),
        last_used=next(filter(None, map(_read_time, reversed(times))), None),
        records=len(times),
        passed_over=passed_over,
        size=len(contents),
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


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        _fail(path, error, doing="read")


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


def _ends_within_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def _last_pid(path: Path) -> int:
    opened = [record for _, record in read(path) if isinstance(record, Opened)]
    return opened[-1].pid if opened else 0


def _lock(descriptor: int) -> None:
    """Lock a file until it is closed, or until the process is gone, whatever ended it.

    Raises:
        BlockingIOError: Another process has locked it.
    """
    if sys.platform == "win32":
        os.lseek(descriptor, 2**31 - 2, os.SEEK_SET)  # far beyond the end: it may still be read
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(error.errno, error.strerror) from error
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sync_directory(directory: Path) -> None:
    """Put a new file's name on disk, as `append` does with what is in it."""
    if sys.platform != "win32":
        descriptor = os.open(directory, os.O_RDONLY)
        with suppress(OSError):  # not every file system can, and those need not
            os.fsync(descriptor)
        os.close(descriptor)


def _fail(path: Path, error: OSError, *, doing: str = "write") -> NoReturn:
    """Say what is wrong with the place where sessions are kept, and what helps."""
    reason = (error.strerror or str(error)).lower()
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "Free some space, or talk without saving: voicechat talk --no-log"
    elif doing == "write":
        remedy = "Set VOICECHAT_HOME to a directory of yours, or talk without saving: --no-log"
    else:
        remedy = "Make it readable for you, or set VOICECHAT_HOME to another directory."
    raise StoreError(f"cannot {doing} {path}: {reason}", remedy=remedy) from error
