"""Panel, list, menus, status bar, preferences: draws only.

A draw method reads the records and `window_manager.downloads`, and changes nothing. What it says is
in `session.words`; here is where it goes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import blf
import bpy

from .operators import is_offline_forced, offline_reason
from .session import current, words
from .session.records import readable
from .session.settings import THREADS_FROM, preferences
from .transfer.portable import downloads_folder
from .workers import Download, Status

ROWS = 5  # of the list, at least
STATUS_BAR_WIDTH = 6.0  # of its progress bar, in units of a button's width
NAME_SHARE = 0.42  # of a row's width, where it has a bar
ROW_MARGINS = 145.0  # pixels at a scale of 1 that a row of the list has beside name and bar
BOX_MARGINS = 70.0  # pixels at a scale of 1 beside the text in a box
SCROLL_BAR = 16.0  # pixels at a scale of 1 that the list's takes where it has more rows than it shows
PADDING = 10.0  # pixels at a scale of 1 beside the text in a bar, or between two texts
ICON_WIDTH = 22.0  # pixels at a scale of 1
Measure = Callable[[str], float]  # how wide a text is, in pixels
ICONS = {
    Status.QUEUED: "TIME",
    Status.RUNNING: "IMPORT",
    Status.PAUSED: "PAUSE",
    Status.FINISHED: "CHECKMARK",
    Status.SKIPPED: "FORWARD",
    Status.FAILED: "ERROR",
    Status.CANCELLED: "X",
}
NEXT_STEPS = {
    Status.QUEUED: ("downloads.pause", "PAUSE"),
    Status.RUNNING: ("downloads.pause", "PAUSE"),
    Status.PAUSED: ("downloads.resume", "PLAY"),
    Status.FINISHED: ("downloads.open_folder", "FILE_FOLDER"),
    Status.SKIPPED: ("downloads.open_folder", "FILE_FOLDER"),
    Status.FAILED: ("downloads.retry", "FILE_REFRESH"),
    Status.CANCELLED: ("downloads.retry", "FILE_REFRESH"),
}
"""The operator and icon of a row's button: what makes sense now."""
REPLACE = ("downloads.replace_link", "URL")


class DOWNLOADS_PT_panel(bpy.types.Panel):
    bl_label = "Downloads"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Downloads"

    def draw(self, context: Any) -> None:
        state = context.window_manager.downloads
        _draw_start(self.layout, state)
        if reason := offline_reason():
            _draw_offline(self.layout, context, reason)
        if state.items:
            _draw_list(self.layout, context, state)
        elif not reason:
            text = "No downloads yet. Copy a link, press the paste button beside the URL field, then Download"
            _draw_text(self.layout.box().column(), context, text, icon="INFO")


def _draw_start(layout: Any, state: Any) -> None:
    row = layout.row(align=True)
    row.prop(state, "urls", text="", placeholder="URL", icon="URL")
    row.operator("downloads.paste", text="", icon="PASTEDOWN")
    row = layout.row(align=True)
    row.prop(state, "directory", text="", placeholder=_default_folder())
    row.menu("DOWNLOADS_MT_folders", text="", icon="DOWNARROW_HLT")
    column = layout.column()
    column.use_property_split = True
    column.use_property_decorate = False
    column.prop(state, "if_exists")
    row = layout.row()
    row.scale_y = 1.4
    # Without a link the operator opens its dialog: the dots say so, as everywhere in Blender.
    text = "Download" if state.urls.strip() else "Download..."
    start = row.operator("downloads.start", text=text, icon="IMPORT")
    start.urls = state.urls
    start.directory = state.directory
    start.if_exists = state.if_exists
    start.when_done = state.when_done


def _default_folder() -> str:
    return readable(getattr(preferences(), "directory", "")) or _own_folder()


@cache
def _own_folder() -> str:
    """The system's Downloads folder, which is not looked up for each drawing."""
    return readable(downloads_folder())


def _draw_offline(layout: Any, context: Any, reason: str) -> None:
    column = layout.box().column()
    _draw_text(column, context, reason, icon="INTERNET_OFFLINE")
    if not is_offline_forced():
        column.operator("screen.userpref_show", text="System Preferences...").section = "SYSTEM"


def _draw_list(layout: Any, context: Any, state: Any) -> None:
    session = current()
    row = layout.row()
    row.template_list("DOWNLOADS_UL_items", "", state, "items", state, "active_index", rows=ROWS)
    active = _active(state)
    _draw_side(row.column(align=True), active)
    if pace := session.mirror.pace:
        layout.progress(factor=pace.share, text=pace.text)
    _draw_text(layout.column(align=True), context, words.totals(session.rows.counts))
    if active:
        _draw_active(layout.box().column(), context, active)


