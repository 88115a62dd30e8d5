"""Which bytes of a file are there, and what the range headers of HTTP say (RFC 9110, section 14)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

_CONTENT_RANGE = re.compile(r"bytes\s+0*(\d{1,19})-0*(\d{1,19})/(?:0*(\d{1,19})|\*)", re.I | re.ASCII)


class Ranges:
    """A set of byte positions, as sorted, disjoint, half-open ranges."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._ranges: list[tuple[int, int]] = []
        self._total = 0
        for start, end in ranges:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Put the bytes from `start` up to, not including, `end` into the set."""
        if not 0 <= start <= end:
            raise ValueError(f"not a range: {start}-{end}")
        if start == end:
            return
        for n, (first, last) in enumerate(self._ranges):  # the next chunk: nearly every call
            if last == start and (n + 1 == len(self._ranges) or end < self._ranges[n + 1][0]):
                self._ranges[n] = (first, end)
                self._total += end - start
                return
        touching = [r for r in self._ranges if r[0] <= end and r[1] >= start]
        apart = [r for r in self._ranges if r not in touching]
        merged = (min([start, *(r[0] for r in touching)]), max([end, *(r[1] for r in touching)]))
        self._ranges = sorted([*apart, merged])
        self._total = sum(end - start for start, end in self._ranges)

    def missing(self, size: int) -> list[tuple[int, int]]:
        """The ranges of a file of `size` bytes that are not in the set."""
        edges = [0, *(edge for r in self._ranges for edge in r), size]
        return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]

    def pieces(self, start: int, end: int) -> list[tuple[int, int, bool]]:
        """`start` to `end`, cut where the set begins or ends, each with whether it is in the set."""
        if start < end and not self.meets(start, end):  # the next chunk: nearly every call
            return [(start, end, False)]
        inner = {edge for r in self._ranges for edge in r if start < edge < end}
        edges = sorted({start, end} | inner)
        return [(a, b, self.has(a)) for a, b in itertools.pairwise(edges)]

    def meets(self, start: int, end: int) -> bool:
        """Whether any position from `start` to `end` is in the set."""
        return any(start < b and a < end for a, b in self._ranges)

    def free(self, start: int, end: int) -> int:
        """Up to where, from `start` to at most `end`, no position is in the set."""
        return min((max(a, start) for a, b in self._ranges if a < end and b > start), default=end)

    def has(self, position: int) -> bool:
        """Whether it is in the set."""
        return any(start <= position < end for start, end in self._ranges)

    def total(self) -> int:
        """How many bytes are in the set."""
        return self._total

    def end(self) -> int:
        """The position behind the last byte of the set."""
        return self._ranges[-1][1] if self._ranges else 0

    def head(self) -> int:
        """How many bytes are there from the beginning of the file, without a gap."""
        return self._ranges[0][1] if self._ranges and self._ranges[0][0] == 0 else 0

    def before(self, position: int) -> int:
        """How many bytes are there right before a position that is not in the set, without a gap."""
        return next((end - start for start, end in self._ranges if end == position), 0)

    def as_list(self) -> list[list[int]]:
        """For JSON."""
        return [[start, end] for start, end in self._ranges]


def parse_content_range(header: str) -> tuple[int, int, int | None] | None:
    """``bytes 5-9/100`` as (5, 10, 100); no size where it is ``*``. None: not a range of bytes."""
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if not match:
        return None
    start, last, size = int(match[1]), int(match[2]), int(match[3]) if match[3] else None
    if last < start or (size is not None and last >= size):
        return None
    return start, last + 1, size
