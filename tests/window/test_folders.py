"""Folders in a window: one that is no Unicode."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from blender import Blender, wait_until
from downloading import HOSTS, Downloads
from server import Server, pattern, status

BODY = pattern(100_000)
LATIN_1 = "caf\udce9"  # as `os.fsdecode` gives a name that is not UTF-8
OPENER = '#!/bin/sh\nprintf %s "$1" > "{}"\n'


@pytest.fixture(params=HOSTS)
def downloads(request: pytest.FixtureRequest, blender: Blender, tmp_path: Path) -> Iterator[Downloads]:
    d = Downloads(blender, tmp_path / LATIN_1, request.param)
    yield d
    d.act_if_any("cancel")
    d.wait_over()


def test_a_folder_that_is_not_utf_8(downloads: Downloads, server: Server, tmp_path: Path) -> None:
    server.add("/bad.bin", status(404))
    d, good, bad = downloads, server.add("/good.bin", body=BODY), server.url("/bad.bin")
    d.b.run("view3d().spaces.active.show_region_ui = True")
    d.b.run(f"state().directory = {str(d.folder)!r}")
    d.start(good, bad)
    d.wait_over("FINISHED", "FAILED")
    assert d.files() == {"good.bin": BODY}
    assert d.rows()[0].filepath == str(d.folder / "good.bin")
    opener, shown = tmp_path / "xdg-open", tmp_path / "shown"
    opener.write_text(OPENER.format(shown))
    opener.chmod(0o755)
    d.b.run(f"path = os.environ['PATH']; os.environ['PATH'] = {str(tmp_path)!r} + ':' + path")
    d.act("open_folder", index=0)
    wait_until(lambda: shown.exists() and shown.read_bytes())
    d.b.run("os.environ['PATH'] = path")
    assert shown.read_bytes().rstrip(b"/") == os.fsencode(d.folder)
