"""Moving to a fresh connection before the server ends the one that serves."""

from tests.scene import (
    GONE,
    Scene,
    answered,
    committed,
    done,
    frame,
    item,
    response_begins,
    response_ends,
    saying,
    sends,
    sound,
    speak,
    user_starts,
    voice,
    words,
)
from voicechat.errors import AuthenticationError
from voicechat.pcm import silence
from voicechat.realtime.conversation import Link
from voicechat.realtime.effects import Close, Connect, Effect, Notice, Send, StopPlayback, Write
from voicechat.realtime.events import (
    ConversationItemAdded,
    ConversationItemCreate,
    ConversationItemInputAudioTranscriptionCompleted,
    InputAudioBufferAppend,
    ResponseCreate,
    SessionCreated,
    SessionUpdated,
)
from voicechat.realtime.inputs import (
    Connected,
    DeadlineReached,
    Disconnected,
    Input,
    MicCaptured,
    PlaybackFinished,
    Received,
)
from voicechat.realtime.policy import Policy, rotation
from voicechat.transcript import Lost

QUIET = silence(20)


def live(lifetime: float | None = 1800, policy: Policy | None = None) -> Scene:
    """A conversation whose server ends it after so many seconds."""
    scene = Scene(policy=policy)
    session = {} if lifetime is None else {"expires_at": 1_800_000_000 + lifetime}
    scene.play(Connected(1, 1_800_000_000.0), SessionCreated(session), SessionUpdated())
    answered(scene)
    return scene


def to_second(*happened: object) -> list[Input]:
    return [Received(2, each) for each in happened]  # type: ignore[arg-type]


def prepared(scene: Scene) -> list[Effect]:
    """The second connection is open and knows the first turns."""
    return scene.play(
        Connected(2, 1_800_001_500.0),
        *to_second(SessionCreated({"expires_at": 1_800_003_300}), SessionUpdated()),
        *to_second(done("h0001"), done("h0002"), done("restored")),
    )


def test_it_begins_five_minutes_before_the_end_and_is_done_one_before_it() -> None:
    assert rotation(3600, None) == (3300, 3540)
    assert rotation(60, None) == (45, 54)
    assert rotation(None, 120) == (120, 150)
    assert rotation(None, 2) == (2, 12)
    assert rotation(1800, 1200) == (1200, 1260)
    assert rotation(None, None) is None


def test_in_a_silence_another_connection_takes_over_and_nothing_is_heard_or_said_of_it() -> None:
    scene = live()
    assert scene.conversation.deadline == 1500
    for _ in range(50):
        scene.on(MicCaptured(QUIET), sends(InputAudioBufferAppend(QUIET)))
    scene.at(1500).on(DeadlineReached(), Connect(2))
    scene.on(MicCaptured(QUIET), sends(InputAudioBufferAppend(QUIET)))
    effects = prepared(scene)
    assert [event.item["id"] for event in saying(effects, ConversationItemCreate)] == [  # type: ignore[attr-defined]
        "h0001",
        "h0002",
        "restored",
    ]
    assert effects[-1] == Close(1)
    assert not [effect for effect in effects if isinstance(effect, Notice | Write)]
    scene.on(MicCaptured(QUIET), sends(InputAudioBufferAppend(QUIET), 2))
    scene.on(Disconnected(1, GONE))
    assert scene.conversation.deadline == 1500 + 1500  # and so on


def test_it_waits_for_the_end_of_a_turn_and_its_answer_and_knows_them() -> None:
    scene = live()
    scene.at(1500).play(DeadlineReached())
    scene.play(user_starts("item_U"))
    assert Close(1) not in prepared(scene)
    scene.play(committed("item_U"))
    scene.play(ConversationItemInputAudioTranscriptionCompleted("item_U", 0, "More?"))
    scene.play(response_begins("resp_9"), words("item_A", "Yes.", "resp_9"))
    scene.play(ConversationItemAdded(item("item_A", "assistant"), "item_U"))
    scene.play(voice("item_A", 300, "resp_9"), response_ends("resp_9"))
    effects = scene.play(PlaybackFinished("item_A", 300))
    assert [e.item["content"][0]["text"] for e in saying(effects, ConversationItemCreate)] == [  # type: ignore[attr-defined]
        "More?",
        "Yes.",
    ]
    assert Close(1) not in effects  # not before the second one has confirmed them
    effects = scene.play(*to_second(done("h0004"), done("h0005")))
    assert effects == [Close(1)]


