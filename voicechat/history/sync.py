"""A door: sessions go to and come from a store that machines share.

The files here stay the truth.  A log only ever grows, so of two copies of one, usually one is the
beginning of the other, and what is missing travels.  If neither is, two machines went on with the
session: the store's copy keeps the name, and what was said here, if anything was, becomes a fork.
What was deleted here is deleted there if no more is there than was here.  Whatever breaks
off, and wherever, the next time goes on from what is there: nothing is taken for sent or fetched
but by its hash.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import FileIO
from pathlib import Path

from voicechat.errors import SessionInUseError, StoreError
from voicechat.history import synced
from voicechat.history.deleting import delete, deleted, head_of
from voicechat.history.forks import put_down_fork, share_recordings
from voicechat.history.lines import (
    BATCH,
    PIECE,
    batches,
    begins_with,
    beyond,
    common,
    ended,
    is_portable,
    is_same,
    last_name,
    pieces,
    says_nothing,
)
from voicechat.history.log import (
    ENDING,
    add_aside,
    held,
    id_in,
    line,
    make_directory,
    put_down,
    remove,
    repaired_id,
    session_id,
    states,
)
from voicechat.history.reading import FULL, complete, contents, parse, unusable
from voicechat.history.recordings import rename_recordings
from voicechat.history.stores import Addition, Head, Store
from voicechat.history.synced import Known, is_synced
from voicechat.transcript import Transcript

ROUNDS = 6
"""How often it is looked again after others were quicker, before that is said."""
Progress = Callable[[int, int], object]
"""Is told how many logs are done, and how many there are to do."""


@dataclass(slots=True)
class Tally:
    """What came of it; sessions by their ids."""

    sent: set[str] = field(default_factory=set)
    fetched: set[str] = field(default_factory=set)
    deleted_here: set[str] = field(default_factory=set)
    deleted_there: set[str] = field(default_factory=set)
    forked: dict[str, str] = field(default_factory=dict)
    """What was said here in a session that others went on with, too: the session, and its fork."""
    kept: dict[str, str] = field(default_factory=dict)
    """What was said here in a session that others deleted: the session, and its fork."""
    back: set[str] = field(default_factory=set)
    """Deleted or repaired here, but others have more of them."""
    in_use: set[str] = field(default_factory=set)
    """Something is to be changed here, where another process talks in them."""
    damaged: set[str] = field(default_factory=set)
    """What the store holds of them is not what was put there."""
    misnamed: set[str] = field(default_factory=set)
    """Files whose names do not fit every machine."""
    unreadable: set[str] = field(default_factory=set)
    """Their files here cannot be read."""
    unsettled: set[str] = field(default_factory=set)
    """Others were quicker, time and again."""


def sync(directory: Path, store: Store, progress: Progress | None = None) -> Tally:
    """Make a directory of sessions and a store hold the same.

    Args:
        directory: Where the session files are.
        store: Where machines meet.
        progress: Is told how far it has got.

    Raises:
        SharedStoreError: The store cannot be used, or not any more; what was done until then is.
        StoreError: The files here cannot be used.
    """
    make_directory(directory)
    tally = Tally()
    known = synced.load(directory, store.id)
    before = dict(known)
    try:
        for last in range(1, ROUNDS + 1):
            again = _Round(directory, store, known, tally, progress).run()
            if not again:
                break
            if last == ROUNDS:
                tally.unsettled |= {id_in(log) for log in again}
    finally:
        synced.save(directory, store.id, known, before)
    return tally


class _Round:
    """Looks once at what both sides hold, and moves what is missing."""

    def __init__(
        self,
        directory: Path,
        store: Store,
        known: dict[str, Known],
        tally: Tally,
        progress: Progress | None,
    ) -> None:
        self._directory = directory
        self._store = store
        self._known = known
        self._tally = tally
        self._progress = progress or (lambda done, total: None)
        self._again: set[str] = set()
        self._heads: dict[str, Head] = {}
        self._logs: dict[str, list[str]] = {}
        """By session: the logs that are here, or were when they were looked for."""

    def run(self) -> set[str]:
        """Move what is missing; return the logs that must be looked at again."""
        heads = {log: head for log, head in self._store.heads().items() if self._is_name(log)}
        self._heads = heads
        files = self._files()
        for log in files:
            self._logs.setdefault(repaired_id(log), []).append(log)
        self._bury(heads, files)
        missing = {log for log, head in heads.items() if not head.is_deleted and log not in files}
        changed = [log for log in files if not self._is_settled(log, files[log], heads.get(log))]
        total, done = len(missing) + len(changed), 0
        for batch in batches({log: heads[log].length for log in sorted(missing)}):
            for log, data in self._store.read(dict.fromkeys(batch, 0)):
                self._put_down(log, data[: heads[log].length], heads[log])
            done += len(batch)
            self._progress(done, total)
        to_send: list[Iterator[Addition]] = []
        waiting = 0
        for number, log in enumerate(changed, 1):
            if (more := self._looked_at(log, heads.get(log))) is not None:
                before, data = more
                to_send.append(pieces(log, before, data))
                waiting += len(data) - before
            if len(to_send) >= BATCH or waiting >= PIECE or number == len(changed):
                self._send(to_send)
                to_send, waiting = [], 0
                self._progress(done + number, total)
        return self._again

    # What is there ------------------------------------------------------------------------------

    def _files(self) -> dict[str, os.stat_result]:
        found = states(self._directory).items()
        logs = {name.removesuffix(ENDING): state for name, state in found}
        return {log: state for log, state in logs.items() if self._is_name(log)}

    def _is_name(self, log: str) -> bool:
        """Is it a name that every machine's files may have?  A store's names are data."""
        if is_portable(log):
            return True
        self._tally.misnamed.add(log)
        return False

    def _is_settled(self, log: str, state: os.stat_result, head: Head | None) -> bool:
        """Neither side has changed since they were last the same."""
        known = self._known.get(log)
        return (
            known is not None
            and known.head == head
            and (known.size, known.modified) == (state.st_size, state.st_mtime_ns)
        )

    def _path(self, log: str) -> Path:
        return self._directory / f"{log}{ENDING}"

    def _others(self, log: str) -> list[Path]:
        """The other files of the same session: what it became by a repair, or by an import."""
        paths = [
            self._path(each) for each in sorted(self._logs.get(repaired_id(log), ())) if each != log
        ]
        return [path for path in paths if path.exists()]

    # What to do ---------------------------------------------------------------------------------

    def _bury(self, heads: dict[str, Head], files: dict[str, os.stat_result]) -> None:
        """Tell the store what was deleted here."""
        for log, tombstone in deleted(self._directory).items():
            head = heads.get(log)
            if head is None or head.is_deleted or log in files:
                continue
            known = self._known.get(log)
            is_over: bool | None = is_same(head, tombstone) or (
                known is not None and head == known.head
            )
            if self._others(log):
                try:
                    is_over = self._goes_on(log, head)
                except (SessionInUseError, StoreError):  # it cannot be read, or changed, just now
                    del heads[log]
                    continue
            if is_over is None:  # the next time
                del heads[log]
                self._again.add(log)
            elif not is_over:
                self._tally.back.add(id_in(log))  # it may hold what was never here
            elif self._store.bury(log, head, tombstone):
                heads[log] = tombstone
                self._tally.deleted_there.add(id_in(log))
            else:
                del heads[log]
                self._again.add(log)

    def _goes_on(self, log: str, head: Head) -> bool | None:
        """Is all that the store holds of a log, which was repaired here, in what it became?

        The store may hold what was damaged here.

        Returns:
            None if that is not in the store yet: others would be left with nothing.
        """
        heirs = [each for each in self._others(log) if not self._is_dead(each.stem)]
        sent = [each.stem for each in heirs if each.stem in self._heads]
        there = b"".join(data for _, data in self._store.read({log: 0}))
        if not heirs or not begins_with(there, head):
            return False
        more = beyond(there, *(data for _, data in self._store.read(dict.fromkeys(sent, 0))))
        if says_nothing(more):
            self._hand_on_name(more, heirs[-1])
            return True
        here = [contents(each) for each in heirs if is_portable(each.stem)]
        return None if says_nothing(beyond(there, *here)) else False

    def _is_ours(self, log: str) -> bool:
        """No store has ever held it."""
        return log not in self._known and not is_synced(self._directory, log)

    def _is_dead(self, log: str) -> bool:
        head = self._heads.get(log)
        return head is not None and head.is_deleted

    def _put_down(self, log: str, data: bytes, head: Head) -> None:
        """Make a file of what the store holds."""
        if head_of(data) != head:
            self._tally.damaged.add(id_in(log))
        elif put_down(self._path(log), data):
            self._settle(log, head)
            self._tally.fetched.add(id_in(log))
            self._logs.setdefault(repaired_id(log), []).append(log)
        else:
            self._again.add(log)

    def _reunite(self, path: Path, data: bytes, other: Path) -> None:
        """Let one file be what the store has of a session, and what was repaired or imported here.

        Args:
            path: What the store has.
            data: What is in it.
            other: What is here alone.
        """
        try:
            with held(other) as file:
                mine = file.readall()
                more = beyond(mine, data)
                if says_nothing(more):
                    rename_recordings(other, path)
                    self._hand_on_name(more, path)
                elif mine.startswith(data):
                    with held(path) as whole:
                        whole.seek(0, os.SEEK_END)
                        _write(whole, mine[len(data) :])
                    rename_recordings(other, path)
                else:
                    fork = self._fork(other, mine, None)
                    self._tally.forked[session_id(path)] = session_id(fork)
                remove(other, file)  # without a tombstone: other machines may make the same file
        except SessionInUseError:
            self._tally.in_use.add(session_id(other))
        else:
            self._again.add(path.stem)

    def _hand_on_name(self, lines: bytes, heir: Path) -> None:
        """Give what a session goes on in the name that these lines give it, if that is newer."""
        theirs = last_name(contents(heir))
        if (name := last_name(lines)) and (theirs is None or theirs[0] < name[0]):
            add_aside(heir, name[1])
            self._again.add(heir.stem)

    def _looked_at(self, log: str, head: Head | None) -> tuple[int, bytes] | None:
        """`_compare`, which for one file that cannot be read or changed leaves out no other."""
        path = self._path(log)
        try:
            return self._compare(log, head)
        except (StoreError, OSError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if isinstance(cause, OSError) and cause.errno in FULL:
                raise unusable(path, cause) from error
            if path.exists():  # or it was deleted just now
                self._tally.unreadable.add(id_in(log))
            return None

    def _compare(self, log: str, head: Head | None) -> tuple[int, bytes] | None:
        """See what is missing where, and mend it here.

        Returns:
            What the store lacks: from where on, and all that is here.
        """
        data = complete(contents(self._path(log)))
        here = head_of(data)
        if head is None:
            others = self._others(log)
            for other in others if others and self._is_ours(log) else ():
                there = self._heads.get(other.stem)
                if there is not None and not there.is_deleted:
                    whole = contents(other)
                    if begins_with(whole, there):
                        self._reunite(other, whole[: there.length], self._path(log))
                        return None
            is_begun = b'"said"' in data or b'"speaking"' in data
            return (0, data) if is_begun else None  # an empty session may still be thrown away
        if head.is_deleted and self._is_ours(log):
            self._keep(log)
        elif head.is_deleted:
            self._remove(log, head)
        elif here == head:
            self._settle(log, head)
        elif here.length > head.length and begins_with(data, head):
            return head.length, data
        else:
            self._take_in(log, data, head)
        return None

    def _keep(self, log: str) -> None:
        """Give what came here by another way, as by an import, a name that nobody has deleted."""
        path = self._path(log)
        try:
            with held(path) as file:
                data = file.readall()
                heirs = [each for each in self._others(log) if not self._is_dead(each.stem)]
                same = next((each for each in heirs if contents(each).startswith(data)), None)
                new = same or self._put_down_anew(log, data)
                rename_recordings(path, new)
                remove(path, file)
        except SessionInUseError:
            self._tally.in_use.add(id_in(log))
        else:
            self._again.add(new.stem)

    def _put_down_anew(self, log: str, data: bytes) -> Path:
        at = datetime.now(UTC)
        while True:
            new = f"{at:%Y%m%d-%H%M%S}-{id_in(log)}"
            if new not in self._heads and put_down(self._path(new), data):
                return self._path(new)
            at += timedelta(seconds=1)

    def _remove(self, log: str, tombstone: Head) -> None:
        """Delete what was deleted elsewhere; if it was gone on with here, it is a fork now."""
        path, known = self._path(log), self._known.get(log)
        heirs = self._others(log)  # it was not deleted, but repaired
        forks: list[Path] = []

        def keep(data: bytes) -> None:
            lines = ended(data)
            gone = [tombstone] if known is None else [tombstone, known.head]
            more = [lines[head.length :] for head in gone if begins_with(lines, head)]
            if not any(map(says_nothing, more)):
                forks.append(self._fork(path, data, None))
            elif heirs:
                rename_recordings(path, heirs[-1])
                self._hand_on_name(min(more, key=len), heirs[-1])

        try:
            delete(path, keep)
        except SessionInUseError:
            self._tally.in_use.add(id_in(log))
            return
        self._known.pop(log, None)
        if forks:
            self._tally.kept[id_in(log)] = session_id(forks[0])
            self._again.add(log)
        else:
            self._tally.deleted_here.add(id_in(log))

    def _take_in(self, log: str, data: bytes, head: Head) -> None:
        """The store has what we have not; perhaps we have what it has not, too."""
        known = self._known.get(log)
        is_past = known is not None and begins_with(data, known.head)
        start = min(known.head.length, head.length) if known is not None and is_past else 0
        for _, more in self._store.read({log: start}):
            there = (data[:start] + more)[: head.length]
            if head_of(there) != head:
                self._tally.damaged.add(id_in(log))
                return
            try:
                self._change(log, there)
            except SessionInUseError:
                self._tally.in_use.add(id_in(log))
            else:
                self._settle(log, head)

    def _change(self, log: str, there: bytes) -> None:
        """Let our file hold what the store does, and a fork what it held if that was more."""
        path = self._path(log)
        with held(path) as file:
            try:
                whole = file.readall()
                data = ended(whole)  # what is behind is a torn line, or none
                same = common(data, there)
                if says_nothing(data[same:]):
                    self._tally.fetched.add(id_in(log))
                    if name := last_name(data[same:]):
                        there += line(name[1], datetime.now(UTC))
                        self._again.add(log)
                else:
                    fork = self._fork(path, whole, data[:same])
                    self._tally.forked[id_in(log)] = session_id(fork)
                    self._again.add(log)
                same = min(same, len(complete(whole)))
                file.truncate(same)
                file.seek(same)
                _write(file, there[same:])
            except OSError as error:
                raise unusable(path, error) from error

    def _fork(self, path: Path, data: bytes, shared: bytes | None) -> Path:
        """Make a session of ours of what is here; what was recorded since they part is its own,
        and all that was recorded if nothing stays of the other one."""
        fork = put_down_fork(path, data)
        if shared is None:
            rename_recordings(path, fork)
        else:
            records = (found[1] for line in shared.split(b"\n") if (found := parse(line)))
            share_recordings(path, fork, Transcript.of(records).end_ms)
        return fork

    def _send(self, logs: list[Iterator[Addition]]) -> None:
        while logs:
            additions = [(pieces, each) for pieces in logs if (each := next(pieces, None))]
            refused = self._store.add([each for _, each in additions])
            self._again |= refused
            for _, each in additions:
                if each.log not in refused:
                    self._tally.sent.add(id_in(each.log))
                    self._settle(each.log, each.after)
            logs = [pieces for pieces, each in additions if each.log not in refused]

    def _settle(self, log: str, head: Head) -> None:
        """Both sides hold this; our file may hold more by now, and is then read the next time."""
        with suppress(OSError):
            state = self._path(log).stat()
            is_all = state.st_size == head.length
            size, modified = (state.st_size, state.st_mtime_ns) if is_all else (-1, 0)
            self._known[log] = Known(head, size, modified)


def _write(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())
