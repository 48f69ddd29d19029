"""Runs checks beside each other, none for longer than it may take, and tells what they find."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Literal

from voicechat.errors import VoicechatError
from voicechat.transcript import printable

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of what the doctor says."""

    check: str
    """What was looked at, in a word or two."""
    status: Status
    message: str
    remedy: str = ""
    """What mends it, if something is to be mended."""


@dataclass(frozen=True, slots=True)
class Check:
    """Something to look at, in a thread of its own."""

    name: str
    seconds: float
    """It is given up then, and its thread left to itself."""
    look: Callable[[], Iterable[Finding]]
    """May raise `VoicechatError`, which is then what is found, or `OSError`."""


def examine(
    checks: Sequence[Check], on_waiting: Callable[[list[str]], object]
) -> Iterator[list[Finding]]:
    """Start all at once, and yield what each finds, in the order of the checks.

    Args:
        checks: What to look at.
        on_waiting: Told which have not ended yet, whenever that changes.
    """
    news = SimpleQueue[tuple[str, list[Finding]]]()
    started = time.monotonic()
    for check in checks:
        threading.Thread(target=_look, args=(check, news), daemon=True).start()
    waiting = {check.name: check for check in checks}
    found: dict[str, list[Finding]] = {}
    for check in checks:
        while check.name not in found:
            on_waiting(list(waiting))
            ends = min(started + each.seconds for each in waiting.values())
            try:
                name, findings = news.get(timeout=max(0.0, ends - time.monotonic()))
                if name in waiting:
                    del waiting[name]
                    found[name] = findings
            except Empty:
                now = time.monotonic()
                for late in [each for each in waiting.values() if started + each.seconds <= now]:
                    del waiting[late.name]
                    found[late.name] = [_given_up(late)]
        yield found[check.name]


def _given_up(check: Check) -> Finding:
    message = f"it did not answer within {check.seconds:g} s"
    return Finding(check.name, "fail", message, "Try again when the computer is less busy.")


def _look(check: Check, news: SimpleQueue[tuple[str, list[Finding]]]) -> None:
    try:
        found = list(check.look())
    except VoicechatError as error:
        found = [failing(check.name, error)]
    except OSError as error:
        reason = printable(error.strerror or str(error)).lower()
        found = [Finding(check.name, "fail", reason, "See to it that it can be read.")]
    news.put((check.name, found))


def failing(check: str, error: VoicechatError) -> Finding:
    """What it comes to that this went wrong."""
    return Finding(check, "fail", printable(error.message), printable(error.remedy))
