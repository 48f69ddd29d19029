"""A door: the saved sessions, looked up.

What is known of a session is worked out from its file every time; there is no index to go stale.
"""

import os
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from voicechat.errors import StoreError, UnknownSessionError, UnreadableSessionError
from voicechat.history.log import ENDING, session_id
from voicechat.history.reading import Sum, add_up, parse
from voicechat.transcript import Opened, Transcript, printable

LAST = "last"
"""Stands for the session that was last used."""
FIRST_WORDS = 80  # letters of them, as many as anyone wants to see in a list
MAX_MATCHES = 5
TAIL = 4096  # bytes in which the last record usually is


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
    added_up: Sum = field(compare=False, repr=False)
    """What all this was worked out from; its texts are as they were said."""


def list_sessions(directory: Path, number: int = 0) -> tuple[list[SavedSession], list[Path]]:
    """The sessions in which something was said, the last used first: `number` of them, 0 for all.

    Beside them, the files of which nothing can be read.  With a `number`, what is older is only
    glanced at, so that thousands of sessions do not hold up the list of the last few.

    Raises:
        StoreError: The directory cannot be read.
    """
    sessions: list[SavedSession] = []
    unreadable: list[Path] = []
    dated: list[tuple[datetime, Path]] = []
    for path in _files(directory):
        if last_used := _last_written(path):
            dated.append((last_used, path))
        elif session := _glance(path):
            sessions += [session] if session.turns else []
        elif _has_content(path):
            unreadable.append(path)
    found = 0
    for _, path in sorted(dated, reverse=True):
        if (session := _glance(path)) and session.turns:
            sessions.append(session)
            found += 1
            if found == number:
                break
    sessions.sort(key=lambda session: session.last_used, reverse=True)
    return sessions[: number or None], unreadable


def find_session(directory: Path, wanted: str) -> SavedSession:
    """The session that a user means by ``last``, an id, a name, or the beginning of an id.

    Raises:
        UnknownSessionError: There is none, or there are several.
        UnreadableSessionError: There is one, and nothing in it can be read.
        StoreError: The directory cannot be read.
    """
    files = _files(directory)
    if not files:
        raise _nothing_saved(directory)
    called = _folded(wanted)
    if called == LAST:
        sessions, _ = list_sessions(directory, 1)
        if not sessions:
            raise _nothing_saved(directory)
        return sessions[0]
    matches = (
        [path for path in files if _folded(session_id(path)) == called]
        or [path for path in files if called and called == _folded(_name(path))]
        or [path for path in files if called and _folded(session_id(path)).startswith(called)]
    )
    if not matches:
        raise UnknownSessionError(
            f"no saved session is called {printable(wanted)[:FIRST_WORDS]!r}",
            remedy="See what there is with: voicechat history list",
        )
    readable = [session for path in matches if (session := _glance(path))]
    likely = [session for session in readable if session.turns] or readable
    if len(likely) == 1 or len(matches) == 1:
        return likely[0] if likely else _summary(matches[0])
    likely.sort(key=lambda session: session.last_used, reverse=True)
    examples = ", ".join(f"{each.id} ({_label(each)})" for each in likely[:MAX_MATCHES])
    raise UnknownSessionError(
        f"{printable(wanted)[:FIRST_WORDS]!r} could be any of {len(likely)} saved sessions: "
        + (examples + ", ..." if len(likely) > MAX_MATCHES else examples),
        remedy="Give the whole id; all of them are shown by: voicechat history list -n 0",
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
        if session.path.stat().st_size == found.size:
            return found.transcript, found.passed_over
    found = _add_up(session.path)
    return found.transcript, found.passed_over


def _add_up(path: Path) -> Sum:
    added_up = add_up(path)
    if not added_up.records:
        raise UnreadableSessionError(
            f"nothing in {path} can be read",
            remedy="Put a good copy in its place, or move it away.",
        )
    return added_up


def _summary(path: Path) -> SavedSession:
    found = _add_up(path)
    transcript = found.transcript
    at = found.started or datetime.fromtimestamp(path.stat().st_mtime, tz=UTC)
    spoken = transcript.spoken
    opened = transcript.opened
    return SavedSession(
        id=printable(session_id(path)),
        path=path,
        name=printable(transcript.name) if transcript.name else None,
        started=at,
        last_used=found.last_used or at,
        duration_ms=transcript.end_ms,
        turns=len(spoken),
        first_words=next((printable(turn.text) for turn in spoken if turn.text), "")[:FIRST_WORDS],
        model=printable(opened.model) if opened and opened.model else None,
        local=opened is not None and opened.local,
        added_up=found,
    )


def _glance(path: Path) -> SavedSession | None:
    """The summary of a session, or None if its file is unreadable or just gone."""
    try:
        return _summary(path)
    except (StoreError, UnreadableSessionError, OSError):
        return None


def _files(directory: Path) -> list[Path]:
    """The session files; a directory that was never made has none."""
    try:
        with os.scandir(directory) as entries:
            return [
                Path(entry.path)
                for entry in entries
                if entry.name.endswith(ENDING) and entry.is_file()
            ]
    except FileNotFoundError:
        return []
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StoreError(
            f"cannot read the sessions in {directory}: {reason}",
            remedy="Make it readable for you, or set VOICECHAT_HOME to another directory.",
        ) from error


def _last_written(path: Path) -> datetime | None:
    """When the last record was written, from the end of the file alone, where that tells it."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            lines = file.read().split(b"\n")
    except OSError:
        return None
    return next((found[0] for line in reversed(lines) if (found := parse(line)) and found[0]), None)


def _name(path: Path) -> str:
    """A session's name; most have none, and no line without one is taken apart to see it."""
    try:
        data = path.read_bytes()
    except OSError:
        return ""
    name = ""
    for line in data.split(b"\n") if b'"name"' in data else ():
        if b'"name"' in line or b"\\" in line:  # a key may be escaped
            parsed = parse(line)
            if parsed and isinstance(parsed[1], Opened):
                name = parsed[1].name or name
    return printable(name)


def _has_content(path: Path) -> bool:
    """False for a file that is gone, or that a session has only just made."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", printable(text)).casefold()


def _label(session: SavedSession) -> str:
    return session.name or session.first_words[:30] or "nothing said"


def _nothing_saved(directory: Path) -> UnknownSessionError:
    return UnknownSessionError(
        f"no conversation is saved in {directory} yet",
        remedy="Begin one with: voicechat talk",
    )
