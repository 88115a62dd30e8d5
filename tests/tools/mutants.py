"""make mutants: changes the engine in one place after the other, and sees whether its tests notice.

MODULES="ranges names" picks, COUNT=100 tries so many changes of each (0: all; that takes hours), SEED=
chooses which. What became of each is told at once, and summed up, also when it is interrupted. Fewer than
85 % noticed is a failure; those that nobody noticed are shown, to be looked at.
"""

import os
import subprocess

from common import ROOT, Trouble, clean_environment, in_memory, main
from venvs import mutants_venv

MODULES = ("ranges", "part", "names", "answers", "retry")
COUNT = 60


def tool() -> int:
    chosen = os.environ.get("MODULES", "").split() or MODULES
    if unknown := set(chosen) - set(MODULES):
        raise Trouble(f"MODULES={' '.join(sorted(unknown))} is unknown; there are {', '.join(MODULES)}.")
    python, count, seed = mutants_venv(), os.environ.get("COUNT") or str(COUNT), os.environ.get("SEED") or "0"
    return max([_try(python, module, count, seed) for module in chosen])


def _try(python: os.PathLike[str], module: str, count: str, seed: str) -> int:
    command = [python, "-B", ROOT / "tests" / "mutating.py", module, count, seed]
    with subprocess.Popen(command, env=clean_environment(**in_memory())) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()  # it sums up
            process.wait()
            raise


if __name__ == "__main__":
    main(tool)
