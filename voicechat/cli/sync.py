"""``voicechat history sync``, and the same before other commands."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import fields
from typing import Annotated

import typer

from voicechat.cli.complete import profiles
from voicechat.cli.profile import VARIABLE
from voicechat.cli.profile import store as store_of
from voicechat.cli.progress import progress
from voicechat.errors import SharedStoreError, UsageError
from voicechat.settings import child_environment, sessions_directory
from voicechat.transcript import printable

PATIENCE = 5.0
"""Seconds for which another command waits for the store."""
STORE_TIMEOUT = 10.0
"""Seconds without a sign of life before a store is given up."""
LAST_CHANCE = 1.0
"""Seconds to leave things in order after that."""

Profile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        "-p",
        metavar="NAME",
        envvar=VARIABLE,
        autocompletion=profiles,
        help="Use this profile of the settings file.",
    ),
]


def sync(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="[URL]",
            envvar="VOICECHAT_STORE",
            help="The shared store: sqlite:///FILE, postgresql://, mysql://, mariadb://, redis://, "
            "rediss:// or mongodb://. A password may stand in VOICECHAT_STORE_PASSWORD instead. "
            "[default: `store` of the settings file]",
            show_default=False,
        ),
    ] = None,
    profile: Profile = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say only what needs attention.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="An object: store, and lists of session ids by what became of them."
        ),
    ] = False,
) -> None:
    """Share saved conversations with other machines, by way of a store.

    What is missing there is sent, and what is missing here is fetched.
    """
    from voicechat.history.stores.opening import open_store, shown
    from voicechat.history.sync import sync as run

    url = url or store_of(profile)
    if not url:
        raise UsageError(
            "no shared store is named",
            remedy="Give its URL, or set VOICECHAT_STORE, such as postgresql://user@host/database.",
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `sync_first` has waited enough
    # The reason must come before `sync_first` stops waiting for it.
    timeout = min(STORE_TIMEOUT, PATIENCE - 2) if quiet else STORE_TIMEOUT
    store = open_store(url, os.environ.get("VOICECHAT_STORE_PASSWORD"), timeout)
    try:
        with progress("Syncing") as tell:
            tally = run(sessions_directory(), store, tell if not quiet else None)
    finally:
        store.close()
    for session, fork in sorted(tally.forked.items()):
        _say(
            f"Others went on with {session}, too: what was said here is now session {fork}. "
            f"Go on with it by: voicechat resume {fork}"
        )
    for session, fork in sorted(tally.kept.items()):
        _say(
            f"{session} was deleted elsewhere, and has been gone on with here: what was said is "
            f"kept as session {fork}."
        )
    for ids, text in (
        (tally.back, "was deleted or repaired here, but others have more of it: it is back."),
        (tally.in_use, "is in use: what is new in the store comes when you have hung up."),
        (tally.unreadable, "cannot be read here, and was left out."),
        (tally.unsettled, "keeps changing in the store: sync again."),
        (
            tally.misnamed,
            "has a name that not every machine's files may have: it stays where it is.",
        ),
    ):
        for each in sorted(ids):
            _say(f"{each} {text}")
    if as_json:
        values = {field.name: getattr(tally, field.name) for field in fields(tally)}
        lists = {k: v if isinstance(v, dict) else sorted(v) for k, v in values.items()}
        typer.echo(json.dumps({"store": shown(url), **lists}, indent=2))
    elif not quiet:
        forked = len(tally.forked) + len(tally.kept)
        deleted = len(tally.deleted_here) + len(tally.deleted_there)
        typer.echo(
            f"Synced with {shown(url)}: {len(tally.sent)} sent, {len(tally.fetched)} fetched, "
            f"{forked} forked, {deleted} deleted."
        )
    if tally.damaged:
        raise SharedStoreError(
            f"the shared store {shown(url)} has lost parts of {', '.join(sorted(tally.damaged))}",
            remedy="Restore the store from a backup; nothing that is saved here was changed.",
        )


def sync_first(profile: str | None = None) -> None:
    """If a shared store is set, sync before another command: it may fail, but not for long.

    In a process of its own, which can be ended whatever it waits for.
    """
    url = store_of(profile)
    if not url:
        return
    command = [sys.executable, "-P", "-m", "voicechat", "history", "sync", "--quiet"]
    with subprocess.Popen(
        command,
        env=child_environment() | {"VOICECHAT_STORE": url},  # not among what `ps` shows
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as child:
        try:
            _, told = child.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            _end(child)
            _say(f"Not synced yet: it took more than {PATIENCE:g} s. The rest goes the next time.")
            return
        except KeyboardInterrupt:
            _end(child)
            _say("Not synced.")
            return
    lines = told.decode(errors="replace").splitlines()
    if child.returncode:
        lines = [*lines[:-2], _why_not(lines[-2:])]
    for line in lines:
        _say(line)


def _why_not(told: list[str]) -> str:
    """The two lines of an error as one."""
    if len(told) < 2 or not told[0].startswith("voicechat: "):
        return "Not synced: it ended unexpectedly. See with: voicechat history sync"
    return f"Not synced: {told[0].removeprefix('voicechat: ')}. {told[1].strip()}"


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End it, tidily if it can."""
    child.terminate()
    try:
        child.communicate(timeout=LAST_CHANCE)
    except subprocess.TimeoutExpired:
        child.kill()


def _say(text: str) -> None:
    typer.echo(printable(text), err=True)
