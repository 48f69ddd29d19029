"""A door: tries devices in a child process.

Where devices come and go, PortAudio may wait for ever or end its whole process: what works there,
just now, is worth trying here.
"""

import json
import os
import subprocess
import sys
import time

from voicechat.audio.portaudio import Kind, Latency, OnBlock, Stream, open_streams
from voicechat.settings import child_environment

PATIENCE = 5.0
"""Seconds until it is taken to hang."""
RUNNING = 1.5
"""Seconds in which a device that works gives a few blocks, one after the other."""


def working(wanted: dict[Kind, str | None], latency: Latency) -> list[Kind]:
    """Which of these devices work, or, where they are gone, those of the system instead.

    Blocks for `PATIENCE` at most.
    """
    command = [sys.executable, "-P", "-m", __name__, json.dumps([wanted, latency])]
    try:
        child = subprocess.run(
            command,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        told = json.loads(child.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return []
    return [kind for kind in wanted if kind in told]


def _main() -> None:
    wanted, latency = json.loads(sys.argv[1])
    on_block: dict[Kind, OnBlock] = {"input": _nothing, "output": _nothing}
    opened = open_streams(wanted, latency, on_block, or_default=True)
    streams = [stream for stream in opened if isinstance(stream, Stream)]
    deadline = time.monotonic() + RUNNING
    while time.monotonic() < deadline and not all(stream.is_running for stream in streams):
        time.sleep(0.02)
    sys.stdout.write(json.dumps([stream.kind for stream in streams if stream.is_running]))
    sys.stdout.flush()
    os._exit(0)  # to close them may take for ever


def _nothing(stream: Stream, block: object) -> None:
    pass  # what is to be heard is silence already


if __name__ == "__main__":
    _main()
