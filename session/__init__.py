"""What a run is, inside Blender. Everything in these rooms is the main thread's.

There is one `Session`, from `open_session` (the add-on is enabled) to `close_session` (disabled).
"""

from __future__ import annotations

from .session import Session

_session: Session | None = None


def current() -> Session:
    """The session. Raises RuntimeError while the add-on is not enabled."""
    if _session is None:
        raise RuntimeError("Background Downloads is not enabled")
    return _session


def open_session() -> Session:
    """Begin the session; `Session.open` follows when Blender is ready."""
    global _session
    _session = Session()
    return _session


def close_session() -> None:
    """End the session."""
    global _session
    if _session:
        _session.close()
    _session = None
