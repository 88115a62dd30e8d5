"""The speed limit: what it adds up to, and that it holds nobody who is asked to stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from driving import Driver, Halted, Settings, finished, new_job
from server import Server, pattern

from background_downloads.transfer import throttle as throttle_module
from background_downloads.transfer.throttle import LEAST, Throttle

DATA = pattern(200_000)
HARDLY = 1  # bytes a second: the first piece takes an hour


class Time:
    """Stands still but for those who sleep."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.touched = 0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def touch(self) -> None:
        self.touched += 1


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(throttle_module, "time", time)
    return time


class Endless:
    """A body that always has more."""

    def __init__(self) -> None:
        self.pieces: list[int] = []

    def read(self, view: memoryview, control: object, /) -> int:
        self.pieces.append(len(view))
        return len(view)


def read(throttle: Throttle, size: int, time: Time) -> int:
    return throttle.read(Endless(), memoryview(bytearray(size)), time)  # type: ignore[arg-type]


def test_it_holds_back_until_what_was_read_has_taken_its_time(time: Time) -> None:
    throttle = Throttle(1000)
    assert not throttle.holds_back
    read(throttle, 500, time)
    assert throttle.holds_back
    time.sleep(0.5)
    assert not throttle.holds_back
    read(throttle, 500, time)
    throttle.limit = 0
    assert not throttle.holds_back


@pytest.mark.parametrize("limit", [50_000, 1 << 20, 1 << 40])
@pytest.mark.parametrize("size", [1, 4096, 1 << 20])
def test_what_was_read_takes_the_time_that_the_limit_says(time: Time, limit: int, size: int) -> None:
    throttle = Throttle(limit)
    count = sum(read(throttle, size, time) for _ in range(20))
    read(throttle, 1, time)
    assert time.now - 1000.0 == pytest.approx(count / limit)


def test_workers_share_one_line(time: Time) -> None:
    throttle = Throttle(8 * LEAST)
    for _ in range(16):  # whoever it is
        read(throttle, LEAST, time)
    assert throttle._free - 1000.0 == pytest.approx(2.0)


class Changing(Endless):
    """A body that takes its time: meanwhile the limit becomes another one."""

    def __init__(self, throttle: Throttle, limit: int) -> None:
        super().__init__()
        self._change = throttle, limit

    def read(self, view: memoryview, control: object, /) -> int:
        throttle, throttle.limit = self._change
        return super().read(view, control)


@pytest.mark.parametrize(("limit", "seconds"), [(8 * LEAST, 1 / 8), (0, 0.0)])
def test_what_is_being_read_when_the_limit_changes_goes_by_the_new_one(
    time: Time, limit: int, seconds: float
) -> None:
    throttle = Throttle(HARDLY)
    throttle.read(Changing(throttle, limit), memoryview(bytearray(LEAST)), time)  # type: ignore[arg-type]
    read(throttle, LEAST, time)
    assert time.now - 1000.0 == pytest.approx(seconds)


def test_time_in_which_nothing_came_is_not_saved_up(time: Time) -> None:
    throttle = Throttle(LEAST)
    read(throttle, LEAST, time)
    time.now += 3600.0
    read(throttle, LEAST, time)
    read(throttle, LEAST, time)
    assert time.now == pytest.approx(1000.0 + 3600.0 + 1.0)


def test_without_a_limit_nobody_waits(time: Time) -> None:
    throttle = Throttle(0)
    assert [read(throttle, 1 << 20, time) for _ in range(9)] == [1 << 20] * 9
    assert (time.now, time.touched) == (1000.0, 0)


def test_waiting_for_the_limit_is_no_stall(time: Time) -> None:
    throttle = Throttle(100)
    read(throttle, LEAST, time)
    read(throttle, LEAST, time)
    assert time.touched >= 400


