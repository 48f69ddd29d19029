"""What is printed while talking: finished turns to one stream, everything else to stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from voicechat.errors import OutputError
from voicechat.transcript import UNTRANSCRIBED, Transcript, Turn, printable

if TYPE_CHECKING:
    from rich.console import Console

    from voicechat.realtime.conversation import Conversation
    from voicechat.screen import Editor
    from voicechat.sound import EchoMode

NAMES = {"user": "You", "assistant": "Assistant", "system": "System"}


class Display:
    """Prints each turn once, when nothing more is expected of it, in the conversation's order.

    Args:
        out: Where turns go; where a line cannot be shown (the reader is gone), `OutputError`.
        err: Where notices go.
        transcript: What was said before this run is not printed again.
    """

    interval: float | None = None
    """Seconds between two calls of `look`; None: there is nothing to look at."""
    editor: "Editor | None" = None
    """Where a line is typed, if the keyboard has one."""
    keys: tuple[tuple[str, str, str], ...] = ()
    """Each key, what it does, and that in short."""

    def __init__(self, out: TextIO, err: TextIO, transcript: Transcript) -> None:
        self._out = out
        self._err = err
        self._printed = {turn.item_id for turn in transcript.turns}
        self._console: Console | None = None
        self.is_failing_to_save = False
        """What is printed from now on is on no disk, and says so."""

    def turns(self, transcript: Transcript) -> None:
        """Print the turns that are final; one whose words are awaited holds up those behind it.

        Raises:
            OutputError: Nobody reads any more.
        """
        for turn in transcript.turns:
            if turn.item_id in self._printed:
                continue
            if not turn.is_settled:
                return
            self._printed.add(turn.item_id)
            if turn.text or turn.mark == UNTRANSCRIBED:
                self._print(turn)

    def follow(self, conversation: "Conversation", now: float) -> None:
        """Something happened in the conversation."""

    def look(
        self,
        conversation: "Conversation",
        now: float,
        *,
        microphone: int,
        speaker: int,
        echo: "EchoMode | None",
    ) -> None:
        """Show how things stand, and how loud they are; called each `interval`."""

    @contextmanager
    def away(self) -> Iterator[None]:
        """Leave the terminal to somebody else, until the block is left."""
        yield

    def close(self) -> None:
        """Leave nothing on the screen that was only for the moment."""

    def _print(self, turn: Turn) -> None:
        from rich.console import Console  # not needed until someone has spoken
        from rich.text import Text

        if self._console is None:
            # The terminal breaks lines: any width will do, but the 0 of some environments.
            self._console = Console(file=self._out, width=80, highlight=False, soft_wrap=True)
        line = Text(f"{NAMES[turn.role]}:", style="bold" if turn.role == "user" else "bold cyan")
        if turn.text:
            line.append(f" {printable(turn.text)}", style="not bold default")
        for mark in (turn.mark, "not saved" if self.is_failing_to_save else ""):
            if mark:
                line.append(f" ({mark})", style="not bold dim")
        with self._console.capture() as rendered:  # rich ends the program when nobody reads
            self._console.print(line)
        self._write(rendered.get())

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except OSError as error:
            raise OutputError(
                f"the transcript cannot be printed: {error.strerror}",
                remedy="What was said is saved; see `voicechat history list`.",
            ) from error

    def notice(self, text: str) -> None:
        """Say something that is not part of the conversation."""
        try:
            self._err.write(f"{printable(text)}\n")
            self._err.flush()
        except OSError:
            pass  # the terminal is gone, as after SIGHUP: there is nobody to tell


@contextmanager
def fetching(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, which appears when there is something to fetch.

    Yields what is to be called with the bytes that are here, and how many there will be.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=console, transient=True)

    def progress(here: int, total: int) -> None:
        if not bar.tasks:
            console.print(f"Fetching {what}, once.", highlight=False)
            bar.add_task("")
            bar.start()
        bar.update(bar.task_ids[0], completed=here, total=total)

    try:
        yield progress
    finally:
        if bar.tasks:
            bar.stop()
