"""make bench: sets up what bench/ measures with, then runs it.

BARS="P3 P4" picks, ROUNDS=9 repeats, AGAINST= names commits to measure too, PLOT= a
file for a picture; BENCH_ARGS= is handed on.
"""

import os
import shlex
import subprocess

from blenders import module_blender
from common import ROOT, apt_ensure, clean_environment, main

PEERS = {"nginx": "nginx-light", "curl": "curl", "aria2c": "aria2", "openssl": "openssl"}


def tool() -> int:
    apt_ensure(PEERS)
    arguments = shlex.split(os.environ.get("BENCH_ARGS", ""))
    command = [str(module_blender().module), "-B", str(ROOT / "bench" / "bench.py"), *arguments]
    return subprocess.run(command, cwd=ROOT, env=clean_environment()).returncode


if __name__ == "__main__":
    main(tool)
