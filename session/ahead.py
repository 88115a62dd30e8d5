"""What a dialog shows before anything is downloaded: names, sizes, types, and room on the disk.

The main thread's, save for `hold`. Asking is a host's, as downloads are: in worker threads, or in a child
process. Nothing waits for a server here: what is not known yet is said to be so. Knows no Blender.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice

from ..transfer import lists, names, part, portable
from ..transfer.job import Entry, Failed, Halted, IfExists, Job, Phase, Seen
from ..transfer.space import amount
from ..workers import Ended, Host, Report, ThreadHost
from . import words
from .records import readable

HANDFUL = 8  # links that are looked at one by one
CONNECTIONS = 4  # at most, to ask over
PLACELESS = "The list does not say where its files are. Copy the link to it, and paste that"
LONGEST = 10 << 20  # bytes of a list that are read
PARTS = 100  # of a list, at most
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

    entry: Entry | None = None
    """What a list says of it, if it is from one."""
    is_chosen: bool = True

    @property
    def wanted(self) -> str:
        """What a list calls it; empty where the server says that."""
        return self.entry.path.rpartition("/")[2] if self.entry else ""

    @property
    def subfolder(self) -> str:
        """Where a list puts it, below the folder; empty for there."""
        return self.entry.path.rpartition("/")[0] if self.entry else ""

    @property
    def mirrors(self) -> tuple[str, ...]:
        """Where it can be had besides."""
        return self.entry.mirrors if self.entry else ()

    @property
    def name(self) -> str:
        """What it is, or may be, called."""
        told = self.wanted or (self.seen.name if self.seen else "")
        return told or names.from_url(self.link.url) or names.FALLBACK

    @property
    def size(self) -> int | None:
        """Bytes, where known."""
        return self.entry.size if self.entry else self.seen.size if self.seen else None


class Ahead:
    """The files that a dialog shows. Its host is closed once all have answered, or nobody asks any more."""

    def __init__(self) -> None:
        self.files: list[File] = []
        """Of the links that are no lists, or were not read yet."""
        self.listed: list[File] = []
        """What lists name, to be chosen from."""
        self.left_out = 0
        """Entries of lists that name no file, or one outside of the folder."""
        self._links: list[names.Link] = []
        self._taken: list[File] = []  # lists that were dropped on a window
        self._is_fresh = False  # no dialog has shown those yet
        self.folder = ""
        """Where they are to go; empty where that is no folder."""
        self.problem = ""
        """What is wrong with the folder, in a sentence."""
        self.free: int | None = None
        """Bytes on its disk, where known."""
        self.if_exists = IfExists.RENAME
        self._asked: dict[int, File] = {}  # looks that have not ended, by their uid
        self._known: dict[str, File] = {}  # what was looked at since the dialog opened, by link
        self._new_host: Callable[[], Host] | None = None
        self._host: Host | None = None
        self._leaving: list[Host] = []  # which nobody asks any more
        self._is_held = False
        self._uid = 0

    def claim(self) -> bool:
        """Whether `take` was given a list, for the dialog that opens now: it is no other's."""
        is_fresh, self._is_fresh = self._is_fresh, False
        return is_fresh

    def take(self, data: bytes) -> None:
        """Have what a list names that lies on the disk. Raises NoListError in a sentence."""
        listing = lists.read(data, "")
        if not listing.entries:
            raise lists.NoListError(PLACELESS)
        seen = Seen(name="", entries=tuple(listing.entries), left_out=len(listing.problems))
        self._taken, self._is_fresh = [File(names.Link(""), seen=seen)], True
        self._arrange()

    @property
    def hosts(self) -> list[Host]:
        """Those that are asked, or have workers left."""
        return [*self._leaving, *([self._host] if self._host else [])]

    @property
    def is_over(self) -> bool:
        """Whether no worker is left."""
        return not self.hosts

    def show(self, links: Iterable[names.Link], new_host: Callable[[], Host]) -> None:
        """Have these links, and ask about those that nobody has asked about yet, if they are a handful.

        `new_host` makes one that may work just now: none with threads in this process while Blender renders.
        """
        self._links, self._new_host = list(links), new_host
        if len(self._links) <= HANDFUL:
            for link in self._links:
                if link.url not in self._known:
                    self._ask(File(link), new_host)
        self._arrange()

    def _ask(self, file: File, new_host: Callable[[], Host]) -> None:
        if self._is_held:
            self._dismiss()
        self._host = self._host or new_host()
        self._uid += 1
        self._asked[self._uid] = self._known[file.link.url] = file
        file.phase = Phase.IDLE
        is_part = file.link not in self._links
        most = LONGEST if is_part or lists.is_list(file.link.url) else 0
        self._host.submit(Job(uid=self._uid, url=file.link.url, directory="", looks=most))

    def _dismiss(self) -> None:
        """The host that was asked leaves."""
        self._is_held = False
        if self._host:
            self._host.dismiss()
            self._leaving.append(self._host)
            self._host = None

    def _arrange(self) -> None:
        """Put what lists name in the place of the lists."""
        before = {file.link.url: file for file in self.listed}
        self.files, self.listed, self.left_out = [], [], 0
        known = {link.url: self._known.get(link.url) or File(link) for link in self._links}
        todo, named = [*self._taken, *known.values()], set[Entry]()
        while todo:
            file = todo.pop(0)
            if not file.seen or file.seen.entries is None:
                self.files.append(file)
                continue
            self.left_out += file.seen.left_out
            fresh = (entry for entry in file.seen.entries if entry not in named)  # parts may share a file
            for entry in islice(fresh, lists.MOST - len(self.listed)):
                named.add(entry)
                old = before.get(entry.url)
                new = File(names.Link(entry.url, entry.digest), entry=entry)
                self.listed.append(old if old and old.entry == entry else new)
            is_named = any(entry.url == file.link.url for entry in file.seen.entries)
            if file.link in self._links and lists.is_text(file.seen.name) and not is_named:
                self.listed.append(before.get(file.link.url) or _itself(file))
            todo += self._parts(file.seen, known)

    def _parts(self, seen: Seen, known: dict[str, File]) -> list[File]:
        """The further parts of a list, which are asked for once."""
        parts = []
        for url in seen.more:
            if url in known or len(known) >= PARTS:
                continue
            if url not in self._known and self._new_host:
                self._ask(File(names.Link(url)), self._new_host)
            known[url] = self._known.get(url) or File(names.Link(url))
            parts.append(known[url])
        return parts

    def poll(self) -> bool:
        """Hear what was found out; whether something changed that people see."""
        before = [_visible(file) for file in self.files]
        if self._is_held or not self._asked:
            self._dismiss()
        for host in self.hosts:
            self._hear(host.poll())
        for host in [host for host in self._leaving if host.is_quiet()]:
            self._leaving.remove(host)
            host.shut(forced=True)
        return before != [_visible(file) for file in self.files]

    def _hear(self, report: Report) -> None:
        for uid, progress in report.progress.items():
            if file := self._asked.get(uid):
                file.phase = progress.phase
        for event in report.events:
            if not (isinstance(event, Ended) and (file := self._asked.pop(event.uid, None))):
                continue
            if isinstance(event.outcome, Halted) and self._new_host:  # Blender has begun to render
                self._ask(file, self._new_host)
            else:
                _note(file, event.outcome)
                self._arrange()

    def leave(self) -> None:
        """Nobody looks at it any more. Does not wait: `poll` until it `is_over`."""
        self._links, self._taken = [], []
        self._arrange()
        self._known.clear()
        self._asked.clear()
        self._dismiss()

    def hold(self) -> None:
        """Have no thread of ours in this process: Blender renders. Any thread; does not wait."""
        if isinstance(host := self._host, ThreadHost):
            host.dismiss()
            self._is_held = True

    def close(self) -> None:
        """Join every worker; a name look-up that does not come back is left behind."""
        self._asked.clear()
        self._dismiss()
        while self._leaving:
            self._leaving.pop().shut(forced=True)

    def known(self) -> dict[str, File]:
        """What is known of each link's file."""
        return {file.link.url: file for file in [*self.files, *self.listed] if file.seen or file.entry}

    def batches(self, links: Iterable[names.Link]) -> dict[str, list[names.Link]]:
        """What to download, by the folder below the one that was chosen: no `links` that are lists."""
        read = {url for url, file in self._known.items() if file.seen and file.seen.entries is not None}
        found: dict[str, list[names.Link]] = {"": [link for link in links if link.url not in read]}
        for file in self.listed:
            if file.is_chosen:
                found.setdefault(file.subfolder, []).append(file.link)
        return {subfolder: batch for subfolder, batch in found.items() if batch}

    @property
    def wanted(self) -> list[File]:
        """All that is to be downloaded."""
        return [*self.files, *(file for file in self.listed if file.is_chosen)]

    # -- The disk.

    def weigh(self, folder: str, if_exists: IfExists, problem: str = "") -> None:
        """Look at the folder: what is there, and how much room."""
        self.folder, self.problem, self.if_exists = folder, problem, if_exists
        self.free = _free(folder) if folder else None
        for file in [*self.files, *self.listed][:LOOKED_FOR]:
            _weigh(file, os.path.join(folder, file.subfolder) if folder else "", if_exists)

    @property
    def needed(self) -> int:
        """Bytes that the disk will have to take, as far as sizes are known."""
        return sum(max(0, (file.size or 0) - file.received) for file in self.wanted if not self._stays(file))

    def _stays(self, file: File) -> bool:
        return file.is_there and self.if_exists is IfExists.SKIP

    # -- What people read.

    @property
    def choice(self) -> str:
        """Of what lists name: how many are chosen."""
        chosen = sum(file.is_chosen for file in self.listed)
        left = f". {self.left_out} more name no file in the folder, and are left out" if self.left_out else ""
        return f"{chosen} of {len(self.listed)} files chosen{left}"

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
        least = "At least " if len(self.files) > LOOKED_FOR else ""
        return f"{least}{count} of them are there already: {_MANY_TAKEN[self.if_exists]}" if count else ""

    @property
    def room(self) -> str:
        """How much is to come, and how much room there is."""
        parts = []
        if self.needed:
            unknown = any(file.size is None and not self._stays(file) for file in self.wanted)
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
    if not file.seen and not file.entry:
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


def _itself(file: File) -> File:
    """A text that was read as a list: it may be wanted for itself, so it is there to be chosen."""
    assert file.seen
    return File(file.link, seen=replace(file.seen, entries=None), is_chosen=False)


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


def _weigh(file: File, folder: str, if_exists: IfExists) -> None:
    """Look for a file, and for what was received of it; no folder: there is nothing."""
    file.is_there = bool(folder) and _is_there(folder, file.name)
    file.remark = _remark(folder, file.name, if_exists) if file.is_there else ""
    old = part.leftover(folder, names.part_name(file.link.url, folder)) if folder else None
    file.received = old.received if old else 0


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
