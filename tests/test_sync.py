"""Sessions travel between machines, and no line is ever lost."""

import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.test_sessions import save
from voicechat.errors import SharedStoreError
from voicechat.history.checking import repair
from voicechat.history.deleting import delete
from voicechat.history.lines import BATCH, PIECE, is_portable
from voicechat.history.log import SessionLog, add_aside
from voicechat.history.reading import add_up, complete
from voicechat.history.sessions import find_session, list_sessions
from voicechat.history.stores import Addition, Head, Store
from voicechat.history.stores.opening import open_store
from voicechat.history.sync import Tally, sync
from voicechat.transcript import Closed, Opened, Renamed, Said


class Machine:
    """A directory of sessions, and the way to the store."""

    def __init__(self, home: Path, url: str) -> None:
        self.directory = home / "sessions"
        self.directory.mkdir(parents=True)
        self._url = url

    @contextmanager
    def store(self) -> Iterator[Store]:
        store = open_store(self._url)
        try:
            yield store
        finally:
            store.close()

    def sync(self) -> Tally:
        with self.store() as store:
            return sync(self.directory, store)

    def path(self, session: str) -> Path:
        return next(self.directory.glob(f"*-{session}.jsonl"))

    def say(self, session: str, text: str) -> None:
        with closing(SessionLog(self.path(session))) as log:
            log.append(Said(item_id=text, role="user", text=text))

    @property
    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.directory.glob("*.jsonl")}

    def texts(self, session: str) -> list[str]:
        return [turn.text for turn in add_up(self.path(session)).transcript.turns]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.sqlite3"


@pytest.fixture
def machines(tmp_path: Path, url: str) -> tuple[Machine, Machine]:
    return Machine(tmp_path / "one", url), Machine(tmp_path / "two", url)


