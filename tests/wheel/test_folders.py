"""Where files go: what a folder's text means, and folders that are no Unicode."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import bpy
import pytest
from server import Server, pattern

if TYPE_CHECKING:
    from conftest import Extension

LATIN_1 = "caf\udce9"  # as `os.fsdecode` gives a name that is not UTF-8
BODY = pattern(100_000)


def start(server: Server, directory: object) -> Any:
    """Download one file; returns its row."""
    url = server.add("/a.bin", body=BODY)
    assert bpy.ops.downloads.start(urls=url, directory=str(directory)) == {"FINISHED"}
    return bpy.context.window_manager.downloads.items[-1]


def test_the_dialogs_empty_folder_says_where_files_go(extension: Extension, tmp_path: Path) -> None:
    start = importlib.import_module(f"{extension.package}.operators").DOWNLOADS_OT_start
    preferences = bpy.context.preferences.addons[extension.package].preferences
    dialog = SimpleNamespace(layout=mock.MagicMock(), directory="")
    preferences.directory = str(tmp_path)
    try:
        start.draw(dialog, SimpleNamespace(region_popup=None))
    finally:
        preferences.directory = ""
    assert mock.call(dialog, "directory", placeholder=str(tmp_path)) in dialog.layout.prop.mock_calls


def settings(extension: Extension) -> Any:
    return importlib.import_module(f"{extension.package}.session.settings")


@pytest.fixture
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Blender's, empty."""
    folder = tmp_path / "working directory"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_folder_that_is_not_utf_8(extension: Extension, server: Server, tmp_path: Path) -> None:
    folder = tmp_path / LATIN_1
    row = start(server, folder)
    assert (row.status, row.name, row.error) == ("FINISHED", "a.bin", "")
    assert row.filepath == str(folder / "a.bin")
    assert Path(row.filepath).read_bytes() == BODY
    assert os.listdir(os.fsencode(folder)) == [b"a.bin"]


def test_a_failure_in_a_folder_that_is_not_utf_8_is_told_readably(
    extension: Extension, server: Server, tmp_path: Path
) -> None:
    file = tmp_path / LATIN_1
    file.write_bytes(b"in the way")
    with pytest.raises(RuntimeError, match="caf\N{REPLACEMENT CHARACTER}” is a file"):
        start(server, file)
    row = bpy.context.window_manager.downloads.items[-1]
    assert row.status == "FAILED"
    assert "caf\N{REPLACEMENT CHARACTER}" in row.error


def test_rows_in_a_folder_that_is_not_utf_8_are_in_the_list_of_the_next_blender(
    extension: Extension, server: Server, tmp_path: Path
) -> None:
    session = importlib.import_module(f"{extension.package}.session").current()
    server.add("/gone.bin", status=404)
    with pytest.raises(RuntimeError, match="404"):
        bpy.ops.downloads.start(urls=server.url("/gone.bin"), directory=str(tmp_path / LATIN_1))
    assert session.open([])
    session.take_in()
    session.store.save()
    extension.disable()
    extension.enable()
    session = importlib.import_module(f"{extension.package}.session").current()
    assert session.open([])
    session.take_in()
    assert str(tmp_path / LATIN_1) in [row.directory for row in session.rows]
    for row in list(session.rows):
        session.remove(row, delete=True)


@pytest.mark.parametrize(
    "text",
    [
        "relative",
        "./relative",
        "../relative",
        "~nobody-has-this-name/relative",
        "file:relative",
        "file://relative",
        "file://elsewhere/relative",
        "'relative'",
        '"C:dl"',
        "C:dl",
        "C:\\dl",
        "\\\\server\\share",
    ],
)
def test_a_folder_that_is_not_absolute_is_a_sentence(
    extension: Extension, server: Server, working_directory: Path, text: str
) -> None:
    with pytest.raises(RuntimeError, match=r"is no whole path. Choose a folder, such as"):
        start(server, text)
    assert list(working_directory.parent.iterdir()) == [working_directory]
    assert list(working_directory.iterdir()) == []
    assert server.requests == []


@pytest.mark.parametrize("text", ["//", "//textures", " '//textures' "])
def test_a_folder_beside_a_file_that_is_not_saved_is_a_sentence(
    extension: Extension, server: Server, working_directory: Path, text: str
) -> None:
    bpy.ops.wm.read_homefile(use_empty=True)  # another test may have saved one
    with pytest.raises(RuntimeError, match=r"Save the \.blend file first"):
        start(server, text)
    assert list(working_directory.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "  {}/ ",
        '"{}"',
        "' {} '",
        "“{}”",
        "‘{}’",  # noqa: RUF001
        "„{}“",
        "«{}»",
        "`{}`",
        "<{}>",
        "'\"{}\"'",
        "\u202a{}\u202c",
        "\ufeff“{}”\u200b\u00a0",
        "{}/x/..",
        "file:///{}",
        "file:////{}",
        "file://{}",
        "FILE://localhost{}",
        "file:{}",
        '"file://{}/"',
    ],
)
def test_a_folder_is_understood_as_people_write_it(extension: Extension, tmp_path: Path, text: str) -> None:
    folder = tmp_path / "a folder"
    written = str(folder).replace(" ", "%20") if "file:" in text.lower() else str(folder)
    assert settings(extension).folder(text.format(written)) == str(folder)


