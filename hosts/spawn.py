"""The child process, and our end of its pipe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING

from ..transfer import portable
from ..transfer.job import Progress, Settings
from .messages import Answer, Command, Leave, Look
from .vocabulary import Event

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

SILENCE = 30.0  # seconds without an answer after which a child counts as lost
HEED = 1.5  # seconds that a child may take to answer when it shall leave: one that stands still never does


class Stage(Enum):
    """What a child is told, and so what it does."""

    SERVING = auto()
    """It takes commands."""
    LEAVING = auto()
    """Its workers leave; it is given only what the disk shall have."""
    TOLD = auto()
    """It has its last order, and answers once more when nothing is left."""
    GONE = auto()
    """That was its last word."""


class ChildProcess:
    """What was sent to it, and what it has answered. The main thread's."""

    def __init__(self) -> None:
        from multiprocessing.connection import Pipe

        self._connection, theirs = Pipe()
        try:
            self._process = _spawn(theirs)
        except BaseException:
            self._connection.close()
            raise
        finally:
            theirs.close()
        self.stage = Stage.SERVING
        self.progress: dict[int, Progress] = {}
        """Of what it runs, by uid."""
        self.is_quiet = True
        """Whether none of its workers is left."""
        self.is_ready = False
        """Whether it has ever answered: before that it has nothing that could be lost."""
        self.unread = 0
        """Messages that it may not have read yet."""
        self._asked_at = 0.0  # and not answered since, in seconds of time.monotonic; else 0
        self._deadline = float("inf")  # when it must be gone

    @property
    def is_asked(self) -> bool:
        """Whether an answer is to come."""
        return self._asked_at > 0

    def greet(self, settings: Settings) -> None:
        """The first message."""
        self._connection.send(settings)
        self.ask([])

    def ask(self, commands: Sequence[Command]) -> None:
        """Send, and have it look; what was sent before the question that it answered last has been read."""
        self.unread = 0
        self._asked_at = time.monotonic()
        self._connection.send([*commands, Look()])

    def say(self, commands: Sequence[Command]) -> None:
        """Send something small, at once."""
        self.unread += 1
        self._connection.send(commands)

    def leave_within(self, seconds: float) -> None:
        """From now on it takes only what the disk shall have."""
        self.stage = Stage.LEAVING
        self._deadline = time.monotonic() + seconds

    def tell_to_leave(self) -> None:
        """Its last order."""
        self.stage = Stage.TOLD
        self._asked_at = time.monotonic()
        self._connection.send([Leave()])

    def hear(self) -> Iterator[Event]:
        """What it has told. Raises EOFError, OSError: it is gone, or has not answered for too long."""
        while self._connection.poll(0):
            answer: Answer = self._connection.recv()
            self._asked_at, self.is_ready = 0.0, True
            self.is_quiet, self.progress = answer.is_quiet, answer.report.progress
            if answer.is_last:
                self.stage = Stage.GONE
            yield from answer.report.events
        if self.stage is Stage.GONE or self._is_lost(time.monotonic()):
            raise EOFError

    def _is_lost(self, now: float) -> bool:
        patience = SILENCE if self.stage is Stage.SERVING else HEED
        return now > self._deadline or (self.is_asked and now - self._asked_at > patience)

    def end(self) -> None:
        """Take it away, if it has not left, and release what belonged to it."""
        self._connection.close()
        try:
            self._process.wait(0.1 if self.stage is Stage.GONE else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_EXTENSION = __name__.rpartition(".hosts.")[0]

_BOOT = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is Blender's to handle
import importlib, json, sys, types
package, root, sys.path[:], handle, parent = json.loads(sys.argv[1])
names = package.split(".")
for count in range(1, len(names) + 1):
    module = types.ModuleType(".".join(names[:count]))
    module.__path__ = [root] if count == len(names) else []
    sys.modules[module.__name__] = module
importlib.import_module(package + ".hosts.child").serve(handle, parent)
"""


def _spawn(theirs: Connection) -> subprocess.Popen[bytes]:
    """Start Python on `serve`, under a stub of our package that does not import Blender's side.

    Not through `multiprocessing`, whose spawn needs `__main__` and leaves a resource tracker.
    """
    handle = theirs.fileno()
    hosts = os.path.dirname(os.path.abspath(__file__))
    arguments = json.dumps([_EXTENSION, os.path.dirname(hosts), sys.path, handle, os.getpid()])
    return portable.start([portable.python(), "-I", "-c", _BOOT, arguments], handle)
