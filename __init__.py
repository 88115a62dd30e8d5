"""Background Downloads: files come down from the network while Blender stays usable."""

from __future__ import annotations

import importlib.util
import signal
from contextlib import suppress

import bpy

from . import operators, session, ui
from .session import mirror, watch

_CLASSES = (mirror.DOWNLOADS_PG_item, mirror.DOWNLOADS_PG_state)


def register() -> None:
    """Enable the add-on. Raises ImportError where Blender came without `requests`."""
    if not importlib.util.find_spec("requests"):
        raise ImportError("Background Downloads needs Python's “requests”, which this Blender came without")
    with suppress(ValueError):  # not on the main thread: whoever does that minds the signals
        if hasattr(signal, "SIGPIPE"):  # Blender 4.3 leaves it deadly: a write to a dead child would end it
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    for cls in _CLASSES:
        bpy.utils.register_class(cls)
    operators.register()
    bpy.types.WindowManager.downloads = bpy.props.PointerProperty(type=mirror.DOWNLOADS_PG_state)
    session.open_session()
    watch.register()
    ui.register()


def unregister() -> None:
    """Disable the add-on: the run is closed before anything that it needs goes."""
    session.close_session()
    ui.unregister()
    watch.unregister()
    operators.unregister()
    del bpy.types.WindowManager.downloads
    for cls in reversed(_CLASSES):
        bpy.utils.unregister_class(cls)
