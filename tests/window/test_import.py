"""From a copied link to the object in the scene, in a window: when it comes in, where, what undoes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from blender import Blender
from downloading import MODULE, Downloads, wait_open
from server import Server
from test_panel import INSIDE, press
from test_render import prepare

OBJ = b"o Rock\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
ASK = f"""{INSIDE}
def objects():
    return sorted(found.name for found in bpy.data.objects if found.name not in ("Camera", "Cube", "Light"))

def notes():
    return [item.note for item in state().items]

def fill(text):
    bpy.data.window_managers[0].clipboard = text
    state().urls, state().when_done = "", "IMPORT"


class TEST_OT_tool(bpy.types.Operator):
    bl_idname = "test.tool"
    bl_label = "Tool"
    goes_on = True

    def invoke(self, context, event):
        TEST_OT_tool.goes_on = True
        context.window_manager.modal_handler_add(self)
        return {{"RUNNING_MODAL"}}

    def modal(self, context, event):
        return {{"PASS_THROUGH"}} if TEST_OT_tool.goes_on else {{"FINISHED"}}

def use_tool():
    if not hasattr(bpy.types, "TEST_OT_tool"):
        bpy.utils.register_class(TEST_OT_tool)
    with in_view3d():
        bpy.ops.test.tool("INVOKE_DEFAULT")

def drop_tool():
    TEST_OT_tool.goes_on = False
    yield from move(*middle(region_of(view3d())))
    yield from move(5, 5)

def undo():
    with in_view3d():
        bpy.ops.ed.undo()

def redo():
    with in_view3d():
        bpy.ops.ed.redo()

def mode(kind):
    with in_view3d():
        bpy.context.view_layer.objects.active = bpy.data.objects["Cube"]
        bpy.ops.object.mode_set(mode=kind)
