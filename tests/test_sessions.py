"""Saved sessions are found by what a user would call them."""

import errno
import json
import os
import pty
import struct
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

import pytest
from rich.cells import cell_len
from rich.text import Text

from voicechat.errors import ExitCode, StoreError, UnknownSessionError, UnreadableSessionError
from voicechat.history.log import SessionLog, add_aside
from voicechat.history.reading import Sum, add_up, read
from voicechat.history.sessions import (
    SavedSession,
    find_session,
    list_sessions,
    load,
    load_and_count,
)
from voicechat.transcript import Closed, Opened, Renamed, Said, Transcript

DAY = datetime(2026, 8, 22, 9, 30, tzinfo=UTC)


def save(
    directory: Path, session: str, *words: str, day: int = 0, name: str = "", model: str = "m"
) -> Path:
    """Put down a session in which the user said these words, a minute each, some days later."""
    directory.mkdir(parents=True, exist_ok=True)
    began = DAY + timedelta(days=day)
    opened: dict[str, object] = {"type": "opened", "session": session, "model": model}
    lines = [opened | {"name": name} if name else opened]
    lines += [
        {
            "type": "said",
            "item_id": f"item_{n}",
            "role": "user",
            "text": text,
            "previous_item_id": f"item_{n - 1}" if n else None,
            "start_ms": n * 60_000,
            "end_ms": (n + 1) * 60_000,
        }
        for n, text in enumerate(words)
    ]
    path = directory / f"{began:%Y%m%d-%H%M%S}-{session}.jsonl"
    path.write_text(
        "".join(
            json.dumps({"at": (began + timedelta(minutes=n)).isoformat()} | line) + "\n"
            for n, line in enumerate(lines)
        )
    )
    return path


def listed(directory: Path, number: int = 0) -> list[str]:
    return [session.id for session in list_sessions(directory, number)[0]]


def test_a_saved_session_says_what_there_is_to_know(tmp_path: Path) -> None:
    path = save(tmp_path, "k7f3a2", "", "hello  there", "again", name="plans", model="gpt-realtime")
    assert list_sessions(tmp_path) == (
        [
            SavedSession(
                id="k7f3a2",
                path=path,
                name="plans",
                started=DAY,
                last_used=DAY + timedelta(minutes=3),
                duration_ms=180_000,
                turns=3,
                first_words="hello there",
                model="gpt-realtime",
                local=False,
                parent=None,
            )
        ],
        [],
    )


def test_the_last_used_is_first_whenever_it_was_begun(tmp_path: Path) -> None:
    old = save(tmp_path, "aaaaaa", "one")
    save(tmp_path, "bbbbbb", "two", day=1)
    save(tmp_path, "cccccc", "three", day=2)
    assert listed(tmp_path) == ["cccccc", "bbbbbb", "aaaaaa"]
    with closing(SessionLog(old)) as log:
        log.append(Closed(end_ms=1))
    assert listed(tmp_path) == ["aaaaaa", "cccccc", "bbbbbb"]
    assert listed(tmp_path, 2) == ["aaaaaa", "cccccc"]


def test_a_very_long_last_turn_does_not_hide_when_a_session_was_used(tmp_path: Path) -> None:
    save(tmp_path, "aaaaaa", "word " * 5000, day=3)
    save(tmp_path, "bbbbbb", "two", day=1)
    save(tmp_path, "cccccc", "three", day=4)
    assert listed(tmp_path, 1) == ["cccccc"]
    assert listed(tmp_path, 2) == ["cccccc", "aaaaaa"]


def test_a_session_in_which_nothing_was_said_is_not_listed(tmp_path: Path) -> None:
    for day in range(5):
        save(tmp_path, f"empty{day}", day=9)
    save(tmp_path, "bbbbbb", "words")
    SessionLog.create(tmp_path).close()  # another voicechat begins at this moment
    assert list_sessions(tmp_path) == list_sessions(tmp_path, 3)
    assert listed(tmp_path) == ["bbbbbb"]
    assert list_sessions(tmp_path)[1] == []


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    save(tmp_path, "bbbbbb", "words")
    garbage = tmp_path / "20260822-093000-aaaaaa.jsonl"
    garbage.write_bytes(os.urandom(5000))
    (tmp_path / "notes.txt").write_text("not ours")
    (tmp_path / "a-directory.jsonl").mkdir()
    os.mkfifo(tmp_path / "a-pipe.jsonl")  # opening it would wait for ever
    for number in (0, 1):
        sessions, unreadable = list_sessions(tmp_path, number)
        assert [session.id for session in sessions] == ["bbbbbb"]
        assert unreadable == [garbage]


