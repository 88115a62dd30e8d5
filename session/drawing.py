"""What panel, list, menus, dialogs and preferences show; imported when the first of them is drawn.

It reads the records and `window_manager.downloads`, and changes nothing. What it says is in `words`; here
is where it goes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import blf
import bpy

from ..transfer import names, portable, space
from ..workers import Status
from . import current, importers, libraries, settings, words
from .enabling import Lazy
from .online import is_offline_forced, offline_reason
from .state import SHOW, DOWNLOADS_PG_state

if TYPE_CHECKING:
    from ..workers import Download
    from .words import Measure, Pace, Room

links = Lazy(".links", __package__)
queue = Lazy(".queue", __package__)
mirrors = Lazy("..transfer.mirrors", __package__)

ROWS = 5  # of the list, at least
HAS_POPOVER = bpy.app.version >= (5, 0, 0)  # in the status bar; before, it opens nothing there
POPOVER = "popover"  # the id of the list in what it opens
STATUS_BAR_UNITS = 11.0  # of a button's height that the status bar's text takes: as wide as its longest one
UNIT = 20.0  # pixels at a scale of 1
ROW_MARGINS = 88.0  # pixels at a scale of 1 that a row of the list has beside its bar
OVERALL_MARGINS = 90.0  # likewise, of the line for all
BOX_MARGINS = 70.0  # pixels at a scale of 1 beside the text in a box
SCROLL_BAR = 16.0  # pixels at a scale of 1 that the list's takes where it has more rows than it shows
ICON_WIDTH = 22.0  # pixels at a scale of 1
LABEL_ICON = 38.0  # likewise, that a label with an icon has less for its text than a bar
WIDE = 260.0  # pixels at a scale of 1 of a region whose filter has room for numbers
LEFTOVERS = 20  # partial files that the preferences list
LABEL = 0.4  # of the width that the label of a field has
LABEL_WHERE_NARROW = 0.46
LOW = 0.7  # the height of a row's second line, as a part of a button's
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
IMPORT = ("downloads.import_file", "IMPORT")
ICONS = {
    Status.QUEUED: "TIME",
    Status.RUNNING: "IMPORT",
    Status.PAUSED: "PAUSE",
    Status.FINISHED: "CHECKMARK",
    Status.SKIPPED: "CHECKMARK",
    Status.FAILED: "ERROR",
    Status.CANCELLED: "X",
}


def prepare() -> None:
    """Import what drawing may need. Any thread."""
    from ..transfer import mirrors  # noqa: F401
    from . import importing, links  # noqa: F401
    from .session import Session  # noqa: F401


# -- The panel, and what a click on the status bar opens.


def panel(layout: Any, context: Any) -> None:
    """All of it."""
    state = context.window_manager.downloads
    view = _view(context, context.region.width)
    _draw_start(layout, state, is_wide=view.is_wide)
    if reason := offline_reason():
        _draw_offline(layout, view, reason)
    if state.items:
        _draw_overall(layout, view)
        _draw_list(layout, view, state)
    elif not reason:
        text = "No downloads yet. Copy a link, press the paste button beside the URL field, then Download"
        _draw_text(layout.box().column(), view, text, icon="INFO")


def overview(layout: Any, context: Any) -> None:
    """What a click on the status bar opens."""
    _draw_overall(layout, _view(context, _popover_width(context)))
    _draw_rows(layout, context.window_manager.downloads, POPOVER)


# -- Above the list.


def _draw_start(layout: Any, state: Any, *, is_wide: bool) -> None:
    row = layout.row(align=True)
    row.prop(state, "urls", text="", placeholder="URL", icon="URL")
    row.operator("downloads.paste", text="", icon="PASTEDOWN")
    row = layout.row(align=True)
    row.prop(state, "directory", text="", placeholder=default_folder())
    row.menu("DOWNLOADS_MT_folders", text="", icon="DOWNARROW_HLT")
    catalog(layout, state, text="", placeholder="Catalog: As in the File")
    column = layout.column()
    for name in ("if_exists", "when_done"):
        _draw_choice(column, state, name, LABEL if is_wide else LABEL_WHERE_NARROW)
    row = layout.row()
    row.scale_y = 1.4
    start = row.operator("downloads.start", text=_start_text(state.urls), icon="IMPORT")
    # For a list nothing: then a dialog shows what it names.
    start.urls = "" if state.urls and links.names_list(state.urls) else state.urls
    start.directory = state.directory
    start.if_exists = state.if_exists
    start.when_done = state.when_done
    start.catalog = state.catalog


def catalog(layout: Any, fields: Any, **options: Any) -> None:
    """In an asset library: the catalog that assets go into."""
    if libraries.library_meant(fields.directory):
        layout.prop(fields, "catalog", icon="ASSET_MANAGER", **options)


def _draw_choice(layout: Any, state: Any, name: str, factor: float) -> None:
    """As Blender splits a property and its label, and with room for the label where it would cut it off."""
    split = layout.split(factor=factor)
    label = split.row()
    label.alignment = "RIGHT"
    label.label(text=_name_of(name))
    split.prop(state, name, text="")


@cache
def _name_of(field: str) -> str:
    """What a field of the panel's is called."""
    return str(DOWNLOADS_PG_state.bl_rna.properties[field].name)


