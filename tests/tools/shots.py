"""make shots: a picture of every state that the list can be in, from real windows, into dist/shots.

WINDOWS="5.2 4.3" picks the Blenders, STATES="empty failed" the pictures.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from common import ROOT, Trouble, main, say

sys.path += [str(ROOT / "tests" / "window"), str(ROOT / "tests")]
from blender import Blender, build_extension, extension_id, prepare_profile
from downloading import MODULE, Downloads
from roots import Installation, find, wanted_labels
from server import Server, drip, fail_times, pattern, stall_after, status
from x11 import write_png

SIZE = (1400, 900)  # of the window, in pixels
LARGE = (3840, 2160)  # of a window at a scale of 2
NARROW = 222  # pixels that the sidebar is wide then
MIB = 1 << 20
HEADS = {
    "blend": b"BLENDER-v405",
    "png": b"\x89PNG\r\n\x1a\n",
    "exr": b"\x76\x2f\x31\x01",
    "hdr": b"#?RADIANCE\n",
    "zip": b"PK\x03\x04",
    "glb": b"glTF\x02\x00\x00\x00",
}
NAMES = [
    "dry_riverbed_rock_4k.blend",
    "studio_small_09_8k.exr",
    "moss_normal.png",
    "sponza_atrium.zip",
    "forest_cave_4k.hdr",
    "oak_table_and_chairs.glb",
]
INSIDE = """
def sidebar_width(width):
    'Drags the sidebar\\'s edge.'
    area = view3d()
    region = region_of(area, "UI")
    x, y = region.x + 7, region.y + region.height // 2
    for step in (-30, -5, 0):
        yield from move(x + step, y)
    window().event_simulate(type="LEFTMOUSE", value="PRESS", x=x, y=y)
    end = x + region.width - width
    for part in range(1, 6):
        yield from pause(0.05)
        window().event_simulate(type="MOUSEMOVE", value="NOTHING", x=x + (end - x) * part // 5, y=y)
    yield from pause(0.1)
    window().event_simulate(type="LEFTMOUSE", value="RELEASE", x=end, y=y)
    yield from pause(0.2)
    yield from move(*middle(region_of(area)))
    yield from pause(0.3)

def theme(name):
    folder = bpy.utils.preset_paths("interface_theme")[0]
    menu = "USERPREF_MT_interface_theme_presets"
    with in_view3d():
        bpy.ops.script.execute_preset(filepath=os.path.join(folder, name + ".xml"), menu_idname=menu)

def sidebar():
    region = region_of(view3d(), "UI")
    return region.x, region.y, region.width, region.height

def render():
    scene = bpy.context.scene
    scene.render.engine, scene.cycles.samples, scene.cycles.use_denoising = "CYCLES", 100000, False
    bpy.context.preferences.view.render_display_type = "NONE"
    with in_view3d():
        bpy.ops.render.render("INVOKE_DEFAULT")
"""


class Studio:
    """One Blender, what it downloads, and where its pictures go."""

    def __init__(self, b: Blender, server: Server, folder: Path, pictures: Path) -> None:
        self.b, self.server, self.pictures = b, server, pictures
        b.set_online(True)
        self.downloads = Downloads(b, folder, "threads")  # where Blender bears them
        b.run(INSIDE)
        b.run("bpy.context.preferences.system.network_connection_limit = 6")
        b.run("bpy.context.preferences.system.network_timeout = 100")
        b.steps("show_tab(view3d(), 'Downloads')")

    def add(self, name: str, *behaviours: object, size: int = 64 * MIB, **options: object) -> str:
        """A file of the server's that looks like what its name says."""
        head = HEADS.get(name.rpartition(".")[2], b"")
        body = head + pattern(size - len(head))
        return self.server.add(f"/{name}", *behaviours, body=body, ranges=False, **options)

    def start(self, *urls: str) -> None:
        self.downloads.start(*urls)
        self.b.steps("pause(3.5)")  # until a speed is worth telling

    def take(self, name: str, *, whole: bool = False) -> None:
        """The sidebar, or the whole window, as it is now."""
        self.b.run("session().mirror.flush()")
        self.b.run("for area in window().screen.areas: area.tag_redraw()")
        self.b.steps("pause(0.3)")
        width, height, rgb = self.b.display.picture()
        x, y, w, h = (0, 0, width, height) if whole else self.b.eval("sidebar()")
        top = height - y - h
        rows = (rgb[((top + row) * width + x) * 3 : ((top + row) * width + x + w) * 3] for row in range(h))
        self.pictures.mkdir(parents=True, exist_ok=True)
        write_png(self.pictures / f"{name}.png", w, h, b"".join(rows))
        say(f"  {self.pictures / name}.png")

    def clean(self) -> None:
        """An empty list, and everything as at first."""
        self.b.run("bpy.ops.downloads.cancel()")
        self.b.wait("session().run is None")
        self.b.run("bpy.ops.downloads.remove_all(delete_partial=True)")
        self.b.run("state().show = 'ALL'")


def many(studio: Studio) -> list[str]:
    """Files at every speed, one that fails, and more that wait."""
    rates = (64, 300, 0, 90, 40, 128)
    urls = [
        studio.add(name, *([drip(rate << 10, 0.05)] if rate else []), size=(64 if rate else 2) * MIB)
        for name, rate in zip(NAMES, rates, strict=True)
    ]
    urls.insert(2, studio.add("paid_model_pack.zip", status(403)))
    more = [studio.add(f"leaf_{number:02}.png", drip(64 << 10, 0.05), size=8 * MIB) for number in range(6)]
    return [*urls, *more]


def take_empty(studio: Studio) -> None:
    studio.take("empty")


def take_one(studio: Studio) -> None:
    studio.start(studio.add(NAMES[0], drip(64 << 10, 0.05)))
    studio.take("one")


def take_many(studio: Studio) -> None:
    studio.start(*many(studio))
    studio.take("many")
    studio.take("window", whole=True)
    studio.b.run("state().show = 'RUNNING'")
    studio.take("only-running")
    studio.b.run("state().show = 'ALL'")
    studio.b.steps(f"sidebar_width({NARROW})")
    studio.take("narrow")
    studio.b.steps("sidebar_width(500)")
    studio.take("wide")
    studio.b.steps("sidebar_width(291)")


def take_paused(studio: Studio) -> None:
    studio.start(*many(studio))
    studio.b.run("bpy.ops.downloads.pause()")
    studio.b.wait("'RUNNING' not in statuses()")
    studio.take("paused")


def take_finished(studio: Studio) -> None:
    studio.start(*(studio.add(name, size=MIB) for name in NAMES), studio.add("empty.fbx", size=0))
    studio.downloads.wait("FINISHED")
    studio.take("finished")


def take_failed(studio: Studio) -> None:
    names = "a_name_that_is_longer_than_any_sidebar_is_wide_and_goes_on.blend", "second.zip"
    studio.start(*(studio.add(name, status(code)) for name, code in zip(names, (401, 403), strict=True)))
    studio.downloads.wait("FAILED")
    studio.take("failed")


def take_stalled(studio: Studio) -> None:
    studio.start(studio.add(NAMES[0], stall_after(20 * MIB, studio.server.gate())))
    studio.b.wait("'stalled' in part('session.words').state(session().rows.at(0))")
    studio.take("stalled")


def take_retrying(studio: Studio) -> None:
    studio.start(studio.add(NAMES[0], fail_times(9, 503, {"Retry-After": "60"})))
    studio.b.wait("session().rows.at(0).progress.text")
    studio.take("retrying")


def take_offline(studio: Studio) -> None:
    studio.start(*many(studio)[:4])
    studio.b.set_online(False)
    studio.b.wait("session().run is None")
    studio.take("offline")
    studio.b.set_online(True)


def take_light(studio: Studio) -> None:
    studio.b.run("theme('Blender_Light')")
    studio.start(*many(studio))
    studio.take("light")
    studio.b.run("theme('Blender_Dark')")


def take_ten_thousand(studio: Studio) -> None:
    held = studio.add(NAMES[0], drip(64 << 10, 0.05))
    studio.start(held, *(studio.server.url(f"/texture_{number:04}.png") for number in range(9_999)))
    studio.b.wait("len(state().items) == 10000")
    studio.take("ten-thousand")


def take_dialog(studio: Studio) -> None:
    studio.b.clipboard = "\n".join(studio.add(name) for name in NAMES[:3])
    studio.b.run("with in_view3d(): bpy.ops.downloads.start('INVOKE_DEFAULT')")
    studio.b.steps("pause(2)")
    studio.take("dialog", whole=True)
    studio.b.key("ESC")


def take_token(studio: Studio) -> None:
    studio.b.run("with in_view3d(): bpy.ops.downloads.add_token('INVOKE_DEFAULT', host='files.example')")
    studio.b.steps("pause(0.5)")
    studio.take("token", whole=True)
    studio.b.key("ESC")


def take_menu(studio: Studio) -> None:
    studio.start(*many(studio))
    area = "area=view3d(), region=region_of(view3d(), 'UI')"
    menu = "bpy.ops.wm.call_menu(name='DOWNLOADS_MT_specials')"
    studio.b.run(f"with bpy.context.temp_override({area}): {menu}")
    studio.b.steps("pause(0.5)")
    studio.take("menu", whole=True)
    studio.b.key("ESC")


def take_preferences(studio: Studio) -> None:
    studio.b.run(PREFERENCES)
    studio.b.steps("pause(1)")
    studio.take("preferences", whole=True)
    studio.b.run("area.type = 'VIEW_3D'")
    studio.b.steps("show_tab(view3d(), 'Downloads')")


def take_catalog(studio: Studio) -> None:
    """In the folder of an asset library."""
    studio.b.run("libraries = bpy.context.preferences.filepaths.asset_libraries")
    studio.b.run("libraries.new(name='Kitchen', directory='/srv/kitchen')")
    studio.b.run("kept, state().directory = state().directory, '/srv/kitchen'")
    studio.b.run("state().catalog = 'Props/Rocks'")
    studio.take("catalog")
    studio.b.run("libraries.remove(libraries[-1]); state().directory = kept")


PREFERENCES = f"""
import addon_utils
area = view3d()
area.type = "PREFERENCES"
bpy.context.preferences.active_section = "ADDONS"
bpy.context.window_manager.addon_search = "Background"
for module in addon_utils.modules():
    if module.__name__ == "{MODULE}":
        addon_utils.module_bl_info(module)["show_expanded"] = True
"""


def take_rendering(studio: Studio) -> None:
    """Last: a render is not waited for. What has no validator cannot go on elsewhere."""
    studio.start(
        studio.add(NAMES[0], drip(64 << 10, 0.05), etag=None, last_modified=None),
        studio.add(NAMES[1], drip(64 << 10, 0.05)),
    )
    studio.b.run("render()")
    studio.b.steps("pause(4)")
    studio.take("rendering")


TAKES: dict[str, Callable[[Studio], None]] = {
    name.removeprefix("take_").replace("_", "-"): function
    for name, function in list(globals().items())
    if name.startswith("take_")
}


def take_large(studio: Studio) -> None:
    """In a window of its own: 4K at a scale of 2."""
    studio.b.run("bpy.context.preferences.view.ui_scale = 2")
    studio.start(*many(studio))
    studio.take("large", whole=True)


def tool() -> int:
    chosen = os.environ.get("STATES", "").split() or [*TAKES, "large"]
    if unknown := set(chosen) - {*TAKES, "large"}:
        raise Trouble(f"There is no state {', '.join(sorted(unknown))}: {', '.join(TAKES)}, large.")
    found, notes = find()
    for sentence in notes.values():
        say(sentence)
    labels = [label for label in wanted_labels() if label in found]
    if not labels:
        raise Trouble("There is no Blender to open a window of.")
    for label in labels:
        say(f"Blender {label}")
        _photograph(found[label], [name for name in chosen if name != "large"], SIZE)
        if "large" in chosen:
            _photograph(found[label], ["large"], LARGE)
    return 0


AS_USERS_HAVE_IT = """
bpy.context.preferences.system.use_region_overlap = True
space = view3d().spaces.active
space.overlay.show_overlays = space.show_gizmo = True
"""


def _photograph(installation: Installation, states: list[str], size: tuple[int, int]) -> None:
    if not states:
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shots-")))
        server = stack.enter_context(Server())
        zip_path = build_extension(installation, ROOT, folder / "zip")
        profile = prepare_profile(installation, folder / "profile", zip_path)
        enable = [extension_id(zip_path)]
        blender = Blender(installation, folder / "b", profile=profile, enable=enable, size=size)
        b = stack.enter_context(blender)
        b.run(AS_USERS_HAVE_IT)
        assert MODULE in b.eval("bpy.context.preferences.addons.keys()")
        studio = Studio(b, server, folder / "files", ROOT / "dist" / "shots" / installation.label)
        for name in states:
            (TAKES | {"large": take_large})[name](studio)
            if name != "rendering":
                studio.clean()


if __name__ == "__main__":
    main(tool)
