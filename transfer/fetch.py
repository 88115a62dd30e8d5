"""One download as an object: a worker runs it until it ends or is asked to stop, another goes on later.

What is known of the file (`Received`), the open response and the partial file live here, not in
a thread, so pausing costs nothing: asked to stop in the body, a transfer keeps its connection.
"""

from __future__ import annotations

import email.utils
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urljoin, urlsplit

from . import content, digest, names, retry
from .control import Control
from .job import (
    Finished,
    Have,
    IfExists,
    Job,
    Phase,
    Progress,
    Settings,
    Skipped,
    Stopped,
    TransferError,
    TryAgain,
    Validator,
)
from .part import Mark, Part, Received, TakenError, prepare_folder, told
from .ranges import parse_content_range

if TYPE_CHECKING:
    import requests

    from .body import Body
    from .connect import Client

OVERLAP = 64 << 10  # bytes fetched again on a resume, and compared with the disk
BUFFER = 256 << 10  # bytes; one for each worker. Larger is no faster
MAX_REDIRECTS = 20
LOCK_PATIENCE = 1.0  # seconds to wait for a partial file that somebody else has
LOCK_LOOK = 0.02  # seconds between two looks
MAX_FRUITLESS = 20  # times the time-out that may pass on the network without progress
VALIDATOR_SIZE = 1024  # characters; a longer one is not worth its way back and forth


class _AskAgain(Exception):
    """The answer changed what to ask for: nothing failed, and no wait is due."""


@dataclass(slots=True)
class _Exchange:
    """An open response, and where its next byte belongs."""

    body: Body
    offset: int
    overlap: int = 0
    """Bytes still to be compared with what is on the disk."""
    was_kept: bool = False
    """Whether the worker that reads it may be another than the one that asked."""


