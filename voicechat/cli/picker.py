"""A door: the picker of ``voicechat resume``, where typing finds a saved session.

It is drawn on standard error, below what the terminal shows already, and takes itself away in the
end.  The cursor stays in its first line: a terminal that breaks lines anew when its size changes
then leaves nothing of the old picture above the new one.  What is typed is kept nowhere.

It is imported only when it opens: prompt_toolkit takes longer than all the rest of a short command.
"""

import asyncio
import re
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Thread

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import (
    BufferControl,
    Dimension,
    FormattedTextControl,
    HSplit,
    Layout,
    Window,
)
from prompt_toolkit.layout.processors import BeforeInput
from prompt_toolkit.output import Output, create_output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.utils import get_cwidth, is_dumb_terminal

from voicechat.display import NAMES
from voicechat.errors import VoicechatError
from voicechat.history.sessions import SavedSession
from voicechat.transcript import Turn, clock, folded, printable

PROMPT = "Resume: "
SHARE = 0.6
"""Of the terminal's height."""
MOST_ROWS, MOST_PREVIEW = 10, 6  # lines
NARROW = 60  # columns of a terminal: below, a row leaves something out
ESCAPE_AFTER = 0.05
"""Seconds after which Esc is known not to be the beginning of another key; counts twice."""
QUICK = 0.03
"""Seconds that drawing waits for a preview, so that one that is quick does not flicker."""
LONGEST_TURN = 2_000  # letters; more fit into no preview
ELLIPSIS = "…"
HEADING, SELECTED, HINT, SPEAKER = "bold", "reverse", "fg:ansicyan", "bold"

# Joiners, the choice between text and emoji, and skin tones: how wide a character with one of them
# is, terminals disagree.
_VARIANTS = re.compile("[\u200b-\u200d\ufe00-\ufe0f\U0001f3fb-\U0001f3ff]")


def pick(
    sessions: Sequence[SavedSession], preview: Callable[[SavedSession], Sequence[Turn]]
) -> SavedSession | None:
    """Let the user choose one of the sessions, or leave (None).

    Standard input and standard error must be a terminal.  No event loop may run in this thread.

    Args:
        sessions: At first, the last used of them is selected.
        preview: Reads the last turns of a session that is looked at, once.  It may take its time,
            and is then called on a thread; the message of a `VoicechatError` is shown instead.
    """
    rows = rows_of(sessions, datetime.now(UTC).astimezone())
    if is_dumb_terminal():
        return _ask(rows)
    output = create_output(stdout=sys.stderr)
    if isinstance(output, Vt100_Output):
        output.enable_cpr = False  # its answer would be taken for keys when it comes late
    return Picker(rows, preview, output).run()


@dataclass(frozen=True, slots=True)
class Row:
    """A session as it is listed, and as it is searched."""

    session: SavedSession
    when: str
    length: str
    turns: str
    about: str
    folded: str


