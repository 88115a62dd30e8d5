"""What is wrong with a proxy, in words. Its address is a setting of the computer's: it is never the link."""

from __future__ import annotations

import importlib.util
import re
import urllib.request
from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import urlsplit

from . import retry
from .job import TransferError, TryAgain

CHECK = "Check the proxy settings of this computer"
_NOT_IN_PLACES = r"[\s\x00-\x20]|:\Z"  # a port that is missing may be a scheme of which half is missing
_WEB, _SOCKS = ("http", "https"), ("socks4", "socks4a", "socks5", "socks5h")


def checked(proxy: str) -> str:
    """How a proxy is called in sentences: host and port, no password.

    :param proxy: as the environment or the system has it, with its scheme.
    :raises TransferError: it is none that can be asked.
    """
    try:
        parts = urlsplit(proxy)
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")  # as whoever looks it up does
    except ValueError:
        host, port = None, 0
    if not host or port == 0 or re.search(_NOT_IN_PLACES, proxy + parts.netloc):
        raise TransferError(f"The address of this computer's proxy cannot be read. {CHECK}")
    shown = parts.netloc.rpartition("@")[2]
    if parts.scheme not in (*_WEB, *_SOCKS):
        raise TransferError(f"The proxy {shown} is of an unknown kind, neither HTTP nor SOCKS. {CHECK}")
    if parts.scheme in _SOCKS and not importlib.util.find_spec("socks"):
        raise TransferError(
            f"The proxy {shown} is a SOCKS proxy, which Blender cannot use. Set an HTTP proxy, or none"
        )
    return shown


def is_bypassed(place: str) -> bool:
    """Whether ``no_proxy`` names a host and port, or a network of any kind, as for curl.

    `requests` looks at no address with a port, and at networks of IPv4 alone.
    """
    exempt = re.split(r"[\s,]+", urllib.request.getproxies_environment().get("no", ""))
    networks = [word for word in exempt if "/" in word]
    is_named = urllib.request.proxy_bypass_environment(place)  # type: ignore[attr-defined]
    return bool(is_named or (networks and _lies_in(urlsplit(f"//{place}").hostname or "", networks)))


def _lies_in(host: str, networks: Iterable[str]) -> bool:
    from ipaddress import ip_address, ip_network  # for few computers

    with suppress(ValueError):
        address = ip_address(host)
        for network in networks:
            with suppress(ValueError):
                if address in ip_network(network, strict=False):
                    return True
    return False


def unreached(shown: str, *, is_late: bool, is_new: bool) -> TransferError:
    """No connection to it. Another try is worth while where it was only late, or has answered before."""
    what = "did not answer in time" if is_late else "cannot be reached"
    kind = TryAgain if is_late or not is_new else TransferError
    return kind(f"The proxy {shown} {what}. {CHECK}")


def unknown(error: TryAgain) -> TryAgain:
    """No way to the server, and the computer finds its proxy by a script (PAC), as only browsers do."""
    what = str(error).partition(". ")[0]
    return type(error)(f"{what}. {SCRIPT}")


def refused(shown: str, status: int | None) -> TransferError:
    """It answered with this status when it was asked for a tunnel; None: SOCKS has none."""
    if status == 407:
        return TransferError(WANTS_LOGIN)
    kind = TransferError if status and not retry.retryable(status) else TryAgain
    number = f" ({status})" if status else ""
    return kind(f"The proxy {shown} does not let this connection through{number}. {CHECK}")


SCRIPT = (
    "A script names this computer's proxy, which Blender cannot read."
    " Write the proxy's own address into the proxy settings of this computer"
)
WANTS_LOGIN = (
    "The proxy asks for a user name and a password (407)."
    " Write them into its address in the proxy settings of this computer"
)