def test_a_session_without_times_is_as_old_as_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"type": "said", "item_id": "a", "role": "user", "text": "hello"}\n')
    os.utime(path, (DAY.timestamp(), DAY.timestamp()))
    ((session,), _) = list_sessions(tmp_path)
    assert (session.id, session.started, session.last_used) == ("mine", DAY, DAY)
    assert find_session(tmp_path, "mine") == session


def test_what_is_known_of_a_session_is_safe_to_show(tmp_path: Path) -> None:
    save(tmp_path, "aaaaaa", "\x1b[2Jhello\u202e", name="a\nb\x9b", model="\x1b]0;x\x07")
    ((session,), _) = list_sessions(tmp_path)
    assert (session.first_words, session.name, session.model) == ("[2Jhello", "a b", "]0;x")


# Finding ----------------------------------------------------------------------------------------


def test_two_sessions_of_one_id_are_told_apart_by_their_files(tmp_path: Path) -> None:
    one = save(tmp_path, "aaaaaa", "hello")
    two = save(tmp_path, "aaaaaa", "world", day=1)
    with pytest.raises(UnknownSessionError, match="20260823-093000-aaaaaa") as caught:
        find_session(tmp_path, "aaaaaa")
    assert "name of its file" in caught.value.remedy
    assert find_session(tmp_path, one.stem).path == one
    assert find_session(tmp_path, two.stem).path == two
    assert find_session(tmp_path, two.name).path == two
    assert find_session(tmp_path, str(two)).path == two
    with pytest.raises(UnknownSessionError):
        find_session(tmp_path, f"/elsewhere/{two.name}")


def test_a_file_is_found_by_whatever_way_leads_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "real" / "sessions"
    path = save(directory, "aaaaaa", "one")
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(directory)
    ways = [
        f"./{path.name}",
        f"../sessions/{path.name}",
        path.name,
        str(path),
        str(tmp_path / "link" / "sessions" / path.name),
    ]
    for here in (directory, tmp_path / "link" / "sessions", Path("../sessions")):
        assert [find_session(here, way).id for way in ways] == ["aaaaaa"] * len(ways)


def test_giving_a_name_is_no_use_of_a_session(tmp_path: Path) -> None:
    old = save(tmp_path, "aaaaaa", "one")
    save(tmp_path, "bbbbbb", "two", day=1)
    add_aside(old, Renamed(name="Old"))
    assert listed(tmp_path) == ["bbbbbb", "aaaaaa"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save(tmp_path, "k7f3a2", "one", day=0, name="Küche")
    save(tmp_path, "k7m9xp", "two", day=3)
    save(tmp_path, "zz2345", "three", day=1, name="k7f3a2")
    save(tmp_path, "y2pq9r", "four", day=2, name="twin")
    save(tmp_path, "y8pq9r", "five", day=2, name="Twin")
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("last", "k7m9xp"),
        ("k7m9xp", "k7m9xp"),
        ("K7M9XP", "k7m9xp"),
        ("k7f3a2", "k7f3a2"),  # an id goes before the same name
        ("küche", "k7f3a2"),
        ("KU\u0308CHE", "k7f3a2"),
        ("k7m", "k7m9xp"),
        ("z", "zz2345"),
    ],
)
def test_a_session_is_found_by(saved: Path, wanted: str, found: str) -> None:
    assert find_session(saved, wanted).id == found


@pytest.mark.parametrize(
    "wanted",
    [
        *["nobody", "", " ", ".", "..", "/", "*", "[a-z]" * 1000, "k7f3a2.jsonl", "20260822"],
        *["../sessions/k7f3a2", "/etc/passwd", "\x00", "\x1b[2J", "k7f3a2\ud800x"],
    ],
)
def test_what_is_not_there_is_not_found(saved: Path, wanted: str) -> None:
    with pytest.raises(UnknownSessionError, match="no saved session is called") as caught:
        find_session(saved, wanted)
    assert "voicechat history list" in caught.value.remedy
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("wanted", "ids"), [("k7", ["k7m9xp", "k7f3a2"]), ("TWIN", ["y2pq9r", "y8pq9r"])]
)
def test_of_several_that_match_each_is_named(saved: Path, wanted: str, ids: list[str]) -> None:
    with pytest.raises(UnknownSessionError, match="any of 2 saved sessions") as caught:
        find_session(saved, wanted)
    assert all(f"{session} (" in caught.value.message for session in ids)


