"""Which worker fetches which bytes of one file.

A download is a list of byte ranges, usually one. Every worker on it is the same as any other: it
claims what nobody fetches, and leaves when there is nothing or when something goes wrong. What
concerns the whole file (to begin anew, to wait, to fail, to finish) is decided only by one that is
alone: so a refused or broken connection beside another costs nothing but speed.

Neighbours both fetch the bytes at their joint, and compare them: so answers that are of different
files are not put together. And an open response is surer than one that has to be asked for: it is
read on until another one has brought what comes next, and both have the same at their joint.
"""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .connections import Connections
from .control import Control
from .ranges import Ranges
from .servers import REGAIN_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .body import Body
    from .connect import Client

OVERLAP = 64 << 10  # bytes of a request that are there already, and are compared with the disk;
JOINT = 16 << 10  # so many of them behind its end, where the file goes on there
SPLIT_BYTES = 64 << 10  # half of what is split is at least this long
MEASURE_SECONDS = 0.1  # after which the speed of a connection is known
YOUNG_SECONDS = 1.0  # in which what others bring tells as much of a connection's speed as its own bytes
SOON_SECONDS = 2.0  # that one worker waits for what another has nearly fetched


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
    reach: int | None = None
    """Where its response ends, which may be behind `end`; None: not known."""
    is_overlong: bool = False
    """Whether the response goes on behind that."""
    counts: bool = False
    """Whether it puts what is there in doubt if it does not fit: it has brought something that was not
    there, or was asked for though nothing was known to be missing."""
    is_void: bool = False
    """Whether what it brings is of no use: it does not fit the answer that is gone by."""
    was_kept: bool = False
    """Whether the worker that reads may be another than the one that asked."""
    is_sole: bool = False
    """Whether its response is read by one worker to the end, however much of it is there already."""
    began: int = 0
    """Where its response began,"""
    began_at: float = field(default_factory=time.monotonic)
    """and when, in seconds of `time.monotonic`."""

    @property
    def is_whole(self) -> bool:
        """Whether its response is the whole file, and says how long that is."""
        return self.began == 0 and self.reach is not None

    @property
    def is_past_end(self) -> bool:
        """Whether what is still to come is somebody else's."""
        goes_on = self.is_overlong or (self.reach or 0) > (self.end or 0)
        return self.end is not None and self.offset >= self.end and goes_on

    @property
    def elapsed(self) -> float:
        """Seconds since its answer, while somebody reads it."""
        return time.monotonic() - self.began_at if self.control and self.body else 0.0

    @property
    def speed(self) -> float:
        """Bytes a second since its answer; 0 while that is not known."""
        elapsed = self.elapsed
        return max(1, self.offset - self.began) / elapsed if elapsed > 0 else 0.0

    def seconds_left(self, usual: float) -> float:
        """How long the rest will take, where the end is known.

        `usual`: bytes a second of any connection. This one may be young, and have begun with a burst.
        """
        count = self.offset - self.began if self.body else 0
        speed = (count + usual * YOUNG_SECONDS) / (self.elapsed + YOUNG_SECONDS)
        return (self.end - self.offset) / max(1.0, speed) if self.end is not None else 0.0

    @property
    def is_measured(self) -> bool:
        """Whether its speed is known."""
        return self.offset > self.began and self.elapsed >= MEASURE_SECONDS

    @property
    def is_young(self) -> bool:
        """Whether its speed will be known soon."""
        is_recent = time.monotonic() - self.began_at < YOUNG_SECONDS
        return is_recent and self.control is not None and not self.is_measured

    def takes_longer(self, seconds: float) -> bool:
        """Whether its rest does, and can be halved."""
        is_large = self.end is not None and self.end - self.offset >= 2 * SPLIT_BYTES
        return is_large and self.is_measured and self.seconds_left(self.speed) > seconds

    def answered(self, end: int | None, reach: int | None) -> None:
        """The head of its response is there; `end` may come earlier than asked for."""
        self.end, self.reach = end, reach
        self.began, self.began_at = self.offset, time.monotonic()

    def read_to(self, end: int) -> None:
        """Read on up to there, as far as its response reaches."""
        self.end = min(end, self.reach or 0)

    def fitting(self, data: memoryview) -> memoryview:
        """What its response was to bring, which may go on behind that."""
        if self.reach is None or self.offset + len(data) <= self.reach:
            return data
        self.is_overlong = True
        return data[: self.reach - self.offset]

    def took(self, count: int, *, is_new: bool) -> None:
        """So many bytes were placed."""
        self.offset, self.counts = self.offset + count, self.counts or is_new

    def let_go(self) -> None:
        """Nobody reads its response, which stays open."""
        self.control, self.was_kept = None, True

    def hang_up(self) -> None:
        """End its connection. Any thread, while nobody reads its response."""
        body, self.body = self.body, None
        if body:
            body.close()


