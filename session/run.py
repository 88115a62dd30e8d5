"""A run: one owner of workers, timer and window, from the operator's start to its end."""

from __future__ import annotations

import time
from contextlib import ExitStack
from itertools import islice
from typing import Any

import bpy

from ..workers import Ended, ProcessHost, Report, Started, YieldingHost
from . import watch
from .queue import Host, Queue
from .settings import connections, is_rendering, settings, wants_process

TICK = 0.025  # seconds; Blender's idle loop adds up to 5 ms
HASTY_TICK = 0.005  # likewise, while somebody waits for workers to let go
AHEAD = 200  # downloads that a host has beyond those that its connections serve: small files end by the
# hundred until a child hears of the next ones
HASTE = 1.0  # seconds at most in which a new run is ticked hastily, until its first download has begun
IN_A_TICK = 500  # links that become rows in each tick, where thousands were added: some 2 ms
GRACE = 0.03  # seconds that are waited at most for workers that were let go of: most need 5 ms
LOOK = 0.001  # seconds between two looks whether they are gone
AUTOSAVE_LATE = 5.0  # seconds after which an autosave that was due has waited long enough for us


class Run:
    """Downloads what is QUEUED until nothing is; `tick` it, and `close` it on every path."""

    def __init__(self, queue: Queue, window: Any) -> None:
        self._queue = queue
        self.host = _host(queue)
        self.beat = time.monotonic()
        """When it was last ticked, in seconds of `time.monotonic`."""
        self._submitted: set[int] = set()
        self._started: set[int] = set()
        self._stopping: set[int] = set()
        self._has_begun = False
        self._began = self._looked = time.monotonic()
        self._is_leaving = False
        self.is_interrupted = False
        """Whether it is closed for a moment, so that Blender can autosave, and shall start again."""
        self.is_closed = False
        self._stack = ExitStack()
        self._stack.callback(self._leave_queue)
        self._ticking = _Timers(window)
        self._stack.callback(self._ticking.stop)
        self._ticking.hasten(True)
        queue.run = self
        queue.tally.began = queue.tally.began or self.beat

    def begin(self) -> None:
        """Have the first workers start, since Blender may draw for long before the first tick."""
        self._queue.hold(is_rendering())
        self._feed()
        self._take(self.host.poll(), time.monotonic())

    def has(self, uid: int) -> bool:
        """Whether the row was handed to a worker."""
        return uid in self._submitted

    def stop(self, uid: int) -> None:
        """Have a worker let go of a row."""
        self.host.stop(uid)
        self._stopping.add(uid)
        self._ticking.hasten(True)

    def spare(self, *, stops_all: bool = False) -> None:
        """Let the workers go at once where all that they have was asked to stop, and nothing waits.

        `stops_all`: what waits is about to be stopped too.
        """
        is_waiting = (self._queue.is_waiting and not stops_all) or self.is_interrupted
        if self._submitted <= self._stopping and not is_waiting:
            self._take(self.host.poll(), time.monotonic())
            self._is_leaving = True
            self.host.dismiss()
            if self._queue.is_waiting:  # what is done to those holds Python's lock, and the workers up
                self._wait_a_moment()

    def _wait_a_moment(self) -> None:
        """For workers that were let go of, which have Python to themselves meanwhile."""
        end = time.monotonic() + GRACE
        while not self.host.is_quiet() and time.monotonic() < end:
            time.sleep(LOOK)
            self._take(self.host.poll(), time.monotonic())

    def recall(self) -> None:
        """Take back what was handed over ahead of time: the order has changed, or rows wait again."""
        for uid in self._submitted - self._started:
            self.host.stop(uid)

    def tick(self) -> bool:
        """Take what the workers tell, hand out what comes next. False: it is over, and all is closed."""
        now = time.monotonic()
        if now - self.beat < self._ticking.pace / 2:  # other people's timers reach us too
            return True
        self.beat = now
        self._queue.hold(is_rendering())
        if self.host.settings.connections != (limit := connections()):
            self.host.change(connections=limit)
        self._take(self.host.poll(), now)
        if self._submitted or not self._queue.rows.is_waiting:  # else a click was just now
            self._queue.take_in(IN_A_TICK)
        self._queue.show()  # whatever comes of this tick: scripts find no row that is gone
        if self.is_interrupted or self._is_autosave_late(now):
            return self._interrupt()
        self._feed()
        if not self._submitted:
            return self._leave(now)
        is_new = not self._has_begun and now - self._began < HASTE
        self._ticking.hasten(is_new or bool(self._stopping))
        self._queue.keep(now)
        return True

    def _is_autosave_late(self, now: float) -> bool:
        """Whether Blender waits for us to autosave: it does not while a modal operator runs."""
        files = bpy.context.preferences.filepaths
        late = self._queue.tally.began + files.auto_save_time * 60.0 + AUTOSAVE_LATE
        if now < late or not files.use_auto_save_temporary_files:
            return False
        return bpy.data.is_dirty and not watch.strangers_run()

    def step_aside(self) -> None:
        """Close for a moment, transfers keeping their connections, as soon as no worker is left."""
        if not self.is_interrupted:
            self.is_interrupted = True
            self.host.dismiss(keep=True)

    def _interrupt(self) -> bool:
        if not self.is_interrupted:
            self.step_aside()
            for copy in watch.copies():
                copy.step_aside()
        if self.host.is_quiet():
            self.close(keep=True)
        return not self.is_closed

    def _take(self, report: Report, now: float) -> None:
        for event in report.events:
            match event:
                case Started(uid=uid):
                    self._has_begun = True
                    self._started.add(uid)
                    self._queue.started(uid)
                case Ended(uid=uid, outcome=outcome):
                    self._submitted.discard(uid)
                    self._started.discard(uid)
                    self._stopping.discard(uid)
                    self._queue.ended(uid, outcome)
        for uid, progress in report.progress.items():
            self._queue.progressed(uid, progress, now - self._looked)
        self._looked = now

    def _feed(self) -> None:
        """Keep the workers busy until the next tick."""
        room = self.host.settings.connections + AHEAD - len(self._submitted)
        if room <= 0 or self._is_leaving or not self._queue.rows.is_waiting:
            return
        waiting = (row for row in self._queue.rows.queued() if row.uid not in self._submitted)
        for row in list(islice(waiting, room)):
            self._submitted.add(row.uid)
            self.host.submit(self._queue.job(row))

    def _leave(self, now: float) -> bool:
        """Let the workers go, without waiting for them. False once they are gone."""
        if not self._is_leaving:
            self._is_leaving = True
            self.host.dismiss()
            self._ticking.hasten(True)
        elif self.host.is_quiet():
            self._is_leaving = not self._queue.is_waiting  # somebody added downloads meanwhile
            if self._is_leaving:
                self.close()
        return not self.is_closed

    def close(self, *, forced: bool = False, keep: bool = False) -> None:
        """Join every worker and release all. Waits for what cannot be interrupted; see `Host.close`."""
        self.is_closed = True
        with self._stack.pop_all():
            self._take(self.host.close(forced=forced, keep=keep), time.monotonic())

    def _leave_queue(self) -> None:
        if self._queue.run is self:
            self._queue.run = None
        if isinstance(self.host, ProcessHost) and not self.is_interrupted:
            self._queue.host = None
        self._queue.flush()


