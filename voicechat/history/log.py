"""The room's door to what was said: one append-only JSON Lines file per session.

A line is one record: ``type``, ``at`` (UTC, stamped here: nothing else in voicechat reads the wall
clock) and the record's fields (`voicechat.transcript`).  A field that is empty (None, "", 0 or
false) and need not be there is left out.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from time import sleep

from voicechat.errors import SessionInUseError, StoreError
from voicechat.history.reading import add_up, contents, parse, read, unusable
from voicechat.transcript import Opened, Record, Transcript, to_json

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
"""Of session ids: easy to type and to say, no two letters look alike."""
ID_LENGTH = 6
ENDING = ".jsonl"
OLD = ".old"
"""Behind the name of a file that was repaired."""
BINARY = getattr(os, "O_BINARY", 0)
"""Without which Windows makes two bytes of each end of a line."""


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
        self._inherited = 0
        flags = os.O_WRONLY | os.O_APPEND | (os.O_CREAT | os.O_EXCL if is_new else 0)
        try:
            self._file = _open_locked(path, flags)
        except FileExistsError:
            raise  # only of a new one: `create` chooses another id
        except OSError as error:
            raise unusable(path, error) from error
        state = os.fstat(self._file.fileno())
        self._begins = state.st_size
        self._links = min(1, state.st_nlink)  # some file systems have none
        try:
            if _ends_within_a_line(path):
                self._write(b"\n")
        except OSError as error:
            self.close()
            raise unusable(path, error) from error
        except StoreError:
            self.close()
            raise

    @classmethod
    def create(cls, directory: Path, contents: bytes = b"") -> "SessionLog":
        """Begin a session: a new file, named after the moment and an id that is unique here.

        Args:
            directory: Where; it is made if need be, for its owner alone.
            contents: Complete lines with which the file begins.

        Raises:
            StoreError: The directory or the file cannot be made.
        """
        make_directory(directory)
        while True:
            session = id_of(os.urandom(ID_LENGTH))
            path = directory / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{session}{ENDING}"
            if list(directory.glob(f"*-{session}{ENDING}")):
                continue
            try:
                log = cls(path, is_new=True)
            except FileExistsError:
                continue
            if len(list(directory.glob(f"*-{session}{ENDING}"))) <= 1:  # 0: one may not look
                break
            log.discard()  # another process had the same idea; both step back
        _sync_directory(directory)
        if contents:
            try:
                log._write(contents)
            except StoreError:
                log.close()
                path.unlink()
                raise
            log._inherited = log._spoken()
        return log

    @property
    def session(self) -> str:
        """The session's id."""
        return session_id(self.path)

    def name(self) -> str | None:
        """What the session is called, if someone has named it since the log was opened.

        Raises:
            StoreError: The file cannot be read.
        """
        lines = contents(self.path)[self._begins :].split(b"\n")
        return Transcript.of(found[1] for each in lines if (found := parse(each))).name

    def append(self, record: Record) -> None:
        """Write one record and wait until the disk has it.

        Raises:
            StoreError: The record is not on disk.  Those before it are, and more may be appended;
                but if someone has removed the file, or put another in its place, nothing is.
        """
        self._write(line(record, datetime.now(UTC)))
        if self._is_gone:
            raise StoreError(
                f"{self.path} was removed or replaced by another program",
                remedy="Put it back if you can, and begin a new session with: voicechat talk",
            )

    def close(self) -> None:
        """Let others have the file."""
        self._file.close()

    def discard(self) -> None:
        """Close the log, and remove the file if nothing was said beyond what it began with."""
        try:
            if not self._is_gone and self._spoken() <= self._inherited:
                remove(self.path, self._file)
        finally:
            self.close()

    @property
    def _is_gone(self) -> bool:
        """Does the file that we write to have no name any more?"""
        return os.fstat(self._file.fileno()).st_nlink < self._links

    def _spoken(self) -> int:
        return len(add_up(self.path).transcript.spoken)

    def _write(self, data: bytes) -> None:
        if self._is_torn:
            data = b"\n" + data
        self._is_torn = True
        try:
            written = self._file.write(data)
            if written < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            raise unusable(self.path, error) from error
        self._is_torn = False


def line(record: Record, at: datetime) -> bytes:
    """A record as it is written, with the end of its line."""
    values = {"type": record.type, "at": stamp(at)}
    for field in fields(record):
        value = getattr(record, field.name)
        if value or value != field.default:
            values[field.name] = value
    return to_json(values).encode() + b"\n"


def stamp(at: datetime) -> str:
    """A time as it is written: UTC, to the millisecond."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def id_of(data: bytes) -> str:
    """A session id, from the first bytes of what is random or a hash."""
    return "".join(ALPHABET[byte % len(ALPHABET)] for byte in data[:ID_LENGTH])


def session_id(path: Path) -> str:
    """The id in the name of a session's file; of a file that was renamed, its new name."""
    return id_in(path.stem)


def id_in(log: str) -> str:
    """The same for a name without its ending."""
    started, _, session = log.rpartition("-")
    return session if len(started) == len("20260131-235959") else log


def repaired_id(log: str) -> str:
    """The id that a repair gives the session, the same for all of its files: one with a hyphen,
    which only a user can have given, cannot stand behind a time."""
    return id_in(log).replace("-", "_")


