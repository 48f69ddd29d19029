"""A conversation without a sound card: sound files and typed turns, one after the other."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from voicechat.errors import AudioFileError
from voicechat.realtime.conversation import Conversation, Floor, Link
from voicechat.realtime.inputs import Input, QuitRequested, TalkKeyPressed, TextTyped

SETTLING_TIME = 2.0
"""Seconds of silence after a file before it is taken to hold no further turn: a server's voice
detector, and the way to it and back, take well under one."""
PATIENCE = 10.0
"""Seconds of silence after a file of which nothing was heard yet: a server may be slow."""


@dataclass(frozen=True, slots=True)
class Speech:
    """A sound file to be heard."""

    name: str
    say: Callable[[Callable[[], object]], object]
    """Starts saying it into the microphone; what it is given is called at its end."""


@dataclass(frozen=True, slots=True)
class Text:
    """A turn to be typed."""

    text: str


class Ear(Protocol):
    """A microphone that hears silence after a file, until told to rest."""

    def rest(self) -> None:
        """Hear nothing until something is said again."""


class Mouth(Protocol):
    """A speaker that may run ahead of the clock."""

    hurry: bool
    """Nothing can interrupt: what is queued is heard at once."""


class Script:
    """Says one thing after the other, each when the one before it was answered."""

    def __init__(self, steps: Iterable[Speech | Text], *, microphone: Ear, speaker: Mouth) -> None:
        self._steps = deque(steps)
        self._microphone = microphone
        self._speaker = speaker
        self._speech: Speech | None = None
        """The file being said, until its last turn is taken."""
        self._is_ended = False
        self._ended_at: float | None = None
        self._turns_before = 0
        self._unheard: list[str] = []
        self._is_over = False

    def next(self, conversation: Conversation, now: float) -> Input | None:
        """What happens next, if it is time for it; to be asked after every input."""
        if conversation.link is not Link.LIVE or self._is_over:
            return None
        is_manual = conversation.configuration.vad == "none"
        if self._speech is not None:
            if not self._is_ended:
                return None
            if self._ended_at is None:
                self._ended_at = now
                if is_manual:
                    return TalkKeyPressed()
            wait = SETTLING_TIME if self._is_heard(conversation) else PATIENCE
            is_settled = is_manual or now - self._ended_at >= wait
            if conversation.floor is Floor.USER or not is_settled:
                return None
            self._microphone.rest()
            self._speaker.hurry = True
        if not conversation.is_idle:
            return None
        self._note_unheard(conversation)
        if not self._steps:
            self._is_over = True
            return QuitRequested(conversation.failure or self._nothing_heard())
        match self._steps.popleft():
            case Text(text):
                self._speaker.hurry = True
                return TextTyped(text)
            case Speech() as speech:
                self._speech, self._is_ended, self._ended_at = speech, False, None
                self._turns_before = _count_user_turns(conversation)
                self._speaker.hurry = False
                speech.say(self._end)
                return TalkKeyPressed() if is_manual else None

    def _end(self) -> None:
        self._is_ended = True

    def _note_unheard(self, conversation: Conversation) -> None:
        if self._speech is not None:
            if not self._is_heard(conversation):
                self._unheard.append(self._speech.name)
            self._speech = None

    def _is_heard(self, conversation: Conversation) -> bool:
        return _count_user_turns(conversation) > self._turns_before

    def _nothing_heard(self) -> AudioFileError | None:
        if not self._unheard:
            return None
        return AudioFileError(
            f"no speech was heard in {', '.join(self._unheard)}",
            remedy="Listen to it: it must hold speech at a normal level.",
        )


def _count_user_turns(conversation: Conversation) -> int:
    return sum(turn.role == "user" for turn in conversation.transcript.turns)
