"""Shows a file in the system's own file manager. Knows no Blender."""

from __future__ import annotations

import os
import shutil
import subprocess

from ..transfer import portable


def show(filepath: str, folder: str) -> bool:
    """Open the folder, the file selected where it is there and the system can. Does not wait.

    False: this system has nothing to show a folder with.
    """
    target = filepath if os.path.exists(filepath) else ""
    try:
        _start(portable.file_manager(target, folder))
    except OSError:
        return False
    return True


def _start(command: list[str] | str) -> None:
    if isinstance(command, list) and not shutil.which(command[0]):
        raise FileNotFoundError(command[0])
    null = subprocess.DEVNULL
    subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True)
