"""make kill: kills Blenders that download, KILLS= times (300), and looks at what they leave.

SEED= is where the rounds begin; a failing one names its own: `make kill SEED=that KILLS=12` plays it again.
"""

import json
import os
import random
import subprocess
import tempfile
from pathlib import Path

from blenders import build, module_blender
from common import ROOT, clean_environment, main, say
from venvs import blender_pythons, blender_venv


def tool() -> int:
    seed = int(os.environ.get("SEED") or random.randrange(100_000))
    kills = int(os.environ.get("KILLS") or 300)
    blender = module_blender()
    pythons = [str(blender_venv(version)) for version in blender_pythons()]
    with tempfile.TemporaryDirectory(prefix="background-downloads-") as folder:
        zip_file = build(blender, Path(folder) / "zip")
        say(f"SEED={seed} KILLS={kills}")
        order = {"blenders": pythons, "zip": str(zip_file), "kills": kills, "seed": seed, "folder": folder}
        command = [pythons[0], "tests/killing.py", json.dumps(order)]
        return subprocess.run(command, cwd=ROOT, env=clean_environment()).returncode


if __name__ == "__main__":
    main(tool)
