"""Everything a user can get wrong ends in one clear line, a remedy and its own exit code."""

import asyncio
import http.server
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from tests.program import SPEECH, Run, messages, voicechat
from tests.routes import refusing as refusing_by_http
from tests.strict_server import KEY, Peer, StrictServer
from tests.waiting import wait_until
from voicechat.errors import VoicechatError
from voicechat.realtime.connection import open_connection


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with StrictServer().running() as server:
        monkeypatch.setenv("VOICECHAT_URL", server.url)
        yield server


def check(run: Run, code: int, *words: str) -> None:
    """One message, one remedy, nothing else; and the key is nowhere."""
    assert run.code == code, (run.code, run.err)
    lines = [line for line in run.err.splitlines() if not line.startswith("Conversations are")]
    assert len(lines) == 2, run.err
    assert lines[0].startswith("voicechat: ")
    assert lines[1].startswith("  ")
    for word in words:
        assert word in run.err
    assert KEY not in run.err + run.out


def refusing(code: str, close: int) -> Callable[[Peer], Any]:
    async def refuse(peer: Peer) -> None:
        said = f"Incorrect API key provided: {KEY}." if "key" in code else "It does not exist."
        error = {"type": "invalid_request_error", "code": code, "message": said, "param": None}
        await peer.send("error", error=error)
        await peer.websocket.close(close, f"invalid_request_error.{code}")

    return refuse


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["talk", "--foo"], "no such option: --foo"),
        (["talk", "--max-minutes", "abc"], "'abc' is not a valid float"),
        (["talk", "--vad", "x\x1b[31m"], "is not one of 'server'"),
        (["hist"], "no such command 'hist'"),
        (["history", "rename"], "missing argument"),
        (["resume", "a", "b"], "unexpected extra argument"),
        (["--nope"], "no such option: --nope"),
    ],
)
def test_a_command_line_that_makes_no_sense(words: list[str], told: str) -> None:
    run = voicechat(*words)
    check(run, 2, told, "--help")
    assert "\x1b" not in run.err


def test_a_variable_that_makes_no_sense() -> None:
    check(voicechat("talk", VOICECHAT_SPEED="fast"), 2, "VOICECHAT_SPEED", "'fast'")


def test_no_key() -> None:
    check(voicechat("talk", "--text", "Hi"), 5, "OPENAI_API_KEY is not set", "--local")


def test_no_key_under_another_name() -> None:
    check(voicechat("talk", "--text", "Hi", "--api-key-env", "MY_KEY"), 5, "MY_KEY is not set")


def test_a_key_that_cannot_be_one() -> None:
    check(voicechat("talk", "--text", "Hi", OPENAI_API_KEY="schlüssel"), 5, "OPENAI_API_KEY")


def test_a_wrong_key(server: StrictServer) -> None:
    server.on_connect = refusing("invalid_api_key", 3000)
    check(voicechat("talk", "--text", "Hi"), 5, "refused the API key", "[API key]")


def test_a_close_code_is_enough_to_know_a_wrong_key(server: StrictServer) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.websocket.close(3000, "invalid_request_error.invalid_api_key")

    server.on_connect = refuse
    check(voicechat("talk", "--text", "Hi"), 5, "refused the API key")


def test_an_unknown_model(server: StrictServer) -> None:
    server.on_connect = refusing("invalid_model", 4000)
    check(voicechat("talk", "--text", "Hi", "--model", "gpt-9"), 11, "does not offer this model")


def test_settings_the_server_refuses(server: StrictServer) -> None:
    def refuse(peer: Peer, event: dict[str, Any]) -> Any:
        return peer.fail("Invalid value: 'bob'.", "invalid_value", event)

    server.on_event = refuse
    check(voicechat("talk", "--text", "Hi", "--voice", "bob"), 6, "Invalid value: 'bob'")


def test_nobody_listens() -> None:
    check(voicechat("talk", "--text", "Hi", "--url", "ws://127.0.0.1:9"), 4, "nothing answers")


def test_an_unknown_host() -> None:
    run = voicechat("talk", "--text", "Hi", "--url", "wss://no-such-host.invalid/v1/realtime")
    check(run, 4, "no-such-host.invalid")


@pytest.mark.parametrize(
    "url", ["nonsense", "ftp://host/x", "ws://", "ws://host:99999/", "ws://a b/", "ws://["]
)
def test_what_is_no_address(url: str) -> None:
    check(voicechat("talk", "--text", "Hi", "--url", url), 2, "address")


