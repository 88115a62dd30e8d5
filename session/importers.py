"""What brings a file into the scene: Blender's own operators and library loader, other people's importers.

Nothing here looks whether Blender is ready for it: `importing` does. Nothing that is code is run or
installed; drivers of appended data follow Blender's own auto-run setting. Main thread.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import bpy

from ..transfer import portable
from .enabling import Lazy
from .unpacking import ImportProblem
from .words import file_icon, readable

blendfile = Lazy(".blendfile", __package__)
damage = Lazy(".damage", __package__)

log = logging.getLogger(__name__)

OPERATORS = {
    ".glb": ("import_scene.gltf",),
    ".gltf": ("import_scene.gltf",),
    ".usd": ("wm.usd_import",),
    ".usda": ("wm.usd_import",),
    ".usdc": ("wm.usd_import",),
    ".usdz": ("wm.usd_import",),
    ".fbx": ("wm.fbx_import", "import_scene.fbx"),
    ".obj": ("wm.obj_import",),
    ".ply": ("wm.ply_import", "import_mesh.ply"),
    ".stl": ("wm.stl_import", "import_mesh.stl"),
    ".abc": ("wm.alembic_import",),
    ".dae": ("wm.collada_import",),  # until Blender 4.5
    ".svg": ("import_curve.svg", "wm.grease_pencil_import_svg", "wm.gpencil_import_svg"),
    ".bvh": ("import_anim.bvh",),
}
"""Blender's own for each type, the best first; in an archive the first type is the one that is taken."""
OPTIONS = {"set_frame_range": False}  # of those that have them: the user's scene keeps its frames
WORLDS = frozenset((".exr", ".hdr"))  # where they are twice as wide as high: a whole sphere
IMAGES = WORLDS.union(
    (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".tga", ".bmp", ".jp2", ".psd", ".dds")
)
CODE = frozenset(
    (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".exe", ".sh", ".bat", ".cmd", ".ps1", ".js")
)
OFFERS_KEPT = 5.0  # seconds; add-ons with importers may be enabled at any time
UNREADABLE = "Blender could not read the file; it may be damaged"
NOTHING = "Blender found nothing in the file to import"
WINDOWS_OWN = frozenset(("screens", "window_managers", "workspaces"))
NOT_APPENDED = WINDOWS_OWN | {"libraries", "scenes", "texts", "version"}


def can_import(path: str) -> bool:
    """Whether something imports files of this type here. Cheap: a draw method may ask for each row."""
    return _can_import(_extension(path), int(time.monotonic() / OFFERS_KEPT))


@lru_cache(maxsize=64)
def _can_import(extension: str, when: int) -> bool:
    return extension in (".blend", ".zip") or extension in IMAGES or bool(_operator(extension))


def no_importer(path: str) -> str:
    """Why files of this type cannot be imported here, and what to do."""
    if file_icon(path) == "FILE_ARCHIVE":
        return "Of archives only .zip can be imported. Unpack it yourself, then use File > Import"
    return "Blender has no importer for this type of file"


def pick(folder: str) -> str:
    """The file in an unpacked archive that is to be imported.

    :raises ImportProblem: there is none, or nobody can say which.
    """
    found = sorted(os.path.join(place, name) for place, _, files in os.walk(folder) for name in files)
    models = [path for path in found if _is_model(path)]
    images = [path for path in found if _extension(path) in IMAGES]
    worlds = [path for path in images if _extension(path) in WORLDS]
    unpacked = f"Unpacked into “{os.path.basename(folder)}”, which holds"
    for paths in (models, worlds, images):  # beside a model, images are its textures
        if best := _best(paths):
            return best
        if paths:
            raise ImportProblem(f"{unpacked} {len(paths):,} files to import: choose one there")
    raise ImportProblem(f"{unpacked} nothing that can be imported")


