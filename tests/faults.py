"""The table of faults: everything that servers do wrong, by name, and how a download that meets it ends.

A fault is a resource with behaviours, or a port with something else behind it. `Lab.stage` sets one up
and returns its link; `Staged.mend` puts the file there as it should be, under the same link.
"""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import functools
import gzip
import itertools
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from server import (
    CHUNK,
    Behaviour,
    Certificates,
    Connection,
    Data,
    Exchange,
    Response,
    Server,
    add_headers,
    after,
    alters,
    arranges,
    bad_chunks,
    changed,
    close_unannounced,
    content_range,
    cut_after,
    cut_before_headers,
    cut_in_headers,
    drip,
    drip_headers,
    drops_range_when_if_range,
    endless_headers,
    endless_informational,
    fail_times,
    first,
    garble_overlap,
    gzip_body,
    gzip_zeros,
    html_instead,
    ignore_range,
    ignores_if_range,
    informational,
    limit_connections,
    long_header,
    lying_content_range,
    on_range,
    other_size_on_range,
    pattern,
    raw,
    redirect,
    redirect_chain,
    redirect_forever,
    refused_port,
    reset_after,
    reset_before_headers,
    rewrite_head,
    short_body,
    stall_after,
    stall_before_headers,
    stall_in_headers,
    status,
    status_416,
    unreachable_port,
    with_headers,
    wrong_length,
)

DATA = b"BLENDER" + pattern(800_000)  # what .blend files begin with
SIZE = len(DATA)
HALF = SIZE // 2
OTHER = b"BLENDER" + pattern(800_000, seed=1)
TAG = '"one"'
DATE = "Wed, 01 Jan 2020 00:00:00 GMT"

# -- How it ends, where it does not end well. {host} is filled in.

TRIED = ". Tried 5 times, try again later"
CUT = "The connection was closed before the file was complete" + TRIED
NO_ANSWER = "The server {host} closed the connection without an answer" + TRIED
RESET = "The connection to {host} was reset" + TRIED
LATER = "Try later, or use your browser"
UNREADABLE = "The server {host} sent an answer that cannot be understood. Tried 5 times. " + LATER
SLOW = ". Tried 5 times. A slow server? Raise the time-out in the System preferences"
LATE = re.compile(  # whether the libraries notice first, or we
    r"The server (127\.0\.0\.1 did not answer in time|did not answer in time \(waiting for the server\))"
    + re.escape(SLOW)
)
LATE_BODY = "The server stopped sending" + TRIED
LATE_CONNECT = re.compile(
    r"The server (127\.0\.0\.1 did not answer in time|did not answer in time \(connecting\))"
    + re.escape(SLOW)
)
REFUSED = "The server {host} refuses connections" + TRIED
MISFIT = "The server sent a file in pieces that do not fit together" + TRIED
DAMAGED = "The server sent the file damaged" + TRIED
ENCODED = "The server packed the file in a way that Blender cannot open. Use your browser"
PART = f"The server sent only a part of the file. {LATER}"
CIRCLES = f"The server sends this download round in circles. {LATER}"
NO_ADDRESS = f"The server sends this download to a place that is not a web address. {LATER}"
UNREADABLE_ADDRESS = f"The server sends this download to an address that cannot be read. {LATER}"
PAGE = (
    "The server sent a web page instead of a file; you may need to sign in."
    " Copy the link of the download button there"
)
DIGEST = (
    "The file is damaged or another one: its checksum differs. Retry downloads it again."
    " If the checksum was wrong, press Replace Link and give the right one: what was received is used"
)
ASK = "Ask whoever looks after this network or the server"
UNTRUSTED = {
    "expired": f"it has expired. Check this computer's clock. {ASK}",
    "wrong_host": f"it is for another server. Check the link. {ASK}",
    "self_signed": f"nobody whom this computer knows vouches for it. {ASK}",
}
INSECURE = f"A secure connection to {{host}} could not be made. Tried 5 times. {LATER}"
NO_TLS = (
    "The server {host} makes no secure connection with Blender: it may want a certificate of yours,"
    " or be too old. Use your browser"
)
PLAIN = (
    "The server {host} does not speak https. Tried 5 times."
    " If the link is to begin with http://, write that before it"
)
NO_SPACE = re.compile(r"Not enough space: .* are needed.*")


REFUSED_WITH = {
    202: "The server is still preparing the file (202)",
    204: "The link gave no file (204). Copy the link of the download button",
    400: "The server does not understand this link (400). Check the link, or copy it again from the page",
    401: "This download needs a user name and a password (401)."
    " Copy a link from the page where you are signed in",
    403: "The server does not allow this download (403). Get a new link: this one may have expired",
    404: "There is no file at this link (404). Check the link, or copy it again from the page",
    407: "The proxy asks for a user name and a password (407)."
    " Write them into its address in the proxy settings of this computer",
    408: "The server gave up waiting (408)",
    410: "The file is no longer at this link (410). Get a new link",
    416: "The server refuses this file (416). Get a new link",
    425: "The server is not ready yet (425)",
    429: "The server asks for fewer downloads at a time (429)",
    451: "The server may not offer this file for legal reasons (451)",
    502: "A server on the way has a problem (502)",
    503: "The server is busy (503)",
    504: "A server on the way did not answer (504)",
    511: "This network asks you to sign in first (511). Open any web page in your browser",
    **dict.fromkeys((521, 522, 523), "The server cannot be reached from the one that speaks for it ({code})"),
    **dict.fromkeys((500, 520, 525, 530, 599, 600, 999), "The server has a problem of its own ({code})"),
    524: "The server did not answer the one that speaks for it (524)",
}


def error(code: int) -> str:
    """What is said of a status."""
    text = REFUSED_WITH.get(code, f"The server answered with an error ({code}). {LATER}")
    return text.replace("{code}", str(code))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong, and how a download ends while it does."""

    name: str
    behaviours: tuple[Behaviour, ...] = ()
    end: str | re.Pattern[str] = ""
    """Empty: the whole file. Else the sentence with which it fails."""
    file: str = "a.bin"
    """The last part of the link, and the name of the file."""
    body: bytes = DATA
    final: bytes | None = None
    """What is right in the end, where that is not the body."""
    digest: bool = False
    """Whether the digest of the body is asked for."""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Of the resource."""
    port: Callable[[Lab, Fault], Staged] | None = None
    """For what goes wrong below HTTP: stages it on a port of its own."""
    is_passing: bool = False
    """Whether any answer may be so, and the next one be right."""
    is_slow: bool = False
    """Whether time-outs are waited for."""

    @property
    def right(self) -> bytes:
        return self.body if self.final is None else self.final

    @property
    def is_busy(self) -> bool:
        """Whether its server refuses requests, as its name says: all that ask the same one learn of that."""
        return re.search("429|503|busy|Retry-After", self.name) is not None


class Staged:
    """A fault that is set up."""

    def __init__(self, server: Server, path: str, url: str) -> None:
        self.server = server
        self.path = path
        self.url = url

    @property
    def requests(self) -> int:
        """How many there were since it was set up, or mended."""
        route = self.server._routes.get(self.path)
        return route.seen if route else 0

    def mend(self, *behaviours: Behaviour, body: bytes) -> None:
        """From now on the file is there as it should be."""
        self.server.add(self.path, *behaviours, body=body, etag='"two"')


