"""Thousands of links that are added: the first come at once, the others some at a time, and none is lost."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
import pytest

if TYPE_CHECKING:
    from conftest import Extension

MANY = 2500  # links
AT_ONCE = 1000
LINK = "https://files.example/{}.bin"
BROKEN = "https://files.example:99999/x.bin"  # looks like a link, but its port is none


class Adding:
    """The extension's list, and thousands of links that are added to it as by a click."""

    def __init__(self, package: str, folder: Path) -> None:
        self._intake = importlib.import_module(f"{package}.session.intake")
        self.names = importlib.import_module(f"{package}.transfer.names")
        self.session = importlib.import_module(f"{package}.session").current()
        self._if_exists = importlib.import_module(f"{package}.transfer.job").IfExists.RENAME
        self.folder = str(folder)

        self.when_done = "NOTHING"

    @property
    def options(self) -> dict[str, Any]:
        return {"if_exists": self._if_exists, "when_done": self.when_done}

    @property
    def urls(self) -> list[str]:
        return [row.url for row in self.session.rows]

    def click(self, words: list[str]) -> None:
        self.session.intake.add(self._intake.Batch(words, self.folder, self.options))
        self.session.take_in(AT_ONCE)

    def add(self, url: str) -> Any:
        """As a script does that starts a single download."""
        links, _ = self.names.parse_links(url)
        return self.session.add(links, directory=self.folder, **self.options)[0]


@pytest.fixture
def adding(extension: Extension, tmp_path: Path) -> Iterator[Adding]:
    adding = Adding(extension.package, tmp_path)
    yield adding
    adding.session.take_in()
    adding.session.intake.problems()
    adding.session.remove(*adding.session.rows, delete=False)
    adding.session.flush()


def many(count: int = MANY) -> list[str]:
    return [LINK.format(number) for number in range(count)]


def test_the_first_thousand_come_at_once_and_the_others_in_their_order(adding: Adding) -> None:
    adding.click(many())
    assert adding.urls == many(AT_ONCE)
    assert adding.session.wants_run
    assert len(adding.session.take_in(700)) == 700
    assert adding.urls == many(1700)
    adding.session.take_in(MANY)
    assert adding.urls == many()
    assert not adding.session.intake.is_waiting
    assert adding.session.take_in() == []


def test_nothing_lands_in_a_file_that_was_opened_before_its_link_came(
    adding: Adding, extension: Extension
) -> None:
    adding.when_done = "IMPORT"
    adding.click(many(AT_ONCE + 1))
    bpy.ops.wm.read_homefile(use_empty=True)
    adding.session.take_in()
    *_, last = adding.session.rows
    job = importlib.import_module(f"{extension.package}.transfer.job")
    adding.session.ended(last.uid, job.Finished(filepath="/gone/a.blend", size=1))
    assert "another .blend file has been opened since" in last.note


def test_what_waits_is_no_end_of_a_run(adding: Adding) -> None:
    adding.click(many())
    for row in adding.session.rows:
        adding.session.cancel(row)
    assert adding.session.is_waiting
    adding.session.take_in()
    assert adding.session.rows.is_waiting


def test_without_a_run_they_come_too(adding: Adding) -> None:
    adding.click(many())
    adding.session.rest(0.0)
    adding.session.rest(0.0)
    assert adding.urls == many()


@pytest.mark.parametrize("at", [0, AT_ONCE, MANY])
def test_what_cannot_be_read_is_told_once_when_all_have_come(adding: Adding, at: int) -> None:
    adding.click([*many()[:at], BROKEN, *many()[at:]])
    assert adding.session.intake.problems() == []
    adding.session.take_in()
    (problem,) = adding.session.intake.problems()
    assert "its server or its port cannot be read" in problem
    assert adding.session.intake.problems() == []
    assert adding.urls == many()


def test_whoever_adds_meanwhile_finds_those_that_are_on_their_way(adding: Adding) -> None:
    adding.click(many())
    row = adding.add(LINK.format(MANY - 1))
    assert (row.uid, row.status.value) == (0, "FAILED")
    assert "already being downloaded" in row.error
    assert adding.urls == many()


def test_what_is_in_the_list_already_is_told(adding: Adding) -> None:
    adding.add(LINK.format(MANY - 1))
    adding.click(many())
    adding.session.take_in()
    (problem,) = adding.session.intake.problems()
    assert problem.startswith(LINK.format(MANY - 1))
    assert len(adding.urls) == MANY


@pytest.mark.parametrize("goes", [False, True])
def test_a_stopped_row_gives_way_unless_it_has_gone_meanwhile(adding: Adding, goes: bool) -> None:
    old = adding.add(LINK.format(MANY - 1))
    adding.session.pause(old)
    adding.click(many())
    if goes:
        adding.session.remove(old, delete=False)
    adding.session.take_in()
    assert old not in adding.session.rows
    assert adding.urls == many()


def test_a_download_that_has_ended_meanwhile_is_another_one(adding: Adding) -> None:
    old = adding.add(LINK.format(MANY - 1))
    adding.click(many())
    status = type(old.status)
    adding.session.put(old, status.FINISHED)
    adding.session.take_in()
    assert adding.session.intake.problems() == []
    assert adding.urls == [old.url, *many()]


def test_another_link_for_a_row_is_not_one_that_is_on_its_way(adding: Adding) -> None:
    old = adding.add(LINK.format("old"))
    adding.session.pause(old)
    adding.click(many())
    (link,), _ = adding.names.parse_links(LINK.format(MANY - 1))
    with pytest.raises(Exception, match="This link is in the list already"):
        adding.session.replace_link(old, link)


def test_what_is_given_up_is_all_of_them(adding: Adding) -> None:
    adding.click(many())
    adding.session.give_up()
    assert [row.status.value for row in adding.session.rows] == ["PAUSED"] * MANY


def test_the_first_one_is_active_and_stays_so(adding: Adding) -> None:
    adding.add(LINK.format("old"))
    adding.click(many())
    adding.session.mirror.flush()
    state = bpy.context.window_manager.downloads
    assert state.items[state.active_index].url == LINK.format(0)
    adding.session.take_in()
    adding.session.mirror.flush()
    assert state.items[state.active_index].url == LINK.format(0)


def test_disabled_meanwhile_the_list_keeps_all(adding: Adding, extension: Extension) -> None:
    lines: list[int] = []
    adding.click(many())
    adding.session.store.close = lambda: lines.append(len(adding.session.rows))
    extension.disable()
    assert lines == [MANY]
    extension.enable()
    adding.session = importlib.import_module(f"{extension.package}.session").current()
