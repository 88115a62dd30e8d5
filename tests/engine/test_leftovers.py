"""Partial files that lie in a folder, which may come from anybody: found, let alone, deleted, moved."""

from __future__ import annotations

import errno
import json
import os
import unicodedata
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from driving import leave_part, names, opened
from server import pattern

from background_downloads.transfer import part as part_module
from background_downloads.transfer import portable
from background_downloads.transfer.job import Digest

URL = "http://me:s3cret@files.example/a.bin?token=t0ken"
PLAIN_URL = "https://files.example/a.bin"


def test_a_leftover_tells_all_that_its_sidecar_knows(tmp_path: Path) -> None:
    digest = Digest("sha1", "0" * 40)
    name = leave_part(tmp_path, digest=digest)
    assert part_module.leftovers(str(tmp_path)) == [
        part_module.Leftover(name, PLAIN_URL, False, digest, 1000, 5000)
    ]


def test_a_leftover_says_that_its_link_was_cut(tmp_path: Path) -> None:
    leave_part(tmp_path, URL)
    (left,) = part_module.leftovers(str(tmp_path))
    assert (left.url, left.is_cut) == ("http://files.example/a.bin", True)


HOSTILE: dict[str, Callable[[Path], object]] = {
    "no part": lambda path: path.unlink(),
    "an empty part": lambda path: path.write_bytes(b""),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a link": lambda path: (path.rename(path.with_name("x")), path.symlink_to(path.with_name("x"))),
    "a pipe for a sidecar": lambda path: (_sidecar(path).unlink(), os.mkfifo(_sidecar(path))),
    "a folder for a sidecar": lambda path: (_sidecar(path).unlink(), _sidecar(path).mkdir()),
    "another name": lambda path: (path.rename("x.part"), _sidecar(path).rename("x.part.json")),
    "another version": lambda path: _change(path, version=2),
    "no link": lambda path: _change(path, url=None),
    "a link with secrets": lambda path: _change(path, url=URL),
    "a file's link": lambda path: _change(path, url="file:///etc/passwd"),
    "a word for the cut": lambda path: _change(path, cut="no"),
    "a short digest": lambda path: _change(path, digest=["md5", "0"]),
    "a number for a digest": lambda path: _change(path, digest=5),
}


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _change(path: Path, **values: object) -> None:
    about = json.loads(_sidecar(path).read_text()) | values
    _sidecar(path).write_text(json.dumps(about))


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_does_not_hold_is_no_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    HOSTILE[kind](tmp_path / leave_part(tmp_path))
    assert part_module.leftovers(str(tmp_path)) == []


def test_a_leftover_that_is_open_is_not_free_and_not_discarded(tmp_path: Path) -> None:
    name = leave_part(tmp_path)
    part = opened(PLAIN_URL, str(tmp_path), None)
    assert not part_module.is_free(str(tmp_path), name)
    part_module.discard_leftover(str(tmp_path), name)
    assert part.file.is_in_place()
    part.close()
    assert part_module.is_free(str(tmp_path), name)
    part_module.discard_leftover(str(tmp_path), name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["scene.blend", "../a.bin.0123abcd.part", "missing.bin.0123abcd.part"])
def test_only_a_partial_file_in_the_folder_is_discarded(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in (folder / "scene.blend", tmp_path / "a.bin.0123abcd.part"):
        path.write_text("kept")
    part_module.discard_leftover(str(folder), name)
    assert len([*folder.iterdir(), *tmp_path.glob("*.part")]) == 2


def test_leftovers_are_told_in_the_order_of_their_names_and_so_many_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = sorted(leave_part(tmp_path, f"http://files.example/{name}.bin") for name in "cab")
    assert [left.name for left in part_module.leftovers(str(tmp_path))] == found
    monkeypatch.setattr(part_module, "LEFTOVERS", 2)
    assert [left.name for left in part_module.leftovers(str(tmp_path))] == found[:2]
    monkeypatch.setattr(part_module, "LOOKED_AT", 0)
    assert part_module.leftovers(str(tmp_path)) == []


def test_names_that_macos_tells_otherwise_are_what_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, scandir = leave_part(tmp_path, "https://files.example/%C3%BCber.bin"), os.scandir

    assert "ü" in name

    def apart(path: str) -> Any:
        """As on a stick or a share: an ü comes as u and two dots."""
        told = [SimpleNamespace(name=unicodedata.normalize("NFD", entry.name)) for entry in scandir(path)]
        return nullcontext(told)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", apart)
        assert [left.name for left in part_module.leftovers(str(tmp_path))] == [name]


def test_what_is_not_there_is_not_free(tmp_path: Path) -> None:
    assert not part_module.is_free(str(tmp_path), "a.bin.0123abcd.part")


def test_a_leftover_that_is_moved_is_gone_on_with_where_it_is_then(tmp_path: Path) -> None:
    here, there = _two_folders(tmp_path)
    name = leave_part(here)
    before = part_module.leftover(str(here), name)
    assert part_module.move_leftover(str(here), str(there), name)
    assert names(here) == []
    assert part_module.leftover(str(there), name) == before
    assert (there / name).read_bytes() == pattern(1000)


def _two_folders(folder: Path) -> tuple[Path, Path]:
    here, there = folder / "here", folder / "there"
    here.mkdir()
    there.mkdir()
    return here, there


def test_a_leftover_that_is_open_is_not_moved(tmp_path: Path) -> None:
    here, there = _two_folders(tmp_path)
    name = leave_part(here)
    part = opened(PLAIN_URL, str(here), None)
    assert not part_module.move_leftover(str(here), str(there), name)
    assert part.file.is_in_place()
    part.close()
    assert (names(here), names(there)) == ([name, name + ".json"], [])


def test_another_file_is_not_moved(tmp_path: Path) -> None:
    here, there = _two_folders(tmp_path)
    (here / "scene.blend").write_text("kept")
    (here / "scene.blend.json").write_text("kept")
    assert not part_module.move_leftover(str(here), str(there), "scene.blend")
    assert names(there) == []


def test_a_leftover_is_not_moved_over_another(tmp_path: Path) -> None:
    here, there = _two_folders(tmp_path)
    name = leave_part(here)
    (there / name).write_text("of somebody else")
    assert not part_module.move_leftover(str(here), str(there), name)
    assert (there / name).read_text() == "of somebody else"
    assert part_module.leftover(str(here), name)


@pytest.mark.parametrize("refused", ["", ".json"])
def test_a_leftover_that_cannot_be_moved_whole_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    here, there = _two_folders(tmp_path)
    name = leave_part(here)
    replace = portable.replace

    def replacing(source: str, target: str) -> None:
        if portable.plain(source) == str(here / f"{name}{refused}"):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        replace(source, target)

    monkeypatch.setattr(portable, "replace", replacing)
    assert not part_module.move_leftover(str(here), str(there), name)
    assert names(there) == []
    assert part_module.leftover(str(here), name)