class Transfer:
    """One download. One worker at a time runs it; the counters may be read from any thread."""

    def __init__(self, job: Job, settings: Settings) -> None:
        self.job = job
        self.name = names.from_url(job.url) or "download"
        self.received = 0
        self.size: int | None = None
        self._settings = settings
        self._part: Part | None = None
        self._received: Received | None = None  # what the last partial file held,
        self._mark: Mark | None = None  # and how that file looked when it was let go of
        self._exchange: _Exchange | None = None
        self._tries = retry.Tries()
        self._furthest = 0  # the highest offset ever received: beyond it is progress
        self._fruitless = 0.0  # seconds on the network without progress, of earlier requests
        self._asked_at = 0.0  # when the time on the network began that is not in _fruitless yet
        self._hash = digest.new_hash(job.digest.algorithm) if job.digest else None
        self._hashed = 0  # bytes from the start that the hash has seen
        self._bare_range = False  # ask for a range without If-Range
        self._content_type = ""
        self._named = False  # by an answer of the server
        self._control: Control | None = None

    # -- For the main thread.

    @property
    def is_open(self) -> bool:
        """Whether it holds a connection while nobody runs it."""
        return self._exchange is not None

    def progress(self, now: float) -> Progress:
        """The counters as they are."""
        control = self._control
        return Progress(
            name=self.name,
            received=self.received,
            size=self.size,
            phase=control.phase if control else Phase.IDLE,
            idle=control.idle(now) if control else 0.0,
            text=self._tries.text,
        )

    # -- For whoever owns it while no worker runs it.

    def hang_up(self) -> None:
        """Close the connection; what was received stays."""
        exchange, self._exchange = self._exchange, None
        if exchange:
            exchange.body.close()

    def release(self) -> None:
        """Close connection and file, at no cost: what was received is remembered, not yet made durable."""
        self.hang_up()
        part, self._part = self._part, None
        if part:
            part.release()

    def close(self) -> None:
        """Release everything, keeping what was received for another process."""
        self.hang_up()
        if not self._part and self._received:
            self._reopen()
        part, self._part = self._part, None
        if part:
            part.close()

    def _reopen(self) -> None:
        """After `release`: make durable what is remembered, unless somebody else has the file by now."""
        with suppress(TransferError):
            self._part = self._open_existing()
            if self._part and self._part.mark() == self._mark and self._received:
                self._part.received = self._received

    def abandon(self) -> None:
        """As `close`, while a worker is stuck in a name look-up: when it wakes it finds nothing to touch."""
        part, self._part = self._part, None
        if part:
            part.close()

    def discard(self) -> None:
        """Release everything and delete what was received. Raises TransferError: another Blender has it."""
        self.hang_up()
        part, self._part = self._part or self._open_existing(), None
        self._received = None
        if part:
            part.discard()

    def _open_existing(self) -> Part | None:
        if not os.path.lexists(self._path(names.part_name(self.job.url, self.job.directory))):
            return None
        return Part(self.job.url, self.job.directory, self.job.digest)

    # -- For the worker.

    def run(self, control: Control, client: Client, buffer: memoryview) -> Finished | Skipped:
        """Download until it is done. Blocks; one worker at a time.

        `buffer` is the worker's own. Raises Stopped when asked through `control` (call again to go
        on) and TransferError when it cannot be done (call again to try anew).
        """
        self._control = control
        self._asked_at = time.monotonic()
        try:
            with told(self.job.directory):
                return self._run(control, client, buffer)
        except Stopped:
            self._fruitless += time.monotonic() - self._asked_at
            if self._exchange:
                self._exchange.was_kept = True
            self._remember()
            raise
        except BaseException:
            self._remember()
            self.close()
            self._tries = retry.Tries()  # a retry by hand starts anew
            self._fruitless = 0.0
            raise
        finally:
            self._control = None

    def _remember(self) -> None:
        """So that the next run knows whether the file is as this one left it."""
        with suppress(OSError):  # given up by the main thread just now
            if part := self._part:
                self._received, self._mark = part.received, part.mark()

    def _run(self, control: Control, client: Client, buffer: memoryview) -> Finished | Skipped:
        names.check(self.job.url)
        prepare_folder(self.job.directory)
        if self.job.if_exists is IfExists.SKIP and (skipped := self._already_there()):
            return skipped
        self._take_part(control)
        while True:
            try:
                return self._attempt(control, client, buffer)
            except _AskAgain:
                self.hang_up()
                self._count_fruitless()
            except TryAgain as error:
                self.hang_up()
                self._count_fruitless()
                delay = self._tries.delay(str(error), error.retry_after)
                control.enter(Phase.BACKOFF)
                control.sleep(delay)

    def _attempt(self, control: Control, client: Client, buffer: memoryview) -> Finished | Skipped:
        if not self._exchange and not self._is_whole():
            found = self._ask(control, client)
            if isinstance(found, Skipped):
                return found
            self._exchange = found
        if self._exchange:
            self._receive(self._exchange, control, buffer)
        return self._finish(control, buffer)

    # -- The partial file.

    @property
    def _open_part(self) -> Part:
        if not self._part:
            raise Stopped  # given up by the main thread while this worker was in a name look-up
        return self._part

    def _take_part(self, control: Control) -> None:
        """Keep the partial file that is open, or open it; believe our memory of it, else its sidecar."""
        if self._part and self._part.is_in_place() and self._part.mark() == self._mark:
            return
        self.release()
        self._part = part = self._open_patiently(control)
        if self._received and part.mark() == self._mark:
            part.received = self._received
        else:
            self._restart_hash()
        self._received = None
        self.received, self.size = part.received.ranges.total(), part.received.size
        self._furthest = max(self._furthest, part.received.ranges.head())

    def _open_patiently(self, control: Control) -> Part:
        """A download that gave way to this one may be letting go of the file just now."""
        end = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                return Part(self.job.url, self.job.directory, self.job.digest)
            except TakenError:
                if time.monotonic() > end:
                    raise
            control.sleep(LOCK_LOOK)

    def _is_whole(self) -> bool:
        """Whether only the end is missing. Its name is the server's to say: a new process asks again."""
        return self._named and self._open_part.received.is_whole

    def _forget(self) -> None:
        """Begin from zero, in the file and in the counters."""
        self.hang_up()
        self._open_part.received.forget()
        self._open_part.truncate()
        self.received, self.size, self._bare_range = 0, None, False
        self._restart_hash()

    def _restart_hash(self) -> None:
        self._hashed = 0
        if self.job.digest:
            self._hash = digest.new_hash(self.job.digest.algorithm)

    def _drop_part(self) -> None:
        part, self._part, self._received = self._open_part, None, None
        part.discard()

    # -- Asking.

    def _ask(self, control: Control, client: Client) -> _Exchange | Skipped:
        """Request what is missing, and decide what the answer means.

        Raises _AskAgain, TransferError, Stopped.
        """
        start, end = self._window()
        headers = self._range_headers(start) if end else self._conditions()
        self._tries.request()
        self._asked_at = time.monotonic()
        try:
            response = self._follow(client, control, headers)
        except Stopped:
            self._tries.requests -= 1  # interrupted by us: not a try
            self._asked_at = time.monotonic()
            raise
        try:
            return self._judge(response, start, end)
        except BaseException:
            response.close()
            raise

    def _window(self) -> tuple[int, int]:
        """From where to ask, and up to where the disk holds the file; (0, 0): from the beginning."""
        head = self._open_part.received.ranges.head()
        if head and not self._open_part.can_resume:
            self._forget()
            head = 0
        return max(0, head - OVERLAP), head

    def _range_headers(self, start: int) -> dict[str, str]:
        headers = {"Range": f"bytes={start}-"}
        validator = self._open_part.received.validator.if_range
        if validator and not self._bare_range:
            headers["If-Range"] = validator
        return headers

    def _conditions(self) -> dict[str, str]:
        """For UPDATE: ask only for what differs from the file that is there (RFC 9110, section 13.1)."""
        if self.job.if_exists is not IfExists.UPDATE:
            return {}
        have = self.job.have
        try:
            status = os.stat(self._path(self._known_name()))
        except OSError:
            return {}
        if have and have.etag and (status.st_size, status.st_mtime) == (have.size, have.mtime):
            return {"If-None-Match": have.etag}
        return {"If-Modified-Since": email.utils.formatdate(status.st_mtime, usegmt=True)}

    def _follow(self, client: Client, control: Control, headers: dict[str, str]) -> requests.Response:
        """Send the request, and again to where redirects lead (RFC 9110, section 15.4)."""
        url, cookies = self.job.url, client.no_cookies()
        for _ in range(MAX_REDIRECTS + 1):
            response = client.get(url, headers, control, cookies=cookies)
            if response.status_code not in _REDIRECTS or "Location" not in response.headers:
                return response
            response.close()
            cookies.update(response.cookies)
            url = _redirected(str(response.url), response.headers["Location"])
        raise TransferError("The server sends this download round in circles")

    def _judge(self, response: requests.Response, start: int, end: int) -> _Exchange | Skipped:
        """Decide what the answer to a request for the bytes from `start` means."""
        status = response.status_code
        if status == 206 and end:
            return self._continue(response, start, end)
        if status == 416 and end:
            self._forget()
            raise _AskAgain
        if status == 304 and self.job.if_exists is IfExists.UPDATE:
            response.close()
            self._drop_part()
            return self._skipped(self._known_name(), "Not changed on the server")
        if status not in (200, 203):
            raise _refusal(response)
        if end and not self._bare_range and _certainly_same(self._open_part.received.validator, response):
            self._bare_range = True  # some servers drop the range only because of If-Range
            raise _AskAgain
        return self._begin(response)

    def _begin(self, response: requests.Response) -> _Exchange | Skipped:
        """The whole file comes."""
        if self._open_part.received.ranges.total():
            self._refuse_page(response)
        self._forget()
        self._take_name(response)
        if self.job.if_exists is IfExists.SKIP and (skipped := self._already_there()):
            response.close()
            self._drop_part()
            return skipped
        body = self._open_body(response)
        received = self._open_part.received
        received.encoded = body.encoded
        if not body.encoded:
            received.size = self.size = body.length
            received.validator = _validator(response)
        self._need_space()
        return _Exchange(body, 0)

    def _refuse_page(self, response: requests.Response) -> None:
        """Give up nothing that was received for a page to sign in. Raises TransferError."""
        content_type = response.headers.get("Content-Type", "")
        if content_type.partition(";")[0].strip().lower() == "text/html":
            content.judge(b"<html>", self.name, content_type)

    def _take_name(self, response: requests.Response) -> None:
        self._named = True
        self._content_type = response.headers.get("Content-Type", "")
        self.name = names.choose(
            disposition=response.headers.get("Content-Disposition", ""),
            asked=self.job.url,
            final=str(response.url),
            content_type=self._content_type,
        )

    def _continue(self, response: requests.Response, start: int, end: int) -> _Exchange:
        """A range comes: only if it is the one asked for, of the file that is on the disk."""
        received = self._open_part.received
        answered = parse_content_range(response.headers.get("Content-Range", ""))
        if not answered or answered[0] != start or not self._is_same(response, answered[2]):
            self._forget()
            raise _AskAgain
        self._take_name(response)
        body = self._open_body(response)
        if body.encoded:
            self._forget()
            raise _AskAgain
        if received.size is None:
            received.size = self.size = answered[2]
        self._need_space()
        return _Exchange(body, start, overlap=end - start)

    def _is_same(self, response: requests.Response, size: int | None) -> bool:
        """Whether nothing in the answer says that it is another version of the file."""
        received = self._open_part.received
        known, now = received.validator, _validator(response)
        return not (
            (size is not None and received.size is not None and size != received.size)
            or (now.etag and known.etag and now.etag != known.etag)
            or (now.last_modified and known.last_modified and now.last_modified != known.last_modified)
        )

    def _open_body(self, response: requests.Response) -> Body:
        from .body import Body

        # Servers label a .tar.gz as encoded: decoded, it would not be what its name says.
        is_gzip_file = self.name.lower().endswith((".gz", ".tgz", ".svgz"))
        return Body(response, decode=not is_gzip_file)

    def _need_space(self) -> None:
        if self.size is None:
            return
        missing, free = self.size - self.received, shutil.disk_usage(self.job.directory).free
        if missing > free:
            raise TransferError(
                f"Not enough space: {_amount(missing)} are needed in “{self.job.directory}”,"
                f" {_amount(free)} are free. Make room, then press Retry"
            )

    # -- Receiving.

    def _receive(self, exchange: _Exchange, control: Control, buffer: memoryview) -> None:
        """Read the body to its end, into the file."""
        control.enter(Phase.BODY)
        part = self._open_part
        while count := exchange.body.read(buffer, control):
            data = buffer[:count]
            self._refuse_surplus(exchange.offset + count)
            if exchange.overlap:
                data = self._compare(exchange, data)
            if data:
                part.write(data, exchange.offset)
                self._record(exchange, data)
                if part.checkpoint_due():
                    part.checkpoint()
        self._exchange = None
        if exchange.was_kept:  # the connection is not of this worker's client, which counts its own
            exchange.body.close()
        else:
            exchange.body.finish(self._settings.timeout)
        self._know_size(exchange.offset)

    def _refuse_surplus(self, end: int) -> None:
        if self.size is not None and end > self.size:
            self._forget()
            raise TryAgain("The server sent more than it had announced")

    def _record(self, exchange: _Exchange, data: memoryview) -> None:
        """Count what has been written."""
        start, end = exchange.offset, exchange.offset + len(data)
        if self._hash and self._hashed == start:
            self._hash.update(data)
            self._hashed = end
        self._open_part.received.ranges.add(start, end)
        exchange.offset = end
        self.received += len(data)
        if end > self._furthest:
            self._furthest, self._fruitless, self._asked_at = end, 0.0, time.monotonic()
            self._tries.progress(end)
        else:
            self._end_if_fruitless()

    def _compare(self, exchange: _Exchange, data: memoryview) -> memoryview:
        """Check the overlap against the disk. Returns what lies behind it. Raises _AskAgain."""
        count = min(exchange.overlap, len(data))
        if self._open_part.read(exchange.offset, count) != data[:count]:
            self._forget()
            raise _AskAgain
        exchange.overlap -= count
        exchange.offset += count
        self._end_if_fruitless()
        return data[count:]

    def _know_size(self, end: int) -> None:
        """The body has ended where it should, or where only its end could tell."""
        received = self._open_part.received
        if received.size is None:
            received.size = self.size = end
        if not received.is_whole:
            raise TryAgain("The server sent less than it had announced")

    def _end_if_fruitless(self) -> None:
        if self._fruitless + time.monotonic() - self._asked_at > MAX_FRUITLESS * self._settings.timeout:
            raise TransferError("The server keeps the connection busy, but the download does not get on")

    def _count_fruitless(self) -> None:
        """Add up the time that failed requests took; backoff and Retry-After do not count."""
        self._end_if_fruitless()
        now = time.monotonic()
        self._fruitless, self._asked_at = self._fruitless + now - self._asked_at, now

    # -- The end.

    def _finish(self, control: Control, buffer: memoryview) -> Finished | Skipped:
        """All bytes are there: look at them, then give the file its name."""
        part = self._open_part
        part.truncate(part.received.size or 0)  # it may have been longer once
        self._verify(control, buffer)
        try:
            note = content.judge(part.read(0, content.HEAD_SIZE), self.name, self._content_type)
        except TransferError:
            self._drop_part()
            raise
        control.enter(Phase.PUBLISH)
        have, path = self._publish(part)
        if path is None:
            self._drop_part()
            return self._skipped(self.name, "")
        self._part = self._received = None
        return Finished(filepath=path, size=self.received, note=note, have=have)

    def _publish(self, part: Part) -> tuple[Have | None, str | None]:
        is_update = self.job.if_exists is IfExists.UPDATE
        validator, size = part.received.validator, part.received.size or 0
        mtime = _timestamp(validator.last_modified) if is_update else None
        path = part.publish(self.name, self.job.if_exists, mtime=mtime)
        if not path:
            return None, None
        if not is_update:
            return None, str(path)
        status = path.stat()
        return Have(name=path.name, size=size, mtime=status.st_mtime, etag=validator.etag), str(path)

    def _verify(self, control: Control, buffer: memoryview) -> None:
        """Compare the digest, reading from the disk only what was not seen while it came."""
        expected, size = self.job.digest, self.size or 0
        if not expected or not self._hash:
            return
        control.enter(Phase.VERIFY)
        while self._hashed < size:
            control.check()
            data = self._open_part.read(self._hashed, min(len(buffer), size - self._hashed))
            if not data:
                raise TransferError("The partial file was cut by something else. Press Retry")
            self._hash.update(data)
            self._hashed += len(data)
            control.touch()
        if not digest.matches(self._hash, expected):
            self._drop_part()
            raise TransferError("The file is not the one expected: its digest differs. Ask for a new link")

    def _known_name(self) -> str:
        return self.job.have.name if self.job.have else self.name

    def _already_there(self) -> Skipped | None:
        return self._skipped(self.name, "Already there") if os.path.lexists(self._path(self.name)) else None

    def _skipped(self, name: str, note: str) -> Skipped:
        return Skipped(filepath=self._path(name), note=note)

    def _path(self, name: str) -> str:
        return os.path.join(self.job.directory, name)


