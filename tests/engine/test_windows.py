"""What Windows does differently, on Windows; what Linux can play of it, here too."""

from __future__ import annotations

import errno
import itertools
import ntpath
import os
import socket
import ssl
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from driving import (
    Driver,
    Fetcher,
    Halted,
    IfExists,
    Phase,
    failed,
    finished,
    names,
    new_job,
    opened,
    part_of,
    place,
    sidecar,
    skipped,
)
from rules import TOP, is_safe
from server import (
    Certificates,
    Gate,
    Proxy,
    Server,
    cut_before_headers,
    first,
    pattern,
    refused_port,
    stall_after,
    unreachable_port,
)

from background_downloads.session import rows as rows_module
from background_downloads.session.unpacking import ImportProblem, unpack
from background_downloads.transfer import connect, portable
from background_downloads.transfer import part as part_module
from background_downloads.transfer.disk import explained
from background_downloads.transfer.job import Settings, TransferError
from background_downloads.transfer.part import Part
from background_downloads.workers import Download

DATA = pattern(200_000)
URL = "https://files.example/a.bin"
ON_WINDOWS = sys.platform == "win32"
on_windows = pytest.mark.skipif(not ON_WINDOWS, reason="only Windows has it")


@pytest.fixture
def part(tmp_path: Path, windows: None) -> Iterator[Part]:
    """A whole partial file."""
    part = opened(URL, str(tmp_path), None)
    part.write(memoryview(DATA), 0)
    part.received.ranges.add(0, len(DATA))
    yield part
    part.close()


# -- A network drive: WebDAV, a virtual machine's shared folder.


