"""One worker computes at a time, where the others would only take Python's lock from it.

A small file makes some thirty system calls. Python gives its lock away for each, and where another thread
wants it, having it back costs two switches of threads: 33 for a file with 16 workers, and half of all the
time. Who waits for the network, or reads and writes much, is in nobody's way.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from . import portable

BRIEF = 0.001  # seconds; after a wait as short as that the turn is kept in the next one
HEAD = 4096  # bytes of an answer in which the end of its head is looked for
PATIENCE = 0.02  # seconds until a worker goes on without it: whoever has it is held up
IDLE_PATIENCE = 0.25  # likewise for one that has no download yet


class Turn:
    """A worker's part in it, for its thread alone. Nothing but speed depends on it."""

    _lock = threading.Lock()  # one for all in this process, as Python's is

    def __init__(self) -> None:
        self._is_server_quick = self._is_disk_quick = True  # the last time
        self._was_mine, self._began = False, 0.0
        self.is_mine = False

    def take(self, patience: float = PATIENCE) -> None:
        """Wait until no other computes, or for some seconds."""
        if not self.is_mine:
            self.is_mine = self._lock.acquire(timeout=patience)

    def give(self) -> bool:
        """Let others compute, before what may last. Returns whether it was this worker's."""
        was_mine, self.is_mine = self.is_mine, False
        if was_mine:
            self._lock.release()
        return was_mine

    def __enter__(self) -> Self:
        """A server is asked, and it may be given meanwhile; afterwards it is this worker's again."""
        self._began, self._was_mine = time.monotonic(), self.is_mine
        return self

    def __exit__(self, *_: object) -> None:
        self._is_server_quick = time.monotonic() - self._began < BRIEF
        if self._was_mine:
            self.take()

    def expect(self, sock: socket.socket) -> bool:
        """An answer will come over this socket: others compute meanwhile. True: its head is there already."""
        is_there = self.is_mine and self._is_server_quick and _has_head(sock)
        if not is_there:
            self.give()
        return is_there

    @contextmanager
    def on_disk(self) -> Iterator[None]:
        """While a disk may have to be waited for. What follows needs no turn."""
        began = time.monotonic()
        if not self._is_disk_quick:
            self.give()
        try:
            yield
        finally:
            self._is_disk_quick = time.monotonic() - began < BRIEF


def _has_head(sock: socket.socket) -> bool:
    """Whether all of the head comes in a moment; False where that cannot be told."""
    try:
        came = sock.recv(HEAD, socket.MSG_PEEK) if portable.poll([sock.fileno()], [], BRIEF) else b""
    except (OSError, ValueError):  # it is broken; or it is TLS, where nobody can look ahead
        return False
    return b"\r\n\r\n" in came and came[9:10] != b"1"  # which others follow
