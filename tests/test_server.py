"""The server of the tests does what it says: exact where it should be, wrong where it is told to."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import http.client
import os
import select
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import urllib.parse
import zlib
from collections.abc import Iterator
from pathlib import Path

import journal
import pytest
import server as behaviours
from leaks import LeakCheck, LeakError
from server import (
    DEADLINE,
    LAST_MODIFIED,
    Certificates,
    Exchange,
    Gate,
    Generated,
    Proxy,
    Server,
    after,
    basic_auth,
    first,
    on_range,
    pattern,
    refused_port,
    unreachable_port,
)

BODY = pattern(100_000)


# Clients


@contextlib.contextmanager
def client(server: Server) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=DEADLINE)
    with contextlib.closing(connection):
        yield connection


def get(
    server: Server, path: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> tuple[int, http.client.HTTPMessage, bytes]:
    with client(server) as connection:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()


@contextlib.contextmanager
def raw_client(server: Server, request: str = "") -> Iterator[socket.socket]:
    with socket.create_connection((server.host, server.port), timeout=DEADLINE) as sock:
        if request:
            sock.sendall(f"GET {request} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        yield sock


def read_all(sock: socket.socket) -> bytes:
    received = b""
    while data := sock.recv(65536):
        received += data
    return received


def read_exactly(sock: socket.socket, n: int) -> bytes:
    received = b""
    while len(received) < n:
        data = sock.recv(n - len(received))
        assert data, "the server closed too early"
        received += data
    return received


def read_head(sock: socket.socket) -> bytes:
    return read_to_end(sock, b"\r\n\r\n")


def read_to_end(sock: socket.socket, end: bytes) -> bytes:
    """Up to the end, and nothing of what comes behind it."""
    received = b""
    while not received.endswith(end):
        seen = received + sock.recv(65536, socket.MSG_PEEK)
        assert len(seen) > len(received), "the server closed too early"
        at = seen.find(end)
        received += read_exactly(sock, (len(seen) if at < 0 else at + len(end)) - len(received))
    return received


def is_silent(sock: socket.socket) -> bool:
    """Nothing to read now; the test has seen by other means that the server waits."""
    return not select.select([sock], [], [], 0)[0]


def raw_exchange(server: Server, path: str) -> bytes:
    with raw_client(server, path) as sock:
        return read_all(sock)


# The resource


def test_get_serves_body_with_length_and_validators(server: Server) -> None:
    server.add("/file.bin", body=BODY)
    status, headers, body = get(server, "/file.bin")
    assert (status, body) == (200, BODY)
    assert headers["Content-Length"] == str(len(BODY))
    assert headers["Last-Modified"] == LAST_MODIFIED
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["ETag"].startswith('"')


def test_head_sends_the_same_headers_and_no_body(server: Server) -> None:
    server.add("/file.bin", body=BODY)
    _, expected, _ = get(server, "/file.bin")
    status, headers, body = get(server, "/file.bin", method="HEAD")
    assert (status, body) == (200, b"")
    assert headers["Content-Length"] == expected["Content-Length"]
    assert headers["ETag"] == expected["ETag"]


def test_unknown_path_and_method_are_refused(server: Server) -> None:
    server.add("/file.bin", body=BODY)
    assert get(server, "/other")[0] == 404
    assert get(server, "/file.bin", method="DELETE")[0] == 405


def test_keep_alive_serves_many_requests_on_one_connection(server: Server) -> None:
    server.add("/file.bin", body=BODY)
    with client(server) as connection:
        for _ in range(3):
            connection.request("GET", "/file.bin")
            assert connection.getresponse().read() == BODY
        assert server.connections == (1, 1, 1)
    server.wait_open(0)
    assert {request.connection for request in server.requests} == {1}


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    server.add("/a", body=b"first")
    server.add("/b", body=b"second")
    with raw_client(server) as sock:
        sock.sendall(b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\nConnection: close\r\n\r\n")
        received = read_all(sock)
    assert 0 < received.index(b"first") < received.index(b"second")


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=99990-", 99_990, 100_000),
        ("bytes=99990-200000", 99_990, 100_000),
        ("bytes=-10", 99_990, 100_000),
        ("bytes=-200000", 0, 100_000),
    ],
)
def test_range(server: Server, asked: str, start: int, stop: int) -> None:
    server.add("/file.bin", body=BODY)
    status, headers, body = get(server, "/file.bin", {"Range": asked})
    assert (status, body) == (206, BODY[start:stop])
    assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/100000"
    assert headers["Content-Length"] == str(stop - start)


@pytest.mark.parametrize("asked", ["bytes=100000-", "bytes=-0"])
def test_range_that_cannot_be_satisfied(server: Server, asked: str) -> None:
    server.add("/file.bin", body=BODY)
    status, headers, _ = get(server, "/file.bin", {"Range": asked})
    assert (status, headers["Content-Range"]) == (416, "bytes */100000")


@pytest.mark.parametrize("asked", ["bytes=5-4", "bytes=0-1,5-6", "bytes=-", "items=0-1", "nonsense"])
def test_invalid_range_is_ignored(server: Server, asked: str) -> None:
    server.add("/file.bin", body=BODY)
    assert get(server, "/file.bin", {"Range": asked})[0] == 200


def test_resource_without_ranges_says_and_does_so(server: Server) -> None:
    server.add("/file.bin", body=BODY, ranges=False)
    status, headers, body = get(server, "/file.bin", {"Range": "bytes=5-"})
    assert (status, body, headers["Accept-Ranges"]) == (200, BODY, None)


@pytest.mark.parametrize(
    ("etag", "condition", "status"),
    [
        ('"a"', '"a"', 206),
        ('"a"', '"b"', 200),
        ('W/"a"', 'W/"a"', 200),  # a weak one never holds
        (None, '"a"', 200),
        ('"a"', LAST_MODIFIED, 206),
        ('"a"', "Wed, 01 Jan 2020 00:00:01 GMT", 200),
    ],
)
def test_if_range(server: Server, etag: str | None, condition: str, status: int) -> None:
    server.add("/file.bin", body=BODY, etag=etag)
    assert get(server, "/file.bin", {"Range": "bytes=5-", "If-Range": condition})[0] == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-None-Match": '"a"'}, 304),
        ({"If-None-Match": '"x", W/"a"'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"b"'}, 200),
        ({"If-None-Match": '"b"', "If-Modified-Since": LAST_MODIFIED}, 200),
        ({"If-Modified-Since": LAST_MODIFIED}, 304),
        ({"If-Modified-Since": "Tue, 31 Dec 2019 23:59:59 GMT"}, 200),
        ({"If-Match": '"a"'}, 200),
        ({"If-Match": '"b"'}, 412),
        ({"If-Unmodified-Since": "Tue, 31 Dec 2019 23:59:59 GMT"}, 412),
    ],
)
def test_preconditions(server: Server, headers: dict[str, str], status: int) -> None:
    server.add("/file.bin", body=BODY, etag='"a"')
    assert get(server, "/file.bin", headers)[0] == status


def test_chunked_body(server: Server) -> None:
    server.add("/file.bin", body=BODY, chunked=True)
    status, headers, body = get(server, "/file.bin")
    assert (status, body, headers["Content-Length"]) == (200, BODY, None)
    assert headers["Transfer-Encoding"] == "chunked"


def test_body_that_ends_with_the_connection(server: Server) -> None:
    server.add("/file.bin", body=BODY, length=False)
    _, headers, body = get(server, "/file.bin")
    assert (body, headers["Content-Length"], headers["Connection"]) == (BODY, None, "close")


@pytest.mark.parametrize(("encoding", "decode"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)])
def test_encoding_comes_though_nobody_asked(server: Server, encoding: str, decode) -> None:  # type: ignore[no-untyped-def]
    server.add("/file.bin", body=BODY, encoding=encoding)
    _, headers, body = get(server, "/file.bin", {"Accept-Encoding": "identity"})
    assert headers["Content-Encoding"] == encoding
    assert decode(body) == BODY


def test_headers_status_and_query_of_a_resource(server: Server) -> None:
    server.add("/x", body=b"any")
    server.add("/x?sig=1", body=b"signed", status=203, headers={"Content-Disposition": 'filename="é.bin"'})
    assert get(server, "/x?sig=2")[2] == b"any"
    status, headers, body = get(server, "/x?sig=1")
    assert (status, body, headers["Content-Disposition"]) == (203, b"signed", 'filename="é.bin"')
    assert [request.query for request in server.requests_for("/x")] == ["sig=2", "sig=1"]


def test_requests_keep_what_was_received(server: Server) -> None:
    server.add("/file.bin", behaviours.ignore_range, body=BODY)
    get(server, "/file.bin", {"range": "bytes=7-", "X-Twice": "1"})
    (request,) = server.wait_requests("/file.bin")
    assert (request.method, request.target, request.range_start) == ("GET", "/file.bin", 7)
    assert (request.headers["RANGE"], request.headers["Missing"]) == ("bytes=7-", None)
    assert (request.status, request.body_sent) == (200, len(BODY))
    assert server.body_sent("/file.bin") == len(BODY)


# Large bodies


def test_pattern_is_the_same_each_time_and_a_prefix_of_a_longer_one() -> None:
    n = behaviours.PIECE + 7
    assert pattern(n) == pattern(n)
    assert pattern(n + 100).startswith(pattern(n))
    assert pattern(10, seed=1) != pattern(10)


def test_generated_body_has_no_two_equal_blocks_and_any_range_of_it() -> None:
    body = Generated(5_000_001)
    whole = body.read(0, body.size)
    assert len(whole) == body.size
    assert len({whole[at : at + 64] for at in range(0, body.size, Generated.BLOCK)}) == 77
    assert body.read(1_048_000, 3_200_001) == whole[1_048_000:3_200_001]
    assert body.digest() == hashlib.sha256(whole).hexdigest()


def test_large_generated_body_is_sent_without_being_held(server: Server) -> None:
    body = Generated(1 << 30)
    server.add("/large", body=body)
    start = (1 << 30) - 100_000
    assert get(server, "/large", {"Range": f"bytes={start}-"})[2] == body.read(start, body.size)


@pytest.mark.parametrize("secure", [False, True])
def test_body_from_a_file(tmp_path: Path, request: pytest.FixtureRequest, secure: bool) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(pattern(3_000_000))
    server: Server = request.getfixturevalue("tls_server" if secure else "server")
    url = server.add("/file.bin", body=path)
    arguments = ["-r", "5-"]
    if secure:
        arguments += ["--cacert", str(request.getfixturevalue("certificates").ca)]
    assert curl(url, *arguments) == pattern(3_000_000)[5:]
    assert server.body_sent("/file.bin") == 3_000_000 - 5


def curl(url: str, *arguments: str) -> bytes:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    return subprocess.run(
        ["curl", "-sS", "--fail", *arguments, url], check=True, stdout=subprocess.PIPE
    ).stdout


# Gates


@pytest.mark.parametrize("position", [20, -1])
def test_stall_in_headers(server: Server, gate: Gate, position: int) -> None:
    server.add("/x", behaviours.stall_in_headers(gate, position), body=b"abc")
    with raw_client(server, "/x") as sock:
        gate.wait_reached()
        begun = sock.recv(65536)
        assert len(begun) == 20 if position > 0 else begun.endswith(b"\r\n\r")
        assert is_silent(sock)
        gate.open()
        head, _, body = (begun + read_to_end(sock, b"abc")).partition(b"\r\n\r\n")
        assert (head[:15], body) == (b"HTTP/1.1 200 OK", b"abc")


@pytest.mark.parametrize("n", [0, 1, 70_000, 100_000])
def test_stall_after(server: Server, gate: Gate, n: int) -> None:
    server.add("/x", behaviours.stall_after(n, gate), body=BODY)
    with raw_client(server, "/x") as sock:
        read_head(sock)
        assert read_exactly(sock, n) == BODY[:n]
        gate.wait_reached()
        assert is_silent(sock)
        gate.open()
        assert read_exactly(sock, len(BODY) - n) == BODY[n:]


def test_gate_counts_connections_that_reached_it(server: Server, gate: Gate) -> None:
    server.add("/x", behaviours.stall_before_headers(gate))
    with raw_client(server, "/x"), raw_client(server, "/x"):
        gate.wait_reached(2)
        with pytest.raises(TimeoutError, match="2 of 3"):
            gate.wait_reached(3, timeout=0.01)
        assert server.connections == (2, 2, 2)


def test_body_sent_is_exact_while_held_and_after_a_client_left(server: Server, gate: Gate) -> None:
    server.add("/held", behaviours.stall_after(1234, gate), body=BODY)
    server.add("/left", body=Generated(1 << 30))
    with raw_client(server, "/held"):
        gate.wait_reached()
        assert server.body_sent("/held") == 1234
    with raw_client(server, "/left") as sock:
        read_exactly(sock, 1 << 20)
    server.wait_open(0)
    head = 500  # bytes at most, read along with the body
    assert (1 << 20) - head <= server.body_sent("/left") < 1 << 29


def test_held_connection_sees_its_client_hang_up(server: Server, gate: Gate) -> None:
    server.add("/x", behaviours.stall_after(1, gate), body=BODY)
    with raw_client(server, "/x"):
        gate.wait_reached()
    server.wait_open(0)


def test_exit_frees_what_is_held_in_a_gate_in_recv_and_in_send() -> None:
    with contextlib.ExitStack() as clients:
        with Server() as server:
            gate = server.gate()
            server.add("/held", behaviours.stall_before_headers(gate))
            server.add("/large", body=Generated(1 << 30))
            clients.enter_context(raw_client(server, "/held"))
            clients.enter_context(raw_client(server, "/large"))
            clients.enter_context(raw_client(server))
            gate.wait_reached()
            server.wait_open(3)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("server-")]
        assert server.connections.open == 0


def test_drop_connections_ends_them_all(server: Server, gate: Gate) -> None:
    server.add("/x", behaviours.stall_before_headers(gate))
    with raw_client(server, "/x") as sock:
        gate.wait_reached()
        server.drop_connections()
        assert read_all(sock) == b""


def test_mistake_in_a_behaviour_is_raised_at_exit() -> None:
    def mistaken(exchange: Exchange) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Server() as server:  # noqa: PT012
        server.add("/x", mistaken)
        assert raw_exchange(server, "/x") == b""


# Behaviours. Those without which the engine's tests fail at once are tried by them.


def test_first_after_and_on_range_choose_requests(server: Server) -> None:
    server.add("/first", first(1, behaviours.status(500)), body=b"ok")
    server.add("/after", after(1, behaviours.status(500)), body=b"ok")
    server.add("/range", on_range(behaviours.status(500), start=2), body=b"ok, ok")
    assert [get(server, "/first")[0] for _ in range(3)] == [500, 200, 200]
    assert [get(server, "/after")[0] for _ in range(3)] == [200, 500, 500]
    asked = ({}, {"Range": "bytes=1-"}, {"Range": "bytes=2-"})
    assert [get(server, "/range", headers)[0] for headers in asked] == [200, 206, 500]


def test_behaviours_combine(server: Server, gate: Gate) -> None:
    server.add(
        "/x",
        behaviours.fail_times(1, 503, {"Retry-After": "7"}),
        behaviours.informational(103),
        behaviours.stall_after(2, gate),
        behaviours.cut_after(4),
        body=b"abcdef",
    )
    status, headers, _ = get(server, "/x")
    assert (status, headers["Retry-After"]) == (503, "7")
    with raw_client(server, "/x") as sock:
        assert b" 103 " in read_head(sock)
        assert b" 200 " in read_head(sock)
        assert read_exactly(sock, 2) == b"ab"
        gate.wait_reached()
        gate.open()
        assert read_all(sock) == b"cd"


# Connections that break


@pytest.mark.parametrize("n", [0, 1, 70_000])
def test_cut_after(server: Server, n: int) -> None:
    server.add("/x", behaviours.cut_after(n), body=BODY)
    assert raw_exchange(server, "/x").partition(b"\r\n\r\n")[2] == BODY[:n]
    assert server.body_sent("/x") == n


@pytest.mark.parametrize("n", [0, 1, 70_000])
def test_reset_after(server: Server, n: int) -> None:
    server.add("/x", behaviours.reset_after(n), body=BODY)
    with raw_client(server, "/x") as sock:
        read_head(sock)
        assert read_exactly(sock, n) == BODY[:n]
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_close_unannounced(server: Server) -> None:
    server.add("/x", behaviours.close_unannounced, body=b"abc")
    received = raw_exchange(server, "/x")
    assert received.endswith(b"abc")
    assert b"Connection" not in received


def test_limit_connections(server: Server, gate: Gate) -> None:
    stalled = first(1, behaviours.stall_after(1, gate))
    server.add("/x", behaviours.limit_connections(1), stalled, body=b"abc")
    with raw_client(server, "/x") as sock:
        gate.wait_reached()
        assert get(server, "/x")[0] == 503
        gate.open()
        assert read_to_end(sock, b"abc")
        for _ in range(20):  # the slot is free as soon as the last byte is there
            assert get(server, "/x")[0] == 200


# Other answers


def test_basic_auth(server: Server) -> None:
    server.add("/x", basic_auth("me", "secret"), body=b"abc")
    assert get(server, "/x")[0] == 401
    assert curl(server.url("/x", user="me:secret")) == b"abc"


def test_informational_answers_come_first(server: Server) -> None:
    server.add("/x", behaviours.informational(102, 103, times=2), body=b"abc")
    with raw_client(server, "/x") as sock:
        codes = [read_head(sock).split()[1] for _ in range(5)]
    assert codes == [b"102", b"103", b"102", b"103", b"200"]


@pytest.mark.parametrize(
    "behaviour",
    [
        behaviours.endless_headers(),
        behaviours.endless_informational(),
        behaviours.endless_body(),
        behaviours.endless_headers(pace=0.0001),
    ],
)
def test_endless_answers_end_with_the_client(server: Server, behaviour: behaviours.Behaviour) -> None:
    server.add("/x", behaviour)
    with raw_client(server, "/x") as sock:
        read_exactly(sock, 5_000)
    server.wait_open(0)


def test_gzip_body_and_bomb(server: Server) -> None:
    server.add("/body", behaviours.gzip_body, body=BODY)
    server.add("/bomb", behaviours.gzip_bomb(8 << 20))
    assert gzip.decompress(get(server, "/body")[2]) == BODY
    _, headers, body = get(server, "/bomb")
    assert headers["Content-Encoding"] == "gzip"
    assert len(body) < 20_000
    assert gzip.decompress(body) == bytes(8 << 20)


def test_behaviour_of_ones_own(server: Server) -> None:
    def greet(exchange: Exchange) -> None:
        exchange.head(299, [("X-Query", exchange.request.query), ("X-Number", str(exchange.number))], "Fine")
        exchange.send(b"hello")
        exchange.cut()

    server.add("/x", greet)
    assert raw_exchange(server, "/x?a=b") == b"HTTP/1.1 299 Fine\r\nX-Query: a=b\r\nX-Number: 0\r\n\r\nhello"
    assert server.requests[0].status == 299


# TLS


def open_tls(server: Server, certificates: Certificates, name: str = "localhost") -> None:
    context = certificates.client_context()
    with (
        socket.create_connection((server.host, server.port), timeout=DEADLINE) as sock,
        context.wrap_socket(sock, server_hostname=name),
    ):
        pass


def test_tls_server_is_trusted_through_its_authority(tls_server: Server, certificates: Certificates) -> None:
    tls_server.add("/x", body=BODY)
    assert tls_server.origin.startswith("https://127.0.0.1:")
    for name in ("localhost", "127.0.0.1", "files.example", "cdn.files.example"):
        open_tls(tls_server, certificates, name)
    assert curl(tls_server.url("/x"), "--cacert", str(certificates.ca)) == BODY


@pytest.mark.parametrize(
    ("which", "message"),
    [("expired", "expired"), ("wrong_host", "mismatch"), ("self_signed", "unable to get local issuer")],
)
def test_bad_certificates(certificates: Certificates, which: str, message: str) -> None:
    with (
        Server(tls=getattr(certificates, which)) as server,
        pytest.raises(ssl.SSLCertVerificationError, match=message),
    ):
        open_tls(server, certificates)


def test_tls_cut_is_not_an_orderly_end(tls_server: Server, certificates: Certificates) -> None:
    tls_server.add("/cut", behaviours.cut_after(5), body=BODY, length=False)
    tls_server.add("/orderly", body=BODY, length=False)
    ends = []
    for path in ("/cut", "/orderly"):
        context = certificates.client_context()
        with (
            socket.create_connection((tls_server.host, tls_server.port), timeout=DEADLINE) as sock,
            context.wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False) as tls,
        ):
            tls.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
            try:
                read_all(tls)
                ends.append("orderly")
            except ssl.SSLError:  # older Pythons have no class for it
                ends.append("cut")
    assert ends == ["cut", "orderly"]


def test_stall_in_handshake(tls_server: Server, certificates: Certificates) -> None:
    gate = tls_server.stall_in_handshake()
    context = certificates.client_context()
    with (
        socket.create_connection((tls_server.host, tls_server.port), timeout=DEADLINE) as sock,
        context.wrap_socket(sock, server_hostname="localhost", do_handshake_on_connect=False) as tls,
    ):
        tls.setblocking(False)
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        gate.wait_reached()
        assert is_silent(tls)
        gate.open()
        tls.settimeout(DEADLINE)
        tls.do_handshake()


def test_a_port_may_speak_something_else_first(tls_server: Server, certificates: Certificates) -> None:
    tls_server.hijack = lambda connection: connection.send(b"220 mail\r\n")
    with socket.create_connection((tls_server.host, tls_server.port), timeout=DEADLINE) as sock:
        assert read_all(sock) == b"220 mail\r\n"
    tls_server.hijack = None
    tls_server.add("/x", body=BODY)
    with socket.create_connection((tls_server.host, tls_server.port), timeout=DEADLINE) as sock:
        tls = certificates.client_context().wrap_socket(sock, server_hostname="localhost")
        with tls:
            tls.sendall(b"GET /x HTTP/1.0\r\n\r\n")
            assert read_all(tls).endswith(BODY)
    tls_server.use_tls(None)
    assert get(tls_server, "/x")[2] == BODY


def test_exit_frees_a_handshake_that_the_client_never_begins(certificates: Certificates) -> None:
    with Server(tls=certificates.good) as server:
        sock = socket.create_connection((server.host, server.port), timeout=DEADLINE)
        server.wait_open(1)
    with sock:
        assert read_all(sock) == b""


def test_stalled_tls_connection_sees_its_client_hang_up(
    tls_server: Server, certificates: Certificates
) -> None:
    gate = tls_server.gate()
    tls_server.add("/x", behaviours.stall_before_headers(gate))
    context = certificates.client_context()
    with (
        socket.create_connection((tls_server.host, tls_server.port), timeout=DEADLINE) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        tls.sendall(b"GET /x HTTP/1.1\r\n\r\n")
        gate.wait_reached()
    tls_server.wait_open(0)


# Addresses


def test_ipv6() -> None:
    try:
        server = Server(host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    with server:
        server.add("/x", body=b"abc")
        assert server.url("/x") == f"http://[::1]:{server.port}/x"
        assert get(server, "/x")[2] == b"abc"


def test_port_can_be_taken_again() -> None:
    with Server() as before:
        before.add("/x", body=b"before")
        get(before, "/x")
    with Server(port=before.port) as again:
        again.add("/x", body=b"again")
        assert get(again, "/x")[2] == b"again"


def begin_to_connect(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setblocking(False)
    sock.connect_ex((host, port))
    return sock


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_connecting_to_an_unreachable_port_hangs(host: str) -> None:
    # An answer on loopback is there within microseconds: none in 50 ms is none.
    with unreachable_port(host) as port:
        socks = [begin_to_connect(host, port) for _ in range(3)]
        ready = select.select([], socks, [], 0.05)[1]
        for sock in socks:
            sock.close()
    assert ready == []


def test_localhost_with_one_dead_address(server: Server) -> None:
    with unreachable_port("::1", server.port) as port, begin_to_connect("::1", port) as sock:
        assert port == server.port
        assert select.select([], [sock], [], 0.05)[1] == []
        server.add("/x", body=b"abc")
        assert get(server, "/x")[2] == b"abc"


def test_connecting_to_a_refused_port_is_refused() -> None:
    with refused_port() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)


# The proxy


def test_proxy_forwards_plain_requests(server: Server) -> None:
    server.add("/x", body=BODY)
    with Proxy() as proxy:
        assert curl(server.url("/x?q"), "--proxy", proxy.url) == BODY
    (request,) = proxy.requests
    assert (request.method, request.target) == ("GET", server.url("/x?q"))
    assert server.requests[0].target == "/x?q"
    assert "Proxy-Connection" not in server.requests[0].headers


def test_proxy_tunnels_tls_to_a_name_that_exists_nowhere(
    tls_server: Server, certificates: Certificates
) -> None:
    tls_server.add("/x", body=BODY)
    with Proxy(hosts={"files.example": ("127.0.0.1", tls_server.port)}) as proxy:
        url = "https://files.example/x"
        assert curl(url, "--proxy", proxy.url, "--cacert", str(certificates.ca)) == BODY
    assert [(request.method, request.target, request.status) for request in proxy.requests] == [
        ("CONNECT", "files.example:443", 200)
    ]


def test_proxy_asks_for_its_password(server: Server) -> None:
    server.add("/x", body=b"abc")
    with Proxy(user="me", password="secret") as proxy:
        assert proxy.url.startswith("http://me:secret@127.0.0.1:")
        bare = f"{proxy.host}:{proxy.port}"
        status = curl_status(server.url("/x"), "--proxy", bare)
        assert curl(server.url("/x"), "--proxy", proxy.url) == b"abc"
        assert curl_status(server.url("/x"), "--proxy", bare, "--proxytunnel") == "000"
    assert status == "407"
    assert "Proxy-Authorization" not in server.requests[0].headers
    assert proxy.requests[0].headers["Proxy-Authorization"] is None
    sent = proxy.requests[1].headers["Proxy-Authorization"] or ""
    assert base64.b64decode(sent.removeprefix("Basic ")) == b"me:secret"
    assert [request.status for request in proxy.requests] == [407, 0, 407]


def curl_status(url: str, *arguments: str) -> str:
    """The status that curl saw; 000 if it got none from the server."""
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    command = ["curl", "-s", "-o", os.devnull, "-w", "%{http_code}", *arguments, url]
    return subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True).stdout


def test_proxy_can_refuse(server: Server) -> None:
    with Proxy(connect_status=403) as proxy:
        assert curl_status(server.url("/x"), "--proxy", proxy.url, "--proxytunnel") == "000"
        assert proxy.requests[0].status == 403
    with refused_port() as port, Proxy() as proxy:
        assert curl_status(f"http://127.0.0.1:{port}/x", "--proxy", proxy.url) == "502"


def test_proxy_exit_frees_a_tunnel_and_a_connect_that_hangs(server: Server) -> None:
    with contextlib.ExitStack() as clients:
        with Proxy() as proxy, unreachable_port() as port:
            for target in (server.port, port):
                sock = socket.create_connection((proxy.host, proxy.port), timeout=DEADLINE)
                clients.enter_context(sock)
                sock.sendall(f"CONNECT 127.0.0.1:{target} HTTP/1.1\r\n\r\n".encode())
            server.wait_open(1)
            proxy.wait_requests(2)
        assert proxy.connections.open == 0
    server.wait_open(0)


# The leak check


def test_leak_check_is_content_with_a_tidy_test() -> None:
    with LeakCheck(), Server() as server:
        server.add("/x", body=b"abc")
        get(server, "/x")


def test_leak_check_names_a_descriptor() -> None:
    check = LeakCheck(settle=0)
    with pytest.raises(LeakError, match=r"descriptor \d+ -> (/dev/null|device)"), check:
        descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    assert check.left() == []


def test_leak_check_names_a_thread() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="downloads-7")
    with pytest.raises(LeakError, match="thread downloads-7"), LeakCheck(settle=0):
        thread.start()
    with pytest.raises(LeakError, match="before the test began"), LeakCheck():
        pass
    end.set()
    thread.join()


def test_leak_check_names_a_child_living_or_not_waited_for() -> None:
    command = [sys.executable, "-c", "print('ready', flush=True); input()"]
    check = LeakCheck(settle=0)
    with contextlib.ExitStack() as stack:
        with pytest.raises(LeakError, match=r"child \d+ \(.*input\(\)\)"), check:
            child = stack.enter_context(begin(command))
        assert child.stdin
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert any("not waited for" in line for line in check.left())
    assert check.left() == []


def begin(command: list[str]) -> subprocess.Popen[bytes]:
    """Start a command and wait for its first line: before that /proc may not name it yet."""
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert child.stdout
    child.stdout.readline()
    return child


def test_leak_check_waits_a_moment() -> None:
    descriptor = -1
    with LeakCheck():
        descriptor = os.open(os.devnull, os.O_RDONLY)
        closer = threading.Timer(0.02, os.close, [descriptor])
        closer.start()
    closer.join()


def test_leak_check_adds_to_the_failure_of_a_test() -> None:
    descriptors = []

    def fail() -> None:
        descriptors.append(os.open(os.devnull, os.O_RDONLY))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught, LeakCheck(settle=0):
        fail()
    os.close(*descriptors)
    assert "and left behind" in caught.value.__notes__[0]


# The journal

SUITE = """
import os, pathlib, pytest

