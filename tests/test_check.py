"""`voicechat history check`: damage is found line by line, and mended without losing anything."""

import json
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.program import SPEECH, voicechat
from tests.strict_server import KEY, StrictServer
from tests.test_log import write
from tests.test_sessions import save
from tests.test_sync import Machine
from tests.test_transcript import records
from voicechat.errors import ExitCode, SessionInUseError, StoreError
from voicechat.history.checking import Finding, look, repair, repaired, session_files
from voicechat.history.checking import check as look_into
from voicechat.history.deleting import deleted, head_of
from voicechat.history.log import SessionLog, line, put_down, session_id
from voicechat.history.reading import add_up, read
from voicechat.history.sync import Tally
from voicechat.transcript import Closed, Opened, Record, Renamed, Said, Usage

DAY = datetime(2026, 8, 22, 9, 30, tzinfo=UTC)
TORN = b'{"type": "said", "item_id": "a", "te'
MOOD = b'{"type": "mood", "at": "2026-08-22T09:30:30.000Z", "is": "\xc2\x9b2Jcalm"}'


def said(item: int, minute: float = 0, previous: int | None = None, text: str = "") -> bytes:
    record = Said(
        item_id=f"item_{item}",
        role="user",
        text=text or f"turn {item}",
        previous_item_id=None if previous is None else f"item_{previous}",
    )
    return line(record, DAY + timedelta(minutes=minute)).strip()


OPENED = line(Opened(session="aaaaaa", name="Bees"), DAY).strip()
FIRST, SECOND, THIRD = said(1, 1), said(2, 2, 1), said(3, 3, 2)


def file(directory: Path, *lines: bytes, session: str = "aaaaaa") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"20260822-093000-{session}.jsonl"
    path.write_bytes(b"".join(each + b"\n" for each in lines))
    return path


def found(*lines: bytes) -> list[tuple[int, str]]:
    findings = look(b"".join(each + b"\n" for each in lines))
    return [(finding.line, finding.kind) for finding in findings if not finding.is_remark]


def remarks(*lines: bytes) -> list[tuple[int, str]]:
    findings = look(b"".join(each + b"\n" for each in lines))
    assert all(finding.is_remark for finding in findings), findings
    return [(finding.line, finding.kind) for finding in findings]


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1]


# What is found ------------------------------------------------------------------------------------


def test_a_session_as_it_is_written_has_nothing_wrong_with_it(tmp_path: Path) -> None:
    assert look_into(save(tmp_path, "aaaaaa", "one", "two", "three")) == []
    with closing(SessionLog.create(tmp_path)) as log:
        log.append(Opened(session=log.session))
        log.append(Said(item_id="a", role="user", text="hello"))
        log.append(Closed())
    assert look_into(log.path) == []


@pytest.mark.parametrize(
    "odd",
    [b"", b"  \t\r", FIRST + b"\r", b"\xef\xbb\xbf" + FIRST, FIRST[:-1] + b', "new": [1, {}]}'],
)
def test_these_are_no_damage(odd: bytes) -> None:
    assert look(b"\n".join([OPENED, odd, b""])) == []


@pytest.mark.parametrize(
    ("odd", "kind"),
    [
        (TORN, "torn"),
        (b"garbage", "torn"),
        (b"\0" * 100, "torn"),
        (b"[1, 2]", "torn"),
        (b"17", "torn"),
        (FIRST + b" 1", "torn"),
        (TORN + FIRST, "torn"),
        (b'{"type": "said", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "torn"),
        (b'{"type": "closed", "end_ms": ' + b"1" * 5_000 + b"}", "torn"),
        (b'{"type": "said"}', "malformed"),
        (b'{"type": "said", "item_id": 1, "role": "user", "text": ""}', "malformed"),
        (b'{"type": "said", "item_id": "1", "role": "king", "text": ""}', "malformed"),
        (b'{"type": "closed", "end_ms": 1' + b"0" * 20 + b"}", "malformed"),
        (b'{"type": "closed", "end_ms": NaN}', "malformed"),
    ],
)
def test_what_is_wrong_with_a_line_is_told_with_its_number(odd: bytes, kind: str) -> None:
    assert found(OPENED, odd, SECOND.replace(b', "previous_item_id": "item_1"', b"")) == [(2, kind)]


def test_a_last_line_without_end_is_torn_even_if_it_can_be_read() -> None:
    for last in (TORN, FIRST, MOOD, b"  "):
        findings = look(OPENED + b"\n" + last)
        assert [(each.line, each.kind) for each in findings if not each.is_remark] == [(2, "torn")]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"garbage\n"])
def test_a_file_without_any_record_is_empty(data: bytes) -> None:
    assert Finding in {type(each) for each in look(data)}
    assert [each.line for each in look(data) if each.kind == "empty"] == [0]


