"""Unpacking archives that strangers made: whole or not at all, never outside, never without end."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rules import is_safe

from background_downloads.session import unpacking
from background_downloads.session.unpacking import ImportProblem, unpack


def archive(path: Path, files: dict[str, bytes], **modes: int) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            if name in modes:
                entry.external_attr = modes[name] << 16
            file.writestr(entry, data)
    return str(path)


def unpacked(path: str) -> Path:
    *_, folder = unpack(path)
    return Path(folder)


def below(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_an_archive_is_unpacked_into_a_folder_named_after_it(tmp_path: Path) -> None:
    files = {"rock.gltf": b"{}", "textures/wood.png": b"png", "empty": b""}
    folder = unpacked(archive(tmp_path / "Rocks 2.zip", {**files, "textures/": b""}))
    assert folder == tmp_path / "Rocks 2"
    assert below(folder) == files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Rocks 2", "Rocks 2.zip"]


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "rocks").mkdir()
    path = archive(tmp_path / "rocks.zip", {"a": b"1"})
    assert [unpacked(path).name, unpacked(path).name] == ["rocks (1)", "rocks (2)"]


def test_what_systems_add_is_left_out(tmp_path: Path) -> None:
    files = {"__MACOSX/._rock.obj": b"", "a/.DS_Store": b"", "Thumbs.db": b"", "a\\rock.obj": b"v"}
    files |= {"._a": b"", "a/._rock.obj": b""}
    assert below(unpacked(archive(tmp_path / "rocks.zip", files))) == {"a/rock.obj": b"v"}


def test_nothing_unpacked_can_be_run(tmp_path: Path) -> None:
    path = archive(tmp_path / "rocks.zip", {"run": b"#!/bin/sh"}, run=stat.S_IFREG | 0o4777)
    assert not (unpacked(path) / "run").stat().st_mode & 0o7111


@pytest.mark.parametrize(
    ("name", "mode", "sentence"),
    [
        ("../evil", 0, "leave its folder"),
        ("a/../../evil", 0, "leave its folder"),
        ("/evil", 0, "leave its folder"),
        ("..\\evil", 0, "leave its folder"),
        ("C:\\evil", 0, "leave its folder"),
        ("C:evil", 0, "leave its folder"),
        ("link", stat.S_IFLNK | 0o777, "a link"),
        ("pipe", stat.S_IFIFO | 0o666, "a link"),
        ("device", stat.S_IFCHR | 0o666, "a link"),
    ],
)
def test_what_must_not_be_unpacked_leaves_nothing(
    tmp_path: Path, name: str, mode: int, sentence: str
) -> None:
    path = archive(tmp_path / "rocks.zip", {"good": b"1", name: b"/etc/passwd"}, **{name: mode})
    with pytest.raises(ImportProblem, match=sentence):
        unpacked(path)
    assert [found.name for found in tmp_path.iterdir()] == ["rocks.zip"]


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    path = Path(archive(tmp_path / "a.zip", {"x": b"1", "y": b"2"}))
    path.write_bytes(path.read_bytes().replace(b"y", b"x"))
    with pytest.raises(ImportProblem, match="the same name"):
        unpacked(str(path))
    assert [found.name for found in tmp_path.iterdir()] == ["a.zip"]


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "SMALL", 1 << 20)
    path = archive(tmp_path / "bomb.zip", {"zeros": bytes(8 << 20)})
    with pytest.raises(ImportProblem, match=r"would become 8\.0 MiB"):
        unpacked(path)


def test_a_bomb_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    path = Path(archive(tmp_path / "bomb.zip", {"zeros": bytes(8 << 20)}))
    size, small = (8 << 20).to_bytes(4, "little"), (9).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, small))
    with pytest.raises(ImportProblem, match="damaged"):
        unpacked(str(path))
    assert [found.name for found in tmp_path.iterdir()] == ["bomb.zip"]


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "FILES", 10)
    path = archive(tmp_path / "many.zip", {str(number): b"" for number in range(11)})
    with pytest.raises(ImportProblem, match="too many files"):
        unpacked(path)


def test_a_list_of_files_that_is_too_long_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path / "many.zip", {str(number): b"" for number in range(11)})
    monkeypatch.setattr(unpacking, "INDEX_SIZE", 400)
    with pytest.raises(ImportProblem, match="too many files"):
        unpacked(path)


def test_an_archive_with_a_password_says_so(tmp_path: Path) -> None:
    path = Path(archive(tmp_path / "a.zip", {"x": b"1"}))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ImportProblem, match="password"):
        unpacked(str(path))


def test_a_disk_that_is_full_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ImportProblem, match="Not enough space"):
        unpacked(archive(tmp_path / "a.zip", {"x": bytes(11)}))


def test_stopping_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    steps = unpack(archive(tmp_path / "a.zip", {"x": os.urandom(100), "y": b"1"}))
    assert next(steps) == ""
    steps.close()
    assert [found.name for found in tmp_path.iterdir()] == ["a.zip"]


@given(st.data())
def test_a_damaged_archive_is_a_sentence_and_leaves_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("archive")
    path = Path(archive(folder / "a.zip", {"x": b"12345" * 20, "b/y": b"abc"}))
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    try:
        unpacked(str(path))
    except ImportProblem:
        assert [found.name for found in folder.iterdir()] == ["a.zip"]
    assert {found.parent.parent for found in folder.rglob("*") if found.is_file()} <= {
        folder.parent, folder, folder / "a"
    }  # fmt: skip


@given(
    st.lists(st.text("aß./\\:*\x00\u202e -", min_size=1, max_size=12), min_size=1, max_size=3, unique=True)
)
def test_any_name_stays_inside(tmp_path_factory: pytest.TempPathFactory, found: list[str]) -> None:
    folder = tmp_path_factory.mktemp("archive")
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name in found:
            file.writestr(zipfile.ZipInfo(name), b"1")
    (folder / "a.zip").write_bytes(data.getvalue())
    try:
        inside = unpacked(str(folder / "a.zip"))
    except ImportProblem:
        return
    assert {path.name for path in folder.iterdir()} == {"a", "a.zip"}
    assert all(is_safe(path.name) for path in inside.rglob("*"))
