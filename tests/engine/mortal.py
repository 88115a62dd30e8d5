"""A folder on a disk that dies at any operation, with any damage that a power cut may do.

While a `Disk` is powered, the calls with which the engine changes its folder go through it. It counts
them, can die at one or answer it with an error, and remembers what was made durable: content by
`fsync` and `fdatasync` of the file, names by `fsync` of the folder. Once dead, every further call
dies too, so nothing of the engine does anything after its death. `cut_power` then leaves what a disk
may hold: of what was not durable, any of it may be there, be lost, or be something else.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from background_downloads.transfer import portable

SECTOR = 512  # bytes that a disk writes whole


class Died(BaseException):
    """The process is dead: nothing that it would still do happens."""


@dataclass(eq=False)
class Inode:
    """A file, whatever its names."""

    durable: bytes = b""
    since: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Writes as (offset, data) and cuts as (size, None) that are not durable yet."""
    mtime: float | None = None

    def survived(self, rng: random.Random, *, whole: bool) -> bytes:
        """Its content after a power cut; `whole`: all that was written, as after a mere kill."""
        content = bytearray(self.durable)
        for offset, data in self.since:
            if data is None:
                if whole or rng.random() < 0.5:
                    content[offset:] = bytes(max(0, offset - len(content)))
            else:
                data = data if whole else _damaged(data, rng)
                content += bytes(max(0, offset - len(content)) if data else 0)
                content[offset : offset + len(data)] = data
        return bytes(content)


def _damaged(data: bytes, rng: random.Random) -> bytes:
    """What a write that was not made durable may leave."""
    match rng.choice(("kept", "lost", "zeros", "garbage", "torn")):
        case "kept":
            return data
        case "zeros":
            return bytes(len(data))
        case "garbage":
            return rng.randbytes(len(data))
        case "torn":
            return data[: rng.randrange(0, len(data) + 1, SECTOR)]
        case _:
            return b""


Names = dict[str, Inode]
Change = Callable[[Names], None]


