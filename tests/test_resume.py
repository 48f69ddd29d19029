"""A conversation is restored on a server that knows nothing of it."""

from dataclasses import replace
from typing import Any

from tests.scene import Scene, committed, done, saying, sends
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.conversation import Link
from voicechat.realtime.effects import Close, Connect, Effect, Finish, Notice
from voicechat.realtime.events import (
    ConversationItemAdded,
    ConversationItemCreate,
    ConversationItemCreated,
    ConversationItemDone,
    ConversationItemInputAudioTranscriptionCompleted,
    Error,
    InputAudioBufferAppend,
    ResponseCreate,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
)
from voicechat.realtime.inputs import Connected, DeadlineReached, MicCaptured
from voicechat.realtime.providers import OPENAI, ga_session
from voicechat.realtime.replay import NOTE
from voicechat.transcript import Closed, Lost, Role, Said, Status, Transcript

FRAME = bytes(960)


def turn(item_id: str, role: Role, text: str, status: Status = "complete") -> Said:
    return Said(item_id=item_id, role=role, text=text, status=status)


EARLIER = [
    turn("item_1", "user", "Is it raining?"),
    turn("item_2", "assistant", "It is."),
    turn("item_3", "user", "", "untranscribed"),
    turn("item_4", "assistant", "Since the", "interrupted"),
    turn("item_5", "assistant", "", "interrupted"),
]


def resumed(records: list[Said] = EARLIER) -> Scene:
    return Scene(Transcript.of(records))


def opening(scene: Scene) -> list[Effect]:
    return scene.play(Connected(1), SessionCreated({}))


def create(item_id: str, role: str, part: str, text: str) -> ConversationItemCreate:
    content = [{"type": part, "text": text}]
    item = {"id": item_id, "type": "message", "role": role, "content": content}
    return ConversationItemCreate(item, event_id=f"replay-{item_id}")


NOTED = done("restored", "system")


def again(item_id: str, role: str, part: str, text: str, previous: str) -> ConversationItemCreate:
    """The same once more, in its place."""
    return replace(create(item_id, role, part, text), previous_item_id=previous)


def error(**fields: Any) -> Error:
    return Error({"type": "invalid_request_error", "message": "No.", **fields})


def test_settings_and_every_turn_go_out_in_one_burst() -> None:
    assert opening(resumed()) == [
        Notice("Restoring 3 turns."),
        sends(SessionUpdate(ga_session(OPENAI, Configuration()), event_id="configure")),
        sends(create("h0001", "user", "input_text", "Is it raining?")),
        sends(create("h0002", "assistant", "output_text", "It is.")),
        sends(create("h0003", "assistant", "output_text", "Since the")),
        sends(create("restored", "system", "input_text", NOTE)),
    ]


def test_the_microphone_opens_with_the_last_acknowledgement() -> None:
    scene = resumed()
    opening(scene)
    scene.play(SessionUpdated(), done("h0001"), done("h0002"), NOTED)
    scene.on(MicCaptured(FRAME))
    scene.on(
        done("h0003"),
        Notice("3 turns restored."),
        Notice("Not restored: 1 turn whose words are not known."),
    )
    scene.on(MicCaptured(FRAME), sends(InputAudioBufferAppend(FRAME)))


def test_acknowledgements_may_come_before_the_settings_are_confirmed() -> None:
    scene = resumed(EARLIER[:1])
    opening(scene)
    scene.play(done("h0001"), NOTED)
    assert scene.conversation.link is Link.OPENING
    assert scene.play(SessionUpdated())[0] == Notice("1 turn restored.")


def test_the_older_acknowledgement_counts_and_none_counts_twice() -> None:
    scene = resumed(EARLIER[:2])
    opening(scene)
    scene.play(SessionUpdated())
    scene.play(ConversationItemCreated({"id": "h0001", "type": "message"}))
    scene.play(ConversationItemAdded({"id": "h0001", "type": "message"}), done("h0001"), NOTED)
    assert scene.conversation.link is Link.OPENING
    scene.on(done("h0002"), Notice("2 turns restored."))


