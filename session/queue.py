"""What waits, what runs, and what becomes of each download: all that a run needs to know of them.

Everything here is the main thread's.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict, Unpack, assert_never

from ..transfer import names
from ..transfer.job import Failed, Finished, Halted, IfExists, Job, Outcome, Phase, Progress, Seen, Skipped
from ..workers import Download, ProcessHost, Status, YieldingHost
from ..workers import Host as AnyHost
from .calls import Calls
from .rows import Rows
from .tally import Tally, is_held_up, smoothed
from .words import readable

Host = YieldingHost | ProcessHost
UNDER_WAY = (Status.QUEUED, Status.RUNNING, Status.PAUSED)
ENDED = (Status.FINISHED, Status.SKIPPED, Status.FAILED, Status.CANCELLED)
UNFORESEEN = "Something unforeseen went wrong. What was received is kept: try again"


class Options(TypedDict, total=False):
    """What new rows have in common, named as in `Download`."""

    if_exists: IfExists
    when_done: str
    catalog: str


class Running(Protocol):
    """What a queue needs of a run; `run.Run` is one."""

    is_closed: bool
    is_interrupted: bool
    beat: float
    """When it was last ticked, in seconds of `time.monotonic`."""

    def has(self, uid: int) -> bool:
        """Whether the row was handed to a worker."""

    def stop(self, uid: int) -> None:
        """Have a worker let go of a row."""

    def spare(self, *, stops_all: bool = False) -> None:
        """Let the workers go where nothing is left for them; `stops_all`: what waits is about to stop too."""

    def recall(self) -> None:
        """Take back what was handed over ahead of time: the order has changed, or rows wait again."""

    def step_aside(self) -> None:
        """Close for a moment, as soon as no worker is left, and start again."""

    def close(self, *, forced: bool = False) -> None:
        """Join every worker and release all."""


@dataclass(slots=True, frozen=True)
class Intent:
    """What becomes of a row once its worker has let go of it; the last wish counts."""

    status: Status | None
    """None: out of the list."""
    link: names.Link | None = None
    """The link that it has then, where that is another one."""
    delete: bool = False
    """Whether its partial file goes too."""


class Listener(Protocol):
    """Somebody who waits for a row. Told on the main thread, in the middle of things: it only takes notes."""

    def changed(self, row: Download) -> None:
        """It has another status, or has got on."""

    def gone(self, row: Download) -> None:
        """It is not in the queue any more."""


class Queue:
    """The downloads and their one writer. `session.Session` is the one that people see and the disk keeps."""

    keeps_ended = False
    """Whether rows stay when they have ended."""

    def __init__(self) -> None:
        self.rows = Rows()
        self.run: Running | None = None
        self.host: Host | None = None
        """Stays between runs while it keeps stopped transfers."""
        self.tally = Tally()
        self.calls = Calls()
        self._intents: dict[int, Intent] = {}  # of rows that a worker has and was asked to let go
        self._told: set[int] = set()  # uids of rows that workers were told of: hosts may keep some of them
        self._listeners: dict[int, list[Listener]] = {}  # of each row, by its uid

    @property
    def wants_run(self) -> bool:
        """Whether one is to be started: rows wait, or an interrupted one has to come to its end."""
        return not self.run and (self.is_waiting or self.tally.goes_on)

    @property
    def is_waiting(self) -> bool:
        """Whether rows are QUEUED, or on their way into the queue."""
        return self.rows.is_waiting

    # -- Changing it.

    def new_rows(
        self,
        links: Iterable[names.Link],
        *,
        directory: str,
        may_wait: bool = False,
        **options: Unpack[Options],
    ) -> list[Download]:
        """A record for each link, which is not in the queue yet: `adopt` puts it there.

        Where the link is at work in the folder already that one's, if it `may_wait` for it; else a FAILED
        one without a uid.
        """
        at_work = {row.url: row for row in self.rows.within(directory)}
        rows = []
        for link in links:
            row, same = record(link, directory, options), at_work.get(link.url)
            if not same or (may_wait and same.uid in self._intents):
                row.uid = self.rows.new_uid()
            elif may_wait and (same.digest, same.if_exists) == (row.digest, row.if_exists):
                row = same
            else:
                refuse(row)
            rows.append(row)
        return rows

    def add(self, links: Iterable[names.Link], **options: Any) -> list[Download]:
        """Put links at the end, QUEUED. Returns what `new_rows` does, whose options these are."""
        rows = self.new_rows(links, may_wait=True, **options)
        self.adopt(row for row in rows if row.uid and row not in self.rows)
        return rows

    def take_in(self, most: int | None = None) -> list[Download]:
        """Have those come that are on their way, `most` or all of them. Returns the new rows."""
        return []

    def waited(self, rows: list[Download]) -> None:
        """These have ended while everybody waited for them, and were in no queue."""

    def listen(self, row: Download, listener: Listener) -> None:
        """Tell somebody of each change of a row."""
        self._listeners.setdefault(row.uid, []).append(listener)

    def leave(self, row: Download, listener: Listener) -> bool:
        """Tell it no more, if others listen too; True where they do."""
        listeners = self._listeners.get(row.uid, [])
        if len(listeners) > 1 and listener in listeners:
            listeners.remove(listener)
            return True
        return False

    def adopt(self, rows: Iterable[Download]) -> None:
        """Put records at the end as they are."""
        for row in rows:
            self.rows.append(row)
            self.changed(row)

    def has_worker(self, row: Download) -> bool:
        """Whether the row was handed to one that has not let go of it yet."""
        return self.run is not None and self.run.has(row.uid)

    def meant(self, row: Download) -> Status | None:
        """What a row is, or becomes once its worker has let go of it; None: out of the list."""
        intent = self._intents.get(row.uid)
        return intent.status if intent else row.status

    def changed(self, row: Download) -> None:
        """A row differs from what was told of it."""
        self.rows.changes += 1
        for listener in self._listeners.get(row.uid, ()):
            listener.changed(row)

    def put(self, row: Download, status: Status) -> None:
        if row.status is status:
            return
        self.rows.put(row, status)
        if self.tally.goes_on:
            self.tally.count(row)
        self.changed(row)
        if status in ENDED and not self.keeps_ended:
            self.drop(row)

    def drop(self, *rows: Download, delete: bool = False) -> None:
        """Take rows that no worker has out; `delete` what they received."""
        self.rows.drop(rows)
        self.dropped(rows, delete=delete)  # before they are forgotten, which keeps what there is
        for row in rows:
            for listener in self._listeners.pop(row.uid, ()):
                listener.gone(row)
            if self.host and row.uid in self._told:
                self.host.forget(row.uid)
            self._told.discard(row.uid)

    def dropped(self, rows: Collection[Download], *, delete: bool) -> None:
        """Rows are out; whether what they received goes too."""

    def cancel(self, row: Download) -> None:
        """Stop a row for good; what it received stays for a retry."""
        self.stop(row, Intent(Status.CANCELLED))

    def stop(self, row: Download, intent: Intent) -> None:
        """Have a row become that, at once or when its worker lets it go."""
        if self.run and self.has_worker(row):
            self._intents[row.uid] = intent
            self.run.stop(row.uid)
        else:
            self.become(row, intent)

    def become(self, row: Download, intent: Intent) -> None:
        """No worker has the row (any more): do what was meant."""
        if intent.status is None:
            self.drop(row, delete=intent.delete)
            return
        row.stays_paused = intent.status is Status.PAUSED
        self.put(row, intent.status)
        if self.host and intent.status is Status.CANCELLED and row.uid in self._told:
            self.host.hang_up(row.uid)

    # -- What workers tell.

    def job(self, row: Download, **known: Any) -> Job:
        """What a worker is told of a row, and what else is `known`."""
        self._told.add(row.uid)
        return Job(
            uid=row.uid,
            url=row.url,
            directory=row.directory,
            if_exists=row.if_exists,
            digest=row.digest,
            name=row.wanted,
            called=row.progress.name,
            size=row.size,
            **{"partial": row.partial, **known},
        )

    def started(self, uid: int) -> None:
        """A worker has taken the row."""
        if row := self.rows.find(uid):
            self.put(row, Status.RUNNING)

    def progressed(self, uid: int, progress: Progress, seconds: float) -> None:
        """Copy the counters of a running row, `seconds` after the last time."""
        if not (row := self.rows.find(uid)):
            return
        if progress.phase is Phase.IDLE:  # nobody has seen yet what is there
            progress = progress._replace(received=row.received, size=row.size)
        if row.progress.phase is Phase.BODY:  # before it, what was kept counts as received at once
            fetched = max(0, progress.received - row.received)
            row.speed, row.measured = smoothed(row.speed, row.measured, fetched, seconds)
            self.tally.fetched += fetched
        if progress.phase is Phase.IDLE or is_held_up(progress):
            row.speed = row.measured = 0.0  # it is measured anew
        seen, row.progress = row.progress, progress
        if _visible(seen) != _visible(progress):
            self.moved(row)
        if seen.name != progress.name:
            self.rows.changes += 1

    def moved(self, row: Download) -> None:
        """What people see of a row's progress is another."""
        for listener in self._listeners.get(row.uid, ()):
            listener.changed(row)

    def ended(self, uid: int, outcome: Outcome) -> None:
        """The terminal event of a row."""
        intent = self._intents.pop(uid, Intent(Status.QUEUED))
        if row := self.rows.find(uid):
            self.concluded(row, outcome, intent)

    def concluded(self, row: Download, outcome: Outcome, intent: Intent) -> None:
        """A worker has let go of a row, of which that was meant."""
        if isinstance(outcome, Halted):
            self.become(row, intent)
            return
        had = row.received
        self.put(row, self.settle(row, outcome))
        self.tally.fetched += max(0, row.received - had)

    def settle(self, row: Download, outcome: Outcome) -> Status:
        """Write into a record how it ended; returns the status that this means."""
        match outcome:
            case Halted() | Seen():  # a look is no row's
                return Status.CANCELLED
            case Failed(error=error, kept=kept):
                row.error = readable(error)
                row.progress = row.progress._replace(received=row.received if kept is None else kept)
                return Status.FAILED
            case Skipped(filepath=filepath, note=note):
                row.filepath, row.note = filepath, readable(note)
                return Status.SKIPPED
            case Finished(filepath=filepath, size=size, note=note, verified=verified):
                row.filepath = filepath
                row.verified = verified or (row.digest.algorithm if row.digest else "")
                row.progress = Progress(name=os.path.basename(filepath), received=size, size=size)
                row.note = readable(note)
                return Status.FINISHED
            case _:
                assert_never(outcome)

    # -- A run's life.

    def begin(self) -> float | None:
        """It was made just now. Returns in how many seconds this is to be called again, None: not again."""
        return None

    def hold(self, is_held: bool) -> None:
        """Have no thread of ours in this process while Blender renders. Any thread; does not wait."""
        host = self.host
        if isinstance(host, YieldingHost):
            if is_held:
                host.hold()
            else:
                host.let_go()

    @property
    def hosts(self) -> list[AnyHost]:
        """All that may be at work."""
        return [self.host] if self.host else []

    def show(self) -> None:
        """A run goes on: have people see what changed."""

    def keep(self, now: float) -> None:
        """A run goes on: have the disk know what changed. `now`: seconds of `time.monotonic`."""

    def rest(self, now: float) -> None:
        """No run goes on: both, a few times a second."""

    def flush(self) -> None:
        """Show and keep at once what people asked for, as far as it is little."""
        if self.run:
            self.run.spare()

    def interrupted(self, status: Status) -> None:
        """A run was closed before its end: what it had not finished becomes QUEUED or PAUSED."""
        for row in [row for row in self.rows if row.status in (Status.QUEUED, Status.RUNNING)]:
            self.put(row, status)

    def pause_all(self, run: Running, why: str = "") -> None:
        """Close a run before its end, for good, and give up what it had not finished."""
        run.close(forced=True)
        self.give_up(why)

    def give_up(self, why: str = "") -> None:
        """No run goes on, and none can: nobody stays connected, and what is not finished is let be."""
        self._shut_host()
        self.take_in()
        self.let_be(why or UNFORESEEN)
        self.end_tally()
        self.flush()

    def let_be(self, why: str) -> None:
        """What is not finished has FAILED; a list can pause it instead."""
        for row in list(self.rows):
            row.error = why
            self.put(row, Status.FAILED)

    def end_tally(self) -> Tally:
        """The counts of the run that has ended; the next one counts anew."""
        return self.tally.end(self.rows.counts[Status.PAUSED])

    def file_changed(self, row: Download) -> None:
        """A finished file is another by our own doing."""

    def file_closing(self) -> None:
        """Blender is about to open another file, or tries to."""

    def file_opened(self) -> None:
        """Blender has another file open."""

    def close(self) -> None:
        """The add-on is being disabled, or Blender quits: no thread, child, connection or lock is left."""
        with ExitStack() as stack:  # whatever goes wrong with one
            stack.callback(self._tell_gone)
            stack.callback(self._shut_host)
            if self.run:
                stack.callback(self.run.close, forced=True)
            stack.callback(self.calls.close)  # first

    def _tell_gone(self) -> None:
        """Whoever still waits for a row waits in vain."""
        listened, self._listeners = self._listeners, {}
        for uid, listeners in listened.items():
            if row := self.rows.find(uid):
                for listener in listeners:
                    listener.gone(row)

    def _shut_host(self) -> None:
        host, self.host = self.host, None
        if host:
            host.shut(forced=True)


def record(link: names.Link, directory: str, options: Options) -> Download:
    """A new one, without a uid."""
    return Download(uid=0, url=link.url, digest=link.digest, directory=directory, **options)


def refuse(row: Download) -> None:
    """It never comes into the queue, which has it already."""
    row.status, row.error = Status.FAILED, "It is already being downloaded"


def received_by(rows: Iterable[Download]) -> int:
    """The bytes in partial files."""
    return sum(row.received for row in rows if row.is_unfinished)


def _visible(progress: Progress) -> tuple[object, ...]:
    """What of it people see."""
    at = progress
    return at.name, at.received, at.size, at.phase, int(at.idle), at.text
