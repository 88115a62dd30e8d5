"""What Blender does around a run: file loads, windows that close, operators that vanish.

Blender tells an operator of a file load, its window's closing and quitting by `cancel()`. It tells
nothing when the operator's class is unregistered or `modal()` raised: a watchdog sees that.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import bpy
from bpy.app.handlers import persistent

from . import current, is_enabled, operator, peek
from .enabling import Lazy, Registered

if TYPE_CHECKING:
    from .queue import Queue

calm = Lazy(".calm", __package__)
online = Lazy(".online", __package__)
popup = Lazy(".popup", __package__)
queues = Lazy(".queue", __package__)

NO_WINDOW = "Blender has no window that downloads could run in"
WATCH_INTERVAL = 0.25  # seconds
SOON = 0.05  # seconds after the queue was made
MISSED = 0.5  # seconds without a tick after which the watchdog looks for the operator
AGAIN = 0.1  # seconds until an interrupted run starts again: a file load has ended by then

_watching = Registered()
_before: Queue | None = None  # the queue from before all add-ons were disabled, until the next one has it
_waited = False  # for another copy of the engine, the last time


def begin() -> None:
    """There is a queue now."""
    _watching.handler(bpy.app.handlers.load_pre, _load_pre)
    _watching.handler(bpy.app.handlers.load_post, _load_post)
    _watching.handler(bpy.app.handlers.render_init, _render_init)
    _watching.timer(_begin, SOON)
    _watching.timer(_watchdog, WATCH_INTERVAL)  # after it, also where Blender comes late to both
    _watching.undo(bpy.app.timers.unregister, _again)
    _watching.undo(lambda: calm.end())  # not looked for before


def _begin() -> float | None:
    """Nobody draws now, and no operator is half way."""
    return queue.begin() if (queue := peek()) else None


def end() -> None:
    """It is about to be closed."""
    _watching.close()


# For a file of another template (File > New > Sculpting), or for preferences, Blender disables all add-ons
# and enables them again in the same breath.


def remember() -> None:
    """The add-on is being disabled: if all are, perhaps for that moment only."""
    global _before
    frame = sys._getframe()
    while frame.f_back and frame.f_code.co_name != "disable_all":
        frame = frame.f_back
    _before = peek() if frame.f_back else None
    if _before:
        bpy.app.handlers.load_post.append(_forget)
        bpy.app.timers.register(_tidy, first_interval=0.0, persistent=True)


def before() -> Queue | None:
    """The queue that there was then, which is closed; once."""
    global _before
    found, _before = _before, None
    return found


@persistent
def _forget(*_: Any) -> None:
    """Where the add-on is not enabled again by now, whoever does it does so by hand."""
    global _before
    if not is_enabled():
        _before = None


def _tidy() -> None:
    _forget()
    with suppress(ValueError):
        bpy.app.handlers.load_post.remove(_forget)
    if _before:
        current()


@persistent
def _load_pre(*_: Any) -> None:
    popup.forget()
    if queue := peek():
        queue.file_closing()


@persistent
def _load_post(*_: Any) -> None:
    if not (queue := peek()):
        return
    queue.file_opened()
    if queue.tally.goes_on:  # Blender counts anew until it autosaves
        queue.tally.began = time.monotonic()


@persistent
def _render_init(*_: Any) -> None:
    """On the render's thread, in an interactive render; ticks see its end, and those that began before us."""
    if queue := peek():
        calm.begin()
        queue.hold(True)


def _watchdog() -> float:
    """Look now and then; Blender drops a timer that raises, and this one must not be dropped."""
    try:
        if queue := peek():
            _look(queue)
    except Exception:
        import logging

        logging.getLogger(__name__).exception("The watchdog of the downloads met something unforeseen")
    return WATCH_INTERVAL


def _look(queue: Queue) -> None:
    """Close a run whose operator Blender has freed without telling; show and keep what no tick does."""
    if not bpy.app.is_job_running("RENDER"):
        calm.end()
    run = queue.run
    if run and time.monotonic() - run.beat > MISSED and not operator_lives():
        queue.pause_all(run)
    if not run:
        queue.rest(time.monotonic())


def operator_lives(*others: str) -> bool:
    """Whether some window still has our modal operator, or another one, whose file browser is open."""
    return not {_ours(), *others}.isdisjoint(_modal_operators())


def _ours() -> str:
    category, name = operator()
    return f"{category.upper()}_OT_{name}"


def _modal_operators() -> Iterator[str]:
    """The names of the classes of all that run; empty where the class was unregistered meanwhile."""
    for window in bpy.context.window_manager.windows:
        try:
            yield from (running.bl_idname if running else "" for running in window.modal_operators)
        except ValueError:  # Blender 4.3's word for it
            yield ""


# Other add-ons may have a copy of this engine; all have to be away at once for Blender to autosave.


def copies() -> list[Any]:
    """The operators of other copies that run."""
    return [cls for cls in _others() if hasattr(cls, "step_aside")]


def strangers_run() -> bool:
    """Whether somebody else's modal operator runs, which does not step aside."""
    return not all(hasattr(cls, "step_aside") for cls in _others())


def _others() -> list[Any]:
    return [getattr(bpy.types, name, None) for name in _modal_operators() if name != _ours()]


def start_again() -> None:
    """Have the QUEUED rows run again soon: Blender took the operator away, not the user."""
    if not bpy.app.timers.is_registered(_again):
        bpy.app.timers.register(_again, first_interval=AGAIN, persistent=True)


def _again() -> float | None:
    global _waited
    if operator_lives() and not current().run:
        return AGAIN
    waited, _waited = _waited, any(copy.is_stepping_aside() for copy in copies())
    if waited or _waited or not _is_ready():  # it gets a gap of its own after the last of them has gone
        return AGAIN
    if current().wants_run:
        invoke()
    return None


def _is_ready() -> bool:
    """Whether our operator is there, and may be called: not while Blender enables add-ons at its start."""
    registered = getattr(bpy.types, _ours(), None)
    return hasattr(bpy.context, "temp_override") and not getattr(registered, "lingers", True)


def invoke() -> str:
    """Start a run for the rows that are QUEUED, in the first window; in `register` a moment later.

    Returns why it cannot, and they are given up; empty where it can.
    """
    if not _is_ready() or operator_lives():  # that of a run that was closed just now: it ends first
        start_again()
        return ""
    manager = bpy.context.window_manager
    try:
        with bpy.context.temp_override(window=manager.windows[0]):
            category, name = operator()
            getattr(getattr(bpy.ops, category), name)("INVOKE_DEFAULT")
    except (IndexError, RuntimeError):  # no window, its poll says no, or a defect, which Blender has printed
        is_defect = manager.windows and not bpy.app.background
        why = online.offline_reason() or (queues.UNFORESEEN if is_defect else NO_WINDOW)
        current().give_up(why)
        return why
    return ""
