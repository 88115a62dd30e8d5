"""What a host was given and has not ended: kept once, for every kind of host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import TYPE_CHECKING, Generic, TypeVar

from ..transfer.job import Phase, Progress
from .vocabulary import Ended, Event, Started

if TYPE_CHECKING:
    from ..transfer.fetch import Carried
    from ..transfer.job import Job, Outcome

Place = TypeVar("Place", bound=Enum)


@dataclass(slots=True)
class Entry(Generic[Place]):
    """One download that was submitted and has not ended."""

    job: Job
    place: Place
    carried: Carried | None = None
    """What another process has done of it, which gave it away."""
    is_stopping: bool = False
    """Whether somebody asked it to stop."""

    @property
    def uid(self) -> int:
        return self.job.uid


class Ledger(Generic[Place]):
    """Each download is in one place, submitted twice is an error, each ends once, events keep their order.

    Not locked: whoever owns it guards it.
    """

    def __init__(self, places: type[Place]) -> None:
        self._entries: dict[int, Entry[Place]] = {}
        self._places: dict[Place, dict[int, Entry[Place]]] = {place: {} for place in places}
        self._begun: dict[int, Progress] = {}  # how far they were when last looked at
        self._events: list[Event] = []

    def open(self, job: Job, place: Place, carried: Carried | None = None) -> Entry[Place]:
        """Take a download in. Raises ValueError while one of this uid has not ended."""
        if job.uid in self:
            raise ValueError("submitted twice")
        entry = self._places[place][job.uid] = self._entries[job.uid] = Entry(job, place, carried)
        return entry

    def find(self, uid: int) -> Entry[Place] | None:
        """The download, while it has not ended."""
        return self._entries.get(uid)

    def __contains__(self, uid: int) -> bool:
        return uid in self._entries

    def __iter__(self) -> Iterator[Entry[Place]]:
        """All of them; they may be moved and ended meanwhile."""
        return iter(list(chain.from_iterable(entries.values() for entries in self._places.values())))

    def __len__(self) -> int:
        return len(self._entries)

    def at(self, place: Place) -> Mapping[int, Entry[Place]]:
        """Those in a place by uid, in the order in which they came there."""
        return self._places[place]

    def move(self, entry: Entry[Place], place: Place) -> None:
        """It is there from now on, behind all that are there already."""
        del self._places[entry.place][entry.uid]
        entry.place = place
        self._places[place][entry.uid] = entry

    def start(self, entry: Entry[Place], place: Place) -> None:
        """A worker has taken it."""
        self.move(entry, place)
        self._events.append(Started(entry.uid))

    def end(self, entry: Entry[Place], outcome: Outcome) -> None:
        """The one terminal event."""
        del self._places[entry.place][entry.uid], self._entries[entry.uid]
        self._begun.pop(entry.uid, None)
        self._events.append(Ended(entry.uid, outcome))

    def progress(self, running: Mapping[int, Progress]) -> dict[int, Progress]:
        """How far those are that have begun; what does not run just now waits where it was."""
        for uid in self._begun.keys() - running.keys():
            self._begun[uid] = self._begun[uid]._replace(phase=Phase.IDLE, idle=0.0, text="")
        self._begun |= {uid: progress for uid, progress in running.items() if uid in self}
        return dict(self._begun)

    def take_events(self) -> list[Event]:
        """What happened since the last time."""
        events, self._events = self._events, []
        return events
