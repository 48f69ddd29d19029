"""``voicechat export``: a saved session for other programs."""

import errno
import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from voicechat.errors import OutputError
from voicechat.history.export import FORMATS, Exported, Format
from voicechat.history.sessions import find_session, load
from voicechat.settings import sessions_directory


def export(
    session: Annotated[
        str,
        typer.Argument(
            help='An id or the beginning of one, a name, or "last".', show_default=False
        ),
    ],
    format: Annotated[
        Format,
        typer.Option(
            "--format",
            "-f",
            help="md, txt, json (all that is known), or openai (a list of messages).",
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
    exported = Exported(saved.id, saved.started, load(saved.path))
    data = FORMATS[format](exported).encode()
    if output is None or str(output) == "-":
        typer.echo(data, nl=False)
    else:
        _save(data, output, force=force)


def _save(data: bytes, path: Path, *, force: bool) -> None:
    """Write a file whole or not at all.

    Raises:
        OutputError: It exists and `force` is not given, or it cannot be written.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not path.is_file():
            path.write_bytes(data)  # a device or a pipe: nothing is there to be overwritten
        elif force:
            _replace(path.resolve(), data)  # a link goes on being one
        else:
            _make(path, data)
    except FileExistsError as error:
        raise OutputError(
            f"{path} exists already", remedy="Give another name with -o, or add --force."
        ) from error
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {(error.strerror or str(error)).lower()}",
            remedy="Give a file in a directory that exists and that you may write to with -o.",
        ) from error


def _make(path: Path, data: bytes) -> None:
    file = path.open("xb")
    try:
        with file:
            file.write(data)
    except BaseException:
        path.unlink()
        raise


def _replace(path: Path, data: bytes) -> None:
    """The old file stays until the new one is complete; who may read it stays the same, too."""
    new = path.with_name(f".{secrets.token_hex(4)}.part")
    _make(new, data)
    try:
        if path.exists():
            new.chmod(path.stat().st_mode & 0o777)
        new.replace(path)
    except OSError:
        new.unlink()
        raise
