"""User, password and query of links stay in the extension's own private files, whatever else is saved."""

from __future__ import annotations

import importlib
import logging
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import bpy
import pytest
from server import Server, after, cut_after, first, pattern, status

if TYPE_CHECKING:
    from conftest import Extension

USER, PASSWORD, TOKEN = "Qu5erQ", "Qp4ss/w0rdQ", "Qt0kenQ"
SECRETS = (USER, PASSWORD, quote(PASSWORD, safe=""), TOKEN)


def holding_secrets(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(secret.encode() in path.read_bytes() for secret in SECRETS)]


def test_secrets_lie_in_private_files_of_the_extension_alone(
    extension: Extension,
    server: Server,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Also with all logs on, the preferences saved, and a .blend with the links still in the panel."""
    caplog.set_level(logging.DEBUG)
    server.add("/cut.bin", first(1, cut_after(2000)), after(1, status(403)), body=pattern(9000))
    server.add("/whole.bin", body=pattern(9000))
    login = f"{USER}:{quote(PASSWORD, safe='')}"
    urls = [server.url(f"/{name}.bin?t={TOKEN}", user=login) for name in ("cut", "whole", "missing")]
    # As in a window: in background mode no list is kept.
    assert importlib.import_module(f"{extension.package}.session").current().open([])
    downloads = bpy.context.window_manager.downloads
    downloads.urls = urls[0]
    with pytest.raises(RuntimeError) as caught:
        bpy.ops.downloads.start(urls="\n".join(urls), directory=str(tmp_path / "files"), if_exists="UPDATE")
    bpy.ops.wm.save_userpref()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"), compress=False, copy=True)
    downloads.urls = ""
    shown = [str(caught.value), caplog.text, *capfd.readouterr()]
    shown += [f"{row.name} {row.url} {row.error} {row.note} {row.filepath}" for row in downloads.items]
    assert not [text for text in shown for secret in SECRETS if secret in text]
    assert sorted(path.suffix for path in (tmp_path / "files").iterdir()) == [".bin", ".json", ".part"]
    assert holding_secrets(tmp_path) == []
    extension.disable()  # what is unfinished is in the list now
    own = Path(bpy.utils.extension_path_user(extension.package))
    kept = holding_secrets(Path(os.environ["BLENDER_USER_RESOURCES"]))
    assert kept
    assert {path.parent for path in kept} == {own}
    if sys.platform != "win32":  # which has no modes; the folder is the user's own there
        assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    for path in kept:  # or the next Blender of these tests would take them up
        path.unlink()
