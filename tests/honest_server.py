"""A model of a server, one connection long: what it is told it does, as slowly as the test likes.

It makes up nothing: speech begins and ends, words and answers come when the test says so.  Nothing
is put into JSON; both directions are queues, so that whatever can cross on its way can be made to.
"""

from collections import deque
from dataclasses import dataclass, field

from voicechat.pcm import BYTES_PER_MS, silence
from voicechat.realtime.events import (
    ConversationItemAdded,
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemDeleted,
    ConversationItemDone,
    ConversationItemInputAudioTranscriptionCompleted,
    ConversationItemInputAudioTranscriptionDelta,
    ConversationItemInputAudioTranscriptionFailed,
    ConversationItemTruncate,
    ConversationItemTruncated,
    Error,
    Event,
    InputAudioBufferAppend,
    InputAudioBufferClear,
    InputAudioBufferCleared,
    InputAudioBufferCommit,
    InputAudioBufferCommitted,
    InputAudioBufferSpeechStarted,
    InputAudioBufferSpeechStopped,
    Json,
    ResponseCancel,
    ResponseCreate,
    ResponseCreated,
    ResponseDone,
    ResponseOutputAudioDelta,
    ResponseOutputAudioDone,
    ResponseOutputAudioTranscriptDelta,
    ResponseOutputAudioTranscriptDone,
    ResponseOutputItemAdded,
    ResponseOutputItemDone,
    ResponseOutputTextDelta,
    ResponseOutputTextDone,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
)

ASIDE = "Between you and me. "
"""What is said out of band."""
SHORTEST_COMMIT = 100 * BYTES_PER_MS


@dataclass(slots=True)
class Answer:
    """A response that is being made."""

    response_id: str
    is_aside: bool = False
    """Out of band: a summary."""
    item_id: str = ""
    text: str = ""


@dataclass(slots=True)
class Spoken:
    """Where in the sound of the connection an utterance is, in bytes."""

    start: int
    end: int


