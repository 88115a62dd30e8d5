"""Going on with what is there: in the same process, in one that has only the disk, under another link."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driving import (
    PATIENT,
    Clock,
    Driver,
    Fetcher,
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
    Behaviour,
    Exchange,
    Gate,
    Server,
    after,
    arranges,
    changed,
    content_range,
    cut_after,
    cut_before_headers,
    drops_range_when_if_range,
    first,
    garble_at,
    garble_overlap,
    gzip_body,
    ignore_range,
    ignores_if_range,
    lying_content_range,
    on_range,
    other_size_on_range,
    pattern,
    short_body,
    stall_after,
    status,
    status_416,
    when,
    with_headers,
    wrong_length,
)

from background_downloads.transfer import connect, portable
from background_downloads.transfer import names as names_module
from background_downloads.transfer import part as part_module
from background_downloads.transfer.control import Control
from background_downloads.transfer.job import Stopped

pytestmark = pytest.mark.usefixtures("no_delays")

DATA = pattern(300_000)
OTHER = pattern(300_000, seed=1)
SHA256 = hashlib.sha256(DATA).hexdigest()
OVERLAP = 64 << 10
JOINT = 16 << 10
KEPT = 200_000
DATE = "Wed, 01 Jan 2020 00:00:00 GMT"


def asked(server: Server, path: str = "/a.bin") -> list[str | None]:
    return [request.range for request in server.requests_for(path)]


def etag(server: Server, path: str = "/a.bin") -> str | None:
    return server._routes[path].resource.etag


def saved(folder: Path) -> list[list[int]]:
    """What the sidecar vouches for."""
    found = list(folder.glob("*.part.json"))
    return json.loads(found[0].read_text())["ranges"] if found else []


def given_up(fetch: Fetcher, server: Server, folder: Path, **options: Any) -> None:
    """A first process leaves `KEPT` bytes and a sidecar; the server forgets what it was asked."""
    job = {"sha256": options.pop("sha256")} if "sha256" in options else {}
    server.add("/a.bin", first(1, cut_after(KEPT)), after(1, status(410)), body=DATA, **options)
    assert "410" in failed(fetch(server.url("/a.bin"), folder, **job))
    assert saved(folder) == [[0, KEPT]]


def with_gaps(server: Server, folder: Path, ranges: list[list[int]], rest: bytes = b"") -> Path:
    """What a process that was killed left of a download with segments; between it stands `rest`."""
    url = server.url("/a.bin")
    part = folder / names_module.part_name(url, str(folder))
    content = bytearray(rest or bytes(len(DATA)))
    for start, end in ranges:
        content[start:end] = DATA[start:end]
    part.write_bytes(content)
    resource = server._routes["/a.bin"].resource
    about = {
        "version": 1,
        "url": url,
        "cut": False,
        "digest": None,
        "size": len(DATA),
        "etag": resource.etag or "",
        "last_modified": resource.last_modified or "",
        "ranges": ranges,
    }
    Path(f"{part}.json").write_text(json.dumps(about))
    return part


# -- The same process.


def test_after_a_failure_only_what_is_missing_and_an_overlap_is_asked_for(
    fetch: Fetcher, server: Server, tmp_path: Path
) -> None:
    url = server.add(
        "/a.bin", first(1, cut_after(KEPT)), when(lambda e: e.number == 1, status(410)), body=DATA
    )
    transfer = fetch.transfer(new_job(url, tmp_path))
    assert "410" in failed(fetch.run(transfer))
    assert finished(fetch.run(transfer)).read_bytes() == DATA
    assert asked(server) == [None, *[f"bytes={KEPT - OVERLAP}-"] * 2]
    assert server.requests[-1].body_sent == len(DATA) - KEPT + OVERLAP


def test_a_pause_just_when_the_headers_come_keeps_no_dead_connection(
    fetch: Fetcher, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = connect._Adapter.send

    def send_and_stop(*arguments: Any, **options: Any) -> Any:
        response = send(*arguments, **options)
        connect._current.control.stop()
        return response

    transfer = fetch.transfer(new_job(server.add("/a.bin", body=DATA), tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(connect._Adapter, "send", send_and_stop)
        assert fetch.run(transfer) == Halted()
    assert transfer._segments.connections == 0
    assert finished(fetch.run(transfer)).read_bytes() == DATA
    assert len(server.requests) == 2


def test_what_came_after_the_last_checkpoint_counts_in_the_same_process(
    driver: Driver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    url = server.add("/a.bin", first(1, stall_after(KEPT, gate)), body=DATA)
    job = driver.halted(url, tmp_path, KEPT)
    driver.host.hang_up(job.uid)
    driver.until(lambda: server.connections.open == 0)
    assert list(tmp_path.glob("*.json")) == []
    assert finished(driver.run(job)).read_bytes() == DATA
    assert asked(server) == [None, f"bytes={KEPT - OVERLAP}-"]


@pytest.mark.parametrize("end", ["refused", "closed"])
def test_what_the_disk_lost_while_it_was_let_go_of_comes_again(
    fetch: Fetcher, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """A system tells only once that it could not write, then reads what was there before."""
    refused = [after(1, status(403))] if end == "refused" else []
    url = server.add("/a.bin", first(1, cut_after(KEPT)), *refused, body=DATA)
    transfer = fetch.transfer(new_job(url, tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(portable, "sync_data", _fail)
        if end == "closed":
            patch.setattr(Control, "sleep", _stop)
        assert not isinstance(fetch.run(transfer), Finished)
        transfer.close()
    _lose(part_of(tmp_path))
    server.add("/a.bin", body=DATA)
    assert finished(fetch.run(transfer)).read_bytes() == DATA


def _fail(fd: int) -> None:
    raise OSError(errno.EIO, "Input/output error")


def _lose(path: Path) -> None:
    """What a write that failed leaves, once the system has given its memory of it to others."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(bytes(KEPT - OVERLAP))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


