"""The sound card: a virtual one, and machines that have none or one that cannot be used.

What PortAudio finds depends on the environment of the process, so that each test has its own.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.virtual_card import VirtualCard
from voicechat.audio.portaudio import INSTALL
from voicechat.pcm import FRAME_SAMPLES, SAMPLE_RATE

ROOT = str(Path(__file__).parent.parent)
PROGRAM = """
import asyncio, json, logging, os, sys, time
from pathlib import Path
from tests.listener import Notes
from voicechat.audio.card import SoundCard
from voicechat.audio.portaudio import hushed
from voicechat.errors import DeviceError

def tell(**what):
    print(json.dumps(what), flush=True)

class Card(Notes):
    def __init__(self):
        super().__init__()
        self.sound = SoundCard(**json.loads(os.environ.get("CARD", '{"echo": "off"}')))

    def open(self):
        return self.sound.open(self)

    async def until(self, is_so):
        while not is_so():
            await asyncio.sleep(0.005)

async def story():
    card = Card()
{story}

try:
    with hushed():
        asyncio.run(story())
except DeviceError as error:
    tell(message=error.message, remedy=error.remedy)
"""


def start(env: dict[str, str], story: str, *arguments: object) -> subprocess.Popen[str]:
    body = "".join(f"    {line}\n" for line in story.strip().splitlines())
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("{story}", body), *map(str, arguments)],
        env={**env, "PYTHONPATH": os.pathsep.join([env.get("PYTHONPATH", ""), ROOT])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(program: subprocess.Popen[str]) -> Any:
    """What a program said in the end; it must not have printed anything else anywhere."""
    try:
        out, errors = program.communicate(timeout=60)
    finally:
        program.kill()
    assert errors == ""
    assert program.returncode == 0
    return json.loads(out.splitlines()[-1])


def noise(seconds: float) -> NDArray[np.int16]:
    """Loud in every sample, so that it can be told from silence, and when it fades, from itself."""
    loud = np.random.default_rng(0).integers(300, 3_000, int(seconds * SAMPLE_RATE))
    return loud.astype("<i2")


# On a virtual card ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def card() -> Iterator[VirtualCard]:
    with VirtualCard() as card:
        yield card


@pytest.mark.card
def test_what_is_played_leaves_the_card_bit_for_bit(card: VirtualCard, tmp_path: Path) -> None:
    (tmp_path / "answer.raw").write_bytes(noise(1.2345).tobytes())
    recording = card.record()
    story = """
pcm = Path(sys.argv[1]).read_bytes()
async with card.open():
    for at in range(0, len(pcm), 4001):
        card.sound.play("item_1", pcm[at : at + 4001])
    card.sound.end("item_1")
    card.sound.end("item_2")
    card.sound.play("item_3", pcm[:1440])
    card.sound.end("item_3")
    await card.until(lambda: len(card.ended) == 3)
    await asyncio.sleep(0.2)  # the system's own queue behind the card's
tell(finished=card.ended)
"""
    program = start(card.env, story, tmp_path / "answer.raw")
    assert told(program) == {"finished": [["item_1", 1234], ["item_2", 0], ["item_3", 30]]}
    heard = np.frombuffer(recording.stop(), dtype="<i2")
    said = noise(1.2345).tolist()
    assert heard[heard != 0].tolist() == said + said[:720]
    # Nor silence within it, but for a block or two that a busy machine makes PulseAudio insert.
    assert np.ptp(np.flatnonzero(heard)) < len(said) + 720 + 4 * 480


@pytest.mark.card
def test_what_is_said_arrives_bit_for_bit(card: VirtualCard, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "question.wav"), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes(noise(1.2345).tobytes())
    story = """
async with card.open():
    await card.until(lambda: card.frames)
    tell(ready=True)
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.sleep(0.4)  # until what was said last has come through
assert {len(frame) for frame in card.frames} == {960}
Path(sys.argv[1]).write_bytes(b"".join(card.frames))
tell(frames=len(card.frames))
"""
    program = start(card.env, story, tmp_path / "heard.raw")
    assert program.stdout is not None
    assert json.loads(program.stdout.readline()) == {"ready": True}
    card.speak(tmp_path / "question.wav")
    program.stdin and program.stdin.write("\n")
    told(program)
    heard = np.frombuffer((tmp_path / "heard.raw").read_bytes(), dtype="<i2")
    assert heard[heard != 0].tolist() == noise(1.2345).tolist()


@pytest.mark.card
def test_stop_falls_silent_and_tells_what_was_heard(card: VirtualCard, tmp_path: Path) -> None:
    (tmp_path / "answer.raw").write_bytes(noise(10).tobytes())
    recording = card.record()
    story = """