def test_a_server_that_gives_its_own_ids_is_understood_by_the_words() -> None:
    scene = resumed(EARLIER[:2])
    opening(scene)
    scene.play(SessionUpdated())
    for item_id, (role, words) in {
        "x": ("user", "Is it raining?"),
        "y": ("assistant", "It is."),
        "z": ("system", NOTE),
    }.items():
        content = [{"type": "text", "text": words}]
        scene.play(
            ConversationItemCreated(
                {"id": item_id, "type": "message", "role": role, "content": content}
            )
        )
    assert scene.conversation.link is Link.LIVE
    scene.play(committed("item_U", "z"))
    new = scene.conversation.transcript.get("item_U")
    assert new is not None
    assert new.previous_item_id == "item_2"


def test_repeated_words_under_other_ids_are_told_apart_by_role_and_order() -> None:
    scene = resumed(
        [turn("a", "user", "Yes."), turn("b", "assistant", "Yes."), turn("c", "user", "Yes.")]
    )
    opening(scene)
    scene.play(SessionUpdated())
    scene.play(NOTED)
    for name, role in (("x", "user"), ("y", "assistant"), ("z", "user")):
        assert scene.conversation.link is Link.OPENING
        content = [{"type": "input_text", "text": "Yes."}]
        confirmed = {"id": name, "type": "message", "role": role, "content": content}
        scene.play(ConversationItemAdded(confirmed), ConversationItemDone(confirmed))
    assert scene.conversation.link is Link.LIVE
    assert len(scene.spoken) == 3


def test_an_item_that_is_refused_before_the_settings_are_taken_is_not_the_settings() -> None:
    scene = resumed(EARLIER[:2])
    opening(scene)
    scene.on(
        error(param="item.content[0].type", event_id=None),
        sends(again("h0001", "user", "input_text", "Is it raining?", "root")),
    )
    assert scene.conversation.link is Link.OPENING


def test_a_turn_the_server_refuses_is_sent_once_more_in_its_place_and_then_named() -> None:
    scene = resumed(EARLIER[:2])
    opening(scene)
    scene.play(SessionUpdated(), done("h0001"), NOTED)
    scene.on(
        error(event_id="replay-h0002", message="Invalid value: 'x'."),
        sends(again("h0002", "assistant", "output_text", "It is.", "h0001")),
    )
    scene.on(
        error(event_id="replay-h0002", message="Invalid value: 'x'."),
        Notice("1 turn restored."),
        Notice("Not restored: assistant, “It is.”: Invalid value: 'x'."),
    )


def test_a_server_that_refuses_all_answers_gets_them_in_one_message() -> None:
    scene = resumed(EARLIER[:4])
    opening(scene)
    scene.play(SessionUpdated(), done("h0001"), NOTED)
    for wire_id in ("h0002", "h0003", "h0002"):
        scene.play(error(event_id=f"replay-{wire_id}", message="No assistant."))
    scene.on(
        error(event_id="replay-h0003", message="No assistant."),
        Notice("It takes no answers of before. Restoring them in another form."),
        Close(1),
        Connect(2),
    )
    scene.connection = 2
    effects = scene.play(Connected(2), SessionCreated({}))
    packed, _ = saying(effects, ConversationItemCreate)
    assert isinstance(packed, ConversationItemCreate)
    assert packed.item["role"] == "user"
    words = packed.item["content"][0]["text"]
    assert "It is." in words
    assert "Since the" in words
    effects = scene.play(SessionUpdated(), done("history"), NOTED)
    assert effects[0] == Notice("3 turns restored.")
    assert scene.conversation.link is Link.LIVE


def test_an_error_that_names_nothing_is_about_the_first_that_waits() -> None:
    scene = resumed(EARLIER[:2])
    opening(scene)
    nameless = error(param="item.content[0].type", event_id=None)
    scene.play(SessionUpdated(), NOTED, nameless, nameless)
    effects = scene.play(done("h0002", "assistant"))
    assert effects[1] == Notice("Not restored: user, “Is it raining?”: No.")


def test_an_error_that_quotes_an_id_is_about_that_item() -> None:
    scene = resumed(EARLIER[:2])
    opening(scene)
    refused = error(message="the item 'h0002' is of no use.")
    scene.play(SessionUpdated(), NOTED, refused, refused)
    effects = scene.play(done("h0001"))
    assert "“It is.”" in str(effects[1])


