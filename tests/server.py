"""A hostile and exact HTTP/1.1 server for the tests, on raw sockets.

It is not built on `http.server`, because it must be able to send wrong bytes on purpose, and to stop,
cut or reset a connection at an exact byte. One thread for each connection; leaving the `with` block
opens every gate, shuts every socket down and joins every thread. Windows has no `poll`: see `_Poll`.

    with Server() as server:
        server.add("/file.bin", cut_after(1000), body=pattern(5000))
        fetch(server.url("/file.bin"))
        assert server.requests_for("/file.bin")[0].headers["Range"] is None

A behaviour is a function of an `Exchange`. A resource holds a list of them: each answers the request
itself, or arranges something and calls `exchange.go_on()`, which runs the next one; after the last one
the resource is served as RFC 9110 wants it. So behaviours can be combined, and limited with `first`,
`after` and `when`.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import dataclasses
import datetime
import email.utils
import errno
import functools
import gzip
import hashlib
import ipaddress
import itertools
import math
import os
import random
import re
import select
import selectors
import socket
import ssl
import struct
import sys
import threading
import time
import typing
import urllib.parse
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Concatenate, NamedTuple, ParamSpec, Protocol, Self

DEADLINE = 20.0 if sys.platform != "win32" else 90.0  # seconds; a test that waits longer fails, and hangs not
PIECE = 1 << 20  # bytes handed to the kernel in one call
CHUNK = 1 << 16  # bytes in one chunk of the chunked coding
HEAD_LIMIT = 1 << 20  # bytes; a client that sends a larger head is broken
LAST_MODIFIED = "Wed, 01 Jan 2020 00:00:00 GMT"
AUTO = "auto"  # an ETag made from the content

READ, WRITE = 1, 4  # POLLIN and POLLOUT
_LINGER = "hh" if sys.platform == "win32" else "ii"
LOOK = 0.02  # seconds between two looks where the system does not tell of a hang-up

Arguments = ParamSpec("Arguments")
HeaderFields = Mapping[str, str | None] | Iterable[tuple[str, str]]


class HungUpError(ConnectionError):
    """The connection is over: cut by a behaviour, by the client, or because the server ends."""


# ---------------------------------------------------------------------------------------------------
# Bodies


class Body(Protocol):
    """What a resource holds: any size, read in pieces, nothing kept for a connection."""

    @property
    def size(self) -> int: ...

    def pieces(self, start: int, stop: int) -> Iterator[bytes | memoryview]: ...

    def tag(self) -> str: ...


def pattern(n: int, seed: int = 0) -> bytes:
    """`n` bytes that look random and are the same each time; a shorter one is a prefix of a longer one."""
    source = random.Random(seed)
    blocks = (source.randbytes(PIECE) for _ in range(-(-n // PIECE)))
    return b"".join(blocks)[:n]


@dataclasses.dataclass(frozen=True)
class Data:
    """A body in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def pieces(self, start: int, stop: int) -> Iterator[memoryview]:
        view = memoryview(self.data)
        for at in range(start, stop, PIECE):
            yield view[at : min(at + PIECE, stop)]

    def tag(self) -> str:
        return hashlib.sha256(self.data).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class File:
    """A body in a file: `sendfile` on a plain connection, `pread` on any other."""

    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            for at in range(start, stop, PIECE):
                file.seek(at)
                yield file.read(min(PIECE, stop - at))

    def tag(self) -> str:
        status = self.path.stat()
        return f"{status.st_mtime_ns:x}-{status.st_size:x}"


