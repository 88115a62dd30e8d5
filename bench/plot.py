"""The picture for README: how long each program takes for the same work. An SVG, made of a few lines."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

from figures import Row

WIDTH, LINE, GAP = 720, 20, 14  # pixels
SELF = "this extension"
LEFT, RIGHT = 150, 70  # beside the bars: names, seconds
OURS, OTHERS, INK = "#e87d0d", "#8a8f98", "#5c6066"  # readable on white and on black
STYLE = f"text {{ font: 13px sans-serif; fill: {INK} }} .work {{ font-weight: bold }}"


def draw(rows: Iterable[Row], path: Path) -> None:
    """Write the picture of the lines that are about seconds."""
    groups: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.unit == "s" and row.theirs:
            group = groups.setdefault(f"{row.bar}: {row.work}", {SELF: statistics.median(row.ours)})
            group[row.peer] = statistics.median(row.theirs)
    lines = list(_lines(groups))
    height = sum(LINE * (len(group) + 1) + GAP for group in groups.values())
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}">'
    path.write_text("\n".join([head, f"<style>{STYLE}</style>", *lines, "</svg>"]) + "\n")


def _lines(groups: dict[str, dict[str, float]]) -> Iterator[str]:
    y = 0
    for work, group in groups.items():
        y += LINE
        yield _text(0, y, work, ' class="work"')
        longest = max(group.values())
        for name, seconds in group.items():
            width = max(1.0, seconds / longest * (WIDTH - LEFT - RIGHT))
            color = OURS if name == SELF else OTHERS
            size = f'width="{width:.1f}" height="{LINE - 5}"'
            yield f'<rect x="{LEFT}" y="{y + 5}" {size} fill="{color}"/>'
            yield _text(LEFT - 8, y + LINE - 3, name, ' text-anchor="end"')
            yield _text(LEFT + width + 6, y + LINE - 3, f"{seconds:.2f} s")
            y += LINE
        y += GAP


def _text(x: float, y: float, words: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y}"{more}>{escape(words)}</text>'
