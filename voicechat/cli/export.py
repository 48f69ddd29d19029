"""``voicechat export``: a saved session for other programs."""

import errno
import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, BinaryIO, Literal, get_args

import typer

from voicechat.errors import AudioFileError, OutputError
from voicechat.history.export import FORMATS, Exported, Format
from voicechat.history.recordings import recordings_of
from voicechat.history.sessions import SavedSession, find_session, load
from voicechat.settings import sessions_directory

SoundFormat = Literal["wav", "flac"]
AnyFormat = Literal[Format, SoundFormat]
Write = Callable[[BinaryIO], object]
"""Writes an export into a file that is open without a buffer."""


def export(
    session: Annotated[
        str,
        typer.Argument(
            help='An id or the beginning of one, a name, or "last".', show_default=False
        ),
    ],
    format: Annotated[
        AnyFormat,
        typer.Option(
            "--format",
            "-f",
            help="md, txt, json (all that is known), openai (a list of messages); wav or flac: "
            "what was recorded, you on the left, the assistant on the right.",
        ),
    ] = "md",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write to this file instead of stdout."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a saved conversation in another format."""
    saved = find_session(sessions_directory(), session)
    write = _writer(saved, format)
    if output is not None and str(output) != "-":
        _save(write, output, force=force)
    elif format in get_args(SoundFormat):
        _pipe(write)
    else:
        write(sys.stdout.buffer)


def _writer(saved: SavedSession, format: AnyFormat) -> Write:
    match format:
        case "wav" | "flac":
            return _recorded(saved, format)
        case "md" | "txt" | "json" | "openai":
            exported = Exported(saved.id, saved.started, load(saved.path))
            return partial(_write_all, FORMATS[format](exported).encode())


def _write_all(data: bytes, file: BinaryIO) -> None:
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
            f"session {saved.id} was not recorded",
            remedy="Record the rest of it with: "
            f"voicechat resume {shlex.quote(saved.id)} --record auto",
        )

    def write(file: BinaryIO) -> None:
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
    new = path.with_name(f".{secrets.token_hex(4)}.part")
    _make(new, write)
    try:
        if path.exists():
            new.chmod(path.stat().st_mode & 0o777)
        new.replace(path)
    except OSError:
        new.unlink()
        raise
