"""What only threads can show: defects in a worker, no threads left, any order of calls."""

from __future__ import annotations

import contextlib
import itertools
import locale
import logging
import os
import random
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from driving import DEADLINE, Clock, Driver, Halted, Job, Settings, failed, finished, new_job
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from leaks import LeakCheck, threads
from server import (
    Gate,
    Server,
    after,
    cut_after,
    fail_times,
    first,
    pattern,
    stall_after,
    stall_before_headers,
    status,
)

from background_downloads.hosts import threads as host_threads
from background_downloads.hosts.clerk import Clerk
from background_downloads.transfer import asking, connect, disk, part
from background_downloads.transfer.fetch import Transfer
from background_downloads.workers import Host, ThreadHost

DATA = pattern(150_000)


def test_threads_are_daemons_with_names_that_tell(
    thread_driver: Driver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    job = new_job(server.add("/a.bin", stall_before_headers(gate)), tmp_path)
    thread_driver.submit(job)
    thread_driver.until_reached(gate)
    ours = [thread for thread in threading.enumerate() if thread.name.startswith("downloads-")]
    assert [(thread.name, thread.daemon) for thread in ours] == [("downloads-1", True)]


def test_what_belongs_to_all_scripts_stays_as_it_is(
    thread_driver: Driver, server: Server, tmp_path: Path
) -> None:
    """Random numbers too: a script seeds them so that the same comes of it each time."""

    def shared() -> list[object]:
        signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        times = [sys.getswitchinterval(), socket.getdefaulttimeout()]
        process = [dict(os.environ), os.getcwd(), locale.setlocale(locale.LC_ALL)]
        return [random.getstate(), signals, times, process]

    before = shared()
    url = server.add("/a.bin", fail_times(1), first(2, cut_after(1000)), body=DATA)
    assert finished(thread_driver.run(new_job(url, tmp_path))).read_bytes() == DATA
    assert len(server.requests) == 3
    assert shared() == before


def test_what_is_fetched_again_since_the_server_gives_no_ranges_is_said_to_be(
    thread_driver: Driver, server: Server, tmp_path: Path
) -> None:
    gate, later = server.gate(), server.gate()
    again = after(1, stall_after(50_000, gate), stall_after(120_000, later))
    url = server.add("/a.bin", first(1, stall_after(100_000)), again, body=DATA, ranges=False)
    job = thread_driver.halted(url, tmp_path, 100_000)
    thread_driver.host.hang_up(job.uid)
    thread_driver.submit(job)
    thread_driver.until_reached(gate)
    thread_driver.until(lambda: thread_driver.progress[job.uid].text == "catching up", "the word for it")
    gate.open()
    thread_driver.until_received(job, 120_000)
    assert thread_driver.progress[job.uid].text == ""
    later.open()
    assert finished(thread_driver.outcome(job)).read_bytes() == DATA


def test_a_defect_of_ours_fails_its_download_and_is_told_without_secrets(
    thread_driver: Driver,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = server.url("/a.bin?token=t0ken", user="me:s3cret")

    def fail(*args: Any, **options: Any) -> None:
        try:
            raise KeyError(url)
        except KeyError as error:
            raise RuntimeError(f"could not fetch {url}") from error

    with monkeypatch.context() as patch:
        patch.setattr(asking, "_follow", fail)
        assert "unforeseen" in failed(thread_driver.run(new_job(url, tmp_path)))
    assert "RuntimeError" in caplog.text
    assert "in _ask" in caplog.text
    assert "t0ken" not in caplog.text
    assert "s3cret" not in caplog.text
    assert finished(thread_driver.run(new_job(server.add("/b.bin", body=DATA), tmp_path)))


def test_a_worker_that_dies_and_cannot_close_its_connection_ends_its_download(
    thread_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = connect.Client.close

    def fail(client: connect.Client) -> None:
        close(client)
        raise OSError

    def die(*args: Any) -> None:
        raise KeyError

    job = new_job(server.add("/a.bin", body=DATA), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda args: None)
        patch.setattr(connect.Client, "close", fail)
        patch.setattr(ThreadHost, "put", die)
        assert "unforeseen" in failed(thread_driver.run(job))


def test_a_worker_that_dies_ends_its_download(
    thread_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*args: Any) -> None:
        raise SystemExit

    job = new_job(server.add("/a.bin", body=DATA), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Transfer, "run", die)
        assert "unforeseen" in failed(thread_driver.run(job))
    assert finished(thread_driver.run(job)).read_bytes() == DATA


def test_no_worker_waits_for_what_is_left_for_later() -> None:
    """It would wait for ever, and whoever joins it: the thread that does such things may have left."""
    clerk, done = Clerk(), []
    clerk.defer(lambda: done.append("closed"))
    worker = threading.Thread(target=clerk.settle, daemon=True)
    worker.start()
    worker.join(DEADLINE)
    assert not worker.is_alive()
    assert not done
    clerk.finish()
    assert done == ["closed"]


def no_start(self: Any) -> None:
    raise RuntimeError("can't start new thread")


def test_where_no_thread_can_be_started_the_download_fails(
    thread_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new_job(server.add("/a.bin", body=DATA), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_start)
        assert "another thread" in failed(thread_driver.run(job))
    assert finished(thread_driver.run(job)).read_bytes() == DATA


def test_where_no_thread_can_be_started_all_that_wait_fail(
    thread_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They waited since another host had all the connections, and now no worker comes for any of them."""
    thread_driver.host.resize(0)  # type: ignore[attr-defined]
    jobs = [new_job(server.add(f"/{n}.bin", body=DATA), tmp_path) for n in range(3)]
    thread_driver.submit(*jobs)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_start)
        thread_driver.host.resize(2)  # type: ignore[attr-defined]
        for job in jobs:
            assert "another thread" in failed(thread_driver.outcome(job))
    assert finished(thread_driver.run(jobs[0])).read_bytes() == DATA


def test_where_no_worker_has_memory_all_that_wait_fail(
    thread_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [new_job(server.add(f"/{n}.bin", body=DATA), tmp_path) for n in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(host_threads, "BUFFER", 1 << 62)
        patch.setattr(threading, "excepthook", lambda args: None)
        thread_driver.submit(*jobs)
        for job in jobs:
            assert "unforeseen" in failed(thread_driver.outcome(job))
        thread_driver.until(lambda: not threads(("downloads-",)), "the workers to end")
    assert finished(thread_driver.run(jobs[0])).read_bytes() == DATA


def test_where_no_thread_can_be_started_the_disk_is_waited_for(
    thread_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, stored = tmp_path / "downloads", tmp_path / "list"
    forgotten = thread_driver.halted(server.add("/a.bin", stall_after(50_000), body=DATA), folder, 50_000)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_start)
        thread_driver.host.forget(forgotten.uid)
        thread_driver.host.store(str(stored), b"all")
        assert stored.read_bytes() == b"all"
        assert len(list(folder.glob("*.json"))) == 1
    # What asks the disk first would otherwise wait for ever for what nobody does.
    assert finished(thread_driver.run(new_job(server.add("/b.bin", body=DATA), folder))).read_bytes() == DATA


def test_no_more_workers_than_connections(
    new_thread_driver: Callable[..., Driver], server: Server, gate: Gate, tmp_path: Path
) -> None:
    driver = new_thread_driver(Settings(timeout=90.0, connections=3))
    jobs = [new_job(server.add(f"/{n}.bin", stall_before_headers(gate)), tmp_path) for n in range(10)]
    driver.submit(*jobs)
    driver.until_reached(gate, 3)
    assert sorted(threads()[:0] + [name for name in threads() if name.startswith("downloads-")]) == [
        "downloads-1",
        "downloads-2",
        "downloads-3",
    ]


def test_more_workers_come_only_once_those_there_wait(
    thread_driver: Driver, server: Server, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [new_job(server.add(f"/{n}.bin", stall_before_headers(gate)), tmp_path) for n in range(4)]
    monkeypatch.setattr(host_threads, "SOON", DEADLINE)  # so none waits
    thread_driver.submit(*jobs)
    thread_driver.until_reached(gate, host_threads.AT_ONCE)
    for _ in range(3):
        thread_driver.look()
    assert len([name for name in threads() if name.startswith("downloads-")]) == host_threads.AT_ONCE
    monkeypatch.setattr(host_threads, "SOON", 0.0)
    thread_driver.until_reached(gate, len(jobs))


def test_an_idle_worker_is_used_before_a_new_one(
    thread_driver: Driver, server: Server, tmp_path: Path
) -> None:
    for number in range(5):
        finished(thread_driver.run(new_job(server.add(f"/{number}.bin", body=DATA), tmp_path)))
    assert [name for name in threads() if name.startswith("downloads-")] == ["downloads-1"]
    assert server.connections.accepted == 1


def test_a_drive_that_does_not_answer_holds_up_no_other_folder(
    thread_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who wait for it have their turn all the while."""
    prepare, answers = disk.prepare_folder, threading.Event()

    def prepare_late(directory: str) -> None:
        if directory.endswith("drive"):
            answers.wait(DEADLINE)
        prepare(directory)

    monkeypatch.setattr(disk, "prepare_folder", prepare_late)
    url = server.add("/a.bin", body=DATA)
    stuck = [new_job(server.url(f"/a.bin?{n}"), tmp_path / "drive") for n in range(host_threads.AT_ONCE)]
    job = new_job(url, tmp_path)
    thread_driver.submit(*stuck, job)
    assert finished(thread_driver.outcome(job)).read_bytes() == DATA
    assert not answers.is_set()
    answers.set()
    for each in stuck:
        assert finished(thread_driver.outcome(each)).read_bytes() == DATA


def test_a_drive_that_does_not_answer_holds_up_no_end_that_is_forced(
    thread_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker is left behind, and releases what it has once the drive is back."""
    prepare, asked, answers = disk.prepare_folder, threading.Event(), threading.Event()

    def prepare_late(directory: str) -> None:
        asked.set()
        answers.wait(DEADLINE)
        prepare(directory)

    monkeypatch.setattr(disk, "prepare_folder", prepare_late)
    monkeypatch.setattr(host_threads, "DISK_PATIENCE", 0.0)
    job = new_job(server.add("/a.bin", body=DATA), tmp_path)
    thread_driver.submit(job)
    assert asked.wait(DEADLINE)
    (stuck,) = [thread for thread in threading.enumerate() if thread.name == "downloads-1"]
    thread_driver.shut()
    assert isinstance(thread_driver.outcome(job), Halted)
    assert not answers.is_set()
    answers.set()
    stuck.join(DEADLINE)
    assert not stuck.is_alive()


def test_a_drive_that_does_not_answer_holds_up_no_end_by_what_was_stopped(
    thread_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, answers = server.gate(), threading.Event()
    job = new_job(server.add("/a.bin", stall_after(100_000, body), body=DATA), tmp_path)
    thread_driver.submit(job)
    thread_driver.until_received(job, 100_000)
    thread_driver.stop(job)
    sync = part.portable.sync_data

    def sync_late(fd: int) -> None:
        answers.wait(DEADLINE)
        sync(fd)

    monkeypatch.setattr(part.portable, "sync_data", sync_late)
    monkeypatch.setattr(host_threads, "DISK_PATIENCE", 0.0)
    thread_driver.shut()
    assert not answers.is_set()
    stuck = [thread for thread in threading.enumerate() if thread.name == "downloads-0"]
    answers.set()
    for thread in stuck:
        thread.join(DEADLINE)
    assert len(list(tmp_path.glob("*.json"))) == 1
    body.open()


def test_forgetting_does_not_wait_for_the_disk(
    thread_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While workers are there; and a download of the same file waits until the old one has let go."""
    body = server.gate()
    url = server.add("/a.bin", stall_after(100_000, body), body=DATA)
    old, new = new_job(url, tmp_path), new_job(url, tmp_path)
    thread_driver.submit(old)
    thread_driver.until_received(old, 100_000)
    thread_driver.stop(old)
    disk = threading.Event()
    sync = part.portable.sync_data

    def sync_data(fd: int) -> None:
        disk.wait()
        sync(fd)

    monkeypatch.setattr(part.portable, "sync_data", sync_data)
    thread_driver.host.forget(old.uid)
    thread_driver.submit(new)
    thread_driver.until(lambda: new.uid in thread_driver.started)
    disk.set()
    body.open()
    assert finished(thread_driver.outcome(new)).read_bytes() == DATA


def test_a_slow_disk_is_no_slow_network(
    new_thread_driver: Callable[..., Driver],
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    supervisors_clock: Clock,
) -> None:
    driver = new_thread_driver(Settings(timeout=90.0, connections=1))
    begun, disk = threading.Event(), threading.Event()
    sync = part.os.fsync

    def fsync(fd: int) -> None:
        begun.set()
        disk.wait()
        sync(fd)

    monkeypatch.setattr(part.os, "fsync", fsync)
    job = new_job(server.add("/a.bin", body=DATA), tmp_path)
    driver.submit(job)
    driver.until(begun.is_set)
    supervisors_clock.now += 1000
    driver.until(lambda: driver.progress[job.uid].idle > 900)
    disk.set()
    assert finished(driver.outcome(job)).read_bytes() == DATA
    assert len(server.requests) == 1


# -- Any order of calls.


class Calls(RuleBasedStateMachine):
    """Whatever is called in whatever order: one end for each submission, and nothing left."""

    data = DATA
    run_settings = Settings(timeout=90.0, connections=2)

    host_class: Callable[[Settings], Host] = ThreadHost

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.folder = Path(self.stack.enter_context(TemporaryDirectory()))
        self.stack.enter_context(LeakCheck())
        self.server = self.stack.enter_context(Server())
        self.gates = {kind: self.server.gate() for kind in ("headers", "body")}
        self.driver = Driver(self.host_class(self.run_settings))
        self.jobs: list[Job] = []
        self.numbers = itertools.count()

    @initialize()
    def serve(self) -> None:
        self.server.add("/plain", body=self.data)
        self.server.add("/refused", status(404))
        self.server.add("/headers", stall_before_headers(self.gates["headers"]), body=self.data)
        self.server.add("/body", stall_after(100_000, self.gates["body"]), body=self.data)

    def is_active(self, job: Job) -> bool:
        uid = job.uid
        return self.driver.submitted[uid] > len(self.driver.ended.get(uid, ()))

    @rule(kind=st.sampled_from(["plain", "refused", "headers", "body"]))
    def submit_new(self, kind: str) -> None:
        job = new_job(self.server.url(f"/{kind}?{next(self.numbers)}"), self.folder)
        self.jobs.append(job)
        self.driver.submit(job)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def submit_again(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.jobs))
        if not self.is_active(job):
            self.driver.submit(job)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        self.driver.host.stop(data.draw(st.sampled_from(self.jobs)).uid)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def stop_and_wait(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.jobs))
        if self.is_active(job):
            self.driver.stop(job)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        self.driver.host.forget(data.draw(st.sampled_from(self.jobs)).uid)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def hang_up(self, data: st.DataObject) -> None:
        self.driver.host.hang_up(data.draw(st.sampled_from(self.jobs)).uid)

    @rule(kind=st.sampled_from(["headers", "body"]))
    def let_one_through(self, kind: str) -> None:
        self.gates[kind].step()

    @rule()
    def look(self) -> None:
        self.driver.look()

    @rule()
    def store(self) -> None:
        self.driver.host.store(str(self.folder / "queue.json"), b"data")

    @rule(keep=st.booleans())
    def dismiss(self, keep: bool) -> None:
        self.driver.host.dismiss(keep=keep)

    @rule(forced=st.booleans())
    def close(self, forced: bool) -> None:
        self.driver.take(self.driver.host.close(forced=forced).events)
        assert self.driver.host.is_quiet()
        assert not any(self.is_active(job) for job in self.jobs)
        assert not [name for name in threads() if name.startswith("downloads-")]

    @rule()
    def open_the_gates_and_finish(self) -> None:
        for gate in self.gates.values():
            gate.step(50)
        self.driver.until(lambda: not any(self.is_active(job) for job in self.jobs))

    def teardown(self) -> None:
        with self.stack:
            self.driver.shut()
            for path in self.folder.iterdir():
                if ".json" not in path.name and not path.name.endswith(".part"):
                    assert path.read_bytes() == self.data
            # Twice as many: hang-ups are seen a moment later.
            assert self.server.connections.peak <= 2 * self.run_settings.connections


def test_any_order_of_calls() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Calls, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
    )


class SegmentedCalls(Calls):
    """Four workers on whatever is held."""

    data = pattern(1_000_000)
    run_settings = Settings(timeout=90.0, connections=4, split_seconds=0.0)


def test_any_order_of_calls_with_segments() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        SegmentedCalls, settings=settings(max_examples=40, stateful_step_count=30, deadline=None)
    )


def test_many_threads_asking_at_once_do_not_confuse_a_stop(
    new_thread_driver: Callable[..., Driver], server: Server, tmp_path: Path
) -> None:
    """Stops that come just when transfers end, again and again."""
    driver = new_thread_driver(Settings(timeout=90.0, connections=4))
    server.add("/a.bin", body=b"tiny")
    jobs = [new_job(server.url(f"/a.bin?{n}"), tmp_path) for n in range(300)]
    driver.submit(*jobs)
    for job in jobs:
        driver.host.stop(job.uid)
        driver.look()
    driver.until(lambda: len(driver.ended) == len(jobs))
    assert all(len(outcomes) == 1 for outcomes in driver.ended.values())
    assert Halted() in [outcome for outcomes in driver.ended.values() for outcome in outcomes]
    assert logging.getLogger("urllib3.connectionpool").filters
