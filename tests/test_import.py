"""`voicechat history import`: conversations from files, and what is no conversation."""

import json
import os
from contextlib import closing
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.program import voicechat
from tests.test_check import FIRST, MOOD, OPENED, SECOND, TORN, said
from tests.test_sessions import save
from tests.test_sync import Machine
from tests.test_transcript import ids, records, roles
from voicechat import __version__
from voicechat.errors import ExitCode, ImportFileError
from voicechat.history.checking import check, session_files
from voicechat.history.deleting import delete
from voicechat.history.export import FORMATS, Exported, Format
from voicechat.history.importing import Imported, conversations, put_in
from voicechat.history.log import SessionLog, line
from voicechat.history.reading import add_up, read
from voicechat.history.sessions import find_session, list_sessions
from voicechat.transcript import Opened, Record, Renamed, Said, Transcript, Turn, Usage

DAY = datetime(2026, 8, 22, 9, 30, tzinfo=UTC)
MESSAGES = [
    {"role": "developer", "content": "Be brief."},
    {
        "role": "user",
        "content": [{"type": "input_text", "text": "Grüß"}, {"type": "text", "text": "Gott"}],
    },
    {"role": "assistant", "content": "Hi \U0001f468", "extra": 1},
]


def log_of(*lines: bytes) -> bytes:
    return b"".join(each + b"\n" for each in lines)


def imported(directory: Path, data: bytes, name: str | None = None) -> Imported:
    [found] = conversations(data, "it")
    return put_in(directory, found, name)


def told(transcript: Transcript) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in transcript.turns]


def whole(transcript: Transcript) -> list[Turn]:
    """The turns, but for what the order says anyway."""
    return [replace(turn, previous_item_id=None) for turn in transcript.turns]


def exported(path: Path, format: Format, session: str = "k7f3a2") -> bytes:
    transcript = add_up(path).transcript
    return FORMATS[format](Exported(session, DAY, transcript, path.read_bytes())).encode()


# Messages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [MESSAGES, {"messages": MESSAGES, "model": "x"}])
def test_a_list_of_messages_becomes_a_session(tmp_path: Path, whole: object) -> None:
    new = imported(tmp_path, json.dumps(whole).encode(), "Greetings")
    assert new.is_new
    assert told(new.transcript) == [
        ("system", "Be brief."), ("user", "Grüß\nGott"), ("assistant", "Hi \U0001f468"),
    ]  # fmt: skip
    turns = new.transcript.turns
    assert [turn.item_id for turn in turns] == ["item_0001", "item_0002", "item_0003"]
    assert [turn.previous_item_id for turn in turns] == [None, "item_0001", "item_0002"]
    assert {turn.status for turn in turns} == {"complete"}
    opened = new.transcript.opened
    assert opened is not None
    assert (opened.session, opened.version) == (new.session, __version__)
    assert new.transcript.name == "Greetings"
    assert new.path.name == f"{new.path.stem[:15]}-{new.session}.jsonl"
    assert check(new.path) == []


@pytest.mark.parametrize(
    ("message", "text", "left_out"),
    [
        ({"content": [{"type": "output_text", "text": "a"}, {"type": "refusal"}]}, "a", 1),
        ({"content": [{"type": "input_audio", "transcript": "b"}, {"type": "image"}]}, "b", 1),
        ({"content": [{"type": "audio", "transcript": "c"}, "d", 1, None]}, "c\nd", 2),
        ({"content": [{"type": "output_audio"}, {"type": "text", "text": "e"}]}, "e", 1),
        ({"content": None, "audio": {"id": "x", "transcript": "f"}}, "f", 0),
        ({"content": None, "refusal": "g"}, "g", 0),
        ({"content": "", "refusal": "h"}, "h", 0),
        ({"content": "\ud83d"}, "\ud83d", 0),
    ],
)
def test_the_words_of_a_message_are_found(
    tmp_path: Path, message: dict[str, object], text: str, left_out: int
) -> None:
    messages: list[object] = [
        {"role": "assistant", **message},
        {"role": "tool", "content": "out"},
        "what",
        None,
    ]
    silent: list[object] = ["", " ", [], {}, 7, None, [{"type": []}]]
    messages += [{"role": "user", "content": content} for content in silent]
    messages += [{"role": ["user"], "content": "x"}, {"type": "function_call"}]
    [found] = conversations(json.dumps(messages).encode(), "it")
    assert told(put_in(tmp_path, found).transcript) == [("assistant", text)]
    assert found.left_out == left_out + 12


