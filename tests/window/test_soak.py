"""A short form of `make soak`, so that it is right when it is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest
from blender import BlenderFactory
from downloading import Downloads
from server import Server
from soaking import Soak


@pytest.mark.timeout(300)
def test_nothing_is_left_after_a_little_of_everything(
    blender_factory: BlenderFactory, server: Server, tmp_path: Path
) -> None:
    b = blender_factory(online=True, simulate=False, pixels=True)
    soak = Soak(Downloads(b, tmp_path / "files", "threads"), server, seed="1", say=print)
    soak.start_and_cancel(5)
    soak.use(5)
    assert b.quit() == 0
