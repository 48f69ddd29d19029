"""``voicechat history import`` and ``check``: what comes from elsewhere, and what is damaged."""

import errno
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voicechat.cli import sync
from voicechat.cli.complete import sessions as complete
from voicechat.cli.keeping import SESSION_HELP
from voicechat.cli.progress import progress
from voicechat.cli.values import session_name
from voicechat.errors import ImportFileError, SessionInUseError, UsageError
from voicechat.history.checking import Finding, Repaired, is_mendable, repair, session_files
from voicechat.history.checking import check as look_into
from voicechat.history.log import session_id
from voicechat.history.sessions import find_session
from voicechat.settings import sessions_directory
from voicechat.transcript import folded, printable, to_json

if TYPE_CHECKING:
    from voicechat.history.importing import Imported

LARGEST_FILE = 200_000_000
"""Bytes; a year of talking is less."""
NAMED = 3
"""Sessions that are named in the closing line."""


def import_file(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A session file, what `voicechat export` writes as jsonl, json or openai, or a "
            "list of messages, or one a line; - is standard input.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="What it is called here.", show_default=False)
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="A JSON list of objects: session, name, turns, imported, left_out, path.",
        ),
    ] = False,
) -> None:
    """Save conversations from a file, and show their ids."""
    from voicechat.history.importing import conversations, put_in

    name = session_name(name)
    shown = "standard input" if file == "-" else repr(file)
    found = conversations(_contents(file, shown), shown)
    if name is not None and len(found) > 1:
        raise UsageError(
            f"{shown} holds {len(found)} conversations, which cannot all be called {name!r}",
            remedy="Leave out --name, and name them with: voicechat history rename",
        )
    directory = sessions_directory()
    done: list[Imported] = []
    with progress("Importing") as tell:
        for number, each in enumerate(found, 1):
            done.append(put_in(directory, each, name))
            if len(found) > 1:
                tell(number, len(found))
    for imported in done:
        _tell(imported, name)
    if left_out := sum(each.left_out for each in found):
        what = (
            "1 line, message or part" if left_out == 1 else f"{left_out} lines, messages or parts"
        )
        typer.echo(f"Left out: {what} without words of the conversation.", err=True)
    if as_json:
        values = [
            {
                "session": imported.session,
                "name": imported.transcript.name,
                "turns": len(imported.transcript.spoken),
                "imported": imported.is_new,
                "left_out": each.left_out,
                "path": str(imported.path),
            }
            for imported, each in zip(done, found, strict=True)
        ]
        typer.echo(to_json(values, indent=2))
    elif not sys.stdout.isatty():
        for imported in done:
            typer.echo(printable(imported.session))


def _contents(file: str, shown: str) -> bytes:
    """All that is in a file.

    Raises:
        ImportFileError: It cannot be read.
    """
    try:
        if file == "-":
            data = sys.stdin.buffer.read(LARGEST_FILE + 1)
        else:
            with Path(file).open("rb") as opened:
                data = opened.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ImportFileError(
            f"{shown} cannot be read: {reason.lower()}",
            remedy="Name a file that exists and that you may read, or give - and pipe it in.",
        ) from error
    return data


def _tell(imported: "Imported", wanted: str | None) -> None:
    turns = len(imported.transcript.spoken)
    count = f"{turns} {'turn' if turns == 1 else 'turns'}"
    name = f' "{printable(imported.transcript.name)}"' if imported.transcript.name else ""
    session = printable(imported.session)
    if imported.is_new:
        typer.echo(f"Imported {session}{name} · {count}", err=True)
    else:
        typer.echo(f"{session}{name} · {count} is here already: nothing was imported.", err=True)
        if wanted is not None and wanted != imported.transcript.name:
            typer.echo(f"To rename it: voicechat history rename {session} NAME", err=True)


@dataclass(slots=True)
class _Checked:
    """A session's file, and what came of looking into it."""

    path: Path
    findings: list[Finding]
    """What is wrong with it, as long as it is."""
    mended: list[Finding] = field(default_factory=list)
    repaired: Repaired | None = None
    is_in_use: bool = False
    """It was to be repaired, and another process talks in it."""

    @property
    def session(self) -> str:
        return printable(session_id(self.path))

    @property
    def is_whole(self) -> bool:
        """Nothing is wrong with it that matters."""
        return all(finding.is_remark for finding in self.findings)

    @property
    def is_readable(self) -> bool:
        """We may look into it."""
        return all(finding.kind != "unreadable" for finding in self.findings)


