"""A trivial Realtime server in a process of its own, at a distance that can be chosen.

It confirms ``session.update`` and every item, echoing the item as a real server does, and answers
each utterance (`bench.ear`) at once, so that what a client waits for is the distance and the client
itself.

The distance is made by handling what arrives, and sending what leaves, half a round trip later.
Nothing waits for the one before it: a burst pays for the distance once, as on a real network.

On standard output it tells its address, then ``configured`` as soon as a ``session.update`` is
there, and when the client is gone ``heard NUMBERS``, if it sent any sound, and ``took SECONDS``:
the processor time that it needed itself, from ``session.created`` to the last acknowledgement.
"""

import asyncio
import json
import subprocess
import sys
import time
from base64 import b64decode
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from bench.ear import Ear


class Peer(asyncio.Protocol):
    """One connection."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self._websocket = ServerProtocol(max_size=None)
        self._transport: asyncio.Transport
        self._arriving: deque[bytes] = deque()
        self._leaving: deque[bytes] = deque()
        self._last_item: str | None = None
        self._ear = Ear()
        self._started = 0.0
        self._took = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to send to."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Handle it once it has travelled half a round trip."""
        self._arriving.append(data)
        self._after_a_delay(self._arrive)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell what was heard, and how long our own part took."""
        if self._ear.numbers:
            print("heard", *self._ear.numbers)
        print(f"took {self._took:.9f}", flush=True)

    def _after_a_delay(self, do: Any) -> None:
        if self._delay:
            self._loop.call_later(self._delay, do)
        else:
            do()

    def _arrive(self) -> None:
        self._websocket.receive_data(self._arriving.popleft())
        for event in self._websocket.events_received():
            if isinstance(event, Request):
                self._websocket.send_response(self._websocket.accept(event))
                self._started = time.process_time()
                self._send('{"type":"session.created","session":{"type":"realtime"}}')
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                self._take(json.loads(bytes(event.data)))
        self._leaving.append(b"".join(self._websocket.data_to_send()))
        self._after_a_delay(self._leave)

    def _leave(self) -> None:
        if data := self._leaving.popleft():
            self._transport.write(data)
        if self._websocket.state is State.OPEN:
            self._took = time.process_time() - self._started
        elif not self._leaving:
            self._transport.close()

    def _take(self, event: dict[str, Any]) -> None:
        if event["type"] == "session.update":
            self._send(f'{{"type":"session.updated","session":{json.dumps(event["session"])}}}')
            print("configured", flush=True)
        elif event["type"] == "conversation.item.create":
            previous = json.dumps(self._last_item)
            rest = f'"previous_item_id":{previous},"item":{json.dumps(event["item"])}}}'
            self._last_item = event["item"]["id"]
            self._send(f'{{"type":"conversation.item.added","event_id":"event_1",{rest}')
            self._send(f'{{"type":"conversation.item.done","event_id":"event_2",{rest}')
        elif event["type"] == "input_audio_buffer.append":
            for said in self._ear.hear(b64decode(event["audio"]), self._last_item):
                self._send(json.dumps(said))
                if said["type"] == "conversation.item.done":
                    self._last_item = said["item"]["id"]

    def _send(self, text: str) -> None:
        if self._websocket.state is State.OPEN:  # else it hung up behind what it said
            self._websocket.send_text(text.encode())


class Server:
    """The server as its parent sees it."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.url = self._line()

    def wait_until_configured(self) -> None:
        """Return when a client's ``session.update`` has arrived."""
        while self._line() != "configured":
            pass

    def took(self) -> float:
        """Wait until the client is gone; return the seconds that the server itself needed."""
        while not (line := self._line()).startswith("took "):
            pass
        return float(line.split()[1])

    def heard(self) -> list[int]:
        """Wait until a client that spoke is gone; return the numbers of its frames, in order."""
        while not (line := self._line()).startswith("heard "):
            pass
        return [int(number) for number in line.split()[1:]]

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the benchmark's own server has died")
        return line.strip()


@contextmanager
def running(round_trip_ms: float) -> Iterator[Server]:
    """Run the server at this distance."""
    command = [sys.executable, "-m", "bench.server", str(round_trip_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


async def _serve(round_trip_ms: float) -> None:
    delay = round_trip_ms / 2000
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Peer(delay), "127.0.0.1", 0)
    print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/realtime", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1])))
