"""Which failures are tried again, and after how long."""

from __future__ import annotations

import email.utils
import functools
import math
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC

from .job import TransferError
from .space import amount

LATER = "Try later, or use your browser"
TRIES = 5
"""Failures without progress after which a download ends."""
REQUESTS = 40
"""Requests without progress after which a download ends, whatever they were answered."""
FIRST_DELAY = 1.0  # seconds, doubled with each failure
LONGEST_DELAY = 30.0  # seconds
LEAST_JITTER = 0.5  # share of the delay, so that downloads that broke together do not return together
FRUITLESS = 20  # times the time-out that may pass on the network without progress
WORTH_SAYING = 1 << 20  # bytes that are kept
ASKED_WAITS = 300.0  # seconds, all waits that servers asked for in one download
LONGEST_ASKED = 366 * 86400.0  # seconds; more says no more, and keeps infinity out of sentences
dice = random.Random()  # scripts seed Python's own, and count on what comes of it

# 202: it is being prepared. A 5xx that nobody knows means as much as 500, such as Cloudflare's 520 to 530, as
# does what is above (RFC 9110, section 15). The others say that they will not pass (507: RFC 4918, 11.5).
_FINAL = {501, 505, 506, 507, 508, 509, 510, 511, 526}
_RETRYABLE = frozenset((202, 408, 425, 429, *range(500, 1000))) - _FINAL
_SECONDS = r"[+-]?[0-9]+(?:\.[0-9]+)?"
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))  # seconds each


def retryable(status: int) -> bool:
    """Whether an answer with this HTTP status may be another one the next time (RFC 9110, 15)."""
    return status in _RETRYABLE


def retry_after(header: str, now: float) -> float | None:
    """Read a ``Retry-After`` header (RFC 9110, section 10.2.3): seconds, or an HTTP date.

    :param now: seconds since 1970, to turn a date into a wait.
    :return: seconds to wait, 0 if the time has passed, None if the header cannot be read.
    """
    text = header.strip()
    if re.fullmatch(_SECONDS, text):
        seconds = float(text)
    elif (date := timestamp(text)) is not None:
        seconds = date - now
    else:
        return None
    return min(max(seconds, 0.0), LONGEST_ASKED)


@functools.lru_cache(maxsize=64)  # many answers are of the same second
def timestamp(date: str) -> float | None:
    """An HTTP date in any of its three forms, as seconds since 1970; None: it is none (RFC 9110, 5.6.7)."""
    try:
        found = email.utils.parsedate_to_datetime(date)
        # HTTP dates are GMT, also where they do not say so.
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, IndexError, TypeError, OverflowError):
        return None


@dataclass(slots=True)
class Tries:
    """How often, and for how long, one download was tried without getting on.

    It is told the time, knows no socket, has one writer at a time, and is pickled with its transfer.
    """

    furthest: int = 0
    """The furthest point this download ever reached, in bytes."""
    requests: int = 0
    """Requests since that point was reached."""
    failures: int = 0
    """Failures since then; those where the server asked to wait do not count."""
    waited: float = 0.0
    """Seconds that servers asked to wait, in all."""
    asked: float = 0.0
    """Seconds of the last wait if the server asked for it, else 0."""
    reason: str = "The server sends nothing new"
    """What went wrong last, as a sentence for a person; a second one may say what to do."""
    fruitless: float = 0.0
    """Seconds on the network since something new came, up to the last pause."""
    since: float = 0.0
    """When something new came, in seconds of whoever tells the time; later by all waits and pauses."""

    @property
    def text(self) -> str:
        """What is going on, for people: ``retrying 2 of 5``, or empty while all is well."""
        if self.asked:
            return f"waiting {_span(self.asked)} as the server asks"
        return f"retrying {self.failures + 1} of {TRIES}" if self.failures else ""

    # -- Time.

    def begin(self, now: float) -> None:
        """A worker runs it again."""
        self.since = now - self.fruitless

    def pause(self, now: float) -> None:
        """Nobody runs it any more."""
        self.fruitless = now - self.since

    def came(self, now: float) -> None:
        """Something new did."""
        self.since = now

    @contextmanager
    def waiting(self, clock: Callable[[], float]) -> Iterator[None]:
        """What is waited on purpose does not count."""
        began = clock()
        try:
            yield
        finally:
            self.since += clock() - began

    def check(self, now: float, timeout: float) -> None:
        """:raises TransferError: too much time went by on the network; `timeout`: seconds for one phase."""
        if now - self.since > FRUITLESS * timeout:
            raise TransferError(
                f"The server keeps the connection busy, but the download does not get on. {LATER}"
            )

    # -- Requests and failures.

    def request(self) -> None:
        """Count a request; to be called before it is sent.

        :raises TransferError: there were `REQUESTS` of them since the last progress.
        """
        if self.requests >= REQUESTS:
            raise self._given_up(self.requests)
        self.requests += 1

    def progress(self, offset: int) -> bool:
        """Tell how far the download has come, in bytes; only new ground, which it returns, resets the counts.

        The waits that servers asked for are limited for the whole download and go on counting.
        """
        if is_new := offset > self.furthest:
            self.furthest = offset
            self.requests = self.failures = 0
            self.asked = 0.0
        return is_new

    def delay(
        self,
        reason: str,
        retry_after: float | None = None,
        *,
        first_delay: float | None = None,
        kept: int = 0,
    ) -> float:
        """Count a failure and answer how many seconds to wait before the next request.

        :param reason: what went wrong, a sentence for a person; it ends up in the final error.
        :param retry_after: seconds the server asked for, None if it did not.
        :param first_delay: seconds before the first try again, `FIRST_DELAY` if None.
        :param kept: bytes that need not be asked for again.
        :raises TransferError: the tries are used up, or the server asks for too long a wait.
        """
        self.reason = reason
        first = FIRST_DELAY if first_delay is None else first_delay
        jitter = LEAST_JITTER + (1.0 - LEAST_JITTER) * dice.random()
        if retry_after is not None:
            # "0", or a date that has passed here, still leaves the server a moment.
            return self._asked_wait(max(retry_after, first * jitter), retry_after)
        self.failures += 1
        self.asked = 0.0
        if self.failures >= TRIES:
            raise self._given_up(self.failures, kept)
        return jitter * min(first * (1 << self.failures - 1), LONGEST_DELAY)

    def _asked_wait(self, wait: float, asked: float) -> float:
        if self.waited + wait > ASKED_WAITS:
            raise TransferError(f"The server asks to wait {_span(asked)}. Try again later")
        self.waited += wait
        self.asked = wait
        return wait

    def _given_up(self, times: int, kept: int = 0) -> TransferError:
        what, _, advice = self.reason.rstrip(".").partition(". ")
        if kept >= WORTH_SAYING:
            return TransferError(f"{what}. Retry continues at {amount(kept)}{advice and f'. {advice}'}")
        return TransferError(f"{what}. Tried {times} times{f'. {advice}' if advice else ', try again later'}")


def _span(seconds: float) -> str:
    """A length of time in the largest unit that fits, rounded up: ``12 minutes``."""
    whole = max(math.ceil(seconds), 1)
    size, unit = next((size, unit) for size, unit in _UNITS if whole >= size)
    count = math.ceil(whole / size)
    return f"{count} {unit}" + ("s" if count > 1 else "")
