"""What a shell can complete: sessions, devices, profiles.

It never says what went wrong, never syncs, and never takes long: better no words than a prompt that
hangs.
"""

import os
import re
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Literal

from voicechat.config import read_config
from voicechat.errors import VoicechatError
from voicechat.history.sessions import list_sessions
from voicechat.settings import sessions_directory
from voicechat.transcript import printable

VARIABLE = "_VOICECHAT_COMPLETE"
"""Set by the shell that asks; it ends with the name of the shell."""
PATIENCE = 3.0
"""Seconds until there is nothing to complete."""
DEVICES_PATIENCE = 1.0
ODD = re.compile(r"[^\w .,:()+@/-]")
"""What one shell or another would take for more than a letter (zsh evaluates what it is told)."""
LONGEST_HELP = 40

Words = list[tuple[str, str]]
"""What can stand there, and what it is."""


def stay_quiet() -> None:
    """For a process that completes: it tells nobody of errors, and ends in time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    _end_after(PATIENCE)


def sessions(incomplete: str) -> Words:
    """Saved sessions: ids, and those names that can be typed; the last used first."""
    with suppress(VoicechatError):
        found, _ = list_sessions(sessions_directory())
        words = [(session.id, session.name or session.first_words) for session in found]
        if incomplete:  # else each would be there twice
            words += [(session.name, session.id) for session in found if session.name]
        return _offered(words)
    return []


def profiles(incomplete: str) -> Words:
    """Profiles of the settings file."""
    with suppress(VoicechatError):
        return _offered((name, "") for name in read_config().profiles)
    return []


def devices(kind: Literal["input", "output"]) -> Callable[[str], Words]:
    """Microphones, or speakers: their names, and the numbers of those that share one."""

    def of_this_kind(incomplete: str) -> Words:
        _end_after(DEVICES_PATIENCE)  # PortAudio may wait for the sound system for ever
        from voicechat.audio.portaudio import devices as all_devices

        with suppress(VoicechatError):
            there = [device for device in all_devices() if device.has(kind)]
            names = [printable(device.name) for device in there]
            return _offered(
                (name, device.host) if names.count(name) == 1 else (str(device.index), name)
                for device, name in zip(there, names, strict=True)
            )
        return []

    return of_this_kind


def _offered(words: Iterable[tuple[str, str]]) -> Words:
    return [
        (_quoted(word), ODD.sub(" ", what)[:LONGEST_HELP].strip())
        for word, what in words
        if not ODD.search(word) and not word.startswith("-")
    ]


def _quoted(word: str) -> str:
    """As one word; zsh and fish see to that themselves."""
    shell = os.environ.get(VARIABLE, "").rpartition("_")[2]
    mark = {"bash": r"\\", "powershell": "`", "pwsh": "`"}.get(shell)
    return re.sub(r"([ ()@,])", rf"{mark}\1", word) if mark else word


def _end_after(seconds: float) -> None:
    guard = threading.Timer(seconds, os._exit, (0,))
    guard.daemon = True
    guard.start()
