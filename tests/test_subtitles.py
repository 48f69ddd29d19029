"""Subtitles say what was said when it was said, and nothing that was said is anything else."""

import html
import re
from datetime import UTC, datetime
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicechat.history.export import FORMATS, SPEAKERS, Exported
from voicechat.history.subtitles import LONGEST, SHORTEST
from voicechat.transcript import Record, Said, Speaking, Transcript, Turn, printable


class Shown(NamedTuple):
    """A cue as another program reads it."""

    start_ms: int
    end_ms: int
    speaker: str
    text: str


def exported(log: list[Record]) -> Exported:
    return Exported("k7f3a2", datetime(2026, 8, 22, tzinfo=UTC), Transcript.of(log))


def in_ms(hours: str | None, minutes: str, seconds: str, rest: str) -> int:
    return ((int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(rest)


SRT_TIME = r"(\d{2,}):([0-5]\d):([0-5]\d),(\d{3})"
VTT_TIME = r"(?:(\d{2,}):)?([0-5]\d):([0-5]\d)\.(\d{3})"


def read_srt(text: str) -> list[Shown]:
    """Nothing but what the format says: numbers from 1, hours always, a blank line behind each."""
    assert text == "" or text.endswith("\n\n")
    cues = []
    for number, block in enumerate(text.split("\n\n")[:-1], 1):
        first, times, words = block.splitlines()
        assert first == str(number)
        assert text.count(" --> ") == text.count("-->") == text.count("\n\n")
        match = re.fullmatch(f"{SRT_TIME} --> {SRT_TIME}", times)
        assert match, times
        groups = match.groups()
        cues.append(Shown(in_ms(*groups[:4]), in_ms(*groups[4:]), *words.split(":", 1)))
    return cues


def read_vtt(text: str) -> list[Shown]:
    """By the rules of WebVTT: a header, and blocks whose text is one voice without other tags."""
    header, *blocks, end = text.split("\n\n")
    assert (header, end) == ("WEBVTT", "")
    cues = []
    for block in blocks:
        times, words = block.splitlines()
        match = re.fullmatch(f"{VTT_TIME} --> {VTT_TIME}", times)
        assert match, times
        voice = re.fullmatch(r"<v (\w+)>([^<>]*)", words)
        assert voice, words
        assert not re.search(r"&(?!amp;|lt;|gt;)", voice[2])
        groups = match.groups()
        shown = html.unescape(voice[2])
        cues.append(Shown(in_ms(*groups[:4]), in_ms(*groups[4:]), voice[1], shown))
    return cues


def read_tsv(text: str) -> list[Shown]:
    header, *lines = text.splitlines()
    assert header == "start\tend\ttext"
    cues = []
    for row in lines:
        start, end, words = row.split("\t")
        cues.append(Shown(int(start), int(end), *words.split(":", 1)))
    return cues


READERS = {"srt": read_srt, "vtt": read_vtt, "tsv": read_tsv}


def said(text: str, start_ms: int, end_ms: int, role: str = "user", **more: str) -> Said:
    return Said(
        item_id=text or f"{start_ms}",
        role="user" if role == "user" else "assistant",
        text=text,
        status="interrupted" if "cut" in more else "complete" if text else "untranscribed",
        start_ms=start_ms,
        end_ms=end_ms,
    )


HOUR = 3_600_000
BARGE_IN: list[Record] = [
    said("Tell me.", 0, 1_234),
    said("Once upon a", 2_000, 5_500, "assistant", cut="yes"),
    said("Stop!", 5_000, 6_001),
    said("", 7_000, 8_000),
    said("Late.", 100 * HOUR + 61_001, 100 * HOUR + 62_000),
]


def test_srt_as_whisper_writes_it() -> None:
    assert FORMATS["srt"](exported(BARGE_IN)) == (
        "1\n00:00:00,000 --> 00:00:01,234\nYou: Tell me.\n\n"
        "2\n00:00:02,000 --> 00:00:05,500\nAssistant: Once upon a [interrupted]\n\n"
        "3\n00:00:05,000 --> 00:00:06,001\nYou: Stop!\n\n"
        "4\n00:00:07,000 --> 00:00:08,000\nYou: [not transcribed]\n\n"
        "5\n100:01:01,001 --> 100:01:02,000\nYou: Late.\n\n"
    )


def test_vtt_as_whisper_writes_it() -> None:
    assert FORMATS["vtt"](exported(BARGE_IN)) == (
        "WEBVTT\n\n"
        "00:00.000 --> 00:01.234\n<v You>Tell me.\n\n"
        "00:02.000 --> 00:05.500\n<v Assistant>Once upon a [interrupted]\n\n"
        "00:05.000 --> 00:06.001\n<v You>Stop!\n\n"
        "00:07.000 --> 00:08.000\n<v You>[not transcribed]\n\n"
        "100:01:01.001 --> 100:01:02.000\n<v You>Late.\n\n"
    )


def test_tsv_as_whisper_writes_it() -> None:
    assert FORMATS["tsv"](exported(BARGE_IN)).splitlines()[:3] == [
        "start\tend\ttext",
        "0\t1234\tYou: Tell me.",
        "2000\t5500\tAssistant: Once upon a [interrupted]",
    ]


@pytest.mark.parametrize("format", ["srt", "vtt", "tsv"])
def test_a_session_of_nothing_has_no_cues(format: str) -> None:
    assert READERS[format](FORMATS[format](exported([]))) == []  # type: ignore[index]


def test_what_took_no_time_is_shown_for_a_while() -> None:
    log: list[Record] = [
        said("Hi", 500, 500),  # typed
        said("word " * 10, 600, 600),
        said("word " * 1_000, 700, 0),
        Speaking(item_id="killed", role="assistant", text="And", start_ms=900),
        said("before the beginning", -2_000, 300),
        said("all of it before", -3_000, -2_500),
    ]
    shown = [(cue.start_ms, cue.end_ms) for cue in read_srt(FORMATS["srt"](exported(log)))]
    assert shown == [
        (0, 300),
        (0, SHORTEST),
        (500, 500 + SHORTEST),
        (600, 600 + 2_450),
        (700, 700 + LONGEST),
        (900, 900 + SHORTEST),
    ]


@pytest.mark.parametrize(
    ("text", "inert"),
    [
        ("a --> b ---> c ----->", "a -> b -> c ->"),
        ("-\u200e-> -\x00-> <!-- x -->", "- -> - -> \u2039!-- x ->"),
        ("<b>x</b> < b > <3 y> 1 < 2", "\u2039b>x\u2039/b> \u2039 b > \u20393 y> 1 < 2"),
        ("1 < 2 and 3 > 2, <" + "<" * 20_000, "1 \u2039 2 and 3 > 2, <" + "<" * 20_000),
        ("<<i>> </ <ä <", "\u2039\u2039i>> \u2039/ \u2039ä <"),
        (r"{\an8} {y:i} {.class} {x} \N", r"(\an8} (y:i} {.class} {x} \N"),
    ],
)
def test_srt_has_no_markup_that_was_said(text: str, inert: str) -> None:
    assert FORMATS["srt"](exported([said(text, 0, 9)])).splitlines()[2] == f"You: {inert}"


def test_vtt_shows_markup_that_was_said() -> None:
    log: list[Record] = [said("<b>x</b> <v Bob> <00:01.000> AT&T &lt; --> x", 0, 9)]
    assert FORMATS["vtt"](exported(log)).splitlines()[3] == (
        "<v You>&lt;b&gt;x&lt;/b&gt; &lt;v Bob&gt; &lt;00:01.000&gt; AT&amp;T &amp;lt; -&gt; x"
    )


TEXTS = (
    st.text()
    | st.text(st.sampled_from("<>/bi{}\\an8y:-->&;lt 1,\n\r\t\x1b\x85\u2028"))
    | st.lists(
        st.sampled_from(["\n", "\r\n", "\n\n", "7", "WEBVTT", "NOTE x", " --> ", "00:00:01,000",
                         "00:01.000", "You: ", "<v You>", "\t", "STYLE", "-", ">", "[interrupted]"])
    ).map("".join)
)  # fmt: skip
PLACES = st.integers(-(10**15), 10**15) | st.integers(0, 30_000)
LOGS = st.lists(
    st.builds(
        Said,
        item_id=st.uuids().map(str),
        role=st.sampled_from(["user", "assistant", "system"]),
        text=TEXTS,
        status=st.sampled_from(["speaking", "complete", "interrupted", "untranscribed", "written"]),
        start_ms=PLACES,
        end_ms=PLACES,
    ),
    max_size=8,
)


def words_of(turn: Turn) -> str:
    return " ".join(filter(None, [printable(turn.text), f"[{turn.mark}]" * bool(turn.mark)]))


@pytest.mark.parametrize("format", ["srt", "vtt", "tsv"])
@given(LOGS)
@settings(deadline=None, max_examples=300)
def test_there_is_one_cue_for_each_turn_whatever_was_said(format: str, log: list[Record]) -> None:
    spoken = sorted(Transcript.of(log).spoken, key=lambda turn: max(0, turn.start_ms))
    cues = READERS[format](FORMATS[format](exported(log)))  # type: ignore[index]
    assert [cue.speaker for cue in cues] == [SPEAKERS[turn.role] for turn in spoken]
    for cue, turn in zip(cues, spoken, strict=True):
        assert cue.start_ms == max(0, turn.start_ms)
        is_timed = turn.end_ms > cue.start_ms
        assert cue.end_ms == turn.end_ms if is_timed else cue.end_ms >= cue.start_ms + SHORTEST
        words = words_of(turn)
        if format != "tsv":
            words = re.sub("--+>", "->", words)
        if format == "srt":
            assert not re.search(r"<[^<>]{0,127}>|<[a-zA-Z/]|\{\\", cue.text)
            words = words.replace("<", "\u2039").replace("{", "(")
            cue = cue._replace(text=cue.text.replace("<", "\u2039").replace("{", "("))
        assert cue.text.strip() == words.strip()
