"""How long a long session takes to be found, read and gone on with.

A file is written as `SessionLog` writes it: for each turn of the user's a `Speaking` without words
and a `Said`; for each answer three `Speaking`, a `Said` and a `Usage`.  Then, in a fresh process
each time, the session is gone on with as ``voicechat resume`` does it, without the sound card:

    find, read   the session is looked up by its id, its file locked and read
    plan         what was said is added to the file's end, and the items are chosen that restore as
                 much of it as the model's context takes, without a summary
    first byte   a connection is opened to a server on this machine, and ``session.update`` is
                 handed to the websockets library

The three together must take less than 0.5 s.  The file is in the system's cache.  The start of the
interpreter and the imports, which every command needs, are timed beside, not added.
"""

import asyncio
import io
import json
import os
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from unittest.mock import patch

from websockets.asyncio.client import ClientConnection

from bench.common import ANSWER, QUESTION, BenchmarkError, NoSound, columns
from bench.server import Server
from voicechat.display import Display
from voicechat.history.log import SessionLog
from voicechat.history.sessions import find_session, load_and_count
from voicechat.realtime.conversation import Conversation
from voicechat.realtime.effects import Effect
from voicechat.realtime.inputs import QuitRequested
from voicechat.realtime.policy import Policy
from voicechat.talk import Talk
from voicechat.transcript import Closed, Opened, Said, Speaking, Usage

