"""The partial file, its sidecar, and the one atomic step that makes it the file."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from . import names, portable
from .digest import parse_fragment
from .job import Digest, IfExists, TransferError, Validator
from .ranges import Ranges

CHECKPOINT_BYTES = 48 << 20  # received since the last one
CHECKPOINT_SECONDS = 5.0
MOST_UNSAVED = 60 << 20  # bytes; with what 16 workers have in their hands, no more than 64 MiB can be lost
_NO_FILE = (errno.ELOOP, errno.ENXIO)  # a link, or a socket, is in the place of one
SIDECAR_SIZE = 1 << 20  # bytes; a larger one is not ours
NOTE_SIZE = 16 << 20  # bytes, of what was finished by one Blender; likewise
SIDECAR_RANGES = 1000  # likewise
LARGEST_FILE = (1 << 63) - 1  # bytes, what systems count with
LOOKED_AT = 20_000  # entries of a folder among which leftovers are looked for
LEFTOVERS = 1000  # of a folder, at most
_PART_NAME = r"[^/\\\0]+" + names.PART_TAIL
_MODE = 0o666  # less the umask, as for any file that a user saves


@dataclass(slots=True)
class Received:
    """What is on the disk and what it is a part of: the sidecar's content. It holds no secrets."""

    ranges: Ranges = field(default_factory=Ranges)
    size: int | None = None
    """Bytes of the whole file, where the server told."""
    validator: Validator = field(default_factory=Validator)
    encoded: bool = False
    """Whether the bytes came encoded: then a position on the disk is none that a server knows."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        return self.size is not None and self.ranges.head() == self.size

    def forget(self) -> None:
        """Begin from zero."""
        self.ranges.clear()
        self.size = None
        self.validator = Validator()
        self.encoded = False


Mark = tuple[int, ...]
"""What tells whether somebody else has touched a partial file meanwhile."""


class TakenError(TransferError):
    """Somebody else has the partial file."""


class Part:
    """An open, locked partial file. One owner; `close` it.

    `Part(…)` raises TransferError when it cannot be had, in a sentence.
    """

    def __init__(self, url: str, directory: str, digest: Digest | None, *, earlier: str = "") -> None:
        folder = portable.reach(directory)
        self.path = Path(folder, names.part_name(url, directory))
        shown = names.shown(url)
        expected = digest and [digest.algorithm, digest.hex]
        self._about: dict[str, Any] = {"url": shown, "cut": shown != url, "digest": expected}
        self._has_digest = digest is not None
        self.received = Received()
        self._has_sidecar = False  # perhaps: only then it has to be taken away
        self._lost: OSError | None = None
        with told(directory):
            old = Path(folder, os.path.basename(earlier))
            if earlier and os.path.lexists(old) and not os.path.lexists(self.path):
                self._take_over(old)
            else:
                self._begin(shown, _sidecar(old) if earlier and not os.path.lexists(old) else None)
        self._saved = (self.received.ranges.total(), time.monotonic())

    @property
    def sidecar(self) -> Path:
        """The file that describes the partial file."""
        return _sidecar(self.path)

    @property
    def is_doubtful(self) -> bool:
        """Whether bytes since the last checkpoint were lost by the disk, nobody knows which."""
        return self._lost is not None

    def _begin(self, url: str, orphan: Path | None) -> None:
        self.fd = self._open()
        try:
            self._read_sidecar(url)
            if orphan:  # of a partial file that was taken over by a process that died before the last step
                _remove_small(orphan)
        except BaseException:
            self.release()
            raise

    def _take_over(self, old: Path) -> None:
        """Go on with the partial file of a link that this one replaces, under our own name.

        First the new sidecar, then the file, then the old sidecar goes: cut anywhere, it can be
        taken over again, or it is ours.
        """
        own, self.path = self.path, old
        self.fd, old_sidecar = self._open(), self.sidecar
        try:
            self._read_sidecar(None)
            if self._has_digest:  # the same file has another validator elsewhere
                self.received.validator = Validator()
            self.path = own
            self._save()
            with self._let_go():
                os.rename(old, own)
            portable.sync_folder(own.parent)
            _remove_small(old_sidecar)
        except BaseException:
            self.release()
            raise

    def _open(self) -> int:
        """Open or make the file, and lock it."""
        while True:
            fd = portable.open_file(self.path, os.O_RDWR | os.O_CREAT, _MODE)
            try:
                if not portable.lock_file(fd):
                    raise TakenError("Another Blender is downloading this")
                status = os.fstat(fd)
                if self._is_ours(status):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            if status.st_nlink > 1:
                portable.close_and_remove(fd, self.path)
            else:
                os.close(fd)

    def _is_ours(self, status: os.stat_result) -> bool:
        """Whether the name still is the file that was opened, and the file has no other name.

        It may have been published between open and lock. One with two names was published by a
        process that died before it removed this one: to write it would damage the file.
        """
        if not stat.S_ISREG(status.st_mode):
            raise TransferError(f"“{self.path.name}” is in the way and is not a file")
        try:
            return status.st_nlink == 1 and os.path.samestat(status, os.lstat(self.path))
        except FileNotFoundError:
            return False

    def is_in_place(self) -> bool:
        """Whether the file still stands under its name; somebody may have deleted it."""
        try:
            return os.path.samestat(os.fstat(self.fd), os.lstat(self.path))
        except OSError:
            return False

    def _check_place(self) -> None:
        """Under another disk's name, or a moved folder's, there is somebody else's by now."""
        if not self.is_in_place():
            raise TransferError(f"“{self.path.name}” was taken away while it was downloaded. Press Retry")

    def mark(self) -> Mark:
        """Which file this is and when it was last written."""
        status = os.fstat(self.fd)
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    @property
    def can_resume(self) -> bool:
        """Without validator or digest nothing proves that the rest belongs to what is there."""
        received = self.received
        return not received.encoded and bool(received.validator.if_range or self._has_digest)

    # -- Bytes.

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of `data` at `offset`; the caller records it once it is there."""
        while data:
            written = portable.pwrite(self.fd, data, offset)
            data, offset = data[written:], offset + written

    def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`."""
        return portable.pread(self.fd, count, offset)

    def truncate(self, size: int = 0) -> None:
        """Cut the file off behind `size` bytes."""
        os.ftruncate(self.fd, size)

    def forget(self) -> None:
        """Begin from zero. First the sidecar goes, which would vouch for what is written over."""
        self.disown()
        self.received.forget()
        self.truncate()

    def disown(self) -> None:
        """Have the sidecar vouch for nothing any more."""
        if not self._has_sidecar:
            return
        with suppress(IsADirectoryError):  # then it vouches for nothing
            portable.remove(self.sidecar)
        portable.sync_folder(self.path.parent)
        self._has_sidecar = False

    # -- The sidecar.

    @property
    def unsaved(self) -> int:
        """Bytes that would be lost to a power cut."""
        return self.received.ranges.total() - self._saved[0]

    @property
    def checkpoint_in(self) -> float:
        """Seconds until it is time to save them, however few they are."""
        return max(0.0, self._saved[1] + CHECKPOINT_SECONDS - time.monotonic())

    def checkpoint_due(self) -> bool:
        """Whether it is time to save them."""
        return not self.checkpoint_in or self.unsaved >= CHECKPOINT_BYTES

    def checkpoint(self) -> None:
        """Make what was received survive a power cut. Raises TransferError, OSError."""
        self._check_place()
        self._save()

    def _save(self) -> None:
        """First the bytes, then the sidecar that says so."""
        ranges, saved = self.received.ranges.as_list(), (self.received.ranges.total(), time.monotonic())
        self._sync(portable.sync_data)
        validator = self.received.validator
        about = {
            **self._about,
            "version": 1,
            "size": self.received.size,
            "etag": validator.etag,
            "last_modified": validator.last_modified,
            "ranges": ranges,
        }
        self._has_sidecar = True
        write_atomically(self.sidecar, json.dumps(about).encode())
        self._saved = saved  # others go on writing meanwhile

    def _sync(self, sync: Callable[[int], None]) -> None:
        """Make the bytes durable. Raises OSError, and then again and again.

        A system tells only once that it could not write, and then takes the bytes for written.
        """
        if self._lost:
            raise self._lost
        try:
            sync(self.fd)
        except OSError as error:
            self._lost = error
            raise

    def _read_sidecar(self, url: str | None) -> None:
        """Take up what an earlier process wrote down, of `url` if any; what it did not is not trusted."""
        try:
            about = json.loads(read_regular(self.sidecar, SIDECAR_SIZE))
            self.received = _parse(about, url, os.fstat(self.fd).st_size)
            self._has_sidecar = True
        except FileNotFoundError:
            self.received = Received()
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_FILE:
                raise  # it may be right, and read the next time
            self.received, self._has_sidecar = Received(), True
            self.disown()

    # -- The ends.

    def close(self) -> None:
        """Keep what was received, and release the file. Raises nothing.

        Decoded bytes have no position that could be asked for: they are of no use to anybody.
        """
        if self.fd < 0:
            return
        with suppress(OSError, TransferError):  # a full disk, say: the last checkpoint stands
            if self.is_doubtful:
                pass
            elif self.received.ranges.total() and not self.received.encoded:
                self.checkpoint()
            else:
                self._remove()
        self.release()

    def discard(self) -> None:
        """Delete what was received. Raises nothing."""
        if self.fd < 0:
            return
        with suppress(OSError):
            self._remove()
        self.release()

    def publish(
        self,
        name: str,
        if_exists: IfExists,
        *,
        mtime: float | None = None,
        placed: Callable[[Path], None] = lambda path: None,
        wait: portable.Wait = time.sleep,
    ) -> Path | None:
        """Give the file its final name in one atomic step; None if SKIP found the name taken.

        `placed` is told as soon as nothing else is left, before anything waits for the disk. `wait` waits
        for somebody who has the file open, where that is in the way; it may raise.

        Raises TransferError, OSError; then nothing stands under a final name.
        """
        if mtime is not None:
            with suppress(OSError, OverflowError):  # a date that this file system does not know
                os.utime(self.fd if os.utime in os.supports_fd else self.path, (mtime, mtime))
        self._sync(portable.sync_file)
        self._check_place()
        with self._let_go():
            path = self._place(name, if_exists, wait)
        if path:
            with suppress(OSError):  # the file is there, whatever stands in the way of tidying up
                _remove_small(self.sidecar)
            plain = Path(portable.plain(str(path)))
            placed(plain)
            with suppress(OSError):
                portable.sync_folder(path.parent)
            self.release()
            return plain
        return None

    @contextmanager
    def _let_go(self) -> Iterator[None]:
        """Close the file meanwhile, where none that is open can be renamed; what is left is ours again."""
        if portable.moves_open_files:
            yield
            return
        mark = self.mark()
        self.release()
        try:
            yield
        finally:
            if os.path.lexists(self.path):
                with suppress(OSError, TransferError):
                    self.fd = self._open()
                    if self.mark() != mark:
                        self.release()

    def _place(self, name: str, if_exists: IfExists, wait: portable.Wait) -> Path | None:
        target = self.path.with_name(name)
        if if_exists in (IfExists.OVERWRITE, IfExists.UPDATE):
            if target.is_dir():
                raise TransferError(f"A folder named “{name}” is in the way")
            portable.replace(self.path, target, wait)
            return target
        for candidate in _candidates(target, if_exists):
            with suppress(FileExistsError):
                portable.rename_new(self.path, candidate, wait)
                return candidate
        return None

    def _remove(self) -> None:
        if self.is_in_place():  # else both names are somebody else's by now
            _remove_small(self.sidecar)
            fd, self.fd = self.fd, -1
            portable.close_and_remove(fd, self.path)

    def release(self) -> None:
        """Close the file, which unlocks it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def _candidates(target: Path, if_exists: IfExists) -> Iterator[Path]:
    yield target
    number = 1
    while if_exists is IfExists.RENAME:
        yield target.with_name(names.numbered(target.name, number))
        number += 1


def _sidecar(part: Path) -> Path:
    return part.with_name(part.name + names.SIDECAR)


def _temporary(path: Path) -> Path:
    return path.with_name(path.name + "~")


def _remove_small(path: Path) -> None:
    """Delete a small file, and what a process left that died while it wrote it."""
    portable.remove(path)
    portable.remove(_temporary(path))


def write_atomically(path: Path, data: bytes, mode: int = _MODE) -> None:
    """Replace a small file whole, durably, and never through a link. Raises OSError."""
    temporary = _temporary(path)
    portable.remove(temporary)
    fd = portable.open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            portable.sync_data(fd)
        portable.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    portable.sync_folder(path.parent)


def note(path: str, uid: int, file: Path) -> None:
    """Add to a small private file that a download is in place; see `Job.done`. Raises OSError."""
    fd = portable.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, f"{json.dumps([uid, str(file)])}\n".encode())
    finally:
        os.close(fd)


def noted(path: Path) -> dict[int, str]:
    """What was noted there, by uid, as far as the files are in place. Raises nothing."""
    found: dict[int, str] = {}
    with suppress(OSError, ValueError):
        for line in read_regular(path, NOTE_SIZE).split(b"\n"):
            with suppress(ValueError, TypeError, RecursionError):
                uid, file = json.loads(line.decode())
                if type(uid) is int and isinstance(file, str) and os.path.lexists(file):
                    found[uid] = file
    return found


def read_regular(path: Path, most: int) -> bytes:
    """A file's content, not through a link. Raises OSError, and ValueError where it is none of ours."""
    fd = portable.open_file(path, os.O_RDONLY)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            raise ValueError("no file, or larger than ours are")
        with open(fd, "rb", closefd=False) as file:
            return file.read(status.st_size)
    finally:
        os.close(fd)