def test_messages_may_stand_on_a_line_each() -> None:
    lines = [json.dumps(message) for message in MESSAGES]
    for data in ("\r\n".join(["\ufeff" + lines[0], *lines[1:]]), "\n\n".join([*lines, "{torn"])):
        [found] = conversations(data.encode(), "it")
        assert (len(found.lines), found.left_out) == (3, data.endswith("torn"))
    lists = [MESSAGES[:2], [], MESSAGES]
    for whole in (lists, [{"messages": each, "tools": []} for each in lists]):
        several = conversations("\n".join(map(json.dumps, whole)).encode(), "it")
        assert [len(each.lines) for each in several] == [2, 3]


def test_what_is_left_of_a_list_is_no_list() -> None:
    lines = ",\n".join(map(json.dumps, MESSAGES))
    with pytest.raises(ImportFileError):
        conversations(f"[\n{lines}\n".encode(), "it")


def test_the_same_messages_again_make_nothing_new(tmp_path: Path) -> None:
    data = json.dumps(MESSAGES).encode()
    one = imported(tmp_path, data)
    with closing(SessionLog(one.path)) as log:
        log.append(Said(item_id="more", role="user", text="more", previous_item_id="item_0003"))
    two = imported(tmp_path, data, "other name")
    assert (two.is_new, two.path) == (False, one.path)
    three = imported(tmp_path, json.dumps(MESSAGES[:2]).encode())
    assert three.is_new
    assert len(session_files(tmp_path)) == 2


@pytest.mark.parametrize(
    "value", [MESSAGES, {"session": "last", "turns": [{"role": "user", "text": "Hello"}]}]
)
def test_two_machines_that_know_nothing_of_each_other_make_two_sessions(
    tmp_path: Path, value: object
) -> None:
    store = f"sqlite:///{tmp_path}/store.sqlite3"
    machines = Machine(tmp_path / "one", store), Machine(tmp_path / "two", store)
    data = json.dumps(value).encode()
    [found] = conversations(data, "it")
    made = {}
    for late, machine in enumerate(machines):
        began = found.began + timedelta(milliseconds=late)
        new = put_in(machine.directory, replace(found, began=began))
        assert new.is_new
        made[new.session] = new.path.name
        machine.say(new.session, f"more {late}")
    for machine in (*machines, machines[0]):
        machine.sync()
    for machine in machines:
        assert {id: find_session(machine.directory, id).path.name for id in made} == made
        all_of_them = conversations(b"".join(machine.files.values()), "it")
        assert {each.session for each in all_of_them} == set(made)
        again = imported(machine.directory, data)
        assert (again.is_new, again.session in made) == (False, True)
        assert set(machine.files) == set(made.values())


def test_only_what_was_made_of_the_same_messages_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "sessions"
    one = imported(directory, json.dumps(MESSAGES).encode())
    imported(directory, json.dumps([*MESSAGES, *MESSAGES]).encode())
    save(directory, "aaaaaa", "one")
    list_sessions(directory)
    was_read: set[Path] = set()
    read_bytes = Path.read_bytes

    def noting(path: Path) -> bytes:
        was_read.add(path)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", noting)
    assert imported(directory, json.dumps(MESSAGES).encode()).path == one.path
    assert was_read == {one.path}


# Session files ------------------------------------------------------------------------------------


def test_a_session_file_comes_in_as_it_is_with_its_id_and_name(tmp_path: Path) -> None:
    lines = [
        OPENED,
        b"\xef\xbb\xbf" + MOOD,
        FIRST + b"\r",
        b'{"raw":1}',
        SECOND,
        b'{"type":"said"}',
    ]
    new = imported(tmp_path / "new" / "sessions", log_of(*lines))
    assert new.path == tmp_path / "new" / "sessions" / "20260822-093000-aaaaaa.jsonl"
    assert new.path.read_bytes() == log_of(*lines)
    assert new.path.stat().st_mode & 0o777 == 0o600
    assert new.path.parent.stat().st_mode & 0o777 == 0o700


def test_what_is_torn_is_left_out_and_what_is_glued_to_it_is_rescued(tmp_path: Path) -> None:
    data = log_of(OPENED, b"", TORN, TORN + FIRST, b"[1]") + SECOND + b"\nend"
    [found] = conversations(data, "it")
    assert put_in(tmp_path, found).path.read_bytes() == log_of(OPENED, FIRST, SECOND)
    assert found.left_out == 3


