"""What a run is, inside Blender. Everything here is the main thread's.

`Session` owns the list and what outlives a run: stopped transfers, counts, the copy that scripts
read. There is one, from `open_session` (the add-on is enabled) to `close_session` (disabled).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from ..transfer import names
from ..transfer.fetch import Transfer
from ..transfer.job import (
    Failed,
    Finished,
    Halted,
    IfExists,
    Job,
    Outcome,
    Progress,
    Settings,
    Skipped,
    TransferError,
)
from ..transfer.part import discard_leftover
from ..workers import Download, ProcessHost, Status, YieldingHost
from . import records
from .mirror import Mirror
from .store import Etags, Store

if TYPE_CHECKING:
    from .run import Run

Host = YieldingHost | ProcessHost
NOT_IMPORTED = "Downloaded; importing by itself is not there yet, use File > Import"
_GIVES_WAY = (Status.PAUSED, Status.FAILED, Status.CANCELLED)  # to a new download of the same link


@dataclass(slots=True)
class Tally:
    """How the downloads of a run ended; a run that is interrupted and goes on keeps counting."""

    finished: int = 0
    skipped: int = 0
    cancelled: int = 0
    failed: int = 0
    last_error: str = ""
    paused: int = 0
    """Rows that have not ended, and wait to be resumed."""

    @property
    def ended(self) -> int:
        """How many there were."""
        return self.finished + self.skipped + self.cancelled + self.failed

    @property
    def sentence(self) -> str:
        """The report at the end of a run."""
        counts = {
            "downloaded": self.finished,
            "skipped": self.skipped,
            "cancelled": self.cancelled,
            "failed": self.failed,
            "paused": self.paused,
        }
        text = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        return f"{text}: {self.last_error}" if self.last_error else text or "Nothing left to download"

    def count(self, status: Status, error: str) -> None:
        """A download has ended for now."""
        match status:
            case Status.FINISHED:
                self.finished += 1
            case Status.SKIPPED:
                self.skipped += 1
            case Status.CANCELLED:
                self.cancelled += 1
            case Status.FAILED:
                self.failed += 1
                self.last_error = error


class Session:
    """The list of downloads and its one writer."""

    def __init__(self) -> None:
        self.downloads: list[Download] = []
        self.run: Run | None = None
        self.host: Host | None = None
        """Stays between runs while it keeps stopped transfers."""
        self.tally = Tally()
        self.began = 0.0
        """When Blender could last autosave: the run first began, a file was loaded, or the run was
        interrupted for that. In seconds of `time.monotonic`; 0 while no run goes on."""
        self.mirror = Mirror(self)
        self.store = Store()
        self.etags = Etags()
        self.counts: Counter[Status] = Counter()
        """Derived: how many rows have each status."""
        self.running: dict[int, Download] = {}
        """Derived: the rows that are RUNNING."""
        self._by_uid: dict[int, Download] = {}
        self._last_uid = 0
        self._queued: dict[int, Download] = {}  # derived: the rows that are QUEUED
        self._queue_is_sorted = True
        self._wanted: dict[int, Status | None] = {}  # what rows become once let go; None: gone
        self._links: dict[int, names.Link] = {}  # which links they have then
        self._delete: set[int] = set()

    # -- Looking.

    def find(self, uid: int) -> Download | None:
        """The row with this uid."""
        return self._by_uid.get(uid)

    def queued(self) -> Iterable[Download]:
        """The rows that wait for their turn, first the next. Cheap, however long the list."""
        if not self._queue_is_sorted:
            self._queued = {row.uid: row for row in self.downloads if row.status is Status.QUEUED}
            self._queue_is_sorted = True
        return self._queued.values()

    @property
    def is_waiting(self) -> bool:
        """Whether rows wait that no run has taken."""
        return bool(self._queued)

    @property
    def goes_on(self) -> bool:
        """Whether a run has begun and not come to its end, interrupted though it may be."""
        return self.began > 0.0

    @property
    def wants_run(self) -> bool:
        """Whether one is to be started: rows wait, or an interrupted one has to come to its end."""
        return not self.run and (self.is_waiting or self.goes_on)

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
        known = {row.url: row for row in self.downloads if _is_in(row, directory) and not row.is_cut}
        cut = {row.partial: row for row in self.downloads if _is_in(row, directory) and row.is_cut}
        rows, at_work, old_rows = [], [], []
        for link in links:
            old = known.get(link.url) or (cut and cut.get(names.part_name(link.url, directory)))
            if old and may_wait and self._is_stopping(old):
                self._replace(old)
            elif old and old.status not in _GIVES_WAY:
                at_work.append(f"{names.shown(link.url)}: It is already being downloaded")
                continue
            elif old:
                old_rows.append(old)
            rows.append(self._new(link, directory, if_exists, when_done))
        self._drop(*old_rows)
        self.store.folders.use(directory, [row.url for row in rows])
        return rows, at_work

    def _is_stopping(self, row: Download) -> bool:
        """Whether it was asked to, and its worker has not let go of it yet."""
        return self._wanted.get(row.uid, Status.QUEUED) is not Status.QUEUED

    def _replace(self, row: Download) -> None:
        """Have it go as soon as it is let go of; what it received is another's."""
        self._wanted[row.uid] = None
        self._links.pop(row.uid, None)
        self._delete.discard(row.uid)

    def _new(self, link: names.Link, directory: str, if_exists: IfExists, when_done: str) -> Download:
        self._last_uid += 1
        return Download(
            uid=self._last_uid,
            url=link.url,
            digest=link.digest,
            directory=directory,
            if_exists=if_exists,
            when_done=when_done,
            name=names.from_url(link.url) or names.FALLBACK,
        )

    def _insert(self, row: Download) -> None:
        self.downloads.append(row)
        self._by_uid[row.uid] = row
        self.counts[row.status] += 1
        if row.status is Status.QUEUED:
            self._queued[row.uid] = row
        self.changed(row)

    def adopt(self, rows: Iterable[Download]) -> None:
        """Put records into the list as they are."""
        for row in rows:
            self._insert(row)

    def _drop(self, *rows: Download) -> None:
        """Take rows that no worker has out of the list."""
        for row in rows:
            del self._by_uid[row.uid]
            self.counts[row.status] -= 1
            self.running.pop(row.uid, None)
            self._queued.pop(row.uid, None)
            self._release(row)
            self.store.forget(row.uid)
        self.downloads = [row for row in self.downloads if row.uid in self._by_uid]
        if len(rows) == 1:
            self.mirror.drop(rows[0].uid)
        elif rows:
            self.mirror.reorder()

    def _release(self, row: Download) -> None:
        """Let go of what a row received, or delete it."""
        delete = row.uid in self._delete
        self._delete.discard(row.uid)
        if row.is_unfinished and not delete:
            parts = records.part_names(row)
            left = [name for name in parts if os.path.lexists(os.path.join(row.directory, name))]
            self.store.folders.remove(row.directory, left)
        if self.host:
            self.host.forget(row.uid, delete=delete)
        if delete and not row.is_cut:
            with suppress(TransferError):  # a child that has it open deletes it itself
                Transfer(self.job(row), Settings()).discard()
        if delete:
            self._discard_earlier(row)

    def _others_beside(self, row: Download) -> Iterator[Download]:
        """The other rows that have something left to do in a row's folder."""
        return (other for other in self.downloads if other is not row and _is_in(other, row.directory))

    def _discard_earlier(self, row: Download) -> None:
        """Delete the partial file of an earlier link that this row could not make use of."""
        others = self._others_beside(row)
        if row.partial and not any(row.partial in records.part_names(other) for other in others):
            discard_leftover(row.directory, row.partial)
        row.partial = ""

    def changed(self, row: Download) -> None:
        """A row differs from what scripts and the disk have."""
        self.mirror.touch(row.uid)
        self.store.touch(row)

    def put(self, row: Download, status: Status) -> None:
        """Change a row's status, here and nowhere else."""
        if row.status is status:
            return
        self.counts[row.status] -= 1
        self.counts[status] += 1
        row.status = status
        if status is Status.RUNNING:
            self.running[row.uid] = row
        else:
            self.running.pop(row.uid, None)
        if status is Status.QUEUED:
            row.error = row.note = row.text = ""
            self._queued[row.uid] = row
            self._queue_is_sorted = False
        else:
            self._queued.pop(row.uid, None)
        if status is not Status.RUNNING:
            row.speed = 0.0
        if self.goes_on:
            self.tally.count(status, row.error)
        self.changed(row)

    # -- What people ask for.

    def pause(self, row: Download) -> None:
        """Stop a row, to go on with it later."""
        self._stop(row, Status.PAUSED)

    def cancel(self, row: Download) -> None:
        """Stop a row for good; what it received stays for a retry."""
        self._stop(row, Status.CANCELLED)

    def remove(self, row: Download, *, delete: bool) -> None:
        """Take a row out of the list, cancelling it first; `delete` its partial file."""
        if delete:
            self._delete.add(row.uid)
        self._stop(row, None)

    def queue(self, row: Download) -> None:
        """Have a stopped row go on; not one whose link nobody knows any more."""
        if row.is_cut:
            return
        if row.uid in self._wanted:
            self._wanted[row.uid] = Status.QUEUED
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
        if self.run and self.run.has(row.uid):
            self._links[row.uid] = link
            self._wanted[row.uid] = Status.QUEUED
            self.run.stop(row.uid)
        else:
            self._relink(row, link)
            self.put(row, Status.QUEUED)

    def _relink(self, row: Download, link: names.Link) -> None:
        old = names.part_name(row.url, row.directory)
        if not row.is_cut and os.path.lexists(os.path.join(row.directory, old)):
            row.partial = old
        row.url, row.digest, row.is_cut = link.url, link.digest or row.digest, False
        row.error = row.note = ""
        self.store.folders.use(row.directory, [link.url])
        self.mirror.relink(row)
        self.changed(row)

    def clear(self) -> int:
        """Take the rows that are done out of the list. Returns how many."""
        done = [row for row in self.downloads if not row.is_unfinished]
        self._drop(*done)
        return len(done)

    def move(self, row: Download, direction: str) -> None:
        """Move a row in the list, and so in the queue."""
        old = self.downloads.index(row)
        last = len(self.downloads) - 1
        new = {"TOP": 0, "UP": max(0, old - 1), "DOWN": min(last, old + 1), "BOTTOM": last}[direction]
        self.downloads.insert(new, self.downloads.pop(old))
        if self.run:
            self.run.recall()
        self._queue_is_sorted = False
        self.store.reorder(self.downloads)
        self.mirror.move(row.uid, new)

    def _stop(self, row: Download, then: Status | None) -> None:
        if self.run and self.run.has(row.uid):
            self._wanted[row.uid] = then
            self.run.stop(row.uid)
        else:
            self._become(row, then)

    def _become(self, row: Download, status: Status | None) -> None:
        if status is None:
            self._drop(row)
            return
        self.put(row, status)
        if self.host and status is Status.CANCELLED:
            self.host.hang_up(row.uid)

    # -- What workers tell.

    def started(self, uid: int) -> None:
        """A worker has taken the row."""
        if row := self.find(uid):
            self.put(row, Status.RUNNING)

    def progressed(self, uid: int, progress: Progress, seconds: float) -> None:
        """Copy the counters of a running row, `seconds` after the last time."""
        if not (row := self.find(uid)):
            return
        if seconds > 0:
            now = max(0, progress.received - row.received) / seconds
            row.speed += (now - row.speed) * min(1.0, seconds)  # smoothed over about a second
        seen = row.name, row.received, row.size, row.phase, int(row.idle), row.text
        row.name, row.received, row.size = progress.name, progress.received, progress.size
        row.phase, row.idle, row.text = progress.phase, progress.idle, progress.text
        if seen != (row.name, row.received, row.size, row.phase, int(row.idle), row.text):
            self.mirror.touch(uid)

    def ended(self, uid: int, outcome: Outcome) -> None:
        """The terminal event of a row."""
        wanted, link = self._wanted.pop(uid, Status.QUEUED), self._links.pop(uid, None)
        if not (row := self.find(uid)):
            return
        if link and isinstance(outcome, (Halted, Failed)):
            self._relink(row, link)
            outcome = Halted()
        if row.partial and not os.path.lexists(os.path.join(row.directory, row.partial)):
            row.partial = ""  # it was taken over
        if isinstance(outcome, Halted):
            self._become(row, wanted)
        else:
            self.put(row, settle(row, outcome, self.etags))
            if not row.is_unfinished:
                self._discard_earlier(row)
            if wanted is None:
                self._drop(row)

    def end_tally(self) -> Tally:
        """The counts of the run that has ended; the next one counts anew."""
        tally, self.tally = self.tally, Tally()
        tally.paused = self.counts[Status.PAUSED]
        self.began = 0.0
        return tally

    def interrupted(self, status: Status) -> None:
        """A run was closed before its end: what it had not finished becomes QUEUED or PAUSED."""
        for row in [row for row in self.downloads if row.status in (Status.QUEUED, Status.RUNNING)]:
            self.put(row, status)

    def pause_all(self, run: Run) -> None:
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
            done=self.store.done if row.uid in self._by_uid else "",
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
                self._take_up(self.store.find_lost(self.downloads, known, folders))
            self.store.save()
        return True

    def _take_up(self, rows: list[Download]) -> None:
        fresh = records.unknown(rows, self.downloads)
        for row in fresh:
            self._last_uid += 1
            row.uid = self._last_uid
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


