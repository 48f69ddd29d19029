"""How a conversation begins, and the many ways in which it ends."""

import pytest

from tests.scene import (
    Scene,
    committed,
    response_begins,
    said,
    saying,
    sends,
    user_starts,
    voice,
    words,
)
from voicechat.errors import (
    AuthenticationError,
    ConnectError,
    ModelError,
    ProtocolError,
    StoreError,
    VoicechatError,
)
from voicechat.pcm import silence
from voicechat.realtime.conversation import Link
from voicechat.realtime.effects import Close, Finish, Notice, StopPlayback, Write
from voicechat.realtime.events import (
    ConversationItemCreate,
    ConversationItemInputAudioTranscriptionCompleted,
    Error,
    InputAudioBufferCommit,
    ResponseCancel,
    SessionCreated,
    SessionUpdated,
    UnknownEvent,
)
from voicechat.realtime.inputs import (
    Connected,
    DeadlineReached,
    Disconnected,
    Garbled,
    MicCaptured,
    PlaybackStopped,
    QuitRequested,
    Received,
    TextTyped,
)
from voicechat.realtime.policy import Policy
from voicechat.transcript import Closed, Lost, Opened, Transcript

GONE = ConnectError("the line was lost (1006)", remedy="Try again.")


def ended_with(effects: list[object]) -> VoicechatError | None:
    finish = effects[-1]
    assert isinstance(finish, Finish), effects
    return finish.error


def test_what_is_typed_before_the_line_is_up_is_sent_when_it_is() -> None:
    scene = Scene()
    scene.on(TextTyped("Hello"))
    scene.play(Connected(1), SessionCreated({}))
    assert saying(scene.play(SessionUpdated()), ConversationItemCreate)


def test_a_server_that_was_never_there_is_not_waited_for() -> None:
    scene = Scene()
    assert ended_with([*scene.play(Disconnected(1, GONE))]) is GONE


def test_a_server_that_says_nothing_is_none() -> None:
    scene = Scene()
    scene.play(Connected(1), UnknownEvent({"type": "hello"}))
    assert scene.conversation.deadline == 10.0
    scene.at(10.0)
    assert isinstance(ended_with([*scene.play(DeadlineReached())]), ProtocolError)


def test_garbage_from_an_unknown_server_ends_it() -> None:
    scene = Scene()
    scene.play(Connected(1))
    assert isinstance(ended_with([*scene.play(Garbled(1, "binary"))]), ProtocolError)


def test_garbage_in_a_conversation_does_not_end_it() -> None:
    scene = Scene.live()
    [notice] = scene.play(Garbled(1, "not JSON"))
    assert isinstance(notice, Notice)
    assert scene.conversation.link is Link.LIVE


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("invalid_api_key", AuthenticationError),
        ("insufficient_quota", AuthenticationError),
        ("model_not_found", ModelError),
        ("beta_api_shape_disabled", ProtocolError),
        ("unsupported_country_region_territory", ProtocolError),
    ],
)
def test_some_errors_are_the_end(code: str, kind: type[VoicechatError]) -> None:
    scene = Scene()
    scene.play(Connected(1))
    error = ended_with([*scene.play(Error({"code": code, "message": "No way."}))])
    assert type(error) is kind
    assert "No way." in error.message


def test_a_session_that_is_over_before_it_began_is_no_reason_to_give_up() -> None:
    scene = Scene()
    scene.play(Connected(1), SessionCreated({}))
    effects = scene.play(Error({"code": "session_expired", "message": "60 minutes."}))
    assert effects[0] == Close(1)
    assert scene.conversation.deadline == 0.25


@pytest.mark.parametrize("code", ["response_cancel_not_active", "input_audio_buffer_commit_empty"])
def test_harmless_races_are_not_shown(code: str) -> None:
    Scene.live().on(Error({"code": code, "message": "Too late."}))


def test_other_problems_are_shown_and_the_conversation_goes_on() -> None:
    scene = Scene.live()
    scene.on(
        Error({"code": "invalid_value", "message": "Bad."}),
        Notice("The server reports a problem: Bad."),
    )
    assert scene.conversation.link is Link.LIVE


