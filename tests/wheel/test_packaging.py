"""The zip, and what enabling and disabling does to Blender."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import bpy
from traces import Traces

if TYPE_CHECKING:
    from conftest import Extension
    from server import Server

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 50

WHAT_USERS_NEED = re.compile(
    r"__init__\.py|blender_manifest\.toml|operators\.py|workers\.py|ui\.py|LICENSE|README\.md"
    r"|(session|hosts|transfer)/(\w+/)*\w+\.py"
)

ENABLE_AND_WATCH = '''
import json, os, sys, tempfile
import bpy, addon_utils

PACKAGE = "bl_ext.user_default.background_downloads"
bpy.ops.extensions.package_install_files(
    repo="user_default", filepath=sys.argv[1], enable_on_install=False
)
# Blender itself may have imported them already. Then our import would not be seen.
for name in [n for n in sys.modules if n.partition(".")[0] in ("requests", "urllib3")]:
    del sys.modules[name]

importers = []

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("requests", "urllib3"):
            frame = sys._getframe(1)
            imports = False  # importlib.util.find_spec only looks
            while frame:
                imports |= frame.f_code.co_name == "_find_and_load"
                if imports and frame.f_globals.get("__name__", "").startswith(PACKAGE):
                    importers.append(frame.f_globals["__name__"] + " line " + str(frame.f_lineno))
                frame = frame.f_back
        return None

sys.meta_path.insert(0, Watch())
errors = []
with tempfile.TemporaryFile() as kept:
    sys.stdout.flush()
    out, err = os.dup(1), os.dup(2)
    os.dup2(kept.fileno(), 1)
    os.dup2(kept.fileno(), 2)
    addon_utils.enable(PACKAGE, default_set=True, handle_error=lambda error: errors.append(repr(error)))
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(out, 1)
    os.dup2(err, 2)
    kept.seek(0)
    printed = kept.read().decode()
enabled = PACKAGE in bpy.context.preferences.addons
answer = {"errors": errors, "enabled": enabled, "printed": printed, "importers": importers}
print("ANSWER", json.dumps(answer), flush=True)
'''


def test_zip_holds_what_users_need_and_nothing_else(zip_file: Path) -> None:
    names = zipfile.ZipFile(zip_file).namelist()
    assert [name for name in names if not WHAT_USERS_NEED.fullmatch(name)] == []
    missing = {"__init__.py", "blender_manifest.toml", "LICENSE", "README.md"} - set(names)
    assert missing == set()


def test_zip_holds_every_module_of_the_package(zip_file: Path) -> None:
    top = {path.name for path in ROOT.glob("*.py")}
    below = [path for room in ("session", "hosts", "transfer") for path in (ROOT / room).rglob("*.py")]
    rooms = {path.relative_to(ROOT).as_posix() for path in below}
    assert top | rooms == {name for name in zipfile.ZipFile(zip_file).namelist() if name.endswith(".py")}


def test_zip_is_named_after_id_and_version(zip_file: Path) -> None:
    manifest = tomllib.loads((ROOT / "blender_manifest.toml").read_text())
    assert zip_file.name == f"{manifest['id']}-{manifest['version']}.zip"


def test_two_checkouts_build_the_same_bytes(zip_file: Path, tmp_path: Path) -> None:
    from blenders import Blender, build

    copy = tmp_path / "another name"
    with zipfile.ZipFile(zip_file) as content:
        content.extractall(copy)
    for path in copy.rglob("*"):
        os.utime(path, (1e9, 1e9))
        path.chmod(0o755)
    module = Blender(name="this one", module=Path(sys.executable))
    again = build(module, tmp_path / "built", source=copy)
    assert again.read_bytes() == zip_file.read_bytes()


def test_the_build_for_stores_differs_in_one_default_alone(zip_file: Path, tmp_path: Path) -> None:
    from blenders import Blender, build
    from build import DEFAULT, for_stores

    module = Blender(name="this one", module=Path(sys.executable))
    other = build(module, tmp_path / "built", source=for_stores(tmp_path / "source"))
    with zipfile.ZipFile(zip_file) as usual, zipfile.ZipFile(other) as changed:
        assert usual.namelist() == changed.namelist()
        differs = [name for name in usual.namelist() if usual.read(name) != changed.read(name)]
        assert differs == ["ui.py"]
        lines = [built.read("ui.py").decode().splitlines() for built in (usual, changed)]
    (pair,) = [pair for pair in zip(*lines, strict=True) if pair[0] != pair[1]]
    assert [line.strip() for line in pair] == [DEFAULT.format("AUTOMATIC"), DEFAULT.format("PROCESS")]


def test_a_release_names_every_file_and_its_checksum(zip_file: Path, tmp_path: Path) -> None:
    from release import SUMS, release

    copy = Path(shutil.copy(zip_file, tmp_path))
    said = dict(reversed(line.split("  ")) for line in release(copy).read_text().splitlines())
    sbom = copy.with_suffix(".cdx.json")
    assert said == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (copy, sbom)}
    assert set(os.listdir(tmp_path)) == {copy.name, sbom.name, SUMS}
    parts = {part["name"]: part for part in json.loads(sbom.read_text())["components"]}
    assert parts.pop("requests")["scope"] == "excluded"  # nothing of others is in it
    with zipfile.ZipFile(copy) as content:
        held = {name: hashlib.sha256(content.read(name)).hexdigest() for name in content.namelist()}
    assert {name: part["hashes"][0]["content"] for name, part in parts.items()} == held


def test_enabling_prints_nothing_and_does_not_import_requests(
    zip_file: Path, fresh_blender: Callable[..., str]
) -> None:
    said = fresh_blender(ENABLE_AND_WATCH, zip_file)
    answer = json.loads(said.partition("ANSWER ")[2])
    assert answer == {"errors": [], "enabled": True, "printed": "", "importers": []}


def test_disabling_leaves_nothing_behind(installed: Extension) -> None:
    installed.enable()
    installed.disable()
    assert Traces.now().more_than(installed.before) == []


def test_disabling_and_enabling_fifty_times_adds_nothing(installed: Extension) -> None:
    installed.enable()
    first = Traces.now()
    for _ in range(ROUNDS):
        installed.disable()
        installed.enable()
    assert Traces.now().more_than(first) == []
    installed.disable()
    assert Traces.now().more_than(installed.before) == []


def test_nothing_is_written_into_the_extensions_own_folder(
    extension: Extension, server: Server, tmp_path: Path
) -> None:
    server.add("/file.bin", body=b"some bytes")
    bpy.ops.downloads.start(urls=server.url("/file.bin"), directory=str(tmp_path))
    extension.disable()
    assert (tmp_path / "file.bin").read_bytes() == b"some bytes"
    assert _files(extension.folder) == _files(zipfile.Path(extension.zip_file))


def _files(folder: Path | zipfile.Path, above: str = "") -> dict[str, bytes]:
    found = {}
    for entry in folder.iterdir():
        if entry.is_file():
            found[above + entry.name] = entry.read_bytes()
        elif entry.name != "__pycache__":
            found |= _files(entry, f"{above}{entry.name}/")
    return found
