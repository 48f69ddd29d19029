"""A saved session in the formats that other programs read.  Pure: text in, text out.

What was said is shown as it is and does nothing: no escape sequence reaches a terminal, and no
Markdown, HTML or link that a model or a user said takes effect.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Literal

from voicechat.history.subtitles import Cue, srt, tsv, vtt
from voicechat.transcript import Role, Transcript, Turn, clock, printable, to_json

Format = Literal["md", "txt", "json", "jsonl", "srt", "vtt", "tsv", "html", "openai"]
Include = Literal["usage", "times"]

SPEAKERS: Mapping[Role, str] = {"user": "You", "assistant": "Assistant", "system": "System"}
TITLE = 60  # letters


@dataclass(frozen=True, slots=True)
class Exported:
    """A session as it goes out."""

    session: str
    started: datetime
    transcript: Transcript
    lines: bytes = b""
    """What is in the session's file; needed by ``jsonl`` only."""
    include: frozenset[Include] = frozenset()
    """What is to be shown, too, where that is a choice: in ``md``, ``txt`` and ``html``."""


def to_markdown(exported: Exported) -> str:
    """A heading, when and with which model, and the turns as paragraphs with lines of their own."""
    blocks = [f"# {_inert(_title(exported))}", _inert(_facts(exported))]
    for turn in exported.transcript.spoken:
        mark = f"*({turn.mark})*" if turn.mark else ""
        who = f"**{SPEAKERS[turn.role]}:**"
        blocks.append(_joined(_place(exported, turn), who, _inert(_lines(turn.text)), mark))
    return "\n\n".join([*blocks, *_usage(exported)]) + "\n"


def to_text(exported: Exported) -> str:
    """A line a turn: ``You: ...`` or ``Assistant: ...``."""
    lines = [
        _joined(_place(exported, turn), f"{SPEAKERS[turn.role]}:", _with_mark(turn))
        for turn in exported.transcript.spoken
    ]
    return "".join(f"{line}\n" for line in [*lines, *_usage(exported)])


def to_html(exported: Exported) -> str:
    """One page that stands for itself."""
    from voicechat.history.page import Paragraph, page  # with every name that HTML has

    paragraphs = (
        Paragraph(
            turn.role,
            SPEAKERS[turn.role],
            _lines(turn.text),
            turn.mark,
            clock(turn.start_ms) if "times" in exported.include else "",
        )
        for turn in exported.transcript.spoken
    )
    return page(_title(exported), _facts(exported), paragraphs, "".join(_usage(exported)))


def to_srt(exported: Exported) -> str:
    """SubRip subtitles, a cue for each turn."""
    return srt(_cues(exported.transcript))


def to_vtt(exported: Exported) -> str:
    """WebVTT subtitles, a cue for each turn."""
    return vtt(_cues(exported.transcript))


def to_tsv(exported: Exported) -> str:
    """A table, a line for each turn."""
    return tsv(_cues(exported.transcript))


def to_lines(exported: Exported) -> str:
    """The session's own records, also those that only a newer version knows.

    What is torn or damaged is left out.
    """
    lines = map(_reserialised, exported.lines.split(b"\n"))
    return "".join(f"{line}\n" for line in lines if line)


def to_json_object(exported: Exported) -> str:
    """One object with all that is known, the turns of which nothing was heard included.

    ``{session, name, parent, started, model, voice, instructions, language, transcription_model,
    vad, local, provider, usage, turns}``; each turn is ``{item_id, role, text, status, start_ms,
    end_ms}``, times on the session's own timeline, and ``usage`` is the tokens of all responses
    together.  Whatever was not set is null.
    """
    opened, usage = exported.transcript.opened, exported.transcript.usage
    value = {
        "session": exported.session,
        "name": exported.transcript.name,
        "parent": exported.transcript.parent,
        "started": exported.started.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "model": opened.model if opened else None,
        "voice": opened.voice if opened else None,
        "instructions": opened.instructions if opened else None,
        "language": opened.language if opened else None,
        "transcription_model": opened.transcription_model if opened else None,
        "vad": opened.vad if opened else None,
        "local": opened is not None and opened.local,
        "provider": opened.provider if opened else None,
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
    "jsonl": to_lines,
    "srt": to_srt,
    "vtt": to_vtt,
    "tsv": to_tsv,
    "html": to_html,
    "openai": to_openai,
}


