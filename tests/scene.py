"""Scenes: scripts of what happens and what must be done about it."""

from typing import Any

from voicechat.errors import BusyError
from voicechat.pcm import silence
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.conversation import Conversation, Link
from voicechat.realtime.effects import Connect, Effect, Send, Write
from voicechat.realtime.events import (
    ConversationItemAdded,
    ConversationItemDone,
    ConversationItemInputAudioTranscriptionCompleted,
    Event,
    InputAudioBufferAppend,
    InputAudioBufferCommitted,
    InputAudioBufferSpeechStarted,
    ResponseCreated,
    ResponseDone,
    ResponseOutputAudioDelta,
    ResponseOutputAudioTranscriptDelta,
    SessionCreated,
    SessionUpdated,
)
from voicechat.realtime.inputs import (
    Connected,
    DeadlineReached,
    Disconnected,
    Input,
    MicCaptured,
    PlaybackFinished,
    Received,
)
from voicechat.realtime.policy import Policy
from voicechat.realtime.providers import OPENAI, Provider
from voicechat.transcript import Said, Speaking, Transcript


class Scene:
    """Plays inputs to a conversation at chosen times, and checks every effect."""

    def __init__(
        self,
        transcript: Transcript | None = None,
        configuration: Configuration | None = None,
        policy: Policy | None = None,
        provider: Provider = OPENAI,
    ) -> None:
        self.conversation = Conversation(
            transcript, configuration, policy, provider=provider, chance=lambda: 1.0
        )
        self.now = 0.0
        self.connection = 1
        """By which the server says what is played."""
        assert self.conversation.start() == [Connect(1)]

    @classmethod
    def live(cls, policy: Policy | None = None, **configuration: Any) -> "Scene":
        """A scene whose conversation is connected, with nothing said yet."""
        scene = cls(configuration=Configuration(**configuration), policy=policy)
        scene.play(Connected(1), SessionCreated({}), SessionUpdated())
        assert scene.conversation.link is Link.LIVE
        return scene

    def at(self, now: float) -> "Scene":
        """Move the clock."""
        assert now >= self.now, "time goes forward"
        self.now = now
        return self

    def on(self, happened: Input | Event, *expected: Effect) -> None:
        """When this happens, exactly these things are done, in this order."""
        assert self.play(happened) == list(expected)

    def play(self, *happened: Input | Event) -> list[Effect]:
        """Let these things happen; return what is done."""
        effects: list[Effect] = []
        for each in happened:
            each_input = Received(self.connection, each) if isinstance(each, Event) else each
            effects += self.conversation.handle(each_input, self.now)
        return effects

    @property
    def spoken(self) -> list[tuple[str, str, str]]:
        """(role, text, status) of what was said so far, in order."""
        turns = self.conversation.transcript.spoken
        return [(turn.role, turn.text, turn.status) for turn in turns]


def sends(event: Event, connection: int = 1) -> Send:
    return Send(connection, event)


def saying(effects: list[Effect], kind: type[Event]) -> list[Event]:
    """The events of one kind that were sent."""
    return [e.event for e in effects if isinstance(e, Send) and isinstance(e.event, kind)]


def said(effects: list[Effect]) -> list[Said]:
    """What became final."""
    return [e.record for e in effects if isinstance(e, Write) and isinstance(e.record, Said)]


def speaking(effects: list[Effect]) -> list[Speaking]:
    """What was saved before it was final."""
    return [e.record for e in effects if isinstance(e, Write) and isinstance(e.record, Speaking)]


def voice(item_id: str, ms: int, response_id: str = "resp_1") -> ResponseOutputAudioDelta:
    return ResponseOutputAudioDelta(item_id, silence(ms), response_id)


def words(
    item_id: str, text: str, response_id: str = "resp_1"
) -> ResponseOutputAudioTranscriptDelta:
    return ResponseOutputAudioTranscriptDelta(item_id, text, response_id)


def response_begins(response_id: str = "resp_1") -> ResponseCreated:
    return ResponseCreated({"id": response_id, "status": "in_progress"})


def response_ends(response_id: str = "resp_1", status: str = "completed", **more: Any) -> Event:
    return ResponseDone({"id": response_id, "status": status, **more})


def user_starts(item_id: str = "item_U", ms: int = 0) -> Event:
    return InputAudioBufferSpeechStarted(item_id, ms)


def committed(item_id: str, previous: str | None = None) -> Event:
    return InputAudioBufferCommitted(item_id, previous)


def item(item_id: str, role: str = "user", **more: Any) -> dict[str, Any]:
    return {"id": item_id, "type": "message", "role": role, "content": [], **more}


def added(item_id: str, role: str, previous: str | None) -> Event:
    return ConversationItemAdded(item(item_id, role), previous)


def done(item_id: str, role: str = "user", previous: str | None = None) -> Event:
    return ConversationItemDone(item(item_id, role), previous)


# Lines that are lost -----------------------------------------------------------------------------

GONE = BusyError("it broke off (1006)", remedy="Try again.")


def frame(number: int, peak: int = 9000) -> bytes:
    """A loud frame that no other is equal to."""
    return peak.to_bytes(2, "little") + number.to_bytes(4, "little") + bytes(954)


def speak(scene: Scene, first: int, last: int) -> list[bytes]:
    """Loud frames, 20 ms apart."""
    frames = [frame(number) for number in range(first, last)]
    for each in frames:
        scene.at(scene.now + 0.02).play(MicCaptured(each))
    return frames


def answered(scene: Scene, question: str = "How are you?", reply: str = "Fine.") -> None:
    """A turn and its answer, from the first word to the last."""
    user, assistant = f"U {question}", f"A {reply}"
    scene.play(committed(user), ConversationItemInputAudioTranscriptionCompleted(user, 0, question))
    scene.play(response_begins(), words(assistant, reply), voice(assistant, 300))
    scene.play(response_ends(), PlaybackFinished(assistant, 300))


def lose(scene: Scene) -> list[Effect]:
    """The line that serves is lost."""
    return scene.play(Disconnected(scene.connection, GONE))


def come_back(scene: Scene, *items: str) -> list[Effect]:
    """The next connection is there, and the server confirms these items and the note."""
    scene.at(scene.now + 0.25)
    assert Connect(scene.connection + 1) in scene.play(DeadlineReached())
    scene.connection += 1
    effects = scene.play(Connected(scene.connection), SessionCreated({}), SessionUpdated())
    for item_id in [*items, "restored"] if items else []:
        effects += scene.play(done(item_id))
    return effects


def sound(effects: list[Effect]) -> bytes:
    """What the server is made to hear."""
    return b"".join(event.audio for event in saying(effects, InputAudioBufferAppend))  # type: ignore[attr-defined]


def come_back_after(scene: Scene, seconds: float, *items: str) -> list[Effect]:
    scene.at(scene.now + seconds - 0.25)
    return come_back(scene, *items)
