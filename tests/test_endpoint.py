"""To which server what is said goes, and with which key: never to another one."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.program import Run, records, voicechat
from tests.routes import listening
from tests.strict_server import KEY, Peer, StrictServer
from tests.test_config import Write, config  # noqa: F401  # a fixture
from tests.waiting import wait_until
from voicechat.token_command import ask_for_token

STRAY = "sk-this-is-for-someone-else"


def sent(server: StrictServer) -> str:
    """The key that came last, in whatever header."""
    headers = {name.lower(): value for name, value in server.headers[-1].items()}
    return headers.get("authorization", headers.get("api-key", "")).removeprefix("Bearer ")


@pytest.fixture
def mine() -> Iterator[StrictServer]:
    with StrictServer().running() as server:
        yield server


@pytest.fixture
def other() -> Iterator[StrictServer]:
    with StrictServer().running() as server:
        yield server


def say(*arguments: str | Path, command: str = "talk", **environment: Any) -> Run:
    run = voicechat(command, *arguments, "--text", "Hi", **environment)
    assert run.code == 0, run.err
    return run


# Redirects ---------------------------------------------------------------------------------------


@contextmanager
def redirecting(place: str) -> Iterator[str]:
    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 307 Elsewhere\r\nLocation: {place}\r\n\r\n".encode())
        await writer.drain()

    with listening(serve) as port:
        yield f"ws://127.0.0.1:{port}/v1/realtime"


@pytest.mark.parametrize("provider", ["openai", "azure", "custom"])
def test_nothing_goes_where_a_server_says_one_should_go_instead(
    other: StrictServer, provider: str
) -> None:
    keys: dict[str, Any] = {"OPENAI_API_KEY": KEY, "AZURE_OPENAI_API_KEY": KEY}
    with redirecting(other.url + "?key=secret-in-the-address") as url:
        there = ("--provider", provider, "--url", url)
        run = voicechat("talk", *there, "--text", "Hi", **keys)
        assert run.code == 6
        assert f"(HTTP 307): {other.url}" in run.err
        assert "secret-in-the-address" not in run.err
        assert voicechat("doctor", *there, **keys).code == 1
    assert other.headers == []


# Keys --------------------------------------------------------------------------------------------


def test_the_variable_of_one_server_is_not_for_another(
    mine: StrictServer,
    other: StrictServer,
    config: Write,  # noqa: F811
) -> None:
    settings = f'provider = "custom"\nurl = "{mine.url}"\napi-key-env = "WORK_KEY"\n'
    environment: dict[str, Any] = {"WORK_KEY": STRAY, "LOCALAI_API_KEY": KEY}
    variables: dict[str, Any] = {
        "VOICECHAT_PROVIDER": "custom",
        "VOICECHAT_URL": mine.url,
        "VOICECHAT_API_KEY_ENV": "WORK_KEY",
    }
    config("")
    there = ("--provider", "localai", "--url", other.url)
    held = say(*there, **environment).session
    for extra in ({}, variables, {"VOICECHAT_PROFILE": "work"}):
        config(f"[profiles.work]\n{settings}" if "VOICECHAT_PROFILE" in extra else settings)
        say(*there, **environment, **extra)
        assert sent(other) == KEY
        say(held, *there, command="resume", **environment, **extra)
        assert sent(other) == KEY
        assert mine.headers == []
        say(**environment, **extra)  # but where it belongs
        assert sent(mine) == STRAY
        mine.headers.clear()
    config(f'[profiles.lo]\nprovider = "localai"\nurl = "{other.url}"\n')
    say("-p", "lo", **environment, VOICECHAT_API_KEY_ENV="WORK_KEY")
    assert sent(other) == KEY


def test_the_dialect_of_one_server_is_not_for_another(
    mine: StrictServer,
    config: Write,  # noqa: F811
) -> None:
    config('url = "ws://127.0.0.1:9/other"\ndialect = "beta"\n')
    say("--url", mine.url)
    config('[profiles.w]\nurl = "ws://127.0.0.1:9/other"\ndialect = "beta"\n')
    say("-p", "w", "--url", mine.url)
    say("--url", mine.url, VOICECHAT_URL="ws://127.0.0.1:9/", VOICECHAT_DIALECT="beta")
    assert len(mine.headers) == 3


def test_a_key_that_the_server_repeats_is_shown_nowhere(mine: StrictServer, home: Path) -> None:
    key = "sk-supersecret-key-987654"
    mine.failing_answers = [{"type": "odd", "message": {"deep": [f"no answers for {key}"]}}] * 2
    run = voicechat("talk", "--url", mine.url, "--text", "Hi", "--verbose", OPENAI_API_KEY=key)
    assert "no answers for [API key]" in run.err
    assert key not in run.out + run.err + json.dumps(records(home))


def test_a_key_that_the_server_gives_is_shown_nowhere(mine: StrictServer) -> None:
    given, key = "ek_68af296e8e408191a1120ab6383263c2", "sk-supersecret-key-987654"

    async def give(peer: Peer) -> None:
        peer.session["client_secret"] = {"value": given, "expires_at": 1756310470}
        await peer.send("odd " + given, session=peer.session)

    mine.on_connect = give
    said = ("--text", f"Hi.\n{given}", "--instructions", f"My key:\n{key}", "--verbose")
    run = voicechat("talk", "--url", mine.url, *said, OPENAI_API_KEY=key)
    assert run.code == 0, run.err
    shown = "\n".join(line for line in run.err.splitlines() if " ms  " in line)
    assert f"'client_secret': {{'value': '{'*' * len(given)}'" in shown
    assert f"'odd {'*' * len(given)}' (not used)" in shown
    assert f"My key:\\n{'*' * len(key)}" in shown
    assert given not in shown
    assert key not in shown


def test_sound_is_shown_as_its_length_wherever_it_stands(mine: StrictServer) -> None:
    async def give(peer: Peer) -> None:
        peer.session["sound"] = "QUJD" * 100

    mine.on_connect = give
    run = voicechat("talk", "--url", mine.url, "--text", "Hi", "--verbose", OPENAI_API_KEY=KEY)
    assert "'sound': '<300 bytes>'" in run.err
    assert "QUJD" not in run.err


def test_what_a_server_says_went_wrong_is_shown_up_to_a_length(mine: StrictServer) -> None:
    mine.failing_answers = [{"type": "odd", "message": "no " * 100_000}] * 2
    run = voicechat("talk", "--url", mine.url, "--text", "Hi", OPENAI_API_KEY=KEY)
    assert run.code == 15
    assert len(run.err) < 5000


@pytest.mark.parametrize(
    "url",
    [
        "htp://user:pa55word@h/?api-key=QUERYSECRET",
        "ws://user:pa55word@127.0.0.1:70000/v1",
        "user:pa55word@h.example",
        "wss:/h/?api-key=QUERYSECRET",
        "wss://h/a b?QUERYSECRET",
        "ws://pa55word@127.0.0.1:9/",
    ],
)
def test_secrets_in_what_is_no_address_are_not_shown(url: str) -> None:
    for command in (("talk", "--text", "Hi"), ("doctor",)):
        for run in (voicechat(*command, "--url", url), voicechat(*command, VOICECHAT_URL=url)):
            assert run.code == 2
            assert "pa55word" not in run.out + run.err
            assert "QUERYSECRET" not in run.out + run.err


def test_a_missing_key_is_asked_for_by_the_name_of_its_provider() -> None:
    run = voicechat("talk", "--provider", "azure", "--url", "ws://127.0.0.1:9/v1", "--text", "Hi")
    assert run.code == 5
    assert "`voicechat login azure`" in run.err
    key = "a1b2c3d4e5f60718293a4b5c6d7e8f90"
    run = voicechat("talk", "--text", "Hi", "--api-key-env", key)
    assert run.code == 5
    assert key not in run.err


# Sessions ----------------------------------------------------------------------------------------


def test_a_session_of_a_provider_that_is_not_known_goes_nowhere_by_itself(
    mine: StrictServer, home: Path
) -> None:
    held = say("--url", mine.url, OPENAI_API_KEY=KEY).session
    [path] = (home / "sessions").glob("*.jsonl")
    path.write_text(path.read_text().replace('"provider": "custom"', '"provider": "new\\u001bone"'))
    run = voicechat("resume", held, "--text", "Hi", VOICECHAT_URL=mine.url, OPENAI_API_KEY=KEY)
    assert run.code == 2
    assert "a provider that is not known here" in run.err
    assert "\x1b" not in run.err
    say(held, "--url", mine.url, command="resume", OPENAI_API_KEY=KEY)
    assert len(mine.headers) == 2


def test_the_built_in_server_has_one_dialect() -> None:
    run = voicechat("talk", "--local", "--dialect", "beta", "--text", "Hi")
    assert run.code == 2
    assert "--dialect is for --provider custom" in run.err


# Commands that say a token -----------------------------------------------------------------------


def test_a_secret_that_a_failing_command_printed_is_not_shown(mine: StrictServer) -> None:
    command = shlex.join(
        ["sh", "-c", "echo SECRETTOKEN123; echo SECRETTOKEN123 is old >&2; exit 3"]
    )
    run = voicechat(
        *("talk", "--provider", "azure", "--url", mine.url, "--text", "Hi"),
        VOICECHAT_TOKEN_COMMAND=command,
    )
    assert run.code == 5
    assert "************** is old" in run.err
    assert "SECRETTOKEN" not in run.out + run.err


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_who_hangs_up_leaves_nothing_of_a_command_behind(
    mine: StrictServer, home: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "pid"
    script = f"sleep 300 & echo $! > {shlex.quote(str(mark))}; wait"
    environment = os.environ | {
        "VOICECHAT_HOME": str(home),
        "VOICECHAT_TOKEN_COMMAND": shlex.join(["sh", "-c", script]),
    }
    arguments = ["talk", "--provider", "azure", "--url", mine.url, "--text", "Hi"]
    with subprocess.Popen(
        [sys.executable, "-m", "voicechat", *arguments],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until(lambda: mark.exists() and mark.read_text().strip())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert "Traceback" not in err
    child = int(mark.read_text())
    wait_until(lambda: not Path(f"/proc/{child}").exists())


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_who_hangs_up_while_a_command_is_being_started_leaves_nothing_behind_either(
    tmp_path: Path,
) -> None:
    mark = tmp_path / "pid"
    script = f"sleep 300 & echo $! > {shlex.quote(str(mark))}; wait"

    async def story() -> None:
        asking = asyncio.ensure_future(ask_for_token(["/bin/sh", "-c", script]))
        for _ in range(3):
            await asyncio.sleep(0)  # it is started, and not yet known to be
        wait_until(lambda: mark.exists() and mark.read_text().strip())
        asking.cancel()
        is_over, _ = await asyncio.wait([asking], timeout=10)
        assert is_over

    asyncio.run(story())
    wait_until(lambda: not Path(f"/proc/{mark.read_text().strip()}").exists())
