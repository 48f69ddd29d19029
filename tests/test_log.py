"""The session log survives anything."""

import errno
import json
import os
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.program import bound_by_permissions, locked
from tests.test_transcript import records
from voicechat.errors import ExitCode, SessionInUseError, StoreError
from voicechat.history.deleting import delete, deleted
from voicechat.history.log import ALPHABET, SessionLog, put_down
from voicechat.history.reading import add_up, read
from voicechat.transcript import (
    FORMAT,
    RECORDS,
    Back,
    Closed,
    Lost,
    Opened,
    Record,
    Renamed,
    Role,
    Said,
    Speaking,
    Status,
    Summary,
    Transcript,
    Usage,
    to_json,
)

EVERY_KIND: list[Record] = [
    Opened(
        session="k7f3a2",
        version="0.1.0",
        pid=4711,
        name="Küche",
        local=True,
        model="gpt-realtime",
        voice="marin",
        instructions="Be brief.\nBe kind.",
        language="de",
        transcription_model="gpt-4o-transcribe",
        vad="semantic",
    ),
    Said(item_id="item_1", role="user", text="Grüß Gott", start_ms=120, end_ms=980),
    Speaking(
        item_id="item_2",
        role="assistant",
        text="再见 👩‍🔬 ",
        previous_item_id="item_1",
        start_ms=1500,
    ),
    Said(
        item_id="item_2",
        role="assistant",
        text="\x1b[31m\x9b\u202e\ud800",
        status="interrupted",
        previous_item_id="item_1",
        start_ms=1500,
        end_ms=2100,
    ),
    Lost(reason="the line went dead"),
    Back(restored=212),
    Summary(text="They spoke of bees.", covers="item_1", turns=1),
    Usage(
        input_tokens=140,
        cached_tokens=64,
        input_audio_tokens=28,
        cached_audio_tokens=7,
        output_tokens=40,
        output_audio_tokens=30,
        model="gpt-realtime-2.1",
    ),
    Renamed(name="Garten"),
    Closed(end_ms=2500),
]
LATER = Said(item_id="item_9", role="user", text="after the crash", previous_item_id="item_2")


def recorded(path: Path) -> list[Record]:
    return [record for _, record in read(path)]


def write(path: Path, *lines: bytes | dict[str, object]) -> Path:
    path.write_bytes(
        b"".join((x if isinstance(x, bytes) else json.dumps(x).encode()) + b"\n" for x in lines)
    )
    return path


def append_each(log: SessionLog, appended: list[Record], saved: list[Record]) -> None:
    for record in appended:
        log.append(record)
        saved.append(record)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a session with one record of every kind."""
    with closing(SessionLog.create(tmp_path / "sessions")) as log:
        for record in EVERY_KIND:
            log.append(record)
    return log.path


def test_a_record_of_every_kind_comes_back_as_it_was(path: Path) -> None:
    assert recorded(path) == EVERY_KIND
    assert {type(record) for record in EVERY_KIND} == set(RECORDS.values())


def test_every_line_says_its_kind_and_when_it_was_written(path: Path) -> None:
    for line, (at, record) in zip(path.read_text().splitlines(), read(path), strict=True):
        values = json.loads(line)
        assert list(values)[:2] == ["type", "at"]
        assert values["type"] == record.type
        assert at is not None
        assert values["at"] == f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"
        assert abs(datetime.now(UTC) - at) < timedelta(minutes=5)


def test_empty_fields_are_left_out_but_never_the_format_or_the_status(tmp_path: Path) -> None:
    with closing(SessionLog.create(tmp_path)) as log:
        log.append(Opened(session=log.session))
        log.append(Said(item_id="a", role="user", text=""))
    opened, said = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert set(opened) == {"type", "at", "session", "format"}
    assert opened["format"] == FORMAT
    assert set(said) == {"type", "at", "item_id", "role", "text", "status"}


def test_a_session_file_is_safe_to_look_at_in_a_terminal(path: Path) -> None:
    assert all(letter.isprintable() or letter in "\n\u200d" for letter in path.read_text())


@given(st.lists(records, max_size=20))
@settings(deadline=None, max_examples=30)
def test_reading_a_log_back_gives_what_living_through_it_gave(
    tmp_path_factory: pytest.TempPathFactory, log_of: list[Record]
) -> None:
    live = Transcript()
    with closing(SessionLog.create(tmp_path_factory.mktemp("sessions"))) as log:
        for record in log_of:
            live.apply(record)
            log.append(record)
    again = Transcript.of(recorded(log.path))
    assert again == live
    assert again.turns == live.turns


# Crashes ----------------------------------------------------------------------------------------


def test_a_crash_at_any_byte_loses_only_the_record_being_written(
    path: Path, tmp_path: Path
) -> None:
    data = path.read_bytes()
    cut_off = tmp_path / "cut.jsonl"
    for cut in range(len(data) + 1):
        cut_off.write_bytes(data[:cut])
        survivors = recorded(cut_off)
        assert_adding_up_changes_nothing(cut_off)
        assert survivors == EVERY_KIND[: len(survivors)]
        whole = data[:cut].count(b"\n")
        assert len(survivors) in (whole, whole + 1)  # what lost only its newline is whole

        with closing(SessionLog(cut_off)) as log:
            assert (cut_off.read_bytes() or b"\n").endswith(b"\n")
            assert cut_off.read_bytes().startswith(data[:cut])
            log.append(LATER)
        assert recorded(cut_off) == [*survivors, LATER]


APPEND_FOR_EVER = """
import os, sys
from pathlib import Path
from voicechat.history.log import SessionLog
from voicechat.transcript import Opened, Said

