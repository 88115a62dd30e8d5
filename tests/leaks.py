"""What a test may leave behind: nothing. `LeakCheck` compares before and after.

    with LeakCheck():
        run_something()

Servers of the test are closed inside the block. What others close on threads of their own gets a
moment to settle; the check fails with a list of what is left.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

SETTLE = 2.0  # seconds
THREAD_PREFIXES = ("downloads-", "server-")


class LeakError(AssertionError):
    """Something was left behind."""


class LeakCheck:
    """No thread of ours, no child process, no open file or socket more than before."""

    def __init__(self, *, settle: float = SETTLE, allow: Callable[[str], bool] = lambda _: False) -> None:
        self._settle = settle
        self._allow = allow
        """Descriptors that may stay, by what they lead to."""

    def __enter__(self) -> Self:
        # A thread of downloads that is already there is a leak of somebody else: say so at once.
        early = threads(("downloads-",))
        if early:
            raise LeakError("there before the test began:\n" + _indented(early))
        self._servers = set(threads(("server-",)))
        self._children = set(children())
        self._descriptors = descriptors()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        left = self.settled()
        if left and error is None:
            raise LeakError("left behind:\n" + _indented(left))
        if left and error is not None:
            error.add_note("and left behind:\n" + _indented(left))

    def settled(self) -> list[str]:
        """What is left after at most `settle` seconds."""
        deadline = time.monotonic() + self._settle
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(0.005)
        return left

    def left(self) -> list[str]:
        """What is there now and was not before, in words."""
        found = [f"thread {name}" for name in threads() if name not in self._servers]
        found += [f"child {describe(pid)}" for pid in children() if pid not in self._children]
        now = descriptors()
        for number, target in sorted(now.items()):
            if self._descriptors.get(number) != target and not self._allow(target):
                found.append(f"descriptor {number} -> {target}")
        return found


def threads(prefixes: Iterable[str] = THREAD_PREFIXES) -> list[str]:
    """Names of the living threads of ours."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(tuple(prefixes))]


def children() -> list[int]:
    """Children of this process, of every thread of it; one that nobody waited for counts too."""
    if not Path("/proc/self/task", str(os.getpid()), "children").exists():
        return _children_by_scan()
    found: list[int] = []
    for task in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread may have ended meanwhile
            found += map(int, task.read_text().split())
    return found


def _children_by_scan() -> list[int]:
    """For kernels without CONFIG_PROC_CHILDREN."""
    processes = Path("/proc").glob("[0-9]*/stat")
    return [int(stat.parent.name) for stat in processes if _parent(stat) == os.getpid()]


def _parent(stat: Path) -> int:
    try:
        # The name of the program stands in brackets and may hold anything, brackets too.
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def describe(pid: int) -> str:
    """A process in words."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return f"{pid} (gone meanwhile)"
    return f"{pid} ({'not waited for' if state == 'Z' else command.strip()})"


def descriptors() -> dict[int, str]:
    """Open descriptors of this process and what each leads to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        # The descriptor with which the folder was listed is closed again: its link cannot be read.
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def _indented(lines: Iterable[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)