@lru_cache(maxsize=1)
def _start_text(urls: str) -> str:
    """What the button says. Without a link it opens a dialog: the dots say so, as everywhere in Blender."""
    if not urls.strip():
        return "Download..."
    if links.names_list(urls):
        return "Choose Files..."
    count = links.count_links(urls)
    return f"Download {count:,} Files" if count > 1 else "Download"


def default_folder() -> str:
    """Where downloads go that no folder is given for, for people."""
    return words.readable(getattr(settings.preferences(), "directory", "")) or _own_folder()


@cache
def _own_folder() -> str:
    """The system's Downloads folder, which is not looked up for each drawing."""
    path, home = portable.downloads_folder(), os.path.expanduser("~")
    return words.readable("~" + path[len(home) :] if path.startswith(os.path.join(home, "")) else path)


def _draw_offline(layout: Any, view: _View, reason: str) -> None:
    column = layout.box().column()
    _draw_text(column, view, reason, icon="INTERNET_OFFLINE")
    if not is_offline_forced():
        column.operator("screen.userpref_show", text="System Preferences...").section = "SYSTEM"


def _draw_overall(layout: Any, view: _View) -> None:
    """One line for all downloads, always in the same place: how far they are, or what there is to resume."""
    session, line = current(), layout.row(align=True)
    counts = session.rows.counts
    text_width = view.width - OVERALL_MARGINS * view.scale
    if pace := session.mirror.pace:
        line.progress(factor=pace.share, text=pace.text(text_width, view.measure))
    else:
        line.label(text=words.clipped(words.totals(counts), text_width, view.measure), translate=False)
    if counts[Status.RUNNING] + counts[Status.QUEUED]:
        line.operator("downloads.pause", text="", icon="PAUSE")
    elif counts[Status.PAUSED]:
        line.operator("downloads.resume", text="", icon="PLAY")
    if any(counts[status] for status in (Status.RUNNING, Status.QUEUED, Status.PAUSED)):
        line.operator("downloads.cancel", text="", icon="X")


# -- The list.


def _draw_list(layout: Any, view: _View, state: Any) -> None:
    active = _active(state)
    column = layout.column(align=True)
    _draw_filter(column.row(align=True), view, state)
    _draw_rows(column, state)
    _draw_tools(layout.row(align=True), active)
    if active:
        _draw_active(layout.box().column(), view, active)


def _draw_filter(line: Any, view: _View, state: Any) -> None:
    counts = current().rows.counts
    numbers = {"ALL": len(current().rows), **{status.value: count for status, count in counts.items()}}
    for show, name, _ in SHOW:
        number = numbers.get(show, 0)
        line.prop_enum(state, "show", show, text=f"{name} {number:,}" if number and view.is_wide else name)


def _draw_rows(layout: Any, state: Any, name: str = "") -> None:
    layout.template_list("DOWNLOADS_UL_items", name, state, "items", state, "active_index", rows=ROWS)


