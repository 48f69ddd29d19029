"""``voicechat history``: what is saved."""

import sys
from typing import Annotated

import typer

from voicechat.cli import checking, keeping, sync
from voicechat.cli.complete import sessions as complete
from voicechat.cli.keeping import SESSION_HELP
from voicechat.cli.profile import prices
from voicechat.cli.progress import progress
from voicechat.errors import UsageError
from voicechat.history.export import SPEAKERS, Exported, to_json_object
from voicechat.history.log import stamp
from voicechat.history.sessions import Hit, SavedSession, find_session, list_sessions, load
from voicechat.history.sessions import search as find_turns
from voicechat.prices import in_short
from voicechat.settings import sessions_directory
from voicechat.transcript import Transcript, clock, printable, to_json

NARROW, WIDE = 60, 90  # columns of a terminal: below, the list leaves something out
AROUND = 40
"""Letters shown on each side of what was found."""

app = typer.Typer(help="Saved conversations.", no_args_is_help=True)


@app.command("list")
def list_saved(
    profile: sync.Profile = None,
    number: Annotated[
        int, typer.Option("--number", "-n", min=0, max=10**9, help="How many; 0 shows all.")
    ] = 20,
    text: Annotated[
        str,
        typer.Option(
            "--query",
            "-q",
            metavar="TEXT",
            help="Only those in whose turns, name or id this stands.",
            show_default=False,
        ),
    ] = "",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="A JSON list of objects: id, name, started, last_used, duration_ms, turns, "
            "first_words, model, local, parent, path.",
        ),
    ] = False,
) -> None:
    """Show saved conversations, the last used first."""
    sync.sync_first(profile)
    directory = sessions_directory()
    with progress("Reading conversations") as tell:
        sessions, unreadable = list_sessions(directory, number, text, tell)
    if as_json:
        typer.echo(to_json([_described(session) for session in sessions], indent=2))
    elif sessions and sys.stdout.isatty():
        _show_table(sessions)
    elif sessions:
        typer.echo(_aligned(sessions))
    if not sessions and text:
        typer.echo(f"No saved conversation has {printable(text)!r} in it.", err=True)
    elif not sessions:
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


@app.command("show")
def show(
    session: Annotated[
        str, typer.Argument(help=SESSION_HELP, show_default=False, autocompletion=complete)
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="The object that `export --format json` writes.")
    ] = False,
) -> None:
    """Show what was said in a saved conversation."""
    saved = find_session(sessions_directory(), session)
    transcript = load(saved.path)
    if as_json:
        typer.echo(to_json_object(Exported(saved.id, saved.started, transcript)), nl=False)
        return
    is_terminal = sys.stdout.isatty()
    lines = [*_heading(saved, transcript), ""]
    for number, turn in enumerate(transcript.spoken, 1):
        mark = f" ({turn.mark})" if turn.mark else ""
        text = f" {printable(turn.text)}" if turn.text else ""
        who = f"{SPEAKERS[turn.role]}:"
        if is_terminal:
            who = typer.style(who, bold=True, fg=None if turn.role == "user" else "cyan")
        lines.append(f"{number:3}  {clock(turn.start_ms):>5}  {who}{text}{mark}")
    typer.echo("\n".join(lines))


@app.command("search")
def search(
    words: Annotated[
        list[str], typer.Argument(metavar="TEXT", help="What was said.", show_default=False)
    ],
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="A JSON list of objects: session, name, last_used, turn, item_id, role, "
            "start_ms, text, and start and end of what was found in it.",
        ),
    ] = False,
) -> None:
    """Find what was said: session, turn, and the words around it.

    Case, accents and the number of spaces make no difference.
    """
    text = " ".join(words)
    if not printable(text):
        raise UsageError("there is nothing to search for", remedy="Give the words.")
    with progress("Reading conversations") as tell:
        hits = list(find_turns(sessions_directory(), text, tell))
    if as_json:
        typer.echo(to_json([_found(hit) for hit in hits], indent=2))
    elif hits:
        is_terminal = sys.stdout.isatty()
        typer.echo("\n".join(_line(hit, is_terminal=is_terminal) for hit in hits))
    if not hits:
        typer.echo(f"Nobody has said {printable(text)!r} in a saved conversation.", err=True)


app.command("rename")(keeping.rename)
app.command("rm")(keeping.rm)
app.command("path")(keeping.path)
app.command("import")(checking.import_file)
app.command("check")(checking.check)
app.command("sync")(sync.sync)


def _heading(saved: SavedSession, transcript: Transcript) -> list[str]:
    name = f' "{saved.name}"' if saved.name else ""
    facts = [f"{saved.started.astimezone():%Y-%m-%d %H:%M}", _model(saved)]
    facts.append(in_short(transcript, prices()))
    lines = [f"{saved.id}{name}", " · ".join(filter(None, facts))]
    return [*lines, f"forked from {saved.parent}"] if saved.parent else lines


def _line(hit: Hit, *, is_terminal: bool) -> str:
    """Session, turn, who, and what was found with the words around it."""
    start, end = hit.found
    before, after = hit.text[:start], hit.text[end:]
    if len(before) > AROUND:
        near = before[-AROUND:]
        before = "..." + (near.partition(" ")[2] or near)  # not all writing has blanks
    if len(after) > AROUND:
        near = after[:AROUND]
        after = (near.rpartition(" ")[0] or near) + "..."
    found, id = hit.text[start:end], hit.session.id
    if is_terminal:
        found, id = typer.style(found, bold=True, fg="yellow"), typer.style(id, fg="cyan")
    return f"{id}  {hit.turn:3}  {SPEAKERS[hit.role]}: {before}{found}{after}"


def _found(hit: Hit) -> dict[str, str | int | None]:
    return {
        "session": hit.session.id,
        "name": hit.session.name,
        "last_used": stamp(hit.session.last_used),
        "turn": hit.turn,
        "item_id": hit.item_id,
        "role": hit.role,
        "start_ms": hit.start_ms,
        "text": hit.text,
        "start": hit.found[0],
        "end": hit.found[1],
    }


def _described(session: SavedSession) -> dict[str, str | int | bool | None]:
    return {
        "id": session.id,
        "name": session.name,
        "started": stamp(session.started),
        "last_used": stamp(session.last_used),
        "duration_ms": session.duration_ms,
        "turns": session.turns,
        "first_words": session.first_words,
        "model": session.model,
        "local": session.local,
        "parent": session.parent,
        "path": str(session.path),
    }


def _aligned(sessions: list[SavedSession]) -> str:
    """Columns for other programs and for files: no colour, no line broken, nothing cut off."""
    rows = [("ID", "LAST USED", "LENGTH", "TURNS", "MODEL", "ABOUT")]
    rows += [
        (
            session.id,
            _when(session),
            clock(session.duration_ms),
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
        cells += [] if is_narrow else [clock(session.duration_ms)]
        cells += [str(session.turns), _subject(session)]
        cells += [_model(session)] if is_wide else []
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in cells))
    console.print(table)


def _when(session: SavedSession) -> str:
    return f"{session.last_used.astimezone():%Y-%m-%d %H:%M}"


def _subject(session: SavedSession) -> str:
    return session.name or session.first_words


def _model(session: SavedSession) -> str:
    return ("local" if session.local else "") if session.model is None else session.model
