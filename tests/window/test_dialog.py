"""The dialog that shows what a link is of before it is downloaded, in a real window."""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blender import Blender, BlenderFactory, wait_until
from downloading import INSIDE, MODULE
from server import Gate, Server, add_headers, on_range, pattern, stall_before_headers, status

SIZE = 3 << 20  # bytes of a file
DATA = pattern(SIZE)

LOOKING = """
FIRST = 66  # pixels from the top of the dialog to its first field
drawn = []  # what the dialog said each time that Blender drew it

class Says:
    'Stands before a layout, and takes down what is said.'

    def __init__(self, layout, texts):
        self._layout, self._texts = layout, texts

    def __getattr__(self, name):
        found = getattr(self._layout, name)
        if name == "label":
            return self._label
        if name in ("box", "column", "row", "split"):
            return lambda *args, **options: Says(found(*args, **options), self._texts)
        return found

    def __setattr__(self, name, value):
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._layout, name, value)

    def _label(self, text="", **options):
        self._texts.append(text)
        self._layout.label(text=text, **options)

dialog = part("session.dialog")
if not hasattr(dialog, "plain_draw"):
    dialog.plain_draw = dialog.draw

def draw(layout, context):
    texts = []
    dialog.plain_draw(Says(layout, texts), context)
    drawn.append(" | ".join(texts))

dialog.draw = draw

def open_dialog():
    with in_view3d():
        bpy.ops.downloads.start("INVOKE_DEFAULT", directory=FOLDER)
    yield from pause(0.3)

def shown():
    return drawn[-1] if drawn else ""

def asks():
    return not session().ahead.is_over

def dialog_is_open():
    return part("session.popup").is_open()

def first_field():
    'Where the field for links is.'
    [region] = part("session.popup")._there()
    return region.x + region.width * 0.6, region.y + region.height - FIRST
"""


FIELD = 26  # pixels from a field of the dialog to the next
BOX, ROW, ALL = 178, 21, 324
"""Pixels from the dialog's top to the first box of a list, from one to the next, and from the top to All."""


@pytest.fixture(scope="module")
def window_size() -> tuple[int, int]:
    """The dialog needs some room."""
    return 1000, 700


@pytest.fixture
def b(blender: Blender, tmp_path: Path) -> Iterator[Blender]:
    blender.run(INSIDE)
    blender.run(LOOKING)
    blender.run(f"FOLDER = {str(tmp_path / 'files')!r}")
    blender.run("bpy.context.preferences.system.network_timeout = 100")  # what a test holds is no stall
    yield blender
    if blender.alive:
        blender.key("ESC")
        blender.wait("not asks()")
        blender.run("dialog.draw = dialog.plain_draw")


def opened(b: Blender, *links: str) -> None:
    b.clipboard = "\n".join(links)
    b.steps("open_dialog()")
    assert b.eval("dialog_is_open()")


def alone(blender_factory: BlenderFactory) -> Blender:
    """A Blender of its own."""
    b = blender_factory()
    b.set_online(True)
    for source in (INSIDE, LOOKING, "FOLDER = ''"):
        b.run(source)
    return b


def add_held(server: Server, path: str = "/held.blend") -> tuple[str, Gate]:
    gate = server.gate()
    return server.add(path, stall_before_headers(gate), body=DATA), gate


def nobody_left(b: Blender) -> None:
    """No thread, no child of ours."""
    b.wait("not asks() and workers() == []")
    assert [line for line in b.children().values() if MODULE in line] == []


def test_name_size_type_and_room_are_shown_as_they_become_known(b: Blender, server: Server) -> None:
    named = add_headers(("Content-Disposition", 'attachment; filename="rock.blend"'))
    gate = server.gate()
    url = server.add("/get?id=7", stall_before_headers(gate), named, body=DATA)
    opened(b, url, server.add("/tree.zip", body=DATA[:1024]))
    b.wait("'tree.zip | 1.0 KiB, ZIP file' in shown() and 'waiting for the server' in shown()")
    b.wait("' free in ' in shown()")
    gate.open()
    b.wait("'rock.blend | 3.0 MiB, Blender file' in shown()")
    assert "3.0 MiB to download" in b.eval("shown()")
    assert [request.range for request in server.requests] == ["bytes=0-0"] * 2
    nobody_left(b)  # all have answered, and the dialog is still there
    assert b.eval("[dialog_is_open(), len(state().items)]") == [True, 0]
    gate.open()
    b.key("RET")
    b.wait("statuses() == ['FINISHED', 'FINISHED']")
    assert [row["name"] for row in b.eval("rows()")] == ["rock.blend", "tree.zip"]


