"""Background Downloads: files come down from the network while Blender stays usable."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import suppress

import bpy

from .session.enabling import Lazy, Registered, uncollected

with uncollected():
    from . import operators, session, ui
    from .session import state

adopting = Lazy(".session.adopting", __package__)
watch = Lazy(".session.watch", __package__)

LOOK_AFTER = 0.3  # seconds after enabling

_enabled: Registered | None = None


def register() -> None:
    """Enable the add-on, or leave nothing behind. Raises ImportError where Blender has no `requests`."""
    global _enabled
    if not importlib.util.find_spec("requests"):
        raise ImportError("Background Downloads needs Python's “requests”, which this Blender came without")
    _take_over()
    with uncollected(), Registered() as enabled:
        state.register(enabled)
        operators.register(enabled)
        session.open_session()
        enabled.callback(session.close_session)
        enabled.callback(lambda: watch.remember())  # not looked for before
        enabled.timer(_look, LOOK_AFTER)
        ui.register(enabled)
        _enabled = enabled.pop_all()


def unregister() -> None:
    """Disable the add-on: the run is closed before anything that it needs goes."""
    if let_go():
        _hand_over()


def let_go() -> bool:
    """Give back all names in Blender. False: it had none, since another copy of the extension has them."""
    global _enabled
    enabled, _enabled = _enabled, None
    if enabled:
        enabled.close()
    return enabled is not None


def _look() -> None:
    """Have a list where there is one to be taken up; in background mode nobody would see it."""
    if not bpy.app.background and adopting.is_anything_left():
        session.current()


def _take_over() -> None:
    """Have another copy of the extension, from another repository, let go of the names in Blender."""
    theirs = getattr(bpy.types, operators.DOWNLOADS_OT_pause.__name__, None)
    other = sys.modules.get(theirs.__module__.rpartition(".")[0]) if theirs else None
    if other:
        with suppress(Exception):  # it may be of any version; its classes go when ours come
            getattr(other, "let_go", other.unregister)()


def _hand_over() -> None:
    """Have another copy that is enabled, and had to let go for this one, work again."""
    name = __name__.rpartition(".")[2]
    packages = [addon.module for addon in bpy.context.preferences.addons if addon.module != __name__]
    copies = [sys.modules.get(package) for package in packages if package.rpartition(".")[2] == name]
    if other := next((copy for copy in copies if getattr(copy, "__addon_enabled__", False)), None):
        other.register()
