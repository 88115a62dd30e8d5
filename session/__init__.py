"""What a run is, inside Blender. Everything in these rooms is the main thread's.

There is one `Session`, from `open_session` (the add-on is enabled) to `close_session` (disabled).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .session import Session

if TYPE_CHECKING:
    from ..workers import Download
    from .importing import Importing

_session: Session | None = None
_importing: Importing | None = None


def current() -> Session:
    """The session. Raises RuntimeError while the add-on is not enabled."""
    if _session is None:
        raise RuntimeError("Background Downloads is not enabled")
    return _session


def open_session() -> Session:
    """Begin the session; `Session.open` follows when Blender is ready."""
    global _session
    _session = Session()
    _session.on_asked, _session.on_finished = _asked, _finished
    return _session


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


def close_session() -> None:
    """End the session."""
    global _session, _importing
    if _session:
        _session.close()
    if _importing:  # after the last files that became finished
        _importing.close()
    _session = _importing = None
