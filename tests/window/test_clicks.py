"""Each button, menu entry and dialog is clicked in a real window; what is drawn and not listed here fails.

Menus are opened by a click and their entries chosen by keys: Blender tells nobody where an entry is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import test_import
import test_panel
from blender import Blender, wait_until
from server import Server
from test_panel import (  # noqa: F401 (b and window_size are fixtures)
    HELD,
    SIZE,
    TAB,
    add,
    add_failing_once,
    add_held,
    b,
    download,
    press,
    wait_statuses,
    window_size,
)

pytestmark = pytest.mark.timeout(400)  # a menu is a dozen turns of Blender's, and each draws the window
ROOT = Path(__file__).resolve().parents[2]
DRAWING = ROOT / "ui.py", ROOT / "session" / "drawing.py"
FINDING = """
found_at = {}  # places where a button was

def find(idname, having="", area=None, kind="UI", columns=None):
    'Where a button is, once the mouse surely stands on it.'
    area = area or view3d()
    region = region_of(area, kind)
    yield from move(5, 5)
    rights = columns or FROM_RIGHT
    high = range(region.y + region.height - STEP, region.y + STEP, -STEP)
    met = set()
    known = found_at.setdefault((idname, kind), [])
    for place in [*known, *((region.x + region.width - right, y) for right in rights for y in high)]:
        yield from move(*place)
        for _ in range(2):  # the first answer may be for where the mouse was before
            command = under_mouse(area, region)
            met.add(command)
            if not (command.startswith(f"bpy.ops.{idname}(") and having in command):
                break
            yield from pause(0)
        else:
            known.insert(0, place)
            return place
    raise LookupError(f"no {idname} {having!r}, but {sorted(met)}")

opened = []  # the menus that Blender has drawn

def hear(menu):
    'Notes when Blender draws a menu, which it does as it opens.'
    kind = getattr(bpy.types, menu)
    draw = kind.unheard = getattr(kind, "unheard", kind.draw)
    kind.draw = lambda self, context: (opened.append(menu), draw(self, context))[1]
    opened.clear()

def entry(menu, idname, **values):
    'The number of an entry, from 0.'
    offers = drawn(menu).offered
    return next(number for number, offer in enumerate(offers) if offer.idname == idname
                and all(getattr(offer, name, None) == value for name, value in values.items()))

def open_preferences():
    import addon_utils
    area = view3d()
    area.type = "PREFERENCES"
    bpy.context.preferences.active_section = "ADDONS"
    bpy.context.window_manager.addon_search = "Background"
    for module in addon_utils.modules():
        if module.__name__ == MODULE:
            addon_utils.module_bl_info(module)["show_expanded"] = True
    yield from pause(0.5)
    for _ in range(40):
        with bpy.context.temp_override(window=window(), area=area, region=region_of(area)):
            bpy.ops.view2d.scroll_down(deltay=200)
    yield from pause(0.3)

def preferences_area():
    return next(area for area in window().screen.areas if area.type == "PREFERENCES")

def files_area():
    return next((area for area in window().screen.areas if area.type == "FILE_BROWSER"), None)
