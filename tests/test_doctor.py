"""``voicechat doctor``: what it finds where things are well, and where they are not."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.program import voicechat
from tests.routes import Authority, Proxy, carry, listening, refusing
from tests.strict_server import KEY, Peer, StrictServer
from tests.test_devices import LIBRARY, with_library
from tests.tmux import terminal
from tests.virtual_card import VirtualCard
from voicechat.doctor.examination import Check, Finding, examine
from voicechat.errors import ConnectError
from voicechat.keys import put_in_file

MISSING = "raise OSError('PortAudio library not found')"
STUCK = f"{LIBRARY}\nimport time\ntime.sleep(3600)\n"


@pytest.fixture(autouse=True)
def own_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, no proxies, and a PortAudio that is missed quickly."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "SSH_CONNECTION", "SSH_TTY", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictServer]:
    with StrictServer().running() as server:
        monkeypatch.setenv("VOICECHAT_URL", server.url)
        monkeypatch.setenv("VOICECHAT_API_KEY_ENV", "OPENAI_API_KEY")
        yield server


def examined(*arguments: str | Path, **environment: Any) -> dict[str, list[dict[str, str]]]:
    """What it finds, by check."""
    run = voicechat("doctor", "--json", *arguments, timeout=60, **environment)
    rows = json.loads(run.out)
    assert KEY not in run.out + run.err
    assert run.err == ""
    assert run.code == any(row["status"] == "fail" for row in rows)
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        assert list(row) == ["check", "status", "message", "remedy"]
        assert row["status"] in ("ok", "warn", "fail")
        assert bool(row["remedy"]) == (row["status"] != "ok"), row
        found.setdefault(row["check"], []).append(row)
    return found


def only(found: dict[str, list[dict[str, str]]], check: str) -> tuple[str, str]:
    [row] = found[check]
    return row["status"], row["message"]


# The server --------------------------------------------------------------------------------------


def test_a_server_is_met_and_nothing_is_asked_of_it(server: StrictServer) -> None:
    found = examined()
    assert server.received == [[]]
    assert [row["status"] for row in found["key"]] == ["ok", "ok"]
    assert found["key"][1]["message"] == "accepted"
    status, message = only(found, "server")
    assert status == "ok"
    assert message.startswith(f"{server.url}: open after ")
    assert "session.created after " in message
    assert only(found, "name")[0] == "ok"
    assert only(found, "clock") == ("ok", "within 2 s of the server's")


@pytest.mark.parametrize(("seconds", "way"), [(300.0, "behind"), (-300.0, "ahead of")])
def test_a_clock_that_is_wrong_is_told(server: StrictServer, seconds: float, way: str) -> None:
    server.clock_ahead = seconds
    status, message = only(examined(), "clock")
    assert status == "warn"
    assert f"s {way} the server's" in message
    assert 290 < int(message.split()[3]) < 310


def test_a_refused_key_is_told_and_not_shown(server: StrictServer) -> None:
    async def refuse(peer: Peer) -> None:
        message = f"Incorrect API key provided: {KEY}."
        error = {"type": "invalid_request_error", "code": "invalid_api_key", "message": message}
        await peer.send("error", error=error)
        await peer.close(3000)

    server.on_connect = refuse
    found = examined()
    assert [row["status"] for row in found["key"]] == ["ok", "fail"]
    assert "Incorrect API key provided: [API key]." in found["key"][1]["message"]


@pytest.mark.parametrize(
    ("status", "code", "check", "told"),
    [
        (
            "404 Not Found",
            "DeploymentNotFound",
            "server",
            "does not offer the deployment 'mine': No",
        ),
        ("403 Forbidden", "unsupported_country_region_territory", "server", "be: Not for"),
        (
            "429 Too Many",
            "insufficient_quota",
            "key",
            "the account cannot be used: Not for you: [A",
        ),
    ],
)
def test_what_a_server_says_that_refuses_by_http_is_told(
    status: str, code: str, check: str, told: str
) -> None:
    body = json.dumps({"error": {"code": code, "message": f"Not for you: {KEY}."}})
    with refusing(status, body) as url:
        found = examined("--provider", "custom", "--url", url, "--model", "mine")
    assert [row["status"] for row in found[check]][-1] == "fail"
    assert told in found[check][-1]["message"]
    assert ("fail" in {row["status"] for row in found["key"]}) == (check == "key")


def test_a_missing_key_is_told(server: StrictServer) -> None:
    found = examined("--api-key-env", "NO_SUCH_KEY")
    assert only(found, "key") == ("fail", "there is no API key: NO_SUCH_KEY is not set")


def test_a_server_that_is_not_there_is_told() -> None:
    found = examined("--url", "ws://127.0.0.1:9/v1/realtime")
    assert only(found, "server") == ("fail", "nothing answers at ws://127.0.0.1:9/v1/realtime")
    found = examined("--url", "wss://realtime.invalid/v1")
    assert only(found, "name")[0] == "fail"
    assert "server" not in found


def test_what_is_no_realtime_server_is_told(server: StrictServer) -> None:
    server.on_connect = lambda peer: peer.websocket.send("<html>Hello</html>")
    status, message = only(examined(), "server")
    assert status == "fail"
    assert message.startswith("what answers is not a Realtime server: ")


def test_a_server_that_says_nothing_is_given_up(server: StrictServer) -> None:
    server.on_connect = lambda peer: peer.websocket.wait_closed()
    started = time.monotonic()
    status, message = only(examined(), "server")
    assert (status, message) == ("fail", "the server does not begin: it says nothing for 10 s")
    assert time.monotonic() - started > 10


def test_tls_and_proxy_are_told(server: StrictServer, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    port = urlsplit(server.url).port
    assert port is not None
    served = authority.serving("realtime.test")
    url = "wss://realtime.test/v1/realtime"
    with listening(partial(carry, port=port), served) as secure:
        proxy = Proxy(secure, login="me:hunter2")
        with listening(proxy.http) as at:
            through = f"http://me:hunter2@127.0.0.1:{at}"
            found = examined("--url", url, "--ca", authority.certificate, HTTPS_PROXY=through)
            distrusted = examined("--url", url, HTTPS_PROXY=through)
    assert only(found, "proxy") == ("ok", f"http://127.0.0.1:{at}")
    assert "name" not in found
    assert only(found, "server")[1].endswith(", TLSv1.3")
    assert only(found, "certificate")[0] == "warn"  # it is for two days
    status, message = only(distrusted, "server")
    assert status == "fail"
    assert "is not trusted" in message
    assert "--ca FILE" in distrusted["server"][0]["remedy"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--local", "--url", "ws://127.0.0.1:9"],
        ["--url", "nonsense"],
        ["--url", "wss://a.test", "--insecure"],
        ["--ca", "none.pem"],
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str]) -> None:
    run = voicechat("doctor", *arguments)
    assert (run.code, run.out, len(run.err.splitlines())) == (2, "", 2)


@pytest.mark.local
def test_the_built_in_server_is_started() -> None:
    found = examined("--local")
    assert "key" not in found
    assert only(found, "engines")[0] == "ok"
    assert only(found, "models")[0] == "ok"
    status, message = only(found, "server")
    assert status == "ok"
    assert message.startswith("the built-in one: ready after ")


# Sound -------------------------------------------------------------------------------------------


@pytest.mark.card
def test_where_all_is_well_it_says_so(server: StrictServer) -> None:
    with VirtualCard(microphones=["headset"], speakers=["headset"]) as card:
        environment: Any = card.env
        run = voicechat("doctor", "--output-device", "HEADS", **environment)
    assert (run.code, run.err) == (0, ""), run.out
    said = [" ".join(line.split()) for line in run.lines]
    assert "ok sound PortAudio knows 2 devices" in said
    assert "ok microphone default, at 24000 Hz" in said
    assert "ok speaker headset, at 24000 Hz" in said
    assert "ok echo is cancelled (WebRTC AEC3)" in said
    assert not [line for line in said if line.startswith("fail")]


@pytest.mark.card
def test_a_device_that_is_not_there_is_told(server: StrictServer) -> None:
    with VirtualCard() as card:
        environment: Any = card.env
        found = examined("--input-device", "no such", **environment)
    assert only(found, "microphone")[0] == "fail"
    assert only(found, "speaker")[0] == "ok"


def test_without_portaudio_it_says_what_installs_it(server: StrictServer, tmp_path: Path) -> None:
    environment: Any = with_library(tmp_path, MISSING)
    found = examined(**environment)
    status, message = only(found, "sound")
    assert (status, message) == (
        "fail",
        "PortAudio, the library for sound cards, is not installed",
    )
    assert "libportaudio2" in found["sound"][0]["remedy"]
    assert only(found, "server")[0] == "ok"


def test_a_sound_system_that_is_stuck_holds_up_nothing(
    server: StrictServer, tmp_path: Path
) -> None:
    environment: Any = with_library(tmp_path, STUCK)
    found = examined(**environment)
    assert only(found, "sound") == ("fail", "the sound system did not answer within 12 s")
    assert only(found, "server")[0] == "ok"


# Places ------------------------------------------------------------------------------------------


def test_directories_and_sessions_are_told(server: StrictServer, home: Path) -> None:
    found = examined()
    assert only(found, "sessions") == ("ok", "none yet")
    status, message = only(found, "data")
    assert status == "ok"
    assert message.startswith(f"{home} (made when needed), ")
    assert not home.exists()  # looking changes nothing
    assert voicechat("talk", "--text", "Hello.").code == 0
    (home / "sessions" / "20260101T000000Z-aaaaaa.jsonl").write_bytes(b"\x00" * 100)
    found = examined()
    assert [row["status"] for row in found["sessions"]] == ["ok", "warn"]
    assert found["sessions"][0]["message"] == "1 saved"
    assert found["sessions"][1]["remedy"].endswith("voicechat history check")


def test_a_place_that_cannot_be_written_is_told(server: StrictServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = examined(VOICECHAT_HOME=f"{tmp_path}/file", XDG_CONFIG_HOME=f"{tmp_path}/file")
    assert only(found, "data")[0] == "fail"
    assert "VOICECHAT_HOME" in found["data"][0]["remedy"]
    assert only(found, "settings")[0] == "warn"
    long = tmp_path / ("x" * 300)
    told = f"cannot read {long}/sessions: file name too long"
    assert only(examined(VOICECHAT_HOME=long), "sessions") == ("fail", told)


@pytest.mark.skipif(os.name != "posix", reason="there are no such modes")
def test_keys_that_others_get_at_are_told(server: StrictServer, home: Path) -> None:
    put_in_file("openai", KEY)
    assert "keys" not in examined()
    for mode in (0o666, 0o640, 0o602):
        (home / "keys.json").chmod(mode)
        [told] = examined()["keys"]
        assert (told["status"], str(home / "keys.json") in told["message"]) == ("warn", True)
        subprocess.run(told["remedy"], shell=True, check=True)
        assert stat.S_IMODE((home / "keys.json").stat().st_mode) == 0o600


def test_the_shared_store_is_told(server: StrictServer, tmp_path: Path) -> None:
    assert "store" not in examined()
    url = f"sqlite:///{tmp_path}/store.db"
    assert only(examined(VOICECHAT_STORE=url), "store") == (
        "ok",
        f"{url}: 0 sessions, the deleted ones included",
    )
    found = examined(VOICECHAT_STORE="redis://:hunter2-secret@127.0.0.1:9/0")
    assert only(found, "store")[0] == "fail"
    assert "hunter2" not in json.dumps(found)


def test_settings_are_heeded_and_what_is_wrong_with_them_is_told(
    server: StrictServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VOICECHAT_URL")
    monkeypatch.delenv("VOICECHAT_API_KEY_ENV")
    settings, store = tmp_path / "config.toml", f"sqlite:///{tmp_path}/store.db"
    settings.write_text(f'[profiles.work]\nurl = "{server.url}"\nstore = "{store}"\n')
    found = examined("-p", "work", VOICECHAT_CONFIG=settings)
    assert server.url in only(found, "server")[1]
    assert found["key"][1]["message"] == "accepted"
    assert only(found, "store")[0] == "ok"
    settings.write_text('url = "ws://127.0.0.1:9"\nvoise = "cedar"\n')
    found = examined("--url", server.url, VOICECHAT_CONFIG=settings)
    wrong, place = found["settings"]
    assert (wrong["status"], place["status"]) == ("fail", "ok")
    assert "(line 2) is no setting" in wrong["message"]
    assert "'voice'" in wrong["remedy"]
    assert only(found, "server")[0] == "ok"
    below = settings.parent / ("x" * 300) / "config.toml"
    wrong, _ = examined("--url", server.url, VOICECHAT_CONFIG=below)["settings"]
    assert (wrong["status"], str(below) in wrong["message"]) == ("fail", True)
    settings.write_text("")
    found = examined("--url", server.url, VOICECHAT_CONFIG=settings, VOICECHAT_PRICES="/no/such")
    assert only(found, "prices")[0] == "fail"


def test_of_another_provider_the_doctor_asks_as_it_wants_to_be_asked(
    server: StrictServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VOICECHAT_URL")
    monkeypatch.delenv("VOICECHAT_API_KEY_ENV")
    azure = {"AZURE_OPENAI_ENDPOINT": f"{server.url.split('/v1')[0]}/openai/v1/realtime"}
    found = examined("--provider", "azure", AZURE_OPENAI_API_KEY=KEY, **azure)
    assert only(found, "server")[0] == "ok"
    assert server.headers[-1]["api-key"] == KEY
    found = examined("--provider", "azure", VOICECHAT_TOKEN_COMMAND=f"echo {KEY}", **azure)
    assert found["key"][1]["message"] == "accepted"
    assert server.headers[-1]["Authorization"] == f"Bearer {KEY}"
    found = examined("--provider", "azure", VOICECHAT_TOKEN_COMMAND="false", **azure)
    assert found["key"][1]["status"] == "fail"
    assert "VOICECHAT_TOKEN_COMMAND" in found["key"][1]["message"]
    found = examined("--provider", "azure", **azure)
    assert only(found, "key")[0] == "fail"
    assert "AZURE_OPENAI_API_KEY" in only(found, "key")[1]


# The terminal ------------------------------------------------------------------------------------


def test_on_a_terminal_it_shows_what_it_waits_for_and_then_what_it_found(
    server: StrictServer, tmp_path: Path
) -> None:
    is_seen = threading.Event()
    server.on_connect = lambda peer: asyncio.to_thread(is_seen.wait, 8)
    program = [sys.executable, "-m", "voicechat", "doctor"]
    with terminal(program, width=100, height=50) as screen:
        screen.wait_for("looking at: ")
        is_seen.set()
        screen.wait_for_end()
        shown = "\n".join(screen.screen)
    assert "looking at" not in shown
    assert "100 columns, colours: " in shown
    assert "key releases not told" in shown
    assert "ok   clock" in shown
    assert "\x1b" not in shown
    assert "?" not in shown


def ask(answer: bytes) -> str:
    """What it says on a terminal that answers questions about itself so."""
    ours, its = pty.openpty()
    command = [sys.executable, "-c", CONTROLLING, sys.executable, "-m", "voicechat", "doctor"]
    with subprocess.Popen(
        command, stdin=its, stdout=its, stderr=subprocess.DEVNULL, start_new_session=True
    ) as run:
        os.close(its)
        os.write(ours, answer)  # ahead of the question: it is not waited for for long
        said = b""
        while select.select([ours], [], [], 60)[0]:
            try:
                said += os.read(ours, 4096)
            except OSError:  # it is over
                break
        run.wait(60)
    os.close(ours)
    assert b"\x1b[?u" in said
    return said.decode()


CONTROLLING = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"\x1b[?0u\x1b[?62;22c", "key releases told"),
        (b"\x1b[?62;22c", "key releases not told"),
        (b"", "key releases not told"),
    ],
)
def test_a_terminal_is_asked_whether_it_tells_of_releases(
    server: StrictServer, answer: bytes, told: str
) -> None:
    assert told in ask(answer)


def test_other_alphabets_are_told(server: StrictServer) -> None:
    found = examined(PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    assert only(found, "letters")[0] == "warn"
    assert "letters" not in examined(PYTHONIOENCODING="utf-8")


def test_ssh_is_told(server: StrictServer) -> None:
    assert only(examined(SSH_CONNECTION="1 2 3 4"), "SSH")[0] == "warn"


# The examination ---------------------------------------------------------------------------------


def test_checks_run_beside_each_other_and_none_for_longer_than_it_may() -> None:
    def nothing() -> Iterator[Finding]:
        threading.Event().wait()
        yield Finding("never", "ok", "")

    def failing() -> Iterator[Finding]:
        yield Finding("lost", "ok", "")
        raise ConnectError("it broke off", remedy="Try again.")

    def slow() -> Iterator[Finding]:
        all_there.wait()
        yield Finding("slow", "ok", "done")

    def unreadable() -> Iterator[Finding]:
        yield Finding("odd", "ok", Path("/none").read_text())

    waited: list[list[str]] = []
    checks = [
        Check("slow", 30, slow),
        Check("stuck", 0.5, nothing),
        Check("failing", 30, failing),
        Check("unreadable", 30, unreadable),
        *(Check(f"slow {number}", 30, slow) for number in range(5)),
    ]
    all_there = threading.Barrier(6)  # one after the other, they would wait in vain
    found = list(examine(checks, waited.append))
    assert [each.message for [each] in found] == [
        "done",
        "it did not answer within 0.5 s",
        "it broke off",
        "no such file or directory",
        *["done"] * 5,
    ]
    assert [each.status for [each] in found[:4]] == ["ok", "fail", "fail", "fail"]
    assert "stuck" in waited[0]


def test_ctrl_c_ends_it_at_once(tmp_path: Path, server: StrictServer) -> None:
    environment = os.environ | with_library(tmp_path, STUCK)
    command = [sys.executable, "-m", "voicechat", "doctor"]
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does, to what it has started, too
        _, err = run.communicate(timeout=30)
    assert (run.returncode, err) == (130, b"")
