"""Whatever happens to the line, nothing of the conversation is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.program import Run
from tests.stage import Stage, answer, conversation, count, numbers, side_by_side
from tests.strict_server import Json, Peer

Fault = Callable[[Peer], Awaitable[object]]
Hook = Callable[[Peer, Json], Awaitable[object] | None]


async def reset(peer: Peer) -> None:
    peer.reset()


FAULTS: dict[str, Fault] = {
    "1000": lambda peer: peer.close(1000),
    "1001": lambda peer: peer.expire(),
    "reset": reset,
}
DELTA = "response.output_audio.delta"


def in_mid_answer(do: Fault) -> Hook:
    """Something happens when half of the first connection's first answer has come."""

    def on_send(peer: Peer, event: Json) -> Awaitable[object] | None:
        is_due = peer.number == 0 and event["type"] == DELTA and count(peer, DELTA) == 5
        return do(peer) if is_due else None

    return on_send


def in_mid_speech(stage: Stage, do: Fault, *, number: int = 0, part: float = 0.5) -> Hook:
    """Something happens when a connection is to hear the middle of the second turn."""
    frames = stage.tape.turns[1]
    frame = frames[int(len(frames) * part)]

    def on_event(peer: Peer, event: Json) -> Awaitable[object] | None:
        heard = numbers(base64.b64decode(event.get("audio", "")))
        return do(peer) if peer.number == number and frame in heard else None

    return on_event


def in_mid_replay(do: Fault) -> Hook:
    """Something happens when the second connection has been told the first of two turns."""

    def on_event(peer: Peer, event: Json) -> Awaitable[object] | None:
        kind = "conversation.item.create"
        is_due = peer.number == 1 and event["type"] == kind and count(peer, kind) == 2
        return do(peer) if is_due else None

    return on_event


# Lost lines -------------------------------------------------------------------------------------


def check_cut_answer(stage: Stage, run: Run) -> None:
    """The first answer is there as far as it was heard, and all went on."""
    said = stage.said(run)
    heard = said.pop(1)
    assert said == [("user", "turn 1"), *conversation("turn 2")]
    assert heard[0] == "assistant"
    assert answer("turn 1").startswith(f"{heard[1]} "), heard
    assert run.lines[1] == f"Assistant: {heard[1]} (interrupted)"
    created = [event["item"]["id"] for event in stage.server.said(1, "conversation.item.create")]
    assert created.count("restored") == 1
    stage.check_microphone()


def test_of_an_answer_in_the_middle_of_which_the_line_is_lost_stays_what_was_heard(
    tmp_path: Path,
) -> None:
    def story(fault: str) -> None:
        with Stage(tmp_path / fault, 0.3, 0.6, 4.5, 0.6, 0.2) as stage:
            server = stage.server
            server.answer_ms, server.deltas, server.delta_pause = 2000, 10, 0.15
            server.on_send = in_mid_answer(FAULTS[fault])
            run = stage.talk()
            check_cut_answer(stage, run)
            assert run.err.count("The line was lost: ") == 1

    side_by_side(story, FAULTS)


def test_a_sentence_in_the_middle_of_which_the_line_is_lost_is_heard_whole(tmp_path: Path) -> None:
    def story(name: str) -> None:
        fault, _, when = name.partition(" ")
        with Stage(tmp_path / name, 0.3, 0.4, 4.0, 1.0, 0.2) as stage:
            part = 0.0 if when else 0.5  # before the server has said that it hears anything
            stage.server.on_event = in_mid_speech(stage, FAULTS[fault], part=part)
            run = stage.talk()
            assert stage.said(run) == conversation("turn 1", "turn 2")
            stage.check_microphone()
            stage.check_notices(run, restored=2)
            again = numbers(bytes(stage.peers[1].heard))
            assert again[0] <= stage.tape.turns[1][0]

    side_by_side(story, [*FAULTS, "reset at once"])


