"""Thousands of links are added by a click: the list comes some at a time, whatever is done meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from blender import Blender
from downloading import Downloads
from server import Server, stall_before_headers

MANY = 2500  # links
AT_ONCE = 1000  # of them that are there when the click returns
PLACE = "/held.bin"


@pytest.fixture
def downloads(blender: Blender, server: Server, tmp_path: Path) -> Iterator[Downloads]:
    """The module's Blender with an empty list, and a server that never answers."""
    d = Downloads(blender, tmp_path / "files", "threads")
    server.add(PLACE, stall_before_headers(server.gate()))
    yield d
    d.act_if_any("cancel")
    d.wait_over()
    d.act_if_any("remove_all")


def click(d: Downloads, server: Server, then: str = "", more: str = "") -> object:
    """Add thousands, and before the next tick do something else; what that returned."""
    links = [f"{server.url(PLACE)}?{number}" for number in range(MANY)]
    text = " ".join([*links, *more.split()])
    added = f"invoke({text!r}, directory={str(d.folder)!r}); at_once = len(state().items)"
    d.b.run(f"{added}; result = {then or None}")
    assert d.b.eval("at_once") == AT_ONCE
    return d.b.eval("result")


def check_all(d: Downloads, *statuses: str) -> None:
    """All are in the list, once each."""
    d.b.wait(f"len(state().items) == {MANY}")
    assert d.b.eval("len({row.url for row in session().rows})") == MANY
    d.b.wait(f"set(statuses()) == {set(statuses)!r}")


def test_they_come_by_themselves(downloads: Downloads, server: Server) -> None:
    click(downloads, server)
    check_all(downloads, "RUNNING", "QUEUED")


@pytest.mark.parametrize(("name", "status"), [("cancel", "CANCELLED"), ("pause", "PAUSED")])
def test_all_are_stopped_in_the_middle(downloads: Downloads, server: Server, name: str, status: str) -> None:
    assert click(downloads, server, f"act({name!r})") == ["FINISHED"]
    check_all(downloads, status)
    downloads.wait_over()


def test_all_are_removed_in_the_middle(downloads: Downloads, server: Server) -> None:
    assert click(downloads, server, "act('remove_all')") == ["FINISHED"]
    downloads.b.wait("len(state().items) == 0 and not len(session().rows)")
    downloads.wait_over()


def test_after_no_tick_a_script_finds_a_row_that_is_gone(downloads: Downloads, server: Server) -> None:
    """Also where the last one is removed, and the run leaves in the very tick that takes it out."""
    downloads.start(server.url(PLACE))
    downloads.b.wait("statuses() == ['RUNNING']")
    downloads.b.run(
        "run, alike = session().run, []\n"
        "tick = run.tick\n"
        "def look():\n"
        "    goes_on = tick()\n"
        "    alike.append([item.uid for item in state().items] == [row.uid for row in session().rows])\n"
        "    return goes_on\n"
        "run.tick = look\n"
        "session().remove(session().rows.at(0), delete=True)"
    )
    downloads.wait_over()
    assert set(downloads.b.eval("alike")) == {True}


def test_one_is_cancelled_in_the_middle_and_the_others_come(downloads: Downloads, server: Server) -> None:
    click(downloads, server, "act('cancel', index=999)")
    check_all(downloads, "RUNNING", "QUEUED", "CANCELLED")
    assert downloads.b.eval("statuses().count('CANCELLED')") == 1


@pytest.mark.parametrize("again", ["retry", "replace_link"])
def test_what_waits_again_comes_before_what_is_further_down(
    downloads: Downloads, server: Server, again: str
) -> None:
    """Hundreds of those were handed to the workers by then, who would take long with them."""
    click(downloads, server)
    check_all(downloads, "RUNNING", "QUEUED")
    first, second = (row.uid for row in downloads.rows()[:2])
    downloads.act("cancel", uid=first)
    downloads.b.wait("statuses()[0] == 'CANCELLED'")
    options = {"url": f"{server.url(PLACE)}?new"} if again == "replace_link" else {}
    downloads.act(again, uid=first, **options)
    downloads.b.wait("statuses()[0] == 'QUEUED'")
    downloads.act("cancel", uid=second)
    downloads.b.wait("statuses()[0] == 'RUNNING'")


def test_a_file_is_opened_in_the_middle(downloads: Downloads, server: Server) -> None:
    click(downloads, server, "sorted(bpy.ops.wm.read_homefile())")
    check_all(downloads, "RUNNING", "QUEUED")


def test_another_click_in_the_middle(downloads: Downloads, server: Server) -> None:
    url = server.url("/other.bin")
    server.add("/other.bin", stall_before_headers(server.gate()))
    assert click(downloads, server, f"invoke({url!r}, directory={str(downloads.folder)!r})") == ["FINISHED"]
    downloads.b.wait(f"len(state().items) == {MANY} + 1")
    assert downloads.b.eval("state().items[-1].name") == "other.bin"


def test_a_script_that_waits_for_one_of_them_hears_that_it_is_at_work(
    downloads: Downloads, server: Server
) -> None:
    url = f"{server.url(PLACE)}?{MANY - 1}"
    downloads.b.run(
        "def script(url, folder):\n"
        "    try:\n"
        "        bpy.ops.downloads.start(urls=url, directory=folder)\n"
        "    except RuntimeError as error:\n"
        "        return str(error)\n"
    )
    said = click(downloads, server, f"script({url!r}, {str(downloads.folder)!r})")
    assert "It is already being downloaded" in str(said)
    check_all(downloads, "RUNNING", "QUEUED")


def test_what_cannot_be_read_is_said_once_at_the_end(downloads: Downloads, server: Server) -> None:
    click(downloads, server, more="https://files.example:99999/x")
    check_all(downloads, "RUNNING", "QUEUED")
    downloads.b.wait("not session().intake.is_waiting")
    downloads.b.steps("pause(0.1)")
    said = [line for line in downloads.b.eval("take_reports()") if "cannot be read" in line]
    assert len(said) == 1


def test_the_extension_is_disabled_in_the_middle(downloads: Downloads, server: Server) -> None:
    click(downloads, server, "part('session').close_session()")
    downloads.b.run("part('session').open_session()")
    downloads.b.run("session().begin()")
    check_all(downloads, "PAUSED")
    downloads.b.move(5, 5)  # with its class still there the operator ends with an event; no timer brings one