def _active(state: Any) -> Download | None:
    index = state.active_index
    return current().rows.find(state.items[index].uid) if 0 <= index < len(state.items) else None


def _draw_side(column: Any, active: Download | None) -> None:
    if active:
        for direction in ("UP", "DOWN"):
            move = column.operator("downloads.move", text="", icon=f"TRIA_{direction}")
            move.uid, move.direction = active.uid, direction
        column.separator()
        column.operator("downloads.remove", text="", icon="REMOVE").uid = active.uid
        column.separator()
    column.menu("DOWNLOADS_MT_specials", text="", icon="DOWNARROW_HLT")


def _draw_active(column: Any, context: Any, row: Download) -> None:
    _draw_text(column, context, row.name)
    _draw_text(column, context, _sentence(words.line(row)[0]), icon=ICONS[row.status])
    if not (message := row.error or row.note):
        return
    _draw_text(column, context, message)
    buttons = column.row(align=True)
    if row.status in (Status.FAILED, Status.CANCELLED) and not row.is_cut:
        buttons.operator("downloads.retry", icon="FILE_REFRESH").uid = row.uid
    if words.asks_for_link(row):
        _draw_replace(column, row)  # with three in a row its text would be cut off
    buttons.operator("downloads.copy_message", text="Copy", icon="COPYDOWN").uid = row.uid


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


class DOWNLOADS_UL_items(bpy.types.UIList):
    """The downloads"""

    def draw_item(self, context, layout, data, item, icon, active_data, active_property, index):
        row = current().rows.find(item.uid)
        if not row:  # it left the list a moment ago
            layout.label(text=item.name)
            return
        scale, measure = _scale(context), _measure(context)
        scroll_bar = SCROLL_BAR if len(data.items) > ROWS else 0.0
        width = context.region.width - (ROW_MARGINS + scroll_bar) * scale
        draw = _draw_with_bar if row.status in (Status.RUNNING, Status.PAUSED) else _draw_without_bar
        line = draw(layout, row, width, PADDING * scale, measure)
        operator, icon = REPLACE if row.is_cut else NEXT_STEPS[row.status]
        line.operator(operator, text="", icon=icon, emboss=False).uid = row.uid


def _draw_with_bar(layout: Any, row: Download, width: float, padding: float, measure: Measure) -> Any:
    split = layout.split(factor=NAME_SHARE)
    split.label(text=row.name, icon=ICONS[row.status], translate=False)
    line = split.row(align=True)
    room = width * (1.0 - NAME_SHARE) - padding
    line.progress(factor=words.fraction(row), text=words.fitting(words.line(row), room, measure))
    return line


def _draw_without_bar(layout: Any, row: Download, width: float, padding: float, measure: Measure) -> Any:
    """The name has the row, and the state, which the icon tells, what the name leaves."""
    line = layout.row(align=True)
    line.label(text=row.name, icon=ICONS[row.status], translate=False)
    room = width - measure(row.name) - 2.0 * padding
    if text := words.fitting((*words.line(row), ""), room, measure):
        right = line.row()
        right.alignment = "RIGHT"
        right.label(text=text, translate=False)
    return line


# -- Menus.


class DOWNLOADS_MT_folders(bpy.types.Menu):
    bl_label = "Folder"
    bl_description = "Choose a folder that Blender knows"

    def draw(self, context: Any) -> None:
        layout = self.layout
        _draw_folder(layout, f"From Preferences: {_default_folder()}", "", "PREFERENCES")
        if bpy.data.filepath:
            _draw_folder(layout, "Beside the .blend File", "//", "FILE_BLEND")
        else:
            layout.label(text="Beside the .blend File: Save It First", icon="FILE_BLEND")
        libraries = [library for library in context.preferences.filepaths.asset_libraries if library.path]
        if libraries:
            layout.separator()
        for library in libraries:
            _draw_folder(layout, f"{library.name}: {library.path}", library.path, "ASSET_MANAGER")


def _draw_folder(layout: Any, text: str, path: str, icon: str) -> None:
    choose = layout.operator("wm.context_set_string", text=text, icon=icon, translate=False)
    choose.data_path = "window_manager.downloads.directory"
    choose.value = path


class DOWNLOADS_MT_specials(bpy.types.Menu):
    # Entries that would do nothing now are left out: greyed out they could not say why.
    bl_label = "More"
    bl_description = "What else can be done with this download, or with all of them"

    def draw(self, context: Any) -> None:
        if active := _active(context.window_manager.downloads):
            _draw_for_active(self.layout, active)
            self.layout.separator()
        _draw_for_all(self.layout)


