"""P8: what enabling the extension costs, beside an add-on that does nothing.

And beside one of as many classes that do nothing: less than that it cannot cost.
"""

from __future__ import annotations

import statistics

from figures import Row, in_turn
from seat import EMPTY, FLOOR, MODULE, Seat
from workbench import Bench

MORE = 5.0  # ms, the bar


def rows(bench: Bench, bar: str) -> list[Row]:
    """Each in a Blender that was started for it."""
    imported: dict[str, bool] = {}
    with bench.folder(bar) as folder:

        def measure(name: str, module: str) -> float:
            with Seat(bench.trees.get(name, bench.trees["ours"]), folder / name) as seat:
                told = seat.ask("enable", module)
            imported[name] = "requests" in told["imported"]
            return float(told["ms"])

        modules = {**dict.fromkeys(bench.trees, MODULE), "an empty one": EMPTY, "as many classes": FLOOR}
        times = in_turn(
            {name: lambda n=name, m=module: measure(n, m) for name, module in modules.items()}, bench.rounds
        )
    empty = times.pop("an empty one")
    floor = times.pop("as many classes")
    found = [_row(bar, name, values, empty, imported[name]) for name, values in times.items()]
    least = statistics.median(floor) - statistics.median(empty)
    return [
        *found,
        Row(
            bar=bar, work="as many classes that do nothing", ours=floor, unit="ms", peer="an empty one",
            theirs=empty, value=least, value_unit="ms more",
        ),
    ]  # fmt: skip


def _row(bar: str, name: str, values: list[float], empty: list[float], has_requests: bool) -> Row:
    return Row(
        bar=bar,
        work="enable" if name == "ours" else f"enable, as it was at {name}",
        ours=values,
        unit="ms",
        peer="an empty one",
        theirs=empty,
        value=statistics.median(values) - statistics.median(empty),
        value_unit="ms more",
        at_most=None if name != "ours" else -1 if has_requests else MORE,
        note="it imports requests" if has_requests else "",
    )
