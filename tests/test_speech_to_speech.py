"""A server that nobody here wrote: Hugging Face's ``speech-to-speech``, as far as it goes.

What it cannot do, and what comes of that here:

* It takes ``conversation.item.truncate`` and does nothing: the transcript has what was heard, and a
  resumed session tells it so; until then, it knows the interrupted answer in its own way.
* It refuses ``input_audio_buffer.clear`` and ``conversation.item.retrieve``.
* It keeps the last ten turns of the user's only, and before version 1.0 took no items of the
  assistant's: the history goes into one message, which counts as one turn.
* It serves one client for each of its pipelines, and turns others away.
"""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.program import records, voicechat
from tests.test_providers import say
from voicechat.realtime.replay import NOTE

ANSWER_MS = 4000


@dataclass(frozen=True)
class Server:
    url: str
    notes: Path

    @property
    def told(self) -> list[list[tuple[str, str]]]:
        """What it knew of the conversation, each time that it was to answer."""
        lines = self.notes.read_text(encoding="utf-8").splitlines()
        return [[(role, text) for role, text in json.loads(line)] for line in lines]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    notes = tmp_path / "notes"
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.speech_to_speech_server", str(port), str(notes)],
            stdout=file,
            stderr=file,
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield Server(f"ws://127.0.0.1:{port}/v1/realtime", notes)
    finally:
        process.kill()
        process.wait()


def answer(told: int) -> str:
    return f"You have told me {told} things so far, and I remember all of them."


@pytest.mark.parametrize("provider", ["speech-to-speech", "custom"])
def test_a_conversation_an_interruption_and_a_resume(
    server: Server, provider: str, tmp_path: Path, home: Path
) -> None:
    where = ("--provider", provider, "--url", server.url)
    speech = say(tmp_path / "over.wav", 400, 2000, 400)
    run = voicechat("talk", *where, "--input", speech, "--output", tmp_path / "answer.wav")
    assert run.code == 0, run.err
    user, cut, again, whole = run.lines
    assert (user, again) == ("You: hello there", "You: hello there")
    heard = cut.removeprefix("Assistant: ").removesuffix(" (interrupted)")
    assert cut.endswith(" (interrupted)")
    assert heard
    assert answer(1).startswith(heard)
    assert whole.startswith("Assistant: You have told me ")
    said = [record for record in records(home) if record["type"] == "said"]
    assert [(each["role"], each["status"]) for each in said] == [
        ("user", "complete"),
        ("assistant", "interrupted"),
        ("user", "complete"),
        ("assistant", "complete"),
    ]
    last = said[-1]
    assert abs(last["end_ms"] - last["start_ms"] - ANSWER_MS) < 100

    run = voicechat("resume", run.session, *where, "--text", "What did I say?")
    assert run.code == 0, run.err
    assert "4 turns restored." in run.err
    assert "Not restored" not in run.err
    assert "reports a problem" not in run.err
    before = [(user[5:], heard), (again[5:], whole[11:])]
    told = server.told[-1]
    if provider == "custom":
        turns = [turn for pair in before for turn in zip(("user", "assistant"), pair, strict=True)]
        # What the system says, it puts first.
        assert told == [("system", NOTE), *turns, ("user", "What did I say?")]
    else:  # it joins what one side says in succession
        lines = [f"User: {one}\nAssistant: {other}" for one, other in before]
        packed = "\n".join(["This was said so far:", *lines])
        assert told == [("user", f"{packed}\n{NOTE}\nWhat did I say?")]


def ask(connection: ClientConnection, event: dict[str, Any]) -> dict[str, Any] | None:
    """What the server says to this, if anything within a second."""
    connection.send(json.dumps(event))
    try:
        said = json.loads(connection.recv(timeout=1))
    except TimeoutError:
        return None
    assert isinstance(said, dict)
    return said


def test_what_it_cannot_do(server: Server) -> None:
    with connect(server.url) as connection:
        assert json.loads(connection.recv())["type"] == "session.created"
        cut = {"item_id": "any", "content_index": 0, "audio_end_ms": 100}
        assert ask(connection, {"type": "conversation.item.truncate", **cut}) is None
        for kind in ("input_audio_buffer.clear", "conversation.item.retrieve"):
            refused = ask(connection, {"type": kind, "item_id": "any"})
            assert refused is not None, kind
            assert refused["error"]["type"] == "unknown_or_invalid_event"
        run = voicechat("talk", "--url", server.url, "--text", "Hi", "--reconnect-for", "1")
        assert run.code == 4, run.err
        assert "cannot serve us now: All 1 session slots are in use." in run.err
