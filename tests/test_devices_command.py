"""``voicechat devices``, and what ``talk`` says of devices that are not there or do not open."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.jack_card import JackCard
from tests.program import SPEECH, Run, voicechat
from tests.strict_server import KEY, StrictServer
from tests.test_card import loud_seconds
from tests.test_devices import LIBRARY, with_library
from tests.virtual_card import VirtualCard
from voicechat.audio.portaudio import INSTALL

TALK = ("talk", "--no-log", "--url", "ws://127.0.0.1:9/v1/realtime")
RATES = [8_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000]
TABLE = """\
   Device             Microphone                     Speaker
0  headset (ALSA)     8000 16000 24000 32000         8000 16000 24000 32000
                      44100 48000 96000              44100 48000 96000
1  usbmic (ALSA)      8000 16000 24000 32000
                      44100 48000 96000
2  usbspk (ALSA)                                     8000 16000 24000 32000
                                                     44100 48000 96000
3  default (ALSA)  *  8000 16000 24000 32000      *  8000 16000 24000 32000
                      44100 48000 96000              44100 48000 96000
"""
MISSING = "raise OSError('PortAudio library not found')"
FAKE = f"""{LIBRARY}
def check_input_settings(samplerate, **form):
    if samplerate != 48_000: raise PortAudioError("Invalid sample rate", -9997)

check_output_settings = check_input_settings

def query_devices(kind=None, all_of_them=query_devices):
    try:
        return all_of_them(kind)
    except StopIteration:
        raise PortAudioError("Error querying device -1")
