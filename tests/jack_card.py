"""A sound card that knows one sampling rate only: a private JACK server without any hardware.

PortAudio, and with it a program, sees nothing else: one device "system", mono to play, which runs
at the rate of the card and refuses all others.  (PulseAudio takes any rate.)  Needs the Debian
packages libportaudio2 jackd2 jack-tools.
"""

import itertools
import os
import shutil
import subprocess
import tempfile
import time
import wave
from pathlib import Path
from typing import Self

from tests.virtual_card import Recording, die_with_the_test

NUMBERS = itertools.count()
# A device that does not open.  PortAudio aborts if ALSA has no device at all to offer.
ALSA = "pcm.nothing { type nothing }\n"
RAW_16_BIT = "0x40002"
MICROPHONE, MONITOR = "system:capture_1", "system:monitor_%d"
PERIOD = 1024  # Shorter ones lose sound when the machine is busy.


class JackCard:
    """Programs started with `env` find it as the only card.

    with JackCard(rate=44_100) as card:
        program = subprocess.Popen([...], env=card.env)
        recording = card.record()        # at the rate of the card; the program may come later
        card.speak(path)                 # of any rate, once the program has opened the microphone
        pcm = recording.stop()

    The recorder hears what is played through a port that looks like a second microphone: the
    device has two channels in, of which the first is the microphone.

    `kill_server` is worse than with other cards.  Streams fall silent without a word, to abort or
    close them never returns, and PortAudio's own end, at the exit of the program included, hangs
    or, if no stream was left, aborts the process.
    """

    def __init__(self, *, rate: int = 48_000) -> None:
        self.rate = rate
        self._name = f"card-{os.getpid()}-{next(NUMBERS)}"
        self._directory = Path(tempfile.mkdtemp(prefix="jack-card-"))
        (self._directory / "asound.conf").write_text(ALSA)
        hidden = {"DISPLAY", "PULSE_SERVER"}
        self.env = {name: value for name, value in os.environ.items() if name not in hidden} | {
            "JACK_DEFAULT_SERVER": self._name,
            "JACK_NO_AUDIO_RESERVATION": "1",
            "ALSA_CONFIG_PATH": f"{self._directory}/asound.conf",
        }
        self._recordings: list[Recording] = []
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        log = self._directory / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *("jackd", "--no-realtime", "--sync", "--name", self._name, "-d", "dummy"),
                    *("--rate", str(self.rate), "--period", str(PERIOD)),
                    *("--capture", "1", "--playback", "1", "--monitor"),
                ],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_the_test,
            )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and process.poll() is None:
            if MICROPHONE in self._ports():
                return process
            time.sleep(0.025)
        process.kill()
        process.wait()
        raise RuntimeError("jackd did not start: " + log.read_text())

    def _ports(self, *options: str) -> list[str]:
        command = ["jack_lsp", *options]
        return subprocess.run(command, env=self.env, capture_output=True, text=True).stdout.split()

    def speak(self, wav: Path) -> None:
        """Say a sound file into the microphone that a program has open; return when it is said."""
        _, *listening = self._ports("-c", MICROPHONE)
        assert listening, "no program listens"
        said = self._directory / wav.name
        with wave.open(str(wav)) as file, wave.open(str(said), "wb") as longer:
            longer.setparams(file.getparams())
            longer.writeframes(file.readframes(file.getnframes()))
            # The player leaves with the last tenth of a second unsaid.
            longer.writeframes(bytes(file.getframerate() // 5 * file.getsampwidth()))
        env = self.env | {"JACK_PLAY_CONNECT_TO": listening[0]}
        subprocess.run(["jack-play", str(said)], env=env, capture_output=True, check=True)

    def record(self) -> Recording:
        """Begin to listen to what is played."""
        form = ["-n", "1", "-f", RAW_16_BIT]
        recording = Recording(["jack-record", *form, "-p", MONITOR, "/dev/stdout"], self.env)
        self._recordings.append(recording)
        return recording

    def kill_server(self) -> None:
        """Take the card away, and with it every program's PortAudio."""
        self._process.terminate()
        self._process.wait()

    def close(self) -> None:
        self.kill_server()
        for recording in self._recordings:  # also of a test that failed before it did so
            recording.stop()
        for left in Path("/dev/shm").glob(f"jack*{self._name}*"):  # by those who never return
            left.unlink(missing_ok=True)
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
