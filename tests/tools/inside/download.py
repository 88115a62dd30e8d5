"""Runs inside Blender, in the background: downloads as a script of a user's would. -- TASK.json

The task names zip, urls, directory, if_exists and the file where the outcome is told.
"""

import json
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

# Ctrl-C waits until Blender has started and installed: both would swallow it and go on.
# Blocked this early, it is blocked in the threads that Blender starts, too.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

import bpy  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from installing import install  # noqa: E402

INTERRUPTED = 130  # the exit code of Ctrl-C


class Interrupt:
    """Remembers Ctrl-C. The extension acts on it and hands it on; raising would only print a trace."""

    came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.came = True


def main() -> int:
    task = json.loads(Path(sys.argv[-1]).read_text())
    install(task["zip"])
    interrupt = Interrupt()
    signal.signal(signal.SIGINT, interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    error = "" if interrupt.came else download(task)
    if interrupt.came:
        return INTERRUPTED
    Path(task["outcome"]).write_text(json.dumps(outcome(error)))
    return 1 if error else 0


def download(task: dict[str, str]) -> str:
    """Why not everything is there, in Blender's words; empty if all is."""
    try:
        bpy.ops.downloads.start(urls=task["urls"], directory=task["directory"], if_exists=task["if_exists"])
    except RuntimeError as refused:
        return str(refused).strip()
    return ""


def outcome(error: str) -> dict[str, Any]:
    items = bpy.context.window_manager.downloads.items
    fields = ("name", "filepath", "status", "error")
    return {"error": error, "items": [{name: getattr(item, name) for name in fields} for item in items]}


sys.exit(main())
