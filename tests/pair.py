"""Client and server, back to back in virtual time, with real JSON and no socket between them."""

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from voicechat.audio.playback import PlaybackBuffer
from voicechat.errors import BusyError, ConnectError
from voicechat.pcm import FRAME_BYTES, FRAME_SAMPLES, silence
from voicechat.realtime import effects, inputs
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.conversation import Conversation, Link
from voicechat.realtime.events import (
    CLIENT_EVENTS,
    SERVER_EVENTS,
    ConversationItemAdded,
    ConversationItemCreate,
    ConversationItemDone,
    Event,
    InputAudioBufferAppend,
    decode,
    encode,
)
from voicechat.realtime.policy import Policy
from voicechat.server import contract
from voicechat.server.session import LIFETIME, ServerSession
from voicechat.transcript import Record, Transcript

TICK = 0.02
SILENCE = silence(20)
LEVEL = 2000
"""Above it, the two numbers of a frame are told by every two samples of it."""
STARTED_AT = 1_800_000_000
"""When it all begins, in Unix time."""

Frame = tuple[int, int]
"""Which utterance of the user's, and which 20 ms of it, both counted from 1."""


def voice(utterance: int, place: int) -> bytes:
    """20 ms of an utterance, recognisable wherever they are cut."""
    pair = np.array([LEVEL + utterance, LEVEL + place], dtype="<i2")
    return np.tile(pair, FRAME_SAMPLES // 2).tobytes()


def frames_in(pcm: bytes) -> list[Frame]:
    """What was said in this sound, each frame once."""
    pairs = np.frombuffer(pcm[: len(pcm) // 4 * 4], "<i2").reshape(-1, 2)
    pairs = pairs[pairs[:, 0] > LEVEL]
    is_new = np.ones(len(pairs), dtype=bool)
    is_new[1:] = np.any(pairs[1:] != pairs[:-1], axis=1)
    return [(int(u) - LEVEL, int(place) - LEVEL) for u, place in pairs[is_new]]


@dataclass(slots=True)
class Peer:
    """The other end of one connection."""

    number: int
    session: ServerSession
    heard_rest: bytes = b""
    created: set[str] = field(default_factory=set)
    """Items that the client brought."""
    unconfirmed: set[str] = field(default_factory=set)
    """Those of which the client is never told, as the word of it got lost."""
    heard: list[Frame] = field(default_factory=list)
    """What the client let it hear, in order."""


class Pair:
    """A conversation whose servers, ears, mind, speaker and clock are all in the test's hands."""

    def __init__(
        self,
        transcript: Transcript | None = None,
        *,
        latency: float = 0.04,
        seed: int = 0,
        policy: Policy | None = None,
        configuration: Configuration | None = None,
        lifetime: float = LIFETIME,
        lost_acknowledgements: float = 0.0,
    ) -> None:
        self.now = 0.0
        self.latency = latency
        self.lifetime = lifetime
        """Seconds that each server lets a session live."""
        self.lost_acknowledgements = lost_acknowledgements
        """The share of them that gets lost."""
        self.transcript_delay: Callable[[], float] = lambda: 0.3
        self.answer_delay = 0.1
        """Until each sentence is there."""
        self.answers = ["Well, let me see.", "That is all I know."]
        self.answer_ms = 800
        """Of each sentence."""
        self.is_reachable = True
        self.random = random.Random(seed)
        self.client = Conversation(transcript, configuration, policy, chance=self.random.random)
        self.records: list[Record] = []
        self.notices: list[str] = []
        self.sent: list[Event] = []
        self.said: list[int] = []
        """How many frames each utterance of the user's has."""
        self.peers: list[Peer] = []
        """Every one that there was, in order."""
        self.is_over = False
        self._alive: dict[int, Peer] = {}
        self._playback = PlaybackBuffer()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()
        self._answer_count = count(1)
        self._speaking_until = 0.0
        self._stopped: set[str] = set()
        self._perform(self.client.start())

    # Stories -------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        """Let time pass, microphone and speaker running."""
        end = self.now + seconds
        heard = np.empty(FRAME_SAMPLES, dtype="<i2")
        while self.now < end and not self.is_over:
            self.now += TICK
            self._happen()
            for item_id, heard_ms in self._playback.pull(heard):
                self.tell(inputs.PlaybackFinished(item_id, heard_ms))
            self.tell(inputs.MicCaptured(self._frame()))
            self._look_at_clocks()

    def wait_until_idle(self, seconds: float = 60.0) -> None:
        """Until all that was said is answered and heard."""
        end = self.now + seconds
        while not self.client.is_idle and self.now < end:
            self.wait(TICK)
        assert self.client.is_idle, f"nothing goes on after {self.now:.1f} s"

    def skip(self, seconds: float) -> None:
        """Let time pass in which nobody speaks and nothing is heard: only clocks go on."""
        end = self.now + seconds
        while (due := min(end, self._next_due())) < end and not self.is_over:
            self.now = max(self.now, due)
            self._happen()
            self._look_at_clocks()
        self.now = max(self.now, end)

    def begin_to_say(self, seconds: float) -> None:
        """The user speaks from now on, for so long."""
        self.said.append(0)
        self._speaking_until = self.now + seconds

    def say(self, seconds: float) -> None:
        """The user speaks, and then falls silent."""
        self.begin_to_say(seconds)
        self.wait(seconds)

    def converse(self) -> None:
        """The user says something and hears the whole answer."""
        self.say(1.0)
        self.wait(4.0)

    def tell(self, happened: inputs.Input) -> None:
        """Something happens to the client."""
        self._perform(self.client.handle(happened, self.now))

    def later(self, seconds: float, what: Callable[[], object]) -> None:
        """Do this then."""
        heapq.heappush(self._due, (self.now + seconds, next(self._order), what))

    def drop(self, code: int = 1006, *, unnoticed: float = 0.0) -> None:
        """All connections break off, with all that is on its way in them.

        Args:
            code: 1006 is for a broken line; others say that the server has closed it.
            unnoticed: Seconds until anybody tells the client.
        """
        dropped, self._alive = self._alive, {}
        error = ConnectError if code == 1006 else BusyError
        for number in dropped:
            gone = inputs.Disconnected(number, error(f"gone ({code})", remedy="Try again."))
            self.later(unnoticed, lambda g=gone: self.tell(g))  # type: ignore[misc]
        self._happen()

    @property
    def server(self) -> ServerSession:
        """The newest."""
        return self.peers[-1].session

    @property
    def is_live(self) -> bool:
        """The client has a line."""
        return self.client.link is Link.LIVE

    @property
    def spoken(self) -> list[tuple[str, str, str]]:
        """(role, text, status), in order."""
        return [(t.role, t.text, t.status) for t in self.client.transcript.spoken]

    def in_words(self, frames: list[Frame]) -> str:
        """What is understood of frames of the user's voice: whether all of them are there, too."""
        return " ".join(self._sentences(frames))

    # The world -----------------------------------------------------------------------------------

    def _sentences(self, frames: list[Frame]) -> Iterator[str]:
        """A sentence for each run of frames without a gap."""
        start = 0
        for end in range(1, len(frames) + 1):
            if end < len(frames) and frames[end] == (frames[end - 1][0], frames[end - 1][1] + 1):
                continue
            utterance, first, last = *frames[start], frames[end - 1][1]
            is_whole = (first, last) == (1, self.said[utterance - 1])
            yield f"Sentence {utterance}" + ("." if is_whole else f" ({first} to {last}).")
            start = end

    def _frame(self) -> bytes:
        if self.now >= self._speaking_until:
            return SILENCE
        self.said[-1] += 1
        return voice(len(self.said), self.said[-1])

    def _happen(self) -> None:
        while self._due and self._due[0][0] <= self.now:
            heapq.heappop(self._due)[2]()

    def _next_due(self) -> float:
        times = [peer.session.deadline for peer in self._alive.values()]
        times += [self._due[0][0]] if self._due else []
        times += [self.client.deadline] if self.client.deadline is not None else []
        return min(times, default=float("inf"))

    def _look_at_clocks(self) -> None:
        while (deadline := self.client.deadline) is not None and deadline <= self.now:
            self.tell(inputs.DeadlineReached())
        for peer in list(self._alive.values()):
            if peer.session.deadline <= self.now:
                self._serve(peer, contract.DeadlineReached())

    def _perform(self, wanted: list[effects.Effect]) -> None:
        for effect in wanted:
            match effect:
                case effects.Connect(number):
                    self._connect(number)
                case effects.Close(number):
                    self._alive.pop(number, None)
                case effects.Send(number, event):
                    self._send(number, event)
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

    # Connections ---------------------------------------------------------------------------------

    def _connect(self, number: int) -> None:
        if not self.is_reachable:
            error = ConnectError("nothing answers", remedy="Try again.")
            self.later(self.latency, lambda: self.tell(inputs.Disconnected(number, error)))
            return
        session = ServerSession(
            self.now,
            name=f"s{number}",
            model="tiny",
            can_speak=True,
            started_at=STARTED_AT + int(self.now),
            lifetime=self.lifetime,
        )
        peer = self._alive[number] = Peer(number, session)
        self.peers.append(peer)
        opened = inputs.Connected(number, STARTED_AT + self.now)

        def open_it() -> None:
            if number in self._alive:
                self.tell(opened)
                self._work(peer, session.start())

        self.later(self.latency, open_it)

    def _send(self, number: int, event: Event) -> None:
        self.sent.append(event)
        if (peer := self._alive.get(number)) is None:
            return
        match event:
            case InputAudioBufferAppend(pcm) if any(pcm):
                peer.heard += frames_in(pcm)
            case ConversationItemCreate(item):
                peer.created.add(str(item["id"]))
            case _:
                pass
        text = encode(event)
        self.later(self.latency, lambda: self._deliver(peer, text))

    def _deliver(self, peer: Peer, text: str) -> None:
        if self._is_alive(peer):
            self._serve(peer, contract.Received(decode(text, CLIENT_EVENTS)))

    def _say(self, peer: Peer, event: Event) -> None:
        if not self._is_lost(peer, event):
            text = encode(event)
            self.later(self.latency, lambda: self._hear(peer, text))

    def _is_lost(self, peer: Peer, event: Event) -> bool:
        if not isinstance(event, ConversationItemAdded | ConversationItemDone):
            return False
        item_id = str(event.item["id"])
        is_new = isinstance(event, ConversationItemAdded) and item_id in peer.created
        if is_new and self.random.random() < self.lost_acknowledgements:
            peer.unconfirmed.add(item_id)
        return item_id in peer.unconfirmed

    def _hear(self, peer: Peer, text: str) -> None:
        if self._is_alive(peer):
            self.tell(inputs.Received(peer.number, decode(text, SERVER_EVENTS)))

    def _is_alive(self, peer: Peer) -> bool:
        return self._alive.get(peer.number) is peer

    def _close(self, peer: Peer, code: int, reason: str) -> None:
        """The server hangs up; the client may have done so before."""
        gone = inputs.Disconnected(peer.number, BusyError(f"{reason} ({code})", remedy="Again."))

        def close() -> None:
            if self._alive.pop(peer.number, None):
                self.tell(gone)

        self.later(self.latency, close)

    # Servers -------------------------------------------------------------------------------------

    def _serve(self, peer: Peer, happened: contract.Input) -> None:
        self._work(peer, peer.session.handle(happened, self.now))

    def _work(self, peer: Peer, wanted: list[contract.Effect]) -> None:
        """A server's door and its engines."""
        for effect in wanted:
            match effect:
                case contract.Say(event):
                    self._say(peer, event)
                case contract.Listen(pcm):
                    self._serve(peer, contract.VoiceHeard(self._voices(peer, pcm)))
                case contract.Transcribe(item_id, take, pcm):
                    words = self.in_words(frames_in(pcm))
                    done = contract.Transcribed(item_id, take, words)
                    self.later(self.transcript_delay(), lambda d=done: self._serve(peer, d))  # type: ignore[misc]
                case contract.Generate(response_id, speed=speed):
                    number = next(self._answer_count)
                    sentences = [sentence.format(number) for sentence in self.answers]
                    self._answer(peer, response_id, sentences, is_spoken=speed is not None)
                case contract.Utter(response_id, text, speed):
                    self._answer(peer, response_id, [text], is_spoken=speed is not None)
                case contract.Stop(response_id):
                    self._stopped.add(response_id)
                case contract.Close(code, reason):
                    self._close(peer, code, reason)

    def _voices(self, peer: Peer, pcm: bytes) -> tuple[float, ...]:
        samples = np.frombuffer(peer.heard_rest + pcm, "<i2")
        hop = 24 * contract.HOP_MS
        whole = samples[: len(samples) // hop * hop].reshape(-1, hop)
        peer.heard_rest = samples[whole.size :].tobytes()
        return tuple(1.0 if each.max() > LEVEL // 2 else 0.0 for each in whole)

    def _answer(
        self, peer: Peer, response_id: str, sentences: list[str], *, is_spoken: bool
    ) -> None:
        pcm = silence(self.answer_ms) if is_spoken else b""
        steps: list[contract.Input] = [
            contract.SentenceReady(response_id, sentence, pcm) for sentence in sentences
        ]
        steps.append(contract.AnswerEnded(response_id))

        def take(step: contract.Input) -> None:
            if response_id not in self._stopped:
                self._serve(peer, step)

        for number, step in enumerate(steps, start=1):
            self.later(self.answer_delay * number, lambda s=step: take(s))  # type: ignore[misc]


assert len(SILENCE) == FRAME_BYTES
