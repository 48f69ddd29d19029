"""Keys while talking: a door that turns them into inputs.

`m` mutes, `t` or Enter begins a typed turn, Space takes and gives the floor where voice detection
is off, `s` skips the wait for a summary, `n` goes on though nothing more can be saved, `q` hangs
up.  In a typed turn every key is text, and Enter sends it.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from voicechat.realtime.inputs import (
    GoOnUnsaved,
    Input,
    MuteToggled,
    QuitRequested,
    TalkKeyPressed,
    TextTyped,
    Typing,
    WaitSkipped,
)

HELP = "m mutes, t or Enter types a turn, q hangs up."

_KEYS: dict[str, Callable[[], Input]] = {
    "m": MuteToggled,
    "q": QuitRequested,
    "\x03": QuitRequested,
    " ": TalkKeyPressed,
    "s": WaitSkipped,
    "n": GoOnUnsaved,
}


@contextmanager
def keyboard(post: Callable[[Input], object]) -> Iterator[Callable[[], object]]:
    """Post what the keys mean, on the event loop, until closed.  Without a terminal: nothing.

    Yields what makes the terminal as it was found, for those who leave in a hurry.
    """
    if not sys.stdin or not sys.stdin.isatty():
        yield bool
    elif sys.platform == "win32":
        with _windows_keyboard(post):
            yield bool
    else:
        with _posix_keyboard(post) as restore:
            yield restore


@contextmanager
def _posix_keyboard(post: Callable[[Input], object]) -> Iterator[Callable[[], object]]:
    import termios
    import tty

    terminal, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    as_found = termios.tcgetattr(terminal)
    is_typing, typed_ahead = False, ""

    def take_keys() -> None:
        with suppress(termios.error):  # the terminal is gone
            tty.setcbreak(terminal, termios.TCSADRAIN)

    def restore() -> None:
        with suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSADRAIN, as_found)

    def read() -> None:
        try:
            data = os.read(terminal, 4096).decode(errors="replace")
        except OSError:
            data = ""
        if not (data or is_typing):
            loop.remove_reader(terminal)
            return
        take(data)

    def take(data: str) -> None:
        nonlocal is_typing, typed_ahead
        while data or is_typing:
            if is_typing:  # the terminal edits the line and hands it over whole; Ctrl-D: nothing
                line, _, data = (typed_ahead + data).partition("\n")
                is_typing, typed_ahead = False, ""
                take_keys()
                if line.strip():
                    post(TextTyped(line.strip()))
                continue
            key, data = data[0].lower(), data[1:]
            if key in _KEYS:
                post(_KEYS[key]())
            elif key in ("t", "\n", "\r"):
                is_typing = True
                post(Typing())
                restore()
                if sys.stderr.isatty():
                    sys.stderr.write("> ")
                    sys.stderr.flush()
                if "\n" not in data:
                    typed_ahead = data
                    return

    def come_back() -> None:
        """After Ctrl-Z and ``fg``, the shell has made the terminal its own."""
        if not is_typing:
            take_keys()

    take_keys()
    loop.add_reader(terminal, read)
    loop.add_signal_handler(signal.SIGCONT, come_back)
    try:
        yield restore
    finally:
        loop.remove_signal_handler(signal.SIGCONT)
        loop.remove_reader(terminal)
        restore()


@contextmanager
def _windows_keyboard(post: Callable[[Input], object]) -> Iterator[None]:
    if sys.platform != "win32":
        return
    import msvcrt
    import threading

    loop, is_over = asyncio.get_running_loop(), threading.Event()

    def read() -> None:
        while not is_over.wait(0.05):
            while msvcrt.kbhit():
                key = msvcrt.getwch().lower()
                if key in ("t", "\r"):
                    loop.call_soon_threadsafe(post, Typing())
                    text = input("> ").strip()
                    if text:
                        loop.call_soon_threadsafe(post, TextTyped(text))
                elif key in _KEYS:
                    loop.call_soon_threadsafe(post, _KEYS[key]())

    threading.Thread(target=read, daemon=True).start()
    try:
        yield
    finally:
        is_over.set()