def _best(paths: list[str]) -> str:
    """The one that is meant: there is no other, or they are one thing in several types; else empty."""
    first, *others = sorted(paths, key=_rank) or [""]
    stems = {os.path.splitext(os.path.basename(path))[0].lower() for path in paths}
    is_one = not others or (_rank(others[0]) > _rank(first) and (len(stems) == 1 or not _rank(first)))
    return first if is_one else ""


def _is_model(path: str) -> bool:
    extension = _extension(path)
    return extension not in IMAGES and extension != ".zip" and can_import(path)


def _rank(path: str) -> int:
    extension = _extension(path)
    if extension == ".blend":
        return 0
    return 1 + (list(OPERATORS).index(extension) if extension in OPERATORS else len(OPERATORS))


def _extension(path: str) -> str:
    return os.path.splitext(path)[1].lower()


# -- Importing.


def bring_in(path: str, collection: Any, *, link: bool = False) -> str:
    """Import a file that is no archive, into a collection and at the 3D cursor, as one undo step.

    Window, area and region are the context's. What a failure left half made is taken away. Returns where it
    is, where no view shows it; else nothing.

    :raises ImportProblem: it cannot be read, or has nothing in it.
    """
    before = set(_data())
    try:
        with _active(collection):
            _bring_in(path, collection, link=link)
        _place(fresh := _fresh(before), collection)
        where = _unseen(fresh)
    except Exception:
        bpy.data.batch_remove(_fresh(before))
        raise
    if bpy.ops.ed.undo_push.poll():
        bpy.ops.ed.undo_push(message=f"Import {os.path.basename(path)}")
    return where


def _bring_in(path: str, collection: Any, *, link: bool) -> None:
    extension = _extension(path)
    if extension == ".blend":
        _load_library(path, collection, link=link)
    elif extension in IMAGES:
        _load_image(path)
    elif operator := _operator(extension):
        _run(operator, path)
    else:
        raise ImportProblem(no_importer(path))


def _unseen(fresh: list[Any]) -> str:
    """Where an image, a world or a material is: a person who sees nothing new would import it again."""
    if any(isinstance(data, bpy.types.Object) for data in fresh):
        return ""
    if any(data == bpy.context.scene.world for data in fresh):
        return "It is the scene's World now, which rendered views show"
    return "It is in the .blend file now: choose it where you need it, since nothing uses it yet"


def _data() -> dict[int, Any]:
    """Every data-block of the file, by the session's uid, once: some are in several collections."""
    kinds = (getattr(bpy.data, name) for name in dir(bpy.data) if name not in WINDOWS_OWN)
    found = (kind for kind in kinds if isinstance(kind, bpy.types.bpy_prop_collection))
    return {data.session_uid: data for kind in found for data in kind}


def _fresh(before: Iterable[int]) -> list[Any]:
    return [data for uid, data in _data().items() if uid not in before]


@contextmanager
def _active(collection: Any) -> Iterator[None]:
    """With this collection active, where the view layer shows it: importers put things there."""
    layer = bpy.context.view_layer
    was = layer.active_layer_collection.collection
    _activate(layer, collection)
    try:
        yield
    finally:
        _activate(layer, was)


def _activate(layer: Any, collection: Any) -> None:
    if found := _find(layer.layer_collection, collection):
        layer.active_layer_collection = found


def _find(shown: Any, collection: Any) -> Any:
    if shown.collection == collection:
        return shown
    return next(filter(None, (_find(child, collection) for child in shown.children)), None)


def _place(fresh: list[Any], collection: Any) -> None:
    """Have new objects and collections in their collection, at the cursor, and selected."""
    objects = [data for data in fresh if isinstance(data, bpy.types.Object)]
    if not fresh or _is_empty(objects):
        raise ImportProblem(NOTHING)
    collections = [data for data in fresh if isinstance(data, bpy.types.Collection)]
    ours = {collection, *collections}
    for data in objects:
        for parent in set(data.users_collection) - ours:
            _move(data, parent.objects, collection.objects)
    masters = (scene.collection for scene in bpy.data.scenes)
    for parent in {*masters, *bpy.data.collections} - ours:
        for data in set(parent.children) & set(collections):
            _move(data, parent.children, collection.children)
    roots = [data for data in objects if not data.library and data.parent not in objects]
    for root in roots:
        root.location += bpy.context.scene.cursor.location
    _select(objects, roots)


