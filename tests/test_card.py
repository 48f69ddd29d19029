"""The program as it is mostly used: through a real PortAudio stream, on a virtual sound card."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

import numpy as np
import pytest

from tests.program import SPEECH, messages, voicechat
from tests.strict_server import KEY, StrictServer, tone
from tests.virtual_card import VirtualCard

pytestmark = pytest.mark.card


LEAVING = 10.0
"""Seconds: two, and some for a busy machine; what is stuck in a sound card is so for ever."""


class Live:
    """A conversation at the sound card, as it runs."""

    def __init__(self, card: VirtualCard, *arguments: str, stdin: int = subprocess.DEVNULL) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "voicechat", *arguments],
            env=card.env | os.environ,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=pipe, daemon=True)
            for pipe in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        with self.process:
            for reader in self._readers:
                reader.join(5)

    def _read(self, pipe: Iterator[str], lines: list[str]) -> None:
        lines.extend(iter(lambda: next(pipe, ""), ""))

    def until(self, is_so: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, (self.out, self.err)
            assert self.process.poll() is None, (self.out, self.err)
            time.sleep(0.02)

    def hang_up(self) -> None:
        """Press Ctrl-C; the program is gone soon."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(LEAVING)
        for reader in self._readers:
            reader.join(5)  # to the last line
        assert self.process.returncode == 0, self.err


