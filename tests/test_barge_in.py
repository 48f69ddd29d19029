"""The user speaks while the assistant does."""

from tests.scene import (
    Scene,
    response_begins,
    response_ends,
    said,
    saying,
    sends,
    user_starts,
    voice,
    words,
)
from voicechat.pcm import silence
from voicechat.realtime.effects import Play, StopPlayback, Write
from voicechat.realtime.events import (
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemTruncate,
    ResponseCancel,
    ResponseCreate,
    ResponseOutputAudioDone,
)
from voicechat.realtime.inputs import PlaybackFinished, PlaybackStopped, TextTyped
from voicechat.transcript import Said


def interrupted(item_id: str, text: str, start_ms: int, end_ms: int) -> Write:
    return Write(
        Said(
            item_id=item_id,
            role="assistant",
            text=text,
            status="interrupted",
            start_ms=start_ms,
            end_ms=end_ms,
        )
    )


def test_the_server_is_told_where_the_listener_stopped_hearing() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_1", "The quick brown fox jumps"))
    scene.on(voice("item_1", ms=2000), Play("item_1", silence(2000)))
    scene.on(user_starts(), StopPlayback())
    scene.on(
        PlaybackStopped((("item_1", 800),)),
        sends(ConversationItemTruncate("item_1", 0, 800, event_id="truncate")),
        interrupted("item_1", "The quick", 0, 800),
    )


def test_an_answer_of_which_nothing_was_heard_never_happened() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_1", "Well"), voice("item_1", ms=2000), user_starts())
    scene.on(
        PlaybackStopped((("item_1", 0),)),
        sends(ConversationItemDelete("item_1", event_id="forget")),
        interrupted("item_1", "", 0, 0),
    )
    assert scene.spoken == []


def test_a_speaker_ahead_of_the_wire_is_not_believed() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_1", "Yes."), voice("item_1", ms=500), user_starts())
    effects = scene.play(PlaybackStopped((("item_1", 585),)))
    assert saying(effects, ConversationItemTruncate) == [
        ConversationItemTruncate("item_1", 0, 500, event_id="truncate")
    ]


def test_an_answer_that_was_still_waiting_its_turn_is_forgotten_too() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_1", "One."), voice("item_1", ms=500))
    scene.play(words("item_2", "Two."), voice("item_2", ms=500), user_starts())
    effects = scene.play(PlaybackStopped((("item_1", 250), ("item_2", 0))))
    assert [type(event) for event in saying(effects, object)] == [  # type: ignore[arg-type]
        ConversationItemTruncate,
        ConversationItemDelete,
    ]
    assert [record.text for record in said(effects)] == ["", ""]


def test_what_was_heard_to_its_end_is_not_cut() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_1", "Yes."), voice("item_1", ms=500))
    scene.play(ResponseOutputAudioDone("item_1", "resp_1"), response_ends())
    scene.play(PlaybackFinished("item_1", 500))
    scene.on(user_starts())  # nothing plays: nothing to stop
    assert scene.spoken == [("assistant", "Yes.", "complete")]


def test_what_still_comes_of_an_interrupted_answer_is_not_heard() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_1", "One two"), voice("item_1", ms=500))
    scene.play(user_starts())
    scene.on(voice("item_1", ms=500))  # between the question and the speaker's answer
    scene.play(PlaybackStopped((("item_1", 500),)))
    scene.on(voice("item_1", ms=500))
    scene.on(words("item_1", " three"))
    scene.on(voice("item_late", ms=500))  # a new item of the same response
    scene.on(response_ends(status="cancelled"))
    assert scene.spoken == [("assistant", "One two", "interrupted")]


def test_a_response_that_is_interrupted_before_its_first_word_is_dropped() -> None:
    scene = Scene.live()
    scene.play(response_begins(), user_starts(), PlaybackStopped(()))
    scene.on(voice("item_1", ms=500))
    assert scene.spoken == []


def test_a_typed_turn_interrupts_and_truncation_goes_before_the_cancel() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_1", "On and on"), voice("item_1", ms=1000))
    scene.on(TextTyped("Stop."), StopPlayback())
    effects = scene.play(PlaybackStopped((("item_1", 500),)))
    sent = [type(event) for event in saying(effects, object)]  # type: ignore[arg-type]
    assert sent == [ConversationItemTruncate, ResponseCancel, ConversationItemCreate]
    # Two responses are never active: the new one is asked for when the old one is done.
    effects = scene.play(response_ends(status="cancelled"))
    assert saying(effects, ResponseCreate) == [ResponseCreate(event_id="respond")]


def test_two_messages_in_one_answer_are_heard_one_after_the_other() -> None:
    scene = Scene.live()
    scene.play(response_begins(), words("item_1", "Hm."), voice("item_1", ms=300))
    scene.play(words("item_2", "Let me see."), voice("item_2", ms=700), response_ends())
    scene.at(0.3).play(PlaybackFinished("item_1", 300))
    effects = scene.at(1.0).play(PlaybackFinished("item_2", 700))
    assert [(s.text, s.start_ms, s.end_ms) for s in said(effects)] == [("Let me see.", 300, 1000)]
    assert [text for _, text, _ in scene.spoken] == ["Hm.", "Let me see."]