"""


@pytest.fixture(scope="module")
def window_size() -> tuple[int, int]:
    return 1600, 900


@pytest.fixture
def downloads(blender: Blender, tmp_path: Path) -> Iterator[Downloads]:
    found = Downloads(blender, tmp_path / "files", "threads")
    blender.run(ASK)
    blender.run(f"state().directory = {str(tmp_path / 'files')!r}")
    yield found
    blender.run("state().directory = state().urls = ''; state().when_done = 'NOTHING'")


def rock(server: Server, name: str = "rock.obj") -> str:
    return server.add(f"/{name}", body=OBJ)


def import_one(downloads: Downloads, server: Server) -> None:
    downloads.start(rock(server), when_done="IMPORT")
    downloads.wait("FINISHED")


def test_three_clicks_from_a_copied_sentence_to_the_scene(downloads: Downloads, server: Server) -> None:
    b = downloads.b
    b.run(f"fill('Look at this ({rock(server)}), it is good.')")
    press(b, "downloads.paste")
    assert b.eval("state().urls") == server.url("/rock.obj")
    press(b, "downloads.start")
    b.wait("objects() == ['Rock']")
    downloads.wait_over()
    assert b.eval("notes()") == [""]


def test_an_import_is_one_undo_step_and_the_file_stays(downloads: Downloads, server: Server) -> None:
    b = downloads.b
    import_one(downloads, server)
    b.wait("objects() == ['Rock']")
    downloads.wait_over()
    b.run("undo()")
    assert b.eval("objects()") == []
    assert b.eval("sorted(o.name for o in bpy.data.objects)") == ["Camera", "Cube", "Light"]
    assert downloads.files() == {"rock.obj": OBJ}
    b.run("redo()")
    assert b.eval("objects()") == ["Rock"]
    assert downloads.statuses() == ["FINISHED"]


def test_what_a_script_imports_is_one_undo_step_too(downloads: Downloads, server: Server) -> None:
    b = downloads.b
    assert downloads.execute(rock(server), when_done="IMPORT") == ["FINISHED"]
    assert b.eval("objects()") == ["Rock"]
    b.run("undo()")
    assert b.eval("objects()") == []
    b.run("redo()")
    assert b.eval("objects()") == ["Rock"]


def test_two_imports_are_two_undo_steps(downloads: Downloads, server: Server) -> None:
    b = downloads.b
    downloads.start(rock(server), rock(server, "stone.obj"), when_done="IMPORT")
    b.wait("objects() == ['Rock', 'Rock.001']")
    downloads.wait_over()
    b.run("undo()")
    assert len(b.eval("objects()")) == 1
    b.run("undo()")
    assert b.eval("objects()") == []


def test_it_waits_while_a_mesh_is_edited_and_the_run_does_not(downloads: Downloads, server: Server) -> None:
    b = downloads.b
    b.run("mode('EDIT')")
    import_one(downloads, server)
    downloads.wait_over()
    b.wait("notes() == ['Waiting to import: this needs Object Mode']")
    assert b.eval("objects()") == []
    b.run("mode('OBJECT')")
    b.wait("objects() == ['Rock'] and notes() == ['']")


def test_it_waits_while_a_tool_is_at_work(downloads: Downloads, server: Server) -> None:
    b = downloads.b
    b.run("use_tool()")
    import_one(downloads, server)
    b.wait("notes() == ['Waiting to import: a tool is at work']")
    assert b.eval("objects()") == []
    b.steps("drop_tool()")
    b.wait("objects() == ['Rock']")
    downloads.wait_over()


def test_it_waits_while_blender_renders(downloads: Downloads, server: Server, tmp_path: Path) -> None:
    b = downloads.b
    prepare(b, tmp_path)
    b.run("begin(wait)")
    try:
        b.wait("seen and renders()")
        import_one(downloads, server)
        b.wait("notes() == ['Waiting to import: Blender is rendering']")
        assert b.eval("objects()") == []
    finally:
        b.run("go_on.set()")
        b.wait("not renders()")
        b.run("for each in waited_for: each.clear()")
    b.steps("events_until_it_is_over()")
    b.wait("objects() == ['Rock'] and notes() == ['']")
    downloads.wait_over()


def test_after_a_while_the_row_offers_it(downloads: Downloads, server: Server) -> None:
    b = downloads.b
    b.run("mode('EDIT')")
    import_one(downloads, server)
    b.wait("notes()[0].startswith('Waiting')")
    b.run("part('session.importing').PATIENCE = 0.0")
    try:
        b.wait("'Press Import' in notes()[0]")
    finally:
        b.run("part('session.importing').PATIENCE = 30.0")
    downloads.wait_over()
    b.run("mode('OBJECT')")
    assert downloads.act("import_file", index=0) == ["FINISHED"]
    assert b.eval("objects()") == ["Rock"]
    b.wait("notes() == ['']")


def test_nothing_lands_in_a_file_that_it_was_not_asked_for(downloads: Downloads, server: Server) -> None:
    b = downloads.b
    for _ in range(2):  # what notices it survives a file load, too
        b.run("mode('EDIT')")
        downloads.start(rock(server), when_done="IMPORT", if_exists="OVERWRITE")
        downloads.wait("FINISHED")
        b.wait("notes()[-1].startswith('Waiting')")
        b.reset()
        b.wait("'another .blend file' in notes()[-1]")
        downloads.wait_over()
        assert b.eval("objects()") == []
        downloads.act("clear")


def test_nothing_lands_in_a_file_of_another_template(downloads: Downloads, server: Server) -> None:
    """The add-on is disabled for a moment, and the row outlives that."""
    b = downloads.b
    b.run("mode('EDIT')")
    import_one(downloads, server)
    b.wait("notes()[0].startswith('Waiting')")
    b.run("with in_view3d(): bpy.ops.wm.read_homefile(app_template='Sculpting')")
    try:
        b.wait("notes() and 'another .blend file' in notes()[0]")
    finally:
        b.run("with in_view3d(): bpy.ops.wm.read_homefile(app_template='')")
    downloads.wait("FINISHED")
    assert b.eval("'another .blend file' in notes()[0]")


def test_disabling_gives_up_what_waits(downloads: Downloads, server: Server) -> None:
    b = downloads.b
    b.run("mode('EDIT')")
    import_one(downloads, server)
    b.wait("notes()[0].startswith('Waiting')")
    downloads.wait_over()
    b.run(f"import addon_utils; addon_utils.disable({MODULE!r}, default_set=True)")
    try:
        assert b.eval("[each for each in bpy.app.handlers.load_post if 'Importing' in repr(each)]") == []
    finally:
        b.run(f"addon_utils.enable({MODULE!r}, default_set=True)")
        b.run("mode('OBJECT')")
    wait_open(b)
    assert b.eval("objects()") == []


def test_it_lands_in_the_collection_that_was_active_at_the_start(
    downloads: Downloads, server: Server
) -> None:
    b = downloads.b
    b.run("mode('EDIT')")
    import_one(downloads, server)
    b.wait("notes()[0].startswith('Waiting')")
    b.run("mode('OBJECT')")
    b.run(
        "other = bpy.data.collections.new('Other'); scene = bpy.context.scene;"
        "scene.collection.children.link(other); layer = bpy.context.view_layer;"
        "layer.active_layer_collection = layer.layer_collection.children['Other']"
    )
    b.wait("objects() == ['Rock']")
    assert b.eval("[c.name for c in bpy.data.objects['Rock'].users_collection]") == ["Collection"]
    assert b.eval("layer.active_layer_collection.name") == "Other"


def test_a_broken_file_is_a_sentence_and_no_undo_step(downloads: Downloads, server: Server) -> None:
    b = downloads.b
    url = server.add("/rock.blend", body=b"BLENDER-v402" + b"no such file " * 99)
    downloads.start(url, when_done="IMPORT")
    b.wait("'could not read' in (notes() or [''])[0]")
    downloads.wait_over()
    assert downloads.statuses() == ["FINISHED"]
    assert list(downloads.files()) == ["rock.blend"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("links.txt", "See LINK, it is good"),
        ("rock.url", "[InternetShortcut]\nURL=LINK\n"),
        ("rock.webloc", '<plist version="1.0"><dict><key>URL</key><string>LINK</string></dict></plist>'),
    ],
)
def test_a_file_with_links_that_is_dropped_fills_the_field(
    downloads: Downloads, tmp_path: Path, name: str, text: str
) -> None:
    b, link = downloads.b, "https://example.org/rock.zip"
    (tmp_path / name).write_text(text.replace("LINK", link))
    b.run("state().urls = 'https://example.org/stone.zip'")
    options = f"directory={str(tmp_path)!r}, files=[{{'name': {name!r}}}]"
    b.run(f"with in_view3d(): bpy.ops.wm.drop_import_file('INVOKE_DEFAULT', {options})")
    b.wait(f"state().urls == 'https://example.org/stone.zip {link}'")


def test_what_lands_in_an_asset_library_shows_in_an_open_asset_browser(
    downloads: Downloads, server: Server, tmp_path: Path
) -> None:
    b, library = downloads.b, tmp_path / "library"
    library.mkdir()
    b.run(
        f"made = {str(tmp_path / 'rock.blend')!r}; mesh = bpy.data.meshes.new('Granite'); "
        "rock = bpy.data.objects.new('Granite', mesh); rock.asset_mark();"
        "bpy.data.libraries.write(made, {rock}); bpy.data.objects.remove(rock)"
    )
    b.run(f"library = {str(library)!r}")
    b.run(BROWSER)
    try:
        b.wait("area.spaces.active.params is not None")
        b.run("show_library()")
        b.wait("assets() == []")
        url = server.add("/rock.blend", body=(tmp_path / "rock.blend").read_bytes())
        b.run(f"bpy.ops.downloads.start('INVOKE_DEFAULT', urls={url!r}, directory=library)")
        b.wait("assets() == ['Granite']")
    finally:
        b.run("hide_library()")
    downloads.wait_over()


def test_what_lands_in_a_library_shows_under_the_catalog_that_was_clicked(
    downloads: Downloads, server: Server, tmp_path: Path
) -> None:
    b, library = downloads.b, tmp_path / "library"
    library.mkdir()
    lines = f"VERSION 1\n{CATALOG}:Props/Rocks:Props-Rocks\n{OTHER_CATALOG}:Chairs:Chairs\n"
    (library / "blender_assets.cats.txt").write_text(lines)
    b.run(MAKE_GRANITE.format(path=tmp_path / "rock.blend"))
    b.run(f"library = {str(library)!r}")
    b.run(BROWSER_BESIDE)
    try:
        b.wait("area.spaces.active.params is not None")
        b.run("show_library()")
        b.run(f"area.spaces.active.params.catalog_id = {CATALOG!r}")
        b.wait("assets() == []")
        b.run("state().directory = library")
        x, y = b.steps("find_field('downloads.catalog')")
        b.click(x, y)
        b.steps("pause(0.5)")
        b.type("rocks")
        b.steps("pause(0.5)")
        b.key("RET")
        b.wait("state().catalog == 'Props/Rocks'")
        b.run(f"fill({server.add('/rock.blend', body=(tmp_path / 'rock.blend').read_bytes())!r})")
        b.run("state().when_done = 'NOTHING'")
        press(b, "downloads.paste")
        press(b, "downloads.start")
        b.wait("assets() == ['Granite']")
        assert b.eval("notes()") == [""]
        b.run(f"area.spaces.active.params.catalog_id = {OTHER_CATALOG!r}")
        b.wait("assets() == []")
    finally:
        b.run("hide_library()")
    downloads.wait_over()


CATALOG, OTHER_CATALOG = "01234567-89ab-cdef-0123-456789abcdef", "11234567-89ab-cdef-0123-456789abcdef"
MAKE_GRANITE = """
mesh = bpy.data.meshes.new('Granite')
mesh.from_pydata([(0, 0, 0)], [], [])
rock = bpy.data.objects.new('Granite', mesh)
rock.asset_mark()
bpy.data.libraries.write('{path}', {{rock}})
bpy.data.objects.remove(rock)
"""


BROWSER = """
libraries = bpy.context.preferences.filepaths.asset_libraries
area = view3d()
area.ui_type = "ASSETS"
with in_window():
    bpy.ops.preferences.asset_library_add(directory=library)

def show_library():
    area.spaces.active.params.asset_library_reference = libraries[-1].name

def assets():
    with bpy.context.temp_override(window=window(), area=area, region=region_of(area)):
        bpy.ops.file.select_all(action="SELECT")
        return [found.name for found in bpy.context.selected_assets or ()]

def hide_library():
    area.ui_type = "VIEW_3D"
    with in_window():
        bpy.ops.preferences.asset_library_remove(index=len(libraries) - 1)
""".replace("in_window()", "bpy.context.temp_override(window=window())")

BROWSER_BESIDE = BROWSER.replace(
    "area = view3d()",
    "areas = window().screen.areas; area = next(a for a in areas if a.type == 'DOPESHEET_EDITOR')",
).replace('"VIEW_3D"', '"TIMELINE"')
