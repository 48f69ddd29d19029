"""Sound for a benchmark: frames that can be told apart, and a server's ear that answers them."""

from base64 import b64encode
from collections.abc import Iterator
from itertools import count
from typing import Any

from voicechat.pcm import FRAME_MS, FRAME_SAMPLES, silence

DIGIT, DIGITS = 128, 3
"""A frame has its number in its first samples, in digits too small to be heard."""
LOUD = 8000
QUIET_FRAMES = 10
"""So long a silence ends an utterance: 200 ms, as with OpenAI's servers where nothing else is set.
"""
ANSWER_MS = 200


def frame(number: int, *, is_loud: bool) -> bytes:
    """20 ms of PCM16, 24 kHz, mono."""
    digits = [number // DIGIT**place % DIGIT for place in range(DIGITS)]
    rest = [LOUD if is_loud else 0] * (FRAME_SAMPLES - DIGITS)
    return b"".join(sample.to_bytes(2, "little") for sample in digits + rest)


def number_of(pcm: bytes) -> int:
    """Which frame it is."""
    digits = memoryview(pcm).cast("h")[:DIGITS]
    return sum(digit * DIGIT**place for place, digit in enumerate(digits))


class Ear:
    """Hears one connection's frames, and answers each utterance at once."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        """Of the frames that came, in order."""
        self._quiet_frames: int | None = None
        """Since the last loud one; None where nothing is being said."""
        self._ids = count(1)
        self._item = ""

    def hear(self, pcm: bytes, previous: str | None) -> Iterator[dict[str, Any]]:
        """Take in a frame; yield what the server says to it.

        Args:
            pcm: The frame.
            previous: The last item of the conversation.
        """
        self.numbers.append(number_of(pcm))
        is_loud = memoryview(pcm).cast("h")[-1] == LOUD
        if is_loud and self._quiet_frames is None:
            self._item = f"said_{next(self._ids)}"
            start = (len(self.numbers) - 1) * FRAME_MS
            yield _told("input_audio_buffer.speech_started", self._item, audio_start_ms=start)
        if is_loud:
            self._quiet_frames = 0
        elif self._quiet_frames is not None:
            self._quiet_frames += 1
            if self._quiet_frames == QUIET_FRAMES:
                self._quiet_frames = None
                yield from self._take_turn(previous)

    def _take_turn(self, previous: str | None) -> Iterator[dict[str, Any]]:
        end = len(self.numbers) * FRAME_MS
        user, answer = self._item, f"said_{next(self._ids)}"
        yield _told("input_audio_buffer.speech_stopped", user, audio_end_ms=end)
        yield _told("input_audio_buffer.committed", user, previous_item_id=previous)
        spoken = {
            "id": user,
            "type": "message",
            "role": "user",
            "content": [{"type": "input_audio"}],
        }
        for kind in ("added", "done"):
            yield {
                "type": f"conversation.item.{kind}",
                "previous_item_id": previous,
                "item": spoken,
            }
        heard = "conversation.item.input_audio_transcription.completed"
        yield _told(heard, user, content_index=0, transcript=f"What I say is {user}.")
        yield from _answer(answer, user)


def _answer(item_id: str, previous: str) -> Iterator[dict[str, Any]]:
    response_id, text = f"resp_{item_id}", "I have heard you."
    item = {"id": item_id, "type": "message", "role": "assistant", "content": []}
    content = [{"type": "output_audio", "transcript": text}]
    whole = item | {"status": "completed", "content": content}
    part = {"item_id": item_id, "response_id": response_id, "output_index": 0, "content_index": 0}
    sound, words = "response.output_audio", "response.output_audio_transcript"
    pcm = b64encode(silence(ANSWER_MS)).decode()
    response = {"id": response_id, "object": "realtime.response"}
    yield {"type": "response.created", "response": response | {"status": "in_progress"}}
    yield {"type": "response.output_item.added", "response_id": response_id, "item": item}
    yield {"type": "conversation.item.added", "previous_item_id": previous, "item": item}
    yield {"type": f"{words}.delta", "delta": text} | part
    yield {"type": f"{sound}.delta", "delta": pcm} | part
    yield {"type": f"{sound}.done"} | part
    yield {"type": f"{words}.done", "transcript": text} | part
    yield {"type": "response.output_item.done", "response_id": response_id, "item": whole}
    yield {"type": "conversation.item.done", "previous_item_id": previous, "item": whole}
    yield {"type": "response.done", "response": response | {"status": "completed"}}


def _told(kind: str, item_id: str, **fields: object) -> dict[str, Any]:
    return {"type": kind, "item_id": item_id, **fields}
