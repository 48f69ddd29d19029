"""``voicechat history``: what is shown, found, renamed and deleted, as a user types it."""

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSCTTY

import pytest

from tests.program import bound_by_permissions, locked, voicechat
from tests.test_sessions import save
from voicechat.errors import ExitCode
from voicechat.history.log import SessionLog
from voicechat.history.reading import add_up
from voicechat.transcript import Said

HOSTILE = "\x1b[2J\x1b]0;owned\x07 <b>bold</b> \u202eright\u202c \x9b31m"


@pytest.fixture
def sessions(home: Path) -> Path:
    directory = home / "sessions"
    save(directory, "aaaaaa", "How do bees find flowers?", "By dancing.", name="Bees")
    save(directory, "bbbbbb", "Zur Küche, bitte.", HOSTILE, day=1, name=HOSTILE)
    save(directory, "cccccc", "plans", day=2)
    return directory


def test_show_tells_what_was_said_when_and_what_it_took(sessions: Path) -> None:
    path = next(sessions.glob("*-aaaaaa*"))
    usage = {"type": "usage", "model": "gpt-realtime-2.1-2026-05-01", "input_tokens": 8000}
    with path.open("a") as file:
        file.write(json.dumps(usage | {"input_audio_tokens": 6000, "output_tokens": 100}) + "\n")
    run = voicechat("history", "show", "bees", TZ="UTC")
    assert run.lines == [
        'aaaaaa "Bees"',
        "2026-08-22 09:30 · m · 2 turns · 2 min 0 s · 8.1k tokens (~$0.20)",
        "",
        "  1   0:00  You: How do bees find flowers?",
        "  2   1:00  You: By dancing.",
    ]
    shown = voicechat("history", "show", "bees", "--json")
    assert shown.out == voicechat("export", "bees", "--format", "json").out


def test_search_shows_session_turn_and_the_words_around(sessions: Path) -> None:
    long = "one two three " * 20 + "Needle" + " four five six" * 20
    save(sessions, "dddddd", "hay", long, day=4)
    assert voicechat("history", "search", "needle").lines == [
        "dddddd    2  You: ...two three one two three one two three Needle four five six "
        "four five six four five..."
    ]


def test_where_nobody_writes_blanks_the_words_around_are_letters(sessions: Path) -> None:
    save(sessions, "dddddd", "は" * 60 + "友達" + "が" * 60, day=4)
    assert voicechat("history", "search", "友達").lines == [
        f"dddddd    1  You: ...{'は' * 40}友達{'が' * 40}..."
    ]


def test_search_for_scripts(sessions: Path) -> None:
    [found] = json.loads(voicechat("history", "search", "KUCHE,", "bitte", "--json").out)
    text, start, end = (found.pop(name) for name in ("text", "start", "end"))
    assert text[start:end] == "Küche, bitte"
    assert found == {
        "session": "bbbbbb",
        "name": "[2J ]0;owned  <b>bold</b>  right   31m",
        "last_used": "2026-08-23T09:32:00.000Z",
        "turn": 1,
        "item_id": "item_0",
        "role": "user",
        "start_ms": 0,
    }
    nothing = voicechat("history", "search", "nowhere")
    assert (nothing.code, nothing.out) == (0, "")
    assert "nowhere" in nothing.err
    assert json.loads(voicechat("history", "search", "nowhere", "--json").out) == []
    assert voicechat("history", "search", " ").code == ExitCode.USAGE


def test_list_finds_by_what_was_said_and_by_name(sessions: Path) -> None:
    for text, ids in (("DANCING", ["aaaaaa"]), ("bees", ["aaaaaa"]), ("bbb", ["bbbbbb"])):
        run = voicechat("history", "list", "-q", text, "--json")
        assert [each["id"] for each in json.loads(run.out)] == ids
    run = voicechat("history", "list", "-q", "%")
    assert (run.code, run.out) == (0, "")
    assert "'%'" in run.err


