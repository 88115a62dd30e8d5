"""The dialog that asks before it starts: what it looks at, what it draws, and when nobody looks any more."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from typing import Any

import bpy

from ..transfer import names
from ..transfer.job import IfExists, TransferError
from ..workers import Host, ProcessHost, ThreadHost, share
from . import peek, popup, words
from . import settings as preferred
from .ahead import CONNECTIONS, HANDFUL, Ahead, File, facts
from .state import state_of
from .words import readable

LOOK = 0.1  # seconds between two looks at what servers have said
LINE = 76  # characters that a line of the dialog has room for
NONE_CHOSEN = "No file of the list was chosen. Open the list again, and tick those that you want"
NAME = 0.6  # the part of a line that a name takes


def show(links: list[names.Link], directory: str, if_exists: str) -> None:
    """Look at these links, for a dialog that is open or opens now."""
    if not (session := peek()):  # the add-on was disabled
        return
    session.ahead.show(links, _host)
    _weigh(session.ahead, directory, if_exists)
    if not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, first_interval=LOOK, persistent=True)


def leave() -> None:
    """The dialog is gone, or goes."""
    if session := peek():
        session.ahead.leave()


def _host() -> Host:
    settings = preferred.settings()
    in_process = preferred.wants_process() or preferred.is_rendering()
    few = replace(settings, connections=min(CONNECTIONS, settings.connections))
    return ProcessHost(few) if in_process else ThreadHost(few)


def _weigh(ahead: Ahead, directory: str, if_exists: str) -> None:
    folder = problem = ""
    try:
        folder = preferred.folder(directory)
    except TransferError as error:
        problem = readable(str(error))
    ahead.weigh(folder, IfExists(if_exists), problem)
    _offer(ahead)


def _offer(ahead: Ahead) -> None:
    """Have what lists name in Blender, where people can choose from it."""
    if not (state := state_of(bpy.context)):
        return
    listed = state.listed
    offered = [(file.entry.path if file.entry else file.name, facts(file)) for file in ahead.listed]
    if [(item.name, item.facts) for item in listed] == offered:
        return
    listed.clear()
    for file, (path, said) in zip(ahead.listed, offered, strict=True):
        item = listed.add()
        item.name, item.facts = path, said
        if not file.is_chosen:
            item.is_chosen = False


def choose(ahead: Ahead) -> None:
    """Take what people have chosen."""
    state = state_of(bpy.context)
    for file, item in zip(ahead.listed, state.listed if state else (), strict=False):
        file.is_chosen = item.is_chosen


def _tick() -> float | None:
    """Take what was found out, and have it drawn, until nobody is left who asks."""
    if not (session := peek()):  # the add-on was disabled
        return None
    try:
        return _look(session)
    except BaseException:  # Blender drops a timer that raises
        session.ahead.close()
        raise


def _look(session: Any) -> float | None:
    is_open, ahead = popup.is_open(), session.ahead
    if not (is_open and bpy.app.online_access):
        ahead.leave()
        _offer(ahead)
    if ahead.poll():
        ahead.weigh(ahead.folder, ahead.if_exists, ahead.problem)
        _offer(ahead)
        popup.draw_again()
    share(session.hosts)
    return LOOK if is_open or not ahead.is_over else None


# -- What it looks like.


def draw(layout: Any, context: Any) -> None:
    """The files, and whether they fit."""
    popup.drawn(context)
    if not ((session := peek()) and (session.ahead.files or session.ahead.listed)):
        return
    ahead = session.ahead
    if ahead.listed:
        _draw_listed(layout, ahead, state_of(context))
    if ahead.files:
        _draw_files(layout.box().column(align=True), ahead)
    column = layout.column(align=True)
    for sentence in ahead.taken:
        _text(column, sentence, icon="INFO")
    _draw_room(column, ahead)


def _draw_listed(layout: Any, ahead: Ahead, state: Any) -> None:
    choose(ahead)
    layout.template_list("DOWNLOADS_UL_listed", "", state, "listed", state, "listed_index", rows=6)
    line = layout.row()
    line.label(text=ahead.choice, translate=False)
    for what, name in ((True, "All"), (False, "None")):
        line.operator("downloads.choose_listed", text=name).is_chosen = what


def listed(layout: Any, item: Any) -> None:
    """One of them, with a box to tick."""
    line = layout.row()
    line.use_property_split = False  # as the dialog around it has it
    line.prop(item, "is_chosen", text="")
    _draw_facts(line, item.name, item.facts)


def _draw_files(column: Any, ahead: Ahead) -> None:
    if len(ahead.files) > HANDFUL:
        _text(column, ahead.summary)
    else:
        for file in ahead.files:
            _draw_file(column, file)


def _draw_file(column: Any, file: File) -> None:
    _draw_facts(column.split(factor=NAME), file.name, facts(file))
    _text(column, file.remark, icon="INFO")
    _text(column, file.error, icon="ERROR")


def _draw_facts(line: Any, name: str, said: str) -> None:
    line.row().label(text=readable(name), icon=words.file_icon(name), translate=False)
    right = line.row()
    right.alignment = "RIGHT"
    right.label(text=said, translate=False)


def _draw_room(column: Any, ahead: Ahead) -> None:
    if trouble := ahead.problem or ahead.silence:
        _text(column, trouble, icon="ERROR")
        return
    if ahead.is_too_much:
        column.alert = True
        text = f"This does not fit: {ahead.room}. Make room, or choose another folder"
        _text(column, text, icon="ERROR")
    elif ahead.room:
        _text(column, ahead.room, icon="DISK_DRIVE")


def _text(column: Any, text: str, *, icon: str = "NONE") -> None:
    """A text in as many lines as it takes; none for none."""
    for number, line in enumerate(textwrap.wrap(text, LINE)):
        column.label(text=line, icon=icon if not number else "BLANK1", translate=False)
