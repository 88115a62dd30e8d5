"""The threads: who runs transfers, where, and how they end. Knows no Blender.

A host runs transfers on worker threads: `ThreadHost` in this process, `ProcessHost` in a child.
Both speak the same language: jobs go in, counters and exactly one terminal event for each started
download come out, asked for by `poll`. Whoever owns a host closes it; then no thread is left.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, assert_never

from .transfer.control import Control, Waker
from .transfer.fetch import BUFFER, Transfer, log_defect
from .transfer.job import (
    Digest,
    Failed,
    Finished,
    Halted,
    IfExists,
    Job,
    Outcome,
    Phase,
    Progress,
    Settings,
    Skipped,
    Stopped,
    TransferError,
)
from .transfer.part import noted, write_atomically
from .transfer.space import Space

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from .transfer.connect import Client, Trust

log = logging.getLogger(__name__)

LOOKUP_PATIENCE = 2.0  # seconds that a forced close waits for the system's name look-up
CHILD_PATIENCE = 3.0  # seconds that a child may take to leave when asked, look-ups apart
SILENCE = 30.0  # seconds without an answer after which a child counts as lost
CRASHES = 3  # of the child within CRASH_SPAN, after which its downloads fail
POLL = 0.05  # seconds at most between two looks of a supervisor
CRASH_SPAN = 60.0  # seconds: so many crashes in less are too many
BATCH = 32 << 10  # bytes, about, of one message: two must fit a pipe that nobody reads for a moment
UNREAD = 16  # small messages at most that a child has not read: a pipe blocks its sender after some 250
PRIVATE = 0o600  # mode of files that hold secrets


class Status(StrEnum):
    """What a download is, for scripts; finer words are text."""

    QUEUED = "QUEUED"
    """It waits for its turn, or for the run to come back."""
    RUNNING = "RUNNING"
    """A worker has it."""
    PAUSED = "PAUSED"
    """It goes on when somebody asks."""
    FINISHED = "FINISHED"
    """The file is whole under its final name."""
    SKIPPED = "SKIPPED"
    """The file was there, or has not changed."""
    FAILED = "FAILED"
    """`error` says why; what was received is kept."""
    CANCELLED = "CANCELLED"
    """Somebody said so; what was received is kept."""


@dataclass(slots=True, kw_only=True, eq=False)
class Download:
    """The record of one download. The main thread writes it; everything shown is derived from it."""

    uid: int
    url: str
    """With secrets: never show it; `transfer.names.shown` is for people."""
    directory: str
    if_exists: IfExists = IfExists.RENAME
    when_done: str = "NOTHING"
    digest: Digest | None = None
    partial: str = ""
    """The name of the partial file of an earlier link, which this one goes on with."""
    is_cut: bool = False
    """Whether `url` lost its user, password or query: then nothing can be fetched with it."""
    status: Status = Status.QUEUED
    name: str = ""
    filepath: str = ""
    error: str = ""
    note: str = ""
    received: int = 0
    """Bytes on the disk."""
    size: int | None = None
    """Bytes, where known."""
    phase: Phase = Phase.IDLE
    idle: float = 0.0
    """Seconds since something moved."""
    text: str = ""
    speed: float = 0.0
    """Bytes a second, smoothed."""

    @property
    def is_unfinished(self) -> bool:
        """Whether there is something left to do, now or when asked."""
        return self.status not in (Status.FINISHED, Status.SKIPPED)


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has taken the download."""

    uid: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The one terminal event of a download that was submitted."""

    uid: int
    outcome: Outcome


Event = Started | Ended


@dataclass(slots=True)
class Report:
    """What `poll` found: facts, in the order in which they happened."""

    events: list[Event] = field(default_factory=list)
    progress: dict[int, Progress] = field(default_factory=dict)
    """Of the downloads that run now, by uid."""


class Host(Protocol):
    """Runs transfers. All calls are the main thread's; only `wait`, `close` and `shut` wait."""

    def submit(self, job: Job) -> None:
        """Run a download, or go on with one that was stopped. It ends with one `Ended`.

        Raises ValueError while a download of this uid has not ended.
        """

    def stop(self, uid: int) -> None:
        """Have a submitted download end as `Halted`; it keeps what it needs to go on."""

    def hang_up(self, uid: int) -> None:
        """Close connection and file that a stopped download kept; what it received is remembered."""

    def forget(self, uid: int, *, delete: bool = False) -> None:
        """Release a download that is not running, soon; `delete` what it received."""

    def poll(self) -> Report:
        """Look: what happened since the last time, and how far the running ones are."""

    def store(self, path: str, data: bytes) -> None:
        """Have a worker replace a small private file, atomically; the last call counts."""

    def wait(self, seconds: float) -> None:
        """Wait for an event, `seconds` at most: for whoever has nothing else to do."""

    def dismiss(self, *, keep: bool = False) -> None:
        """Let the workers leave: what is submitted ends as `Halted`. Does not wait.

        `keep`: a child process stays, to be used again in a moment.
        """

    def is_quiet(self) -> bool:
        """Whether no worker is left, so that `close` will not wait. `poll` meanwhile."""

    def close(self, *, forced: bool = False, keep: bool = False) -> Report:
        """Join every worker; returns the last events. Stopped transfers stay with the host.

        `forced`: Blender takes the operator away; a worker in a name look-up is left behind.
        `keep`: a child process stays, its workers stopped; `dismiss` was told so, and it is quiet.
        """

    def shut(self, *, forced: bool = False) -> Report:
        """`close`, and release every transfer, keeping what was received for another process."""


