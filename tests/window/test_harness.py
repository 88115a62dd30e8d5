"""The harness itself, tried with a toy extension in a real window."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from blender import (
    Blender,
    BlenderEndedError,
    BlenderError,
    BlenderFactory,
    build_extension,
    extension_id,
    wait_until,
)
from downloading import INSIDE, LISTENED
from roots import Installation, debian_mirror

SIZE = (1000, 700)  # pixels of the window

MANIFEST = """
schema_version = "1.0.0"
id = "toy"
version = "1.0.0"
name = "Toy"
tagline = "Something to press"
maintainer = "Nobody"
type = "add-on"
blender_version_min = "4.2.0"
license = ["SPDX:GPL-3.0-or-later"]
"""

CODE = """
import subprocess
import threading

import bpy

pressed = []


class TOY_OT_press(bpy.types.Operator):
    bl_idname = "toy.press"
    bl_label = "Press Toy"
    index: bpy.props.IntProperty()

    def execute(self, context):
        pressed.append(self.index)
        return {"FINISHED"}


class TOY_OT_import_thing(bpy.types.Operator):
    bl_idname = "toy.import_thing"
    bl_label = "Zebra Thing"

    def invoke(self, context, event):
        pressed.append("invoked")
        return {"FINISHED"}


class TOY_PT_panel(bpy.types.Panel):
    bl_label = "Toy"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Toy"

    def draw(self, context):
        self.layout.operator("toy.press", text="First").index = 100
        for line in range(12):
            row = self.layout.row(align=True)
            row.label(text=f"Line {line}")
            for column in range(3):
                row.operator("toy.press", text="", icon="PLAY").index = line * 3 + column


def draw_menu(self, context):
    self.layout.operator("toy.import_thing")


classes = TOY_OT_press, TOY_OT_import_thing, TOY_PT_panel


def register():
    for cls in classes:
        bpy.utils.register_class(cls)
    bpy.types.TOPBAR_MT_file_import.append(draw_menu)


def unregister():
    bpy.types.TOPBAR_MT_file_import.remove(draw_menu)
    for cls in reversed(classes):
        bpy.utils.unregister_class(cls)
