"""README's example for other add-ons is run as it stands there, save for the host."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import bpy
from server import Server

if TYPE_CHECKING:
    from conftest import Extension

README = Path(__file__).resolve().parents[2] / "README.md"


def example() -> str:
    found = re.search(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert found
    return found[1]


def test_readme_s_example_downloads_what_it_names(
    extension: Extension, server: Server, tmp_path: Path
) -> None:
    server.add("/rock.blend", body=b"test")
    server.add("/large.zip", body=b"PK\x03\x04" + b"x" * 100_000)
    bpy.context.preferences.system.use_online_access = True
    bpy.context.preferences.addons[extension.package].preferences.directory = str(tmp_path / "chosen")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"))

    exec(example().replace("https://example.org", server.origin), {})

    assert (tmp_path / "textures" / "rock.blend").read_bytes() == b"test"
    assert (tmp_path / "chosen" / "large.zip").stat().st_size == 100_004
    statuses = [item.status for item in bpy.context.window_manager.downloads.items]
    assert statuses[-2:] == ["FINISHED", "FINISHED"]
