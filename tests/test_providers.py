"""Every provider of the table, by a strict server that refuses whatever theirs does not take."""

from __future__ import annotations

import json
import shlex
import sys
import wave
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.dialects import BETA, GA, GA_AT_16_KHZ, XAI, Dialect, Json
from tests.program import Run, records, voicechat
from tests.strict_server import KEY, Peer, StrictServer, tone
from tests.test_docs import section
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.providers import (
    CUSTOM,
    CUSTOM_BETA,
    LOCAL,
    PROVIDERS,
    Provider,
    beta_session,
    ga_session,
    provider_of,
    xai_session,
)
from voicechat.realtime.replay import NOTE

ALL = {"user", "assistant", "system"}
STRAY = "sk-this-is-for-someone-else"


@dataclass(frozen=True)
class Kind:
    """How the servers of a provider differ from OpenAI's."""

    dialect: Dialect = GA
    input_rate: int = 24_000
    roles: frozenset[str] = frozenset(ALL)
    can_truncate: bool = True
    options: tuple[str, ...] = ()

    @contextmanager
    def running(self) -> Iterator[StrictServer]:
        server = StrictServer()
        server.dialect, server.input_rate = self.dialect, self.input_rate
        server.roles, server.can_truncate = set(self.roles), self.can_truncate
        with server.running():
            yield server


ONLY_USER = frozenset({"user"})
KINDS = {
    "openai": Kind(),
    "azure": Kind(),
    "xai": Kind(XAI, can_truncate=False),
    "qwen": Kind(BETA, 16_000, ONLY_USER, can_truncate=False),
    "stepfun": Kind(BETA, can_truncate=False),
    "speaches": Kind(BETA, can_truncate=False),
    "localai": Kind(can_truncate=False),
    "vllm": Kind(GA_AT_16_KHZ, 16_000, ONLY_USER, can_truncate=False),
    "speech-to-speech": Kind(roles=ONLY_USER, can_truncate=False),
    "custom": Kind(),
    "custom beta": Kind(BETA, options=("--dialect", "beta")),
}


def test_every_provider_of_the_table_has_a_server_here() -> None:
    assert {name.split()[0] for name in KINDS} | {"local"} == PROVIDERS.keys()


def talk(server: StrictServer, kind: str, *arguments: str | Path, command: str = "talk") -> Run:
    name = kind.split()[0]
    environment: dict[str, Any] = {provider.key_variable: STRAY for provider in PROVIDERS.values()}
    run = voicechat(
        *(command, "--provider", name, "--url", server.url, *KINDS[kind].options, *arguments),
        **environment | {PROVIDERS[name].key_variable: KEY},
    )
    assert run.code == 0, run.err
    return run