"""
NOTHING = f"{FAKE}\nDEVICES = []\n"
THREE = f"""{FAKE}
DEVICES = [("USB One", 1, 0), ("USB Two", 1, 0), ("Speakers", 0, 2)]
"""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def refused(run: Run) -> tuple[str, str]:
    """What is wrong and what to do about it: one line each, after the greeting if there was one."""
    assert run.code == 3, run
    greeting = "Connecting. Ctrl-C hangs up."
    what, remedy = [line for line in run.err.splitlines() if line != greeting]
    assert what.startswith("voicechat: "), run
    assert remedy.startswith("  "), run
    return what.removeprefix("voicechat: "), remedy.strip()


def run_in(env: dict[str, str], *arguments: str | Path) -> Run:
    variables: Any = env
    return voicechat(*arguments, timeout=30, **variables)


def talk(env: dict[str, str], *options: str) -> Run:
    """Nobody is called before both devices are open."""
    return run_in(env, *TALK, *options)


# On virtual cards -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def card() -> Iterator[VirtualCard]:
    with VirtualCard(microphones=["headset", "usbmic"], speakers=["headset", "usbspk"]) as card:
        yield card


@pytest.mark.card
def test_the_table_fits_into_80_columns_and_stars_mark_the_default(card: VirtualCard) -> None:
    for _ in range(2):
        run = run_in(card.env | {"COLUMNS": "80"}, "devices")
        assert (run.code, run.err) == (0, "")
        assert [line.rstrip() for line in run.lines] == TABLE.splitlines()
        assert max(map(len, run.lines)) <= 80


@pytest.mark.card
def test_programs_read_the_same_as_json(card: VirtualCard) -> None:
    run = run_in(card.env, "devices", "--json")
    assert (run.code, run.err) == (0, "")
    ends = {"headset": (True, True), "usbmic": (True, False), "usbspk": (False, True)}
    rows = json.loads(run.out)
    for index, (row, (name, (hears, speaks))) in enumerate(
        zip(rows, [*ends.items(), ("default", (True, True))], strict=True)
    ):
        assert (row.pop("input_channels") > 0, row.pop("output_channels") > 0) == (hears, speaks)
        assert row == {
            "index": index,
            "name": name,
            "host": "ALSA",
            "input_rates": RATES * hears,
            "output_rates": RATES * speaks,
            "is_default_input": name == "default",
            "is_default_output": name == "default",
        }


@pytest.mark.card
def test_a_card_that_knows_one_rate_is_shown_with_it() -> None:
    with JackCard(rate=44_100) as card:
        [row] = json.loads(run_in(card.env, "devices", "--json").out)
    assert row["host"] == "JACK Audio Connection Kit"
    assert row["input_rates"] == row["output_rates"] == [44_100]


@pytest.mark.card
def test_a_test_records_and_plays_back(card: VirtualCard) -> None:
    recording = card.record(device="usbspk")
    devices = ("--input-device", "usbmic", "--output-device", "usbspk")
    speech = card.speak(SPEECH / "austen_0870.wav", device="usbmic", block=False)
    run = run_in(card.env, "devices", "--test", *devices, "--latency", "0.05")
    speech.terminate()
    assert run.code == 0, run.err
    assert run.out.startswith("It works: recorded and played 2 s, peak -")
    opened, say, meter, heard = run.err.splitlines()
    assert opened.startswith("Microphone 'usbmic', speaker 'usbspk'; ")
    assert say == "Say something: 2 seconds are recorded."
    assert meter.startswith("[####")
    assert heard == "This is what was heard."
    assert 0.5 < loud_seconds(recording.stop()) <= 2


@pytest.mark.card
def test_a_test_hears_its_own_speaker(card: VirtualCard) -> None:
    hush = card.echo(0, 100)
    speech = card.speak(SPEECH / "hb_11.wav", block=False)
    run = run_in(card.env, "devices", "--test")
    speech.terminate()
    hush()
    assert run.code == 0, run.err


@pytest.mark.card
def test_a_test_of_a_silent_microphone_fails(card: VirtualCard) -> None:
    run = run_in(card.env, "devices", "--test", "--input-device", "usbmic")
    assert run.code == 3
    assert run.err.splitlines()[-2:] == [
        "voicechat: the microphone heard nothing",
        "  Unmute it in the system's sound settings, or choose another with `--input-device`; "
        "`voicechat devices` lists them.",
    ]


# On other machines ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "devices"),
    [
        ((), "Microphone 'USB One', speaker 'Speakers'"),
        (("--input-device", "1"), "Microphone 'USB Two', speaker 'Speakers'"),
        (("--input-device", "tWO", "--output-device", "2"), "Microphone 'USB Two', speaker"),
    ],
)
def test_a_device_is_chosen_by_number_or_part_of_its_name(
    tmp_path: Path, options: tuple[str, ...], devices: str
) -> None:
    run = talk(with_library(tmp_path, THREE), *options)
    assert run.code == 4  # where nothing answers
    assert [line for line in run.err.splitlines() if line.startswith(devices)]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            ("--input-device", "webcam"),
            "no microphone fits 'webcam'; there are 0 'USB One', 1 'USB Two'",
        ),
        (("--input-device", "usb"), "2 microphones fit 'usb': 0 'USB One', 1 'USB Two'"),
        (("--input-device", "2"), "no microphone fits '2'; there are 0 'USB One', 1 'USB Two'"),
        (("--output-device", "1"), "no speaker fits '1'; there are 2 'Speakers'"),
        (("--output-device", "USB One"), "no speaker fits 'USB One'; there are 2 'Speakers'"),
    ],
)
def test_a_device_that_is_not_there_is_refused_with_those_that_are(
    tmp_path: Path, options: tuple[str, str], problem: str
) -> None:
    env = with_library(tmp_path, THREE)
    for run in (talk(env, *options), run_in(env, "devices", "--test", *options)):
        what, remedy = refused(run)
        assert what == problem
        assert remedy.startswith("Give one of these numbers, or ")


@pytest.mark.parametrize(
    ("arguments", "problem", "remedy"),
    [
        ("'Error', -9985", "is in use by another program", "Close the program that uses it"),
        ("'Error', -9999, (8, -16, 'busy')", "is in use by another program", "Close the program"),
        (
            "'Error', -9999, (8, -13, 'Permission denied')",
            "may not be used by you",
            "Run `sudo usermod -aG audio $USER` and log in again",
        ),
        (
            "'Error', -9997",
            "works at none of the usual sample rates",
            "Choose another with `--{kind}-device` (`voicechat devices` lists them)",
        ),
        ("'Odd\\x1b[31m', -1", "does not open: ", "Choose another with `--{kind}-device`"),
    ],
)
@pytest.mark.parametrize(
    ("kind", "name"), [("input", "the microphone 'USB One'"), ("output", "the speaker 'Speakers'")]
)
def test_a_device_that_does_not_open_is_one_line_and_what_to_do(
    tmp_path: Path, kind: str, name: str, arguments: str, problem: str, remedy: str
) -> None:
    library = f"""{THREE}
