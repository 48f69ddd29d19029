"""A history that has outgrown the model's context."""

import pytest

from tests.scene import Scene, done, saying
from tests.test_resume import NOTED
from voicechat.realtime.abilities import Abilities, tokens_of
from voicechat.realtime.conversation import Link
from voicechat.realtime.effects import Effect, Notice, Write
from voicechat.realtime.events import (
    ConversationItemCreate,
    Error,
    Event,
    ResponseCreate,
    ResponseCreated,
    ResponseDone,
    ResponseOutputTextDelta,
    ResponseOutputTextDone,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
)
from voicechat.realtime.inputs import Connected, DeadlineReached, WaitSkipped
from voicechat.realtime.policy import Policy
from voicechat.realtime.replay import plan
from voicechat.transcript import Closed, Said, Summary, Transcript, Usage

WORDS = "word " * 16  # 20 tokens, 25 with what an item takes


def long_talk(turns: int = 40) -> list[Said]:
    return [
        Said(
            item_id=f"item_{number}",
            role="assistant" if number % 2 else "user",
            text=f"{number:03d} {WORDS}",
        )
        for number in range(turns)
    ]


def resumed(*more: Summary, budget: int = 300, use_summary: bool = True) -> Scene:
    transcript = Transcript.of([*long_talk(), *more, Closed()])
    return Scene(transcript, policy=Policy(replay_tokens=budget, use_summary=use_summary))


def summary_of(text: str, response_id: str = "resp_s") -> list[Event]:
    response = {"id": response_id, "metadata": {"job": "summary"}, "conversation_id": None}
    return [
        ResponseCreated(response),
        ResponseOutputTextDelta("item_s", text[:5], response_id),
        ResponseOutputTextDelta("item_s", text[5:], response_id),
        ResponseOutputTextDone("item_s", text, response_id),
        ResponseDone({**response, "status": "completed", "usage": {"input_tokens": 900}}),
    ]


def texts(effects: list[Effect]) -> list[str]:
    creates = saying(effects, ConversationItemCreate)
    return [event.item["content"][0]["text"] for event in creates]  # type: ignore[attr-defined]


def test_older_turns_are_summed_up_by_the_server_before_the_newer_ones_are_restored() -> None:
    scene = resumed()
    effects = scene.play(Connected(1), SessionCreated({}))
    assert [type(e.event) for e in effects if hasattr(e, "event")] == [SessionUpdate]
    assert "Summarising 29 turns" in str(effects[-1])
    [ask] = scene.play(SessionUpdated())
    assert isinstance(ask.event, ResponseCreate)  # type: ignore[union-attr]
    request = ask.event.response  # type: ignore[union-attr]
    assert request is not None
    assert request["conversation"] == "none"
    assert request["output_modalities"] == ["text"]
    assert "User: 000 word" in request["input"][0]["content"][0]["text"]
    effects = scene.play(*summary_of("They counted."))
    assert effects[0] == Write(Usage(input_tokens=900, model="gpt-realtime-2.1"))
    summary = scene.conversation.transcript.summary
    assert summary is not None
    assert summary.text == "They counted."
    # Half of the budget is left for what comes: the next summary is not due with the next turn.
    assert (summary.covers, summary.turns) == ("item_34", 35)
    assert texts(effects)[0] == "Summary of the conversation so far: They counted."
    assert texts(effects)[-2].startswith("039 ")
    kept = len(texts(effects)) - 2
    assert scene.conversation.link is Link.OPENING
    scene.play(SessionUpdated(), done("summary"), *(done(f"h{n:04d}") for n in range(1, kept + 1)))
    scene.on(NOTED, Notice(f"{kept} turns restored, {40 - kept} older ones summarised."))


def test_a_summary_that_is_there_is_used_again() -> None:
    scene = resumed(Summary(text="They counted.", covers="item_33", turns=34))
    effects = scene.play(Connected(1), SessionCreated({}))
    assert texts(effects)[0] == "Summary of the conversation so far: They counted."
    assert not saying(effects, ResponseCreate)


def test_the_next_summary_is_made_of_the_last_one() -> None:
    scene = resumed(Summary(text="They began to count.", covers="item_9", turns=10))
    scene.play(Connected(1), SessionCreated({}))
    [ask] = scene.play(SessionUpdated())
    text = ask.event.response["input"][0]["content"][0]["text"]  # type: ignore[union-attr]
    assert text.startswith("What was said before, in short:\nThey began to count.\n\nThen:\n")
    assert "User: 010 " in text
    scene.play(*summary_of("They counted on."))
    summary = scene.conversation.transcript.summary
    assert summary is not None
    assert (summary.covers, summary.turns) == ("item_34", 35)