@dataclass(slots=True)
class HonestServer:
    """The other end of one connection."""

    number: int
    inbox: deque[Event] = field(default_factory=deque)
    """Sent by the client, not read yet."""
    outbox: deque[Event] = field(default_factory=deque)
    """Said, not heard by the client yet."""
    items: list[str] = field(default_factory=list)
    voices: dict[str, int] = field(default_factory=dict)
    """Bytes of sound of each answer."""
    spoken: dict[str, Spoken] = field(default_factory=dict)
    """Utterances by item id, committed or being spoken."""
    wordless: list[str] = field(default_factory=list)
    """Utterances that are not yet put into words."""
    answers: list[Answer] = field(default_factory=list)
    detects: bool = True
    heard: int = 0
    """Bytes of sound, in all."""
    waiting_from: int = 0
    """Where what is not committed begins."""
    turn: str | None = None
    """The utterance that is being spoken."""
    refuses: int = 0
    """So many of the next items."""
    loses: int = 0
    """So many of the next acknowledgements get lost."""
    complaints: list[str] = field(default_factory=list)
    """What the client did that no client should."""
    _count: int = 0

    @property
    def active(self) -> Answer | None:
        """The response in the conversation; others are out of band."""
        return next((answer for answer in self.answers if not answer.is_aside), None)

    def say(self, *events: Event) -> None:
        self.outbox.extend(events)

    def start(self, expires_at: int | None = None) -> None:
        session = {} if expires_at is None else {"expires_at": expires_at}
        self.say(SessionCreated(session))

    def read(self) -> None:
        """Take in the next thing that the client said."""
        match self.inbox.popleft():
            case SessionUpdate(session):
                self.detects = session["audio"]["input"]["turn_detection"] is not None
                if not self.detects:
                    self._forget_turn()
                self.say(SessionUpdated(session))
            case InputAudioBufferAppend(pcm):
                self.heard += len(pcm)
            case InputAudioBufferClear():
                self._forget_turn()
                self.waiting_from = self.heard
                self.say(InputAudioBufferCleared())
            case InputAudioBufferCommit(event_id):
                self._commit_by_hand(event_id)
            case ConversationItemCreate() as create:
                self._create(create)
            case ConversationItemDelete(item_id, event_id):
                if item_id not in self.items:
                    self._refuse("item_delete_invalid_item_id", event_id)
                else:
                    self.items.remove(item_id)
                    self.say(ConversationItemDeleted(item_id))
            case ConversationItemTruncate() as truncate:
                self._truncate(truncate)
            case ResponseCreate(response, event_id):
                if response is not None and response.get("conversation") == "none":
                    self.begin_answer(is_aside=True)
                elif self.active is not None:
                    self._refuse("conversation_already_has_active_response", event_id)
                else:
                    self.begin_answer()
            case ResponseCancel(event_id=event_id):
                if self.active is None:
                    self._refuse("response_cancel_not_active", event_id)
                else:
                    self.end_answer(self.active, "cancelled", reason="client_cancelled")
            case other:
                raise AssertionError(f"the client sent {other.type}")

    def _create(self, create: ConversationItemCreate) -> None:
        item = create.item
        item_id, before = str(item["id"]), create.previous_item_id
        if self.refuses:
            self.refuses -= 1
            self._refuse("invalid_value", create.event_id, "item.content[0].type")
        elif item_id in self.items:
            self._refuse("item_create_duplicate_item_id", create.event_id)
        elif before not in (None, "root") and before not in self.items:
            self._refuse("item_create_invalid_previous_item_id", create.event_id)
        else:
            place = 0 if before == "root" else len(self.items)
            if before is not None and before != "root":
                place = self.items.index(before) + 1
            self.items.insert(place, item_id)
            self._acknowledge(item, self.items[place - 1] if place else None)

    def _acknowledge(self, item: Json, before: str | None) -> None:
        if self.loses:
            self.loses -= 1
        else:
            self.say(ConversationItemAdded(item, before), ConversationItemDone(item, before))

    def _truncate(self, truncate: ConversationItemTruncate) -> None:
        item_id = truncate.item_id
        if item_id not in self.items:
            self._refuse("item_truncate_invalid_item_id", truncate.event_id)
        elif truncate.audio_end_ms * BYTES_PER_MS > self.voices.get(item_id, 0):
            self.complaints.append(f"{truncate} is beyond the end")
        else:
            self.say(ConversationItemTruncated(item_id, 0, truncate.audio_end_ms))

    def _refuse(self, code: str, event_id: str | None, param: str | None = None) -> None:
        kind = {"type": "invalid_request_error", "code": code, "param": param}
        self.say(Error({**kind, "message": f"{code}.", "event_id": event_id}))

    # Hearing -------------------------------------------------------------------------------------

    def begin_speech(self, place: int) -> None:
        """Speech is detected, `place` bytes before the end of what was heard."""
        if not self.detects or self.turn is not None or self.heard <= self.waiting_from:
            return
        start = max(self.waiting_from, self.heard - place) // BYTES_PER_MS
        self.turn = self._new_id("item")
        self.spoken[self.turn] = Spoken(start * BYTES_PER_MS, self.heard)
        self.say(InputAudioBufferSpeechStarted(self.turn, start))
        if self.active is not None:
            self.end_answer(self.active, "cancelled", reason="turn_detected")

    def end_speech(self, *, was_speech: bool = True) -> None:
        """It is over, and was speech or noise."""
        if self.turn is None:
            return
        item_id, self.turn = self.turn, None
        self.waiting_from = self.heard
        end = self.heard // BYTES_PER_MS
        self.spoken[item_id].end = end * BYTES_PER_MS
        self.say(InputAudioBufferSpeechStopped(item_id, end))
        if was_speech:
            self._commit(item_id)
            if self.active is None:
                self.begin_answer()

    def _commit_by_hand(self, event_id: str | None) -> None:
        if self.heard - self.waiting_from < SHORTEST_COMMIT:
            self._refuse("input_audio_buffer_commit_empty", event_id)
            return
        item_id = self.turn or self._new_id("item")
        self.spoken[item_id] = Spoken(self.waiting_from, self.heard)
        self.turn, self.waiting_from = None, self.heard
        self._commit(item_id)

    def _commit(self, item_id: str) -> None:
        before = self.items[-1] if self.items else None
        self.items.append(item_id)
        self.wordless.append(item_id)
        content = [{"type": "input_audio", "transcript": None}]
        item = {"id": item_id, "type": "message", "role": "user", "content": content}
        self.say(InputAudioBufferCommitted(item_id, before))
        self._acknowledge(item, before)

    def put_into_words(self, item_id: str, how: str) -> None:
        """The words of an utterance are known, in part or whole, or never will be."""
        if how == "delta":
            self.say(ConversationItemInputAudioTranscriptionDelta(item_id, delta="Words "))
            return
        self.wordless.remove(item_id)
        if how == "failed":
            self.say(ConversationItemInputAudioTranscriptionFailed(item_id))
        else:
            text = "" if how == "empty" else f"Words of {item_id}."
            self.say(ConversationItemInputAudioTranscriptionCompleted(item_id, transcript=text))

    def _forget_turn(self) -> None:
        if self.turn is not None:
            del self.spoken[self.turn]
            self.turn = None

    # Answering -----------------------------------------------------------------------------------

    def begin_answer(self, *, is_aside: bool = False) -> None:
        answer = Answer(self._new_id("resp"), is_aside)
        self.answers.append(answer)
        self.say(ResponseCreated(self._response(answer, "in_progress")))

    def go_on(self, answer: Answer, text: str, ms: int, *, is_written: bool = False) -> None:
        """Say more of an answer."""
        response_id = answer.response_id
        if not answer.item_id:
            item_id = answer.item_id = self._new_id("item")
            item = {"id": item_id, "type": "message", "role": "assistant", "content": []}
            self.say(ResponseOutputItemAdded(item, response_id))
            if not answer.is_aside:
                before = self.items[-1] if self.items else None
                self.items.append(item_id)
                self.say(ConversationItemAdded(item, before))
        item_id = answer.item_id
        text = ASIDE if answer.is_aside else text
        answer.text += text
        if answer.is_aside or is_written:
            self.say(ResponseOutputTextDelta(item_id, text, response_id))
            return
        if text:
            self.say(ResponseOutputAudioTranscriptDelta(item_id, text, response_id))
        if ms:
            self.voices[item_id] = self.voices.get(item_id, 0) + ms * BYTES_PER_MS
            self.say(ResponseOutputAudioDelta(item_id, silence(ms), response_id))

    def end_item(self, answer: Answer, status: str = "completed") -> None:
        """One item is whole; another may follow."""
        item_id, text, response_id = answer.item_id, answer.text, answer.response_id
        if not item_id:
            return
        is_spoken = item_id in self.voices
        if is_spoken:
            self.say(ResponseOutputAudioDone(item_id, response_id))
            self.say(ResponseOutputAudioTranscriptDone(item_id, text, response_id))
        else:
            self.say(ResponseOutputTextDone(item_id, text, response_id))
        part = {"type": "output_audio", "transcript": text}
        if not is_spoken:
            part = {"type": "output_text", "text": text}
        item = {"id": item_id, "type": "message", "role": "assistant", "content": [part]}
        item["status"] = status
        if not answer.is_aside:
            self.say(ConversationItemDone(item))
        self.say(ResponseOutputItemDone(item, response_id))
        answer.item_id, answer.text = "", ""

    def end_answer(self, answer: Answer, status: str, *, reason: str = "") -> None:
        self.end_item(answer, "completed" if status == "completed" else "incomplete")
        self.answers.remove(answer)
        details: Json = {"reason": reason}
        if status == "failed":
            details = {"error": {"type": "server_error", "code": "server_error"}}
        self.say(ResponseDone({**self._response(answer, status), "status_details": details}))

    def _response(self, answer: Answer, status: str) -> dict[str, object]:
        conversation = None if answer.is_aside else f"conv_{self.number}"
        about = {"job": "summary"} if answer.is_aside else None
        response = {"id": answer.response_id, "status": status}
        return {**response, "conversation_id": conversation, "metadata": about}

    def _new_id(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self.number}_{self._count}"
