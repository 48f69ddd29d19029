"""A door: a terminal in which turns scroll up, with one live area below them.

Everything is one write: the live area is drawn over itself, or what is new is put in its place and
the area below that.  Turns are lines that the terminal wraps, so that they are copied whole.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TextIO

from rich.console import Console
from rich.text import Text

from voicechat.display import Display
from voicechat.errors import OutputError
from voicechat.prices import Price
from voicechat.realtime.conversation import Conversation
from voicechat.screen import Drawing, Shown, finished, render
from voicechat.sound import EchoMode
from voicechat.transcript import Transcript, Turn, printable
from voicechat.view import shown

INTERVAL = 0.1
"""Seconds: no more than ten redraws in one."""
STEADY = 0.3
"""Seconds without another change after which the size of a terminal is to be trusted: tmux tells of
quick changes a quarter of a second after it has made them."""
ON_THE_WAY = 0.05
"""Seconds for which what was written may not have reached the terminal."""
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"
"""Synchronised output: terminals that know it show what is between at once, others ignore it."""
UNWRAPPED, WRAPPED = "\x1b[?7l", "\x1b[?7h"
CLEAR_LINE, CLEAR_TO_END = "\x1b[2K", "\x1b[J"
CLEAR_FROM_HERE = f"{CLEAR_LINE}\x1b[C{CLEAR_TO_END}\r"
"""Not from the first column: at the top of its screen, tmux takes that for ``clear``, and keeps
what was there in the scrollback."""
USUAL_SIZE = 80, 24


class Terminal(Display):
    """Shows the turns, and below them how things stand.

    Args:
        out: A terminal that obeys ANSI escape sequences.
        err: Where notices go; if that is the same terminal, they stand between the turns.
        transcript: What was said before this run is not printed again.
        prices: What tokens cost, by model.
    """

    interval = INTERVAL

    def __init__(
        self,
        out: TextIO,
        err: TextIO,
        transcript: Transcript,
        *,
        prices: Mapping[str, Price],
    ) -> None:
        super().__init__(out, err, transcript)
        self._prices = prices
        self._is_shared = _is_same_terminal(out, err)
        # The terminal breaks lines: any width will do, but the 0 of some environments.
        self._styles = Console(file=out, width=80, highlight=False, soft_wrap=True)
        self._shown: Shown | None = None
        self._drawing: Drawing | None = None
        """What is on the terminal."""
        self._size = self._drawn_for = self._measured()
        self._steady_at = 0.0
        self._is_steady = True
        """The size of the terminal is no other than a while ago."""
        self._late = ""
        """What is to be put above the live area as soon as it is known where that begins."""
        self._drawn_at = 0.0
        self._resized_at: float | None = None
        """Since the last look, by the terminal's own word: it may have its old size again."""
        self._is_torn = False
        """The terminal has changed while it was drawn to: who knows where our lines were broken."""
        if sys.platform != "win32":
            signal.signal(signal.SIGWINCH, self._hear_of_resizing)
            signal.siginterrupt(signal.SIGWINCH, False)
        self._away = 0
        """So many others have the terminal."""

    @staticmethod
    def suits(out: TextIO) -> bool:
        """Is this a terminal in which the cursor can be moved?"""
        if not out.isatty():
            return False
        console = Console(file=out)
        return not (console.is_dumb_terminal or console.legacy_windows)

    def look(
        self,
        conversation: Conversation,
        now: float,
        *,
        microphone: int,
        speaker: int,
        echo: EchoMode | None,
    ) -> None:
        """Draw how things stand, if anything is another than before."""
        if (size := self._measured()) != self._size or self._resized_at is not None:
            self._size, self._steady_at, self._resized_at = size, now + STEADY, None
        self._is_steady = now >= self._steady_at
        current = shown(
            conversation,
            now,
            microphone=microphone,
            speaker=speaker,
            echo=echo,
            prices=self._prices,
            printed=self._printed,
            editor=self.editor,
            keys=self.keys,
        )
        is_news = current != self._shown or self._drawn_for != self._size
        if self._is_sure() and (self._drawing is None or self._late or is_news):
            self._shown = current
            self._draw()

    def notice(self, text: str) -> None:
        """Say something that is not part of the conversation, between the turns."""
        if not self._is_shared or self._drawing is None:
            super().notice(text)
            return
        with suppress(OutputError):  # the terminal is gone: there is nobody to tell
            self._put_above(Text(printable(text), style="dim"))

    @contextmanager
    def away(self) -> Iterator[None]:
        """Leave the terminal to the shell, or to whoever else writes to it."""
        self._erase()
        self._away += 1
        try:
            yield
        finally:
            self._away -= 1

    def close(self) -> None:
        """Take the live area away, for good."""
        self._erase()
        self._away += 1

    def _print(self, turn: Turn) -> None:
        if self._shown is not None:  # it is not live any more
            rest = tuple(each for each in self._shown.turns if each.item_id != turn.item_id)
            self._shown = replace(self._shown, turns=rest)
        self._put_above(finished(turn, is_saved=not self.is_failing_to_save))

    # Drawing -------------------------------------------------------------------------------------

    def _put_above(self, line: Text) -> None:
        written = f"{self._rendered(line)}\n"
        if self._drawing is None:
            self._write(written)
            return
        self._late += written
        if self._is_sure():
            self._write(f"{BEGIN}{self._taken_away()}{self._drawn()}{END}")

    def _draw(self) -> None:
        if self._away:
            return
        above = self._taken_away() if self._late else ""
        with suppress(OutputError):  # the terminal is gone, and a signal says so
            self._write(f"{BEGIN}{above}{self._drawn()}{END}")

    def _erase(self) -> None:
        if self._drawing is not None:
            written = self._taken_away()
            with suppress(OutputError):
                self._write(written)

    def _taken_away(self) -> str:
        """No live area any more, and in its place what has waited for that."""
        written = f"{self._to_top()}{CLEAR_FROM_HERE}{self._late}"
        self._drawing, self._late = None, ""
        return written

    def _hear_of_resizing(self, *_: object) -> None:
        self._resized_at = time.monotonic()
        self._is_torn = self._is_torn or self._resized_at < self._drawn_at + ON_THE_WAY

    def _is_sure(self) -> bool:
        """The terminal is as wide as it says, so that it is known how it has broken our lines."""
        is_told = self._resized_at is not None or self._measured() != self._size
        return self._is_steady and not is_told

    def _drawn(self) -> str:
        """The live area, from its first line or the cursor's; the cursor stays in its last."""
        if self._shown is None:
            return ""
        size = self._measured()
        top = self._to_top()
        if size != self._drawn_for:
            top += CLEAR_FROM_HERE  # the terminal has broken our lines in its own way
        self._drawn_for = columns, rows = size
        self._drawn_at, self._is_torn = time.monotonic(), False
        # Never the last column, where the cursor of some terminals hangs between two lines.
        self._drawing = render(self._shown, max(1, columns - 1), max(1, rows - 1))
        # Lines are cleared whole, so that none is still taken for the first half of a longer one.
        # A terminal may be narrower for some time before it says so (tmux): then nothing is to be
        # broken, or there are more lines than we know of.
        lines = "\n".join(f"{CLEAR_LINE}{self._rendered(line)}" for line in self._drawing.lines)
        cursor = self._drawing.cursor
        behind = f"{CLEAR_TO_END}{WRAPPED}\r" + (f"\x1b[{cursor}C" if cursor else "")
        return f"{top}{UNWRAPPED}{lines}{behind}"

    def _to_top(self) -> str:
        """From the cursor to the beginning of the live area.

        Most terminals break lines anew when they become narrower, those of the live area, too.
        Where it is not sure how they were broken, rather too much is left than a turn erased.
        """
        if self._drawing is None:
            return "\r"
        *above, _ = self._drawing.lines
        up = len(above)
        if self._is_sure() and not self._is_torn:
            columns, _ = self._size
            up += sum(max(0, line.cell_len - 1) // columns for line in above)
            up += max(0, self._drawing.cursor - 1) // columns
        return "\r" + (f"\x1b[{up}A" if up else "")

    def _rendered(self, line: Text) -> str:
        with self._styles.capture() as rendered:
            self._styles.print(line, end="")
        return rendered.get()

    def _measured(self) -> tuple[int, int]:
        try:
            columns, rows = os.get_terminal_size(self._out.fileno())
        except OSError:
            return USUAL_SIZE
        return columns or USUAL_SIZE[0], rows or USUAL_SIZE[1]


def _is_same_terminal(one: TextIO, other: TextIO) -> bool:
    try:
        if not (one.isatty() and other.isatty()):
            return False
        if sys.platform == "win32":  # there is one at the most
            return True
        return os.fstat(one.fileno()).st_rdev == os.fstat(other.fileno()).st_rdev
    except OSError:
        return False
