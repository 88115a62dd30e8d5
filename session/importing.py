"""What happens to a finished file: its assets go into a catalog, and it is imported as soon as Blender is
ready, or its row says why not.

A file that arrives while Blender renders, a tool is at work or a mesh is being edited waits, at most
`PATIENCE`; then its row offers Import instead. No run stays open for that. Main thread.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import bpy

from ..transfer import portable
from ..workers import Download, Status
from . import importers, libraries, watch
from .settings import preferences
from .unpacking import ImportProblem, unpack

if TYPE_CHECKING:
    from .queue import Queue

log = logging.getLogger(__name__)

LOOK = 0.05  # seconds between two looks whether Blender is ready
PATIENCE = 30.0  # seconds that a file waits for it
AT_ONCE = 0.02  # seconds of unpacking between two redraws
GONE = "The file is not there any more. Copy its link and download it again"
ELSEWHERE = "Not imported: another .blend file has been opened since. Press Import to have it in this one"
UNFORESEEN = "Not imported: something unforeseen went wrong. Try File > Import"


@dataclass(slots=True)
class Pending:
    """A finished file that something is to be done with."""

    row: Download
    path: str
    collection: int | None
    """The session's uid of the collection that was active when it was asked for. None: not to be imported."""
    since: float
    """When it could have been imported, in seconds of `time.monotonic`."""
    steps: Generator[str, None, None] | None = None
    """What has to be done before it can be imported; its last one is the path."""

    def stop(self) -> None:
        """Leave no step half done."""
        if self.steps:
            self.steps.close()


