"""What the extension takes up again soon after it was enabled."""

from __future__ import annotations

from contextlib import suppress

import bpy

from ..transfer.job import TransferError
from . import current, watch
from .settings import folder, preferences, tokens
from .store import RETRY


def adopt() -> float | None:
    """Take up the lists of Blenders that are gone. Returns in how many seconds it is to be tried again."""
    _ = tokens.pairs  # reads them: what draws may not
    looked_into = []
    with suppress(TransferError):  # beside a .blend file that is not saved yet
        looked_into.append(folder(""))
    if not (session := current()).open(looked_into):
        session.mirror.flush()
        return RETRY
    if getattr(preferences(), "resume_at_start", False) and bpy.app.online_access:
        session.resume()
    session.resume(watch.cut_off())  # what Blender paused, and nobody else
    session.mirror.flush()
    if session.wants_run:
        watch.invoke()
    return None
