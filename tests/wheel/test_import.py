"""From a link to the scene: `downloads.start(when_done="IMPORT")` and Import, for each type of file.

The files are made by Blender itself, by each version that the tests run in.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import bpy
import pytest
from mathutils import Vector

if TYPE_CHECKING:
    from conftest import Extension

pytestmark = pytest.mark.filterwarnings(  # Blender leaves it open
    r"ignore:.*walk\.bvh:pytest.PytestUnraisableExceptionWarning"
)
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><path d="M0 0 L10 0 L10 10 Z"/></svg>'
BVH = """HIERARCHY
ROOT hip
{
  OFFSET 0 0 0
  CHANNELS 3 Zrotation Xrotation Yrotation
  End Site
  {
    OFFSET 0 1 0
  }
}
MOTION
Frames: 2
Frame Time: 0.04
0 0 0
0 10 0
"""
CURSOR = Vector((1.0, 2.0, 3.0))


def exists(operator: Any) -> bool:
    try:
        operator.get_rna_type()
    except (AttributeError, KeyError):
        return False
    return True


def cube() -> None:
    bpy.ops.mesh.primitive_cube_add(location=(0.5, 0.0, 0.0))


def save_blend(path: Path, *, marked: bool = False, collected: bool = True) -> None:
    """Two objects in a collection, one of them marked or not, and one in none."""
    cube()
    one = bpy.context.object
    one.name = "One"
    two = bpy.data.objects.new("Two", one.data)
    three = bpy.data.objects.new("Three", one.data)
    rocks = bpy.data.collections.new("Rocks")
    if collected:
        bpy.context.scene.collection.children.link(rocks)
        rocks.objects.link(one)
        bpy.context.collection.objects.unlink(one)
    (rocks if collected else bpy.context.scene.collection).objects.link(two)
    bpy.context.scene.collection.objects.link(three)
    if marked:
        two.asset_mark()
    bpy.ops.wm.save_as_mainfile(filepath=str(path), copy=True)


def save_image(path: Path, width: int = 8, height: int = 8) -> None:
    formats = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP", ".exr": "OPEN_EXR", ".hdr": "HDR"}
    image = bpy.data.images.new("made", width, height, float_buffer=path.suffix in (".exr", ".hdr"))
    image.file_format, image.filepath_raw = formats[path.suffix], str(path)
    image.save()


def by(operator: Any, **options: object) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        if not exists(operator):
            pytest.skip("this Blender cannot write it")
        cube()
        operator(filepath=str(path), **options)

    return make


GLTF = """
import bpy, sys
bpy.ops.wm.read_homefile(use_empty=True)
bpy.ops.mesh.primitive_cube_add(location=(0.5, 0.0, 0.0))
bpy.ops.export_scene.gltf(filepath=sys.argv[1], export_format="GLB")
"""


def make_gltf(path: Path) -> None:
    """In a process of its own: Blender 4.2 as a module crashes when it ends after writing one."""
    subprocess.run([sys.executable, "-c", GLTF, path], capture_output=True, timeout=100)
    assert path.stat().st_size


MODELS: dict[str, Callable[[Path], None]] = {
    "rock.blend": save_blend,
    "rock.glb": make_gltf,
    "rock.obj": by(bpy.ops.wm.obj_export),
    "rock.stl": by(bpy.ops.wm.stl_export),
    "rock.ply": by(bpy.ops.wm.ply_export),
    "rock.fbx": by(bpy.ops.export_scene.fbx),
    "rock.usda": by(bpy.ops.wm.usd_export),
    "rock.usdc": by(bpy.ops.wm.usd_export),
    "rock.usdz": by(bpy.ops.wm.usd_export),
    "rock.abc": by(bpy.ops.wm.alembic_export),
    "rock.svg": lambda path: path.write_text(SVG) and None,
    "walk.bvh": lambda path: path.write_text(BVH) and None,
}
if exists(bpy.ops.wm.collada_export):
    MODELS["rock.dae"] = by(bpy.ops.wm.collada_export)
EVERY = [*MODELS, "rock.png", "rock.jpg", "rock.webp", "sky.exr", "sky.hdr", "flat.exr"]


def make(path: Path) -> None:
    empty()
    if path.name in MODELS:
        MODELS[path.name](path)
    else:
        save_image(path, width=16 if path.stem == "sky" else 8)
    empty()


def empty() -> None:
    bpy.ops.wm.read_homefile(use_empty=True)


@pytest.fixture(autouse=True)
def _quiet(installed: Extension) -> Iterator[None]:
    """What Blender says of ours will go is a defect."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", DeprecationWarning)
        yield
    assert [str(warning.message) for warning in said if str(installed.folder) in warning.filename] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server of this folder, in a process of its own: below Python 3.12 threads beside Blender's
    operators crash it, and a server of ours would be some.
    """
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        port = re.search(r"port (\d+)", process.stdout.readline())
        assert port
        yield f"http://127.0.0.1:{port[1]}", folder
        process.terminate()


@pytest.fixture
def made(site: tuple[str, Path], tmp_path: Path) -> Path:
    """Where a test makes what is downloaded."""
    folder = site[1] / tmp_path.name
    folder.mkdir()
    return folder


@pytest.fixture
def served(extension: Extension, site: tuple[str, Path], made: Path, tmp_path: Path) -> Callable[..., Any]:
    """Downloads a file of this name, which is made if it is not there; returns its row."""
    empty()

    def download(name: str, when_done: str = "IMPORT", data: bytes | None = None) -> Any:
        path = made / name
        if data is not None:
            path.write_bytes(data)
        elif not path.exists():
            make(path)
        bpy.context.scene.cursor.location = CURSOR
        url = f"{site[0]}/{made.name}/{name}"
        bpy.ops.downloads.start(urls=url, directory=str(tmp_path), when_done=when_done)
        return bpy.context.window_manager.downloads.items[-1]

    return download


def assert_imported(name: str) -> None:
    scene = bpy.context.scene
    if name.startswith("sky"):
        assert scene.world.name.startswith("sky")
        assert any(
            node.type == "TEX_ENVIRONMENT" and node.image.name == name for node in scene.world.node_tree.nodes
        )
    elif name in MODELS:
        assert [
            found
            for found in scene.objects
            if found.type in ("MESH", "CURVE", "GREASEPENCIL", "GPENCIL", "ARMATURE")
        ]
    else:
        assert bpy.data.images[name].use_fake_user
        assert not scene.objects


@pytest.mark.parametrize("name", EVERY)
def test_each_type_comes_into_the_scene(served: Callable[..., Any], name: str) -> None:
    row = served(name)
    assert (row.status, row.note) == ("FINISHED", "")
    assert_imported(name)


@pytest.mark.parametrize("name", ["rock.blend", "rock.glb", "rock.obj", "rock.stl"])
def test_models_are_placed_at_the_cursor(served: Callable[..., Any], name: str) -> None:
    served(name)
    bpy.context.view_layer.update()
    (found, *_) = [
        found for found in bpy.context.scene.objects if found.type == "MESH" and found.name != "Three"
    ]
    corners = [found.matrix_world @ Vector(corner) for corner in found.bound_box]
    middle = sum(corners, Vector()) / 8
    wanted = CURSOR if found.name == "Two" else CURSOR + Vector((0.5, 0.0, 0.0))
    assert (middle - wanted).length < 1e-4


def test_nothing_is_imported_unasked(served: Callable[..., Any]) -> None:
    row = served("rock.glb", when_done="NOTHING")
    assert not bpy.context.scene.objects
    assert bpy.ops.downloads.import_file(uid=row.uid) == {"FINISHED"}
    assert bpy.context.scene.objects


# -- Blender's own files.


def test_a_blend_file_brings_its_collections_and_what_is_in_none(served: Callable[..., Any]) -> None:
    served("rock.blend")
    scene = bpy.context.scene
    assert [child.name for child in scene.collection.children] == ["Rocks"]
    assert {found.name for found in bpy.data.collections["Rocks"].objects} == {"One", "Two"}
    assert [found.name for found in scene.collection.objects] == ["Three"]
    assert not bpy.data.libraries


def test_a_blend_file_without_collections_brings_its_objects(served: Callable[..., Any], made: Path) -> None:
    save_blend(made / "rock.blend", collected=False)
    empty()
    served("rock.blend")
    assert {found.name for found in bpy.context.scene.objects} == {"One", "Two", "Three"}


def test_a_blend_file_with_marked_assets_brings_those_only(served: Callable[..., Any], made: Path) -> None:
    save_blend(made / "rock.blend", marked=True)
    empty()
    served("rock.blend")
    (two,) = bpy.context.scene.objects
    assert (two.name, two.asset_data, two.location) == ("Two", None, CURSOR)


@pytest.mark.parametrize("marked", [False, True])
def test_a_blend_file_is_linked_where_the_preferences_say_so(
    extension: Extension, served: Callable[..., Any], marked: bool, made: Path
) -> None:
    save_blend(made / "rock.blend", marked=marked)
    empty()
    preferences = bpy.context.preferences.addons[extension.package].preferences
    preferences.append_or_link = "LINK"
    try:
        row = served("rock.blend")
    finally:
        preferences.append_or_link = "APPEND"
    assert row.note == ""
    (library,) = bpy.data.libraries
    assert Path(bpy.path.abspath(library.filepath)) == Path(row.filepath)
    if marked:
        assert [found.library for found in bpy.context.scene.objects] == [library]
        return
    (instance,) = [found for found in bpy.context.scene.objects if not found.library]
    assert instance.instance_collection == bpy.data.collections["Rocks"]
    assert instance.location == CURSOR


def test_a_blend_file_with_materials_keeps_them(served: Callable[..., Any], made: Path) -> None:
    bpy.data.materials.new("Granite").use_fake_user = True
    bpy.ops.wm.save_as_mainfile(filepath=str(made / "stone.blend"), copy=True)
    empty()
    assert served("stone.blend").note == ""
    assert bpy.data.materials["Granite"].use_fake_user


def test_bone_shapes_and_sources_of_instances_stay_out_of_the_scene(
    served: Callable[..., Any], made: Path
) -> None:
    source = bpy.data.collections.new("Source")
    source.objects.link(bpy.data.objects.new("Hidden", None))
    instance = bpy.data.objects.new("Instance", None)
    instance.instance_type, instance.instance_collection = "COLLECTION", source
    bpy.context.scene.collection.objects.link(instance)
    bpy.ops.wm.save_as_mainfile(filepath=str(made / "rig.blend"), copy=True)
    empty()
    served("rig.blend")
    assert [found.name for found in bpy.context.scene.objects] == ["Instance"]


def test_a_script_in_a_blend_file_does_not_run(served: Callable[..., Any], made: Path) -> None:
    cube()
    script = bpy.data.texts.new("evil.py")
    script.write("import bpy; bpy.data.meshes.new('Evil')")
    script.use_module = True
    bpy.context.object["script"] = script
    bpy.ops.wm.save_as_mainfile(filepath=str(made / "evil.blend"), copy=True)
    empty()
    served("evil.blend")
    assert bpy.context.scene.objects
    assert "Evil" not in bpy.data.meshes


# -- Where it goes.


def test_it_goes_into_the_collection_that_is_active(served: Callable[..., Any], made: Path) -> None:
    for name in ("rock.obj", "rock.blend", "rock.svg"):
        make(made / name)
    chosen = bpy.data.collections.new("Chosen")
    bpy.context.scene.collection.children.link(chosen)
    bpy.context.view_layer.active_layer_collection = bpy.context.view_layer.layer_collection.children[
        "Chosen"
    ]
    for name in ("rock.obj", "rock.blend", "rock.svg"):
        before = set(chosen.all_objects)
        served(name)
        assert set(bpy.context.scene.objects) == set(chosen.all_objects), name
        assert set(chosen.all_objects) > before, name
    assert bpy.context.view_layer.active_layer_collection.collection == chosen


def test_the_old_world_is_kept(served: Callable[..., Any]) -> None:
    served("sky.hdr", when_done="NOTHING")
    old = bpy.data.worlds.new("Old")
    bpy.context.scene.world = old
    served("sky.hdr")
    assert bpy.context.scene.world != old
    assert old.use_fake_user


def test_what_is_imported_is_selected(served: Callable[..., Any]) -> None:
    served("rock.blend", when_done="NOTHING")
    cube()
    was = bpy.context.object
    served("rock.blend")
    assert not was.select_get()
    assert {found.name for found in bpy.context.selected_objects} == {"One", "Two", "Three"}


# -- When it cannot be.


@pytest.mark.parametrize("name", [*MODELS, "rock.png", "rock.exr", "rock.zip"])
def test_a_broken_file_is_a_sentence_and_the_file_stays(served: Callable[..., Any], name: str) -> None:
    row = served(name, data=b"this is no such file at all\n" * 40)
    assert row.status == "FINISHED"
    assert row.note
    assert Path(row.filepath).exists()
    assert not bpy.context.scene.objects
    assert not bpy.data.meshes


@pytest.mark.parametrize("name", ["rock.abc", "rock.ply"])
def test_a_file_that_was_cut_off_does_not_end_blender(
    served: Callable[..., Any], made: Path, name: str
) -> None:
    make(made / name)
    whole = (made / name).read_bytes()
    for length in (len(whole) // 3, len(whole) * 7 // 8, len(whole) - 1):
        row = served(name, data=whole[:length])
        assert row.note == "Blender could not read the file; it may be damaged"
    assert served(name, data=whole).note == ""
    assert_imported(name)


@pytest.mark.parametrize("start", [b"BLENDER17-01v0999", b"BLENDER-v999", b"BLENDER18-02v0999"])
def test_what_a_newer_blender_saved_is_not_called_damaged(served: Callable[..., Any], start: bytes) -> None:
    row = served("rock.blend", data=start + bytes(range(256)) * 4)
    assert row.status == "FINISHED"
    assert "Blender 9.99 saved this file, and this older Blender cannot read it" in row.note
    assert not bpy.context.scene.objects


@pytest.mark.parametrize("name", ["script.py", "tool.exe", "movie.xyz", "notes.txt", "page.html"])
def test_what_has_no_importer_is_not_offered(served: Callable[..., Any], name: str) -> None:
    row = served(name, data=b"print(1)\n")
    assert row.status == "FINISHED"
    assert "no importer" in row.note
    with pytest.raises(RuntimeError, match="no importer"):
        bpy.ops.downloads.import_file(uid=row.uid)


@pytest.mark.parametrize("name", ["rock.7z", "rock.rar", "rock.tar.gz", "ROCK.TGZ"])
def test_of_other_archives_it_says_what_to_do(served: Callable[..., Any], name: str) -> None:
    row = served(name, data=b"packed")
    assert "Not imported: Of archives only .zip can be imported. Unpack it yourself" in row.note


def save_gltf(path: Path, places: list[str]) -> None:
    """One triangle, whose corners are in a file of their own."""
    empty()
    subprocess.run([sys.executable, "-c", GLTF.replace("GLB", "GLTF_SEPARATE"), path], capture_output=True)
    whole = json.loads(path.read_text())
    for buffer, place in zip(whole["buffers"], places, strict=True):
        path.with_name(buffer["uri"]).rename(path.with_name(unquote(place)))
        buffer["uri"] = place
    path.write_text(json.dumps(whole))


@pytest.mark.parametrize("place", ["rock.bin", "a%20rock.bin"])
def test_a_gltf_says_which_file_it_needs_and_is_imported_once_that_is_there(
    served: Callable[..., Any], made: Path, place: str
) -> None:
    save_gltf(made / "rock.gltf", [place])
    row = served("rock.gltf")
    name = unquote(place)
    assert row.note == f"It needs “{name}” beside it. Download that into the same folder, then press Import"
    assert not bpy.context.scene.objects
    uid = row.uid
    served(quote(name), data=(made / name).read_bytes(), when_done="NOTHING")
    bpy.ops.downloads.import_file(uid=uid)
    assert bpy.context.window_manager.downloads.items[0].note == ""
    assert [found.type for found in bpy.context.scene.objects] == ["MESH"]


@pytest.mark.parametrize(
    "text", ['{"asset": {}}', '{"buffers": [7, {"uri": 8}]}', "[" * 9999, '{"buffers": {}}']
)
def test_a_gltf_that_is_none_is_a_sentence(served: Callable[..., Any], text: str) -> None:
    assert served("rock.gltf", data=text.encode()).note.endswith(
        "Blender could not read the file; it may be damaged"
    )


def test_a_gltf_whose_path_is_too_long_for_blender_is_a_sentence(
    extension: Extension, served: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    portable = importlib.import_module(f"{extension.package}.transfer.portable")
    monkeypatch.setattr(portable, "is_too_long", lambda path: True)
    assert "path is too long for Blender" in served("rock.gltf", data=b"{}").note


def test_edit_mode_is_never_disturbed(served: Callable[..., Any]) -> None:
    served("rock.obj", when_done="NOTHING")
    cube()
    bpy.ops.object.mode_set(mode="EDIT")
    row = served("rock.obj")
    assert "Object Mode" in row.note
    assert len(bpy.context.scene.objects) == 1
    with pytest.raises(RuntimeError, match="Object Mode"):
        bpy.ops.downloads.import_file(uid=row.uid)
    bpy.ops.object.mode_set(mode="OBJECT")
    bpy.ops.downloads.import_file(uid=row.uid)
    assert len(bpy.context.scene.objects) == 2


def test_a_scene_of_another_file_is_left_alone(served: Callable[..., Any], made: Path) -> None:
    row = served("rock.obj", when_done="NOTHING")
    bpy.context.scene.name = "Theirs"
    bpy.ops.wm.save_as_mainfile(filepath=str(made / "theirs.blend"), copy=True)
    own = bpy.context.scene
    own.name = "Own"
    with bpy.data.libraries.load(str(made / "theirs.blend"), link=True) as (_, target):
        target.scenes = ["Theirs"]
    bpy.context.window.scene = bpy.data.scenes["Theirs"]
    with pytest.raises(RuntimeError, match="belongs to another file"):
        bpy.ops.downloads.import_file(uid=row.uid)
    bpy.context.window.scene = own
    assert bpy.ops.downloads.import_file(uid=row.uid) == {"FINISHED"}
    assert own.objects


def test_a_file_that_is_gone_says_so(served: Callable[..., Any]) -> None:
    row = served("rock.obj", when_done="NOTHING")
    Path(row.filepath).unlink()
    with pytest.raises(RuntimeError, match="not there any more"):
        bpy.ops.downloads.import_file(uid=row.uid)


@pytest.mark.parametrize("name", ["rock.blend", "rock.obj", "rock.png", "rock.zip"])
def test_a_file_that_goes_while_it_waits_says_so(extension: Extension, tmp_path: Path, name: str) -> None:
    session = importlib.import_module(f"{extension.package}.session").current()
    transfer = f"{extension.package}.transfer"
    job, names = (importlib.import_module(f"{transfer}.{room}") for room in ("job", "names"))
    links, _ = names.parse_links(f"https://files.example/{name}")
    (row,) = session.add(links, directory=str(tmp_path), when_done="IMPORT")
    with pytest.raises(RuntimeError, match="not downloaded yet"):
        bpy.ops.downloads.import_file(uid=row.uid)
    session.ended(row.uid, job.Finished(filepath=str(tmp_path / name), size=1))
    session.remove(row, delete=True)
    assert row.note == "The file is not there any more. Copy its link and download it again"


# -- Archives.


def zipped(path: Path, *files: Path, under: str = "") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            archive.write(file, f"{under}{file.name}")


def test_an_archive_is_unpacked_and_its_model_imported(
    served: Callable[..., Any], tmp_path: Path, made: Path
) -> None:
    for name in ("rock.glb", "rock.png", "rock.jpg"):
        make(made / name)
    zipped(made / "rocks.zip", made / "rock.glb", made / "rock.png", made / "rock.jpg", under="rocks/")
    row = served("rocks.zip")
    assert (row.status, row.note, Path(row.filepath).name) == ("FINISHED", "", "rocks.zip")
    assert (tmp_path / "rocks" / "rocks" / "rock.png").exists()
    assert bpy.context.scene.objects
    bpy.ops.downloads.import_file(uid=row.uid)
    assert len(list(tmp_path.glob("rocks*"))) == 2  # it is not unpacked again


def test_an_archive_that_somebody_touches_while_it_is_unpacked_is_imported(
    served: Callable[..., Any], extension: Extension, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a scanner, or a tool that keeps folders the same, may do."""
    importing = importlib.import_module(f"{extension.package}.session.importing")
    unpack = importing.unpack

    def touching(path: str) -> Iterator[str]:
        for step in unpack(path):
            os.utime(path, (1.0, 1.0))
            yield step

    monkeypatch.setattr(importing, "unpack", touching)
    make(made / "rock.obj")
    zipped(made / "rocks.zip", made / "rock.obj")
    assert served("rocks.zip").note == ""
    assert bpy.context.scene.objects


