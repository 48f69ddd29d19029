"""On loudspeakers the assistant does not interrupt itself, and you can interrupt it.

Through the program, on a card whose microphone hears its speaker, in front of a server with the
voice detector of the built-in one.  tests/test_echo.py has what is taken out, in dB, room by room.
"""

import base64
import subprocess
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

import pytest

from tests import strict_server
from tests.program import SPEECH
from tests.rooms import assistant
from tests.strict_server import KEY, Json, Peer, StrictServer
from tests.test_card import loud_seconds
from tests.test_card_loss import Call
from tests.virtual_card import Recording, VirtualCard
from voicechat.server.engines.activity import Silero
from voicechat.server.turns import Began, Ended, TurnDetector, TurnRules

pytestmark = [pytest.mark.card, pytest.mark.local]

LONGEST = 70
"""Seconds of an answer."""
MINUTE = 60.0
SETTLED = 4.0
"""Seconds after which the canceller knows the room, or that there is no echo."""
SOON = 2.0
"""Seconds, on a busy machine; 0.7 on a quiet one, of which 0.25 are silence in the file."""
ECHO = (-8, 60)
"""dB and ms."""
RULES = TurnRules(silence_duration_ms=500)


@pytest.fixture(autouse=True)
def _key_and_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    speech = assistant(LONGEST).tobytes()
    monkeypatch.setattr(strict_server, "tone", lambda ms: speech[: 48 * ms])


class HearingServer(StrictServer):
    """Takes speech for a turn, not whatever is loud."""

    def __init__(self) -> None:
        super().__init__()
        self.began: list[float] = []
        """When turns began, on the monotonic clock."""
        self._activity, self._turns = Silero(), TurnDetector()
        self._item = ""
        self.on_event = self._take

    def _take(self, peer: Peer, event: Json) -> Awaitable[object] | None:
        is_sound = event["type"] == "input_audio_buffer.append"
        return self._hear(peer, base64.b64decode(event["audio"])) if is_sound else None

    async def _hear(self, peer: Peer, pcm: bytes) -> None:
        peer.buffer += pcm
        for probability in self._activity.hear(pcm):
            match self._turns.hear(probability, RULES):
                case Began(at_ms):
                    self.began.append(time.monotonic())
                    self._item = peer.new_id("item_U")
                    place = {"item_id": self._item, "audio_start_ms": at_ms}
                    await peer.send("input_audio_buffer.speech_started", **place)
                case Ended(at_ms):
                    place = {"item_id": self._item, "audio_end_ms": at_ms}
                    await peer.send("input_audio_buffer.speech_stopped", **place)
                    await peer.commit(self._item)
                    peer.spawn(peer.answer())
                case _:
                    pass


class Talk:
    """Somebody asked something, and the answer has begun to play."""

    def __init__(
        self, card: VirtualCard, server: HearingServer, call: Call, speaker: Recording
    ) -> None:
        self._card, self._server, self._call, self._speaker = card, server, call, speaker
        self.began_at = time.monotonic()
        self._asked = len(server.began)
        """A pause in the question may be taken for its end."""

    def is_told(self, mode: str) -> bool:
        return any(line.endswith(f"; {mode}.\n") for line in self._call.err)

    def interrupted_within(self, seconds: float) -> list[float]:
        """The turns that began until so many seconds after the answer did: when, in seconds."""
        while time.monotonic() < self.began_at + seconds and self._turns() == 0:
            time.sleep(0.02)
        assert self._turns() or not self.is_silent()
        return [round(began - self.began_at, 2) for began in self._server.began[self._asked :]]

    def _turns(self) -> int:
        """After the question."""
        return len(self._server.began) - self._asked

    def speak(self) -> subprocess.Popen[bytes]:
        """Begin to say something; the next answer is short."""
        self._server.answer_ms, self._server.deltas = 300, 3
        return self._card.speak(SPEECH / "hb_02.wav", block=False)

    def is_silent(self) -> bool:
        return not any(self._speaker.pcm[-4800:])

    def interrupt(self) -> None:
        """It stops, and one is answered."""
        self.speak()
        said_at = time.monotonic()
        self._call.until(lambda: self._turns() == 1, SOON)
        self._call.until(self.is_silent, said_at + SOON - time.monotonic())
        self.is_answered()
        assert self._call.out[-3].endswith("(interrupted)\n")

    def is_answered(self) -> None:
        """What was said after the question, and nothing else."""
        out = self._call.out
        self._call.until(lambda: len(out) > 2 * self._asked and out[-1].startswith("Assistant: "))
        assert self._turns() == 1
        self._call.hang_up()

    def is_over(self) -> None:
        """Wait until the answer was heard to its end, and its echo, too."""
        self._call.until(self.is_silent)
        time.sleep(1)


@contextmanager
def talk(mode: str, *, seconds: int = LONGEST, is_loud: bool = True) -> Iterator[Talk]:
    """Ask for an answer of so many seconds, on loudspeakers or with headphones."""
    with (
        VirtualCard() as card,
        HearingServer().running() as server,
        Call(card, "talk", "--url", server.url, "--echo", mode, "--no-log") as call,
    ):
        assert isinstance(server, HearingServer)
        server.answer_ms, server.deltas = 1000 * seconds, 10 * seconds
        server.answer_text = "One two three four five six seven eight nine ten. " * 20
        if is_loud:
            card.echo(*ECHO)
        call.listening(server)
        speaker = card.record()
        card.speak(SPEECH / "cards_001.wav")
        call.until(lambda: loud_seconds(bytes(speaker.pcm[-48000:])) > 0.1)
        try:
            yield Talk(card, server, call, speaker)
        finally:
            speaker.stop()


def test_in_a_minute_it_does_not_hear_itself_once_and_then_it_hears_you() -> None:
    with talk("auto") as conversation:
        assert conversation.is_told("echo is cancelled")
        assert not conversation.interrupted_within(MINUTE)
        conversation.interrupt()


def test_it_would_interrupt_itself_if_nothing_were_done_about_it() -> None:
    with talk("off") as conversation:
        assert conversation.is_told("echo is not cancelled, use headphones (--echo off)")
        assert conversation.interrupted_within(SETTLED)


def test_with_headphones_you_are_heard_while_it_speaks() -> None:
    with talk("auto", is_loud=False) as conversation:
        assert not conversation.interrupted_within(SETTLED)
        conversation.interrupt()


def test_half_duplex_hears_neither_of_you_before_the_answer_is_over() -> None:
    with talk("half-duplex", seconds=6) as conversation:
        closed = "the microphone is closed while an answer plays (--echo half-duplex)"
        assert conversation.is_told(closed)
        assert not conversation.interrupted_within(1)
        conversation.speak().wait()
        assert not conversation.interrupted_within(5)
        conversation.is_over()
        conversation.speak()
        conversation.is_answered()
