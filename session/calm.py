"""Keeps Blender 4's Python able to write while panels are drawn beside a render.

Blender remembers in one place for all threads whether scripts may write to its data, and puts back what
it found there: a render that calls Python while a panel is being drawn finds "no", and leaves it for
good. So while it renders no thread is given Python in the middle of another's work.
"""

from __future__ import annotations

import sys

import bpy

NEEDS_CALM = bpy.app.version < (5, 2, 0)  # seen in 4.3, at render 93 with a plain panel; not in 5.2
INTERVAL = 0.2  # seconds that a thread waits before it interrupts another: longer than a panel is drawn

_usual: float | None = None


def begin() -> None:
    """A render begins. Any thread."""
    global _usual
    if NEEDS_CALM and _usual is None and sys.getswitchinterval() != INTERVAL:  # else another copy keeps it
        _usual = sys.getswitchinterval()
        sys.setswitchinterval(INTERVAL)


def end() -> None:
    """It is over. Any thread."""
    global _usual
    if _usual is not None:
        sys.setswitchinterval(_usual)
        _usual = None
