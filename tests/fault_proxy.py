"""A program, a server, and the network between them, which may break.

Every frame of what the user says holds its own number, the server understands what it really heard,
and its answers quote it: so words that were cut, lost or said twice show up on the screen, in the
session file, and in what the last server knows.
"""

from __future__ import annotations

import asyncio
import json
import re
import struct
import threading
import time
import wave
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np

from tests.program import Run, records, voicechat
from tests.strict_server import FRAME_BYTES, KEY, Json, Peer, StrictServer, tone, words_of

FRAMES_A_SECOND = 50
PADDING = 25
"""Frames that may be sent again ahead of a turn, and that end it."""


class FaultProxy:
    """Carries bytes between 127.0.0.1 and a server, until told otherwise, from any thread.

    Args:
        target: Where to, as a URL; asked at every connection.
    """

    def __init__(self, target: Callable[[], str]) -> None:
        self.url = ""
        self.delay = 0.0
        """Seconds that every byte is late, both ways."""
        self.opened_at: list[float] = []
        """When each connection came, those that were refused included; monotonic."""
        self.refused = 0
        """Connections that were answered by an HTTP error."""
        self._target = target
        self._refusal = ""
        self._refusing_for = 0.0
        self._refusing_since: float | None = None
        self._swallows_new = False
        self._lines: set[_Line] = set()
        self._loop = asyncio.new_event_loop()

    @property
    def connections(self) -> int:
        return len(self.opened_at)

    @contextmanager
    def running(self) -> Iterator[FaultProxy]:
        started, stop = threading.Event(), asyncio.Event()

        async def run() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/realtime"
            started.set()
            await stop.wait()
            server.close()
            await asyncio.gather(*(line.close() for line in self._lines))

        thread = threading.Thread(target=lambda: self._loop.run_until_complete(run()), daemon=True)
        thread.start()
        assert started.wait(10)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(stop.set)
            thread.join(10)
            self._loop.close()

    # Faults --------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Every connection ends at once, by RST."""
        self._loop.call_soon_threadsafe(self._on_each_line, _Line.reset)

    def swallow(self, *, new: bool = False) -> None:
        """A black hole: nothing comes through any more, either way, and nothing is closed.

        Args:
            new: So it is with new connections, too, until `heal`.
        """
        self._swallows_new = new
        self._loop.call_soon_threadsafe(self._on_each_line, _Line.swallow)

    def refuse(self, status: str, seconds: float) -> None:
        """Answer connections by an HTTP error, such as ``503 Service Unavailable``.

        Args:
            status: What is said.
            seconds: For how long, from the first that comes.
        """
        self._refusal, self._refusing_for, self._refusing_since = status, seconds, None

    def heal(self) -> None:
        """New connections work again."""
        self._refusing_for, self._swallows_new, self.delay = 0.0, False, 0.0

    # The work ------------------------------------------------------------------------------------

    def _on_each_line(self, do: Callable[[_Line], None]) -> None:
        for line in self._lines:
            do(line)

    def _is_refusing(self, now: float) -> bool:
        if self._refusing_for and self._refusing_since is None:
            self._refusing_since = now
        return now < (self._refusing_since or 0.0) + self._refusing_for

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        now = time.monotonic()
        self.opened_at.append(now)
        line = _Line(self, reader, writer)
        self._lines.add(line)
        with suppress(OSError, asyncio.IncompleteReadError):
            if self._is_refusing(now):
                self.refused += 1
                await reader.readuntil(b"\r\n\r\n")
                writer.write(f"HTTP/1.1 {self._refusal}\r\nContent-Length: 0\r\n\r\n".encode())
                writer.close()
                return
            parts = urlsplit(self._target())
            await line.carry(*await asyncio.open_connection(parts.hostname, parts.port))


class _Line:
    """One connection of a client's, and the one to the server that belongs to it."""

    def __init__(self, proxy: FaultProxy, reader: StreamReader, writer: StreamWriter) -> None:
        self._proxy = proxy
        self._client = (reader, writer)
        self._writers = [writer]
        self._is_carrying = asyncio.Event()
        if not proxy._swallows_new:
            self._is_carrying.set()

    async def carry(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Carry bytes both ways, until either side has had enough."""
        self._writers.append(writer)
        await asyncio.gather(
            self._pump(self._client[0], writer), self._pump(reader, self._client[1])
        )

    async def _pump(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(OSError):
            while block := await reader.read(65_536):
                await asyncio.sleep(self._proxy.delay)
                await self._is_carrying.wait()
                writer.write(block)
                await writer.drain()
        await self._is_carrying.wait()
        writer.close()

    def swallow(self) -> None:
        self._is_carrying.clear()

    def reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        for writer in self._writers:
            if not writer.is_closing():
                writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)
            writer.transport.abort()

    async def close(self) -> None:
        self._is_carrying.set()
        for writer in self._writers:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()


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
