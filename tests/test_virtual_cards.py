"""The sound cards of the other tests do what they are for, as bare PortAudio sees it."""

import json
import subprocess
import sys
import time
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.jack_card import JackCard
from tests.virtual_card import Part, VirtualCard
from tests.waiting import wait_until

pytestmark = pytest.mark.card

PROGRAM = """
import json, os, sys
import sounddevice as sd

class End:
    def __init__(self, kind):
        self.kind, self.calls, self.ended = kind, 0, 0
        self.heard, self.queue = bytearray(), bytearray()

    def open(self, rate=24_000, channels=1, device=None):
        try:
            self.stream = self.kind(
                samplerate=rate, channels=channels, dtype="int16", blocksize=rate // 50,
                latency=0.1, device=device, callback=self.call, finished_callback=self.end,
            )
        except sd.PortAudioError as error:
            return error.args[1:2] or "no device"

    def end(self):
        self.ended += 1

    def call(self, buffer, *_):
        self.calls += 1
        if self.kind is sd.RawInputStream:
            self.heard += bytes(buffer)
        else:
            said = bytes(self.queue[: len(buffer)])
            del self.queue[: len(buffer)]
            buffer[:] = said + bytes(len(buffer) - len(said))

def again():
    sd._terminate()
    sd._initialize()

microphone, speaker = End(sd.RawInputStream), End(sd.RawOutputStream)
for line in sys.stdin:
    print(json.dumps(eval(line)), flush=True)
os._exit(0)  # with what is open left as it is
"""


