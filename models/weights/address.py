"""Web addresses: written so that a request can be made of them, and opened along redirects that are safe."""

import re
import string
import urllib.error
import urllib.request
from http.client import HTTPResponse
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from models.errors import ConfigError, one_line

_TIMEOUT = 30.0  # seconds without a byte after which a connection counts as broken
_REDIRECTS = 10  # most that are followed
_LONGEST = 10_000  # characters of an address; servers refuse fewer


class AddressError(ConfigError):
    """An address that nothing can be fetched from, or that nothing should be."""


def is_web_address(text: str) -> bool:
    """Whether a text is an http or https address, in upper or lower case."""
    return text[:8].lower().startswith(("http://", "https://"))


def without_password(address: str) -> str:
    """An address for a message: one short line, without the user name and password that it may hold."""
    return one_line(re.sub(r"(?<=//)[^/?#]*@", "...@", address), 300)


_QUERY = re.compile(r"\?[^\s'\"<>()]+")  # of a signed address, its signature


def without_secrets(text: object) -> str:
    """An address, or a message that holds some, for a log: one short line without passwords and signatures."""
    return without_password(_QUERY.sub("?...", str(text)))


def request_address(address: str) -> str:
    """The address as it is requested: the host in punycode, the rest percent-encoded where it is no plain ASCII.

    Raises:
        AddressError: it is no http or https address of a host, or holds a password.
    """
    shown = without_password(address)
    if not is_web_address(address):
        raise AddressError(f"cannot download {shown}: the address must start with http:// or https://")
    try:
        parts = urlsplit(address)
        host = _ascii_host(parts)
    except ValueError as error:  # a UnicodeError too
        raise AddressError(f"cannot download {shown}: it is no web address ({one_line(error)})") from None
    wrong = None
    if len(address) > _LONGEST:
        wrong = f"it has {len(address):,} characters"
    elif re.search(r"[\x00-\x1f\x7f]", address):
        wrong = "it holds control characters"
    elif "@" in parts.netloc:
        wrong = "it holds a user name or password, which would stand in logs; fetch the file by other means"
    elif not host:
        wrong = "it names no host"
    if wrong:
        raise AddressError(f"cannot download {shown}: {wrong}")
    try:
        path, query = (quote(part, safe=string.punctuation) for part in (parts.path or "/", parts.query))
    except UnicodeEncodeError:  # half a surrogate pair
        raise AddressError(f"cannot download {shown}: it holds what is no text") from None
    return f"{parts.scheme}://{host}{path}{'?' if query else ''}{query}"


def _ascii_host(parts: SplitResult) -> str:
    """Host and port; raises ValueError where they are none."""
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host.encode("idna").decode()
    if not re.fullmatch(r"[\w.\-:\[\]%]*", host, re.ASCII):
        raise ValueError("a host of such characters")
    return host if parts.port is None else f"{host}:{parts.port}"


def open_address(address: str, start: int = 0) -> HTTPResponse:
    """Request what is at an address, from byte `start` on, and follow redirects to http(s), never from https to http.

    Raises:
        AddressError: a redirect leads where nothing should be fetched from.
        urllib.error.HTTPError: the server refuses.
        OSError, http.client.HTTPException: the connection fails.
    """
    headers = {"User-Agent": "blip"} | ({"Range": f"bytes={start}-"} if start else {})
    opener = _opener()
    url = request_address(address)
    for _ in range(_REDIRECTS + 1):
        try:
            return opener.open(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
        except urllib.error.HTTPError as error:
            target = error.headers.get("Location")
            if error.code not in (301, 302, 303, 307, 308) or not target:
                raise
            error.close()  # its body is not read
            url = _redirected(url, target)
    raise AddressError(f"cannot download {without_password(address)}: more than {_REDIRECTS} redirects")


def _opener() -> urllib.request.OpenerDirector:
    """Opens http and https, by the environment's proxies; no FTP, files, data and redirects, as urllib's own does."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _redirected(url: str, target: str) -> str:
    """Where a redirect leads."""
    try:
        # http.client reads a header as Latin-1, whatever it is.
        new = request_address(urljoin(url, target.encode("latin-1").decode("utf-8", "replace")))
    except ValueError as error:
        raise AddressError(
            f"{without_password(url)} redirects to where nothing is fetched from: {one_line(error, 500)}"
        ) from None
    if url.startswith("https://") and not new.startswith("https://"):
        where = f"{without_password(url)} redirects from https to {without_password(new)}"
        raise AddressError(f"{where}, which anyone on the way can change")
    return new
