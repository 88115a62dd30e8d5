"""The extension from a remote repository, as studios serve one: added, installed, updated during a run."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from blender import Blender
from server import Gate, Server, stall_after
from test_list import HELD, OLD, THE_SAME, newer

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
import blenders
from release import repository

MODULE = "bl_ext.ours.background_downloads"

ADD = """
repos = bpy.context.preferences.extensions.repos
ours = repos.new(name="Ours", module="ours", custom_directory="", remote_url={url!r})
number = list(repos).index(ours)
"""
SYNC = """
with in_view3d():
    assert bpy.ops.extensions.repo_sync(repo_index=number) == {"FINISHED"}
"""
INSTALL = """
with in_view3d():
    assert bpy.ops.extensions.package_install(
        repo_index=number, pkg_id="background_downloads", enable_on_install=True) == {"FINISHED"}
"""
START = """
with in_view3d():
    options = {{"urls": {url!r}, "directory": {folder!r}}}
    assert bpy.ops.downloads.start("INVOKE_DEFAULT", **options) == {{"RUNNING_MODAL"}}
"""
STATUSES = "[item.status for item in bpy.data.window_managers[0].downloads.items]"
LEFT = "[t.name for t in __import__('threading').enumerate() if t.name.startswith('downloads-')]"


def serve(server: Server, zip_path: Path, folder: Path) -> str:
    """A repository that holds the extension; returns its listing's address."""
    tool = blenders.Blender(name="this Python's", module=Path(sys.executable))
    listing = repository(tool, zip_path, folder)
    for path in folder.iterdir():
        server.add(f"/repository/{path.name}", body=path.read_bytes())
    return server.url(f"/repository/{listing.name}")


@pytest.fixture
def gate(server: Server) -> Gate:
    gate = server.gate()
    server.add("/old.bin", stall_after(HELD, gate), **THE_SAME)
    return gate


def test_added_installed_and_updated_while_a_download_runs(
    blender_factory: Callable[..., Blender], server: Server, gate: Gate, extension_zip: Path, tmp_path: Path
) -> None:
    b = blender_factory(extension=False, online=True)
    b.run(ADD.format(url=serve(server, extension_zip, tmp_path / "first")))
    b.run(SYNC + INSTALL)
    b.run(START.format(url=server.url(OLD), folder=str(tmp_path)))
    gate.wait_reached()
    later = shutil.copy(newer(extension_zip, tmp_path, "9.0.0"), tmp_path / "background_downloads-9.0.0.zip")
    serve(server, Path(later), tmp_path / "second")
    b.run(SYNC + INSTALL)
    assert b.eval(f"{LEFT}") == []
    b.wait(f"{STATUSES} == ['PAUSED']")
    gate.open()
    b.run('with in_view3d(): bpy.ops.downloads.resume("INVOKE_DEFAULT")')
    b.wait(f"{STATUSES} == ['FINISHED']")
    assert (tmp_path / "old.bin").read_bytes() == THE_SAME["body"]
    assert "9.0.0" in next(r.headers["User-Agent"] for r in reversed(server.requests) if r.path == "/old.bin")
    assert "Traceback" not in b.console
