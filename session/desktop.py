"""Shows a file in the system's own file manager. Knows no Blender."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

MANAGER = "org.freedesktop.FileManager1"  # freedesktop.org, "File Manager DBus Interface"
# Waits for what the file manager says, and opens the folder where there is none. In a shell of its
# own, since a file manager may take seconds to start.
ASK_MANAGER = """
dbus-send --session --print-reply --dest="$1" --type=method_call /org/freedesktop/FileManager1 \
    "$1.ShowItems" "array:string:$2" string: >/dev/null 2>&1 ||
gdbus call --session --dest "$1" --object-path /org/freedesktop/FileManager1 \
    --method "$1.ShowItems" "['$2']" "" >/dev/null 2>&1 ||
exec xdg-open "$3" >/dev/null 2>&1
"""


def show(filepath: str, folder: str) -> bool:
    """Open the folder, the file selected where it is there and the system can. Does not wait.

    False: this system has nothing to show a folder with.
    """
    target = filepath if os.path.exists(filepath) else ""
    try:
        _start(_command(target, folder))
    except OSError:
        return False
    return True


def _command(filepath: str, folder: str) -> list[str] | str:
    if sys.platform == "win32":  # its own quoting: the comma belongs to the switch
        return f'explorer /select,"{filepath}"' if filepath else f'explorer "{folder}"'
    if sys.platform == "darwin":
        return ["open", "-R", filepath] if filepath else ["open", folder]
    if not filepath:
        return ["xdg-open", folder]
    # A comma would separate two items, a quote end one.
    uri = Path(filepath).as_uri().replace(",", "%2C").replace("'", "%27")
    return ["sh", "-c", ASK_MANAGER, "sh", MANAGER, uri, folder]


def _start(command: list[str] | str) -> None:
    if isinstance(command, list) and not shutil.which(command[0]):
        raise FileNotFoundError(command[0])
    null = subprocess.DEVNULL
    subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True)
