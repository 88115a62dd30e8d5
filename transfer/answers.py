"""What the head of an answer means: where it leads, what it refuses, which version it is of."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from . import content, logins, names, proxies, retry
from .job import Busy, TransferError, TryAgain, Validator
from .ranges import parse_content_range
from .retry import LATER, timestamp

if TYPE_CHECKING:
    from .connect import Answer
    from .part import Received

REDIRECTS = (300, 301, 302, 303, 307, 308)
WHOLE = frozenset(range(200, 300)) - {202, 204, 205, 206, 207}
"""What brings all of a file: one that nobody knows means as much as 200 (RFC 9110, section 15)."""
BRINGING = WHOLE | {206}
"""What brings a file, or some of it."""
NO_RANGES = frozenset((304, *range(400, 500), 501)) - {401, 402, 404, 407, 408, 410, 425, 429, 451}
"""What servers say that do not like to be asked for a range, but may give the whole file."""


class Ask(Enum):
    """How to ask for what is missing."""

    RANGE = auto()
    """For a range of the very version that is on the disk (``If-Range``)."""
    BARE = auto()
    """For a range without saying of which version: some servers drop the range otherwise."""
    WHOLE = auto()
    """For the whole file: a range was refused. Until that brings something new."""

    def after_progress(self) -> Ask:
        """Something new has come."""
        return Ask.RANGE if self is Ask.WHOLE else self


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
    """They did not fit, or failed, or never brought the end: one at a time."""

    def forward(self, trust: Trust) -> Trust:
        """What was found out stays found out."""
        return max(self, trust)

    def anew(self) -> Trust:
        """All that was there is thrown away."""
        return self if self is Trust.ALONE else Trust.ONE


@dataclass(frozen=True)
class Head:
    """The head of an answer. What is asked several times is found out once."""

    status: int
    headers: Mapping[str, str]
    """By their names in lower case."""
    length: int | None = None
    """Bytes of the body as they are sent; None: only its end will tell."""
    url: str = field(default="", repr=False)
    """Where it came from."""
    login: str = field(default="", repr=False)
    """The ``Authorization`` that was sent."""
    via: str = ""
    """The mark of the mirror that it came through."""

    @classmethod
    def of(cls, answer: Answer) -> Head:
        """Of an answer whose body was not read yet."""
        length = None if answer.message.chunked else answer.message.length
        login = answer.asked.get("Authorization", "")
        return cls(answer.status_code, answer.headers, length, answer.url, login, answer.via)

    @property
    def content_type(self) -> str:
        """As it was sent."""
        return self.headers.get("content-type", "")

    def name_for(self, asked: str) -> str:
        """What the file is called that was asked for with this link."""
        disposition = self.headers.get("content-disposition", "")
        return names.choose(
            disposition=disposition, asked=asked, final=self.url, content_type=self.content_type
        )

    @cached_property
    def span(self) -> tuple[int, int, int | None] | None:
        """Of a range: where it begins and ends, and the size of the whole file."""
        said = self.headers.get("content-range", "")
        return parse_content_range(said) if said else None

    @cached_property
    def is_part(self) -> bool:
        """Whether it brings a range. Some servers say 200 there, as if it were the whole file."""
        if self.status not in WHOLE or not (span := self.span):
            return self.status == 206
        start, end, size = span
        return self.length == end - start and (start > 0 or (size or 0) > end)

    @property
    def size(self) -> int | None:
        """Bytes of the whole file, where it tells."""
        if not self.is_part:
            return self.length
        return self.span[2] if self.span else None

    @property
    def reach(self) -> int | None:
        """The position behind the last byte that it brings, where it tells."""
        span = self.span if self.is_part else None
        return span[1] if span else self.length

    @cached_property
    def validator(self) -> Validator:
        """What tells which version of the file it is of.

        A date is strong if the answer was made at least a second later (RFC 9110, section 8.8.2.2);
        one that does not say when was made just now.
        """
        changed, sent = self.headers.get("last-modified", ""), self.headers.get("date", "")
        since = (timestamp(sent) or time.time()) - (timestamp(changed) or float("inf"))
        return Validator.told(self.headers.get("etag", ""), changed, is_date_strong=since >= 1)

    def is_encoded(self, name: str) -> bool:
        """Whether what is read differs from what is sent: then no byte has a known position.

        Raises TransferError: it is packed in a way that cannot be undone.
        """
        return bool(content.codings(self.headers.get("content-encoding", ""), name))


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request was for: a range, unless all is left out."""

    start: int | None = None
    """Of the range, in bytes; None: for the whole file."""
    new_from: int = 0
    """The first byte of it that is not on the disk."""
    if_range: str = ""
    """The validator that went with it."""
    is_conditional: bool = False
    """Whether the whole file was asked for only if it is newer than the one that is there."""
    stop: int | None = None
    """Behind the last byte of the range; None: it goes to the end of the file."""


