"""What is refused, in the words of the real service; and that nothing has changed then."""

from typing import Any

import pytest

from tests.server_scene import ServerScene, kinds, refusal
from voicechat.server import contract

Json = dict[str, Any]


def in_input(**fields: Any) -> Json:
    return {"type": "realtime", "audio": {"input": fields}}


@pytest.mark.parametrize(
    ("session", "code", "message", "param"),
    [
        (
            {},
            "missing_required_parameter",
            "Missing required parameter: 'session.type'.",
            "session.type",
        ),
        (
            {"type": "transcription"},
            "invalid_value",
            "Invalid value: 'transcription'. Value must be 'realtime'.",
            "session.type",
        ),
        (
            {"type": "realtime", "voice": "marin"},
            "unknown_parameter",
            "Unknown parameter: 'session.voice'.",
            "session.voice",
        ),
        (
            {"type": "realtime", "temperature": 0.8},
            "unknown_parameter",
            "Unknown parameter: 'session.temperature'.",
            "session.temperature",
        ),
        (
            in_input(turn_detection={"type": "semantic_vad", "threshold": 0.5}),
            "unknown_parameter",
            "Unknown parameter: 'session.audio.input.turn_detection.threshold'.",
            "session.audio.input.turn_detection.threshold",
        ),
        (
            in_input(turn_detection={"threshold": 0.5}),
            "missing_required_parameter",
            "Missing required parameter: 'session.audio.input.turn_detection.type'.",
            "session.audio.input.turn_detection.type",
        ),
        (
            in_input(format={"type": "audio/pcmu"}),
            "invalid_value",
            "Invalid value: 'audio/pcmu'. Value must be 'audio/pcm'.",
            "session.audio.input.format.type",
        ),
        (
            {"type": "realtime", "output_modalities": ["audio", "text"]},
            "invalid_value",
            "Invalid modalities: ['audio', 'text']. Supported combinations are: ['text'] and "
            "['audio'].",
            "session.output_modalities",
        ),
        (
            {"type": "realtime", "model": "other"},
            "invalid_value",
            "Invalid value: 'other'. Value must be 'tiny'.",
            "session.model",
        ),
        (
            {"type": "realtime", "instructions": 5},
            "invalid_type",
            "Invalid type for 'session.instructions': expected a string, but got an integer "
            "instead.",
            "session.instructions",
        ),
        (
            {"type": "realtime", "audio": {"output": {"speed": 2}}},
            "decimal_above_max_value",
            "Invalid 'session.audio.output.speed': decimal above maximum value. Expected a value "
            "<= 1.5, but got 2 instead.",
            "session.audio.output.speed",
        ),
        (
            {"type": "realtime", "max_output_tokens": 0},
            "integer_below_min_value",
            "Invalid 'session.max_output_tokens': integer below minimum value. Expected a value "
            ">= 1, but got 0 instead.",
            "session.max_output_tokens",
        ),
        (
            in_input(turn_detection={"type": "server_vad", "idle_timeout_ms": 6000}),
            "invalid_value",
            "Invalid value: '6000'. This server does not offer idle timeouts.",
            "session.audio.input.turn_detection.idle_timeout_ms",
        ),
    ],
)
def test_a_session_update_that_is_not_valid(
    session: Json, code: str, message: str, param: str
) -> None:
    scene = ServerScene()
    assert refusal(scene.send("session.update", session=session)) == (code, message, param)


def test_a_refused_update_changes_nothing_and_a_good_one_only_what_it_names() -> None:
    scene = ServerScene()
    before = scene.session.settings
    scene.update(instructions="Be kind.", voice="marin")
    assert scene.session.settings == before
    detection = {"type": "server_vad", "threshold": 0.7}
    [updated] = scene.update(
        instructions="Be kind.", audio={"input": {"turn_detection": detection}}
    )
    session = updated["session"]
    assert session["instructions"] == "Be kind."
    assert session["audio"]["input"]["turn_detection"] == {
        "type": "server_vad",
        "threshold": 0.7,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 200,
        "idle_timeout_ms": None,
        "create_response": True,
        "interrupt_response": True,
    }
    assert session["audio"]["output"] == before["audio"]["output"]
    [updated] = scene.update(audio={"input": {"turn_detection": None}})
    assert updated["session"]["audio"]["input"]["turn_detection"] is None
    assert updated["session"]["instructions"] == "Be kind."


def test_the_voice_is_fixed_once_it_was_heard() -> None:
    scene = ServerScene()
    assert kinds(scene.update(audio={"output": {"voice": "marin"}})) == ["session.updated"]
    scene.say("u1", "Hi")
    scene.send("response.create")
    scene.answer("Hello.")
    assert kinds(scene.update(audio={"output": {"voice": "marin"}})) == ["session.updated"]
    request = {"output": {"voice": "cedar"}}
    assert refusal(scene.update(instructions="x", audio=request)) == (
        "cannot_update_voice",
        "Cannot update a conversation's voice if assistant audio is present.",
        "session.audio.output.voice",
    )
    assert scene.session.settings["instructions"] == ""