class Lab:
    """Where faults are set up; leaving the `with` block ends all of it."""

    def __init__(self, certificates: Certificates) -> None:
        self.certificates = certificates
        self._stack = contextlib.ExitStack()
        self.server = Server()
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        self._open(self.server)
        return self

    def _open(self, server: Server) -> Server:
        self._stack.enter_context(server)
        server.add("/busy", status(503))
        server.add("/sign-in", html_instead())
        return server

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def enter(self, context: contextlib.AbstractContextManager[Any]) -> Any:
        return self._stack.enter_context(context)

    def stage(self, fault: Fault, key: str, *pace: Behaviour, well: int = 0) -> Staged:
        """Set a fault up. `pace` comes first; so many requests are answered `well`."""
        if fault.port:
            return fault.port(self, fault)
        words = re.sub("[^a-z0-9]+", "-", f"{key} {fault.name}".lower())
        path = f"/{next(self._numbers)}-{words}/{fault.file}"  # words alone may be those of another one
        behaviours = (after(well, *fault.behaviours),) if well else fault.behaviours
        options = {"etag": TAG, "last_modified": DATE} | fault.options
        server = self._open(Server()) if fault.is_busy else self.server
        return Staged(server, path, server.add(path, *pace, *behaviours, body=fault.body, **options))


# -- Words for the table.


def whole(name: str, *behaviours: Behaviour, **options: Any) -> Fault:
    return _fault(name, "", behaviours, options)


def fails(name: str, end: str | re.Pattern[str], *behaviours: Behaviour, **options: Any) -> Fault:
    return _fault(name, end, behaviours, options)


def _fault(name: str, end: str | re.Pattern[str], behaviours: Any, options: dict[str, Any]) -> Fault:
    own = {field.name for field in dataclasses.fields(Fault)}
    mine = {key: options.pop(key) for key in list(options) if key in own}
    return Fault(name=name, end=end, behaviours=tuple(behaviours), options=options, **mine)


def both(name: str, end: str | re.Pattern[str], *behaviours: Behaviour, **options: Any) -> Iterator[Fault]:
    """Once, which costs nothing, and always."""
    yield whole(f"{name}, once", first(1, *behaviours), **options)
    yield fails(f"{name}, always", end, *behaviours, is_passing=True, **options)


def resumed(name: str, *behaviours: Behaviour, **options: Any) -> Fault:
    """Cut in the middle; what comes then meets this. It is fetched whole all the same."""
    return whole(name, first(1, cut_after(HALF)), after(1, *behaviours), **options)


def resumed_fails(name: str, end: str | re.Pattern[str], *behaviours: Behaviour, **options: Any) -> Fault:
    return fails(name, end, first(1, cut_after(HALF)), after(1, *behaviours), **options)


def answer(*lines: str, start: str = "HTTP/1.1 200 OK", body: bytes = DATA) -> Behaviour:
    """These lines and this body, then a close."""
    return raw("\r\n".join((start, *lines, "", "")).encode("latin-1"), body)


def behind_each_value(more: bytes) -> Behaviour:
    """White space that is none of the values."""
    return rewrite_head(lambda head: re.sub(rb"(?m)^(\S+?:.*?)\r\n", rb"\1" + more + b"\r\n", head))


def before_each_value(more: bytes) -> Behaviour:
    return rewrite_head(lambda head: re.sub(rb"(?m)^(\S+?: )", rb"\1" + more, head))


def replaced(old: bytes, new: bytes) -> Behaviour:
    """The right head with something else in one place."""
    return rewrite_head(lambda head: head.replace(old, new, 1))


def inserted(line: bytes) -> Behaviour:
    """A line right behind the status line."""
    return replaced(b"\r\n", b"\r\n" + line + b"\r\n")


def coded(coding: str, data: bytes) -> Behaviour:
    """These bytes, said to be so."""
    return status(200, {"Content-Encoding": coding, "ETag": TAG}, data)


def gzipped(data: bytes) -> Behaviour:
    return coded("gzip", data)


def two_codings(data: bytes) -> Behaviour:
    """As two fields, which are one list (RFC 9110, section 5.3)."""
    lines = ("Content-Encoding: deflate", "Content-Encoding: gzip", f"Content-Length: {len(data)}")
    return answer(*lines, body=data)


def chunks_of_gzip(data: bytes) -> Behaviour:
    return chunked(*(chunk(data[at : at + 5000]) for at in range(0, len(data), 5000)), LAST,
                   headers=f"{CHUNKED}\r\nContent-Encoding: gzip")  # fmt: skip


CHUNKED = "Transfer-Encoding: chunked"


def chunked(*parts: bytes, headers: str = CHUNKED) -> Behaviour:
    return answer(headers, f"ETag: {TAG}", body=b"".join(parts))


def chunk(data: bytes, size: str = "%x\r\n", end: bytes = b"\r\n") -> bytes:
    return (size % len(data)).encode() + data + end


def drips_on(body: bytes) -> Behaviour:
    """So much in chunks, then a letter at a time until the client has enough."""

    def behave(exchange: Exchange) -> None:
        exchange.send(f"HTTP/1.1 200 OK\r\n{CHUNKED}\r\nETag: {TAG}\r\n\r\n".encode() + body)
        while True:
            exchange.pause(0.05)
            exchange.send(b"x")

    return behave


LAST = b"0\r\n\r\n"
LENGTH = f"Content-Length: {SIZE}"


def cookie_trap(exchange: Exchange) -> None:
    """Redirects to itself until its cookie comes back."""
    if exchange.request.headers["Cookie"]:
        exchange.go_on()
    else:
        exchange.reply(302, {"Location": exchange.request.target, "Set-Cookie": "seen=1; Path=/"})


def new_tag_each_time(exchange: Exchange) -> None:
    """Another ETag and date for each request, though the bytes stay."""
    number = exchange.number
    exchange.resource = dataclasses.replace(
        exchange.resource, etag=f'"{number}"', last_modified=f"Wed, 01 Jan 2020 00:00:{number % 60:02} GMT"
    )
    exchange.go_on()


@alters
def only_part(response: Response, count: int) -> None:
    """A range is answered with at most so many bytes of it, and says so."""
    if response.status == 206:
        response.stop = min(response.stop, response.start + count)
        text = f"bytes {response.start}-{response.stop - 1}/{response.body.size}"
        response.headers.set("Content-Range", text)
        response.headers.set("Content-Length", str(response.stop - response.start))


@arranges
def from_elsewhere(exchange: Exchange, start: int) -> None:
    """Whatever range was asked for, the one from `start` on comes, and says so."""
    exchange.request.headers.set("Range", f"bytes={start}-")


def several_ranges(exchange: Exchange) -> None:
    """A 206 in parts, as for several ranges."""
    part = f"--x\r\nContent-Range: bytes 0-{SIZE - 1}/{SIZE}\r\n\r\n".encode() + DATA + b"\r\n--x--\r\n"
    exchange.reply(206, {"Content-Type": "multipart/byteranges; boundary=x", "ETag": TAG}, part)


def leftovers(data: bytes) -> Behaviour:
    """The right answer, and more in the same breath over the same connection, which stays open.

    What comes later nobody could tell from the answer to the next request.
    """

    def behave(exchange: Exchange) -> None:
        def hold_back(response: Any) -> None:
            if response.stop > response.start:
                response.stop -= 1
                last = b"".join(response.body.pieces(response.stop, response.stop + 1))
                exchange.at_body(response.stop - response.start, lambda: exchange.send(last + data))

        exchange.alter(hold_back)
        exchange.go_on()

    return behave


def with_body(code: int, data: bytes) -> Behaviour:
    """An error without a body, it says, and then these bytes over the same connection."""

    def behave(exchange: Exchange) -> None:
        exchange.reply(code)
        exchange.send(data)

    return behave


def stay_open(exchange: Exchange) -> None:
    """ "Connection: close" is said, but nobody closes."""
    exchange.alter(lambda response: response.headers.set("Connection", "close"))
    exchange.go_on()
    exchange.wait_hung_up()


def redirect_to_itself(code: int = 302, more: str = "") -> Behaviour:
    return lambda exchange: exchange.reply(code, {"Location": exchange.request.path + more})


