"""Why a request is refused, in the words of the real service.

Clients match on these texts and codes, so they are kept to the letter where a capture of the
service is known (marked "real"), and to its style elsewhere.
"""

from collections.abc import Iterable
from typing import Any

_NOUNS = {bool: "a boolean", int: "an integer", float: "a decimal", str: "a string"}
_NOUNS |= {list: "an array", dict: "an object", type(None): "null"}


class RefusedError(Exception):
    """A request that is not carried out; the session goes on."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


def listed(values: Iterable[str]) -> str:
    """``'a'``, ``'a' and 'b'``, ``'a', 'b', and 'c'``."""
    quoted = [f"'{value}'" for value in values]
    if len(quoted) < 3:
        return " and ".join(quoted)
    return f"{', '.join(quoted[:-1])}, and {quoted[-1]}"


def wrong_value(value: object, supported: Iterable[str], param: str) -> RefusedError:
    """Real, in both forms."""
    supported = tuple(supported)
    hint = (
        f"Value must be '{supported[0]}'."
        if len(supported) == 1
        else f"Supported values are: {listed(supported)}."
    )
    return RefusedError("invalid_value", f"Invalid value: '{value}'. {hint}", param)


def wrong_type(param: str, expected: type, value: Any) -> RefusedError:
    """A string where a number belongs, and the like."""
    got = _NOUNS.get(type(value), "something else")
    return RefusedError(
        "invalid_type",
        f"Invalid type for '{param}': expected {_NOUNS[expected]}, but got {got} instead.",
        param,
    )


def missing(param: str) -> RefusedError:
    """Real."""
    return RefusedError(
        "missing_required_parameter", f"Missing required parameter: '{param}'.", param
    )


def unknown(param: str) -> RefusedError:
    """Real; fields of the beta end up here."""
    return RefusedError("unknown_parameter", f"Unknown parameter: '{param}'.", param)


def too_long(param: str, limit: int, length: int) -> RefusedError:
    """Real."""
    return RefusedError(
        "string_above_max_length",
        f"Invalid '{param}': string too long. Expected a string with maximum length {limit}, "
        f"but got a string with length {length} instead.",
        param,
    )


def out_of_range(param: str, value: float, low: float, high: float) -> RefusedError:
    """A number that is too small or too large."""
    kind = "integer" if isinstance(low, int) else "decimal"
    side, sign, bound = ("below", ">=", low) if value < low else ("above", "<=", high)
    end = "minimum" if side == "below" else "maximum"
    return RefusedError(
        f"{kind}_{side}_{end[:3]}_value",
        f"Invalid '{param}': {kind} {side} {end} value. "
        f"Expected a value {sign} {bound}, but got {value} instead.",
        param,
    )


def voice_is_fixed() -> RefusedError:
    """Real."""
    return RefusedError(
        "cannot_update_voice",
        "Cannot update a conversation's voice if assistant audio is present.",
        "session.audio.output.voice",
    )


def buffer_too_small(ms: float) -> RefusedError:
    """Real."""
    return RefusedError(
        "input_audio_buffer_commit_empty",
        "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
        f"but buffer only has {ms:.2f}ms of audio.",
    )


def duplicate_item(item_id: str) -> RefusedError:
    """Real."""
    return RefusedError(
        "item_create_duplicate_item_id",
        f"Error adding item: an item with id '{item_id}' already exists.",
    )


def no_such_previous_item(item_id: str) -> RefusedError:
    """Real."""
    return RefusedError(
        "item_create_invalid_previous_item_id",
        f"Error adding item: the previous item with id '{item_id}' does not exist.",
    )


def no_such_call(call_id: str) -> RefusedError:
    """The output of a function call that is not in the conversation."""
    return RefusedError(
        "item_create_invalid_call_id",
        f"Error adding item: the function call with call_id '{call_id}' does not exist.",
        "item.call_id",
    )


def no_such_item(doing: str, item_id: str) -> RefusedError:
    """Real for ``delete``; ``retrieve`` and ``truncate`` follow its pattern."""
    participle = {"delete": "deleting", "retrieve": "retrieving", "truncate": "truncating"}[doing]
    return RefusedError(
        f"item_{doing}_invalid_item_id",
        f"Error {participle} item: the item with id '{item_id}' does not exist.",
    )


def not_truncatable() -> RefusedError:
    """Real; also for an item of which nothing was heard."""
    return RefusedError(
        "unsupported_content_type", "Only model output audio messages can be truncated"
    )


def truncated_beyond_end(audio_ms: int, wanted_ms: int) -> RefusedError:
    """Real."""
    return RefusedError(
        "invalid_value",
        f"Audio content of {audio_ms}ms is already shorter than {wanted_ms}ms",
        "audio_end_ms",
    )


def response_is_active(response_id: str) -> RefusedError:
    """Real."""
    return RefusedError(
        "conversation_already_has_active_response",
        f"Conversation already has an active response in progress: {response_id}. "
        "Wait until the response is finished before creating a new one.",
    )


def no_active_response() -> RefusedError:
    """Real."""
    return RefusedError(
        "response_cancel_not_active", "Cancellation failed: no active response found"
    )


def session_expired(minutes: float) -> RefusedError:
    """Real, with 60."""
    return RefusedError(
        "session_expired", f"Your session hit the maximum duration of {minutes:g} minutes."
    )
