"""Threads yield to a child while their process is held, as it is while Blender renders."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driving import Driver, Halted, Job, Phase, Settings, finished, names, new_job
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test
from leaks import children, freeze, thaw, threads
from server import (
    DEADLINE,
    Gate,
    Server,
    after,
    fail_times,
    first,
    pattern,
    stall_after,
    stall_before_headers,
    unreachable_port,
)
from test_thread_host import Calls

from background_downloads.hosts.threads import ThreadHost
from background_downloads.hosts.yielding import HELD, WAITING, YieldingHost
from background_downloads.transfer import part

DATA = pattern(600_000)
HALF = 300_000
OVERLAP = 64 << 10


class HeldDriver(Driver):
    """Holds the process and lets it go."""

    host: YieldingHost

    def hold(self) -> None:
        """As a render does; returns once no thread is left."""
        self.host.hold()
        self.until(lambda: not workers(), "the threads to end")

    def let_go(self) -> None:
        self.host.let_go()
        self.look()

    def until_text(self, job: Job, text: str) -> None:
        self.until(lambda: job.uid in self.progress and self.progress[job.uid].text == text, text)


def workers() -> list[str]:
    return threads(("downloads-",))


@pytest.fixture
def new_held_driver() -> Iterator[Callable[..., HeldDriver]]:
    made: list[HeldDriver] = []

    def make(limit: int = 4) -> HeldDriver:
        made.append(HeldDriver(YieldingHost(Settings(timeout=90.0, connections=limit))))
        return made[-1]

    yield make
    for driver in made:
        driver.shut()


@pytest.fixture
def driver(new_held_driver: Callable[..., HeldDriver]) -> HeldDriver:
    return new_held_driver()


def serve_held(
    server: Server, name: str = "a.bin", later: Gate | None = None, **options: object
) -> tuple[str, Gate]:
    """A file whose first answer stops in the middle until the gate opens, and perhaps once more later."""
    gate = server.gate()
    stalls = [stall_after(HALF, gate), *([stall_after(HALF + 50_000, later)] if later else [])]
    return server.add(f"/{name}", first(1, *stalls), body=DATA, **options), gate


def start(driver: HeldDriver, url: str, folder: Path) -> Job:
    return driver.begun(url, folder, HALF)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not count by thread, or not fairly")
@pytest.mark.parametrize(("host", "niceness"), [(YieldingHost, 10), (ThreadHost, 0)])
def test_threads_beside_a_window_come_after_its_own(
    server: Server, tmp_path: Path, host: type[YieldingHost | ThreadHost], niceness: int
) -> None:
    driver = Driver(host(Settings(timeout=90.0)))
    url, _ = serve_held(server)
    driver.begun(url, tmp_path, HALF)
    found = [thread.native_id or 0 for thread in threading.enumerate() if thread.name in workers()]
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())  # 0, unless the tests run beside others
    assert [os.getpriority(os.PRIO_PROCESS, number) for number in found] == [max(own, niceness)]
    assert own < 10
    driver.shut()


def test_what_is_received_goes_on_in_the_child_where_it_was(
    driver: HeldDriver, server: Server, tmp_path: Path
) -> None:
    url, _ = serve_held(server)
    job = start(driver, url, tmp_path)
    driver.hold()
    assert finished(driver.outcome(job)).read_bytes() == DATA
    assert workers() == []
    assert len(children()) == 1
    assert [request.range_start for request in server.requests] == [None, HALF - OVERLAP]
    assert names(tmp_path) == ["a.bin"]


def test_the_threads_come_back_and_the_child_goes(driver: HeldDriver, server: Server, tmp_path: Path) -> None:
    url, _ = serve_held(server)
    job = start(driver, url, tmp_path)
    driver.hold()
    finished(driver.outcome(job))
    driver.let_go()
    driver.until(lambda: not children(), "the child to leave")
    other, gate = serve_held(server, "b.bin")
    later = start(driver, other, tmp_path)
    assert workers()
    assert not children()
    gate.open()
    assert finished(driver.outcome(later)).read_bytes() == DATA


def test_what_only_its_connection_can_bring_waits_with_it(
    driver: HeldDriver, server: Server, tmp_path: Path
) -> None:
    url, gate = serve_held(server, etag=None, last_modified=None)
    job = start(driver, url, tmp_path)
    driver.hold()
    driver.until_text(job, HELD)
    gate.open()
    for _ in range(20):
        driver.look()
    assert driver.ended == {}
    assert driver.progress[job.uid].received == HALF
    assert not children()
    driver.let_go()
    assert finished(driver.outcome(job)).read_bytes() == DATA
    assert len(server.requests) == 1


@pytest.mark.parametrize("limit", [80_000_000, 1_000_001, 2, 0])
def test_threads_and_child_share_one_speed_limit(
    driver: HeldDriver, server: Server, tmp_path: Path, limit: int
) -> None:
    """As they do once a render is over, where something could not move and something has not ended."""
    fixed_url, gate = serve_held(server, "fixed.bin", etag=None, last_modified=None)
    later = server.gate()
    answers = first(1, stall_after(HALF, server.gate())), after(1, stall_after(OVERLAP + 50_000, later))
    moving_url = server.add("/moving.bin", *answers, body=DATA)
    fixed, moving = start(driver, fixed_url, tmp_path), start(driver, moving_url, tmp_path)
    driver.hold()
    driver.until(lambda: driver.progress[moving.uid].received == HALF + 50_000, "the child to go on")
    driver.let_go()
    driver.until(lambda: driver.progress[fixed.uid].phase is Phase.BODY, "the threads to go on")
    driver.host.change(speed_limit=limit)
    driver.look()
    here, there = driver.host._threads, driver.host._child
    assert there
    assert here.settings.speed_limit + there.settings.speed_limit == limit
    assert abs(here.settings.speed_limit - there.settings.speed_limit) <= 1
    driver.host.change(speed_limit=90_000_000)
    later.open()
    finished(driver.outcome(moving))
    driver.until(lambda: not children(), "the child to leave")
    assert here.settings.speed_limit == 90_000_000
    gate.open()
    assert finished(driver.outcome(fixed)).read_bytes() == DATA


def test_what_cannot_move_waits_beside_what_does(driver: HeldDriver, server: Server, tmp_path: Path) -> None:
    fixed_url, gate = serve_held(server, "fixed.bin", etag=None, last_modified=None)
    moving_url, _ = serve_held(server, "moving.bin")
    fixed = start(driver, fixed_url, tmp_path)
    moving = start(driver, moving_url, tmp_path)
    driver.hold()
    assert finished(driver.outcome(moving)).read_bytes() == DATA
    driver.until_text(fixed, HELD)
    gate.open()
    driver.let_go()
    assert finished(driver.outcome(fixed)).read_bytes() == DATA
    assert len(server.requests_for("/fixed.bin")) == 1


def test_what_stops_last_keeps_its_connection_too(
    driver: HeldDriver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker is at the disk, while another download could move already."""
    at_disk, go_on = threading.Event(), threading.Event()
    write = part.Part.write

    def slowly(self: part.Part, data: memoryview, offset: int) -> bool:
        if os.path.basename(self.file.place).startswith("fixed") and offset >= HALF:
            at_disk.set()
            go_on.wait(DEADLINE)
        return write(self, data, offset)

    monkeypatch.setattr(part.Part, "write", slowly)
    rest = server.gate()
    fixed_url, gate = serve_held(server, "fixed.bin", rest, etag=None, last_modified=None)
    moving_url, _ = serve_held(server, "moving.bin")
    moving, fixed = start(driver, moving_url, tmp_path), start(driver, fixed_url, tmp_path)
    gate.open()
    driver.until(at_disk.is_set, "the disk")
    driver.host.hold()
    for _ in range(20):
        driver.look()
    go_on.set()
    assert finished(driver.outcome(moving)).read_bytes() == DATA
    driver.until_text(fixed, HELD)
    rest.open()
    driver.let_go()
    assert finished(driver.outcome(fixed)).read_bytes() == DATA
    assert len(server.requests_for("/fixed.bin")) == 1