def message(role: str, *parts: Json, **more: Any) -> Json:
    return {"type": "message", "role": role, "content": list(parts), **more}


PART = "item.content[0].type"
TEXT = {"type": "input_text", "text": "Hi"}


@pytest.mark.parametrize(
    ("item", "code", "text", "param"),
    [
        (
            message("system", {"type": "text", "text": "Hi"}),
            "invalid_value",
            "Invalid value: 'text'. Value must be 'input_text'.",
            PART,
        ),
        (
            message("user", {"type": "text", "text": "Hi"}),
            "invalid_value",
            "Invalid value: 'text'. Supported values are: 'input_text' and 'input_audio'.",
            PART,
        ),
        (
            message("assistant", {"type": "text", "text": "Hi"}),
            "invalid_value",
            "Invalid value: 'text'. Value must be 'output_text'.",
            PART,
        ),
        (
            message("assistant", TEXT),
            "invalid_value",
            "Invalid value: 'input_text'. Value must be 'output_text'.",
            PART,
        ),
        (
            message("assistant", {"type": "output_audio", "transcript": "Hi"}),
            "missing_required_parameter",
            "Missing required parameter: 'item.content[0].text'.",
            "item.content[0].text",
        ),
        (
            message("user", TEXT, id="item_" + "0" * 36),
            "string_above_max_length",
            "Invalid 'item.id': string too long. Expected a string with maximum length 32, but "
            "got a string with length 41 instead.",
            "item.id",
        ),
        (
            message("developer", TEXT),
            "invalid_value",
            "Invalid value: 'developer'. Supported values are: 'system', 'user', and 'assistant'.",
            "item.role",
        ),
        (
            {"type": "function_call_output", "call_id": "c9", "output": "{}"},
            "item_create_invalid_call_id",
            "Error adding item: the function call with call_id 'c9' does not exist.",
            "item.call_id",
        ),
        (
            message("user", {"type": "input_audio", "audio": "?"}),
            "invalid_value",
            "Invalid 'item.content[0].audio'. Expected base64-encoded audio bytes.",
            "item.content[0].audio",
        ),
        (
            {"role": "user", "content": [TEXT]},
            "missing_required_parameter",
            "Missing required parameter: 'item.type'.",
            "item.type",
        ),
        (
            message("user", TEXT, colour="red"),
            "unknown_parameter",
            "Unknown parameter: 'item.colour'.",
            "item.colour",
        ),
    ],
)
def test_an_item_that_is_not_valid(item: Json, code: str, text: str, param: str) -> None:
    scene = ServerScene()
    events = scene.send("conversation.item.create", item=item, event_id="seed-1")
    assert events[0]["error"]["event_id"] == "seed-1"
    assert refusal(events) == (code, text, param)
    assert list(scene.session.items) == []


def test_items_keep_the_clients_ids_and_stand_where_the_client_wants_them() -> None:
    scene = ServerScene()
    added, done = scene.say("h2", "Two")
    assert added["previous_item_id"] is None
    assert added["item"]["status"] == "completed"
    assert done["previous_item_id"] is None
    assert scene.say("h3", "Three", "assistant")[0]["previous_item_id"] == "h2"
    first = message("system", TEXT, id="h1")
    [added, _] = scene.send("conversation.item.create", item=first, previous_item_id="root")
    assert added["previous_item_id"] is None
    middle = message("user", TEXT, id="h2b")
    [added, _] = scene.send("conversation.item.create", item=middle, previous_item_id="h2")
    assert added["previous_item_id"] == "h2"
    assert [item.item_id for item in scene.session.items] == ["h1", "h2", "h2b", "h3"]


def test_an_id_is_taken_once_and_the_item_before_must_exist() -> None:
    scene = ServerScene()
    scene.say("h1", "One")
    assert refusal(scene.say("h1", "Again"))[:2] == (
        "item_create_duplicate_item_id",
        "Error adding item: an item with id 'h1' already exists.",
    )
    item = message("user", TEXT)
    events = scene.send("conversation.item.create", item=item, previous_item_id="h9")
    assert refusal(events)[:2] == (
        "item_create_invalid_previous_item_id",
        "Error adding item: the previous item with id 'h9' does not exist.",
    )


def test_the_output_of_a_call_follows_the_call() -> None:
    scene = ServerScene()
    call = {"type": "function_call", "name": "now", "arguments": "{}", "call_id": "c1"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "noon"}
    assert len(scene.send("conversation.item.create", item=call)) == 2
    assert len(scene.send("conversation.item.create", item=output)) == 2


