"""Several workers on one file: who fetches what, what refuses, breaks or slows one of them, digests."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from driving import (
    DEADLINE,
    Clock,
    Driver,
    Finished,
    Halted,
    Job,
    Phase,
    Settings,
    failed,
    finished,
    names,
    new_job,
    part_of,
)
from server import (
    Gate,
    Server,
    after,
    changed,
    cut_after,
    cut_before_headers,
    cut_in_headers,
    drip,
    first,
    garble_at,
    garble_overlap,
    gzip_body,
    html_instead,
    ignore_range,
    ignores_if_range,
    limit_connections,
    lying_content_range,
    on_range,
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
    when,
)

from background_downloads.transfer import fetch as fetch_module
from background_downloads.transfer import part as part_module
from background_downloads.transfer import segments, servers
from background_downloads.transfer.connections import Connections
from background_downloads.transfer.control import Control, Waker, Wire
from background_downloads.transfer.ranges import Ranges
from background_downloads.transfer.segments import OVERLAP, Segment, Segments
from background_downloads.workers import ThreadHost

EAGER = Settings(timeout=90.0, connections=4, split_seconds=0.0)
"""Whatever can be split is, as soon as there is a worker."""
PAIR = Settings(timeout=90.0, connections=2, split_seconds=0.0, first_delay=0.0)

DATA = pattern(4 << 20)
SHA256 = hashlib.sha256(DATA).hexdigest()
SMALL = DATA[:1_000_000]
SHA256_SMALL = hashlib.sha256(SMALL).hexdigest()
BURST = 300_000  # bytes that come before the first answer is held


@pytest.fixture
def eager(new_driver: Callable[..., Driver]) -> Driver:
    return new_driver(EAGER)


@pytest.fixture
def eager_threads(new_thread_driver: Callable[..., Driver]) -> Driver:
    return new_thread_driver(EAGER)


@pytest.fixture
def pair(new_thread_driver: Callable[..., Driver]) -> Driver:
    return new_thread_driver(PAIR)


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
    for n, (start, end) in enumerate(asked[1:], 1):  # which one is halved depends on how fast they were
        wider = [(a, b) for a, b in asked[:n] if a < start and end <= b]
        assert any(start - a >= segments.SPLIT_BYTES <= end - start for a, _ in wider)
    assert Ranges((start, min(start + BURST, end)) for start, end in asked).total() == 4 * BURST
    assert server.connections.peak == 4
    gate.open()
    assert finished(eager.outcome(job)).read_bytes() == DATA
    assert names(tmp_path) == ["a.bin"]
    assert eager.started == [job.uid]


RESTS = ((0, 1 << 20), (1 << 20, 3 << 20), (3 << 20, 6 << 20))


def segments_of_one() -> Segments:
    return Segments(threading.Lock(), 0.0, Connections(4))


def claimed_beside(counts: tuple[int | None, ...], age: float) -> tuple[Segments, Segment | None]:
    """What a helper gets beside three that brought so many bytes in `age` seconds; None: not asked yet."""
    waker, clock = Waker(), Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "time", clock)
        mine = segments_of_one()
        for (start, end), count in zip(RESTS, counts, strict=True):
            segment = Segment(start, end, Control(waker), body=None if count is None else Any)
            segment.began, segment.began_at = start - (count or 0), clock.now - age
            mine.add(segment)
        new = mine.claim(Control(waker), Ranges(), 6 << 20, may_split=True)
    waker.close()
    return mine, new


@pytest.mark.parametrize(
    ("counts", "age", "first_split"),
    [
        ((1000, 1000, 1000), 10.0, 2),
        ((1000, 1000, 10_000), 10.0, 1),
        ((0, 1000, 1000), 10.0, 2),
        ((100, 1000, 1000), 10.0, 0),
        ((30_000, 30_000, 60_000), 0.2, 2),  # servers that limit a connection let some bytes go at once
        ((100, 100, None), 0.5, None),  # while a larger rest has no speed yet nothing is
        ((100, 100, 0), 0.5, None),
        ((100, 100, 100), 0.05, None),
        ((100, 100, 0), 2.0, 1),  # but not for long: it may be stuck
        ((100, 100, None), 2.0, 1),
    ],
)
def test_what_would_take_longest_is_split_first(
    counts: tuple[int | None, ...], age: float, first_split: int | None
) -> None:
    mine, new = claimed_beside(counts, age)
    assert bool(new) is (first_split is not None)
    if not new or first_split is None:
        return
    start, end = RESTS[first_split]
    assert (new.offset, new.end) == ((start + end) // 2, end)
    assert mine._segments[first_split].end == (start + end) // 2 + segments.JOINT


def test_what_will_be_there_soon_is_not_split(
    new_driver: Callable[..., Driver], server: Server, gate: Gate, tmp_path: Path
) -> None:
    driver = new_driver(Settings(timeout=90.0, connections=4, split_seconds=3600.0))
    job = new_job(server.add("/a.bin", drip(1 << 20, gate), body=DATA), tmp_path)
    driver.submit(job)
    for step in range(1, 4):
        driver.until_received(job, step << 20)
        gate.step()
    assert finished(driver.outcome(job)).read_bytes() == DATA
    assert len(server.requests) == 1


def test_small_files_are_not_split(eager: Driver, server: Server, gate: Gate, tmp_path: Path) -> None:
    url = server.add("/a.bin", drip(10_000, gate), body=DATA[: 2 * segments.SPLIT_BYTES])
    job = eager.begun(url, tmp_path, 10_000)
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
        {"headers": {"Accept-Ranges": "None"}, "ranges": False},
    ],
    ids=["no-validator", "weak", "chunked", "no-length", "gzip", "takes-no-ranges"],
)
def test_what_cannot_be_resumed_or_has_no_size_is_not_split(
    eager: Driver, server: Server, gate: Gate, tmp_path: Path, options: dict[str, Any]
) -> None:
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


@pytest.mark.parametrize("limit", [1, 2])
def test_helpers_leave_where_there_may_be_fewer_connections(
    eager: Driver, server: Server, gate: Gate, tmp_path: Path, limit: int
) -> None:
    job = held_in_four(eager, server, tmp_path, gate)
    eager.host.change(connections=limit)
    eager.until(lambda: server.connections.open == limit)
    gate.open()
    assert finished(eager.outcome(job)).read_bytes() == DATA
    assert server.connections.peak == 4


def test_one_that_is_alone_gives_way_to_nobody(
    new_driver: Callable[..., Driver], server: Server, gate: Gate, tmp_path: Path
) -> None:
    driver = new_driver(Settings(timeout=90.0, connections=1, split_seconds=0.0))
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
    wanted = options.pop("job", {})
    job = new_job(server.add("/a.bin", *rule, body=DATA, **options), folder, **wanted)
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
    "lying Content-Range": lying_content_range(),
    "gzip": on_range(gzip_body),
    "changed": changed(1),
    "changed and If-Range ignored": changed(1),
}


@pytest.mark.parametrize("code", [403, 404, 429])
def test_a_refused_split_fails_nothing_where_the_first_connection_breaks_just_then(
    new_driver: Callable[..., Driver], server: Server, tmp_path: Path, code: int
) -> None:
    """As where a server takes one connection of each client."""
    driver = new_driver(PAIR)
    held, refused = server.gate(), server.gate()
    rules = (
        when(lambda e: e.number == 0, reset_after(BURST + 1), stall_after(BURST, held)),
        when(lambda e: e.number == 1, stall_before_headers(refused), status(code)),
    )
    job = new_job(server.add("/a.bin", *rules, body=DATA), tmp_path)
    driver.submit(job)
    driver.until_reached(refused)
    held.open()
    driver.until(lambda: server.connections.open <= 1)
    refused.open()
    assert finished(driver.outcome(job)).read_bytes() == DATA
    assert len(server.requests) == 3


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


def test_a_helper_that_cannot_begin_costs_nothing(
    eager_threads: Driver, server: Server, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_client, made = ThreadHost.new_client, []

    def only_one(host: ThreadHost) -> Any:
        made.append(host)
        if len(made) > 1:
            raise MemoryError
        return new_client(host)

    monkeypatch.setattr(ThreadHost, "new_client", only_one)
    job = new_job(server.add("/a.bin", stall_after(BURST, gate), body=DATA), tmp_path)
    eager_threads.submit(job)
    eager_threads.until(lambda: len(made) > 1, "a helper")
    count = 0
    for _ in range(50):  # nor is another one sent at once
        eager_threads.host.wait(0.001)
        eager_threads.look()
        count = count or len(made)
    assert len(made) == count <= 1 + 3
    gate.open()
    assert finished(eager_threads.outcome(job)).read_bytes() == DATA


# -- One range that fits proves that the server takes them: the answer that was cut for it is given up.


WAITS = "429 for long"
BRING = ("200", "changed and If-Range ignored", "reset late")  # they bring something all the same
FOR_GOOD = {name: fault for name, fault in (REFUSALS | BREAKS).items() if name not in ("changed", "cut late")}


@pytest.mark.parametrize("fault", [name for name in FOR_GOOD if name != WAITS])
def test_what_refuses_or_garbles_ranges_later_costs_the_file_once_more(
    pair: Driver, server: Server, until_given_up: Callable[..., Job], fault: str
) -> None:
    """Whole, over one connection. What is there stays meanwhile, and is compared."""
    job = until_given_up(pair, DATA, on_range(FOR_GOOD[fault]))
    assert finished(pair.outcome(job)).read_bytes() == DATA, "a mixed file"
    assert sum(text is None for text in ranges(server)) == (1 if fault in BRING else 2)


def test_but_not_where_the_server_asks_to_wait(
    pair: Driver, tmp_path: Path, until_given_up: Callable[..., Job]
) -> None:
    job = until_given_up(pair, DATA, on_range(FOR_GOOD[WAITS]))
    assert failed(pair.outcome(job)) == "The server asks to wait 1 hour. Try again later"
    assert part_of(tmp_path).exists()


@pytest.mark.parametrize("code", [403, 410])
def test_a_link_that_expires_meanwhile_keeps_what_came_for_the_next_link(
    pair: Driver, server: Server, tmp_path: Path, until_given_up: Callable[..., Job], code: int
) -> None:
    job = until_given_up(pair, DATA, status(code))
    assert str(code) in failed(pair.outcome(job))
    about = json.loads(Path(f"{part_of(tmp_path)}.json").read_text())
    assert sum(end - start for start, end in about["ranges"]) >= len(DATA) // 2 + 1_400_000
    assert ranges(server)[-1] is None
    link = server.add("/b.bin", body=DATA)
    again = new_job(link, tmp_path, uid=job.uid, partial=part_of(tmp_path).name)
    assert finished(pair.run(again)).read_bytes() == DATA
    assert all(text for text in ranges(server, "/b.bin"))


@pytest.mark.parametrize("code", [403, 503])
@pytest.mark.parametrize("hiccup", [status(503), cut_before_headers, cut_after(1000)])
def test_the_whole_file_is_asked_for_as_often_as_anything(
    pair: Driver, server: Server, until_given_up: Callable[..., Job], hiccup: Any, code: int
) -> None:
    """Over a pause too."""
    gate = server.gate()
    whole = when(
        lambda e: not e.request.range, stall_before_headers(gate), when(lambda e: e.number < 6, hiccup)
    )
    job = until_given_up(pair, DATA, on_range(status(code)), whole)
    pair.until_reached(gate)
    pair.stop(job)
    gate.open()
    pair.submit(job)
    assert finished(pair.outcome(job)).read_bytes() == DATA
    assert sum(text is None for text in ranges(server)) > 2


def held_pair(driver: Driver, server: Server, folder: Path, *later: Any) -> tuple[Job, list[Gate]]:
    """Two workers, whose answers are held; of all that comes later ranges are refused."""
    gates = [server.gate(), server.gate()]
    rules = [when(lambda e, n=n: e.number == n, stall_after(BURST, gate)) for n, gate in enumerate(gates)]
    url = server.add("/a.bin", *rules, *later, after(2, on_range(status(403))), body=DATA)
    job = new_job(url, folder)
    driver.submit(job)
    driver.until_received(job, 2 * BURST)
    return job, gates


def test_a_helper_that_is_called_back_to_another_download_costs_nothing(
    pair: Driver, server: Server, tmp_path: Path
) -> None:
    job, gates = held_pair(pair, server, tmp_path)
    other = new_job(server.add("/b.bin", body=DATA), tmp_path)
    assert finished(pair.run(other)).read_bytes() == DATA
    for gate in gates:
        gate.open()
    assert finished(pair.outcome(job)).read_bytes() == DATA
    assert None not in ranges(server)[1:]


@pytest.mark.parametrize("main", [0, 1, 2])
def test_whoever_reads_what_would_bring_all_is_not_called_back(main: int) -> None:
    """Else the last one that came."""
    waker, size = Waker(), 6 << 20
    mine, controls = segments_of_one(), [Control(waker) for _ in range(3)]
    for n, control in enumerate(controls):
        assert mine.enter(control, helps=False)
        start = 0 if n == main else 1 << 20
        segment = mine.add(Segment(start, size, control, body=Any))
        segment.answered(size, size)
    assert mine.call_back(size)
    assert mine.call_back(size)
    assert not mine.call_back(size), "one stays"
    assert [control.is_called_back for control in controls] == [n != main for n in range(3)]
    waker.close()


def test_a_pause_while_it_is_seen_how_a_helper_gets_on(
    pair: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one waits at the joint to see how fast the other is; that one's answer stays."""
    go_on, waits = Segments.go_on, threading.Event()

    def seen(*arguments: Any) -> bool | None:
        result = go_on(*arguments)
        if result is None:
            waits.set()
        return result

    monkeypatch.setattr(Segments, "go_on", seen)
    job, gates = held_pair(pair, server, tmp_path)
    monkeypatch.setattr(segments, "MEASURE_SECONDS", 1000.0)
    gates[0].open()
    pair.until(waits.is_set)
    assert pair.stop(job) == Halted()
    pair.until(lambda: server.connections.open == 1, "only what is needed stays open")
    gates[1].open()
    assert finished(pair.run(job)).read_bytes() == DATA
    assert len(server.requests) == 2


