"""Panel, list, menus, status bar, preferences: draws only.

What each shows is in `session.drawing`, which comes with the first drawing.
"""

from typing import TYPE_CHECKING, Any

import bpy
from bpy.app.handlers import persistent

from .session import current, peek, soon
from .session.enabling import Lazy

if TYPE_CHECKING:
    from .session.enabling import Registered

dialog = Lazy(".session.dialog", __package__)
drawing = Lazy(".session.drawing", __package__)
settings = Lazy(".session.settings", __package__)


class DOWNLOADS_PT_panel(bpy.types.Panel):
    bl_label = "Downloads"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Downloads"

    def draw(self, context: Any) -> None:
        soon()
        drawing.panel(self.layout, context)


class DOWNLOADS_PT_popover(bpy.types.Panel):
    """Show the list of downloads"""

    bl_label = "Downloads"
    bl_space_type = "TOPBAR"  # a region that draws panels only where they are asked for
    bl_region_type = "HEADER"
    bl_ui_units_x = 18

    def draw(self, context: Any) -> None:
        drawing.overview(self.layout, context)


class DOWNLOADS_UL_items(bpy.types.UIList):
    """The downloads, two lines each: the name, and how far it is or what became of it"""

    def draw_item(self, context, layout, data, item, icon, active_data, active_property, index):
        drawing.item(layout, context, data, item, index, self.list_id)

    def draw_filter(self, context, layout):
        layout.prop(self, "filter_name", text="", icon="VIEWZOOM")

    def filter_items(self, context, data, property):
        flags = current().mirror.shown(data.show, self.filter_name)
        is_true = len(flags) == len(getattr(data, property))  # else all are shown, or rows have no item yet
        return flags if is_true else [], []


class DOWNLOADS_UL_listed(bpy.types.UIList):
    """The files that a list names, each with a box to tick"""

    def draw_item(self, context, layout, data, item, icon, active_data, active_property, index):
        dialog.listed(layout, item)


class DOWNLOADS_MT_folders(bpy.types.Menu):
    bl_label = "Folder"
    bl_description = "Choose a folder that Blender knows"

    def draw(self, context: Any) -> None:
        drawing.folders(self.layout, context)


class DOWNLOADS_MT_specials(bpy.types.Menu):
    # Entries that would do nothing now are left out: greyed out they could not say why.
    bl_label = "More"
    bl_description = "What else can be done with this download, or with all of them"

    def draw(self, context: Any) -> None:
        drawing.specials(self.layout, context)


def draw_row_menu(self: Any, context: Any) -> None:
    """What a right click on a row of the list offers."""
    rows = getattr(context, "ui_list", None)
    if rows and rows.bl_idname == "DOWNLOADS_UL_items":
        drawing.row_menu(self.layout, context)


def draw_import_menu(self: Any, context: Any) -> None:
    """The entry by which F3 finds the operator; the dots are for its dialog."""
    self.layout.operator("downloads.start", text="Download Files...", icon="IMPORT")


def draw_status_bar(self: Any, context: Any) -> None:
    """How far the run is; nothing while there is no run."""
    if (session := peek()) and (pace := session.mirror.pace):
        drawing.status_bar(self.layout, context, pace)


@persistent
def _render_init(*_: Any) -> None:
    """What is imported in a draw method lets other threads in, which Blender 4 does not bear: see `calm`."""
    if not bpy.app.background:  # on a farm nothing is drawn
        drawing.prepare()


def _set_speed(self: Any, context: Any) -> None:
    """Downloads that run go by the new limit."""
    if (session := peek()) and session.host:
        session.host.change(speed_limit=settings.speed_limit())


class DOWNLOADS_preferences(bpy.types.AddonPreferences):
    bl_idname = __package__

    directory: bpy.props.StringProperty(
        name="Folder",
        description="Where downloads go. Empty: your Downloads folder. //: beside the .blend file",
        subtype="DIR_PATH",
    )
    speed_limit: bpy.props.FloatProperty(
        name="Speed Limit",
        description="In MiB a second, over all downloads together. 0: as fast as it goes",
        min=0.0,
        soft_max=100.0,
        step=100,
        precision=1,
        update=_set_speed,
    )
    mirror: bpy.props.StringProperty(
        name="Mirror",
        description="A server of your studio that is asked first, and keeps what it fetches for everybody."
        " {scheme}, {host} and {path} are those of the link",
    )
    workers: bpy.props.EnumProperty(
        name="Workers",
        items=[
            ("AUTOMATIC", "Automatic", "Threads where Blender bears them, else a separate process"),
            ("PROCESS", "Separate Process", "Always a separate process"),
        ],
        default="AUTOMATIC",
    )
    append_or_link: bpy.props.EnumProperty(
        name="Import .blend Files",
        items=[
            ("APPEND", "Append", "Copy what is in the file into yours"),
            ("LINK", "Link", "Keep it in the downloaded file, and use it from there"),
        ],
    )
    resume_at_start: bpy.props.BoolProperty(
        name="Resume at Start",
        description="When Blender starts, go on with what was not finished when it ended, where it may use"
        " the network. What you paused stays paused",
    )

    def draw(self, context: Any) -> None:
        drawing.preferences(self, context)


CLASSES = (
    DOWNLOADS_UL_items,
    DOWNLOADS_UL_listed,
    DOWNLOADS_MT_folders,
    DOWNLOADS_MT_specials,
    DOWNLOADS_PT_panel,
    DOWNLOADS_PT_popover,
    DOWNLOADS_preferences,
)


def register(enabled: "Registered") -> None:
    enabled.classes(*CLASSES)
    enabled.handler(bpy.types.TOPBAR_MT_file_import, draw_import_menu)
    enabled.handler(bpy.types.UI_MT_list_item_context_menu, draw_row_menu)
    enabled.handler(bpy.types.STATUSBAR_HT_header, draw_status_bar)
    enabled.handler(bpy.app.handlers.render_init, _render_init)
