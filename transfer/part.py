"""The partial file, its sidecar, and the one atomic step that makes it the file."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import count, islice
from typing import TYPE_CHECKING, Any, NoReturn

from . import digest, disk, names, portable
from .digest import Sum
from .job import Digest, IfExists, Phase, Stopped, TransferError, Validator
from .ranges import Ranges

if TYPE_CHECKING:
    from .control import Control
    from .pipe import Pipe

CHECKPOINT_BYTES = 40 << 20  # received since the last one
CHECKPOINT_SECONDS = 5.0
MOST_UNSAVED = 48 << 20  # bytes; with what 16 workers have in their hands, no more than 64 MiB can be lost
SAVE_LOOK = 0.5  # seconds at least between two looks at what is to be saved
LOCK_PATIENCE = 1.0  # seconds to wait for a partial file that somebody else has
LOCK_LOOK = 0.02  # seconds between two looks
SIDECAR_SIZE = 1 << 20  # bytes; a larger one is not ours
SIDECAR_RANGES = 1000  # likewise
LARGEST_FILE = (1 << 63) - 1  # bytes, what systems count with
LOOKED_AT = 20_000  # entries of a folder among which leftovers are looked for
LEFTOVERS = 1000  # of a folder, at most
_UNKNOWN = Validator()
_PART_NAME = r"[^/\\\0]+" + names.PART_TAIL


@dataclass(slots=True)
class Received:
    """What is on the disk and what it is a part of: the sidecar's content. It holds no secrets."""

    ranges: Ranges = field(default_factory=Ranges)
    size: int | None = None
    """Bytes of the whole file, where the server told."""
    validator: Validator = _UNKNOWN
    via: str = ""
    """The mark of the mirror that brought the first of it; empty: its server did."""
    encoded: bool = False
    """Whether the bytes came encoded: then a position on the disk is none that a server knows."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        return self.size is not None and self.ranges.head() == self.size


Mark = tuple[int, ...]
"""What tells whether somebody else has touched a partial file meanwhile."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What is there of a file, beyond what its sidecar says yet."""

    received: Received
    mark: Mark
    """How the partial file looked when it was let go of; empty: nothing is remembered."""


class Sidecar:
    """What lies beside a partial file, says of what that is a part, and vouches for what is durable of it."""

    def __init__(self, url: str, digest: Digest | None) -> None:
        shown = names.shown(url)
        expected = digest and [digest.algorithm, digest.hex]
        self._about: dict[str, Any] = {"url": shown, "cut": shown != url, "digest": expected}
        self._path = ""  # where one may be: only then it has to be taken away
        self._said: dict[str, Any] | None = None  # what that says, if we have written it

    def describe(self, received: Received) -> dict[str, Any]:
        """What is to be said of a download."""
        validator = received.validator
        return {
            **self._about,
            "version": 1,
            "size": received.size,
            "etag": validator.etag,
            "last_modified": validator.last_modified,
            "is_date_strong": validator.is_date_strong,
            "via": received.via,
            "ranges": received.ranges.as_list(),
        }

    def says(self, received: Received) -> bool:
        """Whether it was written, and so."""
        return self._said == self.describe(received)

    def may_be_beside(self, part: str) -> bool:
        """Whether somebody has written one."""
        return self._path == _sidecar(part)

    def read(self, part: str, size: int, *, of_any: bool = False) -> Received:
        """Take up what an earlier process wrote down of a partial file; what it did not is not trusted.

        `size`: the bytes of that. `of_any`: also of another link. Raises OSError where it cannot be read now.
        """
        path = _sidecar(part)
        try:
            os.lstat(path)  # nearly always it is not there, and to open it would cost ten times as much
            self._path = path
            about = json.loads(disk.read_regular(path, SIDECAR_SIZE))
            return _parse(about, None if of_any else self._about["url"], size)
        except FileNotFoundError:
            return Received()
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            if disk.may_be_right(error):
                raise
            self.remove(part)
            return Received()

    def write(self, part: str, about: dict[str, Any]) -> None:
        """Say it of a partial file, from now on durably. Raises OSError."""
        self._path, self._said = _sidecar(part), None
        disk.write_atomically(self._path, json.dumps(about).encode())
        self._said = about

    def remove(self, part: str) -> None:
        """Have it vouch for nothing any more. Raises OSError."""
        if not self.may_be_beside(part):
            return
        with suppress(IsADirectoryError):  # then it vouches for nothing
            portable.remove(self._path)
        portable.sync_folder(os.path.dirname(part))
        self._path, self._said = "", None


