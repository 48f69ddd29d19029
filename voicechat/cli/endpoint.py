"""Which server is meant, where it is, and with which key: from flags, session and environment.

An address and the name of a provider in the environment belong together: neither is used without
the other, so that a key never goes to a host that it was not meant for.  Session files name a
provider, but no address.
"""

import os
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import typer

from voicechat.cli.values import api_key
from voicechat.errors import UsageError
from voicechat.realtime.providers import (
    CUSTOM,
    CUSTOM_BETA,
    LOCAL,
    OPENAI,
    PROVIDERS,
    Provider,
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
    api_key: str | None = None
    token_command: tuple[str, ...] = ()
    """What prints a token instead, each time that one is needed."""


def endpoint(context: typer.Context, saved: Opened | None) -> Endpoint:
    """Flag, then saved session, then environment, then default.

    Raises:
        UsageError: Options contradict each other, or there is no address.
        AuthenticationError: There is no key where one is needed.
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
    return _with_key(provider, url, context.params["api_key_env"])


def is_flag(context: typer.Context, name: str) -> bool:
    """The option was given on the command line, not by the environment or a default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def saved_provider(saved: Opened | None) -> str | None:
    """The provider that a session was held with, if its file says."""
    if saved is None:
        return None
    return LOCAL.name if saved.local else saved.provider


def _chosen(context: typer.Context, saved: Opened | None) -> tuple[Provider, str | None]:
    """Who is meant, and at which address, if one is given."""
    params: dict[str, Any] = context.params
    flags = {name for name in ("local", "provider", "url", "dialect") if is_flag(context, name)}
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


def _of_environment(context: typer.Context, flags: set[str]) -> tuple[Provider, str | None]:
    """Whom the environment means, and where."""
    name = None if "provider" in flags else context.params["provider"]
    name = name or os.environ.get("VOICECHAT_PROVIDER") or None
    url = None if "url" in flags else context.params["url"]
    dialect = context.params["dialect"]
    if name is not None:
        return _named(name, dialect), url
    return (OPENAI, None) if url is None else (_meant_by(url, dialect), url)


def _named(name: str, dialect: str | None) -> Provider:
    if name not in PROVIDERS:
        raise UsageError(
            f"there is no provider {printable(name)!r}",
            remedy=f"Name one of {', '.join(PROVIDERS)}.",
        )
    is_beta = name == CUSTOM.name and dialect == "beta"
    return CUSTOM_BETA if is_beta else PROVIDERS[name]


def _meant_by(url: str, dialect: str | None) -> Provider:
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


def _with_key(provider: Provider, url: str, variable: str | None) -> Endpoint:
    """The key or token, from where the user said it is, or else from where it is usually."""
    if provider.token_variable and not variable:
        bearer = replace(provider, key_header="Authorization")
        if command := os.environ.get(VARIABLE, "").strip():
            words = tuple(words_of(command))
            return Endpoint(replace(bearer, key_variable=VARIABLE), url, None, words)
        if os.environ.get(provider.token_variable, "").strip():
            variable, provider = provider.token_variable, bearer
    key = api_key(variable or provider.key_variable, is_needed=provider.needs_key or bool(variable))
    return Endpoint(replace(provider, key_variable=variable or provider.key_variable), url, key)
