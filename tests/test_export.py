"""A saved session comes out in every format, and nothing that was said takes effect there."""

import html
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests.test_transcript import records
from voicechat.history.export import FORMATS, Exported, Format, Include
from voicechat.history.log import line
from voicechat.history.reading import parse
from voicechat.transcript import Opened, Record, Said, Speaking, Transcript, Usage, printable

GOLDEN = Path(__file__).parent / "golden"
STARTED = datetime(2026, 8, 22, 9, 30, 12, 345000, tzinfo=UTC)

TALK: list[Record] = [
    Opened(
        session="k7f3a2",
        name="Bees & honey",
        model="gpt-realtime",
        voice="marin",
        instructions="Be brief.",
        language="en",
    ),
    Said(item_id="a1", role="assistant", text="They dance.", previous_item_id="u1", start_ms=3000,
         end_ms=4100),  # the answer is there before the words it answers
    Said(item_id="u1", role="user", text="How do bees find flowers?", start_ms=500, end_ms=2400),
    Said(item_id="u2", role="user", text="", status="untranscribed", previous_item_id="a1",
         start_ms=5000, end_ms=5600),
    Said(item_id="a2", role="assistant", text="The waggle dance tells", status="interrupted",
         previous_item_id="u2", start_ms=6000, end_ms=7000),
    Said(item_id="u3", role="user", text="Stop. Auf Deutsch, bitte: 再见 👩‍🔬",
         previous_item_id="a2", start_ms=6900, end_ms=9000),
    Said(item_id="a3", role="assistant", text="", status="interrupted", previous_item_id="u3",
         start_ms=9500, end_ms=9500),
    Said(item_id="u4", role="user", text="Hello?", previous_item_id="a3", start_ms=11000,
         end_ms=11500),
    Speaking(item_id="a4", role="assistant", text="Bienen tanzen.", previous_item_id="u4",
             start_ms=12000),
    Usage(input_tokens=1_500, cached_tokens=600, input_audio_tokens=1_200, output_tokens=340,
          output_audio_tokens=250),
]  # fmt: skip

HOSTILE: list[Record] = [
    Opened(session="k7f3a2", name="\x1b]0;owned\x07# <b>x</b> #", model="<i>*m*</i>"),
    *(
        Said(item_id=f"h{n}", role="assistant", text=text, previous_item_id=f"h{n - 1}")
        for n, text in enumerate(
            [
                "\x1b[2J\x1b[31mred\x1b[0m \x9b5m \x07\x08\x7f",
                "<script>alert(1)</script><!-- &lt;b&gt; --> <img src=x onerror=alert(1)>",
                "[click](javascript:alert(1)) ![i](http://x/y.png) <https://example.com>",
                "https://example.com www.example.com a|b `code` **bold** __b__ ~~gone~~ $x$",
                "one\n\n# heading\n- list\n> quote\n```\ncode\n```\nAssistant: forged\r\nYou: me",
                "left \u202eright\u202c \u2066x\u2069 \u200f \ufeff half \ud800 \u2028 \u061c",
                "back\\slash \\<b\\> C# AT&T 2 * 3 = 6 {.class} [^1] [x]: y snake_case ^up^",
                "no\n\n9\n00:00:01,000 --> 00:00:09,000\nforged ---> \n\nNOTE x\n\nSTYLE\n::cue{}",
                "{\\an8}top {y:i} <font size=9>big</font> I <3 you > me < 4\t0\t1\tcolumns",
            ]
        )
    ),
]


def exported(log: list[Record]) -> Exported:
    lines = b"".join(line(record, STARTED) for record in log)
    return Exported("k7f3a2", STARTED, Transcript.of(log), lines)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("name", "log"), [("talk", TALK), ("hostile", HOSTILE)])
def test_a_session_comes_out_as_the_golden_file_shows(
    format: Format, name: str, log: list[Record]
) -> None:
    ending = format if format != "openai" else "openai.json"
    assert FORMATS[format](exported(log)) == (GOLDEN / f"{name}.{ending}").read_text()


def test_every_format_has_a_function() -> None:
    assert get_args(Format) == tuple(FORMATS)


@pytest.mark.parametrize("format", FORMATS)
@given(st.lists(records, max_size=10), st.text())
@settings(deadline=None, max_examples=50)
def test_nothing_that_acts_on_a_terminal_comes_out(
    format: Format, log: list[Record], text: str
) -> None:
    log = [
        *log,
        Opened(session=text, name=text, model=text),
        Said(item_id=text, role="user", text=text),
    ]
    both: frozenset[Include] = frozenset(get_args(Include))
    whole = FORMATS[format](replace(exported(log), include=both))
    for shown in re.split(r"[\n\t]" if format == "tsv" else r"\n", whole):
        assert printable(f"|{shown}|") == f"|{shown}|"


