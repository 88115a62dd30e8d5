"""A thread for what waits for the disk: the list, and files that are closed or deleted."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..transfer.disk import PRIVATE, write_atomically
from ..transfer.fetch import log_defect
from .origin import NAME

log = logging.getLogger(__name__)


class Clerk:
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
            if self._wake():
                self._unwritten = path, data
                return
        self._write(path, data)

    def do(self, chore: Callable[[], None]) -> None:
        """Do it soon, after the chores before it."""
        with self._changed:
            if self._wake():
                self._chores.append(chore)
                return
        chore()

    def defer(self, chore: Callable[[], None]) -> None:
        """Do it once there is a thread, which none is started for."""
        with self._changed:
            self._chores.append(chore)

    def catch_up(self) -> None:
        """Have that begun: a thread may be started again."""
        if self._chores:
            with self._changed:
                is_begun = self._wake()
            if not is_begun:
                self.finish()

    def finish(self) -> None:
        """Do here what is left, where no thread does."""
        while self._chores:
            self._chores.popleft()()

    def _wake(self) -> bool:
        """Have a thread look for what there is to do; False: none can be started, so do it yourself."""
        if not self._running:
            self.join()  # one that left just now has nothing to do any more
            thread = threading.Thread(target=self._run, name=f"{NAME}-0", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread, self._running = thread, True
        self._leaving = False
        self._changed.notify_all()
        return True

    def settle(self) -> None:
        """Wait until all chores are done; what was deferred has nobody to do it once the thread has left."""
        if not self._chores:  # nearly always
            return
        with self._changed:
            self._changed.wait_for(lambda: not (self._chores and self._running))

    def leave(self) -> None:
        """Do what is left, then end."""
        with self._changed:
            self._leaving = True
            self._changed.notify_all()

    @property
    def is_quiet(self) -> bool:
        """Whether its thread has ended."""
        return not (self._thread and self._thread.is_alive())

    def join(self, most: float | None = None) -> None:
        """After `leave`: wait until its thread has ended, so many seconds at most; then it is left behind."""
        thread = self._thread
        if thread:
            thread.join(most)
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
        reason = write_private(path, data)
        if reason and not self._has_complained:
            self._has_complained = True
            log.warning("The list of downloads cannot be written to the disk now: %s", reason)


def write_private(path: str, data: bytes) -> str:
    """Returns why it cannot be done, if so. Whoever has it written looks whether it was."""
    try:
        write_atomically(Path(path), data, mode=PRIVATE)
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""