def test_what_newer_versions_write_is_a_remark() -> None:
    assert remarks(OPENED, MOOD, b'{"raw": 1}', b'{"type": ["said"]}') == [
        (2, "unknown"),
        (3, "unknown"),
        (4, "unknown"),
    ]


def test_time_that_goes_back_is_found_and_an_unknown_predecessor_is_a_remark() -> None:
    assert found(OPENED, THIRD, FIRST, SECOND) == [(3, "out of order")]
    assert found(OPENED, FIRST, FIRST, SECOND, said(1, 1)) == [(5, "out of order")]
    assert remarks(OPENED, FIRST, said(3, 3, 2)) == [(3, "out of order")]
    assert remarks(OPENED, said(2, 2, 1), said(1, 3)) == []


def test_a_clock_that_is_set_back_is_a_remark_where_it_happened() -> None:
    assert remarks(OPENED, FIRST, said(1, 0.5, text="replaced")) == [(3, "out of order")]
    assert remarks(OPENED, said(1, 9), said(2, 1), said(3, 2)) == [(3, "out of order")]


def test_what_is_shown_of_a_line_is_short_and_safe() -> None:
    for finding in look(b"\n".join([OPENED, MOOD, b"\x1b[2J\x9b" * 1000, b""])):
        assert finding.text.isprintable()
        assert len(finding.text) < 150


# What is mended -----------------------------------------------------------------------------------


def mended(*these: bytes) -> list[bytes]:
    data = b"".join(each + b"\n" for each in these)
    after = repaired(data)
    assert repaired(after) == after
    assert not after or not [each for each in look(after) if not each.is_remark]
    return after.split(b"\n")[:-1]


def test_every_line_that_can_be_read_stays_as_it_is() -> None:
    odd = b'{"at":"2026-08-22T09:30:10Z","type":"closed","end_ms":1,"\xff":1}'
    kept = [OPENED, odd, MOOD, b'{"raw": 1}', b"\xef\xbb\xbf" + SECOND + b"\r"]
    assert mended(*kept[:2], TORN, *kept[2:], b'{"type": "said"}', b"12", b"") == kept


@pytest.mark.parametrize("before", [TORN, b"\0" * 9, b'{"type": "sa', b'{"type', FIRST + TORN])
def test_a_record_glued_to_a_torn_piece_is_rescued(before: bytes) -> None:
    rest = [FIRST] if before.startswith(FIRST) else []
    glued = said(2, 2, 1, 'with "{"type": "said"" in it')
    assert mended(OPENED, before + glued, THIRD) == [OPENED, *rest, glued, THIRD]


def test_lines_are_sorted_by_time_if_that_changes_nothing_else() -> None:
    usage = line(Usage(input_tokens=3), DAY + timedelta(minutes=1)).strip()
    assert mended(OPENED, THIRD, FIRST, MOOD, b'{"raw": 1}', SECOND, usage) == [
        OPENED, MOOD, b'{"raw": 1}', FIRST, usage, SECOND, THIRD,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "later",
    [
        said(1, 0.5, text="what was said first is replaced by this"),
        said(4, 0.5),
        line(Renamed(name="Honey"), DAY + timedelta(minutes=0.2)).strip(),
    ],
)
def test_otherwise_the_order_stays(later: bytes) -> None:
    renamed = line(Renamed(name="Wax"), DAY + timedelta(minutes=0.5)).strip()
    data = b"\n".join([OPENED, renamed, FIRST, later, b""])
    assert repaired(data) == data
    torn = b"\n".join([OPENED, renamed, TORN, FIRST, later, b""])
    assert repaired(torn) == data
    assert [each.line for each in look(data)] == [4]


def test_a_line_full_of_beginnings_takes_no_time() -> None:
    for hostile in (b'{"type": ', b'{"type":"a","b":[', b'{"type":"a","b":{', b'{"type":"'):
        began = time.process_time()
        look(hostile * 200_000 + b"1" * 1_000_000 + b"\n" + FIRST + b"\n")
        assert time.process_time() - began < 5


# Files --------------------------------------------------------------------------------------------


def test_a_repair_makes_a_new_file_and_keeps_the_old(tmp_path: Path) -> None:
    directory = tmp_path / "sessions"
    path = file(directory, OPENED, TORN, FIRST)
    before = path.read_bytes()
    sound = path.with_name(f"{path.stem}.500.flac")
    sound.write_bytes(b"sound")
    done = repair(path)
    assert done is not None
    assert done.new is not None
    assert session_files(directory) == [done.new]
    assert (session_id(done.new), done.new.stem != path.stem) == ("aaaaaa", True)
    assert lines(done.new) == [OPENED, FIRST]
    assert done.new.stat().st_mode & 0o777 == 0o600
    assert done.old.name == "20260822-093000-aaaaaa.jsonl.old"
    assert done.old.read_bytes() == before
    assert done.new.with_name(f"{done.new.stem}.500.flac").read_bytes() == b"sound"
    assert not sound.exists()
    tombstone = deleted(directory)[path.stem]
    assert (tombstone.length, tombstone.sha256) == (head_of(before).length, head_of(before).sha256)
    assert look_into(done.new) == []
    assert repair(done.new) is None