READERS = [
    MarkdownIt("commonmark"),
    MarkdownIt("js-default", {"html": True}),  # with tables and strikethrough
]
WORDS = st.text(st.characters(exclude_categories=["Cs"])) | st.text(
    st.sampled_from(r"\`*_{}[]()<>#+-.!|~$^=&;:/'\"%@ ax1" + "\n\r\t")
)
# What begins a block, goes on with one, or makes another block of the lines above.
BLOCKS = [
    "# a", "#", "> a", "- a", "-", "+ a", "+", "* a", "1. a", "1.", "1) a", "123456789) a", "=",
    "==", "---", "- - -", "***", "___", "```", "~~~ a", "    a", "\ta", "a|b", "|a|b|", "-|-",
    "|-|-|", ":-:", ":-", "[x]: /y", "[^1]: y", "[x]", "<div>", "<!--", "-->", ":::", ": a",
    "a\\", "\\", "a", "  ", "", "", "www.a.b", "\x1b", "\u2028- a",
]  # fmt: skip
ENDS = ["\n", "\r\n", "\r"]


def lines_of(text: str) -> list[str]:
    """The lines of a turn as a reader is to see them."""
    lines = []
    for each in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        words = each.lstrip(" \t")
        indent = each.removesuffix(words).expandtabs(4)
        lines.append((indent + printable(words)).rstrip())
    return "\n".join(lines).strip().split("\n")


@given(WORDS, st.sampled_from(["user", "assistant"]))
@settings(deadline=None, max_examples=300)
def test_markdown_shows_exactly_what_was_said(text: str, role: str) -> None:
    said = Said(item_id="a", role="user" if role == "user" else "assistant", text=text)
    log: list[Record] = [Opened(session="k7f3a2", name=text, model=text), said]
    document = FORMATS["md"](exported(log))
    for reader in READERS:
        shown = reader.render(document)
        bare = re.sub(r"</?(h1|p|strong|em)>|<br( /)?>", "", shown)
        assert "<" not in bare
        words = html.unescape(bare).split()
        assert words.count("You:") + words.count("Assistant:") >= bool(text or role == "user")
        assert "".join(printable(text).split()) in "".join(words)


@given(
    WORDS | st.lists(st.sampled_from(BLOCKS) | st.sampled_from(ENDS)).map("".join),
    st.sampled_from(["interrupted", "complete"]),
)
@example("\na|b\n:-:", "complete")
@example("a\n  1. b\n\t- c\n\n     code\n   # d\n --\n  ::: e", "complete")
@settings(deadline=None, max_examples=500)
def test_markdown_keeps_the_lines_of_a_turn_in_one_paragraph(
    text: str, status: Literal["interrupted", "complete"]
) -> None:
    said = Said(item_id="a", role="user", text=f"I: {text}", status=status)
    document = FORMATS["md"](exported([said, replace(said, item_id="b", previous_item_id="a")]))
    mark = " <em>(interrupted)</em>" if status == "interrupted" else ""
    lines = lines_of(f"<strong>You:</strong> I: {text}")  # whose indentation Markdown does not show
    turn = "\n".join(each.lstrip() for each in lines) + mark
    for reader in READERS:
        shown = re.sub(r"<br(?: /)?>\n", "<br>", reader.render(document)).splitlines()[2:]
        assert [html.unescape(line.replace("<br>", "\n")) for line in shown] == [
            f"<p>{turn}</p>"
        ] * 2


def test_lines_are_kept_where_they_can_be_shown() -> None:
    text = "\nTwo steps:\r\n\r\n \t1. Sow.\r2) Wait - 3.5 weeks.\n- Reap \u2028+ eat.\x1b[2J\n \n"
    log: list[Record] = [Said(item_id="a", role="user", text=text)]
    assert FORMATS["md"](exported(log)).endswith(
        "\n\n**You:** Two steps:\\\n\\\n    1\\. Sow.\\\n2\\) Wait - 3.5 weeks.\\\n"
        "\\- Reap  + eat. \\[2J\n"
    )
    shown = ">Two steps:\n\n    1. Sow.\n2) Wait - 3.5 weeks.\n- Reap  + eat. [2J</p>"
    assert shown in FORMATS["html"](exported(log))
    assert FORMATS["txt"](exported(log)).count("\n") == 1


def test_markdown_opens_no_link() -> None:
    log: list[Record] = [
        Said(item_id="a", role="user", text="see https://example.com or www.x.org")
    ]
    assert r"https\://example.com or www\.x.org" in FORMATS["md"](exported(log))


