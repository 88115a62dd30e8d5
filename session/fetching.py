"""`fetch`, for whoever writes an add-on, and what the extension's own operators share with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import bpy

from ..transfer import names
from ..transfer.job import IfExists, TransferError
from ..workers import Download, Report, Status
from . import blocking, current, watch
from .calls import guarded
from .online import offline_reason
from .queue import ENDED, Queue
from .settings import folder as whole_folder
from .settings import wants_process
from .terminal import Counter

CALL_INTERVAL = 0.1  # seconds between two calls of `progress`, at least, where the script waits


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one link."""

    url: str = field(repr=False)
    """As it was given, so with what is secret in it."""
    status: str
    """``FINISHED``, ``SKIPPED`` (the file was there already, or has not changed), ``FAILED`` or
    ``CANCELLED``; until it has ended ``QUEUED``, ``RUNNING`` or ``PAUSED``."""
    path: str = ""
    """The file's absolute path where it is there, else empty: FINISHED and SKIPPED."""
    error: str = ""
    """Why it FAILED: a sentence for a person, without secrets."""
    note: str = ""
    """What else a person may want to know: that a web page came, say."""
    verified: str = ""
    """The kind of digest that the file was compared with: ``sha256`` for one that stood in the link,
    ``sha256 (server)`` for one that the server sent by itself; empty where there was none."""


class Handle:
    """Downloads that were asked for together. To be used on the main thread."""

    def __init__(
        self,
        queue: Queue,
        *,
        entries: Iterable[tuple[str, str, str]] | None = None,
        done: Callable[[Handle], object] | None = None,
        progress: Callable[[Handle], object] | None = None,
    ) -> None:
        """`entries`: what was given, as `names.read` returns it; None: nobody is told anything."""
        self._queue = queue
        self._entries = list(entries or ())
        self._is_kept = entries is not None
        self._done, self._progress = done, progress
        self._rows: dict[str, Download] = {}  # by the link that was asked for
        self._left: dict[int, str] = {}  # the links of those that have not ended, by uid
        self._is_waiting = self._is_cancelled = self._is_told = False
        self._complained: set[int] = set()

    @property
    def rows(self) -> list[Download]:
        """The records, one for each different link; the queue writes them."""
        return list(self._rows.values())

    @property
    def is_done(self) -> bool:
        """Whether all of them have ended."""
        return not self._left

    @property
    def results(self) -> list[Result]:
        """What became of each link, or has up to now, in the order in which they were given."""
        return [
            Result(url=entry, status=Status.FAILED.value, error=problem)
            if problem
            else _result(entry, self._rows[url])
            for entry, url, problem in self._entries
        ]

    @property
    def fraction(self) -> float:
        """How much is there, 0 to 1; every file counts the same, since not all sizes are known."""
        shares = [1.0 if row.status in ENDED else row.fraction for row in self._rows.values()]
        return sum(shares) / len(shares) if shares else 1.0

    @property
    def received(self) -> int:
        """Bytes that are on the disk."""
        return sum(row.received for row in self._rows.values())

    def cancel(self) -> None:
        """Stop what has not ended. Does not wait: `done` is called soon.

        What was received is kept, and used when the same link is fetched into the same folder again.
        """
        self._is_cancelled = True
        if self._is_waiting:  # in `progress`: nothing of it is in the queue
            return
        for row in self._unfinished():
            if self._queue.leave(row, self):
                self.gone(row)
            else:
                self._queue.cancel(row)
        self._queue.flush()

    # -- How it comes about.

    def begin(self, links: Iterable[names.Link], *, wait: bool, **options: Any) -> None:
        """Have links downloaded: now, or where nobody is to `wait` by a run that whoever calls sees to.

        `options` are those of `Queue.new_rows`. Where Ctrl-C was pressed in background mode it is pressed
        again, once all are cancelled and joined.
        """
        if wait:
            self._wait(links, options)
            return
        self._take(self._queue.add(links, **options))
        if self._is_kept:
            for row in self._unfinished():
                self._queue.listen(row, self)
            self._queue.calls.post(self.tell)

    def _take(self, rows: list[Download]) -> None:
        self._rows = {row.url: row for row in rows}
        self._left = {row.uid: row.url for row in rows if row.status not in ENDED}

    def _unfinished(self) -> list[Download]:
        return [self._rows[url] for url in self._left.values()]

    def _wait(self, links: Iterable[names.Link], options: dict[str, Any]) -> None:
        self._is_waiting = True
        self._take(self._queue.new_rows(links, **options))
        goes_on = blocking.download(
            self._queue,
            self.rows,
            teller=lambda rows: _Relay(rows, self.tell if self._progress else None),
            apart=self._progress is not None and wants_process(),
            cancelled=lambda: self._is_cancelled or self._queue.calls.is_closed,
        )
        self._is_waiting = False
        self._left.clear()
        if not goes_on:
            signal.raise_signal(signal.SIGINT)  # cancelled and joined: now leave, as was asked

    # -- What the queue tells.

    def changed(self, row: Download) -> None:
        """See `Listener`."""
        if row.status in ENDED:
            self._left.pop(row.uid, None)
        self._queue.calls.post(self.tell)

    def gone(self, row: Download) -> None:
        """See `Listener`; without having ended it counts as cancelled."""
        if url := self._left.pop(row.uid, None):
            self._rows[url] = replace(row, status=Status.CANCELLED)
        self._queue.calls.post(self.tell)

    def tell(self) -> None:
        """Call what its owner gave."""
        if self._is_told:
            return
        self._is_told = self.is_done
        for function in (self._progress, self._done if self._is_told else None):
            if function and not self._queue.calls.is_closed:  # as the first may have disabled the add-on
                guarded(function, self, self._complained)


