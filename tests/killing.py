"""Kills processes that download, at random moments, and looks at what they leave.

A round is a folder and a list of files. A process of `killed.py` begins to download them and is killed;
the next one goes on from the list and is killed too; the last one lives, and then every digest must
hold and nothing else may be left. What is seen after each kill: nothing damaged under a final name; every
other file belongs to a download that the list knows; what a sidecar vouches for is there, and little more
than a checkpoint is not vouched for (P11 of the design); no child outlives its parent.

Seed and number of a round choose files, hosts and moments. A moment is a time, so the same seed makes
the same plan, and what it meets differs a little: try it more than once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Protocol

from leaks import children, kill, wait_gone
from server import Generated, Server, drip

ROOT = Path(__file__).resolve().parents[1]
KILLED = Path(__file__).with_name("killed.py")
EXTENSION_ID = "background_downloads"
INSTALLED = f"bl_ext.user_default.{EXTENSION_ID}"

DEADLINE = 120.0  # seconds for a life that nobody ends
CHILD_LEAVES = 5.0  # seconds after its parent's death
CHILD_STARTS = 20.0  # for one that its parent was just making, where it sees that by itself: not on Windows
BUFFER = 1 << 20  # bytes that a worker has read and not yet recorded, at most
OVERLAP = 64 << 10  # bytes that a resume fetches again
BLOCK = 16 << 10  # bytes of a partial file that are compared at once
CONNECTIONS = 6
KILLS_A_ROUND = 12
BEFORE_READY = 0.15  # share of the kills that come while it starts


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How much may be lost. `quick` has the extension save earlier, so that kills need not be far apart."""

    checkpoint_bytes: int
    checkpoint_seconds: float
    most_unsaved: int
    """Bytes, less what the workers have in their hands."""
    large: int
    """Bytes of the largest files."""
    life: float
    """Seconds, about, that a process may live."""
    step: tuple[int, float]
    """Bytes, and seconds after each so many, that the server sends."""


REAL = Pace(
    checkpoint_bytes=40 << 20,
    checkpoint_seconds=5.0,
    most_unsaved=48 << 20,
    large=160 << 20,
    life=7.0,
    step=(1 << 20, 0.02),
)
QUICK = Pace(
    checkpoint_bytes=1 << 20,
    checkpoint_seconds=0.4,
    most_unsaved=3 << 19,
    large=12 << 20,
    life=1.0,
    step=(128 << 10, 0.02),
)
TINY = Pace(
    checkpoint_bytes=256 << 10,
    checkpoint_seconds=0.2,
    most_unsaved=384 << 10,
    large=3 << 20,
    life=0.5,
    step=(64 << 10, 0.01),
)


def quicken(package: Path, pace: Pace) -> None:
    """Change when an extension that lies somewhere saves what it received."""
    path = package / "transfer" / "part.py"
    text = path.read_text("utf-8")
    for name in ("checkpoint_bytes", "checkpoint_seconds", "most_unsaved"):
        line = f"{name.upper()} = "
        text, count = re.subn(rf"(?m)^{line}[^#\n]*", f"{line}{getattr(pace, name)}  ", text)
        assert count == 1
    path.write_text(text, "utf-8")


@dataclass(frozen=True, kw_only=True)
class Home:
    """Where a process finds the extension, and keeps its list."""

    python: Path
    folder: Path
    has_blender: bool
    pace: Pace

    @property
    def user_folder(self) -> Path:
        """The extension's own."""
        if self.has_blender:
            return self.folder / "extensions" / ".user" / "user_default" / EXTENSION_ID
        return self.folder / "user"

    def for_round(self, folder: Path) -> Home:
        """One of a round's own."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Home(python=self.python, folder=folder, has_blender=self.has_blender, pace=self.pace)

    def start(self, **order: Any) -> Life:
        """A process that obeys this order."""
        order |= {"package": INSTALLED if self.has_blender else EXTENSION_ID}
        order |= {"root": "" if self.has_blender else str(self.folder / "code")}
        order |= {"user_folder": str(self.user_folder)}
        return Started([str(self.python), str(KILLED), json.dumps(order)], self.environment)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"BLENDER_USER_RESOURCES": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}


class Life(Protocol):
    """A process."""

    pid: int
    output: Lines

    def end(self) -> None:
        """Kill it, and wait until it is gone."""


class Lines:
    """What a process says, line by line, for somebody who does not wait for ever."""

    def __init__(self, output: IO[str]) -> None:
        self._output = output
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, name="server-lines", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._output:
            self._lines.put(line)
        self._lines.put("")

    def next(self, seconds: float) -> str | None:
        """The next line; an empty one at the end, None where none comes in time."""
        try:
            return self._lines.get(timeout=seconds)
        except queue.Empty:
            return None

    def close(self) -> list[str]:
        """What it said and nobody has heard. The process has ended."""
        self._reader.join()
        self._output.close()
        return [line for line in list(self._lines.queue) if line]


class Started:
    """One with a start of its own."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        assert self._process.stdout
        self.pid, self.output = self._process.pid, Lines(self._process.stdout)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


