"""The line is lost, and comes back."""

from typing import Any

import pytest

from tests.scene import (
    GONE,
    Scene,
    added,
    answered,
    come_back,
    come_back_after,
    committed,
    done,
    frame,
    lose,
    response_begins,
    response_ends,
    said,
    saying,
    sends,
    sound,
    speak,
    user_starts,
    voice,
    words,
)
from voicechat.errors import AuthenticationError, BusyError, ConnectError, ProtocolError
from voicechat.pcm import silence
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.conversation import Floor, Link
from voicechat.realtime.effects import (
    Close,
    Connect,
    Effect,
    EndPlayback,
    Finish,
    Notice,
    Send,
    StopPlayback,
    Write,
)
from voicechat.realtime.events import (
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemInputAudioTranscriptionCompleted,
    ConversationItemTruncate,
    Error,
    InputAudioBufferAppend,
    InputAudioBufferClear,
    InputAudioBufferCommit,
    InputAudioBufferCommitted,
    InputAudioBufferSpeechStopped,
    ResponseCreate,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
)
from voicechat.realtime.inputs import (
    Connected,
    DeadlineReached,
    Disconnected,
    MicCaptured,
    PlaybackFinished,
    PlaybackStopped,
    QuitRequested,
    Received,
    Silent,
    TalkKeyPressed,
    TextTyped,
    Woke,
)
from voicechat.realtime.policy import Policy
from voicechat.realtime.providers import OPENAI, ga_session
from voicechat.transcript import Back, Lost, Opened, Transcript

REFUSED = ConnectError("nothing answers", remedy="Check the network.")


def sent(effects: list[Effect], kind: Any) -> list[Any]:
    return saying(effects, kind)


def test_a_lost_line_is_noted_and_another_opened() -> None:
    scene = Scene.live()
    answered(scene)
    scene.on(
        Disconnected(1, GONE),
        Write(Lost(reason="it broke off (1006)")),
        Notice(
            "The line was lost: it broke off (1006). Trying again for up to 120 s. "
            "What you say meanwhile is kept."
        ),
    )
    assert scene.conversation.deadline == 0.25
    scene.at(0.25).on(DeadlineReached(), Connect(2))
    scene.connection = 2
    effects = scene.at(2.0).play(Connected(2), SessionCreated({}))
    assert sent(effects, SessionUpdate) == [
        SessionUpdate(ga_session(OPENAI, Configuration()), event_id="configure")
    ]
    assert [event.item["content"][0]["text"] for event in sent(effects, ConversationItemCreate)][
        :2
    ] == ["How are you?", "Fine."]
    scene.play(SessionUpdated(), done("h0001"), done("h0002"))
    scene.on(
        done("restored"),
        Write(Back(restored=2)),
        Notice("The line is back after 2 s: 2 turns restored."),
    )
    assert scene.conversation.link is Link.LIVE


@pytest.mark.parametrize("minutes", [0, 5])
def test_the_wait_between_attempts_grows_and_is_short_again_after_a_good_line(minutes: int) -> None:
    scene = Scene.live()
    scene.at(minutes * 60)
    lose(scene)
    waits = []
    for number in range(2, 9):
        assert scene.conversation.deadline is not None
        waits.append(scene.conversation.deadline - scene.now)
        scene.at(scene.conversation.deadline).on(DeadlineReached(), Connect(number))
        scene.play(Disconnected(number, REFUSED))
    assert waits == [0.25, 0.5, 1, 2, 4, 4, 4]


def test_giving_up_says_how_to_resume() -> None:
    scene = Scene(Transcript.of([Opened(session="7f3a9k")]), policy=Policy(reconnect_for=1.0))
    scene.play(Connected(1), SessionCreated({}), SessionUpdated())
    answered(scene)
    lose(scene)
    scene.at(0.25).play(DeadlineReached())
    effects = scene.at(1.0).play(DeadlineReached())
    finish = effects[-1]
    assert isinstance(finish, Finish)
    assert isinstance(finish.error, ConnectError)
    assert "was not back within 1 s: it broke off (1006)" in finish.error.message
    assert "Resume" in finish.error.remedy
    assert Close(2) in effects


