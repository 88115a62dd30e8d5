"""Finds the Blenders that tests may open in a window, and makes them on Debian.

A Blender comes from `BLENDER=`, from the PATH, or, for root on Debian, from a
small Debian system of its own (a root) that is kept in the cache folder.
Run as a script, this prepares the roots and says what there is.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

OLDEST = (4, 2)
"""The first Blender with extensions."""

SUITES = {"5.2": "sid", "4.3": "trixie"}
"""The Debian suite that has each Blender which tests want."""

PACKAGES = [
    "blender",
    "xvfb",
    "xauth",
    "xdotool",
    "imagemagick",
    "libgl1-mesa-dri",
    "python3-requests",
    "python3-numpy",
    "ca-certificates",
    "procps",
]
MORE_PACKAGES = {"sid": ["python3-cattr"]}

# Mounts live in a name space of the command's own, so they end with it. The
# exec chain keeps one pid from the test down to Blender.
ENTER_ROOT = r"""
root=$1; shift
mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" || exit 125
[ -e "$root/etc/mtab" ] || ln -s /proc/self/mounts "$root/etc/mtab"
while [ "$1" != -- ]; do
    mkdir -p "$root$1" && mount --rbind "$1" "$root$1" || exit 125
    shift
done
shift
exec chroot "$root" "$@"
"""


class NotAvailableError(Exception):
    """A Blender that cannot be had; the message says why, in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Installation:
    """A Blender on this machine and how to run commands where it lives."""

    label: str
    """Its version as people say it: `5.2`."""
    program: str
    """Blender's executable, as seen from inside `root`."""
    root: Path | None = None
    """The system to enter first; None is this machine itself."""

    def command(self, arguments: Sequence[str | Path], folders: Iterable[Path] = ()) -> list[str]:
        """A command line that runs `arguments` there; `folders` are visible inside."""
        words = [str(argument) for argument in arguments]
        if self.root is None:
            return [*_die_with_parent(), *words]
        shared = [str(folder) for folder in _outermost([Path("/tmp"), *folders])]
        enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER_ROOT, "sh"]
        return [*_die_with_parent(), *enter, str(self.root), *shared, "--", *words]


def wanted_labels() -> list[str]:
    """The versions that window tests are made for, without preparing anything. WINDOWS= picks some."""
    own = [installation.label for installation in _own_blenders(_no_notes)]
    every = [*own, *(label for label in SUITES if label not in own)]
    chosen = os.environ.get("WINDOWS", "").split()
    return [label for label in every if not chosen or label in chosen]


@cache
def find() -> tuple[dict[str, Installation], dict[str, str]]:
    """What there is, and for what there is not a sentence that says why, by version."""
    notes: dict[str, str] = {}
    found: dict[str, Installation] = {}
    for installation in _own_blenders(notes.__setitem__):
        found.setdefault(installation.label, installation)
    for label, suite in SUITES.items():
        if label in found:
            continue
        try:
            found[label] = _blender_in_root(label, suite)
        except NotAvailableError as error:
            notes[label] = f"Blender {label} in a window: {error}"
    return found, notes