def files(directory: Path) -> list[os.DirEntry[str]]:
    """The session files, whatever is in them; a directory that was never made has none.

    Passed over are links that lead nowhere, in circles or to where one may not look.

    Raises:
        StoreError: The directory cannot be read.
    """
    found = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                try:
                    if entry.name.endswith(ENDING) and entry.is_file():
                        found.append(entry)
                except OSError:
                    if not entry.is_symlink():
                        raise
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unusable(directory, error, doing="read") from error
    return found


def others_of(path: Path) -> list[Path]:
    """The other files of the same session: what it became when it was repaired or imported again.

    Raises:
        StoreError: The directory cannot be read.
    """
    session = repaired_id(path.stem)
    logs = (entry.name.removesuffix(ENDING) for entry in files(path.parent))
    found = (each for each in logs if each != path.stem and repaired_id(each) == session)
    return sorted(path.with_name(f"{log}{ENDING}") for log in found)


def states(directory: Path) -> dict[str, os.stat_result]:
    """The same by name, with how large they are and when they changed.

    Raises:
        StoreError: The directory cannot be read.
    """
    found = {}
    for entry in files(directory):
        try:
            found[entry.name] = entry.stat()
        except FileNotFoundError:  # it was deleted just now
            continue
        except OSError as error:
            raise unusable(directory, error, doing="read") from error
    return found


def make_directory(directory: Path) -> None:
    """Make the directory of the sessions, for its owner alone, if it is not there.

    Raises:
        StoreError: It cannot be made, or something else is there.
    """
    try:
        try:
            directory.mkdir(mode=0o700, parents=True)
            directory.chmod(0o700)  # whatever the umask
        except FileExistsError:
            if not directory.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "it is not a directory") from None
    except OSError as error:
        raise unusable(directory, error) from error


def put_down(path: Path, data: bytes) -> bool:
    """Make a session's file with all that is in it, or not at all; False if there is one already.

    Raises:
        StoreError: It cannot be made.
    """
    make_directory(path.parent)
    new = path.with_name(f".{os.urandom(4).hex()}.part")
    try:
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _give_name(new, path)
        finally:
            new.unlink(missing_ok=True)
        _sync_directory(path.parent)
    except FileExistsError:
        return False
    except OSError as error:
        raise unusable(path, error) from error
    return True


def _give_name(new: Path, path: Path) -> None:
    """Let a file be called something that no other one is called; else `FileExistsError`."""
    if sys.platform == "win32":
        new.rename(path)  # which replaces nothing there
        return
    try:
        path.hardlink_to(new)
    except FileExistsError:
        raise
    except OSError:  # there are no links on FAT, as on a memory stick
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        new.replace(path)


def remove(path: Path, file: FileIO) -> None:
    """Remove a session's file, which is open.

    Raises:
        StoreError: It cannot be removed.
    """
    if sys.platform == "win32":  # which removes no open file
        file.close()
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise unusable(path, error) from error


def add_aside(path: Path, record: Record) -> None:
    """Add one record to a session, even while another process talks in it.

    One write to the end of a file is never mixed up with another one, but on Windows.

    Raises:
        SessionInUseError: On Windows: another process talks in it.
        StoreError: The record is not on disk.
    """
    data = line(record, datetime.now(UTC))
    try:
        if sys.platform == "win32":
            log = SessionLog(path)
            log.append(record)
            log.close()
            return
        with FileIO(os.open(path, os.O_WRONLY | os.O_APPEND), "wb") as file:
            if _ends_within_a_line(path):
                data = b"\n" + data
            if file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
    except OSError as error:
        raise unusable(path, error) from error


@contextmanager
def held(path: Path) -> Iterator[FileIO]:
    """A session's file, unbuffered, to be read and changed in place; no other process talks in it.

    Raises:
        SessionInUseError: Another process does.
        StoreError: It cannot be written.
    """
    try:
        file = _open_locked(path, os.O_RDWR)
    except OSError as error:
        raise unusable(path, error) from error
    with file:
        yield file


def _open_locked(path: Path, flags: int) -> FileIO:
    while True:
        descriptor = os.open(path, flags | BINARY, 0o600)
        file = FileIO(descriptor, "r+b" if flags & os.O_RDWR else "wb")
        try:
            _lock(descriptor)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return file
        except BlockingIOError as error:
            file.close()
            holder = _last_pid(path)
            raise SessionInUseError(
                f"session {session_id(path)} is in use by "
                + (f"process {holder}" if holder else "another process"),
                remedy="Hang up there first, or begin a new session with: voicechat talk",
            ) from error
        except OSError:
            file.close()
            raise
        file.close()  # it was removed or replaced in the meantime


def _ends_within_a_line(path: Path) -> bool:
    for pause in (0.0, 0.005):  # what another process just writes is to be seen whole before long
        sleep(pause)
        with path.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                return False
            file.seek(-1, os.SEEK_END)
            if file.read()[-1:] == b"\n":  # it may have grown meanwhile
                return False
    return True


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
        with suppress(OSError):  # one may not look, or the file system cannot and need not
            descriptor = os.open(directory, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
