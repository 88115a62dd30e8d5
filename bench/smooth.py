"""P7: what a user of a window feels of 10,000 downloads, with the panel open.

Somebody else's timer is to come 60 times a second: how much later it comes than in the same window
with nothing going on. Idle and busy in turn; each share is a percentile of the delays of one turn.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

from figures import Row, percentile
from serving import MIB, File, Site
from window import swept, window
from workbench import Bench

from downloading import Downloads  # isort: skip

ROWS = 10_000
SECONDS = 10.0  # of each turn
DRAWN = 5.0  # seconds between two redraws where one takes long, as without a GPU: `session.redraws.SLOWEST`
SETTLED = 2.0  # seconds until a run is in full swing, or over and drawn
FILE = File("big.bin", 256 * MIB)
LINES = {
    "12.5 MB/s, 16 active": {"place": "at-763k/", "limit": 16, "more": 2.0},
    "full speed, 4 active": {"place": "", "limit": 4, "more": 12.0},
}
TICK, PANEL, ADDING = 0.5, 2.0, 100.0  # ms


def rows(bench: Bench, bar: str) -> Iterator[Row]:
    for tree in bench.trees:
        for host in ("threads", "child"):
            for line in LINES:
                yield from _measure(bench, bar, tree, host, line)


def _measure(bench: Bench, bar: str, tree: str, host: str, line: str) -> Iterator[Row]:
    found: dict[str, list[dict[str, Any]]] = {"idle": [], "drawn": [], "busy": []}
    how = LINES[line]
    with bench.folder(bar) as folder, Site(folder / "site").open() as site:
        site.make([FILE])
        with window(bench, bench.trees[tree], folder, host) as d, swept(d.folder):
            d.b.run(f"set_limit({how['limit']})")
            longest, click = _add(d, site, str(how["place"]))
            for _ in range(bench.rounds):
                _pause(d)
                found["idle"].append(_turn(d))
                d.b.run(f"redraw_often({SECONDS}, {DRAWN})")
                found["drawn"].append(_turn(d))
                d.act("resume")
                d.b.wait("'PAUSED' not in statuses()")
                time.sleep(SETTLED)
                found["busy"].append(_turn(d))
            _pause(d)
    what = f"{line}, {host}" + ("" if tree == "ours" else f", {tree}")
    yield from _lines(bar, what, found, float(how["more"]) if tree == "ours" else None)
    yield Row(
        bar=bar, work=f"adding {ROWS} links, {host}", ours=[longest], unit="ms", value=longest,
        value_unit="ms at most between two timers", at_most=ADDING,
        note=f"the click itself takes {click:.0f} ms of a processor",
    )  # fmt: skip


def _add(d: Downloads, site: Site, place: str) -> tuple[float, float]:
    """Start all; the longest time that the window stood still, and what the click computed, in ms."""
    urls = "\n".join(f"{site.url(FILE.name, place)}?n={number}" for number in range(ROWS))
    d.b.run(f"urls = {urls!r}")
    d.b.run("measure()")
    time.sleep(SETTLED)
    click = f"invoke(urls, directory={str(d.folder)!r})"
    d.b.run(f"clicked = time.thread_time(); {click}; clicked = time.thread_time() - clicked")
    d.b.wait(f"len(state().items) == {ROWS}")
    time.sleep(SETTLED)
    return max(d.b.eval("measured()")["beats"]), 1000.0 * float(d.b.eval("clicked"))


def _pause(d: Downloads) -> None:
    d.act("pause")
    d.b.wait("not workers() and session().run is None and 'QUEUED' not in statuses()")
    time.sleep(SETTLED)


def _turn(d: Downloads) -> dict[str, Any]:
    d.b.run("measure()")
    time.sleep(SECONDS)
    return dict(d.b.eval("measured()"))


def _lines(bar: str, what: str, found: dict[str, list[dict[str, Any]]], more: float | None) -> Iterator[Row]:
    late = {name: [percentile(turn["beats"], 0.99) for turn in turns] for name, turns in found.items()}
    difference = [busy - idle for busy, idle in zip(late["busy"], late["idle"], strict=True)]
    yield Row(
        bar=bar, work=f"a timer's delay (p99), {what}", ours=late["busy"], unit="ms", peer="idle",
        theirs=late["idle"], value=statistics.median(difference), value_unit="ms more", at_most=more,
        note=_told(found),
    )  # fmt: skip
    drawn = [busy - drawn for busy, drawn in zip(late["busy"], late["drawn"], strict=True)]
    yield Row(
        bar=bar, work="", ours=late["busy"], unit="ms", peer="idle, drawn as often",
        theirs=late["drawn"], value=statistics.median(drawn), value_unit="ms more",
    )  # fmt: skip
    python = [percentile(turn["undrawn"], 0.99) for turn in found["busy"]]
    idle = statistics.median(late["idle"])
    yield Row(
        bar=bar, work="", ours=python, unit="ms where nothing was drawn", peer="idle", theirs=late["idle"],
        value=statistics.median(python) - idle, value_unit="ms more",
    )  # fmt: skip
    for name, figures, limit in (("a tick", "ticks", TICK), ("the panel", "draws", PANEL)):
        values = [value for turn in found["busy"] for value in turn[figures]]
        yield Row(
            bar=bar, work=f"{name}, {what}", ours=values, unit="ms", value=statistics.median(values),
            value_unit="ms (median)", at_most=limit if more else None,
        )  # fmt: skip


def _told(found: dict[str, list[dict[str, Any]]]) -> str:
    """Where the time may have gone."""
    turns = found["busy"]
    words = []
    for name in ("ticks", "draws", "collections"):
        values = [value for turn in turns for value in turn[name]] or [0.0]
        worst = f"p99 {percentile(values, 0.99):.1f}, longest {max(values):.1f} ms"
        words.append(f"{len(values) / len(turns) / SECONDS:.1f} {name} a second, {worst}")
    return "; ".join(words)
