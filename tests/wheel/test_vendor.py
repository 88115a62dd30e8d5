"""`make vendor`: the engine in somebody else's add-on, beside the extension, where Blender is a module."""

from __future__ import annotations

import hashlib
import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
import pytest
from leaks import LeakCheck
from server import Server, pattern
from vendoring import EXAMPLE, ROOT, TOOL, example, vendor

# isort: split
import addon_utils

if TYPE_CHECKING:
    from conftest import Extension

DATA = pattern(200_000)
THEIRS = f"bl_ext.user_default.{EXAMPLE.name}"


# The tool.


def test_the_example_is_short() -> None:
    assert len((EXAMPLE / "__init__.py").read_text().splitlines()) <= 60


def test_a_copy_says_what_it_is_and_can_be_checked(tmp_path: Path) -> None:
    copy = example(tmp_path) / "downloads"
    first = (copy / "__init__.py").read_text().splitlines()[0]
    assert "Background Downloads 0." in first
    assert "commit" in first
    assert (copy / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=copy, check=True)


def test_the_same_command_updates_it_and_touches_nothing_else(tmp_path: Path) -> None:
    copy = example(tmp_path) / "downloads"
    (copy / "old").mkdir()
    (copy / "old" / "room.py").write_text("gone = True\n")
    sums = copy / "SHA256SUMS"
    digest = hashlib.sha256(b"gone = True\n").hexdigest()
    sums.write_text(sums.read_text() + f"{digest}  old/room.py\n{digest}  ../mine.py\n{digest}  /tmp/x\n")
    (copy / "notes.txt").write_text("of the author")
    (copy.parent / "mine.py").write_text("of the author")
    (copy / "workers.py").write_text("changed here\n")
    done = vendor(EXAMPLE.name, copy.parents[1])
    assert done.returncode == 0, done.stderr
    assert "workers.py: it was changed there" in done.stdout
    assert not (copy / "old").exists()
    assert (copy / "notes.txt").read_text() == (copy.parent / "mine.py").read_text() == "of the author"
    assert (copy / "workers.py").read_bytes() == (ROOT / "workers.py").read_bytes()


def test_a_folder_of_the_authors_own_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "my_addon" / "downloads"
    mine.mkdir(parents=True)
    (mine / "__init__.py").write_text("mine = True\n")
    done = vendor("my_addon", tmp_path)
    assert done.returncode != 0
    assert "move it away" in done.stderr
    assert [path.name for path in mine.iterdir()] == ["__init__.py"]


def test_a_file_of_the_authors_own_is_not_replaced_by_a_new_one_of_ours(tmp_path: Path) -> None:
    copy = example(tmp_path) / "downloads"
    sums = copy / "SHA256SUMS"
    sums.write_text(re.sub(r".*transfer/job\.py\n", "", sums.read_text()))
    (copy / "transfer" / "job.py").write_text("mine = True\n")
    (copy / "workers.py").write_text("changed here\n")
    done = vendor(EXAMPLE.name, copy.parents[1])
    assert done.returncode != 0
    assert "job.py is yours" in done.stderr
    assert (copy / "transfer" / "job.py").read_text() == "mine = True\n"
    assert (copy / "workers.py").read_text() == "changed here\n"


def test_a_first_copy_that_was_interrupted_is_completed_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(TOOL.parent))
    tool = importlib.import_module("vendor")
    target = tmp_path / "my_addon" / "downloads"
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == "job.py":  # others are there by then
            raise OSError("No space left on device")
        return write(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            tool.vendor(target)
    tool.vendor(target)
    assert (target / "transfer" / "job.py").read_bytes() == (ROOT / "transfer" / "job.py").read_bytes()


def test_what_lies_behind_a_linked_folder_is_not_removed(tmp_path: Path) -> None:
    copy = example(tmp_path) / "downloads"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "room.py").write_text("mine = True\n")
    (copy / "old").symlink_to(tmp_path / "elsewhere")
    sums = copy / "SHA256SUMS"
    sums.write_text(sums.read_text() + f"{'0' * 64}  old/room.py\n")
    assert vendor(EXAMPLE.name, copy.parents[1]).returncode == 0
    assert (tmp_path / "elsewhere" / "room.py").exists()


@pytest.mark.parametrize("name", ["", "my-addon", "über", "a/b", "class"])
def test_a_name_that_no_package_can_have_is_refused(tmp_path: Path, name: str) -> None:
    assert "make vendor NAME=" in vendor(name, tmp_path).stderr
    assert list(tmp_path.iterdir()) == []


