"""Which server is meant, where it is, and with which key.

Flags say so, or a profile that a flag names; then the session, the environment, the settings file.

An address and the name of a provider in the environment, or in the settings file, belong together:
neither is used without the other, so that a key never goes to a host that it was not meant for.
Session files name a provider, but no address.
"""

import os
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import typer

from voicechat.cli.profile import NAMED
from voicechat.cli.values import api_key, is_flag
from voicechat.errors import UsageError
from voicechat.realtime.providers import (
    CUSTOM,
    LOCAL,
    OPENAI,
    PROVIDERS,
    Dialect,
    Provider,
    provider_named,
    provider_of,
)
from voicechat.token_command import VARIABLE, words_of
from voicechat.transcript import Opened, printable


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server, and how to get in."""

    provider: Provider
    url: str = ""
    """Of the built-in server, none yet."""
    variable: str | None = None
    """Environment variable that holds the key, if the user says which."""
    api_key: str | None = None
    token_command: tuple[str, ...] = ()
    """What prints a token instead, each time that one is needed."""


def find_server(context: typer.Context, saved: Opened | None) -> Endpoint:
    """The server that is meant; without a key yet.

    Raises:
        UsageError: Options contradict each other, there is no address, or the session was held with
            a provider that is not known here.
    """
    flags = _Word(**{name: _by_flag(context, name) for name in _NAMES})
    rest = _Word(**{name: _otherwise(context, name) for name in _NAMES})
    by_profile = is_flag(context, "profile") and bool(context.meta.get(NAMED))
    if by_profile:  # and what goes with the server stands there, too
        file = context.default_map or {}
        rest = replace(rest, dialect=file.get("dialect"), api_key_env=file.get("api_key_env"))
    elif saved is not None:
        rest = replace(rest, local=None)  # which is saved
    if rest.local:
        rest = _Word(local=True)
    word = flags if flags.names_one else rest
    if word is rest and not by_profile and (name := saved_provider(saved)) is not None:
        word = _Word(provider=_known(name))
    chosen, theirs = word.meant(), rest.meant()
    is_theirs = chosen.name == theirs.name and word.url in (None, rest.url)
    if not rest.names_one:  # what it says is for no server of its own
        is_theirs = chosen.name in (OPENAI.name, CUSTOM.name)
    beside = rest if is_theirs else _Word()
    if flags.dialect is not None and chosen.name != CUSTOM.name:
        raise UsageError(
            f"--dialect is for --provider custom: what {chosen.title} speaks is known",
            remedy="Leave it out, or add `--provider custom` and --url.",
        )
    if chosen is LOCAL:
        return Endpoint(chosen)
    provider = _named(chosen.name, flags.dialect or word.dialect or beside.dialect)
    url = word.url or beside.url
    if url is None and provider.url_variable:
        url = os.environ.get(provider.url_variable, "").strip() or None
    url = _complete(url or provider.url or "", provider)
    if not url:
        where = f" or set {provider.url_variable}" if provider.url_variable else ""
        raise UsageError(
            f"there is no address of {provider.title}: it is not saved with a session",
            remedy=f"Give it with --url{where}; or name another --provider.",
        )
    return Endpoint(provider, url, flags.api_key_env or word.api_key_env or beside.api_key_env)


def with_key(server: Endpoint) -> Endpoint:
    """The server with a key or token, from the variable that the user named, or the usual places.

    Raises:
        AuthenticationError: There is no key where one is needed.
        UsageError: No variable can have that name, or there is no such command.
    """
    provider, variable = server.provider, server.variable
    if provider is LOCAL:
        return server
    if provider.token_variable and not variable:
        bearer = replace(provider, key_header="Authorization")
        if command := os.environ.get(VARIABLE, "").strip():
            words = tuple(words_of(command))
            provider = replace(bearer, key_variable=VARIABLE)
            return replace(server, provider=provider, token_command=words)
        if os.environ.get(provider.token_variable, "").strip():
            variable, provider = provider.token_variable, bearer
    name = variable or provider.key_variable
    is_needed = provider.needs_key
    key = api_key(
        variable, usual=provider.key_variable, provider=provider.name, is_needed=is_needed
    )
    return replace(server, provider=replace(provider, key_variable=name), api_key=key)


def saved_provider(saved: Opened | None) -> str | None:
    """The provider that a session was held with, if its file says."""
    if saved is None:
        return None
    return LOCAL.name if saved.local else saved.provider


@dataclass(frozen=True, slots=True, kw_only=True)
class _Word:
    """What one source says of the server."""

    local: bool | None = None
    provider: str | None = None
    url: str | None = None
    dialect: Dialect | None = None
    api_key_env: str | None = None

    @property
    def names_one(self) -> bool:
        """It says which server."""
        return bool(self.local or self.provider or self.url)

    def meant(self) -> Provider:
        """Whose server it means.

        Raises:
            UsageError: It names two.
        """
        if self.local or self.provider == LOCAL.name:
            if self.url is not None:
                raise UsageError("--local and --url name two servers", remedy="Leave out one.")
            if self.provider not in (None, LOCAL.name):
                raise UsageError("--local and --provider name two servers", remedy="Leave out one.")
            return LOCAL
        owner = provider_of(_host(self.url)) if self.url is not None else None
        if self.provider is None:
            return owner or OPENAI
        chosen = _named(self.provider, self.dialect)
        if owner is not None and owner.name not in (CUSTOM.name, chosen.name):
            raise UsageError(
                f"--url is an address of {owner.title}, and --provider names {chosen.title}",
                remedy="Leave out one of the two.",
            )
        return chosen


_NAMES = ("local", "provider", "url", "dialect", "api_key_env")


def _by_flag(context: typer.Context, name: str) -> Any:
    return context.params[name] if is_flag(context, name) else None


def _otherwise(context: typer.Context, name: str) -> Any:
    """What the environment says, or else the settings file, whatever the flags say."""
    if not is_flag(context, name):
        return context.params[name] or None
    said = os.environ.get(f"VOICECHAT_{name.upper()}") or (context.default_map or {}).get(name)
    return None if name == "local" else said


def _known(name: str) -> str:
    if name in PROVIDERS:
        return name
    raise UsageError(
        f"the session was held with {printable(name)!r}, a provider that is not known here",
        remedy="Say with whom to go on: --provider NAME, or --url URL.",
    )


def _named(name: str, dialect: Dialect | None) -> Provider:
    found = provider_named(name, dialect)
    if found is None:
        raise UsageError(
            f"there is no provider {printable(name)!r}",
            remedy=f"Name one of {', '.join(PROVIDERS)}.",
        )
    return found


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # which is told as soon as it is to be used
        return ""


def _complete(url: str, provider: Provider) -> str:
    """A host alone, as the provider's own pages show it, becomes the address of its API."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    begins = provider.path.startswith(parts.path.rstrip("/"))
    if not provider.path or not parts.hostname or not begins:
        return url
    return urlunsplit((parts.scheme, parts.netloc, provider.path, parts.query, ""))
