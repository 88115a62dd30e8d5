"""What a dialog shows before anything is downloaded: names, sizes, types, and room on the disk.

The main thread's, save for `hold`. Asking is a host's, as downloads are: in worker threads, or in a child
process. Nothing waits for a server here: what is not known yet is said to be so. Knows no Blender.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import NamedTuple

from ..transfer import lists, names, part, portable
from ..transfer.job import Entry, Failed, Halted, IfExists, Job, Phase, Seen
from ..transfer.space import amount
from ..workers import Ended, Host, Report, Status, ThreadHost, ask, is_silent, silence
from . import words
from .rows import Rows
from .words import readable

HANDFUL = 8  # links that are looked at one by one
CONNECTIONS = 4  # at most, to ask over
PLACELESS = "The list does not say where its files are. Copy the link to it, and paste that"
LONGEST = 10 << 20  # bytes of a list that are read
PARTS = 100  # of a list, at most
NAMED = 3  # files that are named where there are more than a handful
WORTH_TELLING = 0.01  # of what is free: what others will take of it
LOOKED_FOR = 1000  # names at most that the disk is asked about
FOLDERS = 100  # at most, of what others will take


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
    is_twin: bool = False
    """Whether one before it has this name, too."""
    is_queued: bool = False
    """Whether the list has it already, and fetches it now or soon."""
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
    def is_named(self) -> bool:
        """Whether that is known, or its link names a file."""
        return bool(self.seen or self.entry or names.extension_in(self.link.url))

    @property
    def size(self) -> int | None:
        """Bytes, where known."""
        return self.entry.size if self.entry else self.seen.size if self.seen else None


class Ahead:
    """The files that a dialog shows. Its host is closed once all have answered, or nobody asks any more."""

    def __init__(self, rows: Rows) -> None:
        """`rows`: the list that the files will be added to."""
        self._rows = rows
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
        self.silence = ""
        """The same where it has not answered yet."""
        self.free: int | None = None
        """Bytes on its disk, where known."""
        self.claimed = 0
        """Bytes of those that what runs and waits will take, as far as sizes are known."""
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
        """Hear what was found out; whether people see something new of that, or the folder answers by now."""
        before = [_visible(file) for file in self.files]
        if self._is_held or not self._asked:
            self._dismiss()
        for host in self.hosts:
            self._hear(host.poll())
        for host in [host for host in self._leaving if host.is_quiet()]:
            self._leaving.remove(host)
            host.shut(forced=True)
        has_woken = bool(self.silence) and not is_silent(self.folder)
        return has_woken or before != [_visible(file) for file in self.files]

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
        """Look at the folder: what is there, what is to come, and how much room there is."""
        self.folder, self.problem, self.if_exists = folder, problem, if_exists
        files = [*self.files, *self.listed][:LOOKED_FOR]
        places = [os.path.normpath(os.path.join(folder, file.subfolder)) if folder else "" for file in files]
        sought = [(place, file.name, file.link.url) for place, file in zip(places, files, strict=True)]
        found = ask(partial(_look, sought), [folder] if folder else [])
        self.silence = silence(readable(folder)) if folder and not found else ""
        disk, there = found.get(folder, (None, [(False, 0)] * len(files)))
        self.free, self.claimed = (disk.free, _claimed(self._rows, disk.device)) if disk else (None, 0)
        takers: set[str] = set()
        queued = {place: self._queued(place) for place in set(places)}
        for number, (file, place) in enumerate(zip(files, places, strict=True)):
            file.is_there, file.received = there[number]
            file.is_queued = file.link.url in queued[place]
            self._name(file, place, takers, is_told=number < len(self.files) <= HANDFUL)

    def _queued(self, folder: str) -> set[str]:
        """The links that the list fetches into a folder, now or soon."""
        return {row.url for row in self._rows.within(folder) if row.status in _UNDER_WAY}

    def _name(self, file: File, folder: str, takers: set[str], *, is_told: bool) -> None:
        """Tell a name that is taken, on the disk or by one before, and what becomes of the file then.

        `takers` are the paths that those before it will have; its own is added.
        """
        path = _path(folder, file.name)
        file.is_twin, file.remark = file.is_named and path in takers, ""
        if is_told and file.is_queued:
            file.remark = QUEUED
        elif is_told and folder and (file.is_there or file.is_twin):
            free = _free_name(folder, file.name, takers)
            file.remark = (_TAKEN if file.is_there else _TWINS)[self.if_exists].format(free=readable(free))
            path = _path(folder, free) if self.if_exists is IfExists.RENAME else path
        takers.add(path)

    @property
    def needed(self) -> int:
        """Bytes that the disk will have to take, as far as sizes are known."""
        return sum(_missing(file) for file in self.wanted if not (self._stays(file) or self._may_stay(file)))

    @property
    def maybe(self) -> int:
        """Bytes that it will have to take besides, if files that are there have changed on the server."""
        return sum(_missing(file) for file in self.wanted if self._may_stay(file))

    def _stays(self, file: File) -> bool:
        return file.is_queued or (file.is_there and self.if_exists is IfExists.SKIP)

    def _may_stay(self, file: File) -> bool:
        return file.is_there and not file.is_queued and self.if_exists is IfExists.UPDATE

    # -- What people read.

    @property
    def choice(self) -> str:
        """Of what lists name: how many are chosen."""
        chosen = f"{sum(file.is_chosen for file in self.listed):,}"
        files = words.counted(len(self.listed), "file", "files")
        left = f". Left out, since they name no file in the folder: {self.left_out:,}"
        return f"{chosen} of {files} chosen{left if self.left_out else ''}"

    @property
    def summary(self) -> str:
        """Of many files: how many, and what they are called."""
        first, more = self.files[:NAMED], len(self.files) - NAMED
        called = ", ".join(readable(file.name) for file in first)
        return f"{len(self.files):,} files: {called} and {more:,} more"

    @property
    def taken(self) -> list[str]:
        """Of files that are not told one by one: how many have a name that is taken, and what then."""
        many = self.wanted if len(self.files) > HANDFUL else self.wanted[len(self.files) :]
        there, twins, queued = (
            sum(getattr(file, name) for file in many) for name in ("is_there", "is_twin", "is_queued")
        )
        least = "At least " if len(self.files) + len(self.listed) > LOOKED_FOR else ""
        are, have = ("file is", "files are"), ("file has", "files have")
        sentences = {
            f"{least}{words.counted(there, *are)} there already: {_MANY_TAKEN[self.if_exists]}": there,
            f"{least}{words.counted(twins, *have)} the name of another: {_MANY_TWINS[self.if_exists]}": twins,
            f"{least}{words.counted(queued, *are)} in the list already, and not added twice": queued,
        }
        return [sentence for sentence, count in sentences.items() if count]

    @property
    def room(self) -> str:
        """How much is to come, and how much room there is."""
        parts = []
        is_unknown = any(file.size is None and not self._stays(file) for file in self.wanted)
        most, least = ("", "At least ") if is_unknown else ("Up to " if self.maybe else "", "")
        if count := self.needed + (0 if is_unknown else self.maybe):
            parts.append(f"{most}{least}{amount(count)} to download")
        if self.free is not None:
            parts.append(f"{amount(self.free)} free in {readable(self.folder)}")
            if self.claimed > self.free * WORTH_TELLING:
                parts.append(f"of which downloads in the list will take {amount(self.claimed)}")
        return words.sentence(", ".join(parts))

    @property
    def is_too_much(self) -> bool:
        """Whether it does not fit on the disk, beside what is to come by now."""
        return self.free is not None and bool(self.needed) and self.needed > self.free - self.claimed


_UNDER_WAY = (Status.QUEUED, Status.RUNNING)
QUEUED = "Is in the list already, and is not added twice"
_TAKEN = {
    IfExists.RENAME: "Is there already: the new one will be called “{free}”",
    IfExists.OVERWRITE: "Is there already: it will be replaced",
    IfExists.SKIP: "Is there already: it stays, and nothing is downloaded",
    IfExists.UPDATE: "Is there already: downloaded only if it changed on the server",
}
_TWINS = {
    IfExists.RENAME: "Has the name of one above: the later of them will be called “{free}”",
    IfExists.OVERWRITE: "Has the name of one above: only the later of them is kept",
    IfExists.SKIP: "Has the name of one above: only the earlier of them is kept",
    IfExists.UPDATE: "Has the name of one above: only the later of them is kept",
}
_MANY_TAKEN = {
    IfExists.RENAME: "what is new gets a number",
    IfExists.OVERWRITE: "what is there will be replaced",
    IfExists.SKIP: "what is there stays",
    IfExists.UPDATE: "downloaded only if changed on the server",
}
_MANY_TWINS = {
    IfExists.RENAME: "what comes later gets a number",
    IfExists.OVERWRITE: "only what comes last is kept",
    IfExists.SKIP: "only what comes first is kept",
    IfExists.UPDATE: "only what comes last is kept",
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


def _missing(file: File) -> int:
    return max(0, (file.size or 0) - file.received)


def _is_there(folder: str, name: str) -> bool:
    return os.path.lexists(os.path.join(portable.reach(folder), name))


def _path(folder: str, name: str) -> str:
    """By which two names for one file are known."""
    return os.path.normcase(os.path.join(folder, name))


def _free_name(folder: str, name: str, takers: set[str]) -> str:
    """What a file is called whose name is taken, on the disk or by these."""
    numbered = (names.numbered(name, number) for number in range(1, LOOKED_FOR))
    free = (each for each in numbered if _path(folder, each) not in takers and not _is_there(folder, each))
    return next(free, name)


class _Disk(NamedTuple):
    device: int
    """The system's number of it."""
    free: int
    """Bytes."""


