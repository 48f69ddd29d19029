"""A picture of a conversation for the README, of what the program itself would show.

Run it with ``python -m bench.picture > bench/picture.svg``: the conversation is staged, the lines
are those of `voicechat.screen`.
"""

import io
import re
import sys

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from voicechat.screen import Live, Shown, finished, render
from voicechat.transcript import Turn

WIDTH = 104
TURNS = (
    Turn("1", "user", "I would like to plan a week by the sea.", "complete", None, 2_000),
    Turn(
        *("2", "assistant", "Lovely. Should it be warm, or would a stormy coast"),
        *("interrupted", None, 5_000),
    ),
    Turn("3", "user", "Stormy, please, and few people.", "complete", None, 8_000),
)
NOW = Shown(
    standing="answering",
    style="bold cyan",
    turns=(
        Live(
            *("4", "assistant", "Then go to the Outer Hebrides in October. Stay on Harris, where"),
        ),
    ),
    microphone=1,
    speaker=4,
    echo="cancel",
    elapsed_s=14,
    latency_ms=610,
    spent="1.4k tokens (~$0.03)",
)
THEME = TerminalTheme(
    (24, 26, 31),
    (220, 223, 228),
    [
        *((40, 44, 52), (224, 108, 117), (126, 191, 112), (229, 192, 123)),
        *((97, 175, 239), (198, 120, 221), (86, 182, 194), (220, 223, 228)),
    ],
)


def picture() -> str:
    """An SVG, the same each time."""
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print("$ voicechat talk", highlight=False)
    for turn in TURNS:
        console.print(finished(turn))
    for line in render(NOW, WIDTH - 1).lines:
        console.print(line)
    svg = console.export_svg(title="voicechat", theme=THEME, unique_id="voicechat")
    # Fonts come from whoever looks at it, and from no server.
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    sys.stdout.write(picture())
