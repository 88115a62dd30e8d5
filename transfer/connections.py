"""The connections of all downloads of a host: never more than a limit; what nobody uses is closed first."""

from __future__ import annotations

import threading
from enum import IntEnum, auto
from typing import Protocol

from .throttle import Throttle


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
        self._used: set[Holder] = set()  # answers
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

    def begin(self, answer: Holder, client: Holder) -> None:
        """A client is about to ask, over the connection that it keeps or a new one."""
        with self._lock:
            self._spare.pop(client, None)
            self._used.add(answer)
            self._make_room()

    def hand_back(self, answer: Holder, client: Holder) -> None:
        """The answer is done with, and the client keeps a connection for its next request."""
        with self._lock:
            self._used.discard(answer)
            self._spare[client] = Use.NEXT
            self._make_room()

    def keep(self, answer: Holder) -> None:
        """Nobody reads the answer on for now."""
        with self._lock:
            self._used.discard(answer)
            self._spare[answer] = Use.LATER
            self._make_room()

    def take_up(self, answer: Holder) -> bool:
        """Somebody reads it on; False: it was closed meanwhile."""
        with self._lock:
            is_open = self._spare.pop(answer, None) is not None
            if is_open:
                self._used.add(answer)
            return is_open

    def end(self, holder: Holder) -> None:
        """Its connection is closed, if it had one."""
        with self._lock:
            self._used.discard(holder)
            self._spare.pop(holder, None)

    def _make_room(self) -> None:
        while self._spare and len(self._used) + len(self._spare) > self._limit:
            least = min(self._spare, key=self._spare.__getitem__)
            del self._spare[least]
            least.hang_up()