class Importing:
    """The files that wait to be imported."""

    def __init__(self, session: Queue) -> None:
        self._session = session
        self._asked: dict[int, int] = {}  # collections, by the uids of rows that were asked for in this file
        self._pending: list[Pending] = []
        self._notes: dict[int, str] = {}  # what rows said before this said more, by their uids
        self._unpacked: dict[tuple[str, int], str] = {}  # folders, by archive and its time
        self._timer = self._look  # one object, by which Blender knows it

    def close(self) -> None:
        """The add-on is being disabled; its rows may outlive that."""
        if bpy.app.timers.is_registered(self._timer):
            bpy.app.timers.unregister(self._timer)
        for pending in list(self._pending):
            self._drop(pending)
            self._say(pending.row, "" if pending.collection is None else ELSEWHERE)

    # -- What is asked for.

    def asked(self, row: Download) -> None:
        """A new row that is to be imported: what it brings goes where things go now."""
        self._asked[row.uid] = _active_collection()

    def finished(self, row: Download) -> None:
        """A row is FINISHED or SKIPPED. Does what was asked for, at once where it can, else soon."""
        collection = self._place_for(row)
        is_catalogued = bool(row.catalog) and row.status is Status.FINISHED
        if not is_catalogued:
            libraries.arrived(row.filepath)
        if collection is None and not is_catalogued:
            return
        steps = self._steps(row, collection is not None) if is_catalogued or _is_archive(row) else None
        self._add(Pending(row, row.filepath, collection, time.monotonic(), steps))
        if not self._session.run:  # a script waits for it
            self._finish()

    def _place_for(self, row: Download) -> int | None:
        """The collection that a row is to be imported into; None: it is not, as the row says."""
        if row.when_done != "IMPORT":
            return None
        collection = self._asked.pop(row.uid, None)
        if not importers.can_import(row.filepath):
            self._say(row, f"Not imported: {importers.no_importer(row.filepath)}")
            return None
        if collection is None:
            self._say(row, ELSEWHERE)
        return collection

    def import_now(self, row: Download) -> str:
        """The user's click: import a row's file, or begin to unpack it. Returns what `bring_in` does.

        :raises ImportProblem: why that cannot be, in a sentence.
        """
        if row.is_unfinished:
            raise ImportProblem("It is not downloaded yet")
        _check_there(row.filepath)
        if not importers.can_import(row.filepath):
            raise ImportProblem(importers.no_importer(row.filepath))
        if obstacle := _obstacle(minds_tools=False):
            raise ImportProblem(f"Not now: {obstacle}")
        for waiting in list(self._pending):
            if waiting.row is row and waiting.collection is not None:
                self._drop(waiting)
        steps = self._steps(row, is_imported=True) if _is_archive(row) else None
        pending = Pending(row, row.filepath, _active_collection(), time.monotonic(), steps)
        self._add(pending)
        if not pending.steps or bpy.app.background:
            self._pending.remove(pending)
            where = self._import(pending)
            self._say(row, "")
            return where
        return ""

    def _add(self, pending: Pending) -> None:
        self._pending.append(pending)
        if not bpy.app.background and not bpy.app.timers.is_registered(self._timer):
            bpy.app.timers.register(self._timer, first_interval=0.0, persistent=True)

    def _steps(self, row: Download, is_imported: bool) -> Generator[str, None, None]:
        """Unpack an archive that is to be imported, and put assets into the catalog that was chosen."""
        path = row.filepath
        _check_there(path)
        if is_imported and _is_archive(row):
            self._say(row, "Unpacking")
            path = yield from self._unpack(path)
        if row.catalog:
            yield from self._catalogue(row, path)
        is_folder = path != row.filepath  # what was unpacked
        libraries.arrived(path, is_folder=is_folder)
        yield importers.pick(path) if is_folder else path

    def _unpack(self, path: str) -> Generator[str, None, str]:
        """Once, however often it is imported. Returns the folder."""
        key = path, os.stat(portable.reach(path)).st_mtime_ns
        if not os.path.isdir(self._unpacked.get(key, "")):
            for folder in unpack(path):
                self._unpacked[key] = folder
                yield ""
        return self._unpacked[key]

    def _catalogue(self, row: Download, path: str) -> Iterator[str]:
        """Where that cannot be, the row says so, and the file stays as it was."""
        self._say(row, f"Putting it into the catalog “{row.catalog}”")
        try:
            for _ in libraries.put_into_catalog(path, row.directory, row.catalog):
                yield ""
        except libraries.CatalogProblem as problem:
            self._note(row, str(problem))
        self._session.file_changed(row)

    # -- What becomes of it.

    def _look(self) -> float | None:
        """Blender drops a timer that raises."""
        try:
            self._step()
        except Exception:
            log.exception("Importing met something unforeseen")
        return LOOK if self._pending else None

    def _step(self) -> None:
        """Go on with the first file, and give up those that have waited for too long."""
        obstacle = _obstacle()
        for pending in list(self._pending):
            if pending.collection is not None and not self._is_listed(pending.row):
                self._drop(pending)
            elif pending.steps:
                self._advance(pending, time.monotonic() + AT_ONCE)
                return
            elif not obstacle:
                self._drop(pending)
                self._try(pending)
                return
            else:
                self._wait(pending, obstacle)

    def _wait(self, pending: Pending, obstacle: str) -> None:
        if time.monotonic() - pending.since < PATIENCE:
            self._say(pending.row, f"Waiting to import: {obstacle}")
        else:
            self._drop(pending)
            self._say(pending.row, f"Not imported: {obstacle}. Press Import when you are ready")

    def _finish(self) -> None:
        """All that can be, now; in background mode nothing comes later."""
        for pending in list(self._pending):
            if pending.collection is None:
                self._advance(pending, math.inf)
                continue
            obstacle = _obstacle()
            if obstacle and not bpy.app.background:
                return
            self._drop(pending, stop=False)
            if obstacle:
                self._say(pending.row, f"Not imported: {obstacle}")
            else:
                self._try(pending)

    def _advance(self, pending: Pending, until: float) -> None:
        with self._told(pending):
            for path in pending.steps or ():
                if path:
                    self._prepared(pending, path)
                if path or time.monotonic() > until:
                    return

    def _prepared(self, pending: Pending, path: str) -> None:
        """All is done that comes before importing it."""
        pending.path, pending.steps, pending.since = path, None, time.monotonic()
        self._say(pending.row, "")
        if pending.collection is None:
            self._drop(pending)

    def _try(self, pending: Pending) -> None:
        with self._told(pending):
            self._import(pending)
            self._say(pending.row, "")

    def _import(self, pending: Pending) -> str:
        chosen = preferences()
        link = chosen is not None and chosen.append_or_link == "LINK"
        try:
            for path in pending.steps or ():
                pending.path = path or pending.path
            _check_there(pending.path)
            with _place(pending.collection or 0) as collection:
                return importers.bring_in(pending.path, collection, link=link)
        except ImportProblem:
            raise
        except Exception as error:  # of an importer, which may be anybody's
            log.exception("An importer met something unforeseen")
            raise ImportProblem(UNFORESEEN) from error

    @contextlib.contextmanager
    def _told(self, pending: Pending) -> Iterator[None]:
        """What goes wrong is the row's note, and the file stays."""
        try:
            yield
        except ImportProblem as problem:
            sentence = str(problem)
        except OSError as error:  # the archive is gone, say
            sentence = f"Not imported: {error.strerror or type(error).__name__}"
        except Exception:  # what waits behind it goes on
            log.exception("Importing met something unforeseen")
            sentence = UNFORESEEN
        else:
            return
        if pending in self._pending:
            self._drop(pending)
        self._say(pending.row, sentence)

    def _drop(self, pending: Pending, *, stop: bool = True) -> None:
        self._pending.remove(pending)
        if stop:
            pending.stop()

    def _say(self, row: Download, more: str) -> None:
        """Add this to what a row says; empty: it says again what it said before."""
        note = self._notes.setdefault(row.uid, row.note)
        if not more:
            del self._notes[row.uid]
        text = ". ".join(filter(None, (note, more)))
        if row.note != text:
            row.note = text
            if self._is_listed(row):
                self._session.changed(row)

    def _note(self, row: Download, more: str) -> None:
        """Have a row say this from now on, too."""
        self._notes[row.uid] = ". ".join(filter(None, (self._notes.get(row.uid, row.note), more)))

    def _is_listed(self, row: Download) -> bool:
        return self._session.rows.find(row.uid) is row

    def opened(self) -> None:
        """Another file is open: nothing lands in one that it was not asked for."""
        self._asked.clear()
        for pending in [waiting for waiting in self._pending if waiting.collection is not None]:
            if pending.row.catalog and pending.steps:  # what becomes of the file itself goes on
                pending.collection = None
                self._note(pending.row, ELSEWHERE)
            else:
                self._drop(pending)
                self._say(pending.row, ELSEWHERE)


