"""Which rows give way to which, and what becomes of their partial files: the list without a run."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import bpy
import pytest

if TYPE_CHECKING:
    from conftest import Extension

URL = "https://me:password@files.example/a.bin?signature=1"
NEW = "https://me:password@files.example/a.bin?signature=2"


class Run:
    """One that has no worker any more, and is not over."""

    def has(self, uid: int) -> bool:
        return False

    def spare(self, *, stops_all: bool = False) -> None:
        pass


class List:
    """The extension's list, as its operators use it."""

    def __init__(self, package: str, folder: Path) -> None:
        names = "transfer.job", "transfer.part"
        self._modules = {name: importlib.import_module(f"{package}.{name}") for name in names}
        self.names = importlib.import_module(f"{package}.transfer.names")
        self.survey = importlib.import_module(f"{package}.hosts.survey")
        self.session = importlib.import_module(f"{package}.session").current()
        self.folder = folder
        self.package = package

    def leave_part(self, url: str = URL, count: int = 10) -> str:
        """A partial file of this link lies in the folder; its name."""
        part = self._modules["transfer.part"].Part(url, str(self.folder), None)
        part.open()
        part.write(memoryview(bytes(count)), 0)
        part.close()
        return os.path.basename(part.file.place)

    def find(self) -> list[Any]:
        """Look into the folder, as after a start without a list."""
        store, have = self.session.store, self.session.rows
        with store.folders.held() as known:
            known.setdefault(str(self.folder), [])
            found = {folder: self.survey.look_into(folder) for folder in known}
            self.session._take_up(store.find_lost(have, known, found))
        return list(self.session.rows)

    def add(self, *urls: str) -> list[Any]:
        links, problems = self.names.parse_links(" ".join(urls))
        assert problems == []
        if_exists = self._modules["transfer.job"].IfExists.RENAME
        self.session.add(links, directory=str(self.folder), if_exists=if_exists, when_done="NOTHING")
        return list(self.session.rows)

    def replace(self, row: Any, url: str) -> None:
        (link,), _ = self.names.parse_links(url)
        self.session.replace_link(row, link)

    def halted(self) -> Any:
        return self._modules["transfer.job"].Halted()

    def finished(self, path: Path) -> Any:
        return self._modules["transfer.job"].Finished(filepath=str(path), size=10)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*.part"))


