"""A child process that runs the threads, seen from here: what it was given, and what it has told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from ..transfer import portable
from ..transfer.fetch import Carried, Transfer
from ..transfer.job import Failed, Finished, Halted, Job, Outcome, Progress, Settings, Skipped
from ..transfer.part import noted
from .clerk import write_private
from .messages import (
    Answer,
    Command,
    Dismiss,
    Forget,
    HangUp,
    Leave,
    Look,
    Stop,
    Store,
    Submit,
    weight,
)
from .threads import LOOKUP_PATIENCE, discard
from .vocabulary import POLL, Ended, Event, Report, Started

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

CHILD_PATIENCE = 3.0  # seconds that a child may take to leave when asked, look-ups apart
SILENCE = 30.0  # seconds without an answer after which a child counts as lost
CRASHES = 3  # of the child within CRASH_SPAN, after which its downloads fail
CRASH_SPAN = 60.0  # seconds: so many crashes in less are too many
BATCH = 32 << 10  # bytes, about, of one message: two must fit a pipe that nobody reads for a moment
UNREAD = 16  # small messages at most that a child has not read: a pipe blocks its sender after some 250


class ProcessHost:
    """A `ThreadHost` in a child process. See `Host`.

    The child answers when it is asked to look and never sends unasked, so neither side can block
    the other; it leaves when this process dies, since its connection then ends.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._child: _Child | None = None
        self._known: dict[int, Job] = {}  # submitted, and neither finished nor forgotten
        self._unsent: dict[int, Submit] = {}  # of those: submitted, and still here
        self._sent: dict[int, Submit] = {}  # of those: the child has them, and they have not ended
        self._started: set[int] = set()  # of those: a worker has them
        self._stopping: set[int] = set()  # of those: asked to stop
        self._outbox: deque[Command] = deque()
        self._file: tuple[str, bytes] | None = None  # the last one to be stored
        self._file_at: int | None = None  # where its next piece begins; None: all is sent
        self._events: list[Event] = []
        self._progress: dict[int, Progress] = {}
        self._crashes: deque[float] = deque(maxlen=CRASHES)  # when, in seconds of time.monotonic
        self._child_is_quiet = True
        self._dismissed = False

    def submit(self, job: Job, carried: Carried | None = None) -> None:
        """See `Host`. `carried`: what another process has done of it, which gave it away."""
        if job.uid in self._unsent or job.uid in self._sent:
            raise ValueError("submitted twice")
        self._dismissed = False
        self._known[job.uid] = job
        self._unsent[job.uid] = Submit(job, carried)
        self._outbox.append(self._unsent[job.uid])

    def stop(self, uid: int) -> None:
        if uid in self._unsent:
            self._end(uid, Halted())
        elif uid in self._sent and uid not in self._stopping:
            self._stopping.add(uid)
            self._say(Stop(uid))

    def hang_up(self, uid: int) -> None:
        if self._child:
            self._outbox.append(HangUp(uid))

    def forget(self, uid: int, *, delete: bool = False) -> None:
        if uid in self._unsent or uid in self._sent or not (job := self._known.pop(uid, None)):
            return
        if self._child and self._child.is_leaving:
            self._outbox.append(Forget(job, delete))
        elif self._child:
            self._say(Forget(job, delete))  # at once: this thread may be about to wait for the file
        elif delete:
            discard(Transfer(job, self.settings))

    def store(self, path: str, data: bytes) -> None:
        self._file, self._file_at = (path, data), 0

    def poll(self) -> Report:
        try:
            self._hear()
            self._ask()
        except (EOFError, OSError):
            self._lost()
        return self._take_events()

    def _take_events(self) -> Report:
        events, self._events = self._events, []
        return Report(events, dict(self._progress))

    def wait(self, seconds: float) -> None:
        time.sleep(min(seconds, POLL / 5))  # it tells nothing unasked

    def _hear(self) -> None:
        """Take the answers that are there. Raises EOFError, OSError: the child is gone, or is silent."""
        child = self._child
        while child and child.connection.poll(0):
            answer: Answer = child.connection.recv()
            child.asked_at = 0.0
            self._child_is_quiet = answer.is_quiet
            self._progress = answer.report.progress
            for event in answer.report.events:
                self._note(event)
        if child and child.is_lost(time.monotonic()):
            raise EOFError

    def _note(self, event: Event) -> None:
        match event:
            case Started(uid=uid):
                self._started.add(uid)
                self._events.append(event)
            case Ended(uid=uid, outcome=outcome):
                self._end(uid, outcome)
            case _:
                assert_never(event)

    def _end(self, uid: int, outcome: Outcome) -> None:
        self._unsent.pop(uid, None)
        self._sent.pop(uid, None)
        self._started.discard(uid)
        self._stopping.discard(uid)
        if isinstance(outcome, (Finished, Skipped)):
            self._known.pop(uid, None)
        self._events.append(Ended(uid, outcome))

    def _ask(self) -> None:
        """Send what has gathered, and have the child look; at most one question is open."""
        has_mail = bool(self._unsent) or self._file_at is not None
        if not self._child and has_mail and not self._dismissed:
            self._child = _Child(self.settings)
        child = self._child
        if not child or child.asked_at or child.was_told:
            return
        is_done = not self._outbox and self._file_at is None
        if child.is_leaving and (is_done or self._unsent):  # what was submitted since is the next one's
            child.tell_to_leave()
        else:
            child.ask([*self._batch(), Look()])

    def _batch(self) -> list[Command]:
        """As much of what has gathered as fits in a message."""
        batch: list[Command] = []
        size = 0
        while self._outbox and size < BATCH:
            command = self._outbox.popleft()
            if isinstance(command, Submit):
                if self._unsent.get(command.job.uid) is not command:
                    continue  # stopped before it went out
                self._sent[command.job.uid] = self._unsent.pop(command.job.uid)
                self._child_is_quiet = False
            batch.append(command)
            size += weight(command)
        return [*batch, *self._piece()] if size < BATCH else batch

    def _piece(self) -> list[Command]:
        """The next piece of the file that is to be stored."""
        if self._file is None or self._file_at is None:
            return []
        (path, data), start = self._file, self._file_at
        end = start + BATCH
        self._file_at = None if end >= len(data) else end
        return [Store(path, data[start:end], start == 0, end >= len(data))]

    def _say(self, command: Command) -> None:
        """Send at once, past what has gathered; where much is unread, as the next."""
        child = self._child
        if not child or child.is_leaving:
            return
        if child.unread >= UNREAD:
            self._outbox.appendleft(command)
            return
        try:
            child.say(command)
        except (EOFError, OSError):
            self._lost()

    def _lost(self) -> None:
        """The child is gone, or is silent: go on in a new one, unless that keeps happening."""
        child, self._child = self._child, None
        if child:
            child.kill()
        self._end_what_is_noted()
        if self._file and not (child and child.has_said_goodbye):
            self._file_at = 0
        self._progress, self._child_is_quiet = {}, True
        for uid in list(self._stopping):
            self._end(uid, Halted())
        if self._dismissed or (child and child.is_leaving):
            self._end_all(list(self._sent), Halted())
        else:
            self._begin_again()

    def _end_what_is_noted(self) -> None:
        """What the child has finished, and could not tell any more."""
        for done in {sent.job.done for sent in self._sent.values() if sent.job.done}:
            for uid, path in noted(Path(done)).items():
                if uid in self._sent:
                    with suppress(OSError):  # gone just now
                        self._end(uid, Finished(filepath=path, size=os.path.getsize(path)))

    def _begin_again(self) -> None:
        """Hand to the next child what the last one had; but not what seems to kill it."""
        self._crashes.append(time.monotonic())
        if len(self._crashes) == CRASHES and self._crashes[-1] - self._crashes[0] < CRASH_SPAN:
            self._crashes.clear()
            self._end_all(list(self._started or [*self._sent, *self._unsent]), Failed(_CRASHING))
        again, self._sent = self._sent, {}
        self._started.clear()
        self._unsent = {**again, **self._unsent}
        self._outbox = deque(c for c in self._outbox if isinstance(c, (Submit, Forget)))
        self._outbox.extendleft(reversed(again.values()))

    def _end_all(self, uids: list[int], outcome: Outcome) -> None:
        for uid in uids:
            self._end(uid, outcome)

    def dismiss(self, *, keep: bool = False) -> None:
        self._dismissed = True
        self._end_all(list(self._unsent), Halted())
        if not self._child or self._child.is_leaving:
            return
        self._say(Dismiss())
        if self._child and not keep:
            self._child.is_leaving = True
            self._child.deadline = time.monotonic() + LOOKUP_PATIENCE + CHILD_PATIENCE

    def is_quiet(self) -> bool:
        """Whether no worker is left; after `dismiss` without `keep`, no child either. `poll` meanwhile."""
        if self._unsent or self._sent:
            return False
        return self._child_is_quiet and not (self._child and self._child.is_leaving)

    def close(self, *, forced: bool = False, keep: bool = False) -> Report:
        return self.poll() if keep else self.shut(forced=forced)

    def shut(self, *, forced: bool = False) -> Report:
        self.dismiss()
        report = self.poll()
        while self._child:  # it has a deadline
            self.wait(POLL)
            report.events += self.poll().events
        self._do_what_is_left()
        return report

    def _do_what_is_left(self) -> None:
        """What the child has not done."""
        if self._file and self._file_at is not None:
            write_private(*self._file)
        self._file = self._file_at = None
        for command in self._outbox:
            if isinstance(command, Forget) and command.delete:
                discard(Transfer(command.job, self.settings))
        self._outbox.clear()


