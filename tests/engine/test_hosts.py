"""What both hosts promise: each test runs with threads and with a child process."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from driving import (
    Driver,
    Failed,
    Halted,
    Phase,
    Settings,
    failed,
    finished,
    is_private,
    names,
    new_job,
    part_of,
)
from server import (
    Behaviour,
    Gate,
    Server,
    after,
    cut_after,
    drip_headers,
    first,
    html_instead,
    pattern,
    stall_after,
    stall_before_headers,
    stall_in_headers,
    status,
    unreachable_port,
)

from background_downloads.transfer import portable
from background_downloads.transfer.part import discard_leftover, leftovers
from background_downloads.workers import YieldingHost

DATA = pattern(300_000)


def test_a_download_ends_once_and_the_file_is_there(driver: Driver, server: Server, tmp_path: Path) -> None:
    job = new_job(server.add("/a.bin", body=DATA), tmp_path)
    assert finished(driver.run(job)) == tmp_path / "a.bin"
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert names(tmp_path) == ["a.bin"]
    assert driver.started == [job.uid]


def test_a_failure_says_how_much_is_kept(driver: Driver, server: Server, tmp_path: Path) -> None:
    expired = server.add("/a.bin", first(1, cut_after(100_000)), after(1, status(403)), body=DATA)
    damaged = server.add("/b.bin", body=DATA)
    page = server.add("/c.blend", html_instead())
    outcomes = [driver.run(new_job(url, tmp_path, sha256="0" * 64)) for url in (expired, damaged, page)]
    assert [isinstance(each, Failed) and each.kept for each in outcomes] == [100_000, len(DATA), 0]


# -- Stop, in each phase. Nothing here ends by itself: the gates stay closed, the time-out is 90 s.


def test_stop_while_connecting(driver: Driver, tmp_path: Path) -> None:
    with unreachable_port() as port:
        job = new_job(f"http://127.0.0.1:{port}/a.bin", tmp_path)
        driver.submit(job)
        driver.until_phase(job, Phase.CONNECT)
        assert driver.stop(job) == Halted()


def test_stop_in_the_tls_handshake(driver: Driver, tls_server: Server, tmp_path: Path) -> None:
    gate = tls_server.stall_in_handshake()
    job = new_job(tls_server.url("/a.bin"), tmp_path)
    driver.submit(job)
    driver.until_reached(gate)
    assert driver.stop(job) == Halted()
    tls_server.wait_open(0)


@pytest.mark.parametrize("stall", [stall_before_headers, stall_in_headers])
def test_stop_while_waiting_for_headers(
    driver: Driver, server: Server, gate: Gate, tmp_path: Path, stall: Callable[[Gate], Behaviour]
) -> None:
    job = new_job(server.add("/a.bin", stall(gate), body=DATA), tmp_path)
    driver.submit(job)
    driver.until_reached(gate)
    assert driver.stop(job) == Halted()
    server.wait_open(0)


def test_stop_while_a_proxy_does_not_answer(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server() as silent:
        gate = silent.stall_in_handshake()
        monkeypatch.setenv("https_proxy", silent.origin)
        job = new_job("https://files.example/a.bin", tmp_path)
        driver.submit(job)
        driver.until_reached(gate)
        assert driver.stop(job) == Halted()
        silent.wait_open(0)


def test_stop_while_waiting_to_try_again(driver: Driver, server: Server, tmp_path: Path) -> None:
    job = new_job(server.add("/a.bin", status(503, {"Retry-After": "200"})), tmp_path)
    driver.submit(job)
    driver.until_phase(job, Phase.BACKOFF)
    assert driver.stop(job) == Halted()


def test_stop_while_the_download_waits_for_a_worker(
    new_driver: Callable[..., Driver], server: Server, gate: Gate, tmp_path: Path
) -> None:
    driver = new_driver(Settings(timeout=90.0, connections=1))
    running = new_job(server.add("/a.bin", stall_before_headers(gate)), tmp_path)
    waiting = new_job(server.add("/b.bin"), tmp_path)
    driver.submit(running, waiting)
    driver.until_reached(gate)
    assert driver.stop(waiting) == Halted()
    assert server.requests_for("/b.bin") == []
    assert driver.stop(running) == Halted()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_download_stopped_in_a_stalled_body_goes_on_with_its_connection(
    driver: Driver, server: Server, gate: Gate, tmp_path: Path, chunked: bool
) -> None:
    url = server.add("/a.bin", stall_after(100_000, gate), body=DATA, chunked=chunked)
    job = driver.halted(url, tmp_path, 100_000)
    assert server.connections.open == 1
    gate.open()
    assert finished(driver.run(job)).read_bytes() == DATA
    assert len(server.requests_for("/a.bin")) == 1


def test_a_paused_body_goes_on_over_tls(driver: Driver, trusted: Server, tmp_path: Path) -> None:
    gate = trusted.gate()
    url = trusted.add("/a.bin", stall_after(100_000, gate), body=DATA)
    job = driver.halted(url, tmp_path, 100_000)
    gate.open()
    assert finished(driver.run(job)).read_bytes() == DATA
    assert len(trusted.requests_for("/a.bin")) == 1


def test_stopping_again_at_once_keeps_the_connection(driver: Driver, server: Server, tmp_path: Path) -> None:
    gate = server.gate()
    url = server.add("/a.bin", stall_after(100_000, gate), body=DATA)
    job = driver.begun(url, tmp_path, 100_000)
    for _ in range(20):
        driver.host.stop(job.uid)
        assert driver.outcome(job) == Halted()
        driver.submit(job)
    gate.open()
    assert finished(driver.outcome(job)).read_bytes() == DATA
    assert len(server.requests_for("/a.bin")) == 1


def test_interrupted_asking_does_not_count_as_a_try(driver: Driver, server: Server, tmp_path: Path) -> None:
    gate = server.gate()
    job = new_job(server.add("/a.bin", stall_before_headers(gate), body=DATA), tmp_path)
    for turn in range(45):  # more than retry.REQUESTS
        driver.submit(job)
        driver.until_reached(gate, turn + 1)
        assert driver.stop(job) == Halted()
    gate.open()
    assert finished(driver.run(job)).read_bytes() == DATA


def test_stop_of_what_has_ended_or_never_was_changes_nothing(
    driver: Driver, server: Server, tmp_path: Path
) -> None:
    job = new_job(server.add("/a.bin", body=DATA), tmp_path)
    finished(driver.run(job))
    driver.host.stop(job.uid)
    driver.host.stop(10**6)
    driver.look()
    assert len(driver.ended[job.uid]) == 1


def test_a_uid_is_not_submitted_twice_at_a_time(driver: Driver, server: Server, tmp_path: Path) -> None:
    gate = server.gate()
    job = new_job(server.add("/a.bin", stall_before_headers(gate), body=DATA), tmp_path)
    driver.submit(job)
    driver.until_reached(gate)
    with pytest.raises(ValueError, match="twice"):
        driver.host.submit(job)
    gate.open()
    assert finished(driver.outcome(job)).read_bytes() == DATA


def test_a_stop_that_races_with_the_end_leaves_one_outcome(
    driver: Driver, server: Server, tmp_path: Path
) -> None:
    for number in range(50):
        job = new_job(server.add(f"/{number}.bin", body=b"x" * number), tmp_path)
        driver.submit(job)
        driver.until(lambda: job.uid in driver.started)  # noqa: B023
        driver.host.stop(job.uid)
        driver.outcome(job)


# -- Connections.


def test_the_longest_stopped_gives_its_connection_to_others(
    new_driver: Callable[..., Driver], server: Server, gate: Gate, tmp_path: Path
) -> None:
    driver = new_driver(Settings(timeout=90.0, connections=3))
    held = [
        new_job(server.add(f"/{n}.bin", stall_after(100_000, gate), body=DATA), tmp_path) for n in range(3)
    ]
    for job in held:
        driver.submit(job)
        driver.until_received(job, 100_000)
        driver.stop(job)
    assert server.connections.open == 3
    other = new_job(server.add("/other.bin", body=DATA), tmp_path)
    finished(driver.run(other))
    gate.open()
    for job in reversed(held):
        assert finished(driver.run(job)).read_bytes() == DATA
    assert [len(server.requests_for(f"/{n}.bin")) for n in range(3)] == [2, 1, 1]
    assert server.connections.peak <= 3 + 1  # a hang-up is seen a moment after the next one connects


def test_idle_connections_count_too(
    new_driver: Callable[..., Driver], server: Server, gate: Gate, tmp_path: Path
) -> None:
    """One worker idles with a connection, another works, and a stopped transfer keeps its own."""
    driver = new_driver(Settings(timeout=90.0, connections=2))
    both = [new_job(server.add(f"/{n}.bin", stall_after(100_000, gate), body=DATA), tmp_path) for n in "ab"]
    driver.submit(*both)
    for job in both:
        driver.until_received(job, 100_000)
    assert driver.stop(both[0]) == Halted()
    other = new_job(server.add("/c.bin", body=DATA), tmp_path)
    finished(driver.run(other))  # over the worker that stopped, which now idles with a connection
    server.wait_open(2)
    gate.open()
    for job in (both[1], both[0]):
        if job is both[0]:
            driver.submit(job)
        assert finished(driver.outcome(job)).read_bytes() == DATA
    assert server.connections.peak <= 3


def test_a_download_that_goes_on_is_left_alone_and_idle_connections_make_room(
    new_driver: Callable[..., Driver], server: Server, gate: Gate, tmp_path: Path
) -> None:
    driver = new_driver(Settings(timeout=90.0, connections=2, split_seconds=3600.0))
    url = server.add("/a.bin", stall_after(100_000, gate), body=DATA)
    job = driver.halted(url, tmp_path, 100_000)
    finished(driver.run(new_job(server.add("/b.bin", body=DATA), tmp_path)))
    server.wait_open(2)
    driver.submit(job)
    driver.until_phase(job, Phase.BODY)
    finished(driver.run(new_job(server.url("/b.bin"), tmp_path)))
    server.wait_open(2)
    gate.open()
    assert finished(driver.outcome(job)).read_bytes() == DATA
    assert len(server.requests_for("/a.bin")) == 1


def test_one_worker_keeps_one_connection_whatever_the_host(
    new_driver: Callable[..., Driver], server: Server, tmp_path: Path
) -> None:
    driver = new_driver(Settings(timeout=90.0, connections=1))
    server.add("/a.bin", body=DATA)
    for host in ("127.0.0.1", "localhost", "127.0.0.1"):
        finished(driver.run(new_job(server.url("/a.bin", host=host), tmp_path)))
        server.wait_open(1)
    assert server.connections.accepted == 3


# -- Letting go.


def test_dismiss_stops_all_and_needs_no_waiting(driver: Driver, server: Server, tmp_path: Path) -> None:
    gate = server.gate()
    jobs = [new_job(server.add(f"/{n}.bin", stall_before_headers(gate)), tmp_path) for n in range(20)]
    driver.submit(*jobs)
    driver.until_reached(gate, 4)
    driver.host.dismiss()
    driver.until(driver.host.is_quiet)
    driver.close()
    assert all(driver.ended[job.uid] == [Halted()] for job in jobs)


def test_a_dismissed_host_can_be_used_again_at_once(driver: Driver, server: Server, tmp_path: Path) -> None:
    gate = server.gate()
    url = server.add("/a.bin", stall_after(100_000, gate), body=DATA)
    job = driver.begun(url, tmp_path, 100_000)
    driver.host.dismiss(keep=True)
    assert driver.outcome(job) == Halted()
    driver.until(driver.host.is_quiet)
    gate.open()
    assert finished(driver.run(job)).read_bytes() == DATA
    assert len(server.requests_for("/a.bin")) == 1


def test_what_is_submitted_while_the_workers_leave_is_downloaded(
    driver: Driver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    held = new_job(server.add("/a.bin", stall_before_headers(gate)), tmp_path)
    driver.submit(held)
    driver.until_reached(gate)
    driver.host.dismiss()
    job = new_job(server.add("/b.bin", body=DATA), tmp_path)
    assert finished(driver.run(job)).read_bytes() == DATA
    assert driver.outcome(held) == Halted()


def test_closing_twice_or_unused_does_nothing(driver: Driver) -> None:
    assert driver.host.is_quiet()
    driver.close()
    driver.close()
    driver.host.dismiss()
    assert driver.host.is_quiet()


def test_a_closed_host_goes_on_where_it_was(driver: Driver, server: Server, tmp_path: Path) -> None:
    gate = server.gate()
    url = server.add("/a.bin", first(1, stall_after(200_000, gate)), body=DATA)
    job = driver.begun(url, tmp_path, 200_000)
    driver.close()
    gate.open()
    assert finished(driver.run(job)).read_bytes() == DATA
    starts = [request.range_start for request in server.requests_for("/a.bin")]
    assert starts in ([None], [None, 200_000 - (64 << 10)])  # threads keep the connection


def test_another_host_goes_on_where_the_last_one_was_shut(
    new_driver: Callable[..., Driver], server: Server, gate: Gate, tmp_path: Path
) -> None:
    url = server.add("/a.bin", first(1, stall_after(200_000, gate)), body=DATA)
    job = new_job(url, tmp_path)
    old = new_driver()
    old.submit(job)
    old.until_received(job, 200_000)
    old.shut()
    assert finished(new_driver().run(new_job(url, tmp_path))).read_bytes() == DATA
    assert server.requests_for("/a.bin")[1].range_start == 200_000 - (64 << 10)


def test_a_download_that_gives_way_hands_on_what_it_received(
    driver: Driver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    url = server.add("/a.bin", first(1, stall_after(200_000, gate)), body=DATA)
    old, new = new_job(url, tmp_path), new_job(url, tmp_path)
    driver.submit(old)
    driver.until_received(old, 200_000)
    driver.stop(old)
    driver.host.forget(old.uid)
    assert finished(driver.run(new)).read_bytes() == DATA
    assert server.requests_for("/a.bin")[1].range_start == 200_000 - (64 << 10)


@pytest.mark.parametrize("closed", [False, True])
def test_what_was_deleted_and_forgotten_does_not_come_back(
    driver: Driver, server: Server, gate: Gate, tmp_path: Path, closed: bool
) -> None:
    url = server.add("/a.bin", stall_after(200_000, gate), body=DATA)
    job = driver.halted(url, tmp_path, 200_000)
    if closed:
        driver.close()
    discard_leftover(str(tmp_path), part_of(tmp_path).name)
    driver.host.forget(job.uid)
    driver.until(lambda: server.connections.open == 0)
    driver.close()
    assert names(tmp_path) == []


def test_what_is_forgotten_while_no_thread_may_be_started_is_kept_without_a_wait_for_the_disk(
    thread_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a slow one, and a window waits."""
    url = server.add("/a.bin", first(1, stall_after(200_000, server.gate())), body=DATA)
    job = thread_driver.halted(url, tmp_path, 200_000)
    thread_driver.close()
    with monkeypatch.context() as patch:
        patch.setattr(portable, "sync_data", lambda fd: pytest.fail("it waits"))
        thread_driver.host.forget(job.uid)
    thread_driver.until(lambda: server.connections.open == 0)
    thread_driver.shut()
    assert [left.received for left in leftovers(str(tmp_path))] == [200_000]


