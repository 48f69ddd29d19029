"""A door: what the session files come to, kept in a SQLite file.

It is derived: made anew where it is missing, damaged or of another version, brought up to date
before every answer, and safe to delete.  Where it cannot be kept, it is made in memory.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

from voicechat.errors import StoreError
from voicechat.history.log import session_id, states
from voicechat.history.reading import LARGEST, Sum, add_up
from voicechat.transcript import Role, folded, printable

NAME = "index.sqlite3"
SCHEMA = 2
"""To be counted up whenever something else is kept, or worked out in another way."""
PATIENCE = 2.0
"""Seconds for which another process may write."""
BATCH = 1000
"""Files that are read between two writes."""
FEW = 200
"""Files of which, when so many have changed, what was added up is kept for who asks next."""
FIRST_WORDS = 80  # letters of them, as many as anyone wants to see in a list
LONG = 300
"""Changed files from which on a user wants to know what takes so long."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TABLES = """
    create table sessions (
        file blob primary key, size integer, modified integer,
        id text, name text, folded_id text, folded_stem text, folded_name text,
        started integer, last_used integer, duration_ms integer, turns integer,
        first_words text, model text, local integer, parent text, is_readable integer
    ) without rowid;
    create index by_use on sessions (last_used);
    create table words (file blob primary key, folded text, turns text);
