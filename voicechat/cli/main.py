"""The commands of ``voicechat``, and what becomes of errors."""

import io
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from voicechat import __version__
from voicechat.cli import export, history, local, talk
from voicechat.errors import ExitCode, OutputError, VoicechatError


class _Group(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """Run a command; a reader that went away (``| head``) is an error like any other."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise OutputError(
                "nobody reads the output any more",
                remedy="Let the program behind the pipe read to the end, or write to a file.",
            ) from error
        return result


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Talk with a voice model from the terminal, and go on tomorrow.",
)
app.command("talk")(talk.talk)
app.command("resume")(talk.resume)
app.add_typer(history.app, name="history")
app.command("export")(export.export)
app.add_typer(local.app, name="local")


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"voicechat {__version__}")
        raise typer.Exit


@app.callback()
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
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # other alphabets in a terminal without UTF-8
    try:
        app(arguments)
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
    import os

    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