def test_an_archive_with_several_models_says_so(served: Callable[..., Any], made: Path) -> None:
    make(made / "rock.obj")
    (made / "stone.obj").write_bytes((made / "rock.obj").read_bytes())
    zipped(made / "rocks.zip", made / "rock.obj", made / "stone.obj")
    row = served("rocks.zip")
    assert "2 files to import" in row.note
    assert not bpy.context.scene.objects


def test_of_one_model_in_several_types_one_is_imported(served: Callable[..., Any], made: Path) -> None:
    for name in ("rock.glb", "rock.obj", "rock.stl"):
        make(made / name)
    zipped(made / "rocks.zip", *sorted(made.iterdir()))
    assert served("rocks.zip").note == ""
    assert len(bpy.context.scene.objects) == 1


def test_an_add_on_is_not_installed(served: Callable[..., Any], made: Path) -> None:
    (made / "__init__.py").write_text("raise SystemExit")
    (made / "blender_manifest.toml").write_text('id = "evil"')
    zipped(made / "evil.zip", made / "__init__.py", made / "blender_manifest.toml")
    before = set(bpy.context.preferences.addons.keys())
    assert "nothing that can be imported" in served("evil.zip").note
    assert set(bpy.context.preferences.addons.keys()) == before


# -- Other people's importers.


