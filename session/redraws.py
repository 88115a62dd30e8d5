"""When what shows downloads is drawn: only where it changed, and as often as drawing is cheap."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import bpy

from .settings import is_rendering
from .tally import is_held_up
from .words import Pace, pace

if TYPE_CHECKING:
    from .rows import Rows
    from .tally import Tally

REDRAWS = 0.1  # seconds between two redraws, at least
REDRAW_SHARE = 200  # times as long as a redraw takes is the pause after it: on a slow screen it takes long
SLOWEST = 5.0  # seconds between two redraws, at most: less than one in a hundred of somebody's ticks is late
SOON = 0.25  # seconds after somebody did something, when what came of it is drawn, however long that takes
RENDER_REDRAWS = 1.0  # likewise while Blender renders: see `calm`
STATUS_REDRAWS = 0.5  # seconds between two of the status bar: the Properties editor is drawn with it


class Redraws:
    """Paces redraws by what one takes here: Blender goes through its timers before it and right after it."""

    def __init__(self, rows: Rows, tally: Tally) -> None:
        self._rows = rows
        self._tally = tally
        self._drawn_at = 0.0
        self._asked_at = 0.0
        self._cost = 0.0  # seconds that a redraw takes
        self._learning = self._learn  # one object, by which Blender knows it
        self._is_before = False  # Blender has not gone through its timers since
        self._paced = 0.0
        self._said: Pace | None = None  # in the status bar; None while no run goes on

    @property
    def is_over(self) -> bool:
        """Whether the status bar still tells of a run that has ended."""
        return self._said is not None and not self._tally.goes_on

    @property
    def pace(self) -> Pace | None:
        """How far the run is just now: who draws that is never behind the list. None while none goes on."""
        return self._now() if self._said else None

    def _now(self) -> Pace:
        return pace(self._tally, self._rows.counts, self._rows.running.values())

    def draw(self, *, is_asked: bool) -> bool:
        """Have all drawn that shows downloads. False: it is not the time for it yet.

        `is_asked`: somebody waits to see what came of what he did.
        """
        now = time.monotonic()
        if is_asked:
            self._asked_at = now
        is_due = now - self._drawn_at >= (REDRAWS if is_asked else self._pause(now))
        if is_due and is_rendering():  # to ask takes as long as all else here
            is_due = now - self._drawn_at >= RENDER_REDRAWS
        self._draw_pace(now, is_due=is_due)  # together with the list: one redraw is cheaper than two
        if not is_due:
            return False
        self._drawn_at = now
        tag_redraw()
        self._is_before = True
        if not (bpy.app.background or bpy.app.timers.is_registered(self._learning)):
            bpy.app.timers.register(self._learning)
        return True

    def close(self) -> None:
        """Nothing of it is drawn any more."""
        if bpy.app.timers.is_registered(self._learning):
            bpy.app.timers.unregister(self._learning)

    def _learn(self) -> float | None:
        """What a redraw has taken, once Blender comes here for the second time after it was asked for."""
        if self._is_before:
            self._is_before = False
            return 0.0
        cost = min(time.monotonic() - self._drawn_at, SLOWEST / REDRAW_SHARE)
        self._cost += (cost - self._cost) / 2
        return None

    def _pause(self, now: float) -> float:
        """Seconds that are to be between two redraws of a run."""
        if self._drawn_at < self._asked_at + SOON <= now:
            return 0.0
        return max(REDRAWS, REDRAW_SHARE * self._cost)

    def _draw_pace(self, now: float, *, is_due: bool) -> None:
        """Have the status bar drawn anew: soon where a run begins or ends, else when its time has come."""
        tally, rows = self._tally, self._rows
        is_due = is_due and now - self._paced >= STATUS_REDRAWS
        if tally.goes_on == bool(self._said) and not is_due:
            return
        if self._said:
            running = rows.running.values()
            is_held = bool(running) and all(is_held_up(row.progress) for row in running)
            tally.measure(now - self._paced, is_held=is_held)
        self._paced = now
        said, self._said = self._said, self._now() if tally.goes_on else None
        if self._said != said:
            tag_status_bar()


def tag_redraw() -> None:
    """Have the regions drawn that show downloads, and no others."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                _tag_sidebar(area)


def tag_status_bar() -> None:
    """Have the status bar drawn: it is in no screen's areas, but listens for the names of view layers."""
    bpy.msgbus.publish_rna(key=(bpy.types.ViewLayer, "name"))


def _tag_sidebar(area: Any) -> None:
    if not area.spaces.active.show_region_ui:
        return
    for region in area.regions:
        if region.type == "UI" and getattr(region, "active_panel_category", "Downloads") == "Downloads":
            region.tag_redraw()
