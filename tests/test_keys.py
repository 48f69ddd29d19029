"""What keys do to the conversation: interrupt, repeat, hold to talk."""

from tests.scene import (
    Scene,
    answered,
    come_back,
    committed,
    frame,
    lose,
    response_begins,
    response_ends,
    said,
    saying,
    sends,
    speak,
    user_starts,
    voice,
    words,
)
from tests.test_full_disk import FULL, KEYBOARD
from voicechat.pcm import silence
from voicechat.realtime.conversation import Floor
from voicechat.realtime.effects import Effect, EndPlayback, Notice, Play, StopPlayback
from voicechat.realtime.events import (
    ConversationItemCreate,
    ConversationItemInputAudioTranscriptionCompleted,
    ConversationItemTruncate,
    Event,
    InputAudioBufferCommit,
    ResponseCancel,
    ResponseCreate,
)
from voicechat.realtime.inputs import (
    Input,
    Interrupted,
    MicCaptured,
    PlaybackFinished,
    PlaybackStopped,
    QuitRequested,
    RepeatRequested,
    SavingFailed,
    TalkKeyPressed,
    TalkKeyReleased,
    TextTyped,
)
from voicechat.transcript import Said

NOTHING = Notice("There is no answer to repeat.")
LATER = Notice("An answer is repeated when it is over.")


def again(number: int, ms: int = 300) -> tuple[Effect, Effect]:
    return Play(f"again-{number}", silence(ms)), EndPlayback(f"again-{number}")


# Interrupting -----------------------------------------------------------------------------------


def test_an_interruption_stops_the_answer_and_says_nothing_instead() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_1", "The quick brown fox jumps"))
    scene.play(voice("item_1", ms=2000))
    scene.on(Interrupted(), StopPlayback())
    effects = scene.play(PlaybackStopped((("item_1", 800),)))
    assert saying(effects, ConversationItemTruncate) == [
        ConversationItemTruncate("item_1", 0, 800, event_id="truncate")
    ]
    assert effects[-1] == sends(ResponseCancel())
    assert scene.play(response_ends(status="cancelled")) == []
    assert scene.spoken == [("assistant", "The quick", "interrupted")]
    assert scene.conversation.floor is Floor.OPEN


def test_an_answer_that_is_only_played_on_is_cut_and_not_cancelled() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_1", "One two"), voice("item_1", ms=1000))
    scene.play(response_ends())
    scene.on(Interrupted(), StopPlayback())
    effects = scene.play(PlaybackStopped((("item_1", 500),)))
    assert not saying(effects, ResponseCancel)
    assert scene.spoken == [("assistant", "One", "interrupted")]


def test_an_answer_that_has_not_begun_is_cancelled_when_it_begins() -> None:
    scene = Scene.live()
    scene.play(user_starts(), committed("item_U"))
    scene.on(Interrupted())
    assert scene.conversation.floor is Floor.OPEN
    scene.on(response_begins(), sends(ResponseCancel()))
    assert scene.play(words("item_1", "Well"), voice("item_1", 500)) == []
    scene.play(response_ends(status="cancelled"))
    scene.play(user_starts("item_V"), committed("item_V", "item_U"))  # the next is heard again
    scene.play(response_begins("resp_2"))
    scene.on(voice("item_2", 300, "resp_2"), Play("item_2", silence(300)))


def test_the_next_turn_is_answered_however_it_comes() -> None:
    turns: dict[str, tuple[Input | Event, ...]] = {
        "only begun": (user_starts("item_V"),),
        "only ended": (committed("item_V"),),
        "typed": (TextTyped("And now?"),),
        "with the talk key": (TalkKeyPressed(), *[MicCaptured(frame(n)) for n in range(30)]),
    }
    for name, turn in turns.items():
        scene = Scene.live(vad="none" if "key" in name else "server")
        scene.play(response_begins(), words("item_1", "On"), voice("item_1", 500), Interrupted())
        scene.play(PlaybackStopped((("item_1", 0),)), response_ends(status="cancelled"))
        scene.play(*turn, *[TalkKeyPressed()] * ("key" in name), response_begins("resp_2"))
        scene.on(voice("item_2", 300, "resp_2"), Play("item_2", silence(300)))


