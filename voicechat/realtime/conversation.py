"""The conversation itself, with the world left out.

Theory of operation.  Two small enums say how things stand:

    Link    OPENING → LIVE ⇄ LOST → LEAVING → CLOSED
            LIVE: settings and every item confirmed.  LOST: another connection is on its way.
    Floor   OPEN | USER | THINKING | ASSISTANT      derived: who has the floor

A user turn:  speech_started → committed (`Speaking`, no words yet) → transcribed (`Said`).
An answer:    deltas (`Play`; a `Speaking` for each sentence) → heard to its end (`Said`).
A barge-in:   speech_started, or a typed turn → `StopPlayback` → `PlaybackStopped` → truncate what
              was heard in part, delete what was not heard at all, `Said` with the heard words.
A lost line:  `Disconnected` → what is said is kept → `Connect` → replay → the utterance that was
              lost is said again, a turn that nobody answered is asked about again.

`lines.Lines` keeps the connections, `user.User` and `assistant.Assistant` the two sides,
`recording.Recording` what the microphone heard; here is what ties them together.
"""

import random
from collections.abc import Callable, Iterator

from voicechat.errors import ConnectError, VoicechatError
from voicechat.realtime import answering, connecting, leaving, limits, saving, turns
from voicechat.realtime import events as wire
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.connecting import line_error
from voicechat.realtime.effects import Effect, Notice, Play, Send, Write
from voicechat.realtime.events import Event, Json
from voicechat.realtime.inputs import (
    Connected,
    DeadlineReached,
    Disconnected,
    Garbled,
    GoOnUnsaved,
    Input,
    Interrupted,
    MicCaptured,
    MuteToggled,
    PlaybackFinished,
    PlaybackStopped,
    QuitRequested,
    Received,
    RepeatRequested,
    SavingFailed,
    Silent,
    TalkKeyPressed,
    TalkKeyReleased,
    TextTyped,
    Typing,
    WaitSkipped,
    Woke,
)
from voicechat.realtime.line import Line, Stage
from voicechat.realtime.policy import Policy
from voicechat.realtime.problems import describe, fatal, is_about_answer, is_benign
from voicechat.realtime.providers import OPENAI, Provider
from voicechat.realtime.replay import text_of
from voicechat.realtime.responses import ANSWER_TIMEOUT, LONGEST_RETRY
from voicechat.realtime.state import Floor, Link, State
from voicechat.realtime.view import View
from voicechat.transcript import Record, Said, Transcript

__all__ = ["Conversation", "Floor", "Link"]

OPENING_TIMEOUT = 10.0  # seconds until the first word of a server; 1 to 2 are usual


