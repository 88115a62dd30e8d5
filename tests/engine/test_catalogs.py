"""Catalogs of asset libraries: read from their file, and written into .blend files, which stay whole."""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from background_downloads.session import blendfile, catalogs
from background_downloads.session.blendfile import NoAssetsError, UnreadableError, set_catalog
from background_downloads.session.catalogs import Catalog

ROCKS = Catalog("Props/Rocks", uuid.UUID("01234567-89ab-cdef-0123-456789abcdef"), "Props-Rocks")
WRITTEN = bytes.fromhex("67452301ab89efcd0123456789abcdef") + b"Props-Rocks".ljust(64, b"\0")
METADATA = 2  # the number of its structure in DNA below
BEFORE, AFTER = b"p" * 16, b"q" * 8  # other fields of it

NAMES = [b"*local", b"owner[2]", b"catalog_id", b"catalog_simple_name[64]", b"(*call)()", b"first"]
TYPES = {b"char": 1, b"int": 4, b"bUUID": 16, b"ID": 4, b"AssetMetaData": 0, b"Other": 4}


def strings(code: bytes, texts: list[bytes]) -> bytes:
    data = code + struct.pack("<I", len(texts)) + b"".join(text + b"\0" for text in texts)
    return data + bytes(-len(data) % 4)


def dna(*, knows_assets: bool = True) -> bytes:
    types = list(TYPES)
    fields = [(0, 0), (1, 1), (2, 2), (0, 3), (0, 4)]
    structures = [(3, [(1, 5)]), (5, [(1, 5)]), (4, fields)][: 3 if knows_assets else 2]
    data = strings(b"SDNANAME", NAMES) + strings(b"TYPE", types)
    lengths = b"TLEN" + struct.pack(f"<{len(types)}H", *TYPES.values())
    data += lengths + bytes(-len(lengths) % 4) + b"STRC" + struct.pack("<I", len(structures))
    for kind, members in structures:
        data += struct.pack("<HH", kind, len(members))
        data += b"".join(struct.pack("<HH", *member) for member in members)
    return data


HEADS: dict[str, tuple[bytes, Callable[[bytes, int, int], bytes]]] = {
    "4.2": (b"BLENDER-v402", lambda code, kind, size: struct.pack("<4siQii", code, size, 7, kind, 1)),
    "5.2": (b"BLENDER17-01v0502", lambda code, kind, size: struct.pack("<4siQqq", code, kind, 7, size, 1)),
}


def blend(version: str = "5.2", *, assets: int = 2, filler: int = 100, knows_assets: bool = True) -> bytes:
    start, head = HEADS[version]
    name = b"Old".ljust(64, b"\0")
    asset = BEFORE + bytes(16) + name + AFTER
    blocks = [(b"DATA", 1, b"\1" * filler), (b"OB\0\0", 0, b"\2" * 5000)]
    blocks += [(b"DATA", METADATA, asset), (b"DATA", 1, b"\3" * 10)] * assets
    blocks += [(b"DNA1", 0, dna(knows_assets=knows_assets)), (b"ENDB", 0, b"")]
    return start + b"".join(head(code, kind, len(data)) + data for code, kind, data in blocks)


