"""Answers that end in another way than they should."""

import pytest

from tests.scene import (
    Scene,
    committed,
    item,
    response_begins,
    response_ends,
    saying,
    sends,
    user_starts,
    voice,
    words,
)
from voicechat.realtime.effects import EndPlayback, Notice, Write
from voicechat.realtime.events import (
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemInputAudioTranscriptionCompleted,
    Error,
    ResponseCancel,
    ResponseCreate,
    ResponseDone,
    ResponseOutputAudioDone,
    ResponseOutputAudioTranscriptDone,
    ResponseOutputItemDone,
)
from voicechat.realtime.inputs import (
    DeadlineReached,
    PlaybackFinished,
    PlaybackStopped,
    TextTyped,
)
from voicechat.transcript import Usage

REASONS = {
    "failed": {"type": "failed", "error": {"message": "Overloaded."}},
    "cancelled": {"type": "cancelled", "reason": "client_cancelled"},
    "incomplete": {"type": "incomplete", "reason": "max_output_tokens"},
}


@pytest.mark.parametrize("status", REASONS)
def test_of_an_unfinished_answer_the_words_that_came_with_sound_were_heard(status: str) -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_A", "One two"), voice("item_A", 400))
    scene.play(words("item_A", " three four"))  # without any sound yet
    effects = scene.play(response_ends(status=status, status_details=REASONS[status]))
    assert EndPlayback("item_A") in effects
    assert any(isinstance(effect, Notice) for effect in effects)
    scene.play(PlaybackFinished("item_A", 400))
    assert scene.spoken == [("assistant", "One two", "interrupted")]


@pytest.mark.parametrize("status", REASONS)
def test_words_that_never_had_a_sound_were_not_heard_and_are_forgotten(status: str) -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_A", "One two three. Four"))
    effects = scene.play(response_ends(status=status, status_details=REASONS[status]))
    assert sends(ConversationItemDelete("item_A", event_id="forget")) in effects
    assert scene.spoken == []


def test_an_item_that_is_incomplete_is_known_before_the_response_ends() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_A", "One"), voice("item_A", 400))
    scene.play(ResponseOutputItemDone(item("item_A", "assistant", status="incomplete"), "resp_1"))
    scene.play(PlaybackFinished("item_A", 400))
    assert scene.spoken == [("assistant", "One", "interrupted")]


@pytest.mark.parametrize("status", [*REASONS, "completed"])
def test_a_response_without_an_answer_is_no_answer(status: str) -> None:
    scene = Scene.live()
    scene.play(TextTyped("Hello?"), response_begins())
    effects = scene.play(response_ends(status=status, status_details=REASONS.get(status)))
    assert str(effects[-1]).startswith("Notice(text='No answer: ")
    assert scene.conversation.failure is not None


def test_but_none_is_due_to_sound_without_words() -> None:
    scene = Scene.live()
    scene.play(committed("item_U"), response_begins())
    scene.on(response_ends())
    scene.play(ConversationItemInputAudioTranscriptionCompleted("item_U", transcript=""))
    assert scene.conversation.failure is None
    assert scene.conversation.is_idle


def test_nor_to_a_turn_that_the_user_went_on_with() -> None:
    scene = Scene.live()
    scene.play(response_begins(), user_starts(), PlaybackStopped(()))
    details = {"type": "cancelled", "reason": "turn_detected"}
    scene.on(response_ends(status="cancelled", status_details=details))
    assert scene.conversation.failure is None


def test_an_answer_whose_end_is_never_said_is_over_when_nothing_comes_any_more() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_A", "Hi."), voice("item_A", 300))
    scene.at(20.0).play(ResponseOutputAudioDone("item_A", "resp_1"))
    scene.play(PlaybackFinished("item_A", 300))
    assert scene.conversation.deadline == 50.0
    scene.at(50.0).play(DeadlineReached())
    assert scene.spoken == [("assistant", "Hi.", "complete")]
    assert scene.conversation.is_idle


def test_an_answer_that_was_heard_before_its_response_ended_has_come() -> None:
    scene = Scene.live()
    scene.play(TextTyped("Hello"), response_begins(), words("item_A", "Hi."), voice("item_A", 300))
    scene.play(ResponseOutputItemDone(item("item_A", "assistant", status="completed"), "resp_1"))
    scene.play(PlaybackFinished("item_A", 300))  # a speaker in a hurry
    scene.on(response_ends())
    assert scene.conversation.failure is None


def test_nor_is_one_missed_whose_response_never_ends() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_A", "Hi."), voice("item_A", 300))
    scene.play(ResponseOutputItemDone(item("item_A", "assistant", status="completed"), "resp_1"))
    scene.play(PlaybackFinished("item_A", 300))
    scene.at(30.0).on(DeadlineReached(), sends(ResponseCancel()))
    assert scene.conversation.failure is None
    assert scene.conversation.is_idle


def test_a_turn_that_waits_for_the_end_of_a_response_waits_until_it_is_cancelled() -> None:
    scene = Scene.live()
    scene.play(TextTyped("Hello"), response_begins(), words("item_A", "Hi."), voice("item_A", 300))
    scene.play(TextTyped("Wait."), PlaybackStopped((("item_A", 100),)))
    assert sends(ResponseCancel()) in scene.at(30.0).play(DeadlineReached())
    effects = scene.play(response_ends(status="cancelled"))
    assert saying(effects, ResponseCreate)


