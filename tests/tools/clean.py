"""make clean: removes what the other commands left in this folder. Downloads and the cache are yours."""

import shutil

from common import ROOT, cache_folder, main, say

LEFTOVERS = ("dist", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", "**/__pycache__")


def tool() -> int:
    for pattern in LEFTOVERS:
        for folder in list(ROOT.glob(pattern)):
            shutil.rmtree(folder, ignore_errors=True)
    say(f"Clean. Kept: your downloads, and the cache in {cache_folder()} (remove it to start afresh).")
    return 0


if __name__ == "__main__":
    main(tool)
