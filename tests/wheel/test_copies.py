"""The list as scripts read it, and when it is drawn: thousands of rows."""

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

MANY = 2500  # rows
Session = Any


@pytest.fixture
def session(extension: Extension, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """With many rows that are PAUSED."""
    store = importlib.import_module(f"{extension.package}.session.store")
    monkeypatch.setattr(store, "user_folder", lambda: tmp_path)
    session = sys.modules[f"{extension.package}.session"].current()
    add(session, extension, *(f"https://files.example/{number}.bin" for number in range(MANY)))
    session.mirror.flush()
    yield session
    session.remove(*session.rows, delete=False)
    session.mirror.flush()


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


def test_many_new_rows_are_there_at_once(session: Session, extension: Extension) -> None:
    add(session, extension, *(f"https://files.example/more-{number}.bin" for number in range(MANY)))
    session.mirror.flush()
    assert copied() == expected(session)


def test_what_changes_is_seen_at_once(session: Session) -> None:
    for row in session.rows:
        session.cancel(row)
    assert {item.status for item in state().items} == {"CANCELLED"}


@pytest.mark.parametrize("kept", [2000, 1000, 1, 0])
def test_many_rows_go_and_the_others_move_up(session: Session, kept: int) -> None:
    rows = list(session.rows)
    state().active_index = MANY - 1
    gone = rows[: MANY - kept]
    session.remove(*gone, delete=False)
    session.mirror.flush()
    assert copied() == expected(session)
    if kept:
        assert state().items[state().active_index].uid == rows[-1].uid


def test_what_a_script_did_to_the_copy_is_undone(session: Session) -> None:
    state().items.clear()
    session.cancel(next(iter(session.rows)))
    session.mirror.flush()
    assert copied() == expected(session)


def test_a_row_that_is_moved_over_many_stays_active(session: Session) -> None:
    last = list(session.rows)[-1]
    state().active_index = MANY - 1
    session.move(last, "TOP")
    session.mirror.flush()
    assert copied() == expected(session)
    assert state().active_index == 0


# -- What an item tells, which it reads from its row.

TOLD = ("name", "url", "filepath", "status", "error", "note", "progress")


def test_an_item_whose_row_has_just_gone_is_empty(session: Session) -> None:
    session.remove(next(iter(session.rows)), delete=False)
    item = state().items[0]
    assert [getattr(item, name) for name in TOLD] == ["", "", "", "QUEUED", "", "", 0.0]


@pytest.mark.parametrize("name", TOLD)
def test_what_an_item_tells_cannot_be_changed(session: Session, name: str) -> None:
    item = state().items[0]
    with pytest.raises(AttributeError, match="read-only"):
        setattr(item, name, getattr(item, name))


@pytest.mark.parametrize("odd", ["caf\udce9", "\ud800", "line\nbreak", "\U0001f480", "x" * 5000])
def test_texts_that_blender_may_not_take(session: Session, odd: str) -> None:
    row, item = next(iter(session.rows)), state().items[0]
    row.filepath = row.error = row.note = f"/tmp/{odd}"
    assert item.filepath == row.filepath
    shown = f"/tmp/{odd}".encode("utf-8", "replace").decode()
    assert [item.path_resolve(name) for name in ("filepath", "error", "note")] == [shown] * 3


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

    def unregister(self, function: Callable[[], float | None]) -> None:
        self._timers.remove(function)

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


def test_the_time_left_for_all_is_measured_anew_after_a_standstill(
    ticks: Ticks, session: Session, extension: Extension
) -> None:
    job = importlib.import_module(f"{extension.package}.transfer.job")
    row, mib = session.rows.at(0), 1 << 20
    session.put(row, type(row.status).RUNNING)
    session.tally.began = 1.0  # a run goes on

    def come(received: int, idle: float = 0.0) -> None:
        progress = job.Progress("f", received * mib, 1000 * mib, job.Phase.BODY, idle)
        session.progressed(row.uid, progress, 1.0)
        ticks.drawn(1.0)

    for second in range(100):
        come(second)
    assert ticks.redraws.pace.left == pytest.approx(901, rel=0.1)
    for idle in range(60):
        come(100, idle)
    for second in range(1, 9):
        come(100 + second)
    assert ticks.redraws.pace.left == pytest.approx(892, rel=0.1)
    session.end_tally()


def test_who_does_something_sees_soon_what_came_of_it(ticks: Ticks) -> None:
    ticks.cost = 0.1
    ticks.drawn(20.0)
    assert ticks.redraws.draw(is_asked=True)
    assert ticks.drawn(0.2) == 0
    assert ticks.drawn(0.2) == 1
    assert ticks.drawn(4.0) == 0
