"""The face of what runs downloads: the record of each, and the hosts with their words. Knows no Blender.

A host runs transfers on worker threads: `ThreadHost` in this process, `ProcessHost` in a child, and
`YieldingHost` moves them from the one to the other. All speak the same language: jobs go in, counters
and exactly one terminal event for each started download come out, asked for by `poll`. Whoever owns a
host closes it; then no thread is left.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .hosts.status import Status

if TYPE_CHECKING:
    from .hosts.process import ProcessHost
    from .hosts.record import Download
    from .hosts.room import share
    from .hosts.survey import Found, Survey, answer_of, ask, is_silent, look_into, silence
    from .hosts.threads import ThreadHost
    from .hosts.vocabulary import Ended, Host, Report, Started
    from .hosts.yielding import YieldingHost

__all__ = [
    "Download",
    "Ended",
    "Found",
    "Host",
    "ProcessHost",
    "Report",
    "Started",
    "Status",
    "Survey",
    "ThreadHost",
    "YieldingHost",
    "answer_of",
    "ask",
    "is_silent",
    "look_into",
    "share",
    "silence",
]

_ROOMS = {
    "process": ("ProcessHost",),
    "record": ("Download",),
    "room": ("share",),
    "survey": ("Found", "Survey", "answer_of", "ask", "is_silent", "look_into", "silence"),
    "threads": ("ThreadHost",),
    "vocabulary": ("Ended", "Host", "Report", "Started"),
    "yielding": ("YieldingHost",),
}


def __getattr__(name: str) -> Any:
    """What is behind the face is imported when it is asked for: enabling the add-on must cost nothing."""
    for room, found in _ROOMS.items():
        if name in found:
            return getattr(importlib.import_module(f".hosts.{room}", __package__), name)
    raise AttributeError(name)