class Refusing(Stream):
    def __init__(self, **form): raise PortAudioError({arguments})

Raw{kind.capitalize()}Stream = Refusing
"""
    what, to_do = refused(talk(with_library(tmp_path, library)))
    assert what.startswith(f"{name} {problem}")
    assert to_do.startswith(remedy.format(kind=kind))
    assert to_do.endswith(", or do without a sound card: `--input FILE` or `--text`.")
    assert "\x1b" not in what


def test_a_device_that_opens_at_no_rate_is_shown_as_such(tmp_path: Path) -> None:
    env = with_library(tmp_path, THREE.replace("!= 48_000", "> 0"))
    assert run_in(env, "devices").out.count("does not open") == 3


ODD = "\x1b]0;owned\x07\x1b[31m[bold]Wave[/bold]\x9b1m\u202e"


def test_names_of_devices_are_inert(tmp_path: Path) -> None:
    env = with_library(tmp_path, f"{FAKE}\nDEVICES = [({ODD!r}, 2, 2)]\n")
    as_table, as_json = run_in(env, "devices"), run_in(env, "devices", "--json")
    refusal, opened = talk(env, "--input-device", "none"), talk(env)
    for run in (as_table, as_json, refusal, opened):
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & {*run.out, *run.err}
        assert "[bold]Wave[/bold]" in run.out + run.err
    [row] = json.loads(as_json.out)
    assert row["name"] == ODD


COMMANDS: list[tuple[str, ...]] = [
    ("devices",),
    ("devices", "--test"),
    TALK,
]


@pytest.mark.parametrize("command", COMMANDS)
def test_without_portaudio_it_says_how_to_install_it(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    what, remedy = refused(run_in(with_library(tmp_path, MISSING), *command))
    assert what == "PortAudio, the library for sound cards, is not installed"
    assert any(install in remedy for install in INSTALL.values())


PLACE = """
import platform
from pathlib import Path

platform.release = lambda: "{release}"

def glob(self, pattern, as_found=Path.glob):
    return {cards} if str(self) == "/dev/snd" else as_found(self, pattern)

Path.glob = glob
"""
HERE = PLACE.format(release="6.1.0-amd64", cards=[])
WSL = PLACE.format(release="5.15-microsoft-standard-WSL2", cards=[])
DENIED = PLACE.format(release="6.1.0-amd64", cards="[self / 'nobody']")


@pytest.mark.parametrize(
    ("place", "is_remote", "problem", "to_do"),
    [
        (HERE, False, "this system has no microphone", "Plug one in, and choose it in the system"),
        (HERE, True, "this system has no microphone", "This is a remote shell: run voicechat on "),
        (WSL, False, "this system has no microphone", "Windows lends WSL its sound after `wsl --"),
        (DENIED, False, "you may not use the microphone", "Run `sudo usermod -aG audio $USER`"),
    ],
    ids=["here", "over SSH", "in WSL", "not in the group"],
)
def test_without_devices_the_remedy_depends_on_where_one_is(
    tmp_path: Path, place: str, is_remote: bool, problem: str, to_do: str
) -> None:
    env = with_library(tmp_path, place + NOTHING)
    env |= {"SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22" * is_remote}
    for command in COMMANDS:
        what, remedy = refused(run_in(env, *command))
        assert what == problem
        assert remedy.startswith(to_do)
        assert remedy.endswith(", or do without a sound card: `--input FILE` or `--text`.")
    run = run_in(env, "devices", "--json")
    assert (run.code, run.out) == (3, "[]\n")


@pytest.mark.parametrize("library", [MISSING, NOTHING], ids=["no PortAudio", "no devices"])
def test_text_and_files_need_no_sound_card(tmp_path: Path, library: str) -> None:
    env = with_library(tmp_path, library)
    with StrictServer().running() as server:
        said = ("--text", "Hello?", "--input", SPEECH / "hb_04.wav")
        run = run_in(env, "talk", "--url", server.url, *said)
    assert run.code == 0, run.err
    assert len(run.lines) == 4