def test_a_session_that_is_here_is_not_made_again(tmp_path: Path) -> None:
    path = save(tmp_path, "aaaaaa", "one", "two")
    data = path.read_bytes()
    assert imported(tmp_path, data, "other") == Imported(path, add_up(path).transcript, False)
    with closing(SessionLog(path)) as log:
        log.append(Renamed(name="more"))
    assert not imported(tmp_path, data).is_new
    mine = path.rename(tmp_path / "mine.jsonl")
    mine.write_bytes(data)
    assert imported(tmp_path, data).path == mine
    assert len(session_files(tmp_path)) == 1


def test_an_id_that_is_taken_becomes_another_and_the_same_each_time(tmp_path: Path) -> None:
    save(tmp_path, "aaaaaa", "another conversation")
    data = log_of(OPENED, FIRST, SECOND)
    new = imported(tmp_path, data, "Wax")
    assert new.session != "aaaaaa"
    assert new.path.read_bytes().startswith(data)
    assert new.path.stem == f"20260822-093000-{new.session}"
    assert (new.transcript.name, new.transcript.parent) == ("Wax", "aaaaaa")
    assert new.transcript.opened is not None
    assert new.transcript.opened.session == new.session
    assert check(new.path) == [] or {each.kind for each in check(new.path)} == {"out of order"}
    again = imported(tmp_path, data)
    assert (again.path, again.is_new) == (new.path, False)


@pytest.mark.parametrize(
    "id",
    ["../../x", "/etc/x", "last", "abc", "x" * 13, "ABCDEF", "a-bcde", "", "a\x1b[2J", "äöüäöü"],
)
@pytest.mark.parametrize("format", ["json", "jsonl"])
def test_an_id_from_a_file_is_never_a_path(tmp_path: Path, id: str, format: str) -> None:
    data = log_of(line(Opened(session=id), DAY).strip(), FIRST)
    if format == "json":
        turns = [{"role": "user", "text": "x"}]
        data = json.dumps({"session": id, "turns": turns, "started": "../x"}).encode()
    new = imported(tmp_path / "a" / "b", data)
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [new.path]
    assert len(new.session) == 6
    assert new.transcript.opened is not None
    assert new.transcript.opened.session == new.session


def test_what_was_deleted_comes_back_as_another_log_to_shared_stores(home: Path) -> None:
    path = save(home / "sessions", "aaaaaa", "one")
    data = path.read_bytes()
    delete(path)
    new = imported(path.parent, data)
    assert new.session == "aaaaaa"
    assert new.path.name != path.name
    assert new.path.read_bytes() == data


def test_several_sessions_in_one_file_are_parted(tmp_path: Path) -> None:
    fork = line(Opened(session="ffffff", parent="aaaaaa"), DAY).strip()
    renamed_file = line(Opened(session="mine"), DAY + timedelta(hours=1)).strip()
    other = line(Opened(session="bbbbbb"), DAY + timedelta(hours=2)).strip()
    one = [OPENED, FIRST, SECOND, OPENED, renamed_file, said(3, 61, 2)]
    two = [OPENED, FIRST, SECOND, fork, said(4, 5, 2)]
    three = [other, said(1, 121, text="item ids are no help")]
    found = conversations(log_of(*one, *two, *three), "it")
    assert [each.lines for each in found] == [one, two, three]
    assert [put_in(tmp_path, each).session for each in found] == ["mine", "ffffff", "bbbbbb"]


def test_a_file_from_a_windows_shell_is_read(tmp_path: Path) -> None:
    text = log_of(OPENED, said(1, 1, text="Grüß Gott \U0001f468")).decode().replace("\n", "\r\n")
    assert told(imported(tmp_path, text.encode("utf-16")).transcript) == [
        ("user", "Grüß Gott \U0001f468")
    ]
    bom = b"\xef\xbb\xbf" + json.dumps(MESSAGES).encode()
    assert len(imported(tmp_path, bom).transcript.turns) == 3


# Exported objects ---------------------------------------------------------------------------------


