"""Runs inside Blender, in the background: downloads as a script of a user's would. -- TASK.json

The task names zip, urls, directory, if_exists and the file where the outcome is told.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import bpy

sys.path.insert(0, str(Path(__file__).parent))
from installing import install


def outcome(error: str) -> dict[str, Any]:
    items = bpy.context.window_manager.downloads.items
    fields = ("name", "filepath", "status", "error")
    return {"error": error, "items": [{name: getattr(item, name) for name in fields} for item in items]}


def main() -> int:
    # Blender takes SIGINT for itself; before and after the download Ctrl-C is Python's again.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    task = json.loads(Path(sys.argv[-1]).read_text())
    install(task["zip"])
    error = ""
    try:
        bpy.ops.downloads.start(
            urls=task["urls"], directory=task["directory"], if_exists=task["if_exists"]
        )
    except RuntimeError as refused:
        error = str(refused).strip()
    Path(task["outcome"]).write_text(json.dumps(outcome(error)))
    return 1 if error else 0


try:
    code = main()
except KeyboardInterrupt:
    code = 130
sys.exit(code)