def _move(data: Any, source: Any, target: Any) -> None:
    source.unlink(data)
    if data.name not in target:
        target.link(data)


def _select(objects: list[Any], roots: list[Any]) -> None:
    layer = bpy.context.view_layer
    layer.update()
    for data in layer.objects.selected:
        data.select_set(False)
    shown = [data for data in objects if data.name in layer.objects and data.visible_get()]
    for data in shown:
        data.select_set(True)
    for data in [data for data in roots if data in shown][:1]:
        layer.objects.active = data


# -- Operators.


def _operator(extension: str) -> str:
    """The operator that imports this type here, as in `bpy.ops`; empty where there is none."""
    own = (name for name in OPERATORS.get(extension, ()) if _properties(name) and _operation(name).poll())
    return next(own, "") or next(_handlers(extension), "")


def _handlers(extension: str) -> Iterator[str]:
    """Operators of other people's importers, and of Blender's own for types that are not named here.

    https://docs.blender.org/api/current/bpy.types.FileHandler.html
    """
    if not extension or extension in CODE:
        return
    for handler in bpy.types.FileHandler.__subclasses__():
        with suppress(Exception):  # somebody else's code, or a class that Blender never had
            if extension in handler.bl_file_extensions.lower().split(";") and (name := _importer(handler)):
                yield name


def _importer(handler: Any) -> str:
    """The operator of a file handler; empty where it takes no file, or not here."""
    module, is_class, function = handler.bl_import_operator.partition("_OT_")
    name = f"{module.lower()}.{function}" if is_class else str(module)
    takes = "filepath" in _properties(name) and not name.startswith("downloads.")
    poll = getattr(handler, "poll_drop", None)
    return name if takes and (poll is None or poll(bpy.context)) and _operation(name).poll() else ""


def _operation(name: str) -> Any:
    module, _, function = name.partition(".")
    return getattr(getattr(bpy.ops, module), function)


def _properties(name: str) -> frozenset[str]:
    """What an operator can be told; empty where it does not exist: C++ ones are in no registry."""
    try:
        return frozenset(_operation(name).get_rna_type().properties.keys())
    except (AttributeError, KeyError, RuntimeError):
        return frozenset()


def _run(name: str, path: str) -> None:
    if not damage.is_sound(path):
        raise ImportProblem(UNREADABLE)
    known = _properties(name)
    options = {key: value for key, value in OPTIONS.items() if key in known}
    try:
        result = _operation(name)("EXEC_DEFAULT", filepath=path, **options)
    except RuntimeError as error:
        log.info("%s: %s", name, error)
        if "ModuleNotFoundError" in str(error):
            raise ImportProblem("Blender's importer for this type of file lacks a part here") from error
        raise ImportProblem(_why_unreadable(path)) from error
    if "CANCELLED" in result:
        raise ImportProblem(_why_unreadable(path))


def _is_empty(objects: list[Any]) -> bool:
    """Whether there are only meshes without a corner, as Blender's STL importer makes of what is none."""
    meshes = [data for data in objects if data.type == "MESH" and not data.modifiers]
    return bool(objects) and len(meshes) == len(objects) and not any(data.data.vertices for data in meshes)


def _why_unreadable(path: str) -> str:
    """What an importer did not say in words for people."""
    extension = _extension(path)
    if extension == ".blend" and (saved_by := blendfile.saved_by(path) or (0, 0)) > bpy.app.version[:2]:
        # Older Blenders say of what a newer one saved that it is no .blend file.
        what = f"Blender {saved_by[0]}.{saved_by[1]} saved this file, and this older Blender cannot read it"
        return f"{what}. Use that one, or a newer one"
    if extension == ".gltf" and (lacking := _lacking(path)):
        return f"It needs “{lacking}” beside it. Download that into the same folder, then press Import"
    if portable.is_too_long(path):
        return "Its path is too long for Blender. Move it to a shorter one, then use File > Import"
    return UNREADABLE