def test_ok_does_not_wait_for_a_server_that_does_not_answer(b: Blender, server: Server) -> None:
    url, gate = add_held(server)
    opened(b, url)
    wait_until(lambda: gate.reached == 1)
    b.key("RET")
    wait_until(lambda: gate.reached == 2)  # the download asks, while the look was not answered
    gate.open()
    b.wait("statuses() == ['FINISHED']")
    nobody_left(b)


def esc(b: Blender) -> None:
    b.key("ESC")


def load(b: Blender) -> None:
    b.run("bpy.ops.wm.read_homefile(use_empty=False)")


def go_offline(b: Blender) -> None:
    b.run("bpy.context.preferences.system.use_online_access = False")


@pytest.mark.parametrize("host", ["AUTOMATIC", "PROCESS"])
@pytest.mark.parametrize("way", [esc, load, go_offline])
def test_nobody_asks_any_more_once_it_is_gone(b: Blender, server: Server, way: Any, host: str) -> None:
    b.run(f"set_workers({host!r})")
    url, gate = add_held(server)
    opened(b, url)
    wait_until(lambda: gate.reached == 1)
    way(b)
    nobody_left(b)
    server.wait_open(0)
    assert b.eval("len(state().items)") == 0
    b.set_online(True)
    b.run("set_workers('AUTOMATIC')")


@pytest.mark.parametrize("key", ["ESC", "RET"])
def test_nobody_asks_any_more_where_the_add_on_is_disabled(
    blender_factory: BlenderFactory, server: Server, key: str
) -> None:
    b = alone(blender_factory)
    url, gate = add_held(server)
    opened(b, url)
    wait_until(lambda: gate.reached == 1)
    b.run(f"import addon_utils; addon_utils.disable({MODULE!r})")
    b.wait("workers() == []")
    server.wait_open(0)
    b.steps("move(300, 300)")  # Blender still has the dialog
    b.key(key)
    b.wait("not hasattr(bpy.types, 'DOWNLOADS_OT_start')")
    assert "Traceback" not in b.console


WITH_DIALOGS = "replace_link", "remove", "remove_all", "add_token", "cancel", "delete_leftovers"
TWO_ROWS = """
links, _ = part("transfer.names").parse_links("http://127.0.0.1:1/a.bin http://127.0.0.1:1/b.bin")
for row in session().add(links, directory=FOLDER):
    row.progress = row.progress._replace(received=1)
    session().pause(row)
session().leftovers = [part("session.records").Lying(directory=FOLDER, name="", title="", size=1, age=1.0)]
session().flush()
"""


@pytest.mark.parametrize("operator", WITH_DIALOGS)
def test_a_dialog_of_any_operator_outlives_the_add_on(blender_factory: BlenderFactory, operator: str) -> None:
    """Blender 4.3 would crash where its class went before."""
    b = alone(blender_factory)
    b.run(TWO_ROWS)
    b.run(f"with in_view3d(): bpy.ops.downloads.{operator}('INVOKE_DEFAULT')")
    b.steps("pause(0.3)")
    b.run(f"import addon_utils; addon_utils.disable({MODULE!r})")
    b.steps("move(300, 300)")
    b.key("RET")
    b.wait(f"not hasattr(bpy.types, 'DOWNLOADS_OT_{operator}')")
    assert "Traceback" not in b.console


def test_a_file_browser_outlives_the_add_on(blender_factory: BlenderFactory) -> None:
    b = alone(blender_factory)
    b.run(TWO_ROWS)
    b.run("bpy.context.preferences.view.filebrowser_display_type = 'SCREEN'")
    b.run("with in_view3d(): bpy.ops.downloads.change_folder('INVOKE_DEFAULT')")
    b.wait("window().screen.areas[0].type == 'FILE_BROWSER'")
    b.run(f"import addon_utils; addon_utils.disable({MODULE!r})")
    b.steps("pause(0.5)")  # several looks whether the class may go
    b.run("with bpy.context.temp_override(area=window().screen.areas[0]): bpy.ops.file.execute()")
    b.wait("not hasattr(bpy.types, 'DOWNLOADS_OT_change_folder')")
    assert b.eval("len(window().screen.areas)") > 1
    assert "Traceback" not in b.console