def spoken_answer(scene: ServerScene) -> str:
    """Let the server say two sentences of half a second each; returns the item's id."""
    scene.say("u1", "Hi")
    scene.send("response.create")
    events = scene.answer("One two three four.", "Five six seven eight.")
    item_id = events[0]["item"]["id"]
    assert isinstance(item_id, str)
    return item_id


def truncate(scene: ServerScene, item_id: str, ms: int) -> list[Json]:
    return scene.send(
        "conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=ms
    )


def test_a_truncated_answer_is_known_as_far_as_it_was_heard() -> None:
    scene = ServerScene()
    item_id = spoken_answer(scene)
    [truncated] = truncate(scene, item_id, 750)
    assert truncated["audio_end_ms"] == 750
    [retrieved] = scene.send("conversation.item.retrieve", item_id=item_id)
    assert "transcript" not in retrieved["item"]["content"][0]
    assert len(retrieved["item"]["content"][0]["audio"]) == 750 * 48 * 4 // 3
    scene.say("u2", "Go on")
    scene.send("response.create")
    heard = scene.jobs(contract.Generate)[-1].messages[1]
    assert heard == contract.Message("assistant", "One two three four. Five six")


@pytest.mark.parametrize("ms", [1, 499, 500, 501, 1000])
def test_truncating_at_any_place_leaves_no_more_words_than_were_heard(ms: int) -> None:
    scene = ServerScene()
    item_id = spoken_answer(scene)
    truncate(scene, item_id, ms)
    [item] = [item for item in scene.session.items if item.item_id == item_id]
    assert len(item.text.split()) == ms * 8 // 1000
    assert "One two three four. Five six seven eight.".startswith(item.text)


def test_what_cannot_be_truncated() -> None:
    scene = ServerScene()
    item_id = spoken_answer(scene)
    assert refusal(truncate(scene, item_id, 1001)) == (
        "invalid_value",
        "Audio content of 1000ms is already shorter than 1001ms",
        "audio_end_ms",
    )
    only_audio = "Only model output audio messages can be truncated"
    assert refusal(truncate(scene, "u1", 10))[1] == only_audio
    assert refusal(truncate(scene, item_id, 0))[1] == only_audio
    assert refusal(truncate(scene, "h9", 10))[:2] == (
        "item_truncate_invalid_item_id",
        "Error truncating item: the item with id 'h9' does not exist.",
    )


def test_deleting_and_retrieving() -> None:
    scene = ServerScene()
    scene.say("h1", "One")
    [retrieved] = scene.send("conversation.item.retrieve", item_id="h1")
    assert retrieved["item"]["content"] == [{"type": "input_text", "text": "One"}]
    assert kinds(scene.send("conversation.item.delete", item_id="h1")) == [
        "conversation.item.deleted"
    ]
    assert refusal(scene.send("conversation.item.delete", item_id="h1"))[:2] == (
        "item_delete_invalid_item_id",
        "Error deleting item: the item with id 'h1' does not exist.",
    )
    assert refusal(scene.send("conversation.item.retrieve", item_id="h1"))[0] == (
        "item_retrieve_invalid_item_id"
    )


def test_a_commit_needs_a_tenth_of_a_second() -> None:
    scene = ServerScene()
    scene.update(audio={"input": {"turn_detection": None}})
    scene.append(99)
    assert refusal(scene.send("input_audio_buffer.commit"))[:2] == (
        "input_audio_buffer_commit_empty",
        "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
        "but buffer only has 99.00ms of audio.",
    )
    scene.append(1)
    assert "error" not in kinds(scene.send("input_audio_buffer.commit"))


def test_one_answer_at_a_time() -> None:
    scene = ServerScene()
    scene.say("u1", "Hi")
    [created] = scene.send("response.create")
    response_id = created["response"]["id"]
    assert refusal(scene.send("response.create"))[:2] == (
        "conversation_already_has_active_response",
        f"Conversation already has an active response in progress: {response_id}. "
        "Wait until the response is finished before creating a new one.",
    )
    scene.send("response.cancel")
    assert refusal(scene.send("response.cancel"))[:2] == (
        "response_cancel_not_active",
        "Cancellation failed: no active response found",
    )


def test_frames_that_are_no_events() -> None:
    scene = ServerScene()
    code, text, param = refusal(scene.send("session.begin"))
    assert (code, param) == ("invalid_value", "type")
    assert text.startswith("Invalid value: 'session.begin'. Supported values are: 'session.update'")
    events = scene.send("conversation.item.delete", event_id="d-1")
    assert events[0]["error"]["event_id"] == "d-1"
    assert refusal(events) == (
        "missing_required_parameter",
        "Missing required parameter: 'item_id'.",
        "item_id",
    )


def test_a_response_with_fields_of_the_beta_is_refused() -> None:
    scene = ServerScene()
    response = {"modalities": ["text"]}
    assert refusal(scene.send("response.create", response=response)) == (
        "unknown_parameter",
        "Unknown parameter: 'response.modalities'.",
        "response.modalities",
    )
