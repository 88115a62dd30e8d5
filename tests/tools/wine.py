"""Python for Windows, and Blender as a module, under Debian's Wine: set up once, kept in the cache folder.

Wine is not Windows. But what breaks here breaks there, and what a program may not do to an open file is
the same. Everything that is fetched is pinned by its digest; CPython's embeddable build comes in a
package of a stranger's, and each of its files is checked against `windows-python-*.sha256`. When those
were written, the signatures in them were looked at: the Python Software Foundation's and Microsoft's. Its
library has none: that of 3.11 was compared with CPython's own sources.

    WINDOWS_PYTHON=3.11 python wine.py -m pytest …
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from common import ROOT, TOOLS, Trouble, apt_install, cache_folder, clean_environment, say
from venvs import STAMP, lock, pip

BLENDERS = {"3.13": "5.2", "3.11": ""}  # beside a Python; none: the engine alone, with the oldest requests
NEWEST = "3.13"
LOADER = Path("/usr/lib/wine/wine64")  # Debian puts it on no PATH
UNPACKER = TOOLS / "requirements-windows-setuptools.txt"
PINNED = ("--no-deps", "--require-hashes")
NOT_UNDER_WINE = "_wmi.pyd"  # Wine 8 lacks a function that it wants, and without it Python does well
# Wine 8 lacks what shutil asks for; and a script finds its neighbours, as with every Python but that build.
AT_THE_START = """
import _winapi, os, sys
vars(_winapi).pop("CopyFile2", None)
script = next((word for word in sys.orig_argv[1:] if word[:1] != "-"), "")
if script.endswith(".py") and "-I" not in sys.orig_argv:
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
"""
SEARCHED = "{}.zip\n.\n../packages\nimport site\n"  # where that Python finds its modules
BOOT_DEADLINE = 300  # seconds


class Wine:
    """A Windows of its own: a copy of the one that was set up, which goes when it is closed."""

    def __init__(self, folder: Path, prefix: Path) -> None:
        self.python = folder / "python" / "python.exe"
        self._prefix = prefix

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to know to run there."""
        return {
            "WINEPREFIX": str(self._prefix),
            "WINEDEBUG": "-all",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUTF8": "1",
        }

    def add_drive(self, letter: str, folder: Path) -> None:
        (self._prefix / "dosdevices" / letter).symlink_to(folder)

    def command(self, *arguments: str | Path) -> list[str]:
        """How to run its Python; `/` is the root of drive Z:, on which programs start.

        With a file as its standard output Python does not start under Wine 8: a pipe goes between, for
        whose end nobody waits, since what it started and left may hold it.
        """
        run = ["bash", "-c", '"$@" </dev/null > >(cat) 2>&1; code=$?; sleep 0.5; exit $code', "wine"]
        return [*run, str(LOADER), str(self.python), *map(str, arguments)]


@contextlib.contextmanager
def wine(python: Path, version: str = NEWEST) -> Iterator[Wine]:
    """Windows, with what a run changes in it gone at the end. `python` has pip. Raises Trouble."""
    folder = set_up(python, version)
    with tempfile.TemporaryDirectory(prefix="wine-", dir=cache_folder(), ignore_cleanup_errors=True) as own:
        prefix = Path(own, "prefix")
        # Links: a file that is changed there is written anew.
        shutil.copytree(folder / "prefix", prefix, symlinks=True, copy_function=os.link)
        windows = Wine(folder, prefix)
        try:
            yield windows
        finally:
            _run([LOADER, "wineboot", "-k"], windows.environment)


