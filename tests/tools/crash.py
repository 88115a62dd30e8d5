"""make crash: the engine dies at every operation on its disk, and again at every one of the next start.

SEED= chooses the damage, SEEDS= how many seeds from there on are tried; a failing test names its own.
"""

import os
import subprocess

from common import ROOT, clean_environment, main, say
from venvs import newest_blender_venv

TESTS = "tests/engine/test_crash.py"


def tool() -> int:
    python = newest_blender_venv()
    first = int(os.environ.get("SEED") or 0)
    failed = []
    for seed in range(first, first + int(os.environ.get("SEEDS") or 3)):
        say(f"Seed {seed} …")
        more = {"BACKGROUND_DOWNLOADS_CRASH_SEED": str(seed), "BACKGROUND_DOWNLOADS_CRASH_LONG": "1"}
        command = [python, "-m", "pytest", "-q", "--show-capture=no", "-o", "timeout=3600", TESTS]
        if subprocess.run(command, cwd=ROOT, env=clean_environment(**more)).returncode:
            failed.append(seed)
    say(f"Seeds that failed: {failed}." if failed else "It lost nothing.")
    return 1 if failed else 0


if __name__ == "__main__":
    main(tool)
