"""The network between a program and a server, which may break."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from socket import SO_LINGER, SOL_SOCKET
from urllib.parse import urlsplit


class FaultProxy:
    """Carries bytes between 127.0.0.1 and a server, until told otherwise, from any thread.

    Args:
        target: Where to, as a URL; asked at every connection.
    """

    def __init__(self, target: Callable[[], str]) -> None:
        self.url = ""
        self.delay = 0.0
        """Seconds that every byte is late, both ways."""
        self.opened_at: list[float] = []
        """When each connection came, those that were refused included; monotonic."""
        self.refused = 0
        """Connections that were answered by an HTTP error."""
        self._target = target
        self._refusal = ""
        self._refusing_for = 0.0
        self._refusing_since: float | None = None
        self._swallows_new = False
        self._lines: set[_Line] = set()
        self._loop = asyncio.new_event_loop()

    @property
    def connections(self) -> int:
        return len(self.opened_at)

    @contextmanager
    def running(self) -> Iterator[FaultProxy]:
        started, stop = threading.Event(), asyncio.Event()

        async def run() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/realtime"
            started.set()
            await stop.wait()
            server.close()
            await asyncio.gather(*(line.close() for line in self._lines))

        thread = threading.Thread(target=lambda: self._loop.run_until_complete(run()), daemon=True)
        thread.start()
        assert started.wait(30)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(stop.set)
            thread.join(30)
            self._loop.close()

    # Faults --------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Every connection ends at once, by RST."""
        self._loop.call_soon_threadsafe(self._on_each_line, _Line.reset)

    def swallow(self, *, new: bool = False) -> None:
        """A black hole: nothing comes through any more, either way, and nothing is closed.

        Args:
            new: So it is with new connections, too, until `heal`.
        """
        self._swallows_new = new
        self._loop.call_soon_threadsafe(self._on_each_line, _Line.swallow)

    def refuse(self, status: str, seconds: float, body: str = "") -> None:
        """Answer connections by an HTTP error, such as ``503 Service Unavailable``.

        Args:
            status: What is said.
            seconds: For how long, from the first that comes.
            body: What else is said.
        """
        self._refusal = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        self._refusing_for, self._refusing_since = seconds, None

    def heal(self) -> None:
        """New connections work again."""
        self._refusing_for, self._swallows_new, self.delay = 0.0, False, 0.0

    # The work ------------------------------------------------------------------------------------

    def _on_each_line(self, do: Callable[[_Line], None]) -> None:
        for line in self._lines:
            do(line)

    def _is_refusing(self, now: float) -> bool:
        if self._refusing_for and self._refusing_since is None:
            self._refusing_since = now
        return now < (self._refusing_since or 0.0) + self._refusing_for

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        now = time.monotonic()
        self.opened_at.append(now)
        line = _Line(self, reader, writer)
        self._lines.add(line)
        with suppress(OSError, asyncio.IncompleteReadError):
            if self._is_refusing(now):
                self.refused += 1
                await reader.readuntil(b"\r\n\r\n")
                writer.write(self._refusal.encode())
                writer.close()
                return
            parts = urlsplit(self._target())
            await line.carry(*await asyncio.open_connection(parts.hostname, parts.port))


class _Line:
    """One connection of a client's, and the one to the server that belongs to it."""

    def __init__(self, proxy: FaultProxy, reader: StreamReader, writer: StreamWriter) -> None:
        self._proxy = proxy
        self._client = (reader, writer)
        self._writers = [writer]
        self._is_carrying = asyncio.Event()
        if not proxy._swallows_new:
            self._is_carrying.set()

    async def carry(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Carry bytes both ways, until either side has had enough."""
        self._writers.append(writer)
        await asyncio.gather(
            self._pump(self._client[0], writer), self._pump(reader, self._client[1])
        )

    async def _pump(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(OSError):
            while block := await reader.read(65_536):
                await asyncio.sleep(self._proxy.delay)
                await self._is_carrying.wait()
                writer.write(block)
                await writer.drain()
        await self._is_carrying.wait()
        writer.close()

    def swallow(self) -> None:
        self._is_carrying.clear()

    def reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        for writer in self._writers:
            if not writer.is_closing():
                writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)
            writer.transport.abort()

    async def close(self) -> None:
        self._is_carrying.set()
        for writer in self._writers:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()
