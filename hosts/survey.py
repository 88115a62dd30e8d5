"""Folders may not answer: a disk sleeps, a network's is away. Nobody waits for one here.

Whoever clicked has them asked on threads, for a moment. Where there is time, as after a kill, a child process
looks into them, which can be ended at any moment; it leaves when it has looked, or Blender is gone.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeVar

from ..transfer import portable
from ..transfer.job import TransferError
from ..transfer.part import Leftover, leftovers
from .origin import NAME
from .spawn import put_down, spawn
from .vocabulary import POLL

# Seconds that whoever clicked waits. Below Python 3.12 a thread that works beside Blender may crash it:
# there a disk that merely sleeps is waited for, and a thread is left behind only where one is gone.
MOMENT = 0.5 if sys.version_info >= (3, 12) else 10.0
SLOW = 3.0  # likewise, at most, for a folder that was slow the last time
PATIENCE = 30.0  # seconds until those that have not answered a child are given up

Answer = TypeVar("Answer")

_Thread = partial(threading.Thread, daemon=True)
_silent: dict[str, threading.Thread] = {}  # what waits for folders that did not answer in time
_slow: dict[str, float] = {}  # seconds that folders may take, which took longer than a moment the last time


def ask(question: Callable[[str], Answer], folders: Iterable[str]) -> dict[str, Answer]:
    """What each folder says in a moment. One that does not answer is left out, its thread left behind.

    Until that is back, the folder counts as silent without being asked; the next time it has as long as it
    took. So what a question does may be done long after. The main thread's. Raises what a question raises.
    """
    answers: dict[str, Answer] = {}
    errors: list[Exception] = []

    def tell(folder: str) -> None:
        try:
            answers[folder] = question(folder)
        except Exception as error:
            errors.append(error)
        _slow.pop(folder, None)
        if (took := time.monotonic() - began) > MOMENT:
            _slow[folder] = min(2 * took, SLOW)

    began = time.monotonic()
    threads = {folder: _started(tell, folder) for folder in folders if not is_silent(folder)}
    for folder, thread in threads.items():
        if thread.is_alive():
            end = began + max(MOMENT, _slow.get(folder, 0.0))
            thread.join(max(0.0, end - time.monotonic()))
        if thread.is_alive():
            _silent[folder] = thread
    for error in errors:
        raise error
    return {folder: answers[folder] for folder in threads if folder in answers}


def _started(tell: Callable[[str], None], folder: str) -> threading.Thread:
    """A thread that asks; where none can be started, it is done here."""
    thread = _Thread(target=tell, args=[folder], name=f"{NAME}-disk")
    try:
        thread.start()
    except RuntimeError:
        tell(folder)
    return thread


def answer_of(folder: str, question: Callable[[str], Answer]) -> Answer:
    """The same of one folder. Raises TransferError in a sentence where it does not answer."""
    answers = ask(question, [folder])
    if folder not in answers:
        raise TransferError(silence(folder))
    return answers[folder]


def silence(folder: str) -> str:
    """What to say where it does not answer."""
    return f"The folder “{folder}” does not answer. Is its disk connected? Try again in a moment"


def is_silent(folder: str) -> bool:
    """Whether it was asked and has not answered yet."""
    thread = _silent.get(folder)
    if thread and not thread.is_alive():
        del _silent[folder]
    return folder in _silent


class Found(NamedTuple):
    """What is known of a folder."""

    place: str
    """Its real path; while it has not answered its name."""
    parts: list[Leftover] | None = None
    """The partial files in it; None: it has not answered."""


def look_into(folder: str) -> Found:
    """Blocks; raises nothing. In a folder that is not there is nothing."""
    with suppress(OSError, ValueError):
        return Found(os.path.realpath(folder), leftovers(folder))
    return Found(folder, [])


class Survey:
    """Blender's end: `look` now and then until it is over, or `close` it. The main thread's."""

    def __init__(self, folders: Iterable[str]) -> None:
        """Raises OSError where no process can be started."""
        self.found = {folder: Found(folder) for folder in folders}
        self._end = time.monotonic() + PATIENCE
        self._connection, self._process = spawn("survey")
        try:
            self._connection.send(list(self.found))
        except BaseException:
            self.close()
            raise

    def look(self) -> bool:
        """Hear what was found. False: no more will be, and the child is gone."""
        with suppress(EOFError, OSError):  # it is gone
            while portable.has_come(self._connection):
                folder, found = self._connection.recv()
                self.found[folder] = found
            if time.monotonic() < self._end and any(found.parts is None for found in self.found.values()):
                return True
        self.close()
        return False

    def close(self) -> None:
        """End the child, whatever it waits for."""
        self._connection.close()
        put_down(self._process)


def serve(handle: int, parent: int) -> None:
    """The child's end: a thread for each folder, so that none waits for another."""
    connection, blender_lives = portable.connection(handle), portable.watch(parent)
    sending = threading.Lock()

    def tell(folder: str) -> None:
        found = look_into(folder)
        with sending, suppress(OSError):  # Blender is gone
            connection.send((folder, found))

    with suppress(EOFError, OSError):
        threads = [_Thread(target=tell, args=[folder]) for folder in connection.recv()]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) and blender_lives() and not connection.poll(POLL):
            pass  # it says nothing more: that would be its end
    os._exit(0)  # not waiting for a folder