"""
MENU = "DOWNLOADS_MT_specials"


@pytest.fixture
def c(b: Blender) -> Blender:  # noqa: F811
    b.run(FINDING)
    return b


def choose(b: Blender, idname: str, **values: object) -> None:  # noqa: F811
    """Opens the menu under the list by its button, and chooses an entry."""
    x, y = b.steps("find('downloads.remove')")
    given = "".join(f", {name}={value!r}" for name, value in values.items())
    number = b.eval(f"entry({MENU!r}, {idname!r}{given})")
    b.run(f"hear({MENU!r})")
    b.click(x + 20, y)
    pick(b, number)


def pick(b: Blender, number: int) -> None:  # noqa: F811
    """An entry of the menu that opens."""
    b.wait("opened")
    b.steps("pause(0.1)")
    b.key("HOME")
    for _ in range(number):
        b.key("DOWN_ARROW")
    b.key("RET")
    b.steps("pause(0.3)")


def activate(b: Blender, index: int) -> int:  # noqa: F811
    b.run(f"state().active_index = {index}")
    b.steps("pause(0.2)")
    return int(b.eval(f"state().items[{index}].uid"))


# The menu under the list.


def test_the_menu_pauses_resumes_cancels_moves_and_retries_one(c: Blender, server: Server) -> None:
    urls = [add_held(server, name)[0] for name in ("one.bin", "two.bin")]
    download(c, *urls)
    wait_statuses(c, "RUNNING", "RUNNING")
    uid = activate(c, 0)
    choose(c, "downloads.pause", uid=uid)
    wait_statuses(c, "PAUSED", "RUNNING")
    choose(c, "downloads.resume", uid=uid)
    wait_statuses(c, "RUNNING", "RUNNING")
    choose(c, "downloads.cancel", uid=uid)
    wait_statuses(c, "CANCELLED", "RUNNING")
    choose(c, "downloads.move", uid=uid, direction="BOTTOM")
    wait_statuses(c, "RUNNING", "CANCELLED")
    choose(c, "downloads.move", uid=uid, direction="TOP")
    wait_statuses(c, "CANCELLED", "RUNNING")


def test_the_menu_retries_replaces_and_removes_one(c: Blender, server: Server) -> None:
    urls = [add_held(server, name)[0] for name in ("one.bin", "two.bin")]
    download(c, *urls)
    c.run("bpy.ops.downloads.cancel(index=0)")
    wait_statuses(c, "CANCELLED", "RUNNING")
    uid = activate(c, 0)
    choose(c, "downloads.retry", uid=uid)
    wait_statuses(c, "RUNNING", "RUNNING")
    (c.clipboard,) = add(server, "new.bin")
    choose(c, "downloads.replace_link", uid=uid)
    c.key("RET")
    wait_statuses(c, "FINISHED", "RUNNING")
    choose(c, "downloads.remove", uid=uid)
    wait_statuses(c, "RUNNING")


def test_the_menu_does_it_to_all(c: Blender, server: Server) -> None:
    urls = [add_held(server, name)[0] for name in ("one.bin", "two.bin")]
    download(c, *add(server, "done.bin"), server.url("/none.bin"), *urls)
    wait_statuses(c, "FINISHED", "FAILED", "RUNNING", "RUNNING")
    c.wait(f"state().items[3].progress == {HELD / SIZE}")
    activate(c, 0)
    choose(c, "downloads.pause", text="Pause All")
    wait_statuses(c, "FINISHED", "FAILED", "PAUSED", "PAUSED")
    choose(c, "downloads.resume", text="Resume All")
    wait_statuses(c, "FINISHED", "FAILED", "RUNNING", "RUNNING")
    choose(c, "downloads.cancel", text="Cancel All...")
    c.key("RET")
    wait_statuses(c, "FINISHED", "FAILED", "CANCELLED", "CANCELLED")
    choose(c, "downloads.retry", text="Retry Failed and Cancelled")
    wait_statuses(c, "FINISHED", "FAILED", "RUNNING", "RUNNING")


def test_the_menu_clears_what_is_finished_failed_and_cancelled(c: Blender, server: Server) -> None:
    urls = [add_held(server, name)[0] for name in ("one.bin", "two.bin")]
    download(c, *add(server, "done.bin"), server.url("/none.bin"), *urls)
    wait_statuses(c, "FINISHED", "FAILED", "RUNNING", "RUNNING")
    c.wait(f"state().items[3].progress == {HELD / SIZE}")
    c.run("bpy.ops.downloads.cancel()")
    wait_statuses(c, "FINISHED", "FAILED", "CANCELLED", "CANCELLED")
    activate(c, 1)
    choose(c, "downloads.clear")
    wait_statuses(c, "FAILED", "CANCELLED", "CANCELLED")
    choose(c, "downloads.remove_all", which="FAILED")
    wait_statuses(c, "CANCELLED", "CANCELLED")
    choose(c, "downloads.remove_all", which="ALL")
    c.key("ESC")
    c.steps("pause(0.3)")
    assert c.eval("len(state().items)") == 2
    choose(c, "downloads.remove_all", which="CANCELLED")
    c.key("RET")
    wait_statuses(c)


def test_the_menu_removes_failed_and_cancelled_and_all(c: Blender, server: Server) -> None:
    download(c, *add(server, "done.bin"), server.url("/none.bin"), add_held(server)[0])
    wait_statuses(c, "FINISHED", "FAILED", "RUNNING")
    c.wait(f"state().items[2].progress == {HELD / SIZE}")
    c.run("bpy.ops.downloads.cancel()")
    wait_statuses(c, "FINISHED", "FAILED", "CANCELLED")
    activate(c, 0)
    choose(c, "downloads.remove_all", which="FAILED_AND_CANCELLED")
    c.key("RET")
    wait_statuses(c, "FINISHED")
    choose(c, "downloads.remove_all", which="ALL")
    wait_statuses(c)


def test_the_menu_copies_shows_and_imports(c: Blender, server: Server, tmp_path: Path) -> None:
    opener, shown = tmp_path / "xdg-open", tmp_path / "shown"
    opener.write_text(f'#!/bin/sh\necho "$1" > "{shown}"\n')
    opener.chmod(0o755)
    c.run(f"path = os.environ['PATH']; os.environ['PATH'] = {str(tmp_path)!r} + ':' + path")
    download(c, server.add("/rock.obj", body=test_import.OBJ), server.url("/none.bin"))
    wait_statuses(c, "FINISHED", "FAILED")
    uid = activate(c, 0)
    choose(c, "downloads.copy_path", uid=uid)
    c.wait("bpy.context.window_manager.clipboard.endswith('rock.obj')")
    choose(c, "downloads.open_folder", uid=uid)
    wait_until(lambda: shown.exists() and shown.read_text().strip())
    c.run("os.environ['PATH'] = path")
    choose(c, "downloads.import_file", uid=uid)
    c.wait("'Rock' in bpy.data.objects")
    uid = activate(c, 1)
    choose(c, "downloads.copy_message", uid=uid)
    c.wait("'404' in bpy.context.window_manager.clipboard")


def test_a_right_click_on_a_row_has_its_menu(c: Blender, server: Server) -> None:
    download(c, *add(server, "one.bin"))
    wait_statuses(c, "FINISHED")
    x, y = c.steps("find('downloads.remove')")
    c.run("seen, draw_for_active = [], part('session.drawing')._draw_for_active")
    c.run("def note(*given): seen.append(given[1].name); draw_for_active(*given)")
    c.run("part('session.drawing')._draw_for_active = note")
    c.click(x - 120, y + 136, "RIGHTMOUSE")  # the one row, at the top of the list
    c.wait("seen == ['one.bin']")
    c.key("ESC")
    c.run("part('session.drawing')._draw_for_active = draw_for_active")


# Folders.


def test_the_menu_of_folders_is_opened_by_its_button(c: Blender, tmp_path: Path) -> None:
    before = c.eval("state().directory")
    c.run(
        "library = bpy.context.preferences.filepaths.asset_libraries.new("
        f"name='Kitchen', directory={str(tmp_path)!r})"
    )
    x, y = c.steps("find('downloads.paste')")
    number = c.eval(f"entry('DOWNLOADS_MT_folders', 'wm.context_set_string', value={str(tmp_path)!r})")
    c.run("hear('DOWNLOADS_MT_folders')")
    c.click(x, y - 24)
    pick(c, number)
    c.wait(f"state().directory.rstrip('/') == {str(tmp_path)!r}")
    c.run("bpy.context.preferences.filepaths.asset_libraries.remove(library)")
    c.run(f"state().directory = {before!r}")


def test_a_failed_download_goes_on_in_a_folder_that_is_chosen(
    c: Blender, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "good").mkdir()
    c.run(f"state().directory = {str(tmp_path / 'file' / 'below')!r}")
    c.run("bpy.context.preferences.view.filebrowser_display_type = 'SCREEN'")
    download(c, *add(server, "one.bin"))
    wait_statuses(c, "FAILED")
    choose(c, "downloads.change_folder", uid=activate(c, 0))
    c.wait("files_area() and files_area().spaces.active.params")
    c.run(f"files_area().spaces.active.params.directory = {str(tmp_path / 'good')!r}.encode()")
    c.steps("pause(0.5)")
    c.steps("move(*middle(region_of(files_area())))")
    c.key("RET")
    c.wait("state().items[0].status == 'FINISHED'")
    c.wait("not files_area()")
    assert sorted(path.name for path in (tmp_path / "good").iterdir()) == ["one.bin"]


# Buttons of the panel that no other test clicks.


def test_the_filter_is_clicked(c: Blender, server: Server) -> None:
    download(c, *add(server, "one.bin"), server.url("/none.bin"))
    wait_statuses(c, "FINISHED", "FAILED")
    _, y = c.steps("find('downloads.start')")
    for show, right in (("FAILED", 80), ("RUNNING", 160), ("ALL", 240)):
        region = c.eval("[region_of(view3d(), 'UI').x, region_of(view3d(), 'UI').width]")
        for lower in range(y - 60, y - 25, 5):  # below the line for all
            c.click(sum(region) - right, lower)
        c.wait(f"state().show == {show!r}")


def test_a_row_moves_up(c: Blender, server: Server) -> None:
    download(c, *add(server, "one.bin", "two.bin"))
    wait_statuses(c, "FINISHED", "FINISHED")
    activate(c, 1)
    press(c, "downloads.move", "UP")
    c.wait("[item.name for item in state().items] == ['two.bin', 'one.bin']")


def test_all_is_resumed_by_the_line_for_all(c: Blender, server: Server) -> None:
    test_panel.paused_with_bytes(c, server, "one.bin", "two.bin")
    press(c, "downloads.resume", "resume()")
    wait_statuses(c, "RUNNING", "RUNNING")


def test_a_refused_download_opens_the_dialog_for_a_token(c: Blender, server: Server) -> None:
    download(c, server.url("/none.bin"))
    wait_statuses(c, "FAILED")
    c.run("row = part('session').current().rows.at(0)")
    c.run("row.error = 'Add an access token for files.example in the preferences'")
    c.run("region_of(view3d(), 'UI').tag_redraw()")
    press(c, "downloads.add_token")
    c.steps("pause(0.5)")
    x, y = c.eval("pressed_at['downloads.add_token'][0]")
    c.click(x - 73, y - 27)
    c.type("s3cr3t")
    c.key("RET")
    c.key("ESC")
    c.steps("pause(0.3)")
    assert c.eval("part('session.settings').tokens.known") == []


def test_offline_the_system_preferences_are_a_click_away(c: Blender) -> None:
    c.set_online(False)
    press(c, "screen.userpref_show")
    c.wait("len(bpy.context.window_manager.windows) == 2")
    assert c.eval("bpy.context.preferences.active_section") == "SYSTEM"
    c.close_window(1)
    c.set_online(True)


# Preferences.


@pytest.fixture
def preferences(c: Blender) -> Iterator[Blender]:
    c.steps("open_preferences()")
    yield c
    c.run("preferences_area().type = 'VIEW_3D'")
    c.steps(f"show_tab(view3d(), {TAB!r})")


def press_there(b: Blender, idname: str, having: str = "") -> tuple[int, int]:  # noqa: F811
    asked = f"find({idname!r}, {having!r}, preferences_area(), 'WINDOW', (40, 120))"
    x, y = b.steps(asked)
    b.click(x, y)
    b.steps("pause(0.5)")
    return x, y


def test_a_token_is_added_by_its_dialog_and_removed(preferences: Blender) -> None:
    c = preferences
    x, y = press_there(c, "downloads.add_token")
    for below, text in ((1, "files.example"), (27, "s3cr3t")):
        c.click(x - 73, y - below)
        c.steps("pause(0.2)")
        c.type(text)
        c.key("RET")
        c.steps("pause(0.2)")
    c.click(x - 42, y - 57)
    c.wait("part('session.settings').tokens.known == ('files.example',)")
    press_there(c, "downloads.remove_token", "files.example")
    c.wait("part('session.settings').tokens.known == ()")


def test_partial_files_are_found_and_deleted_and_all_of_them_after_a_question(
    preferences: Blender, tmp_path: Path
) -> None:
    c, folder = preferences, tmp_path / "files"
    folder.mkdir(exist_ok=True)
    c.run(LEAVE.format(folder=str(folder)))
    press_there(c, "downloads.find_leftovers")
    c.wait("len(part('session').current().leftovers or ()) == 3")
    press_there(c, "downloads.delete_leftovers", "name=")
    c.wait("len(part('session').current().leftovers) == 2")
    press_there(c, "downloads.delete_leftovers", "delete_leftovers()")
    c.key("ESC")
    c.steps("pause(0.3)")
    assert len(list(folder.glob("*.part"))) == 2
    press_there(c, "downloads.delete_leftovers", "delete_leftovers()")
    c.key("RET")
    c.wait("part('session').current().leftovers == []")
    assert list(folder.iterdir()) == []


LEAVE = """
for number in range(3):
    left = part("transfer.part").Part(f"http://127.0.0.1/left-{{number}}.bin", {folder!r}, None)
    left.open()
    left.write(memoryview(b"some bytes"), 0)
    left.close()
