"""make kill: kills Blenders that download, KILLS= times (300), and looks at what they leave.

SEED= is where the rounds begin; a failing one names its own: `make kill SEED=that KILLS=12` plays it again.
WINDOW_KILLS= kills so many more that have a window, of each version and with each host. SUITE=windows kills
Blenders for Windows, under Wine, by TerminateProcess, each round in a Windows of its own; there 100 take
some 20 minutes.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from blenders import build, module_blender
from common import ROOT, clean_environment, main, say

sys.path.append(str(ROOT / "tests"))
from killing import KILLS_A_ROUND, Found
from venvs import blender_pythons, blender_venv
from wine import wine

MOST_LOST = 3  # rounds in which Wine's own server may end, and with it all that runs there


def tool() -> int:
    seed = int(os.environ.get("SEED") or random.randrange(100_000))
    kills = int(os.environ.get("KILLS") or 300)
    blender = module_blender()
    pythons = [str(blender_venv(version)) for version in blender_pythons()]
    with tempfile.TemporaryDirectory(prefix="background-downloads-") as folder:
        zip_file = build(blender, Path(folder) / "zip")
        say(f"SEED={seed} KILLS={kills}")
        found = Path(folder) / "found.json"
        order = {"zip": str(zip_file), "kills": kills, "seed": seed, "folder": folder, "found": str(found)}
        if os.environ.get("SUITE") == "windows":
            return _kill_under_wine(pythons[0], order, found)
        command = [pythons[0], "tests/killing.py", json.dumps(order | {"blenders": pythons})]
        code = subprocess.run(command, cwd=ROOT, env=clean_environment()).returncode
        if not code:
            say(Found.load(found).text())
    return _kill_windows(pythons[0], seed) or code


def _kill_under_wine(python: str, order: dict[str, Any], path: Path) -> int:
    """Each round in a Windows of its own. One that Wine itself ends counts for nothing, and is told of."""
    found, lost = Found(), 0
    while (done := found.kills.total()) < order["kills"]:
        seed = order["seed"] + found.rounds + lost
        own = {"seed": seed, "kills": min(done + KILLS_A_ROUND, order["kills"])}
        code = _play_under_wine(python, order | own | {"folder": f"{order['folder']}/{seed}"})
        found = Found.load(path)
        if code and not found.damage and lost < MOST_LOST:  # nothing was told of it
            lost += 1
            say(f"Wine ended in the round with SEED={seed} (code {code}), which does not count.")
        elif code:
            return code
    say(f"{found.text()}; {lost} rounds were ended by Wine itself, and do not count.")
    return 0


def _play_under_wine(python: str, order: dict[str, Any]) -> int:
    with wine(Path(python)) as windows:
        # That Python looks for modules in no folder of a script's.
        script = "import sys; sys.path.append('tests'); import killing; killing.main()"
        command = windows.command("-c", script, json.dumps(order | {"blenders": [str(windows.python)]}))
        environment = clean_environment(PYTHONUNBUFFERED="1", **windows.environment)
        return subprocess.run(command, cwd=ROOT, env=environment).returncode


def _kill_windows(python: str, seed: int) -> int:
    kills = os.environ.get("WINDOW_KILLS")
    if not kills:
        return 0
    own = {"BACKGROUND_DOWNLOADS_WINDOW_KILLS": kills, "BACKGROUND_DOWNLOADS_KILL_SEED": str(seed)}
    command = [python, "-m", "pytest", "-q", "-rP", "tests/window/test_kill.py"]
    return subprocess.run(command, cwd=ROOT, env=clean_environment(**own)).returncode


if __name__ == "__main__":
    main(tool)