def test_what_runs_is_not_forgotten(driver: Driver, server: Server, gate: Gate, tmp_path: Path) -> None:
    url = server.add("/a.bin", stall_after(100_000, gate), body=DATA)
    job = driver.begun(url, tmp_path, 100_000)
    driver.host.forget(job.uid)
    gate.open()
    assert finished(driver.outcome(job)).read_bytes() == DATA


# -- Descriptors.


def test_failed_downloads_hold_nothing_open(driver: Driver, server: Server, tmp_path: Path) -> None:
    gate = server.gate()
    url = server.add("/a.bin", first(1, stall_after(200_000, gate)), after(1, status(403)), body=DATA)
    job = driver.halted(url, tmp_path, 200_000)
    driver.host.hang_up(job.uid)
    assert "403" in failed(driver.run(job))
    other = new_job(url, tmp_path)  # the file is not locked any more
    assert "403" in failed(driver.run(other))


def test_many_stopped_downloads_keep_few_files_open(
    new_driver: Callable[..., Driver], server: Server, gate: Gate, tmp_path: Path
) -> None:
    driver = new_driver(Settings(timeout=90.0, connections=2))
    jobs = [
        new_job(server.add(f"/{n}.bin", first(1, stall_after(200_000, gate)), body=DATA), tmp_path)
        for n in range(6)
    ]
    for job in jobs:
        driver.submit(job)
        driver.until_received(job, 200_000)
        driver.stop(job)
    server.wait_open(2)
    gate.open()
    for job in jobs:
        assert finished(driver.run(job)).read_bytes() == DATA
    starts = [server.requests_for(f"/{n}.bin")[-1].range_start for n in range(4)]
    assert starts == [200_000 - (64 << 10)] * 4


