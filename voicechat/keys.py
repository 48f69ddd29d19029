"""A door: API keys that were saved, in the system keyring or in a file for their owner alone.

The keyring is asked by a process of its own: it may hang, wait for a password that nobody types, or
crash, and it takes a while to load.  It is only asked for a key that was put there.
"""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from voicechat.errors import AuthenticationError, StoreError
from voicechat.settings import child_environment, data_directory

SERVICE = "voicechat"
"""What the keyring files the keys under."""
PATIENCE = 10.0
"""Seconds for the keyring, which may ask its user for a password."""
LONGEST = 10_000
"""Characters; a key of OpenAI has 200."""
AGAIN = "Save the key once more with: voicechat login"


def saved_key(provider: str) -> str | None:
    """The key that was saved for a provider; None if there is none.

    Raises:
        AuthenticationError: It is in a keyring that does not give it.
        StoreError: The file of the keys cannot be read.
    """
    noted = _noted()
    if provider not in noted:
        return None
    key = noted[provider]
    if key is None:
        key = _ask("get", provider)
        if not key:
            raise AuthenticationError(
                f"the system keyring does not give the key for {provider}",
                remedy=f"Unlock it, or give the key anew: voicechat login {provider}",
            )
    return checked(key.strip(), "the saved key")


def checked(key: str, what: str) -> str:
    """The same key, if it can be one.

    Args:
        key: It; not shown to anyone.
        what: In words, which.

    Raises:
        AuthenticationError: It has characters that no key has, or is endless.
    """
    is_odd = not key.isascii() or not key.isprintable() or bool(set(key) & set(" \"'"))
    if is_odd or len(key) > LONGEST:
        raise AuthenticationError(
            f"{what} is not an API key: it has characters that no key has",
            remedy="Copy the key again, without quotes or spaces.",
        )
    return key


def put_in_keyring(provider: str, key: str) -> bool:
    """Save a key in the system keyring; False if there is none that keeps it."""
    if _ask("set", provider, key) is None or _ask("get", provider) != key:
        return False
    _note(_noted() | {provider: None})
    return True


def put_in_file(provider: str, key: str) -> None:
    """Save a key in `keys_file`.

    Raises:
        StoreError: The file cannot be written.
    """
    _note(_noted() | {provider: key})


def keys_file() -> Path:
    """Where the keys are that no keyring keeps, and what is noted of the others."""
    return data_directory() / "keys.json"


def forget_key(provider: str) -> bool:
    """Remove a saved key, wherever it is; False if there was none.

    Raises:
        AuthenticationError: It was in a keyring that did not remove it.  It is not used any more.
        StoreError: The file cannot be written.
    """
    noted = _noted()
    is_removed = _ask("del", provider) is not None
    if provider not in noted:
        return is_removed
    _note({name: key for name, key in noted.items() if name != provider})
    if noted[provider] is None and not is_removed:
        raise AuthenticationError(
            f"the system keyring did not remove the key for {provider}",
            remedy="It is not used any more; see whether it is still there, in the keyring itself.",
        )
    return True


def _ask(action: str, provider: str, key: str = "") -> str | None:
    """Let the keyring get, set or delete a key; None if it does not.

    What it writes to standard error is for nobody: it may be anything.
    """
    command = [sys.executable, "-P", "-m", "keyring", action, SERVICE, provider]
    try:
        child = subprocess.run(
            command,
            env=child_environment(),
            input=key,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return child.stdout.strip() if child.returncode == 0 else None


def _noted() -> dict[str, str | None]:
    """The keys in the file by their provider; None for those that are in the keyring."""
    try:
        noted = json.loads(keys_file().read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        reason = "it is damaged"
        remedy = "Remove that file, then save the key again with: voicechat login"
        if isinstance(error, OSError):  # what is in it may be good
            reason = (error.strerror or str(error)).lower()
            remedy = "Make it readable for you, or set VOICECHAT_HOME to another directory."
        raise StoreError(
            f"the saved keys in {str(keys_file())!r} cannot be read: {reason}", remedy=remedy
        ) from error
    entries = noted.items() if isinstance(noted, dict) else ()
    return {name: key for name, key in entries if key is None or isinstance(key, str)}


def _note(noted: dict[str, str | None]) -> None:
    path = keys_file()
    new = path.with_suffix(f".{os.getpid()}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not noted:
            path.unlink(missing_ok=True)
            return
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(noted, file)
        new.replace(path)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise StoreError(
            f"the key cannot be saved in {str(path)!r}: {(error.strerror or '').lower()}",
            remedy="Set VOICECHAT_HOME to a directory of yours, or put the key in the environment.",
        ) from error
