"""What stands between a program and a server: proxies, and TLS with certificates for a test."""

from __future__ import annotations

import asyncio
import base64
import ssl
import subprocess
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

Serve = Callable[[StreamReader, StreamWriter], Awaitable[object]]


@contextmanager
def listening(serve: Serve, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve on 127.0.0.1 in a thread of its own; yields the port."""
    loop, started, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    port = 0
    tasks = set[asyncio.Task[None]]()

    async def hold(reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()

    def accept(reader: StreamReader, writer: StreamWriter) -> None:
        task = loop.create_task(hold(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def run() -> None:
        nonlocal port
        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        started.set()
        await stop.wait()
        server.close()
        for task in [*tasks]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()


@contextmanager
def refusing(status: str, body: str | bytes) -> Iterator[str]:
    """A server that answers every handshake so, such as by ``404 Not Found``; yields its URL."""
    content = body.encode() if isinstance(body, str) else body

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n\r\n".encode())
        writer.write(content)
        await writer.drain()

    with listening(serve) as port:
        yield f"ws://127.0.0.1:{port}/v1/realtime"


async def carry(reader: StreamReader, writer: StreamWriter, port: int) -> None:
    """Carry bytes to a port of this machine, and back."""
    there, back = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(_pump(reader, back), _pump(there, writer))


async def _pump(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(OSError):
        while block := await reader.read(65_536):
            writer.write(block)
            await writer.drain()
    writer.close()


class Proxy:
    """An HTTP proxy that knows CONNECT, and a SOCKS 5 proxy, for any name.

    Args:
        port: Where every host that is asked for is, on this machine.
        login: User and password, with a colon between them, if they are wanted.
        status: What it says to everything, if it lets nobody through.
    """

    def __init__(self, port: int, *, login: str = "", status: str = "") -> None:
        self.asked: list[str] = []
        """HOST:PORT of each connection that was let through."""
        self._port = port
        self._login = login
        self._status = status

    async def http(self, reader: StreamReader, writer: StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = request.split(" ", 2)
        assert method == "CONNECT"
        wanted = f"Proxy-Authorization: Basic {base64.b64encode(self._login.encode()).decode()}"
        status = self._status
        if self._login and wanted not in request:
            status = "407 Proxy Authentication Required"
        if status:
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            return
        self.asked.append(target)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await carry(reader, writer, self._port)

    async def socks(self, reader: StreamReader, writer: StreamWriter) -> None:
        """RFC 1928 and RFC 1929."""
        version, count = await reader.readexactly(2)
        assert version == 5
        methods = await reader.readexactly(count)
        method = 2 if self._login else 0
        if method not in methods:
            writer.write(b"\x05\xff")
            return
        writer.write(bytes([5, method]))
        if self._login:
            _, length = await reader.readexactly(2)
            user = await reader.readexactly(length)
            password = await reader.readexactly((await reader.readexactly(1))[0])
            is_right = f"{user.decode()}:{password.decode()}" == self._login
            writer.write(bytes([1, not is_right]))
            if not is_right:
                return
        _, command, _, kind = await reader.readexactly(4)
        assert (command, kind) == (1, 3)  # CONNECT, to a name that is for us to look up
        name = await reader.readexactly((await reader.readexactly(1))[0])
        port = int.from_bytes(await reader.readexactly(2))
        writer.write(bytes([5, 2 if self._status else 0, 0, 1, 0, 0, 0, 0, 0, 0]))
        if not self._status:
            self.asked.append(f"{name.decode()}:{port}")
            await carry(reader, writer, self._port)


class Authority:
    """Makes certificates in a directory, by ``openssl``."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.certificate = place / "authority.pem"
        self._openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=Test authority"),
            *("-days", "2", "-keyout", "authority.key", "-out", self.certificate),
        )

    def serving(self, *names: str, days: int = 2) -> ssl.SSLContext:
        """What a server with these names needs; of its certificate so many days are left."""
        stem = names[0]
        self._openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={stem}"),
            *("-keyout", f"{stem}.key", "-out", f"{stem}.csr"),
        )
        kinds = [f"{'IP' if name[0].isdigit() else 'DNS'}:{name}" for name in names]
        (self._place / "names").write_text(f"subjectAltName={','.join(kinds)}\n")
        self._openssl(
            *("x509", "-req", "-in", f"{stem}.csr", "-CA", "authority.pem"),
            *("-CAkey", "authority.key", "-CAcreateserial", "-extfile", "names"),
            *("-days", str(days), "-out", f"{stem}.pem"),
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._place / f"{stem}.pem", self._place / f"{stem}.key")
        return context

    def _openssl(self, *arguments: str | Path) -> None:
        run = ["openssl", *map(str, arguments)]
        subprocess.run(run, cwd=self._place, check=True, capture_output=True)
