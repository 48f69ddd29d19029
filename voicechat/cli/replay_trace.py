"""``voicechat replay-trace``: what the conversation core decides about a trace."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count, groupby
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from voicechat.errors import ExitCode, UsageError
from voicechat.transcript import printable, to_json

if TYPE_CHECKING:
    from voicechat.realtime.tracing import Decision

LONGEST_LINE = 1 << 26
"""Bytes: a history of a million words fits in."""
WIDEST = 160
"""Letters of a line about one effect."""


def replay_trace(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Of --trace; - is standard input.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: one JSON object a line.")
    ] = False,
) -> None:
    """Show what the conversation decides about a trace.

    It is run over the trace; times are in seconds. Nothing is connected to, played or saved. Where
    it decided otherwise when the trace was made, + marks what it decides now and - what it did
    then, below what had happened. Exits with 1 if there is such a difference.
    """
    from voicechat.realtime.tracing import MalformedTraceError, replayed

    is_same = True
    with _reading(file) as stream:
        try:
            for decisions in _runs(replayed(_lines(stream, file))):
                is_same &= not decisions[0].mark
                if as_json:
                    for each in decisions:
                        typer.echo(to_json({"mark": each.mark, **each.effect}))
                else:
                    _show(decisions)
        except MalformedTraceError as error:
            where = f" in line {error.line}" if error.line else ""
            raise UsageError(
                f"{file!r} is not a trace{where}: {error}",
                remedy="Give a file that `voicechat talk --trace FILE` has written.",
            ) from error
    if not is_same:
        raise typer.Exit(ExitCode.ERROR)


@contextmanager
def _reading(file: str) -> Iterator[IO[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = open(file, "rb")  # noqa: SIM115, PTH123  # errors of the body are not of the file
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error
    with stream:
        yield stream


def _unreadable(file: str, error: Exception) -> UsageError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return UsageError(
        f"the trace {file!r} cannot be read: {reason.lower()}",
        remedy="Give a file that `voicechat talk --trace FILE` has written.",
    )


def _lines(stream: IO[bytes], file: str) -> Iterator[dict[str, Any]]:
    """Every line; the last one may be torn, if the program was killed while it was written."""
    from voicechat.realtime.tracing import MalformedTraceError

    for number in count(1):
        try:
            line = stream.readline(LONGEST_LINE)
        except OSError as error:
            raise _unreadable(file, error) from error
        if not line:
            return
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            if not line.endswith(b"\n") and len(line) < LONGEST_LINE:
                typer.echo("The last line is torn, and left out.", err=True)
                return
            raise MalformedTraceError("it is not JSON", number) from error
        if not isinstance(value, dict):
            raise MalformedTraceError("it is not an object", number)
        yield value


def _runs(decisions: Iterable["Decision"]) -> Iterator[list["Decision"]]:
    """What is alike but for time and length together: of sound, there is much."""
    for _, run in groupby(decisions, lambda each: (each.mark, *_about_sound(each.effect))):
        yield list(run)


def _about_sound(effect: Any) -> tuple[Any, ...]:
    event = effect.get("event")
    if effect.get("out") == "play":
        return "play", str(effect.get("item_id"))
    if isinstance(event, dict) and event.get("type") == "input_audio_buffer.append":
        return "append", str(effect.get("connection"))
    return (object(),)  # like nothing else


def _show(decisions: list["Decision"]) -> None:
    first, number = decisions[0], len(decisions)
    if first.mark and first.after:
        typer.echo(f"  {_line(first.after, 'in')}")
    times = f"  ({number} times)" if number > 1 else ""
    typer.echo(f"{first.mark or ' '} {_line(first.effect, 'out')}{times}")


def _line(line: Any, direction: str) -> str:
    """Time, kind, connection and event if there are any, and the rest."""
    rest = {name: value for name, value in line.items() if name not in ("ms", direction)}
    connection, event = rest.pop("connection", None), rest.pop("event", None)
    words = [str(line.get(direction))]
    if connection is not None:
        words.append(str(connection))
    if isinstance(event, dict):
        words.append(str(event.get("type")))
        rest = {**rest, **{name: value for name, value in event.items() if name != "type"}}
    told = {name: value for name, value in rest.items() if value is not None}
    if told:
        words.append(to_json(told))
    ms = line.get("ms")
    seconds = f"{ms / 1000:10.3f}" if isinstance(ms, int | float) else " " * 10
    arrow = ">" if direction == "out" else "<"
    shown = printable(" ".join(words))
    return f"{seconds} {arrow} {shown if len(shown) <= WIDEST else f'{shown[: WIDEST - 1]}…'}"
