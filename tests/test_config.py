"""The settings file: what it sets, what goes before it, and what it must not hold."""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.program import Run, bound_by_permissions, locked, records, voicechat
from tests.strict_server import KEY, StrictServer
from tests.test_sessions import save
from voicechat.cli.profile import options
from voicechat.config import read_config

Write = Callable[[str], Path]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the settings file."""
    path = tmp_path / "settings" / "my.toml"
    path.parent.mkdir()
    monkeypatch.setenv("VOICECHAT_CONFIG", str(path))

    def write(text: str) -> Path:
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with StrictServer().running() as server:
        yield server


def talk(*arguments: str, **environment: Any) -> Run:
    run = voicechat("talk", "--text", "Hello.", *arguments, **environment)
    assert run.code == 0, run.err
    return run


def told(server: StrictServer) -> dict[str, Any]:
    """What the server was told about the last session."""
    session: dict[str, Any] = server.said(len(server.peers) - 1, "session.update")[0]["session"]
    return session


def voice(server: StrictServer) -> str:
    return str(told(server)["audio"]["output"]["voice"])


def shown(*arguments: str) -> dict[str, dict[str, Any]]:
    run = voicechat("config", "show", "--json", *arguments)
    assert run.code == 0, run.err
    return {each["name"]: each for each in json.loads(run.out)["settings"]}


def test_flag_then_environment_then_profile_then_file_then_default(
    server: StrictServer, config: Write
) -> None:
    config(f'url = "{server.url}"\nvoice = "ash"\n[profiles.work]\nvoice = "coral"\n')
    talk()
    assert voice(server) == "ash"
    talk("-p", "work")
    assert voice(server) == "coral"
    talk(VOICECHAT_PROFILE="work")
    assert voice(server) == "coral"
    talk("-p", "work", VOICECHAT_VOICE="sage")
    assert voice(server) == "sage"
    talk("-p", "work", "--voice", "verse", VOICECHAT_VOICE="sage")
    assert voice(server) == "verse"
    config(f'url = "{server.url}"\n')
    talk()
    assert voice(server) == "marin"
    assert not server.violations


def test_a_saved_session_goes_before_the_file_but_not_before_a_flag(
    server: StrictServer, config: Write
) -> None:
    config(f'url = "{server.url}"\n[profiles.work]\nvoice = "coral"\nlanguage = "de"\n')
    session = talk("--voice", "ash").session
    for arguments, heard in (([], "ash"), (["-p", "work"], "ash"), (["--voice", "sage"], "sage")):
        run = voicechat("resume", session, "--text", "And?", *arguments)
        assert run.code == 0, run.err
        assert voice(server) == heard


def test_a_session_held_without_a_network_stays_so_whatever_the_file_says(
    home: Path, config: Write
) -> None:
    save(home / "sessions", "k7f3a2", "Hello")
    path = next((home / "sessions").glob("*.jsonl"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["local"] = True
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config('url = "nonsense"\n')
    file = ["--input", "/does/not/exist.wav"]
    assert voicechat("talk", *file).code == 2  # of that URL
    assert voicechat("resume", "k7f3a2", *file).code == 9  # it does not matter here


def test_whoever_names_a_server_nearer_by_keeps_out_the_other(
    server: StrictServer, config: Write
) -> None:
    config(f'local = true\n[profiles.work]\nurl = "{server.url}"\n')
    talk("-p", "work")
    talk("--url", server.url)
    talk(VOICECHAT_URL=server.url)
    assert len(server.peers) == 3
    assert shown("-p", "work")["local"]["value"] is False
    config(f'url = "{server.url}"\n[profiles.work]\nlocal = false\n')
    talk("-p", "work")
    assert len(server.peers) == 4


def test_a_profile_of_the_command_line_moves_a_session_to_its_server(
    server: StrictServer, config: Write
) -> None:
    config(
        'provider = "xai"\napi-key-env = "STRAY"\n'
        f'[profiles.work]\nurl = "{server.url}"\nprovider = "localai"\n'
    )
    session = talk("--provider", "azure", "--url", server.url, AZURE_OPENAI_API_KEY="x").session
    talk("-p", "work", STRAY="this-is-not-for-you", LOCALAI_API_KEY=KEY)
    assert server.headers[-1]["Authorization"] == f"Bearer {KEY}"  # whose server it is
    run = voicechat("resume", session, "--text", "Hi", VOICECHAT_PROFILE="work")
    assert run.code == 2
    assert "no address of Azure" in run.err
    run = voicechat("resume", session, "-p", "work", "--text", "Hi", LOCALAI_API_KEY=KEY)
    assert run.code == 0, run.err
    assert server.headers[-1]["Authorization"] == f"Bearer {KEY}"


def test_names_with_hyphens_or_underscores_lists_and_numbers(
    server: StrictServer, config: Write, home: Path
) -> None:
    config(
        f'url = "{server.url}"\nnoise_reduction = "near"\ntranscription-model = "whisper-1"\n'
        'text = ["One.", "Two."]\nname = "From a file"\nreconnect-for = 5\ninput-device = 3\n'
    )
    run = voicechat("talk")
    assert run.code == 0, run.err
    heard = told(server)["audio"]["input"]
    assert heard["noise_reduction"] == {"type": "near_field"}
    assert heard["transcription"]["model"] == "whisper-1"
    said = [r["text"] for r in records(home) if r["type"] == "said" and r["role"] == "user"]
    assert said == ["One.", "Two."]
    assert records(home)[0]["name"] == "From a file"


def test_instructions_in_a_file_are_beside_the_settings(
    server: StrictServer, config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config(f'url = "{server.url}"\ninstructions = "@how.txt"\n')
    (path.parent / "how.txt").write_text("Speak like a pirate.")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "how.txt").write_text("This is another.")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    talk()
    assert "Speak like a pirate." in told(server)["instructions"]
    talk("--instructions", "@how.txt")
    assert "This is another." in told(server)["instructions"]


def test_the_closing_line_repeats_a_profile_that_was_given_by_flag(
    server: StrictServer, config: Write
) -> None:
    config(f'[profiles."at work"]\nurl = "{server.url}"\n')
    run = talk("-p", "at work")
    assert re.search(r"^Resume: voicechat resume \w+ -p 'at work'$", run.err, re.MULTILINE)
    assert not re.search(r"^Resume:.* -p", talk(VOICECHAT_PROFILE="at work").err, re.MULTILINE)


def test_a_flag_for_one_session_goes_before_another_in_the_file(
    server: StrictServer, config: Write, home: Path
) -> None:
    save(home / "sessions", "k7f3a2", "Hello", day=1)
    save(home / "sessions", "k9aaaa", "Hello", day=2)
    config(f'url = "{server.url}"\nresume = "k7f3a2"\nfork = true\n')
    assert talk().session not in ("k7f3a2", "k9aaaa")
    config(f'url = "{server.url}"\nresume = "k7f3a2"\n')
    assert talk().session == "k7f3a2"
    config(f'url = "{server.url}"\ncontinue = true\n')
    assert talk("--resume", "k9aaaa").session == "k9aaaa"
    config(f'url = "{server.url}"\nfork = true\n')
    talk()  # which begins a new one


MISTAKES = [
    ('\nmodle = "x"', "'modle'", "line 2", "Did you mean 'model'?"),
    ('[profiles.work]\n\ninput_devise = "x"', "input_devise", "line 3", "'input-device'"),
    ("voice = 3", "'voice'", "line 1", "text in quotes"),
    ('local = "yes"', "'local'", "line 1", "true or false"),
    ('replay-tokens = "many"', "replay-tokens", "line 1", "whole number"),
    ("replay-tokens = 0", "replay-tokens", "line 1", "range"),
    ("reconnect-for = true", "reconnect-for", "line 1", "number"),
    ('vad = "loud"', "'vad'", "line 1", "'semantic'"),
    ("text = [1]", "'text'", "line 1", "list"),
    ("store = 1", "'store'", "line 1", "URL"),
    ("prices = 1", "'prices'", "line 1", "table"),
    ("[prices.m]\ntext = -1", "is no price", "cached_audio"),
    ("[profiles]\nwork = 1", "profiles.work", "line 2", "table"),
    ("profiles = 1", "profiles", "line 1", "table"),
    ('input-device = "a"\ninput_device = "b"', "input_device", "line 2", "second time"),
    ("voice = \n", "line 1, column 9"),
    ('voice = "\x00"', "line 1"),
    ('profile = "x"', "'profile'", "line 1"),
    ('help = "x"', "'help'", "line 1"),
    ("a = " + "[" * 100_000, "it is not TOML"),
]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_file_and_line(config: Write, mistake: tuple[str, ...]) -> None:
    text, *words = mistake
    path = config(text)
    run = voicechat("talk", "--text", "Hi", "--url", "ws://127.0.0.1:9")
    assert run.code == 2
    assert len(run.err.splitlines()) == 2, run.err
    for word in (str(path), *words):
        assert word in run.err


def test_the_line_of_a_key_is_found_behind_values_of_many_lines(config: Write) -> None:
    config('instructions = """\nvoice = 3\n"""\n\n# voice\n[profiles.a]\nvoice = """\nx"""\n')
    assert read_config().line("profiles", "a", "voice") == 7
    assert read_config().line("instructions") == 1
    assert read_config().line("voice") is None


@pytest.mark.parametrize(
    "text",
    [
        f'api_key = "{KEY}"',
        f'[profiles.work]\nopenai-api-key = "{KEY}"',
        'api-key-env = "sk-proj-abcdefgh"',
        'voice = "sk-proj-abcdefgh"',
        'token = "abcdefgh"',
    ],
)
def test_a_key_is_refused_and_not_repeated(config: Write, text: str) -> None:
    config(text)
    for command in (["talk", "--text", "Hi"], ["config", "show"]):
        run = voicechat(*command)
        assert run.code == 2
        assert "voicechat login" in run.err
        assert KEY not in run.err + run.out
        assert "abcdefgh" not in run.err + run.out


def test_a_profile_that_is_not_there(config: Write) -> None:
    path = config("[profiles.work]\n")
    for command in (["talk", "--text", "Hi"], ["config", "show"], ["history", "list"]):
        run = voicechat(*command, "-p", "wrok")
        assert (run.code, "'work'" in run.err, str(path) in run.err) == (2, True, True)
    assert voicechat("talk", "--text", "Hi", VOICECHAT_PROFILE="wrok").code == 2


def test_a_named_file_that_is_not_there_or_unreadable(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "no", "no such file"), (tmp_path, "is a directory")):
        run = voicechat("talk", "--text", "Hi", VOICECHAT_CONFIG=str(path))
        assert run.code == 2
        assert words in run.err
    (tmp_path / "odd").write_bytes(b"\xff\xfe")
    assert "UTF-8" in voicechat("config", "show", VOICECHAT_CONFIG=str(tmp_path / "odd")).err
    assert "too large" in voicechat("config", "show", VOICECHAT_CONFIG="/dev/zero").err
    assert voicechat("config", "show", VOICECHAT_CONFIG=os.devnull).code == 0


def test_where_one_may_not_look_the_file_is_told_as_if_it_were_locked(
    config: Write, tmp_path: Path
) -> None:
    path = config("")
    link, long = tmp_path / "link", tmp_path / ("x" * 300)
    link.symlink_to(path)
    denied = "permission denied"
    with locked(path.parent):
        for named, reason in ((path, denied), (link, denied), (long, "file name too long")):
            for command in (["talk", "--text", "Hi"], ["history", "list"], ["config", "show"]):
                run = voicechat(*command, preexec=bound_by_permissions, VOICECHAT_CONFIG=str(named))
                assert run.code == 2, (command, named)
                what = f"the settings in {str(named)!r} cannot be read: {reason}"
                assert run.err.splitlines()[0] == f"voicechat: {what}"
            for command in (["config", "init"], ["config", "edit"]):
                run = voicechat(
                    *command,
                    preexec=bound_by_permissions,
                    VOICECHAT_CONFIG=str(named),
                    EDITOR="true",
                )
                assert run.code == 14, (command, named)
                assert f"{str(named)!r} cannot be written" in run.err


def test_help_is_there_whatever_the_file_holds(config: Write) -> None:
    config("nonsense")
    assert voicechat("talk", "--help").code == 0


def test_a_file_of_sqlite_is_beside_the_settings(config: Write, home: Path, tmp_path: Path) -> None:
    path = config('store = "sqlite:///shared.db"\n')
    save(home / "sessions", "k7f3a2", "Hello")
    run = voicechat("history", "sync")
    assert (run.code, run.err) == (0, "")
    assert path.with_name("shared.db").exists()
    whole = f"sqlite:///{tmp_path}/whole.db?timeout=3"
    for url in (whole, "sqlite:///~/own.db"):
        config(f'store = "{url}"\n')
        assert voicechat("history", "sync", HOME=str(tmp_path)).code == 0
    assert {path.name for path in tmp_path.glob("*.db")} >= {"whole.db", "own.db"}


def test_the_store_of_the_file_is_synced_with(config: Write, home: Path, tmp_path: Path) -> None:
    store, other = f"sqlite:///{tmp_path / 'store.db'}", f"sqlite:///{tmp_path / 'other.db'}"
    config(f'store = "{store}"\n[profiles.other]\nstore = "{other}"\n')
    save(home / "sessions", "k7f3a2", "Hello")
    assert voicechat("history", "list").code == 0
    two = str(tmp_path / "two")
    run = voicechat("history", "sync", VOICECHAT_HOME=two)
    assert "1 fetched" in run.out, run.err
    assert "0 fetched" in voicechat("history", "sync", "-p", "other", VOICECHAT_HOME=two).out
    run = voicechat("history", "sync", VOICECHAT_HOME=str(home), VOICECHAT_STORE=other)
    assert "0 fetched" in run.out, run.err
    run = voicechat("history", "sync", VOICECHAT_HOME=two, VOICECHAT_PROFILE="other")
    assert "0 sent, 0 fetched" in run.out, run.err
    third = tmp_path / "third"
    save(third / "sessions", "k9aaaa", "Hello")
    run = voicechat("history", "list", "-p", "other", VOICECHAT_HOME=str(third))
    assert "k7f3a2" in run.out, run.err
    run = voicechat("history", "sync", VOICECHAT_HOME=two, VOICECHAT_PROFILE="other")
    assert "1 fetched" in run.out, run.err
    assert "0 fetched" in voicechat("history", "sync", VOICECHAT_HOME=str(home)).out
    config(f'store = "{store}"\nmodle = 1\n')
    assert voicechat("history", "list").code == 2


def test_prices_of_the_file(config: Write, home: Path, tmp_path: Path) -> None:
    save(home / "sessions", "k7f3a2", "Hello", model="mine")
    path = next((home / "sessions").glob("*.jsonl"))
    usage = {"type": "usage", "at": "2026-01-01T00:00:00.000Z", "output_tokens": 1_000_000}
    with path.open("a") as file:
        file.write(json.dumps(usage | {"model": "mine"}) + "\n")
    config("[prices.mine]\ntext_output = 3.0\n[profiles.dear.prices.mine]\ntext_output = 5.0\n")
    assert "~$3.00" in voicechat("history", "show", "k7f3a2").out
    assert "~$5.00" in voicechat("history", "show", "k7f3a2", VOICECHAT_PROFILE="dear").out
    (tmp_path / "prices.toml").write_text("[mine]\ntext_output = 7.0\n")
    run = voicechat("history", "show", "k7f3a2", VOICECHAT_PRICES=str(tmp_path / "prices.toml"))
    assert "~$7.00" in run.out


def test_show_says_where_each_value_comes_from(config: Write) -> None:
    path = config('voice = "ash"\nmodel = "a"\n\n[profiles.work]\nmodel = "b"\n')
    run = voicechat("config", "show", "-p", "work", VOICECHAT_LANGUAGE="de")
    rows = {line.split()[0]: line for line in run.lines}
    assert rows["voice"].endswith("ash  [file (line 1)]")
    assert rows["model"].endswith("b  [profile (work, line 5)]")
    assert rows["language"].endswith("de  [environment (VOICECHAT_LANGUAGE)]")
    assert rows["vad"].endswith("server  [default]")
    assert "OPENAI_API_KEY  [default]" in rows["api-key-env"]
    assert run.err == f"{path}; profiles: work\n"
    found = json.loads(voicechat("config", "show", "--json").out)
    assert (found["path"], found["exists"], found["profiles"]) == (str(path), True, ["work"])
    named = {each["name"].replace("-", "_") for each in found["settings"]}
    assert named == options().keys() | {"store", "prices"}


def test_show_hides_what_could_be_secret(config: Write) -> None:
    config('url = "wss://me:hush@a.example/v1?model=m&key=hush"\nstore = "redis://:hush@b/0"\n')
    for run in (voicechat("config", "show"), voicechat("config", "show", "--json")):
        assert "hush" not in run.out
        assert "wss://me:...@a.example/v1?model=m&key=..." in run.out
        assert "redis://:...@b/0" in run.out
    voicechat("config", "show", VOICECHAT_URL="wss://[", VOICECHAT_STORE="mysql://u:hush@[/x")
    assert "hush" not in voicechat("config", "show", VOICECHAT_STORE="mysql://u:hush@[/x").out


def test_the_file_is_in_the_directory_for_settings(tmp_path: Path) -> None:
    run = voicechat("config", "path", XDG_CONFIG_HOME=str(tmp_path / "c"), HOME=str(tmp_path))
    assert run.lines[0].startswith(str(tmp_path))
    assert run.lines[0].endswith("config.toml")
    assert voicechat("config", "path", VOICECHAT_CONFIG="/x/y.toml").out == "/x/y.toml\n"


def test_init_explains_every_setting_and_never_overwrites(config: Write, tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.toml"
    run = voicechat("config", "init", VOICECHAT_CONFIG=str(path))
    assert run.code == 0, run.err
    assert str(path) in run.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert max(map(len, text.splitlines())) <= 100
    assert voicechat("config", "show", VOICECHAT_CONFIG=str(path)).code == 0
    path.write_text("# mine\n")
    assert voicechat("config", "init", VOICECHAT_CONFIG=str(path)).code == 14
    assert path.read_text() == "# mine\n"
    everything = config(re.sub(r"^#(?=[a-z\[])", "", text, flags=re.MULTILINE))
    run = voicechat("config", "show", "-p", "work")
    assert run.code == 0, run.err
    assert "default" in run.out  # of those that are for one conversation
    assert everything.read_text().count("\nvoice = ") == 2


def test_init_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = voicechat("config", "init", VOICECHAT_CONFIG=str(tmp_path / "file" / "config.toml"))
    assert run.code == 14
    assert len(run.err.splitlines()) == 2


def test_edit_opens_the_file_and_checks_what_was_made_of_it(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    editor = tmp_path / "my editor"
    editor.write_text('#!/bin/sh\necho "$1" >> "$2"\n')
    editor.chmod(0o700)
    visual = f"'{editor}' 'voice = \"ash\"'"
    run = voicechat("config", "edit", VOICECHAT_CONFIG=str(path), VISUAL=visual, EDITOR="false")
    assert run.code == 0, run.err
    assert path.read_text().startswith("# Settings")
    assert path.read_text().endswith('\nvoice = "ash"\n')
    run = voicechat("config", "edit", VOICECHAT_CONFIG=str(path), EDITOR=f"'{editor}' nonsense")
    assert run.code == 2
    assert "cannot be read" in run.err
    for editor_of_mine in ("false", "/no/such/editor", "'"):
        run = voicechat("config", "edit", VOICECHAT_CONFIG=str(path), EDITOR=editor_of_mine)
        assert (run.code, len(run.err.splitlines())) == (2, 2)


def test_every_option_of_talk_but_the_profile_may_stand_in_the_file() -> None:
    told = "\n".join(voicechat("talk", "--help").lines)
    known = set(re.findall(r"^  (?:-\w, )?--([\w-]+)", told, re.MULTILINE))
    assert {name.replace("_", "-") for name in options()} == known - {"help", "profile"}


# Odd values and odd files -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("speed = nan", "a number from 0.25 to 1.5"),
        ("speed = 99", "a number from 0.25 to 1.5"),
        ("max-cost = 0", "a number from 0.01 to 10000"),
        ("reconnect-for = -1", "a number from 0 to 86400"),
        ('latency = "fast"', '"low", "safe" or a number of seconds'),
        ("latency = 30", '"low", "safe" or a number of seconds'),
        ('record = "talk.mp3"', '"auto" or a name that ends in .flac or .wav'),
        ('output = "talk.mp3"', "the name of a WAV file"),
        ('name = "last"', "a name of 1 to"),
    ],
)
def test_a_value_out_of_range_is_told_with_its_line(config: Write, line: str, told: str) -> None:
    config(f"# first\n{line}\n")
    for command in (["talk", "--text", "Hi"], ["config", "show"]):
        run = voicechat(*command)
        assert run.code == 2
        assert f"(line 2) must be {told}" in run.err


def test_whatever_the_explained_file_offers_can_be_set(config: Write) -> None:
    path = config("")
    path.unlink()
    assert voicechat("config", "init").code == 0
    offered = re.findall(r"^#([a-z-]+ = .*)$", path.read_text(), re.MULTILINE)
    assert len(offered) > 25
    for each in offered:
        each = each if each != "text = 4.0" else f"[prices.mine]\n{each}"
        config(f"{each}\n")
        run = voicechat("config", "show")
        assert run.code == 0, (each, run.err)


def test_wrong_prices_are_told_with_their_line(config: Write) -> None:
    config("[prices.mine]\ntext = 4.0\ntxt = 1\n")
    run = voicechat("config", "show")
    assert run.code == 2
    assert "(line 3) is no price" in run.err
    assert "[prices.my-model]" in run.err


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("VOICECHAT_API_KEY_ENV", "sk-proj-SECRETxyz"),
        ("VOICECHAT_API_KEY_ENV", "0SECRET9876543210abcdef"),
        ("VOICECHAT_API_KEY_ENV", "aSECRET9876543210abcdef"),
        ("VOICECHAT_MODEL", "sk-proj-SECRETxyz"),
        ("VOICECHAT_URL", "sk-proj-SECRETxyz"),
        ("VOICECHAT_URL", "wss://SECRET:@h/"),
        ("VOICECHAT_URL", "u:SECRET@h"),
        ("VOICECHAT_URL", "h/?api_key=SECRET"),
        ("VOICECHAT_URL", "wss://SECRET@h/"),
        ("VOICECHAT_URL", "wss://me:SECRET@h/"),
        ("VOICECHAT_URL", "wss://h/?SECRET"),
        ("VOICECHAT_URL", "wss://h/?key=SECRET"),
        ("VOICECHAT_URL", "wss://h/?model=mine;key=SECRET"),
        ("VOICECHAT_STORE", "postgresql:/me:SECRET@h/db"),
        ("VOICECHAT_STORE", "postgresql://me:SECRET@h/db"),
        ("VOICECHAT_STORE", "redis://:SECRET@h/0"),
        ("VOICECHAT_STORE", "redis://SECRET@h/0"),
        ("VOICECHAT_STORE", "rediss://SECRET@h/0"),
        ("VOICECHAT_STORE", "host=h password=SECRET"),
        ("VOICECHAT_STORE", "postgresql:host=h password=SECRET"),
    ],
)
def test_secrets_are_shown_nowhere(config: Write, variable: str, value: str) -> None:
    config("")
    environment: dict[str, Any] = {variable: value}
    for form in ([], ["--json"]):
        run = voicechat("config", "show", *form, **environment)
        assert run.code == 0, run.err
        assert "SECRET" not in run.out + run.err
        assert variable in run.out


def test_addresses_without_secrets_are_shown(config: Write) -> None:
    config('url = "wss://h.example:1/v1?model=mine"\nstore = "postgresql://me:pw@h/db"\n')
    assert shown()["url"]["value"] == "wss://h.example:1/v1?model=mine"
    assert shown()["store"]["value"] == "postgresql://me:...@h/db"
    config('store = "sqlite:///C/my.db"\n')
    assert shown()["store"]["value"] == "sqlite:///C/my.db"


def test_what_cannot_be_a_settings_file_is_told_without_going_in_circles(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name, told in (
        ("link", "a link to nothing"),
        ("directory", "is a directory"),
        ("file/below.toml", "directory"),
    ):
        for command, code in (
            (["config", "show"], 2),
            (["config", "init"], 14),
            (["config", "edit"], 14),  # before an editor is begun
            (["talk", "--text", "Hi"], 2),
        ):
            run = voicechat(*command, VOICECHAT_CONFIG=str(tmp_path / name), EDITOR="true")
            assert run.code == code, (name, command, run.err)
            assert told in run.err, (name, command)
            assert "VOICECHAT_CONFIG" in run.err
            assert len(run.err.splitlines()) == 2


def test_a_full_disk_leaves_no_half_settings_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    program = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); "
        "from voicechat.cli.main import main; main(['config', 'init'])"
    )
    environment = os.environ | {"VOICECHAT_CONFIG": str(path)}
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 14
    assert "cannot be written" in run.stderr
    assert not path.exists()


def test_without_a_terminal_no_editor_is_begun(config: Write) -> None:
    path = config("")
    run = voicechat("config", "edit", EDITOR="", VISUAL="")
    assert run.code == 2
    assert str(path) in run.err
