"""The room's door to PortAudio: which devices there are, how they open, and what it means if not.

What is called here may wait for the sound system for ever: never call it on the event loop.
"""

import atexit
import logging
import os
import platform
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from voicechat.errors import DeviceError
from voicechat.pcm import FRAME_MS, SAMPLE_RATE

Kind = Literal["input", "output"]
Latency = Literal["low"] | float
"""Seconds asked of PortAudio, or as few as it thinks possible."""

WORDS = {"input": "microphone", "output": "speaker"}
OTHER_RATES = (48_000, 44_100, 32_000, 16_000, 96_000, 8_000)
"""Tried in this order where a device refuses 24 kHz, after the rate that it calls its own."""
STALL = 1.0
"""Seconds without a callback after which a stream is dead, whatever PortAudio says."""
WARMING_UP = 3.0
"""Seconds until the first one: a Bluetooth headset takes two to become a microphone."""
PROOF = 0.25
"""Seconds of blocks that show that a device runs.  Its buffer is filled in one go."""
WITHOUT = "or do without a sound card: `--input FILE` or `--text`"
INSTALL = {
    "apt-get": "sudo apt install libportaudio2",
    "dnf": "sudo dnf install portaudio",
    "pacman": "sudo pacman -S portaudio",
    "brew": "brew install portaudio",
}
INVALID_CHANNELS, INVALID_RATE, UNAVAILABLE = -9998, -9997, -9985  # portaudio.h
DENIED, BUSY = -13, -16  # errno, as ALSA reports it

logger = logging.getLogger("voicechat")


@dataclass(frozen=True, slots=True)
class Device:
    """A microphone, a speaker, or both."""

    index: int
    name: str
    host: str
    """The sound system that offers it: one device may be there several times."""
    inputs: int
    outputs: int
    """How many channels."""
    rate: int
    """Which the device calls its own, in Hz."""
    is_default_input: bool
    is_default_output: bool

    def has(self, kind: Kind) -> bool:
        """It is of this kind."""
        return bool(self.channels(kind))

    def channels(self, kind: Kind) -> int:
        """How many, of this kind."""
        return self.inputs if kind == "input" else self.outputs

    def is_default(self, kind: Kind) -> bool:
        """It is what the system uses for this, unless told otherwise."""
        return self.is_default_input if kind == "input" else self.is_default_output


def load() -> Any:
    """PortAudio, which is not there on every machine: nothing else may import it.

    Raises:
        DeviceError: It is missing.
    """
    try:
        import sounddevice
    except OSError as error:
        raise DeviceError(
            "PortAudio, the library for sound cards, is not installed",
            remedy=f"Install it with {_install_command()}, {WITHOUT}.",
        ) from error
    return sounddevice


def refresh() -> None:
    """Look again which devices there are.  Every stream must be closed: it would not survive.

    Only while a sound system is there: without one, PortAudio may end the whole process.
    """
    load()._terminate()  # noqa: SLF001
    load()._initialize()  # noqa: SLF001


def forget() -> None:
    """Leave PortAudio as it is when the program ends: it hangs, and tidying up would hang too."""
    atexit.unregister(load()._exit_handler)  # noqa: SLF001


def devices() -> list[Device]:
    """All that PortAudio knows."""
    sounddevice = load()
    hosts = [host["name"] for host in sounddevice.query_hostapis()]
    defaults = {kind: _default_index(sounddevice, kind) for kind in WORDS}
    return [
        Device(
            index=index,
            name=str(device["name"]),
            host=hosts[device["hostapi"]],
            inputs=device["max_input_channels"],
            outputs=device["max_output_channels"],
            rate=round(device["default_samplerate"]),
            is_default_input=index == defaults["input"],
            is_default_output=index == defaults["output"],
        )
        for index, device in enumerate(sounddevice.query_devices())
    ]


def _default_index(sounddevice: Any, kind: str) -> int | None:
    try:
        index: int = sounddevice.query_devices(kind=kind)["index"]
    except (sounddevice.PortAudioError, ValueError):
        return None
    return index


def find(kind: Kind, wanted: str | None) -> Device:
    """The device with this number, name or part of a name; None: the default one.

    Raises:
        DeviceError: None fits, or several do.
    """
    word = WORDS[kind]
    there = [device for device in devices() if device.has(kind)]
    if not there:
        if _is_denied():
            raise DeviceError(f"you may not use the {word}", remedy=_remedy_for_denied())
        raise DeviceError(f"this system has no {word}", remedy=_remedy_for_none())
    if wanted is None:
        fitting = [device for device in there if device.is_default(kind)] or there[:1]
    elif wanted.isdecimal():
        fitting = [device for device in there if device.index == int(wanted)]
    else:
        fitting = _named(kind, wanted.casefold(), there)
    if not fitting:
        raise DeviceError(
            f"no {word} fits {wanted!r}; there are {_listed(there)}",
            remedy="Give one of these numbers, or part of a name; `voicechat devices` shows more.",
        )
    if len(fitting) > 1:
        raise DeviceError(
            f"{len(fitting)} {word}s fit {wanted!r}: {_listed(fitting)}",
            remedy="Give one of these numbers, or more of the name.",
        )
    return fitting[0]


