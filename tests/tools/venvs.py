"""Pythons that really run, and the virtual environments made from them.

An environment is taken only with its stamp, which is written last: a run that was cut off leaves none.
"""

import contextlib
import ctypes
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from common import TOOLS, Trouble, apt_install, cache_folder, clean_environment, say

STAMP = "complete"
NOTHING_MORE: Mapping[str, str] = {}
BLENDER_VERSIONS = {"3.13": "5.2", "3.11": "4.5"}  # Python: Blender as a module; preferred first
MATRIX = {"4.2": "3.11", "5.0": "3.11", "5.1": "3.13"}  # more Blenders as modules, and their Pythons

# What the bpy wheels take from the system, and the Debian package that has it.
SYSTEM_LIBRARIES = {
    "libGL.so.1": "libgl1",
    "libICE.so.6": "libice6",
    "libSM.so.6": "libsm6",
    "libX11.so.6": "libx11-6",
    "libXext.so.6": "libxext6",
    "libXfixes.so.3": "libxfixes3",
    "libXi.so.6": "libxi6",
    "libXrender.so.1": "libxrender1",
    "libXt.so.6": "libxt6",
    "libxkbcommon.so.0": "libxkbcommon0",
}


@cache
def find_python(version: str) -> Path | None:
    """A Python of this version ("3.11") that runs: on the PATH, or one that pyenv keeps."""
    named = [shutil.which(name) for name in (f"python{version}", "python3")]
    pyenv = os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv"
    kept = sorted(glob.glob(f"{glob.escape(str(pyenv))}/versions/{version}*/bin/python{version}"))
    for candidate in [sys.executable, *named, *kept]:
        if candidate and (found := _ask(candidate, version)):
            return found
    return None


