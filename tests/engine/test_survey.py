"""A look into folders by a child process: those that answer, and those that do not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driving import leave_part

from background_downloads.hosts import spawn
from background_downloads.workers import Found, Survey, look_into

SILENT = "silent"
SOON = 60.0  # seconds, so that what never ends fails
HANGS = """
room_of_it = importlib.import_module(package + ".hosts." + room)
look = room_of_it.look_into
room_of_it.look_into = lambda folder: __import__("time").sleep(1000) if "silent" in folder else look(folder)
"""


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of this name does not answer, as on a network drive that went away."""
    code, serves = spawn._BOOT, 'importlib.import_module(package + ".hosts." + room)'
    assert serves in code
    monkeypatch.setattr(spawn, "_BOOT", code.replace(serves, HANGS.strip() + "\n" + serves))


@pytest.fixture
def new_survey() -> Iterator[Callable[..., Survey]]:
    made: list[Survey] = []

    def make(*folders: Path) -> Survey:
        made.append(Survey(map(str, folders)))
        made[-1]._end = float("inf")  # that a machine is busy is no failure
        return made[-1]

    yield make
    for survey in made:
        survey.close()
        survey._process.wait(SOON)


def test_what_lies_in_folders_is_found_as_a_look_into_each_would(
    new_survey: Callable[..., Survey], tmp_path: Path
) -> None:
    name = leave_part(tmp_path / "files")
    other_name = tmp_path / "files" / ".." / "files"
    folders = [tmp_path / "files", other_name, tmp_path / "missing"]
    survey = new_survey(*folders)
    while survey.look():
        survey._connection.poll(SOON)
    assert survey.found == {str(folder): look_into(str(folder)) for folder in folders}
    assert [left.name for left in survey.found[str(other_name)].parts or ()] == [name]
    assert survey.found[str(other_name)].place == os.path.realpath(tmp_path / "files")
    survey._process.wait(SOON)  # it is gone


def test_a_folder_that_does_not_answer_keeps_no_other_waiting_and_is_given_up(
    new_survey: Callable[..., Survey], silent: None, tmp_path: Path
) -> None:
    leave_part(tmp_path / "files")
    survey, folder = new_survey(tmp_path / SILENT, tmp_path / "files"), str(tmp_path / "files")
    while survey.found[folder].parts is None:
        survey._connection.poll(SOON)
        assert survey.look()
    survey._end = 0.0
    assert not survey.look()
    assert survey.found[str(tmp_path / SILENT)] == Found(str(tmp_path / SILENT))


def test_its_child_leaves_with_blender_whatever_it_waits_for(
    new_survey: Callable[..., Survey], silent: None, tmp_path: Path
) -> None:
    survey = new_survey(tmp_path / SILENT)
    survey._connection.close()
    survey._process.wait(SOON)


def test_a_child_that_dies_ends_it(new_survey: Callable[..., Survey], silent: None, tmp_path: Path) -> None:
    survey = new_survey(tmp_path / SILENT)
    survey._process.kill()
    survey._process.wait()
    assert not survey.look()
