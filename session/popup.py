"""The dialog that is open: whether Blender still has it, and how it is drawn anew meanwhile.

Blender draws a dialog once, and again when one of its fields is changed; of its end it does not always tell.
Only while it is drawn does it give the region, which stands in a screen for as long as the dialog is open.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import bpy

_open: dict[int, tuple[Any, tuple[int, int]]] = {}
"""Of each dialog that was drawn: its region, by its address, and where its window and screen are."""


def drawn(context: Any) -> None:
    """Remember which dialog is being drawn."""
    if region := context.region_popup:
        _open[region.as_pointer()] = region, _places(context.window)


def forget() -> None:
    """Blender opens a file: what there was is not there any more, and must not be looked at."""
    _open.clear()


def is_open() -> bool:
    """Whether one is still there, in any window."""
    return bool(_there())


def draw_again() -> None:
    """Have the draw method called again, where one is there; what somebody types into a field stays."""
    for region in _there():
        region.tag_redraw()
        region.tag_refresh_ui()


def _there() -> list[Any]:
    """The regions of those that are; the others are forgotten."""
    for address, (region, places) in list(_open.items()):
        if not _is_there(region, places):
            del _open[address]
    return [region for region, _ in _open.values()]


def _is_there(region: Any, places: tuple[int, int]) -> bool:
    """Blender compares addresses, if the screen that the region is of lives."""
    for window in bpy.context.window_manager.windows:
        if _places(window) == places:
            if not hasattr(bpy.context, "temp_override"):  # Blender enables an add-on: it is looked at later
                return True
            with suppress(TypeError), bpy.context.temp_override(window=window, region=region):
                return True
    return False


def _places(window: Any) -> tuple[int, int]:
    return window.as_pointer(), window.screen.as_pointer()
