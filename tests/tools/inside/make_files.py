"""Runs inside Blender: file-1.blend to file-3.blend, the example of Blender's manual. -- FOLDER"""

import sys
from collections.abc import Callable
from pathlib import Path

import bpy


def monkeys() -> None:
    """A mesh of some megabytes, so that there is something to see while it is downloaded."""
    bpy.ops.mesh.primitive_monkey_add()
    smooth = bpy.context.object.modifiers.new("Smooth", "SUBSURF")
    smooth.levels = 5
    bpy.ops.object.modifier_apply(modifier=smooth.name)


def grid() -> None:
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=200, y_subdivisions=200)


def letters() -> None:
    bpy.ops.object.text_add()
    bpy.context.object.data.body = "Background Downloads"


def make(path: Path, fill: Callable[[], None]) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    fill()
    bpy.ops.wm.save_as_mainfile(filepath=str(path), check_existing=False)


folder = Path(sys.argv[-1])
for number, fill in enumerate((monkeys, grid, letters), start=1):
    make(folder / f"file-{number}.blend", fill)
