"""A door: a store in an SQL database, through SQLAlchemy.

A log has one row that says how far it goes, which is what everyone waits for who adds to it, and
rows of lines.  Names of logs are kept as bytes: then no database compares them in ways of its own.
"""

import logging
import os
import secrets
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Dialect,
    Engine,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    and_,
    bindparam,
    create_engine,
    delete,
    event,
    false,
    insert,
    inspect,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.mysql import VARBINARY
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SAWarning, SQLAlchemyError
from sqlalchemy.schema import CreateTable
from sqlalchemy.types import TypeDecorator, TypeEngine

from voicechat.errors import SharedStoreError
from voicechat.history.stores import VERSION, Addition, Head
from voicechat.history.stores.opening import Address

DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
ROW = 262_144
"""Bytes of a log in one row, at most."""
ROWS = 500
"""Rows that travel at once."""
LOGS = 100
"""Logs that are read at once."""
ATTEMPTS = 10
"""How often it is tried again when others are quicker."""
COLLISIONS = {"40001", "40P01", "42P07", "42710", "1213"}
"""Codes of what happens when two want the same: serialization, deadlock, the table (or, made before
it, the type of its rows) is there."""
MAGIC = b"SQLite format 3\0"
T = TypeVar("T")


class _Name(TypeDecorator[str]):
    """The name of a log: up to 200 characters of up to four bytes."""

    impl = LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        is_mysql = dialect.name in {"mysql", "mariadb"}  # which has no keys of any length
        return dialect.type_descriptor(VARBINARY(800) if is_mysql else LargeBinary())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        return None if value is None else value.encode()

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else bytes(value).decode(errors="replace")


