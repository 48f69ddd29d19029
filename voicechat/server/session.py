"""THE SERVER'S CORE: one client's session as a pure state machine, the mirror of the client's.

    effects = session.handle(what_happened, now)

Theory of operation.  A turn is heard (`input_audio_buffer`, the turn detector), becomes an item,
and is put into words; a response to it is created at once but begins only when the words of all it
answers are known.  It then grows by whole sentences until it ends or is cancelled.  Whoever asks
for something that cannot be is told why (`refusals`), and nothing has changed.
"""

from dataclasses import replace
from typing import Any, cast

from voicechat import pcm
from voicechat.realtime import events as wire
from voicechat.realtime.events import Event, Json
from voicechat.server import configuration, contract, refusals
from voicechat.server.answers import Answer, Outcome
from voicechat.server.contract import Effect, Say
from voicechat.server.hearing import Buffer, Hearing, told
from voicechat.server.items import Item, Items, messages, read_input, read_item
from voicechat.server.refusals import RefusedError
from voicechat.server.turns import Began, Change, Ended, TurnDetector

LIFETIME = 3600.0  # "Your session hit the maximum duration of 60 minutes."
RATE_LIMITS_AFTER = 0.04
"""Seconds from `response.done` to `rate_limits.updated`, as on the real wire."""


