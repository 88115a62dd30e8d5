"""What Linux tells of this process, its children and what it has open, and what it does to others."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path


def children(pid: int | None = None) -> list[int]:
    """Children of a process (this one), of every thread of it; one that nobody waited for counts too."""
    pid = pid or os.getpid()
    if not Path("/proc/self/task", str(os.getpid()), "children").exists():
        return _children_by_scan(pid)
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread may have ended meanwhile
            found += map(int, task.read_text().split())
    return found


def _children_by_scan(pid: int) -> list[int]:
    """For kernels without CONFIG_PROC_CHILDREN."""
    processes = Path("/proc").glob("[0-9]*/stat")
    return [int(stat.parent.name) for stat in processes if _parent(stat) == pid]


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


def kill(pid: int) -> None:
    """End a process at once; it does nothing more."""
    os.kill(pid, signal.SIGKILL)


def freeze(pid: int) -> None:
    """Have a process do nothing until it is thawed."""
    os.kill(pid, signal.SIGSTOP)


def thaw(pid: int) -> None:
    """Have it go on."""
    os.kill(pid, signal.SIGCONT)


def wait_gone(pid: int, seconds: float) -> bool:
    """Whether a process, which need not be a child of ours, has ended by then."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    ready = poll.poll(seconds * 1000)
    os.close(watch)
    return bool(ready)
