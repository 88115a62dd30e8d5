"""Servers that refuse some of several downloads: what one learns of them is every download's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from driving import Clock, Driver, Job, Phase, Settings, finished, new_job
from server import Gate, Server, first, limit_connections, pattern, stall_after, stall_before_headers, status

from background_downloads.transfer import connections as connections_module
from background_downloads.transfer.connections import Connections
from background_downloads.transfer.job import Busy

DATA = pattern(200_000)
BEGUN = 100_000  # bytes of an answer that is then held
TAKES = 2  # downloads at a time
QUICK = Settings(timeout=90.0, connections=6, first_delay=0.01)


def is_waiting(driver: Driver, job: Job) -> bool:
    return job.uid in driver.progress and driver.progress[job.uid].phase is Phase.TURN


@pytest.fixture
def crowded(
    new_driver: Callable[..., Driver], server: Server, tmp_path: Path
) -> tuple[Driver, list[Job], Gate]:
    """Two downloads that a server brings, held at a gate, and four that wait: it takes no more at a time."""
    driver, gate = new_driver(QUICK), server.gate()
    rules = limit_connections(TAKES), stall_after(BEGUN, gate)
    jobs = [new_job(server.add(f"/{n}.bin", *rules, body=DATA), tmp_path) for n in range(6)]
    driver.submit(*jobs[:TAKES])
    for job in jobs[:TAKES]:
        driver.until_received(job, BEGUN)
    driver.submit(*jobs[TAKES:])
    driver.until(lambda: all(is_waiting(driver, job) for job in jobs[TAKES:]) or driver.ended)
    assert not driver.ended
    return driver, jobs, gate


def test_who_is_refused_beside_others_waits_until_one_of_them_is_done(
    crowded: tuple[Driver, list[Job], Gate], server: Server
) -> None:
    driver, jobs, gate = crowded
    asked = len(server.requests)
    gate.open()
    for job in jobs:
        assert finished(driver.outcome(job)).read_bytes() == DATA
    assert len(server.requests) == asked + len(jobs) - TAKES  # nobody was refused again


def test_whoever_waits_for_a_turn_is_stopped_at_once(crowded: tuple[Driver, list[Job], Gate]) -> None:
    driver, jobs, gate = crowded
    for job in jobs[TAKES:]:
        driver.stop(job)
    gate.open()
    for job in jobs[:TAKES]:
        finished(driver.outcome(job))
    assert finished(driver.run(jobs[-1])).read_bytes() == DATA


def test_a_pause_that_a_server_asks_for_is_every_downloads_and_then_one_asks(
    new_driver: Callable[..., Driver], server: Server, tmp_path: Path
) -> None:
    """A server that counts what it refuses would refuse all of them for ever, if each came by itself."""
    driver, gate, busy = new_driver(QUICK), server.gate(), status(429, {"Retry-After": "2"})
    hold = stall_before_headers(gate)
    finished(driver.run(new_job(server.add("/a.bin", body=DATA), tmp_path)))
    refused = [new_job(server.add(f"/{n}.bin", first(1, busy), hold, body=DATA), tmp_path) for n in "bc"]
    driver.submit(*refused)
    driver.until(lambda: len(server.requests) == 3)
    driver.until(lambda: all(job.uid in driver.progress and asked_to_wait(driver, job) for job in refused))
    others = [new_job(server.add(f"/{n}.bin", hold, body=DATA), tmp_path) for n in "defg"]
    driver.submit(*others)
    driver.until(lambda: all(job.uid in driver.progress and asked_to_wait(driver, job) for job in others))
    assert len(server.requests) == 3
    driver.until_reached(gate)
    driver.until(lambda: sum(is_waiting(driver, job) for job in refused + others) == 5)
    assert len(server.requests) == 4
    gate.open()
    for job in refused + others:
        assert finished(driver.outcome(job)).read_bytes() == DATA


def asked_to_wait(driver: Driver, job: Job) -> bool:
    return "as the server asks" in driver.progress[job.uid].text


# -- Without a socket.


class Holder:
    def hang_up(self) -> None:
        """Nothing is open."""


class Knowing:
    """Some connections, and answers of one server."""

    def __init__(self, limit: int = 16) -> None:
        self.connections = Connections(limit)

    def ask(self, count: int = 1) -> list[Holder]:
        answers = [Holder() for _ in range(count)]
        for answer in answers:
            self.connections.begin(answer, Holder(), "s")
        return answers

    def refuse(self, answer: Holder, wait: float | None = None, who: object = None) -> bool:
        try:
            return self.connections.refused(answer, Busy("It is busy", retry_after=wait), who or answer)
        finally:
            self.connections.end(answer)


@pytest.fixture
def knowing() -> Knowing:
    return Knowing()


def test_a_server_that_brings_nothing_refuses_each_for_itself(knowing: Knowing) -> None:
    assert True not in [knowing.refuse(answer) for answer in knowing.ask(8)]
    knowing.ask(16)


def test_one_that_brings_nothing_yet_may_ask_all_to_wait(knowing: Knowing) -> None:
    """As where its count of what another program has asked for is not over."""
    assert True not in [knowing.refuse(answer, 100.0) for answer in knowing.ask(8)]
    with pytest.raises(Busy):
        knowing.ask()


def test_one_refusal_between_files_that_come_is_about_that_file(knowing: Knowing) -> None:
    for _ in range(5):
        good, bad = knowing.ask(2)
        knowing.connections.served(good)
        assert not knowing.refuse(bad, 100.0)
    knowing.ask(16)


def test_after_a_pause_that_it_asked_for_one_asks_then_more(
    knowing: Knowing, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(connections_module, "time", clock)
    good, *bad = knowing.ask(8)
    knowing.connections.served(good)
    knowing.connections.end(good)
    assert [knowing.refuse(answer, 5.0) for answer in bad] == [False, *[True] * 6]
    with pytest.raises(Busy, match="It is busy") as error:
        knowing.ask()
    assert error.value.retry_after == 5.0
    clock.now += 6.0
    knowing.ask()
    with pytest.raises(AssertionError):  # it would wait, and nobody has said how
        knowing.ask()
    clock.now += 30.0
    knowing.ask()
    clock.now += 90.0
    knowing.ask(14)


def test_one_that_has_brought_something_and_then_nothing_more_refuses_each_for_itself(
    knowing: Knowing,
) -> None:
    (good,) = knowing.ask()
    knowing.connections.served(good)
    knowing.connections.end(good)
    assert [knowing.refuse(*knowing.ask()) for _ in range(6)] == [False] * 6
    knowing.ask(16)


