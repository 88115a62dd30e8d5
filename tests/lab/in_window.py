"""Experiments in a Blender with a window: each says what happened, with the cure and without it."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from blender import Blender, BlenderEndedError, BlenderError, wait_until

SOON = 15.0  # seconds for what takes no time, on a busy machine
MINUTE = 60  # seconds: the least that Blender's preference for autosave allows

MODAL = """
import threading, time

class LAB_OT_modal(bpy.types.Operator):
    bl_idname = "lab.modal"
    bl_label = "Modal"
    is_ending, told = False, []

    def invoke(self, context, event):
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context, event):
        return {"FINISHED"} if LAB_OT_modal.is_ending else {"PASS_THROUGH"}

    def cancel(self, context):
        LAB_OT_modal.told.append("cancel")

bpy.utils.register_class(LAB_OT_modal)

def begin():
    with in_view3d():
        bpy.ops.lab.modal("INVOKE_DEFAULT")

def end():
    LAB_OT_modal.is_ending = True
    yield from move(*middle(region_of(view3d())))
    yield from move(5, 5)

def operators():
    return [getattr(operator, "bl_idname", None) for operator in window().modal_operators]
"""

DIRTY = f"""
files = bpy.context.preferences.filepaths
files.use_auto_save_temporary_files = True
files.auto_save_time = {MINUTE // 60}
with in_view3d():
    bpy.ops.mesh.primitive_cube_add()
    bpy.ops.ed.undo_push(message="Add Cube")
"""


def autosave(b: Blender, cured: bool) -> str:
    """A file that was edited, without or with a modal operator that runs; which then ends."""
    b.run(MODAL)
    b.run(DIRTY)
    if not cured:
        b.run("begin()")
    with suppress(AssertionError):
        wait_until(lambda: _autosaves(b), MINUTE + SOON, period=1.0)
        return "autosaved"
    b.steps("end()")
    began = time.monotonic()
    wait_until(lambda: _autosaves(b), SOON)
    return f"not autosaved in {MINUTE + SOON:.0f} s, and {time.monotonic() - began:.0f} s after its end"


def _autosaves(b: Blender) -> list[Path]:
    return list(b.folder.rglob("*_autosave.blend"))


def reload(b: Blender, cured: bool) -> str:
    """Blender's own operator that reloads scripts, without or with a modal operator that runs."""
    b.run(MODAL)
    if not cured:
        b.run("begin()")
    try:
        b.run("with in_view3d(): bpy.ops.script.reload()")
    except BlenderError as error:
        return "refused" if "modal" in str(error) else f"failed: {error}"
    return "reloaded"


def freed(b: Blender, cured: bool) -> str:
    """A modal operator whose file goes; or whose class does."""
    b.run(MODAL)
    b.run("begin(); operator = LAB_OT_modal")
    b.wait("operators() == ['LAB_OT_modal']")
    if cured:
        b.run("with in_view3d(): bpy.ops.wm.read_homefile(use_factory_startup=True)")
    else:
        b.run("bpy.utils.unregister_class(LAB_OT_modal)")
    b.steps("pause(0.5)")
    with suppress(BlenderError):  # Blender 4.3 cannot even list the one that has no class
        assert "LAB_OT_modal" not in b.eval("operators()")
    return "cancel() is called" if b.eval("operator.told") else "gone, and nothing is called"


def quit(b: Blender, cured: bool) -> str:
    """Blender quits while a thread lives that does not end; a daemon, or not."""
    b.run("threading = __import__('threading'); over = threading.Event()")
    b.run(f"threading.Thread(target=over.wait, daemon={cured}).start()")
    try:
        code = b.quit(SOON)
    except AssertionError:
        return f"still there after {SOON:.0f} s"
    return f"ends with {code}"


THE_MANUALS = """
def func():
    import bpy
    bpy.data.objects['Cube'].location.x += 0.05
    bpy.data.meshes.remove(bpy.data.meshes.new("Vital"))
"""
BY_A_THREAD = """
def my_timer():
    from threading import Timer
    t = Timer(PERIOD, my_timer)
    t.start()
    func()
my_timer()
"""
BY_BLENDER = """
def my_timer():
    func()
    return PERIOD
bpy.app.timers.register(my_timer)
"""


def timer(b: Blender, cured: bool) -> str:
    """The manual's timer a hundred times as often, so that it does not take all day, beside a user."""
    b.run(THE_MANUALS)
    b.run("PERIOD = 0.001" + (BY_BLENDER if cured else BY_A_THREAD))
    with suppress(BlenderEndedError):
        end = time.monotonic() + SOON
        while time.monotonic() < end:
            b.run("with in_view3d(): bpy.ops.mesh.primitive_cube_add(); bpy.ops.object.delete()")
            b.steps("pause(0)")
        assert b.eval("bpy.data.objects['Cube'].location.x") > 1
        return _end(b)
    return "crashed"


def _end(b: Blender) -> str:
    try:
        return f"lived, and the quit ends with {b.quit(SOON)}"
    except AssertionError:
        return "lived, and the quit hangs"
