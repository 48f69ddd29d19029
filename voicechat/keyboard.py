"""Keys while talking: what they are, and a door that turns them into inputs."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from voicechat.realtime.inputs import Input

if TYPE_CHECKING:
    from voicechat.keystrokes import Keyboard

HELP = "m mutes, t or Enter types a turn, q hangs up, ? shows all keys."
KEYS = (
    (
        "Space",
        "With --vad none: begin your turn, and end it; hold it where the terminal can tell.",
        "talk",
    ),
    ("m", "Mute the microphone, or open it again.", "mute"),
    (
        "t, Enter",
        "Type a turn; Enter sends it, Up finds earlier ones, Esc closes the line.",
        "type",
    ),
    ("i, Esc", "Interrupt the answer.", "interrupt"),
    ("r", "Repeat the last answer, as far as it was received.", "repeat"),
    ("s", "Skip the wait for a summary.", "skip"),
    ("n", "When asked because the disk is full: go on without saving.", "unsaved"),
    ("?", "Show the keys, or hide them.", "hide"),
    ("Ctrl-Z", "Stop the program; fg goes on.", "suspend"),
    ("q, Ctrl-C", "Hang up.", "hang up"),
)
"""Every key, what it does, and that in a word for small screens, for whoever shows the help."""


@contextmanager
def keyboard(
    post: Callable[[Input], object],
    away: Callable[[], AbstractContextManager[None]] = nullcontext,
    *,
    typed_before: Iterable[str] = (),
    is_held: bool = False,
) -> "Iterator[Keyboard | None]":
    """Post what the keys mean, on the event loop, until closed.  Without a terminal: nothing.

    Args:
        away: Entered while the shell has the terminal, after Ctrl-Z.
        typed_before: What the line editor offers of earlier turns.
        is_held: The talk key matters, so find out whether the terminal tells when it is let go.
    """
    if not sys.stdin or not sys.stdin.isatty():
        yield None
        return
    from voicechat.keystrokes import Keyboard  # here, not above: prompt_toolkit takes its time
    from voicechat.line_editor import LineEditor

    keys = Keyboard(post, away, LineEditor(typed_before), is_held=is_held)
    with keys.reading():
        yield keys
