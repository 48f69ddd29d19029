"""A door: the saved sessions, looked up.

What is known of a session is worked out from its file; `history.index` remembers it for files that
have not changed since.
"""

from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from voicechat.errors import UnknownSessionError, UnreadableSessionError
from voicechat.history.index import FIRST_WORDS, Index, Progress, Row
from voicechat.history.log import ENDING
from voicechat.history.reading import Sum, add_up
from voicechat.transcript import Role, Transcript, folded, printable

LAST = "last"
"""Stands for the session that was last used."""
MAX_MATCHES = 5


@dataclass(frozen=True, slots=True)
class SavedSession:
    """What there is to know about a saved session; its texts are safe to show."""

    id: str
    path: Path
    name: str | None
    started: datetime
    last_used: datetime
    duration_ms: int
    """On the session's own timeline, which does not count the time between runs."""
    turns: int
    """Without those of which nothing was heard."""
    first_words: str
    model: str | None
    local: bool
    """The built-in server answered."""
    parent: str | None
    """Id of the session that it was forked from, if it was."""
    added_up: Sum | None = field(default=None, compare=False, repr=False)
    """What all this was worked out from, if that happened just now."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A turn in which some text was said; its texts are safe to show."""

    session: SavedSession
    turn: int
    """Its number among the turns of the session, counted from 1."""
    item_id: str
    role: Role
    start_ms: int
    text: str
    """The whole turn, as one line."""
    found: tuple[int, int]
    """Where in `text` the text first stands: from, to."""


def list_sessions(
    directory: Path, number: int = 0, text: str = "", progress: Progress | None = None
) -> tuple[list[SavedSession], list[Path]]:
    """The sessions in which something was said, the last used first: `number` of them, 0 for all.

    Beside them, the files of which nothing can be read.

    Args:
        directory: Where the session files are.
        number: How many are wanted.
        text: Only those in whose name, id or turns this stands, whatever its case and accents.
        progress: Is told of files that must be read first, if they are many.

    Raises:
        StoreError: The directory cannot be read.
    """
    condition, wanted = "turns > 0", _to_find(text)
    values: tuple[str, ...] = ()
    if wanted:
        condition += (
            " and (instr(folded_name, ?) or instr(folded_id, ?)"
            " or file in (select file from words where instr(folded, ?)))"
        )
        values = (wanted,) * 3
    with closing(Index(directory, progress)) as index:
        rows = index.rows(condition, values, number)
        return [_saved(row, index) for row in rows], index.unreadable


def search(directory: Path, text: str, progress: Progress | None = None) -> Iterator[Hit]:
    """Every turn in which a text was said, whatever its case and accents; the last used first.

    Raises:
        StoreError: The directory cannot be read.
    """
    wanted = _to_find(text)
    with closing(Index(directory, progress)) as index:
        for row, turns in index.turns(wanted) if wanted else ():
            session = _saved(row, index)
            for number, item_id, role, start_ms, said in turns:
                place = _place(said, wanted)
                yield Hit(session, number, item_id, role, start_ms, said, place)


def find_session(directory: Path, wanted: str) -> SavedSession:
    """The session meant by ``last``, an id, its file, a name, or the beginning of an id.

    Raises:
        UnknownSessionError: There is none, or there are several.
        UnreadableSessionError: There is one, and nothing in it can be read.
        StoreError: The directory cannot be read.
    """
    called = folded(printable(wanted))
    path = Path(wanted)
    file = path.name if _is_in(directory, path) else wanted
    stem = folded(printable(file.removesuffix(ENDING)))
    with closing(Index(directory)) as index:
        if not index.rows("true", limit=1):
            raise _nothing_saved(directory)
        if called == LAST:
            rows = index.rows("turns > 0", limit=1)
            if not rows:
                raise _nothing_saved(directory)
            return _saved(rows[0], index)
        rows = (
            index.rows("folded_id = ?", [called])
            or index.rows("folded_stem = ?", [stem])
            or index.rows("? != '' and folded_name = ?", [called, called])
            or index.rows("? != '' and substr(folded_id, 1, ?) = ?", [called, len(called), called])
        )
        matches = [_saved(row, index) for row in rows]
        readable = [match for match, row in zip(matches, rows, strict=True) if row.is_readable]
    if not matches:
        raise UnknownSessionError(
            f"no saved session is called {printable(wanted)[:FIRST_WORDS]!r}",
            remedy="See what there is with: voicechat history list",
        )
    likely = [session for session in readable if session.turns] or readable
    if len(likely) == 1:
        return likely[0]
    if not likely:
        raise _unreadable(matches[0].path)
    is_one_id = len({folded(each.id) for each in likely}) < len(likely)
    examples = ", ".join(
        f"{printable(each.path.stem) if is_one_id else each.id} ({_label(each)})"
        for each in likely[:MAX_MATCHES]
    )
    raise UnknownSessionError(
        f"{printable(wanted)[:FIRST_WORDS]!r} could be any of {len(likely)} saved sessions: "
        + (examples + ", ..." if len(likely) > MAX_MATCHES else examples),
        remedy="Give the name of its file, as above."
        if is_one_id
        else "Give the whole id; all of them are shown by: voicechat history list -n 0",
    )


def load(path: Path) -> Transcript:
    """What was said in a session.

    Raises:
        UnreadableSessionError: Nothing in the file can be read.
        StoreError: The file itself cannot be read.
    """
    return _add_up(path).transcript


def load_and_count(session: SavedSession) -> tuple[Transcript, int]:
    """The same, and how many lines hold no record that this version reads.

    The file is read again only if another process has written to it since it was found.
    """
    found = session.added_up
    with suppress(OSError):
        if found is not None and session.path.stat().st_size == found.size:
            return found.transcript, found.passed_over
    found = _add_up(session.path)
    return found.transcript, found.passed_over


def _add_up(path: Path) -> Sum:
    added_up = add_up(path)
    if not added_up.records:
        raise _unreadable(path)
    return added_up


def _saved(row: Row, index: Index) -> SavedSession:
    path = index.path(row.file)
    return SavedSession(
        id=row.id,
        path=path,
        name=row.name,
        started=row.started,
        last_used=row.last_used,
        duration_ms=row.duration_ms,
        turns=row.turns,
        first_words=row.first_words,
        model=row.model,
        local=row.local,
        parent=row.parent,
        added_up=index.sums.get(path),
    )


def _is_in(directory: Path, path: Path) -> bool:
    """Does it name something in this directory, in whatever way it leads there?"""
    with suppress(OSError, ValueError):  # it leads nowhere
        return path.parent.samefile(directory)
    return False


def _to_find(text: str) -> str:
    return folded(" ".join(printable(text).split()))


def _place(said: str, wanted: str) -> tuple[int, int]:
    """Where in a text a folded one stands; one letter can become several, or none."""
    if said.isascii():
        start = said.lower().index(wanted)
        return start, start + len(wanted)
    origins = [place for place, letter in enumerate(said) for _ in folded(letter)]
    start = folded(said).index(wanted)
    return origins[start], origins[start + len(wanted) - 1] + 1


def _label(session: SavedSession) -> str:
    return session.name or session.first_words[:30] or "nothing said"


def _nothing_saved(directory: Path) -> UnknownSessionError:
    return UnknownSessionError(
        f"no conversation is saved in {directory} yet",
        remedy="Begin one with: voicechat talk",
    )


def _unreadable(path: Path) -> UnreadableSessionError:
    return UnreadableSessionError(
        f"nothing in {path} can be read",
        remedy="Put a good copy in its place, or move it away.",
    )