def _parse(about: Any, url: str | None, on_disk: int) -> Received:
    """Read a sidecar. Raises ValueError, TypeError, KeyError where it is not one that holds here."""
    if about["version"] != 1 or (url is not None and about["url"] != url):
        raise ValueError("another download's")
    if len(about["ranges"]) > SIDECAR_RANGES:
        raise ValueError("more ranges than we make")
    size = None if about["size"] is None else _offset(about["size"])
    ranges = Ranges((_offset(start), _offset(end)) for start, end in about["ranges"])
    if ranges.end() > on_disk or (size is not None and ranges.end() > size):
        raise ValueError("it says more than there is")
    validator = Validator(about["etag"], about["last_modified"])
    if validator != Validator.told(*astuple(validator)):  # whoever can write to the folder can write this
        raise ValueError("not what came from a server")
    return Received(ranges, size, validator)


def _offset(value: Any) -> int:
    """A number of bytes that a file can have; JSON's numbers may be infinite, too."""
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


def leftovers(directory: str) -> list[Leftover]:
    """The partial files in a folder that have a sidecar which holds. Raises OSError."""
    with os.scandir(portable.reach(directory)) as entries:
        found = {entry.name for entry in islice(entries, LOOKED_AT)}
    parts = [name for name in found if is_part_name(name) and name + names.SIDECAR in found]
    return [left for name in sorted(parts)[:LEFTOVERS] if (left := _leftover(directory, name))]