def _check_there(path: str) -> None:
    """Somebody may have moved a file while it waited to be imported."""
    if not os.path.isfile(portable.reach(path)):
        raise ImportProblem(GONE)


def _is_archive(row: Download) -> bool:
    return row.filepath.lower().endswith(".zip")


# -- Where, and whether now.


def _obstacle(*, minds_tools: bool = True) -> str:
    """Why nothing can be imported now; empty where it can."""
    if bpy.app.is_job_running("RENDER"):
        return "Blender is rendering"
    if bpy.app.is_job_running("OBJECT_BAKE"):
        return "Blender is baking"
    if minds_tools and watch.strangers_run():
        return "a tool is at work"
    for window in bpy.context.window_manager.windows:
        active = window.view_layer.objects.active
        if active and active.mode != "OBJECT":
            return "this needs Object Mode"
        if window.scene.library:
            return "the scene belongs to another file"
    return ""


def _active_collection() -> int:
    """The session's uid of the collection that new things go into."""
    layer = bpy.context.view_layer
    return layer.active_layer_collection.collection.session_uid if layer else 0


@contextlib.contextmanager
def _place(collection: int) -> Iterator[Any]:
    """The collection with this uid, or what is active where it is gone; its window is the context's."""
    windows = list(bpy.context.window_manager.windows)
    here = [window for window in windows if _in_scene(window.scene, collection)]
    window = (here or windows)[0]
    scene = window.scene
    found = next(filter(None, (_in_scene(each, collection) for each in (scene, *bpy.data.scenes))), None)
    chosen = found or window.view_layer.active_layer_collection.collection
    if chosen.library or chosen.override_library:
        chosen = scene.collection
    with bpy.context.temp_override(**_view(window)):
        yield chosen


def _in_scene(scene: Any, uid: int) -> Any:
    every = (scene.collection, *scene.collection.children_recursive)
    return next((collection for collection in every if collection.session_uid == uid), None)


def _view(window: Any) -> dict[str, Any]:
    """A 3D view of a window, where importers that other people wrote expect to be."""
    for area in window.screen.areas:
        region = next((region for region in area.regions if region.type == "WINDOW"), None)
        if area.type == "VIEW_3D" and region:
            return {"window": window, "area": area, "region": region}
    return {"window": window}
