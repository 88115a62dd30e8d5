"""What happens to a finished file: it is imported as soon as Blender is ready, or its row says why not.

A file that arrives while Blender renders, a tool is at work or a mesh is being edited waits, at most
`PATIENCE`; then its row offers Import instead. No run stays open for that. Main thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import bpy

from ..workers import Download
from . import importers, libraries
from .settings import preferences
from .unpacking import ImportProblem, unpack

if TYPE_CHECKING:
    from .session import Session

log = logging.getLogger(__name__)

LOOK = 0.05  # seconds between two looks whether Blender is ready
PATIENCE = 30.0  # seconds that a file waits for it
AT_ONCE = 0.02  # seconds of unpacking between two redraws
OURS = "DOWNLOADS_OT_start"  # the one modal operator that may run
ELSEWHERE = "Not imported: another .blend file has been opened since. Press Import to have it in this one"
UNFORESEEN = "Not imported: something unforeseen went wrong. Try File > Import"


@dataclass(slots=True)
class Pending:
    """A finished file that is to be imported."""

    row: Download
    path: str
    collection: int
    """The session's uid of the collection that was active when it was asked for."""
    since: float
    """When it could have been imported, in seconds of `time.monotonic`."""
    steps: Iterator[str] | None = None
    """Unpacks an archive."""


class Importing:
    """The files that wait to be imported."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._asked: dict[int, int] = {}  # collections, by the uids of rows that were asked for in this file
        self._pending: list[Pending] = []
        self._notes: dict[int, str] = {}  # what rows said before this said more, by their uids
        self._unpacked: dict[tuple[str, int], str] = {}  # folders, by archive and its time
        self._timer = self._look  # one object, by which Blender knows it

    def close(self) -> None:
        """The add-on is being disabled."""
        if bpy.app.timers.is_registered(self._timer):
            bpy.app.timers.unregister(self._timer)
        for pending in self._pending:
            _stop(pending)

    # -- What is asked for.

    def asked(self, row: Download) -> None:
        """A new row: what it brings goes where things go now."""
        if row.when_done == "IMPORT":
            self._asked[row.uid] = _active_collection()

    def finished(self, row: Download) -> None:
        """A row's file is there. Imports it at once where nothing else goes on, else soon."""
        libraries.arrived(row.filepath)
        if row.when_done != "IMPORT":
            return
        collection = self._asked.pop(row.uid, None)
        if not importers.can_import(row.filepath):
            self._say(row, "Not imported: Blender has no importer for this type of file")
        elif collection is None:
            self._say(row, ELSEWHERE)
        else:
            self._add(row, collection)
            if not self._session.run:  # a script waits for it
                self._finish()

    def import_now(self, row: Download) -> None:
        """The user's click: import a row's file, or begin to unpack it.

        :raises ImportProblem: why that cannot be, in a sentence.
        """
        if not os.path.isfile(row.filepath):
            raise ImportProblem("The file is not there any more. Copy its link and download it again")
        if not importers.can_import(row.filepath):
            raise ImportProblem("Blender has no importer for this type of file")
        if obstacle := _obstacle(minds_tools=False):
            raise ImportProblem(f"Not now: {obstacle}")
        for waiting in [waiting for waiting in self._pending if waiting.row is row]:
            self._drop(waiting)
        pending = self._add(row, _active_collection())
        if not pending.steps or bpy.app.background:
            self._pending.remove(pending)
            self._import(pending)
            self._say(row, "")

    def _add(self, row: Download, collection: int) -> Pending:
        pending = Pending(row, row.filepath, collection, time.monotonic())
        if row.filepath.lower().endswith(".zip"):
            pending.steps = self._unpack(row.filepath)
        self._pending.append(pending)
        if not bpy.app.background and not bpy.app.timers.is_registered(self._timer):
            bpy.app.timers.register(self._timer, first_interval=0.0, persistent=True)
        return pending

    def _unpack(self, path: str) -> Iterator[str]:
        """Once, however often it is imported."""
        key = path, os.stat(path).st_mtime_ns
        if not os.path.isdir(self._unpacked.get(key, "")):
            for folder in unpack(path):
                self._unpacked[key] = folder
                yield ""
            libraries.arrived(self._unpacked[key])
        yield importers.pick(self._unpacked[key])

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
            if self._session.rows.find(pending.row.uid) is not pending.row:  # it was removed
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
                    pending.path, pending.steps, pending.since = path, None, time.monotonic()
                if path or time.monotonic() > until:
                    self._say(pending.row, "" if path else "Unpacking")
                    return

    def _try(self, pending: Pending) -> None:
        with self._told(pending):
            self._import(pending)
            self._say(pending.row, "")

    def _import(self, pending: Pending) -> None:
        chosen = preferences()
        link = chosen is not None and chosen.append_or_link == "LINK"
        try:
            for path in pending.steps or ():
                pending.path = path or pending.path
            with _place(pending.collection) as collection:
                importers.bring_in(pending.path, collection, link=link)
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
            sentence = f"Not imported: {error.strerror}"
        else:
            return
        if pending in self._pending:
            self._drop(pending)
        self._say(pending.row, sentence)

    def _drop(self, pending: Pending, *, stop: bool = True) -> None:
        self._pending.remove(pending)
        if stop:
            _stop(pending)

    def _say(self, row: Download, more: str) -> None:
        """Add this to what a row says; empty: it says again what it said before."""
        note = self._notes.setdefault(row.uid, row.note)
        if not more:
            del self._notes[row.uid]
        text = ". ".join(filter(None, (note, more)))
        if row.note != text:
            row.note = text
            self._session.changed(row)

    def opened(self) -> None:
        """Another file is open: nothing lands in one that it was not asked for."""
        self._asked.clear()
        for pending in list(self._pending):
            self._drop(pending)
            self._say(pending.row, ELSEWHERE)


def _stop(pending: Pending) -> None:
    close = getattr(pending.steps, "close", None)
    if close:
        close()


# -- Where, and whether now.


def _obstacle(*, minds_tools: bool = True) -> str:
    """Why nothing can be imported now; empty where it can."""
    if bpy.app.is_job_running("RENDER"):
        return "Blender is rendering"
    if bpy.app.is_job_running("OBJECT_BAKE"):
        return "Blender is baking"
    for window in bpy.context.window_manager.windows:
        if minds_tools and _others_run(window):
            return "a tool is at work"
        active = window.view_layer.objects.active
        if active and active.mode != "OBJECT":
            return "this needs Object Mode"
        if window.scene.library:
            return "the scene belongs to another file"
    return ""


def _others_run(window: Any) -> bool:
    try:
        return any(tool is None or tool.bl_idname != OURS for tool in window.modal_operators)
    except ValueError:  # Blender 4.3, after a class was unregistered
        return True


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
    found = _in_scene(scene, collection) or next(
        filter(None, (_in_scene(other, collection) for other in bpy.data.scenes)), None
    )
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
