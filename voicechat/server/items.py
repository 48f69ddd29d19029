"""The conversation as the server keeps it: items in order, and what may be done with them.

Source: Realtime API reference, "conversation.item.create" and its neighbours; what each role
accepts and how a wrong part is refused was captured from the real service.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from voicechat import pcm
from voicechat.realtime.events import Json
from voicechat.server import refusals
from voicechat.server.contract import Message

MAX_ID = 32  # "Expected a string with maximum length 32"
_PARTS = {
    "system": ("input_text",),
    "user": ("input_text", "input_audio"),
    "assistant": ("output_text",),
}
_FIELDS = {
    "message": {"role", "content", "phase"},
    "function_call": {"name", "arguments", "call_id"},
    "function_call_output": {"call_id", "output"},
}
_REQUIRED = {
    "message": ("role", "content"),
    "function_call": ("name", "arguments"),
    "function_call_output": ("call_id", "output"),
}

Role = Literal["user", "assistant", "system"]
Status = Literal["in_progress", "completed", "incomplete"]


@dataclass(slots=True)
class Item:
    """A message or a tool call.  `text` is what the mind reads of it."""

    item_id: str
    role: Role | None
    """None: not a message."""
    fields: dict[str, Any]
    """As on the wire, without id, status and sound."""
    status: Status = "completed"
    text: str = ""
    audio: bytearray = field(default_factory=bytearray)
    is_plain: bool = False
    """Said by the server itself, not by the mind; the mind had better not read it."""
    failure: str = ""
    """Why a user's words are not known."""
    sentences: list[tuple[str, int]] = field(default_factory=list)
    """Of a spoken answer: each sentence and how many bytes of sound it took."""

    @property
    def audio_ms(self) -> int:
        """How long its sound lasts."""
        return len(self.audio) // pcm.BYTES_PER_MS

    @property
    def has_voice(self) -> bool:
        """The assistant said this aloud."""
        return self.role == "assistant" and bool(self.audio)

    @property
    def is_user_audio(self) -> bool:
        """The user said this aloud."""
        return self.role == "user" and any(
            part["type"] == "input_audio" for part in self.fields["content"]
        )

    def wire(self, *, with_audio: bool = False) -> Json:
        """The item as clients see it."""
        fields = dict(self.fields)
        if with_audio and self.audio:
            sound = b64encode(self.audio).decode()
            fields["content"] = [
                {**part, "audio": sound} if part["type"].endswith("_audio") else part
                for part in fields["content"]
            ]
        return {"id": self.item_id, "status": self.status, **fields}

    def cut(self, audio_end_ms: int) -> None:
        """Forget what was not heard, as `conversation.item.truncate` asks.

        Clients see no transcript afterwards; the mind still knows the words that were heard.
        """
        end = audio_end_ms * pcm.BYTES_PER_MS
        del self.audio[end:]
        heard, kept = [], []
        for text, size in self.sentences:
            words = text.split(" ")
            share = min(1.0, end / size) if size else 0.0
            heard.append(" ".join(words[: int(len(words) * share)]))
            kept.append((heard[-1], min(size, max(end, 0))))
            end -= size
            if end <= 0:
                break
        self.sentences = kept
        self.text = " ".join(filter(None, heard))
        self.fields = {**self.fields, "content": [{"type": "output_audio"}]}


