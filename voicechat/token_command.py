"""A command of the user's that says a token: the cloud's own program knows how to get one."""

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from voicechat.errors import TokenError, UsageError
from voicechat.transcript import printable

if TYPE_CHECKING:
    from asyncio.subprocess import Process

VARIABLE = "VOICECHAT_TOKEN_COMMAND"
TIMEOUT = 30.0
"""Seconds; those that ask a server over the network take a few."""
LONGEST_REASON = 200
MOST_BYTES = 1 << 16
LONGEST = 10_000
"""Letters of a token; servers take headers of some 8,000."""


def words_of(command: str) -> list[str]:
    """Program and arguments; no shell ever sees them.

    Raises:
        UsageError: There is no such program, or quotes do not match.
    """
    try:
        words = shlex.split(command, posix=os.name != "nt")
    except ValueError as error:
        raise UsageError(
            f"{VARIABLE} is no command: {error}", remedy="Close every quote, or escape it."
        ) from error
    program = shutil.which(words[0]) if words else None
    if program is None:
        named = printable(words[0]) if words else ""
        raise UsageError(
            f"{VARIABLE} is no command: there is no program {named!r}",
            remedy="Give a program and its arguments, such as `az account get-access-token ...`.",
        )
    return [program, *words[1:]]


async def ask_for_token(words: Sequence[str]) -> str:
    """Run the command and take what it prints; it is asked for each connection, as tokens expire.

    Raises:
        TokenError: It failed, took too long, or printed no token.
    """
    import asyncio  # here, because other commands can do without both

    from voicechat.realtime.masking import cleaning

    # Not to be cancelled half-way: asyncio would end the command and not what that has started, and
    # wait for its pipes, which are then held open.
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # so that what it starts can be ended with it
        )
    )
    try:
        process = await asyncio.shield(starting)
        async with asyncio.timeout(TIMEOUT):
            out, err = await process.communicate()
    except TimeoutError as error:
        raise _token_error(f"did not end in {TIMEOUT:.0f} s") from error
    except OSError as error:
        raise _token_error(f"cannot be run: {error.strerror}") from error
    finally:  # also where nobody waits for it any more
        with suppress(OSError):
            await _end(await starting)
    if process.returncode:
        said = [line for line in err.decode(errors="replace").splitlines() if line.strip()]
        reason = said[-1] if said else ""
        reason = cleaning(out.decode(errors="replace").split())(reason)  # it may be the token
        reason = f": {printable(reason)[:LONGEST_REASON]}" if reason else ""
        raise _token_error(f"failed with {process.returncode}{reason}")
    token = out[:MOST_BYTES].decode(errors="replace").strip()
    is_odd = not token.isascii() or not token.isprintable() or " " in token
    if not token or is_odd or len(token) > LONGEST:
        raise _token_error("printed something else than a token")  # which stays unsaid: a secret
    return token


async def _end(process: "Process") -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _token_error(reason: str) -> TokenError:
    return TokenError(
        f"there is no token: the command in {VARIABLE} {reason}",
        remedy="Run it by hand: it must print a token and nothing else on standard output.",
    )