def test_a_turn_that_nobody_answered_before_the_line_was_lost_is_answered(tmp_path: Path) -> None:
    def story(name: str) -> None:
        async def drop(peer: Peer) -> None:
            await asyncio.sleep(0.5 if name == "spoken, in words" else 0)
            peer.reset()

        def on_event(peer: Peer, event: Json) -> Awaitable[object] | None:
            is_due = peer.number == 0 and event["type"] == "response.create"
            return drop(peer) if is_due else None

        def on_send(peer: Peer, event: Json) -> Awaitable[object] | None:
            is_due = peer.number == 0 and event["type"] == "response.created"
            return drop(peer) if is_due else None

        with Stage(tmp_path / name, 0.3, 0.4, 0.2) as stage:
            stage.server.on_event, stage.server.on_send = on_event, on_send
            run = stage.run("talk", "--text", "one") if name == "typed" else stage.talk()
            assert run.code == 0, run.err
            assert stage.said(run) == conversation("one" if name == "typed" else "turn 1")
            assert len(stage.server.said(1, "response.create")) == 1

    side_by_side(story, ["typed", "spoken, in words", "spoken, not yet in words"])


def test_a_line_may_be_lost_again_and_again(tmp_path: Path) -> None:
    with Stage(tmp_path / "stage", 0.3, 0.4, 4.0, 1.0, 4.0, 0.4, 0.2) as stage:
        hooks = [
            in_mid_speech(stage, FAULTS["1001"]),
            in_mid_replay(FAULTS["reset"]),
            in_mid_speech(stage, FAULTS["1000"], number=2),
        ]

        def on_event(peer: Peer, event: Json) -> Awaitable[object] | None:
            return next((done for hook in hooks if (done := hook(peer, event))), None)

        stage.server.on_event = on_event
        run = stage.talk()
        assert stage.said(run) == conversation("turn 1", "turn 2", "turn 3")
        stage.check_microphone()
        assert len(stage.peers) == 4


def test_a_replay_in_the_middle_of_which_the_line_is_lost_begins_again(tmp_path: Path) -> None:
    def story(fault: str) -> None:
        with Stage(tmp_path / fault, 0.3, 0.4, 0.2) as stage:
            stage.run("talk", "--text", "one", "--text", "two")
            stage.server.on_event = in_mid_replay(FAULTS[fault])
            run = stage.talk(command="resume")
            assert stage.said(run) == conversation("one", "two", "turn 1")
            stage.check_microphone()
            assert not stage.peers[1].heard
            assert len(stage.peers) == 3

    side_by_side(story, FAULTS)


def test_a_line_lost_while_a_second_connection_is_prepared_costs_nothing(tmp_path: Path) -> None:
    def story(name: str) -> None:
        which, fault = name.split()
        with Stage(tmp_path / name, 0.3, 0.4, 3.0, 0.4, 0.2) as stage:
            number = 1 if which == "new" else 0
            stage.server.on_event = in_mid_replay(lambda _: FAULTS[fault](stage.peers[number]))
            run = stage.talk("--rotate-after", "0.04")
            assert stage.said(run) == conversation("turn 1", "turn 2")
            stage.check_microphone()
            assert not stage.peers[number].is_open
            assert len(stage.peers) > 1

    side_by_side(story, [f"{which} {fault}" for which in ("new", "old") for fault in FAULTS])


def test_a_black_hole_is_noticed_while_someone_talks(tmp_path: Path) -> None:
    def story(who: str) -> None:
        with Stage(tmp_path / who, 0.3, 0.4, 4.0, 1.0, 0.2) as stage:
            swallowed_at: list[float] = []

            async def swallow(peer: Peer) -> None:
                stage.proxy.swallow()
                swallowed_at.append(time.monotonic())

            server = stage.server
            if who == "the user":
                server.on_event = in_mid_speech(stage, swallow)
            else:
                server.answer_ms, server.deltas, server.delta_pause = 2000, 10, 0.15
                server.on_send = in_mid_answer(swallow)
            run = stage.talk()
            assert stage.proxy.opened_at[1] - swallowed_at[0] < 40
            if who == "the user":
                assert stage.said(run) == conversation("turn 1", "turn 2")
                stage.check_microphone()
                stage.check_notices(run, restored=2)
            else:
                check_cut_answer(stage, run)

    side_by_side(story, ["the user", "the assistant"])


# Servers that cannot be had ----------------------------------------------------------------------