def test_an_answer_that_was_given_up_is_closed(
    pair: Driver, server: Server, until_given_up: Callable[..., Job]
) -> None:
    """It would take one of a few connections, and bring for nothing what others bring."""
    held = server.gate()
    job = until_given_up(pair, DATA, stall_after(BURST, held))
    pair.until_reached(held)
    pair.until(lambda: server.connections.open == 1)
    held.open()
    assert finished(pair.outcome(job)).read_bytes() == DATA
    assert len(server.requests) == 3


# -- Never a mixed file.


@pytest.mark.parametrize("count", [None, 1, 20_000])
@pytest.mark.parametrize("digest", [None, SHA256])
def test_ranges_with_other_bytes_are_found_out_at_the_joint(
    eager: Driver, server: Server, tmp_path: Path, count: int | None, digest: str | None
) -> None:
    """Under the very same validator; then it goes on with one connection."""
    refused(eager, server, tmp_path, garble_overlap(count), job={"sha256": digest})


OTHER = pattern(len(DATA), seed=1)


SAME = {"etag": '"same"', "last_modified": "Wed, 01 Jan 2020 00:00:00 GMT"}


@pytest.mark.parametrize(
    ("fault", "validator"),
    [((), {}), ((ignores_if_range,), {}), ((), SAME)],
    ids=["", "If-Range ignored", "same validator"],
)
def test_a_file_that_changes_while_four_fetch_it(
    eager: Driver, server: Server, gate: Gate, tmp_path: Path, fault: Any, validator: dict[str, Any]
) -> None:
    """Two have begun with the old one, what comes after is of the new one."""
    rule = stall_after(BURST, gate), *fault, changed(2, body=OTHER, **validator)
    job = new_job(server.add("/a.bin", *rule, body=DATA, **validator), tmp_path)
    eager.submit(job)
    eager.until(lambda: len(server.requests) >= 3, "a third request")
    gate.open()
    assert finished(eager.outcome(job)).read_bytes() in (DATA, OTHER), "a mixed file"


