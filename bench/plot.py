"""The picture for README: how long each program takes for the same work. An SVG, made of a few lines."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path

from figures import Row, Samples

WIDTH, LINE, GAP, HEAD = 720, 20, 16, 22  # pixels
SELF = "this extension"
LEFT, RIGHT = 140, 70  # beside the bars: names, seconds
OURS, OTHERS, INK = "#e87d0d", "#8a8f98", "#6e7681"  # readable on white and on black
STYLE = f"text {{ font: 13px sans-serif; fill: {INK} }} .work {{ font-weight: bold }}"
SAYS = "Seconds, shorter is better. A bar is the median, the thin line goes from the fastest to the slowest."


def draw(rows: Iterable[Row], path: Path) -> None:
    """Write the picture of the lines that are about seconds."""
    groups: dict[str, dict[str, Samples]] = {}
    for row in rows:
        if row.unit == "s" and row.theirs:
            groups.setdefault(row.work, {SELF: row.ours})[row.peer] = row.theirs
    lines = list(_lines(groups))
    height = HEAD + sum(LINE * (len(group) + 1) + GAP for group in groups.values())
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}">'
    path.write_text("\n".join([head, f"<style>{STYLE}</style>", *lines, "</svg>"]) + "\n")


def _lines(groups: Mapping[str, Mapping[str, Samples]]) -> Iterator[str]:
    yield _text(0, LINE - 5, SAYS)
    y = HEAD
    for work, group in groups.items():
        y += LINE
        yield _text(0, y, work[0].upper() + work[1:], ' class="work"')
        pixels = (WIDTH - LEFT - RIGHT) / max(max(values) for values in group.values())
        for name, values in group.items():
            yield from _bar(y + 5, name, values, pixels)
            y += LINE
        y += GAP


def _bar(y: float, name: str, values: Samples, pixels: float) -> Iterator[str]:
    """A program's name, its bar, and what the bar says; `pixels` are those of a second."""
    low, middle, high = (pixels * each for each in (min(values), statistics.median(values), max(values)))
    size = f'width="{max(1.0, middle):.1f}" height="{LINE - 5}"'
    yield f'<rect x="{LEFT}" y="{y}" {size} fill="{OURS if name == SELF else OTHERS}"/>'
    yield f'<path d="M{LEFT + low:.1f} {y + 7.5}H{LEFT + high:.1f}" stroke="{INK}"/>'
    yield _text(LEFT - 8, y + 12, name, ' text-anchor="end"')
    yield _text(LEFT + high + 6, y + 12, f"{statistics.median(values):.2f} s")


def _text(x: float, y: float, words: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:g}"{more}>{escape(words)}</text>'
