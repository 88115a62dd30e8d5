"""Disks as they are: full, read-only, unplugged, with a quota, without hard links. All of them are real."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driving import (
    Driver,
    Failed,
    Fetcher,
    IfExists,
    Skipped,
    failed,
    finished,
    names,
    new_job,
    opened,
    part_of,
    skipped,
)
from mounting import Mount, Mounter
from server import Gate, Server, after, cut_after, first, pattern, stall_after, status, when

from background_downloads.transfer import part as part_module
from background_downloads.transfer.job import Have, Validator

pytestmark = pytest.mark.usefixtures("no_delays")

MIB = 1 << 20
OVERLAP = 64 << 10
DATA = pattern(MIB)
HELD = 300_000  # bytes that come before the gate
KINDS: dict[str, Callable[[Mounter], Mount]] = {
    "tmpfs": lambda mounter: mounter.tmpfs(4 * MIB),
    "ext4": lambda mounter: mounter.ext4(8 * MIB, "-O", "^has_journal"),
    "fat": lambda mounter: mounter.fat(8 * MIB),
}


@pytest.fixture
def mounter(tmp_path: Path) -> Iterator[Mounter]:
    mounter = Mounter(tmp_path)
    yield mounter
    mounter.close()


@pytest.fixture(params=list(KINDS))
def disk(mounter: Mounter, request: pytest.FixtureRequest) -> Mount:
    return KINDS[request.param](mounter)


@pytest.fixture
def folder(disk: Mount) -> Path:
    """To download to; file systems have things of their own at the top."""
    path = disk.place / "files"
    path.mkdir()
    return path


def free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def fill(path: Path, leave: int = 0) -> None:
    """Take all the room that is left, less `leave` bytes."""
    with path.open("wb", buffering=0) as file:
        for size in (64 << 10, 4096, 512):
            with contextlib.suppress(OSError):
                while free(path.parent) > leave and file.write(bytes(size)):
                    pass


# -- Room.


def test_too_little_room_is_known_before_a_byte_is_taken(
    fetch: Fetcher, server: Server, folder: Path
) -> None:
    url = server.add("/a.bin", body=pattern(16 * MIB))
    assert "Not enough space: 16.0 MiB are needed in" in failed(fetch(url, folder))
    assert names(folder) == []


def test_what_runs_is_added_up(driver: Driver, server: Server, mounter: Mounter) -> None:
    folder = mounter.tmpfs(3 * MIB).place
    gate, body = server.gate(), pattern(2 * MIB)
    one = new_job(server.add("/a.bin", stall_after(HELD, gate), body=body), folder)
    other = new_job(server.add("/b.bin", body=body), folder)
    driver.submit(one)
    driver.until_received(one, HELD)
    sentence = failed(driver.run(other))
    assert "Not enough space: 2.0 MiB are needed and 1.7 MiB for the other downloads" in sentence
    gate.open()
    finished(driver.outcome(one)).unlink()
    assert finished(driver.run(other)).read_bytes() == body
    assert names(folder) == ["b.bin"]


def test_room_that_vanishes_and_comes_back(driver: Driver, server: Server, gate: Gate, folder: Path) -> None:
    url = server.add("/a.bin", first(1, stall_after(HELD, gate)), body=DATA)
    job = driver.begun(url, folder, HELD)
    fill(folder.parent / "filler", leave=200_000)
    gate.open()
    assert failed(driver.outcome(job)).startswith("The disk is full: make room in the folder")
    assert "space" in failed(driver.run(job)) or "full" in failed(driver.ended[job.uid][-1])
    assert [name for name in names(folder) if name.endswith(".part")]
    (folder.parent / "filler").unlink()
    assert finished(driver.run(job)).read_bytes() == DATA
    assert names(folder) == ["a.bin"]
    assert (server.requests[-1].range_start or 0) >= HELD - OVERLAP


def test_a_new_process_goes_on_once_there_is_room(fetch: Fetcher, server: Server, folder: Path) -> None:
    url = server.add("/a.bin", chunked=True, body=DATA)
    fill(folder.parent / "filler", leave=500_000)
    assert failed(fetch(url, folder)).startswith("The disk is full")
    (folder.parent / "filler").unlink()
    assert finished(fetch(url, folder)).read_bytes() == DATA
    assert names(folder) == ["a.bin"]


def test_no_room_even_for_a_name(fetch: Fetcher, server: Server, mounter: Mounter) -> None:
    folder = mounter.tmpfs(MIB, "nr_inodes=1").place
    assert failed(fetch(server.add("/a.bin", body=DATA), folder)).startswith("The disk is full")
    assert names(folder) == []


def test_a_quota(fetch: Fetcher, server: Server, mounter: Mounter) -> None:
    disk = mounter.btrfs(600_000)
    transfer = fetch.transfer(new_job(server.add("/a.bin", body=DATA), disk.place))
    assert failed(fetch.run(transfer)).startswith("Your quota is used up: make room in the folder")
    mounter.limit(disk, 16 * MIB)
    assert finished(fetch.run(transfer)).read_bytes() == DATA
    assert names(disk.place) == ["a.bin"]


# -- Disks that go.


def begun(fetch: Fetcher, server: Server, folder: Path) -> str:
    """A link of which a part is on the disk, and which fails the first two times."""
    refused = when(lambda exchange: exchange.number == 1, status(410))
    url = server.add("/a.bin", first(1, cut_after(HELD)), refused, body=DATA)
    failed(fetch(url, folder))
    return url


def test_read_only_for_a_while(fetch: Fetcher, server: Server, mounter: Mounter) -> None:
    disk = mounter.ext4(8 * MIB)
    url = begun(fetch, server, disk.place)
    before = names(disk.place)
    disk.remount("ro")
    asked = len(server.requests)
    assert "Nothing can be written to the folder" in failed(fetch(url, disk.place))
    assert len(server.requests) == asked
    assert names(disk.place) == before
    disk.remount("rw")
    assert finished(fetch(url, disk.place)).read_bytes() == DATA
    assert server.requests[-1].range_start == HELD - OVERLAP


def test_unplugged_and_plugged_in_again(driver: Driver, server: Server, gate: Gate, mounter: Mounter) -> None:
    """What the journal had not written is gone; what is there is right all the same."""
    disk = mounter.ext4(16 * MIB)
    url = server.add("/a.bin", first(1, stall_after(HELD, gate)), body=DATA)
    job = driver.begun(url, disk.place, HELD)
    disk.shut_down()
    gate.open()
    assert f"the folder “{disk.place}”" in failed(driver.outcome(job))
    disk.off()
    disk.on()
    assert finished(driver.run(job)).read_bytes() == DATA


@pytest.mark.parametrize("seed", range(3))
def test_power_cuts_on_a_real_journal(
    fetch: Fetcher, server: Server, mounter: Mounter, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Small files, one after the other, until the disk is gone: all that were finished are there, whole."""
    monkeypatch.setattr(part_module, "CHECKPOINT_BYTES", 100_000)
    disk, rng = mounter.ext4(64 * MIB), random.Random(seed)
    done: list[str] = []
    for number in range(12):
        body = pattern(rng.randint(1, 400_000), seed=number)
        done.append(finished(fetch(server.add(f"/{number}.bin", body=body), disk.place)).name)
    body = pattern(MIB, seed=99)
    cut = cut_after(rng.randint(200_000, 900_000))
    url = server.add("/last.bin", first(1, cut), after(1, status(403)), body=body)
    failed(fetch(url, disk.place))
    disk.shut_down()
    disk.off()
    disk.on()
    for number, name in enumerate(done):
        size = len((disk.place / name).read_bytes())
        assert (disk.place / name).read_bytes() == pattern(size, seed=number)
        assert size
    server.add("/last.bin", body=body)
    assert finished(fetch(url, disk.place)).read_bytes() == body
    assert (server.requests[-1].range_start or 0) >= 200_000 - OVERLAP
    assert not [name for name in names(disk.place) if ".part" in name]


