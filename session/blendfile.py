"""The marked assets in a .blend file, and the catalog that they are in. Knows no Blender.

A .blend file describes itself: blocks, each with a head, and near its end the structures (DNA), which say
where in a block a field is. So a catalog is set without opening the file, whichever Blender saved it, and
all else in it stays as it is. What is read may be garbled or hostile, and is then refused.
https://projects.blender.org/blender/blender/src/branch/main/source/blender/blenloader
"""

from __future__ import annotations

import os
import re
import stat
import struct
from array import array
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from ..transfer import portable
from . import zstd

if TYPE_CHECKING:
    from .catalogs import Catalog

PIECE = zstd.FRAME  # bytes that are copied between two pauses
BLOCKS = 1000  # heads that are read between two
MOST_BLOCKS = 20_000_000
LARGEST_BLOCK = 1 << 12  # bytes of a block that may be an asset's metadata: it has about 200
LARGEST_DNA = 1 << 24  # bytes; Blender's has about 150,000
LARGEST = 1 << 36  # bytes of a file, unpacked
START = rb"BLENDER(?:[_-][vV]|[0-9]{2}-[0-9]{2}v)([0-9]{3,4})"  # of any file, with the version that saved it
START_SIZE = 17  # bytes
SUFFIX = ".catalog~"  # of the new file until it is whole

Steps = Generator[None, None, Any]
"""Pauses after each few milliseconds of work."""


class NoAssetsError(Exception):
    """Nothing in the file is marked as an asset."""


class UnreadableError(Exception):
    """The file cannot be understood, or not be unpacked here; why, as a part of a sentence."""

    def __init__(self, why: str = "it is damaged, or no .blend file") -> None:
        super().__init__(why)


def set_catalog(path: str, catalog: Catalog) -> Steps:
    """Put every marked asset of a file into a catalog.

    The new file takes the old one's place in one step, once it is whole on the disk. After a failure, and
    where the iterator is closed before its end, the old one stands as it was.

    :raises NoAssetsError: nothing in it is marked.
    :raises UnreadableError: it is no .blend file, or packed in a way that cannot be unpacked here.
    :raises OSError: what the disk says.
    """
    path = portable.reach(path)
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise UnreadableError
    with ExitStack() as stack:
        source = stack.enter_context(open(path, "rb"))
        before = os.fstat(source.fileno())
        patches = yield from _patches(_Reader(source), catalog)
        stack.callback(_remove, path + SUFFIX)
        is_new = yield from _write(_Reader(source), path + SUFFIX, patches)
        _check_same(path, before)
        if not is_new:
            return  # they are in it already
        source.close()  # what is open cannot be replaced everywhere
        os.chmod(path + SUFFIX, stat.S_IMODE(before.st_mode))
        for _ in portable.replacing(path + SUFFIX, path):
            yield
            _check_same(path, before)
        portable.sync_folder(os.path.dirname(path))


def _check_same(path: str, before: os.stat_result) -> None:
    if _identity(os.lstat(path)) != _identity(before):
        raise UnreadableError("it was changed meanwhile")


def _remove(path: str) -> None:
    with suppress(OSError):
        os.remove(path)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return *portable.identity(status), status.st_size, status.st_mtime_ns


class _Reader:
    """Reads a file from its beginning, unpacked, and knows where it is."""

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        self.place = 0
        self.is_packed = file.read(len(zstd.MAGIC)) == zstd.MAGIC
        file.seek(0)
        try:
            self._file = zstd.reader(file) if self.is_packed else file
        except ImportError as error:
            raise UnreadableError("it is compressed, and this Blender cannot unpack it") from error

    def some(self, size: int) -> bytes:
        """So many bytes, or as many as are left."""
        pieces = []
        try:
            while size and (piece := self._file.read(size)):
                pieces.append(piece)
                size -= len(piece)
        except OSError:
            raise
        except Exception as error:  # each library has its own for what it cannot unpack
            raise UnreadableError from error
        data = b"".join(pieces)
        self.place += len(data)
        if self.place > LARGEST:
            raise UnreadableError
        return data

    def exactly(self, size: int) -> bytes:
        """So many bytes. Raises UnreadableError where there are less."""
        data = self.some(size)
        if len(data) != size:
            raise UnreadableError
        return data

    def skip(self, size: int) -> Steps:
        """Leave bytes out."""
        if not self.is_packed:
            self._file.seek(size, os.SEEK_CUR)
            self.place += size
            return
        while size:
            size -= len(self.exactly(min(size, PIECE)))
            yield


