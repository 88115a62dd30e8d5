"""Bytes that go from a socket into a file unseen: the system moves them, and copies them once less.

A worker has a pipe beside its buffer, for what nobody has to unpack, to compare or to hash. What is in
it can still be read, where that shows too late. Linux only, see splice(2); elsewhere nothing fits in.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from . import portable

SIZE = 1 << 20  # bytes; what Linux gives anybody (pipe(7), "pipe-max-size")


class Pipe:
    """What one worker has received, until it is in the file. Its thread alone uses it."""

    def __init__(self) -> None:
        """Takes descriptors only with the first bytes."""
        self._ends: tuple[int, int] | None = None  # to read, to write
        self._count = 0
        self._is_refused = False  # by a file system that takes nothing in this way

    def __len__(self) -> int:
        """Bytes that are in it."""
        return self._count

    def fill(self, sock: socket.socket, most: int) -> int:
        """Take what has come over a socket, `most` bytes at most. Returns how many; 0: ask the socket why.

        Raises BlockingIOError: nothing has come.
        """
        if self._count:  # it is of no use to anybody
            self.close()
        if self._is_refused or not portable.splice:
            return 0
        try:
            _, end = self._ends = self._ends or portable.wide_pipe(SIZE)
            self._count = portable.splice(sock.fileno(), end, most, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            raise
        except OSError:
            return 0
        return self._count

    def pour(self, fd: int, offset: int) -> int:
        """Write it to a place of a file. Returns how many bytes; what is left then has to be read.

        Raises OSError.
        """
        assert self._ends
        began = self._count
        while self._count:
            try:
                at = offset + began - self._count
                self._count -= portable.splice(self._ends[0], fd, self._count, offset_dst=at)
            except OSError as error:
                if error.errno not in portable.NO_SPLICE:
                    raise
                self._is_refused = True
                break
        return began - self._count

    def read(self, buffer: memoryview) -> memoryview:
        """What is left in it, after which it is empty."""
        count = 0
        while self._ends and self._count:
            got = os.readv(self._ends[0], [buffer[count : count + self._count]])
            count, self._count = count + got, self._count - got
        return buffer[:count]

    def close(self) -> None:
        """Give its descriptors back, with whatever is in it."""
        ends, self._ends, self._count = self._ends or (), None, 0
        for end in ends:
            with suppress(OSError):
                os.close(end)