class Forked:
    """One that was forked from a Blender that had started before."""

    def __init__(self, pid: int, output: IO[str]) -> None:
        self.pid, self.output = pid, Lines(output)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            kill(self.pid)
        _wait_gone([self.pid])


class ForkingHome(Home):
    """Its processes are forked from one Blender, so there is only one profile; each round finds it empty."""

    def for_round(self, folder: Path) -> Home:
        folder.mkdir()
        shutil.rmtree(self.user_folder, ignore_errors=True)
        return self

    def start(self, **order: Any) -> Life:
        origin = _origin(self)
        pipe = self.folder / "output"
        pipe.unlink(missing_ok=True)
        os.mkfifo(pipe)
        order |= {"package": INSTALLED, "output": str(pipe)}
        assert origin.stdin
        assert origin.stdout
        origin.stdin.write(json.dumps(order) + "\n")
        origin.stdin.flush()
        pid = int(origin.stdout.readline())
        return Forked(pid, pipe.open())


_origins: dict[Path, subprocess.Popen[str]] = {}


def _origin(home: Home) -> subprocess.Popen[str]:
    if home.folder not in _origins:
        command = [str(home.python), str(KILLED), json.dumps({"package": INSTALLED})]
        origin = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=home.environment
        )
        _origins[home.folder] = origin
        assert origin.stdout
        while line := origin.stdout.readline():
            if line == "ready\n":
                return origin
        raise DamageError("Blender did not start")
    return _origins[home.folder]


def home_without_blender(folder: Path, python: Path, pace: Pace) -> Home:
    """A copy of the code, and a folder for the list."""
    (folder / "user").mkdir(parents=True)
    code = folder / "code"
    code.mkdir()
    for path in ROOT.glob("*.py"):
        shutil.copy(path, code)
    for name in ("transfer", "hosts", "session"):
        shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    quicken(code, pace)
    return Home(python=python, folder=folder, has_blender=False, pace=pace)


def home_with_blender(
    folder: Path, python: Path, zip_file: Path, pace: Pace, kind: type[Home] = Home
) -> Home:
    """A profile with the extension in it, by Blender's own installer."""
    folder.mkdir(parents=True)
    home = kind(python=python, folder=folder, has_blender=True, pace=pace)
    script = (
        "import bpy, sys; bpy.context.preferences.system.use_online_access = True;"
        "bpy.ops.extensions.package_install_files(repo='user_default', filepath=sys.argv[1],"
        " enable_on_install=False)"
    )
    subprocess.run([str(python), "-c", script, str(zip_file)], check=True, env=home.environment)
    quicken(folder / "extensions" / "user_default" / EXTENSION_ID, pace)
    return home


# -- What is downloaded.


@dataclass(kw_only=True)
class Item:
    """One file."""

    name: str
    body: Generated
    url: str
    link: str
    has_ranges: bool
    part: str = ""
    """What its partial file is called."""

    def content(self) -> bytes:
        return self.body.read(0, self.body.size)


