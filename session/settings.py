"""What Blender's preferences, its version and the open file mean for downloads."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import bpy

from ..transfer.job import Settings, TransferError

VERSION = "0.1.0"
THREADS_FROM = (3, 12)  # below, threads crash Blender whatever they do: it looks up contexts without the GIL
DEFAULT_TIMEOUT = 60.0  # seconds, where Blender's own preference says 0
DEFAULT_CONNECTIONS = 16  # likewise


def connections() -> int:
    """How many may be open at once."""
    return bpy.context.preferences.system.network_connection_limit or DEFAULT_CONNECTIONS


def settings() -> Settings:
    """What workers need to know of Blender's preferences."""
    return Settings(
        timeout=float(bpy.context.preferences.system.network_timeout or DEFAULT_TIMEOUT),
        connections=connections(),
        user_agent=user_agent(),
    )


def user_agent() -> str:
    """Who we are, as Blender's own downloads say it."""
    blender = ".".join(map(str, bpy.app.version))
    return f"background_downloads/{VERSION} Blender/{blender} ({platform.system()} {platform.machine()})"


def preferences() -> Any:
    """The add-on's preferences, or None where it runs without (a script that registers it by hand)."""
    addon = bpy.context.preferences.addons.get(__package__.rpartition(".")[0])
    return addon.preferences if addon else None


def folder(chosen: str) -> str:
    """The absolute folder that an empty field, `//`, or a path means.

    Raises TransferError: the .blend file that it is to be beside is not saved yet.
    """
    chosen = chosen.strip()
    if not chosen:
        chosen = getattr(preferences(), "directory", "").strip() or os.path.join("~", "Downloads")
    if chosen.startswith("//") and not bpy.data.filepath:
        raise TransferError("Save the .blend file first: the folder is to be beside it")
    return os.path.normpath(os.path.expanduser(bpy.path.abspath(chosen)))


def wants_process() -> bool:
    """Whether the workers of a modal run live in a child process."""
    chosen = preferences()
    return sys.version_info < THREADS_FROM or (chosen is not None and chosen.workers == "PROCESS")


def is_rendering() -> bool:
    """Whether Blender renders on a thread of its own."""
    return bool(bpy.app.is_job_running("RENDER"))
