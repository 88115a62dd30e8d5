"""The engine in another add-on, which calls `register` and `unregister` from its own."""

from __future__ import annotations

from typing import Any

import bpy

from ..hosts import origin
from . import close_session, modal, open_session
from .enabling import Registered

_enabled: Registered | None = None
_lingering: modal.Lingering | None = None
_process = False


def register(*, process: bool = False) -> None:
    """Make `fetch` work: from your add-on's `register`. Main thread.

    :param process: a child process does all that Blender does not wait for, whatever its version: no
        thread is in Blender then, as reviewers of its store want it.
    """
    global _enabled, _lingering, _process
    unregister()
    _process = process
    _lingering = _lingering or modal.Lingering(_operator())
    with Registered() as enabled:
        open_session(_queue, IDNAME)  # first: it says whose operator is looked for
        _lingering.register(enabled)
        enabled.callback(close_session)
        _enabled = enabled.pop_all()


def unregister() -> None:
    """End all downloads: no thread, child, timer or name is left. Main thread; waits two seconds at most,
    or twenty for a disk that does not answer.

    No callback is called any more. What was received is kept, and used the next time.
    """
    global _enabled
    enabled, _enabled = _enabled, None
    if enabled:
        enabled.close()


IDNAME = f"{origin.NAME}.fetch"


def _queue() -> Any:
    from . import settings
    from .queue import Queue

    settings.always_process = _process
    return Queue()


def _operator() -> type:
    """The operator that the downloads live in, under a name that no other add-on has."""
    name = f"{origin.NAME.upper()}_OT_fetch"
    return type(name, (_Fetch, bpy.types.Operator), {"bl_idname": IDNAME, "bl_label": _Fetch.bl_label})


class _Fetch(modal.Modal):
    """Download files in the background while Blender stays usable"""

    bl_label = "Download in the Background"
    bl_options = {"INTERNAL"}

    def invoke(self, context: Any, event: Any) -> set[str]:
        return self.begin(context)