def test_turns_that_are_never_acknowledged_are_named_after_ten_seconds() -> None:
    scene = resumed(EARLIER[:2])
    opening(scene)
    scene.play(SessionUpdated(), done("h0001"))
    assert scene.conversation.deadline == 4.0  # then they are sent once more
    assert len(scene.at(4.0).play(DeadlineReached())) == 2
    assert scene.conversation.deadline == 10.0
    effects = scene.at(10.0).play(DeadlineReached())
    assert scene.conversation.link is Link.LIVE
    assert effects[1] == Notice("Not restored: assistant, “It is.”: the server did not confirm it")


def test_an_acknowledgement_that_others_have_overtaken_is_not_waited_for_long() -> None:
    scene = resumed(EARLIER[:2])
    opening(scene)
    scene.play(SessionUpdated(), done("h0002", "assistant"), NOTED)
    assert scene.conversation.deadline == 0.5
    scene.at(0.5).on(
        DeadlineReached(), sends(again("h0001", "user", "input_text", "Is it raining?", "root"))
    )
    duplicate = error(event_id="replay-h0001", code="item_create_duplicate_item_id")
    scene.on(duplicate, Notice("2 turns restored."))  # it was there, only the word of it was not
    assert scene.conversation.link is Link.LIVE


def test_nothing_is_asked_for_after_a_replay() -> None:
    scene = resumed(EARLIER[:2])
    effects = opening(scene)
    effects += scene.play(SessionUpdated(), done("h0001"), done("h0002"), NOTED)
    assert {type(event) for event in saying(effects, object)} == {  # type: ignore[arg-type]
        SessionUpdate,
        ConversationItemCreate,
    }


def test_a_server_that_numbers_its_items_does_not_overwrite_earlier_turns() -> None:
    scene = resumed(EARLIER[:2])
    opening(scene)
    scene.play(SessionUpdated(), done("h0001"), done("h0002"), NOTED)
    scene.play(committed("item_1", "h0002"))
    scene.play(ConversationItemInputAudioTranscriptionCompleted("item_1", transcript="And now?"))
    assert [text for _, text, _ in scene.spoken] == ["Is it raining?", "It is.", "And now?"]


def test_a_new_turn_follows_the_last_restored_one() -> None:
    scene = resumed(EARLIER[:2])
    opening(scene)
    scene.play(SessionUpdated(), done("h0001"), done("h0002"), NOTED)
    scene.play(committed("item_U", "h0002"))
    new = scene.conversation.transcript.get("item_U")
    assert new is not None
    assert new.previous_item_id == "item_2"


def test_a_question_that_nobody_answered_is_asked_again() -> None:
    scene = resumed(EARLIER[:1])
    opening(scene)
    scene.play(SessionUpdated(), NOTED)
    scene.on(done("h0001"), Notice("1 turn restored."), sends(ResponseCreate(event_id="respond")))


def test_but_not_if_the_user_hung_up_without_waiting_for_the_answer() -> None:
    scene = Scene(Transcript.of([*EARLIER[:1], Closed()]))
    opening(scene)
    scene.play(SessionUpdated(), NOTED)
    scene.on(done("h0001"), Notice("1 turn restored."))


def test_a_run_that_ended_without_a_line_was_not_hung_up() -> None:
    scene = Scene(Transcript.of([*EARLIER[:1], Lost(), Closed()]))
    opening(scene)
    assert saying(scene.play(SessionUpdated(), NOTED, done("h0001")), ResponseCreate)


def test_the_timeline_goes_on_where_it_ended() -> None:
    scene = resumed([Said(item_id="a", role="user", text="Hi", start_ms=500, end_ms=4000)])
    opening(scene)
    scene.play(SessionUpdated(), done("h0001"), NOTED)
    scene.at(2.0).play(committed("item_U"))
    new = scene.conversation.transcript.get("item_U")
    assert new is not None
    assert new.start_ms == 6000


def test_settings_that_are_refused_end_it() -> None:
    scene = resumed()
    opening(scene)
    effects = scene.play(error(event_id=None, message="Invalid value: 'bob'."))
    finish = effects[-1]
    assert isinstance(finish, Finish)
    assert "refuses these settings: Invalid value: 'bob'." in str(finish.error)
