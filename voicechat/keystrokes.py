"""A door: the terminal as a keyboard, given back as it was found whatever happens.

`prompt_toolkit` knows how terminals send keys; here is what keys mean in a conversation.
"""

import asyncio
import os
import signal
import sys
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress

from prompt_toolkit.input.defaults import create_input
from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.keys import Keys
from prompt_toolkit.utils import is_dumb_terminal

from voicechat.kitty import ASK, BEGIN, END, SPACE_RELEASED, KeyReports
from voicechat.line_editor import LineEditor
from voicechat.realtime.inputs import (
    GoOnUnsaved,
    Input,
    Interrupted,
    MuteToggled,
    QuitRequested,
    RepeatRequested,
    TalkKeyPressed,
    TalkKeyReleased,
    TextTyped,
    Typing,
    WaitSkipped,
)

ESCAPE_AFTER = 0.05
"""Seconds after which Esc is known not to be the beginning of another key."""
GLANCE = 0.3
"""Seconds between two looks for the terminal, in the background."""
MARK_PASTES, LEAVE_PASTES = "\x1b[?2004h", "\x1b[?2004l"

_INPUTS: dict[str, Callable[[], Input]] = {
    "m": MuteToggled,
    "q": QuitRequested,
    " ": TalkKeyPressed,
    SPACE_RELEASED: TalkKeyReleased,
    "i": Interrupted,
    Keys.Escape: Interrupted,
    "r": RepeatRequested,
    "s": WaitSkipped,
    "n": GoOnUnsaved,
}
_ENTER = (Keys.ControlM, Keys.ControlJ)


