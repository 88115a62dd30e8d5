"""A few kills of plain Pythons that drive the session; `make kill` has hundreds, of Blenders."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from killing import TINY, home_without_blender, kill_often

KILLS = 5
THREADS, PROCESS = 0, 1  # seeds: even ones have the workers in the process that is killed


@pytest.mark.parametrize("seed", [THREADS, PROCESS], ids=["threads", "process"])
def test_killed_at_random_moments_nothing_is_lost(tmp_path: Path, seed: int) -> None:
    home = home_without_blender(tmp_path / "home", Path(sys.executable), TINY)
    found = kill_often([home], tmp_path, kills=KILLS, seed=seed)
    print(found.text())