@contextmanager
def web_server(status: int) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"ws://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.mark.parametrize(("status", "code"), [(200, 6), (404, 6), (401, 5), (403, 5), (503, 4)])
def test_a_web_server(status: int, code: int) -> None:
    with web_server(status) as url:
        at_once = ("--reconnect-for", "0")
        run = voicechat("talk", "--text", "Hi", "--url", url, *at_once, OPENAI_API_KEY=KEY)
    check(run, code, f"HTTP {status}")


def error(code: str | None, message: str) -> str:
    return json.dumps(
        {"error": {"type": "invalid_request_error", "code": code, "message": message}}
    )


NO_DEPLOYMENT = error("DeploymentNotFound", "The API deployment for this resource does not exist.")
NO_MODEL = error("model_not_found", "Project `p` does not have access to it.")
NO_QUOTA = error("insufficient_quota", "You exceeded your current quota.")
NO_COUNTRY = error("unsupported_country_region_territory", "Country not supported")


@pytest.mark.parametrize(
    ("status", "body", "code", "told"),
    [
        ("404 Not Found", NO_DEPLOYMENT, 11, "does not offer the deployment 'mine': The API depl"),
        ("404 Not Found", NO_MODEL, 11, "does not offer the model 'mine': Project `p` does not"),
        ("403 Forbidden", NO_MODEL, 11, "does not offer the model 'mine': Project `p` does not"),
        ("404 Not Found", error("404", "Resource not found"), 6, "HTTP 404: Resource not found\n"),
        ("429 Slow", NO_QUOTA, 5, "the account cannot be used: You exceeded your current quota."),
        ("403 Forbidden", error(None, "No."), 5, "refused the API key (HTTP 403): No.\n"),
        (
            "403 Forbidden",
            NO_COUNTRY,
            6,
            "nobody is served where we are, or seem to be: Country not supported\n",
        ),
        (
            "400 Bad",
            error(None, "Missing: model."),
            6,
            "turned us away (HTTP 400): Missing: model.",
        ),
        ("401 No", error("401", f"Wrong: {KEY}"), 5, "refused the API key (HTTP 401): Wrong: [API"),
        ("401 No", error("invalid_api_key", KEY), 5, "refused the API key: [API key]\n"),
        ("400 Bad", '{"code": "x", "error": "Wrong words"}', 6, "(HTTP 400): Wrong words\n"),
        ("400 Bad", '{"code": "Odd", "message": "Bare"}', 6, "(HTTP 400): Bare\n"),
        (
            "404 Not Found",
            '{"error": {"code": "model_not_found"}}',
            11,
            "'mine': model_not_found\n",
        ),
    ],
)
def test_what_a_server_says_that_refuses_by_http(
    status: str, body: str, code: int, told: str
) -> None:
    with refusing_by_http(status, body) as url:
        there = ("--provider", "azure", "--url", url, "--model", "mine")
        run = voicechat("talk", "--text", "Hi", *there, AZURE_OPENAI_API_KEY=KEY)
    check(run, code, told)


PAGE = "<html><body><h1>404 Not Found</h1></body></html>"


@pytest.mark.parametrize(
    "body",
    [
        *("", PAGE, "[1]", "null", '"model_not_found"', "{}", '{"error": null}', '{"error": [1]}'),
        *('{"error": {"message": {"a": 1}}}', '{"error": {"code": 404', "[" * 100_000),
        *(b"\xff\xfe\x00", b"\x1f\x8b\x08" + bytes(range(256))),
    ],
)
@pytest.mark.parametrize(("status", "told"), [("404 Not Found", 6), ("403 Forbidden", 5)])
def test_a_refusal_by_http_that_says_nothing(status: str, told: int, body: str | bytes) -> None:
    with refusing_by_http(status, body) as url, pytest.raises(VoicechatError) as caught:
        asyncio.run(met(url))
    assert caught.value.exit_code == told
    assert caught.value.message.endswith(f"HTTP {status[:3]}{')' if told == 5 else ''}")


async def met(url: str) -> None:
    async with open_connection(url, KEY):
        pass