class Segments:
    """The workers of one transfer, and what each of them fetches. Any thread may call."""

    def __init__(self, lock: threading.Lock, split_seconds: float, connections: Connections) -> None:
        self.lock = lock
        """Guards what is received, and the transfer's counters too."""
        self._split_seconds = split_seconds
        self._connections = connections
        self._workers: dict[Control, None] = {}  # as they came
        self._segments: list[Segment] = []
        self._welcomes = False  # others
        self._most = 1 << 30  # workers that the server seems to bear
        self._failed_at = 0.0
        self._refused = False  # the last request

    @property
    def controls(self) -> list[Control]:
        """Of the workers, as they came."""
        with self.lock:
            return list(self._workers)

    def __len__(self) -> int:
        """How many workers there are."""
        return len(self._workers)

    @property
    def connections(self) -> int:
        """How many responses are open that nobody reads."""
        with self.lock:
            return sum(not segment.control and segment.body is not None for segment in self._segments)

    @property
    def text(self) -> str:
        """Of what comes, for people, where that is there already: a server without ranges sends it again."""
        with self.lock:
            sole = [segment for segment in self._segments if segment.is_sole]
        return "catching up" if any(segment.body and not segment.counts for segment in sole) else ""

    # -- Coming and going.

    def enter(self, control: Control, *, helps: bool) -> bool:
        """A worker begins; False: its help is not wanted any more."""
        with self.lock:
            if helps and not (self._workers and self._has_room(time.monotonic())):
                return False
            self._workers[control] = None
            return True

    def leave(self, control: Control, *, failed: bool = False, wait: float = 0.0) -> bool:
        """A worker goes; False: it is alone, and stays so, for what only one can decide.

        `wait`: seconds for which the server asks no more of it.
        """
        with self.lock:
            if list(self._workers) == [control]:
                self._welcomes = False
                control.stay()
                return False
            self._workers.pop(control, None)
            if failed:
                self._most, self._failed_at = max(1, len(self._workers)), time.monotonic() + wait
            return True

    def exit(self, control: Control) -> None:
        """The last worker is gone, or one that has left already."""
        with self.lock:
            self._workers.pop(control, None)

    def is_alone(self) -> bool:
        """Whether there is one worker only; then no other comes."""
        with self.lock:
            self._welcomes = self._welcomes and len(self._workers) > 1
            return len(self._workers) == 1

    def call_back(self, size: int | None) -> bool:
        """Have a worker leave that can be spared: the last one that came; False: there is none.

        It is not the one whose response would bring all, if it is the only one that does.
        """
        with self.lock:
            main = self._main(size)
            staying = [control for control in self._workers if not control.is_called_back]
            spared = [control for control in staying if not (main and main.control is control)]
            if len(staying) < 2:
                return False
            spared[-1].call_back()
            return True

    def call_off(self, control: Control) -> None:
        """All is there: the other workers need not wait for what they have asked for."""
        with self.lock:
            for other in self._workers.keys() - {control}:
                other.call_back()

    def welcome(self) -> None:
        """Others may help: the server takes ranges, and what is received so far will stay."""
        with self.lock:
            self._welcomes, self._refused = True, False

    def _has_room(self, now: float) -> bool:
        regained = max(0, int((now - self._failed_at) / REGAIN_SECONDS))
        return self._welcomes and len(self._workers) < self._most + regained

    def wanted(self, received: Ranges, size: int | None, now: float) -> int:
        """How many more workers would help now: at most as many as are there."""
        with self.lock:
            if not self._workers or size is None or not self._has_room(now):
                return 0
            if self._connections.throttle.holds_back:
                return 0
            places = len(self._free(received, size)) + len(self._long())
            return min(len(self._workers), places)

    # -- Who fetches what.

    def take_up(self, control: Control) -> Segment | None:
        """Go on with an open response that nobody reads; None: there is none."""
        with self.lock:
            for stopped in [segment for segment in self._segments if not segment.control]:
                if self._connections.take_up(stopped):
                    stopped.control = control
                    return stopped
                self._segments.remove(stopped)
            return None

    def claim(
        self, control: Control, received: Ranges, size: int | None, *, may_split: bool
    ) -> Segment | None:
        """What this worker asks for next; None: all is there, or others are at it."""
        with self.lock:
            is_whole = size is not None and received.head() == size
            segment = self._next(received, size) or (self._split() if may_split and not is_whole else None)
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
        if not free:
            return None
        start, end = free[0]
        return Segment(start, min(end + JOINT, size))

    def _free(self, received: Ranges, size: int) -> list[tuple[int, int]]:
        """What is missing and fetched by nobody, and responses that nobody reads."""
        taken = Ranges((start, end) for start, end in received.as_list())
        for segment in self._segments:
            if segment.control and segment.end is not None:
                taken.add(segment.offset, max(segment.offset, segment.end))
        return taken.missing(size)

    def _split(self) -> Segment | None:
        """Halve the segment that would take longest."""
        longest = next(iter(self._long()), None)
        if not longest or longest.end is None:
            return None
        middle, end = longest.offset + (longest.end - longest.offset) // 2, longest.end
        longest.end = middle + JOINT
        return Segment(middle, end)

    def _long(self) -> list[Segment]:
        """Those whose rest is worth another connection, the longest first; none may soon prove longer."""
        speeds = [speed for segment in self._segments if (speed := segment.speed)]
        usual = sum(speeds) / max(1, len(speeds))
        ordered = sorted(self._segments, key=lambda segment: -segment.seconds_left(usual))
        known = itertools.takewhile(lambda segment: not segment.is_young, ordered)
        return [segment for segment in known if segment.takes_longer(self._split_seconds)]

    def go_on(self, segment: Segment, received: Ranges, size: int, speed: float) -> bool | None:
        """Whether a response is read on behind the segment's end; None: that shows in a moment.

        It is, into what nobody fetches and is near, or where whoever fetches it would take longer.
        """
        with self.lock:
            gap = next((gap for gap in received.missing(size) if gap[1] > segment.offset), None)
            if not gap or gap[0] >= (segment.reach or 0):
                return False
            owner = self._owner(gap[0], segment)
            if owner and owner.body:
                return self._overtake(owner, segment, speed)
            is_near = self._refused or gap[0] - segment.offset <= max(OVERLAP, speed * SOON_SECONDS)
            if not is_near:
                return None if owner else False
            segment.read_to(_robbed(owner) if owner else self._free_end(gap) + JOINT)
            return True

    def _overtake(self, owner: Segment, segment: Segment, speed: float) -> bool | None:
        """Read on what another reads, where it would take longer."""
        rest, way = _rest(owner), (owner.end or 0) - segment.offset
        if not rest or rest <= way / max(1.0, speed):
            return None if rest <= SOON_SECONDS else False
        segment.read_to(owner.end or 0)
        return True

    def _owner(self, position: int, but: Segment) -> Segment | None:
        """Who fetches what."""
        for segment in self._segments:
            if segment is not but and segment.control and segment.offset <= position < (segment.end or 0):
                return segment
        return None

    def _free_end(self, gap: tuple[int, int]) -> int:
        """Up to where nobody fetches what is missing."""
        starts = (segment.offset for segment in self._segments if segment.control)
        return min((start for start in starts if gap[0] < start < gap[1]), default=gap[1])

    def drop(self, segment: Segment, client: Client, *, failed: bool = False) -> None:
        """A worker does not fetch it any more; its client may keep a connection."""
        was_refused = failed and not segment.body
        segment.hang_up()
        if client.is_idle:
            self._connections.hand_back(segment, client)
        else:
            self._connections.end(segment)
        with self.lock:
            self._refused = self._refused or was_refused
            if segment in self._segments:
                self._segments.remove(segment)

    def rely_on_one(self, size: int | None) -> Segment | None:
        """What several brought does not fit: only the whole file's response counts, if it is open yet.

        Returns that one. It has brought all before its offset, and is read to its end by one worker.
        """
        with self.lock:
            main = self._main(size)
            if main and main.began:
                main = None
            for segment in self._segments:
                segment.is_void = segment is not main
            if main:
                main.end, main.is_sole = main.reach, True
            self._welcomes = False
        self._close_all(lambda segment: segment.is_void and not segment.control)
        return main

    def _main(self, size: int | None) -> Segment | None:
        """Whose response would bring most of the file by itself, up to its end."""
        to_end = (s for s in self._segments if s.body and s.reach == size and not s.is_void)
        return min(to_end, key=lambda segment: segment.began, default=None) if size else None

    def hang_up(self) -> None:
        """Close the responses that nobody reads."""
        self._close_all(lambda segment: not segment.control)

    def _close_all(self, condition: Callable[[Segment], bool]) -> None:
        if not self._segments:  # nearly always
            return
        with self.lock:
            for segment in filter(condition, self._segments):
                self._connections.end(segment)  # then nobody else closes it
                segment.hang_up()
            self._segments = [segment for segment in self._segments if not condition(segment)]

    def stop(self, segment: Segment, client: Client) -> None:
        """Its worker goes; an open response stays for the next one."""
        if not segment.body or segment.is_past_end or segment.is_void:
            self.drop(segment, client)
            return
        with self.lock:
            segment.let_go()
            self._connections.keep(segment)


def _robbed(owner: Segment) -> int:
    """Where somebody was to end, who has been asking since another was split, and may stop now."""
    end, owner.end = owner.end or 0, owner.offset
    return end


def _rest(segment: Segment) -> float:
    """Seconds that the rest takes, if it goes on as it did until now; 0: not known yet."""
    if not segment.control or segment.end is None or segment.elapsed < MEASURE_SECONDS:
        return 0.0
    idle = segment.control.idle(time.monotonic())
    return max((segment.end - segment.offset) / segment.speed, idle)
