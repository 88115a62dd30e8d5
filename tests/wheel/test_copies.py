"""The copy of the list that scripts read, and when it is drawn: thousands of rows, some in each tick."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import bpy
import pytest

if TYPE_CHECKING:
    from conftest import Extension

MANY = 2500  # rows, more than two ticks copy
Session = Any


@pytest.fixture
def session(extension: Extension, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """With many rows that are PAUSED, all copied."""
    store = importlib.import_module(f"{extension.package}.session.store")
    monkeypatch.setattr(store, "user_folder", lambda: tmp_path)
    session = sys.modules[f"{extension.package}.session"].current()
    add(session, extension, *(f"https://files.example/{number}.bin" for number in range(MANY)))
    copy_all(session)
    yield session
    session.remove(*session.rows, delete=False)
    copy_all(session)


def add(session: Session, extension: Extension, *urls: str) -> list[Any]:
    names = importlib.import_module(f"{extension.package}.transfer.names")
    job = importlib.import_module(f"{extension.package}.transfer.job")
    links, problems = names.parse_links("\n".join(urls))
    assert problems == []
    options = {"directory": "/tmp", "if_exists": job.IfExists.RENAME, "when_done": "NOTHING"}
    assert all(row.uid for row in session.add(links, **options))
    for row in (rows := list(session.rows)[-len(urls) :]):
        session.pause(row)
    return rows


def state() -> Any:
    return bpy.context.window_manager.downloads


def copied() -> list[tuple[int, str, str]]:
    return [(item.uid, item.name, item.status) for item in state().items]


def expected(session: Session) -> list[tuple[int, str, str]]:
    return [(row.uid, row.name, row.status.value) for row in session.rows]


def copy_all(session: Session) -> int:
    """Flush until nothing is left to copy; how often that took."""
    session.mirror.flush()
    times = 1
    while copied() != expected(session):
        session.mirror.flush()
        times += 1
        assert times < 10
    return times


def test_many_new_rows_come_some_at_a_time(session: Session, extension: Extension) -> None:
    before = len(state().items)
    add(session, extension, *(f"https://files.example/more-{number}.bin" for number in range(MANY)))
    session.mirror.flush()
    assert 1000 <= len(state().items) - before < MANY
    assert copy_all(session) > 1


def test_many_changes_are_copied_some_at_a_time(session: Session) -> None:
    for row in session.rows:
        session.cancel(row)
    session.mirror.flush()
    statuses = [item.status for item in state().items]
    assert statuses[:1000] == ["CANCELLED"] * 1000
    assert statuses[-1] == "PAUSED"
    copy_all(session)


def test_a_tick_copies_fewer_than_who_asks_for_it(session: Session, extension: Extension) -> None:
    before = len(state().items)
    add(session, extension, *(f"https://files.example/more-{number}.bin" for number in range(MANY)))
    session.mirror.tick()
    assert 0 < len(state().items) - before < 1000
    for row in session.rows:
        session.cancel(row)
    session.mirror.tick()
    assert 0 < sum(item.status == "CANCELLED" for item in state().items) < 1000
    copy_all(session)


@pytest.mark.parametrize("places", [(0,), (MANY - 1,), (0, 1, 2), (3, 90, 190, 1200, 1301, 1402, MANY - 1)])
def test_changes_here_and_there_are_copied_at_once(session: Session, places: tuple[int, ...]) -> None:
    rows = list(session.rows)
    for place in reversed(places):
        session.cancel(rows[place])
    session.mirror.flush()
    assert copied() == expected(session)


@pytest.mark.parametrize("kept", [2000, 1000, 1, 0])
def test_many_rows_go_and_the_others_move_up(session: Session, kept: int) -> None:
    rows = list(session.rows)
    state().active_index = MANY - 1
    gone = rows[: MANY - kept]
    session.remove(*gone, delete=False)
    copy_all(session)
    assert len(state().items) == kept
    if kept:
        assert state().items[state().active_index].uid == rows[-1].uid


def test_what_a_script_did_to_the_copy_is_undone(session: Session) -> None:
    state().items.clear()
    session.cancel(next(iter(session.rows)))
    copy_all(session)


def test_a_row_that_is_moved_over_many_stays_active(session: Session) -> None:
    last = list(session.rows)[-1]
    state().active_index = MANY - 1
    session.move(last, "TOP")
    session.mirror.flush()
    assert copied() == expected(session)
    assert state().active_index == 0


# -- Redraws.


class Ticks:
    """A run's ticks at their pace, in which a redraw takes so long, and Blender's timers meanwhile."""

    def __init__(self, session: Session, redraws: Any) -> None:
        self.clock = 1000.0
        self._timers: list[Callable[[], float | None]] = []
        self.app = SimpleNamespace(background=False, timers=self)
        self.context, self.msgbus, self.types = bpy.context, bpy.msgbus, bpy.types
        self.redraws = redraws.Redraws(session.rows, session.tally)
        self.cost = 0.0  # seconds

    def monotonic(self) -> float:
        return self.clock

    def register(self, function: Callable[[], float | None]) -> None:
        self._timers.append(function)

    def is_registered(self, function: Callable[[], float | None]) -> bool:
        return function in self._timers

    def _go_through_timers(self) -> None:
        self._timers = [function for function in self._timers if function() is not None]

    def drawn(self, seconds: float) -> int:
        """How often something is drawn in so many seconds."""
        times, end = 0, self.clock + seconds
        while self.clock < end:
            self.clock += 0.025
            is_drawn = self.redraws.draw(is_asked=False)
            self._go_through_timers()
            times += is_drawn
            self.clock += self.cost * is_drawn
            self._go_through_timers()
        return times


@pytest.fixture
def ticks(session: Session, extension: Extension, monkeypatch: pytest.MonkeyPatch) -> Ticks:
    redraws = importlib.import_module(f"{extension.package}.session.redraws")
    ticks = Ticks(session, redraws)
    monkeypatch.setattr(redraws, "time", ticks)
    monkeypatch.setattr(redraws, "bpy", ticks)
    return ticks


@pytest.mark.parametrize(
    ("cost", "least", "most"), [(0.0, 140, 200), (0.002, 45, 50), (0.01, 9, 11), (0.1, 4, 5), (1.0, 4, 5)]
)
def test_redraws_are_paced_by_what_one_takes(ticks: Ticks, cost: float, least: int, most: int) -> None:
    ticks.cost = cost
    ticks.drawn(20.0)  # until it has seen what a redraw takes
    assert least <= ticks.drawn(20.0) <= most


def test_a_window_that_stood_still_once_is_no_slow_one(ticks: Ticks) -> None:
    ticks.cost = 60.0
    ticks.drawn(1.0)
    ticks.cost = 0.0
    ticks.drawn(30.0)
    assert ticks.drawn(20.0) >= 140


def test_who_does_something_sees_soon_what_came_of_it(ticks: Ticks) -> None:
    ticks.cost = 0.1
    ticks.drawn(20.0)
    assert ticks.redraws.draw(is_asked=True)
    assert ticks.drawn(0.2) == 0
    assert ticks.drawn(0.2) == 1
    assert ticks.drawn(4.0) == 0
