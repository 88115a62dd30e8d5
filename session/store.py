"""The list on disk, and what else outlives a Blender: private files in the extension's user folder.

Each Blender keeps one list, `queue-<pid>.json`, and locks `queue-<pid>.lock` beside it while it
lives. A list that nobody holds is adopted by the next Blender: its rows are written into that one's
own list first, then it goes. So Blender may die anywhere, and no row is lost or there twice.

How long the lock's file is says whether the list has all, as it does while nothing runs. Only where it does
not, the next Blender has a child look into the used folders: a disk may sleep, and a network's not answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..transfer import names, part, portable
from ..transfer.disk import PRIVATE, may_be_right, noted, read_regular, write_atomically
from ..transfer.job import Have
from ..workers import Download, Found, Host, Status, ask
from . import records
from .home import user_folder

log = logging.getLogger(__name__)

INTERVAL = 1.0  # seconds between two writes of a list that keeps changing
SHARE = 50  # times as long as it takes to make a long list is the pause after it
AT_ONCE = 200  # rows of which is seen in one tick whether their line is another: some 2 ms
SHORT = 500  # rows of a list that is written at once while no run goes on
RETRY = 10.0  # seconds until it is tried again where it failed
CHECK = 5.0  # seconds after which a worker that was told to write must have done so
LIST_SIZE = 256 << 20  # bytes; a larger file is not a list of ours
OTHERS_SIZE = 16 << 20  # likewise, of the other files
ETAGS = 20_000  # that are remembered, the last ones: some 4 MB
ETAGS_INTERVAL = 10.0  # seconds between two writes of those
# Bytes of a lock's file: what its list has of what there is to keep. TAKEN: another list has its rows.
UNTOLD, NOTHING, ALL, TAKEN = range(4)
NO_LIST = "queue-0.lock"
"""The lock, which nobody holds, of Blenders that keep no list."""
NAMES = 20  # that a process tries for its list: others may have its number, on another machine


class Store:
    """Keeps the unfinished rows on disk, one line each, rewritten only for rows that changed."""

    def __init__(self) -> None:
        self.folders = Folders(self._complain)
        self._lines: dict[int, str] = {}
        self._touched: dict[int, Download] = {}  # rows whose lines may be another
        self._is_changed = False
        self._lock = -1
        self._path: Path | None = None
        self._tried = float("-inf")  # when it was last written, or handed to a worker
        self._pause = INTERVAL
        self._handed: float | None = None  # since when a worker has what nobody has seen on the disk
        self._is_failing = False
        self._told = UNTOLD
        self.has_gaps = False
        """Whether used folders may have what no list had: a Blender was killed at work, or a list is lost."""
        self._adopted: list[tuple[Path, int]] = []  # lists with our rows, until ours has them; their locks

    @property
    def done(self) -> str:
        """The file to which workers add what they have finished; empty while there is none."""
        return os.path.splitext(self._path)[0] + ".done" if self._path else ""

    # -- Rows.

    def touch(self, row: Download) -> None:
        """A row has changed; finished ones are not kept."""
        if not row.is_unfinished:
            self.forget(row.uid)
            return
        self._lines.setdefault(row.uid, "")  # its place is at the end; what the line says is seen later
        self._touched[row.uid] = row
        self._tell(UNTOLD)

    def expect(self) -> None:
        """Rows go to work in used folders that no list has: if we die, the next Blender is to look there."""
        self.folders.save()
        self._tell(UNTOLD)
        if not self._path:  # in background mode there is no list
            with contextlib.suppress(OSError, ValueError):
                _unlock(_locked(user_folder() / NO_LIST))

    def forget(self, uid: int) -> None:
        """A row is finished or gone."""
        self._touched.pop(uid, None)
        if self._lines.pop(uid, None):
            self._is_changed = True

    def _encode(self, most: int | None = None) -> bool:
        """See which lines are another, of `most` rows. False: there are more."""
        touched = list(self._touched.values())
        self._touched = {row.uid: row for row in touched[most:]} if most else {}
        for row in touched[:most]:
            line = records.encode_row(row)
            if self._lines[row.uid] != line:
                self._lines[row.uid] = line
                self._is_changed = True
        return not self._touched

    def reorder(self, rows: Iterable[Download]) -> None:
        """The rows have another order."""
        self._lines = {row.uid: self._lines[row.uid] for row in rows if row.uid in self._lines}
        self._is_changed = True

    # -- Writing.

    def flush(self, now: float, host: Host | None) -> None:
        """Write what changed: the list through `host` while one runs, else here."""
        if len(self._touched) <= AT_ONCE:  # else there is enough to do
            self.folders.flush(now)
        if not self._path:
            return
        if self._handed is not None and now - self._handed >= CHECK:
            self._handed = None
            self._look()
        pause = RETRY if self._is_failing else self._pause
        if not self._encode(AT_ONCE) or now - self._tried < pause:
            return
        if not self._is_changed:
            if self._adopted and self._handed is None:
                self._settled()
            return
        self._tried = now
        if not host:
            self._write(self._path)
            return
        self._is_changed = False
        self._handed = now if self._handed is None else self._handed
        begin = time.monotonic()
        host.store(str(self._path), self._data())
        self._pause = max(INTERVAL, SHARE * (time.monotonic() - begin))

    def settle(self, now: float) -> None:
        """No run goes on: write the list soon, and now if little has changed."""
        if self._encode(AT_ONCE) and len(self._lines) < SHORT:
            self.save()
        else:
            self.flush(now, None)

    def save(self) -> None:
        """Write the list now, unless the disk has it. The workers have left."""
        self._encode()
        if self._handed is not None:
            self._handed = None
            self._look()
        if self._is_changed and self._path:
            self._write(self._path)
        else:
            self._tell_all()

    def _tell_all(self) -> None:
        self._tell(UNTOLD if self.has_gaps else ALL if self._lines else NOTHING)

    def _tell(self, told: int) -> None:
        if told != self._told and self._lock >= 0:
            self._told = told
            with contextlib.suppress(OSError):
                os.ftruncate(self._lock, told)

    def _look(self) -> None:
        """See whether the disk has the list: nobody tells how a worker fared."""
        if self._is_on_disk():
            self._settled()
        else:
            self._is_changed = True

    def _is_on_disk(self) -> bool:
        if not self._path or not self._lines:
            return not self._path or not os.path.lexists(self._path)
        try:
            return read_regular(self._path, LIST_SIZE) == self._data()
        except (OSError, ValueError):
            return False

    def _data(self) -> bytes:
        return records.encode_list(self._lines.values())

    def _write(self, path: Path) -> None:
        try:
            if self._lines:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, self._data(), PRIVATE)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            self._is_changed = True
            self._complain(error)
        else:
            self._is_changed = False
            self._tell_all()
            self._settled()

    def _complain(self, error: Exception) -> None:
        """Once, however often it fails."""
        if not self._is_failing:
            reason = getattr(error, "strerror", None) or type(error).__name__
            log.warning("The list of downloads cannot be kept on the disk now (%s): trying again", reason)
        self._is_failing = True

    def _settled(self) -> None:
        """The disk has our list: those that were adopted are not needed any more."""
        self._is_failing = False
        self._adopted = [(path, lock) for path, lock in self._adopted if not _removed(path, lock)]

    # -- The ends.

    @property
    def is_open(self) -> bool:
        """Whether the list is kept on the disk."""
        return self._path is not None

    def open(self) -> bool:
        """Claim a list of this process's own. False: not now, and it lives in memory only meanwhile."""
        for number in range(1, NAMES):
            name = f"queue-{os.getpid()}" + (f"-{number}" if number > 1 else "")
            try:
                path = user_folder() / f"{name}.json"
                is_first = not os.path.lexists(path.with_suffix(".lock"))
                self._lock = _locked(path.with_suffix(".lock"))
            except (OSError, ValueError) as error:
                self._complain(error)
            if self._lock >= 0 and _told(self._lock) == TAKEN:  # its list goes as soon as it can
                _unlock(self._lock)
                self._lock = -1
            if self._lock >= 0:
                self._path, self._is_failing = path, False
                self._told = _told(self._lock)
                self.has_gaps |= not is_first and _may_lack(self._lock, path)
                return True
        return False

    def close(self) -> None:
        """Write the list and give it up."""
        self.folders.save()
        self.save()
        if self._path:
            if not self._is_changed:
                self._settled()
                with contextlib.suppress(OSError):
                    os.unlink(self.done)
            if self._is_changed and not self._lines:  # somebody has it open
                self._tell(TAKEN)
            is_kept = self._lines or self.has_gaps or self._told == TAKEN
            _unlock(self._lock, None if is_kept else self._path.with_suffix(".lock"))
        for _, lock in self._adopted:  # not written to ours, or open elsewhere: the next Blender's
            _unlock(lock)
        self._adopted.clear()
        self._lock, self._path = -1, None

    # -- Others' lists.

    def adopt(self) -> Iterator[Download]:
        """The rows of lists that no Blender holds, without a uid.

        They are ours once all have come and `save` was called: until then the old list has them too.
        """
        if not self._path:
            return
        own_first = sorted(_newest_first(self._path.parent), key=lambda path: path != self._path)
        for path in own_first:  # before it is written over
            yield from self._adopt(path)
        with contextlib.suppress(OSError):  # of an earlier process: its numbers mean other rows from now on
            os.unlink(self.done)
        self._tidy(self._path.parent)

    def _adopt(self, path: Path) -> Iterator[Download]:
        is_own = path == self._path  # an earlier process had our number
        lock = -1
        if not is_own:
            with contextlib.suppress(OSError):
                lock = _locked(path.with_suffix(".lock"))
            if lock < 0:
                return
            if _told(lock) == TAKEN:
                self._adopted.append((path, lock))
                return
        bad = 0
        try:
            done = _in_place(noted(path.with_suffix(".done")))
            for row in records.decode_list(read_regular(path, LIST_SIZE), done):
                if row:
                    yield row
                else:
                    bad += 1
        except (OSError, ValueError) as error:
            is_taken = isinstance(error, FileNotFoundError)  # by another Blender just now
            if not is_taken and (is_own or not may_be_right(error)):  # else the next Blender may read it
                _set_aside(path)
                self.has_gaps = True
            _unlock(lock, path.with_suffix(".lock"))
            return
        if bad:
            _copy_aside(path, bad)
            self.has_gaps = True
        if not is_own:
            self.has_gaps |= _may_lack(lock, path)
            self._adopted.append((path, lock))
        self._is_changed = True

    def _tidy(self, folder: Path) -> None:
        """Remove what Blenders that were killed have left: half a file, a lock without a list."""
        kept = {path.stem for path, _ in self._adopted} | {self._path.stem if self._path else ""}
        left = [path for end in ("json~", "lock", "done") for path in folder.glob(f"queue-*.{end}")]
        for stem in sorted({path.name.partition(".")[0] for path in left} - kept):
            with contextlib.suppress(OSError):
                lock = _locked(folder / f"{stem}.lock")
                if lock < 0:
                    continue
                (folder / f"{stem}.json~").unlink(missing_ok=True)
                is_alone = not os.path.lexists(folder / f"{stem}.json")
                if is_alone:
                    self.has_gaps |= _may_lack(lock, folder / f"{stem}.json")
                    (folder / f"{stem}.done").unlink(missing_ok=True)
                _unlock(lock, folder / f"{stem}.lock" if is_alone else None)

    def find_lost(
        self, rows: Iterable[Download], known: dict[str, list[str]], found: Mapping[str, Found]
    ) -> list[Download]:
        """Rows, without a uid, for the partial files that were `found` in used folders, and that no list has.

        On the way rows that are stopped learn what is really there.
        """
        self.has_gaps = any(there.parts is None for there in found.values())
        forget_gone(known, found)
        places, lost = {folder: there.place for folder, there in found.items()}, _lying_about(found)
        for place, row in records.claimed((row for row in rows if row.is_unfinished), places):
            there = lost.pop(place, None)
            if there and row.status is not Status.RUNNING:
                row.progress = row.progress._replace(received=there[1].received, size=there[1].size)
                self.touch(row)
        for place, _ in records.claimed(self._rows_of_others() if lost else (), places):
            lost.pop(place, None)
        for directory, removed in known.items():
            for name in removed:
                lost.pop((places.get(directory, directory), name), None)
        return [records.row_of(left, to) for to, left in lost.values() if part.is_free(to, left.name)]

    def leftovers(self, rows: Iterable[Download], found: Mapping[str, Found]) -> list[records.Lying]:
        """Of the partial files that were `found` those that no list has any more, the largest first."""
        lost, listed = _lying_about(found), [*rows, *self._rows_of_others()]
        for place, _ in records.claimed((row for row in listed if row.is_unfinished), {}):
            lost.pop(place, None)
        lying = [_lying(directory, leftover) for directory, leftover in lost.values()]
        return sorted(lying, key=lambda each: -each.size)

    def _rows_of_others(self) -> list[Download]:
        """What other Blenders have in their lists: also where this one has none, as in background mode."""
        rows: list[Download] = []
        ours = {self._path, *(path for path, _ in self._adopted)}
        with contextlib.suppress(OSError, ValueError):
            for path in set(user_folder().glob("queue-*.json")) - ours:
                with contextlib.suppress(OSError, ValueError):
                    rows += filter(None, records.decode_list(read_regular(path, LIST_SIZE)))
        return rows