# -- Threads.


class _Worker(threading.Thread):
    """Takes transfers from its host until there are none and the host lets it go.

    Daemon, and joined all the same: a path nobody foresaw must not hang Blender's quit.
    """

    def __init__(self, host: ThreadHost, number: int) -> None:
        super().__init__(name=f"downloads-{number}", daemon=True)
        self.control: Control | None = None
        """Of the transfer that it runs."""
        self.uid = 0
        self.helps = False
        """Whether another worker had the transfer before."""
        self.waker = Waker()
        self.abandoned = False
        self._client: Client | None = None
        self._host = host

    @property
    def is_in_lookup(self) -> bool:
        """Whether it is where nothing can interrupt it."""
        return self.control is not None and self.control.phase is Phase.LOOKUP

    @property
    def may_be_connected(self) -> bool:
        """Whether it keeps a connection for the next download."""
        return self._client is not None and self._client.may_be_connected

    def hang_up(self) -> None:
        """Close that connection. Any thread, while it runs no transfer."""
        if self._client:
            self._client.hang_up()

    def run(self) -> None:
        buffer = memoryview(bytearray(BUFFER))
        try:
            while transfer := self._host.take(self):
                self._host.put(self, self._run(transfer, buffer))
        finally:
            if self._client:
                self._client.close()
            self._host.leave(self)

    def _run(self, transfer: Transfer, buffer: memoryview) -> Outcome | None:
        """How the transfer ended; None: others go on with it."""
        assert self.control
        try:
            self._client = self._client or self._host.new_client()
            return transfer.run(self.control, self._client, buffer, helps=self.helps)
        except Stopped:
            return Halted()
        except TransferError as error:
            return Failed(str(error))
        except BaseException as error:  # a defect of ours fails this download, and is told
            log_defect(error)
            if self.helps and not self._client:
                transfer.decline(self.control)
                return None
            return Failed(_UNFORESEEN)


_UNFORESEEN = "Something unforeseen went wrong; Blender's console has the details"


