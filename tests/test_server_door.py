"""The server's door over real sockets: who is let in, and what is said to those who are not."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from voicechat.server.serve import Address, serve
from voicechat.server.workshop import MODEL, Engines

Json = dict[str, Any]


def served(story: Callable[[Address], Awaitable[None]], engines: Engines | None = None) -> None:
    """Play a story with a server."""

    async def run() -> None:
        async with asyncio.timeout(30), serve(engines or Engines()) as address:
            await story(address)

    asyncio.run(run())


def knock(address: Address, query: str = f"?model={MODEL}", **headers: str) -> connect:
    headers = {"Authorization": f"Bearer {address.key}", **headers}
    return connect(address.url + query, additional_headers=headers)


async def hear(client: ClientConnection) -> Json:
    answer: Json = json.loads(await client.recv())
    return answer


async def tell(client: ClientConnection, kind: str, **fields: Any) -> None:
    await client.send(json.dumps({"type": kind, **fields}))


@pytest.mark.parametrize(
    ("query", "headers", "code", "close_code"),
    [
        (f"?model={MODEL}", {"Authorization": "Bearer wrong"}, "invalid_api_key", 3000),
        (f"?model={MODEL}", {"OpenAI-Beta": "realtime=v1"}, "beta_api_shape_disabled", 4000),
        ("", {}, "missing_model", 4000),
        ("?model=gpt-realtime", {}, "invalid_model", 4000),
    ],
)
def test_who_is_turned_away_is_told_why_after_the_upgrade(
    query: str, headers: dict[str, str], code: str, close_code: int
) -> None:
    async def story(address: Address) -> None:
        async with knock(address, query, **headers) as client:
            error = await hear(client)
            assert error["type"] == "error"
            assert error["event_id"]
            assert error["error"]["code"] == code
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == close_code
            assert client.close_reason == f"invalid_request_error.{code}"

    served(story)


def test_nothing_else_is_served() -> None:
    async def story(address: Address) -> None:
        with pytest.raises(InvalidStatus) as refused:
            await connect(address.url.replace("realtime", "chat"))
        assert refused.value.response.status_code == 404

    served(story)


def test_frames_that_are_no_events_are_refused_and_the_session_goes_on() -> None:
    async def story(address: Address) -> None:
        async with knock(address) as client:
            assert (await hear(client))["type"] == "session.created"
            await client.send(b"\x00\x01")
            assert (await hear(client))["error"]["code"] == "invalid_event"
            await client.send("{nonsense")
            assert (await hear(client))["error"]["code"] == "invalid_json"
            await client.send('{"type": "conversation.item.delete", "event_id": "mine"}')
            error = (await hear(client))["error"]
            assert (error["code"], error["event_id"]) == ("missing_required_parameter", "mine")
            await tell(client, "session.update", session={"type": "realtime"})
            assert (await hear(client))["type"] == "session.updated"

    served(story)


def test_clients_have_sessions_of_their_own() -> None:
    async def story(address: Address) -> None:
        async with knock(address) as one, knock(address) as two:
            first, second = await hear(one), await hear(two)
            assert first["session"]["id"] != second["session"]["id"]
            await tell(one, "session.update", session={"type": "realtime", "instructions": "x"})
            await hear(one)
            await one.close()
            await tell(two, "session.update", session={"type": "realtime"})
            assert (await hear(two))["session"]["instructions"] == ""

    served(story)


def test_without_engines_the_answer_is_one_sentence_that_says_how_to_get_them() -> None:
    async def story(address: Address) -> None:
        async with knock(address) as client:
            part = {"type": "input_text", "text": "Hello"}
            item = {"type": "message", "role": "user", "content": [part]}
            await tell(client, "conversation.item.create", item=item)
            await tell(client, "response.create")
            while (event := await hear(client))["type"] != "response.output_text.done":
                assert event["type"] != "error"
            assert "pip install 'voicechat[local]'" in event["text"]

    served(story)


def test_a_session_that_expires_is_closed_with_1001() -> None:
    async def run() -> None:
        async with (
            asyncio.timeout(30),
            serve(Engines(), lifetime=0.2) as address,
            knock(address) as client,
        ):
            await hear(client)
            assert (await hear(client))["error"]["code"] == "session_expired"
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1001

    asyncio.run(run())
