"""Whether what was said outlives the program, killed at any moment.

Run it with ``python -m bench.crash``.  A session is begun with ``voicechat talk --text ...`` and
killed with SIGKILL, gone on with by ``voicechat resume`` and killed again, and then gone on with to
the end; and so on, with one session after the other.  Half of the moments are random times between
the start of the program and the end of a run that nobody disturbs.  The other half are right after
a random line was printed: next to the writing, as a turn is printed when the disk has it.

Each time, in the session's file must be

    every turn    that was printed, with all its words, in the order in which they were printed
    every word    of an answer but its current sentence: a server on this machine says the next one
                  only when the last one is in the file

and no line of it but the last may be damaged, ``voicechat history list`` must show the session, and
in the end a server must be told of every turn that was printed.

The table counts the kills by what the program was doing, as the file tells: starting (nothing was
said in this run), the user's turn (not yet taken by the server), answering, or between turns.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from bench.common import BenchmarkError, columns, load_average
from voicechat.display import NAMES
from voicechat.errors import VoicechatError
from voicechat.history.reading import add_up, read
from voicechat.pcm import silence
from voicechat.transcript import Opened, Said, Speaking, Turn

TURNS = 4  # typed in each run; the server hears another one behind each, and answers both
LINES = 3 * TURNS
SENTENCES = 4  # of an answer
PAUSE = 0.02  # seconds before each thing that the server says
PATIENCE = 30.0  # seconds after which a sentence is not going to be in the file any more
KILLS = 4  # of each session
ATTEMPTS = 30  # a run may be over before its time has come
LANES = 2  # sessions at a time: they mostly wait
STARTING, USER, ANSWERING, BETWEEN = "starting", "user's turn", "answering", "between"


# The server -------------------------------------------------------------------------------------


class Partner:
    """Whom one session is talked with: a server that sees what is in the session's file."""

    def __init__(self, sessions: Path) -> None:
        self.url = ""
        self.told: list[str] = []
        """What was said on the last connection: restored, by the client or by the server."""
        self.seen: list[str] = []
        """Sentences of answers that have been in the file."""
        self.late: list[str] = []
        """Those that did not come to be there."""
        self.aloud = "This is what I say aloud for the {}. time."
        """What it says that it has heard: words that are saved only when they are whole."""
        self._last: str | None = None
        self._sessions = sessions
        self._numbers = count(1)

    @contextmanager
    def running(self) -> Iterator["Partner"]:
        """Serve, in a thread, until the block is left."""
        loop = asyncio.new_event_loop()
        started, stop = threading.Event(), asyncio.Event()

        async def run() -> None:
            async with serve(self._serve, "127.0.0.1", 0, close_timeout=1) as server:
                port = next(iter(server.sockets)).getsockname()[1]
                self.url = f"ws://127.0.0.1:{port}/v1/realtime"
                started.set()
                await stop.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
        thread.start()
        started.wait()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()

    async def _serve(self, client: ServerConnection) -> None:
        self.told, self._last = [], None
        with suppress(ConnectionClosed):
            await _say(client, "session.created", session={"type": "realtime"})
            async for frame in client:
                event = json.loads(frame)
                if event["type"] == "session.update":
                    await _say(client, "session.updated", session=event["session"])
                elif event["type"] == "conversation.item.create":
                    await self._take(client, event)
                elif event["type"] == "response.create":
                    await self._answer(client)

    async def _take(self, client: ServerConnection, event: dict[str, Any]) -> None:
        item = event["item"]
        self.told += [part["text"] for part in item["content"]]
        if event["event_id"].startswith("say-"):  # not restored, but new
            await asyncio.sleep(PAUSE)
        await self._add(client, item)

    async def _add(self, client: ServerConnection, item: dict[str, Any]) -> None:
        for kind in ("added", "done"):
            await _say(client, f"conversation.item.{kind}", previous_item_id=self._last, item=item)
        self._last = item["id"]

    async def _hear(self, client: ServerConnection, number: int) -> None:
        item = {"id": f"aloud_{number}", "type": "message", "role": "user"}
        named = {"item_id": item["id"]}
        before = {"previous_item_id": self._last}
        await _say(client, "input_audio_buffer.committed", **named, **before)
        await self._add(client, item | {"content": [{"type": "input_audio"}]})
        await asyncio.sleep(PAUSE)
        self.told.append(self.aloud.format(number))
        heard = {"content_index": 0, "transcript": self.told[-1]}
        kind = "conversation.item.input_audio_transcription.completed"
        await _say(client, kind, **named, **heard)
        await asyncio.sleep(PAUSE)

    async def _answer(self, client: ServerConnection) -> None:
        number = next(self._numbers)
        await self._hear(client, number)
        item_id, response = f"answer_{number}", {"id": f"response_{number}"}
        item = {"id": item_id, "type": "message", "role": "assistant", "content": []}
        place: dict[str, Any] = {"item_id": item_id, "response_id": response["id"]}
        place |= {"output_index": 0, "content_index": 0}
        sound, words = "response.output_audio", "response.output_audio_transcript"
        sentences = [f"This is sentence {n} of answer {number}. " for n in range(SENTENCES)]
        content = [{"type": "output_audio", "transcript": "".join(sentences)}]
        whole = item | {"content": content}
        await _say(client, "response.created", response=response)
        await _say(client, "response.output_item.added", response_id=response["id"], item=item)
        await self._add(client, item)
        for sentence in sentences:
            await asyncio.sleep(PAUSE)
            await _say(client, f"{words}.delta", delta=sentence, **place)
            await _say(client, f"{sound}.delta", delta=b64encode(silence(40)).decode(), **place)
            await self._look_for(client, sentence.strip())
        self.told.append("".join(sentences))
        await asyncio.sleep(PAUSE)
        await _say(client, f"{sound}.done", **place)
        await _say(client, f"{words}.done", transcript="".join(sentences), **place)
        await _say(client, "response.output_item.done", response_id=response["id"], item=whole)
        await _say(client, "response.done", response=response | {"status": "completed"})

    async def _look_for(self, client: ServerConnection, sentence: str) -> None:
        """Wait until it is in the file; the client may be killed in the meantime."""
        if self.late:  # one is enough to know
            return
        deadline = time.monotonic() + PATIENCE
        while not any(sentence in path.read_text() for path in self._sessions.iterdir()):
            if client.state is not State.OPEN:
                return
            if time.monotonic() > deadline:
                self.late.append(sentence)
                return
            await asyncio.sleep(0.001)
        self.seen.append(sentence)


