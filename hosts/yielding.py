"""Threads, and a child process while this process cannot bear them."""

from __future__ import annotations

import threading
from enum import IntEnum, auto
from typing import assert_never

from ..transfer.job import Halted, Job, Phase, Progress, Settings
from .clerk import write_private
from .ledger import Entry, Ledger
from .process import ProcessHost
from .room import Sharing
from .threads import ThreadHost
from .vocabulary import Ended, Event, Report, Started, State

HELD = "held while rendering"
WAITING = "waiting for its turn"


class _Place(IntEnum):
    """Where a download is."""

    NOWHERE = auto()
    """Nobody runs it now."""
    THREADS = auto()
    """Threads of this process have it."""
    CHILD = auto()
    """The child has it, until it ends."""


class _Threads(ThreadHost):
    """Beside a window that somebody works in."""

    gives_way = True


class YieldingHost(Sharing):
    """Threads in this process; while it is held, a child process goes on with what they did.

    What went to the child stays there until it ends, and so does what is submitted meanwhile; then
    threads do the work again. What only an open connection brings to its end waits, held. See `Host`.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._held = threading.Event()
        self._state = State.LEAVING
        self._threads = _Threads(settings)
        self._child: ProcessHost | None = None
        self._ledger = Ledger(_Place)

    def hold(self) -> None:
        """Have no worker thread in this process from now on. Does not wait. Any thread."""
        self._held.set()
        self._threads.dismiss()

    def let_go(self) -> None:
        """Threads may live here again."""
        self._held.clear()

    def submit(self, job: Job) -> None:
        entry = self._ledger.open(job, _Place.NOWHERE)
        self._state = State.OPEN
        if not self._held.is_set() and not self._child:
            self._run_here(entry)

    def stop(self, uid: int) -> None:
        entry = self._ledger.find(uid)
        if not entry:
            return
        entry.is_stopping = True
        if entry.place is _Place.NOWHERE:
            self._ledger.end(entry, Halted())
        elif entry.place is _Place.CHILD and self._child:
            self._child.stop(uid)
        else:
            self._threads.stop(uid)

    @property
    def _hosts(self) -> list[ThreadHost | ProcessHost]:
        return [self._threads, self._child] if self._child else [self._threads]

    def hang_up(self, uid: int) -> None:
        for host in self._hosts if uid not in self._ledger else ():
            host.hang_up(uid)

    def forget(self, uid: int) -> None:
        for host in self._hosts if uid not in self._ledger else ():
            host.forget(uid)

    def store(self, path: str, data: bytes) -> None:
        if self._child:  # also one that leaves: an older one that it has would come after this one
            self._child.store(path, data)
        elif self._held.is_set() and self._threads.is_quiet():
            write_private(path, data)
        else:
            self._threads.store(path, data)

    def wait(self, seconds: float) -> None:
        (self._child or self._threads).wait(seconds)

    def poll(self) -> Report:
        if self._held.is_set():
            self._threads.dismiss()  # again: a submit may have crossed the first one
        here = self._threads.poll()
        self._hear(here)
        there = self._child.poll() if self._child else Report()
        self._hear(there)
        self._move()
        progress = self._ledger.progress(here.progress | there.progress)
        return Report(self._ledger.take_events(), {uid: self._say(uid, one) for uid, one in progress.items()})

    def _say(self, uid: int, progress: Progress) -> Progress:
        """With the reason why a download waits."""
        if progress.phase is not Phase.IDLE or not (entry := self._ledger.find(uid)):
            return progress
        if entry.place is _Place.CHILD:
            return progress._replace(text=WAITING)
        return progress._replace(text=HELD) if self._held.is_set() else progress

    # -- What they tell.

    def _hear(self, report: Report) -> None:
        for event in report.events:
            if entry := self._ledger.find(event.uid):
                self._note(entry, event)

    def _note(self, entry: Entry[_Place], event: Event) -> None:
        match event:
            case Started():
                self._ledger.start(entry, entry.place)
            case Ended(outcome=Halted()) if entry.place is _Place.THREADS and not entry.is_stopping:
                self._ledger.move(entry, _Place.NOWHERE)  # it had to leave because of the hold
            case Ended(outcome=outcome):
                self._ledger.end(entry, outcome)
            case _:
                assert_never(event)

    # -- From here to there and back.

    def _move(self) -> None:
        """Place what nobody runs, and let a child go that has nothing left to do."""
        if self._child and self._child.is_leaving:
            if self._child.is_quiet():
                self._drop_child()
            return
        if self._held.is_set() and self._threads.is_settling:
            return  # first it must show what stays here
        for entry in list(self._ledger.at(_Place.NOWHERE).values()):
            self._place(entry)
        if self._child:
            self._share()
            self._let_go(self._child)

    def _place(self, entry: Entry[_Place]) -> None:
        """Have a download run where it can; it stays where it is if that is nowhere."""
        is_held = self._held.is_set()
        carried = self._threads.hand_over(entry.job) if is_held or self._child else None
        if carried:
            self._child = self._child or ProcessHost(self.settings)
            self._child.submit(entry.job, carried)
            self._ledger.move(entry, _Place.CHILD)
        elif not is_held:
            self._run_here(entry)

    def _run_here(self, entry: Entry[_Place]) -> None:
        self._ledger.move(entry, _Place.THREADS)
        self._threads.submit(entry.job)

    def _share(self) -> None:
        self.go_by(self.room.within(self.settings))

    def go_by(self, settings: Settings) -> None:
        """Between threads and child. What is open here counts towards the limit, and one is the child's.

        What is paused gives its own up where the child has a download for it. Of the speed each has as much
        as of the downloads, but never 0: no limit.
        """
        limit, speed, theirs, slower = settings.connections, settings.speed_limit, 0, 0
        if self._child:
            here, moved = (len(self._ledger.at(place)) for place in (_Place.THREADS, _Place.CHILD))
            stays = len(self._ledger) - moved
            theirs = max(1, limit - self._threads.connections.busy, min(moved, limit - stays))
            slower = speed and max(1, min(speed - 1, speed * moved // max(1, here + moved)))
            self._child.change(connections=theirs, speed_limit=slower, tokens=settings.tokens)
        faster = speed and max(1, speed - slower)
        self._threads.change(connections=limit - theirs, speed_limit=faster, tokens=settings.tokens)

    def _let_go(self, child: ProcessHost) -> None:
        is_needed = self._held.is_set() or self._ledger.at(_Place.CHILD)
        if self._state is State.OPEN and not is_needed:
            child.dismiss()

    def _drop_child(self, *, forced: bool = False) -> None:
        """It leaves, or has left."""
        child, self._child = self._child, None
        if child:
            self._hear(child.shut(forced=forced))
        self._share()

    def used(self) -> int:
        return sum(host.used() for host in self._hosts)

    # -- The ends.

    def dismiss(self, *, keep: bool = False) -> None:
        self._state = State.RESTING if keep else State.LEAVING
        for entry in self._ledger:
            entry.is_stopping = True
        for entry in list(self._ledger.at(_Place.NOWHERE).values()):
            self._ledger.end(entry, Halted())
        self._threads.dismiss()
        if self._child and not self._child.is_leaving:
            self._child.dismiss(keep=keep)

    def is_quiet(self) -> bool:
        return not self._ledger.at(_Place.NOWHERE) and all(host.is_quiet() for host in self._hosts)

    def close(self, *, forced: bool = False, keep: bool = False) -> Report:
        self.dismiss(keep=keep)
        self._hear(self._threads.close(forced=forced))
        if not keep:
            self._drop_child(forced=forced)
        return self.poll()

    def shut(self, *, forced: bool = False) -> Report:
        report = self.close(forced=forced)
        self._threads.shut(forced=forced)
        return report
