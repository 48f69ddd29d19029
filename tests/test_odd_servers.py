"""Servers that leave something out, say it twice, or say it late."""

import pytest

from tests.scene import (
    GONE,
    Scene,
    added,
    come_back,
    committed,
    done,
    frame,
    item,
    lose,
    response_begins,
    response_ends,
    saying,
    sound,
    speak,
    user_starts,
    voice,
    words,
)
from voicechat.errors import AuthenticationError, BusyError
from voicechat.pcm import silence
from voicechat.realtime.conversation import Floor, Link
from voicechat.realtime.effects import Close, Connect, Finish, Notice
from voicechat.realtime.events import (
    ConversationItemCreated,
    ConversationItemDelete,
    ConversationItemInputAudioTranscriptionCompleted,
    Error,
    InputAudioBufferSpeechStopped,
    ResponseCreate,
    ResponseOutputAudioDone,
    ResponseOutputItemDone,
    ResponseOutputTextDelta,
    SessionCreated,
    SessionUpdated,
)
from voicechat.realtime.inputs import (
    Connected,
    DeadlineReached,
    Disconnected,
    Garbled,
    MicCaptured,
    PlaybackFinished,
    PlaybackStopped,
    QuitRequested,
    Received,
    TalkKeyPressed,
    TextTyped,
)
from voicechat.realtime.policy import Policy


def test_a_response_that_was_not_announced_is_an_answer_all_the_same() -> None:
    scene = Scene.live()
    scene.play(TextTyped("Hello"), words("item_A", "Hi."), voice("item_A", 300))
    for second in range(40):  # longer than an answer that never comes is waited for
        scene.at(float(second)).play(DeadlineReached(), voice("item_A", 300))
    scene.play(response_ends(), PlaybackFinished("item_A", 300 * 41))
    assert scene.spoken == [("user", "Hello", "complete"), ("assistant", "Hi.", "complete")]
    assert scene.conversation.is_idle


def test_answers_in_writing_that_were_not_announced_are_each_counted_once() -> None:
    scene = Scene.live()
    for number in range(4):
        scene.play(ResponseOutputTextDelta(f"item_{number}", "Hi.", f"resp_{number}"))
        scene.play(response_ends(f"resp_{number}"))
    assert scene.conversation.link is Link.LIVE


def test_the_end_of_an_old_response_does_not_end_the_new_one() -> None:
    scene = Scene.live()
    scene.play(response_begins("resp_1"), user_starts(), PlaybackStopped(()))
    scene.play(response_begins("resp_2"), words("item_B", "Hi.", "resp_2"))
    scene.play(voice("item_B", 300, "resp_2"))
    assert not scene.play(response_ends("resp_1", "cancelled"))
    scene.play(response_ends("resp_2"), PlaybackFinished("item_B", 300))
    assert scene.spoken[-1] == ("assistant", "Hi.", "complete")


def test_the_end_of_a_response_that_is_told_twice_is_told_once() -> None:
    scene = Scene.live()
    scene.play(TextTyped("Hello"), response_begins(), words("item_A", "Hi."), voice("item_A", 300))
    used = {"input_tokens": 10, "output_tokens": 10}
    scene.play(response_ends(usage=used))
    assert not scene.play(response_ends(usage=used))
    assert scene.conversation.failure is None
    scene.play(PlaybackFinished("item_A", 300))
    assert scene.spoken[-1] == ("assistant", "Hi.", "complete")


@pytest.mark.parametrize(
    "told",
    [
        {"code": "conversation_too_long"},
        {"code": "rate_limit_exceeded"},
        {"code": "server_error", "event_id": None},
        {"code": "invalid_value", "param": "response.instructions", "event_id": ""},
    ],
)
def test_an_answer_that_is_refused_is_not_waited_for_though_no_error_names_it(
    told: dict[str, str | None],
) -> None:
    scene = Scene.live()
    scene.play(TextTyped("Hello"), done("text_0001"))
    scene.play(Error({"type": "invalid_request_error", "message": "No.", **told}))
    is_tried_again = told["code"] in ("rate_limit_exceeded", "server_error")
    effects = scene.at(2.0).play(DeadlineReached())
    assert bool(saying(effects, ResponseCreate)) is is_tried_again
    assert (scene.conversation.failure is None) is is_tried_again


