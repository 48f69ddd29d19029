"""The picker of ``voicechat resume``: keys through a pipe, and pictures in a real terminal."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import eq
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from prompt_toolkit.utils import get_cwidth

from tests.tmux import Terminal, terminal
from tests.waiting import wait_until
from voicechat.cli.picker import Picker, fitted, rows_of, wrapped
from voicechat.history.log import line
from voicechat.history.sessions import SavedSession, list_sessions, load
from voicechat.transcript import Opened, Said, Turn

ROOT = Path(__file__).parent.parent
DAY = datetime(2024, 3, 9, 12, 0, tzinfo=UTC)
SCRIPT = """
import os, sys
from pathlib import Path
from voicechat.cli.picker import pick
from voicechat.history.sessions import list_sessions, load

read = []

def preview(session):
    read.append(session.id)
    if session.id == "gone":
        session.path.unlink()
    return load(session.path).spoken

Path("pid").write_text(str(os.getpid()))
chosen = pick(list_sessions(Path("sessions"))[0], preview)
print("chosen:", chosen and chosen.id, "read:", *read)
"""
KEYS = {"up": "\x1b[A", "down": "\x1b[B", "pageup": "\x1b[5~", "pagedown": "\x1b[6~"}
KEYS |= {"home": "\x1b[H", "end": "\x1b[F", "c-n": "\x0e", "c-p": "\x10"}


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def save(
    directory: Path,
    session: str,
    *words: str,
    at: datetime = DAY,
    name: str | None = None,
    model: str = "gpt-realtime",
) -> None:
    """Put down a session in which user and assistant said this by turns, a minute each."""
    directory.mkdir(exist_ok=True)
    data = line(Opened(session=session, name=name, model=model), at)
    for number, text in enumerate(words):
        said = Said(
            item_id=f"item_{number}",
            role="assistant" if number % 2 else "user",
            text=text,
            previous_item_id=f"item_{number - 1}" if number else None,
            start_ms=60_000 * number,
            end_ms=60_000 * (number + 1),
        )
        data += line(said, at)
    (directory / f"{at:%Y%m%d-%H%M%S}-{session}.jsonl").write_bytes(data)


@pytest.fixture
def sessions(tmp_path: Path) -> list[SavedSession]:
    """Thirty, the last used first: s00, s01, ..."""
    for number in range(30):
        at = DAY - timedelta(days=number)
        save(tmp_path / "sessions", f"s{number:02}", f"number{number}", "yes", at=at)
    return list_sessions(tmp_path / "sessions")[0]


def last_turns(session: SavedSession) -> Sequence[Turn]:
    return load(session.path).spoken


def chosen(
    sessions: Sequence[SavedSession],
    keys: str,
    preview: Callable[[SavedSession], Sequence[Turn]] = last_turns,
) -> str | None:
    """The id of the session that these keys choose."""
    with create_pipe_input() as pipe, create_app_session(input=pipe):
        pipe.send_text(keys)
        session = Picker(rows_of(sessions, DAY), preview, DummyOutput()).run()
    return session.id if session else None


@contextmanager
def picker(
    directory: Path, *, width: int = 80, height: int = 24, **environment: str
) -> Iterator[Terminal]:
    """The picker in a terminal that shows something before, and how it is set before and after."""
    pick = f'"{sys.executable}" -c "$SCRIPT" >out; echo "code $?"; cat out'
    script = f"trap : INT; echo before; stty -g >stty; {pick}; stty -g | diff stty -"
    command = ("sh", "-c", f'cd "$0"; {script}; echo after', directory)
    environment |= {"SCRIPT": SCRIPT, "PYTHONPATH": str(ROOT)}
    with terminal(command, width=width, height=height, **environment) as window:
        yield window


# Keys.


def test_enter_alone_takes_the_last_used(sessions: list[SavedSession]) -> None:
    assert chosen(sessions, "\r") == "s00"
    assert chosen(sessions[::-1], "\r") == "s00"


@pytest.mark.parametrize(
    ("names", "session"),
    [
        ("down", "s01"),
        ("c-n c-n c-n", "s03"),
        ("down down up", "s01"),
        ("down c-n c-p", "s01"),
        ("up", "s00"),
        ("pagedown", "s10"),
        ("pagedown pagedown pageup", "s10"),
        ("pagedown pagedown pagedown pagedown", "s29"),
        ("end", "s29"),
        ("end down", "s29"),
        ("end up home down", "s01"),
    ],
)
def test_keys_move_from_session_to_session(
    sessions: list[SavedSession], names: str, session: str
) -> None:
    assert chosen(sessions, "".join(KEYS[name] for name in names.split()) + "\r") == session


@pytest.mark.parametrize(
    "typed",
    [
        "weekend",
        "WEEK plans",
        "plans week",
        "k7f",
        "creme BRULEE",
        "crème",
        "strasse",
        "mini",
        "2024-03-01",
        "plans brulee mini 03-01",
        "plamm\x7f\x7fns",
        "nothing\x15plans",  # Ctrl-U
        "\x1b[200~plans\nweek\x1b[201~",  # pasted
    ],
)
def test_all_words_that_are_typed_must_occur_somewhere(
    tmp_path: Path, sessions: list[SavedSession], typed: str
) -> None:
    words, at = "Crème brûlée, Straße", DAY - timedelta(days=8)
    save(tmp_path / "sessions", "k7f3a2", words, name="Weekend plans", model="mini-1", at=at)
    assert chosen(list_sessions(tmp_path / "sessions")[0], f"{typed}\r") == "k7f3a2"


def test_the_first_that_matches_is_selected_whatever_was_before(
    sessions: list[SavedSession],
) -> None:
    assert chosen(sessions, KEYS["end"] + "number2\r") == "s02"
    assert chosen(sessions, "number2" + KEYS["down"] + "\r") == "s20"


def test_enter_does_nothing_where_nothing_matches(sessions: list[SavedSession]) -> None:
    assert chosen(sessions, "number7 xyz\r" + "\x7f" * 4 + "\r") == "s07"
    assert chosen([], "\r\x03") is None


@pytest.mark.parametrize("key", ["\x1b", "\x03", "\x1b\x1b"])
def test_esc_and_ctrl_c_leave_without_choosing(sessions: list[SavedSession], key: str) -> None:
    assert chosen(sessions, f"wor{key}") is None


def test_alt_and_a_key_is_not_esc(sessions: list[SavedSession]) -> None:
    assert chosen(sessions, "\x1bx\x1bb\x1bOQ\x1a\r") == "s00"


def test_the_end_of_input_leaves(sessions: list[SavedSession]) -> None:
    with create_pipe_input() as pipe, create_app_session(input=pipe):
        pipe.close()
        assert Picker(rows_of(sessions, DAY), last_turns, DummyOutput()).run() is None


def test_esc_is_known_within_a_tenth_of_a_second(sessions: list[SavedSession]) -> None:
    chosen(sessions, "\r")  # everything is imported

    def took(keys: str) -> float:
        began = time.perf_counter()
        chosen(sessions, keys)
        return time.perf_counter() - began

    assert any(took("\x1b") - took("\r") < 0.2 for _ in range(5))  # some, on a busy machine


def test_ten_thousand_sessions_are_searched_in_a_moment(sessions: list[SavedSession]) -> None:
    many = [
        replace(sessions[0], id=f"id{number:05}", first_words=f"Crème {number} " * 5)
        for number in range(10_000)
    ]
    rows = rows_of(many, DAY)
    typed = "creme 9999 id0999"
    began = time.process_time()
    with create_pipe_input() as pipe, create_app_session(input=pipe):
        pipe.send_text(f"{typed}\r")
        session = Picker(rows, last_turns, DummyOutput()).run()
    assert session
    assert session.id == "id09999"
    assert (time.process_time() - began) / len(typed) < 0.1


# Previews.


def test_a_slow_preview_holds_up_no_key(sessions: list[SavedSession]) -> None:
    may_end, read = Event(), []

    def slow(session: SavedSession) -> Sequence[Turn]:
        read.append(session.id)
        may_end.wait(60)
        return []

    began = time.perf_counter()
    assert chosen(sessions, KEYS["down"] * 2 + "\r", slow) == "s02"
    assert chosen(sessions, "\x1b", slow) is None
    assert time.perf_counter() - began < 30
    assert len(read) <= 2  # of each of the two pickers at most the one under the cursor
    may_end.set()


def test_only_what_is_looked_at_is_read_and_only_once(
    tmp_path: Path, sessions: list[SavedSession]
) -> None:
    with picker(tmp_path) as window:
        window.wait_for("You: number0")
        window.send("Down")
        window.wait_for("2 of 30", "You: number1")
        window.send("Up")
        window.wait_for("You: number0")
        window.send("Down")
        window.wait_for("2 of 30", "You: number1")
        window.send("Enter")
        window.wait_for("chosen: s01 read: s00 s01")


def test_an_error_is_shown_in_place_of_the_preview(tmp_path: Path) -> None:
    save(tmp_path / "sessions", "gone", "hello")
    save(tmp_path / "sessions", "there", "how are you?", at=DAY - timedelta(days=1))
    with picker(tmp_path) as window:
        screen = window.wait_for("gone.jsonl")
        assert "1 of 2. Enter resumes it, Esc leaves." in screen
        window.send("Down")
        window.wait_for("You: how are you?")
        window.send("Enter")
        window.wait_for("chosen: there")


def test_a_long_turn_leaves_room_for_the_others(tmp_path: Path) -> None:
    save(tmp_path / "sessions", "s", "well " * 100, "short", "no " * 100)
    with picker(tmp_path) as window:
        screen = window.wait_for("You: no no")
    assert [text[:9] for text in screen[4:]] == [
        "You: well",
        "well well",
        "Assistant",
        "You: no n",
        "no no no ",
        "no no no ",
    ]
    assert (screen[5][-1], screen[-1][-1]) == ("…", "…")


# Pictures.

PICTURE_80 = """\
before
Resume: gpt
> 2024-03-10      4:00    4 turns  שלום [31m
  2024-03-09      2:00    2 turns  number0
  2024-03-08      2:00    2 turns  number1
  2024-03-07      2:00    2 turns  number2
  2024-03-06      2:00    2 turns  number3
  2024-03-05      2:00    2 turns  number4
1 of 31. Enter resumes it, Esc leaves.
You: 日本語のテキスト日本語のテキスト日本語のテキスト日本語のテキスト日本語のテ
キスト日本語のテキスト日本語のテキスト日本語のテキスト日本語のテキスト
Assistant: Ja.
You: 日本語のテキスト日本語のテキスト日本語のテキスト日本語のテキスト日本語のテ
キスト日本語のテキスト日本語のテキスト日本語のテキスト日本語のテキスト
Assistant: Ja. 👩👩👧 👍"""
NOTHING_80 = """\
before
Resume: gpt none
  No saved session has all these words.





Esc leaves, Backspace takes back what you typed."""
PICTURE_40 = """\
before
Resume:
> 2024-03-10    2  日本語のテキスト日…
  2024-03-09    2  number0
1 of 31. Enter resumes it, Esc leaves.
You: 日本語のテキスト日本語のテキスト…
Assistant: A long answer, A long answe…"""
ROWS = {
    True: [
        "> 2024-03-09      2:00    2 turns  number0",
        "  2024-03-08      2:00    2 turns  number1",
        "  2024-03-07      2:00    2 turns  number2",
        "  2024-03-06      2:00    2 turns  number3",
        "  2024-03-05      2:00    2 turns  number4",
        "  2024-03-04      2:00    2 turns  number5",
        "  2024-03-03      2:00    2 turns  number6",
        "  2024-03-02      2:00    2 turns  number7",
        "  2024-03-01      2:00    2 turns  number8",
        "  2024-02-29      2:00    2 turns  number9",
    ],
    False: [
        "> 2024-03-09    2  number0",
        "  2024-03-08    2  number1",
        "  2024-03-07    2  number2",
        "  2024-03-06    2  number3",
        "  2024-03-05    2  number4",
        "  2024-03-04    2  number5",
    ],
}
"""In a terminal that is wide, and in one that is not."""


def test_the_picture_fits_into_80_columns(tmp_path: Path, sessions: list[SavedSession]) -> None:
    words, at = "日本語のテキスト" * 9, DAY + timedelta(days=1)
    texts = (words, "Ja.", words, "Ja. 👩\u200d👩\u200d👧 👍🏽")
    save(tmp_path / "sessions", "s", *texts, at=at, name="שלום\x1b[31m")
    with picker(tmp_path) as window:
        window.wait_for("Assistant: Ja.")
        window.type("gpt")
        assert window.wait_for("Resume: gpt", "Ja. 👩") == PICTURE_80.splitlines()
        window.send("Down", "PageDown")
        window.wait_for("8 of 31", "> 2024-03-03", "You: number6")
        window.type(" none")
        assert window.wait_for("Backspace") == NOTHING_80.splitlines()
        window.send("Escape")
        assert window.wait_for("after")[:2] == ["before", "code 0"]


def test_the_picture_fits_into_40_columns_and_10_lines(
    tmp_path: Path, sessions: list[SavedSession]
) -> None:
    texts = ("日本語のテキスト" * 9, "A long answer, " * 9)
    save(tmp_path / "sessions", "s", *texts, at=DAY + timedelta(days=1))
    with picker(tmp_path, width=40, height=10) as window:
        assert window.wait_for("Assistant: A") == PICTURE_40.splitlines()


def test_a_new_size_gives_a_new_picture_and_leaves_nothing_of_the_old(
    tmp_path: Path, sessions: list[SavedSession]
) -> None:
    with picker(tmp_path) as window:
        window.wait_for("You: number0")
        for width, height, rows in ((50, 24, 6), (200, 50, 10), (120, 30, 10), (50, 20, 5)):
            window.resize(width, height)
            shown = ["before", "Resume:", *ROWS[width >= 60][:rows]]
            shown += ["1 of 30. Enter resumes it, Esc leaves.", "You: number0", "Assistant: yes"]
            window.wait_until(partial(eq, shown))
        window.send("Enter")
        assert window.wait_for("after") == ["before", "code 0", "chosen: s00 read: s00", "after"]


def test_a_larger_list_is_full_at_its_end_too(tmp_path: Path, sessions: list[SavedSession]) -> None:
    with picker(tmp_path) as window:
        window.wait_for("You: number0")
        window.send("End")
        window.wait_for("> 2024-02-09")
        window.resize(80, 40)
        window.wait_until(lambda screen: len(screen) == 1 + 1 + 10 + 1 + 2)
        assert "number20" in window.screen[2]


@pytest.mark.parametrize("size", [(10, 3), (30, 2), (2, 2), (1, 1)])
def test_no_size_is_too_small(
    tmp_path: Path, sessions: list[SavedSession], size: tuple[int, int]
) -> None:
    with picker(tmp_path) as window:
        window.wait_for("You: number0")
        window.resize(*size)
        window.send("Down", "PageDown", "Home", "Down", "Enter")
        window.resize(80, 24)
        window.wait_for("code 0", "chosen: s01 read: s00", "after")


@pytest.mark.parametrize(
    ("leave", "outcome"),
    [
        (["Enter"], "chosen: s00 read: s00"),
        (["Escape"], "chosen: None read: s00"),
        (["C-c"], "chosen: None read: s00"),
    ],
)
@pytest.mark.parametrize("size", [(80, 24), (40, 10)])
def test_it_leaves_the_terminal_as_it_was(
    tmp_path: Path,
    sessions: list[SavedSession],
    leave: list[str],
    outcome: str,
    size: tuple[int, int],
) -> None:
    with picker(tmp_path, width=size[0], height=size[1]) as window:
        window.wait_for("You: number0")
        window.send(*leave)
        assert window.wait_for("after") == ["before", "code 0", outcome, "after"]
        assert window.scrollback == window.screen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finds_the_terminal_as_it_was(
    tmp_path: Path, sessions: list[SavedSession], number: signal.Signals
) -> None:
    with picker(tmp_path) as window:
        window.wait_for("You: number0")
        os.kill(int((tmp_path / "pid").read_text()), number)
        code = 0 if number == signal.SIGINT else 128 + number
        screen = window.wait_for("after")
        assert screen[0] == "before"
        assert f"code {code}" in screen
        assert len(screen) <= 4


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_ends_with_its_terminal(tmp_path: Path, sessions: list[SavedSession]) -> None:
    command = ("sh", "-c", f'cd "$0"; exec "{sys.executable}" -c "$SCRIPT"', tmp_path)
    with terminal(command, SCRIPT=SCRIPT, PYTHONPATH=str(ROOT)) as window:
        window.wait_for("You: number0")
        pid = int((tmp_path / "pid").read_text())
        window.hang_up()
        wait_until(lambda: not is_there(pid))


def test_at_the_top_of_the_screen_it_leaves_nothing_above_it_either(
    tmp_path: Path, sessions: list[SavedSession]
) -> None:
    command = ("sh", "-c", f'cd "$0"; "{sys.executable}" -c "$SCRIPT"', tmp_path)
    with terminal(command, SCRIPT=SCRIPT, PYTHONPATH=str(ROOT)) as window:
        window.wait_for("You: number0")
        window.send("Enter")
        window.wait_for_end()
        assert window.scrollback == ["chosen: s00 read: s00"]


@pytest.mark.parametrize(("no_color", "is_coloured"), [("", True), ("1", False)])
def test_no_color_means_none(
    tmp_path: Path, sessions: list[SavedSession], no_color: str, is_coloured: bool
) -> None:
    with picker(tmp_path, NO_COLOR=no_color) as window:
        window.wait_for("You: number0")
        assert ("\x1b[36m" in window.styled) == is_coloured
        assert re.search(r"7m[^ ]*> 2024", window.styled)


@pytest.mark.parametrize(
    ("typed", "outcome"),
    [
        ("\n", "chosen: s00"),
        ("3\n", "chosen: s02"),
        ("number2\n3\n", "chosen: s21"),
        ("none\n\nnumber17\n\n", "chosen: s17"),
        ("\xff\n", "chosen: None"),
        ("", "chosen: None"),
    ],
)
def test_a_dumb_terminal_gets_a_numbered_list(
    tmp_path: Path, sessions: list[SavedSession], typed: str, outcome: str
) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=typed.encode("latin-1"),
        capture_output=True,
        cwd=tmp_path,
        env=os.environ | {"TERM": "dumb", "PYTHONPATH": str(ROOT), "COLUMNS": "40"},
        check=True,
        timeout=60,
    )
    assert run.stdout.decode() == f"{outcome} read:\n"
    err = run.stderr.decode()
    assert err.startswith(" 1  2024-03-09    2  number0\n 2  2024-03-08    2  number1\n")
    assert "\x1b" not in err


def test_ctrl_c_leaves_a_dumb_terminal_too(tmp_path: Path, sessions: list[SavedSession]) -> None:
    with picker(tmp_path, TERM="dumb") as window:
        window.wait_for("Resume:")
        window.interrupt(lambda screen: "after" in screen)
        assert {"code 0", "chosen: None read:"} <= set(window.screen)


# Texts.


def test_rows_say_kindly_when_a_session_was_last_used(sessions: list[SavedSession]) -> None:
    now = DAY.replace(hour=14, minute=5)
    told = [
        replace(sessions[0], last_used=now - timedelta(hours=hours)) for hours in (-24, 0, 14, 15)
    ]
    told.append(replace(sessions[0], last_used=now - timedelta(hours=38, minutes=6)))
    assert [row.when for row in rows_of(told, now)] == [
        "2024-03-10",
        "today 14:05",
        "today 00:05",
        "yesterday",
        "2024-03-07",
    ]


@given(st.text(), st.integers(-1, 12))
def test_fitted_text_fits(text: str, width: int) -> None:
    assert get_cwidth(fitted(text, width)) <= max(0, width)
    assert fitted(text, get_cwidth(text)) == text


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [
        ("one two", 7, "one two"),
        ("one two", 6, "one t…"),
        ("one two", 5, "one…"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("e\u0301e\u0301e\u0301", 2, "e\u0301…"),
        ("👍👍", 3, "👍…"),
        ("שלום", 3, "של…"),
        ("ab", 1, "…"),
        ("ab", 0, ""),
    ],
)
def test_text_is_cut_between_characters_by_their_width(text: str, width: int, short: str) -> None:
    assert fitted(text, width) == short


@given(
    st.text(st.sampled_from("ab 日👍\u05d0\u0301"), max_size=40).map(lambda text: text.strip()),
    st.integers(2, 12),
)
def test_wrapped_lines_fit_and_lose_no_letter(text: str, width: int) -> None:
    lines = wrapped(text, width, 100)
    assert all(get_cwidth(each) <= width for each in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert len(wrapped(text, width, 2)) <= 2


def test_lines_break_between_words() -> None:
    assert wrapped("one two three four", 8, 9) == ["one two", "three", "four"]
    assert wrapped("one two three four", 8, 2) == ["one two", "three f…"]


def test_other_commands_do_without_prompt_toolkit() -> None:
    look = "import sys, voicechat.cli.main as main; main.program(); "
    look += "sys.exit('prompt_toolkit' in sys.modules)"
    subprocess.run([sys.executable, "-c", look], cwd=ROOT, check=True)