class WM_OT_import_rock(bpy.types.Operator):
    bl_idname = "wm.import_rock_for_a_test"
    bl_label = "Import Rock"

    filepath: bpy.props.StringProperty()

    def execute(self, context: Any) -> set[str]:
        if not Path(self.filepath).read_text().startswith("rock"):
            self.report({"ERROR"}, "no rock")
            return {"CANCELLED"}
        context.collection.objects.link(bpy.data.objects.new("Rock", None))
        return {"FINISHED"}


class WM_FH_broken(bpy.types.FileHandler):
    """One that Blender has refused to register: it is there all the same, before the others."""

    bl_file_extensions = (".rock",)


class WM_FH_base(bpy.types.FileHandler):
    """One that names no operator, for others to be made of."""

    bl_file_extensions = ".rock"


class WM_FH_rock(bpy.types.FileHandler):
    bl_idname = "WM_FH_rock"
    bl_label = "Rock"
    bl_import_operator = "wm.import_rock_for_a_test"
    bl_file_extensions = ".rock"


@pytest.fixture
def _rock_importer(extension: Extension) -> Iterator[None]:
    bpy.utils.register_class(WM_OT_import_rock)
    bpy.utils.register_class(WM_FH_rock)
    yield
    bpy.utils.unregister_class(WM_FH_rock)
    bpy.utils.unregister_class(WM_OT_import_rock)


