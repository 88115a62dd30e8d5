"""What a dialog shows before anything is downloaded: names, sizes, types, and room on the disk.

The main thread's, save for `hold`. Asking is a host's, as downloads are: in worker threads, or in a child
process. Nothing waits for a server here: what is not known yet is said to be so. Knows no Blender.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..transfer import names, part, portable
from ..transfer.job import Failed, IfExists, Job, Phase, Seen
from ..transfer.space import amount
from ..workers import Ended, Host, ThreadHost
from . import words
from .records import readable

HANDFUL = 8  # links that are looked at one by one
CONNECTIONS = 4  # at most, to ask over
NAMED = 3  # files that are named where there are more than a handful
LOOKED_FOR = 1000  # names at most that the disk is asked about


@dataclass(slots=True, eq=False)
class File:
    """One link, and what is known of its file."""

    link: names.Link
    seen: Seen | None = None
    error: str = ""
    """Why nothing is known, in a sentence."""
    phase: Phase | None = None
    """Where the look at it is, while it goes on."""
    is_there: bool = False
    """Whether the folder has a file of this name."""
    remark: str = ""
    """What becomes of it then, in a sentence."""
    received: int = 0
    """Bytes that an earlier download has left in the folder."""

    @property
    def name(self) -> str:
        """What it is, or may be, called."""
        return (self.seen.name if self.seen else "") or names.from_url(self.link.url) or names.FALLBACK

    @property
    def size(self) -> int | None:
        """Bytes, where known."""
        return self.seen.size if self.seen else None


class Ahead:
    """The files that a dialog shows. Its host is closed once all have answered, or nobody asks any more."""

    def __init__(self) -> None:
        self.files: list[File] = []
        self.folder = ""
        """Where they are to go; empty where that is no folder."""
        self.problem = ""
        """What is wrong with the folder, in a sentence."""
        self.free: int | None = None
        """Bytes on its disk, where known."""
        self.if_exists = IfExists.RENAME
        self._asked: dict[int, File] = {}  # looks that have not ended, by their uid
        self._known: dict[str, File] = {}  # what was looked at since the dialog opened, by link
        self._host: Host | None = None
        self._uid = 0

    @property
    def is_over(self) -> bool:
        """Whether no worker is left."""
        return self._host is None

    def show(self, links: Iterable[names.Link], new_host: Callable[[], Host]) -> None:
        """Have these links, and ask about those that nobody has asked about yet, if they are a handful."""
        self.files = [self._known.get(link.url) or File(link) for link in links]
        if len(self.files) > HANDFUL:
            return
        for file in self.files:
            if file.link.url not in self._known:
                self._known[file.link.url] = file
                self._host = self._host or new_host()
                self._ask(self._host, file)

    def _ask(self, host: Host, file: File) -> None:
        self._uid += 1
        self._asked[self._uid] = file
        file.phase = Phase.IDLE
        host.submit(Job(uid=self._uid, url=file.link.url, directory="", looks=True))

    def poll(self) -> bool:
        """Hear what was found out; whether something changed that people see."""
        if not self._host:
            return False
        report, before = self._host.poll(), [_visible(file) for file in self.files]
        for uid, progress in report.progress.items():
            if file := self._asked.get(uid):
                file.phase = progress.phase
        for event in report.events:
            if isinstance(event, Ended) and (file := self._asked.pop(event.uid, None)):
                _note(file, event.outcome)
        if not self._asked:
            self._host.dismiss()
            if self._host.is_quiet():
                self.close()
        return before != [_visible(file) for file in self.files]

    def leave(self) -> None:
        """Nobody looks at it any more. Does not wait: `poll` until it `is_over`."""
        self.files = []
        self._known.clear()
        self._asked.clear()
        if self._host:
            self._host.dismiss()

    def hold(self) -> None:
        """Have no thread of ours in this process: Blender renders. Any thread; does not wait."""
        if isinstance(host := self._host, ThreadHost):
            host.dismiss()

    def close(self) -> None:
        """Join every worker; a name look-up that does not come back is left behind."""
        host, self._host = self._host, None
        self._asked.clear()
        if host:
            host.shut(forced=True)

    def known(self) -> dict[str, Seen]:
        """What the servers said of each link."""
        return {file.link.url: file.seen for file in self.files if file.seen}

    # -- The disk.

    def weigh(self, folder: str, if_exists: IfExists, problem: str = "") -> None:
        """Look at the folder: what is there, and how much room."""
        self.folder, self.problem, self.if_exists = folder, problem, if_exists
        self.free = _free(folder) if folder else None
        for file in self.files[:LOOKED_FOR]:
            file.is_there = bool(folder) and _is_there(folder, file.name)
            file.remark = _remark(folder, file.name, if_exists) if file.is_there else ""
            old = part.leftover(folder, names.part_name(file.link.url, folder)) if folder else None
            file.received = old.received if old else 0

    @property
    def needed(self) -> int:
        """Bytes that the disk will have to take, as far as sizes are known."""
        return sum(max(0, (file.size or 0) - file.received) for file in self.files if not self._stays(file))

    def _stays(self, file: File) -> bool:
        return file.is_there and self.if_exists is IfExists.SKIP

    # -- What people read.

    @property
    def summary(self) -> str:
        """Of many files: how many, and what they are called."""
        first, more = self.files[:NAMED], len(self.files) - NAMED
        called = ", ".join(readable(file.name) for file in first)
        return f"{len(self.files)} files: {called} and {more} more"

    @property
    def taken(self) -> str:
        """Of many files: how many are there already, and what will become of those."""
        count = sum(file.is_there for file in self.files)
        return f"{count} of them are there already: {_MANY_TAKEN[self.if_exists]}" if count else ""

    @property
    def room(self) -> str:
        """How much is to come, and how much room there is."""
        parts = []
        if self.needed:
            unknown = any(file.size is None and not self._stays(file) for file in self.files)
            parts.append(f"{'At least ' if unknown else ''}{amount(self.needed)} to download")
        if self.free is not None:
            parts.append(f"{amount(self.free)} free")
        return words.sentence(", ".join(parts))

    @property
    def is_too_much(self) -> bool:
        """Whether it does not fit on the disk."""
        return self.free is not None and self.needed > self.free


_TAKEN = {
    IfExists.RENAME: "Is there already: the new one will be called “{free}”",
    IfExists.OVERWRITE: "Is there already: it will be replaced",
    IfExists.SKIP: "Is there already: it stays, and nothing is downloaded",
    IfExists.UPDATE: "Is there already: downloaded only if it changed on the server",
}
_MANY_TAKEN = {
    IfExists.RENAME: "the new ones get a number",
    IfExists.OVERWRITE: "they will be replaced",
    IfExists.SKIP: "they stay",
    IfExists.UPDATE: "downloaded only if they changed on the server",
}


def facts(file: File) -> str:
    """Size and type, or why they are not known."""
    if file.phase:
        return "waiting" if file.phase is Phase.IDLE else file.phase.value
    if not file.seen:
        return ""
    size = "size not told" if file.size is None else amount(file.size)
    return ", ".join(filter(None, (size, kind(file))))


def kind(file: File) -> str:
    """What type of file it is: by its name, else as the server says it."""
    extension = file.name.rpartition(".")[2] if "." in file.name else ""
    if extension.lower().startswith("blend"):
        return "Blender file"
    told = file.seen.content_type.partition(";")[0].strip() if file.seen else ""
    return f"{readable(extension.upper())} file" if extension else readable(told)[:40]


def _note(file: File, outcome: object) -> None:
    """Take what a look told."""
    file.phase = None
    match outcome:
        case Seen():
            file.seen = outcome
        case Failed(error=error):
            file.error = readable(error)


def _visible(file: File) -> tuple[object, ...]:
    return file.seen, file.error, file.phase


def _is_there(folder: str, name: str) -> bool:
    return os.path.lexists(os.path.join(portable.reach(folder), name))


def _remark(folder: str, name: str, if_exists: IfExists) -> str:
    """What becomes of a file whose name is taken."""
    numbered = (names.numbered(name, number) for number in range(1, LOOKED_FOR))
    free = next((other for other in numbered if not _is_there(folder, other)), name)
    return _TAKEN[if_exists].format(free=readable(free))


def _free(folder: str) -> int | None:
    """Bytes on the disk of a folder that may have to be made first."""
    path = portable.reach(folder)
    while not os.path.isdir(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None
