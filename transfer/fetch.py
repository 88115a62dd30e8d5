"""One download as an object: workers run it until it ends or is asked to stop, others go on later.

What is known of the file and the open responses live here, not in a thread, so pausing costs
nothing: asked to stop in a body, a transfer keeps its connection.
"""

from __future__ import annotations

import email.utils
import logging
import os
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from . import answers, content, disk, names, portable, retry
from .answers import Ask, Trust
from .control import CalledBack, Control
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
)
from .part import Memory, Part, discard_leftover
from .ranges import parse_content_range
from .segments import JOINT, OVERLAP, Segment, Segments
from .space import Space

if TYPE_CHECKING:
    from pathlib import Path

    import requests

    from .body import Body
    from .connect import Client

log = logging.getLogger(__name__)

BUFFER = 256 << 10  # bytes; one for each worker. Larger is no faster
MAX_REDIRECTS = 20
NEIGHBOUR_LOOK = 0.02  # seconds between two looks at how another worker gets on


class _AskAgain(Exception):
    """The answer changed what to ask for: nothing failed, and no wait is due."""


class _NotAlone(TryAgain):
    """What this worker met concerns the whole file, of which others are fetching more."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What a stopped transfer knows that is not in its sidecar yet; another process goes on from it."""

    memory: Memory
    tries: retry.Tries


