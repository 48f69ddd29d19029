"""A door: the engines at work, each in one thread of its own, for all clients of the server.

What they find out comes back as inputs of a session, on the event loop, in the order in which it
was asked for.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Flag
from typing import Protocol

from voicechat.errors import LocalError
from voicechat.server import contract
from voicechat.server.contract import Message
from voicechat.server.engines.activity import VoiceActivity, detector
from voicechat.server.engines.table import BY_NAME

LONGEST_REASON = 200
"""Characters of why an engine failed: some quote all that they were given."""
MODEL = "smollm2-135m"
"""The name by which clients ask for the only model there is."""


class Ears(Protocol):
    """Puts speech into words."""

    def transcribe(self, pcm: bytes) -> str:
        """The words in PCM16, 24 kHz; empty if there are none."""


class Mind(Protocol):
    """Thinks of answers."""

    def answer(
        self,
        messages: Sequence[Message],
        instructions: str,
        max_tokens: int | None,
        say: Callable[[str], None],
        is_stopped: Callable[[], bool],
    ) -> bool:
        """Give each sentence to `say`; returns whether `max_tokens` cut the answer off."""


class Voice(Protocol):
    """Speaks."""

    def speak(self, text: str, speed: float) -> bytes:
        """The sentence as PCM16, 24 kHz; empty if it cannot be read aloud."""


@dataclass(frozen=True, slots=True)
class Engines:
    """What the server has to work with; None for what is not installed."""

    ears: Ears | None = None
    mind: Mind | None = None
    voice: Voice | None = None
    detector: Callable[[], VoiceActivity] = detector


def load_engines(weights: Path | None) -> Engines:
    """Load all that is installed, side by side; `weights` are those of the mind.

    Raises:
        LocalError: An engine is installed but does not work.
    """

    def load_ears() -> Ears | None:
        from voicechat.server.engines.ears import Whisper

        # One core is left alone: threads that outnumber the idle cores wait by spinning.
        threads = max(1, min(4, (os.cpu_count() or 1) - 1))
        return Whisper(threads=threads) if BY_NAME["ears"].is_installed else None

    def load_mind() -> Mind | None:
        from voicechat.server.engines.mind import SmolLM

        return SmolLM(weights) if weights and BY_NAME["mind"].is_installed else None

    def load_voice() -> Voice | None:
        # onnxruntime, which the voice runs on, reports to its makers unless told not to.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        from voicechat.server.engines.voice import Hibari

        return Hibari() if BY_NAME["voice"].is_installed else None

    with ThreadPoolExecutor(3) as pool:
        ears, mind, voice = pool.submit(load_ears), pool.submit(load_mind), pool.submit(load_voice)
    try:
        return Engines(ears.result(), mind.result(), voice.result())
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise LocalError(
            f"an engine of the built-in server does not work: {error}",
            remedy="Install it afresh: pip install --force-reinstall 'voicechat[local]'",
        ) from error


Post = Callable[[contract.Input], None]


@dataclass(slots=True)
class Workshop:
    """The engines' threads.  Every method returns at once, and is called on the event loop."""

    engines: Engines
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _hearing: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "ears"))
    _thinking: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "mind"))
    _speaking: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "voice"))
    _listening: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "vad"))
    _is_closing: Flag = field(default_factory=Flag)

    @contextlib.contextmanager
    def open(self) -> Iterator["Workshop"]:
        """End the threads afterwards; what they are at is given up."""
        try:
            yield self
        finally:
            self._is_closing.set()
            for threads in (self._thinking, self._hearing, self._speaking, self._listening):
                threads.shutdown(wait=True, cancel_futures=True)

    async def listen(self, detector: VoiceActivity, pcm: bytes) -> contract.VoiceHeard:
        """How likely speech is in the next sound of one client."""
        return contract.VoiceHeard(
            tuple(await self._loop.run_in_executor(self._listening, detector.hear, pcm))
        )

    def transcribe(self, job: contract.Transcribe, post: Post) -> None:
        """Put sound into words and `post` them."""
        ears = self.engines.ears
        if ears is None:
            message = BY_NAME["ears"].without
            post(contract.TranscriptionFailed(job.item_id, job.take, message))
            return

        def hear() -> contract.Input:
            try:
                text = ears.transcribe(job.pcm)
            except (RuntimeError, ValueError) as error:
                message = f"I could not make out what you said: {error}"
                return contract.TranscriptionFailed(job.item_id, job.take, message)
            return contract.Transcribed(job.item_id, job.take, text)

        self._submit(self._hearing, lambda: self._post(post, hear()))

    def answer(self, job: contract.Generate | contract.Utter, post: Post, stop: Flag) -> None:
        """Think of an answer, speak it, and `post` it a sentence at a time until `stop` is set."""
        mind = self.engines.mind
        if isinstance(job, contract.Generate) and mind is None:
            job = contract.Utter(job.response_id, BY_NAME["mind"].without, job.speed)
        self._submit(self._thinking, lambda: self._think(job, mind, post, stop))

    def _think(
        self,
        job: contract.Generate | contract.Utter,
        mind: Mind | None,
        post: Post,
        stop: Flag,
    ) -> None:
        """Runs on the mind's thread; the voice's works on one sentence while this thinks on."""

        def is_stopped() -> bool:
            return stop.is_set() or self._is_closing.is_set()

        def say(text: str) -> None:
            self._submit(self._speaking, lambda: self._speak(job, text, post, is_stopped))

        end: contract.Input = contract.AnswerEnded(job.response_id)
        if is_stopped():
            return
        if isinstance(job, contract.Utter):
            say(job.text)
        elif mind is not None:
            try:
                was_cut = mind.answer(
                    job.messages, job.instructions, job.max_tokens, say, is_stopped
                )
                end = contract.AnswerEnded(job.response_id, was_cut)
            except (LocalError, RuntimeError) as error:
                end = contract.AnswerFailed(job.response_id, str(error)[:LONGEST_REASON])
        self._submit(self._speaking, lambda: self._post(post, end))

    def _speak(
        self,
        job: contract.Generate | contract.Utter,
        text: str,
        post: Post,
        is_stopped: Callable[[], bool],
    ) -> None:
        if is_stopped():
            return
        pcm = b""
        if job.speed is not None and self.engines.voice is not None:
            try:
                pcm = self.engines.voice.speak(text, job.speed)
            except (RuntimeError, ValueError) as error:
                self._post(post, contract.AnswerFailed(job.response_id, str(error)))
        self._post(post, contract.SentenceReady(job.response_id, text, pcm))

    def _post(self, post: Post, happened: contract.Input) -> None:
        """From a thread to the event loop; too late is as good as never."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(post, happened)

    def _submit(self, threads: ThreadPoolExecutor, job: Callable[[], None]) -> None:
        def run() -> None:
            job()

        def tell(future: Future[None]) -> None:
            error = None if future.cancelled() else future.exception()
            if error is not None:  # a bug: let the loop report it instead of losing it
                context = {"message": "an engine failed", "exception": error}
                self._loop.call_soon_threadsafe(self._loop.call_exception_handler, context)

        with contextlib.suppress(RuntimeError):  # the threads have ended meanwhile
            threads.submit(run).add_done_callback(tell)