def _named(kind: Kind, wanted: str, there: list[Device]) -> list[Device]:
    exact = [device for device in there if device.name.casefold() == wanted]
    fitting = exact or [d for d in there if wanted in f"{d.name}, {d.host}".casefold()]
    if len({device.name for device in fitting}) == 1:  # by several sound systems
        host = next((device.host for device in there if device.is_default(kind)), "")
        fitting = [device for device in fitting if device.host == host] or fitting
    return fitting


def _listed(there: list[Device]) -> str:
    return ", ".join(f"{device.index} {device.name!r}" for device in there)


class Stream:
    """One device, opened: 16 bits, blocks of 20 ms, at the first rate that it takes.

    Open both sides before you start one: while a stream starts, PortAudio may take a device that is
    gone for one that opened, and never come back from starting it.

    Args:
        wanted: Number, name or part of a name of a device.
        on_block: Called on PortAudio's thread with the stream and a block of its samples, shape
            (n, channels): those that were captured, or zeros to be filled with what is to be
            heard.  It must not wait, print or raise.

    Raises:
        DeviceError: There is no such device, or it does not open.
    """

    def __init__(
        self,
        kind: Kind,
        wanted: str | None,
        latency: Latency,
        on_block: Callable[["Stream", NDArray[np.int16]], object],
    ) -> None:
        self.kind = kind
        self.device = find(kind, wanted)
        self.first: float | None = None
        self.last: float | None = None
        """When the first and the last block came, in monotonic seconds."""
        self.slips = 0
        """How often the computer was too slow for the card."""
        self._on_block = on_block
        self._is_over = False
        self._began = 0.0
        self._stream = self._open(latency)

    def start(self) -> None:
        """Let blocks come.

        Raises:
            DeviceError: The device does not work after all.
        """
        self._began = time.monotonic()
        try:
            self._stream.start()
        except load().PortAudioError as error:
            raise _explain(self.kind, self.device, error) from error

    def _open(self, latency: Latency) -> Any:
        sounddevice = load()
        form = sounddevice.RawInputStream if self.kind == "input" else sounddevice.RawOutputStream
        most = min(2, self.device.channels(self.kind))
        ways = [
            (rate, channels)
            for channels in dict.fromkeys((1, most, self.device.channels(self.kind)))
            for rate in dict.fromkeys((SAMPLE_RATE, self.device.rate, *OTHER_RATES))
        ]
        while True:
            self.rate, self.channels = ways.pop(0)
            try:
                stream = form(
                    device=self.device.index,
                    samplerate=self.rate,
                    channels=self.channels,
                    dtype="int16",
                    blocksize=self.rate * FRAME_MS // 1000,
                    latency=latency,
                    callback=self._block,
                    finished_callback=self._finish,
                )
            except sounddevice.PortAudioError as error:
                code = _code(error)
                if code == INVALID_CHANNELS:
                    ways = [(rate, count) for rate, count in ways if count != self.channels]
                if code not in (INVALID_CHANNELS, INVALID_RATE) or not ways:
                    raise _explain(self.kind, self.device, error) from error
            else:
                self.latency = float(stream.latency)
                return stream

    def _block(self, data: Any, frames: int, _: Any, status: Any) -> None:
        self.last = time.monotonic()
        if self.first is None:
            self.first = self.last
        if status:
            self.slips += 1
        self._on_block(self, np.frombuffer(data, dtype="<i2").reshape(frames, self.channels))

    def _finish(self) -> None:
        self._is_over = True

    @property
    def is_running(self) -> bool:
        """Blocks come one after the other: the first few, a device that stalls takes, too."""
        return self.first is not None and self.last is not None and self.last - self.first > PROOF

    def is_dead(self, now: float) -> bool:
        """No sound goes through it any more.  PortAudio knows in some cases, a clock in all."""
        quiet = now - self._began > WARMING_UP if self.last is None else now - self.last > STALL
        return self._is_over or quiet or not self._stream.active

    def close(self) -> None:
        """Never ``stop``: it waits for the last sample, on a stalled device for ever."""
        self._stream.abort(ignore_errors=True)
        self._stream.close(ignore_errors=True)


OnBlock = Callable[[Stream, NDArray[np.int16]], object]
Opened = list[Stream | DeviceError]


def open_streams(
    wanted: Mapping[Kind, str | None],
    latency: Latency,
    on_block: Mapping[Kind, OnBlock],
    *,
    or_default: bool = False,
) -> Opened:
    """Open and start these devices, or those of the system if they are not there any more."""
    opened: Opened = []
    for kind, name in wanted.items():
        result = _open_one(kind, name, latency, on_block[kind])
        if or_default and name is not None and isinstance(result, DeviceError):
            result = _open_one(kind, None, latency, on_block[kind])
        opened.append(result)
    return [_started(stream) if isinstance(stream, Stream) else stream for stream in opened]


