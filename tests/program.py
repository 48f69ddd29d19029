"""The program as a user runs it: a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPEECH = Path(__file__).parent / "speech"


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def session(self) -> str:
        """The id in the closing line."""
        return next(line.split()[1] for line in self.err.splitlines() if line.startswith("Saved "))


def voicechat(
    *arguments: str | Path,
    stdin: bytes | None = None,
    timeout: float = 120,
    preexec: Callable[[], object] | None = None,
    **environment: str,
) -> Run:
    """Run ``voicechat`` to its end; there is never a traceback."""
    finished = subprocess.run(
        [sys.executable, "-m", "voicechat", *map(str, arguments)],
        env=os.environ | environment,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        timeout=timeout,
        preexec_fn=preexec,
        check=False,
    )
    out, err = finished.stdout.decode(errors="replace"), finished.stderr.decode(errors="replace")
    assert "Traceback" not in err, err
    return Run(finished.returncode, out, err)


def records(home: Path) -> list[dict[str, Any]]:
    """Every record of the one session there is."""
    [path] = (home / "sessions").glob("*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def messages(session: str) -> list[tuple[str, str]]:
    """(role, content) of a session, by `voicechat export`."""
    run = voicechat("export", session, "--format", "openai")
    assert run.code == 0, run.err
    return [(message["role"], message["content"]) for message in json.loads(run.out)]
