"""A long conversation at a sound card: does anything grow, or drift?

Run it with ``python -m bench.soak``; it needs what ``python -m bench.audio`` needs.  Someone asks,
the assistant answers, and every third answer is interrupted, for 20 minutes.  At the end

    whole answers   are compared with what the speaker was given of them, sample by sample
    cut answers     likewise: how far the speaker had got, less what the program told the server
                    that was heard, is what the card held back and a fade; it must stay the same
    memory          and threads and file handles, early and at the end
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from statistics import median

import numpy as np

from bench.audio import (
    ECHO_MS,
    INTERRUPTIONS,
    QUESTIONS,
    SURE_DB,
    Assistant,
    Program,
    Samples,
    Tape,
    conversation,
    quiet_room,
    reading,
    save_speech,
    say,
)
from bench.common import BenchmarkError, columns, load_average
from tests.virtual_card import VirtualCard
from voicechat.errors import VoicechatError
from voicechat.pcm import BYTES_PER_MS, FRAME_MS, SAMPLE_RATE
from voicechat.realtime import events as wire
from voicechat.sound import EchoMode

EARLY = 120.0
"""Seconds after which nothing should grow any more; in a short run, a third of it."""
GROWTH_MB = 2.0
EVERY = 3
"""Of so many answers, one is interrupted."""
QUIET = 3.0
"""Seconds of silence after which no answer comes any more."""
PAUSE = 0.3
"""Seconds of silence that surely end what is heard of an answer."""
KEY = 240
"""Samples by which an answer is known again."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of the machine the program has."""

    memory_mb: float
    threads: int
    files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a long conversation."""

    minutes: float
    answers: int
    whole: int
    cut: int
    """Answers that were heard to their end, and those that were interrupted."""
    lost_ms: float
    """Of the whole ones, missing or too much at the speaker, in all."""
    held_back_ms: float | None
    """Of the cut ones, the median of what the speaker got and was not heard."""
    drift_ms: float | None
    """How much more that was in the last third of them than in the first."""
    early: Size
    late: Size
    cpu_seconds: float
    """A minute."""
    errors: int
    """By which the server complained."""

    @property
    def growth_mb(self) -> float:
        """Of memory, from early on."""
        return self.late.memory_mb - self.early.memory_mb

    @property
    def missed(self) -> list[str]:
        """The targets that were missed, in words."""
        missed = []
        if abs(self.lost_ms) >= FRAME_MS:
            missed.append(f"the speaker got {self.lost_ms:.0f} ms too little")
        if self.drift_ms is not None and abs(self.drift_ms) >= FRAME_MS:
            missed.append(f"what was heard drifts by {self.drift_ms:.0f} ms")
        if self.growth_mb >= GROWTH_MB:
            missed.append(f"memory grows by {self.growth_mb:.1f} MB")
        if self.late.threads > self.early.threads:
            missed.append(f"{self.late.threads - self.early.threads} more threads")
        if self.late.files > self.early.files:
            missed.append(f"{self.late.files - self.early.files} more file handles")
        if self.errors:
            missed.append(f"the server complained {self.errors} times")
        return missed


def soak(card: VirtualCard, minutes: float, echo: EchoMode) -> Result:
    """Converse for so long."""
    chance, seconds = random.Random(3), minutes * 60
    assistant = Assistant(lambda number: [reading(chance.uniform(4, 8), number * 4801)])
    tape, early = Tape(card, "speaker"), None
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="voicechat-bench-"))
        )
        questions = save_speech(directory, QUESTIONS)
        interruptions = save_speech(directory, INTERRUPTIONS)
        stack.enter_context(quiet_room(card, directory, seconds + 120))
        program = stack.enter_context(conversation(card, assistant, echo))
        if echo == "cancel":
            stack.callback(card.echo(SURE_DB, ECHO_MS))
        began, cpu = time.monotonic(), program.cpu_seconds
        for number in count():
            passed = time.monotonic() - began
            if early is None and passed > min(EARLY, seconds / 3):
                early = size_of(program)
            if passed > seconds:
                break
            if number % 10 == 0:
                now = size_of(program)
                say(
                    f"{passed / 60:.1f} min: {number} turns, {now.memory_mb:.1f} MB, {now.threads} "
                    f"threads, {now.files} files"
                )
            is_cut = number % EVERY == EVERY - 1
            begun = len(assistant.sounds)
            card.speak(questions[number % len(questions)][0])
            program.until(lambda b=begun: len(assistant.sounds) > b, "an answer came")  # type: ignore[misc]
            program.until(tape.is_sounding, "an answer was heard")
            if is_cut:
                time.sleep(chance.uniform(0.5, 3))
                card.speak(interruptions[number % len(interruptions)][0])
            program.until(lambda: not tape.is_sounding(QUIET), "all answers were over", 60)
        took, cpu = time.monotonic() - began, program.cpu_seconds - cpu
        late = size_of(program)
        program.hang_up()
    assert early is not None
    whole, cut = compare(assistant, tape.stop())
    third = len(cut) // 3
    return Result(
        minutes=took / 60,
        answers=len(assistant.sounds),
        whole=len(whole),
        cut=len(cut),
        lost_ms=sum(whole),
        held_back_ms=median(cut) if cut else None,
        drift_ms=median(cut[-third:]) - median(cut[:third]) if third else None,
        early=early,
        late=late,
        cpu_seconds=cpu * 60 / took,
        errors=len(assistant.times(wire.Error)),
    )


def size_of(program: Program) -> Size:
    """As it is now."""
    return Size(program.memory_mb("VmRSS"), program.threads, program.files)


def compare(assistant: Assistant, played: Samples) -> tuple[list[float], list[float]]:
    """What was heard of each answer by word of the program, and by what the speaker got.

    Returns:
        Of each whole answer, how many ms the speaker got too little; of each that was cut, how many
        more it got than were heard.
    """
    cuts = {
        event.item_id: event.audio_end_ms
        for _, event in assistant.heard
        if isinstance(event, wire.ConversationItemTruncate)
    }
    cuts |= {
        event.item_id: 0  # nothing of it was heard
        for _, event in assistant.heard
        if isinstance(event, wire.ConversationItemDelete)
    }
    items = {bytes(sound[: 2 * KEY]): item_id for item_id, sound in assistant.sounds.items()}
    whole: list[float] = []
    cut: list[float] = []
    for heard in passages(played):
        item_id = items.pop(heard[:KEY].tobytes(), None)
        if item_id is None:
            raise BenchmarkError("the speaker got something that the server never said")
        got = len(heard) * 1000 / SAMPLE_RATE
        if item_id in cuts:
            cut.append(got - cuts[item_id])
        else:
            whole.append(len(assistant.sounds[item_id]) / BYTES_PER_MS - got)
    return whole, cut


def passages(played: Samples) -> Iterator[Samples]:
    """What sounded without a pause, without the short silences that a busy sound server puts in."""
    sounding = np.flatnonzero(played)
    breaks = np.flatnonzero(np.diff(sounding) > PAUSE * SAMPLE_RATE) + 1
    for places in np.split(sounding, breaks):
        if len(places):
            yield played[places]


def table(result: Result) -> str:
    """What was measured."""
    held = "none" if result.held_back_ms is None else f"{result.held_back_ms:.0f} ms"
    drift = "unknown" if result.drift_ms is None else f"{result.drift_ms:+.1f} ms"
    early, late = result.early, result.late
    return (
        columns(
            [
                ("", "early", "late", ""),
                (
                    "memory",
                    f"{early.memory_mb:.1f} MB",
                    f"{late.memory_mb:.1f} MB",
                    "target: the same",
                ),
                ("threads", str(early.threads), str(late.threads), "target: no more"),
                ("file handles", str(early.files), str(late.files), "target: no more"),
            ]
        )
        + f"""

{result.minutes:.1f} minutes, {result.answers} answers, {result.cpu_seconds:.2f} s of CPU a minute
{result.whole} whole answers: {result.lost_ms:+.1f} ms did not get to the speaker; target: less \
than {FRAME_MS} ms
{result.cut} cut answers: {held} got to the speaker and were not heard, the card's own; drift
{drift} from the first third to the last; target: less than {FRAME_MS} ms
"""
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and tell; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--echo", choices=["cancel", "off"], default="cancel")
    parser.add_argument("--json", action="store_true", help="for scripts")
    options = parser.parse_args(arguments)
    try:
        with VirtualCard() as card:
            result = soak(card, options.minutes, options.echo)
    except VoicechatError as error:
        print(f"bench.soak: {error.message}", file=sys.stderr)
        return 1
    if options.json:
        told = asdict(result) | {"growth_mb": result.growth_mb, "missed": result.missed}
        print(json.dumps(told | {"load_average": load_average()}, indent=2))
    else:
        print(table(result))
        print("load average:", " ".join(f"{load:.2f}" for load in load_average()))
        print("\n".join(f"MISSED: {words}" for words in result.missed) or "All targets are met.")
    return 1 if result.missed else 0


if __name__ == "__main__":
    sys.exit(main())
