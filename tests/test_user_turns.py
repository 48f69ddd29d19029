"""What the user says, and when its words arrive."""

import pytest

from tests.scene import (
    Scene,
    added,
    committed,
    done,
    item,
    response_begins,
    response_ends,
    said,
    saying,
    sends,
    user_starts,
    voice,
    words,
)
from voicechat.pcm import FRAME_BYTES, silence
from voicechat.realtime.effects import Notice, StopPlayback
from voicechat.realtime.events import (
    ConversationItemCreate,
    ConversationItemCreated,
    ConversationItemInputAudioTranscriptionCompleted,
    ConversationItemInputAudioTranscriptionDelta,
    ConversationItemInputAudioTranscriptionFailed,
    Error,
    InputAudioBufferAppend,
    InputAudioBufferClear,
    InputAudioBufferCommit,
    InputAudioBufferSpeechStopped,
    ResponseCreate,
)
from voicechat.realtime.inputs import (
    DeadlineReached,
    MicCaptured,
    MuteToggled,
    PlaybackFinished,
    TalkKeyPressed,
    TextTyped,
)

FRAME = bytes(range(240)) * 4
assert len(FRAME) == FRAME_BYTES


def transcribed(item_id: str, text: str) -> ConversationItemInputAudioTranscriptionCompleted:
    return ConversationItemInputAudioTranscriptionCompleted(item_id, transcript=text)


def test_a_frame_goes_to_the_server_as_it_is() -> None:
    Scene.live().on(MicCaptured(FRAME), sends(InputAudioBufferAppend(FRAME)))


def test_no_frame_is_sent_before_the_settings_are_confirmed() -> None:
    scene = Scene()
    scene.on(MicCaptured(FRAME))


def test_words_that_come_after_the_answer_still_stand_before_it() -> None:
    scene = Scene.live()
    scene.play(user_starts("item_U"), committed("item_U"), done("item_U"))
    scene.play(response_begins(), added("item_A", "assistant", "item_U"))
    scene.play(words("item_A", "Fine."), voice("item_A", 300), response_ends())
    scene.play(PlaybackFinished("item_A", 300))
    assert scene.spoken == [("user", "", "speaking"), ("assistant", "Fine.", "complete")]
    scene.play(transcribed("item_U", "How are you?"))
    assert scene.spoken == [
        ("user", "How are you?", "complete"),
        ("assistant", "Fine.", "complete"),
    ]


def test_transcripts_that_complete_out_of_order_keep_the_order_of_the_items() -> None:
    scene = Scene.live()
    scene.play(committed("item_1"), committed("item_2", "item_1"))
    scene.play(transcribed("item_2", "second"), transcribed("item_1", "first"))
    assert [text for _, text, _ in scene.spoken] == ["first", "second"]


def test_an_item_that_arrives_late_is_put_where_the_server_says() -> None:
    scene = Scene.live()
    scene.play(committed("item_1"), committed("item_3", "item_2"), committed("item_2", "item_1"))
    for name in ("item_3", "item_1", "item_2"):
        scene.play(transcribed(name, name))
    assert [text for _, text, _ in scene.spoken] == ["item_1", "item_2", "item_3"]


def test_words_that_never_come_are_not_waited_for_for_ever() -> None:
    scene = Scene.live()
    scene.play(committed("item_U"), response_begins(), response_ends())
    scene.at(10.0)
    assert scene.conversation.deadline == 10.0
    scene.play(DeadlineReached())
    assert scene.spoken == [("user", "", "untranscribed")]
    scene.play(transcribed("item_U", "Better late."))
    assert scene.spoken == [("user", "Better late.", "complete")]


@pytest.mark.parametrize(
    "event",
    [ConversationItemInputAudioTranscriptionFailed("item_U"), transcribed("item_U", " ")],
)
def test_speech_without_words_is_marked(
    event: ConversationItemInputAudioTranscriptionFailed,
) -> None:
    scene = Scene.live()
    scene.play(committed("item_U"), event)
    assert scene.spoken == [("user", "", "untranscribed")]


def test_the_complete_transcript_replaces_its_pieces() -> None:
    scene = Scene.live()
    scene.play(committed("item_U"))
    scene.play(ConversationItemInputAudioTranscriptionDelta("item_U", delta="How old"))
    scene.play(transcribed("item_U", "How are you?"))
    assert scene.spoken == [("user", "How are you?", "complete")]


def test_pieces_are_kept_when_the_rest_never_comes() -> None:
    scene = Scene.live()
    scene.play(committed("item_U"))
    scene.play(ConversationItemInputAudioTranscriptionDelta("item_U", delta="How old"))
    scene.at(10.0).play(DeadlineReached())
    assert scene.spoken == [("user", "How old", "complete")]


def test_a_turn_is_timed_by_the_audio_that_was_sent() -> None:
    scene = Scene.live()
    for frame in range(100):
        scene.at(1.0 + 0.02 * frame).play(MicCaptured(FRAME))
    scene.at(3.0).play(user_starts("item_U", ms=1200))  # 0.8 s ago by the audio sent
    for frame in range(50):
        scene.at(3.0 + 0.02 * frame).play(MicCaptured(FRAME))
    scene.at(4.0).play(InputAudioBufferSpeechStopped("item_U", 2900), committed("item_U"))
    [record] = said(scene.play(transcribed("item_U", "Well.")))
    assert (record.start_ms, record.end_ms) == (2200, 3900)