TARGET_MS = 500
MODEL = "gpt-realtime-2.1"


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured of one session.  Times are medians, in ms."""

    turns: int
    megabytes: float
    interpreter_ms: float
    imports_ms: float
    read_ms: float
    plan_ms: float
    first_byte_ms: float

    @property
    def total_ms(self) -> float:
        """All but the start of the interpreter and the imports."""
        return self.read_ms + self.plan_ms + self.first_byte_ms

    @property
    def missed(self) -> list[str]:
        """The targets that were missed, in words."""
        if self.total_ms < TARGET_MS:
            return []
        return [
            f"a session of {self.turns} turns takes {self.total_ms:.0f} ms until its first byte"
        ]


# One run, in a process of its own -----------------------------------------------------------------


class Planned(Conversation):
    """A conversation that notes when it has chosen what to restore."""

    planned_at = 0.0

    def start(self) -> list[Effect]:
        """Choose, and take the time."""
        effects = super().start()
        self.planned_at = time.perf_counter()
        return effects


def resume(directory: Path, session_id: str, url: str) -> dict[str, float]:
    """Go on with a session until the first byte is out; return how many ms each step took."""
    started = time.perf_counter()
    session = find_session(directory, session_id)
    with closing(SessionLog(session.path)) as log:
        transcript, _ = load_and_count(session)
        read_at = time.perf_counter()
        display = Display(io.StringIO(), io.StringIO(), transcript)
        opened = Opened(session=log.session, pid=os.getpid(), model=MODEL)
        transcript.apply(opened)
        log.append(opened)
        conversation = Planned(transcript, policy=Policy(use_summary=False))
        talk = Talk(conversation, sound=NoSound(), log=log, display=display, url=url)
        sent_at = 0.0
        really_send = ClientConnection.send

        async def send(self: ClientConnection, message: str) -> None:
            nonlocal sent_at
            if not sent_at:
                sent_at = time.perf_counter()
                talk.post(QuitRequested())
            await really_send(self, message)

        with patch.object(ClientConnection, "send", send):
            error = asyncio.run(talk.run())
        if error is not None:
            raise error
    return {
        "read_ms": (read_at - started) * 1000,
        "plan_ms": (conversation.planned_at - read_at) * 1000,
        "first_byte_ms": (sent_at - conversation.planned_at) * 1000,
    }


# Measuring --------------------------------------------------------------------------------------


def save_session(directory: Path, turns: int) -> Path:
    """Write a session as the program does, but without waiting for the disk."""
    with patch.object(os, "fsync", int), closing(SessionLog.create(directory)) as log:
        log.append(Opened(session=log.session, version="0", model=MODEL))
        previous, at = None, 0
        for number in range(turns):
            item_id = f"item_{number:021d}"
            if number % 2:
                at = _save_answer(log, item_id, previous, at)
            else:
                at = _save_question(log, item_id, previous, at)
            previous = item_id
        log.append(Closed(end_ms=at))
        return log.path


def _save_question(log: SessionLog, item_id: str, previous: str | None, at: int) -> int:
    log.append(Speaking(item_id=item_id, role="user", previous_item_id=previous, start_ms=at))
    log.append(
        Said(
            item_id=item_id,
            role="user",
            text=QUESTION,
            previous_item_id=previous,
            start_ms=at,
            end_ms=at + 3000,
        )
    )
    return at + 4000


def _save_answer(log: SessionLog, item_id: str, previous: str | None, at: int) -> int:
    sentences = ANSWER.split(". ", 2)
    for sentence in sentences:
        log.append(
            Speaking(
                item_id=item_id,
                role="assistant",
                text=f" {sentence}.",
                previous_item_id=previous,
                start_ms=at,
            )
        )
    log.append(Usage(input_tokens=900, cached_tokens=640, output_tokens=180, model=MODEL))
    log.append(
        Said(
            item_id=item_id,
            role="assistant",
            text=ANSWER,
            previous_item_id=previous,
            start_ms=at,
            end_ms=at + 9000,
        )
    )
    return at + 10_000


def measure(server: Server, turns: int, repetitions: int) -> Result:
    """Save a session and go on with it several times, each time in a fresh process."""
    steps = []
    interpreter, imports = [], []
    with TemporaryDirectory(prefix="voicechat-bench-") as home:
        path = save_session(Path(home), turns)
        saved = path.read_bytes()
        for _ in range(repetitions + 1):
            path.write_bytes(saved)  # without what the last run has added
            interpreter.append(_run("-c", "pass")[0])
            imports.append(_run("-c", "import bench.resume")[0])
            session_id = path.stem.rpartition("-")[2]
            _, told = _run("-m", "bench.resume", home, session_id, server.url)
            steps.append(json.loads(told))
            server.took()  # the server has noticed that it is over
    steps, interpreter, imports = steps[1:], interpreter[1:], imports[1:]  # the first warms up
    return Result(
        turns=turns,
        megabytes=len(saved) / 1e6,
        interpreter_ms=median(interpreter),
        imports_ms=median(imports) - median(interpreter),
        **{name: median(step[name] for step in steps) for name in steps[0]},
    )


def _run(*arguments: str) -> tuple[float, str]:
    """Run a fresh interpreter; return the ms it took, and what it printed."""
    started = time.perf_counter()
    finished = subprocess.run(
        [sys.executable, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    took = time.perf_counter() - started
    if finished.returncode:
        raise BenchmarkError(f"a run failed: {finished.stderr.strip()}")
    return took * 1000, finished.stdout


HEADINGS = ("turns", "file", "interpreter", "imports", "find, read", "plan", "first byte", "in all")


def table(results: list[Result]) -> str:
    """What was measured, in columns."""
    rows = [HEADINGS]
    for each in results:
        rows.append(
            (
                str(each.turns),
                f"{each.megabytes:.1f} MB",
                f"{each.interpreter_ms:.0f} ms",
                f"{each.imports_ms:.0f} ms",
                f"{each.read_ms:.0f} ms",
                f"{each.plan_ms:.0f} ms",
                f"{each.first_byte_ms:.0f} ms",
                f"{each.total_ms:.0f} ms",
            )
        )
    return columns(rows)


EXPLANATION = f"""
in all      find and read, plan, first byte out, in a fresh process; without the start of the
            interpreter and the imports                          target: less than {TARGET_MS} ms
"""


if __name__ == "__main__":
    directory, session_id, url = sys.argv[1:]
    print(json.dumps(resume(Path(directory), session_id, url)))
