"""A Realtime server nobody here wrote the client for: official types, no mercy.

Every frame of the client is validated against the types of the `openai` package, unknown fields
included, and against the rules of the API that the types do not tell.  It hears by loudness,
answers each turn with a tone, and notes everything, in both directions.

Faults are hooks: `on_connect`, `on_event` (before the server takes what a client said) and
`on_send` (before it says something itself).  What a hook returns, an awaitable, happens instead.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import formatdate
from itertools import count
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import numpy as np
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.dialects import GA

KEY = "sk-test-0123456789abcdef"
FRAME_BYTES = 960

Json = dict[str, Any]

PCM = {"type": "audio/pcm", "rate": 24_000}
SESSION: Json = {  # what a connection starts with; its voice detection is on
    "type": "realtime",
    "object": "realtime.session",
    "id": "sess_1",
    "output_modalities": ["audio"],
    "instructions": "",
    "tools": [],
    "tool_choice": "auto",
    "max_output_tokens": "inf",
    "truncation": "auto",
    "audio": {
        "input": {
            "format": PCM,
            "transcription": None,
            "noise_reduction": None,
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 200,
                "idle_timeout_ms": None,
                "create_response": True,
                "interrupt_response": True,
            },
        },
        "output": {"format": PCM, "voice": "alloy", "speed": 1.0},
    },
}


def tone(ms: int, frequency: float = 440.0) -> bytes:
    time = np.arange(24 * ms) / 24_000
    return (8000 * np.sin(2 * np.pi * frequency * time)).astype("<i2").tobytes()


class StrictServer:
    """One server, any number of connections, each with a conversation of its own."""

    def __init__(self) -> None:
        self.url = ""
        self.peers: list[Peer] = []
        self.received: list[list[Json]] = []
        """Client events, a list for each connection."""
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.violations: list[str] = []
        self.expires_in = 3600.0
        """Seconds that a connection lasts; the server ends it then."""
        self.clock_ahead = 0.0
        """Seconds by which its clock is wrong."""
        self.answer_ms = 600
        self.answer_text: str | Callable[[str], str] = "All right. I heard you."
        """What it answers, or what makes that of the words of the last turn."""
        self.deltas = 3
        self.delta_pause = 0.0
        """Seconds between two pieces of sound; 0 is a burst."""
        self.summary_text = "They talked."
        """The answer to everything that is asked outside of the conversation."""
        self.written_answers = 0
        """So many of the next answers come in writing, though speech was asked for."""
        self.failing_answers: list[Json] = []
        """The next answers fail, each with one of these errors."""
        self.user_words: str | Callable[[bytes], str] = "hello there"
        """What it understands, or what makes that of the sound."""
        self.transcript_delay = 0.05
        self.older_names = False
        self.dialect = GA
        self.input_rate = 24_000
        self.roles = {"user", "assistant", "system"}
        """Whose items it takes."""
        self.can_truncate = True
        """And delete."""
        self.quotes_event_ids = True
        """Errors name the event that they are about; many servers do not."""
        self.on_connect: Callable[[Peer], Awaitable[object]] | None = None
        self.on_event: Callable[[Peer, Json], Awaitable[object] | None] | None = None
        self.on_send: Callable[[Peer, Json], Awaitable[object] | None] | None = None

    def said(self, connection: int, kind: str) -> list[Json]:
        return [event for event in self.received[connection] if event["type"] == kind]

    @contextmanager
    def running(self) -> Iterator[StrictServer]:
        loop = asyncio.new_event_loop()
        started, stop = threading.Event(), asyncio.Event()

        async def run() -> None:
            async with serve(
                self._serve,
                "127.0.0.1",
                0,
                process_response=self._date,
                max_size=None,
                close_timeout=1,
            ) as server:
                port = next(iter(server.sockets)).getsockname()[1]
                self.url = f"ws://127.0.0.1:{port}/v1/realtime"
                started.set()
                await stop.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
        thread.start()
        assert started.wait(30)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(30)
            loop.close()
        assert self.violations == []

    def be_interrupted(self) -> None:
        """Make the first answer so long that no machine is too slow for the user to cut it short.

        When the user speaks again, answers are as they were.
        """
        usual = self.answer_ms, self.deltas, self.answer_text
        self.answer_ms, self.deltas, self.answer_text = 30_000, 60, "I could go on for ever. " * 20
        kind = "input_audio_buffer.speech_started"

        def on_send(peer: Peer, event: Json) -> None:
            if event["type"] == kind and any(each["type"] == kind for each in peer.journal):
                self.answer_ms, self.deltas, self.answer_text = usual

        self.on_send = on_send

    def now(self) -> float:
        """The time by its own clock, in seconds since 1970."""
        return datetime.now(UTC).timestamp() + self.clock_ahead

    def _date(self, _: ServerConnection, request: Request, response: Response) -> None:
        del response.headers["Date"]
        response.headers["Date"] = formatdate(self.now(), usegmt=True)

    async def _serve(self, websocket: ServerConnection) -> None:
        request = websocket.request
        assert request is not None
        self.headers.append(dict(request.headers.raw_items()))
        self.paths.append(request.path)
        if self.dialect is GA and "OpenAI-Beta" in request.headers:
            self.violations.append("OpenAI-Beta header")
        peer = Peer(self, websocket, number=len(self.peers))
        self.peers.append(peer)
        self.received.append(peer.received)
        await asyncio.wait([peer.spawn(self._converse(peer))])  # which notes what goes wrong
        peer.leave()

    async def _converse(self, peer: Peer) -> None:
        if self.on_connect is not None:
            await self.on_connect(peer)
        await peer.open()
        with suppress(ConnectionClosed):
            async for frame in peer.websocket:
                if not peer.is_open:
                    break
                if isinstance(frame, bytes):
                    self.violations.append("binary frame")
                    continue
                event = json.loads(frame)
                peer.note(event)
                self.violations += self.dialect.violations(event)
                instead = self.on_event(peer, event) if self.on_event is not None else None
                await (peer.take(event) if instead is None else instead)


def _updated(old: Json, new: Json) -> Json:
    """A session after an update, of which it takes the fields that are there."""
    nested = ("audio", "input", "output")
    return old | {k: _updated(old[k], v) if k in nested else v for k, v in new.items()}


def words_of(item: Json) -> str:
    """What is said in an item, in writing or in sound."""
    return "".join(part.get("text") or part.get("transcript") or "" for part in item["content"])


class Peer:
    """One connection."""

    def __init__(self, server: StrictServer, websocket: ServerConnection, number: int) -> None:
        self.server = server
        self.websocket = websocket
        self.number = number
        self.is_open = True
        self.received: list[Json] = []
        self.journal: list[Json] = []
        """Events of both sides, in their order."""
        self.items: list[Json] = []
        self.session = _updated(SESSION, {})
        self.is_configured = False
        self.heard = bytearray()
        """All sound that came."""
        self.buffer = bytearray()
        self.loud_item: str | None = None
        self.quiet_bytes = 0
        self.active: str | None = None
        """The response that is being made."""
        self.has_spoken = False
        self.cancelled: dict[str, str] = {}
        """Why, by response."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._floor = asyncio.Lock()
        self._numbers = {kind: count() for kind in ("event_", "item_U", "item_A", "item_", "resp_")}

    def new_id(self, kind: str) -> str:
        return f"{kind}{next(self._numbers[kind])}"

    @property
    def bytes_per_ms(self) -> int:
        """Of what it hears."""
        return self.server.input_rate // 500

    @property
    def vad(self) -> Json:
        return self.session["audio"]["input"]["turn_detection"] or {}

    # What it says --------------------------------------------------------------------------------

    async def send(self, kind: str, **fields: Any) -> None:
        """Say something, unless `on_send` has something else in mind."""
        if self.server.older_names or self.server.dialect.older_names:
            kind = kind.replace("output_audio", "audio").replace("output_text", "text")
        event = {"type": kind, "event_id": self.new_id("event_"), **fields}
        event = json.loads(json.dumps(event))  # items change, events do not
        hook = self.server.on_send
        instead = hook(self, event) if hook is not None else None
        await (self.put(event) if instead is None else instead)

    async def put(self, event: Json, *, after: float = 0.0) -> None:
        """Put an event on the wire, no hook asked, after so many seconds."""
        await asyncio.sleep(after)
        self.is_configured |= event["type"] == "session.updated"
        self.journal.append(event)
        with suppress(ConnectionClosed):
            await self.websocket.send(json.dumps(event))

    async def fail(self, message: str, code: str | None, event: Json) -> None:
        about = event.get("event_id") if self.server.quotes_event_ids else None
        detail = {"type": "invalid_request_error", "code": code, "message": message}
        await self.send("error", error=detail | {"event_id": about, "param": None})

    async def open(self) -> None:
        expires_at = int(self.server.now() + self.server.expires_in)
        self.session |= {"expires_at": expires_at}
        await self.send("session.created", session=self.session)
        self.spawn(self.expire(after=self.server.expires_in))

    async def expire(self, *, after: float = 0.0) -> None:
        await asyncio.sleep(after)
        said = "Your session hit the maximum duration of 60 minutes."
        await self.fail(said, "session_expired", {})
        await self.close(1001, said)

    async def close(self, code: int, reason: str = "") -> None:
        """Hang up; what the client has said meanwhile is not looked at."""
        self.is_open = False
        await self.websocket.close(code, reason)

    def reset(self) -> None:
        """Let the connection end as by a broken network, in the middle of whatever is sent."""
        self.is_open = False
        transport = self.websocket.transport
        transport.get_extra_info("socket").setsockopt(
            SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0)
        )
        transport.abort()

    def leave(self) -> None:
        self.is_open = False
        for task in self._tasks:
            task.cancel()

    def spawn(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end_task)
        return task

    def _end_task(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.server.violations.append(f"the server itself failed: {error!r}")

    # What it hears -------------------------------------------------------------------------------

    def note(self, event: Json) -> None:
        kind = event["type"]
        if not self.received and kind != "session.update":
            self.server.violations.append(f"{kind} before session.update")
        if not self.is_configured and kind not in ("session.update", "conversation.item.create"):
            self.server.violations.append(f"{kind} before session.updated")
        self.received.append(event)
        self.journal.append(event)

    async def take(self, event: Json) -> None:
        match event["type"]:
            case "session.update":
                await self.configure(event)
            case "input_audio_buffer.append":
                pcm = base64.b64decode(event["audio"], validate=True)
                for start in range(0, len(pcm), FRAME_BYTES):
                    await self.hear(pcm[start : start + FRAME_BYTES])
            case "input_audio_buffer.commit":
                if len(self.buffer) < 100 * self.bytes_per_ms:
                    code = "input_audio_buffer_commit_empty"
                    await self.fail("buffer too small", code, event)
                else:
                    begun, self.loud_item = self.loud_item, None
                    await self.commit(begun or self.new_id("item_U"))
            case "input_audio_buffer.clear":
                self.buffer.clear()
                await self.send("input_audio_buffer.cleared")
            case "conversation.item.create":
                await self.create(event)
            case "conversation.item.truncate":
                await self.truncate(event)
            case "conversation.item.delete":
                if not self.server.can_truncate:
                    self.server.violations.append("deleted by a client that should know better")
                elif (item := self.find(event["item_id"])) is None:
                    await self.fail_to("delet", "item_delete_invalid_item_id", event)
                else:
                    self.items.remove(item)
                    await self.send("conversation.item.deleted", item_id=item["id"])
            case "response.create":
                await self.respond(event)
            case "response.cancel":
                if self.active is None:
                    await self.fail("none active", "response_cancel_not_active", event)
                else:
                    self.cancelled.setdefault(self.active, "client_cancelled")
            case _:
                self.server.violations.append(f"unexpected {event['type']}")

    async def configure(self, event: Json) -> None:
        session = _updated(self.session, self.server.dialect.ga(event["session"]))
        voices = [which["audio"]["output"]["voice"] for which in (self.session, session)]
        if self.has_spoken and voices[0] != voices[1]:
            await self.fail("Cannot update a conversation's voice", "cannot_update_voice", event)
            return
        self.session = session
        await self.send("session.updated", session=session)

    def find(self, item_id: str) -> Json | None:
        return next((item for item in self.items if item["id"] == item_id), None)

    async def fail_to(self, do: str, code: str, event: Json) -> None:
        """The item that the event is about is not there."""
        said = f"Error {do}ing item: the item with id '{event['item_id']}' does not exist."
        await self.fail(said, code, event)

    async def create(self, event: Json) -> None:
        item = {"id": self.new_id("item_")} | event["item"]
        item_id, previous = item["id"], event.get("previous_item_id")
        if item["role"] not in self.server.roles:
            self.server.violations.append(f"the role of {item}")
        part = self.server.dialect.assistant_part
        wanted = part if item["role"] == "assistant" else "input_text"
        if any(part["type"] != wanted for part in item["content"]) or not words_of(item):
            self.server.violations.append(f"parts of {item}")
        if len(item_id) > 32:
            self.server.violations.append(f"id of {item}")
        if self.find(item_id) is not None:
            said = f"Error adding item: an item with id '{item_id}' already exists."
            await self.fail(said, "item_create_duplicate_item_id", event)
        elif previous not in (None, "root") and self.find(previous) is None:
            said = f"Error adding item: the previous item with id '{previous}' does not exist."
            await self.fail(said, "item_create_invalid_previous_item_id", event)
        else:
            await self.add(item | {"status": "completed"}, previous)

    async def add(self, item: Json, behind: str | None = None) -> None:
        """Put an item at the end, or behind another; ``root`` is the beginning."""
        ids = [known["id"] for known in self.items]
        place = len(ids) if behind is None else 0 if behind == "root" else ids.index(behind) + 1
        previous = ids[place - 1] if place else None
        self.items.insert(place, item)
        if self.server.older_names or self.server.dialect.older_names:
            await self.send("conversation.item.created", previous_item_id=previous, item=item)
            return
        await self.send("conversation.item.added", previous_item_id=previous, item=item)
        if item["status"] == "completed":
            await self.send("conversation.item.done", previous_item_id=previous, item=item)

    async def truncate(self, event: Json) -> None:
        if not self.server.can_truncate:
            self.server.violations.append("truncated by a client that should know better")
        elif (item := self.find(event["item_id"])) is None:
            await self.fail_to("truncat", "item_truncate_invalid_item_id", event)
        elif "ms" not in item:
            said = "Only model output audio messages can be truncated"
            await self.fail(said, "unsupported_content_type", event)
        else:
            if item["ms"] < event["audio_end_ms"]:
                self.server.violations.append(f"truncated too far: {event}")
            item["content"] = [{"type": "output_audio", "transcript": ""}]
            fields = {k: event[k] for k in ("item_id", "content_index", "audio_end_ms")}
            await self.send("conversation.item.truncated", **fields)

    async def hear(self, pcm: bytes) -> None:
        """Take in a frame at most."""
        self.heard += pcm
        self.buffer += pcm
        if not self.vad:
            return
        loud = np.abs(np.frombuffer(pcm, "<i2").astype(int)).max(initial=0) > 1000
        now_ms = len(self.heard) // self.bytes_per_ms
        self.quiet_bytes = 0 if loud else self.quiet_bytes + len(pcm)
        if loud and self.loud_item is None:
            self.loud_item = self.new_id("item_U")
            if self.active is not None and self.vad["interrupt_response"]:
                self.cancelled.setdefault(self.active, "turn_detected")
            start_ms = now_ms - len(pcm) // self.bytes_per_ms - self.vad.get("prefix_padding_ms", 0)
            await self.send(
                "input_audio_buffer.speech_started",
                item_id=self.loud_item,
                audio_start_ms=max(0, start_ms),
            )
        elif self.loud_item and self.quiet_bytes >= self.bytes_per_ms * self.vad.get(
            "silence_duration_ms", 500
        ):
            item, self.loud_item = self.loud_item, None
            await self.send("input_audio_buffer.speech_stopped", item_id=item, audio_end_ms=now_ms)
            await self.commit(item)
            if self.vad["create_response"]:
                self.spawn(self.answer())

    async def commit(self, item_id: str) -> None:
        words = self.server.user_words
        words = words if isinstance(words, str) else words(bytes(self.buffer))
        self.buffer.clear()
        previous = self.items[-1]["id"] if self.items else None
        await self.send("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous)
        item: Json = {"id": item_id, "type": "message", "role": "user", "status": "completed"}
        item["content"] = [{"type": "input_audio", "transcript": None}]
        await self.add(item)
        item["content"] = [{"type": "input_audio", "transcript": words}]
        if self.session["audio"]["input"]["transcription"] is not None:
            self.spawn(self.transcribe(item_id, words))

    async def transcribe(self, item_id: str, words: str) -> None:
        await asyncio.sleep(self.server.transcript_delay)
        await self.send(
            "conversation.item.input_audio_transcription.completed",
            item_id=item_id,
            content_index=0,
            transcript=words,
            usage={"type": "duration", "seconds": 1},
        )

    # What it answers -----------------------------------------------------------------------------

    async def respond(self, event: Json) -> None:
        options = event.get("response") or {}
        if options.get("conversation") == "none":
            self.spawn(self.answer_outside(options))
        elif self.active is not None:
            code = "conversation_already_has_active_response"
            said = f"Conversation already has an active response in progress: {self.active}."
            await self.fail(said, code, event)
        else:
            self.active = self.new_id("resp_")
            self.spawn(self.answer(self.active, options))

    async def answer_outside(self, options: Json) -> None:
        """A response that the conversation does not notice."""
        response: Json = {"id": self.new_id("resp_"), "conversation_id": None, "output": []}
        response["metadata"] = options.get("metadata")
        item: Json = {"id": self.new_id("item_A"), "type": "message", "role": "assistant"}
        if options.get("output_modalities") != ["text"]:
            self.server.violations.append(f"speech outside of the conversation: {options}")
        await self.send("response.created", response=response | {"status": "in_progress"})
        place = {"response_id": response["id"], "output_index": 0}
        await self.send("response.output_item.added", **place, item=item | {"content": []})
        item["content"] = await self.write(
            place | {"item_id": item["id"]}, self.server.summary_text
        )
        await self.send("response.output_item.done", **place, item=item)
        response |= {"status": "completed", "output": [item], "usage": self.usage(item)}
        await self.send("response.done", response=response)

    async def answer(self, response_id: str = "", options: Json | None = None) -> None:
        """One response, in the order of the real thing."""
        async with self._floor:
            self.active = response_id = response_id or self.new_id("resp_")
            response: Json = {"id": response_id, "conversation_id": "conv_1", "output": []}
            await self.send("response.created", response=response | {"status": "in_progress"})
            if self.server.failing_answers:
                error = self.server.failing_answers.pop(0)
                response |= {"status_details": {"type": "failed", "error": error}}
                response |= {"status": "failed"}
            else:
                response |= await self.speak(response_id, options or {})
            self.active = None
            await self.send("response.done", response=response)
        limits = [{"name": "tokens", "limit": 1000, "remaining": 900, "reset_seconds": 0.1}]
        await self.send("rate_limits.updated", rate_limits=limits)

    async def speak(self, response_id: str, options: Json) -> Json:
        """The one item of a response; returns how the response ended."""
        text = self.server.answer_text
        if not isinstance(text, str):
            users = [words_of(item) for item in self.items if item["role"] == "user"]
            text = text(users[-1] if users else "")
        item_id = self.new_id("item_A")
        item: Json = {"id": item_id, "type": "message", "role": "assistant"}
        item |= {"status": "in_progress", "content": []}
        place = {"response_id": response_id, "output_index": 0}
        await self.send("response.output_item.added", **place, item=item)
        previous = self.items[-1]["id"] if self.items else None
        await self.add(item)
        modalities = options.get("output_modalities", self.session["output_modalities"])
        is_written = modalities == ["text"]
        if not is_written and self.server.written_answers:
            self.server.written_answers -= 1
            is_written = True
        ids = place | {"item_id": item_id}
        item["content"] = await (self.write(ids, text) if is_written else self.say(item, ids, text))
        reason = self.cancelled.get(response_id)
        item["status"] = "incomplete" if reason else "completed"
        await self.send("conversation.item.done", item=item, previous_item_id=previous)
        await self.send("response.output_item.done", **place, item=item)
        return {
            "status": "cancelled" if reason else "completed",
            "status_details": {"type": "cancelled", "reason": reason} if reason else None,
            "output": [item],
            "usage": self.usage(item),
        }

    async def write(self, ids: Json, text: str) -> list[Json]:
        """An answer in writing; returns the content of the item."""
        ids = ids | {"content_index": 0}
        part = {"type": "text", "text": ""}
        await self.send("response.content_part.added", **ids, part=part)
        await self.send("response.output_text.delta", **ids, delta=text)
        await self.send("response.output_text.done", **ids, text=text)
        await self.send("response.content_part.done", **ids, part=part | {"text": text})
        return [{"type": "output_text", "text": text}]

    async def say(self, item: Json, ids: Json, text: str) -> list[Json]:
        """A spoken answer; its words come a little ahead of its sound."""
        ids = ids | {"content_index": 0}
        part = {"type": "audio", "transcript": ""}
        await self.send("response.content_part.added", **ids, part=part)
        self.has_spoken = True
        pcm, words, said = tone(self.server.answer_ms), text.split(" "), 0
        size = -(-len(pcm) // self.server.deltas)
        for start in range(0, len(pcm), size):
            piece = pcm[start : start + size]
            while said * len(pcm) < (start + len(piece)) * len(words):
                delta = f" {words[said]}" if said else words[said]
                await self.send("response.output_audio_transcript.delta", **ids, delta=delta)
                said += 1
            if ids["response_id"] in self.cancelled:
                break
            item["ms"] = (start + len(piece)) // 48
            delta = base64.b64encode(piece).decode()
            await self.send("response.output_audio.delta", **ids, delta=delta)
            await asyncio.sleep(self.server.delta_pause)
        text = " ".join(words[:said])
        await self.send("response.output_audio.done", **ids)
        await self.send("response.output_audio_transcript.done", **ids, transcript=text)
        await self.send("response.content_part.done", **ids, part=part | {"transcript": text})
        return [{"type": "output_audio", "transcript": text}]

    def usage(self, answer: Json) -> Json:
        """What a response took: a token a word, and 20 for a second of its own sound."""
        text_in = sum(len(words_of(item).split()) for item in self.items if item is not answer)
        text_out, audio_out = len(words_of(answer).split()), answer.get("ms", 0) // 50
        details = {"text_tokens": text_in, "audio_tokens": 0, "image_tokens": 0}
        cached = {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0}
        return {
            "total_tokens": text_in + text_out + audio_out,
            "input_tokens": text_in,
            "output_tokens": text_out + audio_out,
            "input_token_details": details | {"cached_tokens": 0, "cached_tokens_details": cached},
            "output_token_details": {"text_tokens": text_out, "audio_tokens": audio_out},
        }
