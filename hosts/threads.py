"""Worker threads in this process: who has which transfer, and how they end."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from enum import IntEnum, auto
from typing import TYPE_CHECKING

from ..transfer import portable
from ..transfer.ahead import Look
from ..transfer.connections import Connections
from ..transfer.control import Control, Waker
from ..transfer.fetch import BUFFER, Carried, Transfer, log_defect
from ..transfer.job import (
    Failed,
    Finished,
    Halted,
    Job,
    Outcome,
    Phase,
    Seen,
    Settings,
    Skipped,
    Stopped,
    TransferError,
)
from ..transfer.mirrors import Mirror
from ..transfer.space import Space
from ..transfer.turns import IDLE_PATIENCE, Turn
from .clerk import Clerk
from .ledger import Entry, Ledger
from .origin import NAME
from .room import Sharing
from .vocabulary import POLL, Report, State

if TYPE_CHECKING:
    from ..transfer.connect import Client, Environment

SLACK = 1.25  # times the time-out: what waits in its socket for so long ends first, and says for what
AT_ONCE = 2  # workers that are started before it is known whether more than one is of use
AT_A_LOOK = 4  # that come at most with a look: each waits for Python's lock, and a window may wait with it
SOON = 0.002  # seconds in which nothing moved, after which a worker waits for somebody,
HELD_UP = 0.1  # and one that has its turn, for a disk: no file takes so long to compute
LOOK = 0.005  # seconds until it is seen whether more workers are of use, then twice as many each time
LOOKUP_PATIENCE = 2.0  # seconds that a forced close waits for the system's name look-up
DISK_PATIENCE = 20.0  # likewise for a disk: one that is only slow has answered by then


class Worker(threading.Thread):
    """Takes transfers from its host until there are none and the host lets it go.

    Daemon, and joined all the same: a path nobody foresaw must not hang Blender's quit.
    """

    def __init__(self, host: ThreadHost, number: int) -> None:
        super().__init__(name=f"{NAME}-{number}", daemon=True)
        self.control: Control | None = None
        """Of the transfer that it runs."""
        self.uid = 0
        self.helps = False
        """Whether another worker had the transfer before."""
        self.waker = Waker()
        self.turn = Turn()
        self.abandoned = False
        self.stuck: Transfer | Look | None = None
        """What it was abandoned with, on a disk that did not answer; nobody else can release that."""
        self._client: Client | None = None
        self._host = host

    @property
    def is_in_lookup(self) -> bool:
        """Whether it is where nothing can interrupt it."""
        return self.control is not None and self.control.phase is Phase.LOOKUP

    def run(self) -> None:
        if self._host.gives_way:
            portable.give_way()
        try:
            buffer = memoryview(bytearray(BUFFER))
            while transfer := self._host.take(self):
                self.turn.take()
                self._host.put(self, self._run(transfer, buffer))
        finally:
            self.turn.give()
            with ExitStack() as ends:  # all of them, whatever one raises
                ends.callback(self._host.leave, self)
                if self.stuck:
                    ends.callback(self.stuck.close)
                if self._client:
                    ends.callback(self._host.connections.end, self._client)
                    ends.callback(self._client.close)

    def _run(self, transfer: Transfer | Look, buffer: memoryview) -> Outcome | None:
        """How the transfer ended; None: others go on with it."""
        assert self.control
        try:
            self._client = self._client or self._host.new_client()
            self._client.tokens = self._host.settings.tokens
            return transfer.run(self.control, self._client, buffer, helps=self.helps)
        except Stopped:
            return Halted()
        except TransferError as error:
            has_looked = self.control.phase is not Phase.IDLE  # at what is there
            return Failed(str(error), transfer.received if has_looked else None)
        except BaseException as error:  # a defect of ours fails this download, and is told
            log_defect(error)
            if self.helps and not self._client:
                transfer.decline(self.control)
                return None
            return Failed(_UNFORESEEN)


_UNFORESEEN = "Something unforeseen went wrong; Blender's console has the details"


class _Place(IntEnum):  # whose members are found faster than those of an Enum
    """Where a download is."""

    PENDING = auto()
    """It waits for a worker."""
    TAKEN = auto()
    """Workers have it."""


class ThreadHost(Sharing):
    """Worker threads in this process. See `Host`."""

    gives_way = False
    """Whether the threads come after all others: nobody waits for them alone."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.connections = Connections(settings.connections, settings.speed_limit)
        self._environment: Environment | None = None
        self._mirror: Mirror | None = None
        self._space = Space()
        self._clerk = Clerk()
        self._news = threading.Event()
        self._changed = threading.Condition()  # guards all below
        self._transfers: dict[int, Transfer | Look] = {}  # submitted, and not forgotten since
        self._ledger = Ledger(_Place)
        self._helped: deque[int] = deque()  # those that idle workers may help with
        self._workers: set[Worker] = set()
        self._left: list[Worker] = []
        self._number = 0
        self._state = State.LEAVING

    # -- The main thread's side.

    def submit(self, job: Job, carried: Carried | None = None) -> None:
        """See `Host`. `carried`: what another process has done of it, which gave it away."""
        with self._changed:
            self._ledger.open(job, _Place.PENDING)
            self._state = State.OPEN
            self._clerk.catch_up()
            if carried:  # else its worker makes it: thousands of them would hold up whoever submits
                self.adopt(job, carried)
            self._bring_in(time.monotonic(), 1)
            self._changed.notify()

    def adopt(self, job: Job, carried: Carried | None = None) -> None:
        """Know of a download, without running it."""
        with self._changed:
            known = self._transfers.get(job.uid)
            if known and known.job == job:
                return
            if known:  # the link was replaced
                self._do(known.close)
            self._transfers[job.uid] = self._new(job, carried)

    def _new(self, job: Job, carried: Carried | None) -> Transfer | Look:
        if job.looks is not None:
            return Look(job, self.settings, self.connections)
        return Transfer(job, self.settings, self._space, self.connections, carried=carried)

    @property
    def _idle(self) -> int:
        """How many workers take what comes next."""
        return sum(not worker.uid for worker in self._workers)

    @property
    def _pending(self) -> Mapping[int, Entry[_Place]]:
        return self._ledger.at(_Place.PENDING)

    @property
    def _taken(self) -> Mapping[int, Entry[_Place]]:
        return self._ledger.at(_Place.TAKEN)

    def _bring_in(self, now: float, most: int) -> None:
        """Workers for what waits, where those there do not keep up: one costs as much as some small files."""
        wanted = min(most, len(self._pending) - self._idle)
        if wanted > 0 and (len(self._workers) < AT_ONCE or self._all_wait(now)):
            busy = len(self._workers) - self._idle
            if not all(self._start_worker() for _ in range(wanted)):
                self._call_back_helper(busy)

    def _all_wait(self, now: float) -> bool:
        """Whether none computes, or is about to: more of them would only take Python's lock from it."""
        return all(worker.control and _waits(worker, worker.control, now) for worker in self._workers)

    def _start_worker(self) -> bool:
        """One more, unless that would be too many."""
        if len(self._workers) >= self.connections.limit:
            return False
        if self._environment and not self._workers:  # proxies and passwords may be others by now
            self._environment.hosts.clear()
        with ExitStack() as undo:
            try:
                worker = Worker(self, self._number + 1)
                undo.callback(worker.waker.close)
                worker.start()
            except (OSError, RuntimeError):  # no descriptors or no threads are left
                self._end_if_deserted(_NO_THREADS)
                return False
            undo.pop_all()
        self._number += 1
        self._workers.add(worker)
        return True

    def _end_if_deserted(self, why: str) -> None:
        """Where no worker is left, none comes for what waits."""
        if not self._workers:
            for entry in list(self._pending.values()):
                self._end(entry, Failed(why))

    def stop(self, uid: int) -> None:
        with self._changed:
            if entry := self._ledger.find(uid):
                self._stop(entry)

    def _stop(self, entry: Entry[_Place]) -> None:
        if entry.place is _Place.PENDING:
            self._end(entry, Halted())
            return
        entry.is_stopping = True  # so that no helper goes on with it
        for worker in self._workers:
            if worker.uid == entry.uid and worker.control:
                worker.control.stop()

    def hang_up(self, uid: int) -> None:
        with self._changed:
            if uid not in self._ledger and (transfer := self._transfers.get(uid)):
                transfer.hang_up()

    def forget(self, uid: int) -> None:
        with self._changed:
            if uid in self._ledger or not (transfer := self._transfers.pop(uid, None)):
                return
            transfer.hang_up()
            self._do(transfer.close)

    def _do(self, chore: Callable[[], None]) -> None:
        """What waits for the disk: soon, or with the next download where no thread may be started."""
        if self._state is State.OPEN:
            self._clerk.do(chore)
        else:
            self._clerk.defer(chore)

    # -- Giving transfers to another host, while no worker runs them.

    @property
    def is_settling(self) -> bool:
        """Whether a worker that was asked to stop does so in a moment; a name look-up can last."""
        with self._changed:
            return any(worker.control and not worker.is_in_lookup for worker in self._workers)

    def used(self) -> int:
        with self._changed:
            return min(len(self._workers), len(self._pending) + sum(w.uid != 0 for w in self._workers))

    def go_by(self, settings: Settings) -> None:
        self.connections.throttle.limit = settings.speed_limit
        if settings.connections != self.connections.limit:
            self.resize(settings.connections)

    def resize(self, limit: int) -> None:
        """Have at most so many connections from now on; the longest stopped are closed, helpers leave."""
        with self._changed:
            self.connections.limit = limit
            while self._idle < len(self._pending) and self._start_worker():
                pass

    def hand_over(self, job: Job) -> Carried | None:
        """Give a download up that is not running: what another process needs to go on with it.

        None, and it stays, where only the open connection brings the rest.
        """
        with self._changed:
            self.adopt(job)
            carried = self._transfers[job.uid].carry()
            if carried:
                del self._transfers[job.uid]
            return carried

    def poll(self) -> Report:
        now = time.monotonic()
        with self._changed:
            self._news.clear()
            left, self._left = self._left, []
            report = Report(self._ledger.take_events())
            for worker in self._workers:
                if worker.control:
                    self._supervise(worker.control, now)
            for uid in self._taken:
                report.progress[uid] = self._transfers[uid].progress(now)
            self._bring_in(now, AT_A_LOOK)
            self._send_help(now)
        for worker in left:  # not under the lock: they may want it for their last step
            worker.join()
            worker.waker.close()
        return report

    def _supervise(self, control: Control, now: float) -> None:
        """End a phase on the network that does not get on; the others have ends of their own."""
        control.insist()
        if control.phase in _ON_THE_NETWORK and control.idle(now) > self.settings.timeout * SLACK:
            control.touch()
            control.expire()

    def _send_help(self, now: float) -> None:
        """Idle workers, and some more up to the limit, help with what takes longest; above it one leaves."""
        busy = sum(worker.uid != 0 for worker in self._workers)
        if (room := self.connections.limit - busy) < 0:
            self._call_back_helper(busy)
        if self._pending or self._helped or self._state is not State.OPEN or room <= 0:
            return
        for uid in [uid for uid, entry in self._taken.items() if not entry.is_stopping]:
            self._helped.extend([uid] * min(room - len(self._helped), self._transfers[uid].help_wanted(now)))
        for _ in range(len(self._helped) - self._idle):
            self._start_worker()
        if self._helped:
            self._changed.notify_all()

    def _call_back_helper(self, busy: int) -> None:
        """One that helps leaves, if any of the `busy` workers do: a download waits, or they are too many."""
        if busy > len(self._taken):  # else none does
            any(self._transfers[uid].call_back() for uid in self._taken)

    def wait(self, seconds: float) -> None:
        look = LOOK
        while not self._news.wait(min(seconds, look)) and look < seconds:
            with self._changed:
                self._bring_in(time.monotonic(), self.connections.limit)
            seconds, look = seconds - look, look * 2

    def store(self, path: str, data: bytes) -> None:
        self._clerk.store(path, data)
        if self._state is not State.OPEN:
            self._clerk.leave()

    def dismiss(self, *, keep: bool = False) -> None:
        with self._changed:
            self._state = State.LEAVING
            for entry in self._ledger:
                self._stop(entry)
            self._changed.notify_all()
        self._clerk.leave()

    def is_quiet(self) -> bool:
        with self._changed:
            return not self._workers and self._clerk.is_quiet

    def close(self, *, forced: bool = False, keep: bool = False) -> Report:
        self.dismiss()
        began = time.monotonic() if forced else math.inf
        with self._changed:
            workers = list(self._workers)
        for worker in workers:
            self._join_or_abandon(worker, began)
        self._clerk.join(DISK_PATIENCE if forced else None)
        return self.poll()

    def _join_or_abandon(self, worker: Worker, began: float) -> None:
        while worker.is_alive() and not worker.abandoned:
            worker.join(POLL / 5)
            if control := worker.control:
                control.insist()
            if time.monotonic() - began > (LOOKUP_PATIENCE if worker.is_in_lookup else DISK_PATIENCE):
                self._abandon(worker)

    def _abandon(self, worker: Worker) -> None:
        """Leave a worker where nothing can interrupt it; it releases what it has when it wakes, at most."""
        with self._changed:
            if not worker.control:
                return
            worker.abandoned = True
            self._workers.discard(worker)
            if not worker.is_in_lookup:
                worker.stuck = self._transfers.pop(worker.uid, None)
                if entry := self._taken.get(worker.uid):
                    self._end(entry, Halted())
                return
            transfer = self._transfers[worker.uid]
            if transfer.decline(worker.control):
                return  # others have it, who may be writing: the last of them ends it
            del self._transfers[worker.uid]
            self._end(self._taken[worker.uid], Halted())
        transfer.close()

    def shut(self, *, forced: bool = False) -> Report:
        report = self.close(forced=forced)
        for transfer in self._transfers.values():
            self._clerk.defer(transfer.close)
        if forced:  # its disk may not answer
            self._clerk.catch_up()
            self._clerk.leave()
            self._clerk.join(DISK_PATIENCE)
        else:
            self._clerk.finish()
        return report

    # -- The workers' side.

    def new_client(self) -> Client:
        """A client for a worker. Imports `requests`, which takes a while, on the worker's time.

        Raises TransferError: the settings cannot be used.
        """
        from ..transfer.connect import Client, Environment

        with self._changed:
            self._environment = self._environment or Environment()
            self._mirror = self._mirror or Mirror(self.settings.mirror)
        return Client(self.settings, self._environment, self._mirror)

    def take(self, worker: Worker) -> Transfer | Look | None:
        """Wait for the next transfer; None when the worker shall leave."""
        worker.turn.take(IDLE_PATIENCE)
        with self._changed:
            if worker.abandoned:
                return None
            if not self._pending:
                worker.turn.give()
                self._changed.wait_for(lambda: self._pending or self._helped or self._state is not State.OPEN)
            may_stay = len(self._workers) <= self.connections.limit  # which may be lower by now
            if self._pending and may_stay:
                transfer = self._take_next(worker)
            elif self._helped and may_stay and self._state is State.OPEN:
                return self._assign(worker, self._helped.popleft(), helps=True)
            else:
                self._workers.discard(worker)  # now, so that a new job gets a new worker
                self._left.append(worker)
                return None
        self._clerk.settle()  # the download that this one replaces may have the file still
        return transfer

    def _take_next(self, worker: Worker) -> Transfer | Look:
        entry = next(iter(self._pending.values()))
        self._ledger.start(entry, _Place.TAKEN)
        self.adopt(entry.job)
        return self._assign(worker, entry.uid, helps=False)

    def _assign(self, worker: Worker, uid: int, *, helps: bool) -> Transfer | Look:
        worker.uid, worker.helps, worker.control = uid, helps, Control(worker.waker, worker.turn)
        if self._taken[uid].is_stopping:
            worker.control.stop()
        return self._transfers[uid]

    def put(self, worker: Worker, outcome: Outcome | None) -> None:
        """A worker has ended a transfer, or left it to others."""
        with self._changed:
            if worker.abandoned:
                return
            uid, worker.uid, worker.control = worker.uid, 0, None
            if not outcome:
                return
            entry = self._taken[uid]
            if isinstance(outcome, (Finished, Skipped, Seen)):
                self._transfers.pop(uid).close()
            self._end(entry, outcome)

    def _end(self, entry: Entry[_Place], outcome: Outcome) -> None:
        if self._helped:
            self._helped = deque(helped for helped in self._helped if helped != entry.uid)
        self._ledger.end(entry, outcome)
        if not len(self._ledger):  # else whoever waits looks soon enough: small files end by the thousand
            self._news.set()

    def leave(self, worker: Worker) -> None:
        """A worker is at its end; one that `take` did not let go has met a defect of ours."""
        with self._changed:
            if worker.abandoned:
                worker.waker.close()
            elif worker in self._workers:
                self._workers.discard(worker)
                self._left.append(worker)
                if entry := self._taken.get(worker.uid):
                    self._end(entry, Failed(_UNFORESEEN))
                self._end_if_deserted(_UNFORESEEN)
            self._news.set()


def _waits(worker: Worker, control: Control, now: float) -> bool:
    """Whether it waits for somebody: a server, or where it has its turn for long, a disk."""
    if worker.turn.is_mine:
        return control.idle(now) > HELD_UP
    return control.phase in _LASTING or control.idle(now) > SOON


_ON_THE_NETWORK = (Phase.LOOKUP, Phase.CONNECT, Phase.REQUEST, Phase.BODY)
_LASTING = (Phase.BODY, Phase.VERIFY)
_NO_THREADS = "Blender cannot start another thread: close other programs, then press Retry"