def test_a_server_that_answers_by_http_errors_is_asked_again(tmp_path: Path) -> None:
    def story(when: str) -> None:
        with Stage(tmp_path / when, 0.3, 0.4, 4.0, 1.0, 0.2) as stage:

            async def break_down(_: Peer) -> None:
                stage.proxy.refuse("500 Internal Server Error", 2)
                stage.proxy.reset()

            if when == "at the start":
                stage.proxy.refuse("503 Service Unavailable", 2)
            else:
                stage.server.on_event = in_mid_speech(stage, break_down)
            run = stage.talk()
            assert 1 <= stage.proxy.refused <= 12
            assert stage.said(run) == conversation("turn 1", "turn 2")
            stage.check_microphone()
            if when == "later":
                stage.check_notices(run, restored=2)

    side_by_side(story, ["at the start", "later"])


def test_a_first_connection_that_closes_before_it_is_live_is_tried_again(tmp_path: Path) -> None:
    def story(fault: str) -> None:
        with Stage(tmp_path / fault) as stage:

            async def on_connect(peer: Peer) -> None:
                if peer.number < 2:
                    await FAULTS[fault](peer)

            stage.server.on_connect = on_connect
            run = stage.run("talk", "--text", "one")
            assert run.code == 0, run.err
            assert stage.said(run) == conversation("one")
            assert len(stage.peers) == 3

    side_by_side(story, FAULTS)


def test_nobody_waits_longer_for_a_line_than_the_user_wants(tmp_path: Path) -> None:
    def story(seconds: str) -> None:
        with Stage(tmp_path / seconds, 0.3, 0.4, 4.0, 1.0, 0.2) as stage:
            lost_at: list[float] = []

            async def break_down(_: Peer) -> None:
                lost_at.append(time.monotonic())
                stage.proxy.refuse("503 Service Unavailable", 600)
                stage.proxy.reset()

            stage.server.on_event = in_mid_speech(stage, break_down)
            run = stage.talk("--reconnect-for", seconds, code=4)
            assert 0 <= time.monotonic() - lost_at[0] - float(seconds) < 30
            assert f"Resume: voicechat resume {run.session}\n" in run.err
            assert stage.logged() == conversation("turn 1")
            assert (stage.proxy.refused > 0) == (seconds == "2")

    side_by_side(story, ["0", "2"])


REFUSALS = {
    "invalid_api_key": (3000, 5, "OPENAI_API_KEY"),
    "insufficient_quota": (1000, 5, "billing"),
    "invalid_model": (4000, 11, "--model"),
    "beta_api_shape_disabled": (4000, 6, "OpenAI-Beta"),
}


def test_what_no_new_connection_can_mend_ends_it_at_once(tmp_path: Path) -> None:
    def story(code: str) -> None:
        close, exit_code, remedy = REFUSALS[code]
        with Stage(tmp_path / code, 0.3, 0.4, 4.0, 1.0, 0.2) as stage:

            async def refuse(peer: Peer) -> None:
                if peer.number == 1:
                    await peer.fail("You are not welcome.", code, {})
                    await peer.close(close, f"invalid_request_error.{code}")

            stage.server.on_connect = refuse
            stage.server.on_event = in_mid_speech(stage, reset)
            run = stage.talk(code=exit_code)
            assert remedy in run.err
            assert "Resume: voicechat resume " in run.err
            assert stage.logged() == conversation("turn 1")
            assert len(stage.peers) == 2

    side_by_side(story, REFUSALS)


def test_what_is_refused_by_http_for_good_ends_it_at_once_too(tmp_path: Path) -> None:
    def story(when: str) -> None:
        with Stage(tmp_path / when, 0.3, 0.4, 4.0, 1.0, 0.2) as stage:
            body = json.dumps({"error": {"code": "insufficient_quota", "message": "No more."}})

            async def break_down(_: Peer) -> None:
                stage.proxy.refuse("429 Too Many Requests", 60, body)
                stage.proxy.reset()

            if when == "at the start":
                stage.proxy.refuse("429 Too Many Requests", 60, body)
                run = stage.run("talk", "--text", "one")
                assert run.code == 5, run.err
            else:
                stage.server.on_event = in_mid_speech(stage, break_down)
                run = stage.talk(code=5)
                assert stage.logged() == conversation("turn 1")
            assert "the account cannot be used: No more." in run.err
            assert stage.proxy.refused == 1

    side_by_side(story, ["at the start", "later"])