def test_what_was_said_here_is_there_byte_for_byte(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    save(one.directory, "aaaaaa", "hello", "Grüß Gott", name="Bees")
    save(two.directory, "bbbbbb", "from elsewhere")
    assert one.sync().sent == {"aaaaaa"}
    tally = two.sync()
    assert (tally.sent, tally.fetched) == ({"bbbbbb"}, {"aaaaaa"})
    assert one.sync().fetched == {"bbbbbb"}
    assert one.files == two.files
    assert one.sync() == two.sync() == Tally()
    assert two.path("aaaaaa").stat().st_mode & 0o777 == 0o600


def test_only_what_is_missing_travels(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    save(one.directory, "aaaaaa", *["word " * 200] * 200)
    save(one.directory, "bbbbbb", "never changes")
    one.sync()
    two.sync()
    one.say("aaaaaa", "and one more")
    with one.store() as store:
        counting = Counting(store)
        assert sync(one.directory, counting).sent == {"aaaaaa"}
        assert 0 < counting.moved < 500
    with two.store() as store:
        counting = Counting(store)
        assert sync(two.directory, counting).fetched == {"aaaaaa"}
        assert 0 < counting.moved < 500
    assert one.files == two.files


class Counting:
    """A store that tells how many bytes went through."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.id = store.id
        self.heads, self.bury, self.close = store.heads, store.bury, store.close
        self.moved = 0

    def read(self, starts: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
        for log, data in self._store.read(starts):
            self.moved += len(data)
            yield log, data

    def add(self, additions: Sequence[Addition]) -> set[str]:
        self.moved += sum(len(each.data) for each in additions)
        return self._store.add(additions)


def test_a_torn_tail_is_not_sent(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    path = save(one.directory, "aaaaaa", "hello")
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"type": "said", "item_id": "x", "te')
    one.sync()
    two.sync()
    assert two.path("aaaaaa").read_bytes() == whole
    two.say("aaaaaa", "from two")
    two.sync()
    one.sync()
    assert one.texts("aaaaaa") == ["hello", "from two"]
    assert one.files == two.files


def test_two_that_went_on_with_one_session_both_keep_every_line(
    machines: tuple[Machine, Machine],
) -> None:
    one, two = machines
    save(one.directory, "aaaaaa", "hello", name="Bees")
    one.sync()
    two.sync()
    one.say("aaaaaa", "from one")
    two.say("aaaaaa", "from two")
    for start_ms in (0, 60_000):
        name = f"{two.path('aaaaaa').stem}.{start_ms}.flac"
        two.directory.joinpath(name).write_bytes(b"%d" % start_ms)
    one.sync()
    tally = two.sync()
    [(session, fork)] = tally.forked.items()
    assert session == "aaaaaa"
    one.sync()
    assert one.files == two.files
    assert one.texts("aaaaaa") == ["hello", "from one"]
    assert one.texts(fork) == ["hello", "from two"]
    assert find_session(one.directory, "bees").id == "aaaaaa"
    found = find_session(one.directory, "bees (fork)")
    assert (found.id, found.parent) == (fork, "aaaaaa")
    recorded = {path.name.split("-")[-1] for path in two.directory.glob("*.flac")}
    assert recorded == {"aaaaaa.0.flac", f"{fork}.0.flac", f"{fork}.60000.flac"}
    assert one.sync() == two.sync() == Tally()


def test_a_fork_that_was_made_before_a_crash_is_not_made_twice(
    machines: tuple[Machine, Machine],
) -> None:
    one, two = machines
    save(one.directory, "aaaaaa", "hello")
    one.sync()
    two.sync()
    one.say("aaaaaa", "from one")
    two.say("aaaaaa", "from two")
    one.sync()
    before = two.files
    two.sync()
    for path in two.directory.glob("*.jsonl"):
        if path.name in before:
            path.write_bytes(before[path.name])  # as if the process had been killed here
    shutil.rmtree(two.directory.parent / "none", ignore_errors=True)
    for path in two.directory.parent.glob("synced-*"):
        path.unlink()
    two.sync()
    one.sync()
    assert one.files == two.files
    assert len(one.files) == 2


def test_what_is_deleted_here_is_deleted_there(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    save(one.directory, "aaaaaa", "hello")
    save(one.directory, "bbbbbb", "stays")
    one.sync()
    two.sync()
    recording = two.path("aaaaaa").with_suffix(".0.flac")
    recording.write_bytes(b"sound")
    delete(one.path("aaaaaa"))
    assert one.sync().deleted_there == {"aaaaaa"}
    assert two.sync().deleted_here == {"aaaaaa"}
    assert not recording.exists()
    assert set(one.files) == set(two.files) == {two.path("bbbbbb").name}
    assert one.sync() == two.sync() == Tally()


def test_a_session_that_was_gone_on_with_is_not_deleted_with_its_beginning(
    machines: tuple[Machine, Machine],
) -> None:
    one, two = machines
    save(one.directory, "aaaaaa", "hello")
    one.sync()
    two.sync()
    delete(one.path("aaaaaa"))
    two.say("aaaaaa", "from two")
    one.sync()
    [(_, fork)] = two.sync().kept.items()
    one.sync()
    assert one.files == two.files
    assert one.texts(fork) == ["hello", "from two"]
    assert len(one.files) == 1


def test_what_others_said_before_it_was_deleted_here_comes_back(
    machines: tuple[Machine, Machine],
) -> None:
    one, two = machines
    save(one.directory, "aaaaaa", "hello")
    one.sync()
    two.sync()
    two.say("aaaaaa", "from two")
    two.sync()
    delete(one.path("aaaaaa"))
    tally = one.sync()
    assert (tally.back, tally.fetched) == ({"aaaaaa"}, {"aaaaaa"})
    assert one.files == two.files
    delete(one.path("aaaaaa"))
    assert one.sync().deleted_there == {"aaaaaa"}
    two.sync()
    assert two.files == {}


def test_what_others_said_comes_back_even_if_more_was_said_here(
    machines: tuple[Machine, Machine],
) -> None:
    one, two = machines
    save(one.directory, "aaaaaa", "hello")
    one.sync()
    two.sync()
    two.say("aaaaaa", "from two")
    two.sync()
    one.say("aaaaaa", "a much longer sentence than the other")
    delete(one.path("aaaaaa"))
    tally = one.sync()
    assert (tally.back, tally.deleted_there) == ({"aaaaaa"}, set())
    assert two.sync() == Tally()
    assert one.files == two.files
    assert one.texts("aaaaaa") == ["hello", "from two"]


def test_where_nobody_said_anything_nothing_is_forked(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    save(one.directory, "aaaaaa", "hello", name="Bees")
    one.sync()
    two.sync()
    for voice, machine in zip(("cedar", "marin"), machines, strict=True):  # could not connect
        with closing(SessionLog(machine.path("aaaaaa"))) as log:
            log.append(Opened(session="aaaaaa", name="Bees", voice=voice))
            log.append(Closed())
    one.sync()
    assert two.sync() == Tally(fetched={"aaaaaa"})
    assert one.files == two.files
    add_aside(one.path("aaaaaa"), Renamed(name="Ants"))
    one.sync()
    add_aside(two.path("aaaaaa"), Renamed(name="Wasps"))
    two.sync()
    one.sync()
    assert one.files == two.files
    assert len(one.files) == 1
    assert find_session(one.directory, "wasps").id == "aaaaaa"


def test_what_says_nothing_does_not_keep_what_others_deleted(
    machines: tuple[Machine, Machine],
) -> None:
    one, two = machines
    save(one.directory, "aaaaaa", "hello")
    one.sync()
    two.sync()
    delete(one.path("aaaaaa"))
    add_aside(two.path("aaaaaa"), Renamed(name="Wasps"))
    one.sync()
    assert two.sync() == Tally(deleted_here={"aaaaaa"})
    assert two.files == {}


def test_a_session_in_use_is_sent_as_far_as_it_goes_and_changed_later(
    machines: tuple[Machine, Machine],
) -> None:
    one, two = machines
    save(one.directory, "aaaaaa", "hello")
    one.sync()
    two.sync()
    with closing(SessionLog(one.path("aaaaaa"))) as log:
        log.append(Said(item_id="x", role="user", text="still talking"))
        assert one.sync().sent == {"aaaaaa"}
        two.sync()
        two.say("aaaaaa", "from two")
        two.sync()
        assert one.sync().in_use == {"aaaaaa"}
        log.append(Said(item_id="y", role="user", text="and on"))
    [(_, fork)] = one.sync().forked.items()
    two.sync()
    assert one.files == two.files
    assert one.texts("aaaaaa") == ["hello", "still talking", "from two"]
    assert one.texts(fork) == ["hello", "still talking", "and on"]


def test_a_name_travels_like_everything_else(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    save(one.directory, "aaaaaa", "hello")
    one.sync()
    two.sync()
    add_aside(two.path("aaaaaa"), Renamed(name="Bees"))
    two.sync()
    one.sync()
    assert find_session(one.directory, "bees").id == "aaaaaa"


def test_an_empty_session_stays_here(machines: tuple[Machine, Machine]) -> None:
    one, _ = machines
    with closing(SessionLog.create(one.directory)) as log:
        log.append(Opened(session=log.session))
        assert one.sync() == Tally()


def test_without_knowledge_of_the_past_it_only_takes_longer(
    machines: tuple[Machine, Machine],
) -> None:
    one, two = machines
    for number in range(5):
        save(one.directory, f"aaaaa{number}", "hello")
    one.sync()
    two.sync()
    two.say("aaaaa3", "more")
    two.sync()
    for path in one.directory.parent.glob("synced-*"):
        path.write_text('{"20260822-093000-aaaaa1": [1, 2]} rubbish')
    assert one.sync().fetched == {"aaaaa3"}
    assert one.files == two.files


def test_a_long_session_travels_in_pieces(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    save(one.directory, "aaaaaa", *["x" * (PIECE // 3)] * 7, "y" * (PIECE * 2), "z")
    for number in range(BATCH + 5):
        save(one.directory, f"b{number:05}", f"short {number}")
    assert len(one.sync().sent) == BATCH + 6
    assert len(two.sync().fetched) == BATCH + 6
    assert one.files == two.files


@pytest.mark.parametrize(
    "name",
    [
        *("../../evil", "/etc/evil", "a/b", "a\\b", "..", ".hidden", "con:1", "x" * 300),
        *("a\nb", "a\x1bb", "", " a", "a ", "\udc80", "a\u202eb"),
    ],
)
def test_names_from_a_store_lead_nowhere(
    machines: tuple[Machine, Machine], tmp_path: Path, name: str
) -> None:
    one, _ = machines
    assert not is_portable(name)
    data = b'{"type": "said", "item_id": "a", "role": "user", "text": "x"}\n'
    before = sorted(tmp_path.rglob("*"))
    with one.store() as store:
        heads = {name: Head(len(data), "0" * 64), **store.heads()}
        hostile = Hostile(store, heads, data)
        sync(one.directory, hostile)
    assert not hostile.was_read
    known = {path for path in tmp_path.rglob("*") if path.name.startswith(("synced-", "store."))}
    assert set(tmp_path.rglob("*")) - known == set(before) - known


class Hostile:
    """A store that says what it likes."""

    id = "../../x"

    def __init__(self, store: Store, heads: dict[str, Head], data: bytes) -> None:
        self._heads, self._data = heads, data
        self.add, self.bury, self.close = store.add, store.bury, store.close
        self.was_read = False

    def heads(self) -> dict[str, Head]:
        return self._heads

    def read(self, starts: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
        self.was_read = True
        for log in starts:
            yield log, self._data


def test_a_store_that_is_damaged_damages_nothing_here(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    save(one.directory, "aaaaaa", "hello")
    one.sync()
    two.sync()
    before = one.files
    log = one.path("aaaaaa").stem
    with one.store() as store:
        heads = {log: Head(10_000, "0" * 64), "20260101-000000-zzzzzz": Head(5, "1" * 64)}
        tally = sync(one.directory, Hostile(store, heads, b"rubbish\n"))
    assert tally.damaged == {"aaaaaa", "zzzzzz"}
    assert one.files == before


def test_a_store_with_nonsense_in_it_is_an_error(
    machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    one, _ = machines
    save(one.directory, "aaaaaa", "hello")
    one.sync()
    with closing(sqlite3.connect(tmp_path / "store.sqlite3")) as database, database:
        database.execute("update voicechat_logs set length = 'abc'")
    with pytest.raises(SharedStoreError, match="something else under the names"):
        one.sync()


def test_one_file_that_cannot_be_read_holds_up_no_other(
    machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    one, _ = machines
    one.directory.joinpath("20260822-093000-aaaaaa.jsonl").symlink_to("/proc/self/mem")
    save(one.directory, "bbbbbb", "world")
    tally = one.sync()
    assert (tally.sent, tally.unreadable) == ({"bbbbbb"}, {"aaaaaa"})


def test_odd_names_stay_where_they_are(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    (one.directory / "a:b.jsonl").write_bytes(save(one.directory, "aaaaaa", "hi").read_bytes())
    (one.directory / "mein Urlaub 2026.jsonl").write_bytes(one.path("aaaaaa").read_bytes())
    assert one.sync().misnamed == {"a:b"}
    two.sync()
    assert set(two.files) == set(one.files) - {"a:b.jsonl"}


# Repairs, and what came by other ways ------------------------------------------------------------


def cut(path: Path, number: int) -> None:
    """Take away the end of a line, as a bad disk or editor may."""
    lines = path.read_bytes().split(b"\n")
    lines[number] = lines[number][:-30]
    path.write_bytes(b"\n".join(lines))


def shared(machines: tuple[Machine, Machine], *texts: str) -> tuple[Machine, Machine]:
    """Both hold this session, called Bees."""
    one, two = machines
    save(one.directory, "aaaaaa", *texts, name="Bees")
    one.sync()
    two.sync()
    return one, two


@pytest.mark.parametrize("more", [(), ("and more",)])
def test_a_repair_of_what_was_damaged_here_damages_nothing_elsewhere(
    machines: tuple[Machine, Machine], more: tuple[str, ...]
) -> None:
    one, two = shared(machines, "first", "PRECIOUS", "third")
    recording = two.path("aaaaaa").with_suffix(".0.flac")
    recording.write_bytes(b"sound")
    cut(two.path("aaaaaa"), 2)
    for text in more:
        two.say("aaaaaa", text)
    assert repair(two.path("aaaaaa"))
    add_aside(two.path("aaaaaa"), Renamed(name="Ants"))
    tally = two.sync()
    assert tally.back == {"aaaaaa"}
    assert len(tally.forked) == len(more)
    one.sync()
    assert one.files == two.files
    assert one.texts("aaaaaa") == ["first", "PRECIOUS", "third"]
    for fork in tally.forked.values():
        assert one.texts(fork) == ["first", "third", "and more"]
    found = find_session(one.directory, "ants (fork)" if more else "ants")
    assert [path.read_bytes() for path in two.directory.glob(f"*-{found.id}.0.flac")] == [b"sound"]
    assert len(one.files) == 1 + len(more)
    assert one.sync() == two.sync() == Tally()


def test_a_repair_elsewhere_leaves_what_is_kept_here(machines: tuple[Machine, Machine]) -> None:
    one, two = shared(machines, "first")
    with one.path("aaaaaa").open("ab") as file:
        file.write(b'{"type": "said", "text": "torn')
    one.path("aaaaaa").with_suffix(".0.flac").write_bytes(b"sound")
    assert repair(one.path("aaaaaa"))
    [old] = one.directory.glob("*.old")
    one.sync()
    two.sync()
    with two.path("aaaaaa").open("ab") as file:
        file.write(b'{"type": "sa')
    assert repair(two.path("aaaaaa"))
    two.sync()
    add_aside(one.path("aaaaaa"), Renamed(name="Ants"))
    one.sync()
    two.sync()
    assert one.files == two.files
    assert len(one.files) == 1
    assert find_session(two.directory, "ants").id == "aaaaaa"
    assert one.path("aaaaaa").with_suffix(".0.flac").read_bytes() == b"sound"
    assert old.exists()
    delete(one.path("aaaaaa"))
    assert not old.exists()


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_last_turn_without_an_end_is_a_turn(
    machines: tuple[Machine, Machine], is_deleted: bool
) -> None:
    one, two = shared(machines, "first")
    with two.path("aaaaaa").open("ab") as file:
        file.write(b'{"type": "said", "item_id": "z", "role": "user", "text": "PRECIOUS"}')
    if is_deleted:
        delete(one.path("aaaaaa"))
    else:
        one.say("aaaaaa", "from one")
    one.sync()
    tally = two.sync()
    [fork] = [*tally.forked.values(), *tally.kept.values()]
    assert two.texts(fork) == ["first", "PRECIOUS"]
    one.sync()
    assert one.files == two.files


def test_a_last_turn_without_an_end_is_not_said_twice(machines: tuple[Machine, Machine]) -> None:
    one, two = shared(machines, "first")
    one.say("aaaaaa", "second")
    one.sync()
    two.path("aaaaaa").write_bytes(one.path("aaaaaa").read_bytes()[:-1])
    assert two.sync() == Tally(fetched={"aaaaaa"})
    assert one.files == two.files


def test_what_came_here_by_another_way_is_not_what_others_deleted(
    machines: tuple[Machine, Machine],
) -> None:
    one, two = machines
    path = save(one.directory, "aaaaaa", "hello")
    one.sync()
    data = path.read_bytes()
    delete(path)
    one.sync()
    (two.directory / path.name).write_bytes(data)
    (two.directory / path.name).with_suffix(".0.flac").write_bytes(b"sound")
    assert two.sync() == Tally(sent={"aaaaaa"})
    assert two.texts("aaaaaa") == ["hello"]
    assert two.path("aaaaaa").with_suffix(".0.flac").read_bytes() == b"sound"
    one.sync()
    assert one.files == two.files
    delete(one.path("aaaaaa"))
    one.sync()
    two.sync()
    assert two.files == {}


def test_until_what_it_became_is_in_the_store_others_keep_what_it_was(
    machines: tuple[Machine, Machine],
) -> None:
    one, two = shared(machines, "first")
    recording = one.path("aaaaaa").with_suffix(".0.flac")
    recording.write_bytes(b"sound")
    with two.path("aaaaaa").open("ab") as file:
        file.write(b'{"type": "sa')
    assert repair(two.path("aaaaaa"))
    with two.store() as store, pytest.raises(SharedStoreError):
        sync(two.directory, Failing(store))
    assert one.sync() == Tally()
    assert one.texts("aaaaaa") == ["first"]
    assert recording.exists()
    two.sync()
    one.sync()
    assert one.files == two.files
    assert one.path("aaaaaa").with_suffix(".0.flac").read_bytes() == b"sound"


class Failing(Counting):
    """A store that goes away when something is to be put there."""

    def add(self, additions: Sequence[Addition]) -> set[str]:
        raise SharedStoreError("gone", remedy="")


def test_what_is_talked_in_is_put_together_later(machines: tuple[Machine, Machine]) -> None:
    one, two = shared(machines, "first", "PRECIOUS", "third")
    cut(two.path("aaaaaa"), 2)
    assert repair(two.path("aaaaaa"))
    with closing(SessionLog(two.path("aaaaaa"))):
        assert two.sync().in_use == {"aaaaaa"}
        assert len(two.files) == 2
    two.sync()
    one.sync()
    assert one.files == two.files
    assert len(one.files) == 1
    assert two.texts("aaaaaa") == ["first", "PRECIOUS", "third"]


def test_one_that_may_not_be_written_holds_up_no_other(machines: tuple[Machine, Machine]) -> None:
    one, two = shared(machines, "first")
    save(two.directory, "bbbbbb", "hello")
    one.say("aaaaaa", "more")
    one.sync()
    path = two.path("aaaaaa")
    path.rename(path.with_name("moved"))
    path.symlink_to("/proc/version")  # which not even root may write to
    tally = two.sync()
    assert (tally.sent, tally.unreadable) == ({"bbbbbb"}, {"aaaaaa"})


def test_two_that_sync_on_one_machine_forget_nothing(
    machines: tuple[Machine, Machine],
) -> None:
    one, two = machines
    save(one.directory, "aaaaaa", "hello")
    with one.store() as store:
        sync(one.directory, Late(store, one))
    two.sync()
    delete(two.path("bbbbbb"))
    two.sync()
    one.sync()
    assert one.files == two.files
    assert len(one.files) == 1


class Late(Counting):
    """A store from which another process fetches, and to which it sends, in the meantime."""

    def __init__(self, store: Store, machine: Machine) -> None:
        super().__init__(store)
        self._machine: Machine | None = machine

    def add(self, additions: Sequence[Addition]) -> set[str]:
        refused = super().add(additions)
        if machine := self._machine:
            self._machine = None
            save(machine.directory, "bbbbbb", "from another process")
            machine.sync()
        return refused


@pytest.mark.parametrize("more", [(), ("and more",)])
@pytest.mark.parametrize("is_behind", [False, True])
def test_the_same_session_under_another_name_stays_one(
    machines: tuple[Machine, Machine], more: tuple[str, ...], is_behind: bool
) -> None:
    one, two = machines
    path = save(one.directory, "aaaaaa", "hello")
    other = two.directory / "20300101-000000-aaaaaa.jsonl"
    other.write_bytes(path.read_bytes())  # such as an import, which goes by what is in it
    other.with_suffix(".0.flac").write_bytes(b"sound")
    for text in more:
        (one if is_behind else two).say("aaaaaa", text)
    one.sync()
    two.sync()
    one.sync()
    assert one.files == two.files
    assert list(one.files) == [path.name]
    assert two.texts("aaaaaa") == ["hello", *more]
    assert two.path("aaaaaa").with_suffix(".0.flac").read_bytes() == b"sound"
    assert one.sync() == two.sync() == Tally()


# Whatever happens, in whatever order ------------------------------------------------------------


class TwoMachines(RuleBasedStateMachine):
    """Both talk, tear, delete, rename and sync as they like."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.home = Path(tempfile.mkdtemp())
        url = f"sqlite:///{self.home}/store.sqlite3"
        self.machines = [Machine(self.home / name, url) for name in ("one", "two")]
        self.said: set[str] = set()
        self.damaged: set[str] = set()
        self.number = 0

    def teardown(self) -> None:
        for _ in range(3):
            for machine in self.machines:
                machine.sync()
        one, two = (
            {name: complete(data) for name, data in m.files.items() if b'"said"' in complete(data)}
            for m in self.machines
        )
        assert one == two
        for machine in self.machines:
            heard = {
                turn.text
                for session in list_sessions(machine.directory)[0]
                for turn in add_up(session.path).transcript.turns
            }
            assert self.said <= heard
        assert [machine.sync() for machine in self.machines] == [Tally(), Tally()]
        shutil.rmtree(self.home)

    def _any(self, machine: int, place: int) -> str | None:
        files = sorted(self.machines[machine].files)
        return files[place % len(files)].split("-")[-1].removesuffix(".jsonl") if files else None

    def _text(self) -> str:
        self.number += 1
        self.said.add(f"text {self.number}")
        return f"text {self.number}"

    @rule(machine=st.integers(0, 1))
    def begin(self, machine: int) -> None:
        with closing(SessionLog.create(self.machines[machine].directory)) as log:
            log.append(Opened(session=log.session))
            text = self._text()
            log.append(Said(item_id=text, role="user", text=text))

    @rule(machine=st.integers(0, 1), place=st.integers(0, 9), lines=st.integers(1, 3))
    def go_on(self, machine: int, place: int, lines: int) -> None:
        if session := self._any(machine, place):
            for _ in range(lines):
                self.machines[machine].say(session, self._text())

    @rule(machine=st.integers(0, 1), place=st.integers(0, 9))
    def tear(self, machine: int, place: int) -> None:
        if session := self._any(machine, place):
            with self.machines[machine].path(session).open("ab") as file:
                file.write(b'{"type": "sa')

    @rule(machine=st.integers(0, 1), place=st.integers(0, 9), number=st.integers(0, 9))
    def damage(self, machine: int, place: int, number: int) -> None:
        """What is then nowhere else is lost."""
        if session := self._any(machine, place):
            path = self.machines[machine].path(session)
            before = set(self.machines[machine].texts(session))
            cut(path, number % len(path.read_bytes().split(b"\n")))
            lost = before - set(self.machines[machine].texts(session))
            self.damaged |= lost
            with self.machines[machine].store() as store:
                heads = dict.fromkeys(store.heads(), 0)
                held = b"".join(data for _, data in store.read(heads))
            self.said -= {text for text in lost if f'"{text}"'.encode() not in held}

    @rule(machine=st.integers(0, 1), place=st.integers(0, 9))
    def repair(self, machine: int, place: int) -> None:
        if session := self._any(machine, place):
            done = repair(self.machines[machine].path(session))
            if done is not None and done.new is None:  # damaged again and again: it is gone
                self.said -= self.damaged

    @rule(machine=st.integers(0, 1), place=st.integers(0, 9))
    def rename(self, machine: int, place: int) -> None:
        if session := self._any(machine, place):
            add_aside(self.machines[machine].path(session), Renamed(name=self._text()))
            self.said.discard(f"text {self.number}")

    @rule(machine=st.integers(0, 1), place=st.integers(0, 9))
    def delete(self, machine: int, place: int) -> None:
        if session := self._any(machine, place):
            self.said -= set(self.machines[machine].texts(session)) | self.damaged
            delete(self.machines[machine].path(session))

    @rule(machine=st.integers(0, 1))
    def forget(self, machine: int) -> None:
        for path in self.machines[machine].directory.parent.glob("synced-*"):
            path.unlink()

    @rule(machine=st.integers(0, 1))
    def sync(self, machine: int) -> None:
        self.machines[machine].sync()


TestTwoMachines = TwoMachines.TestCase
TestTwoMachines.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