log = SessionLog.create(Path(sys.argv[1]))
log.append(Opened(session=log.session, pid=os.getpid()))
print(log.path, flush=True)
for number in range(1_000_000):
    log.append(Said(item_id=str(number), role="user", text="word " * (number % 2000)))
    print(number, flush=True)
"""


@contextmanager
def another_process(directory: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    with subprocess.Popen(
        [sys.executable, "-c", APPEND_FOR_EVER, str(directory)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


@pytest.mark.parametrize("number", [1, 20, 300])
def test_what_was_appended_survives_kill_9(tmp_path: Path, number: int) -> None:
    with another_process(tmp_path) as (process, path):
        assert process.stdout is not None
        for _ in range(number):
            process.stdout.readline()
        process.kill()
        last = number + len(process.stdout.read().split()) - 1
    opened, *said = recorded(path)
    assert isinstance(opened, Opened)
    assert len(said) in (last + 1, last + 2)  # the last one may be there without having been told
    for n, record in enumerate(said):
        assert isinstance(record, Said)
        assert (record.item_id, record.text) == (str(n), "word " * (n % 2000))


# Two processes ----------------------------------------------------------------------------------


def test_a_second_process_is_told_who_holds_the_session(tmp_path: Path) -> None:
    with another_process(tmp_path) as (process, path):
        with pytest.raises(SessionInUseError, match=f"process {process.pid}$") as caught:
            SessionLog(path)
        assert caught.value.exit_code == ExitCode.SESSION_IN_USE
        assert recorded(path)[0] == Opened(session=path.stem[-6:], pid=process.pid)
        process.kill()
        process.wait()
        with closing(SessionLog(path)) as log:  # a lock does not outlive its process
            log.append(LATER)
    assert recorded(path)[-1] == LATER


def test_a_session_is_held_against_the_same_process_too_and_let_go(tmp_path: Path) -> None:
    log = SessionLog.create(tmp_path)
    with closing(log), pytest.raises(SessionInUseError, match=f"{log.session} is in use by anot"):
        SessionLog(log.path)
    SessionLog(log.path).close()


# Bad input --------------------------------------------------------------------------------------

GOOD: dict[str, object] = {"type": "said", "item_id": "a", "role": "user", "text": "good"}


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\x00\x00\x00\x00",
        b"\xff\xfe\xfd",
        b"null",
        b"[]",
        b'"said"',
        b"17",
        b"{}",
        b'{"type": "said"}',
        b'{"type": ["said"]}',
        b'{"type": {"said": 1}}',
        b'{"type": null}',
        b"[" * 200_000,
        b'{"type":' * 100_000,
        b'{"type": "said", "item_id": ' + b"9" * 10_000 + b"}",
        b'{"type": "said", "item_id": "a", "role": "user", "text": "torn',
        json.dumps(GOOD).encode() * 2,
        GOOD | {"type": "unknown"},
        GOOD | {"type": "Said"},
        GOOD | {"text": None},
        GOOD | {"text": 17},
        GOOD | {"text": ["good"]},
        GOOD | {"item_id": 1},
        GOOD | {"role": "narrator"},
        GOOD | {"role": []},
        GOOD | {"status": "sung"},
        GOOD | {"previous_item_id": 1},
        GOOD | {"start_ms": "1"},
        GOOD | {"start_ms": 1.5},
        GOOD | {"start_ms": True},
        {"type": "opened", "session": "k7f3a2", "local": 1},
        {"type": "closed", "end_ms": None},
    ],
)
def test_a_line_that_is_no_record_is_passed_over(
    tmp_path: Path, bad: bytes | dict[str, object]
) -> None:
    path = write(tmp_path / "a.jsonl", GOOD, bad, GOOD)
    assert recorded(path) == [Said(item_id="a", role="user", text="good")] * 2


def test_what_a_newer_version_adds_is_dropped_and_the_rest_kept(tmp_path: Path) -> None:
    newer = GOOD | {"mood": {"happy": True}, "self": 1, "values": []}
    path = write(
        tmp_path / "a.jsonl", {"type": "opened", "session": "x", "format": 99, "kind": 1}, newer
    )
    assert recorded(path) == [
        Opened(session="x", format=99),
        Said(item_id="a", role="user", text="good"),
    ]


def test_a_damaged_byte_costs_a_letter_and_not_the_turn(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps(GOOD).encode().replace(b"good", b"g\xffod"))
    assert recorded(path) == [Said(item_id="a", role="user", text="g\ufffdod")]


def test_a_file_that_went_through_an_editor_is_read(tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", GOOD, GOOD).read_bytes()
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"))
    assert len(recorded(tmp_path / "a.jsonl")) == 2


@pytest.mark.parametrize("at", [None, 17, "", "yesterday", "0001-01-01T00:00:00+14:00", ["x"]])
def test_a_record_without_a_time_that_can_be_read_is_kept(tmp_path: Path, at: object) -> None:
    ((time_of_it, record),) = read(write(tmp_path / "a.jsonl", GOOD | {"at": at}))
    assert time_of_it is None
    assert isinstance(record, Said)


def test_a_huge_line_is_read(tmp_path: Path) -> None:
    text = "word " * 1_000_000
    path = write(tmp_path / "a.jsonl", GOOD | {"text": text}, b"x" * 5_000_000, GOOD)
    assert [len(r.text) for r in recorded(path) if isinstance(r, Said)] == [len(text), 4]


@given(st.binary(max_size=200) | st.lists(st.binary(max_size=30)).map(b'{"type":"said",'.join))
@settings(deadline=None)
def test_whatever_the_bytes_are_reading_ends_well(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(data)
    assert_adding_up_changes_nothing(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELD_NAMES = ["at", "item_id", "role", "text", "status", "start_ms", "session", "pid", "x"]


@given(
    st.lists(
        st.dictionaries(st.sampled_from(FIELD_NAMES), JSON | st.just("user")).flatmap(
            lambda values: st.sampled_from(sorted(RECORDS)).map(
                lambda kind: {"type": kind} | values
            )
        )
    )
)
@settings(deadline=None)
def test_whatever_the_values_are_reading_ends_well(
    tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, object]]
) -> None:
    assert_adding_up_changes_nothing(write(tmp_path_factory.getbasetemp() / "any.jsonl", *lines))


# Adding up --------------------------------------------------------------------------------------


def assert_adding_up_changes_nothing(path: Path) -> None:
    """The quick way to the sum of a file gives what the plain way gives."""
    parsed = list(read(path))
    plain, quick = Transcript.of(record for _, record in parsed), add_up(path)
    assert quick.transcript == plain
    assert quick.transcript.turns == plain.turns
    later = Said(item_id="c", role="user", text="later", previous_item_id="x")
    for last in (later, Speaking(item_id="x", role="user", text="even later")):
        plain.apply(last)
        quick.transcript.apply(last)
        assert quick.transcript.turns == plain.turns
    times = [at for at, record in parsed if at and not isinstance(record, Renamed)]
    assert (quick.started, quick.last_used) == ((times[0], times[-1]) if times else (None, None))
    lines = sum(1 for line in path.read_bytes().split(b"\n") if line.strip())
    assert (quick.records, quick.passed_over) == (len(parsed), lines - len(parsed))
    assert quick.size == path.stat().st_size


@pytest.fixture(scope="module")
def long_session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session of 20,000 turns, each with all that is written of it while it is spoken."""
    lines: list[Record] = [Opened(session="k7f3a2", model="gpt-realtime-2.1")]
    for n in range(0, 20_000, 2):
        asked, answer, ms = f"item_{n}", f"item_{n + 1}", n * 5000
        before = f"item_{n - 1}" if n else None
        user = Speaking(item_id=asked, role="user", previous_item_id=before, start_ms=ms)
        words = Speaking(
            item_id=answer,
            role="assistant",
            text="It rains by the sea, ",
            previous_item_id=asked,
            start_ms=ms + 4000,
        )
        question = Said(
            item_id=asked,
            role="user",
            text="What is the weather like?",
            previous_item_id=before,
            start_ms=ms,
            end_ms=ms + 3000,
        )
        said = Said(
            item_id=answer,
            role="assistant",
            text="It rains by the sea, " * 3,
            previous_item_id=asked,
            start_ms=ms + 4000,
            end_ms=ms + 9000,
        )
        lines += [user, words, question, words, words, said]
        lines.append(Usage(input_tokens=n, output_tokens=60, model="gpt-realtime-2.1"))
    path = tmp_path_factory.mktemp("long") / "long.jsonl"
    write(path, *(as_written(record) for record in [*lines, Closed(end_ms=1)]))
    return path