def test_no_old_file_is_ever_overwritten(tmp_path: Path) -> None:
    olds = []
    for number in range(3):
        path = file(tmp_path / "sessions", OPENED, TORN, said(number))
        done = repair(path)
        assert done is not None
        olds.append(done.old.name.partition(".jsonl")[2])
    assert olds == [".old", ".old-2", ".old-3"]
    assert len(session_files(tmp_path / "sessions")) == 3


def test_a_file_of_which_nothing_can_be_read_is_set_aside_and_not_told_to_stores(
    tmp_path: Path,
) -> None:
    for data in (b"", b"garbage"):
        path = file(tmp_path / "sessions")
        path.write_bytes(data)
        done = repair(path)
        assert done is not None
        assert done.new is None
        assert done.old.read_bytes() == data
    assert session_files(tmp_path / "sessions") == []
    assert deleted(tmp_path / "sessions") == {}


@pytest.mark.parametrize("has_gone_on", [False, True])
def test_a_repair_that_was_broken_off_is_finished(tmp_path: Path, has_gone_on: bool) -> None:
    directory = tmp_path / "sessions"
    path = file(directory, OPENED, TORN, FIRST)
    new = directory / "20261126-030000-aaaaaa.jsonl"
    assert put_down(new, repaired(path.read_bytes()))
    if has_gone_on:
        with closing(SessionLog(new)) as log:
            log.append(Said(item_id="more", role="user", text="more"))
    for name in (path.stem, new.stem):  # a recording of each
        (directory / f"{name}.500.flac").write_bytes(name.encode())
    run = voicechat("history", "check", "aaaaaa", "--repair", VOICECHAT_HOME=str(tmp_path))
    assert run.code == 0, run.err
    assert session_files(directory) == [new]
    assert path.stem in deleted(directory)
    sounds = {each.name: each.read_bytes() for each in directory.glob("*.flac")}
    assert sounds == {
        f"{new.stem}.500.flac": new.stem.encode(),
        f"{new.stem}.500-2.flac": path.stem.encode(),
    }


def test_a_copy_of_a_session_that_is_whole_is_left_alone(tmp_path: Path) -> None:
    one = file(tmp_path, OPENED, FIRST)
    two = one.with_name("20260823-093000-aaaaaa.jsonl")
    two.write_bytes(one.read_bytes())
    assert (look_into(one), look_into(two), repair(one)) == ([], [], None)


def test_an_id_with_a_hyphen_is_still_one_behind_a_time(tmp_path: Path) -> None:
    path = write(tmp_path / "my-notes.jsonl", OPENED, TORN, FIRST)
    done = repair(path)
    assert done is not None
    assert done.new is not None
    assert session_id(done.new) == "my_notes"


def test_what_is_being_written_is_no_damage_and_is_not_repaired(tmp_path: Path) -> None:
    path = file(tmp_path, OPENED, FIRST)
    empty = file(tmp_path, session="bbbbbb")
    with closing(SessionLog(path)), closing(SessionLog(empty)):
        with path.open("ab") as writing:
            writing.write(TORN)
        assert look_into(path) == look_into(empty) == []
        with path.open("ab") as writing:
            writing.write(b"\n" + TORN)
        assert [(each.line, each.kind) for each in look_into(path)] == [(3, "torn")]
        with pytest.raises(SessionInUseError):
            repair(path)
    assert [each.line for each in look_into(path)] == [3, 4]
    assert [each.kind for each in look_into(empty)] == ["empty"]


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    assert [each.kind for each in look_into(tmp_path / "gone.jsonl")] == ["unreadable"]
    with pytest.raises(StoreError):
        repair(tmp_path / "gone.jsonl")


# As a user types it -------------------------------------------------------------------------------