def _leftover(directory: str, name: str) -> Leftover | None:
    path = Path(portable.reach(directory), name)
    try:
        status = os.lstat(path)
        about = json.loads(read_regular(path.with_name(name + names.SIDECAR), SIDECAR_SIZE))
        received = _parse(about, None, status.st_size)
        url, is_cut = about["url"], about["cut"]
        names.check(url)
        if not stat.S_ISREG(status.st_mode) or not isinstance(is_cut, bool) or names.shown(url) != url:
            return None
        digest = parse_fragment("=".join(about["digest"])) if about["digest"] else None
        return Leftover(name, url, is_cut, digest, received.ranges.total(), received.size)
    except (OSError, ValueError, TypeError, KeyError, RecursionError, TransferError):
        return None


def is_free(directory: str, name: str) -> bool:
    """Whether nobody has a partial file open at the moment."""
    try:
        fd = portable.open_file(Path(portable.reach(directory), name), os.O_RDWR)
    except OSError:
        return False
    try:
        return portable.lock_file(fd)
    except OSError:
        return False
    finally:
        os.close(fd)


def discard_leftover(directory: str, name: str) -> None:
    """Delete a partial file that nobody has open, with its sidecar. Raises nothing."""
    path = Path(portable.reach(directory), os.path.basename(name))
    if is_part_name(path.name) and is_free(directory, path.name):
        with suppress(OSError):
            portable.remove(_sidecar(path))
            portable.remove(path)