def _open_one(
    kind: Kind, wanted: str | None, latency: Latency, on_block: OnBlock
) -> Stream | DeviceError:
    try:
        return Stream(kind, wanted, latency, on_block)
    except DeviceError as error:
        return error
    except load().PortAudioError as error:
        return DeviceError(f"the sound system fails: {error}", remedy=_remedy_for_none())


def _started(stream: Stream) -> Stream | DeviceError:
    try:
        stream.start()
    except DeviceError as error:
        stream.close()
        return error
    return stream


def close_streams(opened: Iterable[Stream | DeviceError]) -> None:
    """Close those that are open."""
    for stream in opened:
        if isinstance(stream, Stream):
            stream.close()


def rates_of(kind: Kind, device: Device) -> list[int]:
    """The rates (Hz) at which a device would open, mono or with the channels it has."""
    sounddevice = load()
    check = {
        "input": sounddevice.check_input_settings,
        "output": sounddevice.check_output_settings,
    }[kind]
    good = []
    for rate in sorted({SAMPLE_RATE, device.rate, *OTHER_RATES}):
        for channels in dict.fromkeys((1, min(2, device.channels(kind)))):
            with suppress(sounddevice.PortAudioError):
                check(device=device.index, channels=channels, dtype="int16", samplerate=rate)
                good.append(rate)
                break
    return good


# What errors mean -------------------------------------------------------------------------------


def _code(error: Exception) -> int | None:
    code = error.args[1] if len(error.args) > 1 else None
    return code if isinstance(code, int) else None


def _explain(kind: Kind, device: Device, error: Exception) -> DeviceError:
    """What PortAudio's error means for the person in front of the machine."""
    what = f"the {WORDS[kind]} {device.name!r}"
    other = f"Choose another with `--{kind}-device` (`voicechat devices` lists them)"
    host = error.args[2] if len(error.args) > 2 else None
    cause = host[1] if isinstance(host, tuple) and len(host) > 1 else None
    if _code(error) == UNAVAILABLE or cause == BUSY:
        return DeviceError(
            f"{what} is in use by another program",
            remedy=f"Close the program that uses it, {WITHOUT}.",
        )
    if cause == DENIED:
        return DeviceError(f"{what} may not be used by you", remedy=_remedy_for_denied())
    if _code(error) == INVALID_RATE:
        return DeviceError(
            f"{what} works at none of the usual sample rates", remedy=f"{other}, {WITHOUT}."
        )
    return DeviceError(f"{what} does not open: {error}", remedy=f"{other}, {WITHOUT}.")


def _install_command() -> str:
    """How to get PortAudio on this system, or on all of them when it is not a known one."""
    commands = INSTALL.items()
    here = [command for program, command in commands if shutil.which(program)]
    return f"`{here[0]}`" if here else " / ".join(f"`{command}`" for _, command in commands)


def _is_denied() -> bool:
    """On Linux: there are sound cards, but not for this user; ALSA lists none then."""
    cards = list(Path("/dev/snd").glob("controlC*"))
    return bool(cards) and not any(os.access(card, os.R_OK | os.W_OK) for card in cards)


def _remedy_for_none() -> str:
    if "microsoft" in platform.release().lower():
        command = "`wsl --update` in Windows, then `sudo apt install libasound2-plugins` here"
        return f"Windows lends WSL its sound after {command}, {WITHOUT}."
    if os.environ.get("SSH_CONNECTION"):
        return f"This is a remote shell: run voicechat on the machine before you, {WITHOUT}."
    return f"Plug one in, and choose it in the system's sound settings, {WITHOUT}."


def _remedy_for_denied() -> str:
    if sys.platform == "linux":
        return f"Run `sudo usermod -aG audio $USER` and log in again, {WITHOUT}."
    return f"Allow it in the system's privacy settings for this terminal, {WITHOUT}."


# What it prints ---------------------------------------------------------------------------------


@contextmanager
def hushed() -> Iterator[None]:
    """Keep from the terminal what PortAudio, ALSA and JACK print, whenever and on any thread.

    They are C and know no logging: their standard error becomes ours, as lines in the log, and
    Python's goes on to the terminal by another descriptor.
    """
    try:
        terminal = os.dup(2)
    except OSError:  # standard error is closed: there is nothing to protect
        yield
        return
    as_found = sys.stderr
    with suppress(OSError, ValueError, AttributeError):
        if as_found.fileno() == 2:
            as_found.flush()
            sys.stderr = open(  # noqa: SIM115  # lives until the end of this block
                terminal, "w", 1, as_found.encoding, as_found.errors, closefd=False
            )
    ours, theirs = os.pipe()
    os.dup2(theirs, 2)
    os.close(theirs)
    threading.Thread(target=_log_lines, args=[ours], name="noise", daemon=True).start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        sys.stderr = as_found
        os.close(terminal)


def _log_lines(descriptor: int) -> None:
    with open(descriptor, encoding="utf-8", errors="replace") as pipe:
        for line in pipe:
            logger.debug("sound system: %s", line.rstrip())