def _disk(folder: str) -> _Disk | None:
    """The disk of a folder that may have to be made first."""
    path = portable.reach(folder)
    while not os.path.isdir(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    try:
        return _Disk(os.stat(path).st_dev, shutil.disk_usage(path).free)
    except OSError:
        return None


Place = tuple[str, str, str]
"""A folder, the name of a file in it, and its link."""


def _look(places: Iterable[Place], folder: str) -> tuple[_Disk | None, list[tuple[bool, int]]]:
    """The disk of a folder; of each file in or below it whether it is there, and what was received of it."""
    return _disk(folder), [(_is_there(place, name), _received(place, url)) for place, name, url in places]


def _received(folder: str, url: str) -> int:
    old = part.leftover(folder, names.part_name(url, folder))
    return old.received if old else 0


def _claimed(rows: Rows, device: int) -> int:
    """Bytes that downloads which run and wait will take of a disk, as far as their sizes are known."""
    takers: dict[str, int] = {}
    for row in (*rows.running.values(), *rows.queued()):
        if row.size:
            takers[row.directory] = takers.get(row.directory, 0) + max(0, row.size - row.received)
    disks = ask(_disk, list(takers)[:FOLDERS])
    return sum(takers[folder] for folder, disk in disks.items() if disk and disk.device == device)
