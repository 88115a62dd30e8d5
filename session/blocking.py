"""The executed path: start, join, return, with the main thread waiting."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import bpy

from ..transfer.job import Outcome, Settings
from ..workers import Download, Ended, ProcessHost, ThreadHost, share
from . import settings as preferred
from .queue import Queue
from .terminal import Counter, Teller

LOOK = 0.05  # seconds between two looks of the executed path at its workers


def download(
    queue: Queue,
    rows: list[Download],
    *,
    teller: Callable[[list[Download]], Teller] | None = None,
    settings: Settings | None = None,
    apart: bool = False,
    cancelled: Callable[[], bool] = bool,
) -> bool:
    """Download what `Queue.new_rows` made with this thread waiting, then put it into the list.

    Each record holds how it ended. Threads do it, in a child process where they are to be `apart` from
    this one, and while Blender renders on a thread of its own. They end when it is `cancelled`. Returns
    False where Ctrl-C cancelled them, which is heard in background mode.
    """
    new = [row for row in rows if row.uid]
    kind = ProcessHost if apart or preferred.is_rendering() else ThreadHost
    host = kind(settings or preferred.settings())
    told = teller(new) if teller else Counter(len(new))
    with _interrupts() as interrupted:
        outcomes = _run(queue, new, host, told, lambda: bool(interrupted) or cancelled())
    for row in new:  # only now: keeping an ETag asks Blender for a folder
        row.status = queue.settle(row, outcomes[row.uid])
    queue.waited(new)
    return not interrupted


def _run(
    queue: Queue,
    rows: list[Download],
    host: ProcessHost | ThreadHost,
    teller: Teller,
    is_over: Callable[[], bool],
) -> dict[int, Outcome]:
    """How each row ended, by its uid: the case that Blender's manual supports.

    Threads are started, joined, and gone when it returns; bpy is not touched in between.
    """
    outcomes: dict[int, Outcome] = {}
    try:
        share([*queue.hosts, host])
        for row in rows:
            host.submit(queue.job(row))
        while len(outcomes) < len(rows):
            report = host.poll()
            teller.show(report, time.monotonic())
            outcomes |= {event.uid: event.outcome for event in report.events if isinstance(event, Ended)}
            if is_over():
                host.dismiss()
            share([*queue.hosts, host])
            if len(outcomes) < len(rows):
                host.wait(LOOK)
    finally:
        host.shut()
        share(queue.hosts)
    return outcomes


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """In background mode, catch Ctrl-C: the list that is yielded is no longer empty then.

    Blender has a handler of its own there, which Python cannot put back: the system's takes its place.
    A program that has Blender as a module on a thread of its own minds the signals itself.
    """
    caught: list[int] = []
    if not bpy.app.background or threading.current_thread() is not threading.main_thread():
        yield caught
        return
    old = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, old if old is not None else signal.SIG_DFL)
