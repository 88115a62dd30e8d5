"""A Blender as a module in a process of its own: `Seat` asks, the rest here answers in it.

`Seat.ask("download", urls, folder, 16)` calls `download` in there and waits for what it returns.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

ID = "background_downloads"
MODULE = f"bl_ext.user_default.{ID}"
EMPTY = "bl_ext.user_default.empty"
FLOOR = "bl_ext.user_default.floor"
"""An add-on of as many classes as the extension has, which do nothing."""
PRODUCT = ("*.py", "*.toml", "session", "transfer", "hosts")
MANIFEST = 'schema_version = "1.0.0"\nid = "{}"\nversion = "1.0.0"\nname = "Empty"\ntagline = "Nothing"\n'
MANIFEST += 'maintainer = "Nobody"\ntype = "add-on"\nblender_version_min = "4.2.0"\nlicense = ["SPDX:0BSD"]\n'


class Seat:
    """A Blender with a profile of its own, in which the extension of `tree` is."""

    def __init__(self, tree: Path, folder: Path, *, within: Sequence[str] = (), **environment: str) -> None:
        """`within` is a command that runs another one, in a network namespace say."""
        plant(tree, folder)
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self._process = subprocess.Popen(
            [*within, sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Compiled code is kept, as it is in everybody's Blender.
            env={**kept, "BLENDER_USER_RESOURCES": str(folder), **environment},
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, name: str, *arguments: Any) -> Any:
        """What the function `name` of this file returns in there."""
        self.tell(name, *arguments)
        return self.answer()

    def tell(self, name: str, *arguments: Any) -> None:
        """Have it begin; `answer` waits for its end."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([name, arguments]) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        assert self._process.stdout
        if not (line := self._process.stdout.readline()):
            raise SystemExit(f"Blender has ended with {self._process.wait()}")
        return json.loads(line)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()


def plant(tree: Path, profile: Path) -> None:
    """Put a copy of the extension into a profile, and an empty one beside it. One that is there stays."""
    repository = profile / "extensions" / "user_default"
    if repository.exists():
        return
    for path in (path for pattern in PRODUCT for path in tree.glob(pattern)):
        target = repository / ID / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, target)
    _plant(repository / "empty", "def register(): pass\ndef unregister(): pass\n")
    classes = "".join(_CLASS.format(number) for number in range(CLASSES))
    _plant(repository / "floor", f"import bpy\n{classes}{_REGISTER}")


CLASSES = 37  # that the extension registers
_CLASS = """
class FLOOR_OT_do{0}(bpy.types.Operator):
    'Do nothing'
    bl_idname = "floor.do{0}"
    bl_label = "Do {0}"
    text: bpy.props.StringProperty(name="Text", options={{"SKIP_SAVE"}})
    def execute(self, context):
        return {{"FINISHED"}}
"""
_REGISTER = """
def register():
    for cls in bpy.types.Operator.__subclasses__():
        if cls.__module__ == __name__:
            bpy.utils.register_class(cls)
def unregister(): pass
"""


def _plant(folder: Path, code: str) -> None:
    folder.mkdir()
    (folder / "blender_manifest.toml").write_text(MANIFEST.format(folder.name))
    (folder / "__init__.py").write_text(code)


# -- Inside.


def enable(module: str) -> dict[str, Any]:
    """Enable an add-on; the milliseconds of a processor that it takes, and what it imported."""
    import addon_utils

    before = set(sys.modules)
    began = time.thread_time()
    addon_utils.enable(module, default_set=True)
    took = (time.thread_time() - began) * 1000
    return {"ms": took, "imported": sorted(set(sys.modules) - before)}


def download(urls: str, directory: str, limit: int) -> float:
    """Seconds that `downloads.start`, executed, takes for links separated by white space."""
    import bpy

    bpy.context.preferences.system.network_connection_limit = limit
    began = time.perf_counter()
    bpy.ops.downloads.start(urls=urls, directory=directory)
    took = time.perf_counter() - began
    bpy.ops.downloads.clear()
    return took


def cpu_seconds() -> float:
    """Seconds that a processor worked for this process so far."""
    return time.process_time()


def memory(*, peak: bool = True) -> float:
    """MiB of memory in use: the most since `forget_peak`, or now."""
    name = "VmHWM:" if peak else "VmRSS:"
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) / 1024


def forget_peak() -> float:
    """Begin to look for a new peak; MiB in use."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return memory()


def serve() -> None:
    """Answer what is asked, one line each, until nobody asks any more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Blender says is no answer
    import bpy

    bpy.context.preferences.system.use_online_access = True
    for line in sys.stdin:
        name, arguments = json.loads(line)
        print(json.dumps(globals()[name](*arguments)), file=answers, flush=True)


if __name__ == "__main__":
    serve()