def test_a_server_that_answers_by_itself_and_refuses_to_be_asked_is_asked_twice_at_most() -> None:
    scene = Scene.live()
    busy = Error({"code": "conversation_already_has_active_response", "message": "Busy."})
    asked = len(saying(scene.play(TextTyped("Hello")), ResponseCreate))
    for number in range(3):
        name, response_id = f"item_{number}", f"resp_{number}"
        effects = scene.play(busy, response_begins(response_id))
        effects += scene.play(words(name, "Hi.", response_id), voice(name, 300, response_id))
        effects += scene.play(response_ends(response_id), PlaybackFinished(name, 300))
        asked += len(saying(effects, ResponseCreate))
    assert asked == 2
    scene.play(done("text_0001"))
    assert scene.conversation.is_idle


def test_a_short_wait_is_told_in_whole_seconds() -> None:
    scene = Scene.live()
    scene.play(TextTyped("Hello"), response_begins())
    error = {"code": "rate_limit_exceeded", "message": "Slow down. Try again in 300ms"}
    effects = scene.play(response_ends(status="failed", status_details={"error": error}))
    told = "No answer yet: Slow down. Try again in 300ms. Trying again in 1 s."
    assert effects == [Notice(told)]


def test_a_key_that_is_refused_without_a_code_is_refused_all_the_same() -> None:
    scene = Scene()
    scene.play(Connected(1))
    *_, end = scene.play(Error({"type": "authentication_error", "message": "Bad token."}))
    assert isinstance(end, Finish)
    assert isinstance(end.error, AuthenticationError)


def test_a_mistake_that_the_server_makes_again_and_again_is_told_once() -> None:
    scene = Scene.live()
    missing = Garbled(1, "Missing required parameter: 'delta'.")
    assert len(scene.play(missing)) == 1
    assert not scene.play(missing, missing)
    assert len(scene.play(Garbled(1, "The message is not valid JSON."))) == 1


@pytest.mark.parametrize("code", [["a"], {"b": 1}, None, 7])
def test_errors_of_any_shape_are_told(code: object) -> None:
    [notice] = Scene.live().play(Error({"code": code, "message": "What?"}))
    assert notice == Notice("The server reports a problem: What?")


def test_a_limit_beyond_all_measure_is_none() -> None:
    scene = Scene()
    session = {"expires_at": 10**400}
    scene.play(Connected(1, 1_800_000_000.0), SessionCreated(session), SessionUpdated())
    assert scene.conversation.deadline is None


def test_noise_without_words_takes_no_answer_away_from_a_typed_turn() -> None:
    scene = Scene.live()
    scene.play(committed("noise"), TextTyped("Hello"))
    scene.play(ConversationItemInputAudioTranscriptionCompleted("noise", 0, ""))
    assert not scene.conversation.is_idle  # the answer to it is still awaited
    scene.at(30.0).play(DeadlineReached())
    assert scene.conversation.failure is not None
    assert scene.conversation.floor is Floor.OPEN


def test_speech_that_never_ends_has_ended_when_all_is_quiet() -> None:
    scene = Scene.live()
    scene.play(user_starts())
    for second in range(25):
        scene.at(float(second)).play(DeadlineReached(), *[MicCaptured(silence(20))] * 50)
    assert scene.conversation.floor is Floor.OPEN


def test_the_same_words_typed_twice_under_other_ids_are_two_turns() -> None:
    scene = Scene.live()
    scene.play(TextTyped("Yes"), TextTyped("Yes"))
    for name in ("x", "x", "y", "y"):
        content = [{"type": "input_text", "text": "Yes"}]
        scene.play(ConversationItemCreated(item(name, content=content)))
    assert [text for _, text, _ in scene.spoken] == ["Yes", "Yes"]


def test_an_answer_that_ended_while_it_was_being_stopped_was_heard() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_A", "All of it."), voice("item_A", 500))
    scene.play(ResponseOutputAudioDone("item_A", "resp_1"), response_ends(), user_starts())
    effects = scene.play(PlaybackStopped(()))  # the word of its end is on its way
    assert not saying(effects, ConversationItemDelete)
    assert scene.spoken == [("assistant", "All of it.", "complete")]


