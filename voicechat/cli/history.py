"""``voicechat history``: what is saved."""

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from voicechat.history.sessions import SavedSession, list_sessions
from voicechat.settings import sessions_directory
from voicechat.transcript import printable, to_json

NARROW, WIDE = 60, 90  # columns of a terminal: below, the list leaves something out

app = typer.Typer(help="Saved conversations.", no_args_is_help=True)


@app.command("list")
def list_saved(
    number: Annotated[
        int, typer.Option("--number", "-n", min=0, help="How many to show; 0 shows all.")
    ] = 20,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="A JSON list of objects: id, name, started, last_used, duration_ms, turns, "
            "first_words, model, local, path.",
        ),
    ] = False,
) -> None:
    """Show saved conversations, the last used first."""
    directory = sessions_directory()
    sessions, unreadable = list_sessions(directory, number)
    if as_json:
        typer.echo(to_json([_described(session) for session in sessions], indent=2))
    elif sessions and sys.stdout.isatty():
        _show_table(sessions)
    elif sessions:
        typer.echo(_aligned(sessions))
    if not sessions:
        typer.echo(
            f"No conversation is saved in {printable(str(directory))} yet. "
            "Begin one with: voicechat talk",
            err=True,
        )
    if unreadable:
        files = "1 file" if len(unreadable) == 1 else f"{len(unreadable)} files"
        examples = ", ".join(printable(path.name) for path in sorted(unreadable)[:3])
        more = ", ..." if len(unreadable) > 3 else ""
        where = printable(str(directory))
        typer.echo(f"{files} in {where} cannot be read: {examples}{more}", err=True)


def _described(session: SavedSession) -> dict[str, str | int | bool | None]:
    return {
        "id": session.id,
        "name": session.name,
        "started": _utc(session.started),
        "last_used": _utc(session.last_used),
        "duration_ms": session.duration_ms,
        "turns": session.turns,
        "first_words": session.first_words,
        "model": session.model,
        "local": session.local,
        "path": str(session.path),
    }


def _aligned(sessions: list[SavedSession]) -> str:
    """Columns for other programs and for files: no colour, no line broken, nothing cut off."""
    rows = [("ID", "LAST USED", "LENGTH", "TURNS", "MODEL", "ABOUT")]
    rows += [
        (
            session.id,
            _when(session),
            _length(session),
            str(session.turns),
            _model(session),
            _subject(session),
        )
        for session in sessions
    ]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _show_table(sessions: list[SavedSession]) -> None:
    """The same for eyes, each session on one line of whatever terminal this is."""
    # Here, because the list of a pipe does without, and rich costs as much time as all the rest.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    is_narrow, is_wide = console.width < NARROW, console.width >= WIDE
    table = Table(box=None, pad_edge=False, padding=(0, 2 if not is_narrow else 1, 0, 0))
    table.add_column("Id", style="cyan", no_wrap=True)
    table.add_column("Last used", no_wrap=True)
    if not is_narrow:
        table.add_column("Length", justify="right", no_wrap=True)
    table.add_column("Turns", justify="right", no_wrap=True)
    table.add_column("About")  # gives way: the others may not be wrapped
    if is_wide:
        table.add_column("Model", style="dim", no_wrap=True, max_width=30)
    for session in sessions:
        cells = [session.id, _when(session)[: len("2026-01-31") if is_narrow else None]]
        cells += [] if is_narrow else [_length(session)]
        cells += [str(session.turns), _subject(session)]
        cells += [_model(session)] if is_wide else []
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in cells))
    console.print(table)


def _when(session: SavedSession) -> str:
    return f"{session.last_used.astimezone():%Y-%m-%d %H:%M}"


def _length(session: SavedSession) -> str:
    minutes, seconds = divmod(session.duration_ms // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _subject(session: SavedSession) -> str:
    return session.name or session.first_words


def _model(session: SavedSession) -> str:
    return ("local" if session.local else "") if session.model is None else session.model


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