def _ask(candidate: str, version: str) -> Path | None:
    """Run it: a shim may have nothing behind it. The answer is the program itself, outside any venv."""
    question = "import sys; print('%d.%d' % sys.version_info[:2]); print(sys._base_executable)"
    try:
        answer = subprocess.run(
            [candidate, "-I", "-c", question],
            capture_output=True,
            text=True,
            timeout=60,
            env=clean_environment(),
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match answer.stdout.splitlines():
        case [said, program] if said == version and answer.returncode == 0:
            return Path(program).resolve()
    return None


def blender_pythons() -> list[str]:
    """The Python versions here that Blender as a module can be had for, preferred first."""
    return [version for version in BLENDER_VERSIONS if find_python(version)]


def blender_venv(version: str) -> Path:
    """The Python of an environment with Blender as a module and the test tools."""
    ensure_system_libraries()
    what = f"Blender {BLENDER_VERSIONS[version]} as a module (some 400 MB, kept for later runs)"
    return venv(f"venv-{version}", version, TOOLS / f"requirements-blender-{version}.txt", what)


def matrix_venv(blender: str) -> Path:
    """The Python of an environment with another Blender as a module."""
    ensure_system_libraries()
    what = f"Blender {blender} as a module (some 400 MB, kept for later runs)"
    requirements = TOOLS / f"requirements-matrix-{blender}.txt"
    return venv(f"venv-matrix-{blender}", MATRIX[blender], requirements, what)


def newest_blender_venv() -> Path:
    """The same for the preferred one of the Pythons here. Raises Trouble where there is none."""
    versions = blender_pythons()
    if not versions:
        raise Trouble("There is no Python 3.11 or 3.13 here, on the PATH or under pyenv.")
    return blender_venv(versions[0])


def engine_venv() -> Path:
    """The Python of an environment without Blender, with the oldest requests that Blender bundles."""
    return venv("venv-3.11-engine", "3.11", TOOLS / "requirements-engine-3.11.txt", "the engine's tests")


def fuzz_venv() -> Path:
    return venv("venv-fuzz", "3.13", TOOLS / "requirements-fuzz.txt", "the fuzzer")


def mutants_venv() -> Path:
    return venv("venv-mutants", "3.13", TOOLS / "requirements-mutants.txt", "what changes the engine")


def lint_venv() -> Path:
    version = next(iter(blender_pythons()), "{}.{}".format(*sys.version_info))
    return venv("venv-lint", version, TOOLS / "requirements-lint.txt", "ruff and mypy")


def venv(name: str, version: str, requirements: Path, what: str) -> Path:
    """The Python of the named environment, made or made anew if need be."""
    python = find_python(version)
    if not python:
        raise Trouble(f"There is no Python {version} here, on the PATH or under pyenv.")
    folder = cache_folder() / name
    stamp = hashlib.sha256(requirements.read_bytes() + str(python).encode()).hexdigest()
    with lock(name):
        if not _is_complete(folder, stamp):
            _make(folder, python, version, requirements, what)
            (folder / STAMP).write_text(stamp)
    return folder / "bin" / "python"


def _is_complete(folder: Path, stamp: str) -> bool:
    try:
        # The Python it was made from may have been removed since.
        return (folder / STAMP).read_text() == stamp and (folder / "bin" / "python").exists()
    except OSError:
        return False


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """One maker at a time. The system opens the lock when its holder dies."""
    import fcntl  # a test under Wine imports this module, and makes nothing

    with open(cache_folder() / f".{name}.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Another run is setting up {name}; waiting for it …")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(folder: Path, python: Path, version: str, requirements: Path, what: str) -> None:
    ensure_venv_module(python, version)
    say(f"Setting up Python {version} with {what} …")
    if folder.exists():
        shutil.rmtree(folder)
    made = subprocess.run(
        [python, "-m", "venv", folder], capture_output=True, text=True, env=clean_environment()
    )
    if made.returncode:
        raise Trouble(f"{python} cannot make a virtual environment: {_last_line(made.stdout + made.stderr)}")
    _pip_install(folder, requirements)


def ensure_venv_module(python: Path, version: str) -> None:
    """Debian's python3 comes without what `python3 -m venv` needs."""

    def is_there() -> bool:
        asked = [python, "-I", "-c", "import venv, ensurepip"]
        return not subprocess.run(asked, capture_output=True, env=clean_environment()).returncode

    if is_there():
        return
    if not python.is_relative_to("/usr/bin"):
        raise Trouble(f"{python} has no venv or ensurepip module, which is needed to set up the rest.")
    apt_install(f"python{version}-venv")
    if not is_there():
        raise Trouble(f"{python} still has no ensurepip module after installing python{version}-venv.")


def ensure_system_libraries() -> None:
    missing = [package for library, package in SYSTEM_LIBRARIES.items() if not _loads(library)]
    if missing:
        apt_install(*missing)


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _pip_install(folder: Path, requirements: Path) -> None:
    pip(folder / "bin" / "python", requirements, "install")


def pip(
    python: Path,
    requirements: Path,
    command: str,
    *options: str | Path,
    environment: Mapping[str, str] = NOTHING_MORE,
) -> None:
    """pip with this machine's own settings. On a terminal it shows its progress. Raises Trouble."""
    log = cache_folder() / f"{requirements.stem}.log"
    own = [python, "-m", "pip", command, "--disable-pip-version-check", "--no-input"]
    with open(log, "w") as file:
        shown = None if sys.stdout.isatty() else file
        done = subprocess.run(
            [*own, *options, "-r", requirements],
            stdout=shown,
            stderr=file,
            env=clean_environment(**environment),
        )
    if done.returncode:
        raise Trouble(_why_pip_failed(log, requirements))


def _why_pip_failed(log: Path, requirements: Path) -> str:
    text = log.read_text(errors="replace")
    unreachable = r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError"
    if re.search(unreachable, text):
        return (
            f"The package index cannot be reached, and {requirements.name} names packages that are not here"
            f" yet; please check the network and try again (pip's own words are in {log})."
        )
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            "The package index was reached, but pip does not trust its certificate; a network with a"
            f" certificate authority of its own needs `pip config set global.cert FILE` (see {log})."
        )
    errors = [line.removeprefix("ERROR: ") for line in text.splitlines() if line.startswith("ERROR: ")]
    why = errors[0] if errors else _last_line(text)
    return f"pip could not install what {requirements.name} names: {why} (all its words are in {log})"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]
