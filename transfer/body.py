"""The body of an open response, read straight from its socket into the caller's buffer.

One system call a turn, and a wait that ends when the transfer is asked to stop: the state is all
here, so another worker can go on reading later. `http.client` has read the headers, and perhaps a
few bytes more, which are taken over.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from . import content
from .control import Control
from .job import TryAgain

if TYPE_CHECKING:
    from .connect import Answer, Client
    from .pipe import Pipe

MAX_LINE = 8192  # bytes of a chunk's size line
MAX_SILENT = 1 << 20  # bytes in a row that may decode to nothing
_LINE_READ = 64 << 10  # bytes asked for while looking for a chunk's size
_EMPTY_LINE = re.compile(rb"\r?\n")
_NEXT_CHUNK = re.compile(rb"\r?\n(?=0*[1-9a-fA-F])([0-9a-fA-F]{1,16})\r?\n")  # and not the last one
_PACKED_READ = 256 << 10  # bytes asked for that will have to be unpacked
_SMALL = 64 << 10  # bytes that are gathered before anything is done with them: piece by piece they cost more
_GATHER = 0.1  # seconds for which they are waited for
_SNIFFED = 2  # bytes that tell one format from another
_GZIP = b"\x1f\x8b"
_ANY_HEADER = 32 + zlib.MAX_WBITS  # gzip or zlib, whichever it is
_BARE = -zlib.MAX_WBITS
_MEMBER = 4096  # bytes that a member counts for, however small it is
_BROKEN = (OSError, ValueError)  # ssl's word for a socket that was closed is the latter
MISFIT = "The server sent a file in pieces that do not fit together"
CUT = "The connection was closed before the file was complete"


class Reader(Protocol):
    """Where bytes come from."""

    def read(self, view: memoryview, control: Control) -> int:
        """Read some bytes into `view`; 0 at the end. Raises Stopped, TryAgain."""


class Body:
    """The body of one answer; whoever holds it owns the connection until `close`."""

    def __init__(self, answer: Answer, name: str) -> None:
        """`name` is the file's. Raises TransferError: the body is packed in a way that cannot be undone."""
        self._answer = answer
        message: Any = answer.message
        self._stream = _Stream(message.fp)
        codings = content.codings(answer.headers.get("content-encoding", ""), name)
        self._plain = _Chunks(self._stream) if message.chunked else _Plain(self._stream, message.length)
        self._framed = message.chunked or message.length is not None
        if not self._framed:
            self._stream.insist_on_end()
        self._ahead = b""  # what was looked at already
        self._reader: Reader = self._plain
        for coding in reversed(codings):
            self._reader = _Decoded(self._reader, coding)

    def read(self, view: memoryview, control: Control) -> int:
        """Read some bytes into `view`; 0 at the end. Raises Stopped, TryAgain, TransferError.

        Only what belongs to the file counts as something that moved.
        """
        if self._ahead:
            count = min(len(view), len(self._ahead))
            view[:count], self._ahead = self._ahead[:count], self._ahead[count:]
            return count
        if control.asked:  # little that is encoded may give much to write
            control.check()
        count = self._reader.read(view, control)
        control.touch()
        return count

    def pipe(self, pipe: Pipe, most: int, control: Control) -> int:
        """As `read`, unseen, into a pipe, at most so many bytes; 0: they have to be read."""
        if self._ahead or not isinstance(self._reader, _Plain):
            return 0
        count = self._reader.pipe(pipe, most, control)
        control.touch()
        return count

    def begins(self, control: Control) -> bytes:
        """Its first bytes, as many as `content.judge` wants to see; `read` gives them again. Raises as it."""
        view, size = memoryview(bytearray(content.HEAD_SIZE)), 0
        while size < len(view) and (count := self.read(view[size:], control)):
            size += count
        self._ahead = bytes(view[:size])
        return self._ahead

    def finish(self, client: Client) -> None:
        """Let a client send another request over the connection, if all was read; else end it."""
        if not self._framed or self._stream.is_ahead or not self._plain.is_over:
            self.close()
            return
        self._answer.release(client)

    def close(self) -> None:
        """End the connection."""
        self._answer.close()


