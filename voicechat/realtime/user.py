"""The user's side: utterances, and how they come to be words."""

from collections.abc import Iterator
from itertools import islice

from voicechat.pcm import duration_ms
from voicechat.realtime.effects import Effect, Write
from voicechat.realtime.recording import Recording
from voicechat.realtime.timeline import Timeline
from voicechat.transcript import Said, Speaking, Transcript

TRANSCRIPT_TIMEOUT = 10.0  # a transcript may come late, or never (reference, section 3.5.6)
WORDS = "words of "
"""Before the item id, in the name of a deadline."""
SPEECH_TIMEOUT = 10.0  # of silence in speech whose end is not announced
COMMIT_TIMEOUT = 3.0  # speech that stopped may turn out to be none (reference, section 3.5.2)


class User:
    """What the user says: first an utterance, then an item, at last its words.

    `deadlines` is shared with the conversation; an item that waits for its words has one.
    """

    def __init__(
        self,
        transcript: Transcript,
        timeline: Timeline,
        recording: Recording,
        deadlines: dict[str, float],
    ) -> None:
        self.is_speaking = False
        """In the middle of an utterance."""
        self._transcript = transcript
        self._timeline = timeline
        self._recording = recording
        self._deadlines = deadlines
        self._times: dict[str, tuple[int, int]] = {}
        """(start, end) of utterances on the timeline, by item id."""
        self._words: dict[str, str] = {}
        """Words that have arrived of a transcript that is not complete."""

    @property
    def waits_for_words(self) -> bool:
        """Something was said that is not yet put into words."""
        return "commit" in self._deadlines or bool(self.items)

    @property
    def items(self) -> set[str]:
        """The turns whose words are awaited."""
        return {name.removeprefix(WORDS) for name in self._deadlines if name.startswith(WORDS)}

    @property
    def words(self) -> dict[str, str]:
        """What has come of transcripts that are not complete, by item id."""
        return self._words

    @staticmethod
    def item_of(deadline: str) -> str | None:
        """The item whose words a deadline is about, if it is such a one."""
        return deadline.removeprefix(WORDS) if deadline.startswith(WORDS) else None

    @property
    def has_words(self) -> bool:
        """What was said last is in words, so that it can be answered."""
        turns = (turn for turn in reversed(self._transcript.turns) if turn.role == "user")
        return any(turn.text for turn in islice(turns, 1))

    def begin(self, item_id: str, ago_ms: int, now: float) -> None:
        """Speech was heard to begin."""
        self.is_speaking = True
        self._forget_words()
        self._deadlines["speech"] = now + SPEECH_TIMEOUT
        self._times[item_id] = (max(0, self._timeline.ms(now) - ago_ms), 0)

    def stop(self, item_id: str, ago_ms: int, now: float) -> None:
        """Speech was heard to end; unless it was none, a commit follows."""
        self.is_speaking = False
        self._deadlines["commit"] = now + COMMIT_TIMEOUT
        end = max(0, self._timeline.ms(now) - ago_ms)
        start, _ = self._times.get(item_id, (end, 0))
        self._times[item_id] = (start, max(start, end))

    def look_again(self, now: float) -> None:
        """Nobody said that the speech ended: it did, if all is quiet."""
        if self.is_speaking and self._recording.quiet_ms < SPEECH_TIMEOUT * 1000:
            self._deadlines["speech"] = now + SPEECH_TIMEOUT
        elif self.is_speaking:
            self.is_speaking = False
            self._recording.dismiss()

    def commit(
        self, item_id: str, previous_item_id: str | None, now: float, *, is_speech: bool = True
    ) -> Iterator[Effect]:
        """What was said is an item; its words may come much later."""
        self.is_speaking = False
        self._deadlines.pop("commit", None)
        start, end = self._times.get(item_id, (self._timeline.ms(now), 0))
        self._times[item_id] = (start, end or self._timeline.ms(now))
        self.wait_for_words(item_id, now)
        if is_speech:
            self._recording.commit(item_id)
        yield self._speaking(item_id, "", previous_item_id, start)

    def wait_for_words(self, item_id: str, now: float) -> None:
        """The server has the turn, and will say what was said in it."""
        self._words.pop(item_id, None)
        self._deadlines[WORDS + item_id] = now + TRANSCRIPT_TIMEOUT

    def keep(self, item_id: str, pcm: bytes, now: float) -> Iterator[Effect]:
        """A turn that no server has: it is there all the same, to be said on the next line."""
        end = self._timeline.ms(now)
        start = max(0, end - duration_ms(pcm))
        self._times[item_id] = (start, end)
        self._recording.keep(item_id, pcm)
        yield self._speaking(item_id, "", self._transcript.last_item_id, start)

    def lose_line(self) -> Iterator[Effect]:
        """No more words come: what was typed is final, and what was said is said again, if it is
        still there."""
        self.is_speaking = False
        self._deadlines.pop("commit", None)
        self._forget_words()
        for item_id in self.items:
            self._deadlines.pop(WORDS + item_id)
            if item_id not in self._recording.kept:
                yield from self.settle(item_id)

    def type(self, item_id: str, text: str, at: float, now: float) -> Iterator[Effect]:
        """A turn that was typed then: on disk at once, final when the server has it."""
        start = self._timeline.ms(at)
        self._times[item_id] = (start, start)
        self._deadlines[WORDS + item_id] = now + TRANSCRIPT_TIMEOUT
        yield self._speaking(item_id, text, self._transcript.last_item_id, start)

    def place(self, item_id: str, previous_item_id: str | None) -> Iterator[Effect]:
        """The server says what a turn that is already known follows."""
        turn = self._transcript.get(item_id)
        is_news = previous_item_id is not None and previous_item_id != item_id
        if turn is not None and is_news and turn.previous_item_id != previous_item_id:
            yield self._speaking(item_id, "", previous_item_id, turn.start_ms)

    def typed(self, text: str) -> str | None:
        """The item of a typed turn with these words that is not yet confirmed."""
        waiting = (self._transcript.get(item_id) for item_id in self._times)
        same = (t for t in waiting if t and not t.is_settled and t.text.strip() == text.strip())
        return next((turn.item_id for turn in same), None)

    def hear_words(self, item_id: str, words: str) -> None:
        """Part of a transcript."""
        self._words[item_id] = self._words.get(item_id, "") + words

    def hear_all_words(self, item_id: str, words: str) -> None:
        """A transcript as far as it is known, perhaps before what is said is an item."""
        turn = self._transcript.get(item_id)
        if self.is_speaking or (turn is not None and not turn.is_settled):
            self._words[item_id] = words

    def settle(self, item_id: str, text: str = "") -> Iterator[Effect]:
        """A turn is final; without any words, they will never be known."""
        self._deadlines.pop(WORDS + item_id, None)
        words = self._words.pop(item_id, "")
        turn = self._transcript.get(item_id)
        if turn is None or (turn.is_settled and not text):
            return
        start, end = self._times.pop(item_id, (turn.start_ms, turn.end_ms))
        text = (text or words or turn.text).strip()
        yield Write(
            Said(
                item_id=item_id,
                role="user",
                text=text,
                status="complete" if text else "untranscribed",
                previous_item_id=turn.previous_item_id,
                start_ms=start,
                end_ms=max(start, end),
            )
        )

    def _forget_words(self) -> None:
        """Of utterances that never became items."""
        self._words = {
            item_id: words
            for item_id, words in self._words.items()
            if self._transcript.get(item_id) is not None
        }

    def _speaking(
        self, item_id: str, text: str, previous_item_id: str | None, start_ms: int
    ) -> Write:
        return Write(
            Speaking(
                item_id=item_id,
                role="user",
                text=text,
                previous_item_id=previous_item_id,
                start_ms=start_ms,
            )
        )