def test_unmounted_under_our_feet(driver: Driver, server: Server, gate: Gate, mounter: Mounter) -> None:
    """What lies under the disk is another folder: nothing of ours goes there, and the disk has the rest."""
    disk = mounter.ext4(8 * MIB, "-I", "256")  # with the times of its files to the nanosecond
    url = server.add("/a.bin", first(1, stall_after(HELD, gate)), body=DATA)
    job = driver.begun(url, disk.place, HELD)
    disk.off()
    gate.open()
    outcome = driver.outcome(job)
    assert f"Cannot find the folder “{disk.place}”. Is its disk still connected?" in failed(outcome)
    assert outcome == Failed(failed(outcome), kept=len(DATA))
    assert names(disk.place) == []
    disk.on()
    assert finished(driver.run(job)).read_bytes() == DATA
    assert len(server.requests) == 1
    assert [name for name in names(disk.place) if ".part" in name] == []


def test_a_folder_that_somebody_deletes_is_made_anew(driver: Driver, server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    gate = server.gate()
    url = server.add("/a.bin", first(1, stall_after(HELD, gate)), body=DATA)
    job = driver.begun(url, folder, HELD)
    shutil.rmtree(folder)
    gate.open()
    outcome = driver.outcome(job)
    assert f"Cannot find the folder “{folder}”" in failed(outcome)
    assert outcome == Failed(failed(outcome), kept=0)  # as the file has no name any more
    assert not folder.exists()
    assert finished(driver.run(job)).read_bytes() == DATA


def test_a_partial_file_that_somebody_deletes_is_not_said_to_be_kept(
    driver: Driver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    url = server.add("/a.bin", first(1, stall_after(HELD, gate)), body=DATA)
    job = driver.begun(url, tmp_path, HELD)
    part_of(tmp_path).unlink()
    gate.open()
    outcome = driver.outcome(job)
    assert isinstance(outcome, Failed)
    assert (outcome.error.partition(".")[0], outcome.kept) == (
        "The partial file was taken away while it was downloaded",
        0,
    )
    assert finished(driver.run(job)).read_bytes() == DATA


def test_where_nobody_could_look_nothing_is_said_of_what_is_kept(
    driver: Driver, server: Server, tmp_path: Path
) -> None:
    """Of what an earlier process received: its disk is not there, or another Blender has the file."""
    folder, away = tmp_path / "files", tmp_path / "away"
    url = server.add("/a.bin", first(1, status(404)), body=DATA)
    folder.mkdir()
    part = opened(url, str(folder), None)
    part.begin(MIB, Validator('"a"'), is_encoded=False)
    part.write(memoryview(DATA[:HELD]), 0)
    job = new_job(url, folder)
    taken = driver.run(job)
    part.close()
    folder.rename(away)
    folder.write_text("in the way")
    gone = driver.run(job)
    folder.unlink()
    away.rename(folder)
    refused = driver.run(job)
    outcomes = taken, gone, refused
    assert [outcome.kept for outcome in outcomes if isinstance(outcome, Failed)] == [None, None, HELD]


def test_a_folder_that_became_a_file(driver: Driver, server: Server, gate: Gate, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    url = server.add("/a.bin", first(1, stall_after(HELD, gate)), body=DATA)
    job = driver.begun(url, folder, HELD)
    folder.rename(tmp_path / "moved")
    folder.write_text("a file")
    gate.open()
    assert "taken away" in failed(driver.outcome(job))
    assert "is a file, not a folder" in failed(driver.run(job))
    assert folder.read_text() == "a file"
    folder.unlink()
    (tmp_path / "moved").rename(folder)
    assert finished(driver.run(job)).read_bytes() == DATA
    assert names(folder) == ["a.bin"]


@pytest.mark.parametrize("target", ["nowhere", "files"])
def test_a_folder_that_is_a_shortcut_to_nothing(
    fetch: Fetcher, server: Server, tmp_path: Path, target: str
) -> None:
    (tmp_path / "files").symlink_to(target)
    assert "is a shortcut to. Is its disk still" in failed(
        fetch(server.add("/a.bin", body=DATA), tmp_path / "files")
    )
    assert server.requests == []


# -- Names.


def test_a_path_that_is_too_long(fetch: Fetcher, server: Server, tmp_path: Path) -> None:
    folder = tmp_path
    while len(str(folder)) < 4096 - 210:
        folder /= "d" * 200
    asked = server.add("/" + "n" * 200 + ".bin", body=DATA)
    assert "is too long" in failed(fetch(asked, folder))
    assert server.requests == []


@pytest.fixture
def fat(mounter: Mounter) -> Path:
    path = mounter.fat(8 * MIB).place / "files"
    path.mkdir()
    return path


@pytest.mark.parametrize("if_exists", [IfExists.OVERWRITE, IfExists.UPDATE])
def test_a_name_in_another_case_is_the_same_file(
    fetch: Fetcher, server: Server, fat: Path, if_exists: IfExists
) -> None:
    (fat / "A.BIN").write_bytes(b"old")
    os.utime(fat / "A.BIN", (1e9, 1e9))
    finished(fetch(server.add("/a.bin", body=DATA), fat, if_exists=if_exists))
    (name,) = names(fat)
    assert name.lower() == "a.bin"
    assert (fat / name).read_bytes() == DATA


def test_a_name_that_is_taken_in_another_case(fetch: Fetcher, server: Server, fat: Path) -> None:
    (fat / "A.BIN").write_bytes(b"mine")
    url = server.add("/a.bin", body=DATA)
    assert skipped(fetch(url, fat, if_exists=IfExists.SKIP))
    assert finished(fetch(url, fat)).name == "a (1).bin"
    assert (fat / "A.BIN").read_bytes() == b"mine"
    assert names(fat) == ["A.BIN", "a (1).bin"]


def test_updating_where_times_are_coarse(fetch: Fetcher, server: Server, fat: Path) -> None:
    """FAT keeps every second second."""
    url = server.add("/a.bin", body=DATA, last_modified=1_600_000_001)
    transfer = fetch.transfer(new_job(url, fat, if_exists=IfExists.UPDATE))
    outcome = fetch.run(transfer)
    finished(outcome)
    have: Have | None = getattr(outcome, "have", None)
    assert isinstance(fetch(url, fat, if_exists=IfExists.UPDATE, have=have), Skipped)
    assert [request.status for request in server.requests] == [200, 304]


@pytest.mark.parametrize("name", ["a:b.bin", "CON", "a?.bin", "trailing. .bin", "ü" * 120 + ".bin"])
def test_names_that_fat_would_refuse(fetch: Fetcher, server: Server, fat: Path, name: str) -> None:
    disposition = {"Content-Disposition": f"attachment; filename*=UTF-8''{_percent(name)}"}
    path = finished(fetch(server.add("/x", body=DATA, headers=disposition), fat))
    assert path.read_bytes() == DATA
    assert names(fat) == [path.name]


def _percent(name: str) -> str:
    return "".join(f"%{byte:02x}" for byte in name.encode())


def test_resuming_without_hard_links(fetch: Fetcher, server: Server, fat: Path) -> None:
    url = begun(fetch, server, fat)
    assert len(names(fat)) == 2
    assert finished(fetch(url, fat)).read_bytes() == DATA
    assert names(fat) == ["a.bin"]
    assert server.requests[-1].range_start == HELD - OVERLAP
