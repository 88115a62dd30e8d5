"""What goes through the pipe between a `ProcessHost` and its child."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..transfer.job import Job, Settings
from .vocabulary import Report

if TYPE_CHECKING:
    from ..transfer.fetch import Carried


@dataclass(frozen=True, slots=True)
class Submit:
    job: Job
    carried: Carried | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    uid: int


@dataclass(frozen=True, slots=True)
class HangUp:
    uid: int


@dataclass(frozen=True, slots=True)
class Forget:
    uid: int


@dataclass(frozen=True, slots=True)
class Store:
    """A piece of a file; the last one says so."""

    path: str
    piece: bytes
    is_first: bool
    is_last: bool


@dataclass(frozen=True, slots=True)
class GoBy:
    settings: Settings


@dataclass(frozen=True, slots=True)
class Dismiss:
    pass


@dataclass(frozen=True, slots=True)
class Leave:
    """Answered twice: when it is heard, and when nothing is left."""


@dataclass(frozen=True, slots=True)
class Look:
    """Answered once."""


Command = Submit | Stop | HangUp | Forget | Store | GoBy | Dismiss | Leave | Look


@dataclass(frozen=True, slots=True)
class Answer:
    report: Report
    is_quiet: bool
    used: int
    """How many connections."""


def weight(command: Command) -> int:
    """About how many bytes a command takes in a message."""
    match command:
        case Submit(job=job):
            return 500 + len(job.url) + len(job.directory)
        case GoBy(settings=settings):
            return 500 + sum(len(host) + len(token) for host, token in settings.tokens)
        case _:
            return 100
