"""What all measurements share: how often, of which trees, and a folder in memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all measurements share."""

    rounds: int
    trees: Mapping[str, Path]
    """Where the extension is: `ours`, and as it was at other commits."""

    @contextlib.contextmanager
    def folder(self, name: str, *, on_disk: bool = False) -> Iterator[Path]:
        """An empty folder, in memory where there is any, that is gone after the block."""
        memory = None if on_disk or not os.path.isdir("/dev/shm") else "/dev/shm"
        with tempfile.TemporaryDirectory(prefix=f"bench-{name}-", dir=memory) as path:
            yield Path(path)


@contextlib.contextmanager
def trees(commits: str) -> Iterator[dict[str, Path]]:
    """The extension here, and as it was at each of some commits."""
    with tempfile.TemporaryDirectory(prefix="bench-trees-") as folder:
        found = {"ours": ROOT}
        for commit in commits.split():
            found[commit] = Path(folder) / commit.replace("/", "-")
            archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True)
            found[commit].mkdir()
            subprocess.run(["tar", "-x", "-C", found[commit]], check=True, input=archive.stdout)
        yield found