def as_written(record: Record) -> dict[str, object]:
    """A record as `SessionLog.append` writes it, without waiting for the disk."""
    written: dict[str, object] = {"type": record.type, "at": "2026-08-22T09:30:00.000Z"}
    for field in fields(record):
        value = getattr(record, field.name)
        if value or value != field.default:
            written[field.name] = value
    return written


def test_reading_twenty_thousand_turns_takes_no_time_that_anyone_notices(
    long_session: Path,
) -> None:
    began = time.process_time()
    assert len(add_up(long_session).transcript.turns) == 20_000
    assert time.process_time() - began < 2  # it is 0.25 s
    assert_adding_up_changes_nothing(long_session)


def test_what_append_writes_most_often_need_not_be_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    often = [r for r in EVERY_KIND if isinstance(r, Speaking | Usage)]
    with closing(SessionLog.create(tmp_path)) as log:
        for record in [*often, LATER]:
            log.append(record)
    monkeypatch.setattr("voicechat.history.reading.parse", None)
    assert add_up(log.path).records == len(often) + 1


@pytest.mark.parametrize("number", [0, 1, -1, 10**15 - 1, 10**15, 10**15 + 1, 10**30])
@pytest.mark.parametrize("name", ["start_ms", "end_ms"])
def test_numbers_of_any_size_are_added_up_alike(tmp_path: Path, name: str, number: int) -> None:
    start = as_written(Speaking(item_id="a", role="user", text="x"))
    for second in ("speaking", "said"):
        line = start | {"type": second, name: number}
        for lines in ([start, line], [line, start], [line, start | {"type": "said"}]):
            assert_adding_up_changes_nothing(write(tmp_path / "a.jsonl", *lines))