def test_what_a_refusal_by_http_says_is_shown_up_to_a_length_and_harms_no_terminal() -> None:
    said = "\x1b]0;odd\x07\nvoicechat: \ud800 \u202e" + "no " * 100_000 + KEY
    for status, code in (("400 Bad", 6), ("503 Later", 4)):
        with refusing_by_http(status, error("odd", said)) as url:
            there = ("--provider", "custom", "--url", url, "--reconnect-for", "0.5")
            run = voicechat("talk", "--text", "Hi", *there)
        assert run.code == code
        assert len(run.err) < 3000
        assert "no no" in run.err
        assert run.err.replace("\n", "").isprintable()


@contextmanager
def saying(*frames: str | bytes) -> Iterator[str]:
    """A WebSocket server that says this and waits."""

    async def talk(websocket: ServerConnection) -> None:
        for frame in frames:
            await websocket.send(frame)
        await websocket.wait_closed()

    loop, started, stop, port = asyncio.new_event_loop(), threading.Event(), asyncio.Event(), [0]

    async def run() -> None:
        async with serve(talk, "127.0.0.1", 0) as server:
            port[0] = next(iter(server.sockets)).getsockname()[1]
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    assert started.wait(30)
    yield f"ws://127.0.0.1:{port[0]}/"
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)
    loop.close()


@pytest.mark.parametrize("frame", ["hello", "[1]", "{}", b"\x00\x01", '{"type": "error"}'])
def test_a_server_of_another_kind(frame: str | bytes) -> None:
    with saying(frame) as url:
        check(voicechat("talk", "--text", "Hi", "--url", url), 6, "not a Realtime server")


def test_a_server_that_closes_at_once() -> None:
    async def close(peer: Peer) -> None:
        await peer.websocket.close(1000)

    strict = StrictServer()
    strict.on_connect = close
    with strict.running():
        run = voicechat("talk", "--text", "Hi", "--url", strict.url, "--reconnect-for", "0")
    check(run, 4, "closed the connection (1000)")


SOUND_FILES: dict[str, bytes] = {
    "empty": b"",
    "text": b"This is not a sound file, it is only text.",
    "header only": b"RIFF\x24\x00\x00\x00WAVE",
    "no samples": (SPEECH / "hb_02.wav").read_bytes()[:40] + bytes(4),
    "truncated": (SPEECH / "hb_02.wav").read_bytes()[:30_000],
    "compressed": b"".join(
        (
            b"RIFF\x2c\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x55\x00\x01\x00",
            b"\x80\xbb\x00\x00\x00\x10\x00\x00\x01\x00\x00\x00data\x08\x00\x00\x00" + bytes(8),
        )
    ),
    "mp3": b"ID3\x04" + bytes(200),
}


@pytest.mark.parametrize("kind", SOUND_FILES)
def test_a_sound_file_that_cannot_be_used(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "question.wav"
    path.write_bytes(SOUND_FILES[kind])
    run = voicechat("talk", "--input", path, OPENAI_API_KEY=KEY)
    check(run, 9, "question.wav")


def test_a_sound_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "no.wav", tmp_path):
        check(voicechat("talk", "--input", path, OPENAI_API_KEY=KEY), 9, str(path))


@pytest.mark.parametrize("name", ["a.mp3", "A.OGG", "a.opus", "a.flac", "a.m4a", "a.aac"])
def test_an_output_that_is_called_what_it_would_not_be(tmp_path: Path, name: str) -> None:
    # Before the server starts, for which there would be a line.
    run = voicechat("talk", "--local", "--text", "Hi", "--output", tmp_path / name)
    check(run, 2, "writes WAV")
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3", "a", ".flac"])
def test_a_recording_that_is_called_what_it_would_not_be(tmp_path: Path, name: str) -> None:
    check(voicechat("talk", "--local", "--text", "Hi", "--record", tmp_path / name), 2, ".flac")
    assert not (tmp_path / name).exists()


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    for path in (tmp_path / "no" / "answer.wav", tmp_path):
        run = voicechat("talk", "--text", "Hi", "--output", path, OPENAI_API_KEY=KEY)
        check(run, 14, str(path))


def test_options_that_contradict_each_other(tmp_path: Path) -> None:
    check(voicechat("talk", "--output", tmp_path / "a.wav"), 2, "--output goes with")
    check(voicechat("talk", "--local", "--url", "ws://x/", "--text", "Hi"), 2, "two servers")
    check(voicechat("talk", "--text", "Hi", "--instructions", "@no", OPENAI_API_KEY=KEY), 2, "'no'")


