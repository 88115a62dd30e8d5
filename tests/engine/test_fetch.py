"""One transfer, end to end, in the test's own thread: names, redirects, retries, resuming, secrets."""

from __future__ import annotations

import email.utils
import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from driving import (
    BUFFER,
    Clock,
    Digest,
    Driver,
    Failed,
    Fetcher,
    Finished,
    Halted,
    IfExists,
    Transfer,
    failed,
    finished,
    is_private,
    names,
    new_job,
    part_of,
    skipped,
)
from server import (
    LAST_MODIFIED,
    Server,
    add_headers,
    after,
    bad_chunks,
    basic_auth,
    changed,
    cut_after,
    cut_before_headers,
    fail_times,
    first,
    gzip_bomb,
    html_instead,
    pattern,
    raw,
    redirect,
    redirect_forever,
    status,
    when,
    with_headers,
)
from services import until

from background_downloads.transfer import connections, disk, portable, retry
from background_downloads.transfer import fetch as fetch_module
from background_downloads.transfer.connections import Connections
from background_downloads.transfer.control import Control, Waker
from background_downloads.transfer.job import TransferError
from background_downloads.transfer.part import Part
from background_downloads.transfer.space import LITTLE, Space

pytestmark = pytest.mark.usefixtures("no_delays")

DATA = pattern(300_000)
OVERLAP = 64 << 10
SHA256 = hashlib.sha256(DATA).hexdigest()
PAGE = (
    "The server sent a web page instead of a file; you may need to sign in."
    " Copy the link of the download button there"
)


def at(number: int, behaviour: Any) -> Any:
    """Only for that request for the resource, counted from 0."""
    return when(lambda exchange: exchange.number == number, behaviour)


# -- Before any byte.


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/a", "http"),
        ("file:///etc/passwd", "http"),
        ("http:///a", "server"),
        ("http://host/a b", "space"),
        ("http://host/a\nb", "control"),
        ("http://host/" + "a" * 9000, "longer"),
        ("", "empty"),
        ("http://host:99999/", ""),
    ],
)
def test_a_bad_link_is_refused_before_anything_is_sent(
    fetch: Fetcher, tmp_path: Path, url: str, words: str
) -> None:
    assert words in failed(fetch(url, tmp_path))
    assert names(tmp_path) == []