@pytest.mark.parametrize(
    "command",
    [
        *(["list"], ["list", "--json"], ["show", "bbbbbb"], ["show", "bbbbbb", "--json"]),
        *(["search", "owned"], ["search", "owned", "--json"], ["rm", "-y", "bbbbbb"]),
        *(["rename", "bbbbbb", HOSTILE], ["check", "bbbbbb"], ["path", "\x1b[2J"]),
        *(["search", "\x1b]"], ["list", "-q", "\x1b]"]),
    ],
)
def test_nothing_that_was_said_acts_on_the_terminal(sessions: Path, command: list[str]) -> None:
    run = voicechat("history", *command)
    assert run.out + run.err
    for letter in "\x1b\x07\x9b\u202e":
        assert letter not in run.out + run.err


# Names --------------------------------------------------------------------------------------------


def test_a_session_gets_another_name_even_while_somebody_talks_in_it(sessions: Path) -> None:
    path = next(sessions.glob("*-aaaaaa*"))
    with closing(SessionLog(path)) as log:
        log.append(Said(item_id="x", role="user", text="still talking"))
        assert voicechat("history", "rename", "aaaaaa", " Honey: <b>/../x</b> ").code == 0
        log.append(Said(item_id="y", role="user", text="and on", previous_item_id="x"))
    assert voicechat("history", "show", "honey: <b>/../x</b>").lines[0].startswith("aaaaaa ")
    assert [turn.text for turn in add_up(path).transcript.turns][-2:] == ["still talking", "and on"]
    assert voicechat("history", "show", "Bees").code == ExitCode.UNKNOWN_SESSION


def test_a_torn_line_does_not_swallow_a_new_name(sessions: Path) -> None:
    path = next(sessions.glob("*-aaaaaa*"))
    with path.open("a") as file:
        file.write('{"type": "said", "item_id": "a", "te')
    assert voicechat("history", "rename", "aaaaaa", "Honey").code == 0
    assert add_up(path).transcript.name == "Honey"
    assert add_up(path).passed_over == 1


@pytest.mark.parametrize("name", ["", " ", "last", "LAST", "x" * 81])
def test_some_names_are_none(sessions: Path, name: str) -> None:
    run = voicechat("history", "rename", "aaaaaa", name)
    assert run.code == ExitCode.USAGE
    assert add_up(next(sessions.glob("*-aaaaaa*"))).transcript.name == "Bees"


def test_links_in_circles_or_into_a_locked_directory_hide_no_session(
    sessions: Path, tmp_path: Path
) -> None:
    (sessions / "loop.jsonl").symlink_to("loop.jsonl")
    there = next(sessions.glob("*-cccccc*"))
    assert len(json.loads(voicechat("history", "list", "--json").out)) == 3  # so the index has all
    (tmp_path / "locked").mkdir()
    there.rename(tmp_path / "locked" / there.name)
    there.symlink_to(tmp_path / "locked" / there.name)
    store = f"sqlite:///{tmp_path / 'store.db'}"
    with locked(tmp_path / "locked"):
        run = voicechat("history", "list", "--json", preexec=bound_by_permissions)
        assert {row["id"] for row in json.loads(run.out)} == {"aaaaaa", "bbbbbb"}
        for command in (
            ["history", "show", "aaaaaa"],
            ["export", "aaaaaa"],
            ["history", "check"],
            ["history", "sync", store],
            ["history", "rm", "-y", "aaaaaa"],
        ):
            run = voicechat(*command, preexec=bound_by_permissions)
            assert run.code == 0, (command, run.err)
    assert len(json.loads(voicechat("history", "list", "--json").out)) == 2


# Deleting -----------------------------------------------------------------------------------------


def test_rm_deletes_sessions_and_their_recordings(sessions: Path, home: Path) -> None:
    path = next(sessions.glob("*-aaaaaa*"))
    recording = path.with_name(f"{path.stem}.500.flac")
    recording.write_bytes(b"sound")
    path.with_name("20260101-000000-aaaaaa.jsonl.old-2").write_bytes(b"damaged")
    run = voicechat("history", "rm", "-y", "Bees", "aaa", "cccccc")
    assert run.code == 0
    assert run.out == ""
    assert run.err.count("Deleted ") == 2
    assert [each.name[-12:-6] for each in sessions.iterdir()] == ["bbbbbb"]
    words = (home / "deleted.jsonl").read_text()
    assert '"20260822-093000-aaaaaa"' in words
    assert "bees" not in words.lower()


