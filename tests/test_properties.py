"""Whatever happens, in whatever order: some things always hold."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.honest_server import ASIDE, HonestServer
from voicechat.errors import BusyError, ConnectError
from voicechat.pcm import BYTES_PER_MS, FRAME_BYTES
from voicechat.realtime import effects, inputs
from voicechat.realtime import events as wire
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.conversation import Conversation, Link
from voicechat.realtime.policy import Policy
from voicechat.realtime.recording import RUN_UP_MS
from voicechat.transcript import Record, Said, Transcript

LOUD, QUIET = 9000, 100
ANSWER_TIMEOUT = 30.0
GONE = ConnectError("the line is gone", remedy="Try again.")
FULL = BusyError("the server is full", remedy="Try again.")


def frame(number: int, level: int) -> bytes:
    """20 ms that no other 20 ms are like."""
    digits = bytes((level & 255, level >> 8)) * (FRAME_BYTES // 2 - 4)
    return b"".join(bytes((number // 100**n % 100 + 1, 0)) for n in range(4)) + digits


def number_of(pcm: bytes) -> int | None:
    """Which frame this is; None for silence, which is as good as none."""
    if not any(pcm):
        return None
    return sum((pcm[2 * n] - 1) * int(100**n) for n in range(4))


def frames_in(pcm: bytes) -> Iterator[tuple[int, bytes]]:
    """Offset and frame."""
    for start in range(0, len(pcm), FRAME_BYTES):
        yield start, pcm[start : start + FRAME_BYTES]


@dataclass(slots=True)
class Utterance:
    """As far as the client was told of it: in bytes of what was sent on the connection."""

    start: int
    end: int | None = None
    is_settled: bool = False
    """Its words are there, or it was said that they will never be."""


@dataclass(slots=True)
class Line:
    """What went over one connection, as the client saw it."""

    server: HonestServer
    is_created: bool = False
    updates_due: int = 0
    is_deaf: bool = False
    """In a burst that says lost utterances again."""
    uncommitted: int = 0
    """Bytes of such a burst that no commit has followed yet."""
    sent: int = 0
    places: dict[int, int] = field(default_factory=dict)
    """Where each frame was sent."""
    utterances: dict[str, Utterance] = field(default_factory=dict)
    received: dict[str, int] = field(default_factory=dict)
    """Bytes of sound of each answer."""
    is_asked: bool = False
    active: str | None = None
    asked_at: float = 0.0
    """When something was last heard of the response, or it was asked for."""

    def stop_waiting(self, now: float) -> None:
        """Nobody waits for a response for ever."""
        if now - self.asked_at >= ANSWER_TIMEOUT:
            self.is_asked, self.active = False, None


class World(RuleBasedStateMachine):
    """A conversation, its servers, its user, its speaker and its clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.lines: dict[int, Line] = {}
        """Those that are alive."""
        self.gone: list[Line] = []
        self.dialling: list[int] = []
        self.records: list[Record] = []
        self.loud: set[int] = set()
        self.frames = 0
        self.queue: dict[str, int] = {}
        """What the speaker has: bytes to be heard, by item."""
        self.played: dict[str, int] = {}
        self.ended: set[str] = set()
        self.reports: list[inputs.PlaybackStopped] = []
        self.is_over = False
        self.has_failed = False
        """In the middle of something: what is wrong after that is only a consequence."""
        self.is_honest = True
        self.lifetime: int | None = None
        self.count = 0

    @initialize(
        vad=st.sampled_from(["server", "server", "none"]),
        reconnect_for=st.sampled_from([120.0] * 6 + [10.0, 0.0]),
        rotate_after=st.sampled_from([None, 8.0, 30.0]),
        replay_tokens=st.sampled_from([None, None, 60]),
        lifetime=st.sampled_from([None, 20, 60]),
        earlier=st.integers(0, 5),
        is_calm=st.sampled_from([True] * 5 + [False]),
        chance=st.sampled_from([0.0, 1.0]),
    )
    def begin(
        self,
        vad: Any,
        reconnect_for: float,
        rotate_after: float | None,
        replay_tokens: int | None,
        lifetime: int | None,
        earlier: int,
        is_calm: bool,
        chance: float,
    ) -> None:
        self.vad, self.lifetime = vad, lifetime
        policy = Policy(reconnect_for, rotate_after, replay_tokens)
        self.records += [
            Said(
                item_id=f"old_{number}",
                role="assistant" if number % 2 else "user",
                text=f"Sentence {number}, which is rather long. " * (1 + number % 3),
            )
            for number in range(earlier)
        ]
        transcript = Transcript.of(self.records)
        configuration = Configuration(vad=vad)
        self.conversation = Conversation(transcript, configuration, policy, chance=lambda: chance)
        self.perform(self.conversation.start())
        if is_calm:
            self.calm_down(2.0)

    # What the client wants ------------------------------------------------------------------------

    def happen(self, happened: inputs.Input) -> None:
        self.has_failed = True
        wanted = self.conversation.handle(happened, self.now)
        assert not (self.is_over and wanted), f"after the end: {wanted}"
        self.perform(wanted)
        self.has_failed = False

    def perform(self, wanted: list[effects.Effect]) -> None:
        for effect in wanted:
            assert not self.is_over, f"after the end: {effect}"
            match effect:
                case effects.Connect(number):
                    assert number == len(self.lines) + len(self.gone) + 1
                    self.lines[number] = Line(HonestServer(number))
                    assert len(self.lines) <= 2
                    self.dialling.append(number)
                case effects.Close(number):
                    self.lose(number)
                case effects.Send(number, event):
                    assert number in self.lines, f"{event.type} to a connection that is gone"
                    line = self.lines[number]
                    assert line.is_created, f"{event.type} before the server spoke"
                    self.check_sent(line, event)
                    line.server.inbox.append(event)
                case effects.Play(item_id, pcm):
                    self.queue[item_id] = self.queue.get(item_id, 0) + len(pcm)
                case effects.EndPlayback(item_id):
                    self.queue.setdefault(item_id, 0)
                    self.ended.add(item_id)
                case effects.StopPlayback():
                    self.stop_speaker()
                case effects.Write(record):
                    self.records.append(record)
                case effects.Notice():
                    pass
                case effects.Finish():
                    self.is_over = True
        for line in self.lines.values():
            assert not line.uncommitted, "what was said again was not committed"

    def lose(self, number: int) -> None:
        assert number in self.lines, "a connection that is gone already"
        self.gone.append(self.lines.pop(number))
        if number in self.dialling:
            self.dialling.remove(number)

    def check_sent(self, line: Line, event: wire.Event) -> None:
        match event:
            case wire.SessionUpdate(session):
                line.updates_due += 1
                detects = session["audio"]["input"]["turn_detection"] is not None
                assert not line.uncommitted
                line.is_deaf = not detects
            case wire.InputAudioBufferAppend(pcm):
                if line.updates_due:
                    assert line.is_deaf, "the microphone is open before the settings are taken"
                    line.uncommitted += len(pcm)
                else:
                    assert self.vad == "none" or not line.is_deaf
                self.check_frames(line, pcm)
            case wire.InputAudioBufferCommit():
                line.uncommitted = 0
            case wire.ConversationItemTruncate(item_id, _, end_ms):
                assert 0 < end_ms * BYTES_PER_MS <= line.received[item_id]
            case wire.ResponseCreate(response):
                if response is None or response.get("conversation") != "none":
                    line.stop_waiting(self.now)
                    assert not line.active, "two responses at once"
                    assert not line.is_asked, "two responses asked for"
                    line.is_asked, line.asked_at = True, self.now
            case _:
                pass

    def check_frames(self, line: Line, pcm: bytes) -> None:
        for start, each in frames_in(pcm):
            number = number_of(each)
            place = line.sent + start
            if number is None:
                continue
            assert number not in line.places, f"frame {number} twice on one connection"
            line.places[number] = place
            earlier = [gone for gone in self.gone if number in gone.places]
            for gone in earlier:
                assert not is_settled(gone, gone.places[number]), f"frame {number} was understood"
            if earlier and self.vad != "none":
                assert any(self.was_lost(gone, number) for gone in earlier), f"{number} was none"
        line.sent += len(pcm)

    def was_lost(self, gone: Line, number: int) -> bool:
        """It was part of something that was being said when a line was lost."""
        place = gone.places[number]
        is_announced = any(
            each.start < place + FRAME_BYTES and (each.end is None or place < each.end)
            for each in gone.utterances.values()
        )
        run_up = place + FRAME_BYTES + RUN_UP_MS * BYTES_PER_MS
        return is_announced or any(n in self.loud and at <= run_up for n, at in gone.places.items())

    # What the client hears ------------------------------------------------------------------------

    def hear(self, line: Line) -> None:
        """The client hears the next thing that a server said."""
        event = line.server.outbox.popleft()
        self.note(line, event)
        self.happen(inputs.Received(line.server.number, event))

    def note(self, line: Line, event: wire.Event) -> None:
        line.stop_waiting(self.now)
        match event:
            case wire.SessionCreated():
                line.is_created = True
            case wire.SessionUpdated():
                line.updates_due = max(0, line.updates_due - 1)
            case wire.InputAudioBufferSpeechStarted(item_id, start_ms):
                line.utterances[item_id] = Utterance(start_ms * BYTES_PER_MS)
            case wire.InputAudioBufferSpeechStopped(item_id, end_ms):
                if item_id in line.utterances:
                    line.utterances[item_id].end = end_ms * BYTES_PER_MS
            case wire.InputAudioBufferCommitted(item_id):
                if item_id not in line.utterances and item_id in line.server.spoken:
                    spoken = line.server.spoken[item_id]
                    line.utterances[item_id] = Utterance(spoken.start, spoken.end)
            case wire.ConversationItemInputAudioTranscriptionCompleted(
                item_id
            ) | wire.ConversationItemInputAudioTranscriptionFailed(item_id):
                if item_id in line.utterances:
                    line.utterances[item_id].is_settled = True
            case wire.ResponseOutputAudioDelta(item_id, pcm):
                line.received[item_id] = line.received.get(item_id, 0) + len(pcm)
                line.asked_at = self.now if line.active else line.asked_at
            case wire.ResponseCreated(response) if response["conversation_id"] is not None:
                line.is_asked, line.active = False, str(response["id"])
                line.asked_at = self.now
            case wire.ResponseDone(response) if response["conversation_id"] is not None:
                line.is_asked, line.active = False, None
            case wire.Error():
                line.is_asked = False
            case _:
                line.asked_at = self.now if line.active else line.asked_at

    def pick(self, which: int) -> Line | None:
        """One of the connections that a server has opened."""
        lines = [line for n, line in self.lines.items() if n not in self.dialling]
        return lines[which % len(lines)] if lines else None

    which = st.integers(0, 1)

    @rule(which=which, count=st.integers(1, 5))
    def server_reads(self, which: int, count: int) -> None:
        if line := self.pick(which):
            for _ in range(min(count, len(line.server.inbox))):
                line.server.read()

    @rule(which=which, count=st.integers(1, 5))
    def client_hears(self, which: int, count: int) -> None:
        if line := self.pick(which):
            for _ in range(count):
                if line.server.outbox and line.server.number in self.lines:
                    self.hear(line)

    @rule()
    def all_that_was_said_arrives(self) -> None:
        for _ in range(50):
            for line in list(self.lines.values()):
                while line.server.inbox:
                    line.server.read()
                while line.server.outbox and line.server.number in self.lines:
                    self.hear(line)

    @rule(is_there=st.sampled_from([True] * 5 + [False]), is_full=st.booleans())
    def a_connection_is_opened(self, is_there: bool, is_full: bool) -> None:
        if not self.dialling:
            return
        number = self.dialling[0]
        if not is_there:
            self.disconnect(number, FULL if is_full else GONE)
            return
        self.dialling.pop(0)
        self.happen(inputs.Connected(number, 1000.0))
        if number in self.lines:
            expires_at = 1000 + self.lifetime if self.lifetime else None
            self.lines[number].server.start(expires_at)

    @rule(which=which, is_full=st.booleans())
    def a_connection_is_lost(self, which: int, is_full: bool) -> None:
        if line := self.pick(which):
            self.disconnect(line.server.number, FULL if is_full else GONE)

    def disconnect(self, number: int, error: ConnectError) -> None:
        self.lose(number)
        self.happen(inputs.Disconnected(number, error))

    @rule(which=which, seconds=st.sampled_from([5.0, 9.0, 25.0]))
    def a_server_is_silent(self, which: int, seconds: float) -> None:
        if line := self.pick(which):
            self.happen(inputs.Silent(line.server.number, seconds))

    # Whole stories --------------------------------------------------------------------------------

    @rule(which=which, count=st.integers(5, 40), place=st.integers(0, 60))
    def something_is_said_and_answered(self, which: int, count: int, place: int) -> None:
        self.speak(which, count, place, 7)

    @rule(which=which, count=st.integers(5, 40), place=st.integers(0, 60), stages=st.integers(1, 3))
    def the_user_begins_to_speak(self, which: int, count: int, place: int, stages: int) -> None:
        self.speak(which, count, place, stages)

    @rule(
        which=which,
        count=st.integers(5, 40),
        place=st.integers(0, 60),
        stages=st.integers(4, 6),
        how=st.sampled_from(["completed", "failed", "empty"]),
    )
    def something_is_said(self, which: int, count: int, place: int, stages: int, how: str) -> None:
        self.speak(which, count, place, stages, how)

    def speak(
        self, which: int, count: int, place: int, stages: int, how: str = "completed"
    ) -> None:
        """A turn, as far as it gets."""
        steps: list[Callable[[], object]] = [
            lambda: self.the_microphone_hears(count, LOUD),
            lambda: self.speech_is_heard_to_begin(which, place * FRAME_BYTES),
            lambda: self.the_microphone_hears(count, LOUD),
            lambda: self.speech_is_heard_to_end(which, True),
            lambda: self.an_answer_goes_on(which, 0, "Well, well. ", 400, False),
            lambda: self.words_come(which, 0, how),
            lambda: self.an_answer_ends(which, 0, "completed"),
        ]
        if self.vad == "none":
            steps[1] = self.the_talk_key_is_pressed
            steps[3] = self.the_talk_key_is_pressed
        for step in steps[:stages]:
            step()
            self.all_that_was_said_arrives()

    @rule(
        which=which,
        ms=st.sampled_from([10, 200, 1500]),
        how=st.sampled_from(["typed", "spoken"]),
        is_reported=st.booleans(),
    )
    def an_answer_is_interrupted(self, which: int, ms: int, how: str, is_reported: bool) -> None:
        self.something_is_typed()
        self.all_that_was_said_arrives()
        self.an_answer_goes_on(which, 0, "Well, well. ", 400, False)
        self.all_that_was_said_arrives()
        self.the_speaker_plays(ms)
        if how == "typed":
            self.something_is_typed()
        else:
            self.speak(which, 10, 8, 2)
        if is_reported:
            self.the_speaker_says_what_was_heard()

    @rule(which=which, ms=st.sampled_from([10, 1500]))
    def an_answer_is_heard_and_interrupted(self, which: int, ms: int) -> None:
        self.an_answer_is_interrupted(which, ms, "typed", True)

    @rule(which=which, stages=st.integers(1, 3), count=st.integers(0, 60))
    def the_line_is_lost_and_another_comes(self, which: int, stages: int, count: int) -> None:
        """As far as it gets."""
        steps: list[Callable[[], object]] = [
            lambda: self.a_connection_is_lost(which, False),
            lambda: self.the_microphone_hears(count, LOUD),
            lambda: self.time_passes(0.6),
            lambda: self.a_connection_is_opened(True, False),
            self.all_that_was_said_arrives,
        ]
        for step in steps[: stages + 2]:
            step()

    # Servers --------------------------------------------------------------------------------------

    @rule(which=which, place=st.integers(0, 30 * FRAME_BYTES))
    def speech_is_heard_to_begin(self, which: int, place: int) -> None:
        if line := self.pick(which):
            line.server.begin_speech(place)

    @rule(which=which, was_speech=st.sampled_from([True, True, True, False]))
    def speech_is_heard_to_end(self, which: int, was_speech: bool) -> None:
        if line := self.pick(which):
            line.server.end_speech(was_speech=was_speech)

    @rule(
        which=which,
        n=st.integers(0, 3),
        how=st.sampled_from(["completed", "completed", "delta", "failed", "empty"]),
    )
    def words_come(self, which: int, n: int, how: str) -> None:
        if (line := self.pick(which)) and line.server.wordless:
            waiting = line.server.wordless
            line.server.put_into_words(waiting[n % len(waiting)], how)

    @rule(
        which=which,
        n=which,
        text=st.sampled_from(["", "Well. ", "Let me see, ", "that is so. And "]),
        ms=st.sampled_from([0, 20, 333, 1000]),
        is_written=st.sampled_from([False] * 7 + [True]),
    )
    def an_answer_goes_on(self, which: int, n: int, text: str, ms: int, is_written: bool) -> None:
        if (line := self.pick(which)) and (answers := line.server.answers):
            line.server.go_on(answers[n % len(answers)], text, ms, is_written=is_written)

    @rule(
        which=which,
        n=which,
        how=st.sampled_from(["completed", "completed", "item", "failed", "incomplete"]),
    )
    def an_answer_ends(self, which: int, n: int, how: str) -> None:
        if (line := self.pick(which)) and (answers := line.server.answers):
            answer = answers[n % len(answers)]
            if how == "item":
                line.server.end_item(answer)
            else:
                line.server.end_answer(answer, how)

    @rule(which=which, refuses=st.integers(0, 2), loses=st.integers(0, 3))
    def a_server_becomes_unreliable(self, which: int, refuses: int, loses: int) -> None:
        if line := self.pick(which):
            line.server.refuses, line.server.loses = refuses, loses

    @rule(which=which)
    def a_session_expires(self, which: int) -> None:
        if line := self.pick(which):
            error = {"type": "invalid_request_error", "code": "session_expired"}
            line.server.say(wire.Error(error))

    @rule(which=which, kind=st.integers(0, 3))
    def a_server_says_something_odd(self, which: int, kind: int) -> None:
        if (line := self.pick(which)) and line.is_created:
            odd: list[wire.Event] = [
                wire.UnknownEvent({"type": "x.y"}),
                wire.RateLimitsUpdated([{"name": "tokens", "reset_seconds": 3.0}, 5]),
                wire.Error({"type": "server_error", "message": "Oh."}),
                wire.ResponseOutputItemAdded({"id": "f", "type": "function_call"}, "r"),
            ]
            line.server.say(odd[kind])

    @rule(which=which, back=st.integers(1, 6))
    def an_event_comes_twice(self, which: int, back: int) -> None:
        if (line := self.pick(which)) and len(line.server.outbox) >= back:
            self.is_honest = False
            line.server.outbox.append(line.server.outbox[-back])

    @precondition(lambda self: self.gone)
    @rule(n=st.integers(0, 5), is_lost=st.booleans())
    def a_late_word_comes_of_a_connection_that_is_gone(self, n: int, is_lost: bool) -> None:
        server = self.gone[n % len(self.gone)].server
        if is_lost:
            self.happen(inputs.Disconnected(server.number, GONE))
        elif server.outbox:
            self.happen(inputs.Received(server.number, server.outbox.popleft()))

    # The user -------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 60), level=st.sampled_from([LOUD, QUIET]))
    def the_microphone_hears(self, count: int, level: int) -> None:
        for _ in range(count):
            self.frames += 1
            if level == LOUD:
                self.loud.add(self.frames)
            self.now += 0.02
            self.happen(inputs.MicCaptured(frame(self.frames, level)))

    @rule()
    def the_talk_key_is_pressed(self) -> None:
        self.happen(inputs.TalkKeyPressed())

    @rule()
    def the_talk_key_is_let_go(self) -> None:
        self.happen(inputs.TalkKeyReleased())

    @rule()
    def the_user_interrupts(self) -> None:
        self.happen(inputs.Interrupted())

    @rule()
    def the_user_wants_to_hear_it_again(self) -> None:
        self.happen(inputs.RepeatRequested())

    @rule()
    def the_microphone_is_muted_or_not(self) -> None:
        self.happen(inputs.MuteToggled())

    @rule()
    def something_is_typed(self) -> None:
        self.count += 1
        self.happen(inputs.TextTyped(f"Typed {self.count}."))

    @rule()
    def the_user_does_not_wait_for_a_summary(self) -> None:
        self.happen(inputs.WaitSkipped())

    @precondition(lambda self: self.frames > 400 and len(self.gone) > 1)
    @rule()
    def the_user_hangs_up(self) -> None:
        self.happen(inputs.QuitRequested())

    # The speaker ----------------------------------------------------------------------------------

    @rule(ms=st.sampled_from([10, 200, 1500]))
    def the_speaker_plays(self, ms: int) -> None:
        left = ms * BYTES_PER_MS
        for item_id in list(self.queue):
            heard = min(left, self.queue[item_id])
            left -= heard
            self.queue[item_id] -= heard
            self.played[item_id] = self.played.get(item_id, 0) + heard
            if self.queue[item_id]:
                break
            if item_id in self.ended:
                del self.queue[item_id]
                self.ended.remove(item_id)
                heard_ms = self.played.pop(item_id) // BYTES_PER_MS
                self.happen(inputs.PlaybackFinished(item_id, heard_ms))

    def stop_speaker(self) -> None:
        heard = tuple((each, self.played.get(each, 0) // BYTES_PER_MS) for each in self.queue)
        self.reports.append(inputs.PlaybackStopped(heard))
        self.queue.clear()
        self.played.clear()
        self.ended.clear()

    @rule()
    def the_speaker_says_what_was_heard(self) -> None:
        while self.reports:
            self.happen(self.reports.pop(0))

    # The clock ------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 0.3, 0.6, 1.0, 3.0, 5.0, 12.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        while (deadline := self.conversation.deadline) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            for _ in range(20):
                self.happen(inputs.DeadlineReached())
                if (deadline := self.conversation.deadline) is None or deadline > self.now:
                    break
            else:
                raise AssertionError("the clock is looked at for ever")
        self.now = until

    # What always holds ----------------------------------------------------------------------------

    @invariant()
    def what_was_written_is_what_is_known(self) -> None:
        if hasattr(self, "conversation"):
            assert Transcript.of(self.records) == self.conversation.transcript

    @invariant()
    def what_was_said_aside_is_no_turn(self) -> None:
        if hasattr(self, "conversation"):
            turns = self.conversation.transcript.turns
            assert not any(ASIDE.strip() in turn.text for turn in turns)

    @invariant()
    def no_server_has_reason_to_complain(self) -> None:
        for line in [*self.lines.values(), *self.gone]:
            assert not (self.is_honest and line.server.complaints), line.server.complaints

    @invariant()
    def the_end_is_the_end(self) -> None:
        if self.is_over:
            assert self.conversation.link is Link.CLOSED
            assert self.conversation.deadline is None
            assert all(turn.is_settled for turn in self.conversation.transcript.turns)

    @property
    def is_at_rest(self) -> bool:
        """Nothing is on its way."""
        return self.conversation.is_idle and not any(
            line.server.inbox or line.server.outbox or line.server.turn or line.server.wordless
            for line in self.lines.values()
        )

    # All is well that ends well -------------------------------------------------------------------

    def calm_down(self, seconds: float) -> None:
        """For a while, everybody does what they should."""
        until = self.now + seconds
        while self.now < until and not self.is_over and not self.is_at_rest:
            self.a_connection_is_opened(True, False)
            self.all_that_was_said_arrives()
            for line in self.lines.values():
                server = line.server
                server.refuses = server.loses = 0
                server.end_speech()
                for item_id in list(server.wordless):
                    server.put_into_words(item_id, "completed")
                for answer in list(server.answers):
                    server.go_on(answer, "Well. ", 20)
                    server.end_answer(answer, "completed")
            self.all_that_was_said_arrives()
            self.the_speaker_says_what_was_heard()
            self.the_speaker_plays(500)
            for _ in range(10):  # the rest would be no news
                self.happen(inputs.MicCaptured(bytes(FRAME_BYTES)))
            self.time_passes(0.5)

    def teardown(self) -> None:
        if self.has_failed or not hasattr(self, "conversation"):
            return
        self.lifetime = None
        if self.vad == "none" and self.conversation.floor.name == "USER":
            self.the_talk_key_is_pressed()
        self.calm_down(60.0)
        if not self.is_over:
            assert self.conversation.link is Link.LIVE
            if self.is_honest:
                assert self.conversation.is_idle
                assert all(turn.is_settled for turn in self.conversation.transcript.turns)
            self.happen(inputs.QuitRequested())
            self.the_speaker_says_what_was_heard()
            self.time_passes(2.0)
        assert self.is_over
        self.what_was_written_is_what_is_known()
        self.the_end_is_the_end()


def is_settled(line: Line, place: int) -> bool:
    """The whole frame is in words."""
    return any(
        each.is_settled
        and each.start <= place
        and each.end is not None
        and place + FRAME_BYTES <= each.end
        for each in line.utterances.values()
    )


World.TestCase.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
test_whatever_happens_some_things_always_hold = World.TestCase
