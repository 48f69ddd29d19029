"""The way to a server: proxies, certificates, and what is wrong with either.

Proxies are taken from the environment, and where the system has settings for them, from there.
"""

import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from websockets.exceptions import InvalidProxy, InvalidProxyStatus, ProxyError

from voicechat.errors import ConnectError, UsageError, VoicechatError
from voicechat.transcript import printable

CHECK_PROXY = (
    "Check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, or list the server's host in NO_PROXY to do "
    "without a proxy."
)


@dataclass(frozen=True, slots=True)
class Network:
    """What the user chose about the way to the server."""

    ca: Path | None = None
    """Certificates of authorities to be trusted beside those of the system (PEM)."""
    insecure: bool = False
    """Any certificate will do; on this machine only."""

    def check(self, url: str) -> None:
        """See that it can be used for this server.

        Raises:
            UsageError: It cannot.
        """
        if self.insecure and not is_loopback(url):
            raise UsageError(
                f"--insecure is for servers on this machine, and {shown(url)} is not",
                remedy="Trust the certificate of the server's authority instead: --ca FILE.",
            )
        if self.ca is not None:
            self._trusting()

    def context(self, url: str) -> ssl.SSLContext | None:
        """How certificates are checked there; None where there are none."""
        if urlsplit(url).scheme not in ("wss", "https"):
            return None
        context = self._trusting()
        if self.insecure and is_loopback(url):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _trusting(self) -> ssl.SSLContext:
        context = ssl.create_default_context()  # which heeds SSL_CERT_FILE
        if self.ca is not None:
            try:
                context.load_verify_locations(self.ca)
            except (ssl.SSLError, ValueError) as error:
                raise _unusable(self.ca, "it holds no certificate") from error
            except OSError as error:
                raise _unusable(self.ca, (error.strerror or str(error)).lower()) from error
        return context


def _unusable(ca: Path, reason: str) -> UsageError:
    return UsageError(
        f"the certificates in {str(ca)!r} cannot be used: {reason}",
        remedy="Give --ca as the name of a PEM file, which begins with "
        "-----BEGIN CERTIFICATE-----.",
    )


def is_loopback(url: str) -> bool:
    """The server is on this machine: no proxy stands between."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"  # names that end so are for some name server to answer


def shown(url: str) -> str:
    """An address as it may be shown: no password, no query, printable."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return printable(urlunsplit((parts.scheme, place, parts.path, "", "")))


def proxy_for(url: str) -> str | None:
    """The address of the proxy through which this server is reached, if it is through one.

    ``HTTPS_PROXY`` comes first, as it is the more exact; then ``ALL_PROXY``.
    """
    parts = urlsplit(url)
    is_secure = parts.scheme == "wss"
    port = parts.port or (443 if is_secure else 80)
    if is_loopback(url) or proxy_bypass(f"{parts.hostname}:{port}"):
        return None
    known = getproxies()
    kinds = ("wss", "https") if is_secure else ("ws", "https", "http")
    for kind in (*kinds, "socks", "all"):
        if proxy := known.get(kind):
            return _with_scheme(proxy, is_socks=kind == "socks")
    return None


def _with_scheme(proxy: str, *, is_socks: bool) -> str:
    """``socks`` may be said for SOCKS 5, and nothing for HTTP; macOS says ``http`` for SOCKS."""
    scheme, separator, rest = proxy.partition("://")
    if not separator:
        scheme, rest = "http", proxy
    scheme = scheme.lower()
    if scheme == "socks" or (is_socks and scheme == "http"):
        scheme = "socks5h"
    return f"{scheme}://{rest}"


