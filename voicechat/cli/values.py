"""What the values of options mean, and what cannot be one."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Literal
from unicodedata import category

import typer

from voicechat.errors import AuthenticationError, UsageError
from voicechat.history.forks import LONGEST_NAME
from voicechat.keys import checked, saved_key
from voicechat.sound import check_recording_name
from voicechat.transcript import unbroken

SAFE_LATENCY, LONGEST_LATENCY = 0.1, 2.0
"""Seconds of --latency.  PortAudio's own "high" is shorter than what this needs."""
RANGES = {
    "reconnect_for": (0, 86_400),
    "rotate_after": (0.01, 1440),
    "max_minutes": (0.01, 1440),
    "max_cost": (0.01, 10_000),
    "hang_up_after": (0, 1440),
    "speed": (0.25, 1.5),  # as the API has it
}
"""The least and the most that some options of ``talk`` take, by their names."""
LONGEST_VARIABLE = 20
"""Letters of a variable's name in small letters that is repeated."""
LONGEST_INSTRUCTIONS = 200_000
"""Characters; servers take some 16,000 tokens."""
PUBLIC_PARAMETERS = {"model", "deployment", "api-version", "intent"}
"""Of an address: what may be shown.  Anything else could be a key."""
OTHER_SOUND = (
    *(".mp3", ".ogg", ".oga", ".opus", ".flac", ".m4a", ".mp4", ".aac", ".webm", ".wma"),
    *(".aif", ".aiff", ".au", ".caf"),
)
"""Endings that say that a file is no WAV."""


def is_flag(context: typer.Context, name: str) -> bool:
    """The option was given on the command line, not by the environment or a default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


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


def check_sound_names(output: str | None, record: str | None) -> None:
    """Does what is to be written have a name that says what it is?

    Raises:
        UsageError: It has another one.
    """
    if output is not None and Path(output).suffix.lower() in OTHER_SOUND:
        raise UsageError(
            f"--output writes WAV, and {output!r} is the name of another kind",
            remedy="Name a file such as `answer.wav`, and convert it afterwards.",
        )
    if record is not None and record != "auto":
        check_recording_name(record)


def could_be_a_key(variable: str) -> bool:
    """The name of a variable is so unusual that it may be the key itself, put there by mistake."""
    return not variable.isupper() and len(variable) > LONGEST_VARIABLE


def session_name(name: str | None) -> str | None:
    """A name under which the session can be found again."""
    if name is None:
        return None
    is_seen = any(category(letter)[0] in "LNPS" for letter in name)
    if not is_seen or name.strip().lower() == "last" or len(name) > LONGEST_NAME:
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


def api_key(variable: str | None, *, usual: str, provider: str, is_needed: bool) -> str | None:
    """The key, from the environment or saved: a command line is there for everyone to see.

    Args:
        variable: The environment variable that the user says holds it; None: the usual one.
        usual: That one.
        provider: Whose key it is, if it was saved.
        is_needed: There must be one.

    Raises:
        AuthenticationError: There is none where one is needed, or what there is cannot be one.
        UsageError: No variable has such a name.
    """
    name = variable or usual
    if not name.isidentifier():  # it may be the key itself, which is not repeated then
        raise UsageError(
            "what --api-key-env says is not the name of a variable",
            remedy="Save the key with `voicechat login`, or name the variable that holds it.",
        )
    key = checked(os.environ.get(name, "").strip(), f"what {name} holds")
    if not key and not variable:
        key = saved_key(provider) or ""
    if not key and (is_needed or variable):
        if could_be_a_key(name):
            name = "the variable that --api-key-env names"
        raise AuthenticationError(
            f"there is no API key: {name} is not set",
            remedy=f"Set it, save a key with `voicechat login {provider}`, or talk without one: "
            "`voicechat talk --local`.",
        )
    return key or None