def _in_place(finished: Mapping[int, str]) -> set[int]:
    """The downloads of which the file is there, or a folder that does not answer may have it; by uid."""
    within: dict[str, dict[int, str]] = {}
    for uid, file in finished.items():
        within.setdefault(os.path.dirname(file), {})[uid] = file

    def look(folder: str) -> set[int]:
        return {uid for uid, file in within[folder].items() if os.path.lexists(portable.reach(file))}

    there = ask(look, within)
    return {uid for folder, files in within.items() for uid in there.get(folder, files)}


def _newest_first(folder: Path) -> list[Path]:
    """The lists in a folder. Where one was adopted half way, the newer one is right."""

    def age(path: Path) -> int:
        try:
            return -path.lstat().st_mtime_ns
        except OSError:
            return 0

    return sorted(folder.glob("queue-*.json"), key=age)


def _locked(path: Path) -> int:
    """An open, locked descriptor, or -1 where somebody else holds the lock. Raises OSError."""
    while True:
        fd = portable.open_file(path, os.O_RDWR | os.O_CREAT, PRIVATE)
        try:
            if not portable.lock_file(fd):
                os.close(fd)
                return -1
            with contextlib.suppress(FileNotFoundError):
                if portable.identity(os.fstat(fd)) == portable.identity(os.lstat(path)):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # its Blender has removed it since we opened it