class Picker:
    """The picture, and what the keys do to it.

    Args:
        rows: The last used first.
        preview: As for `pick`.
        output: Where it is drawn.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        preview: Callable[[SavedSession], Sequence[Turn]],
        output: Output,
    ) -> None:
        self._rows = self._matching = rows
        self._cursor = self._top = 0
        self._output = output
        self._previews = _Previews(preview, self._draw_again)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._killed_by: int | None = None
        self._typed = Buffer(multiline=False, on_text_changed=lambda _: self._search())
        line = BufferControl(self._typed, [BeforeInput(PROMPT, HEADING)], focusable=True)
        below = Window(FormattedTextControl(self._picture), height=self._height_below)
        self._application: Application[SavedSession | None] = Application(
            Layout(HSplit([Window(line, height=1), below])),
            key_bindings=self._keys(),
            output=output,
            erase_when_done=True,
            terminal_size_polling_interval=0.5 if sys.platform == "win32" else None,
        )
        self._application.ttimeoutlen = self._application.timeoutlen = ESCAPE_AFTER

    def run(self) -> SavedSession | None:
        """Open the picker until the user has chosen, or left.

        A signal that ends the program does so when the terminal is as it was found.
        """
        chosen = None
        with suppress(EOFError, OSError):  # the terminal is gone
            chosen = asyncio.run(  # not `run`, which in older versions closes no loop
                self._application.run_async(pre_run=self._watch, set_exception_handler=False)
            )
        if self._killed_by is not None:
            signal.raise_signal(self._killed_by)
        return chosen

    def _watch(self) -> None:
        self._loop = asyncio.get_running_loop()
        if sys.platform != "win32":
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) == signal.SIG_DFL:  # which it is again afterwards
                    self._loop.add_signal_handler(number, self._be_killed, number)

    def _be_killed(self, number: int) -> None:
        self._killed_by = number
        self._leave()

    def _draw_again(self) -> None:
        """Runs on the thread of a preview."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the user has chosen in the meantime
                self._loop.call_soon_threadsafe(self._application.invalidate)

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        distances: dict[tuple[str, ...], Callable[[], int]] = {
            ("up", "c-p"): lambda: -1,
            ("down", "c-n"): lambda: 1,
            ("pageup",): lambda: -self._heights()[0],
            ("pagedown",): lambda: self._heights()[0],
            ("home",): lambda: -len(self._rows),
            ("end",): lambda: len(self._rows),
        }
        for names, distance in distances.items():
            for name in names:
                keys.add(name)(lambda _, distance=distance: self._move(distance()))
        for sequence in (("escape",), ("escape", "escape"), ("c-c",), ("<sigint>",)):
            keys.add(*sequence)(lambda _: self._leave())
        for sequence in (("escape", "<any>"), ("c-z",), ("c-q",)):  # Alt and a key: not Esc
            keys.add(*sequence)(lambda _: None)
        keys.add("enter")(lambda _: self._take())
        keys.add(Keys.BracketedPaste)(self._paste)
        return keys

    def _move(self, distance: int) -> None:
        self._cursor = max(0, min(self._cursor + distance, len(self._matching) - 1))

    def _search(self) -> None:
        self._matching = _matching(self._rows, self._typed.text)
        self._cursor = self._top = 0

    def _paste(self, event: KeyPressEvent) -> None:
        self._typed.insert_text(printable(event.data))

    def _take(self) -> None:
        if self._matching:
            self._leave(self._matching[self._cursor].session)

    def _leave(self, chosen: SavedSession | None = None) -> None:
        if not self._application.is_done:  # keys may come faster than it ends
            self._application.exit(result=chosen)
            with suppress(OSError):  # the terminal is gone
                self._wipe()

    def _wipe(self) -> None:
        """Empty the lines one by one: tmux keeps what is erased at once from the screen's top."""
        screen = self._application.renderer.last_rendered_screen
        height = min(screen.height, self._output.get_size().rows) if screen else 0
        self._output.cursor_backward(self._output.get_size().columns)
        for _ in range(height - 1):
            self._output.erase_end_of_line()
            self._output.cursor_down(1)
        self._output.erase_end_of_line()
        self._output.cursor_up(height - 1)

    def _heights(self) -> tuple[int, int]:
        """Lines of the list and of the preview; the line between them is there if both are."""
        room = int(self._output.get_size().rows * SHARE) - 1
        if room < 3:
            return max(1, room), 0
        room -= 1
        listed = max(1, min(MOST_ROWS, len(self._rows), max(room - MOST_PREVIEW, room - room // 2)))
        return listed, min(MOST_PREVIEW, room - listed)

    def _height_below(self) -> Dimension:
        listed, previewed = self._heights()
        lines = listed + 1 + previewed if previewed else listed
        return Dimension(min=0, preferred=lines, max=lines)

    def _picture(self) -> StyleAndTextTuples:
        width = self._output.get_size().columns - 1
        listed, previewed = self._heights()
        lines = self._list(listed, width)
        if previewed:
            lines.append([(HINT, fitted(self._hint(), width))])
        if previewed and self._matching:
            session = self._matching[self._cursor].session
            lines += _preview_lines(self._previews.of(session), width, previewed)
        return [fragment for line in lines for fragment in (*line, ("", "\n"))][:-1]

    def _list(self, height: int, width: int) -> list[StyleAndTextTuples]:
        """Exactly `height` lines, the one under the cursor among them."""
        self._top = max(0, min(self._top, self._cursor, len(self._matching) - height))
        self._top = max(self._top, self._cursor - height + 1)
        lines: list[StyleAndTextTuples] = []
        for position in range(self._top, min(self._top + height, len(self._matching))):
            is_selected = position == self._cursor
            text = ("> " if is_selected else "  ") + _line(self._matching[position], width - 2)
            lines.append([(SELECTED if is_selected else "", fitted(text, width))])
        if not lines:
            lines.append([("", fitted("  No saved session has all these words.", width))])
        return lines + [[] for _ in range(height - len(lines))]

    def _hint(self) -> str:
        if not self._matching:
            return "Esc leaves, Backspace takes back what you typed."
        return f"{self._cursor + 1} of {len(self._matching)}. Enter resumes it, Esc leaves."


Spoken = tuple[str, str]
"""Who, and what they said, ready to be shown."""


class _Previews:
    """The last turns of the sessions that were looked at, each read once, one at a time.

    Reading happens on a thread, so that it never holds up a key, nor the end of the program.
    """

    def __init__(
        self,
        preview: Callable[[SavedSession], Sequence[Turn]],
        draw_again: Callable[[], object],
    ) -> None:
        self._preview = preview
        self._draw_again = draw_again
        self._known: dict[SavedSession, list[Spoken]] = {}
        self._is_reading = False

    def of(self, session: SavedSession) -> list[Spoken]:
        """What is known of this session by now; when there is more, all is drawn again."""
        if session not in self._known and not self._is_reading:
            self._is_reading = True
            reader = Thread(target=self._read, args=(session,), daemon=True)
            reader.start()
            reader.join(QUICK)
        return self._known.get(session, [("", ELLIPSIS)])

    def _read(self, session: SavedSession) -> None:
        try:
            turns = self._preview(session)
        except VoicechatError as error:
            self._known[session] = [("", _shown(f"{error.message}. {error.remedy}"))]
        else:
            self._known[session] = [_spoken(turn) for turn in turns[-MOST_PREVIEW:]]
        self._is_reading = False
        self._draw_again()


def _ask(rows: Sequence[Row]) -> SavedSession | None:
    """The picker of a terminal that can only write line below line."""
    width = shutil.get_terminal_size().columns - 1
    matching = rows
    while True:
        for number, each in enumerate(matching[:MOST_ROWS], 1):
            sys.stderr.write(fitted(f"{number:2}  {_line(each, width - 4)}", width) + "\n")
        what = "Enter takes the first, a number another" if matching else "No saved session"
        sys.stderr.write(f"{what}; words search, Ctrl-C leaves.\n{PROMPT}")
        sys.stderr.flush()
        try:
            answer = sys.stdin.buffer.readline().decode(errors="replace")
        except KeyboardInterrupt:
            answer = ""
        if not answer:
            sys.stderr.write("\n")
            return None
        numbered = {str(number): each for number, each in enumerate(matching[:MOST_ROWS], 1)}
        if row := numbered.get(answer.strip() or "1"):
            return row.session
        matching = _matching(rows, answer)


def rows_of(sessions: Sequence[SavedSession], now: datetime) -> list[Row]:
    """The sessions in the order in which they are listed, all that takes time done."""
    ordered = sorted(sessions, key=lambda session: session.last_used, reverse=True)
    return [_row(session, now) for session in ordered]


def _row(session: SavedSession, now: datetime) -> Row:
    used = session.last_used.astimezone()
    when, date = _when(used, now), f"{used:%Y-%m-%d %H:%M}"
    texts = (session.name or "", session.first_words, session.model or "")
    local = "local" if session.local else ""
    return Row(
        session=session,
        when=when,
        length=clock(session.duration_ms),
        turns=str(session.turns),
        about=_shown(session.name or session.first_words),
        folded=folded("\n".join((session.id, when, date, local, *map(_shown, texts)))),
    )


def _matching(rows: Sequence[Row], typed: str) -> Sequence[Row]:
    """The rows in which all these words occur."""
    words = folded(_shown(typed)).split()
    return [row for row in rows if all(word in row.folded for word in words)]


def _line(row: Row, width: int) -> str:
    """The columns of a row that there is room for; the last is not cut off here."""
    if width + 2 < NARROW:
        return f"{row.when:11} {row.turns:>3}  {row.about}"
    turns = f"{row.turns} turn{'s' * (row.turns != '1')}"
    return f"{row.when:11}  {row.length:>7}  {turns:>9}  {row.about}"


def _when(used: datetime, now: datetime) -> str:
    if used.date() == now.date():
        return f"today {used:%H:%M}"
    if used.date() == now.date() - timedelta(days=1):
        return "yesterday"
    return f"{used:%Y-%m-%d}"


def _shown(text: str) -> str:
    """Text whose width all terminals agree about."""
    return printable(_VARIANTS.sub("", text))


def _spoken(turn: Turn) -> Spoken:
    mark = f"({turn.mark})" if turn.mark else ""
    return NAMES[turn.role], f"{_shown(turn.text[:LONGEST_TURN])} {mark}".strip()


def _preview_lines(turns: Sequence[Spoken], width: int, height: int) -> list[StyleAndTextTuples]:
    """The last turns that fit; one that is long takes half of the lines."""
    lines: list[StyleAndTextTuples] = []
    for speaker, text in reversed(turns):
        room = min(height - len(lines), max(1, height // 2)) if speaker else height
        if height == len(lines):
            break
        label = f"{speaker}:" if speaker else ""
        first, *others = wrapped(f"{label} {text}".strip(), width, room)
        head: StyleAndTextTuples = [(SPEAKER, first[: len(label)]), ("", first[len(label) :])]
        rest: list[StyleAndTextTuples] = [[("", other)] for other in others]
        lines = [head, *rest, *lines]
    return lines


def fitted(text: str, width: int) -> str:
    """Text in at most `width` cells of a terminal, an ellipsis in place of what is cut off."""
    head = _head(text, width)
    return head if head == text else _head(text, width - 1).rstrip() + ELLIPSIS * (width > 0)


def wrapped(text: str, width: int, height: int) -> list[str]:
    """Text in at least one and at most `height` lines, broken between words where there are some.

    Args:
        width: Of a line, in cells.
    """
    lines: list[str] = []
    while len(lines) < height - 1 and (head := _head(text, width) or text[:1]) != text:
        if text[len(head)] != " " and (end := head.rfind(" ")) > len(head) // 3:
            head = head[:end]  # unless there is next to nothing before, as in Chinese
        lines.append(head.rstrip())
        text = text[len(head) :].lstrip()
    return [*lines, fitted(text, width)]


def _head(text: str, width: int) -> str:
    """As much of the beginning as fits into so many cells."""
    used = 0
    for position, letter in enumerate(text):
        used += get_cwidth(letter)
        if used > width:
            return text[:position]
    return text