_CRASHING = "The process that downloads keeps crashing. Restart Blender, then press Retry"


class _Child:
    """The process, and our end of its connection."""

    def __init__(self, settings: Settings) -> None:
        from multiprocessing.connection import Pipe

        self.connection, theirs = Pipe()
        try:
            self._process = _spawn(theirs)
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()
        self.asked_at = 0.0
        """When it was asked to look and has not answered, in seconds of `time.monotonic`; else 0."""
        self.unread = 0
        """Messages that it may not have read yet."""
        self.is_leaving = self.was_told = False
        self.deadline = float("inf")
        """When it must be gone, in seconds of `time.monotonic`."""
        self._first: Settings | None = settings

    def ask(self, commands: list[Command]) -> None:
        """Send what ends with a question; all that was sent before the last one has been read."""
        self.unread = 0
        self.asked_at = time.monotonic()
        self._greet()
        self.connection.send(commands)

    def say(self, command: Command) -> None:
        """Send something small, at once."""
        self.unread += 1
        self._greet()
        self.connection.send([command])

    def _greet(self) -> None:
        settings, self._first = self._first, None
        if settings:
            self.connection.send(settings)

    def tell_to_leave(self) -> None:
        """Its last order; the answer is its last word."""
        self.was_told = True
        self.ask([Leave()])

    @property
    def has_said_goodbye(self) -> bool:
        """Whether it has done all that it was told, and left."""
        return self.was_told and not self.asked_at

    def is_lost(self, now: float) -> bool:
        """Whether it has not answered for too long."""
        return now > self.deadline or bool(self.asked_at and now - self.asked_at > SILENCE)

    def kill(self) -> None:
        """End it, if it has not left, and release what belonged to it."""
        self.connection.close()
        try:
            self._process.wait(0.1)
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
