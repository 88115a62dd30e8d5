"""What the tests of the engine share: hosts of both kinds, and a transfer in the test's own thread."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

from driving import PATIENT, Clock, Driver, Fetcher, Job, new_job
from server import Certificates, Server, after, cut_after, stall_after, when

from background_downloads.hosts import threads as threads_module
from background_downloads.transfer import portable, retry, segments
from background_downloads.transfer.job import Settings
from background_downloads.transfer.segments import Segments
from background_downloads.workers import Host, ProcessHost, ThreadHost, YieldingHost

BURST = 300_000  # bytes that come before the first answer is held
FAR = cut_after(1_500_000)  # bytes of the second half: more than one read of the first answer reaches

settings.register_profile("engine", deadline=None)  # that a machine is busy is no failure
settings.load_profile("engine")


@pytest.fixture(params=[YieldingHost, ProcessHost], ids=["threads", "process"])
def new_driver(request: pytest.FixtureRequest) -> Iterator[Callable[..., Driver]]:
    """Drivers of hosts of either kind; at the end each submission must have ended exactly once."""
    yield from _drivers(request.param)


@pytest.fixture
def driver(new_driver: Callable[..., Driver]) -> Driver:
    """A driver of a host of either kind."""
    return new_driver()


@pytest.fixture
def new_thread_driver() -> Iterator[Callable[..., Driver]]:
    """As `new_driver`, for tests that patch what a child would not see."""
    yield from _drivers(ThreadHost)


@pytest.fixture
def thread_driver(new_thread_driver: Callable[..., Driver]) -> Driver:
    return new_thread_driver()


@pytest.fixture
def new_process_driver() -> Iterator[Callable[..., Driver]]:
    yield from _drivers(ProcessHost)


@pytest.fixture
def process_driver(new_process_driver: Callable[..., Driver]) -> Driver:
    return new_process_driver()


def _drivers(kind: Callable[[Settings], Host]) -> Iterator[Callable[..., Driver]]:
    made: list[Driver] = []

    def make(settings: Settings = PATIENT) -> Driver:
        made.append(Driver(kind(settings)))
        return made[-1]

    try:
        yield make
    except BaseException:
        for driver in made:
            driver.host.shut(forced=True)
        raise
    for driver in made:
        driver.shut()


@pytest.fixture
def fetch(tmp_path: Path) -> Iterator[Fetcher]:
    """Downloads in the test's own thread, into its folder."""
    fetcher = Fetcher(PATIENT, tmp_path)
    yield fetcher
    fetcher.close()


@pytest.fixture
def trusted(tls_server: Server, monkeypatch: pytest.MonkeyPatch, certificates: Certificates) -> Server:
    """For https; the tests' own authority is trusted."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.ca))
    return tls_server


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows' rules for files, played where they are not those of the system."""
    if sys.platform != "win32":
        import windows_rules

        windows_rules.play(monkeypatch)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(portable, "awake", clock.monotonic)
    return clock


@pytest.fixture
def supervisors_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time by which threads are supervised; it stands still where the test began."""
    clock = Clock()
    clock.now = time.monotonic()
    monkeypatch.setattr(threads_module, "time", clock)
    return clock


@pytest.fixture
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried again at once."""
    monkeypatch.setattr(retry, "FIRST_DELAY", 0.0)


@pytest.fixture
def until_given_up(monkeypatch: pytest.MonkeyPatch, server: Server, tmp_path: Path) -> Callable[..., Job]:
    """Have a first answer end where a helper began, which broke far away; what is asked then, `rest` answers.

    It asks again rather than to read on through what is there already, however near the next gap is.
    """
    monkeypatch.setattr(segments, "SOON_SECONDS", 0.0)
    left, leave = threading.Event(), Segments.leave

    def heard(*args: Any, failed: bool = False, **options: Any) -> bool:
        end = leave(*args, failed=failed, **options)
        if failed:
            left.set()
        return end

    def begin(driver: Driver, body: bytes, *rest: Any) -> Job:
        gate = server.gate()
        rules = when(lambda e: e.number == 0, stall_after(BURST, gate)), when(lambda e: e.number == 1, FAR)
        wanted = new_job(server.add("/a.bin", *rules, after(2, *rest), body=body), tmp_path)
        driver.submit(wanted)
        driver.until(left.is_set)
        gate.open()
        return wanted

    monkeypatch.setattr(Segments, "leave", heard)
    return begin
