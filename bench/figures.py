"""What was measured, against which bar, and the table of it. No Blender here."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

Samples = Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table: what was measured, beside what, and the bar that it is to hold."""

    bar: str
    """`P1`"""
    work: str
    ours: Samples
    """In `unit`."""
    unit: str = "s"
    peer: str = ""
    theirs: Samples = ()
    value: float
    """What the bar is about: a ratio, a difference, a percentile, a peak."""
    value_unit: str = "times"
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def is_held(self) -> bool | None:
        """Whether the bar holds; None where there is none."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least

    @property
    def limit(self) -> str:
        """The bar as text."""
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        return "" if self.at_least is None else f">= {self.at_least:g}"

    @property
    def cells(self) -> tuple[str, ...]:
        """The line, column by column, as `HEAD` names them."""
        value = f"{_short(self.value)} {self.value_unit}"
        verdict = {True: "held", False: "NOT HELD", None: ""}[self.is_held]
        ours, theirs = _spread(self.ours, self.unit), _spread(self.theirs, self.unit)
        return self.bar, self.work, ours, self.peer, theirs, value, self.limit, verdict


HEAD = ("", "work", "ours: median (min to max)", "beside", "its median (min to max)", "is", "bar", "")


def ratio(bar: str, work: str, ours: Samples, peer: str, theirs: Samples, **more: float | None) -> Row:
    """A line about how many times as long ours takes: the ratio of the medians."""
    value = statistics.median(ours) / statistics.median(theirs)
    return Row(bar=bar, work=work, ours=ours, peer=peer, theirs=theirs, value=value, **more)  # type: ignore[arg-type]


def in_turn(measures: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each measure in turn, `rounds` times, after one turn that does not count."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds + 1):
        for name, measure in measures.items():
            value = measure()
            if number:
                found[name].append(value)
    return found


def percentile(values: Samples, share: float) -> float:
    """The value that `share` of them do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def table(rows: Iterable[Row]) -> str:
    """The lines in columns, and what is to be said of them below."""
    lines = [HEAD, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    notes = [f"{row.bar} {row.work}: {row.note}" for row in rows if row.note]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([line.rstrip() for line in text] + notes)


def _spread(values: Samples, unit: str) -> str:
    if not values:
        return ""
    return f"{_short(statistics.median(values))} ({_short(min(values))} to {_short(max(values))}) {unit}"


def _short(value: float) -> str:
    """Three digits that count."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