@contextmanager
def told(directory: str) -> Iterator[None]:
    """Turn what the operating system says about a folder into a sentence: raises TransferError."""
    try:
        yield
    except OSError as error:
        raise TransferError(_sentence(error, f"the folder “{directory}”")) from error


def _sentence(error: OSError, folder: str) -> str:
    return {
        errno.ENOSPC: f"The disk is full: make room in {folder}, then press Retry",
        errno.EDQUOT: f"Your quota is used up: make room in {folder}, then press Retry",
        errno.EFBIG: f"The file is too large for the disk that holds {folder}",
        errno.EROFS: f"Nothing can be written to {folder}: it is read-only",
        errno.EACCES: f"You are not allowed to write to {folder}",
        errno.EBUSY: f"Another program has a file in {folder} open. Close it there, then press Retry",
        errno.EPERM: f"You are not allowed to write to {folder}",
        errno.ENOENT: f"Cannot find {folder}. Is its disk still connected?",
        errno.ENOTDIR: f"Part of the path to {folder} is a file",
        errno.ENAMETOOLONG: f"The path to {folder} is too long",
        errno.ELOOP: f"A link is in the way in {folder}",
        errno.EIO: f"The disk that holds {folder} reports an error",
        errno.ESTALE: f"The disk that holds {folder} is gone",
    }.get(error.errno or 0, f"Cannot write to {folder} ({error.strerror or type(error).__name__})")


def prepare_folder(directory: str) -> None:
    """Make the folder if it is missing. Raises TransferError unless it can be written to."""
    if not directory or "\0" in directory:
        raise TransferError("Choose a folder to download to")
    folder = portable.reach(directory)
    with told(directory):
        if os.path.exists(folder) and not os.path.isdir(folder):
            raise TransferError(f"“{directory}” is a file, not a folder. Choose a folder")
        os.makedirs(folder, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise TransferError(f"Nothing can be written to the folder “{directory}”. Choose another")
