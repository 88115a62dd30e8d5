"""The connections of all downloads: never more than a limit, nor than a server takes at a time.

What nobody uses is closed first.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from enum import IntEnum, auto
from typing import TYPE_CHECKING, Protocol

from . import retry
from .job import Busy, Phase
from .throttle import Throttle

if TYPE_CHECKING:
    from .control import Control

REGAIN_SECONDS = 30.0  # without a failure, after which more connections are tried, or requests of a server
LEAST_PATIENCE = 0.02  # of that, at first; doubled each time that more are refused
LOOK = 1.0  # seconds after which whoever waits for a turn looks whether it is time for more


class Use(IntEnum):
    """What a connection is good for that nobody uses; the least is closed first."""

    NEXT = auto()
    """A client keeps it for its next request."""
    LATER = auto()
    """A stopped download goes on with the answer that comes over it."""


class Holder(Protocol):
    """Whoever has a connection: an answer, or a client between two requests."""

    def hang_up(self) -> None:
        """Close it. Any thread, while nobody uses it."""


@dataclass(slots=True)
class _Server:
    """What all downloads know of one: what one of them learns."""

    serves: bool = False
    """Whether it has brought something."""
    refusals: int = 0
    """In a row, each of another download than the last one."""
    last: object = None
    """Whom it refused last."""
    alone: int = 0
    """Refusals in a row while no other request was under way. After some it is no matter of how many ask."""
    most: int = 0
    """Requests that it takes at a time; 0: it has not refused any because of others."""
    patience: float = LEAST_PATIENCE
    """Share of REGAIN_SECONDS after which more are tried."""
    since: float = 0.0
    """When the pause that it asked for last is over, or it refused one, in seconds of `time.monotonic`."""
    sentence: str = ""

    @property
    def is_limited(self) -> bool:
        """Whether fewer are to ask it at a time."""
        return self.most > 0 and self.alone < retry.TRIES

    def takes(self, now: float) -> int:
        """How many at a time now: more and more again."""
        grown = max(0.0, now - self.since) / (self.patience * REGAIN_SECONDS)
        return self.most << min(16, int(grown))

    def refuses(self, others: int, error: Busy, now: float) -> None:
        """It takes no more than that at a time, and asks all to wait."""
        if self.takes(now) > self.most or not self.most:  # more were tried meanwhile
            self.patience = min(1.0, self.patience * 2)
        wait = error.retry_after or 0.0
        self.since = now + (wait if wait <= retry.ASKED_WAITS else 0.0)  # else nobody would wait
        self.most, self.sentence = max(1, others), str(error)


class Connections:
    """Knows which are used, and which are open though nobody uses them. Any thread may call.

    A request uses one from before it is sent until its answer was read or closed, connected or not:
    so it counts what there may be, and there are never more than workers and what they have left.
    """

    def __init__(self, limit: int, speed_limit: int = 0) -> None:
        """`limit` connections, and `speed_limit` bytes a second over all of them (0: as many as come)."""
        self.throttle = Throttle(speed_limit)
        self._lock = threading.Lock()
        self._limit = limit
        self._used: dict[Holder, str] = {}  # answers, and which server was asked
        self._waiting: dict[Holder, tuple[str, Control]] = {}  # for their turn, the longest first
        self._servers: dict[str, _Server] = {}
        self._spare: dict[Holder, Use] = {}  # the longest unused first

    @property
    def limit(self) -> int:
        """How many there may be. Lowered, it closes what nobody uses."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        with self._lock:
            self._limit = limit
            self._make_room()

    @property
    def busy(self) -> int:
        """How many are used, or kept for stopped downloads."""
        with self._lock:
            return len(self._used) + sum(use is Use.LATER for use in self._spare.values())

    def begin(self, answer: Holder, client: Holder, server: str = "", control: Control | None = None) -> None:
        """A client is about to ask, over the connection that it keeps or a new one.

        Where the server has refused some of several, it waits for its turn. Raises Busy where it has
        asked all to wait, and what `control` raises.
        """
        try:
            while not self._begins(answer, client, server):
                assert control
                with self._lock:
                    self._waiting.setdefault(answer, (server, control))
                control.enter(Phase.TURN)
                control.wait(timeout=LOOK)
        finally:
            if self._waiting:
                with self._lock:
                    self._waiting.pop(answer, None)

    def _begins(self, answer: Holder, client: Holder, server: str) -> bool:
        with self._lock:
            known = self._servers.get(server)
            if known and known.is_limited and self._has_to_wait(answer, server, known, time.monotonic()):
                return False
            self._spare.pop(client, None)
            self._used[answer] = server
            self._make_room()
            return True

    def _has_to_wait(self, answer: Holder, server: str, known: _Server, now: float) -> bool:
        if known.since > now:
            raise Busy(known.sentence, retry_after=known.since - now)
        first = next((each for each, (asked, _) in self._waiting.items() if asked == server), answer)
        return first is not answer or self._asking(server) >= known.takes(now)

    def _asking(self, server: str) -> int:
        return sum(asked == server for asked in self._used.values())

    def served(self, answer: Holder) -> None:
        """The server brings what it was asked for."""
        with self._lock:
            known = self._servers.setdefault(self._used[answer], _Server())
            known.serves, known.refusals, known.last, known.alone = True, 0, None, 0
            if known.most:
                known.most = max(known.most, self._asking(self._used[answer]))  # it may take more
            if known.takes(time.monotonic()) >= self._limit:
                known.most, known.patience = 0, LEAST_PATIENCE

    def refused(self, answer: Holder, error: Busy, who: object) -> bool:
        """The server has too much to do: what one learns of it is every download's. Returns whether that is
        since others ask it.

        `who` asked. It may be about this file alone, if no other was refused just before; and one that
        brings nothing, whoever asks, refuses each for itself, unless it asks to wait.
        """
        with self._lock:
            known = self._servers.setdefault(server := self._used[answer], _Server())
            others = self._asking(server) - 1
            known.refusals += who is not known.last
            known.last, known.alone = who, known.alone + (not others)
            is_number = known.refusals > 1 or 0 < known.most <= others + 1
            if is_number and (known.serves or error.retry_after):
                known.refuses(others, error, time.monotonic())
            return is_number and known.serves and known.is_limited and (others > 0 or known.alone < 2)

    def hand_back(self, answer: Holder, client: Holder) -> None:
        """The answer is done with, and the client keeps a connection for its next request."""
        with self._lock:
            self._leave(answer)
            self._spare[client] = Use.NEXT
            self._make_room()

    def keep(self, answer: Holder) -> None:
        """Nobody reads the answer on for now."""
        with self._lock:
            self._leave(answer)
            self._spare[answer] = Use.LATER
            self._make_room()

    def take_up(self, answer: Holder) -> bool:
        """Somebody reads it on; False: it was closed meanwhile."""
        with self._lock:
            is_open = self._spare.pop(answer, None) is not None
            if is_open:
                self._used[answer] = ""  # nobody asks
            return is_open

    def end(self, holder: Holder) -> None:
        """Its connection is closed, if it had one."""
        with self._lock:
            self._leave(holder)
            self._spare.pop(holder, None)

    def _leave(self, answer: Holder) -> None:
        """It uses its connection no more: whoever waits longest for that server may have a turn."""
        server = self._used.pop(answer, "")
        for control in [control for asked, control in self._waiting.values() if asked == server][:1]:
            control.nudge()

    def _make_room(self) -> None:
        while self._spare and len(self._used) + len(self._spare) > self._limit:
            least = min(self._spare, key=self._spare.__getitem__)
            del self._spare[least]
            least.hang_up()
