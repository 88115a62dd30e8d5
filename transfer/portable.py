"""The calls that only POSIX has, each with its fallback. Windows and macOS could not be tried here."""

from __future__ import annotations

import errno
import os
import re
import select
import sys
import threading
from contextlib import suppress

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

    def _known_downloads() -> str:
        """OneDrive, or the user, may have moved it: SHGetKnownFolderPath(FOLDERID_Downloads) knows."""
        import ctypes
        import uuid

        folder_id = uuid.UUID("374DE290-123F-4565-9164-39C4925E467B").bytes_le
        found = ctypes.c_wchar_p()
        try:
            ctypes.windll.shell32.SHGetKnownFolderPath(folder_id, 0, None, ctypes.byref(found))
            return found.value or ""
        finally:
            ctypes.windll.ole32.CoTaskMemFree(found)

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

    def _known_downloads() -> str:
        """As `xdg-user-dir DOWNLOAD` has it, whose name is translated. The home folder means: none."""
        home = os.path.expanduser("~")
        if found := os.environ.get("XDG_DOWNLOAD_DIR", ""):
            return found
        config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
        with open(os.path.join(config, "user-dirs.dirs"), errors="surrogateescape", encoding="utf-8") as file:
            lines = re.findall(r'(?m)^\s*XDG_DOWNLOAD_DIR="(.*)"\s*$', file.read(_USER_DIRS_SIZE))
        found = re.sub(r"\\(.)", r"\1", re.sub(r"^\$HOME(?=/|$)", lambda _: home, lines[-1])) if lines else ""
        return "" if found.rstrip("/") == home.rstrip("/") else found


_USER_DIRS_SIZE = 1 << 16  # characters; what is longer was not written by a desktop


def downloads_folder() -> str:
    """The user's own Downloads folder, absolute; it may have to be made. Raises nothing. Any thread.

    Linux: what the desktop calls it (XDG); Windows: the known folder; macOS: only the Finder translates it.
    """
    found = ""
    with suppress(OSError, AttributeError):
        found = _known_downloads()
    return found if os.path.isabs(found) else os.path.join(os.path.expanduser("~"), "Downloads")


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
