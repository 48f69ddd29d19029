"""The room's door: one WebSocket that carries events."""

import asyncio
import logging
import re
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import fields
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)

from voicechat.errors import (
    AuthenticationError,
    BusyError,
    ConnectError,
    ModelError,
    ProtocolError,
    UsageError,
    VoicechatError,
)
from voicechat.pcm import BYTES_PER_MS
from voicechat.realtime.events import (
    SERVER_EVENTS,
    Event,
    InputAudioBufferAppend,
    Json,
    MalformedError,
    UnknownEvent,
    decode,
    encode,
)
from voicechat.realtime.masking import SHORTEST_SECRET, Clean, cleaning, plain
from voicechat.realtime.network import (
    Network,
    explain_certificate,
    explain_proxy,
    model_in,
    proxy_for,
    shown,
)
from voicechat.realtime.problems import (
    CHECK_URL,
    describe,
    error_in,
    fatal,
    is_full,
)
from voicechat.realtime.providers import OPENAI, Provider

OPEN_TIMEOUT = 10.0  # seconds for DNS, TCP, TLS and the upgrade together
CLOSE_TIMEOUT = 0.5
PING_SECONDS = 1.0
MOST_JOINED = 200 * BYTES_PER_MS

_log = logging.getLogger("voicechat")


class Connection:
    """A WebSocket that sends and receives events."""

    def __init__(
        self, websocket: ClientConnection, api_key: str | None, provider: Provider = OPENAI
    ) -> None:
        self._websocket = websocket
        self._provider = provider
        self._api_key = api_key
        self._outbox: deque[Event] = deque()
        self._has_mail = asyncio.Event()
        self._is_heard = False
        """The server has said something since the last ping."""
        self._is_logged = _log.isEnabledFor(logging.DEBUG)
        self._clean = cleaning([api_key])

    @property
    def server_time(self) -> float:
        """The server's clock when the connection was opened, in Unix time.

        By its own word (the ``Date`` of the handshake) where it gives one: this machine's clock may
        be wrong by more than a session lasts.
        """
        response = self._websocket.response
        dates = response.headers.get_all("Date") if response is not None else []
        try:
            return parsedate_to_datetime("".join(dates[:1])).timestamp()
        except (ValueError, OverflowError):
            return datetime.now(UTC).timestamp()

    @property
    def tls(self) -> str | None:
        """Its version, or None where nothing is encrypted."""
        return self._tls.version() if self._tls is not None else None

    @property
    def certificate_expires(self) -> float | None:
        """When that of the server does, in Unix time; None where it was not looked at."""
        seen = self._tls.getpeercert() if self._tls is not None else None
        return float(ssl.cert_time_to_seconds(str(seen["notAfter"]))) if seen else None

    @property
    def _tls(self) -> ssl.SSLObject | None:
        return cast(ssl.SSLObject | None, self._websocket.transport.get_extra_info("ssl_object"))

    def send(self, event: Event) -> None:
        """Queue an event for `write`; never waits."""
        self._outbox.append(event)
        self._has_mail.set()

    async def write(self) -> None:
        """Send what is queued, at the network's pace, until the connection is gone."""
        with suppress(ConnectionClosed):
            while True:
                while not self._outbox:  # a coroutine an event would be felt in a burst
                    self._has_mail.clear()
                    await self._has_mail.wait()
                event = self._outbox.popleft()
                if isinstance(event, InputAudioBufferAppend):
                    event = self._joined(event)
                if self._is_logged:
                    _log.debug("→ %s", _elided(event, self._clean))
                await self._websocket.send(encode(event))

    def _joined(self, event: InputAudioBufferAppend) -> InputAudioBufferAppend:
        """Sound cards give several frames at once; one message for them is a third of the work."""
        parts = [event.audio]
        size = len(event.audio)
        while self._outbox and isinstance(following := self._outbox[0], InputAudioBufferAppend):
            size += len(following.audio)
            if size > MOST_JOINED:
                break
            parts.append(following.audio)
            self._outbox.popleft()
        return InputAudioBufferAppend(b"".join(parts)) if len(parts) > 1 else event

    async def read(self) -> AsyncIterator[Event | MalformedError]:
        """Yield what the server says, until the connection is gone, whoever ended it.

        A frame that is no event is yielded as the error that it is.
        """
        with suppress(ConnectionClosed):
            while True:
                message = await self._websocket.recv()
                self._is_heard = True
                if isinstance(message, str):
                    message = _without_key(message, self._api_key)
                try:
                    event = decode(message, SERVER_EVENTS)
                except MalformedError as error:
                    yield error
                    continue
                if self._is_logged:
                    _log.debug("← %s", _elided(event, self._clean))
                yield event

    async def watch(self, on_silence: Callable[[float], object]) -> None:
        """Ask the server every second whether it is still there; on a dead line, nothing else
        would tell.

        Args:
            on_silence: Called with the seconds in which nothing has come, neither an event nor an
                answer to a ping, each second that this lasts.
        """
        loop, silent = asyncio.get_running_loop(), 0.0

        def hear(pong: asyncio.Future[float]) -> None:
            self._is_heard |= not pong.cancelled() and pong.exception() is None

        with suppress(ConnectionClosed):
            while True:
                due, self._is_heard = loop.time() + PING_SECONDS, False
                with suppress(TimeoutError):  # what was sent before it does not get through
                    async with asyncio.timeout_at(due):
                        pong = await self._websocket.ping()
                        cast(asyncio.Future[float], pong).add_done_callback(hear)
                await asyncio.sleep(due - loop.time())
                silent = 0.0 if self._is_heard else silent + PING_SECONDS
                if silent:
                    on_silence(silent)

    def ending(self) -> VoicechatError:
        """Why the connection is gone, as its close code tells (reference, section 1.2)."""
        code = self._websocket.close_code
        reason = _without_key(self._websocket.close_reason or "", self._api_key)
        said = f" ({code}{': ' if reason else ''}{reason})" if code else ""
        if code == 3000:
            return AuthenticationError(
                f"the server refused the API key{said}", remedy=self._provider.how_to_get_in
            )
        if code == 4000 and "model" in reason:
            return ModelError(
                f"the server does not offer this model{said}",
                remedy=f"Choose another with --model, such as {self._provider.model}.",
            )
        if code == 4000:
            return ProtocolError(
                f"the server turned us away{said}", remedy="Check --url and --model."
            )
        how = "the server closed the connection" if code not in (None, 1006) else "it broke off"
        return BusyError(f"{how}{said}", remedy="Try again.")


