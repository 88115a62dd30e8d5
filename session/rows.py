"""The rows in their order, which of them wait and run, and how many have each status. Knows no Blender."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import count

from ..workers import Download, Status

_uids = count(1)
_key = os.path.normcase  # Windows: a folder that is written in another case is the same one


class Rows:
    """The list itself. Whoever changes a row's status does it by `put`, so that what is derived holds."""

    def __init__(self) -> None:
        self.counts: Counter[Status] = Counter()
        """Derived: how many rows have each status."""
        self.running: dict[int, Download] = {}
        """Derived: the rows that are RUNNING, by uid."""
        self.changes = 0
        """Grows with each change of the rows: of a status, of a name, of the order."""
        self._rows: list[Download] = []
        self._by_uid: dict[int, Download] = {}
        self._by_folder: dict[str, dict[int, Download]] = {}
        self._queued: dict[int, Download] = {}  # derived: the rows that are QUEUED
        self._queue_is_sorted = True

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Download]:
        return iter(self._rows)

    def __contains__(self, row: Download) -> bool:
        return row.uid in self._by_uid

    def at(self, index: int) -> Download | None:
        """The row at this place, from 0; None where there is none."""
        return self._rows[index] if 0 <= index < len(self._rows) else None

    def since(self, index: int) -> list[Download]:
        """The rows from this place on."""
        return self._rows[index:]

    def find(self, uid: int) -> Download | None:
        return self._by_uid.get(uid)

    def place(self, uid: int) -> int | None:
        """Where the row with this uid is, from 0."""
        row = self.find(uid)
        return self._rows.index(row) if row else None

    def within(self, directory: str) -> Iterable[Download]:
        """The rows whose files go into this folder, in no order. Cheap, however many folders there are."""
        return self._by_folder.get(_key(directory), {}).values()

    def of(self, which: str) -> list[Download]:
        """The rows with a status, or with one of several as in FAILED_AND_CANCELLED; ALL: all."""
        statuses = which.split("_AND_")
        return [row for row in self._rows if row.status in statuses] if which != "ALL" else list(self._rows)

    def queued(self) -> Iterable[Download]:
        """The rows that wait for their turn, first the next. Cheap, however long the list."""
        if not self._queue_is_sorted:
            self._queued = {row.uid: row for row in self._rows if row.status is Status.QUEUED}
            self._queue_is_sorted = True
        return self._queued.values()

    @property
    def is_waiting(self) -> bool:
        return bool(self._queued)

    # -- Changes.

    def new_uid(self) -> int:
        """A number that no row ever had while Blender lives, also before the add-on was disabled."""
        return next(_uids)

    def append(self, row: Download) -> None:
        """Put a record at the end, as it is."""
        self.changes += 1
        self._rows.append(row)
        self._by_uid[row.uid] = row
        self._file(row)
        self.counts[row.status] += 1
        if row.status is Status.QUEUED:
            self._queued[row.uid] = row

    def drop(self, rows: Collection[Download]) -> None:
        self.changes += 1
        for row in rows:
            del self._by_uid[row.uid]
            self._unfile(row)
            self.counts[row.status] -= 1
            self.running.pop(row.uid, None)
            self._queued.pop(row.uid, None)
        if len(rows) == 1:  # most end in their order, and are found at once
            self._rows.remove(*rows)
        elif rows:
            self._rows = [row for row in self._rows if row.uid in self._by_uid]

    def change_folder(self, row: Download, directory: str) -> None:
        """Have a row's file go into another folder; of a row in the list, here and nowhere else."""
        self._unfile(row)
        row.directory = directory
        self._file(row)

    def _file(self, row: Download) -> None:
        self._by_folder.setdefault(_key(row.directory), {})[row.uid] = row

    def _unfile(self, row: Download) -> None:
        within = self._by_folder[_key(row.directory)]
        del within[row.uid]
        if not within:
            del self._by_folder[_key(row.directory)]

    def move(self, row: Download, direction: str, show: str = "ALL") -> None:
        """Move a row in the list, and so in the queue: TOP, UP, DOWN, BOTTOM.

        UP and DOWN are past the next row that has the status `show`.
        """
        self.changes += 1
        old, last = self._rows.index(row), len(self._rows) - 1
        ways = {"UP": range(old - 1, -1, -1), "DOWN": range(old + 1, last + 1)}
        seen = (at for at in ways.get(direction, ()) if show in ("ALL", self._rows[at].status))
        new = {"TOP": 0, "BOTTOM": last}.get(direction, next(seen, old))
        self._rows.insert(new, self._rows.pop(old))
        self._queue_is_sorted = False

    def put(self, row: Download, status: Status) -> None:
        """Change a row's status, here and nowhere else."""
        self.counts[row.status] -= 1
        self.counts[status] += 1
        row.status = status
        self.running.pop(row.uid, None)
        self._queued.pop(row.uid, None)
        if status is Status.RUNNING:
            self.running[row.uid] = row
        else:
            row.speed = row.measured = 0.0
        if status is Status.QUEUED:
            row.error, row.note, row.stays_paused = "", "", False
            if row.progress.text:
                row.progress = row.progress._replace(text="")
            self._queued[row.uid] = row
            self._queue_is_sorted = False
