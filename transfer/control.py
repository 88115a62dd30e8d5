"""How the outside reaches a running transfer: asked to stop, or ended by its supervisor.

A worker waits in one of two ways. While libraries own the socket (TLS handshake, headers) it
blocks in them, and a duplicate of the socket is shut down to free it. Everywhere else (connecting,
the body, backoff) it waits here, for what it wants or for a byte from its `Waker`, so that being
asked costs no connection.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from . import portable
from .job import LateError, Phase, Stopped
from .turns import Turn

STALLED = "The server stopped sending"
LATE = "The server did not answer in time"
SLOW = "A slow server? Raise the time-out in the System preferences"


class CalledBack(Exception):
    """Others go on with the transfer, and another download needs this worker."""


class Waker:
    """A socket pair that ends a wait. One for each worker; socket pairs, since Windows selects only those."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self.was_woken = False
        """Whether it was since the last `drain`."""

    def fileno(self) -> int:
        """The descriptor that becomes readable."""
        return self._reader.fileno()

    def wake(self) -> None:
        """End the wait under way, or the next one. Any thread."""
        self.was_woken = True
        with suppress(OSError):  # a full pipe wakes as well, and after close nobody waits
            self._writer.send(b"\0")

    def drain(self) -> None:
        """Forget the wakes so far. The waiting thread."""
        self.was_woken = False
        with suppress(BlockingIOError):
            while self._reader.recv(1024):
                pass

    def close(self) -> None:
        """Release both descriptors."""
        self._reader.close()
        self._writer.close()


class Wire:
    """A duplicate of a connection's socket: shutting it down frees whoever blocks in the original."""

    def __init__(self, sock: socket.socket) -> None:
        self._lock = threading.Lock()  # close() gives the number back: never shut down someone else's
        self._sock = sock.dup()

    def shutdown(self) -> None:
        """End the connection for both sides. Any thread."""
        with self._lock:
            if self._sock.fileno() >= 0:
                portable.interrupt(self._sock)

    def close(self) -> None:
        """Release the duplicate; the connection itself stays."""
        with self._lock:
            self._sock.close()


class Control:
    """One run of one transfer, seen from both sides. A run never reuses another's."""

    def __init__(self, waker: Waker, turn: Turn | None = None) -> None:
        self.turn = turn or Turn()
        """Of the worker."""
        self.phase = Phase.IDLE
        self.moved = time.monotonic()
        """When something last moved, in seconds of `time.monotonic`."""
        self.asked = False
        """Whether `check` would raise; cheap to read for each chunk."""
        self.reused = False
        """Whether the request under way goes over a connection that served one before."""
        self.was_cut = False
        """Whether the connection of the request under way was shut down since the run was asked."""
        self.is_called_back = False
        """Whether `check` will raise `CalledBack`."""
        self.meanwhile: Callable[[], float | None] = lambda: None
        """Called before each wait; returns after how many seconds to call it again, None: with the next."""
        self._lock = threading.Lock()
        self._waker = waker
        self._wire: Wire | None = None
        self._stop = False
        if waker.was_woken:
            waker.drain()

    # -- The supervisor's side: any thread.

    def stop(self) -> None:
        """Ask the run to stop: it raises `Stopped` at once, wherever it waits."""
        self._stop = True
        self._interrupt()

    def expire(self) -> None:
        """End the phase under way: the run raises `LateError`."""
        self._interrupt()

    def call_back(self) -> None:
        """Have the run leave the transfer to the others that run it: it raises `CalledBack`."""
        self.is_called_back = True
        self._interrupt()

    def stay(self) -> None:
        """Take `call_back` back: nobody else is there any more."""
        with self._lock:
            self.is_called_back, self.asked = False, self._stop

    def insist(self) -> None:
        """Interrupt a run again that was asked and goes on: Windows forgets what comes between two waits."""
        with self._lock:
            if self.asked:
                self._cut()

    def nudge(self) -> None:
        """End the run's wait under way: there may be news for it."""
        self._waker.wake()

    def idle(self, now: float) -> float:
        """Seconds for which nothing moved."""
        return max(0.0, now - self.moved)

    def _interrupt(self) -> None:
        with self._lock:
            self.asked = True
            self._cut()
        self._waker.wake()

    def _cut(self) -> None:
        if self._wire:
            self._wire.shutdown()
            self.was_cut = True

    # -- The worker's side.

    def check(self) -> None:
        """Raise `Stopped`; once after `call_back` `CalledBack`, after `expire` `LateError`."""
        if self._stop:
            raise Stopped
        if self.asked:
            self.asked, is_called_back, self.is_called_back = False, self.is_called_back, False
            if is_called_back:
                raise CalledBack
            raise LateError(STALLED if self.phase is Phase.BODY else f"{LATE} ({self.phase.value}). {SLOW}")

    def enter(self, phase: Phase) -> None:
        """Begin a phase; its time-out begins too."""
        self.check()
        self.phase = phase
        self.moved = time.monotonic()

    def touch(self) -> None:
        """Something moved."""
        self.moved = time.monotonic()

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """While libraries own the socket: `attach` what is to be shut down; let go of it at the end."""
        self.was_cut = False
        with self.turn:
            try:
                yield
            finally:
                with self._lock:
                    self._wire = None

    def attach(self, wire: Wire) -> None:
        """Have `wire` shut down when the run is asked; at once if it was."""
        with self._lock:
            self._wire = wire
            if self.asked:
                self._cut()
        self.check()

    def linger(self, sock: socket.socket, seconds: float) -> bool:
        """Wait for more over a socket. False: none came, or the run was asked, as the next `wait` says."""
        return not self.asked and self._poll([sock.fileno()], [], seconds) == {sock.fileno()}

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`, or until asked."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.wait(timeout=left)
        self.check()

    def wait(
        self,
        *,
        readable: Iterable[socket.socket] = (),
        writable: Iterable[socket.socket] = (),
        timeout: float | None = None,
    ) -> set[int]:
        """Wait until one of the sockets is ready, `timeout` seconds are over, or the run is asked.

        Returns the descriptors that are ready, none where it is time for `meanwhile`. Raises what
        `check` raises when asked, and what `meanwhile` raises.
        """
        self.check()
        limits = [limit for limit in (timeout, self.meanwhile()) if limit is not None]
        reads, writes = [s.fileno() for s in readable], [s.fileno() for s in writable]
        ready = self._poll(reads, writes, min(limits, default=None))
        if self._waker.fileno() in ready:
            self._waker.drain()
        self.check()
        return ready - {self._waker.fileno()}

    def _poll(self, reads: list[int], writes: list[int], timeout: float | None) -> set[int]:
        """Which descriptors are ready, or the waker's; others compute meanwhile."""
        was_mine = self.turn.give()
        ready = portable.poll([self._waker.fileno(), *reads], writes, timeout)
        if was_mine:
            self.turn.take()
        return ready
