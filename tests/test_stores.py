"""What every store promises, by a real server each, and how they fail."""

import os
import random
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from hashlib import sha256
from itertools import accumulate, count, pairwise
from pathlib import Path
from threading import Barrier, Thread
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import pymongo
import pytest
import redis
import sqlalchemy

from tests.store_servers import (
    PASSWORD,
    MariaServer,
    MongoServer,
    PostgresServer,
    RedisServer,
    SecureRedisServer,
    Server,
    quoted,
)
from tests.waiting import PATIENCE, wait_until
from voicechat.errors import SharedStoreError
from voicechat.history.stores import Addition, Head, Store
from voicechat.history.stores.opening import open_store, shown

SERVERS: dict[str, Callable[[], Server]] = {
    "postgresql": PostgresServer,
    "mysql": MariaServer,
    "redis": RedisServer,
    "mongodb": MongoServer,
}
NAMES = [
    "20261126-093012-k7f3",
    "ünïcode",
    "unicode",
    "UNICODE",
    "日本語のセッション",
    "🎤" * 200,
    "trailing ",
    "trailing",
    'it\'s "quoted" 100% {braces} $1 :name ?',
]
T = TypeVar("T")
SECRET = "sesame, open? @/:%41"


class Files:
    """Where SQLite keeps stores."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made = 0

    def fresh(self) -> str:
        self._made += 1
        return f"sqlite:///{self._directory}/{self._made}.db"


@contextmanager
def running(kind: str, directory: Path) -> Iterator[Any]:
    if kind == "sqlite":
        yield Files(directory)
    else:
        with SERVERS[kind]() as server:
            yield server


@pytest.fixture(scope="session", params=["sqlite", *SERVERS])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    with running(request.param, tmp_path_factory.mktemp("stores")) as found:
        yield found


@pytest.fixture(scope="session", params=list(SERVERS))
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    with running(request.param, tmp_path_factory.mktemp("stores")) as found:
        yield found


@pytest.fixture
def url(place: Any) -> str:
    """Of a store that is not there yet."""
    return str(place.fresh())


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with closing(open_store(url)) as opened:
        yield opened


def head(data: bytes) -> Head:
    return Head(len(data), sha256(data).hexdigest())


def more(log: str, old: bytes, new: bytes) -> Addition:
    return Addition(log, len(old), new, head(old + new))


def read(store: Store, log: str, start: int = 0) -> bytes | None:
    return dict(store.read({log: start})).get(log)


def at_once(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """Do all of it at the same time."""
    barrier, results = Barrier(len(works)), [None] * len(works)

    def run(number: int) -> None:
        barrier.wait()
        results[number] = works[number]()

    threads = [Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def trouble(work: Callable[[], object], *secrets: str) -> SharedStoreError:
    """What is said when it fails, and that it says nothing else."""
    with pytest.raises(SharedStoreError) as caught:
        work()
    said = f"{caught.value.message}\n{caught.value.remedy}"
    for secret in (PASSWORD, SECRET, *secrets):
        assert secret not in said
        assert quote(secret) not in said
        assert quoted(secret) not in said
    assert said.count("\n") == 1
    assert caught.value.remedy.endswith(".")
    assert not caught.value.message.endswith(".")
    return caught.value


# What is put in comes out ------------------------------------------------------------------------


def test_what_was_added_is_there(store: Store) -> None:
    contents = {
        name: os.urandom(100 * number) + b"\n\0\xff'\\" for number, name in enumerate(NAMES)
    }
    assert store.heads() == {}
    assert store.add([more(name, b"", data) for name, data in contents.items()]) == set()
    assert store.heads() == {name: head(data) for name, data in contents.items()}
    assert dict(store.read(dict.fromkeys(NAMES, 0))) == contents


def test_a_log_grows(store: Store) -> None:
    data = b""
    for line in (b"first\n", b"second\n", b"\0\xff\xfe\n"):
        assert store.add([more("log", data, line)]) == set()
        data += line
        assert store.heads() == {"log": head(data)}
    assert read(store, "log") == data


def test_it_is_read_from_every_offset(store: Store) -> None:
    data = os.urandom(60) + b"\n"
    for start, end in ((0, 20), (20, 21), (21, 61)):
        store.add([more("log", data[:start], data[start:end])])
    for start in range(len(data) + 5):
        assert read(store, "log", start) == data[start:]
    assert read(store, "other") is None
    assert dict(store.read({})) == {}


def test_an_addition_of_9_mb_is_read_from_within(store: Store) -> None:
    data = os.urandom(9_000_000)
    assert store.add([more("log", b"", b"1\n"), more("other", b"", b"2\n")]) == set()
    assert store.add([more("log", b"1\n", data)]) == set()
    assert read(store, "log") == b"1\n" + data
    for start in (1, 3, 262_145, 262_146, 4_000_001, 4_000_003, 8_999_999):
        assert read(store, "log", start) == (b"1\n" + data)[start:]


def test_many_logs_go_and_come_in_batches(store: Store) -> None:
    contents = {f"log {number}": f"{number}\n".encode() * 10 for number in range(1200)}
    assert store.add([more(log, b"", data) for log, data in contents.items()]) == set()
    assert store.add([more(log, data, b"more\n") for log, data in contents.items()]) == set()
    assert dict(store.read(dict.fromkeys(contents, 0))) == {
        log: data + b"more\n" for log, data in contents.items()
    }
    assert len(store.heads()) == 1200


def test_a_store_is_the_same_when_it_is_opened_again(url: str) -> None:
    with closing(open_store(url)) as store:
        store.add([more("log", b"", b"said\n")])
        first = store.id
        store.close()
    with closing(open_store(url)) as store:
        assert re.fullmatch("[0-9a-f]{16}", store.id)
        assert store.id == first
        assert read(store, "log") == b"said\n"


def test_stores_are_not_the_same(place: Any) -> None:
    with closing(open_store(place.fresh())) as one, closing(open_store(place.fresh())) as other:
        one.add([more("log", b"", b"said\n")])
        assert one.id != other.id
        assert other.heads() == {}


# Others were quicker -----------------------------------------------------------------------------


def test_who_does_not_know_the_log_as_it_is_adds_nothing(store: Store) -> None:
    store.add([more("log", b"", b"one\n"), more("same", b"", b"same\n")])
    store.add([more("log", b"one\n", b"two\n")])
    refused = store.add(
        [
            more("new", b"", b"new\n"),
            more("log", b"one\n", b"other\n"),
            more("same", b"same\n", b"more\n"),
            more("absent", b"something\n", b"more\n"),
        ]
    )
    assert refused == {"log", "absent"}
    assert store.add([more("log", b"", b"other\n")]) == {"log"}
    assert store.add([more("log", b"one\ntw", b"o\nthree\n")]) == {"log"}
    assert store.add([]) == set()
    assert dict(store.read(dict.fromkeys(["log", "new", "same", "absent"], 0))) == {
        "log": b"one\ntwo\n",
        "new": b"new\n",
        "same": b"same\nmore\n",
    }
    assert set(store.heads()) == {"log", "new", "same"}


def test_of_those_who_add_at_once_exactly_one_does(url: str) -> None:
    with ExitStack() as stack:
        stores = [stack.enter_context(closing(open_store(url))) for _ in range(4)]
        data = b""
        for turn in range(6):
            lines = [f"{turn} {number}\n".encode() for number in range(4)]
            refused = at_once(
                [
                    partial(store.add, [more("log", data, line)])
                    for store, line in zip(stores, lines, strict=True)
                ]
            )
            winners = [number for number in range(4) if refused[number] == set()]
            assert len(winners) == 1
            assert [each for each in refused if each] == [{"log"}] * 3
            data += lines[winners[0]]
            assert stores[turn % 4].heads() == {"log": head(data)}
        assert read(stores[0], "log") == data


def test_batches_that_meet_share_the_logs(url: str) -> None:
    logs = [f"log {number}" for number in range(150)]
    with closing(open_store(url)) as one, closing(open_store(url)) as other:
        for old in (b"", b"old\n"):
            if old:
                logs = [f"grown {number}" for number in range(150)]
                one.add([more(log, b"", old) for log in logs])
            refused = at_once(
                [
                    partial(one.add, [more(log, old, b"one\n") for log in logs]),
                    partial(other.add, [more(log, old, b"other\n") for log in reversed(logs)]),
                ]
            )
            assert refused[0] | refused[1] == set(logs)
            assert not refused[0] & refused[1]
            for log, data in one.read(dict.fromkeys(logs, 0)):
                assert data == old + (b"other\n" if log in refused[0] else b"one\n")
                assert one.heads()[log] == head(data)


def test_machines_that_make_a_store_at_once_make_one(place: Any) -> None:
    for _ in range(3):
        url = place.fresh()
        stores = at_once([partial(open_store, url)] * 4)
        assert len({store.id for store in stores}) == 1
        for store in stores:
            store.close()


# Deleting ----------------------------------------------------------------------------------------


def test_a_tombstone_stays(store: Store) -> None:
    data = os.urandom(5_000_000)
    tombstone = Head(5, sha256(b"other").hexdigest(), is_deleted=True)
    store.add([more("log", b"", b"one\n"), more("other", b"", b"other\n")])
    store.add([more("log", b"one\n", data)])
    assert not store.bury("log", head(b"one\n"), tombstone)
    assert not store.bury("log", Head(4 + len(data), head(b"").sha256), tombstone)
    assert not store.bury("absent", head(b"one\n"), tombstone)
    assert read(store, "log") == b"one\n" + data
    assert store.bury("log", head(b"one\n" + data), tombstone)
    assert store.heads() == {"log": tombstone, "other": head(b"other\n")}
    assert dict(store.read({"log": 0, "other": 0})) == {"other": b"other\n"}
    assert not store.bury("log", head(b"one\n" + data), tombstone)
    assert not store.bury("log", tombstone, tombstone)
    for before in (b"", b"one\n", b"other", b"one\n" + data):
        assert store.add([more("log", before, b"back\n")]) == {"log"}
    assert store.heads() == {"log": tombstone, "other": head(b"other\n")}
    assert read(store, "log") is None


def test_of_adding_and_deleting_at_once_one_is_done(url: str) -> None:
    with closing(open_store(url)) as one, closing(open_store(url)) as other:
        for turn in range(10):
            log, tombstone = f"log {turn}", Head(4, head(b"one\n").sha256, is_deleted=True)
            one.add([more(log, b"", b"one\n")])
            refused, is_buried = at_once(
                [
                    partial(one.add, [more(log, b"one\n", b"two\n")]),
                    partial(other.bury, log, head(b"one\n"), tombstone),
                ]
            )
            assert is_buried == (refused == {log})
            assert one.heads()[log] == (tombstone if is_buried else head(b"one\ntwo\n"))
            assert read(one, log) == (None if is_buried else b"one\ntwo\n")


# Dying -------------------------------------------------------------------------------------------


def states(log: str) -> list[bytes]:
    """All that a log of the next two tests can be, one after another."""
    chance = random.Random(log)
    lines = [chance.randbytes(chance.choice([50, 300_000, 3_000_000])) + b"\n" for _ in range(4)]
    return list(accumulate(lines, initial=b""))


def keep_adding(store: Store, acknowledged: dict[str, int]) -> None:
    """Add to one log after another, for ever; say how far it got with each."""
    for turn in count():
        log = f"log {turn}"
        acknowledged[log] = 0
        for old, new in pairwise(states(log)):
            assert store.add([more(log, old, new[len(old) :])]) == set()
            acknowledged[log] += 1


def check_whole(store: Store, acknowledged: dict[str, int]) -> None:
    """What was acknowledged is there, and of what was not all or nothing."""
    heads = store.heads()
    assert acknowledged
    for log, number in acknowledged.items():
        data = read(store, log) or b""
        assert data in states(log)[number : number + 2]
        assert heads.pop(log, head(b"")) == head(data)
    assert not heads


def test_a_server_that_is_killed_has_what_it_said_it_has(server: Server) -> None:
    for attempt in range(3):
        url, acknowledged = server.fresh(), dict[str, int]()
        with closing(open_store(url)) as store:
            caught: list[SharedStoreError] = []
            work = partial(keep_adding, store, acknowledged)
            thread = Thread(target=lambda work=work, caught=caught: caught.append(trouble(work)))
            thread.start()
            wait_until(partial(acknowledged.__contains__, "log 1"))
            time.sleep(0.15 * attempt)
            server.kill()
            thread.join()
            server.start()
        assert "cannot be reached" in caught[0].message
        with closing(open_store(url)) as store:
            check_whole(store, acknowledged)


def test_an_sqlite_file_is_whole_when_a_process_dies_that_writes(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom tests.test_stores import *\n"
        "class Loud(dict):\n"
        "    def __setitem__(self, log, number):\n"
        "        super().__setitem__(log, number)\n"
        "        print(log, number, sep='=', flush=True)\n"
        "keep_adding(open_store(sys.argv[1]), Loud())\n"
    )
    for attempt in range(3):
        url = f"sqlite:///{tmp_path}/{attempt}.db"
        with subprocess.Popen(
            [sys.executable, "-c", script, url], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            said = process.stdout.readline()
            time.sleep(0.05 + 0.03 * attempt)
            process.kill()
            said += process.stdout.read()
        whole = [line.split("=") for line in said.splitlines(keepends=True) if line.endswith("\n")]
        with closing(open_store(url)) as store:
            check_whole(store, {log: int(number) for log, number in whole})


# How they fail -----------------------------------------------------------------------------------


def patiently(work: Callable[[], T]) -> T:
    """What it comes to when the server answers in time: on a busy machine, it may be late."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return work()
        except SharedStoreError:
            assert time.monotonic() < deadline


