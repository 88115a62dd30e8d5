"""make build: the extension's zip in dist/, built and validated by Blender's own tool.

WORKERS=process makes the one for stores that refuse threads in Blender: Separate Process is the
preference's default in it, and nothing else differs. It goes to dist/process/.
"""

import os
import shutil
import tempfile
import zipfile
from pathlib import Path

from blenders import build, module_blender, program_blender
from common import ROOT, Trouble, main, say

DEFAULT = 'default="{}",'  # of the preference, in ui.py


def tool() -> int:
    blender = program_blender() or module_blender()
    with tempfile.TemporaryDirectory(prefix="background-downloads-") as folder:
        match os.environ.get("WORKERS", "").lower():
            case "" | "automatic":
                zip_file = build(blender, ROOT / "dist")
            case "process":
                source = for_stores(Path(folder) / "source")
                zip_file = build(blender, ROOT / "dist" / "process", source=source)
            case other:
                raise Trouble(f"WORKERS={other} is unknown; there are automatic, process.")
    with zipfile.ZipFile(zip_file) as content:
        names = sorted(content.namelist())
    for name in names:
        say(f"  {name}")
    size = zip_file.stat().st_size
    say(f"{zip_file}: {len(names)} files, {size:,} bytes, built and validated by {blender.name}.")
    return 0


def for_stores(copy: Path) -> Path:
    """A copy of the sources in which Separate Process is the default."""
    left_out = shutil.ignore_patterns(".*", "__pycache__", "dist", "tests", "docs", "bench", "examples")
    shutil.copytree(ROOT, copy, ignore=left_out)
    ui = copy / "ui.py"
    before, found, after = ui.read_text().partition(DEFAULT.format("AUTOMATIC"))
    if not found or DEFAULT.format("AUTOMATIC") in after:
        raise Trouble("ui.py does not say once what the default of Workers is.")
    ui.write_text(before + DEFAULT.format("PROCESS") + after)
    return copy


if __name__ == "__main__":
    main(tool)