@pytest.fixture
def rows(extension: Extension, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> List:
    user, folder = tmp_path / "user", tmp_path / "files"
    user.mkdir()
    folder.mkdir()
    store = importlib.import_module(f"{extension.package}.session.store")
    monkeypatch.setattr(store, "user_folder", lambda: user)
    return List(extension.package, folder)


def test_a_rows_partial_file_is_looked_for_as_windows_reaches_its_folder(
    rows: List, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, far = rows.leave_part(), "/far"
    portable = importlib.import_module(f"{rows.package}.transfer.portable")
    monkeypatch.setattr(portable, "reach", lambda path: str(path).replace(far, str(rows.folder)))
    look = importlib.import_module(f"{rows.package}.session.session")._lying
    assert look(far, [part, "b.bin.part"]) == [part]


def test_who_adds_to_many_folders_walks_over_the_list_no_more_often(
    rows: List, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks, kind = [], type(rows.session.rows)
    walk = kind.__iter__
    monkeypatch.setattr(kind, "__iter__", lambda self: walks.append(self) or walk(self))
    for number in range(50):
        rows.folder = rows.folder.parent / str(number)
        (link,), _ = rows.names.parse_links(URL)
        rows.session.add([link], directory=str(rows.folder))
    assert walks == []
    assert len(rows.session.rows) == 50


def test_a_link_is_found_in_the_folder_that_it_went_into(rows: List, tmp_path: Path) -> None:
    first, other = failed(rows), tmp_path / "other"
    rows.session.change_folder(first, str(other))
    assert rows.add(URL)[0] is first
    assert len(rows.session.rows) == 2
    rows.session.put(first, type(first.status).PAUSED)
    rows.folder = other
    assert first not in rows.add(URL)
    assert len(rows.session.rows) == 2


def test_all_places_of_a_file_are_asked_in_turn_and_then_from_the_first_again(rows: List) -> None:
    session, (row,) = rows.session, rows.add(f"{URL}#md5={'0' * 32}")
    row.mirrors = NEW, "https://other.example/a.bin"
    digest, asked, failed = row.digest, [], rows._modules["transfer.job"].Failed
    for round_ in (1, 2):
        while row.status.value == "QUEUED":
            asked.append(row.url)
            session.ended(row.uid, failed(f"nothing there {round_}"))
        assert (row.status.value, row.error, row.digest) == ("FAILED", f"nothing there {round_}", digest)
        session.queue(row)
    assert asked == [URL, NEW, "https://other.example/a.bin"] * 2


def test_a_place_that_somebody_gives_is_asked_first(rows: List) -> None:
    session, (row,) = rows.session, rows.add(URL)
    row.mirrors = (NEW,)
    failed = rows._modules["transfer.job"].Failed("nothing there")
    session.ended(row.uid, failed)
    rows.replace(row, "https://third.example/a.bin")
    asked = []
    while row.status.value == "QUEUED":
        asked.append(row.url)
        session.ended(row.uid, failed)
    assert asked == ["https://third.example/a.bin", URL]


def test_a_new_link_keeps_the_digest_and_the_same_one_again_says_what_counts(rows: List) -> None:
    (row,) = rows.add(f"{URL}#md5={'0' * 32}")
    rows.replace(row, NEW)
    assert row.digest.hex == "0" * 32
    rows.replace(row, f"{NEW}#md5={'1' * 32}")
    assert row.digest.hex == "1" * 32
    rows.replace(row, NEW)
    assert row.digest is None


def test_a_new_start_knows_how_far_the_row_was_that_gives_way(rows: List) -> None:
    old = failed(rows)
    old.progress = old.progress._replace(name="called.bin", received=10, size=20)
    row = rows.add(URL)[-1]
    assert (row is not old, row.name, row.received, row.size) == (True, "called.bin", 10, 20)
    assert rows.session.job(row).called == "called.bin"


def test_half_a_link_gives_way_to_the_whole_one(rows: List) -> None:
    rows.leave_part()
    (half,) = rows.find()
    assert half.is_cut
    (row,) = rows.add(URL)
    assert (row.url, row.uid != half.uid, row.is_cut) == (URL, True, False)
    assert rows.find() == [row]


def test_half_a_link_does_not_give_way_to_another_one(rows: List) -> None:
    rows.leave_part()
    (half,) = rows.find()
    found = rows.add("https://files.example/a.bin")
    assert found[0] is half
    assert len(found) == 2


def test_half_a_link_is_replaced_by_the_whole_one(rows: List) -> None:
    name = rows.leave_part()
    (row,) = rows.find()
    rows.replace(row, URL)
    assert (row.url, row.status, row.error, row.is_cut) == (URL, "QUEUED", "", False)
    rows.session.remove(row, delete=True)
    assert name not in rows.files()


def test_half_a_link_is_not_queued(rows: List) -> None:
    rows.leave_part()
    (row,) = rows.find()
    rows.session.queue(row)
    assert row.status == "FAILED"
    assert row.error


def test_removing_half_a_link_deletes_its_part_and_no_other(rows: List) -> None:
    half, other = rows.leave_part(), rows.leave_part("https://files.example/a.bin")
    row = next(row for row in rows.find() if row.is_cut)
    rows.session.remove(row, delete=True)
    assert rows.files() == [other]
    assert half != other


def test_a_removed_row_comes_back_when_its_link_is_added(rows: List) -> None:
    rows.leave_part()
    (row,) = rows.find()
    rows.session.remove(row, delete=False)
    assert rows.find() == []
    (row,) = rows.add(URL)
    rows.session.drop(row)  # as if the list had been lost
    rows.session.store.folders._removed.clear()
    assert len(rows.find()) == 1


def add_many(rows: List) -> list[str]:
    """Thousands of rows, were it not for the time; the partial files of the first, the last and another."""
    links = [f"https://files.example/{number}.bin" for number in range(200)]
    parts = [rows.leave_part(link) for link in (links[0], links[-1])]
    row, *_ = rows.add(*links)
    row.partial = rows.leave_part("https://files.example/earlier.bin")
    return sorted([*parts, row.partial])


@pytest.mark.parametrize("delete", [True, False])
def test_many_rows_that_leave_cost_one_look_into_their_folder(
    rows: List, monkeypatch: pytest.MonkeyPatch, delete: bool
) -> None:
    parts, other = add_many(rows), rows.leave_part("https://files.example/no_rows.bin")
    asked, lexists = [], os.path.lexists
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "lexists", lambda path: asked.append(path) or lexists(path))
        rows.session.remove(*rows.session.rows, delete=delete)
    assert len(asked) <= len(parts)
    assert rows.files() == sorted([other, *([] if delete else parts)])
    assert {row.url for row in rows.find()} == {"https://files.example/no_rows.bin"}


def test_many_rows_leave_where_nobody_may_look_into_their_folder(
    rows: List, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise PermissionError

    add_many(rows)
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", refuse)
        rows.session.remove(*rows.session.rows, delete=True)
    assert rows.files() == []


def test_a_link_that_is_replaced_twice_keeps_what_the_first_one_received(rows: List) -> None:
    (row,) = rows.add(URL)
    first = rows.leave_part()
    rows.replace(row, "https://files.example/b.bin")
    rows.replace(row, "https://files.example/c.bin?x=1")
    assert row.partial == first
    rows.replace(row, URL)
    assert rows.session.job(row).partial == first
    rows.session.remove(row, delete=True)
    assert rows.files() == []


def test_the_earlier_part_goes_with_the_row_also_where_the_new_link_had_one(rows: List) -> None:
    (row,) = rows.add(URL)
    rows.leave_part()
    rows.leave_part("https://files.example/b.bin")
    rows.replace(row, "https://files.example/b.bin")
    rows.session.remove(row, delete=True)
    assert rows.files() == []


@pytest.mark.parametrize(("first", "second"), [(20, 10), (10, 20)])
def test_of_the_parts_of_two_links_the_one_with_more_is_gone_on_with(
    rows: List, first: int, second: int
) -> None:
    """The second link led to another file, and somebody saw it."""
    wrong = "https://files.example/wrong.bin"
    (row,) = rows.add(URL)
    parts = {rows.leave_part(count=first): first}
    rows.replace(row, wrong)
    parts[rows.leave_part(wrong, count=second)] = second
    rows.replace(row, NEW)
    assert rows.files() == [row.partial]
    assert parts[row.partial] == 20


@pytest.mark.parametrize("links", [(NEW, URL), (URL,)], ids=["by way of another", "itself"])
def test_what_a_link_received_stays_when_it_comes_back_and_is_replaced_again(
    rows: List, links: tuple[str, ...]
) -> None:
    (row,) = rows.add(URL)
    part = rows.leave_part()
    for link in (*links, "https://files.example/c.bin"):
        rows.replace(row, link)
    assert (rows.files(), row.partial) == ([part], part)


def test_what_half_a_link_received_stays_when_the_whole_one_is_replaced(rows: List) -> None:
    part = rows.leave_part()
    (row,) = rows.find()
    for link in (URL, NEW):
        rows.replace(row, link)
    assert (rows.files(), row.partial) == ([part], part)


def test_what_was_received_stays_when_all_places_of_a_file_are_asked_twice(rows: List) -> None:
    (row,) = rows.add(URL)
    part, row.mirrors = rows.leave_part(), (NEW,)
    failed = rows._modules["transfer.job"].Failed("nothing there")
    for _ in range(2):
        rows.session.queue(row)
        while row.status.value == "QUEUED":
            rows.session.ended(row.uid, failed)
    assert (rows.files(), row.partial) == ([part], part)


def removed_while_open(rows: List, monkeypatch: pytest.MonkeyPatch) -> int:
    """A row was removed with its partial file, which a worker has open yet: its descriptor."""
    (row,) = rows.add(URL)
    rows.session.pause(row)
    portable = importlib.import_module(f"{rows.package}.transfer.portable")
    fd: int = portable.open_file(rows.folder / rows.leave_part(), os.O_RDWR)
    assert portable.lock_file(fd)
    monkeypatch.setattr(rows.session, "run", Run())
    rows.session.remove(row, delete=True)
    return fd


def test_a_part_that_is_being_closed_goes_a_little_later(rows: List, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = removed_while_open(rows, monkeypatch)
    rows.session.keep(0.0)
    assert len(rows.files()) == 1
    os.close(fd)
    rows.session.keep(0.0)
    assert rows.files() == []
    monkeypatch.undo()


def test_a_part_that_was_to_go_stays_for_a_new_row(rows: List, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = removed_while_open(rows, monkeypatch)
    rows.add(URL)
    os.close(fd)
    rows.session.keep(0.0)
    assert len(rows.files()) == 1
    monkeypatch.undo()


def test_a_part_that_cannot_go_yet_costs_no_look_at_the_list(
    rows: List, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, *_ = rows.add(*(f"https://files.example/{number}.bin" for number in range(100)))
    portable = importlib.import_module(f"{rows.package}.transfer.portable")
    fd = portable.open_file(rows.folder / rows.leave_part(row.url), os.O_RDWR)
    assert portable.lock_file(fd)
    monkeypatch.setattr(rows.session, "run", Run())
    rows.session.remove(row, delete=True)
    named = []
    monkeypatch.setattr(rows.names, "part_name", lambda *args: named.append(args) or "")
    rows.session.keep(0.0)
    os.close(fd)
    rows.session.keep(0.0)
    assert (rows.files(), named) == ([], [])
    monkeypatch.undo()


def test_what_an_earlier_link_received_is_the_new_rows_that_the_old_one_gives_way_to(rows: List) -> None:
    (row,) = rows.add(URL)
    part = rows.leave_part()
    rows.replace(row, NEW)
    rows.session.pause(row)
    (new,) = rows.add(NEW)
    assert new is not row
    assert rows.session.job(new).partial == part
    rows.session.remove(new, delete=True)
    assert rows.files() == []


def test_the_earlier_part_is_not_taken_from_another_row(rows: List) -> None:
    (row,) = rows.add(URL)
    first = rows.leave_part()
    rows.replace(row, NEW)
    assert rows.session.job(row).partial == first
    rows.add(URL)
    assert rows.session.job(row).partial == ""


def test_the_earlier_part_stays_where_another_row_has_it(rows: List) -> None:
    (row,) = rows.add(URL)
    first = rows.leave_part()
    rows.leave_part("https://files.example/b.bin")
    rows.replace(row, "https://files.example/b.bin")
    rows.add(URL)
    rows.session.remove(row, delete=True)
    assert rows.files() == [first]


def test_whose_the_earlier_part_is_costs_no_name_for_each_row_again(
    rows: List, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, other, *_ = rows.add(*(f"https://files.example/{number}.bin" for number in range(50)))
    first = rows.leave_part(row.url)
    rows.replace(row, NEW)
    rows.session.job(row)
    named, part_name = [], rows.names.part_name
    monkeypatch.setattr(rows.names, "part_name", lambda *args: named.append(args) or part_name(*args))
    assert (rows.session.job(row).partial, named) == (first, [])
    rows.replace(other, "https://files.example/0.bin")
    assert (rows.session.job(row).partial, len(named) < 5) == ("", True)


def test_what_scripts_see_of_a_replaced_link_has_no_secrets(rows: List) -> None:
    (row,) = rows.add("https://files.example/a.bin?old=secret")
    rows.session.mirror.flush()
    rows.replace(row, URL)
    rows.session.mirror.flush()
    (item,) = bpy.context.window_manager.downloads.items
    assert (item.uid, item.url) == (row.uid, "https://files.example/a.bin")


def test_scripts_know_every_status_that_a_row_can_have(extension: Extension) -> None:
    state, workers = (
        importlib.import_module(f"{extension.package}.{name}") for name in ("session.state", "workers")
    )
    known = state.DOWNLOADS_PG_item.bl_rna.properties["status"].enum_items.keys()
    assert known == list(workers.Status)


# -- Moving, and counting.


@pytest.mark.parametrize(
    ("place", "direction", "show", "expected"),
    [
        (3, "UP", "ALL", "abdce"),
        (1, "DOWN", "ALL", "acbde"),
        (3, "UP", "FAILED", "dabce"),
        (0, "DOWN", "FAILED", "bcdae"),
        (4, "UP", "FAILED", "abced"),
        (0, "UP", "FAILED", "abcde"),
        (4, "DOWN", "FAILED", "abcde"),
        (1, "DOWN", "RUNNING", "abcde"),
        (3, "TOP", "FAILED", "dabce"),
        (0, "BOTTOM", "FAILED", "bcdea"),
    ],
)
def test_up_and_down_are_past_what_is_shown(
    rows: List, place: int, direction: str, show: str, expected: str
) -> None:
    """Of a to e the first and the fourth have failed."""
    a, _, _, d, _ = these = rows.add(*(f"https://files.example/{letter}" for letter in "abcde"))
    for row in (a, d):
        rows.session.put(row, type(row.status).FAILED)
    rows.session.mirror.flush()
    bpy.context.window_manager.downloads.show = show
    try:
        assert bpy.ops.downloads.move(uid=these[place].uid, direction=direction) == {"FINISHED"}
    finally:
        bpy.context.window_manager.downloads.show = "ALL"
    assert "".join(row.name for row in rows.session.rows) == expected
    assert "".join(item.name for item in bpy.context.window_manager.downloads.items) == expected


@pytest.mark.parametrize("status", ["FAILED", "CANCELLED"])
def test_what_gives_way_to_a_new_start_counts_once_at_the_end(rows: List, status: str) -> None:
    (row,) = rows.add(URL)
    tally = rows.session.tally
    tally.began = 1.0
    rows.session.put(row, type(row.status)(status))
    assert tally.ended == 1
    (row,) = rows.add(URL)
    assert tally.ended == 0
    row.error = "Why"
    rows.session.put(row, type(row.status).FAILED)
    assert rows.session.end_tally().sentence == "1 failed: a.bin: Why"


def test_thousands_of_rows_that_somebody_left_come_some_at_a_time_and_all_to_who_needs_them(
    rows: List
) -> None:
    session, old = rows.session, importlib.import_module(f"{rows.package}.session.store").Store()
    old.open()
    for row in rows.add(*(f"https://files.example/{number}.bin" for number in range(2500))):
        old.touch(row)
    old.close()
    session.remove(*session.rows, delete=False)
    assert session.open([])
    counts = [len(session.rows) for _ in session.coming]
    assert counts == [1000, 2000, 2500]
    session.remove(*session.rows, delete=False)


@pytest.mark.parametrize("end", ["end_tally", "close"])
def test_no_look_into_folders_outlives_a_run_or_the_list(
    rows: List, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    session, made = rows.session, []
    module = importlib.import_module(f"{rows.package}.session.session")
    monkeypatch.setattr(module, "Survey", lambda folders: made.append(rows.survey.Survey(folders)) or made[0])
    monkeypatch.setattr(rows.survey.Survey, "look", lambda self: True)  # no folder answers
    session.store.folders.use(str(rows.folder), [])
    session.store.folders.save()
    store = importlib.import_module(f"{rows.package}.session.store")
    (store.user_folder() / "queue-1.lock").touch()  # of a Blender that was killed at work
    assert session.open([])
    session.take_in()
    assert list(made[0].found) == [str(rows.folder)]
    getattr(session, end)()
    made[0]._process.wait(60)
    assert session.store.has_gaps
    assert next(session.coming, None) is None


def test_what_a_person_paused_is_not_resumed_at_start(rows: List) -> None:
    by_hand, by_blender = rows.add(URL, "https://files.example/b.bin")
    rows.session.pause(by_hand)
    rows.session.give_up()
    rows.session.resume()
    assert [by_hand.status, by_blender.status] == ["PAUSED", "QUEUED"]
    rows.session.queue(by_hand)
    rows.session.give_up()
    rows.session.resume()
    assert [by_hand.status, by_blender.status] == ["QUEUED", "QUEUED"]


# -- What a row becomes once its worker has let go of it: the last wish counts.


class Worker:
    """A run that has every row, and remembers which it was asked to stop."""

    is_closed = False

    def __init__(self) -> None:
        self.stopped: list[int] = []

    def has(self, uid: int) -> bool:
        return True

    def stop(self, uid: int) -> None:
        self.stopped.append(uid)

    def spare(self, *, stops_all: bool = False) -> None:
        pass

    def recall(self) -> None:
        pass


@pytest.fixture
def held(rows: List) -> Iterator[Any]:
    """A row that a worker has, with a partial file."""
    rows.leave_part()
    (row,) = rows.add(URL)
    rows.session.started(row.uid)
    rows.session.run = Worker()
    yield row
    rows.session.run = None


def let_go(rows: List, row: Any) -> None:
    rows.session.run = None
    rows.session.ended(row.uid, rows.halted())


@pytest.mark.parametrize("is_added_again", [False, True])
def test_what_fails_once_it_was_to_leave_the_list_is_no_failure_of_the_run(
    rows: List, held: Any, *, is_added_again: bool
) -> None:
    rows.session.tally.began = 1.0
    if is_added_again:
        rows.session.pause(held)
        rows.add(URL)
    else:
        rows.session.remove(held, delete=False)
    rows.session.run = None
    rows.session.ended(held.uid, rows._modules["transfer.job"].Failed("Why"))
    assert held not in rows.session.rows
    assert rows.session.end_tally().failed == 0


class Sparing(Worker):
    """A run that has one row; what it was told of the others when it was to let the workers go."""

    def __init__(self, rows: List, uid: int) -> None:
        super().__init__()
        self._rows, self._uid = rows, uid
        self.told: list[tuple[bool, list[str]]] = []

    def has(self, uid: int) -> bool:
        return uid == self._uid

    def spare(self, *, stops_all: bool = False) -> None:
        self.told.append((stops_all, [row.status.value for row in self._rows.session.rows]))


@pytest.mark.parametrize(("action", "then"), [("cancel", "CANCELLED"), ("pause", "PAUSED")])
@pytest.mark.parametrize("is_all", [True, False])
def test_workers_may_go_before_what_waits_is_touched_where_all_stops(
    rows: List, action: str, then: str, is_all: bool
) -> None:
    these = rows.add(*(f"https://files.example/{letter}" for letter in "abc"))
    rows.session.started(these[1].uid)
    run = rows.session.run = Sparing(rows, these[1].uid)
    try:
        getattr(bpy.ops.downloads, action)(uid=0 if is_all else these[1].uid)
        assert run.told[0] == (is_all, ["QUEUED", "RUNNING", "QUEUED"])
        assert run.stopped == [these[1].uid]
        assert [these[0].status, these[2].status] == [then if is_all else "QUEUED"] * 2
    finally:
        rows.session.run = None


@pytest.mark.parametrize("is_all", [True, False])
@pytest.mark.parametrize(
    ("wishes", "then"),
    [
        (("pause", "resume"), "QUEUED"),
        (("cancel", "retry"), "QUEUED"),
        (("pause", "resume", "pause"), "PAUSED"),
        (("pause", "cancel", "retry", "cancel"), "CANCELLED"),
        (("pause", "retry"), "PAUSED"),
        (("cancel", "resume"), "CANCELLED"),
        (("cancel", "pause"), "CANCELLED"),
    ],
)
def test_each_wish_counts_though_the_worker_has_not_let_go_since_the_one_before(
    rows: List, held: Any, wishes: tuple[str, ...], then: str, is_all: bool
) -> None:
    for wish in wishes:
        getattr(bpy.ops.downloads, wish)(uid=0 if is_all else held.uid)
    assert held.status == "RUNNING"
    let_go(rows, held)
    assert held.status == then


@pytest.mark.parametrize("wish", ["pause", "cancel", "resume", "retry"])
def test_what_was_removed_is_none_of_all(rows: List, held: Any, wish: str) -> None:
    rows.session.remove(held, delete=True)
    getattr(bpy.ops.downloads, wish)()
    let_go(rows, held)
    assert (list(rows.session.rows), rows.files()) == ([], [])


def test_what_is_paused_after_it_was_removed_stays_with_its_part(rows: List, held: Any) -> None:
    rows.session.remove(held, delete=True)
    rows.session.pause(held)
    let_go(rows, held)
    assert held.status == "PAUSED"
    rows.session.remove(held, delete=False)
    assert len(rows.files()) == 1


def test_what_is_queued_after_it_was_removed_waits_with_its_part(rows: List, held: Any) -> None:
    rows.session.remove(held, delete=True)
    rows.session.queue(held)
    let_go(rows, held)
    assert (held.status, len(rows.files())) == ("QUEUED", 1)


def test_what_is_removed_goes_when_it_is_let_go_of(rows: List, held: Any) -> None:
    rows.session.remove(held, delete=True)
    assert (list(rows.session.rows), len(rows.files())) == ([held], 1)
    let_go(rows, held)
    assert (list(rows.session.rows), rows.files()) == ([], [])


def test_a_new_link_outlives_a_pause_and_not_a_finish(rows: List, held: Any) -> None:
    rows.replace(held, NEW)
    rows.session.pause(held)
    assert held.url == URL
    let_go(rows, held)
    assert (held.url, held.status) == (NEW, "PAUSED")


def test_a_new_link_comes_too_late_for_what_is_done(rows: List, held: Any, tmp_path: Path) -> None:
    rows.replace(held, NEW)
    rows.session.run = None
    rows.session.ended(held.uid, rows.finished(tmp_path / "a.bin"))
    assert (held.url, held.status) == (URL, "FINISHED")


def test_what_an_earlier_link_received_is_the_new_rows_once_the_old_one_is_let_go(
    rows: List, held: Any
) -> None:
    (part,) = rows.files()
    rows.session.run = None
    rows.replace(held, NEW)
    rows.session.run = Worker()
    rows.session.pause(held)
    rows.add(NEW)
    let_go(rows, held)
    (new,) = rows.session.rows
    assert rows.session.job(new).partial == part


def test_a_new_start_takes_what_was_asked_to_stop(rows: List, held: Any) -> None:
    rows.session.remove(held, delete=True)
    old, new = rows.add(URL)
    assert (old, new.status) == (held, "QUEUED")
    let_go(rows, held)
    assert (list(rows.session.rows), len(rows.files())) == ([new], 1)


@pytest.mark.parametrize("is_shared", [False, True])
def test_what_an_earlier_link_received_goes_once_a_script_has_the_file_unless_a_row_goes_on_with_it(
    rows: List, tmp_path: Path, *, is_shared: bool
) -> None:
    part, session = rows.leave_part(), rows.session
    if is_shared:
        session.pause(*rows.add(URL))
    links, _ = rows.names.parse_links(NEW)
    (row,) = session.new_rows(links, directory=str(rows.folder))
    row.partial = part
    row.status = session.settle(row, rows.finished(tmp_path / "a.bin"))
    session.waited([row])
    assert rows.files() == [part] * is_shared


def test_a_leftover_that_a_download_has_taken_up_is_not_deleted(rows: List) -> None:
    name = rows.leave_part()
    rows.session.store.folders.use(str(rows.folder), [])
    bpy.ops.downloads.find_leftovers()
    assert [each.name for each in rows.session.leftovers] == [name]
    (row,) = rows.add(URL)
    rows.session.pause(row)
    bpy.ops.downloads.delete_leftovers(directory=str(rows.folder), name=name)
    assert rows.files() == [name]
    assert rows.session.leftovers == []


@pytest.fixture
def windows(rows: List, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows' rules for files, played where they are not those of the system. Who waits, waits for ever."""
    portable = importlib.import_module(f"{rows.package}.transfer.portable")
    monkeypatch.setattr(portable, "PATIENCE", 1000.0)
    monkeypatch.setattr(portable, "_MOMENT", 1000.0)
    if sys.platform != "win32":
        import windows_rules

        windows_rules.tell_portable(monkeypatch.setattr, portable)
        windows_rules.refuse(monkeypatch.setattr)


@pytest.mark.parametrize("is_row", [True, False])
def test_a_part_that_another_program_has_open_goes_once_it_is_closed_and_nobody_waits(
    rows: List, windows: None, *, is_row: bool
) -> None:
    name, session = rows.leave_part(), rows.session
    if is_row:
        (row,) = rows.add(URL)
        session.pause(row)
    session.store.folders.use(str(rows.folder), [])
    with (rows.folder / name).open("rb"):  # a player shows what is there of it
        if is_row:
            session.remove(row, delete=True)
        else:
            bpy.ops.downloads.find_leftovers()
            bpy.ops.downloads.delete_leftovers()
        session.look_for_leftovers()
        assert [each.name for each in session.leftovers] == [name]
        session.rest(0.0)
        assert rows.files() == [name]
    session.rest(0.0)
    assert list(rows.folder.iterdir()) == []


def test_leftovers_are_deleted_in_the_folder_that_was_named(rows: List) -> None:
    name, other = rows.leave_part(), rows.folder.parent / "other"
    shutil.copytree(rows.folder, other)
    for folder in (rows.folder, other):
        rows.session.store.folders.use(str(folder), [])
    bpy.ops.downloads.find_leftovers()
    bpy.ops.downloads.delete_leftovers(directory=str(other))
    assert (rows.files(), list(other.glob("*.part"))) == ([name], [])
    bpy.ops.downloads.delete_leftovers()
    assert rows.files() == []


@pytest.mark.parametrize(
    "operator", ["cancel", "pause", "resume", "retry", "remove", "replace_link", "move", "open_folder"]
)
@pytest.mark.parametrize("which", [{"uid": 999_999}, {"index": 999}, {"uid": -1}, {"index": -2}])
@pytest.mark.parametrize("how", ["EXEC_DEFAULT", "INVOKE_DEFAULT"])
def test_a_row_that_does_not_exist_is_reported_once(
    rows: List, operator: str, which: dict[str, int], how: str
) -> None:
    (row,) = rows.add(URL)
    with pytest.raises(RuntimeError) as caught:
        getattr(bpy.ops.downloads, operator)(how, **which)
    assert str(caught.value).count("There is no such download") == 1
    assert (list(rows.session.rows), row.status) == ([row], "QUEUED")


@pytest.mark.parametrize("change", ["clear()", "remove(2)", "remove(0)", "add()"])
@pytest.mark.parametrize("operator", ["remove", "move"])
def test_what_a_script_does_to_the_copies_is_in_no_operators_way(
    rows: List, change: str, operator: str
) -> None:
    last = rows.add(*(f"https://files.example/{letter}" for letter in "abc"))[-1]
    rows.session.mirror.flush()
    exec(f"items.{change}", {"items": bpy.context.window_manager.downloads.items})
    getattr(bpy.ops.downloads, operator)(uid=last.uid)
    rows.session.mirror.flush()
    said = [(item.uid, item.name) for item in bpy.context.window_manager.downloads.items]
    assert said == [(row.uid, row.name) for row in rows.session.rows]


def test_who_draws_the_active_row_walks_over_no_copies(rows: List) -> None:
    these = rows.add(*(f"https://files.example/{letter}" for letter in "abc"))
    rows.session.mirror.flush()

    class Copies(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            raise AssertionError("a copy was looked up")

    state = SimpleNamespace(items=Copies(these))
    assert rows.session.mirror.row(state, 2) is these[2]
    assert [rows.session.mirror.row(state, index) for index in (-1, 3)] == [None, None]


def test_a_script_without_a_window_has_no_sidebar_to_open(extension: Extension) -> None:
    """A timer, say."""
    with bpy.context.temp_override(window=None):
        assert bpy.ops.downloads.show_list() == {"CANCELLED"}


def test_what_is_said_of_all_is_never_behind_the_list(rows: List, tmp_path: Path) -> None:
    session, (one, _) = rows.session, rows.add(URL, "https://files.example/b.bin")
    session.tally.began = 1.0  # a run goes on
    session.mirror.flush()
    assert (session.mirror.pace.done, session.mirror.pace.number) == (0, 2)
    session.started(one.uid)
    session.ended(one.uid, rows.finished(tmp_path / "a.bin"))
    assert (session.mirror.pace.done, session.mirror.pace.share) == (1, 0.5)  # though nothing was drawn since
    session.end_tally()
    session.mirror.flush()
    assert session.mirror.pace is None


# Another folder.


def failed(rows: List, url: str = URL) -> Any:
    row = rows.add(url)[-1]
    rows.session.put(row, type(row.status).FAILED)
    return row


def test_what_fails_while_a_dialog_asks_about_others_stays(
    rows: List, monkeypatch: pytest.MonkeyPatch
) -> None:
    operators = importlib.import_module(f"{rows.package}.operators")
    monkeypatch.setattr(operators._Removing, "ask_about", lambda *args: {"RUNNING_MODAL"})
    its_own = vars(operators.DOWNLOADS_OT_remove_all).items()
    methods = {name: value for name, value in its_own if "bl_" not in name}
    dialog = type("Dialog", (operators._Removing,), {**methods, "which": "FAILED", "delete_partial": True})()
    failed(rows)
    dialog.invoke(bpy.context, None)
    other = failed(rows, "https://files.example/b.bin")
    part = rows.leave_part(other.url)
    dialog.execute(bpy.context)
    assert list(rows.session.rows) == [other]
    assert rows.files() == [part]


def test_a_failed_download_takes_what_it_received_into_another_folder(rows: List, tmp_path: Path) -> None:
    row, other = failed(rows), tmp_path / "other" / "new"
    part = rows.leave_part()
    rows.session.change_folder(row, str(other))
    assert (row.directory, row.partial, row.status.value) == (str(other), part, "QUEUED")
    assert rows.files() == []
    assert sorted(path.name for path in other.iterdir()) == [part, f"{part}.json"]
    assert rows.session.job(row).partial == part


@pytest.mark.parametrize("is_alias", [False, True])
def test_the_folder_that_it_is_in_already_is_tried_again(
    rows: List, tmp_path: Path, *, is_alias: bool
) -> None:
    (row,) = rows.add(URL)
    parts = [rows.leave_part()]
    rows.replace(row, NEW)
    parts.append(rows.leave_part(NEW))
    rows.session.put(row, type(row.status).FAILED)
    alias = tmp_path / "alias"
    alias.symlink_to(rows.folder)
    rows.session.change_folder(row, str(alias if is_alias else rows.folder))
    assert (row.status.value, row.partial, row.directory) == ("QUEUED", parts[0], str(rows.folder))
    assert rows.files() == sorted(parts)
    rows.session.remove(row, delete=True)
    assert rows.files() == []


@pytest.mark.parametrize(("first", "second"), [(20, 10), (10, 20)])
def test_of_the_parts_of_two_links_the_one_with_more_moves_into_another_folder(
    rows: List, tmp_path: Path, first: int, second: int
) -> None:
    (row,) = rows.add(URL)
    parts = {first: rows.leave_part(count=first)}
    rows.replace(row, NEW)
    parts[second] = rows.leave_part(NEW, count=second)
    rows.session.put(row, type(row.status).FAILED)
    rows.session.change_folder(row, str(tmp_path / "other"))
    assert row.partial == parts[20]
    assert (tmp_path / "other" / row.partial).stat().st_size == 20


def test_what_a_worker_let_go_of_moves_before_it_is_made_durable_where_it_was(
    rows: List, tmp_path: Path
) -> None:
    """Which opens the file again, on another thread: it could not move just then."""
    left: list[list[str]] = []

    class Keeping:
        def forget(self, uid: int) -> None:
            left.append(rows.files())

    row = failed(rows)
    rows.leave_part()
    rows.session.host = Keeping()  # type: ignore[assignment]
    rows.session.change_folder(row, str(tmp_path / "other"))
    rows.session.host = None
    assert left == [[]]


def test_where_a_folder_is_chosen_nothing_else_is_asked_for(rows: List) -> None:
    """The file browser shows whatever an operator does not hide."""
    properties = bpy.ops.downloads.change_folder.get_rna_type().properties
    assert {each.identifier for each in properties if not each.is_hidden} <= {"rna_type", "directory"}


def test_bytes_that_cannot_move_stay_where_they_are_and_do_not_come_back_as_a_download(
    rows: List, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, other = failed(rows), tmp_path / "other"
    part = rows.leave_part()

    def another_disk(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(rows._modules["transfer.part"].portable, "replace", another_disk)
    bpy.ops.downloads.change_folder("EXEC_DEFAULT", uid=row.uid, directory=str(other))
    assert (row.directory, row.partial, row.received) == (str(other), "", 0)
    assert rows.files() == [part]
    monkeypatch.undo()
    assert rows.find() == [row]


def test_a_folder_that_cannot_be_had_leaves_the_download_as_it_was(rows: List, tmp_path: Path) -> None:
    row = failed(rows)
    (tmp_path / "file").write_bytes(b"")
    for wrong in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RuntimeError, match="Choose a"):
            bpy.ops.downloads.change_folder("EXEC_DEFAULT", uid=row.uid, directory=str(wrong))
    assert (row.directory, row.status.value) == (str(rows.folder), "FAILED")


def test_what_did_not_fail_keeps_its_folder(rows: List, tmp_path: Path) -> None:
    (row,) = rows.add(URL)
    with pytest.raises(RuntimeError, match="Only a download that failed"):
        bpy.ops.downloads.change_folder("EXEC_DEFAULT", uid=row.uid, directory=str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_two_downloads_of_a_link_do_not_end_up_in_one_folder(rows: List, tmp_path: Path) -> None:
    row, rows.folder = failed(rows), tmp_path / "other"
    failed(rows)
    with pytest.raises(RuntimeError, match="in the list for that folder already"):
        bpy.ops.downloads.change_folder("EXEC_DEFAULT", uid=row.uid, directory=str(rows.folder))


# -- Searching.


def found(rows: List, search: str, show: str = "ALL") -> str:
    """The places of the rows that the list shows."""
    flags = rows.session.mirror.shown(show, search)
    return "".join(str(place) for place, flag in enumerate(flags) if flag)


def test_a_search_is_as_in_blenders_own_lists(rows: List) -> None:
    rows.add(*(f"https://files.example/{name}" for name in ("Rock.blend", "rock_2.png", "moss.png")))
    assert rows.session.mirror.shown("ALL", "") == []
    assert [found(rows, search) for search in ("ROCK", ".png", "m*g", "?ock_", "[", "none")] == (
        ["01", "12", "2", "1", "", ""]
    )
    assert found(rows, "rock", "QUEUED") == "01"
    rows.session.put(rows.session.rows.at(0), type(rows.session.rows.at(0).status).FAILED)
    assert [found(rows, "rock", "QUEUED"), found(rows, "rock", "FAILED")] == ["1", "0"]


def test_a_search_finds_the_name_that_the_server_tells(rows: List) -> None:
    (row,) = rows.add("https://files.example/get?id=5")
    assert found(rows, "rock") == ""
    progress = rows._modules["transfer.job"].Progress(name="rock.blend", size=5)
    rows.session.progressed(row.uid, progress, 0.1)
    assert found(rows, "rock") == "0"
    rows.replace(row, "https://files.example/moss.png")
    row.progress = type(row.progress)()
    rows.session.changed(row)
    assert found(rows, "moss") == "0"


def test_a_search_among_thousands_makes_no_name_twice(rows: List, monkeypatch: pytest.MonkeyPatch) -> None:
    rows.add(*(f"https://files.example/{number}.bin" for number in range(100)))
    named, from_url = [], rows.names.from_url
    monkeypatch.setattr(rows.names, "from_url", lambda url: named.append(url) or from_url(url))
    for search in ("1", "12", "12."):
        rows.session.changed(rows.session.rows.at(0))
        found(rows, search)
    assert len(named) == 100