def test_an_answer_in_writing_whose_end_never_comes_stands() -> None:
    scene = Scene.live()
    scene.play(TextTyped("Hello"), response_begins())
    scene.play(ResponseOutputTextDelta("item_A", "Hi.", "resp_1"))
    scene.play(ResponseOutputItemDone(item("item_A", "assistant", status="completed"), "resp_1"))
    scene.at(30.0).play(DeadlineReached())
    assert scene.spoken[-1] == ("assistant", "Hi.", "complete")


def test_a_turn_that_the_server_refuses_does_not_lend_its_sound_to_the_next() -> None:
    scene = Scene.live(vad="none")
    for first, last in ((0, 20), (20, 40)):
        scene.play(TalkKeyPressed())
        speak(scene, first, last)
        scene.play(TalkKeyPressed())
        if first == 0:
            scene.play(Error({"code": "input_audio_buffer_commit_empty", "message": "Empty."}))
    scene.play(committed("U"))
    lose(scene)
    scene.at(scene.now + 0.25).play(DeadlineReached())
    scene.connection = 2
    effects = scene.play(Connected(2), SessionCreated({}))
    assert sound(effects) == b"".join(frame(number) for number in range(20, 40))


FULL = Error({"type": "session_limit_reached", "message": "All 1 session slots are in use."})


def test_a_server_without_room_is_busy_and_is_tried_again_where_it_was_there_before() -> None:
    scene = Scene()
    effects = scene.play(Connected(1), FULL)
    assert isinstance(effects[-1], Finish)
    assert isinstance(effects[-1].error, BusyError)
    scene = Scene.live()
    lose(scene)
    scene.at(0.25).play(DeadlineReached(), Connected(2))
    assert Close(2) in scene.play(Received(2, FULL))
    assert Connect(3) in scene.at(1.0).play(DeadlineReached())


# Lines that do not last --------------------------------------------------------------------------


def test_a_line_that_is_lost_right_after_another_keeps_all_that_was_said_meanwhile() -> None:
    scene = Scene.live()
    lose(scene)
    said = speak(scene, 0, 50)
    for _ in range(40):
        scene.play(MicCaptured(silence(20)))
    said += speak(scene, 50, 100)
    come_back(scene)
    lose(scene)
    scene.at(scene.now + 0.25)
    again = sound(come_back(scene))
    assert all(each in again for each in said)


def test_after_a_move_nothing_from_before_it_is_said_again() -> None:
    scene = Scene.live(policy=Policy(rotate_after=60))
    speak(scene, 0, 10)
    scene.play(user_starts("noise"), InputAudioBufferSpeechStopped("noise", 200))
    for _ in range(500):
        scene.at(scene.now + 0.1).play(MicCaptured(silence(20)), DeadlineReached())
    scene.at(60.0).play(DeadlineReached())
    scene.play(Connected(2), Received(2, SessionCreated({})), Received(2, SessionUpdated()))
    scene.connection = 2
    said = speak(scene, 10, 30)
    lose(scene)
    heard = sound(come_back(scene))
    assert all(each in heard for each in said)
    assert frame(9) not in heard


def test_hanging_up_in_a_sentence_that_no_server_takes_notes_it() -> None:
    scene = Scene.live()
    scene.play(user_starts("U", ms=0))
    speak(scene, 0, 30)
    scene.play(QuitRequested())
    effects = scene.at(scene.now + 1.2).play(DeadlineReached())
    assert isinstance(effects[-1], Finish)
    assert scene.spoken == [("user", "", "untranscribed")]


def test_a_line_that_is_lost_while_hanging_up_leaves_what_was_heard_to_the_speaker() -> None:
    scene = Scene.live()
    scene.play(response_begins(), added("item_A", "assistant", None))
    scene.play(words("item_A", "One two three four"), voice("item_A", 1000))
    scene.play(QuitRequested(), Disconnected(1, GONE))
    effects = scene.play(PlaybackStopped((("item_A", 500),)))
    assert isinstance(effects[-1], Finish)
    assert scene.spoken == [("assistant", "One two", "interrupted")]


def test_a_benign_error_while_a_line_is_prepared_is_about_none_of_its_items() -> None:
    scene = Scene.live()
    scene.play(TextTyped("Hello"))
    lose(scene)
    scene.at(0.25).play(DeadlineReached(), Connected(2), Received(2, SessionCreated({})))
    scene.play(Received(2, SessionUpdated()))
    late = Error({"code": "response_cancel_not_active", "message": "None."})
    assert not scene.play(Received(2, late))
