"""`fetch` from another add-on's copy of the engine, in a window, beside the extension."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from blender import Blender, BlenderFactory, build_extension
from conftest import CLEAN, Lent, has_failed
from downloading import Downloads, wait_open
from roots import Installation
from server import Gate, Server, stall_after
from test_lifecycle import HELD, LOADS, SIZE, body
from vendoring import example

MODULE = "bl_ext.user_default.asset_fetcher"
INSIDE = f"""
import importlib, os, sys, threading

def theirs(name=""):
    return importlib.import_module("{MODULE}.downloads" + name)

calls, handles = [], []

def done(handle):
    on_main = threading.current_thread() is threading.main_thread()
    calls.append([on_main, bpy.context.window is not None, [result.status for result in handle.results]])

def fetch(urls, folder, **options):
    handles.append(theirs().fetch(urls, folder, **{{"done": done}} | options))

def last():
    return [[result.status, result.error, result.verified] for result in handles[-1].results]

def their_threads():
    return [thread.name for thread in threading.enumerate() if "asset_fetcher" in thread.name]

def their_state():
    queue = theirs(".session").peek()
    return [their_threads(), queue is not None and queue.run is not None]

def their_operators():
    windows = bpy.data.window_managers[0].windows
    names = [o.bl_idname for w in windows for o in w.modal_operators if o]
    return [name for name in names if "ASSET_FETCHER" in name]
"""
UNIQUE = hashlib.sha256(f"{MODULE}.downloads".encode()).hexdigest()[:8].upper()
OPERATOR = f"USER_DEFAULT_ASSET_FETCHER_DOWNLOADS_{UNIQUE}_OT_fetch"


@pytest.fixture(scope="module")
def example_zip(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built and validated by this Blender."""
    folder = tmp_path_factory.mktemp("example")
    return build_extension(installation, example(folder), folder / "zip")


@pytest.fixture
def both(
    request: pytest.FixtureRequest,
    lent: Lent,
    installation: Installation,
    start_blender: BlenderFactory,
    example_zip: Path,
) -> Iterator[Blender]:
    """A Blender with the extension and, beside it, an add-on that has a copy of the engine."""

    def start() -> Blender:
        b = start_blender(online=True)
        b.install(example_zip)
        return b

    with lent.lend(request, (installation.label, "with a copy"), start) as b:
        b.reset()
        b.run(CLEAN)
        b.run(INSIDE)
        yield b
        if b.alive and not has_failed(request):
            wait_over(b)
            b.steps("clean_downloads()")


@pytest.fixture
def ours(both: Blender, tmp_path: Path) -> Downloads:
    return Downloads(both, tmp_path / "ours", "threads")


def wait_over(b: Blender) -> None:
    """Until no thread, no run and no operator of the copy is left."""
    b.wait("their_state() == [[], False] and their_operators() == []")


def hold(server: Server, name: str) -> tuple[str, object]:
    gate = server.gate()
    return server.add(f"/{name}", stall_after(HELD, gate), body=body(name)), gate


def test_it_returns_at_once_and_calls_back_on_the_main_thread_in_a_window(
    both: Blender, server: Server, tmp_path: Path
) -> None:
    digest = hashlib.sha256(body("a.bin")).hexdigest()
    url, gate = hold(server, "a.bin")
    both.run(f"fetch([{url!r} + '#sha256={digest}', {server.url('/none.bin')!r}], {str(tmp_path)!r})")
    gate.wait_reached()
    assert both.eval("[handles[-1].is_done, calls]") == [False, []]
    assert both.eval("their_operators()") == [OPERATOR]
    gate.open()
    both.wait("calls")
    assert both.eval("calls") == [[True, True, ["FINISHED", "FAILED"]]]
    (finished, failed) = both.eval("last()")
    assert finished == ["FINISHED", "", "sha256"]
    assert "404" in failed[1]
    assert (tmp_path / "a.bin").read_bytes() == body("a.bin")


def test_cancel_by_the_handle_ends_it_and_is_told(both: Blender, server: Server, tmp_path: Path) -> None:
    url, gate = hold(server, "a.bin")
    both.run(f"fetch({url!r}, {str(tmp_path)!r})")
    gate.wait_reached()
    both.wait(f"handles[-1].received == {HELD}")
    both.run("handles[-1].cancel()")
    both.wait("calls")
    assert both.eval("calls[0][2]") == ["CANCELLED"]
    wait_over(both)
    gate.open()
    both.run(f"fetch({url!r}, {str(tmp_path)!r})")  # what was received is used
    both.wait("len(calls) == 2")
    assert (tmp_path / "a.bin").read_bytes() == body("a.bin")
    assert server.requests_for("/a.bin")[-1].headers["Range"].startswith("bytes=")