class Verdict(Enum):
    """What an answer means."""

    RANGE = auto()
    """The range that was asked for, of the file that is on the disk."""
    WHOLE = auto()
    """The whole file; what is there is of no use."""
    SAME = auto()
    """The whole file, which seems to be the very same: what is there stays, and is compared."""
    UNCHANGED = auto()
    """The server has nothing newer than the file that is there."""
    ASK_BARE = auto()
    """The range did not come, it seems only because of If-Range."""
    ASK_WHOLE = auto()
    """Ranges are refused, bring less than they repeat, or are of another version, or nobody can be sure."""


def judge(head: Head, asked: Asked, known: Received, *, name: str, has_digest: bool) -> Verdict:
    """What to do with an answer, by its head alone. Raises TransferError: it refuses.

    `known`: what is on the disk. `name`: what the answer calls the file. `has_digest`: whether one will
    show in the end that the bytes belong together.
    """
    status, is_range = head.status, asked.start is not None
    if head.is_part and is_range:
        return _of_range(head, asked, known, name, has_digest)
    if head.is_part and _begins_it(head, name):
        return Verdict.WHOLE
    if status in NO_RANGES and is_range:
        return Verdict.ASK_WHOLE
    if status == 304 and asked.is_conditional:
        return Verdict.UNCHANGED
    if head.is_part:
        raise TransferError(_PART)
    if status not in WHOLE:
        raise refusal(head)
    if _seems_part(head, asked, known):
        return Verdict.ASK_WHOLE
    if asked.if_range and asked.if_range in (head.validator.etag, head.validator.last_modified):
        return Verdict.ASK_BARE
    return Verdict.SAME if _is_same(head, known, name, has_digest) else Verdict.WHOLE


def _of_range(head: Head, asked: Asked, known: Received, name: str, has_digest: bool) -> Verdict:
    span = head.span
    if not span or span[0] != asked.start or head.is_encoded(name):
        return Verdict.ASK_WHOLE
    if span[2] is known.size is None and not has_digest:  # nobody says whether it goes on behind the range
        return Verdict.ASK_WHOLE
    if not _is_of_known(head, asked, known, span[2], has_digest):
        return Verdict.ASK_WHOLE
    is_all_there = known.is_whole or span[2] == asked.new_from  # only the end had not been heard of
    repeats = asked.new_from - span[0] if span[1] < (asked.stop or span[2] or 0) else 0  # where it is cut
    brings_little = span[1] - asked.new_from < max(1, repeats) and not is_all_there
    return Verdict.ASK_WHOLE if brings_little else Verdict.RANGE


def _begins_it(head: Head, name: str) -> bool:
    """Whether a part that nobody asked for is the beginning of the file, or all of it."""
    if not (span := head.span) or head.is_encoded(name):
        return False
    start, end, size = span
    return start == 0 and size is not None and head.length in (None, end)