def items(server: Server, rng: random.Random, pace: Pace, number: int) -> list[Item]:
    """A mix of small and large, of servers that take ranges and that do not, with digests and without."""
    sizes = [rng.randint(0, 100_000) for _ in range(5)]
    sizes += [rng.randint(200_000, pace.large // 8) for _ in range(3)]
    sizes += [rng.randint(pace.large // 2, pace.large) for _ in range(2)]
    return [_item(server, rng, pace, f"{number}-{i}.bin", size) for i, size in enumerate(sizes)]


def _item(server: Server, rng: random.Random, pace: Pace, name: str, size: int) -> Item:
    body = Generated(size, rng.randrange(1000))
    has_ranges = size > pace.large // 8 or rng.random() < 0.7
    options = {} if has_ranges else {"ranges": False}
    url = server.add("/" + name, drip(*pace.step), body=body, **options)
    link = f"{url}#sha256={body.digest()}" if rng.random() < 0.4 else url
    return Item(name=name, body=body, url=url, link=link, has_ranges=has_ranges)


# -- A round.


class DamageError(AssertionError):
    """What must not be was found."""


@dataclass(kw_only=True)
class Found:
    """What was seen."""

    kills: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    files: int = 0
    partial: int = 0
    """Partial files that were looked at after a kill,"""
    segmented: int = 0
    """of which so many had gaps."""
    most_lost: int = 0
    """Bytes of one file that were on the disk and not vouched for, at most."""
    twice: int = 0
    """Files that were downloaded again: given their name, and not out of the list yet when the kill came."""
    slowest: float = 0
    """Seconds that a child lived on after its parent, at most."""
    damage: str = ""
    """What must not be."""
    bytes: int = 0
    sent: int = 0

    @classmethod
    def load(cls, path: Path) -> Found:
        """What a process before this one has seen and saved."""
        if not path.exists():
            return cls()
        told = json.loads(path.read_text("utf-8"))
        return cls(**told | {"kills": Counter(told["kills"])})

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(vars(self)), "utf-8")

    def text(self) -> str:
        kills = ", ".join(f"{count} {what}" for what, count in sorted(self.kills.items()))
        return (
            f"{sum(self.kills.values())} kills ({kills}) in {self.rounds} rounds of {self.files} files:"
            f" all digests hold, nothing is left over. {self.partial} partial files were looked at,"
            f" {self.segmented} with gaps; at most {self.most_lost / 2**20:.1f} MiB of one were not vouched"
            f" for. {self.sent / 2**20:.0f} MiB were sent for {self.bytes / 2**20:.0f} MiB;"
            f" {self.twice} files were downloaded twice, having been finished just before the kill;"
            f" the last child was gone {self.slowest:.1f} s after its parent"
        )


class Round:
    """A folder, a list, processes that are killed one after the other, and one that lives."""

    def __init__(
        self, home: Home, server: Server, rng: random.Random, folder: Path, *, number: int, found: Found
    ) -> None:
        self.home, self.server, self.rng, self.found = home, server, rng, found
        self.folder = folder
        self.folder.mkdir(parents=True)
        self.log: list[str] = []
        self.items = items(server, rng, home.pace, number)
        for item in self.items:
            item.part = part_name(item.url, str(folder))
        self.host = ("ThreadHost", "ProcessHost")[number % 2]
        self._is_listed = False
        self.losses = 0

    def run(self, kills: int) -> None:
        """So many kills, then a life to the end."""
        host = self.host
        while kills > 0:
            links = self._links()
            with self._life(host, links) as life:
                kills -= self._kill(life, host, kills)
            self.look()
        links = self._links()
        with self._life(host, links) as life:
            self._read_until(life, "done", DEADLINE)
        self.look_at_the_end()

    def _links(self) -> list[str]:
        """What the list never had is asked for again, as a person would."""
        finished = set() if self._is_listed else self._check_names()
        return [] if self._is_listed else [item.link for item in self.items if item.name not in finished]

    # -- Lives.

    @contextlib.contextmanager
    def _life(self, host: str, links: list[str]) -> Iterator[Life]:
        settings = {"timeout": 20.0, "connections": CONNECTIONS, "split_seconds": 0.3, "first_delay": 0.05}
        life = self.home.start(host=host, links=links, directory=str(self.folder), settings=settings)
        try:
            yield life
        finally:
            started = children(life.pid)
            life.end()
            self._sleep(life, 0.2)  # what it said last
            self._wait_orphans(started)
            self.log += [f"  {line.rstrip()}" for line in life.output.close()]

    def _wait_orphans(self, pids: list[int]) -> None:
        began = time.monotonic()
        _wait_gone([pid for pid in pids if f"  child {pid}" in self.log])
        _wait_gone(pids, CHILD_STARTS)
        if pids:
            self.found.slowest = max(self.found.slowest, time.monotonic() - began)

    def _kill(self, life: Life, host: str, most: int) -> int:
        """Kill the process, and perhaps its child before; returns how many kills that were."""
        count = 0
        if self.rng.random() < BEFORE_READY:
            self._sleep(life, self.rng.uniform(0.0, 2.0 if self.home.has_blender else 0.3))
        else:
            self._read_until(life, "ready", DEADLINE)
            if host == "ProcessHost" and most > 1 and self.rng.random() < 0.6:
                count += self._kill_child(life)
            self._sleep(life, self.rng.uniform(0.0, self.home.pace.life))
        self._note_list()
        self.found.kills[self._what(host)] += 1
        self.log.append("killed")
        self.losses += 1
        return count + 1

    def _what(self, host: str) -> str:
        where = "Blender" if self.home.has_blender else "Python"
        return f"{where} with threads" if host == "ThreadHost" else f"{where} with a child"

    def _kill_child(self, life: Life) -> int:
        self._sleep(life, self.rng.uniform(0.1, self.home.pace.life))
        started = children(life.pid)
        for child in started:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it had ended
                kill(child)
            self.log.append("killed the child")
            self.found.kills["the child alone"] += 1
        _wait_gone(started)
        self.losses += len(started)
        return len(started)

    def _sleep(self, life: Life, seconds: float) -> None:
        """Until then, or until it has ended; read what it says."""
        self._read_until(life, None, seconds)

    def _read_until(self, life: Life, word: str | None, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            line = life.output.next(left)
            if not line:
                break
            self.log.append(f"  {line.rstrip()}")
            if line.startswith("twice"):
                raise DamageError("a download is in the list twice")
            if word and line.startswith(word):
                return
        if word:
            raise DamageError(f"it never said “{word}”")

    # -- Looking.

    def _note_list(self) -> None:
        """Once all rows are on the disk, none may get lost."""
        self._is_listed = self._is_listed or len(self._listed()) == len(self.items)

    def _listed(self) -> set[str]:
        """The links in the lists on the disk, which must be readable at any moment."""
        found: set[str] = set()
        for path in self.home.user_folder.glob("queue-*.json"):
            with contextlib.suppress(FileNotFoundError):
                lines = path.read_text("utf-8").splitlines()
                found |= {json.loads(line)["url"] for line in lines[1:]}
        return found

    def look(self) -> None:
        """After a kill."""
        self._note_list()
        finished = self._check_names()
        listed = self._listed()
        for item in self.items:
            if self._is_listed and item.name not in finished and item.url not in listed:
                raise DamageError(f"{item.name} is not finished, and not in the list any more")
            self._look_at_part(item)

    def _check_names(self) -> set[str]:
        """Nothing damaged under a final name, nothing that is not known. Returns what is finished."""
        finished = set()
        parts = {item.part + end for item in self.items for end in ("", ".json", ".json~")}
        for path in self.folder.iterdir():
            if path.name in parts:
                continue
            item = self._item_of(path.name)
            if not item:
                raise DamageError(f"nobody knows {path.name}")
            if path.read_bytes() != item.content():
                raise DamageError(f"{path.name} is damaged")
            finished.add(item.name)
        return finished

    def _item_of(self, name: str) -> Item | None:
        plain = re.sub(r" \(\d+\)(?=\.bin$)", "", name)
        return next((item for item in self.items if item.name == plain), None)

    def _look_at_part(self, item: Item) -> None:
        part, sidecar = self.folder / item.part, self.folder / (item.part + ".json")
        if not part.exists() or not item.has_ranges:
            return
        ranges = json.loads(sidecar.read_bytes())["ranges"] if sidecar.exists() else []
        content, wanted = part.read_bytes(), item.content()
        for start, end in ranges:
            if content[start:end] != wanted[start:end]:
                raise DamageError(f"the sidecar of {item.name} vouches for {start}-{end}, which is not there")
        there = _same(content, wanted)
        lost = there - sum(end - start for start, end in ranges)
        self.found.partial += 1
        self.found.segmented += len(ranges) > 1
        self.found.most_lost = max(self.found.most_lost, lost)
        if lost > self.allowance:
            raise DamageError(f"{lost} bytes of {item.name} are there, and not vouched for")

    @property
    def allowance(self) -> int:
        """Bytes that may be lost of one file; at the real pace less than 64 MiB."""
        return self.home.pace.most_unsaved + CONNECTIONS * BUFFER

    def look_at_the_end(self) -> None:
        self.look()
        finished = self._check_names()
        left = sorted(path.name for path in self.folder.iterdir())
        if missing := [item.name for item in self.items if item.name not in finished]:
            raise DamageError(f"{missing} were not downloaded")
        if partial := [name for name in left if ".part" in name]:
            raise DamageError(f"{partial} are left over")
        if listed := self._listed():
            raise DamageError(f"{listed} are still in the list")
        if half := [path.name for path in self.home.user_folder.glob("*~")]:
            raise DamageError(f"{half} are left over beside the list")
        if noted := [path.name for path in self.home.user_folder.glob("*.done")]:
            raise DamageError(f"{noted} are left over beside the list")
        twice = Counter(item.name for name in left if (item := self._item_of(name)))
        if twice.total() - len(self.items) > self.losses:  # a moment of some microseconds is left
            raise DamageError(f"{twice} were downloaded again")
        for item in self.items:
            self._count(item, twice[item.name])
        self.found.rounds += 1
        self.found.files += len(self.items)

    def _count(self, item: Item, copies: int) -> None:
        sent = self.server.body_sent("/" + item.name)
        self.found.sent += sent
        self.found.bytes += item.body.size
        self.found.twice += copies - 1
        again = self.allowance + CONNECTIONS * OVERLAP + (4 << 20)  # sent, and in no process yet
        lives = self.losses + 1  # the last one may split too, and leave what it has not read
        if item.has_ranges and sent > copies * item.body.size + lives * again:
            raise DamageError(f"{sent} bytes were sent of {item.name}, which has {item.body.size}")


def part_name(url: str, directory: str) -> str:
    """What the partial file of one of our links is called."""
    place = os.path.normcase(os.path.normpath(directory))
    mark = hashlib.sha256(f"{url}\0{place}".encode()).hexdigest()[:8]
    return f"{url.rpartition('/')[2]}.{mark}.part"


def _same(content: bytes, wanted: bytes) -> int:
    """How many bytes are as they should be, in whole blocks."""
    starts = range(0, min(len(content), len(wanted)), BLOCK)
    return sum(
        min(BLOCK, len(content) - at) for at in starts if content[at : at + BLOCK] == wanted[at : at + BLOCK]
    )


def _wait_gone(pids: list[int], seconds: float = CHILD_LEAVES) -> None:
    end = time.monotonic() + seconds
    if alive := [pid for pid in pids if not wait_gone(pid, max(0.0, end - time.monotonic()))]:
        raise DamageError(f"a child lives on: {alive}")


# -- Many rounds.


def kill_often(
    homes: list[Home],
    folder: Path,
    *,
    kills: int,
    seed: int,
    found: Found | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Found:
    """Kill so many times. Raises DamageError with the seed and what the processes said."""
    found = found or Found()
    number = seed
    while (done := sum(found.kills.values())) < kills:
        rng = random.Random(number)
        home = homes[number // 2 % len(homes)].for_round(folder / f"home-{number}")  # each with both hosts
        with Server() as server:
            playing = Round(home, server, rng, folder / f"files-{number}", number=number, found=found)
            try:
                playing.run(min(KILLS_A_ROUND, kills - done))
            except BaseException as error:
                error.add_note("\n".join([f"SEED={number}, {home.python}", *playing.log]))
                raise
        tell(f"seed {number}: {sum(found.kills.values())} kills so far")
        for path in (folder / f"home-{number}", folder / f"files-{number}"):
            shutil.rmtree(path)
        number += 1
    return found


def _tell(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    """One argument, JSON: `blenders` (Pythons that have bpy), `zip`, `folder`, `kills`, `seed`, `found`.

    The last is a file with what was seen before, whose kills count: what was seen is added to it.
    """
    order = json.loads(sys.argv[1])
    folder, zip_file = (Path(order[name]).resolve() for name in ("folder", "zip"))
    kinds = [("own", Home, QUICK)]
    if sys.platform == "win32":  # nothing forks, and a Blender takes seconds to start
        kinds = [("own", Home, replace(QUICK, life=3.0))]
    else:
        kinds += [*((name, ForkingHome, QUICK) for name in "abc"), ("real", ForkingHome, REAL)]
    homes = [
        home_with_blender(folder / f"profile-{number}-{name}", Path(python).absolute(), zip_file, pace, kind)
        for name, kind, pace in kinds
        for number, python in enumerate(order["blenders"])
    ]
    found = Found.load(Path(order["found"]))
    try:
        kill_often(homes, folder, kills=order["kills"], seed=order["seed"], found=found, tell=_tell)
    except BaseException as error:
        found.damage = repr(error)
        raise
    finally:
        found.save(Path(order["found"]))
        for origin in _origins.values():
            origin.kill()
            origin.wait()


if __name__ == "__main__":
    main()
