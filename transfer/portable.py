"""The one place that knows the systems: what Linux, macOS and Windows do each in its own way.

Windows was tried under Wine, macOS could not be tried. What differs in the file system goes by the two
facts below, so that the tests can play Windows on Linux.
"""

from __future__ import annotations

import errno
import math
import os
import pathlib
import platform
import re
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from multiprocessing.connection import Connection

IS_WINDOWS = sys.platform == "win32"

moves_open_files = not IS_WINDOWS
"""Whether a file that somebody has open can be renamed, replaced and deleted. Windows refuses all three."""

has_links = not IS_WINDOWS
"""Whether a file may get a second name, and the one that we open may be a link to somewhere else.

On Windows the rename never replaces, which is as good as a hard link; a symbolic one takes a privilege.
"""

keeps_folders_private = sys.platform == "darwin"
"""Whether the user is asked which programs may see Downloads and the like; EPERM is what others hear."""

PATIENCE = 5.0  # seconds that somebody may have our file open: indexers and virus scanners look at new ones
_MOMENT = 0.5  # likewise where the main thread waits: Blender's window stands still meanwhile
_SOON = 0.05  # seconds until the next try


# -- Files: open, lock, read and write at a place.

_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)


def open_file(path: str | os.PathLike[str], flags: int, mode: int = 0o777) -> int:
    """`os.open`: not through a link, bytes as they are, not for children, without waiting for a pipe.

    Windows knows no such flags; there a link is looked for before, and folders cannot be opened. Raises
    OSError, IsADirectoryError where it is a folder and is not only read, and as `naming_protection`.
    """
    if not hasattr(os, "O_NOFOLLOW") and os.path.islink(path):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
    with _naming_folders(path), naming_protection() if flags & os.O_CREAT else nullcontext():
        return os.open(path, flags | _FLAGS | _NO_WAIT, mode)


