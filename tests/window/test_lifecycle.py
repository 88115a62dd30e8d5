"""Every path of a run in a real window: section 3 of the design, one row after the other."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from blender import Blender, BlenderError, wait_until
from downloading import HOSTS, OVERLAP, Downloads
from server import Gate, Server, pattern, stall_after

SIZE = 3_000_000  # bytes of a file
HELD = 1_000_000  # bytes that come before the gate


@pytest.fixture(params=list(HOSTS))
def host(request: pytest.FixtureRequest) -> str:
    """Where the workers live."""
    return str(request.param)


@pytest.fixture
def downloads(blender: Blender, host: str, tmp_path: Path) -> Iterator[Downloads]:
    """The module's Blender with an empty list; whatever a test did, nothing of it may be left."""
    d = Downloads(blender, tmp_path / "files", host)
    yield d
    d.act_if_any("cancel")
    d.wait_over()


def serve(server: Server, *names: str) -> list[str]:
    """Files that come at once."""
    return [server.add(f"/{name}", body=body(name)) for name in names]


def hold(server: Server, name: str = "held.bin") -> tuple[str, Gate]:
    """A file whose answers stop in the middle until the gate opens."""
    gate = server.gate()
    return server.add(f"/{name}", stall_after(HELD, gate), body=body(name)), gate


def body(name: str) -> bytes:
    return pattern(SIZE, seed=sum(name.encode()))


def start_held(d: Downloads, server: Server, *more: str) -> tuple[str, Gate]:
    """A run that has one file in mid body."""
    url, gate = hold(server)
    assert d.start(url, *more) == ["RUNNING_MODAL"]
    gate.wait_reached()
    d.wait_progress(HELD / SIZE)
    return url, gate


def blender_limit(d: Downloads) -> int:
    """How many connections Blender's preferences allow."""
    return int(d.b.eval("bpy.context.preferences.system.network_connection_limit")) or 16


def check_files(d: Downloads, *names: str) -> None:
    """Under final names there is this, whole, and nothing else."""
    found = d.files()
    assert sorted(found) == sorted(names)
    for name in names:
        assert found[name] == body(name), f"{name} is not what was sent"
    assert d.partial_files() == []


# All done.


def test_all_done(downloads: Downloads, server: Server) -> None:
    names = ["a.bin", "b.bin", "c.bin"]
    assert downloads.start(*serve(server, *names)) == ["RUNNING_MODAL"]
    assert [row.name for row in downloads.rows()] == names
    downloads.wait("FINISHED")
    downloads.wait_over()
    downloads.check_reported_once("3 downloaded")
    check_files(downloads, *names)
    assert {row.filepath for row in downloads.rows()} == {str(downloads.folder / name) for name in names}


def test_all_done_with_a_failure_says_so_once(downloads: Downloads, server: Server) -> None:
    (url,) = serve(server, "a.bin")
    downloads.start(url, server.url("/missing.bin"))
    downloads.wait("FINISHED", "FAILED")
    downloads.wait_over()
    downloads.check_reported_once("1 downloaded, 1 failed: There is no file at this link (404)")


# Cancel.


def test_cancel_one(downloads: Downloads, server: Server) -> None:
    url, gate = start_held(downloads, server)
    (other,) = serve(server, "a.bin")
    assert downloads.start(other) == ["FINISHED"]
    uid = downloads.rows()[0].uid
    assert downloads.act("cancel", uid=uid) == ["FINISHED"]
    downloads.wait("CANCELLED", "FINISHED")
    downloads.wait_over()
    downloads.check_reported_once("1 downloaded, 1 cancelled")
    assert list(downloads.files()) == ["a.bin"]
    assert len(downloads.partial_files()) == 1


def test_cancel_all(downloads: Downloads, server: Server) -> None:
    gate = server.gate()
    urls = [server.add(f"/{n}.bin", stall_after(HELD, gate), body=body(f"{n}.bin")) for n in range(20)]
    downloads.start(*urls)
    gate.wait_reached(blender_limit(downloads))
    assert downloads.act("cancel") == ["FINISHED"]
    downloads.wait("CANCELLED")
    downloads.wait_over()
    downloads.check_reported_once("20 cancelled")
    server.wait_open(0)
    assert downloads.files() == {}


def test_cancelled_is_retried(downloads: Downloads, server: Server) -> None:
    _, gate = start_held(downloads, server)
    downloads.act("cancel")
    downloads.wait("CANCELLED")
    downloads.wait_over()
    gate.open()
    downloads.act("retry")
    downloads.wait("FINISHED")
    check_files(downloads, "held.bin")
    assert server.requests[-1].range_start == HELD - OVERLAP


