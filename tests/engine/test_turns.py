"""Workers compute one at a time: advice that holds nobody up."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from driving import Driver, finished, new_job
from server import (
    Behaviour,
    Gate,
    Server,
    informational,
    pattern,
    stall_after,
    stall_before_headers,
    stall_in_headers,
    status,
)

from background_downloads.transfer import turns
from background_downloads.transfer.control import Control, Waker
from background_downloads.transfer.job import Phase
from background_downloads.transfer.turns import Turn

DATA = pattern(150_000)
DEADLINE = 30.0  # seconds, so that a test fails instead of hanging


@contextmanager
def taken() -> Iterator[bool]:
    """The turn, as soon as nobody else has it."""
    turn = Turn()
    turn.take(DEADLINE)
    try:
        yield turn.is_mine
    finally:
        turn.give()


@pytest.mark.parametrize(
    "stall",
    [stall_before_headers, stall_in_headers, partial(stall_after, 1000)],
    ids=["before", "in", "after"],
)
@pytest.mark.parametrize("others", [0, 2])
def test_others_compute_while_one_waits_for_a_server(
    stall: Callable[[Gate], Behaviour], others: int, thread_driver: Driver, server: Server, tmp_path: Path
) -> None:
    for number in range(others):  # which are here at once, over the connection that serves the next one
        finished(thread_driver.run(new_job(server.add(f"/{number}.bin", body=DATA), tmp_path)))
    gate = server.gate()
    thread_driver.submit(new_job(server.add("/a.bin", stall(gate), body=DATA), tmp_path))
    thread_driver.until_reached(gate)
    with taken() as is_mine:
        assert is_mine


def test_others_compute_while_one_waits_to_try_again(
    thread_driver: Driver, server: Server, tmp_path: Path
) -> None:
    job = new_job(server.add("/a.bin", status(503, [("Retry-After", "30")])), tmp_path)
    thread_driver.submit(job)
    thread_driver.until_phase(job, Phase.BACKOFF)
    with taken() as is_mine:
        assert is_mine


def test_what_follows_an_informational_answer_is_waited_for(
    thread_driver: Driver, server: Server, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "BRIEF", DEADLINE)  # so each answer comes at once
    finished(thread_driver.run(new_job(server.add("/a.bin", body=DATA), tmp_path)))
    job = new_job(server.add("/b.bin", informational(103, gate=gate), body=DATA), tmp_path)
    thread_driver.submit(job)
    thread_driver.until_reached(gate)
    gate.open()
    assert finished(thread_driver.outcome(job)).read_bytes() == DATA
    assert len(server.requests_for("/b.bin")) == server.connections.accepted == 1


def test_nobody_has_it_when_all_is_done(thread_driver: Driver, server: Server, tmp_path: Path) -> None:
    for number in range(20):
        thread_driver.submit(new_job(server.add(f"/{number}.bin", body=DATA), tmp_path))
    thread_driver.close()
    with taken() as is_mine:
        assert is_mine


def test_whoever_keeps_it_holds_no_download_up(thread_driver: Driver, server: Server, tmp_path: Path) -> None:
    with taken():
        finished(thread_driver.run(new_job(server.add("/a.bin", body=DATA), tmp_path)))


def test_it_is_kept_while_answers_come_at_once_and_given_once_they_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turn = Turn()
    here, there = socket.socketpair()
    with here, there:
        there.send(b"HTTP/1.1 200 OK\r\n\r\n")
        monkeypatch.setattr(turns, "BRIEF", DEADLINE)
        turn.take()
        with turn:
            turn.expect(here)
            assert turn.is_mine
        monkeypatch.setattr(turns, "BRIEF", 0.0)  # so no answer is quick any more
        with turn:
            turn.expect(here)
            assert turn.is_mine
        with turn:
            turn.expect(here)
            assert not turn.is_mine
        assert turn.give()
    assert not turn.give()


def test_whoever_has_it_has_it_again_after_all_waits_in_a_request() -> None:
    waker, turn = Waker(), Turn()
    control = Control(waker, turn)
    turn.take(DEADLINE)
    with control.guarding():
        turn.give()
        control.wait(timeout=0.0)  # as for a connection
    assert turn.give()
    waker.close()


def test_it_is_given_where_a_disk_was_slow_the_last_time(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = Turn()
    monkeypatch.setattr(turns, "BRIEF", 0.0)
    turn.take()
    with turn.on_disk():
        assert turn.is_mine
    with turn.on_disk():
        assert not turn.is_mine
