"""The speed limit of the preferences: how far off it is what all downloads bring together, over ten seconds.

Twice in one run in a real window: as it was when they began, and after it was changed while they ran.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from figures import Row
from serving import MIB, File, Site
from window import window
from workbench import Bench

from downloading import MODULE, Downloads  # isort: skip

OFF = 5.0  # per cent, the bar
LIMITS = (8.0, 3.0)  # MiB a second, one after the other
SECONDS = 10.0
SETTLED = 1.0  # seconds until a change is heard
FILES = 4
FILE = File("big.bin", 256 * MIB)


def rows(bench: Bench, bar: str) -> Iterator[Row]:
    for host in ("threads", "child"):
        with bench.folder(bar) as folder, Site(folder / "site").open() as site:
            site.make([FILE])
            with window(bench, bench.trees["ours"], folder, host) as d:
                speeds = _speeds(d, [f"{site.url(FILE.name)}?n={number}" for number in range(FILES)])
        off = [100 * (speed / limit - 1) for speed, limit in zip(speeds, LIMITS, strict=True)]
        words = ", then ".join(f"{limit:g}" for limit in LIMITS)
        yield Row(
            bar=bar, work=f"{FILES} files at {words} MiB/s, changed while they run, {host}", ours=speeds,
            unit="MiB/s", value=max(map(abs, off)), value_unit="% off over ten seconds", at_most=OFF,
        )  # fmt: skip


def _speeds(d: Downloads, urls: list[str]) -> list[float]:
    """MiB a second at each of the limits."""
    _set(d, LIMITS[0])
    d.b.run(f"invoke({chr(10).join(urls)!r}, directory={str(d.folder)!r})")
    d.b.wait(f"statuses().count('RUNNING') == {FILES}")
    speeds = []
    for limit in LIMITS:
        _set(d, limit)
        time.sleep(SETTLED)
        before, began = _received(d)
        time.sleep(SECONDS)
        after, ended = _received(d)
        speeds.append((after - before) / MIB / (ended - began))
    d.act("cancel")
    d.wait_over()
    return speeds


def _set(d: Downloads, limit: float) -> None:
    d.b.run(f"bpy.context.preferences.addons[{MODULE!r}].preferences.speed_limit = {limit}")


def _received(d: Downloads) -> tuple[int, float]:
    """Bytes of all, and when that was seen, in seconds of `time.monotonic`."""
    count, now = d.b.eval("(sum(row.received for row in session().rows), time.monotonic())")
    return int(count), float(now)