# Exceptions.


@pytest.fixture
def patches(blender: Blender) -> Iterator[None]:
    """Undoes what a test patched in Blender with `patch(owner, name, value)`."""
    blender.run(PATCH)
    yield
    blender.run("while patched: setattr(*patched.pop())")


PATCH = """
patched = []
def patch(owner, name, value):
    patched.append((owner, name, getattr(owner, name)))
    setattr(owner, name, value)

def raising_once(function, error):
    left = [error]
    def raise_once(self):
        if left:
            raise left.pop()
        return function(self)
    return raise_once
"""


def test_exception_in_modal(downloads: Downloads, server: Server, patches: None) -> None:
    _, gate = start_held(downloads, server)
    downloads.b.run("Run = part('session.run').Run")
    downloads.b.run("patch(Run, 'tick', raising_once(Run.tick, ZeroDivisionError('a defect')))")
    downloads.wait("PAUSED")
    downloads.wait_over()
    downloads.check_reported_once("Downloads were paused: ZeroDivisionError: a defect")
    gate.open()
    downloads.act("resume")
    downloads.wait("FINISHED")
    downloads.wait_over()
    downloads.check_reported_once("1 downloaded")
    check_files(downloads, "held.bin")


def test_exception_in_a_worker_fails_only_its_download(
    blender: Blender, server: Server, patches: None, tmp_path: Path
) -> None:
    d = Downloads(blender, tmp_path / "files", "threads")  # a child's modules are out of reach
    d.b.run(BROKEN_TRANSFER)
    d.start(*serve(server, "a.bin", "broken.bin", "c.bin"))
    d.wait("FINISHED", "FAILED", "FINISHED")
    d.wait_over()
    d.check_reported_once("2 downloaded, 1 failed: Something unforeseen went wrong")
    assert "ZeroDivisionError" in d.b.console
    check_files(d, "a.bin", "c.bin")


BROKEN_TRANSFER = """
Transfer = part("transfer.fetch").Transfer
def run(self, control, client, buffer, run=Transfer.run):
    if self.job.url.endswith("broken.bin"):
        raise ZeroDivisionError("a defect")
    return run(self, control, client, buffer)
patch(Transfer, "run", run)
"""


def test_sigint(downloads: Downloads, server: Server, patches: None) -> None:
    """Sent while the operator ticks. Where Blender leaves it to Python it ends the operator, else nothing happens."""
    _, gate = start_held(downloads, server)
    is_pythons = downloads.b.eval("callable(signal.getsignal(signal.SIGINT))")
    downloads.b.run(SIGINT_IN_TICK)
    downloads.b.wait("struck")
    if is_pythons:
        downloads.wait("PAUSED")
        downloads.wait_over()
        downloads.check_reported_once("Downloads were paused: KeyboardInterrupt")
        downloads.act("resume")
    gate.open()
    downloads.wait("FINISHED")
    downloads.wait_over()
    downloads.check_reported_once("1 downloaded")
    check_files(downloads, "held.bin")


SIGINT_IN_TICK = """
struck = []
Run = part("session.run").Run
def tick(self, tick=Run.tick):
    if not struck:
        struck.append(True)
        os.kill(os.getpid(), signal.SIGINT)
    return tick(self)
patch(Run, "tick", tick)
"""


# File loads.


LOADS = {
    "new": "bpy.ops.wm.read_homefile()",
    "factory": "bpy.ops.wm.read_homefile(use_factory_startup=True)",
    "open": "bpy.ops.wm.open_mainfile(filepath=saved)",
    "revert": "bpy.ops.wm.revert_mainfile()",
    "recover_last": "bpy.ops.wm.recover_last_session()",
    "recover_autosave": "bpy.ops.wm.recover_auto_save(filepath=saved)",
}


@pytest.fixture
def saved(blender: Blender, tmp_path: Path) -> None:
    """A saved file is open, and an older session can be recovered."""
    blender.run(f"saved = {str(tmp_path / 'scene.blend')!r}")
    blender.run("with in_view3d(): bpy.ops.wm.save_as_mainfile(filepath=saved)")
    blender.run("quit_file = os.path.join(bpy.app.tempdir, '..', 'quit.blend')")
    blender.run("with in_view3d(): bpy.ops.wm.save_as_mainfile(filepath=quit_file, copy=True)")