class Disk:
    """One folder without folders in it. Use it `with disk.powered(…)`, then `cut_power`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        """Operations since it was powered."""
        self.log: list[str] = []
        """Their names."""
        self.look: Callable[[], None] = lambda: None
        """Called after each operation."""
        self._names: Names = {}
        self._durable: Names = {}
        self._pending: list[Change] = []  # of names, since the folder was last made durable
        self._files: dict[int, Inode | None] = {}  # by descriptor; None: the folder itself
        self._lock = threading.RLock()
        self._dies_at = 0
        self._error: Callable[[int, str], OSError | None] = lambda count, name: None
        self._is_dead = False
        self._take_stock()

    @contextmanager
    def powered(
        self, *, dies_at: int = 0, error: Callable[[int, str], OSError | None] = lambda count, name: None
    ) -> Iterator[None]:
        """Have the engine's calls go through here; it dies at one, counted from 1, or answers with errors."""
        self.count, self.log, self._dies_at, self._error, self._is_dead = 0, [], dies_at, error, False
        self._take_stock()
        real = {name: getattr(os, name) for name in _CALLS}
        with pytest.MonkeyPatch.context() as patch:
            for name in _CALLS:
                patch.setattr(os, name, _Call(self, name, real[name]))
            patch.setattr(portable, "pwrite", os.pwrite)
            patch.setattr(portable, "splice", os.splice)
            patch.setattr(os, "fdopen", self._fdopen)
            yield
        for fd in self._files:  # as the system does for the dead
            with contextlib.suppress(OSError):
                os.close(fd)
        self._files.clear()

    @property
    def is_dead(self) -> bool:
        """Whether it has died since it was powered."""
        return self._is_dead

    def _take_stock(self) -> None:
        """All that is there is durable."""
        inodes: dict[int, Inode] = {}
        self._names = {}
        for path in self.folder.iterdir():
            status = path.stat()
            inode = inodes.setdefault(status.st_ino, Inode(path.read_bytes(), mtime=status.st_mtime))
            self._names[path.name] = inode
        self._durable = dict(self._names)
        self._pending = []

    # -- The power cut.

    def survivors(self, rng: random.Random, *, how: str = "") -> dict[str, tuple[bytes, Inode]]:
        """What a disk may hold after the power is cut now: content by name."""
        how = how or rng.choice(("all", "none", "first", "any", "any"))
        changes = self._pending if how in ("all", "killed") else []
        if how == "first":
            changes = self._pending[: rng.randint(0, len(self._pending))]
        elif how == "any":
            changes = [change for change in self._pending if rng.random() < 0.5]
        names = dict(self._durable)
        for change in changes:
            change(names)
        content = {
            inode: inode.survived(rng, whole=how == "killed") for inode in dict.fromkeys(names.values())
        }
        return {name: (content[inode], inode) for name, inode in names.items()}

    def cut_power(self, rng: random.Random, *, how: str = "") -> None:
        """Leave in the folder what a disk may hold."""
        left = self.survivors(rng, how=how)
        for path in self.folder.iterdir():
            path.unlink()
        first: dict[Inode, str] = {}
        for name, (content, inode) in left.items():
            if inode in first:
                os.link(self.folder / first[inode], self.folder / name)
                continue
            first[inode] = name
            (self.folder / name).write_bytes(content)
            if inode.mtime is not None:
                os.utime(self.folder / name, (inode.mtime, inode.mtime))

    def durable(self) -> dict[str, bytes]:
        """What is sure to survive, by name, where no later change of a name is pending."""
        return {name: inode.durable for name, inode in self._durable.items()}

    # -- The operations.

    def call(
        self, name: str, real: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """One call of the engine's, or of somebody else's, which passes."""
        with self._lock:
            act = getattr(self, f"_{name}")(*args, **options)
            if act is None:
                return real(*args, **options)
            try:
                self._operate(name)
            except OSError:
                if name == "close":  # which it is all the same
                    real(*args)
                raise
            # What is synced here is only said to be: a real disk would take its time.
            result = None if name in ("fsync", "fdatasync") else real(*args, **options)
            act(result)
            self.look()
            return result

    def _operate(self, name: str) -> None:
        if self._is_dead:
            raise Died
        self.count += 1
        self.log.append(name)
        if self.count == self._dies_at:
            self._is_dead = True
            raise Died
        if error := self._error(self.count, name):
            raise error

    def _change(self, change: Change) -> None:
        change(self._names)
        self._pending.append(change)

    def _name(self, path: Any, *_: Any) -> str | None:
        """A path's name, if it is in the folder."""
        if isinstance(path, int):
            return None
        head, tail = os.path.split(os.fspath(path))
        return tail if head == str(self.folder) else None

    def _open(self, path: Any, flags: int, *_: Any, **__: Any) -> Callable[[int], None] | None:
        if os.fspath(path) == str(self.folder):
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                return lambda fd: self._files.__setitem__(fd, Inode())
            return lambda fd: self._files.__setitem__(fd, None)
        name = self._name(path)
        if name is None or not flags & os.O_CREAT:
            return None

        def opened(fd: int) -> None:
            if name not in self._names:
                inode = Inode()
                self._change(lambda names: names.__setitem__(name, inode))
            self._files[fd] = self._names[name]

        return opened

    def _close(self, fd: int) -> Callable[[object], None] | None:
        """It may fail: some systems tell only then that they could not write. To die there is nothing new."""
        is_known = fd in self._files
        self._files.pop(fd, None)
        return (lambda _: None) if is_known and not self._dies_at else None

    def _pwrite(self, fd: int, data: Any, offset: int) -> Callable[[int], None] | None:
        inode = self._files.get(fd)
        copy = bytes(data)
        return inode and (lambda count: inode.since.append((offset, copy[:count])))

    def _splice(self, _: int, fd: int, *__: int, **options: int) -> Callable[[int], None] | None:
        inode, offset = self._files.get(fd), options.get("offset_dst", 0)
        return inode and (lambda count: inode.since.append((offset, os.pread(fd, count, offset))))

    def _ftruncate(self, fd: int, size: int) -> Callable[[object], None] | None:
        inode = self._files.get(fd)
        return inode and (lambda _: inode.since.append((size, None)))

    def _fsync(self, fd: int) -> Callable[[object], None] | None:
        if fd not in self._files:
            return None
        inode = self._files[fd]

        def synced(_: object) -> None:
            if inode:
                inode.durable = inode.survived(random.Random(0), whole=True)
                inode.since.clear()
            else:
                self._durable, self._pending = dict(self._names), []

        return synced

    _fdatasync = _fsync

    def _link(self, source: Any, target: Any, **_: Any) -> Callable[[object], None] | None:
        old, new = self._name(source), self._name(target)
        folder, _, number = os.fspath(source).rpartition("/")
        inode = self._files.get(int(number)) if folder == "/proc/self/fd" else self._names.get(old or "")
        if not inode or new is None:
            return None
        return lambda _: self._change(lambda names: names.__setitem__(new, inode))

    def _rename(self, source: Any, target: Any) -> Callable[[object], None] | None:
        old, new = self._name(source), self._name(target)
        if old is None or new is None:
            return None
        inode = self._names.get(old)

        def change(names: Names) -> None:
            if inode:
                _drop(names, old, inode)
                names[new] = inode

        return lambda _: self._change(change)

    _replace = _rename

    def _unlink(self, path: Any, **_: Any) -> Callable[[object], None] | None:
        name = self._name(path)
        if name is None:
            return None
        inode = self._names.get(name)
        return lambda _: inode and self._change(lambda names: _drop(names, name, inode))

    def _utime(self, path: Any, times: tuple[float, float]) -> Callable[[object], None] | None:
        name = self._name(path)
        inode = self._names.get(name) if name else None
        return inode and (lambda _: setattr(inode, "mtime", times[1]))

    def _fdopen(self, fd: int, mode: str = "r", *args: Any, **options: Any) -> Any:
        """What is written through it goes through `pwrite`, which is an operation."""
        return _File(fd) if fd in self._files and "w" in mode else open(fd, mode, *args, **options)


def _drop(names: Names, name: str, inode: Inode) -> None:
    if names.get(name) is inode:
        del names[name]


_CALLS = [
    "open",
    "close",
    "pwrite",
    "splice",
    "ftruncate",
    "fsync",
    "fdatasync",
    "link",
    "rename",
    "replace",
    "unlink",
    "utime",
]


class _Call:
    """A function of `os` that asks the disk first."""

    def __init__(self, disk: Disk, name: str, real: Callable[..., Any]) -> None:
        self._disk, self._called, self._real = disk, name, real

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._disk.call(self._called, self._real, args, options)


class _File:
    """An unbuffered file to write to."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._at = 0

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def write(self, data: bytes) -> None:
        self._at += os.pwrite(self._fd, data, self._at)

    def flush(self) -> None:
        """Nothing is kept back."""