def test_whatever_is_odd_about_an_object_its_words_come_in(tmp_path: Path) -> None:
    value = {
        "session": 7,
        "name": ["x"],
        "started": "yesterday",
        "model": {"a": 1},
        "usage": {"type": "said", "input_tokens": 5, "output_tokens": "many"},
        "turns": [
            {"role": "user", "text": "one", "item_id": "item_0002", "status": "whispered"},
            {"role": "assistant", "text": "two", "item_id": "x", "start_ms": 1, "end_ms": 10**30},
            {"role": "user", "text": "three", "item_id": "x", "status": "interrupted"},
            {"role": "user", "text": ["four"], "end_ms": True},
            {"role": "king", "text": "five"},
            "six",
        ],
    }
    [found] = conversations(json.dumps(value).encode(), "it")
    new = put_in(tmp_path, found)
    assert told(new.transcript) == [
        ("user", "one"), ("assistant", "two"), ("user", "three"), ("user", ""),
    ]  # fmt: skip
    assert new.transcript.turns[2].status == "interrupted"
    assert found.left_out == 2
    assert new.transcript.usage == Usage(input_tokens=0)
    assert check(new.path) == []


# What is no conversation --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\n", b"hello", b"17", b"null", b"[]", b"{}", b"[1, 2]", b'{"messages": 3}'),
        *(b'{"messages": []}', b'{"turns": [{}]}', b'[{"role": "tool", "content": "x"}]'),
        *(b"[" * 200_000, b'{"a":' * 200_000, b"[" + b"1" * 10_000 + b"]", b"[NaN]", b"\xff\xfe"),
        *(log_of(OPENED), log_of(MOOD), TORN, b"\0" * 1000, os.urandom(1000).replace(b"{", b"")),
    ],
)
def test_what_is_no_conversation_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ImportFileError, match=r"^it holds no conversation") as caught:
        conversations(data, "it")
    assert "voicechat export" in caught.value.remedy


def test_text_in_another_encoding_is_told() -> None:
    data = '[{"role": "user", "content": "Grüß"}]'.encode("latin-1")
    with pytest.raises(ImportFileError, match="it is not UTF-8 text"):
        conversations(data, "it")


# As a user types it -------------------------------------------------------------------------------


