"""Which worker fetches which bytes of one file.

A download is a list of byte ranges, usually one. Every worker on it is the same as any other: it
claims what nobody fetches, and leaves when there is nothing or when something goes wrong. What
concerns the whole file (to begin anew, to wait, to fail, to finish) is decided only by one that is
alone: so a refused or broken connection beside another costs nothing but speed.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .control import Control
from .ranges import Ranges

if TYPE_CHECKING:
    from .body import Body

SPLIT_BYTES = 64 << 10  # half of what is split is at least this long
MEASURE_SECONDS = 0.1  # after which the speed of a connection is known
REGAIN_SECONDS = 30.0  # without a failure, after which one more connection is tried


@dataclass(slots=True, eq=False)
class Segment:
    """A range of the file that one worker fetches, or has stopped fetching with its response open."""

    offset: int
    """Where the next byte from the response belongs."""
    end: int | None
    """The position behind its last byte; None: only the end of the response will tell."""
    control: Control | None = None
    """Of the worker; None while nobody reads."""
    body: Body | None = None
    overlap: int = 0
    """Bytes still to be compared with what is on the disk."""
    is_cut: bool = False
    """Whether the response goes on behind `end`."""
    was_kept: bool = False
    """Whether the worker that reads may be another than the one that asked."""
    is_for_all: bool = False
    """Whether its response, if it is taken whole, will serve other machines too."""
    began: int = 0
    """Where its response began to bring something new,"""
    began_at: float = field(default_factory=time.monotonic)
    """and when, in seconds of `time.monotonic`."""

    @property
    def start(self) -> int:
        """The first byte that is missing."""
        return self.offset + self.overlap

    @property
    def is_done(self) -> bool:
        """Whether what is still to come is somebody else's."""
        return self.is_cut and self.end is not None and self.offset >= self.end

    @property
    def seconds_left(self) -> float:
        """How long the rest will take at its speed up to the last byte; 0 while that is not known."""
        elapsed = self.control.moved - self.began_at if self.control else 0.0
        if self.end is None or not self.body or elapsed < MEASURE_SECONDS:
            return 0.0
        return (self.end - self.start) * elapsed / max(1, self.start - self.began)

    def takes_longer(self, seconds: float) -> bool:
        """Whether its rest does, and can be halved."""
        is_large = self.end is not None and self.end - self.start >= 2 * SPLIT_BYTES
        return is_large and self.seconds_left > seconds

    def open(self, body: Body, end: int | None) -> None:
        """Its response is there; `end` may come earlier than asked for."""
        self.body, self.end = body, end
        self.began, self.began_at = self.start, time.monotonic()

    def close(self) -> None:
        """End its connection."""
        body, self.body = self.body, None
        if body:
            body.close()


class Segments:
    """The workers of one transfer, and what each of them fetches. Any thread may call."""

    def __init__(self, split_seconds: float) -> None:
        self.lock = threading.Lock()
        """Guards the transfer's counters too."""
        self._split_seconds = split_seconds
        self._workers: set[Control] = set()
        self._segments: list[Segment] = []
        self._welcomes = False  # others
        self._most = 1 << 30  # workers that the server seems to bear
        self._failed_at = 0.0

    @property
    def controls(self) -> list[Control]:
        """Of the workers."""
        with self.lock:
            return list(self._workers)

    @property
    def connections(self) -> int:
        """How many responses are open that nobody reads."""
        with self.lock:
            return sum(segment.control is None for segment in self._segments)

    # -- Coming and going.

    def enter(self, control: Control, *, helps: bool) -> bool:
        """A worker begins; False: its help is not wanted any more."""
        with self.lock:
            if helps and not (self._workers and self._has_room(time.monotonic())):
                return False
            self._workers.add(control)
            return True

    def leave(self, control: Control, *, failed: bool = False) -> bool:
        """A worker goes; False: it is alone, and stays so, for what only one can decide."""
        with self.lock:
            if self._workers == {control}:
                self._welcomes = False
                return False
            self._workers.discard(control)
            if failed:
                self._most, self._failed_at = max(1, len(self._workers)), time.monotonic()
            return True

    def exit(self, control: Control) -> None:
        """The last worker is gone, or one that has left already."""
        with self.lock:
            self._workers.discard(control)

    def is_alone(self) -> bool:
        """Whether there is one worker only; then no other comes."""
        with self.lock:
            self._welcomes = self._welcomes and len(self._workers) > 1
            return len(self._workers) == 1

    def welcome(self) -> None:
        """Others may help: the server takes ranges, and what is received so far will stay."""
        with self.lock:
            self._welcomes = True

    def _has_room(self, now: float) -> bool:
        regained = int((now - self._failed_at) / REGAIN_SECONDS)
        return self._welcomes and len(self._workers) < self._most + regained

    def wanted(self, received: Ranges, size: int | None, now: float) -> int:
        """How many more workers would help now: at most as many as are there."""
        with self.lock:
            if not self._workers or size is None or not self._has_room(now):
                return 0
            places = len(self._free(received, size)) + len(self._long())
            return min(len(self._workers), places)

    # -- Who fetches what.

    def claim(
        self, control: Control, received: Ranges, size: int | None, *, may_split: bool
    ) -> Segment | None:
        """What this worker fetches next; None: all is there, or others are at it."""
        with self.lock:
            if stopped := next((s for s in self._segments if not s.control), None):
                stopped.control = control
                return stopped
            segment = self._next(received, size) or (self._split() if may_split else None)
            if segment:
                segment.control = control
                self._segments.append(segment)
            return segment

    def add(self, segment: Segment) -> Segment:
        """A worker fetches what nobody misses."""
        with self.lock:
            self._segments.append(segment)
        return segment

    def _next(self, received: Ranges, size: int | None) -> Segment | None:
        if size is None:  # then there is one segment only
            return None if self._segments else Segment(received.head(), None)
        free = self._free(received, size)
        return Segment(*free[0]) if free else None

    def _free(self, received: Ranges, size: int) -> list[tuple[int, int]]:
        """What is missing and fetched by nobody, and responses that nobody reads."""
        taken = Ranges((start, end) for start, end in received.as_list())
        for segment in self._segments:
            if segment.control and segment.end is not None:
                taken.add(segment.start, max(segment.start, segment.end))
        return taken.missing(size)

    def _split(self) -> Segment | None:
        """Halve the segment that would take longest."""
        longest = max(self._long(), key=lambda segment: segment.seconds_left, default=None)
        if not longest or longest.end is None:
            return None
        middle, end = longest.start + (longest.end - longest.start) // 2, longest.end
        longest.end, longest.is_cut = middle, True
        return Segment(middle, end)

    def _long(self) -> list[Segment]:
        """Those whose rest is worth another connection."""
        return [segment for segment in self._segments if segment.takes_longer(self._split_seconds)]

    def drop(self, segment: Segment) -> None:
        """A worker does not fetch it any more."""
        segment.close()
        with self.lock:
            if segment in self._segments:
                self._segments.remove(segment)

    def hang_up(self) -> None:
        """Close the responses that nobody reads."""
        with self.lock:
            for segment in self._segments:
                if not segment.control:
                    segment.close()
            self._segments = [segment for segment in self._segments if segment.control]

    def stop(self, segment: Segment) -> None:
        """Its worker goes; an open response stays for the next one."""
        if not segment.body or segment.is_done:
            self.drop(segment)
            return
        with self.lock:
            segment.control, segment.was_kept = None, True