store = part("session").current().store
store.folders.use({folder!r}, [])
store.folders.save()
"""


# What is drawn, and who clicks it.

CLICKED = {
    ("_draw_start", "downloads.paste"): (
        "panel::test_paste_takes_every_link_on_the_clipboard_and_nothing_else"
    ),
    ("_draw_start", "downloads.start"): (
        "panel::test_download_takes_the_fields_and_empties_the_one_for_links"
    ),
    ("_draw_start", "DOWNLOADS_MT_folders"): "clicks::test_the_menu_of_folders_is_opened_by_its_button",
    ("_draw_folder", "wm.context_set_string"): "clicks::test_the_menu_of_folders_is_opened_by_its_button",
    ("_draw_overall", "downloads.pause"): "panel::test_remove_asks_what_is_to_become_of_the_bytes_received",
    ("_draw_overall", "downloads.resume"): "clicks::test_all_is_resumed_by_the_line_for_all",
    ("_draw_overall", "downloads.cancel"): "panel::test_cancel_all_asks_once_where_there_are_several",
    ("_draw_filter", "show"): "clicks::test_the_filter_is_clicked",
    ("_draw_tools", "downloads.move"): "clicks::test_a_row_moves_up",
    ("_draw_tools", "downloads.remove"): "panel::test_remove_asks_what_is_to_become_of_the_bytes_received",
    ("_draw_tools", "DOWNLOADS_MT_specials"): "clicks::test_the_menu_does_it_to_all",
    ("item", "operator"): "panel::test_a_row_is_paused_and_resumed_by_its_button",
    ("_draw_buttons", "downloads.import_file"): "panel::test_an_image_is_imported_by_the_button_of_its_row",
    ("_draw_buttons", "downloads.open_folder"): "panel::test_a_finished_file_is_shown_in_its_folder",
    ("_draw_buttons", "downloads.copy_path"): "panel::test_the_path_of_a_finished_file_is_shown_and_copied",
    ("_draw_buttons", "downloads.retry"): "panel::test_a_failed_row_shows_the_whole_error_and_is_retried",
    ("_draw_buttons", "downloads.add_token"): "clicks::test_a_refused_download_opens_the_dialog_for_a_token",
    ("_draw_buttons", "downloads.copy_message"): "panel::test_the_error_is_copied_without_secrets",
    ("_draw_replace", "downloads.replace_link"): (
        "panel::test_an_expired_link_is_replaced_by_the_one_on_the_clipboard"
    ),
    ("_draw_change_folder", "downloads.change_folder"): (
        "clicks::test_a_failed_download_goes_on_in_a_folder_that_is_chosen"
    ),
    ("_draw_for_active", "operator"): ("clicks::test_the_menu_pauses_resumes_cancels_moves_and_retries_one"),
    ("_draw_for_active", "downloads.cancel"): (
        "clicks::test_the_menu_pauses_resumes_cancels_moves_and_retries_one"
    ),
    ("_draw_for_active", "downloads.move"): (
        "clicks::test_the_menu_pauses_resumes_cancels_moves_and_retries_one"
    ),
    ("_draw_for_active", "downloads.remove"): "clicks::test_the_menu_retries_replaces_and_removes_one",
    ("_draw_for_active", "downloads.import_file"): "clicks::test_the_menu_copies_shows_and_imports",
    ("_draw_for_active", "downloads.open_folder"): "clicks::test_the_menu_copies_shows_and_imports",
    ("_draw_for_active", "downloads.copy_path"): "clicks::test_the_menu_copies_shows_and_imports",
    ("_draw_for_active", "downloads.copy_message"): "clicks::test_the_menu_copies_shows_and_imports",
    ("_draw_for_all", "downloads.pause"): "clicks::test_the_menu_does_it_to_all",
    ("_draw_for_all", "downloads.resume"): "clicks::test_the_menu_does_it_to_all",
    ("_draw_for_all", "downloads.retry"): "clicks::test_the_menu_does_it_to_all",
    ("_draw_for_all", "downloads.cancel"): "clicks::test_the_menu_does_it_to_all",
    ("_draw_for_all", "downloads.clear"): (
        "clicks::test_the_menu_clears_what_is_finished_failed_and_cancelled"
    ),
    ("_draw_remove", "downloads.remove_all"): "clicks::test_the_menu_removes_failed_and_cancelled_and_all",
    ("draw_import_menu", "downloads.start"): (
        "panel::test_f3_finds_it_and_ok_starts_what_was_on_the_clipboard"
    ),
    ("status_bar", "DOWNLOADS_PT_popover"): "panel::test_a_click_on_the_status_bar_opens_the_list",
    ("status_bar", "downloads.show_list"): "panel::test_a_click_on_the_status_bar_opens_the_list",
    ("status_bar", "downloads.pause"): "panel::test_a_click_on_the_status_bar_opens_the_list",
    ("_draw_offline", "screen.userpref_show"): "clicks::test_offline_the_system_preferences_are_a_click_away",
    ("_draw_tokens", "downloads.add_token"): "clicks::test_a_token_is_added_by_its_dialog_and_removed",
    ("_draw_tokens", "downloads.remove_token"): "clicks::test_a_token_is_added_by_its_dialog_and_removed",
    ("_draw_leftovers", "downloads.find_leftovers"): (
        "clicks::test_partial_files_are_found_and_deleted_and_all_of_them_after_a_question"
    ),
    ("_draw_leftovers", "downloads.delete_leftovers"): (
        "clicks::test_partial_files_are_found_and_deleted_and_all_of_them_after_a_question"
    ),
}
"""The file and the test, by the function that draws it, and what it draws."""
DRAWS = {"operator": 0, "menu": 0, "popover": 0, "prop_enum": 1}  # and which argument names it


def test_whatever_ui_draws_is_clicked_by_a_test() -> None:
    drawn = {
        (function.name, _named(call))
        for path in DRAWING
        for function in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in DRAWS
    }
    assert drawn - CLICKED.keys() == set()
    assert CLICKED.keys() - drawn == set()
    folder = Path(__file__).parent
    for test in CLICKED.values():
        module, _, name = test.partition("::")
        assert f"\ndef {name}(" in (folder / f"test_{module}.py").read_text("utf-8")


def _named(call: ast.Call) -> str:
    assert isinstance(call.func, ast.Attribute)
    argument = call.args[DRAWS[call.func.attr]]
    return str(argument.value) if isinstance(argument, ast.Constant) else ast.unparse(argument)
