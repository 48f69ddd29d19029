"""The server writes where it should speak."""

from tests.scene import (
    GONE,
    Scene,
    added,
    committed,
    done,
    response_begins,
    response_ends,
    saying,
    user_starts,
    voice,
    words,
)
from voicechat.errors import BusyError
from voicechat.realtime.conversation import Floor, Link
from voicechat.realtime.effects import Close, Connect, Effect, Notice, Play
from voicechat.realtime.events import (
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemInputAudioTranscriptionCompleted,
    Event,
    ResponseCreate,
    ResponseOutputAudioTranscriptDone,
    ResponseOutputItemDone,
    ResponseOutputTextDelta,
    ResponseOutputTextDone,
    SessionCreated,
    SessionUpdated,
)
from voicechat.realtime.inputs import Connected, DeadlineReached, Disconnected, PlaybackFinished

SPEAK = ResponseCreate({"output_modalities": ["audio"]}, event_id="respond")


def writes(item_id: str, text: str, response_id: str) -> list[Event]:
    return [
        ResponseOutputTextDelta(item_id, text[:3], response_id),
        ResponseOutputTextDelta(item_id, text[3:], response_id),
        ResponseOutputTextDone(item_id, text, response_id),
        ResponseOutputItemDone(
            {"id": item_id, "type": "message", "role": "assistant", "status": "completed"},
            response_id,
        ),
    ]


def answer_in_writing(scene: Scene, number: int, text: str = "Fine.") -> list[Effect]:
    response_id = f"resp_{number}"
    scene.play(response_begins(response_id), *writes(f"item_{number}", text, response_id))
    return scene.play(response_ends(response_id))


def asked() -> Scene:
    scene = Scene.live()
    scene.play(committed("U"), ConversationItemInputAudioTranscriptionCompleted("U", 0, "Well?"))
    return scene


def packed(scene: Scene) -> list[Effect]:
    """The fresh connection is there, and has taken the history."""
    scene.connection += 1
    effects = scene.play(Connected(scene.connection), SessionCreated({}), SessionUpdated())
    return effects + scene.play(done("history"), done("restored"))


def test_it_is_noticed_with_the_first_word() -> None:
    scene = asked()
    scene.play(response_begins())
    first, *rest = writes("item_1", "Fine. Really.", "resp_1")
    scene.on(first, Notice("The answer comes in writing."))
    assert not [effect for effect in scene.play(*rest) if isinstance(effect, Notice)]


def test_words_that_are_never_spoken_are_an_answer_in_writing() -> None:
    scene = asked()
    scene.play(response_begins(), words("item_1", "I am fine."))
    whole = {"id": "item_1", "type": "message", "role": "assistant", "status": "completed"}
    assert not scene.play(ResponseOutputItemDone(whole, "resp_1"))  # the sound may come behind it
    effects = scene.play(response_ends())
    assert Notice("The answer comes in writing.") in effects
    assert saying(effects, ResponseCreate) == [SPEAK]
    assert scene.spoken[-1] == ("assistant", "I am fine.", "written")


def test_sound_that_comes_behind_the_item_is_heard() -> None:
    scene = asked()
    scene.play(response_begins(), words("item_1", "I am fine."))
    whole = {"id": "item_1", "type": "message", "role": "assistant", "status": "completed"}
    scene.play(ResponseOutputItemDone(whole, "resp_1"))
    scene.on(voice("item_1", 500), Play("item_1", bytes(48 * 500)))
    scene.play(response_ends(), PlaybackFinished("item_1", 500))
    assert scene.spoken[-1] == ("assistant", "I am fine.", "complete")


def test_words_whose_sound_a_lost_line_took_do_not_stand_as_writing() -> None:
    scene = asked()
    scene.play(response_begins(), words("item_1", "I am fine."))
    scene.play(ResponseOutputAudioTranscriptDone("item_1", "I am fine.", "resp_1"))
    scene.play(Disconnected(1, GONE))
    assert ("assistant", "I am fine.", "complete") not in scene.spoken
    scene.at(0.25).play(DeadlineReached())
    scene.connection = 2
    effects = scene.play(Connected(2), SessionCreated({}), SessionUpdated())
    effects += scene.play(done("h0001"), done("restored"))
    assert saying(effects, ResponseCreate)  # the question is asked again


def test_it_is_shown_and_saved_and_asked_for_again_as_speech() -> None:
    scene = asked()
    effects = answer_in_writing(scene, 1)
    assert saying(effects, ConversationItemDelete) == [
        ConversationItemDelete("item_1", event_id="forget")
    ]
    assert saying(effects, ResponseCreate) == [SPEAK]
    assert any(isinstance(effect, Notice) for effect in effects)
    assert scene.spoken == [("user", "Well?", "complete"), ("assistant", "Fine.", "written")]
    scene.play(response_begins("resp_2"), words("item_2", "I am fine.", "resp_2"))
    scene.play(voice("item_2", 500, "resp_2"), response_ends("resp_2"))
    scene.play(PlaybackFinished("item_2", 500))
    assert scene.spoken[1:] == [
        ("assistant", "Fine.", "written"),
        ("assistant", "I am fine.", "complete"),
    ]
    restorable = scene.conversation.transcript.restorable
    assert [turn.text for turn in restorable] == ["Well?", "I am fine."]


