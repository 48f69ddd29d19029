"""A conversation as subtitles, by whisper's rules.  Pure: cues in, text out.

What was said is data here, too: none of it begins another cue, or is taken for markup by a player.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

SHORTEST, LONGEST = 1000, 7000
READING = 50
"""How long what has no length of its own is shown, in ms: so long for each letter, in bounds."""


@dataclass(frozen=True, slots=True)
class Cue:
    """What is shown from one moment to another."""

    start_ms: int
    end_ms: int
    """Not after the start, if it is not known how long this was said: typed, or never finished."""
    speaker: str
    text: str
    """One line, safe to show."""


def srt(cues: Iterable[Cue]) -> str:
    """SubRip: numbered cues, each with its speaker in front."""
    return "".join(
        f"{number}\n{_srt_time(cue.start_ms)} --> {_srt_time(cue.end_ms)}\n"
        f"{cue.speaker}: {_without_tags(_without_arrows(cue.text))}\n\n"
        for number, cue in enumerate(_timed(cues), 1)
    )


def vtt(cues: Iterable[Cue]) -> str:
    """WebVTT: the speaker is the voice of a cue."""
    return "WEBVTT\n\n" + "".join(
        f"{_vtt_time(cue.start_ms)} --> {_vtt_time(cue.end_ms)}\n"
        f"<v {cue.speaker}>{_escaped(_without_arrows(cue.text))}\n\n"
        for cue in _timed(cues)
    )


def tsv(cues: Iterable[Cue]) -> str:
    """Columns with a tab between: start and end in ms, and the text with its speaker in front."""
    return "start\tend\ttext\n" + "".join(
        f"{cue.start_ms}\t{cue.end_ms}\t{cue.speaker}: {cue.text}\n" for cue in _timed(cues)
    )


def _timed(cues: Iterable[Cue]) -> list[Cue]:
    """By their start; of several that start at once, in the order given.  Each takes some time."""
    timed = []
    for cue in cues:
        start_ms, end_ms = max(0, cue.start_ms), cue.end_ms
        if end_ms <= start_ms:
            end_ms = start_ms + min(max(SHORTEST, READING * len(cue.text)), LONGEST)
        timed.append(replace(cue, start_ms=start_ms, end_ms=end_ms))
    return sorted(timed, key=lambda cue: cue.start_ms)


def _srt_time(ms: int) -> str:
    hours, minutes, seconds, rest = _parts(ms)
    return f"{hours:02}:{minutes:02}:{seconds:02},{rest:03}"


def _vtt_time(ms: int) -> str:
    hours, minutes, seconds, rest = _parts(ms)
    return (f"{hours:02}:" if hours else "") + f"{minutes:02}:{seconds:02}.{rest:03}"


def _parts(ms: int) -> tuple[int, int, int, int]:
    seconds, rest = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    return minutes // 60, minutes % 60, seconds, rest


_ARROW = re.compile(r"--+>")
# SubRip has no escape.  FFmpeg and the players on it take for a tag whatever stands between < and
# >, up to 127 bytes, other players a < before a letter or a slash; {\an8} and {y:i} are markup
# from other formats.
_TAG = re.compile(r"<(?=[^\W\d_]|/|[^>]{0,127}>)")
_OVERRIDE = re.compile(r"\{(?=\\|\w:)")


def _without_arrows(text: str) -> str:
    return _ARROW.sub("->", text)


def _without_tags(text: str) -> str:
    return _OVERRIDE.sub("(", _TAG.sub("\u2039", text))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
