"""A look into folders, of which one may not answer: by a child process, which can be ended at any moment.

Both ends of its pipe. Blender waits for none of it; the child leaves when it has looked, or Blender is gone.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from ..transfer import portable
from ..transfer.part import Leftover, leftovers
from .spawn import put_down, spawn
from .vocabulary import POLL

PATIENCE = 30.0  # seconds until those that have not answered are given up


class Found(NamedTuple):
    """What is known of a folder."""

    place: str
    """Its real path; while it has not answered its name."""
    parts: list[Leftover] | None = None
    """The partial files in it; None: it has not answered."""


def look_into(folder: str) -> Found:
    """Blocks; raises nothing. In a folder that is not there is nothing."""
    with suppress(OSError, ValueError):
        return Found(os.path.realpath(folder), leftovers(folder))
    return Found(folder, [])


class Survey:
    """Blender's end: `look` now and then until it is over, or `close` it. The main thread's."""

    def __init__(self, folders: Iterable[str]) -> None:
        """Raises OSError where no process can be started."""
        self.found = {folder: Found(folder) for folder in folders}
        self._end = time.monotonic() + PATIENCE
        self._connection, self._process = spawn("survey")
        try:
            self._connection.send(list(self.found))
        except BaseException:
            self.close()
            raise

    def look(self) -> bool:
        """Hear what was found. False: no more will be, and the child is gone."""
        with suppress(EOFError, OSError):  # it is gone
            while portable.has_come(self._connection):
                folder, found = self._connection.recv()
                self.found[folder] = found
            if time.monotonic() < self._end and any(found.parts is None for found in self.found.values()):
                return True
        self.close()
        return False

    def close(self) -> None:
        """End the child, whatever it waits for."""
        self._connection.close()
        put_down(self._process)


def serve(handle: int, parent: int) -> None:
    """The child's end: a thread for each folder, so that none waits for another."""
    connection, blender_lives = portable.connection(handle), portable.watch(parent)
    sending = threading.Lock()

    def tell(folder: str) -> None:
        found = look_into(folder)
        with sending, suppress(OSError):  # Blender is gone
            connection.send((folder, found))

    with suppress(EOFError, OSError):
        threads = [threading.Thread(target=tell, args=[folder], daemon=True) for folder in connection.recv()]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) and blender_lives() and not connection.poll(POLL):
            pass  # it says nothing more: that would be its end
    os._exit(0)  # not waiting for a folder