@pytest.mark.parametrize("load", LOADS)
def test_file_load(downloads: Downloads, server: Server, saved: None, load: str) -> None:
    url, gate = start_held(downloads, server)
    (later,) = serve(server, "later.bin")
    downloads.b.run(f"state().urls = 'http://kept.example/'\nwith in_view3d(): assert {LOADS[load]} == {{'FINISHED'}}")
    assert [row.url for row in downloads.rows()] == [url]
    downloads.wait("RUNNING")
    assert downloads.start(later) == ["FINISHED"]
    downloads.wait("RUNNING", "FINISHED")
    gate.open()
    downloads.wait("FINISHED")
    downloads.wait_over()
    downloads.check_reported_once("2 downloaded")
    check_files(downloads, "held.bin", "later.bin")
    assert downloads.b.eval("state().urls") == "http://kept.example/"
    check_nothing_twice(downloads, server)


def check_nothing_twice(d: Downloads, server: Server) -> None:
    """With threads the connection went on; a new child asks for what is missing."""
    requests = server.requests_for("/held.bin")
    if d.host == "threads":
        assert len(requests) == 1
    else:
        assert [request.range_start for request in requests] == [None, HELD - OVERLAP]


def test_a_file_fails_to_open(downloads: Downloads, server: Server, tmp_path: Path) -> None:
    _, gate = start_held(downloads, server)
    broken = tmp_path / "broken.blend"
    broken.write_bytes(b"not a file of Blender's")
    with pytest.raises(BlenderError, match="RuntimeError"):
        downloads.b.run(f"with in_view3d(): bpy.ops.wm.open_mainfile(filepath={str(broken)!r})")
    assert downloads.statuses() == ["RUNNING"]
    finish_in_one_go(downloads, server, gate)


def finish_in_one_go(d: Downloads, server: Server, gate: Gate) -> None:
    """What happened has not touched the downloads."""
    gate.open()
    d.wait("FINISHED")
    d.wait_over()
    d.check_reported_once("1 downloaded")
    check_files(d, "held.bin")
    assert len(server.requests) == 1


# What leaves a run alone.


UNDO = """
with in_view3d():
    bpy.ops.mesh.primitive_cube_add()
    bpy.ops.ed.undo_push(message="Add Cube")
    count = len(bpy.data.objects)
    bpy.ops.ed.undo()
    assert len(bpy.data.objects) == count - 1
"""
REDO = """
with in_view3d():
    bpy.ops.ed.redo()
    assert len(bpy.data.objects) == count
"""
AROUND = {
    "workspace": "window().workspace = next(w for w in bpy.data.workspaces if w != window().workspace)",
    "full_screen": "with in_view3d(): bpy.ops.screen.screen_full_area()",
    "area_closed": """
area = next(area for area in window().screen.areas if area.type == "OUTLINER")
with bpy.context.temp_override(window=window(), area=area, region=region_of(area)):
    assert bpy.ops.screen.area_close() == {"FINISHED"}
""",
}


def test_undo_and_redo(downloads: Downloads, server: Server) -> None:
    _, gate = start_held(downloads, server)
    row = downloads.rows()
    downloads.b.run(UNDO)
    assert downloads.rows() == row
    downloads.b.run(REDO)
    assert downloads.rows() == row
    assert downloads.b.eval("modal()") == ["DOWNLOADS_OT_start"]
    finish_in_one_go(downloads, server, gate)


@pytest.mark.parametrize("change", AROUND)
def test_screen_changes(downloads: Downloads, server: Server, change: str) -> None:
    _, gate = start_held(downloads, server)
    downloads.b.run(AROUND[change])
    downloads.b.steps("pause(0)")
    finish_in_one_go(downloads, server, gate)


# Windows.


def test_another_window_closed(downloads: Downloads, server: Server) -> None:
    downloads.b.new_window(main=True)
    _, gate = start_held(downloads, server)
    downloads.b.close_window(1)
    downloads.b.wait("len(bpy.context.window_manager.windows) == 1")
    finish_in_one_go(downloads, server, gate)


def test_its_own_window_closed(downloads: Downloads, server: Server) -> None:
    downloads.b.new_window(main=True)
    _, gate = start_held(downloads, server)
    downloads.b.close_window(0)
    downloads.b.wait("len(bpy.context.window_manager.windows) == 1")
    downloads.wait("RUNNING")
    gate.open()
    downloads.wait("FINISHED")
    downloads.wait_over()
    downloads.check_reported_once("1 downloaded")
    check_files(downloads, "held.bin")
    check_nothing_twice(downloads, server)


def test_start_from_a_second_window(downloads: Downloads, server: Server) -> None:
    downloads.b.new_window(main=True)
    url, gate = hold(server)
    result = downloads.b.eval(f"invoke({url!r}, window(1), directory={str(downloads.folder)!r})")
    assert result == ["RUNNING_MODAL"]
    gate.wait_reached()
    finish_in_one_go(downloads, server, gate)
