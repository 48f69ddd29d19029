"""The room's door to the sound card, and the only threads in the house that we did not start."""

import asyncio
import atexit
import ctypes
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from threading import Thread
from typing import Any

import numpy as np

from voicechat.audio.playback import PlaybackBuffer
from voicechat.errors import DeviceError, VoicechatError
from voicechat.pcm import FRAME_SAMPLES, SAMPLE_RATE

LATENCY = 0.1
"""Seconds asked of PortAudio.  Its "low" drops sound when other programs take the processor."""
PATIENCE = 0.5
"""Seconds that closing the streams may take: some sound systems never return from it."""
WORDS = {"input": "microphone", "output": "speaker"}
WITHOUT = "or do without a sound card: `--input FILE` or `--text`"
INSTALL = {
    "apt-get": "sudo apt install libportaudio2",
    "dnf": "sudo dnf install portaudio",
    "pacman": "sudo pacman -S portaudio",
    "brew": "brew install portaudio",
}

logger = logging.getLogger("voicechat")


class SoundCard:
    """Microphone and speaker of this computer, 24 kHz mono each.

    They are two streams, because one duplex stream across two devices inserts blocks of silence.

    Raises:
        DeviceError: PortAudio is not installed.
    """

    def __init__(self) -> None:
        with _without_noise():
            _portaudio()
        self._playback = PlaybackBuffer()
        self.play = self._playback.push
        self.end = self._playback.end
        self.stop = self._playback.stop

    @contextmanager
    def open(
        self,
        on_frame: Callable[[bytes], object],
        on_finished: Callable[[str, int], object],
        on_failure: Callable[[VoicechatError], object],
    ) -> Iterator[None]:
        """Hear and be heard until the block is left, which never takes longer than `PATIENCE`.

        Args:
            on_frame: Called on the event loop with every 20 ms that the microphone heard.
            on_finished: Called on the event loop with an item that was heard to its end, and how
                many ms it had.  One that finished just before `stop` was called may be told of
                here just after it, and is then not among those that `stop` returned.

        Raises:
            DeviceError: PortAudio or a device is missing, or a device cannot be used.
        """
        loop = asyncio.get_running_loop()

        # These run on PortAudio's threads: no waiting, no printing, no raising.
        def post(callback: Callable[..., object], *arguments: object) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody is listening any more
                loop.call_soon_threadsafe(callback, *arguments)

        def capture(data: Any, frames: int, time: Any, status: Any) -> None:
            post(on_frame, bytes(data))

        def render(data: Any, frames: int, time: Any, status: Any) -> None:
            for item_id, heard_ms in self._playback.pull(np.frombuffer(data, dtype="<i2")):
                post(on_finished, item_id, heard_ms)

        def lose(kind: str) -> None:
            if not is_leaving:
                word = WORDS[kind]
                remedy = f"Plug it in, or choose another {word}; `voicechat resume` goes on."
                post(on_failure, DeviceError(f"the {word} is gone", remedy=remedy))

        is_leaving = False
        streams: list[Any] = []
        try:
            with _without_noise():
                sounddevice = _portaudio()
                _hush_alsa()
                microphone = _stream(sounddevice, "input", capture, partial(lose, "input"))
                streams.append(microphone)
                speaker = _stream(sounddevice, "output", render, partial(lose, "output"))
                streams.append(speaker)
                self._playback.latency = round(speaker.latency * SAMPLE_RATE)
                _start(sounddevice, "input", microphone)
                _start(sounddevice, "output", speaker)
            yield
        finally:
            is_leaving = True
            if streams:
                _leave(streams)


