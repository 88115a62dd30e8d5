"""What the head of an answer means: where it leads, what it refuses, which version it is of."""

from __future__ import annotations

import email.utils
import time
from enum import Enum, IntEnum, auto
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from . import logins, names, proxies, retry
from .job import TransferError, TryAgain, Validator
from .retry import LATER

if TYPE_CHECKING:
    import requests

REDIRECTS = (301, 302, 303, 307, 308)
NO_RANGES = (400, 405, 412, 416, 501)
"""What servers say that do not like to be asked for a range, but may give the whole file."""


class Ask(Enum):
    """How to ask for what is missing."""

    RANGE = auto()
    """For a range of the very version that is on the disk (``If-Range``)."""
    BARE = auto()
    """For a range without saying of which version: some servers drop the range otherwise."""
    WHOLE = auto()
    """For the whole file: a range was refused. Until that brings something new."""


class Trust(IntEnum):
    """Whether what several answers bring may be put together. It only goes forward."""

    ONE = auto()
    """There was one answer only, up to now."""
    SEVERAL = auto()
    """They fit, up to now."""
    PROVEN = auto()
    """One that brings all was given up for others that had the same at the joint: if those fail it is
    asked for once more."""
    ALONE = auto()
    """They did not fit, or failed: one at a time."""

    def forward(self, trust: Trust) -> Trust:
        """What was found out stays found out."""
        return max(self, trust)

    def anew(self) -> Trust:
        """All that was there is thrown away."""
        return self if self is Trust.ALONE else Trust.ONE


def redirected(url: str, location: str) -> str:
    """The absolute target of a redirect; user and password go along only to the same origin."""
    target = _quoted(url, location)
    old, new = urlsplit(url), urlsplit(target)
    if old.username is not None and new.username is None and _origin(old) == _origin(new):
        target = target.replace("://", f"://{old.netloc.rpartition('@')[0]}@", 1)
    return target


def _quoted(url: str, location: str) -> str:
    try:
        target = names.resolved(url, _as_sent(location))
        is_web = urlsplit(target).scheme in ("http", "https")
        target = names.quoted(target) if is_web else target
    except (ValueError, TransferError) as error:
        raise TransferError(
            f"The server sends this download to an address that cannot be read. {LATER}"
        ) from error
    if not is_web:
        raise TransferError(f"The server sends this download to a place that is not a web address. {LATER}")
    return target


def _as_sent(location: str) -> str:
    """The text of a header that http.client has read as Latin-1: UTF-8, else escapes for its bytes."""
    sent = location.encode("latin-1", "replace")
    try:
        return sent.decode()
    except UnicodeDecodeError:
        return "".join(chr(byte) if byte < 128 else f"%{byte:02X}" for byte in sent)


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port


def validator(response: requests.Response) -> Validator:
    return Validator.told(*(response.headers.get(name, "") for name in ("ETag", "Last-Modified")))


def certainly_same(known: Validator, response: requests.Response) -> bool:
    """Whether the answer carries the very validator that was sent as If-Range."""
    now = validator(response)
    return bool(known.if_range) and known.if_range in (now.etag, now.last_modified)


def timestamp(date: str) -> float | None:
    """An HTTP date as seconds since the epoch; None where there is none (RFC 9110, section 5.6.7)."""
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def refusal(response: requests.Response) -> TransferError:
    """What to say of a status that brings no file."""
    status = response.status_code
    sentence = _REFUSALS.get(status, f"The server answered with an error ({status}). {LATER}")
    if status in logins.WANTED:
        sentence = logins.wanted(status, str(response.url), response.request.headers.get("Authorization", ""))
    if not retry.retryable(status):
        return TransferError(sentence)
    wait = retry.retry_after(response.headers.get("Retry-After", ""), time.time())
    return TryAgain(sentence, retry_after=wait)


_REFUSALS = {
    202: "The server is still preparing the file (202)",
    204: "The link gave no file (204). Copy the link of the download button",
    400: "The server does not understand this link (400). Check the link, or copy it again from the page",
    404: "There is no file at this link (404). Check the link, or copy it again from the page",
    407: proxies.WANTS_LOGIN,
    408: "The server gave up waiting (408)",
    410: "The file is no longer at this link (410). Get a new link",
    416: "The server refuses this file (416). Get a new link",
    425: "The server is not ready yet (425)",
    429: "The server asks for fewer downloads at a time (429)",
    451: "The server may not offer this file for legal reasons (451)",
    500: "The server has a problem of its own (500)",
    502: "A server on the way has a problem (502)",
    503: "The server is busy (503)",
    504: "A server on the way did not answer (504)",
    520: "The server has a problem of its own (520)",
    522: "The server cannot be reached from the one that speaks for it (522)",
    524: "The server did not answer the one that speaks for it (524)",
}