def test_the_second_time_the_history_is_packed_into_one_message_on_a_fresh_connection() -> None:
    scene = asked()
    answer_in_writing(scene, 1)
    effects = answer_in_writing(scene, 2, "Fine, thanks.")
    assert Connect(2) in effects
    assert not saying(effects, ResponseCreate)
    assert scene.conversation.floor is Floor.THINKING
    assert scene.conversation.link is Link.LIVE  # the old one still serves
    effects = packed(scene)
    [history, _] = saying(effects, ConversationItemCreate)
    assert isinstance(history, ConversationItemCreate)
    assert history.item["role"] == "user"
    assert history.item["content"] == [
        {"type": "input_text", "text": "This was said so far:\nUser: Well?"}
    ]
    assert Close(1) in effects
    assert saying(effects, ResponseCreate) == [SPEAK]
    scene.play(response_begins("resp_3"))
    assert Play("item_3", bytes(48 * 500)) in scene.play(voice("item_3", 500, "resp_3"))


def test_if_it_is_written_all_the_same_the_user_is_told_and_the_text_stands() -> None:
    scene = asked()
    answer_in_writing(scene, 1)
    answer_in_writing(scene, 2)
    packed(scene)
    effects = answer_in_writing(scene, 3, "Fine indeed.")
    assert not saying(effects, ResponseCreate)
    assert not saying(effects, ConversationItemDelete)
    assert any("writes" in str(effect) for effect in effects if isinstance(effect, Notice))
    assert scene.spoken[-1] == ("assistant", "Fine indeed.", "complete")
    assert scene.conversation.is_idle
    scene.play(committed("V"), ConversationItemInputAudioTranscriptionCompleted("V", 0, "And?"))
    assert not [e for e in answer_in_writing(scene, 4) if isinstance(e, Notice)]  # said once


def test_the_text_stands_if_no_speech_comes_in_its_place() -> None:
    scene = asked()
    answer_in_writing(scene, 1)
    scene.play(response_begins("resp_2"))
    effects = scene.play(
        response_ends("resp_2", "failed", status_details={"error": {"code": "x", "message": "No."}})
    )
    assert scene.spoken == [("user", "Well?", "complete"), ("assistant", "Fine.", "complete")]
    [create] = saying(effects, ConversationItemCreate)  # it was deleted: the server must know it
    assert isinstance(create, ConversationItemCreate)
    assert create.item["content"] == [{"type": "output_text", "text": "Fine."}]
    assert create.previous_item_id == "U"


def test_the_text_stands_if_the_user_goes_on() -> None:
    scene = asked()
    answer_in_writing(scene, 1)
    scene.play(user_starts("V"))
    assert scene.spoken[-1] == ("assistant", "Fine.", "complete")


def test_the_text_stands_if_no_other_connection_can_be_had() -> None:
    scene = asked()
    answer_in_writing(scene, 1)
    answer_in_writing(scene, 2)
    gone = BusyError("it broke off", remedy="Try again.")
    scene.at(1.0).play(Disconnected(2, gone))
    assert Connect(3) in scene.at(2.0).play(DeadlineReached())
    effects = scene.at(40.0).play(DeadlineReached())
    assert Close(3) in effects
    assert [status for _, _, status in scene.spoken] == ["complete"] * 3
    assert scene.conversation.link is Link.LIVE


def test_where_writing_was_asked_for_it_is_an_answer() -> None:
    scene = Scene.live(text_only=True)
    scene.play(committed("U"), ConversationItemInputAudioTranscriptionCompleted("U", 0, "Well?"))
    assert not saying(answer_in_writing(scene, 1), ResponseCreate)
    assert scene.spoken[-1] == ("assistant", "Fine.", "complete")


def test_the_writing_stands_before_the_speech_that_came_in_its_place() -> None:
    scene = asked()
    answer_in_writing(scene, 1)
    scene.play(response_begins("resp_2"), words("item_2", "I am fine.", "resp_2"))
    scene.play(added("item_2", "assistant", "U"))  # the server has forgotten the other
    scene.play(voice("item_2", 500, "resp_2"), response_ends("resp_2"))
    scene.play(PlaybackFinished("item_2", 500), committed("V", "item_2"))
    scene.play(ConversationItemInputAudioTranscriptionCompleted("V", 0, "Good."))
    assert [text for _, text, _ in scene.spoken] == ["Well?", "Fine.", "I am fine.", "Good."]
