"""``voicechat export``: saved sessions for other programs."""

import errno
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Annotated, Literal, get_args

import typer

from voicechat.cli.complete import sessions as complete
from voicechat.cli.progress import progress
from voicechat.cli.values import OTHER_SOUND
from voicechat.errors import AudioFileError, OutputError, UsageError
from voicechat.history.export import FORMATS, Exported, Format, Include
from voicechat.history.reading import contents
from voicechat.history.recordings import recordings_of
from voicechat.history.sessions import LAST, SavedSession, find_session, list_sessions, load
from voicechat.settings import sessions_directory
from voicechat.transcript import printable

SoundFormat = Literal["wav", "flac"]
AnyFormat = Literal[Format, SoundFormat]
Write = Callable[[IO[bytes]], object]
"""Writes an export into a file that is open without a buffer."""

BETWEEN: dict[AnyFormat, bytes] = {"md": b"\n---\n\n", "txt": b"\n", "jsonl": b""}
"""What parts one session from the next in formats that hold several."""
LONGEST_NAME = 50
"""Letters of an id in the name of a file."""


def export(
    sessions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SESSION]...",
            help='Ids or the beginnings of some, names, or "last".',
            show_default=False,
            autocompletion=complete,
        ),
    ] = None,
    format: Annotated[
        AnyFormat | None,
        typer.Option(
            "--format",
            "-f",
            help="md, txt or html: to be read; srt, vtt or tsv: with times, to be shown with a "
            "recording; json: all that is known; jsonl: the records themselves; openai: a list of "
            "messages; wav or flac: what was recorded, you on the left, the assistant on the "
            "right. [default: what the ending of -o FILE says, or else md]",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE|DIR|-",
            help="Write to this file, or to a file for each session in this directory, instead of "
            "stdout. A directory that is not there ends in /.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files.")] = False,
    include: Annotated[
        str,
        typer.Option(
            metavar="WORDS",
            help="Show more in md, txt and html: times, usage, or times,usage.",
            show_default=False,
        ),
    ] = "",
    last: Annotated[bool, typer.Option("--last", help="The session that was last used.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Every session.")] = False,
) -> None:
    """Write saved conversations in another format."""
    included = _included(include)
    if output == "":
        raise UsageError("-o is given without a name", remedy="Name a file or a directory.")
    format = format or _by_ending(output)
    chosen = _chosen(sessions or [], last=last, everything=everything)
    if everything and format in get_args(SoundFormat):
        chosen = _recorded_ones(chosen)
    writers = [_writer(saved, format, included) for saved in chosen]
    if output is not None and _is_directory(output):
        _save_each(chosen, writers, format, Path(output), force=force)
        return
    write = _one_after_the_other(writers, format)
    if output is not None and output != "-":
        _save(write, Path(output), force=force)
    elif format in get_args(SoundFormat):
        _pipe(write)
    else:
        write(sys.stdout.buffer)


def _by_ending(output: str | None) -> AnyFormat:
    """What the name of a file says that is to be in it; otherwise what is best to read.

    Raises:
        UsageError: It says that there is sound in it, of a kind that is not written.
    """
    if output is None or _is_directory(output):
        return "md"
    name = Path(output).name.lower()
    known: tuple[AnyFormat, ...] = ("openai", *get_args(Format), *get_args(SoundFormat))
    for each in known:
        if name.endswith((f".{each}", f".{_ending(each)}")):
            return each
    if name.endswith(OTHER_SOUND):
        raise UsageError(
            f"{output!r} is the name of sound, which is written as wav or flac",
            remedy="Name a file such as `talk.flac`, and convert it afterwards.",
        )
    return "md"


def _ending(format: AnyFormat) -> str:
    """Of the names of files in a format."""
    return "openai.json" if format == "openai" else format


def _included(words: str) -> frozenset[Include]:
    wanted = {word.strip() for word in words.split(",")} - {""}
    known: tuple[Include, ...] = get_args(Include)
    if unknown := wanted.difference(known):
        raise UsageError(
            f"--include knows nothing called {min(unknown)!r}",
            remedy=f"Give one or more of these, with a comma between: {', '.join(known)}.",
        )
    return frozenset(word for word in known if word in wanted)


