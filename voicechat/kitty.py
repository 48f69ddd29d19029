"""Key reports by kitty's protocol, made into what other terminals send.

With it a terminal tells when a key is let go, so that a key can be held to talk.  Source:
https://sw.kovidgoyal.net/kitty/keyboard-protocol/
"""

import re

from prompt_toolkit.input.ansi_escape_sequences import ANSI_SEQUENCES

ASK = "\x1b[?u"
"""A terminal that knows the protocol answers this; others leave it alone."""
BEGIN = "\x1b[>27u"
"""Report: unambiguous codes 1, when keys are let go 2, keys that are text as well 8, their text 16.
Without the last two, nothing is told of letters and the space bar."""
END = "\x1b[<u"
SPACE_RELEASED = "\ue020"
"""Stands for the space bar being let go, in what is passed on: no keyboard has it."""

_SEQUENCE = re.compile(r"\x1b\[(?:\[.|[0-?]*[ -/]*[@-Z\\-~])")
_UNFINISHED = re.compile(r"\x1b(?:\[(?:\[|[0-?]*[ -/]*))?\Z")
_KEY = re.compile(r"\x1b\[(\d+)[\d:]*(?:;(\d*)(?::(\d+))?)?(?:;([\d:]*))?u")
_ANSWER = re.compile(r"\x1b\[\?\d+u")
_PASTE_ENDS = "\x1b[201~"  # which prompt_toolkit reads, though not from its table
_CONTROLS = {9: "\t", 13: "\r", 27: "\x1b", 127: "\x7f", 57414: "\r"}
_CTRL = 4
_IGNORED = ~(1 | _CTRL | 64 | 128)  # all modifiers but Shift, Ctrl and the locks
_FUNCTIONAL = range(0xE000, 0xF900)
_PRESS, _RELEASE = 1, 3


class KeyReports:
    """Takes what comes from a terminal in pieces, and passes on what is not a report.

    Reports become the characters that the keys stand for, or nothing; what `prompt_toolkit` does
    not know is dropped, since it would take the sequence for single keys.
    """

    def __init__(self) -> None:
        self.are_known = False
        """The terminal has said that it knows the protocol."""
        self._held = ""

    def feed(self, data: str) -> str:
        """What the next piece means; a sequence that is not whole yet waits for the rest."""
        data = self._held + data.replace(SPACE_RELEASED, "")
        unfinished = _UNFINISHED.search(data)
        end = unfinished.start() if unfinished else len(data)
        self._held = data[end:]
        return _SEQUENCE.sub(self._meaning, data[:end])

    def flush(self) -> str:
        """Nothing follows soon: what was held back is the key Esc, or nothing known."""
        held, self._held = self._held, ""
        # The end of a paste may come slowly: dropped, the paste would swallow all that follows.
        return held if held == "\x1b[" or _PASTE_ENDS.startswith(held) else ""

    def _meaning(self, match: re.Match[str]) -> str:
        sequence = match[0]
        if _ANSWER.fullmatch(sequence):
            self.are_known = True
        elif key := _KEY.fullmatch(sequence):
            return _character(*key.groups())
        elif sequence in ANSI_SEQUENCES or sequence == _PASTE_ENDS:
            return sequence
        return ""


def _character(code: str, modifiers: str | None, event: str | None, text: str | None) -> str:
    """What a key would have sent without the protocol; repeats and most releases are nothing."""
    number, event_type = int(code), int(event or _PRESS)
    held = int(modifiers or 1) - 1
    if event_type == _RELEASE and number == ord(" "):
        return SPACE_RELEASED
    if event_type != _PRESS or held & _IGNORED:
        return ""
    if text:
        return "".join(_letter(int(each)) for each in text.split(":") if each)
    if number in _CONTROLS:
        return _CONTROLS[number]
    letter = _letter(number)
    if held & _CTRL:
        return chr(ord(letter) & 31) if "a" <= letter <= "z" or letter == "\\" else ""
    return letter.upper() if held & 1 else letter


def _letter(code: int) -> str:
    """A printable character; keys that have none have codes of their own."""
    is_character = 32 <= code < 0x110000 and code not in _FUNCTIONAL and code != 127
    return chr(code) if is_character and not 0xD800 <= code < 0xE000 else ""