class _Clerk:
    """Does what waits for the disk on a thread of its own, so that it holds up nobody else."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._unwritten: tuple[str, bytes] | None = None
        self._chores: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None
        self._running = self._leaving = False
        self._has_complained = False

    def store(self, path: str, data: bytes) -> None:
        """Write a file; only the last one that has not been begun counts."""
        with self._changed:
            self._unwritten = path, data
            self._wake()

    def do(self, chore: Callable[[], None]) -> None:
        """Do it soon, after the chores before it."""
        with self._changed:
            self._chores.append(chore)
            self._wake()

    def _wake(self) -> None:
        if not self._running:
            self.join()  # one that left just now has nothing to do any more
            self._thread = threading.Thread(target=self._run, name="downloads-0", daemon=True)
            self._thread.start()
            self._running = True
        self._leaving = False
        self._changed.notify_all()

    def settle(self) -> None:
        """Wait until all chores are done."""
        with self._changed:
            self._changed.wait_for(lambda: not self._chores)

    def leave(self) -> None:
        """Do what is left, then end."""
        with self._changed:
            self._leaving = True
            self._changed.notify_all()

    @property
    def is_quiet(self) -> bool:
        """Whether its thread has ended."""
        return not (self._thread and self._thread.is_alive())

    def join(self) -> None:
        """After `leave`: wait until its thread has ended."""
        thread = self._thread
        if thread:
            thread.join()
            self._thread = None

    def _run(self) -> None:
        while work := self._next():
            try:
                work()
            except Exception as error:
                log_defect(error)
            finally:
                self._done(work)

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._chores or self._unwritten or self._leaving)
            if self._chores:
                return self._chores[0]
            if not self._unwritten:
                self._running = False
                return None
            work, self._unwritten = partial(self._write, *self._unwritten), None
            return work

    def _done(self, work: Callable[[], None]) -> None:
        with self._changed:
            if self._chores and self._chores[0] is work:
                self._chores.popleft()
                self._changed.notify_all()

    def _write(self, path: str, data: bytes) -> None:
        """Said once, however often it fails."""
        reason = _write(path, data)
        if reason and not self._has_complained:
            self._has_complained = True
            log.warning("The list of downloads cannot be written to the disk now: %s", reason)


def _write(path: str, data: bytes) -> str:
    """Returns why it cannot be done, if so. Whoever has it written looks whether it was."""
    try:
        write_atomically(Path(path), data, mode=PRIVATE)
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


class ThreadHost:
    """Worker threads in this process. See `Host`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._limit = settings.connections
        self._trust: Trust | None = None
        self._space = Space()
        self._clerk = _Clerk()
        self._news = threading.Event()
        self._changed = threading.Condition()  # guards all below
        self._transfers: dict[int, Transfer] = {}  # submitted, and not forgotten since
        self._pending: OrderedDict[int, None] = OrderedDict()
        self._taken: set[int] = set()  # by workers, and not ended since
        self._stopping: set[int] = set()  # of those: asked to stop, so that no helper goes on with them
        self._helped: deque[int] = deque()  # those that idle workers may help with
        self._kept: dict[int, Transfer] = {}  # stopped, with what they hold open: longest stopped first
        self._workers: set[_Worker] = set()
        self._left: list[_Worker] = []
        self._idle = 0
        self._number = 0
        self._events: list[Event] = []
        self._dismissed = True

    # -- The main thread's side.

    def submit(self, job: Job) -> None:
        with self._changed:
            if self._is_active(job.uid):
                raise ValueError("submitted twice")
            self._dismissed = False
            self.adopt(job)
            self._pending[job.uid] = None
            if self._idle < len(self._pending) and not self._start_worker():
                self._call_back_helper()
            self._changed.notify()

    def adopt(self, job: Job) -> None:
        """Know of a download, without running it."""
        with self._changed:
            known = self._transfers.get(job.uid)
            if known and known.job == job:
                return
            if known:  # the link was replaced
                self._kept.pop(job.uid, None)
                self._do(known.close)
            self._transfers[job.uid] = Transfer(job, self.settings, self._space, self._make_room)

    def _start_worker(self) -> bool:
        """One more, unless that would be too many."""
        if len(self._workers) >= self._limit:
            return False
        with ExitStack() as undo:
            try:
                worker = _Worker(self, self._number + 1)
                undo.callback(worker.waker.close)
                worker.start()
            except (OSError, RuntimeError):  # no descriptors or no threads are left
                if not self._workers:
                    self._put(self._pending.popitem()[0], Failed(_NO_THREADS))
                return False
            undo.pop_all()
        self._number += 1
        self._workers.add(worker)
        return True

    def stop(self, uid: int) -> None:
        with self._changed:
            if uid in self._pending:
                del self._pending[uid]
                self._put(uid, Halted())
            self._stop_workers({uid})

    def _stop_workers(self, uids: set[int]) -> None:
        self._stopping |= uids & self._taken
        for worker in self._workers:
            if worker.uid in uids and worker.control:
                worker.control.stop()

    def hang_up(self, uid: int) -> None:
        with self._changed:
            if uid not in self._pending and (transfer := self._kept.pop(uid, None)):
                transfer.release()

    def forget(self, uid: int, *, delete: bool = False) -> None:
        with self._changed:
            if self._is_active(uid) or not (transfer := self._transfers.pop(uid, None)):
                return
            self._kept.pop(uid, None)
            self._do(partial(_discard, transfer) if delete else transfer.close)

    def _do(self, chore: Callable[[], None]) -> None:
        """What waits for the disk: soon, or now where no thread may be started."""
        if not self._dismissed:
            self._clerk.do(chore)
            return
        self._clerk.settle()
        chore()

    # -- Giving transfers to another host, while no worker runs them.

    @property
    def kept(self) -> int:
        """How many connections stopped downloads hold."""
        with self._changed:
            return sum(transfer.connections for transfer in self._kept.values())

    @property
    def is_settling(self) -> bool:
        """Whether a worker that was asked to stop does so in a moment; a name look-up can last."""
        with self._changed:
            return any(worker.control and not worker.is_in_lookup for worker in self._workers)

    def shrink(self, limit: int) -> None:
        """Have at most so many connections from now on; the longest stopped ones are closed."""
        surplus = self.kept - limit
        with self._changed:
            self._limit = limit
            for uid, transfer in list(self._kept.items()):
                if surplus > 0 and (count := transfer.connections):
                    surplus -= count
                    self.hang_up(uid)

    def look(self, uid: int) -> Progress | None:
        """The counters of a download that is not running."""
        with self._changed:
            transfer = self._transfers.get(uid)
            return transfer.progress(time.monotonic()) if transfer else None

    def hand_over(self, job: Job) -> Job | None:
        """Give a download up that is not running: the job with which another process goes on.

        None, and it stays, where only the open connection brings the rest.
        """
        with self._changed:
            if job.uid not in self._transfers:
                return job
            self.adopt(job)
            carried = self._transfers[job.uid].carry()
            if not carried:
                return None
            self._kept.pop(job.uid, None)
            del self._transfers[job.uid]
            return replace(job, carried=carried)

    def _is_active(self, uid: int) -> bool:
        return uid in self._pending or uid in self._taken

    def poll(self) -> Report:
        now = time.monotonic()
        with self._changed:
            self._news.clear()
            left, self._left = self._left, []
            events, self._events = self._events, []
            report = Report(events)
            for worker in self._workers:
                if worker.control:
                    self._supervise(worker.control, now)
            for uid in self._taken:
                report.progress[uid] = self._transfers[uid].progress(now)
            self._send_help(now)
        for worker in left:  # not under the lock: they may want it for their last step
            worker.join()
            worker.waker.close()
        return report

    def _supervise(self, control: Control, now: float) -> None:
        """End a phase on the network that does not get on; the others have ends of their own."""
        if control.phase in _ON_THE_NETWORK and control.idle(now) > self.settings.timeout:
            control.touch()
            control.expire()

    def _send_help(self, now: float) -> None:
        """Idle workers, and some more up to the limit, help with what takes longest."""
        room = self._limit - sum(worker.uid != 0 for worker in self._workers)
        room -= sum(self._transfers[uid].parked for uid in self._taken)
        if self._pending or self._helped or self._dismissed or room <= 0:
            return
        for uid in self._taken - self._stopping:
            self._helped.extend([uid] * min(room - len(self._helped), self._transfers[uid].help_wanted(now)))
        for _ in range(len(self._helped) - self._idle):
            self._start_worker()
        if self._helped:
            self._changed.notify_all()

    def _call_back_helper(self) -> None:
        """A download waits for a worker: one that helps another comes first to it."""
        for uid in self._taken:
            staying = [control for control in self._transfers[uid].controls if not control.yields]
            if len(staying) > 1:
                staying[-1].give_way()
                return

    def wait(self, seconds: float) -> None:
        self._news.wait(seconds)

    def store(self, path: str, data: bytes) -> None:
        self._clerk.store(path, data)
        if self._dismissed:
            self._clerk.leave()

    def dismiss(self, *, keep: bool = False) -> None:
        with self._changed:
            self._dismissed = True
            while self._pending:
                self._put(self._pending.popitem(last=False)[0], Halted())
            self._stop_workers(set(self._taken))
            self._changed.notify_all()
        self._clerk.leave()

    def is_quiet(self) -> bool:
        with self._changed:
            return not self._workers and self._clerk.is_quiet

    def close(self, *, forced: bool = False, keep: bool = False) -> Report:
        self.dismiss()
        deadline = time.monotonic() + LOOKUP_PATIENCE
        with self._changed:
            workers = list(self._workers)
        for worker in workers:
            if forced:
                self._join_or_abandon(worker, deadline)
            else:
                worker.join()
        self._clerk.join()
        return self.poll()

    def _join_or_abandon(self, worker: _Worker, deadline: float) -> None:
        while worker.is_alive() and not worker.abandoned:
            worker.join(POLL / 5)
            if time.monotonic() > deadline:
                self._abandon(worker)

    def _abandon(self, worker: _Worker) -> None:
        """Leave a worker to the name look-up that nothing can interrupt; it touches nothing when it wakes."""
        with self._changed:
            if not worker.is_in_lookup:
                return
            worker.abandoned = True
            self._workers.discard(worker)
            if worker.uid not in self._taken:  # another that helped was abandoned before
                return
            transfer = self._transfers.pop(worker.uid)
            self._put(worker.uid, Halted())
        transfer.abandon()

    def shut(self, *, forced: bool = False) -> Report:
        report = self.close(forced=forced)
        for transfer in self._transfers.values():
            transfer.close()
        self._kept.clear()
        return report

    # -- The workers' side.

    def new_client(self) -> Client:
        """A client for a worker. Imports `requests`, which takes a while, on the worker's time."""
        from .transfer.connect import Client, Trust

        with self._changed:
            self._trust = self._trust or Trust()
        return Client(self.settings, self._trust)

    def take(self, worker: _Worker) -> Transfer | None:
        """Wait for the next transfer; None when the worker shall leave."""
        with self._changed:
            if worker.abandoned:
                return None
            self._idle += 1
            self._changed.wait_for(lambda: self._pending or self._helped or self._dismissed)
            self._idle -= 1
            if self._pending:
                transfer = self._take_next(worker)
            elif self._helped and not self._dismissed:
                return self._take_helped(worker)
            else:
                self._workers.discard(worker)  # now, so that a new job gets a new worker
                self._left.append(worker)
                return None
        self._clerk.settle()  # the download that this one replaces may have the file still
        return transfer

    def _take_next(self, worker: _Worker) -> Transfer:
        uid = self._pending.popitem(last=False)[0]
        self._taken.add(uid)
        self._events.append(Started(uid))
        self._kept.pop(uid, None)
        return self._assign(worker, uid, helps=False)

    def _take_helped(self, worker: _Worker) -> Transfer:
        return self._assign(worker, self._helped.popleft(), helps=True)

    def _assign(self, worker: _Worker, uid: int, *, helps: bool) -> Transfer:
        worker.uid, worker.helps, worker.control = uid, helps, Control(worker.waker)
        if uid in self._stopping:
            worker.control.stop()
        transfer = self._transfers[uid]
        if waiting := transfer.connections - transfer.parked:
            worker.hang_up()  # it goes on with a connection that is there
        is_too_much = self._close_surplus(transfer, max(0, waiting - 1)) > 0
        if is_too_much and helps and transfer.parked:
            worker.control.give_way()  # what was parked meanwhile is worth more than its help
        elif is_too_much:
            transfer.unpark()
        return transfer

    def _make_room(self, transfer: Transfer) -> None:
        """It has parked a connection, and its worker, now alone, makes another."""
        with self._changed:
            leaving = sum(worker.uid == transfer.job.uid for worker in self._workers) - 1
            if self._close_surplus(transfer, -leaving) > 0:
                transfer.unpark()

    def _close_surplus(self, first: Transfer, waiting: int) -> int:
        """Close what is open and not used, down to the limit: idle connections, then the longest stopped.

        `first` is what a worker goes on with just now; `waiting` connections more than it has workers.
        Returns how many are too many yet.
        """
        idle = [worker for worker in self._workers if not worker.uid and worker.may_be_connected]
        kept = sorted(self._kept, key=self._pending.__contains__)  # those that go on soon come last
        spare = [self._kept[uid] for uid in kept]
        spare += [self._transfers[uid] for uid in self._taken if uid != first.job.uid]
        surplus = sum(worker.uid != 0 for worker in self._workers) + len(idle) - self._limit
        surplus += sum(transfer.connections for transfer in spare) + waiting + first.parked
        for worker in idle[: max(0, surplus)]:
            worker.hang_up()
        surplus -= len(idle)
        for transfer in spare:
            if surplus > 0 and (count := transfer.connections):
                surplus -= count
                self._close_spare(transfer)
        return surplus

    def _close_spare(self, transfer: Transfer) -> None:
        if self._kept.pop(transfer.job.uid, None):
            transfer.release()
        else:
            transfer.hang_up()

    def put(self, worker: _Worker, outcome: Outcome | None) -> None:
        """A worker has ended a transfer, or left it to others."""
        with self._changed:
            if worker.abandoned:
                return
            uid, worker.uid, worker.control = worker.uid, 0, None
            if not outcome:
                return
            if isinstance(outcome, (Finished, Skipped)):
                self._transfers.pop(uid).close()
            elif isinstance(outcome, Halted):
                self._keep(uid)
            self._put(uid, outcome)

    def _keep(self, uid: int) -> None:
        """Leave a stopped transfer's file and connection open, but not more of them than may run."""
        self._kept[uid] = self._transfers[uid]
        if len(self._kept) > self._limit:
            self._kept.pop(next(iter(self._kept))).release()

    def _put(self, uid: int, outcome: Outcome) -> None:
        self._taken.discard(uid)
        self._stopping.discard(uid)
        self._helped = deque(helped for helped in self._helped if helped != uid)
        self._events.append(Ended(uid, outcome))
        self._news.set()

    def leave(self, worker: _Worker) -> None:
        """A worker is at its end; one that `take` did not let go has met a defect of ours."""
        with self._changed:
            if worker.abandoned:
                worker.waker.close()
            elif worker in self._workers:
                self._workers.discard(worker)
                self._left.append(worker)
                if worker.uid in self._taken:
                    self._put(worker.uid, Failed(_UNFORESEEN))
            self._news.set()