def _seems_part(head: Head, asked: Asked, known: Received) -> bool:
    """Whether it is said to be whole, but is as long as the range, or this very version in another size."""
    size, old, new = known.size, known.validator, head.validator
    if asked.start is None or size is None or head.length in (None, size):
        return False
    pairs = [(a, b) for a, b in zip(old.pair, new.pair, strict=True) if a and b]
    is_as_long = head.length == (asked.stop or size) - asked.start
    return all(a == b for a, b in pairs) and (bool(pairs) or is_as_long)


def _is_of_known(head: Head, asked: Asked, known: Received, size: int | None, has_digest: bool) -> bool:
    """Whether nothing says that it is of another version of the file, and something that it is not."""
    old, new, overlaps = known.validator, head.validator, asked.new_from > (asked.start or 0)
    facts = [(known.size, size), *zip(old.pair, new.pair, strict=True)]
    if old.is_strong and old.etag == new.etag:
        del facts[2]  # servers that share a file may each have a date for it
    if any(a not in (None, "") and b not in (None, "") and a != b for a, b in facts):
        return False
    if asked.if_range or has_digest:
        return True
    if old.if_range:
        return overlaps or old.if_range in (new.etag, new.last_modified)
    return overlaps and all(a == b for a, b in facts)


def _is_same(head: Head, known: Received, name: str, has_digest: bool) -> bool:
    if not known.ranges.total() or known.encoded or head.is_encoded(name) or head.length != known.size:
        return False
    old, new = known.validator, head.validator
    if old.if_range:
        return old.if_range in (new.etag, new.last_modified)
    return old == new if old else has_digest


# -- Redirects, dates, refusals.


def redirected(url: str, location: str) -> str:
    """The absolute target of a redirect; user and password go along only to the same origin."""
    target = _quoted(url, re.sub(_BEFORE_QUERY, _slashed, location))
    login, at, _ = urlsplit(url).netloc.rpartition("@")
    if at and "@" not in urlsplit(target).netloc and names.origin(url) == names.origin(target):
        target = target.replace("://", f"://{login}@", 1)
    return target


_BEFORE_QUERY = r"\A[^?#]+"


def _slashed(match: re.Match[str]) -> str:
    """As browsers read what servers on Windows write, or with a slash too many (WHATWG URL, section 4.4)."""
    return re.sub(r"(?i)\A(https?:/)/+", r"\1/", match[0].replace("\\", "/"))


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


def refusal(head: Head) -> TransferError:
    """What to say of a status that brings no file."""
    status, passes = head.status, retry.retryable(head.status)
    unknown = "has a problem of its own ({})" if passes else f"answered with an error ({{}}). {LATER}"
    sentence = _REFUSALS.get(status, f"The server {unknown}".format(status))
    if any(name in head.headers for name in _CHALLENGED):
        return TransferError(f"The server wants to be sure that a person asks ({status}). Use your browser")
    if status in logins.WANTED:
        sentence = logins.wanted(status, head.url, head.login, head.headers.get("www-authenticate", ""))
    if not passes:
        return TransferError(sentence)
    now = max(time.time(), timestamp(head.headers.get("date", "")) or 0.0)  # its clock may be ahead of ours
    wait = retry.retry_after(head.headers.get("retry-after", ""), now)
    return (Busy if status in (429, 503) else TryAgain)(sentence, retry_after=wait)


_CHALLENGED = ("cf-mitigated", "x-amzn-waf-action")
"""Fields by which Cloudflare and Amazon say that a page is in the file's place that tries the browser."""
_PART = f"The server sent only a part of the file. {LATER}"
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
    502: "A server on the way has a problem (502)",
    503: "The server is busy (503)",
    504: "A server on the way did not answer (504)",
    511: "This network asks you to sign in first (511). Open any web page in your browser",
    **{n: f"The server cannot be reached from the one that speaks for it ({n})" for n in (521, 522, 523)},
    524: "The server did not answer the one that speaks for it (524)",
}