def test_of_many_that_match_five_are_named(tmp_path: Path) -> None:
    for n in range(2, 9):
        save(tmp_path, f"abcde{n}", "words", day=n)
    with pytest.raises(UnknownSessionError, match="any of 7 saved sessions") as caught:
        find_session(tmp_path, "a")
    assert caught.value.message.count("abcde") == 5
    assert caught.value.message.endswith(", ...")


def test_a_session_in_which_nothing_was_said_makes_nothing_ambiguous(saved: Path) -> None:
    save(saved, "zz9999", day=9)
    (saved / "20260101-000000-zz8888.jsonl").touch()
    assert find_session(saved, "z").id == "zz2345"
    assert find_session(saved, "last").id == "k7m9xp"
    assert find_session(saved, "zz9999").turns == 0


def test_a_file_of_garbage_is_found_and_said_to_be_unreadable(saved: Path) -> None:
    path = saved / "20260822-093000-gggggg.jsonl"
    path.write_bytes(b"\x00\xff" * 1000)
    for attempt in (lambda: find_session(saved, "ggg"), lambda: load(path)):
        with pytest.raises(UnreadableSessionError, match=str(path)) as caught:
            attempt()
        assert caught.value.exit_code == ExitCode.UNREADABLE_SESSION


@pytest.mark.parametrize("wanted", ["last", "k7f3a2", ""])
def test_where_nothing_is_saved_that_is_what_is_said(tmp_path: Path, wanted: str) -> None:
    for directory in (tmp_path, tmp_path / "never made"):
        with pytest.raises(UnknownSessionError, match="no conversation is saved in") as caught:
            find_session(directory, wanted)
        assert "voicechat talk" in caught.value.remedy
        assert list_sessions(directory) == ([], [])


def test_a_directory_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=os.strerror(errno.ENOTDIR).lower()) as caught:
        list_sessions(tmp_path / "file")
    assert "VOICECHAT_HOME" in caught.value.remedy


def test_loading_a_session_gives_what_was_said(tmp_path: Path) -> None:
    with closing(SessionLog.create(tmp_path)) as log:
        log.append(Opened(session=log.session, model="gpt-realtime"))
        log.append(Said(item_id="a", role="user", text="hello"))
        assert load(log.path) == Transcript.of(record for _, record in read(log.path))
    assert [turn.text for turn in load(find_session(tmp_path, log.session).path).turns] == ["hello"]


@pytest.mark.parametrize("wanted", ["last", "k7f3a2", "k7", "plans"])
def test_a_session_is_read_once_to_be_found_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    path = save(tmp_path, "k7f3a2", "hello", name="plans")
    with path.open("a") as file:
        file.write("\n \ngarbage\n")
    found: list[Path] = []

    def noted(path: Path) -> Sum:
        found.append(path)
        return add_up(path)

    for module in ("index", "sessions"):
        monkeypatch.setattr(f"voicechat.history.{module}.add_up", noted)
    transcript, passed_over = load_and_count(find_session(tmp_path, wanted))
    assert found == [path]
    assert [turn.text for turn in transcript.turns] == ["hello"]
    assert passed_over == 1


def test_what_another_process_writes_before_it_lets_go_is_loaded_too(tmp_path: Path) -> None:
    path = save(tmp_path, "k7f3a2", "hello")
    session = find_session(tmp_path, "last")
    with closing(SessionLog(path)) as log:
        log.append(Said(item_id="later", role="user", text="goodbye"))
    assert [turn.text for turn in load_and_count(session)[0].turns] == ["hello", "goodbye"]
    path.unlink()
    with pytest.raises(StoreError, match=str(path)):
        load_and_count(session)


def test_the_last_of_several_names_counts_however_it_is_written(tmp_path: Path) -> None:
    path = save(tmp_path, "k7f3a2", "hello", name="plans")
    with path.open("a") as file:
        file.write('{"type": "said", "item_id": "b", "role": "user", "text": "", "name": "x"}\n')
        file.write('{"type": "opened", "session": "k7f3a2", "na\\u006de": "idle"}\n')
        file.write('{"type": "opened", "session": "k7f3a2"}\n{"name": "torn\n')
    assert find_session(tmp_path, "IDLE").name == "idle"
    for wanted in ("plans", "x", "torn"):
        with pytest.raises(UnknownSessionError):
            find_session(tmp_path, wanted)


# `voicechat history list` -----------------------------------------------------------------------

