"""A door: the settings file, ``config.toml``, its profiles, and where in it something stands.

What its settings mean is not known here: `voicechat.cli.profile` compares them with the options.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from platformdirs import user_config_path

from voicechat.errors import UsageError

LARGEST = 1_000_000
"""Bytes of the file; more cannot be settings."""
PROFILES = "profiles"
MEND = "Mend the file with: voicechat config edit"

Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Config:
    """What stands in the settings file; nothing if there is none."""

    path: Path
    text: str = field(default="", repr=False)
    top: Table = field(default_factory=dict, repr=False)
    """What applies whatever the profile."""
    profiles: Mapping[str, Table] = field(default_factory=dict, repr=False)

    def place(self, *keys: str) -> str:
        """Where a key stands: the file, and the line unless it cannot be told."""
        line = self.line(*keys)
        return f"{str(self.path)!r}{f' (line {line})' if line else ''}"

    def line(self, *keys: str) -> int | None:
        """The line of a key of a table of a table, from 1: `tomllib` does not say.

        It is the first with the key in it after which the file so far has the key as well.
        """
        lines = self.text.split("\n")
        for number, line in enumerate(lines, 1):
            if keys[-1] in line:
                ends = (_beginning(lines, end) for end in range(number, len(lines) + 1))
                if _has(next((each for each in ends if each is not None), None), keys):
                    return number
        return None


def config_path() -> Path:
    """Where the settings file is, or would be: ``VOICECHAT_CONFIG``, or the user's own."""
    if named := os.environ.get("VOICECHAT_CONFIG"):
        return Path(os.path.expanduser(named))  # noqa: PTH111  # Path's raises on ``~nobody``
    return user_config_path("voicechat") / "config.toml"


def read_config() -> Config:
    """The settings file, if there is one.

    Raises:
        UsageError: It cannot be read, it is not TOML, or the one that is named is not there.
    """
    path = config_path()
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
        tables = tomllib.loads(text) if len(data) <= LARGEST else None
    except (OSError, ValueError, RecursionError) as error:
        is_none = isinstance(error, FileNotFoundError | NotADirectoryError)
        if is_none and not os.environ.get("VOICECHAT_CONFIG"):
            return Config(path)
        raise _unreadable(path, error) from error
    if tables is None:
        raise UsageError(f"{str(path)!r} is too large for settings", remedy=MEND)
    profiles = tables.pop(PROFILES, {})
    config = Config(path, text, tables, profiles)
    for name, table in profiles.items() if isinstance(profiles, dict) else [("", profiles)]:
        if not isinstance(table, dict):
            keys = (PROFILES, name) if name else (PROFILES,)
            raise UsageError(
                f"{'.'.join(keys)!r} in {config.place(*keys)} is no profile",
                remedy="A profile is a table with settings in it, such as [profiles.work].",
            )
    return config


def _unreadable(path: Path, error: Exception) -> UsageError:
    remedy = MEND
    if isinstance(error, OSError):
        reason = (error.strerror or "it cannot be opened").lower()
        remedy = "Set VOICECHAT_CONFIG to another file, or unset it."
        if isinstance(error, FileNotFoundError) and path.is_symlink():
            reason = "it is a link to nothing"
        elif isinstance(error, FileNotFoundError):
            remedy = "Make it with `voicechat config init`, or unset VOICECHAT_CONFIG."
    elif isinstance(error, tomllib.TOMLDecodeError):
        reason = str(error)[:1].lower() + str(error)[1:]
    elif isinstance(error, UnicodeDecodeError):
        reason = "it is not UTF-8 text"
    else:
        reason = "it is not TOML"
    return UsageError(f"the settings in {str(path)!r} cannot be read: {reason}", remedy=remedy)


def _beginning(lines: list[str], end: int) -> Table | None:
    """So many lines as TOML; None if they stop in mid-value."""
    try:
        return tomllib.loads("\n".join(lines[:end]) + "\n")
    except ValueError:
        return None


def _has(table: Table | None, keys: tuple[str, ...]) -> bool:
    inner: Any = table
    for key in keys:
        if not isinstance(inner, dict) or key not in inner:
            return False
        inner = inner[key]
    return True
