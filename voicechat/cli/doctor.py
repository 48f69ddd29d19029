"""``voicechat doctor``: what works, what does not, and what mends it."""

import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from voicechat.cli import options
from voicechat.cli.endpoint import Endpoint, find_server, with_key
from voicechat.cli.profile import prices
from voicechat.cli.profile import store as saved_in
from voicechat.errors import ExitCode, UsageError, VoicechatError
from voicechat.realtime.providers import LOCAL
from voicechat.transcript import printable, to_json

if TYPE_CHECKING:
    from voicechat.doctor.examination import Check, Finding
    from voicechat.realtime.network import Network

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
MOST_WAITING = 79
"""Columns."""
ENDING_TIME = 0.5
"""Seconds for what is still being waited for in vain when all has been said."""


def doctor(
    context: typer.Context,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: one JSON list, at the end.")
    ] = False,
    profile: options.ProfileIfRight = None,
    local: options.Local = False,
    provider: options.Provider = None,
    dialect: options.Dialect = None,
    url: options.Url = None,
    api_key_env: options.ApiKeyEnv = None,
    ca: options.Ca = None,
    insecure: options.Insecure = False,
    model: options.Model = None,
    input_device: options.InputDevice = None,
    output_device: options.OutputDevice = None,
) -> None:
    """Look at all that a conversation needs.

    That is sound, terminal, disk, settings, key, server, and local engines. Each line is ok, warn
    or fail; below what is not ok stands what mends it. The server is met, but nothing is asked of
    it, and nothing charged. Exits with 1 if anything fails.
    """
    from voicechat.doctor.examination import examine, failing
    from voicechat.doctor.machine import about_terminal
    from voicechat.realtime.connection import realtime_url
    from voicechat.realtime.network import Network

    server = find_server(context, None)
    is_local = server.provider is LOCAL
    network = Network(Path(ca) if ca is not None else None, insecure)
    if not is_local:
        network.check(realtime_url(server.url, ""))
    findings = list(about_terminal())  # before anything else writes there
    store = None
    if isinstance(context.obj, UsageError):
        findings.append(failing("settings", context.obj))
    else:
        store = saved_in(profile)
        try:
            prices(profile)
        except UsageError as error:
            findings.append(failing("prices", error))
    devices = {"input": input_device, "output": output_device}
    checks = _checks(devices, store, is_local=is_local)
    if not is_local:
        finding, server = _key(server)
        findings.append(finding)
        checks.append(_server(server, model, network))
    if not as_json:
        _show(findings)
    for found in examine(checks, _show_waiting):
        _show_waiting([])
        findings += found
        if not as_json:
            _show(found)
    if as_json:
        typer.echo(to_json([asdict(finding) for finding in findings], indent=2))
    _end(ExitCode.ERROR if any(each.status == "fail" for each in findings) else ExitCode.OK)


def _checks(devices: dict[str, str | None], store: str | None, *, is_local: bool) -> list["Check"]:
    from voicechat.doctor import machine, places
    from voicechat.doctor.examination import Check

    def local() -> Iterator["Finding"]:
        from voicechat.doctor.server import about_local

        yield from about_local(is_wanted=is_local)

    return [
        Check("program", 5, machine.about_machine),
        Check("sound", 25, partial(machine.about_sound, devices)),
        Check("echo", 10, machine.about_echo),
        Check("directories", 5, places.about_directories),
        Check("sessions", 30, places.about_sessions),
        Check("store", 15, partial(places.about_store, store)),
        Check("built-in server", 80 if is_local else 15, local),
    ]


def _key(server: Endpoint) -> tuple["Finding", Endpoint]:
    """Whether there is a key, and the server with it."""
    from voicechat.doctor.examination import Finding, failing

    try:
        server = with_key(server)
    except VoicechatError as error:
        return failing("key", error), server
    if server.token_command:
        told = f"a token is asked for with the command in {server.provider.key_variable}"
    elif server.api_key is None:
        told = "none; your own server may need none"
    else:
        told = "there is one"
    return Finding("key", "ok", told), server


def _server(server: Endpoint, model: str | None, network: "Network") -> "Check":
    from voicechat.doctor.examination import Check
    from voicechat.realtime.connection import realtime_url

    def look() -> Iterator["Finding"]:
        from voicechat.doctor.server import about_server

        address = realtime_url(server.url, model or server.provider.model)
        words = server.token_command
        yield from about_server(address, server.provider, server.api_key, words, network)

    return Check("server", 60 if server.token_command else 30, look)


def _show(findings: list["Finding"]) -> None:
    """Each in a line, and below it what mends it."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    for finding in findings:
        line = Text(f"{finding.status:<5}", style=STYLES[finding.status])
        line.append(f"{printable(finding.check):<12} ", style="not bold default")
        line.append(printable(finding.message), style="not bold default")
        if finding.remedy:
            line.append(f"\n{'':18}{printable(finding.remedy)}", style="not bold dim")
        with console.capture() as rendered:
            console.print(line)
        typer.echo(rendered.get(), nl=False)


def _show_waiting(names: list[str]) -> None:
    """On a terminal, a line that says what is being waited for, until the next one."""
    if sys.stderr.isatty():
        waiting = f"looking at: {', '.join(names)}"[:MOST_WAITING] if names else ""
        sys.stderr.write(f"\r{waiting:<{MOST_WAITING}}\r{waiting}")
        sys.stderr.flush()


def _end(code: ExitCode) -> NoReturn:
    """End soon: what is still waited for in vain must not hold up the end of the program."""
    sys.stdout.flush()
    timer = threading.Timer(ENDING_TIME, os._exit, [int(code)])
    timer.daemon = True
    timer.start()
    raise typer.Exit(code)