def test_what_did_not_fit_is_vouched_for_by_nothing(
    eager_threads: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not by the sidecar that was written before that showed."""
    monkeypatch.setattr(part_module, "CHECKPOINT_BYTES", 1)
    gate, rest, end = server.gate(), server.gate(), server.gate()
    own = first(1, stall_after(BURST, gate), stall_after(3_000_000, end))
    url = server.add("/a.bin", own, after(1, stall_after(BURST, rest)), garble_overlap(), body=DATA)
    job = new_job(url, tmp_path)
    eager_threads.submit(job)
    eager_threads.until_reached(rest, 3)
    eager_threads.until_received(job, 4 * BURST)
    (about,) = tmp_path.glob("*.json")
    gate.open()  # the first one finds out at the first joint, and goes on; the others are held
    eager_threads.until_received(job, 3_000_000)
    eager_threads.until(lambda: eager_threads.progress[job.uid].received == 3_000_000)
    eager_threads.until(lambda: json.loads(about.read_text())["ranges"] == [[0, 3_000_000]])
    rest.open()
    end.open()
    assert finished(eager_threads.outcome(job)).read_bytes() == DATA
    assert sum(text is None for text in ranges(server)) == 1


@pytest.mark.parametrize("digest", [None, SHA256])
def test_the_first_answer_is_the_one_to_go_by(
    eager: Driver, server: Server, gate: Gate, tmp_path: Path, digest: str | None
) -> None:
    """All others, for whatever they ask, are of another file that has the same validator, or none."""
    etag = None if digest else '"same"'
    other = changed(body=pattern(len(DATA), seed=2), etag=etag, last_modified=None)
    rule = first(1, stall_after(BURST, gate)), after(1, other)
    job = new_job(
        server.add("/a.bin", *rule, body=DATA, etag=etag, last_modified=None), tmp_path, sha256=digest
    )
    eager.submit(job)
    eager.until(lambda: len(server.requests) >= 4, "helpers")
    gate.open()
    assert finished(eager.outcome(job)).read_bytes() == DATA


def test_a_server_that_stops_taking_ranges_half_way(eager: Driver, server: Server, tmp_path: Path) -> None:
    gate = server.gate()
    rule = stall_after(BURST, gate), when(lambda e: e.number > 2, ignore_range)
    job = new_job(server.add("/a.bin", *rule, body=DATA), tmp_path)
    eager.submit(job)
    eager.until_reached(gate, 4)
    gate.open()
    assert finished(eager.outcome(job)).read_bytes() == DATA
    assert sum(text is None for text in ranges(server)) == 1


@pytest.mark.parametrize("code", [403, 429, 503])
def test_a_server_that_limits_connections(eager: Driver, server: Server, tmp_path: Path, code: int) -> None:
    gate = server.gate()
    rule = limit_connections(2, code), stall_after(BURST, gate)
    job = new_job(server.add("/a.bin", *rule, body=DATA), tmp_path)
    eager.submit(job)
    eager.until_reached(gate, 2)
    eager.until(lambda: len(server.requests) >= 3, "one too many")
    gate.open()
    assert finished(eager.outcome(job)).read_bytes() == DATA


def regain(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have one more connection be tried after so long, of the file and of the server."""
    for module in (segments, servers):
        monkeypatch.setattr(module, "REGAIN_SECONDS", seconds)


def test_the_number_of_connections_backs_off_and_comes_back(
    eager_threads: Driver, server: Server, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = drip(50_000, gate), when(lambda e: 0 < e.number < 4, status(503))
    job = new_job(server.add("/a.bin", *rule, body=DATA), tmp_path)
    eager_threads.submit(job)
    eager_threads.until(lambda: len(server.requests) >= 2, "a helper")
    count = 0
    for step in range(20):  # it gets on, and looks again and again
        eager_threads.until_reached(gate, step + 1)
        gate.step()
        eager_threads.look()
        count = count if step < 10 else count or len(server.requests)
    assert len(server.requests) == count <= 4
    regain(monkeypatch, 1e-3)
    eager_threads.until(lambda: server.connections.open >= 3, "others again")
    gate.open()
    assert finished(eager_threads.outcome(job)).read_bytes() == DATA


def test_a_helper_waits_as_long_as_the_server_asks(
    eager_threads: Driver, server: Server, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regain(monkeypatch, 1e-3)
    rule = drip(50_000, gate), after(1, status(429, {"Retry-After": "3600"}))
    job = new_job(server.add("/a.bin", *rule, body=DATA), tmp_path)
    eager_threads.submit(job)
    for step in range(20):
        eager_threads.until_reached(gate, step + 1)
        gate.step()
    assert 2 <= len(server.requests) <= 4
    gate.open()
    assert finished(eager_threads.outcome(job)).read_bytes() == DATA


def test_failing_helpers_count_as_no_try(
    eager_threads: Driver, server: Server, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than a download has tries, while it gets on."""
    regain(monkeypatch, 1e-6)
    rule = drip(10_000, gate), after(1, status(503))
    job = new_job(server.add("/a.bin", *rule, body=DATA), tmp_path)
    eager_threads.submit(job)
    for step in range(50):
        eager_threads.until_reached(gate, step + 1)
        gate.step()
    assert len(server.requests) > 10
    assert not eager_threads.progress[job.uid].text
    gate.open()
    assert finished(eager_threads.outcome(job)).read_bytes() == DATA


# -- One of four breaks.


@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize("end", ["cut", "reset"])
def test_one_of_four_breaks(
    eager_threads: Driver, server: Server, gate: Gate, tmp_path: Path, number: int, end: str, no_delays: None
) -> None:

    def fails(exchange: Any) -> None:
        exchange.wait(gate)
        getattr(exchange, end)()

    def breaks(exchange: Any) -> None:
        if exchange.number == number:
            exchange.at_body(BURST, lambda: fails(exchange))
        else:
            exchange.at_body(BURST, lambda: exchange.wait(gate))
        exchange.go_on()

    job = new_job(server.add("/a.bin", breaks, body=DATA), tmp_path)
    eager_threads.submit(job)
    eager_threads.until_reached(gate, 4)
    gate.open()
    assert finished(eager_threads.outcome(job)).read_bytes() == DATA
    assert sum(text is None for text in ranges(server)) == 1


def test_one_that_stalls_is_ended_by_the_supervisor_and_the_file_goes_on(
    new_driver: Callable[..., Driver], server: Server, tmp_path: Path
) -> None:
    driver = new_driver(Settings(timeout=0.5, connections=2, split_seconds=0.0))
    stalled = server.gate()
    rule = drip(20_000, 0.01), when(lambda e: e.number == 1, stall_after(BURST, stalled))
    job = new_job(server.add("/a.bin", *rule, body=DATA), tmp_path)
    driver.submit(job)
    assert finished(driver.outcome(job)).read_bytes() == DATA
    assert sum(text is None for text in ranges(server)) == 1


def test_a_disk_error_of_a_helper_is_the_downloads_only_when_all_have_it(
    eager_threads: Driver, server: Server, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = part_module.Part.write

    def full(self: Any, data: memoryview, offset: int) -> bool:
        if offset + len(data) > 3_000_000:
            raise OSError(28, "No space left on device")
        return bool(write(self, data, offset))

    url = server.add("/a.bin", stall_after(BURST, gate), body=DATA)
    job = new_job(url, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(part_module.Part, "write", full)
        eager_threads.submit(job)
        eager_threads.until_reached(gate, 2)
        gate.open()
        assert "The disk is full" in failed(eager_threads.outcome(job))
    assert part_of(tmp_path).exists()
    assert finished(eager_threads.run(job)).read_bytes() == DATA


# -- Pausing, cancelling, going on.


def test_pausing_keeps_what_came_over_four_connections(eager: Driver, server: Server, tmp_path: Path) -> None:
    gate = server.gate()
    job = held_in_four(eager, server, tmp_path, gate)
    assert eager.stop(job) == Halted()
    assert server.connections.open == 4
    gate.open()
    assert finished(eager.run(job)).read_bytes() == DATA
    assert sum(text is None for text in ranges(server)) == 1


def test_pausing_again_and_again_loses_no_connection(eager: Driver, server: Server, tmp_path: Path) -> None:
    gate = server.gate()
    job = held_in_four(eager, server, tmp_path, gate)
    for _ in range(10):
        eager.host.stop(job.uid)
        assert eager.outcome(job) == Halted()
        eager.submit(job)
    eager.until_phase(job, Phase.BODY)
    assert server.connections.open == 4
    assert len(server.requests) == 4
    gate.open()
    assert finished(eager.outcome(job)).read_bytes() == DATA


def test_a_pause_is_heard_while_helpers_come(eager: Driver, server: Server, tmp_path: Path) -> None:
    """A helper that had been sent for must not go on with what was to stop."""
    gate = server.gate()
    job = new_job(server.add("/a.bin", stall_after(BURST, gate), body=DATA), tmp_path)
    for turn in range(25):
        eager.submit(job)
        eager.until_reached(gate, 1 + turn % 3)
        assert eager.stop(job) == Halted()
    gate.open()
    assert finished(eager.run(job)).read_bytes() == DATA


def test_kept_connections_are_closed_where_another_download_needs_them(
    eager: Driver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    job = held_in_four(eager, server, tmp_path, gate)
    eager.stop(job)
    assert finished(eager.run(new_job(server.add("/b.bin", body=DATA), tmp_path))).read_bytes() == DATA
    assert server.connections.peak <= 4 + 1  # a hang-up is seen a moment after the next one connects
    gate.open()
    assert finished(eager.run(job)).read_bytes() == DATA
    assert sum(text is None for text in ranges(server)) == 1


@pytest.mark.parametrize("how", ["hang up", "shut"])
def test_what_came_over_four_connections_is_not_fetched_again(
    new_driver: Callable[..., Driver], server: Server, gate: Gate, tmp_path: Path, how: str
) -> None:
    """In the same process, and in another one that has only the disk."""
    driver = new_driver(EAGER)
    job = held_in_four(driver, server, tmp_path, gate)
    driver.stop(job)
    kept = Ranges((start, min(start + BURST, end)) for start, end in spans(server))
    if how == "hang up":
        driver.host.hang_up(job.uid)
        driver.until(lambda: server.connections.open == 0)
    else:
        driver.shut()
        about = json.loads(Path(f"{part_of(tmp_path)}.json").read_text())
        assert about["ranges"] == kept.as_list()
        driver = new_driver(EAGER)
    server.add("/a.bin", body=DATA)
    before = len(server.requests)
    assert finished(driver.run(job)).read_bytes() == DATA
    for start, end in spans(server)[before:]:
        again = sum(max(0, min(b, end) - max(a, start)) for a, b in kept.as_list())
        assert again <= OVERLAP


def test_cancelling_and_forgetting_deletes_all(eager: Driver, server: Server, tmp_path: Path) -> None:
    gate = server.gate()
    job = held_in_four(eager, server, tmp_path, gate)
    eager.stop(job)
    part_module.discard_leftover(str(tmp_path), part_of(tmp_path).name)
    eager.host.forget(job.uid)
    eager.until(lambda: server.connections.open == 0)
    eager.close()
    assert names(tmp_path) == []


def test_no_more_is_unsaved_than_may_be_lost(
    eager_threads: Driver, server: Server, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the disk takes: then the other workers wait for it."""
    most = 1 << 20
    sync, saving, go_on = part_module.portable.sync_data, threading.Event(), threading.Event()

    def slow(fd: int) -> None:
        saving.set()
        go_on.wait(DEADLINE)
        sync(fd)

    monkeypatch.setattr(part_module, "CHECKPOINT_BYTES", most // 2)
    monkeypatch.setattr(part_module, "MOST_UNSAVED", most)
    monkeypatch.setattr(part_module.portable, "sync_data", slow)
    job = new_job(server.add("/a.bin", stall_after(most // 8, gate), body=DATA), tmp_path)
    eager_threads.submit(job)
    eager_threads.until_reached(gate, 4)
    gate.open()
    eager_threads.until(saving.is_set)
    for _ in range(30):
        eager_threads.host.wait(0.01)
        eager_threads.look()
        assert eager_threads.progress[job.uid].received <= most + 4 * fetch_module.BUFFER
    go_on.set()
    assert finished(eager_threads.outcome(job)).read_bytes() == DATA


# -- Digests.


def test_a_digest_over_segments_is_right(eager: Driver, server: Server, gate: Gate, tmp_path: Path) -> None:
    job = held_in_four(eager, server, tmp_path, gate, sha256=SHA256)
    gate.open()
    assert finished(eager.outcome(job)).read_bytes() == DATA
    wrong = new_job(server.url("/a.bin"), tmp_path, sha256=SHA256[::-1])
    assert "its checksum differs" in failed(eager.run(wrong))
    assert [path.read_bytes() for path in tmp_path.glob("*.bin")] == [DATA]


def test_verifying_shows_how_far_it_is_and_can_be_stopped(
    eager_threads: Driver, server: Server, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = held_in_four(eager_threads, server, tmp_path, gate, sha256=SHA256)
    read, begun, go_on = part_module.File.read, threading.Event(), threading.Event()
    reads: list[int] = []

    def slowly(self: Any, offset: int, count: int) -> bytes:
        if eager_threads.host._transfers[job.uid]._segments.controls[0].phase is Phase.VERIFY:  # type: ignore[attr-defined]
            count = min(count, 4 << 10)  # so that there is more to read, wherever the rest begins
            reads.append(count)
            if len(reads) == 1:
                begun.set()
                go_on.wait(DEADLINE)
        return read(self, offset, count)

    monkeypatch.setattr(part_module.File, "read", slowly)
    gate.open()
    eager_threads.until(begun.is_set, "the first read")
    eager_threads.look()
    assert re.fullmatch(r"verifying \d+%", eager_threads.progress[job.uid].text)
    eager_threads.host.stop(job.uid)
    go_on.set()
    assert eager_threads.outcome(job) == Halted()
    assert len(reads) == 1
    assert finished(eager_threads.run(job)).read_bytes() == DATA
    assert sum(reads) <= len(DATA) - BURST + (4 << 10)  # what was verified is not read again
    assert sum(text is None for text in ranges(server)) == 1


def test_what_is_not_what_the_digest_says_is_fetched_once_more_in_one_piece(
    eager: Driver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    """Ranges have a wrong byte where nothing is compared."""
    url = server.add("/a.bin", first(1, stall_after(BURST, gate)), garble_at(3_000_001), body=DATA)
    job = new_job(url, tmp_path, sha256=SHA256)
    eager.submit(job)
    eager.until_received(job, len(DATA) - 200_000)  # by ranges all but what is too little to be halved
    gate.open()
    assert finished(eager.outcome(job)).read_bytes() == DATA
    assert sum(text is None for text in ranges(server)) == 2  # one that was called off may come last


# -- Anything, anywhere.


@pytest.mark.parametrize("seed", range(int(os.environ.get("SEEDS") or "8")))
def test_whatever_is_answered_to_whichever_request_the_file_is_never_mixed(
    new_driver: Callable[..., Driver], server: Server, tmp_path: Path, seed: int
) -> None:
    """A third of the answers is faulty, also over pauses; in the end the server behaves."""
    random = Random(seed)
    faults = list(REFUSALS.values()) + list(BREAKS.values()) + [garble_overlap(), garble_overlap(1)]
    faults += [cut_after(random.randrange(900_000)) for _ in range(10)]
    plan = {n: random.choice(faults) for n in range(60) if random.random() < 0.35}

    def misbehave(exchange: Any) -> None:
        if fault := plan.get(exchange.number):
            exchange._behaviours.insert(0, fault)
        exchange.go_on()

    driver = new_driver(Settings(timeout=90.0, connections=4, split_seconds=0.0, first_delay=0.0))
    digest = {"sha256": SHA256_SMALL} if seed % 2 else {}
    job = new_job(server.add("/a.bin", misbehave, drip(30_000, 0.002), body=SMALL), tmp_path, **digest)
    for _ in range(30):
        driver.submit(job)
        if random.random() < 0.5:
            driver.until(lambda: len(server.requests) > random.randrange(40) or job.uid in driver.ended)
            driver.host.stop(job.uid)
        outcome = driver.outcome(job)
        if isinstance(outcome, Finished):
            break
    assert finished(outcome).read_bytes() == SMALL, "a mixed file"
    assert names(tmp_path) == ["a.bin"]


@dataclass
class Wires:
    """The connections there are, counted where they are made: the server sees a close a moment later."""

    open: set[Wire] = field(default_factory=set)
    peak: int = 0

    def made(self, wire: Wire) -> None:
        self.open.add(wire)
        self.peak = max(self.peak, len(self.open))


@pytest.fixture
def wires(monkeypatch: pytest.MonkeyPatch) -> Wires:
    counted, lock = Wires(), threading.Lock()
    make, close = Wire.__init__, Wire.close

    def made(wire: Wire, sock: Any) -> None:
        make(wire, sock)
        with lock:
            counted.made(wire)

    def closed(wire: Wire) -> None:
        with lock:
            counted.open.discard(wire)
        close(wire)

    monkeypatch.setattr(Wire, "__init__", made)
    monkeypatch.setattr(Wire, "close", closed)
    return counted


def often_faulty(random: Random) -> Callable[[Any], None]:
    """The first answer of each file is whole; half of the others are not what was asked for."""
    faults: list[Any] = [cut_after(random.randrange(1_500_000)) for _ in range(10)]
    faults += [on_range(status(code)) for code in (400, 403, 404, 416, 429, 503)]
    faults += [ignore_range, cut_before_headers]
    pace = drip(random.choice([50_000, 100_000]), random.choice([0.003, 0.01]))

    def behave(exchange: Any) -> None:
        if exchange.number and random.random() < 0.5:
            exchange._behaviours.insert(0, random.choice(faults))
        exchange._behaviours.insert(0, pace)
        exchange.go_on()

    return behave


@pytest.mark.parametrize("seed", range(int(os.environ.get("SEEDS") or "12")))
def test_whatever_happens_there_are_never_more_connections_and_all_ends(
    new_thread_driver: Callable[..., Driver],
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wires: Wires,
    seed: int,
) -> None:
    """One to three downloads that come and are paused at any moment; some lose their connections then."""
    random = Random(seed)
    limit = random.choice([2, 2, 3, 4])
    monkeypatch.setattr(segments, "SOON_SECONDS", random.choice([0.0, 2.0]))
    driver = new_thread_driver(Settings(timeout=90.0, connections=limit, split_seconds=0.0, first_delay=0.0))
    behave, pauses = often_faulty(random), random.choice([0, 4])
    links = [server.add(f"/{n}.bin", behave, body=DATA) for n in range(random.choice([1, 2, 3]))]
    jobs = [new_job(link, tmp_path, sha256=random.choice([None, SHA256])) for link in links]
    for job in jobs:
        driver.submit(job)
        driver.until(lambda: random.random() < 0.1)
    for _ in range(pauses):
        driver.until(lambda: random.random() < 0.05)
        job = random.choice(jobs)
        if driver.submitted[job.uid] > len(driver.ended.get(job.uid, ())) and driver.stop(job) == Halted():
            if random.random() < 0.3:
                driver.host.hang_up(job.uid)
            driver.submit(job)
    for job in jobs:
        outcome = driver.outcome(job)
        assert not isinstance(outcome, Finished) or finished(outcome).read_bytes() == DATA, "a mixed file"
        assert isinstance(outcome, Finished) or pauses or len(jobs) > 1, outcome
    assert wires.peak <= limit