def test_a_session_without_a_name_is_called_by_its_first_words() -> None:
    log: list[Record] = [Said(item_id="a", role="user", text="word " * 30)]
    assert FORMATS["md"](exported(log)).startswith("# word word ")
    assert len(FORMATS["md"](exported(log)).splitlines()[0]) < 65
    assert FORMATS["md"](exported([])).startswith("# k7f3a2\n")


def test_json_holds_everything_as_it_was_said() -> None:
    whole = json.loads(FORMATS["json"](exported(HOSTILE)))
    assert [turn["text"] for turn in whole["turns"]] == [
        turn.text for turn in Transcript.of(HOSTILE).turns
    ]
    messages = json.loads(FORMATS["openai"](exported(TALK)))
    assert {tuple(message) for message in messages} == {("role", "content")}
    assert [message["role"][0] for message in messages] == [*"uaauua"]


# `--include` ------------------------------------------------------------------------------------

TIMES: frozenset[Include] = frozenset({"times"})
USAGE: frozenset[Include] = frozenset({"usage"})


def test_times_stand_before_the_turns() -> None:
    log = [*TALK, Said(item_id="late", role="user", text="Still?", start_ms=3_725_999)]
    with_times = replace(exported(log), include=TIMES)
    text = FORMATS["txt"](with_times).splitlines()
    assert text[0] == "[0:00] You: How do bees find flowers?"
    assert text[2] == "[0:05] You: [not transcribed]"
    assert text[-1] == "[1:02:05] You: Still?"
    markdown = FORMATS["md"](with_times)
    assert "\n[0:06] **Assistant:** The waggle dance tells *(interrupted)*\n" in markdown
    assert "\\n<p>[0:05] <strong>You:</strong> <em>(not transcribed)</em></p>\\n" in repr(
        MarkdownIt("commonmark").render(markdown)
    )
    assert '<p class="who">You <span class="time">1:02:05</span></p>' in FORMATS["html"](with_times)


def test_usage_stands_at_the_end() -> None:
    line = "Tokens: 1500 in (600 cached, 1200 audio), 340 out (250 audio)"
    with_usage = replace(exported(TALK), include=USAGE)
    assert FORMATS["txt"](with_usage).splitlines()[-1] == line
    assert FORMATS["md"](with_usage).endswith(f"\n\n{line}\n")
    assert f'<p class="usage">{line}</p>\n</main>' in FORMATS["html"](with_usage)


@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"md", "txt", "html"}))
def test_other_formats_hold_it_anyway_or_cannot(format: Format) -> None:
    with_both = replace(exported(TALK), include=TIMES | USAGE)
    assert FORMATS[format](with_both) == FORMATS[format](exported(TALK))


# jsonl ------------------------------------------------------------------------------------------


def test_the_records_come_out_as_they_were_written() -> None:
    for log in (TALK, HOSTILE):
        written = exported(log).lines
        assert FORMATS["jsonl"](exported(log)).encode() == written
        parsed = [found for each in written.split(b"\n") if (found := parse(each))]
        assert [record for _, record in parsed] == log


def test_lines_of_a_newer_version_are_kept_and_what_is_no_object_is_not() -> None:
    lines = [
        b'\xef\xbb\xbf{"type": "mood", "is": [1, 2.50, null, true], "deep": {"a": "\xc3\xa4"}}\r',
        b"",
        b'{"type": "said", "torn',
        b'["a", "list"]',
        b"12",
        b'{"raw": "\xc2\x9b2J \xe2\x80\xae \x7f \\ud800 \xff"}',
        b'{"raw": "\x1b[2J"}',
        b'{"no number": NaN}',
        b'{"no number": -Infinity}',
        b'{"no number": 1e999}',
        b'{"too long": ' + b"1" * 5_000 + b"}",
        b'{"too deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"type": "said"} {"type": "said"}',
    ]
    shown = FORMATS["jsonl"](replace(exported([]), lines=b"\n".join(lines))).splitlines()
    assert shown == [
        '{"type": "mood", "is": [1, 2.5, null, true], "deep": {"a": "ä"}}',
        r'{"raw": "\u009b2J \u202e \u007f \ud800 �"}',
    ]


@given(st.binary() | st.text().map(str.encode), st.lists(records, max_size=5))
@settings(deadline=None)
def test_whatever_is_in_a_file_its_records_come_out(noise: bytes, log: list[Record]) -> None:
    lines = exported(log).lines + noise.replace(b"{", b"") + b"\n" + exported(log).lines
    shown = FORMATS["jsonl"](replace(exported([]), lines=lines))
    assert all(isinstance(json.loads(each), dict) for each in shown.splitlines())
    parsed = [found for each in shown.encode().split(b"\n") if (found := parse(each))]
    assert [record for _, record in parsed] == log + log
