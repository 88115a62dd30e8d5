"""The dialog that is open: whether Blender still has it, and how it is drawn anew meanwhile.

Blender draws a dialog once, and again when one of its fields is changed; of its end it does not always tell.
Only while it is drawn does it give the region, which stands in a screen for as long as the dialog is open.
"""

from __future__ import annotations

from typing import Any

import bpy

_open: list[Any] = []  # the window and the region of the last dialog that was drawn


def drawn(context: Any) -> None:
    """Remember which dialog is being drawn."""
    if context.region_popup:
        _open[:] = context.window, context.region_popup


def is_open() -> bool:
    """Whether it is still there: Blender compares addresses, and looks at nothing behind them."""
    if not _open:
        return False
    window, region = _open
    try:
        with bpy.context.temp_override(window=window, region=region):
            return True
    except (TypeError, ReferenceError):
        _open.clear()
        return False


def draw_again() -> None:
    """Have its draw method called again, if it is there; what somebody types into a field stays."""
    if is_open():
        _open[1].tag_redraw()
        _open[1].tag_refresh_ui()