# -- The list on the disk.


@pytest.mark.parametrize("size", [0, 10, 1_000_000])
def test_storing_replaces_a_file_that_only_the_user_reads(driver: Driver, tmp_path: Path, size: int) -> None:
    path = tmp_path / "queue.json"
    path.write_bytes(b"old")
    path.chmod(0o644)
    driver.host.store(str(path), b"not this one")
    driver.host.store(str(path), pattern(size))
    driver.until(lambda: path.read_bytes() == pattern(size))
    assert is_private(path)
    assert names(tmp_path) == ["queue.json"]


def test_a_file_that_cannot_be_written_holds_up_nothing_and_is_said_once(
    driver: Driver,
    server: Server,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(3):
        driver.host.store(str(tmp_path / "missing" / "queue.json"), b"list")
        finished(driver.run(new_job(server.add("/a.bin", body=DATA), tmp_path)))
    driver.host.store(str(tmp_path / "missing" / "queue.json"), b"list")
    driver.close()
    (said,) = [*caplog.messages, *capfd.readouterr().err.splitlines()]  # by us, or by the child
    assert said == "The list of downloads cannot be written to the disk now: No such file or directory"


def test_while_held_a_file_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    """As while Blender renders."""
    host = YieldingHost(Settings())
    host.hold()
    host.store(str(tmp_path / "missing" / "queue.json"), b"list")
    host.store(str(tmp_path / "queue.json"), b"list")
    assert (tmp_path / "queue.json").read_bytes() == b"list"
    host.shut()


def test_what_was_stored_last_is_written_before_the_end(driver: Driver, tmp_path: Path) -> None:
    for number in range(20):
        driver.host.store(str(tmp_path / "queue.json"), b"%d" % number * 50_000)
        driver.look()
    driver.close()
    assert (tmp_path / "queue.json").read_bytes() == b"19" * 50_000


def test_storing_after_dismiss_holds_up_nothing(driver: Driver, server: Server, tmp_path: Path) -> None:
    finished(driver.run(new_job(server.add("/a.bin", body=DATA), tmp_path)))
    driver.host.dismiss()
    driver.host.store(str(tmp_path / "queue.json"), b"late")
    driver.until(driver.host.is_quiet)
    driver.close()
    assert (tmp_path / "queue.json").read_bytes() == b"late"


def test_storing_goes_on_after_the_workers_were_dismissed_and_came_back(
    driver: Driver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    path = tmp_path / "queue.json"
    driver.host.store(str(path), b"one")
    driver.host.dismiss(keep=True)
    job = new_job(server.add("/a.bin", stall_before_headers(gate), body=DATA), tmp_path)
    driver.submit(job)
    driver.host.store(str(path), b"two")
    driver.until(lambda: path.exists() and path.read_bytes() == b"two")
    gate.open()
    finished(driver.outcome(job))


# -- Many.


def test_thousands_of_small_files(new_driver: Callable[..., Driver], server: Server, tmp_path: Path) -> None:
    driver = new_driver(Settings(timeout=90.0, connections=4))
    server.add("/tiny.txt", body=b"tiny")
    jobs = [new_job(server.url(f"/tiny.txt?{n}"), tmp_path / str(n % 50)) for n in range(1000)]
    driver.submit(*jobs)
    driver.until(lambda: len(driver.ended) == len(jobs))
    assert sum(len(names(tmp_path / str(n))) for n in range(50)) == len(jobs)
    assert server.connections.accepted <= 4


def test_closing_ends_what_runs_and_ten_thousand_that_wait(
    driver: Driver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    server.add("/a.bin", stall_before_headers(gate))
    jobs = [new_job(server.url(f"/a.bin?{n}"), tmp_path) for n in range(10_000)]
    driver.submit(*jobs)
    driver.until_reached(gate, 4)
    driver.close()
    assert all(driver.ended[job.uid] == [Halted()] for job in jobs)
    assert driver.host.is_quiet()


def test_ten_thousand_stops_are_heard(driver: Driver, server: Server, gate: Gate, tmp_path: Path) -> None:
    server.add("/a.bin", stall_before_headers(gate))
    jobs = [new_job(server.url(f"/a.bin?{n}"), tmp_path) for n in range(10_000)]
    driver.submit(*jobs)
    driver.until_reached(gate)
    for job in jobs:
        driver.host.stop(job.uid)
    driver.until(lambda: len(driver.ended) == len(jobs))


def test_a_slow_download_does_not_hold_up_others(driver: Driver, server: Server, tmp_path: Path) -> None:
    gate = server.gate()
    slow = new_job(server.add("/slow.bin", drip_headers(gate), body=DATA), tmp_path)
    driver.submit(slow)
    driver.until_reached(gate)
    assert finished(driver.run(new_job(server.add("/a.bin", body=DATA), tmp_path))).read_bytes() == DATA
    gate.open()
    assert finished(driver.outcome(slow)).read_bytes() == DATA


def test_a_server_that_closed_a_kept_connection_is_asked_again(
    driver: Driver, server: Server, tmp_path: Path
) -> None:
    for number in range(3):
        job = new_job(server.add(f"/{number}.bin", body=DATA), tmp_path)
        assert finished(driver.run(job)).read_bytes() == DATA
        server.drop_connections()
        server.wait_open(0)
    assert socket.getdefaulttimeout() is None