_ON_THE_NETWORK = (Phase.LOOKUP, Phase.CONNECT, Phase.REQUEST, Phase.BODY)
_NO_THREADS = "Blender cannot start another thread: close other programs, then press Retry"


def _discard(transfer: Transfer) -> None:
    with suppress(TransferError):  # another Blender has the file: it is that one's now
        transfer.discard()


# -- A child process.


@dataclass(frozen=True, slots=True)
class _Submit:
    job: Job


@dataclass(frozen=True, slots=True)
class _Stop:
    uid: int


@dataclass(frozen=True, slots=True)
class _HangUp:
    uid: int


@dataclass(frozen=True, slots=True)
class _Forget:
    """With the job: this child may not have met the download."""

    job: Job
    delete: bool


@dataclass(frozen=True, slots=True)
class _Store:
    """A piece of a file; the last one says so."""

    path: str
    piece: bytes
    is_first: bool
    is_last: bool


@dataclass(frozen=True, slots=True)
class _Dismiss:
    pass


@dataclass(frozen=True, slots=True)
class _Leave:
    pass


@dataclass(frozen=True, slots=True)
class _Look:
    pass


_Command = _Submit | _Stop | _HangUp | _Forget | _Store | _Dismiss | _Leave | _Look


@dataclass(frozen=True, slots=True)
class _Answer:
    report: Report
    is_quiet: bool


