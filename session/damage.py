"""Damaged files that would end Blender: its importers of these types believe every number in a file.

Alembic ends the process where an .abc file was cut off, and Blender reads beyond the end of a .ply file
(tried from 4.2 to 5.2; the other types bore it). So their numbers are compared with the file's length first.
What is garbled within that length may still end it. Knows no Blender.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator
from typing import Literal

from ..transfer import portable

Data = mmap.mmap


def is_sound(path: str) -> bool:
    """Whether nothing in a file of such a type leads beyond its end; True for all other types.

    :raises OSError: it cannot be read.
    """
    look = _LOOKS.get(path.rpartition(".")[2].lower())
    if not look:
        return True
    with open(portable.reach(path), "rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return look(data)
        except (ValueError, LookupError, OverflowError, struct.error):  # it is empty, or leads beyond its end
            return False


# -- Alembic's Ogawa: groups of places, of groups and of data
# (https://github.com/alembic/alembic/tree/master/lib/Alembic/Ogawa).

OGAWA = b"Ogawa\xff"  # and not one that is still being written
EMPTY = 0
IS_DATA = 1 << 63


def _is_sound_abc(data: Data) -> bool:
    if data[: len(OGAWA)] != OGAWA:
        return data[:4] == b"\x89HDF"  # an old one, which Blender refuses in good order
    known, groups = set[int](), list(struct.unpack_from("<Q", data, 8))
    while groups:
        (count,) = struct.unpack_from("<Q", data, place := groups.pop())
        for child in struct.unpack_from(f"<{_fitting(data, count, 8)}Q", data, place + 8):
            place = child & ~IS_DATA
            if place == EMPTY or child in known:
                continue
            known.add(child)
            if child & IS_DATA:
                (size,) = struct.unpack_from("<Q", data, place)
                _fitting(data, place + 8 + size)
            else:
                groups.append(place)
    return True


def _fitting(data: Data, count: int, size: int = 1) -> int:
    """So many of this size. Raises ValueError where the file is not as long."""
    if not 0 <= count * size <= len(data):
        raise ValueError
    return count


# -- Stanford's PLY: a head in lines, then rows (http://paulbourke.net/dataformats/ply/).

HEAD_SIZE = 1 << 16  # bytes
SIZES = {
    name: size
    for size, names in {
        1: "char uchar int8 uint8",
        2: "short ushort int16 uint16",
        4: "int uint int32 uint32 float float32",
        8: "double float64",
    }.items()
    for name in names.split()
}
Order = Literal["big", "little"]
Property = tuple[int, int]
"""Bytes of its value; of a list those of its length and of each of its values."""


def _is_sound_ply(data: Data) -> bool:
    head = re.match(rb"(?s)ply\s.*?\nend_header\r?\n", data[:HEAD_SIZE])
    if not head:
        return False
    lines = [line.split() for line in head[0].decode("latin-1").splitlines()]
    (form,) = (line[1] for line in lines if line[:1] == ["format"])
    elements = list(_elements(lines))
    if form == "ascii":  # of which Blender bears what is missing
        return True
    order: Order = "big" if "big" in form else "little"
    at = head.end()
    for count, properties in elements:
        at = _fitting(data, _end(data, at, count, properties, order))
    return True


def _elements(lines: list[list[str]]) -> Iterator[tuple[int, list[Property]]]:
    """How many rows of which properties there are, of each kind."""
    properties: list[Property] = []
    for line in lines:
        if line[:1] == ["element"]:
            properties = []
            yield int(line[2]), properties
        elif line[:2] == ["property", "list"]:
            properties.append((SIZES[line[2]], SIZES[line[3]]))
        elif line[:1] == ["property"]:
            properties.append((0, SIZES[line[1]]))


def _end(data: Data, at: int, count: int, properties: list[Property], order: Order) -> int:
    """Where these rows end, which may be beyond the end of the file."""
    rows = range(_fitting(data, count))
    if not any(length for length, _ in properties):
        return at + count * sum(size for _, size in properties)
    if len(properties) == 1 and properties[0][0] == 1:  # faces, of which there may be millions
        size = properties[0][1]
        for _ in rows:
            at += 1 + data[at] * size
        return at
    for _ in rows:
        for length, size in properties:
            number = int.from_bytes(data[at : at + length], order) if length else 1
            at += length + number * size
    return at


_LOOKS = {"abc": _is_sound_abc, "ply": _is_sound_ply}
