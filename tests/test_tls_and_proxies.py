"""Servers behind proxies, and servers with certificates, as the program meets them."""

from __future__ import annotations

import re
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ProxyError

from tests.program import Run, voicechat
from tests.routes import Authority, Proxy, carry, listening
from tests.strict_server import KEY, StrictServer
from voicechat.errors import UsageError
from voicechat.realtime.network import Network, explain_proxy, proxy_for

HOST = "realtime.test"  # which no name server knows (RFC 6761)
LOGIN = "me:hunter2-and-more"


@pytest.fixture
def server() -> Iterator[StrictServer]:
    with StrictServer().running() as server:
        yield server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def port_of(server: StrictServer) -> int:
    port = urlsplit(server.url).port
    assert port is not None
    return port


@contextmanager
def secure(server: StrictServer, authority: Authority, *names: str, days: int = 2) -> Iterator[int]:
    """The server's port under TLS, with a certificate for these names."""
    with listening(
        partial(carry, port=port_of(server)), authority.serving(*names, days=days)
    ) as port:
        yield port


def talk(url: str, *options: str | Path, **environment: str) -> Run:
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in {"OPENAI_API_KEY": KEY, **environment}.items():
            monkeypatch.setenv(name, value)
        return voicechat("talk", "--text", "Hello.", "--url", url, *options)


def answered(run: Run) -> bool:
    return run.code == 0 and run.lines == ["You: Hello.", "Assistant: All right. I heard you."]


def refused(run: Run, code: int = 4) -> str:
    """What was said when it did not work: a line and a remedy, without any password."""
    *_, message, remedy = run.err.splitlines()
    assert (run.code, run.out) == (code, "")
    assert message.startswith("voicechat: ")
    assert remedy.startswith("  ")
    assert remedy.endswith(".")
    assert "hunter2" not in run.err
    return message


# Proxies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_server_is_reached_through_an_http_proxy(
    server: StrictServer, authority: Authority, variable: str
) -> None:
    with secure(server, authority, HOST) as port:
        proxy = Proxy(port, login=LOGIN)
        with listening(proxy.http) as at:
            run = talk(
                *(f"wss://{HOST}/v1/realtime", "--ca", authority.certificate),
                **{variable: f"http://{LOGIN}@127.0.0.1:{at}"},
            )
    assert answered(run), run.err
    assert proxy.asked == [f"{HOST}:443"]


@pytest.mark.parametrize("scheme", ["socks5h", "socks"])
@pytest.mark.parametrize("login", ["", LOGIN])
def test_a_server_is_reached_through_a_socks_proxy(
    server: StrictServer, login: str, scheme: str
) -> None:
    proxy = Proxy(port_of(server), login=login)
    with listening(proxy.socks) as at:
        at_proxy = f"{scheme}://{login}{'@' if login else ''}127.0.0.1:{at}"
        run = talk(f"ws://{HOST}:8080/v1/realtime", ALL_PROXY=at_proxy)
    assert answered(run), run.err
    assert proxy.asked == [f"{HOST}:8080"]


def test_a_proxy_may_speak_tls_itself(server: StrictServer, authority: Authority) -> None:
    proxy = Proxy(port_of(server), login=LOGIN)
    with listening(proxy.http, authority.serving("localhost", "127.0.0.1")) as at:
        run = talk(
            *(f"ws://{HOST}/v1/realtime", "--ca", authority.certificate),
            HTTPS_PROXY=f"https://{LOGIN}@localhost:{at}",
        )
    assert answered(run), run.err
    assert proxy.asked == [f"{HOST}:80"]


@contextmanager
def plain_proxy(behaviour: str) -> Iterator[int]:
    """One that speaks no TLS: it answers the greeting, hangs up on it, or waits for more."""

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.read(1)
        if behaviour == "answers":
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        elif behaviour == "waits":
            await reader.read()

    with listening(serve) as port:
        yield port


@pytest.mark.parametrize("url", [f"wss://{HOST}/v1", f"ws://{HOST}/v1"])
@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        ("answers", "does not answer in TLS as it should: "),
        ("hangs up", "does not answer in TLS as it should: "),
        ("waits", "did not get us through in time"),
    ],
)
def test_a_plain_proxy_that_is_said_to_speak_tls_is_named(
    url: str, behaviour: str, told: str
) -> None:
    with plain_proxy(behaviour) as at:
        run = talk(url, HTTPS_PROXY=f"https://{LOGIN}@127.0.0.1:{at}")
    assert f"the proxy https://127.0.0.1:{at} {told}" in refused(run)
    assert f"HTTPS_PROXY as http://127.0.0.1:{at}, with the same user name" in run.err


