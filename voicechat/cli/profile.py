"""What the settings file says about the options of ``talk``, and what it should not say."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import typer

from voicechat import settings
from voicechat.cli.values import RANGES, check_sound_names, parse_latency, session_name
from voicechat.config import MEND, PROFILES, Config, Table, read_config
from voicechat.errors import UsageError
from voicechat.history.forks import LONGEST_NAME
from voicechat.prices import PRICES as LISTED
from voicechat.prices import Price
from voicechat.settings import priced

VARIABLE = "VOICECHAT_PROFILE"
STORE, PRICES = "store", "prices"
"""Settings that are no options of ``talk``."""
NUMBERS_TOO = {"input_device", "output_device", "latency"}
"""Texts that may be numbers."""
SERVER, WITH_IT = {"local", "provider", "url"}, {"dialect", "api_key_env"}
"""Whoever names a server and stands nearer keeps out what stands farther away about another one, so
that no key goes astray."""
READ_FURTHER: Mapping[str, tuple[Callable[[str], object], str]] = {
    "latency": (parse_latency, '"low", "safe" or a number of seconds'),
    "record": (partial(check_sound_names, None), '"auto" or a name that ends in .flac or .wav'),
    "output": (partial(check_sound_names, record=None), "the name of a WAV file"),
    "name": (session_name, f"a name of 1 to {LONGEST_NAME} letters other than last"),
}
"""Texts that ``talk`` looks into: what does so there, and what it takes."""
NAMED = "voicechat.named"
"""In a context's ``meta``: what of `SERVER` the profile says."""
EARLIER = {"resume", "continue"}
"""Whoever names a session does, too."""
KEYS = re.compile(r"(\w*_)?(api_?key|key|token|secret|password)")
"""Names of what must not stand in a file that people show each other."""
A_KEY = re.compile(r"(sk|xai|ek)-[\w-]{8,}")
A_VARIABLE = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class Setting:
    """A value that stands in the settings file."""

    value: Any
    keys: tuple[str, ...]
    """Where: the key, with its tables before it."""

    @property
    def profile(self) -> str | None:
        """The profile it belongs to, if any."""
        return self.keys[1] if len(self.keys) > 1 else None


def chosen(name: str | None) -> str | None:
    """The profile that applies: the one of the flag, or else of the environment."""
    return name if name is not None else os.environ.get(VARIABLE) or None


@cache
def options() -> dict[str, Any]:
    """The options of ``talk`` that may stand in the file, by their long names with ``_``."""
    from voicechat.cli.talk import talk  # which imports this

    app = typer.Typer(add_completion=False)
    app.command()(talk)
    found = {}
    for option in typer.main.get_command(app).params:
        long = next(each for each in option.opts if each.startswith("--"))
        found[long[2:].replace("-", "_")] = option
    for other in ("help", "profile"):
        found.pop(other, None)
    return found


def in_file(config: Config, name: str | None) -> dict[str, Setting]:
    """What the file says with this profile, or with none; everything in it is checked.

    Raises:
        UsageError: Something in the file is not a setting, or not what the setting takes, or there
            is no such profile.
    """
    if name is not None and name not in config.profiles:
        raise UsageError(
            f"there is no profile {name!r} in {str(config.path)!r}",
            remedy=f"{_nearest(name, config.profiles)}Add it with: voicechat config edit",
        )
    if not (config.top or config.profiles):  # all that `talk` takes need not be known
        return {}
    known = options()
    top = _checked(config, (), config.top, known)
    profiles = {
        each: _checked(config, (PROFILES, each), table, known)
        for each, table in config.profiles.items()
    }
    nearer = profiles[name] if name is not None else {}
    for names, others in ((SERVER, WITH_IT), (EARLIER, set[str]())):
        if any(nearer[key].value for key in names & nearer.keys()):
            top = {key: each for key, each in top.items() if key not in names | others}
    found = top | nearer
    local = os.environ.get("VOICECHAT_LOCAL", "")
    is_local = local.lower() in ("1", "true", "t", "yes", "y", "on")  # as the command line takes it
    if local:
        found.pop("local", None)
    if is_local or os.environ.get("VOICECHAT_URL") or os.environ.get("VOICECHAT_PROVIDER"):
        found = {key: each for key, each in found.items() if key not in SERVER | WITH_IT}
    return found


def apply(context: typer.Context, name: str | None) -> str | None:
    """Let the settings file speak for the options that neither flag nor environment gives.

    A callback of the eager option ``--profile``, called before the others are looked at.
    """
    if context.resilient_parsing:  # for completion
        return name
    config = read_config()
    found = in_file(config, chosen(name))
    known = options() if found else {}
    context.meta[NAMED] = {
        key
        for key, setting in found.items()
        if key in SERVER and setting.value and setting.profile is not None
    }
    context.default_map = {
        known[key].name: _meant(config.path.parent, known[key], setting.value)
        for key, setting in found.items()
        if key in known
    }
    return name


def apply_if_right(context: typer.Context, name: str | None) -> str | None:
    """As `apply`, but what is wrong with the file is left in ``context.obj``."""
    try:
        return apply(context, name)
    except UsageError as error:
        context.obj = error
        return name