def _lacking(path: str) -> str:
    """What a .gltf has its shapes in, and is not there (glTF 2.0, section 3.6.1); empty if all is."""
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        with open(portable.reach(path), encoding="utf-8") as file:
            places = [buffer.get("uri", "data:") for buffer in json.load(file)["buffers"]]
        names = [unquote(place) for place in places if not place.startswith("data:")]
        folder = os.path.dirname(path)
        gone = (name for name in names if not os.path.exists(portable.reach(os.path.join(folder, name))))
        return readable(next(gone, ""))
    return ""


# -- Blender's own files.


def _load_library(path: str, collection: Any, *, link: bool) -> None:
    """Its marked assets, else its collections and the objects that are in none, else what it has."""
    libraries = set(bpy.data.libraries)
    try:
        found = (
            _load(path, None, link=link, assets_only=True)
            or _load(path, ("collections", "objects"), link=link)
            or _load(path, None, link=link)
        )
    except OSError as error:
        raise ImportProblem(_why_unreadable(path)) from error
    if not link:  # what is left of it holds nothing
        bpy.data.batch_remove(set(bpy.data.libraries) - libraries)
    for data in found:
        if data.asset_data and not link:
            data.asset_clear()  # or it would be an asset of the user's file, too
    for data in [data for data in found if not data.users]:  # others belong to one of these
        _keep(data, collection, link=link)


def _load(path: str, kinds: Iterable[str] | None, *, link: bool, assets_only: bool = False) -> list[Any]:
    relative = link and bool(bpy.data.filepath) and bpy.context.preferences.filepaths.use_relative_paths
    library = bpy.data.libraries.load(path, link=link, relative=relative, assets_only=assets_only)
    with library as (source, target):
        kinds = kinds or _kinds(source)
        for kind in kinds:
            setattr(target, kind, getattr(source, kind))
    return [data for kind in kinds for data in getattr(target, kind) if data]


def _kinds(source: Any) -> list[str]:
    return [
        kind for kind in dir(source) if kind not in NOT_APPENDED and isinstance(getattr(source, kind), list)
    ]


def _keep(data: Any, collection: Any, *, link: bool) -> None:
    if isinstance(data, bpy.types.Object):
        collection.objects.link(data)
    elif isinstance(data, bpy.types.Collection) and link:
        instance = bpy.data.objects.new(data.name, None)
        instance.instance_type, instance.instance_collection = "COLLECTION", data
        collection.objects.link(instance)
    elif isinstance(data, bpy.types.Collection):
        collection.children.link(data)
    else:
        data.use_fake_user = True  # a material, a node group: nothing uses it yet


# -- Images.


def _load_image(path: str) -> None:
    try:
        image = bpy.data.images.load(path)
    except RuntimeError as error:
        raise ImportProblem(_why_unreadable(path)) from error
    width, height = image.size  # Blender reads it now
    if not (width and height):
        raise ImportProblem(_why_unreadable(path))
    if _extension(path) in WORLDS and width == 2 * height:
        _make_world(image)
    else:
        image.use_fake_user = True  # nothing uses it yet


def _make_world(image: Any) -> None:
    """A new world that shines with the image; the old one is kept."""
    scene = bpy.context.scene
    world = bpy.data.worlds.new(os.path.splitext(image.name)[0])
    if not world.node_tree:  # before Blender 5.0
        world.use_nodes = True
    nodes, links = world.node_tree.nodes, world.node_tree.links
    background = next(node for node in nodes if node.type == "BACKGROUND")
    texture = nodes.new("ShaderNodeTexEnvironment")
    texture.image, texture.location = image, (background.location.x - 300.0, background.location.y)
    links.new(texture.outputs["Color"], background.inputs["Color"])
    if scene.world:
        scene.world.use_fake_user = True
    scene.world = world