def test_the_certificate_of_a_proxy_is_told_from_that_of_a_server(
    server: StrictServer, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path)
    ours = ("--ca", authority.certificate)
    with (
        secure(server, other, HOST) as port,
        listening(Proxy(port).http, authority.serving("localhost")) as at,
    ):
        through = f"https://localhost:{at}"
        told = refused(talk(f"wss://{HOST}/", HTTPS_PROXY=through))
        assert f"the certificate of the proxy {through} cannot be trusted: " in told
        told = refused(talk(f"wss://{HOST}/", *ours, HTTPS_PROXY=through))
        assert f"the certificate of wss://{HOST}/ is not trusted: " in told


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_without_tls_behind_a_proxy_is_not_the_fault_of_the_proxy(
    server: StrictServer, authority: Authority, scheme: str
) -> None:
    context = authority.serving("localhost") if scheme == "https" else None
    with listening(Proxy(port_of(server)).http, context) as at:
        run = talk(
            *(f"wss://{HOST}/", "--ca", authority.certificate),
            HTTPS_PROXY=f"{scheme}://localhost:{at}",
        )
    assert f"no secure connection to wss://{HOST}/: " in refused(run)


def test_no_proxy_stands_between_us_and_this_machine(server: StrictServer) -> None:
    run = talk(server.url, HTTP_PROXY="http://127.0.0.1:9", ALL_PROXY="http://127.0.0.1:9")
    assert answered(run), run.err


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "wss://a.test/", None),
        ({"HTTPS_PROXY": "http://p:1"}, "wss://a.test/", "http://p:1"),
        ({"HTTPS_PROXY": "p:1"}, "wss://a.test/", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "wss://a.test/", None),
        ({"HTTP_PROXY": "http://p:1"}, "ws://a.test/", "http://p:1"),
        ({"ALL_PROXY": "socks5://p:1"}, "wss://a.test/", "socks5://p:1"),
        ({"ALL_PROXY": "SOCKS://p:1"}, "wss://a.test/", "socks5h://p:1"),
        ({"ALL_PROXY": "http://p:1", "HTTPS_PROXY": "http://q:1"}, "wss://a.test/", "http://q:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.test"}, "wss://a.test/", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".test"}, "wss://b.a.test:99/", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.test:99"}, "wss://a.test:99/", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, "wss://a.test/", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "b.test"}, "wss://a.test/", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, "wss://127.0.0.2/", None),
        ({"HTTPS_PROXY": "http://p:1"}, "wss://localhost:1/", None),
    ],
)
def test_which_proxy_it_is(
    environment: dict[str, str], url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url) == proxy


@pytest.mark.parametrize(
    ("status", "login", "told"),
    [
        ("403 Forbidden", "", "does not let us through (HTTP 403)"),
        ("502 Bad Gateway", "", "does not let us through (HTTP 502)"),
        ("", "other:login", "wants another user name or password (HTTP 407)"),
    ],
)
def test_a_proxy_that_refuses_is_named(status: str, login: str, told: str) -> None:
    proxy = Proxy(9, login=login, status=status)
    with listening(proxy.http) as at:
        run = talk(f"wss://{HOST}/", HTTPS_PROXY=f"http://{LOGIN}@127.0.0.1:{at}")
    assert refused(run) == f"voicechat: the proxy http://127.0.0.1:{at} {told}"


@pytest.mark.parametrize(("status", "login"), [("no", LOGIN), ("", "other:login")])
def test_a_socks_proxy_that_refuses_is_named(status: str, login: str) -> None:
    proxy = Proxy(9, login=login, status=status)
    with listening(proxy.socks) as at:
        run = talk(f"wss://{HOST}/", HTTPS_PROXY=f"socks5h://{LOGIN}@127.0.0.1:{at}")
    where = f"the proxy socks5h://127.0.0.1:{at} does not let us through: "
    assert refused(run).startswith(f"voicechat: {where}")


def test_a_socks_proxy_that_could_look_up_a_name_is_to_be_let() -> None:
    with listening(Proxy(9).socks) as at:
        run = talk("wss://no-such-host.invalid/", ALL_PROXY=f"socks5://127.0.0.1:{at}")
    assert "the server's name is not known here" in refused(run)
    assert "socks5h://HOST:PORT" in run.err


def test_a_socks_proxy_that_wants_a_password_is_said_to() -> None:
    with listening(Proxy(9, login=LOGIN).socks) as at:
        run = talk(f"wss://{HOST}/", ALL_PROXY=f"socks5h://127.0.0.1:{at}")
    refused(run)
    assert "USER:PASSWORD@HOST:PORT" in run.err


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_a_proxy_that_is_not_there_is_named(scheme: str) -> None:
    run = talk(f"wss://{HOST}/", HTTPS_PROXY=f"{scheme}://{LOGIN}@127.0.0.1:9")
    assert f"the proxy {scheme}://127.0.0.1:9 cannot be reached: " in refused(run)


