"""The user's asset libraries. What lands in one goes into the catalog that was chosen for it,
and shows in the asset browsers that are open. Main thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import bpy

from ..transfer.job import TransferError
from ..workers import ask
from . import settings
from .enabling import Lazy

if TYPE_CHECKING:
    from .catalogs import Catalog

blendfile = Lazy(".blendfile", __package__)
catalogs = Lazy(".catalogs", __package__)

SOON = 0.5  # seconds: files that arrive together are looked at together

_fresh: set[str] = set()  # folders into which something came that may hold assets


def arrived(path: str, *, is_folder: bool = False) -> None:
    """A file, or a folder of them, is there; where it brings assets to a library, browsers show them soon."""
    if bpy.app.background or not (is_folder or path.lower().endswith(".blend")):
        return
    _fresh.add(os.path.dirname(path))
    if not bpy.app.timers.is_registered(refresh):
        bpy.app.timers.register(refresh, first_interval=SOON, persistent=True)


def _are_in_libraries(folders: set[str]) -> bool:
    """Whether one of them lies in an asset library that answers, by whichever name."""
    known = {library.path for library in bpy.context.preferences.filepaths.asset_libraries if library.path}
    real = ask(os.path.realpath, folders | known)
    return any(
        _is_below(real.get(folder, folder), real[library])
        for folder in folders
        for library in known & real.keys()
    )


def library_meant(directory: str) -> str:
    """The one that a field's folder is in, empty being that of the preferences; no disk is asked."""
    chosen = directory or getattr(settings.preferences(), "directory", "")
    return library_folder(os.path.expanduser(bpy.path.abspath(chosen)))


class CatalogProblem(Exception):
    """Why a file was not put into the catalog, in a sentence, and what to do then."""


def put_into_catalog(path: str, directory: str, name: str) -> Iterator[None]:
    """Put the marked assets of a .blend file, or of all in a folder, into a catalog of `directory`'s library.

    Pauses after each few milliseconds. Raises CatalogProblem; the files are as they were then.
    """
    if not (catalog := catalogs_of(directory).get(name)):
        raise _problem(f"this asset library has no catalog “{name}” any more")
    if not (files := _blend_files(path)):
        raise CatalogProblem("Not put into the catalog: only .blend files hold assets")
    has_assets = False
    try:
        for file in files:
            with suppress(blendfile.NoAssetsError):
                yield from blendfile.set_catalog(file, catalog)
                has_assets = True
    except blendfile.UnreadableError as error:
        raise _problem(str(error)) from error
    except OSError as error:
        raise _problem(error.strerror or "the disk reports an error") from error
    if not has_assets:
        raise CatalogProblem("Nothing in it is marked as an asset, so no catalog shows it")


def _problem(why: str) -> CatalogProblem:
    what_then = "Open the file and choose one in the asset browser"
    return CatalogProblem(f"Not put into the catalog: {why}. {what_then}")


def _blend_files(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path] if path.lower().endswith(".blend") else []
    found = (os.path.join(place, name) for place, _, files in os.walk(path) for name in files)
    return sorted(file for file in found if file.lower().endswith(".blend"))


def catalogs_of(directory: str) -> dict[str, Catalog]:
    """The catalogs of the asset library that a folder is in, by their paths; none if its disk is silent."""
    library = library_folder(directory)
    return ask(catalogs.of, [library]).get(library, {}) if library else {}


def offered(directory: str) -> Iterable[str]:
    """The catalogs for what a field says of a folder. Raises nothing."""
    with suppress(TransferError):  # it says no folder
        return catalogs_of(settings.folder(directory))
    return ()


def library_folder(directory: str) -> str:
    """The folder of the asset library that a folder is in, by their names alone; empty where it is in none.

    It looks at no disk: a draw method may ask.
    """
    folder = os.path.normcase(os.path.normpath(directory))
    for library in bpy.context.preferences.filepaths.asset_libraries:
        own = os.path.normcase(os.path.normpath(bpy.path.abspath(library.path))) if library.path else ""
        if own and (folder == own or folder.startswith(os.path.join(own, ""))):
            return str(bpy.path.abspath(library.path))
    return ""


def _is_below(path: str, folder: str) -> bool:
    try:
        return os.path.commonpath((path, folder)) == folder
    except ValueError:  # another drive
        return False


def refresh() -> None:
    """Have every open asset browser look at its library again, if something came into one."""
    browsers, folders = list(_browsers()), set(_fresh)
    _fresh.clear()
    for window, area in browsers if browsers and _are_in_libraries(folders) else ():
        region = next(region for region in area.regions if region.type == "WINDOW")
        with bpy.context.temp_override(window=window, area=area, region=region):
            if bpy.ops.asset.library_refresh.poll():
                bpy.ops.asset.library_refresh()


def _browsers() -> Iterator[tuple[Any, Any]]:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "FILE_BROWSER" and getattr(area.spaces.active, "browse_mode", "") == "ASSETS":
                yield window, area
