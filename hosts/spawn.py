"""The child process, and our end of its pipe."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING

from ..transfer import portable
from ..transfer.job import Progress, Settings
from .messages import Answer, Command, Leave, Look
from .vocabulary import Event

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

SILENCE = 30.0  # seconds without an answer after which a child counts as lost
ASLEEP = 5.0  # seconds without a look: the machine slept, and its clock went on, or Blender stood still
KILLED = 1.0  # seconds that the system may take to end a child that was killed; then it does so unwatched
HEED = 3.0  # seconds that a child may take to answer when it shall leave: one that stands still never does


class Stage(Enum):
    """What a child is told, and so what it does."""

    SERVING = auto()
    """It takes commands."""
    LEAVING = auto()
    """It has its last order; it answers when it has heard it, and when nothing is left."""
    GONE = auto()
    """That was its last word."""


class ChildProcess:
    """What was sent to it, and what it has answered. The main thread's."""

    def __init__(self) -> None:
        self._connection, self._process = spawn("child")
        self.stage = Stage.SERVING
        self.progress: dict[int, Progress] = {}
        """Of what it runs, by uid."""
        self.is_quiet = True
        """Whether none of its workers is left."""
        self.used = 0
        """Connections that they use."""
        self.is_ready = False
        """Whether it has ever answered: before that it has nothing that could be lost."""
        self.unread = 0
        """Messages that it may not have read yet."""
        self._open = 0  # answers that are to come
        self._asked_at = 0.0  # the last time, in seconds of time.monotonic
        self._looked_at = time.monotonic()
        self._patience = float("inf")  # seconds that it may take to be gone when it shall leave

    @property
    def is_asked(self) -> bool:
        """Whether an answer is to come."""
        return self._open > 0

    def greet(self, settings: Settings) -> None:
        """The first message."""
        self._send(settings)
        self.ask([])

    def ask(self, commands: Sequence[Command]) -> None:
        """Send, and have it look; what was sent before the question that it answered last has been read."""
        self.unread = 0
        self._expect(1)
        self._send([*commands, Look()])

    def say(self, commands: Sequence[Command]) -> None:
        """Send something small, at once."""
        self.unread += 1
        self._send(commands)

    def tell_to_leave(self, commands: Sequence[Command], *, within: float) -> None:
        """Its last order, after these; so many seconds later it counts as lost."""
        self.stage = Stage.LEAVING
        self._expect(2)
        self._patience = within
        self._send([*commands, Leave()])

    def _send(self, message: object) -> None:
        """Not by `send`, whose buffer Windows keeps where the child is gone: Python then complains of it."""
        self._connection.send_bytes(pickle.dumps(message))

    def _expect(self, answers: int) -> None:
        self._open += answers
        self._asked_at = time.monotonic()

    def hear(self) -> Iterator[Event]:
        """What it has told. Raises EOFError, OSError: it is gone, or has not answered for too long."""
        while self._open and portable.has_come(self._connection):  # it tells nothing unasked
            answer: Answer = self._connection.recv()
            self._open -= 1
            if not self.is_ready:
                self.is_ready = True
                self._process.let_go()  # it sees by itself when Blender is gone, and first saves what it has
            self.is_quiet, self.progress, self.used = answer.is_quiet, answer.report.progress, answer.used
            yield from answer.report.events
        if self.stage is Stage.LEAVING and not self._open:
            self.stage = Stage.GONE
        now = time.monotonic()
        if now - self._looked_at > ASLEEP:
            self._asked_at = now
        self._looked_at = now
        if self.stage is Stage.GONE or self._is_lost(now):
            raise EOFError

    def wait(self, seconds: float) -> None:
        """Until it answers or ends, so many seconds at most."""
        with suppress(OSError):  # `hear` finds out why
            self._connection.poll(seconds)

    def _is_lost(self, now: float) -> bool:
        if self.stage is Stage.SERVING:
            return self.is_asked and now - self._asked_at > SILENCE
        has_heard = self._open < 2
        return now - self._asked_at > (self._patience if has_heard else min(HEED, self._patience))

    def end(self) -> None:
        """Take it away, if it has not left, and release what belonged to it."""
        self._connection.close()
        try:
            self._process.wait(0.1 if self.stage is Stage.GONE else 0)
        except subprocess.TimeoutExpired:
            put_down(self._process)


def put_down(process: portable.Child) -> None:
    """Kill it, and wait a moment: one that a dead drive holds runs no more, but is not gone yet."""
    process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(KILLED)


_EXTENSION = __name__.rpartition(".hosts.")[0]

_BOOT = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is Blender's to handle
import importlib, json, sys, types
package, root, sys.path[:], handle, parent, room = json.loads(sys.argv[1])
names = package.split(".")
for count in range(1, len(names) + 1):
    module = types.ModuleType(".".join(names[:count]))
    module.__path__ = [root] if count == len(names) else []
    sys.modules[module.__name__] = module
importlib.import_module(package + ".hosts." + room).serve(handle, parent)
"""


def spawn(room: str) -> tuple[Connection, portable.Child]:
    """Start Python on a room's `serve`, under a stub of our package that does not import Blender's side.

    Returns our end of its pipe, and the process. Not through `multiprocessing`, whose spawn needs `__main__`
    and leaves a resource tracker. Raises OSError.
    """
    hosts = os.path.dirname(os.path.abspath(__file__))
    places = [place for place in sys.path if isinstance(place, str)]  # Python passes over the others, too
    ours, theirs = portable.pipe()
    try:
        handle = theirs.fileno()
        arguments = json.dumps([_EXTENSION, os.path.dirname(hosts), places, handle, os.getpid(), room])
        return ours, portable.Child([portable.python(), "-I", "-c", _BOOT, arguments], handle)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