def _removed(path: Path, lock: int) -> bool:
    """Have a list go whose rows another one has. False: not now, somebody has it open; its lock says it."""
    try:
        os.ftruncate(lock, TAKEN)
        for end in (".json~", ".json", ".done"):
            path.with_suffix(end).unlink(missing_ok=True)
    except OSError:
        return False
    _unlock(lock, path.with_suffix(".lock"))
    return True


def _told(lock: int) -> int:
    return os.fstat(lock).st_size


def _may_lack(lock: int, path: Path) -> bool:
    """Whether there was more to keep than the list of this lock says."""
    return _told(lock) == UNTOLD or (_told(lock) == ALL and not os.path.lexists(path))


def _unlock(fd: int, path: Path | None = None) -> None:
    """Release a lock, and remove its file at `path` first: whoever has it open sees that it is gone."""
    if fd < 0:
        return
    if path:
        with contextlib.suppress(OSError):
            portable.close_and_remove(fd, path)
    else:
        os.close(fd)


def _set_aside(path: Path) -> None:
    """Take a file out of the way that cannot be read; whoever knows its secret may look at it."""
    aside = _free_name(path)
    with contextlib.suppress(OSError):
        path.replace(aside)
        log.warning("A list could not be read and was set aside: %s", aside.name)


def _copy_aside(path: Path, bad: int) -> None:
    """Keep a file of which some lines could not be read."""
    aside = _free_name(path)
    with contextlib.suppress(OSError, ValueError):
        write_atomically(aside, read_regular(path, LIST_SIZE), PRIVATE)
        what = "1 download" if bad == 1 else f"{bad} downloads"
        log.warning("%s in a list could not be read; it was set aside: %s", what, aside.name)