@pytest.mark.parametrize("load", ["new", "open", "revert"])
def test_a_file_load_interrupts_it_and_it_goes_on_and_tells_once(
    both: Blender, server: Server, tmp_path: Path, load: str
) -> None:
    saved = tmp_path / "scene.blend"
    both.run(f"with in_view3d(): bpy.ops.wm.save_as_mainfile(filepath={str(saved)!r})")
    url, gate = hold(server, "a.bin")
    both.run(f"fetch({url!r}, {str(tmp_path)!r})")
    gate.wait_reached()
    both.wait(f"handles[-1].received == {HELD}")
    both.run(f"saved = {str(saved)!r}")
    both.run(f"with in_view3d(): {LOADS[load]}")
    both.wait(f"their_operators() == [{OPERATOR!r}]")
    gate.open()
    both.wait("calls")
    assert both.eval("[call[2] for call in calls]") == [["FINISHED"]]
    assert (tmp_path / "a.bin").read_bytes() == body("a.bin")


def test_a_callback_may_open_a_file_and_fetch_again(both: Blender, server: Server, tmp_path: Path) -> None:
    first, second = (server.add(f"/{name}", body=body(name)) for name in ("a.bin", "b.bin"))
    both.run(f"""
def again(handle):
    bpy.ops.wm.read_homefile()
    fetch({second!r}, {str(tmp_path)!r})
    raise ZeroDivisionError
fetch({first!r}, {str(tmp_path)!r}, done=again)
""")
    both.wait("calls")
    assert both.eval("calls") == [[True, True, ["FINISHED"]]]
    assert both.console.count("ZeroDivisionError") == 1
    assert sorted(path.name for path in tmp_path.glob("*.bin")) == ["a.bin", "b.bin"]


def test_both_download_beside_each_other_and_share_no_partial_file(
    both: Blender, ours: Downloads, server: Server
) -> None:
    """The same link into the same folder is the first one's; the other says so, and both go on."""
    same, gate = hold(server, "same.bin")
    ours.start(same)
    gate.wait_reached()
    mine = server.add("/mine.bin", body=body("mine.bin"))
    both.run(f"fetch([{same!r}, {mine!r}], {str(ours.folder)!r})")
    both.wait("calls")
    refused, finished = both.eval("last()")
    assert (refused[0], finished[0]) == ("FAILED", "FINISHED")
    assert "is downloading this" in refused[1]
    assert both.eval("workers()")  # of ours: theirs have gone by their own names
    wait_over(both)
    gate.open()
    ours.wait_over("FINISHED")
    assert ours.files() == {name: body(name) for name in ("mine.bin", "same.bin")}


def begun_in_both(both: Blender, ours: Downloads, server: Server, folder: Path) -> tuple[Gate, Gate]:
    """A download by the extension and one by the copy, under way until their gates are opened."""
    (mine, gate), (other, other_gate) = hold(server, "mine.bin"), hold(server, "other.bin")
    ours.start(mine)
    both.run(f"fetch({other!r}, {str(folder)!r})")
    gate.wait_reached()
    other_gate.wait_reached()
    ours.wait_progress(HELD / SIZE)
    both.wait(f"handles[-1].received == {HELD}")
    return gate, other_gate


@pytest.mark.parametrize("leaves", ["ours", "theirs"])
def test_disabling_one_leaves_the_other_running(
    both: Blender, ours: Downloads, server: Server, tmp_path: Path, leaves: str
) -> None:
    gate, other_gate = begun_in_both(both, ours, server, tmp_path)
    if leaves == "theirs":
        both.run(f"import addon_utils; addon_utils.disable({MODULE!r})")
        assert both.eval("their_threads()") == []
        gate.open()
        ours.wait_over("FINISHED")
        assert both.eval("calls") == []
        both.run(f"addon_utils.enable({MODULE!r})")
    else:
        both.run("import addon_utils; addon_utils.disable('bl_ext.user_default.background_downloads')")
        assert both.eval("workers()") == []
        other_gate.open()
        both.wait("calls")
        assert both.eval("calls[0][2]") == ["FINISHED"]
        both.run("addon_utils.enable('bl_ext.user_default.background_downloads')")
        wait_open(both)
        gate.open()


