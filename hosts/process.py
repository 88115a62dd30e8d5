"""A child process that runs the threads: what it was given, and what it has told."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum, auto
from pathlib import Path
from typing import assert_never

from ..transfer import portable
from ..transfer.disk import noted
from ..transfer.fetch import Carried
from ..transfer.job import Failed, Finished, Halted, Job, Outcome, Settings
from .clerk import write_private
from .ledger import Entry, Ledger
from .messages import Command, Dismiss, Forget, GoBy, HangUp, Stop, Store, Submit, weight
from .room import Sharing
from .spawn import ChildProcess, Stage
from .threads import LOOKUP_PATIENCE
from .vocabulary import POLL, Ended, Event, Report, Started, State

CHILD_PATIENCE = 3.0  # seconds that a child may take to leave when asked, look-ups apart
CRASHES = 3  # of the child within CRASH_SPAN, after which its downloads fail
CRASH_SPAN = 60.0  # seconds: so many crashes in less are too many
BATCH = 32 << 10  # bytes, about, of one message: two must fit a pipe that nobody reads for a moment
UNREAD = 16  # small messages at most that a child has not read: a pipe blocks its sender after some 250
CRASHING = "The process that downloads keeps crashing. Restart Blender, then press Retry"
MISSING = "Blender's Python, which downloads, cannot be started. Ask your virus scanner, or restart Blender"


class _Place(IntEnum):
    """Where a download is."""

    HERE = auto()
    """No child has it."""
    SENT = auto()
    """The child has it."""
    STARTED = auto()
    """A worker of the child has it."""


class ProcessHost(Sharing):
    """A `ThreadHost` in a child process. See `Host`.

    The child answers when it is asked to look and never sends unasked, so neither side can block
    the other; it leaves when this process dies, since its connection then ends.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._told = settings  # what the child goes by
        self._state = State.OPEN
        self._child: ChildProcess | None = None
        self._ledger = Ledger(_Place)
        self._outbox: deque[Command] = deque()  # what goes out before the downloads that are here
        self._mail = _Mail()
        self._crashes: deque[float] = deque(maxlen=CRASHES)  # when, in seconds of time.monotonic

    def submit(self, job: Job, carried: Carried | None = None) -> None:
        """See `Host`. `carried`: what another process has done of it, which gave it away."""
        self._ledger.open(job, _Place.HERE, carried)
        self._state = State.OPEN

    def stop(self, uid: int) -> None:
        entry = self._ledger.find(uid)
        if entry and entry.place is _Place.HERE:
            self._ledger.end(entry, Halted())
        elif entry and not entry.is_stopping:
            entry.is_stopping = True
            self._post(Stop(uid))

    def hang_up(self, uid: int) -> None:
        self._post(HangUp(uid))

    def forget(self, uid: int) -> None:
        if uid not in self._ledger:
            self._post(Forget(uid))

    def used(self) -> int:
        self._look()
        return max(self._child.used if self._child else 0, min(len(self._ledger), self._told.connections))

    def go_by(self, settings: Settings) -> None:
        if settings != self._told:
            self._told = settings
            self._post(GoBy(settings))

    def store(self, path: str, data: bytes) -> None:
        self._mail.put(path, data)

    def wait(self, seconds: float) -> None:
        seconds = min(seconds, POLL / 5)
        if self._child and self._child.stage is Stage.LEAVING:
            self._child.wait(seconds)
        else:
            time.sleep(seconds)  # it tells nothing unasked

    def poll(self) -> Report:
        self._look()
        running = self._child.progress if self._child else {}
        return Report(self._ledger.take_events(), self._ledger.progress(running))

    def _look(self) -> None:
        with self._minding_loss():
            self._hear()
            self._ask()

    @contextmanager
    def _minding_loss(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError):
            self._lost()

    # -- What it tells.

    def _hear(self) -> None:
        for event in self._child.hear() if self._child else ():
            if entry := self._ledger.find(event.uid):
                self._note(entry, event)

    def _note(self, entry: Entry[_Place], event: Event) -> None:
        match event:
            case Started():
                self._ledger.start(entry, _Place.STARTED)
            case Ended(outcome=outcome):
                self._ledger.end(entry, outcome)
            case _:
                assert_never(event)

    # -- What it is told.

    def _ask(self) -> None:
        """Send what has gathered, and have the child look; at most one question is open."""
        if not self._child and self._state is State.OPEN and self._has_work:
            self._child = ChildProcess()
            self._child.greet(self._told)
        child = self._child
        if child and child.stage is Stage.SERVING and not child.is_asked:
            child.ask(self._batch(child))

    @property
    def _has_work(self) -> bool:
        """Whether there is something for a child to do that it has not been told."""
        return bool(self._ledger.at(_Place.HERE)) or not self._mail.is_sent

    def _post(self, command: Command) -> None:
        """Send soon: at once, unless much is unread."""
        child = self._child
        if not child:
            return
        self._outbox.append(command)
        if child.stage is Stage.SERVING and child.unread < UNREAD:
            with self._minding_loss():
                child.say(self._letters())

    def _letters(self) -> list[Command]:
        """As much of the outbox as fits in a message."""
        letters: list[Command] = []
        size = 0
        while self._outbox and size < BATCH:
            letters.append(self._outbox.popleft())
            size += weight(letters[-1])
        return letters

    def _batch(self, child: ChildProcess) -> list[Command]:
        """As much of all that has gathered as fits in a message."""
        batch = self._letters()
        size = sum(map(weight, batch))
        waiting = self._ledger.at(_Place.HERE)
        while waiting and size < BATCH:
            entry = next(iter(waiting.values()))
            self._ledger.move(entry, _Place.SENT)
            child.is_quiet = False
            batch.append(Submit(entry.job, entry.carried))
            size += weight(batch[-1])
        if not self._mail.is_sent and size < BATCH:
            batch.append(self._mail.piece())
        return batch

    # -- When it is gone.

    def _lost(self) -> None:
        """The child is gone, or is silent: go on in a new one, unless that keeps happening."""
        child, self._child = self._child, None
        if child:
            child.end()
        self._end_what_is_noted()
        if not (child and child.stage is Stage.GONE and self._mail.is_sent):
            self._mail.repeat()  # it may not have stored it
        self._end_all([entry for entry in self._ledger if entry.is_stopping], Halted())
        self._outbox.clear()
        if self._state is not State.OPEN or (child and child.stage is not Stage.SERVING):
            self._end_all(self._given(), Halted())
        else:
            self._begin_again(CRASHING if child else MISSING)

    def _given(self) -> list[Entry[_Place]]:
        """What the child had, begun or not."""
        return [entry for entry in self._ledger if entry.place is not _Place.HERE]

    def _end_what_is_noted(self) -> None:
        """What the child has finished, and could not tell any more."""
        given = {entry.uid: entry for entry in self._given()}
        for done in {entry.job.done for entry in given.values() if entry.job.done}:
            for uid, path in noted(Path(done)).items():
                if uid in given:
                    with suppress(OSError):  # gone just now
                        size = os.path.getsize(portable.reach(path))
                        self._ledger.end(given.pop(uid), Finished(filepath=path, size=size))

    def _begin_again(self, why: str) -> None:
        """Hand to the next child what the last one had; not what seems to kill it, nor where none starts."""
        self._crashes.append(time.monotonic())
        if len(self._crashes) == CRASHES and self._crashes[-1] - self._crashes[0] < CRASH_SPAN:
            self._crashes.clear()
            guilty = list(self._ledger.at(_Place.STARTED).values())
            self._end_all(guilty or list(self._ledger), Failed(why))
        waiting = list(self._ledger.at(_Place.HERE).values())
        for entry in [*self._given(), *waiting]:
            self._ledger.move(entry, _Place.HERE)

    def _end_all(self, entries: list[Entry[_Place]], outcome: Outcome) -> None:
        for entry in entries:
            self._ledger.end(entry, outcome)

    # -- The ends.

    def dismiss(self, *, keep: bool = False) -> None:
        self._state = State.RESTING if keep else State.LEAVING
        self._end_all(list(self._ledger.at(_Place.HERE).values()), Halted())
        child = self._child
        if not child or child.stage is not Stage.SERVING:
            return
        if keep:
            self._post(Dismiss())
        elif not child.is_ready:
            self._lost()
        else:
            with self._minding_loss():
                child.tell_to_leave(self._letters(), within=LOOKUP_PATIENCE + CHILD_PATIENCE)

    @property
    def is_leaving(self) -> bool:
        """Whether it was dismissed for good, and nothing was submitted since."""
        return self._state is State.LEAVING

    def is_quiet(self) -> bool:
        """Whether no worker is left; after `dismiss` without `keep`, no child either. `poll` meanwhile."""
        child = self._child
        return not self._ledger and (not child or (child.is_quiet and child.stage is Stage.SERVING))

    def close(self, *, forced: bool = False, keep: bool = False) -> Report:
        return self.poll() if keep else self.shut(forced=forced)

    def shut(self, *, forced: bool = False) -> Report:
        self.dismiss()
        report = self.poll()
        while self._child:  # it has a deadline
            self.wait(POLL)
            report.events += self.poll().events
        if not self._mail.is_sent:
            write_private(*self._mail.last)
        self._mail = _Mail()
        return report


class _Mail:
    """The file that is to be stored, which a child gets in pieces: of several all of one, then the last.

    A list of thousands takes some seconds: one that changes all the time would else never be there.
    """

    def __init__(self) -> None:
        self._files: list[tuple[str, bytes]] = []  # under way, and next
        self._sent = 0  # bytes of the first
        self.last = ("", b"")
        """Path and content that count."""

    def put(self, path: str, data: bytes) -> None:
        """Store that, unless something else comes before it is its turn."""
        self.last = path, data
        self._files = [*self._files[: bool(self._sent)], self.last]

    def repeat(self) -> None:
        """Begin with the last one again, if there was any."""
        self._files, self._sent = [self.last] if self.last[0] else [], 0

    @property
    def is_sent(self) -> bool:
        """Whether nothing is left."""
        return not self._files

    def piece(self) -> Store:
        """The next one."""
        path, data = self._files[0]
        begin, end = self._sent, self._sent + BATCH
        is_last = end >= len(data)
        self._sent = 0 if is_last else end
        if is_last:
            del self._files[0]
        return Store(path, data[begin:end], begin == 0, is_last)