def test_a_frozen_server_does_not_hold_us(server: Server) -> None:
    url = server.fresh()
    with closing(patiently(lambda: open_store(url, timeout=0.5))) as store:
        patiently(lambda: store.add([more("log", b"", b"said\n")]))
        server.freeze()
        try:
            began = time.monotonic()
            error = trouble(store.heads)
            assert error.message == f"the shared store {shown(url)} did not answer within 0.5 s"
            assert (
                "within" in trouble(lambda: store.add([more("x", b"", b"y" * 9_000_000)])).message
            )
            assert "within" in trouble(lambda: open_store(url, timeout=0.5)).message
            assert time.monotonic() - began < 30
        finally:
            server.thaw()
        wait_until(lambda: patiently(store.heads).get("log") == head(b"said\n"))
        assert patiently(lambda: read(store, "log")) == b"said\n"


@pytest.mark.parametrize("scheme", [*SERVERS, "mariadb", "rediss"])
def test_a_listener_that_never_answers_is_given_up(scheme: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        url = f"{scheme}://me:{quoted(SECRET)}@127.0.0.1:{port}/1"
        began = time.monotonic()
        error = trouble(lambda: open_store(url, timeout=0.5))
        assert time.monotonic() - began < 30
    assert error.message == (
        f"the shared store {scheme}://me@127.0.0.1:{port}/1 did not answer within 0.5 s"
    )


@pytest.mark.parametrize("scheme", [*SERVERS, "mariadb", "rediss"])
def test_nobody_is_there(scheme: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        url = f"{scheme}://me:{quoted(SECRET)}@127.0.0.1:{port}/1"
        error = trouble(lambda: open_store(url, timeout=1))
    assert error.message == (
        f"the shared store {scheme}://me@127.0.0.1:{port}/1 cannot be reached, or went away"
    )


def test_a_refused_password_is_said_to_be_that(server: Server) -> None:
    if isinstance(server, MongoServer):
        return  # it knows none
    url = server.fresh()
    wrong = url.replace(quoted(PASSWORD), quoted(SECRET))
    nobody = re.sub("//[^:]*:", "//nobody:", url)
    for each in (wrong, nobody):
        error = trouble(partial(open_store, each))
        assert error.message == f"the shared store {shown(each)} refuses this user or password"
    without = url.replace(f":{quoted(PASSWORD)}@", "@").replace("//@", "//")
    assert "refuses" in trouble(lambda: open_store(without)).message
    assert "refuses" in trouble(lambda: open_store(without, SECRET)).message
    with closing(open_store(without, PASSWORD)) as store:
        assert store.heads() == {}
    with closing(open_store(url, SECRET)) as store:  # the URL's own goes first
        assert store.heads() == {}


def test_a_database_that_is_not_there_is_said_to_be_missing(server: Server) -> None:
    if isinstance(server, MongoServer):
        return  # it makes it
    url = re.sub(r"[^/]*$", "4711", server.fresh())
    error = trouble(lambda: open_store(url))
    assert error.message == f"the shared store {shown(url)} has no such database"


def test_a_server_without_tls_is_not_trusted(server: Server) -> None:
    url = server.fresh()
    scheme, _, rest = url.partition("://")
    secure = {
        "postgresql": f"{url}?sslmode=require",
        "mysql": f"{url}?ssl_ca=/absent/{quoted(SECRET)}.pem",
        "redis": f"rediss://{rest}",
        "mongodb": f"{url}?tls=true",
    }[scheme]
    error = trouble(lambda: open_store(secure, timeout=1), "sslmode", "/absent")
    assert shown(secure) in error.message


def test_a_server_with_tls_must_be_one_that_is_known() -> None:
    with SecureRedisServer() as server:
        error = trouble(lambda: open_store(server.url))
        assert error.message == (
            f"the shared store {shown(server.url)} and this machine cannot agree on TLS"
        )
        ca = f"ssl_ca_certs={server.directory}/certificate.pem"
        with closing(open_store(f"{server.url}?{ca}")) as store:
            assert store.add([more("log", b"", b"said\n")]) == set()
            assert read(store, "log") == b"said\n"


def _newer(url: str) -> None:
    if url.startswith("redis"):
        with redis_client(url) as client:
            client.hset("voicechat:store", "version", "2")
    elif url.startswith("mongodb"):
        with mongo_client(url) as client:
            stores = client.get_default_database()["voicechat_store"]
            stores.update_one({"_id": "store"}, {"$set": {"version": 2}})
    else:
        carry_out(url, "UPDATE voicechat_store SET version = 2")


def redis_client(url: str) -> "redis.Redis":
    return redis.Redis.from_url(url)


def mongo_client(url: str) -> pymongo.MongoClient[dict[str, Any]]:
    return pymongo.MongoClient(url)


def carry_out(url: str, *statements: str) -> None:
    scheme, _, rest = url.partition("://")
    driver = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}.get(scheme, scheme)
    engine = sqlalchemy.create_engine(f"{driver}://{rest}")
    with engine.begin() as connection:
        for each in statements:
            connection.execute(sqlalchemy.text(each))
    engine.dispose()


def test_a_store_of_a_newer_voicechat_is_left_alone(url: str) -> None:
    open_store(url).close()
    _newer(url)
    error = trouble(lambda: open_store(url))
    assert error.message == f"the shared store {shown(url)} was made by a newer voicechat"
    assert error.remedy == "Update this one: pip install --upgrade voicechat."


def in_redis(url: str, *commands: str) -> None:
    with redis_client(url) as client:
        for each in commands:
            client.execute_command(*each.split())


def in_mongo(url: str, document: dict[str, Any]) -> None:
    with mongo_client(url) as client:
        stores = client.get_default_database()["voicechat_store"]
        stores.insert_one({"_id": "store", **document})


STRANGE: list[tuple[str, Callable[[str], None]]] = [
    ("redis", lambda url: in_redis(url, "SET voicechat:heads x")),
    ("redis", lambda url: in_redis(url, "SET voicechat:store x")),
    ("redis", lambda url: in_redis(url, "HSET voicechat:store version 1")),
    ("redis", lambda url: in_redis(url, "HSET voicechat:store version one id x")),
    ("mongodb", lambda url: in_mongo(url, {"hello": 1})),
    ("mongodb", lambda url: in_mongo(url, {"version": "one", "id": "x"})),
    ("", lambda url: carry_out(url, "CREATE TABLE voicechat_lines (log INT, data INT)")),
    ("", lambda url: carry_out(url, "CREATE TABLE voicechat_store (id INT)")),
    (
        "",
        lambda url: carry_out(
            url,
            "CREATE TABLE voicechat_store (version CHAR(9), id INT)",
            "INSERT INTO voicechat_store VALUES ('one', 1)",
        ),
    ),
]


def test_what_is_not_a_store_is_left_alone(place: Any) -> None:
    tried = 0
    for kind, make in STRANGE:
        url = place.fresh()
        scheme = urlsplit(url).scheme
        if kind == scheme or (not kind and scheme in {"sqlite", "postgresql", "mysql"}):
            make(url)
            error = trouble(partial(open_store, url))
            assert error.message == (
                f"the shared store {shown(url)} holds something else under the names that "
                "voicechat uses"
            )
            tried += 1
    assert tried > 1


def test_a_store_that_can_only_be_read_is_read(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(open_store(f"sqlite:///{path}")) as store:
        store.add([more("log", b"", b"said\n")])
    assert path.stat().st_mode & 0o777 == 0o600
    url = f"sqlite:///file:{path}?mode=ro&uri=true"
    with closing(open_store(url)) as store:
        assert read(store, "log") == b"said\n"
        error = trouble(lambda: store.add([more("log", b"said\n", b"more\n")]), "mode")
        assert error.message == f"the shared store sqlite:///file:{path} can only be read"


def test_a_full_disk_is_said_to_be_that(tmp_path: Path) -> None:
    with closing(open_store(f"sqlite:///{tmp_path}/store.db")) as store:
        store.add([more("log", b"", b"said\n")])
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, old[1]))
        try:
            error = trouble(lambda: store.add([more("big", b"", bytes(3_000_000))]))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        assert re.search("has no room|cannot be read or written", error.message)
        assert store.add([more("big", b"", b"small\n")]) == set()


