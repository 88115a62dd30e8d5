"""The calls that only POSIX has, each with its fallback. Windows and macOS could not be tried here."""

from __future__ import annotations

import errno
import os
import select
import sys
import threading

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
"""Flags for every file that we open to write: no planted link, bytes as they are, not for children."""

NO_WAIT = getattr(os, "O_NONBLOCK", 0)
"""For files that should be regular ones and may be a planted pipe."""

_LOCK_BYTE = 1 << 62  # Windows locks ranges, and locked bytes cannot be read: far beyond any file
_seek_lock = threading.Lock()


def lock_file(fd: int) -> bool:
    """Lock a file for this open descriptor, without waiting. False: another holds the lock."""
    try:
        _lock(fd)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            return True  # a file system without locks: nobody can hold one
        raise
    return True


if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> None:
        with _seek_lock:
            os.lseek(fd, _LOCK_BYTE, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        """`os.pwrite`. Segments of one file share its descriptor, hence the lock."""
        with _seek_lock:
            os.lseek(fd, offset, os.SEEK_SET)
            return os.write(fd, data)

    def pread(fd: int, count: int, offset: int) -> bytes:
        """`os.pread`."""
        with _seek_lock:
            os.lseek(fd, offset, os.SEEK_SET)
            return os.read(fd, count)

    def poll(reads: list[int], writes: list[int], timeout: float | None) -> set[int]:
        """Wait until a socket is ready, or `timeout` seconds are over. Returns the ready ones."""
        ready = select.select(reads, writes, writes, timeout)
        return {fd for fds in ready for fd in fds}

else:
    import fcntl

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    pwrite = os.pwrite
    pread = os.pread

    def poll(reads: list[int], writes: list[int], timeout: float | None) -> set[int]:
        """Wait until a socket is ready, or `timeout` seconds are over. Returns the ready ones.

        Not `select.select`, which ends at descriptor 1023.
        """
        poller = select.poll()
        for fd in reads:
            poller.register(fd, select.POLLIN)
        for fd in writes:
            poller.register(fd, select.POLLOUT)
        return {fd for fd, _ in poller.poll(None if timeout is None else max(0.0, timeout * 1000))}


def sync_data(fd: int) -> None:
    """`os.fdatasync`; macOS and Windows have only the slower `os.fsync`."""
    getattr(os, "fdatasync", os.fsync)(fd)


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Make the names in a folder survive a power cut, where the system can. Raises OSError."""
    if os.name == "nt":
        return  # folders cannot be opened there, and NTFS keeps a journal of names
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # a folder that may be written to, but not read
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS, errno.EROFS):
            raise
    finally:
        os.close(fd)