class Bare:
    """A program with both ends of a card, asked from outside."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __call__(self, expression: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{expression}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with self._process:
            pass

    def begin(self, *, rate: int = 24_000) -> None:
        """Open both ends, and only then start: with one that runs, the other fails in odd ways."""
        assert self(f"[end.open({rate}) for end in (microphone, speaker)]") == [None, None]
        self("[end.stream.start() for end in (microphone, speaker)]")

    def until(self, is_so: str) -> None:
        wait_until(lambda: self(is_so), lambda: is_so)

    def goes_on(self, part: Part) -> bool:
        """Whether there are callbacks soon, after those that were under way."""
        time.sleep(0.1)
        calls, deadline = self(f"{part}.calls"), time.monotonic() + 0.4
        while time.monotonic() < deadline:
            if self(f"{part}.calls") > calls:
                return True
            time.sleep(0.02)
        return False

    def play(self, samples: NDArray[np.int16]) -> None:
        self(f"speaker.queue.extend(bytes.fromhex('{samples.tobytes().hex()}'))")
        self.until("not speaker.queue")
        time.sleep(0.3)  # until the last of it is out

    def heard(self) -> NDArray[np.int16]:
        return np.frombuffer(bytes.fromhex(self("microphone.heard.hex()")), "<i2")


def noise(seconds: float, rate: int = 24_000) -> NDArray[np.int16]:
    """Without a zero in it, so that it can be told from silence."""
    loud = np.random.default_rng(0).integers(1, 3_000, int(seconds * rate))
    return loud.astype("<i2")


def file_of(samples: NDArray[np.int16], path: Path, rate: int = 24_000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


def sounding(pcm: bytes | NDArray[np.int16]) -> list[int]:
    samples = np.frombuffer(pcm, "<i2") if isinstance(pcm, bytes) else pcm
    return [int(sample) for sample in samples[samples != 0]]


OTHER: dict[Part, Part] = {"speaker": "microphone", "microphone": "speaker"}


def test_named_devices_are_devices_of_their_own(tmp_path: Path) -> None:
    with (
        VirtualCard(microphones=["headset", "usbmic"], speakers=["headset", "usbspk"]) as card,
        Bare(card.env) as bare,
    ):
        ends = "{d['name']: (d['max_input_channels'] > 0, d['max_output_channels'] > 0)"
        assert bare(f"{ends} for d in sd.query_devices()}}") == {
            "headset": [True, True],
            "usbmic": [True, False],
            "usbspk": [False, True],
            "default": [True, True],
        }
        bare("[microphone.open(device='usbmic'), speaker.open(device='usbspk')]")
        bare("[end.stream.start() for end in (microphone, speaker)]")
        bare.until("microphone.calls")
        played, not_played = card.record(device="usbspk"), card.record()
        said = file_of(noise(0.5), tmp_path / "said.wav")
        speeches = [
            card.speak(said, device=device, block=False) for device in ("usbmic", "default")
        ]
        bare.play(noise(0.7))
        assert [speech.wait() for speech in speeches] == [0, 0]
        time.sleep(0.2)
        assert sounding(bare.heard()) == noise(0.5).tolist()
        assert sounding(played.stop()) == noise(0.7).tolist()
        assert not any(not_played.stop())


@pytest.mark.parametrize("part", ["speaker", "microphone"])
def test_one_end_can_stall_or_go_without_the_other(part: Part) -> None:
    with VirtualCard() as card, Bare(card.env) as bare:
        bare.begin()
        bare.until("microphone.calls and speaker.calls")
        card.stall(part)
        assert not bare.goes_on(part)
        assert bare.goes_on(OTHER[part])
        assert bare(f"{part}.stream.active")
        card.resume(part)
        assert bare.goes_on(part)

        card.unplug(part)
        bare.until(f"{part}.ended")
        assert not bare.goes_on(part)
        assert bare.goes_on(OTHER[part])
        assert not bare(f"{part}.stream.active")
        bare("[end.stream.abort() or end.stream.close() for end in (microphone, speaker)]")
        assert bare(f"{part}.open()") == [-9999]
        card.replug(part)
        bare.begin()
        assert bare.goes_on(part)


def test_a_server_that_was_killed_comes_back_for_those_who_look_again() -> None:
    with VirtualCard(speakers=["usbspk"]) as card, Bare(card.env) as bare:
        bare.begin()
        card.kill_server()
        bare.until("microphone.ended and speaker.ended")
        bare("[end.stream.abort() or end.stream.close() for end in (microphone, speaker)]")
        bare("again()")
        assert bare("[end.open() for end in (microphone, speaker)]") == ["no device"] * 2
        card.restart_server()
        bare("again()")
        bare.begin()
        assert bare.goes_on("microphone")
        assert bare.goes_on("speaker")
        assert bare("len(sd.query_devices())") == 2


def test_the_microphone_hears_the_speaker_as_an_echo() -> None:
    with VirtualCard() as card, Bare(card.env) as bare:
        bare.begin()
        stop = card.echo(-8, 60)
        recording, echo = card.record(), card.record("microphone")
        bare.play(noise(1))
        stop()
        played, came_back = (np.array(sounding(each.stop()), float) for each in (recording, echo))
        db = 10 * np.log10((came_back**2).sum() / (played**2).sum())
        assert abs(db + 8) < 1
        echo = card.record("microphone")
        bare.play(noise(0.2))
        assert not any(echo.stop())


@pytest.mark.parametrize("rate", [48_000, 44_100])
def test_a_jack_card_runs_at_its_own_rate_only(rate: int, tmp_path: Path) -> None:
    with JackCard(rate=rate) as card, Bare(card.env) as bare:
        assert bare("[end.open(24_000) for end in (microphone, speaker)]") == [[-9997]] * 2
        assert bare(f"speaker.open({rate}, channels=2)") == [-9998]
        recording = card.record()
        bare.begin(rate=rate)
        bare.until("microphone.calls")
        card.speak(file_of(noise(0.5, rate), tmp_path / "said.wav", rate))
        bare.play(noise(0.7, rate))
        assert sounding(recording.stop()) == noise(0.7, rate).tolist()
        heard = np.array(sounding(bare.heard()), float)
        said = noise(0.5, rate).astype(float)
        assert abs(len(heard) - len(said)) < 400  # it has been through a resampler
        assert abs((heard**2).sum() / (said**2).sum() - 1) < 0.2

        card.kill_server()
        assert not bare.goes_on("microphone")
        assert not bare("microphone.ended or microphone.stream.active")