pcm = Path(sys.argv[1]).read_bytes()
async with card.open():
    card.sound.play("item_1", pcm)
    card.sound.play("item_2", pcm)
    await asyncio.sleep(1)
    heard = card.sound.stop()
    await asyncio.sleep(0.5)
tell(heard=heard, finished=card.ended)
"""
    what = told(start(card.env, story, tmp_path / "answer.raw"))
    ((item_1, heard_ms), item_2), finished = what["heard"], what["finished"]
    assert (item_1, item_2, finished) == ("item_1", ["item_2", 0], [])
    heard = np.frombuffer(recording.stop(), dtype="<i2")
    sounded = heard[heard != 0]
    cut = len(sounded) // FRAME_SAMPLES * FRAME_SAMPLES  # the card takes whole blocks
    whole, fade = sounded[:cut], sounded[cut:]
    assert whole.tolist() == noise(10)[:cut].tolist()
    assert 0 < len(fade) <= SAMPLE_RATE // 200
    assert (fade < noise(10)[cut : len(sounded)]).all()
    assert heard_ms > 500
    assert heard_ms <= len(sounded) * 1000 // SAMPLE_RATE <= heard_ms + 200


@pytest.mark.card
@pytest.mark.parametrize("is_playing", [True, False])
def test_leaving_a_stalled_card_takes_no_time(card: VirtualCard, is_playing: bool) -> None:
    story = """
async with card.open():
    if sys.argv[1] == "True":
        card.sound.play("item_1", bytes(480_000))
    await card.until(lambda: card.frames)
    tell(ready=True)
    await asyncio.to_thread(sys.stdin.readline)
    began = time.monotonic()
tell(seconds=time.monotonic() - began)
"""
    program = start(card.env, story, is_playing)
    assert program.stdout is not None
    program.stdout.readline()
    card.stall()
    try:
        assert told(program)["seconds"] < 10  # for ever, as long as it waits for the card
    finally:
        card.resume()


@pytest.mark.card
def test_a_card_can_be_left_and_opened_again(card: VirtualCard) -> None:
    story = """
for _ in range(3):
    async with card.open():
        card.frames.clear()
        await card.until(lambda: len(card.frames) > 2)
    threads = {thread.name for thread in __import__("threading").enumerate()} - {"noise"}
tell(threads=len(threads), files=len(os.listdir("/proc/self/fd")))
"""
    what = told(start(card.env, story))
    assert what["threads"] == 1
    assert what["files"] < 40


@pytest.mark.card
def test_what_waits_for_a_busy_loop_is_bounded_and_the_loss_is_told(
    card: VirtualCard, tmp_path: Path
) -> None:
    story = """
async with card.open():
    await card.until(lambda: card.frames)
    time.sleep(7)
    before = len(card.frames)
    await asyncio.sleep(0.01)
    tell(frames=len(card.frames) - before, notices=card.notices[1:])
"""
    what = told(start(card.env, story))
    assert 200 <= what["frames"] <= 260  # the last five seconds
    [notice] = what["notices"]
    assert re.fullmatch(
        r"[12]\.\d s of what you said was lost: this computer was too busy.", notice
    )


@pytest.mark.card
def test_a_sound_server_that_is_frozen_from_the_start_can_be_left(
    card: VirtualCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    os.kill(card._process.pid, signal.SIGSTOP)
    try:
        for command in (["talk", "--url", "ws://127.0.0.1:9", "--no-log"], ["devices"]):
            program = subprocess.Popen(
                [sys.executable, "-m", "voicechat", *command], env=card.env | os.environ
            )
            time.sleep(1.5)
            assert program.poll() is None
            program.send_signal(signal.SIGINT)
            assert program.wait(30) in (-signal.SIGINT, 130)
    finally:
        os.kill(card._process.pid, signal.SIGCONT)


# On other machines ------------------------------------------------------------------------------


def with_library(tmp_path: Path, source: str) -> dict[str, str]:
    """An environment in which `import sounddevice` finds this in place of the real one."""
    (tmp_path / "sounddevice.py").write_text(source)
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


LIBRARY = """
class PortAudioError(Exception): pass

