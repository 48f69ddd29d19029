"""What the values of options mean, and what cannot be one."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

from voicechat.errors import AuthenticationError, UsageError
from voicechat.transcript import unbroken

SAFE_LATENCY, LONGEST_LATENCY = 0.1, 2.0
"""Seconds of --latency.  PortAudio's own "high" is shorter than what this needs."""
LONGEST_NAME = 80
LONGEST_INSTRUCTIONS = 200_000
"""Characters; servers take some 16,000 tokens."""


def parse_latency(wanted: str) -> Literal["low"] | float:
    """Seconds asked of the sound card, or as few as it thinks possible."""
    if wanted in ("low", "safe"):
        return "low" if wanted == "low" else SAFE_LATENCY
    with suppress(ValueError):
        if 0 < float(wanted) <= LONGEST_LATENCY:
            return float(wanted)
    raise UsageError(
        f"--latency {wanted!r} is neither low, nor safe, nor a number of seconds",
        remedy=f"Give one of the words, or a number up to {LONGEST_LATENCY:g}.",
    )


def session_name(name: str | None) -> str | None:
    """A name under which the session can be found again."""
    if name is None:
        return None
    if not name.strip() or name.strip().lower() == "last" or len(name) > LONGEST_NAME:
        raise UsageError(
            f"{name[:LONGEST_NAME]!r} cannot be the name of a session",
            remedy=f"Give one of 1 to {LONGEST_NAME} letters; `last` is the one last used.",
        )
    return unbroken(name.strip())


def read_instructions(path: Path) -> str:
    """What stands in a file: how the assistant is to behave."""
    try:
        with path.expanduser().open(encoding="utf-8") as file:
            text = file.read(LONGEST_INSTRUCTIONS + 1)
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is not UTF-8 text"
        raise UsageError(
            f"the instructions in {str(path)!r} cannot be read: {reason}",
            remedy="Give --instructions as text, or as @FILE with the name of a text file.",
        ) from error
    if len(text) > LONGEST_INSTRUCTIONS:
        raise UsageError(
            f"the instructions in {str(path)!r} are longer than any server takes",
            remedy=f"Shorten them to {LONGEST_INSTRUCTIONS} characters.",
        )
    return text.strip()


def api_key(name: str, *, is_needed: bool) -> str | None:
    """The key, from the environment only: a command line is there for everyone to see."""
    key = os.environ.get(name, "").strip()
    if not key and is_needed:
        raise AuthenticationError(
            f"there is no API key: {name} is not set",
            remedy=f"Set it with `export {name}=...`, or talk without a key: `voicechat talk "
            "--local`.",
        )
    if not key.isascii() or not key.isprintable():
        raise AuthenticationError(
            f"what {name} holds is not an API key: it has characters that no key has",
            remedy="Copy the key again, without quotes or spaces.",
        )
    return key or None
