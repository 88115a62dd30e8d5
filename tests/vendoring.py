"""The example add-on with a copy of the engine in it, as `make vendor` puts it there. Shared by suites."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "asset_fetcher"
TOOL = ROOT / "tests" / "tools" / "vendor.py"


def vendor(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What `make vendor NAME=… DIR=…` does and says."""
    return subprocess.run(
        [sys.executable, "-B", TOOL],
        env=os.environ | {"NAME": name, "DIR": str(folder)},
        capture_output=True,
        text=True,
    )


def example(folder: Path) -> Path:
    """The example's sources, complete, in a new folder of their name."""
    source = folder / EXAMPLE.name
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("downloads", "__pycache__"))
    done = vendor(EXAMPLE.name, folder)
    assert done.returncode == 0, done.stderr
    return source
