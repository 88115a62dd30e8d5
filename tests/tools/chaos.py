"""make chaos: thousands of downloads inside Blender from a server of whose answers 30 % are faulty.

COUNT= so many by each host (2000), SEED= repeats a run as far as threads allow. Each Blender that can be
had as a module downloads through the operator, whose workers are threads, then, with several connections
for a file, through threads and through a child process.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from blenders import Blender, build
from common import ROOT, TOOLS, Trouble, clean_environment, main, say
from venvs import BLENDER_VERSIONS, blender_pythons, blender_venv

sys.path.append(str(ROOT / "tests"))
from chaos_server import Chaos
from server import Server

DEADLINE = 1800  # seconds for one host
LEVEL = {"in use": 256 << 10, "blocks": 1000}
"""What may be added in the second half of the downloads, in the process that measures: bytes that C code
has got and not given back, and blocks of Python's own allocator."""
EXACT = "glibc.malloc.tcache_count=0"  # else what threads keep free for themselves counts as in use
RESIDENT = 4 << 20  # bytes, which the allocators' free pieces count for too


def tool() -> int:
    count, seed = _number("COUNT", 2000), _number("SEED", random.randrange(10**6))
    versions = blender_pythons()
    if not versions:
        raise Trouble("Blender as a module needs Python 3.11 or 3.13, and neither was found.")
    bad = 0
    for version in versions:
        name = f"Blender {BLENDER_VERSIONS[version]}"
        blender = Blender(name=name, module=blender_venv(version))
        for host in ("operator", "threads", "process"):
            bad += _run(blender, host, count, seed)
    return 1 if bad else 0


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise Trouble(f"{name}={text} is no number.")
    return int(text)


def _run(blender: Blender, host: str, count: int, seed: int) -> int:
    """One host in a Blender of its own; how many things are wrong."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="background-downloads-") as name, Server() as server:
        folder = Path(name)
        (folder / "files").mkdir()
        (folder / "profile").mkdir()
        chaos = Chaos(server, seed)
        task = {
            "zip": str(build(blender, folder / "zip")),
            "host": host,
            "links": [chaos.add(number) for number in range(count)],
            "directory": str(folder / "files"),
            "outcome": str(folder / "outcome.json"),
        }
        (folder / "task.json").write_text(json.dumps(task))
        told = _inside(blender, folder, task["outcome"])
        problems = chaos.problems(folder / "files") + _growth(told["memory"])
    seconds = time.monotonic() - began
    say(f"{blender.name}, {host}, COUNT={count} SEED={seed}: {seconds:.0f} s")
    say(f"  {chaos.answers} answers, {sum(chaos.met.values())} of them faulty, {len(chaos.met)} faults")
    say(f"  retried by hand: {told['retried']}")
    for what, looks in told["memory"].items():
        say(f"  {what}, after each 200: {' '.join(map(str, looks))}")
    say(*(problems or ["all files are there and right, and nothing else"]), sep="\n  ")
    return len(problems)


def _inside(blender: Blender, folder: Path, outcome: str) -> dict[str, Any]:
    command = blender.script(TOOLS / "inside" / "chaos.py", folder / "task.json")
    environment = clean_environment(
        BLENDER_USER_RESOURCES=str(folder / "profile"), no_proxy="127.0.0.1", GLIBC_TUNABLES=EXACT
    )
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=DEADLINE, errors="replace"
    )
    if done.returncode:
        said = (done.stdout + done.stderr)[-5000:]
        raise Trouble(f"{blender.name} ended with {done.returncode}:\n{said}")
    told: dict[str, Any] = json.loads(Path(outcome).read_text())
    return told


def _growth(memory: dict[str, list[int]]) -> list[str]:
    grown = {what: looks[-1] - looks[(len(looks) - 1) // 2] for what, looks in memory.items()}
    return [f"{what} grew by {n}" for what, n in grown.items() if n > LEVEL.get(what, RESIDENT)]


if __name__ == "__main__":
    main(tool)