def _chosen(names: list[str], *, last: bool, everything: bool) -> list[SavedSession]:
    """Each of the sessions that are meant once; of all, the first to begin is first.

    Raises:
        UsageError: It is not said which, or said in two ways.
        UnknownSessionError: There is none.
    """
    if (bool(names), last, everything).count(True) != 1:
        raise UsageError(
            "sessions, --last and --all exclude each other"
            if names or last
            else "it is not said which session to export",
            remedy="Name some of those that `voicechat history list` shows, or give --last or "
            "--all.",
        )
    directory = sessions_directory()
    if not everything:
        found = [find_session(directory, name) for name in names or [LAST]]
        return list({saved.path: saved for saved in found}.values())
    with progress("Reading conversations") as tell:
        saved_ones, unreadable = list_sessions(directory, progress=tell)
    if not saved_ones:
        return [find_session(directory, LAST)]  # which says what there is instead
    closed = [saved for saved in saved_ones if not os.access(saved.path, os.R_OK)]
    saved_ones = [saved for saved in saved_ones if saved not in closed]
    if number := len({*unreadable, *(saved.path for saved in closed)}):
        files = "1 file" if number == 1 else f"{number} files"
        typer.echo(f"{files} in {printable(str(directory))} cannot be read.", err=True)
    return sorted(saved_ones, key=lambda saved: saved.started)


def _recorded_ones(chosen: list[SavedSession]) -> list[SavedSession]:
    """Those sessions of which there is sound; how many others there are is said.

    Raises:
        AudioFileError: None was recorded.
    """
    recorded = [saved for saved in chosen if recordings_of(saved.path)]
    if not recorded:
        raise AudioFileError(
            "nothing is recorded beside any saved session: only --record auto does that",
            remedy="Record one with: voicechat talk --record auto",
        )
    if silent := len(chosen) - len(recorded):
        sessions = "1 session" if silent == 1 else f"{silent} sessions"
        typer.echo(f"Nothing is recorded beside {sessions}.", err=True)
    return recorded


def _writer(saved: SavedSession, format: AnyFormat, included: frozenset[Include]) -> Write:
    match format:
        case "wav" | "flac":
            return _recorded(saved, format)
        case "md" | "txt" | "json" | "jsonl" | "srt" | "vtt" | "tsv" | "html" | "openai":
            return _worded(saved, format, included)


def _worded(saved: SavedSession, format: Format, included: frozenset[Include]) -> Write:
    """The words of a session; they are read only when they are to be written."""

    def write(file: IO[bytes]) -> None:
        transcript = load(saved.path)
        lines = contents(saved.path) if format == "jsonl" else b""
        exported = Exported(saved.id, saved.started, transcript, lines, included)
        _write_all(FORMATS[format](exported).encode(), file)

    return write


def _one_after_the_other(writers: list[Write], format: AnyFormat) -> Write:
    """Several exports as one.

    Raises:
        UsageError: The format does not hold several sessions.
    """
    if len(writers) == 1:
        return writers[0]
    if format not in BETWEEN:
        raise UsageError(
            f"{len(writers)} sessions do not go into one {format} file",
            remedy="Name a directory with -o.",
        )

    def write(file: IO[bytes]) -> None:
        for number, each in enumerate(writers):
            _write_all(BETWEEN[format] if number else b"", file)
            each(file)

    return write


def _write_all(data: bytes, file: IO[bytes]) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _recorded(saved: SavedSession, format: SoundFormat) -> Write:
    """The recordings of a session, as one file.

    Raises:
        AudioFileError: There is none.
    """
    from voicechat.audio.libsndfile import FlacWriter  # with numpy, which words do not need
    from voicechat.audio.parts import joined
    from voicechat.audio.wav import WavWriter

    recordings = recordings_of(saved.path)
    if not recordings:
        raise AudioFileError(
            f"nothing is recorded beside session {saved.id}: only --record auto does that",
            remedy="Look for what --record FILE wrote in that file, or record the rest with: "
            f"voicechat resume {shlex.quote(saved.id)} --record auto",
        )

    def write(file: IO[bytes]) -> None:
        writer = WavWriter(file, 2) if format == "wav" else FlacWriter(file, 2)
        for block in joined(recordings):
            writer.write(block)
        writer.finish()

    return write


