"""Room on the disks, for all downloads that run at the same time."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable

from . import portable
from .job import TransferError

LITTLE = 256 << 10  # bytes for which no room is looked for
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Space:
    """What the running downloads still want of each disk. Any thread may call.

    Each is known by what tells how many bytes the disk will have to take of it yet.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wants: dict[Callable[[], int], int] = {}  # with the disk's device number

    def claim(self, missing: Callable[[], int], size: int | None, directory: str) -> None:
        """Have room for what a download of `size` misses, beside the others. Raises TransferError, OSError.

        For a little nobody looks. One that cannot have it takes none from the others, however much it
        says it wants.
        """
        folder, wanted = portable.reach(directory), missing()
        if wanted <= LITTLE:
            return
        if size and size > portable.LARGEST_ON_FAT and portable.is_fat(folder):
            raise TransferError(
                f"The disk that holds “{directory}” takes no file of 4 GiB or more (FAT32)."
                " Choose a folder on another disk"
            )
        device = os.stat(folder).st_dev
        with self._lock:
            self._wants.pop(missing, None)
            others = sum(other() for other, on in self._wants.items() if on == device)
            free = shutil.disk_usage(folder).free
            if wanted + others <= free:
                self._wants[missing] = device
                return
        also = f" and {amount(others)} for the other downloads" if others else ""
        raise TransferError(
            f"Not enough space: {amount(wanted)} are needed{also} in “{directory}”,"
            f" {amount(free)} are free. Make room, then press Retry"
        )

    def free(self, missing: Callable[[], int]) -> None:
        """A download does not run any more."""
        with self._lock:
            self._wants.pop(missing, None)


def amount(count: float) -> str:
    """Bytes as Blender writes them: ``12.3 MiB``."""
    number, unit = scaled(count)
    return f"{number} {unit}"


def scaled(count: float) -> tuple[str, str]:
    """The number and the unit of so many bytes: at most three digits before the point, and three in all."""
    for unit in UNITS:
        if count < 999.5 or unit == UNITS[-1]:
            break
        count /= 1024
    digits = 0 if unit == "B" or count >= 99.95 else 1
    return f"{count:.{digits}f}", unit
