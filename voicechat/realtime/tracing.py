"""A conversation as lines of a trace, and back: what happened to it, and what it decided.

The first line says how it began (`header`); then comes a line for each input, each followed by one
for each effect, with milliseconds since the beginning.  Sound is replaced by its length.  Of what
the microphone heard, the peak is kept, too: on that, and on nothing else of it, decisions depend.
So the pure core can be run over a trace, and decides the very same again (`replayed`).
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass
from math import isfinite
from random import Random
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from voicechat import errors
from voicechat.errors import VoicechatError
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.conversation import Conversation
from voicechat.realtime.effects import Effect
from voicechat.realtime.events import (
    SERVER_EVENTS,
    Event,
    Json,
    MalformedError,
    decode,
)
from voicechat.realtime.inputs import Input, MicCaptured
from voicechat.realtime.masking import Clean, plain, without_secrets
from voicechat.realtime.policy import Policy
from voicechat.realtime.providers import OPENAI, Dialect, Provider, provider_named
from voicechat.transcript import RECORDS, Record, Transcript

FORMAT = 1
"""Version of the trace; its first line carries it."""
LARGEST = 2**53
"""No number of ours is larger: time, lengths, counts."""
MOST_SOUND = 1 << 24
"""Bytes of sound in one event: over five minutes."""


class MalformedTraceError(ValueError):
    """A line that is not one of a trace; the message says why."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line
        """Its number, counted from 1."""


# Writing -----------------------------------------------------------------------------------------


def header(
    transcript: Transcript,
    configuration: Configuration,
    policy: Policy,
    provider: Provider,
    *,
    start: float,
    seed: int,
    clean: Clean = without_secrets,
) -> dict[str, Any]:
    """How a conversation began.

    Args:
        transcript: What was said before.
        configuration: What the user chose.
        policy: And this.
        provider: Whose server it is.
        start: The time, in seconds; what is told in ms counts from it.
        seed: Of its chance.
        clean: Takes secrets out of every text.
    """
    return {
        "trace": FORMAT,
        "start": start,
        "seed": seed,
        "configuration": plain(configuration, clean),
        "policy": plain(policy, clean),
        "provider": provider.name,
        "dialect": provider.dialect,
        "transcript": [plain(record, clean) for record in transcript.records()],
    }


def happened_line(happened: Input, ms: float, clean: Clean = without_secrets) -> dict[str, Any]:
    """One thing that happened to it."""
    line = {"ms": ms, "in": _kind(happened), **plain(happened, clean)}
    if isinstance(happened, MicCaptured):
        line["peak"] = _peak(happened.pcm)
    return line


def decided_line(effect: Effect, ms: float, clean: Clean = without_secrets) -> dict[str, Any]:
    """One thing that it decided."""
    return {"ms": ms, "out": _kind(effect), **plain(effect, clean)}


