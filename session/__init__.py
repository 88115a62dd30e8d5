"""What a run is, inside Blender. Everything in these rooms is the main thread's.

There is one `Session`, from `open_session` (the add-on is enabled) to `close_session` (disabled). It is
made when it is first needed, and what it is made of is imported then: enabling costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..workers import Download
    from .importing import Importing
    from .session import Session

_is_open = False
_session: Session | None = None
_importing: Importing | None = None


def current() -> Session:
    """The session. Raises RuntimeError while the add-on is not enabled."""
    global _session
    if not _is_open:
        raise RuntimeError("Background Downloads is not enabled")
    if _session is None:
        from .session import Session

        _session = Session()
        _session.on_asked, _session.on_finished = _asked, _finished
    return _session


def peek() -> Session | None:
    """The session, if there was need of it yet."""
    return _session


def open_session() -> None:
    """Allow a session; `Session.open` follows when Blender is ready."""
    global _is_open
    _is_open = True


def imports() -> Importing:
    """What imports finished files; begins with the first one."""
    from .importing import Importing

    global _importing
    _importing = _importing or Importing(current())
    return _importing


def file_opened() -> None:
    """Blender has another file open."""
    if _importing:
        _importing.opened()


def _asked(row: Download) -> None:
    if row.when_done == "IMPORT":
        imports().asked(row)


def _finished(row: Download) -> None:
    imports().finished(row)


def close_session() -> None:
    """End the session."""
    global _is_open, _session, _importing
    if _session:
        _session.close()
    if _importing:  # after the last files that became finished
        _importing.close()
    _is_open, _session, _importing = False, None, None