@pytest.fixture
def untidy():
    yield
    raise OSError("left over")

@pytest.fixture
def kills():
    yield
    os._exit(1)

def test_passes(): pass
def test_fails(): assert 1 == 2
def test_is_left_out(): pytest.skip("no such thing here")
def test_takes_python_along(): os._exit(1)
def test_takes_python_along_later(kills): pass
def test_comes_after(): pathlib.Path("came").touch()
def test_is_untidy(untidy): pass
"""
WITH_JOURNAL = """
import os, pathlib, sys
sys.path.append({tests!r})
from journal import Journal

def pytest_configure(config):
    config.pluginmanager.register(Journal(pathlib.Path("journal")))
"""


def test_what_became_of_each_test_is_known_though_one_took_python_along(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "conftest.py").write_text(WITH_JOURNAL.format(tests=str(Path(__file__).parent)))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=.", "test_suite.py"]
    subprocess.run(command, cwd=tmp_path, stdout=subprocess.DEVNULL, check=False)
    subprocess.run(command, cwd=tmp_path, stdout=subprocess.DEVNULL, check=False)
    assert not (tmp_path / "came").exists()
    subprocess.run(command, cwd=tmp_path, stdout=subprocess.DEVNULL, check=False)
    assert (tmp_path / "came").exists()
    assert journal.read(tmp_path / "journal") == {
        "test_suite.py::test_passes": ("passed", ""),
        "test_suite.py::test_fails": ("failed", "assert 1 == 2"),
        "test_suite.py::test_is_left_out": ("skipped", "no such thing here"),
        "test_suite.py::test_takes_python_along": ("began", ""),
        "test_suite.py::test_takes_python_along_later": ("began", ""),
        "test_suite.py::test_comes_after": ("passed", ""),
        "test_suite.py::test_is_untidy": ("failed", "OSError: left over"),
    }


def test_url_has_room_for_another_host_and_a_user(server: Server) -> None:
    parts = urllib.parse.urlsplit(server.url("/x", host="localhost", user="me:secret"))
    assert (parts.hostname, parts.port, parts.username, parts.password) == (
        "localhost",
        server.port,
        "me",
        "secret",
    )
