"""The panel, its list and menus, the dialog and the status bar, used with mouse and keys.

What a draw method says is read by drawing into a layout that only takes notes; what is clicked is
the real button in the real window.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from blender import Blender, BlenderFactory, wait_until
from conftest import Lent
from roots import Installation
from server import Gate, Server, first, pattern, stall_after, status

TAB = "Downloads"
SIZE = 4 << 20  # bytes of a file
HELD = 1 << 20  # bytes that come before the gate
FIRST_STEPS = "Copy a link"

INSIDE = """
import importlib, os, sys
MODULE = "bl_ext.user_default.background_downloads"

def part(name):
    return importlib.import_module(MODULE + "." + name)

def state():
    return bpy.data.window_managers[0].downloads

def prefs():
    return bpy.context.preferences.addons[MODULE].preferences

def statuses():
    return [item.status for item in state().items]


class Notes:
    'Takes the place of a layout: `said` is every text, `offered` every operator with its properties.'

    alert, active = False, True

    def __init__(self, top=None):
        self.top = top or self
        self.said, self.offered, self.shares, self.alerted, self.pale = [], [], [], [], []

    def part(self, **_options):
        part = Notes(self.top)
        part.alert = self.alert
        return part

    row = column = box = grid_flow = part

    def split(self, factor=0.0):
        return Notes(self.top)

    def separator(self):
        pass

    def prop_enum(self, data, name, value, text="", **_options):
        assert value in data.bl_rna.properties[name].enum_items
        self.top.said.append(text)

    def popover(self, panel, text="", **_options):
        assert hasattr(bpy.types, panel)
        self.top.said.append(text)

    def label(self, text="", **_options):
        self.top.said.append(text)
        if self.alert:
            self.top.alerted.append(text)
        if not self.active:
            self.top.pale.append(text)

    def progress(self, factor=0.0, text=""):
        self.top.said.append(text)
        self.top.shares.append(factor)

    def prop(self, data, name, **_options):
        assert hasattr(data, name)

    def menu(self, name, **_options):
        assert hasattr(bpy.types, name)

    def operator(self, idname, text="", **_options):
        module, name = idname.split(".")
        getattr(getattr(bpy.ops, module), name).get_rna_type()
        self.top.said.append(text)
        properties = type("Properties", (), {"idname": idname, "text": text})()
        self.top.offered.append(properties)
        return properties

    def template_list(self, kind, _name, data, items, *_more, **_options):
        row = type("Row", (), {"list_id": _name})()
        shown = part("session").current().mirror.shown(data.show)
        for index, item in enumerate(getattr(data, items)):
            if not shown or shown[index]:
                part("ui").DOWNLOADS_UL_items.draw_item(
                    row, bpy.context, Notes(self.top), data, item, 0, data, "", index
                )


def drawn(name):
    'What a class or function of the interface draws now.'
    notes, what = Notes(), getattr(part("ui"), name)
    area = view3d()
    with bpy.context.temp_override(window=window(), area=area, region=region_of(area, "UI")):
        if isinstance(what, type):
            what.draw(type("Self", (), {"layout": notes})(), bpy.context)
        else:
            what(type("Self", (), {"layout": notes})(), bpy.context)
    return notes

def said(name="DOWNLOADS_PT_panel"):
    return " ".join(drawn(name).said)


FROM_RIGHT = 47, 72, 90, 110, 130, 230  # pixels: beside the fields, at a row's end, then wide buttons
STEP = 7  # pixels
pressed_at = globals().get("pressed_at", {})  # places where a button of an operator was, in earlier tests too

def press(idname, having=""):
    'Clicks a button of the panel, once the mouse surely stands on it; the Python command behind it.'
    area = view3d()
    yield from show_tab(area, "Downloads")
    region, met = region_of(area, "UI"), set()
    yield from move(*middle(region_of(area)))  # away from the button that it may still be on
    for place in [*pressed_at.get(idname, []), *places(region)]:
        yield from move(*place)
        for _ in range(2):  # the first answer may be for where the mouse was before
            command = under_mouse(area, region)
            met.add(command)
            if not (command.startswith(f"bpy.ops.{idname}(") and having in command):
                break
            yield from pause(0)
        else:
            pressed_at.setdefault(idname, []).insert(0, place)
            yield from click(*place)
            return command
    raise LookupError(f"no button {idname} {having!r}, but {sorted(met)}")

