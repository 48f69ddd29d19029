"""A door: the line that is typed, and the help, on a terminal without a screen of ours."""

import shutil
import sys

from prompt_toolkit.utils import get_cwidth

from voicechat.keyboard import KEYS
from voicechat.line_editor import LineEditor

PROMPT = "> "


def show_plainly(editor: LineEditor) -> None:
    """Write the line anew in place of what the cursor's line shows, or the help above it."""
    if not sys.stderr.isatty():
        return
    shown = "\r\x1b[K"
    if editor.is_open:
        room = max(1, shutil.get_terminal_size().columns - len(PROMPT) - 1)
        before, behind = editor.text[: editor.cursor], editor.text[editor.cursor :]
        while get_cwidth(before) > room:
            before = before[1:]
        while get_cwidth(before) + get_cwidth(behind) > room:
            behind = behind[:-1]
        back = get_cwidth(behind)
        shown += PROMPT + before + behind + (f"\x1b[{back}D" if back else "")
    elif editor.help_is_open:
        shown += "".join(f"{key:10} {what}\n" for key, what, _ in KEYS)
    try:
        sys.stderr.write(shown)
        sys.stderr.flush()
    except OSError:
        pass  # the terminal is gone
