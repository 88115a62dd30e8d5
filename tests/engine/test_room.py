"""Hosts that work at the same time (a run, a script that waits, a dialog that looks) keep to one limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from driving import DEADLINE, Driver, Settings, finished, new_job
from server import Server, pattern, stall_after, stall_before_headers

from background_downloads.transfer import throttle
from background_downloads.workers import ProcessHost, ThreadHost, YieldingHost, share

DATA = pattern(300_000)
LIMIT = 4
SETTINGS = Settings(timeout=90.0, connections=LIMIT)


@pytest.fixture
def new_driver() -> Iterator[Callable[..., Driver]]:
    made: list[Driver] = []

    def make(kind: Any, settings: Settings = SETTINGS) -> Driver:
        made.append(Driver(kind(settings)))
        return made[-1]

    yield make
    for driver in made:
        driver.shut()


def until(drivers: list[Driver], condition: Callable[[], object], what: str) -> None:
    """As a session does: the hosts share before each look."""
    last = drivers[-1]
    step = last.host.poll

    def poll() -> Any:
        share([driver.host for driver in drivers])
        for driver in drivers[:-1]:
            driver.look()
        return step()

    last.host.poll = poll  # type: ignore[method-assign]
    try:
        last.until(condition, what)
    finally:
        last.host.poll = step  # type: ignore[method-assign]


@pytest.mark.parametrize("guest_kind", [ThreadHost, ProcessHost])
@pytest.mark.parametrize("run_kind", [YieldingHost, ProcessHost])
def test_a_guest_has_as_many_connections_as_a_run_leaves(
    new_driver: Callable[..., Driver], server: Server, tmp_path: Path, run_kind: type, guest_kind: type
) -> None:
    run, guest = new_driver(run_kind), new_driver(guest_kind)
    held, later = server.gate(), server.gate()
    for n in range(LIMIT - 1):
        url = server.add(f"/held-{n}.bin", stall_after(200_000, held), body=DATA)
        run.begun(url, tmp_path, 200_000)
    jobs = [new_job(server.add(f"/{n}.bin", body=DATA), tmp_path) for n in range(LIMIT)]
    share([run.host, guest.host])
    guest.submit(*jobs)
    until([run, guest], lambda: len(guest.ended) == LIMIT, "the guest to end")
    assert server.connections.peak == LIMIT
    held.open()
    until([run, guest], lambda: len(run.ended) == LIMIT - 1, "the run to end")
    more = [
        new_job(server.add(f"/more-{n}.bin", stall_before_headers(later)), tmp_path) for n in range(LIMIT)
    ]
    guest.submit(*more)
    until([run, guest], lambda: later.reached == LIMIT, "all at once")
    later.open()
    for job in [*jobs, *more]:
        assert finished(guest.outcome(job))


def test_what_stopped_downloads_keep_makes_room(
    new_driver: Callable[..., Driver], server: Server, tmp_path: Path
) -> None:
    run, guest, held = new_driver(YieldingHost), new_driver(ThreadHost), server.gate()
    for n in range(LIMIT):
        run.halted(server.add(f"/kept-{n}.bin", stall_after(200_000), body=DATA), tmp_path, 200_000)
    server.wait_open(LIMIT)
    urls = [server.add(f"/{n}.bin", stall_before_headers(held), body=DATA) for n in range(3)]
    guest.submit(*(new_job(url, tmp_path) for url in urls))
    until([run, guest], lambda: held.reached == 3, "the guest to ask")
    server.wait_open(LIMIT)
    held.open()
    until([run, guest], lambda: len(guest.ended) == 3, "the guest to end")


@pytest.mark.parametrize("kind", [YieldingHost, ProcessHost])
def test_a_limit_that_people_change_holds_from_then_on(
    new_driver: Callable[..., Driver], server: Server, tmp_path: Path, kind: type
) -> None:
    driver = new_driver(kind)
    gates = [server.gate() for _ in range(3)]
    urls = [
        [server.add(f"/{n}-{m}.bin", stall_after(1000, gate), body=DATA) for m in range(2 * LIMIT)]
        for n, gate in enumerate(gates)
    ]
    driver.submit(*(new_job(url, tmp_path) for url in urls[0]))
    driver.until(lambda: gates[0].reached == LIMIT, "as many as there may be")
    driver.host.change(connections=2 * LIMIT)
    driver.until(lambda: gates[0].reached == 2 * LIMIT, "more of them")
    driver.submit(*(new_job(url, tmp_path) for url in (*urls[1], *urls[2])))
    driver.host.change(connections=1)
    share([driver.host])
    gates[0].open()
    driver.until(lambda: len(driver.ended) == 2 * LIMIT, "those under way to end")
    for gate in gates[1:]:
        driver.until(lambda gate=gate: gate.reached == 1, "one at a time")  # type: ignore[misc]
        server.wait_open(1)
        gate.open()
    driver.until(lambda: len(driver.ended) == 6 * LIMIT, "all")
    assert driver.host.settings.connections == 1


@pytest.mark.parametrize("limit", [1_000_001, 1, 0])
def test_together_they_keep_to_one_speed(
    new_driver: Callable[..., Driver], server: Server, tmp_path: Path, limit: int
) -> None:
    settings = Settings(timeout=90.0, connections=LIMIT, speed_limit=limit)
    run, guest, held = new_driver(YieldingHost, settings), new_driver(ThreadHost, settings), server.gate()
    throttles = [run.host._threads.connections.throttle, guest.host.connections.throttle]
    for n, driver in enumerate((run, guest)):
        url = server.add(f"/{n}.bin", stall_before_headers(held), body=b"x" * throttle.LEAST)
        driver.submit(new_job(url, tmp_path))
    held.wait_reached(2)
    share([run.host, guest.host])
    assert [each.limit for each in throttles] == [max(1, limit // 2) if limit else 0] * 2
    assert {host.settings.speed_limit for host in (run.host, guest.host)} == {limit}
    for driver in (run, guest):
        driver.host.change(speed_limit=0)
    held.open()
    until([run, guest], lambda: run.ended and guest.ended, "both")
    for driver in (run, guest):
        driver.host.change(speed_limit=limit)
    share([run.host, guest.host])
    assert [each.limit for each in throttles] == [limit, limit]


def test_a_run_is_not_slower_once_its_guest_has_gone(
    new_driver: Callable[..., Driver], server: Server, tmp_path: Path
) -> None:
    settings = Settings(timeout=DEADLINE, connections=LIMIT, speed_limit=1 << 30)
    run, guest, held = new_driver(ProcessHost, settings), new_driver(ThreadHost, settings), server.gate()
    for n, driver in enumerate((run, guest)):
        driver.submit(new_job(server.add(f"/{n}.bin", stall_before_headers(held), body=DATA), tmp_path))
    until([run, guest], lambda: held.reached == 2, "both to ask")
    assert (run.host._told.connections, run.host._told.speed_limit) == (LIMIT - 1, 1 << 29)
    held.open()
    until([run, guest], lambda: guest.ended and run.ended, "both")
    share([run.host])
    assert (run.host._told.connections, run.host._told.speed_limit) == (LIMIT, 1 << 30)