def _active(state: Any) -> Download | None:
    """The active row, where the list shows it."""
    row = current().mirror.row(state, state.active_index)
    return row if row and state.show in ("ALL", row.status) else None


def _draw_tools(line: Any, active: Download | None) -> None:
    """Under the list, whose names need the width."""
    line.alignment = "RIGHT"
    if active:
        for direction in ("UP", "DOWN"):
            move = line.operator("downloads.move", text="", icon=f"TRIA_{direction}")
            move.uid, move.direction = active.uid, direction
        line.operator("downloads.remove", text="", icon="REMOVE").uid = active.uid
    line.menu("DOWNLOADS_MT_specials", text="", icon="DOWNARROW_HLT")


def item(layout: Any, context: Any, data: Any, item: Any, index: int, list_id: str) -> None:
    """A row of the list, two lines: the name, and how far it is or what became of it."""
    row = current().rows.find(item.uid)
    if not row:  # it left the list a moment ago
        layout.label(text=item.name)
        return
    width = _popover_width(context) if list_id == POPOVER else context.region.width
    margins = ROW_MARGINS + (SCROLL_BAR if len(data.items) > ROWS else 0.0)
    view = _view(context, width - margins * _scale(context))
    line = layout.row(align=True)
    column = line.column(align=True)
    is_active = index == data.active_index
    column.alert = row.status is Status.FAILED and not is_active  # red on blue, or red and white
    around = (current().rows.at(place) for place in (index - 1, index + 1))
    name = _told_apart(view, row.name, *(other.name for other in around if other))
    column.label(text=name, icon=words.file_icon(row.name), translate=False)
    low = column.row(align=True)
    low.scale_y = LOW
    _draw_second(low, view, row, is_active)
    operator, icon = _next_step(row)
    line.operator(operator, text="", icon=icon, emboss=False).uid = row.uid


@lru_cache(maxsize=64)  # more than are shown
def _told_apart(view: _View, name: str, *others: str) -> str:
    return words.told_apart(name, others, view.width - LABEL_ICON * view.scale, view.measure)


def _popover_width(context: Any) -> float:
    return bpy.types.DOWNLOADS_PT_popover.bl_ui_units_x * UNIT * _scale(context)


def _next_step(row: Download) -> tuple[str, str]:
    """The operator and icon of a row's button."""
    if row.is_cut:
        return REPLACE
    if row.when_done != "IMPORT" and _can_import(row):
        return IMPORT
    return NEXT_STEPS[row.status]


def _can_import(row: Download) -> bool:
    return not row.is_unfinished and importers.can_import(row.filepath)


def _draw_second(low: Any, view: _View, row: Download, is_active: bool) -> None:
    """The second line of a row; the active row's is in a light theme's white, on grey."""
    if row.status in (Status.RUNNING, Status.PAUSED):
        texts = words.line(row, view.room)
        low.progress(factor=row.fraction, text=words.fitting(texts, view.width, view.measure))
        return
    message = row.error if row.status is Status.FAILED else row.note if not row.is_unfinished else ""
    low.active = is_active or bool(message)
    icon = "INFO" if message and not row.error else ICONS[row.status]
    texts = (words.first_sentence(message),) if message else words.line(row, view.room)
    width = view.width - LABEL_ICON * view.scale
    text = words.clipped(words.fitting(texts, width, view.measure), width, view.measure)
    low.label(text=words.sentence(text), icon=icon, translate=False)


# -- The box of the active row.


def _draw_active(column: Any, view: _View, row: Download) -> None:
    _draw_text(column, view, row.name)
    _draw_text(column, view, words.sentence(words.line(row, view.room_in_box)[0]), icon=ICONS[row.status])
    if message := row.error or row.note:
        _draw_text(column, view, message)
    if row.is_unfinished:
        _draw_text(column, view, words.received(row))
    else:
        _draw_text(column, view, words.readable(row.filepath))
    _draw_buttons(column, view, row)


