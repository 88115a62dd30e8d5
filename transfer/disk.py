"""Folders and small files, and what the operating system says about them, for people."""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from . import names, portable
from .job import TransferError

MODE = 0o666  # less the umask, as for any file that a user saves
PRIVATE = 0o600  # of files that hold secrets
_NO_FILE = (errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.EISDIR)  # nothing, a link, a socket or a folder
NOTE_SIZE = 16 << 20  # bytes, of what was finished by one Blender; a larger file is not ours


# -- Small files.


def write_atomically(path: str | os.PathLike[str], data: bytes, mode: int = MODE) -> None:
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
        with suppress(OSError):
            os.unlink(temporary)
        raise
    portable.sync_folder(os.path.dirname(path))


def remove(path: str | os.PathLike[str], wait: portable.Wait = time.sleep) -> None:
    """Delete a small file, and what a process left that died while it wrote it. Raises OSError."""
    portable.remove(path, wait)
    portable.remove(_temporary(path), wait)


def _temporary(path: str | os.PathLike[str]) -> str:
    return os.fspath(path) + names.UNFINISHED


def read_regular(path: str | Path, most: int) -> bytes:
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


def may_be_right(error: Exception) -> bool:
    """Whether a small file that could not be read just now may be had the next time: then it is to stay."""
    return isinstance(error, OSError) and error.errno not in _NO_FILE


def note(path: str, uid: int, file: str) -> None:
    """Add to a small private file that a download is in place; see `Job.done`. Raises OSError."""
    fd = portable.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE)
    try:
        os.write(fd, f"\n{json.dumps([uid, file])}".encode())  # the last one may have been cut
    finally:
        os.close(fd)


def noted(path: Path) -> dict[int, str]:
    """The files that were noted there, by uid; somebody may have taken one away. Raises nothing."""
    found: dict[int, str] = {}
    with suppress(OSError, ValueError):
        for line in read_regular(path, NOTE_SIZE).split(b"\n"):
            with suppress(ValueError, TypeError, RecursionError):
                uid, file = json.loads(line.decode())
                if type(uid) is int and isinstance(file, str) and "\0" not in file:
                    found[uid] = file
    return found


# -- Folders.


def prepare_folder(directory: str) -> None:
    """Make the folder if it is missing. Raises TransferError unless it can be written to."""
    if not directory or "\0" in directory:
        raise TransferError("Choose a folder to download to")
    folder = portable.reach(directory)
    if os.access(os.path.join(folder, ""), os.W_OK | os.X_OK):  # there, a folder, and ours to write to
        return
    with explained(directory), portable.naming_protection():
        if os.path.exists(folder) and not os.path.isdir(folder):
            raise TransferError(f"“{directory}” is a file, not a folder. Choose a folder")
        if any(map(os.path.isfile, Path(folder).parents)):  # which Windows calls missing
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        os.makedirs(folder, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise TransferError(f"Nothing can be written to the folder “{directory}”. Choose another folder")


class explained:
    """Turn what the operating system says about a folder into a sentence: raises TransferError."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise TransferError(_sentence(error, f"the folder “{self._directory}”")) from error


def _sentence(error: OSError, folder: str) -> str:
    if isinstance(error, portable.ProtectedError):
        allow = "Allow blender.exe and its python.exe there, under Ransomware protection"
        return f"Windows Security protects {folder} from Blender. {allow}, or choose another folder"
    if portable.keeps_folders_private and error.errno == errno.EPERM:
        allow = "Allow it in System Settings, under Privacy & Security > Files and Folders"
        return f"macOS keeps {folder} from Blender. {allow}, or choose another folder"
    return {
        errno.ENOSPC: f"The disk is full: make room in {folder}, then press Retry",
        errno.EDQUOT: f"Your quota is used up: make room in {folder}, then press Retry",
        errno.EFBIG: f"The file is too large for the disk that holds {folder}. Choose another folder",
        errno.EROFS: f"Nothing can be written to {folder}: it is read-only. Choose another folder",
        errno.EACCES: f"You are not allowed to write to {folder}. Choose another folder",
        errno.EBUSY: f"Blender or some program has a file in {folder} open. Close it there, then press Retry",
        errno.EPERM: f"You are not allowed to write to {folder}. Choose another folder",
        errno.EEXIST: f"Cannot find what {folder} is a shortcut to. Is its disk still connected?",
        errno.ENOENT: f"Cannot find {folder}. Is its disk still connected?",
        errno.ENOTDIR: f"Part of the path to {folder} is a file. Choose another folder",
        errno.ENAMETOOLONG: f"The path to {folder} is too long. Choose another folder",
        errno.EISDIR: f"A folder is in the way in {folder}. Choose another folder",
        errno.ELOOP: f"A shortcut is in the way in {folder}. Choose another folder",
        errno.EIO: f"The disk that holds {folder} reports an error. Choose another folder",
        errno.ESTALE: f"The disk that holds {folder} is gone",
    }.get(portable.meaning(error), f"Cannot write to {folder} ({error.strerror or type(error).__name__})")