@contextmanager
def _naming_folders(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raises IsADirectoryError; macOS and Windows say of a folder only that it may not be done."""
    try:
        yield
    except PermissionError as error:
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path)) from error
        raise


class ProtectedError(PermissionError):
    """Windows lets only programs that it knows write there ("Controlled folder access")."""


@contextmanager
def naming_protection() -> Iterator[None]:
    """Around what makes a file or a folder. Raises ProtectedError; Windows says that it is not there."""
    try:
        yield
    except FileNotFoundError as error:
        if not moves_open_files and os.path.isdir(os.path.dirname(error.filename or "")):
            raise ProtectedError(errno.EACCES, os.strerror(errno.EACCES), error.filename) from error
        raise


def open_nameless(folder: str | os.PathLike[str], mode: int) -> int:
    """A file of that mode which is in no folder, and gone with its descriptor; -1: not to be had there.

    Linux has them (`O_TMPFILE`), in most of its file systems.
    """
    flags = getattr(os, "O_TMPFILE", 0)
    if not (flags and has_links):
        return -1
    try:
        return os.open(folder, flags | os.O_RDWR | os.O_CLOEXEC, mode)
    except OSError:
        return -1


def give_name(fd: int, path: str | os.PathLike[str]) -> None:
    """Put a file that has no name into a folder. Raises FileExistsError, OSError.

    Its descriptor's place in `/proc` is a link, which `os.link` follows only where it is told a folder too.
    """
    os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)


def lock_file(fd: int) -> bool:
    """Lock a file for this open descriptor, without waiting. False: another holds the lock.

    Linux, macOS: `flock`, which asks only those who ask. Windows: see `_lock`.
    """
    try:
        _lock(fd)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):  # EACCES: Windows' lock violation
            return False
        if error.errno in _NO_LOCKS:
            return True  # a file system without locks: nobody can hold one
        raise
    return True


_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


if sys.platform == "win32":
    import _winapi
    import ctypes
    import msvcrt
    from ctypes import wintypes

    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel.LockFileEx.argtypes = [wintypes.HANDLE, *[wintypes.DWORD] * 4, ctypes.c_void_p]
    _kernel.CancelIoEx.argtypes = [wintypes.HANDLE, ctypes.c_void_p]
    _kernel.OpenProcess.restype = wintypes.HANDLE
    _kernel.WaitForSingleObject.argtypes = [wintypes.HANDLE, wintypes.DWORD]
    _kernel.DeviceIoControl.argtypes = [
        *(wintypes.HANDLE, wintypes.DWORD, ctypes.c_void_p, wintypes.DWORD),
        *(ctypes.c_void_p, wintypes.DWORD, ctypes.c_void_p, ctypes.c_void_p),
    ]
    _SET_SPARSE = 0x900C4  # FSCTL_SET_SPARSE
    _LOCK_NOW = 3  # LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY
    for _move in (_kernel.ReadFile, _kernel.WriteFile):
        _move.argtypes = [wintypes.HANDLE, ctypes.c_void_p, wintypes.DWORD, *[ctypes.c_void_p] * 2]
    _kernel.CreateJobObjectW.restype = wintypes.HANDLE
    _kernel.SetInformationJobObject.argtypes = [
        wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD
    ]  # fmt: skip
    _kernel.UpdateProcThreadAttribute.argtypes = [
        *(ctypes.c_void_p, wintypes.DWORD, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t),
        *[ctypes.c_void_p] * 2,
    ]
    _BEYOND_ITS_END = 38  # ERROR_HANDLE_EOF
    _SYNCHRONIZE, _TIMED_OUT = 0x00100000, 0x102
    _LAST = 0x100  # of processes that are ended; others have 0x280
    _LIMITS, _ENDS_WITH_US = 9, 0x2000  # JobObjectExtendedLimitInformation, LIMIT_KILL_ON_JOB_CLOSE
    _HANDLES, _JOBS = 0x20002, 0x2000D  # PROC_THREAD_ATTRIBUTE_HANDLE_LIST, _JOB_LIST
    CREATION = subprocess.CREATE_NO_WINDOW | 0x80000  # EXTENDED_STARTUPINFO_PRESENT
    _MOST_SOCKETS = 500  # of `select`: FD_SETSIZE in CPython's build is 512
    _TURN = 0.01  # seconds for each group of sockets where there are more

    class _Overlapped(ctypes.Structure):
        """OVERLAPPED: where in a file."""

        _fields_ = [
            ("Internal", ctypes.c_void_p),
            ("InternalHigh", ctypes.c_void_p),
            ("Offset", wintypes.DWORD),
            ("OffsetHigh", wintypes.DWORD),
            ("hEvent", wintypes.HANDLE),
        ]

    class _Limits(ctypes.Structure):
        """JOBOBJECT_EXTENDED_LIMIT_INFORMATION: of what a job may do, only its flags."""

        _fields_ = [
            ("times", ctypes.c_int64 * 2),
            ("LimitFlags", wintypes.DWORD),
            ("_rest", ctypes.c_size_t * 15),
        ]

    class _Startup(ctypes.Structure):
        """STARTUPINFOEXW: of it size, flags, standard streams and attributes."""

        _fields_ = [
            ("cb", wintypes.DWORD),
            ("_names", ctypes.c_void_p * 3),
            ("_window", wintypes.DWORD * 7),
            ("dwFlags", wintypes.DWORD),
            ("_rest", ctypes.c_void_p * 2),
            ("streams", wintypes.HANDLE * 3),
            ("lpAttributeList", ctypes.c_void_p),
        ]

    class _Started(ctypes.Structure):
        """PROCESS_INFORMATION."""

        _fields_ = [
            ("process", wintypes.HANDLE),
            ("thread", wintypes.HANDLE),
            ("pid", wintypes.DWORD),
            ("_thread_id", wintypes.DWORD),
        ]

    def _lock(fd: int) -> None:
        """Windows locks ranges, and nobody else can read what is locked: a byte far beyond any file.

        Not `msvcrt.locking`, whose C library counts no further than 2 GiB.
        """
        place = _Overlapped(OffsetHigh=1 << 30)
        if not _kernel.LockFileEx(msvcrt.get_osfhandle(fd), _LOCK_NOW, 0, 1, 0, ctypes.byref(place)):
            raise ctypes.WinError(ctypes.get_last_error())

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        """`os.pwrite`, which Windows' C library has not; it also has one word for all that goes wrong."""
        source = ctypes.c_char.from_buffer(bytearray(data) if data.readonly else data) if data else None
        return _moved(_kernel.WriteFile, fd, source, len(data), offset)

    def pread(fd: int, count: int, offset: int) -> bytes:
        """`os.pread`."""
        buffer = ctypes.create_string_buffer(count)
        return memoryview(buffer)[: _moved(_kernel.ReadFile, fd, buffer, count, offset)].tobytes()

    def _moved(move: Any, fd: int, memory: Any, count: int, offset: int) -> int:
        """How many bytes were moved between memory and a place in a file."""
        moved = wintypes.DWORD()
        there = _Overlapped(Offset=offset & 0xFFFFFFFF, OffsetHigh=offset >> 32)
        at = None if memory is None else ctypes.byref(memory)
        done = move(msvcrt.get_osfhandle(fd), at, count, ctypes.byref(moved), ctypes.byref(there))
        if not done and (why := ctypes.get_last_error()) != _BEYOND_ITS_END:
            raise ctypes.WinError(why)
        return moved.value

    def allow_gap(fd: int) -> None:
        """Have what is written far behind a file's end leave a hole, where the file system has such.

        NTFS would first write zeros up to there, which takes minutes for some GB, and all others wait.
        """
        nothing, count = (None, 0), ctypes.byref(wintypes.DWORD())
        _kernel.DeviceIoControl(msvcrt.get_osfhandle(fd), _SET_SPARSE, *nothing, *nothing, count, None)

else:
    import fcntl

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    pwrite = os.pwrite
    pread = os.pread

    def allow_gap(fd: int) -> None:
        """Nothing: what is written far behind a file's end leaves a hole."""

splice: Any = getattr(os, "splice", None)
"""`os.splice`, where the system has it: on Linux."""
NO_SPLICE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)
"""What file systems and sandboxes say that know no such thing."""