def _free_name(path: Path) -> Path:
    number, aside = 1, path.with_suffix(".unreadable")
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.stem}-{number}.unreadable")
    return aside


# -- Folders.


class Folders:
    """Which folders were used: a list that is gone is found again from the sidecars there.

    Also which partial files in them are not to come back, since the user removed their rows.
    """

    def __init__(self, complain: Callable[[Exception], None]) -> None:
        self._complain = complain
        self._used: dict[str, list[str]] = {}  # not written down yet, with the links
        self._removed: dict[str, set[str]] = {}  # likewise, the names of partial files
        self._tried = float("-inf")

    def use(self, directory: str, urls: list[str]) -> None:
        """Links are downloaded to a folder: what was removed of them is wanted again."""
        if removed := self._removed.get(directory):
            removed -= names.parts_among(removed, urls, directory)
        self._used.setdefault(directory, []).extend(urls)

    def remove(self, directory: str, partial_files: Iterable[str]) -> None:
        """Rows go, their partial files stay."""
        self._removed.setdefault(directory, set()).update(partial_files)

    def flush(self, now: float) -> None:
        """Write down what changed, now and then."""
        if (self._used or self._removed) and now - self._tried >= INTERVAL:
            self._tried = now
            self.save()

    def save(self) -> None:
        """Write down what changed, unless another Blender is at it: then the next time."""
        if self._used or self._removed:
            with self.held():
                pass

    @contextlib.contextmanager
    def held(self) -> Iterator[dict[str, list[str]] | None]:
        """What is known, for this Blender alone meanwhile; at the end it is written where it changed.

        None: another Blender has it, there is no folder for it, or the disk does not give it just now.
        """
        try:
            path = user_folder() / "folders.json"
            lock = _locked(path.with_suffix(".lock"))
        except (OSError, ValueError) as error:
            self._complain(error)
            lock = -1
        before = _known_folders(path) if lock >= 0 else None
        if before is None:
            _unlock(lock)
            yield None
            return
        try:
            known = self._with_changes(before)
            yield known
            now = self._with_changes(known)  # a long list comes in portions: people do something meanwhile
            with contextlib.suppress(OSError):  # a full disk, say: it is all here yet, for the next time
                if list(now.items()) != list(before.items()):
                    write_atomically(path, records.encode_folders(now), PRIVATE)
                self._used.clear()
                self._removed.clear()
        finally:
            _unlock(lock)

    def _with_changes(self, before: dict[str, list[str]]) -> dict[str, list[str]]:
        known = dict(before)
        for directory, urls in self._used.items():
            removed = known.pop(directory, [])  # it comes last: it was used last
            back = names.parts_among(removed, urls, directory)
            known[directory] = [name for name in removed if name not in back]
        for directory, gone in self._removed.items():
            known[directory] = list(dict.fromkeys([*known.get(directory, []), *sorted(gone)]))
        return known