def _draw_buttons(column: Any, view: _View, row: Download) -> None:
    """What else can be done with it; two in a row, where their texts are not cut off."""
    columns = 2 if view.is_wide else 1
    buttons = column.grid_flow(row_major=True, columns=columns, even_columns=True, align=True)
    if not row.is_unfinished:
        if _can_import(row):
            buttons.operator("downloads.import_file", icon="IMPORT").uid = row.uid
        buttons.operator("downloads.open_folder", icon="FILE_FOLDER").uid = row.uid
        buttons.operator("downloads.copy_path", icon="COPYDOWN").uid = row.uid
        return
    if row.status in (Status.FAILED, Status.CANCELLED) and not row.is_cut:
        buttons.operator("downloads.retry", icon="FILE_REFRESH").uid = row.uid
    if row.status is Status.FAILED:
        _draw_replace(buttons, row)
    if row.status is Status.FAILED and words.readable(row.directory) in row.error:
        _draw_change_folder(buttons, row)
    if "in the preferences" in row.error:
        add = buttons.operator("downloads.add_token", text="Add Token...", icon="KEYINGSET")
        add.host = names.shown(row.url)
    if row.error or row.note:
        buttons.operator("downloads.copy_message", text="Copy Error", icon="COPYDOWN").uid = row.uid


# -- Menus, the status bar.


def folders(layout: Any, context: Any) -> None:
    """The folders that Blender knows."""
    _draw_folder(layout, f"From Preferences: {default_folder()}", "", "PREFERENCES")
    if bpy.data.filepath:
        _draw_folder(layout, "Beside the .blend File", "//", "FILE_BLEND")
    else:
        layout.label(text="Beside the .blend File: Save It First", icon="FILE_BLEND")
    known = [library for library in context.preferences.filepaths.asset_libraries if library.path]
    if known:
        layout.separator()
    for library in known:
        _draw_folder(layout, f"{library.name}: {library.path}", library.path, "ASSET_MANAGER")


def _draw_folder(layout: Any, text: str, path: str, icon: str) -> None:
    choose = layout.operator("wm.context_set_string", text=text, icon=icon, translate=False)
    choose.data_path = "window_manager.downloads.directory"
    choose.value = path


def specials(layout: Any, context: Any) -> None:
    """What else can be done with the active download, or with all."""
    if active := _active(context.window_manager.downloads):
        _draw_for_active(layout, active)
        layout.separator()
    _draw_for_all(layout)


def row_menu(layout: Any, context: Any) -> None:
    """What a right click on a row of the list offers."""
    if active := _active(context.window_manager.downloads):
        layout.separator()
        _draw_for_active(layout, active)


def _draw_for_active(layout: Any, row: Download) -> None:
    operator, icon = NEXT_STEPS[row.status]
    if row.is_unfinished and not row.is_cut:
        layout.operator(operator, icon=icon).uid = row.uid
    if row.status in queue.UNDER_WAY:
        layout.operator("downloads.cancel", icon="X").uid = row.uid
    if row.is_unfinished:
        _draw_replace(layout, row)
    if row.status is Status.FAILED and not row.is_cut:
        _draw_change_folder(layout, row)
    if _can_import(row):
        layout.operator("downloads.import_file", icon="IMPORT").uid = row.uid
    layout.operator("downloads.open_folder", icon="FILE_FOLDER").uid = row.uid
    if not row.is_unfinished:
        layout.operator("downloads.copy_path", icon="COPYDOWN").uid = row.uid
    if row.error or row.note:
        text = "Copy Error" if row.error else "Copy Note"
        layout.operator("downloads.copy_message", text=text, icon="COPYDOWN").uid = row.uid
    for direction, icon in (("TOP", "TRIA_UP_BAR"), ("BOTTOM", "TRIA_DOWN_BAR")):
        move = layout.operator("downloads.move", text=f"Move to {direction.title()}", icon=icon)
        move.uid, move.direction = row.uid, direction
    text = _with_dots("Remove from List", [row])
    layout.operator("downloads.remove", text=text, icon="REMOVE").uid = row.uid


def _draw_replace(layout: Any, row: Download) -> None:
    layout.operator("downloads.replace_link", text="Replace Link...", icon="URL").uid = row.uid


def _draw_change_folder(layout: Any, row: Download) -> None:
    layout.operator("downloads.change_folder", text="Change Folder...", icon="FILE_FOLDER").uid = row.uid