class ProcessHost:
    """A `ThreadHost` in a child process. See `Host`.

    The child answers when it is asked to look and never sends unasked, so neither side can block
    the other; it leaves when this process dies, since its connection then ends.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._child: _Child | None = None
        self._known: dict[int, Job] = {}  # submitted, and neither finished nor forgotten
        self._unsent: dict[int, Job] = {}  # of those: submitted, and still here
        self._sent: dict[int, Job] = {}  # of those: the child has them, and they have not ended
        self._started: set[int] = set()  # of those: a worker has them
        self._stopping: set[int] = set()  # of those: asked to stop
        self._outbox: deque[_Command] = deque()
        self._file: tuple[str, bytes] | None = None  # the last one to be stored
        self._file_at: int | None = None  # where its next piece begins; None: all is sent
        self._events: list[Event] = []
        self._progress: dict[int, Progress] = {}
        self._crashes: deque[float] = deque(maxlen=CRASHES)  # when, in seconds of time.monotonic
        self._child_is_quiet = True
        self._dismissed = False

    def submit(self, job: Job) -> None:
        if job.uid in self._unsent or job.uid in self._sent:
            raise ValueError("submitted twice")
        self._dismissed = False
        self._known[job.uid] = self._unsent[job.uid] = job
        self._outbox.append(_Submit(job))

    def stop(self, uid: int) -> None:
        if uid in self._unsent:
            self._end(uid, Halted())
        elif uid in self._sent and uid not in self._stopping:
            self._stopping.add(uid)
            self._say(_Stop(uid))

    def hang_up(self, uid: int) -> None:
        if self._child:
            self._outbox.append(_HangUp(uid))

    def forget(self, uid: int, *, delete: bool = False) -> None:
        if uid in self._unsent or uid in self._sent or not (job := self._known.pop(uid, None)):
            return
        if self._child and self._child.is_leaving:
            self._outbox.append(_Forget(job, delete))
        elif self._child:
            self._say(_Forget(job, delete))  # at once: this thread may be about to wait for the file
        elif delete:
            _discard(Transfer(job, self.settings))

    def store(self, path: str, data: bytes) -> None:
        self._file, self._file_at = (path, data), 0

    def poll(self) -> Report:
        try:
            self._hear()
            self._ask()
        except (EOFError, OSError):
            self._lost()
        return self._take_events()

    def _take_events(self) -> Report:
        events, self._events = self._events, []
        return Report(events, dict(self._progress))

    def wait(self, seconds: float) -> None:
        time.sleep(min(seconds, POLL / 5))  # it tells nothing unasked

    def _hear(self) -> None:
        """Take the answers that are there. Raises EOFError, OSError: the child is gone, or is silent."""
        child = self._child
        while child and child.connection.poll(0):
            answer: _Answer = child.connection.recv()
            child.asked_at = 0.0
            self._child_is_quiet = answer.is_quiet
            self._progress = answer.report.progress
            for event in answer.report.events:
                self._note(event)
        if child and child.is_lost(time.monotonic()):
            raise EOFError

    def _note(self, event: Event) -> None:
        match event:
            case Started(uid=uid):
                self._started.add(uid)
                self._events.append(event)
            case Ended(uid=uid, outcome=outcome):
                self._end(uid, outcome)
            case _:
                assert_never(event)

    def _end(self, uid: int, outcome: Outcome) -> None:
        self._unsent.pop(uid, None)
        self._sent.pop(uid, None)
        self._started.discard(uid)
        self._stopping.discard(uid)
        if isinstance(outcome, (Finished, Skipped)):
            self._known.pop(uid, None)
        self._events.append(Ended(uid, outcome))

    def _ask(self) -> None:
        """Send what has gathered, and have the child look; at most one question is open."""
        has_mail = bool(self._unsent) or self._file_at is not None
        if not self._child and has_mail and not self._dismissed:
            self._child = _Child(self.settings)
        child = self._child
        if not child or child.asked_at or child.was_told:
            return
        is_done = not self._outbox and self._file_at is None
        if child.is_leaving and (is_done or self._unsent):  # what was submitted since is the next one's
            child.tell_to_leave()
        else:
            child.ask([*self._batch(), _Look()])

    def _batch(self) -> list[_Command]:
        """As much of what has gathered as fits in a message."""
        batch: list[_Command] = []
        size = 0
        while self._outbox and size < BATCH:
            command = self._outbox.popleft()
            if isinstance(command, _Submit):
                if self._unsent.get(command.job.uid) is not command.job:
                    continue  # stopped before it went out
                self._sent[command.job.uid] = self._unsent.pop(command.job.uid)
                self._child_is_quiet = False
            batch.append(command)
            size += _weight(command)
        return [*batch, *self._piece()] if size < BATCH else batch

    def _piece(self) -> list[_Command]:
        """The next piece of the file that is to be stored."""
        if self._file is None or self._file_at is None:
            return []
        (path, data), start = self._file, self._file_at
        end = start + BATCH
        self._file_at = None if end >= len(data) else end
        return [_Store(path, data[start:end], start == 0, end >= len(data))]

    def _say(self, command: _Command) -> None:
        """Send at once, past what has gathered; where much is unread, as the next."""
        child = self._child
        if not child or child.is_leaving:
            return
        if child.unread >= UNREAD:
            self._outbox.appendleft(command)
            return
        try:
            child.say(command)
        except (EOFError, OSError):
            self._lost()

    def _lost(self) -> None:
        """The child is gone, or is silent: go on in a new one, unless that keeps happening."""
        child, self._child = self._child, None
        if child:
            child.kill()
        self._end_what_is_noted()
        if self._file and not (child and child.has_said_goodbye):
            self._file_at = 0
        self._progress, self._child_is_quiet = {}, True
        for uid in list(self._stopping):
            self._end(uid, Halted())
        if self._dismissed or (child and child.is_leaving):
            self._end_all(list(self._sent), Halted())
        else:
            self._begin_again()

    def _end_what_is_noted(self) -> None:
        """What the child has finished, and could not tell any more."""
        for done in {job.done for job in self._sent.values() if job.done}:
            for uid, path in noted(Path(done)).items():
                if uid in self._sent:
                    with suppress(OSError):  # gone just now
                        self._end(uid, Finished(filepath=path, size=os.path.getsize(path)))

    def _begin_again(self) -> None:
        """Hand to the next child what the last one had; but not what seems to kill it."""
        self._crashes.append(time.monotonic())
        if len(self._crashes) == CRASHES and self._crashes[-1] - self._crashes[0] < CRASH_SPAN:
            self._crashes.clear()
            self._end_all(list(self._started or [*self._sent, *self._unsent]), Failed(_CRASHING))
        again, self._sent = self._sent, {}
        self._started.clear()
        self._unsent = {**again, **self._unsent}
        self._outbox = deque(c for c in self._outbox if isinstance(c, (_Submit, _Forget)))
        self._outbox.extendleft(_Submit(job) for job in reversed(again.values()))

    def _end_all(self, uids: list[int], outcome: Outcome) -> None:
        for uid in uids:
            self._end(uid, outcome)

    def dismiss(self, *, keep: bool = False) -> None:
        self._dismissed = True
        self._end_all(list(self._unsent), Halted())
        if not self._child or self._child.is_leaving:
            return
        self._say(_Dismiss())
        if self._child and not keep:
            self._child.is_leaving = True
            self._child.deadline = time.monotonic() + LOOKUP_PATIENCE + CHILD_PATIENCE

    def is_quiet(self) -> bool:
        """Whether no worker is left; after `dismiss` without `keep`, no child either. `poll` meanwhile."""
        if self._unsent or self._sent:
            return False
        return self._child_is_quiet and not (self._child and self._child.is_leaving)

    def close(self, *, forced: bool = False, keep: bool = False) -> Report:
        return self.poll() if keep else self.shut(forced=forced)

    def shut(self, *, forced: bool = False) -> Report:
        self.dismiss()
        report = self.poll()
        while self._child:  # it has a deadline
            self.wait(POLL)
            report.events += self.poll().events
        self._do_what_is_left()
        return report

    def _do_what_is_left(self) -> None:
        """What the child has not done."""
        if self._file and self._file_at is not None:
            _write(*self._file)
        self._file = self._file_at = None
        for command in self._outbox:
            if isinstance(command, _Forget) and command.delete:
                _discard(Transfer(command.job, self.settings))
        self._outbox.clear()


def _weight(command: _Command) -> int:
    """About how many bytes a command takes in a message."""
    match command:
        case _Submit(job=job) | _Forget(job=job):
            return 500 + len(job.url) + len(job.directory)
        case _:
            return 100


_CRASHING = "The process that downloads keeps crashing. Restart Blender, then press Retry"


class _Child:
    """The process, and our end of its connection."""

    def __init__(self, settings: Settings) -> None:
        from multiprocessing.connection import Pipe

        self.connection, theirs = Pipe()
        try:
            self._process = _spawn(theirs)
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()
        self.asked_at = 0.0
        """When it was asked to look and has not answered, in seconds of `time.monotonic`; else 0."""
        self.unread = 0
        """Messages that it may not have read yet."""
        self.is_leaving = self.was_told = False
        self.deadline = float("inf")
        """When it must be gone, in seconds of `time.monotonic`."""
        self._first: Settings | None = settings

    def ask(self, commands: list[_Command]) -> None:
        """Send what ends with a question; all that was sent before the last one has been read."""
        self.unread = 0
        self.asked_at = time.monotonic()
        self._greet()
        self.connection.send(commands)

    def say(self, command: _Command) -> None:
        """Send something small, at once."""
        self.unread += 1
        self._greet()
        self.connection.send([command])

    def _greet(self) -> None:
        settings, self._first = self._first, None
        if settings:
            self.connection.send(settings)

    def tell_to_leave(self) -> None:
        """Its last order; the answer is its last word."""
        self.was_told = True
        self.ask([_Leave()])

    @property
    def has_said_goodbye(self) -> bool:
        """Whether it has done all that it was told, and left."""
        return self.was_told and not self.asked_at

    def is_lost(self, now: float) -> bool:
        """Whether it has not answered for too long."""
        return now > self.deadline or bool(self.asked_at and now - self.asked_at > SILENCE)

    def kill(self) -> None:
        """End it, if it has not left, and release what belonged to it."""
        self.connection.close()
        try:
            self._process.wait(0.1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_BOOT = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is Blender's to handle
import importlib, json, sys, types
package, root, sys.path[:], handle, parent = json.loads(sys.argv[1])
names = package.split(".")
for count in range(1, len(names) + 1):
    module = types.ModuleType(".".join(names[:count]))
    module.__path__ = [root] if count == len(names) else []
    sys.modules[module.__name__] = module
importlib.import_module(package + ".workers").serve(handle, parent)
"""


