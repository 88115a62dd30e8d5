"""A remote asset library's listing as Blender 5.2 itself writes it: shown, chosen, fetched and verified."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import bpy
import pytest
from server import DEADLINE, Server

if TYPE_CHECKING:
    from conftest import Extension

FILES = {
    "tree.blend": ["Tree"],
    "rocks/große Steine & #1 100%.blend": ["Stone", "Pebble", "Boulder"],  # on more than one page
    "a b/x'y [1];v=2 ~.blend": ["X"],
}
LIBRARY = """
import json, sys
from pathlib import Path
import bpy
from _bpy_internal.assets import remote_library
root = Path(sys.argv[1])
for path, names in json.loads(sys.argv[2]).items():
    bpy.ops.wm.read_factory_settings(use_empty=True)
    for name in names:
        thing = bpy.data.objects.new(name, bpy.data.meshes.new(name))
        bpy.context.scene.collection.objects.link(thing)
        thing.asset_mark()
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    bpy.ops.wm.save_as_mainfile(filepath=str(root / path))
remote_library.asset_listing_main(["-q", "generate", str(root), "--page", "2"])
"""


@pytest.fixture
def library(fresh_blender: Callable[..., str], tmp_path: Path) -> Path:
    """A folder of assets, and Blender's listing of it."""
    if bpy.app.version < (5, 2):
        pytest.skip("Blender before 5.2 writes none")
    pytest.importorskip("cattrs", reason="Blender's generator needs it")
    fresh_blender(LIBRARY, tmp_path / "library", json.dumps(FILES))
    return tmp_path / "library"


@pytest.fixture
def link(library: Path, server: Server) -> str:
    """To the listing, on a server that has that folder."""
    for file in filter(Path.is_file, library.rglob("*")):
        server.add(f"/lib/{quote(file.relative_to(library).as_posix())}", body=file.read_bytes())
    return server.url("/lib/_asset-library-meta.json")


@pytest.mark.parametrize("part", ["_asset-library-meta.json", "_v1/asset-index.json"])
def test_what_blender_lists_is_fetched_as_it_is(
    extension: Extension, library: Path, link: str, tmp_path: Path, part: str
) -> None:
    folder, session = tmp_path / "folder", importlib.import_module(f"{extension.package}.session").current()
    ahead = importlib.import_module(f"{extension.package}.session.ahead").Ahead(session.rows)
    names, settings, hosts = (
        importlib.import_module(f"{extension.package}.{name}")
        for name in ("transfer.names", "session.settings", "workers")
    )
    try:
        ahead.show(
            [names.Link(link.replace("_asset-library-meta.json", part))],
            lambda: hosts.ThreadHost(settings.settings()),
        )
        _wait(ahead)
    finally:
        ahead.close()
    assert (ahead.files, ahead.left_out) == ([], 0)
    sizes = {file.entry.path: file.size for file in ahead.listed}
    assert sizes == {path: (library / path).stat().st_size for path in FILES}
    assert len(ahead.listed) == len(FILES)
    for subfolder, links in ahead.batches([]).items():
        urls = " ".join(f"{link.url}#{link.digest.algorithm}={link.digest.hex}" for link in links)
        bpy.ops.downloads.start(urls=urls, directory=str(folder / subfolder))
    fetched = [path.relative_to(folder).as_posix() for path in folder.rglob("*.blend")]
    assert sorted(fetched) == sorted(FILES)
    assert all((folder / path).read_bytes() == (library / path).read_bytes() for path in FILES)


def _wait(ahead: Any) -> None:
    deadline = time.monotonic() + DEADLINE
    while not ahead.is_over:
        assert time.monotonic() < deadline
        ahead.poll()
        time.sleep(0.005)
