"""Files whose own numbers lead beyond their end, before Blender's importers believe them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from background_downloads.session.damage import is_sound

IS_DATA = 1 << 63


def abc() -> bytes:
    """A root with an empty group, empty data, data, and a group that is there twice."""
    data = struct.pack("<Q5s", 5, b"hello")
    at_data = 16
    at_group = at_data + len(data)
    group = struct.pack("<QQ", 1, at_data | IS_DATA)
    root = struct.pack("<6Q", 5, 0, IS_DATA, at_data | IS_DATA, at_group, at_group)
    return b"Ogawa\xff\x00\x01" + struct.pack("<Q", at_group + len(group)) + data + group + root


def ply(form: str = "binary_little_endian", *, uneven: bool = True, flags: bool = False) -> bytes:
    """Four corners, and two faces of three and four of them."""
    order = ">" if "big" in form else "<"
    faces = [(0, 1, 2), (0, 1, 2, 3) if uneven else (1, 2, 3)]
    head = f"""ply
format {form} 1.0
comment element of nothing
element vertex 4
property float x
property double y
property uchar red
element face 2
property list {"ushort" if flags else "uchar"} int vertex_indices
"""
    head += "property uchar flags\nend_header\n" if flags else "end_header\n"
    rows = [(f"{order}fdB", (1.0, 2.0, 3)) for _ in range(4)]
    for face in faces:
        rows.append((f"{order}{'H' if flags else 'B'}{len(face)}i", (len(face), *face)))
        if flags:
            rows.append(("B", (7,)))
    if form == "ascii":
        lines = [" ".join(map(str, values)) for _, values in rows]
        return (head + "\n".join(lines)).encode() + b"\n"
    return head.encode() + b"".join(struct.pack(kind, *values) for kind, values in rows)


EVERY: dict[str, Callable[[], bytes]] = {
    "a.abc": abc,
    "little.ply": ply,
    "big.PLY": lambda: ply("binary_big_endian"),
    "even.ply": lambda: ply(uneven=False),
    "flags.ply": lambda: ply(flags=True),
    "big_flags.ply": lambda: ply("binary_big_endian", flags=True),
}


@pytest.mark.parametrize("name", EVERY)
def test_cut_anywhere_it_is_not_sound(tmp_path: Path, name: str) -> None:
    path, whole = tmp_path / name, EVERY[name]()
    path.write_bytes(whole)
    assert is_sound(str(path))
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert not is_sound(str(path)), length


def test_a_text_is_left_to_blender(tmp_path: Path) -> None:
    path, whole = tmp_path / "text.ply", ply("ascii")
    for text in (whole, whole[:-20], whole.replace(b"\n", b"\r\n")):
        path.write_bytes(text)
        assert is_sound(str(path))
    for text in (whole[: whole.index(b"end_header")], b"ply\n", b""):
        path.write_bytes(text)
        assert not is_sound(str(path))


@pytest.mark.parametrize("number", [1 << 31, (1 << 63) - 1, (1 << 64) - 1])
@pytest.mark.parametrize("place", [8, 16, -48, -16])  # the root's place, a size, how many, a group's
def test_numbers_that_lead_out_of_an_alembic_file_are_seen(tmp_path: Path, place: int, number: int) -> None:
    path, garbled = tmp_path / "a.abc", bytearray(abc())
    struct.pack_into("<Q", garbled, place % len(garbled), number)
    path.write_bytes(garbled)
    assert not is_sound(str(path))


@pytest.mark.parametrize("count", ["4000000000", "99999999999999999999", "-1", "many"])
@pytest.mark.parametrize("element", ["vertex 4", "face 2"])
def test_counts_that_lead_out_of_a_ply_file_are_seen(tmp_path: Path, element: str, count: str) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(ply().replace(element.encode(), f"{element.split()[0]} {count}".encode()))
    assert not is_sound(str(path))


def test_a_ring_of_groups_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "a.abc"
    path.write_bytes(b"Ogawa\xff\x00\x01" + struct.pack("<QQQ", 16, 1, 16))
    assert is_sound(str(path))


@pytest.mark.parametrize("name", ["rock.glb", "rock", "abc", "ply.stl"])
def test_other_types_are_left_to_blender(tmp_path: Path, name: str) -> None:
    assert is_sound(str(tmp_path / name))
