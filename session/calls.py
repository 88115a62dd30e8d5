"""Calls back: on the main thread, outside any operator, and not while Blender renders.

So a callback may open a file, remove an operator or start another download. Its errors are its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import Any

import bpy

from .settings import is_rendering

log = logging.getLogger(__name__)

PACE = 0.05  # seconds between two calls


class Calls:
    """What is to be told, soon; nothing once it is closed."""

    def __init__(self) -> None:
        self._pending: dict[Callable[[], None], None] = {}
        self.is_closed = False
        """Whether nobody is called any more."""
        self._timer = self._look  # one object, by which Blender knows it

    def post(self, tell: Callable[[], None]) -> None:
        """Have it called, once however often it is posted until then."""
        if self.is_closed or tell in self._pending:
            return
        self._pending[tell] = None
        if not bpy.app.timers.is_registered(self._timer):
            bpy.app.timers.register(self._timer, first_interval=PACE, persistent=True)

    def _look(self) -> float | None:
        for tell in list(self._pending):  # each may close us, render, or open a file with other windows
            if self.is_closed or is_rendering():
                break
            self._pending.pop(tell, None)
            _call(tell)
        return PACE if self._pending else None

    def close(self) -> None:
        """Nobody is called any more."""
        self.is_closed = True
        self._pending.clear()
        if bpy.app.timers.is_registered(self._timer):
            bpy.app.timers.unregister(self._timer)


def _call(tell: Callable[[], None]) -> None:
    """In the first window, if that can be had; what goes wrong is nobody else's."""
    try:
        with ExitStack() as stack:
            with suppress(Exception):  # a timer has no window, which many operators want
                stack.enter_context(_in_window())
            tell()
    except Exception:
        log.exception("A call back of the downloads met something unforeseen")


def _in_window() -> AbstractContextManager[Any]:
    return bpy.context.temp_override(window=bpy.context.window_manager.windows[0])


def guarded(function: Callable[[Any], object], argument: Any, complained: set[int]) -> None:
    """Call somebody else's function. What it raises is logged, with its traceback the first time."""
    try:
        function(argument)
    except BaseException:  # also SystemExit: Blender would drop the timer
        if id(function) not in complained:
            complained.add(id(function))
            log.exception("A callback of a download raised; the download goes on")
