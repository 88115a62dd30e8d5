"""make bench: sets up what bench/ measures with, then runs it. BENCH_ARGS= is handed to it."""

import os
import shlex
import subprocess
import tempfile

from blenders import module_blender
from common import ROOT, Trouble, apt_ensure, clean_environment, main

BENCH = ROOT / "bench" / "bench.py"
PEERS = {"nginx": "nginx-light", "curl": "curl", "aria2c": "aria2"}


def tool() -> int:
    if not BENCH.exists():
        raise Trouble(f"{BENCH} is not there: nothing to measure with.")
    apt_ensure(PEERS)
    command = [str(module_blender().module), str(BENCH), *shlex.split(os.environ.get("BENCH_ARGS", ""))]
    with tempfile.TemporaryDirectory(prefix="background-downloads-") as profile:
        environment = clean_environment(BLENDER_USER_RESOURCES=profile)
        return subprocess.run(command, cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    main(tool)
