"""Keys while talking: a door that turns them into inputs.

`m` mutes, `t` or Enter begins a typed turn, Space takes and gives the floor where voice detection
is off, `q` hangs up.  In a typed turn every key is text, and Enter sends it.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from voicechat.realtime.inputs import (
    Input,
    MuteToggled,
    QuitRequested,
    TalkKeyPressed,
    TextTyped,
)

HELP = "m mutes, t or Enter types a turn, q hangs up."

_KEYS: dict[str, Callable[[], Input]] = {
    "m": MuteToggled,
    "q": QuitRequested,
    "\x03": QuitRequested,
    " ": TalkKeyPressed,
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
    is_typing = False

    def read() -> None:
        nonlocal is_typing
        data = os.read(terminal, 4096)
        if not data:
            loop.remove_reader(terminal)
            return
        if is_typing:  # the terminal edits the line and hands it over whole
            is_typing = False
            tty.setcbreak(terminal)
            if text := data.decode(errors="replace").strip():
                post(TextTyped(text))
            return
        for key in data.decode(errors="replace").lower():
            if key in ("t", "\n", "\r"):
                is_typing = True
                restore()
                if sys.stderr.isatty():
                    sys.stderr.write("> ")
                    sys.stderr.flush()
                return
            if key in _KEYS:
                post(_KEYS[key]())

    def restore() -> None:
        termios.tcsetattr(terminal, termios.TCSADRAIN, as_found)

    tty.setcbreak(terminal)
    loop.add_reader(terminal, read)
    try:
        yield restore
    finally:
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
