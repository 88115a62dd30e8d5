"""Every fault of the table, alone and then right after: by both hosts, with one segment and with several.

All faults run at once in one host, and each row of the table is a test that looks at what its own
downloads came to. One run more has only the connections that help meet the faults: there they cost
nothing but speed.

Python 3.11 runs two of these five ways, one of each host.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from driving import Digest, Driver, Failed, Finished, Job, Outcome, Settings, new_job
from faults import FAULTS, HALF, Fault, Lab, Staged
from leaks import LeakCheck
from server import Certificates, Exchange, drip

from background_downloads.workers import ProcessHost, ThreadHost

TIMEOUT = 1.5 if sys.platform != "win32" else 5.0  # seconds; Wine is slow
DEADLINE = 100.0 if sys.platform != "win32" else 700.0  # seconds for one run, so that a failure ends
pytestmark = pytest.mark.timeout(DEADLINE + 50)
PIECE = 32 << 10  # bytes
PACE = drip(PIECE, 0.03)  # so slow that it is worth other connections


def patient(exchange: Exchange) -> None:
    """Slower yet until another request comes, however busy this machine and the limit are."""
    exchange.each = PIECE, lambda: exchange.pause(0.03 if exchange.route.seen > 1 else 0.4)
    exchange.go_on()


@dataclass(frozen=True)
class Way:
    """How the table is run over."""

    host: type[ThreadHost] | type[ProcessHost]
    segments: int = 1
    well: int = 0
    """So many requests of each download are answered well: one would do without helpers."""

    def __str__(self) -> str:
        host = "threads" if self.host is ThreadHost else "process"
        return f"{host}-{self.segments}" + (f"-after-{self.well}" if self.well else "")

    @property
    def faults(self) -> list[Fault]:
        return [fault for fault in FAULTS if not self.well or (fault.behaviours and not fault.port)]

    @property
    def at_once(self) -> int:
        """So many downloads: those that come slowly cost little."""
        return 40 if self.segments > 1 else 16

    @property
    def settings(self) -> Settings:
        split = 0.15 if self.segments > 1 else 1e9  # so that there are no more segments than that
        connections = self.at_once * self.segments
        return Settings(timeout=TIMEOUT, connections=connections, split_seconds=split, first_delay=0.0)


ALL_WAYS = [
    Way(ThreadHost),
    Way(ThreadHost, segments=4),
    Way(ThreadHost, segments=4, well=1),
    Way(ThreadHost, segments=4, well=2),
    Way(ProcessHost),
    Way(ProcessHost, segments=4),
]
WAYS = ALL_WAYS if sys.version_info >= (3, 12) else [Way(ThreadHost), Way(ProcessHost, segments=4)]
CASES = [pytest.param(way, fault, id=f"{way}-{fault.name}") for way in WAYS for fault in way.faults]


@dataclass
class Trial:
    """One fault, and what its downloads came to."""

    fault: Fault
    way: Way
    staged: Staged
    folder: Path
    job: Job = field(init=False)
    outcomes: list[Outcome] = field(default_factory=list)
    problems: list[list[str]] = field(default_factory=list)
    """With each of the outcomes."""
    seconds: list[float] = field(default_factory=list)
    requests: int = 0
    """Of the last download."""

    def __post_init__(self) -> None:
        self.job = self._new_job()

    def _new_job(self) -> Job:
        digest = Digest("sha256", hashlib.sha256(self.fault.body).hexdigest()) if self.fault.digest else None
        return new_job(self.staged.url, self.folder, digest=digest)

    @property
    def rights(self) -> list[bytes]:
        """What the file may hold: the new one, and the old one where that was answered well."""
        return [self.fault.right, *([self.fault.body] if self.way.well else [])]

    def take(self, outcome: Outcome) -> None:
        """It has ended: look at what is in the folder."""
        self.outcomes.append(outcome)
        self.problems.append(list(self._problems()))
        self.requests = self.staged.requests

    def _problems(self) -> Iterator[str]:
        whole = [outcome for outcome in self.outcomes if isinstance(outcome, Finished)]
        there = sorted(self.folder.iterdir())
        finals = [path for path in there if not path.name.endswith((".part", ".part.json"))]
        if [str(path) for path in finals] != sorted(outcome.filepath for outcome in whole):
            yield f"in the folder: {[path.name for path in finals]}"
        if whole and Path(whole[0].filepath).name != self.fault.file:
            yield f"its name is {Path(whole[0].filepath).name}"
        for path in finals:
            if (data := path.read_bytes()) not in self.rights:
                yield f"{path.name} is wrong: {_difference(data, self.rights[0])}"
        parts = [path.name for path in there if path not in finals]
        if len(parts) > (2 if isinstance(self.outcomes[-1], Failed) else 0):
            yield f"left in the folder: {parts}"

    def go_on(self) -> None:
        """The fault is over: the same link again, as Retry would where it failed."""
        pace = [patient if self.is_split else PACE] if self.way.segments > 1 else []
        self.staged.mend(*pace, body=self.fault.right)
        if not isinstance(self.outcomes[-1], Failed):
            self.job = self._new_job()

    @property
    def is_split(self) -> bool:
        """Whether the last download must be: it begins anew, and there is enough of it."""
        is_new = isinstance(self.outcomes[0], Finished)
        return self.way.segments > 1 and is_new and len(self.fault.right) > HALF


def _difference(data: bytes, right: bytes) -> str:
    pairs = enumerate(zip(data, right, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(data), len(right)))
    return f"{len(data)} bytes for {len(right)}, from byte {at} on"


def _run(way: Way, lab: Lab, folder: Path) -> dict[str, Trial]:
    """All faults, so many at a time; the slow ones first."""
    trials = {fault.name: _trial(way, lab, fault, folder) for fault in way.faults}
    waiting = deque(sorted(trials.values(), key=lambda trial: not trial.fault.is_slow))
    driver = Driver(way.host(way.settings))
    running: dict[int, tuple[Trial, float]] = {}
    end = time.monotonic() + DEADLINE
    try:
        while (waiting or running) and time.monotonic() < end:
            while waiting and len(running) < way.at_once:
                trial = waiting.popleft()
                running[trial.job.uid] = trial, time.monotonic()
                driver.submit(trial.job)
            driver.host.wait(0.01)
            driver.look()
            for uid in [uid for uid in running if len(driver.ended.get(uid, ())) == driver.submitted[uid]]:
                trial, began = running.pop(uid)
                trial.seconds.append(time.monotonic() - began)
                trial.take(driver.ended[uid][-1])
                if len(trial.outcomes) == 1:
                    trial.go_on()
                    waiting.appendleft(trial)
    finally:
        driver.shut()
    return trials


def _trial(way: Way, lab: Lab, fault: Fault, folder: Path) -> Trial:
    pace = [PACE] if way.segments > 1 else []
    place = folder / str(len(list(folder.iterdir())))
    place.mkdir()
    return Trial(fault, way, lab.stage(fault, str(way), *pace, well=way.well), place)


class Runs:
    """Each run over the table, made when the first test asks for it."""

    def __init__(self, certificates: Certificates, folder: Path) -> None:
        self._certificates = certificates
        self._folder = folder
        self._done: dict[Way, dict[str, Trial]] = {}

    def of(self, way: Way) -> dict[str, Trial]:
        if way not in self._done:
            self._done[way] = {}
            folder = self._folder / str(way)
            folder.mkdir()
            with LeakCheck(), Lab(self._certificates) as lab:
                self._done[way] = _run(way, lab, folder)
            shutil.rmtree(folder)
        return self._done[way]


@pytest.fixture(scope="module")
def runs(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(certificates, tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize(("way", "fault"), CASES)
def test_a_fault_and_right_after(
    way: Way, fault: Fault, runs: Runs, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.ca))
    trial = runs.of(way).get(fault.name)
    assert trial, "its run broke off"
    assert len(trial.outcomes) == 2, f"it did not end; before: {trial.outcomes}"
    assert _is_expected(trial), trial.outcomes[0]
    assert isinstance(trial.outcomes[1], Finished), trial.outcomes[1]
    assert trial.problems == [[], []]
    if trial.is_split:
        assert trial.requests > 1, "it was not split"


def _is_expected(trial: Trial) -> bool:
    """Whether the first outcome is the one of the table."""
    outcome, fault = trial.outcomes[0], trial.fault
    if isinstance(outcome, Finished):
        return bool(trial.way.well) or not fault.end
    if not isinstance(outcome, Failed) or not fault.end or trial.way.well:
        return False
    if isinstance(fault.end, str):
        return outcome.error == fault.end.replace("{host}", "127.0.0.1")
    return fault.end.fullmatch(outcome.error) is not None
