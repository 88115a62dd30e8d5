"""What a host is asked and what it tells: the same words for threads, for a child, and for both."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from ..transfer.job import Job, Outcome, Progress
from .room import Sharing

POLL = 0.05  # seconds at most between two looks of a supervisor


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has taken the download."""

    uid: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The one terminal event of a download that was submitted."""

    uid: int
    outcome: Outcome


Event = Started | Ended


@dataclass(slots=True)
class Report:
    """What `poll` found: facts, in the order in which they happened."""

    events: list[Event] = field(default_factory=list)
    progress: dict[int, Progress] = field(default_factory=dict)
    """Of the downloads that have begun and not ended, by uid; its phase is IDLE where it waits."""


class State(Enum):
    """Whether a host has work; only its `submit` and its `dismiss` set it."""

    OPEN = auto()
    """It runs what is submitted."""
    RESTING = auto()
    """Its workers leave or have left; a child stays, to be used again in a moment."""
    LEAVING = auto()
    """Its workers leave or have left, and so does a child."""


class Host(Sharing, Protocol):
    """Runs transfers. All calls are the main thread's; only `wait`, `close` and `shut` wait."""

    def submit(self, job: Job) -> None:
        """Run a download, or go on with one that was stopped. It ends with one `Ended`.

        Raises ValueError while a download of this uid has not ended.
        """

    def stop(self, uid: int) -> None:
        """Have a submitted download end as `Halted`; it keeps what it needs to go on."""

    def hang_up(self, uid: int) -> None:
        """Close connection and file that a stopped download kept; what it received is remembered."""

    def forget(self, uid: int) -> None:
        """Release a download that is not running, soon, keeping what was received for another process.

        Whoever wants that deleted does so before: no file is open that no worker has.
        """

    def poll(self) -> Report:
        """Look: what happened since the last time, and how far the running ones are."""

    def store(self, path: str, data: bytes) -> None:
        """Have a worker replace a small private file, atomically; the last call counts."""

    def wait(self, seconds: float) -> None:
        """Wait `seconds` at most, or until all has ended: for whoever has nothing else to do."""

    def dismiss(self, *, keep: bool = False) -> None:
        """Let the workers leave: what is submitted ends as `Halted`. Does not wait.

        `keep`: a child process stays, to be used again in a moment.
        """

    def is_quiet(self) -> bool:
        """Whether no worker is left, so that `close` will not wait. `poll` meanwhile."""

    def close(self, *, forced: bool = False, keep: bool = False) -> Report:
        """Join every worker; returns the last events. Stopped transfers stay with the host.

        `forced`: Blender takes the operator away; a worker in a name look-up is left behind.
        `keep`: a child process stays, its workers stopped; `dismiss` was told so, and it is quiet.
        """

    def shut(self, *, forced: bool = False) -> Report:
        """`close`, and release every transfer, keeping what was received for another process."""
