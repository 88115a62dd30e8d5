"""What the extension takes up again soon after it was enabled, where there is anything."""

from __future__ import annotations

import os
from contextlib import suppress

import bpy

from . import current
from .enabling import Lazy
from .home import user_folder

job = Lazy("..transfer.job", __package__)
settings = Lazy(".settings", __package__)
store = Lazy(".store", __package__)
watch = Lazy(".watch", __package__)


def is_anything_left() -> bool:
    """Whether there is a list to look for, or anything to read. Most Blenders start without, at no cost."""
    try:
        names = os.listdir(user_folder())
    except (OSError, ValueError):
        return True  # and that is to be said
    lists = [name for name in names if name.startswith("queue-") and not name.endswith(".unreadable")]
    return bool(lists) or "tokens.json" in names or "folders.json" not in names


def adopt() -> float | None:
    """Take up the lists of Blenders that are gone. Returns in how many seconds it is to be called again."""
    if bpy.app.background:  # nobody would see them
        return None
    session = current()
    if before := watch.before():
        session.go_on_with(before)
    _ = settings.tokens.pairs  # reads them: what draws may not
    looked_into = []
    with suppress(job.TransferError):  # beside a .blend file that is not saved yet
        looked_into.append(settings.folder(""))
    if not session.open(looked_into):
        return store.RETRY
    if (again := next(session.coming, None)) == 0.0:
        return again
    if getattr(settings.preferences(), "resume_at_start", False) and bpy.app.online_access:
        session.resume()
    session.mirror.flush()
    if session.wants_run:
        watch.invoke()
    return again