def _is_in(row: Download, directory: str) -> bool:
    """Whether a row has something left to do in this folder, now or when asked."""
    return row.is_unfinished and row.directory == directory


def settle(row: Download, outcome: Outcome, etags: Etags) -> Status:
    """Write into a record how it ended; returns the status that this means."""
    match outcome:
        case Halted():
            return Status.CANCELLED
        case Failed(error=error):
            row.error = error
            return Status.FAILED
        case Skipped(filepath=filepath, note=note):
            row.filepath, row.note = filepath, note
            return Status.SKIPPED
        case Finished(filepath=filepath, size=size, note=note, have=have):
            row.filepath, row.name = filepath, os.path.basename(filepath)
            row.received = row.size = size
            row.note = note or (NOT_IMPORTED if row.when_done == "IMPORT" else "")
            if have:
                etags.keep(row.url, row.directory, have)
            return Status.FINISHED
        case _:
            assert_never(outcome)


_session: Session | None = None


def current() -> Session:
    """The session. Raises RuntimeError while the add-on is not enabled."""
    if _session is None:
        raise RuntimeError("Background Downloads is not enabled")
    return _session


def open_session() -> Session:
    """Begin the session; `Session.open` follows when Blender is ready."""
    global _session
    _session = Session()
    return _session


def close_session() -> None:
    """End the session."""
    global _session
    if _session:
        _session.close()
    _session = None