# -- A process that has only the disk.


def test_what_came_is_saved_though_nothing_more_comes(
    thread_driver: Driver, server: Server, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that stalls brings nothing that would be an occasion."""
    monkeypatch.setattr(part_module, "CHECKPOINT_SECONDS", 0.3)
    job = new_job(server.add("/a.bin", stall_after(KEPT, gate), body=DATA), tmp_path)
    thread_driver.submit(job)
    thread_driver.until(lambda: saved(tmp_path) == [[0, KEPT]])
    gate.open()
    assert finished(thread_driver.outcome(job)).read_bytes() == DATA
    assert len(server.requests) == 1


def test_what_came_is_saved_while_the_server_is_given_time(
    thread_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_module, "CHECKPOINT_SECONDS", 0.3)
    later = after(1, status(503, {"Retry-After": "200"}))
    job = new_job(server.add("/a.bin", first(1, cut_after(KEPT)), later, body=DATA), tmp_path)
    thread_driver.submit(job)
    thread_driver.until_phase(job, Phase.BACKOFF)
    thread_driver.until(lambda: saved(tmp_path) == [[0, KEPT]])
    assert thread_driver.stop(job) == Halted()


def test_a_new_process_trusts_the_sidecar_and_nothing_beyond(
    fetch: Fetcher, server: Server, tmp_path: Path
) -> None:
    server.add("/a.bin", body=DATA)
    with_gaps(server, tmp_path, [[0, 100_000]], rest=b"x" * 250_000)
    assert finished(fetch(server.url("/a.bin"), tmp_path)).read_bytes() == DATA
    assert asked(server) == [f"bytes={100_000 - OVERLAP}-"]


def test_each_gap_is_asked_for_with_an_overlap_on_both_sides_of_it(
    fetch: Fetcher, server: Server, tmp_path: Path
) -> None:
    server.add("/a.bin", body=DATA)
    with_gaps(server, tmp_path, [[0, 100_000], [150_000, 200_000], [240_000, 280_000]])
    assert finished(fetch(server.url("/a.bin"), tmp_path)).read_bytes() == DATA
    first_part, edge = OVERLAP - JOINT, JOINT - 1
    assert asked(server) == [
        f"bytes={100_000 - first_part}-{150_000 + edge}",
        f"bytes={200_000 - first_part}-{240_000 + edge}",
        f"bytes={280_000 - OVERLAP}-",  # by then there is no gap before it
    ]
    assert server.body_sent("/a.bin") <= 110_000 + 3 * OVERLAP
    assert {request.headers["If-Range"] for request in server.requests} == {etag(server)}


def test_gaps_are_filled_by_several_workers(
    new_driver: Callable[..., Driver], server: Server, gate: Gate, tmp_path: Path
) -> None:
    driver = new_driver(Settings(timeout=90.0, connections=4, split_seconds=0.0))
    server.add("/a.bin", stall_after(70_000, gate), body=DATA)
    with_gaps(server, tmp_path, [[0, 100_000], [150_000, 200_000]])
    job = new_job(server.url("/a.bin"), tmp_path)
    driver.submit(job)
    driver.until_reached(gate, 2)
    gate.open()
    assert finished(driver.outcome(job)).read_bytes() == DATA
    assert len(server.requests) == 2


FAULTS: dict[str, Any] = {
    "ignores the range": (ignore_range,),
    "drops the range because of If-Range": (drops_range_when_if_range,),
    "Content-Range of other bytes": (lying_content_range(),),
    "other bytes": (garble_overlap(),),
    "other first byte": (garble_overlap(1),),
    "416": (status_416,),
    "200 in the middle": (when(lambda e: e.number > 0, ignore_range),),
    "short": (on_range(first(2, short_body(9))),),
    "cut": (first(3, cut_after(OVERLAP + 5000)),),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("ranges", [[[0, KEPT]], [[0, 100_000], [150_000, 200_000]], [[50_000, 250_000]]])
@pytest.mark.parametrize("digest", [None, SHA256], ids=["validator", "digest"])
def test_whatever_the_server_does_the_file_is_not_mixed(
    fetch: Fetcher, server: Server, tmp_path: Path, fault: str, ranges: list[list[int]], digest: str | None
) -> None:
    server.add("/a.bin", *FAULTS[fault], body=DATA)
    with_gaps(server, tmp_path, ranges)
    assert finished(fetch(server.url("/a.bin"), tmp_path, sha256=digest)).read_bytes() == DATA
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("trusts", [(), (ignores_if_range,)], ids=["", "If-Range ignored"])
@pytest.mark.parametrize("new", ['"other"', 'W/"weak"', None], ids=["changed", "weak", "none"])
@pytest.mark.parametrize("ranges", [[[0, KEPT]], [[0, 100_000], [150_000, 200_000]]])
def test_a_file_that_changed_is_fetched_anew(
    fetch: Fetcher, server: Server, tmp_path: Path, trusts: Any, new: str | None, ranges: list[list[int]]
) -> None:
    server.add("/a.bin", body=DATA)
    with_gaps(server, tmp_path, ranges)
    server.add("/a.bin", *trusts, body=OTHER, etag=new, last_modified=None)
    assert finished(fetch(server.url("/a.bin"), tmp_path)).read_bytes() == OTHER
    assert asked(server)[-1] is None or not trusts


def test_bytes_behind_a_gap_that_are_of_another_file_are_found_out(
    fetch: Fetcher, server: Server, tmp_path: Path
) -> None:
    """Under the very same validator."""
    server.add("/a.bin", body=DATA)
    part = with_gaps(server, tmp_path, [[0, 100_000], [150_000, len(DATA)]])
    part.write_bytes(DATA[:100_000] + bytes(50_000) + OTHER[150_000:])
    assert finished(fetch(server.url("/a.bin"), tmp_path)).read_bytes() == DATA
    assert asked(server)[-1] is None


def test_the_second_question_has_no_if_range(fetch: Fetcher, server: Server, tmp_path: Path) -> None:
    given_up(fetch, server, tmp_path)
    server.add("/a.bin", drops_range_when_if_range, body=DATA)
    assert finished(fetch(server.url("/a.bin"), tmp_path)).read_bytes() == DATA
    last = server.requests[-2:]
    assert [request.range for request in last] == [f"bytes={KEPT - OVERLAP}-"] * 2
    assert [request.headers["If-Range"] for request in last] == [etag(server), None]


WHOLE_ONLY = {str(code): on_range(status(code)) for code in (400, 405, 412, 416, 501)} | {
    "200": ignore_range,
    "no Content-Range": content_range(None),
    "from elsewhere": lying_content_range(),
    "packed": on_range(gzip_body),
    "another size": other_size_on_range(),
    "another version": on_range(ignores_if_range, changed(0)),
}


@pytest.mark.parametrize("fault", WHOLE_ONLY)
@pytest.mark.parametrize("digest", [None, SHA256], ids=["validator", "digest"])
def test_where_ranges_are_refused_what_is_there_stays_and_is_compared(
    fetch: Fetcher, server: Server, tmp_path: Path, fault: str, digest: str | None
) -> None:
    """The whole file is asked for, and cut early; then the server takes ranges again."""
    given_up(fetch, server, tmp_path, sha256=digest)
    again = after(1, cut_after(KEPT - 1000), after(1, cut_before_headers))
    server.add("/a.bin", again, WHOLE_ONLY[fault], body=DATA)
    transfer = fetch.transfer(new_job(server.url("/a.bin"), tmp_path, sha256=digest))
    assert "Tried 5 times" in failed(fetch.run(transfer))
    assert transfer.received == KEPT
    server.add("/a.bin", body=DATA)
    assert finished(fetch.run(transfer)).read_bytes() == DATA
    assert asked(server)[-1] == f"bytes={KEPT - OVERLAP}-"


ODD_RANGES = {
    "100 bytes too short": on_range(short_body(100)),
    "said to be 100 bytes shorter": on_range(with_headers({"Connection": "close"}), wrong_length(-100)),
    "said to be 100 bytes longer": on_range(wrong_length(100)),
    "empty": on_range(short_body(1 << 20)),
}


@pytest.mark.parametrize("ranges", ODD_RANGES)
def test_where_ranges_never_bring_the_end_the_whole_file_is_asked_for_once(
    fetch: Fetcher, server: Server, ranges: str
) -> None:
    url = server.add("/a.bin", first(1, cut_after(KEPT)), ODD_RANGES[ranges], body=DATA)
    assert finished(fetch(url)).read_bytes() == DATA
    assert asked(server).count(None) <= 2


def test_a_range_of_who_knows_how_much_does_not_end_the_file(fetch: Fetcher, server: Server) -> None:
    """The whole file came in chunks, so its size was never told, and the range is shorter than asked for."""

    def shorter(exchange: Exchange) -> None:
        start = exchange.request.range_start or 0
        exchange.request.headers.set("Range", f"bytes={start}-{start + OVERLAP + 5000}")
        exchange.go_on()

    cut, unknown = first(1, cut_after(KEPT)), content_range("bytes {start}-{last}/*")
    url = server.add("/a.bin", cut, on_range(unknown, shorter), body=DATA, chunked=True)
    assert finished(fetch(url)).read_bytes() == DATA


@arranges
def slow(exchange: Exchange, clock: Clock) -> None:
    """Each 50 kB of what is there already take most of the time that may pass without progress."""

    def pass_time() -> None:
        clock.now += 15 * PATIENT.timeout

    for position in range(50_000, KEPT, 50_000):
        exchange.at_body(position, pass_time)


def test_looking_at_what_is_there_is_no_time_without_progress(
    fetch: Fetcher, server: Server, tmp_path: Path, clock: Clock
) -> None:
    given_up(fetch, server, tmp_path)
    server.add("/a.bin", on_range(status(400)), slow(clock), body=DATA)
    assert finished(fetch(server.url("/a.bin"), tmp_path)).read_bytes() == DATA
    # Once more: what came in two answers has another digest, and is fetched anew.
    server.add("/b.bin", first(1, cut_after(KEPT)), garble_at(KEPT + 1), after(2, slow(clock)), body=DATA)
    assert finished(fetch(server.url("/b.bin"), tmp_path, sha256=SHA256)).read_bytes() == DATA
    assert asked(server, "/b.bin") == [None, f"bytes={KEPT - OVERLAP}-", None]


def test_fetching_anew_what_changed_on_the_server_is_no_time_without_progress(
    fetch: Fetcher, server: Server, tmp_path: Path, clock: Clock
) -> None:
    """Most of the old file is there, so for long nothing is further than that."""
    given_up(fetch, server, tmp_path)
    server.add("/a.bin", slow(clock), body=OTHER)
    assert finished(fetch(server.url("/a.bin"), tmp_path)).read_bytes() == OTHER


@pytest.mark.parametrize("count", [1, OVERLAP])
def test_a_server_that_gives_short_ranges_only_is_asked_for_the_whole_file(
    fetch: Fetcher, server: Server, tmp_path: Path, count: int
) -> None:
    """What it gives of a range is no longer than what is compared with the disk."""

    def shorter(exchange: Any) -> None:
        start = exchange.request.range_start
        exchange.request.headers.set("Range", f"bytes={start}-{start + count - 1}")
        exchange.go_on()

    given_up(fetch, server, tmp_path)
    server.add("/a.bin", on_range(shorter), body=DATA)
    assert finished(fetch(server.url("/a.bin"), tmp_path)).read_bytes() == DATA
    assert len(server.requests) == 4
    assert asked(server)[-1] is None


@pytest.mark.parametrize("digest", [None, SHA256])
@pytest.mark.parametrize("cut_to", [0, 1000, KEPT - 1])
def test_what_another_program_cuts_off_meanwhile_leaves_no_hole(
    thread_driver: Driver, server: Server, gate: Gate, tmp_path: Path, digest: str | None, cut_to: int
) -> None:
    job = new_job(server.add("/a.bin", stall_after(KEPT, gate), body=DATA), tmp_path, sha256=digest)
    thread_driver.submit(job)
    thread_driver.until_received(job, KEPT)
    os.truncate(part_of(tmp_path), cut_to)
    gate.open()
    assert "was cut by something else" in failed(thread_driver.outcome(job))
    assert finished(thread_driver.run(job)).read_bytes() == DATA


def test_what_nothing_proves_is_fetched_anew(fetch: Fetcher, server: Server, tmp_path: Path) -> None:
    server.add("/a.bin", body=DATA, etag=None, last_modified=None)
    with_gaps(server, tmp_path, [[0, KEPT]])
    assert finished(fetch(server.url("/a.bin"), tmp_path)).read_bytes() == DATA
    assert asked(server)[-1] is None


GIVEN_UP = first(1, cut_after(KEPT)), when(lambda e: e.number == 1, status(410))
WEAK = (
    {"etag": 'W/"1"'},
    {"etag": 'W/"1"', "last_modified": None},
    {"etag": None, "last_modified": "Fri, 01 Jan 2100 00:00:00 GMT"},
)
"""Also a date that is no older than the answer itself (RFC 9110, section 8.8.2.2)."""


@pytest.mark.parametrize("validator", WEAK)
@pytest.mark.parametrize("is_new_process", [False, True])
def test_a_weak_validator_goes_on_without_if_range_where_all_is_the_same(
    fetch: Fetcher, server: Server, tmp_path: Path, validator: dict[str, Any], is_new_process: bool
) -> None:
    server.add("/a.bin", *GIVEN_UP, body=DATA, **validator)
    transfer = fetch.transfer(new_job(server.url("/a.bin"), tmp_path))
    assert "410" in failed(fetch.run(transfer))
    again = fetch.transfer(new_job(server.url("/a.bin"), tmp_path)) if is_new_process else transfer
    assert finished(fetch.run(again)).read_bytes() == DATA
    assert asked(server)[1:] == [f"bytes={KEPT - OVERLAP}-"] * 2
    assert server.requests[-1].headers["If-Range"] is None


@pytest.mark.parametrize("validator", WEAK)
@pytest.mark.parametrize(
    "fault",
    [
        changed(2, body=OTHER, etag='W/"2"', last_modified="Fri, 01 Jan 2100 00:00:01 GMT"),
        changed(2, body=OTHER, etag=None, last_modified=None),
        changed(2, body=OTHER[:-1], etag='W/"1"', last_modified="Fri, 01 Jan 2100 00:00:00 GMT"),
        changed(2, body=OTHER, etag='W/"1"', last_modified="Fri, 01 Jan 2100 00:00:00 GMT"),
    ],
    ids=["other", "none", "size", "overlap"],
)
def test_a_weak_validator_and_anything_else_than_the_same_is_fetched_anew(
    fetch: Fetcher, server: Server, validator: dict[str, Any], fault: Any
) -> None:
    url = server.add("/a.bin", *GIVEN_UP, fault, body=DATA, **validator)
    assert "410" in failed(fetch(url))
    data = finished(fetch(url)).read_bytes()
    assert data == OTHER[: len(data)]
    assert asked(server)[-1] is None


def test_a_digest_proves_what_no_validator_does(fetch: Fetcher, server: Server, tmp_path: Path) -> None:
    given_up(fetch, server, tmp_path, etag=None, last_modified=None, sha256=SHA256)
    server.add("/a.bin", body=DATA, etag=None, last_modified=None)
    assert finished(fetch(server.url("/a.bin"), tmp_path, sha256=SHA256)).read_bytes() == DATA
    assert asked(server)[-1] == f"bytes={KEPT - OVERLAP}-"
    assert server.requests[-1].headers["If-Range"] is None


# -- What another process is given.


def test_what_is_carried_goes_on_at_once_and_beyond_the_sidecar(
    fetch: Fetcher, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.add("/a.bin", first(1, cut_after(KEPT)), body=DATA)
    transfer = fetch.transfer(new_job(url, tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(Control, "sleep", _stop)
        assert fetch.run(transfer) == Halted()
    carried = transfer.carry()
    assert carried
    assert carried.memory.received.ranges.as_list() == [[0, KEPT]]
    assert list(tmp_path.glob("*.json")) == []
    assert finished(fetch(url, tmp_path, carried=carried)).read_bytes() == DATA
    assert asked(server) == [None, f"bytes={KEPT - OVERLAP}-"]


def _stop(control: Control, seconds: float) -> None:
    raise Stopped


def test_what_is_carried_counts_for_nothing_once_the_file_was_touched(
    fetch: Fetcher, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.add("/a.bin", first(1, cut_after(KEPT)), body=DATA)
    transfer = fetch.transfer(new_job(url, tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(Control, "sleep", _stop)
        assert fetch.run(transfer) == Halted()
    carried = transfer.carry()
    part_of(tmp_path).write_bytes(OTHER[:KEPT])
    assert finished(fetch(url, tmp_path, carried=carried)).read_bytes() == DATA
    assert asked(server) == [None, None]


# -- Another link.


def replaced(fetch: Fetcher, server: Server, folder: Path, path: str = "/b.bin", **options: Any) -> Any:
    """The link has expired; the new one goes on with the partial file of the old one."""
    return fetch(server.url(path), folder, partial=part_of(folder).name, **options)


def test_a_replaced_link_goes_on_with_what_was_received(
    fetch: Fetcher, server: Server, tmp_path: Path
) -> None:
    given_up(fetch, server, tmp_path)
    server.add("/b.bin", body=DATA)
    assert finished(replaced(fetch, server, tmp_path)) == tmp_path / "b.bin"
    assert (tmp_path / "b.bin").read_bytes() == DATA
    assert asked(server, "/b.bin") == [f"bytes={KEPT - OVERLAP}-"]
    assert server.requests[-1].headers["If-Range"] == etag(server)
    assert names(tmp_path) == ["b.bin"]


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        ((), {"body": OTHER}),
        ((ignores_if_range,), {"body": OTHER}),
        ((ignores_if_range,), {"body": OTHER, "etag": None, "last_modified": None}),
        ((), {"body": DATA, "etag": '"mirror"'}),
        ((), {"body": OTHER[:100_000], "etag": None}),
        ((ignore_range,), {"body": OTHER}),
        ((status_416,), {"body": OTHER}),
    ],
    ids=["changed", "trusting", "no validators", "mirror", "shorter", "whole", "416"],
)
def test_a_replaced_link_to_another_file_mixes_nothing(
    fetch: Fetcher, server: Server, tmp_path: Path, fault: Any, options: dict[str, Any]
) -> None:
    given_up(fetch, server, tmp_path)
    server.add("/b.bin", *fault, **options)
    old = part_of(tmp_path)
    before = old.read_bytes()
    assert finished(replaced(fetch, server, tmp_path)).read_bytes() == options["body"]
    assert old.read_bytes() == before  # others may go on with it
    assert names(tmp_path) == sorted(["b.bin", old.name, f"{old.name}.json"])


def test_a_replaced_link_to_another_server_needs_the_digest_only(
    fetch: Fetcher, server: Server, tmp_path: Path
) -> None:
    given_up(fetch, server, tmp_path)
    server.add("/b.bin", body=DATA, etag='"mirror"', last_modified="Fri, 03 Jan 2020 00:00:00 GMT")
    assert finished(replaced(fetch, server, tmp_path, sha256=SHA256)).read_bytes() == DATA
    assert asked(server, "/b.bin") == [f"bytes={KEPT - OVERLAP}-"]


def test_what_a_replaced_link_took_over_is_there_for_the_next_one(
    fetch: Fetcher, server: Server, tmp_path: Path
) -> None:
    given_up(fetch, server, tmp_path)
    old = part_of(tmp_path)
    server.add("/b.bin", status(403), body=DATA)
    assert "403" in failed(replaced(fetch, server, tmp_path))
    assert part_of(tmp_path) == old
    server.add("/c.bin", body=DATA)
    assert finished(replaced(fetch, server, tmp_path, "/c.bin")).read_bytes() == DATA
    assert asked(server, "/c.bin") == [f"bytes={KEPT - OVERLAP}-"]


@pytest.mark.parametrize(
    ("fault", "wrong"),
    [
        ((), {"body": OTHER[:100_000]}),
        ((), {"body": DATA, "etag": '"other"'}),
        ((ignore_range,), {"body": OTHER, "etag": None}),
        ((status_416,), {"body": OTHER}),
    ],
    ids=["shorter", "same size", "whole", "416"],
)
def test_a_wrong_link_costs_nothing_of_what_was_received(
    fetch: Fetcher, driver: Driver, server: Server, tmp_path: Path, fault: Any, wrong: dict[str, Any]
) -> None:
    """It was on its way when somebody saw that it is another file."""
    given_up(fetch, server, tmp_path)
    old, gate = part_of(tmp_path).name, server.gate()
    before = {path: path.read_bytes() for path in tmp_path.glob(f"{old}*")}
    job = new_job(server.add("/b.bin", *fault, stall_after(10_000, gate), **wrong), tmp_path, partial=old)
    driver.submit(job)
    driver.until_reached(gate)
    driver.stop(job)
    assert {path: path.read_bytes() for path in before} == before
    server.add("/c.bin", body=DATA)
    right = new_job(server.url("/c.bin"), tmp_path, uid=job.uid, partial=old)
    assert finished(driver.run(right)).read_bytes() == DATA
    assert asked(server, "/c.bin") == [f"bytes={KEPT - OVERLAP}-"]


@pytest.mark.parametrize("partial", ["gone.part", "../outside.part", "a.bin"])
def test_a_partial_file_that_is_not_there_is_no_hindrance(
    fetch: Fetcher, server: Server, tmp_path: Path, partial: str
) -> None:
    folder = tmp_path / "folder"
    (tmp_path / "outside.part").write_bytes(b"precious")
    assert finished(fetch(server.add("/b.bin", body=DATA), folder, partial=partial)).read_bytes() == DATA
    assert (tmp_path / "outside.part").read_bytes() == b"precious"


def test_a_replaced_link_of_a_running_host(driver: Driver, server: Server, tmp_path: Path) -> None:
    gate = server.gate()
    old = new_job(server.add("/a.bin", stall_after(KEPT, gate), body=DATA), tmp_path)
    driver.submit(old)
    driver.until_received(old, KEPT)
    driver.stop(old)
    url = server.add("/b.bin", body=DATA)
    new: Job = new_job(url, tmp_path, uid=old.uid, partial=part_of(tmp_path).name)
    assert finished(driver.run(new)).read_bytes() == DATA
    assert asked(server, "/b.bin") == [f"bytes={KEPT - OVERLAP}-"]
    assert names(tmp_path) == ["b.bin"]


# -- The digest is computed on the way.


class Reads:
    """Bytes that were read back from the partial file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.total = 0
        read = part_module.File.read

        def counting(part: Any, offset: int, count: int) -> bytes:
            data = read(part, offset, count)
            self.total += len(data)
            return data

        monkeypatch.setattr(part_module.File, "read", counting)


HEAD = 4096  # bytes at most that are looked at in the end


def test_a_digest_needs_no_second_look_at_the_file(
    fetch: Fetcher, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads(monkeypatch)
    finished(fetch(server.add("/a.bin", body=DATA), sha256=SHA256))
    assert reads.total <= HEAD


def test_a_digest_over_a_resume_needs_no_second_look_either(
    fetch: Fetcher, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads(monkeypatch)
    url = server.add("/a.bin", first(3, cut_after(OVERLAP + 60_000)), body=DATA)
    finished(fetch(url, sha256=SHA256))
    assert len(server.requests) == 4
    assert reads.total <= 3 * OVERLAP + HEAD


def test_a_new_process_reads_once_what_is_there(
    fetch: Fetcher, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up(fetch, server, tmp_path, sha256=SHA256)
    server.add("/a.bin", body=DATA)
    reads = Reads(monkeypatch)
    finished(fetch(server.url("/a.bin"), tmp_path, sha256=SHA256))
    assert reads.total <= KEPT + OVERLAP + HEAD


def cut_before_the_last_chunk(exchange: Exchange) -> None:
    """All of it in chunks, and no end."""
    exchange.head(200, {"Transfer-Encoding": "chunked", "ETag": exchange.resource.etag or ""})
    exchange.send(b"%x\r\n%b\r\n" % (len(DATA), DATA))
    exchange.cut()


def test_where_all_is_there_only_its_end_is_asked_for(fetch: Fetcher, server: Server) -> None:
    url = server.add("/a.bin", first(1, cut_before_the_last_chunk), body=DATA)
    assert finished(fetch(url)).read_bytes() == DATA
    assert asked(server) == [None, f"bytes={len(DATA) - OVERLAP}-"]


# -- Links that lead elsewhere each time, as those of mirrors do, each of which has validators of its own.


def leads_round(server: Server, *behaviours: Behaviour, host: str = "localhost") -> str:
    """The link; the first of the places to which it leads behaves so."""
    for number in range(3):
        more = () if number else behaviours
        date = f"Wed, 01 Jan 2020 00:00:0{number} GMT"
        server.add(f"/{number}.bin", *more, body=DATA, etag=f'"{number}"', last_modified=date)

    def lead(exchange: Exchange) -> None:
        exchange.reply(302, {"Location": server.url(f"/{exchange.number % 3}.bin", host=host)})

    return server.add("/a.bin", lead)


def test_more_is_asked_for_where_some_came_from(fetch: Fetcher, server: Server) -> None:
    url = leads_round(server, cut_after(KEPT))
    assert finished(fetch(url)).read_bytes() == DATA
    assert len(asked(server)) == 1
    assert asked(server, "/0.bin") == [None, f"bytes={KEPT - OVERLAP}-"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize(
    "fault", [status(403), status(503), ignore_range, cut_before_headers], ids=["403", "503", "200", "cut"]
)
def test_the_link_is_asked_again_where_that_place_does_not_bring_it(
    fetch: Fetcher, server: Server, fault: Behaviour, host: str
) -> None:
    url = leads_round(server, first(1, cut_after(KEPT)), after(1, fault), host=host)
    assert finished(fetch(url)).read_bytes() == DATA
    assert len(asked(server, "/1.bin")) == 1


def test_a_file_of_several_servers_with_one_etag_has_a_date_on_each(fetch: Fetcher, server: Server) -> None:
    other_date = changed(etag='"1"', last_modified="Thu, 02 Jan 2020 00:00:00 GMT")
    cut = first(1, cut_after(KEPT))
    url = server.add("/a.bin", cut, other_date, body=DATA, etag='"1"', last_modified=DATE)
    assert finished(fetch(url)).read_bytes() == DATA
    assert asked(server) == [None, f"bytes={KEPT - OVERLAP}-"]


@pytest.mark.parametrize("where", ["with the file", "on the way"])
def test_a_server_of_several_nodes_is_told_by_its_cookie_which_it_was(
    fetch: Fetcher, server: Server, where: str
) -> None:
    """As load balancers do it. Whoever has no cookie comes to the next node, with an ETag of its own."""

    def node(exchange: Exchange) -> str:
        return (exchange.request.headers["Cookie"] or f"node={exchange.number}").partition("=")[2]

    def answer(exchange: Exchange) -> None:
        exchange.resource = dataclasses.replace(exchange.resource, etag=f'"{node(exchange)}"')
        if where == "with the file":
            told = f"node={node(exchange)}; Path=/"
            exchange.alter(lambda response: response.headers.set("Set-Cookie", told))
        exchange.go_on()

    def lead(exchange: Exchange) -> None:
        exchange.reply(302, {"Location": "/b.bin", "Set-Cookie": f"node={node(exchange)}; Path=/"})

    url = server.add("/b.bin", first(1, cut_after(KEPT)), answer, body=DATA)
    url = server.add("/a.bin", lead) if where == "on the way" else url
    assert finished(fetch(url)).read_bytes() == DATA
    assert asked(server, "/b.bin") == [None, f"bytes={KEPT - OVERLAP}-"]
    assert server.body_sent("/b.bin") == len(DATA) + OVERLAP
