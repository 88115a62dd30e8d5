"""Fetches an asset with a checksum while Blender stays usable, and links its objects into the scene."""

import bpy

from . import downloads  # make vendor NAME=asset_fetcher DIR=examples

URL = "https://example.org/rock.blend#sha256=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
fetching = None


class ASSET_FETCHER_OT_fetch(bpy.types.Operator):
    """Fetch the asset and link it into the scene"""

    bl_idname = "asset_fetcher.fetch"
    bl_label = "Fetch Asset"

    def execute(self, context):
        global fetching
        folder = bpy.utils.user_resource("DATAFILES", path="asset_fetcher", create=True)
        fetching = downloads.fetch(URL, folder, if_exists="UPDATE", done=link, progress=redraw)
        return {"FINISHED"}


def redraw(handle):
    for area in bpy.context.screen.areas:
        area.tag_redraw()


def link(handle):
    if path := handle.results[0].path:
        with bpy.data.libraries.load(path, link=True) as (there, here):
            here.objects = there.objects
        for linked in set(here.objects) - set(bpy.context.scene.collection.objects):
            bpy.context.scene.collection.objects.link(linked)
        bpy.ops.ed.undo_push(message="Fetch Asset")


class ASSET_FETCHER_PT_panel(bpy.types.Panel):
    bl_label = bl_category = "Asset Fetcher"
    bl_space_type, bl_region_type = "VIEW_3D", "UI"

    def draw(self, context):
        if fetching and not fetching.is_done:
            self.layout.progress(factor=fetching.fraction, text="Fetching")
        else:
            self.layout.operator("asset_fetcher.fetch")
            self.layout.label(text=fetching.results[0].error if fetching else "")


def register():
    downloads.register()
    bpy.utils.register_class(ASSET_FETCHER_OT_fetch)
    bpy.utils.register_class(ASSET_FETCHER_PT_panel)


def unregister():
    bpy.utils.unregister_class(ASSET_FETCHER_PT_panel)
    bpy.utils.unregister_class(ASSET_FETCHER_OT_fetch)
    downloads.unregister()