def test_both_step_aside_at_once_for_an_autosave(
    both: Blender, ours: Downloads, server: Server, tmp_path: Path
) -> None:
    """Whoever is late asks the other; for a moment no modal operator runs, and no byte is fetched twice."""
    gates = begun_in_both(both, ours, server, tmp_path)
    both.run("""
files = bpy.context.preferences.filepaths
files.use_auto_save_temporary_files, files.auto_save_time = True, 1
away = []
def look():
    away.append(modal() == [])
    return 0.0
bpy.app.timers.register(look)
with in_view3d():
    bpy.ops.mesh.primitive_cube_add()
    bpy.ops.ed.undo_push(message="Add Cube")
session().tally.began -= 100
""")
    both.wait("any(away)")
    both.wait(f"sorted(modal()) == sorted(['DOWNLOADS_OT_start', {OPERATOR!r}])")
    both.run("bpy.app.timers.unregister(look); files.auto_save_time = 2")
    for gate in gates:
        gate.open()
    both.wait("calls")
    ours.wait_over("FINISHED")
    assert [len(server.requests_for(path)) for path in ("/mine.bin", "/other.bin")] == [1, 1]


def test_quit_with_both_downloading(both: Blender, ours: Downloads, server: Server, tmp_path: Path) -> None:
    begun_in_both(both, ours, server, tmp_path)
    assert both.quit() == 0, both.last_words
    assert list(tmp_path.glob("*.bin")) == []
    assert len(list(tmp_path.glob("*.part"))) == len(ours.partial_files()) == 1


def test_the_button_of_the_example_links_the_asset(both: Blender, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "rock.blend"
    both.run(f"""
rock = bpy.data.objects.new("Rock", None)
bpy.data.libraries.write({str(path)!r}, {{rock}})
bpy.data.objects.remove(rock)
""")
    data = path.read_bytes()
    url = server.add("/rock.blend", body=data) + f"#sha256={hashlib.sha256(data).hexdigest()}"
    both.run(f"sys.modules[{MODULE!r}].URL = {url!r}")
    both.press_button("asset_fetcher.fetch", tab="Asset Fetcher")
    both.wait("'Rock' in bpy.context.scene.collection.objects")
    assert both.eval("bpy.context.scene.collection.objects['Rock'].library is not None")


def test_without_threads_in_blender(both: Blender, server: Server, tmp_path: Path) -> None:
    """As below Python 3.12: a child process has them."""
    both.run("theirs().register(process=True)")
    url, gate = hold(server, "a.bin")
    both.run(f"fetch({url!r}, {str(tmp_path)!r})")
    gate.wait_reached()
    assert both.eval("their_threads()") == []
    children = [line for line in both.children().values() if MODULE in line]
    assert len(children) == 1
    gate.open()
    both.wait("calls")
    assert both.eval("calls[0][2]") == ["FINISHED"]
    assert (tmp_path / "a.bin").read_bytes() == body("a.bin")
    both.run("theirs().register()")


EAGER = """
_register = register
def register():
    _register()
    if url := __import__("os").environ.get("EAGER_URL"):
        global early, refused, told
        told = []
        try:
            downloads.fetch(url, "//textures")
        except ValueError as error:
            refused = str(error)
        early = downloads.fetch(url, bpy.app.tempdir, done=lambda _: told.append(bool(bpy.context.window)))
"""


def test_register_may_fetch_while_blender_starts(
    blender_factory: BlenderFactory, installation: Installation, server: Server, tmp_path: Path
) -> None:
    """Blender restricts the context then."""
    source = example(tmp_path)
    code = source / "__init__.py"
    code.write_text(code.read_text() + EAGER)
    first = blender_factory(online=True, factory=False)
    first.install(build_extension(installation, source, tmp_path / "zip"))
    first.run("bpy.context.preferences.system.use_online_access = True; bpy.ops.wm.save_userpref()")
    assert first.quit() == 0
    url = server.add("/a.bin", body=body("a.bin"))
    b = blender_factory(first.folder, online=True, factory=False, environment={"EAGER_URL": url})
    b.run(f"addon = __import__('sys').modules[{MODULE!r}]")
    b.wait("addon.told")
    assert b.eval("[addon.told, addon.early.results[0].status]") == [[True], "FINISHED"]
    assert b.eval("addon.refused").startswith("Blender has no file open yet")
    assert b.quit() == 0, b.last_words
