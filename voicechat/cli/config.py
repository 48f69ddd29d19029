"""``voicechat config``: the settings file, and where each setting comes from."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import typer

from voicechat.cli import complete
from voicechat.cli.profile import (
    PRICES,
    STORE,
    VARIABLE,
    Setting,
    chosen,
    holds_a_key,
    in_file,
    is_number,
    options,
)
from voicechat.cli.values import PUBLIC_PARAMETERS, RANGES, could_be_a_key
from voicechat.config import Config, config_path, read_config
from voicechat.errors import OutputError, UsageError
from voicechat.transcript import printable, to_json

app = typer.Typer(help="The settings file, and its profiles.", no_args_is_help=True)

DEFAULT = re.compile(r"\[default: (.+)\]")
WIDTH = 78
ONCE = {"resume", "continue", "fork", "input", "text", "output", "name"}
"""Options that are for one conversation: they may stand in the file, but few want them there."""
EXAMPLES = {"record": "auto"}
"""Values for the explained file where neither the default nor the kind of value would do."""
EDITORS = ("notepad",) if sys.platform == "win32" else ("nano", "vi")


@app.command("path")
def path() -> None:
    """Show where the settings file is, or would be."""
    where = str(config_path())
    typer.echo(printable(where) if sys.stdout.isatty() else where)


@app.command("show")
def show(
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            "-p",
            metavar="NAME",
            envvar=VARIABLE,
            autocompletion=complete.profiles,
            help="As they are with this profile.",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="An object: path, exists, profile, profiles, and settings: a list of name, "
            "value, source (environment, profile, file or default) and place.",
        ),
    ] = False,
) -> None:
    """Show every setting, and where its value comes from.

    Keys and passwords are not shown.
    """
    config, profile = read_config(), chosen(profile)
    rows = _rows(config, profile)
    if as_json:
        described = {
            "path": str(config.path),
            "exists": config.path.exists(),
            "profile": profile,
            "profiles": list(config.profiles),
            "settings": rows,
        }
        typer.echo(to_json(described, indent=2))
        return
    names = max(len(row["name"]) for row in rows)
    for row in rows:
        value = "" if row["value"] is None else printable(_as_text(row["value"]))
        place = f" ({printable(row['place'])})" if row["place"] else ""
        typer.echo(f"{row['name']:<{names}}  {value or '-'}  [{row['source']}{place}]")
    what = f"{config.path}; profiles: {', '.join(config.profiles) or 'none'}"
    if not config.path.exists():
        what = f"{config.path} is not there yet. Make it with: voicechat config init"
    typer.echo(printable(what), err=True)


@app.command("init")
def init() -> None:
    """Write a settings file with everything explained.

    Nothing is set in it yet. A file that is there is left alone.
    """
    where = config_path()
    _write_new(where)
    typer.echo(f"Written: {printable(str(where))}", err=True)
    typer.echo("Change it with: voicechat config edit", err=True)


@app.command("edit")
def edit() -> None:
    """Open the settings file in an editor.

    That is VISUAL or EDITOR. If there is no file, it is made; what comes of it is checked.
    """
    where = config_path()
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    editor = named or next((each for each in EDITORS if shutil.which(each)), "")
    try:
        command = shlex.split(editor, posix=sys.platform != "win32")
    except ValueError:
        command = []
    if not command:
        raise UsageError(
            "there is no editor to open the settings with",
            remedy=f"Set EDITOR to one, or edit it as you like: {where}",
        )
    if not named and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "there is no terminal for an editor", remedy=f"Edit it as you like: {where}"
        )
    if os.path.isdir(where):  # noqa: PTH112  # Path's raises where one may not look
        raise _no_file(where, "it is a directory")
    if not os.path.exists(where):  # noqa: PTH110
        _write_new(where)
        typer.echo(f"Written: {printable(str(where))}", err=True)
    try:
        code = subprocess.run([*command, str(where)], check=False).returncode
    except OSError as error:
        raise UsageError(
            f"the editor {command[0]!r} cannot be started: {(error.strerror or '').lower()}",
            remedy=f"Set EDITOR to another, or edit it as you like: {where}",
        ) from error
    if code:
        raise UsageError(
            f"the editor {command[0]!r} ended with an error ({code})",
            remedy="See what it said; the settings are as it left them.",
        )
    in_file(read_config(), None)


def _rows(config: Config, profile: str | None) -> list[dict[str, Any]]:
    found = in_file(config, profile)
    rows = []
    for key, option in options().items():
        default = DEFAULT.search(option.help or "")
        usual = default[1] if default and option.default is None else option.default
        rows.append(_row(config, key, option.envvar, found, usual))
    rows.append(_row(config, STORE, "VOICECHAT_STORE", found, None))
    if PRICES in found:
        found[PRICES] = Setting(", ".join(found[PRICES].value), found[PRICES].keys)
    rows.append(_row(config, PRICES, "VOICECHAT_PRICES", found, None))
    return rows


def _row(
    config: Config, key: str, variable: str | None, found: dict[str, Setting], default: Any
) -> dict[str, Any]:
    setting = found.get(key)
    value, source, place = default, "default", None
    if variable and os.environ.get(variable):
        value, source, place = os.environ[variable], "environment", variable
    elif setting is not None:
        value = setting.value
        source = "profile" if setting.profile is not None else "file"
        line = f"line {config.line(*setting.keys)}"
        place = line if setting.profile is None else f"{setting.profile}, {line}"
    return {
        "name": key.replace("_", "-"),
        "value": value if source == "default" else _shown(key, value),
        "source": source,
        "place": place,
    }


def _shown(name: str, value: Any) -> Any:
    """A value without what could be a secret: addresses may hold one, or stand for one."""
    if not isinstance(value, str):
        return value
    if holds_a_key(name, value) or (name == "api_key_env" and could_be_a_key(value)):
        return "..."
    if name not in ("url", STORE):
        return value
    try:
        parts = urlsplit(value)
        query = [
            (key, text if key in PUBLIC_PARAMETERS and not set(text) & set(";=") else "...")
            for key, text in parse_qsl(parts.query, keep_blank_values=True)
            if text  # else it is a value without a name
        ]
    except ValueError:
        return "..."
    is_address = parts.scheme and (parts.netloc or (name == STORE and "=" not in parts.path))
    if not is_address or "@" in parts.path:  # "=" is of ``host=h password=...``
        return "..." if set(value) & set("@?#:=") else value
    user, at, host = parts.netloc.rpartition("@")
    if not (at or parts.query or parts.fragment):
        return value
    if at:
        known, colon, password = user.partition(":")
        # Alone, it is somebody's name in the URL of a database, and may be a key in any other.
        is_name = password or (name == STORE and not parts.scheme.startswith("redis"))
        host = f"{known if is_name else '...'}{':...' if colon else ''}@{host}"
    return parts._replace(netloc=host, query=urlencode(query, safe="."), fragment="").geturl()


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _write_new(where: Path) -> None:
    """Write the explained file; never over one that is there."""
    try:
        where.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        is_file = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "what it is to be in is no directory" if is_file else error.strerror or str(error)
        raise _no_file(where, reason.lower()) from error
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(where, flags, 0o600), "w", encoding="utf-8") as file:
            try:
                file.write(_explained())
                file.flush()
            except OSError:
                where.unlink()  # all of it or nothing
                raise
    except FileExistsError as error:
        if os.path.isdir(where):  # noqa: PTH112
            raise _no_file(where, "it is a directory") from error
        if not os.path.isfile(where):  # noqa: PTH113
            raise _no_file(where, "it is a link to nothing that can be reached") from error
        raise OutputError(
            f"there is a settings file already: {str(where)!r}",
            remedy="Change it with: voicechat config edit",
        ) from error
    except OSError as error:
        raise _no_file(where, (error.strerror or str(error)).lower()) from error


def _no_file(where: Path, reason: str) -> OutputError:
    return OutputError(
        f"the settings file {str(where)!r} cannot be written: {reason}",
        remedy="Name another with VOICECHAT_CONFIG, in a directory of yours.",
    )


def _explained() -> str:
    """All settings with what they do, each behind a ``#``."""
    lines = [
        "# Settings of voicechat. Take away the # before one to set it; flags and VOICECHAT_...",
        "# variables go before what stands here. API keys have no place here: voicechat login",
        "",
    ]
    for key, option in options().items():
        if key in ONCE:
            continue
        lines += [f"# {line}" for line in textwrap.wrap(_help(option), WIDTH - 2)]
        lines += [f"#{key.replace('_', '-')} = {_example(option)}", ""]
    lines += [
        "# The store that your machines share; see `voicechat history sync`.",
        '#store = "postgresql://me@db.example.org/voicechat"',
        "",
        "# What tokens cost, in US dollars for a million.",
        "#[prices.my-model]",
        "#text = 4.0",
        "",
        "# A profile goes before what stands above, and is chosen with `voicechat talk -p work`.",
        "#[profiles.work]",
        '#voice = "cedar"',
        '#instructions = "@work.txt"  # a file beside this one',
        "",
    ]
    return "\n".join(lines)


def _help(option: Any) -> str:
    return (option.help or "").replace(" May be repeated.", "") or option.name


def _example(option: Any) -> str:
    default = DEFAULT.search(option.help or "")
    if option.is_flag:
        return "true"
    if is_number(option):
        most = RANGES.get(option.name, (0, 30))[1]
        return f"{option.default if option.default is not None else min(30, most):g}"
    choices = getattr(option.type, "choices", ())
    usual = EXAMPLES.get(option.name) or option.default or (default and default[1]) or ""
    if choices and usual not in choices:
        usual = choices[0]
    return to_json(usual if usual and " " not in usual else option.metavar)