def places(region, rights=FROM_RIGHT):
    for right in rights:
        for y in range(region.y + region.height - STEP, region.y + region.height // 4, -STEP):
            yield region.x + region.width - right, y

def find_field(path):
    'Where the field of a property is in the panel.'
    area = view3d()
    yield from show_tab(area, "Downloads")
    region = region_of(area, "UI")
    manager = bpy.context.window_manager
    for place in places(region, (130,)):  # at its end is what empties it
        yield from move(*place)
        yield from pause(0)
        kept, manager.clipboard = manager.clipboard, ""
        with bpy.context.temp_override(window=window(), area=area, region=region):
            if bpy.ops.ui.copy_data_path_button.poll():
                bpy.ops.ui.copy_data_path_button()
        found, manager.clipboard = manager.clipboard, kept
        if found == path:
            return place
    raise LookupError(f"no field for {path}")

def under_mouse(area, region):
    manager = bpy.context.window_manager
    kept = manager.clipboard
    with bpy.context.temp_override(window=window(), area=area, region=region):
        if not bpy.ops.ui.copy_python_command_button.poll():
            return ""
        bpy.ops.ui.copy_python_command_button()
    command, manager.clipboard = manager.clipboard, kept
    return command


def tooltips(*drawn_by):
    'Which buttons have each tooltip.'
    found = {}
    for name in drawn_by:
        for offer in drawn(name).offered:
            kind = offer.idname.replace(".", "_OT_").replace("downloads", "DOWNLOADS")
            cls = getattr(bpy.types, kind, None)
            if cls is None:
                continue
            values = {"uid": 0, "index": -1, **vars(type(offer)), **vars(offer)}
            words = type("Values", (), values)
            text = cls.description(bpy.context, words) if hasattr(cls, "description") else ""
            text = text or cls.__doc__
            what = values["uid"] != 0, values.get("which"), values.get("direction")
            found.setdefault(text, []).append(repr((offer.idname, *what)))
    return found


counts = {"view": 0, "status bar": 0}

def count_view():
    counts["view"] += 1

def count_status_bar(self, context):
    counts["status bar"] += 1

def open_menu(name):
    area = view3d()
    with bpy.context.temp_override(window=window(), area=area, region=region_of(area, "UI")):
        bpy.ops.wm.call_menu(name=name)
    yield from pause(0.3)
"""


@pytest.fixture(scope="module")
def window_size() -> tuple[int, int]:
    """The sidebar with a list in it needs some height."""
    return 1000, 900


@pytest.fixture
def b(blender: Blender, tmp_path: Path) -> Iterator[Blender]:
    """The module's Blender with the tab open, its fields empty but for the folder."""
    blender.run(INSIDE)
    blender.run(
        f"state().urls = ''; state().directory = {str(tmp_path / 'files')!r}; state().if_exists = 'RENAME'"
    )
    blender.run("bpy.context.preferences.system.network_timeout = 100")  # what a test holds is no stall
    blender.clipboard = ""
    blender.steps(f"show_tab(view3d(), {TAB!r})")
    yield blender
    blender.run("prefs().directory = ''; bpy.ops.downloads.cancel()")
    blender.wait("part('session').current().run is None")


def add(server: Server, *names: str) -> list[str]:
    """Files that come at once."""
    return [server.add(f"/{name}", body=pattern(SIZE)) for name in names]


def add_held(server: Server, name: str = "held.bin") -> tuple[str, Gate]:
    """A file that stops in its middle, and of which no second connection can have a part."""
    gate = server.gate()
    return server.add(f"/{name}", stall_after(HELD, gate), body=pattern(SIZE), ranges=False), gate


def add_failing_once(server: Server) -> str:
    return server.add("/model.bin", first(1, status(403)), body=pattern(SIZE))


def press(b: Blender, idname: str, having: str = "") -> str:
    return str(b.steps(f"press({idname!r}, {having!r})"))


def download(b: Blender, *urls: str) -> None:
    """As people do: copy, Paste, Download."""
    b.clipboard = "\n".join(urls)
    press(b, "downloads.paste")
    b.wait("state().urls")
    press(b, "downloads.start")
    b.wait(f"len(state().items) >= {len(urls)}")


def wait_statuses(b: Blender, *expected: str) -> None:
    rows = "[[item.status, item.error] for item in state().items]"
    wait_until(lambda: b.eval("statuses()") == list(expected), what=lambda: f"{b.eval(rows)}\n{b.last_words}")


def said(b: Blender, name: str = "DOWNLOADS_PT_panel") -> str:
    return str(b.eval(f"said({name!r})"))


def offered(b: Blender, name: str) -> list[Any]:
    return list(b.eval(f"[[p.idname, getattr(p, 'uid', 0)] for p in drawn({name!r}).offered]"))


# Starting.


def test_paste_takes_every_link_on_the_clipboard_and_nothing_else(b: Blender) -> None:
    b.clipboard = "See http://127.0.0.1/a.blend\nand\thttps://127.0.0.1/b.zip?x=1\n"
    press(b, "downloads.paste")
    b.wait("state().urls == 'http://127.0.0.1/a.blend https://127.0.0.1/b.zip?x=1'")


def test_paste_keeps_the_field_where_the_clipboard_holds_no_link(b: Blender) -> None:
    b.run("state().urls = 'http://127.0.0.1/kept'")
    b.clipboard = "no link"
    press(b, "downloads.paste")
    b.steps("pause(0)")
    assert b.eval("state().urls") == "http://127.0.0.1/kept"


def test_download_takes_the_fields_and_empties_the_one_for_links(
    b: Blender, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "one.bin").write_bytes(b"old")
    b.run("state().if_exists = 'OVERWRITE'")
    download(b, *add(server, "one.bin", "two.bin"))
    wait_statuses(b, "FINISHED", "FINISHED")
    assert b.eval("state().urls") == ""
    names = sorted(path.name for path in (tmp_path / "files").iterdir())
    assert names == ["one.bin", "two.bin"]
    assert (tmp_path / "files" / "one.bin").read_bytes() == pattern(SIZE)


def test_download_without_a_link_opens_the_dialog_with_those_on_the_clipboard(
    b: Blender, server: Server, tmp_path: Path
) -> None:
    (b.clipboard,) = add(server, "one.bin")
    assert "Download..." in said(b)
    press(b, "downloads.start")
    b.steps("pause(0.3)")
    assert b.eval("len(state().items)") == 0
    b.key("RET")
    wait_statuses(b, "FINISHED")
    assert (tmp_path / "files" / "one.bin").read_bytes() == pattern(SIZE)


def test_f3_finds_it_and_ok_starts_what_was_on_the_clipboard(
    b: Blender, server: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "from preferences"
    b.run(f"prefs().directory = {str(folder)!r}")
    b.clipboard = "\n".join(add(server, "one.bin", "two.bin"))
    b.f3("download")
    b.steps("pause(0.5)")
    b.key("RET")
    wait_statuses(b, "FINISHED", "FINISHED")
    assert (folder / "two.bin").read_bytes() == pattern(SIZE)


def test_esc_leaves_the_dialog_and_starts_nothing(b: Blender, server: Server) -> None:
    (b.clipboard,) = add(server, "one.bin")
    b.f3("download")
    b.steps("pause(0.5)")
    b.key("ESC")
    b.steps("pause(0.3)")
    assert b.eval("[statuses(), part('session').current().run is None]") == [[], True]
    assert {request.range for request in server.requests} <= {"bytes=0-0"}  # what the dialog looked at


def test_an_empty_list_says_how_to_begin(b: Blender, server: Server) -> None:
    assert FIRST_STEPS in said(b)
    download(b, *add(server, "one.bin"))
    wait_statuses(b, "FINISHED")
    assert FIRST_STEPS not in said(b)


# Rows.


def test_a_row_is_paused_and_resumed_by_its_button(b: Blender, server: Server) -> None:
    url, gate = add_held(server)
    download(b, url)
    b.wait(f"state().items[0].progress == {HELD / SIZE}")
    press(b, "downloads.pause")
    wait_statuses(b, "PAUSED")
    assert "Paused, 25%" in said(b)
    assert "1.0 of 4.0 MiB received" in said(b)
    assert "1 paused" in said(b)
    press(b, "downloads.resume")
    wait_statuses(b, "RUNNING")
    gate.open()
    wait_statuses(b, "FINISHED")


def test_a_running_row_shows_how_far_it_is(b: Blender, server: Server) -> None:
    url, gate = add_held(server)
    download(b, url)
    b.wait(f"state().items[0].progress == {HELD / SIZE}")
    assert b.eval("drawn('DOWNLOADS_PT_panel').shares") == [0.25, 0.25]  # the run, the row
    assert "1.0 of 4.0 MiB" in said(b)
    b.wait("'Stalled for' in said()")
    gate.open()
    wait_statuses(b, "FINISHED")


def test_a_failed_row_is_red_but_for_the_active_one(b: Blender, server: Server) -> None:
    """Its name is on the theme's blue, and its message in white, as the theme has it."""
    download(b, server.url("/one.zip"), server.url("/two.zip"))
    wait_statuses(b, "FAILED", "FAILED")
    why = "There is no file at this link (404)"
    for active, other in ((0, "two.zip"), (1, "one.zip")):
        b.run(f"state().active_index = {active}")
        name, message = b.eval("drawn('DOWNLOADS_PT_panel').alerted")
        assert name == other
        assert why.startswith(message.rstrip("…"))


def test_what_became_of_a_file_is_said_in_pale_letters_but_for_the_active_row(
    b: Blender, server: Server
) -> None:
    download(b, *(server.add(f"/{name}", body=pattern(1024)) for name in ("one.bin", "two.bin")))
    wait_statuses(b, "FINISHED", "FINISHED")
    assert b.eval("drawn('DOWNLOADS_PT_panel').pale") == ["Finished, 1.0 KiB"]


def test_a_failed_row_shows_the_whole_error_and_is_retried(b: Blender, server: Server) -> None:
    download(b, add_failing_once(server))
    wait_statuses(b, "FAILED")
    error = b.eval("state().items[0].error")
    assert len(error) > 40
    assert error in said(b)
    press(b, "downloads.retry")
    wait_statuses(b, "FINISHED")
    assert error not in said(b)


def test_an_expired_link_is_replaced_by_the_one_on_the_clipboard(b: Blender, server: Server) -> None:
    download(b, add_failing_once(server))
    wait_statuses(b, "FAILED")
    uid = b.eval("state().items[0].uid")
    assert ["downloads.replace_link", uid] in offered(b, "DOWNLOADS_MT_specials")
    (b.clipboard,) = add(server, "new.bin")
    press(b, "downloads.replace_link")
    b.steps("pause(0.3)")
    assert b.eval("statuses()") == ["FAILED"]
    b.key("RET")
    wait_statuses(b, "FINISHED")
    assert b.eval("state().items[0].url") == server.url("/new.bin")


def test_half_a_link_asks_for_the_whole_one_and_is_not_retried(b: Blender) -> None:
    b.run(HALF_A_LINK)
    offers = offered(b, "DOWNLOADS_PT_panel")
    assert offers.count(["downloads.replace_link", 900]) == 2  # the row's button, and the one below
    assert ["downloads.retry", 900] not in offers
    b.run("with in_view3d(): bpy.ops.downloads.retry(uid=900)")
    assert b.eval("[part('session').current().run is None, statuses()]") == [True, ["FAILED"]]


HALF_A_LINK = """
workers = part("workers")
row = workers.Download(uid=900, url="http://127.0.0.1/x", directory="/tmp", is_cut=True)
row.status, row.error = workers.Status.FAILED, part("session.records").LINK_LOST
part("session").current().adopt([row])
part("session").current().mirror.flush()
"""


def test_the_error_is_copied_without_secrets(b: Blender, server: Server) -> None:
    download(b, add_failing_once(server).replace("://", "://me:secret@") + "?token=secret")
    wait_statuses(b, "FAILED")
    press(b, "downloads.copy_message")
    b.wait("bpy.context.window_manager.clipboard.endswith(state().items[0].error)")
    assert "secret" not in b.clipboard


def test_a_finished_file_is_shown_in_its_folder(b: Blender, server: Server, tmp_path: Path) -> None:
    opener, shown = tmp_path / "xdg-open", tmp_path / "shown"
    opener.write_text(f'#!/bin/sh\necho "$1" > "{shown}"\n')
    opener.chmod(0o755)
    b.run(f"path = os.environ['PATH']; os.environ['PATH'] = {str(tmp_path)!r} + ':' + path")
    download(b, *add(server, "one.bin"))
    wait_statuses(b, "FINISHED")
    press(b, "downloads.open_folder")
    wait_until(lambda: shown.exists() and shown.read_text().strip())
    b.run("os.environ['PATH'] = path")
    assert Path(shown.read_text().strip()) == tmp_path / "files"


def test_rows_are_moved_and_removed_by_the_buttons_beside_them(b: Blender, server: Server) -> None:
    download(b, *add(server, "one.bin", "two.bin"))
    wait_statuses(b, "FINISHED", "FINISHED")
    press(b, "downloads.move", "DOWN")
    b.wait("[item.name for item in state().items] == ['two.bin', 'one.bin']")
    assert b.eval("state().items[state().active_index].name") == "one.bin"
    press(b, "downloads.remove")
    b.wait("[item.name for item in state().items] == ['two.bin']")


def test_the_menu_offers_what_makes_sense_now(b: Blender, server: Server) -> None:
    url, gate = add_held(server)
    download(b, url)
    b.wait(f"state().items[0].progress == {HELD / SIZE}")
    uid = b.eval("state().items[0].uid")
    names = offered(b, "DOWNLOADS_MT_specials")
    assert ["downloads.cancel", uid] in names  # this one
    assert ["downloads.cancel", 0] in names  # all
    assert ["downloads.pause", 0] in names
    assert not {"downloads.resume", "downloads.retry", "downloads.clear"} & {name for name, _ in names}
    gate.open()
    wait_statuses(b, "FINISHED")
    names = offered(b, "DOWNLOADS_MT_specials")
    assert ["downloads.clear", 0] in names
    assert not {"downloads.pause", "downloads.cancel", "downloads.retry"} & {name for name, _ in names}


# Folders.


def test_known_folders_are_one_click_away(b: Blender, tmp_path: Path) -> None:
    b.run(
        "library = bpy.context.preferences.filepaths.asset_libraries.new("
        f"name='Kitchen', directory={str(tmp_path)!r})"
    )
    assert "Save It First" in said(b, "DOWNLOADS_MT_folders")
    b.steps("open_menu('DOWNLOADS_MT_folders')")
    b.key("DOWN_ARROW")
    b.key("RET")
    b.wait(f"state().directory.rstrip('/') == {str(tmp_path)!r}")
    b.steps("open_menu('DOWNLOADS_MT_folders')")
    b.key("UP_ARROW")
    b.key("RET")
    b.wait("state().directory == ''")
    b.run("bpy.context.preferences.filepaths.asset_libraries.remove(library)")


def test_the_folder_beside_the_file_is_offered_once_it_is_saved(b: Blender, tmp_path: Path) -> None:
    b.run(f"bpy.ops.wm.save_as_mainfile(filepath={str(tmp_path / 'scene.blend')!r})")
    assert b.eval("[p.value for p in drawn('DOWNLOADS_MT_folders').offered]") == ["", "//"]


# The status bar, and what is drawn.


def test_the_status_bar_speaks_only_while_a_run_goes_on(b: Blender, server: Server) -> None:
    assert said(b, "draw_status_bar") == ""
    url, gate = add_held(server)
    download(b, url, *add(server, "one.bin"))
    b.wait("'62%, 1 of 2' in said('draw_status_bar')")
    gate.open()
    wait_statuses(b, "FINISHED", "FINISHED")
    b.wait("said('draw_status_bar') == ''")


def test_progress_draws_the_status_bar_and_no_viewport(b: Blender, server: Server) -> None:
    url, gate = add_held(server)
    download(b, url)
    b.wait(f"state().items[0].progress == {HELD / SIZE}")
    b.run("bpy.types.STATUSBAR_HT_header.append(count_status_bar)")
    b.run("handle = bpy.types.SpaceView3D.draw_handler_add(count_view, (), 'WINDOW', 'POST_PIXEL')")
    b.steps("pause(0)")
    b.run("counts.update({'view': 0, 'status bar': 0})")
    gate.open()
    wait_statuses(b, "FINISHED")
    b.wait("counts['status bar'] > 0")
    views = b.eval("counts['view']")
    b.run("bpy.types.SpaceView3D.draw_handler_remove(handle, 'WINDOW')")
    b.run("bpy.types.STATUSBAR_HT_header.remove(count_status_bar)")
    assert views == 0


def test_no_key_is_taken(b: Blender) -> None:
    keys = (
        "[item.idname for config in bpy.context.window_manager.keyconfigs for keymap in config.keymaps"
        " for item in keymap.keymap_items if item.idname.startswith('downloads.')]"
    )
    assert b.eval(keys) == []


# Offline.


@pytest.fixture(params=["preference", "command line"])
def offline(
    request: pytest.FixtureRequest, lent: Lent, installation: Installation, start_blender: BlenderFactory
) -> Iterator[Blender]:
    """A Blender of its own, which may not use the network."""
    is_forced = request.param == "command line"

    def start() -> Blender:
        return start_blender(online=False if is_forced else None)

    with lent.lend(request, (installation.label, request.param), start) as b:
        b.run(INSIDE)
        b.run(f"is_forced = {is_forced}")
        if not is_forced:
            b.set_online(False)
        yield b


def test_enabling_writes_nothing_on_the_console(offline: Blender) -> None:
    assert said(offline)
    assert "downloads" not in offline.whole_console.lower()
    assert "Traceback" not in offline.whole_console


def test_offline_the_buttons_are_grey_and_the_panel_says_why(offline: Blender, server: Server) -> None:
    b, forced = offline, offline.eval("is_forced")
    (url,) = add(server, "one.bin")
    b.run(f"state().urls = {url!r}")
    press(b, "downloads.start")
    b.steps("pause(0)")
    assert b.eval("[bpy.ops.downloads.start.poll(), statuses()]") == [False, []]
    text = said(b)
    assert "Online access required to download" in text
    assert ("--offline-mode" in text) is forced
    assert ("System Preferences..." in text) is not forced
    assert server.connections.accepted == 0
    if not forced:
        b.set_online(True)
        press(b, "downloads.start")
        wait_statuses(b, "FINISHED")


# Preferences.


PREFERENCES = """
def drawn_preferences():
    notes = Notes()
    fields = dict.fromkeys(["directory", "speed_limit", "mirror", "append_or_link", "resume_at_start"])
    preferences = type("Preferences", (), {"layout": notes, "workers": "AUTOMATIC", **fields})()
    with bpy.context.temp_override(area=view3d(), region=region_of(view3d(), "WINDOW")):
        part("ui").DOWNLOADS_preferences.draw(preferences, bpy.context)
    return " ".join(notes.said)
"""


def test_the_preferences_say_where_the_mirror_comes_from_and_what_is_wrong_with_it(b: Blender) -> None:
    b.run(PREFERENCES)
    assert "irror" not in b.eval("drawn_preferences()")
    b.run("prefs().mirror = 'https://mirror.example'")
    try:
        assert "This mirror cannot be used: it has to have {host} in it" in b.eval("drawn_preferences()")
        b.run("os.environ['BACKGROUND_DOWNLOADS_MIRROR'] = 'http://m/{host}/{path}'")
        assert b.eval("drawn_preferences()").count("irror") == 0
        assert "Set for this computer by BACKGROUND_DOWNLOADS_MIRROR" in b.eval("drawn_preferences()")
    finally:
        b.run("prefs().mirror = ''; os.environ.pop('BACKGROUND_DOWNLOADS_MIRROR', None)")


def test_the_preferences_say_what_automatic_means(b: Blender) -> None:
    b.run(PREFERENCES)
    expected = "Threads in this Blender" if b.eval("sys.version_info >= (3, 12)") else "A separate process"
    assert expected in b.eval("drawn_preferences()")


# What a list of many shows.

DRAWN = """
drawn_names = []

def note_drawn(low, view, row, is_active):
    drawn_names.append((view.width, row.name))
    return draw_second(low, view, row, is_active)

draw_second, part("session.drawing")._draw_second = part("session.drawing")._draw_second, note_drawn

def redrawn():
    drawn_names.clear()
    area = view3d()
    region_of(area, "UI").tag_redraw()
    yield from pause(0.3)
    return list(dict.fromkeys(name for _, name in drawn_names))  # it may be drawn more than once
"""


@pytest.fixture
def drawing(b: Blender) -> Iterator[Blender]:
    """Notes which rows Blender really draws."""
    b.run(DRAWN)
    yield b
    b.run("part('session.drawing')._draw_second = draw_second")


def test_the_filter_shows_what_runs_or_failed_in_the_order_of_the_queue(
    drawing: Blender, server: Server
) -> None:
    b = drawing
    held, gate = add_held(server)
    other, _ = add_held(server, "other.bin")
    download(b, *add(server, "one.bin"), held, add_failing_once(server), other)
    wait_statuses(b, "FINISHED", "RUNNING", "FAILED", "RUNNING")
    assert b.steps("redrawn()") == ["one.bin", "held.bin", "model.bin", "other.bin"]
    b.run("state().show = 'RUNNING'")
    assert b.steps("redrawn()") == ["held.bin", "other.bin"]
    b.run("state().show = 'FAILED'")
    assert b.steps("redrawn()") == ["model.bin"]
    b.run("bpy.ops.downloads.pause()")
    wait_statuses(b, "FINISHED", "PAUSED", "FAILED", "PAUSED")
    b.run("state().show = 'RUNNING'")
    assert b.steps("redrawn()") == []
    download(b, server.add("/new.bin", body=pattern(SIZE)))
    wait_statuses(b, "FINISHED", "PAUSED", "FAILED", "PAUSED", "FINISHED")
    b.run("state().show = 'ALL'")
    gate.open()


SEARCH = """
rows, filter_items = bpy.types.DOWNLOADS_UL_items, bpy.types.DOWNLOADS_UL_items.filter_items

def search(self, context, data, property):
    self.filter_name = searched
    return filter_items(self, context, data, property)

rows.filter_items = search
"""


def test_a_search_shows_what_has_it_in_its_name(drawing: Blender, server: Server) -> None:
    b = drawing
    download(b, *add(server, "rock.bin", "moss.bin"), server.url("/rock.zip"))
    wait_statuses(b, "FINISHED", "FINISHED", "FAILED")
    b.run(SEARCH)
    found = {"ROCK": ["rock.bin", "rock.zip"], "m?ss": ["moss.bin"], "none": []}
    for search, names in found.items():
        b.run(f"searched = {search!r}")
        assert b.steps("redrawn()") == names
    b.run("searched = 'rock'; state().show = 'FAILED'")
    assert b.steps("redrawn()") == ["rock.zip"]
    b.run("searched = ''; state().show = 'ALL'")
    assert len(b.steps("redrawn()")) == 3
    b.run("rows.filter_items = filter_items")


def test_what_is_added_becomes_active_and_the_list_follows_what_runs(b: Blender, server: Server) -> None:
    b.run("bpy.context.preferences.system.network_connection_limit = 1")
    url, gate = add_held(server)
    download(b, *add(server, *(f"{number}.bin" for number in range(7))), url)
    b.wait("state().active_index >= 5")
    gate.open()
    wait_statuses(b, *["FINISHED"] * 8)
    download(b, *add(server, "new.bin"))
    wait_statuses(b, *["FINISHED"] * 9)
    b.wait("state().active_index == 8")
    b.run("bpy.context.preferences.system.network_connection_limit = 0")


def test_a_row_that_somebody_chose_stays_active(b: Blender, server: Server) -> None:
    b.run("bpy.context.preferences.system.network_connection_limit = 1")
    first_one, first_gate = add_held(server, "first.bin")
    last, gate = add_held(server)
    download(b, first_one, *add(server, *(f"{number}.bin" for number in range(7))), last)
    b.wait(f"state().items[0].progress == {HELD / SIZE}")
    b.run("state().active_index = 1")
    first_gate.open()
    b.wait("state().items[8].status == 'RUNNING'")
    b.run("part('session').current().mirror.flush()")
    assert b.eval("state().active_index") == 1
    gate.open()
    wait_statuses(b, *["FINISHED"] * 9)
    b.run("bpy.context.preferences.system.network_connection_limit = 0")


def test_while_blender_renders_the_list_is_drawn_once_a_second(b: Blender, server: Server) -> None:
    b.run(STOPPED_CLOCK)
    url, gate = add_held(server)
    download(b, url)
    b.wait(f"state().items[0].progress == {HELD / SIZE}")
    assert b.eval("[redraws(0.5) + redraws(0.4), redraws(0.2), redraws(0.9), redraws(0.2)]") == [0, 1, 0, 1]
    b.run("drawing.time, drawing.is_rendering, drawing.tag_redraw = kept; paced._drawn_at = 0.0")
    gate.open()
    wait_statuses(b, "FINISHED")


def test_what_a_redraw_takes_is_learned_from_blenders_own_loop(b: Blender, server: Server) -> None:
    url, gate = add_held(server)
    download(b, url)
    b.wait(f"state().items[0].progress == {HELD / SIZE}")
    b.run(SLOW_PANEL)
    b.steps(f"show_tab(view3d(), {TAB!r})")
    b.wait("changed() and paced._cost > 0.01")
    b.run("panel.draw = quick_draw")
    gate.open()
    wait_statuses(b, "FINISHED")


SLOW_PANEL = """
import time
paced, panel = part("session").current().mirror._redraws, bpy.types.DOWNLOADS_PT_panel
quick_draw = panel.draw

def slow_draw(self, context):
    quick_draw(self, context)
    time.sleep(0.05)

panel.draw = slow_draw

def changed():
    part("session").current().mirror.touch()
    return True
"""


STOPPED_CLOCK = """
paced, tags = part("session").current().mirror._redraws, []
drawing = part("session.redraws")
kept = drawing.time, drawing.is_rendering, drawing.tag_redraw

class Clock:
    now = 1e6

    def monotonic(self):
        return self.now

drawing.time, drawing.is_rendering, drawing.tag_redraw = Clock(), lambda: True, lambda: tags.append(1)
paced._drawn_at = drawing.time.now

def redraws(seconds):
    'How often the list is drawn when this time has passed and a row has changed.'
    drawing.time.now += seconds
    tags.clear()
    session = part("session").current()
    for _ in range(3):
        session.mirror.touch()
        session.mirror.flush()
    return len(tags)
"""


# Where it went.


def test_the_path_of_a_finished_file_is_shown_and_copied(b: Blender, server: Server, tmp_path: Path) -> None:
    download(b, *add(server, "one.bin"))
    wait_statuses(b, "FINISHED")
    path = str(tmp_path / "files" / "one.bin")
    assert path in said(b).replace(" ", "")
    press(b, "downloads.copy_path")
    b.wait(f"bpy.context.window_manager.clipboard == {path!r}")


def test_a_finished_file_is_selected_where_the_system_can(b: Blender, server: Server, tmp_path: Path) -> None:
    bus, asked = tmp_path / "dbus-send", tmp_path / "asked"
    bus.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{asked}~"; mv "{asked}~" "{asked}"\n')
    bus.chmod(0o755)
    b.run(f"path = os.environ['PATH']; os.environ['PATH'] = {str(tmp_path)!r} + ':' + path")
    download(b, *add(server, "one.bin"))
    wait_statuses(b, "FINISHED")
    press(b, "downloads.open_folder")
    wait_until(asked.exists)
    b.run("os.environ['PATH'] = path")
    words = asked.read_text().split()
    assert "org.freedesktop.FileManager1.ShowItems" in words
    (uri,) = [word.removeprefix("array:string:") for word in words if word.startswith("array:string:")]
    assert uri == (tmp_path / "files" / "one.bin").as_uri()


def test_an_image_is_imported_by_the_button_of_its_row(b: Blender, server: Server) -> None:
    b.run("image = bpy.data.images.new('made', 8, 8); image.file_format = 'PNG'")
    b.run("image.filepath_raw = bpy.app.tempdir + 'made.png'; image.save(); bpy.data.images.remove(image)")
    made = Path(b.eval("bpy.app.tempdir")) / "made.png"
    download(b, server.add("/moss.png", body=made.read_bytes()))
    wait_statuses(b, "FINISHED")
    press(b, "downloads.import_file")
    b.wait("any(image.name == 'moss.png' for image in bpy.data.images)")
    wait_until(lambda: "moss.png: It is in the .blend file now" in b.console, what=lambda: b.console)


# Taking rows out of the list.


def paused_with_bytes(b: Blender, server: Server, *names: str) -> None:
    urls = [add_held(server, name)[0] for name in names]
    download(b, *urls)
    b.wait(f"all(item.progress == {HELD / SIZE} for item in state().items)")
    press(b, "downloads.pause", "pause()")
    wait_statuses(b, *["PAUSED"] * len(names))


def partial_files(tmp_path: Path) -> list[str]:
    return sorted(path.name[:4] for path in (tmp_path / "files").glob("*.part"))


def test_remove_asks_what_is_to_become_of_the_bytes_received(
    b: Blender, server: Server, tmp_path: Path
) -> None:
    paused_with_bytes(b, server, "keep.bin", "gone.bin")
    press(b, "downloads.remove")
    b.steps("pause(0.5)")
    b.key("ESC")
    b.steps("pause(0.3)")
    assert b.eval("len(state().items)") == 2
    press(b, "downloads.remove")
    b.steps("pause(0.5)")
    b.key("RET")
    wait_statuses(b, "PAUSED")
    assert partial_files(tmp_path) == ["gone", "keep"]
    ask = "bpy.ops.downloads.remove('INVOKE_DEFAULT', uid=state().items[0].uid, delete_partial=True)"
    b.run(f"with in_view3d(): {ask}")
    b.steps("pause(0.5)")
    assert b.eval("len(state().items)") == 1
    b.key("RET")
    wait_statuses(b)
    assert partial_files(tmp_path) == ["keep"]


def test_a_scripted_remove_asks_nothing(b: Blender, server: Server, tmp_path: Path) -> None:
    paused_with_bytes(b, server, "keep.bin", "gone.bin")
    b.run("bpy.ops.downloads.remove(uid=state().items[1].uid, delete_partial=True)")
    b.run("bpy.ops.downloads.remove(uid=state().items[0].uid)")
    assert b.eval("statuses()") == []
    assert partial_files(tmp_path) == ["keep"]


def test_cancel_all_asks_once_where_there_are_several(b: Blender, server: Server) -> None:
    urls = [add_held(server, name)[0] for name in ("one.bin", "two.bin")]
    download(b, *urls)
    wait_statuses(b, "RUNNING", "RUNNING")
    press(b, "downloads.cancel", "cancel()")
    b.steps("pause(0.5)")
    b.key("ESC")
    b.steps("pause(0.3)")
    assert b.eval("statuses()") == ["RUNNING", "RUNNING"]
    press(b, "downloads.cancel", "cancel()")
    b.steps("pause(0.5)")
    b.key("RET")
    wait_statuses(b, "CANCELLED", "CANCELLED")
    b.run("with in_view3d(): bpy.ops.downloads.retry(uid=state().items[0].uid)")
    wait_statuses(b, "RUNNING", "CANCELLED")
    press(b, "downloads.cancel", "cancel()")
    wait_statuses(b, "CANCELLED", "CANCELLED")


def test_the_menu_takes_out_what_failed_or_was_cancelled_and_all(b: Blender, server: Server) -> None:
    download(b, *add(server, "one.bin"), server.url("/none.bin"), add_held(server)[0])
    wait_statuses(b, "FINISHED", "FAILED", "RUNNING")
    b.wait(f"state().items[2].progress == {HELD / SIZE}")
    b.run("bpy.ops.downloads.cancel()")
    wait_statuses(b, "FINISHED", "FAILED", "CANCELLED")
    texts = said(b, "DOWNLOADS_MT_specials")
    for text in ("All Failed", "All Cancelled", "All Failed and Cancelled", "All"):
        assert f"Remove {text}" in texts
    b.run("bpy.ops.downloads.remove_all(which='FAILED')")
    assert b.eval("statuses()") == ["FINISHED", "CANCELLED"]
    b.run("bpy.ops.downloads.remove_all(which='CANCELLED', delete_partial=True)")
    assert b.eval("statuses()") == ["FINISHED"]
    b.steps("open_menu('DOWNLOADS_MT_specials')")
    b.key("UP_ARROW")
    b.key("RET")
    wait_statuses(b)


def test_no_two_buttons_have_one_tooltip(b: Blender, server: Server) -> None:
    download(b, *add(server, "one.bin"), server.url("/none.bin"), add_held(server)[0])
    wait_statuses(b, "FINISHED", "FAILED", "RUNNING")
    b.wait(f"state().items[2].progress == {HELD / SIZE}")
    for index in range(3):
        b.run(f"state().active_index = {index}")
        tooltips = b.eval("tooltips('DOWNLOADS_MT_specials', 'DOWNLOADS_PT_panel')")
        assert all(len(set(who)) == 1 for who in tooltips.values()), tooltips
        assert not [text for text in tooltips if text.endswith(".") or not text]


# The status bar.


def test_a_click_on_the_status_bar_opens_the_list(b: Blender, server: Server) -> None:
    url, gate = add_held(server)
    download(b, url)
    b.wait("part('session').current().mirror.pace")
    b.click(*FROM_STATUS_BAR_END["pause"])
    wait_statuses(b, "PAUSED")
    press(b, "downloads.resume")
    wait_statuses(b, "RUNNING")
    assert b.eval("part('ui').DOWNLOADS_PT_popover.__doc__") == "Show the list of downloads"  # the tooltip
    b.run("opened, draw_rows = [], part('session.drawing')._draw_rows")
    b.run(
        "part('session.drawing')._draw_rows = lambda layout, state, name='':"
        " (opened.append(name), draw_rows(layout, state, name))"
    )
    b.run("region_of(view3d(), 'UI').active_panel_category = 'Item'")
    b.steps("pause(0.3)")
    b.run("opened.clear()")
    b.click(*FROM_STATUS_BAR_END["list"])
    b.wait("opened")
    b.steps("move(*middle(region_of(view3d())))")
    b.run("part('session.drawing')._draw_rows = draw_rows")
    b.steps(f"show_tab(view3d(), {TAB!r})")
    gate.open()
    wait_statuses(b, "FINISHED")


FROM_STATUS_BAR_END = {"list": (1000 - 150, 8), "pause": (1000 - 18, 8)}
"""Where the buttons are in a window 1000 pixels wide."""


# Secrets.


def test_a_token_is_in_no_file_but_its_own(b: Blender, server: Server, tmp_path: Path) -> None:
    token = "s3cr3t-t0ken"
    b.run(f"bpy.ops.downloads.add_token(host='127.0.0.1', token={token!r})")
    download(b, *add(server, "one.bin"))
    wait_statuses(b, "FINISHED")
    b.run(f"bpy.ops.wm.save_as_mainfile(filepath={str(tmp_path / 'scene.blend')!r}, compress=False)")
    b.run("bpy.ops.wm.save_userpref()")
    files = [path for folder in (b.folder, tmp_path) for path in folder.rglob("*") if path.is_file()]
    assert [path.name for path in files if _holds(path, token)] == ["tokens.json"]
    b.run("bpy.ops.downloads.remove_token(host='127.0.0.1')")
    assert not [path for path in files if _holds(path, token)]


def _holds(path: Path, text: str) -> bool:
    """Not if it is gone: the list of what is unfinished goes a moment after the last download."""
    with suppress(FileNotFoundError):
        return text.encode() in path.read_bytes()
    return False
