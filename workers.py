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
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, assert_never

from .transfer.control import Control, Waker
from .transfer.fetch import BUFFER, Transfer
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
from .transfer.part import write_atomically

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from .transfer.connect import Client, Trust

log = logging.getLogger(__name__)

LOOKUP_PATIENCE = 2.0  # seconds that a forced close waits for the system's name look-up
CHILD_PATIENCE = 2.0  # seconds that a child may take to leave when asked
SILENCE = 30.0  # seconds without an answer after which a child counts as lost
CRASHES = 3  # of the child within a minute, after which its downloads fail
POLL = 0.05  # seconds at most between two looks of a supervisor
BATCH = 64 << 10  # bytes, about, of one message: it must fit a pipe that nobody reads for a moment
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


@dataclass(slots=True, kw_only=True)
class Download:
    """The record of one download. The main thread writes it; everything shown is derived from it."""

    uid: int
    url: str
    """With secrets: never show it; `transfer.names.shown` is for people."""
    directory: str
    if_exists: IfExists = IfExists.RENAME
    when_done: str = "NOTHING"
    digest: Digest | None = None
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
        """Run a download, or go on with one that was stopped. It ends with one `Ended`."""

    def stop(self, uid: int) -> None:
        """Have a submitted download end as `Halted`; it keeps what it needs to go on."""

    def hang_up(self, uid: int) -> None:
        """Close the connection that a stopped download kept."""

    def forget(self, uid: int, *, delete: bool = False) -> None:
        """Release a download that is not running; `delete` what it received."""

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
        """Whether no worker is left, so that `close` will not wait."""

    def close(self, *, forced: bool = False) -> Report:
        """Join every worker; returns the last events. Stopped transfers stay with the host.

        `forced`: Blender takes the operator away; a worker in a name look-up is left behind.
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
        self.uid = 0
        self.waker = Waker()
        self.abandoned = False
        self._client: Client | None = None
        self._host = host

    def run(self) -> None:
        buffer = memoryview(bytearray(BUFFER))
        try:
            while transfer := self._host.take(self):
                outcome = self._run(transfer, buffer)
                if self.abandoned:
                    return
                self._host.put(self, outcome)
        finally:
            if self._client:
                self._client.close()
            self._host.leave(self)

    def _run(self, transfer: Transfer, buffer: memoryview) -> Outcome:
        assert self.control
        try:
            self._client = self._client or self._host.new_client()
            return transfer.run(self.control, self._client, buffer)
        except Stopped:
            return Halted()
        except TransferError as error:
            return Failed(str(error))
        except Exception:  # a defect of ours fails this download, and is told
            log.exception("A download failed in a way nobody foresaw")
            return Failed("Something unforeseen went wrong; Blender's console has the details")


class _Clerk(threading.Thread):
    """Writes the list to the disk, so that no fsync holds up the main thread."""

    def __init__(self) -> None:
        super().__init__(name="downloads-0", daemon=True)
        self._changed = threading.Condition()
        self._unwritten: tuple[str, bytes] | None = None
        self._leaving = False

    def store(self, path: str, data: bytes) -> None:
        with self._changed:
            self._unwritten = path, data
            self._changed.notify()

    def leave(self) -> None:
        """Write what is left, then end."""
        with self._changed:
            self._leaving = True
            self._changed.notify()

    def run(self) -> None:
        while work := self._next():
            try:
                write_atomically(Path(work[0]), work[1], mode=PRIVATE)
            except OSError:
                log.warning("The list of downloads cannot be written to the disk", exc_info=True)

    def _next(self) -> tuple[str, bytes] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._unwritten or self._leaving)
            work, self._unwritten = self._unwritten, None
            return work


class ThreadHost:
    """Worker threads in this process. See `Host`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._trust: Trust | None = None
        self._changed = threading.Condition()  # guards all below
        self._transfers: dict[int, Transfer] = {}  # submitted, running, and stopped: longest stopped first
        self._pending: deque[int] = deque()
        self._workers: set[_Worker] = set()
        self._left: list[_Worker] = []
        self._idle = 0
        self._number = 0
        self._events: list[Event] = []
        self._dismissed = False
        self._news = threading.Event()
        self._clerk: _Clerk | None = None

    # -- The main thread's side.

    def submit(self, job: Job) -> None:
        with self._changed:
            self._dismissed = False
            self._transfers.setdefault(job.uid, Transfer(job, self._settings))
            self._pending.append(job.uid)
            if self._idle < len(self._pending) and len(self._workers) < self._settings.connections:
                self._start_worker()
            self._changed.notify()

    def _start_worker(self) -> None:
        self._number += 1
        worker = _Worker(self, self._number)
        self._workers.add(worker)
        worker.start()

    def stop(self, uid: int) -> None:
        with self._changed:
            if uid in self._pending:
                self._pending.remove(uid)
                self._put(uid, Halted())
            for worker in self._workers:
                if worker.uid == uid and worker.control:
                    worker.control.stop()

    def hang_up(self, uid: int) -> None:
        with self._changed:
            if uid in self._transfers and not self._is_active(uid):
                self._transfers[uid].hang_up()

    def forget(self, uid: int, *, delete: bool = False) -> None:
        with self._changed:
            if self._is_active(uid) or not (transfer := self._transfers.pop(uid, None)):
                return
        transfer.discard() if delete else transfer.close()

    def _is_active(self, uid: int) -> bool:
        return uid in self._pending or any(worker.uid == uid for worker in self._workers)

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
                    report.progress[worker.uid] = self._transfers[worker.uid].progress(now)
        for worker in left:  # not under the lock: they may want it for their last step
            worker.join()
            worker.waker.close()
        return report

    def _supervise(self, control: Control, now: float) -> None:
        """End a phase that does not get on. Backoff is a wait that has its own end."""
        if control.phase not in (Phase.BACKOFF, Phase.PUBLISH) and control.idle(now) > self._settings.timeout:
            control.touch()
            control.expire()

    def wait(self, seconds: float) -> None:
        self._news.wait(seconds)

    def store(self, path: str, data: bytes) -> None:
        if not self._clerk:
            self._clerk = _Clerk()
            self._clerk.start()
        self._clerk.store(path, data)

    def dismiss(self, *, keep: bool = False) -> None:
        with self._changed:
            self._dismissed = True
            while self._pending:
                self._put(self._pending.popleft(), Halted())
            for worker in self._workers:
                if worker.control:
                    worker.control.stop()
            self._changed.notify_all()
        if self._clerk:
            self._clerk.leave()

    def is_quiet(self) -> bool:
        with self._changed:
            return not self._workers and not (self._clerk and self._clerk.is_alive())

    def close(self, *, forced: bool = False) -> Report:
        self.dismiss()
        deadline = time.monotonic() + LOOKUP_PATIENCE
        for worker in list(self._workers):
            while worker in self._workers:
                worker.join(0.01)
                if forced and time.monotonic() > deadline and self._in_lookup(worker):
                    self._abandon(worker)
        if self._clerk:
            self._clerk.join()
            self._clerk = None
        return self.poll()

    def _in_lookup(self, worker: _Worker) -> bool:
        control = worker.control
        return control is not None and control.phase is Phase.LOOKUP

    def _abandon(self, worker: _Worker) -> None:
        """Leave a worker to the name look-up that nothing can interrupt; it touches nothing when it wakes."""
        with self._changed:
            worker.abandoned = True
            self._transfers.pop(worker.uid).abandon()
            self._put(worker.uid, Halted())
            self._workers.discard(worker)

    def shut(self, *, forced: bool = False) -> Report:
        report = self.close(forced=forced)
        for transfer in self._transfers.values():
            transfer.close()
        self._transfers.clear()
        return report

    # -- The workers' side.

    def new_client(self) -> Client:
        """A client for a worker. Imports `requests`, which takes a while, on the worker's time."""
        from .transfer.connect import Client, Trust

        with self._changed:
            self._trust = self._trust or Trust()
            return Client(self._settings, self._trust)

    def take(self, worker: _Worker) -> Transfer | None:
        """Wait for the next transfer; None when the worker shall leave."""
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._pending or self._dismissed)
            self._idle -= 1
            if not self._pending:
                self._workers.discard(worker)  # now, so that a new job gets a new worker
                self._left.append(worker)
                return None
            worker.uid = self._pending.popleft()
            worker.control = Control(worker.waker)
            self._events.append(Started(worker.uid))
            transfer = self._transfers[worker.uid]
        self._make_room(transfer)
        return transfer

    def _make_room(self, wanted: Transfer) -> None:
        """Close connections that stopped transfers keep, longest stopped first, down to the limit."""
        with self._changed:
            active = {worker.uid for worker in self._workers if worker.uid}
            kept = [t for uid, t in self._transfers.items() if t.is_open and uid not in active]
            surplus = len(kept) + len(active) - self._settings.connections
            for transfer in kept[: max(0, surplus)]:
                transfer.hang_up()

    def put(self, worker: _Worker, outcome: Outcome) -> None:
        """A worker has ended a transfer."""
        with self._changed:
            uid, worker.uid, worker.control = worker.uid, 0, None
            if isinstance(outcome, (Finished, Skipped)):
                self._transfers.pop(uid).close()
            else:
                self._transfers[uid] = self._transfers.pop(uid)  # the last to be hung up
            self._put(uid, outcome)

    def _put(self, uid: int, outcome: Outcome) -> None:
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
            self._news.set()


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
    uid: int
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
        self._settings = settings
        self._child: _Child | None = None
        self._outbox: deque[_Command] = deque()
        self._jobs: dict[int, Job] = {}  # submitted and not ended
        self._events: list[Event] = []
        self._progress: dict[int, Progress] = {}
        self._crashes: deque[float] = deque(maxlen=CRASHES)  # when, in seconds of time.monotonic
        self._is_quiet = True

    def submit(self, job: Job) -> None:
        self._jobs[job.uid] = job
        self._is_quiet = False
        self._outbox.append(_Submit(job))

    def stop(self, uid: int) -> None:
        waiting = [c for c in self._outbox if isinstance(c, _Submit) and c.job.uid == uid]
        if waiting:
            self._outbox.remove(waiting[0])
            self._end(uid, Halted())
        elif uid in self._jobs:
            self._say(_Stop(uid))

    def hang_up(self, uid: int) -> None:
        self._outbox.append(_HangUp(uid))

    def forget(self, uid: int, *, delete: bool = False) -> None:
        if uid in self._jobs:
            return
        self._outbox.append(_Forget(uid, delete))

    def store(self, path: str, data: bytes) -> None:
        self._outbox = deque(c for c in self._outbox if not isinstance(c, _Store))
        pieces = range(0, max(1, len(data)), BATCH)
        for start in pieces:
            piece = data[start : start + BATCH]
            self._outbox.append(_Store(path, piece, start == 0, start == pieces[-1]))

    def poll(self) -> Report:
        try:
            self._hear()
            self._ask()
        except (EOFError, OSError):
            self._lost()
        events, self._events = self._events, []
        return Report(events, self._progress)

    def wait(self, seconds: float) -> None:
        if self._child and self._child.asked_at:
            self._child.connection.poll(seconds)
        else:
            time.sleep(min(seconds, POLL / 10))

    def _hear(self) -> None:
        """Take the answers that are there."""
        child = self._child
        if not child:
            return
        while child.connection.poll(0):
            answer: _Answer = child.connection.recv()
            child.asked_at = 0.0
            self._is_quiet = answer.is_quiet and not self._jobs
            self._progress = answer.report.progress
            for event in answer.report.events:
                self._events.append(event)
                if isinstance(event, Ended):
                    self._jobs.pop(event.uid, None)
        now = time.monotonic()
        patience = CHILD_PATIENCE if child.is_leaving else SILENCE
        if child.asked_at and now - child.asked_at > patience:
            raise EOFError

    def _ask(self) -> None:
        """Send what has gathered, and have the child look; at most one question is open."""
        child = self._child
        if not self._outbox and not child:
            return
        if not child or (child.is_leaving and self._outbox):
            child = self._child = self._replace(child)
        if child.asked_at or child.is_leaving:
            return
        batch, size = [], 0
        while self._outbox and size < BATCH:
            batch.append(self._outbox.popleft())
            size += _weight(batch[-1])
        child.ask([*batch, _Look()])

    def _replace(self, leaving: _Child | None) -> _Child:
        if leaving:  # it was asked to, a moment ago
            self._wait_for_exit(leaving)
        return _Child(self._settings)

    def _say(self, *commands: _Command) -> None:
        """Send at once, past what has gathered."""
        try:
            if self._child:
                self._child.connection.send(list(commands))
        except (EOFError, OSError):
            self._lost()

    def _end(self, uid: int, outcome: Outcome) -> None:
        self._jobs.pop(uid, None)
        self._events.append(Ended(uid, outcome))

    def _lost(self) -> None:
        """The child is gone, or does not answer: go on in a new one, unless that keeps happening."""
        child, self._child = self._child, None
        if not child:
            return
        child.kill()
        self._progress = {}
        if child.is_leaving:
            self._halt_all()
            return
        self._outbox = deque(c for c in self._outbox if not isinstance(c, _Submit))
        if self._crashes_too_often():
            for uid in list(self._jobs):
                self._end(uid, Failed(_CRASHING))
            self._is_quiet = True
        self._outbox.extend(_Submit(job) for job in self._jobs.values())

    def _crashes_too_often(self) -> bool:
        self._crashes.append(time.monotonic())
        return len(self._crashes) == CRASHES and self._crashes[-1] - self._crashes[0] < 60.0

    def _halt_all(self) -> None:
        self._outbox.clear()
        for uid in list(self._jobs):
            self._end(uid, Halted())
        self._is_quiet = True

    def dismiss(self, *, keep: bool = False) -> None:
        for command in [c for c in self._outbox if isinstance(c, _Submit)]:
            self._outbox.remove(command)
            self._end(command.job.uid, Halted())
        if not self._child:
            self._halt_all()
        elif keep:
            self._say(_Dismiss())
        elif not self._child.is_leaving:
            rest, self._outbox = list(self._outbox), deque()
            self._child.is_leaving = True
            self._child.asked_at = time.monotonic()
            self._say(*rest, _Leave())

    def is_quiet(self) -> bool:
        """Whether no worker is left; after `dismiss` without `keep`, no child either."""
        if self._child and self._child.is_leaving:
            return self._child.has_left()
        return self._is_quiet and not self._jobs

    def close(self, *, forced: bool = False) -> Report:
        return self.shut(forced=forced)

    def shut(self, *, forced: bool = False) -> Report:
        self.dismiss()
        if self._child:
            self._wait_for_exit(self._child)
            self._child = None
        self._halt_all()
        events, self._events = self._events, []
        return Report(events)

    def _wait_for_exit(self, child: _Child) -> None:
        """Hear the child's last words, then see it off; one that does not leave is killed."""
        deadline = time.monotonic() + CHILD_PATIENCE + LOOKUP_PATIENCE
        try:
            while time.monotonic() < deadline:
                child.connection.poll(POLL)
                self._hear()
        except (EOFError, OSError):
            pass  # it has closed its end
        child.kill()


