"""A Realtime server nobody here wrote the client for: official types, no mercy.

Every frame of the client is validated against the types of the `openai` package, unknown fields
included.  It hears by loudness, answers each turn with a tone, and notes everything.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from openai.types.realtime import RealtimeClientEvent
from pydantic import BaseModel, TypeAdapter
from websockets.asyncio.server import ServerConnection, serve

VALIDATE = TypeAdapter[Any](RealtimeClientEvent)
KEY = "sk-test-0123456789abcdef"


def tone(ms: int, frequency: float = 440.0) -> bytes:
    time = np.arange(24 * ms) / 24_000
    return (8000 * np.sin(2 * np.pi * frequency * time)).astype("<i2").tobytes()


class StrictServer:
    """One server, any number of connections, each with a conversation of its own."""

    def __init__(self) -> None:
        self.url = ""
        self.received: list[list[dict[str, Any]]] = []
        """Client events, a list for each connection."""
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.violations: list[str] = []
        self.answer_ms = 600
        self.answer_text = "All right. I heard you."
        self.deltas = 3
        self.user_words = "hello there"
        self.transcript_delay = 0.05
        self.older_names = False
        self.on_event: Callable[[Peer, dict[str, Any]], Any] | None = None
        """Looks at every client event first; what it returns (an awaitable) replaces the rest."""
        self.on_connect: Callable[[Peer], Any] | None = None

    def said(self, connection: int, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.received[connection] if event["type"] == kind]

    @contextmanager
    def running(self) -> Iterator[StrictServer]:
        loop = asyncio.new_event_loop()
        started, stop = threading.Event(), asyncio.Event()

        async def run() -> None:
            async with serve(self._serve, "127.0.0.1", 0, max_size=None) as server:
                port = next(iter(server.sockets)).getsockname()[1]
                self.url = f"ws://127.0.0.1:{port}/v1/realtime"
                started.set()
                await stop.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
        thread.start()
        assert started.wait(10)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(10)
            loop.close()
        assert self.violations == []

    async def _serve(self, websocket: ServerConnection) -> None:
        request = websocket.request
        assert request is not None
        self.headers.append(dict(request.headers.raw_items()))
        self.paths.append(request.path)
        self.received.append(seen := [])
        peer = Peer(self, websocket)
        if self.on_connect is not None:
            await self.on_connect(peer)
        await peer.open()
        async for frame in websocket:
            if isinstance(frame, bytes):
                self.violations.append("binary frame")
                continue
            event = json.loads(frame)
            seen.append(event)
            self._validate(event)
            if self.on_event is not None and (instead := self.on_event(peer, event)) is not None:
                await instead
                continue
            await peer.take(event)
        peer.is_open = False

    def _validate(self, event: dict[str, Any]) -> None:
        try:
            parsed = VALIDATE.validate_python(event)
        except ValueError as error:
            self.violations.append(f"{event.get('type')}: {error}")
            return
        self.violations += [f"{event['type']}: unknown {path}" for path in _extras(parsed)]


def _extras(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, BaseModel):
        for name in value.model_extra or {}:
            yield f"{path}.{name}"
        for name in type(value).model_fields:
            yield from _extras(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _extras(part, f"{path}[{number}]")


class Peer:
    """One connection."""

    def __init__(self, server: StrictServer, websocket: ServerConnection) -> None:
        self.server = server
        self.websocket = websocket
        self.is_open = True
        self.items: list[dict[str, Any]] = []
        self.buffer = b""
        self.heard_bytes = 0
        self.loud_item: str | None = None
        self.quiet_bytes = 0
        self.vad: dict[str, Any] | None = {}
        self.is_configured = False
        self.audio = True
        self.active: asyncio.Task[None] | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    async def send(self, kind: str, **fields: Any) -> None:
        if self.server.older_names:
            kind = kind.replace("output_audio", "audio").replace("output_text", "text")
        await self.websocket.send(json.dumps({"type": kind, "event_id": "event_x", **fields}))

    async def fail(self, message: str, code: str, event: dict[str, Any]) -> None:
        detail = {"type": "invalid_request_error", "code": code, "message": message}
        await self.send("error", error=detail | {"event_id": event.get("event_id"), "param": None})

    async def open(self) -> None:
        await self.send("session.created", session={"type": "realtime", "id": "sess_1"})

    def spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def take(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "session.update":
                session = event["session"]
                self.vad = session["audio"]["input"]["turn_detection"]
                self.audio = session["output_modalities"] == ["audio"]
                self.is_configured = True
                await self.send("session.updated", session=session)
            case "input_audio_buffer.append":
                if not self.is_configured:
                    self.server.violations.append("audio before session.updated")
                await self.hear(base64.b64decode(event["audio"], validate=True))
            case "input_audio_buffer.commit":
                if len(self.buffer) < 4800:
                    code = "input_audio_buffer_commit_empty"
                    await self.fail("buffer too small", code, event)
                else:
                    await self.commit(f"item_U{len(self.items)}")
            case "input_audio_buffer.clear":
                self.buffer = b""
                await self.send("input_audio_buffer.cleared")
            case "conversation.item.create":
                item = event["item"]
                wanted = "output_text" if item["role"] == "assistant" else "input_text"
                if item["content"][0]["type"] != wanted:
                    self.server.violations.append(f"part type {item}")
                if len(item.get("id", "")) > 32 or any(i["id"] == item["id"] for i in self.items):
                    self.server.violations.append(f"item id {item}")
                await self.add(item | {"status": "completed"})
            case "response.create":
                if self.active is not None:
                    code = "conversation_already_has_active_response"
                    await self.fail("already active", code, event)
                else:
                    self.active = self.spawn(self.answer())
            case "response.cancel":
                if self.active is None:
                    await self.fail("none active", "response_cancel_not_active", event)
                else:
                    self.active.cancel()
            case "conversation.item.truncate":
                if self.audio_ms(event["item_id"]) < event["audio_end_ms"]:
                    self.server.violations.append(f"truncated too far: {event}")
                fields = {k: event[k] for k in ("item_id", "content_index", "audio_end_ms")}
                await self.send("conversation.item.truncated", **fields)
            case "conversation.item.delete":
                self.items = [item for item in self.items if item["id"] != event["item_id"]]
                await self.send("conversation.item.deleted", item_id=event["item_id"])
            case _:
                self.server.violations.append(f"unexpected {event['type']}")

    def audio_ms(self, item_id: str) -> int:
        return next((item.get("ms", 0) for item in self.items if item["id"] == item_id), 0)

    async def add(self, item: dict[str, Any]) -> None:
        previous = self.items[-1]["id"] if self.items else None
        self.items.append(dict(item))
        if self.server.older_names:
            await self.send("conversation.item.created", previous_item_id=previous, item=item)
            return
        await self.send("conversation.item.added", previous_item_id=previous, item=item)
        if item["status"] == "completed":
            await self.send("conversation.item.done", previous_item_id=previous, item=item)

    async def hear(self, pcm: bytes) -> None:
        self.buffer += pcm
        self.heard_bytes += len(pcm)
        if not self.vad:
            return
        loud = np.abs(np.frombuffer(pcm, "<i2").astype(int)).max(initial=0) > 1000
        now_ms = self.heard_bytes // 48
        self.quiet_bytes = 0 if loud else self.quiet_bytes + len(pcm)
        if loud and self.loud_item is None:
            self.loud_item = f"item_U{len(self.items)}"
            if self.active is not None:
                self.active.cancel()
            await self.send(
                "input_audio_buffer.speech_started",
                item_id=self.loud_item,
                audio_start_ms=max(0, now_ms - 20),
            )
        elif self.loud_item and self.quiet_bytes >= 48 * self.vad.get("silence_duration_ms", 500):
            item, self.loud_item = self.loud_item, None
            await self.send("input_audio_buffer.speech_stopped", item_id=item, audio_end_ms=now_ms)
            await self.commit(item)
            self.active = self.spawn(self.answer())

    async def commit(self, item_id: str) -> None:
        self.buffer = b""
        previous = self.items[-1]["id"] if self.items else None
        await self.send("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous)
        content = [{"type": "input_audio", "transcript": None}]
        item = {"id": item_id, "type": "message", "role": "user", "content": content}
        await self.add(item | {"status": "completed"})
        self.spawn(self.transcribe(item_id))

    async def transcribe(self, item_id: str) -> None:
        await asyncio.sleep(self.server.transcript_delay)
        if self.is_open:
            await self.send(
                "conversation.item.input_audio_transcription.completed",
                item_id=item_id,
                content_index=0,
                transcript=self.server.user_words,
                usage={"type": "duration", "seconds": 1},
            )

    async def answer(self) -> None:
        """One response, as a burst, in the order of the real thing."""
        item_id, response_id = f"item_A{len(self.items)}", f"resp_{len(self.items)}"
        item = {"id": item_id, "type": "message", "role": "assistant", "content": []}
        ids = {"response_id": response_id, "item_id": item_id, "output_index": 0}
        place = {"response_id": response_id, "output_index": 0}
        response: dict[str, Any] = {"id": response_id, "conversation_id": "conv_1", "output": []}
        status, reason = "completed", None
        await self.send("response.created", response=response | {"status": "in_progress"})
        await self.send(
            "response.output_item.added", **place, item=item | {"status": "in_progress"}
        )
        await self.add(item | {"status": "in_progress"})
        part = {"type": "audio", "transcript": ""}
        await self.send("response.content_part.added", **ids, content_index=0, part=part)
        try:
            await self.words_and_sound(ids | {"content_index": 0})
        except asyncio.CancelledError:
            status, reason = "cancelled", {"type": "cancelled", "reason": "turn_detected"}
        final = item | {"status": "completed" if status == "completed" else "incomplete"}
        await self.send("conversation.item.done", item=final, previous_item_id=None)
        await self.send("response.output_item.done", **place, item=final)
        self.active = None
        await self.send(
            "response.done", response=response | {"status": status, "status_details": reason}
        )

    async def words_and_sound(self, ids: dict[str, Any]) -> None:
        text, pcm = self.server.answer_text, tone(self.server.answer_ms)
        if not self.audio:
            await self.send("response.output_text.delta", **ids, delta=text)
            await self.send("response.output_text.done", **ids, text=text)
            return
        for word in text.split(" "):
            delta = word if word == text.split(" ", maxsplit=1)[0] else f" {word}"
            await self.send("response.output_audio_transcript.delta", **ids, delta=delta)
        size = -(-len(pcm) // self.server.deltas)
        for start in range(0, len(pcm), size):
            piece = pcm[start : start + size]
            self.items[-1]["ms"] = (start + len(piece)) // 48
            delta = base64.b64encode(piece).decode()
            await self.send("response.output_audio.delta", **ids, delta=delta)
        await self.send("response.output_audio.done", **ids)
        await self.send("response.output_audio_transcript.done", **ids, transcript=text)
