"""The words of the wire."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voicechat.realtime.events import (
    CLIENT_EVENTS,
    OLDER_NAMES,
    SERVER_EVENTS,
    ConversationItemAdded,
    Event,
    InputAudioBufferAppend,
    MalformedError,
    ResponseCreate,
    ResponseOutputAudioDelta,
    UnknownEvent,
    decode,
    encode,
)

ALL = [*CLIENT_EVENTS.values(), *SERVER_EVENTS.values()]


@pytest.mark.parametrize("event", ALL)
def test_a_class_is_named_after_its_type(event: type[Event]) -> None:
    words = event.type.replace(".", "_").split("_")
    assert event.__name__ == "".join(word.capitalize() for word in words)


def test_audio_is_bytes_here_and_base64_on_the_wire() -> None:
    append = InputAudioBufferAppend(b"\x01\x02")
    assert encode(append) == '{"type":"input_audio_buffer.append","audio":"AQI="}'
    assert decode(encode(append), CLIENT_EVENTS) == append


def test_what_is_not_said_is_left_out_but_a_null_that_is_said_stays() -> None:
    assert encode(ResponseCreate()) == '{"type":"response.create"}'
    assert json.loads(encode(ConversationItemAdded({})))["previous_item_id"] is None


def test_fields_we_do_not_use_are_ignored_and_missing_ones_default() -> None:
    message = (
        '{"type":"response.output_audio.delta","item_id":"i","delta":"AQI=","obfuscation":"x"}'
    )
    assert decode(message, SERVER_EVENTS) == ResponseOutputAudioDelta("i", b"\x01\x02")


@pytest.mark.parametrize("older", OLDER_NAMES)
def test_the_names_of_the_beta_are_read_as_the_new_ones(older: str) -> None:
    message = json.dumps({"type": older, "item_id": "i", "delta": "AQI="})
    assert decode(message, SERVER_EVENTS).type == OLDER_NAMES[older]


def test_an_unknown_event_is_not_an_error() -> None:
    assert decode('{"type":"party"}', SERVER_EVENTS) == UnknownEvent({"type": "party"})


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\x00", "invalid_event"),
        ("", "invalid_json"),
        ("[" * 100_000, "invalid_json"),
        ("[]", "invalid_event"),
        ("{}", "invalid_event"),
        ('{"type":7}', "invalid_event"),
        ('{"type":"error"}', "missing_required_parameter"),
        ('{"type":"error","error":"no"}', "invalid_type"),
        ('{"type":"response.output_audio.delta","item_id":"i","delta":"%%%"}', "invalid_type"),
        (
            '{"type":"conversation.item.truncated","item_id":"i","audio_end_ms":1e999}',
            "invalid_type",
        ),
        ('{"type":"response.done","response":null}', "missing_required_parameter"),
    ],
)
def test_nonsense_is_told_from_events(message: str | bytes, code: str) -> None:
    with pytest.raises(MalformedError) as caught:
        decode(message, SERVER_EVENTS)
    assert caught.value.code == code


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = ["item", "item_id", "delta", "response", "error", "audio_start_ms", "content_index"]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.sampled_from([event.type for event in ALL] + [*OLDER_NAMES]),
    st.dictionaries(st.sampled_from(FIELDS), JSON),
)
def test_no_json_breaks_the_reader(kind: str, values: dict[str, Any]) -> None:
    message = json.dumps(values | {"type": kind})
    for vocabulary in (SERVER_EVENTS, CLIENT_EVENTS):
        with suppress(MalformedError):
            assert isinstance(decode(message, vocabulary), Event)
