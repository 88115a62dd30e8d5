"""make vendor NAME=my_addon DIR=…: the engine into an add-on that takes it along, or a newer one.

It goes to DIR/my_addon/downloads. Where DIR is an add-on itself, of another name, NAME is what the copy
is called in it. What its SHA256SUMS names is ours to replace and to take away; nothing else is touched.
"""

import hashlib
import keyword
import os
import re
import subprocess
import tomllib
from pathlib import Path

from common import ROOT, Trouble, main, say

ENGINE = ("hosts", "transfer")
SESSION = ("standalone", "fetching", "queue")  # and what they import there: no panel, no list, no importers
IMPORTS = r"^\s*from \.(\w+) import|\bLazy\(\"\.(\w+)\"|^\s*from \. import (.+)$"
SUMS = "SHA256SUMS"
FOLDER = "downloads"

INIT = '''"""The engine of Background Downloads {version} ({commit}), taken along by this add-on.

Licence: GPL-3.0-or-later, see LICENSE. Written by `make vendor`, which replaces it: change nothing here.
Call `register` and `unregister` from your add-on's own, then `fetch` when you like; see `fetch` for the rest.
"""

from typing import TYPE_CHECKING

from .session.standalone import register, unregister

if TYPE_CHECKING:
    from .session.fetching import Handle, Result, fetch

__all__ = ["Handle", "Result", "fetch", "register", "unregister"]


def __getattr__(name: str) -> object:
    """Imported when it is first used: enabling your add-on costs nothing."""
    if name in __all__:
        from .session import fetching

        return getattr(fetching, name)
    raise AttributeError(name)
'''
ORIGIN = '''"""Which copy of the engine this is. Written by `make vendor`."""

import hashlib
import re

_WHOLE = __name__.removesuffix(".hosts.origin")
_WORDS = re.sub(r"[^a-z0-9]+", "_", _WHOLE.removeprefix("bl_ext.").lower())[-36:].strip("_0123456789")

NAME = f"{{_WORDS or 'copy'}}_{{hashlib.sha256(_WHOLE.encode()).hexdigest()[:8]}}"
"""What its threads and its operator are called."""
VERSION = "{version}"
'''


def tool() -> int:
    name, folder = os.environ.get("NAME", ""), os.environ.get("DIR", "")
    if not name.isascii() or not name.isidentifier() or keyword.iskeyword(name) or not folder:
        raise Trouble("Say where to: make vendor NAME=my_addon DIR=folder_with_add-ons")
    target = place(name, Path(folder).expanduser())
    changed = vendor(target)
    for path in changed:
        say(f"  {path}: it was changed there; replaced.")
    say(f"{target}: Background Downloads {version()} ({commit()}).")
    say(f"In your add-on: from .{target.name} import fetch, register, unregister")
    return 0


def place(name: str, folder: Path) -> Path:
    """Where the copy goes."""
    if folder.name == name or not _is_add_on(folder):
        return (folder if folder.name == name else folder / name) / FOLDER
    return folder / name


def _is_add_on(folder: Path) -> bool:
    return (folder / "__init__.py").exists() or (folder / "blender_manifest.toml").exists()


def vendor(target: Path) -> list[str]:
    """Write the copy. Returns what somebody had changed in the old one. Raises Trouble."""
    old, files = _summed(target), contents()
    new = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    if target.exists() and not old and any(target.iterdir()):
        raise Trouble(f"{target} is there already, and no copy of ours: move it away first.")
    if mine := [path for path in new.keys() - old.keys() if _digest(target / path) not in (new[path], None)]:
        raise Trouble(f"{target / min(mine)} is yours, and would be replaced: move it away first.")
    changed = [path for path, digest in old.items() if _digest(target / path) not in (digest, None)]
    for path in sorted(old.keys() - new.keys()):
        (target / path).unlink(missing_ok=True)
        _remove_empty(target / path, target)
    sums = "".join(f"{digest}  {path}\n" for path, digest in sorted(new.items()))
    target.mkdir(parents=True, exist_ok=True)
    # First: should this be interrupted, the next time knows what is ours.
    (target / SUMS).write_bytes(sums.encode())
    for path, data in files.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(data)
    return changed


def contents() -> dict[str, bytes]:
    """What the copy holds, by its path in it."""
    paths = [ROOT / "workers.py", ROOT / "LICENSE", ROOT / "session" / "__init__.py", *needed()]
    paths += [path for room in ENGINE for path in sorted((ROOT / room).glob("*.py"))]
    files = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths}
    words = {"version": version(), "commit": commit()}
    files["__init__.py"] = INIT.format(**words).encode()
    files["hosts/origin.py"] = ORIGIN.format(**words).encode()
    return files


def needed() -> list[Path]:
    """The modules of the session that `fetch` needs."""
    found: list[Path] = []
    wanted = [ROOT / "session" / f"{name}.py" for name in SESSION]
    while wanted:
        path = wanted.pop()
        if path.is_file() and path not in found:
            found.append(path)
            words = (word for match in re.findall(IMPORTS, path.read_text("utf-8"), re.M) for word in match)
            names = (name for word in words for name in re.split(r"[,\s]+", word))
            wanted += [path.with_name(f"{name}.py") for name in names if name]
    return sorted(found)


def version() -> str:
    return str(tomllib.loads((ROOT / "blender_manifest.toml").read_text("utf-8"))["version"])


def commit() -> str:
    """The commit, and whether the sources differ from it."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(git, capture_output=True, text=True)
    except FileNotFoundError:  # no git here
        return "no commit known"
    return f"commit {done.stdout.strip()}" if not done.returncode else "no commit known"


def _summed(target: Path) -> dict[str, str]:
    """The files of an earlier copy."""
    try:
        lines = (target / SUMS).read_text("utf-8").splitlines()
    except OSError:
        return {}
    found = {path: digest for digest, _, path in (line.partition("  ") for line in lines)}
    return {path: digest for path, digest in found.items() if path and _stays_inside(path, target)}


def _stays_inside(path: str, target: Path) -> bool:
    """Also where a folder of the copy is a link to another one."""
    return ".." not in Path(path).parts and (target / path).parent.resolve().is_relative_to(target.resolve())


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _remove_empty(path: Path, target: Path) -> None:
    """The folders that held only this file and what Python compiled."""
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()
    for folder in (path.parent / "__pycache__", path.parent, *path.parent.parents):
        if folder == target or not folder.is_relative_to(target):
            break
        try:
            folder.rmdir()
        except OSError:
            continue


if __name__ == "__main__":
    main(tool)