@contextlib.contextmanager
def own_windows(python: Path, version: str = NEWEST) -> Iterator[tuple[Wine, dict[str, str]]]:
    """A Windows, and the environment in which tests find what they are lent."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        windows = stack.enter_context(wine(python, version))
        make = "import pathlib, server, sys; server.make_certificates(pathlib.Path(sys.argv[1]))"
        # The library that makes them does not load under Wine.
        subprocess.run([python, "-c", make, folder], cwd=ROOT / "tests", check=True)
        lent = stack.enter_context(_lending(python, Path(folder), windows))
        yield windows, {**windows.environment, "TEST_CERTIFICATES": folder, **lent}


# Resets the first connection in the middle of a body; the next one brings the rest.
RESETTING = """
import sys
from server import Server, first, pattern, reset_after
with Server() as server:
    print(server.add("/a.bin", first(1, reset_after(100_000)), body=pattern(200_000)), flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def _lending(python: Path, folder: Path, windows: Wine) -> Iterator[dict[str, str]]:
    """What tests cannot have under Wine by themselves, as variables of their environment.

    Disks are mounted where this process may; drive X: leads to a folder that tests may move away.
    """
    with contextlib.ExitStack() as stack:
        lent = {"TEST_DRIVE": str(folder / "drive")}
        (folder / "drive").mkdir()
        windows.add_drive("x:", folder / "drive")
        for name, options in (("SMALL", "size=4m"), ("READ_ONLY", "ro")):
            disk = folder / name
            disk.mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", options, "none", disk]
            if not subprocess.run(mount, capture_output=True).returncode:
                stack.callback(subprocess.run, ["umount", "-l", disk])
                lent[f"TEST_{name}_DISK"] = str(disk)
        server = stack.enter_context(
            subprocess.Popen(
                [python, "-B", "-c", RESETTING],
                cwd=ROOT / "tests",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(server.communicate)
        yield lent | {"TEST_RESETTING_URL": server.stdout.readline().strip()}


def set_up(python: Path, version: str = NEWEST) -> Path:
    """Where it is, made if need be. Raises Trouble."""
    if version not in BLENDERS:
        raise Trouble(f"There is no Python {version} for Windows here, but {' and '.join(BLENDERS)}.")
    if not LOADER.exists():
        apt_install("wine64")
    folder = cache_folder() / f"windows-{version}"
    pins = (*_packages(version), _files(version), UNPACKER, Path(__file__))
    stamp = hashlib.sha256(b"".join(path.read_bytes() for path in pins)).hexdigest()
    with lock(folder.name):
        complete = folder / STAMP
        if not complete.exists() or complete.read_text() != stamp:
            _make(folder, python, version)
            complete.write_text(stamp)
    return folder


def _packages(version: str) -> tuple[Path, Path]:
    """What is installed beside a Python, and the package that has that itself."""
    return (
        TOOLS / f"requirements-windows-{version}.txt",
        TOOLS / f"requirements-windows-python-{version}.txt",
    )


def _files(version: str) -> Path:
    return TOOLS / f"windows-python-{version}.sha256"


def _make(folder: Path, python: Path, version: str) -> None:
    blender = " with Blender {} (some 700 MB, kept for later runs)" if BLENDERS[version] else ""
    say(f"Setting up Windows' Python {version}{blender.format(BLENDERS[version])} …")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    packages, packed_python = _packages(version)
    _unpack_python(folder, python, packed_python, _files(version))
    # Without numpy, which Blender's module names and Wine 8 cannot load; only glTF and the like miss it.
    wheels = ["--platform=win_amd64", f"--python-version={version}", "--implementation=cp"]
    _install(python, packages, folder / "packages", *wheels, "--ignore-requires-python")
    (folder / "packages" / "sitecustomize.py").write_text(AT_THE_START)
    _make_prefix(folder, "bpy, requests, ssl" if blender else "requests, ssl")


def _unpack_python(folder: Path, python: Path, packed: Path, files: Path) -> None:
    """The embeddable build, each file as it is known."""
    known = dict(reversed(line.split("  ")) for line in files.read_text().splitlines())
    with tempfile.TemporaryDirectory() as fetched:
        _install(python, UNPACKER, Path(fetched, "unpacker"))
        unpacker = {"PYTHONPATH": str(Path(fetched, "unpacker"))}
        options = ["--no-binary=:all:", "--no-build-isolation", "-d", fetched]
        pip(python, packed, "download", *options, *PINNED, environment=unpacker)
        (package,) = Path(fetched).glob("*.tar.gz")
        with tarfile.open(package) as tar:
            data = next(tar.extractfile(member) for member in tar if member.name.endswith("/data.zip"))
            with zipfile.ZipFile(data) as archive:
                found = {PurePosixPath(name).name: archive.read(name) for name in archive.namelist()}
    target = folder / "python"
    target.mkdir()
    for name, digest in known.items():
        if hashlib.sha256(found.get(name, b"")).hexdigest() != digest:
            raise Trouble(f"{package.name} holds another {name} than the known one: nothing of it was run.")
        if name != NOT_UNDER_WINE:
            (target / name).write_bytes(found[name])
    (library,) = target.glob("python3*.zip")
    library.with_suffix("._pth").write_text(SEARCHED.format(library.stem))


def _install(python: Path, requirements: Path, target: Path, *options: str) -> None:
    pip(python, requirements, "install", "--only-binary=:all:", "--target", target, *options, *PINNED)


def _make_prefix(folder: Path, modules: str) -> None:
    """A Windows 10 without doors to this user's own folders, where these modules can be imported."""
    prefix = folder / "prefix"
    environment = Wine(folder, prefix).environment
    _run([LOADER, "wineboot", "-i"], environment)
    version = [r"HKCU\Software\Wine", "/v", "Version", "/d", "win10", "/f"]
    _run([LOADER, "reg", "add", *version], environment)
    _run([LOADER, "wineboot", "-k"], environment)
    for door in (prefix / "drive_c" / "users").rglob("*"):
        if door.is_symlink():
            door.unlink()
            door.mkdir()
    try_it = f"import {modules}; print('it works')"
    said = _run(Wine(folder, prefix).command("-c", try_it), environment)
    if "it works" not in said:
        raise Trouble(f"Python for Windows does not run under Wine: {said.strip()[-300:]}")


def _run(command: list[str | Path], environment: dict[str, str]) -> str:
    try:
        return subprocess.run(
            command,
            env=clean_environment(**environment),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=BOOT_DEADLINE,
        ).stdout
    except subprocess.TimeoutExpired:
        raise Trouble(f"Wine hung: {' '.join(map(str, command))}") from None


if __name__ == "__main__":
    chosen = os.environ.get("WINDOWS_PYTHON", NEWEST)
    with own_windows(Path(sys.executable), chosen) as (windows, lent):
        command = windows.command(*sys.argv[1:])
        sys.exit(subprocess.run(command, env=clean_environment(**lent)).returncode)
