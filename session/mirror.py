"""Copies what changed to `window_manager.downloads`, for scripts and for the panel.

It is a copy: nothing here is read back, so undo, file loads and scripts cannot spoil the list.
WindowManager properties are not saved into .blend files and not rolled back by undo; a file load
drops them, so the copy is made anew after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import bpy

from ..workers import Download
from .redraws import Redraws
from .state import state_of
from .words import Pace

if TYPE_CHECKING:
    from .rows import Rows
    from .tally import Tally

AT_ONCE = 1000  # rows added, and as many that changed, that whoever asks for it has copied at once
IN_A_TICK = 200  # likewise in each tick, so that 10,000 do not hold the window up: some 3 ms
GAP = 100  # places that it is cheaper to pass over than to begin anew: to find a place takes a walk to it
MOVES = 4  # ticks until how far rows are is copied again: ten times a second, as often as it is drawn
FAR = 5  # rows that a list shows
SHOWN = 1 << 30  # `UIList.bitflag_filter_item`


class Mirror:
    """The one writer of `window_manager.downloads.items`."""

    def __init__(self, rows: Rows, tally: Tally) -> None:
        self._rows = rows
        self._index: dict[int, int] = {}  # of each uid in `items`
        self._changed: set[int] = set()
        self._moved: set[int] = set()  # likewise, of those of which only the progress changed
        self._ticks = 0  # since that was copied
        self._is_ordered = False  # rows may be there from before the add-on was disabled
        self._redraws = Redraws(rows, tally)
        self._active = 0  # the uid of the active row
        self._next_active = 0  # the uid of the row that is to be active once it is copied
        self._followed = 0  # the uid of the row that became active by itself: nobody chose another
        self._flags: tuple[object, list[int]] = (None, [])  # what a list shows, and when
        self.is_stale = True
        """Something visible changed and is not copied or drawn yet."""

    def touch(self, uid: int) -> None:
        """A row has changed."""
        self._changed.add(uid)
        self.is_stale = True

    def touch_progress(self, uid: int) -> None:
        """A row that runs has got on."""
        self._moved.add(uid)
        self.is_stale = True

    def reorder(self) -> None:
        """Rows were moved or removed."""
        self._is_ordered = False
        self.is_stale = True

    def drop(self, uid: int) -> None:
        """One row was removed; cheaper than `reorder`."""
        state = state_of(bpy.context)
        if (index := self._place(state, uid)) is None:
            self.reorder()
            return
        state.items.remove(index)
        self._reindex(state)
        if index < state.active_index or state.active_index >= len(state.items):
            state.active_index = max(0, state.active_index - 1)

    def move(self, uid: int, to: int) -> None:
        """One row was moved; cheaper than `reorder`. It stays active if it was."""
        state = state_of(bpy.context)
        if (index := self._place(state, uid)) is None or to >= len(state.items):
            self.reorder()
            return
        active = _uid_at(state, state.active_index)
        state.items.move(index, to)
        self._reindex(state)
        state.active_index = self._index.get(active, 0)

    def row(self, state: Any, index: int) -> Download | None:
        """The row whose copy is there. To look at one of thousands of copies takes a walk to it."""
        row = self._rows.at(index)
        return row if row and self._place(state, row.uid) == index else self._rows.find(_uid_at(state, index))

    def _place(self, state: Any, uid: int) -> int | None:
        """Where the copy of a row is, as far as that is known: a script may have changed the copies."""
        is_known = state and self._is_ordered and len(state.items) == len(self._index)
        return self._index.get(uid) if is_known else None

    def _reindex(self, state: Any) -> None:
        rows = self._rows.part(0, len(state.items))
        self._index = {row.uid: index for index, row in enumerate(rows)}
        self.is_stale = True

    @property
    def pace(self) -> Pace | None:
        """How far the run is; None while none goes on."""
        return self._redraws.pace

    def tick(self) -> None:
        """`flush` for whoever does it all the time."""
        self._ticks = (self._ticks + 1) % MOVES
        self.flush(IN_A_TICK, is_asked=False)

    def flush(self, most: int | None = AT_ONCE, *, is_asked: bool = True) -> None:
        """Copy what changed, of `most` rows or all, and have it drawn. Cheap when nothing did.

        `is_asked`: somebody did something just now, and waits to see it.
        """
        if not (self.is_stale or self._redraws.is_over) or not (state := state_of(bpy.context)):
            return
        if not self._is_ordered or len(state.items) != len(self._index):  # a script may have changed it
            self._rebuild(state)
        if is_asked or not self._ticks:
            self._changed |= self._moved
            self._moved.clear()
        self._copy_changed(state, most)
        self._append(state, most)
        self._keep_in_sight(state)
        self.is_stale = not self._redraws.draw(is_asked=is_asked) or self.is_stale

    def clear(self) -> None:
        """Disabled: Blender would show the copy again, as it is, once the add-on is enabled again."""
        self._redraws.close()
        if state := state_of(bpy.context):
            state.items.clear()

    def remember(self) -> None:
        """A file load is about to drop the copy."""
        if state := state_of(bpy.context):
            self._active = _uid_at(state, state.active_index)

    def rebuild(self) -> None:
        """Make the copy anew: a file load has dropped it. The same row is active as before."""
        self.reorder()
        self.flush(None)
        if state := state_of(bpy.context):
            state.active_index = self._index.get(self._active, 0)

    def _rebuild(self, state: Any) -> None:
        """Have all rows written anew, in their order, over what is there; the active row stays active."""
        active = _uid_at(state, state.active_index)
        if len(state.items) > len(self._rows) + AT_ONCE:
            state.items.clear()
        while len(state.items) > len(self._rows):
            state.items.remove(len(state.items) - 1)
        self._reindex(state)
        self._changed.update(self._index)
        self._is_ordered = True
        last = max(0, len(self._rows) - 1)
        if (row := self._rows.find(active)) and active not in self._index:
            self.activate(row)
        state.active_index = self._index.get(active, min(state.active_index, last))

    def _copy_changed(self, state: Any, most: int | None) -> None:
        """Copy rows that changed, the first ones first."""
        places = sorted(self._index[uid] for uid in self._changed if uid in self._index)
        now = places[:most]
        for begin, end in _stretches(now):
            for row, item in zip(self._rows.part(begin, end), state.items[begin:end], strict=False):
                if row.uid in self._changed:
                    _copy(row, item)
        self._changed = {row.uid for place in places[len(now) :] if (row := self._rows.at(place))}

    def _append(self, state: Any, most: int | None) -> None:
        """Add the rows that the copy does not have yet: they are the last ones."""
        have = len(self._index)
        rows = self._rows.part(have, None if most is None else have + most)
        for row in rows:
            self._index[row.uid] = len(state.items)
            _fill(state.items.add(), row)
        self.is_stale = bool(self._changed or self._moved) or len(self._index) < len(self._rows)

    # -- What the list shows.

    def activate(self, row: Download) -> None:
        """Make a row the active one as soon as it is copied: it was added just now."""
        self._next_active = row.uid

    def _keep_in_sight(self, state: Any) -> None:
        """Make active what was added, and then what runs once that is far from it, till somebody chooses."""
        if (index := self._index.get(self._next_active)) is not None:
            self._make_active(state, index)
            if state.show == "FAILED":
                state.show = "ALL"
            return
        active = state.active_index
        row = self._rows.find(self._followed)
        if not row or row.is_unfinished or _uid_at(state, active) != row.uid:
            return
        running = min((self._index[uid] for uid in self._rows.running if uid in self._index), default=active)
        if running - active >= FAR:
            self._make_active(state, running)

    def _make_active(self, state: Any, index: int) -> None:
        state.active_index = index
        self._followed = _uid_at(state, index)
        self._next_active = 0

    def shown(self, show: str) -> list[int]:
        """A flag for each row, as `UIList.filter_items` returns them; empty: all are shown."""
        if show == "ALL":
            return []
        key = show, self._rows.changes, len(self._index)
        if self._flags[0] != key:
            rows = self._rows.part(0, len(self._index))
            self._flags = key, [SHOWN * (row.status == show) for row in rows]
        return self._flags[1]


def _stretches(places: list[int]) -> Iterator[tuple[int, int]]:
    """Where places that lie close together begin and end."""
    begin = 0
    for index, place in enumerate(places, 1):
        if index == len(places) or places[index] - place > GAP:
            yield places[begin], place + 1
            begin = index


def _uid_at(state: Any, index: int) -> int:
    return state.items[index].uid if 0 <= index < len(state.items) else 0


def _fill(item: Any, row: Download) -> None:
    """Write a row into a copy that is new."""
    for name, value in _values(row).items():
        if value != _NEW[name]:
            setattr(item, name, value)


def _copy(row: Download, item: Any) -> None:
    """Write a row into its copy; only what differs, since each write makes Blender look."""
    for name, value in _values(row).items():
        if getattr(item, name) != value:
            setattr(item, name, value)


_NEW = {"uid": 0, "name": "", "filepath": "", "status": "QUEUED", "error": "", "note": "", "progress": 0.0}
"""What a new copy says."""


def _values(row: Download) -> dict[str, object]:
    """What a copy says of a row; its link is not copied."""
    return {
        "uid": row.uid,
        "name": row.name,
        "filepath": row.filepath,
        "status": row.status.value,
        "error": row.error,
        "note": row.note,
        "progress": row.fraction,
    }
