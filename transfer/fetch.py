"""One download as an object: workers run it until it ends or is asked to stop, others go on later.

What is known of the file and the open responses live here, not in a thread, so pausing costs
nothing: asked to stop in a body, a transfer keeps its connection.
"""

from __future__ import annotations

import email.utils
import logging
import os
import stat
import traceback
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NoReturn, assert_never

from . import answers, content, digest, disk, names, portable, retry
from .answers import Ask, Asked, Head, Trust, Verdict
from .asking import Asking, skip
from .body import Body
from .connections import Connections
from .control import CalledBack, Control
from .job import (
    Busy,
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
from .part import Memory, Part, Received
from .segments import JOINT, OVERLAP, Segment, Segments
from .space import Space

if TYPE_CHECKING:
    from .connect import Answer, Client
    from .pipe import Pipe

log = logging.getLogger(__name__)

BUFFER = 1 << 20  # bytes; one for each worker. Smaller ones cost more of a processor, larger ones no less
NEIGHBOUR_LOOK = 0.02  # seconds between two looks at how another worker gets on
KEPT = "Kept the file that was there already"


class _AskAgain(Exception):
    """The answer changed what to ask for: nothing failed, and no wait is due."""


class _NotAlone(TryAgain):
    """What this worker met concerns the whole file, of which others are fetching more."""


class _Left(Exception):
    """Others go on with it."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What a stopped transfer knows that is not in its sidecar yet; another process goes on from it."""

    memory: Memory
    tries: retry.Tries
    note: str = ""
    """Why the server itself is asked, where there is a mirror."""


class Transfer:
    """One download. Workers run it, usually one; the counters may be read from any thread."""

    def __init__(
        self,
        job: Job,
        settings: Settings,
        space: Space | None = None,
        connections: Connections | None = None,
        *,
        carried: Carried | None = None,
    ) -> None:
        """`carried`: what another process gave away, for this one to go on with."""
        self.job = job
        self.name = job.name or job.called or names.from_url(job.url) or names.FALLBACK
        self.size = job.size
        self._settings = settings
        self._space = space or Space()
        memory = carried.memory if carried else None
        self._part = Part(job.url, job.directory, job.digest, earlier=job.partial, memory=memory)
        self._connections = connections or Connections(settings.connections, settings.speed_limit)
        self._segments = Segments(self._part.lock, settings.split_seconds, self._connections)
        self._tries = carried.tries if carried else retry.Tries()
        self._asking = Asking(job.url, carried.note if carried else "")
        self._trust = Trust.ONE
        self._content_type: str | None = None  # once an answer gave the file its name

    # -- For the main thread.

    @property
    def received(self) -> int:
        """Bytes of the file that are there."""
        return self._part.received.ranges.total()

    def progress(self, now: float) -> Progress:
        """The counters as they are."""
        (phase, idle), share = _activity(self._segments.controls, now), self._part.sum.seen / (self.size or 1)
        text = f"verifying {share:.0%}" if phase is Phase.VERIFY else self._tries.text or self._segments.text
        return Progress(self.name, self.received, self.size, phase, idle, text)

    def decline(self, control: Control) -> bool:
        """A worker cannot go on, and others are not sent at once; False: there is no other one."""
        return self._segments.leave(control, failed=True)

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
        """Close the connections, for another process to go on; None, and they stay, where only they can."""
        if self._segments.connections and not self._part.can_resume:
            return None
        self.hang_up()
        return Carried(self._part.memory, self._tries, self._asking.note)

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
        except _Left:
            return None
        except BaseException as error:
            if self._segments.leave(control, failed=isinstance(error, TransferError)):
                if not isinstance(error, (Stopped, CalledBack, TransferError)):
                    log_defect(error)
                return None
            self._halt(error)
            raise
        finally:
            self._segments.exit(control)
            if not len(self._segments):
                self._space.free(self.missing)

    def _halt(self, error: BaseException) -> None:
        """Nobody runs it any more, and it is not done."""
        if isinstance(error, Stopped):
            self._part.release()
            self._tries.pause(portable.awake())
        else:
            self.close()
            self._tries = retry.Tries(furthest=self._tries.furthest)  # a retry by hand starts anew
            self._asking = Asking(self.job.url)

    def _prepare(self, control: Control, buffer: memoryview) -> Skipped | None:
        """What comes before the first request."""
        self._tries.begin(portable.awake())
        names.check(self.job.url)
        disk.prepare_folder(self.job.directory)
        if skipped := _already_there(self.job, self.name) or _unchanged(self.job, self.name, control, buffer):
            self.hang_up()
            self._part.discard()
            return skipped
        part = self._part
        if not part.open(control.sleep):
            self.hang_up()
        self.size = part.received.size or self.size
        if part.is_proven(control, buffer) and (self.job.name or self.job.called):
            self._content_type = self._content_type or ""  # no server has anything to say to that
        self._tries.furthest = max(self._tries.furthest, self.received)
        return None

    def _work(
        self, control: Control, client: Client, buffer: memoryview, *, may_split: bool
    ) -> Finished | Skipped | None:
        """Fetch segment after segment; whoever is alone at the end finishes."""
        while True:
            segment = self._claim(control, may_split=may_split) or self._claim_alone(control)
            may_split, is_helped = False, len(self._segments) > 1
            try:
                if not segment:
                    return self._finish(control, buffer)
                if skipped := self._fetch(segment, control, client, buffer):
                    return skipped
            except _AskAgain:
                pass
            except CalledBack:
                self._leave(control)
            except TransferError as error:
                wait = (error.retry_after if isinstance(error, TryAgain) else None) or 0.0
                self._leave(control, failed=True, wait=wait)
                if not (segment and self._is_all_there):  # else others have brought it meanwhile
                    self._go_on_after(error, control, is_helped=is_helped)

    def _leave(self, control: Control, *, failed: bool = False, wait: float = 0.0) -> None:
        """Raises _Left unless this worker is alone; then it stays so."""
        if self._segments.leave(control, failed=failed, wait=wait):
            raise _Left

    @property
    def _is_all_there(self) -> bool:
        """Whether no request is needed any more."""
        return self._content_type is not None and self._part.received.is_whole

    def _go_on_after(self, error: TransferError, control: Control, *, is_helped: bool) -> None:
        """Decide alone what to do next; raises TransferError where nothing can be done."""
        if isinstance(error, _NotAlone) or (is_helped and not isinstance(error, TryAgain)):
            return  # it was refused beside others, who are gone: now it counts
        try:
            if not self._leave_mirror(error):
                self._back_off(error, control)
        except TransferError:
            if self._leave_mirror("does not bring all of it"):
                return
            least = Trust.SEVERAL if control.phase is Phase.BODY else Trust.PROVEN  # ranges come, but not all
            if not least <= self._trust < Trust.ALONE or (isinstance(error, TryAgain) and error.retry_after):
                raise
            self._trust, self._asking.how = Trust.ALONE, Ask.WHOLE
            self._tries.failures = retry.TRIES - 1

    def _leave_mirror(self, why: str | TransferError) -> bool:
        """Ask the server itself from now on. False: that was done already, or there is no mirror."""
        if not self._asking.leave_mirror(why, self._tries.failures):
            return False
        self._tries = retry.Tries(furthest=self._tries.furthest, since=portable.awake())
        if self._part.tie:
            self._clear()
        return True

    def _back_off(self, error: TransferError, control: Control) -> None:
        """Wait until it may be tried again; raises TransferError where it may not."""
        if not isinstance(error, TryAgain):
            raise error
        self._check_time()
        first_delay, kept = self._settings.first_delay, self.received if self._part.can_resume else 0
        delay = self._tries.delay(str(error), error.retry_after, first_delay=first_delay, kept=kept)
        with self._tries.waiting(portable.awake):
            control.enter(Phase.BACKOFF)
            control.sleep(delay)

    def _check_time(self) -> None:
        self._tries.check(portable.awake(), self._settings.timeout)

    def _claim(self, control: Control, *, may_split: bool = False) -> Segment | None:
        received = self._part.received
        if self._is_all_there:
            return None
        if segment := self._segments.take_up(control):
            return segment
        if self._asking.how is Ask.WHOLE:
            return self._segments.add(Segment(0, received.size, control, is_sole=True))
        segment = self._segments.claim(control, received.ranges, received.size, may_split=may_split)
        if not segment and received.is_whole:
            # Its name is the server's to say: a new process asks for the end of the file once more.
            segment = self._segments.add(Segment(received.size or 0, received.size, control))
        return segment

    def _claim_alone(self, control: Control) -> Segment | None:
        """There is nothing for one of several. Raises _Left; the last one takes what others have left."""
        if self._part.received.is_whole:
            self._segments.call_off(control)
        self._leave(control)
        return self._claim(control)

    def _fetch(
        self, segment: Segment, control: Control, client: Client, buffer: memoryview
    ) -> Skipped | None:
        try:
            skipped = None if segment.body else self._ask(segment, control, client)
            if not skipped:
                self._receive(segment, control, client, buffer)
        except (Stopped, CalledBack):
            self._segments.stop(segment, client)
            raise
        except BaseException:
            self._segments.drop(segment, client, failed=True)
            raise
        else:
            self._segments.drop(segment, client)
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

    def _doubt(self, why: Exception) -> NoReturn:
        """Ask for the whole file: what is there stays until that shows that it is another one."""
        self._decide()
        self._asking.how = Ask.WHOLE
        raise why

    def _begin_anew(self) -> NoReturn:
        """From zero, in the file and in the counters. Raises _AskAgain, _NotAlone where they stay."""
        self._decide()
        self._clear()
        raise _AskAgain

    def _clear(self) -> None:
        self.hang_up()
        self._part.forget()
        self.size = None
        self._asking.how, self._trust = Ask.RANGE, self._trust.anew()

    # -- Asking.

    def _ask(self, segment: Segment, control: Control, client: Client) -> Skipped | None:
        """Request a segment, and do what the answer means. Raises _AskAgain, TransferError, Stopped."""
        with self._tries.waiting(portable.awake):
            self._connections.begin(segment, client, names.origin(self.job.url), control)
        asked, headers = self._request(segment, self._asking.via(client))
        self._check_time()
        with self._segments.lock:
            self._tries.request()
        try:
            response = self._asking.send(client, control, headers, self._check_time, tie=self._part.tie)
        except (Stopped, CalledBack):  # we have interrupted it, so it counts for nothing
            with self._segments.lock:
                self._tries.requests -= 1
            raise
        try:
            segment.is_sole |= response.status_code in answers.WHOLE and client.wants_whole(response)
            if skipped := self._heed(response, segment, asked, control):
                skip(response, client)
            return skipped
        except BaseException as error:
            if isinstance(error, Busy) and self._connections.refused(segment, error, control):
                self._tries.failures = 0  # it brings what others ask for
            response.close()
            raise

    def _request(self, segment: Segment, via: str) -> tuple[Asked, dict[str, str]]:
        """What to ask for by way of a mirror, if any, and with which headers."""
        received = self._part.received
        segment.counts = received.size is None or received.is_whole
        if segment.is_sole or not received.ranges.total():
            conditions = _conditions(self.job, self.name)
            return Asked(is_conditional=bool(conditions)), conditions
        if not self._part.can_resume or self._part.tie not in (None, "", via):
            self._begin_anew()
        return _range(segment, received, with_if_range=self._asking.how is not Ask.BARE)

    def _heed(self, response: Answer, segment: Segment, asked: Asked, control: Control) -> Skipped | None:
        """Do what an answer means: the segment gets its body, unless there is nothing to fetch."""
        head = Head.of(response)
        # A range says nothing new of a file that has its name; the whole file may be another one.
        is_named = head.is_part and self._content_type is not None
        name = self.name if is_named or self.job.name else head.name_for(self.job.url)
        has_digest = self.job.digest is not None
        verdict = answers.judge(head, asked, self._part.received, name=name, has_digest=has_digest)
        match verdict:
            case Verdict.RANGE | Verdict.WHOLE | Verdict.SAME:
                body = Body(response, name)
                is_new = verdict is Verdict.WHOLE and self.received
                if is_new and not _renews(self._part, head, asked, body.begins(control), self.name, self.job):
                    self._doubt(_AskAgain())
                if verdict is Verdict.RANGE:
                    self._continue(head, name, segment)
                elif skipped := self._begin(head, name, segment, is_same=verdict is Verdict.SAME):
                    return skipped
                self._part.expect(digest.told(head.headers, is_whole=not head.is_part))
                segment.body = body
                self._connections.served(segment)
                self._asking.came_from("" if head.via else head.url)
                return None
            case Verdict.UNCHANGED:
                self._part.discard()
                return _skipped(self.job, _old_name(self.job, self.name), "Not changed on the server")
            case Verdict.ASK_BARE:
                self._asking.how = Ask.BARE
            case Verdict.ASK_WHOLE:
                self._doubt(_AskAgain())
            case _:
                assert_never(verdict)
        raise _AskAgain

    def _begin(self, head: Head, name: str, segment: Segment, *, is_same: bool) -> Skipped | None:
        """The whole file comes, or as much of its beginning as the server sends at once."""
        self._decide()
        self.name, self._content_type = name, head.content_type
        if skipped := _already_there(self.job, self.name):
            self._part.discard()
            return skipped
        if is_same:
            segment.is_sole = True
        else:
            self._clear()
            self._part.begin(head.size, head.validator, head.via, is_encoded=head.is_encoded(name))
        self.size = self._part.received.size
        self._space.claim(self.missing, self.size, self.job.directory)
        segment.offset = 0
        segment.answered(self.size and head.reach, self.size and head.reach)
        return None

    def _continue(self, head: Head, name: str, segment: Segment) -> None:
        """A range comes, of the file that is on the disk."""
        span = head.span
        assert span
        received, (_, end, size) = self._part.received, span
        if self._content_type is None:
            self.name, self._content_type = name, head.content_type
        self._trust = self._trust.forward(Trust.SEVERAL)
        if received.size is None:
            self.size = size  # believed once all of the range was seen to fit
        if not received.validator:
            received.validator = head.validator  # for the next time
        self._space.claim(self.missing, self.size, self.job.directory)
        wanted = self.size if segment.end is None else segment.end
        segment.answered(None if wanted is None else min(wanted, end), end)

    # -- Receiving.

    def _receive(self, segment: Segment, control: Control, client: Client, buffer: memoryview) -> None:
        """Read a body to the segment's end, into the file."""
        control.enter(Phase.BODY)
        part, body = self._part, segment.body
        assert body
        if part.can_be_split and self._trust is not Trust.ALONE and not segment.is_sole:
            self._segments.welcome()
        while self._is_due(segment, control) and (data := self._read(segment, control, client.pipe, buffer)):
            if len(data) != self.size:
                control.turn.give()  # those that read and write much do not disturb each other
            self._place(segment, data, buffer)
            part.save()
        if not segment.is_past_end and not segment.was_kept:
            body.finish(client)
            segment.body = None
        self._know_size(segment)

    def _read(self, segment: Segment, control: Control, pipe: Pipe, buffer: memoryview) -> memoryview | Pipe:
        """What comes next: unseen where that is much, and nobody has to see it."""
        body, throttle, most = segment.body, self._connections.throttle, len(buffer)
        assert body
        may = (segment.reach or 0) >= most and not throttle.limit  # first, since most files are small
        may = may and self._part.unseen(segment.offset, segment.reach) >= most
        if may and body.pipe(pipe, most, control):
            return pipe
        count = throttle.read(body, buffer, control)
        if self.size is not None and segment.offset + count > self.size:
            self._doubt(TryAgain("The server sent more than it had announced"))
        return segment.fitting(buffer[:count])

    def _is_due(self, segment: Segment, control: Control) -> bool:
        """Whether to read on, which may be what another was to fetch."""
        if not segment.is_past_end or segment.is_overlong:
            return not segment.is_past_end
        received, speed = self._part.received, segment.speed
        while (goes_on := self._segments.go_on(segment, received.ranges, received.size or 0, speed)) is None:
            control.sleep(NEIGHBOUR_LOOK)
            control.touch()
        return goes_on

    def _place(self, segment: Segment, data: memoryview | Pipe, buffer: memoryview) -> None:
        """Write what is new, compare what is there already. Raises _AskAgain, TryAgain."""
        part = self._part
        with part.placing:
            if segment.is_void:
                raise _NotAlone("The server sends something else over one of several connections")
            if not isinstance(data, memoryview):
                segment.took(count := part.pour(data, segment.offset), is_new=count > 0)
                data = data.read(buffer)
            if not part.fits(data, segment.offset):
                self._misfit(segment)
            segment.took(len(data), is_new=part.write(data, segment.offset))
        self._count(segment)

    def _misfit(self, segment: Segment) -> None:
        """It does not fit what is there. Raises _AskAgain, _NotAlone unless it is the one to go by."""
        if not (segment.counts or segment.is_sole) or self._part.file.is_borrowed:
            self._begin_anew()
        self._trust = Trust.ALONE
        main = self._segments.rely_on_one(self.size)
        self._part.doubt(main.offset if main else 0)
        if not main:
            self._begin_anew()
        if main is not segment:
            raise _NotAlone("The server sends something else over one of several connections")

    def _count(self, segment: Segment) -> None:
        """See how far it got."""
        received = self.received
        with self._segments.lock:
            if is_new := self._tries.progress(received):
                self._asking.how = self._asking.how.after_progress()
        if is_new or segment.is_whole:  # what was there once comes again, in an answer that has an end
            self._tries.came(portable.awake())
        else:
            self._check_time()

    def _know_size(self, segment: Segment) -> None:
        """The body has ended where it should, or where only its end could tell."""
        if segment.end is None:
            segment.end = self.size = segment.offset
        if segment.offset < segment.end:
            raise TryAgain("The server sent less than it had announced")
        self._part.received.size = self.size
        self._part.received.encoded = False  # all of it is there as it is

    # -- The end.

    def _finish(self, control: Control, buffer: memoryview) -> Finished | Skipped:
        """All bytes are there: look at them, then give the file its name."""
        self.hang_up()
        is_right = self._verify(control, buffer)
        head = self._part.file.read(0, content.HEAD_SIZE)
        remark = _remark(head, self.name, self._content_type or "", self.job.url)
        if content.is_doubtful(head, remark) and self._asking.leave_mirror("sent something else"):
            self._clear()
            raise _AskAgain
        if isinstance(remark, TransferError) or not (is_right or self.job.digest):
            self._part.discard()
        if isinstance(remark, TransferError):
            raise remark
        if not is_right:
            raise TransferError(_DIFFERS if self.job.digest else _DAMAGED)
        control.enter(Phase.PUBLISH)
        return self._asking.noted(_published(self.job, self._part, self.name, remark, control))

    def _verify(self, control: Control, buffer: memoryview) -> bool:
        """Whether it has the digest that is expected. Raises _AskAgain where in one piece it may."""
        if self._part.is_expected(control, buffer):
            return True
        self._tries = retry.Tries(since=portable.awake())
        least = Trust.ONE if self._part.told else Trust.SEVERAL
        if self._asking.leave_mirror("sent a damaged file") or least <= self._trust < Trust.ALONE:
            self._trust = Trust.ALONE
            self._clear()
            raise _AskAgain
        return False


_DAMAGED = (
    "The file is damaged or another one: its checksum differs from the server's own."
    " Try again, or use your browser"
)
_DIFFERS = (
    "The file is damaged or another one: its checksum differs. Retry downloads it again."
    " If the checksum was wrong, press Replace Link and give the right one: what was received is used"
)


def _remark(head: bytes, name: str, content_type: str, url: str) -> str | TransferError:
    """What `content.judge` says or raises of a file that begins so."""
    try:
        return content.judge(head, name, content_type, asked=names.extension_in(url))
    except TransferError as error:
        return error


def _activity(controls: list[Control], now: float) -> tuple[Phase, float]:
    """What the download does, and the seconds for which nothing moved.

    Where one receives, that is what it does, whatever its helpers do.
    """
    phases = [control.phase for control in controls] or [Phase.IDLE]
    phase = Phase.BODY if Phase.BODY in phases else phases[0]
    return phase, min([control.idle(now) for control in controls], default=0.0)


# -- The file under its final name.


def _old_name(job: Job, name: str) -> str:
    """For UPDATE: what the file is called that is there."""
    return job.have.name if job.have else name


def _skipped(job: Job, name: str, note: str) -> Skipped:
    return Skipped(filepath=os.path.join(job.directory, name), note=note)


def _already_there(job: Job, name: str) -> Skipped | None:
    """For SKIP: whether there is nothing to do. A folder of that name is not the file."""
    if job.if_exists is not IfExists.SKIP:
        return None
    path = portable.reach(os.path.join(job.directory, name))
    is_there = os.path.lexists(path) and not os.path.isdir(path)
    return _skipped(job, name, KEPT) if is_there else None


def _conditions(job: Job, name: str) -> dict[str, str]:
    """For UPDATE: ask only for what differs from the file that is there (RFC 9110, section 13.1)."""
    if job.if_exists is not IfExists.UPDATE or job.digest:
        return {}
    have = job.have
    try:
        status = os.stat(portable.reach(os.path.join(job.directory, _old_name(job, name))))
    except OSError:
        return {}
    if not stat.S_ISREG(status.st_mode):
        return {}
    if have and have.etag and (status.st_size, status.st_mtime) == (have.size, have.mtime):
        return {"If-None-Match": have.etag}
    return {"If-Modified-Since": email.utils.formatdate(status.st_mtime, usegmt=True)}


def _unchanged(job: Job, name: str, control: Control, buffer: memoryview) -> Skipped | None:
    """For UPDATE with a digest: not the server tells whether it is the file, but the file itself."""
    known = _old_name(job, name)
    if job.if_exists is not IfExists.UPDATE or not job.digest:
        return None
    seen = digest.Sum(job.digest)
    control.enter(Phase.VERIFY)
    control.turn.give()
    try:
        fd = portable.open_file(portable.reach(os.path.join(job.directory, known)), os.O_RDONLY)
    except OSError:
        return None
    try:
        while data := os.read(fd, len(buffer)):
            control.check()
            control.touch()
            seen.take(data, seen.seen)
    except OSError:
        return None
    finally:
        os.close(fd)
    return _skipped(job, known, "Not changed") if seen.is_right else None


def _published(job: Job, part: Part, name: str, note: str, control: Control) -> Finished | Skipped:
    """Give the file its name. Skipped: SKIP found it taken. Raises TransferError, OSError."""
    verified = job.digest.algorithm if job.digest else ""
    if part.told and not verified:
        verified = f"{part.told.algorithm} (server)"
        note = note or f"Verified by the {part.told.algorithm} that the server sent"
    is_update = job.if_exists is IfExists.UPDATE
    validator, size = part.received.validator, part.received.size or 0
    mtime = retry.timestamp(validator.last_modified) if is_update else None
    done = partial(_note_done, job)
    with control.turn.on_disk():
        path = part.publish(name, job.if_exists, mtime=mtime, placed=done, wait=control.sleep)
    if not path:
        part.discard()
        return _skipped(job, name, KEPT)
    have = None
    if is_update:
        status = os.stat(portable.reach(path))
        have = Have(name=os.path.basename(path), size=size, mtime=status.st_mtime, etag=validator.etag)
    return Finished(filepath=path, size=size, note=note, have=have, verified=verified)


def _note_done(job: Job, path: str) -> None:
    """So that it is not downloaded again where Blender dies before it has written its list."""
    if job.done:
        with suppress(OSError):
            disk.note(job.done, job.uid, path)


# -- Requests and answers.


def _range(segment: Segment, received: Received, *, with_if_range: bool) -> tuple[Asked, dict[str, str]]:
    """Ask for a segment, which begins a little earlier where the disk holds that."""
    is_last, new_from = segment.end in (None, received.size), segment.offset
    segment.offset -= min(OVERLAP if is_last else OVERLAP - JOINT, received.ranges.before(new_from))
    stop = None if is_last else segment.end
    headers = {"Range": f"bytes={segment.offset}-{stop - 1 if stop else ''}"}
    if_range = received.validator.if_range if with_if_range else ""
    if if_range:
        headers["If-Range"] = if_range
    return Asked(segment.offset, new_from, if_range, stop=stop), headers


def _may_be_rest(part: Part, begins: bytes, asked: Asked) -> bool:
    """Whether what is said to be all of the file may be the rest alone: it does not begin as the file that
    is there, but as what was asked for; or in a new way, and nothing said of which version it was to be.
    """
    if not asked.start:
        return False
    begins = begins[: asked.new_from - asked.start]
    there, first = (part.file.read(start, len(begins)) for start in (asked.start, 0))
    return begins != first and (begins == there or not asked.if_range)


def _renews(part: Part, head: Head, asked: Asked, begins: bytes, name: str, job: Job) -> bool:
    """Whether what begins so is all of the file, not the rest alone. Raises TransferError: a message."""
    if _may_be_rest(part, begins, asked):
        return False
    _refuse_message(part, head, begins, name, job.url)
    return True


def _refuse_message(part: Part, head: Head, begins: bytes, name: str, url: str) -> None:
    """Give up nothing that was received for a page to sign in, or what says that something went wrong.

    Nor for nothing at all, of which the server does not say which version it is. Raises TransferError.
    """
    if not begins and not head.validator:
        raise TryAgain("The server sent nothing in place of the rest of the file")
    there, now = part.file.read(0, content.HEAD_SIZE), _remark(begins, name, head.content_type, url)
    if isinstance(now, TransferError):
        raise now
    is_worse = now and not _remark(there, name, "", url)
    is_message = content.is_message(begins) and not content.is_message(there)
    is_less = (head.size or 0) < part.received.ranges.total() and content.is_text(begins)
    if begins and is_less and (is_worse or is_message):
        raise TransferError(content.PAGE if now == content.PAGE_NOTE else content.MESSAGE)


def log_defect(error: BaseException) -> None:
    """Where it happened, without its message and those of what caused it: they may hold the URL."""
    where = "".join(traceback.format_tb(error.__traceback__))
    log.error("A download met something that nobody foresaw: %s\n%s", type(error).__name__, where)
