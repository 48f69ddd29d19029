"""A server session in virtual time: what the client says and the engines find, what it answers."""

import json
from base64 import b64encode
from typing import Any

from voicechat.realtime.events import CLIENT_EVENTS, MalformedError, decode, encode
from voicechat.server import contract
from voicechat.server.contract import HOP_MS, Effect, Generate, Input, Say, Transcribe, Utter
from voicechat.server.session import ServerSession

Json = dict[str, Any]


class ServerScene:
    """Plays the client and the engines.  Events go through real JSON, both ways."""

    def __init__(self, *, can_speak: bool = True, lifetime: float = 3600.0) -> None:
        self.now = 1000.0
        self.session = ServerSession(
            self.now,
            name="s",
            model="tiny",
            can_speak=can_speak,
            started_at=1_800_000_000,
            lifetime=lifetime,
        )
        self.said: list[Json] = []
        self.wanted: list[Effect] = []
        self._take(self.session.start())

    def send(self, kind: str, **fields: Any) -> list[Json]:
        """The client says something; returns what the server answers at once."""
        text = encode_client({"type": kind, **fields})
        try:
            return self.happen(contract.Received(decode(text, CLIENT_EVENTS)))
        except MalformedError as error:
            return self.happen(contract.FrameRefused(error, fields.get("event_id")))

    def update(self, **session: Any) -> list[Json]:
        """The client sends `session.update`."""
        return self.send("session.update", session={"type": "realtime", **session})

    def say(self, item_id: str, text: str, role: str = "user") -> list[Json]:
        """The client adds a message."""
        part = {"type": "output_text" if role == "assistant" else "input_text", "text": text}
        item = {"id": item_id, "type": "message", "role": role, "content": [part]}
        return self.send("conversation.item.create", item=item)

    def append(self, ms: int) -> list[Json]:
        """The client sends sound."""
        return self.send("input_audio_buffer.append", audio=b64encode(bytes(48 * ms)).decode())

    def hear(self, *spans: tuple[float, int]) -> list[Json]:
        """The client sends sound that the detector judges so: (probability, ms)..."""
        answers = []
        for probability, ms in spans:
            answers += self.append(ms)
            answers += self.happen(contract.VoiceHeard((probability,) * (ms // HOP_MS)))
        return answers

    def happen(self, happened: Input) -> list[Json]:
        """Something happens; returns what the client is told."""
        return self._take(self.session.handle(happened, self.now))

    def wait(self, seconds: float) -> list[Json]:
        """Time passes."""
        end, answers = self.now + seconds, list[Json]()
        while self.session.deadline <= end:
            self.now = self.session.deadline
            answers += self.happen(contract.DeadlineReached())
        self.now = end
        return answers

    def transcribe(self, text: str) -> list[Json]:
        """The ears answer what they were asked last."""
        job = next(e for e in reversed(self.wanted) if isinstance(e, Transcribe))
        return self.happen(contract.Transcribed(job.item_id, job.take, text))

    def answer(self, *sentences: str, ms: int = 500) -> list[Json]:
        """The mind and the voice answer what they were asked last."""
        job = next(e for e in reversed(self.wanted) if isinstance(e, (Generate, Utter)))
        sound = b"" if job.speed is None else bytes(48 * ms)
        answers = []
        for text in sentences:
            answers += self.happen(contract.SentenceReady(job.response_id, text, sound))
        return answers + self.happen(contract.AnswerEnded(job.response_id))

    def jobs(self, kind: type[Effect]) -> list[Any]:
        """What was asked of the engines so far."""
        return [effect for effect in self.wanted if isinstance(effect, kind)]

    def _take(self, effects: list[Effect]) -> list[Json]:
        answers = [json.loads(encode(e.event)) for e in effects if isinstance(e, Say)]
        self.wanted += [effect for effect in effects if not isinstance(effect, Say)]
        self.said += answers
        return answers


def encode_client(payload: Json) -> str:
    """A frame as any client would write it."""
    return json.dumps(payload)


def kinds(events: list[Json]) -> list[str]:
    """Their types."""
    return [event["type"] for event in events]


def refusal(events: list[Json]) -> tuple[str, str, str | None]:
    """The code, message and param of the one error that these events are."""
    [event] = events
    assert event["type"] == "error"
    assert event["error"]["type"] == "invalid_request_error"
    return event["error"]["code"], event["error"]["message"], event["error"]["param"]
