"""Enabling the add-on costs next to nothing, and what it did is taken back in reverse.

A module more that it imports takes a tenth of a millisecond, a class to register 0.07 (Blender looks for its
properties in all that it inherits), and 0.08 more where one of its annotations is a text, which is compiled.
"""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import bpy


class Lazy:
    """Stands for a module of ours until it is used; `Lazy(".words", __package__).size` imports it.

    It is kept: an operator can outlive its add-on, and once that is uninstalled nothing can be imported.
    """

    def __init__(self, name: str, package: str | None) -> None:
        self._name = importlib.util.resolve_name(name, package)
        self._module: Any = None

    def __getattr__(self, attribute: str) -> Any:
        self._module = self._module or importlib.import_module(self._name)
        return getattr(self._module, attribute)


@contextmanager
def uncollected() -> Iterator[None]:
    """What is made meanwhile stays, and is no reason to look for garbage among all that Blender has made.

    That takes 6 ms in Blender 5.2 and 40 in 4.5, where it falls into the enabling by chance; to look at
    what is new alone takes 1.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # else somebody else keeps what is frozen
            gc.freeze()  # all that is new
            gc.unfreeze()  # is old now, without a look at it
        if was_enabled:
            gc.enable()


class Registered(ExitStack):
    """Blender's names that are ours; closing it gives them back, once, as often as it is closed."""

    def classes(self, *classes: type) -> None:
        """Register classes, in this order."""
        for cls in classes:
            bpy.utils.register_class(cls)
            self.undo(bpy.utils.unregister_class, cls)

    def handler(self, handlers: Any, function: Callable[..., None]) -> None:
        """Add to one of Blender's lists of handlers, or draw in one of its menus or headers too."""
        handlers.append(function)
        self.undo(handlers.remove, function)

    def timer(self, function: Callable[[], float | None], first_interval: float) -> None:
        """Have it called now and then, over file loads too."""
        bpy.app.timers.register(function, first_interval=first_interval, persistent=True)
        self.undo(bpy.app.timers.unregister, function)

    def undo(self, function: Callable[..., None], *args: Any) -> None:
        """Call it at the end; it may find that a script or another copy of the extension was there before."""
        self.callback(_quietly, function, *args)


def _quietly(function: Callable[..., None], *args: Any) -> None:
    with suppress(RuntimeError, ValueError, AttributeError):
        function(*args)
