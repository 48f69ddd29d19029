"""The program as a user runs it: a process of its own."""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, PR_CAPBSET_DROP = 1, 2, 24
"""Of Linux."""
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


def bound_by_permissions() -> None:
    """For `voicechat(preexec=...)`: let root, too, get only where the modes of files let it."""
    if os.geteuid() == 0:
        for capability in CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH:
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Nobody who is `bound_by_permissions` gets at what is in it meanwhile."""
    directory.chmod(0)
    yield
    directory.chmod(0o700)


def records(home: Path) -> list[dict[str, Any]]:
    """Every record of the one session there is."""
    [path] = (home / "sessions").glob("*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def messages(session: str) -> list[tuple[str, str]]:
    """(role, content) of a session, by `voicechat export`."""
    run = voicechat("export", session, "--format", "openai")
    assert run.code == 0, run.err
    return [(message["role"], message["content"]) for message in json.loads(run.out)]