async def _say(client: ServerConnection, kind: str, **fields: Any) -> None:
    await client.send(json.dumps({"type": kind, **fields}))


# One run ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moment:
    """When to kill: so many seconds after the start, or as soon as so many lines were printed."""

    seconds: float | None = None
    lines: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one start of the program."""

    pid: int
    printed: list[str]
    seconds: float
    was_killed: bool


def run(home: Path, *arguments: str, kill_at: Moment | None = None) -> Run:
    """Run ``voicechat`` to its end, or until it is killed.

    Raises:
        BenchmarkError: It has ended by itself, and not well.
    """
    kill_at = kill_at or Moment()
    own = {name: value for name, value in os.environ.items() if not name.startswith("VOICECHAT_")}
    started = time.perf_counter()
    with (
        tempfile.TemporaryFile() as errors,  # a pipe that nobody reads could fill up
        subprocess.Popen(
            [sys.executable, "-m", "voicechat", *arguments],
            env=own | {"VOICECHAT_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,
        ) as process,
    ):
        timer = threading.Timer(kill_at.seconds or 0.0, process.kill)
        if kill_at.seconds is not None:
            timer.start()
        printed = b""
        assert process.stdout is not None
        while data := process.stdout.read(65536):
            printed += data
            if printed.count(b"\n") == kill_at.lines:
                process.kill()
        code = process.wait()
        seconds = time.perf_counter() - started
        timer.cancel()
        if code not in (0, -signal.SIGKILL):
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
            raise BenchmarkError(f"voicechat {' '.join(arguments[:2])} ended with {code}: {said}")
    lines = printed.decode(errors="replace").splitlines()
    return Run(process.pid, lines, seconds, was_killed=code != 0)


# One session ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kill:
    """What was left of a session when the program was killed in it."""

    doing: str
    command: str
    printed: int
    """Lines of this run."""
    found: int
    """Those that are in the file."""
    lost: list[str] = field(default_factory=list)
    """In words."""


class Session:
    """One session in a place of its own, from its beginning over some deaths to its end."""

    def __init__(self, home: Path, chance: random.Random) -> None:
        self._home = home
        self._directory = home / "sessions"
        self._directory.mkdir()
        self._partner = Partner(self._directory)
        self._chance = chance
        self._printed: list[str] = []
        """By all runs."""
        self._lost: list[str] = []
        """What is known to be."""
        self._deaths = 0
        self._numbers = count(1)

    def undisturbed(self) -> dict[str, float]:
        """How many seconds a run takes, by command."""
        with self._partner.running():
            return {command: self._run(Moment())[1].seconds for command in ("talk", "resume")}

    def killed(self, lengths: dict[str, float], times: int) -> list[Kill]:
        """Kill so many runs, and look at what is left; then go on to the end.

        Args:
            lengths: Of undisturbed runs, in seconds, by command.
            times: How often to kill.
        """
        kills: list[Kill] = []
        with self._partner.running():
            for _ in range(ATTEMPTS):
                if len(kills) == times:
                    break
                command, ended = self._run(self._moment(lengths))
                if ended.was_killed:
                    self._deaths += 1
                    kills.append(self._look_at(command, ended))
            if len(kills) < times:
                raise BenchmarkError(f"of {ATTEMPTS} runs, only {len(kills)} could be killed")
            command, ended = self._run(Moment())
            last = self._look_at(command, ended)
            words = [line.partition(": ")[2] for line in self._printed]
            told = "".join(self._partner.told)
            kills[-1].lost.extend(last.lost)
            kills[-1].lost.extend(f"not told: {each}" for each in words if each not in told)
        return kills

    def _moment(self, lengths: dict[str, float]) -> Moment:
        if self._chance.random() < 0.5:
            return Moment(lines=self._chance.randint(1, LINES))
        command = "resume" if self._paths() else "talk"
        return Moment(seconds=self._chance.uniform(0, lengths[command]))

    def _paths(self) -> list[Path]:
        """Of the session's file, if anything was said in it."""
        return [path for path in self._directory.iterdir() if add_up(path).transcript.spoken]

    def _run(self, kill_at: Moment) -> tuple[str, Run]:
        """Begin the session, or go on with it."""
        paths = self._paths()
        arguments = ["resume", paths[0].stem[-6:]] if paths else ["talk"]
        arguments += ["--url", self._partner.url]
        for number in [next(self._numbers) for _ in range(TURNS)]:
            arguments += ["--text", f"This is question {number}."]
        ended = run(self._home, *arguments, kill_at=kill_at)
        self._printed += ended.printed
        return arguments[0], ended

    def _look_at(self, command: str, ended: Run) -> Kill:
        """What is left when the program is gone."""
        listed = run(self._home, "history", "list").printed
        if not (paths := self._paths()):
            return Kill(STARTING, command, len(ended.printed), 0, list(self._printed))
        [path] = paths
        added_up = add_up(path)
        turns = added_up.transcript.turns
        found = len(ended.printed) - len(missing(ended.printed, turns))
        lost = missing(self._printed, turns)
        seen, self._partner.seen = self._partner.seen, []
        lost += [each for each in seen if not any(each in turn.text for turn in turns)]
        lost += [f"too late: {each}" for each in self._partner.late]
        if added_up.passed_over > self._deaths:
            lost.append(f"{added_up.passed_over} lines are damaged")
        if not any(path.stem[-6:] in line for line in listed):
            lost.append("the session is not listed")
        lost = [each for each in lost if each not in self._lost]
        self._lost += lost
        return Kill(doing(path, ended.pid), command, len(ended.printed), found, lost)


