"""Threads, and a child process while this process cannot bear them."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import assert_never

from ..transfer.job import Halted, Job, Outcome, Settings
from .clerk import write_private
from .process import ProcessHost
from .threads import ThreadHost
from .vocabulary import Ended, Event, Report, Started

HELD = "held while rendering"


class YieldingHost:
    """Threads in this process; while it is held, a child process goes on with what they did.

    What went to the child stays there until it ends, and so does what is submitted meanwhile; then
    threads do the work again. What only an open connection brings to its end waits, held. See `Host`.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._held = threading.Event()
        self._threads = ThreadHost(settings)
        self._child: ProcessHost | None = None
        self._active: dict[int, Job] = {}  # submitted, and not ended since
        self._parked: dict[int, Job] = {}  # of these: nobody runs them now
        self._in_child: set[int] = set()
        self._stopping: set[int] = set()  # by threads, because somebody asked
        self._events: list[Event] = []
        self._is_leaving = False  # the child
        self._is_dismissed = True

    def hold(self) -> None:
        """Have no worker thread in this process from now on. Does not wait. Any thread."""
        self._held.set()
        self._threads.dismiss()

    def let_go(self) -> None:
        """Threads may live here again."""
        self._held.clear()

    def submit(self, job: Job) -> None:
        if job.uid in self._active:
            raise ValueError("submitted twice")
        self._is_dismissed = False
        self._active[job.uid] = self._parked[job.uid] = job
        if not self._held.is_set() and not self._child:
            self._place(job)

    def stop(self, uid: int) -> None:
        if uid in self._parked:
            self._end(uid, Halted())
        elif uid in self._in_child and self._child:
            self._child.stop(uid)
        elif uid in self._active:
            self._stopping.add(uid)
            self._threads.stop(uid)

    def hang_up(self, uid: int) -> None:
        if uid not in self._active:
            self._threads.hang_up(uid)
            if self._child:
                self._child.hang_up(uid)

    def forget(self, uid: int, *, delete: bool = False) -> None:
        if uid not in self._active:
            self._threads.forget(uid, delete=delete)
            if self._child:
                self._child.forget(uid, delete=delete)

    def store(self, path: str, data: bytes) -> None:
        if self._child and not self._is_leaving:
            self._child.store(path, data)
        elif self._held.is_set() and self._threads.is_quiet():
            write_private(path, data)
        else:
            self._threads.store(path, data)

    def wait(self, seconds: float) -> None:
        if self._child:
            self._child.wait(seconds)
        else:
            self._threads.wait(seconds)

    def poll(self) -> Report:
        if self._held.is_set():
            self._threads.dismiss()  # again: a submit may have crossed the first one
        report = self._threads.poll()
        for event in report.events:
            self._hear_thread(event)
        if self._child:
            theirs = self._child.poll()
            report.progress |= theirs.progress
            for event in theirs.events:
                self._hear(event)
        self._move()
        for uid in self._parked:
            if progress := self._threads.look(uid):
                report.progress[uid] = replace(progress, text=HELD if self._held.is_set() else "")
        report.events, self._events = self._events, []
        return report

    def _hear_thread(self, event: Event) -> None:
        """What threads tell; not that they had to leave a download because of the hold."""
        match event:
            case Ended(uid=uid, outcome=Halted()) if uid not in self._stopping:
                self._parked[uid] = self._active[uid]
            case _:
                self._hear(event)

    def _hear(self, event: Event) -> None:
        match event:
            case Started():
                self._events.append(event)
            case Ended(uid=uid, outcome=outcome):
                self._end(uid, outcome)
            case _:
                assert_never(event)

    def _end(self, uid: int, outcome: Outcome) -> None:
        del self._active[uid]
        self._parked.pop(uid, None)
        self._in_child.discard(uid)
        self._stopping.discard(uid)
        self._events.append(Ended(uid, outcome))

    # -- From here to there and back.

    def _move(self) -> None:
        """Place what nobody runs, and let a child go that has nothing left to do."""
        if self._is_leaving:
            if self._child and self._child.is_quiet():
                self._drop_child()
            return
        if self._held.is_set() and self._threads.is_settling:
            return  # first it must show how many connections stay here
        for job in list(self._parked.values()):
            self._place(job)
        if self._child and not (self._in_child or self._held.is_set() or self._is_dismissed):
            self._child.dismiss()
            self._is_leaving = True

    def _place(self, job: Job) -> None:
        """Have a download run where it can; it stays parked where that is nowhere."""
        is_held = self._held.is_set()
        carried = self._threads.hand_over(job) if is_held or self._child else None
        if carried:
            self._child = self._child or self._new_child()
            self._child.submit(job, carried)
            self._in_child.add(job.uid)
        elif not is_held:
            self._threads.submit(job)
        if carried or not is_held:
            del self._parked[job.uid]

    def _new_child(self) -> ProcessHost:
        """Connections that stay open here count towards the limit, and one at least is the child's."""
        limit = max(1, self.settings.connections - self._threads.kept)
        self._threads.shrink(self.settings.connections - limit)
        return ProcessHost(replace(self.settings, connections=limit))

    def _drop_child(self, *, forced: bool = False) -> None:
        """It leaves, or has left."""
        child, self._child = self._child, None
        self._is_leaving = False
        if child:
            for event in child.shut(forced=forced).events:
                self._hear(event)
        self._threads.shrink(self.settings.connections)

    # -- The ends.

    def dismiss(self, *, keep: bool = False) -> None:
        self._is_dismissed = True
        for uid in list(self._parked):
            self._end(uid, Halted())
        self._stopping |= self._active.keys() - self._in_child
        self._threads.dismiss()
        if self._child and not self._is_leaving:
            self._child.dismiss(keep=keep)
            self._is_leaving = not keep

    def is_quiet(self) -> bool:
        is_child_quiet = self._child is None or self._child.is_quiet()
        return not self._parked and self._threads.is_quiet() and is_child_quiet

    def close(self, *, forced: bool = False, keep: bool = False) -> Report:
        self.dismiss(keep=keep)
        for event in self._threads.close(forced=forced).events:
            self._hear(event)
        if not keep:
            self._drop_child(forced=forced)
        return self.poll()

    def shut(self, *, forced: bool = False) -> Report:
        report = self.close(forced=forced)
        self._threads.shut(forced=forced)
        return report
