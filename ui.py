"""Panel, list, menus, status bar, preferences: draws only."""

from __future__ import annotations

from typing import Any

import bpy

from .session import current


class DOWNLOADS_UL_items(bpy.types.UIList):
    """The downloads"""

    def draw_item(self, context, layout, data, item, icon, active_data, active_property, index):
        row = layout.row(align=True)
        row.label(text=item.name)
        row.progress(text=item.status.title(), factor=item.progress)


class DOWNLOADS_PT_panel(bpy.types.Panel):
    bl_label = "Downloads"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Downloads"

    def draw(self, context: Any) -> None:
        state = context.window_manager.downloads
        layout = self.layout
        layout.prop(state, "urls")
        layout.prop(state, "directory")
        layout.operator("downloads.start", text="Download", icon="IMPORT")
        layout.template_list("DOWNLOADS_UL_items", "", state, "items", state, "active_index")


class DOWNLOADS_preferences(bpy.types.AddonPreferences):
    bl_idname = __package__

    directory: bpy.props.StringProperty(
        name="Folder",
        description="Where downloads go. Empty: your Downloads folder. //: beside the .blend file",
        subtype="DIR_PATH",
    )
    workers: bpy.props.EnumProperty(
        name="Workers",
        items=[
            ("AUTOMATIC", "Automatic", "Threads where Blender bears them, else a separate process"),
            ("PROCESS", "Separate Process", "Always a separate process"),
        ],
    )

    def draw(self, context: Any) -> None:
        self.layout.use_property_split = True
        self.layout.prop(self, "directory")
        self.layout.prop(self, "workers")


def draw_menu(self: Any, context: Any) -> None:
    self.layout.operator("downloads.start", icon="IMPORT")


CLASSES = (DOWNLOADS_UL_items, DOWNLOADS_PT_panel, DOWNLOADS_preferences)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.TOPBAR_MT_file_import.append(draw_menu)


def unregister() -> None:
    bpy.types.TOPBAR_MT_file_import.remove(draw_menu)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
