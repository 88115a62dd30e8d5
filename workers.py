"""The face of what runs downloads: the record of each, and the hosts with their words. Knows no Blender.

A host runs transfers on worker threads: `ThreadHost` in this process, `ProcessHost` in a child, and
`YieldingHost` moves them from the one to the other. All speak the same language: jobs go in, counters
and exactly one terminal event for each started download come out, asked for by `poll`. Whoever owns a
host closes it; then no thread is left.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum

from .hosts.clerk import PRIVATE
from .hosts.process import ProcessHost
from .hosts.threads import ThreadHost
from .hosts.vocabulary import Ended, Event, Host, Report, Started
from .hosts.yielding import HELD, WAITING, YieldingHost
from .transfer import names
from .transfer.job import Digest, IfExists, Progress

__all__ = [
    "HELD",
    "PRIVATE",
    "WAITING",
    "Download",
    "Ended",
    "Event",
    "Host",
    "ProcessHost",
    "Report",
    "Started",
    "Status",
    "ThreadHost",
    "YieldingHost",
]


class Status(StrEnum):
    """What a download is, for scripts; finer words are text."""

    QUEUED = "QUEUED"
    """It waits for its turn, or for the run to come back."""
    RUNNING = "RUNNING"
    """A worker has it."""
    PAUSED = "PAUSED"
    """It goes on when somebody asks."""
    FINISHED = "FINISHED"
    """The file is whole under its final name."""
    SKIPPED = "SKIPPED"
    """The file was there, or has not changed."""
    FAILED = "FAILED"
    """`error` says why; what was received is kept."""
    CANCELLED = "CANCELLED"
    """Somebody said so; what was received is kept."""


_NOTHING_YET = Progress()


@dataclass(slots=True, kw_only=True, eq=False)
class Download:
    """The record of one download. The main thread writes it; everything shown is derived from it."""

    uid: int
    url: str
    """With secrets: never show it; `transfer.names.shown` is for people."""
    directory: str
    if_exists: IfExists = IfExists.RENAME
    when_done: str = "NOTHING"
    digest: Digest | None = None
    partial: str = ""
    """The name of the partial file of an earlier link, which this one goes on with."""
    is_cut: bool = False
    """Whether `url` lost its user, password or query: then nothing can be fetched with it."""
    status: Status = Status.QUEUED
    filepath: str = ""
    error: str = ""
    note: str = ""
    progress: Progress = _NOTHING_YET
    """How far it is, as its worker told last."""
    speed: float = 0.0
    """Bytes a second, smoothed."""
    measured: float = 0.0
    """Seconds that it was measured over."""

    @property
    def is_unfinished(self) -> bool:
        """Whether there is something left to do, now or when asked."""
        return self.status not in (Status.FINISHED, Status.SKIPPED)

    @property
    def name(self) -> str:
        """What the file is, or will be, called; until that is known, what its link says."""
        return self.progress.name or names.from_url(self.url) or names.FALLBACK

    @property
    def received(self) -> int:
        """Bytes on the disk."""
        return self.progress.received

    @property
    def size(self) -> int | None:
        """Bytes, where known."""
        return self.progress.size

    def has_file(self, name: str) -> bool:
        """Whether there is something of this name in its folder."""
        return os.path.lexists(os.path.join(self.directory, name))
