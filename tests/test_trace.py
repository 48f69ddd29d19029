"""Traces: what stands in them, and that the core, run over them, decides the very same."""

from __future__ import annotations

import json
import os
import random
import re
import stat
import sys
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.program import Run, voicechat
from tests.stage import Stage, count
from tests.strict_server import KEY, Json, Peer, StrictServer
from tests.tmux import terminal
from tests.virtual_card import VirtualCard
from voicechat.errors import ConnectError, VoicechatError
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.events import (
    Event,
    ResponseOutputAudioDelta,
    SessionCreated,
    UnknownEvent,
)
from voicechat.realtime.inputs import Input, MicCaptured, Received, TextTyped
from voicechat.realtime.masking import without_secrets
from voicechat.realtime.policy import Policy
from voicechat.realtime.providers import OPENAI
from voicechat.realtime.recording import Gate
from voicechat.realtime.tracing import (
    MalformedTraceError,
    happened_line,
    header,
    input_of,
    milliseconds,
    moment,
    replayed,
)
from voicechat.transcript import (
    Back,
    Closed,
    Lost,
    Opened,
    Record,
    Renamed,
    Said,
    Speaking,
    Summary,
    Transcript,
    Usage,
)

DELTA = "response.output_audio.delta"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with StrictServer().running() as server:
        monkeypatch.setenv("VOICECHAT_URL", server.url)
        yield server


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a conversation with all there is: an interruption, a lost line, speech and typing."""
    place = tmp_path_factory.mktemp("trace") / "stage"
    path = place / "trace.jsonl"

    def on_send(peer: Peer, event: Json) -> Awaitable[object] | None:
        """The line is lost in the middle of the second answer; the first was interrupted."""
        is_due = peer.number == 0 and event["type"] == DELTA and count(peer, DELTA) == 15
        return reset(peer) if is_due and peer.is_open else None

    with Stage(place, 0.4, 1.0, 1.2, 1.0, 0.4) as stage:
        stage.server.answer_ms, stage.server.deltas = 4000, 10
        stage.server.on_send = on_send
        run = stage.talk("--text", "Hello there.", "--trace", str(path))
        assert run.out.count("(interrupted)") == 2
        assert stage.server.said(0, "conversation.item.truncate")
        assert "The line was lost" in run.err
        assert len(stage.peers) == 2
    return path


async def reset(peer: Peer) -> None:
    peer.reset()


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def refused(run: Run, code: int = 2) -> str:
    *_, message, remedy = run.err.splitlines()
    assert (run.code, run.out) == (code, ""), run.err
    assert message.startswith("voicechat: ")
    assert remedy.startswith("  ")
    assert remedy.endswith(".")
    return message


# Writing -----------------------------------------------------------------------------------------


def test_a_trace_holds_every_event_of_both_sides_with_times_and_without_sound(trace: Path) -> None:
    first, *lines = lines_of(trace)
    assert first["trace"] == 1
    assert first["configuration"]["vad"] == "server"
    assert first["transcript"][0]["type"] == "opened"
    times = [line["ms"] for line in lines]
    assert times == sorted(times)
    assert times[-1] > 5000
    said = [(line["connection"], line["event"]) for line in lines if "event" in line]
    kinds = {(number, event["type"]) for number, event in said}
    assert {
        (1, "session.created"),
        (1, "session.update"),
        (1, "input_audio_buffer.append"),
        (1, DELTA),
        (2, "conversation.item.create"),
        (2, "response.create"),
    } <= kinds
    sounds = [e["delta"] for _, e in said if e["type"] == DELTA]
    assert set(sounds) == {19_200}
    assert max(map(len, trace.read_text("utf-8").splitlines()[1:])) < 3000
    happened = {line["in"] for line in lines if "in" in line}
    assert {"mic_captured", "disconnected", "playback_stopped", "text_typed"} <= happened
    assert "deadline_reached" in happened


def test_a_trace_is_readable_by_its_owner_alone(trace: Path) -> None:
    assert stat.S_IMODE(trace.stat().st_mode) == 0o600


def test_no_key_stands_in_a_trace(server: StrictServer, tmp_path: Path) -> None:
    other = "sk-proj-abcdefghijklmnopqrstuv"

    async def complain(peer: Peer) -> None:
        message = f"Odd: {KEY}, {other}."
        await peer.send("error", error={"type": "x", "code": "y", "message": message})
        await peer.take({"type": "response.create"})

    server.on_event = lambda peer, e: complain(peer) if e["type"] == "response.create" else None
    server.answer_text = f"Your key is {KEY}."
    path = tmp_path / "trace.jsonl"
    run = voicechat(
        *("talk", "--trace", path, "--instructions", f"My key: {KEY}."),
        *("--text", f"It is {KEY} or {other}."),
    )
    assert run.code == 0, run.err
    text = path.read_text("utf-8")
    assert "Odd: [API key], *****" in text
    assert "My key: *****" in text
    assert "It is *****" in text
    for secret in (KEY, other):
        assert secret not in text
        assert secret[8:] not in text
    assert voicechat("replay-trace", path).code == 0


def test_a_key_that_does_not_look_like_one_does_not_stand_there_either(
    server: StrictServer, tmp_path: Path
) -> None:
    path, key = tmp_path / "trace.jsonl", "open-sesame-42"
    run = voicechat(
        *("talk", "--trace", path, "--text", f"It is {key}, is it?"), OPENAI_API_KEY=key
    )
    assert run.code == 0, run.err
    assert key not in path.read_text("utf-8")
    assert f"It is {'*' * len(key)}, is it?" in path.read_text("utf-8")


@pytest.mark.parametrize("kind", ["session.created", "odd"])
def test_what_is_nested_deeply_is_written_as_far_as_it_tells(kind: str) -> None:
    session = json.loads("[" * 900 + "]" * 900)
    event = UnknownEvent({"type": kind, "session": session})
    known = SessionCreated({"odd": session})
    for each in (event, known):
        line = json.dumps(happened_line(Received(1, each), 0))
        assert line.count("[") < 200
        assert "..." in line


@pytest.mark.parametrize("text", ["risk-averse-and-more-words", "task", "ask-me-anything-at-all"])
def test_ordinary_words_are_no_keys(text: str) -> None:
    assert without_secrets(text, [KEY]) == text


def test_what_is_there_is_not_overwritten(server: StrictServer, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("precious\n")
    told = refused(voicechat("talk", "--text", "Hello.", "--trace", path), 14)
    assert told.endswith("trace.jsonl' already")
    assert path.read_text() == "precious\n"
    assert server.peers == []
    path.write_text("")
    run = voicechat("talk", "--text", "Hello.", VOICECHAT_TRACE=str(path))
    assert run.code == 0, run.err
    assert lines_of(path)[-1]["out"] == "finish"


@pytest.mark.parametrize("name", ["", ".", "none/trace.jsonl", "a" * 300, "pipe"])
def test_where_nothing_can_be_written_is_said_at_once(
    server: StrictServer, tmp_path: Path, name: str
) -> None:
    os.mkfifo(tmp_path / "pipe")  # that nobody reads
    path = f"{tmp_path}/{name}" if name else ""
    told = refused(voicechat("talk", "--text", "Hello.", "--trace", path), 14)
    assert "the trace cannot be written to" in told
    assert server.peers == []


def test_standard_output_is_no_trace(server: StrictServer) -> None:
    assert "--trace writes a file" in refused(voicechat("talk", "--text", "Hi", "--trace", "-"), 2)
    assert not Path("-").exists()
    assert server.peers == []


def test_a_device_may_take_a_trace(server: StrictServer) -> None:
    run = voicechat("talk", "--text", "Hello.", "--trace", "/dev/stderr")
    assert run.code == 0
    assert '"out":"finish"' in run.err


def test_a_full_disk_ends_the_trace_and_not_the_conversation(server: StrictServer) -> None:
    run = voicechat("talk", "--text", "Hello.", "--trace", "/dev/full")
    assert (run.code, len(run.lines)) == (0, 2)
    assert run.err.count("The trace ends here: no space left on device.") == 1


# Reading -----------------------------------------------------------------------------------------


def test_the_core_decides_the_very_same_again(trace: Path) -> None:
    for seed in ("1", "2"):  # of hashes: no order may depend on them
        run = voicechat("replay-trace", "--json", trace, PYTHONHASHSEED=seed)
        assert run.code == 0, run.out
        decided = [json.loads(line) for line in run.lines]
        assert {each.pop("mark") for each in decided} == {""}
        assert decided == [line for line in lines_of(trace) if "out" in line]


@pytest.mark.card
def test_keys_and_a_real_microphone_are_in_the_trace(server: StrictServer, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    program: list[str | Path] = [sys.executable, "-m", "voicechat", "talk", "--trace", path]
    with VirtualCard() as card:
        ours = ("PULSE", "ALSA")
        environment: Any = {n: value for n, value in card.env.items() if n.startswith(ours)}
        with terminal(program, **environment) as screen:
            screen.wait_for("Listening.")
            screen.send("m")
            screen.wait_for("Microphone muted.")
            screen.send("t")
            screen.wait_for(">")
            screen.type("Hello there.")
            screen.send("Enter")
            screen.wait_until(
                lambda lines: any(re.match(r"0:\d\d Assistant: ", line) for line in lines)
            )
            screen.send("q")
            screen.wait_for_end()
    happened = [line["in"] for line in lines_of(path) if "in" in line]
    assert [kind for kind in happened if kind in ("mute_toggled", "text_typed")] == [
        "mute_toggled",
        "text_typed",
    ]
    assert {"playback_finished", "quit_requested"} <= set(happened)
    assert happened.count("mic_captured") > 10
    run = voicechat("replay-trace", path)
    assert run.code == 0, run.out


def test_a_trace_is_shown_for_people(trace: Path) -> None:
    run = voicechat("replay-trace", trace)
    assert run.code == 0
    assert run.lines[0].split() == ["0.000", ">", "connect", "1"]
    assert run.lines[-1].split()[1:] == [">", "finish"]
    assert any("> send 1 input_audio_buffer.append" in line for line in run.lines)
    assert any(line.endswith(" times)") for line in run.lines)
    assert max(map(len, run.lines)) < 200
    assert len(run.lines) < 200
    assert voicechat("replay-trace", "-", stdin=trace.read_bytes()).out == run.out


def test_what_was_decided_otherwise_is_marked(trace: Path, tmp_path: Path) -> None:
    text = trace.read_text("utf-8")
    name = '"audio_end_ms":'
    place = text.index(name, text.index('"conversation.item.truncate"')) + len(name)
    changed = tmp_path / "changed.jsonl"
    changed.write_text(f"{text[:place]}9{text[place:]}", encoding="utf-8")
    run = voicechat("replay-trace", changed)
    assert run.code == 1
    then, now = (line for line in run.lines if line[0] in "+-")
    assert run.lines[run.lines.index(then) - 1].split()[1:3] == ["<", "playback_stopped"]
    assert then.startswith("- ")
    assert now.startswith("+ ")
    assert '"audio_end_ms": 9' in then
    assert '"audio_end_ms": 9' not in now


def test_a_missing_decision_is_marked_and_so_is_one_too_many(trace: Path) -> None:
    lines = lines_of(trace)
    place = next(n for n, line in enumerate(lines) if line.get("out") == "stop_playback")
    without = lines[:place] + lines[place + 1 :]
    assert [d.mark for d in replayed(without) if d.mark] == ["+"]
    doubled = lines[: place + 1] + lines[place:]
    assert [d.mark for d in replayed(doubled) if d.mark] == ["-"]


def test_a_conversation_that_was_resumed_is_traced_with_its_beginning(
    server: StrictServer, tmp_path: Path
) -> None:
    voicechat("talk", "--text", "One.", "--text", "Two.", "--name", "Sea")
    path = tmp_path / "trace.jsonl"
    run = voicechat("resume", "--last", "--text", "Three.", "--trace", path)
    assert run.code == 0, run.err
    assert len(server.said(1, "conversation.item.create")) > 4
    assert voicechat("replay-trace", path).code == 0


def test_limits_and_prices_are_traced(server: StrictServer, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    limits = ("--max-cost", "0.01", "--max-minutes", "5")
    run = voicechat("talk", "--text", "One.", "--text", "Two.", *limits, "--trace", path)
    assert run.code == 0, run.err
    assert lines_of(path)[0]["policy"]["prices"]["gpt-realtime-2.1"]["audio"] > 0
    assert voicechat("replay-trace", path).code == 0


@pytest.mark.parametrize("part", [0.01, 0.2, 0.5, 0.77, 0.999])
def test_a_trace_of_a_program_that_was_killed_is_replayed_as_far_as_it_goes(
    trace: Path, tmp_path: Path, part: float
) -> None:
    data = trace.read_bytes()
    torn = tmp_path / "torn.jsonl"
    start = data.index(b"\n") + 1
    torn.write_bytes(data[: start + int(part * (len(data) - start))])
    assert voicechat("replay-trace", torn).code == 0


FIRST = header(Transcript(), Configuration(), Policy(), OPENAI, start=0.0, seed=1)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", ": it is empty"),
        (b"\n", " in line 1: it is not JSON"),
        (b"\x80\xff", ": it is empty"),
        (b"[]\n", " in line 1: it is not an object"),
        (b"[" * 100_000 + b"\n", " in line 1: it is not JSON"),
        (b'{"type": "opened"}\n', " in line 1: it does not begin as one does"),
        (b'{"trace": 2}\n', " in line 1: it is of another version"),
        (b'{"trace": 1}\n', " in line 1: None is not what should stand there"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "odd"
    path.write_bytes(data)
    assert refused(voicechat("replay-trace", path)).endswith(f"odd' is not a trace{told}")


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"ms": 1},
        {"ms": 1, "in": "nothing"},
        {"ms": "1", "in": "mute_toggled"},
        {"ms": float("inf"), "in": "mute_toggled"},
        {"ms": float("nan"), "in": "mute_toggled"},
        {"ms": 10**400, "in": "mute_toggled"},
        {"ms": 1, "in": "mic_captured", "pcm": 960},
        {"ms": 1, "in": "mic_captured", "pcm": 10**12, "peak": 1},
        {"ms": 1, "in": "mic_captured", "pcm": 960, "peak": 40_000},
        {"ms": 1, "in": "playback_stopped", "heard": [["a", 1, 2]]},
        {"ms": 1, "in": "received", "connection": 1, "event": {"type": "response.done"}},
        {"ms": 1, "in": "disconnected", "connection": 1, "error": {"error": "SystemExit"}},
        {"ms": 1, "in": "received", "connection": True, "event": {"type": "session.created"}},
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: Json) -> None:
    path = tmp_path / "odd"
    path.write_text("".join(json.dumps(each) + "\n" for each in (FIRST, line)))
    run = voicechat("replay-trace", path)
    assert run.code == 2
    assert " is not a trace in line 2: " in run.err
    assert len(run.err.splitlines()) == 2


@pytest.mark.parametrize("name", ["none", ".", "a" * 300])
def test_a_trace_that_cannot_be_read_is_told(tmp_path: Path, name: str) -> None:
    assert "cannot be read: " in refused(voicechat("replay-trace", tmp_path / name))


def test_what_a_trace_says_cannot_take_over_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    lines = [FIRST, {"ms": 1, "out": "\x1b[2J", "text": "\x1b]0;x\x07\u202e", "connection": "\x1b"}]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    run = voicechat("replay-trace", path)
    assert run.code == 1
    assert run.out.isascii()
    assert "\x1b" not in run.out + run.err


SCRAPS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.sampled_from(["type", "id", "error"]), st.text(max_size=4), max_size=2),
)


@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_is_wrong_in_a_trace_it_is_said(trace: Path, data: st.DataObject) -> None:
    lines = lines_of(trace)
    heard = [n for n, line in enumerate(lines) if line.get("in") not in (None, "mic_captured")]
    for _ in range(data.draw(st.integers(1, 4))):
        target: Any = lines[data.draw(st.sampled_from([0, *heard]))]
        for _ in range(4):
            places = list(target) if isinstance(target, dict) else list(range(len(target)))
            if not places:
                break
            place = data.draw(st.sampled_from(places))
            if isinstance(target[place], dict | list) and data.draw(st.booleans()):
                target = target[place]
                continue
            target[place] = data.draw(SCRAPS)
            break
    with suppress(MalformedTraceError):
        for _ in replayed(lines):
            pass


ERRORS = st.builds(ConnectError, st.text(), remedy=st.text())
EVENTS = st.one_of(
    st.builds(ResponseOutputAudioDelta, st.text(), st.binary(max_size=99), st.text()),
    st.builds(SessionCreated, st.just({"id": "sess", "expires_at": 9})),
    st.builds(lambda name: UnknownEvent({"type": f"x.{name}", "n": [1, None]}), st.text()),
)
OF_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    Event: EVENTS,
    VoicechatError: ERRORS,
    VoicechatError | None: ERRORS | st.none(),
    float: st.floats(0, 1e9),
    float | None: st.floats(0, 1e9) | st.none(),
    int: st.integers(0, 10**9),
    tuple[tuple[str, int], ...]: st.lists(st.tuples(st.text(), st.integers(0, 10**9))).map(tuple),
}


def instances(kind: Any) -> st.SearchStrategy[Any]:
    values = get_type_hints(kind).items()
    return st.builds(kind, **{n: OF_TYPE.get(hint, st.from_type(hint)) for n, hint in values})


INPUTS = st.one_of(*map(instances, get_args(Input)))


@settings(deadline=None)
@given(happened=INPUTS)
def test_whatever_happens_comes_back_from_its_line(happened: Input) -> None:
    line = happened_line(happened, 1.5)
    again = input_of(json.loads(json.dumps(line)))
    assert type(again) is type(happened)
    assert happened_line(again, 1.5) == line


# What it rests on --------------------------------------------------------------------------------


def test_a_frame_of_the_same_peak_is_as_loud_as_the_one_that_was_heard() -> None:
    rng = np.random.default_rng(0)
    one, other = Gate(), Gate()
    heard = []
    for number in range(500):
        level = [0, 40, 300, 2000, 32768][number // 7 % 5]
        samples = rng.uniform(-level, level * 0.7, 480).clip(-32768, 32767)
        pcm = samples.astype("<i2").tobytes()
        line = happened_line(MicCaptured(pcm), 0.0)
        sample = line["peak"] if line["peak"] < 32768 else -32768
        again = sample.to_bytes(2, "little", signed=True) + bytes(958)
        heard.append(one.is_loud(pcm))
        assert other.is_loud(again) is heard[-1]
    assert 50 < sum(heard) < 450


def test_times_come_back_exactly() -> None:
    rng = random.Random(0)
    for _ in range(10_000):
        start = round(rng.uniform(0, 3e6), 6)
        now = round(start + rng.uniform(0, 1e5), 6)
        assert moment(start, milliseconds(start, now)) == now


def test_a_transcript_is_the_sum_of_its_records() -> None:
    rng = random.Random(0)
    for _ in range(300):
        ids = [f"item_{number}" for number in range(6)]
        transcript = Transcript()
        for _ in range(rng.randrange(20)):
            transcript.apply(_some_record(rng, ids))
        again = Transcript.of(transcript.records())
        assert again == transcript
        assert again.turns == transcript.turns
        assert [turn.item_id for turn in again.turns] == [t.item_id for t in transcript.turns]


def _some_record(rng: random.Random, ids: list[str]) -> Record:
    item_id, previous = rng.choice(ids), rng.choice([None, *ids])
    ms = rng.randrange(1000)
    records: list[Record] = [
        Opened(session="abc", parent=rng.choice([None, "def"])),
        Renamed(name="Sea"),
        Speaking(item_id=item_id, role="user", text="A", previous_item_id=previous, start_ms=ms),
        Said(item_id=item_id, role="user", text="B", previous_item_id=previous, end_ms=ms),
        Summary(text="C", covers=item_id, turns=2),
        Usage(input_tokens=ms, model=rng.choice([None, "m"])),
        Lost(),
        Back(),
        Closed(end_ms=ms),
    ]
    return rng.choice(records)


def test_a_typed_turn_is_traced_as_it_was_typed() -> None:
    assert happened_line(TextTyped("Grüße\n"), 1.5) == {
        "ms": 1.5,
        "in": "text_typed",
        "text": "Grüße\n",
    }