def test_what_cannot_be_said_or_named(tmp_path: Path) -> None:
    for text in ("", "   "):
        check(voicechat("talk", "--text", text, OPENAI_API_KEY=KEY), 2, "--text")
    for name in (" ", "last", "x" * 500):
        check(voicechat("talk", "--text", "Hi", "--name", name, OPENAI_API_KEY=KEY), 2, "name")
    endless = voicechat("talk", "--text", "Hi", "--instructions", "@/dev/zero", OPENAI_API_KEY=KEY)
    check(endless, 2, "longer than any server takes")
    recording = tmp_path / "mine.wav"
    recording.write_bytes((SPEECH / "hb_02.wav").read_bytes())
    (tmp_path / "link.wav").symlink_to(recording)
    run = voicechat(
        "talk", "--input", recording, "--output", tmp_path / "link.wav", OPENAI_API_KEY=KEY
    )
    check(run, 2, "overwrite the input")
    assert recording.read_bytes() == (SPEECH / "hb_02.wav").read_bytes()


def test_odd_bytes_on_the_command_line_do_not_spoil_the_session(server: StrictServer) -> None:
    odd = os.fsdecode(b"\xff\xfe odd")
    arguments = [sys.executable, "-m", "voicechat", "talk", "--text", odd]
    subprocess.run(arguments, check=True, timeout=60, capture_output=True)
    assert voicechat("resume", "--text", "And?").code == 0
    assert messages("last")[0][1].endswith("odd")


def test_a_damaged_file_is_gone_on_with_and_the_damage_is_told(
    server: StrictServer, home: Path
) -> None:
    session = voicechat("talk", "--text", "Hi").session
    [path] = (home / "sessions").glob("*.jsonl")
    with path.open("ab") as file:
        file.write(b"garbage\n{}\n")
    run = voicechat("resume", session, "--text", "And?")
    assert run.code == 0
    assert "Passed over 2 lines that cannot be read." in run.err


def test_a_local_session_does_not_leave_the_machine_for_a_variable(home: Path) -> None:
    sessions = home / "sessions"
    sessions.mkdir(parents=True)
    said = {"type": "said", "item_id": "i", "role": "user", "text": "Hi", "status": "complete"}
    lines = [{"type": "opened", "session": "ab2345", "local": True}, said]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (sessions / "20261122-101500-ab2345.jsonl").write_text(text)
    strict = StrictServer()
    with strict.running():
        voicechat("resume", "--text", "Hi", VOICECHAT_URL=strict.url, PATH="")
    assert strict.received == []


def test_options_that_do_not_exist() -> None:
    for arguments in (["talk", "--vad", "maybe"], ["talk", "--colour"], ["export", "x", "-f", "y"]):
        assert voicechat(*arguments).code == 2


@pytest.mark.parametrize(
    "command", [["resume"], ["resume", "zz"], ["talk", "--resume", "zz"], ["export", "zz"]]
)
def test_a_session_that_is_not_there(command: list[str]) -> None:
    check(voicechat(*command, OPENAI_API_KEY=KEY), 7)


def test_a_session_name_is_never_a_path(home: Path, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"type":"opened","session":"x"}\n')
    for wanted in ("../x", str(tmp_path / "x"), "../../etc/passwd", "\x1b[31m", "a\nb"):
        check(voicechat("export", wanted), 7)


def test_a_session_that_could_be_two(home: Path) -> None:
    sessions = home / "sessions"
    sessions.mkdir(parents=True)
    for session in ("ab2345", "ab6789"):
        said = {"type": "said", "item_id": "i", "role": "user", "text": "Hi", "status": "complete"}
        lines = [{"type": "opened", "session": session}, said]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (sessions / f"20261122-101500-{session}.jsonl").write_text(text)
    check(voicechat("export", "ab"), 7, "ab2345", "ab6789")


def test_a_session_file_of_garbage(home: Path) -> None:
    sessions = home / "sessions"
    sessions.mkdir(parents=True)
    (sessions / "20261122-101500-ab2345.jsonl").write_bytes(bytes(range(256)) * 10)
    for command in (["export", "ab2345"], ["resume", "ab2345", "--text", "Hi"]):
        check(voicechat(*command, OPENAI_API_KEY=KEY), 10, "ab2345")
    listed = voicechat("history", "list")
    assert (listed.code, listed.out) == (0, "")
    assert "ab2345" in listed.err or "1 " in listed.err


