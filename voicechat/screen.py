"""What a terminal shows below the turns that are over: pure, and the same for the same `Shown`.

`Shown` is everything there is to see at a moment, and `render` makes lines of it.  `voicechat.view`
finds out what there is to see, `voicechat.terminal` draws the lines.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from rich.cells import cell_len, chop_cells
from rich.text import Text

from voicechat.sound import EchoMode
from voicechat.transcript import Role, Turn, printable

NAMES: dict[Role, str] = {"user": "You", "assistant": "Assistant", "system": "System"}
STYLES: dict[Role, str] = {"user": "bold", "assistant": "bold cyan", "system": "bold cyan"}
SLOW = 1.0
"""Seconds from which the latency of an answer is red."""
BAR = 6
"""Cells of a level; as many as there are levels."""
LIVE_TURNS = 4
LIVE_LINES = 3
"""Of each: the last ones, since all of them are there as soon as the turn is over."""
PROMPT = "> "
GAP = "  "
STANDING = 11
"""Cells: what is behind it stays where it is, and both levels fit into 40 columns."""
ECHO: dict[EchoMode, str] = {
    "cancel": "echo cancelled",
    "half-duplex": "half-duplex",
    "off": "echo not cancelled",
}


class Editor(Protocol):
    """A line that is being typed, and whether the keys are to be explained."""

    @property
    def is_open(self) -> bool:
        """A line is being typed."""

    @property
    def text(self) -> str:
        """What was typed so far."""

    @property
    def cursor(self) -> int:
        """How many characters are before the cursor."""

    @property
    def help_is_open(self) -> bool:
        """The keys are explained."""


@dataclass(frozen=True, slots=True)
class Live:
    """A turn that is not over, or waits for one before it that is not."""

    item_id: str
    role: Role
    text: str
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Typed:
    """A line that is being typed."""

    text: str
    cursor: int
    """Characters before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """All there is to see at a moment; if two are equal, nothing need be drawn."""

    standing: str
    """What goes on, in the words of the user."""
    style: str = ""
    """How `standing` looks."""
    turns: tuple[Live, ...] = ()
    microphone: int | None = 0
    """How loud, from 0 to `BAR`; None while it is muted."""
    speaker: int = 0
    echo: EchoMode | None = None
    elapsed_s: int = 0
    """On the session's timeline."""
    spent: str = ""
    """Tokens and money."""
    latency_ms: int | None = None
    """From the end of the last turn to the first sound of its answer."""
    typed: Typed | None = None
    keys: tuple[tuple[str, str, str], ...] = ()
    """Each key, what it does, and that in short, while that is asked for."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """The lines, none of them wider than was asked for, and where the cursor is in the last."""

    lines: tuple[Text, ...]
    cursor: int
    """Cells before it."""


def render(shown: Shown, width: int, height: int = 24) -> Drawing:
    """Lines of at most `width` cells, at most `height` of them: the last ones matter most.

    The keys matter more, since they were asked for: the rest gives way, and comes back.
    """
    typed = [] if shown.typed is None else [_typed(shown.typed, width)]
    room = max(1, height) - len(typed)
    keys, status = list(_keys(shown.keys, width)), list(_flowing(_facts(shown), width))
    if keys and len(keys) + len(status) > room:
        keys = _keys_in_short(shown.keys, width, room)
        status = status[: room - len(keys)]  # what goes on is its beginning
    rest = [*_turns(shown.turns, width), *status]
    rest = rest[max(0, len(keys) + len(rest) - room) :]
    lines = (*keys, *rest, *(line for line, _ in typed))
    return Drawing(lines, typed[0][1] if typed else lines[-1].cell_len)


def finished(turn: Turn, *, is_saved: bool = True) -> Text:
    """A turn that is over, as one line that the terminal wraps, so that it is copied as one."""
    line = Text(f"{clock(turn.start_ms // 1000)} ", style="dim")
    line.append(f"{NAMES[turn.role]}:", style=f"not dim {STYLES[turn.role]}")
    if turn.text:
        line.append(f" {printable(turn.text)}", style="not dim")
    for mark in (turn.mark, "" if is_saved else "not saved"):
        if mark:
            line.append(f" ({mark})")
    return line


def clock(seconds: int) -> str:
    """``m:ss``, however many minutes."""
    return f"{seconds // 60}:{seconds % 60:02}"


# The parts, from top to bottom -------------------------------------------------------------------


def _keys(keys: Iterable[tuple[str, str, str]], width: int) -> Iterator[Text]:
    """A table; in few columns, what a key does goes on below it."""
    column = max((cell_len(key) for key, *_ in keys), default=0) + 2
    for key, meaning, _ in keys:
        for number, words in enumerate(wrapped(meaning, max(1, width - column))):
            line = Text().append(("" if number else key).ljust(column), style="bold")
            yield _cut(line.append(words), width)


def _keys_in_short(keys: Iterable[tuple[str, str, str]], width: int, height: int) -> list[Text]:
    """A word for each, where the table is too high; what is missing even so is at the end."""
    words = (Text.assemble((key, "bold"), f" {word}") for key, _, word in keys)
    lines = list(_flowing(words, width))
    if len(lines) > height > 0:
        _cut(lines[height - 1].append(f"{GAP}…"), width)
    return lines[:height]


def _turns(turns: Sequence[Live], width: int) -> Iterator[Text]:
    """The last words of each, in a column of their own."""
    for turn in turns[-LIVE_TURNS:]:
        name = NAMES[turn.role]
        room = max(2, width - len(name) - 2)
        # No more of a long text than can be seen is looked at: this is done ten times a second.
        text = printable(turn.text[-LIVE_LINES * 2 * room :]) or "…"
        lines = wrapped(f"{text} ({turn.mark})" if turn.mark else text, room)
        is_whole = len(lines) <= LIVE_LINES
        for number, words in enumerate(lines[-LIVE_LINES:]):
            label = "" if number else f"{name}{':' if is_whole else '…'}"
            line = Text().append(f"{label:{len(name) + 1}} ", style=STYLES[turn.role])
            yield _cut(line.append(words), width)


def _facts(shown: Shown) -> Iterator[Text]:
    yield Text(shown.standing.ljust(STANDING), style=shown.style)
    yield _meter("mic", shown.microphone)
    yield _meter("speaker", shown.speaker)
    yield Text(clock(shown.elapsed_s), style="dim")
    if shown.latency_ms is not None:
        is_slow = shown.latency_ms >= SLOW * 1000
        words = f"answered in {shown.latency_ms / 1000:.1f} s"
        yield Text(words, style="bold red" if is_slow else "dim")
    if shown.spent:
        yield Text(shown.spent, style="dim")
    if shown.echo is not None:
        yield Text(ECHO[shown.echo], style="dim")


def _meter(name: str, level: int | None) -> Text:
    """Readable without colour: what is loud is thick."""
    label = Text(f"{name} ", style="dim")
    if level is None:
        return label.append("muted".ljust(BAR), style="not dim yellow")
    level = max(0, min(level, BAR))
    label.append("━" * level, style="not dim green")
    return label.append("─" * (BAR - level))


def _flowing(facts: Iterable[Text], width: int) -> Iterator[Text]:
    """As many in a line as there is room for."""
    line = Text()
    for fact in facts:
        _cut(fact, width)
        if line and line.cell_len + len(GAP) + fact.cell_len > width:
            yield line
            line = Text()
        line.append(GAP if line else "").append_text(fact)
    yield line


def _typed(typed: Typed, width: int) -> tuple[Text, int]:
    """The line, moved so that the cursor is seen, and the cells before the cursor."""
    room = max(1, width - len(PROMPT) - 1)
    before = typed.text[max(0, typed.cursor - 4 * room) : typed.cursor]
    behind = typed.text[typed.cursor : typed.cursor + 4 * room]
    while cell_len(before) > room:
        before = before[1:]
    while cell_len(before) + cell_len(behind) > room:
        behind = behind[:-1]
    return Text(PROMPT + before + behind), len(PROMPT) + cell_len(before)


def _cut(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    return line


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, broken at spaces, or anywhere in what is longer."""
    lines, line = [], ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if cell_len(longer) <= width:
            line = longer
            continue
        if cell_len(word) > width:
            # A word wider than the screen, or a script without spaces, begins where the line is.
            # Before a letter that is wider than all of the screen, nothing is cut off.
            *full, line = filter(None, chop_cells(longer, width))
            lines += full
        elif word:  # between two spaces there is none
            lines.append(line)
            line = word
    return [*lines, line]
