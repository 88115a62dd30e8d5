"""A look at a link before anything is downloaded: what it is called, how large it is, of which type.

A host runs a look in the place of a download: with the same connections, passwords, proxies and rules
for names, and stopped in the same way. It writes nothing.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from . import answers, content, lists, names
from .answers import Head
from .asking import Asking
from .body import Body
from .control import Control
from .fetch import Carried
from .job import Job, Phase, Progress, Seen, Settings, TransferError, TryAgain

if TYPE_CHECKING:
    from .connect import Answer, Client
    from .connections import Connections

_ONE_BYTE = {"Range": "bytes=0-0"}


class UnreadError(TransferError):
    """A list is longer than may be read, or takes longer."""

    def __init__(self, why: str) -> None:
        super().__init__(f"This list {why} to be shown. Download fetches it as a file")


class Look:
    """One look; a worker runs it once. To a host it is a `fetch.Transfer` that never has anything to keep."""

    received = 0

    def __init__(self, job: Job, settings: Settings, connections: Connections) -> None:
        """`job`: one that `looks`."""
        self.job = job
        self.controls: list[Control] = []
        self._most = job.looks or 0  # bytes to read
        self._settings = settings
        self._connections = connections

    def run(self, control: Control, client: Client, buffer: memoryview, *, helps: bool = False) -> Seen:
        """Ask for the first byte; where a server does not like that, for all, and read none of it.

        Blocks. Raises Stopped, TransferError.
        """
        names.check(self.job.url)
        self.controls = [control]
        try:
            if not self._most and (seen := self._ask(control, client, buffer, _ONE_BYTE)):
                return seen
            seen = self._ask(control, client, buffer, {})
            assert seen
            return seen
        finally:
            self.controls = []
            if client.is_idle:
                self._connections.hand_back(self, client)
            self._connections.end(self)

    def _ask(
        self, control: Control, client: Client, buffer: memoryview, headers: dict[str, str]
    ) -> Seen | None:
        """None: it may go better without these headers."""
        self._connections.begin(self, client)
        try:
            answer = Asking(self.job.url).send(client, control, headers, control.check)
        except TryAgain as error:
            if headers and control.phase is Phase.REQUEST and _was_closed(error):
                return None
            raise  # who did not answer in time would not do so the next time: somebody waits
        try:
            head = Head.of(answer)
            if headers and head.status in answers.NO_RANGES:
                return None
            if head.status not in answers.BRINGING:
                raise answers.refusal(head)
            seen = self._seen(head)
            return self._listing(seen, head, answer, control, buffer) if self._most else seen
        finally:
            answer.close()

    def _seen(self, head: Head) -> Seen:
        name = head.name_for(self.job.url)
        is_encoded = head.is_encoded(name)  # also where it cannot be undone, which is better known now
        if content.is_html(head.content_type):
            content.judge(b"<html>", name, head.content_type, asked=names.extension_in(self.job.url))
        return Seen(name=name, size=None if is_encoded else head.size, content_type=head.content_type)

    def _listing(self, seen: Seen, head: Head, answer: Answer, control: Control, buffer: memoryview) -> Seen:
        """With what it lists. Raises TransferError where it is no list; a text may be anything."""
        try:
            listing = lists.read(self._read(answer, control, buffer), head.url)
        except (lists.NoListError, UnreadError):
            if lists.is_text(seen.name):
                return seen
            raise
        entries, more = tuple(listing.entries), tuple(listing.more)
        return replace(seen, entries=entries, more=more, left_out=len(listing.problems))

    def _read(self, answer: Answer, control: Control, buffer: memoryview) -> bytes:
        """All of a short body. Raises TransferError where it is longer than asked for, or takes too long."""
        end = time.monotonic() + self._settings.timeout
        control.enter(Phase.BODY)
        body, data = Body(answer, names.from_url(self.job.url)), bytearray()
        while count := self._connections.throttle.read(body, buffer, control):
            data += buffer[:count]
            if len(data) > self._most:
                raise UnreadError("is too long")
            if time.monotonic() > end:  # one time-out for all of it: each byte would begin a new one
                raise UnreadError("comes too slowly")
        return bytes(data)

    # -- What a host asks of a transfer.

    def progress(self, now: float) -> Progress:
        """Where it is."""
        phases = [control.phase for control in self.controls]
        return Progress(phase=phases[0] if phases else Phase.IDLE)

    def decline(self, control: Control) -> bool:
        """It has one worker only."""
        return False

    def call_back(self) -> bool:
        """Likewise."""
        return False

    def help_wanted(self, now: float) -> int:
        """None."""
        return 0

    def hang_up(self) -> None:
        """Its connection is closed once it has been answered."""

    def close(self) -> None:
        """It keeps nothing."""

    def carry(self) -> Carried | None:
        """Nobody else goes on with it."""
        return None


def _was_closed(error: TryAgain) -> bool:
    from .connect import was_closed  # imports requests, as whoever asks has by now

    return was_closed(error)
