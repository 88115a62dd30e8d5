"""Unpacking a .zip file beside itself: whole or not at all, and only plain files inside its folder.

Knows no Blender. The archive is a stranger's: names, sizes and types in it may say anything.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from itertools import chain, count
from typing import BinaryIO

from ..transfer import names, portable
from ..transfer.space import amount

CHUNK = 1 << 20  # bytes unpacked between two breaths
FILES = 50_000  # in an archive, at most
INDEX_SIZE = 16 << 20  # bytes of the list of its files, at most; it is read at once
RATIO = 200  # what its bytes may become; no archive of models or textures comes near
SMALL = 64 << 20  # bytes that are no bomb, whatever the ratio
APPLE_DOUBLE = "._"  # before a name, where a Mac keeps its notes of the file (RFC 1740, appendix A)
LEFT_OUT = frozenset(("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"))  # systems' own notes


class ImportProblem(Exception):
    """Why a file is not imported, in a sentence for people."""


def unpack(path: str) -> Iterator[str]:
    """Unpack an archive into a new folder beside it that is named after it, a mebibyte at a time.

    Yields an empty text while it goes on, and the folder at the end. Closed on the way it leaves
    nothing behind.

    :raises ImportProblem: it cannot be unpacked, or must not be.
    """
    try:
        with open(portable.reach(path), "rb") as file:
            _check_index(file)
            with zipfile.ZipFile(file) as archive:
                yield from _unpack(archive, path, os.fstat(file.fileno()).st_size)
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError) as error:
        raise ImportProblem("The archive is damaged. Download it again") from error
    except (NotImplementedError, RuntimeError) as error:  # a method that zipfile does not know
        raise ImportProblem(
            "The archive is packed in a way that cannot be read. Unpack it yourself"
        ) from error
    except FileExistsError as error:
        raise ImportProblem("The archive holds two files of the same name. Unpack it yourself") from error
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ImportProblem(f"The archive could not be unpacked beside itself: {why}") from error


def _check_index(file: BinaryIO) -> None:
    """See that the list of files is one that may be read (APPNOTE.TXT, 4.3.14 and 4.3.16)."""
    file.seek(max(0, os.fstat(file.fileno()).st_size - (1 << 16) - 128))
    tail = file.read()
    for mark, form, offset in ((b"PK\x05\x06", "<I", 12), (b"PK\x06\x06", "<Q", 40)):
        at = tail.rfind(mark)
        size = struct.unpack_from(form, tail, at + offset)[0] if at >= 0 else 0
        if size > INDEX_SIZE and size != 0xFFFFFFFF:  # which says: look into the other record
            raise ImportProblem("The archive holds too many files. Unpack it yourself")


def _unpack(archive: zipfile.ZipFile, path: str, packed: int) -> Iterator[str]:
    files = [(entry, parts) for entry in archive.infolist() if (parts := _parts(entry))]
    parent = portable.reach(os.path.dirname(os.path.abspath(path)))  # archives are deep
    _check_size(sum(entry.file_size for entry, _ in files), len(files), packed, parent)
    stem = names.safe(os.path.splitext(os.path.basename(path))[0]) or "archive"
    unfinished = os.path.join(parent, f".unpacking-{secrets.token_hex(4)}")
    os.mkdir(unfinished)
    try:
        for entry, parts in files:
            yield from _extract(archive, entry, os.path.join(unfinished, *parts))
        folder = _free(os.path.join(parent, stem))
        yield from _rename(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    yield portable.plain(folder)


def _parts(entry: zipfile.ZipInfo) -> list[str]:
    """Where it goes, below the folder; empty where it is left out. Raises ImportProblem where it may not."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ImportProblem("The archive holds a link, and was not unpacked. Unpack it yourself")
    if entry.flag_bits & 1:
        raise ImportProblem("The archive asks for a password. Unpack it yourself")
    path = entry.filename.replace("\\", "/")
    parts = path.split("/")
    if path.startswith("/") or path[1:2] == ":" or ".." in parts:
        raise ImportProblem("The archive holds a file that would leave its folder, and was not unpacked")
    if not parts[-1] or kind == stat.S_IFDIR or LEFT_OUT & set(parts) or parts[-1].startswith(APPLE_DOUBLE):
        return []
    return [names.safe(part) or "_" for part in parts if part not in ("", ".")]


def _check_size(size: int, count: int, packed: int, parent: str) -> None:
    if count > FILES:
        raise ImportProblem("The archive holds too many files. Unpack it yourself")
    if size > max(SMALL, RATIO * packed):
        raise ImportProblem(f"The archive would become {amount(size)}, which no honest one does")
    free = shutil.disk_usage(parent).free
    if size > free:
        raise ImportProblem(
            f"Not enough space to unpack the archive: {amount(size)} are needed, {amount(free)} are free"
        )


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: str) -> Iterator[str]:
    """Never over a file that is there, and never longer than the archive says."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with archive.open(entry) as source, open(target, "xb") as file:
        while chunk := source.read(CHUNK):
            file.write(chunk)
            yield ""
        if file.tell() != entry.file_size:
            raise zipfile.BadZipFile
    yield ""


def _rename(unfinished: str, folder: str) -> Iterator[str]:
    """Windows renames no folder while somebody has a file in it open, as scanners have each new one."""
    end = time.monotonic() + portable.PATIENCE
    while True:
        try:
            return os.rename(unfinished, folder)
        except PermissionError:
            if portable.moves_open_files or time.monotonic() > end:
                raise
        yield ""


def _free(folder: str) -> str:
    """The folder's name, with a number where something has that name."""
    numbered = (f"{folder} ({number})" for number in count(1))
    return next(name for name in chain([folder], numbered) if not os.path.lexists(name))