def test_a_loud_moment_is_not_the_moment_to_move() -> None:
    scene = live()
    scene.at(1500).play(DeadlineReached())
    scene.play(MicCaptured(frame(1)))
    assert Close(1) not in prepared(scene)
    for _ in range(29):
        scene.on(MicCaptured(QUIET), sends(InputAudioBufferAppend(QUIET)))
    scene.on(MicCaptured(QUIET), sends(InputAudioBufferAppend(QUIET)), Close(1))


def test_where_no_silence_comes_it_happens_all_the_same_and_the_sentence_is_said_whole() -> None:
    scene = live()
    scene.at(1490).play(user_starts("item_U", ms=0))
    before = speak(scene, 0, 30)
    scene.at(1500).play(DeadlineReached())
    assert not scene.conversation.handle(MicCaptured(QUIET), 1500)[1:]
    assert scene.at(1620).play(MicCaptured(frame(99)))[-1] == Connect(2)  # half way: no silence
    prepared(scene)
    effects = scene.at(1740).play(DeadlineReached())
    assert effects[0] == Close(1)
    assert sound(effects) == b"".join([*before, QUIET, frame(99)])
    assert {e.connection for e in effects if isinstance(e, Send)} == {2}
    scene.on(MicCaptured(frame(100)), sends(InputAudioBufferAppend(frame(100)), 2))
    assert not [effect for effect in effects if isinstance(effect, Notice | Write)]


def test_an_answer_that_is_heard_over_the_limit_goes_on_and_is_told_when_it_is_over() -> None:
    scene = live()
    scene.at(1600).play(response_begins("resp_9"), words("item_A", "On and on.", "resp_9"))
    scene.play(voice("item_A", 300_000, "resp_9"), response_ends("resp_9"))
    scene.at(1620).play(DeadlineReached())
    prepared(scene)
    effects = scene.at(1740).play(DeadlineReached())
    assert effects[0] == Close(1)
    assert StopPlayback() not in effects
    scene.connection = 2
    effects = scene.at(1900).play(PlaybackFinished("item_A", 300_000))
    [create] = saying(effects, ConversationItemCreate)
    assert create.item["content"] == [{"type": "output_text", "text": "On and on."}]  # type: ignore[attr-defined]
    assert scene.spoken[-1] == ("assistant", "On and on.", "complete")


def test_the_user_may_want_it_earlier() -> None:
    scene = live(policy=Policy(rotate_after=600))
    assert scene.conversation.deadline == 600
    assert live(None).conversation.deadline is None


def test_a_second_connection_that_fails_is_tried_again_while_the_first_serves() -> None:
    scene = live()
    scene.at(1500).play(DeadlineReached())
    for error in (GONE, AuthenticationError("no", remedy="Set another key.")):
        assert scene.play(Disconnected(2, error)) == []
        assert scene.conversation.link is Link.LIVE
    assert scene.conversation.deadline == 1500.25
    scene.at(1500.25).on(DeadlineReached(), Connect(3))


def test_a_first_connection_that_ends_meanwhile_is_replaced_by_the_second() -> None:
    scene = live()
    scene.at(1500).play(DeadlineReached(), Connected(2, None))
    scene.play(user_starts("item_U"))
    effects = scene.play(Disconnected(1, GONE))
    assert Write(Lost(reason=GONE.message)) in effects
    prepared(scene)
    assert scene.conversation.link is Link.LIVE
    scene.on(MicCaptured(QUIET), sends(InputAudioBufferAppend(QUIET), 2))


def test_a_question_that_stayed_without_an_answer_is_not_asked_again_by_moving() -> None:
    scene = live()
    scene.play(committed("V"), ConversationItemInputAudioTranscriptionCompleted("V", 0, "And?"))
    error = {"error": {"code": "content_policy", "message": "No."}}
    scene.play(response_begins("resp_9"), response_ends("resp_9", "failed", status_details=error))
    scene.at(1500).play(DeadlineReached())
    effects = prepared(scene) + scene.play(*to_second(done("h0003"), done("restored")))
    assert Close(1) in effects
    assert not saying(effects, ResponseCreate)
