"""The session is the queue as people see it: a list, which the disk keeps and scripts read a copy of.

Everything here is the main thread's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from itertools import filterfalse, islice
from typing import TYPE_CHECKING, Any, Unpack

from ..transfer import names, portable
from ..transfer.disk import prepare_folder
from ..transfer.job import Failed, Finished, Halted, IfExists, Job, Outcome, Progress, TransferError
from ..transfer.part import discard_leftover, leftover, move_leftover
from ..workers import Download, Found, Host, Status, Survey, answer_of, ask, is_silent, look_into
from . import libraries, records
from .adopting import adopt
from .intake import AT_ONCE, Batch, Finder, Intake
from .mirror import Mirror
from .queue import Intent, Options, Queue, record, refuse
from .store import Etags, Store
from .tally import Tally

if TYPE_CHECKING:
    from .ahead import Ahead, File
    from .importing import Importing

LOOK = 0.1  # seconds between two looks at what was found
_GIVES_WAY = (Status.PAUSED, Status.FAILED, Status.CANCELLED)  # to a new download of the same link


class Session(Queue):
    """The list of downloads."""

    keeps_ended = True

    def __init__(self) -> None:
        super().__init__()
        self.mirror = Mirror(self.rows, self.tally)
        self.store = Store()
        self.etags = Etags()
        self.intake = Intake(self._come)
        """Links that were added and are not in the list yet."""
        self.leftovers: list[records.Lying] | None = None
        """The partial files that no list has, once somebody looked for them."""
        self.silent: list[str] = []
        """The folders that did not answer then."""
        self.coming: Generator[float, None, None] = (pause for pause in ())
        """Has rows come of lists that others have left, some at a time: in how many seconds the next may."""
        self._is_begun = False
        # Folders and partial files that are to go, and whether a worker of ours may have them open yet.
        self._doomed: dict[tuple[str, str], bool] = {}
        self._ahead: Ahead | None = None
        self._importing: Importing | None = None

    @property
    def ahead(self) -> Ahead:
        """What a dialog shows before it starts; begins with the first one."""
        if self._ahead is None:
            from .ahead import Ahead

            self._ahead = Ahead(self.rows)
        return self._ahead

    def claim_dropped(self) -> bool:
        """Whether a list was dropped that nobody has asked for since."""
        return self._ahead is not None and self._ahead.claim()

    @property
    def imports(self) -> Importing:
        """What imports finished files; begins with the first one."""
        if self._importing is None:
            from .importing import Importing

            self._importing = Importing(self)
        return self._importing

    # -- Changing the list.

    def foresee(self, rows: Iterable[Download], known: Mapping[str, File]) -> None:
        """What somebody has found out of new rows' files before they run, by their links."""
        for row in rows:
            if (file := known.get(row.url)) and row.uid and not row.progress.name:
                row.wanted, row.mirrors = file.wanted, file.mirrors
                row.progress = Progress(name=file.name, size=file.size)
                self.changed(row)

    def new_rows(
        self,
        links: Iterable[names.Link],
        *,
        directory: str,
        may_wait: bool = False,
        **options: Unpack[Options],
    ) -> list[Download]:
        """A record for each link, a FAILED one without a uid where it is at work in the list already.

        Rows of the same link and folder that are stopped give way: what they received is used. So do
        those that were asked to stop a moment ago, where the new one `may_wait` for that.
        """
        while not may_wait and self.begin() == 0.0:  # it may have been made just now
            pass
        self.take_in()  # they may be the same
        rows = self._made(links, self._finder(directory), directory, options, may_wait=may_wait)
        self._activate(rows)
        if not may_wait:  # whatever happens to us, what was received is found again
            self.store.expect()
        return rows

    @property
    def is_waiting(self) -> bool:
        return super().is_waiting or self.intake.is_waiting

    def take_in(self, most: int | None = None) -> list[Download]:
        for pause in self.coming:
            if pause or most is not None:
                break
        return self.intake.take(most)

    def _come(self, batch: Batch, links: list[names.Link], is_first: bool) -> list[Download]:
        """Links that are on their way are in the list now: what `new_rows` returns of them."""
        batch.finder = batch.finder or self._finder(batch.directory)
        rows = self._made(links, batch.finder, batch.directory, batch.options, may_wait=True)
        self.adopt(row for row in rows if row.uid)
        self.foresee(rows, batch.known)
        if is_first:
            self._activate(rows)
        return rows

    def _made(
        self, links: Iterable[names.Link], old_of: Finder, directory: str, options: Options, *, may_wait: bool
    ) -> list[Download]:
        rows, old_rows = [], []
        for link in links:
            row = record(link, directory, options)
            rows.append(row)
            old = old_of(link)
            if old and may_wait and self._is_stopping(old):
                self._intents[old.uid] = Intent(None)  # what it received is the new one's
            elif old and old.status not in _GIVES_WAY:
                refuse(row)
                continue
            elif old:
                old_rows.append(old)
            if old and not old.is_cut:
                row.partial, row.progress = old.partial, old.progress
            row.uid = self.rows.new_uid()
            if row.when_done == "IMPORT":  # what is active in Blender now is what was meant
                self.imports.asked(row)
        self.drop(*old_rows)
        for old in old_rows:
            self.tally.forget(old.uid)
        self._use(directory, [row.url for row in rows if row.uid])
        return rows

    def _use(self, directory: str, urls: list[str]) -> None:
        """Links are downloaded to a folder: what was to go of them stays."""
        self.store.folders.use(directory, urls)
        if self._doomed:
            wanted = names.parts_among((name for _, name in self._doomed), urls, directory)
            self._doomed = {place: waits for place, waits in self._doomed.items() if place[1] not in wanted}

    def _activate(self, rows: list[Download]) -> None:
        """Have the first one that will be in the list be the active one there."""
        if row := next((row for row in rows if row.uid), None):
            self.mirror.activate(row)

    def waited(self, rows: list[Download]) -> None:
        self.adopt(rows)
        for row in rows:
            self._done(row)
        self.etags.save()
        self._end_look()
        self.mirror.flush()

    def _finder(self, directory: str) -> Finder:
        """Of the rows that are there now, finds the one that has something left to do for a link."""
        here = list(self._unfinished(directory))
        whole = {row.url: row for row in here if not row.is_cut}
        cut = {row.partial: row for row in here if row.is_cut}

        def find(link: names.Link) -> Download | None:
            found = whole.get(link.url) or (cut.get(names.part_name(link.url, directory)) if cut else None)
            return found if found and found in self.rows and found.is_unfinished else None

        return find

    def _is_stopping(self, row: Download) -> bool:
        """Whether it was asked to, and its worker has not let go of it yet."""
        intent = self._intents.get(row.uid)
        return intent is not None and intent.status is not Status.QUEUED

    def drop(self, *rows: Download, delete: bool = False) -> None:
        super().drop(*rows, delete=delete)
        if rows:
            self.mirror.reorder()

    def dropped(self, rows: Collection[Download], *, delete: bool) -> None:
        if delete:
            self._delete_parts(records.with_parts(rows))
        else:
            self._leave_parts(records.with_parts([row for row in rows if row.is_unfinished]))
        for row in rows:
            self.store.forget(row.uid)

    def _leave_parts(self, rows: Iterable[Download]) -> None:
        """What they received stays, and does not come back by itself."""
        named: dict[str, list[str]] = {}
        for row in rows:
            named.setdefault(row.directory, []).extend(records.part_names(row))
        there = ask(lambda folder: _lying(folder, named[folder]), named)
        for folder, sought in named.items():
            self.store.folders.remove(folder, there.get(folder, sought))

    def _delete_parts(self, rows: Iterable[Download]) -> None:
        for row in rows:
            if not row.is_cut:
                self._doom(row, row.part)
            self._discard_earlier(row)
        self._delete_doomed()
        for (directory, name), waits in self._doomed.items():
            if not waits or is_silent(directory):  # perhaps until Blender ends
                self.store.folders.remove(directory, [name])

    def _doom(self, row: Download, name: str) -> None:
        """Have a partial file deleted, also if a worker of ours is closing it yet, as none is that failed."""
        self._doomed[row.directory, name] = self.run is not None and row.status is not Status.FAILED

    def _delete_doomed(self) -> None:
        """Once more; after a run no worker of ours has any of them."""
        if not self._doomed:  # nearly always
            return
        left = ask(self._delete_in, {directory for directory, _ in self._doomed})
        self._doomed = {
            (directory, name): waits
            for (directory, name), waits in self._doomed.items()
            if directory not in left or name in left[directory]
        }

    def _delete_in(self, folder: str) -> list[str]:
        """Delete what is to go there. Returns what may go later. Any thread."""
        later = []
        for (directory, name), waits in list(self._doomed.items()):
            is_here = directory == folder and (folder, name) in self._doomed  # that may have been silent
            if is_here and (not discard_leftover(folder, name) or (waits and self.run)):
                later.append(name)
        return _lying(folder, later)

    def _others_beside(self, row: Download) -> Iterator[Download]:
        """The other rows that have something left to do in a row's folder."""
        return (other for other in self._unfinished(row.directory) if other is not row)

    def _unfinished(self, directory: str) -> Iterator[Download]:
        """The rows that have something left to do in this folder, now or when asked."""
        return (row for row in self.rows.within(directory) if row.is_unfinished)

    def _is_shared(self, row: Download, name: str) -> bool:
        """Whether another row goes on with that partial file too."""
        return any(name in records.part_names(other) for other in self._others_beside(row))

    def _discard_earlier(self, row: Download) -> None:
        """The partial file of an earlier link, that this row could not make use of, is to go."""
        if row.partial and not self._is_shared(row, row.partial):
            self._doom(row, row.partial)
        row.partial = ""

    def flush(self) -> None:
        """Show and keep at once what people asked for, as far as it is little; timers do the rest."""
        self.mirror.flush()
        super().flush()
        if not self.run:
            self._delete_doomed()
            self.store.settle(time.monotonic())

    def changed(self, row: Download) -> None:
        super().changed(row)
        self.mirror.touch()
        self.store.touch(row)

    def file_changed(self, row: Download) -> None:
        """A finished file is another by our own doing: an update need not fetch it for that."""
        if have := self.etags.find(row.url, row.directory):
            with suppress(OSError):
                status = os.stat(portable.reach(row.filepath))
                have = replace(have, size=status.st_size, mtime=status.st_mtime)
                self.etags.keep(row.url, row.directory, have)

    # -- What people ask for.

    def act(
        self, action: Callable[[Download], None], statuses: Collection[str], row: Download | None = None
    ) -> list[Download]:
        """Do it to that row, or else to all, where it has one of `statuses`. Returns those that were meant.

        First to what workers have, so that they are free at once; before that to what they would take then.
        """
        run, rows = self.run, [row] if row else self.rows
        held = [each for each in rows if self.has_worker(each) and self.meant(each) in statuses]
        for each in sorted(held, key=lambda each: each.status is Status.RUNNING):
            action(each)
        if held and run:
            run.spare(stops_all=not row and Status.QUEUED in statuses)
        if not row:
            self.take_in()
        others = [each for each in rows if each.status in statuses and not self.has_worker(each)]
        for each in others:
            action(each)
        return [row] if row else held + others

    def pause(self, row: Download) -> None:
        """Stop a row, to go on with it later."""
        self.stop(row, Intent(Status.PAUSED))

    def remove(self, *rows: Download, delete: bool) -> None:
        """Take rows out of the list, cancelling them first; `delete` their partial files."""
        for row in filter(self.has_worker, rows):
            self.stop(row, Intent(None, delete=delete))
        self.drop(*filterfalse(self.has_worker, rows), delete=delete)

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
        self.take_in()
        if not row.is_unfinished:
            raise TransferError("This download is done: there is no link to replace")
        if any(other.url == link.url and not other.is_cut for other in self._others_beside(row)):
            raise TransferError("This link is in the list already")
        if link.url != row.url or row.is_cut:  # else it is given again for what it says of the digest
            link = replace(link, digest=link.digest or row.digest)
        if self.run and self.has_worker(row):
            self._intents[row.uid] = Intent(Status.QUEUED, link)
            self.run.stop(row.uid)
        else:
            self._relink(row, link)
            self.put(row, Status.QUEUED)

    def _relink(self, row: Download, link: names.Link) -> None:
        if not row.is_cut and row.part != row.partial:
            self._go_on_with_more(row)
        row.url, row.digest, row.is_cut, row.missed = link.url, link.digest, False, 0
        row.error = row.note = ""
        self._use(row.directory, [link.url])
        self.changed(row)

    def _go_on_with_more(self, row: Download) -> None:
        """Of the partial files of two links that a row has had: the last one may have led to another file."""
        there = _received(row)
        if there is None:
            row.partial = row.partial or row.part
        elif row.part in there:
            more, less = row.part, row.partial
            if less in there and there[less] > there[more]:
                more, less = less, more
            row.partial = less
            self._discard_earlier(row)
            self._delete_doomed()
            row.partial = more

    def change_folder(self, row: Download, directory: str) -> None:
        """Have a row that failed go on in another folder, with what was received if that can move there.

        Raises TransferError in a sentence where that cannot be; the row is as it was then.
        """
        self.take_in()
        if row.status is not Status.FAILED:
            raise TransferError("Only a download that failed can go into another folder")
        if any(other.url == row.url and other is not row for other in self._unfinished(directory)):
            raise TransferError("This link is in the list for that folder already")
        answer_of(directory, prepare_folder)
        there = _received(row)
        if there is not None and _is_same(row.directory, directory):
            self.queue(row)
            return
        fullest = sorted(there, key=there.__getitem__, reverse=True) if there else []
        moved = next((name for name in fullest if move_leftover(row.directory, directory, name)), "")
        if self.host:  # after that: it would open the file again, to make all of it durable
            self.host.forget(row.uid)
        self.store.folders.remove(row.directory, records.part_names(row) if there is None else there)
        self._use(directory, [row.url])
        self.rows.change_folder(row, directory)
        row.partial = moved
        if not moved:
            row.progress = Progress(name=row.progress.name)
        self.changed(row)
        self.queue(row)

    def clear(self) -> None:
        """Take the rows that are done out of the list."""
        self.drop(*[row for row in self.rows if not row.is_unfinished])

    def move(self, row: Download, direction: str, show: str = "ALL") -> None:
        """Move a row in the list, and so in the queue; UP and DOWN are past what has the status `show`."""
        self.rows.move(row, direction, show)
        if self.run:
            self.run.recall()
        self.store.reorder(self.rows)
        self.mirror.reorder()

    def stop(self, row: Download, intent: Intent) -> None:
        if (old := self._intents.get(row.uid)) and not intent.link:
            intent = replace(intent, link=old.link)
        super().stop(row, intent)

    # -- What workers tell.

    def moved(self, row: Download) -> None:
        super().moved(row)
        self.mirror.touch()

    def concluded(self, row: Download, outcome: Outcome, intent: Intent) -> None:
        if intent.link and isinstance(outcome, (Halted, Failed)):
            self._relink(row, intent.link)
            outcome = Halted()
        elif isinstance(outcome, Failed) and row.mirrors and intent == Intent(Status.QUEUED):
            outcome = self._turned(row, outcome)
        if row.partial and (there := _received(row)) is not None and row.partial not in there:
            row.partial = ""  # it was taken over
        super().concluded(row, outcome, intent)
        if isinstance(outcome, Halted):
            return
        self._done(row)
        if intent.status is None:
            self.tally.forget(row.uid)
            self.drop(row, delete=intent.delete)

    def _done(self, row: Download) -> None:
        """A row has ended: if its file is there, that is all that is wanted."""
        if not row.is_unfinished:
            if row.when_done == "IMPORT" or row.catalog:  # what that takes is read for nothing else
                self.imports.finished(row)
            else:
                libraries.arrived(row.filepath)
            self._discard_earlier(row)
            self._delete_doomed()

    def _turned(self, row: Download, outcome: Failed) -> Outcome:
        """Turn to the next place that has a row's file: Failed once none is left, at the first one again."""
        (first, *others), url, missed = row.mirrors, row.url, row.missed + 1
        self._relink(row, names.Link(first, row.digest))
        row.mirrors = (*others, url)
        if missed > len(row.mirrors):
            return outcome
        row.missed = missed
        return Halted()

    def settle(self, row: Download, outcome: Outcome) -> Status:
        if isinstance(outcome, Finished) and outcome.have:
            self.etags.keep(row.url, row.directory, outcome.have)
        return super().settle(row, outcome)

    # -- A run's life.

    def show(self) -> None:
        self.mirror.flush(is_asked=False)

    def keep(self, now: float) -> None:
        self.store.flush(now, self.host)
        self.etags.flush(now)
        self._delete_doomed()

    def rest(self, now: float) -> None:
        self.take_in(AT_ONCE)
        if self.mirror.is_stale:
            self.mirror.flush()
        self.store.flush(now, None)
        self.etags.flush(now)
        self._delete_doomed()

    def let_be(self, why: str) -> None:
        self.interrupted(Status.PAUSED)

    def end_tally(self) -> Tally:
        self._end_look()
        return super().end_tally()

    def _end_look(self) -> None:
        """No child of ours outlives an operator: into what has not answered by now the next Blender looks."""
        self.take_in()
        self.coming.close()

    def file_closing(self) -> None:
        self.take_in()  # what they bring was asked for in this file
        self.mirror.remember()

    def file_opened(self) -> None:
        self.mirror.rebuild()
        if self._importing:
            self._importing.opened()

    def job(self, row: Download, **known: Any) -> Job:
        have = self.etags.find(row.url, row.directory) if row.if_exists is IfExists.UPDATE else None
        partial = "" if row.partial and self._is_shared(row, row.partial) else row.partial
        done = self.store.done if row in self.rows else ""
        return super().job(row, have=have, done=done, partial=partial)

    # -- The ends.

    def begin(self) -> float | None:
        again = None if self._is_begun else adopt()
        self._is_begun = again is None
        return again

    def open(self, folders: list[str]) -> bool:
        """The add-on was enabled: lists that no Blender holds are `coming` now, and what no list has.

        False: nothing can be kept on the disk now. `folders` are where it looks first without a list.
        """
        if not self.store.is_open and self.store.open():
            self.coming = self._come_back(folders)
        return self.store.is_open

    def _come_back(self, folders: list[str]) -> Generator[float, None, None]:
        with self.store.folders.held() as known:  # one Blender after the other
            rows = self.store.adopt()
            while some := list(islice(rows, AT_ONCE)):
                self._take_up(some)
                yield 0.0
            if known == {}:
                self._find_lost(known, ask(look_into, folders))
            self.store.settle(time.monotonic())
            used = [*folders, *(known or ()), *(row.directory for row in self.rows)]
        if self.store.has_gaps:
            yield from self._survey(used)

    def _survey(self, folders: list[str]) -> Iterator[float]:
        """Find in these folders, as far as they answer, what no list has."""
        with suppress(OSError), closing(Survey(folders)) as survey:  # else the next Blender looks
            while survey.look():
                yield LOOK
            with self.store.folders.held() as known:
                if known is not None:
                    self._find_lost(known, survey.found)
                    self.store.settle(time.monotonic())

    def _find_lost(self, known: dict[str, list[str]], found: dict[str, Found]) -> None:
        for folder in found:
            known.setdefault(folder, [])  # where a look was taken now
        self._take_up(self.store.find_lost(self.rows, known, found))

    def look_for_leftovers(self) -> None:
        """Look into the used folders."""
        with self.store.folders.held() as known:
            found = ask(look_into, known or ())
        self.silent = [folder for folder in known or () if folder not in found]
        self.leftovers = self.store.leftovers(self.rows, found)

    def discard_leftovers(self, *leftovers: records.Lying) -> None:
        """Delete partial files that no list has, unless somebody has them open."""
        self.look_for_leftovers()  # a download may have taken one up since
        found = {(each.directory, each.name) for each in self.leftovers or ()}
        meant = found.intersection((each.directory, each.name) for each in leftovers)
        self._doomed |= dict.fromkeys(meant, False)
        self._delete_doomed()
        self.look_for_leftovers()

    def go_on_with(self, before: Queue) -> None:
        """Take the place of another one, which is closed: with its rows, as they are, and its counts."""
        self.adopt(before.rows)
        self.tally.go_on_from(before.tally)

    def resume(self) -> None:
        """Put paused rows back into the queue that no person paused."""
        for row in self.rows.of("PAUSED"):
            if not row.stays_paused:
                self.queue(row)

    def _take_up(self, rows: list[Download]) -> None:
        fresh = records.unknown(rows, self.rows)
        for row in fresh:
            row.uid = self.rows.new_uid()
        self.adopt(fresh)

    @property
    def hosts(self) -> list[Host]:
        return [*super().hosts, *(self._ahead.hosts if self._ahead else ())]

    def hold(self, is_held: bool) -> None:
        super().hold(is_held)
        if is_held and self._ahead:
            self._ahead.hold()

    def close(self) -> None:
        """The add-on is being disabled, or Blender quits: no thread, child, connection or lock is left."""
        self._end_look()
        if self._ahead:
            self._ahead.close()
        super().close()
        self.etags.save()
        self.store.close()
        self.mirror.clear()
        if self._importing:  # after the last files that became finished
            self._importing.close()


def _lying(folder: str, sought: Iterable[str]) -> list[str]:
    """Those that are there."""
    there = portable.reach(folder)
    return [name for name in sought if os.path.lexists(os.path.join(there, name))]


def _received(row: Download) -> dict[str, int] | None:
    """The bytes in each partial file of a row that is there; None: its folder does not answer."""
    own = records.part_names(row)

    def look(folder: str) -> dict[str, int]:
        left = {name: leftover(folder, name) for name in _lying(folder, own)}
        return {name: found.received if found else 0 for name, found in left.items()}

    return ask(look, [row.directory]).get(row.directory)


def _is_same(directory: str, other: str) -> bool:
    """Whether these are two names of one folder."""
    try:
        return os.path.samefile(directory, other)
    except OSError:  # one is gone
        return False
