"""What the strict server speaks: each dialect as its own documents have it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from openai.types.beta.realtime import RealtimeClientEvent as BetaClientEvent
from openai.types.realtime import RealtimeClientEvent
from pydantic import BaseModel, TypeAdapter

Json = dict[str, Any]

GA_EVENTS = TypeAdapter[Any](RealtimeClientEvent)
BETA_EVENTS = TypeAdapter[Any](BetaClientEvent)


@dataclass(frozen=True)
class Dialect:
    """How a client's events are checked, and its settings understood."""

    violations: Callable[[Json], list[str]]
    ga: Callable[[Json], Json]
    """The settings of a ``session.update`` as GA has them."""
    assistant_part: str = "output_text"
    older_names: bool = False


def check(events: TypeAdapter[Any], event: Json) -> list[str]:
    """What the types of the `openai` package do not know, fields included."""
    try:
        parsed = events.validate_python(event)
    except ValueError as error:
        return [f"{event.get('type')}: {error}"]
    return [f"{event['type']}: unknown {path}" for path in _extras(parsed)]


def _extras(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, BaseModel):
        for name in value.model_extra or {}:
            yield f"{path}.{name}"
        for name in type(value).model_fields:
            yield from _extras(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _extras(part, f"{path}[{number}]")


def _from_beta(session: Json) -> Json:
    heard = {
        "transcription": session["input_audio_transcription"],
        "turn_detection": session["turn_detection"],
    }
    return {
        "output_modalities": ["audio"] if "audio" in session["modalities"] else ["text"],
        "instructions": session["instructions"],
        "audio": {"input": heard, "output": {"voice": session["voice"]}},
    }


def _from_xai(session: Json) -> Json:
    """The voice and the turn detection where GA has them."""
    audio = session["audio"]
    heard = audio["input"] | {"turn_detection": session["turn_detection"]}
    spoken = audio["output"] | {"voice": session["voice"]}
    rest = {k: v for k, v in session.items() if k not in ("turn_detection", "voice")}
    return rest | {"audio": {"input": heard, "output": spoken}}


def _check_xai(event: Json) -> list[str]:
    """GA, but for what stands elsewhere; it does not know what it cannot do."""
    if event["type"] != "session.update":
        return check(GA_EVENTS, event)
    session = event["session"]
    audio = session.get("audio", {"input": {}, "output": {}})
    if {"voice", "speed"} & audio["output"].keys() or "turn_detection" in audio["input"]:
        return ["voice, speed or turn detection where GA has them"]
    if not {"audio", "voice", "turn_detection"} <= session.keys() or "output_modalities" in session:
        return [f"not xAI's: {session.keys()}"]
    return check(GA_EVENTS, event | {"session": _from_xai(session)})


def _check_ga_at_16_khz(event: Json) -> list[str]:
    if event["type"] != "session.update":
        return check(GA_EVENTS, event)
    heard = event["session"].get("audio", {}).get("input", {})
    if heard.get("format") != {"type": "audio/pcm", "rate": 16_000}:
        return [f"the format of {heard}"]
    heard = heard | {"format": {"type": "audio/pcm", "rate": 24_000}}
    audio = event["session"]["audio"] | {"input": heard}
    return check(GA_EVENTS, event | {"session": event["session"] | {"audio": audio}})


GA = Dialect(lambda event: check(GA_EVENTS, event), lambda session: session)
BETA = Dialect(lambda event: check(BETA_EVENTS, event), _from_beta, "text", older_names=True)
XAI = Dialect(_check_xai, _from_xai)
GA_AT_16_KHZ = Dialect(_check_ga_at_16_khz, lambda session: session)
