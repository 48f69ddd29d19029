"""What the README says is what the program does."""

import re
from pathlib import Path
from typing import get_args

import pytest

from bench.picture import picture
from tests.program import voicechat
from voicechat.errors import ExitCode
from voicechat.keyboard import KEYS
from voicechat.realtime.view import Standing

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    *("talk", "resume", "export", "devices", "local setup", "local serve"),
    *("history list", "history show", "history search", "history rename", "history rm"),
    *("doctor", "replay-trace"),
    *("history path", "history import", "history check", "history sync"),
    *("config path", "config show", "config init", "config edit", "login", "logout"),
]


def section(title: str) -> str:
    return README.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize("command", ["", "history", "config", "local"])
def test_what_tells_of_several_commands_is_a_page_in_whole_lines(command: str) -> None:
    run = voicechat(*command.split(), "--help", COLUMNS="80")
    assert run.code == 0
    assert max(map(len, run.lines)) <= 80
    assert "..." not in run.out.replace("[ARGS]...", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_stands_in_the_readme(command: str) -> None:
    run = voicechat(*command.split(), "--help", COLUMNS="80")
    assert run.code == 0
    assert f"`voicechat {command}" in section("Commands")
    assert max(map(len, run.lines)) <= 80


def test_every_option_of_talk_stands_in_the_readme_and_none_else() -> None:
    shown = set(
        re.findall(r"^  (?:-\w, )?(--[\w-]+)", voicechat("talk", "--help").out, re.MULTILINE)
    )
    documented = set(
        re.findall(r"^\| `(--[\w-]+)", section("Options of `talk` and `resume`"), re.MULTILINE)
    )
    assert (shown | {"--last"}) - {"--help"} == documented
    resumes = set(
        re.findall(r"^  (?:-\w, )?(--[\w-]+)", voicechat("resume", "--help").out, re.MULTILINE)
    )
    assert resumes == shown - {"--resume", "--continue"} | {"--last"}


def test_every_variable_stands_in_the_readme() -> None:
    shown = set(re.findall(r"VOICECHAT_\w+", voicechat("talk", "--help").out))
    documented = set(re.findall(r"VOICECHAT_\w+", README))
    others = {"VOICECHAT_HOME", "VOICECHAT_STORE", "VOICECHAT_STORE_PASSWORD", "VOICECHAT_PRICES"}
    others |= {"VOICECHAT_CONFIG", "VOICECHAT_TOKEN_COMMAND"}
    assert shown | others == documented


def test_every_key_stands_in_the_readme() -> None:
    table = section("While you talk").strip().split("\n\n", 1)[0].splitlines()[2:]
    assert [row.replace("`", "") for row in table] == [
        f"| {key} | {what} |" for key, what, _ in KEYS
    ]


def test_every_exit_code_stands_in_the_readme() -> None:
    documented = [
        int(code) for code in re.findall(r"^\| (\d+) \|", section("Exit codes"), re.MULTILINE)
    ]
    assert documented == [int(code) for code in ExitCode]


def test_every_state_stands_in_the_readme() -> None:
    table = section("For other programs").split("| State |", 1)[1]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(get_args(Standing))


def test_the_picture_is_of_the_program_as_it_is() -> None:
    def words(svg: str) -> list[str]:
        return re.findall(r">([^<>]+)</text>", svg)

    path = Path(__file__).parent.parent / "bench" / "picture.svg"
    assert words(path.read_text(encoding="utf-8")) == words(picture())


def test_the_record_kinds_in_the_readme_are_the_real_ones() -> None:
    # tests/test_transcript.py compares this table with the code.
    table = (Path(__file__).parent / "golden" / "records.md").read_text(encoding="utf-8").strip()
    assert table in README