PROGRAM = """
import typer
from voicechat.cli import history
app = typer.Typer()
app.add_typer(history.app, name="history")
app()
"""


def history_list(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, "history", "list", *options],
        env=os.environ | {"VOICECHAT_HOME": str(home), "TZ": "UTC"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def on_a_terminal(home: Path, columns: int) -> str:
    """What a terminal so wide gets to see of the list."""
    outside, inside = pty.openpty()
    ioctl(inside, TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "history", "list"],
        env=environment | {"VOICECHAT_HOME": str(home), "TZ": "UTC", "TERM": "xterm"},
        stdin=inside,
        stdout=inside,
    ) as process:
        os.close(inside)
        seen = b""
        while True:
            try:
                seen += os.read(outside, 4096)
            except OSError:  # EIO: the other end is closed
                break
    os.close(outside)
    assert process.returncode == 0
    return seen.decode()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    sessions = tmp_path / "sessions"
    save(sessions, "k7f3a2", "tell me about [bold]bees[/bold]", "more", model="gpt-realtime")
    save(sessions, "m2n3p4", "hi", day=1, name="再见再见再见再见再见再见再见再见再见", model="")
    save(sessions, "x9x9x9", *["words \x1b[2J " * 99] * 70, day=2, model="gpt-realtime-mini")
    return tmp_path


def test_the_list_is_plain_and_aligned_where_there_is_no_terminal(home: Path) -> None:
    shown = history_list(home)
    golden = Path(__file__).parent / "golden" / "list.txt"
    assert shown.stdout == golden.read_text()
    assert (shown.stderr, shown.returncode) == ("", 0)


@pytest.mark.parametrize("columns", [40, 60, 100, 200])
def test_on_a_terminal_every_session_has_one_line_that_fits(home: Path, columns: int) -> None:
    lines = [
        Text.from_ansi(line).plain.rstrip() for line in on_a_terminal(home, columns).splitlines()
    ]
    assert [line.split()[0] for line in lines] == ["Id", "x9x9x9", "m2n3p4", "k7f3a2"]
    assert all(cell_len(line) <= columns for line in lines)
    assert "2026-08-24" in lines[1]
    assert "再见" in lines[2]
    assert "tell me" in lines[3]
    assert ("[bold]bees[/bold]" in lines[3]) == (columns >= 100)
    assert ("gpt-realtime" in lines[3]) == (columns >= 100)
    assert ("2:00" in lines[3]) == (columns >= 60)


def test_the_list_for_scripts_has_stable_names(home: Path) -> None:
    shown = json.loads(history_list(home, "--json", "-n", "1").stdout)
    path = str(next((home / "sessions").glob("*-x9x9x9.jsonl")))
    assert shown == [
        {
            "id": "x9x9x9",
            "name": None,
            "started": "2026-08-24T09:30:00.000Z",
            "last_used": "2026-08-24T10:40:00.000Z",
            "duration_ms": 70 * 60_000,
            "turns": 70,
            "first_words": ("words [2J " * 99)[:80],
            "model": "gpt-realtime-mini",
            "local": False,
            "parent": None,
            "path": path,
        }
    ]


@pytest.mark.parametrize(("options", "number"), [([], 20), (["-n", "3"], 3), (["-n", "0"], 25)])
def test_so_many_are_listed(tmp_path: Path, options: list[str], number: int) -> None:
    for n in range(25):
        save(tmp_path / "sessions", f"abcd{n:02}", "words", day=n)
    ids = [line.split()[0] for line in history_list(tmp_path, *options).stdout.splitlines()]
    assert ids == ["ID", *(f"abcd{n:02}" for n in range(24, 24 - number, -1))]


def test_an_empty_list_says_so_and_is_no_error(tmp_path: Path) -> None:
    shown = history_list(tmp_path)
    assert (shown.stdout, shown.returncode) == ("", 0)
    assert "voicechat talk" in shown.stderr
    assert json.loads(history_list(tmp_path, "--json").stdout) == []


def test_what_cannot_be_read_is_told_beside_the_list(home: Path) -> None:
    (home / "sessions" / "20260101-000000-bad\x1b[2J.jsonl").write_text("garbage")
    shown = history_list(home, "--json")
    assert len(json.loads(shown.stdout)) == 3
    assert shown.stderr.startswith(f"1 file in {home / 'sessions'} cannot be read: ")
    assert shown.stderr.count("\n") == 1
    assert "\x1b" not in shown.stderr
    assert shown.returncode == 0