_SCHEMA = MetaData()
_INNODB: dict[str, Any] = {"mysql_engine": "InnoDB", "mariadb_engine": "InnoDB"}
_STORE = Table(
    "voicechat_store",
    _SCHEMA,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("id", String(32), nullable=False),
    **_INNODB,
)
_LOGS = Table(
    "voicechat_logs",
    _SCHEMA,
    Column("name", _Name, primary_key=True),
    Column("length", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("is_deleted", Boolean, nullable=False),
    **_INNODB,
)
_LINES = Table(
    "voicechat_lines",
    _SCHEMA,
    Column("log", _Name, primary_key=True),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("data", LargeBinary(ROW), nullable=False),
    **_INNODB,
)


class _CollisionError(Exception):
    """Someone else did at the same time what does not go together with it."""


class SqlStore:
    """A database.  Nothing in it is changed but within a transaction."""

    id: str

    def __init__(self, address: Address) -> None:
        self._address = address
        self._engine = self._made_ready()
        try:
            self.id = self._run(self._look) or self._make()
        except SharedStoreError:
            self.close()
            raise

    def heads(self) -> dict[str, Head]:
        """What the rows of the logs say."""
        rows = self._run(lambda connection: connection.execute(select(_LOGS)).all())
        if not all(isinstance(row.length, int) for row in rows):  # SQLite takes anything anywhere
            raise self._address.is_strange()
        return {row.name: Head(row.length, row.sha256, bool(row.is_deleted)) for row in rows}

    def read(self, starts: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
        """Some logs with each query, every one as it was at one moment."""
        names = sorted(starts)
        for first in range(0, len(names), LOGS):
            some = {name: starts[name] for name in names[first : first + LOGS]}
            yield from self._run(partial(_read, some)).items()

    def add(self, additions: Sequence[Addition]) -> set[str]:
        """Add to all of the logs or to none, but for those that are refused."""
        in_order = sorted(additions, key=lambda each: each.log)  # so that nobody waits in a circle
        return self._persist(partial(_add, in_order))

    def bury(self, log: str, seen: Head, tombstone: Head) -> bool:
        """Delete the lines, and let the log's row say so."""
        return self._persist(partial(_bury, log, seen, tombstone))

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()

    # Making it ----------------------------------------------------------------------------------

    def _made_ready(self) -> Engine:
        try:
            url = make_url(self._address.url)
            url = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
            if url.get_backend_name() == "sqlite":
                url = self._with_file(url)
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of parameters it does not know
                engine = create_engine(
                    url, hide_parameters=True, pool_size=1, pool_timeout=self._address.timeout
                )
        except (ArgumentError, SAWarning, TypeError, ValueError) as error:
            raise self._address.is_no_url() from error
        except SQLAlchemyError as error:
            raise self._address.failed(_text(error)) from error
        _set_up(engine, self._address.timeout)
        return engine

    def _with_file(self, url: URL) -> URL:
        """See that the file is there, is one of SQLite's, and for its owner only."""
        if not url.database:
            raise ValueError("no file")
        if url.database.startswith("file:"):
            return url
        path = Path(os.path.expanduser(url.database))  # noqa: PTH111  # Path's raises on ``~nobody``
        start = b""
        with suppress(OSError):  # SQLite says it better
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
            with path.open("rb") as file:
                start = file.read(len(MAGIC))
        if start not in {b"", MAGIC}:  # it takes a short file for an empty one
            raise self._address.is_strange()
        return url.set(database=str(path))

    def _look(self, connection: Connection) -> str | None:
        """See what is there: the id of a store, or nothing yet."""
        there = inspect(connection)
        tables = [_STORE, _LOGS, _LINES]
        missing = [table for table in tables if not there.has_table(table.name)]
        found = None
        for table in tables:
            if table in missing:
                continue
            names = {column["name"] for column in there.get_columns(table.name)}
            if not {column.name for column in table.columns} <= names:
                raise self._address.is_strange()
            if table is _STORE:
                newest = select(_STORE).order_by(_STORE.c.version.desc()).limit(1)
                if (row := connection.execute(newest).first()) is not None:
                    found = self._address.check(row.version, row.id)
        return None if missing else found

    def _make(self) -> str:
        return self._persist(self._create)

    def _create(self, connection: Connection) -> str:
        if (found := self._look(connection)) is not None:
            return found
        for table in (_STORE, _LOGS, _LINES):
            connection.execute(CreateTable(table, if_not_exists=True))
        if connection.execute(select(_STORE)).first() is None:
            values = {"version": VERSION, "id": secrets.token_hex(8)}
            connection.execute(insert(_STORE).values(values))
        return self._look(connection) or ""

    # Asking it ----------------------------------------------------------------------------------

    def _persist(self, work: Callable[[Connection], T]) -> T:
        """Do it in a transaction that begins with a claim to write, again if others are quicker."""
        for _ in range(ATTEMPTS):
            with suppress(_CollisionError):
                return self._run(work, is_to_write=True)
        raise self._address.failed("too many others write there")

    def _run(self, work: Callable[[Connection], T], *, is_to_write: bool = False) -> T:
        if self._engine.dialect.name == "sqlite":
            options = {"begin": "BEGIN IMMEDIATE" if is_to_write else "BEGIN"}
        else:  # see what others did while we waited for them, or one moment only
            options = {"isolation_level": "READ COMMITTED" if is_to_write else "REPEATABLE READ"}
        try:
            with self._engine.connect() as connection:
                connection = connection.execution_options(**options)
                with connection.begin():
                    return work(connection)
        except IntegrityError as error:
            raise _CollisionError from error
        except SQLAlchemyError as error:
            if isinstance(error, DBAPIError) and _code(error) in COLLISIONS:
                raise _CollisionError from error
            raise self._address.failed(_text(error)) from error
        except (  # what SQLAlchemy lets pass; certificates that are not there; missing ciphers
            self._engine.dialect.loaded_dbapi.Error,
            OSError,
            RuntimeError,
        ) as error:
            raise self._address.failed(str(error)) from error
        except (TypeError, ValueError) as error:  # what the library says of odd parameters
            raise self._address.is_no_url() from error


# What is done in a transaction --------------------------------------------------------------------


def _read(starts: Mapping[str, int], connection: Connection) -> dict[str, bytes]:
    lengths = _locked(connection, list(starts), is_to_be_changed=False)
    there = {name: start for name, start in starts.items() if lengths.get(name, -1) >= 0}
    wanted = [
        # The row with the first byte begins before it, but not further than a row is long.
        and_(_LINES.c.log == name, _LINES.c.start > start - ROW)
        for name, start in there.items()
    ]
    rows: Sequence[Row[Any]] = []
    if wanted:
        rows = connection.execute(
            select(_LINES).where(or_(*wanted)).order_by(_LINES.c.log, _LINES.c.start)
        ).all()
    found = dict.fromkeys(there, b"")
    for name, lines in groupby(rows, key=lambda row: row.log):
        start = there[name]
        found[name] = b"".join(bytes(line.data)[max(0, start - line.start) :] for line in lines)
    return found


def _add(additions: Sequence[Addition], connection: Connection) -> set[str]:
    lengths = _locked(connection, [each.log for each in additions], is_to_be_changed=True)
    taken = [each for each in additions if lengths.get(each.log, 0) == each.before]
    heads = [
        {"log": each.log, "new_length": each.after.length, "new_sha256": each.after.sha256}
        for each in taken
    ]
    values: dict[str, Any] = {"length": bindparam("new_length"), "sha256": bindparam("new_sha256")}
    new = [head for head in heads if head["log"] not in lengths]
    grown = [head for head in heads if head["log"] in lengths]
    _execute(
        connection, insert(_LOGS).values(name=bindparam("log"), is_deleted=False, **values), new
    )
    _execute(
        connection, update(_LOGS).where(_LOGS.c.name == bindparam("log")).values(values), grown
    )
    _execute(
        connection,
        insert(_LINES),
        [
            {"log": each.log, "start": each.before + at, "data": each.data[at : at + ROW]}
            for each in taken
            for at in range(0, len(each.data), ROW)
        ],
    )
    return {each.log for each in additions} - {each.log for each in taken}


def _bury(log: str, seen: Head, tombstone: Head, connection: Connection) -> bool:
    is_seen = and_(
        *(_LOGS.c.name == log, _LOGS.c.length == seen.length),
        *(_LOGS.c.sha256 == seen.sha256, _LOGS.c.is_deleted == false()),
    )
    values = {"length": tombstone.length, "sha256": tombstone.sha256, "is_deleted": True}
    if connection.execute(update(_LOGS).where(is_seen).values(values)).rowcount != 1:
        return False
    connection.execute(delete(_LINES).where(_LINES.c.log == log))
    return True


def _locked(connection: Connection, names: list[str], *, is_to_be_changed: bool) -> dict[str, int]:
    """How long logs are; -1: deleted.  To be changed: nobody else does so before we are done."""
    lengths: dict[str, int] = {}
    for first in range(0, len(names), ROWS):
        query = select(_LOGS).where(_LOGS.c.name.in_(names[first : first + ROWS]))
        if is_to_be_changed:
            query = query.order_by(_LOGS.c.name).with_for_update()
        for row in connection.execute(query):
            lengths[row.name] = -1 if row.is_deleted else row.length
    return lengths


def _execute(connection: Connection, statement: Any, rows: list[dict[str, Any]]) -> None:
    for first in range(0, len(rows), ROWS):
        connection.execute(statement, rows[first : first + ROWS])


# What is different from one database to the next --------------------------------------------------


def _set_up(engine: Engine, timeout: float) -> None:
    """Let a database answer in time, and SQLite begin transactions as they are to be used."""
    # It would tell the terminal about connections that broke; so do we, and more kindly.
    logging.getLogger("sqlalchemy").addHandler(logging.NullHandler())

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Dialect, record: Any, args: Any, parameters: dict[str, Any]) -> Any:
        if dialect.driver == "psycopg":
            parameters.setdefault("connect_timeout", ceil(timeout))
            return _psycopg_connection(timeout, *args, **parameters)
        if dialect.driver == "pymysql":
            parameters.setdefault("connect_timeout", max(1, timeout))
            parameters.setdefault("read_timeout", timeout)
            parameters.setdefault("write_timeout", timeout)
        if dialect.driver == "pysqlite":
            parameters.setdefault("timeout", timeout)
        return None

    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def leave_transactions_to_us(connection: Any, record: Any) -> None:
            connection.isolation_level = None

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _psycopg_connection(timeout: float, *args: Any, **parameters: Any) -> Any:
    """Connect by a library that waits for ever once it is connected, but lets one wait instead."""
    import psycopg

    class ImpatientConnection(psycopg.Connection[Any]):
        def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
            try:
                return super().wait(_impatient(gen, timeout), *args, **options)
            except TimeoutError as error:
                self.close()
                raise psycopg.OperationalError("timeout") from error

    return ImpatientConnection.connect(*args, **parameters)


def _impatient(steps: Generator[Any, Any, Any], timeout: float) -> Generator[Any, Any, Any]:
    """Steps that are told when the connection is ready, or, now and then, that it is not."""
    last = time.monotonic()
    ready = None
    while True:
        try:
            wanted = steps.send(ready)
        except StopIteration as end:
            return end.value
        ready = yield wanted
        if ready:
            last = time.monotonic()
        elif time.monotonic() - last > timeout:
            steps.close()
            raise TimeoutError


def _code(error: DBAPIError) -> str:
    """What the database calls it: PostgreSQL's five letters, MySQL's number."""
    state = getattr(error.orig, "sqlstate", None)
    first = error.orig.args[0] if error.orig is not None and error.orig.args else ""
    return str(state or first)


def _text(error: SQLAlchemyError) -> str:
    """What the driver says, without the statement and what was in it."""
    if isinstance(error, DBAPIError):
        code = _code(error)
        return f"{error.orig} ({code})" if code.isalnum() else str(error.orig)
    return str(error)