class ServerSession:
    """One client's session."""

    def __init__(
        self,
        now: float,
        *,
        name: str,
        model: str,
        can_speak: bool = True,
        started_at: int = 0,
        lifetime: float = LIFETIME,
    ) -> None:
        """Begin at `now`, which is `started_at` seconds in Unix time.

        Ids are made from `name` (at most 16 characters), so that no two sessions share one: a
        client brings items of an earlier session into this one.
        """
        self._name = name
        self._can_speak = can_speak
        self._lifetime = lifetime
        self._expires_at = now + lifetime
        self._rate_limits_at: float | None = None
        self._count = 0
        self.settings = configuration.default_session(
            f"sess_{name}", model, int(started_at + lifetime)
        )
        self.items = Items()
        self._has_spoken = False
        self._answers: dict[str, Answer] = {}
        self._active: Answer | None = None
        """The response in the conversation; others are out of band."""
        self._buffer = Buffer()
        self._detector = TurnDetector()
        self._turn_id = ""
        """Of the item to come, once speech has begun."""
        self._turn_start_ms = 0
        self._hearings: dict[str, Hearing] = {}

    @property
    def deadline(self) -> float:
        """When `DeadlineReached` is due."""
        return min(self._expires_at, self._rate_limits_at or self._expires_at)

    def start(self) -> list[Effect]:
        """What is said before anything happens."""
        return self._say(wire.SessionCreated(self.settings))

    def handle(self, happened: contract.Input, now: float) -> list[Effect]:
        """Take in what happened and tell what to do about it."""
        match happened:
            case contract.Received(event):
                try:
                    return self._receive(event, now)
                except RefusedError as error:
                    return self._refuse(error, getattr(event, "event_id", None))
            case contract.FrameRefused(error, event_id):
                return self._refuse(RefusedError(error.code, str(error), error.param), event_id)
            case contract.VoiceHeard(probabilities):
                return [e for p in probabilities for e in self._hear_voice(p, now)]
            case contract.Transcribed(item_id, take, text):
                return self._hear_words(item_id, take, text, "", now)
            case contract.TranscriptionFailed(item_id, take, message):
                return self._hear_words(item_id, take, "", message, now)
            case contract.SentenceReady(response_id, text, sound):
                return self._speak(response_id, text, sound)
            case contract.AnswerEnded(response_id, was_cut):
                return self._end_answer(response_id, was_cut, now)
            case contract.AnswerFailed(response_id, message):
                return self._fail_answer(response_id, message, now)
            case contract.DeadlineReached():
                return self._reach_deadline(now)

    # What the client asks for -------------------------------------------------------------------

    def _receive(self, event: Event, now: float) -> list[Effect]:
        match event:
            case wire.SessionUpdate(request):
                self.settings = configuration.updated_session(
                    self.settings, request, has_spoken=self._has_spoken
                )
                if configuration.turn_rules(self.settings) is None and self._turn_id:
                    self._forget_turn()
                return self._say(wire.SessionUpdated(self.settings))
            case wire.InputAudioBufferAppend(sound):
                return self._append(sound)
            case wire.InputAudioBufferCommit():
                return self._commit_by_hand(now)
            case wire.InputAudioBufferClear():
                self._forget_turn()
                self._buffer.clear()
                return self._say(wire.InputAudioBufferCleared())
            case wire.ConversationItemCreate(wanted, previous_item_id):
                return self._create_item(wanted, previous_item_id)
            case wire.ConversationItemRetrieve(item_id):
                item = self.items.get(item_id, "retrieve")
                return self._say(wire.ConversationItemRetrieved(item.wire(with_audio=True)))
            case wire.ConversationItemDelete(item_id):
                self.items.remove(item_id)
                return self._say(wire.ConversationItemDeleted(item_id))
            case wire.ConversationItemTruncate():
                return self._truncate(event)
            case wire.ResponseCreate(response):
                return self._create_response(response or {}, now)
            case wire.ResponseCancel(response_id):
                return self._cancel_by_hand(response_id, now)
            case wire.UnknownEvent(payload):
                raise refusals.wrong_value(payload["type"], wire.CLIENT_EVENTS, "type")
            case _:
                raise AssertionError(f"no client event: {event!r}")

    def _append(self, sound: bytes) -> list[Effect]:
        fresh = self._buffer.append(sound)
        is_idle = not self._detector.is_speech
        if is_idle and configuration.turn_rules(self.settings) is not None:
            self._buffer.trim(self._detector.position_ms)
        return [contract.Listen(fresh)] if fresh else []

    def _commit_by_hand(self, now: float) -> list[Effect]:
        sound = self._buffer.waiting()
        if len(sound) < 100 * pcm.BYTES_PER_MS:
            raise refusals.buffer_too_small(len(sound) / pcm.BYTES_PER_MS)
        item_id = self._turn_id or self._new_id("item")
        self._hearings.pop(item_id, None)  # a guess may be about less than is committed
        self._forget_turn()
        self._buffer.clear()
        return self._commit(item_id, sound, now)

    def _create_item(self, wanted: Json, after: str | None) -> list[Effect]:
        item = read_item(wanted, self._new_id("item"))
        if item.fields["type"] == "function_call_output":
            call_id = item.fields["call_id"]
            if not self.items.has_call(call_id):
                raise refusals.no_such_call(call_id)
        before = self.items.add(item, after)
        added = self._say(
            wire.ConversationItemAdded(item.wire(), before),
            wire.ConversationItemDone(item.wire(), before),
        )
        return [*added, *self._transcribe(item)]

    def _truncate(self, event: wire.ConversationItemTruncate) -> list[Effect]:
        item = self.items.get(event.item_id, "truncate")
        if event.content_index != 0:
            raise refusals.out_of_range("content_index", event.content_index, 0, 0)
        if event.audio_end_ms < 0:
            raise refusals.out_of_range("audio_end_ms", event.audio_end_ms, 0, 0)
        if not item.has_voice or event.audio_end_ms == 0:
            raise refusals.not_truncatable()
        if event.audio_end_ms > item.audio_ms:
            raise refusals.truncated_beyond_end(item.audio_ms, event.audio_end_ms)
        item.cut(event.audio_end_ms)
        return self._say(
            wire.ConversationItemTruncated(event.item_id, event.content_index, event.audio_end_ms)
        )

    # Hearing ------------------------------------------------------------------------------------

    def _hear_voice(self, probability: float, now: float) -> list[Effect]:
        change = self._detector.hear(probability, configuration.turn_rules(self.settings))
        return self._follow_turn(change, now) if change else []

    def _follow_turn(self, change: Change, now: float) -> list[Effect]:
        match change:
            case Began(at_ms):
                self._turn_id, self._turn_start_ms = self._new_id("item"), at_ms
                began = self._say(wire.InputAudioBufferSpeechStarted(self._turn_id, at_ms))
                if self._active is None or not self._detection["interrupt_response"]:
                    return began
                return [*began, *self._cancel(self._active, "turn_detected", now)]
            case "paused":  # guess that this is the end, so that the words are there when it is
                hearing = Hearing(self._next())
                self._hearings[self._turn_id] = hearing
                sound = self._buffer.between(self._turn_start_ms, self._detector.position_ms)
                return [contract.Transcribe(self._turn_id, hearing.take, sound)]
            case "resumed":
                self._hearings.pop(self._turn_id, None)
                return []
            case Ended(at_ms):
                stopped = self._say(wire.InputAudioBufferSpeechStopped(self._turn_id, at_ms))
                item_id, self._turn_id = self._turn_id, ""
                sound = self._buffer.between(self._turn_start_ms, at_ms)
                self._buffer.drop_until(at_ms)
                return [*stopped, *self._commit(item_id, sound, now, is_turn=True)]

    def _commit(
        self, item_id: str, sound: bytes, now: float, *, is_turn: bool = False
    ) -> list[Effect]:
        content = [{"type": "input_audio", "transcript": None}]
        fields = {"type": "message", "role": "user", "content": content}
        item = Item(item_id, "user", fields, audio=bytearray(sound))
        before = self.items.add(item)
        effects = self._say(
            wire.InputAudioBufferCommitted(item_id, before),
            wire.ConversationItemAdded(item.wire(), before),
            wire.ConversationItemDone(item.wire(), before),
        )
        guess = self._hearings.get(item_id)
        if guess is None:
            effects += self._transcribe(item)
        else:
            guess.item = item
        if is_turn and self._detection["create_response"]:
            effects += self._respond_to_turn(now)
        if guess is not None and guess.text is not None:
            effects += self._hear_words(item_id, guess.take, guess.text, "", now)
        return effects

    def _transcribe(self, item: Item) -> list[Effect]:
        if not item.is_user_audio:
            return []
        hearing = self._hearings[item.item_id] = Hearing(self._next(), item)
        return [contract.Transcribe(item.item_id, hearing.take, bytes(item.audio))]

    def _hear_words(
        self, item_id: str, take: int, text: str, failure: str, now: float
    ) -> list[Effect]:
        hearing = self._hearings.get(item_id)
        if hearing is None or hearing.take != take:
            return []
        if hearing.item is None:
            if failure:
                del self._hearings[item_id]  # to be tried again, with all that was said
            hearing.text = text
            return []
        del self._hearings[item_id]
        item = hearing.item
        item.text, item.failure = text, failure
        effects = self._tell_words(item) if item_id in self.items else []
        for answer in list(self._answers.values()):
            if item_id in answer.waits_for:
                answer.waits_for.discard(item_id)
                effects += self._begin_when_heard(answer, now)
        return effects

    def _tell_words(self, item: Item) -> list[Effect]:
        if self.settings["audio"]["input"]["transcription"] is None:
            return []
        return self._say(*told(item))

    def _forget_turn(self) -> None:
        self._hearings.pop(self._turn_id, None)
        self._turn_id = ""
        self._detector.reset(self._buffer.end_ms)

    @property
    def _detection(self) -> Json:
        return cast(Json, self.settings["audio"]["input"]["turn_detection"])

    # Answering ----------------------------------------------------------------------------------

    def _create_response(self, request: Json, now: float) -> list[Effect]:
        settings = configuration.response_settings(
            self.settings, request, has_spoken=self._has_spoken
        )
        context, effects = tuple(self.items), list[Effect]()
        if settings["input"] is not None:
            context = tuple(read_input(settings["input"], self.items, lambda: self._new_id("item")))
            for item in context:
                if item.is_user_audio and item.item_id not in self.items:
                    effects += self._transcribe(item)
        return [*self._respond(settings, context, now), *effects]

    def _respond_to_turn(self, now: float) -> list[Effect]:
        settings = configuration.response_settings(self.settings, {}, has_spoken=False)
        try:
            return self._respond(settings, tuple(self.items), now)
        except RefusedError as error:  # the client does not want answers to be interrupted
            return self._refuse(error, None)

    def _respond(self, settings: Json, context: tuple[Item, ...], now: float) -> list[Effect]:
        is_in_conversation = settings["conversation"] != "none"
        if is_in_conversation and self._active is not None:
            raise refusals.response_is_active(self._active.response_id)
        is_spoken = self._can_speak and settings["output_modalities"] == ["audio"]
        answer = Answer(
            self._new_id("resp"),
            f"conv_{self._name}" if is_in_conversation else None,
            settings,
            self.settings["audio"]["output"]["speed"] if is_spoken else None,
            context,
            waits_for={item.item_id for item in context if item.item_id in self._hearings},
        )
        self._answers[answer.response_id] = answer
        if is_in_conversation:
            self._active = answer
        return [*self._say(*answer.created()), *self._begin_when_heard(answer, now)]

    def _begin_when_heard(self, answer: Answer, now: float) -> list[Effect]:
        if answer.waits_for:
            return []
        last = answer.context[-1] if answer.context else None
        if last is not None and last.failure:
            answer.is_plain = True
            return [contract.Utter(answer.response_id, last.failure, answer.speed)]
        if last is not None and last.is_user_audio and not last.text:
            return self._end(answer, "completed", None, now)  # nothing was said, nothing to answer
        return [
            contract.Generate(
                answer.response_id,
                messages(answer.context),
                answer.settings["instructions"],
                answer.speed,
                answer.max_tokens,
            )
        ]

    def _speak(self, response_id: str, text: str, sound: bytes) -> list[Effect]:
        answer = self._answers.get(response_id)
        if answer is None:
            return []
        self._has_spoken = self._has_spoken or bool(sound)
        begun: list[Event] = []
        if answer.item is None:
            item = Item(self._new_id("item"), "assistant", {})
            before = self.items.add(item) if answer.is_in_conversation else None
            begun = answer.begun(item, before)
        return self._say(*begun, *answer.said(text, sound))

    def _end_answer(self, response_id: str, was_cut: bool, now: float) -> list[Effect]:
        answer = self._answers.get(response_id)
        if answer is None:
            return []
        if not was_cut:
            return self._end(answer, "completed", None, now)
        details = {"type": "incomplete", "reason": "max_output_tokens"}
        return self._end(answer, "incomplete", details, now)

    def _fail_answer(self, response_id: str, message: str, now: float) -> list[Effect]:
        answer = self._answers.get(response_id)
        if answer is None:
            return []
        error = {"type": "server_error", "code": "server_error", "message": message}
        return self._end(answer, "failed", {"type": "failed", "error": error}, now)

    def _cancel_by_hand(self, response_id: str | None, now: float) -> list[Effect]:
        answer = self._answers.get(response_id) if response_id else self._active
        if answer is None:
            raise refusals.no_active_response()
        return self._cancel(answer, "client_cancelled", now)

    def _cancel(self, answer: Answer, reason: str, now: float) -> list[Effect]:
        details = {"type": "cancelled", "reason": reason}
        stop = contract.Stop(answer.response_id)
        return [stop, *self._end(answer, "cancelled", details, now)]

    def _end(
        self, answer: Answer, outcome: Outcome, details: Json | None, now: float
    ) -> list[Effect]:
        del self._answers[answer.response_id]
        if self._active is answer:
            self._active = None
        self._rate_limits_at = now + RATE_LIMITS_AFTER
        return self._say(*answer.ended(outcome, details))

    # Time, and small things ---------------------------------------------------------------------

    def _reach_deadline(self, now: float) -> list[Effect]:
        if now >= self._expires_at:
            self._expires_at = float("inf")
            expired = refusals.session_expired(self._lifetime / 60)
            stops = [contract.Stop(response_id) for response_id in self._answers]
            return [*stops, *self._refuse(expired, None), contract.Close(1001, str(expired))]
        if self._rate_limits_at is None or now < self._rate_limits_at:
            return []
        self._rate_limits_at = None
        return self._say(wire.RateLimitsUpdated([]))  # there are none here

    def _refuse(self, error: RefusedError, event_id: str | None) -> list[Effect]:
        details = {"type": "invalid_request_error", "code": error.code, "message": str(error)}
        return self._say(wire.Error({**details, "param": error.param, "event_id": event_id}))

    def _say(self, *said: Event) -> list[Effect]:
        return [
            Say(replace(cast(Any, event), event_id=f"event_{self._name}{self._next():06d}"))
            for event in said
        ]

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _new_id(self, kind: str) -> str:
        return f"{kind}_{self._name}{self._next():06d}"