class Keyboard:
    """Reads keys from standard input, which must be a terminal, and says what they mean.

    Args:
        post: Takes the inputs, on the event loop.
        away: Entered while the shell has the terminal.
        editor: Where turns are typed.
        is_held: Find out when the space bar is let go, if the terminal can tell.
    """

    def __init__(
        self,
        post: Callable[[Input], object],
        away: Callable[[], AbstractContextManager[None]],
        editor: LineEditor,
        *,
        is_held: bool,
    ) -> None:
        self.editor = editor
        self._post = post
        self._away = away
        self._shell_has_it = ExitStack()
        self._loop = asyncio.get_running_loop()
        self._terminal = create_input()
        self._decoder = getincrementaldecoder(sys.stdin.encoding)(errors="replace")
        self._reports = KeyReports()
        self._presses: list[KeyPress] = []
        self._parser = Vt100Parser(self._presses.append)
        self._mode = self._terminal.raw_mode()
        self._reading = ExitStack()
        self._flushing: asyncio.TimerHandle | None = None
        self._waiting: asyncio.TimerHandle | None = None
        self._is_held = is_held
        self._is_taken = False
        self._is_reporting = False
        """The terminal was told to send reports, and not yet to stop it."""

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Have the terminal until the block is left."""
        with ExitStack() as stack:
            stack.callback(self._give_back)
            stack.callback(self.editor.close)
            self._take()
            if sys.platform != "win32":
                self._loop.add_signal_handler(signal.SIGTSTP, self._suspend)
                stack.callback(self._loop.remove_signal_handler, signal.SIGTSTP)
                self._loop.add_signal_handler(signal.SIGCONT, self._come_back)
                stack.callback(self._loop.remove_signal_handler, signal.SIGCONT)
            yield

    def restore(self) -> None:
        """Make the terminal as it was found, for those who leave in a hurry, on any thread."""
        if not self._is_taken:
            return
        self._is_taken = False
        if sys.platform != "win32":
            self._let_report(False)
            _write(LEAVE_PASTES)
            if self._is_held and not self._reports.are_known:
                import termios

                with suppress(termios.error):  # its answer may be on the way, to a shell
                    termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
        self._mode.__exit__(None, None, None)

    # The terminal --------------------------------------------------------------------------------

    def _take(self) -> None:
        self._is_taken = True
        self._mode = self._terminal.raw_mode()
        self._mode.__enter__()
        self._reading.enter_context(self._terminal.attach(self._read))
        if sys.platform != "win32":
            _write(MARK_PASTES)
            if self._reports.are_known:
                self._let_report(not self.editor.is_open)
            elif self._is_held:
                _write(ASK)

    def _give_back(self) -> None:
        for timer in (self._flushing, self._waiting):
            if timer is not None:
                timer.cancel()
        self._reading.close()
        self.restore()

    def _suspend(self) -> None:
        """The shell wants the terminal: as it was found, then stop as if nothing were here."""
        if sys.platform != "win32":
            self._shell_has_it.enter_context(self._away())
            self._give_back()
            self._loop.remove_signal_handler(signal.SIGTSTP)
            signal.raise_signal(signal.SIGTSTP)  # this takes until ``fg`` or ``bg``
            self._loop.add_signal_handler(signal.SIGTSTP, self._suspend)
            self._come_back()

    def _come_back(self) -> None:
        """Have the terminal again, unless this goes on in the background."""
        if sys.platform != "win32":
            if self._waiting is not None:
                self._waiting.cancel()
            if not _is_in_foreground():  # ``fg`` tells nobody who runs there already
                self._waiting = self._loop.call_later(GLANCE, self._come_back)
                return
            if self._is_taken:  # stopped without warning, the shell has made it its own
                self._mode.__enter__()
            else:
                self._take()
            self._shell_has_it.close()
            self.editor.on_change()

    def _let_report(self, wanted: bool) -> None:
        """In a line that is typed, every terminal and layout is right without reports."""
        if wanted != self._is_reporting:
            self._is_reporting = wanted
            _write(BEGIN if wanted else END)

    # Keys ----------------------------------------------------------------------------------------

    def _read(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
        if sys.platform == "win32":
            self._presses += self._terminal.read_keys()
        else:
            try:
                data = os.read(sys.stdin.fileno(), 4096)
            except OSError:
                data = b""
            if not data:  # the terminal is gone
                self._reading.close()
                return
            self._parser.feed(self._reports.feed(self._decoder.decode(data)))
        self._act()
        self._flushing = self._loop.call_later(ESCAPE_AFTER, self._flush)

    def _flush(self) -> None:
        """What was the beginning of a sequence is a key, since nothing followed."""
        if sys.platform == "win32":
            self._presses += self._terminal.flush_keys()
        else:
            self._parser.feed(self._reports.flush())
            self._parser.flush()
            self._parser.flush()  # Esc twice is two keys
        self._act()

    def _act(self) -> None:
        """Do what was pressed.  Esc that was not the last of it is Alt, with the key behind it."""
        presses = self._presses.copy()
        self._presses.clear()
        was_open = self.editor.is_open
        for number, press in enumerate(presses):
            is_alt = press.key == Keys.Escape and number + 1 < len(presses)
            if not is_alt:
                follows_alt = number > 0 and presses[number - 1].key == Keys.Escape
                self._press(press, with_alt=follows_alt and press.key != Keys.Escape)
        if self._reports.are_known and self._is_taken:
            self._let_report(not self.editor.is_open)
        if presses and (was_open or self.editor.is_open):
            self._post(Typing())

    def _press(self, press: KeyPress, *, with_alt: bool) -> None:
        key = press.key.value if isinstance(press.key, Keys) else press.key
        if key == Keys.BracketedPaste:
            if self.editor.is_open:
                self.editor.paste(press.data)
            else:
                self.editor.open(press.data)
        elif key == Keys.ControlC:
            self._post(QuitRequested())
        elif key == Keys.ControlZ and sys.platform != "win32":
            os.kill(0, signal.SIGTSTP)  # to all that the shell has started with us
        elif key == Keys.ControlBackslash and sys.platform != "win32":
            self.restore()
            signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # the key waits for no last words
            signal.raise_signal(signal.SIGQUIT)
        elif self.editor.is_open:
            self._edit(f"alt-{key}" if with_alt else key)
        elif not with_alt:
            self._command(key)

    def _edit(self, key: str) -> None:
        if key in _ENTER:
            if text := self.editor.take():
                self._post(TextTyped(text))
        elif key == Keys.Escape or (key == Keys.ControlD and not self.editor.text):
            self.editor.close()
        else:
            self.editor.press(key)

    def _command(self, key: str) -> None:
        if key in _ENTER or key in ("t", "T"):
            self.editor.open()
        elif key == "?" or (key == Keys.Escape and self.editor.help_is_open):
            self.editor.toggle_help()
            self._post(Typing())
        elif (meant := _INPUTS.get(key.lower())) is not None:
            self._post(meant())


def _is_in_foreground() -> bool:
    if sys.platform == "win32":
        return True
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:  # it is no terminal of ours, or none any more: no shell takes it away
        return True


def _write(sequence: str) -> None:
    """Tell the terminal something."""
    if is_dumb_terminal():
        return
    with suppress(OSError, ValueError):  # it is gone
        for stream in (sys.stderr, sys.stdout):
            if stream.isatty():
                stream.write(sequence)
                stream.flush()
                return
