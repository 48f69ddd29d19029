"""Talking without a sound card, against a server built from the official types."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.program import SPEECH, messages, records, voicechat
from tests.strict_server import KEY, Json, Peer, StrictServer, tone
from tests.waiting import wait_until
from voicechat.audio.wav import WavFile
from voicechat.history.log import add_aside
from voicechat.realtime.replay import NOTE
from voicechat.transcript import Renamed

SOON = 10.0
"""Seconds: two for it, and some for a busy machine; what goes on meanwhile would take a minute."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with StrictServer().running() as server:
        monkeypatch.setenv("VOICECHAT_URL", server.url)
        yield server


def samples(path: Path) -> bytes:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24_000, 1, 2)
        return bytes(file.readframes(file.getnframes()))


def test_a_spoken_turn_and_its_answer(server: StrictServer, tmp_path: Path, home: Path) -> None:
    answer = tmp_path / "answer.wav"
    run = voicechat("talk", "--input", SPEECH / "austen_0880.wav", "--output", answer)
    assert run.code == 0, run.err
    assert run.lines == ["You: hello there", "Assistant: All right. I heard you."]
    assert samples(answer) == tone(600)
    assert server.paths == ["/v1/realtime?model=gpt-realtime-2.1"]
    headers = {name.lower(): value for name, value in server.headers[0].items()}
    assert headers["authorization"] == f"Bearer {KEY}"
    assert "openai-beta" not in headers
    said = [r for r in records(home) if r["type"] == "said"]
    assert [(r["role"], r["text"]) for r in said] == [
        ("user", "hello there"),
        ("assistant", "All right. I heard you."),
    ]
    assert "conversations are saved in" in run.err.lower()
    assert KEY not in run.err + run.out + json.dumps(records(home))


@pytest.mark.parametrize(
    ("wanted", "told"),
    [("near", {"type": "near_field"}), ("far", {"type": "far_field"}), ("off", None)],
)
def test_noise_reduction_is_for_the_server(server: StrictServer, wanted: str, told: object) -> None:
    run = voicechat("talk", "--text", "Hello.", "--noise-reduction", wanted)
    assert run.code == 0, run.err
    [update, *_] = server.said(0, "session.update")
    assert update["session"]["audio"]["input"]["noise_reduction"] == told
    assert not server.violations
    voicechat("talk", "--text", "Hello.")
    [update, *_] = server.said(1, "session.update")
    assert "noise_reduction" not in update["session"]["audio"]["input"]


def test_the_file_is_heard_as_it_is_and_silence_after_it(server: StrictServer) -> None:
    voicechat("talk", "--input", SPEECH / "hb_02.wav")
    import base64

    sent = b"".join(
        base64.b64decode(e["audio"]) for e in server.said(0, "input_audio_buffer.append")
    )
    original = samples(SPEECH / "hb_02.wav")
    assert sent[: len(original)] == original
    assert not any(sent[len(original) :])