def test_the_id_is_what_a_script_gets(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "messages.json"
    file.write_text(json.dumps([*MESSAGES, {"role": "tool", "content": "x"}]))
    run = voicechat("history", "import", file, "--name", "Greetings")
    assert (run.code, len(run.lines)) == (0, 1)
    session = run.out.strip()
    assert run.err.splitlines() == [
        f'Imported {session} "Greetings" · 3 turns',
        "Left out: 1 line, message or part without words of the conversation.",
    ]
    again = voicechat("history", "import", "-", "--json", stdin=file.read_bytes())
    [value] = json.loads(again.out)
    assert (value["session"], value["imported"], value["turns"]) == (session, False, 3)
    assert (value["name"], value["left_out"]) == ("Greetings", 1)
    assert "is here already" in again.err
    assert voicechat("history", "show", session).code == 0
    assert voicechat("history", "check").code == 0


def test_nothing_that_a_session_says_of_itself_is_lost_by_way_of_json(tmp_path: Path) -> None:
    of_the_run = {"session", "format", "version", "pid"}
    facts = {each.name: each.name for each in fields(Opened) if each.name not in of_the_run}
    opened = Opened(session="k7f3a2", **facts | {"local": True})  # type: ignore[arg-type]
    path = save(tmp_path / "old", "k7f3a2", "Hello")
    path.write_bytes(log_of(line(opened, DAY).rstrip(), said(1)))
    new = imported(tmp_path / "new", exported(path, "json"))
    assert new.transcript.opened == replace(opened, version=__version__)


@pytest.mark.parametrize("format", ["openai", "json", "jsonl"])
def test_what_export_writes_another_machine_reads(home: Path, tmp_path: Path, format: str) -> None:
    path = save(home / "sessions", "aaaaaa", "one", "two \x1b[2J \u202e", name="Bees")
    shown = voicechat("export", "aaaaaa", "-f", format).out.encode()
    other = str(tmp_path / "other")
    run = voicechat("history", "import", "-", stdin=shown, VOICECHAT_HOME=other)
    assert run.code == 0, run.err
    assert (run.out.strip() == "aaaaaa") == (format != "openai")
    [new] = session_files(tmp_path / "other" / "sessions")
    assert told(add_up(new).transcript) == told(add_up(path).transcript)
    if format != "openai":
        assert new.name == path.name
        here = voicechat("history", "import", "-", stdin=shown)
        assert (here.out, here.code) == ("aaaaaa\n", 0)
        assert session_files(home / "sessions") == [path]


def test_all_that_was_exported_comes_back(home: Path, tmp_path: Path) -> None:
    for number, session in enumerate(("aaaaaa", "bbbbbb", "cccccc")):
        save(home / "sessions", session, "one", "two", day=number)
    shown = voicechat("export", "--all", "-f", "jsonl").out.encode()
    other = str(tmp_path / "other")
    run = voicechat("history", "import", "-", stdin=shown, VOICECHAT_HOME=other)
    assert run.lines == ["aaaaaa", "bbbbbb", "cccccc"]
    files = [each.read_bytes() for each in session_files(tmp_path / "other" / "sessions")]
    assert files == [each.read_bytes() for each in session_files(home / "sessions")]
    named = voicechat("history", "import", "-", "--name", "x", stdin=shown)
    assert named.code == ExitCode.USAGE
    assert "3 conversations" in named.err


@pytest.mark.parametrize("file", ["nowhere.json", ".", "/dev/null", "x" * 5000, "\x1b[2J", "-"])
def test_a_file_that_cannot_be_read_is_told(home: Path, file: str) -> None:
    run = voicechat("history", "import", file)
    assert (run.code, run.out) == (ExitCode.IMPORT, "")
    assert len(run.err.splitlines()) == 2
    assert "\x1b" not in run.err
    assert not home.exists()


def test_a_pipe_that_never_ends_is_too_large(home: Path) -> None:
    run = voicechat("history", "import", "/dev/zero")
    assert run.code == ExitCode.IMPORT
    assert "file too large" in run.err


def test_names_are_checked(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "messages.json"
    file.write_text(json.dumps(MESSAGES))
    assert voicechat("history", "import", file, "--name", "last").code == ExitCode.USAGE
    assert not home.exists()


# Whatever it is -----------------------------------------------------------------------------------

OF_ONE_SESSION = st.lists(
    records.map(
        lambda record: (
            replace(record, session="k7f3a2", parent=None) if isinstance(record, Opened) else record
        )
    ),
    max_size=10,
)


def logged(path: Path, log: list[Record]) -> Path:
    stamped = ((DAY + timedelta(seconds=place), each) for place, each in enumerate(log))
    path.write_bytes(b"".join(line(record, at) for at, record in stamped))
    return path


@given(OF_ONE_SESSION)
@settings(deadline=None)
def test_what_was_said_comes_back_from_every_format(
    tmp_path_factory: pytest.TempPathFactory, log: list[Record]
) -> None:
    directory = tmp_path_factory.mktemp("home")
    path = logged(directory / "20260822-093000-k7f3a2.jsonl", log)
    transcript = add_up(path).transcript
    formats: list[Format] = ["jsonl", "json", "openai"]
    for format in formats:
        data = exported(path, format)
        turns = transcript.restorable if format == "openai" else transcript.turns
        if not turns:
            with pytest.raises(ImportFileError):
                conversations(data, "it")
            continue
        new = imported(directory / format, data)
        assert told(new.transcript) == [(turn.role, turn.text) for turn in turns]
        assert imported(directory / format, data).path == new.path
        assert [each for each in check(new.path) if not each.is_remark] == []
        if format == "jsonl":
            assert new.path.read_bytes() == path.read_bytes()
        elif format == "json":
            back = new.transcript
            assert whole(back) == whole(transcript)
            assert (back.name, back.parent) == (transcript.name, transcript.parent)
            assert back.usage == transcript.usage
            assert exported(new.path, "json") == data


KEYS = (
    "role content text turns messages type audio usage session item_id status start_ms transcript "
    "started name"
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | roles | ids,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS.split()), inner, max_size=4)
    ),
)
ANYTHING = (
    st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.lists(JSON, max_size=3).map(lambda turns: json.dumps({"turns": turns}).encode())
    | st.lists(JSON, max_size=3).map(lambda turns: json.dumps({"messages": turns}).encode())
    | st.lists(
        records.map(lambda record: line(record, DAY)) | st.binary(max_size=9), max_size=8
    ).map(b"".join)
)


@given(ANYTHING)
@settings(deadline=None)
def test_any_bytes_are_a_conversation_or_a_kind_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    directory = tmp_path_factory.mktemp("home")
    try:
        found = conversations(data, "it")
    except ImportFileError:
        return
    for each in found:
        new = put_in(directory, each)
        assert list(read(new.path))
        assert put_in(directory, each).path == new.path