@pytest.mark.parametrize("operator", ["start", "remove_all", "cancel"])
@pytest.mark.parametrize("repository", ["user_default", "second"])
def test_a_dialog_outlives_its_add_on_where_another_copy_takes_its_place(
    blender_factory: BlenderFactory, extension_zip: Path, repository: str, operator: str
) -> None:
    """An update, or one from another repository: Blender 5.2 crashed where the class was another at once."""
    b = alone(blender_factory)
    b.run(INSTALL.format(folder=str(b.folder / "second"), repository=repository))
    b.run(f"FOLDER = {str(b.folder)!r}")
    b.run(TWO_ROWS)
    b.run("old = bpy.types.DOWNLOADS_OT_start")
    b.run(f"with in_view3d(): bpy.ops.downloads.{operator}('INVOKE_DEFAULT')")
    b.steps("pause(0.3)")
    b.run(f"install({str(extension_zip)!r})")
    b.steps("pause(0.5)")  # several looks whether the new class may come
    assert b.eval("bpy.types.DOWNLOADS_OT_start is old")
    b.steps("move(300, 300)")
    b.key("ESC")
    b.wait("getattr(bpy.types, 'DOWNLOADS_OT_start', old) is not old")
    assert "Traceback" not in b.console
    assert "registered before" not in b.console


INSTALL = """
repositories = bpy.context.preferences.extensions.repos
second = repositories.new(name="Second", module="second", custom_directory={folder!r})
second.use_custom_directory = True

def install(path):
    with in_view3d():
        result = bpy.ops.extensions.package_install_files(
            repo={repository!r}, filepath=path, enable_on_install=True)
    assert result == {{"FINISHED"}}, result
"""


def test_a_dialog_in_each_of_two_windows_keeps_its_operator(
    blender_factory: BlenderFactory, server: Server
) -> None:
    """Blender 4.3 would crash where its class went before the last of them."""
    b = alone(blender_factory)
    b.new_window()
    for number in (0, 1):
        url, gate = add_held(server, f"/held{number}.blend")
        b.clipboard = url
        b.run(
            f"with in_view3d(window({number})): bpy.ops.downloads.start('INVOKE_DEFAULT', directory=FOLDER)"
        )
        wait_until(lambda gate=gate: gate.reached == 1)
    b.run(f"import addon_utils; addon_utils.disable({MODULE!r})")
    b.close_window(1)
    b.steps("pause(0.5)")  # several looks whether it may go
    assert b.eval("hasattr(bpy.types, 'DOWNLOADS_OT_start')")
    b.steps("move(300, 300)")
    b.key("ESC")
    b.wait("not hasattr(bpy.types, 'DOWNLOADS_OT_start')")
    assert "Traceback" not in b.console


def test_it_asks_no_more_at_quit(blender_factory: BlenderFactory, server: Server) -> None:
    b = alone(blender_factory)
    url, gate = add_held(server)
    opened(b, url)
    wait_until(lambda: gate.reached == 1)
    assert b.quit() == 0


def test_a_server_that_refuses_to_be_asked_costs_nothing_but_the_size(b: Blender, server: Server) -> None:
    refusing = server.add("/a.blend", on_range(status(405)), body=DATA)
    opened(b, refusing, server.add("/b.blend", status(404)))
    b.wait("'a.blend | 3.0 MiB' in shown() and 'no file at this link' in shown()")


