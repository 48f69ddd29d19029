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

from voicechat.cli.profile import NAMED, SERVER
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
    """Flag, then saved session, then environment, settings file and default; without a key yet.

    Raises:
        UsageError: Options contradict each other, or there is no address.
    """
    provider, url = _chosen(context, saved)
    if provider is LOCAL:
        return Endpoint(provider)
    if url is None and provider.url_variable:
        url = os.environ.get(provider.url_variable, "").strip() or None
    url = _complete(url or provider.url or "", provider)
    if not url:
        where = f" or set {provider.url_variable}" if provider.url_variable else ""
        raise UsageError(
            f"there is no address of {provider.title}: it is not saved with a session",
            remedy=f"Give it with --url{where}; or name another --provider.",
        )
    is_for_another = _is_in_file(context, "api_key_env") and _named_by_flags(context)
    return Endpoint(provider, url, None if is_for_another else context.params["api_key_env"])


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


def _chosen(context: typer.Context, saved: Opened | None) -> tuple[Provider, str | None]:
    """Who is meant, and at which address, if one is given."""
    params: dict[str, Any] = context.params
    flags = _named_by_flags(context)
    if not flags and is_flag(context, "profile"):  # which is as good, if that profile names one
        flags = set(context.meta.get(NAMED, ()))
    if is_flag(context, "dialect"):
        flags.add("dialect")
    url = params["url"] if "url" in flags else None
    dialect = params["dialect"]
    if "local" in flags or ("provider" in flags and params["provider"] == LOCAL.name):
        if url is not None:
            raise UsageError("--local and --url name two servers", remedy="Leave out one of them.")
        if {"local", "provider"} <= flags and params["provider"] != LOCAL.name:
            raise UsageError("--local and --provider name two servers", remedy="Leave out one.")
        return LOCAL, None
    theirs, their_url = _of_environment(context, flags)
    if "provider" in flags:
        chosen = _named(params["provider"], dialect)
        if url is not None and (other := provider_of(_host(url))) not in (CUSTOM, chosen):
            raise UsageError(
                f"--url is an address of {other.title}, and --provider names {chosen.title}",
                remedy="Leave out one of the two.",
            )
    elif url is not None:
        chosen = _meant_by(url, dialect)
    elif (name := saved_provider(saved)) in PROVIDERS:
        chosen = _named(str(name), dialect)
    elif saved is None and params["local"]:
        return LOCAL, None
    else:
        chosen, url = theirs, their_url
    if "dialect" in flags and chosen.name != CUSTOM.name:
        raise UsageError(
            f"--dialect is for --provider custom: what {chosen.title} speaks is known",
            remedy="Leave it out, or add `--provider custom` and --url.",
        )
    if url is None and chosen.name == theirs.name:
        url = their_url
    return chosen, url


def _named_by_flags(context: typer.Context) -> set[str]:
    return {name for name in SERVER if is_flag(context, name)}


def _is_in_file(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "DEFAULT_MAP"


def _of_environment(context: typer.Context, flags: set[str]) -> tuple[Provider, str | None]:
    """Whom the environment means, and where."""
    in_file = (context.default_map or {}).get("provider")
    name = None if "provider" in flags else context.params["provider"]
    name = name or os.environ.get("VOICECHAT_PROVIDER") or in_file
    url = None if "url" in flags else context.params["url"]
    dialect = context.params["dialect"]
    if name is not None:
        return _named(name, dialect), url
    return (OPENAI, None) if url is None else (_meant_by(url, dialect), url)


def _named(name: str, dialect: Dialect | None) -> Provider:
    found = provider_named(name, dialect)
    if found is None:
        raise UsageError(
            f"there is no provider {printable(name)!r}",
            remedy=f"Name one of {', '.join(PROVIDERS)}.",
        )
    return found


def _meant_by(url: str, dialect: Dialect | None) -> Provider:
    found = provider_of(_host(url))
    return _named(found.name, dialect)


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