def test_rm_deletes_nothing_if_one_is_unknown_in_use_or_nobody_can_be_asked(
    sessions: Path,
) -> None:
    assert voicechat("history", "rm", "-y", "aaaaaa", "zzz").code == ExitCode.UNKNOWN_SESSION
    assert voicechat("history", "rm", "aaaaaa").code == ExitCode.USAGE
    with closing(SessionLog(next(sessions.glob("*-aaaaaa*")))):
        assert voicechat("history", "rm", "-y", "aaaaaa").code == ExitCode.SESSION_IN_USE
    assert len(list(sessions.iterdir())) == 3


def test_rm_leaves_everything_if_it_cannot_be_remembered(sessions: Path, home: Path) -> None:
    (home / "deleted.jsonl").mkdir()
    run = voicechat("history", "rm", "-y", "aaaaaa")
    assert run.code == ExitCode.STORE
    assert "deleted.jsonl" in run.err
    assert len(list(sessions.iterdir())) == 3


@pytest.mark.parametrize(("answer", "left"), [(b"y\n", 2), (b"n\n", 3), (b"\x03", 3)])
def test_rm_asks_on_a_terminal(sessions: Path, answer: bytes, left: int) -> None:
    outside, inside = pty.openpty()
    command = [sys.executable, "-m", "voicechat", "history", "rm", "aaaaaa"]

    def take_terminal() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # of a job in the background, it is ignored
        ioctl(0, TIOCSCTTY, 0)

    with subprocess.Popen(
        command,
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
        preexec_fn=take_terminal,
    ) as process:
        os.close(inside)
        seen = b""
        while b"[y/N]" not in seen:
            seen += os.read(outside, 4096)
        assert b'aaaaaa "Bees" (2 turns)' in seen
        while process.poll() is None:
            # Ctrl-C between Python's prompt and its read wakes nobody: press it again.
            os.write(outside, answer)
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
        with suppress(OSError):  # is how a terminal without programs ends
            while True:
                seen += os.read(outside, 4096)
    os.close(outside)
    assert b"Traceback" not in seen
    assert len(list(sessions.iterdir())) == left
    assert process.wait() == (ExitCode.INTERRUPTED if answer == b"\x03" else 0)


def test_a_terminal_that_says_it_has_no_columns_is_believed_in_nothing(sessions: Path) -> None:
    expected = voicechat("history", "list").out
    assert voicechat("history", "list", COLUMNS="0").out == expected != ""


def test_path_is_for_scripts(sessions: Path, home: Path) -> None:
    assert voicechat("history", "path").out == f"{home}/sessions\n"
    assert voicechat("history", "path", "bees").out == f"{next(sessions.glob('*-aaaaaa*'))}\n"
    assert voicechat("history", "path", "nobody").code == ExitCode.UNKNOWN_SESSION