class TakenError(TransferError):
    """Somebody else has the partial file."""

    def __init__(self) -> None:
        super().__init__("Another Blender or add-on is downloading this")


class Standing(Enum):
    """How a partial file stands in its folder."""

    CLOSED = auto()
    """We have not opened it, whether it is there or not."""
    LATE = auto()
    """It is not there: nothing has come yet, and there was nothing to go on from."""
    NAMELESS = auto()
    """It is in no folder, and only our descriptor has it: it came whole with the first read."""
    NAMED = auto()
    """It is there, and we have locked it."""


class File:
    """A partial file itself, whatever is in it. Closed, it raises Stopped where a descriptor is needed."""

    def __init__(self, folder: str, name: str) -> None:
        self.folder = folder
        self.home = os.path.join(folder, name)
        """Where it is to stand."""
        self.place = self.home
        """Where it stands, if it does; as a text, since a path costs as much as a system call."""
        self.standing = Standing.CLOSED
        self._fd = -1

    @property
    def fd(self) -> int:
        """Its descriptor; the file is made where it is late. Raises Stopped, TakenError, OSError."""
        if self.standing is Standing.LATE:
            self._open(self.place)
            if self.size:  # somebody has begun meanwhile, and is gone: Retry goes on with it
                self.close()
                raise TakenError
            with suppress(IsADirectoryError):  # which vouches for nothing
                portable.remove(_sidecar(self.place))
        if self.standing is Standing.CLOSED:
            raise Stopped
        return self._fd

    @property
    def is_open(self) -> bool:
        """Whether there is a descriptor."""
        return self._fd >= 0

    @property
    def is_borrowed(self) -> bool:
        """Whether it is another link's yet: nothing that came was seen to fit to it."""
        return self.place != self.home

    def open(self, path: str) -> None:
        """Have it, under the name that it has now; late, if nothing has that. Raises TakenError, OSError."""
        self.place = path
        if os.path.lexists(path):
            self._open(path)
        else:
            self.standing = Standing.LATE

    def _open(self, path: str) -> None:
        self._fd = _locked(path)
        self.standing = Standing.NAMED

    def go_home(self) -> None:
        """Leave what was borrowed as it is, and have our own. Raises TakenError, OSError."""
        self.close()
        self.open(self.home)

    def make_nameless(self) -> None:
        """Have it without a name, and so without a lock, if it is late and the system can."""
        fd = portable.open_nameless(self.folder, disk.MODE) if self.standing is Standing.LATE else -1
        if fd >= 0:
            self._fd, self.standing = fd, Standing.NAMELESS

    def take_name(self) -> None:
        """Stand under its name, locked, if it has none. Raises TakenError, OSError."""
        if self.standing is not Standing.NAMELESS:
            return
        try:
            portable.lock_file(self._fd)
            portable.give_name(self._fd, self.place)
        except FileExistsError:
            raise TakenError from None
        except OSError:  # the system gives it none
            self._copy()
        self.standing = Standing.NAMED

    def _copy(self) -> None:
        nameless, named = self._fd, _locked(self.place)
        try:
            os.ftruncate(named, 0)
            _write(named, memoryview(portable.pread(nameless, self.size, 0)), 0)
            portable.sync_file(named)  # what is published was made durable before
        except BaseException:
            portable.close_and_remove(named, self.place)
            raise
        self._fd = named
        os.close(nameless)

    def is_in_place(self) -> bool:
        """Whether it still stands under its name, if it had that; somebody may have deleted it."""
        if self.standing is Standing.NAMELESS:
            return True
        try:
            return portable.identity(os.fstat(self.fd)) == portable.identity(os.lstat(self.place))
        except OSError:
            return False

    def rename_new(self, target: str, wait: portable.Wait) -> None:
        """Raises FileExistsError where somebody has the name; else as `portable.rename_new`."""
        if self.standing is Standing.NAMELESS:
            try:
                portable.give_name(self._fd, target)
            except FileExistsError:
                raise
            except OSError:
                self.take_name()
            else:
                return
        portable.rename_new(self.place, target, wait)

    def settle(self, name: str, if_exists: IfExists, wait: portable.Wait) -> str | None:
        """Take a final name: its path; None if SKIP found it taken. Raises TransferError, OSError."""
        target = os.path.join(self.folder, name)
        if if_exists is not IfExists.RENAME and os.path.isdir(target):
            where = f"in the folder “{portable.plain(str(self.folder))}”"
            raise TransferError(f"A folder named “{name}” is in the way {where}. Choose another folder")
        if if_exists in (IfExists.OVERWRITE, IfExists.UPDATE):
            self.take_name()
            try:
                portable.replace(self.place, target, wait)
            except PermissionError as error:
                if os.path.isfile(target) and not os.access(target, os.W_OK):  # Windows' attribute
                    why = f"“{name}” in the folder “{portable.plain(self.folder)}” is read-only"
                    raise TransferError(f"{why}. Change that in its properties, then press Retry") from error
                raise
            return target
        for candidate in _candidates(target, if_exists):
            with suppress(FileExistsError):
                self.rename_new(candidate, wait)
                return candidate
        return None

    @property
    def size(self) -> int:
        """Bytes."""
        return os.fstat(self._fd).st_size if self.is_open else 0

    def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`. Raises Stopped, OSError."""
        return portable.pread(self.fd, count, offset)

    def empty(self) -> None:
        """Throw away what is in it."""
        if self.standing is Standing.NAMELESS:
            self.close()
            self.standing = Standing.LATE
        elif self.standing is not Standing.LATE:
            os.ftruncate(self.fd, 0)

    def look(self) -> Mark:
        """What it looks like, open or under its name. Raises OSError."""
        status = os.fstat(self._fd) if self.is_open else os.lstat(self.place)
        return *portable.identity(status), status.st_size, status.st_mtime_ns

    def delete(self) -> None:
        """Delete it with its sidecar, unless both names are somebody else's by now. Raises OSError."""
        if self.standing is Standing.NAMED and self.is_in_place():
            fd, self._fd, self.standing = self._fd, -1, Standing.CLOSED
            _delete(fd, self.place)

    def close(self) -> bool:
        """Let it go; what has no name is gone. False: the system tells only now that it could not write."""
        fd, self._fd, self.standing = self._fd, -1, Standing.CLOSED
        with suppress(OSError):
            if fd >= 0:
                os.close(fd)
            return True
        return False


class Part:
    """The partial file of one download: open and locked while workers run it, remembered in between.

    Its memory counts if the file is as it was left, and never after the disk could not write; else
    the sidecar does. `received` is what is in the file, of which the sidecar vouches only for what
    is durable. Closed, it has no descriptor and no lock, and what needs them raises Stopped: the
    main thread has closed it while a worker was in a name look-up.
    """

    def __init__(
        self,
        url: str,
        directory: str,
        digest: Digest | None,
        *,
        earlier: str = "",
        memory: Memory | None = None,
    ) -> None:
        """Touches no disk. `earlier`: another link's partial file, taken over if it fits, else left alone."""
        folder = portable.reach(directory)
        self.file = File(folder, names.part_name(url, directory))
        self.received = memory.received if memory else Received()
        self.lock = threading.Lock()
        """Guards the ranges in `received` while workers run it."""
        self.placing = threading.Lock()
        """Held by the worker that compares and writes what came."""
        self.sum = Sum(digest)
        self._earlier = earlier and os.path.join(folder, os.path.basename(earlier))
        self._mark: Mark = memory.mark if memory else ()  # while it is closed
        self._digest = digest
        self._sidecar = Sidecar(url, digest)
        self._lost: Exception | None = None  # why bytes that were there may not be, nobody knows which
        self._saving = threading.Lock()  # held by the worker that writes the sidecar
        self._saved = (0, 0.0)  # bytes, and when

    # -- Open.

    def open(self, sleep: Callable[[float], None] | None = None) -> bool:
        """Open and lock it. Returns whether it is as it was left. Raises TransferError, in a sentence.

        `sleep`: wait a moment for a download that gave way to this one, and is letting go just now.
        """
        end = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                with disk.explained(portable.plain(self.file.folder)):
                    return self._open()
            except TakenError:
                if not sleep or time.monotonic() > end:
                    raise
            sleep(LOCK_LOOK)

    def _open(self) -> bool:
        path, old, mark, memory = self.file.home, self._earlier, self._mark, self.received
        is_old_there = bool(old) and os.path.lexists(old)
        try:
            if is_old_there and not os.path.lexists(path):
                self._borrow(old)
            else:
                self.file.open(path)
                self.received = self._sidecar.read(self.file.place, self.file.size)
            if old and not is_old_there:  # taken over by a process that died before the last step
                disk.remove(_sidecar(old))
            is_known = bool(mark) and self.file.is_open and self.file.look() == mark
        except BaseException:
            self.received = memory
            self._unlock()
            raise
        if is_known:
            self.received = memory
        else:
            self.sum.restart()
        self._mark = ()
        self._saved = (self.received.ranges.total(), time.monotonic())
        return is_known

    def _borrow(self, old: str) -> None:
        """Go on with the partial file of a link that this one replaces, as long as what comes fits."""
        self.file.open(old)
        self.received = self._sidecar.read(self.file.place, self.file.size, of_any=True)
        if self._digest:  # the same file has another validator elsewhere
            self.received.validator = Validator()

    def _take_over(self) -> None:
        """It fits: have it under our own name, after the new sidecar; cut anywhere it is ours, or can be."""
        with self._saving:
            old = self.file.place
            self._save(self.file.home)
            with self._let_go():
                portable.replace(old, self.file.home)
                self.file.place = self.file.home
            if not self.file.is_open:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            portable.sync_folder(self.file.folder)
            disk.remove(_sidecar(old))

    def _check_place(self) -> None:
        """Under another disk's name, or a moved folder's, there is somebody else's by now.

        Raises OSError where not even the folder is there, TransferError.
        """
        if self.file.is_in_place():
            return
        why = portable.missing(self.file.folder, self.file.fd)
        if not why or not os.fstat(self.file.fd).st_nlink:  # else its disk may be there again, and it too
            with self.lock:
                self.received = Received()
        if why:
            raise why
        self._lost = TransferError("The partial file was taken away while it was downloaded. Press Retry")
        raise self._lost

    # -- Closed.

    @property
    def memory(self) -> Memory:
        """What another process needs to go on with it, once it is closed."""
        return Memory(self.received, self._mark)

    def release(self) -> None:
        """Close it, at no cost: what was received is remembered, not yet made durable. Raises nothing."""
        if self.file.is_open:
            with suppress(OSError, TransferError, Stopped):
                self.file.take_name()
                if not self._lost:
                    self._mark = self.file.look()
                elif self.file.is_in_place():  # only what its sidecar says is sure
                    self.received = Received()
                    self.received = self._sidecar.read(self.file.place, self.file.size, of_any=True)
        self._unlock()
        self._look_closed()

    def _look_closed(self) -> None:
        """Windows dates a file that was written to as it is closed."""
        if self._mark and not portable.moves_open_files:
            with suppress(OSError):
                self._mark = self.file.look()

    def close(self) -> None:
        """Close it, and keep what was received for another process. Raises nothing.

        Decoded bytes have no position that could be asked for: they are of no use to anybody.
        """
        # A full disk, say: the last checkpoint stands. Or a worker lets go of it, which wakes just now.
        with suppress(OSError, TransferError, Stopped):
            if (self.file.is_open or self._mark) and not self.file.is_borrowed:  # which stays as it was found
                self._keep()
        self.release()

    def _keep(self) -> None:
        is_kept = self._sidecar.says(self.received) and not self.received.encoded  # as is most of a long list
        if not self.file.is_open and self._mark and not is_kept and os.path.lexists(self.file.place):
            self.open()
        if self.file.is_open and not self._lost:
            count, place = self.received.ranges.total(), self.file.place
            if self.received.encoded or not (count or self._sidecar.may_be_beside(place)):
                self.discard()
            elif count and not is_kept:  # what `is_proven` has rejected stays as it was
                self.checkpoint()

    def discard(self) -> None:
        """Delete what was received, unless somebody else has it, and close it. Raises nothing."""
        if not self.file.is_open:
            discard_leftover(self.file.folder, os.path.basename(self.file.place))
        with suppress(OSError, Stopped):
            self.file.delete()
        self._unlock()
        self.received, self._mark = Received(), ()

    def _unlock(self) -> None:
        if not self.file.close():
            self._mark = ()
        self._lost = None

    # -- Bytes.

    @property
    def can_resume(self) -> bool:
        """Without validator or digest nothing proves that the rest belongs to what is there."""
        return not self.received.encoded and bool(self.received.validator or self._digest)

    @property
    def tie(self) -> str | None:
        """Who has to bring the rest, as `Received.via`, since only a date says which version it is of.

        Two servers may share that by chance. None: nobody in particular.
        """
        is_dated = self.received.ranges.total() and not self.received.validator.is_strong
        return self.received.via if is_dated and not self._digest else None

    @property
    def can_be_split(self) -> bool:
        """A weak validator proves nothing of bytes that are not compared (RFC 9110, section 15.3.7.3)."""
        return not self.received.encoded and bool(self.received.validator.if_range or self._digest)

    def fits(self, data: memoryview, offset: int) -> bool:
        """Whether what came is what is there, as far as something is."""
        if not self.received.ranges.meets(offset, offset + len(data)):  # nearly every call
            return True
        pieces = self.received.ranges.pieces(offset, offset + len(data))
        there = ((start, end) for start, end, is_there in pieces if is_there)
        return all(self.file.read(a, b - a) == data[a - offset : b - offset] for a, b in there)

    def write(self, data: memoryview, offset: int) -> bool:
        """Put what came where nothing is, and count it. Returns whether any of it was new."""
        end, is_new = offset + len(data), False
        if offset == 0 and end == self.received.size:
            self.file.make_nameless()
        self._check_size()
        for a, b, is_there in self.received.ranges.pieces(offset, end):
            if not is_there:
                if self.file.is_borrowed:
                    self._take_over()
                if a > self.received.ranges.end():
                    portable.allow_gap(self.file.fd)
                _write(self.file.fd, data[a - offset : b - offset], a)
                is_new = True
        self.sum.take(data, offset)
        with self.lock:
            self.received.ranges.add(offset, end)
        return is_new

    def unseen(self, offset: int, end: int | None) -> int:
        """How many bytes come next, up to `end`, that are not to be compared or to be hashed."""
        if self.sum.wants(offset) or self.file.is_borrowed or not (end and self.received.size):
            return 0
        return self.received.ranges.free(offset, min(end, self.received.size)) - offset

    def pour(self, pipe: Pipe, offset: int) -> int:
        """As `write`, unseen, if nobody has to see it. Returns how many bytes; the others have to be read."""
        if self.unseen(offset, offset + len(pipe)) < len(pipe):
            return 0
        self._check_size()
        count = pipe.pour(self.file.fd, offset)
        with self.lock:
            self.received.ranges.add(offset, offset + count)
        return count

    def _check_size(self) -> None:
        """What is written behind the end of a file that somebody else has cut would leave a hole."""
        end = self.received.ranges.end()
        if end and os.fstat(self.file.fd).st_size < end:
            with self._saving:  # who saves just now would say the contrary
                self._sidecar.remove(self.file.place)
            self._lost = TransferError("The partial file was cut by something else. Press Retry")
        if self._lost:
            raise self._lost

    def begin(self, size: int | None, validator: Validator, via: str = "", *, is_encoded: bool) -> None:
        """What will come is of this version of the file. Encoded, no byte of it has a known position."""
        if is_encoded:
            self.received.encoded = True
        else:
            self.received.size, self.received.validator, self.received.via = size, validator, via

    def forget(self) -> None:
        """Begin from zero. First the sidecar goes, which would vouch for what is written over."""
        if self.file.is_borrowed:  # it does not fit: it stays as it is, for another link
            self.file.go_home()
            self._lost = None
        else:
            self._sidecar.remove(self.file.place)
        with self.lock:
            self.received = Received()
        self.sum = Sum(None if self.told else self.sum.expected)
        self.file.empty()

    def doubt(self, kept: int) -> None:
        """Only the first `kept` bytes are sure; the others are there, and count for nothing."""
        with self._saving:  # else a sidecar that is being written would come after it is taken away
            with self.lock:
                self.received.ranges = Ranges([(0, kept)])
            if self.sum.seen > kept:
                self.sum.restart()
            self._sidecar.remove(self.file.place)

    # -- The digest.

    def expect(self, told: Digest | None) -> None:
        """Have the file checked by what the server says of it, if nobody has asked for more."""
        if told and not (self.sum.expected or self.received.encoded):
            with self.placing:
                self.sum = Sum(told)

    @property
    def told(self) -> Digest | None:
        """What the server says by itself of the whole file, where nothing else is expected."""
        return None if self._digest else self.sum.expected

    def hash_up_to(self, end: int, control: Control, buffer: memoryview) -> None:
        """Read from the disk what the digest has not seen while it came."""
        if not self.sum.expected or self.sum.seen >= end:
            return
        control.enter(Phase.VERIFY)
        control.turn.give()
        while (seen := self.sum.seen) < end:
            control.check()
            data = self.file.read(seen, min(len(buffer), end - seen))
            if not data:
                self._check_size()
            self.sum.take(data, seen)
            control.touch()

    def is_proven(self, control: Control, buffer: memoryview) -> bool:
        """Whether all is there already, and is what was asked for by its digest.

        What is not counts for nothing any more, and stays in the file until something else comes.
        """
        if self.can_resume:
            self.hash_up_to(self.received.ranges.head(), control, buffer)
        is_telling = bool(self._digest) and self.received.is_whole
        if is_telling and not self.sum.is_right:
            with self.lock:
                self.received = Received()
            self.sum.restart()
        return is_telling and self.sum.is_right

    def is_expected(self, control: Control, buffer: memoryview) -> bool:
        """All is there: whether it has the digest that was asked for, if any."""
        size = self.received.size or 0
        if self.file.standing is not Standing.NAMELESS:  # nobody else has that
            self._check_size()
            os.ftruncate(self.file.fd, size)  # it may have been longer once
        self.hash_up_to(size, control, buffer)
        return self.sum.is_right

    # -- The sidecar.

    @property
    def unsaved(self) -> int:
        """Bytes that would be lost to a power cut."""
        return self.received.ranges.total() - self._saved[0]

    @property
    def checkpoint_in(self) -> float:
        """Seconds until it is time to save them; 0: it is."""
        are_many = self.unsaved >= CHECKPOINT_BYTES
        return 0.0 if are_many else max(0.0, self._saved[1] + CHECKPOINT_SECONDS - time.monotonic())

    def save(self) -> None:
        """If it is time. One worker does it, the others go on, as long as not too much could be lost."""
        if not self.checkpoint_in and self._saving.acquire(blocking=self.unsaved >= MOST_UNSAVED):
            try:
                if not self.checkpoint_in:  # else another has done it meanwhile
                    self.checkpoint()
            finally:
                self._saving.release()

    def save_meanwhile(self) -> float | None:
        """While a worker waits. Returns seconds until it is time again; None: all is saved.

        Raises TransferError: whoever waits for a connection would take an OSError for the network's.
        """
        if not self.file.is_open or self.unsaved <= 0:
            return None
        with disk.explained(portable.plain(self.file.folder)):
            self.save()
        return max(SAVE_LOOK, self.checkpoint_in)

    def checkpoint(self) -> None:
        """Make what was received survive a power cut. Raises TransferError, OSError."""
        self.file.take_name()
        self._check_place()
        self._save(self.file.place)

    def _save(self, path: str) -> None:
        """First the bytes, then the sidecar that says so of the file of this name."""
        about = self._sidecar.describe(self.received)
        saved = self.received.ranges.total(), time.monotonic()
        self._sync(portable.sync_data)
        self._sidecar.write(path, about)
        self._saved = saved  # others go on writing meanwhile

    def _sync(self, sync: Callable[[int], None]) -> None:
        """Make the bytes durable. Raises OSError, and then again and again.

        A system tells only once that it could not write, and then takes the bytes for written.
        """
        if self._lost:
            raise self._lost
        try:
            sync(self.file.fd)
        except OSError as error:
            self._lost = error
            raise

    # -- The end.

    def publish(
        self,
        name: str,
        if_exists: IfExists,
        *,
        mtime: float | None = None,
        placed: Callable[[str], None] = lambda path: None,
        wait: portable.Wait = time.sleep,
    ) -> str | None:
        """Give the file its final name in one atomic step: its path; None if SKIP found the name taken.

        `placed` is told as soon as nothing else is left, before anything waits for the disk. `wait` waits
        for somebody who has the file open, where that is in the way; it may raise.

        Raises TransferError, OSError; then nothing stands under a final name.
        """
        if portable.moves_open_files:
            _date(self.file.fd, mtime)
        self._sync(portable.sync_file)
        self._check_place()
        with self._let_go():
            try:
                path = self.file.settle(name, if_exists, wait)
            except FileNotFoundError as error:
                _tell_of_scanners(self.file.folder, error)
        if path:
            if not portable.moves_open_files:
                _date(path, mtime)  # as it was closed it got another one
            if self.file.standing is not Standing.NAMELESS:
                with suppress(OSError):  # the file is there, whatever stands in the way of tidying up
                    disk.remove(_sidecar(self.file.place))
            path = portable.plain(path)
            placed(path)
            with suppress(OSError):
                portable.sync_folder(self.file.folder)
            self._unlock()
        return path

    def _let_go(self) -> AbstractContextManager[None]:
        """Close the file meanwhile, where none that is open can be renamed; what is left is ours again."""
        return nullcontext() if portable.moves_open_files else self._closed()

    @contextmanager
    def _closed(self) -> Iterator[None]:
        self.file.take_name()
        self._mark = self.file.look()
        self.file.close()  # whatever that says: all was made durable just before
        self._look_closed()
        try:
            yield
        finally:
            if os.path.lexists(self.file.place):
                with suppress(OSError, TransferError):
                    self.file.open(self.file.place)
                    if self.file.look() == self._mark:
                        self._mark = ()
                    else:
                        self._unlock()


def _date(file: int | str, mtime: float | None) -> None:
    """Give it the time of its server, if there is one that this file system knows."""
    if mtime is not None:
        with suppress(OSError, OverflowError):
            os.utime(file, (mtime, mtime))


def _locked(path: str) -> int:
    """Open or make the file, and lock it."""
    while True:
        fd = portable.open_file(path, os.O_RDWR | os.O_CREAT, disk.MODE)
        try:
            if not portable.lock_file(fd):
                raise TakenError
            status = os.fstat(fd)
            if _is_ours(status, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        if status.st_nlink > 1:
            portable.close_and_remove(fd, path)
        else:
            os.close(fd)


def _write(fd: int, data: memoryview, offset: int) -> None:
    while data:
        written = portable.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


def _is_ours(status: os.stat_result, path: str) -> bool:
    """Whether the name still is the file that was opened, and the file has no other name.

    It may have been published between open and lock. One with two names was published by a
    process that died before it removed this one: to write it would damage the file.
    """
    if not stat.S_ISREG(status.st_mode):
        raise TransferError(f"“{os.path.basename(path)}” is in the way and is not a file")
    try:
        # Some file systems count no names, and say 0.
        return status.st_nlink < 2 and portable.identity(status) == portable.identity(os.lstat(path))
    except FileNotFoundError:
        return False


def _tell_of_scanners(folder: str, error: FileNotFoundError) -> NoReturn:
    """They look at a file when it is closed, and take it away. Raises TransferError, or the error itself."""
    if not os.path.isdir(folder):
        raise error
    what = "The file was taken away when it was complete"
    raise TransferError(f"{what}. Ask your virus scanner, then press Retry") from error


def _candidates(target: str, if_exists: IfExists) -> Iterator[str]:
    yield target
    folder, name = os.path.split(target)
    for number in count(1) if if_exists is IfExists.RENAME else ():
        yield os.path.join(folder, names.numbered(name, number))


def _sidecar(part: str) -> str:
    return part + names.SIDECAR


def _delete(fd: int, path: str) -> None:
    """Delete a locked partial file. First the sidecar goes, which vouches for it. Raises OSError."""
    try:
        disk.remove(_sidecar(path))
    finally:
        portable.close_and_remove(fd, path)


def _parse(about: Any, url: str | None, on_disk: int) -> Received:
    """Read a sidecar. Raises ValueError, TypeError, KeyError where it is not one that holds here."""
    if about["version"] != 1 or (url is not None and about["url"] != url):
        raise ValueError("another download's")
    if len(about["ranges"]) > SIDECAR_RANGES:
        raise ValueError("more ranges than we make")
    size = None if about["size"] is None else byte_count(about["size"])
    ranges = Ranges((byte_count(start), byte_count(end)) for start, end in about["ranges"])
    if ranges.end() > on_disk or (size is not None and ranges.end() > size):
        raise ValueError("it says more than there is")
    etag, date = about["etag"], about["last_modified"]
    validator = Validator.told(etag, date, is_date_strong=about.get("is_date_strong") is True)
    if (etag, date) != (validator.etag, validator.last_modified):
        raise ValueError("not what came from a server: whoever can write to the folder can write this")
    return Received(ranges, size, validator, str(about.get("via", "")))


def byte_count(value: Any) -> int:
    """A number of bytes that a file can have; JSON's numbers may be infinite, too. Raises ValueError."""
    if type(value) is not int or not 0 <= value <= LARGEST_FILE:
        raise ValueError("not a number of bytes")
    return value


# -- What lies in a folder and nobody may know of.


@dataclass(frozen=True, slots=True)
class Leftover:
    """A partial file as its sidecar describes it."""

    name: str
    url: str
    """Without secrets."""
    is_cut: bool
    """Whether the link had secrets: then this one does not lead to the file."""
    digest: Digest | None
    received: int
    """Bytes."""
    size: int | None
    """Bytes of the whole file, where known."""


def is_part_name(name: str) -> bool:
    """Whether a partial file may be called that."""
    return bool(re.fullmatch(_PART_NAME, name))


def tails(directory: str) -> set[str]:
    """How the names of the partial files in a folder end. Raises OSError."""
    with suppress(FileNotFoundError):
        return names.part_tails(os.listdir(portable.reach(directory)))
    return set()


def leftovers(directory: str) -> list[Leftover]:
    """The partial files in a folder that have a sidecar which holds. Raises OSError."""
    with os.scandir(portable.reach(directory)) as entries:
        # macOS tells names on sticks and shares otherwise than they were given: é as e and an accent.
        found = {unicodedata.normalize("NFC", entry.name) for entry in islice(entries, LOOKED_AT)}
    parts = [name for name in found if is_part_name(name) and name + names.SIDECAR in found]
    return [left for name in sorted(parts)[:LEFTOVERS] if (left := leftover(directory, name))]


def leftover(directory: str, name: str) -> Leftover | None:
    """The partial file of this name, if it is there with a sidecar that holds."""
    path = os.path.join(portable.reach(directory), name)
    try:
        status = os.lstat(path)
        about = json.loads(disk.read_regular(_sidecar(path), SIDECAR_SIZE))
        received = _parse(about, None, status.st_size)
        url, is_cut = about["url"], about["cut"]
        names.check(url)
        if not stat.S_ISREG(status.st_mode) or not isinstance(is_cut, bool) or names.shown(url) != url:
            return None
        expected = digest.parse_fragment("=".join(about["digest"])) if about["digest"] else None
        return Leftover(name, url, is_cut, expected, received.ranges.total(), received.size)
    except (OSError, ValueError, TypeError, KeyError, RecursionError, TransferError):
        return None


def is_free(directory: str, name: str) -> bool:
    """Whether nobody has a partial file open at the moment."""
    fd = _taken(os.path.join(portable.reach(directory), name))
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def discard_leftover(directory: str, name: str) -> bool:
    """Delete a partial file that no download has open, with its sidecar. Waits for nobody, raises nothing.

    False: some other program has it open, and Windows does not delete it before that lets go.
    """
    path = os.path.join(portable.reach(directory), name)
    if is_part_name(name) and (fd := _taken(path)) >= 0:
        try:
            if portable.moves_open_files:
                _delete(fd, path)
            else:  # the sidecar last: what stays can be found again, and deleted then
                portable.close_and_remove(fd, path, wait=None)
                disk.remove(_sidecar(path), wait=None)
        except OSError as error:
            return error.errno != errno.EBUSY
    return True


def move_leftover(directory: str, to: str, name: str) -> bool:
    """Move a partial file that nobody has open, with its sidecar. False: it stays, on another disk, say."""
    here, there = (os.path.join(portable.reach(folder), name) for folder in (directory, to))
    if not is_part_name(name) or not is_free(directory, name) or os.path.lexists(there):
        return False
    try:
        portable.replace(_sidecar(here), _sidecar(there))  # without it the file is worth nothing
        portable.replace(here, there)
    except OSError:
        with suppress(OSError):
            portable.replace(_sidecar(there), _sidecar(here))
        return False
    return True


def _taken(path: str) -> int:
    """Open and lock a partial file that is there; -1: somebody has it, or it cannot be had."""
    try:
        fd = portable.open_file(path, os.O_RDWR)
    except OSError:
        return -1
    with suppress(OSError):
        if portable.lock_file(fd):
            return fd
    os.close(fd)
    return -1