class _Client(ClientConnection):
    """One that may fail to secure a line through a proxy.

    The library then tells it that it has lost what it never had, which it cannot take.
    """

    def connection_lost(self, exc: Exception | None) -> None:
        """The line is gone."""
        if hasattr(self, "recv_messages"):
            super().connection_lost(exc)


class _Connect(connect):
    """Goes where it was told to, and nowhere else: key and words are for that host."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Take a redirect for the refusal that it is."""
        return exc


@asynccontextmanager
async def open_connection(
    url: str,
    api_key: str | None,
    network: Network | None = None,
    provider: Provider = OPENAI,
) -> AsyncIterator[Connection]:
    """Connect, and turn the library's many ways to fail into ours.

    Args:
        url: Where the server is.
        api_key: Which it wants, if it wants one.
        network: How to get there, unless by what the system says.

    Raises:
        AuthenticationError: The server refused the key or the account at the handshake; most do
            so later, by an event.
        ModelError: It refused the model then.
        ProtocolError: Something answers, but it is not a WebSocket, or it turns us away.
        BusyError: It is there, and cannot serve us now.
        ConnectError: It could not be reached; it may be later.
        UsageError: That is not an address.
    """
    scheme = "Bearer " if provider.key_header == "Authorization" else ""
    headers = {provider.key_header: f"{scheme}{api_key}"} if api_key else None
    network, proxy = network or Network(), proxy_for(url)
    to_proxy: dict[str, Any] = {}
    if proxy is not None and proxy.startswith("https://"):
        to_proxy["proxy_ssl"] = network.context(proxy)
        logging.getLogger("asyncio").addFilter(_is_no_stumble)
    is_through = False

    def made(*arguments: Any, **options: Any) -> _Client:  # not before a proxy has let us through
        nonlocal is_through
        is_through = True
        return _Client(*arguments, **options)

    try:
        websocket = await _Connect(
            url,
            additional_headers=headers,
            open_timeout=OPEN_TIMEOUT,
            close_timeout=0.3,
            compression=None,  # base64 audio hardly shrinks, and it costs CPU
            ping_interval=None,  # see `Connection.watch`
            max_queue=None,  # `read` takes everything at once: pausing would only cost time
            create_connection=cast(Any, made),
            max_size=None,  # an item with its audio, or echoed instructions, may be large
            ssl=network.context(url),
            proxy=proxy,
            **to_proxy,
        )
    except (OSError, WebSocketException, ValueError, TypeError) as raised:
        error = cast(OSError, raised.__context__) if _stumbles(raised) else raised
        if isinstance(error, TypeError):
            raise
        told = explain_proxy(error, proxy) if proxy is not None and not is_through else None
        raise told or _explain(error, url, api_key, provider) from error
    try:
        yield Connection(websocket, api_key, provider)
    finally:  # not `async with`, which takes our hanging up for a failure and says 1011
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await websocket.close()
        except TimeoutError:  # what was sent before does not get through, nor does the goodbye
            websocket.transport.abort()


def realtime_url(url: str, model: str) -> str:
    """The address to connect to: `url` with the model in its query, if it names none.

    Raises:
        UsageError: It is not the address of a WebSocket.
    """
    schemes = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        is_address &= url.isprintable() and " " not in url
        is_address &= (parts.username is None) == (parts.password is None)
    except ValueError:
        is_address = False
    if not is_address:
        what = "that" if set(url) & set("@?#") else repr(url)  # there may be a secret in it
        raise UsageError(
            f"{what} is not the address of a Realtime server",
            remedy="Give --url as ws://HOST:PORT/PATH or wss://HOST/PATH.",
        )
    parts = urlsplit(url)
    query = parts.query
    if not parse_qs(query).keys() & {"model", "deployment", "intent", "call_id"}:
        query = "&".join(filter(None, (query, urlencode({"model": model}))))
    return urlunsplit((schemes[parts.scheme], parts.netloc, parts.path, query, ""))