def test_an_answer_that_nobody_wants_is_not_asked_for_again_when_the_line_is_back() -> None:
    def asked_again(*happened: Interrupted) -> bool:
        scene = Scene.live()
        scene.play(
            committed("U"),
            ConversationItemInputAudioTranscriptionCompleted("U", 0, "Well?"),
            response_begins(),
            *happened,
        )
        lose(scene)
        return bool(saying(come_back(scene, "h0001"), ResponseCreate))

    assert asked_again()
    assert not asked_again(Interrupted())


def test_an_interruption_of_nothing_does_nothing() -> None:
    scene = Scene.live()
    scene.on(Interrupted())
    answered(scene)
    scene.on(Interrupted())
    scene.play(user_starts())
    scene.on(Interrupted())
    scene.play(committed("item_U"))
    scene.play(response_begins("resp_2"))
    scene.on(voice("item_2", 300, "resp_2"), Play("item_2", silence(300)))
    assert Scene().play(Interrupted()) == []


def test_an_answer_can_be_interrupted_while_the_user_is_asked_about_a_full_disk() -> None:
    scene = Scene.live(KEYBOARD)
    scene.play(response_begins(), words("item_1", "On and on"), voice("item_1", 1000))
    scene.play(SavingFailed(FULL))
    scene.on(Interrupted(), StopPlayback())


# Repeating --------------------------------------------------------------------------------------


def test_the_last_answer_is_played_again_and_nobody_has_said_it_again() -> None:
    scene = Scene.live()
    answered(scene)
    before = scene.spoken
    scene.on(RepeatRequested(), *again(1))
    scene.on(PlaybackFinished("again-1", 300))
    scene.on(RepeatRequested(), *again(2))
    scene.on(RepeatRequested(), StopPlayback(), *again(3))  # from the beginning
    scene.on(PlaybackStopped((("again-2", 100),)))
    assert scene.spoken == before


def test_all_parts_of_the_last_answer_are_repeated_and_none_of_the_one_before() -> None:
    scene = Scene.live()
    answered(scene)
    scene.play(response_begins("resp_2"), words("item_1", "Hm.", "resp_2"))
    scene.play(voice("item_1", 200, "resp_2"), voice("item_2", 500, "resp_2"))
    scene.play(response_ends("resp_2"), PlaybackFinished("item_1", 200))
    scene.play(PlaybackFinished("item_2", 500))
    scene.on(RepeatRequested(), *again(1, 700))


def test_an_interrupted_answer_is_repeated_as_far_as_it_was_received() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_1", "One two"), voice("item_1", ms=1000))
    scene.play(Interrupted(), PlaybackStopped((("item_1", 500),)))
    scene.play(voice("item_1", ms=1000), response_ends(status="cancelled"))
    scene.on(RepeatRequested(), *again(1, 1000))
    scene.play(PlaybackFinished("again-1", 1000))
    assert scene.spoken == [("assistant", "One", "interrupted")]


def test_an_answer_of_which_nothing_came_does_not_replace_the_last_one() -> None:
    scene = Scene.live()
    answered(scene)
    scene.play(response_begins("resp_2"), Interrupted(), PlaybackStopped(()))
    scene.play(response_ends("resp_2", status="cancelled"))
    scene.on(RepeatRequested(), *again(1))


def test_speech_and_typing_and_interruption_stop_the_repetition_and_cut_nothing() -> None:
    for happened in (user_starts("item_V"), TextTyped("Stop."), Interrupted()):
        scene = Scene.live()
        answered(scene)
        scene.play(RepeatRequested())
        effects = scene.play(happened)
        assert effects[0] == StopPlayback()
        assert bool(saying(effects, ConversationItemCreate)) == (happened == TextTyped("Stop."))
        assert scene.play(PlaybackStopped((("again-1", 100),))) == []


