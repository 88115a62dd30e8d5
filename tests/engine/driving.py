"""Runs downloads for the tests: one `Transfer` in the test's own thread, or hosts fed as a run feeds them."""

from __future__ import annotations

import itertools
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server import DEADLINE, Gate, pattern

from background_downloads.hosts.vocabulary import Event
from background_downloads.transfer.connect import Client, Environment
from background_downloads.transfer.control import Control, Waker
from background_downloads.transfer.fetch import BUFFER, Carried, Transfer
from background_downloads.transfer.job import (
    Digest,
    Failed,
    Finished,
    Halted,
    IfExists,  # noqa: F401  # for the tests
    Job,
    Outcome,
    Phase,
    Progress,
    Settings,
    Skipped,
    Stopped,
    TransferError,
    Validator,
)
from background_downloads.transfer.part import Part
from background_downloads.workers import Download, Ended, Host, Started

PATIENT = Settings(timeout=90.0, connections=4)
"""With a time-out far beyond any test's deadline: what ends was not waited out."""

_uids = itertools.count(1)


def record(**values: Any) -> Download:
    """A row of the list; what its worker told last may be given by itself."""
    told = {each: values.pop(each) for each in Progress._fields if each in values}
    return Download(**{"uid": 1, "progress": Progress(**told)} | values)


def new_job(url: str, folder: Path, **options: Any) -> Job:
    """A job with a uid of its own; `sha256="…"` and `uid=` as they are, the rest goes to `Job`."""
    if sha256 := options.pop("sha256", None):
        options["digest"] = Digest("sha256", sha256)
    options.setdefault("uid", next(_uids))
    return Job(url=url, directory=str(folder), **options)


def is_private(path: Path) -> bool:
    """Whether only its user may read a file; Windows has no modes, and whole folders that are private."""
    return sys.platform == "win32" or stat.S_IMODE(path.stat().st_mode) == 0o600


def opened(url: str, folder: str, digest: Digest | None, *, earlier: str = "") -> Part:
    """A partial file, open and locked."""
    part = Part(url, folder, digest, earlier=earlier)
    part.open()
    assert part.file.fd >= 0  # made, though nothing has come yet
    return part


def place(part: Part) -> Path:
    """Where a partial file stands, if it does."""
    return Path(part.file.place)


def sidecar(part: Part) -> Path:
    """What lies beside a partial file, if it does."""
    return Path(f"{part.file.place}.json")


def leave_part(
    folder: Path, url: str = "https://files.example/a.bin", count: int = 1000, digest: Digest | None = None
) -> str:
    """A partial file as a process leaves it, so many bytes of 5000; its name."""
    folder.mkdir(exist_ok=True)
    part = opened(url, str(folder), digest)
    part.write(memoryview(pattern(count)), 0)
    part.begin(5000, Validator('"1"', ""), is_encoded=False)
    part.close()
    return place(part).name


class Clock:
    """The time by which a module of ours judges; it stands still unless a test moves it."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Fetcher:
    """Runs transfers in the thread that asks, as one worker would."""

    def __init__(self, settings: Settings, folder: Path | None = None) -> None:
        """`folder`: where files go that none is given for."""
        self.settings = settings
        self._folder = folder
        self._waker = Waker()
        self._transfers: list[Transfer] = []
        self.client = Client(settings, Environment())

    def transfer(self, job: Job, carried: Carried | None = None) -> Transfer:
        transfer = Transfer(job, self.settings, carried=carried)
        self._transfers.append(transfer)
        return transfer

    def run(self, transfer: Transfer) -> Outcome:
        try:
            return transfer.run(Control(self._waker), self.client, memoryview(bytearray(BUFFER)))
        except Stopped:
            return Halted()
        except TransferError as error:
            return Failed(str(error))

    def __call__(
        self, url: str, folder: Path | None = None, *, carried: Carried | None = None, **options: Any
    ) -> Outcome:
        """Download from zero or from the sidecar, as a new process would, and release everything."""
        where = folder or self._folder
        assert where
        transfer = self.transfer(new_job(url, where, **options), carried)
        try:
            return self.run(transfer)
        finally:
            transfer.close()

    def close(self) -> None:
        for transfer in self._transfers:
            transfer.close()
        self.client.close()
        self._waker.close()


class Driver:
    """Feeds a host and gathers what it tells."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.progress: dict[int, Progress] = {}
        self.submitted: Counter[int] = Counter()
        self.ended: dict[int, list[Outcome]] = {}
        self.started: list[int] = []

    def submit(self, *jobs: Job) -> None:
        for job in jobs:
            self.submitted[job.uid] += 1
            self.host.submit(job)
        self.look()

    def look(self) -> None:
        report = self.host.poll()
        self.progress = report.progress
        self.take(report.events)

    def take(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Started):
                self.started.append(event.uid)
            else:
                assert isinstance(event, Ended)
                self.ended.setdefault(event.uid, []).append(event.outcome)

    def until(self, condition: Callable[[], object], what: str = "what was to happen") -> None:
        """Tick until the condition holds; the deadline only keeps a failing test from hanging."""
        deadline = time.monotonic() + DEADLINE
        self.look()
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited for {what}; ended: {self.ended}, running: {self.progress}")
            self.host.wait(0.01)
            self.look()

    def until_phase(self, job: Job, phase: Phase) -> None:
        self.until(lambda: job.uid in self.progress and self.progress[job.uid].phase is phase, phase.value)

    def until_received(self, job: Job, count: int) -> None:
        self.until(
            lambda: job.uid in self.progress and self.progress[job.uid].received >= count, f"{count} bytes"
        )

    def until_reached(self, gate: Gate, n: int = 1) -> None:
        self.until(lambda: gate.reached >= n, "the gate")

    def begun(self, url: str, folder: Path, count: int, **options: Any) -> Job:
        """A download of which so many bytes are there."""
        job = new_job(url, folder, **options)
        self.submit(job)
        self.until_received(job, count)
        return job

    def halted(self, url: str, folder: Path, count: int, **options: Any) -> Job:
        """The same, and then stopped."""
        job = self.begun(url, folder, count, **options)
        assert self.stop(job) == Halted()
        return job

    def outcome(self, job: Job) -> Outcome:
        """How the last submission of the job ended."""
        self.until(lambda: len(self.ended.get(job.uid, ())) == self.submitted[job.uid], f"{job} to end")
        return self.ended[job.uid][-1]

    def run(self, job: Job) -> Outcome:
        self.submit(job)
        return self.outcome(job)

    def stop(self, job: Job) -> Outcome:
        self.host.stop(job.uid)
        return self.outcome(job)

    def close(self) -> None:
        self.take(self.host.close().events)

    def shut(self) -> None:
        """Close for good, and see that everything that was submitted ended exactly once."""
        self.take(self.host.shut(forced=True).events)
        assert {uid: len(outcomes) for uid, outcomes in self.ended.items()} == dict(self.submitted)


def finished(outcome: Outcome) -> Path:
    """Where the file is; fails unless it is there."""
    assert isinstance(outcome, Finished), outcome
    return Path(outcome.filepath)


def failed(outcome: Outcome) -> str:
    """The sentence; fails unless it did."""
    assert isinstance(outcome, Failed), outcome
    return outcome.error


def skipped(outcome: Outcome) -> Path:
    assert isinstance(outcome, Skipped), outcome
    return Path(outcome.filepath)


def names(folder: Path) -> list[str]:
    """What a folder holds."""
    return sorted(path.name for path in folder.iterdir())


def part_of(folder: Path) -> Path:
    """The one partial file in a folder."""
    (part,) = folder.glob("*.part")
    return part