@pytest.fixture
def numbered_anew(windows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As such a drive has it: a file has another number at each look."""
    numbers = itertools.count(1)

    def anew(look: Callable[..., os.stat_result]) -> Callable[..., Any]:
        def looked(of: Any, **options: Any) -> Any:
            status = look(of, **options)
            fields = {name: getattr(status, name) for name in dir(status) if name.startswith("st_")}
            return SimpleNamespace(**fields | {"st_ino": next(numbers)})

        return looked

    for name in ("fstat", "lstat"):
        monkeypatch.setattr(os, name, anew(getattr(os, name)))


def test_files_that_are_numbered_anew_at_each_look_are_what_they_were(
    numbered_anew: None, tmp_path: Path
) -> None:
    part = opened(URL, str(tmp_path), None)
    part.write(memoryview(DATA), 0)
    part.release()
    assert part.open()
    part.checkpoint()
    assert part.publish("a.bin", IfExists.RENAME) == str(tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert names(tmp_path) == ["a.bin"]


# -- A folder that Windows Security protects from programs that it does not know.


@pytest.mark.parametrize("call", ["open", "mkdir"])
def test_a_folder_that_windows_protects_is_told_in_a_sentence(
    windows: None, fetch: Fetcher, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """It says of what is to be made there that it is not to be found (BlenderKit's issue 850)."""
    make = getattr(os, call)

    def make_elsewhere(path: Any, *args: Any, **options: Any) -> Any:
        if str(tmp_path) in str(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return make(path, *args, **options)

    url, folder = server.add("/a.bin", body=DATA), tmp_path if call == "open" else tmp_path / "new"
    with monkeypatch.context() as patch:
        patch.setattr(os, call, make_elsewhere)
        assert "under Ransomware protection" in failed(fetch(url, folder))
    assert finished(fetch(url, folder)).read_bytes() == DATA


# -- Somebody has the file open: an indexer, a virus scanner, another program.


@pytest.mark.parametrize("if_exists", [IfExists.RENAME, IfExists.OVERWRITE])
def test_publishing_waits_for_whoever_looks_at_the_new_file(
    part: Part, tmp_path: Path, if_exists: IfExists
) -> None:
    scanner = place(part).open("rb")
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            scanner.close()

    assert part.publish("a.bin", if_exists, wait=wait) == str(tmp_path / "a.bin")
    assert len(waits) == 3
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert names(tmp_path) == ["a.bin"]


def test_a_file_that_stays_open_is_told_in_a_sentence_and_all_is_kept(
    windows: None, fetch: Fetcher, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portable, "PATIENCE", 0.0)
    url = server.add("/a.bin", body=DATA)
    (tmp_path / "a.bin").write_text("old")
    transfer = fetch.transfer(new_job(url, tmp_path, if_exists=IfExists.OVERWRITE))
    with (tmp_path / "a.bin").open("rb"):
        sentence = failed(fetch.run(transfer))
        assert sentence.endswith("open. Close it there, then press Retry")
        assert (tmp_path / "a.bin").read_text() == "old"
        assert part_of(tmp_path).stat().st_size == len(DATA)
    assert finished(fetch.run(transfer)).read_bytes() == DATA
    assert names(tmp_path) == ["a.bin"]


def test_an_archive_is_unpacked_though_somebody_looks_at_what_is_in_it(
    windows: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then Windows does not rename its folder; Wine does."""
    looks, rename = ["scanner"] * 3, os.rename

    def rename_later(source: Any, target: Any) -> None:
        if looks:
            raise PermissionError(errno.EACCES, f"{looks.pop()} has it open", source)
        rename(source, target)

    with zipfile.ZipFile(tmp_path / "rocks.zip", "w") as archive:
        archive.writestr("wood.png", DATA)
    monkeypatch.setattr(os, "rename", rename_later)
    *_, folder = unpack(str(tmp_path / "rocks.zip"))
    assert (folder, looks) == (str(tmp_path / "rocks"), [])
    assert names(tmp_path / "rocks") == ["wood.png"]
    looks.append("backup")
    monkeypatch.setattr(portable, "PATIENCE", -1.0)
    with pytest.raises(ImportProblem, match="backup has it open"):
        list(unpack(str(tmp_path / "rocks.zip")))
    assert names(tmp_path) == ["rocks", "rocks.zip"]


def test_who_opens_a_partial_file_as_another_link_takes_it_over_is_told_of(
    windows: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = opened("https://files.example/old.bin", str(tmp_path), None)
    old.write(memoryview(DATA[:1000]), 0)
    old.close()
    part = opened(URL, str(tmp_path), None, earlier=place(old).name)
    with monkeypatch.context() as patch:
        patch.setattr(part_module, "_locked", refuse)
        with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
            part.write(memoryview(DATA[1000:]), 1000)
    assert part.open()
    assert part.received.ranges.as_list() == [[0, 1000]]
    part.discard()
    assert names(tmp_path) == []


class Here:
    """Blender's own thread, as far as it is asked."""

    def __init__(self, target: Callable[[], None]) -> None:
        self.start = target

    def join(self) -> None:
        pass


def refuse(path: Path) -> int:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


@pytest.mark.parametrize(("kind", "seconds"), [(Here, 0.5), (threading.Thread, 5.0)])
def test_blenders_window_waits_a_moment_for_an_open_file_and_a_worker_longer(
    windows: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, seconds: float
) -> None:
    (tmp_path / "a.bin").write_text("open")
    waits: list[float] = []
    monkeypatch.setattr(portable, "time", SimpleNamespace(monotonic=lambda: sum(waits)))

    def remove() -> None:
        with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
            portable.remove(tmp_path / "a.bin", waits.append)

    with (tmp_path / "a.bin").open("rb"):
        thread = kind(target=remove)
        thread.start()
        thread.join()
    assert sum(waits) == pytest.approx(seconds, abs=0.1)


def test_whoever_waits_for_an_open_file_can_be_stopped(
    windows: None, thread_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portable, "PATIENCE", 90.0)
    (tmp_path / "a.bin").write_text("old")
    job = new_job(server.add("/a.bin", body=DATA), tmp_path, if_exists=IfExists.OVERWRITE)
    with (tmp_path / "a.bin").open("rb"):
        thread_driver.submit(job)
        thread_driver.until_phase(job, Phase.PUBLISH)
        assert isinstance(thread_driver.stop(job), Halted)
        assert (tmp_path / "a.bin").read_text() == "old"
    assert finished(thread_driver.run(job)).read_bytes() == DATA
    assert names(tmp_path) == ["a.bin"]


def test_a_sidecar_that_somebody_reads_is_replaced_a_moment_later(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    part.checkpoint()
    reader = sidecar(part).open("rb")
    replace = os.replace

    def replace_or_wait_for_the_reader(*args: Any) -> None:
        try:
            replace(*args)
        except PermissionError:
            reader.close()
            raise

    monkeypatch.setattr(os, "replace", replace_or_wait_for_the_reader)
    part.checkpoint()
    assert reader.closed


@pytest.mark.parametrize("if_exists", [IfExists.RENAME, IfExists.OVERWRITE])
def test_a_scanner_that_takes_the_new_file_away_is_named(
    windows: None,
    fetch: Fetcher,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    if_exists: IfExists,
) -> None:
    """It looks when the file is closed, just before the file gets its name."""

    def quarantine(source: Any, *args: Any) -> None:
        os.unlink(source)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)

    transfer = fetch.transfer(new_job(server.add("/a.bin", body=DATA), tmp_path, if_exists=if_exists))
    with monkeypatch.context() as patch:
        patch.setattr(portable, "rename_new", quarantine)
        patch.setattr(portable, "replace", quarantine)
        assert "Ask your virus scanner" in failed(fetch.run(transfer))
    assert [name for name in names(tmp_path) if not name.endswith(".json")] == []
    assert finished(fetch.run(transfer)).read_bytes() == DATA
    assert names(tmp_path) == ["a.bin"]


def test_a_name_that_is_taken_leaves_no_partial_file(
    windows: None, fetch: Fetcher, server: Server, tmp_path: Path
) -> None:
    def take(exchange: Any) -> None:
        (tmp_path / "a.bin").write_text("mine")
        exchange.go_on()

    url = server.add("/a.bin", take, body=DATA)
    skipped(fetch(url, tmp_path, if_exists=IfExists.SKIP))
    assert names(tmp_path) == ["a.bin"]
    assert (tmp_path / "a.bin").read_text() == "mine"


def test_what_is_given_up_is_deleted_though_it_was_open(part: Part, tmp_path: Path) -> None:
    part.discard()
    assert names(tmp_path) == []


def test_a_read_only_file_is_no_open_one(part: Part, tmp_path: Path) -> None:
    """Waiting would not help."""
    if not ON_WINDOWS:
        pytest.skip("only Windows replaces no file that is read-only")
    (tmp_path / "a.bin").write_text("old")
    (tmp_path / "a.bin").chmod(0o444)
    with pytest.raises(PermissionError):
        part.publish("a.bin", IfExists.OVERWRITE, wait=pytest.fail)
    (tmp_path / "a.bin").chmod(0o666)


def test_a_file_that_is_read_only_is_named(
    windows: None, fetch: Fetcher, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is not to blame. Wine replaces such a file."""
    (tmp_path / "a.bin").write_text("old")
    access = os.access

    def refuse(source: Any, target: Any, *args: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), source, 5, target)

    def has_attribute(path: Any, mode: int) -> bool:
        return access(path, mode) and not (mode == os.W_OK and str(path).endswith("a.bin"))

    url = server.add("/a.bin", body=DATA)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", has_attribute)
        patch.setattr(portable, "replace", refuse)
        assert "“a.bin” in the folder" in failed(fetch(url, tmp_path, if_exists=IfExists.OVERWRITE))
    assert (tmp_path / "a.bin").read_text() == "old"
    assert finished(fetch(url, tmp_path, if_exists=IfExists.OVERWRITE)).read_bytes() == DATA


# -- Names and paths.

REFUSED_NAMES = [
    "CON", "con.blend", "NUL.txt", "aux", "COM1.zip", "COM¹", "LPT9.tar.gz", "CONIN$", "CLOCK.", "a.", "a ",
    "a. . .", "a:b", "a.zip:Zone.Identifier", "a::$DATA", "C:a.zip", "a?.zip", 'a"b.zip', "a|b", "a<b>.zip",
    "..", ".", "\\\\server\\share\\a.zip", "C:\\Windows\\a.zip", "..\\a.zip", "a\x07.zip", "a/b.zip",
]  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_NAMES)
def test_a_name_that_windows_does_not_take_becomes_one_that_it_takes(
    windows: None, fetch: Fetcher, server: Server, tmp_path: Path, name: str
) -> None:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    header = f'attachment; filename="{quoted}"'.encode().decode("latin-1")
    url = server.add("/x.bin", body=DATA, headers={"Content-Disposition": header})
    path = finished(fetch(url, tmp_path))
    assert path.parent == tmp_path
    assert is_safe(path.name)
    assert names(tmp_path) == [path.name]
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("letter", ["🎨", "ü", "é", "語", "x"])
def test_a_name_of_any_length_fits(windows: None, fetch: Fetcher, server: Server, letter: str) -> None:
    """Windows takes 255 UTF-16 units; the partial file and its sidecar have names, too."""
    header = f"attachment; filename*=UTF-8''{quote(letter * 300)}.blend"
    url = server.add(f"/{quote(letter * 60)}.bin", body=DATA, headers={"Content-Disposition": header})
    path = finished(fetch(url))
    assert path.name.startswith(letter * 40)
    assert path.suffix == ".blend"
    assert len(path.name.encode("utf-16-le")) <= 2 * 255
    assert path.read_bytes() == DATA


@on_windows
def test_names_that_differ_in_case_are_one(fetch: Fetcher, server: Server, tmp_path: Path) -> None:
    for name in ("Rock.bin", "rock.bin", "ROCK.BIN"):
        finished(fetch(server.add(f"/{name}", body=DATA), tmp_path))
    assert names(tmp_path) == ["ROCK (2).BIN", "Rock.bin", "rock (1).bin"]


@on_windows
def test_a_folder_in_another_case_has_the_same_partial_file(tmp_path: Path) -> None:
    part = opened(URL, str(tmp_path), None)
    with pytest.raises(TransferError, match="Another Blender"):
        opened(URL, str(tmp_path).upper(), None)
    part.close()


def test_a_folder_in_another_case_has_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being downloaded into `c:\\dl` is not asked for again into `C:\\dl`."""
    monkeypatch.setattr(rows_module, "_key", ntpath.normcase)
    rows = rows_module.Rows()
    row = Download(uid=1, url=URL, directory="c:\\dl")
    rows.append(row)
    assert list(rows.within("C:/DL")) == [row]
    rows.change_folder(row, "D:\\dl")
    assert not rows.within("C:\\dl")
    assert list(rows.within("d:\\Dl")) == [row]
    rows.drop([row])
    assert not rows.within("D:\\dl")


def test_a_path_of_more_than_260_characters(driver: Driver, server: Server, tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["f" * 60] * 5)
    url = server.add(f"/{'n' * 100}.bin", body=DATA)
    path = finished(driver.run(new_job(url, folder)))
    assert str(path) == os.path.join(folder, "n" * 100 + ".bin")
    assert names(Path(portable.reach(str(folder)))) == [path.name]
    assert Path(portable.reach(str(path))).read_bytes() == DATA


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What people and Blender call a folder that the system has to be told of otherwise."""
    far, near = f"{TOP}far", str(tmp_path)
    monkeypatch.setattr(portable, "reach", lambda path: str(path).replace(far, near))
    monkeypatch.setattr(portable, "plain", lambda path: path.replace(near, far))
    return far


def test_an_archive_is_unpacked_however_deep(far: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "rocks.zip", "w") as archive:
        archive.writestr("textures/wood.png", DATA)
    *_, folder = unpack(os.path.join(far, "rocks.zip"))
    assert folder == os.path.join(far, "rocks")
    assert (tmp_path / "rocks" / "textures" / "wood.png").read_bytes() == DATA


@pytest.mark.parametrize("length", [259, 260])
def test_what_is_too_long_for_blender_is_known(windows_paths: None, length: int) -> None:
    assert portable.is_too_long("C:\\".ljust(length, "n")) == (length > 259)


@pytest.mark.parametrize("user", ["Jörg Müller", "艾米 🎨", "Ze'ev d'Or & Söhne (50 %)"])
def test_a_user_of_any_name(driver: Driver, server: Server, tmp_path: Path, user: str) -> None:
    folder = tmp_path / user / "Téléchargements 📦"
    assert finished(driver.run(new_job(server.add("/a.bin", body=DATA), folder))).read_bytes() == DATA
    assert names(folder) == ["a.bin"]


@pytest.fixture
def windows_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """How Windows reads paths, on any system."""
    monkeypatch.setattr(portable, "IS_WINDOWS", True)
    monkeypatch.setattr(portable.os, "path", ntpath)


@pytest.mark.parametrize(
    ("path", "is_whole"),
    [
        (r"C:\dl", True), ("C:/dl", True), ("C:\\", True), (r"\\server\share\dl", True),
        (r"\\server\share", True), (r"\\?\C:\dl", True), ("//server/share/dl", True), (r"\\server", False),
        ("//server", False), (r"\\?\UNC\server\share", True), ("C:dl", False), ("C:", False), (r"\dl", False),
        ("/dl", False), ("dl", False), ("", False), (".", False), (r"..\dl", False),
    ],
)  # fmt: skip
def test_what_begins_on_the_current_drive_is_no_whole_path(
    windows_paths: None, path: str, is_whole: bool
) -> None:
    assert portable.is_absolute(path) == is_whole


@pytest.mark.parametrize(
    ("path", "reached"),
    [
        (r"C:\dl", r"\\?\C:\dl"),
        ("C:/dl/../x", r"\\?\C:\x"),
        (r"\\server\share\dl", r"\\?\UNC\server\share\dl"),
        (r"\\?\C:\dl", r"\\?\C:\dl"),
    ],
)
def test_paths_are_reached_in_their_long_form_and_told_plainly(
    windows_paths: None, path: str, reached: str
) -> None:
    assert portable.reach(path) == reached
    assert portable.plain(reached) == ntpath.normpath(path).removeprefix("\\\\?\\")


@pytest.mark.parametrize(
    ("host", "path", "named"),
    [
        ("", "/C:/dl/a b", "C:/dl/a b"), ("", "/c|/dl", "c:/dl"), ("", "/dl", "/dl"),
        ("server", "/share/dl", "//server/share/dl"), ("C:", "/dl", "C:/dl"), (r"C:\dl\x", "", r"C:\dl\x"),
    ],
)  # fmt: skip
def test_file_links_name_drives_and_shares(windows_paths: None, host: str, path: str, named: str) -> None:
    assert portable.path_of_link(host, path) == named


# -- Disks. Who runs the suite lends them: nothing is mounted from within Windows.


def lent(name: str) -> Path:
    path = os.environ.get(name)
    if not path:
        pytest.skip("no disk was lent for it: Windows mounts nothing for a test")
    return Path(path)


@on_windows
def test_a_disk_that_is_full(thread_driver: Driver, server: Server) -> None:
    folder = lent("TEST_SMALL_DISK")
    url = server.add("/big.bin", body=pattern(8 << 20))
    assert "Not enough space" in failed(thread_driver.run(new_job(url, folder)))


@on_windows
def test_a_disk_that_becomes_full(thread_driver: Driver, server: Server) -> None:
    folder = lent("TEST_SMALL_DISK")
    unknown = server.add("/unknown.bin", body=pattern(8 << 20), length=False)
    assert "The disk is full" in failed(thread_driver.run(new_job(unknown, folder)))


@on_windows
def test_a_disk_that_is_read_only(fetch: Fetcher, server: Server) -> None:
    sentence = failed(fetch(server.add("/a.bin", body=DATA), lent("TEST_READ_ONLY_DISK")))
    assert "read-only" in sentence or "Nothing can be written" in sentence or "not allowed" in sentence


@on_windows
def test_a_drive_that_is_taken_away(thread_driver: Driver, server: Server, gate: Gate) -> None:
    """Drive X: leads to a folder, which is somewhere else then."""
    place = lent("TEST_DRIVE")
    url = server.add("/a.bin", stall_after(100_000, gate), body=DATA)
    job = thread_driver.begun(url, Path("X:\\files"), 100_000)
    elsewhere = place.rename(place.with_name("unplugged"))
    gate.open()
    assert "Is its disk still connected" in failed(thread_driver.outcome(job))
    assert "Is its disk still connected?" in failed(thread_driver.run(job))
    elsewhere.rename(place)
    assert finished(thread_driver.run(job)).read_bytes() == DATA
    assert names(place / "files") == ["a.bin"]


class WindowsError(OSError):
    """An error as Windows gives it; CPython calls nearly all of these EINVAL or EACCES."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.EINVAL, "what the system says")
        self.winerror = number


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (19, "read-only"), (21, "still connected"), (39, "disk is full"), (51, "still connected"),
        (53, "still connected"), (1006, "still connected"), (1222, "still connected"), (1326, "not allowed"),
        (1392, "reports an error"),
        (59, "still connected"), (64, "still connected"), (112, "disk is full"), (121, "still connected"),
        (206, "too long"), (223, "too large"), (225, "what the system says"), (362, "what the system says"),
        (1117, "reports an error"), (1167, "still connected"), (1231, "still connected"), (1295, "quota"),
    ],
)  # fmt: skip
def test_what_windows_says_of_a_disk_or_a_share_is_told_in_its_sentence(number: int, words: str) -> None:
    """Also of one that goes away in the middle: 64 and 59 are what a share then says, 225 a virus scanner."""
    with pytest.raises(TransferError, match=words), explained("Z:\\dl"):
        raise WindowsError(number)


def test_a_share_that_goes_away_and_comes_back(
    fetch: Fetcher, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = portable.pwrite

    def until_it_is_gone(fd: int, data: memoryview, offset: int) -> int:
        if offset >= 100_000:
            raise WindowsError(64)
        return write(fd, data[: 100_000 - offset], offset)

    transfer = fetch.transfer(new_job(server.add("/a.bin", body=DATA), tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(portable, "pwrite", until_it_is_gone)
        assert "Is its disk still connected?" in failed(fetch.run(transfer))
    assert finished(fetch.run(transfer)).read_bytes() == DATA
    assert names(tmp_path) == ["a.bin"]


# -- Time.


def test_a_machine_that_slept_goes_on_with_what_it_was_at(
    thread_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_delays: None
) -> None:
    """Windows' monotonic clock goes on meanwhile; those hours are none without progress."""
    url = server.add("/a.bin", first(1, stall_after(100_000, server.gate())), body=DATA)
    job = thread_driver.begun(url, tmp_path, 100_000)
    before = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: before() + 8 * 3600)
    assert finished(thread_driver.outcome(job)).read_bytes() == DATA
    assert len(server.requests) == 2


def test_the_clock_of_a_machine_that_is_awake_goes_on() -> None:
    began, end = portable.awake(), time.monotonic() + 90.0
    while portable.awake() == began:
        assert time.monotonic() < end, "it stands still"


# -- Sockets.


def test_more_sockets_than_select_takes() -> None:
    pairs = [socket.socketpair() for _ in range(520)]
    try:
        reads = [reader.fileno() for reader, _ in pairs]
        assert portable.poll(reads, [], 0) == set()
        pairs[515][1].send(b"x")
        pairs[3][1].send(b"x")
        assert portable.poll(reads, [], None) & {reads[515], reads[3]}
        assert portable.poll(reads[:1], reads[500:], None) == set(reads[500:])
    finally:
        for pair in pairs:
            for sock in pair:
                sock.close()


def test_a_machine_without_ipv6(fetch: Fetcher, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    class Socket(socket.socket):
        def __init__(self, family: int = -1, *args: Any, **options: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            super().__init__(family, *args, **options)

    addresses = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", server.port, 0, 0))]
    addresses += socket.getaddrinfo("127.0.0.1", server.port, type=socket.SOCK_STREAM)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: addresses)
    monkeypatch.setattr(socket, "socket", Socket)
    assert finished(fetch(server.add("/a.bin", body=DATA))).read_bytes() == DATA


class AtOnce(socket.socket):
    """A firewall refuses what we ask for."""

    def connect(self, address: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


class Later(socket.socket):
    """It refuses when it has thought about it, or has asked the user."""

    def getsockopt(self, level: int, option: int, *args: Any) -> Any:
        if option == socket.SO_ERROR:
            return getattr(errno, "WSAEACCES", errno.EACCES)
        return super().getsockopt(level, option, *args)


@pytest.mark.parametrize("kind", [AtOnce, Later])
def test_a_firewall_of_this_computer_is_named(
    fetch: Fetcher,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    no_delays: None,
    kind: type[socket.socket],
) -> None:
    url = server.add("/a.bin", body=DATA)
    with monkeypatch.context() as patch:
        patch.setattr(connect.socket, "socket", kind)
        assert "Check its firewall" in failed(fetch(url))
    assert finished(fetch(url)).read_bytes() == DATA


@on_windows
def test_a_connection_that_is_reset_is_asked_for_again(fetch: Fetcher) -> None:
    """By a server outside, since what closes a connection under Wine does not reset it."""
    url = os.environ.get("TEST_RESETTING_URL")
    if not url:
        pytest.skip("no server was lent that resets: Wine cannot")
    assert finished(fetch(url)).read_bytes() == DATA


@pytest.fixture
def internet_settings() -> Iterator[Callable[..., None]]:
    """Writes what Windows' settings say of proxies."""
    import winreg

    with winreg.CreateKey(winreg.HKEY_CURRENT_USER, portable._INTERNET) as settings:

        def write(server: str, override: str) -> None:
            winreg.SetValueEx(settings, "ProxyEnable", 0, winreg.REG_DWORD, 1)
            winreg.SetValueEx(settings, "ProxyServer", 0, winreg.REG_SZ, server)
            winreg.SetValueEx(settings, "ProxyOverride", 0, winreg.REG_SZ, override)

        yield write
        winreg.SetValueEx(settings, "ProxyEnable", 0, winreg.REG_DWORD, 0)


@on_windows
@pytest.mark.parametrize(
    "setting", ["127.0.0.1:{}", "http=127.0.0.1:{};https=127.0.0.1:1", "http://127.0.0.1:{}"]
)
def test_the_proxy_of_windows_settings_is_asked_but_for_what_it_leaves_out(
    internet_settings: Callable[..., None], fetch: Fetcher, server: Server, setting: str
) -> None:
    server.add("/a.bin", body=DATA)
    with Proxy(hosts={"files.example": ("127.0.0.1", server.port)}) as proxy:
        internet_settings(setting.format(proxy.port), "<local>;127.*;*.inside.example")
        finished(fetch("http://files.example/a.bin"))
        assert len(proxy.requests) == 1
        finished(fetch(server.url("/a.bin")))
        finished(fetch(f"http://localhost:{server.port}/a.bin"))
        assert len(proxy.requests) == 1


@pytest.fixture
def proxy_script(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Windows' settings have one; elsewhere it is played."""
    if not ON_WINDOWS:
        monkeypatch.setattr(portable, "has_proxy_script", lambda: True)
        yield
        return
    import winreg

    with winreg.CreateKey(winreg.HKEY_CURRENT_USER, portable._INTERNET) as settings:
        winreg.SetValueEx(settings, "AutoConfigURL", 0, winreg.REG_SZ, "http://wpad.example/proxy.pac")
        yield
        winreg.DeleteValue(settings, "AutoConfigURL")


@pytest.mark.parametrize("dead_port", [refused_port, unreachable_port])
def test_a_proxy_that_only_a_script_names_is_told_of_where_there_is_no_other_way(
    proxy_script: None,
    new_thread_driver: Callable[..., Driver],
    tmp_path: Path,
    no_delays: None,
    dead_port: Callable[[], AbstractContextManager[int]],
) -> None:
    with dead_port() as port:
        job = new_job(f"http://127.0.0.1:{port}/a.bin", tmp_path)
        sentence = failed(new_thread_driver(Settings(timeout=0.2)).run(job))
    assert "A script names this computer's proxy" in sentence


def test_a_proxy_script_is_not_blamed_for_a_server_that_was_reached(
    proxy_script: None, fetch: Fetcher, server: Server, no_delays: None
) -> None:
    sentence = failed(fetch(server.add("/a.bin", cut_before_headers, body=DATA)))
    assert "script" not in sentence


@on_windows
def test_a_machine_without_a_proxy_script_has_none() -> None:
    assert not portable.has_proxy_script()


@pytest.mark.parametrize("store", ["CA", "ROOT"])
def test_an_authority_that_only_windows_knows(
    tls_server: Server, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    """Also beside a certificate that is broken, one that nobody can read and one for something else."""
    authority = ssl.PEM_cert_to_DER_cert(certificates.ca.read_text())
    server_auth = ssl.Purpose.SERVER_AUTH.oid
    stored = {store: [
        (b"broken", "x509_asn", True), (b"", "pkcs_7_asn", True), (authority, "x509_asn", {server_auth}),
    ]}  # fmt: skip
    monkeypatch.setattr(portable, "IS_WINDOWS", True)
    monkeypatch.setattr(ssl, "enum_certificates", lambda name: stored.get(name, []), raising=False)
    url = tls_server.add("/a.bin", body=DATA)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    portable.load_certificates(context)
    assert authority in context.get_ca_certs(binary_form=True)
    with urllib.request.urlopen(url, context=context) as answer:
        assert answer.read() == DATA


def test_an_authority_that_windows_knows_for_something_else_is_not_trusted(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = ssl.PEM_cert_to_DER_cert(certificates.ca.read_text())
    stored = [(authority, "x509_asn", {ssl.Purpose.CLIENT_AUTH.oid})]
    monkeypatch.setattr(portable, "IS_WINDOWS", True)
    monkeypatch.setattr(ssl, "enum_certificates", lambda name: stored, raising=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    portable.load_certificates(context)
    assert authority not in context.get_ca_certs(binary_form=True)


@on_windows
def test_what_is_in_windows_stores_is_trusted() -> None:
    ours, pythons = (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for _ in range(2))
    portable.load_certificates(ours)
    pythons.load_default_certs()
    assert set(pythons.get_ca_certs(binary_form=True)) == set(ours.get_ca_certs(binary_form=True)) != set()