def saved_by(path: str) -> tuple[int, int] | None:
    """Which Blender saved a file: ``(4, 5)``. None where nobody can tell.

    :raises OSError: what the disk says.
    """
    with open(portable.reach(path), "rb") as file, suppress(UnreadableError):
        if found := re.match(START, _Reader(file).some(START_SIZE)):
            return divmod(int(found[1]), 100)
    return None


# -- Where they are.


@dataclass(frozen=True, slots=True)
class _Heads:
    """How the heads of blocks look."""

    form: struct.Struct
    pointer: int
    """Bytes of a pointer."""
    is_large: bool
    """Of Blender 5.0 and newer: its fields come in another order."""

    def read(self, reader: _Reader) -> tuple[bytes, int, int]:
        """A block's code, the number of its structure, and its length in bytes."""
        code, *numbers = self.form.unpack(reader.exactly(self.form.size))
        kind, length = (numbers[0], numbers[2]) if self.is_large else (numbers[2], numbers[0])
        if not 0 <= length <= LARGEST:
            raise UnreadableError
        return code, kind, length


HEADS = {
    b"BLENDER_v": _Heads(struct.Struct("<4siIii"), 4, False),
    b"BLENDER-v": _Heads(struct.Struct("<4siQii"), 8, False),
    b"BLENDER17-01v": _Heads(struct.Struct("<4siQqq"), 8, True),
}
"""By how a file begins; after it comes the version, in digits. Big-endian ones no Blender opens any more."""


def _heads(reader: _Reader) -> _Heads:
    start = reader.exactly(9)
    if start == b"BLENDER17":
        start += reader.exactly(4)
    if start not in HEADS:
        raise UnreadableError
    reader.exactly(4 if HEADS[start].is_large else 3)
    return HEADS[start]


def _patches(reader: _Reader, catalog: Catalog) -> Steps:
    """What has to stand where in the unpacked file, in order."""
    heads = _heads(reader)
    places: dict[int, array[int]] = defaultdict(lambda: array("q"))  # and lengths, of each structure's blocks
    for number in range(MOST_BLOCKS):
        code, kind, length = heads.read(reader)
        if code == b"DNA1":
            field = _field(reader.exactly(min(length, LARGEST_DNA)), heads.pointer)
            break
        if code == b"DATA" and length <= LARGEST_BLOCK:
            places[kind].extend((reader.place, length))
        yield from reader.skip(length)
        if number % BLOCKS == 0:
            yield
    else:
        raise UnreadableError
    if field is None or field.kind not in places:
        raise NoAssetsError
    values = field.values(catalog)
    found = zip(places[field.kind][::2], places[field.kind][1::2], strict=True)
    return [(place + at, data) for place, length in found for at, data in values if at + len(data) <= length]


@dataclass(frozen=True, slots=True)
class _Field:
    """Where the metadata of an asset has its catalog."""

    kind: int
    """The structure's number."""
    catalog_id: int
    """Bytes from the block's beginning."""
    simple_name: int
    size: int
    """Bytes of the simple name, with the zero at its end."""

    def values(self, catalog: Catalog) -> list[tuple[int, bytes]]:
        """What is to stand where in a block, in order."""
        name = catalog.simple_name.encode()[: self.size - 1].decode(errors="ignore").encode()
        return sorted(
            ((self.catalog_id, catalog.uuid.bytes_le), (self.simple_name, name.ljust(self.size, b"\0")))
        )