def test_what_is_added_while_held_goes_to_the_child(
    driver: HeldDriver, server: Server, tmp_path: Path
) -> None:
    driver.hold()
    url, gate = serve_held(server)
    job = start(driver, url, tmp_path)
    assert len(children()) == 1
    assert workers() == []
    driver.let_go()
    gate.open()
    assert finished(driver.outcome(job)).read_bytes() == DATA
    assert len(server.requests) == 1, "it stays in the child until it ends"
    driver.until(lambda: not children(), "the child to leave")


def start_moving(driver: HeldDriver, server: Server, folder: Path, name: str, gate: Gate) -> Job:
    """Its first answer stops in the middle for good, and all others are held at the gate."""
    first_answer, later = first(1, stall_after(HALF, server.gate())), after(1, stall_before_headers(gate))
    return start(driver, server.add(f"/{name}", first_answer, later, body=DATA), folder)


def start_fixed(
    driver: HeldDriver, server: Server, folder: Path, name: str = "fixed.bin"
) -> tuple[Job, Gate]:
    """Only its connection can bring the rest, once the gate opens."""
    url, gate = serve_held(server, name, etag=None, last_modified=None)
    return start(driver, url, folder), gate


def test_the_child_has_as_many_connections_as_the_threads_had(
    driver: HeldDriver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    """A server may give each connection so much: with fewer of them all would come down slower."""
    jobs = [start_moving(driver, server, tmp_path, name, gate) for name in "abcd"]
    driver.hold()
    driver.until_reached(gate, 4)
    gate.open()
    for job in jobs:
        assert finished(driver.outcome(job)).read_bytes() == DATA


def test_each_connection_that_stays_behind_is_one_less_for_the_child_until_it_is_closed(
    driver: HeldDriver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    stopped, forgotten = (start_fixed(driver, server, tmp_path, f"{n}.bin")[0] for n in range(2))
    jobs = [start_moving(driver, server, tmp_path, name, gate) for name in "ab"]
    driver.hold()
    others = [
        new_job(server.add(f"/{name}", stall_before_headers(gate), body=DATA), tmp_path) for name in "cd"
    ]
    driver.submit(*others)
    driver.until_reached(gate, 2)
    for _ in range(20):
        driver.look()
    assert server.connections.open == 4
    assert [driver.progress[job.uid].text for job in (stopped, forgotten)] == [HELD, HELD]
    assert driver.stop(stopped) == Halted()
    driver.host.hang_up(stopped.uid)
    driver.until_reached(gate, 3)
    assert driver.stop(forgotten) == Halted()
    driver.host.forget(forgotten.uid)
    driver.until_reached(gate, 4)
    gate.open()
    for job in [*jobs, *others]:
        assert finished(driver.outcome(job)).read_bytes() == DATA


def test_what_is_paused_gives_its_connection_up_for_what_the_child_has(
    new_held_driver: Callable[..., HeldDriver], server: Server, gate: Gate, tmp_path: Path
) -> None:
    driver = new_held_driver(3)
    paused = [driver.halted(serve_held(server, f"{n}.bin")[0], tmp_path, HALF) for n in range(2)]
    fixed, rest = start_fixed(driver, server, tmp_path)
    driver.hold()
    others = [new_job(server.add(f"/{n}", stall_before_headers(gate), body=DATA), tmp_path) for n in "ab"]
    driver.submit(*others)
    driver.until_reached(gate, 2)
    gate.open()
    for job in others:
        assert finished(driver.outcome(job)).read_bytes() == DATA
    driver.let_go()
    rest.open()
    assert finished(driver.outcome(fixed)).read_bytes() == DATA
    assert len(server.requests_for("/fixed.bin")) == 1
    for job in paused:
        assert finished(driver.run(job)).read_bytes() == DATA


def test_the_child_has_all_connections_once_what_stayed_behind_has_ended(
    driver: HeldDriver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    fixed, rest = start_fixed(driver, server, tmp_path)
    jobs = [start_moving(driver, server, tmp_path, name, gate) for name in "abc"]
    driver.hold()
    driver.until_reached(gate, 3)
    driver.let_go()
    other = new_job(server.add("/d.bin", stall_before_headers(gate), body=DATA), tmp_path)
    driver.submit(other)
    rest.open()
    assert finished(driver.outcome(fixed)).read_bytes() == DATA
    driver.until_reached(gate, 4)
    gate.open()
    for job in [*jobs, other]:
        assert finished(driver.outcome(job)).read_bytes() == DATA


def test_what_has_moved_waits_where_it_was_until_it_goes_on(
    driver: HeldDriver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    job = start_moving(driver, server, tmp_path, "a.bin", gate)
    driver.hold()
    driver.look()  # the child has not said a word yet
    waiting = driver.progress[job.uid]
    assert (waiting.text, waiting.phase, waiting.received) == (WAITING, Phase.IDLE, HALF)
    driver.until_phase(job, Phase.REQUEST)
    assert driver.progress[job.uid].text == ""
    gate.open()
    assert finished(driver.outcome(job)).read_bytes() == DATA


def test_what_waits_for_its_turn_goes_to_the_child_too(
    new_held_driver: Callable[..., HeldDriver], server: Server, tmp_path: Path
) -> None:
    driver = new_held_driver(1)
    url, _ = serve_held(server)
    job = start(driver, url, tmp_path)
    waiting = new_job(server.add("/b.bin", body=DATA), tmp_path)
    driver.submit(waiting)
    driver.hold()
    assert finished(driver.outcome(job)).read_bytes() == DATA
    assert finished(driver.outcome(waiting)).read_bytes() == DATA
    assert server.connections.peak <= 2  # hang-ups are seen a moment later


def test_a_phase_before_the_body_is_begun_again_in_the_child(
    driver: HeldDriver, server: Server, tls_server: Server, tmp_path: Path
) -> None:
    """Connecting, TLS handshake, headers, backoff: interrupted, and not counted as a try."""
    gate, shy = server.gate(), tls_server.stall_in_handshake()
    headers = new_job(server.add("/h.bin", first(1, stall_before_headers(gate)), body=DATA), tmp_path)
    busy = new_job(server.add("/r.bin", fail_times(1, 503, {"Retry-After": "1"}), body=DATA), tmp_path)
    handshake = new_job(tls_server.url("/t.bin"), tmp_path)
    with unreachable_port() as port:
        connecting = new_job(f"http://127.0.0.1:{port}/c.bin", tmp_path)
        driver.submit(headers, busy, handshake, connecting)
        driver.until_reached(gate)
        driver.until_reached(shy)
        driver.until_phase(busy, Phase.BACKOFF)
        driver.until_phase(connecting, Phase.CONNECT)
        driver.hold()
        assert finished(driver.outcome(headers)).read_bytes() == DATA
        assert finished(driver.outcome(busy)).read_bytes() == DATA
        driver.until_phase(connecting, Phase.CONNECT)
        assert workers() == []
        assert driver.stop(connecting) == Halted()
        assert driver.stop(handshake) == Halted()


def test_stop_of_what_is_held(driver: HeldDriver, server: Server, tmp_path: Path) -> None:
    url, gate = serve_held(server, etag=None, last_modified=None)
    job = start(driver, url, tmp_path)
    driver.hold()
    driver.until_text(job, HELD)
    assert driver.stop(job) == Halted()
    driver.let_go()
    gate.open()
    assert finished(driver.run(job)).read_bytes() == DATA
    assert len(server.requests) == 1


def test_a_stop_beside_the_hold_is_the_callers(driver: HeldDriver, server: Server, tmp_path: Path) -> None:
    url, _ = serve_held(server)
    job = start(driver, url, tmp_path)
    driver.host.hold()
    driver.host.stop(job.uid)
    assert driver.outcome(job) == Halted()
    driver.until(lambda: not workers())
    assert not children()


def test_a_short_hold_keeps_the_connections(driver: HeldDriver, server: Server, tmp_path: Path) -> None:
    """A blocking render: nothing ticks until it is over."""
    url, gate = serve_held(server)
    job = start(driver, url, tmp_path)
    driver.host.hold()
    driver.host.let_go()
    gate.open()
    assert finished(driver.outcome(job)).read_bytes() == DATA
    assert len(server.requests) == 1
    assert not children()


def test_held_connections_count(
    new_held_driver: Callable[..., HeldDriver], server: Server, gate: Gate, tmp_path: Path
) -> None:
    driver = new_held_driver(2)
    fixed_url, fixed_gate = serve_held(server, "fixed.bin", etag=None, last_modified=None)
    fixed = start(driver, fixed_url, tmp_path)
    driver.hold()
    driver.until_text(fixed, HELD)
    others = [new_job(server.add(f"/{n}", stall_before_headers(gate), body=DATA), tmp_path) for n in "xyz"]
    driver.submit(*others)
    driver.until_reached(gate)
    for _ in range(20):
        driver.look()
    assert server.connections.open == 2
    gate.open()
    for other in others:
        assert finished(driver.outcome(other)).read_bytes() == DATA
    driver.let_go()
    fixed_gate.open()
    assert finished(driver.outcome(fixed)).read_bytes() == DATA
    assert len(server.requests_for("/fixed.bin")) == 1


def test_the_last_connection_is_given_up_for_others(
    new_held_driver: Callable[..., HeldDriver], server: Server, tmp_path: Path
) -> None:
    driver = new_held_driver(1)
    url, _ = serve_held(server, etag=None, last_modified=None)
    fixed = start(driver, url, tmp_path)
    driver.hold()
    driver.until_text(fixed, HELD)
    other = new_job(server.add("/b.bin", body=DATA), tmp_path)
    driver.submit(other)
    assert finished(driver.outcome(other)).read_bytes() == DATA
    assert finished(driver.outcome(fixed)).read_bytes() == DATA
    assert [request.range for request in server.requests_for("/a.bin")] == [None, None]


def test_the_child_stays_across_a_gap(driver: HeldDriver, server: Server, tmp_path: Path) -> None:
    driver.hold()
    url, gate = serve_held(server)
    job = start(driver, url, tmp_path)
    driver.let_go()
    (child,) = children()
    driver.host.dismiss(keep=True)
    assert driver.outcome(job) == Halted()
    driver.until(driver.host.is_quiet)
    driver.take(driver.host.close(keep=True).events)
    driver.submit(job)
    gate.open()
    assert finished(driver.outcome(job)).read_bytes() == DATA
    assert len(server.requests) == 1
    assert children() in ([child], [])


def test_the_list_is_stored_without_a_thread(driver: HeldDriver, tmp_path: Path) -> None:
    driver.hold()
    driver.host.store(str(tmp_path / "queue.json"), b"data")
    assert (tmp_path / "queue.json").read_bytes() == b"data"
    assert workers() == []


def test_the_newer_list_stays_where_a_child_leaves_that_has_an_older_one(
    driver: HeldDriver, server: Server, tmp_path: Path
) -> None:
    url, gate = serve_held(server)
    job = start(driver, url, tmp_path / "downloads")
    driver.hold()
    gate.open()
    finished(driver.outcome(job))
    (child,) = children()
    driver.look()
    freeze(child)
    driver.look()
    path = tmp_path / "queue.json"
    driver.host.store(str(path), b"older")
    driver.let_go()
    driver.host.store(str(path), b"newer")
    thaw(child)
    driver.until(lambda: not children(), "the child to leave")
    driver.close()
    assert path.read_bytes() == b"newer"


class HeldCalls(Calls):
    """As with threads, while the process is held and let go at any moment."""

    host_class = YieldingHost

    @rule(is_held=st.booleans())
    def hold_or_let_go(self, is_held: bool) -> None:
        assert isinstance(self.driver.host, YieldingHost)
        (self.driver.host.hold if is_held else self.driver.host.let_go)()


def test_any_order_of_calls_and_holds() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        HeldCalls, settings=settings(max_examples=20, stateful_step_count=30, deadline=None)
    )