def two_locations(exchange: Exchange) -> None:
    here = exchange.request.path
    exchange.reply(302, [("Location", here + "?first"), ("Location", "/nothing-here")])


def chunks_of(count: int) -> Behaviour:
    """The body in chunks of so many bytes."""

    def behave(exchange: Exchange) -> None:
        data = b"".join(exchange.resource.body.pieces(0, exchange.resource.body.size))
        pieces = (data[at : at + count] for at in range(0, len(data), count))
        exchange.head(200, {"Transfer-Encoding": "chunked"})
        exchange.send(b"".join(map(chunk, pieces)) + LAST)

    return behave


def never_ends(exchange: Exchange) -> None:
    """No length, the whole body, and then nothing."""
    exchange.head(200, {"ETag": TAG})
    exchange.send(DATA)
    exchange.wait_hung_up()


@alters
def says_200(response: Response) -> None:
    """Brings the range, but as if it were the whole file."""
    response.status = 200 if response.status == 206 else response.status


@alters
def unasked_part(response: Response, text: str, start: int = 0, stop: int = SIZE, code: int = 206) -> None:
    """So much of it, said to be this range, though all was asked for."""
    if response.status == 200:
        response.status, response.start, response.stop = code, start, stop
        response.headers.set("Content-Range", text)
        response.headers.set("Content-Length", str(stop - start))


def too_much(exchange: Exchange) -> None:
    """The range up to the end of the file, and more."""
    start = exchange.request.range_start or 0
    exchange.head(206, {"Content-Range": f"bytes {start}-{SIZE - 1}/{SIZE}", "ETag": TAG})
    exchange.send(DATA[start:] + b"surplus")
    exchange.close = True


def same_tag(body: bytes) -> Behaviour:
    """From the second request on another body, under the validators of the first."""
    return changed(body=body, etag=TAG, last_modified=DATE)


def other_each_time(exchange: Exchange) -> None:
    """Another file for each of the first three requests, each with a validator of its own."""
    number = exchange.number
    if number < 3:
        body = Data(pattern(SIZE, seed=10 + number))
        exchange.resource = dataclasses.replace(exchange.resource, body=body, etag=f'"{number}"')
        exchange.at_body(HALF, exchange.cut)
    exchange.go_on()


def clock_ahead(exchange: Exchange) -> None:
    """Asks to come back at once, by a clock that is hours ahead."""
    later = email.utils.formatdate(time.time() + 3 * 3600, usegmt=True)
    exchange.alter(lambda response: response.headers.set("Date", later))
    exchange.reply(503, {"Retry-After": later})


@alters
def length_twice(response: Response) -> None:
    response.headers.extend([("Content-Length", response.headers["Content-Length"] or "")])


@alters
def doubled(response: Response) -> None:
    """Each header twice."""
    response.headers.extend(list(response.headers))


def page_in_gzip(exchange: Exchange) -> None:
    page = gzip.compress(b"<!DOCTYPE html><html>sign in</html>")
    exchange.reply(200, {"Content-Encoding": "gzip", "Content-Type": "text/html"}, page)


