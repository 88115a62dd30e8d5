"""make build: the extension's zip in dist/, built and validated by Blender's own tool."""

import zipfile

from blenders import build, module_blender, program_blender
from common import ROOT, main, say


def tool() -> int:
    blender = program_blender() or module_blender()
    zip_file = build(blender, ROOT / "dist")
    with zipfile.ZipFile(zip_file) as content:
        names = sorted(content.namelist())
    for name in names:
        say(f"  {name}")
    size = zip_file.stat().st_size
    say(f"{zip_file}: {len(names)} files, {size:,} bytes, built and validated by {blender.name}.")
    return 0


if __name__ == "__main__":
    main(tool)