def test_a_late_word_of_an_earlier_connection_is_not_taken_for_this_one() -> None:
    scene = Scene.live()
    scene.on(Received(0, Error({"code": "invalid_api_key"})))
    scene.on(Disconnected(0, GONE))
    assert scene.conversation.link is Link.LIVE


def test_hanging_up_when_nothing_is_open_is_immediate() -> None:
    scene = Scene.live()
    scene.on(QuitRequested(), Write(Closed()), Finish())


def test_the_last_words_are_waited_for() -> None:
    scene = Scene.live()
    scene.play(committed("item_U"))
    scene.on(QuitRequested())
    effects = scene.play(ConversationItemInputAudioTranscriptionCompleted("item_U", 0, "Bye."))
    assert [record.text for record in said(effects)] == ["Bye."]
    assert effects[-1] == Finish()


def test_but_not_for_long() -> None:
    scene = Scene.live()
    scene.play(committed("item_U"), QuitRequested())
    assert scene.conversation.deadline is not None
    assert scene.conversation.deadline < 1.5
    effects = scene.at(1.5).play(DeadlineReached())
    assert [record.status for record in said(effects)] == ["untranscribed"]
    assert effects[-1] == Finish()


def test_a_sentence_that_is_being_spoken_is_still_put_into_words() -> None:
    scene = Scene.live()
    scene.play(user_starts(), *[MicCaptured(silence(20))] * 10)
    scene.on(QuitRequested(), sends(InputAudioBufferCommit(event_id="commit")))
    scene.play(committed("item_U"))
    effects = scene.play(ConversationItemInputAudioTranscriptionCompleted("item_U", 0, "I must"))
    assert effects[-1] == Finish()
    assert scene.spoken == [("user", "I must", "complete")]


def test_hanging_up_in_an_answer_keeps_what_was_heard_and_stops_the_rest() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_A", "One two three four"), voice("item_A", 1000))
    scene.on(QuitRequested(), StopPlayback())
    effects = scene.play(PlaybackStopped((("item_A", 500),)))
    assert scene.spoken == [("assistant", "One two", "interrupted")]
    assert saying(effects, ResponseCancel)
    assert effects[-1] == Finish()


def test_an_answer_that_begins_after_hanging_up_is_not_heard() -> None:
    scene = Scene.live()
    scene.play(committed("item_U"), QuitRequested())
    scene.on(response_begins())
    scene.on(words("item_A", "Well, hello there."))
    scene.on(voice("item_A", 500))
    scene.play(ConversationItemInputAudioTranscriptionCompleted("item_U", 0, "Bye."))
    assert scene.spoken == [("user", "Bye.", "complete")]


def test_asking_twice_takes_no_last_word_away() -> None:
    scene = Scene.live()
    scene.play(committed("item_U"), QuitRequested())
    scene.on(QuitRequested())
    effects = scene.play(ConversationItemInputAudioTranscriptionCompleted("item_U", 0, "Bye."))
    assert effects[-1] == Finish()


def test_a_lost_line_keeps_what_was_heard_and_says_how_to_go_on() -> None:
    transcript = Transcript.of([Opened(session="7f3a9k")])
    scene = Scene(transcript, policy=Policy(reconnect_for=0))
    scene.play(Connected(1), SessionCreated({}), SessionUpdated())
    scene.play(response_begins(), words("item_A", "One two three four"), voice("item_A", 1000))
    effects = scene.play(Disconnected(1, GONE))
    assert effects == [Write(Lost(reason=GONE.message)), StopPlayback()]
    error = ended_with([*scene.play(PlaybackStopped((("item_A", 500),)))])
    assert isinstance(error, ConnectError)
    assert error.remedy.startswith("What was said is saved")
    assert scene.spoken == [("assistant", "One two", "interrupted")]


def test_the_reason_for_hanging_up_is_passed_on() -> None:
    full = StoreError("the disk is full", remedy="Free some space.")
    assert ended_with([*Scene.live().play(QuitRequested(full))]) is full


def test_nothing_happens_after_the_end() -> None:
    scene = Scene.live()
    scene.play(QuitRequested())
    scene.on(TextTyped("Hello?"))
    scene.on(Disconnected(1, GONE))