def store(name: str | None = None) -> str | None:
    """The URL of the shared store, from the environment or the file; with or without a profile."""
    if url := os.environ.get("VOICECHAT_STORE"):
        return url
    config = read_config()
    setting = in_file(config, chosen(name)).get(STORE)
    return _beside(config.path.parent, setting.value) if setting is not None else None


def prices(name: str | None = None) -> Mapping[str, Price]:
    """What tokens cost: the environment's file, over profile, over file, over our own table."""
    config, name = read_config(), chosen(name)
    in_file(config, name)
    costs = LISTED
    for table in (config.top, config.profiles[name] if name is not None else {}):
        if PRICES in table:
            costs = priced(costs, table[PRICES], config.place)
    return settings.prices(costs)


def _checked(
    config: Config, tables: tuple[str, ...], table: Table, known: Mapping[str, Any]
) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for key, value in table.items():
        keys, name = (*tables, key), key.replace("-", "_")
        if (name not in known and KEYS.fullmatch(name.lower())) or holds_a_key(name, value):
            raise UsageError(
                f"an API key does not belong in {config.place(*keys)}",
                remedy="Take it out there, and save it with: voicechat login",
            )
        if name in found:
            raise UsageError(
                f"{key!r} in {config.place(*keys)} is set for the second time",
                remedy=f"Take it out, there or above. {MEND}",
            )
        if name == PRICES:
            if not isinstance(value, dict):
                raise _mistaken(config, keys, "a table, such as [prices.my-model]")
            priced({}, value, partial(config.place, *keys), f"{PRICES}.")
        elif name == STORE:
            if not isinstance(value, str):
                raise _mistaken(config, keys, 'a URL, such as "sqlite:///FILE"')
        elif name in known:
            _check(config, keys, known[name], value)
        else:
            names = [each.replace("_", "-") for each in (*known, STORE, PRICES, PROFILES)]
            raise UsageError(
                f"{key!r} in {config.place(*keys)} is no setting",
                remedy=_nearest(key.replace("_", "-"), names)
                + "See all with: voicechat talk --help",
            )
        found[name] = Setting(value, keys)
    return found


def holds_a_key(name: str, value: object) -> bool:
    """It looks like an API key, or stands where the name of a variable with one should."""
    texts = [each for each in (value if isinstance(value, list) else [value]) if type(each) is str]
    is_variable = name != "api_key_env" or all(map(A_VARIABLE.fullmatch, texts))
    return not is_variable or any(map(A_KEY.match, texts))


def _check(config: Config, keys: tuple[str, ...], option: Any, value: object) -> None:
    a_number = isinstance(value, int | float) and not isinstance(value, bool)
    if option.is_flag:
        is_right, wanted = isinstance(value, bool), "true or false"
    elif option.multiple:
        many = value if isinstance(value, list) else [value]
        is_right, wanted = all(isinstance(each, str) for each in many), "a text, or a list of them"
    elif is_number(option):
        is_whole = option.type.name.startswith("int")
        is_right = a_number and (isinstance(value, int) or not is_whole)
        wanted = "a whole number" if is_whole else "a number"
    else:
        is_right = isinstance(value, str) or (a_number and option.name in NUMBERS_TOO)
        wanted = 'a text in quotes, "like this"'
    if a_number and option.name in RANGES:
        least, most = RANGES[option.name]
        is_right = is_right and least <= cast(float, value) <= most
        wanted = f"a number from {least:g} to {most:g}"
    if not is_right:
        raise _mistaken(config, keys, wanted)
    if option.name in READ_FURTHER:
        read, wanted = READ_FURTHER[option.name]
        try:
            read(str(value))
        except UsageError as error:
            raise _mistaken(config, keys, wanted) from error
    if not option.multiple:
        try:
            option.type.convert(value, option, None)
        except typer.BadParameter as error:
            raise UsageError(
                f"{keys[-1]!r} in {config.place(*keys)} cannot be that: "
                + error.message.removesuffix("."),
                remedy=MEND,
            ) from error


def is_number(option: Any) -> bool:
    """The option takes a number."""
    return bool(option.type.name.startswith(("int", "float")))


def _mistaken(config: Config, keys: tuple[str, ...], wanted: str) -> UsageError:
    return UsageError(f"{keys[-1]!r} in {config.place(*keys)} must be {wanted}", remedy=MEND)


def _beside(directory: Path, url: str) -> str:
    """With its file beside the settings file, if it is SQLite's and says no more of its place."""
    scheme, separator, rest = url.partition(":///")
    if not separator or not scheme.lower().startswith("sqlite") or rest.startswith("file:"):
        return url
    file, mark, parameters = rest.partition("?")
    return f"{scheme}:///{_named(directory, file)}{mark}{parameters}" if file else url


def _named(directory: Path, file: str) -> Path:
    """What a name in the settings file means, which is in this directory."""
    return directory / os.path.expanduser(file)  # noqa: PTH111  # Path's raises on ``~nobody``


def _nearest(name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}? " if near else ""


def _meant(directory: Path, option: Any, value: Any) -> Any:
    """As the option wants it; a file with instructions is beside the settings file."""
    if option.name == "instructions" and value.startswith("@"):
        return f"@{_named(directory, value[1:])}"
    if option.multiple and isinstance(value, str):
        return [value]
    return str(value) if option.name in NUMBERS_TOO else value
