"""Several workers on one file: who fetches what, what refuses, breaks or slows one of them, digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driving import Driver, Job, Settings, finished, names, new_job
from server import (
    Gate,
    Server,
    after,
    changed,
    content_range,
    cut_after,
    cut_before_headers,
    cut_in_headers,
    drip,
    first,
    gzip_body,
    html_instead,
    ignore_range,
    ignores_if_range,
    lying_content_range,
    on_range,
    other_size_on_range,
    pattern,
    raw,
    reset_after,
    reset_before_headers,
    short_body,
    stall_after,
    stall_before_headers,
    stall_in_headers,
    status,
    status_416,
)

from background_downloads.transfer import segments
from background_downloads.transfer.control import Control, Waker
from background_downloads.transfer.ranges import Ranges
from background_downloads.transfer.segments import Segment, Segments

EAGER = Settings(timeout=90.0, connections=4, split_seconds=0.0)
"""Whatever can be split is, as soon as there is a worker."""

DATA = pattern(4 << 20)
SHA256 = hashlib.sha256(DATA).hexdigest()
BURST = 300_000  # bytes that come before the first answer is held


@pytest.fixture
def eager(new_driver: Callable[..., Driver]) -> Driver:
    return new_driver(EAGER)


@pytest.fixture
def eager_threads(new_thread_driver: Callable[..., Driver]) -> Driver:
    return new_thread_driver(EAGER)


def ranges(server: Server, path: str = "/a.bin") -> list[str | None]:
    return [request.range for request in server.requests_for(path)]


def spans(server: Server, path: str = "/a.bin") -> list[tuple[int, int]]:
    """What was asked for, half open."""
    asked = []
    for text in ranges(server, path):
        start, _, last = (text or "bytes=0-").removeprefix("bytes=").partition("-")
        asked.append((int(start), int(last) + 1 if last else len(DATA)))
    return asked


def held_in_four(driver: Driver, server: Server, folder: Path, gate: Gate, **options: Any) -> Job:
    """A download with four connections, each held after a burst."""
    job = new_job(server.add("/a.bin", stall_after(BURST, gate), body=DATA), folder, **options)
    driver.submit(job)
    driver.until_reached(gate, 4)
    driver.until_received(job, 4 * BURST)
    return job


# -- Splitting.


def test_what_takes_longer_is_halved_again_and_again(eager: Driver, server: Server, tmp_path: Path) -> None:
    gate = server.gate()
    job = held_in_four(eager, server, tmp_path, gate)
    asked = spans(server)
    assert asked[0] == (0, len(DATA))
    assert sorted(start for start, _ in asked)[1] < len(DATA) // 2
    assert Ranges((start, min(start + BURST, end)) for start, end in asked).total() == 4 * BURST
    assert server.connections.peak == 4
    gate.open()
    assert finished(eager.outcome(job)).read_bytes() == DATA
    assert names(tmp_path) == ["a.bin"]
    assert eager.started == [job.uid]


@pytest.mark.parametrize(
    ("speeds", "first_split"),
    [((100, 100, 100), 2), ((100, 100, 1000), 1), ((0, 100, 100), 2), ((10, 100, 100), 0)],
)
def test_what_would_take_longest_is_split_first(speeds: tuple[int, ...], first_split: int) -> None:
    """Rests of 1, 2 and 3 MiB."""
    waker = Waker()
    try:
        mine = Segments(0.0)
        ends = [1 << 20, 3 << 20, 6 << 20]
        for start, end, speed in zip([0, *ends], ends, speeds, strict=False):
            segment = Segment(start, end, Control(waker), body=Any)
            segment.began, segment.began_at = start - speed, segment.control.moved - 1.0
            mine.add(segment)
        new = mine.claim(Control(waker), Ranges(), 6 << 20, may_split=True)
        assert new
        start, end = [0, *ends][first_split], ends[first_split]
        assert (new.offset, new.end) == ((start + end) // 2, end)
        assert mine._segments[first_split].end == (start + end) // 2 + segments.JOINT
    finally:
        waker.close()


def test_what_will_be_there_soon_is_not_split(
    new_driver: Callable[..., Driver], server: Server, tmp_path: Path
) -> None:
    driver = new_driver(Settings(timeout=90.0, connections=4, split_seconds=3600.0))
    gate = server.gate()
    job = new_job(server.add("/a.bin", drip(1 << 20, gate), body=DATA), tmp_path)
    driver.submit(job)
    for step in range(1, 4):
        driver.until_received(job, step << 20)
        gate.step()
    assert finished(driver.outcome(job)).read_bytes() == DATA
    assert len(server.requests) == 1


def test_small_files_are_not_split(eager: Driver, server: Server, tmp_path: Path) -> None:
    gate = server.gate()
    url = server.add("/a.bin", drip(10_000, gate), body=DATA[: 2 * segments.SPLIT_BYTES])
    job = new_job(url, tmp_path)
    eager.submit(job)
    eager.until_received(job, 10_000)
    eager.until_reached(gate)
    gate.step()
    eager.until_received(job, 20_000)
    gate.open()
    assert finished(eager.outcome(job)).read_bytes() == DATA[: 2 * segments.SPLIT_BYTES]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"etag": None, "last_modified": None},
        {"etag": 'W/"1"', "last_modified": None},
        {"chunked": True},
        {"length": False},
        {"encoding": "gzip"},
    ],
    ids=["no-validator", "weak", "chunked", "no-length", "gzip"],
)
def test_what_cannot_be_resumed_or_has_no_size_is_not_split(
    eager: Driver, server: Server, tmp_path: Path, options: dict[str, Any]
) -> None:
    gate = server.gate()
    job = new_job(server.add("/a.bin", drip(1 << 20, gate), body=DATA, **options), tmp_path)
    eager.submit(job)
    for step in range(3):
        eager.until_reached(gate, step + 1)
        eager.until_received(job, (step << 20) + 1)
        gate.step()
    gate.open()
    assert finished(eager.outcome(job)).read_bytes() == DATA
    assert len(server.requests) == 1


def test_with_a_digest_no_validator_is_needed(eager: Driver, server: Server, tmp_path: Path) -> None:
    gate = server.gate()
    url = server.add("/a.bin", stall_after(BURST, gate), body=DATA, etag=None, last_modified=None)
    job = new_job(url, tmp_path, sha256=SHA256)
    eager.submit(job)
    eager.until_reached(gate, 4)
    gate.open()
    assert finished(eager.outcome(job)).read_bytes() == DATA


def test_each_request_for_a_range_has_the_validator(eager: Driver, server: Server, tmp_path: Path) -> None:
    gate = server.gate()
    job = held_in_four(eager, server, tmp_path, gate)
    etag = server._routes["/a.bin"].resource.etag
    assert [request.headers["If-Range"] for request in server.requests] == [None, etag, etag, etag]
    gate.open()
    finished(eager.outcome(job))


# -- Connections.


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_never_more_connections_than_the_limit(
    new_driver: Callable[..., Driver], server: Server, tmp_path: Path, limit: int
) -> None:
    driver = new_driver(Settings(timeout=90.0, connections=limit, split_seconds=0.0))
    gates = [server.gate() for _ in range(3)]
    jobs = [
        new_job(server.add(f"/{n}.bin", stall_after(BURST, gate), body=DATA), tmp_path)
        for n, gate in enumerate(gates)
    ]
    driver.submit(*jobs)
    driver.until(lambda: sum(gate.reached for gate in gates) >= limit)
    for gate in gates:
        gate.open()
    for job in jobs:
        assert finished(driver.outcome(job)).read_bytes() == DATA
    assert server.connections.peak <= limit


def test_downloads_that_wait_come_before_helpers(eager: Driver, server: Server, tmp_path: Path) -> None:
    gate = server.gate()
    jobs = [new_job(server.add(f"/{n}.bin", stall_after(BURST, gate), body=DATA), tmp_path) for n in range(6)]
    eager.submit(*jobs)
    eager.until_reached(gate, 4)
    assert sorted(request.path for request in server.requests) == [f"/{n}.bin" for n in range(4)]
    gate.open()
    for job in jobs:
        assert finished(eager.outcome(job)).read_bytes() == DATA


def test_a_helper_gives_way_to_a_download_that_waits(eager: Driver, server: Server, tmp_path: Path) -> None:
    gate = server.gate()
    job = held_in_four(eager, server, tmp_path, gate)
    others = [new_job(server.add(f"/{n}.bin", body=DATA), tmp_path) for n in range(3)]
    eager.submit(*others)
    for other in others:
        assert finished(eager.outcome(other)).read_bytes() == DATA
    assert job.uid not in eager.ended
    gate.open()
    assert finished(eager.outcome(job)).read_bytes() == DATA
    assert server.connections.peak <= 4 + 3  # a hang-up is seen a moment after the next one connects


def test_one_that_is_alone_gives_way_to_nobody(
    new_driver: Callable[..., Driver], server: Server, tmp_path: Path
) -> None:
    driver = new_driver(Settings(timeout=90.0, connections=1, split_seconds=0.0))
    gate = server.gate()
    job = new_job(server.add("/a.bin", stall_after(BURST, gate), body=DATA), tmp_path)
    other = new_job(server.add("/b.bin", body=DATA), tmp_path)
    driver.submit(job)
    driver.until_received(job, BURST)
    driver.submit(other)
    gate.open()
    for each in (job, other):
        assert finished(driver.outcome(each)).read_bytes() == DATA
    assert ranges(server) == [None]


# -- A split that is refused costs nothing but speed.


def refused(driver: Driver, server: Server, folder: Path, *faults: Any, **options: Any) -> None:
    """The first answer is held until a helper has met the fault, as all requests but the first do."""
    gate = server.gate()
    rule = first(1, stall_after(BURST, gate)), after(1, *faults)
    job = new_job(server.add("/a.bin", *rule, body=DATA, **options), folder)
    driver.submit(job)
    driver.until(lambda: len(server.requests) >= 2, "a helper")
    gate.open()
    assert finished(driver.outcome(job)).read_bytes() == DATA, "a mixed file"
    assert names(folder) == ["a.bin"]


REFUSALS: dict[str, Any] = {
    "401": status(401),
    "403": status(403),
    "404": status(404),
    "416": status_416,
    "429": status(429),
    "429 for long": status(429, {"Retry-After": "3600"}),
    "500": status(500),
    "503": status(503),
    "304": status(304),
    "page": html_instead(),
    "rubbish": raw(b"rubbish\r\n\r\n"),
    "reset": reset_before_headers,
    "cut": cut_before_headers,
    "cut in headers": cut_in_headers(),
    "200": ignore_range,
    "no Content-Range": content_range(None),
    "lying Content-Range": lying_content_range(),
    "Content-Range from zero": content_range("bytes 0-{last}/{size}"),
    "other size": other_size_on_range(),
    "gzip": on_range(gzip_body),
    "changed": changed(1),
    "changed and If-Range ignored": changed(1),
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_a_refused_split_costs_nothing_but_speed(
    eager: Driver, server: Server, tmp_path: Path, fault: str
) -> None:
    before = (ignores_if_range,) if "ignored" in fault else ()
    refused(eager, server, tmp_path, *before, REFUSALS[fault])
    assert [text for text in ranges(server)[1:] if text is None] == []
    assert len(server.requests) <= 1 + 3 * 2  # each helper once, and once more without If-Range


BREAKS: dict[str, Any] = {
    "cut at once": cut_after(0),
    "cut early": cut_after(1000),
    "cut late": cut_after(200_000),
    "reset early": reset_after(1000),
    "reset late": reset_after(200_000),
    "short": short_body(),
}


@pytest.mark.parametrize("fault", BREAKS)
@pytest.mark.usefixtures("no_delays")
def test_a_connection_that_breaks_beside_others(
    eager_threads: Driver, server: Server, tmp_path: Path, fault: str
) -> None:
    refused(eager_threads, server, tmp_path, BREAKS[fault])
    assert [text for text in ranges(server)[1:] if text is None] == []


@pytest.mark.parametrize(
    "stall",
    [
        stall_before_headers,
        stall_in_headers,
        lambda gate: stall_after(0, gate),
        lambda gate: stall_after(9999, gate),
    ],
    ids=["before headers", "in headers", "after headers", "in the body"],
)
def test_a_connection_that_stalls_beside_others_is_not_waited_for(
    eager: Driver, server: Server, tmp_path: Path, stall: Callable[[Gate], Any]
) -> None:
    """The time-out is far beyond the test's deadline."""
    refused(eager, server, tmp_path, stall(server.gate()))
    assert [text for text in ranges(server)[1:] if text is None] == []
