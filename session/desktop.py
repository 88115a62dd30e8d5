"""Shows a file in the system's own file manager. Knows no Blender."""

from __future__ import annotations

import shutil
import subprocess

from ..transfer import portable


def show(filepath: str, folder: str) -> bool:
    """Open the folder, the file selected where one is named and the system can. Does not wait.

    False: this system has nothing to show a folder with.
    """
    command = portable.file_manager(filepath, folder)
    if isinstance(command, list) and not shutil.which(command[0]):
        return False
    null = subprocess.DEVNULL
    try:
        subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True)
    except OSError:
        return False
    return True