def check(
    sessions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SESSION]...", help=SESSION_HELP, show_default=False, autocompletion=complete
        ),
    ] = None,
    mend: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Make a new file of all that can be read; the old one is kept beside it.",
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="An object: whole, damaged, findings (session, line, kind, text, remark, "
            "repaired, path) and repaired (session, path, old).",
        ),
    ] = False,
) -> None:
    """Look for damage in the files of saved conversations.

    In all of them, if none is named.
    """
    if mend:
        sync.sync_first()  # a store may have a better copy than what can be made of this one
    paths = _paths(sessions or [])
    with progress("Checking conversations") as tell:
        checked = []
        for number, path in enumerate(paths, 1):
            checked.append(_Checked(path, look_into(path)))
            if len(paths) > 1:
                tell(number, len(paths))
    for each in checked:
        if mend and each.is_readable and not each.is_whole:
            _repair(each)
    if as_json:
        typer.echo(to_json(_described(checked), indent=2))
    elif lines := [
        _line(each.session, finding) for each in checked for finding in each.mended + each.findings
    ]:
        typer.echo("\n".join(lines))
    _conclude(checked, is_repair=mend)
    if not all(each.is_whole for each in checked):
        raise typer.Exit(1)


def _paths(sessions: Sequence[str]) -> list[Path]:
    """The files that are meant; what nothing can be read of, or what is there twice, by its id."""
    directory = sessions_directory()
    files = session_files(directory)
    if not sessions:
        return files
    paths: dict[Path, None] = {}
    for wanted in sessions:
        called = folded(printable(wanted))
        same_id = [path for path in files if folded(printable(session_id(path))) == called]
        paths |= dict.fromkeys(same_id or [find_session(directory, wanted).path])
    return list(paths)


def _repair(checked: _Checked) -> None:
    try:
        checked.repaired = repair(checked.path)
    except SessionInUseError:
        checked.is_in_use = True
    if checked.repaired is None:
        return
    new = checked.repaired.new
    left = look_into(new) if new is not None else []
    remaining = {(finding.kind, finding.is_remark) for finding in left}
    checked.mended = [
        finding
        for finding in checked.findings
        if (finding.kind, finding.is_remark) not in remaining
    ]
    checked.findings = left
    checked.path = new or checked.path


def _line(session: str, finding: Finding) -> str:
    place = f"{session} line {finding.line}" if finding.line else session
    return f"{place}: {finding.kind}: {finding.text}"


def _conclude(checked: Sequence[_Checked], *, is_repair: bool) -> None:
    """Say what came of it, and what is to be done."""
    for each in checked:
        if each.repaired is not None:
            old = printable(str(each.repaired.old))
            what = "Repaired" if each.repaired.new else "Nothing could be read of"
            typer.echo(f"{what} {each.session}; what was there is kept in {old}", err=True)
        elif each.is_in_use:
            typer.echo(
                f"{each.session} is in use: it can be repaired when you have hung up.", err=True
            )
    if not checked:
        typer.echo("No conversation is saved yet.", err=True)
    left = [each for each in checked if each.repaired is None or each.repaired.new is not None]
    damaged = [each for each in left if not each.is_whole]
    bad, good = len(damaged), len(left) - len(damaged)
    if good:
        rest = f", {bad} {'is' if bad == 1 else 'are'} not" if bad else ""
        said = f"{_sessions_are(good)} whole{rest}."
    else:
        said = f"{_sessions_are(bad)} damaged." if bad else ""
    readable = [each for each in damaged if each.is_readable]
    mendable = [] if is_repair else [each for each in readable if is_mendable(each.path)]
    if mendable:
        names = " ".join(shlex.quote(each.session) for each in mendable)
        names = f"{names} " if len(mendable) <= NAMED else ""
        it = "it" if len(mendable) == 1 else "them"
        said += f" Repair {it} with: voicechat history check {names}--repair"
    if len(readable) < len(damaged):
        said += " Make files that cannot be read readable for you, or move them away."
    if said:
        typer.echo(said, err=True)


def _sessions_are(number: int) -> str:
    return "1 session is" if number == 1 else f"{number} sessions are"


def _described(checked: Sequence[_Checked]) -> dict[str, object]:
    return {
        "whole": sum(each.is_whole for each in checked),
        "damaged": sum(not each.is_whole for each in checked),
        "findings": [
            {
                "session": each.session,
                "line": finding.line or None,
                "kind": finding.kind,
                "text": finding.text,
                "remark": finding.is_remark,
                "repaired": is_mended,
                "path": str(each.path),
            }
            for each in checked
            for is_mended, findings in ((True, each.mended), (False, each.findings))
            for finding in findings
        ],
        "repaired": [
            {
                "session": each.session,
                "path": str(each.repaired.new) if each.repaired.new else None,
                "old": str(each.repaired.old),
            }
            for each in checked
            if each.repaired is not None
        ],
    }
