"""A run: one owner of workers, timer and window, from the operator's start to its end.

`Run` is the modal one, fed by ticks. `run_blocking` is the executed one: start, join, return.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import bpy

from ..transfer.job import Outcome, Progress, Settings, TransferError
from ..workers import Download, Ended, ProcessHost, Report, Started, ThreadHost, YieldingHost
from . import Host, Session, settle

TICK = 0.025  # seconds; Blender's idle loop adds up to 5 ms
AUTOSAVE_LATE = 5.0  # seconds after which an autosave that was due has waited long enough for us
THREADS_FROM = (3, 12)  # below, threads crash Blender whatever they do: it looks up contexts without the GIL
LOOK = 0.05  # seconds between two looks of the executed path at its workers
TERMINAL_INTERVAL = 0.2  # seconds between two lines of progress
DEFAULT_TIMEOUT = 60.0  # seconds, where Blender's own preference says 0
DEFAULT_CONNECTIONS = 16  # likewise


class Run:
    """Downloads what is QUEUED until nothing is; `tick` it, and `close` it on every path."""

    def __init__(self, session: Session, window: Any) -> None:
        self._session = session
        self.host = _host(session)
        self.beat = time.monotonic()
        """When it was last ticked, in seconds of `time.monotonic`."""
        self._submitted: set[int] = set()
        self._started: set[int] = set()
        self._ahead = 0
        self._looked = time.monotonic()
        self._is_leaving = False
        self.is_interrupted = False
        """Whether it is closed for a moment, so that Blender can autosave, and shall start again."""
        self.is_closed = False
        self._stack = ExitStack()
        self._stack.callback(self._leave_session)
        timer = bpy.context.window_manager.event_timer_add(TICK, window=window)
        self._stack.callback(_remove_timer, timer)
        session.run = self
        session.began = session.began or self.beat

    def has(self, uid: int) -> bool:
        """Whether the row was handed to a worker."""
        return uid in self._submitted

    def stop(self, uid: int) -> None:
        """Have a worker let go of a row."""
        self.host.stop(uid)

    def recall(self) -> None:
        """Take back what was handed over ahead of time: the order has changed."""
        for uid in self._submitted - self._started:
            self.host.stop(uid)

    def tick(self) -> bool:
        """Take what the workers tell, hand out what comes next. False: it is over, and all is closed."""
        now = time.monotonic()
        if now - self.beat < TICK / 2:  # other people's timers reach us too
            return True
        self.beat = now
        self._session.hold(is_rendering())
        self._take(self.host.poll(), now)
        if self.is_interrupted or self._is_autosave_late(now):
            return self._interrupt()
        self._feed()
        self._session.mirror.flush()
        if self._submitted:
            self._session.store.flush(now, self.host)
            return True
        return self._leave()

    def _is_autosave_late(self, now: float) -> bool:
        """Whether Blender waits for us to autosave: it does not while a modal operator runs."""
        files = bpy.context.preferences.filepaths
        late = self._session.began + files.auto_save_time * 60.0 + AUTOSAVE_LATE
        if now < late or not files.use_auto_save_temporary_files:
            return False
        return bpy.data.is_dirty and not _others_run()

    def _interrupt(self) -> bool:
        """Close for a moment, transfers keeping their connections, as soon as no worker is left."""
        if not self.is_interrupted:
            self.is_interrupted = True
            self.host.dismiss(keep=True)
        if not self.host.is_quiet():
            return True
        self.close(keep=True)
        return False

    def _take(self, report: Report, now: float) -> None:
        ended = 0
        for event in report.events:
            match event:
                case Started(uid=uid):
                    self._started.add(uid)
                    self._session.started(uid)
                case Ended(uid=uid, outcome=outcome):
                    ended += 1
                    self._submitted.discard(uid)
                    self._started.discard(uid)
                    self._session.ended(uid, outcome)
        self._ahead = 2 * ended  # small files end faster than we tick
        for uid, progress in report.progress.items():
            self._session.progressed(uid, progress, now - self._looked)
        self._looked = now

    def _feed(self) -> None:
        """Keep the workers busy until the next tick."""
        room = _connections() + self._ahead - len(self._submitted)
        if room <= 0 or self._is_leaving or not self._session.is_waiting:
            return
        waiting = (row for row in self._session.queued() if row.uid not in self._submitted)
        for row in list(_first(waiting, room)):
            self._submitted.add(row.uid)
            self.host.submit(self._session.job(row))

    def _leave(self) -> bool:
        """Let the workers go, without waiting for them. False once they are gone."""
        if not self._is_leaving:
            self._is_leaving = True
            self.host.dismiss()
        if not self.host.is_quiet():
            return True
        if self._session.is_waiting:  # somebody added downloads meanwhile
            self._is_leaving = False
            return True
        self.close()
        return False

    def close(self, *, forced: bool = False, keep: bool = False) -> None:
        """Join every worker and release all. Waits for what cannot be interrupted; see `Host.close`."""
        self.is_closed = True
        with self._stack.pop_all():
            self._take(self.host.close(forced=forced, keep=keep), time.monotonic())

    def _leave_session(self) -> None:
        if self._session.run is self:
            self._session.run = None
        if isinstance(self.host, ProcessHost) and not self.is_interrupted:
            self._session.host = None
        self._session.store.save()
        self._session.mirror.flush()


def _first(rows: Iterable[Download], count: int) -> Iterator[Download]:
    for _, row in zip(range(count), rows, strict=False):
        yield row


def _others_run() -> bool:
    """Whether somebody else's modal operator runs."""
    windows = bpy.context.window_manager.windows
    return sum(len(window.modal_operators) for window in windows) > 1