def test_a_full_redis_and_a_redis_that_follows_another_are_said_to_be_that() -> None:
    with (
        RedisServer() as server,
        closing(open_store(server.url)) as store,
        server.client() as client,
    ):
        store.add([more("log", b"", b"said\n")])
        client.config_set("maxmemory", "1")
        assert "has no room" in trouble(lambda: store.add([more("x", b"", b"y\n")])).message
        assert read(store, "log") == b"said\n"
        client.config_set("maxmemory", "0")
        client.replicaof("127.0.0.1", "1")
        assert "can only be read" in trouble(lambda: store.add([more("x", b"", b"y\n")])).message


@pytest.mark.parametrize(
    "content", [b"this is no database, but it is long enough to be one" * 100, b"x"]
)
def test_a_file_that_is_not_of_sqlite_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    assert "holds something else" in trouble(lambda: open_store(f"sqlite:///{path}")).message
    assert path.read_bytes() == content


def test_a_file_that_cannot_be_is_said_so(tmp_path: Path) -> None:
    for path in (tmp_path / "absent" / "store.db", tmp_path, "~nobody-of-that-name/store.db"):
        assert "cannot be opened" in trouble(partial(open_store, f"sqlite:///{path}")).message


@pytest.mark.parametrize(
    "url",
    [
        "",
        "store",
        f"me:{SECRET}@host",
        f"ftp://me:{quoted(SECRET)}@host/1",
        f"postgresql+nonsense://me:{quoted(SECRET)}@host/1",
        f"postgresql://me:{quoted(SECRET)}@host:port/1",
        f"postgresql://me:{quoted(SECRET)}@127.0.0.1:1/1?nonsense={quoted(SECRET)}",
        f"mysql://me:{quoted(SECRET)}@127.0.0.1:1/1?nonsense={quoted(SECRET)}",
        f"redis://me:{quoted(SECRET)}@127.0.0.1:port/1",
        f"redis://me:{quoted(SECRET)}@127.0.0.1:1/1?nonsense={quoted(SECRET)}",
        f"redis://me:{quoted(SECRET)}@127.0.0.1:1/1?socket_timeout={quoted(SECRET)}",
        "redis://me:sesame/1@127.0.0.1:1/1",
        "redis://:sesame",
        f"mongodb://me:{quoted(SECRET)}@127.0.0.1:1/1?nonsense={quoted(SECRET)}",
        f"mongodb://me:{SECRET}@127.0.0.1:1/1",
        "mongodb://",
        "sqlite://",
        "sqlite:///",
        "sqlite:///file?timeout=sesame",
        "sqlite:///file?nonsense=sesame",
        "redis://[::1",
        "mysql://host:99999999/x",
    ],
)
def test_a_url_that_cannot_be_is_said_so(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = trouble(lambda: open_store(url, timeout=1), "sesame", "nonsense=")
    assert error.exit_code == 16


def test_an_address_is_shown_without_what_is_nobodys_business() -> None:
    for url, expected in {
        "redis://host": "redis://host",
        "rediss://:sesame@host:6380/2": "rediss://host:6380/2",
        "postgresql://me:sesame@host/db?sslmode=require": "postgresql://me@host/db",
        "postgresql://me@a:1,b:2/db": "postgresql://me@a:1,b:2/db",
        "postgresql://me@a:1,b:2/db?user=x@y": "postgresql://me@…",
        "postgresql://me:se/sa@me@host/db": "postgresql://me@host/db",
        "postgresql://me:ses?ame#@host/db": "postgresql://me@…",
        "postgresql://host/db?password=sesame": "postgresql://host/db",
        "postgresql://host/db?user=x@y": "postgresql://host/db",
        "mongodb+srv://me:sesame@host/?tls=true": "mongodb+srv://me@host/",
        "redis://[::1]:6379/0": "redis://[::1]:6379/0",
        "redis://:sesame": "redis://",
        "redis://host:sesame/0": "redis://host",
        "sqlite:////home/me@work/a:b.db?mode=ro": "sqlite:////home/me@work/a:b.db",
        "redis://me\x1b[31m@host": "redis://me [31m@host",
        "me:sesame@host": "what is given",
    }.items():
        assert shown(url) == expected


def test_what_a_library_says_is_shown_without_the_password() -> None:
    from voicechat.history.stores.opening import Address

    url = f"redis://me:{quoted(SECRET)}@host/1?nonsense=parameter"
    said = f"odd: {SECRET} {quoted(SECRET)} {quote(SECRET)} {SECRET!r} {url} parameter\x1b\nmore"
    assert trouble(lambda: _raise(Address(url, 5).failed(said)), "parameter").message == (
        "the shared store redis://me@host/1 failed: odd: … … … '…' … …"
    )
    assert "within" in Address("redis://ssl-full.example.com", 5).failed("timed out").message
    assert "reached" in Address("redis://ssl-full.de", 5).failed("ssl-full.de: refused").message
    assert "reached" in Address("redis://host:1049", 5).failed("host:1049: refused").message
    assert "cannot be shown" in Address("redis://me:odd@host", 5).failed("odd: odd").message


def _raise(error: Exception) -> None:
    raise error


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for url, library, remedy in (
        ("redis://host", "redis", "Install it: pip install 'voicechat[redis]'."),
        ("mongodb://host", "pymongo", "Install it: pip install 'voicechat[mongodb]'."),
        ("sqlite:///x", "sqlalchemy", "Install it: pip install 'voicechat[sqlite]'."),
        ("postgresql://host", "psycopg", "Install it: pip install 'voicechat[postgresql]'."),
        ("mariadb://host", "pymysql", "Install it: pip install 'voicechat[mysql]'."),
        ("postgresql+psycopg2://host", "psycopg2", "Install it: pip install psycopg2."),
    ):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, library, None)
            for module in ("redis", "mongodb", "sql"):
                name = f"voicechat.history.stores.{module}"
                if library in {"redis", "pymongo", "sqlalchemy"}:
                    without.delitem(sys.modules, name, raising=False)
            assert trouble(partial(open_store, url)).remedy == remedy


def test_no_library_is_imported_before_a_store_is_opened() -> None:
    script = (
        "import sys, voicechat.history.stores.opening, voicechat.cli.sync, voicechat.history.sync\n"
        "print({'sqlalchemy', 'redis', 'pymongo', 'bson', 'psycopg', 'pymysql'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "set()\n"
