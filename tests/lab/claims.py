"""What docs/threads-in-blender.md claims, each with the experiment that would show it to be false.

An experiment runs with a cure and without it. A claim holds where the cure shows no fault, and taking
it away shows the fault: so an experiment that sees nothing fails.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import in_window
from blender import Blender
from roots import Installation
from server import Generated, Server

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SIZE = (800, 600)  # pixels
DEADLINE = 120.0  # seconds until an experiment hangs for sure
CRASHED = "crashed"


@dataclass(frozen=True, kw_only=True)
class Lab:
    """What there is to experiment with."""

    modules: Mapping[str, Path]
    """Pythons with Blender as a module, by Blender's version."""
    windows: Mapping[str, Installation]
    seconds: float
    """How long to wait for what comes by chance."""


Try = Callable[[bool], str]
"""An experiment: with its cure, or without, what happened."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the page, and how to see whether it is true."""

    name: str
    text: str
    cure: str
    """What is taken away."""
    tries: Callable[[Lab, Claim], Iterator[tuple[str, Try]]]
    """Where it can be tried, and how."""
    sound: str
    """A regular expression of what happens with the cure."""
    fault: str
    """And without it."""

    def holds(self, cured: list[str], uncured: list[str]) -> bool:
        """Whether all that happened is what the claim says."""
        return all(re.search(self.sound, words) for words in cured) and all(
            re.search(self.fault, words) for words in uncured
        )


# -- Where.


def in_modules(lab: Lab, claim: Claim) -> Iterator[tuple[str, Try]]:
    """In Blender as a module, of each version."""
    for version, python in lab.modules.items():
        words = [python, HERE / "in_module.py", claim.name, lab.seconds]
        yield f"{version} (module)", lambda cured, w=words: run(w if cured else [*w, "WITHOUT"])


def in_windows(lab: Lab, claim: Claim) -> Iterator[tuple[str, Try]]:
    """In Blender's window, of each version."""
    for version, installation in lab.windows.items():
        yield f"{version} (window)", lambda cured, i=installation: _in_window(i, claim.name, cured)


def with_a_library(lab: Lab, claim: Claim) -> Iterator[tuple[str, Try]]:
    """The crash of docs/upstream, with the mend put before Blender's own function; or without."""
    python = lab.modules.get("4.5")
    if not python or not shutil.which("cc"):
        return
    folder = Path(tempfile.mkdtemp(prefix="lab-"))
    library = folder / "gil_check.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, HERE / "gil_check.c", "-ldl"], check=True)
    try:
        yield "4.5 (module)", lambda cured: _crash(python, LD_PRELOAD=str(library) if cured else "")
    finally:
        shutil.rmtree(folder)


def with_newer_python(lab: Lab, claim: Claim) -> Iterator[tuple[str, Try]]:
    """The same in a Blender with a newer Python; or in one with Python 3.11."""
    script = HERE / "in_module.py"
    if {"4.5", "5.2"} <= set(lab.modules):
        yield (
            "5.2, 4.5 (modules)",
            lambda cured: run([lab.modules["5.2" if cured else "4.5"], script, claim.name, lab.seconds]),
        )


def _crash(python: Path, **environment: str) -> str:
    return run([python, ROOT / "docs" / "upstream" / "crash.py"], **environment)


def run(command: list[object], **environment: str) -> str:
    """What a script said last, or that it crashed."""
    with tempfile.TemporaryDirectory(prefix="lab-") as folder, Server() as server:
        url = server.add("/file.bin", body=Generated(64 << 20))
        own = {"LAB_URL": url, "TMPDIR": folder, "BLENDER_USER_RESOURCES": folder, "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            [str(word) for word in command],
            env={**os.environ, **own, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE,
        )
    if done.returncode < 0:
        return CRASHED
    assert done.returncode == 0, done.stdout
    return done.stdout.strip().splitlines()[-1]


def _in_window(installation: Installation, name: str, cured: bool) -> str:
    with (
        tempfile.TemporaryDirectory(prefix="lab-") as folder,
        Blender(installation, Path(folder), online=False, size=SIZE) as b,
    ):
        return str(getattr(in_window, name)(b, cured))


# -- The claims, in the order of the page.

CLAIMS = [
    Claim(
        name="example",
        text="The manual's supported example fetches its last link three times: its lambda takes `url` "
        "when the loop is over",
        cure="args=(url,)",
        tries=in_modules,
        sound="^3 of 3",
        fault="^1 of 3",
    ),
    Claim(
        name="joined",
        text="Threads may even write bpy while the script that started them waits for them; "
        "not while it goes on",
        cure="the script waits",
        tries=in_modules,
        sound="lived",
        fault=CRASHED,
    ),
    Claim(
        name="timer",
        text="A threading.Timer that arms itself again and works in Blender crashes it; bpy.app.timers "
        "does the same work safely",
        cure="bpy.app.timers",
        tries=in_windows,
        sound="lived, and the quit ends with 0",
        fault=CRASHED,
    ),
    Claim(
        name="library",
        text="Below Python 3.12 threads crash Blender though they never touch bpy: its context look-up "
        "reads Python's thread state without the GIL",
        cure="PyThreadState_GetDict answers NULL unless PyGILState_Check()",
        tries=with_a_library,
        sound="lived",
        fault=CRASHED,
    ),
    Claim(
        name="rearming",
        text="So does the manual's unsupported Timer, which only prints; from Python 3.12 on (Blender 5.1) "
        "neither does",
        cure="the newer Python",
        tries=with_newer_python,
        sound="lived",
        fault=CRASHED,
    ),
    Claim(
        name="cycles",
        text="Cycles renders scripted drivers while threads download; what crashes is writing bpy",
        cure="the threads do not touch bpy",
        tries=in_modules,
        sound="lived",
        fault=CRASHED,
    ),
    Claim(
        name="cost",
        text="What slows a scene with scripted drivers down is holding the GIL: threads that download at "
        "a line's pace cost it little, threads that compute cost it tens of times",
        cure="the threads wait for bytes, and do not compute",
        tries=in_modules,
        sound=r"^[0-4]\.\d times",
        fault=r"^([5-9]|\d\d+)\.\d times",
    ),
    Claim(
        name="autosave",
        text="While a modal operator runs Blender does not autosave; it does as soon as that ends",
        cure="no modal operator runs",
        tries=in_windows,
        sound="^autosaved",
        fault="^not autosaved",
    ),
    Claim(
        name="reload",
        text="While a modal operator runs Blender does not reload scripts",
        cure="no modal operator runs",
        tries=in_windows,
        sound="^reloaded",
        fault="^refused",
    ),
    Claim(
        name="freed",
        text="A file load tells a modal operator by cancel(); unregistering its class frees it without "
        "a word",
        cure="a file load",
        tries=in_windows,
        sound="^cancel",
        fault="nothing is called",
    ),
    Claim(
        name="quit",
        text="A thread that is no daemon and does not end keeps Blender from quitting",
        cure="a daemon thread",
        tries=in_windows,
        sound="^ends with 0",
        fault="^still there",
    ),
    Claim(
        name="queue",
        text="multiprocessing.Queue starts a thread in Blender; a pipe does not",
        cure="a pipe",
        tries=in_modules,
        sound="no thread",
        fault="a thread",
    ),
]
