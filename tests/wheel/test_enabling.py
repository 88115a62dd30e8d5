"""Enabling and disabling, half way and by others: nothing raises, nothing stays."""

from __future__ import annotations

import ast
import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import addon_utils
import bpy
import pytest
from server import Server, pattern
from traces import Traces

if TYPE_CHECKING:
    from conftest import Extension

BODY = pattern(10_000)


def check_works(folder: Path) -> None:
    """A file is downloaded, and its row is there."""
    options = {"directory": str(folder), "if_exists": "OVERWRITE"}
    with Server() as server:
        url = server.add("/a.bin", body=BODY)
        assert bpy.ops.downloads.start(urls=url, **options) == {"FINISHED"}
    assert (folder / "a.bin").read_bytes() == BODY
    assert bpy.context.window_manager.downloads.items[-1].status == "FINISHED"


def check_nothing_left(extension: Extension) -> None:
    assert Traces.now().more_than(extension.before) == []
    assert not hasattr(bpy.types.WindowManager, "downloads")


def _raise(error: Exception) -> None:
    raise error


class Copy:
    """The extension in a second repository."""

    def __init__(self, extension: Extension) -> None:
        repositories = bpy.context.preferences.extensions.repos
        self._repository = repositories.new(name="Second", module="second")
        self.package = "bl_ext.second.background_downloads"
        shutil.copytree(extension.folder, Path(self._repository.directory, "background_downloads"))
        addon_utils.modules_refresh()

    def enable(self) -> None:
        addon_utils.enable(self.package, default_set=True, handle_error=_raise)

    def disable(self) -> None:
        addon_utils.disable(self.package, default_set=True, handle_error=_raise)

    def remove(self) -> None:
        if self.package in bpy.context.preferences.addons:
            self.disable()
        shutil.rmtree(self._repository.directory)
        bpy.context.preferences.extensions.repos.remove(self._repository)
        for name in [name for name in sys.modules if name.startswith(self.package)]:
            del sys.modules[name]


@pytest.fixture
def copy(extension: Extension) -> Iterator[Copy]:
    copy = Copy(extension)
    yield copy
    copy.remove()


def test_enabled_from_two_repositories_the_last_one_works_and_then_the_other(
    extension: Extension, copy: Copy, tmp_path: Path
) -> None:
    copy.enable()
    check_works(tmp_path)
    assert bpy.types.DOWNLOADS_OT_cancel.__module__.startswith(copy.package)
    copy.disable()
    check_works(tmp_path)
    assert bpy.types.DOWNLOADS_OT_cancel.__module__.startswith(extension.package)
    extension.disable()
    check_nothing_left(extension)