def _spawn(theirs: Connection) -> subprocess.Popen[bytes]:
    """Start Python on `serve`, under a stub of our package that does not import Blender's side.

    Not through `multiprocessing`, whose spawn needs `__main__` and leaves a resource tracker.
    """
    handle = theirs.fileno()
    root = os.path.dirname(os.path.abspath(__file__))
    arguments = json.dumps([__package__, root, sys.path, handle, os.getpid()])
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    if sys.platform == "win32":
        os.set_handle_inheritable(handle, True)
        startup = subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle]})
        options |= {"startupinfo": startup, "creationflags": subprocess.CREATE_NO_WINDOW}
    else:
        options["pass_fds"] = [handle]
    return subprocess.Popen([sys.executable, "-I", "-c", _BOOT, arguments], **options)


def serve(handle: int, parent: int) -> None:
    """The child's main thread: obey, supervise, answer; leave when told, or when Blender is gone."""
    connection = _connection(handle)
    try:
        host = ThreadHost(connection.recv())
        _Server(connection, host, parent).run()
    except (EOFError, OSError):
        pass  # Blender is gone
    except Exception as error:
        log_defect(error)
    finally:
        if "host" in locals():
            host.shut(forced=True)
        os._exit(0)  # not waiting for a thread that is stuck in a name look-up


