"""What the benchmarks have in common: words, a speaker that is none, surroundings, and a table."""

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

from voicechat.errors import VoicechatError
from voicechat.sound import Listener
from voicechat.transcript import Said, Transcript

QUESTION = "And what do the bees do in the winter, when there is nothing in flower?"
ANSWER = (
    "They stay at home. The colony forms a cluster around its queen, shivers to keep warm, and "
    "lives on the honey it has put by in the summer. On a mild day some fly out for a moment."
)
MANY_TOKENS = 10**9
"""For a replay of which nothing is left out."""


class BenchmarkError(VoicechatError):
    """Something went wrong that was only to be timed."""

    def __init__(self, message: str) -> None:
        super().__init__(message, remedy="Look for what is wrong with the program or the server.")


class NoSound:
    """Neither a microphone nor a speaker: nothing is said while a conversation is restored."""

    echo = None

    def open(self, listener: Listener) -> AbstractAsyncContextManager[None]:
        """Hear nothing."""
        return nullcontext()

    def renew(self) -> None:
        """Nothing was open."""

    def play(self, item_id: str, pcm: bytes) -> None:
        """Drop it."""

    def end(self, item_id: str) -> None:
        """Nothing was played."""

    def stop(self) -> tuple[tuple[str, int], ...]:
        """Nothing was heard."""
        return ()


def conversation_of(turns: int) -> Transcript:
    """So many turns of ordinary length, the user's and the assistant's alternating.

    The last one is the assistant's: else the program would ask for an answer.
    """
    transcript = Transcript()
    for number in range(turns):
        item_id = f"item_{number}"
        if (turns - number) % 2:
            transcript.apply(Said(item_id=item_id, role="assistant", text=ANSWER))
        else:
            transcript.apply(Said(item_id=item_id, role="user", text=QUESTION))
    return transcript


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines of text, each column as wide as it must be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def clean_environment(home: Path) -> dict[str, str]:
    """Ours without settings of the programs that are measured; sessions are in `home`.

    Python keeps its bytecode, as it does where a program was installed.
    """
    not_wanted = ("VOICECHAT_", "OPENAI_", "LLM_", "PYTHONPROFILE", "PYTHONDONTWRITEBYTECODE")
    others = {k: v for k, v in os.environ.items() if not k.startswith(not_wanted)}
    return others | {"VOICECHAT_HOME": str(home)}


def load_average() -> list[float]:
    """How busy the machine was in the last 1, 5 and 15 minutes, where that is known."""
    return list(os.getloadavg()) if sys.platform != "win32" else []