DAMAGE = [
    (b"", b""),
    (b"}", b""),
    (b"}", b"}\r"),
    (b"}", b"}}"),
    (b"}", b"\x00}"),
    (b"}", "\u2028}".encode()),
    (b"}", b"}\n \n"),
    (b"}", b', "text": "again"}'),
    (b"{", b"\xef\xbb\xbf{"),
    (b"{", b" {"),
    (b": ", b":"),
    (b'"text": "', b'"text": "\xff'),
    (b'"text": "', b'"text": "\xe4\xb8'),
    (b'"text": "', b'"text": "\\ud800'),
    (b'"text": "', b'"text": "\\"'),
    (b'"text": "', b'"text": "\t'),
    (b'"text": "', b'"text": "\x7f\r'),
    (b'"text": "', b'"text": 1, "x": "'),
    (b', "text": "one"', b""),
    (b', "text": "one"', b', "x": [1.5, null], "text": "one"'),
    (b', "role": "user"', b""),
    (b', "status": "complete"', b""),
    (b'"start_ms": ', b'"start_ms": 0'),
    (b'"start_ms": ', b'"start_ms": -'),
    (b'"end_ms": ', b'"end_ms": 1e'),
    (b"2026", b"yesterday"),
    (b"2026", b"0001"),
]
"""What is put in the place of what in a line."""
ITEMS = st.sampled_from("abcd")
ROLES: st.SearchStrategy[Role] = st.sampled_from(["user", "assistant"])
WORDS = st.sampled_from(["", "one", "two "])
MOMENTS = st.integers(0, 3)
OF_TURNS: st.SearchStrategy[Record] = st.one_of(
    st.builds(
        Speaking,
        item_id=ITEMS,
        role=ROLES,
        text=WORDS,
        previous_item_id=st.none() | ITEMS,
        start_ms=MOMENTS,
    ),
    st.builds(
        Said,
        item_id=ITEMS,
        role=ROLES,
        text=WORDS,
        status=st.sampled_from(get_args(Status)),
        previous_item_id=st.none() | ITEMS,
        start_ms=MOMENTS,
        end_ms=MOMENTS,
    ),
)


