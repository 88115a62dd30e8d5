"""What the tools share: where things are, how they speak, how they end. Standard library only."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tests" / "tools"
EXTENSION_ID = "background_downloads"

# Programs are wanted, not running servers: for systemd, and for what starts services without it.
NO_SERVICES = {"SYSTEMD_OFFLINE": "1", "RUNLEVEL": "1"}

INTERRUPTED = 128 + signal.SIGINT  # the exit code a shell gives to Ctrl-C


class Trouble(Exception):
    """Something a person has to know or mend, said in a sentence."""


def say(*words: object, sep: str = " ") -> None:
    print(*words, sep=sep, flush=True)


def main(tool: Callable[[], int]) -> None:
    """Run a tool: its exit code is ours, trouble is a sentence and never a stack trace."""
    # A shell's background job starts with SIGINT ignored; we want to end in good order there too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for ending in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):  # Windows has one
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    try:
        code = tool()
        sys.stdout.flush()
    except Trouble as trouble:
        sys.stdout.flush()
        print(trouble, file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left. Nothing is left to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def cache_folder() -> Path:
    """Where virtual environments and the like are kept between runs."""
    own = os.environ.get("BACKGROUND_DOWNLOADS_CACHE")
    everyones = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(own) if own else Path(everyones) / "background-downloads"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Trouble(f"The cache folder {folder} cannot be made: {error.strerror}.") from None
    return folder.resolve()


def clean_environment(**more: str) -> dict[str, str]:
    """Our environment without what would lead a Python of another folder astray."""
    astray = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    kept = {name: value for name, value in os.environ.items() if name not in astray}
    return kept | {"PYTHONNOUSERSITE": "1"} | more


def in_memory() -> dict[str, str]:
    """For the environment of what makes thousands of small files: where they cost no disk."""
    return {"TMPDIR": "/dev/shm"} if os.path.isdir("/dev/shm") else {}


def apt_install(*packages: str) -> None:
    """Install Debian packages where we may, else say which are missing."""
    command = "apt-get install " + " ".join(packages)
    if not shutil.which("apt-get"):
        raise Trouble(f"Missing on this system; on Debian this would bring it: {command}")
    if os.geteuid() != 0:
        raise Trouble(f"Missing on this system; please run as root: {command}")
    say(f"Installing {', '.join(packages)} …")
    # The lists may be missing or old: try with what is there, then with new ones.
    if not _apt("install", *packages) and not (_apt("update") and _apt("install", *packages)):
        raise Trouble(f"'{command}' failed; is the network there? Please run it by hand.")


def _apt(action: str, *packages: str) -> bool:
    options = ["-y", "-q", "--no-install-recommends"] if action == "install" else ["-q"]
    return not subprocess.run(
        ["apt-get", action, *options, *packages],
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"} | NO_SERVICES,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ).returncode


def apt_ensure(packages_by_command: dict[str, str]) -> None:
    """Install the packages of those commands that are not on the PATH."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    missing = [
        package for command, package in packages_by_command.items() if not shutil.which(command, path=path)
    ]
    if missing:
        apt_install(*missing)