class _Stream:
    """A socket, and what was read from it already."""

    def __init__(self, file: Any) -> None:
        self._rest, self._at = b"", 0  # what was read ahead, and how much of it is taken
        self._socket: Any = file.raw._sock if file else None
        # ssl's own, or urllib3's for TLS within TLS, which has not all methods of a socket.
        self._is_tls = hasattr(self._socket, "suppress_ragged_eofs")
        if self._socket:
            # The short way into ssl, since a GiB is 65,536 records; 0: as many bytes as fit.
            self._recv_into = partial(self._socket.read, 0) if self._is_tls else self._socket.recv_into
            if self._socket.gettimeout() != 0.0:
                self._socket.settimeout(0.0)
            with suppress(OSError):  # nothing is waiting; or it is broken, and the first read will say so
                self._rest = bytes(file.peek())

    @property
    def is_ahead(self) -> bool:
        """Whether more has come than was taken: over TLS the system cannot tell, it is decrypted already."""
        if self._at < len(self._rest) or not self._is_tls:
            return self._at < len(self._rest)
        if hasattr(self._socket, "pending"):
            return bool(self._socket.pending())
        return bool(self._socket.sslobj.pending() or self._socket.incoming.pending)

    def insist_on_end(self) -> None:
        """Only the end of the connection will tell the length: over TLS it must be a signed one."""
        if self._is_tls:
            self._socket.suppress_ragged_eofs = False

    def read(self, view: memoryview, control: Control) -> int:
        """Bytes as they come; 0 when the other side has closed."""
        if not (count := self.take(view)):
            return self.receive(view, control)
        return count if self._at < len(self._rest) else self._fill(view, count)

    def take(self, view: memoryview) -> int:
        """Bytes that were read ahead; 0 where none are left."""
        data = self._rest[self._at : self._at + len(view)]
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def skip(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Leave out what comes next, where it was read ahead and is like that."""
        if found := pattern.match(self._rest, self._at):
            self._at = found.end()
        return found

    def line(self, control: Control) -> bytes:
        """A line without its end. Raises TryAgain where it is cut, or far too long."""
        while (end := self._rest.find(b"\n", self._at)) < 0:
            if len(self._rest) - self._at > MAX_LINE:
                raise TryAgain(MISFIT)
            view = memoryview(bytearray(_LINE_READ))
            count = self.receive(view, control)
            if not count:
                raise TryAgain(CUT)
            self._rest, self._at = self._rest[self._at :] + view[:count], 0
        line, self._at = self._rest[self._at : end], end + 1
        return line.rstrip(b"\r")

    def receive(self, view: memoryview, control: Control) -> int:
        """As `read`, past what was read ahead."""
        if self._socket is None:
            return 0
        while True:
            if control.asked:
                control.check()
            try:
                count: int = self._recv_into(view)
                break
            except (BlockingIOError, ssl.SSLWantReadError):
                control.wait(readable=[self._socket])
            except ssl.SSLWantWriteError:
                control.wait(writable=[self._socket])
            except _BROKEN as error:
                raise TryAgain(CUT) from error
        return self._fill(view, count) if self._is_tls and count else count

    def pipe(self, pipe: Pipe, most: int, control: Control) -> int:
        """As `receive`, into a pipe; 0: something is in the way, and `read` knows what."""
        while self._socket and not (self._is_tls or self._at < len(self._rest)):
            if control.asked:
                control.check()
            try:
                return pipe.fill(self._socket, most)
            except BlockingIOError:
                control.wait(readable=[self._socket])
        return 0

    def gather(self, view: memoryview, control: Control) -> int:
        """What else comes in a moment, up to the view's length. Raises nothing: the next read says why."""
        count, more, end = 0, 1, time.monotonic() + _GATHER
        with self._woken_by(len(view)):
            while more and count < len(view) and (left := end - time.monotonic()) > 0:
                more = self._fill(view[count:], 0) if control.linger(self._socket, left) else 0
                count += more
        return self._fill(view, count)

    @contextmanager
    def _woken_by(self, count: int) -> Iterator[None]:
        """Have no wait end for less than `count` bytes, where the system can: each packet would end one.

        Over TLS part of them may be within the library, where no wait sees them.
        """
        if self._is_tls:
            yield
            return
        with suppress(OSError):  # Windows cannot
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
        try:
            yield
        finally:
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    def _fill(self, view: memoryview, count: int) -> int:
        """Gather what has arrived: TLS gives a record of 16 KiB at most, a head the body's beginning."""
        try:
            while count < len(view) and (more := self._recv_into(view[count:])):
                count += more
        except _BROKEN:
            pass  # nothing more for now, or broken: the next read says which
        return count


class _Plain:
    """A body with a length, or up to the end of the connection (RFC 9112, section 6.3)."""

    def __init__(self, stream: _Stream, length: int | None) -> None:
        self._stream = stream
        self._left = length

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self._left == 0

    def read(self, view: memoryview, control: Control) -> int:
        if self._left is None:
            return self._stream.read(view, control)
        if not self._left:
            return 0
        view = view[: self._left]
        count = self._stream.read(view, control)
        if not count:
            raise TryAgain(CUT)
        if count < self._left <= _SMALL:
            count += self._stream.gather(view[count:], control)
        self._left -= count
        return count

    def pipe(self, pipe: Pipe, most: int, control: Control) -> int:
        if self._left is None:
            return 0
        count = self._stream.pipe(pipe, min(most, self._left), control)
        self._left -= count
        return count


class _Chunks:
    """A chunked body (RFC 9112, section 7.1). Stopping anywhere loses nothing.

    The last chunk makes it whole (section 8). Trailers are not waited for: they cost the connection.
    """

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream
        self._left = 0  # of the chunk under way
        self._line_due = False  # the one that ends a chunk's data
        self._last = False
        self.is_over = False
        """Whether nothing more will come."""

    def read(self, view: memoryview, control: Control) -> int:
        while not (self._left or self._last):
            self._step(control)
        if self._last:
            return 0
        count = self._stream.read(view[: self._left], control)
        if not count:
            raise TryAgain(CUT)
        self._took(count)
        return count + self._more(view[count:])

    def _took(self, count: int) -> None:
        self._left -= count
        self._line_due = not self._left

    def _more(self, view: memoryview) -> int:
        """Small chunks that have come with it: one by one they would cost a look at the disk each.

        It waits for nothing and raises nothing, so that nothing of what was read is lost.
        """
        count = 0
        while self._line_due and count < len(view) and (head := self._stream.skip(_NEXT_CHUNK)):
            self._left = int(head[1], 16)
            some = self._stream.take(view[count : count + self._left])
            self._took(some)
            count += some
        return count

    def _step(self, control: Control) -> None:
        line = self._stream.line(control)
        if self._line_due:
            if line:
                raise TryAgain(MISFIT)
            self._line_due = False
        else:
            self._left = _chunk_size(line)
            self._last = not self._left
            self.is_over = self._last and bool(self._stream.skip(_EMPTY_LINE))


def _chunk_size(line: bytes) -> int:
    digits = line.split(b";")[0].strip()
    if not re.fullmatch(rb"[0-9a-fA-F]{1,16}", digits):
        raise TryAgain(MISFIT)
    return int(digits, 16)


class _Decoded:
    """Undoes one ``Content-Encoding``, though ``identity`` was asked for."""

    def __init__(self, source: Reader, coding: str) -> None:
        self._source = source
        self._is_gzip = coding == "gzip"
        self._zlib: Any = None  # of the member under way
        self._input = b""
        self._is_over = False
        self._silent = 0  # bytes read since something was decoded

    def read(self, view: memoryview, control: Control) -> int:
        while not (count := self._decode(view)):
            if self._is_over or (len(self._input) < _SNIFFED and not self._more(view, control)):
                return 0
        self._silent = 0
        return count

    def _decode(self, view: memoryview) -> int:
        """What the input so far still gives: zlib may hold output back beyond the buffer's length."""
        if not self._zlib or self._zlib.eof:
            self._begin()
        if self._is_over or not self._zlib or self._zlib.eof:
            return 0
        try:
            data = self._zlib.decompress(self._input, len(view))
        except zlib.error as error:
            raise TryAgain("The server sent the file damaged") from error
        self._input = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail
        view[: len(data)] = data
        return len(data)

    def _begin(self) -> None:
        """Once enough of it has come, begin a member: gzip files can follow each other (RFC 1952, 2.2).

        What follows and is none is not the file's: others ignore it too.
        """
        if len(self._input) < _SNIFFED:
            return
        if self._zlib and not (self._is_gzip and self._input.startswith(_GZIP)):
            self._is_over = True
        else:
            self._endure(_MEMBER)
            self._zlib = zlib.decompressobj(wbits=_BARE if self._is_bare() else _ANY_HEADER)

    def _is_bare(self) -> bool:
        """Whether it is deflate without the header that belongs before it, as many servers send it."""
        head = self._input[:_SNIFFED]
        is_zlib = head[0] & 15 == zlib.DEFLATED and int.from_bytes(head) % 31 == 0  # RFC 1950, section 2.2
        return not (self._is_gzip or is_zlib or head == _GZIP)

    def _more(self, view: memoryview, control: Control) -> bool:
        """Read on; the caller's buffer is free until something was decoded."""
        count = self._source.read(view[:_PACKED_READ], control)
        if not count and (not self._zlib.eof if self._zlib else self._input):
            raise TryAgain(CUT)
        self._endure(count)
        self._input += view[:count]
        return count > 0

    def _endure(self, count: int) -> None:
        """Something was read that has not given anything yet."""
        self._silent += count
        if self._silent > MAX_SILENT:
            raise TryAgain("The server sent the file damaged")