class Transfer:
    """One download. Workers run it, usually one; the counters may be read from any thread."""

    def __init__(
        self,
        job: Job,
        settings: Settings,
        space: Space | None = None,
        *,
        carried: Carried | None = None,
    ) -> None:
        """`carried`: what another process gave away, for this one to go on with."""
        self.job = job
        self.name = names.from_url(job.url) or names.FALLBACK
        self.size: int | None = None
        self._settings = settings
        self._space = space or Space()
        memory = carried.memory if carried else None
        self._part = Part(job.url, job.directory, job.digest, earlier=job.partial, memory=memory)
        self._segments = Segments(self._part.lock, settings.split_seconds)
        self._tries = carried.tries if carried else retry.Tries()
        self._ask_for = Ask.RANGE
        self._trust = Trust.ONE
        self._content_type: str | None = None  # once an answer gave the file its name

    # -- For the main thread.

    @property
    def received(self) -> int:
        """Bytes of the file that are there."""
        return self._part.received.ranges.total()

    @property
    def connections(self) -> int:
        """How many connections it holds that nobody reads from."""
        return self._segments.connections

    @property
    def controls(self) -> list[Control]:
        """Of the workers that run it just now."""
        return self._segments.controls

    def progress(self, now: float) -> Progress:
        """The counters as they are."""
        controls = self._segments.controls
        # Where one receives, that is what the download does, whatever its helpers do.
        main = max(controls, key=lambda control: control.phase is Phase.BODY, default=None)
        return Progress(
            name=self.name,
            received=self.received,
            size=self.size,
            phase=main.phase if main else Phase.IDLE,
            idle=min((control.idle(now) for control in controls), default=0.0),
            text=self._text(main),
        )

    def _text(self, control: Control | None) -> str:
        if control and control.phase is Phase.VERIFY and self.size:
            return f"verifying {self._part.hashed / self.size:.0%}"
        return self._tries.text

    def decline(self, control: Control) -> None:
        """A worker that was to help cannot; others are not sent at once."""
        self._segments.leave(control, failed=True)

    def call_back(self) -> bool:
        """Have a worker leave it to the others, for another download; False: none can be spared."""
        return self._segments.call_back(self.size)

    def missing(self) -> int:
        """Bytes that the disk will have to take yet, where known."""
        return max(0, (self.size or 0) - self.received)

    def help_wanted(self, now: float) -> int:
        """How many more workers would get it done earlier."""
        received = self._part.received
        return self._segments.wanted(received.ranges, received.size, now)

    # -- For whoever owns it while no worker runs it.

    def hang_up(self) -> None:
        """Close the connections that nobody reads from; what was received stays. Any thread."""
        self._segments.hang_up()

    def close(self) -> None:
        """Release everything, keeping what was received for another process.

        A worker that is stuck in a name look-up finds nothing to touch when it wakes.
        """
        self.hang_up()
        self._part.close()

    def carry(self) -> Carried | None:
        """Close the connections; returns what another process needs to go on from it at once.

        None, and they stay, where only they bring the rest.
        """
        if self.connections and not self._part.can_resume:
            return None
        self.hang_up()
        return Carried(self._part.memory, self._tries)

    def discard(self) -> None:
        """Release everything, and delete what was received unless another Blender has it."""
        self.hang_up()
        self._part.discard()
        for name in (self._part.path.name, self.job.partial):
            discard_leftover(self.job.directory, name)

    # -- For a worker.

    def run(
        self, control: Control, client: Client, buffer: memoryview, *, helps: bool = False
    ) -> Finished | Skipped | None:
        """Download until it is done, or until there is nothing left for this worker: then None.

        Blocks. `buffer` is the worker's own. `helps`: others run it already. Of all that run it
        the last one raises Stopped when asked through `control` (call again to go on) and
        TransferError when it cannot be done (call again to try anew).
        """
        if not self._segments.enter(control, helps=helps):
            return None
        try:
            with disk.explained(self.job.directory):
                skipped = None if helps else self._prepare(control, buffer)
                control.meanwhile = self._part.save_meanwhile
                return skipped or self._work(control, client, buffer, may_split=helps)
        except BaseException as error:
            if self._segments.leave(control, failed=isinstance(error, TransferError)):
                _log_unforeseen(error)
                return None
            self._halt(error)
            raise
        finally:
            self._segments.exit(control)
            if not self._segments.controls:
                self._space.free(self)

    def _halt(self, error: BaseException) -> None:
        """Nobody runs it any more, and it is not done."""
        if isinstance(error, Stopped):
            self._part.release()
            self._tries.pause(time.monotonic())
        else:
            self.close()
            self._tries = retry.Tries(furthest=self._tries.furthest)  # a retry by hand starts anew
            self._ask_for = Ask.RANGE

    def _prepare(self, control: Control, buffer: memoryview) -> Skipped | None:
        """What comes before the first request."""
        self._tries.begin(time.monotonic())
        names.check(self.job.url)
        disk.prepare_folder(self.job.directory)
        if self.job.if_exists is IfExists.SKIP and (skipped := self._already_there()):
            self.discard()
            return skipped
        part = self._part
        if not part.open(control.sleep):
            self.hang_up()
        self.size = part.received.size
        self._tries.furthest = max(self._tries.furthest, self.received)
        if part.can_resume:
            part.hash_up_to(part.received.ranges.head(), control, buffer)
        return None

    def _work(
        self, control: Control, client: Client, buffer: memoryview, *, may_split: bool
    ) -> Finished | Skipped | None:
        """Fetch segment after segment; whoever is alone at the end finishes."""
        while True:
            segment = self._claim(control, may_split=may_split)
            may_split = False
            if not segment:
                if self._part.received.is_whole:
                    self._segments.call_off(control)
                if self._segments.leave(control):
                    return None
                segment = self._claim(control)  # what others have left meanwhile
            is_helped = len(self._segments.controls) > 1
            try:
                if not segment:
                    return self._finish(control, buffer)
                if skipped := self._fetch(segment, control, client, buffer):
                    return skipped
            except _AskAgain:
                self._check_time()
            except CalledBack:
                if self._segments.leave(control):
                    return None
            except TransferError as error:
                wait = (error.retry_after if isinstance(error, TryAgain) else None) or 0.0
                if self._segments.leave(control, failed=True, wait=wait):
                    return None
                if segment and self._is_all_there:  # others have brought it meanwhile
                    continue
                if is_helped and not isinstance(error, TryAgain):
                    continue  # it was refused beside others, who are gone: now it counts
                self._go_on_after(error, control)

    @property
    def _is_all_there(self) -> bool:
        """Whether no request is needed any more."""
        return self._content_type is not None and self._part.received.is_whole

    def _go_on_after(self, error: TransferError, control: Control) -> None:
        """Decide alone what to do next; raises TransferError where nothing can be done."""
        if isinstance(error, _NotAlone):
            return  # it is alone by now
        try:
            self._back_off(error, control)
        except TransferError:
            if self._trust is not Trust.PROVEN or (isinstance(error, TryAgain) and error.retry_after):
                raise
            self._trust, self._ask_for = Trust.ALONE, Ask.WHOLE
            self._tries.failures = 0

    def _back_off(self, error: TransferError, control: Control) -> None:
        """Wait until it may be tried again; raises TransferError where it may not."""
        if not isinstance(error, TryAgain):
            raise error
        self._check_time()
        first_delay, began = self._settings.first_delay, time.monotonic()
        delay = self._tries.delay(str(error), error.retry_after, first_delay=first_delay)
        try:
            control.enter(Phase.BACKOFF)
            control.sleep(delay)
        finally:
            self._tries.waited_for(time.monotonic() - began)

    def _check_time(self) -> None:
        self._tries.check(time.monotonic(), self._settings.timeout)

    def _claim(self, control: Control, *, may_split: bool = False) -> Segment | None:
        received = self._part.received
        if self._is_all_there:
            return None
        if segment := self._segments.take_up(control):
            return segment
        if self._ask_for is Ask.WHOLE:
            return self._segments.add(Segment(0, received.size, control, is_sole=True))
        segment = self._segments.claim(control, received.ranges, received.size, may_split=may_split)
        if not segment and received.is_whole and self._content_type is None:
            # Its name is the server's to say: a new process asks for the end of the file once more.
            segment = self._segments.add(Segment(received.size or 0, received.size, control))
        return segment

    def _fetch(
        self, segment: Segment, control: Control, client: Client, buffer: memoryview
    ) -> Skipped | None:
        try:
            skipped = None if segment.body else self._ask(segment, control, client)
            if not skipped:
                self._receive(segment, control, buffer)
        except (Stopped, CalledBack):
            self._segments.stop(segment)
            raise
        except BaseException:
            self._segments.drop(segment, failed=True)
            raise
        else:
            self._segments.drop(segment)
            return skipped
        finally:
            if segment.is_past_end:  # others have brought what comes next, the same at the joint
                self._trust = self._trust.forward(Trust.PROVEN)

    def _decide(self) -> None:
        """What follows concerns the whole file. Raises _NotAlone, _AskAgain where this answer does not."""
        if not self._segments.is_alone():
            raise _NotAlone("The server sends something else to one of several connections")
        if self._is_all_there:
            raise _AskAgain  # the rest was brought meanwhile

    def _forget(self) -> None:
        """Begin from zero, in the file and in the counters. Raises _NotAlone, _AskAgain where they stay."""
        self._decide()
        self._clear()

    def _clear(self) -> None:
        self.hang_up()
        self._part.forget()
        self.size = None
        self._ask_for, self._trust = Ask.RANGE, self._trust.anew()

    # -- Asking.

    def _ask(self, segment: Segment, control: Control, client: Client) -> Skipped | None:
        """Request a segment, and decide what the answer means.

        Raises _AskAgain, TransferError, Stopped.
        """
        received = self._part.received
        segment.counts = received.size is None or received.is_whole
        is_range = self._go_back(segment)
        headers = self._range_headers(segment) if is_range else self._conditions()
        with self._segments.lock:
            self._tries.request()
        try:
            response = self._follow(client, control, headers)
        except (Stopped, CalledBack):
            with self._segments.lock:
                self._tries.requests -= 1  # interrupted by us: not a try
            raise
        try:
            if response.status_code == 200 and client.is_for_others(response):
                segment.is_sole = True  # a proxy that gets it whole can serve other machines too
            return self._judge(response, segment, is_range)
        except BaseException:
            response.close()
            raise

    def _go_back(self, segment: Segment) -> bool:
        """Begin a little earlier where the disk holds that; False: the whole file is to be asked for."""
        part = self._part
        if segment.is_sole or not part.received.ranges.total():
            return False
        if not part.can_resume:
            self._begin_anew()
        is_last = segment.end in (None, part.received.size)
        overlap = OVERLAP if is_last else OVERLAP - JOINT
        segment.offset -= min(overlap, part.received.ranges.before(segment.offset))
        return True

    def _range_headers(self, segment: Segment) -> dict[str, str]:
        received = self._part.received
        last = "" if segment.end in (None, received.size) else segment.end - 1
        headers = {"Range": f"bytes={segment.offset}-{last}"}
        validator = received.validator.if_range
        if validator and self._ask_for is not Ask.BARE:
            headers["If-Range"] = validator
        return headers

    def _conditions(self) -> dict[str, str]:
        """For UPDATE: ask only for what differs from the file that is there (RFC 9110, section 13.1)."""
        if self.job.if_exists is not IfExists.UPDATE:
            return {}
        have = self.job.have
        try:
            status = os.stat(portable.reach(self._path(self._known_name())))
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
            if response.status_code not in answers.REDIRECTS or "Location" not in response.headers:
                return response
            response.close()
            self._check_time()
            cookies.update(response.cookies)
            url = answers.redirected(str(response.url), response.headers["Location"])
        raise TransferError(f"The server sends this download round in circles. {retry.LATER}")

    def _judge(self, response: requests.Response, segment: Segment, is_range: bool) -> Skipped | None:
        """Decide what an answer means: the segment gets its body, unless there is nothing to fetch."""
        status = response.status_code
        if status == 206 and is_range:
            self._continue(response, segment)
            return None
        if status in answers.NO_RANGES and is_range:
            self._decide()
            self._ask_for = Ask.WHOLE
            raise _AskAgain
        if status == 304 and self.job.if_exists is IfExists.UPDATE:
            response.close()
            self._part.discard()
            return self._skipped(self._known_name(), "Not changed on the server")
        if status not in (200, 203):
            raise answers.refusal(response)
        known = self._part.received.validator
        if is_range and self._ask_for is not Ask.BARE and answers.certainly_same(known, response):
            self._ask_for = Ask.BARE  # some servers drop the range only because of If-Range
            raise _AskAgain
        return self._begin(response, segment)

    def _begin(self, response: requests.Response, segment: Segment) -> Skipped | None:
        """The whole file comes."""
        self._decide()
        if self.received:
            self._refuse_page(response)
        self._take_name(response)
        if self.job.if_exists is IfExists.SKIP and (skipped := self._already_there()):
            response.close()
            self._part.discard()
            return skipped
        body = self._open_body(response)
        if self._goes_through(response, body):
            segment.is_sole = True
        else:
            self._forget()
            received = self._part.received
            received.encoded = body.encoded
            if not body.encoded:
                received.size, received.validator = body.length, answers.validator(response)
        self.size = self._part.received.size
        self._need_space()
        segment.offset = 0
        segment.open(body, self.size, self.size)
        return None

    def _goes_through(self, response: requests.Response, body: Body) -> bool:
        """Whether what is there can stay, to be compared: it seems to be the very same file."""
        received = self._part.received
        if not received.ranges.total() or received.encoded or body.encoded or body.length != received.size:
            return False
        known = received.validator
        return answers.certainly_same(known, response) if known.if_range else self._part.can_resume

    def _refuse_page(self, response: requests.Response) -> None:
        """Give up nothing that was received for a page to sign in. Raises TransferError."""
        content_type = response.headers.get("Content-Type", "")
        if content.is_html(content_type):
            content.judge(b"<html>", self.name, content_type)
            if self._content_type is not None and not content.is_html(self._content_type):
                raise TransferError(content.PAGE)

    def _take_name(self, response: requests.Response) -> None:
        self._content_type = response.headers.get("Content-Type", "")
        self.name = names.choose(
            disposition=response.headers.get("Content-Disposition", ""),
            asked=self.job.url,
            final=str(response.url),
            content_type=self._content_type,
        )

    def _continue(self, response: requests.Response, segment: Segment) -> None:
        """A range comes: only if it is the one asked for, of the file that is on the disk."""
        received = self._part.received
        answered = parse_content_range(response.headers.get("Content-Range", ""))
        if not answered or answered[0] != segment.offset or not self._is_same(response, *answered):
            self._begin_anew()
        if self._content_type is None:
            self._take_name(response)
        body = self._open_body(response)
        if body.encoded:
            self._begin_anew()
        self._trust = self._trust.forward(Trust.SEVERAL)
        if received.size is None:
            self.size = answered[2]  # believed once all of the range was seen to fit
        if not received.validator.if_range:
            received.validator = answers.validator(response)  # for the next time
        self._need_space()
        wanted = self.size if segment.end is None else segment.end
        segment.open(body, None if wanted is None else min(wanted, answered[1]), answered[1])

    def _is_same(self, response: requests.Response, start: int, _end: int, size: int | None) -> bool:
        """Whether nothing in the answer says that it is another version of the file."""
        received = self._part.received
        known, now = received.validator, answers.validator(response)
        is_proven = self._ask_for is not Ask.BARE or received.ranges.has(start)  # by If-Range, or an overlap
        if not is_proven and not answers.certainly_same(known, response):
            return False
        return not (
            (size is not None and received.size is not None and size != received.size)
            or (now.etag and known.etag and now.etag != known.etag)
            or (now.last_modified and known.last_modified and now.last_modified != known.last_modified)
        )

    def _open_body(self, response: requests.Response) -> Body:
        from .body import Body

        return Body(response, self.name)

    def _need_space(self) -> None:
        if self.size is not None:
            self._space.claim(self, self.job.directory)

    # -- Receiving.

    def _receive(self, segment: Segment, control: Control, buffer: memoryview) -> None:
        """Read a body to the segment's end, into the file."""
        control.enter(Phase.BODY)
        part, body = self._part, segment.body
        assert body
        if part.can_resume and self._trust is not Trust.ALONE and not segment.is_sole:
            self._segments.welcome()
        while self._is_due(segment, control) and (count := body.read(buffer, control)):
            self._place(segment, self._fitting(segment, buffer[:count]))
            part.save()
        if not segment.is_past_end and not segment.was_kept:
            body.finish(self._settings.timeout)
            segment.body = None  # the connection is the client's again
        self._know_size(segment)

    def _is_due(self, segment: Segment, control: Control) -> bool:
        """Whether to read on, which may be what another was to fetch."""
        if not segment.is_past_end or segment.is_overlong:
            return not segment.is_past_end
        received, speed = self._part.received, segment.speed
        while (goes_on := self._segments.go_on(segment, received.ranges, received.size or 0, speed)) is None:
            control.sleep(NEIGHBOUR_LOOK)
            control.touch()
        return goes_on

    def _fitting(self, segment: Segment, data: memoryview) -> memoryview:
        """What the response was to bring, some of which may be somebody else's already."""
        end = segment.offset + len(data)
        if self.size is not None and end > self.size:
            self._forget()
            raise TryAgain("The server sent more than it had announced")
        if segment.reach is None or end <= segment.reach:
            return data
        segment.is_overlong = True
        return data[: segment.reach - segment.offset]

    def _place(self, segment: Segment, data: memoryview) -> None:
        """Write what is new, compare what is there already. Raises _AskAgain, TryAgain."""
        part = self._part
        with part.placing:
            if segment.is_void:
                raise _NotAlone("The server sends something else over one of several connections")
            if not part.fits(data, segment.offset):
                self._misfit(segment)
            segment.counts |= part.write(data, segment.offset)
            segment.offset += len(data)
        self._count(segment)

    def _misfit(self, segment: Segment) -> None:
        """It does not fit what is there. Raises _AskAgain, _NotAlone unless it is the one to go by."""
        if not segment.counts and not segment.is_sole:
            self._begin_anew()
        self._trust = Trust.ALONE
        main = self._segments.rely_on_one(self.size)
        self._part.doubt(main.offset if main else 0)
        if not main:
            self._begin_anew()
        if main is not segment:
            raise _NotAlone("The server sends something else over one of several connections")

    def _begin_anew(self) -> NoReturn:
        self._forget()
        raise _AskAgain

    def _count(self, segment: Segment) -> None:
        """See how far it got."""
        received = self.received
        with self._segments.lock:
            is_new = received > self._tries.furthest
            self._tries.progress(received)
            if is_new and self._ask_for is Ask.WHOLE:
                self._ask_for = Ask.RANGE
        if is_new or segment.is_sole:  # what is there is looked at once more, in a file that has an end
            self._tries.came(time.monotonic())
        else:
            self._check_time()

    def _know_size(self, segment: Segment) -> None:
        """The body has ended where it should, or where only its end could tell."""
        received = self._part.received
        if segment.end is None:
            segment.end = self.size = segment.offset
        if segment.offset < segment.end:
            raise TryAgain("The server sent less than it had announced")
        received.size = self.size

    # -- The end.

    def _finish(self, control: Control, buffer: memoryview) -> Finished | Skipped:
        """All bytes are there: look at them, then give the file its name."""
        self.hang_up()
        self._verify(control, buffer)
        try:
            head, asked = self._part.read(0, content.HEAD_SIZE), names.extension_in(self.job.url)
            remark = content.judge(head, self.name, self._content_type or "", asked=asked)
        except TransferError:
            self._part.discard()
            raise
        control.enter(Phase.PUBLISH)
        have, path = self._publish(control)
        if path is None:
            self._part.discard()
            return self._skipped(self.name, "")
        return Finished(filepath=path, size=self.received, note=remark, have=have)

    def _publish(self, control: Control) -> tuple[Have | None, str | None]:
        part, is_update = self._part, self.job.if_exists is IfExists.UPDATE
        validator, size = part.received.validator, part.received.size or 0
        mtime = answers.timestamp(validator.last_modified) if is_update else None
        path = part.publish(
            self.name, self.job.if_exists, mtime=mtime, placed=self._note_done, wait=control.sleep
        )
        if not path:
            return None, None
        if not is_update:
            return None, str(path)
        status = os.stat(portable.reach(str(path)))
        return Have(name=path.name, size=size, mtime=status.st_mtime, etag=validator.etag), str(path)

    def _note_done(self, path: Path) -> None:
        """So that it is not downloaded again where Blender dies before it has written its list."""
        if self.job.done:
            with suppress(OSError):
                disk.note(self.job.done, self.job.uid, path)

    def _verify(self, control: Control, buffer: memoryview) -> None:
        """Compare the digest. Raises TransferError; _AskAgain where in one piece it may be right."""
        if self._part.is_expected(control, buffer):
            return
        if self._trust in (Trust.SEVERAL, Trust.PROVEN):
            self._trust, self._tries = Trust.ALONE, retry.Tries()
            self._tries.begin(time.monotonic())
            self._clear()
            raise _AskAgain
        self._part.discard()
        raise TransferError(
            "The file is damaged or another one: its checksum differs. Try again, or get a new link"
        )

    def _known_name(self) -> str:
        return self.job.have.name if self.job.have else self.name

    def _already_there(self) -> Skipped | None:
        is_there = os.path.lexists(portable.reach(self._path(self.name)))
        return self._skipped(self.name, "Already there") if is_there else None

    def _skipped(self, name: str, note: str) -> Skipped:
        return Skipped(filepath=self._path(name), note=note)

    def _path(self, name: str) -> str:
        return os.path.join(self.job.directory, name)


def _log_unforeseen(error: BaseException) -> None:
    if not isinstance(error, (Stopped, CalledBack, TransferError)):
        log_defect(error)


def log_defect(error: BaseException) -> None:
    """Where it happened, without its message and those of what caused it: they may hold the URL."""
    where = "".join(traceback.format_tb(error.__traceback__))
    log.error("A download met something that nobody foresaw: %s\n%s", type(error).__name__, where)