def _draw_for_active(layout: Any, row: Download) -> None:
    if row.status in (Status.QUEUED, Status.RUNNING, Status.PAUSED):
        layout.operator("downloads.cancel", icon="X").uid = row.uid
    if row.error or row.note:
        layout.operator("downloads.copy_message", icon="COPYDOWN").uid = row.uid
    if row.is_unfinished:
        _draw_replace(layout, row)
    layout.operator("downloads.open_folder", icon="FILE_FOLDER").uid = row.uid
    for direction, icon in (("TOP", "TRIA_UP_BAR"), ("BOTTOM", "TRIA_DOWN_BAR")):
        move = layout.operator("downloads.move", text=f"Move to {direction.title()}", icon=icon)
        move.uid, move.direction = row.uid, direction
    if row.is_unfinished:
        text = "Remove and Delete Partial File"
        remove = layout.operator("downloads.remove", text=text, icon="TRASH")
        remove.uid, remove.delete_partial = row.uid, True


def _draw_replace(layout: Any, row: Download) -> None:
    layout.operator("downloads.replace_link", text="Replace Link...", icon="URL").uid = row.uid


def _draw_for_all(layout: Any) -> None:
    counts = current().rows.counts
    active = counts[Status.RUNNING] + counts[Status.QUEUED]
    if active:
        layout.operator("downloads.pause", text="Pause All", icon="PAUSE")
    if counts[Status.PAUSED]:
        layout.operator("downloads.resume", text="Resume All", icon="PLAY")
    if counts[Status.FAILED] + counts[Status.CANCELLED]:
        layout.operator("downloads.retry", text="Retry Failed and Cancelled", icon="FILE_REFRESH")
    if active + counts[Status.PAUSED]:
        layout.operator("downloads.cancel", text="Cancel All", icon="CANCEL")
    if counts[Status.FINISHED] + counts[Status.SKIPPED]:
        layout.operator("downloads.clear", icon="CHECKMARK")


def draw_import_menu(self: Any, context: Any) -> None:
    """The entry by which F3 finds the operator."""
    self.layout.operator("downloads.start", icon="IMPORT")


def draw_status_bar(self: Any, context: Any) -> None:
    """How far the run is; nothing while there is none."""
    if pace := current().mirror.pace:
        row = self.layout.row()
        row.ui_units_x = STATUS_BAR_WIDTH + len(pace.text) / 4
        row.progress(factor=pace.share, text=f"Downloads: {pace.text}")


# -- Preferences.


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
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(self, "directory", placeholder=_own_folder())
        layout.prop(self, "workers")
        if self.workers == "AUTOMATIC":
            _draw_value(layout, _automatic())
        system = context.preferences.system
        column = layout.column(heading="Blender's Network Settings")
        column.prop(system, "use_online_access")
        column.prop(system, "network_timeout")
        column.prop(system, "network_connection_limit")


def _automatic() -> str:
    version = ".".join(map(str, sys.version_info[:2]))
    if sys.version_info >= THREADS_FROM:
        return f"Threads in this Blender, which has Python {version}"
    return f"A separate process: threads are not safe in this Blender, which has Python {version}"


def _draw_value(layout: Any, text: str) -> None:
    """A line below the values of split properties."""
    split = layout.split(factor=0.4)
    split.label(text="")
    split.label(text=text)


# -- Text that fits.


def _draw_text(column: Any, context: Any, text: str, *, icon: str = "NONE") -> None:
    """A text in as many lines as the region's width makes it."""
    width = context.region.width - BOX_MARGINS * _scale(context)
    lines = column.column(align=True)
    lines.scale_y = 0.8
    if icon != "NONE":
        width -= ICON_WIDTH * _scale(context)
    for number, line in enumerate(words.wrapped(text, width, _measure(context))):
        lines.label(text=line, icon="BLANK1" if number and icon != "NONE" else icon, translate=False)


def _scale(context: Any) -> float:
    return context.preferences.system.ui_scale


def _measure(context: Any) -> Measure:
    """How wide a text is in pixels, in the font of buttons."""
    blf.size(0, context.preferences.ui_styles[0].widget.points * _scale(context))
    return lambda text: blf.dimensions(0, text)[0]


CLASSES = (
    DOWNLOADS_UL_items,
    DOWNLOADS_MT_folders,
    DOWNLOADS_MT_specials,
    DOWNLOADS_PT_panel,
    DOWNLOADS_preferences,
)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.TOPBAR_MT_file_import.append(draw_import_menu)
    bpy.types.STATUSBAR_HT_header.append(draw_status_bar)


def unregister() -> None:
    bpy.types.STATUSBAR_HT_header.remove(draw_status_bar)
    bpy.types.TOPBAR_MT_file_import.remove(draw_import_menu)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