def _portaudio() -> Any:
    """The library, which is not there on every machine: nothing else may import it.

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


def _install_command() -> str:
    """How to get PortAudio on this system, or on all of them when it is not a known one."""
    commands = INSTALL.items()
    here = [command for program, command in commands if shutil.which(program)]
    return f"`{here[0]}`" if here else " / ".join(f"`{command}`" for _, command in commands)


def _stream(
    sounddevice: Any, kind: str, callback: Callable[..., None], on_end: Callable[[], None]
) -> Any:
    """Open the default device of this kind, ``input`` or ``output``."""
    try:
        opened = {"input": sounddevice.RawInputStream, "output": sounddevice.RawOutputStream}[kind]
        return opened(
            samplerate=SAMPLE_RATE,
            channels=1,
            dtype="int16",
            blocksize=FRAME_SAMPLES,
            latency=LATENCY,
            callback=callback,
            finished_callback=on_end,
        )
    except sounddevice.PortAudioError as error:
        raise _explain(sounddevice, kind, error) from error


def _start(sounddevice: Any, kind: str, stream: Any) -> None:
    try:
        stream.start()
    except sounddevice.PortAudioError as error:
        raise _explain(sounddevice, kind, error) from error


def _explain(sounddevice: Any, kind: str, error: Exception) -> DeviceError:
    """What PortAudio's error means for the person in front of the machine."""
    word = WORDS[kind]
    try:
        name = repr(sounddevice.query_devices(kind=kind)["name"])
    except sounddevice.PortAudioError:
        return DeviceError(
            f"there is no {word}: the system has no default {kind} device",
            remedy=f"Plug one in and choose it in the system's sound settings, {WITHOUT}.",
        )
    match error.args[1] if len(error.args) > 1 else None:
        case -9997:  # paInvalidSampleRate
            return DeviceError(
                f"the {word} {name} does not work at {SAMPLE_RATE} Hz",
                remedy=f"Choose another {word} in the system's sound settings, {WITHOUT}.",
            )
        case -9985:  # paDeviceUnavailable
            return DeviceError(
                f"the {word} {name} is in use by another program",
                remedy=f"Close the program that uses it, {WITHOUT}.",
            )
        case _:
            return DeviceError(
                f"the {word} {name} does not open: {error}",
                remedy=f"Choose another {word} in the system's sound settings, {WITHOUT}.",
            )


def _leave(streams: list[Any]) -> None:
    """Close the streams, but do not wait for a sound system that has died.

    Never ``stop``: it waits for the last sample, and on a stalled device that is for ever.
    """

    def close() -> None:
        for stream in streams:
            stream.abort(ignore_errors=True)
            stream.close(ignore_errors=True)

    with _without_noise():
        closing = Thread(target=close, name="closing the sound card", daemon=True)
        closing.start()
        closing.join(PATIENCE)
    if closing.is_alive():
        logger.debug("the sound card did not close within %s s", PATIENCE)
        # What sounddevice does when the interpreter exits would hang as well.
        atexit.unregister(_portaudio()._exit_handler)  # noqa: SLF001


@contextmanager
def _without_noise() -> Iterator[None]:
    """Keep from the terminal what PortAudio and ALSA print, which is C and knows no logging."""
    terminal = None
    with suppress(OSError):
        terminal = os.dup(2)
    if terminal is None:  # standard error is closed: there is nothing to protect
        yield
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            file.seek(0)
            for line in file.read().decode(errors="replace").splitlines():
                logger.debug("sound system: %s", line)


def _log_alsa(file: bytes, line: int, function: bytes, error: int, message: bytes) -> None:
    # What the message says is in variable arguments, which Python cannot read.
    said = message.decode(errors="replace").strip()
    logger.debug("sound system: ALSA %s:%s %s", file.decode(errors="replace"), line, said)


_ALSA_HANDLER = ctypes.CFUNCTYPE(
    None, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p
)(_log_alsa)


def _hush_alsa() -> None:
    """While streams run, too, ALSA prints what it has to say (an underrun) to the terminal."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # no ALSA here: nothing to hush
            ctypes.CDLL("libasound.so.2").snd_lib_error_set_handler(_ALSA_HANDLER)