def test_a_missing_folder_is_made(fetch: Fetcher, server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "deep"
    assert finished(fetch(server.add("/a.bin", body=DATA), folder)) == folder / "a.bin"


def test_a_folder_that_is_a_file(fetch: Fetcher, server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is a file" in failed(fetch(server.add("/a.bin"), tmp_path / "file"))
    assert "is a file" in failed(fetch(server.url("/a.bin"), tmp_path / "file" / "sub"))
    assert server.requests == []


@pytest.mark.parametrize("folder", ["", "with\0nul", "x" * 300, "/proc/nothing/here"])
def test_a_folder_that_cannot_be(fetch: Fetcher, server: Server, folder: str) -> None:
    job = new_job(server.add("/a.bin"), Path("/"))
    object.__setattr__(job, "directory", folder)
    assert failed(fetch.run(fetch.transfer(job)))
    assert server.requests == []


def test_a_folder_that_nobody_may_write_to(
    fetch: Fetcher, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *args: False)
    assert "Nothing can be written" in failed(fetch(server.add("/a.bin")))
    assert server.requests == []


def test_too_little_space_is_known_before_the_body_is_read(
    fetch: Fetcher, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    sentence = failed(fetch(server.add("/a.bin", body=DATA), tmp_path))
    assert "Not enough space: 293 KiB are needed" in sentence
    assert "100 B are free" in sentence
    assert names(tmp_path) == []


def test_a_file_that_is_too_large_for_a_stick_is_known_before_the_body_is_read(
    fetch: Fetcher, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portable, "is_fat", lambda folder: True)
    url = server.add("/a.bin", body=DATA)
    with monkeypatch.context() as patch:
        patch.setattr(portable, "LARGEST_ON_FAT", len(DATA) - 1)
        assert "takes no file of 4 GiB" in failed(fetch(url, tmp_path))
        assert names(tmp_path) == []
    finished(fetch(url, tmp_path))


def test_one_that_says_it_is_too_large_takes_no_room_from_the_others(tmp_path: Path) -> None:
    space = Space()
    with pytest.raises(TransferError, match="Not enough space"):
        space.claim(lambda: 1 << 62, None, str(tmp_path))
    space.claim(lambda: LITTLE + 1, None, str(tmp_path))


def test_a_full_disk(fetch: Fetcher, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        if offset >= 100_000:
            raise OSError(28, "No space left on device")
        return write(fd, data[: 100_000 - offset], offset)

    write = portable.pwrite
    transfer = fetch.transfer(new_job(server.add("/a.bin", body=DATA), tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(portable, "pwrite", pwrite)
        assert failed(fetch.run(transfer)).startswith("The disk is full: make room in the folder")
    assert finished(fetch.run(transfer)).read_bytes() == DATA
    assert (server.requests[1].range_start or 0) <= 100_000 - OVERLAP


# -- Names.


@pytest.mark.parametrize(
    ("path", "headers", "name"),
    [
        ("/a.bin", {}, "a.bin"),
        ("/a.bin", {"Content-Disposition": 'attachment; filename="b.blend"'}, "b.blend"),
        ("/a.bin", {"Content-Disposition": "attachment; filename*=UTF-8''%e2%82%ac.blend"}, "€.blend"),
        ("/a.bin", {"Content-Disposition": 'attachment; filename="../../etc/passwd"'}, "passwd"),
        ("/a.bin", {"Content-Disposition": 'attachment; filename="/etc/cron.d/x"'}, "x"),
        ("/a.bin", {"Content-Disposition": 'attachment; filename="..\\\\..\\\\x.exe"'}, "x.exe"),
        ("/a.bin", {"Content-Disposition": 'attachment; filename=".bashrc"'}, "bashrc"),
        ("/a.bin", {"Content-Disposition": 'attachment; filename=".."'}, "a.bin"),
        ("/..%2F..%2Fetc%2Fpasswd", {}, "_.._etc_passwd"),
        ("/", {"Content-Type": "image/png"}, "download.png"),
    ],
)
def test_the_name_of_the_file_stays_in_its_folder(
    fetch: Fetcher, server: Server, tmp_path: Path, path: str, headers: dict[str, str], name: str
) -> None:
    folder = tmp_path / "deep" / "folder"
    path_there = finished(fetch(server.add(path, body=b"\x89PNG\r\n\x1a\n", headers=headers), folder))
    assert path_there.parent == folder
    assert len(names(folder)) == 1
    assert path_there.name == name


def test_the_name_of_the_link_counts_before_that_of_the_redirect(fetch: Fetcher, server: Server) -> None:
    server.add("/real-name.bin", body=DATA)
    url = server.add("/asked.bin", redirect("/real-name.bin"))
    assert finished(fetch(url)).name == "asked.bin"
    url = server.add("/get/", redirect("/real-name.bin"))
    assert finished(fetch(url)).name == "real-name.bin"


# -- Redirects.


def test_what_a_server_says_twice_is_said_once(fetch: Fetcher, server: Server) -> None:
    server.add("/b%20c.bin", body=DATA)
    twice = [("Location", "/b%20c.bin"), ("Location", "/b%20c.bin")]
    url = server.add("/a.bin", status(302, twice))
    assert finished(fetch(url)).read_bytes() == DATA
    named = [("Content-Disposition", 'attachment; filename="d.bin"')] * 2
    url = server.add("/e.bin", add_headers(*named), body=DATA)
    assert finished(fetch(url)).name == "d.bin"


def test_a_redirect_may_hold_any_letters(fetch: Fetcher, server: Server) -> None:
    server.add("/%E2%82%AC%20x.bin", body=DATA)
    assert finished(fetch(server.add("/a.bin", redirect("/€ x.bin")))).read_bytes() == DATA
    server.add("/%FC.bin", body=DATA)  # Latin-1: the bytes go back as they came
    assert finished(fetch(server.add("/b.bin", redirect("/ü.bin")))).read_bytes() == DATA


def test_a_login_stays_with_its_origin(fetch: Fetcher, server: Server) -> None:
    server.add("/b.bin", basic_auth("me", "s3cret"), body=DATA)
    server.add("/a.bin", redirect("/b.bin"))
    assert finished(fetch(server.url("/a.bin", user="me:s3cret"))).read_bytes() == DATA
    server.add("/c.bin", body=DATA)
    server.add("/a.bin", redirect(server.url("/c.bin", host="localhost")))
    finished(fetch(server.url("/a.bin", user="me:s3cret")))
    assert [r.headers["Authorization"] for r in server.requests_for("/c.bin")] == [None]


def test_cookies_of_a_redirect_go_to_its_target_and_nowhere_else(fetch: Fetcher, server: Server) -> None:
    server.add("/b.bin", body=DATA)
    url = server.add("/a.bin", status(302, {"Location": "/b.bin", "Set-Cookie": "session=1; Path=/"}))
    finished(fetch(url))
    assert server.requests_for("/b.bin")[0].headers["Cookie"] == "session=1"
    finished(fetch(server.url("/b.bin")))
    assert server.requests_for("/b.bin")[1].headers["Cookie"] is None


# -- Secrets.


def test_the_sidecar_tells_all_but_secrets(fetch: Fetcher, server: Server, tmp_path: Path) -> None:
    server.add("/a.bin", first(1, cut_after(200_000)), after(1, status(403)), body=DATA)
    failed(fetch(server.url("/a.bin?token=t0ken", user="me:s3cret"), tmp_path, sha256=SHA256))
    part = part_of(tmp_path)
    about = json.loads(Path(f"{part}.json").read_text())
    assert re.fullmatch(r"a\.bin\.[0-9a-f]{8}\.part", part.name)
    assert about == {
        "version": 1,
        "url": server.url("/a.bin"),
        "cut": True,
        "digest": ["sha256", SHA256],
        "size": len(DATA),
        "etag": server.requests and _etag(server),
        "last_modified": LAST_MODIFIED,
        "is_date_strong": True,
        "via": "",
        "ranges": [[0, 200_000]],
    }
    url = server.add("/b.bin", first(1, cut_after(200_000)), after(1, status(403)), body=DATA)
    failed(fetch(url, tmp_path))
    (sidecar,) = tmp_path.glob("b.bin.*.json")
    assert json.loads(sidecar.read_text())["cut"] is False


def _etag(server: Server) -> str | None:
    return server._routes["/a.bin"].resource.etag


# -- Encodings, digests, pages.


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_what_comes_encoded_is_decoded(fetch: Fetcher, server: Server, encoding: str) -> None:
    path = finished(fetch(server.add("/a.bin", body=DATA, encoding=encoding)))
    assert path.read_bytes() == DATA
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("digest", [None, SHA256])
def test_what_comes_encoded_is_not_resumed(fetch: Fetcher, server: Server, digest: str | None) -> None:
    url = server.add("/a.bin", first(1, cut_after(200_000)), body=DATA, encoding="gzip")
    assert finished(fetch(url, sha256=digest)).read_bytes() == DATA
    assert [request.range for request in server.requests] == [None, None]


def test_a_gzip_file_that_is_labelled_as_encoded_stays_as_it_is(fetch: Fetcher, server: Server) -> None:
    data = b"\x1f\x8b" + DATA
    url = server.add("/a.tar.gz", body=data, headers={"Content-Encoding": "gzip"})
    assert finished(fetch(url)).read_bytes() == data


def test_a_stop_is_heard_while_little_input_gives_much_to_write(
    thread_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new_job(server.add("/a.bin", gzip_bomb(32 << 20)), tmp_path)
    write = Part.write

    def stop_and_write(part: Part, data: memoryview, offset: int) -> bool:
        thread_driver.host.stop(job.uid)
        return write(part, data, offset)

    monkeypatch.setattr(Part, "write", stop_and_write)
    thread_driver.submit(job)
    assert thread_driver.outcome(job) == Halted()
    assert part_of(tmp_path).stat().st_size <= fetch_module.BUFFER


def test_a_gzip_bomb_takes_no_more_than_the_disk_has(
    fetch: Fetcher, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = 0

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        nonlocal largest
        largest = max(largest, len(data))
        if offset > 64 << 20:
            raise OSError(28, "No space left on device")
        return write(fd, data, offset)

    write = portable.pwrite
    monkeypatch.setattr(portable, "pwrite", pwrite)
    sentence = failed(fetch(server.add("/a.bin", gzip_bomb(256 << 20)), tmp_path))
    assert "disk is full" in sentence
    assert largest <= fetch_module.BUFFER
    assert names(tmp_path) == []  # it cannot be resumed, so it does not keep the disk full


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha384", "sha512"])
def test_digests(fetch: Fetcher, server: Server, tmp_path: Path, algorithm: str) -> None:
    url = server.add("/a.bin", body=DATA)
    good = Digest(algorithm, hashlib.new(algorithm, DATA).hexdigest())
    bad = Digest(algorithm, hashlib.new(algorithm, b"other").hexdigest())
    assert finished(fetch(url, tmp_path, digest=good)).read_bytes() == DATA
    assert "checksum differs" in failed(fetch(url, tmp_path, digest=bad, if_exists=IfExists.OVERWRITE))
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_wrong_digest_is_told_also_by_a_worker_that_was_called_back_just_then(
    fetch: Fetcher, server: Server, tmp_path: Path
) -> None:
    job = new_job(server.add("/a.bin", body=DATA[:-1]), tmp_path, sha256=SHA256)
    transfer, waker = fetch.transfer(job), Waker()
    control = Control(waker)
    control.call_back()
    try:
        with pytest.raises(TransferError, match="its checksum differs"):
            transfer.run(control, fetch.client, memoryview(bytearray(BUFFER)))
    finally:
        waker.close()


def test_a_web_page_in_place_of_a_file(fetch: Fetcher, server: Server, tmp_path: Path) -> None:
    assert failed(fetch(server.add("/a.blend", html_instead()), tmp_path)) == PAGE
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a.blend", "a.bin"])
def test_a_web_page_costs_nothing_that_was_received(fetch: Fetcher, server: Server, name: str) -> None:
    data = b"BLENDER" + DATA
    url = server.add(f"/{name}", first(1, cut_after(200_000)), at(1, html_instead()), body=data)
    assert failed(fetch(url)) == PAGE
    assert finished(fetch(url)).read_bytes() == data
    assert server.requests[-1].range_start == 200_000 - OVERLAP


MESSAGES = {
    "application/json": b'{"error": "try later"}',
    "application/problem+json; charset=utf-8": b'{"title": "try later"}',
    "text/xml": b"<Error>try later</Error>",
    "text/plain": b'{"error": "try later"}',
    "application/octet-stream": b"",
}


@pytest.mark.parametrize("content_type", ["text/plain", "text/html", "application/octet-stream"])
@pytest.mark.parametrize("name", ["a.blend", "download"])
def test_words_cost_nothing_that_was_received(
    fetch: Fetcher, server: Server, content_type: str, name: str
) -> None:
    """In pieces, too, so that nobody knows how many: not the head tells, but what comes."""
    data = b"BLENDER" + DATA
    url = server.add(f"/{name}", first(1, cut_after(200_000)), at(1, status(410)), body=data)
    assert "410" in failed(fetch(url))
    words = b"Try later" if name == "a.blend" else b'{"error": "try later"}'
    for said in (words, b""):
        options = {"etag": None, "last_modified": None, "content_type": content_type}
        server.add(f"/{name}", body=said, chunked=True, **options)
        assert "The server sent" in failed(fetch(url))
    server.add(f"/{name}", body=data)
    assert finished(fetch(url)).read_bytes() == data
    assert server.requests[-1].range_start == 200_000 - OVERLAP


@pytest.mark.parametrize("content_type", MESSAGES)
@pytest.mark.parametrize("is_new_process", [False, True])
@pytest.mark.parametrize("name", ["a.blend", "a.obj"])
def test_a_message_costs_nothing_that_was_received(
    fetch: Fetcher, server: Server, tmp_path: Path, content_type: str, name: str, is_new_process: bool
) -> None:
    """It says 200, as if it were the file."""
    data = b"BLENDER" + DATA
    said = status(200, {"Content-Type": content_type}, MESSAGES[content_type])
    cut, refused = first(1, cut_after(200_000)), at(1, status(410))
    url = server.add(f"/{name}", cut, refused, body=data, content_type="model/blend")
    transfer = fetch.transfer(new_job(url, tmp_path))
    assert "410" in failed(fetch.run(transfer))
    transfer = fetch.transfer(new_job(url, tmp_path)) if is_new_process else transfer
    server.add(f"/{name}", said)
    assert "The server sent" in failed(fetch.run(transfer))
    assert transfer.received == 200_000
    server.add(f"/{name}", body=data, content_type="model/blend")
    assert finished(fetch.run(transfer)).read_bytes() == data
    assert server.requests[-1].range_start == 200_000 - OVERLAP


@pytest.mark.parametrize("name", ["a.gltf", "a.json", "a.svg"])
def test_a_file_that_is_of_the_type_of_messages_may_change(fetch: Fetcher, server: Server, name: str) -> None:
    kind, new = ("image/svg+xml", b"<svg/>") if name == "a.svg" else ("application/json", b"{}")
    cut = first(1, cut_after(200_000))
    old = (b"<svg>" if name == "a.svg" else b'{"') + DATA
    url = server.add(f"/{name}", cut, changed(body=new), body=old, content_type=kind)
    assert finished(fetch(url)).read_bytes() == new


def test_a_note_for_what_looks_wrong(fetch: Fetcher, server: Server) -> None:
    outcome = fetch(server.add("/a.png", body=DATA))
    assert isinstance(outcome, Finished)
    assert outcome.note == "This does not look like a .png file"


# -- Lengths.


def test_an_empty_file(fetch: Fetcher, server: Server, tmp_path: Path) -> None:
    outcome = fetch(server.add("/a.bin", body=b""), tmp_path)
    assert finished(outcome).read_bytes() == b""
    assert outcome == Finished(filepath=str(tmp_path / "a.bin"), note="The file is empty")


# -- Again. What becomes of which answer is in the table of faults.


@pytest.mark.parametrize(
    ("behaviour", "count"),
    [
        *((status(code), 1) for code in (204, 206, 304, 404, 416, 451)),
        (redirect("ftp://127.0.0.1/a"), 1),
        (with_headers({"Content-Encoding": "br"}), 1),
        (redirect_forever, 21),
        (status(503), 5),
        (raw(b"hello\r\n\r\n"), 5),
        (cut_after(OVERLAP), 6),  # a resume never gets past the overlap; then it is asked for whole
        (status(503, {"Retry-After": "0"}), retry.REQUESTS),
    ],
)
def test_how_often_it_is_asked_for(
    fetch: Fetcher, server: Server, tmp_path: Path, behaviour: Any, count: int
) -> None:
    assert failed(fetch(server.add("/a.bin", behaviour, body=DATA), tmp_path))
    assert len(server.requests) == count
    assert "a.bin" not in names(tmp_path)


def test_retry_after_is_waited_for_and_then_named(
    fetch: Fetcher, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    clock = Clock()

    def sleep(control: Control, seconds: float) -> None:
        waits.append(seconds)
        clock.now += seconds

    monkeypatch.setattr(connections, "time", clock)
    monkeypatch.setattr(Control, "sleep", sleep)
    url = server.add("/a.bin", fail_times(2, 503, {"Retry-After": "100"}), body=DATA)
    assert finished(fetch(url)).is_file()
    assert waits == [100.0, 100.0]
    sentence = failed(fetch(server.add("/b.bin", status(429, {"Retry-After": "3600"}))))
    assert sentence == "The server asks to wait 1 hour. Try again later"


def test_time_without_progress_ends_and_a_pause_is_none(
    fetch: Fetcher, server: Server, tmp_path: Path, clock: Clock
) -> None:
    def slow(exchange: Any) -> None:
        clock.now += 15 * fetch.settings.timeout
        exchange.cut()

    transfer = fetch.transfer(new_job(server.add("/a.bin", slow, body=DATA), tmp_path))
    assert "does not get on" in failed(fetch.run(transfer))
    assert len(server.requests) == 2  # more than 20 time-outs
    clock.now += 10**6
    server.add("/a.bin", first(1, cut_before_headers), body=DATA)
    assert finished(fetch.run(transfer)).read_bytes() == DATA


def test_a_redirect_is_no_progress(fetch: Fetcher, server: Server, clock: Clock) -> None:
    def slow(exchange: Any) -> None:
        clock.now += 15 * fetch.settings.timeout
        redirect_forever(exchange)

    assert "does not get on" in failed(fetch(server.add("/a.bin", slow)))
    assert len(server.requests) == 2


# -- Resume.


def test_a_resume_by_date(fetch: Fetcher, server: Server) -> None:
    cut = first(1, cut_after(200_000))
    assert finished(fetch(server.add("/a.bin", cut, body=DATA, etag=None))).read_bytes() == DATA
    assert server.requests[1].range_start == 200_000 - OVERLAP
    assert server.requests[1].headers["If-Range"] == LAST_MODIFIED


def test_a_whole_part_needs_only_its_overlap(fetch: Fetcher, server: Server, tmp_path: Path) -> None:
    """As after a crash between the last byte and the publication."""
    url = server.add("/a.bin", body=DATA)
    (tmp_path / "a.bin").mkdir()
    failed(fetch(url, tmp_path, if_exists=IfExists.OVERWRITE))
    (tmp_path / "a.bin").rmdir()
    assert finished(fetch(url, tmp_path, if_exists=IfExists.OVERWRITE)).read_bytes() == DATA
    assert server.requests[1].range_start == len(DATA) - OVERLAP


def test_a_whole_part_that_does_not_fit_is_fetched_anew(
    fetch: Fetcher, server: Server, tmp_path: Path
) -> None:
    url = server.add("/a.bin", body=pattern(len(DATA), seed=1), etag='"one"')
    (tmp_path / "a.bin").mkdir()
    failed(fetch(url, tmp_path, if_exists=IfExists.OVERWRITE))
    (tmp_path / "a.bin").rmdir()
    server.add("/a.bin", body=DATA, etag='"one"')
    assert finished(fetch(url, tmp_path, if_exists=IfExists.OVERWRITE)).read_bytes() == DATA


@pytest.mark.parametrize("position", [0, 4])
def test_what_a_broken_answer_brought_is_no_file_also_where_the_one_that_tells_the_length_is_cut(
    fetch: Fetcher, server: Server, position: int
) -> None:
    broken = first(1, bad_chunks("huge"))  # which brings as many bytes
    url = server.add("/a.bin", broken, at(1, cut_after(position)), body=DATA[:8])
    assert finished(fetch(url)).read_bytes() == DATA[:8]


def test_a_retry_of_a_whole_part_asks_for_nothing(fetch: Fetcher, server: Server, tmp_path: Path) -> None:
    url = server.add("/a.bin", body=DATA, etag=None, last_modified=None)
    transfer = fetch.transfer(new_job(url, tmp_path, if_exists=IfExists.OVERWRITE))
    (tmp_path / "a.bin").mkdir()
    assert "A folder named “a.bin” is in the way" in failed(fetch.run(transfer))
    (tmp_path / "a.bin").rmdir()
    assert finished(fetch.run(transfer)).read_bytes() == DATA
    assert len(server.requests) == 1


# -- What others do to the partial file.


def _given_up(fetch: Fetcher, server: Server, folder: Path) -> Any:
    """A transfer that has 200,000 bytes and was refused the rest; the next answer is whole."""
    url = server.add("/a.bin", first(1, cut_after(200_000)), at(1, status(410)), body=DATA)
    transfer = fetch.transfer(new_job(url, folder, sha256=SHA256))
    failed(fetch.run(transfer))
    return transfer


@pytest.mark.parametrize("how", ["deleted", "replaced", "cut", "garbled", "grown", "with other name"])
def test_a_partial_file_that_somebody_touched(
    fetch: Fetcher, server: Server, tmp_path: Path, how: str
) -> None:
    transfer = _given_up(fetch, server, tmp_path)
    part = part_of(tmp_path)
    other = tmp_path / "other"
    match how:
        case "deleted":
            part.unlink()
        case "replaced":
            part.unlink()
            part.write_bytes(b"x" * 200_000)
        case "cut":
            os.truncate(part, 1000)
        case "garbled":
            part.write_bytes(b"x" * 200_000)
        case "grown":
            part.write_bytes(part.read_bytes() + b"x" * 200_000)
        case _:
            os.link(part, other)
    outcome = fetch.run(transfer)
    if isinstance(outcome, Failed) and how in ("garbled", "replaced"):
        outcome = fetch.run(transfer)  # its digest told, and it was dropped
    assert finished(outcome).read_bytes() == DATA
    if how == "with other name":
        assert other.read_bytes() == DATA[:200_000]


@pytest.mark.parametrize(
    "sidecar", [b"", b"[]", b"{}", b"[" * 100_000, b"\xff", b"null", b'{"version": 1}', b"x" * (2 << 20)]
)
def test_a_sidecar_that_is_none_counts_for_nothing(
    fetch: Fetcher, server: Server, tmp_path: Path, sidecar: bytes
) -> None:
    _given_up(fetch, server, tmp_path)
    Path(f"{part_of(tmp_path)}.json").write_bytes(sidecar)
    assert finished(fetch(server.url("/a.bin"), tmp_path)).read_bytes() == DATA
    assert server.requests[-1].range is None


def test_planted_links_are_never_written_through(fetch: Fetcher, server: Server, tmp_path: Path) -> None:
    url = server.add("/a.bin", first(1, cut_after(200_000)), body=DATA)
    failed_once = fetch.transfer(new_job(url, tmp_path))
    part = Path(tmp_path, fetch_module.names.part_name(url, str(tmp_path)))
    victims = [tmp_path / f"victim{n}" for n in range(4)]
    for victim, link in zip(
        victims, [tmp_path / "a.bin", Path(f"{part}.json"), Path(f"{part}.json~")], strict=False
    ):
        victim.write_text("precious")
        link.symlink_to(victim)
    assert finished(fetch.run(failed_once)).read_bytes() == DATA
    assert (tmp_path / "a (1).bin").read_bytes() == DATA
    victims[3].write_text("precious")
    part.symlink_to(victims[3])
    assert "A shortcut is in the way in the folder" in failed(fetch(url, tmp_path))
    assert {victim.read_text() for victim in victims} == {"precious"}


def test_overwriting_replaces_a_planted_link_itself(fetch: Fetcher, server: Server, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "a.bin").symlink_to(tmp_path / "victim")
    url = server.add("/a.bin", body=DATA)
    finished(fetch(url, tmp_path, if_exists=IfExists.OVERWRITE))
    assert not (tmp_path / "a.bin").is_symlink()
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_something_that_is_no_file_under_the_names_of_the_partial_file(
    fetch: Fetcher, server: Server, tmp_path: Path, kind: str
) -> None:
    url = server.add("/a.bin", body=DATA)
    part = Path(tmp_path, fetch_module.names.part_name(url, str(tmp_path)))
    make = {
        "pipe": lambda path: os.mkfifo(path),
        "folder": os.mkdir,
        "device": lambda path: os.symlink("/dev/zero", path),
    }[kind]
    make(f"{part}.json")
    assert finished(fetch(url, tmp_path)).read_bytes() == DATA
    make(part)
    assert "is in the way" in failed(fetch(url, tmp_path))


# -- If the name is taken.


def test_rename_picks_its_number_when_the_file_is_published(
    fetch: Fetcher, server: Server, tmp_path: Path
) -> None:
    def take(exchange: Any) -> None:
        (tmp_path / "a.bin").write_text("mine")
        exchange.go_on()

    assert finished(fetch(server.add("/a.bin", take, body=DATA), tmp_path)).name == "a (1).bin"
    assert finished(fetch(server.url("/a.bin"), tmp_path)).name == "a (2).bin"
    assert (tmp_path / "a.bin").read_text() == "mine"


def test_rename_goes_round_a_folder(fetch: Fetcher, server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin").mkdir()
    assert finished(fetch(server.add("/a.bin", body=DATA), tmp_path)).name == "a (1).bin"


def test_rename_where_there_are_no_hard_links(
    fetch: Fetcher, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*args: Any, **options: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    url = server.add("/a.bin", body=DATA)
    assert finished(fetch(url, tmp_path)).name == "a.bin"
    assert finished(fetch(url, tmp_path)).name == "a (1).bin"
    assert names(tmp_path) == ["a (1).bin", "a.bin"]


def test_overwrite_keeps_the_old_file_until_the_new_one_is_whole(
    fetch: Fetcher, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_text("old")
    failed(fetch(server.add("/a.bin", cut_after(1000), body=DATA), tmp_path, if_exists=IfExists.OVERWRITE))
    assert (tmp_path / "a.bin").read_text() == "old"


def test_skip_asks_for_nothing(fetch: Fetcher, server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_text("old")
    url = server.add("/a.bin", body=DATA)
    outcome = fetch(url, tmp_path, if_exists=IfExists.SKIP)
    assert skipped(outcome) == tmp_path / "a.bin"
    assert "Kept the file that was there already" in str(outcome)
    assert server.requests == []


def test_skip_knows_the_name_when_the_server_has_told_it(
    fetch: Fetcher, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "b.bin").write_text("old")
    url = server.add("/a.bin", body=DATA, headers={"Content-Disposition": "attachment; filename=b.bin"})
    assert skipped(fetch(url, tmp_path, if_exists=IfExists.SKIP)) == tmp_path / "b.bin"
    assert names(tmp_path) == ["b.bin"]


def test_skip_where_the_name_was_taken_meanwhile(fetch: Fetcher, server: Server, tmp_path: Path) -> None:
    def take_the_name() -> None:
        until(lambda: list(tmp_path.glob("*.part")), lambda: "nothing was received")
        (tmp_path / "a.bin").write_text("mine")

    def take(exchange: Any) -> None:
        exchange.at_body(1000, take_the_name)
        exchange.go_on()

    url = server.add("/a.bin", take, body=DATA)
    outcome = fetch(url, tmp_path, if_exists=IfExists.SKIP)
    assert skipped(outcome) == tmp_path / "a.bin"
    assert "Kept the file" in str(outcome)
    assert (tmp_path / "a.bin").read_text() == "mine"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("if_exists", [IfExists.SKIP, IfExists.UPDATE, IfExists.OVERWRITE])
def test_a_folder_of_the_name_that_the_link_suggests_is_not_the_file(
    fetch: Fetcher, server: Server, tmp_path: Path, if_exists: IfExists
) -> None:
    """That of an archive which was unpacked, say."""
    (tmp_path / "rock").mkdir()
    disposition = {"Content-Disposition": "attachment; filename=rock.zip"}
    url = server.add("/rock", body=DATA, headers=disposition)
    assert finished(fetch(url, tmp_path, if_exists=if_exists)) == tmp_path / "rock.zip"


@pytest.mark.parametrize("if_exists", [IfExists.SKIP, IfExists.UPDATE, IfExists.OVERWRITE])
def test_a_folder_of_the_files_name_is_said_to_be_in_the_way(
    fetch: Fetcher, server: Server, tmp_path: Path, if_exists: IfExists
) -> None:
    (tmp_path / "a.bin").mkdir()
    url = server.add("/a.bin", body=DATA)
    error = failed(fetch(url, tmp_path, if_exists=if_exists))
    assert error == f"A folder named “a.bin” is in the way in the folder “{tmp_path}”. Choose another folder"
    assert (tmp_path / "a.bin").is_dir()


def test_update_fetches_only_what_changed(fetch: Fetcher, server: Server, tmp_path: Path) -> None:
    url = server.add("/a.bin", body=DATA)
    first_time = fetch(url, tmp_path, if_exists=IfExists.UPDATE)
    assert isinstance(first_time, Finished)
    have = first_time.have
    assert have
    modified = email.utils.parsedate_to_datetime(LAST_MODIFIED).timestamp()
    assert (have.name, have.size, have.mtime, have.etag) == ("a.bin", len(DATA), modified, _etag(server))
    assert (tmp_path / "a.bin").stat().st_mtime == modified
    assert skipped(fetch(url, tmp_path, if_exists=IfExists.UPDATE, have=have)) == tmp_path / "a.bin"
    assert server.requests[1].headers["If-None-Match"] == have.etag
    assert names(tmp_path) == ["a.bin"]
    server.add("/a.bin", body=DATA[::-1])
    assert finished(fetch(url, tmp_path, if_exists=IfExists.UPDATE, have=have)).read_bytes() == DATA[::-1]
    assert names(tmp_path) == ["a.bin"]


def test_where_no_body_comes_the_connection_serves_the_next_request(fetch: Fetcher, server: Server) -> None:
    """Neither what has not changed nor a redirect costs a new one."""
    target = server.add("/a.bin", body=DATA)
    moved = server.add("/moved.bin", redirect("/a.bin"))
    finished(fetch(target, if_exists=IfExists.UPDATE))
    for _ in range(3):
        skipped(fetch(target, if_exists=IfExists.UPDATE))
        finished(fetch(moved))
    assert len(server.requests) == 10
    assert server.connections.accepted == 1


@pytest.mark.parametrize("code", [302, 304])
def test_what_comes_behind_a_head_without_a_body_is_no_answer_to_the_next_request(
    fetch: Fetcher, server: Server, code: int
) -> None:
    head = f"HTTP/1.1 {code} Odd\r\nLocation: /b.bin\r\nContent-Length: 0\r\n\r\n".encode()
    odd = server.add("/a.bin", raw(head + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"))
    url = server.add("/b.bin", body=DATA)
    fetch(odd)
    assert finished(fetch(url, if_exists=IfExists.OVERWRITE)).read_bytes() == DATA


def test_a_connection_that_the_next_request_did_not_use_is_counted(
    fetch: Fetcher, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It failed before it was sent: the connection is closed when another needs the place."""
    connections = Connections(1)
    url = server.add("/a.bin", body=DATA)
    job = new_job(url, tmp_path)
    finished(fetch.run(Transfer(job, fetch.settings, connections=connections)))
    monkeypatch.setattr(retry, "REQUESTS", 0)
    transfer = Transfer(replace(job, url=url + "?again"), fetch.settings, connections=connections)
    failed(fetch.run(transfer))
    transfer.close()
    assert fetch.client.is_idle
    connections.limit = 0
    assert not fetch.client.is_idle


def test_update_without_memory_goes_by_the_date(fetch: Fetcher, server: Server) -> None:
    url = server.add("/a.bin", body=DATA)
    assert isinstance(fetch(url, if_exists=IfExists.UPDATE), Finished)
    skipped(fetch(url, if_exists=IfExists.UPDATE))
    assert server.requests[1].headers["If-Modified-Since"] == LAST_MODIFIED
    server.add("/a.bin", body=DATA[::-1], last_modified="Thu, 02 Jan 2020 00:00:00 GMT")
    assert finished(fetch(url, if_exists=IfExists.UPDATE)).read_bytes() == DATA[::-1]


@pytest.mark.parametrize(
    "date", ["rubbish", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT", ""]
)
def test_a_date_that_cannot_be_set_costs_no_download(fetch: Fetcher, server: Server, date: str) -> None:
    url = server.add("/a.bin", body=DATA, last_modified=date)
    assert finished(fetch(url, if_exists=IfExists.UPDATE)).read_bytes() == DATA


@pytest.mark.parametrize("has_have", [False, True])
def test_update_with_a_digest_goes_by_the_file_that_is_there(
    fetch: Fetcher, server: Server, tmp_path: Path, has_have: bool
) -> None:
    """Not by what the server says of changes: the file may be damaged, or another one."""
    url = server.add("/a.bin", body=DATA)
    outcome = fetch(url, tmp_path, if_exists=IfExists.UPDATE)
    assert isinstance(outcome, Finished)
    options = {"if_exists": IfExists.UPDATE, "sha256": SHA256, "have": outcome.have if has_have else None}
    assert skipped(fetch(url, tmp_path, **options)) == tmp_path / "a.bin"
    assert len(server.requests) == 1
    status = os.stat(tmp_path / "a.bin")
    (tmp_path / "a.bin").write_bytes(DATA[:-1] + b"?")
    os.utime(tmp_path / "a.bin", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert finished(fetch(url, tmp_path, **options)).read_bytes() == DATA
    assert names(tmp_path) == ["a.bin"]


def test_a_name_that_the_file_system_does_not_take(
    fetch: Fetcher, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*args: Any, **options: Any) -> None:
        raise OSError(36, "File name too long")

    monkeypatch.setattr(os, "link", link)
    assert "too long" in failed(fetch(server.add("/a.bin", body=DATA)))


def test_a_name_of_255_bytes(fetch: Fetcher, server: Server) -> None:
    name = "n" * 300 + ".blend"
    path = finished(fetch(server.add(f"/{name}", body=b"BLENDER" + DATA)))
    assert len(path.name) == 255
    assert path.suffix == ".blend"


def test_stopped_before_it_began_it_leaves_nothing_but_can_begin(
    fetch: Fetcher, server: Server, tmp_path: Path
) -> None:
    transfer = fetch.transfer(new_job(server.add("/a.bin", body=DATA), tmp_path))
    control = Control(fetch._waker)
    control.stop()
    with pytest.raises(fetch_module.Stopped):
        transfer.run(control, fetch.client, memoryview(bytearray(1000)))
    assert server.requests == []
    assert not isinstance(fetch.run(transfer), Halted)
    assert names(tmp_path) == ["a.bin"]


# -- The note for a Blender that dies before it has written its list.


@pytest.mark.parametrize("if_exists", list(IfExists))
def test_what_is_in_place_is_noted_at_once(
    fetch: Fetcher, server: Server, tmp_path: Path, if_exists: IfExists
) -> None:
    note, folder = tmp_path / "note", tmp_path / "files"
    job = new_job(server.add("/a.bin", body=DATA), folder, if_exists=if_exists, done=str(note))
    path = finished(fetch.run(fetch.transfer(job)))
    assert json.loads(note.read_text()) == [job.uid, str(path)]
    assert is_private(note)


def test_a_note_that_a_full_disk_has_cut_spoils_none_after_it(
    fetch: Fetcher, server: Server, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    note.write_text('[7, "/home/me/down')
    job = new_job(server.add("/a.bin", body=DATA), tmp_path, done=str(note))
    path = finished(fetch.run(fetch.transfer(job)))
    assert disk.noted(note) == {job.uid: str(path)}


def test_where_nothing_can_be_noted_the_download_is_finished(
    fetch: Fetcher, server: Server, tmp_path: Path
) -> None:
    job = new_job(server.add("/a.bin", body=DATA), tmp_path, done=str(tmp_path / "missing" / "note"))
    assert finished(fetch.run(fetch.transfer(job))).read_bytes() == DATA
