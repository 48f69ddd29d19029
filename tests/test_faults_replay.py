"""A server may be slow, forgetful, odd or wrong: what was said is restored all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import groupby
from pathlib import Path

from tests.stage import (
    PADDING,
    Stage,
    answer,
    conversation,
    count,
    known_to,
    numbers,
    side_by_side,
)
from tests.strict_server import Json, Peer, words_of

Hook = Callable[[Peer, Json], Awaitable[object] | None]

CREATE = "conversation.item.create"
COMPLETED = "conversation.item.input_audio_transcription.completed"
IDS = ["h0001", "h0002", "h0003", "h0004", "restored"]


def is_about(event: Json, *ids: str) -> bool:
    """It creates one of these items, or acknowledges that it was."""
    kinds = (CREATE, "conversation.item.added", "conversation.item.done")
    return event["type"] in kinds and event["item"].get("id") in ids


def created(peer: Peer, item_id: str) -> list[Json]:
    """All that the client said to create this item."""
    return [e for e in peer.received if e["type"] == CREATE and is_about(e, item_id)]


def first(peer: Peer, event: Json, item_id: str) -> bool:
    """It creates this item on the connection after the first, for the first time."""
    if peer.number != 1 or event["type"] != CREATE or not is_about(event, item_id):
        return False
    return len(created(peer, item_id)) == 1


async def nothing() -> None:
    pass


def resume(stage: Stage, *options: str) -> None:
    """Restore four turns and type another; all is well in the end."""
    stage.run("talk", "--text", "one", "--text", "two")
    run = stage.run("resume", "--text", "three", *options)
    assert run.code == 0, run.err
    assert stage.said(run) == conversation("one", "two", "three")
    assert "Not restored" not in run.err
    sent = [event["item"]["id"] for event in stage.server.said(1, CREATE)]
    assert sent[: len(IDS)] == IDS


# Acknowledgements --------------------------------------------------------------------------------


def test_the_microphone_is_shut_until_all_is_acknowledged(tmp_path: Path) -> None:
    def late_settings(peer: Peer, event: Json) -> Awaitable[object] | None:
        if event["type"] != "session.updated":
            return None
        peer.spawn(peer.put(event, after=1.0))
        return nothing()

    def late_acknowledgements(peer: Peer, event: Json) -> Awaitable[object] | None:
        if peer.number != 1 or not is_about(event, *IDS):
            return None
        peer.spawn(peer.put(event, after=1.0))
        return nothing()

    hooks: dict[str, Hook | None] = {
        "late settings": late_settings,
        "late acknowledgements": late_acknowledgements,
        "a slow network": None,
    }

    def story(name: str) -> None:
        with Stage(tmp_path / name, 0.1, 0.4, 0.2) as stage:
            stage.run("talk", "--text", "one", "--text", "two")
            stage.server.on_send = hooks[name]
            if name == "a slow network":
                stage.proxy.delay = 0.3
            run = stage.talk(command="resume")
            assert stage.said(run) == conversation("one", "two", "turn 1")
            journal = stage.peers[1].journal
            kinds = [event["type"] for event in journal]
            restored = [is_about(event, *IDS) and "done" in event["type"] for event in journal]
            last = len(restored) - 1 - restored[::-1].index(True)
            assert kinds.index("input_audio_buffer.append") > last
            assert kinds.count(CREATE) == 5  # late is not lost
            stage.check_microphone()

    side_by_side(story, hooks)


def test_an_acknowledgement_that_does_not_come_is_asked_for_again(tmp_path: Path) -> None:
    def story(item_id: str) -> None:
        def on_send(peer: Peer, event: Json) -> Awaitable[object] | None:
            return nothing() if peer.number == 1 and is_about(event, item_id) else None

        with Stage(tmp_path / item_id) as stage:
            stage.server.on_send = on_send
            resume(stage)
            [_, again] = created(stage.peers[1], item_id)
            place = IDS.index(item_id)
            assert again["previous_item_id"] == ("root", *IDS)[place]

    side_by_side(story, ["h0001", "h0003", "restored"])


def test_an_item_that_did_not_arrive_is_sent_again_to_its_place(tmp_path: Path) -> None:
    def story(item_id: str) -> None:
        def on_event(peer: Peer, event: Json) -> Awaitable[object] | None:
            return nothing() if first(peer, event, item_id) else None

        with Stage(tmp_path / item_id) as stage:
            stage.server.on_event = on_event
            resume(stage)
            assert len(created(stage.peers[1], item_id)) == 2

    side_by_side(story, ["h0001", "h0002", "h0004"])


def test_an_item_that_is_refused_is_sent_again_to_its_place(tmp_path: Path) -> None:
    def story(item_id: str) -> None:
        def on_event(peer: Peer, event: Json) -> Awaitable[object] | None:
            if not first(peer, event, item_id):
                return None
            return peer.fail(f"Item '{item_id}' is odd.", "server_error", event)

        with Stage(tmp_path / item_id) as stage:
            stage.server.quotes_event_ids = item_id in ("h0001", "h0002")
            stage.server.on_event = on_event
            resume(stage)
            [_, again] = created(stage.peers[1], item_id)
            assert again["previous_item_id"] == ("root", *IDS)[IDS.index(item_id)]

    side_by_side(story, IDS)


def test_acknowledgements_in_another_order_are_enough(tmp_path: Path) -> None:
    with Stage(tmp_path / "stage") as stage:
        held: list[Json] = []

        async def let_go(peer: Peer) -> None:
            while held:
                await peer.put(held.pop())

        def on_send(peer: Peer, event: Json) -> Awaitable[object] | None:
            if peer.number != 1 or not is_about(event, *IDS):
                return None
            held.append(event)
            return let_go(peer) if len(held) == 2 * len(IDS) else nothing()

        stage.server.on_send = on_send
        resume(stage)


def test_what_cannot_be_restored_is_named_and_the_rest_is_there(tmp_path: Path) -> None:
    def story(name: str) -> None:
        def on_event(peer: Peer, event: Json) -> Awaitable[object] | None:
            if peer.number != 1 or event["type"] != CREATE or not is_about(event, "h0002"):
                return None
            if name == "never acknowledged":
                return nothing()
            return peer.fail("This is an odd item.", "invalid_value", event)

        with Stage(tmp_path / name, 0.1, 0.4, 0.2) as stage:
            stage.run("talk", "--text", "one", "--text", "two")
            stage.server.on_event = on_event
            run = stage.talk(command="resume")
            words = answer("one")
            [loss] = [line for line in run.err.splitlines() if line.startswith("Not restored: ")]
            assert loss.startswith(f"Not restored: assistant, “{words[:20]}"), loss
            assert ("This is an odd item." in loss) == (name == "refused twice")
            assert len(created(stage.peers[1], "h0002")) == 2
            said = conversation("one", "two", "turn 1")
            assert stage.logged() == said
            assert known_to(stage.last_peer) == [said[0], *said[2:]]
            stage.check_microphone()

    side_by_side(story, ["refused twice", "never acknowledged"])


# Transcripts -------------------------------------------------------------------------------------


def test_transcripts_in_another_order_or_none_at_all(tmp_path: Path) -> None:
    def story(name: str) -> None:
        held: list[Json] = []

        async def swap(peer: Peer, event: Json) -> None:
            await peer.put(event)
            await peer.put(held.pop())

        def on_send(peer: Peer, event: Json) -> Awaitable[object] | None:
            if event["type"] != COMPLETED:
                return None
            if event["transcript"] == "turn 1":
                held.append(event)
                return nothing()
            return swap(peer, event) if name == "another order" else None

        with Stage(tmp_path / name, 0.3, 0.4, 4.0, 0.4, 0.2) as stage:
            stage.server.on_send = on_send
            run = stage.talk()
            said = conversation("turn 1", "turn 2")
            if name == "another order":
                assert stage.said(run) == said
            else:
                assert stage.logged() == said[1:]
                assert run.lines[0] == "You: (not transcribed)"
                assert known_to(stage.last_peer) == said

    side_by_side(story, ["another order", "none"])


def test_what_was_said_and_not_yet_put_into_words_is_said_again_in_its_place(
    tmp_path: Path,
) -> None:
    def story(which: str) -> None:
        def on_send(peer: Peer, event: Json) -> Awaitable[object] | None:
            if peer.number == 0 and event["type"] == COMPLETED and event["transcript"] == which:
                return nothing()
            is_second = count(peer, "response.done") == 1
            if peer.number == 0 and event["type"] == "response.done" and is_second:
                peer.spawn(drop(peer))
            return None

        async def drop(peer: Peer) -> None:
            await asyncio.sleep(0.7)  # heard to its end
            peer.reset()

        with Stage(tmp_path / which, 0.3, 0.4, 4.0, 0.4, 5.0, 0.4, 0.2) as stage:
            stage.server.on_send = on_send
            run = stage.talk()
            assert stage.said(run) == conversation("turn 1", "turn 2", "turn 3")
            updates = stage.server.said(1, "session.update")
            detections = [e["session"]["audio"]["input"]["turn_detection"] for e in updates]
            assert [detection and detection["type"] for detection in detections] == [
                None,
                "server_vad",
            ]
            kinds = [kind for kind, _ in groupby(e["type"] for e in stage.peers[1].received)]
            before = [CREATE] if which == "turn 2" else []
            spoken = ["input_audio_buffer.append", "input_audio_buffer.commit"]
            update = ["session.update"]
            assert kinds[: 5 + len(before)] == update + before + spoken + [CREATE] + update
            turn = stage.tape.turns[0 if which == "turn 1" else 1]
            heard = numbers(bytes(stage.peers[1].heard))
            assert turn[0] - PADDING <= heard[0] <= turn[0]
            assert heard == sorted(set(heard))

    side_by_side(story, ["turn 1", "turn 2"])


# Strange frames ----------------------------------------------------------------------------------


def test_events_that_come_twice_and_frames_that_are_none_change_nothing(tmp_path: Path) -> None:
    odd: dict[str, list[str | bytes]] = {
        "unknown": ['{"type": "session.mood", "event_id": "event_m", "mood": {"is": ["good"]}}'],
        "malformed": ['{"type": "response.do', "[1]", '"hello"', "{}", '{"type": "response.done"}'],
        "binary": [b"\x00\x01", b"{}", b""],
        "twice": [],
    }

    def story(name: str) -> None:
        async def put(peer: Peer, event: Json) -> None:
            for frame in odd[name] if event["type"] != "session.created" else []:
                await peer.websocket.send(frame)
            await peer.put(event)
            if name == "twice":
                await peer.put(event)

        def on_send(peer: Peer, event: Json) -> Awaitable[object] | None:
            return None if event["type"].endswith(".delta") else put(peer, event)

        with Stage(tmp_path / name, 0.3, 0.4, 4.0, 0.4, 0.2) as stage:
            stage.run("talk", "--text", "one")
            stage.server.on_send = on_send
            run = stage.talk(command="resume")
            assert stage.said(run) == conversation("one", "turn 1", "turn 2")
            assert "Not restored" not in run.err
            assert len(stage.peers) == 2
            assert [words_of(i) for i in stage.last_peer.items if i["role"] == "system"] != []
            stage.check_microphone()

    side_by_side(story, odd)
