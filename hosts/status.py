"""What a download can be. Apart, since the window needs it before anything is downloaded."""

from __future__ import annotations

from enum import StrEnum


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
