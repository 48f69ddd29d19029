"""The official client completes turns with the built-in server, and believes every event."""

import asyncio
import json
import wave
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from voicechat import pcm
from voicechat.resampling import resample
from voicechat.server.launch import LocalServer, local_server

pytestmark = pytest.mark.local

SPEECH = Path(__file__).parent / "speech"
EVENTS: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
Json = dict[str, Any]
Hear = Callable[[str], Awaitable[list[Json]]]


def speech(name: str) -> bytes:
    """A recording as PCM16, 24 kHz."""
    with wave.open(str(SPEECH / f"{name}.wav")) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        rate = file.getframerate()
    samples = resample(sound.astype(np.float32), rate, pcm.SAMPLE_RATE)
    return np.clip(np.round(samples), -32768, 32767).astype("<i2").tobytes()


@pytest.fixture(scope="module")
def home() -> Iterator[tuple[asyncio.Runner, LocalServer]]:
    """A server with all its engines, and the loop it was started on."""
    with asyncio.Runner() as runner:
        context = local_server()
        server = runner.run(enter(context))
        yield runner, server
        runner.run(leave(context))


async def enter(context: AbstractAsyncContextManager[LocalServer]) -> LocalServer:
    return await context.__aenter__()


async def leave(context: AbstractAsyncContextManager[LocalServer]) -> None:
    await context.__aexit__(None, None, None)


Home = tuple[asyncio.Runner, LocalServer]
Story = Callable[[AsyncRealtimeConnection, Hear], Awaitable[None]]


def converse(home: Home, story: Story) -> None:
    """Connect the official client to the server."""
    runner, server = home

    async def run() -> None:
        async with asyncio.timeout(90):
            client = AsyncOpenAI(
                api_key=server.key,
                base_url="http://127.0.0.1:9/v1",
                websocket_base_url=server.url.removesuffix("/realtime"),
            )
            async with client, client.realtime.connect(model=server.model) as connection:

                async def hear(last: str) -> list[Json]:
                    events: list[Json] = []
                    while not events or events[-1]["type"] != last:
                        event: Json = json.loads(await connection.recv_bytes())
                        EVENTS.validate_python(event)  # strictly, unlike the client itself
                        assert event["type"] != "error", event
                        events.append(event)
                    return events

                await hear("session.created")
                await story(connection, hear)

    runner.run(run())


def voiced(events: list[Json]) -> float:
    """Loudness of what was said, as the root of the mean square."""
    deltas = [e["delta"] for e in events if e["type"] == "response.output_audio.delta"]
    sound = np.frombuffer(b"".join(b64decode(delta) for delta in deltas), "<i2")
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))) if len(sound) else 0.0


def test_a_typed_turn_is_answered_aloud(home: Home) -> None:
    async def story(connection: AsyncRealtimeConnection, hear: Hear) -> None:
        await connection.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "What is the capital of France?"}],
            }
        )
        await connection.response.create()
        events = await hear("rate_limits.updated")
        response = events[-2]["response"]
        assert response["status"] == "completed"
        assert "Paris" in response["output"][0]["content"][0]["transcript"]
        assert voiced(events) > 500

    converse(home, story)


@pytest.mark.parametrize(
    ("name", "words"),
    [("hb_02", {"capital", "france"}), ("austen_0880", {"not", "young", "man"})],
)
def test_a_spoken_turn_is_heard_and_answered_aloud(home: Home, name: str, words: set[str]) -> None:
    async def story(connection: AsyncRealtimeConnection, hear: Hear) -> None:
        await connection.session.update(
            session={
                "type": "realtime",
                "audio": {
                    "input": {
                        "transcription": {"model": "whisper-1", "language": "en"},
                        "turn_detection": {"type": "server_vad", "silence_duration_ms": 600},
                    }
                },
            }
        )
        await hear("session.updated")
        sound = speech(name) + pcm.silence(1200)
        for start in range(0, len(sound), pcm.FRAME_BYTES):
            frame = sound[start : start + pcm.FRAME_BYTES]
            await connection.input_audio_buffer.append(audio=b64encode(frame).decode())
        events = await hear("rate_limits.updated")
        kinds = [event["type"] for event in events]
        assert kinds.index("input_audio_buffer.speech_started") < kinds.index(
            "input_audio_buffer.committed"
        )
        [heard] = [e["transcript"] for e in events if e["type"].endswith("transcription.completed")]
        assert words <= set(heard.lower().replace("?", "").replace(".", "").split())
        assert events[-2]["response"]["output"][0]["content"][0]["transcript"]
        assert voiced(events) > 500

    converse(home, story)