def test_enabled_from_a_second_repository_the_first_lets_go_of_its_list(
    extension: Extension, copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blender withholds its data from scripts while it enables an add-on; as a module it does not."""
    check_works(tmp_path)
    session = importlib.import_module(f"{extension.package}.session")
    with monkeypatch.context() as restricted:
        restricted.setattr(bpy, "data", object())
        copy.enable()
    assert session.peek() is None
    assert not bpy.context.window_manager.downloads.items


@pytest.mark.parametrize("first", ["older", "newer"])
def test_enabled_from_two_repositories_one_disabled_and_the_other_disabled_and_enabled_again(
    extension: Extension, copy: Copy, tmp_path: Path, first: str
) -> None:
    copy.enable()
    one, other = (extension, copy) if first == "older" else (copy, extension)
    one.disable()
    check_works(tmp_path)
    other.disable()
    check_nothing_left(extension)
    other.enable()
    check_works(tmp_path)
    other.disable()
    check_nothing_left(extension)


def test_no_row_has_the_number_of_one_from_before_the_addon_was_disabled(
    extension: Extension, tmp_path: Path
) -> None:
    """A script may know that yet."""
    uids = []
    for _ in range(2):
        check_works(tmp_path)
        uids.append(bpy.context.window_manager.downloads.items[-1].uid)
        extension.disable()
        extension.enable()
    assert uids[0] < uids[1]


ROOMS = ("operators", "session.state", "ui")


@pytest.mark.parametrize("room", ROOMS)
def test_what_fails_half_way_while_enabling_leaves_nothing(
    extension: Extension, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: str
) -> None:
    extension.disable()
    module = importlib.import_module(f"{extension.package}.{room}")
    register = module.register

    def fail(enabled: Any) -> None:
        register(enabled)
        raise RuntimeError("half way")

    with monkeypatch.context() as patch:
        patch.setattr(module, "register", fail)
        with pytest.raises(RuntimeError, match="half way"):
            sys.modules[extension.package].register()
    check_nothing_left(extension)
    extension.enable()
    check_works(tmp_path)


def module(extension: Extension) -> ModuleType:
    return sys.modules[extension.package]


def take_property(extension: Extension) -> None:
    del bpy.types.WindowManager.downloads


def take_classes(extension: Extension) -> None:
    for name in ("DOWNLOADS_PT_panel", "DOWNLOADS_OT_start", "DOWNLOADS_OT_clear"):
        bpy.utils.unregister_class(getattr(bpy.types, name))


def take_handlers(extension: Extension) -> None:
    for handlers in (bpy.app.handlers.load_pre, bpy.app.handlers.load_post):
        for function in [each for each in handlers if each.__module__.startswith(extension.package)]:
            handlers.remove(function)


def disable_by_hand(extension: Extension) -> None:
    module(extension).unregister()


@pytest.mark.parametrize("take", [take_property, take_classes, take_handlers, disable_by_hand])
def test_what_somebody_else_took_back_is_not_missed_when_disabling(
    extension: Extension, tmp_path: Path, take: Any
) -> None:
    take(extension)
    extension.disable()
    check_nothing_left(extension)
    extension.enable()
    check_works(tmp_path)


# What enabling may import of the extension; the rest comes with the first download, or a look at the list.
LIGHT = """
import sys
import bpy, addon_utils
package = "bl_ext.user_default.background_downloads"
bpy.ops.extensions.package_install_files(repo="user_default", filepath=sys.argv[1], enable_on_install=False)
before = set(sys.modules)
addon_utils.enable(package, default_set=True)
assert bpy.ops.downloads.start.get_rna_type()
print("OURS", sorted(name.removeprefix(package) for name in sys.modules if name.startswith(package)))
print("OTHERS", sorted({name.partition(".")[0] for name in set(sys.modules) - before} - {"bl_ext"}))
"""
OURS = ["", ".operators", ".session", ".session.enabling", ".session.modal", ".session.state", ".ui"]
HEAVY = {"asyncio", "email", "http", "json", "logging", "multiprocessing", "requests", "socket", "ssl"}
HEAVY |= {"subprocess", "tomllib", "traceback", "urllib", "urllib3"}


def test_an_operator_that_outlives_its_add_on_does_not_trouble_other_copies(extension: Extension) -> None:
    """Its class goes at its window's next event; another copy's run that steps aside then asks it, too."""
    operator = bpy.types.DOWNLOADS_OT_start
    extension.disable()
    operator.step_aside()
    assert not operator.is_stepping_aside()


NOTHING_LEFT = """
import sys
import bpy, addon_utils
package = "bl_ext.user_default.background_downloads"
bpy.ops.extensions.package_install_files(repo="user_default", filepath=sys.argv[1], enable_on_install=False)
addon_utils.enable(package, default_set=True)
before = set(sys.modules)
extension = sys.modules[package]
assert extension.adopting.is_anything_left()  # nobody has looked into the usual folder yet
ours = extension.adopting.user_folder()
(ours / "folders.json").touch()
(ours / "queue-1.unreadable").touch()
assert not extension.adopting.is_anything_left()
print("OURS", sorted(name.removeprefix(package) for name in set(sys.modules) - before))
for name in ("queue-1.json", "queue-1.lock", "tokens.json"):
    (ours / name).touch()
    assert extension.adopting.is_anything_left()
    (ours / name).unlink()
"""


def test_a_look_at_what_is_left_imports_next_to_nothing(
    zip_file: Path, fresh_blender: Callable[..., str]
) -> None:
    said = fresh_blender(NOTHING_LEFT, zip_file)
    (found,) = [line.partition(" ")[2] for line in said.splitlines() if line.startswith("OURS")]
    session = [".session.adopting", ".session.home"]
    assert ast.literal_eval(found) == [".hosts", ".hosts.origin", *session, ".transfer", ".transfer.portable"]


DOWNLOADED = """
import sys
import bpy, addon_utils
package = "bl_ext.user_default.background_downloads"
bpy.context.preferences.system.use_online_access = True
bpy.ops.extensions.package_install_files(repo="user_default", filepath=sys.argv[1], enable_on_install=True)
bpy.ops.downloads.start(urls=sys.argv[2], directory=sys.argv[3])
assert bpy.context.window_manager.downloads.items[0].status == "FINISHED"
print("OURS", sorted(name.removeprefix(package) for name in sys.modules if name.startswith(package)))
"""


def test_what_imports_files_is_not_read_before_one_is_to_be_imported(
    zip_file: Path, server: Server, tmp_path: Path, fresh_blender: Callable[..., str]
) -> None:
    """A window would wait for that beside what downloads: 20 ms of a processor, the first time."""
    said = fresh_blender(DOWNLOADED, zip_file, server.add("/a.blend", body=b"BLENDER-v402"), tmp_path)
    (found,) = [line.partition(" ")[2] for line in said.splitlines() if line.startswith("OURS")]
    names = ("blendfile", "damage", "importers", "importing", "unpacking")
    assert ".session.session" in found
    assert not {".session." + name for name in names} & set(ast.literal_eval(found))


def test_enabling_imports_next_to_nothing(zip_file: Path, fresh_blender: Callable[..., str]) -> None:
    said = fresh_blender(LIGHT, zip_file)
    lines = [line.partition(" ") for line in said.splitlines()]
    found = {word: ast.literal_eval(rest) for word, _, rest in lines if word in ("OURS", "OTHERS")}
    assert found["OURS"] == OURS
    assert HEAVY & set(found["OTHERS"]) == set()
