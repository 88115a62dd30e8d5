"""What `window_manager.downloads.items` is: the list, for scripts and for the panel.

An item holds the number of its row, and reads the rest there when it is asked: see `state`. Nothing is
read back, so undo, file loads and scripts cannot spoil the list. WindowManager properties are not saved into
.blend files and not rolled back by undo; a file load drops them, so the items are made anew after it.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, Any

import bpy

from ..workers import Download
from .redraws import Redraws
from .state import state_of
from .words import Pace

if TYPE_CHECKING:
    from .rows import Rows
    from .tally import Tally

FEW = 100  # items that are taken out one by one, 60 us each; more are made anew, 2 us each
FAR = 5  # rows that a list shows
SHOWN = 1 << 30  # `UIList.bitflag_filter_item`


class Mirror:
    """The one writer of `window_manager.downloads.items`."""

    def __init__(self, rows: Rows, tally: Tally) -> None:
        self._rows = rows
        self._count = 0  # rows that have an item
        self._is_ordered = False  # items may be there from before the add-on was disabled
        self._redraws = Redraws(rows, tally)
        self._active = 0  # the uid of the active row
        self._next_active = 0  # the uid of the row that is to be active once it has an item
        self._followed = 0  # the uid of the row that became active by itself: nobody chose another
        self._flags: tuple[object, list[int]] = (None, [])  # what a list shows, and when
        self.is_stale = True
        """Something visible changed and is not drawn yet."""

    def touch(self) -> None:
        """A row has changed, or is new."""
        self.is_stale = True

    def reorder(self) -> None:
        """Rows were moved or removed."""
        self._is_ordered = False
        self.is_stale = True

    def row(self, state: Any, index: int) -> Download | None:
        """The row whose item is there. To look at one of thousands of items takes a walk to it."""
        return self._rows.at(index) if self._is_true(state) else self._rows.find(_uid_at(state, index))

    def _is_true(self, state: Any) -> bool:
        """Whether each item is where its row is, as far as that is known: a script may have changed them."""
        return self._is_ordered and len(state.items) == self._count

    @property
    def pace(self) -> Pace | None:
        """How far the run is; None while none goes on."""
        return self._redraws.pace

    def flush(self, *, is_asked: bool = True) -> None:
        """Have an item for each row, and all drawn. Cheap when nothing changed.

        `is_asked`: somebody did something just now, and waits to see it.
        """
        if not (self.is_stale or self._redraws.is_over) or not (state := state_of(bpy.context)):
            return
        if not self._is_true(state):
            self._rebuild(state)
        for row in self._rows.since(self._count):
            state.items.add().uid = row.uid
        self._count = len(self._rows)
        self._activate(state)
        self.is_stale = not self._redraws.draw(is_asked=is_asked)
        if not self.is_stale:
            self._follow(state)

    def _rebuild(self, state: Any) -> None:
        """Have an item for each row, in their order, over what is there; the active row stays active."""
        active, items = _uid_at(state, state.active_index), state.items
        if len(items) > len(self._rows) + FEW:
            items.clear()
        while len(items) > len(self._rows):
            items.remove(len(items) - 1)
        while len(items) < len(self._rows):
            items.add()
        items.foreach_set("uid", [row.uid for row in self._rows])
        self._count, self._is_ordered = len(items), True
        last = max(0, len(items) - 1)
        place = self._rows.place(active)
        state.active_index = min(state.active_index, last) if place is None else place

    def clear(self) -> None:
        """Disabled: Blender would show the items again, as they are, once the add-on is enabled again."""
        self._redraws.close()
        if state := state_of(bpy.context):
            state.items.clear()

    def remember(self) -> None:
        """A file load is about to drop the items."""
        if state := state_of(bpy.context):
            self._active = _uid_at(state, state.active_index)

    def rebuild(self) -> None:
        """Make the items anew: a file load has dropped them. The same row is active as before."""
        self.reorder()
        self.flush()
        if state := state_of(bpy.context):
            state.active_index = self._rows.place(self._active) or 0

    # -- What the list shows.

    def activate(self, row: Download) -> None:
        """Make a row the active one as soon as it has an item: it was added just now."""
        self._next_active = row.uid

    def _activate(self, state: Any) -> None:
        if (place := self._rows.place(self._next_active)) is not None:
            self._make_active(state, place)
            if state.show == "FAILED":
                state.show = "ALL"

    def _follow(self, state: Any) -> None:
        """Once what was made active has ended, do so with what runs far from it, till somebody chooses."""
        row, active = self._rows.find(self._followed), state.active_index
        if not row or row.is_unfinished or self.row(state, active) is not row:
            return
        place = self._rows.place(next(iter(self._rows.running), 0))
        if place is not None and place - active >= FAR:
            self._make_active(state, place)

    def _make_active(self, state: Any, place: int) -> None:
        state.active_index = place
        self._followed = _uid_at(state, place)
        self._next_active = 0

    def shown(self, show: str, search: str = "") -> list[int]:
        """A flag for each row, as `UIList.filter_items` returns them; empty: all are shown.

        `search`: as Blender's own lists have it, a part of a name, which may hold * and ?.
        """
        if show == "ALL" and not search:
            return []
        key = show, search, self._rows.changes
        if self._flags[0] != key:
            found = re.compile(fnmatch.translate(f"*{search}*"), re.IGNORECASE).match
            self._flags = key, [
                SHOWN * (show in ("ALL", row.status) and (not search or found(row.name) is not None))
                for row in self._rows
            ]
        return self._flags[1]


def _uid_at(state: Any, index: int) -> int:
    return state.items[index].uid if 0 <= index < len(state.items) else 0
