"""The index of saved sessions is derived: whatever becomes of it, the answers are the same."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.test_sessions import save
from voicechat.history.index import NAME, SCHEMA
from voicechat.history.log import SessionLog, add_aside
from voicechat.history.sessions import find_session, list_sessions, search
from voicechat.transcript import Renamed, Said, folded, printable


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    sessions = tmp_path / "sessions"
    save(sessions, "aaaaaa", "How do bees find flowers?", "By dancing.", name="Bees")
    save(sessions, "bbbbbb", "Zur Küche, bitte.", "Très bien, CAFÉ!", day=1)
    save(sessions, "cccccc", "plans", "more plans", day=2, name="Straße")
    return sessions


def answers(directory: Path) -> object:
    """Everything that the index is asked for."""
    return (
        list_sessions(directory),
        list_sessions(directory, 1),
        list_sessions(directory, text="cafe"),
        list(search(directory, "plans")),
        find_session(directory, "last"),
        find_session(directory, "bees"),
    )


def test_the_index_is_for_its_owner_alone_and_safe_to_delete(directory: Path) -> None:
    expected = answers(directory)
    index = directory.parent / NAME
    assert stat.S_IMODE(index.stat().st_mode) == 0o600
    index.unlink()
    assert answers(directory) == expected
    assert index.exists()


def make_newer(index: Path) -> None:
    with closing(sqlite3.connect(index)) as database:
        database.execute("drop table words")
        database.execute(f"pragma user_version = {SCHEMA + 1}")


def make_directory(index: Path) -> None:
    index.unlink()
    index.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        lambda index: index.write_bytes(os.urandom(50_000)),
        lambda index: index.write_bytes(b""),
        lambda index: index.write_bytes(index.read_bytes()[:5000]),
        make_newer,
        make_directory,
    ],
)
def test_a_useless_index_is_made_anew(directory: Path, damage: Callable[[Path], object]) -> None:
    expected = answers(directory)
    damage(directory.parent / NAME)
    assert answers(directory) == expected
    assert answers(directory) == expected


@example([(3603, b"\x80")])  # a text that is no UTF-8
@given(st.lists(st.tuples(st.integers(0, 40_000), st.binary(min_size=1, max_size=400)), max_size=9))
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damage_anywhere_is_no_error(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, bytes]]
) -> None:
    home = tmp_path_factory.mktemp("home")
    directory = home / "sessions"
    save(directory, "aaaaaa", *(f"words {n}" for n in range(50)))
    answers_before = list_sessions(directory)
    index = home / NAME
    with index.open("r+b") as file:
        for place, data in damage:
            file.seek(place % index.stat().st_size)
            file.write(data)
    list_sessions(directory)  # may be wrong where the damage cannot be seen, but never fails
    list(search(directory, "words"))
    index.unlink()
    found, _ = list_sessions(directory)
    assert [each.path for each in found] == [each.path for each in answers_before[0]]
    shutil.rmtree(home)


def test_what_changes_is_seen_at_once(directory: Path) -> None:
    answers(directory)
    path = find_session(directory, "aaaaaa").path
    with closing(SessionLog(path)) as log:
        log.append(Said(item_id="new", role="user", text="honey"))
    assert [hit.session.id for hit in search(directory, "honey")] == ["aaaaaa"]
    add_aside(path, Renamed(name="Honey bees"))
    assert find_session(directory, "honey bees").path == path
    path.unlink()
    assert not list(search(directory, "honey"))
    assert [each.id for each in list_sessions(directory)[0]] == ["cccccc", "bbbbbb"]


def test_an_index_that_another_process_has_locked_holds_nobody_up(directory: Path) -> None:
    expected = answers(directory)
    save(directory, "dddddd", "new", day=5)
    with closing(sqlite3.connect(directory.parent / NAME, isolation_level=None)) as database:
        database.execute("begin exclusive")
        began = time.monotonic()
        assert [each.id for each in list_sessions(directory, 1)[0]] == ["dddddd"]
        assert time.monotonic() - began < 20
        database.execute("rollback")
    (directory / find_session(directory, "dddddd").path.name).unlink()
    assert answers(directory) == expected


def test_many_processes_make_the_index_at_once(directory: Path) -> None:
    for number in range(300):
        save(directory, f"x{number:05}", f"words {number}", day=3)
    program = [sys.executable, "-m", "voicechat", "history", "list", "-n", "0", "--json"]
    environment = os.environ | {"VOICECHAT_HOME": str(directory.parent)}
    running = [
        subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    told = [each.communicate(timeout=60) for each in running]
    assert {err for _, err in told} == {b""}
    assert len({out for out, _ in told}) == 1
    assert told[0][0].count(b'"id"') == 303


# Searching ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("kuche", "Küche"),
        ("KÜCHE,  bitte", "Küche, bitte"),
        ("café", "CAFÉ"),
        ("tres BIEN", "Très bien"),
        ("flowers?", "flowers?"),
    ],
)
def test_case_accents_and_spaces_make_no_difference(directory: Path, text: str, found: str) -> None:
    [hit] = search(directory, text)
    assert hit.text[slice(*hit.found)] == found


def test_a_hit_says_where_it_is(directory: Path) -> None:
    [hit] = search(directory, "dancing")
    assert (hit.session.id, hit.turn, hit.item_id, hit.role) == ("aaaaaa", 2, "item_1", "user")
    assert hit.start_ms == 60_000


@pytest.mark.parametrize("text", ["%", "_", "'", '"', "\\", "*", "a\nb", "bees honey", "", "\x1b"])
def test_a_text_is_no_pattern(directory: Path, text: str) -> None:
    assert not list(search(directory, text))


def test_nothing_is_found_across_the_border_of_two_turns(directory: Path) -> None:
    assert not list(search(directory, "flowers? by"))


@given(st.text(max_size=30), st.data())
@settings(deadline=None, max_examples=100)
def test_whatever_was_said_is_found(
    tmp_path_factory: pytest.TempPathFactory, said: str, data: st.DataObject
) -> None:
    home = tmp_path_factory.mktemp("home")
    save(home / "sessions", "aaaaaa", f"x {said} x")
    shown = " ".join(printable(f"x {said} x").split())
    start = data.draw(st.integers(0, len(shown) - 1))
    part = shown[start : data.draw(st.integers(start + 1, len(shown)))]
    if folded(part.strip()):
        [hit] = search(home / "sessions", part)
        assert hit.text == shown
        assert folded(part.strip()) in folded(hit.text[slice(*hit.found)])
    shutil.rmtree(home)