@pytest.mark.usefixtures("_rock_importer")
def test_another_add_ons_importer_is_used(served: Callable[..., Any]) -> None:
    assert served("a.rock", data=b"rock").note == ""
    assert [found.name for found in bpy.context.scene.objects] == ["Rock"]
    assert "could not read" in served("b.rock", data=b"sand").note


def test_an_importer_that_is_gone_is_not_offered(extension: Extension) -> None:
    importers = sys.modules.get(f"{extension.package}.session.importers")
    if importers:
        importers._can_import.cache_clear()
        assert not importers.can_import("a.rock")


# Asset libraries.


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("how", ["file", "archive"])
def test_what_lands_in_a_library_is_in_the_catalog_that_was_chosen(
    extension: Extension, site: tuple[str, Path], made: Path, tmp_path: Path, compress: bool, how: str
) -> None:
    empty()
    url, folder = site
    library = tmp_path / "library"
    library.mkdir()
    line = f"{CATALOG}:Props/Röcks:Props-Röcks\n"
    (library / "blender_assets.cats.txt").write_text(f"VERSION 1\n{line}", "utf-8")
    for name in ("Granite", "Basalt"):
        mesh = bpy.data.meshes.new(name)
        mesh.from_pydata([(0, 0, 0)], [], [])
        rock = bpy.data.objects.new(name, mesh)
        rock.asset_mark()
        rock.asset_data.tags.new("rock")
        bpy.context.scene.collection.objects.link(rock)
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "rock.blend"), compress=compress)
    name = "rock.blend"
    if how == "archive":
        with zipfile.ZipFile(folder / "pack.zip", "w") as archive:
            archive.write(folder / "rock.blend", "rock.blend")
        name = "pack.zip"
    empty()
    libraries = bpy.context.preferences.filepaths.asset_libraries
    libraries.new(name="Kitchen", directory=str(library))
    try:
        bpy.ops.downloads.start(
            urls=f"{url}/{name}", directory=str(library), catalog="Props/Röcks", when_done="IMPORT"
        )
        with pytest.raises(RuntimeError, match="no asset library with a catalog “Props/Nix”"):
            bpy.ops.downloads.start(urls=f"{url}/{name}", directory=str(library), catalog="Props/Nix")
    finally:
        libraries.remove(libraries[-1])
    (item,) = bpy.context.window_manager.downloads.items
    assert (item.status, item.note) == ("FINISHED", "")
    (path,) = library.rglob("rock.blend")
    with bpy.data.libraries.load(str(path), assets_only=True) as (source, target):
        target.objects = source.objects
    found = [(each.name, each.asset_data.catalog_id, len(each.asset_data.tags)) for each in target.objects]
    assert [each[1:] for each in found] == [(CATALOG, 1)] * 2


