"""Real servers for shared stores, each with a password, a directory and a port of its own.

They run as nobody where the tests run as root, are killed with the tests, and hold what they have
acknowledged when they are killed and started again.  Needs the Debian packages redis-server,
postgresql and mariadb-server; MongoDB's protocol is spoken by nx-27017, a package of Python's.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import psycopg
import pymongo
import pymysql
import redis
from pymongo.errors import PyMongoError

from tests.virtual_card import die_with_the_test

USER = "voicechat"
PASSWORD = "tr0ub@dor/&:%3 x"
"""With everything in it that a URL makes something of."""
AS_NOBODY: dict[str, Any] = (
    {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
)


NO_ANSWER = (OSError, redis.RedisError, psycopg.Error, pymysql.Error, PyMongoError)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Server:
    """A server that can be killed, frozen and started again on the same data and port."""

    url: str
    """Of one database, with the credentials."""
    as_nobody = AS_NOBODY

    def __init__(self) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="store-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.prepare()
            self.start()
            self.url = self.fresh()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def prepare(self) -> None:
        """Make what the server needs before it is started for the first time."""

    def command(self) -> list[str]:
        """What to start."""
        raise NotImplementedError

    def ask(self) -> object:
        """Ask it anything; fails if it does not answer."""
        raise NotImplementedError

    def fresh(self) -> str:
        """The URL of a database that is empty."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it; it answers then."""
        deadline = time.monotonic() + 30
        while True:
            if self._process is None or self._process.poll() is not None:
                self._process = self._launched()
            try:
                self.ask()
            except NO_ANSWER:
                if time.monotonic() > deadline:
                    self.kill()
                    log = (self.directory / "log").read_text(errors="replace")
                    raise RuntimeError(
                        f"{self.command()[0]} did not start: {log[-2000:]}"
                    ) from None
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """Power off: nothing is tidied up."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Leave all connections as they are, and answer nothing."""
        stopped = self._signal(signal.SIGSTOP)
        while not all(map(_is_stopped, stopped)):  # a busy machine takes its time
            time.sleep(0.001)

    def thaw(self) -> None:
        """Go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """Kill it and throw away what it held."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _signal(self, number: int) -> list[int]:
        """Send it to the server and its children; return which those are."""
        if self._process is None or self._process.poll() is not None:
            return []
        children = subprocess.run(
            ["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True
        )
        processes = [self._process.pid, *map(int, children.stdout.split())]
        for each in processes:
            with suppress(ProcessLookupError):
                os.kill(each, number)
        return processes

    def _run(self, *command: str) -> None:
        """Run to its end what prepares the server.

        Raises:
            RuntimeError: It failed; with what it said.
        """
        done = subprocess.run(
            command,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **self.as_nobody,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stdout.decode(errors='replace')}")

    def _launched(self) -> subprocess.Popen[bytes]:
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(
                self.command(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_the_test,
                **self.as_nobody,
            )


class RedisServer(Server):
    """Redis that writes down what it acknowledges first."""

    _databases = 0

    def prepare(self) -> None:
        own(self.directory)

    def command(self) -> list[str]:
        return [
            *("redis-server", "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(self.directory), "--requirepass", PASSWORD, "--databases", "1000"),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
        ]

    def ask(self) -> object:
        with self.client() as client:
            return client.ping()

    def client(self, number: int = 0) -> "redis.Redis":
        """Whoever may do anything there."""
        return redis.Redis("127.0.0.1", self.port, number, PASSWORD, socket_timeout=10)

    def fresh(self) -> str:
        self._databases += 1
        return f"redis://:{quoted(PASSWORD)}@127.0.0.1:{self.port}/{self._databases}"


class SecureRedisServer(RedisServer):
    """Redis that speaks nothing but TLS, with a certificate of its own making."""

    def prepare(self) -> None:
        super().prepare()
        self._run(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", "key.pem", "-out", "certificate.pem"),
        )

    def command(self) -> list[str]:
        return [
            *super().command(),
            *("--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"),
            *("--tls-cert-file", "certificate.pem", "--tls-key-file", "key.pem"),
        ]

    def client(self, number: int = 0) -> "redis.Redis":
        return redis.Redis(
            *("127.0.0.1", self.port, number, PASSWORD),
            ssl=True,
            ssl_ca_certs=str(self.directory / "certificate.pem"),
        )

    def fresh(self) -> str:
        return super().fresh().replace("redis:", "rediss:")


class PostgresServer(Server):
    """PostgreSQL that leaves it to the system when the disk has what it wrote."""

    @property
    def _binaries(self) -> Path:
        return max(
            Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parts[-2])
        )

    def prepare(self) -> None:
        own(self.directory)
        passwords = self.directory / "password"
        passwords.write_text(PASSWORD)
        own(passwords)
        self._run(
            *(str(self._binaries / "initdb"), "-D", str(self.directory / "data"), "-U", USER),
            *("--auth=scram-sha-256", f"--pwfile={passwords}", "--encoding=UTF8"),
            *("--locale=C", "--no-sync"),
        )

    def command(self) -> list[str]:
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.directory),
            "fsync": "off",
            "shared_buffers": "16MB",
        }
        return [
            *(str(self._binaries / "postgres"), "-D", str(self.directory / "data")),
            *("-p", str(self.port)),
            *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
        ]

    def ask(self, statement: str = "SELECT 1") -> object:
        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=PASSWORD,
            dbname="postgres",
            connect_timeout=10,
            autocommit=True,
        ) as connection:
            return connection.execute(statement.encode())

    def fresh(self) -> str:
        name = f"s{secrets.token_hex(4)}"
        self.ask(f"CREATE DATABASE {name}")
        return f"postgresql://{USER}:{quoted(PASSWORD)}@127.0.0.1:{self.port}/{name}"


