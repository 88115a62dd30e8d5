"""Blender as a module, in this very process, with a profile of its own and the extension in it.

`extension` is what most tests want: installed from the zip that Blender's own tool built, and enabled.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

TOOLS = Path(__file__).resolve().parents[1] / "tools"
sys.path.append(str(TOOLS))  # at the end: these tools have names that others have too

if TYPE_CHECKING:
    from traces import Traces

if importlib.util.find_spec("bpy"):
    # Blender reads this once, when it is imported.
    _profile = tempfile.TemporaryDirectory(prefix="background-downloads-profile-")
    atexit.register(_profile.cleanup)
    os.environ["BLENDER_USER_RESOURCES"] = _profile.name
    import bpy

    # isort: split
    import addon_utils  # found only once bpy was imported
else:
    collect_ignore_glob = ["test_*.py"]

EXTENSION_ID = "background_downloads"
FRESH_BLENDER_DEADLINE = 100  # seconds; a Blender that hangs fails its test


@dataclass(frozen=True, kw_only=True)
class Extension:
    """The extension as it lies in the profile."""

    package: str
    """The module's full name, as Blender knows it."""
    folder: Path
    zip_file: Path
    before: Traces
    """What Blender held before the extension was ever enabled."""

    def enable(self) -> None:
        addon_utils.enable(self.package, default_set=True, handle_error=_raise)

    def disable(self) -> None:
        addon_utils.disable(self.package, default_set=True, handle_error=_raise)

    @property
    def is_enabled(self) -> bool:
        return self.package in bpy.context.preferences.addons


def _raise(error: Exception) -> None:
    raise error


@pytest.fixture(scope="session")
def zip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built and validated once, as `make build` does it."""
    from blenders import Blender, build

    module = Blender(name=f"Blender {bpy.app.version_string} (module)", module=Path(sys.executable))
    return build(module, tmp_path_factory.mktemp("zip"))


@pytest.fixture(scope="session")
def installed(zip_file: Path) -> Extension:
    """In the profile, by Blender's own installer. Not enabled yet."""
    from traces import Traces

    bpy.context.preferences.system.use_online_access = True
    bpy.ops.extensions.package_install_files(
        repo="user_default", filepath=str(zip_file), enable_on_install=False
    )
    repository = next(
        repository for repository in bpy.context.preferences.extensions.repos
        if repository.module == "user_default"
    )
    return Extension(
        package=f"bl_ext.user_default.{EXTENSION_ID}",
        folder=Path(repository.directory) / EXTENSION_ID,
        zip_file=zip_file,
        before=Traces.now(),
    )


@pytest.fixture
def extension(installed: Extension) -> Iterator[Extension]:
    """Installed and enabled, whatever the test before did to it."""
    if not installed.is_enabled:
        installed.enable()
    yield installed
    if installed.is_enabled:
        installed.disable()


@pytest.fixture
def fresh_blender(tmp_path: Path) -> Callable[..., str]:
    """Runs a script in a Blender process of its own, with a new profile; returns what it printed."""

    def run(script: str, *arguments: object, profile: str = "profile", **environment: str) -> str:
        folder = tmp_path / profile
        folder.mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=os.environ | {"BLENDER_USER_RESOURCES": str(folder)} | environment,
            timeout=FRESH_BLENDER_DEADLINE,
        )
        assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run
