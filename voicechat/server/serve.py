"""The room's door: a WebSocket server on this machine's own address, and sessions behind it."""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from threading import Event as Flag
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as websocket_server
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from voicechat.pcm import BYTES_PER_MS
from voicechat.realtime.events import CLIENT_EVENTS, Error, MalformedError, decode, encode
from voicechat.server import contract
from voicechat.server.session import LIFETIME, ServerSession
from voicechat.server.workshop import MODEL, Engines, Workshop

PATH = "/v1/realtime"
LARGEST_FRAME = 1 << 25  # "up to 15 MiB of audio" in one append, which is 20 MiB of base64
PING_SECONDS = 20
LISTEN_BYTES = 1000 * BYTES_PER_MS
"""Voice activity is worked out so much at a time, so that clients take turns."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is, and what opens it."""

    url: str
    """Of the WebSocket, without ``?model=``."""
    key: str


@contextlib.asynccontextmanager
async def serve(
    engines: Engines, *, key: str | None = None, port: int = 0, lifetime: float = LIFETIME
) -> AsyncIterator[Address]:
    """Serve sessions on 127.0.0.1 while the context is open; port 0 takes one that is free.

    Raises:
        OSError: The port is taken.
    """
    key = key or secrets.token_urlsafe(24)
    with Workshop(engines).open() as workshop:

        async def meet(websocket: ServerConnection) -> None:
            with contextlib.suppress(ConnectionClosed):
                if await _is_admitted(websocket, key):
                    await _Client(websocket, workshop, lifetime).run()

        async with websocket_server(
            meet,
            "127.0.0.1",
            port,
            process_request=_check_path,
            max_size=LARGEST_FRAME,
            ping_interval=PING_SECONDS,
            ping_timeout=None,  # a client that is busy computing is not gone
            compression=None,
            close_timeout=1,
        ) as server:
            port = server.sockets[0].getsockname()[1]
            yield Address(f"ws://127.0.0.1:{port}{PATH}", key)


def _check_path(websocket: ServerConnection, request: Request) -> Response | None:
    if urlsplit(request.path).path.rstrip("/") == PATH:
        return None
    return websocket.respond(HTTPStatus.NOT_FOUND, f"The Realtime API is at {PATH}.\n")


async def _is_admitted(websocket: ServerConnection, key: str) -> bool:
    """Check what real servers check only after the upgrade: key, API version, model."""
    request = websocket.request
    assert request is not None
    query = parse_qs(urlsplit(request.path).query)
    models = query.get("model", [""])
    given = request.headers.get("Authorization", "")
    if not secrets.compare_digest(given.encode(), f"Bearer {key}".encode()):
        return await _turn_away(
            websocket, 3000, "invalid_api_key", "Incorrect API key provided.", None
        )
    if "OpenAI-Beta" in request.headers:
        message = "The beta API shape is no longer supported. Leave out the OpenAI-Beta header."
        return await _turn_away(websocket, 4000, "beta_api_shape_disabled", message, None)
    if not models[0]:
        message = "You must provide a model parameter."
        return await _turn_away(websocket, 4000, "missing_model", message, "model")
    if models[0] != MODEL:
        message = f'Model "{models[0]}" is not supported in realtime mode. It is "{MODEL}" here.'
        return await _turn_away(websocket, 4000, "invalid_model", message, "model")
    return True


async def _turn_away(
    websocket: ServerConnection, close_code: int, code: str, message: str, param: str | None
) -> bool:
    kind = "invalid_request_error"
    error = {"type": kind, "code": code, "message": message, "param": param, "event_id": None}
    await websocket.send(encode(Error(error, f"event_{secrets.token_hex(8)}")))
    await websocket.close(close_code, f"{kind}.{code}")
    return False


class _Client:
    """One connection: a session, its inbox, and the loop between them."""

    def __init__(self, websocket: ServerConnection, workshop: Workshop, lifetime: float) -> None:
        self._websocket = websocket
        self._workshop = workshop
        self._inbox: asyncio.Queue[contract.Input | None] = asyncio.Queue()
        self._unheard: asyncio.Queue[bytes] = asyncio.Queue()
        self._stops: dict[str, Flag] = {}
        self._session = ServerSession(
            self._now(),
            name=secrets.token_hex(6),
            model=MODEL,
            can_speak=workshop.engines.voice is not None,
            started_at=int(time.time()),  # noqa: TID251  # expires_at is wall time on the wire
            lifetime=lifetime,
        )

    async def run(self) -> None:
        """Hold the session until either side closes."""
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read())
                listening = tasks.create_task(self._listen())
                with contextlib.suppress(ConnectionClosed):
                    await self._talk()
                reading.cancel()
                listening.cancel()
        finally:
            for stop in self._stops.values():
                stop.set()

    async def _talk(self) -> None:
        """Take what happened out of the inbox, ask the session, do what it wants."""
        await self._perform(self._session.start())
        while True:
            try:
                async with asyncio.timeout_at(self._session.deadline):
                    happened = await self._inbox.get()
            except TimeoutError:
                happened = contract.DeadlineReached()
            if happened is None or not await self._perform(
                self._session.handle(happened, self._now())
            ):
                return

    async def _perform(self, effects: list[contract.Effect]) -> bool:
        """Do what the session wants; returns whether it goes on."""
        for effect in effects:
            match effect:
                case contract.Say(event):
                    await self._websocket.send(encode(event))
                case contract.Listen(pcm):
                    self._unheard.put_nowait(pcm)
                case contract.Transcribe():
                    self._workshop.transcribe(effect, self._inbox.put_nowait)
                case contract.Generate() | contract.Utter():
                    stop = self._stops[effect.response_id] = Flag()
                    self._workshop.answer(effect, self._inbox.put_nowait, stop)
                case contract.Stop(response_id):
                    if response_id in self._stops:
                        self._stops.pop(response_id).set()
                case contract.Close(code, reason):
                    await self._websocket.close(code, reason)
                    return False
        return True

    async def _read(self) -> None:
        """From the socket into the inbox; None when the client is gone."""
        with contextlib.suppress(ConnectionClosed):
            async for message in self._websocket:
                try:
                    self._inbox.put_nowait(contract.Received(decode(message, CLIENT_EVENTS)))
                except MalformedError as error:
                    self._inbox.put_nowait(contract.FrameRefused(error, _event_id(message)))
        self._inbox.put_nowait(None)

    async def _listen(self) -> None:
        """From what was appended to how likely speech is in it, in order."""
        detector = self._workshop.engines.detector()
        while True:
            pcm = await self._unheard.get()
            for start in range(0, len(pcm), LISTEN_BYTES):
                heard = await self._workshop.listen(detector, pcm[start : start + LISTEN_BYTES])
                self._inbox.put_nowait(heard)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _event_id(message: str | bytes) -> str | None:
    """The client's own name for a frame that is refused, if it can be made out."""
    with contextlib.suppress(ValueError, RecursionError):
        payload = json.loads(message)
        if isinstance(payload, dict) and isinstance(payload.get("event_id"), str):
            return str(payload["event_id"])
    return None
