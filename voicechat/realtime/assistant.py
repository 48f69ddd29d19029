"""The assistant's side: responses, their answers, and how much of them was heard."""

from collections.abc import Iterator

from voicechat.realtime.answers import Answer
from voicechat.realtime.effects import Effect, EndPlayback, Notice, Play, StopPlayback, Write
from voicechat.realtime.events import (
    ConversationItemTruncate,
    Event,
    Json,
    ResponseOutputAudioDelta,
    ResponseOutputAudioDone,
    ResponseOutputAudioTranscriptDelta,
    ResponseOutputAudioTranscriptDone,
    ResponseOutputItemAdded,
    ResponseOutputItemDone,
    ResponseOutputTextDelta,
    ResponseOutputTextDone,
)
from voicechat.realtime.line import Line
from voicechat.realtime.problems import TRUNCATE
from voicechat.realtime.timeline import Timeline
from voicechat.transcript import Said, Speaking, Status, Transcript


class Assistant:
    """The answers being made or heard."""

    def __init__(self, transcript: Transcript, timeline: Timeline) -> None:
        self.has_come = False
        """Something to hear or to read has come of it."""
        self.is_stopping = False
        """`StopPlayback` was asked for and is not yet answered."""
        self.wants_speech = True
        """What is written where it should be spoken is asked for again, and does not stand."""
        self.is_played = True
        """What is spoken is for the ear; else only its words are taken."""
        self.has_written = False
        """Something of this response was written."""
        self.written: list[str] = []
        """Items of this response that were written where they should be spoken."""
        self.calls: list[Json] = []
        """Tools that this response calls.  There are none: the server must have its own idea."""
        self._transcript = transcript
        self._timeline = timeline
        self._answers: dict[str, Answer] = {}
        """Being received or played, by item id, in order."""
        self._dropped: set[str] = set()
        """Responses that were interrupted: what still comes of them is not for the ear."""

    @property
    def has_answers(self) -> bool:
        """Something is being received or heard."""
        return bool(self._answers)

    @property
    def items(self) -> set[str]:
        """The answers of which it is not yet known how much is heard."""
        return set(self._answers)

    @property
    def words(self) -> dict[str, str]:
        """What has come of the answers that are not over, by item id."""
        return {item_id: answer.text for item_id, answer in self._answers.items()}

    def drop(self, response_id: str) -> None:
        """What comes of this response is not for the ear."""
        self._dropped.add(response_id)

    def is_dropped(self, response_id: str | None) -> bool:
        """This response was interrupted."""
        return response_id in self._dropped

    @property
    def is_heard(self) -> bool:
        """There are words or sound of an answer that is not over."""
        return any(answer.received_bytes or answer.text for answer in self._answers.values())

    # What comes ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """The server makes an answer."""
        self.has_come = self.has_written = False
        self.written.clear()
        self.calls.clear()

    def receive(self, event: Event, line: Line, now: float) -> Iterator[Effect]:
        """Take in an event about an answer."""
        match event:
            case ResponseOutputItemAdded(item, response_id):
                if item.get("type") == "message":
                    self._find(line, str(item.get("id")), response_id)
            case ResponseOutputAudioDelta(wire_id, pcm, response_id):
                answer = self._find(line, wire_id, response_id)
                self.has_come |= bool(pcm)
                if not self.is_played:
                    answer.has_unwanted_sound |= bool(pcm)
                elif pcm and not (answer.was_cut or answer.sound_is_whole):
                    answer.receive(pcm)
                    self._mark_beginning(now)
                    yield Play(answer.item_id, pcm)
            case ResponseOutputAudioDone(wire_id, response_id):
                yield from self._end_sound(self._find(line, wire_id, response_id))
            case ResponseOutputAudioTranscriptDelta(
                wire_id, text, response_id, _, index
            ) | ResponseOutputTextDelta(wire_id, text, response_id, _, index):
                answer = self._find(line, wire_id, response_id)
                is_text = isinstance(event, ResponseOutputTextDelta)
                if answer.kinds.setdefault(index, is_text) is is_text:  # else told both ways
                    if is_text and line.provider.can_write:
                        yield from self._take_as_written(answer)
                    yield from self._read_on(answer, index, text)
            case ResponseOutputAudioTranscriptDone(
                wire_id, text, response_id, _, index
            ) | ResponseOutputTextDone(wire_id, text, response_id, _, index):
                answer = self._find(line, wire_id, response_id)
                is_text = isinstance(event, ResponseOutputTextDone)
                answer.is_written |= is_text and line.provider.can_write
                self.has_come |= bool(text)
                if text and not (answer.was_cut or answer.text_is_whole):
                    answer.texts[index] = text
                    answer.final.add(index)
            case ResponseOutputItemDone(item) if item.get("type") == "function_call":
                if item.get("status") != "incomplete":
                    self.calls.append(item)
            case ResponseOutputItemDone(item):
                known = self._answers.get(line.local(str(item.get("id"))))
                if known is None:
                    yield from self._forget_unheard(item, line)
                else:
                    if not (known.text or known.was_cut) and (said := said_in(item)):
                        self.has_come = True
                        known.texts[0] = said
                    is_partial = item.get("status") == "incomplete"
                    if known.received_bytes or known.is_written or is_partial:
                        yield from self._complete(known, line, now, is_partial=is_partial)
                    # else its sound may still come: only the end of the response tells
            case _:
                pass

    def place(self, item_id: str, previous_item_id: str | None) -> None:
        """The server says which item the answer follows."""
        if item_id in self._answers and previous_item_id != item_id:
            self._answers[item_id].previous_item_id = previous_item_id

    def end_response(self, line: Line, now: float, *, is_partial: bool) -> Iterator[Effect]:
        """The response is done: so is everything that came of it, whether it was said or not."""
        for answer in list(self._answers.values()):
            yield from self._complete(answer, line, now, is_partial=is_partial)

    def give_up(self, line: Line | None, now: float) -> Iterator[Effect]:
        """Nothing more comes, and no word that it is over: what is whole is whole."""
        for answer in list(self._answers.values()):
            is_whole = answer.sound_is_whole or bool(answer.final and answer.is_written)
            yield from self._complete(answer, line, now, is_partial=not is_whole)

    def lose_line(self, now: float) -> Iterator[Effect]:
        """Nothing more comes by this line, and its response ids mean nothing on the next one."""
        yield from self.give_up(None, now)
        self._dropped.clear()

    def finish_hearing(self, item_id: str, heard_ms: int, now: float) -> Iterator[Effect]:
        """An item was heard to its end, perhaps while it was being interrupted."""
        answer = self._answers.get(item_id)
        if answer is not None:
            answer.heard_ms = min(heard_ms, answer.received_ms)
            yield from self._settle(answer, now)

    # Barge-in ------------------------------------------------------------------------------------

    def interrupt(self, response_id: str | None) -> Iterator[Effect]:
        """Stop what is being made or heard; `cut_off` follows when the speaker has answered."""
        if response_id is not None:
            self.drop(response_id)
        for answer in self._answers.values():
            answer.was_cut = True
        if not self.is_stopping:
            self.is_stopping = True
            yield StopPlayback()

    def cut_off(self, heard: dict[str, int], line: Line | None, now: float) -> Iterator[Effect]:
        """Make server and transcript forget what the listener did not hear.

        Args:
            heard: Milliseconds by item id, from the speaker.
            line: Where to tell the server; None when it need not know any more.
        """
        self.is_stopping = False
        for answer in [answer for answer in self._answers.values() if answer.was_cut]:
            # Realtime reference, conversation.item.truncate: "If the audio_end_ms is greater than
            # the actual audio duration, the server will respond with an error."
            # What the speaker has no more of was heard to its end just now.
            at_end = answer.received_ms if answer.sound_is_whole else answer.heard_ms or 0
            heard_ms = min(heard.get(answer.item_id, at_end), answer.received_ms)
            text, status = answer.heard(heard_ms)
            if status == "interrupted" and not answer.is_written:
                yield from _forget(line, answer, heard_ms)
            yield self._said(answer, text, status, heard_ms, now)

    # One answer ----------------------------------------------------------------------------------

    def _find(self, line: Line, wire_id: str, response_id: str) -> Answer:
        """The answer that an event is about; of a dropped response, one that no one hears."""
        item_id = line.local(wire_id)
        if item_id in self._answers:
            return self._answers[item_id]
        last = next(reversed(self._answers), self._transcript.last_item_id)
        answer = Answer(item_id, wire_id, previous_item_id=last, is_written=not self.is_played)
        if response_id in self._dropped or self._transcript.get(item_id) is not None:
            answer.was_cut = True  # late deltas: it is not kept, so they come to nothing
        else:
            self._answers[item_id] = answer
        return answer

    def _mark_beginning(self, now: float) -> None:
        """The first of the answers that has sound is the one that is heard."""
        first = next((a for a in self._answers.values() if a.received_bytes), None)
        if first is not None and first.start_ms is None:
            first.start_ms = self._timeline.ms(now)

    def _take_as_written(self, answer: Answer) -> Iterator[Effect]:
        """Its words are for the eye."""
        if self.wants_speech and not (self.has_written or answer.was_cut):
            yield Notice("The answer comes in writing.")
        answer.is_written = self.has_written = True

    def _read_on(self, answer: Answer, index: int, text: str) -> Iterator[Effect]:
        """More words; whole sentences go to disk at once."""
        self.has_come |= bool(text)
        if not answer.was_cut:
            answer.read(index, text)
            if sentences := answer.unsaved_sentences():
                yield self._speaking(answer, sentences)

    def _end_sound(self, answer: Answer) -> Iterator[Effect]:
        if answer.received_bytes and not answer.sound_is_whole and not answer.was_cut:
            answer.sound_is_whole = True
            yield EndPlayback(answer.item_id)

    def _complete(
        self, answer: Answer, line: Line | None, now: float, *, is_partial: bool
    ) -> Iterator[Effect]:
        """All that comes of the answer is here; it is final when it was heard, too."""
        if answer.text_is_whole or answer.was_cut:
            return
        answer.text_is_whole, answer.is_partial = True, is_partial
        if answer.received_bytes:
            yield from self._end_sound(answer)
        else:
            answer.heard_ms = 0
            if is_partial and not answer.is_written:  # words without sound: nobody heard them
                yield from _forget(line, answer, 0)
            elif answer.text.strip():  # a server that has no voice, or has lost it
                yield from self._take_as_written(answer)
        if not is_partial and (rest := answer.unsaved_rest()):
            yield self._speaking(answer, rest)
        yield from self._settle(answer, now)

    def _settle(self, answer: Answer, now: float) -> Iterator[Effect]:
        if answer.heard_ms is not None and answer.text_is_whole and not answer.was_cut:
            text, status = answer.heard(answer.heard_ms)
            is_written = answer.is_written and not answer.received_bytes
            if is_written and status == "complete" and self.wants_speech:
                status = "written"
                self.written.append(answer.item_id)
            yield self._said(answer, text, status, answer.heard_ms, now)

    def _forget_unheard(self, item: Json, line: Line) -> Iterator[Effect]:
        """An item of an interrupted response was never heard of: the server need not keep it."""
        wire_id = str(item.get("id"))
        is_new = self._transcript.get(line.local(wire_id)) is None
        if is_new and item.get("type") == "message":
            yield from line.delete(line.local(wire_id))

    def _said(self, answer: Answer, text: str, status: Status, heard_ms: int, now: float) -> Write:
        """An answer is final; the one behind it begins to be heard."""
        del self._answers[answer.item_id]
        start = answer.start_ms if answer.start_ms is not None else self._timeline.ms(now)
        if not answer.was_cut:
            self._timeline.catch_up(start + heard_ms, now)
        self._mark_beginning(now)
        return Write(
            Said(
                item_id=answer.item_id,
                role="assistant",
                text=text.strip(),
                status=status,
                previous_item_id=answer.previous_item_id,
                start_ms=start,
                end_ms=start + heard_ms,
            )
        )

    def _speaking(self, answer: Answer, words: str) -> Write:
        return Write(
            Speaking(
                item_id=answer.item_id,
                role="assistant",
                text=words,
                previous_item_id=answer.previous_item_id,
                start_ms=answer.start_ms or self._transcript.end_ms,
            )
        )


def _forget(line: Line | None, answer: Answer, heard_ms: int) -> Iterator[Effect]:
    """What makes the server forget the rest; truncating to nothing is refused (livekit #6157)."""
    if line is None or not line.has(answer.item_id):
        return  # it is gone with the line that it came by
    if heard_ms == 0:
        yield from line.delete(answer.item_id)
    elif line.provider.can_truncate:
        truncate = ConversationItemTruncate(answer.wire_id, 0, heard_ms, event_id=TRUNCATE)
        yield line.send(truncate)


def said_in(item: Json) -> str:
    """The words of an answer as its item has them: some servers send no others."""
    content = item.get("content")
    parts = [p for p in content if isinstance(p, dict)] if isinstance(content, list) else []
    return "".join(str(p.get("transcript") or p.get("text") or "") for p in parts)