def test_a_data_directory_that_cannot_be_written(server: StrictServer, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    run = voicechat("talk", "--text", "Hi", VOICECHAT_HOME=str(in_the_way))
    check(run, 8, str(in_the_way))
    assert voicechat("talk", "--text", "Hi", "--no-log", VOICECHAT_HOME=str(in_the_way)).code == 0


def limited(size: int) -> Callable[[], None]:
    """No file may grow beyond `size` bytes: like a full disk, without one."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def test_a_disk_that_is_full_from_the_start(server: StrictServer) -> None:
    check(voicechat("talk", "--text", "Hi", preexec=limited(0)), 8, "--no-log")


def test_a_disk_that_fills_up_loses_nothing_that_was_printed(server: StrictServer) -> None:
    texts = [argument for number in range(20) for argument in ("--text", f"Number {number}")]
    run = voicechat("talk", *texts, preexec=limited(4000))
    assert run.code == 8, run.err
    assert "no space left" in run.err
    assert "Traceback" not in run.err
    saved = messages("last")
    printed = [line.partition(": ")[2] for line in run.lines if "(not saved)" not in line]
    assert printed
    assert [text for _, text in saved][: len(printed)] == printed


def test_an_unknown_format_and_a_file_in_the_way(server: StrictServer, tmp_path: Path) -> None:
    session = voicechat("talk", "--text", "Hi").session
    assert voicechat("export", session, "--format", "docx").code == 2
    target = tmp_path / "talk.md"
    target.write_text("precious")
    check(voicechat("export", session, "-o", target), 14, "--force")
    assert target.read_text() == "precious"
    assert voicechat("export", session, "-o", target, "--force").code == 0
    assert "Hi" in target.read_text()


def with_stdout(descriptor: int, *arguments: str) -> Run:
    finished = subprocess.run(
        [sys.executable, "-m", "voicechat", *arguments],
        stdout=descriptor,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    os.close(descriptor)
    return Run(finished.returncode, "", finished.stderr.decode())


def nobody_reads() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def full_device() -> int:
    return os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize("output", [nobody_reads, full_device])
def test_an_output_that_takes_nothing(server: StrictServer, output: Callable[[], int]) -> None:
    session = voicechat("talk", "--text", "Hi").session
    for command in (
        ["export", session],
        ["history", "list"],
        ["history", "list", "--json"],
        ["--version"],
        ["talk", "--help"],
    ):
        check(with_stdout(output(), *command), 14)
    run = with_stdout(output(), "resume", session, "--text", "And?", "--text", "More?")
    assert run.code == 14, run.err
    assert "Traceback" not in run.err
    assert ("user", "And?") in messages(session)


def test_streams_that_are_closed(server: StrictServer, tmp_path: Path) -> None:
    shell = f'exec "{sys.executable}" -m voicechat '
    session = voicechat("talk", "--text", "Hi").session
    for command, code in (
        ("talk --text hi 2>&-", 0),
        ("talk --text hi <&-", 0),
        ("talk --text hi >&-", 14),
        ("talk --text hi --output - >&-", 14),
        ("history list >&-", 14),
        ("history list --json >&-", 14),
        (f"export {session} >&-", 14),
        (f"export {session} -o {tmp_path}/a.md <&- >&- 2>&-", 0),
    ):
        run = subprocess.run(["sh", "-c", shell + command], capture_output=True, timeout=60)
        assert run.returncode == code, (command, run.stderr)
        assert b"Traceback" not in run.stderr
    assert "Hi" in (tmp_path / "a.md").read_text()


def test_ctrl_c_while_starting_is_no_traceback() -> None:
    for milliseconds in (20, 60, 120, 250):
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from voicechat.__main__ import main; main()",
                "talk",
                "--local",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with suppress(subprocess.TimeoutExpired):
            process.wait(milliseconds / 1000)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        # In the first moments, Python itself is being loaded, and that is not ours.
        assert b"voicechat/cli" not in err, err
        assert process.returncode in (130, -signal.SIGINT, 1, 3)


def test_a_session_that_another_process_holds(server: StrictServer) -> None:
    session = voicechat("talk", "--text", "Hi").session
    server.answer_ms = 600_000
    holder = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "voicechat",
            "resume",
            session,
            "--input",
            SPEECH / "austen_0870.wav",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: len(server.received) == 2)
        check(voicechat("resume", session, "--text", "Me too"), 13, str(holder.pid))
    finally:
        holder.kill()
        holder.wait()
    assert voicechat("resume", session, "--text", "Me too").code == 0
