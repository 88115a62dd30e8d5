"""A Blender to work with, be it a module in a virtual environment or a program, and the zip it builds."""

import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common import EXTENSION_ID, ROOT, Trouble, clean_environment, say
from venvs import BLENDER_VERSIONS, blender_pythons, blender_venv

OLDEST = (4, 2)
SAME_TIME = (1980, 1, 1, 0, 0, 0)  # of each file in the zip: when it was checked out tells nothing
SAME_MODE = 0o100644 << 16


@dataclass(frozen=True, kw_only=True)
class Blender:
    """How to start one: `module` is the Python of an environment that has bpy, `program` Blender itself."""

    name: str
    program: Path | None = None
    module: Path | None = None

    def script(self, script: Path, *arguments: object) -> list[str]:
        """Run a Python script in the background."""
        words = ["--", *map(str, arguments)]
        if self.module:
            return [str(self.module), str(script), *words]
        return [str(self.program), "--background", "--python-exit-code", "1", "--python", str(script), *words]

    def extension_tool(self, *arguments: object) -> list[str]:
        """Blender's own builder and validator of extensions."""
        if not self.module:
            return [str(self.program), "--command", "extension", *map(str, arguments)]
        tool = "bpy/*/scripts/addons_core/bl_pkg/cli/blender_ext.py"
        # An environment's own packages, or those of the Windows that wine.py makes.
        places = (f"lib/python*/site-packages/{tool}", f"packages/{tool}")
        found = next(filter(None, (next(self.module.parents[1].glob(place), None) for place in places)), None)
        if not found:
            raise Trouble(f"{self.name} lacks Blender's extension tool ({tool}).")
        return [str(self.module), str(found), *map(str, arguments)]


def module_blender() -> Blender:
    """Blender as a module, the newest that can be had."""
    versions = blender_pythons()
    if not versions:
        raise Trouble(
            "Blender as a module needs Python 3.11 or 3.13, and neither is on the PATH or under pyenv;"
            " on Debian: apt-get install python3 python3-venv"
        )
    version = versions[0]
    return Blender(
        name=f"Blender {BLENDER_VERSIONS[version]} (module, Python {version})", module=blender_venv(version)
    )


def program_blender() -> Blender | None:
    """The Blender named by BLENDER=, else the one on the PATH; None if there is none that will do."""
    named = os.environ.get("BLENDER")
    program = shutil.which(named or "blender")
    if not program:
        if named:
            raise Trouble(f"BLENDER={named} is not a program that can be run.")
        return None
    version = _version(program)
    if version and version >= OLDEST:
        return Blender(name="Blender " + ".".join(map(str, version)), program=Path(program))
    what = "Blender " + ".".join(map(str, version)) if version else "no Blender that runs"
    if named:
        raise Trouble(f"BLENDER={named} is {what}; Blender 4.2 or newer is needed.")
    say(f"{program} is {what}; it is left alone, Blender 4.2 or newer is needed.")
    return None


def _version(program: str) -> tuple[int, ...] | None:
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"^Blender (\d+(?:\.\d+)+)", answer.stdout, re.MULTILINE)
    return tuple(map(int, found[1].split("."))) if found else None


def build(blender: Blender, output: Path, *, source: Path = ROOT) -> Path:
    """The extension's zip, built and then validated by Blender's own tool."""
    if not (source / "__init__.py").exists():
        raise Trouble(f"{source} has no __init__.py: there is no extension to build.")
    output.mkdir(parents=True, exist_ok=True)
    for old in output.glob(f"{EXTENSION_ID}-*.zip"):
        old.unlink()
    use(blender.extension_tool("build", "--source-dir", source, "--output-dir", output))
    built = list(output.glob(f"{EXTENSION_ID}-*.zip"))
    if len(built) != 1:
        raise Trouble(f"{blender.name} said that it built the extension, but {output} holds no zip of it.")
    _forget_circumstances(built[0])
    use(blender.extension_tool("validate", built[0]))
    return built[0]


def _forget_circumstances(zip_file: Path) -> None:
    """Write it again without what differs from one checkout or machine to the next.

    Stored, not deflated: one zlib packs otherwise than the next one.
    """
    with zipfile.ZipFile(zip_file) as old:
        files = {name: old.read(name) for name in sorted(old.namelist()) if not name.endswith("/")}
    with zipfile.ZipFile(zip_file, "w", zipfile.ZIP_STORED) as new:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, SAME_TIME)
            info.create_system, info.external_attr = 3, SAME_MODE  # as made on Unix, wherever it is made
            new.writestr(info, data)


def use(command: Sequence[str]) -> None:
    """Run one of Blender's extension tool's commands. Raises Trouble with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment())
    if done.returncode:
        raise Trouble(f"Blender's extension tool refused:\n{done.stdout}{done.stderr}".rstrip())
