"""A folder whose disk does not answer: nobody waits for it, whatever is asked of the list.

Each test would stand still without that; after a while its drive goes away, so that it fails instead.
"""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
import pytest
from mounting import Silent

if TYPE_CHECKING:
    from conftest import Extension

URL = "https://files.example/a.bin"
NEW = "https://files.example/b.bin"
LONG = 30.0  # seconds after which somebody has waited
SILENCE = "does not answer"


class Drive:
    """The list, with a download into a folder that does not answer."""

    def __init__(self, package: str, silent: Silent) -> None:
        self.package = package
        self.silent = silent
        self.folder = str(silent.place / "files")
        self.session = self.module("session").current()
        self.row = self.add(URL)[0]

    def module(self, name: str) -> Any:
        return importlib.import_module(f"{self.package}.{name}")

    def add(self, *urls: str) -> list[Any]:
        links, _ = self.module("transfer.names").parse_links(" ".join(urls))
        return list(self.session.add(links, directory=self.folder))

    def put(self, status: str) -> None:
        self.session.put(self.row, type(self.row.status)(status))

    def known(self) -> dict[str, list[str]]:
        with self.session.store.folders.held() as known:
            return dict(known)


@pytest.fixture
def drive(extension: Extension, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drive]:
    user, place = tmp_path / "user", tmp_path / "drive"
    user.mkdir()
    place.mkdir()
    store = importlib.import_module(f"{extension.package}.session.store")
    monkeypatch.setattr(store, "user_folder", lambda: user)
    monkeypatch.setattr(importlib.import_module(f"{extension.package}.hosts.survey"), "MOMENT", 0.25)
    silent = Silent(place)
    timer = threading.Timer(LONG, silent.off)
    timer.start()
    yield Drive(extension.package, silent)
    timer.cancel()
    timer.join()
    assert silent.is_on
    silent.off()
    for thread in threading.enumerate():
        if thread.name == "downloads-disk":
            thread.join(LONG)


@pytest.mark.parametrize("delete", [False, True], ids=["kept", "deleted"])
@pytest.mark.parametrize("count", [1, 200])
def test_rows_are_removed_and_do_not_come_back(drive: Drive, count: int, *, delete: bool) -> None:
    drive.add(*(f"https://files.example/{number}.bin" for number in range(1, count)))
    part = drive.row.part
    drive.session.remove(*drive.session.rows, delete=delete)
    assert len(drive.session.rows) == 0
    assert part in drive.known()[drive.folder]


def test_a_removed_one_that_is_wanted_again_stays_once_its_disk_is_back(drive: Drive) -> None:
    drive.session.remove(drive.row, delete=True)
    drive.add(URL)
    assert drive.session._doomed == {}
    assert drive.known()[drive.folder] == []


def test_a_download_that_failed_there_goes_into_another_folder(drive: Drive, tmp_path: Path) -> None:
    drive.put("FAILED")
    drive.session.change_folder(drive.row, str(tmp_path / "other"))
    assert (drive.row.status, drive.row.directory) == ("QUEUED", str(tmp_path / "other"))


def test_a_download_that_failed_goes_into_no_folder_that_does_not_answer(drive: Drive) -> None:
    drive.put("FAILED")
    drive.session.rows.change_folder(drive.row, str(drive.silent.place.parent))
    with pytest.raises(drive.module("transfer.job").TransferError, match=SILENCE):
        drive.session.change_folder(drive.row, drive.folder)


def test_a_link_is_replaced(drive: Drive) -> None:
    part = drive.row.part
    drive.session.replace_link(drive.row, drive.module("transfer.names").Link(NEW))
    assert (drive.row.url, drive.row.partial) == (NEW, part)


def test_what_a_worker_lets_go_of(drive: Drive) -> None:
    drive.row.partial = drive.row.part
    drive.session.ended(drive.row.uid, drive.module("transfer.job").Halted())
    assert drive.row.partial == drive.row.part


def test_a_folder_is_not_shown(drive: Drive) -> None:
    with pytest.raises(RuntimeError, match=SILENCE):
        bpy.ops.downloads.open_folder(uid=drive.row.uid)


def test_partial_files_are_looked_for_elsewhere(drive: Drive) -> None:
    bpy.ops.downloads.find_leftovers()
    assert (drive.session.silent, drive.session.leftovers) == ([drive.folder], [])
    bpy.ops.downloads.delete_leftovers()


def test_a_dialog_says_so_until_it_answers(drive: Drive) -> None:
    ahead, job = drive.session.ahead, drive.module("transfer.job")
    ahead.show([], drive.module("session.dialog")._host)
    ahead.weigh(drive.folder, job.IfExists.RENAME)
    assert SILENCE in ahead.silence
    assert not ahead.poll()


def test_the_very_first_start(drive: Drive) -> None:
    session = drive.module("session.session").Session()
    try:
        assert session.open([drive.folder])
        session.take_in()
    finally:
        session.close()


def test_what_was_finished_there_just_before_blender_was_killed(drive: Drive, tmp_path: Path) -> None:
    records, session = drive.module("session.records"), drive.module("session.session").Session()
    data = records.encode_list([records.encode_row(drive.row)])
    (tmp_path / "user" / "queue-1.json").write_bytes(data)
    done = json.dumps([drive.row.uid, f"{drive.folder}/a.bin"])
    (tmp_path / "user" / "queue-1.done").write_text(done)
    try:
        session.open([])
        session.take_in()
        assert list(session.rows) == []
    finally:
        session.close()


@pytest.fixture
def library(drive: Drive) -> Iterator[str]:
    """An asset library that does not answer."""
    libraries = bpy.context.preferences.filepaths.asset_libraries
    made = libraries.new(name="Silent", directory=drive.folder)
    yield drive.folder
    libraries.remove(made)


def test_an_asset_library_that_does_not_answer(drive: Drive, library: str, tmp_path: Path) -> None:
    libraries = drive.module("session.libraries")
    assert not libraries._are_in_libraries({str(tmp_path)})
    assert libraries.catalogs_of(library) == {}


def test_a_folder_is_asked_again_once_it_has_answered(
    drive: Drive, new_gate: Callable[[], threading.Event]
) -> None:
    survey, gate = drive.module("hosts.survey"), new_gate()
    assert survey.ask(lambda folder: gate.wait(), ["/here", "/there"]) == {}
    assert survey.ask(lambda folder: folder, ["/here", "/elsewhere"]) == {"/elsewhere": "/elsewhere"}
    gate.set()
    for thread in list(survey._silent.values()):
        thread.join(LONG)
    assert survey.ask(lambda folder: folder, ["/here"]) == {"/here": "/here"}


def test_a_folder_that_is_slow_gets_the_time_that_it_takes(
    drive: Drive, new_gate: Callable[[], threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    survey, gate = drive.module("hosts.survey"), new_gate()
    monkeypatch.setattr(survey, "SLOW", LONG)
    assert survey.ask(lambda folder: gate.wait(), ["/slow"]) == {}
    thread = survey._silent["/slow"]
    gate.set()
    thread.join(LONG)
    assert survey._slow["/slow"] > 2 * survey.MOMENT
    survey._slow["/slow"] = LONG
    monkeypatch.setattr(survey, "MOMENT", 0.0)
    assert survey.ask(lambda folder: folder, ["/slow"]) == {"/slow": "/slow"}


@pytest.fixture
def new_gate() -> Iterator[Callable[[], threading.Event]]:
    gates: list[threading.Event] = []

    def make() -> threading.Event:
        gates.append(threading.Event())
        return gates[-1]

    yield make
    for gate in gates:
        gate.set()