_REDIRECTS = (301, 302, 303, 307, 308)


def _redirected(url: str, location: str) -> str:
    """The absolute target of a redirect; user and password go along only to the same origin."""
    try:
        target = names.quoted(urljoin(url, _as_sent(location)))
    except ValueError as error:
        raise TransferError("The server sends this download to an address that cannot be read") from error
    old, new = urlsplit(url), urlsplit(target)
    if new.scheme not in ("http", "https"):
        raise TransferError("The server sends this download to a place that is not a web address")
    if old.username is not None and new.username is None and _origin(old) == _origin(new):
        target = new._replace(netloc=f"{old.netloc.rpartition('@')[0]}@{new.netloc}").geturl()
    return target


def _as_sent(location: str) -> str:
    """The text of a header that http.client has read as Latin-1: UTF-8, else escapes for its bytes."""
    sent = location.encode("latin-1", "replace")
    try:
        return sent.decode()
    except UnicodeDecodeError:
        return "".join(chr(byte) if byte < 128 else f"%{byte:02X}" for byte in sent)


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port


def _validator(response: requests.Response) -> Validator:
    return Validator(*(_sane(response.headers.get(name, "")) for name in ("ETag", "Last-Modified")))


def _sane(value: str) -> str:
    """What can go back to the server as it came; anything else is as good as nothing."""
    return value if len(value) <= VALIDATOR_SIZE and "\n" not in value and "\r" not in value else ""