class Conversation:
    """One voice conversation, as a pure state machine: inputs in, effects out.

    It never awaits, sleeps, reads a clock or touches a device.  `now` is always given, in seconds
    of any monotonic clock, and `deadline` says when to call back if nothing else happens.
    """

    def __init__(
        self,
        transcript: Transcript | None = None,
        configuration: Configuration | None = None,
        policy: Policy | None = None,
        provider: Provider = OPENAI,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        transcript = transcript if transcript is not None else Transcript()
        configuration, policy = configuration or Configuration(), policy or Policy()
        self._state = State(transcript, configuration, policy, chance, provider)
        self.view = View(self._state)
        """For whoever shows it."""

    # What others may ask -------------------------------------------------------------------------

    @property
    def transcript(self) -> Transcript:
        """What was said so far."""
        return self._state.transcript

    @property
    def configuration(self) -> Configuration:
        """How the server is asked to behave."""
        return self._state.configuration

    @property
    def provider(self) -> Provider:
        """Whose server it is."""
        return self._state.provider

    @property
    def link(self) -> Link:
        """How things stand with the server."""
        return self._state.link

    @property
    def floor(self) -> Floor:
        """Who speaks."""
        return self._state.floor

    @property
    def is_idle(self) -> bool:
        """Live, with nothing said that is not answered, heard and put into words."""
        return self._state.is_idle

    @property
    def is_shut(self) -> bool:
        """What the microphone hears is for nobody."""
        return self._state.is_shut

    def timeline_ms(self, now: float) -> int:
        """Where the session is, on its own timeline."""
        return self._state.timeline.ms(now)

    @property
    def failure(self) -> VoicechatError | None:
        """The last turn got no answer, for a caller that must report it."""
        return self._state.failure

    @property
    def deadline(self) -> float | None:
        """When `DeadlineReached` is due if nothing else happens."""
        return min(self._state.deadlines.values(), default=None)

    # The one way in ------------------------------------------------------------------------------

    def start(self) -> list[Effect]:
        """Begin, with an empty transcript or a resumed one."""
        return list(self._state.lines.prepare())

    def handle(self, happened: Input, now: float) -> list[Effect]:
        """Take in one thing that happened; return what must be done about it, in order."""
        self._state.timeline.start(now)
        if isinstance(happened, Received) and self._state.lines.takes_note(happened, now):
            return []
        effects: list[Effect] = []
        for step in (self._react(happened, now), self._go_on(happened, now)):
            if self._state.link is not Link.CLOSED:
                self._perform(step, effects, now)
        return effects

    def _go_on(self, happened: Input, now: float) -> Iterator[Effect]:
        """Whatever happened: what was waited for may be there now."""
        if self._state.link is not Link.LEAVING:
            yield from limits.end_if_spent(self._state, now)
        if self._state.link is Link.LEAVING:
            yield from leaving.finish_when_settled(self._state, now)
        else:
            yield from answering.ask_if_wanted(self._state, now)
            yield from connecting.advance(self._state, now)
            limits.watch_silence(self._state, happened, now)

    def _perform(self, reaction: Iterator[Effect], effects: list[Effect], now: float) -> None:
        """What is written is known from then on, here and to the server."""
        for effect in reaction:
            if isinstance(effect, Write):
                self._state.transcript.apply(effect.record)
                effects.append(effect)
                self._perform(self._tell_server(effect.record, now), effects, now)
                self._perform(limits.spend(self._state, effect.record), effects, now)
            elif not isinstance(effect, Send) or self._state.lines.find(effect.connection):
                if isinstance(effect, Play):
                    self._state.be_answered(now)
                effects.append(effect)

    def _react(self, happened: Input, now: float) -> Iterator[Effect]:
        state = self._state
        match happened:
            case Connected() | Disconnected() | Silent() | Received() | Garbled():
                line = state.lines.find(happened.connection)
                if line is not None:  # else a late word of a connection that was given up
                    yield from self._hear_line(line, happened, now)
            case MicCaptured(pcm):
                yield from turns.hear_user(state, pcm, now)
            case PlaybackStopped(heard):
                if not state.repeat.has_stopped():
                    yield from turns.cut_off(state, dict(heard), now)
            case PlaybackFinished(item_id, heard_ms):
                state.repeat.finish(item_id)
                yield from state.assistant.finish_hearing(item_id, heard_ms, now)
            case TextTyped() | MuteToggled() | TalkKeyPressed() if state.unsaved is not None:
                yield saving.question(state.unsaved)
            case TextTyped(text) if state.is_spent:
                yield from limits.keep_typed(state, text, now)
            case TextTyped(text):
                yield from turns.take_typed(state, text, now)
            case Typing():
                pass  # it is a sign of life
            case MuteToggled():
                state.is_muted = not state.is_muted
                yield Notice("Microphone muted." if state.is_muted else "Microphone on.")
            case TalkKeyPressed():
                yield from turns.take_or_give_floor(state, now)
            case TalkKeyReleased():
                if state.is_talking:
                    yield from turns.take_or_give_floor(state, now)
            case Interrupted():
                yield from turns.decline(state)
            case RepeatRequested():
                yield from turns.repeat(state)
            case WaitSkipped():
                yield from state.lines.skip_summary(now)
            case SavingFailed(error):
                yield from saving.fail(state, error, now)
            case GoOnUnsaved():
                yield from saving.go_on(state)
            case Woke(seconds):
                yield from connecting.wake(state, seconds, now)
            case QuitRequested(error):
                yield from leaving.leave(state, error, now)
            case DeadlineReached():
                yield from self._look_at_clock(now)

    def _hear_line(
        self,
        line: Line,
        happened: Connected | Disconnected | Silent | Received | Garbled,
        now: float,
    ) -> Iterator[Effect]:
        match happened:
            case Received(event=event):
                line.heard_at = now
                if line.is_aside(event) and line.stage is not Stage.SUMMARISING:
                    yield from answering.note_usage(self._state, event)
                elif line is self._state.lines.serving:
                    yield from self._hear_server(line, event, now)
                else:
                    yield from connecting.hear_preparing(self._state, line, event, now)
            case Connected(_, server_time):
                line.is_open, line.opened_at, line.heard_at = True, now, now
                line.server_time = server_time
                self._state.deadlines["opening"] = now + OPENING_TIMEOUT
            case Disconnected(error=error):
                yield from connecting.lose(self._state, line, error, now)
            case Silent(seconds=seconds):
                yield from connecting.hear_silence(self._state, line, seconds, now)
            case Garbled(reason=reason):
                yield from connecting.complain(self._state, line, reason, now)

    # The server ----------------------------------------------------------------------------------

    def _hear_server(self, line: Line, event: Event, now: float) -> Iterator[Effect]:
        match event:
            case wire.Error(error):
                yield from self._hear_error(line, error, now)
            case (
                wire.ConversationItemAdded(item, previous)
                | wire.ConversationItemDone(item, previous)
                | wire.ConversationItemCreated(item, previous)
            ):
                yield from self._hear_item(line, item, previous, now)
            case wire.InputAudioBufferSpeechStarted(wire_id, audio_start_ms):
                self._state.deadlines.pop("owed", None)
                self._state.turn_ended_at = None
                self._state.recording.begin(audio_start_ms)
                ago = self._heard_ms_ago(line, audio_start_ms, now)
                self._state.user.begin(line.local(wire_id), ago, now)
                yield from turns.yield_floor(self._state)
            case wire.InputAudioBufferSpeechStopped(wire_id, audio_end_ms):
                self._state.recording.stop(audio_end_ms)
                ago = self._heard_ms_ago(line, audio_end_ms, now)
                self._state.user.stop(line.local(wire_id), ago, now)
                self._state.turn_ended_at = now - ago / 1000
            case wire.InputAudioBufferCommitted(wire_id, previous):
                self._state.uncommitted_bytes = 0
                yield from turns.commit(self._state, line, wire_id, previous, now)
            case wire.ConversationItemInputAudioTranscriptionDelta(wire_id, delta=words):
                yield from turns.commit(self._state, line, wire_id, None, now)
                self._state.user.hear_words(line.local(wire_id), words)
            case wire.ConversationItemInputAudioTranscriptionUpdated(wire_id, words):
                if wire_id:
                    self._state.user.hear_all_words(line.local(wire_id), words)
            case wire.ConversationItemInputAudioTranscriptionCompleted(wire_id, transcript=text):
                yield from turns.commit(self._state, line, wire_id, None, now)
                yield from turns.settle_user(self._state, line.local(wire_id), text.strip())
                if not (text.strip() or self._state.responses.is_busy):
                    self._state.deadlines.pop("answer", None)  # nothing was said: none need come
            case wire.ConversationItemInputAudioTranscriptionFailed(wire_id):
                yield from turns.commit(self._state, line, wire_id, None, now)
                yield from turns.settle_user(self._state, line.local(wire_id))
            case wire.RateLimitsUpdated(limits):
                seconds = [each.get("reset_seconds") for each in limits if isinstance(each, dict)]
                numbers = [each for each in seconds if isinstance(each, int | float)]
                sane = [each for each in numbers if 0 <= each < LONGEST_RETRY]
                self._state.responses.reset_seconds = max(sane, default=0.0)
            case wire.ResponseCreated(response):
                self._state.responses.begin(str(response.get("id")))
                self._state.assistant.begin()
                yield from self._state.repeat.begin()
                if self._state.link is Link.LEAVING or self._state.is_declined:
                    self._state.assistant.drop(str(response.get("id")))  # nobody will hear it
                if self._state.is_declined:
                    yield line.send(wire.ResponseCancel())
                self._state.deadlines["answer"] = now + ANSWER_TIMEOUT
                self._state.failure = None
            case wire.ResponseDone(response, usage):
                yield from answering.end_response(self._state, line, response, usage, now)
            case _:
                response_id = str(getattr(event, "response_id", ""))
                is_dropped = self._state.assistant.is_dropped(response_id)
                if self._state.responses.is_news(response_id) and not is_dropped:
                    unannounced = wire.ResponseCreated({"id": response_id})
                    yield from self._hear_server(line, unannounced, now)
                if self._state.responses.active is not None:
                    self._state.deadlines["answer"] = now + ANSWER_TIMEOUT  # it goes on
                yield from self._state.repeat.keep(self._state.assistant.receive(event, line, now))

    def _heard_ms_ago(self, line: Line, audio_ms: int, now: float) -> int:
        """How long ago the moment was that is `audio_ms` into the audio sent so far."""
        at = self._state.recording.heard_at(audio_ms)
        return line.heard_ms_ago(audio_ms) if at is None else max(0, round((now - at) * 1000))

    def _hear_item(
        self, line: Line, item: Json, previous: str | None, now: float
    ) -> Iterator[Effect]:
        """An item is there, or final: one of ours, the user's speech, or part of an answer."""
        if (entry := line.confirm(item)) is not None:
            yield from self._state.lines.confirmed(line, entry, now)
            return
        wire_id, role = str(item.get("id")), item.get("role")
        if item.get("type") == "message" and role == "assistant":
            if previous is not None:
                before = line.local_previous(previous)
                self._state.assistant.place(line.local(wire_id), before)
        elif item.get("type") == "message" and role == "user":
            text = text_of(item)
            typed = self._state.user.typed(text) if text and not line.names(wire_id) else None
            if typed is not None:
                line.rename(wire_id, typed)
            known = self._state.transcript.get(item_id := line.local(wire_id))
            yield from turns.commit(self._state, line, wire_id, previous, now, is_speech=not text)
            if known is None and text:  # written by someone else
                yield from turns.settle_user(self._state, item_id, text)
            elif known is not None and known.text and not known.is_settled:  # typed, and arrived
                yield from turns.settle_user(self._state, item_id)

    def _hear_error(self, line: Line, error: Json, now: float) -> Iterator[Effect]:
        about, said, code = str(error.get("event_id") or ""), describe(error), error.get("code")
        if (end := fatal(error, self._state.provider)) is not None:
            yield from leaving.end(self._state, end, now)
        elif code == "session_expired":
            yield from connecting.abandon(self._state, line, line_error(said), now)
        elif about.startswith("replay-") or (
            not about and str(error.get("param")).startswith("item") and line.replay.waiting
        ):
            yield from self._state.lines.refused(line, error, now)
            for each in line.replay.take_losses():
                yield Notice(each)
        elif code == "conversation_already_has_active_response":
            self._state.responses.hear_busy()
        elif code == "response_cancel_not_active":
            self._state.responses.end()  # it was over, and we were not told, or have not heard yet
        elif code == "input_audio_buffer_commit_empty":
            self._state.recording.refuse()
        elif not is_benign(error):
            if (
                is_about_answer(error)
                and "answer" in self._state.deadlines
                and not self._state.responses.active
            ):
                self._state.responses.end()
                yield from answering.try_again(self._state, error, now)
            else:
                yield Notice(f"The server reports a problem: {said}")

    def _tell_server(self, record: Record, now: float) -> Iterator[Effect]:
        """A turn that the serving connection does not know is final: an answer from a lost line
        that was heard to its end only now, or one in writing that stands after all."""
        line = self._state.lines.serving
        if not isinstance(record, Said) or line is None or self._state.link is not Link.LIVE:
            return
        turn = self._state.transcript.get(record.item_id)
        is_new = record.status != "written" and not line.knows(record.item_id)
        if turn is not None and turn.text.strip() and is_new:
            yield from self._state.lines.catch_up(line, [turn], now)

    def _look_at_clock(self, now: float) -> Iterator[Effect]:
        deadlines = self._state.deadlines
        for name in [name for name, time in deadlines.items() if time <= now]:
            if name in deadlines and deadlines[name] <= now:  # one may change another
                del deadlines[name]
                yield from self._reach(name, now)

    def _reach(self, name: str, now: float) -> Iterator[Effect]:
        """Something that was waited for has not come, or something is due."""
        preparing, serving = self._state.lines.preparing, self._state.lines.serving
        match name:
            case "opening" if preparing is not None:
                yield from connecting.be_let_down(
                    self._state, preparing, "speak first, as a Realtime server does", now
                )
            case "restoring" if preparing is not None and preparing.is_waiting_for_settings:
                yield from connecting.be_let_down(
                    self._state, preparing, "confirm the settings", now
                )
            case "restoring":
                for line in self._state.lines.restoring:
                    line.replay.give_up("the server did not confirm it")
                if serving is not None:
                    for each in serving.replay.take_losses():
                        yield Notice(each)
            case "missing":
                for line in self._state.lines.restoring:
                    yield from self._state.lines.send_missing_again(line)
            case "summary":
                yield from self._state.lines.skip_summary(now, "It takes too long.")
            case "reconnect":
                if preparing is None and (serving is None or "packing" in self._state.deadlines):
                    yield from self._state.lines.prepare()
            case "giving up":
                problem = self._state.last_problem or line_error("nothing answers")
                patience = f"{self._state.policy.reconnect_for:.0f} s"
                message = f"the line was not back within {patience}: {problem.message}"
                yield from leaving.end(self._state, ConnectError(message, remedy="Try again."), now)
            case "rotate now" if serving is not None:
                yield from connecting.rotate_anyway(self._state, serving, now)
            case "answer":
                yield from answering.give_up_waiting(self._state, now)
            case "ask again" if serving is not None:
                yield from self._state.responses.ask(serving, now)
            case "packing":
                yield from self._state.lines.close_preparing()
                yield from turns.let_writing_stand(self._state)
            case "speech":
                self._state.user.look_again(now)
            case "commit":
                self._state.recording.dismiss()
            case "owed":  # what sounded like speech was none
                self._state.recording.dismiss()
                yield from connecting.ask_again_for_answer(self._state, now)
            case "unsaved":
                yield from leaving.leave(self._state, None, now)
            case "minutes soon":
                yield from limits.warn_of_minutes(self._state)
            case "minutes":
                yield from limits.end_minutes(self._state, now)
            case "silence soon":
                yield from limits.warn_of_silence(self._state)
            case "silence":
                yield from limits.end_silence(self._state, now)
            case "leaving":
                yield from leaving.finish(self._state, now)
            case _ if item_id := self._state.user.item_of(name):
                yield from turns.settle_user(self._state, item_id, is_final=False)
            case _:
                pass