def test_a_refused_key_ends_it_at_once_also_later() -> None:
    scene = Scene.live()
    lose(scene)
    scene.at(0.25).play(DeadlineReached())
    no = AuthenticationError("the server refused the API key", remedy="Set another.")
    assert Finish(no) in scene.play(Disconnected(2, no))


def test_a_server_that_is_busy_at_the_start_is_waited_for_and_one_that_is_not_there_is_not() -> (
    None
):
    scene = Scene()
    busy = BusyError("it cannot serve us now (HTTP 503)", remedy="Try again.")
    [notice] = scene.play(Disconnected(1, busy))
    assert "No line yet" in str(notice)
    scene.at(0.25).on(DeadlineReached(), Connect(2))
    scene.play(Disconnected(2, REFUSED))  # by now it is known to exist
    scene.at(1.0).on(DeadlineReached(), Connect(3))
    assert Finish(REFUSED) in Scene().play(Disconnected(1, REFUSED))


def test_a_captive_portal_on_the_way_is_waited_out_and_a_server_that_turns_us_away_is_not() -> None:
    scene = Scene.live()
    lose(scene)
    scene.at(0.25).play(DeadlineReached())
    portal = ProtocolError("it answered HTTP 302", remedy="Check --url.")
    assert not scene.play(Disconnected(2, portal))
    scene.at(1.0).play(DeadlineReached(), Connected(3))
    assert isinstance(scene.play(Disconnected(3, portal))[-1], Finish)


def test_after_a_sleep_the_conversation_goes_on_on_a_fresh_connection() -> None:
    scene = Scene.live()
    answered(scene)
    effects = scene.play(Woke(3600.0))
    assert Close(1) in effects
    assert any(
        "slept, or was stopped, for 3600 s" in each.text
        for each in effects
        if isinstance(each, Notice)
    )
    come_back(scene, "h0001", "h0002")
    assert scene.conversation.link is Link.LIVE


def test_a_sleep_before_the_first_connection_begins_that_one_anew() -> None:
    scene = Scene()
    assert Close(1) in scene.play(Woke(60.0))
    scene.at(scene.now + 5)
    assert Connect(2) in scene.play(DeadlineReached())


def test_who_wants_no_reconnecting_keeps_the_connection_after_a_sleep() -> None:
    scene = Scene.live(policy=Policy(reconnect_for=0))
    assert not scene.play(Woke(60.0))
    assert scene.conversation.link is Link.LIVE


def test_a_dead_line_is_given_up_sooner_when_somebody_may_be_talking() -> None:
    scene = Scene.live()
    scene.on(Silent(1, 7.0))
    effects = scene.play(Silent(1, 8.0))
    assert effects[0] == Close(1)
    assert scene.conversation.link is Link.LOST
    scene = Scene.live()
    scene.play(TextTyped("Hello"))  # a server that computes the answer may answer no ping
    scene.on(Silent(1, 19.0))
    assert Close(1) in scene.play(Silent(1, 20.0))


def test_a_server_that_says_it_is_over_is_believed() -> None:
    scene = Scene.live()
    effects = scene.play(Error({"code": "session_expired", "message": "60 minutes."}))
    assert effects[0] == Close(1)
    scene.on(Disconnected(1, GONE))  # too late to matter


# What the user says --------------------------------------------------------------------------


def test_an_utterance_that_the_drop_cut_in_two_is_said_again_whole() -> None:
    scene = Scene.live()
    quiet = [silence(20)] * 50
    for each in quiet:
        scene.at(scene.now + 0.02).play(MicCaptured(each))
    before = speak(scene, 0, 25)
    scene.play(user_starts("item_U", ms=1000))
    before += speak(scene, 25, 50)
    lose(scene)
    meanwhile = speak(scene, 50, 70)
    effects = come_back(scene)
    assert sound(effects) == b"".join(before + meanwhile)
    assert scene.conversation.floor is Floor.USER  # until the server has noticed
    after = frame(70)
    scene.on(MicCaptured(after), sends(InputAudioBufferAppend(after), 2))


def test_speech_that_the_server_had_not_announced_is_said_again_too() -> None:
    scene = Scene.live()
    for _ in range(100):
        scene.at(scene.now + 0.02).play(MicCaptured(silence(20)))
    begun = speak(scene, 0, 5)
    lose(scene)
    assert sound(come_back(scene)).endswith(b"".join(begun))


