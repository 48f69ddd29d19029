"""A door: the machine, its sound, and the terminal."""

import json
import os
import platform
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from voicechat import __version__
from voicechat.doctor.examination import Finding
from voicechat.settings import child_environment
from voicechat.transcript import folded, printable

NARROW = 40
"""Columns; with fewer, lines break within words."""
LISTING_SECONDS = 12.0
KITTY_SECONDS = 0.3
_SAYS_IN_SHORT = {"input": "microphone", "output": "speaker"}


def about_machine() -> Iterator[Finding]:
    """Versions, and where the program runs."""
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    versions = f"voicechat {__version__}, Python {platform.python_version()}"
    yield Finding("program", "ok", f"{versions}, {system}")
    if "microsoft" in platform.release().lower():
        if os.environ.get("PULSE_SERVER"):
            yield Finding("WSL", "ok", "sound goes through Windows (WSLg)")
        else:
            what = "there is no way for sound to Windows: PULSE_SERVER is not set"
            yield Finding("WSL", "warn", what, "In PowerShell: wsl --update; it brings WSLg.")
    if os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY"):
        what = "microphone and speaker are those of this machine, not of the one you sit at"
        yield Finding("SSH", "warn", what, "Run voicechat on the machine that you sit at.")


def about_sound(wanted: Mapping[str, str | None]) -> Iterator[Finding]:
    """PortAudio, devices, the rates at which they open, and whether they work.

    PortAudio may wait for a sound system for ever, so it is asked in processes of its own.

    Args:
        wanted: By ``input`` and ``output``: number or part of the name of a device; None: the
            default one.
    """
    from voicechat.audio.probe import working

    devices = _devices()
    if isinstance(devices, Finding):
        yield devices
        return
    number = len(devices)
    yield Finding("sound", "ok", f"PortAudio knows {number} device{'s' if number != 1 else ''}")
    works = working({"input": wanted["input"], "output": wanted["output"]}, 0.1)
    for kind, word in _SAYS_IN_SHORT.items():
        device = _chosen(devices, kind, wanted[kind])
        yield _about_device(device, kind, word, works=kind in works)


def _devices() -> list[dict[str, Any]] | Finding:
    command = [sys.executable, "-P", "-m", "voicechat", "devices", "--json"]
    try:
        told = subprocess.run(
            command,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LISTING_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding(
            "sound",
            "fail",
            f"the sound system did not answer within {LISTING_SECONDS:g} s",
            "Restart it, such as by `systemctl --user restart pipewire` or by logging in again.",
        )
    lines = told.stderr.decode(errors="replace").splitlines()
    place = next((n for n, line in enumerate(lines) if line.startswith("voicechat: ")), None)
    if place is not None:
        message = printable(lines[place].removeprefix("voicechat: "))
        return Finding("sound", "fail", message, printable(" ".join(lines[place + 1 :])))
    try:
        rows = json.loads(told.stdout)
    except ValueError:
        rows = None
    if told.returncode or not isinstance(rows, list):
        message = f"PortAudio ended its process ({told.returncode}) when asked for devices"
        return Finding("sound", "fail", message, "See what it says: voicechat devices")
    return rows


def _chosen(rows: list[dict[str, Any]], kind: str, wanted: str | None) -> dict[str, Any] | None:
    for row in rows:
        is_it = (
            row[f"is_default_{kind}"]
            if wanted is None
            else wanted == str(row["index"]) or folded(wanted) in folded(row["name"])
        )
        if is_it and row[f"{kind}_channels"]:
            return row
    return None


def _about_device(row: dict[str, Any] | None, kind: str, word: str, *, works: bool) -> Finding:
    choose = f"Choose one with --{kind}-device; `voicechat devices` lists them."
    if row is None:
        return Finding(word, "fail", "there is none by that name, or no default one", choose)
    name, rates = printable(row["name"]), row[f"{kind}_rates"]
    if not rates:
        return Finding(word, "fail", f"{name} does not open, at any rate", choose)
    if not works:
        message = f"{name} opens, but neither gives nor takes sound"
        return Finding(word, "fail", message, "Try it: voicechat devices --test")
    if 24_000 in rates:
        return Finding(word, "ok", f"{name}, at 24000 Hz")
    return Finding(word, "ok", f"{name}, at {rates[0]} Hz, which is converted")


def about_echo() -> Iterator[Finding]:
    """What is done against the assistant hearing itself."""
    from voicechat.audio.echo import can_cancel

    if can_cancel():
        yield Finding("echo", "ok", "is cancelled (WebRTC AEC3)")
    else:
        what = "there is no canceller: the microphone is closed while an answer plays"
        yield Finding("echo", "warn", what, "Install it with `pip install pywebrtc-audio`.")


def about_terminal() -> Iterator[Finding]:
    """What the terminal can do; on the main thread, as it may have to be asked.

    It is, whether it tells when a key is let go (the kitty keyboard protocol), and has
    `KITTY_SECONDS` to answer.
    """
    from rich.console import Console

    found = sys.__stdout__ or sys.stdout  # as it was: JSON is written in UTF-8 whatever it is
    encoding = (found.encoding or "").lower().replace("_", "-")
    if encoding not in ("utf-8", "utf8"):
        what = f"letters other than those of {encoding or 'an unknown alphabet'} cannot be shown"
        yield Finding("letters", "warn", what, "Choose UTF-8: export LC_ALL=C.UTF-8")
    if not sys.stdout.isatty():
        yield Finding("terminal", "ok", "none: turns are printed as plain lines")
        return
    width = shutil.get_terminal_size().columns
    if width < NARROW:
        what = f"only {width} columns"
        yield Finding("terminal", "warn", what, f"Make the window {NARROW} columns wide or more.")
    told = [f"{width} columns", f"colours: {Console().color_system or 'none'}"]
    if not sys.stdin.isatty():
        told.append("no keyboard")
    elif sys.platform != "win32":
        told.append(f"key releases {'' if _tells_releases() else 'not '}told")
    yield Finding("terminal", "ok", ", ".join(told))


def _tells_releases() -> bool:
    """The terminal knows the kitty keyboard protocol.

    It is asked for its flags, and then for what every terminal tells of itself, so that one that
    does not know the question need not be waited for.
    """
    if sys.platform == "win32":
        return False
    import termios
    import tty

    keyboard = sys.stdin.fileno()
    if os.tcgetpgrp(keyboard) != os.getpgrp():
        return False  # in the background: to ask would stop us
    as_found = termios.tcgetattr(keyboard)
    answer, deadline = b"", time.monotonic() + KITTY_SECONDS
    try:
        tty.setcbreak(keyboard, termios.TCSANOW)
        os.write(keyboard, b"\x1b[?u\x1b[c")
        while not re.search(rb"\x1b\[\?[\d;]*c", answer):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([keyboard], [], [], left)[0]:
                break
            answer += os.read(keyboard, 1024)
    except (OSError, termios.error):
        return False
    finally:
        termios.tcsetattr(keyboard, termios.TCSAFLUSH, as_found)
    return re.search(rb"\x1b\[\?\d+u", answer) is not None