def missing(printed: Iterable[str], turns: Sequence[Turn]) -> list[str]:
    """The lines that are no turn's, or not in this order.

    The program may have been killed while it printed: the beginning of a turn will do.
    """
    saved = [f"{NAMES[turn.role]}: {turn.text}" for turn in turns]
    lost, place = [], 0
    for line in printed:
        found = [n for n in range(place, len(saved)) if saved[n].startswith(line)]
        if found:
            place = found[0] + 1
        else:
            lost.append(line)
    return lost


def doing(path: Path, pid: int) -> str:
    """What the program was doing last in its run, by the file."""
    item_id, is_over, role, is_ours = None, True, None, False
    for _, record in read(path):
        if isinstance(record, Opened):
            item_id, is_ours = None, record.pid == pid
        elif isinstance(record, Speaking | Said):
            item_id, role, is_over = record.item_id, record.role, isinstance(record, Said)
    if item_id is None or not is_ours:
        return STARTING
    if is_over:
        return BETWEEN
    return USER if role == "user" else ANSWERING


# All of them ------------------------------------------------------------------------------------


def measure(times: int, seed: int = 0) -> list[Kill]:
    """Kill the program so many times, at moments that the seed decides on."""
    with tempfile.TemporaryDirectory(prefix="voicechat-bench-") as place:
        (alone := Path(place) / "alone").mkdir()
        lengths = Session(alone, random.Random(seed)).undisturbed()

        def live_and_die(first: int) -> list[Kill]:
            (home := Path(place) / str(first)).mkdir()
            chance = random.Random(f"{seed} {first}")
            return Session(home, chance).killed(lengths, min(KILLS, times - first))

        with ThreadPoolExecutor(LANES) as lanes:
            lives = lanes.map(live_and_die, range(0, times, KILLS))
            return [kill for kills in lives for kill in kills]