def test_the_command_tells_finds_and_mends(home: Path) -> None:
    directory = home / "sessions"
    save(directory, "bbbbbb", "whole")
    save(directory, "cccccc", "whole", "too")
    path = file(directory, OPENED, TORN, b'\x1b[2J\x9b"', MOOD, FIRST)
    run = voicechat("history", "check")
    assert (run.code, len(run.lines)) == (1, 3)
    assert run.lines[0] == (f"aaaaaa line 2: torn: written in part: {TORN.decode()}")
    assert [each[:23] for each in run.lines[1:]] == [
        "aaaaaa line 3: torn: wr", "aaaaaa line 4: unknown:",
    ]  # fmt: skip
    assert run.err == (
        "2 sessions are whole, 1 is not. Repair it with: voicechat history check aaaaaa --repair\n"
    )
    assert not {"\x1b", "\x9b"} & set(run.out + run.err)
    assert voicechat("history", "check", "bbb", "cccccc").err == "2 sessions are whole.\n"
    repairing = voicechat("history", "check", "Bees", "--repair")
    assert repairing.code == 0
    assert repairing.err.splitlines() == [
        f"Repaired aaaaaa; what was there is kept in {path}.old", "1 session is whole.",
    ]  # fmt: skip
    again = voicechat("history", "check", "--json")
    assert again.code == 0
    report = json.loads(again.out)
    assert (report["whole"], report["damaged"], report["repaired"]) == (3, 0, [])
    [remark] = report["findings"]
    assert (remark["kind"], remark["line"], remark["remark"]) == ("unknown", 2, True)


def test_the_command_says_what_is_not_mended(home: Path) -> None:
    data = [OPENED, FIRST, said(1, 0.5, text="replaced")]
    file(home / "sessions", *data)
    check = ["history", "check", "aaaaaa", "--json"]
    runs = [voicechat(*check, *options) for options in ([], ["--repair"])]
    for run in runs:
        assert (run.code, run.err) == (0, "1 session is whole.\n")
        [finding] = json.loads(run.out)["findings"]
        assert (finding["repaired"], finding["remark"], finding["line"]) == (False, True, 3)
        assert "clock" in finding["text"]
    busy = file(home / "sessions", OPENED, TORN, FIRST, session="bbbbbb")
    with closing(SessionLog(busy)):
        run = voicechat("history", "check", "bbbbbb", "--repair")
    assert run.code == 1
    assert "bbbbbb is in use" in run.err
    assert voicechat("history", "check", "nobody").code == ExitCode.UNKNOWN_SESSION


def test_what_talk_and_resume_write_is_whole(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with StrictServer().running() as server:
        talk = ("--url", server.url, "--input", SPEECH / "austen_0880.wav")
        assert voicechat("talk", *talk).code == 0
        assert voicechat("resume", "last", *talk).code == 0
        assert voicechat("talk", "--url", server.url, "--text", "Hello.").code == 0
    run = voicechat("history", "check")
    assert (run.code, run.out, run.err) == (0, "", "2 sessions are whole.\n")


def test_a_repaired_session_replaces_the_damaged_one_on_other_machines(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    one, two = Machine(tmp_path / "one", url), Machine(tmp_path / "two", url)
    path = file(one.directory, OPENED, FIRST)
    one.sync()
    two.sync()
    with path.open("ab") as damaged:
        damaged.write(TORN + b"\n" + SECOND + b"\n")
    one.sync()
    done = repair(path)
    one.sync()
    two.sync()
    assert done is not None
    assert done.new is not None
    assert one.files == two.files == {done.new.name: b"\n".join([OPENED, FIRST, SECOND, b""])}
    assert one.sync() == two.sync() == Tally()


def test_with_nothing_saved_all_is_well(home: Path) -> None:
    run = voicechat("history", "check")
    assert (run.code, run.out) == (0, "")
    assert "No conversation is saved yet" in run.err


# Whatever is in a file ----------------------------------------------------------------------------

PIECES = st.one_of(
    records.map(lambda record: line(record, DAY)),
    st.tuples(records, st.integers(0, 9)).map(
        lambda pair: line(pair[0], DAY + timedelta(seconds=pair[1]))
    ),
    records.map(lambda record: line(record, DAY)[:-8]),
    st.sampled_from([TORN, MOOD + b"\n", b"\n", b"\0\0", b'{"type": "said"}\n', b"[]\n", b"{}\n"]),
    st.binary(max_size=20),
)


@given(st.lists(PIECES, max_size=8).map(b"".join) | st.binary(max_size=200))
@settings(deadline=None)
def test_no_record_is_lost_whatever_is_in_the_file(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    directory = tmp_path_factory.mktemp("home") / "sessions"
    directory.mkdir()
    path = directory / "20260822-093000-aaaaaa.jsonl"
    path.write_bytes(data)
    before: list[tuple[datetime | None, Record]] = list(read(path))
    told = add_up(path).transcript.spoken
    done = repair(path)
    if done is None:
        wrong = {each.kind for each in look_into(path) if not each.is_remark}
        assert wrong <= {"out of order"}
        return
    assert done.old.read_bytes() == data
    if done.new is None:
        assert before == []
        return
    after = list(read(done.new))
    assert not Counter(map(repr, before)) - Counter(map(repr, after))
    if len(after) == len(before):
        assert add_up(done.new).transcript.spoken == told
    wrong = {each.kind for each in look_into(done.new) if not each.is_remark}
    assert wrong <= {"out of order"}
    assert repair(done.new) is None
