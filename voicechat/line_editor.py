"""A line that is typed while the conversation goes on: every key is text, or moves in it."""

from collections.abc import Callable, Iterable

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.keys import Keys

from voicechat.transcript import printable, unbroken


class LineEditor:
    """What the keys have opened, a line or the help, for whoever shows it.

    Args:
        history: What Up offers, the latest last; what is typed is added.
    """

    def __init__(self, history: Iterable[str] = ()) -> None:
        self.is_open = False
        self.help_is_open = False
        """What the keys do is to be shown."""
        self.on_change: Callable[[], object] = bool
        """Called when anything that is to be shown is another."""
        self._buffer = Buffer(multiline=False)
        # Not the buffer's own history, which loads in a task of an application, and none runs.
        self._history = [line for each in history if (line := printable(each))]
        self._lines = [""]
        """The history and, last, the line that is typed; changes to them last until it is sent."""
        self._place = 0

    @property
    def text(self) -> str:
        """The line."""
        return self._buffer.text

    @property
    def cursor(self) -> int:
        """How many characters of the line are before the cursor."""
        return self._buffer.cursor_position

    def open(self, text: str = "") -> None:
        """Begin a line, perhaps with what was pasted."""
        self._lines, self._place = [*self._history, ""], len(self._history)
        self.is_open, self.help_is_open = True, False
        self.paste(text)

    def close(self) -> None:
        """Forget the line, if there is one."""
        if not self.is_open:
            return
        self._buffer.reset()
        self.is_open = False
        self.on_change()

    def toggle_help(self) -> None:
        """Show what the keys do, or hide it."""
        self.help_is_open = not self.help_is_open
        self.on_change()

    def take(self) -> str:
        """Close the line, and return what was typed."""
        line = printable(self.text)
        if line and line not in self._history[-1:]:
            self._history.append(line)
        self.close()
        return line

    def paste(self, text: str) -> None:
        """Put in what was pasted, as part of the one line."""
        self._buffer.insert_text(printable(unbroken(text)))
        self.on_change()

    def press(self, key: str) -> None:
        """A key that is text, or moves, or deletes; with Alt, its name begins with ``alt-``."""
        document = self._buffer.document
        if key in _MOVES:
            self._buffer.cursor_position += _MOVES[key](document)
        elif key in _DELETES:
            distance = _DELETES[key](document)
            self._buffer.delete_before_cursor(max(0, -distance))
            self._buffer.delete(max(0, distance))
        elif key in _RECALLS:
            self._recall(_RECALLS[key])
        elif len(key) == 1 and (key.isprintable() or key == _JOINER):
            self._buffer.insert_text(key)
        else:
            return
        self.on_change()

    def _recall(self, steps: int) -> None:
        """Go up or down in the history."""
        self._lines[self._place] = self.text
        self._place = max(0, min(self._place + steps, len(self._lines) - 1))
        line = self._lines[self._place]
        self._buffer.document = Document(line, len(line))


_JOINER = "\u200d"  # makes one picture of several


def _start(document: Document) -> int:
    return -document.cursor_position


def _end(document: Document) -> int:
    return len(document.text) - document.cursor_position


def _previous_word(document: Document) -> int:
    return document.find_previous_word_beginning() or _start(document)


def _next_word(document: Document) -> int:
    return document.find_next_word_ending() or _end(document)


def _left(document: Document) -> int:
    return max(-1, _start(document))


def _right(document: Document) -> int:
    return min(1, _end(document))


_Distance = Callable[[Document], int]
"""From the cursor, in characters."""

_MOVES: dict[str, _Distance] = {
    Keys.Left: _left,
    Keys.ControlB: _left,
    Keys.Right: _right,
    Keys.ControlF: _right,
    Keys.Home: _start,
    Keys.ControlA: _start,
    Keys.End: _end,
    Keys.ControlE: _end,
    Keys.ControlLeft: _previous_word,
    "alt-b": _previous_word,
    Keys.ControlRight: _next_word,
    "alt-f": _next_word,
}
_DELETES: dict[str, _Distance] = {
    Keys.Backspace: _left,
    Keys.Delete: _right,
    Keys.ControlD: _right,
    Keys.ControlW: _previous_word,
    f"alt-{Keys.Backspace.value}": _previous_word,
    "alt-d": _next_word,
    Keys.ControlU: _start,
    Keys.ControlK: _end,
}
_RECALLS: dict[str, int] = {Keys.Up: -1, Keys.ControlP: -1, Keys.Down: 1, Keys.ControlN: 1}
