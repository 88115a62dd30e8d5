"""What a test may leave behind: nothing. `LeakCheck` compares before and after.

    with LeakCheck():
        run_something()

Servers of the test are closed inside the block. What others close on threads of their own gets a
moment to settle; the check fails with a list of what is left.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
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


if sys.platform == "win32":
    from handles import children, describe, descriptors, freeze, kill, thaw, wait_gone
else:
    from descriptors import children, describe, descriptors, freeze, kill, thaw, wait_gone

__all__ = [
    "LeakCheck",
    "LeakError",
    "children",
    "describe",
    "descriptors",
    "freeze",
    "kill",
    "thaw",
    "threads",
    "wait_gone",
]


def _indented(lines: Iterable[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)