def explain_proxy(error: Exception, proxy: str) -> VoicechatError | None:
    """What is wrong with the proxy, if it has not let us through and that is why.

    What is said never holds its password.
    """
    where = f"the proxy {shown_proxy(proxy)}"
    is_secure = proxy.startswith("https:")
    match error:
        case ssl.SSLCertVerificationError():
            return ConnectError(
                f"the certificate of {where} cannot be trusted: {error.verify_message}",
                remedy="Trust the authority that made it, in a PEM file (--ca FILE), or have the "
                "proxy's certificate renewed.",
            )
        case ssl.SSLError() | ConnectionResetError() | BrokenPipeError() if is_secure:
            reason = getattr(error, "reason", None) or "it hangs up"
            return ConnectError(
                f"{where} does not answer in TLS as it should: {reason}", remedy=_without_tls(proxy)
            )
        case InvalidProxy():
            return UsageError(
                f"{where} cannot be used: {error.msg}",
                remedy="Set HTTPS_PROXY as http://HOST:PORT or socks5h://HOST:PORT.",
            )
        case ValueError():  # which quotes it
            return UsageError(
                f"{where} cannot be used: that is not an address",
                remedy="Set HTTPS_PROXY as http://HOST:PORT or socks5h://HOST:PORT.",
            )
        case InvalidProxyStatus() if error.response.status_code == 407:
            return ConnectError(
                f"{where} wants another user name or password (HTTP 407)",
                remedy="Set HTTPS_PROXY as http://USER:PASSWORD@HOST:PORT.",
            )
        case InvalidProxyStatus():
            status = error.response.status_code
            return ConnectError(
                f"{where} does not let us through (HTTP {status})", remedy=CHECK_PROXY
            )
        case ProxyError():
            reason = str(error.__cause__ or error)
            return ConnectError(
                f"{where} does not let us through: {_without_password(reason, proxy)}",
                remedy="If it wants a password, set ALL_PROXY as socks5h://USER:PASSWORD@HOST:PORT."
                if proxy.startswith("socks") and "@" not in proxy
                else CHECK_PROXY,
            )
        case TimeoutError():
            remedy = _without_tls(proxy) if is_secure else CHECK_PROXY
            return ConnectError(f"{where} did not get us through in time", remedy=remedy)
        case socket.gaierror() if proxy.startswith(("socks4:", "socks5:")) and _is_by_number(proxy):
            return ConnectError(
                f"the server's name is not known here, and {where} is not asked for it",
                remedy="Let the proxy look it up: set ALL_PROXY as socks5h://HOST:PORT.",
            )
        case OSError():
            reason = error.strerror or str(error) or type(error).__name__
            return ConnectError(
                f"{where} cannot be reached: {_without_password(reason, proxy)}",
                remedy=CHECK_PROXY,
            )
        case _:
            return None


def _without_tls(proxy: str) -> str:
    """A remedy: most proxies speak plain HTTP, on the way to secure servers, too."""
    plain = shown_proxy(proxy).replace("https://", "http://", 1)
    login = ", with the same user name and password" if "@" in proxy else ""
    return f"If it is a plain HTTP proxy, as most are, set HTTPS_PROXY as {plain}{login}."


def _is_by_number(proxy: str) -> bool:
    """It is told by its IP address, for which nobody asks."""
    try:
        return bool(ip_address(urlsplit(proxy).hostname or ""))
    except ValueError:
        return False


def model_in(url: str) -> str:
    """The model that an address names, if it does: it is the one that answers."""
    query = parse_qs(urlsplit(url).query)
    return (query.get("deployment") or query.get("model") or [""])[0]


def shown_proxy(proxy: str) -> str:
    """Its scheme and place.  What is odd is not shown: the password may stand anywhere in it."""
    scheme, _, rest = proxy.partition("://")
    place = rest.rpartition("@")[2]
    is_plain = place.isascii() and place.isprintable() and not set(place.rstrip("/")) & set("/?#")
    host, _, port = place.rstrip("/").rpartition(":")
    if not is_plain or (host and not port.isdigit() and not port.endswith("]")):
        place = "..."
    return printable(f"{scheme}://{place}")


def _without_password(text: str, proxy: str) -> str:
    for secret in _secrets(proxy):
        text = text.replace(secret, "...")
    return printable(text)


def _secrets(proxy: str) -> Iterator[str]:
    userinfo, separator, _ = proxy.partition("://")[2].rpartition("@")
    if separator:
        yield userinfo
        if password := userinfo.partition(":")[2]:
            yield password


def explain_certificate(error: ssl.SSLCertVerificationError, url: str) -> ConnectError:
    """Why the server's certificate is not believed, and what would help."""
    where, host = shown(url), urlsplit(url).hostname
    match error.verify_code:  # by OpenSSL's x509_vfy.h
        case 10:  # X509_V_ERR_CERT_HAS_EXPIRED
            what = "has expired"
            remedy = "Renew it if the server is yours; if it is not, check this machine's clock."
        case 9:  # X509_V_ERR_CERT_NOT_YET_VALID
            what, remedy = "is not valid yet", "Check the clock of this machine."
        case 62 | 64:  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
            what = f"is for another host than {host}"
            remedy = "Check the host in --url: it must be one that the certificate names."
        case _:
            what = f"is not trusted: {error.verify_message}"
            remedy = "Trust the authority that made it, in a PEM file: --ca FILE"
            if is_loopback(url):
                remedy += ", or trust any on this machine: --insecure"
            if os.environ.get("SSL_CERT_FILE"):
                remedy += "; SSL_CERT_FILE is set, too"
            remedy += "."
    return ConnectError(f"the certificate of {where} {what}", remedy=remedy)
