"""The session object: its defaults, what may be asked of it, and how a request is merged into it.

A request is checked as a whole before anything changes; what is not mentioned stays.

Source: Realtime API reference, "session.update" and "response.create".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from voicechat.pcm import SAMPLE_RATE
from voicechat.realtime.events import Json
from voicechat.server import refusals
from voicechat.server.turns import TurnRules

VOICES = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
PCM: Json = {"type": "audio/pcm", "rate": SAMPLE_RATE}
SERVER_VAD: Json = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 200,
    "idle_timeout_ms": None,
    "create_response": True,
    "interrupt_response": True,
}
SEMANTIC_VAD: Json = {
    "type": "semantic_vad",
    "eagerness": "auto",
    "create_response": True,
    "interrupt_response": True,
}
PATIENCE_MS: Mapping[str, int] = {"low": 1200, "medium": 700, "auto": 700, "high": 400}
"""Nothing here understands when a thought is complete: eagerness becomes a length of silence."""

Merge = Callable[[Any, Any, str], Any]
"""What is, what is asked for, the parameter's path → what will be."""


def default_session(session_id: str, model: str, expires_at: int) -> Json:
    """What `session.created` shows before anything was asked for."""
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": model,
        "output_modalities": ["audio"],
        "instructions": "",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "tracing": None,
        "truncation": "auto",
        "prompt": None,
        "expires_at": expires_at,
        "audio": {
            "input": {
                "format": PCM,
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": SERVER_VAD,
            },
            "output": {"format": PCM, "voice": "alloy", "speed": 1.0},
        },
        "include": None,
    }


def updated_session(session: Json, request: Json, *, has_spoken: bool) -> Json:
    """The session as it is after `session.update`.

    Raises:
        RefusedError: The request is not valid; nothing of it holds.
    """
    if "type" not in request:
        raise refusals.missing("session.type")
    merged = cast(Json, _SESSION(session, request, "session"))
    if has_spoken and _voice(merged) != _voice(session):
        raise refusals.voice_is_fixed()
    return merged


def response_settings(session: Json, request: Json, *, has_spoken: bool) -> Json:
    """The settings of one response: the session's, where `response.create` asks nothing else.

    Raises:
        RefusedError: The request is not valid.
    """
    inherited = {name: session[name] for name in _INHERITED}
    start = {**inherited, "conversation": "auto", "metadata": None, "input": None}
    start["audio"] = {"output": {k: session["audio"]["output"][k] for k in ("format", "voice")}}
    merged = cast(Json, _RESPONSE(start, request, "response"))
    if has_spoken and _voice(merged) != _voice(session):
        raise refusals.voice_is_fixed()
    return merged


def turn_rules(session: Json) -> TurnRules | None:
    """How turns are told, or None where the client does it."""
    detection = session["audio"]["input"]["turn_detection"]
    if detection is None:
        return None
    if detection["type"] == "semantic_vad":
        return TurnRules(silence_duration_ms=PATIENCE_MS[detection["eagerness"]])
    names = ("threshold", "prefix_padding_ms", "silence_duration_ms")
    return TurnRules(**{name: detection[name] for name in names})


def _voice(settings: Json) -> object:
    return settings["audio"]["output"]["voice"]


def _text(_: Any, wanted: Any, path: str) -> Any:
    if not isinstance(wanted, str):
        raise refusals.wrong_type(path, str, wanted)
    return wanted


def _flag(_: Any, wanted: Any, path: str) -> Any:
    if not isinstance(wanted, bool):
        raise refusals.wrong_type(path, bool, wanted)
    return wanted


def _list(_: Any, wanted: Any, path: str) -> Any:
    if not isinstance(wanted, list):
        raise refusals.wrong_type(path, list, wanted)
    return wanted


def _object(_: Any, wanted: Any, path: str) -> Any:
    if not isinstance(wanted, dict):
        raise refusals.wrong_type(path, dict, wanted)
    return wanted


def _one_of(*values: str) -> Merge:
    def merge(_: Any, wanted: Any, path: str) -> Any:
        if wanted not in values:
            raise refusals.wrong_value(wanted, values, path)
        return wanted

    return merge


def _number(low: float, high: float) -> Merge:
    """A number in a range; a whole one if the range's ends are."""
    kind = int if isinstance(low, int) else float

    def merge(_: Any, wanted: Any, path: str) -> Any:
        if isinstance(wanted, bool) or not isinstance(wanted, (int, kind)):
            raise refusals.wrong_type(path, kind, wanted)
        if not low <= wanted <= high:
            raise refusals.out_of_range(path, wanted, low, high)
        return wanted

    return merge


@dataclass(frozen=True, slots=True)
class _Nullable:
    """A field that null clears; for the others null is as good as nothing."""

    inner: Merge

    def __call__(self, current: Any, wanted: Any, path: str) -> Any:
        return None if wanted is None else self.inner(current, wanted, path)


def _fields(required: str | None = None, /, **known: Merge) -> Merge:
    """An object of which each field that is mentioned replaces what was there."""

    def merge(current: Any, wanted: Any, path: str) -> Any:
        wanted = _object(None, wanted, path)
        if required is not None and required not in wanted:
            raise refusals.missing(f"{path}.{required}")
        merged = dict(current or {})
        for name, value in wanted.items():
            if name not in known:
                raise refusals.unknown(f"{path}.{name}")
            field = known[name]
            if value is None and not isinstance(field, _Nullable):
                continue
            merged[name] = field(merged.get(name), value, f"{path}.{name}")
        return merged

    return merge