def _known_folders(path: Path) -> dict[str, list[str]] | None:
    """None: they may be had the next time."""
    try:
        return records.decode_folders(read_regular(path, OTHERS_SIZE))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        if may_be_right(error):
            return None
        _set_aside(path)
        return {}


def forget_gone(known: dict[str, list[str]], found: Mapping[str, Found]) -> None:
    """A partial file that is gone needs no remembering; one whose disk is unplugged or silent does."""
    for directory, removed in known.items():
        has_answered = directory in found and found[directory].parts is not None
        folder = portable.reach(directory)
        if removed and has_answered and os.path.isdir(folder):
            known[directory] = [name for name in removed if os.path.lexists(os.path.join(folder, name))]


def _lying_about(found: Mapping[str, Found]) -> dict[records.Place, tuple[str, part.Leftover]]:
    """The partial files in some folders. One may be known by two names."""
    return {
        (there.place, leftover.name): (directory, leftover)
        for directory, there in found.items()
        for leftover in there.parts or ()
    }


def _lying(directory: str, leftover: part.Leftover) -> records.Lying:
    path = Path(directory, leftover.name)
    try:
        status = path.lstat()
        size = min(status.st_size, getattr(status, "st_blocks", 1 << 62) * 512)  # it has holes
        age = time.time() - status.st_mtime
    except OSError:
        size, age = 0, 0.0
    title = names.from_url(leftover.url) or leftover.name
    return records.Lying(directory=directory, name=leftover.name, title=title, size=size, age=age)


