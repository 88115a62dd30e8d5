"""A look at a link before it is downloaded: what is learned, what is asked for, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driving import Clock, Driver, Halted, Settings, failed, finished, new_job, skipped
from server import (
    Gate,
    Server,
    add_headers,
    bad_chunks,
    basic_auth,
    content_range,
    cut_before_headers,
    drip,
    endless_body,
    gzip_body,
    gzip_bomb,
    html_instead,
    ignore_range,
    on_range,
    pattern,
    raw,
    redirect,
    reset_before_headers,
    stall_after,
    stall_before_headers,
    stall_in_headers,
    status,
    status_416,
)

from background_downloads.transfer import ahead as ahead_module
from background_downloads.transfer.job import Digest, IfExists, Phase, Seen

DATA = pattern(300_000)
NAMED = ("Content-Disposition", 'attachment; filename="rock.blend"')


def seen(outcome: Any) -> Seen:
    assert isinstance(outcome, Seen), outcome
    return outcome


def look(driver: Driver, url: str, folder: Path, **options: Any) -> Any:
    return driver.run(new_job(url, folder, **{"looks": 0} | options))


def test_it_learns_name_size_and_type_with_one_byte_and_writes_nothing(
    driver: Driver, server: Server, tmp_path: Path
) -> None:
    url = server.add("/get?id=7", add_headers(NAMED), body=DATA, content_type="application/x-blender")
    told = seen(look(driver, url, tmp_path / "folder"))
    assert (told.name, told.size, told.content_type) == ("rock.blend", 300_000, "application/x-blender")
    assert [(request.method, request.range) for request in server.requests] == [("GET", "bytes=0-0")]
    assert server.body_sent("/get") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "behaviour",
    [
        ignore_range,
        on_range(status(400)),
        on_range(status(405)),
        on_range(status_416),
        on_range(status(501)),
        on_range(cut_before_headers),
        on_range(reset_before_headers),
    ],
    ids=["ignored", "400", "405", "416", "501", "cut", "reset"],
)
def test_a_server_that_gives_no_range_tells_all_the_same(
    driver: Driver, server: Server, tmp_path: Path, behaviour: Any
) -> None:
    told = seen(look(driver, server.add("/rock.blend", behaviour, body=DATA), tmp_path))
    assert (told.name, told.size) == ("rock.blend", 300_000)
    assert len(server.requests) <= 2


@pytest.mark.parametrize("code", [203, 226, 299])
def test_a_status_that_means_as_much_as_200(
    driver: Driver, server: Server, tmp_path: Path, code: int
) -> None:
    url = server.add("/rock.blend", ignore_range, body=DATA, status=code)
    assert seen(look(driver, url, tmp_path)).size == 300_000


def test_of_a_body_without_an_end_only_the_head_is_taken(
    driver: Driver, server: Server, tmp_path: Path
) -> None:
    told = seen(look(driver, server.add("/rock.blend", endless_body()), tmp_path))
    assert (told.name, told.size) == ("rock.blend", None)


@pytest.mark.parametrize("behaviour", [gzip_body, content_range("bytes 0-0/*")], ids=["packed", "unknown"])
def test_a_size_that_says_nothing_is_not_told(
    driver: Driver, server: Server, tmp_path: Path, behaviour: Any
) -> None:
    assert seen(look(driver, server.add("/rock.txt", behaviour, body=DATA), tmp_path)).size is None


def test_an_empty_file_is_empty(driver: Driver, server: Server, tmp_path: Path) -> None:
    assert seen(look(driver, server.add("/rock.blend", body=b""), tmp_path)).size == 0


def test_redirects_are_followed_and_a_password_stays_with_its_server(
    driver: Driver, server: Server, tmp_path: Path
) -> None:
    target = server.add("/real.blend", body=DATA).replace("127.0.0.1", "localhost")
    server.add("/go", basic_auth("me", "s3cret"), redirect(target))
    told = seen(look(driver, server.url("/go", user="me:s3cret"), tmp_path))
    assert (told.name, told.size) == ("real.blend", 300_000)
    (request,) = server.requests_for("/real.blend")
    assert "Authorization" not in request.headers


def test_its_connection_counts_as_any_other(
    new_thread_driver: Callable[..., Driver], server: Server, tmp_path: Path
) -> None:
    """So the one that a stopped download keeps makes room."""
    driver = new_thread_driver(Settings(timeout=90.0, connections=1))
    driver.halted(server.add("/a.blend", stall_after(200_000), body=DATA), tmp_path, 200_000)
    assert seen(look(driver, server.add("/b.blend", ignore_range, body=DATA), tmp_path)).size == 300_000
    server.wait_open(0)
    assert driver.host.connections.busy == 0


REFUSALS = {
    "404": (status(404), "no file at this link"),
    "401": (status(401), "signed in"),
    "503": (status(503), "busy"),
    "circles": (redirect("/rock.blend?token=t0ken"), "circles"),
    "page": (html_instead(), "web page"),
    "garbage": (raw(b"\x00\x01\x02 nonsense\r\n\r\n"), "understood"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_refused_is_a_sentence(driver: Driver, server: Server, tmp_path: Path, case: str) -> None:
    behaviour, words = REFUSALS[case]
    url = server.add("/rock.blend", behaviour) + "?token=t0ken"
    sentence = failed(look(driver, url, tmp_path))
    assert words in sentence
    assert "t0ken" not in sentence


@pytest.mark.parametrize("stall", [stall_before_headers, stall_in_headers])
def test_it_is_stopped_while_a_server_does_not_answer(
    driver: Driver, server: Server, gate: Gate, tmp_path: Path, stall: Callable[..., Any]
) -> None:
    job = new_job(server.add("/rock.blend", stall(gate)), tmp_path, looks=0)
    driver.submit(job)
    driver.until_reached(gate)
    driver.until_phase(job, Phase.REQUEST)
    assert driver.stop(job) == Halted()


def test_a_server_that_never_answers_ends_with_a_sentence(
    new_thread_driver: Callable[..., Driver], server: Server, tmp_path: Path, supervisors_clock: Clock
) -> None:
    driver, gate = new_thread_driver(Settings(timeout=30.0)), server.gate()
    job = new_job(server.add("/rock.blend", stall_before_headers(gate)), tmp_path, looks=0)
    driver.submit(job)
    driver.until_reached(gate)
    driver.until_phase(job, Phase.REQUEST)
    supervisors_clock.now += 1000.0
    assert "did not answer in time" in failed(driver.outcome(job))
    assert len(server.requests) == 1


@pytest.mark.parametrize("behaviour", [stall_before_headers(), stall_in_headers()], ids=["at all", "whole"])
def test_who_does_not_answer_in_time_is_not_asked_again(
    new_thread_driver: Callable[..., Driver], server: Server, tmp_path: Path, behaviour: Any
) -> None:
    driver = new_thread_driver(Settings(timeout=0.2))
    url = server.add("/rock.blend", on_range(behaviour), body=DATA)
    assert "did not answer in time" in failed(look(driver, url, tmp_path))
    assert len(server.requests) == 1


# A short file that is read: a list.


def test_a_list_is_read_whole(driver: Driver, server: Server, tmp_path: Path) -> None:
    url = server.add("/rocks/SHA256SUMS", body=f"{'0' * 64}  a/rock.zip\n{'1' * 64}  ../b.zip\n".encode())
    told = seen(look(driver, url, tmp_path, looks=1000))
    (entry,) = told.entries or ()
    assert (told.name, entry.path, entry.url) == ("SHA256SUMS", "a/rock.zip", server.url("/rocks/a/rock.zip"))
    assert (entry.digest, told.left_out) == (Digest("sha256", "0" * 64), 1)
    assert [request.range for request in server.requests] == [None]


@pytest.mark.parametrize("behaviour", [gzip_bomb(), endless_body(), None], ids=["bomb", "endless", "long"])
def test_of_a_list_no_more_is_read_than_may_be(
    driver: Driver, server: Server, tmp_path: Path, behaviour: Any
) -> None:
    url = server.add("/list.meta4", *filter(None, [behaviour]), body=DATA)
    assert "too long" in failed(look(driver, url, tmp_path, looks=100_000))


@pytest.mark.parametrize("name", ["list.meta4", "list.txt"])
def test_a_list_that_comes_too_slowly_is_not_waited_for(
    new_thread_driver: Callable[..., Driver],
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    clock, driver, gate = Clock(), new_thread_driver(Settings(timeout=30.0)), server.gate()
    monkeypatch.setattr(ahead_module, "time", clock)
    job = new_job(server.add(f"/{name}", drip(1, gate), body=DATA), tmp_path, looks=1 << 20)
    driver.submit(job)
    driver.until_reached(gate)
    driver.until_phase(job, Phase.BODY)
    clock.now += 31.0
    gate.step()
    outcome = driver.outcome(job)
    if name.endswith(".txt"):
        assert (seen(outcome).name, seen(outcome).entries) == (name, None)
    else:
        assert "too slowly" in failed(outcome)


def test_a_list_that_comes_garbled_is_a_sentence(driver: Driver, server: Server, tmp_path: Path) -> None:
    url = server.add("/list.txt", bad_chunks(), body=DATA)
    assert "do not fit" in failed(look(driver, url, tmp_path, looks=1 << 20))


# What was learned, in the download that follows.


def test_a_name_that_is_known_to_be_taken_is_skipped_without_asking(
    driver: Driver, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "rock.blend").write_bytes(b"mine")
    url = server.add("/get?id=7", add_headers(NAMED), body=DATA)
    job = new_job(url, tmp_path, called="rock.blend", size=300_000, if_exists=IfExists.SKIP)
    assert skipped(driver.run(job)) == tmp_path / "rock.blend"
    assert server.requests == []


def test_name_and_size_are_told_from_the_start_and_the_answer_counts(
    driver: Driver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    url = server.add("/get?id=7", stall_before_headers(gate), add_headers(NAMED), body=DATA)
    job = new_job(url, tmp_path, called="old.blend", size=7)
    driver.submit(job)
    driver.until_reached(gate)
    driver.until_phase(job, Phase.REQUEST)
    assert (driver.progress[job.uid].name, driver.progress[job.uid].size) == ("old.blend", 7)
    gate.open()
    path = finished(driver.outcome(job))
    assert (path.name, path.read_bytes()) == ("rock.blend", DATA)


def test_a_name_that_was_given_counts_more_than_what_the_server_says(
    driver: Driver, server: Server, tmp_path: Path
) -> None:
    url = server.add("/get?id=7", add_headers(NAMED), body=DATA)
    path = finished(driver.run(new_job(url, tmp_path / "maps", name="wanted.blend")))
    assert (path, path.read_bytes()) == (tmp_path / "maps" / "wanted.blend", DATA)