def _pipe(write: Write) -> None:
    """Write sound to standard output; by way of a file, since its header is written last.

    Raises:
        OutputError: It is a terminal.
    """
    if sys.stdout.isatty():
        raise OutputError(
            "a terminal cannot show sound",
            remedy="Name a file with -o, or let another program read it: ... | aplay",
        )
    with TemporaryFile(buffering=0) as file:
        write(file)
        file.seek(0)
        shutil.copyfileobj(file, sys.stdout.buffer)


def _is_directory(output: str) -> bool:
    """Is this a directory, or meant to become one?  What cannot be looked at is none."""
    return output.endswith(("/", os.sep)) or os.path.isdir(output)  # noqa: PTH112


def _save_each(
    chosen: list[SavedSession],
    writers: list[Write],
    format: AnyFormat,
    directory: Path,
    *,
    force: bool,
) -> None:
    """Write a file for each session, and say where they are.

    Raises:
        OutputError: One exists and `force` is not given, or something cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the directory {directory}: {(error.strerror or str(error)).lower()}",
            remedy="Give a directory that you may write to with -o.",
        ) from error
    names = _file_names(saved.id for saved in chosen)
    targets = [directory / f"{name}.{_ending(format)}" for name in names]
    if not force and (there := [path for path in targets if os.path.lexists(path)]):
        others = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise OutputError(
            f"{there[0]}{others} exist{'' if others else 's'} already",
            remedy="Give another directory with -o, or add --force.",
        )
    for write, path in zip(writers, targets, strict=True):
        _save(write, path, force=force)
    what = str(targets[0]) if len(targets) == 1 else f"{len(targets)} files to {directory}"
    typer.echo(f"Wrote {printable(what)}.", err=True)


_NOT_IN_NAMES = re.compile(r'[/\\:*?"<>|]')
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # on Windows


def _file_names(ids: Iterable[str]) -> list[str]:
    """Ids as names that files may have on every machine, no two alike, and that lead nowhere."""
    names: dict[str, str] = {}
    for id in ids:
        shown = "".join(letter if letter.isprintable() else "_" for letter in id)
        name = _NOT_IN_NAMES.sub("_", shown)[:LONGEST_NAME].strip("-. ") or "session"
        if _DEVICE.match(name):
            name = f"_{name}"
        numbered = chain([name], (f"{name}-{number}" for number in count(2)))
        free = next(each for each in numbered if each.casefold() not in names)
        names[free.casefold()] = free
    return list(names.values())


def _save(write: Write, path: Path, *, force: bool) -> None:
    """Write a file whole or not at all.

    Raises:
        OutputError: It exists and `force` is not given, or it cannot be written.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not path.is_file():
            with path.open("wb", buffering=0) as file:
                write(file)  # a device or a pipe: nothing is there to be overwritten
        elif force:
            _replace(path.resolve(), write)  # a link goes on being one
        else:
            _make(path, write)
    except FileExistsError as error:
        raise OutputError(
            f"{path} exists already", remedy="Give another name with -o, or add --force."
        ) from error
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {(error.strerror or str(error)).lower()}",
            remedy="Give a file in a directory that exists and that you may write to with -o.",
        ) from error


def _make(path: Path, write: Write) -> None:
    file = path.open("xb", buffering=0)
    try:
        with file:
            write(file)
    except BaseException:
        path.unlink()
        raise


def _replace(path: Path, write: Write) -> None:
    """The old file stays until the new one is complete; who may read it stays the same, too."""
    new = path.with_name(f".{os.urandom(4).hex()}.part")
    _make(new, write)
    try:
        if path.exists():
            new.chmod(path.stat().st_mode & 0o777)
        new.replace(path)
    except OSError:
        new.unlink()
        raise