def test_silence_is_not_said_again() -> None:
    scene = Scene.live()
    for _ in range(100):
        scene.at(scene.now + 0.02).play(MicCaptured(silence(20)))
    lose(scene)
    for _ in range(100):
        scene.at(scene.now + 0.002).play(MicCaptured(silence(20)))
    assert sound(come_back(scene)) == b""


def test_what_was_answered_is_not_said_again() -> None:
    scene = Scene.live()
    scene.play(user_starts("U How are you?", ms=0))
    speak(scene, 0, 30)
    answered(scene)
    lose(scene)
    assert sound(come_back(scene, "h0001", "h0002")) == b""


def test_of_a_long_time_without_a_line_the_last_half_minute_is_kept_and_the_user_is_told() -> None:
    scene = Scene.live()
    lose(scene)
    notices = []
    for number in range(2000):
        scene.now += 0.0001
        notices += scene.play(MicCaptured(frame(number, 9000 if number % 20 else 50)))
    assert notices == [
        Notice("The line is down for long: only the last 30 s that you say are kept.")
    ]
    kept = [frame(number, 9000 if number % 20 else 50) for number in range(500, 2000)]
    assert sound(come_back(scene)) == b"".join(kept)


def test_pauses_take_no_room_from_what_is_said() -> None:
    scene = Scene.live()
    lose(scene)
    for number in range(100):
        scene.play(MicCaptured(frame(number)))
    for _ in range(3000):
        scene.play(MicCaptured(silence(20)))
    for number in range(100, 200):
        scene.play(MicCaptured(frame(number)))
    heard = sound(come_back(scene))
    assert heard.startswith(b"".join(frame(number) for number in range(100)))
    assert heard.endswith(b"".join(frame(number) for number in range(100, 200)))


def test_a_turn_without_words_is_said_again_in_its_place_and_gets_its_words() -> None:
    scene = Scene.live()
    answered(scene)
    scene.play(user_starts("item_U", ms=0))
    heard = speak(scene, 0, 20)
    scene.play(committed("item_U"), response_begins("resp_2"))
    scene.play(words("item_B", "Well, I", "resp_2"), voice("item_B", 500, "resp_2"))
    lose(scene)
    scene.play(PlaybackFinished("item_B", 500))
    scene.at(scene.now + 0.25).play(DeadlineReached())
    scene.connection = 2
    effects = scene.play(Connected(2), SessionCreated({}))
    kinds = [type(e.event) for e in effects if hasattr(e, "event")]
    assert kinds == [
        SessionUpdate,
        ConversationItemCreate,
        ConversationItemCreate,
        InputAudioBufferAppend,
        InputAudioBufferCommit,
        ConversationItemCreate,
        ConversationItemCreate,
        SessionUpdate,
    ]
    deaf, hearing = sent(effects, SessionUpdate)
    assert deaf.session["audio"]["input"]["turn_detection"] is None
    assert hearing.session == ga_session(OPENAI, Configuration())
    assert sound(effects) == b"".join(heard)
    scene.play(SessionUpdated(), done("h0001"), done("h0002"))
    scene.play(InputAudioBufferCommitted("item_U", "h0002"), done("item_U"), done("h0004"))
    scene.play(done("restored"))
    assert any(isinstance(each, Write) for each in scene.play(SessionUpdated()))  # it is back
    scene.play(ConversationItemInputAudioTranscriptionCompleted("item_U", 0, "And you?"))
    assert scene.spoken == [
        ("user", "How are you?", "complete"),
        ("assistant", "Fine.", "complete"),
        ("user", "And you?", "complete"),
        ("assistant", "Well, I", "interrupted"),
    ]


def test_the_last_turn_that_nobody_answered_is_asked_about() -> None:
    scene = Scene.live()
    scene.play(user_starts("item_U", ms=0))
    speak(scene, 0, 20)
    scene.play(committed("item_U"))
    lose(scene)
    scene.at(scene.now + 0.25).play(DeadlineReached())
    scene.connection = 2
    scene.play(Connected(2), SessionCreated({}), SessionUpdated(), SessionUpdated())
    scene.play(InputAudioBufferCommitted("item_1"))
    effects = scene.play(done("restored"))
    assert sent(effects, ResponseCreate) == [ResponseCreate(event_id="respond")]