def test_into_an_add_on_of_another_name_the_copy_goes_by_the_name_that_is_given(tmp_path: Path) -> None:
    addon = tmp_path / "my_addon"
    addon.mkdir()
    (addon / "__init__.py").touch()
    assert vendor("fetcher", addon).returncode == 0
    assert (addon / "fetcher" / "session" / "fetching.py").exists()
    assert vendor("my_addon", addon).returncode == 0
    assert (addon / "downloads" / "session" / "fetching.py").exists()


# In Blender.


@pytest.fixture(scope="session")
def example_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built and validated by Blender's own tool."""
    from blenders import Blender, use

    blender = Blender(name="this Python's", module=Path(sys.executable))
    folder = tmp_path_factory.mktemp("example")
    use(blender.extension_tool("build", "--source-dir", example(folder), "--output-dir", folder))
    (built,) = folder.glob("*.zip")
    use(blender.extension_tool("validate", built))
    return built


@pytest.fixture
def theirs(example_zip: Path) -> Iterator[Any]:
    """The example, installed and enabled as an extension."""
    bpy.context.preferences.system.use_online_access = True
    bpy.ops.extensions.package_install_files(
        repo="user_default", filepath=str(example_zip), enable_on_install=True
    )
    yield sys.modules[THEIRS]
    if THEIRS in bpy.context.preferences.addons:
        addon_utils.disable(THEIRS, default_set=True)


@pytest.fixture
def asset(theirs: Any, server: Server, tmp_path: Path) -> str:
    """A .blend file on the server, that the example fetches."""
    path = tmp_path / "rock.blend"
    bpy.data.libraries.write(str(path), {bpy.data.objects.new("Rock", None)})
    data = path.read_bytes()
    theirs.URL = server.add("/rock.blend", body=data) + f"#sha256={hashlib.sha256(data).hexdigest()}"
    return "Rock"


def linked(name: str) -> bool:
    return any(each.library and each.name == name for each in bpy.context.scene.collection.objects)


def test_the_example_fetches_and_links_beside_the_extension(
    extension: Extension, theirs: Any, asset: str, server: Server, tmp_path: Path
) -> None:
    with LeakCheck():
        assert bpy.ops.asset_fetcher.fetch() == {"FINISHED"}
        assert bpy.ops.downloads.start(
            urls=server.add("/a.bin", body=DATA), directory=str(tmp_path)
        ) == {"FINISHED"}
    (result,) = theirs.fetching.results
    assert (result.status in ("FINISHED", "SKIPPED"), result.error) == (True, "")
    assert linked(asset)
    assert (tmp_path / "a.bin").read_bytes() == DATA


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_disabling_one_leaves_the_other_working(
    extension: Extension, theirs: Any, asset: str, server: Server, tmp_path: Path, first: str
) -> None:
    url = server.add("/a.bin", body=DATA)
    if first == "ours":
        extension.disable()
        assert theirs.downloads.fetch(url, tmp_path).results[0].status == "FINISHED"
        extension.enable()
    else:
        addon_utils.disable(THEIRS, default_set=True)
        with pytest.raises(RuntimeError, match="not enabled"):
            theirs.downloads.fetch(url, tmp_path)
    assert bpy.ops.downloads.start(urls=url, directory=str(tmp_path)) == {"FINISHED"}