def test_a_muted_microphone_sends_nothing_but_lets_an_open_turn_end() -> None:
    scene = Scene.live()
    scene.play(user_starts())
    scene.on(MuteToggled(), Notice("Microphone muted."))
    scene.on(MicCaptured(FRAME), sends(InputAudioBufferAppend(silence(20))))
    scene.play(committed("item_U"))
    scene.on(MicCaptured(FRAME))
    scene.on(MuteToggled(), Notice("Microphone on."))
    scene.on(MicCaptured(FRAME), sends(InputAudioBufferAppend(FRAME)))


def test_a_typed_turn_is_sent_and_an_answer_asked_for() -> None:
    scene = Scene.live()
    effects = scene.play(TextTyped("Hello"))
    [create] = saying(effects, ConversationItemCreate)
    assert isinstance(create, ConversationItemCreate)
    assert create.item["content"] == [{"type": "input_text", "text": "Hello"}]
    assert effects[-1] == sends(ResponseCreate(event_id="respond"))
    assert scene.spoken == [("user", "Hello", "speaking")]  # on disk already
    scene.play(added("text_0001", "user", None))
    assert scene.spoken == [("user", "Hello", "complete")]


def test_a_typed_turn_that_comes_back_under_another_id_is_the_same_turn() -> None:
    scene = Scene.live()
    scene.play(TextTyped("Hello"))
    content = [{"type": "input_text", "text": "Hello"}]
    scene.play(ConversationItemCreated(item("server_7", content=content)))
    assert scene.spoken == [("user", "Hello", "complete")]
    scene.play(committed("item_U", "server_7"))
    assert [text for _, text, _ in scene.spoken] == ["Hello", ""]


def test_words_before_the_commit_take_their_place_when_it_comes() -> None:
    scene = Scene.live()
    scene.play(committed("item_1"), transcribed("item_3", "third"))
    scene.play(committed("item_2", "item_1"), committed("item_3", "item_2"))
    scene.play(transcribed("item_1", "first"), transcribed("item_2", "second"))
    assert [text for _, text, _ in scene.spoken] == ["first", "second", "third"]


def test_without_voice_detection_the_key_takes_and_gives_the_floor() -> None:
    scene = Scene.live(vad="none")
    scene.on(MicCaptured(FRAME))
    scene.on(TalkKeyPressed(), sends(InputAudioBufferClear()))
    for _ in range(15):
        scene.on(MicCaptured(FRAME), sends(InputAudioBufferAppend(FRAME)))
    scene.on(
        TalkKeyPressed(),
        sends(InputAudioBufferCommit(event_id="commit")),
        sends(ResponseCreate(event_id="respond")),
    )
    scene.on(MicCaptured(FRAME))


def test_a_press_too_short_for_the_server_is_not_sent() -> None:
    scene = Scene.live(vad="none")
    scene.play(TalkKeyPressed(), MicCaptured(FRAME))
    scene.on(
        TalkKeyPressed(),
        sends(InputAudioBufferClear()),
        Notice("That was too short to be sent."),
    )


def test_the_key_interrupts_an_answer() -> None:
    scene = Scene.live(vad="none")
    scene.play(response_begins(), voice("item_A", 1000))
    scene.on(TalkKeyPressed(), StopPlayback(), sends(InputAudioBufferClear()))


def test_an_answer_that_never_comes_is_reported() -> None:
    scene = Scene.live()
    scene.play(committed("item_U"), transcribed("item_U", "Hello?"))
    scene.at(30.0).on(DeadlineReached(), Notice("No answer: none came within 30 s"))
    assert scene.conversation.failure is not None
    assert scene.conversation.is_idle


def test_an_answer_that_failed_is_reported() -> None:
    scene = Scene.live()
    scene.play(committed("item_U"), response_begins())
    error = {"type": "failed", "error": {"code": "content_policy", "message": "No."}}
    effects = scene.play(response_ends(status="failed", status_details=error))
    assert effects == [Notice("No answer: No.")]


def test_an_answer_that_may_come_later_is_asked_for_once_more() -> None:
    scene = Scene.live()
    scene.play(committed("item_U"), transcribed("item_U", "Hello?"), response_begins())
    message = "Rate limit reached. Please try again in 1.5s."
    error = {"type": "failed", "error": {"code": "rate_limit_exceeded", "message": message}}
    failed = response_ends(status="failed", status_details=error)
    scene.on(failed, Notice(f"No answer yet: {message} Trying again in 2 s."))
    assert scene.conversation.deadline == 1.5
    assert not scene.conversation.is_idle
    scene.at(1.5).on(DeadlineReached(), sends(ResponseCreate(event_id="respond")))
    scene.play(response_begins("resp_2"))
    failed = response_ends("resp_2", status="failed", status_details=error)
    scene.on(failed, Notice(f"No answer: {message}"))
    assert scene.conversation.failure is not None


def test_a_retry_is_not_made_when_the_user_goes_on() -> None:
    scene = Scene.live()
    scene.play(committed("item_U"), response_begins())
    error = {"type": "failed", "error": {"type": "server_error", "message": "Oops."}}
    scene.play(response_ends(status="failed", status_details=error), user_starts("item_V"))
    scene.at(5.0).on(DeadlineReached())


def test_two_answers_are_never_asked_for_at_once() -> None:
    scene = Scene.live()
    effects = scene.play(TextTyped("One"), TextTyped("Two"))
    assert len(saying(effects, ResponseCreate)) == 1
    assert saying(scene.play(response_begins(), response_ends()), ResponseCreate)


def test_a_response_that_was_already_running_is_waited_for() -> None:
    scene = Scene.live()
    scene.play(TextTyped("Hello"), response_begins("resp_other"))
    scene.play(Error({"code": "conversation_already_has_active_response", "message": "busy"}))
    effects = scene.play(response_ends("resp_other"))
    assert saying(effects, ResponseCreate) == [ResponseCreate(event_id="respond")]