def _title(exported: Exported) -> str:
    """The session's name, or its first words."""
    transcript = exported.transcript
    first_words = next((turn.text for turn in transcript.spoken if turn.text), "")
    title = printable(transcript.name or "") or _shortened(printable(first_words))
    return title or printable(exported.session)


def _facts(exported: Exported) -> str:
    """When, with which model, and which session it is."""
    opened = exported.transcript.opened
    facts = [f"{exported.started.astimezone(UTC):%Y-%m-%d %H:%M} UTC"]
    if opened and opened.model:
        facts.append(printable(opened.model))
    return ", ".join([*facts, f"session {printable(exported.session)}"])


def _usage(exported: Exported) -> list[str]:
    """What the session took, if that is wanted."""
    usage = exported.transcript.usage
    if "usage" not in exported.include:
        return []
    taken = f"{usage.cached_tokens} cached, {usage.input_audio_tokens} audio"
    given = f"{usage.output_audio_tokens} audio"
    return [f"Tokens: {usage.input_tokens} in ({taken}), {usage.output_tokens} out ({given})"]


def _place(exported: Exported, turn: Turn) -> str:
    """Where on the session's timeline a turn began, if that is wanted."""
    return f"[{clock(turn.start_ms)}]" if "times" in exported.include else ""


def _cues(transcript: Transcript) -> list[Cue]:
    return [
        Cue(turn.start_ms, turn.end_ms, SPEAKERS[turn.role], _with_mark(turn))
        for turn in transcript.spoken
    ]


def _lines(text: str) -> str:
    """The words of a turn for formats that can show its lines, with what these are indented by."""
    return "\n".join(
        (indent.expandtabs(4) + printable(words)).rstrip()
        for indent, words in re.findall(r"([ \t]*)(.*?)(?:\r\n?|\n|\Z)", text, re.DOTALL)
    ).strip()


def _with_mark(turn: Turn) -> str:
    """The words of a turn on one line, and behind them what a reader must be told about it."""
    return _joined(printable(turn.text), f"[{turn.mark}]" if turn.mark else "")


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _shortened(text: str) -> str:
    return text if len(text) <= TITLE else text[: TITLE - 3].rstrip() + "..."


def _reserialised(line: bytes) -> str:
    """A line of a session's file that is safe to show; nothing if it holds no JSON object."""
    text = line.decode(errors="replace").strip("\ufeff \t\r")
    try:
        value = _JSON.decode(text)
        return to_json(value) if isinstance(value, dict) else ""
    except (ValueError, RecursionError):
        return ""


def _finite(number: str) -> float:
    if not isfinite(value := float(number)):
        raise ValueError(f"{number} is no number in JSON")
    return value


_JSON = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)

# A backslash goes behind each match.  Besides CommonMark: strikethrough, tables, mathematics and
# bare links, which many readers know too.
_MARKUP = re.compile(
    # At the beginning of a line: lists, rules, containers, and what makes a heading or a table of
    # the line above.  A turn's first line needs no such care: the speaker's name is before it.
    r"(?<=\n) *(?:[0-9]+(?=[.)])|(?=[-+=:]))"
    # Anywhere.
    r"|(?=[\\`*_{}\[\]<>#|~$^@]|==|&#?\w|://)|(?<=www)(?=\.)",
    re.IGNORECASE,
)


def _inert(text: str) -> str:
    """Printable lines as Markdown that shows exactly them.

    All of it is one paragraph, blank lines too: what follows one could begin any kind of block.
    """
    return _MARKUP.sub(r"\g<0>\\", text).replace("\n", "\\\n")
