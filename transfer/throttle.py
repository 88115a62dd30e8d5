"""A limit to how many bytes a second all connections of a host bring together."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from .control import Control

if TYPE_CHECKING:
    from .body import Reader

SLICES = 8  # of a second's bytes that are read at once, so that a slow limit comes in small pieces
LEAST = 4096  # bytes that are read at once, at least
LOOK = 0.1  # seconds between two looks whether the limit is another one
LONGEST = 1.0  # seconds that what another limit had read is waited for: at a byte a second that were hours


class Throttle:
    """What was read takes its time on one line that all workers share. Any thread."""

    def __init__(self, limit: int = 0) -> None:
        """`limit` is in bytes a second; 0: none."""
        self._lock = threading.Lock()
        self._limit = limit
        self._free = 0.0  # when all that was read so far may have been read
        self._changes = 0

    @property
    def limit(self) -> int:
        """Bytes a second, 0 for as many as come. May be set while workers wait: they go by the new one."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        with self._lock:
            if limit != self._limit:
                now = time.monotonic()
                owed = self._limit * max(0.0, self._free - now)
                self._free = now + min(owed / limit, LONGEST) if limit else 0.0
                self._limit = limit
                self._changes += 1

    @property
    def holds_back(self) -> bool:
        """Whether it is the limit, and no server, that makes downloads slow just now."""
        return self._limit > 0 and self._free > time.monotonic()

    def read(self, body: Reader, buffer: memoryview, control: Control) -> int:
        """Read from a body once its turn has come, a small piece where the limit is low.

        Raises what the body's `read` and `Control.sleep` do; nothing was read then.
        """
        if not (limit := self._limit):
            return body.read(buffer, control)
        self._wait(control)
        count = body.read(buffer[: max(LEAST, limit // SLICES)], control)
        with self._lock:
            if self._limit:  # it may be another one by now
                self._free = max(self._free, time.monotonic()) + count / self._limit
        return count

    def _wait(self, control: Control) -> None:
        """Until what was read so far may have been: others may read on meanwhile, and wait the longer."""
        changes, end = self._changes, self._free  # in this order: another limit sets both
        while (left := end - time.monotonic()) > 0:
            control.sleep(min(left, LOOK))
            control.touch()  # it is we who wait, and no server that stalls
            if changes != self._changes:
                changes, end = self._changes, self._free