def _field(dna: bytes, pointer: int) -> _Field | None:
    """Read from the structures; None where they know no assets.

    :raises UnreadableError: they are garbled.
    """
    try:
        names, types, lengths, structures = _parsed(dna)
        found = next((each for each in enumerate(structures) if types[each[1][0]] == b"AssetMetaData"), None)
        if found is None:
            return None
        offsets, offset = {}, 0
        for kind, name in found[1][1]:
            offsets[names[name]] = offset
            offset += _size(names[name], lengths[kind], pointer)
        return _Field(found[0], offsets[b"catalog_id"], offsets[b"catalog_simple_name[64]"], 64)
    except (struct.error, ValueError, IndexError, KeyError) as error:
        raise UnreadableError from error


def _size(name: bytes, length: int, pointer: int) -> int:
    """Bytes of a field; its name says whether it is a pointer, and how many there are."""
    size = pointer if name[:1] in (b"*", b"(") else length
    for part in name.split(b"[")[1:]:
        size *= int(part.rstrip(b"]"))
    return size


Structure = tuple[int, list[tuple[int, int]]]
"""The number of its type, and of the type and name of each field."""


def _parsed(dna: bytes) -> tuple[list[bytes], list[bytes], tuple[int, ...], Iterator[Structure]]:
    """The names of fields, those of types, the lengths of types, and the structures."""
    names, place = _strings(dna, b"SDNANAME", 0)
    types, place = _strings(dna, b"TYPE", place)
    place = _expected(dna, b"TLEN", place)
    lengths = struct.unpack_from(f"<{len(types)}H", dna, place)
    place = _expected(dna, b"STRC", _aligned(place + 2 * len(types)))
    return names, types, lengths, _structures(dna, place)


def _strings(dna: bytes, code: bytes, place: int) -> tuple[list[bytes], int]:
    place = _expected(dna, code, place)
    (count,) = struct.unpack_from("<I", dna, place)
    end, found = place + 4, []
    for _ in range(count):
        begin, end = end, dna.index(b"\0", end) + 1
        found.append(dna[begin : end - 1])
    return found, _aligned(end)


def _expected(dna: bytes, code: bytes, place: int) -> int:
    if dna[place : place + len(code)] != code:
        raise UnreadableError
    return place + len(code)


def _aligned(place: int) -> int:
    return (place + 3) & ~3


def _structures(dna: bytes, place: int) -> Iterator[Structure]:
    (count,) = struct.unpack_from("<I", dna, place)
    place += 4
    for _ in range(count):
        kind, fields = struct.unpack_from("<HH", dna, place)
        numbers = struct.unpack_from(f"<{2 * fields}H", dna, place + 4)
        yield kind, list(zip(numbers[::2], numbers[1::2], strict=True))
        place += 4 + 4 * fields


# -- Writing.


def _write(reader: _Reader, path: str, patches: list[tuple[int, bytes]]) -> Steps:
    """Write the file anew, with these bytes in their places. Returns whether any of it is different."""
    is_new, rest = False, patches[::-1]
    _remove(path)  # of one that was killed
    with open(path, "xb") as file:
        writer = zstd.Writer(file) if reader.is_packed else file
        begin = 0
        while data := reader.some(PIECE):
            changed = _patched(data, begin, rest)
            is_new = is_new or changed != data
            writer.write(changed)
            file.flush()
            portable.sync_data(file.fileno())  # a piece at a time: no pause is long
            begin += len(data)
            yield
        if isinstance(writer, zstd.Writer):
            writer.finish()
        file.flush()
        portable.sync_file(file.fileno())
    return is_new


def _patched(data: bytes, begin: int, rest: list[tuple[int, bytes]]) -> bytes:
    """A piece of the file with what belongs into it, which is taken from the end of `rest`."""
    changed, end = bytearray(data), begin + len(data)
    while rest and rest[-1][0] < end:
        place, new = rest.pop()
        fits = new[: end - place]
        changed[place - begin : place - begin + len(fits)] = fits
        if fits != new:  # it goes on in the next piece
            rest.append((end, new[len(fits) :]))
    return bytes(changed)
