"""The server as a child: it is there when it is needed and never longer."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.program import voicechat
from tests.waiting import wait_until
from voicechat.errors import ExitCode, LocalError
from voicechat.server.launch import local_server

pytestmark = pytest.mark.local

PARENT = """
import asyncio
from voicechat.server.launch import local_server

async def main():
    async with local_server() as server:
        print(server.url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_the_child_is_gone_half_a_second_after_it_was_needed() -> None:
    async def story() -> float:
        async with asyncio.timeout(60):
            async with local_server() as server:
                assert server.hears
                assert server.thinks
                assert server.speaks
                started = time.monotonic()
            return time.monotonic() - started

    assert any(asyncio.run(story()) < 0.5 for _ in range(3))  # once, on a machine that is busy


def test_the_child_does_not_outlive_a_parent_that_was_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith(b"ws://127.0.0.1:")
        [child] = children(parent.pid)
        os.kill(parent.pid, signal.SIGKILL)
    wait_until(lambda: not is_running(child))


def test_a_port_in_use_is_told_in_plain_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        run = voicechat("local", "serve", "--port", str(port))
    assert run.code == ExitCode.LOCAL
    assert run.err.splitlines() == [
        f"voicechat: port {port} is in use by another program",
        "  Name another with --port, or leave that out: then a free one is taken.",
    ]


def test_a_server_that_does_not_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.exit('no room at the inn')")

    async def story() -> None:
        async with local_server():
            pass

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(LocalError, match=r"did not start: .*no room at the inn"):
        asyncio.run(story())


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def is_running(pid: int) -> bool:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(found.stdout.strip()) and not found.stdout.strip().startswith("Z")