"""

PRESSED = "__import__('bl_ext.user_default.toy', fromlist=['pressed']).pressed"


@pytest.fixture(scope="module")
def window_size() -> tuple[int, int]:
    return SIZE


@pytest.fixture(scope="session")
def extension_zip(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("toy")
    (source / "blender_manifest.toml").write_text(MANIFEST)
    (source / "__init__.py").write_text(CODE)
    return build_extension(installation, source, tmp_path_factory.mktemp("toyzip"))


@pytest.fixture(autouse=True)
def forget_presses(request: pytest.FixtureRequest) -> None:
    if "blender" in request.fixturenames:
        request.getfixturevalue("blender").run(f"{PRESSED}.clear()")


# The user's hands.


def test_a_wide_button_is_pressed(blender: Blender) -> None:
    command = blender.press_button("toy.press", tab="Toy")
    assert "index=100" in command
    blender.wait(f"{PRESSED} == [100]")


@pytest.mark.parametrize("index", [0, 2, 34])
def test_one_of_many_small_buttons_is_pressed(blender: Blender, index: int) -> None:
    blender.press_button("toy.press", tab="Toy", having=f"index={index})")
    blender.wait(f"{PRESSED} == [{index}]")


def test_pressing_keeps_the_clipboard(blender: Blender) -> None:
    blender.clipboard = "two\nlines"
    blender.press_button("toy.press", tab="Toy")
    assert blender.clipboard == "two\nlines"


def test_a_missing_button_says_what_is_there(blender: Blender) -> None:
    with pytest.raises(BlenderError, match=r"no button toy\.nothing .*toy\.press"):
        blender.press_button("toy.nothing", tab="Toy")


def test_a_missing_tab_is_named(blender: Blender) -> None:
    with pytest.raises(BlenderError, match="no tab 'Nowhere'"):
        blender.press_button("toy.press", tab="Nowhere")


def test_f3_invokes_what_a_menu_has(blender: Blender) -> None:
    blender.f3("zebra thing")
    blender.wait(f"{PRESSED} == ['invoked']")


def test_typed_text_arrives(blender: Blender) -> None:
    typed = "http://127.0.0.1:8000/a_b-C.blend?x=1&y=%20#z"
    blender.key("F2")
    blender.steps("pause(0)")
    blender.type(typed)
    blender.key("RET")
    blender.wait(f"bpy.context.view_layer.objects.active.name == {typed!r}")


def test_the_picture_shows_something(blender_factory: BlenderFactory, tmp_path: Path) -> None:
    b = blender_factory(pixels=True)
    path = b.screenshot(tmp_path / "shot.png")
    width, height, pixels = b.display.picture()
    assert (width, height) == SIZE
    assert path.read_bytes().startswith(b"\x89PNG")
    assert len(set(pixels[::997])) > 20


# Python in Blender.


def test_names_stay_and_errors_come_back(blender: Blender) -> None:
    blender.run("kept = 41")
    assert blender.eval("kept + 1") == 42
    with pytest.raises(BlenderError, match="ZeroDivisionError"):
        blender.eval("1 / 0")
    assert blender.eval("__import__('__main__').__dict__.get('__file__')") is None


def test_a_wait_that_fails_shows_the_console(blender: Blender) -> None:
    blender.run("print('said before', flush=True)")
    with pytest.raises(AssertionError, match=r"(?s)not within 0.1 s.*said before"):
        blender.wait("False", deadline=0.1)
    assert blender.eval("6 * 7") == 42


def test_an_answer_that_comes_too_late_is_dropped(blender: Blender) -> None:
    with pytest.raises(AssertionError, match="no answer within"):
        blender.eval("__import__('time').sleep(0.5)", deadline=0.1)
    assert blender.eval("'next'") == "next"


def test_a_file_load_keeps_the_connection(blender: Blender, tmp_path: Path) -> None:
    saved = str(tmp_path / "scene.blend")
    blender.run(f"with in_view3d(): bpy.ops.wm.save_as_mainfile(filepath={saved!r})")
    blender.run(f"with in_view3d(): bpy.ops.wm.open_mainfile(filepath={saved!r})")
    assert blender.eval("bpy.data.filepath") == saved


# What it is made of.


def test_no_thread_and_no_child_to_start_with(blender: Blender) -> None:
    assert blender.threads() == ["MainThread"]
    assert blender.children() == {}


def test_the_leak_check_sees_a_child(blender: Blender) -> None:
    fds = blender.fds()
    blender.run("import subprocess; child = subprocess.Popen(['sleep', '1000'])")
    with pytest.raises(AssertionError, match=r"left behind in Blender: .*sleep 1000"):
        blender.check_nothing_left(fds, deadline=0.1)
    blender.run("child.kill(); child.wait()")


def test_the_leak_check_sees_a_thread_and_a_descriptor(blender: Blender) -> None:
    fds = blender.fds()
    blender.run("import os, threading; gate = threading.Event(); ends = os.pipe()")
    blender.run("thread = threading.Thread(target=gate.wait, name='downloads-1'); thread.start()")
    with pytest.raises(AssertionError, match=r"left behind in Blender: .*downloads-1.*pipe:"):
        blender.check_nothing_left(fds, deadline=0.1)
    blender.run("gate.set(); thread.join(); [os.close(end) for end in ends]")


def test_a_timer_that_was_left_behind_is_heard(blender: Blender) -> None:
    blender.run(INSIDE)
    blender.run("timer = bpy.context.window_manager.event_timer_add(0.025, window=window())")
    assert blender.steps(f"timers_heard({LISTENED})") > 0
    blender.run("bpy.context.window_manager.event_timer_remove(timer)")
    assert blender.steps(f"timers_heard({LISTENED})") == 0


def test_the_last_words_are_those_of_this_test(blender: Blender) -> None:
    blender.run("print('said before', flush=True)")
    blender.forget_console()
    blender.run("print('said now', flush=True)")
    assert "said now" in blender.last_words
    assert "said before" not in blender.last_words


# Windows, and the ways to end.


def test_a_second_window_is_closed_and_the_first_stays(blender: Blender) -> None:
    index = blender.new_window()
    blender.close_window(index)
    blender.wait("len(bpy.context.window_manager.windows) == 1")


def test_a_reset_closes_other_windows(blender: Blender) -> None:
    blender.new_window(main=True)
    blender.reset()
    assert blender.windows() == 1


def test_closing_the_first_window_leaves_one_of_its_own(blender_factory: BlenderFactory) -> None:
    b = blender_factory()
    b.new_window(main=True)
    b.close_window(0)
    b.wait("len(bpy.context.window_manager.windows) == 1")
    assert b.quit() == 0


def test_quit_by_the_operator(blender_factory: BlenderFactory) -> None:
    b = blender_factory()
    b.run("bpy.ops.mesh.primitive_cube_add()")
    assert b.quit() == 0
    assert "Blender quit" in b.console


def test_quit_by_the_window_manager(blender_factory: BlenderFactory) -> None:
    b = blender_factory()
    b.close_window()
    assert b.join() == 0
    with pytest.raises(BlenderEndedError, match="exit code 0"):
        b.eval("1")


def test_a_start_in_the_same_profile_finds_what_was_left(blender_factory: BlenderFactory) -> None:
    b = blender_factory(factory=False, enable=[])
    note = "bpy.utils.extension_path_user('bl_ext.user_default.toy', create=True) + '/note'"
    b.run(f"open({note}, 'w').write('left')")
    assert b.quit() == 0
    again = blender_factory(b.folder, factory=False, enable=[])
    assert again.eval(f"open({note}).read()") == "left"
    assert again.eval("'bl_ext.user_default.toy' in bpy.context.preferences.addons")


def test_install_in_the_window(blender_factory: BlenderFactory, extension_zip: Path) -> None:
    b = blender_factory(extension=False)
    assert b.install(extension_zip) == f"bl_ext.user_default.{extension_id(extension_zip)}"
    b.press_button("toy.press", tab="Toy")
    b.wait(f"{PRESSED} == [100]")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_blender_itself(blender_factory: BlenderFactory, number: int) -> None:
    b = blender_factory()
    assert os.readlink(f"/proc/{b.pid}/exe").endswith("blender")
    b.run("import subprocess; child = subprocess.Popen(['sleep', '1000'])")
    b.terminate(number)
    assert b.join() == -number
    assert list(b.children().values()) == ["sleep 1000 "]
    b.close()
    assert b.children() == {}


def test_it_can_be_looked_at_while_busy(blender_factory: BlenderFactory) -> None:
    b = blender_factory()
    with pytest.raises(AssertionError, match="no answer"):
        b.run("import time\nwhile True: time.sleep(1)", deadline=0.5)
    assert b.system_threads()
    assert b.fds()
    assert b.children() == {}
    b.kill()
    assert b.join() == -signal.SIGKILL


def test_nothing_stays_after_an_error(installation: Installation, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Blender(installation, tmp_path / "b") as b:
        raise ZeroDivisionError
    assert not b.alive
    wait_until(lambda: not Path(f"/proc/{b.pid}").exists())


# Roots.


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sources.list", "# no\ndeb [arch=amd64 signed-by=/k] http://one/debian/ bookworm main\n"),
        ("sources.list.d/debian.sources", "Types: deb\nURIs: http://one/debian/\nSuites: x\n"),
    ],
)
def test_the_mirror_is_the_machines_own(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    (tmp_path / "sources.list").touch()
    file.write_text(text)
    assert debian_mirror(tmp_path) == "http://one/debian/"