@pytest.mark.parametrize(
    "proxy",
    [
        f"ftp://{LOGIN}@p:1",
        f"http://{LOGIN}@p:1/path",
        f"http://{LOGIN}",
        f"http://{LOGIN}@p:hunter2",
        "http://me:/hunter2?@p:1",
        f"{LOGIN}@",
    ],
)
def test_what_is_no_proxy_is_refused_without_its_password(proxy: str) -> None:
    run = talk(f"wss://{HOST}/", HTTPS_PROXY=proxy)
    assert "cannot be used: " in refused(run, 2) if "ftp" in proxy else refused(run, run.code)


def test_a_reason_that_quotes_the_password_is_told_without_it() -> None:
    error = ProxyError("no")
    error.__cause__ = ValueError("hunter2-and-more was refused to me:hunter2-and-more")
    told = explain_proxy(error, f"socks5h://{LOGIN}@p:1")
    assert told is not None
    assert told.message == (
        "the proxy socks5h://p:1 does not let us through: ... was refused to ..."
    )


# Certificates ------------------------------------------------------------------------------------


def test_a_certificate_of_an_authority_of_ours_is_trusted_when_told(
    server: StrictServer, authority: Authority
) -> None:
    with secure(server, authority, "localhost", "127.0.0.1") as port:
        url, certificate = f"wss://127.0.0.1:{port}/v1/realtime", str(authority.certificate)
        run = talk(url, "--ca", certificate)
        assert answered(run), run.err
        assert f"--url {url} --ca {certificate}" in run.err  # how to resume
        assert answered(talk(url, VOICECHAT_CA=certificate))
        assert answered(talk(url, SSL_CERT_FILE=certificate))
        told = refused(run := talk(url))
        assert f"the certificate of wss://127.0.0.1:{port}/v1/realtime is not trusted: " in told
        assert "--ca FILE" in run.err
        assert "--insecure" in run.err


def test_a_certificate_behind_a_proxy_is_checked_all_the_same(
    server: StrictServer, authority: Authority
) -> None:
    with secure(server, authority, HOST) as port, listening(Proxy(port).http) as at:
        told = refused(talk(f"wss://{HOST}/", HTTPS_PROXY=f"http://127.0.0.1:{at}"))
    assert f"the certificate of wss://{HOST}/ is not trusted: " in told


def test_any_certificate_will_do_on_this_machine_with_insecure(
    server: StrictServer, authority: Authority
) -> None:
    with secure(server, authority, "other.test", days=-1) as port:
        run = talk(f"wss://localhost:{port}/v1/realtime", "--insecure")
    assert answered(run), run.err
    assert "--insecure" in run.err.splitlines()[-1]


@pytest.mark.parametrize("url", [f"wss://{HOST}/", "wss://10.0.0.1/", "wss://localhost.test/"])
def test_insecure_is_for_this_machine_only(url: str) -> None:
    assert "--insecure is for servers on this machine" in refused(talk(url, "--insecure"), 2)
    with pytest.raises(UsageError):
        Network(insecure=True).check(url)
    context = Network(insecure=True).context(url)
    assert context is not None
    assert context.check_hostname


@pytest.mark.parametrize(
    ("names", "days", "told", "remedy"),
    [
        (["127.0.0.1"], -1, "has expired", "clock"),
        (["other.test"], 2, "is for another host than 127.0.0.1", "--url"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_named(
    server: StrictServer,
    authority: Authority,
    names: list[str],
    days: int,
    told: str,
    remedy: str,
) -> None:
    with secure(server, authority, *names, days=days) as port:
        run = talk(f"wss://127.0.0.1:{port}/", "--ca", authority.certificate)
    assert refused(run).endswith(f"the certificate of wss://127.0.0.1:{port}/ {told}")
    assert remedy in run.err.splitlines()[-1]


@pytest.mark.parametrize("contents", [None, b"", b"not a certificate\n", b"\0\xff" * 99])
def test_a_file_without_certificates_is_refused(tmp_path: Path, contents: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if contents is not None:
        path.write_bytes(contents)
    told = refused(talk("wss://localhost:9/", "--ca", path), 2)
    assert re.search(r"ca\.pem' cannot be used: (no such file|it holds no certificate)", told)


def test_a_server_without_tls_is_told_from_one_with_a_bad_certificate(server: StrictServer) -> None:
    told = refused(talk(server.url.replace("ws://", "wss://")))
    assert "no secure connection to wss://127.0.0.1" in told