def test_the_button_of_the_example_can_be_pressed_again(
    theirs: Any, asset: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        bpy.ops.asset_fetcher.fetch()
        assert theirs.fetching.is_done
        assert linked(asset)
    assert [record for record in caplog.records if record.exc_info] == []


def test_a_fetch_that_the_add_ons_end_cuts_off_is_done_and_calls_nobody(
    theirs: Any, server: Server, tmp_path: Path
) -> None:
    """No run begins where there is no window: its rows wait."""
    fetching = importlib.import_module(f"{THEIRS}.downloads.session.fetching")
    queue = importlib.import_module(f"{THEIRS}.downloads.session").current()
    calls: list[Any] = []
    url = server.url("/a.bin")
    handle = fetching.Handle(queue, entries=[(url, url, "")], done=calls.append, progress=calls.append)
    names = importlib.import_module(f"{THEIRS}.downloads.transfer.names")
    handle.begin([names.Link(url)], wait=False, directory=str(tmp_path))
    assert (handle.is_done, handle.results[0].status) == (False, "QUEUED")
    addon_utils.disable(THEIRS, default_set=True)
    assert (handle.is_done, handle.results[0].status) == (True, "CANCELLED")
    assert calls == []
    handle.cancel()  # nothing any more


@pytest.fixture
def scripts() -> Iterator[Path]:
    """The folder of the add-ons of the old kind."""
    folder = Path(bpy.utils.user_resource("SCRIPTS", path="addons", create=True))
    sys.path.append(str(folder))
    yield folder
    sys.path.remove(str(folder))
    shutil.rmtree(folder)


LONG = "an_add_on_with_a_name_of_sixty_characters_and_then_some_more"


@pytest.mark.parametrize(
    "names",
    [
        ["my-addon-main", "my_addon_main"],
        ["My Addon"],
        ["\u00e9t\u00e9"],
        ["__hidden"],
        ["3d"],
        [LONG, f"x{LONG}"],
    ],
    ids=lambda names: names[0],
)
def test_whatever_an_add_on_is_called_its_copy_has_an_operator_of_its_own(
    scripts: Path, server: Server, tmp_path: Path, names: list[str]
) -> None:
    url = server.add("/a.bin", body=DATA)
    made = example(tmp_path)
    operators = set()
    for name in names:
        shutil.copytree(made / "downloads", scripts / name / "downloads")
        (scripts / name / "__init__.py").write_text(
            "bl_info = {'name': 'Any', 'blender': (4, 2, 0)}\n"
            "from . import downloads\n"
            "register, unregister = downloads.register, downloads.unregister\n"
        )
        assert addon_utils.enable(name, default_set=True)
    for name in names:
        idname = importlib.import_module(f"{name}.downloads.session.standalone").IDNAME
        operators.add(idname)
        category, operator = idname.split(".")
        assert getattr(getattr(bpy.ops, category), operator).get_rna_type()
        (result,) = sys.modules[name].downloads.fetch(url, tmp_path / name).results
        assert (result.status, result.error) == ("FINISHED", "")
    for name in names:
        addon_utils.disable(name, default_set=True)
    assert len(operators) == len(names)


def test_a_copy_holds_every_module_that_it_needs(theirs: Any) -> None:
    """Each can be imported there, and none but those is imported by name."""
    root = Path(theirs.downloads.__file__).parent
    names = [path.relative_to(root).with_suffix("") for path in root.rglob("*.py")]
    for name in names:
        importlib.import_module(".".join((theirs.downloads.__name__, *name.parts)).removesuffix(".__init__"))


def test_its_threads_and_its_operator_are_called_otherwise(extension: Extension, theirs: Any) -> None:
    ours = importlib.import_module(f"{extension.package}.hosts.origin")
    origin = importlib.import_module(f"{THEIRS}.downloads.hosts.origin")
    assert ours.NAME == "downloads"
    assert re.fullmatch("user_default_asset_fetcher_downloads_[0-9a-f]{8}", origin.NAME)
    standalone = importlib.import_module(f"{THEIRS}.downloads.session.standalone")
    assert hasattr(bpy.types, f"{origin.NAME.upper()}_OT_fetch")
    assert standalone.IDNAME != "downloads.start"


def test_the_lines_of_the_page_for_authors_work_in_an_add_on_of_the_old_kind(
    extension: Extension, scripts: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vendor("old_fetcher", scripts).returncode == 0
    page = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "authors.md").read_text(), re.DOTALL)
    assert page
    code = "bl_info = {'name': 'Old Fetcher', 'blender': (4, 2, 0)}\n" + page[1]
    (scripts / "old_fetcher" / "__init__.py").write_text(code)
    try:
        module = addon_utils.enable("old_fetcher", default_set=True)
        assert module
        (result,) = module.get(server.add("/a.bin", body=DATA)).results
        assert (result.status, Path(result.path).read_bytes()) == ("FINISHED", DATA)
        assert result.path in capsys.readouterr().out
    finally:
        addon_utils.disable("old_fetcher", default_set=True)


def test_what_a_copy_fetches_is_in_no_list_of_the_extensions(
    extension: Extension, theirs: Any, server: Server, tmp_path: Path
) -> None:
    before = len(bpy.context.window_manager.downloads.items)
    theirs.downloads.fetch(server.add("/a.bin", body=DATA), tmp_path)
    assert len(bpy.context.window_manager.downloads.items) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