def say(path: Path, *milliseconds: int) -> Path:
    """A sound file: a tone and a silence in turn."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        for place, ms in enumerate(milliseconds):
            file.writeframes(tone(ms) if place % 2 == 0 else bytes(48 * ms))
    return path


def created(server: StrictServer, connection: int) -> list[Json]:
    return [event["item"] for event in server.said(connection, "conversation.item.create")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_an_interruption_and_a_resume(kind: str, tmp_path: Path, home: Path) -> None:
    provider, takes = PROVIDERS[kind.split()[0]], KINDS[kind]
    with takes.running() as server:
        server.be_interrupted()
        over, answer = say(tmp_path / "over.wav", 400, 1900, 400), tmp_path / "answer.wav"
        run = talk(server, kind, "--input", over, "--output", answer)
        heard = run.lines[1].removeprefix("Assistant: ").removesuffix(" (interrupted)")
        assert run.lines[0] == "You: hello there"
        assert run.lines[1].endswith(" (interrupted)")
        assert heard
        assert "I could go on for ever. I could go on for ever.".startswith(heard[:40])
        assert run.lines[3] == "Assistant: All right. I heard you."

        cuts = server.said(0, "conversation.item.truncate")
        assert len(cuts) == takes.can_truncate
        with wave.open(str(answer)) as file:
            written_ms = file.getnframes() // 24
        for cut in cuts:
            assert abs(written_ms - (cut["audio_end_ms"] + 600)) <= 40
        [opened] = [r for r in records(home) if r["type"] == "opened"]
        assert opened["provider"] == provider.name
        assert server.url not in json.dumps(records(home))

        before = [line.replace(" (interrupted)", "") for line in run.lines]
        run = talk(server, kind, run.session, "--text", "And then?", command="resume")
        assert "4 turns restored." in run.err
        told = created(server, 1)
        assert [item["role"] for item in told[-1:]] == ["user"]
        if "assistant" in takes.roles:
            roles = ["user", "assistant"] * 2
            assert [item["role"] for item in told] == [*roles, "system", "user"]
            said = [item["content"][0]["text"] for item in told]
            assert said == ["hello there", heard, "hello there", before[3][11:], NOTE, "And then?"]
        else:
            assert [item["role"] for item in told] == ["user"] * 3
            packed = told[0]["content"][0]["text"].splitlines()
            assert packed[1:] == [line.replace("You:", "User:") for line in before]


@pytest.mark.parametrize(
    "kind", [kind for kind, each in KINDS.items() if each.input_rate == 16_000]
)
def test_a_server_that_hears_at_16_khz_is_given_that(kind: str, tmp_path: Path) -> None:
    with KINDS[kind].running() as server:
        talk(server, kind, "--input", say(tmp_path / "a.wav", 500))
        [peer] = server.peers
        samples = np.frombuffer(bytes(peer.heard), "<i2")[:8000].astype(float)
    expected = 8000 * np.sin(2 * np.pi * 440 * np.arange(8000) / 16_000)
    middle = slice(200, -200)
    assert np.abs(samples[middle] - expected[middle]).max() < 20


@pytest.mark.parametrize("kind", KINDS)
def test_the_key_and_the_model_go_where_the_provider_wants_them(kind: str) -> None:
    provider = PROVIDERS[kind.split()[0]]
    with KINDS[kind].running() as server:
        talk(server, kind, "--text", "Hello.")
        headers = {name.lower(): value for name, value in server.headers[0].items()}
        if kind == "azure":
            assert headers.pop("api-key") == KEY
        else:
            assert headers.pop("authorization") == f"Bearer {KEY}"
        assert KEY not in str(headers)
        assert STRAY not in str(server.headers)
        model = {"custom beta": "gpt-realtime-2.1"}.get(kind, provider.model)
        assert server.paths == [f"/v1/realtime?model={model}"]


@pytest.mark.parametrize("spoken", KINDS)
def test_what_one_dialect_says_another_refuses(spoken: str) -> None:
    provider = CUSTOM_BETA if spoken == "custom beta" else PROVIDERS[spoken]
    some = Configuration(vad="none", noise_reduction="far", speed=0.8, text_only=True)
    for options in (Configuration(), some):
        update = {"type": "session.update", "session": provider.session(provider, options)}
        for dialect in (GA, BETA, XAI, GA_AT_16_KHZ):
            is_refused = bool(dialect.violations(update))
            assert is_refused is (dialect is not KINDS[spoken].dialect), dialect


def test_what_a_provider_cannot_do_is_told_and_not_asked_for() -> None:
    wanted = Configuration(model="grok-voice-latest", voice="ara", speed=0.8, text_only=True)
    xai = PROVIDERS["xai"]
    assert [line.split()[0:2] for line in xai.unknown(wanted)] == [
        ["xAI", "does"],
        ["xAI", "speaks"],
    ]
    assert "0.8" not in json.dumps(xai.session(xai, wanted))
    for name, place in (
        ("openai", ("audio", "output")),
        ("azure", ("audio", "output")),
        ("qwen", ()),
    ):
        provider = PROVIDERS[name]
        told = provider.session(provider, wanted)
        for key in place:
            told = told[key]
        assert told["speed"] == 0.8


def test_the_table_of_the_readme_is_the_one_of_the_program() -> None:
    lines = section("Providers").splitlines()
    _, _, *table = [line for line in lines if line.startswith("| ")]
    assert table == [row(provider) for provider in PROVIDERS.values()]


def row(provider: Provider) -> str:
    """A provider as the README tells of it."""
    where = provider.url or provider.url_variable or "--url"
    address, key = f"`{where}`", f"`{provider.key_variable}`"
    if not provider.needs_key:
        key += ", if it wants one"
    sessions: dict[object, str] = {ga_session: "GA", beta_session: "beta", xai_session: "its own"}
    speaks = sessions[provider.session]
    deviates = [
        *["hears 16 kHz"] * (provider.input_rate == 16_000),
        *["history in one message"] * (provider.assistant_part is None),
        *["no truncation"] * (not provider.can_truncate),
        *["no `--speed`"] * (not provider.takes_speed),
        *["always speaks"] * (not provider.can_write),
        *["no summaries"] * (not provider.can_summarise),
    ]
    if provider is LOCAL:
        address = key = ""
    if provider is CUSTOM:
        assert not CUSTOM_BETA.can_summarise
        speaks, deviates = "`--dialect`", ["beta: no summaries"]
    cells = [f"`{provider.name}`", provider.title, address, key, speaks, ", ".join(deviates)]
    return f"| {' | '.join(cells)} |".replace("  ", " ").replace("|  |", "| |")


# Addresses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("api.openai.com", "openai"),
        ("my-resource.openai.azure.com", "azure"),
        ("openai.azure.com", "custom"),
        ("api.x.ai", "xai"),
        ("fapi.x.ai", "custom"),
        ("api.x.ai.example.org", "custom"),
        ("dashscope-intl.aliyuncs.com", "qwen"),
        ("API.StepFun.com.", "stepfun"),
        ("localhost", "custom"),
        ("", "custom"),
    ],
)
def test_a_host_tells_whose_it_is(host: str, name: str) -> None:
    assert provider_of(host).name == name


def refused(run: Run, code: int, *words: str) -> None:
    assert run.code == code, run.err
    assert len(run.err.splitlines()) == 2, run.err
    for word in words:
        assert word in run.err


def test_contradictions_and_missing_addresses_are_told() -> None:
    hi = ("--text", "Hi")
    refused(voicechat("talk", "--provider", "azure", *hi), 2, "AZURE_OPENAI_ENDPOINT", "--url")
    refused(voicechat("talk", "--provider", "custom", *hi), 2, "no address", "--url")
    refused(voicechat("talk", "--provider", "grok", *hi), 2, "'grok'", "xai")
    refused(voicechat("talk", "--provider", "xai", *hi), 5, "XAI_API_KEY")
    refused(voicechat("talk", "--url", "wss://api.x.ai/v1/realtime", *hi), 5, "XAI_API_KEY")
    refused(voicechat("talk", "--provider", "xai", "--dialect", "beta", *hi), 2, "--dialect")
    refused(voicechat("talk", "--local", "--provider", "xai", *hi), 2, "two servers")
    url = ("--url", "wss://api.openai.com/v1/realtime")
    refused(voicechat("talk", "--provider", "xai", *url, *hi), 2, "OpenAI", "xAI")
    refused(voicechat("talk", "--provider", "local", *url, *hi), 2, "two servers")


def test_an_address_of_the_environment_is_not_for_another_provider() -> None:
    with StrictServer().running() as server:
        run = voicechat(
            *("talk", "--provider", "xai", "--text", "Hi", "--reconnect-for", "0"),
            VOICECHAT_URL=server.url,
            XAI_API_KEY=KEY,
            HTTPS_PROXY="http://127.0.0.1:9",
        )
        assert run.code == 4
        assert "HTTPS_PROXY" in run.err
        assert not server.headers


def test_the_environment_may_name_the_provider_of_its_address() -> None:
    with KINDS["qwen"].running() as server:
        environment: dict[str, Any] = {"VOICECHAT_URL": server.url, "VOICECHAT_PROVIDER": "qwen"}
        run = voicechat("talk", "--text", "Hi", DASHSCOPE_API_KEY=KEY, **environment)
        assert run.code == 0, run.err
        run = voicechat(
            *("resume", run.session, "--text", "Hi"), DASHSCOPE_API_KEY=KEY, **environment
        )
        assert "2 turns restored." in run.err


def test_a_session_goes_on_with_its_provider_and_no_file_says_where_that_is() -> None:
    with KINDS["stepfun"].running() as server:
        held = talk(server, "stepfun", "--text", "Hi").session
        # The environment means another server: its address is not for the key of this provider.
        run = voicechat("resume", held, "--text", "Hi", VOICECHAT_URL=server.url)
        refused(run, 5, "STEPFUN_API_KEY")
        assert len(server.headers) == 1
    with StrictServer().running() as server:
        run = voicechat("resume", held, "--text", "Hi", "--url", server.url)  # and so another model
        assert run.code == 0, run.err
        assert server.paths == ["/v1/realtime?model=gpt-realtime-2.1"]
        run = voicechat("resume", held, "--text", "Hi")
        assert run.code == 2
        assert "no address" in run.err


def test_the_model_of_an_older_session_is_not_asked_of_another_provider(home: Path) -> None:
    older = {"type": "opened", "session": "ab2345", "model": "gpt-realtime", "voice": "cedar"}
    said = {"type": "said", "item_id": "a", "role": "user", "text": "Hi"}
    (home / "sessions").mkdir(parents=True)
    path = home / "sessions" / "20260822-093012-ab2345.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in (older, said)))
    for kind, path_of in (("openai", "gpt-realtime"), ("xai", "grok-voice-latest")):
        with KINDS[kind].running() as server:
            talk(server, kind, "ab2345", "--no-log", "--text", "Hi", command="resume")
            assert server.paths == [f"/v1/realtime?model={path_of}"]


def test_the_closing_line_names_what_is_not_saved() -> None:
    with KINDS["custom beta"].running() as server:
        run = talk(server, "custom beta", "--text", "Hi")
        assert f" --dialect beta --provider custom --url {server.url}" in run.err


def test_unknown_models_and_voices_are_asked_for_and_named() -> None:
    with StrictServer().running() as server:
        run = talk(
            server, "openai", "--text", "Hi", "--model", "gpt-9-realtime", "--voice", "mar\x1bin"
        )
        assert "'gpt-9-realtime' is not among the models of OpenAI" in run.err
        assert "is not among the voices of OpenAI: alloy," in run.err
        assert "\x1b" not in run.err
        assert server.paths == ["/v1/realtime?model=gpt-9-realtime"]
    assert not CUSTOM.unknown(Configuration(model="mine", voice="mine"))


# Azure -------------------------------------------------------------------------------------------


def azure(server: StrictServer, *options: str, **environment: Any) -> Run:
    endpoint = server.url.removesuffix("/v1/realtime").replace("ws://", "http://")
    return voicechat(
        *("talk", "--provider", "azure", "--text", "Hi", "--model", "mine", *options),
        AZURE_OPENAI_ENDPOINT=endpoint + "/",
        **environment,
    )


def command(code: str) -> str:
    return shlex.join([sys.executable, "-c", code])


def test_an_azure_endpoint_is_completed_and_takes_a_token() -> None:
    with StrictServer().running() as server:
        assert azure(server, AZURE_OPENAI_AD_TOKEN="eyJ0.token", AZURE_OPENAI_API_KEY=KEY).code == 0
        assert server.paths == ["/openai/v1/realtime?model=mine"]
        headers = {name.lower(): value for name, value in server.headers[0].items()}
        assert headers["authorization"] == "Bearer eyJ0.token"
        assert "api-key" not in headers


def test_a_command_is_asked_for_a_token_for_each_connection(tmp_path: Path) -> None:
    code = "import pathlib, sys; path = pathlib.Path(sys.argv[1]); path.touch()"
    code += (
        "; path.write_text('x' + path.read_text()); print('token', path.stat().st_size, sep='-')"
    )
    asked = shlex.join([sys.executable, "-c", code, str(tmp_path / "count")])

    async def reset(peer: Peer) -> None:
        peer.reset()

    def on_event(peer: Peer, event: Json) -> Awaitable[object] | None:
        is_due = peer.number == 0 and event["type"] == "response.create"
        return reset(peer) if is_due else None

    with StrictServer().running() as server:
        server.on_event = on_event
        run = azure(server, VOICECHAT_TOKEN_COMMAND=asked, AZURE_OPENAI_API_KEY=STRAY)
        assert run.code == 0, run.err
        tokens = [dict(headers)["Authorization"] for headers in server.headers]
        assert tokens == ["Bearer token-1", "Bearer token-2"]
        assert STRAY not in str(server.headers)


def test_a_key_that_is_named_wins_over_tokens() -> None:
    with StrictServer().running() as server:
        run = azure(
            server,
            *("--api-key-env", "MY_KEY"),
            MY_KEY=KEY,
            AZURE_OPENAI_AD_TOKEN=STRAY,
            VOICECHAT_TOKEN_COMMAND="no-such-program-here",
        )
        assert run.code == 0, run.err
        assert dict(server.headers[0])["api-key"] == KEY
        assert STRAY not in str(server.headers)


def test_a_token_that_is_refused_is_told_by_where_it_came_from_and_not_shown() -> None:
    async def refuse(peer: Peer) -> None:
        await peer.websocket.close(3000, "invalid_request_error.token-that-is-old")

    asked = command("print('token-that-is-old')")
    with StrictServer().running() as server:
        server.on_connect = refuse
        run = azure(server, VOICECHAT_TOKEN_COMMAND=asked)
        refused_lines = run.err.splitlines()[-2:]
        assert run.code == 5, run.err
        assert "VOICECHAT_TOKEN_COMMAND" in refused_lines[1]
        assert "token-that-is-old" not in run.err


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        ("no-such-program-here", 2, "no-such-program-here"),
        ("'unbalanced", 2, "VOICECHAT_TOKEN_COMMAND is no command"),
        (command("import sys; sys.exit('log in \x1b[31mfirst')"), 5, "log in"),
        (command("print('Welcome to the cloud')"), 5, "something else than a token"),
        (command("pass"), 5, "something else than a token"),
    ],
)
def test_a_command_that_says_no_token_is_told(said: str, code: int, words: str) -> None:
    with StrictServer().running() as server:
        run = azure(server, VOICECHAT_TOKEN_COMMAND=said)
        assert run.code == code, run.err
        assert words in run.err
        assert "\x1b" not in run.err
        assert "Welcome" not in run.err
        assert not server.headers


def test_a_token_command_is_for_those_that_take_tokens_only() -> None:
    with StrictServer().running() as server:
        run = voicechat(
            *("talk", "--text", "Hi", "--url", server.url),
            OPENAI_API_KEY=KEY,
            VOICECHAT_TOKEN_COMMAND=command("print('secret-for-azure')"),
        )
        assert run.code == 0, run.err
        assert dict(server.headers[0])["Authorization"] == f"Bearer {KEY}"
