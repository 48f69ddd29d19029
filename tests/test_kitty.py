"""Terminals that tell when a key is let go."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.keys import Keys

from tests.strict_server import KEY, StrictServer
from tests.virtual_card import VirtualCard
from voicechat.kitty import ASK, BEGIN, END, SPACE_RELEASED, KeyReports

SPACE, SPACE_UP = "\x1b[32;;32u", "\x1b[32;1:3u"
PASTE = "\x1b[200~a \x1b[31m q\x1b[201~"
STREAM = f"q\x1b[?31u{SPACE}\x1b[32;1:2u{SPACE_UP}\x1b[A漢\x1b[1;1:3Bm{PASTE}\x1b[113;;113ux\x1bOP"
MEANING = f"q {SPACE_RELEASED}\x1b[A漢m\x1b[200~a  q\x1b[201~qx\x1bOP"


# What reports mean ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sequence", "meaning"),
    [
        ("q", "q"),
        ("\x1b[113u", "q"),
        ("\x1b[113;;113u", "q"),
        ("\x1b[113;1:1;113u", "q"),
        ("\x1b[113;1:2;113u", ""),  # it is held
        ("\x1b[113;1:3u", ""),
        ("\x1b[113;5u", "\x11"),
        ("\x1b[99;5u", "\x03"),
        ("\x1b[92;5u", "\x1c"),
        ("\x1b[1089;5;u", ""),  # Ctrl with a letter that has no control character
        ("\x1b[113;3u", ""),  # Alt
        ("\x1b[113;65;81u", "Q"),  # Caps Lock
        ("\x1b[223:63;2;63u", "?"),  # on a German keyboard
        ("\x1b[47:63;2;63u", "?"),
        ("\x1b[109;2u", "M"),
        ("\x1b[0;;28450:23383u", "漢字"),
        ("\x1b[27u", "\x1b"),
        ("\x1b[13u", "\r"),
        ("\x1b[57414u", "\r"),
        ("\x1b[127u", "\x7f"),
        ("\x1b[57441;2u", ""),  # Shift alone
        ("\x1b[57441;2:3u", ""),
        (SPACE, " "),
        (SPACE_UP, SPACE_RELEASED),
        ("\x1b[32;129:3u", SPACE_RELEASED),  # Num Lock
        (SPACE_RELEASED, ""),
        ("\x1b[A", "\x1b[A"),
        ("\x1b[1;5D", "\x1b[1;5D"),
        ("\x1b[1;1:3A", ""),
        ("\x1b[3;1:3~", ""),
        ("\x1b[[A", "\x1b[[A"),  # F1 of Linux
        ("\x1bOA", "\x1bOA"),
        ("\x1b[0n", ""),  # a report that nobody asked for is not the key n
        ("\x1b[?62;22c", ""),
        ("\x1b[1114112u", ""),
        ("\x1b[55296u", ""),
        (PASTE, "\x1b[200~a  q\x1b[201~"),
    ],
)
def test_a_report_is_what_another_terminal_would_have_sent(sequence: str, meaning: str) -> None:
    assert KeyReports().feed(sequence) == meaning


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_it_makes_no_difference_how_the_terminal_is_read(cuts: list[int]) -> None:
    reports = KeyReports()
    ends = sorted({0, *cuts, len(STREAM)})
    read = "".join(map(reports.feed, [STREAM[a:b] for a, b in pairwise(ends)]))
    assert read + reports.flush() == MEANING
    assert reports.are_known


@given(st.from_regex(r"\x1b\[[0-9;?:]{0,6}[A-Za-tv-z~]", fullmatch=True))
def test_no_sequence_is_taken_for_letters(sequence: str) -> None:
    pressed: list[KeyPress] = []
    Vt100Parser(pressed.append).feed_and_flush(KeyReports().feed(sequence))
    assert all(isinstance(press.key, Keys) for press in pressed)


def test_escape_alone_is_a_key_when_nothing_follows() -> None:
    reports = KeyReports()
    assert reports.feed("\x1b") == ""
    assert reports.flush() == "\x1b"
    assert reports.feed("\x1b[") == ""
    assert reports.flush() == "\x1b["  # Alt and a bracket
    assert reports.feed("\x1b[32;1") == ""
    assert reports.flush() == ""
    assert reports.feed("q") == "q"
    assert not reports.are_known


def test_the_end_of_a_paste_that_comes_slowly_ends_it() -> None:
    reports, pressed = KeyReports(), list[KeyPress]()
    parser = Vt100Parser(pressed.append)
    for piece in ("\x1b[200~a", "b\x1b[20", "1", "~q"):
        parser.feed(reports.feed(piece))
        parser.feed(reports.flush())
    assert pressed == [KeyPress(Keys.BracketedPaste, "ab"), KeyPress("q", "q")]


# The program ------------------------------------------------------------------------------------


class KittyTerminal:
    """A terminal that knows the protocol, as far as the program can tell."""

    def __init__(self, controller: int) -> None:
        self._controller = controller
        self.shown = ""

    def send(self, data: str) -> None:
        os.write(self._controller, data.encode())

    def wait_for(self, text: str, times: int = 1) -> None:
        deadline = time.monotonic() + 30
        while self.shown.count(text) < times:
            assert time.monotonic() < deadline, (text, self.shown)
            if select.select([self._controller], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self._controller, 65536).decode(errors="replace")
                except OSError:  # the program has ended
                    assert self.shown.count(text) >= times, (text, self.shown)


@contextmanager
def talking(*options: str) -> Iterator[tuple[KittyTerminal, StrictServer, subprocess.Popen[bytes]]]:
    server = StrictServer()
    with VirtualCard() as card, server.running():
        controller, terminal = pty.openpty()
        program = subprocess.Popen(
            [sys.executable, "-m", "voicechat", "talk", "--url", server.url, *options],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=card.env | {"OPENAI_API_KEY": KEY, "TERM": "xterm-kitty"},
            start_new_session=True,
        )
        os.close(terminal)
        at = KittyTerminal(controller)
        try:
            at.wait_for("Listening.")
            yield at, server, program
        finally:
            program.kill()
            program.wait()
            os.close(controller)


@pytest.mark.card
def test_the_space_bar_is_held_to_talk() -> None:
    with talking("--vad", "none") as (at, server, program):
        at.wait_for(ASK)
        assert BEGIN not in at.shown
        at.send("\x1b[?0u")
        at.wait_for(BEGIN)
        at.send(SPACE)
        time.sleep(0.5)
        for half in (SPACE_UP[:4], SPACE_UP[4:]):
            at.send(half)
            time.sleep(0.01)
        at.wait_for("All right. I heard you.")
        kinds = [event["type"] for event in server.received[0]]
        assert kinds.count("input_audio_buffer.commit") == 1
        at.send("\x1b[116;;116u\x1b[116;1:3u")
        at.wait_for(END)  # in the line, every key is text
        at.send("hello q")
        at.wait_for("> hello q")
        at.send("\x1b")
        at.wait_for(BEGIN, times=2)
        at.send("\x1b[99;5u")
        at.wait_for("Resume: ")
        assert program.wait(30) == 0
        assert at.shown.count(END) == 2
        assert at.shown.count("\x1b[?2004l") == 1


@pytest.mark.card
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_the_terminal_sends_no_reports_to_whoever_comes_next(number: signal.Signals) -> None:
    with talking("--vad", "none") as (at, _, program):
        at.send("\x1b[?0u")
        at.wait_for(BEGIN)
        at.send("\x1b[122;5u")  # Ctrl-Z, where there is no shell to stop for
        at.wait_for(BEGIN, times=2)
        assert at.shown.count(END) == 1
        assert at.shown.count(ASK) == 1
        if number == signal.SIGQUIT:
            at.send("\x1b[92;5u")  # Ctrl-\\, which ends it at once
        else:
            program.send_signal(number)
        at.wait_for(END, times=2)
        assert program.wait(30) == (-number if number == signal.SIGQUIT else 0)


@pytest.mark.card
def test_where_keys_are_not_held_the_terminal_is_asked_nothing() -> None:
    with talking() as (at, _, program):
        at.send(f"{SPACE}q")
        at.wait_for("\x1b[?2004l")
        assert program.wait(30) == 0
        assert ASK not in at.shown
        assert BEGIN not in at.shown