def _weight(command: _Command) -> int:
    """About how many bytes a command takes in a message."""
    match command:
        case _Store(piece=piece):
            return len(piece)
        case _Submit(job=job):
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
        finally:
            theirs.close()
        self.asked_at = 0.0
        """When it was asked to look and has not answered, in seconds of `time.monotonic`; else 0."""
        self.is_leaving = False
        self.connection.send(settings)

    def ask(self, commands: list[_Command]) -> None:
        self.asked_at = time.monotonic()
        self.connection.send(commands)

    def has_left(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        """End it, if it has not left, and release what belonged to it."""
        self.connection.close()
        try:
            self._process.wait(0.1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_BOOT = """
import importlib, json, sys, types
package, root, sys.path[:], handle = json.loads(sys.argv[1])
names = package.split(".")
for count in range(1, len(names) + 1):
    module = types.ModuleType(".".join(names[:count]))
    module.__path__ = [root] if count == len(names) else []
    sys.modules[module.__name__] = module
importlib.import_module(package + ".workers").serve(handle)
"""


def _spawn(theirs: Connection) -> subprocess.Popen[bytes]:
    """Start Python on `serve`, under a stub of our package that does not import Blender's side.

    Not through `multiprocessing`, whose spawn needs `__main__` and leaves a resource tracker.
    """
    handle = theirs.fileno()
    arguments = json.dumps([__package__, os.path.dirname(os.path.abspath(__file__)), sys.path, handle])
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    if sys.platform == "win32":
        os.set_handle_inheritable(handle, True)
        startup = subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle]})
        options |= {"startupinfo": startup, "creationflags": subprocess.CREATE_NO_WINDOW}
    else:
        options["pass_fds"] = [handle]
    return subprocess.Popen([sys.executable, "-I", "-c", _BOOT, arguments], **options)


def serve(handle: int) -> None:
    """The child's main thread: obey, supervise, answer; leave when told, or when Blender is gone."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is Blender's to handle
    connection = _connection(handle)
    try:
        host = ThreadHost(connection.recv())
        _Server(connection, host).run()
    except (EOFError, OSError):
        pass  # Blender is gone
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

    def __init__(self, connection: Connection, host: ThreadHost) -> None:
        self._connection = connection
        self._host = host
        self._report = Report()
        self._pieces: list[bytes] = []
        self._leaving = False

    def run(self) -> None:
        while not self._leaving:
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
            case _Forget(uid=uid, delete=delete):
                self._host.forget(uid, delete=delete)
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