def _with_dots(text: str, rows: Iterable[Download]) -> str:
    """Dots say that a question follows: what is to become of what was received."""
    return f"{text}..." if any(row.received and row.is_unfinished for row in rows) else text


def _draw_for_all(layout: Any) -> None:
    counts = current().rows.counts
    active = counts[Status.RUNNING] + counts[Status.QUEUED]
    stopped = counts[Status.FAILED], counts[Status.CANCELLED]
    if active:
        layout.operator("downloads.pause", text="Pause All", icon="PAUSE")
    if counts[Status.PAUSED]:
        layout.operator("downloads.resume", text="Resume All", icon="PLAY")
    if any(stopped):
        layout.operator("downloads.retry", text="Retry Failed and Cancelled", icon="FILE_REFRESH")
    if number := active + counts[Status.PAUSED]:
        text = "Cancel All..." if number > 1 else "Cancel All"
        layout.operator("downloads.cancel", text=text, icon="CANCEL")
    layout.separator()
    if counts[Status.FINISHED] + counts[Status.SKIPPED]:
        layout.operator("downloads.clear", icon="CHECKMARK")
    for status in (Status.FAILED, Status.CANCELLED):
        if counts[status]:
            _draw_remove(layout, f"Remove All {status.value.title()}", status.value)
    if all(stopped):
        _draw_remove(layout, "Remove All Failed and Cancelled", "FAILED_AND_CANCELLED")
    if current().rows:
        _draw_remove(layout, "Remove All", "ALL")


def _draw_remove(layout: Any, text: str, which: str) -> None:
    text = _with_dots(text, current().rows.of(which))
    layout.operator("downloads.remove_all", text=text, icon="TRASH").which = which


def status_bar(layout: Any, context: Any, pace: Pace) -> None:
    """How far the run is, at a fixed width; a click opens the list."""
    view = _view(context, (STATUS_BAR_UNITS - 2.0) * UNIT * _scale(context))
    text = pace.text(view.width, view.measure)
    line = layout.row(align=True)
    opener = line.row(align=True)
    opener.ui_units_x = STATUS_BAR_UNITS
    if HAS_POPOVER:
        opener.popover("DOWNLOADS_PT_popover", text=text, icon="IMPORT", translate=False)
    else:
        opener.operator("downloads.show_list", text=text, icon="IMPORT", translate=False)
    line.operator("downloads.pause", text="", icon="PAUSE")


# -- Dialogs.


def partial(operator: Any, rows: list[Download]) -> None:
    """What leaves the list, and whether what was received of it is to go."""
    what = f"{len(rows):,} downloads leave the list"
    if len(rows) == 1:
        what = f"“{rows[0].name}” is not finished"
    size = space.amount(queue.received_by(rows))
    column = operator.layout.column()
    column.label(text=what, translate=False)
    column.prop(operator, "delete_partial", text=f"Delete the {size} Received")


# -- Preferences.


def preferences(preferences: Any, context: Any) -> None:
    """The extension's, and those of Blender's that downloads go by."""
    layout = preferences.layout
    layout.use_property_split = True
    layout.use_property_decorate = False
    layout.prop(preferences, "directory", placeholder=_own_folder())
    layout.prop(preferences, "speed_limit", text="Speed Limit (MiB/s)")
    _draw_mirror(preferences, layout, context)
    layout.prop(preferences, "workers")
    if preferences.workers == "AUTOMATIC":
        _draw_value(layout, _automatic())
    layout.prop(preferences, "append_or_link")
    layout.prop(preferences, "resume_at_start")
    system = context.preferences.system
    column = layout.column(heading="Blender's Network Settings")
    column.prop(system, "use_online_access")
    column.prop(system, "network_timeout")
    column.prop(system, "network_connection_limit")
    _draw_tokens(layout)
    _draw_leftovers(layout)


def _draw_mirror(preferences: Any, layout: Any, context: Any) -> None:
    is_fixed = bool(os.environ.get(settings.MIRROR_VARIABLE))
    line = layout.row()
    line.enabled = not is_fixed
    line.prop(preferences, "mirror", placeholder=mirrors.EXAMPLE)
    if is_fixed:
        _draw_value(layout, f"Set for this computer by {settings.MIRROR_VARIABLE}")
    if trouble := settings.mirror_trouble():
        _draw_text(layout, _view(context, context.region.width), trouble, icon="ERROR")