@pytest.mark.skipif(sys.platform != "win32", reason="only Windows has such paths")
@pytest.mark.parametrize("text", ["\\\\?\\{}", "\\\\?\\{}\\x\\..", '"\\\\?\\{}"'])
def test_a_path_in_windows_long_form_is_the_plain_one(
    extension: Extension, tmp_path: Path, text: str
) -> None:
    assert settings(extension).folder(text.format(tmp_path)) == str(tmp_path)


def test_escapes_in_a_file_link_may_be_no_utf_8_and_those_in_a_path_are_its_own(
    extension: Extension, tmp_path: Path
) -> None:
    folder = settings(extension).folder
    assert folder(f"file://{tmp_path}/caf%E9") == str(tmp_path / LATIN_1)
    assert folder(f"{tmp_path}/100%25") == f"{tmp_path}/100%25"


def test_home_may_be_no_utf_8(extension: Extension, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / LATIN_1))
    assert settings(extension).folder("~/dl") == str(tmp_path / LATIN_1 / "dl")


@pytest.mark.parametrize("text", ["", "  ", '""', "' '"])
def test_no_folder_means_the_one_of_the_preferences_or_the_systems_own(
    extension: Extension, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("XDG_DOWNLOAD_DIR", str(tmp_path / "Téléchargements"))
    folder, preferences = settings(extension).folder, settings(extension).preferences()
    assert folder(text) == str(tmp_path / "Téléchargements")
    preferences.directory = f" '{tmp_path / LATIN_1}' "
    assert folder(text) == str(tmp_path / LATIN_1)
    preferences.directory = "relative"
    with pytest.raises(importlib.import_module(f"{extension.package}.transfer.job").TransferError):
        folder(text)
    preferences.directory = text
    assert folder(text) == str(tmp_path / "Téléchargements")


def test_a_folder_beside_the_blend_file(extension: Extension, tmp_path: Path) -> None:
    folder = tmp_path / LATIN_1
    folder.mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "scene.blend"))
    try:
        assert settings(extension).folder("//textures") == str(folder / "textures")
        assert settings(extension).folder("//") == str(folder)
    finally:
        bpy.ops.wm.read_homefile(use_empty=True)


NO_USER_FOLDER = """
import os, sys
from pathlib import Path
import bpy, addon_utils
os.dup2(1, 2)
zip_file, url, folder = sys.argv[1:]
bpy.context.preferences.system.use_online_access = True
bpy.ops.extensions.package_install_files(repo="user_default", filepath=zip_file, enable_on_install=True)
extensions = Path(os.environ["BLENDER_USER_RESOURCES"], "extensions")
for path in extensions.glob(".user"):
    path.rename(path.with_name("moved"))
(extensions / ".user").write_text("in the way")
os.makedirs(folder + "/working")
os.chdir(folder + "/working")
before = sorted(extensions.rglob("*"))
package = "bl_ext.user_default.background_downloads"
for if_exists in ("RENAME", "UPDATE", "UPDATE"):
    bpy.ops.downloads.start(urls=url, directory=folder + "/files", if_exists=if_exists)
session = sys.modules[package + ".session"].current()
for _ in range(3):  # as a window's timers do
    print("OPEN", session.open([]))
    session.store.flush(1e9, None)
addon_utils.disable(package)
print("FILES", sorted(path.name for path in Path(folder).rglob("*") if path.is_file()))
left = [path for path in sorted(extensions.rglob("*")) if path not in before and path.suffix != ".pyc"]
print("LEFT", left)
"""


def test_blender_cannot_make_the_extensions_user_folder(
    zip_file: Path, server: Server, tmp_path: Path, fresh_blender: Callable[..., str]
) -> None:
    """Downloads work, nothing is kept in any other place, and that is said once."""
    url = server.add("/a.bin", body=BODY)
    said = fresh_blender(NO_USER_FOLDER, zip_file, url, tmp_path / "all")
    assert "FILES ['a.bin']" in said
    assert said.count("cannot be kept on the disk") == 1
    assert "Traceback" not in said
    assert said.count("OPEN False") == 3
    assert "LEFT []" in said