def test_words_that_come_before_all_is_restored_are_taken() -> None:
    scene = Scene.live()
    scene.play(user_starts("item_U", ms=0))
    speak(scene, 0, 20)
    scene.play(committed("item_U"))
    lose(scene)
    scene.at(scene.now + 0.25).play(DeadlineReached())
    scene.connection = 2
    scene.play(Connected(2), SessionCreated({}), SessionUpdated())
    scene.play(ConversationItemInputAudioTranscriptionCompleted("item_1", 0, "Well?"))
    assert scene.spoken == [("user", "Well?", "complete")]
    scene.play(SessionUpdated(), done("restored"))
    assert scene.conversation.link is Link.LIVE
    lose(scene)  # once more: it is in words by now, and need not be said again
    assert sound(come_back_after(scene, 0.5, "h0001")) == b""


def test_a_typed_turn_that_was_lost_on_the_way_is_not_lost() -> None:
    scene = Scene.live()
    scene.play(TextTyped("Hello?"))
    lose(scene)
    effects = come_back(scene, "h0001")
    assert sent(effects, ResponseCreate)
    assert scene.spoken == [("user", "Hello?", "complete")]


def test_what_is_typed_while_the_line_is_down_is_sent_when_it_is_back() -> None:
    scene = Scene.live()
    lose(scene)
    scene.on(TextTyped("Hello?"))
    effects = come_back(scene)
    assert [e.item["content"][0]["text"] for e in sent(effects, ConversationItemCreate)] == [
        "Hello?"
    ]
    assert len(sent(effects, ResponseCreate)) == 1


@pytest.mark.parametrize("before", [(), ("Before",)])
def test_several_turns_that_are_typed_without_a_line_stay_in_order(before: tuple[str, ...]) -> None:
    scene = Scene.live()
    for number, text in enumerate(before, 1):
        scene.play(TextTyped(text), added(f"text_{number:04}", "user", None))
    lose(scene)
    for text in ("One", "Two", "Three"):
        scene.on(TextTyped(text))
    come_back(scene, *["h0001"] * len(before))
    previous = "restored" if before else None
    for number in range(len(before) + 1, len(before) + 4):
        scene.play(added(f"text_{number:04}", "user", previous))
        previous = f"text_{number:04}"
    assert [text for _, text, _ in scene.spoken] == [*before, "One", "Two", "Three"]


def test_turns_have_the_times_at_which_they_were_said_and_typed() -> None:
    scene = Scene.live()
    lose(scene)
    scene.at(3.0).play(TextTyped("Typed"))
    speak(scene.at(5.0), 0, 20)
    for _ in range(100):  # longer than what is kept of a pause
        scene.at(scene.now + 0.02).play(MicCaptured(silence(20)))
    speak(scene.at(20.0), 0, 20)
    come_back(scene)
    scene.play(user_starts("item_1", 0), InputAudioBufferSpeechStopped("item_1", 400))
    scene.play(committed("item_1"), user_starts("item_2", 1700))
    scene.play(InputAudioBufferSpeechStopped("item_2", 2100), committed("item_2", "item_1"))
    starts = {turn.item_id: turn.start_ms / 1000 for turn in scene.conversation.transcript.turns}
    assert starts["text_0001"] == 3.0
    assert starts["item_1"] == pytest.approx(5.0, abs=0.05)
    assert starts["item_2"] == pytest.approx(20.0, abs=0.5)


def test_what_no_server_got_has_its_time() -> None:
    scene = Scene.live(policy=Policy(reconnect_for=30.0))
    lose(scene)
    speak(scene.at(5.0), 0, 20)
    scene.at(7.0).play(TextTyped("Typed"))
    scene.at(9.0).play(QuitRequested())
    speech, typed = scene.conversation.transcript.turns
    assert speech.start_ms == pytest.approx(5020, abs=20)
    assert speech.end_ms == 5400
    assert (typed.start_ms, typed.end_ms) == (7000, 7000)


