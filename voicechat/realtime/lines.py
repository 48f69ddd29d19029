"""The connections of a conversation: the one that serves it, and the one that will.

    preparing   opened, configured, told what was said; it takes over when nothing is in the way
    serving     the one that the microphone feeds, or None while the line is lost

A resumed session, a lost line and a planned move to a fresh connection (rotation) differ only in
whether another connection serves in the meantime.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from voicechat.errors import BusyError, ConnectError, ProtocolError, VoicechatError
from voicechat.realtime.assistant import Assistant
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.effects import Close, Connect, Effect, Notice, Write
from voicechat.realtime.events import (
    ConversationItemAdded,
    ConversationItemCreated,
    ConversationItemDone,
    Error,
    Event,
    Json,
    ResponseCancel,
    ResponseCreated,
    ResponseDone,
    SessionCreated,
    SessionUpdated,
)
from voicechat.realtime.inputs import Received
from voicechat.realtime.line import Line, Stage
from voicechat.realtime.policy import Policy, back_off, rotation
from voicechat.realtime.problems import describe
from voicechat.realtime.providers import Provider
from voicechat.realtime.recording import Recording
from voicechat.realtime.replay import Entry, Plan, counted, plan
from voicechat.realtime.responses import usage_of
from voicechat.realtime.summary import EVENT_ID, Summariser
from voicechat.realtime.user import User
from voicechat.transcript import Summary, Transcript, Turn

ITEM_EVENTS = (ConversationItemAdded, ConversationItemDone, ConversationItemCreated)
RESTORING_TIMEOUT = 10.0  # for all acknowledgements together
MISSING_AFTER = 4.0
"""An item that is not confirmed by then is sent again..."""
OVERTAKEN_AFTER = 0.5
"""...and so soon, when the last one is: a server works in order."""
LONGEST_LIFE = 1e7
"""Seconds: no server means more than months."""
SUMMARY_TIMEOUT = 30.0
STABLE_AFTER = 30.0
"""A line that has served for so long was a good one: the next wait is short again."""


class Lines:
    """Which connections there are, and how far they are."""

    def __init__(
        self,
        transcript: Transcript,
        configuration: Configuration,
        policy: Policy,
        provider: Provider,
        *,
        recording: Recording,
        user: User,
        assistant: Assistant,
        deadlines: dict[str, float],
        chance: Callable[[], float],
    ) -> None:
        self.serving: Line | None = None
        self.preparing: Line | None = None
        self.is_first = True
        """None has served in this run."""
        self.lost_at: float | None = None
        """When the line was lost that is being replaced."""
        self.is_packed = False
        """The history is restored as one message: as items it made the model write."""
        self.rotate_at: float | None = None
        self.force_at: float | None = None
        """When the serving line is to be replaced, in a silence or whatever happens."""
        self._transcript = transcript
        self._configuration = configuration
        self._policy = policy
        self._provider = provider
        self._recording = recording
        self._user = user
        self._assistant = assistant
        self._deadlines = deadlines
        self._chance = chance
        self._summariser: Summariser | None = None
        self._count = 0
        self._attempts = 0
        self._served_since = 0.0
        self._abilities = provider.abilities(configuration.model)
        instructions = configuration.instructions
        self._budget = policy.replay_tokens or self._abilities.budget(instructions)

    def find(self, number: int) -> Line | None:
        """The connection with this number, unless it was given up."""
        for line in (self.serving, self.preparing):  # no generator: it is asked for each event
            if line is not None and line.number == number:
                return line
        return None

    @property
    def _makes_summaries(self) -> bool:
        return self._policy.use_summary and self._provider.can_summarise

    @property
    def restoring(self) -> list[Line]:
        """Those that were told of items, and may still have to confirm some."""
        both = (self.preparing, self.serving)
        return [line for line in both if line is not None and line.stage is Stage.RESTORING]

    @property
    def is_summarising(self) -> bool:
        """Older turns are being summed up on the connection that is prepared."""
        return self.preparing is not None and self.preparing.stage is Stage.SUMMARISING

    @property
    def progress(self) -> tuple[int, int] | None:
        """While none serves: how many items of how many the next one's server has confirmed."""
        line = self.preparing if self.serving is None else None
        if line is None or line.stage is not Stage.RESTORING:
            return None
        return line.replay.progress

    # Opening -------------------------------------------------------------------------------------

    def prepare(self) -> Iterator[Effect]:
        """Open a connection, and work out what to tell the server as soon as it is there."""
        self._count += 1
        self.preparing = Line(self._count, self._transcript, self._provider)
        self._load(self.preparing)
        self._summariser = None
        yield Connect(self._count)

    def retry(self, now: float) -> None:
        """Try again, after a while that grows."""
        wait = back_off(self._attempts, self._chance())
        self._attempts += 1
        self._deadlines["reconnect"] = now + wait

    def close_preparing(self) -> Iterator[Effect]:
        """Close the connection that is being prepared, if there is one."""
        if self.preparing is not None:
            yield Close(self.preparing.number)
        self.drop_preparing()

    def drop_preparing(self) -> None:
        """The connection that was being prepared is gone."""
        names = ["opening", "summary"]
        if self.serving is None or not self.serving.replay.waiting:
            names += ["restoring", "missing"]  # else those of the line that serves
        for name in names:
            self._deadlines.pop(name, None)
        self.preparing = None

    def lose(self, now: float) -> None:
        """The line that served is gone."""
        if now - self._served_since >= STABLE_AFTER:
            self._attempts = 0
        self.serving, self.rotate_at, self.force_at = None, None, None
        names = ["rotate", "rotate now"]
        if self.preparing is None or self.preparing.stage is Stage.OPENING:
            names += ["restoring", "missing"]  # those of the line that is lost
        for name in names:
            self._deadlines.pop(name, None)

    def take_over(self, now: float) -> Iterator[Effect]:
        """The connection that was prepared serves from now on, instead of any other."""
        for name in ("restoring", "missing", "giving up", "reconnect"):
            self._deadlines.pop(name, None)
        old, line = self.serving, self.preparing
        assert line is not None
        if old is not None:
            self.lose(now)
            yield Close(old.number)
        self.serving, self.preparing, self.lost_at = line, None, None
        self.is_first = False
        self._served_since = now
        self._schedule_rotation(line, now)

    def _schedule_rotation(self, line: Line, now: float) -> None:
        times = rotation(line.lifetime, self._policy.rotate_after)
        if times is not None:
            soft, hard = times
            self.rotate_at = self._deadlines["rotate"] = line.opened_at + soft
            self.force_at = self._deadlines["rotate now"] = line.opened_at + hard

    # What the server says while it is prepared ---------------------------------------------------

    def hear(self, event: Event, now: float) -> Iterator[Effect]:
        """Take in what the server of the connection that is being prepared says."""
        line = self.preparing
        assert line is not None
        match event:
            case SessionCreated(session) if line.stage is Stage.OPENING:
                self._deadlines.pop("opening", None)
                line.lifetime = self._provider.lifetime
                _note_limit(line, session)
                yield from self._tell(line, now)
            case SessionUpdated():
                line.hear_updated()
                if line.stage is Stage.SUMMARISING and self._summariser is None:
                    yield from self._summarise(line, now)
            case _ if line.stage is Stage.SUMMARISING:
                yield from self._hear_summary(line, event, now)
            case _:
                pass

    def _tell(self, line: Line, now: float) -> Iterator[Effect]:
        """Settings first; then what was said, or, if that is too much, a summary of it."""
        left_out = line.replay.plan.left_out
        # Nobody waits for a summary with a sentence half said.
        may_wait = self.is_first or self.lost_at is None
        if left_out and self._makes_summaries and may_wait:
            line.stage = Stage.SUMMARISING
            self._deadlines["restoring"] = now + RESTORING_TIMEOUT
            yield from line.configure(self._configuration)
            if self.serving is None:
                skips = "; s skips it" if self._policy.can_skip else ""
                what = f"{counted(len(left_out))} that cannot be restored whole"
                yield Notice(f"Summarising {what}{skips}.")
            return
        yield from self._restore(line, now)

    def _restore(self, line: Line, now: float) -> Iterator[Effect]:
        turns = line.replay.plan.restored
        if turns and self.serving is None and self.lost_at is None:
            yield Notice(f"Restoring {counted(turns)}.")
        self._wait_for_items(now)
        yield from line.restore()

    # Summaries -----------------------------------------------------------------------------------

    def _summarise(self, line: Line, now: float) -> Iterator[Effect]:
        """Ask for the next summary.  What is to be in it leaves half of the budget for new turns,
        so that the one after it is not due with the next turn."""
        self._deadlines.pop("restoring", None)
        older = self._plan(self._budget // 2).left_out
        self._summariser = Summariser.of(self._transcript, older, self._abilities)
        if self._summariser is None:
            yield from self.skip_summary(now)
            return
        self._deadlines["summary"] = now + SUMMARY_TIMEOUT
        yield line.send(self._summariser.request())

    def _hear_summary(self, line: Line, event: Event, now: float) -> Iterator[Effect]:
        if self._summariser is None:
            return
        match event:
            case ResponseCreated(response):
                self._summariser.response_id = str(response.get("id"))
                self._deadlines["summary"] = now + SUMMARY_TIMEOUT
            case Error(error):
                if error.get("event_id") in (None, "", EVENT_ID):
                    yield from self.skip_summary(now, f"The server refused: {describe(error)}")
            case ResponseDone(response, usage):
                self._summariser.read(event)
                self._summariser.response_id = None
                if (used := usage_of(response, usage, self._configuration.model)) is not None:
                    yield Write(used)
                yield from self._end_summary(line, self._summariser.record(), now)
            case _:
                self._deadlines["summary"] = now + SUMMARY_TIMEOUT
                self._summariser.read(event)

    def _end_summary(self, line: Line, summary: Summary | None, now: float) -> Iterator[Effect]:
        self._deadlines.pop("summary", None)
        self._summariser = None
        if summary is None:
            yield from self.skip_summary(now, "Nothing came of it.")
            return
        yield Write(summary)
        if left_out := self._plan(self._budget).left_out:  # more than one summary can be made of
            if self.serving is None:
                yield Notice(f"Summarising: {counted(len(left_out))} to go.")
            yield from self._summarise(line, now)
        else:
            yield from self.skip_summary(now)

    def skip_summary(self, now: float, problem: str = "") -> Iterator[Effect]:
        """Wait for no further summary; restore what can be restored without."""
        line = self.preparing
        if line is None or line.stage is not Stage.SUMMARISING:
            return
        if problem and self.serving is None:  # else nobody waits, and it is tried the next time
            yield Notice(f"No summary was made. {problem}")
        self._deadlines.pop("summary", None)
        if self._summariser is not None and self._summariser.response_id is not None:
            yield line.send(ResponseCancel(self._summariser.response_id))
        self._summariser = None
        self._load(line)
        yield from self._restore(line, now)

    # Plans ---------------------------------------------------------------------------------------

    def _load(self, line: Line) -> None:
        unheard = self._open_items()
        line.load(self._plan(self._budget), self._configuration, unheard)

    def _plan(self, budget: int) -> Plan:
        abilities = self._abilities
        if self.is_packed:
            abilities = replace(abilities, takes_assistant=False)
        return plan(
            self._transcript,
            budget,
            abilities,
            sound=self._sound(),
            unheard=self._open_items(),
            use_summary=self._makes_summaries,
        )

    def _open_items(self) -> set[str]:
        """Turns of which it is not yet known how they end: an answer that is still being heard,
        and, as long as a line serves that will tell them, words of the user's."""
        open_items = self._assistant.items
        if self.serving is not None:
            open_items |= self._user.items
        return open_items

    def missing(self) -> list[Turn]:
        """Turns that the connection in preparation must still be told of."""
        line = self.preparing
        assert line is not None
        open_items, sound = self._open_items(), self._sound()
        return [
            turn
            for turn in self._transcript.turns
            if not line.knows(turn.item_id)
            and turn.item_id not in open_items
            and turn.status != "written"
            and (turn.text.strip() or turn.item_id in sound)
        ]

    def _wait_for_items(self, now: float) -> None:
        self._deadlines["restoring"] = now + RESTORING_TIMEOUT
        self._deadlines["missing"] = now + MISSING_AFTER

    def _sound(self) -> dict[str, bytes]:
        """What must be said again; nothing, as long as a line serves that will put it in words."""
        return {} if self.serving is not None else self._recording.kept

    def catch_up(self, line: Line, turns: list[Turn], now: float) -> Iterator[Effect]:
        """Tell a connection of turns that it does not know."""
        self._wait_for_items(now)
        yield from line.catch_up(turns, self._sound(), self._configuration)

    # Acknowledgements ----------------------------------------------------------------------------

    def takes_note(self, heard: Received, now: float) -> bool:
        """An acknowledgement from which nothing follows, of which a long replay has thousands."""
        line, event = self.preparing, heard.event
        if line is None or heard.connection != line.number or not isinstance(event, ITEM_EVENTS):
            return False
        if not line.replay.takes_note(event.item):
            return False
        line.heard_at = now
        return True

    def confirmed(self, line: Line, entry: Entry, now: float) -> Iterator[Effect]:
        """The server has an item: a typed turn is final with that, and a spoken one gets words."""
        for turn in entry.turns:
            if turn.role != "user" or entry.pcm:
                if entry.pcm:
                    self._user.wait_for_words(turn.item_id, now)
            elif not turn.is_settled:
                yield from self._user.settle(turn.item_id)
        if line.replay.is_end_confirmed and line.replay.waiting:
            soon = now + OVERTAKEN_AFTER
            self._deadlines["missing"] = min(soon, self._deadlines.get("missing", soon))

    def confirm_spoken(self, line: Line, wire_id: str, now: float) -> Iterator[Effect]:
        """The server has something that was said again, if this is the first word of it."""
        if (entry := line.confirm_spoken(wire_id)) is not None:
            yield from self.confirmed(line, entry, now)

    def refused(self, line: Line, error: Json, now: float) -> Iterator[Effect]:
        """An ``error`` about an item: it is there already, or is sent again, or is lost."""
        entry = line.replay.refused(error)
        if entry is None:
            return
        if error.get("code") == "item_create_duplicate_item_id":
            line.confirm({"id": entry.wire_id})
            yield from self.confirmed(line, entry, now)
        elif line.replay.may_be_sent_again(entry):
            yield line.send(line.replay.again(entry))
        else:
            line.replay.lose(entry, describe(error))
            if line is self.preparing and not self.is_packed and line.replay.has_lost_the_assistant:
                yield Notice("It takes no answers of before. Restoring them in another form.")
                self.is_packed = True
                yield from self.close_preparing()
                yield from self.prepare()

    def send_missing_again(self, line: Line) -> Iterator[Effect]:
        """Each item that is not confirmed, once more, in its place."""
        for entry in list(line.replay.waiting.values()):
            if line.replay.may_be_sent_again(entry):
                yield line.send(line.replay.again(entry))


def is_fatal(error: VoicechatError, line: Line, *, is_first: bool) -> bool:
    """Trying again cannot help.

    A server that was never there is not waited for: most likely the address is wrong.  Later, any
    trouble may pass, but for what the user must change.
    """
    if is_first:
        return not isinstance(error, BusyError)
    if isinstance(error, ProtocolError):
        return line.is_open  # turned away by the server itself, not by something in between
    return not isinstance(error, ConnectError)


def _note_limit(line: Line, session: Json) -> None:
    expires_at = session.get("expires_at")
    at = line.server_time
    if at is None or not isinstance(expires_at, int | float):
        return
    if at < expires_at < at + LONGEST_LIFE:
        line.lifetime = float(expires_at) - at