def _kind(thing: object) -> str:
    return _snake(type(thing).__name__)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _peak(pcm: bytes) -> int:
    samples = np.frombuffer(pcm, dtype="<i2", count=len(pcm) // 2)
    return max(int(samples.max(initial=0)), -int(samples.min(initial=0)))


def milliseconds(start: float, now: float) -> float:
    """Since the beginning, to the microsecond."""
    return round((now - start) * 1000, 3)


def moment(start: float, ms: float) -> float:
    """The very time that `milliseconds` was given, if that was one to the microsecond.

    Decisions depend on whether a deadline has been reached: the same time in another form, a
    trillionth of a second earlier, might lead to others.
    """
    return round(start + ms / 1000, 6)


# Reading -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Decision:
    """Something that the core decides when it is run over a trace, or decided when that was made.

    `mark` is empty where it did both; ``+``: it decides so now; ``-``: it did so then.
    """

    mark: Literal["", "+", "-"]
    after: Json
    """What happened, as a line; empty at the very beginning."""
    effect: Json
    """What was done about it, as a line."""


def replayed(lines: Iterable[Json]) -> Iterator[Decision]:
    """Run the core over the lines of a trace; tell what it decides, and how that differs.

    What was decided last may be missing: the program may have been killed before it was written.

    Raises:
        MalformedTraceError: A line is not one of a trace.
    """
    number, start = 0, 0.0
    conversation: Conversation | None = None
    after: Json = {}
    decided: list[Json] = []
    traced: list[Json] = []
    try:
        for line in lines:
            number += 1
            if conversation is None:
                conversation, start = _conversation(line), _value(float, line.get("start"))
                decided = [decided_line(effect, 0.0) for effect in conversation.start()]
            elif "out" in line:
                traced.append(line)
            else:
                yield from _compared(after, decided, traced)
                after, traced = line, []
                ms = _value(float, line.get("ms"))
                effects = conversation.handle(input_of(line), moment(start, ms))
                decided = [decided_line(effect, ms) for effect in effects]
    except MalformedTraceError as error:
        error.line = error.line or number
        raise
    if conversation is None:
        raise MalformedTraceError("it is empty")
    is_torn = traced == decided[: len(traced)]
    yield from _compared(after, decided, decided if is_torn else traced)


def _compared(after: Json, decided: list[Json], traced: list[Json]) -> Iterator[Decision]:
    """Both lists in one; where they differ, from the first difference to the last."""
    shorter = min(len(decided), len(traced))
    start = next((n for n in range(shorter) if decided[n] != traced[n]), shorter)
    end = 0
    while end < shorter - start and decided[-1 - end] == traced[-1 - end]:
        end += 1
    for effect in decided[:start]:
        yield Decision("", after, effect)
    for effect in traced[start : len(traced) - end]:
        yield Decision("-", after, effect)
    for effect in decided[start : len(decided) - end]:
        yield Decision("+", after, effect)
    for effect in decided[len(decided) - end :]:
        yield Decision("", after, effect)


def _conversation(line: Json) -> Conversation:
    """The conversation as it began."""
    if line.get("trace") != FORMAT:
        told = "it is of another version" if "trace" in line else "it does not begin as one does"
        raise MalformedTraceError(told)
    name, dialect = line.get("provider", OPENAI.name), line.get("dialect", "ga")
    provider = provider_named(_value(str, name), _value(Dialect, dialect))
    if provider is None:
        raise MalformedTraceError(f"there is no provider {name!r:.40}")
    return Conversation(
        Transcript.of(_record(each) for each in _value(list[Any], line.get("transcript"))),
        _value(Configuration, line.get("configuration")),
        _value(Policy, line.get("policy")),
        provider,
        chance=Random(_value(int, line.get("seed"))).random,
    )


_INPUTS = {_snake(kind.__name__): kind for kind in get_args(Input)}


def input_of(line: Json) -> Input:
    """What happened, by a line of a trace.

    Raises:
        MalformedTraceError: It is not one about that.
    """
    kind = _INPUTS.get(str(line.get("in")))
    if kind is None:
        raise MalformedTraceError(f"nothing is called {str(line.get('in'))[:40]!r} that happens")
    if kind is MicCaptured:
        return MicCaptured(_frame(_value(bytes, line.get("pcm")), _value(int, line.get("peak"))))
    return cast(Input, _value(kind, line))


def _frame(silence: bytes, peak: int) -> bytes:
    """Sound as long as this, and as loud."""
    if not 0 <= peak <= 32768:
        raise MalformedTraceError(f"a peak of {peak} is none")
    sample = peak if peak < 32768 else -32768
    return sample.to_bytes(2, "little", signed=True) + silence[2:] if len(silence) > 1 else silence


def _record(data: Any) -> Record:
    kind = RECORDS.get(str(data.get("type"))) if isinstance(data, dict) else None
    if kind is None:
        raise MalformedTraceError("what was said before is not told by records")
    return cast(Record, _value(kind, data))


def _value(hint: Any, data: Any) -> Any:
    """A value of this type, of what `plain` made of one."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        *others, last = sorted(arguments, key=lambda each: each is NoneType, reverse=True)
        for each in others:
            with suppress(MalformedTraceError):
                return _value(each, data)
        return _value(last, data)
    if hint is Any or (origin is Literal and type(data) is str and data in arguments):
        return data
    if hint in (str, bool, NoneType) and type(data) is hint:
        return data
    if hint is int and type(data) is int and abs(data) <= LARGEST:
        return data
    if hint is float and type(data) in (int, float) and abs(data) <= LARGEST and isfinite(data):
        return float(data)
    if hint is bytes and type(data) is int and 0 <= data <= MOST_SOUND:
        return bytes(data)
    if origin in (list, tuple) and type(data) is list:
        is_pair = origin is tuple and arguments[-1] is not Ellipsis
        if is_pair and len(arguments) != len(data):
            raise MalformedTraceError("a list is too short or too long")
        kinds = arguments if is_pair else [arguments[0]] * len(data)
        return origin(_value(kind, each) for kind, each in zip(kinds, data, strict=True))
    if isinstance(data, dict):
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return {name: _value(arguments[1], each) for name, each in data.items()}
        if hint is Event:
            return _event(data)
        if hint is VoicechatError:
            return _error(data)
        if is_dataclass(hint):
            return _instance(cast(type, hint), data)
    raise MalformedTraceError(f"{data!r:.40} is not what should stand there")


def _instance(kind: type, data: Json) -> Any:
    hints = get_type_hints(kind)
    values = {}
    for each in fields(kind):
        if each.name in data:
            values[each.name] = _value(hints[each.name], data[each.name])
        elif each.default is MISSING and each.default_factory is MISSING:
            raise MalformedTraceError(f"{each.name!r} is missing")
    return kind(**values)


def _event(data: Json) -> Event:
    """What a server said, as it would be decoded had it just been said, with silence for sound."""
    kind = SERVER_EVENTS.get(str(data.get("type")))
    sounds = {each.name for each in fields(cast(Any, kind)) if each.type is bytes} if kind else ()
    said = dict(data)
    for name in sounds:
        said[name] = b64encode(_value(bytes, data.get(name))).decode()
    try:
        return decode(json.dumps(said), SERVER_EVENTS)
    except (MalformedError, RecursionError) as error:
        raise MalformedTraceError(f"an event cannot be read: {error}") from error


def _error(data: Json) -> VoicechatError:
    kind = getattr(errors, str(data.get("error")), None)
    if not (isinstance(kind, type) and issubclass(kind, VoicechatError)):
        raise MalformedTraceError("an error of an unknown kind")
    told = _value(str, data.get("message")), _value(str, data.get("remedy"))
    return kind(told[0], remedy=told[1])