def table(kills: Sequence[Kill]) -> str:
    """What was counted, by what the program was doing."""
    rows = [("killed while", "times", "resumed", "printed", "found", "lost")]
    for name in (STARTING, USER, ANSWERING, BETWEEN, "in all"):
        those = [kill for kill in kills if name in (kill.doing, "in all")]
        counts = (
            len(those),
            sum(kill.command == "resume" for kill in those),
            sum(kill.printed for kill in those),
            sum(kill.found for kill in those),
            sum(len(kill.lost) for kill in those),
        )
        rows.append((name, *map(str, counts)))  # type: ignore[arg-type]
    return columns(rows)


EXPLANATION = """
resumed     of these, killed in a `resume`
printed     lines on standard output, in the run that was killed
found       of these, turns that are in the session's file, whole and in order
lost        whatever else was not as it must be, included                   target: nothing
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, count and tell; return 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m bench.crash", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--times", type=int, default=200, help="how often to kill [200]")
    parser.add_argument("--seed", type=int, default=0, help="of the moments [0]")
    parser.add_argument("--json", action="store_true", help="for scripts")
    options = parser.parse_args(arguments)
    try:
        kills = measure(options.times, options.seed)
    except VoicechatError as error:
        print(f"bench.crash: {error.message}", file=sys.stderr)
        return 1
    lost = [words for kill in kills for words in kill.lost]
    if options.json:
        told = {"kills": [asdict(kill) for kill in kills], "missed": lost}
        print(json.dumps(told | {"load_average": load_average()}, indent=2))
    else:
        print(table(kills) + "\n" + EXPLANATION)
        print("load average:", " ".join(f"{load:.2f}" for load in load_average()))
        print("\n".join(f"MISSED: {words}" for words in lost) or "Nothing was lost.")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
