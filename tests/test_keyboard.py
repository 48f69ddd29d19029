"""Keys in a real terminal, while a conversation goes on."""

import os
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.strict_server import KEY, Json, Peer, StrictServer
from tests.tmux import Terminal, terminal
from tests.virtual_card import VirtualCard
from tests.waiting import settled, wait_until
from voicechat.keyboard import KEYS

pytestmark = pytest.mark.card

BASH = ["bash", "--norc", "--noprofile", "-i"]
DASH = ["dash", "-i"]
"""A shell that leaves the terminal as a program has left it; others mend it."""


@contextmanager
def shell(
    card: VirtualCard, server: StrictServer, command: list[str] = DASH, *, width: int = 100
) -> Iterator[Terminal]:
    """A shell in a terminal, with what `voicechat` needs to find card and server."""
    with (
        server.running(),
        terminal(
            command,
            width=width,
            height=40,
            **card.env
            | {
                "OPENAI_API_KEY": KEY,
                "VOICECHAT_URL": server.url,
                "PS1": "$ ",
                "PYTHON": sys.executable,
            },
        ) as at,
    ):
        yield at


def begin(at: Terminal, command: str = "talk") -> None:
    """Start to talk; the state of the terminal stands above and, when it is over, below."""
    at.type("clear")
    at.send("Enter")
    at.wait_until(lambda screen: screen == ["$"])
    at.type(f"stty -g; $PYTHON -m voicechat {command}; echo code $?; stty -g")
    at.send("Enter")
    at.wait_for("Listening.")


def turns(screen: list[str]) -> list[str]:
    """Those that are over, without their times."""
    matches = [re.match(r"\d+:\d\d ((?:You|Assistant): .*)", line) for line in screen]
    return [match[1] for match in matches if match]


def shows_turn(turn: str, screen: list[str]) -> bool:
    return turn in turns(screen)


def states(screen: list[str]) -> list[str]:
    """What ``stty -g`` has shown."""
    return [line.removeprefix("$ ") for line in screen if line.count(":") > 20]


def is_over(screen: list[str]) -> bool:
    return len(states(screen)) == 2


def heard(server: StrictServer) -> int:
    return len(server.peers[0].heard)


