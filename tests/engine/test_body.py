"""Bodies as they come over the wire: chunks, encodings, ends, and stops at every byte."""

from __future__ import annotations

import gzip
import socket
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from driving import Driver, Fetcher, Halted, Settings, finished, new_job
from hypothesis import given, settings
from hypothesis import strategies as st
from server import Server, drip, pattern, raw, status

from background_downloads.transfer import body, portable
from background_downloads.transfer.body import _Chunks, _Decoded, _Plain, _Stream
from background_downloads.transfer.control import Control, Waker
from background_downloads.transfer.fetch import BUFFER
from background_downloads.transfer.job import Phase, Stopped, TryAgain

pytestmark = pytest.mark.usefixtures("no_delays")

DATA = pattern(100_000)


class Wire(_Stream):
    """In place of a socket: bytes in pieces of given sizes."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        super().__init__(None)
        self._data = data
        self._sizes = iter(sizes)

    def receive(self, view: memoryview, control: Any) -> int:
        count = min(next(self._sizes, 1 << 20), len(self._data), len(view))
        view[:count] = self._data[:count]
        self._data = self._data[count:]
        return count

    def _fill(self, view: memoryview, count: int) -> int:
        return count


def read_all(reader: Any, size: int = 7) -> bytes:
    view = memoryview(bytearray(size))
    pieces = []
    while count := reader.read(view, None):
        pieces.append(bytes(view[:count]))
    return b"".join(pieces)


sizes = st.lists(st.integers(1, 40), max_size=100)


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=10), sizes, st.booleans())
def test_chunks_are_put_together_however_they_arrive(
    pieces: list[bytes], arrivals: list[int], trailers: bool
) -> None:
    wire = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    wire += b"0\r\n" + (b"X: y\r\n" if trailers else b"") + b"\r\n"
    assert read_all(_Chunks(Wire(wire, arrivals))) == b"".join(pieces)


def test_small_chunks_that_come_together_are_read_together() -> None:
    chunks = _Chunks(Wire(b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n", [3]))
    view = memoryview(bytearray(5000))
    assert [chunks.read(view, None) for _ in range(3)] == [1, 999, 0]  # type: ignore[arg-type]


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=10), st.data())
def test_a_chunked_body_cut_anywhere_is_noticed(pieces: list[bytes], data: st.DataObject) -> None:
    wire = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    cut = wire[: data.draw(st.integers(0, len(wire) - len("\n\r\n")))]
    with pytest.raises(TryAgain):
        read_all(_Chunks(Wire(cut, [])))


@given(st.binary(), sizes)
@settings(deadline=None)
def test_any_bytes_may_come_as_chunks(wire: bytes, arrivals: list[int]) -> None:
    with suppress(TryAgain):
        read_all(_Chunks(Wire(wire, arrivals)))


PACKED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "bare deflate": ("deflate", lambda data: zlib.compress(data, wbits=-15)),
    "bare deflate, stored": ("deflate", lambda data: zlib.compress(data, level=0, wbits=-15)),
    "gzip called deflate": ("deflate", gzip.compress),
    "zlib called gzip": ("gzip", zlib.compress),
}


@given(st.binary(max_size=5000), sizes, st.sampled_from(sorted(PACKED)))
@settings(deadline=None)
def test_encodings_are_undone_however_they_arrive(data: bytes, arrivals: list[int], kind: str) -> None:
    coding, pack = PACKED[kind]
    assert read_all(_Decoded(Wire(pack(data), arrivals), coding)) == data


@given(st.binary(max_size=500), sizes, st.binary(max_size=200), st.sampled_from(sorted(PACKED)))
@settings(deadline=None)
def test_what_follows_and_is_no_other_member_is_ignored(
    data: bytes, arrivals: list[int], garbage: bytes, kind: str
) -> None:
    coding, pack = PACKED[kind]
    if garbage.startswith(b"\x1f\x8b"):
        garbage = b"\0" + garbage
    reader = _Decoded(Wire(pack(data) + garbage, arrivals), coding)
    assert read_all(reader) == data
    assert reader.read(memoryview(bytearray(9)), None) == 0  # type: ignore[arg-type]


@given(st.binary(max_size=500), sizes)
def test_encodings_around_each_other_are_undone(data: bytes, arrivals: list[int]) -> None:
    packed = zlib.compress(gzip.compress(data))
    assert read_all(_Decoded(_Decoded(Wire(packed, arrivals), "deflate"), "gzip")) == data


@pytest.mark.parametrize(("garbage", "count"), [(b"", 1), (b"garbage", 1), (bytes(1 << 20), 2)])
def test_a_connection_is_used_again_only_where_nothing_is_left_in_it(
    fetch: Fetcher, server: Server, garbage: bytes, count: int
) -> None:
    packed = gzip.compress(DATA) + garbage
    url = server.add("/a.bin", status(200, {"Content-Encoding": "gzip"}, packed))
    assert finished(fetch(url)).read_bytes() == DATA
    assert finished(fetch(server.add("/b.bin", body=DATA))).read_bytes() == DATA
    assert server.connections.accepted == count


@given(st.binary(min_size=1, max_size=500), st.data())
def test_an_encoded_body_cut_anywhere_is_noticed(data: bytes, draw: st.DataObject) -> None:
    packed = gzip.compress(data)
    cut = packed[: draw.draw(st.integers(1, len(packed) - 1))]
    with pytest.raises(TryAgain):
        read_all(_Decoded(Wire(cut, []), "gzip"))


@given(st.binary(min_size=1, max_size=100), st.binary(min_size=1, max_size=100))
def test_gzip_members_may_follow_each_other(first: bytes, second: bytes) -> None:
    packed = gzip.compress(first) + gzip.compress(second)
    assert read_all(_Decoded(Wire(packed, [5] * 100), "gzip")) == first + second


def test_gzip_members_that_bring_nothing_are_not_read_for_ever() -> None:
    class Endless(Wire):
        def receive(self, view: memoryview, control: Any) -> int:
            data = gzip.compress(b"")
            view[: len(data)] = data
            return len(data)

    with pytest.raises(TryAgain, match="damaged"):
        read_all(_Decoded(Endless(b"", []), "gzip"), 100)


@pytest.mark.parametrize(
    ("rest", "is_over"),
    [
        (b"\r\n", True),
        (b"\n", True),
        (b"", False),
        (b"\r", False),
        (b"X: y\r\n\r\n", False),
        (b"X: y\r\n" * 10_000, False),
        (b"x" * 100_000, False),
        (b"HTTP/1.1 200 OK\r\n\r\n", False),
    ],
)
def test_the_last_chunk_makes_it_whole_and_what_else_follows_costs_the_connection(
    rest: bytes, is_over: bool
) -> None:
    chunks = _Chunks(Wire(b"1\r\nx\r\n0\r\n" + rest, []))
    assert read_all(chunks) == b"x"
    assert chunks.is_over is is_over


@pytest.mark.parametrize("digits", ["0x4", "+4", "-4", "4_0", "", "٤", "f" * 17, "4 4"])
def test_what_is_no_chunk_size(digits: str) -> None:
    with pytest.raises(TryAgain):
        read_all(_Chunks(Wire(digits.encode() + b"\r\nabcd\r\n0\r\n\r\n", [])))


def test_what_comes_with_the_headers_is_part_of_the_body(fetch: Fetcher, server: Server) -> None:
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more that is none of ours"
    assert finished(fetch(server.add("/a.bin", raw(wire)))).read_bytes() == b"hello"
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nsurplus"
    assert finished(fetch(server.add("/b.bin", raw(wire)))).read_bytes() == b"hello"


@pytest.mark.parametrize("options", [{"chunked": True}, {}, {"encoding": "gzip"}, {"length": False}])
def test_a_body_stopped_again_and_again_comes_whole(
    new_thread_driver: Callable[..., Driver], server: Server, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Each stop falls somewhere else in the framing; nothing is asked for twice."""
    driver = new_thread_driver(Settings(timeout=90.0, connections=1))
    gate = server.gate()
    job = new_job(server.add("/a.bin", drip(3001, gate), body=DATA, **options), tmp_path)
    for turn in range(1, 30):
        driver.submit(job)
        driver.until_reached(gate, turn)
        driver.until_phase(job, Phase.BODY)  # the server may be ahead of its client's reading the headers
        assert driver.stop(job) == Halted()
        gate.step()
    gate.open()
    assert finished(driver.run(job)).read_bytes() == DATA
    assert len(server.requests) == 1


