"""The conversation itself, with the world left out.

Theory of operation.  Two small enums say how things stand:

    Link    DOWN → OPENING → RESTORING → LIVE → LEAVING → CLOSED
            (start) (session.created) (settings and every item confirmed) (quit) (Finish)
    Floor   OPEN | USER | THINKING | ASSISTANT      derived: who has the floor

A user turn:  speech_started → committed (`Speaking`, no words yet) → transcribed (`Said`).
An answer:    deltas (`Play`; a `Speaking` for each sentence) → heard to its end (`Said`).
A barge-in:   speech_started, or a typed turn → `StopPlayback` → `PlaybackStopped` → truncate what
              was heard in part, delete what was not heard at all, `Said` with the heard words.

`user.User` and `assistant.Assistant` keep the two sides, `line.Line` the connection's part; here
is what ties them together.
"""

from collections.abc import Iterator
from enum import Enum, auto

from voicechat.errors import AnswerError, ConnectError, ProtocolError, VoicechatError
from voicechat.pcm import BYTES_PER_MS
from voicechat.realtime import events as wire
from voicechat.realtime.assistant import Assistant
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.effects import Connect, Effect, Finish, Notice, Write
from voicechat.realtime.events import Event, Json
from voicechat.realtime.inputs import (
    Connected,
    DeadlineReached,
    Disconnected,
    Garbled,
    Input,
    MicCaptured,
    MuteToggled,
    PlaybackFinished,
    PlaybackStopped,
    QuitRequested,
    Received,
    TalkKeyPressed,
    TextTyped,
)
from voicechat.realtime.line import Line
from voicechat.realtime.problems import BENIGN, CHECK_URL, describe, fatal
from voicechat.realtime.replay import text_of
from voicechat.realtime.timeline import Timeline
from voicechat.realtime.user import User
from voicechat.transcript import Closed, Lost, Said, Transcript

OPENING_TIMEOUT = 10.0  # seconds until the first word of a server; 1 to 2 are usual
RESTORING_TIMEOUT = 10.0  # for all acknowledgements together
ANSWER_TIMEOUT = 30.0
LEAVING_TIMEOUT = 1.2  # of the 2 s that hanging up may take
SHORTEST_COMMIT = 100 * BYTES_PER_MS  # shorter is refused (reference, section 1.7)

_ITEM_EVENTS = (wire.ConversationItemAdded, wire.ConversationItemDone, wire.ConversationItemCreated)


class Link(Enum):
    """How things stand with the server."""

    DOWN = auto()
    OPENING = auto()
    RESTORING = auto()
    LIVE = auto()
    LEAVING = auto()
    CLOSED = auto()


class Floor(Enum):
    """Who speaks."""

    OPEN = auto()
    USER = auto()
    THINKING = auto()
    ASSISTANT = auto()


