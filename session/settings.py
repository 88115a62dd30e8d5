"""What Blender's preferences, its version and the open file mean for downloads."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import bpy

from ..hosts import origin
from ..transfer import portable
from ..transfer.job import Settings, TransferError
from ..transfer.mirrors import Mirror
from .home import user_folder
from .tokens import Tokens
from .words import readable

THREADS_FROM = (3, 12)  # below, threads crash Blender whatever they do: it looks up contexts without the GIL
MIB = 1 << 20  # bytes
DEFAULT_TIMEOUT = 60.0  # seconds, where Blender's own preference says 0
DEFAULT_CONNECTIONS = 16  # likewise
MIRROR_VARIABLE = "BACKGROUND_DOWNLOADS_MIRROR"
"""Of the environment: a studio sets it for all its computers, and it wins over the preference."""


tokens = Tokens(lambda: user_folder())
"""The access tokens of this user."""


def connections() -> int:
    """How many may be open at once."""
    return bpy.context.preferences.system.network_connection_limit or DEFAULT_CONNECTIONS


def settings() -> Settings:
    """What workers need to know of Blender's preferences."""
    return Settings(
        timeout=float(bpy.context.preferences.system.network_timeout or DEFAULT_TIMEOUT),
        connections=connections(),
        user_agent=user_agent(),
        tokens=tokens.pairs,
        speed_limit=speed_limit(),
        mirror=mirror(),
    )


def mirror() -> str:
    """Where to ask in a server's place (`mirrors.Mirror`); empty: nowhere."""
    return (os.environ.get(MIRROR_VARIABLE) or getattr(preferences(), "mirror", "")).strip()


def mirror_trouble() -> str:
    """Why that cannot be used, as a sentence; empty if it can."""
    try:
        Mirror(mirror())
    except TransferError as error:
        return str(error)
    return ""


def speed_limit() -> int:
    """Bytes a second over all connections; 0: as many as come."""
    return round(getattr(preferences(), "speed_limit", 0.0) * MIB)


def user_agent() -> str:
    """Who we are, as Blender's own downloads say it."""
    blender = ".".join(map(str, bpy.app.version))
    return f"background_downloads/{version()} Blender/{blender} ({portable.system()})"


@cache
def version() -> str:
    """The extension's, as its manifest has it, or that of the extension that this is a copy of."""
    if origin.VERSION:
        return origin.VERSION
    import tomllib

    with open(Path(__file__).parents[1] / "blender_manifest.toml", "rb") as file:
        return str(tomllib.load(file)["version"])


def preferences() -> Any:
    """The add-on's preferences, or None where it runs without (a script that registers it by hand)."""
    addon = bpy.context.preferences.addons.get(__package__.rpartition(".")[0])
    return addon.preferences if addon else None


def folder(chosen: str) -> str:
    """The absolute folder that an empty field, `//`, `~`, a `file:` link or a path means.

    Main thread. Raises TransferError in a sentence where it means none that is whole: what is
    relative would land in Blender's working directory, which nobody looks into.
    """
    chosen = _unquoted(chosen) or _unquoted(getattr(preferences(), "directory", ""))
    path = _path_of_link(chosen) if chosen[:5].lower() == "file:" else chosen or portable.downloads_folder()
    if path.startswith("//") and path == chosen:
        if not hasattr(bpy.data, "filepath"):  # while Blender enables add-ons at its start
            raise TransferError("Blender has no file open yet: give a whole path, or ask once it has started")
        if not bpy.data.filepath:
            raise TransferError("Save the .blend file first: the folder is to be beside it")
        path = bpy.path.abspath(path)
    path = os.path.expanduser(path)
    if not portable.is_absolute(path):
        whole = readable(portable.downloads_folder())
        raise TransferError(f"“{readable(chosen)}” is no whole path. Choose a folder, such as “{whole}”")
    path = os.path.normpath(portable.plain(path))
    return path[1:] if path.startswith("//") else path  # which Blender would take for beside the .blend file


QUOTES = ('""', "''", "“”", "‘’", "„“", "«»", "``", "<>")  # noqa: RUF001  # that people copy with a path
AROUND = " \t\r\n\u00a0\u200b\u200e\u200f\u202a\u202c\ufeff"  # such as Windows copies with it, unseen


def _unquoted(text: str) -> str:
    text = text.strip(AROUND)
    return _unquoted(text[1:-1]) if text[:1] + text[1:][-1:] in QUOTES else text


def _path_of_link(link: str) -> str:
    """The path that a `file:` link names (RFC 8089), or the link itself where it is on another machine."""
    from urllib.parse import unquote

    host, slash, path = link[7:].partition("/") if link[5:7] == "//" else ("", link[5:6], link[6:])
    host, path = (unquote(text, errors="surrogateescape") for text in (host, slash + path))
    return portable.path_of_link("" if host.lower() == "localhost" else host, path) or link


always_process = False
"""Set by an add-on that has a copy of the engine and wants no thread in Blender."""


def wants_process() -> bool:
    """Whether the workers of a modal run live in a child process."""
    if always_process:
        return True
    chosen = preferences()
    return sys.version_info < THREADS_FROM or (chosen is not None and chosen.workers == "PROCESS")


def is_rendering() -> bool:
    """Whether Blender renders on a thread of its own."""
    return bool(bpy.app.is_job_running("RENDER"))
