"""The commands of ``voicechat``, and what becomes of errors."""

import errno
import io
import os
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from voicechat import __version__
from voicechat.cli import complete
from voicechat.errors import ExitCode, OutputError, UsageError, VoicechatError

LOST = {errno.EPIPE, errno.ENOSPC, errno.EBADF, errno.EIO}
"""How writing to standard output can fail."""
_BadUsage = cast(type[Exception], typer.BadParameter.__base__)
"""What the library raises if it does not understand the command line."""


class _Output(io.TextIOWrapper):
    """Standard output that says so when nobody takes what is written."""

    def write(self, text: str) -> int:
        """Write, as always."""
        try:
            return super().write(text)
        except OSError as error:
            raise _lost(error) from error

    def flush(self) -> None:
        """Hand over what is buffered, as always."""
        try:
            super().flush()
        except OSError as error:
            raise _lost(error) from error


class _Group(TyperGroup):
    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> Any:
        """Read the command line; --install-completion writes files then."""
        try:
            return super().make_context(info_name, args, *more, **extra)
        except _BadUsage as error:
            raise _unusable(error) from error
        except OSError as error:
            if error.filename is None:
                raise
            raise OutputError(
                f"completion cannot be installed: {error}",
                remedy="Put what --show-completion writes where your shell reads it.",
            ) from error

    def invoke(self, ctx: Any) -> Any:
        """Run a command, and see that what it says arrives."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except _BadUsage as error:
            raise _unusable(error) from error
        except OSError as error:  # bytes go past `_Output`; errors of files name their file
            if error.filename is None and error.errno in LOST:
                raise _lost(error) from error
            raise
        return result


def _unusable(error: Any) -> Exception:
    """What the library has against the command line, as we say it."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return cast(Exception, error)  # which is no error
    message = error.format_message().rstrip(".")
    path = error.ctx.command_path if error.ctx is not None else "voicechat"
    return UsageError(f"{message[:1].lower()}{message[1:]}", remedy=f"See: {path} --help")


def _lost(error: OSError) -> OutputError:
    return OutputError(
        f"the output cannot be written: {error.strerror}",
        remedy="Let the program behind the pipe read to the end, or write to a file.",
    )


_EPILOG = f"""\b
Examples:
  voicechat talk --local      talk with no key and no network
  voicechat login             save an API key
  voicechat talk              talk with OpenAI's model
  voicechat resume            go on with a saved conversation
  voicechat export --last     write it as Markdown
  voicechat doctor            see what is missing, and what mends it

Sessions are where `voicechat history path` says, settings in the file of `voicechat config path`.

Exit codes: {", ".join(f"{code.value} {code.name.lower().replace('_', ' ')}" for code in ExitCode)}.
"""
COMMANDS = (
    "talk",
    "resume",
    "history",
    "export",
    "devices",
    "doctor",
    "local",
    "replay-trace",
    "config",
    "login",
    "logout",
)
_LENIENT = {"allow_extra_args": True}  # an error of the library's would repeat what may be a key


def program(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command line; each command brings a room along, and half the start is loading them."""
    app = typer.Typer(
        cls=_Group,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="Talk with a voice model from the terminal, and go on tomorrow.",
        epilog=_EPILOG,
        callback=_every_command,
    )
    for command in commands:
        name = command.replace("-", "_")
        is_about_keys = command in ("login", "logout")
        module = import_module(f"voicechat.cli.{'login' if is_about_keys else name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=command)
        else:
            settings = _LENIENT if is_about_keys else None
            app.command(command, context_settings=settings)(getattr(module, name))
    return app


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"voicechat {__version__}")
        raise typer.Exit


def _every_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run a command.  A `VoicechatError` becomes a message, a remedy and an exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    _open_standard_streams(is_json="--json" in given)
    if os.environ.get("COLUMNS") == "0":  # which means that nobody knows, but not to rich
        del os.environ["COLUMNS"]
    if complete.VARIABLE in os.environ:
        complete.stay_quiet()
    try:
        app = program(given[:1] if given and given[0] in COMMANDS else COMMANDS)
        app(given, prog_name="voicechat")
    except VoicechatError as error:
        _tell(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)


def _tell(error: VoicechatError) -> None:
    from voicechat.transcript import printable

    if isinstance(error, OutputError):
        _let_go_of_stdout()
    try:
        sys.stderr.write(f"voicechat: {printable(error.message)}\n  {printable(error.remedy)}\n")
        sys.stderr.flush()
    except OSError:
        pass  # nobody is there to be told


def _let_go_of_stdout() -> None:
    """What is still buffered for a reader that went away must not fail again at exit."""
    try:
        sys.stdout.flush()
    except (OSError, OutputError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _open_standard_streams(*, is_json: bool) -> None:
    """Make the three what every part of the program takes them for.

    One that was closed (``>&-``) would lend its number to the next file or socket that is opened.
    In its place stands one that takes nothing: to read from, nothing; to write to, an error.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)
    sys.stdin = sys.stdin or open(0, closefd=False, encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
    binary = sys.stdout.buffer if sys.stdout else open(1, "wb", closefd=False)  # noqa: SIM115
    encoding = sys.stdout.encoding if sys.stdout else "utf-8"
    is_terminal = binary.isatty()
    if is_json and not is_terminal:  # "MUST be encoded using UTF-8" (RFC 8259, 8.1)
        encoding = "utf-8"
    if not isinstance(sys.stdout, _Output):
        # Other alphabets in a terminal without UTF-8 are no reason to fail.
        sys.stdout = _Output(binary, encoding, "replace", line_buffering=is_terminal)
