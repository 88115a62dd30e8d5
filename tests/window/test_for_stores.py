"""The build for stores that refuse threads in Blender: while it is invoked, no thread of ours is in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from blender import PROJECT, Blender, build_extension
from downloading import INSIDE, Downloads
from roots import Installation
from server import Server, stall_after
from test_lifecycle import SIZE, body, check_files, start_held

sys.path.append(str(PROJECT / "tests" / "tools"))  # at the end: these tools have names that others have too

WATCH = """
seen, turns = set(), 0

def look():
    global turns
    turns += 1
    seen.update(workers())
    return 0.0

bpy.app.timers.register(look)
"""


@pytest.fixture(scope="session")
def extension_zip(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension as `make build WORKERS=process` builds it."""
    from build import for_stores

    folder = tmp_path_factory.mktemp("for-stores")
    return build_extension(installation, for_stores(folder / "source"), folder / "zip")


@pytest.fixture
def watched(blender: Blender) -> Iterator[Blender]:
    """One that looks for threads of ours at each turn of its main loop."""
    blender.run(INSIDE)
    blender.run(WATCH)
    yield blender
    blender.run("bpy.app.timers.unregister(look)")


def test_no_thread_of_ours_is_in_blender_while_it_is_invoked(
    watched: Blender, server: Server, tmp_path: Path
) -> None:
    d = Downloads(watched, tmp_path / "files", host=None)
    other = server.gate()
    later = server.add("/later.bin", stall_after(SIZE // 2, other), body=body("later.bin"))
    _, gate = start_held(d, server, later)
    assert len(d.children()) == 1
    d.act("pause")
    d.wait("PAUSED")
    d.act("resume")
    gate.open()
    other.open()
    d.wait_over("FINISHED")
    check_files(d, "held.bin", "later.bin")
    assert watched.eval("turns") > 0
    assert watched.eval("seen") == []


def test_executed_it_still_waits_for_threads_and_leaves_none(
    watched: Blender, server: Server, tmp_path: Path
) -> None:
    d = Downloads(watched, tmp_path / "files", host=None)
    assert d.execute(server.add("/executed.bin", body=body("executed.bin"))) == ["FINISHED"]
    assert d.children() == []
    check_files(d, "executed.bin")
    assert watched.eval("seen") == []
