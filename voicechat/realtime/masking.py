"""What is written down for others to read: without keys, and with the length of sound for it."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

from voicechat.errors import VoicechatError
from voicechat.realtime.events import UnknownEvent

SHORTEST_SECRET = 8
"""Letters; a shorter key is none (local servers take anything), and part of ordinary words."""
DEEPEST = 100
"""Levels of someone else's JSON that are written down: what is deeper would break us, not tell."""
_SOUND = re.compile("[A-Za-z0-9+/]{256,}={0,2}")
_KEY = re.compile(r"\b(?:sk-|xai-|ek_|eyJ)[\w-]{12,}(?:\.[\w-]+)*|\bBearer\s+\S{8,}")

Clean = Callable[[str], str]
"""Takes out of a text what nobody must see."""


def cleaning(keys: Iterable[str | None]) -> Clean:
    """What takes these keys out of a text, as far as they are secrets, and all that look alike."""
    known = [each for each in keys if each and len(each) >= SHORTEST_SECRET]
    return partial(without_secrets, secrets=known)


def without_secrets(text: str, secrets: Iterable[str] = ()) -> str:
    """Text with asterisks for keys: those given, and whatever looks like one.

    As many as the key has letters: how much of a text was heard depends on its length.
    """
    for secret in secrets:
        text = text.replace(secret, "*" * len(secret))
    return _KEY.sub(lambda match: "*" * len(match[0]), text)


def plain(value: Any, clean: Clean) -> Any:
    """A value of ours as JSON: sound as its length, and texts cleaned."""
    match value:
        case bytes():
            return len(value)
        case str():
            return clean(value)
        case None | bool() | int() | float():
            return value
        case UnknownEvent(payload):
            return _json(payload, clean)
        case VoicechatError(message=message, remedy=remedy):
            return {"error": type(value).__name__, "message": clean(message), "remedy": remedy}
        case Mapping():
            return _json(value, clean)
        case tuple() | list():
            return [plain(each, clean) for each in value]
        case _ if is_dataclass(value):
            values = {f.name: plain(getattr(value, f.name), clean) for f in fields(value)}
            kind = getattr(value, "type", None)  # of events and records
            return {"type": kind, **values} if isinstance(kind, str) else values
        case _:
            return None


def _json(value: Any, clean: Clean, depth: int = 0) -> Any:
    """JSON of someone else's: what sounds is replaced in it, too."""
    match value:
        case str():
            is_sound = _SOUND.fullmatch(value) is not None
            return f"<{len(value) * 3 // 4} bytes>" if is_sound else clean(value)
        case Mapping() | list() | tuple() if depth == DEEPEST:
            return "..."
        case Mapping():
            return {clean(str(name)): _json(each, clean, depth + 1) for name, each in value.items()}
        case list() | tuple():
            return [_json(each, clean, depth + 1) for each in value]
        case _:
            return plain(value, clean)