def wide_pipe(size: int) -> tuple[int, int]:
    """`os.pipe`, for `size` bytes where the system gives this user so many. Raises OSError."""
    ends = os.pipe()
    if sys.platform == "linux":
        with suppress(OSError):
            fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, size)
    return ends


_MEANT = {
    # The drive, or the network, is gone.
    errno.ENOENT: (
        *(21, 51, 53, 55, 59, 64, 67, 121, 433, 1006, 1110, 1112, 1167),
        *(1201, 1203, 1222, 1231, 1232, 1236),
    ),
    errno.ENOSPC: (39, 112),
    errno.EDQUOT: (1295,),
    errno.EROFS: (19,),
    errno.EACCES: (65, 86, 1326, 1327, 1331),  # a share wants another user
    errno.EFBIG: (223,),
    errno.EIO: (23, 1117, 1392, 1393),
    errno.ENAMETOOLONG: (111, 206),
}
_MEANINGS = {number: meant for meant, numbers in _MEANT.items() for number in numbers}


def meaning(error: OSError) -> int:
    """What an error's `errno` would be elsewhere: Python calls most of Windows' own EINVAL or EACCES.

    The numbers: Microsoft, "System Error Codes". What is left out speaks for itself, as virus scanners' do.
    """
    return _MEANINGS.get(getattr(error, "winerror", None) or 0, error.errno or 0)


# -- Files: durable.


def sync_data(fd: int) -> None:
    """`os.fdatasync`; macOS and Windows have only what takes longer."""
    getattr(os, "fdatasync", sync_file)(fd)