class Conversation:
    """One voice conversation, as a pure state machine: inputs in, effects out.

    It never awaits, sleeps, reads a clock or touches a device.  `now` is always given, in seconds
    of any monotonic clock, and `deadline` says when to call back if nothing else happens.
    """

    def __init__(
        self, transcript: Transcript | None = None, configuration: Configuration | None = None
    ) -> None:
        self.transcript = transcript if transcript is not None else Transcript()
        self.configuration = configuration or Configuration()
        self.link = Link.DOWN
        self.is_muted = False
        self.failure: VoicechatError | None = None
        """The last turn got no answer, for a caller that must report it."""
        self._deadlines: dict[str, float] = {}
        """When to look again, by what for."""
        self._timeline = Timeline(self.transcript.end_ms)
        self._user = User(self.transcript, self._timeline, self._deadlines)
        self._assistant = Assistant(self.transcript, self._timeline)
        self._line = Line(1, self.transcript)
        self._uncommitted_bytes = 0
        self._is_talking = False
        """Without voice detection: the user holds the floor."""
        self._typed: list[str] = []
        self._response_is_wanted = False
        self._must_cancel = False
        self._ending: VoicechatError | None = None

    # What others may ask -------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When `DeadlineReached` is due if nothing else happens."""
        return min(self._deadlines.values(), default=None)

    @property
    def floor(self) -> Floor:
        """Who has it."""
        if self._user.is_speaking or self._is_talking:
            return Floor.USER
        if self._assistant.is_heard:
            return Floor.ASSISTANT
        if self._assistant.active or self._response_is_wanted or "answer" in self._deadlines:
            return Floor.THINKING
        return Floor.OPEN

    @property
    def is_idle(self) -> bool:
        """Live, with nothing said that is not answered, heard and put into words."""
        return (
            self.link is Link.LIVE
            and self.floor is Floor.OPEN
            and not (self._assistant.has_answers or self._assistant.is_stopping)
            and not (self._typed or self._user.waits_for_words)
        )

    # The one way in ------------------------------------------------------------------------------

    def start(self) -> list[Effect]:
        """Begin, with an empty transcript or a resumed one."""
        self.link = Link.OPENING
        return [Connect(self._line.number)]

    def handle(self, happened: Input, now: float) -> list[Effect]:
        """Take in one thing that happened; return what must be done about it, in order."""
        self._timeline.start(now)
        if not self._is_acknowledgement(happened):  # of which a long session has thousands
            reaction = self._react(happened, now)
        elif self._line.is_ready:
            reaction = self._go_live_when_ready(now)
        else:
            return []
        effects: list[Effect] = []
        for effect in reaction:
            if isinstance(effect, Write):
                self.transcript.apply(effect.record)
            effects.append(effect)
        return effects

    def _react(self, happened: Input, now: float) -> Iterator[Effect]:
        if self.link is Link.CLOSED or self._is_stale(happened):
            return
        match happened:
            case Connected():
                self._deadlines["opening"] = now + OPENING_TIMEOUT
            case Disconnected(error=error):
                yield from self._lose(error, now)
            case Received(event=event):
                yield from self._hear_server(event, now)
            case Garbled(reason=reason):
                yield from self._complain(reason, now)
            case MicCaptured(pcm):
                yield from self._hear_user(pcm)
            case PlaybackStopped(heard):
                yield from self._cut_off(dict(heard), now)
            case PlaybackFinished(item_id, heard_ms):
                yield from self._assistant.finish_hearing(item_id, heard_ms, now)
            case TextTyped(text):
                self._typed.append(text)
                if self.link is Link.LIVE:
                    yield from self._interrupt()
                    yield from self._say_typed(now)
            case MuteToggled():
                self.is_muted = not self.is_muted
                yield Notice("Microphone muted." if self.is_muted else "Microphone on.")
            case TalkKeyPressed():
                yield from self._take_or_give_floor(now)
            case QuitRequested(error):
                yield from self._leave(error, now)
            case DeadlineReached():
                yield from self._look_at_clock(now)

    def _is_acknowledgement(self, happened: Input) -> bool:
        """The server has an item that was replayed to it, which is noted."""
        if not (isinstance(happened, Received) and isinstance(happened.event, _ITEM_EVENTS)):
            return False
        if happened.connection != self._line.number:
            return False
        item = happened.event.item
        if (replayed := self._line.replay.confirm(item)) is None:
            return False
        self._line.rename(str(item.get("id")), replayed.item_id)
        return True

    def _is_stale(self, happened: Input) -> bool:
        """A late word of a connection that was given up."""
        return (
            isinstance(happened, Connected | Disconnected | Received | Garbled)
            and happened.connection != self._line.number
        )

    # The server ----------------------------------------------------------------------------------

    def _hear_server(self, event: Event, now: float) -> Iterator[Effect]:
        match event:
            case wire.SessionCreated() if self.link is Link.OPENING:
                self.link = Link.RESTORING
                self._deadlines.pop("opening", None)
                self._deadlines["restoring"] = now + RESTORING_TIMEOUT
                if turns := len(self._line.replay.turns):
                    yield Notice(f"Restoring {turns} {'turn' if turns == 1 else 'turns'}.")
                yield from self._line.restore(self.configuration)
            case wire.SessionUpdated() if self.link is Link.RESTORING:
                self._line.is_configured = True
                yield from self._go_live_when_ready(now)
            case wire.Error(error):
                yield from self._hear_error(error, now)
            case (
                wire.ConversationItemAdded(item, previous)
                | wire.ConversationItemDone(item, previous)
                | wire.ConversationItemCreated(item, previous)
            ):
                yield from self._hear_item(item, previous, now)
            case wire.InputAudioBufferSpeechStarted(wire_id, audio_start_ms):
                ago = self._line.heard_ms_ago(audio_start_ms)
                self._user.begin(self._line.local(wire_id), ago, now)
                yield from self._yield_floor()
            case wire.InputAudioBufferSpeechStopped(wire_id, audio_end_ms):
                ago = self._line.heard_ms_ago(audio_end_ms)
                self._user.stop(self._line.local(wire_id), ago, now)
            case wire.InputAudioBufferCommitted(wire_id, previous):
                self._uncommitted_bytes = 0
                yield from self._commit(wire_id, previous, now)
            case wire.ConversationItemInputAudioTranscriptionDelta(wire_id, delta=words):
                yield from self._commit(wire_id, None, now)
                self._user.hear_words(self._line.local(wire_id), words)
            case wire.ConversationItemInputAudioTranscriptionCompleted(wire_id, transcript=text):
                yield from self._commit(wire_id, None, now)
                yield from self._settle_user(self._line.local(wire_id), text.strip())
                if not text.strip():
                    self._deadlines.pop("answer", None)  # nothing was said: none need come
            case wire.ConversationItemInputAudioTranscriptionFailed(wire_id):
                yield from self._commit(wire_id, None, now)
                yield from self._settle_user(self._line.local(wire_id))
            case wire.ResponseCreated(response):
                self._assistant.begin(str(response.get("id")))
                self._deadlines["answer"] = now + ANSWER_TIMEOUT
                self.failure = None
            case wire.ResponseDone(response):
                yield from self._end_response(response, now)
            case _:
                if self._assistant.active is not None:
                    self._deadlines["answer"] = now + ANSWER_TIMEOUT  # it goes on
                yield from self._assistant.receive(event, self._line, now)

    def _go_live_when_ready(self, now: float) -> Iterator[Effect]:
        if self.link is Link.RESTORING and self._line.is_ready:
            self.link = Link.LIVE
            self._deadlines.pop("restoring", None)
            for line in self._line.replay.summary():
                yield Notice(line)
            yield from self._say_typed(now)

    def _hear_item(self, item: Json, previous: str | None, now: float) -> Iterator[Effect]:
        """An item is there, or final: one of ours, the user's speech, or part of an answer."""
        wire_id, role, line = str(item.get("id")), item.get("role"), self._line
        if item.get("type") == "message" and role == "assistant":
            if previous is not None:
                self._assistant.place(line.local(wire_id), line.local(previous))
        elif item.get("type") == "message" and role == "user":
            text = text_of(item)
            if text and (typed := self._user.typed(text)) is not None:
                line.rename(wire_id, typed)
            known = self.transcript.get(item_id := line.local(wire_id))
            yield from self._commit(wire_id, previous, now)
            if known is None and text:  # written by someone else
                yield from self._settle_user(item_id, text)
            elif known is not None and known.text and not known.is_settled:  # typed, and arrived
                yield from self._settle_user(item_id)

    def _hear_error(self, error: Json, now: float) -> Iterator[Effect]:
        about, said = str(error.get("event_id") or ""), describe(error)
        if (end := fatal(error)) is not None:
            yield from self._end(end, now)
        elif self.link is Link.RESTORING:
            is_about_an_item = str(error.get("param") or "").startswith("item")
            is_early = not (about or is_about_an_item or self._line.is_configured)
            if about == "configure" or is_early:
                remedy = "Change the option that it names, or leave it out."
                problem = f"the server refuses these settings: {said}"
                yield from self._end(ProtocolError(problem, remedy=remedy), now)
            elif self._line.replay.refuse(error, said):
                yield from self._go_live_when_ready(now)
        elif error.get("code") == "conversation_already_has_active_response":
            self._response_is_wanted = True  # asked for again when that one is done
        elif error.get("code") not in BENIGN:
            is_about_the_answer = about == "respond" or error.get("type") == "server_error"
            if is_about_the_answer and "answer" in self._deadlines and not self._assistant.active:
                yield from self._fail_to_answer(said)
            else:
                yield Notice(f"The server reports a problem: {said}")

    def _lose(self, error: VoicechatError, now: float) -> Iterator[Effect]:
        if self.link is Link.LIVE:
            yield Write(Lost(reason=error.message))
        if self.link is Link.LEAVING:
            yield from self._finish()
        else:
            yield from self._end(error, now)

    def _complain(self, reason: str, now: float) -> Iterator[Effect]:
        """A frame made no sense: fatal only from a server that has not shown to be one."""
        if self.link is Link.OPENING:
            problem = f"what answers is not a Realtime server: {reason}"
            yield from self._end(ProtocolError(problem, remedy=CHECK_URL), now)
        else:
            yield Notice(f"The server sent something that is not an event: {reason}")

    def _look_at_clock(self, now: float) -> Iterator[Effect]:
        for name in [name for name, time in self._deadlines.items() if time <= now]:
            self._deadlines.pop(name, None)
            match name:
                case "opening":
                    problem = "the server did not speak first, as a Realtime server does"
                    remedy = "Check --url and the network, then try again."
                    yield from self._end(ProtocolError(problem, remedy=remedy), now)
                case "restoring" if not self._line.is_configured:
                    problem = "the server did not confirm the settings"
                    remedy = "Try again; if it stays so, check --url."
                    yield from self._end(ProtocolError(problem, remedy=remedy), now)
                case "restoring":
                    self._line.replay.give_up("the server did not confirm it")
                    yield from self._go_live_when_ready(now)
                case "answer":
                    yield from self._give_up_waiting(now)
                case "commit":
                    pass  # what sounded like speech was none
                case "leaving":
                    yield from self._finish()
                case _:
                    yield from self._settle_user(name)

    # The user ------------------------------------------------------------------------------------

    def _hear_user(self, pcm: bytes) -> Iterator[Effect]:
        """Send a frame on, if it is for the server's ears."""
        if self.link is not Link.LIVE:
            return
        if self.configuration.vad == "none" and not self._is_talking:
            return
        if self.is_muted:
            if not self._user.is_speaking:
                return
            pcm = bytes(len(pcm))  # the server must hear silence, or the turn never ends
        self._line.sent_bytes += len(pcm)
        self._uncommitted_bytes += len(pcm)
        yield self._line.send(wire.InputAudioBufferAppend(pcm))

    def _commit(self, wire_id: str, previous: str | None, now: float) -> Iterator[Effect]:
        item_id = self._line.local(wire_id)
        if self.transcript.get(item_id) is not None:
            if previous is not None:
                yield from self._user.place(item_id, self._line.local(previous))
            return
        yield from self._user.commit(item_id, self._line.local_previous(previous), now)
        if self.configuration.vad != "none" and not self._assistant.active:
            self._deadlines["answer"] = now + ANSWER_TIMEOUT

    def _settle_user(self, item_id: str, text: str = "") -> Iterator[Effect]:
        yield from self._user.settle(item_id, text)
        yield from self._finish_when_settled()

    def _say_typed(self, now: float) -> Iterator[Effect]:
        """Send what was typed, once the answer that it interrupts is out of the way."""
        if self._assistant.is_stopping or not self._typed:
            return
        for text in self._typed:
            item_id = self._line.new_item_id()
            yield from self._user.type(item_id, text, now)
            content = [{"type": "input_text", "text": text}]
            item = {"id": item_id, "type": "message", "role": "user", "content": content}
            yield self._line.send(wire.ConversationItemCreate(item, event_id=f"say-{item_id}"))
        self._typed.clear()
        yield from self._ask_for_answer(now)

    def _take_or_give_floor(self, now: float) -> Iterator[Effect]:
        """Without voice detection: begin a turn, or end it and ask for the answer."""
        if self.link is not Link.LIVE or self.configuration.vad != "none":
            return
        self._is_talking = not self._is_talking
        if self._is_talking:
            self._uncommitted_bytes = 0
            yield from self._interrupt()
            yield self._line.send(wire.InputAudioBufferClear())
        elif self._uncommitted_bytes < SHORTEST_COMMIT:
            yield self._line.send(wire.InputAudioBufferClear())
            yield Notice("That was too short to be sent.")
        else:
            yield self._line.send(wire.InputAudioBufferCommit(event_id="commit"))
            yield from self._ask_for_answer(now)

    # The answer ----------------------------------------------------------------------------------

    def _ask_for_answer(self, now: float) -> Iterator[Effect]:
        """Now, or when the response that is being made is done: two are never active."""
        self._response_is_wanted = self._assistant.active is not None
        self._deadlines["answer"] = now + ANSWER_TIMEOUT
        if not self._response_is_wanted:
            yield self._line.send(wire.ResponseCreate(event_id="respond"))

    def _end_response(self, response: Json, now: float) -> Iterator[Effect]:
        """Take what came of it, and say why if that is nothing or not all."""
        self._deadlines.pop("answer", None)
        status, details = response.get("status"), response.get("status_details")
        details = details if isinstance(details, dict) else {}
        error, reason = details.get("error"), str(details.get("reason") or status)
        came, was_dropped = self._assistant.has_come, self._assistant.is_dropped
        is_partial = status in ("failed", "cancelled", "incomplete")
        yield from self._assistant.end_response(self._line, now, is_partial=is_partial)
        if status == "failed":
            yield from self._fail_to_answer(describe(error if isinstance(error, dict) else details))
        elif was_dropped or reason == "turn_detected" or (status == "completed" and came):
            pass  # the user wanted it so, or all is well
        elif came:
            yield Notice(f"The answer was cut short by the server: {reason}")
        elif is_partial or self._user.has_words:
            yield from self._fail_to_answer(reason if is_partial else "it was empty")
        if self._response_is_wanted and not self._assistant.is_stopping:
            yield from self._ask_for_answer(now)

    def _give_up_waiting(self, now: float) -> Iterator[Effect]:
        """No answer, or no end of it: go on with what there is."""
        yield from self._assistant.give_up(self._line, now)
        if not self._assistant.has_come:
            yield from self._fail_to_answer(f"none came within {ANSWER_TIMEOUT:.0f} s")

    def _fail_to_answer(self, reason: str) -> Iterator[Effect]:
        self._deadlines.pop("answer", None)
        self.failure = AnswerError(
            f"there was no answer: {reason}",
            remedy=self._how_to_resume(),
        )
        yield Notice(f"No answer: {reason}")

    # Barge-in ------------------------------------------------------------------------------------

    def _yield_floor(self) -> Iterator[Effect]:
        """The user speaks: the server has cancelled its answer, and will answer the new turn."""
        self._response_is_wanted = False
        if self._assistant.has_answers or self._assistant.active:
            yield from self._assistant.interrupt()

    def _interrupt(self) -> Iterator[Effect]:
        """The user wants the floor without the server having noticed: cancel the answer, too."""
        self._must_cancel = self._assistant.active is not None
        if self._assistant.has_answers or self._must_cancel:
            yield from self._assistant.interrupt()

    def _cut_off(self, heard: dict[str, int], now: float) -> Iterator[Effect]:
        is_staying = self.link is Link.LIVE
        yield from self._assistant.cut_off(heard, self._line if is_staying else None, now)
        if self._must_cancel and self._assistant.active is not None:
            yield self._line.send(wire.ResponseCancel())
        self._must_cancel = False
        if is_staying:
            yield from self._say_typed(now)
        else:
            yield from self._finish_when_settled()

    # Hanging up ----------------------------------------------------------------------------------

    def _leave(self, error: VoicechatError | None, now: float) -> Iterator[Effect]:
        """Stop, wait a moment for the last words, and be gone."""
        self._ending = self._ending or error
        if self.link is Link.LEAVING:  # asked for twice
            return
        if self.link is not Link.LIVE:  # not begun
            yield from self._finish()
            return
        self.link = Link.LEAVING
        self._deadlines["leaving"] = now + LEAVING_TIMEOUT
        self._deadlines.pop("answer", None)
        if self.floor is Floor.USER and self._uncommitted_bytes >= SHORTEST_COMMIT:
            # In the middle of a sentence: its words are still wanted.
            self._deadlines["commit"] = now + LEAVING_TIMEOUT
            yield self._line.send(wire.InputAudioBufferCommit(event_id="commit"))
        yield from self._interrupt()
        yield from self._finish_when_settled()

    def _end(self, error: VoicechatError, now: float) -> Iterator[Effect]:
        """Nothing more can come from the server; how much was heard is still asked for."""
        self._ending = self._ending or error
        if not self._assistant.has_answers or self.link is Link.LEAVING:
            yield from self._finish()
            return
        self.link = Link.LEAVING
        self._line = Line(self._line.number + 1, self.transcript)  # say nothing to the old one
        self._assistant.active = None
        self._deadlines.clear()
        self._deadlines["leaving"] = now + LEAVING_TIMEOUT
        yield from self._assistant.interrupt()

    def _finish_when_settled(self) -> Iterator[Effect]:
        waits = self._user.waits_for_words or self._assistant.is_stopping
        if self.link is Link.LEAVING and not waits:
            yield from self._finish()

    def _finish(self) -> Iterator[Effect]:
        """Settle what is still open with the words that are there."""
        self.link = Link.CLOSED
        self._deadlines.clear()
        for turn in self.transcript.turns:
            if turn.is_settled:
                continue
            if turn.role == "user":
                yield from self._user.settle(turn.item_id)
            else:
                said = Said(
                    item_id=turn.item_id,
                    role=turn.role,
                    text=turn.text.strip(),
                    status="interrupted",
                    previous_item_id=turn.previous_item_id,
                    start_ms=turn.start_ms,
                    end_ms=turn.start_ms,
                )
                yield Write(said)
        yield Write(Closed(end_ms=self.transcript.end_ms))
        error = self._ending
        if isinstance(error, ConnectError) and self.transcript.spoken:
            error = ConnectError(error.message, remedy=self._how_to_resume())
        yield Finish(error)

    def _how_to_resume(self) -> str:
        opened = self.transcript.opened
        if opened is None or not opened.session or not self.transcript.spoken:
            return "Try again."
        return "What was said is saved; the line above that begins with Resume goes on."
