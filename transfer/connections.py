"""The connections of all downloads: never more than a limit, nor than a server takes at a time.

What nobody uses is closed first.
"""

from __future__ import annotations

import threading
import time
from enum import IntEnum, auto
from typing import TYPE_CHECKING, Protocol

from .job import Busy, Phase
from .servers import Server
from .throttle import Throttle

if TYPE_CHECKING:
    from .control import Control

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
        self._servers: dict[str, Server] = {}
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

    def _has_to_wait(self, answer: Holder, server: str, known: Server, now: float) -> bool:
        most, first = known.takes(now), self._first_waiting(server)
        return first not in (None, answer) or self._asking(server) >= most

    def _first_waiting(self, server: str) -> Holder | None:
        """Whose turn is next."""
        return next((each for each, (asked, _) in self._waiting.items() if asked == server), None)

    def _asking(self, server: str) -> int:
        return sum(asked == server for asked in self._used.values())

    def served(self, answer: Holder) -> None:
        """The server brings what it was asked for."""
        with self._lock:
            known = self._servers.setdefault(server := self._used[answer], Server())
            known.has_served()
            if known.most:
                known.serves_beside(self._asking(server), self._limit, time.monotonic())

    def refused(self, answer: Holder, error: Busy, who: object) -> bool:
        """The server has too much to do for `who` asked. Returns whether that is since others ask it."""
        with self._lock:
            known = self._servers.setdefault(server := self._used[answer], Server())
            return known.refuses(who, self._asking(server) - 1, error, time.monotonic())

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
        if (first := self._first_waiting(self._used.pop(answer, ""))) is not None:
            self._waiting[first][1].nudge()

    def _make_room(self) -> None:
        while self._spare and len(self._used) + len(self._spare) > self._limit:
            least = min(self._spare, key=self._spare.__getitem__)
            del self._spare[least]
            least.hang_up()