def _connection(handle: int) -> Connection:
    if sys.platform == "win32":
        from multiprocessing.connection import PipeConnection

        return PipeConnection(handle)
    from multiprocessing.connection import Connection

    return Connection(handle)


class _Server:
    """What the child does with each command."""

    def __init__(self, connection: Connection, host: ThreadHost, parent: int) -> None:
        self._connection = connection
        self._parent = parent
        self._host = host
        self._report = Report()
        self._pieces: list[bytes] = []
        self._leaving = False

    def run(self) -> None:
        # A process that Blender forked may hold our connection open beyond Blender's end.
        while not self._leaving and os.getppid() == self._parent:
            if self._connection.poll(POLL):
                for command in self._connection.recv():
                    self._obey(command)
            self._supervise(self._host.poll())

    def _supervise(self, report: Report) -> None:
        self._report.events += report.events
        self._report.progress = report.progress

    def _obey(self, command: _Command) -> None:
        match command:
            case _Submit(job=job):
                self._host.submit(job)
            case _Stop(uid=uid):
                self._host.stop(uid)
            case _HangUp(uid=uid):
                self._host.hang_up(uid)
            case _Forget(job=job, delete=delete):
                self._host.adopt(job)
                self._host.forget(job.uid, delete=delete)
            case _Store():
                self._gather(command)
            case _Dismiss():
                self._host.dismiss()
            case _Leave():
                self._leave()
            case _Look():
                self._answer()
            case _:
                assert_never(command)

    def _gather(self, store: _Store) -> None:
        if store.is_first:
            self._pieces.clear()
        self._pieces.append(store.piece)
        if store.is_last:
            self._host.store(store.path, b"".join(self._pieces))

    def _answer(self) -> None:
        self._supervise(self._host.poll())
        self._connection.send(_Answer(self._report, self._host.is_quiet()))
        self._report = Report()

    def _leave(self) -> None:
        self._leaving = True
        self._supervise(self._host.shut(forced=True))
        self._answer()


# -- Threads, and a child process while this process cannot bear them.


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
            _write(path, data)
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
        theirs = self._threads.hand_over(job) if is_held or self._child else None
        if theirs:
            self._child = self._child or self._new_child()
            self._child.submit(theirs)
            self._in_child.add(job.uid)
        elif not is_held:
            self._threads.submit(job)
        if theirs or not is_held:
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


HELD = "held while rendering"
