"""``voicechat history sync`` against real stores that are killed, slow or strict."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.program import Run, voicechat
from tests.store_servers import PASSWORD, PostgresServer, RedisServer, Server
from tests.test_sessions import save
from voicechat.errors import ExitCode

SYNC = [sys.executable, "-m", "voicechat", "history", "sync"]


@pytest.fixture(scope="module", params=[RedisServer, PostgresServer])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with request.param() as server:
        yield server


@pytest.fixture
def homes(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "one", tmp_path / "two"


def sync(home: Path, url: str, code: int = 0) -> str:
    run = voicechat("history", "sync", VOICECHAT_HOME=str(home), VOICECHAT_STORE=url)
    assert run.code == code, run.err
    assert PASSWORD not in run.out + run.err
    return run.out + run.err


def files(home: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (home / "sessions").glob("*.jsonl")}


def test_a_store_killed_in_mid_sync_holds_the_same_after_another_one(
    server: Server, homes: tuple[Path, Path]
) -> None:
    one, two = homes
    for number in range(300):
        save(one / "sessions", f"a{number:05}", *[f"words {number} " * 200] * 3)
    url = server.fresh()
    for delay in (0.0, 0.03, 0.1, 0.3):
        environment = os.environ | {"VOICECHAT_HOME": str(one), "VOICECHAT_STORE": url}
        with subprocess.Popen(SYNC, env=environment, stderr=subprocess.PIPE) as process:
            time.sleep(0.4 + delay)  # it takes 0.4 s to begin
            server.kill()
            _, told = process.communicate(timeout=60)
        assert process.returncode in (0, ExitCode.SHARED_STORE), told
        assert b"Traceback" not in told
        server.start()
        save(one / "sessions", f"b{delay * 100:05.0f}", *["more words " * 200] * 40)
    assert "304 sent" in sync(one, url) or len(files(one)) == 304
    sync(two, url)
    assert files(one) == files(two)
    assert "0 sent, 0 fetched, 0 forked, 0 deleted" in sync(one, url)


def test_a_client_killed_in_mid_sync_leaves_nothing_half_done(
    server: Server, homes: tuple[Path, Path]
) -> None:
    one, two = homes
    for number in range(300):
        save(one / "sessions", f"a{number:05}", *[f"words {number} " * 200] * 3)
    url = server.fresh()
    for home in (one, two):
        for delay in (0.0, 0.05, 0.2):
            environment = os.environ | {"VOICECHAT_HOME": str(home), "VOICECHAT_STORE": url}
            with subprocess.Popen(SYNC, env=environment, stdout=subprocess.DEVNULL) as process:
                time.sleep(0.4 + delay)
                process.kill()
        sync(home, url)
    assert files(one) == files(two)


def test_two_machines_at_once(server: Server, homes: tuple[Path, Path]) -> None:
    one, two = homes
    url = server.fresh()
    save(one / "sessions", "aaaaaa", "hello")
    sync(one, url)
    sync(two, url)
    for round_ in range(3):
        for name, home in (("one", one), ("two", two)):
            save(home / "sessions", f"{name}{round_}x", f"of {name}")
            for path in (home / "sessions").glob("*-aaaaaa.jsonl"):
                with path.open("a") as file:
                    said = {"type": "said", "item_id": f"{name}{round_}", "role": "user"}
                    file.write(json.dumps(said | {"text": f"{name} {round_}"}) + "\n")
        running = [
            subprocess.Popen(
                SYNC,
                env=os.environ | {"VOICECHAT_HOME": str(home), "VOICECHAT_STORE": url},
                stdout=subprocess.DEVNULL,
            )
            for home in (one, two)
        ]
        assert [process.wait(timeout=60) for process in running] == [0, 0]
    for home in (one, two, one):
        sync(home, url)
    assert files(one) == files(two)
    words = b"".join(files(one).values())
    for round_ in range(3):
        assert f'"one {round_}"'.encode() in words
        assert f'"two {round_}"'.encode() in words


# Before other commands ---------------------------------------------------------------------------


def in_time(*arguments: str, **environment: Any) -> Run:
    """Run it again, a few times, where a busy machine takes longer than it waits for the store."""
    runs = (voicechat(*arguments, **environment) for _ in range(5))
    return next(run for run in runs if "Not synced yet" not in run.err)


def test_resume_and_list_sync_first(server: Server, homes: tuple[Path, Path]) -> None:
    one, two = homes
    url = server.fresh()
    save(one / "sessions", "aaaaaa", "hello")
    sync(one, url)
    run = in_time("history", "list", VOICECHAT_HOME=str(two), VOICECHAT_STORE=url)
    assert "aaaaaa" in run.out
    assert run.err == ""
    save(one / "sessions", "bbbbbb", "later", day=1)
    sync(one, url)
    run = in_time(
        *("resume", "bbbbbb", "--text", "And?", "--url", "ws://127.0.0.1:9/", "--no-log"),
        VOICECHAT_HOME=str(two),
        VOICECHAT_STORE=url,
    )
    assert run.code == ExitCode.CONNECTION  # it was found, and went on
    assert len(files(two)) == 2


def test_no_file_in_the_working_directory_runs_with_it(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('shadowed')")
    run = subprocess.run(
        [Path(sys.executable).with_name("voicechat"), "history", "list"],
        env=os.environ | {"VOICECHAT_STORE": f"sqlite:///{tmp_path}/store.sqlite3"},
        cwd=tmp_path,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert b"shadowed" not in run.stderr + run.stdout
    assert b"Not synced" not in run.stderr


def test_forks_are_told_there_too(server: Server, homes: tuple[Path, Path]) -> None:
    one, two = homes
    url = server.fresh()
    path = save(one / "sessions", "aaaaaa", "hello")
    sync(one, url)
    sync(two, url)
    for home in (one, two):
        with (home / "sessions" / path.name).open("a") as file:
            file.write(f'{{"type": "said", "item_id": "x", "role": "user", "text": "{home}"}}\n')
    sync(one, url)
    run = voicechat("history", "list", VOICECHAT_HOME=str(two), VOICECHAT_STORE=url)
    assert re.search(r"Others went on with aaaaaa, too: .* session (\w{6})\.", run.err)
    assert len(run.lines) == 3


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"redis://:{'secret'}@127.0.0.1:{listener.getsockname()[1]}/0"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://:secret@127.0.0.1:9/0", "cannot be reached, or went away. Check that the store"),
        ("postgresql://me:secret@127.0.0.1:9/x", "went away. Check that the store is running"),
        ("nonsense", "is not the URL of a shared store. Begin it with sqlite:///"),
        ("silent", "did not answer within 3 s. Check that the store is running"),
    ],
)
def test_a_store_that_fails_is_a_warning_and_no_long_wait(
    home: Path, silent: str, url: str, told: str
) -> None:
    save(home / "sessions", "aaaaaa", "hello")
    began = time.monotonic()
    run = voicechat("history", "list", VOICECHAT_STORE=silent if url == "silent" else url)
    assert time.monotonic() - began < 30
    assert run.code == 0
    assert "aaaaaa" in run.out
    [line] = run.err.splitlines()
    assert line.startswith("Not synced")
    assert told in line
    assert "secret" not in line


@contextmanager
def slow(port: int, seconds: float) -> Iterator[int]:
    """A port behind which a server is, that answers so much later each time."""

    def answer(client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", port))
        with client, server, suppress(OSError):
            while asked := client.recv(65536):
                server.sendall(asked)
                answered = server.recv(1 << 20)
                is_over.wait(seconds)
                client.sendall(answered)

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=[listener.accept()[0]], daemon=True).start()

    is_over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            is_over.set()
            listener.shutdown(socket.SHUT_RDWR)


def test_a_slow_store_is_not_waited_for_and_nothing_is_left_behind(
    homes: tuple[Path, Path],
) -> None:
    one, two = homes
    with RedisServer() as server, slow(server.port, 1.0) as port:
        save(one / "sessions", "aaaaaa", "hello")
        url = server.fresh()
        sync(one, url)
        began = time.monotonic()
        run = voicechat(
            *("history", "list"),
            VOICECHAT_HOME=str(two),
            VOICECHAT_STORE=url.replace(f":{server.port}", f":{port}"),
        )
        assert time.monotonic() - began < 30
        assert run.err.startswith("Not synced yet: it took more than 5 s.")
        assert not list(two.rglob("*.part"))
        assert "1 fetched" in sync(two, url)


def test_ctrl_c_ends_the_wait_for_a_store_and_not_the_command(home: Path) -> None:
    save(home / "sessions", "aaaaaa", "hello")
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,  # which never says a word
        subprocess.Popen(
            [sys.executable, "-m", "voicechat", "history", "list"],
            env=os.environ
            | {"VOICECHAT_STORE": f"redis://127.0.0.1:{listener.getsockname()[1]}/0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process,
    ):
        select.select([listener], [], [], 30)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert b"aaaaaa" in out
    assert err == b"Not synced.\n"
    assert process.returncode == 0


# By itself ---------------------------------------------------------------------------------------


def test_sync_tells_what_it_did(home: Path, tmp_path: Path) -> None:
    save(home / "sessions", "aaaaaa", "hello")
    url = f"sqlite:///{tmp_path}/store.db"
    run = voicechat("history", "sync", url)
    assert run.out == f"Synced with {url}: 1 sent, 0 fetched, 0 forked, 0 deleted.\n"
    assert run.err == ""
    assert '"sent": []' in voicechat("history", "sync", url, "--json").out
    assert voicechat("history", "sync", url, "--quiet").out == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], ExitCode.USAGE),
        (["nonsense"], ExitCode.SHARED_STORE),
        (["redis://:secret@127.0.0.1:9/0"], ExitCode.SHARED_STORE),
        (["sqlite:////nowhere/at/all.db"], ExitCode.SHARED_STORE),
        (["http://me:secret@127.0.0.1/?token=secret"], ExitCode.SHARED_STORE),
    ],
)
def test_errors_say_what_to_do(home: Path, arguments: list[str], code: int) -> None:
    run = voicechat("history", "sync", *arguments)
    assert run.code == code
    assert len(run.err.splitlines()) == 2
    assert "secret" not in run.err


def test_the_password_may_stand_in_the_environment(server: Server, home: Path) -> None:
    if isinstance(server, RedisServer):
        url = server.fresh()
        bare = re.sub(r"//:[^@]*@", "//", url)
    else:
        bare = re.sub(r":[^/@]*@", "@", server.fresh())
    save(home / "sessions", "aaaaaa", "hello")
    right = voicechat("history", "sync", bare, VOICECHAT_STORE_PASSWORD=PASSWORD)
    assert "1 sent" in right.out, right.err
    wrong = voicechat("history", "sync", bare, VOICECHAT_STORE_PASSWORD="wrong-one")
    assert wrong.code == ExitCode.SHARED_STORE
    assert "password" in wrong.err
    assert "wrong-one" not in wrong.err
