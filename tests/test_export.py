"""A saved session comes out in every format, and nothing that was said takes effect there."""

import html
import json
import os
import re
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests.test_log import no_file_larger_than
from tests.test_sessions import save
from tests.test_transcript import records
from voicechat.cli.export import export
from voicechat.errors import OutputError, UnknownSessionError, UnreadableSessionError
from voicechat.history.export import FORMATS, Exported, Format
from voicechat.transcript import Opened, Record, Said, Speaking, Transcript, printable

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
            ]
        )
    ),
]


def exported(log: list[Record]) -> Exported:
    return Exported("k7f3a2", STARTED, Transcript.of(log))


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
    for line in FORMATS[format](exported(log)).split("\n"):
        assert printable(f"|{line}|") == f"|{line}|"


READERS = [
    MarkdownIt("commonmark"),
    MarkdownIt("js-default", {"html": True}),  # with tables and strikethrough
]
WORDS = st.text(st.characters(exclude_categories=["Cs"])) | st.text(
    st.sampled_from(r"\`*_{}[]()<>#+-.!|~$^=&;:/'\"%@ ax1" + "\n\t")
)


@given(WORDS, st.sampled_from(["user", "assistant"]))
@settings(deadline=None, max_examples=300)
def test_markdown_shows_exactly_what_was_said(text: str, role: str) -> None:
    said = Said(item_id="a", role="user" if role == "user" else "assistant", text=text)
    log: list[Record] = [Opened(session="k7f3a2", name=text, model=text), said]
    document = FORMATS["md"](exported(log))
    for reader in READERS:
        shown = reader.render(document)
        bare = re.sub(r"</?(h1|p|strong|em)>", "", shown)
        assert "<" not in bare
        words = html.unescape(bare).split()
        assert words.count("You:") + words.count("Assistant:") >= bool(text or role == "user")
        assert "".join(printable(text).split()) in "".join(words)


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


# `voicechat export` -----------------------------------------------------------------------------

PROGRAM = """
import sys
import typer
from voicechat.cli.export import export
app = typer.Typer()
app.command()(export)
app()
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save(tmp_path / "home" / "sessions", "k7f3a2", "Grüß Gott")
    monkeypatch.setenv("VOICECHAT_HOME", str(tmp_path / "home"))
    return tmp_path


def run(*arguments: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_an_export_goes_to_stdout_as_utf_8(home: Path, encoding: str) -> None:
    shown = run("k7f", "--format", "txt", encoding=encoding)
    assert (shown.stdout, shown.stderr, shown.returncode) == ("You: Grüß Gott\n".encode(), b"", 0)
    assert run("last").stdout.decode().startswith("# Grüß Gott\n")


def test_an_unknown_format_is_a_usage_error_that_names_the_known_ones(home: Path) -> None:
    shown = run("last", "--format", "pdf")
    assert shown.returncode == 2
    assert all(format.encode() in shown.stderr for format in FORMATS)
    assert b"Traceback" not in shown.stderr


def test_an_unknown_session_is_an_error(home: Path) -> None:
    with pytest.raises(UnknownSessionError):
        export("nobody")


def test_a_session_of_garbage_is_an_error(home: Path) -> None:
    (home / "home" / "sessions" / "20260822-093000-gggggg.jsonl").write_text("garbage")
    with pytest.raises(UnreadableSessionError):
        export("gggggg")


def test_an_export_goes_into_a_file(home: Path) -> None:
    export("last", "txt", home / "talk.txt")
    assert (home / "talk.txt").read_text() == "You: Grüß Gott\n"


def test_a_file_is_overwritten_only_by_force(home: Path) -> None:
    target = home / "talk.txt"
    target.write_text("precious")
    target.chmod(0o600)
    with pytest.raises(OutputError, match=r"exists already$") as caught:
        export("last", "txt", target)
    assert "--force" in caught.value.remedy
    assert target.read_text() == "precious"
    export("last", "txt", target, force=True)
    assert target.read_text() == "You: Grüß Gott\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_link_goes_on_being_a_link(home: Path) -> None:
    (home / "real.txt").write_text("old")
    (home / "link.txt").symlink_to(home / "real.txt")
    export("last", "txt", home / "link.txt", force=True)
    assert (home / "link.txt").is_symlink()
    assert (home / "real.txt").read_text() == "You: Grüß Gott\n"


@pytest.mark.parametrize("force", [False, True])
def test_where_nothing_can_be_written_is_an_error(home: Path, force: bool) -> None:
    (home / "file").touch()
    for target in (home, home / "missing" / "talk.txt", home / "file" / "x", Path("/proc/x.txt")):
        with pytest.raises(OutputError, match=re.escape(f"cannot write {target}: ")):
            export("last", "txt", target, force)


def test_a_device_is_written_to_and_not_replaced(home: Path) -> None:
    for force in (False, True):
        export("last", "txt", Path(os.devnull), force)
        assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


@pytest.mark.parametrize("force", [False, True])
def test_a_full_disk_leaves_no_half_file(home: Path, force: bool) -> None:
    if force:
        (home / "talk.txt").write_text("precious")
    before = sorted(home.iterdir())
    with no_file_larger_than(10), pytest.raises(OutputError, match="file too large"):
        export("last", "txt", home / "talk.txt", force)
    assert sorted(home.iterdir()) == before
    assert not force or (home / "talk.txt").read_text() == "precious"


def test_a_full_device_is_an_error(home: Path) -> None:
    with pytest.raises(OutputError, match="no space left on device"):
        export("last", "txt", Path("/dev/full"))
