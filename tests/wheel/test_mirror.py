"""A studio's mirror, set by the environment or the preferences, for Blenders with profiles of their own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import bpy
import pytest
from server import Certificates, Server, pattern

sys.path.append(str(Path(__file__).resolve().parents[1] / "engine"))

from services import StudioMirror, find, private_folder

if TYPE_CHECKING:
    from conftest import Extension

VARIABLE = "BACKGROUND_DOWNLOADS_MIRROR"
TEMPLATE = "https://mirror.example/{scheme}/{host}/{path}"
DATA = pattern(10 << 20)
SEAT = """
import sys
import bpy
zip_file, url, folder = sys.argv[1:]
bpy.context.preferences.system.use_online_access = True
bpy.ops.extensions.package_install_files(repo="user_default", filepath=zip_file, enable_on_install=True)
bpy.ops.downloads.start(urls=url, directory=folder)
for item in bpy.context.window_manager.downloads.items:
    print("ROW", item.status, item.url, item.note, flush=True)
"""


@pytest.mark.skipif(
    not (find("nginx") and find("setpriv")), reason="nginx is not installed (Debian: nginx, util-linux)"
)
def test_two_profiles_cost_the_server_one_file(
    zip_file: Path, certificates: Certificates, tmp_path: Path, fresh_blender: Callable[..., str]
) -> None:
    """By the page for studios as it stands; only the mirror knows where files.example is."""
    url = "https://files.example/rocks.bin"
    with (
        Server(tls=certificates.good) as origin,
        private_folder() as folder,
        StudioMirror(folder, certificates, {"files.example": origin.port}) as mirror,
    ):
        origin.add("/rocks.bin", body=DATA)
        environment = {VARIABLE: mirror.template, "REQUESTS_CA_BUNDLE": str(certificates.ca)}
        for seat in ("one", "two"):
            said = fresh_blender(SEAT, zip_file, url, tmp_path / seat / "files", profile=seat, **environment)
            assert f"ROW FINISHED {url} \n" in said
            assert (tmp_path / seat / "files" / "rocks.bin").read_bytes() == DATA
            assert len(origin.requests) == 2  # of 8 MiB and of the rest; none for the second seat


@pytest.fixture
def settings(extension: Extension, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.delenv(VARIABLE, raising=False)
    preferences = bpy.context.preferences.addons[extension.package].preferences
    yield importlib.import_module(f"{extension.package}.session.settings")
    preferences.mirror = ""


def test_the_variable_wins_over_the_preference(
    extension: Extension, settings: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.settings().mirror == ""
    bpy.context.preferences.addons[extension.package].preferences.mirror = f" {TEMPLATE} "
    assert settings.settings().mirror == TEMPLATE
    monkeypatch.setenv(VARIABLE, "http://other/{host}/{path}")
    assert settings.settings().mirror == "http://other/{host}/{path}"
    assert settings.mirror_trouble() == ""
    monkeypatch.setenv(VARIABLE, "")
    assert settings.settings().mirror == TEMPLATE


def test_one_that_cannot_be_used_is_said_and_fails_downloads(
    extension: Extension, settings: ModuleType, server: Server, tmp_path: Path
) -> None:
    bpy.context.preferences.addons[extension.package].preferences.mirror = "https://mirror.example"
    assert settings.mirror_trouble().startswith("This mirror cannot be used: ")
    with pytest.raises(RuntimeError, match=r"This mirror cannot be used: "):
        bpy.ops.downloads.start(urls=server.add("/a.bin", body=b"x"), directory=str(tmp_path))
    assert server.requests == []