@pytest.mark.parametrize("is_typed_first", [True, False])
def test_what_was_typed_and_said_without_a_line_is_sent_in_that_order(is_typed_first: bool) -> None:
    scene = Scene.live()
    lose(scene)
    if is_typed_first:
        scene.play(TextTyped("Hello?"))
    speak(scene, 0, 20)
    if not is_typed_first:
        scene.play(TextTyped("Hello?"))
    effects = come_back(scene)
    kinds = [type(effect.event) for effect in effects if isinstance(effect, Send)]
    assert is_typed_first == (
        kinds.index(ConversationItemCreate) < kinds.index(InputAudioBufferAppend)
    )


def test_speech_that_no_server_got_is_noted_when_it_is_given_up() -> None:
    scene = Scene.live(policy=Policy(reconnect_for=1.0))
    lose(scene)
    speak(scene, 0, 20)
    effects = scene.at(1.0).play(DeadlineReached())
    assert any("not put into words" in str(effect) for effect in effects)
    assert scene.spoken == [("user", "", "untranscribed")]


def test_hanging_up_without_a_line_is_immediate_and_loses_nothing_that_was_typed() -> None:
    scene = Scene.live()
    lose(scene)
    scene.play(TextTyped("Remember the milk."))
    assert isinstance(scene.play(QuitRequested())[-1], Finish)
    assert scene.spoken == [("user", "Remember the milk.", "complete")]


def test_noise_that_was_taken_for_speech_hides_no_speech_that_comes_later() -> None:
    scene = Scene.live()
    speak(scene, 0, 10)
    scene.play(user_starts("noise", ms=0), InputAudioBufferSpeechStopped("noise", 200))
    for _ in range(400):
        scene.at(scene.now + 0.02).play(MicCaptured(silence(20)), DeadlineReached())
    begun = speak(scene, 10, 20)
    lose(scene)
    heard = sound(come_back(scene))
    assert heard.endswith(b"".join(begun))
    assert frame(9) not in heard


# With the talk key ---------------------------------------------------------------------------


def test_a_turn_with_the_talk_key_goes_on_over_a_lost_line() -> None:
    scene = Scene.live(vad="none")
    scene.play(TalkKeyPressed())
    frames = speak(scene, 0, 20)
    lose(scene)
    frames += speak(scene, 20, 30)
    effects = come_back(scene)
    frames += [frame(30)]
    effects += scene.play(MicCaptured(frame(30)))
    assert sound(effects) == b"".join(frames)
    effects = scene.play(TalkKeyPressed())
    assert sent(effects, InputAudioBufferCommit)
    assert sent(effects, ResponseCreate)


@pytest.mark.parametrize("is_lost_first", [True, False])
def test_a_turn_that_ended_without_a_line_is_said_when_there_is_one(is_lost_first: bool) -> None:
    scene = Scene.live(vad="none")
    scene.play(TalkKeyPressed())
    frames = speak(scene, 0, 20)
    for each in (lose, release) if is_lost_first else (release, lose):
        each(scene)
    scene.at(scene.now + 0.25).play(DeadlineReached())
    scene.connection = 2
    effects = scene.play(Connected(2), SessionCreated({}), SessionUpdated())
    assert sound(effects) == b"".join(frames)
    assert sent(effects, InputAudioBufferCommit)
    effects = scene.play(InputAudioBufferCommitted("item_1"), done("restored"))
    assert sent(effects, ResponseCreate)
    scene.play(ConversationItemInputAudioTranscriptionCompleted("item_1", 0, "Hello."))
    assert scene.spoken == [("user", "Hello.", "complete")]


def release(scene: Scene) -> list[Effect]:
    return scene.play(TalkKeyPressed())


def test_a_long_turn_with_the_talk_key_is_said_whole_however_often_the_line_is_lost() -> None:
    scene = Scene.live(vad="none")
    scene.play(TalkKeyPressed())
    frames = speak(scene, 0, 50)
    lose(scene)
    come_back(scene)
    frames += speak(scene, 50, 1000)
    lose(scene)
    assert sound(come_back_after(scene, 0.5)) == b"".join(frames)


