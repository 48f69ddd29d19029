"""The screen in a real terminal: what stands on it, scrolls up, and is left in the end."""

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.fault_proxy import FaultProxy
from tests.program import SPEECH, messages, voicechat
from tests.strict_server import KEY, Peer, StrictServer
from tests.tmux import Terminal, terminal
from tests.virtual_card import VirtualCard
from tests.waiting import wait_until
from voicechat.errors import ExitCode
from voicechat.keyboard import KEYS
from voicechat.terminal import BEGIN, END

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
PROGRAM = [sys.executable, "-m", "voicechat"]
STATES = (
    "connecting",
    "listening",
    "you speak",
    "thinking",
    "answering",
    "hanging up",
    "muted",
    "line lost",
)
LONG = (
    "They stay at home, the colony forms a cluster around its queen, shivers to keep warm, and "
    "lives on the honey that it has put by in the summer, and on a mild day some fly out."
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = StrictServer()
    with server.running():
        yield server


def shows_live(screen: list[str]) -> bool:
    return "echo" in joined(screen) or "mic ─" in joined(screen)


def status(at: Terminal) -> str:
    """How things stand: it may take some lines."""
    screen = joined(at.screen)
    return screen[max(screen.rfind(state) for state in STATES) :]


def joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


@pytest.mark.card
def test_a_conversation_from_the_first_to_the_last_line(server: StrictServer) -> None:
    server.answer_ms, server.deltas, server.delta_pause = 3000, 6, 0.2
    server.transcript_delay = 0.5
    server.answer_text = LONG
    server.user_words = "And what do the bees do in the winter?"
    proxy = FaultProxy(lambda: server.url)
    with (
        VirtualCard() as card,
        proxy.running(),
        terminal([*PROGRAM, "talk", "--url", proxy.url], width=80, height=20, **card.env) as at,
    ):
        at.wait_for("listening  ", "echo cancelled", "Connecting. ")
        speaking = threading.Thread(target=card.speak, args=[SPEECH / "hb_02.wav"])
        speaking.start()
        at.wait_until(lambda _: "you speak" in status(at) and "mic ━" in status(at))
        speaking.join()
        at.wait_for("You: …")
        at.wait_until(lambda _: "answering" in status(at) and "speaker ━" in status(at))
        at.wait_until(lambda screen: any(re.match(r"0:0\d You: And what", line) for line in screen))
        assert any(line.startswith("Assistant") for line in at.screen)  # live, as it arrives
        assert "answered in" in joined(at.screen)
        at.resize(40, 20)
        at.wait_until(lambda screen: "Assistant… " in joined(screen))
        assert max(map(len, at.screen)) <= 40
        at.resize(80, 20)
        at.wait_until(lambda _: "listening" in status(at))
        at.resize(40, 20)
        at.wait_until(lambda screen: len(screen[-1]) < 40 and "listening" in joined(screen[-3:]))
        for width in (70, 60, 40, 30, 90, 35, 80, 40, 100):  # as when an edge is dragged
            at.resize(width, 20)
        at.wait_until(lambda _: "listening" in status(at))
        at.send("m")
        at.wait_until(lambda screen: "muted mic muted" in joined(screen))
        at.send("m")
        at.wait_until(lambda _: status(at).startswith("listening"))
        at.type("t")
        at.wait_until(lambda screen: ">" in screen[-1])
        at.type("Really?")
        at.wait_for("> Really?")
        at.send("Enter")
        at.wait_until(lambda _: "answering" in status(at))
        at.wait_for("You: Really?")
        at.wait_until(lambda _: "speaker ━" in status(at))
        time.sleep(0.5)  # enough to hear a few words
        at.send("i")
        at.wait_for("(interrupted)")
        at.type("t")
        at.wait_until(lambda screen: ">" in screen[-1])
        at.type("Go on.")
        at.send("Enter")
        at.wait_until(lambda _: "answering" in status(at))
        proxy.reset()
        at.wait_until(lambda _: "line lost" in status(at))
        at.wait_until(lambda screen: "The line is back" in joined(screen))
        at.wait_until(lambda _: "listening" in status(at))
        at.send("q")
        at.wait_for_end()
        left = at.lines
    assert left[-2].startswith("Saved ")
    assert left[-1].startswith("Resume: ")
    text = joined(left)
    assert not any(f"{state}  " in "\n".join(left) for state in STATES), text
    assert "mic ─" not in text
    assert text.count("You: Really?") == 1
    assert text.count("(interrupted)") in (1, 2)  # the lost line may have cut one short, too
    assert text.count("You: Go on.") == 1
    assert text.count("And what do the bees do in the winter?") == 1
    assert any(re.fullmatch(rf"0:0\d Assistant: {LONG}", line) for line in left), "\n".join(left)
    said = messages("last")
    assert [role for role, _ in said][:5] == ["user", "assistant", "user", "assistant", "user"]
    assert len(said[3][1]) < len(LONG)


def test_an_answer_in_wide_characters_at_40_columns_leaves_nothing_behind(
    server: StrictServer,
) -> None:
    server.answer_text = "蜜蜂在冬天待在家里" * 12
    server.answer_ms, server.delta_pause, server.deltas = 2000, 0.2, 8
    command = [*PROGRAM, "talk", "--url", server.url, "--text", "你好"]
    with terminal(command, width=40, height=14) as at:
        at.wait_for("Assistant… ", "answering")
        at.wait_for_end()
        left = at.scrollback
    text = "".join(left).replace(" ", "")
    assert text.count("蜜蜂在冬天待在家里") == 12
    assert text.count("Assistant") == 1
    assert "answering" not in text
    assert left[-1].startswith("Resume: ") or "Resume: " in "".join(left[-3:])


def test_what_is_copied_of_a_turn_is_one_line(server: StrictServer) -> None:
    server.answer_text = LONG
    with terminal([*PROGRAM, "talk", "--url", server.url, "--text", "Hello"], width=50) as at:
        at.wait_for_end()
        lines = at.lines
    assert any(re.fullmatch(rf"0:0\d Assistant: {LONG}", line) for line in lines), lines


@pytest.mark.parametrize(
    ("redirection", "is_live", "shows"),
    [
        (">out", False, "Conversations are saved"),
        ("2>err", True, "0:00 You: Hello"),
        (">out 2>err", False, ""),
    ],
)
def test_only_a_terminal_for_turns_has_a_live_area(
    server: StrictServer, tmp_path: Path, redirection: str, is_live: bool, shows: str
) -> None:
    seen: list[str] = []

    def look(peer: Peer, event: dict[str, Any]) -> None:
        if event["type"] == "response.done":
            if is_live:
                at.wait_until(shows_live)
            time.sleep(0.3)
            seen.extend(at.screen)

    server.on_send, server.answer_ms = look, 600
    command = f'cd "$0" && "$@" {redirection}'
    program = [*PROGRAM, "talk", "--url", server.url, "--text", "Hello"]
    words: list[str | Path] = ["sh", "-c", command, tmp_path, *program]
    with terminal(words, PYTHONPATH=str(Path(__file__).parent.parent)) as at:
        at.wait_for_end()
        screen = "\n".join(at.screen)
    assert shows_live(seen) == is_live
    assert shows in screen
    if ">out" in redirection:
        out = (tmp_path / "out").read_text()
        assert out == "You: Hello\nAssistant: All right. I heard you.\n"
    if "2>err" in redirection:
        err = (tmp_path / "err").read_text()
        assert err.startswith("Conversations are saved in ")
        assert "\x1b" not in err
        assert "Saved " not in screen


def test_without_colour_there_is_none(server: StrictServer) -> None:
    command = [*PROGRAM, "talk", "--url", server.url, "--text", "Hello"]
    for no_color, has_colour in (("", True), ("1", False)):
        with terminal(command, NO_COLOR=no_color) as at:
            at.wait_for_end()
            assert ("\x1b[36m" in at.styled or "\x1b[1m\x1b[36m" in at.styled) == has_colour
            assert "Assistant: All right." in joined(at.screen)


def test_a_dumb_terminal_gets_plain_lines(server: StrictServer) -> None:
    command = [*PROGRAM, "talk", "--url", server.url, "--text", "Hello"]
    with terminal(command, TERM="dumb") as at:
        at.wait_for_end()
        assert "You: Hello" in at.screen
        assert "Assistant: All right. I heard you." in at.screen


@pytest.mark.parametrize("columns", ["0", "1"])
def test_turns_are_whole_whatever_the_environment_says_of_the_width(
    server: StrictServer, columns: str
) -> None:
    arguments = ["talk", "--url", server.url, "--text", "Hello"]
    run = voicechat(*arguments, COLUMNS=columns)
    assert run.out == "You: Hello\nAssistant: All right. I heard you.\n"
    with terminal([*PROGRAM, *arguments], COLUMNS=columns) as at:
        at.wait_for_end()
        left = [re.sub(r"^\d:\d\d ", "", line) for line in at.lines]
    assert "You: Hello" in left
    assert "Assistant: All right. I heard you." in left


def test_ctrl_z_gives_the_terminal_to_the_shell_and_fg_draws_again(server: StrictServer) -> None:
    may_end = threading.Event()

    def wait(peer: Peer, event: dict[str, Any]) -> Awaitable[object] | None:
        is_last = event["type"] == "response.output_audio.done"
        return let_go(peer, event) if is_last and not may_end.is_set() else None

    async def let_go(peer: Peer, event: dict[str, Any]) -> None:
        await asyncio.to_thread(may_end.wait, 30)
        await peer.put(event)

    server.on_send = wait
    with terminal(["bash", "--norc", "--noprofile", "-i"], PS1="$ ", height=16) as at:
        at.type(f"{sys.executable} -m voicechat talk --url {server.url} --text Hello")
        at.send("Enter")
        at.wait_for("answering")
        at.send("C-z")
        at.wait_for("Stopped")
        assert "answering" not in joined(at.screen)
        at.type("fg")
        at.send("Enter")
        at.wait_for("answering")
        may_end.set()
        at.wait_for("Resume: ")
        assert "answering" not in joined(at.screen)
        assert "Assistant: All right. I heard you." in joined(at.screen)


CLOCKED = """
import sys, time
from voicechat.__main__ import main
from voicechat.terminal import Terminal
draws, drawn = open(sys.argv.pop(1), "w"), Terminal._drawn

def noted(self):
    print(time.monotonic(), file=draws, flush=True)
    return drawn(self)

Terminal._drawn = noted
main()
"""
"""Writes down when it draws: we may be late to see it."""


def test_it_is_drawn_at_most_ten_times_a_second_and_never_blank(
    server: StrictServer, tmp_path: Path
) -> None:
    """Everything that the program writes to a terminal whose size nobody knows."""
    server.deltas, server.delta_pause, server.answer_ms = 60, 0.02, 1200
    ours, theirs = pty.openpty()
    talk = ("talk", "--url", server.url, "--input", SPEECH / "hb_02.wav")
    process = subprocess.Popen(
        [sys.executable, "-c", CLOCKED, tmp_path / "draws", *talk],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=os.environ | {"TERM": "xterm-256color"},
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            block = os.read(ours, 65536)
        except OSError:  # so a terminal says that nobody is there any more
            break
        written += block
    os.close(ours)
    process.communicate(timeout=30)
    assert process.returncode == 0
    text = written.decode()
    frames = re.findall(f"{re.escape(BEGIN)}(.*?){re.escape(END)}", text, re.DOTALL)
    turns = [frame for frame in frames if re.search(r"\d:\d\d .*(You|Assistant):", frame)]
    assert len(frames) > 10
    assert [frame.count("hello there") for frame in turns] == [1, 0]  # it is not live any more
    assert [frame.count("I heard you.") for frame in turns] == [0, 1]
    redraws = [frame for frame in frames if frame not in turns]
    assert all(now != before for before, now in pairwise(redraws))
    assert not any(re.match(r"[\r\x1b\[\dA]*\x1b\[J", frame) for frame in redraws)
    draws = [float(line) for line in (tmp_path / "draws").read_text().split()]
    assert len(draws) >= len(frames)
    busiest = max(sum(start <= each < start + 1 for each in draws) for start in draws)
    assert busiest <= 10 + len(turns) + 1


@pytest.mark.card
def test_a_terminal_that_is_closed_ends_the_conversation_and_all_is_saved(
    server: StrictServer, home: Path
) -> None:
    with (
        VirtualCard() as card,
        terminal([*PROGRAM, "talk", "--url", server.url], width=80, height=24, **card.env) as at,
    ):
        at.wait_for("listening")
        at.type("t")
        at.wait_until(lambda screen: ">" in screen[-1])
        at.type("Hello")
        at.send("Enter")
        at.wait_for("answering")
        at.hang_up()
        [path] = (home / "sessions").glob("*.jsonl")
        wait_until(lambda: b'"closed"' in path.read_bytes())
    assert messages("last")[0] == ("user", "Hello")


TYPING = """
import sys, time
from types import SimpleNamespace as Editor
from tests.test_screen import LONG, WIDE, answering
from voicechat.keyboard import KEYS
from voicechat.terminal import Terminal
from voicechat.transcript import Transcript

conversation = answering(LONG).conversation
screen = Terminal(sys.stdout, sys.stderr, Transcript(), prices={})
screen.keys = KEYS
for now, line in enumerate(sys.stdin, start=100):
    text, _, cursor = line.strip().partition("|")
    screen.editor = Editor(
        is_open=bool(cursor), text=text, cursor=int(cursor or 0), help_is_open=text == "?"
    )
    screen.look(conversation, now, microphone=0, speaker=0, echo="off")
    if text == "notice":
        screen.notice("Something happened.")
    if text == "end":
        screen.close()
        print("over")
"""


def test_the_cursor_is_where_text_is_typed_and_the_keys_come_and_go(tmp_path: Path) -> None:
    pipe = tmp_path / "lines"
    os.mkfifo(pipe)
    line = f'stty -echo; exec "$0" -c "$1" <{pipe}'
    with (
        terminal(["sh", "-c", line, sys.executable, TYPING], width=60, height=24) as at,
        pipe.open("w", buffering=1) as lines,
    ):
        lines.write("Hello there|5\n")
        screen = at.wait_for("> Hello there", "Assistant… ", "answering")
        assert at.cursor == (len("> Hello"), len(screen) - 1)
        lines.write("你好世界|2\n")
        screen = at.wait_for("> 你好世界")
        assert at.cursor == (len("> ") + 4, len(screen) - 1)
        lines.write("notice|6\n")
        at.wait_for("Something happened.", "> notice")
        assert joined(at.screen).count("answering") == 1
        lines.write("?\n")
        screen = at.wait_for("q, Ctrl-C  Hang up.", "answering")
        assert "> notice" not in joined(screen)
        lines.write("\n")
        at.wait_until(lambda screen: "Ctrl-C" not in joined(screen))
        assert len(at.screen) == 7  # the notice, the question, three lines, and two of the status
        for columns, rows in ((40, 20), (40, 12), (20, 8)):
            at.resize(columns, rows)
            at.wait_until(  # asked again until the new size is known, and steady
                lambda screen: (
                    lines.write("?\n") > 0
                    and all(f"{key} {word}" in joined(screen) for key, _, word in KEYS)
                )
            )
            lines.write("\n")
            at.wait_until(lambda screen: "Ctrl-C" not in joined(screen))
        at.resize(60, 3)
        at.wait_until(lambda screen: lines.write("low|3\n") > 0 and screen[-1] == "> low")
        at.resize(60, 16)
        lines.write("end\n")
        at.wait_for("over")
        assert at.screen[-1] == "over"


TURNS = """
import select, sys, time
from tests.test_screen import LONG, answering
from voicechat.terminal import Terminal
from voicechat.transcript import Said, Transcript

conversation, transcript = answering(LONG).conversation, Transcript()
screen = Terminal(sys.stdout, sys.stderr, transcript, prices={})
while True:
    if select.select([sys.stdin], [], [], 0.1)[0]:
        line = sys.stdin.readline().strip()
        if line == "end":
            break
        transcript.apply(Said(item_id=line, role="user", text=line))
        screen.turns(transcript)
    now = time.monotonic()
    level = int(now * 10) % 6
    screen.look(conversation, now, microphone=level, speaker=0, echo="off")
screen.close()
print("over")
"""


@pytest.mark.parametrize(
    ("widths", "pause"), [((25, 60, 40), 0.05), ((40, 80), 0.12), ((200, 25), 0.05)]
)
def test_no_turn_is_erased_when_the_width_changes_again_and_again(
    tmp_path: Path, widths: tuple[int, ...], pause: float
) -> None:
    pipe = tmp_path / "lines"
    os.mkfifo(pipe)
    line = f'stty -echo; exec "$0" -c "$1" <{pipe}'
    with (
        terminal(["sh", "-c", line, sys.executable, TURNS]) as at,
        pipe.open("w", buffering=1) as lines,
    ):
        at.wait_for("answering")
        for number in range(6):
            lines.write(f"turn number {number}\n")
            for width in widths:
                at.resize(width, 24)
                time.sleep(pause)
        time.sleep(0.6)  # until the size is steady
        lines.write("end\n")
        at.wait_for("over")
        left = joined(at.lines)
    for number in range(6):
        assert left.count(f"You: turn number {number}") == 1, left
    assert left.count("mic ") <= 2  # of the moment at which it begins, something may be left


# For other programs -----------------------------------------------------------------------------


def lines_of(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_json_is_a_line_for_every_turn_and_state_and_nothing_else(server: StrictServer) -> None:
    server.answer_text = "Bye \x1b[31m\u202enow."
    run = voicechat("talk", "--url", server.url, "--text", "Hello", "--json")
    lines = lines_of(run.out)
    assert "\x1b" not in run.out
    assert "\u202e" not in run.out
    states = [line["state"] for line in lines if line["type"] == "state"]
    assert states[0] == "connecting"
    assert states[-1] == "leaving"
    assert [s for s in states if s in ("listening", "thinking", "answering")][:3] == [
        *("listening", "thinking", "answering")
    ]
    assert all(one != other for one, other in pairwise(states))
    documented = re.findall(r"^\| `(turn|state)` \| (`.*?`) \|", README, re.MULTILINE)
    for line in lines:
        fields = ", ".join(fields for kind, fields in documented if kind == line["type"])
        assert [f"`{field}`" for field in line][1:] == fields.split(", ")
    user, assistant = [line for line in lines if line["type"] == "turn"]
    assert {line["session"] for line in lines} == {run.session}
    assert user.keys() == assistant.keys()
    assert (user["role"], user["text"], user["status"]) == ("user", "Hello", "complete")
    assert assistant["text"] == "Bye \x1b[31m\u202enow."
    assert assistant["saved"] is True
    assert assistant["end_ms"] - assistant["start_ms"] == 600
    assert "Saved " in run.err


def test_json_of_what_is_not_saved_and_of_what_is_said(server: StrictServer) -> None:
    run = voicechat(
        *("talk", "--url", server.url, "--no-log", "--json", "--input", SPEECH / "hb_02.wav")
    )
    lines = lines_of(run.out)
    assert {line["session"] for line in lines} == {None}
    assert [line["saved"] for line in lines if line["type"] == "turn"] == [False, False]
    assert "speaking" in [line.get("state") for line in lines]


def test_json_says_that_restoring_goes_on(server: StrictServer) -> None:
    voicechat("talk", "--url", server.url, "--text", "Hello")
    run = voicechat("resume", "--last", "--url", server.url, "--text", "Again", "--json")
    lines = lines_of(run.out)
    states = [line["state"] for line in lines if line["type"] == "state"]
    assert states[:3] == ["connecting", "restoring", "listening"]
    assert [line["text"] for line in lines if line["type"] == "turn"][:1] == ["Again"]
    ends = [line["end_ms"] for line in lines if line["type"] == "turn"]
    assert lines[0]["at_ms"] <= min(ends)


def test_json_and_sound_do_not_share_standard_output(server: StrictServer) -> None:
    run = voicechat("talk", "--url", server.url, "--text", "Hi", "--json", "--output", "-")
    assert run.code == ExitCode.USAGE
    assert "--json and --output -" in run.err
    assert run.out == ""


def test_nobody_who_reads_the_json_is_the_end(server: StrictServer) -> None:
    command = [*PROGRAM, "talk", "--json", "--url", server.url, "--text", "One", "--text", "Two"]
    process = subprocess.run(
        ["sh", "-c", '"$@" | head -n 1', "sh", *command],
        capture_output=True,
        timeout=60,
        check=False,
        text=True,
    )
    assert len(lines_of(process.stdout)) == 1
    assert "voicechat: the transcript cannot be printed: " in process.stderr.lower() or (
        "the output cannot be written" in process.stderr
    )
    assert "Traceback" not in process.stderr