def test_an_answer_that_stops_in_the_middle_is_kept_as_far_as_it_was_heard() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_A", "Hi "), voice("item_A", 300))
    scene.play(words("item_A", "there"))
    scene.at(30.0).play(DeadlineReached(), PlaybackFinished("item_A", 300))
    assert scene.spoken == [("assistant", "Hi", "interrupted")]
    assert scene.conversation.is_idle


def test_an_answer_that_stops_before_its_first_word_is_given_up() -> None:
    scene = Scene.live()
    scene.play(TextTyped("Hello"), response_begins())
    scene.at(30.0).play(DeadlineReached())
    assert scene.conversation.failure is not None


def test_an_error_of_the_server_in_place_of_the_answer_is_not_waited_out() -> None:
    scene = Scene.live()
    scene.play(TextTyped("Hello"))
    sorry = Error({"type": "server_error", "message": "Sorry."})
    scene.on(sorry, Notice("No answer yet: Sorry. Trying again in 2 s."))
    scene.at(2.0).play(DeadlineReached())
    scene.on(sorry, Notice("No answer: Sorry."))


def test_an_answer_that_ends_while_it_is_interrupted_was_heard() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_A", "All of it."), voice("item_A", 1000))
    scene.play(response_ends(), user_starts())
    scene.on(PlaybackFinished("item_A", 1000))  # was on its way when the user spoke
    effects = scene.play(PlaybackStopped(()))
    assert not saying(effects, ConversationItemDelete)
    assert scene.spoken == [("assistant", "All of it.", "complete")]


def test_what_comes_after_the_end_is_neither_heard_nor_doubled() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_A", "Once."), voice("item_A", 500))
    scene.play(ResponseOutputAudioTranscriptDone("item_A", "Once.", "resp_1"))
    scene.on(words("item_A", "Once."))
    scene.play(ResponseOutputAudioDone("item_A", "resp_1"))
    scene.on(voice("item_A", 500))
    scene.play(response_ends(), words("item_A", "Once."), PlaybackFinished("item_A", 500))
    assert scene.spoken == [("assistant", "Once.", "complete")]


def test_a_voice_without_words_is_a_turn_all_the_same() -> None:
    scene = Scene.live()
    scene.play(response_begins(), voice("item_A", 500), response_ends())
    scene.play(PlaybackFinished("item_A", 500))
    assert scene.spoken == [("assistant", "", "untranscribed")]


def test_a_tool_that_nobody_offered_is_declined_and_the_answer_asked_for() -> None:
    scene = Scene.live()
    scene.play(
        committed("U"), ConversationItemInputAudioTranscriptionCompleted("U", 0, "What time?")
    )
    scene.play(response_begins())
    call = {"id": "item_F", "type": "function_call", "name": "get_time", "call_id": "call_9"}
    scene.play(ResponseOutputItemDone({**call, "arguments": "{}", "status": "completed"}, "resp_1"))
    effects = scene.play(response_ends())
    output = {
        "type": "function_call_output",
        "call_id": "call_9",
        "output": "This tool is not available here.",
    }
    assert sends(ConversationItemCreate(output, event_id="tool")) in effects
    assert saying(effects, ResponseCreate)
    assert [(role, text[:34]) for role, text, _ in scene.spoken] == [
        ("user", "What time?"),
        ("system", "The assistant called the tool get_"),
    ]


def test_what_every_response_took_is_saved_and_summed() -> None:
    """The figures of the Realtime reference: cached and sound are parts of the input."""
    given = {
        "text_tokens": 112,
        "audio_tokens": 28,
        "image_tokens": 0,
        "cached_tokens": 64,
        "cached_tokens_details": {"text_tokens": 60, "audio_tokens": 4, "image_tokens": 0},
    }
    usage = {
        "total_tokens": 180,
        "input_tokens": 140,
        "output_tokens": 40,
        "input_token_details": given,
        "output_token_details": {"text_tokens": 10, "audio_tokens": 30},
    }
    scene = Scene.live()
    scene.play(response_begins(), voice("item_A", 300))
    record = Usage(
        input_tokens=140,
        cached_tokens=64,
        input_audio_tokens=28,
        cached_audio_tokens=4,
        output_tokens=40,
        output_audio_tokens=30,
        model="gpt-realtime-2.1",
    )
    assert Write(record) in scene.play(response_ends(usage=usage))
    scene.play(response_begins("resp_2"), user_starts(), PlaybackStopped(()))
    scene.play(
        response_ends("resp_2", "cancelled", usage={"input_tokens": 80, "output_tokens": 10})
    )
    total = scene.conversation.transcript.usage
    assert (total.input_tokens, total.output_tokens, total.cached_tokens) == (220, 50, 64)
    assert total.total_tokens == 270


def test_usage_beside_the_response_is_read_too_and_nonsense_is_none() -> None:
    scene = Scene.live()
    scene.play(ResponseDone({"id": "r", "status": "completed"}, {"input_tokens": 7}))
    scene.play(ResponseDone({"id": "s", "status": "completed", "usage": {"input_tokens": "many"}}))
    assert scene.conversation.transcript.usage.total_tokens == 7


def test_an_item_of_a_dropped_response_that_nobody_heard_of_is_deleted() -> None:
    scene = Scene.live()
    scene.play(response_begins(), user_starts(), PlaybackStopped(()))
    unheard = ResponseOutputItemDone(item("item_A", "assistant", status="incomplete"), "resp_1")
    scene.on(unheard, sends(ConversationItemDelete("item_A", event_id="forget")))
