"""Below Python 3.12 the workers live in a child process, since threads crash Blender there.

What crashes it is ordinary work on the main thread, `bpy.ops` inside `context.temp_override`, while
threads download. Here that goes on for a minute beside a child that downloads at full speed; in
newer Pythons for a while beside threads.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from server import Generated, Server

BEARS_THREADS = sys.version_info >= (3, 12)
HOST = "ThreadHost" if BEARS_THREADS else "ProcessHost"
SECONDS = float(os.environ.get("BACKGROUND_DOWNLOADS_HAMMER", "20" if BEARS_THREADS else "60"))
SIZE = 64 << 20  # bytes of a file
AT_ONCE = 4

# Arguments: zip, class of the host, seconds, folder, links. Run by hand with ThreadHost it crashes on 3.11.
HAMMER = """
import importlib, itertools, sys, time
import bpy
zip_file, host_class, seconds, folder, *urls = sys.argv[1:]
bpy.context.preferences.system.use_online_access = True
bpy.ops.extensions.package_install_files(repo="user_default", filepath=zip_file, enable_on_install=True)
package = "bl_ext.user_default.background_downloads"
workers = importlib.import_module(package + ".workers")
job = importlib.import_module(package + ".transfer.job")

host = getattr(workers, host_class)(job.Settings())
uids = itertools.count(1)
running, finished, rounds = 0, 0, 0
end = time.monotonic() + float(seconds)
window = bpy.context.window_manager.windows[0]

def hammer():
    for area in window.screen.areas:
        with bpy.context.temp_override(window=window, area=area, region=area.regions[-1]):
            bpy.ops.mesh.primitive_cube_add()
            bpy.ops.object.delete()

while time.monotonic() < end or running:
    while running < len(urls) and time.monotonic() < end:
        uid = next(uids)
        url = urls[uid % len(urls)]
        host.submit(job.Job(uid=uid, url=f"{url}?{uid}", directory=folder, if_exists=job.IfExists.OVERWRITE))
        running += 1
    hammer()
    rounds += 1
    for event in host.poll().events:
        if isinstance(event, workers.Ended):
            assert isinstance(event.outcome, job.Finished), event
            running -= 1
            finished += 1
host.shut()
print("LIVED", rounds, finished, flush=True)
"""


@pytest.mark.timeout(SECONDS + 240)
def test_blender_lives_while_the_workers_of_its_python_download(
    zip_file: Path, server: Server, tmp_path: Path
) -> None:
    bodies = [Generated(SIZE, seed) for seed in range(AT_ONCE)]
    urls = [server.add(f"/{seed}.bin", body=body) for seed, body in enumerate(bodies)]
    (tmp_path / "profile").mkdir()
    arguments = [str(zip_file), HOST, str(SECONDS), str(tmp_path / "files"), *urls]
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", HAMMER, *arguments],
        env=os.environ | {"BLENDER_USER_RESOURCES": str(tmp_path / "profile")},
        capture_output=True,
        text=True,
        timeout=SECONDS + 200,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    rounds, finished = map(int, done.stdout.partition("LIVED")[2].split())
    assert rounds > 10
    assert finished >= AT_ONCE
    for seed, body in enumerate(bodies):
        path = tmp_path / "files" / f"{seed}.bin"
        assert path.stat().st_size == SIZE
        assert path.read_bytes() == body.read(0, SIZE)
    assert [path.name for path in (tmp_path / "files").glob("*.part*")] == []
