"""Which session is gone on with: the last, a fork of it, or none that is kept."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.program import messages, voicechat
from tests.strict_server import KEY, StrictServer
from voicechat.errors import ExitCode
from voicechat.history.reading import add_up


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with StrictServer().running() as server:
        monkeypatch.setenv("VOICECHAT_URL", server.url)
        yield server


def contents(home: Path) -> list[str]:
    return sorted(path.name for path in home.rglob("*.jsonl"))


@pytest.mark.parametrize(
    "arguments", [["talk", "-c"], ["talk", "--continue"], ["resume", "--last"], ["resume"]]
)
def test_the_last_one_is_named_and_gone_on_with(
    server: StrictServer, home: Path, arguments: list[str]
) -> None:
    voicechat("talk", "--text", "Older")
    first = voicechat("talk", "--text", "My name is Ana.", "--name", "Bees")
    run = voicechat(*arguments, "--text", "And now?")
    assert run.code == 0, run.err
    assert f'Going on with {first.session} "Bees", last used 20' in run.err
    assert f'Saved {first.session} "Bees" · 4 turns · ' in run.err
    assert f"Resume: voicechat resume {first.session}\n" in run.err
    assert len(contents(home)) == 2


def test_a_fork_goes_on_by_itself_and_knows_its_parent(server: StrictServer, home: Path) -> None:
    first = voicechat("talk", "--text", "My name is Ana.", "--name", "Bees")
    [parent] = (home / "sessions").iterdir()
    recording = parent.with_name(f"{parent.stem}.0.flac")
    recording.write_bytes(b"sound")
    before = parent.read_bytes()
    run = voicechat("resume", "bees", "--fork", "--text", "And now?")
    assert run.code == 0, run.err
    assert "2 turns restored." in run.err
    assert f'Saved {run.session} "Bees (fork)" · 4 turns' in run.err
    assert run.session != first.session
    assert parent.read_bytes() == before
    fork = next((home / "sessions").glob(f"*-{run.session}.jsonl"))
    assert fork.read_bytes().startswith(before)
    assert add_up(fork).transcript.parent == first.session
    assert fork.with_name(f"{fork.stem}.0.flac").read_bytes() == b"sound"
    assert f"forked from {first.session}" in voicechat("history", "show", run.session).lines
    assert len(messages("bees")) == 2
    assert len(messages("bees (fork)")) == 4
    again = voicechat("talk", "-c", "--fork", "--name", "Other", "--text", "Still?")
    assert f'Saved {again.session} "Other" · 6 turns' in again.err
    assert add_up(next((home / "sessions").glob(f"*-{again.session}.jsonl"))).transcript.parent == (
        run.session
    )


def test_a_fork_in_which_nothing_was_said_is_not_kept(server: StrictServer, home: Path) -> None:
    voicechat("talk", "--text", "My name is Ana.")
    before = contents(home)
    run = voicechat("resume", "--fork", "--text", "And?", "--url", "ws://127.0.0.1:9/")
    assert run.code == ExitCode.CONNECTION
    assert "Saved" not in run.err
    assert "Resume" not in run.err
    assert contents(home) == before


@pytest.mark.parametrize(
    "refused",
    [
        ("--url", "nonsense://x"),
        ("--provider", "azure"),
        ("--ca", "/none"),
        ("--input", "/none.wav"),
        ("--model", "unheard-of", "--max-cost", "1"),
        ("--trace", "/none/trace"),
    ],
)
def test_a_fork_that_is_refused_leaves_no_copy(
    server: StrictServer, home: Path, refused: tuple[str, ...]
) -> None:
    voicechat("talk", "--text", "My name is Ana.")
    before = contents(home)
    text = () if "--input" in refused else ("--text", "And?")
    assert voicechat("resume", "--fork", *text, *refused).code != 0
    assert contents(home) == before


def test_no_log_leaves_a_resumed_session_and_its_fork_as_they_were(
    server: StrictServer, home: Path
) -> None:
    voicechat("talk", "--text", "My name is Ana.")
    [path] = (home / "sessions").iterdir()
    before = path.read_bytes()
    for arguments in (["resume"], ["resume", "--fork"], ["talk", "-c"]):
        run = voicechat(*arguments, "--no-log", "--text", "Secret")
        assert run.code == 0, run.err
        [line] = [each for each in run.err.splitlines() if each.startswith("Not saved")]
        assert re.fullmatch(r"Not saved \(--no-log\) · 4 turns · \d+ s · \d+ tokens .*\$.*", line)
    assert path.read_bytes() == before
    assert list((home / "sessions").iterdir()) == [path]
    assert not [
        each
        for each in home.rglob("*")
        if b"Secret" in (each.read_bytes() if each.is_file() else b"")
    ]


@pytest.mark.parametrize(
    "arguments",
    [["resume", "x", "--last"], ["talk", "-c", "--resume", "x"], ["talk", "--fork"]],
)
def test_two_sessions_at_once_or_none_make_no_sense(home: Path, arguments: list[str]) -> None:
    assert voicechat(*arguments).code == ExitCode.USAGE
    assert not home.exists()


def test_with_nothing_saved_there_is_nothing_to_go_on_with(home: Path) -> None:
    for arguments in (["resume"], ["resume", "--last"], ["talk", "-c"]):
        run = voicechat(*arguments)
        assert run.code == ExitCode.UNKNOWN_SESSION
        assert "voicechat talk" in run.err
