"""A door: the server as a child process, so that no engine ever disturbs the sound card's threads.

The child says one line when it is ready, and ends when its standard input does: it cannot outlive
its parent, whatever becomes of that.
"""

import asyncio
import contextlib
import json
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import IO

from voicechat.errors import LocalError
from voicechat.server import models
from voicechat.server.engines.table import BY_NAME
from voicechat.settings import child_environment

READY_SECONDS = 60.0
LEAVE_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A server that is ready."""

    url: str
    """Of the WebSocket, without ``?model=``."""
    key: str
    model: str
    hears: bool
    """Speech becomes words; otherwise spoken turns are answered by one sentence that says why."""
    thinks: bool
    """A model answers; otherwise one sentence that says how to get one."""
    speaks: bool
    """Answers can be heard; otherwise they are written."""

    def line(self) -> str:
        """What the child says when it is ready."""
        return json.dumps(asdict(self))


@contextlib.asynccontextmanager
async def local_server(
    progress: models.Progress = lambda *_: None,
) -> AsyncIterator[LocalServer]:
    """Run the built-in server while the context is open.

    Weights that are missing are fetched first; `progress` is then called from another thread.

    Raises:
        LocalError: The weights cannot be fetched, or the server does not start.
    """
    if BY_NAME["mind"].is_installed:
        stop = threading.Event()
        try:
            await asyncio.to_thread(models.ensure, models.SMOLLM, progress, stop.is_set)
        finally:
            stop.set()
    with tempfile.TemporaryFile() as complaints:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "voicechat", "local", "serve", "--until-eof"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=complaints,
            env=child_environment(),
            start_new_session=True,  # Ctrl-C is for the conversation, which then ends this
        )
        try:
            server = await _ready(child, complaints)
            yield server
        finally:
            await _end(child)


async def _ready(child: asyncio.subprocess.Process, complaints: IO[bytes]) -> LocalServer:
    assert child.stdout is not None
    try:
        async with asyncio.timeout(READY_SECONDS):
            line = await child.stdout.readline()
    except TimeoutError as error:
        raise LocalError(
            f"the built-in server was not ready after {READY_SECONDS:.0f} s",
            remedy="See what it does: voicechat local serve",
        ) from error
    try:
        return LocalServer(**json.loads(line))
    except (ValueError, TypeError) as error:
        complaints.seek(0)
        said = complaints.read().decode(errors="replace").strip().splitlines()
        told = [line.removeprefix("voicechat: ") for line in said if line.startswith("voicechat: ")]
        raise LocalError(
            f"the built-in server did not start: {[*said, *told][-1] if said else 'no word of it'}",
            remedy="See all that it says: voicechat local serve",
        ) from error


async def _end(child: asyncio.subprocess.Process) -> None:
    assert child.stdin is not None
    child.stdin.close()
    try:
        async with asyncio.timeout(LEAVE_SECONDS):
            await child.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
