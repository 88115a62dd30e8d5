"""What goes from a socket into a file unseen: the pipe by itself, and what a download does with it."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from driving import Digest, Fetcher, Settings, failed, finished, new_job, part_of
from server import Server, cut_after, first, pattern

from background_downloads.transfer import fetch as fetch_module
from background_downloads.transfer import portable
from background_downloads.transfer.part import Part
from background_downloads.transfer.pipe import Pipe

DATA = pattern(5_000_000)
SHA256 = Digest("sha256", hashlib.sha256(DATA).hexdigest())

pytestmark = pytest.mark.skipif(not hasattr(os, "splice"), reason="only Linux moves bytes unseen")


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    if not portable.splice:
        pytest.skip("where Linux plays Windows nothing moves unseen")
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sender = socket.create_connection(listening.getsockname())
        receiver, _ = listening.accept()
    receiver.settimeout(0.0)
    with sender, receiver:
        yield sender, receiver


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def fill(pipe: Pipe, ends: tuple[socket.socket, socket.socket], data: bytes) -> None:
    sender, receiver = ends
    sender.sendall(data)
    portable.poll([receiver.fileno()], [], None)
    assert pipe.fill(receiver, len(data)) == len(data) == len(pipe)


@dataclass
class Splice:
    """The system's, which may answer something else to who writes to a file."""

    answer: Callable[[int], int] = lambda offset: 1 << 30
    """Given where to: how many bytes it takes at most."""
    poured: list[tuple[int, int]] = field(default_factory=list)
    """Where to, and how much."""

    def __call__(self, source: int, target: int, count: int, **options: Any) -> int:
        if "offset_dst" in options:
            count = min(count, self.answer(options["offset_dst"]))
        moved = os.splice(source, target, count, **options)
        if "offset_dst" in options:
            self.poured.append((options["offset_dst"], moved))
        return moved


@pytest.fixture
def splice(monkeypatch: pytest.MonkeyPatch) -> Splice:
    splice = Splice()
    monkeypatch.setattr(portable, "splice", splice)
    return splice


def refuse(number: int) -> Callable[[int], int]:
    def answer(offset: int) -> int:
        raise OSError(number, os.strerror(number))

    return answer


# -- The pipe.


def test_what_came_is_in_the_file_at_its_place(
    pipe: Pipe, ends: tuple[socket.socket, socket.socket], fd: int
) -> None:
    fill(pipe, ends, b"12345")
    assert pipe.pour(fd, 3) == 5
    assert (os.pread(fd, 100, 3), len(pipe)) == (b"12345", 0)
    fill(pipe, ends, b"6789")
    assert pipe.pour(fd, 8) == 4
    assert os.pread(fd, 100, 3) == b"123456789"


def test_what_came_can_be_read_all_the_same(pipe: Pipe, ends: tuple[socket.socket, socket.socket]) -> None:
    fill(pipe, ends, b"12345")
    assert bytes(pipe.read(memoryview(bytearray(100)))) == b"12345"
    assert bytes(pipe.read(memoryview(bytearray(100)))) == b""


def test_what_is_left_from_a_failure_never_comes_with_what_follows(
    pipe: Pipe, ends: tuple[socket.socket, socket.socket]
) -> None:
    fill(pipe, ends, b"of another download")
    fill(pipe, ends, b"12345")
    assert bytes(pipe.read(memoryview(bytearray(100)))) == b"12345"


def test_a_file_may_take_it_piece_by_piece(
    pipe: Pipe, ends: tuple[socket.socket, socket.socket], fd: int, splice: Splice
) -> None:
    splice.answer = lambda offset: 2
    fill(pipe, ends, b"12345")
    assert pipe.pour(fd, 0) == 5
    assert (os.pread(fd, 100, 0), len(splice.poured)) == (b"12345", 3)


@pytest.mark.parametrize("number", portable.NO_SPLICE)
def test_where_a_file_system_takes_nothing_unseen_it_is_read(
    pipe: Pipe, ends: tuple[socket.socket, socket.socket], fd: int, splice: Splice, number: int
) -> None:
    fill(pipe, ends, b"12345")
    splice.answer = lambda offset: 2 if offset == 10 else refuse(number)(offset)
    assert pipe.pour(fd, 10) == 2
    assert bytes(pipe.read(memoryview(bytearray(100)))) == b"345"
    assert pipe.fill(ends[1], 100) == 0  # and is not tried again