def sync_file(fd: int) -> None:
    """`os.fsync`. That of macOS leaves the bytes in the disk's own memory: F_FULLFSYNC does not."""
    if sys.platform == "darwin":
        with suppress(OSError):  # a file system that does not know it
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    os.fsync(fd)


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Make the names in a folder survive a power cut, where the system can. Raises OSError."""
    if IS_WINDOWS:
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


# -- Files: names. What Windows refuses because somebody has the file open is tried again.

Wait = Callable[[float], object] | None
"""Waits for some seconds: `time.sleep`, or what a stop interrupts by an exception. None: nobody waits."""


def replace(source: str | os.PathLike[str], target: str | os.PathLike[str], wait: Wait = time.sleep) -> None:
    """`os.replace`. Windows: neither of them may be open, and after PATIENCE it raises OSError(EBUSY)."""
    _patiently(lambda: os.replace(source, target), target, wait)


def replacing(source: str, target: str) -> Iterator[None]:
    """The same for who has something else to do meanwhile: yields before it is tried again."""
    return _refusals(lambda: os.replace(source, target), target, PATIENCE)


def rename_new(
    source: str | os.PathLike[str], target: str | os.PathLike[str], wait: Wait = time.sleep
) -> None:
    """Rename, or raise FileExistsError: never replace. OSError(EBUSY) as with `replace`.

    Windows' rename never replaces. Elsewhere a hard link does not; where the file system has none
    (exFAT), a look and then a rename, and README names the race.
    """
    if not has_links:
        _patiently(lambda: os.rename(source, target), source, wait)
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _REFUSES_LINKS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        os.rename(source, target)
    else:
        with suppress(OSError):  # the next one to open it sees that it has another name
            os.unlink(source)


# ENOTSUP: macOS, where that is another number, says so of exFAT.
_REFUSES_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


def remove(path: str | os.PathLike[str], wait: Wait = time.sleep) -> None:
    """Delete a file that may be missing. Raises IsADirectoryError, OSError(EBUSY) as with `replace`."""
    with suppress(FileNotFoundError), _naming_folders(path):
        _patiently(lambda: os.unlink(path), path, wait)


def close_and_remove(fd: int, path: str | os.PathLike[str], wait: Wait = time.sleep) -> None:
    """Close a locked file and delete it, so that nobody locks it in between where that can be had.

    Windows deletes no open file; whoever locks it there in between keeps it. Raises OSError, as `remove`.
    """
    try:
        if moves_open_files:
            remove(path)
    finally:
        os.close(fd)
    if not moves_open_files:
        remove(path, wait)


_DENIED, _SHARED, _LOCKED = 5, 32, 33  # ERROR_ACCESS_DENIED, _SHARING_VIOLATION, _LOCK_VIOLATION


def _patiently(action: Callable[[], None], path: str | os.PathLike[str], wait: Wait) -> None:
    """Do it, again and again while somebody has a file open that Windows then refuses to touch."""
    is_main = threading.current_thread() is threading.main_thread()
    for _ in _refusals(action, path, min(_MOMENT, PATIENCE) if is_main else PATIENCE):
        if not wait:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), os.fspath(path))
        wait(_SOON)


def _refusals(
    action: Callable[[], None], path: str | os.PathLike[str], patience: float
) -> Iterator[None]:
    """Do it, and yield each time that it is refused, at most for some seconds. Raises OSError(EBUSY) then."""
    end = time.monotonic() + patience
    while True:
        try:
            return action()
        except PermissionError as error:
            why = getattr(error, "winerror", None)
            if why not in (_SHARED, _LOCKED) and not (why == _DENIED and _may_be_open(path)):
                raise
            if time.monotonic() > end:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), os.fspath(path)) from error
        yield


def _may_be_open(path: str | os.PathLike[str]) -> bool:
    """Whether somebody may have it open, since it is forbidden: a folder, or what is read-only, always is."""
    return os.path.isfile(path) and os.access(path, os.W_OK)


# -- Folders.


def reach(directory: str) -> str:
    r"""The folder as the system has to be told of it.

    Windows takes no more than 260 characters, unless the path begins with `\\?\` and is absolute.
    """
    if not IS_WINDOWS or directory.startswith(_LONG):
        return directory
    absolute = os.path.abspath(directory)
    return _LONG_UNC + absolute[2:] if absolute.startswith("\\\\") else _LONG + absolute


def is_too_long(path: str) -> bool:
    """Whether Blender cannot open it: on Windows it does not ask for more than this many characters."""
    return IS_WINDOWS and len(path) >= 260


def identity(status: os.stat_result) -> tuple[int, ...]:
    """What tells an open file from another one that has its name by now.

    Windows takes that from no open file, and some network drives there tell another number each time.
    """
    return (status.st_dev, status.st_ino) if moves_open_files else ()


def missing(folder: str, fd: int) -> OSError | None:
    """Why a folder is not there any more, or not on the disk that an open file is on; None: it is.

    Not by `st_dev`: overlays have numbers of their own for files and for folders. Windows takes no disk away
    that has an open file.
    """
    try:
        os.stat(folder)
        if IS_WINDOWS or os.fstatvfs(fd).f_fsid == os.statvfs(folder).f_fsid:
            return None
    except OSError as error:
        return error
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)


LARGEST_ON_FAT = (1 << 32) - 1  # bytes

if sys.platform == "win32":

    def is_fat(folder: str) -> bool:
        """Whether it is on a stick with FAT32, which takes no large file. Linux and Windows tell.

        Drives that clouds play say the same, and take large ones.
        """
        root, kind = (ctypes.create_unicode_buffer(_MOST_OF_PATH) for _ in range(2))
        _kernel.GetVolumePathNameW(folder, root, _MOST_OF_PATH)
        _kernel.GetVolumeInformationW(root, None, 0, None, None, None, kind, _MOST_OF_PATH)
        return kind.value.startswith("FAT") and _kernel.GetDriveTypeW(root) == _REMOVABLE

    _MOST_OF_PATH, _REMOVABLE = 32768, 2

else:

    def is_fat(folder: str) -> bool:
        """Whether it is on a stick with FAT32, which takes no large file. Linux and Windows tell."""
        with suppress(OSError), open("/proc/self/mountinfo", errors="replace") as mounts:
            device = os.stat(folder).st_dev
            disk = f" {os.major(device)}:{os.minor(device)} "
            return any(disk in line and " - vfat " in line for line in mounts)
        return False


def plain(path: str) -> str:
    """What `reach` made of a path, as people and Blender write it."""
    if not IS_WINDOWS or not path.startswith(_LONG):
        return path
    return "\\\\" + path[len(_LONG_UNC) :] if path.startswith(_LONG_UNC) else path[len(_LONG) :]


_LONG, _LONG_UNC = "\\\\?\\", "\\\\?\\UNC\\"


def is_absolute(path: str) -> bool:
    r"""Whether a path leads to the same place from everywhere.

    Windows' `C:dl` and `\dl` do not: they begin in a drive's working folder, and on the current drive.
    """
    if not IS_WINDOWS:
        return path.startswith("/")
    drive, rest = os.path.splitdrive(path)
    drive = drive.replace("/", "\\").removeprefix(_LONG)
    names_a_share = drive.startswith(("\\\\", "UNC\\")) and len(drive.strip("\\").split("\\")) > 1
    return names_a_share or (drive[1:2] == ":" and rest[:1] in ("\\", "/"))


def path_of_link(host: str, path: str) -> str:
    """The path that a `file:` link's decoded parts name (RFC 8089); empty where it is on another machine.

    On Windows a drive stands first (`/C:/dl`, in old links `/C|/dl`, in many `C:` in the host's place),
    and another machine has shares.
    """
    if not IS_WINDOWS:
        return "" if host else path
    if host[1:2] == ":":
        return host + path
    return f"//{host}{path}" if host else re.sub(r"^/([A-Za-z])[:|]", r"\1:", path)


def downloads_folder() -> str:
    """The user's own Downloads folder, absolute; it may have to be made. Raises nothing. Any thread.

    Linux: what the desktop calls it (XDG); Windows: the known folder; macOS: only the Finder translates it.
    """
    found = ""
    with suppress(OSError, AttributeError):
        found = _known_downloads()
    return found if is_absolute(found) else os.path.join(os.path.expanduser("~"), "Downloads")


if sys.platform == "win32":

    def _known_downloads() -> str:
        """OneDrive, or the user, may have moved it: SHGetKnownFolderPath(FOLDERID_Downloads) knows.

        Also where its drive is missing, which is then said; unasked Windows would name no folder at all.
        """
        import uuid

        folder_id = uuid.UUID("374DE290-123F-4565-9164-39C4925E467B").bytes_le
        shell = ctypes.WinDLL("shell32")  # what add-ons say of the functions in `windll` is for all of them
        found = ctypes.c_wchar_p()
        try:
            shell.SHGetKnownFolderPath(folder_id, _UNVERIFIED, None, ctypes.byref(found))
            return found.value or ""
        finally:
            ctypes.WinDLL("ole32").CoTaskMemFree(found)

    _UNVERIFIED = 0x4000  # KF_FLAG_DONT_VERIFY

else:

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


def show(filepath: str, folder: str) -> bool:
    """Open a folder in the file manager, the file selected if one is named and the system can. Does not wait.

    False: this system has nothing to show a folder with.
    """
    command = _file_manager(filepath, folder)
    if isinstance(command, list) and not shutil.which(command[0]):
        return False
    null = subprocess.DEVNULL
    try:
        subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True)
    except OSError:
        return False
    return True


def _file_manager(filepath: str, folder: str) -> list[str] | str:
    """The command for it."""
    if sys.platform == "win32":  # its own quoting: the comma belongs to the switch
        # Named whole: Windows would look for it in Blender's working folder first.
        explorer = os.path.join(os.environ.get("SYSTEMROOT", "C:\\Windows"), "explorer.exe")
        return f'"{explorer}" /select,"{filepath}"' if filepath else f'"{explorer}" "{folder}"'
    if sys.platform == "darwin":
        return ["open", "-R", filepath] if filepath else ["open", folder]
    if not filepath:
        return ["xdg-open", folder]
    # A comma would separate two items, a quote end one.
    uri = pathlib.PurePosixPath(filepath).as_uri().replace(",", "%2C").replace("'", "%27")
    return ["sh", "-c", _ASK_MANAGER, "sh", _MANAGER, uri, folder]


_MANAGER = "org.freedesktop.FileManager1"  # freedesktop.org, "File Manager DBus Interface"
# Waits for what the file manager says, and opens the folder where there is none. In a shell of its
# own, since a file manager may take seconds to start.
_ASK_MANAGER = """
dbus-send --session --print-reply --dest="$1" --type=method_call /org/freedesktop/FileManager1 \
    "$1.ShowItems" "array:string:$2" string: >/dev/null 2>&1 ||
gdbus call --session --dest "$1" --object-path /org/freedesktop/FileManager1 \
    --method "$1.ShowItems" "['$2']" "" >/dev/null 2>&1 ||
exec xdg-open "$3" >/dev/null 2>&1
"""


# -- Time.

if sys.platform == "win32":

    def awake() -> float:
        """Seconds of a clock that stands still while the machine sleeps, as `time.monotonic` elsewhere."""
        ticks = ctypes.c_ulonglong()
        _kernel.QueryUnbiasedInterruptTime(ctypes.byref(ticks))
        return ticks.value / 1e7  # of 100 ns

else:
    awake = time.monotonic


# -- Connections.

if sys.platform == "win32":

    def poll(reads: list[int], writes: list[int], timeout: float | None) -> set[int]:
        """Wait until a socket is ready, or `timeout` seconds are over. Returns the ready ones.

        `select` takes so many sockets and no more. A connect that failed is in its third list only.
        """
        end = math.inf if timeout is None else time.monotonic() + timeout
        groups = range(0, max(len(reads), len(writes)), _MOST_SOCKETS)
        while True:
            left = max(0.0, end - time.monotonic())
            turn = min(left, _TURN) if len(groups) > 1 else None if timeout is None else left
            ready: set[int] = set()
            for at in groups:
                some = reads[at : at + _MOST_SOCKETS], writes[at : at + _MOST_SOCKETS]
                ready.update(*select.select(*some, some[1], turn))
            if ready or not left:
                return ready

    def interrupt(sock: socket.socket) -> None:
        """Shut a connection down under whoever waits in it: a wait under way goes on, and is cancelled too.

        A wait that begins just then misses it: ask again until it has ended.
        """
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        _kernel.CancelIoEx(sock.fileno(), None)

else:

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

    def interrupt(sock: socket.socket) -> None:
        """Shut a connection down under whoever waits in it."""
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def has_proxy_script() -> bool:
    """Whether the user's settings leave it to a script (PAC) which proxy is asked. Python reads none.

    Windows: the registry tells. Elsewhere it is not looked for.
    """
    if sys.platform == "win32":
        import winreg

        with suppress(OSError), winreg.OpenKey(winreg.HKEY_CURRENT_USER, _INTERNET) as settings:
            return bool(winreg.QueryValueEx(settings, "AutoConfigURL")[0])
    return False


_INTERNET = r"Software\Microsoft\Windows\CurrentVersion\Internet Settings"


def load_certificates(context: ssl.SSLContext) -> None:
    """Trust the authorities that the system trusts.

    Linux: the files that OpenSSL was built to look for. macOS: the same, what is only in a keychain is
    not known. Windows: its stores, each certificate by itself, since `ssl` takes none where one is broken.
    """
    if not IS_WINDOWS:
        context.load_default_certs()
        return
    for certificate in _stored_certificates():
        with suppress(OSError):  # SSLError: broken
            context.load_verify_locations(cadata=certificate)
    context.set_default_verify_paths()


def _stored_certificates() -> Iterator[bytes]:
    """Those that Windows trusts with servers; `certutil` and the browsers show the same."""
    import ssl

    enumerate_store: Any = vars(ssl)["enum_certificates"]  # only there
    for store in ("CA", "ROOT"):
        with suppress(PermissionError):
            for certificate, encoding, trust in enumerate_store(store):
                if encoding == "x509_asn" and (trust is True or ssl.Purpose.SERVER_AUTH.oid in trust):
                    yield certificate


# -- Threads.

_NICE = 10  # what 12.5 MB/s takes is still there beside programs that want all processors


def give_way() -> None:
    """Have the calling thread come after all others where processors are short, as Linux can do it by thread.

    Not on Windows: there such a thread is not run at all while others want to, also where it has Python's
    lock and they wait for that.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # somebody has forbidden it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


# -- The child process.


def python() -> str:
    """Blender's own Python as a program: a child runs on it.

    Official builds name it in `sys.executable` on every system; a build that names Blender there has it
    in the folder of its Python, on Windows as `python.exe`.
    """
    if "python" in os.path.basename(sys.executable).lower():
        return sys.executable
    name = "python.exe" if IS_WINDOWS else "python{}.{}".format(*sys.version_info)
    places = (os.path.join(sys.prefix, "bin", name), os.path.join(sys.prefix, name))
    return next(filter(os.path.isfile, places), sys.executable)


_UNREAD = 1 << 17  # bytes that a pipe holds which nobody has read; who sends more waits until somebody does

if sys.platform == "win32":

    def pipe() -> tuple[Connection, Connection]:
        """Both ends of a pipe, as `multiprocessing.Pipe`, whose own holds 8 KiB on Windows and macOS.

        Windows' pipes have names, and a class of their own. Raises OSError.
        """
        import uuid

        name, overlapped = rf"\\.\pipe\downloads-{uuid.uuid4()}", _winapi.FILE_FLAG_OVERLAPPED
        mode = _winapi.PIPE_ACCESS_DUPLEX | overlapped | _winapi.FILE_FLAG_FIRST_PIPE_INSTANCE
        messages = _winapi.PIPE_TYPE_MESSAGE | _winapi.PIPE_READMODE_MESSAGE
        ours = connection(_winapi.CreateNamedPipe(name, mode, messages, 1, _UNREAD, _UNREAD, 0, 0))
        access = _winapi.GENERIC_READ | _winapi.GENERIC_WRITE
        theirs = _winapi.CreateFile(name, access, 0, 0, _winapi.OPEN_EXISTING, overlapped, 0)
        _winapi.SetNamedPipeHandleState(theirs, _winapi.PIPE_READMODE_MESSAGE, None, None)
        return ours, connection(theirs)

    def connection(handle: int) -> Connection:
        """An end of the pipe."""
        from multiprocessing.connection import PipeConnection

        return PipeConnection(handle)

    def has_come(end: Connection) -> bool:
        """Whether something can be received, if only that the other end is gone. Raises OSError."""
        return end.poll(0)

else:

    def pipe() -> tuple[Connection, Connection]:
        """Both ends of a pipe, as `multiprocessing.Pipe`, whose own holds 8 KiB on Windows and macOS.

        Raises OSError.
        """
        ends = socket.socketpair()
        for end in ends:
            end.setblocking(True)  # unless `socket.setdefaulttimeout` was called, they are
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNREAD)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UNREAD)
        return connection(ends[0].detach()), connection(ends[1].detach())

    def connection(handle: int) -> Connection:
        """An end of the pipe."""
        from multiprocessing.connection import Connection

        return Connection(handle)

    def has_come(end: Connection) -> bool:
        """Whether something can be received, if only that the other end is gone. Raises OSError.

        Its own `poll` makes a selector each time: a tenth of what a look at a child takes in a tick.
        """
        return bool(poll([end.fileno()], [], 0.0))


if sys.platform == "win32":

    class Child:
        """A process that inherits this handle of a pipe and nothing else, without a window of its own.

        Until it is let go it ends with us, from its first moment on: it is made inside a job, which ends
        what is in it with its last handle, and that is ours. Windows makes a process standing still; one
        whose parent is killed just then would stand there for ever. `subprocess` knows no jobs, so this
        has what we use of its Popen. Raises OSError.
        """

        def __init__(self, command: list[str], handle: int) -> None:
            os.set_handle_inheritable(handle, True)
            self._job = subprocess.Handle(_kernel.CreateJobObjectW(None, None))
            self._limit(_ENDS_WITH_US)
            line = ctypes.create_unicode_buffer(subprocess.list2cmdline(command))
            started = _Started()
            with _inheritable_errors() as errors:
                handles = [handle, errors] if errors else [handle]
                is_made = _create(line, errors, {_HANDLES: handles, _JOBS: [self._job]}, started)
                # Without a job before Windows 10, and where our own takes no other one inside.
                if not is_made and not _create(line, errors, {_HANDLES: handles}, started):
                    raise ctypes.WinError(ctypes.get_last_error())
            _winapi.CloseHandle(started.thread)
            self._process, self.pid = subprocess.Handle(started.process), started.pid

        def wait(self, timeout: float | None = None) -> None:
            """Until it has ended. Raises subprocess.TimeoutExpired; the time-out is in seconds."""
            within = _winapi.INFINITE if timeout is None else int(timeout * 1000)
            if _winapi.WaitForSingleObject(self._process, within) == _winapi.WAIT_TIMEOUT:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)

        def kill(self) -> None:
            """End it; it may have ended."""
            with suppress(PermissionError):
                _winapi.TerminateProcess(self._process, 1)

        def let_go(self) -> None:
            """From now on it notices by itself that we are gone."""
            self._limit(0)

        def _limit(self, flags: int) -> None:
            limits = _Limits(LimitFlags=flags)
            _kernel.SetInformationJobObject(self._job, _LIMITS, ctypes.byref(limits), ctypes.sizeof(limits))

    @contextmanager
    def _inheritable_errors() -> Iterator[int]:
        """What our standard error is to a child; 0: there is none, as in a program with a window only."""
        us, made = _winapi.GetCurrentProcess(), 0
        with suppress(OSError):
            ours = _winapi.GetStdHandle(_winapi.STD_ERROR_HANDLE) or 0
            made = _winapi.DuplicateHandle(us, ours, us, 0, True, _winapi.DUPLICATE_SAME_ACCESS)
        try:
            yield made
        finally:
            if made:
                _winapi.CloseHandle(made)

    def _create(line: Any, errors: int, attributes: dict[int, list[int]], started: _Started) -> bool:
        """CreateProcessW, with lists of handles (Microsoft, "UpdateProcThreadAttribute")."""
        count, size = len(attributes), ctypes.c_size_t()
        _kernel.InitializeProcThreadAttributeList(None, count, 0, ctypes.byref(size))
        memory = ctypes.create_string_buffer(size.value)
        _kernel.InitializeProcThreadAttributeList(memory, count, 0, ctypes.byref(size))
        lists = {kind: (wintypes.HANDLE * len(handles))(*handles) for kind, handles in attributes.items()}
        for kind, handles in lists.items():
            value = handles, ctypes.sizeof(handles)
            if not _kernel.UpdateProcThreadAttribute(memory, 0, kind, *value, None, None):
                return False
        startup = _Startup(cb=ctypes.sizeof(_Startup), lpAttributeList=ctypes.addressof(memory))
        startup.dwFlags, startup.streams[2] = subprocess.STARTF_USESTDHANDLES, errors
        options = [None, None, True, CREATION, None, None, ctypes.byref(startup), ctypes.byref(started)]
        return bool(_kernel.CreateProcessW(None, line, *options))

    def watch(parent: int) -> Callable[[], bool]:
        """Whether our parent lives, each time that it is asked for; it stays our parent when it does not.

        Where Windows shuts down it ends the parent first, which would start another child for a lost one.
        """
        _kernel.SetProcessShutdownParameters(_LAST, 0)
        process = _kernel.OpenProcess(_SYNCHRONIZE, False, parent)
        return lambda: bool(process) and _kernel.WaitForSingleObject(process, 0) == _TIMED_OUT

else:

    class Child(subprocess.Popen[bytes]):
        """A process that inherits this end of a pipe and nothing else. Raises OSError."""

        def __init__(self, command: list[str], handle: int) -> None:
            super().__init__(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[handle])

        def let_go(self) -> None:
            """Nothing: a Python starts within a moment here, and then sees that it is an orphan."""

    def watch(parent: int) -> Callable[[], bool]:
        """Whether our parent lives, each time that it is asked for: an orphan gets another one."""
        return lambda: os.getppid() == parent


def system() -> str:
    """System and processor, for the User-Agent header.

    On Windows `platform.system` asks a service, which takes a while or hangs.
    """
    if IS_WINDOWS:
        return f"Windows {os.environ.get('PROCESSOR_ARCHITECTURE', '')}".rstrip()
    return f"{platform.system()} {platform.machine()}"