class MariaServer(Server):
    """MariaDB that leaves it to the system when the disk has what it wrote."""

    @property
    def _temporary(self) -> str:
        """Its own, as one that starts removes the temporary tables of all others in its place."""
        return f"--tmpdir={self.directory}"

    def prepare(self) -> None:
        own(self.directory)
        self._run(
            *("mariadb-install-db", "--no-defaults", f"--datadir={self.directory}/data"),
            *("--auth-root-authentication-method=normal", "--skip-test-db"),
            *("--skip-name-resolve", "--innodb-log-file-size=8M", self._temporary),
        )
        (self.directory / "users.sql").write_text(
            f"CREATE USER IF NOT EXISTS '{USER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'127.0.0.1';\n"
        )

    def command(self) -> list[str]:
        path = os.environ.get("PATH", "") + ":/usr/sbin"
        return [
            *(shutil.which("mariadbd", path=path) or "mariadbd", "--no-defaults"),
            *(f"--datadir={self.directory}/data", f"--port={self.port}"),
            *("--bind-address=127.0.0.1", f"--socket={self.directory}/socket"),
            *(f"--pid-file={self.directory}/pid", f"--init-file={self.directory}/users.sql"),
            *("--skip-name-resolve", self._temporary, "--innodb-buffer-pool-size=16M"),
            *("--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=2"),
        ]

    def ask(self, statement: str = "SELECT 1") -> object:
        with (
            closing(
                pymysql.connect(
                    host="127.0.0.1",
                    port=self.port,
                    user=USER,
                    password=PASSWORD,
                    connect_timeout=10,
                    read_timeout=10,
                )
            ) as connection,
            connection.cursor() as cursor,
        ):
            return cursor.execute(statement)

    def fresh(self) -> str:
        name = f"s{secrets.token_hex(4)}"
        self.ask(f"CREATE DATABASE {name}")
        return f"mysql://{USER}:{quoted(PASSWORD)}@127.0.0.1:{self.port}/{name}"


class MongoServer(Server):
    """What speaks MongoDB's protocol, upon SQLite: it knows no passwords."""

    as_nobody: dict[str, Any] = {}  # noqa: RUF012 - it is not changed; nobody may not see the venv

    def command(self) -> list[str]:
        return [
            *(str(Path(sys.executable).with_name("nx-27017")), "--port", str(self.port)),
            *("--data-dir", str(self.directory / "data")),
            *("--log-file", str(self.directory / "server.log")),
            *("--pid-file", str(self.directory / "pid")),
        ]

    def ask(self) -> object:
        with pymongo.MongoClient[dict[str, Any]](
            "127.0.0.1", self.port, serverSelectionTimeoutMS=10_000
        ) as client:
            return client.admin.command("ping")

    def fresh(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/s{secrets.token_hex(4)}"


def own(path: Path) -> None:
    """Give it to whoever the servers run as."""
    if AS_NOBODY:
        shutil.chown(path, AS_NOBODY["user"], AS_NOBODY["group"])


def quoted(text: str) -> str:
    """Text as it may stand anywhere in a URL."""
    return quote(text, safe="")


def _is_stopped(process: int) -> bool:
    """Is every thread of it?"""
    for path in Path(f"/proc/{process}/task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            if path.read_text().rpartition(")")[2].split()[0] not in "TtZX":
                return False
    return True
