"""Where things live, and what the environment says."""

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path, user_data_path

from voicechat.errors import UsageError
from voicechat.prices import PRICES, Price

PRICES_ARE = "In it, each model is a table such as [{}my-model] with text = 4.0, audio = 32.0, ..."


def data_directory() -> Path:
    """Where voicechat keeps what was said: ``VOICECHAT_HOME``, or the user's data directory.

    (`os.path.expanduser` leaves ``~nobody`` as it is, where `Path.expanduser` raises.)
    """
    home = os.environ.get("VOICECHAT_HOME")
    return Path(os.path.expanduser(home)) if home else user_data_path("voicechat")  # noqa: PTH111


def child_environment() -> dict[str, str]:
    """Ours, with this very voicechat: a file in the working directory must not shadow a module."""
    home = str(Path(__file__).parent.parent)
    rest = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([home, rest] if rest else [home])}


def sessions_directory() -> Path:
    """Where the session files are."""
    return data_directory() / "sessions"


def models_directory() -> Path:
    """Where fetched model weights are kept: they can be fetched again at any time."""
    return user_cache_path("voicechat") / "models"


def prices(listed: Mapping[str, Price] = PRICES) -> Mapping[str, Price]:
    """What tokens cost, by model: a table, and on top of it the file of ``VOICECHAT_PRICES``.

    Raises:
        UsageError: That file cannot be read, or holds something else.
    """
    name = os.environ.get("VOICECHAT_PRICES")
    if not name:
        return listed
    try:
        tables = tomllib.loads(Path(os.path.expanduser(name)).read_text("utf-8"))  # noqa: PTH111
    except (OSError, ValueError, RecursionError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is not TOML"
        raise UsageError(
            f"the prices in {name!r} cannot be read: {reason.lower()}", remedy=PRICES_ARE.format("")
        ) from error
    return priced(listed, tables, lambda *keys: repr(name))


def priced(
    listed: Mapping[str, Price],
    tables: Mapping[str, Any],
    place: Callable[..., str],
    below: str = "",
) -> Mapping[str, Price]:
    """The same prices, with those of a file on top.

    Args:
        listed: What is known already.
        tables: What the file says, by model.
        place: Where the value below some keys stands, in words.
        below: What goes before the name of a table, ``prices.`` in a file of settings.

    Raises:
        UsageError: The file holds something else.
    """
    known = {field.name for field in fields(Price)}
    changed = dict(listed)
    for model, table in tables.items():
        values = table if isinstance(table, dict) else {model: table}
        for kind, price in values.items():
            is_number = isinstance(price, int | float) and not isinstance(price, bool)
            where = place(model, kind) if values is table else place(model)
            if kind not in known or not is_number or not 0 <= price < 1e9:
                raise UsageError(
                    f"{kind} = {price!r} in {where} is no price",
                    remedy=f"{PRICES_ARE.format(below)}; the kinds are {', '.join(sorted(known))}.",
                )
        changed[model] = replace(changed.get(model, Price()), **values)
    return changed
