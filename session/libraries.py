"""The user's asset libraries: what lands in one shows in the asset browsers that are open. Main thread."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import bpy

SOON = 0.5  # seconds: files that arrive together are looked at together


def arrived(path: str) -> None:
    """A file, or a folder of them, is there; where it brings assets to a library, browsers show them soon."""
    may_hold_assets = path.lower().endswith(".blend") or os.path.isdir(path)
    if bpy.app.background or not may_hold_assets or not library_of(path):
        return
    if not bpy.app.timers.is_registered(refresh):
        bpy.app.timers.register(refresh, first_interval=SOON, persistent=True)


def library_of(path: str) -> Any:
    """The asset library that a path lies in, or None."""
    for library in bpy.context.preferences.filepaths.asset_libraries:
        if library.path and _is_below(path, library.path):
            return library
    return None


def _is_below(path: str, folder: str) -> bool:
    try:
        return os.path.commonpath((os.path.realpath(path), os.path.realpath(folder))) == os.path.realpath(
            folder
        )
    except ValueError:  # another drive
        return False


def refresh() -> None:
    """Have every open asset browser look at its library again."""
    for window, area in _browsers():
        region = next(region for region in area.regions if region.type == "WINDOW")
        with bpy.context.temp_override(window=window, area=area, region=region):
            if bpy.ops.asset.library_refresh.poll():
                bpy.ops.asset.library_refresh()


def _browsers() -> Iterator[tuple[Any, Any]]:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "FILE_BROWSER" and getattr(area.spaces.active, "browse_mode", "") == "ASSETS":
                yield window, area