def cache_folder() -> Path:
    """Where everything that is dear to make is kept between runs."""
    given = os.environ.get("BACKGROUND_DOWNLOADS_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "background-downloads"


# Blenders that are already installed.


def _own_blenders(note: Callable[[str, str], object]) -> list[Installation]:
    named = os.environ.get("BLENDER", "").split(os.pathsep)
    programs = [name for name in named if name] or [shutil.which("blender") or ""]
    found = []
    for program in filter(None, programs):
        try:
            found.append(_own_blender(program))
        except NotAvailableError as error:
            note(program, f"{program}: {error}")
    return found


@cache
def _own_blender(program: str) -> Installation:
    if not shutil.which("Xvfb"):
        raise NotAvailableError("needs Xvfb on the PATH to open its window in")
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        raise NotAvailableError("did not start") from None
    match = re.search(r"Blender (\d+)\.(\d+)", done.stdout)
    if not match:
        raise NotAvailableError("did not say its version")
    if (int(match[1]), int(match[2])) < OLDEST:
        raise NotAvailableError(f"is Blender {match[1]}.{match[2]}, too old for extensions")
    return Installation(label=f"{match[1]}.{match[2]}", program=program)


def _no_notes(_label: str, _sentence: str) -> None:
    pass


# Roots: small Debian systems.


def _blender_in_root(label: str, suite: str) -> Installation:
    if os.environ.get("BLENDER"):
        raise NotAvailableError("BLENDER= names other versions only")
    if not _is_debian() or os.geteuid() != 0:
        raise NotAvailableError("needs root on Debian or BLENDER=")
    root = _prepared_root(suite)
    version = _packaged_version(root)
    if version != label:
        raise NotAvailableError(f"Debian {suite} has {version or 'none'} by now")
    return Installation(label=label, program="/usr/bin/blender", root=root)


def _prepared_root(suite: str) -> Path:
    folder = cache_folder() / "roots"
    folder.mkdir(parents=True, exist_ok=True)
    root = folder / suite
    with _only_one(folder / f"{suite}.lock"):
        if not root.is_dir():
            _make_root(suite, root)
    return root


def _make_root(suite: str, root: Path) -> None:
    """Makes a root under a name of its own, renamed when whole: a half one is never used."""
    mirror = debian_mirror()
    _need_mmdebstrap()
    for leftover in root.parent.glob(f".{suite}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    half = Path(tempfile.mkdtemp(prefix=f".{suite}-", dir=root.parent))
    print(f"Making a Debian {suite} with Blender (1.4 GB) …", file=sys.stderr)
    try:
        _run(_mmdebstrap(suite, half, mirror), f"making a Debian {suite} failed")
        half.rename(root)
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _mmdebstrap(suite: str, target: Path, mirror: str) -> list[str]:
    packages = ",".join(PACKAGES + MORE_PACKAGES.get(suite, []))
    # Its mounts and processes end with it, and it ends with us, even when we are killed.
    return [
        *_die_with_parent(),
        *("unshare", "--mount", "--propagation", "private"),
        *("--pid", "--fork", "--kill-child", "--mount-proc"),
        *("mmdebstrap", "--variant=minbase", "--mode=root"),
        '--aptopt=Acquire::Check-Valid-Until "false"',
        f"--include={packages}",
        *(suite, str(target), mirror),
    ]


def _need_mmdebstrap() -> None:
    if shutil.which("mmdebstrap"):
        return
    why = "mmdebstrap is missing and could not be installed"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "update"], why, environment)
    _run(["apt-get", "install", "-y", "--no-install-recommends", "mmdebstrap"], why, environment)


def _run(command: list[str], why: str, environment: dict[str, str] | None = None) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    except OSError as error:
        raise NotAvailableError(f"{why}: {error}") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        errors = [line for line in lines if line.startswith("E:")] or lines[-1:]
        raise NotAvailableError(f"{why}: {errors[0]}")


def _packaged_version(root: Path) -> str | None:
    """The version of the Blender package in a root, without starting it."""
    try:
        status = (root / "var/lib/dpkg/status").read_text("utf-8", "replace")
    except OSError:
        return None
    match = re.search(r"^Package: blender\n(?:.+\n)*?Version: (\d+\.\d+)", status, re.M)
    return match[1] if match else None


# The machine's own Debian mirror.


def debian_mirror(sources: Path = Path("/etc/apt")) -> str:
    """The mirror that this machine's own packages come from."""
    files = [sources / "sources.list", *sorted(sources.glob("sources.list.d/*"))]
    addresses = [address for file in files for address in _addresses(file)]
    for address in addresses:
        # Security updates and foreign packages are no place for a whole Debian.
        if re.search(r"/debian/?$", address):
            return address
    raise NotAvailableError("no Debian mirror in this machine's apt sources")


def _addresses(file: Path) -> Iterator[str]:
    if not file.is_file() or file.suffix not in {".list", ".sources"}:
        return
    for line in file.read_text("utf-8", "replace").splitlines():
        one_line = re.match(r"\s*deb\s+(?:\[[^]]*\]\s*)?(\S+)\s", line)
        deb822 = re.match(r"URIs:\s*(.+)", line, re.I)
        if one_line and file.suffix == ".list":
            yield one_line[1]
        elif deb822 and file.suffix == ".sources":
            yield from deb822[1].split()


# Small helpers.


def _is_debian() -> bool:
    try:
        return platform.freedesktop_os_release().get("ID") == "debian"
    except OSError:
        return False


def _die_with_parent() -> list[str]:
    """A prefix so that a killed test run leaves no Blender behind, where there is one."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


def _outermost(folders: Iterable[Path]) -> list[Path]:
    """Without folders that lie in another one of them: those come with it."""
    resolved = sorted({folder.resolve() for folder in folders})
    return [f for f in resolved if not any(parent in resolved for parent in f.parents)]


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Two test runs at once must not make the same root twice."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Prepares all Blenders and says what there is."""
    found, notes = find()
    for label, installation in found.items():
        print(f"Blender {label}: {installation.program} in {installation.root or 'this machine'}")
    for sentence in notes.values():
        print(sentence)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
