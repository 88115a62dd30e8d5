"""What a run is, inside Blender. Everything in these rooms is the main thread's.

There is one queue of downloads, from `open_session` (the add-on is enabled) to `close_session` (disabled). It
is made when it is first needed, and what it is made of is imported then: enabling costs nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import bpy

SOON = 0.1  # seconds
OPERATOR = "downloads.start"  # the extension's one modal operator

_operator = OPERATOR
_make: Callable[[], Any] | None = None
_queue: Any = None
_thread = 0  # that Blender's main loop is on, which need not be Python's own


def current() -> Any:
    """The extension's `Session`, or a copy's `Queue`.

    Raises RuntimeError while the add-on is not enabled, and on a thread that a script has started.
    """
    global _queue
    if _make is None:
        raise RuntimeError(f"{__package__.rpartition('.')[0]} is not enabled")
    if _is_scripts_thread():
        raise RuntimeError("This is for Blender's main thread only: have bpy.app.timers call it there")
    if _queue is None:
        from . import watch

        _queue = _make()
        watch.begin()
    return _queue


def _is_scripts_thread() -> bool:
    """Whether Blender knows nothing of the thread that calls; a render's handlers are called on its own."""
    thread = threading.current_thread()
    return thread.ident != _thread and not isinstance(thread, threading._DummyThread)


def peek() -> Any:
    """The same, if there was need of it yet, or None."""
    return _queue


def soon() -> None:
    """Have it made in a moment: somebody looks at where it is asked for, and is not to wait then."""
    if _queue is None and not bpy.app.timers.is_registered(_now):
        bpy.app.timers.register(_now, first_interval=SOON)


def _now() -> None:
    if is_enabled():
        current()


def is_enabled() -> bool:
    """Whether there may be one: a dialog can outlive its add-on."""
    return _make is not None


def operator() -> tuple[str, str]:
    """The two halves of the name of the operator that a run lives in: ``downloads`` and ``start``."""
    category, _, name = _operator.partition(".")
    return category, name


def open_session(make: Callable[[], Any] | None = None, idname: str = OPERATOR) -> None:
    """Allow a queue, by default the extension's list; `Session.open` follows when Blender is ready."""
    global _make, _operator, _thread
    _make, _operator, _thread = make or _session, idname, threading.get_ident()
    with suppress(ValueError):  # not on the main thread: whoever does that minds the signals
        if hasattr(signal, "SIGPIPE"):  # Blender 4.3 leaves it deadly: a write to a dead child would end it
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def _session() -> Any:
    from .session import Session

    return Session()


def close_session() -> None:
    """End it: no thread, child, connection or lock is left."""
    global _make, _queue
    if _queue:
        from . import watch

        watch.end()
        _queue.close()
    _make, _queue = None, None