def _certainly_same(known: Validator, response: requests.Response) -> bool:
    """Whether the answer carries the very validator that was sent as If-Range."""
    now = _validator(response)
    return bool(known.if_range) and known.if_range in (now.etag, now.last_modified)


def _timestamp(date: str) -> float | None:
    """An HTTP date as seconds since the epoch; None where there is none (RFC 9110, section 5.6.7)."""
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _refusal(response: requests.Response) -> TransferError:
    """What to say of a status that brings no file."""
    status = response.status_code
    sentence = _REFUSALS.get(status, f"The server answered with an error ({status})")
    if not retry.retryable(status):
        return TransferError(sentence)
    wait = retry.retry_after(response.headers.get("Retry-After", ""), time.time())
    return TryAgain(sentence, retry_after=wait)


_REFUSALS = {
    204: "The server has nothing to download at this link",
    400: "The server does not understand this link (400)",
    401: "This download needs a user name and a password (401)",
    403: "The server does not allow this download (403). The link may have expired: ask for a new one",
    404: "There is no file at this link (404)",
    407: "The proxy asks for a user name and a password (407)",
    408: "The server gave up waiting (408)",
    410: "The file is no longer at this link (410)",
    416: "The server does not offer the file from its beginning (416)",
    429: "The server asks for fewer downloads at a time (429)",
    451: "The server may not offer this file for legal reasons (451)",
    500: "The server has a problem of its own (500)",
    502: "A server on the way has a problem (502)",
    503: "The server is busy (503)",
    504: "A server on the way did not answer (504)",
}


def _amount(count: int) -> str:
    """Bytes as Blender writes them."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
