"""The extension's session: how it begins, and wired to what imports finished files."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import bpy

from . import current, watch

if TYPE_CHECKING:
    from ..workers import Download
    from .importing import Importing
    from .session import Session

_importing: Importing | None = None


def adopt() -> float | None:
    """Take up the lists of Blenders that are gone. Returns in how many seconds it is to be tried again."""
    from ..transfer.job import TransferError
    from .settings import folder, preferences, tokens
    from .store import RETRY

    _ = tokens.hosts  # reads them: what draws may not
    looked_into = []
    with suppress(TransferError):  # beside a .blend file that is not saved yet
        looked_into.append(folder(""))
    if not (session := current()).open(looked_into):
        session.mirror.flush()
        return RETRY
    if getattr(preferences(), "resume_at_start", False) and bpy.app.online_access:
        session.resume_all()
    session.go_on(watch.cut_off())
    session.mirror.flush()
    if session.wants_run:
        watch.invoke()
    return None


def session() -> Session:
    """A new one."""
    from .session import Session

    made = Session()
    made.on_asked, made.on_finished, made.on_opened, made.on_closed = _asked, _finished, _opened, _closed
    return made


def imports() -> Importing:
    """What imports finished files; begins with the first one."""
    from .importing import Importing

    global _importing
    _importing = _importing or Importing(current())
    return _importing


def _asked(row: Download) -> None:
    if row.when_done == "IMPORT":
        imports().asked(row)


def _finished(row: Download) -> None:
    imports().finished(row)


def _opened() -> None:
    if _importing:
        _importing.opened()


def _closed() -> None:
    global _importing
    if _importing:
        _importing.close()
    _importing = None
