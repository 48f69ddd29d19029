"""``voicechat history rename``, ``rm`` and ``path``: what becomes of saved sessions."""

import os
import sys
from typing import Annotated

import typer

from voicechat.cli.complete import sessions as complete
from voicechat.cli.values import session_name
from voicechat.errors import UsageError
from voicechat.history.deleting import delete
from voicechat.history.log import add_aside
from voicechat.history.sessions import SavedSession, find_session
from voicechat.settings import sessions_directory
from voicechat.transcript import Renamed, printable

SESSION_HELP = 'An id or the beginning of one, a name, or "last".'


def rename(
    session: Annotated[
        str, typer.Argument(help=SESSION_HELP, show_default=False, autocompletion=complete)
    ],
    name: Annotated[str, typer.Argument(help="What it is called from now on.")],
) -> None:
    """Give a saved conversation another name."""
    renamed = session_name(name)
    saved = find_session(sessions_directory(), session)
    add_aside(saved.path, Renamed(name=renamed or ""))
    typer.echo(f'{saved.id} is now called "{printable(renamed or "")}".', err=True)


def rm(
    sessions: Annotated[
        list[str],
        typer.Argument(
            metavar="SESSION...", help=SESSION_HELP, show_default=False, autocompletion=complete
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete saved conversations for good, with their recordings.

    With the next sync, they are deleted in the shared store and on other machines, too.
    """
    directory = sessions_directory()
    found = {saved.path: saved for saved in (find_session(directory, each) for each in sessions)}
    if not yes:
        for saved in found.values():
            typer.echo(_described(saved), err=True)
        if not _is_confirmed(len(found)):
            typer.echo("Nothing was deleted.", err=True)
            return
    for path, saved in found.items():
        delete(path)
        typer.echo(f"Deleted {_described(saved)}.", err=True)


def path(
    session: Annotated[
        str | None,
        typer.Argument(
            metavar="[SESSION]", help=SESSION_HELP, show_default=False, autocompletion=complete
        ),
    ] = None,
) -> None:
    """Show where conversations are saved, or the file of one."""
    found = sessions_directory()
    if session is not None:
        found = find_session(found, session).path
    if sys.stdout.isatty():
        typer.echo(printable(str(found)))
    else:  # for programs, which must find the file by it
        typer.echo(os.fsencode(found) if os.name == "posix" else str(found))


def _described(saved: SavedSession) -> str:
    count = f"{saved.turns} {'turn' if saved.turns == 1 else 'turns'}"
    return f'{saved.id} "{saved.name or saved.first_words}" ({count})'


def _is_confirmed(number: int) -> bool:
    """Ask on a terminal; without one, `UsageError`."""
    if not sys.stdin.isatty():
        raise UsageError(
            "there is nobody to ask whether to delete", remedy="Add -y to delete without asking."
        )
    what = "this conversation" if number == 1 else f"these {number} conversations"
    try:
        return typer.confirm(f"Delete {what} for good?", err=True)
    except typer.Abort as error:  # Ctrl-C, Ctrl-D
        raise KeyboardInterrupt from error