def test_a_large_chunk_is_read_in_pieces(
    fetch: Fetcher, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pattern(8 << 20)
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(data)
    url = server.add("/a.bin", raw(wire, data, b"\r\n0\r\n\r\n"))
    largest = 0
    original = body._Stream.receive

    def receive(self: Any, view: memoryview, control: Any) -> int:
        nonlocal largest
        largest = max(largest, len(view))
        return original(self, view, control)

    monkeypatch.setattr(body._Stream, "receive", receive)
    assert finished(fetch(url)).read_bytes() == data
    assert largest <= BUFFER


def test_a_control_that_expired_says_so_once() -> None:
    waker = Waker()
    control = Control(waker)
    control.expire()
    with pytest.raises(TryAgain):
        control.check()
    control.check()
    waker.close()


# -- Small bodies are gathered: piece by piece they would cost more.


class Lingering(Control):
    """Does something each time more is waited for."""

    def __init__(self, waker: Waker, act: Callable[[Control], object]) -> None:
        super().__init__(waker)
        self._act = act

    def linger(self, sock: socket.socket, seconds: float) -> bool:
        self._act(self)
        return super().linger(sock, seconds)


@contextmanager
def over_a_socket(length: int) -> Iterator[tuple[_Plain, socket.socket, Waker]]:
    """A body of so many bytes, where they are sent to, and what wakes its reader."""
    here, there = socket.socketpair()
    with here, there, here.makefile("rb") as file, closing(Waker()) as waker:
        yield _Plain(_Stream(file), length), there, waker


def test_a_small_body_that_comes_in_pieces_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "_GATHER", 30.0)
    with over_a_socket(900) as (plain, there, waker):
        there.send(DATA[:300])
        pieces = iter((DATA[300:301], DATA[301:900]))
        view = memoryview(bytearray(1000))
        assert plain.read(view, Lingering(waker, lambda _: there.send(next(pieces)))) == 900
        assert view[:900] == DATA[:900]
        assert plain.is_over