@dataclasses.dataclass(frozen=True)
class Generated:
    """A body of any size that exists nowhere: one block of noise, its number stamped on each copy."""

    size: int
    seed: int = 0

    BLOCK = 1 << 16

    def pieces(self, start: int, stop: int) -> Iterator[memoryview]:
        per_piece = PIECE // self.BLOCK
        piece = bytearray(pattern(self.BLOCK, self.seed) * per_piece)
        for first in range(start // PIECE, -(-stop // PIECE)):
            # A new object each turn: what was yielded before may still be in use.
            piece = bytearray(piece)
            for block in range(per_piece):
                struct.pack_into("<Q", piece, block * self.BLOCK, first * per_piece + block)
            base = first * PIECE
            yield memoryview(piece)[max(start - base, 0) : min(stop - base, PIECE)]

    def read(self, start: int, stop: int) -> bytes:
        return b"".join(self.pieces(start, stop))

    def digest(self, name: str = "sha256") -> str:
        digest = hashlib.new(name)
        for piece in self.pieces(0, self.size):
            digest.update(piece)
        return digest.hexdigest()

    def tag(self) -> str:
        return f"generated-{self.seed:x}-{self.size:x}"


@dataclasses.dataclass(frozen=True)
class Garbled:
    """Another body with every bit of one range turned over."""

    inner: Body
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.inner.size

    def pieces(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        left, right = (min(max(at, start), stop) for at in (self.start, self.stop))
        yield from self.inner.pieces(start, left)
        for piece in self.inner.pieces(left, right):
            yield bytes(piece).translate(_INVERTED)
        yield from self.inner.pieces(right, stop)

    def tag(self) -> str:
        return self.inner.tag()


_INVERTED = bytes(range(255, -1, -1))


def as_body(value: bytes | str | Path | Body) -> Body:
    match value:
        case bytes():
            return Data(value)
        case str():
            return Data(value.encode())
        case Path():
            return File(value)
        case _:
            return value


# ---------------------------------------------------------------------------------------------------
# Gates


class Gate:
    """Where connections wait until the test lets them go on.

    A socket pair used as a semaphore: a byte lets one wait through, the closed end lets all through. So a
    waiting connection can poll the gate and its own socket together, and sees the client hang up.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._condition = threading.Condition()
        self._reached = 0
        self._open = False

    @property
    def reached(self) -> int:
        """How many waits began so far."""
        return self._reached

    def wait_reached(self, n: int = 1, timeout: float = DEADLINE) -> None:
        """Block until `n` waits have begun, counted from the first ever."""
        with self._condition:
            if not self._condition.wait_for(lambda: self._reached >= n, timeout):
                raise TimeoutError(f"{self._reached} of {n} connections reached the gate")

    def step(self, n: int = 1) -> None:
        """Let `n` waits through, and no more."""
        with self._condition:
            if not self._open:
                self._writer.sendall(b"." * n)

    def open(self) -> None:
        """Let everything through, now and later."""
        with self._condition:
            if not self._open:
                self._open = True
                self._writer.close()

    def wait(self, connection: Connection) -> None:
        with self._condition:
            self._reached += 1
            self._condition.notify_all()
        while not self._try_pass():
            connection.wait_for(self._reader)

    def close(self) -> None:
        """Only when nobody waits any more."""
        self.open()
        self._reader.close()

    def _try_pass(self) -> bool:
        try:
            self._reader.recv(1)
        except BlockingIOError:
            return False
        return True


# ---------------------------------------------------------------------------------------------------
# What systems do in their own ways


_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


def _ready(socks: Iterable[socket.socket], timeout: float | None = None) -> list[socket.socket]:
    """Wait until one of the sockets can be read from."""
    with _Selector() as selector:
        for sock in socks:
            selector.register(sock, selectors.EVENT_READ)
        return [typing.cast(socket.socket, key.fileobj) for key, _ in selector.select(timeout)]


if sys.platform == "win32":
    _kernel = ctypes.WinDLL("kernel32")

    def _shut_down(sock: socket.socket) -> None:
        """End the connection; a thread that waits in it wakes only where its wait is cancelled."""
        with contextlib.suppress(OSError):
            # Not SSLSocket.shutdown: that one drops its TLS state under the feet of its thread.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        _kernel.CancelIoEx(ctypes.c_void_p(sock.fileno()), None)

    def _hung_up(
        connection: Connection, other: socket.socket | None, events: int, timeout: float | None
    ) -> bool:
        """Whether the client left before `other` was ready or the time was over.

        For `select` a byte is as good as an end, so it is looked now and then which of them is there.
        """
        end = time.monotonic() + (timeout if timeout is not None else math.inf)
        reads = [other] if other and events & READ else []
        writes = [other] if other and events & WRITE else []
        while not (gone := connection.is_shut or _has_gone(connection.sock)):
            if (left := end - time.monotonic()) <= 0:
                break
            if not (reads or writes):
                time.sleep(min(LOOK, left))
            elif any(select.select(reads, writes, writes, min(LOOK, left))):
                break
        return gone

    def _has_gone(sock: socket.socket) -> bool:
        if not select.select([sock], [], [], 0)[0]:
            return False
        try:
            return not socket.socket.recv(sock, 1, socket.MSG_PEEK)
        except OSError:
            return True

    def _unacknowledged(sock: socket.socket) -> int:
        return 0  # nobody tells

    def _send_from(sock: socket.socket, file: BinaryIO, start: int, n: int) -> int:
        file.seek(start)
        return sock.send(file.read(n))

else:
    import fcntl
    import termios

    _HUNG_UP = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)

    def _shut_down(sock: socket.socket) -> None:
        """End the connection; whoever is blocked in it wakes up."""
        with contextlib.suppress(OSError):
            # Not SSLSocket.shutdown: that one drops its TLS state under the feet of its thread.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _hung_up(
        connection: Connection, other: socket.socket | None, events: int, timeout: float | None
    ) -> bool:
        """Whether the client left before `other` was ready or the time was over."""
        sock, poll = connection.sock, select.poll()
        # Not POLLIN: a client may send its next request early, that is no reason to wake.
        poll.register(sock, _HUNG_UP)
        if other is not None:
            poll.register(other, events)
        ready = dict(poll.poll(None if timeout is None else timeout * 1000))
        return bool(ready.get(sock.fileno(), 0) & _HUNG_UP)

    def _unacknowledged(sock: socket.socket) -> int:
        answer: bytes = fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(answer, sys.byteorder)

    def _send_from(sock: socket.socket, file: BinaryIO, start: int, n: int) -> int:
        return os.sendfile(sock.fileno(), file.fileno(), start, n)


# ---------------------------------------------------------------------------------------------------
# The base: accept, one thread for each connection, close and join


class Connection:
    """One accepted socket. Its own thread reads, writes and closes it; others only shut it down."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self.is_shut = False
        """Whether it was ended from this side."""
        self._lock = threading.Lock()
        self._pending = b""

    def send(self, data: bytes | memoryview) -> None:
        self.sock.sendall(data)

    def read_head(self) -> bytes:
        """The bytes up to the empty line, or nothing if the client closed an idle connection."""
        while b"\r\n\r\n" not in self._pending:
            received = self.sock.recv(CHUNK)
            if not received and self._pending:
                raise HungUpError("the client left in the middle of a request")
            if not received:
                return b""
            self._pending += received
            if len(self._pending) > HEAD_LIMIT:
                raise HungUpError("the head of the request is too long")
        head, _, self._pending = self._pending.partition(b"\r\n\r\n")
        return head

    def read(self, n: int) -> bytes:
        while len(self._pending) < n:
            received = self.sock.recv(CHUNK)
            if not received:
                raise HungUpError("the client left in the middle of its body")
            self._pending += received
        data, self._pending = self._pending[:n], self._pending[n:]
        return data

    def take_pending(self) -> bytes:
        """What was received and not yet used."""
        data, self._pending = self._pending, b""
        return data

    def wait_for(
        self, other: socket.socket | None = None, events: int = READ, timeout: float | None = None
    ) -> None:
        """Wait for the socket `other` or for the time; if the client hangs up first: HungUpError."""
        if _hung_up(self, other, events, timeout):
            raise HungUpError("the connection ended while it was held")

    def wait_hung_up(self) -> None:
        """Until the client has gone, or the server ends."""
        with contextlib.suppress(HungUpError):
            self.wait_for()

    def shutdown(self) -> None:
        """End the connection from any thread; whoever is blocked in it wakes up."""
        with self._lock:
            self.is_shut = True
            if self.sock.fileno() >= 0:
                _shut_down(self.sock)

    def close(self, polite: bool = False) -> None:
        """Close with a FIN; over TLS, a polite close says close_notify first."""
        with self._lock:
            if polite and isinstance(self.sock, ssl.SSLSocket):
                with contextlib.suppress(OSError, ValueError):
                    self.sock.setblocking(False)  # say it, do not wait for the answer
                    self.sock.unwrap()
            # Unread bytes in the receive buffer would turn the FIN into a RST.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self.sock, socket.SHUT_WR)
                self.sock.setblocking(False)
                while socket.socket.recv(self.sock, CHUNK):
                    pass
            self.sock.close()

    def reset(self) -> None:
        """Close with a RST, after the client's system has received all that was sent.

        A RST throws away what was not acknowledged; Linux still lets the client read the rest.
        """
        deadline = time.monotonic() + DEADLINE
        while _unacknowledged(self.sock) and time.monotonic() < deadline:
            self.wait_for(timeout=0.001)
        with self._lock, contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(_LINGER, 1, 0))
            self.sock.close()


class Counts(NamedTuple):
    """Connections seen by a server."""

    accepted: int
    open: int
    peak: int


class SocketServer:
    """Accepts, gives each connection a thread, and leaves nothing behind. Subclasses define `handle`."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, tls: Path | ssl.SSLContext | None = None):
        self.host = host
        self._context = _server_context(tls)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self._ends = Gate()
        self._condition = threading.Condition()
        self._gates: list[Gate] = []
        self._hold: Gate | None = None
        self._open: set[Connection] = set()
        self._threads: list[threading.Thread] = []
        self._accepted = self._peak = 0
        self.errors: list[Exception] = []
        self.hijack: Callable[[Connection], None] | None = None
        """While it is there, it gets each new connection as it is, before a TLS handshake."""
        self._acceptor = threading.Thread(
            target=self._accept_all, name=f"server-{self.port}-accept", daemon=True
        )

    def handle(self, connection: Connection) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()
        if self.errors and error is None:
            raise self.errors[0]  # a mistake in a behaviour must not pass unseen

    def close(self) -> None:
        """Open every gate, end every connection, join every thread. May be called twice."""
        if self._listener.fileno() < 0:
            return
        self._ends.open()
        self._acceptor.join()
        self._listener.close()
        # Before the gates, so that what is held ends instead of going on.
        for connection in self._snapshot():
            connection.shutdown()
        for gate in self._gates:
            gate.open()
        for thread in self._threads:
            thread.join()
        for gate in (*self._gates, self._ends):
            gate.close()

    @property
    def origin(self) -> str:
        scheme = "https" if self._context else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    def gate(self) -> Gate:
        """A gate that opens by itself when the server ends."""
        gate = Gate()
        self._gates.append(gate)
        return gate

    def stall_in_handshake(self) -> Gate:
        """From now on connections are accepted and then held, before a byte (or TLS hello) is read."""
        self._hold = self.gate()
        return self._hold

    def use_tls(self, tls: Path | ssl.SSLContext | None) -> None:
        """From now on; None: plain."""
        self._context = _server_context(tls)

    @property
    def connections(self) -> Counts:
        with self._condition:
            return Counts(self._accepted, len(self._open), self._peak)

    def wait_open(self, n: int, timeout: float = DEADLINE) -> None:
        """Block until exactly `n` connections are open: hang-ups are noticed a moment later."""
        self._wait_for(lambda: len(self._open) == n, timeout, f"{n} open connections")

    def drop_connections(self) -> None:
        """End every connection that is open now, whatever it is doing."""
        for connection in self._snapshot():
            connection.shutdown()

    def _snapshot(self) -> list[Connection]:
        with self._condition:
            return list(self._open)

    def _wait_for(self, predicate: Callable[[], bool], timeout: float, what: str) -> None:
        with self._condition:
            if not self._condition.wait_for(predicate, timeout):
                counts = f"{self._accepted} accepted, {len(self._open)} open"
                raise TimeoutError(f"waited {timeout:g} s for {what} ({counts})")

    def _accept_all(self) -> None:
        while self._ends._reader not in _ready([self._listener, self._ends._reader]):
            with contextlib.suppress(OSError):  # the client may have gone already
                self._start(self._listener.accept()[0])

    def _start(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context and not self.hijack:
                # Wrapped before the thread starts, so that the socket to shut down never changes.
                sock = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except OSError:
            sock.close()
            raise
        with self._condition:
            self._accepted += 1
            connection = Connection(sock, self._accepted)
            self._open.add(connection)
            self._peak = max(self._peak, len(self._open))
            self._condition.notify_all()
        name = f"server-{self.port}-{connection.number}"
        thread = threading.Thread(target=self._run, args=(connection,), name=name, daemon=True)
        self._threads = [thread, *(one for one in self._threads if one.is_alive())]
        thread.start()

    def _run(self, connection: Connection) -> None:
        polite = False
        try:
            if self._hold:
                self._hold.wait(connection)
            is_tls = isinstance(connection.sock, ssl.SSLSocket)
            if is_tls:
                connection.sock.do_handshake()
            handle = self.handle if is_tls or not self.hijack else self.hijack
            handle(connection)
            polite = True
        except OSError:
            pass  # hung up, reset, a client that does not trust us: part of the trade
        except Exception as error:
            self.errors.append(error)
        finally:
            connection.close(polite)
            with self._condition:
                self._open.discard(connection)
                self._condition.notify_all()


def _server_context(tls: Path | ssl.SSLContext | None) -> ssl.SSLContext | None:
    if not isinstance(tls, Path):
        return tls
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls)
    return context


# ---------------------------------------------------------------------------------------------------
# HTTP: requests, responses, resources


class Headers:
    """Header fields in their order, found by name in any case; a missing one is None."""

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self._items = list(items)

    def __getitem__(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._items)

    def __repr__(self) -> str:
        return f"Headers({self._items!r})"

    def all(self, name: str) -> list[str]:
        return [value for key, value in self._items if key.lower() == name.lower()]

    def set(self, name: str, value: str | None) -> None:
        """Replace every field of that name in place; None removes it."""
        names = [key.lower() for key, _ in self._items]
        at = names.index(name.lower()) if name.lower() in names else len(names)
        self._items = [item for item in self._items if item[0].lower() != name.lower()]
        if value is not None:
            self._items.insert(at, (name, value))

    def extend(self, items: Iterable[tuple[str, str]]) -> None:
        """Add fields, also of names that are there."""
        self._items += items

    def without(self, *names: str) -> Headers:
        left_out = {name.lower() for name in names}
        return Headers(item for item in self._items if item[0].lower() not in left_out)


@dataclasses.dataclass
class Request:
    """What a client asked, and what it got so far. Only the connection's thread writes it."""

    method: str
    target: str
    version: str
    headers: Headers
    body: bytes
    connection: int
    """Number of the connection, from 1."""
    time: float
    """`time.monotonic()` at which the head was complete."""
    status: int = 0
    """The last status sent; 0 before."""
    body_sent: int = 0
    """Bytes of the body handed to the kernel, framing not counted. Exact, unless a send is blocked just
    now: then what it was given (at most PIECE) counts, until the connection ends."""

    @property
    def path(self) -> str:
        return _split_target(self.target)[0]

    @property
    def query(self) -> str:
        return _split_target(self.target)[1]

    @property
    def range(self) -> str | None:
        return self.headers["Range"]

    @property
    def range_start(self) -> int | None:
        """First byte asked for by a range `bytes=<start>-`, else None."""
        match = re.match(r"bytes=(\d+)-", self.range or "")
        return int(match[1]) if match else None


def _split_target(target: str) -> tuple[str, str]:
    """Path and query, also of a target in absolute form."""
    if not target.startswith("/"):
        target = "/" + target.partition("://")[2].partition("/")[2]
    path, _, query = target.partition("?")
    return path, query


@dataclasses.dataclass(frozen=True)
class Resource:
    """What stands under a path."""

    body: Body
    etag: str | None
    last_modified: str | None
    ranges: bool = True
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str | None = "application/octet-stream"
    chunked: bool = False
    length: bool = True
    """False, and not chunked: the body ends where the connection ends."""
    encoding: str | None = None
    status: int = 200
    keep_alive: bool = True


@dataclasses.dataclass
class Response:
    """What is about to be sent: behaviours alter it through `exchange.alter`."""

    status: int
    headers: Headers
    body: Body
    start: int = 0
    stop: int = 0
    chunked: bool = False
    close: bool = False
    """Close the connection behind it."""


Behaviour = Callable[["Exchange"], None]


class Exchange:
    """One request and its answer, in the hands of the behaviours of its resource."""

    def __init__(
        self, server: Server, connection: Connection, request: Request, number: int, route: Route
    ) -> None:
        self.server = server
        self.connection = connection
        self.request = request
        """As the behaviours want it seen; `server.requests` keeps what was received."""
        self.number = number
        """How many requests this resource had before, from 0."""
        self.resource = route.resource
        self.route = route
        self.close = False
        """Close the connection after this exchange."""
        self.rewrite: Callable[[bytes], bytes] = bytes
        """What becomes of the head before it is sent."""
        self.each: tuple[int, Callable[[], None]] | None = None
        """Stop after each so many bytes of the body and call this."""
        self._received = request
        self._behaviours = list(route.behaviours)
        self._alterations: list[Callable[[Response], None]] = []
        self._body_marks: dict[int, list[Callable[[], None]]] = {}
        self._head_marks: dict[int, list[Callable[[], None]]] = {}

    # Raw means

    def send(self, data: bytes) -> None:
        """Send just these bytes."""
        self.connection.send(data)

    def head(self, status: int, headers: HeaderFields = (), reason: str | None = None) -> None:
        """Send a status line and just these headers."""
        self._received.status = status
        self.send(_head_bytes(status, Headers(_pairs(headers)), reason))

    def cut(self) -> None:
        """Close the connection, here and now; over TLS without close_notify."""
        self.connection.close()
        raise HungUpError("cut")

    def reset(self) -> None:
        """Close the connection with a RST. What the client has not read yet may be lost."""
        self.connection.reset()
        raise HungUpError("reset")

    def wait(self, gate: Gate | None) -> None:
        """Wait for the gate; ends with HungUpError if the client or the server goes away first.

        None is a gate that never opens.
        """
        if gate:
            gate.wait(self.connection)
        else:
            self.connection.wait_for()

    def pause(self, seconds: float) -> None:
        self.connection.wait_for(timeout=seconds)

    def wait_hung_up(self) -> None:
        """Until the client goes away."""
        self.connection.wait_hung_up()

    # Arranging

    def alter(self, alteration: Callable[[Response], None]) -> None:
        """Change the response just before it is sent."""
        self._alterations.append(alteration)

    def at_body(self, position: int, action: Callable[[], None]) -> None:
        """Call `action` when exactly so many bytes of this response's body are sent."""
        self._body_marks.setdefault(position, []).append(action)

    def at_head(self, position: int, action: Callable[[], None]) -> None:
        """Call `action` when so many bytes of the head are sent; negative counts from its end."""
        self._head_marks.setdefault(position, []).append(action)

    def go_on(self) -> None:
        """The next behaviour, or after the last one the resource as it is."""
        if self._behaviours:
            self._behaviours.pop(0)(self)
        else:
            self.deliver(respond(self.resource, self.request))

    # Answering

    def reply(self, status: int, headers: HeaderFields = (), body: bytes | str | Body = b"") -> None:
        """A correct answer with this content."""
        content = as_body(body)
        fields = Headers([("Date", _now()), *_pairs(headers)])
        if "Content-Length" not in fields and status not in (204, 304):
            fields.set("Content-Length", str(content.size))
        self.deliver(Response(status, fields, content, 0, content.size))

    def deliver(self, response: Response) -> None:
        for alteration in self._alterations:
            alteration(response)
        if self.close or not self.resource.keep_alive:
            response.close = True
        if response.close:
            response.headers.set("Connection", "close")
        self.close = response.close
        self._received.status = response.status
        self._send_head(self.rewrite(_head_bytes(response.status, response.headers)))
        if self.request.method != "HEAD" and response.status not in (204, 304):
            self._send_body(response)

    def _send_head(self, head: bytes) -> None:
        size = len(head)
        marks = {at if at >= 0 else size + at: actions for at, actions in self._head_marks.items()}
        sent = 0
        for at in sorted(mark for mark in marks if mark <= size):
            self.send(head[sent:at])
            sent = at
            _call(marks[at])
        self.send(head[sent:])

    def _send_body(self, response: Response) -> None:
        size = response.stop - response.start
        marks = sorted(at for at in self._body_marks if at <= size)
        step, between = self.each or (size, _nothing)
        at = 0
        _call(self._body_marks.get(0, ()))
        while at < size:
            stop = min(size, at - at % step + step, *(mark for mark in marks if mark > at))
            self._send_slice(response, response.start + at, response.start + stop)
            at = stop
            _call(self._body_marks.get(at, ()))
            if at % step == 0 and at < size:
                between()
        if response.chunked:
            self.send(b"0\r\n\r\n")

    def _send_slice(self, response: Response, start: int, stop: int) -> None:
        is_tls = isinstance(self.connection.sock, ssl.SSLSocket)
        match response.body:
            case File(path) if not response.chunked and not is_tls:
                self._send_file(path, start, stop)
            case body:
                send = self._send_chunks if response.chunked else self._send_plain
                for piece in body.pieces(start, stop):
                    send(memoryview(piece))

    def _send_file(self, path: Path, start: int, stop: int) -> None:
        with path.open("rb") as file:
            while start < stop:
                n = min(PIECE, stop - start)
                sent = self._counted(n, functools.partial(_send_from, self.connection.sock, file, start, n))
                if not sent:
                    raise EOFError(f"{path} became shorter while it was served")
                start += sent

    def _send_plain(self, piece: memoryview) -> None:
        while piece:
            sent = self._counted(len(piece), functools.partial(self.connection.sock.send, piece))
            piece = piece[sent:]

    def _send_chunks(self, piece: memoryview) -> None:
        for at in range(0, len(piece), CHUNK):
            chunk = bytes(piece[at : at + CHUNK])
            self._counted(len(chunk), functools.partial(self._send_chunk, chunk))

    def _send_chunk(self, chunk: bytes) -> int:
        self.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        return len(chunk)

    def _counted(self, n: int, send: Callable[[], int]) -> int:
        """Count, then send, then take back what was not sent.

        In this order, because a client that has received the last byte may look at the count at once.
        """
        sent = 0
        self._received.body_sent += n
        try:
            sent = send()
        finally:
            self._received.body_sent -= n - sent
        return sent


def _nothing() -> None:
    pass


def _call(actions: Iterable[Callable[[], None]]) -> None:
    for action in actions:
        action()


def _pairs(headers: HeaderFields) -> list[tuple[str, str]]:
    items = headers.items() if isinstance(headers, Mapping) else headers
    return [(name, value) for name, value in items if value is not None]


def _head_bytes(status: int, headers: Headers, reason: str | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} {_reason(status) if reason is None else reason}"]
    lines += [f"{name}: {value}" for name, value in headers]
    # Latin-1 cannot hold every text a test may want to send; those travel as UTF-8, as in the wild.
    text = "\r\n".join(lines) + "\r\n\r\n"
    return text.encode("latin-1" if all(ord(c) < 256 for c in text) else "utf-8")


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _now() -> str:
    return email.utils.formatdate(usegmt=True)


# Serving a resource as RFC 9110 wants it


def respond(resource: Resource, request: Request) -> Response:
    """The right answer: preconditions first, then the range."""
    if request.method not in ("GET", "HEAD"):
        refusal = [("Date", _now()), ("Allow", "GET, HEAD"), ("Content-Length", "0")]
        return Response(405, Headers(refusal), Data(b""))
    headers = Headers([("Date", _now()), *_validators(resource), *resource.headers])
    if failed := _failed_precondition(resource, request):
        if failed == 412:
            headers.set("Content-Length", "0")
        return Response(failed, headers, Data(b""))
    if resource.ranges:
        headers.set("Accept-Ranges", "bytes")
    span = _requested_span(resource, request)
    if span is None:
        return _whole(resource, request, headers)
    return _part(resource, headers, *span)


def _whole(resource: Resource, request: Request, headers: Headers) -> Response:
    size = resource.body.size
    response = Response(resource.status, headers, resource.body, 0, size)
    _describe(resource, headers)
    if resource.chunked and request.version == "HTTP/1.1":
        headers.set("Transfer-Encoding", "chunked")
        response.chunked = True
    elif resource.length and not resource.chunked:
        headers.set("Content-Length", str(size))
    else:
        response.close = True
    return response


def _part(resource: Resource, headers: Headers, start: int, stop: int) -> Response:
    size = resource.body.size
    if start >= stop:
        headers.set("Content-Range", f"bytes */{size}")
        headers.set("Content-Length", "0")
        return Response(416, headers, Data(b""))
    _describe(resource, headers)
    headers.set("Content-Range", f"bytes {start}-{stop - 1}/{size}")
    headers.set("Content-Length", str(stop - start))
    return Response(206, headers, resource.body, start, stop)


def _describe(resource: Resource, headers: Headers) -> None:
    if resource.content_type and "Content-Type" not in headers:
        headers.set("Content-Type", resource.content_type)
    if resource.encoding:
        headers.set("Content-Encoding", resource.encoding)


def _validators(resource: Resource) -> list[tuple[str, str]]:
    return _pairs({"ETag": resource.etag, "Last-Modified": resource.last_modified})


def _failed_precondition(resource: Resource, request: Request) -> int | None:
    """412, 304 or None, in the order of RFC 9110, 13.2.2."""
    headers = request.headers
    if (wanted := headers["If-Match"]) is not None:
        if not _matches(wanted, resource.etag, weak=False):
            return 412
    elif (date := headers["If-Unmodified-Since"]) and _is_newer(resource.last_modified, date):
        return 412
    if (known := headers["If-None-Match"]) is not None:
        return 304 if _matches(known, resource.etag, weak=True) else None
    if (date := headers["If-Modified-Since"]) and resource.last_modified:
        return None if _is_newer(resource.last_modified, date) else 304
    return None


def _matches(wanted: str, etag: str | None, *, weak: bool) -> bool:
    if wanted.strip() == "*":
        return True
    if etag is None or (not weak and etag.startswith("W/")):
        return False
    tags = re.findall(r'(?:W/)?"[^"]*"', wanted)
    if not weak:
        return etag in tags
    return etag.removeprefix("W/") in (tag.removeprefix("W/") for tag in tags)


def _is_newer(last_modified: str | None, than: str) -> bool:
    """Whether the resource changed after a date; a date that cannot be read counts as long ago."""
    if last_modified is None:
        return True
    try:
        return email.utils.parsedate_to_datetime(last_modified) > email.utils.parsedate_to_datetime(than)
    except (TypeError, ValueError):
        return True


def _requested_span(resource: Resource, request: Request) -> tuple[int, int] | None:
    """Start and stop of the one range asked for (empty: cannot be satisfied); None for the whole."""
    if not resource.ranges or request.method != "GET" or not request.range:
        return None
    condition = request.headers["If-Range"]
    if condition is not None and not _if_range_holds(resource, condition):
        return None
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", request.range.strip())
    if not match or not (match[1] or match[2]):
        return None  # several ranges or nonsense: a server may ignore the field
    size = resource.body.size
    if not match[1]:
        return max(size - int(match[2]), 0), size
    start = int(match[1])
    last = int(match[2]) if match[2] else size - 1
    if match[2] and last < start:
        return None  # invalid, which is not the same as unsatisfiable
    return start, min(last + 1, size)


def _if_range_holds(resource: Resource, condition: str) -> bool:
    """Strong comparison for a tag, the very same text for a date."""
    if '"' in condition:
        return _matches(condition, resource.etag, weak=False)
    return condition == resource.last_modified


# ---------------------------------------------------------------------------------------------------
# The server


@dataclasses.dataclass
class Route:
    """A resource, its behaviours, and how often it was asked for."""

    resource: Resource
    behaviours: tuple[Behaviour, ...]
    seen: int = 0


class Server(SocketServer):
    """See the module's text. `tls` is a PEM file with key and certificate, or a context."""

    def __init__(
        self, *, host: str = "127.0.0.1", port: int = 0, tls: Path | ssl.SSLContext | None = None
    ) -> None:
        super().__init__(host=host, port=port, tls=tls)
        self._routes: dict[str, Route] = {}
        self._requests: list[Request] = []

    def add(
        self,
        path: str,
        *behaviours: Behaviour,
        body: bytes | str | Path | Body = b"",
        etag: str | None = AUTO,
        last_modified: str | float | None = LAST_MODIFIED,
        ranges: bool = True,
        headers: HeaderFields = (),
        content_type: str | None = "application/octet-stream",
        chunked: bool = False,
        length: bool = True,
        encoding: str | None = None,
        status: int = 200,
        keep_alive: bool = True,
    ) -> str:
        """Put a resource under a path (in place of the one there) and return its URL.

        A path with a query is asked for exactly so; one without answers every query.
        `encoding`: gzip or deflate, applied to the body here and sent whatever the client accepts.
        """
        content = as_body(body)
        if encoding:
            content = Data(compressed(b"".join(content.pieces(0, content.size)), encoding))
        if isinstance(last_modified, (int, float)):
            last_modified = email.utils.formatdate(last_modified, usegmt=True)
        resource = Resource(
            body=content,
            etag=f'"{content.tag()}"' if etag == AUTO else etag,
            last_modified=last_modified,
            ranges=ranges,
            headers=tuple(_pairs(headers)),
            content_type=content_type,
            chunked=chunked,
            length=length,
            encoding=encoding,
            status=status,
            keep_alive=keep_alive,
        )
        with self._condition:
            self._routes[path] = Route(resource, behaviours)
        return self.url(path)

    def url(self, path: str, *, host: str | None = None, user: str | None = None) -> str:
        """The URL of a path; `host` puts another name in it, `user` is `name:password`."""
        parts = urllib.parse.urlsplit(self.origin)
        netloc = f"{host}:{self.port}" if host else parts.netloc
        return f"{parts.scheme}://{user + '@' if user else ''}{netloc}{path}"

    @property
    def requests(self) -> list[Request]:
        """Every request so far, in the order in which they came."""
        with self._condition:
            return list(self._requests)

    def requests_for(self, path: str) -> list[Request]:
        """Those for a path, with any query (or for a whole target)."""
        return [request for request in self.requests if path in (request.path, request.target)]

    def wait_requests(self, path: str, n: int = 1, timeout: float = DEADLINE) -> list[Request]:
        """Block until a path was asked for `n` times."""

        def came() -> bool:
            return sum(path in (request.path, request.target) for request in self._requests) >= n

        self._wait_for(came, timeout, f"{n} requests for {path}")
        return self.requests_for(path)

    def body_sent(self, path: str) -> int:
        """Bytes of bodies sent for a path in all: what a resume really cost."""
        return sum(request.body_sent for request in self.requests_for(path))

    def handle(self, connection: Connection) -> None:
        while request := read_request(connection):
            route, number = self._register(request)
            exchange = Exchange(self, connection, request, number, route)
            # The behaviours get a copy: what they alter is not what was received.
            exchange.request = dataclasses.replace(request, headers=Headers(request.headers))
            exchange.close = _wants_close(request)
            exchange.go_on()
            if exchange.close:
                return

    def _register(self, request: Request) -> tuple[Route, int]:
        path_and_query = request.path + ("?" + request.query if request.query else "")
        with self._condition:
            route = self._routes.get(path_and_query) or self._routes.get(request.path) or _not_found()
            number = route.seen
            route.seen += 1
            self._requests.append(request)
            self._condition.notify_all()
        return route, number


def _not_found() -> Route:
    return Route(Resource(Data(b""), None, None), (status(404),))


def compressed(data: bytes, encoding: str) -> bytes:
    match encoding:
        case "gzip":
            return gzip.compress(data, mtime=0)
        case "deflate":
            return zlib.compress(data)
        case "identity":
            return data
        case _:
            raise ValueError(f"unknown encoding {encoding}")


def read_request(connection: Connection) -> Request | None:
    """The next request of a connection, None if the client closed it between two."""
    head = connection.read_head()
    if not head:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, version = first.split(" ")
    fields = (line.partition(":") for line in lines)
    headers = Headers((name, value.strip()) for name, _, value in fields)
    body = connection.read(int(headers["Content-Length"] or 0))
    return Request(method, target, version, headers, body, connection.number, time.monotonic())


def _wants_close(request: Request) -> bool:
    wish = (request.headers["Connection"] or "").lower()
    return wish == "close" or (request.version == "HTTP/1.0" and wish != "keep-alive")


# ---------------------------------------------------------------------------------------------------
# Behaviours: which requests they hold for


def arranges(arrange: Callable[Concatenate[Exchange, Arguments], None]) -> Callable[Arguments, Behaviour]:
    """Makes behaviours that arrange something and go on."""

    @functools.wraps(arrange)
    def make(*values: Arguments.args, **options: Arguments.kwargs) -> Behaviour:
        def behave(exchange: Exchange) -> None:
            arrange(exchange, *values, **options)
            exchange.go_on()

        return behave

    return make


def alters(change: Callable[Concatenate[Response, Arguments], None]) -> Callable[Arguments, Behaviour]:
    """Makes behaviours that change the answer just before it is sent."""

    @functools.wraps(change)
    def make(*values: Arguments.args, **options: Arguments.kwargs) -> Behaviour:
        def behave(exchange: Exchange) -> None:
            exchange.alter(lambda response: change(response, *values, **options))
            exchange.go_on()

        return behave

    return make


@arranges
def when(exchange: Exchange, condition: Callable[[Exchange], bool], *behaviours: Behaviour) -> None:
    """Only for the requests for which the condition holds."""
    if condition(exchange):
        exchange._behaviours[:0] = behaviours


def first(n: int, *behaviours: Behaviour) -> Behaviour:
    """Only for the first `n` requests for the resource."""
    return when(lambda exchange: exchange.number < n, *behaviours)


def after(n: int, *behaviours: Behaviour) -> Behaviour:
    """Only from request `n` on, counted from 0: the first `n` go by untouched."""
    return when(lambda exchange: exchange.number >= n, *behaviours)


def on_range(*behaviours: Behaviour, start: int | None = None) -> Behaviour:
    """Only for requests with a range (that starts just there)."""

    def matches(exchange: Exchange) -> bool:
        request = exchange.request
        return request.range is not None if start is None else request.range_start == start

    return when(matches, *behaviours)


# Behaviours: time


@arranges
def stall_before_headers(exchange: Exchange, gate: Gate | None = None) -> None:
    exchange.wait(gate)


@arranges
def stall_in_headers(exchange: Exchange, gate: Gate | None = None, position: int = 20) -> None:
    """Stop inside the head, after so many bytes (negative: so many before its end)."""
    exchange.at_head(position, lambda: exchange.wait(gate))


@arranges
def stall_after(exchange: Exchange, n: int, gate: Gate | None = None) -> None:
    """Stop when `n` bytes of the body are out (0: after the head), then go on."""
    exchange.at_body(n, lambda: exchange.wait(gate))


@arranges
def drip(exchange: Exchange, bytes_each: int, pace: Gate | float) -> None:
    """So many bytes at a time; between them a wait for the gate (`gate.step()`) or some seconds."""
    exchange.each = bytes_each, functools.partial(_keep_pace, exchange, pace)


def _keep_pace(exchange: Exchange, pace: Gate | float) -> None:
    if isinstance(pace, Gate):
        exchange.wait(pace)
    else:
        exchange.pause(pace)


@arranges
def drip_headers(exchange: Exchange, pace: Gate | float, bytes_each: int = 1) -> None:
    """The head so many bytes at a time."""
    for position in range(bytes_each, CHUNK, bytes_each):  # those beyond the head do not count
        exchange.at_head(position, functools.partial(_keep_pace, exchange, pace))


# Behaviours: connections that break


@arranges
def cut_after(exchange: Exchange, n: int) -> None:
    """Close when exactly `n` bytes of the body are out (0: after the head)."""
    exchange.at_body(n, exchange.cut)


@arranges
def reset_after(exchange: Exchange, n: int) -> None:
    """As `cut_after`, with a RST; the client may lose bytes that it has not read yet."""
    exchange.at_body(n, exchange.reset)


def cut_before_headers(exchange: Exchange) -> None:
    """As a server that closes an idle connection just when the next request comes."""
    exchange.cut()


def reset_before_headers(exchange: Exchange) -> None:
    exchange.reset()


@arranges
def cut_in_headers(exchange: Exchange, position: int = 20) -> None:
    exchange.at_head(position, exchange.cut)


def close_unannounced(exchange: Exchange) -> None:
    """A whole answer, then a close that no header announced."""
    exchange.go_on()
    exchange.cut()


def short_body(missing: int = 1) -> Behaviour:
    """The length is right, the body ends that much too early, with an orderly close."""

    def behave(exchange: Exchange) -> None:
        def shorten(response: Response) -> None:
            response.stop = max(response.stop - missing, response.start)

        exchange.alter(shorten)
        exchange.go_on()
        exchange.close = True

    return behave


def limit_connections(n: int, code: int = 503) -> Behaviour:
    """At most `n` requests for the resource at a time, the others are refused."""
    slots = threading.Semaphore(n)

    def behave(exchange: Exchange) -> None:
        if not slots.acquire(blocking=False):
            exchange.reply(code)
            return
        with contextlib.ExitStack() as slot:
            slot.callback(slots.release)

            def leave_before_last_byte(response: Response) -> None:
                # Not behind it: a client that has it may come again at once, on another connection.
                exchange.at_body(max(response.stop - response.start - 1, 0), slot.close)

            exchange.alter(leave_before_last_byte)
            exchange.go_on()

    return behave


# Behaviours: other answers


def status(code: int, headers: HeaderFields = (), body: bytes | str = b"") -> Behaviour:
    """Always this answer."""
    return lambda exchange: exchange.reply(code, headers, body)


def fail_times(n: int, code: int = 503, headers: HeaderFields = (), body: bytes | str = b"") -> Behaviour:
    """This answer `n` times (with a Retry-After among the headers, perhaps), then what follows."""
    return first(n, status(code, headers, body))


def redirect(to: str, code: int = 302) -> Behaviour:
    """To a path or URL; to the resource's own path it is a loop."""
    return status(code, {"Location": to})


def redirect_chain(n: int, to: str, code: int = 302) -> Behaviour:
    """`n` redirects in all, each to a URL not seen before, the last one to `to`."""

    def behave(exchange: Exchange) -> None:
        hop = int(exchange.request.query.removeprefix("hop=") or 0) + 1
        exchange.reply(code, {"Location": to if hop >= n else f"{exchange.request.path}?hop={hop}"})

    return behave


def redirect_forever(exchange: Exchange) -> None:
    """Redirects without end, each to a URL not seen before."""
    hop = int(exchange.request.query.removeprefix("hop=") or 0) + 1
    exchange.reply(302, {"Location": f"{exchange.request.path}?hop={hop}"})


def html_instead(text: str = "<!DOCTYPE html><html><body>Please sign in</body></html>") -> Behaviour:
    return status(200, {"Content-Type": "text/html; charset=utf-8"}, text)


def basic_auth(user: str, password: str) -> Behaviour:
    wanted = _basic(user, password)

    def behave(exchange: Exchange) -> None:
        if exchange.request.headers["Authorization"] == wanted:
            exchange.go_on()
        else:
            exchange.reply(401, {"WWW-Authenticate": 'Basic realm="test"'}, b"who are you?")

    return behave


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


# Behaviours: lengths, ranges and validators


@alters
def with_headers(response: Response, headers: HeaderFields) -> None:
    """Replace fields of the answer, whatever they say; None removes one."""
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        response.headers.set(name, value)


@alters
def add_headers(response: Response, *fields: tuple[str, str]) -> None:
    """Fields beside those that are there, also of the same names."""
    response.headers.extend(fields)


@arranges
def rewrite_head(exchange: Exchange, change: Callable[[bytes], bytes]) -> None:
    """The head in other bytes."""
    exchange.rewrite = change


def wrong_length(delta: int) -> Behaviour:
    """Content-Length is off by `delta`, the body is whole, then the connection is closed."""

    def behave(exchange: Exchange) -> None:
        def lie(response: Response) -> None:
            response.headers.set("Content-Length", str(response.stop - response.start + delta))

        exchange.alter(lie)
        exchange.go_on()
        exchange.close = True

    return behave


@alters
def content_range(response: Response, text: str | None) -> None:
    """On every 206 this Content-Range (None: none at all); {start}, {last} and {size} are filled in."""
    if response.status == 206:
        values = {"start": response.start, "last": response.stop - 1, "size": response.body.size}
        response.headers.set("Content-Range", text and text.format(**values))


@alters
def lying_content_range(response: Response, shift: int = 1) -> None:
    """A 206 whose Content-Range lies `shift` bytes further on than what was asked and is sent."""
    if response.status == 206:
        span = f"{response.start + shift}-{response.stop - 1 + shift}"
        response.headers.set("Content-Range", f"bytes {span}/{response.body.size}")


@alters
def other_size_on_range(response: Response, delta: int = 1) -> None:
    """A 206 names another complete size than the 200 did."""
    if response.status == 206:
        size = response.body.size + delta
        response.headers.set("Content-Range", f"bytes {response.start}-{response.stop - 1}/{size}")


def changed(
    after_requests: int = 1,
    *,
    etag: str | None = '"changed"',
    last_modified: str | None = "Thu, 02 Jan 2020 00:00:00 GMT",
    body: bytes | str | Path | Body | None = None,
) -> Behaviour:
    """From that request on the resource is another one: validators, and the body if one is given."""

    def change(exchange: Exchange) -> None:
        content = exchange.resource.body if body is None else as_body(body)
        exchange.resource = dataclasses.replace(
            exchange.resource, etag=etag, last_modified=last_modified, body=content
        )
        exchange.go_on()

    return after(after_requests, change)


def ignore_range(exchange: Exchange) -> None:
    """A 200 with everything, though the server said it takes ranges."""
    exchange.request.headers = exchange.request.headers.without("Range", "If-Range")
    exchange.go_on()


def drops_range_when_if_range(exchange: Exchange) -> None:
    """As some CDNs: a range with If-Range gets a 200, under the very same validator."""
    if "If-Range" in exchange.request.headers:
        ignore_range(exchange)
    else:
        exchange.go_on()


def ignores_if_range(exchange: Exchange) -> None:
    """A 206 though the validator in If-Range is not the resource's any more."""
    exchange.request.headers = exchange.request.headers.without("If-Range")
    exchange.go_on()


def status_416(exchange: Exchange) -> None:
    """A 416 to every range."""
    if exchange.request.range is None:
        exchange.go_on()
    else:
        exchange.reply(416, {"Content-Range": f"bytes */{exchange.resource.body.size}"})


@alters
def garble_overlap(response: Response, n: int | None = None) -> None:
    """A range that does not start at 0 brings other bytes (its first `n`, or all), same validator."""
    if response.status == 206 and response.start > 0:
        stop = response.stop if n is None else response.start + n
        response.body = Garbled(response.body, response.start, stop)


@alters
def garble_at(response: Response, position: int) -> None:
    """Each range has another byte there, under the same validator."""
    if response.status == 206:
        response.body = Garbled(response.body, position, position + 1)


# Behaviours: heads and codings


def informational(*codes: int, times: int = 1, gate: Gate | None = None) -> Behaviour:
    """Answers 100, 102, 103 … first, the whole row `times` times; then a wait for the gate, if any."""
    row = b"".join(_head_bytes(code, Headers()) for code in codes or (100, 102, 103))

    def behave(exchange: Exchange) -> None:
        exchange.send(row * times)
        if gate:
            exchange.wait(gate)
        exchange.go_on()

    return behave


def endless_informational(code: int = 102, pace: Gate | float = 0.0) -> Behaviour:
    """Informational answers and nothing else, until the client goes."""
    answer = _head_bytes(code, Headers())
    return lambda exchange: _send_forever(exchange, lambda _: answer, pace)


def endless_headers(pace: Gate | float = 0.0) -> Behaviour:
    """A head that never ends, many fields at once where it has no pace."""
    fields = b"".join(b"X-%d: %b\r\n" % (i, b"x" * 64) for i in range(1 if pace else 100))

    def behave(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\n")
        _send_forever(exchange, lambda _: fields, pace)

    return behave


def long_header(n: int = 1 << 20) -> Behaviour:
    """One header field of `n` bytes."""
    return with_headers({"X-Long": "x" * n})


def endless_body(pace: Gate | float = 0.0) -> Behaviour:
    """No length, and a body that never ends."""

    def behave(exchange: Exchange) -> None:
        exchange.head(200, {"Content-Type": "application/octet-stream", "Connection": "close"})
        _send_forever(exchange, lambda _: b"x" * CHUNK, pace)

    return behave


def _send_forever(exchange: Exchange, make: Callable[[int], bytes], pace: Gate | float) -> None:
    for i in itertools.count():
        exchange.send(make(i))
        if pace:
            _keep_pace(exchange, pace)


def gzip_body(exchange: Exchange) -> None:
    """The body in gzip, whatever the client accepts."""
    resource = exchange.resource
    content = Data(compressed(b"".join(resource.body.pieces(0, resource.body.size)), "gzip"))
    exchange.resource = dataclasses.replace(resource, body=content, encoding="gzip")
    exchange.go_on()


def gzip_bomb(size: int = 1 << 30) -> Behaviour:
    """A gzip stream, a thousandth as long, that unpacks to `size` zeros (whole MiB)."""
    return lambda exchange: exchange.reply(200, {"Content-Encoding": "gzip"}, gzip_zeros(size))


@functools.lru_cache(maxsize=4)
def gzip_zeros(size: int) -> bytes:
    """Made from one block that is compressed once and repeated: a full flush makes it stand alone."""
    if size % PIECE:
        raise ValueError("whole MiB only")
    zeros = bytes(PIECE)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = functools.reduce(lambda crc, _: zlib.crc32(zeros, crc), range(size // PIECE), 0)
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    return head + block * (size // PIECE) + packer.flush() + struct.pack("<II", checksum, size & 0xFFFFFFFF)


BAD_CHUNKS = {
    "size": b"4\r\nabcd\r\nxyz\r\nabcd\r\n0\r\n\r\n",
    "negative": b"4\r\nabcd\r\n-4\r\nabcd\r\n0\r\n\r\n",
    "huge": b"4\r\nabcd\r\nffffffffffffffff\r\nabcd",
    "empty": b"4\r\nabcd\r\n\r\nabcd\r\n0\r\n\r\n",
    "no_end": b"4\r\nabcd\r\n4\r\nabcd\r\n",
    "in_chunk": b"4\r\nabcd\r\n4\r\nab",
    "too_long": b"4\r\nabcdefgh\r\n0\r\n\r\n",
    "endless_size": b"4\r\nabcd\r\n" + b"0" * (1 << 17),
}


def bad_chunks(kind: str = "size") -> Behaviour:
    """A chunked body that is broken after "abcd" in one of the ways of BAD_CHUNKS, then a close."""
    wire = BAD_CHUNKS[kind]

    def behave(exchange: Exchange) -> None:
        exchange.head(200, {"Transfer-Encoding": "chunked", "ETag": exchange.resource.etag})
        exchange.send(wire)
        exchange.close = True

    return behave


def raw(*parts: bytes) -> Behaviour:
    """Just these bytes, then a close."""

    def behave(exchange: Exchange) -> None:
        for part in parts:
            exchange.send(part)
        exchange.close = True

    return behave


# ---------------------------------------------------------------------------------------------------
# A forward proxy


class Proxy(SocketServer):
    """Forwards plain requests and CONNECT; `user` and `password` make it ask for Basic.

    `hosts` maps names to addresses, so that a test can use names that exist nowhere. `connect_status`
    other than 200 refuses every CONNECT.
    """

    def __init__(
        self,
        *,
        user: str | None = None,
        password: str = "",
        hosts: Mapping[str, tuple[str, int]] | None = None,
        connect_status: int = 200,
        host: str = "127.0.0.1",
        tls: Path | ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(host=host, tls=tls)
        self._wanted = _basic(user, password) if user else None
        self._user = f"{user}:{password}@" if user else ""
        self._hosts = hosts or {}
        self._connect_status = connect_status
        self._requests: list[Request] = []

    @property
    def url(self) -> str:
        """For `http_proxy`, with user and password if it asks for them."""
        return self.origin.replace("://", f"://{self._user}")

    @property
    def requests(self) -> list[Request]:
        """What the proxy was asked, also what it refused; not what went through a tunnel."""
        with self._condition:
            return list(self._requests)

    def wait_requests(self, n: int = 1, timeout: float = DEADLINE) -> list[Request]:
        """Block until the proxy was asked `n` times."""
        self._wait_for(lambda: len(self._requests) >= n, timeout, f"{n} requests")
        return self.requests

    def handle(self, connection: Connection) -> None:
        while request := read_request(connection):
            with self._condition:
                self._requests.append(request)
                self._condition.notify_all()
            if self._wanted and request.headers["Proxy-Authorization"] != self._wanted:
                _proxy_error(connection, request, 407)
            elif request.method == "CONNECT":
                self._tunnel(connection, request)
                return
            else:
                self._forward(connection, request)
                return

    def _tunnel(self, connection: Connection, request: Request) -> None:
        if self._connect_status != 200:
            _proxy_error(connection, request, self._connect_status)
            return
        host, _, port = request.target.rpartition(":")
        with self._upstream(connection, request, host.strip("[]"), int(port)) as upstream:
            request.status = 200
            connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            _relay(connection, upstream)

    def _forward(self, connection: Connection, request: Request) -> None:
        url = urllib.parse.urlsplit(request.target)
        if url.scheme != "http" or not url.hostname:
            _proxy_error(connection, request, 400)
            return
        # One request for each connection: the end of the answer is then the end of the stream.
        headers = request.headers.without("Proxy-Authorization", "Proxy-Connection", "Connection")
        lines = [f"{request.method} {url.path or '/'}{'?' + url.query if url.query else ''} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in (*headers, ("Connection", "close"))]
        with self._upstream(connection, request, url.hostname, url.port or 80) as upstream:
            upstream.sendall("\r\n".join((*lines, "", "")).encode("latin-1") + request.body)
            _relay(connection, upstream)

    @contextlib.contextmanager
    def _upstream(
        self, connection: Connection, request: Request, host: str, port: int
    ) -> Iterator[socket.socket]:
        address = self._hosts.get(host, (host, port))
        family, *_, resolved = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as upstream:
            upstream.setblocking(False)
            if upstream.connect_ex(resolved) in (errno.EINPROGRESS, errno.EWOULDBLOCK):
                connection.wait_for(upstream, WRITE)
            if upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                _proxy_error(connection, request, 502)
                raise HungUpError("nobody answers there")
            upstream.setblocking(True)
            yield upstream


def _proxy_error(connection: Connection, request: Request, code: int) -> None:
    request.status = code
    fields = [("Content-Length", "0")]
    if code == 407:
        fields.append(("Proxy-Authenticate", 'Basic realm="proxy"'))
    connection.send(_head_bytes(code, Headers(fields)))


def _relay(connection: Connection, upstream: socket.socket) -> None:
    """Bytes both ways until one side closes."""
    upstream.sendall(connection.take_pending())
    client = connection.sock
    while not connection.is_shut:  # which is no news to `select` on Windows
        for source in _ready([client, upstream], LOOK):
            target = upstream if source is client else client
            data = source.recv(CHUNK)
            # A TLS socket may hold bytes that poll cannot see.
            if isinstance(source, ssl.SSLSocket) and (held := source.pending()):
                data += source.recv(held)
            if not data:
                return
            target.sendall(data)


# ---------------------------------------------------------------------------------------------------
# Ports where nobody answers


@contextlib.contextmanager
def unreachable_port(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A port where connecting hangs: Linux drops the SYN while the queue of a listener is full.

    With `host="::1"` and the port of a server on 127.0.0.1, `localhost` has one dead address. When it
    ends, a client that still tries is refused at its next SYN.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        address = listener.getsockname()
        # A queue of 0 holds one connection that nobody accepts; one more shows that it is full.
        stack.enter_context(socket.create_connection(address[:2], timeout=DEADLINE))
        probe = stack.enter_context(socket.socket(family))
        probe.setblocking(False)
        if probe.connect_ex(address) not in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            raise RuntimeError("this system accepts connections beyond the backlog")
        yield address[1]


@contextlib.contextmanager
def refused_port(host: str = "127.0.0.1") -> Iterator[int]:
    """A port where connecting is refused, and that nobody else can take meanwhile."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        yield sock.getsockname()[1]


# ---------------------------------------------------------------------------------------------------
# Certificates


@dataclasses.dataclass(frozen=True)
class Certificates:
    """PEM files; all but the authorities hold key and certificate, for `Server(tls=…)`."""

    ca: Path
    """For clients: `verify=`, REQUESTS_CA_BUNDLE, curl --cacert."""
    good: Path
    """For LOCAL_NAMES."""
    expired: Path
    not_yet_valid: Path
    wrong_host: Path
    self_signed: Path
    """For localhost too, but of another authority."""
    loose_ca: Path
    loose: Path
    """For LOCAL_NAMES, by an authority as virus scanners make theirs: VERIFY_X509_STRICT takes neither."""

    @classmethod
    def in_folder(cls, folder: Path) -> Self:
        """Those that `make_certificates` left there."""
        return cls(*(folder / f"{field.name}.pem" for field in dataclasses.fields(cls)))

    def client_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # set by older Pythons
        return context


LOCAL_NAMES = ("localhost", "127.0.0.1", "::1", "files.example", "*.files.example")


def make_certificates(folder: Path) -> Certificates:
    """Make an authority and its certificates. Needs `cryptography`; takes some milliseconds."""
    from cryptography.hazmat.primitives.asymmetric import ec

    ca_key, stranger_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    made = Certificates.in_folder(folder)
    made.ca.write_bytes(_certificate("Test authority", ca_key))
    _write_leaf(made.good, LOCAL_NAMES, "Test authority", ca_key)
    _write_leaf(made.expired, LOCAL_NAMES, "Test authority", ca_key, days=(-20, -10))
    _write_leaf(made.not_yet_valid, LOCAL_NAMES, "Test authority", ca_key, days=(10, 20))
    _write_leaf(made.wrong_host, ("elsewhere.example.org",), "Test authority", ca_key)
    _write_leaf(made.self_signed, LOCAL_NAMES, "Nobody", stranger_key)
    made.loose_ca.write_bytes(_certificate("Scanner", stranger_key, is_strict=False))
    _write_leaf(made.loose, LOCAL_NAMES, "Scanner", stranger_key, is_strict=False)
    return made


def _write_leaf(
    path: Path, names: tuple[str, ...], issuer: str, issuer_key: Any, **options: Any
) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    certificate = _certificate(names[0], key, names=names, issuer=issuer, issuer_key=issuer_key, **options)
    path.write_bytes(secret + certificate)


def _certificate(
    subject: str,
    key: Any,
    *,
    names: tuple[str, ...] = (),
    issuer: str | None = None,
    issuer_key: Any = None,
    days: tuple[int, int] = (-10, 10),
    is_strict: bool = True,
) -> bytes:
    """A certificate, as VERIFY_X509_STRICT wants it (the default from Python 3.13 on) if it is to be."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    signer = issuer_key or key
    today = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_x509_name(subject))
        .issuer_name(_x509_name(issuer or subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today + datetime.timedelta(days=days[0]))
        .not_valid_after(today + datetime.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=is_strict)
    )
    if is_strict:
        ours, theirs = key.public_key(), signer.public_key()
        builder = (
            builder.add_extension(_key_usage(is_authority=not names), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(ours), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(theirs), critical=False)
        )
    if names:
        alternatives = x509.SubjectAlternativeName([_x509_alternative(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _key_usage(*, is_authority: bool) -> Any:
    from cryptography import x509

    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(digital_signature=True, key_cert_sign=is_authority, crl_sign=is_authority, **usage)


def _x509_name(text: str) -> Any:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _x509_alternative(name: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