# -- ETags.


class Etags:
    """What servers said of finished files, for UPDATE. Links are kept as hashes: they may hold secrets."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Any]] | None = None  # what the file has, once it was read
        self._fresh: dict[str, dict[str, Any]] = {}  # what it does not have yet
        self._tried = float("-inf")

    def find(self, url: str, directory: str) -> Have | None:
        """What is known of the file that this link left in this folder."""
        key = _key(url, directory)
        with contextlib.suppress(OSError, TypeError, KeyError):
            have = Have(**(self._fresh.get(key) or self._load()[key]))
            if isinstance(have.name, str) and isinstance(have.etag, str):
                return have
        return None

    def keep(self, url: str, directory: str, have: Have) -> None:
        """Remember a finished file."""
        self._fresh[_key(url, directory)] = asdict(have)

    def flush(self, now: float) -> None:
        """Write down what changed, now and then: a run may have many thousands, which are written anew."""
        if self._fresh and now - self._tried >= ETAGS_INTERVAL:
            self._tried = now
            self.save()

    def save(self) -> None:
        """Write down what changed, if that can be: without it a server is asked by date."""
        if not self._fresh:
            return
        with contextlib.suppress(OSError, ValueError):
            known = {key: have for key, have in self._load().items() if key not in self._fresh}
            known = dict([*known.items(), *self._fresh.items()][-ETAGS:])  # what was used last comes last
            write_atomically(user_folder() / "etags.json", json.dumps(known).encode(), PRIVATE)
            self._known, self._fresh = known, {}

    def _load(self) -> dict[str, dict[str, Any]]:
        """Raises OSError where the file is there, and may be had the next time."""
        if self._known is None:
            try:
                loaded = json.loads(read_regular(user_folder() / "etags.json", OTHERS_SIZE))
            except (OSError, ValueError, RecursionError) as error:
                if may_be_right(error):
                    raise
                loaded = None
            self._known = loaded if isinstance(loaded, dict) else {}
        return self._known


def _key(url: str, directory: str) -> str:
    return hashlib.sha256(f"{url}\n{directory}".encode("utf-8", "surrogatepass")).hexdigest()