def test_who_is_asked_to_stop_while_it_gathers_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "_GATHER", 30.0)
    with over_a_socket(900) as (plain, there, waker):
        there.send(DATA[:300])
        control, view = Lingering(waker, Control.stop), memoryview(bytearray(1000))
        assert plain.read(view, control) == 300
        with pytest.raises(Stopped):
            plain.read(view[300:], control)
        there.send(DATA[300:900])
        assert plain.read(view[300:], Control(waker)) == 600
        assert view[:900] == DATA[:900]


@pytest.mark.parametrize("end", ["nothing", "closed"])
def test_what_came_of_a_small_body_is_given_where_no_more_comes(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "_GATHER", 0.01 if end == "nothing" else 30.0)
    with over_a_socket(900) as (plain, there, waker):
        there.send(DATA[:300])
        if end == "closed":
            there.shutdown(socket.SHUT_WR)
        view = memoryview(bytearray(1000))
        assert plain.read(view, Control(waker)) == 300
        if end == "closed":
            with pytest.raises(TryAgain):
                plain.read(view, Control(waker))


@pytest.mark.skipif(sys.platform == "win32", reason="a wait on Windows ends with the first byte")
def test_no_wait_ends_before_the_last_piece_of_a_small_body() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        here, (there, _) = socket.create_connection(server.getsockname()), server.accept()
        with here, there, here.makefile("rb") as file:
            here.setblocking(False)
            with _Stream(file)._woken_by(600):
                there.send(DATA[:599])
                assert not portable.poll([here.fileno()], [], 0.0)
                there.send(DATA[599:601])
                assert portable.poll([here.fileno()], [], 30.0)
            here.recv(600)
            assert portable.poll([here.fileno()], [], 0.0)


def test_no_large_body_waits_for_its_next_piece() -> None:
    with over_a_socket(len(DATA)) as (plain, there, waker):
        there.send(DATA[:300])
        waits: list[Control] = []
        assert plain.read(memoryview(bytearray(BUFFER)), Lingering(waker, waits.append)) == 300
        assert not waits
