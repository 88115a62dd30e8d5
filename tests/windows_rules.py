"""Windows' rules for files, played on Linux: for the engine's suite with PLAY_WINDOWS=1.

Who has a file open keeps it from being renamed, replaced and deleted, also another process. A rename
never replaces. There are no hard links. A lock is on one byte, and nobody may read or write that byte. Names
that Windows does not take are refused. A file that was written to is dated when it is closed.
`transfer.portable` believes that it is on Windows as to files.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from typing import Any

import pytest
from descriptors import children
from rules import is_safe

LOCKED_BYTE = 1 << 62
LATER = 10_000_000  # nanoseconds from the last write to the close
_SET_LOCK = getattr(fcntl, "F_OFD_SETLK", 37)


class RefusedError(PermissionError):
    """What Windows says of a file that somebody has open."""

    winerror = 32  # ERROR_SHARING_VIOLATION


def play(patch: pytest.MonkeyPatch) -> None:
    """From now on this process is on Windows, and so is each child process that downloads."""
    from background_downloads.hosts import spawn
    from background_downloads.transfer import portable

    refuse(patch.setattr)
    tell_portable(patch.setattr, portable)
    imports = 'importlib.import_module(package + ".hosts." + room)'
    assert imports in spawn._BOOT
    folder = os.path.dirname(__file__)
    lines = (
        f"sys.path.insert(0, {folder!r})",
        "import windows_rules",
        "windows_rules.play_in_child(importlib.import_module(package + '.transfer.portable'))",
        "sys.path.pop(0)",
    )
    patch.setattr(spawn, "_BOOT", spawn._BOOT.replace(imports, "\n".join((*lines, imports))))


def play_in_child(portable: Any) -> None:
    refuse(setattr)
    tell_portable(setattr, portable)


def tell_portable(change: Callable[[Any, str, Any], object], portable: Any) -> None:
    """Have the module that knows the systems take the way that it takes on Windows."""
    open_file, lock_file = portable.open_file, portable._lock
    pwrite, pread = portable.pwrite, portable.pread

    def open_named(path: Any, flags: int, mode: int = 0o777) -> int:
        if not is_safe(os.path.basename(path).lstrip(".")):  # ours begin with none, those of others may
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), os.fspath(path))
        fd: int = open_file(path, flags, mode)
        return fd

    def lock(fd: int) -> None:
        lock_file(fd)  # for those who do not play
        what = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, LOCKED_BYTE, 1, 0)
        fcntl.fcntl(fd, _SET_LOCK, what)

    def write(fd: int, data: Any, offset: int) -> int:
        assert offset + len(data) <= LOCKED_BYTE
        _written.add(fd)
        count: int = pwrite(fd, data, offset)
        return count

    def read(fd: int, count: int, offset: int) -> bytes:
        assert offset + count <= LOCKED_BYTE
        data: bytes = pread(fd, count, offset)
        return data

    change(portable, "moves_open_files", False)
    change(portable, "has_links", False)
    change(portable, "open_file", open_named)
    change(portable, "_lock", lock)
    change(portable, "splice", None)
    change(portable, "pwrite", write)
    change(portable, "pread", read)


def refuse(change: Callable[[Any, str, Any], object]) -> None:
    """Have the system refuse what Windows refuses."""
    rename, replace = os.rename, os.replace

    def rename_on_windows(source: Any, target: Any, **options: Any) -> None:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), source, 0, target)
        _check_closed(source)
        rename(source, target, **options)

    def replace_on_windows(source: Any, target: Any, **options: Any) -> None:
        _check_closed(source)
        _check_closed(target)
        replace(source, target, **options)

    def link(*args: Any, **options: Any) -> None:
        raise OSError(errno.EPERM, "a privilege is not held")

    change(os, "rename", rename_on_windows)
    change(os, "replace", replace_on_windows)
    change(os, "link", link)
    change(os, "close", _dating(os.close))
    for name in ("unlink", "remove"):
        change(os, name, _deleting(getattr(os, name)))


_written: set[int] = set()  # descriptors


def _dating(close: Callable[[int], None]) -> Callable[[int], None]:
    def close_on_windows(fd: int) -> None:
        if fd in _written:
            _written.remove(fd)
            status = os.fstat(fd)
            os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns + LATER))
        close(fd)

    return close_on_windows


def _deleting(unlink: Callable[..., None]) -> Callable[..., None]:
    def unlink_on_windows(path: Any, *, dir_fd: int | None = None) -> None:
        if dir_fd is None:  # else a whole folder is cleared away, by a test
            _check_closed(path)
        unlink(path, dir_fd=dir_fd)

    return unlink_on_windows


def _check_closed(path: Any) -> None:
    try:
        status = os.lstat(path)
    except OSError:
        return
    for pid in (os.getpid(), os.getppid(), *children()):
        if (status.st_dev, status.st_ino) in _opened(pid):
            raise RefusedError(errno.EACCES, "another program has it open", os.fspath(path))


def _opened(pid: int) -> set[tuple[int, int]]:
    """The files that a process has open."""
    found = set()
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return found
    for number in numbers:
        try:
            status = os.stat(f"/proc/{pid}/fd/{number}")
        except OSError:
            continue
        found.add((status.st_dev, status.st_ino))
    return found