def test_a_file_with_two_turns_is_two_turns(server: StrictServer, tmp_path: Path) -> None:
    both = tmp_path / "both.wav"
    with wave.open(str(both), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        pause = bytes(2 * 24_000 * 2)
        file.writeframes(tone(500) + pause + tone(500))
    run = voicechat("talk", "--input", both)
    assert run.lines == ["You: hello there", "Assistant: All right. I heard you."] * 2


def test_speaking_over_the_answer_cuts_it_where_it_was_heard(
    server: StrictServer, tmp_path: Path
) -> None:
    server.be_interrupted()
    over, answer = tmp_path / "over.wav", tmp_path / "answer.wav"
    with wave.open(str(over), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes(tone(400) + bytes(2 * 24 * 1700) + tone(400))
    run = voicechat("talk", "--input", over, "--output", answer)
    assert run.code == 0, run.err
    [cut] = server.said(0, "conversation.item.truncate")
    heard_ms = cut["audio_end_ms"]
    assert 500 < heard_ms < 25_000
    written = samples(answer)
    assert abs(len(written) // 48 - (heard_ms + 600)) <= 40
    assert written[: heard_ms * 48 - 960] == tone(30_000)[: heard_ms * 48 - 960]
    assert run.lines[1].endswith("(interrupted)")
    assert run.lines[3] == "Assistant: All right. I heard you."


def test_files_come_before_typed_turns_and_each_waits_for_the_answer(server: StrictServer) -> None:
    run = voicechat(
        "talk", "--text", "typed", "--input", SPEECH / "cards_001.wav", "--text", "typed again"
    )
    assert [line for line in run.lines if line.startswith("You")] == [
        "You: hello there",
        "You: typed",
        "You: typed again",
    ]
    order = [e["type"] for e in server.received[0] if e["type"].startswith(("conv", "resp"))]
    assert order == ["conversation.item.create", "response.create"] * 2


def test_raw_sound_through_pipes(server: StrictServer) -> None:
    question = samples(SPEECH / "hb_02.wav")
    finished = subprocess.run(
        [sys.executable, "-m", "voicechat", "talk", "--input", "-", "--output", "-"],
        input=question,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert finished.stdout == tone(600)
    assert finished.stderr.decode().count("You: hello there") == 1


def test_an_answer_of_one_small_odd_delta_and_a_burst_are_heard_whole(
    server: StrictServer, tmp_path: Path
) -> None:
    server.answer_ms, server.deltas = 30, 1
    voicechat("talk", "--text", "a", "--output", tmp_path / "short.wav")
    assert samples(tmp_path / "short.wav") == tone(30)
    server.answer_ms, server.deltas = 120_000, 601
    start = time.monotonic()
    voicechat("talk", "--text", "a", "--output", tmp_path / "long.wav")
    assert samples(tmp_path / "long.wav") == tone(120_000)
    assert time.monotonic() - start < 30  # nothing can interrupt it: it is not waited for


def test_a_key_that_is_an_ordinary_letter_spoils_nothing(
    server: StrictServer, tmp_path: Path
) -> None:
    run = voicechat("talk", "--text", "Hi", "--output", tmp_path / "a.wav", OPENAI_API_KEY="A")
    assert run.lines[1] == "Assistant: All right. I heard you."
    assert samples(tmp_path / "a.wav") == tone(600)


def test_a_line_that_drops_right_after_the_answer_does_not_lose_it(server: StrictServer) -> None:
    def drop(peer: Peer, event: dict[str, Any]) -> Any:
        async def answer_and_drop() -> None:
            await peer.answer()
            peer.websocket.transport.abort()

        return answer_and_drop() if event["type"] == "response.create" else None

    server.on_event = drop
    voicechat("talk", "--text", "One")
    assert messages("last")[1] == ("assistant", "All right. I heard you.")


def test_a_resumed_session_is_restored_with_the_right_parts_in_order(
    server: StrictServer, home: Path
) -> None:
    first = voicechat("talk", "--text", "My name is Ana.", "--voice", "cedar", "--name", "Bees")
    run = voicechat("resume", first.session[:3], "--text", "And now?", "--language", "en")
    assert run.code == 0, run.err
    assert "2 turns restored." in run.err
    created = [event["item"] for event in server.said(1, "conversation.item.create")]
    assert [(item["role"], item["content"]) for item in created] == [
        ("user", [{"type": "input_text", "text": "My name is Ana."}]),
        ("assistant", [{"type": "output_text", "text": "All right. I heard you."}]),
        ("system", [{"type": "input_text", "text": NOTE}]),
        ("user", [{"type": "input_text", "text": "And now?"}]),
    ]
    [update] = server.said(1, "session.update")
    assert update["session"]["audio"]["output"]["voice"] == "cedar"
    assert update["session"]["audio"]["input"]["transcription"]["language"] == "en"
    assert [content for _, content in messages("bees")] == [
        "My name is Ana.",
        "All right. I heard you.",
        "And now?",
        "All right. I heard you.",
    ]
    assert len(list((home / "sessions").iterdir())) == 1
    voicechat("talk", "--resume", "last", "--text", "Still there?", "--no-log")
    assert len(server.said(2, "conversation.item.create")) == 6
    assert len(messages("last")) == 4


def test_instructions_are_read_from_a_file_only_where_the_user_asks_for_it(
    server: StrictServer, tmp_path: Path, home: Path
) -> None:
    (tmp_path / "secret").write_text("not for others")
    voicechat("talk", "--text", "Hi", "--instructions", f"@{tmp_path}/secret")
    assert server.said(0, "session.update")[0]["session"]["instructions"] == "not for others"
    [path] = (home / "sessions").glob("*.jsonl")
    saved = path.read_text().replace("not for others", f"@{tmp_path}/secret")
    path.write_text(saved)  # as it could come from another machine
    voicechat("resume", "--text", "And?")
    told = server.said(1, "session.update")[0]["session"]["instructions"]
    assert told == f"@{tmp_path}/secret"


def test_words_that_come_after_the_answer_are_printed_and_saved_in_order(
    server: StrictServer,
) -> None:
    server.transcript_delay = 1.5
    run = voicechat("talk", "--input", SPEECH / "hb_02.wav")
    assert run.lines == ["You: hello there", "Assistant: All right. I heard you."]
    assert [role for role, _ in messages("last")] == ["user", "assistant"]


def test_older_event_names_are_understood(server: StrictServer, tmp_path: Path) -> None:
    server.older_names = True
    run = voicechat("talk", "--text", "Hello", "--output", tmp_path / "a.wav")
    assert run.lines == ["You: Hello", "Assistant: All right. I heard you."]
    assert samples(tmp_path / "a.wav") == tone(600)
    voicechat("resume", "--text", "More")
    assert len(messages("last")) == 4


def test_without_voice_detection_the_file_is_committed_by_us(server: StrictServer) -> None:
    run = voicechat("talk", "--vad", "none", "--input", SPEECH / "hb_02.wav")
    assert run.lines == ["You: hello there", "Assistant: All right. I heard you."]
    assert len(server.said(0, "input_audio_buffer.commit")) == 1
    [update] = server.said(0, "session.update")
    assert update["session"]["audio"]["input"]["turn_detection"] is None


def test_semantic_turn_detection_is_asked_for_with_its_own_fields(server: StrictServer) -> None:
    voicechat("talk", "--vad", "semantic", "--text", "Hello")
    [update] = server.said(0, "session.update")
    assert update["session"]["audio"]["input"]["turn_detection"] == {
        "type": "semantic_vad",
        "eagerness": "auto",
        "create_response": True,
        "interrupt_response": True,
    }


def test_no_log_leaves_nothing_on_disk(server: StrictServer, home: Path) -> None:
    run = voicechat("talk", "--text", "Secret", "--no-log")
    assert run.lines[0] == "You: Secret"
    assert not home.exists()


def test_what_the_model_says_cannot_control_the_terminal(server: StrictServer) -> None:
    server.answer_text = "Look: \x1b[2J\x1b]0;owned\x07 \u202egnp.exe"
    run = voicechat("talk", "--text", "Hello")
    assert "\x1b" not in run.out + run.err
    assert "\u202e" not in run.out
    assert "[2J" in run.out


def test_a_failed_answer_is_an_error_and_the_question_is_kept(server: StrictServer) -> None:
    def fail(peer: Peer, event: dict[str, Any]) -> Any:
        if event["type"] != "response.create":
            return None
        error = {"type": "failed", "error": {"code": "rate_limit_exceeded", "message": "Later."}}
        response = {"id": "resp_1", "status": "failed", "status_details": error, "output": []}
        return peer.send("response.done", response=response)

    server.on_event = fail
    run = voicechat("talk", "--text", "Hello?")
    assert run.code == 15
    assert "there was no answer: Later." in run.err
    assert messages("last") == [("user", "Hello?")]


def test_a_file_without_speech_is_an_error(server: StrictServer, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "quiet.wav"), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes(bytes(48_000))
    run = voicechat("talk", "--input", tmp_path / "quiet.wav")
    assert run.code == 9
    assert "no speech was heard" in run.err
    assert voicechat("history", "list", "--json").out.strip() == "[]"


def test_a_file_is_heard_by_a_server_that_is_slow_to_say_so(
    server: StrictServer, tmp_path: Path
) -> None:
    def late(_: Peer, event: Json) -> Any:
        is_it = event["type"] == "input_audio_buffer.speech_started"
        return asyncio.sleep(4) if is_it else None

    server.on_send = late
    with wave.open(str(tmp_path / "short.wav"), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes(tone(400))
    run = voicechat("talk", "--input", tmp_path / "short.wav")
    assert run.code == 0, run.err
    assert len(run.lines) == 2


def test_giving_a_lost_line_up_keeps_what_was_said_and_says_how_to_go_on(
    server: StrictServer,
) -> None:
    def drop(peer: Peer, event: dict[str, Any]) -> Any:
        second = event["type"] == "response.create" and len(peer.items) > 2
        return peer.websocket.close(1001, "maximum duration") if second else None

    server.on_event = drop
    run = voicechat("talk", "--text", "One", "--text", "Two", "--reconnect-for", "1")
    assert run.code == 4
    assert f"Resume: voicechat resume {run.session}" in run.err
    assert "the line above" in run.err
    assert messages("last")[:3] == [
        ("user", "One"),
        ("assistant", "All right. I heard you."),
        ("user", "Two"),
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_hangs_up_within_two_seconds_and_the_last_words_are_saved(
    server: StrictServer, tmp_path: Path, number: signal.Signals
) -> None:
    server.transcript_delay = 0.6
    server.answer_ms = 60_000
    question = tmp_path / "question.wav"  # one sentence, of which nobody sees the end
    with WavFile(question) as file:
        file.write(tone(60_000))
    process = subprocess.Popen(
        [sys.executable, "-m", "voicechat", "talk", "--input", question, "--input", question],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ,
    )
    # In the middle of the first sentence:
    wait_until(lambda: server.received and len(server.said(0, "input_audio_buffer.append")) > 50)
    process.send_signal(number)
    out, err = process.communicate(timeout=SOON)
    assert process.returncode == 0, err
    assert out.decode().splitlines() == ["You: hello there"]
    assert b"Resume: voicechat resume " in err
    assert messages("last") == [("user", "hello there")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_further_signals_change_nothing_to_the_very_end(
    server: StrictServer, number: signal.Signals
) -> None:
    server.answer_ms = 60_000
    process = subprocess.Popen(
        [sys.executable, "-m", "voicechat", "talk", "--url", server.url, "--text", "Hello"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ,
    )
    wait_until(lambda: server.received and server.said(0, "response.create"))
    start = time.monotonic()
    while process.poll() is None:
        assert time.monotonic() - start < SOON
        process.send_signal(number)
        time.sleep(0.003)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert out.startswith(b"You: Hello\n")
    assert b"Traceback" not in err
    assert b"Resume: voicechat resume " in err


def test_it_never_asks_for_a_sound_card(server: StrictServer) -> None:
    code = (
        "import sys; from voicechat.cli.main import main\n"
        "try: main(['talk', '--text', 'Hello'])\n"
        "finally: assert 'sounddevice' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_wav_reaches_the_server_as_speech(server: StrictServer, tmp_path: Path) -> None:
    rate = 44_100
    left = (9000 * np.sin(np.arange(rate // 2) * 2 * np.pi * 300 / rate)).astype("<i2")
    with wave.open(str(tmp_path / "stereo.wav"), "wb") as file:
        file.setparams((2, 2, rate, 0, "NONE", ""))
        file.writeframes(np.stack([left, left], axis=1).tobytes())
    assert voicechat("talk", "--input", tmp_path / "stereo.wav").code == 0


def test_the_closing_line_tells_a_name_that_was_given_meanwhile(
    server: StrictServer, home: Path
) -> None:
    def rename(peer: Peer, event: Json) -> None:
        for path in (home / "sessions").glob("*.jsonl"):
            add_aside(path, Renamed(name="New"))

    server.on_event = rename
    run = voicechat("talk", "--text", "Hello", "--name", "Old")
    assert f'Saved {run.session} "New"' in run.err
    server.on_event = None
    assert '"New"' in voicechat("resume", "New", "--text", "And?").err
    assert '"Newer"' in voicechat("resume", "New", "--text", "Hm", "--name", "Newer").err


def test_json_is_utf_8_whatever_the_locale(server: StrictServer) -> None:
    run_there = partial(voicechat, PYTHONIOENCODING="cp1252")
    talk = run_there("talk", "--json", "--text", "Grüße, \u65e5\u672c")
    assert talk.code == 0, talk.err
    for run in (
        talk,
        run_there("history", "list", "--json"),
        run_there("history", "show", "last", "--json"),
        run_there("history", "search", "\u65e5", "--json"),
    ):
        assert "Grüße, \u65e5\u672c" in run.out
    assert "Gr\ufffd\ufffde, ??" in run_there("history", "show", "last").out
