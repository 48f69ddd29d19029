"""What a shell is told when someone presses Tab."""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.program import Run, voicechat
from tests.test_sessions import save
from voicechat.cli.complete import DEVICES_PATIENCE

SHELL = """
eval "$(voicechat --show-completion bash)"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_voicechat_completion voicechat
printf '%s\\n' "${COMPREPLY[@]}"
"""
PATIENT = """
from voicechat.cli import complete
complete.PATIENCE = complete.DEVICES_PATIENCE = 60  # a busy machine takes its time
from voicechat.__main__ import main
main()
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``voicechat`` on the path, as an installed one is."""
    script = tmp_path / "bin" / "voicechat"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{PATIENT}' \"$@\"\n")
    script.chmod(0o700)
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # it is given by name
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    return script


def in_bash(*words: str) -> list[str]:
    """What bash completes the last of these words with."""
    run = subprocess.run(
        ["bash", "--norc", "-c", SHELL, "bash", "voicechat", *words],
        capture_output=True,
        check=True,
        encoding="utf-8",
        timeout=60,
    )
    assert not run.stderr
    return run.stdout.split("\n")[:-1]


def asked(shell: str, line: str) -> Run:
    """What the program says to a shell other than bash."""
    return voicechat(
        _VOICECHAT_COMPLETE=f"complete_{shell}",
        _TYPER_COMPLETE_ARGS=line,
        _TYPER_COMPLETE_FISH_ACTION="get-args",
        _TYPER_COMPLETE_WORD_TO_COMPLETE=line.rpartition(" ")[2],
    )


def test_bash_completes_commands_options_and_choices(program: Path) -> None:
    assert {"talk", "resume", "history", "config", "login"} <= set(in_bash(""))
    assert in_bash("talk", "--inp") == ["--input", "--input-device"]
    assert in_bash("talk", "--vad", "s") == ["server", "semantic"]
    assert in_bash("login", "a") == ["azure"]


@pytest.mark.parametrize(
    "words",
    [
        ("resume",),
        ("talk", "--resume"),
        ("export",),
        *(("history", each) for each in ("show", "rename", "rm", "path", "check")),
    ],
)
def test_bash_completes_sessions_by_id_and_name(
    program: Path, home: Path, words: tuple[str, ...]
) -> None:
    save(home / "sessions", "k7f3a2", "Hello", day=1, name="Plan (the week)")
    save(home / "sessions", "k9aaaa", "Hello", day=2)
    assert in_bash(*words, "") == ["k9aaaa", "k7f3a2"]
    assert in_bash(*words, "k7") == ["k7f3a2"]
    assert in_bash(*words, "Pl") == [r"Plan\ \(the\ week\)"]


def test_bash_completes_profiles(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICECHAT_CONFIG", str(tmp_path / "c.toml"))
    (tmp_path / "c.toml").write_text('[profiles.work]\n[profiles."at home"]\n')
    for command in (["talk"], ["resume"], ["history", "sync"], ["config", "show"]):
        assert in_bash(*command, "-p", "") == ["work", r"at\ home"]
    (tmp_path / "c.toml").write_text("nonsense")
    assert in_bash("talk", "-p", "") == [""]
    assert in_bash("talk", "--vad", "n") == ["none"]


def test_others_are_told_what_the_words_mean(home: Path) -> None:
    save(home / "sessions", "k7f3a2", "Hello", name="Plan [bold] the week")
    assert asked("fish", "voicechat resume ").out == "k7f3a2\tPlan  bold  the week\n"
    assert asked("zsh", "voicechat resume k").out == (
        """_arguments '*: :(("k7f3a2":"Plan  bold  the week"))'\n"""
    )
    assert asked("powershell", "voicechat resume k").out == "k7f3a2:::Plan  bold  the week\n"


@pytest.mark.parametrize("evil", ["$(touch {})", "`touch {}`", "\\$(touch {})", '";touch {};"'])
def test_names_from_elsewhere_are_no_commands(
    program: Path, home: Path, tmp_path: Path, evil: str
) -> None:
    touched = tmp_path / "touched"
    save(home / "sessions", "k7f3a2", "Hello", name="a" + evil.format(touched))
    in_bash("resume", "a")
    for line in ("voicechat resume ", "voicechat resume a"):
        told = asked("zsh", line).out
        assert not set("$`\\;") & set(told)
    assert asked("fish", "voicechat resume a").out.strip() == ""
    assert not touched.exists()


def test_completion_says_nothing_of_errors_and_never_syncs(
    program: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(home / "sessions", "k7f3a2", "Hello")
    monkeypatch.setenv("VOICECHAT_STORE", f"sqlite:///{tmp_path / 'store.db'}")
    assert in_bash("resume", "") == ["k7f3a2"]
    assert not (tmp_path / "store.db").exists()
    monkeypatch.setenv("VOICECHAT_HOME", str(program))
    assert in_bash("resume", "") == [""]
    assert in_bash("talk", "-p", "") == [""]


def test_a_sound_system_that_hangs_is_waited_for_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sounddevice.py").write_text("import time\ntime.sleep(1000)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parent.parent}")
    started = time.monotonic()
    run = asked("fish", "voicechat talk --input-device ")
    assert time.monotonic() - started >= DEVICES_PATIENCE
    assert (run.code, run.out, run.err) == (0, "", "")


def test_devices_are_completed_by_name_or_number(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # PortAudio's own answer needs a card; this is a module in its place.
    (tmp_path / "sounddevice.py").write_text(
        "import os\n"
        "os.write(2, b'ALSA lib complains')\n"
        "PortAudioError = OSError\n"
        "def query_hostapis(): return [{'name': 'ALSA'}]\n"
        "def device(name, i, o): return {'name': name, 'hostapi': 0, 'max_input_channels': i,\n"
        "    'max_output_channels': o, 'default_samplerate': 48000.0, 'index': 0}\n"
        "def query_devices(kind=None):\n"
        "    if kind: raise ValueError\n"
        "    return [device('HDA: ALC257 (hw:0,0)', 2, 2), device('USB', 1, 0),\n"
        "        device('USB', 1, 0), device('HDMI', 0, 2)]\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parent.parent}")
    assert in_bash("talk", "--input-device", "") == [r"HDA:\ ALC257\ \(hw:0\,0\)", "1", "2"]
    assert in_bash("resume", "--output-device", "HD") == [r"HDA:\ ALC257\ \(hw:0\,0\)", "HDMI"]


def test_it_installs_itself(program: Path, tmp_path: Path) -> None:
    person = tmp_path / "person"
    person.mkdir()
    (person / ".bashrc").write_text("# mine\n")
    run = voicechat("--install-completion", "bash", HOME=str(person))
    assert run.code == 0, run.err
    assert (person / ".bashrc").read_text().startswith("# mine\n")
    [script] = (person / ".bash_completions").iterdir()
    assert "_voicechat_completion" in script.read_text()
    person.chmod(stat.S_IRUSR | stat.S_IXUSR)
    (tmp_path / "file").write_text("")
    run = voicechat("--install-completion", "fish", HOME=str(tmp_path / "file"))
    assert (run.code, len(run.err.splitlines())) == (14, 2)
