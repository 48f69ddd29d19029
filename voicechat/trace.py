"""A door: the trace of a conversation, as it happens, in a file."""

import json
import os
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

from voicechat import __version__
from voicechat.errors import OutputError, UsageError
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.effects import Effect
from voicechat.realtime.inputs import Input
from voicechat.realtime.masking import cleaning
from voicechat.realtime.policy import Policy
from voicechat.realtime.providers import Provider
from voicechat.realtime.tracing import (
    decided_line,
    happened_line,
    header,
    milliseconds,
)
from voicechat.transcript import Transcript


class Trace:
    """Writes down what happens and what is decided, a line each, at once; readable by you alone.

    Args:
        path: A new file, an empty one, or a device or pipe.
        secrets: What must not stand in it.
        on_failure: Told when no more can be written; the conversation goes on.

    Raises:
        OutputError: It cannot be written there, or something is there already.
    """

    def __init__(
        self, path: Path, secrets: Iterable[str | None], on_failure: Callable[[str], object]
    ) -> None:
        self._clean = cleaning(secrets)
        self._on_failure = on_failure
        self._seed = Random().getrandbits(32)
        self._start = round(time.monotonic(), 6)
        self._ms = 0.0
        self._file: int | None = _opened(path)
        self.chance = Random(self._seed).random
        """What the conversation is to throw dice with, so that it can be repeated."""

    def begin(
        self,
        transcript: Transcript,
        configuration: Configuration,
        policy: Policy,
        provider: Provider,
        *,
        url: str,
    ) -> None:
        """Write how the conversation begins; `url` must be fit to be shown."""
        chosen = transcript, configuration, policy, provider
        first = header(*chosen, start=self._start, seed=self._seed, clean=self._clean)
        self._write(first | {"version": __version__, "url": self._clean(url)})

    def happened(self, happened: Input, now: float) -> None:
        """Write an input; `now` is in seconds, to the microsecond."""
        self._ms = milliseconds(self._start, now)
        self._write(happened_line(happened, self._ms, self._clean))

    def decided(self, effects: Iterable[Effect]) -> None:
        """Write what is done about it."""
        for effect in effects:
            self._write(decided_line(effect, self._ms, self._clean))

    def close(self) -> None:
        """Let go of the file.  Safe to do twice."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is None:
            return
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            self.close()
            self._on_failure(f"The trace ends here: {(error.strerror or str(error)).lower()}.")


def _opened(path: Path) -> int:
    if str(path) == "-":
        raise UsageError(
            "--trace writes a file, and what goes to standard output is the conversation",
            remedy="Name a file, such as `--trace trace.jsonl`.",
        )
    # Not to wait for a pipe's reader, neither now nor when it is slow.
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        file = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o600)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise OutputError(
            f"the trace cannot be written to {str(path)!r}: {reason.lower()}",
            remedy="Name a file in a directory of yours, such as `--trace trace.jsonl`.",
        ) from error
    found = os.fstat(file)
    if stat.S_ISREG(found.st_mode) and found.st_size:
        os.close(file)
        raise OutputError(
            f"there is something in {str(path)!r} already",
            remedy="Name another file for --trace, or delete that one.",
        )
    return file