def test_what_is_there_already_and_what_does_not_fit_is_said(
    b: Blender, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.blend").write_bytes(b"mine")
    b.run("part('session.ahead').shutil = type('Full', (), {'disk_usage': lambda path: DISK})")
    b.run("DISK = type('Disk', (), {'free': 1 << 20})")
    try:
        opened(b, server.add("/a.blend", body=DATA))
        b.wait("'This does not fit: 3.0 MiB to download, 1.0 MiB free' in shown()")
        assert "the new one will be called “a (1).blend”" in b.eval("shown()")
    finally:
        b.run("import shutil; part('session.ahead').shutil = shutil")


def test_of_more_than_a_handful_nobody_is_asked(b: Blender, server: Server) -> None:
    opened(b, *[server.add(f"/{number}.blend", body=DATA) for number in range(9)])
    b.wait("'9 files: 0.blend, 1.blend, 2.blend and 6 more' in shown()")
    assert server.requests == []


def test_what_is_typed_meanwhile_is_kept_and_then_asked_about(b: Blender, server: Server) -> None:
    held, gate = add_held(server)
    opened(b, held)
    wait_until(lambda: gate.reached == 1)
    b.run("times = len(drawn)")
    b.steps("click(*first_field())")
    b.key("END")
    b.type(f" {server.add('/b.blend', body=DATA)}")
    gate.open()
    b.wait("not asks() and len(drawn) > times")  # it was drawn anew while somebody types
    b.key("RET")
    b.wait("'b.blend | 3.0 MiB' in shown()")
    assert b.eval("'held.blend | 3.0 MiB' in shown()")


def test_nothing_is_asked_before_it_is_open(b: Blender, server: Server) -> None:
    b.clipboard = server.add("/a.blend", body=DATA)
    b.run("with in_view3d(): bpy.ops.downloads.paste()")
    b.steps("pause(0.3)")
    b.run("state().urls = ''")
    assert server.requests == []


def test_it_opens_beside_a_run_and_ok_adds_to_it(b: Blender, server: Server) -> None:
    url, gate = add_held(server)
    b.run(f"invoke({url!r}, directory=FOLDER)")
    wait_until(lambda: gate.reached == 1)
    opened(b, server.add("/b.blend", body=DATA))
    b.wait("'b.blend | 3.0 MiB' in shown()")
    b.key("RET")
    gate.open()
    b.wait("statuses() == ['FINISHED', 'FINISHED']")


def test_in_an_asset_library_its_catalog_is_chosen_by_a_click(
    b: Blender, server: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    uuid = "01234567-89ab-cdef-0123-456789abcdef"
    (folder / "blender_assets.cats.txt").write_text(f"VERSION 1\n{uuid}:Props/Rocks:Props-Rocks\n")
    b.run("libraries = bpy.context.preferences.filepaths.asset_libraries")
    b.run("libraries.new(name='Kitchen', directory=FOLDER)")
    opened(b, server.add("/rock.bin", body=DATA))
    b.wait("'rock.bin | 3.0 MiB' in shown()")
    x, y = b.eval("first_field()")
    b.click(x, y - 2 * FIELD)
    b.steps("pause(0.5)")
    b.type("rocks")
    b.steps("pause(0.5)")
    b.key("RET")
    b.steps("pause(0.3)")
    b.steps(f"move({x} - 20, {y} - 180)")
    b.key("RET")
    b.wait("statuses() == ['FINISHED']")
    b.wait("rows()[0]['note'] == 'Not put into the catalog: only .blend files hold assets'")
    b.run("libraries.remove(libraries[-1])")


# Lists.


def metalink(server: Server, *, first: str) -> str:
    """A list of two files, of which the first can be had at two places."""
    digest = hashlib.sha256(DATA).hexdigest()
    second = server.add("/real.bin", body=DATA)
    text = f"""<metalink xmlns="urn:ietf:params:xml:ns:metalink">
    <file name="maps/rock.bin"><size>{SIZE}</size><hash type="sha-256">{digest}</hash>
    <url priority="1">{first}</url><url priority="2">{second}</url></file>
    <file name="tree.bin"><url>{server.add("/tree.bin", body=b"tree")}</url></file></metalink>"""
    return server.add("/all.meta4", body=text.encode())


def test_what_a_list_names_is_chosen_and_fetched_under_its_name_from_the_next_mirror(
    b: Blender, server: Server, tmp_path: Path
) -> None:
    opened(b, metalink(server, first=server.add("/gone.bin", status(404))))
    b.wait("'2 of 2 files chosen' in shown()")
    assert b.eval("[item.name for item in state().listed]") == ["maps/rock.bin", "tree.bin"]
    b.run("state().listed[1].is_chosen = False")
    b.wait("'1 of 2 files chosen' in shown()")
    b.key("RET")
    b.wait("statuses() == ['FINISHED']")
    assert (tmp_path / "files" / "maps" / "rock.bin").read_bytes() == DATA
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["maps"]
    assert server.requests_for("/tree.bin") == []


@pytest.mark.parametrize("runs", [False, True], ids=["alone", "beside a run"])
def test_ok_where_no_file_of_a_list_is_chosen_says_so(b: Blender, server: Server, runs: bool) -> None:
    link = metalink(server, first=server.url("/real.bin"))
    held, gate = add_held(server)
    if runs:
        b.run(f"with in_view3d(): bpy.ops.downloads.start('INVOKE_DEFAULT', urls={held!r}, directory=FOLDER)")
    opened(b, link)
    b.wait("'2 of 2 files chosen' in shown()")
    b.run("bpy.ops.downloads.choose_listed(is_chosen=False); take_reports()")
    b.wait("'0 of 2 files chosen' in shown()")
    b.key("RET")
    b.wait("any('No file of the list was chosen' in line for line in take_reports())")
    gate.open()
    b.wait(f"statuses() == {['FINISHED'] if runs else []}")


def test_another_file_than_a_list_names_gets_no_name(b: Blender, server: Server, tmp_path: Path) -> None:
    sums = f"{hashlib.sha256(DATA).hexdigest()}  rock.bin\n".encode()
    server.add("/rock.bin", body=b"another one")
    opened(b, server.add("/SHA256SUMS", body=sums))
    b.wait("'1 of 1 file chosen' in shown()")
    b.key("RET")
    b.wait("statuses() == ['FAILED']")
    assert "checksum differs" in b.eval("rows()[0]['error']")
    assert not (tmp_path / "files" / "rock.bin").exists()


def test_a_list_in_the_panels_field_opens_the_dialog(b: Blender, server: Server) -> None:
    b.run(f"state().urls = {metalink(server, first=server.url('/gone.bin'))!r}")
    assert b.eval("part('session.drawing')._start_text(state().urls)") == "Choose Files..."
    b.steps("open_dialog()")
    b.wait("'2 of 2 files chosen' in shown()")
    b.run("state().urls = ''")


@pytest.mark.parametrize("waits", [False, True], ids=["alone", "beside what waits"])
def test_a_list_that_is_dropped_opens_the_dialog(
    b: Blender, server: Server, tmp_path: Path, waits: bool
) -> None:
    link = metalink(server, first=server.url("/real.bin"))
    with urllib.request.urlopen(link) as answer:
        (tmp_path / "all.meta4").write_bytes(answer.read())
    b.clipboard = server.add("/other.bin", body=DATA)
    options = f"directory={str(tmp_path)!r}, files=[{{'name': 'all.meta4'}}]"
    b.run(f"prefs = bpy.context.preferences.addons[{MODULE!r}].preferences; prefs.directory = FOLDER")
    if waits:  # and no run has come yet: the dialog opens all the same
        where = "directory=FOLDER, if_exists=part('transfer.job').IfExists.RENAME"
        b.run(f"session().add([part('transfer.names').Link({b.clipboard!r})], {where})")
    b.run(f"with in_view3d(): bpy.ops.wm.drop_import_file('INVOKE_DEFAULT', {options})")
    b.wait("'2 of 2 files chosen' in shown()")
    b.key("RET")
    b.wait(f"statuses() == ['FINISHED'] * {3 if waits else 2}")
    b.run("prefs.directory = ''")
    names = [path.relative_to(tmp_path / "files") for path in (tmp_path / "files").rglob("*.bin")]
    assert sorted(map(str, names)) == ["maps/rock.bin", *["other.bin"] * waits, "tree.bin"]
    opened(b, server.add("/third.blend", body=DATA))
    b.wait("'third.blend' in shown()")
    assert b.eval("len(state().listed)") == 0


def test_boxes_none_and_all_are_clicked(b: Blender, server: Server) -> None:
    opened(b, metalink(server, first=server.url("/real.bin")))
    b.wait("'2 of 2 files chosen' in shown()")
    chosen = "[item.is_chosen for item in state().listed]"
    b.run("region = part('session.popup')._there()[0]")
    x, y, width, height = b.eval("(region.x, region.y, region.width, region.height)")
    top = y + height - BOX
    b.click(x + 36, top)
    b.wait(f"{chosen} == [False, True]")
    b.click(x + 36, top - ROW)
    b.wait(f"{chosen} == [False, False]")
    b.click(x + width * 0.5, y + height - ALL)
    b.wait(f"{chosen} == [True, True]")
    b.click(x + width * 0.82, y + height - ALL)
    b.wait(f"{chosen} == [False, False]")
    b.key("ESC")
    b.wait("len(state().listed) == 0")
