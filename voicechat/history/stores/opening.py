"""A door: finds the store that a URL means, and words for what goes wrong with it.

What a client library says may hold what was in the URL.  So nobody sees it before the password and
the parameters are out of it, and the URL itself is only ever shown as `shown` has it.
"""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus

from voicechat.errors import SharedStoreError
from voicechat.history.stores import VERSION, Store
from voicechat.transcript import printable

EXTRAS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "redis": "redis",
    "rediss": "redis",
    "mongodb": "mongodb",
    "mongodb+srv": "mongodb",
}
"""What to install for which URLs; further SQL drivers are called as in ``postgresql+psycopg2``."""

CHECK = "Check that the store is running, and its address and port, then try again."
STRANGE = (
    "holds something else under the names that voicechat uses",
    "Name another database in the URL.",
)
REASONS: list[tuple[str, str, str]] = [
    (
        r"certificate|\bssl|\btls",
        "and this machine cannot agree on TLS",
        "Check the TLS parameters in the URL, and the certificates they name.",
    ),
    (
        r"\bpassword\b|wrongpass|noauth|auth\w* (failed|required)|requires authentication"
        r"|\((1045|28P01|28000)\b|role \S+ (does not exist|is not permitted)",
        "refuses this user or password",
        "Check the user in the URL, and the password there or in VOICECHAT_STORE_PASSWORD.",
    ),
    (
        r"database \S+ does not exist|unknown database|db index|invalid db|\((3D000|1049)\b",
        "has no such database",
        "Create the database, or name another one in the URL.",
    ),
    (
        r"permission|noperm|not authorized|denied|not allowed for user|\((42501|1044|1142)\b",
        "does not let this user do that",
        "Let the user create tables and write in that database, or name another one.",
    ),
    (
        r"read.?only|\((25006|1290)\b|unwritable",
        "can only be read",
        "Make it writable for you, or name another one.",
    ),
    (
        r"\bfull\b|no space|out of ?memory|\boom\b|misconf|\((53100|1114|1021)\b|maxmemory",
        "has no room",
        "Make room there, then try again.",
    ),
    (
        r"is locked|too many|max number of clients|\((1205|1040)\b",
        "is busy",
        "Try again in a moment.",
    ),
    (r"not a database|malformed|wrongtype|no such column|\((42703|1054)\b", *STRANGE),
    (r"disk i/o", "cannot be read or written", "Check the disk that it is on."),
    (
        r"unable to open",
        "cannot be opened",
        "Check the path: the directory must exist, and you must be allowed to write in it.",
    ),
    (
        r"refused|could not translate|not known|resolve|unreachable|no route|reset|closed|broken"
        r"|terminat|shutting down|starting up|loading|\blost\b|gone away|no such file|connect",
        "cannot be reached, or went away",
        CHECK,
    ),
]
"""Patterns of what libraries say, and what we say: the message goes on, and the remedy."""
ODD_PARAMETER = re.compile(
    r"invalid (dsn|connection option|integer value|\S+ value)|unrecognized configuration parameter"
    r"|unexpected keyword argument|unknown (option|parameter)",
    re.IGNORECASE,
)
TIMED_OUT = re.compile(r"timed? ?-?out", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a store is, how long it may take to answer, and what to say when it fails."""

    url: str = field(repr=False)
    """With the password."""
    timeout: float
    """Seconds without any sign of life, when connecting and then each time."""

    def failed(self, text: str) -> SharedStoreError:
        """What to raise when a library says this."""
        said = text
        for name in re.split(r"[/:@,]+", shown(self.url)):
            if set(name) & set(".-"):  # a server's, most likely, such as ssl-timeout.example.com
                said = said.replace(name, "…")
        if ODD_PARAMETER.search(said):
            return self._error(
                "cannot be opened with these parameters",
                "Check what follows the ? in the URL: names, values and spelling.",
            )
        if TIMED_OUT.search(said):
            return self._error(f"did not answer within {self.timeout:g} s", CHECK)
        for pattern, message, remedy in REASONS:
            if re.search(pattern, said, re.IGNORECASE):
                return self._error(message, remedy)
        return self._error(f"failed: {self._scrubbed(text)}", CHECK)

    def is_no_url(self) -> SharedStoreError:
        """What to raise when the library does not understand the URL."""
        return self._error(
            "has a URL that is not understood",
            "Check its form: scheme://user@host:port/database?parameter=value, with what is not "
            "plain in a user or password percent-encoded.",
        )

    def is_strange(self) -> SharedStoreError:
        """What to raise when someone else's data is where ours should be."""
        return self._error(*STRANGE)

    def check(self, version: object, store: object) -> str:
        """See whether this is a store that we may touch.

        Args:
            version: What it says of itself.
            store: Its id.

        Returns:
            The id.
        """
        if not isinstance(version, int) or not isinstance(store, str) or not store:
            raise self.is_strange()
        if version > VERSION:
            raise self._error(
                "was made by a newer voicechat",
                "Update this one: pip install --upgrade voicechat.",
            )
        return store

    def _error(self, message: str, remedy: str) -> SharedStoreError:
        return SharedStoreError(f"the shared store {shown(self.url)} {message}", remedy=remedy)

    def _scrubbed(self, text: str) -> str:
        """The first line of what a library said, without anything that was in the URL only."""
        before, _, query = self.url.partition("?")
        userinfo = before.partition("://")[2].rpartition("@")[0]
        parameters = parse_qsl(query)
        passwords = {userinfo.partition(":")[2]}
        passwords |= {value for name, value in parameters if "pass" in name.lower()}
        if 0 < min(map(len, passwords - {""}), default=0) < 4:
            return "what it says cannot be shown"  # every letter of it might be the password
        forms = {self.url, query} | {value for _, value in parameters if len(value) > 2}
        for each in passwords:
            for plain in (each, unquote(each), unquote_plus(each)):
                forms |= {plain, quote(plain), quote(plain, safe=""), quote_plus(plain)}
                forms |= {repr(plain)[1:-1]}
        for form in sorted(forms - {""}, key=len, reverse=True):
            text = text.replace(form, "…")
        return printable(next(iter(text.strip().splitlines()), "no reason given"))[:200]


def open_store(url: str, password: str | None = None, timeout: float = 5.0) -> Store:
    """Open a store, and make it if it is not there yet.

    Args:
        url: ``sqlite:///file``, ``postgresql://``, ``mysql://``, ``mariadb://``, ``redis://``,
            ``rediss://``, ``mongodb://`` or ``mongodb+srv://``.
        password: For the user in the URL, if none is there.
        timeout: Seconds without any sign of life before the store is given up.

    Raises:
        SharedStoreError: It cannot be used, with the reason.
    """
    scheme, separator, _ = url.partition("://")
    address = Address(_with_password(url, password), timeout)
    dialect, _, driver = scheme.lower().partition("+")
    extra = EXTRAS.get(scheme.lower()) or EXTRAS.get(dialect if driver else "")
    if not separator or extra is None:
        raise SharedStoreError(
            f"{shown(url)} is not the URL of a shared store",
            remedy="Begin it with sqlite:///, postgresql://, mysql://, mariadb://, redis://, "
            "rediss:// or mongodb://.",
        )
    try:
        return _open(extra, address)
    except ImportError as error:
        is_ours = scheme.lower() in EXTRAS
        what = f"'voicechat[{extra}]'" if is_ours else (error.name or driver)
        raise SharedStoreError(
            f"the library for {scheme.lower()}:// is not installed",
            remedy=f"Install it: pip install {what}.",
        ) from error


def _open(extra: str, address: Address) -> Store:
    if extra == "redis":
        from voicechat.history.stores.redis import RedisStore

        return RedisStore(address)
    if extra == "mongodb":
        from voicechat.history.stores.mongodb import MongoStore

        return MongoStore(address)
    from voicechat.history.stores.sql import SqlStore

    return SqlStore(address)


def shown(url: str) -> str:
    """An address as it may be shown: with the user, without password and parameters, printable.

    Whatever is wrong with it: rather too little is shown than a letter of the password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,30}", scheme):
        return "what is given"
    if scheme.lower().startswith("sqlite"):
        return printable(f"{scheme}://{rest.partition('?')[0]}")
    userinfo, at, place = rest.rpartition("@")
    user = re.split("[:@]", userinfo)[0]
    if set(user) & set("/?#"):  # then the @ is behind the place, in its path or a parameter
        user, at, place = "", "", rest
    elif set(userinfo) & set("?#"):  # then it may be a parameter's, or the password's
        place = "…"
    place = re.split(r"[?#]", place)[0]
    # A password without an @ behind it stands where a port does.
    place = re.sub(r"(\[[0-9a-fA-F:.]*\])|(?:^:|:(?!\d{1,5}(?:[,/]|$)))[^,]*", r"\1", place)
    return printable(f"{scheme}://{user}{at if user else ''}{place}")


def _with_password(url: str, password: str | None) -> str:
    """The URL with this password, if it has a place for one and none in it."""
    scheme, separator, rest = url.partition("://")
    userinfo, _, place = rest.rpartition("@")
    is_sqlite = scheme.lower().startswith("sqlite")
    if not password or is_sqlite or ":" in userinfo or set(userinfo) & set("/?#"):
        return url
    if not userinfo and scheme.lower().startswith("mongodb"):
        return url  # it knows no password without a user
    return f"{scheme}{separator}{userinfo}:{quote(password, safe='')}@{place}"
