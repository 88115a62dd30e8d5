"""make mutants: changes the engine in one place after the other, and sees whether its tests notice.

MODULES="ranges names" picks, COUNT=100 tries so many changes of each (0: all; that takes hours), SEED=
chooses which. Fewer than 85 % noticed is a failure; those that nobody noticed are shown, to be looked at.
"""

import json
import os
import subprocess
import sys

from common import ROOT, Trouble, clean_environment, main, say
from venvs import mutants_venv

MODULES = ("ranges", "part", "names", "answers", "retry")
COUNT = 60
ENOUGH = 0.85


def tool() -> int:
    chosen = os.environ.get("MODULES", "").split() or MODULES
    if unknown := set(chosen) - set(MODULES):
        raise Trouble(f"MODULES={' '.join(sorted(unknown))} is unknown; there are {', '.join(MODULES)}.")
    python, count, seed = mutants_venv(), os.environ.get("COUNT") or str(COUNT), os.environ.get("SEED") or "0"
    results = []
    for module in chosen:
        told = _try(python, module, count, seed)
        killed = told["tried"] - len(told["survivors"])
        share = killed / told["tried"]
        say(f"{module}: {killed} of {told['tried']} noticed ({share:.0%}); there are {told['all']}")
        say(*(f"    {line}" for line in told["survivors"]), sep="\n")
        results.append(share)
    return 0 if min(results) >= ENOUGH else 1


def _try(python: os.PathLike[str], module: str, count: str, seed: str) -> dict:
    command = [python, "-B", ROOT / "tests" / "mutating.py", module, count, seed]
    done = subprocess.run(command, env=clean_environment(), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main(tool)