def _remove_timer(timer: Any) -> None:
    bpy.context.window_manager.event_timer_remove(timer)


def is_rendering() -> bool:
    """Whether Blender renders on a thread of its own."""
    return bool(bpy.app.is_job_running("RENDER"))


# -- Settings.


def _connections() -> int:
    return bpy.context.preferences.system.network_connection_limit or DEFAULT_CONNECTIONS


def settings() -> Settings:
    """What workers need to know of Blender's preferences."""
    return Settings(
        timeout=float(bpy.context.preferences.system.network_timeout or DEFAULT_TIMEOUT),
        connections=_connections(),
        user_agent=user_agent(),
    )


def user_agent() -> str:
    """Who we are, as Blender's own downloads say it."""
    blender = ".".join(map(str, bpy.app.version))
    return f"background_downloads/{VERSION} Blender/{blender} ({platform.system()} {platform.machine()})"


VERSION = "0.1.0"


def preferences() -> Any:
    """The add-on's preferences, or None where it runs without (a script that registers it by hand)."""
    addon = bpy.context.preferences.addons.get(__package__.rpartition(".")[0])
    return addon.preferences if addon else None


def folder(chosen: str) -> str:
    """The absolute folder that an empty field, `//`, or a path means.

    Raises TransferError: the .blend file that it is to be beside is not saved yet.
    """
    chosen = chosen.strip()
    if not chosen:
        chosen = getattr(preferences(), "directory", "").strip() or os.path.join("~", "Downloads")
    if chosen.startswith("//") and not bpy.data.filepath:
        raise TransferError("Save the .blend file first: the folder is to be beside it")
    return os.path.normpath(os.path.expanduser(bpy.path.abspath(chosen)))


def wants_process() -> bool:
    """Whether the workers of a modal run live in a child process."""
    chosen = preferences()
    return sys.version_info < THREADS_FROM or (chosen is not None and chosen.workers == "PROCESS")


def _host(session: Session) -> Host:
    """The host of a run: the one that keeps stopped transfers, while it is of the right kind."""
    wanted = ProcessHost if wants_process() else YieldingHost
    now = settings()
    if session.host and (type(session.host) is not wanted or session.host.settings != now):
        session.host.shut(forced=True)
        session.host = None
    session.host = session.host or wanted(now)
    return session.host


# -- The executed path.


def run_blocking(session: Session, rows: list[Download]) -> bool:
    """Download `rows` with this thread waiting: the case that Blender's manual supports.

    Threads are started, joined, and gone when it returns; bpy is not touched in between. While
    Blender renders on a thread of its own they are in a child process. The rows are in no list
    yet; each holds how it ended. Returns False where Ctrl-C cancelled them, which is heard in
    background mode.
    """
    host = (ProcessHost if is_rendering() else ThreadHost)(settings())
    jobs = [session.job(row) for row in rows]
    outcomes: dict[int, Outcome] = {}
    terminal = _Terminal(len(rows))
    with _interrupts() as interrupted:
        try:
            for job in jobs:
                host.submit(job)
            while len(outcomes) < len(jobs):
                report = host.poll()
                terminal.show(report, time.monotonic())
                outcomes |= {event.uid: event.outcome for event in report.events if isinstance(event, Ended)}
                if interrupted:
                    host.dismiss()
                if len(outcomes) < len(jobs):
                    host.wait(LOOK)
        finally:
            host.shut()
    for row in rows:  # only now: keeping an ETag asks Blender for a folder
        row.status = settle(row, outcomes[row.uid], session.etags)
    return not interrupted


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """In background mode, catch Ctrl-C: the list that is yielded is no longer empty then.

    Blender has a handler of its own there, which Python cannot put back: the system's takes its place.
    """
    caught: list[int] = []
    if not bpy.app.background:
        yield caught
        return
    old = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, old if old is not None else signal.SIG_DFL)


class _Terminal:
    """Progress for whoever started Blender in a terminal; silent elsewhere."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._ended = 0
        self._shown = 0.0
        self._overwrites = bool(sys.stderr) and sys.stderr.isatty()
        self._is_on = self._overwrites or "BACKGROUND_DOWNLOADS_PROGRESS" in os.environ

    def show(self, report: Report, now: float) -> None:
        """Write a line over the last one, a few times a second."""
        self._ended += sum(isinstance(event, Ended) for event in report.events)
        is_last = self._ended == self._count
        if not self._is_on or (now - self._shown < TERMINAL_INTERVAL and not is_last):
            return
        self._shown = now
        running = ", ".join(_running_text(progress) for progress in report.progress.values())
        line = f"{self._ended} of {self._count} done" + (f": {running}" if running else "")
        if self._overwrites:
            print(f"\r{line:<79.79}", end="\n" if is_last else "", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)


def _running_text(progress: Progress) -> str:
    size = f" of {progress.size / 1e6:.1f}" if progress.size else ""
    return f"{progress.name} {progress.received / 1e6:.1f}{size} MB"
