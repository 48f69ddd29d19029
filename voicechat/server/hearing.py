"""The input audio buffer: sound that was appended and not committed yet; and what became of it."""

from dataclasses import dataclass

from voicechat.pcm import BYTES_PER_MS, BYTES_PER_SAMPLE
from voicechat.realtime.events import (
    ConversationItemInputAudioTranscriptionCompleted,
    ConversationItemInputAudioTranscriptionDelta,
    ConversationItemInputAudioTranscriptionFailed,
    Event,
)
from voicechat.server.items import Item

KEPT_MS = 30_000
"""So much of the quiet before a turn is kept, where turns are detected: sessions last an hour."""


class Buffer:
    """Sound by its place on the connection's own clock: milliseconds since the first sample."""

    def __init__(self) -> None:
        self._sound = bytearray()
        self._start = 0
        """Place of the first byte kept."""
        self._half_sample = b""

    @property
    def end_ms(self) -> int:
        """How much was appended in all, rounded up."""
        return -(-(self._start + len(self._sound)) // BYTES_PER_MS)

    def append(self, sound: bytes) -> bytes:
        """Add sound; returns what is complete of it, in whole samples."""
        sound = self._half_sample + sound
        whole = len(sound) - len(sound) % BYTES_PER_SAMPLE
        self._half_sample = sound[whole:]
        self._sound += sound[:whole]
        return sound[:whole]

    def waiting(self) -> bytes:
        """All that is kept."""
        return bytes(self._sound)

    def between(self, start_ms: int, end_ms: int) -> bytes:
        """What is kept of this time."""
        start = max(0, start_ms * BYTES_PER_MS - self._start)
        return bytes(self._sound[start : max(0, end_ms * BYTES_PER_MS - self._start)])

    def drop_until(self, place_ms: int) -> None:
        """Forget what was before this place."""
        count = min(len(self._sound), max(0, place_ms * BYTES_PER_MS - self._start))
        del self._sound[:count]
        self._start += count

    def trim(self, judged_ms: int) -> None:
        """Forget what is long past; what nobody listened to yet is kept."""
        self.drop_until(judged_ms - KEPT_MS)

    def clear(self) -> None:
        """Forget everything."""
        self._start += len(self._sound)
        self._sound.clear()
        self._half_sample = b""


@dataclass(slots=True)
class Hearing:
    """An utterance that is being put into words."""

    take: int
    item: Item | None = None
    """None: a guess; the turn is not over yet."""
    text: str | None = None
    """A guess that was made before the turn was over."""


def told(item: Item) -> list[Event]:
    """Write what was heard into the item, and tell it."""
    if item.failure:
        kind = {"type": "transcription_error", "code": "transcription_failed"}
        error = {**kind, "message": item.failure, "param": None}
        return [ConversationItemInputAudioTranscriptionFailed(item.item_id, 0, error)]
    content = [
        {**part, "transcript": item.text} if part["type"] == "input_audio" else part
        for part in item.fields["content"]
    ]
    item.fields = {**item.fields, "content": content}
    usage = {"type": "duration", "seconds": item.audio_ms / 1000}
    words = [ConversationItemInputAudioTranscriptionDelta(item.item_id, 0, item.text)]
    whole = ConversationItemInputAudioTranscriptionCompleted(item.item_id, 0, item.text, usage)
    return [*(words if item.text else ()), whole]
