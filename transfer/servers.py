"""How many requests a server takes at a time: what one download learns of it is every download's.

Pure: it is told what happens and the time, in seconds of `time.monotonic`.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import retry
from .job import Busy

REGAIN_SECONDS = 30.0  # without a refusal, after which more are tried
SOONEST = 0.02  # of that, at first; doubled each time that more are refused


@dataclass(slots=True)
class Server:
    """What is known of one."""

    serves: bool = False
    """Whether it has brought something."""
    refusals: int = 0
    """In a row, each of another download than the last one."""
    alone: int = 0
    """Refusals in a row while no other request was under way. After some it is no matter of how many ask."""
    most: int = 0
    """Requests that it takes at a time; 0: it has not refused any because of others."""
    _last: object = None  # whom it refused last
    _patience: float = SOONEST  # share of REGAIN_SECONDS after which more are tried
    _since: float = 0.0  # when the pause that it asked for last is over, or it refused one
    _sentence: str = ""  # with which it did

    @property
    def is_limited(self) -> bool:
        """Whether fewer are to ask it at a time."""
        return self.most > 0 and self.alone < retry.TRIES

    def takes(self, now: float) -> int:
        """How many at a time now. Raises Busy while it has asked all to wait."""
        if self._since > now:
            raise Busy(self._sentence, retry_after=self._since - now)
        return self._grown(now)

    def _grown(self, now: float) -> int:
        """More and more are tried again."""
        return self.most << min(16, int(max(0.0, now - self._since) / (self._patience * REGAIN_SECONDS)))

    def has_served(self) -> None:
        """It brings what it was asked for."""
        self.serves, self.refusals, self.alone, self._last = True, 0, 0, None

    def serves_beside(self, asking: int, limit: int, now: float) -> None:
        """So many requests are under way, of `limit` that there may be: it may take more than it seemed."""
        self.most = max(self.most, asking)
        if self._grown(now) >= limit:
            self.most, self._patience = 0, SOONEST

    def refuses(self, who: object, others: int, error: Busy, now: float) -> bool:
        """It has too much to do for `who`, while so many `others` ask it. Returns whether they are why.

        It may be about this file alone, if no other was refused just before; and one that brings nothing,
        whoever asks, refuses each for itself, unless it asks to wait.
        """
        self.refusals += who is not self._last
        self._last, self.alone = who, self.alone + (not others)
        is_number = self.refusals > 1 or 0 < self.most <= others + 1
        if is_number and (self.serves or error.retry_after):
            self._limit_to(max(1, others), error, now)
        return is_number and self.serves and self.is_limited and (others > 0 or self.alone < 2)

    def _limit_to(self, most: int, error: Busy, now: float) -> None:
        if self._grown(now) > self.most or not self.most:  # more were tried meanwhile
            self._patience = min(1.0, self._patience * 2)
        wait = error.retry_after or 0.0
        self._since = now + (wait if wait <= retry.ASKED_WAITS else 0.0)  # else nobody would wait
        self.most, self._sentence = most, str(error)
