"""The program, a proxy and a strict server, for stories about faults.

Every frame of what the user says holds its own number, the server understands what it really heard,
and so it can be checked exactly what was lost, doubled or put out of order.
"""

from __future__ import annotations

import json
import re
import wave
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np

from tests.fault_proxy import FaultProxy
from tests.program import Run, records, voicechat
from tests.strict_server import FRAME_BYTES, KEY, Json, Peer, StrictServer, tone, words_of

FRAMES_A_SECOND = 50
PADDING = 25
"""Frames that may be sent again ahead of a turn, and that end it."""


def numbers(pcm: bytes) -> list[int]:
    """The numbers that frames of a tape hold; frames of other silence have none."""
    assert len(pcm) % FRAME_BYTES == 0
    bits = np.frombuffer(pcm, "<i2").reshape(-1, FRAME_BYTES // 2)[:, :16] > 0
    return [int(number) for number in bits @ (1 << np.arange(16)) if number]


class Tape:
    """What the user says: seconds of silence and of speech in turn, silence first.

    Every frame is known by its number, from 1; silence is so for every ear but ours.
    """

    def __init__(self, *seconds: float) -> None:
        self.pcm = b""
        self.turns: list[range] = []
        for place, length in enumerate(seconds):
            first = len(self.pcm) // FRAME_BYTES + 1
            frames = range(first, first + round(length * FRAMES_A_SECOND))
            if is_loud := place % 2 == 1:
                self.turns.append(frames)
            self.pcm += b"".join(_frame(number, is_loud=is_loud) for number in frames)
        self.length = len(self.pcm) // FRAME_BYTES

    def save(self, path: Path) -> Path:
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 24_000, 0, "NONE", ""))
            file.writeframes(self.pcm)
        return path

    def words(self, pcm: bytes) -> str:
        """What is understood: whole turns, and what is odd about others."""
        heard, said = numbers(pcm), []
        for number, turn in enumerate(self.turns, start=1):
            part = [frame for frame in heard if frame in turn]
            if part:
                is_whole = part == list(turn)
                said.append(f"turn {number}" if is_whole else f"{part} of turn {number}, {turn}")
        return " and ".join(said)


def _frame(number: int, *, is_loud: bool) -> bytes:
    samples = np.frombuffer(tone(20), "<i2") * is_loud
    bits = np.where(number >> np.arange(16) & 1, 1, -1)
    return np.concatenate([bits * (8000 if is_loud else 8), samples[16:]]).astype("<i2").tobytes()


def answer(words: str) -> str:
    return f"So that was {words} and I will remember every single word of it."


class Stage:
    """A program, a server, a line between them that may break, and a place of their own."""

    def __init__(self, place: Path, *seconds: float) -> None:
        self.place = place
        place.mkdir()
        self.tape = Tape(*seconds)
        self.server = StrictServer()
        self.server.user_words, self.server.answer_text = self.tape.words, answer
        self.server.answer_ms = 300
        self.proxy = FaultProxy(lambda: self.server.url)
        self._running = ExitStack()

    def __enter__(self) -> Self:
        self._running.enter_context(self.server.running())
        self._running.enter_context(self.proxy.running())
        return self

    def __exit__(self, *error: Any) -> bool:
        return bool(self._running.__exit__(*error))

    @property
    def peers(self) -> list[Peer]:
        return self.server.peers

    def run(self, *arguments: str | Path) -> Run:
        return voicechat(
            *arguments,
            timeout=90,
            VOICECHAT_HOME=str(self.place / "home"),
            VOICECHAT_URL=self.proxy.url,
            OPENAI_API_KEY=KEY,
        )

    def talk(self, *options: str, command: str = "talk", code: int = 0) -> Run:
        """Say what is on the tape, to the end."""
        run = self.run(command, "--input", self.tape.save(self.place / "tape.wav"), *options)
        assert run.code == code, run.err
        return run

    def records(self, kind: str) -> list[Json]:
        return [r for r in records(self.place / "home") if r["type"] == kind]

    def logged(self) -> list[tuple[str, str]]:
        """(role, words) of every turn, by the session file."""
        exported = json.loads(self.run("export", "last", "--format", "openai").out)
        return [(message["role"], message["content"]) for message in exported]

    def said(self, run: Run) -> list[tuple[str, str]]:
        """(role, words) of every turn, on which screen, file and the last server agree."""
        logged, known = self.logged(), known_to(self.last_peer)
        assert known == logged
        roles = {"You": "user", "Assistant": "assistant"}
        lines = [line.removesuffix(" (interrupted)").partition(": ") for line in run.lines]
        shown = [(roles[who], words) for who, _, words in lines]
        assert shown == logged[-len(shown) :]
        return logged

    @property
    def last_peer(self) -> Peer:
        """The last server that had a part in the conversation, not just in its preparation."""
        kinds = ("input_audio_buffer.append", "response.create")
        return [p for p in self.peers if any(e["type"] in kinds for e in p.received)][-1]

    def check_microphone(self) -> None:
        """All was heard, nothing twice by one server, and again by the next only what was cut.

        Pauses may be left out where there was no server to hear them.
        """
        before, loud = 0, {frame for turn in self.tape.turns for frame in turn}
        for peer in self.peers:
            if not (heard := numbers(bytes(peer.heard))):
                continue
            first, last = heard[0], heard[-1]
            missed = set(range(min(first, before + 1), last)) - set(heard)
            assert heard == sorted(set(heard)), (peer.number, heard)
            assert not missed & loud, (peer.number, missed)
            assert not missed or before, missed
            if first <= before:
                assert any(
                    turn[0] - PADDING <= first <= turn[0] and before < turn[-1] + PADDING
                    for turn in self.tape.turns
                ), (peer.number, before, first)
            before = last
        assert before >= self.tape.turns[-1][-1]

    def check_notices(self, run: Run, restored: int) -> None:
        """The line was lost once, and was back; screen and file say so."""
        assert run.err.count("The line was lost: ") == 1, run.err
        back = re.findall(r"The line is back after [\d.]+ s: (\d+) turns? restored\.", run.err)
        assert back == [str(restored)], run.err
        assert [record["reason"] != "" for record in self.records("lost")] == [True]
        assert [record["restored"] for record in self.records("back")] == [restored]


def known_to(peer: Peer) -> list[tuple[str, str]]:
    """(role, words) of every turn, by a server."""
    turns = [item for item in peer.items if item["role"] != "system"]
    return [(item["role"], words_of(item)) for item in turns]


def conversation(*said: str) -> list[tuple[str, str]]:
    """What is said by the user, each answered."""
    turns = [(("user", words), ("assistant", answer(words))) for words in said]
    return [message for turn in turns for message in turn]


def count(peer: Peer, kind: str) -> int:
    return sum(event["type"] == kind for event in peer.journal)


def side_by_side(story: Callable[[str], object], names: Iterable[str]) -> None:
    """Tell several stories at once, since each consists of waiting."""
    with ThreadPoolExecutor() as pool:
        told = {name: pool.submit(story, name) for name in names}
    failures = []
    for name, future in told.items():
        if isinstance(error := future.exception(), Exception):
            error.add_note(f"in the story “{name}”")
            failures.append(error)
    if failures:
        raise ExceptionGroup("not every story ends well", failures)