@given(st.lists(OF_TURNS, max_size=12) | st.lists(OF_TURNS | records, max_size=12))
@settings(deadline=None, max_examples=400)
def test_adding_up_a_log_gives_what_applying_its_records_gives(
    tmp_path_factory: pytest.TempPathFactory, log_of: list[Record]
) -> None:
    lines = map(as_written, log_of)
    assert_adding_up_changes_nothing(write(tmp_path_factory.getbasetemp() / "any.jsonl", *lines))


@given(st.lists(st.tuples(OF_TURNS | records, st.sampled_from(DAMAGE)), max_size=12))
@settings(deadline=None, max_examples=400)
def test_adding_up_a_damaged_log_gives_what_applying_its_records_gives(
    tmp_path_factory: pytest.TempPathFactory, log_of: list[tuple[Record, tuple[bytes, bytes]]]
) -> None:
    lines = [to_json(as_written(record)).encode().replace(*damage) for record, damage in log_of]
    assert_adding_up_changes_nothing(write(tmp_path_factory.getbasetemp() / "any.jsonl", *lines))


# Where it is ------------------------------------------------------------------------------------


def test_only_the_user_may_read_what_was_said(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(SessionLog.create(tmp_path / "home" / "sessions")) as log:
            assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
            assert stat.S_IMODE(log.path.parent.stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_the_mode_of_a_directory_that_was_there_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    SessionLog.create(tmp_path).close()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


def test_a_session_is_named_after_its_beginning_and_an_id(tmp_path: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    with closing(SessionLog.create(tmp_path)) as log:
        started = datetime.strptime(log.path.name[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
        assert before <= started <= datetime.now(UTC)
        assert log.path.name == f"{log.path.name[:15]}-{log.session}.jsonl"
        assert len(log.session) == 6
        assert set(log.session) <= set(ALPHABET)
    assert not set(ALPHABET) & set("ilo01ILO")


def test_an_id_that_is_taken_is_not_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "20200101-000000-222222.jsonl").touch()
    chances = iter([bytes(6), bytes(6), bytes([1] * 6)])
    monkeypatch.setattr(os, "urandom", lambda number: next(chances))
    with closing(SessionLog.create(tmp_path)) as log:
        assert log.session == "333333"


def test_sixteen_processes_at_once_get_sixteen_sessions(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from voicechat.history.log import SessionLog\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(SessionLog.create(Path(sys.argv[1])).session)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "new" / "sessions")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(16)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    ids = {process.communicate("go\n", timeout=60)[0].strip() for process in processes}
    assert len(ids) == 16
    assert {path.stem[-6:] for path in (tmp_path / "new" / "sessions").iterdir()} == ids


def test_a_session_in_which_nothing_was_said_can_be_removed(tmp_path: Path) -> None:
    log = SessionLog.create(tmp_path)
    log.append(Opened(session=log.session))
    log.append(Closed(end_ms=3000))
    log.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_session_in_which_something_was_said_cannot_be_removed(path: Path) -> None:
    SessionLog(path).discard()
    assert recorded(path) == EVERY_KIND
    SessionLog(path).close()


# Disks ------------------------------------------------------------------------------------------


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_cut_off_by_a_full_disk_does_not_harm_what_comes_before_and_after(
    path: Path,
) -> None:
    with closing(SessionLog(path)) as log:
        size = path.stat().st_size
        with no_file_larger_than(size + 40):
            for _ in range(2):  # the first is cut short, of the second nothing is taken
                with pytest.raises(StoreError, match=str(path)) as caught:
                    log.append(LATER)
                assert "--no-log" in caught.value.remedy
                assert caught.value.exit_code == ExitCode.STORE
        assert path.stat().st_size == size + 40
        log.append(LATER)
        log.append(LATER)
    assert recorded(path) == [*EVERY_KIND, LATER, LATER]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_keeps_what_was_saved_and_says_so(small_disk: Path) -> None:
    with (
        closing(SessionLog.create(small_disk / "sessions")) as log,
        closing(SessionLog.create(small_disk / "sessions")) as other,
    ):
        saved: list[Record] = []
        with pytest.raises(StoreError, match="no space left on device") as caught:
            append_each(log, [LATER] * 1000, saved)
        assert caught.value.message.startswith(f"cannot write {log.path}: ")
        assert "Free some space" in caught.value.remedy
        with pytest.raises(StoreError, match="no space left on device"):
            other.append(EVERY_KIND[0])
        assert len(recorded(log.path)) > 100
        assert recorded(log.path) == saved


def test_a_file_system_without_links_takes_whole_sessions_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    path = tmp_path / "sessions" / "20260822-093000-aaaaaa.jsonl"
    assert put_down(path, b"one\n")
    assert not put_down(path, b"two\n")
    assert path.read_bytes() == b"one\n"
    assert list(path.parent.iterdir()) == [path]


def test_deleting_a_session_makes_room_to_remember_that(small_disk: Path) -> None:
    directory = small_disk / "sessions"
    with closing(SessionLog.create(directory)) as log, pytest.raises(StoreError):
        append_each(log, [LATER] * 1000, [])
    delete(log.path)
    assert not log.path.exists()
    assert list(deleted(directory)) == [log.path.stem]


def test_a_read_only_disk_is_an_error_with_the_path_and_a_way_out(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="read-only file system") as caught:
        SessionLog.create(small_disk / "sessions")
    assert str(small_disk) in caught.value.message
    assert "VOICECHAT_HOME" in caught.value.remedy


def test_a_file_where_the_directory_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file" / "sessions"):
        with pytest.raises(StoreError, match="not a directory") as caught:
            SessionLog.create(directory)
        assert str(directory) in caught.value.message
        assert "VOICECHAT_HOME" in caught.value.remedy


def test_a_link_into_a_locked_directory_is_an_error_and_one_that_cannot_be_read_is_none(
    tmp_path: Path,
) -> None:
    away, home = tmp_path / "away", tmp_path / "home"
    (away / "sessions").mkdir(parents=True)
    home.mkdir()
    (home / "sessions").symlink_to(away / "sessions")
    begin = (
        "import pathlib, sys; from voicechat.history.log import SessionLog, StoreError\n"
        "try: SessionLog.create(pathlib.Path(sys.argv[1])).close()\n"
        "except StoreError as error: print(error)"
    )

    def begun() -> str:
        command = [sys.executable, "-c", begin, str(home / "sessions")]
        return subprocess.run(
            command,
            preexec_fn=bound_by_permissions,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
            timeout=20,
        ).stdout

    with locked(away):
        assert begun().strip() == f"cannot write {home / 'sessions'}: permission denied"
    (away / "sessions").chmod(0o300)
    assert begun() == ""
    (away / "sessions").chmod(0o700)
    assert len(list((home / "sessions").iterdir())) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_of_someone_else_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match=os.strerror(errno.EACCES).lower()):
        SessionLog.create(tmp_path / "sessions")
    with pytest.raises(StoreError, match=os.strerror(errno.EACCES).lower()):
        SessionLog.create(tmp_path)


def test_a_session_that_is_gone_is_an_error_and_not_a_new_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot write .*no such file"):
        SessionLog(tmp_path / "gone.jsonl")
    with pytest.raises(StoreError, match=r"cannot read .*no such file"):
        list(read(tmp_path / "gone.jsonl"))
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_is_closed_takes_nothing(path: Path) -> None:
    log = SessionLog(path)
    log.close()
    with pytest.raises(ValueError, match="closed"):
        log.append(LATER)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_what_goes_to_a_file_that_was_removed_or_replaced_is_not_saved(
    tmp_path: Path, is_replaced: bool
) -> None:
    log = SessionLog.create(tmp_path)
    log.append(Said(item_id="a", role="user", text="one"))
    other = tmp_path / "other"
    other.write_bytes(b"{}\n")
    log.path.unlink()
    if is_replaced:
        other.rename(log.path)
    with pytest.raises(StoreError, match="was removed or replaced"):
        log.append(Said(item_id="b", role="user", text="two"))
    log.discard()
    assert log.path.exists() == is_replaced
