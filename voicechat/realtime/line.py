"""One connection's part in a conversation, as long as it lasts."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import Enum, auto
from itertools import count

from voicechat.pcm import BYTES_PER_MS, FRAME_BYTES
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.effects import Effect, Send
from voicechat.realtime.events import (
    ConversationItemDelete,
    Event,
    InputAudioBufferAppend,
    InputAudioBufferClear,
    InputAudioBufferCommit,
    Json,
    ResponseCreated,
    ResponseDone,
    SessionUpdate,
)
from voicechat.realtime.input_rate import InputRate
from voicechat.realtime.problems import FORGET
from voicechat.realtime.providers import Provider
from voicechat.realtime.replay import SUMMARY_ID, Entry, Plan, Replay, entry_of
from voicechat.transcript import Transcript, Turn

SHORTEST_COMMIT = 100 * BYTES_PER_MS  # shorter is refused (reference, section 1.7)


class Stage(Enum):
    """How far a connection is."""

    OPENING = auto()
    """It is being opened, or is open and the server has not said anything yet."""
    SUMMARISING = auto()
    """The server sums up older turns, so that there is room for the newer ones."""
    RESTORING = auto()
    """The server is told what was said."""


class Line:
    """How far a connection is, and what it calls the items of the transcript.

    An item may be called differently on the wire and in the transcript: replayed items get new
    ids, and servers that number their items use the same ids again in the next connection.
    """

    def __init__(self, number: int, transcript: Transcript, provider: Provider) -> None:
        self.number = number
        self.provider = provider
        self.stage = Stage.OPENING
        self.replay = Replay(Plan())
        self.is_open = False
        """The WebSocket is there."""
        self.opened_at = 0.0
        self.server_time: float | None = None
        """The server's wall clock then, in Unix time."""
        self.lifetime: float | None = None
        """Seconds that the server lets it live, from `opened_at` on."""
        self.heard_at = 0.0
        """When the server last said something."""
        self.complaints: set[str] = set()
        """What of the server's events made no sense, and was told to the user."""
        self.sent_bytes = 0
        """Of audio as the microphone gives it: the clock by which the server tells where speech
        began, whatever rate it hears at."""
        self._input = InputRate(provider.input_rate)
        self._transcript = transcript
        self._ids: dict[str, str] = {}
        self._wire_ids: dict[str, str] = {}
        """The other way round."""
        self._asides: set[str] = set()
        """Responses that are no part of the conversation."""
        self._planned: set[str] = set()
        """Turns that the plan was made of: what it leaves out is not told later, either."""
        self.is_heeded = False
        """The server has taken settings of ours."""
        self._updates_due = 0
        self._burst: list[Event] = []

    @property
    def is_configured(self) -> bool:
        """The settings were taken."""
        return self.stage is not Stage.OPENING and not self._updates_due

    @property
    def is_waiting_for_settings(self) -> bool:
        """The settings were sent, and not yet taken."""
        return bool(self._updates_due)

    @property
    def is_ready(self) -> bool:
        """The settings were taken, and every replayed item was confirmed or named as lost."""
        return self.stage is Stage.RESTORING and not self._updates_due and not self.replay.waiting

    @property
    def ends_at(self) -> float | None:
        """When the server's limit is so near that nothing may be waited for, if it has one."""
        if self.lifetime is None:
            return None
        return self.opened_at + self.lifetime - min(10, self.lifetime / 20)

    @property
    def sent_ms(self) -> int:
        """Of audio."""
        return self.sent_bytes // BYTES_PER_MS

    def send(self, event: Event) -> Send:
        """Say something to this connection's server."""
        return Send(self.number, event)

    def append(self, pcm: bytes) -> Iterator[Effect]:
        """Let the server hear this."""
        yield from self._tell([InputAudioBufferAppend(pcm)])

    def commit(self) -> Iterator[Effect]:
        """What the server heard is a turn."""
        yield from self._tell([InputAudioBufferCommit(event_id="commit")])

    def clear(self) -> Iterator[Effect]:
        """What the server heard, and took no turn from, is nothing."""
        yield from self._tell([InputAudioBufferClear()])

    def is_aside(self, event: Event) -> bool:
        """It is about a response out of band, such as a summary that nobody waits for any more."""
        match event:
            case ResponseCreated(response) | ResponseDone(response):
                response_id = str(response.get("id"))
                metadata = response.get("metadata")
                is_ours = isinstance(metadata, dict) and metadata.get("job") == SUMMARY_ID
                is_ours |= self.stage is Stage.SUMMARISING
                if is_ours and response.get("id"):
                    self._asides.add(response_id)
            case _:
                response_id = str(getattr(event, "response_id", ""))
        return response_id in self._asides

    # Restoring -----------------------------------------------------------------------------------

    def load(self, plan: Plan, configuration: Configuration, unheard: Iterable[str]) -> None:
        """Get ready what restores the conversation, while the connection is not there yet."""
        self.replay = Replay(plan)
        turns = self._transcript.turns
        self._planned = {turn.item_id for turn in turns if turn.status != "written"} - set(unheard)
        for entry in plan.entries:
            for turn in entry.turns:
                self.rename(entry.wire_id, turn.item_id)
        self._burst = list(self._burst_of(plan.entries, configuration))

    def configure(self, configuration: Configuration) -> Iterator[Effect]:
        """Tell the server how to behave, and nothing else yet."""
        yield from self._tell([self._settings(configuration)])

    def restore(self) -> Iterator[Effect]:
        """Tell a server that knows nothing of us who we are and everything that was said.

        All of it in one burst: the server keeps the order, and the microphone stays shut until
        the last acknowledgement is there.
        """
        self.stage = Stage.RESTORING
        burst, self._burst = self._burst, []
        yield from self._tell(burst)

    def catch_up(
        self, turns: Iterable[Turn], sound: dict[str, bytes], configuration: Configuration
    ) -> Iterator[Effect]:
        """Tell it of turns that were not in the plan, each in its place."""
        entries, events = [], list[Event]()
        abilities = self.provider.abilities(configuration.model)
        for turn in turns:
            entry = entry_of(self.replay.new_wire_id(), turn, sound, abilities)
            if not entry.pcm:
                events.append(entry.event(self._wire_id_before(turn)))
            entries.append(entry)
            self.replay.add(entry)
            self.rename(entry.wire_id, turn.item_id)
        spoken = [entry for entry in entries if entry.pcm]
        if spoken:
            events += self._burst_of(spoken, configuration)
        yield from self._tell(events)

    def hear_updated(self) -> None:
        """The server has taken some settings."""
        self.is_heeded = True
        self._updates_due = max(0, self._updates_due - 1)

    def _tell(self, events: list[Event]) -> Iterator[Effect]:
        for event in events:
            match event:
                case SessionUpdate():
                    self._updates_due += 1
                case InputAudioBufferAppend(pcm):
                    self.sent_bytes += len(pcm)
                    event = InputAudioBufferAppend(self._input.push(pcm))
                case InputAudioBufferCommit() if rest := self._input.flush():
                    yield self.send(InputAudioBufferAppend(rest))
                case InputAudioBufferClear():
                    self._input.flush()  # and forget it
                case _:
                    pass
            yield self.send(event)

    def _settings(self, configuration: Configuration) -> SessionUpdate:
        session = self.provider.session(self.provider, configuration)
        return SessionUpdate(session, event_id="configure")

    def _burst_of(self, entries: Iterable[Entry], configuration: Configuration) -> Iterator[Event]:
        """Settings and items.  Where something must be said again, the server listens to nothing
        else until it has taken all of it as we hand it over: no detector is to divide it, nor
        answer it."""
        is_spoken = any(entry.pcm for entry in entries)
        deaf = replace(configuration, vad="none")
        yield self._settings(deaf if is_spoken else configuration)
        for entry in entries:
            if entry.pcm:
                yield from _say_again(entry)
            else:
                yield entry.event()
        if is_spoken and configuration.vad != "none":
            yield self._settings(configuration)

    def _wire_id_before(self, turn: Turn) -> str:
        """What the server calls the nearest turn before this one that it knows."""
        before = SUMMARY_ID if self.replay.knows(SUMMARY_ID) else "root"
        for each in self._transcript.turns:
            if each is turn:
                break
            before = self._wire_ids.get(each.item_id, before)
        return before

    # Names ---------------------------------------------------------------------------------------

    def knows(self, item_id: str) -> bool:
        """The server was told of this turn or made it, or must do without it."""
        return item_id in self._wire_ids or item_id in self._planned

    def has(self, item_id: str) -> bool:
        """There is an item for this turn."""
        return item_id in self._wire_ids

    def wire_id(self, item_id: str) -> str:
        """What this connection calls a turn that it has an item for."""
        return self._wire_ids[item_id]

    def delete(self, item_id: str) -> Iterator[Effect]:
        """Make the server forget an item, if it can."""
        if self.provider.can_truncate and self.has(item_id):
            wire_id = self._wire_ids.pop(item_id)
            self._planned.discard(item_id)
            yield self.send(ConversationItemDelete(wire_id, event_id=FORGET))

    def local(self, wire_id: str) -> str:
        """What the transcript calls the item that this connection calls `wire_id`."""
        if wire_id not in self._ids:
            names = (f"{wire_id}.{number}" if number else wire_id for number in count())
            self.rename(wire_id, next(name for name in names if self._is_free(name)))
        return self._ids[wire_id]

    def names(self, wire_id: str) -> bool:
        """It is known which turn this item is."""
        return wire_id in self._ids

    def rename(self, wire_id: str, item_id: str) -> None:
        """From now on, this connection calls `item_id` so: servers may choose ids themselves."""
        self._ids[wire_id] = item_id
        self._wire_ids[item_id] = wire_id

    def local_previous(self, wire_id: str | None) -> str | None:
        """The same for ``previous_item_id``: without one, the item follows what is there."""
        if wire_id is None:
            return self._transcript.last_item_id
        if self.replay.is_ours(wire_id) and wire_id not in self._ids:  # our note is no turn
            before = self.replay.last_turn_id
        else:
            before = self.local(wire_id)
        return self._transcript.behind_written(before) if before is not None else None

    def new_item_id(self, kind: str) -> str:
        """An id for an item of ours, the same on the wire and in the transcript."""
        item_id = self._transcript.free_id(kind, self._wire_ids)
        self.rename(item_id, item_id)
        return item_id

    def heard_ms_ago(self, audio_ms: int) -> int:
        """How long ago the moment was that is `audio_ms` into the audio sent so far."""
        return max(0, self.sent_ms - audio_ms)

    def confirm(self, item: Json) -> Entry | None:
        """What of the replay this item of the server's is."""
        entry = self.replay.confirm(item)
        if entry is not None:
            self._rename_all(str(item.get("id")), entry)
        return entry

    def confirm_spoken(self, wire_id: str) -> Entry | None:
        """The server has made an item of what was said again."""
        entry = self.replay.confirm_spoken(wire_id)
        if entry is not None:
            self._rename_all(wire_id, entry)
        return entry

    def _rename_all(self, wire_id: str, entry: Entry) -> None:
        for turn in entry.turns:
            self.rename(wire_id, turn.item_id)

    def _is_free(self, item_id: str) -> bool:
        return self._transcript.get(item_id) is None and item_id not in self._wire_ids


def _say_again(entry: Entry) -> Iterator[Event]:
    """An utterance once more, as a turn of its own."""
    pcm = entry.pcm.ljust(SHORTEST_COMMIT, b"\0")
    for start in range(0, len(pcm), FRAME_BYTES * 50):
        yield InputAudioBufferAppend(pcm[start : start + FRAME_BYTES * 50])
    yield InputAudioBufferCommit(event_id=f"replay-{entry.wire_id}")
