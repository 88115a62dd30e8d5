"""The executed path: start, join, return, with the main thread waiting."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import bpy

from ..transfer.job import Outcome, Settings
from ..transfer.names import Link
from ..workers import Download, Ended, ProcessHost, ThreadHost
from . import settings as preferred
from .session import Session
from .terminal import Counter, Teller

LOOK = 0.05  # seconds between two looks of the executed path at its workers


def _counter(rows: list[Download]) -> Teller:
    return Counter(len(rows))


def download(
    session: Session,
    links: Iterable[Link],
    *,
    teller: Callable[[list[Download]], Teller] = _counter,
    settings: Settings | None = None,
    **options: Any,
) -> tuple[list[Download], list[str], bool]:
    """Download links with this thread waiting, and put the rows into the list afterwards.

    `options` are those of `Session.new_rows`. Returns the rows, a sentence for each link that is
    being downloaded already, and whether nobody interrupted it.
    """
    rows, at_work = session.new_rows(links, **options)
    session.store.folders.save()  # whatever happens to us, what was received is found again
    goes_on = run_blocking(session, rows, teller(rows), settings or preferred.settings())
    session.adopt(rows)
    for row in rows:
        if not row.is_unfinished:
            session.on_finished(row)
    session.mirror.flush(None)
    return rows, at_work, goes_on


def run_blocking(session: Session, rows: list[Download], teller: Teller, settings: Settings) -> bool:
    """Download `rows` with this thread waiting: the case that Blender's manual supports.

    Threads are started, joined, and gone when it returns; bpy is not touched in between. While
    Blender renders on a thread of its own they are in a child process. The rows are in no list
    yet; each holds how it ended. Returns False where Ctrl-C cancelled them, which is heard in
    background mode.
    """
    host = (ProcessHost if preferred.is_rendering() else ThreadHost)(settings)
    jobs = [session.job(row) for row in rows]
    outcomes: dict[int, Outcome] = {}
    with _interrupts() as interrupted:
        try:
            for job in jobs:
                host.submit(job)
            while len(outcomes) < len(jobs):
                report = host.poll()
                teller.show(report, time.monotonic())
                outcomes |= {event.uid: event.outcome for event in report.events if isinstance(event, Ended)}
                if interrupted:
                    host.dismiss()
                if len(outcomes) < len(jobs):
                    host.wait(LOOK)
        finally:
            host.shut()
    for row in rows:  # only now: keeping an ETag asks Blender for a folder
        row.status = session.settle(row, outcomes[row.uid])
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
