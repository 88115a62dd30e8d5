"""What a dialog says before anything is downloaded: what servers told, and what is on the disk."""

from __future__ import annotations

import hashlib
import shutil
import socket
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from driving import PATIENT, Driver
from leaks import threads
from server import DEADLINE, Gate, Server, pattern, stall_after, stall_before_headers, status

from background_downloads.session import ahead as ahead_module
from background_downloads.session.ahead import QUEUED, Ahead, facts
from background_downloads.session.rows import Rows
from background_downloads.transfer import names
from background_downloads.transfer.job import Digest, IfExists, Progress
from background_downloads.transfer.lists import NoListError
from background_downloads.workers import Download, Host, ProcessHost, Status, ThreadHost

DATA = pattern(300_000)
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(params=[ThreadHost, ProcessHost], ids=["threads", "process"])
def new_host(request: pytest.FixtureRequest) -> Callable[[], Host]:
    return lambda: request.param(PATIENT)


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def ahead(rows: Rows) -> Iterator[Ahead]:
    made = Ahead(rows)
    yield made
    made.close()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def have(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free, 0, free))

    return have


def links(*urls: str) -> list[names.Link]:
    return [names.Link(url) for url in urls]


def until(ahead: Ahead, condition: Callable[[], Any]) -> None:
    """Look as the dialog does."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, [(file.name, facts(file), file.error) for file in ahead.files]
        ahead.poll()
        time.sleep(0.005)


def looked(ahead: Ahead, *urls: str) -> None:
    """Show links, and wait until all was told."""
    ahead.show(links(*urls), lambda: ThreadHost(PATIENT))
    until(ahead, lambda: ahead.is_over)


def test_size_and_type_are_told_and_then_nobody_is_left(
    ahead: Ahead, server: Server, new_host: Callable[[], Host]
) -> None:
    ahead.show(links(server.add("/a.blend", body=DATA), server.add("/b.zip", status(404))), new_host)
    assert [facts(file) for file in ahead.files] == ["waiting", "waiting"]
    until(ahead, lambda: ahead.is_over)
    first, second = ahead.files
    assert (facts(first), first.error) == ("293 KiB, Blender file", "")
    assert facts(second) == ""
    assert "no file at this link" in second.error
    assert threads(["downloads-"]) == []


def test_what_was_asked_once_is_not_asked_again(ahead: Ahead, server: Server) -> None:
    first, second = (server.add(path, body=DATA) for path in ("/a.blend", "/b.blend"))
    looked(ahead, first)
    looked(ahead, second, first)
    assert [request.path for request in server.requests] == ["/a.blend", "/b.blend"]
    assert [facts(file) for file in ahead.files] == ["293 KiB, Blender file"] * 2


def test_who_leaves_waits_for_nobody_and_nobody_is_left(
    ahead: Ahead, server: Server, gate: Gate, new_host: Callable[[], Host]
) -> None:
    ahead.show(links(server.add("/a.blend", stall_before_headers(gate))), new_host)
    until(ahead, lambda: gate.reached == 1)
    ahead.leave()
    assert not ahead.is_over
    until(ahead, lambda: ahead.is_over)
    assert (threads(["downloads-"]), ahead.known()) == ([], {})
    server.wait_open(0)


def test_one_dialog_after_the_other_is_not_mixed_up(ahead: Ahead, server: Server, gate: Gate) -> None:
    ahead.show(links(server.add("/a.blend", stall_before_headers(gate))), lambda: ThreadHost(PATIENT))
    until(ahead, lambda: gate.reached == 1)
    ahead.leave()
    looked(ahead, server.add("/b.blend", body=DATA))
    assert [(file.name, facts(file)) for file in ahead.files] == [("b.blend", "293 KiB, Blender file")]


@pytest.mark.parametrize("kind", [ThreadHost, ProcessHost], ids=["threads", "process"])
def test_when_blender_begins_to_render_a_child_asks_in_the_threads_place(
    ahead: Ahead, server: Server, kind: type[Host]
) -> None:
    gate, kinds = server.gate(), [kind, ProcessHost]
    first, second = server.add("/a.blend", stall_before_headers(gate), body=DATA), server.add("/b.blend")
    ahead.show(links(first), lambda: kinds.pop(0)(PATIENT))
    until(ahead, lambda: gate.reached == 1)
    ahead.hold()
    until(ahead, lambda: gate.reached == (2 if kind is ThreadHost else 1) and not threads(["downloads-"]))
    ahead.show(links(first, second), lambda: pytest.fail("there is one already"))
    gate.open()
    until(ahead, lambda: ahead.is_over)
    assert [facts(file) for file in ahead.files] == ["293 KiB, Blender file", "0 B, Blender file"]


def test_a_host_that_leaves_is_not_asked_again(
    ahead: Ahead, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last thread may be in a name look-up when Blender begins to render, and comes back much later."""
    entered, answered, look_up = threading.Event(), threading.Event(), socket.getaddrinfo

    def wait(host: str, *args: Any, **options: Any) -> Any:
        if host == "slow.invalid":
            entered.set()
            assert answered.wait(DEADLINE)
        return look_up(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    kinds = [ThreadHost, ProcessHost]
    ahead.show(links("http://slow.invalid/a.blend"), lambda: kinds.pop(0)(PATIENT))
    until(ahead, entered.is_set)
    ahead.leave()
    ahead.hold()
    ahead.show(links(server.add("/b.blend", body=DATA)), lambda: kinds.pop(0)(PATIENT))
    until(ahead, lambda: facts(ahead.files[0]) == "293 KiB, Blender file")
    assert threads(["downloads-"]) == ["downloads-1"]
    answered.set()
    until(ahead, lambda: ahead.is_over)


def test_more_than_a_handful_are_counted(ahead: Ahead, server: Server, tmp_path: Path) -> None:
    (tmp_path / "3.blend").touch()
    looked(ahead, *[server.add(f"/{number}.blend") for number in range(9)])
    ahead.weigh(str(tmp_path), IfExists.RENAME)
    assert ahead.summary == "9 files: 0.blend, 1.blend, 2.blend and 6 more"
    assert ahead.taken == ["1 file is there already: what is new gets a number"]
    assert server.requests == []


REMARKS = {
    IfExists.RENAME: "will be called “a (2).blend”",
    IfExists.OVERWRITE: "replaced",
    IfExists.SKIP: "nothing is downloaded",
    IfExists.UPDATE: "only if it changed",
}


@pytest.mark.parametrize("if_exists", REMARKS)
def test_a_name_that_is_taken_and_what_becomes_of_it(
    ahead: Ahead, server: Server, tmp_path: Path, if_exists: IfExists
) -> None:
    for name in ("a.blend", "a (1).blend"):
        (tmp_path / name).touch()
    looked(ahead, server.add("/a.blend", body=DATA), server.add("/b.blend", body=DATA))
    ahead.weigh(str(tmp_path), if_exists)
    taken, free = ahead.files
    assert REMARKS[if_exists] in taken.remark
    assert free.remark == ""


def test_what_does_not_fit(ahead: Ahead, server: Server, tmp_path: Path, disk: Callable[[int], None]) -> None:
    looked(ahead, server.add("/a.blend", body=DATA))
    disk(300_000)
    ahead.weigh(str(tmp_path / "not" / "there" / "yet"), IfExists.RENAME)
    assert (ahead.is_too_much, ahead.room) == (False, f"293 KiB to download, 293 KiB free in {ahead.folder}")
    disk(299_999)
    ahead.weigh(str(tmp_path), IfExists.RENAME)
    assert ahead.is_too_much


def test_what_stays_needs_no_room(
    ahead: Ahead, server: Server, tmp_path: Path, disk: Callable[[int], None]
) -> None:
    (tmp_path / "a.blend").touch()
    looked(ahead, server.add("/a.blend", body=DATA))
    disk(10)
    ahead.weigh(str(tmp_path), IfExists.SKIP)
    assert (ahead.is_too_much, ahead.room) == (False, f"10 B free in {tmp_path}")


def test_what_may_not_have_changed_needs_no_room_for_sure(
    ahead: Ahead, server: Server, tmp_path: Path, disk: Callable[[int], None]
) -> None:
    (tmp_path / "a.blend").touch()
    looked(ahead, server.add("/a.blend", body=DATA), server.add("/b.blend", body=DATA[:1024]))
    disk(1024)
    ahead.weigh(str(tmp_path), IfExists.UPDATE)
    room = f"Up to 294 KiB to download, 1.0 KiB free in {tmp_path}"
    assert (ahead.is_too_much, ahead.room) == (False, room)
    disk(1023)
    ahead.weigh(str(tmp_path), IfExists.UPDATE)
    assert ahead.is_too_much


def download(rows: Rows, url: str, folder: Path, status: Status, received: int = 0, size: int = 0) -> None:
    """Something that the list has by now."""
    progress = Progress(received=received, size=size or None)
    uid = rows.new_uid()
    rows.append(Download(uid=uid, url=url, directory=str(folder), status=status, progress=progress))
    if status is Status.RUNNING:
        rows.put(rows.find(uid), status)


@pytest.mark.parametrize("state", [Status.RUNNING, Status.QUEUED])
def test_what_runs_and_waits_for_the_same_disk_takes_its_room_first(
    ahead: Ahead, rows: Rows, server: Server, tmp_path: Path, disk: Callable[[int], None], state: Status
) -> None:
    download(rows, "http://127.0.0.1/held.zip", tmp_path / "other", state, 1024, 3 * 1024)
    looked(ahead, server.add("/a.blend", body=DATA[:1024]))
    disk(3 * 1024)
    ahead.weigh(str(tmp_path), IfExists.RENAME)
    others = "of which downloads in the list will take 2.0 KiB"
    room = f"1.0 KiB to download, 3.0 KiB free in {tmp_path}, {others}"
    assert (ahead.is_too_much, ahead.room) == (False, room)
    disk(3 * 1024 - 1)
    ahead.weigh(str(tmp_path), IfExists.RENAME)
    assert ahead.is_too_much
    disk(1 << 30)
    ahead.weigh(str(tmp_path), IfExists.RENAME)
    assert ahead.room == f"1.0 KiB to download, 1.0 GiB free in {tmp_path}"  # what is nothing is not told


@pytest.mark.parametrize("state", [Status.PAUSED, Status.FAILED, Status.CANCELLED, Status.FINISHED])
def test_what_may_never_go_on_takes_no_room(
    ahead: Ahead, rows: Rows, server: Server, tmp_path: Path, disk: Callable[[int], None], state: Status
) -> None:
    download(rows, "http://127.0.0.1/held.zip", tmp_path, state, 1024, 3 * 1024)
    looked(ahead, server.add("/a.blend", body=DATA[:1024]))
    disk(1024)
    ahead.weigh(str(tmp_path), IfExists.RENAME)
    assert (ahead.is_too_much, ahead.claimed) == (False, 0)


def test_another_disk_has_its_own_room(ahead: Ahead, rows: Rows, server: Server, tmp_path: Path) -> None:
    assert Path("/dev/shm").stat().st_dev != tmp_path.stat().st_dev
    download(rows, "http://127.0.0.1/held.zip", Path("/dev/shm"), Status.QUEUED, 0, 1 << 60)
    looked(ahead, server.add("/a.blend", body=DATA[:1024]))
    ahead.weigh(str(tmp_path), IfExists.RENAME)
    assert not ahead.is_too_much


def test_what_the_list_has_already_is_said_and_needs_no_room_twice(
    ahead: Ahead, rows: Rows, server: Server, tmp_path: Path, disk: Callable[[int], None]
) -> None:
    url = server.add("/a.blend", body=DATA)
    download(rows, url, tmp_path, Status.RUNNING, 100_000, len(DATA))
    looked(ahead, url)
    disk(200_000)
    ahead.weigh(str(tmp_path), IfExists.RENAME)
    assert ([file.remark for file in ahead.files], ahead.is_too_much) == ([QUEUED], False)
    ahead.weigh(str(tmp_path / "elsewhere"), IfExists.RENAME)
    assert [file.remark for file in ahead.files] == [""]


TWINS = {
    IfExists.RENAME: ["", "will be called “a (1).blend”", "will be called “a (2).blend”"],
    IfExists.OVERWRITE: ["", "only the later of them is kept", "only the later of them is kept"],
    IfExists.SKIP: ["", "only the earlier of them is kept", "only the earlier of them is kept"],
    IfExists.UPDATE: ["", "only the later of them is kept", "only the later of them is kept"],
}


@pytest.mark.parametrize("if_exists", TWINS)
def test_links_of_one_name_are_told_apart(
    ahead: Ahead, server: Server, tmp_path: Path, if_exists: IfExists
) -> None:
    urls = [server.add(f"/{folder}/a.blend", body=DATA) for folder in "xyz"]
    looked(ahead, *urls, server.add("/b.blend", body=DATA))
    ahead.weigh(str(tmp_path), if_exists)
    remarks = [file.remark for file in ahead.files]
    assert [remark.rpartition(": ")[2].replace("the later of them will", "will") for remark in remarks] == [
        *TWINS[if_exists],
        "",
    ]


def test_links_of_a_name_that_is_there_get_a_number_each(
    ahead: Ahead, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "a.blend").touch()
    looked(ahead, *[server.add(f"/{folder}/a.blend", body=DATA) for folder in "xy"])
    ahead.weigh(str(tmp_path), IfExists.RENAME)
    assert [file.remark.partition(": ")[2] for file in ahead.files] == [
        "the new one will be called “a (1).blend”",
        "the new one will be called “a (2).blend”",
    ]


def test_links_that_name_no_file_are_no_twins_until_it_is_known(
    ahead: Ahead, server: Server, gate: Gate, tmp_path: Path
) -> None:
    urls = [server.add(f"/get?id={number}", stall_before_headers(gate)) for number in range(2)]
    ahead.show(links(*urls), lambda: ThreadHost(PATIENT))
    ahead.weigh(str(tmp_path), IfExists.RENAME)
    assert [file.remark for file in ahead.files] == ["", ""]


def test_of_many_that_have_one_name_how_many_is_said(ahead: Ahead, tmp_path: Path) -> None:
    urls = [f"http://127.0.0.1/{number // 2}/{number % 10}.blend" for number in range(12)]
    ahead.show(links(*urls), lambda: ThreadHost(PATIENT))
    ahead.weigh(str(tmp_path), IfExists.OVERWRITE)
    assert ahead.taken == ["2 files have the name of another: only what comes last is kept"]


def test_what_was_received_needs_no_room_again(
    ahead: Ahead, server: Server, tmp_path: Path, disk: Callable[[int], None], thread_driver: Driver
) -> None:
    url = server.add("/a.blend", stall_after(200_000), body=DATA)
    thread_driver.halted(url, tmp_path, 200_000)
    thread_driver.host.shut()
    looked(ahead, url)
    disk(100_000)
    ahead.weigh(str(tmp_path), IfExists.RENAME)
    assert (ahead.is_too_much, ahead.needed) == (False, 100_000)


def test_a_size_that_is_not_told_is_said_to_be_so(ahead: Ahead, server: Server, tmp_path: Path) -> None:
    looked(ahead, server.add("/a.blend", body=DATA), server.add("/b", body=DATA, chunked=True, ranges=False))
    ahead.weigh(str(tmp_path), IfExists.RENAME)
    assert ahead.room.startswith("At least 293 KiB to download, ")
    assert facts(ahead.files[1]) == "size not told, application/octet-stream"


def test_a_folder_that_cannot_be_had_is_no_defect(ahead: Ahead, server: Server) -> None:
    looked(ahead, server.add("/a.blend", body=DATA))
    ahead.weigh("", IfExists.RENAME, "Save the .blend file first")
    assert (ahead.problem, ahead.free, ahead.is_too_much) == ("Save the .blend file first", None, False)


def test_the_disk_is_asked_about_no_more_names_than_it_has_time_for(ahead: Ahead, tmp_path: Path) -> None:
    ahead.show(links(*[f"http://127.0.0.1/{n}.blend" for n in range(5000)]), lambda: ThreadHost(PATIENT))
    for number in (7, 4999):
        (tmp_path / f"{number}.blend").touch()
    ahead.weigh(str(tmp_path), IfExists.RENAME)
    assert [file.name for file in ahead.files if file.is_there] == ["7.blend"]
    assert ahead.taken == ["At least 1 file is there already: what is new gets a number"]
    assert ahead_module.LOOKED_FOR < 5000


# Lists.

SUMS = "".join(
    f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n" for name in ("a/rock.zip", "tree.zip")
)


def test_what_a_list_names_takes_its_place(
    ahead: Ahead, server: Server, new_host: Callable[[], Host]
) -> None:
    url = server.add("/SHA256SUMS", body=(SUMS + f"{'0' * 64}  ../out.zip\n").encode())
    ahead.show(links(url), new_host)
    until(ahead, lambda: ahead.is_over)
    assert (ahead.files, [file.name for file in ahead.listed]) == ([], ["rock.zip", "tree.zip"])
    assert ahead.choice == "2 of 2 files chosen. Left out, since they name no file in the folder: 1"
    assert list(ahead.batches(links(url))) == ["", "a"]
    ahead.listed[0].is_chosen = False
    ((subfolder, (link,)),) = ahead.batches(links(url)).items()
    assert (subfolder, link.url) == ("", server.url("/tree.zip"))
    assert link.digest == Digest("sha256", hashlib.sha256(b"tree.zip").hexdigest())
    assert threads(["downloads-"]) == []


def test_the_parts_of_an_asset_listing_are_read_too(ahead: Ahead, server: Server) -> None:
    url = server.add(
        "/lib/_asset-library-meta.json", body=b'{"api_versions": {"v1": {"url": "_v1/asset-index.json"}}}'
    )
    server.add(
        "/lib/_v1/asset-index.json", body=b'{"pages": [{"url": "_v1/p-0.json"}, {"url": "_v1/p-1.json"}]}'
    )
    server.add("/lib/_v1/p-0.json", body=b'{"files": [{"path": "a/rock.blend", "size_in_bytes": 7}]}')
    server.add("/lib/_v1/p-1.json", body=b'{"files": [{"path": "tree.blend", "url": "x/y.blend"}]}')
    looked(ahead, url)
    assert [(file.subfolder, file.name, file.size) for file in ahead.listed] == [
        ("a", "rock.blend", 7),
        ("", "tree.blend", None),
    ]
    assert [file.link.url for file in ahead.listed] == [
        server.url("/lib/a/rock.blend"),
        server.url("/lib/x/y.blend"),
    ]


def test_a_list_that_is_none_is_said_and_may_be_fetched_as_a_file(ahead: Ahead, server: Server) -> None:
    broken, text = server.add("/a.sha256", body=b"sign in"), server.add("/readme.txt", body=b"Hello")
    looked(ahead, broken, text)
    assert [file.error for file in ahead.files] == [
        "This is no list of files that can be read: it names no links and no checksums",
        "",
    ]
    assert list(ahead.batches(links(broken, text))) == [""]


def test_a_text_that_mentions_a_link_is_the_file_that_is_wanted(ahead: Ahead, server: Server) -> None:
    url = server.add("/README.txt", body=b"Licence: see https://creativecommons.org/publicdomain/zero/1.0/")
    looked(ahead, url)
    assert ([facts(file) for file in ahead.files], ahead.listed) == (["63 B, TXT file"], [])
    assert ahead.batches(links(url)) == {"": links(url)}


def test_a_text_that_is_a_list_can_be_had_as_itself(ahead: Ahead, server: Server) -> None:
    url = server.add("/links.txt", body=b"https://example.org/rock.zip")
    looked(ahead, url)
    rock, text = ahead.listed
    assert (rock.name, rock.is_chosen) == ("rock.zip", True)
    assert (text.name, text.is_chosen) == ("links.txt", False)
    assert ahead.batches(links(url)) == {"": links("https://example.org/rock.zip")}
    rock.is_chosen, text.is_chosen = False, True
    other = server.add("/b.blend", body=DATA)
    looked(ahead, url, other)
    assert ahead.batches(links(url, other)) == {"": links(other, url)}


def test_a_text_that_names_itself_is_offered_once(ahead: Ahead, server: Server) -> None:
    url = server.url("/links.txt")
    looked(ahead, server.add("/links.txt", body=f"{url}\n{url}".encode()))
    assert [(file.name, file.is_chosen) for file in ahead.listed] == [("links.txt", True)]


def test_a_list_of_too_many_files_is_a_sentence(ahead: Ahead, server: Server) -> None:
    url = server.add("/SHA256SUMS", body="".join(f"{'0' * 64}  {n}.zip\n" for n in range(10_001)).encode())
    looked(ahead, url)
    assert "more than 10,000 files" in ahead.files[0].error


def test_a_list_that_lies_on_the_disk_says_where_its_files_are_or_is_of_no_use(ahead: Ahead) -> None:
    with pytest.raises(NoListError, match="Copy the link to it"):
        ahead.take(SUMS.encode())
    ahead.take(b"https://example.org/rock.zip https://example.org/tree.zip")
    assert [file.link.url for file in ahead.listed] == [
        "https://example.org/rock.zip",
        "https://example.org/tree.zip",
    ]
    assert (ahead.claim(), ahead.claim()) == (True, False)
    ahead.leave()
    assert ahead.listed == []
