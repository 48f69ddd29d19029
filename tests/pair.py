"""Client and server, back to back in virtual time, with real JSON and no socket between them."""

import heapq
import random
from collections.abc import Callable
from itertools import count

import numpy as np

from voicechat.audio.playback import PlaybackBuffer
from voicechat.pcm import FRAME_BYTES, silence
from voicechat.realtime import effects, inputs
from voicechat.realtime.conversation import Conversation
from voicechat.realtime.events import CLIENT_EVENTS, SERVER_EVENTS, Event, decode, encode
from voicechat.server import contract
from voicechat.server.session import ServerSession
from voicechat.transcript import Record, Transcript

LOUD = (np.sin(np.arange(480) / 5) * 9000).astype("<i2").tobytes()
TICK = 0.02


class Pair:
    """A conversation whose server, ears, mind, speaker and clock are all in the test's hands."""

    def __init__(
        self, transcript: Transcript | None = None, *, latency: float = 0.04, seed: int = 0
    ) -> None:
        self.now = 0.0
        self.latency = latency
        self.transcript_delay: Callable[[], float] = lambda: 0.3
        self.answers = ["Well, let me see.", "That is all I know."]
        self.answer_ms = 800
        """Of each sentence."""
        self.random = random.Random(seed)
        self.client = Conversation(transcript)
        self.records: list[Record] = []
        self.notices: list[str] = []
        self.sent: list[Event] = []
        self.is_over = False
        self._playback = PlaybackBuffer()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()
        self._heard_words = count(1)
        self._speaking_until = 0.0
        self._heard_rest = b""
        self._stopped: set[str] = set()
        self._perform(self.client.start())

    # Stories -------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        """Let time pass, microphone and speaker running."""
        end = self.now + seconds
        while self.now < end and not self.is_over:
            self.now += TICK
            self._happen()
            for item_id, heard_ms in self._playback.pull(np.empty(480, dtype="<i2")):
                self.tell(inputs.PlaybackFinished(item_id, heard_ms))
            frame = LOUD if self.now < self._speaking_until else silence(20)
            assert len(frame) == FRAME_BYTES
            self.tell(inputs.MicCaptured(frame))
            self._look_at_clocks()

    def say(self, seconds: float) -> None:
        """The user speaks, and then falls silent."""
        self._speaking_until = self.now + seconds
        self.wait(seconds)

    def converse(self) -> None:
        """The user says something and hears the whole answer."""
        self.say(1.0)
        self.wait(4.0)

    def tell(self, happened: inputs.Input) -> None:
        """Something happens to the client."""
        self._perform(self.client.handle(happened, self.now))

    @property
    def spoken(self) -> list[tuple[str, str, str]]:
        """(role, text, status), in order."""
        return [(t.role, t.text, t.status) for t in self.client.transcript.spoken]

    # The world -----------------------------------------------------------------------------------

    def _later(self, seconds: float, what: Callable[[], object]) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._order), what))

    def _happen(self) -> None:
        while self._due and self._due[0][0] <= self.now:
            heapq.heappop(self._due)[2]()

    def _look_at_clocks(self) -> None:
        while (deadline := self.client.deadline) is not None and deadline <= self.now:
            self.tell(inputs.DeadlineReached())
        if self.server.deadline <= self.now:
            self._serve(self.server, contract.DeadlineReached())

    def _perform(self, wanted: list[effects.Effect]) -> None:
        for effect in wanted:
            match effect:
                case effects.Connect(number):
                    self._connect(number)
                case effects.Send(_, event):
                    self.sent.append(event)
                    text, server = encode(event), self.server
                    self._later(self.latency, lambda s=server, t=text: self._deliver(s, t))  # type: ignore[misc]
                case effects.Play(item_id, pcm):
                    self._playback.push(item_id, pcm)
                case effects.EndPlayback(item_id):
                    self._playback.end(item_id)
                case effects.StopPlayback():
                    self.tell(inputs.PlaybackStopped(self._playback.stop()))
                case effects.Write(record):
                    self.records.append(record)
                case effects.Notice(text):
                    self.notices.append(text)
                case effects.Finish():
                    self.is_over = True

    def _connect(self, number: int) -> None:
        self.server = ServerSession(
            self.now, name=f"s{number}", model="tiny", can_speak=True, started_at=1_800_000_000
        )
        self.number = number
        server = self.server
        self._later(self.latency, lambda: self.tell(inputs.Connected(number)))
        self._later(self.latency, lambda: self._work(server, server.start()))

    def _deliver(self, server: ServerSession, text: str) -> None:
        self._serve(server, contract.Received(decode(text, CLIENT_EVENTS)))

    def _serve(self, server: ServerSession, happened: contract.Input) -> None:
        self._work(server, server.handle(happened, self.now))

    def _work(self, server: ServerSession, wanted: list[contract.Effect]) -> None:
        """The server's door and its engines."""
        for effect in wanted:
            match effect:
                case contract.Say(event):
                    text, number = encode(event), self.number
                    self._later(self.latency, lambda n=number, t=text: self._hear(n, t))  # type: ignore[misc]
                case contract.Listen(pcm):
                    self._serve(server, contract.VoiceHeard(self._voices(pcm)))
                case contract.Transcribe(item_id, take, _):
                    words = f"Sentence {next(self._heard_words)}."
                    done = contract.Transcribed(item_id, take, words)
                    delay = self.transcript_delay()
                    self._later(delay, lambda d=done: self._serve(server, d))  # type: ignore[misc]
                case contract.Generate(response_id, speed=speed):
                    self._answer(server, response_id, self.answers, is_spoken=speed is not None)
                case contract.Utter(response_id, text, speed):
                    self._answer(server, response_id, [text], is_spoken=speed is not None)
                case contract.Stop(response_id):
                    self._stopped.add(response_id)
                case contract.Close():
                    pass

    def _hear(self, number: int, text: str) -> None:
        self.tell(inputs.Received(number, decode(text, SERVER_EVENTS)))

    def _voices(self, pcm: bytes) -> tuple[float, ...]:
        samples = np.frombuffer(self._heard_rest + pcm, "<i2").astype(float)
        hop = 24 * contract.HOP_MS
        whole = samples[: len(samples) // hop * hop].reshape(-1, hop)
        self._heard_rest = samples[whole.size :].astype("<i2").tobytes()
        return tuple(1.0 if np.abs(each).max() > 1000 else 0.0 for each in whole)

    def _answer(
        self, server: ServerSession, response_id: str, sentences: list[str], *, is_spoken: bool
    ) -> None:
        pcm = silence(self.answer_ms) if is_spoken else b""
        steps: list[contract.Input] = [
            contract.SentenceReady(response_id, sentence, pcm) for sentence in sentences
        ]
        steps.append(contract.AnswerEnded(response_id))

        def take(step: contract.Input) -> None:
            if response_id not in self._stopped:
                self._serve(server, step)

        for number, step in enumerate(steps, start=1):
            self._later(0.1 * number, lambda s=step: take(s))  # type: ignore[misc]