class _Relay:
    """While the script waits: the terminal's progress, and the owner's."""

    def __init__(self, rows: list[Download], tell: Callable[[], None] | None) -> None:
        self._rows = {row.uid: row for row in rows}
        self._counter = Counter(len(rows))
        self._tell = tell
        self._told = 0.0

    def show(self, report: Report, now: float) -> None:
        """See `Teller`."""
        self._counter.show(report, now)
        if self._tell and now - self._told >= CALL_INTERVAL:
            self._told = now
            for uid, progress in report.progress.items():
                self._rows[uid].progress = progress
            self._tell()


def _result(entry: str, row: Download) -> Result:
    return Result(
        url=entry,
        status=row.status.value,
        path=row.filepath,
        error=row.error if row.status is Status.FAILED else "",
        note=row.note,
        verified=row.verified,
    )


def fetch(
    urls: str | Iterable[str],
    folder: str | os.PathLike[str],
    *,
    done: Callable[[Handle], object] | None = None,
    progress: Callable[[Handle], object] | None = None,
    if_exists: str = "RENAME",
    wait: bool = False,
) -> Handle:
    """Download files while Blender stays usable. To be called on the main thread, which calls back.

    In a window it returns at once; in background mode, and where Blender is a module, when all is done.
    Callbacks get the handle, outside any operator, in the first window, over file loads too (so keep names,
    not objects), and not while Blender renders. What they raise is logged and changes nothing else.

    :param urls: http or https links, a list or a text with white space between. Each may end in
        ``#sha256=<hex>`` (or md5, sha1, sha384, sha512), which its file must have then. What cannot be read
        is a FAILED result; what is there twice, or at work already, is fetched once.
    :param folder: an absolute path; ``//`` is beside the .blend file. It is made if it is missing.
    :param done: called once, when all have ended, however that was; not if the add-on is disabled before.
    :param progress: called at most some twenty times a second.
    :param if_exists: ``RENAME``, ``OVERWRITE``, ``SKIP``, or ``UPDATE``: what changed on the server.
    :param wait: wait in a window too, which stands still meanwhile; without a window it always waits. The
        one use of threads that Blender supports (https://docs.blender.org/api/current/info_gotchas_threading.html).
    :return: tells how it goes, and can `cancel`. It need not be kept.
    :raises ValueError: `folder` is no whole path, or `if_exists` none of these.
    :raises RuntimeError: the add-on is not enabled.
    """
    links: dict[str, names.Link] = {}
    entries = list(names.read(urls.split() if isinstance(urls, str) else urls, links))
    if reason := offline_reason():
        entries, links = [(entry, url, problem or reason) for entry, url, problem in entries], {}
    handle = Handle(current(), entries=entries, done=done, progress=progress)
    wait = wait or bpy.app.background
    handle.begin(links.values(), wait=wait, directory=_folder(folder), if_exists=IfExists(if_exists))
    if wait:
        handle.tell()
    elif current().wants_run:
        watch.invoke()
    return handle


def _folder(folder: str | os.PathLike[str]) -> str:
    try:
        return whole_folder(os.fspath(folder))
    except TransferError as error:
        raise ValueError(str(error)) from None