"""
# In `words`, one line a turn: what was said of it folded, and [item id, role, start in ms, text].


class Row(NamedTuple):
    """A session as the index knows it; its texts are safe to show."""

    file: bytes
    id: str
    name: str | None
    started: datetime
    last_used: datetime
    duration_ms: int
    turns: int
    first_words: str
    model: str | None
    local: bool
    parent: str | None
    is_readable: bool


Said = tuple[int, str, Role, int, str]
"""Of a turn: its number, counted from 1; item id; role; start in ms; what was said."""
_COLUMNS = ", ".join(f"sessions.{name}" for name in Row._fields)
_Answer = TypeVar("_Answer")
Progress = Callable[[int, int], object]
"""Is told how many files were read, and how many there are to be read."""


class Index:
    """Answers questions about all session files of a directory at once.

    Args:
        directory: Where the session files are; the index lies beside it.
        progress: Is told of files being read, if they are many.

    Raises:
        StoreError: The directory cannot be read.
    """

    def __init__(self, directory: Path, progress: Progress | None = None) -> None:
        self._directory = directory
        self._progress = progress
        self._file = directory.parent / NAME
        self._files = {
            os.fsencode(name): (state.st_size, state.st_mtime_ns)
            for name, state in states(directory).items()
        }
        self.unreadable: list[Path] = []
        """Files that cannot be read, or in which nothing can."""
        self.sums: dict[Path, Sum] = {}
        """What was added up just now, of the files that had changed if they were few."""
        self._database = self._open()

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def rows(self, condition: str, values: Sequence[object] = (), limit: int = 0) -> list[Row]:
        """Sessions for which an SQL condition holds, the last used first; `limit` of them, if any.

        It may ask for what was said, too, in ``words``.
        """
        return self._ask(
            f"select {_COLUMNS} from sessions where {condition} order by last_used desc, file "
            "limit ?",
            (*values, limit or -1),
            _row,
        )

    def turns(self, text: str) -> list[tuple[Row, list[Said]]]:
        """The sessions in which a folded text was said, the last used first, with those turns."""

        def found(*values: Any) -> tuple[Row, list[Said]]:
            *row, lines, turns = values
            said = json.loads(turns)
            places = [place for place, each in enumerate(lines.split("\n")) if text in each]
            return _row(*row), [_said(text, place + 1, *said[place]) for place in places]

        return self._ask(
            f"select {_COLUMNS}, folded, words.turns from words join sessions using (file) "
            "where instr(folded, ?) and sessions.turns > 0 order by last_used desc, file",
            (text,),
            found,
        )

    def _ask(
        self, query: str, values: Sequence[object], read: Callable[..., _Answer]
    ) -> list[_Answer]:
        try:
            return _found(self._database, query, values, read)
        except sqlite3.DatabaseError as error:
            damage = error
        self._database.close()
        self._database = self._open(damage)
        return _found(self._database, query, values, read)

    def _open(self, error: sqlite3.Error | None = None) -> sqlite3.Connection:
        """Open the index and bring it up to date; what went wrong says how."""
        path: Path | None = self._file
        while True:
            if isinstance(error, sqlite3.OperationalError):
                path = None  # it is locked, or the disk is full or read-only
            elif error is not None:  # damaged, or no database at all
                try:
                    self._file.unlink()
                except OSError:
                    path = None
            try:
                return self._try_to_open(path)
            except sqlite3.DatabaseError as problem:
                if path is None:
                    raise
                error = problem

    def _try_to_open(self, path: Path | None) -> sqlite3.Connection:
        if path is not None:
            with suppress(OSError):  # what was said is for the owner alone
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        database = sqlite3.connect(path or ":memory:", timeout=PATIENCE, isolation_level=None)
        try:
            self._update(database)
        except BaseException:
            database.close()
            raise
        return database

    def _update(self, database: sqlite3.Connection) -> None:
        """Read what has changed, without keeping others from the index meanwhile."""
        if _version(database) != SCHEMA:
            with _transaction(database):
                if _version(database) != SCHEMA:  # still
                    _make_tables(database)
        known = dict(_found(database, "select file, size, modified from sessions", (), _state))
        changed = [file for file, state in self._files.items() if known.get(file) != state]
        missed = known.keys() - self._files.keys()  # some may have been made just now
        gone = [file for file in missed if not os.path.exists(self.path(file))]  # noqa: PTH110
        if gone:
            with _transaction(database):
                _forget(database, gone)
        unread: list[bytes] = []
        for first in range(0, len(changed), BATCH):
            batch = changed[first : first + BATCH]
            found = {file: self._add_up(file, keep=len(changed) <= FEW) for file in batch}
            with _transaction(database):
                for file, each in found.items():
                    if each is not None:
                        _put(database, file, self._files[file], self.path(file), each)
                unread += [file for file, each in found.items() if each is None]
                _forget(database, unread)
            if self._progress is not None and len(changed) > LONG:
                self._progress(min(first + BATCH, len(changed)), len(changed))
        empty = "select file, size, modified from sessions where not is_readable and size > 0"
        found_empty = [
            file for file, _ in _found(database, empty, (), _state) if file in self._files
        ]
        self.unreadable = [
            path for path in map(self.path, (*unread, *found_empty)) if path.exists()
        ]

    def _add_up(self, file: bytes, *, keep: bool) -> Sum | None:
        path = self.path(file)
        try:
            found = add_up(path)
        except StoreError:  # it is gone, or not for us to read: to be tried again the next time
            return None
        if keep:
            self.sums[path] = found
        return found

    def path(self, file: bytes) -> Path:
        """Where a file of a row is."""
        return self._directory / os.fsdecode(file)


def _found(
    database: sqlite3.Connection,
    query: str,
    values: Sequence[object],
    read: Callable[..., _Answer],
) -> list[_Answer]:
    """What a query finds; `sqlite3.DatabaseError` for damage, even where SQLite does not see it."""
    try:
        return [read(*each) for each in database.execute(query, values)]
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise sqlite3.DatabaseError("damaged") from error


def _state(file: object, size: object, modified: object) -> tuple[bytes, tuple[object, object]]:
    """Of which state of a file the index knows; `TypeError` if it cannot be."""
    if not isinstance(file, bytes):
        raise TypeError
    return file, (size, modified)


def _row(*values: Any) -> Row:
    """What stands in a row; `TypeError` if it cannot be."""
    row = Row(*values)
    file, id, name, *_, first_words, model, _, parent, _ = values
    texts = (id, first_words, *(text for text in (name, model, parent) if text is not None))
    if not isinstance(file, bytes) or not all(isinstance(text, str) for text in texts):
        raise TypeError
    return row._replace(
        started=_EPOCH + timedelta(microseconds=values[3]),
        last_used=_EPOCH + timedelta(microseconds=values[4]),
        duration_ms=int(row.duration_ms),
        turns=int(row.turns),
        local=bool(row.local),
        is_readable=bool(row.is_readable),
    )


def _said(text: str, number: int, item_id: Any, role: Any, start_ms: Any, said: Any) -> Said:
    """A turn in which a folded text was said; `TypeError` or `ValueError` if it cannot be."""
    if role not in get_args(Role) or not isinstance(item_id, str) or text not in folded(said):
        raise ValueError
    return number, item_id, role, int(start_ms), said


def _version(database: sqlite3.Connection) -> int:
    [[version]] = database.execute("pragma user_version")
    return int(version)


def _make_tables(database: sqlite3.Connection) -> None:
    for name in _found(database, "select name from sqlite_master where type = 'table'", (), str):
        database.execute(f'drop table "{name}"')
    for statement in _TABLES.split(";"):
        database.execute(statement)
    database.execute(f"pragma user_version = {SCHEMA}")


def _forget(database: sqlite3.Connection, files: list[bytes]) -> None:
    for table in ("sessions", "words"):
        database.executemany(f"delete from {table} where file = ?", [(file,) for file in files])


def _put(
    database: sqlite3.Connection, file: bytes, state: tuple[int, int], path: Path, found: Sum
) -> None:
    transcript = found.transcript
    opened, spoken = transcript.opened, transcript.spoken
    said = [" ".join(printable(turn.text).split()) for turn in spoken]
    name = printable(transcript.name or "")
    id = printable(session_id(path))
    changed = _EPOCH + timedelta(microseconds=state[1] // 1000)
    started = found.started or changed
    values = (
        *(file, *state, id, name or None),
        *(folded(id), folded(printable(path.stem)), folded(name)),
        _to_index(started),
        _to_index(found.last_used or started),
        *(min(transcript.end_ms, LARGEST), len(spoken)),
        next(filter(None, said), "")[:FIRST_WORDS],
        printable(opened.model) if opened and opened.model else None,
        *(opened is not None and opened.local, printable(transcript.parent or "") or None),
        found.records > 0,
    )
    marks = ", ".join("?" * len(values))
    database.execute(f"insert or replace into sessions values ({marks})", values)
    turns = [
        (printable(turn.item_id), turn.role, turn.start_ms, words)
        for turn, words in zip(spoken, said, strict=True)
    ]
    database.execute(
        "insert or replace into words values (?, ?, ?)",
        (file, "\n".join(map(folded, said)), json.dumps(turns)),
    )


def _to_index(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("begin immediate")
    try:
        yield
    except BaseException:
        database.execute("rollback")
        raise
    database.execute("commit")
