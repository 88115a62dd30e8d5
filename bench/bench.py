"""Measures the extension beside other downloaders and in real windows, and holds it to its bars.

    make bench                               all
    make bench BARS="P3 P4" ROUNDS=9         some of them
    make bench BARS=P1 AGAINST=v0.1.0        beside the extension as it was at a commit, too
    make bench PLOT=docs/speed.svg           and a picture of what took how long

Ours is timed inside a running Blender, from `downloads.start` to its return; others as whole
processes, less their start-up; each in turn with the others, so that what else the machine does hits
all alike. Files are on tmpfs, so that no disk hides a difference.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import plot
from figures import Row, table
from workbench import Bench, trees

BARS = {  # which file here measures it
    "P1": "speed",
    "P2": "speed",
    "P3": "speed",
    "P4": "speed",
    "P5": "speed",
    "P6": "speed",
    "P7": "smooth",
    "P8": "enabling",
    "P9": "cancel",
    "P10": "frugal",
    "P11": "frugal",
    "P12": "frugal",
    "P13": "render",
    "P14": "frugal",
    "limit": "limit",
    "invoked": "invoked",
    "P3L": "lines",
    "lines": "lines",
}


def measure(bars: list[str], bench: Bench) -> list[Row]:
    """The lines of the bars, each told as soon as it is there."""
    found = []
    for bar in bars:
        rows = list(importlib.import_module(BARS[bar]).rows(bench, bar))
        print(table(rows), "\n", flush=True)
        found += rows
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bars", nargs="*", default=os.environ.get("BARS", "").split() or list(BARS))
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS") or 5))
    parser.add_argument("--against", default=os.environ.get("AGAINST", ""))
    parser.add_argument("--out", type=Path, help="a file for the figures, as JSON")
    parser.add_argument("--plot", type=Path, default=os.environ.get("PLOT") or None, help="one for an SVG")
    options = parser.parse_args()
    if unknown := set(options.bars) - set(BARS):
        raise SystemExit(f"{', '.join(sorted(unknown))}: there is no such bar, only {', '.join(BARS)}")
    load = os.getloadavg()[0]
    here = f"Python {sys.version.split()[0]}, {os.cpu_count()} cores"
    print(f"{here}, {options.rounds} rounds, load {load:.1f} at the beginning")
    with trees(options.against) as found:
        rows = measure(options.bars, Bench(rounds=options.rounds, trees=found))
    if len(options.bars) > 1:
        print(table(rows))
    if options.plot:
        plot.draw(rows, options.plot)
    if options.out:
        options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
