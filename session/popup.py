"""The dialog that is open: whether Blender still has it, and how it is drawn anew meanwhile.

Blender draws a dialog once, and again when one of its fields is changed; of its end it does not always tell.
Only while it is drawn does it give the region, which stands in a screen for as long as the dialog is open.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import bpy

_open: list[Any] = []  # of the last dialog that was drawn: its region, and where its window and screen are


def drawn(context: Any) -> None:
    """Remember which dialog is being drawn."""
    if context.region_popup:
        _open[:] = context.region_popup, _places(context.window)


def forget() -> None:
    """Blender opens a file: what there was is not there any more, and must not be looked at."""
    _open.clear()


def is_open() -> bool:
    """Whether it is still there: Blender compares addresses, if the screen that the region is of lives."""
    for window in bpy.context.window_manager.windows if _open else ():
        if _places(window) == _open[1]:
            with suppress(TypeError), bpy.context.temp_override(window=window, region=_open[0]):
                return True
    _open.clear()
    return False


def _places(window: Any) -> tuple[int, int]:
    return window.as_pointer(), window.screen.as_pointer()


def draw_again() -> None:
    """Have its draw method called again, if it is there; what somebody types into a field stays."""
    if is_open():
        _open[0].tag_redraw()
        _open[0].tag_refresh_ui()