@pytest.mark.parametrize(
    "happened",
    [
        [WaitSkipped()],
        [Error({"code": "invalid_value", "message": "What?", "event_id": "summarise"})],
        [ResponseDone({"id": "resp_s", "status": "failed", "output": []})],
    ],
)
def test_where_none_is_made_the_older_turns_are_left_out(happened: list[Event]) -> None:
    scene = resumed()
    scene.play(Connected(1), SessionCreated({}), SessionUpdated())
    effects = scene.play(*happened)
    assert len(texts(effects)) == 12
    scene.play(SessionUpdated(), *(done(f"h{n:04d}") for n in range(1, 12)))
    scene.on(NOTED, Notice("11 turns restored, 29 older ones left out."))


def test_a_summary_that_comes_after_all_is_no_answer() -> None:
    scene = resumed()
    created, *rest = summary_of("They counted.")
    scene.play(Connected(1), SessionCreated({}), SessionUpdated(), created, WaitSkipped())
    scene.play(SessionUpdated(), *(done(f"h{n:04d}") for n in range(1, 12)), NOTED)
    assert scene.conversation.link is Link.LIVE
    assert scene.play(*rest) == [Write(Usage(input_tokens=900, model="gpt-realtime-2.1"))]
    assert scene.conversation.is_idle


def test_it_is_not_waited_for_for_ever() -> None:
    scene = resumed()
    scene.play(Connected(1), SessionCreated({}), SessionUpdated())
    assert scene.conversation.deadline == 30.0
    assert len(texts(scene.at(30.0).play(DeadlineReached()))) == 12


def test_a_user_may_want_none() -> None:
    scene = resumed(Summary(text="They counted.", covers="item_33", turns=34), use_summary=False)
    effects = scene.play(Connected(1), SessionCreated({}))
    assert len(texts(effects)) == 12
    assert texts(effects)[0].startswith("029 ")


def test_a_talk_too_long_for_one_summary_is_summed_up_in_steps() -> None:
    transcript = Transcript.of([*long_talk(1200), Closed()])
    scene = Scene(transcript, policy=Policy(replay_tokens=300))
    scene.play(Connected(1), SessionCreated({}), SessionUpdated())
    effects = scene.play(*summary_of("All of it."))
    assert texts(effects)[0].endswith("All of it.")  # 128k tokens are enough for that


# The plan itself ---------------------------------------------------------------------------------


def test_everything_is_restored_whole_if_it_fits_whatever_summary_there_is() -> None:
    transcript = Transcript.of([*long_talk(), Summary(text="Short.", covers="item_33", turns=34)])
    made = plan(transcript, 40 * 26)
    assert (made.restored, made.summarised, len(made.left_out)) == (40, 0, 0)
    assert [entry.wire_id for entry in made.entries][-2:] == ["h0040", "restored"]


def test_the_newest_turn_is_restored_whatever_it_takes() -> None:
    made = plan(Transcript.of(long_talk()), 1)
    assert made.restored == 1
    assert len(made.left_out) == 39


def test_turns_that_neither_fit_nor_are_summed_up_are_counted() -> None:
    transcript = Transcript.of([*long_talk(), Summary(text="Short.", covers="item_9", turns=10)])
    made = plan(transcript, 300)
    assert made.restored + made.summarised + len(made.left_out) == 40
    assert made.summarised == 10
    assert made.left_out[0].item_id == "item_10"


def test_nothing_is_restored_of_nothing() -> None:
    assert plan(Transcript(), 1000).entries == ()


def test_an_endpoint_without_items_of_the_assistants_gets_one_message() -> None:
    transcript = Transcript.of(long_talk(2))
    made = plan(transcript, 1000, Abilities(takes_assistant=False))
    history, _ = made.entries
    assert history.role == "user"
    assert history.text.splitlines()[1].startswith("User: 000")
    assert history.text.splitlines()[2].startswith("Assistant: 001")
    assert [turn.item_id for turn in history.turns] == ["item_0", "item_1"]


@pytest.mark.parametrize(
    ("text", "least"),
    [
        ("They stay at home, and live on the honey that they put by in the summer.", 17),
        ("他们整个冬天都待在家里。", 8),
        ("Sie bleiben den ganzen Winter über zu Hause.", 11),
        ("", 0),
    ],
)
def test_tokens_are_counted_rather_too_many_than_too_few(text: str, least: int) -> None:
    assert tokens_of(text) >= least


def test_the_budget_fits_the_context_of_the_model() -> None:
    assert Abilities.of("gpt-realtime-2.1").budget("") == 80_000
    assert Abilities.of("gpt-realtime-2.1-mini").budget("") == 80_000
    assert Abilities.of("gpt-realtime-1.5").budget("") < 28_224
    assert (
        Abilities.of("gpt-realtime-1.5").budget("Be brief. " * 100) < Abilities().budget("") - 200
    )