class _Timers:
    """What ticks a run, in the window where it lives."""

    def __init__(self, window: Any) -> None:
        self._window = window
        self._timers: list[Any] = []
        self._add(TICK)

    @property
    def pace(self) -> float:
        """Seconds between two ticks."""
        return HASTY_TICK if len(self._timers) > 1 else TICK

    def hasten(self, is_hasty: bool) -> None:
        """Tick more often, or as ever again."""
        if is_hasty and len(self._timers) == 1:
            self._add(HASTY_TICK)
        elif not is_hasty and len(self._timers) > 1:
            self._remove()

    def stop(self) -> None:
        """No more ticks."""
        while self._timers:
            self._remove()

    def _add(self, seconds: float) -> None:
        self._timers.append(bpy.context.window_manager.event_timer_add(seconds, window=self._window))

    def _remove(self) -> None:
        bpy.context.window_manager.event_timer_remove(self._timers.pop())


def _host(queue: Queue) -> Host:
    """The host of a run: the one that keeps stopped transfers, while it is of the right kind."""
    wanted = ProcessHost if wants_process() else YieldingHost
    now = settings()
    if queue.host:
        queue.host.change(connections=now.connections)
    if queue.host and (type(queue.host) is not wanted or queue.host.settings != now):
        queue.host.shut(forced=True)
        queue.host = None
    queue.host = queue.host or wanted(now)
    return queue.host
