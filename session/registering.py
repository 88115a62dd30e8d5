"""What enabling did is taken back in reverse, whatever of it somebody else has taken back before."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import bpy


class Registered(ExitStack):
    """Blender's names that are ours; closing it gives them back, once, as often as it is closed."""

    def classes(self, *classes: type) -> None:
        """Register classes, in this order."""
        for cls in classes:
            bpy.utils.register_class(cls)
            self.undo(bpy.utils.unregister_class, cls)

    def handler(self, handlers: list[Any], function: Callable[..., None]) -> None:
        """Add to one of Blender's lists of handlers."""
        handlers.append(function)
        self.undo(handlers.remove, function)

    def drawing(self, where: Any, draw: Callable[..., None]) -> None:
        """Draw in one of Blender's menus or headers too."""
        where.append(draw)
        self.undo(where.remove, draw)

    def timer(self, function: Callable[[], float | None], first_interval: float) -> None:
        """Have it called now and then, over file loads too."""
        bpy.app.timers.register(function, first_interval=first_interval, persistent=True)
        self.undo(bpy.app.timers.unregister, function)

    def command(self, name: str, run: Callable[[list[str]], int]) -> None:
        """Have `blender --command NAME …` call it with what follows; it returns the exit code."""
        self.undo(bpy.utils.unregister_cli_command, bpy.utils.register_cli_command(name, run))

    def undo(self, function: Callable[..., None], *args: Any) -> None:
        """Call it at the end; it may find that a script or another copy of the extension was there before."""
        self.callback(_quietly, function, *args)


def _quietly(function: Callable[..., None], *args: Any) -> None:
    with suppress(RuntimeError, ValueError, AttributeError):
        function(*args)
