"""How a conversation stands: what its parts share."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from voicechat.errors import VoicechatError
from voicechat.realtime.assistant import Assistant
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.lines import Lines
from voicechat.realtime.policy import Policy
from voicechat.realtime.providers import OPENAI, Provider
from voicechat.realtime.recording import Recording
from voicechat.realtime.repeating import Repeat
from voicechat.realtime.responses import Responses
from voicechat.realtime.timeline import Timeline
from voicechat.realtime.user import User
from voicechat.transcript import Transcript

QUIET_MS = 600  # without any loud frame, before the microphone moves to another connection


class Link(Enum):
    """How things stand with the server."""

    OPENING = auto()
    LIVE = auto()
    LOST = auto()
    LEAVING = auto()
    CLOSED = auto()


class Floor(Enum):
    """Who speaks."""

    OPEN = auto()
    USER = auto()
    THINKING = auto()
    ASSISTANT = auto()


@dataclass(slots=True)
class State:
    """Everything about a conversation; the functions beside this module change it."""

    transcript: Transcript
    configuration: Configuration
    policy: Policy
    chance: Callable[[], float] = random.random
    provider: Provider = OPENAI
    link: Link = Link.OPENING
    is_muted: bool = False
    unsaved: VoicechatError | None = None
    """Why nothing more can be saved, until the user has said whether to go on all the same."""
    is_unsaved: bool = False
    """They have said so."""
    failure: VoicechatError | None = None
    """The last turn got no answer, for a caller that must report it."""
    deadlines: dict[str, float] = field(default_factory=dict)
    """When to look again, by what for."""
    uncommitted_bytes: int = 0
    is_talking: bool = False
    """Without voice detection: the user holds the floor."""
    typed: list[tuple[str, float]] = field(default_factory=list)
    """What the server is still to be told, and when it was typed."""
    is_typed_first: bool = False
    """What was typed while there was no line was typed before anything was said."""
    must_cancel: bool = False
    is_declined: bool = False
    """The user wants no answer to the last turn, or no more of it."""
    written: list[str] = field(default_factory=list)
    """Answers in writing that are being asked for again, as speech."""
    written_times: int = 0
    turn_ended_at: float | None = None
    """Since when the user waits to hear something, having spoken or typed."""
    latency: float | None = None
    """Seconds for which they waited the last time."""
    spent: float = 0.0
    """US dollars, in this run."""
    is_cost_unknown: bool = False
    """The server does not tell what answers take, and the user was told so."""
    silence_left: float | None = None
    """Seconds of silence that were left until hanging up when the line was lost."""
    last_problem: VoicechatError | None = None
    ending: VoicechatError | None = None
    inherited: int = field(init=False)
    """Turns that were there when it began."""
    recording: Recording = field(default_factory=Recording)
    repeat: Repeat = field(default_factory=Repeat)
    timeline: Timeline = field(init=False)
    user: User = field(init=False)
    assistant: Assistant = field(init=False)
    responses: Responses = field(init=False)
    lines: Lines = field(init=False)

    def __post_init__(self) -> None:
        self.inherited = len(self.transcript.spoken)
        self.timeline = Timeline(self.transcript.end_ms)
        self.user = User(self.transcript, self.timeline, self.recording, self.deadlines)
        self.assistant = Assistant(self.transcript, self.timeline)
        self.assistant.wants_speech = not self.configuration.text_only
        self.assistant.is_played = not self.configuration.text_only
        self.responses = Responses(self.deadlines)
        self.lines = Lines(
            self.transcript,
            self.configuration,
            self.policy,
            self.provider,
            recording=self.recording,
            user=self.user,
            assistant=self.assistant,
            deadlines=self.deadlines,
            chance=self.chance,
        )

    @property
    def floor(self) -> Floor:
        """Who has it."""
        if self.user.is_speaking or self.is_talking or "owed" in self.deadlines:
            return Floor.USER
        if self.assistant.is_heard:
            return Floor.ASSISTANT
        is_awaited = {"answer", "ask again", "packing"} & self.deadlines.keys()
        if self.responses.is_busy or self.responses.is_wanted or is_awaited:
            return Floor.THINKING
        return Floor.OPEN

    def be_answered(self, now: float) -> None:
        """There is sound of an answer: the first of it ends the wait."""
        if self.turn_ended_at is not None:
            self.latency, self.turn_ended_at = max(0.0, now - self.turn_ended_at), None

    @property
    def is_idle(self) -> bool:
        """Live, with nothing said that is not answered, heard and put into words."""
        return self.link is Link.LIVE and self.floor is Floor.OPEN and self._is_settled

    @property
    def is_deaf(self) -> bool:
        """The microphone is muted, by the user or because nothing more can be saved or paid."""
        return self.is_muted or self.unsaved is not None or self.is_spent

    @property
    def is_spent(self) -> bool:
        """The user's limit of cost is reached."""
        return self.policy.max_cost is not None and self.spent >= self.policy.max_cost

    @property
    def is_shut(self) -> bool:
        """What the microphone hears is for nobody."""
        return self.is_deaf or (self.configuration.vad == "none" and not self.is_talking)

    @property
    def is_silent(self) -> bool:
        """Nobody speaks, and nobody is about to."""
        is_repacking = "packing" in self.deadlines  # an answer is awaited from the next connection
        return (
            self.floor is (Floor.THINKING if is_repacking else Floor.OPEN)
            and self._is_settled
            and (self.is_shut or self.recording.quiet_ms >= QUIET_MS)
        )

    @property
    def _is_settled(self) -> bool:
        """Nothing is being heard, and nothing waits to be sent or put into words."""
        return not (
            self.assistant.has_answers
            or self.assistant.is_stopping
            or self.typed
            or self.user.waits_for_words
        )

    @property
    def how_to_resume(self) -> str:
        """A remedy for whoever must come back later."""
        opened, turns = self.transcript.opened, len(self.transcript.spoken)
        if opened is None or not opened.session or not turns:
            return "Try again."
        if opened.parent is not None and turns == self.inherited:
            return "Try again."  # a fork in which nothing was said is not kept
        saved = "What was said" + (" until saving failed" if self.is_unsaved else "")
        return f"{saved} is saved; the line above that begins with Resume goes on."
