"""``voicechat login`` and ``logout``: the API key, saved where only its owner gets at it."""

import getpass
import os
import sys
from difflib import get_close_matches
from typing import Annotated

import typer

from voicechat.errors import AuthenticationError, UsageError
from voicechat.keys import (
    LONGEST,
    checked,
    forget_key,
    keys_file,
    put_in_file,
    put_in_keyring,
)
from voicechat.realtime.providers import LOCAL, PROVIDERS
from voicechat.transcript import printable

NAMES = [name for name in PROVIDERS if name != LOCAL.name]

Provider = Annotated[
    str,
    typer.Argument(
        metavar="[PROVIDER]",
        help=f"Whose key: {', '.join(NAMES)} (a server of yours).",
        autocompletion=lambda: NAMES,
    ),
]


def login(context: typer.Context, provider: Provider = "openai") -> None:
    """Save an API key for all later conversations.

    It goes into the system keyring or, without one, into a file that only you may read. It is asked
    for, or read from standard input if that is no terminal. The environment goes before it.
    """
    provider = _known(provider, context)
    key = checked(_given(provider), "what was given")
    if not key:
        raise AuthenticationError(
            "no key was given", remedy="Paste it when asked, or pipe it in: voicechat login < FILE"
        )
    if put_in_keyring(provider, key):
        _say(f"The key for {provider} is in the system keyring.")
    else:
        where = printable(str(keys_file()))
        _say(f"No system keyring can be used here. The key goes into a file of yours: {where}")
        put_in_file(provider, key)
        _say(f"The key for {provider} is saved; only you may read it.")
    if os.environ.get(variable := PROVIDERS[provider].key_variable):
        _say(f"{variable} is set, too, and goes before it.")


def logout(context: typer.Context, provider: Provider = "openai") -> None:
    """Remove a saved API key."""
    provider = _known(provider, context)
    if forget_key(provider):
        _say(f"The key for {provider} is removed.")
    else:
        _say(f"No key for {provider} was saved.")


def _known(provider: str, context: typer.Context) -> str:
    """A provider's name; anything else is not repeated, since it may be a key."""
    if context.args:
        raise UsageError(
            "only the name of a provider is wanted here",
            remedy="Never give the key itself: it is asked for, or read from standard input.",
        )
    if provider in NAMES:
        return provider
    near = get_close_matches(provider.lower(), NAMES, n=1)
    raise UsageError(
        "that is not the name of a provider",
        remedy=f"Did you mean {near[0]}?"
        if near
        else f"Give one of {', '.join(NAMES)}; the key is asked for, or read from standard input.",
    )


def _given(provider: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.read(LONGEST + 2).strip()
    try:
        return getpass.getpass(f"API key for {provider}: ", stream=sys.stderr).strip()
    except EOFError:
        return ""


def _say(text: str) -> None:
    typer.echo(text, err=True)
