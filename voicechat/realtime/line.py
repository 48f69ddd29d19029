"""One connection's part in a conversation, as long as it lasts."""

from collections.abc import Iterator
from itertools import count

from voicechat.pcm import BYTES_PER_MS
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.effects import Effect, Send
from voicechat.realtime.events import Event, SessionUpdate
from voicechat.realtime.replay import Replay
from voicechat.transcript import Transcript


class Line:
    """How far a connection is, and what it calls the items of the transcript.

    An item may be called differently on the wire and in the transcript: replayed items get new
    ids, and servers that number their items use the same ids again in the next connection.
    """

    def __init__(self, number: int, transcript: Transcript) -> None:
        self.number = number
        self.replay = Replay.of(transcript)
        self.is_configured = False
        self.sent_bytes = 0
        """Of audio: the clock by which the server tells where speech began."""
        self._transcript = transcript
        self._ids = {wire_id: turn.item_id for wire_id, turn in self.replay.turns.items()}

    @property
    def is_ready(self) -> bool:
        """The settings were taken, and every replayed item was confirmed or named as lost."""
        return self.is_configured and not self.replay.waiting

    def send(self, event: Event) -> Send:
        """Say something to this connection's server."""
        return Send(self.number, event)

    def restore(self, configuration: Configuration) -> Iterator[Effect]:
        """Tell a server that knows nothing of us who we are and everything that was said.

        All of it in one burst: the server keeps the order, and the microphone stays shut until
        the last acknowledgement is there.
        """
        yield self.send(SessionUpdate(configuration.session(), event_id="configure"))
        for event in self.replay.events:
            yield self.send(event)

    def local(self, wire_id: str) -> str:
        """What the transcript calls the item that this connection calls `wire_id`."""
        if wire_id not in self._ids:
            names = (f"{wire_id}.{number}" if number else wire_id for number in count())
            self._ids[wire_id] = next(name for name in names if self._is_free(name))
        return self._ids[wire_id]

    def rename(self, wire_id: str, item_id: str) -> None:
        """From now on, this connection calls `item_id` so: servers may choose ids themselves."""
        self._ids[wire_id] = item_id

    def local_previous(self, wire_id: str | None) -> str | None:
        """The same for ``previous_item_id``: without one, the item follows what is there."""
        return self.local(wire_id) if wire_id else self._transcript.last_item_id

    def new_item_id(self) -> str:
        """An id for an item of ours, the same on the wire and in the transcript."""
        names = (f"text_{number:04d}" for number in count(1))
        item_id = next(name for name in names if self._is_free(name))
        self._ids[item_id] = item_id
        return item_id

    def heard_ms_ago(self, audio_ms: int) -> int:
        """How long ago the moment was that is `audio_ms` into the audio sent so far."""
        return max(0, self.sent_bytes // BYTES_PER_MS - audio_ms)

    def _is_free(self, item_id: str) -> bool:
        return self._transcript.get(item_id) is None and item_id not in self._ids.values()