def raw_deflate(exchange: Exchange) -> None:
    """Deflate as some servers misread it: without the frame of zlib."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    exchange.reply(200, {"Content-Encoding": "deflate"}, packer.compress(DATA) + packer.flush())


def one_at_a_time() -> Behaviour:
    """While one request is answered, the connections of the others are reset."""
    slot = threading.Semaphore(1)

    def behave(exchange: Exchange) -> None:
        if not slot.acquire(blocking=False):
            exchange.reset()
        with contextlib.ExitStack() as stack:
            stack.callback(slot.release)
            exchange.alter(lambda response: exchange.at_body(response.stop - response.start - 1, stack.close))
            exchange.go_on()

    return behave


# -- Faults of a port.


class _Port(Staged):
    """A server of its own."""

    def __init__(self, server: Server, fault: Fault, mended: Path | None, scheme: str) -> None:
        url = f"{scheme}://127.0.0.1:{server.port}/{fault.file}"
        super().__init__(server, f"/{fault.file}", url)
        self._mended = mended
        server.add(self.path, *fault.behaviours, body=fault.body, **{"etag": TAG} | fault.options)

    def mend(self, *behaviours: Behaviour, body: bytes) -> None:
        self.server.hijack = None
        self.server.use_tls(self._mended)
        super().mend(*behaviours, body=body)


def port(
    scheme: str = "http", *, tls: str = "", meets: Callable[[Connection], None] | None = None, times: int = 0
) -> Callable[[Lab, Fault], Staged]:
    """Connections (the first `times`, or all) meet this certificate, or this in place of HTTP."""

    def stage(lab: Lab, fault: Fault) -> Staged:
        good = lab.certificates.good if scheme == "https" else None
        server = lab.enter(Server(tls=getattr(lab.certificates, tls) if tls else good))
        if meets:
            server.hijack = _limited(server, meets, times)
        return _Port(server, fault, good, scheme)

    return stage


def _limited(server: Server, meets: Callable[[Connection], None], times: int) -> Callable[[Connection], None]:
    def handle(connection: Connection) -> None:
        if connection.number == times:
            server.hijack = None
        meets(connection)

    return handle


class _Nobody(Staged):
    """A port where nobody answers, until a server takes it."""

    def __init__(self, lab: Lab, closed: contextlib.ExitStack, number: int, fault: Fault) -> None:
        self.server = lab.server  # until there is one behind the port
        self._lab = lab
        self._closed = closed
        self._number = number
        self.path, self.url = f"/{fault.file}", f"http://127.0.0.1:{number}/{fault.file}"

    def mend(self, *behaviours: Behaviour, body: bytes) -> None:
        self._closed.close()
        self.server = self._lab.enter(Server(port=self._number))
        super().mend(*behaviours, body=body)


def nobody(make_port: Callable[[], contextlib.AbstractContextManager[int]]) -> Callable[[Lab, Fault], Staged]:
    def stage(lab: Lab, fault: Fault) -> Staged:
        closed = lab.enter(contextlib.ExitStack())
        return _Nobody(lab, closed, closed.enter_context(make_port()), fault)

    return stage


def silent(connection: Connection) -> None:
    connection.wait_hung_up()


def closes(connection: Connection) -> None:
    """After the first bytes, so that they are not answered with a reset."""
    connection.sock.recv(1)


def resets(connection: Connection) -> None:
    connection.sock.recv(1)
    connection.reset()


def says(data: bytes, *, at_once: bool = False) -> Callable[[Connection], None]:
    def meet(connection: Connection) -> None:
        if not at_once:
            connection.sock.recv(CHUNK)
        connection.send(data)

    return meet


def echoes(connection: Connection) -> None:
    while data := connection.sock.recv(CHUNK):
        connection.send(data)


def talks_forever(connection: Connection) -> None:
    while True:
        connection.send(b"x" * CHUNK)


# -- The table.


def _breaking() -> Iterator[Fault]:
    """Connections that are cut or reset."""
    yield from both("cut before the headers", NO_ANSWER, cut_before_headers)
    yield from both("cut in the status line", UNREADABLE, cut_in_headers(5))
    yield from both("cut behind the status line", UNREADABLE, cut_in_headers(17))
    yield from both("cut in the headers", UNREADABLE, cut_in_headers(60))
    yield from both("cut in the last line of the headers", UNREADABLE, cut_in_headers(-5))
    yield from both("cut before the empty line", UNREADABLE, cut_in_headers(-2))
    yield from both("cut in the empty line", UNREADABLE, cut_in_headers(-1))
    yield from both("cut behind the headers", CUT, cut_after(0))
    yield from both("cut after one byte", CUT, cut_after(1))
    yield from both("cut after the length of the overlap", CUT, cut_after(64 << 10))
    yield whole("cut in the middle, once", first(1, cut_after(HALF)))
    yield whole("cut in the middle, always", cut_after(HALF))
    yield whole("cut after 100 kB, always", cut_after(100_000))
    yield whole("cut one byte early, once", first(1, cut_after(SIZE - 1)))
    yield whole("cut behind the last byte", close_unannounced)
    yield whole("cut in the middle, four times in a row", first(4, cut_after(HALF)))
    yield whole("cut without a validator", first(1, cut_after(HALF)), etag=None, last_modified=None)
    yield fails("cut always, without a validator", CUT, cut_after(HALF), etag=None, last_modified=None)
    yield whole("cut in a chunked body", first(1, cut_after(HALF)), chunked=True)
    yield from both("reset before the headers", RESET, reset_before_headers)
    yield from both("reset behind the headers", CUT, reset_after(0))
    yield from both("reset after 1000 bytes", CUT, reset_after(1000))
    yield whole("reset in the middle, once", first(1, reset_after(HALF)))
    yield whole("reset in the middle, always", reset_after(HALF))
    yield whole("ends one byte early in good order, once", first(1, short_body()))
    yield fails("ends one byte early in good order, always", CUT, short_body())
    yield fails("ends early where only the end tells", DIGEST, cut_after(HALF), digest=True, length=False)
    yield whole("one good answer after cuts and 503", first(2, cut_before_headers), first(4, status(503)))


def _slow() -> Iterator[Fault]:
    """Servers that take their time, or stop in the middle of something."""
    yield from _late("stalls before the headers", LATE, stall_before_headers())
    yield from _late("stalls in the status line", LATE, stall_in_headers(position=10))
    yield from _late("stalls in the headers", LATE, stall_in_headers(position=60))
    yield from _late("stalls behind the headers", LATE_BODY, stall_after(0))
    yield whole("stalls after the length of the overlap, once", first(1, stall_after(64 << 10)), is_slow=True)
    yield whole("stalls in the middle, once", first(1, stall_after(HALF)), is_slow=True)
    yield whole("stalls at the last byte, once", first(1, stall_after(SIZE - 1)), is_slow=True)
    yield whole("stalls in a chunked body", first(1, stall_after(HALF)), chunked=True, is_slow=True)
    yield whole(
        "stalls without a validator", first(1, stall_after(HALF)), is_slow=True, etag=None, last_modified=None
    )
    yield from _late("drips its headers slower than the time-out", LATE, drip_headers(0.1))
    yield whole("drips its headers", drip_headers(0.001, 20))
    yield whole("drips its body", drip(50_000, 0.01))
    yield whole("drips its body byte by byte", drip(1, 0.0), body=DATA[:3000])
    yield whole("drips chunks of one byte", chunks_of(1), body=DATA[:3000])
    yield whole(
        "never closes where only the end tells, once", first(1, never_ends), is_slow=True, digest=True
    )
    yield whole("says that it closes, and does not", stay_open)
    trailing = chunk(DATA[:3000]) + b"0\r\nX-A: "
    yield whole("drips a trailer without end", drips_on(trailing), final=DATA[:3000])
    extended = chunk(DATA[:3000]) + b"5;"
    yield fails("drips a chunk's extension without end", LATE_BODY, drips_on(extended), is_slow=True)


def _late(name: str, end: str | re.Pattern[str], *behaviours: Behaviour) -> Iterator[Fault]:
    return both(name, end, *behaviours, is_slow=True)


def _lengths() -> Iterator[Fault]:
    """What the headers say of the length."""
    yield whole("5 bytes too many announced, once", first(1, wrong_length(5)))
    yield fails("5 bytes too many announced, always", CUT, wrong_length(5))
    yield whole("5 bytes too few announced", wrong_length(-5), final=DATA[:-5])
    yield fails("5 bytes too few announced, with a digest", DIGEST, wrong_length(-5), digest=True)
    for name, value in {
        "letters": "abc",
        "negative": "-5",
        "empty": "",
        "hexadecimal": "0x10",
        "with an exponent": "1e3",
        "with a plus": f"+{SIZE}",
        "with an underscore": f"{SIZE // 1000}_{SIZE % 1000:03}",
    }.items():
        lengths = with_headers({"Content-Length": value})
        yield fails(f"a length that is {name}", UNREADABLE, lengths, keep_alive=False)
    lengths = with_headers({"Content-Length": f"{SIZE}, {SIZE}"})
    yield whole("a length that is twice the same in one field", lengths)
    yield whole("a length that is twice the same, cut once", first(1, cut_after(HALF), lengths))
    yield whole("a length with nothing behind its comma", with_headers({"Content-Length": f"{SIZE},"}))
    yield whole("a length with zeros before it", with_headers({"Content-Length": f"000{SIZE}"}))
    yield fails("a length of a pebibyte", NO_SPACE, with_headers({"Content-Length": str(1 << 50)}))
    yield whole("a length with 5,000 digits, of zeros", with_headers({"Content-Length": f"{SIZE:05000}"}))
    yield fails("a length of 300 digits", UNREADABLE, with_headers({"Content-Length": "9" * 300}))
    yield whole("the length twice", length_twice())
    lengths = with_headers({"Content-Length": f"{SIZE}, 5"})
    yield fails("a length that is two different in one field", UNREADABLE, lengths)
    yield fails("a second, other length", UNREADABLE, add_headers(("Content-Length", "5")), keep_alive=False)
    yield fails("a first, other length", UNREADABLE, inserted(b"Content-Length: 5"))
    yield fails("no bytes announced, bytes sent", DIGEST, with_headers({"Content-Length": "0"}), digest=True)
    yield whole("no length", length=False)
    yield whole("a length beside chunks", add_headers(("Content-Length", "5")), chunked=True)


def _chunked() -> Iterator[Fault]:
    """Bodies in chunks."""
    kinds = {"size": MISFIT, "negative": MISFIT, "huge": CUT, "empty": MISFIT, "no_end": CUT, "in_chunk": CUT}
    for kind, end in {**kinds, "too_long": MISFIT, "endless_size": MISFIT}.items():
        yield from both(f"bad chunks ({kind})", end, bad_chunks(kind))
    broken = first(1, bad_chunks("huge"))  # which brings 8 bytes
    yield whole("bad chunks that are as long as the file", broken, body=DATA[:8])
    half = chunk(DATA[:HALF])
    rest = chunk(DATA[HALF:])
    yield whole("chunks with extensions", chunked(chunk(DATA, '%x;a="b";c\r\n'), LAST))
    yield whole("chunks with upper case sizes", chunked(chunk(DATA, "%X\r\n"), LAST))
    yield whole("chunks with zeros before their sizes", chunked(chunk(DATA, "00000%x\r\n"), LAST))
    yield whole("chunks with spaces behind their sizes", chunked(chunk(DATA, "%x  \r\n"), LAST))
    yield whole("chunks with bare line feeds", chunked(chunk(DATA, "%x\n", b"\n"), b"0\n\n"))
    yield whole("chunks with trailers", chunked(half, rest, b"0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n"))
    yield fails("chunks with a size in 0x", MISFIT, chunked(chunk(DATA, "0x%x\r\n"), LAST))
    yield fails("chunks with a size of 17 digits", MISFIT, chunked(chunk(DATA, "%017x\r\n"), LAST))
    yield fails("chunks without an end", CUT, chunked(half, rest))
    yield whole("chunks whose last line is missing", chunked(half, rest, b"0\r\n"))
    yield whole("chunks with endless trailers", chunked(half, rest, b"0\r\n", b"X: y\r\n" * 1000))
    yield whole("chunks with an endless trailer", chunked(half, rest, b"0\r\n", b"x" * 100_000))
    yield fails("chunked is said, and it is not", MISFIT, chunked(DATA))
    yield whole("chunked in capitals", chunked(half, rest, LAST, headers="Transfer-Encoding: CHUNKED"))
    yield whole("more behind the last chunk", chunked(half, rest, LAST, b"more of it"))
    for coding in (
        "chunked, chunked",  # as proxies say it of what came chunked
        "chunked, Chunked",
        "identity, chunked",
        "chunked , identity",
        "chunked,",
        " chunked \t ",
        "chunked\r\nTransfer-Encoding: chunked",
        "identity\r\nTransfer-Encoding: chunked",
        "\r\n chunked",
    ):
        wire = chunked(half, rest, LAST, headers=f"Transfer-Encoding: {coding}")
        yield whole(f"transfer encoding {coding!r}", wire)
        yield resumed(f"transfer encoding {coding!r}, cut", first(2, wire))
    for coding in ("identity", "", ","):
        yield whole(f"transfer encoding {coding!r}", with_headers({"Transfer-Encoding": coding}))
    for coding in ("gzip, chunked", "gzip", "chunked, gzip", "chunked; x", "chunke d", "nonsense"):
        wire = chunked(half, rest, LAST, headers=f"Transfer-Encoding: {coding}")
        yield fails(f"transfer encoding {coding}", UNREADABLE, wire)
    beside = answer(LENGTH, "Transfer-Encoding: gzip, chunked")
    yield fails("a transfer encoding beside a length", UNREADABLE, beside)


def _ranges() -> Iterator[Fault]:
    """Cut in the middle; what is then asked for comes differently."""
    yield resumed("the range is ignored", ignore_range)
    yield resumed("the range is ignored, no validator", ignore_range, etag=None, last_modified=None)
    yield resumed("the range is dropped because of If-Range", drops_range_when_if_range)
    yield resumed("the server does not take ranges", ranges=False)
    yield resumed("ranges are taken, though it says none", with_headers({"Accept-Ranges": "none"}))
    yield resumed("If-Range is ignored", ignores_if_range)
    for name, text in {
        "no Content-Range": None,
        "an empty Content-Range": "",
        "a Content-Range without a range": "bytes */{size}",
        "a Content-Range in lines": "lines 1-2/3",
        "a Content-Range from 0": "bytes 0-{last}/{size}",
        "a Content-Range that is turned round": "bytes {last}-{start}/{size}",
        "a negative Content-Range": "bytes -{start}-{last}/{size}",
        "a Content-Range of 20 digits": "bytes {start}-99999999999999999999/{size}",
        "a Content-Range behind the end": "bytes {start}-{size}/{size}",
        "a Content-Range without a unit": "{start}-{last}/{size}",
        "a Content-Range with an equals sign": "bytes={start}-{last}/{size}",
        "nonsense as Content-Range": "€ nonsense",
    }.items():
        yield resumed(name, content_range(text))
    yield resumed("a Content-Range without a size", content_range("bytes {start}-{last}/*"))
    yield resumed("a Content-Range in capitals", content_range("BYTES {start}-{last}/{size}"))
    yield resumed("two Content-Ranges", on_range(add_headers(("Content-Range", "bytes 0-1/2"))))
    yield resumed("a Content-Range one byte further", lying_content_range())
    yield resumed("a Content-Range one byte earlier", lying_content_range(-1))
    yield resumed("another size in Content-Range", other_size_on_range())
    yield resumed("a smaller size in Content-Range", other_size_on_range(-100_000))
    yield resumed("another range than the one asked for", on_range(from_elsewhere(100)))
    yield resumed("the range from 0", on_range(from_elsewhere(0)))
    for most in (1000, 64 << 10, 70_000, 100_000, 200_000):
        yield resumed(f"at most {most} bytes of a range", only_part(most))
    yield resumed("other bytes", garble_overlap())
    yield resumed("other bytes, the first only", garble_overlap(1))
    yield resumed("416 to each range", status_416)
    yield resumed("416 to a range, once", on_range(first(2, status(416))))
    yield resumed("the range in several parts", on_range(several_ranges))
    yield resumed("the range as gzip", on_range(gzip_body))
    yield resumed("a range cut again", first(3, cut_after(100_000)))
    yield resumed("a range with a length too large", first(3, wrong_length(5)))
    yield resumed("a range with a length too small, once", on_range(first(2, wrong_length(-5))))
    short = with_headers({"Connection": "close"}), wrong_length(-5)  # what comes beyond is no next answer
    yield resumed("a range with a length too small, always", on_range(*short))
    yield resumed("more than the range", on_range(first(3, too_much)))
    yield resumed("a range in chunks", chunked=True)
    yield resumed("503 to a range, once", first(2, status(503)))
    yield resumed("a redirect for a range", on_range(first(2, redirect_to_itself())))
    yield resumed("200 for a range", says_200())
    yield resumed("200 for a range, no ETag", says_200(), etag=None)
    yield resumed("200 for another range", on_range(from_elsewhere(100)), says_200())
    yield resumed("200 for a range, and no word of it", says_200(), with_headers({"Content-Range": None}))
    bare = with_headers({"Content-Range": None, "ETag": None, "Last-Modified": None})
    yield resumed("200 for a range, and no word of anything", on_range(says_200(), bare))
    yield resumed("200 for a range of what came in chunks", says_200(), chunked=True)
    unsaid = says_200(), with_headers({"Content-Range": None})
    sent = {"chunked": True, "etag": f"W/{TAG}"}
    yield resumed("200 for a range of what came in chunks, and no word of it", *unsaid, chunked=True)
    yield resumed("200 for a range of what came in chunks, weak, and no word of it", *unsaid, **sent)
    yield resumed("200 for a range of what came in chunks, and no word", on_range(says_200(), bare), **sent)
    other = changed(body=OTHER, etag='W/"two"')
    yield resumed("200 for a range of another file than came in chunks", other, *unsaid, final=OTHER, **sent)
    all_of_it, some_of_it = f"bytes 0-{SIZE - 1}/{SIZE}", f"bytes 0-{HALF - 1}/{SIZE}"
    yield whole("206 for all of it, though all was asked for", unasked_part(all_of_it))
    yield whole("a part, though all was asked for", unasked_part(some_of_it, 0, HALF))
    yield whole("a part as 200, though all was asked for", unasked_part(some_of_it, 0, HALF, 200))
    yield whole("a part of a byte, though all was asked for", unasked_part(f"bytes 0-0/{SIZE}", 0, 1))
    yield whole("all of it, and said so", unasked_part(all_of_it, 0, SIZE, 200))
    yield whole("nonsense about a range beside all of it", unasked_part("bytes 0-9/99", 0, SIZE, 200))
    for name, behaviour in {
        "its end": unasked_part(f"bytes {HALF}-{SIZE - 1}/{SIZE}", HALF),
        "a part of who knows how much": unasked_part(f"bytes 0-{HALF - 1}/*", 0, HALF),
        "its end as 200": unasked_part(f"bytes {HALF}-{SIZE - 1}/{SIZE}", HALF, SIZE, 200),
        "a part that is another": unasked_part(f"bytes 0-{HALF}/{SIZE}", 0, HALF),
    }.items():
        yield fails(f"{name}, though all was asked for", PART, behaviour)
    for code in (304, 400, 403, 405, 409, 412, 421, 501):
        yield resumed(f"{code} to each range", on_range(status(code)))
        yield resumed_fails(f"{code} to all that follows", error(code), status(code))
    for code in (204, 205, 401, 404, 410):
        yield resumed_fails(f"{code} to each range", error(code), on_range(status(code)))
    for code in (429, 500, 503):
        yield resumed_fails(f"{code} to each range", error(code) + TRIED, on_range(status(code)))
    yield resumed_fails("a page in place of a range", PAGE, on_range(html_instead()), file="a.blend")
    yield resumed_fails("416 to all that follows", error(416), status(416))
    yield fails("206 to a plain request", PART, status(206))
    yield fails("416 to a plain request", error(416), status(416))


def _changing() -> Iterator[Fault]:
    """Files that change while they are fetched, and odd validators."""
    cut = first(1, cut_after(HALF))
    yield whole("another file", cut, changed(body=OTHER), final=OTHER)
    yield whole("another file, If-Range ignored", cut, ignores_if_range, changed(body=OTHER), final=OTHER)
    yield whole("a longer file", cut, changed(body=DATA + b"more"), final=DATA + b"more")
    yield whole("a shorter file", cut, changed(body=OTHER[:HALF]), final=OTHER[:HALF])
    yield whole("an empty file", cut, changed(body=b""), final=b"")
    yield whole("another file under the same validator", cut, same_tag(OTHER), final=OTHER)
    yield whole("a longer file under the same validator", cut, same_tag(DATA + b"x"), final=DATA + b"x")
    yield whole("a shorter file under the same validator", cut, same_tag(DATA[:-9]), final=DATA[:-9])
    yield whole("another ETag, same bytes", cut, changed())
    yield whole("another date, same ETag", cut, changed(etag=TAG))
    yield whole("another ETag, same date", cut, changed(last_modified=DATE))
    yield whole("another ETag each time", cut, new_tag_each_time)
    yield whole("another ETag each time, If-Range ignored", cut, ignores_if_range, new_tag_each_time)
    yield whole("no validators any more", cut, changed(etag=None, last_modified=None))
    yield whole("a weak ETag for a strong one", cut, changed(etag="W/" + TAG))
    yield whole("another file each time, until the fourth", cut, other_each_time)
    for name, tag in {
        "weak": 'W/"one"',
        "bare": "one",
        "empty": '""',
        "with spaces": '"o n e"',
        "in Latin-1": '"\xfc"',
        "in UTF-8": '"€"',
        "with control characters": '"\x01\x7f"',
        "very long": '"' + "x" * 5000 + '"',
        "two in one": '"one", "two"',
        "with a quote inside": '"o"ne"',
    }.items():
        yield whole(f"an ETag that is {name}", cut, etag=tag, last_modified=None)
    for name, date in {
        "nonsense": "yesterday",
        "in the future": "Fri, 01 Jan 2100 00:00:00 GMT",
        "before 1970": "Thu, 01 Jan 1970 00:00:00 GMT",
        "in ISO 8601": "2020-01-01T00:00:00Z",
        "a number": "1577836800",
    }.items():
        yield whole(f"a date that is {name}", cut, etag=None, last_modified=date)
    yield whole("two ETags", cut, add_headers(("ETag", '"two"')))


def _statuses() -> Iterator[Fault]:
    """Answers that bring no file."""
    for code in (204, 400, 401, 403, 404, 407, 410, 451):
        yield fails(f"status {code}", error(code), status(code))
    for code in (205, 207, 300, 304, 305, 402, 405, 406, 409, 413, 418, 421, 501, 505, 507, 511, 526):
        yield fails(f"status {code}", error(code), status(code))
    for code in (202, 408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 530, 599, 600, 999):
        yield from both(f"status {code}", error(code) + TRIED, status(code))
    for code in (201, 203, 218, 226, 299):
        yield whole(f"status {code}", status=code)
        yield resumed(f"status {code}, the range ignored", ignore_range, status=code)
    yield fails("status 101", error(101), raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"))
    for name, line in {
        "of four digits": "HTTP/1.1 2000 OK",
        "of two digits": "HTTP/1.1 20 OK",
        "in letters": "HTTP/1.1 two OK",
        "negative": "HTTP/1.1 -200 OK",
        "zero": "HTTP/1.1 000 OK",
        "missing": "HTTP/1.1",
    }.items():
        yield fails(f"a status that is {name}", UNREADABLE, answer(LENGTH, start=line))
    yield whole("no reason", answer(LENGTH, start="HTTP/1.1 200"))
    yield whole("a reason in UTF-8", answer(LENGTH, start="HTTP/1.1 200 \xe2\x82\xac"))
    yield whole("a long reason", answer(LENGTH, start="HTTP/1.1 200 " + "x" * 5000))
    yield fails("a reason of 100 kB", UNREADABLE, answer(LENGTH, start="HTTP/1.1 200 " + "x" * 100_000))
    yield fails("a busy page that is a file", error(503) + TRIED, status(503, body=DATA))
    yield fails("a missing page that is a file", error(404), status(404, body=DATA))


def _heads() -> Iterator[Fault]:
    """Heads that are not as they should be."""
    yield whole("HTTP/1.0", answer(LENGTH, start="HTTP/1.0 200 OK"))
    yield whole("HTTP/1.0 without a length", answer(start="HTTP/1.0 200 OK"))
    yield whole(
        "HTTP/1.0 that keeps its connection",
        answer(LENGTH, "Connection: keep-alive", start="HTTP/1.0 200 OK"),
    )
    yield fails("HTTP/0.9", UNREADABLE, raw(DATA))
    yield whole("HTTP/2.0", answer(LENGTH, start="HTTP/2.0 200 OK"))
    yield fails("another protocol", UNREADABLE, answer(LENGTH, start="RTSP/1.0 200 OK"))
    yield fails("ICY", UNREADABLE, answer(LENGTH, start="ICY 200 OK"))
    yield fails(
        "garbage before the status line", UNREADABLE, rewrite_head(lambda head: b"garbage\r\n" + head)
    )
    yield fails("an empty line before the status line", UNREADABLE, rewrite_head(lambda head: b"\r\n" + head))
    yield fails("noise in place of headers", UNREADABLE, raw(pattern(5000)))
    yield fails("nothing but an empty line", UNREADABLE, raw(b"\r\n\r\n"))
    yield whole("bare line feeds", rewrite_head(lambda head: head.replace(b"\r\n", b"\n")))
    for name, line in {
        "a line without a colon": b"no colon here",
        "a second status line": b"HTTP/1.1 200 OK",
        "markup in the headers": b"<br />",
        "a name with a space in it": b"X Name: x",
        "a name that is not ASCII": "X-Größe: x".encode(),
        "a name with a NUL": b"X\0: x",
    }.items():
        yield whole(name, inserted(line))
        yield whole(f"{name}, in chunks", inserted(line), chunked=True)
        yield fails(f"{name}, and no length", UNREADABLE, inserted(line), length=False)
    yield whole("a line without a name", inserted(b": no name"))
    for name, blank in {"space": b" ", "tab": b"\t"}.items():
        late = replaced(b"Content-Length:", b"Content-Length%b:" % blank)
        yield whole(f"a name with a {name} behind it", late)
    yield whole("a folded first line", inserted(b" folded"))
    yield whole("a folded line", inserted(b"X-Folded: a\r\n b\r\n\tc"))
    redirected = first(1, redirect_to_itself(302, "?a"))
    for name, spaces in {
        "blanks behind each value": behind_each_value(b" \t "),
        "a fold behind each value": behind_each_value(b"\r\n "),
        "blanks before each value": before_each_value(b"\t  "),
        "a fold before each value": before_each_value(b"\r\n\t"),
    }.items():
        yield resumed(name, spaces)
        yield resumed(f"{name}, no ETag", spaces, etag=None)
        yield whole(f"{name}, in chunks", spaces, chunked=True)
        yield whole(f"{name}, in gzip", spaces, encoding="gzip")
        yield whole(f"{name}, redirected", spaces, redirected)
    yield whole("a NUL in a header", inserted(b"X-Nul: a\0b"))
    yield whole("a carriage return in a header", inserted(b"X-Return: a\rb"))
    yield fails("a length behind a second return", CUT, cut_after(1000), inserted(b"X-Return: a\r"))
    yield whole("a header in any bytes", inserted(b"X-Bytes: " + bytes(range(128, 256))))
    yield whole("90 headers more", add_headers(*((f"X-{number}", "x") for number in range(90))))
    yield whole("1000 headers more", add_headers(*((f"X-{number}", "x") for number in range(1000))))
    yield whole("a header of 200 kB", long_header(200_000))
    yield fails("a header of 1 MiB", UNREADABLE, long_header())
    yield fails("endless headers", UNREADABLE, endless_headers())
    yield whole("informational answers", informational(100, 102, 103, times=10))
    yield from both("endless informational answers", LATE, endless_informational(102, 0.05), is_slow=True)
    yield from both("endless continues", LATE, endless_informational(100, 0.05), is_slow=True)
    yield whole("the same headers twice", doubled())
    yield whole("70 cookies", add_headers(*(("Set-Cookie", f"c{n}=1") for n in range(70))))
    yield whole(
        "a cookie that is nonsense", add_headers(("Set-Cookie", "=;;;\x01=\xff; Domain=..; Expires=never"))
    )
    smuggled = inserted(b"X-A: b\rContent-Length: 5")
    yield whole("a length smuggled into a header", smuggled)
    yield whole("a length smuggled into a header, and no other", smuggled, length=False)
    yield whole("a second answer in the headers", inserted(b"X-A: HTTP/1.1 404 Not Found"))


def _redirects() -> Iterator[Fault]:
    """Redirects, their traps, and cookies."""
    yield fails("a redirect to itself", CIRCLES, redirect_to_itself())
    yield fails("redirects without end", CIRCLES, redirect_forever)
    yield fails("a redirect to nowhere", CIRCLES, redirect(""))
    yield whole("20 redirects", first(20, redirect_forever))
    for length in (10_000, 60_000):
        longer = redirect_to_itself(302, "?" + "a" * length)
        yield whole(f"a redirect to {length} characters", first(1, longer))
    too_long = redirect_to_itself(302, "?" + "a" * 70_000)
    yield fails("a redirect to 70,000 characters", UNREADABLE_ADDRESS, too_long)
    yield fails("21 redirects", CIRCLES, redirect_chain(21, "/file.bin"))
    for code in (300, 301, 302, 303, 307, 308):
        yield whole(f"a redirect with {code}, once", first(1, redirect_to_itself(code)))
        yield fails(f"a redirect with {code} without Location", error(code), status(code))
    for name, target, end in (
        ("to FTP", "ftp://127.0.0.1/a", NO_ADDRESS),
        ("to a file", "file:///etc/passwd", NO_ADDRESS),
        ("to a script", "javascript:alert(1)", NO_ADDRESS),
        ("to data", "data:text/plain,x", NO_ADDRESS),
        ("to a bad address", "http://[bad/", UNREADABLE_ADDRESS),
        ("to a bad port", "http://127.0.0.1:99999/", UNREADABLE_ADDRESS),
        ("to a page that is not there", "/nothing-here", error(404)),
    ):
        yield fails(f"a redirect {name}", end, redirect(target))
    yield fails("a redirect to a busy page", error(503) + TRIED, redirect("/busy"))
    yield whole("a redirect that needs its cookie", cookie_trap)
    yield whole("a redirect with a fragment", first(1, redirect_to_itself(302, "#part")))
    yield whole("a redirect with an escaped line break", first(1, redirect_to_itself(302, "?a=%0d%0aX:%20y")))
    yield whole("a redirect with letters of any kind", first(1, redirect_to_itself(302, "?€ü")))
    yield whole("two Locations, the first counts", first(1, two_locations))
    yield fails("a redirect to a page to sign in", PAGE, redirect("/sign-in"), file="a.blend")
    yield resumed("a redirect in the middle", first(2, redirect_to_itself()))


def _encodings() -> Iterator[Fault]:
    """Content encodings, though none was asked for."""
    packed = gzip.compress(DATA, mtime=0)
    yield whole("gzip", encoding="gzip")
    yield whole("deflate", encoding="deflate")
    yield whole("gzip in chunks", encoding="gzip", chunked=True)
    yield whole("gzip, cut once", first(1, cut_after(HALF)), encoding="gzip")
    yield fails("gzip, cut always", CUT, cut_after(HALF), encoding="gzip")
    yield fails("gzip that ends early", CUT, gzipped(packed[:-20]))
    yield fails("gzip with a wrong checksum", DAMAGED, gzipped(packed[:-8] + b"\0" * 8))
    yield fails("gzip that is none", DAMAGED, gzipped(DATA))
    for name, garbage in {
        "text": b"garbage",
        "a byte": b"\0",
        "zeros": bytes(2 << 20),
        "half": b"\x1f",
    }.items():
        yield whole(f"gzip with garbage behind it, {name}", gzipped(packed + garbage))
        yield whole(f"gzip in chunks with garbage behind it, {name}", chunks_of_gzip(packed + garbage))
    yield fails("gzip with a broken member behind it", DAMAGED, gzipped(packed + b"\x1f\x8b garbage"))
    yield fails(
        "gzip with a broken middle", DAMAGED, gzipped(packed[:HALF] + b"\0" * 99 + packed[HALF + 99 :])
    )
    yield whole("gzip in two members", gzipped(gzip.compress(DATA[:HALF]) + gzip.compress(DATA[HALF:])))
    yield fails("gzip that brings nothing", DAMAGED, gzipped(gzip.compress(b"") * 60_000))
    yield fails("a gzip bomb", DIGEST, gzipped(gzip_zeros(32 << 20)), digest=True)
    bomb = gzip.compress(gzip_zeros(32 << 20))
    yield fails("a gzip bomb in a gzip bomb", DIGEST, coded("gzip, gzip", bomb), digest=True)
    yield fails("gzip in gzip that is neither", DAMAGED, with_headers({"Content-Encoding": "gzip, gzip"}))
    bare = zlib.compress(DATA, wbits=-15)
    for coding, body in {
        "deflate": bare,
        "Deflate, identity": bare,
        "deflate,": bare + b"garbage",
        "gzip, gzip": gzip.compress(packed),
        "deflate, gzip": gzip.compress(bare),
        "gzip, none , deflate": zlib.compress(packed),
        "x-gzip": packed,
        "aws-chunked,gzip": packed,
        "identity, gzip, gzip, gzip, gzip, gzip": functools.reduce(
            lambda data, _: gzip.compress(data), "54321", DATA
        ),
    }.items():
        yield whole(f"encoding {coding}", coded(coding, body))
    yield whole("encoding in two headers", two_codings(gzip.compress(bare)))
    yield fails("bare deflate that ends early", CUT, coded("deflate", bare[:-20]))
    yield fails("bare deflate that is none", DAMAGED, coded("deflate", b"\xff" * SIZE))
    for coding in ("br", "zstd", "compress", "nonsense", "gzip, br", "br, gzip", ", ".join(["gzip"] * 6)):
        yield fails(f"encoding {coding}", ENCODED, with_headers({"Content-Encoding": coding}))
    for word in ("none", "utf-8", "UTF-8", "binary", "base64", "aws-chunked", "None, Identity", ","):
        yield whole(f"no encoding, {word}", with_headers({"Content-Encoding": word}))
        yield resumed(f"no encoding, {word}", with_headers({"Content-Encoding": word}))
    yield whole("encoding identity", with_headers({"Content-Encoding": "identity"}))
    yield whole("an empty encoding", with_headers({"Content-Encoding": ""}))
    yield whole("encoding GZIP in capitals", gzip_body, with_headers({"Content-Encoding": "GZIP"}))


def _pages() -> Iterator[Fault]:
    """Web pages in place of a file."""
    blend = {"file": "a.blend"}
    yield fails("a page", PAGE, html_instead(), **blend)
    yield fails("a page without a type", PAGE, html_instead(), with_headers({"Content-Type": None}), **blend)
    octets = {"Content-Type": "application/octet-stream"}
    yield fails("a page that says it is a file", PAGE, status(200, octets, "<html>sign in</html>"), **blend)
    yield fails("a page in gzip", PAGE, page_in_gzip, **blend)
    yield fails("a page in chunks", PAGE, chunked(chunk(b"<!DOCTYPE html><p>x"), LAST), **blend)
    comment = "<!-- " + "x" * 2000 + " --><html>"
    yield fails("a page behind a long comment", PAGE, html_instead(comment), **blend)
    yield fails("a page in capitals", PAGE, html_instead("<HTML><BODY>"), **blend)
    yield whole(
        "a page, once it is a page that was asked for",
        html_instead("<html>x"),
        file="a.html",
        final=b"<html>x",
    )
    yield whole("a file said to be a page", content_type="text/html", **blend)


def _limits() -> Iterator[Fault]:
    """Servers that take few connections, or ask for patience."""
    for code in (403, 429, 503):
        yield whole(f"one connection, {code} to others", limit_connections(1, code))
        yield whole(f"two connections, {code} to others", limit_connections(2, code))
    yield whole("one connection, the others are reset", one_at_a_time())
    for name, wait in {
        "0": "0",
        "negative": "-5",
        "in the past": DATE,
        "nonsense": "soon",
        "empty": "",
    }.items():
        yield whole(f"Retry-After that is {name}", fail_times(2, 503, {"Retry-After": wait}))
    yield whole("Retry-After by a clock that is ahead", first(2, clock_ahead))
    yield whole("Retry-After of a second", fail_times(1, 429, {"Retry-After": "1"}))
    for name, wait, span in (("an hour", "3600", "1 hour"), ("many digits", "9" * 30, "366 days")):
        asks = f"The server asks to wait {span}. Try again later"
        yield fails(f"Retry-After of {name}", asks, status(503, {"Retry-After": wait}))
    century = re.compile(r"The server asks to wait 366 days\. Try again later")
    yield fails("Retry-After in 2100", century, status(503, {"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}))
    forty = "The server is busy (503). Tried 40 times, try again later"
    yield fails("Retry-After of 0, always", forty, status(503, {"Retry-After": "0"}))
    yield fails("Retry-After beside a refusal", error(404), status(404, {"Retry-After": "3600"}))
    yield whole("Retry-After beside the file", with_headers({"Retry-After": "3600"}))


def _keeping() -> Iterator[Fault]:
    """Connections that are kept, and what is left in them."""
    wrong = b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "x"\r\n\r\nwrong'
    yield whole("a second answer behind the first", leftovers(wrong))
    yield whole("garbage behind the answer", leftovers(b"garbage"))
    yield whole("much garbage behind the answer", leftovers(b"x" * 1_000_000))
    yield whole(
        "keep-alive is said, and it closes", close_unannounced, with_headers({"Connection": "keep-alive"})
    )
    yield whole("keep-alive for no time", with_headers({"Keep-Alive": "timeout=0, max=0"}))
    yield whole("close and keep-alive", with_headers({"Connection": "close, keep-alive"}))
    yield whole("upgrade is offered", with_headers({"Upgrade": "h2c", "Connection": "Upgrade"}))
    yield whole("a second answer behind an error (503)", first(2, with_body(503, wrong)))


def _names() -> Iterator[Fault]:
    """What servers call the file."""
    for name, text in (
        ("a path", 'attachment; filename="../../etc/a.bin"'),
        ("an absolute path", 'attachment; filename="/etc/cron.d/a.bin"'),
        ("a Windows path", r'attachment; filename="C:\\Windows\\a.bin"'),
        ("a hidden file", 'attachment; filename=".a.bin"'),
        ("nothing", 'attachment; filename=""'),
        ("dots", 'attachment; filename=".."'),
        ("nonsense", "=;=;filename"),
        ("a long header", "attachment; " + "x=y; " * 10_000 + "filename=a.bin"),
        ("told twice", 'attachment; filename="a.bin"\r\nContent-Disposition: attachment; filename="b.bin"'),
        ("an encoding that is none", "attachment; filename*=nothing'en'%ff%fe; filename=a.bin"),
    ):
        yield whole(f"a name that is {name}", headers={"Content-Disposition": text})


def _tls() -> Iterator[Fault]:
    """Secure connections."""
    for kind, why in UNTRUSTED.items():
        end = "The certificate of {host} cannot be trusted: " + why
        yield fails(f"certificate {kind.replace('_', ' ')}", end, port=port("https", tls=kind))
    yield fails("a handshake closed", INSECURE, port=port("https", meets=closes))
    yield whole("a handshake closed, once", port=port("https", meets=closes, times=1))
    yield fails("a handshake reset", RESET, port=port("https", meets=resets))
    yield whole("a handshake reset, once", port=port("https", meets=resets, times=1))
    yield fails("a handshake that stalls", LATE, port=port("https", meets=silent), is_slow=True)
    yield whole("a handshake that stalls, once", port=port("https", meets=silent, times=1), is_slow=True)
    yield fails(
        "plain HTTP on the secure port", PLAIN, port=port("https", meets=says(b"HTTP/1.1 400 Bad\r\n\r\n"))
    )
    yield fails(
        "garbage in the handshake", INSECURE, port=port("https", meets=says(b"\x16\x03\x03garbage" * 99))
    )
    yield fails("a TLS alert", NO_TLS, port=port("https", meets=says(b"\x15\x03\x03\0\x02\x02\x28")))
    yield fails("TLS on the plain port", NO_ANSWER, port=port("http", tls="good"))
    secure = {"port": port("https")}
    yield whole("over TLS, cut in the middle", first(1, cut_after(HALF)), **secure)
    yield whole("over TLS, reset in the middle", first(1, reset_after(HALF)), **secure)
    yield whole("over TLS, cut before the headers", first(2, cut_before_headers), **secure)
    yield whole("over TLS, an end that is not signed", first(1, cut_after(HALF)), length=False, **secure)
    yield whole("over TLS, chunks cut", first(1, cut_after(HALF)), chunked=True, **secure)
    yield whole("over TLS, a stall", first(1, stall_after(HALF)), is_slow=True, **secure)
    yield whole("over TLS, other bytes in the range", first(1, cut_after(HALF)), garble_overlap(), **secure)
    yield whole("over TLS, no close_notify behind the length", close_unannounced, **secure)


def _ports() -> Iterator[Fault]:
    """What may stand at a port instead of a server."""
    yield fails("nobody there", REFUSED, port=nobody(refused_port))
    yield fails("nobody answers", LATE_CONNECT, port=nobody(unreachable_port), is_slow=True)
    yield fails("closes at once", NO_ANSWER, port=port(meets=closes))
    yield whole("closes at once, three times", port=port(meets=closes, times=3))
    yield fails("resets at once", RESET, port=port(meets=resets))
    yield fails("accepts and says nothing", LATE, port=port(meets=silent), is_slow=True)
    yield fails("an echo", UNREADABLE, port=port(meets=echoes))
    yield fails(
        "a mail server", UNREADABLE, port=port(meets=says(b"220 mail.example ESMTP\r\n", at_once=True))
    )
    yield fails("an SSH server", UNREADABLE, port=port(meets=says(b"SSH-2.0-OpenSSH_9\r\n", at_once=True)))
    yield fails("an endless line", UNREADABLE, port=port(meets=talks_forever))
    yield fails("an error of a proxy", error(502) + TRIED, port=port(meets=says(b"HTTP/1.1 502 Bad\r\n\r\n")))


FAULTS = [
    *_breaking(),
    *_slow(),
    *_lengths(),
    *_chunked(),
    *_ranges(),
    *_changing(),
    *_statuses(),
    *_heads(),
    *_redirects(),
    *_encodings(),
    *_pages(),
    *_limits(),
    *_keeping(),
    *_names(),
    *_tls(),
    *_ports(),
]
