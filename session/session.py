"""The session owns the list and what outlives a run: stopped transfers, counts, the copy that scripts read.

Everything here is the main thread's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, assert_never

from ..transfer import names
from ..transfer.job import (
    Failed,
    Finished,
    Halted,
    IfExists,
    Job,
    Outcome,
    Phase,
    Progress,
    Seen,
    Skipped,
    TransferError,
)
from ..transfer.part import discard_leftover
from ..workers import Download, ProcessHost, Status, YieldingHost
from . import records
from .mirror import Mirror
from .rows import Rows
from .store import Etags, Store
from .tally import Tally, smoothed

Host = YieldingHost | ProcessHost
_GIVES_WAY = (Status.PAUSED, Status.FAILED, Status.CANCELLED)  # to a new download of the same link


class Running(Protocol):
    """What the session needs of a run; `run.Run` is one."""

    is_closed: bool
    beat: float
    """When it was last ticked, in seconds of `time.monotonic`."""

    def has(self, uid: int) -> bool:
        """Whether the row was handed to a worker."""

    def stop(self, uid: int) -> None:
        """Have a worker let go of a row."""

    def spare(self) -> None:
        """Let the workers go where nothing is left for them."""

    def recall(self) -> None:
        """Take back what was handed over ahead of time: the order has changed."""

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


class Session:
    """The list of downloads and its one writer."""

    def __init__(self) -> None:
        self.rows = Rows()
        self.run: Running | None = None
        self.host: Host | None = None
        """Stays between runs while it keeps stopped transfers."""
        self.tally = Tally()
        self.mirror = Mirror(self.rows, self.tally)
        self.store = Store()
        self.etags = Etags()
        self.leftovers: list[records.Lying] | None = None
        """The partial files that no list has, once somebody looked for them."""
        self.on_asked: Callable[[Download], None] = _nobody
        """Told of each new row, before it is in the list: what is active in Blender now is what was meant."""
        self.on_finished: Callable[[Download], None] = _nobody
        """Told of each row that became FINISHED or SKIPPED, invoked or executed; may write its `note`."""
        self._intents: dict[int, Intent] = {}  # of rows that a worker has and was asked to let go

    @property
    def wants_run(self) -> bool:
        """Whether one is to be started: rows wait, or an interrupted one has to come to its end."""
        return not self.run and (self.rows.is_waiting or self.tally.goes_on)

    # -- Changing the list.

    def add(
        self, links: Iterable[names.Link], *, directory: str, if_exists: IfExists, when_done: str
    ) -> list[str]:
        """Put links at the end of the list, QUEUED; a sentence for each that is at work in it already."""
        rows, at_work = self.new_rows(
            links, directory=directory, if_exists=if_exists, when_done=when_done, may_wait=True
        )
        self.adopt(rows)
        return at_work

    def new_rows(
        self,
        links: Iterable[names.Link],
        *,
        directory: str,
        if_exists: IfExists,
        when_done: str,
        may_wait: bool = False,
    ) -> tuple[list[Download], list[str]]:
        """Records that are not in the list yet, and a sentence for each link that is at work in it already.

        Rows of the same link and folder that are stopped give way: what they received is used. So do
        those that were asked to stop a moment ago, where the new one `may_wait` for that.
        """
        old_of = self._finder(directory)
        rows, at_work, old_rows = [], [], []
        for link in links:
            old = old_of(link)
            if old and may_wait and self._is_stopping(old):
                self._intents[old.uid] = Intent(None)  # what it received is the new one's
            elif old and old.status not in _GIVES_WAY:
                at_work.append(f"{names.shown(link.url)}: It is already being downloaded")
                continue
            elif old:
                old_rows.append(old)
            rows.append(self._new(link, directory, if_exists, when_done))
        self._drop(*old_rows)
        self.store.folders.use(directory, [row.url for row in rows])
        if rows:
            self.mirror.activate(rows[0])
        return rows, at_work

    def _finder(self, directory: str) -> Callable[[names.Link], Download | None]:
        """Finds the row that has something left to do for a link in this folder."""
        here = [row for row in self.rows if _is_in(row, directory)]
        whole = {row.url: row for row in here if not row.is_cut}
        cut = {row.partial: row for row in here if row.is_cut}

        def find(link: names.Link) -> Download | None:
            found = whole.get(link.url)
            return found or (cut.get(names.part_name(link.url, directory)) if cut else None)

        return find

    def _is_stopping(self, row: Download) -> bool:
        """Whether it was asked to, and its worker has not let go of it yet."""
        intent = self._intents.get(row.uid)
        return intent is not None and intent.status is not Status.QUEUED

    def _new(self, link: names.Link, directory: str, if_exists: IfExists, when_done: str) -> Download:
        row = Download(
            uid=self.rows.new_uid(),
            url=link.url,
            digest=link.digest,
            directory=directory,
            if_exists=if_exists,
            when_done=when_done,
        )
        self.on_asked(row)
        return row

    def adopt(self, rows: Iterable[Download]) -> None:
        """Put records into the list as they are."""
        for row in rows:
            self.rows.append(row)
            self.changed(row)

    def _drop(self, *rows: Download, delete: bool = False) -> None:
        """Take rows that no worker has out of the list; `delete` what they received."""
        self.rows.drop(rows)
        for row in rows:
            if delete:  # before it is forgotten, which keeps what there is
                self._delete_parts(row)
            elif row.is_unfinished:
                self.store.folders.remove(row.directory, filter(row.has_file, records.part_names(row)))
            if self.host:
                self.host.forget(row.uid)
            self.store.forget(row.uid)
        if len(rows) == 1:
            self.mirror.drop(rows[0].uid)
        elif rows:
            self.mirror.reorder()

    def _delete_parts(self, row: Download) -> None:
        if not row.is_cut:
            discard_leftover(row.directory, names.part_name(row.url, row.directory))
        self._discard_earlier(row)

    def _others_beside(self, row: Download) -> Iterator[Download]:
        """The other rows that have something left to do in a row's folder."""
        return (other for other in self.rows if other is not row and _is_in(other, row.directory))

    def _discard_earlier(self, row: Download) -> None:
        """Delete the partial file of an earlier link that this row could not make use of."""
        others = self._others_beside(row)
        if row.partial and not any(row.partial in records.part_names(other) for other in others):
            discard_leftover(row.directory, row.partial)
        row.partial = ""

    def flush(self) -> None:
        """Show and keep at once what people asked for, as far as it is little; timers do the rest."""
        self.mirror.flush()
        if self.run:
            self.run.spare()
        else:
            self.store.settle(time.monotonic())

    def has_worker(self, row: Download) -> bool:
        """Whether the row was handed to one that has not let go of it yet."""
        return self.run is not None and self.run.has(row.uid)

    def changed(self, row: Download) -> None:
        """A row differs from what scripts and the disk have."""
        self.mirror.touch(row.uid)
        self.store.touch(row)

    def put(self, row: Download, status: Status) -> None:
        """Change a row's status."""
        if row.status is status:
            return
        self.rows.put(row, status)
        if self.tally.goes_on:
            self.tally.count(row)
        self.changed(row)

    # -- What people ask for.

    def pause(self, row: Download) -> None:
        """Stop a row, to go on with it later."""
        self._stop(row, Status.PAUSED)

    def cancel(self, row: Download) -> None:
        """Stop a row for good; what it received stays for a retry."""
        self._stop(row, Status.CANCELLED)

    def remove(self, *rows: Download, delete: bool) -> None:
        """Take rows out of the list, cancelling them first; `delete` their partial files."""
        run = self.run
        for row in (row for row in rows if run and run.has(row.uid)):
            self._stop(row, None, delete=delete)
        self._drop(*(row for row in rows if not run or not run.has(row.uid)), delete=delete)

    def queue(self, row: Download) -> None:
        """Have a stopped row go on; not one whose link nobody knows any more."""
        if row.is_cut:
            return
        if intent := self._intents.get(row.uid):
            self._intents[row.uid] = Intent(Status.QUEUED, intent.link)
        else:
            self.put(row, Status.QUEUED)

    def replace_link(self, row: Download, link: names.Link) -> None:
        """Have a row go on with another link, at once or when it is let go; what was received stays.

        Raises TransferError in a sentence where that cannot be.
        """
        if not row.is_unfinished:
            raise TransferError("This download is done: there is no link to replace")
        if any(other.url == link.url and not other.is_cut for other in self._others_beside(row)):
            raise TransferError("This link is in the list already")
        if self.run and self.has_worker(row):
            self._intents[row.uid] = Intent(Status.QUEUED, link)
            self.run.stop(row.uid)
        else:
            self._relink(row, link)
            self.put(row, Status.QUEUED)

    def _relink(self, row: Download, link: names.Link) -> None:
        old = names.part_name(row.url, row.directory)
        if not row.is_cut and row.has_file(old):
            row.partial = old
        row.url, row.digest, row.is_cut = link.url, link.digest or row.digest, False
        row.error = row.note = ""
        self.store.folders.use(row.directory, [link.url])
        self.mirror.relink(row)
        self.changed(row)

    def clear(self) -> int:
        """Take the rows that are done out of the list. Returns how many."""
        done = [row for row in self.rows if not row.is_unfinished]
        self._drop(*done)
        return len(done)

    def move(self, row: Download, direction: str) -> None:
        """Move a row in the list, and so in the queue."""
        place = self.rows.move(row, direction)
        if self.run:
            self.run.recall()
        self.store.reorder(self.rows)
        self.mirror.move(row.uid, place)

    def _stop(self, row: Download, then: Status | None, *, delete: bool = False) -> None:
        old = self._intents.get(row.uid)
        intent = Intent(then, old.link if old else None, delete)
        if self.run and self.has_worker(row):
            self._intents[row.uid] = intent
            self.run.stop(row.uid)
        else:
            self._become(row, intent)

    def _become(self, row: Download, intent: Intent) -> None:
        if intent.status is None:
            self._drop(row, delete=intent.delete)
            return
        self.put(row, intent.status)
        if self.host and intent.status is Status.CANCELLED:
            self.host.hang_up(row.uid)

    # -- What workers tell.

    def started(self, uid: int) -> None:
        """A worker has taken the row."""
        if row := self.rows.find(uid):
            self.put(row, Status.RUNNING)

    def progressed(self, uid: int, progress: Progress, seconds: float) -> None:
        """Copy the counters of a running row, `seconds` after the last time."""
        if not (row := self.rows.find(uid)):
            return
        if progress.phase is Phase.IDLE:  # it waits for its turn, or until a render is over
            row.speed = row.measured = 0.0
        elif row.progress.phase is Phase.BODY:  # before it, what was kept counts as received at once
            fetched = max(0, progress.received - row.received)
            row.speed, row.measured = smoothed(row.speed, row.measured, fetched, seconds)
            self.tally.fetched += fetched
        seen, row.progress = row.progress, progress
        if _visible(seen) != _visible(progress):
            self.mirror.touch(uid)

    def ended(self, uid: int, outcome: Outcome) -> None:
        """The terminal event of a row."""
        intent = self._intents.pop(uid, Intent(Status.QUEUED))
        if not (row := self.rows.find(uid)):
            return
        if intent.link and isinstance(outcome, (Halted, Failed)):
            self._relink(row, intent.link)
            outcome = Halted()
        if row.partial and not row.has_file(row.partial):
            row.partial = ""  # it was taken over
        if isinstance(outcome, Halted):
            self._become(row, intent)
        else:
            had = row.received
            self.put(row, settle(row, outcome, self.etags))
            self.tally.fetched += max(0, row.received - had)
            if not row.is_unfinished:
                self.on_finished(row)
                self._discard_earlier(row)
            if intent.status is None:
                self._drop(row, delete=intent.delete)

    def end_tally(self) -> Tally:
        """The counts of the run that has ended; the next one counts anew."""
        return self.tally.end(self.rows.counts[Status.PAUSED])

    def interrupted(self, status: Status) -> None:
        """A run was closed before its end: what it had not finished becomes QUEUED or PAUSED."""
        for row in [row for row in self.rows if row.status in (Status.QUEUED, Status.RUNNING)]:
            self.put(row, status)

    def pause_all(self, run: Running) -> None:
        """Close a run before its end, for good: what it had not finished is PAUSED."""
        run.close(forced=True)
        self.interrupted(Status.PAUSED)
        self.end_tally()
        self.mirror.flush()

    def job(self, row: Download) -> Job:
        """What a worker is told of a row."""
        have = self.etags.find(row.url, row.directory) if row.if_exists is IfExists.UPDATE else None
        return Job(
            uid=row.uid,
            url=row.url,
            directory=row.directory,
            if_exists=row.if_exists,
            digest=row.digest,
            have=have,
            partial=row.partial,
            done=self.store.done if row in self.rows else "",
        )

    def hold(self, is_held: bool) -> None:
        """Have no thread of ours in this process while Blender renders. Any thread; does not wait."""
        host = self.host
        if isinstance(host, YieldingHost):
            if is_held:
                host.hold()
            else:
                host.let_go()

    # -- The ends.

    def open(self, folders: list[str]) -> bool:
        """The add-on was enabled: take up the lists that no Blender holds, and what no list has.

        False: nothing can be kept on the disk now. `folders` are looked into, too.
        """
        if self.store.is_open:
            return True
        if not self.store.open():
            return False
        with self.store.folders.held() as known:  # one Blender after the other
            self._take_up(self.store.adopt())
            if known is not None:
                self._take_up(self.store.find_lost(self.rows, known, folders))
            self.store.save()
        return True

    def look_for_leftovers(self) -> None:
        """Look into the used folders, of which one may be slow."""
        self.leftovers = self.store.leftovers(self.rows)

    def discard_leftovers(self, *leftovers: records.Lying) -> None:
        """Delete partial files that no list has, unless somebody has them open."""
        self.look_for_leftovers()  # a download may have taken one up since
        found = {(each.directory, each.name) for each in self.leftovers or ()}
        for each in leftovers:
            if (each.directory, each.name) in found:
                discard_leftover(each.directory, each.name)
        self.look_for_leftovers()

    def resume_all(self) -> None:
        """Put what is paused back into the queue."""
        for row in [row for row in self.rows if row.status is Status.PAUSED]:
            self.queue(row)

    def _take_up(self, rows: list[Download]) -> None:
        fresh = records.unknown(rows, self.rows)
        for row in fresh:
            row.uid = self.rows.new_uid()
        self.adopt(fresh)

    def close(self) -> None:
        """The add-on is being disabled, or Blender quits: no thread, child, connection or lock is left."""
        if self.run:
            self.run.close(forced=True)
        if self.host:
            self.host.shut(forced=True)
            self.host = None
        self.store.close()
        self.mirror.clear()


def _nobody(row: Download) -> None:
    """Nobody wants to be told."""


def _is_in(row: Download, directory: str) -> bool:
    """Whether a row has something left to do in this folder, now or when asked."""
    return row.is_unfinished and row.directory == directory


def _visible(progress: Progress) -> tuple[object, ...]:
    """What of it people see."""
    at = progress
    return at.name, at.received, at.size, at.phase, int(at.idle), at.text


def settle(row: Download, outcome: Outcome, etags: Etags) -> Status:
    """Write into a record how it ended; returns the status that this means."""
    match outcome:
        case Halted() | Seen():  # a look is no row's
            return Status.CANCELLED
        case Failed(error=error):
            row.error = records.readable(error)
            return Status.FAILED
        case Skipped(filepath=filepath, note=note):
            row.filepath, row.note = filepath, records.readable(note)
            return Status.SKIPPED
        case Finished(filepath=filepath, size=size, note=note, have=have):
            row.filepath = filepath
            row.progress = Progress(name=os.path.basename(filepath), received=size, size=size)
            row.note = records.readable(note)
            if have:
                etags.keep(row.url, row.directory, have)
            return Status.FINISHED
        case _:
            assert_never(outcome)
