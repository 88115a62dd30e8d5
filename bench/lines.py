"""Long lines: a network namespace at each end, and a line with delay, rate and loss between them.

The line is a process that hands packets from one end to the other when their time has come: the
kernels of containers and small machines often come without netem. It needs root, and /dev/net/tun.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

from figures import Row
from peers import Work
from serving import File, Site
from speed import WORKS, compare
from workbench import Bench

NEAR, FAR = f"near-{os.getpid()}", f"far-{os.getpid()}"  # the ends: who downloads, who serves
ADDRESSES = {NEAR: "10.213.77.1", FAR: "10.213.77.2"}
BAR = 1 / 0.95  # times as long as curl
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
PACKET = 65536  # bytes of a packet at most
QUEUE = 0.25  # seconds that a packet waits for its turn at most; others are dropped


@dataclass(frozen=True)
class Line:
    """A line, in both directions alike."""

    mbits: float
    """Mbit/s"""
    ms: float
    """There and back."""
    loss: float = 0.0
    """A share of the packets."""

    def __str__(self) -> str:
        lost = f", {self.loss:.1%} lost" if self.loss else ""
        return f"{self.mbits:g} Mbit/s, {self.ms:g} ms{lost}"


LINES = [Line(rate, ms, loss) for rate in (20, 100) for ms in (20, 150) for loss in (0.0, 0.005)]
NEAR_BY = Line(1000, 20)
SECONDS = 5  # that a download takes at the line's rate


def rows(bench: Bench, bar: str) -> Iterator[Row]:
    """P3 at 20 ms, or four files at once over each of the long lines."""
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        print(f"{bar} is left out: network namespaces and their lines need root and /dev/net/tun")
        return
    for line in [NEAR_BY] if bar == "P3L" else LINES:
        with bench.folder(bar) as folder, _line(line):
            site = Site(folder / "site", ADDRESSES[FAR], ["ip", "netns", "exec", FAR])
            with site.open():
                work = _work(bar, line)
                site.make(work.files)
                yield from compare(bench, work, site, folder, within=["ip", "netns", "exec", NEAR])


def _work(bar: str, line: Line) -> Work:
    if bar == "P3L":
        return replace(WORKS["P3"], bar=bar, text=f"{WORKS['P3'].text}, {line}", at_most={"aria2c": 1.0})
    size = int(line.mbits / 8 * 1e6 * SECONDS / 4)
    files = [File(f"{size}-{number}.bin", size) for number in range(4)]
    return Work(bar=bar, text=f"4 files over {line}", files=files, limit=4, at_most={"curl": BAR})


@contextlib.contextmanager
def _line(line: Line) -> Iterator[None]:
    """Two name spaces with this line between them, until the block ends."""
    ends = [os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK) for _ in ADDRESSES]
    with contextlib.ExitStack() as stack:
        for end, (name, address) in zip(ends, ADDRESSES.items(), strict=True):
            stack.callback(os.close, end)
            fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)
            _ip("link", "set", name, "netns", name)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "address", "add", f"{address}/24", "dev", name)
            _ip("-n", name, "link", "set", name, "up")
        words = [str(value) for value in (*ends, line.mbits, line.ms, line.loss)]
        carrier = subprocess.Popen([sys.executable, __file__, *words], pass_fds=ends)
        stack.callback(carrier.wait)
        stack.callback(carrier.kill)
        yield


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


# -- In a process of its own: the line.


class Direction:
    """Packets on their way, each with the time when it arrives."""

    def __init__(self, line: Line, source: int, sink: int, chance: random.Random) -> None:
        self._line, self._source, self._sink, self._chance = line, source, sink, chance
        self._is_free = 0.0  # when the last packet has left
        self._under_way: list[tuple[float, int, bytes]] = []
        self._numbers = count()

    def take(self, now: float) -> None:
        """Take what has been sent."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._send(os.read(self._source, PACKET), now)

    def _send(self, packet: bytes, now: float) -> None:
        starts = max(now, self._is_free)
        if starts - now > QUEUE or self._chance.random() < self._line.loss:
            return
        self._is_free = starts + len(packet) * 8 / self._line.mbits / 1e6
        arrives = self._is_free + self._line.ms / 2000
        heapq.heappush(self._under_way, (arrives, next(self._numbers), packet))

    def deliver(self, now: float) -> float:
        """Hand over what has arrived; seconds until the next does."""
        while self._under_way and self._under_way[0][0] <= now:
            packet = heapq.heappop(self._under_way)[2]
            with contextlib.suppress(BlockingIOError):  # dropped, as a line does
                os.write(self._sink, packet)
        return self._under_way[0][0] - now if self._under_way else 1.0


def carry(near: int, far: int, line: Line) -> None:
    """Be the line until killed."""
    chance = random.Random(0)
    directions = [Direction(line, near, far, chance), Direction(line, far, near, chance)]
    while True:
        wait = min(direction.deliver(time.monotonic()) for direction in directions)
        select.select([near, far], [], [], max(0.0, wait))
        for direction in directions:
            direction.take(time.monotonic())


if __name__ == "__main__":
    carry(int(sys.argv[1]), int(sys.argv[2]), Line(*map(float, sys.argv[3:])))