CATALOG = "01234567-89ab-cdef-0123-456789abcdef"


def test_what_nobody_foresaw_of_a_catalog_is_told_in_the_row(
    extension: Extension, site: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a window's timer would come back to it for ever, and to nothing that waits behind it."""

    def broken(*_: object) -> Iterator[None]:
        yield
        raise MemoryError

    empty()
    url, folder = site
    (tmp_path / "blender_assets.cats.txt").write_text(f"VERSION 1\n{CATALOG}:Props:Props\n")
    save_blend(folder / "heavy.blend", marked=True)
    libraries = bpy.context.preferences.filepaths.asset_libraries
    libraries.new(name="Kitchen", directory=str(tmp_path))
    rooms = importlib.import_module(f"{extension.package}.session.libraries")
    monkeypatch.setattr(rooms, "put_into_catalog", broken)
    try:
        bpy.ops.downloads.start(urls=f"{url}/heavy.blend", directory=str(tmp_path), catalog="Props")
    finally:
        libraries.remove(libraries[-1])
    (item,) = bpy.context.window_manager.downloads.items
    assert item.status == "FINISHED"
    assert "something unforeseen went wrong" in item.note


def test_what_is_no_asset_says_so_where_a_catalog_was_chosen(
    extension: Extension, site: tuple[str, Path], tmp_path: Path
) -> None:
    empty()
    url, folder = site
    (tmp_path / "blender_assets.cats.txt").write_text(f"VERSION 1\n{CATALOG}:Props:Props\n")
    save_blend(folder / "plain.blend")
    save_image(folder / "moss.png")
    libraries = bpy.context.preferences.filepaths.asset_libraries
    libraries.new(name="Kitchen", directory=str(tmp_path))
    try:
        for name in ("plain.blend", "moss.png"):
            bpy.ops.downloads.start(urls=f"{url}/{name}", directory=str(tmp_path), catalog="Props")
    finally:
        libraries.remove(libraries[-1])
    notes = [item.note for item in bpy.context.window_manager.downloads.items]
    assert notes == [
        "Nothing in it is marked as an asset, so no catalog shows it",
        "Not put into the catalog: only .blend files hold assets",
    ]


def test_a_packed_file_that_this_blender_cannot_unpack_is_there_and_says_so(
    extension: Extension, site: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty()
    url, folder = site
    (tmp_path / "blender_assets.cats.txt").write_text(f"VERSION 1\n{CATALOG}:Props:Props\n")
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "packed.blend"), compress=True)
    for module in ("compression.zstd", "zstandard"):
        monkeypatch.setitem(sys.modules, module, None)
    libraries = bpy.context.preferences.filepaths.asset_libraries
    libraries.new(name="Kitchen", directory=str(tmp_path))
    try:
        bpy.ops.downloads.start(urls=f"{url}/packed.blend", directory=str(tmp_path), catalog="Props")
    finally:
        libraries.remove(libraries[-1])
    (item,) = bpy.context.window_manager.downloads.items
    assert (item.status, item.note) == (
        "FINISHED",
        "Not put into the catalog: it is compressed, and this Blender cannot unpack it."
        " Open the file and choose one in the asset browser",
    )
    assert (tmp_path / "packed.blend").read_bytes() == (folder / "packed.blend").read_bytes()
