"""Zstandard as Blender packs its files: frames of a size each, then a table of them by which it seeks.

Python has it from 3.14 on; Blender brings a module for it along, some systems' Blenders do not.
https://github.com/facebook/zstd/blob/dev/contrib/seekable_format/zstd_seekable_compression_format.md
"""

from __future__ import annotations

import importlib
import struct
from typing import Any, BinaryIO

MAGIC = b"\x28\xb5\x2f\xfd"  # of a frame
FRAME = 1 << 20  # bytes, unpacked, as Blender has them
LEVEL = 3
_TABLE = 0x184D2A5E  # the magic number of the frame that holds the table
_FOOTER = 0x8F92EAB1


def reader(file: BinaryIO) -> Any:
    """What `file` holds, unpacked: something with `read(size)`.

    :raises ImportError: this Python has nothing to unpack it with.
    """
    try:
        return importlib.import_module("compression.zstd").ZstdFile(file)
    except ImportError:
        other = importlib.import_module("zstandard")
        return other.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False)


def _pack(data: bytes) -> bytes:
    try:
        packed: bytes = importlib.import_module("compression.zstd").compress(data, LEVEL)
    except ImportError:
        packed = importlib.import_module("zstandard").ZstdCompressor(level=LEVEL).compress(data)
    return packed


class Writer:
    """Packs what is written to it; `finish` writes the table."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sizes: list[tuple[int, int]] = []

    def write(self, data: bytes) -> None:
        """One frame: at most `FRAME` bytes."""
        packed = _pack(data)
        self._file.write(packed)
        self._sizes.append((len(packed), len(data)))

    def finish(self) -> None:
        """Write the table of the frames."""
        entries = b"".join(struct.pack("<II", *sizes) for sizes in self._sizes)
        table = entries + struct.pack("<IBI", len(self._sizes), 0, _FOOTER)
        self._file.write(struct.pack("<II", _TABLE, len(table)) + table)