def test_a_new_limit_counts_for_those_who_wait(time: Time) -> None:
    throttle = Throttle(HARDLY)

    class Impatient(Time):
        def sleep(self, seconds: float) -> None:
            time.now += seconds
            throttle.limit = 1 << 30

    read(throttle, LEAST, time)
    read(throttle, LEAST, Impatient())
    assert time.now < 1001.0


def test_a_limit_that_goes_up_and_down_forgives_nothing(time: Time) -> None:
    """As one does that is shared by what two hosts have to do."""
    throttle = Throttle(40_000)
    count = 0
    for turn in range(200):
        throttle.limit = 60_000 if turn % 2 else 40_000
        count += read(throttle, 5000, time)
    assert 40_000 <= count / (time.now - 1000.0) <= 61_000


def test_who_waits_while_the_limit_goes_up_and_down_waits_on(time: Time) -> None:
    throttle = Throttle(LEAST)

    class Restless(Time):
        def sleep(self, seconds: float) -> None:
            time.now += seconds
            throttle.limit = LEAST + 1 if throttle.limit == LEAST else LEAST

    read(throttle, LEAST, time)
    read(throttle, LEAST, Restless())
    assert time.now == pytest.approx(1001.0, abs=0.01)


@pytest.mark.parametrize(("limit", "piece"), [(80_000, 10_000), (1, LEAST), (1 << 40, 1 << 20), (0, 1 << 20)])
def test_a_low_limit_reads_in_small_pieces(time: Time, limit: int, piece: int) -> None:
    assert read(Throttle(limit), 1 << 20, time) == piece


def test_a_limit_is_lifted_while_downloads_run(
    new_driver: Callable[..., Driver], server: Server, tmp_path: Path
) -> None:
    driver = new_driver(Settings(timeout=30.0, connections=2, speed_limit=HARDLY))
    job = new_job(server.add("/a.bin", body=DATA), tmp_path)
    driver.submit(job)
    driver.until_received(job, 1)
    driver.look()
    assert driver.progress[job.uid].received < len(DATA)
    driver.host.change(speed_limit=0)
    assert finished(driver.outcome(job)).read_bytes() == DATA
    assert driver.host.settings.speed_limit == 0


def test_a_limit_is_set_while_downloads_run(
    new_driver: Callable[..., Driver], server: Server, tmp_path: Path
) -> None:
    driver = new_driver(Settings(timeout=30.0, connections=2))
    first = new_job(server.add("/a.bin", body=DATA), tmp_path)
    finished(driver.run(first))
    driver.host.change(speed_limit=HARDLY)
    job = new_job(server.add("/b.bin", body=DATA), tmp_path)
    driver.submit(job)
    driver.until_received(job, 1)
    assert isinstance(driver.stop(job), Halted)
    driver.host.change(speed_limit=0)
    assert finished(driver.run(job)).read_bytes() == DATA


def test_who_waits_for_the_limit_is_stopped_at_once_and_goes_on_where_it_was(
    new_thread_driver: Callable[..., Driver], server: Server, tmp_path: Path
) -> None:
    driver = new_thread_driver(Settings(timeout=30.0, connections=1, speed_limit=HARDLY))
    job = new_job(server.add("/a.bin", body=DATA), tmp_path)
    driver.submit(job)
    driver.until_received(job, 1)
    assert isinstance(driver.stop(job), Halted)
    driver.host.change(speed_limit=0)
    assert finished(driver.run(job)).read_bytes() == DATA
    assert len(server.requests) == 1


def test_a_download_that_waits_for_the_limit_is_not_ended_as_stalled(
    new_thread_driver: Callable[..., Driver], server: Server, tmp_path: Path
) -> None:
    driver = new_thread_driver(Settings(timeout=0.3, connections=1, speed_limit=2 * LEAST))
    job = new_job(server.add("/a.bin", body=DATA[: 3 * LEAST]), tmp_path)
    assert finished(driver.run(job)).read_bytes() == DATA[: 3 * LEAST]
    assert len(server.requests) == 1