def loud_seconds(pcm: bytes) -> float:
    samples = np.frombuffer(pcm[: len(pcm) // 960 * 960], "<i2").astype(float).reshape(-1, 480)
    return float((np.sqrt((samples**2).mean(axis=1)) > 300).sum() * 0.02)


def test_a_turn_through_microphone_and_speaker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with (
        VirtualCard() as card,
        StrictServer().running() as server,
        Live(card, "talk", "--url", server.url) as live,
    ):
        recording = card.record()
        live.until(lambda: bool(server.received and server.received[0][2:]))  # frames arrive
        card.speak(SPEECH / "hb_02.wav")
        live.until(lambda: len(live.out) == 2)
        live.until(lambda: not any(recording.pcm[-9600:]))  # the last of it went through PulseAudio
        live.hang_up()
        played = recording.stop()
        # PulseAudio may put in silence on a busy machine, but nothing is lost or changed.
        heard, said = np.frombuffer(played, "<i2"), np.frombuffer(tone(600), "<i2")
        assert np.array_equal(heard[heard != 0], said[said != 0])
        assert live.out == ["You: hello there\n", "Assistant: All right. I heard you.\n"]
        assert not [line for line in live.err if "ALSA" in line or "Expression" in line]


def test_keys_mute_type_and_hang_up_and_the_terminal_is_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    ours, terminal = pty.openpty()
    as_found = termios.tcgetattr(terminal)
    with (
        VirtualCard() as card,
        StrictServer().running() as server,
        Live(card, "talk", "--url", server.url, stdin=terminal) as live,
    ):
        live.until(lambda: "Listening.\n" in live.err)
        os.write(ours, b"t")
        os.write(ours, b"mute me, quietly\n")
        live.until(lambda: len(live.out) == 2)
        os.write(ours, b"m")
        live.until(lambda: live.err[-1] == "Microphone muted.\n")
        os.write(ours, b"m")
        live.until(lambda: live.err[-1] == "Microphone on.\n")
        os.write(ours, b"t")
        os.write(ours, b"\x04")  # Ctrl-D: no turn after all
        os.write(ours, b"m")
        live.until(lambda: live.err[-1] == "Microphone muted.\n")
        os.write(ours, b"tand all at once\nm")
        live.until(lambda: len(live.out) == 4)
        live.until(lambda: live.err[-1] == "Microphone on.\n")
        termios.tcsetattr(terminal, termios.TCSADRAIN, as_found)  # as a shell does on Ctrl-Z
        live.process.send_signal(signal.SIGCONT)
        live.until(lambda: not termios.tcgetattr(terminal)[3] & termios.ICANON)
        os.write(ours, b"q")
        assert live.process.wait(LEAVING) == 0
    assert [line for line in live.out if line.startswith("You")] == [
        "You: mute me, quietly\n",
        "You: and all at once\n",
    ]
    assert termios.tcgetattr(terminal) == as_found
    os.close(ours)
    os.close(terminal)


def test_a_terminal_that_closes_in_the_middle_of_a_sentence_keeps_the_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    ours, terminal = pty.openpty()
    with (
        VirtualCard() as card,
        StrictServer().running() as server,
        Live(card, "talk", "--url", server.url, stdin=terminal) as live,
    ):
        os.close(terminal)
        live.until(lambda: "Listening.\n" in live.err)
        speaking = threading.Thread(target=card.speak, args=[SPEECH / "austen_0870.wav"])
        speaking.start()
        time.sleep(1.5)
        os.close(ours)  # and both the kernel and the shell say so:
        live.process.send_signal(signal.SIGHUP)
        live.process.send_signal(signal.SIGHUP)
        assert live.process.wait(LEAVING) == 0
        speaking.join()
        assert not [line for line in live.err if "Traceback" in line]
    assert messages("last") == [("user", "hello there")]


def test_speaking_stops_the_speaker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with (
        VirtualCard() as card,
        StrictServer().running() as server,
        Live(card, "talk", "--url", server.url) as live,
    ):
        server.answer_ms, server.deltas = 20_000, 100
        server.answer_text = "One two three four five six seven eight nine ten. " * 5
        recording = card.record()
        live.until(lambda: bool(server.received and server.received[0][2:]))
        card.speak(SPEECH / "cards_001.wav")
        live.until(lambda: loud_seconds(bytes(recording.pcm)) > 1.0)
        server.answer_ms, server.deltas = 300, 1
        card.speak(SPEECH / "cards_001.wav")
        live.until(lambda: len(live.out) == 4)
        live.hang_up()
        [cut] = server.said(0, "conversation.item.truncate")
        heard = loud_seconds(recording.stop()) - 0.3
        assert abs(heard - cut["audio_end_ms"] / 1000) < 0.5
        assert 1.0 < heard < 8.0
        assert live.out[1].endswith("(interrupted)\n")


def is_whole_answer(line: str) -> bool:
    """One that was heard to its end."""
    return line.startswith("Assistant") and not line.rstrip().endswith("(interrupted)")


def said_by(who: str, live: Live) -> str:
    return " ".join(line for line in live.out if line.startswith(who))


@pytest.mark.local
def test_the_whole_job_with_real_speech_through_the_sound_card() -> None:
    """A pause may be taken for the end of a turn: there is no saying how many turns there are."""
    with VirtualCard() as card:
        recording = card.record()
        with Live(card, "talk", "--local", "--verbose") as live:
            live.until(lambda: any("session.updated" in line for line in live.err))
            card.speak(SPEECH / "austen_0880.wav")
            live.until(lambda: any(map(is_whole_answer, live.out)))
            live.hang_up()
        heard = set(re.findall(r"\w+", said_by("You", live)))
        assert len(heard & {"was", "not", "ill", "disposed", "young", "man"}) > 2, live.out
        assert len(next(filter(is_whole_answer, live.out))) > len("Assistant: \n")
        assert loud_seconds(recording.stop()) > 0.3, live.out

        with Live(card, "resume", "--verbose") as again:
            again.until(lambda: any("session.updated" in line for line in again.err))
            card.speak(SPEECH / "hb_02.wav")
            again.until(lambda: any(map(is_whole_answer, again.out)))
            again.hang_up()
        assert f"{len(live.out)} turns restored.\n" in again.err
        assert "France" in said_by("You", again)
    lines = live.out + again.out
    [listed] = json.loads(voicechat("history", "list", "--json").out)
    assert listed["turns"] == len(lines)
    roles = ["user" if line.startswith("You") else "assistant" for line in lines]
    assert [role for role, _ in messages("last")] == roles
