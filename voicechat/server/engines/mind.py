"""A mind: SmolLM2-135M in llama.cpp.  Tiny, English only, often wrong, and quick.

It follows examples, not orders: its chat template and a system prompt make it worse than a plain
text to be continued.  So it reads a dialogue in which every answer is short and good, and then
the last turns of ours.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from voicechat.errors import LocalError
from voicechat.server.contract import Message
from voicechat.server.engines.sentences import Sentences
from voicechat.transcript import unbroken

CONTEXT_TOKENS = 2048
MOST_TOKENS = 60
"""An answer longer than this has lost its way; the sentence it is in is dropped."""
TURNS = 4
"""So many turns are remembered at most, and at least two."""
DROPPED_TURNS = TURNS - 1
"""Turns are forgotten so many at a time: each time, what was read before must be read again."""
TURN_CHARACTERS = 400
SHORT_ORDERS = 200
REFUSALS = ("I'm sorry", "I can't", "I cannot")
"""One such answer in what it reads, and it never answers anything again."""

HEAD = """\
This is a conversation between a person and a friendly voice assistant. \
The assistant is helpful and always answers in one or two short sentences.

Person: Hello, how are you?
Assistant: I'm doing great, thank you! What would you like to talk about?
Person: What is the capital of Italy?
Assistant: The capital of Italy is Rome.
Person: How many days are in a week?
Assistant: There are seven days in a week.
Person: Can you help me plan dinner?
Assistant: Of course! How about a tomato soup with fresh bread and a green salad?
Person: Why do leaves fall in autumn?
Assistant: Trees drop their leaves in autumn to save water and energy for the winter.
Person: I had a long day at work.
Assistant: That sounds tiring. A warm bath or a short walk may help you relax.
Person: What is three times four?
Assistant: Three times four is twelve.
Person: Tell me something about whales.
Assistant: Whales are mammals that live in the ocean and come up to the surface to breathe.
Person: Thanks, that was interesting.
Assistant: You're welcome! What else would you like to know?
"""


class SmolLM:
    """Thinks of answers.  For one thread at a time."""

    def __init__(self, weights: Path) -> None:
        """Load the model and read the examples once, which takes a second.

        Raises:
            LocalError: The weights cannot be used.
        """
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(weights)
        params.n_ctx = CONTEXT_TOKENS
        params.n_parallel = 1
        # One thread: with as many as there are cores, any other busy process makes it 10 times
        # slower (its threads wait for each other by spinning).
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.cache_ram_mib = 64
        params.warmup = False
        params.verbosity = -1
        try:
            self._server: Any = xllamacpp.Server(params)
        except RuntimeError as error:
            raise LocalError(
                f"the language model {weights} cannot be loaded: {error}",
                remedy="Delete that file and run: voicechat local setup",
            ) from error
        self.answer([], "", 1, lambda _: None, lambda: False)

    def answer(
        self,
        messages: Sequence[Message],
        instructions: str,
        max_tokens: int | None,
        say: Callable[[str], None],
        is_stopped: Callable[[], bool],
    ) -> bool:
        """Give each sentence to `say` as soon as it is complete; ask `is_stopped` at every token.

        Returns whether the caller's limit on tokens cut the answer off.

        Raises:
            LocalError: The model failed.
        """
        sentences = Sentences()
        failures: list[str] = []
        said: list[str] = []
        reasons: list[str] = []

        def read(chunk: Any) -> bool:
            if is_stopped():
                return True
            if "choices" not in chunk:
                failures.append(str(chunk.get("message", chunk)))
                return True
            choice = chunk["choices"][0]
            for sentence in sentences.push(choice["text"]):
                said.append(sentence)
                say(sentence)
            if choice["finish_reason"]:
                reasons.append(choice["finish_reason"])
            return False

        limit = min(MOST_TOKENS, max_tokens or MOST_TOKENS)
        self._server.handle_completions(
            {
                "prompt": prompt(messages, instructions),
                "n_predict": limit,
                "temperature": 0,
                "dry_multiplier": 0.8,
                "dry_allowed_length": 8,  # against loops, not against giving the same answer twice
                "stop": ["\n", "Person:"],
                "stream": True,
                "cache_prompt": True,
            },
            read,
        )
        if failures:
            raise LocalError(failures[0], remedy="Try again.")
        if is_stopped():
            return False
        hit_limit = "length" in reasons
        was_cut = hit_limit and max_tokens is not None and max_tokens <= MOST_TOKENS
        if (rest := sentences.rest()) and (was_cut or not hit_limit or not said):
            say(rest)
        return was_cut


def prompt(messages: Sequence[Message], instructions: str) -> str:
    """The text that the model continues: always the same head, so that it is read only once.

    Instructions come after it, if they are short; they hardly help, and long ones do harm.
    """
    names = {"user": "Person", "assistant": "Assistant"}
    spoken = [m for m in messages if m.role in names and not m.text.startswith(REFUSALS)]
    starts = [i for i, m in enumerate(spoken) if m.role == "user"]
    surplus = max(0, len(starts) - TURNS)
    dropped = -(-surplus // DROPPED_TURNS) * DROPPED_TURNS
    recent = spoken[starts[dropped] :] if starts else []
    lines = [f"{names[m.role]}: {_line(unbroken(m.text))[-TURN_CHARACTERS:]}\n" for m in recent]
    told = _line(instructions)
    orders = f"\n(The assistant was told: {told})\n\n" if 0 < len(told) <= SHORT_ORDERS else ""
    return HEAD + orders + "".join(lines) + "Assistant:"


def _line(text: str) -> str:
    return " ".join(text.split())
