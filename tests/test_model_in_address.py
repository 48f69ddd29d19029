"""An address may name the model: then it is the one that answers, and all that is told says so."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.program import records, voicechat
from tests.strict_server import KEY, StrictServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with StrictServer().running() as server:
        yield server


@pytest.mark.parametrize("parameter", ["model", "deployment"])
def test_the_session_says_which_model_answered_and_its_price_is_not_anothers(
    server: StrictServer, home: Path, parameter: str
) -> None:
    url = f"{server.url}?{parameter}=smollm2-135m"
    run = voicechat("talk", "--url", url, "--text", "Hi", VOICECHAT_MODEL="gpt-realtime-2.1")
    assert run.code == 0, run.err
    assert server.paths == [f"/v1/realtime?{parameter}=smollm2-135m"]
    assert records(home)[0]["model"] == "smollm2-135m"
    assert " tokens\n" in run.err
    shown = voicechat("history", "show", run.session)
    assert "smollm2-135m" in shown.out + shown.err
    assert "$" not in shown.out + shown.err
    assert "gpt-realtime" not in shown.out + shown.err


def test_another_address_of_a_resumed_session_names_another_model(
    server: StrictServer, home: Path
) -> None:
    first = voicechat("talk", "--url", server.url + "?model=one", "--text", "Hi")
    same = voicechat("resume", first.session, "--url", server.url, "--text", "Hi")
    assert same.code == 0, same.err
    other = voicechat("resume", first.session, "--url", server.url + "?model=two", "--text", "Hi")
    assert other.code == 0, other.err
    opened = [each["model"] for each in records(home) if each["type"] == "opened"]
    assert opened == ["one", "one", "two"]
    assert [path.partition("model=")[2] for path in server.paths] == opened


def test_two_models_are_refused_before_anything_is_sent(server: StrictServer, home: Path) -> None:
    talk = ("talk", "--url", server.url + "?model=one", "--text", "Hi", "--model")
    run = voicechat(*talk, "two")
    assert run.code == 2
    assert len(run.err.splitlines()) == 2
    assert "'one'" in run.err
    assert "'two'" in run.err
    assert not server.paths
    assert voicechat(*talk, "one").code == 0