def test_a_turn_with_the_talk_key_is_told_from_the_next_before_the_server_has_it() -> None:
    scene = Scene.live(vad="none")
    turns = []
    for first in (0, 50):
        scene.play(TalkKeyPressed())
        turns.append(b"".join(speak(scene, first, first + 50)))
        scene.play(TalkKeyPressed())
    scene.play(committed("item_A"))
    lose(scene)
    scene.at(scene.now + 0.25).play(DeadlineReached())
    scene.connection = 2
    effects = scene.play(Connected(2), SessionCreated({}))
    assert sound(effects) == b"".join(turns)
    assert len(sent(effects, InputAudioBufferCommit)) == 2


def test_pressing_the_key_without_a_line_interrupts_the_answer_that_is_heard() -> None:
    scene = Scene.live(vad="none")
    scene.play(response_begins(), words("item_A", "One two"), voice("item_A", 1000))
    lose(scene)
    scene.on(TalkKeyPressed(), StopPlayback())
    effects = scene.play(PlaybackStopped((("item_A", 500),)))
    assert not sent(effects, InputAudioBufferClear)
    assert [(r.text, r.status) for r in said(effects)] == [("One", "interrupted")]


# Answers -------------------------------------------------------------------------------------


def test_an_answer_that_was_received_goes_on_and_its_heard_part_is_told_when_it_is_over() -> None:
    scene = Scene.live()
    answered(scene, reply="Yes.")
    scene.play(response_begins("resp_2"))
    scene.play(words("item_B", "One two", "resp_2"), voice("item_B", 1000, "resp_2"))
    effects = lose(scene)
    assert EndPlayback("item_B") in effects
    assert StopPlayback() not in effects
    come_back(scene, "h0001", "h0002")
    assert scene.conversation.link is Link.LIVE
    effects = scene.play(PlaybackFinished("item_B", 1000))
    [create] = sent(effects, ConversationItemCreate)
    assert create.item["content"] == [{"type": "output_text", "text": "One two"}]
    assert create.previous_item_id == "h0002"
    assert scene.spoken[-1] == ("assistant", "One two", "interrupted")


def test_such_an_answer_can_be_interrupted_on_the_new_line() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_A", "One two three four"), voice("item_A", 1000))
    lose(scene)
    come_back(scene)
    scene.on(user_starts("item_V"), StopPlayback())
    effects = scene.play(PlaybackStopped((("item_A", 500),)))
    assert not sent(effects, ConversationItemTruncate)
    assert not sent(effects, ConversationItemDelete)
    [create] = sent(effects, ConversationItemCreate)
    assert create.item["content"] == [{"type": "output_text", "text": "One two"}]
    assert create.previous_item_id == "root"


def test_an_answer_of_which_nothing_had_come_is_asked_for_again() -> None:
    scene = Scene.live()
    scene.play(committed("U"), ConversationItemInputAudioTranscriptionCompleted("U", 0, "Well?"))
    scene.play(response_begins(), words("item_A", "I thi"))
    lose(scene)
    effects = come_back(scene, "h0001")
    assert sent(effects, ResponseCreate) == [ResponseCreate(event_id="respond")]
    assert scene.spoken == [("user", "Well?", "complete")]


def test_a_response_id_that_comes_again_on_another_line_is_another_response() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_1", "One"), voice("item_1", 500), user_starts())
    scene.play(PlaybackStopped((("item_1", 0),)))
    lose(scene)
    come_back(scene)
    scene.play(response_begins(), words("item_1", "Two"), voice("item_1", 500), response_ends())
    scene.play(PlaybackFinished("item_1.1", 500))
    assert scene.spoken == [("assistant", "Two", "complete")]


def test_the_next_line_may_be_lost_as_well() -> None:
    scene = Scene.live()
    answered(scene)
    lose(scene)
    scene.at(0.25).play(DeadlineReached(), Connected(2), Received(2, SessionCreated({})))
    assert scene.play(Disconnected(2, GONE)) == []  # in the middle of the replay: nothing to say
    assert scene.conversation.deadline == 0.75
    scene.connection = 2
    effects = come_back_after(scene, 0.5, "h0001", "h0002")
    assert Notice("The line is back after 1 s: 2 turns restored.") in effects
