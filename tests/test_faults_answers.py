"""Answers that come in writing, or fail, and conversations that are too long to be told again."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path

from tests.stage import Stage, answer, conversation, known_to, side_by_side
from tests.strict_server import Json, Peer, words_of

SPOKEN = {"output_modalities": ["audio"]}


def ask_in_writing(stage: Stage, times: int) -> None:
    """The answer to “two” comes in writing, so many times."""

    def on_event(peer: Peer, event: Json) -> Awaitable[object] | None:
        is_two = event["type"] == "conversation.item.create" and words_of(event["item"]) == "two"
        if is_two and peer.number == 0:
            stage.server.written_answers = times
        return None

    stage.server.on_event = on_event
    stage.server.answer_text = lambda words: answer(words.split()[-1])  # they may be packed


def test_a_written_answer_is_asked_for_again_in_speech(tmp_path: Path) -> None:
    with Stage(tmp_path / "stage") as stage:
        ask_in_writing(stage, 1)
        run = stage.run("talk", "--text", "one", "--text", "two")
        assert run.code == 0, run.err
        assert stage.logged() == known_to(stage.peers[0]) == conversation("one", "two")
        assert len(stage.server.said(0, "conversation.item.delete")) == 1
        asked = [event.get("response") for event in stage.server.said(0, "response.create")]
        assert asked == [None, None, SPOKEN]
        statuses = [record["status"] for record in stage.records("said")]
        assert statuses == ["complete", "complete", "complete", "written", "complete"]
        assert len(stage.peers) == 1


def test_a_model_that_keeps_writing_is_told_all_in_one_message(tmp_path: Path) -> None:
    with Stage(tmp_path / "stage") as stage:
        ask_in_writing(stage, 2)
        run = stage.run("talk", "--text", "one", "--text", "two", "--text", "three")
        assert run.code == 0, run.err
        assert stage.logged() == conversation("one", "two", "three")
        told, answered, *rest = [i for i in stage.peers[1].items if i["role"] != "system"]
        assert told["role"] == "user"
        assert "one" in words_of(told)
        assert answer("one") in words_of(told)
        assert words_of(told).count("two") == 1
        assert answered["role"] == "assistant"
        assert [item["role"] for item in rest] == ["user", "assistant"]
        assert stage.peers[0].websocket.close_code == 1000


def test_an_answer_that_only_comes_in_writing_stands(tmp_path: Path) -> None:
    with Stage(tmp_path / "stage") as stage:
        ask_in_writing(stage, 3)
        run = stage.run("talk", "--text", "one", "--text", "two")
        assert run.code == 0, run.err
        [one, _, two, last] = stage.logged()
        assert (one, two) == (("user", "one"), ("user", "two"))
        assert last[0] == "assistant"
        assert stage.records("said")[-1]["status"] == "complete"
        assert "writing" in run.err


def test_an_answer_that_fails_is_asked_for_once_more(tmp_path: Path) -> None:
    errors: dict[str, Json] = {
        "rate limit": {"type": "tokens", "code": "rate_limit_exceeded", "message": "Too fast."},
        "server error": {"type": "server_error", "code": None, "message": "Too hot."},
    }

    def story(name: str) -> None:
        kind, times = name[:-2], int(name[-1])
        with Stage(tmp_path / name) as stage:
            stage.server.failing_answers = [errors[kind]] * times
            run = stage.run("talk", "--text", "one")
            assert errors[kind]["message"] in run.err
            assert len(stage.server.said(0, "response.create")) == 2
            if times == 1:
                assert run.code == 0, run.err
                assert stage.said(run) == conversation("one")
            else:
                assert run.code == 15, run.err
                assert stage.logged() == [("user", "one")]

    side_by_side(story, [f"{kind} {times}" for kind in errors for times in (1, 2)])


def test_what_is_too_long_to_be_told_again_is_summarised_or_left_out(tmp_path: Path) -> None:
    texts = [f"number {number} of many long and winding sentences" for number in range(8)]

    def story(name: str) -> None:
        with Stage(tmp_path / name) as stage:
            stage.server.summary_text = "They counted winding sentences."
            stage.run("talk", *(word for text in texts for word in ("--text", text)))
            no_summary = ["--no-summary"] if name == "left out" else []
            options = ["--text", "And now?", "--replay-tokens", "200", *no_summary]
            run = stage.run("resume", *options)
            assert run.code == 0, run.err
            said = conversation(*texts, "And now?")
            assert stage.logged() == said
            known = known_to(stage.peers[1])
            assert 2 < len(known) < len(said)
            assert known == said[-len(known) :]
            kinds = [event["type"] for event in stage.peers[1].received]
            outside = [e["response"] for e in stage.server.said(1, "response.create")[:-1]]
            if name == "left out":
                assert outside == []
                assert stage.records("summary") == []
                return
            [asked] = outside
            assert kinds.index("response.create") < kinds.index("conversation.item.create")
            assert (asked["conversation"], asked["output_modalities"]) == ("none", ["text"])
            assert asked["metadata"] == {"job": "summary"}
            assert asked["instructions"]
            assert texts[0] in str(asked["input"])
            [summary] = stage.records("summary")
            assert summary["text"] == stage.server.summary_text
            assert summary["turns"] + len(known) >= len(said)
            head = stage.peers[1].items[0]
            assert head["role"] == "system"
            assert stage.server.summary_text in words_of(head)

    side_by_side(story, ["summarised", "left out"])
