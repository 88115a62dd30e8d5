"""make model: resuming explored whole as a small model, and its traces on the real engine.

All traces with one cut at most, and COUNT of those with two, which SEED chooses. In memory, where the system
has a folder for that: nothing here asks what a disk keeps, and most of the time would go there.
"""

import os
import subprocess

from common import ROOT, clean_environment, in_memory, main, say
from venvs import newest_blender_venv

TESTS = "tests/engine/test_model.py"


def tool() -> int:
    python = newest_blender_venv()
    seed, count = os.environ.get("SEED") or "0", os.environ.get("COUNT") or "2000"
    more = in_memory() | {"BACKGROUND_DOWNLOADS_MODEL": "all", "BACKGROUND_DOWNLOADS_SEED": seed}
    environment = clean_environment(**more, BACKGROUND_DOWNLOADS_COUNT=count)
    say(f"Seed {seed}, {count} traces with two cuts, all with one …")
    command = [python, "-m", "pytest", "-q", "-s", "-o", "timeout=7200", TESTS]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    main(tool)
