"""The program is killed at any moment, and what it had printed is there when it comes back."""

import fcntl
import json
import os
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

import bench.crash
from bench.common import BenchmarkError
from bench.crash import ANSWERING, BETWEEN, STARTING, USER, Kill, Partner, doing, missing
from voicechat.history.log import SessionLog
from voicechat.history.reading import add_up
from voicechat.transcript import Closed, Opened, Record, Said, Speaking, Turn

PAGE = 4096


def test_what_was_printed_outlives_any_kill(capsys: pytest.CaptureFixture[str]) -> None:
    code = bench.crash.main(["--times", "20", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (code, told["missed"]) == (0, [])
    kills = told["kills"]
    assert len(kills) == 20
    assert {kill["command"] for kill in kills} == {"talk", "resume"}
    assert len({kill["doing"] for kill in kills}) > 1
    assert sum(kill["printed"] for kill in kills) > 20
    assert [kill["found"] for kill in kills] == [kill["printed"] for kill in kills]


def unread(pipe: int) -> int:
    """How many bytes are in it."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_the_first_word_of_a_turn_is_printed_when_the_last_one_is_saved(home: Path) -> None:
    (home / "sessions").mkdir(parents=True)
    partner = Partner(home / "sessions")
    partner.aloud = "I could go on like this for a very long time. " * 1000
    with (
        partner.running(),
        subprocess.Popen(
            [sys.executable, "-m", "voicechat", "talk", "--url", partner.url, "--text", "Well?"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        ) as process,
    ):
        assert process.stdout is not None
        pipe = process.stdout.fileno()
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 2 * PAGE)
        deadline = time.monotonic() + 30
        while unread(pipe) <= PAGE and time.monotonic() < deadline:
            time.sleep(0.005)  # nobody reads: it is held up in the middle of a turn
        process.kill()
        printed = os.read(pipe, 2 * PAGE).decode()
    typed, aloud = printed.splitlines()
    assert typed == "You: Well?"
    assert len(aloud) >= PAGE // 2
    assert partner.aloud.startswith(aloud.removeprefix("You: "))
    [path] = (home / "sessions").iterdir()
    turns = add_up(path).transcript.turns
    assert [(turn.text, turn.status) for turn in turns] == [
        ("Well?", "complete"),
        (partner.aloud.strip(), "complete"),
    ]


def test_a_run_that_ends_badly_by_itself_is_not_taken_for_a_kill(home: Path) -> None:
    with pytest.raises(BenchmarkError, match="ended with 7"):
        bench.crash.run(home, "resume", "nobody")


TURNS = [
    Turn("a", "user", "Is it?", "complete"),
    Turn("b", "assistant", "It is. Or was.", "interrupted"),
    Turn("c", "user", "Is it?", "complete"),
]


@pytest.mark.parametrize(
    ("printed", "lost"),
    [
        ([], []),
        (["You: Is it?", "Assistant: It is. Or was.", "You: Is it?"], []),
        (["You: Is it?", "You: Is it?"], []),
        (["You: Is it?", "Assistant: It is."], []),
        (["Assistant: Is it?"], ["Assistant: Is it?"]),
        (["You: It is."], ["You: It is."]),
        (["Assistant: It is. Or was. Who knows?"], ["Assistant: It is. Or was. Who knows?"]),
        (["You: Is it?"] * 3, ["You: Is it?"]),
        (["Assistant: It is.", "You: Is it?", "Assistant: It is."], ["Assistant: It is."]),
        (["You: What?", "You: Is it?"], ["You: What?"]),
    ],
)
def test_a_line_that_is_missing_is_noticed(printed: list[str], lost: list[str]) -> None:
    assert missing(printed, TURNS) == lost


ASKED = Speaking(item_id="a", role="user", text="Is it?")
ASKED_IN_WORDS = Said(item_id="a", role="user", text="Is it?")
ANSWERED = Speaking(item_id="b", role="assistant", text="It is. ")
OURS, OTHERS = Opened(session="ab2345", pid=2), Opened(session="ab2345", pid=1)


@pytest.mark.parametrize(
    ("records", "was_doing"),
    [
        ([OURS], STARTING),
        ([OTHERS, ASKED], STARTING),
        ([OTHERS, ASKED, OURS], STARTING),
        ([OURS, ASKED], USER),
        ([OURS, ASKED, ASKED_IN_WORDS], BETWEEN),
        ([OURS, ASKED, ASKED_IN_WORDS, ANSWERED], ANSWERING),
        ([OURS, ASKED, ASKED_IN_WORDS, Closed()], BETWEEN),
    ],
)
def test_what_the_program_was_doing_is_told_by_the_file(
    tmp_path: Path, records: list[Record], was_doing: str
) -> None:
    log = SessionLog.create(tmp_path)
    for record in records:
        log.append(record)
    log.close()
    assert doing(log.path, 2) == was_doing


def test_the_table_counts_by_what_the_program_was_doing() -> None:
    kills = [
        Kill(STARTING, "talk", 0, 0),
        Kill(ANSWERING, "resume", 3, 2, ["You: Is it?"]),
        Kill(ANSWERING, "talk", 4, 4),
    ]
    rows = [line.split()[-5:] for line in bench.crash.table(kills).splitlines()]
    assert rows[1] == ["1", "0", "0", "0", "0"]
    assert rows[3] == ["2", "1", "7", "6", "1"]
    assert rows[5] == ["3", "1", "7", "6", "1"]
