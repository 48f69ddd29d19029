"""A saved session in the formats that other programs read.  Pure: text in, text out.

What was said is shown as it is and does nothing: no escape sequence reaches a terminal, and no
Markdown, HTML or link that a model or a user said takes effect.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from voicechat.transcript import Role, Transcript, printable, to_json

Format = Literal["md", "txt", "json", "openai"]

SPEAKERS: Mapping[Role, str] = {"user": "You", "assistant": "Assistant", "system": "System"}
TITLE = 60  # letters


@dataclass(frozen=True, slots=True)
class Exported:
    """A session as it goes out."""

    session: str
    started: datetime
    transcript: Transcript


def to_markdown(exported: Exported) -> str:
    """A heading, when and with which model, and the turns as paragraphs."""
    transcript, opened = exported.transcript, exported.transcript.opened
    first_words = next((turn.text for turn in transcript.spoken if turn.text), "")
    title = printable(transcript.name or "") or _shortened(printable(first_words))
    facts = [f"{exported.started.astimezone(UTC):%Y-%m-%d %H:%M} UTC"]
    if opened and opened.model:
        facts.append(_inert(opened.model))
    facts.append(f"session {_inert(exported.session)}")
    blocks = [f"# {_inert(title or exported.session)}", ", ".join(facts)]
    for turn in transcript.spoken:
        mark = f"*({turn.mark})*" if turn.mark else ""
        blocks.append(_joined(f"**{SPEAKERS[turn.role]}:**", _inert(turn.text), mark))
    return "\n\n".join(blocks) + "\n"


def to_text(exported: Exported) -> str:
    """A line a turn: ``You: ...`` or ``Assistant: ...``."""
    lines = (
        _joined(f"{SPEAKERS[turn.role]}:", printable(turn.text), f"[{turn.mark}]" * bool(turn.mark))
        for turn in exported.transcript.spoken
    )
    return "".join(f"{line}\n" for line in lines)


def to_json_object(exported: Exported) -> str:
    """One object with all that is known, the turns of which nothing was heard included.

    ``{session, name, started, model, voice, instructions, language, usage, turns}``; each turn is
    ``{item_id, role, text, status, start_ms, end_ms}``, times on the session's own timeline, and
    ``usage`` is the tokens of all responses together.  Whatever was not set is null.
    """
    opened, usage = exported.transcript.opened, exported.transcript.usage
    value = {
        "session": exported.session,
        "name": exported.transcript.name,
        "started": exported.started.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "model": opened.model if opened else None,
        "voice": opened.voice if opened else None,
        "instructions": opened.instructions if opened else None,
        "language": opened.language if opened else None,
        "usage": {
            "input_tokens": usage.input_tokens,
            "cached_tokens": usage.cached_tokens,
            "input_audio_tokens": usage.input_audio_tokens,
            "cached_audio_tokens": usage.cached_audio_tokens,
            "output_tokens": usage.output_tokens,
            "output_audio_tokens": usage.output_audio_tokens,
        },
        "turns": [
            {
                "item_id": turn.item_id,
                "role": turn.role,
                "text": turn.text,
                "status": turn.status,
                "start_ms": turn.start_ms,
                "end_ms": turn.end_ms,
            }
            for turn in exported.transcript.turns
        ],
    }
    return to_json(value, indent=2) + "\n"


def to_openai(exported: Exported) -> str:
    """The messages list of OpenAI's other APIs: the turns that have words, each once."""
    messages = [
        {"role": turn.role, "content": turn.text} for turn in exported.transcript.restorable
    ]
    return to_json(messages, indent=2) + "\n"


FORMATS: Mapping[Format, Callable[[Exported], str]] = {
    "md": to_markdown,
    "txt": to_text,
    "json": to_json_object,
    "openai": to_openai,
}


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _shortened(text: str) -> str:
    return text if len(text) <= TITLE else text[: TITLE - 3].rstrip() + "..."


# Every turn stands behind the name of its speaker on one line, so what has a meaning only at the
# beginning of a line needs no care.  Besides CommonMark: strikethrough, tables, mathematics and
# bare links, which many readers know too.
_MARKUP = re.compile(r"[\\`*_{}\[\]<>#|~$^]|=(?==)|&(?=#?\w)|:(?=//)|(?<=www)\.", re.IGNORECASE)


def _inert(text: str) -> str:
    """Text as Markdown that shows exactly this text."""
    return _MARKUP.sub(r"\\\g<0>", printable(text))