def loud_ms(pcm: bytes | bytearray) -> int:
    samples = np.frombuffer(bytes(pcm[: len(pcm) // 2 * 2]), "<i2").astype(int)
    return int(np.count_nonzero(np.abs(samples) > 1000) // 24)


def talker(at: Terminal) -> int:
    """The process that talks."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
            environment = path.with_name("environ").read_bytes()
        except OSError:
            continue
        home = f"VOICECHAT_HOME={os.environ['VOICECHAT_HOME']}".encode()
        if b"voicechat" in arguments and home in environment.split(b"\0"):
            return int(path.parent.name)
    raise AssertionError("it does not run")


# Typing -----------------------------------------------------------------------------------------


def test_a_turn_is_typed_while_the_conversation_goes_on() -> None:
    server = StrictServer()
    server.answer_text = "You said {}.".format
    with VirtualCard() as card, shell(card, server) as at:
        begin(at)
        at.type("tDo not q, m, i or r?")
        at.wait_for("> Do not q, m, i or r?")
        before = heard(server)
        wait_until(lambda: heard(server) > before)
        at.send("Left", "Left", "BSpace")
        at.type(" 漢字R")
        at.wait_for("> Do not q, m, i or 漢字Rr?")
        at.send("Left", "BSpace", "BSpace", "Right", "C-k", "C-a", "Delete")
        at.type("d")
        at.send("M-f", "M-f")  # Alt, which is Esc and a letter
        at.wait_for("> do not q, m, i or R")
        at.send("Enter")
        at.wait_for("You: do not q, m, i or R", "Assistant: You said do not q, m, i or R.")
        at.type("q")
        at.wait_until(is_over)
        assert "code 0" in at.screen


def test_escape_closes_the_line_and_up_finds_what_was_typed() -> None:
    server = StrictServer()
    server.answer_text = "You said {}.".format
    with VirtualCard() as card, shell(card, server) as at:
        begin(at)
        for text in ("one", "two"):
            at.type(f"t{text}")
            at.send("Enter")
            at.wait_until(partial(shows_turn, f"Assistant: You said {text}."))
        at.send("Enter")
        at.type("draft")
        at.wait_for("> draft")
        at.send("Up")
        at.wait_for("> two")
        at.send("Up")
        at.wait_for("> one")
        at.send("Down", "Down")
        at.wait_for("> draft")
        at.send("Escape")
        at.wait_until(lambda screen: not any("> " in line for line in screen))
        at.send("Enter")
        at.send("Up", "Up")
        at.wait_for("> one")
        at.send("Enter")
        at.wait_until(lambda screen: turns(screen).count("Assistant: You said one.") == 2)
        assert sum(turn.startswith("You: ") for turn in turns(at.screen)) == 3
        at.type("q")
        at.wait_until(is_over)
        begin(at, "resume --last")
        at.type("t")
        at.send("Up", "Up")
        at.wait_for("> two")
        at.send("C-c")
        at.wait_for("Resume: ")


def test_what_is_pasted_is_text_and_presses_no_key() -> None:
    server = StrictServer()
    server.answer_text = "You said {}.".format
    with VirtualCard() as card, shell(card, server) as at:
        begin(at)
        at.paste("qmi\nq")
        at.wait_for("> qmi q")
        at.type(" !")
        at.paste("und\nn")
        at.wait_for("> qmi q !und n")
        at.send("Enter")
        at.wait_for("Assistant: You said qmi q !und n.")
        at.type("q")
        at.wait_until(is_over)


# Commands ---------------------------------------------------------------------------------------


def test_the_microphone_is_muted_and_the_help_tells_every_key() -> None:
    server = StrictServer()
    with VirtualCard() as card, shell(card, server, width=110) as at:
        begin(at)
        at.type("m")
        at.wait_for("Microphone muted.")
        before = settled(lambda: heard(server))
        at.type("?")
        at.wait_for(*(f"{key:10} {what}" for key, what, _ in KEYS))
        assert heard(server) == before
        at.type("M")
        at.wait_for("Microphone on.")
        wait_until(lambda: heard(server) > before)
        at.send("C-c")
        at.wait_until(is_over)


@pytest.mark.parametrize("key", ["i", "Escape"])
def test_an_answer_is_interrupted_and_repeated(key: str) -> None:
    server = StrictServer()
    server.answer_ms, server.answer_text = 20_000, "Word for word for word. " * 20
    with VirtualCard() as card, shell(card, server) as at:
        begin(at)
        at.type("tHello")
        at.send("Enter")
        at.wait_for("You: Hello")
        at.type("r")
        at.wait_for("An answer is repeated when it is over.")
        time.sleep(1.0)
        at.send(key)
        at.wait_for("(interrupted)")
        wait_until(lambda: server.said(0, "conversation.item.truncate"))
        [truncated] = server.said(0, "conversation.item.truncate")
        assert 500 < truncated["audio_end_ms"] < 10_000
        count = len(server.received[0])
        recording = card.record()
        settled(lambda: loud_ms(recording.pcm))  # the end of what was interrupted
        before = loud_ms(recording.pcm)
        at.type("r")
        wait_until(lambda: loud_ms(recording.pcm) > before + 500)
        at.send(key)
        assert settled(lambda: loud_ms(recording.pcm)) < before + 15_000
        recording.stop()
        at.type("q")
        at.wait_until(is_over)
        after = {event["type"] for event in server.received[0][count:]}
        assert after <= {"input_audio_buffer.append", "input_audio_buffer.commit"}
        assert sum(turn.startswith("Assistant: ") for turn in turns(at.screen)) == 1


def test_the_program_stops_and_goes_on_as_others_do() -> None:
    server = StrictServer()
    server.answer_text = "You said {}.".format
    with VirtualCard() as card, shell(card, server) as at:
        begin(at)
        at.type("tbefore")
        at.send("C-z")
        at.wait_until(lambda screen: "Stopped" in "".join(screen) and screen[-1] == "$")
        at.type("stty -g; echo shell is $((6 * 7))")
        at.send("Enter")
        at.wait_for("shell is 42")
        assert len(set(states(at.screen))) == 1
        at.type("bg")
        at.send("Enter")
        at.type("echo shell is $((7 * 7))")
        at.send("Enter")
        at.wait_for("shell is 49")
        at.type("fg")
        at.send("Enter")
        at.wait_for("> before")
        at.type(" and after")
        at.send("Enter")
        at.wait_for("Assistant: You said before and after.")
        at.type("q")
        at.wait_for("Resume: ")
        at.type("stty -g")
        at.send("Enter")
        at.wait_until(lambda screen: len(states(screen)) == 4)
        assert len(set(states(at.screen))) == 1


def test_a_program_that_was_stopped_without_warning_has_its_keys_again() -> None:
    server = StrictServer()
    with VirtualCard() as card, shell(card, server, BASH) as at:
        begin(at)
        os.kill(talker(at), signal.SIGSTOP)
        at.wait_until(lambda screen: "Stopped" in "".join(screen[-4:]))
        at.type("fg")
        at.send("Enter")
        at.type("m")
        at.wait_for("Microphone muted.")
        at.type("q")
        at.wait_until(lambda screen: screen[-1] == "$")
        at.type("stty -g")
        at.send("Enter")
        at.wait_until(lambda screen: len(states(screen)) >= 3)
        assert len(set(states(at.screen))) == 1


# Exits ------------------------------------------------------------------------------------------


def test_typing_does_not_keep_anyone_from_hanging_up() -> None:
    server = StrictServer()
    with VirtualCard() as card, shell(card, server) as at:
        begin(at)
        at.type("tabc")
        at.wait_for("> abc")
        at.send("C-c")
        at.wait_until(is_over)
        assert "code 0" in at.screen


CRASHING = """
import asyncio, sys
from voicechat.keyboard import keyboard

async def crash():
    with keyboard(print) as keys:
        keys.editor.open("abc")
        await asyncio.sleep(0.3)
        raise RuntimeError("nobody has thought of this")

asyncio.run(crash())
"""


def test_the_terminal_is_as_it_was_found_after_a_crash(tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text(CRASHING)
    with terminal(DASH, width=120, PS1="$ ", PYTHONPATH=str(Path.cwd())) as at:
        at.type(f"stty -g; {sys.executable} {tmp_path}/crashing.py; stty -g")
        at.send("Enter")
        at.wait_until(is_over)
        assert "RuntimeError: nobody has thought of this" in at.screen
        before, after = states(at.screen)
        assert before == after


def test_the_terminal_is_as_it_was_found_whatever_ends_the_program() -> None:
    server = StrictServer()
    server.answer_ms = 20_000
    with VirtualCard() as card, shell(card, server) as at:

        def kill(number: int) -> None:
            os.kill(talker(at), number)

        def refuse(peer: Peer, event: Json) -> Awaitable[object] | None:
            if event["type"] != "conversation.item.create":
                return None
            error = {"type": "invalid_request_error", "code": "insufficient_quota", "message": "No"}
            return peer.send("error", error=error)

        def be_refused() -> None:
            server.on_event = refuse
            at.type("tHello")
            at.send("Enter")

        endings: dict[str, Callable[[], object]] = {
            "code 0 by q": lambda: at.type("q"),
            "code 0 by SIGTERM": lambda: kill(signal.SIGTERM),
            "code 0 by SIGHUP": lambda: kill(signal.SIGHUP),
            "code 0 by SIGINT": lambda: kill(signal.SIGINT),
            "code 0 by SIGQUIT": lambda: kill(signal.SIGQUIT),
            "code 131 by a key": lambda: at.send("C-\\"),
            "code 5 by the server": be_refused,
        }
        for name, end in endings.items():
            begin(at)
            end()
            at.wait_until(is_over)
            assert name.partition(" by ")[0] in at.screen, (name, at.screen)
            before, after = states(at.screen)
            assert before == after, name


def test_the_terminal_is_as_it_was_found_by_a_program_that_is_stuck() -> None:
    server = StrictServer()
    server.answer_ms, server.answer_text = 20_000, "語" * 600_000
    with VirtualCard() as card, shell(card, server) as at:
        begin(at, "talk | sleep 9")  # which reads nothing: printing the answer never ends
        at.type("tHello")
        at.send("Enter")
        time.sleep(3.0)
        at.type("tnever sent")
        at.send("C-c")
        at.wait_until(is_over)
        before, after = states(at.screen)
        assert before == after