def _explain(error: Exception, url: str, api_key: str | None, provider: Provider) -> VoicechatError:
    where = shown(url)
    check = "Check the network and --url, or talk without them: `voicechat talk --local`."
    if isinstance(error, InvalidHandshake) and (status := _http_status(error)):
        if isinstance(error, InvalidStatus) and (place := error.response.headers.get("Location")):
            return ProtocolError(
                f"{where} sends us to another address (HTTP {status}): {_moved(place)}",
                remedy="Give that one with --url if you trust it with your key and your words.",
            )
        told = _told(error, api_key)
        end = fatal(told, provider, model_in(url))
        return end or _explain_status(status, told, where, provider)
    match error:
        case InvalidURI():
            return UsageError(f"{where!r} is not an address", remedy="Check --url.")
        case InvalidHandshake():
            return ProtocolError(f"{where} is not a Realtime server: {error}", remedy=CHECK_URL)
        case TimeoutError():
            return ConnectError(f"{where} did not answer in {OPEN_TIMEOUT:.0f} s", remedy=check)
        case ssl.SSLCertVerificationError():
            return explain_certificate(error, url)
        case ssl.SSLError() | EOFError() | ConnectionResetError() if where.startswith("wss"):
            reason = getattr(error, "reason", None) or str(error) or "it does not answer in TLS"
            return ConnectError(
                f"no secure connection to {where}: {reason}",
                remedy="Check the clock of this machine, its certificates, and --url (wss or ws?).",
            )
        case socket.gaierror():
            return ConnectError(f"{where}: the host is not known ({error.strerror})", remedy=check)
        case ConnectionRefusedError():
            return ConnectError(f"nothing answers at {where}", remedy=check)
        case _:
            reason = str(error) or type(error).__name__
            return ConnectError(f"cannot reach {where}: {reason}", remedy=check)


def _stumbles(error: BaseException | None) -> bool:
    """Older versions of Python 3.11 and 3.12 do so over a failure of TLS inside the TLS of a proxy
    (gh-113214)."""
    return isinstance(error, TypeError) and isinstance(error.__context__, OSError)


def _is_no_stumble(record: logging.LogRecord) -> bool:
    return not (record.exc_info and _stumbles(record.exc_info[1]))


def _moved(place: str) -> str:
    try:
        return shown(place)
    except ValueError:
        return "it cannot be read"


def _http_status(error: InvalidHandshake) -> int | None:
    """What an HTTP server answered, if that is what it is."""
    if isinstance(error, InvalidStatus):
        return error.response.status_code
    # An HTTP/1.0 answer is no valid handshake for the library, but it is an answer.
    found = re.search(r"HTTP/1\.0 (\d{3})", str(error.__cause__))
    return int(found[1]) if found else None


def _told(error: InvalidHandshake, api_key: str | None) -> Json:
    """What the server says about it in the body of its answer."""
    body = error.response.body if isinstance(error, InvalidStatus) else None
    return error_in(_without_key(bytes(body or b"").decode("utf-8", "replace"), api_key))


def _explain_status(status: int, told: Json, where: str, provider: Provider) -> VoicechatError:
    """What an HTTP answer means that is not `fatal` by what it tells."""
    said = f": {describe(told)}" if told else ""
    if status in (401, 403):
        return AuthenticationError(
            f"{where} refused the API key (HTTP {status}){said}", remedy=provider.how_to_get_in
        )
    if status in (408, 429) or status >= 500 or is_full(told):
        return BusyError(
            f"{where} cannot serve us now (HTTP {status}){said}", remedy="Try again in a minute."
        )
    if said and status in (400, 422):
        return ProtocolError(
            f"{where} turned us away (HTTP {status}){said}", remedy="Check --url and --model."
        )
    return ProtocolError(
        f"{where} is not a Realtime server: it answered HTTP {status}{said}", remedy=CHECK_URL
    )


def _without_key(said: str, api_key: str | None) -> str:
    """What the server says, of which some may be shown: some quote the key they refuse.

    A short one is no secret (local servers take anything), and part of ordinary words.
    """
    if api_key and len(api_key) >= SHORTEST_SECRET:
        return said.replace(api_key, "[API key]")
    return said


def _elided(event: Event, clean: Clean) -> str:
    """An event for the log: audio as its length, and no key, whoever's it is."""
    if isinstance(event, UnknownEvent):
        return f"{clean(str(event.payload.get('type')))!r} (not used)"
    values = ((f.name, getattr(event, f.name)) for f in fields(cast(Any, event)))
    shown = (
        f"{n}=<{len(v)} bytes>" if isinstance(v, bytes) else f"{n}={plain(v, clean)!r}"
        for n, v in values
    )
    return f"{event.type} {' '.join(shown)}"
