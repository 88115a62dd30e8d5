"""The executed path: start, join, return, with the main thread waiting."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import bpy

from ..transfer.job import Outcome, Progress
from ..workers import Download, Ended, ProcessHost, Report, ThreadHost
from .session import Session, settle
from .settings import is_rendering, settings

LOOK = 0.05  # seconds between two looks of the executed path at its workers
TERMINAL_INTERVAL = 0.2  # seconds between two lines of progress


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
