"""What Blender does around a run: file loads, windows that close, operators that vanish.

Blender tells an operator of a file load, its window's closing and quitting by `cancel()`. It tells
nothing when the operator's class is unregistered or `modal()` raised: a watchdog sees that.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import bpy
from bpy.app.handlers import persistent

from ..workers import Status
from . import calm, current, file_opened, peek

if TYPE_CHECKING:
    from .registering import Registered
    from .session import Session

WATCH_INTERVAL = 0.25  # seconds
MISSED = 0.5  # seconds without a tick after which the watchdog looks for the operator
AGAIN = 0.1  # seconds until an interrupted run starts again: a file load has ended by then
ADOPT_AFTER = 0.3  # seconds after enabling
OPERATOR = "DOWNLOADS_OT_start"


def register(enabled: Registered) -> None:
    """Begin to watch."""
    enabled.handler(bpy.app.handlers.load_pre, _load_pre)
    enabled.handler(bpy.app.handlers.load_post, _load_post)
    enabled.handler(bpy.app.handlers.render_init, _render_init)
    enabled.timer(_watchdog, WATCH_INTERVAL)
    enabled.timer(_adopt, ADOPT_AFTER)
    enabled.undo(bpy.app.timers.unregister, _again)
    enabled.undo(calm.end)


@persistent
def _load_pre(*_: Any) -> None:
    if session := peek():
        session.mirror.remember_fields()


@persistent
def _load_post(*_: Any) -> None:
    if not (session := peek()):
        return
    session.mirror.rebuild()
    session.mirror.restore_fields()
    file_opened()
    if session.tally.goes_on:  # Blender counts anew until it autosaves
        session.tally.began = time.monotonic()


@persistent
def _render_init(*_: Any) -> None:
    """On the render's thread, in an interactive render; ticks see its end, and those that began before us."""
    if session := peek():
        calm.begin()
        session.hold(True)


def _adopt() -> float | None:
    """Take up the lists of Blenders that are gone; in background mode nobody would see them."""
    if bpy.app.background:
        return None
    from ..transfer.job import TransferError
    from .settings import folder, preferences, tokens
    from .store import RETRY

    _ = tokens.hosts  # reads them: what draws may not
    looked_into = []
    with suppress(TransferError):  # beside a .blend file that is not saved yet
        looked_into.append(folder(""))
    if not (session := current()).open(looked_into):
        session.mirror.flush()
        return RETRY
    if getattr(preferences(), "resume_at_start", False) and bpy.app.online_access:
        session.resume_all()
    session.mirror.flush()
    if session.wants_run:
        invoke()
    return None


def _watchdog() -> float:
    """Look now and then; Blender drops a timer that raises, and this one must not be dropped."""
    try:
        if session := peek():
            _look(session)
    except Exception:
        import logging

        logging.getLogger(__name__).exception("The watchdog of the downloads met something unforeseen")
    return WATCH_INTERVAL


def _look(session: Session) -> None:
    """Close a run whose operator Blender has freed without telling; copy and store what no tick does."""
    if not bpy.app.is_job_running("RENDER"):
        calm.end()
    run = session.run
    if run and time.monotonic() - run.beat > MISSED and not operator_lives():
        session.pause_all(run)
    elif session.mirror.is_stale and not run:
        session.mirror.flush()
    if not run:
        session.store.flush(time.monotonic(), None)


def operator_lives() -> bool:
    """Whether some window still has our modal operator."""
    for window in bpy.context.window_manager.windows:
        try:
            if any(operator and operator.bl_idname == OPERATOR for operator in window.modal_operators):
                return True
        except ValueError:  # Blender 4.3, after the class was unregistered
            pass
    return False


def start_again() -> None:
    """Have the QUEUED rows run again soon: Blender took the operator away, not the user."""
    if not bpy.app.timers.is_registered(_again):
        bpy.app.timers.register(_again, first_interval=AGAIN, persistent=True)


def _again() -> float | None:
    if operator_lives() and not current().run:
        return AGAIN
    if current().wants_run:
        invoke()
    return None


def invoke() -> bool:
    """Start a run for the rows that are QUEUED, in the first window. False, and PAUSED, where it cannot."""
    if operator_lives():  # that of a run that was closed just now, maybe before an update: it ends first
        start_again()
        return True
    manager = bpy.context.window_manager
    try:
        with bpy.context.temp_override(window=manager.windows[0]):
            bpy.ops.downloads.start("INVOKE_DEFAULT")
    except (IndexError, RuntimeError):  # no window, or its poll says no: offline
        current().interrupted(Status.PAUSED)
        current().end_tally()
        return False
    return True