def test_a_script_finds_a_file_whose_name_is_no_utf_8(tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/J\xfcrgen")
    save(Path(odd) / "sessions", "aaaaaa", "one")
    command = 'cat "$(' + shlex.quote(sys.executable) + ' -m voicechat history path last)"'
    for variables in ({}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}):
        run = subprocess.run(
            ["sh", "-c", command],
            env=os.environ | {"VOICECHAT_HOME": odd} | variables,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert (run.returncode, b'"one"' in run.stdout) == (0, True), run.stderr


# Several processes --------------------------------------------------------------------------------

APPENDING = """
import sys
from pathlib import Path
from time import sleep
from voicechat.errors import SessionInUseError
from voicechat.history.log import SessionLog, add_aside
from voicechat.history.sessions import list_sessions
from voicechat.history.stores.opening import open_store
from voicechat.history.sync import sync
from voicechat.transcript import Renamed, Said
directory, url, who, count = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
store = open_store(url)
paths = sorted(directory.glob("*.jsonl"))
done = 0
while done < count:
    path = paths[done // 50 % len(paths)]
    try:
        log = SessionLog(path)
    except SessionInUseError:
        sleep(0.001)
        continue
    for _ in range(50):
        text = f"{who} {done} " + "x" * (done % 300)
        log.append(Said(item_id=f"{who}{done}", role="user", text=text))
        done += 1
    log.close()
    add_aside(path, Renamed(name=f"{who} {done}"))
    if done % 500 == 0:
        assert len(list_sessions(directory, 0)[0]) == len(paths)
        tally = sync(directory, store)
        assert not (tally.forked or tally.damaged or tally.fetched), tally
store.close()
"""


def test_two_processes_at_once_lose_nothing_and_mix_no_lines(
    sessions: Path, tmp_path: Path
) -> None:
    each = 5000
    url = f"sqlite:///{tmp_path}/store.db"
    command = [sys.executable, "-c", APPENDING, str(sessions), url]
    running = [subprocess.Popen([*command, who, str(each)]) for who in ("a", "b")]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    texts: list[str] = []
    names = 0
    for path in sessions.glob("*.jsonl"):
        for line in path.read_bytes().splitlines():
            value = json.loads(line)
            names += value["type"] == "renamed"
            if value["type"] == "said" and value["text"][1:2] == " ":
                texts.append(value["text"])
    assert sorted(texts) == sorted(
        f"{who} {n} " + "x" * (n % 300) for who in ("a", "b") for n in range(each)
    )
    assert names == 2 * each // 50
    for home in (sessions.parent, tmp_path / "other"):
        assert voicechat("history", "sync", url, VOICECHAT_HOME=str(home)).code == 0
    for path in sessions.glob("*.jsonl"):
        assert (tmp_path / "other" / "sessions" / path.name).read_bytes() == path.read_bytes()


@pytest.fixture
def stopped(sessions: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has opened a session's file and not yet locked it."""
    path = next(sessions.glob("*-aaaaaa*"))
    program = (
        "import os, signal, sys; from pathlib import Path; import voicechat.history.log as log\n"
        "from voicechat.transcript import Said\n"
        "lock = log._lock\n"
        "def late(descriptor):\n"
        "    log._lock = lock; print(flush=True); sys.stdin.readline(); lock(descriptor)\n"
        "log._lock = late\n"
        "try: log.SessionLog(Path(sys.argv[1])).append(Said(item_id='z', role='user', text='z'))\n"
        "except log.StoreError: sys.exit(8)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_what_is_written_never_goes_to_a_file_that_was_just_deleted_or_replaced(
    sessions: Path, stopped: subprocess.Popen[bytes]
) -> None:
    path = next(sessions.glob("*-aaaaaa*"))
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)  # another file of this name
    stopped.communicate(b"\n", timeout=20)
    assert stopped.returncode == 0
    assert path.read_bytes().startswith(data)
    assert b'"z"' in path.read_bytes()


def test_a_session_that_is_deleted_while_it_is_opened_is_an_error(
    sessions: Path, stopped: subprocess.Popen[bytes]
) -> None:
    next(sessions.glob("*-aaaaaa*")).unlink()
    stopped.communicate(b"\n", timeout=20)
    assert stopped.returncode == ExitCode.STORE


@pytest.mark.parametrize(
    ("command", "others"),
    [
        (
            ("history", "show", "bees"),
            {"asyncio", "voicechat.cli.talk", "voicechat.realtime.events"},
        ),
        (("--help",), {"asyncio", "voicechat.realtime.events"}),
    ],
)
def test_a_command_does_without_what_others_take(
    sessions: Path, command: tuple[str, ...], others: set[str]
) -> None:
    code = (
        "import sys; from voicechat.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(*sys.modules)"
    )
    whole = [sys.executable, "-c", code, *command]
    run = subprocess.run(whole, capture_output=True, text=True, check=True)
    loaded = set(run.stdout.splitlines()[-1].split())
    assert "voicechat.cli.history" in loaded
    assert not loaded & others
