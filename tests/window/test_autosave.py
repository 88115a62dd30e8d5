"""Blender autosaves though a run goes on: it does not while a modal operator runs, so the run steps aside."""

from __future__ import annotations

from pathlib import Path

import pytest
from blender import Blender, BlenderFactory, wait_until
from downloading import HOSTS, Downloads
from server import Server, stall_after
from test_lifecycle import HELD, SIZE, body

MINUTES = 1  # between two autosaves: the least that Blender has
LATEST = MINUTES * 60 + 60.0  # seconds until the test fails; DESIGN's ten, and what a busy machine adds
BEGIN = f"""
files = bpy.context.preferences.filepaths
files.use_auto_save_temporary_files = True
files.auto_save_time = {MINUTES}
bpy.context.preferences.system.network_timeout = 300
"""
EDIT = """
with in_view3d():
    bpy.ops.mesh.primitive_cube_add()
    bpy.context.object.name = "Edited"
    bpy.ops.ed.undo_push(message="Add Cube")
assert bpy.data.is_dirty
"""


class Autosaved:
    """A Blender whose file is edited while a run goes on that does not end by itself."""

    def __init__(self, b: Blender, server: Server, host: str, saved: Path | None) -> None:
        self.b = b
        self.saved = saved
        self.d = Downloads(b, b.folder / "files", host)
        self.path = f"/{host}.bin"
        self.gate = server.gate()
        self.server = server
        if saved:
            b.run(f"with in_view3d(): bpy.ops.wm.save_as_mainfile(filepath={str(saved)!r})")
        b.run(BEGIN)
        b.run(EDIT)
        self.d.start(server.add(self.path, stall_after(HELD, self.gate), body=body(self.path)))
        self.gate.wait_reached()
        self.d.wait_progress(HELD / SIZE)
        self.children = self.d.children()

    def files(self) -> list[Path]:
        return sorted(self.b.folder.rglob("*_autosave.blend"))

    def check_went_on(self) -> None:
        """Same connection, same child, no report, and the run is there again."""
        self.b.wait("modal() == ['DOWNLOADS_OT_start'] and statuses() == ['RUNNING']")
        assert self.d.new_reports() == []
        assert self.d.children() == self.children
        self.gate.open()
        self.d.wait_over("FINISHED")
        self.d.check_reported_once("1 downloaded")
        assert list(self.d.files().values()) == [body(self.path)]
        assert len(self.server.requests_for(self.path)) == 1

    def check_recovers(self) -> None:
        """The file opens, with what was edited, and as the file that it is of, if it was ever saved."""
        (path,) = self.files()
        self.b.run(f"with in_view3d(): bpy.ops.wm.recover_auto_save(filepath={str(path)!r})")
        assert self.b.eval("'Edited' in bpy.data.objects")
        assert self.b.eval("bpy.data.filepath") == str(self.saved or path)


@pytest.mark.timeout(300)
def test_blender_autosaves_while_a_run_goes_on(
    blender_factory: BlenderFactory, server: Server, tmp_path: Path
) -> None:
    """With threads a file that was never saved, with a child one that was. It takes a minute."""
    saved = {"threads": None, "child": tmp_path / "scene.blend"}
    all_of_them = [Autosaved(blender_factory(online=True), server, host, saved[host]) for host in HOSTS]
    wait_until(lambda: all(a.files() for a in all_of_them), LATEST, period=0.2)
    for autosaved in all_of_them:
        autosaved.check_went_on()
        autosaved.check_recovers()
        assert autosaved.b.quit() == 0
