"""The extension's own folder, in which is kept what outlives a Blender."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import bpy

from ..hosts import origin
from ..transfer import portable


def user_folder() -> Path:
    """Where it is. Raises OSError, ValueError where it cannot be had."""
    if origin.VERSION:
        raise FileNotFoundError(errno.ENOENT, "A copy of the engine keeps nothing")
    package = __package__.rpartition(".")[0]
    try:
        path = bpy.utils.extension_path_user(package)
    except ValueError:  # enabled as an old-style add-on
        path = bpy.utils.user_resource("CONFIG", path="background_downloads")
    if not portable.is_absolute(path):
        raise FileNotFoundError(errno.ENOENT, "Blender has no folder for it")
    os.makedirs(path, exist_ok=True)  # not by Blender, which prints a traceback each time that it cannot
    return Path(path)