def test_the_talk_key_stops_the_repetition() -> None:
    scene = Scene.live(vad="none")
    answered(scene)
    scene.play(RepeatRequested())
    assert StopPlayback() in scene.play(TalkKeyPressed())
    scene.on(RepeatRequested())  # and nothing is played into what they say


def test_an_answer_that_begins_meanwhile_is_not_mistaken_for_the_repetition() -> None:
    scene = Scene.live()
    answered(scene)
    scene.play(RepeatRequested())
    scene.on(response_begins("resp_2"), StopPlayback())
    scene.play(words("item_2", "One two", "resp_2"), voice("item_2", 1000, "resp_2"))
    scene.play(response_ends("resp_2"))
    scene.on(TextTyped("Stop."), StopPlayback())
    scene.on(PlaybackStopped((("again-1", 100),)))
    [cut] = said(scene.play(PlaybackStopped((("item_2", 500),))))[:1]
    assert isinstance(cut, Said)
    assert (cut.text, cut.status) == ("One", "interrupted")


def test_while_an_answer_comes_it_is_not_repeated() -> None:
    scene = Scene.live()
    scene.on(RepeatRequested(), NOTHING)
    scene.play(response_begins())
    scene.on(RepeatRequested(), LATER)
    scene.play(words("item_1", "One two"), voice("item_1", ms=1000))
    scene.on(RepeatRequested(), LATER)
    scene.play(Interrupted())
    scene.on(RepeatRequested(), LATER)


def test_nothing_is_repeated_while_the_speaker_is_being_stopped() -> None:
    scene = Scene.live()
    answered(scene)
    scene.play(response_begins("resp_2"))
    scene.on(Interrupted(), StopPlayback())
    scene.play(response_ends("resp_2", status="cancelled"))
    scene.on(RepeatRequested(), LATER)
    scene.play(PlaybackStopped(()))
    scene.on(RepeatRequested(), *again(1))


def test_the_last_answer_can_be_repeated_while_there_is_no_line() -> None:
    scene = Scene.live()
    answered(scene)
    lose(scene)
    scene.on(RepeatRequested(), *again(1))


def test_nothing_is_repeated_to_who_hangs_up() -> None:
    scene = Scene.live()
    answered(scene)
    scene.play(RepeatRequested())
    scene.play(committed("item_U"))
    assert scene.play(QuitRequested())[0] == StopPlayback()
    scene.on(RepeatRequested())


# Holding the talk key ---------------------------------------------------------------------------


def test_a_turn_lasts_as_long_as_the_talk_key_is_held() -> None:
    scene = Scene.live(vad="none")
    scene.play(TalkKeyPressed())
    speak(scene, 1, 30)
    effects = scene.play(TalkKeyReleased())
    assert saying(effects, InputAudioBufferCommit)
    assert saying(effects, ResponseCreate)
    assert scene.conversation.floor is Floor.THINKING


def test_a_key_that_was_not_pressed_here_is_let_go_in_vain() -> None:
    scene = Scene.live(vad="none")
    scene.on(TalkKeyReleased())
    scene.play(TalkKeyPressed())
    speak(scene, 1, 30)
    scene.play(TalkKeyPressed())  # a toggle
    scene.on(TalkKeyReleased())
    assert Scene.live().play(TalkKeyPressed(), TalkKeyReleased()) == []


def test_a_turn_that_a_full_disk_cuts_in_two_ends_with_the_key() -> None:
    scene = Scene.live(KEYBOARD, vad="none")
    scene.play(TalkKeyPressed())
    speak(scene, 1, 30)
    scene.play(SavingFailed(FULL))
    assert saying(scene.play(TalkKeyReleased()), InputAudioBufferCommit)