def _draw_tokens(layout: Any) -> None:
    box = layout.box().column()
    head = box.row()
    head.label(text="Access Tokens", icon="KEYINGSET")
    head.operator("downloads.add_token", text="Add...", icon="ADD")
    for host in settings.tokens.known:
        line = box.row()
        line.label(text=host, translate=False)
        line.operator("downloads.remove_token", text="", icon="X").host = host
    if not settings.tokens.known:
        box.label(text="None. Some servers want one before they give a file")


def _draw_leftovers(layout: Any) -> None:
    box, found = layout.box().column(), current().leftovers
    head = box.row()
    head.label(text="Partial Files That No List Has", icon="TRASH")
    head.operator("downloads.find_leftovers", text="Find", icon="VIEWZOOM")
    if found is None:
        return
    for each in found[:LEFTOVERS]:
        line = box.row()
        age = f"{words.left(each.age)} old"
        line.label(text=f"{each.title}, {space.amount(each.size)}, {age}", translate=False)
        line.label(text=words.readable(each.directory), icon="FILE_FOLDER", translate=False)
        delete = line.operator("downloads.delete_leftovers", text="", icon="TRASH")
        delete.directory, delete.name = each.directory, each.name
    if found:
        size = space.amount(sum(each.size for each in found))
        box.operator("downloads.delete_leftovers", text=f"Delete All {len(found):,}, {size}...", icon="TRASH")
    elif not current().silent:
        box.label(text="None found")
    for folder in current().silent[:LEFTOVERS]:
        box.label(text=f"{words.readable(folder)} does not answer", icon="ERROR", translate=False)


def _automatic() -> str:
    version = ".".join(map(str, sys.version_info[:2]))
    if sys.version_info >= settings.THREADS_FROM:
        return f"Threads in this Blender, which has Python {version}"
    return f"A separate process: threads are not safe in this Blender, which has Python {version}"


def _draw_value(layout: Any, text: str) -> None:
    """A line below the values of split properties."""
    split = layout.split(factor=0.4)
    split.label(text="")
    split.label(text=text)


# -- Text that fits.


class _View:
    """How much room there is, in pixels, and what fits into it."""

    def __init__(self, width: float, scale: float, points: float) -> None:
        """`points`: the size of text at a scale of 1."""
        self.width = width
        self.scale = scale
        self.measure: Measure = _width

    @cached_property
    def room(self) -> Room:
        """How much a bar of this width says."""
        return words.room(self.width, self.measure)

    @cached_property
    def room_in_box(self) -> Room:
        """How much a line in a box says; what was received has a line of its own."""
        width = self.width - (BOX_MARGINS + ICON_WIDTH) * self.scale
        return max(words.Room.PACE, words.room(width, self.measure))

    @property
    def is_wide(self) -> bool:
        """Whether three buttons in a row have room for a number each."""
        return self.width >= WIDE * self.scale


def _draw_text(column: Any, view: _View, text: str, *, icon: str = "NONE") -> None:
    """A text in as many lines as the region's width makes it."""
    width = view.width - BOX_MARGINS * view.scale
    lines = column.column(align=True)
    lines.scale_y = 0.8
    if icon != "NONE":
        width -= ICON_WIDTH * view.scale
    for number, line in enumerate(words.wrapped(text, width, view.measure)):
        lines.label(text=line, icon="BLANK1" if number and icon != "NONE" else icon, translate=False)


def _scale(context: Any) -> float:
    return context.preferences.system.ui_scale


_kept = lru_cache(maxsize=16)(_View)  # what fits is the same in all rows, and the next time


def _view(context: Any, width: float) -> _View:
    """What fits into so many pixels of text in the font of buttons, which others may have changed since."""
    scale, points = _scale(context), context.preferences.ui_styles[0].widget.points
    blf.size(0, points * scale)
    return _kept(width, scale, points)


def _width(text: str) -> float:
    return float(blf.dimensions(0, text)[0])