def put(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    for _ in set_catalog(str(path), ROCKS):
        pass


@pytest.mark.parametrize(
    ("data", "version"),
    [
        (blend("4.2"), (4, 2)),
        (blend("5.2"), (5, 2)),
        (b"BLENDER_V279", (2, 79)),
        (b"BLENDER-v402", (4, 2)),
        (b"BLENDER18-02v1004 and what nobody knows yet", (10, 4)),
        (b"BLENDER", None),
        (b"BLENDER-vabc", None),
        (b"glTF\x02\0\0\0", None),
        (b"\x28\xb5\x2f\xfd and no more of it", None),
        (b"", None),
    ],
)
def test_a_file_says_which_blender_saved_it(
    tmp_path: Path, data: bytes, version: tuple[int, int] | None
) -> None:
    path = tmp_path / "rock.blend"
    path.write_bytes(data)
    assert blendfile.saved_by(str(path)) == version


every_version = pytest.mark.parametrize("version", HEADS)


@every_version
def test_every_asset_gets_the_catalog_and_no_other_byte_changes(tmp_path: Path, version: str) -> None:
    path, before = tmp_path / "rock.blend", blend(version, filler=3 << 20)
    put(path, before)
    old = BEFORE + bytes(16) + b"Old".ljust(64, b"\0") + AFTER
    assert path.read_bytes() == before.replace(old, BEFORE + WRITTEN + AFTER)
    assert os.listdir(tmp_path) == ["rock.blend"]


def test_a_catalog_that_spans_two_pieces_of_the_copy_is_written_whole(tmp_path: Path) -> None:
    for more in range(0, 96, 7):
        head = len(blend(assets=0, filler=0)) - len(blend(assets=0, filler=0)[-8:])
        filler = blendfile.PIECE - head + more
        put(tmp_path / "rock.blend", blend(filler=filler))
        assert (tmp_path / "rock.blend").read_bytes().count(WRITTEN) == 2


def test_a_file_whose_assets_are_in_the_catalog_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "rock.blend"
    put(path, blend())
    before = path.stat()
    for _ in set_catalog(str(path), ROCKS):
        pass
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert os.listdir(tmp_path) == ["rock.blend"]


@pytest.mark.parametrize(("assets", "knows"), [(0, True), (0, False)], ids=["none marked", "older Blender"])
def test_a_file_without_assets_is_left_alone(tmp_path: Path, assets: int, knows: bool) -> None:
    path = tmp_path / "rock.blend"
    before = blend(assets=assets, knows_assets=knows)
    with pytest.raises(NoAssetsError):
        put(path, before)
    assert path.read_bytes() == before


BROKEN = {
    "empty": b"",
    "a page": b"<!doctype html>" * 100,
    "big-endian": b"BLENDER-V402" + bytes(1000),
    "newer": b"BLENDER19-02v0700xx" + bytes(1000),
    "cut": blend()[:-300],
    "a negative length": b"BLENDER-v402" + struct.pack("<4siQii", b"DATA", -5, 0, 0, 1) * 10,
    "a block longer than the file": b"BLENDER-v402" + struct.pack("<4siQii", b"DATA", 1 << 30, 0, 0, 1),
    "garbled structures": blend().replace(b"SDNANAME", b"SDNAMANE"),
    "too many names": blend().replace(b"SDNANAME" + struct.pack("<I", 6), b"SDNANAME" + b"\xff" * 4),
    "another catalog": blend().replace(b"catalog_id", b"catalog_xx"),
    "packed, cut": b"\x28\xb5\x2f\xfd" + b"\xff" * 50,
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_stays_as_it_is(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UnreadableError):
        put(tmp_path / "rock.blend", data)
    assert (tmp_path / "rock.blend").read_bytes() == data
    assert os.listdir(tmp_path) == ["rock.blend"]


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_what_strangers_write_is_refused_or_catalogued(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("strange") / "rock.blend"
    whole = bytearray(blend(data.draw(st.sampled_from(list(HEADS)))))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place : place + 1] = data.draw(st.binary(max_size=6))
    try:
        put(path, bytes(whole))
    except (UnreadableError, NoAssetsError):
        assert path.read_bytes() == bytes(whole)
    assert len(path.read_bytes()) == len(whole)
    assert os.listdir(path.parent) == ["rock.blend"]


def test_what_is_given_up_half_way_leaves_the_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path, before = tmp_path / "rock.blend", blend(filler=4 << 20)
    path.write_bytes(before)
    steps = set_catalog(str(path), ROCKS)
    while not (tmp_path / ("rock.blend" + blendfile.SUFFIX)).exists():
        next(steps)
    steps.close()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["rock.blend"]


def test_a_file_that_somebody_changes_meanwhile_is_theirs(tmp_path: Path) -> None:
    path = tmp_path / "rock.blend"
    path.write_bytes(blend(filler=4 << 20))
    steps = set_catalog(str(path), ROCKS)
    while not (tmp_path / ("rock.blend" + blendfile.SUFFIX)).exists():
        next(steps)
    path.write_bytes(b"theirs")
    with pytest.raises(UnreadableError, match="changed meanwhile"):
        list(steps)
    assert path.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["rock.blend"]


def test_what_looks_at_a_new_file_is_waited_for_between_other_work(windows: None, tmp_path: Path) -> None:
    path = tmp_path / "rock.blend"
    path.write_bytes(blend())
    steps = set_catalog(str(path), ROCKS)
    with path.open("rb"):
        for _ in range(1000):
            next(steps)
    list(steps)
    assert path.read_bytes().count(WRITTEN) == 2
    assert os.listdir(tmp_path) == ["rock.blend"]


def test_what_somebody_writes_who_has_the_file_open_stays(windows: None, tmp_path: Path) -> None:
    path = tmp_path / "rock.blend"
    path.write_bytes(blend())
    steps = set_catalog(str(path), ROCKS)
    with path.open("r+b") as file:
        for _ in range(1000):
            next(steps)
        file.write(b"theirs")
    with pytest.raises(UnreadableError, match="changed meanwhile"):
        list(steps)
    assert path.read_bytes().startswith(b"theirs")
    assert os.listdir(tmp_path) == ["rock.blend"]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(blendfile.portable, "sync_data", full)
    with pytest.raises(OSError, match="No space"):
        put(tmp_path / "rock.blend", blend())
    assert (tmp_path / "rock.blend").read_bytes() == blend()
    assert os.listdir(tmp_path) == ["rock.blend"]


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "real.blend").write_bytes(blend())
    (tmp_path / "rock.blend").symlink_to(tmp_path / "real.blend")
    with pytest.raises(UnreadableError):
        list(set_catalog(str(tmp_path / "rock.blend"), ROCKS))
    assert (tmp_path / "real.blend").read_bytes() == blend()


# The library's own file.

CATALOGS = f"""# This is an Asset Catalog Definition file for Blender.

VERSION 1

{ROCKS.uuid}:Props/Rocks:Props-Rocks
11111111-2222-3333-4444-555555555555:Möbel:
no uuid:Broken:x
22222222-2222-3333-4444-555555555555
00000000-0000-0000-0000-000000000000:Nil:Nil
33333333-2222-3333-4444-555555555555:Props/Rocks:Second
44444444-2222-3333-4444-555555555555: /Props// Chairs/ :Chairs
"""


def test_the_catalogs_of_a_library_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / catalogs.FILE).write_text(CATALOGS, "utf-8")
    found = catalogs.of(str(tmp_path))
    assert list(found) == ["Möbel", "Props/Chairs", "Props/Rocks"]
    assert found["Props/Rocks"] == ROCKS
    assert found["Möbel"].simple_name == "Möbel"


@pytest.mark.parametrize("data", [None, b"", b"\0\xff" * 5000, b"x" * (catalogs.FILE_SIZE + 1)])
def test_a_library_without_a_readable_file_has_none(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / catalogs.FILE).write_bytes(data)
    assert catalogs.of(str(tmp_path)) == {}


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    assert all(catalog.path.isprintable() for catalog in catalogs._parsed(text))
