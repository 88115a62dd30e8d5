"""The child's end of the pipe: its main thread, which obeys, supervises and answers."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, assert_never

from ..transfer import portable
from ..transfer.fetch import log_defect
from .messages import Answer, Command, Dismiss, Forget, GoBy, HangUp, Leave, Look, Stop, Store, Submit
from .threads import ThreadHost
from .vocabulary import POLL, Report

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

LAST = 4.0  # seconds that it may take to leave, also where a disk does not answer


def serve(handle: int, parent: int) -> None:
    """The child's main thread: obey, supervise, answer; leave when told, or when Blender is gone."""
    with ExitStack() as stack:
        stack.callback(os._exit, 0)  # not waiting for a thread that is stuck in a name look-up
        try:
            _import_requests()
            connection = portable.connection(handle)
            host = ThreadHost(connection.recv())
            stack.callback(host.shut, forced=True)
            stack.callback(_leave_soon)
            _Server(connection, host, parent).run()
        except (EOFError, OSError):
            pass  # Blender is gone
        except Exception as error:
            log_defect(error)


def _leave_soon() -> None:
    """Whatever hangs: what is on the disk holds at any moment. Windows' own exit waits for what hangs."""
    timer = threading.Timer(LAST, os.kill, [os.getpid(), signal.SIGTERM])
    timer.daemon = True
    timer.start()


def _import_requests() -> None:
    """Before there is work: a worker that imports it for the first time cannot be stopped meanwhile."""
    with suppress(Exception):  # then the first download fails, and says so
        from ..transfer import connect  # noqa: F401


class _Server:
    """What the child does with each command."""

    def __init__(self, connection: Connection, host: ThreadHost, parent: int) -> None:
        self._connection = connection
        self._blender_lives = portable.watch(parent)
        self._host = host
        self._report = Report()
        self._pieces: list[bytes] = []
        self._leaving = False

    def run(self) -> None:
        # A process that Blender forked may hold our connection open beyond Blender's end.
        while not self._leaving and self._blender_lives():
            wait = POLL
            while not self._leaving and self._connection.poll(wait):
                for command in self._connection.recv():
                    self._obey(command)
                wait = 0.0  # what came together is obeyed together
            self._supervise(self._host.poll())

    def _supervise(self, report: Report) -> None:
        self._report.events += report.events
        self._report.progress = report.progress

    def _obey(self, command: Command) -> None:
        match command:
            case Submit(job=job, carried=carried):
                self._host.submit(job, carried)
            case Stop(uid=uid):
                self._host.stop(uid)
            case HangUp(uid=uid):
                self._host.hang_up(uid)
            case Forget(uid=uid):
                self._host.forget(uid)
            case Store():
                self._gather(command)
            case GoBy(settings=now):
                self._host.change(connections=now.connections, speed_limit=now.speed_limit, tokens=now.tokens)
            case Dismiss():
                self._host.dismiss()
            case Leave():
                self._leave()
            case Look():
                self._answer()
            case _:
                assert_never(command)

    def _gather(self, store: Store) -> None:
        if store.is_first:
            self._pieces.clear()
        self._pieces.append(store.piece)
        if store.is_last:
            self._host.store(store.path, b"".join(self._pieces))

    def _answer(self) -> None:
        self._supervise(self._host.poll())
        self._connection.send(Answer(self._report, self._host.is_quiet(), self._host.used()))
        self._report = Report()

    def _leave(self) -> None:
        _leave_soon()
        self._leaving = True
        self._answer()
        self._supervise(self._host.shut(forced=True))
        self._answer()