def _modalities(_: Any, wanted: Any, path: str) -> Any:
    for kind in _list(None, wanted, path):
        _one_of("audio", "text")(None, kind, f"{path}[{wanted.index(kind)}]")
    if len(wanted) != 1:  # "It is not possible to request both text and audio at the same time."
        raise refusals.RefusedError(
            "invalid_value",
            f"Invalid modalities: {wanted!r}. Supported combinations are: ['text'] and ['audio'].",
            path,
        )
    return wanted


def _model(current: Any, wanted: Any, path: str) -> Any:
    return _one_of(current)(None, wanted, path)


def _no_idle_timeout(_: Any, wanted: Any, path: str) -> Any:
    message = f"Invalid value: '{wanted}'. This server does not offer idle timeouts."
    raise refusals.RefusedError("invalid_value", message, path)


def _max_tokens(_: Any, wanted: Any, path: str) -> Any:
    return wanted if wanted == "inf" else _number(1, 4096)(None, wanted, path)


def _turn_detection(current: Any, wanted: Any, path: str) -> Any:
    wanted = _object(None, wanted, path)
    if "type" not in wanted:
        raise refusals.missing(f"{path}.type")
    kinds = {"server_vad": (SERVER_VAD, _SERVER_VAD), "semantic_vad": (SEMANTIC_VAD, _SEMANTIC_VAD)}
    kind = _one_of(*kinds)(None, wanted["type"], f"{path}.type")
    defaults, fields = kinds[kind]
    start = current if current and current["type"] == kind else defaults
    return fields(start, wanted, path)


def _or_object(*words: str, **known: Merge) -> Merge:
    """One of these words, or an object with these fields."""

    def merge(_: Any, wanted: Any, path: str) -> Any:
        if isinstance(wanted, str):
            return _one_of(*words)(None, wanted, path)
        return _fields(**known)(None, wanted, path)

    return merge


def _metadata(_: Any, wanted: Any, path: str) -> Any:
    for key, value in _object(None, wanted, path).items():
        _text(None, value, f"{path}.{key}")
        if len(value) > 512:
            raise refusals.too_long(f"{path}.{key}", 512, len(value))
    return wanted


_INHERITED = ("output_modalities", "instructions", "tools", "tool_choice", "max_output_tokens")
_FORMAT = _fields("type", type=_one_of("audio/pcm"), rate=_number(SAMPLE_RATE, SAMPLE_RATE))
_VOICE = _one_of(*VOICES)
_SERVER_VAD = _fields(
    type=_one_of("server_vad"),
    threshold=_number(0.0, 1.0),
    prefix_padding_ms=_number(0, 10_000),
    silence_duration_ms=_number(0, 10_000),
    idle_timeout_ms=_Nullable(_no_idle_timeout),
    create_response=_flag,
    interrupt_response=_flag,
)
_SEMANTIC_VAD = _fields(
    type=_one_of("semantic_vad"),
    eagerness=_one_of(*PATIENCE_MS),
    create_response=_flag,
    interrupt_response=_flag,
)
_TRANSCRIPTION = _Nullable(
    _fields(
        model=_text,
        language=_text,
        prompt=_text,
        keywords=_list,
        languages=_list,
        delay=_one_of("minimal", "low", "medium", "high", "xhigh"),
    )
)
_NOISE_REDUCTION = _Nullable(
    _fields(type=_one_of("near_field", "far_field"), strength=_number(0.0, 1.0))
)
_DETECTION = _Nullable(_turn_detection)
_TRACING = _Nullable(_or_object("auto", workflow_name=_text, group_id=_text, metadata=_object))
_PROMPT = _Nullable(_fields("id", id=_text, version=_text, variables=_object))
_INCLUDE = _Nullable(_list)
_TOOL_CHOICE = _or_object(
    "auto", "none", "required", type=_one_of("function", "mcp"), name=_text, server_label=_text
)
_REASONING = _fields(effort=_one_of("minimal", "low", "medium", "high", "xhigh"))
_SESSION = _fields(
    type=_one_of("realtime"),
    model=_model,
    output_modalities=_modalities,
    instructions=_text,
    audio=_fields(
        input=_fields(
            format=_FORMAT,
            transcription=_TRANSCRIPTION,
            noise_reduction=_NOISE_REDUCTION,
            turn_detection=_DETECTION,
        ),
        output=_fields(format=_FORMAT, voice=_VOICE, speed=_number(0.25, 1.5)),
    ),
    tools=_list,
    tool_choice=_TOOL_CHOICE,
    parallel_tool_calls=_flag,
    reasoning=_REASONING,
    max_output_tokens=_max_tokens,
    truncation=_or_object(
        "auto",
        "disabled",
        type=_one_of("retention_ratio"),
        retention_ratio=_number(0.0, 1.0),
        token_limits=_object,
    ),
    tracing=_TRACING,
    include=_INCLUDE,
    prompt=_PROMPT,
)
_RESPONSE = _fields(
    audio=_fields(output=_fields(format=_FORMAT, voice=_VOICE)),
    conversation=_one_of("auto", "none"),
    input=_list,
    instructions=_text,
    max_output_tokens=_max_tokens,
    metadata=_metadata,
    output_modalities=_modalities,
    parallel_tool_calls=_flag,
    prompt=_PROMPT,
    reasoning=_REASONING,
    tool_choice=_TOOL_CHOICE,
    tools=_list,
)