def test_nothing_has_come(pipe: Pipe, ends: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(BlockingIOError):
        pipe.fill(ends[1], 100)
    ends[0].close()
    portable.poll([ends[1].fileno()], [], None)
    assert pipe.fill(ends[1], 100) == 0


def test_without_descriptors_it_is_read(
    pipe: Pipe, ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_pipe() -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    ends[0].sendall(b"12345")
    portable.poll([ends[1].fileno()], [], None)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pipe", no_pipe)
        assert pipe.fill(ends[1], 100) == 0
    assert ends[1].recv(100) == b"12345"


# -- A download.


def test_most_of_a_large_file_goes_unseen(fetch: Fetcher, server: Server, splice: Splice) -> None:
    assert finished(fetch(server.add("/a.bin", body=DATA))).read_bytes() == DATA
    moved = sum(count for _, count in splice.poured)
    assert moved >= len(DATA) - 2 * fetch_module.BUFFER


def test_what_is_hashed_is_seen(fetch: Fetcher, server: Server, splice: Splice) -> None:
    assert finished(fetch(server.add("/a.bin", body=DATA), digest=SHA256)).read_bytes() == DATA
    assert splice.poured == []


def test_a_limit_counts_what_is_read(server: Server, tmp_path: Path, splice: Splice) -> None:
    slow = Fetcher(Settings(speed_limit=1 << 40))
    try:
        assert finished(slow(server.add("/a.bin", body=DATA), tmp_path)).read_bytes() == DATA
    finally:
        slow.close()
    assert splice.poured == []


def bring_meanwhile(monkeypatch: pytest.MonkeyPatch, file: bytes) -> list[int]:
    """Have another worker write some of `file`, once, where what is in the pipe belongs. Returns where."""
    pour, brought = Part.pour, list[int]()

    def pour_late(part: Part, pipe: Pipe, offset: int) -> int:
        if not brought:
            brought.append(offset)
            part.write(memoryview(file)[offset + 1000 : offset + 2000], offset + 1000)
        return pour(part, pipe, offset)

    monkeypatch.setattr(Part, "pour", pour_late)
    return brought


def test_the_place_for_it_is_taken_meanwhile(
    fetch: Fetcher, server: Server, splice: Splice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker has brought some of it while it was in the pipe: it is compared, and not written."""
    brought = bring_meanwhile(monkeypatch, DATA)
    assert finished(fetch(server.add("/a.bin", body=DATA))).read_bytes() == DATA
    assert brought
    assert brought[0] not in [offset for offset, _ in splice.poured]


def test_another_file_comes_there_meanwhile(
    fetch: Fetcher, server: Server, splice: Splice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the pipe does not fit it: then all is fetched anew, and nothing is mixed."""
    bring_meanwhile(monkeypatch, bytes(len(DATA)))
    assert finished(fetch(server.add("/a.bin", body=DATA))).read_bytes() == DATA


@pytest.mark.parametrize("number", portable.NO_SPLICE)
def test_a_file_system_that_takes_nothing_unseen(
    fetch: Fetcher, server: Server, splice: Splice, number: int
) -> None:
    splice.answer = refuse(number)
    assert finished(fetch(server.add("/a.bin", body=DATA))).read_bytes() == DATA
    assert len(server.requests_for("/a.bin")) == 1


def test_the_disk_is_full_and_has_room_again(
    fetch: Fetcher, server: Server, tmp_path: Path, splice: Splice
) -> None:
    full_at = 2_500_000

    def answer(offset: int) -> int:
        if offset >= full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return full_at - offset

    transfer = fetch.transfer(new_job(server.add("/a.bin", body=DATA), tmp_path))
    splice.answer = answer
    assert failed(fetch.run(transfer)).startswith("The disk is full: make room in the folder")
    kept = transfer.received
    assert 0 < kept <= full_at
    assert part_of(tmp_path).read_bytes()[:kept] == DATA[:kept]
    splice.answer = lambda offset: 1 << 30
    assert finished(fetch.run(transfer)).read_bytes() == DATA
    assert server.requests_for("/a.bin")[1].range_start > 0


@pytest.mark.usefixtures("no_delays")
def test_a_body_that_is_cut(fetch: Fetcher, server: Server, splice: Splice) -> None:
    url = server.add("/a.bin", first(1, cut_after(3_000_000)), body=DATA)
    assert finished(fetch(url)).read_bytes() == DATA
    assert splice.poured