class Stream:
    active = True
    latency = 0.1
    def __init__(self, **form): pass
    def start(self): pass
    def abort(self, ignore_errors): pass
    def close(self, ignore_errors): pass

RawInputStream = RawOutputStream = Stream

DEVICES = [("Wave [Blaster]", 2, 2)]

def query_hostapis(): return [{"name": "ALSA"}]

def query_devices(kind=None):
    found = [
        {
            "index": index,
            "name": name,
            "hostapi": 0,
            "max_input_channels": inputs,
            "max_output_channels": outputs,
            "default_samplerate": 48000.0,
        }
        for index, (name, inputs, outputs) in enumerate(DEVICES)
    ]
    return next(d for d in found if d[f"max_{kind}_channels"]) if kind else found
"""
OPEN = """
logging.getLogger("voicechat").addHandler(logging.StreamHandler(sys.stdout))
logging.getLogger("voicechat").setLevel(logging.DEBUG if sys.argv[1:] else logging.INFO)
async with card.open():
    tell(opened=True)
"""


def test_without_a_sound_card_there_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "asound.conf").write_text("pcm.!default { type pulse }")
    nobody = f"unix:{tmp_path}/nobody"
    env = {"ALSA_CONFIG_PATH": f"{tmp_path}/asound.conf", "PULSE_SERVER": nobody}
    error = told(start(os.environ | env, OPEN))
    assert "\n" not in error["message"]
    assert "--input FILE" in error["remedy"]
    assert "--text" in error["remedy"]


@pytest.mark.card
def test_the_noise_of_the_sound_system_is_only_for_the_log(
    card: VirtualCard, tmp_path: Path
) -> None:
    (tmp_path / "asound.conf").write_text('pcm.!default { type pulse device "nobody" }')
    env = card.env | {"ALSA_CONFIG_PATH": f"{tmp_path}/asound.conf"}
    assert "the microphone 'default' does not open" in told(start(env, OPEN))["message"]
    out, errors = start(env, OPEN, "--verbose").communicate(timeout=60)
    assert errors == ""
    assert "sound system: ALSA" in out


def test_without_portaudio_the_error_says_how_to_install_it(tmp_path: Path) -> None:
    env = with_library(tmp_path, "raise OSError('PortAudio library not found')")
    error = told(start(env, OPEN))
    assert error["message"] == "PortAudio, the library for sound cards, is not installed"
    assert any(command in error["remedy"] for command in INSTALL.values())
    assert "--input FILE" in error["remedy"]

    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pacman").touch(0o755)
    error = told(start({**env, "PATH": str(tmp_path / "bin")}, OPEN))
    assert "with `sudo pacman -S portaudio`, or" in error["remedy"]


@pytest.mark.parametrize("kind", ["microphone", "speaker"])
@pytest.mark.parametrize(
    ("code", "says"),
    [
        (-9997, "the {kind} 'Wave [Blaster]' works at none of the usual sample rates"),
        (-9985, "the {kind} 'Wave [Blaster]' is in use by another program"),
        (-9999, "the {kind} 'Wave [Blaster]' does not open: "),
    ],
)
def test_a_card_that_cannot_be_used_is_named(
    tmp_path: Path, kind: str, code: int, says: str
) -> None:
    library = f"""{LIBRARY}
class Refusing(Stream):
    def __init__(self, **form): raise PortAudioError("Error opening stream", {code})

{"RawInputStream" if kind == "microphone" else "RawOutputStream"} = Refusing
"""
    error = told(start(with_library(tmp_path, library), OPEN))
    assert error["message"].startswith(says.format(kind=kind))
    assert "--input FILE" in error["remedy"]
    assert "--text" in error["remedy"]


def test_a_sound_system_that_has_died_is_left_all_the_same(tmp_path: Path) -> None:
    library = f"""{LIBRARY}
import atexit, time

def _exit_handler(): time.sleep(60)
atexit.register(_exit_handler)

class Stuck(Stream):
    def abort(self, ignore_errors): time.sleep(60)

RawInputStream = RawOutputStream = Stuck
"""
    began = time.monotonic()
    assert told(start(with_library(tmp_path, library), OPEN)) == {"opened": True}
    assert time.monotonic() - began < 30