class Items:
    """The items of the conversation, in order."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self._order: list[str] = []

    def __iter__(self) -> Iterator[Item]:
        return (self._items[item_id] for item_id in self._order)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._items

    def get(self, item_id: str, doing: str) -> Item:
        """The item with this id.

        Raises:
            RefusedError: There is none.
        """
        if item_id not in self._items:
            raise refusals.no_such_item(doing, item_id)
        return self._items[item_id]

    def add(self, item: Item, after: str | None = None) -> str | None:
        """Insert an item, at the tail if nothing else is said, and tell which one is before it.

        Raises:
            RefusedError: The id is taken, or the item before it does not exist.
        """
        if item.item_id in self._items:
            raise refusals.duplicate_item(item.item_id)
        if after not in (None, "root") and after not in self._items:
            raise refusals.no_such_previous_item(after or "")
        if after == "root":
            place = 0
        else:
            place = len(self._order) if after is None else self._order.index(after) + 1
        self._items[item.item_id] = item
        self._order.insert(place, item.item_id)
        return self._order[place - 1] if place else None

    def remove(self, item_id: str) -> None:
        """Delete an item.

        Raises:
            RefusedError: There is none by that id.
        """
        self.get(item_id, "delete")
        del self._items[item_id]
        self._order.remove(item_id)

    def has_call(self, call_id: str) -> bool:
        """A function call by that id is in the conversation."""
        return any(
            item.fields["type"] == "function_call" and item.fields.get("call_id") == call_id
            for item in self
        )


def messages(items: Iterable[Item]) -> tuple[Message, ...]:
    """What the mind reads of these items: those with words, less what the server said itself."""
    return tuple(
        Message(item.role, item.text)
        for item in items
        if item.role is not None and item.text and not item.is_plain
    )


def read_item(wanted: Json, fresh_id: str, path: str = "item") -> Item:
    """An item that a client wants in the conversation.

    Raises:
        RefusedError: It is not one, in the words of the real service.
    """
    if "type" not in wanted:
        raise refusals.missing(f"{path}.type")
    kind = wanted["type"]
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise refusals.wrong_value(kind, _FIELDS, f"{path}.type")
    for name in _REQUIRED[kind]:
        if wanted.get(name) is None:
            raise refusals.missing(f"{path}.{name}")
    for name, value in wanted.items():
        if name in ("id", "type", "status", "object"):
            continue  # "sent by the client it has no effect", but for id
        if name not in _FIELDS[kind]:
            raise refusals.unknown(f"{path}.{name}")
        if name != "content" and not isinstance(value, str) and value is not None:
            raise refusals.wrong_type(f"{path}.{name}", str, value)
    for name in ("id", "call_id"):
        value = wanted.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            raise refusals.wrong_type(f"{path}.{name}", str, value)
        if len(value) > MAX_ID:
            raise refusals.too_long(f"{path}.{name}", MAX_ID, len(value))
    item_id = wanted.get("id") or fresh_id
    if kind != "message":
        fields = {n: v for n, v in wanted.items() if n in _FIELDS[kind] and v is not None}
        return Item(item_id, None, {"type": kind, **fields})
    return _read_message(wanted, item_id, path)


def read_input(wanted: list[Any], items: Items, fresh_id: Callable[[], str]) -> list[Item]:
    """What a response is to answer instead of the conversation: items, or references to some.

    Raises:
        RefusedError: It is not that.
    """
    read = []
    for index, each in enumerate(wanted):
        path = f"response.input[{index}]"
        if not isinstance(each, dict):
            raise refusals.wrong_type(path, dict, each)
        if each.get("type") == "item_reference":
            read.append(items.get(str(each.get("id")), "retrieve"))
        else:  # under an id of our own: the client's may be that of an item in the conversation
            read.append(replace(read_item(each, "", path), item_id=fresh_id()))
    return read


def _read_message(wanted: Json, item_id: str, path: str) -> Item:
    role = wanted["role"]
    if not isinstance(role, str) or role not in _PARTS:
        raise refusals.wrong_value(role, _PARTS, f"{path}.role")
    if not isinstance(wanted["content"], list):
        raise refusals.wrong_type(f"{path}.content", list, wanted["content"])
    item = Item(item_id, cast(Role, role), {"type": "message", "role": role})
    content, texts = [], []
    for index, part in enumerate(wanted["content"]):
        place = f"{path}.content[{index}]"
        if not isinstance(part, dict):
            raise refusals.wrong_type(place, dict, part)
        text, audio = _read_part(part, role, place)
        if audio is None:
            content.append({"type": part["type"], "text": text})
            texts.append(text)
        else:
            content.append({"type": "input_audio", "transcript": part.get("transcript")})
            item.audio += audio
    item.fields["content"] = content
    item.text = " ".join(texts).strip()
    return item


def _read_part(part: Json, role: str, path: str) -> tuple[str, bytes | None]:
    """The part's words, or its sound."""
    if "type" not in part:
        raise refusals.missing(f"{path}.type")
    kind = part["type"]
    if role == "assistant" and kind == "output_audio":
        raise refusals.missing(f"{path}.text")  # assistant audio cannot be created at all
    if kind not in _PARTS[role]:
        raise refusals.wrong_value(kind, _PARTS[role], f"{path}.type")
    name = "audio" if kind == "input_audio" else "text"
    value = part.get(name)
    if value is None:
        raise refusals.missing(f"{path}.{name}")
    if not isinstance(value, str):
        raise refusals.wrong_type(f"{path}.{name}", str, value)
    if name == "text":
        return value, None
    try:
        return "", b64decode(value, validate=True)
    except ValueError as error:
        message = f"Invalid '{path}.audio'. Expected base64-encoded audio bytes."
        raise refusals.RefusedError("invalid_value", message, f"{path}.audio") from error
