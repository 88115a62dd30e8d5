"""What is kept of the list: another link for a row, the list on disk, a list that is gone."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blender import Blender, BlenderError, BlenderFactory, wait_until
from downloading import HOSTS, MODULE, OVERLAP, Downloads, wait_no_timer
from server import Gate, Server, after, cut_after, pattern, stall_after, status

SIZE = 200_000  # bytes of a file
HELD = 100_000  # bytes of an answer before the gate; what is left is not worth another connection
BODY = pattern(SIZE)
OLD, NEW = "/old.bin?signature=1", "/new.bin?signature=2"
THE_SAME = {"etag": '"the same"', "body": BODY}


@pytest.fixture
def downloads(blender: Blender, tmp_path: Path) -> Iterator[Downloads]:
    """The module's Blender with an empty list, its workers threads where it bears them."""
    d = Downloads(blender, tmp_path / "files", "threads")
    yield d
    d.act_if_any("cancel")
    d.wait_over()


def held(server: Server, path: str) -> tuple[str, Gate]:
    """A file that stops in its middle until the gate opens."""
    gate = server.gate()
    server.add(path.partition("?")[0], stall_after(HELD, gate), **THE_SAME)
    return server.url(path), gate


def start_held(d: Downloads, server: Server) -> tuple[str, Gate]:
    """A run that has a file in mid body."""
    url, gate = held(server, OLD)
    d.start(url)
    gate.wait_reached()
    d.wait_progress(HELD / SIZE)
    return url, gate


def add_new(server: Server) -> str:
    """The same file at another link."""
    server.add(NEW.partition("?")[0], **THE_SAME)
    return server.url(NEW)


def check_went_on(d: Downloads, server: Server) -> None:
    """The new link brought the rest, and nothing else is in the folder."""
    d.wait_over("FINISHED")
    assert server.requests_for("/new.bin")[0].range_start == HELD - OVERLAP
    assert [path.read_bytes() for path in d.folder.iterdir()] == [BODY]


# Another link.


def test_an_expired_link_is_replaced_and_the_rest_comes_from_the_new_one(
    downloads: Downloads, server: Server
) -> None:
    server.add("/old.bin", after(1, status(403)), cut_after(HELD), **THE_SAME)
    downloads.start(server.url(OLD))
    downloads.wait_over("FAILED")
    old = downloads.rows()[0]
    assert downloads.act("replace_link", uid=old.uid, url=add_new(server)) == ["FINISHED"]
    row = downloads.rows()[0]
    assert (row.uid, row.url, row.error) == (old.uid, server.url("/new.bin"), "")
    check_went_on(downloads, server)


@pytest.mark.parametrize("host", HOSTS)
def test_a_running_row_is_let_go_and_goes_on_with_the_new_link(
    blender: Blender, host: str, server: Server, tmp_path: Path
) -> None:
    d = Downloads(blender, tmp_path / "files", host)
    start_held(d, server)
    uid = d.rows()[0].uid
    assert d.act("replace_link", uid=uid, url=add_new(server)) == ["FINISHED"]
    check_went_on(d, server)
    assert d.rows()[0].uid == uid


@pytest.mark.parametrize("host", HOSTS)
def test_a_wrong_link_is_seen_on_its_way_and_the_right_one_goes_on_with_what_there_was(
    blender: Blender, host: str, server: Server, tmp_path: Path
) -> None:
    d, gate = Downloads(blender, tmp_path / "files", host), server.gate()
    start_held(d, server)
    wrong = server.add("/wrong.bin", stall_after(1000, gate), body=pattern(2 * SIZE, seed=1))
    d.act("replace_link", index=0, url=wrong)
    gate.wait_reached()
    d.wait_progress(1000 / (2 * SIZE))
    d.act("replace_link", index=0, url=add_new(server))
    check_went_on(d, server)


def test_a_new_link_brings_its_own_digest(downloads: Downloads, server: Server) -> None:
    """A wrong one costs nothing: with the right one, nothing is downloaded again."""
    start_held(downloads, server)
    downloads.act("pause")
    downloads.wait_over("PAUSED")
    downloads.act("replace_link", index=0, url=add_new(server) + "#md5=" + "0" * 32)
    downloads.wait("FAILED")
    assert "its checksum differs" in downloads.rows()[0].error
    downloads.wait_over()
    asked = len(server.requests)
    downloads.act("replace_link", index=0, url=add_new(server) + f"#md5={hashlib.md5(BODY).hexdigest()}")
    downloads.wait("FINISHED")
    downloads.wait_over()
    assert [path.read_bytes() for path in downloads.folder.iterdir()] == [BODY]
    assert len(server.requests) == asked


def test_what_a_replaced_link_received_goes_when_the_row_goes(downloads: Downloads, server: Server) -> None:
    start_held(downloads, server)
    downloads.act("pause")
    downloads.wait_over("PAUSED")
    downloads.b.run(f"links, _ = part('transfer.names').parse_links({add_new(server)!r})")
    downloads.b.run("session().replace_link(session().rows.at(0), links[0])")
    downloads.b.run("session().pause(session().rows.at(0))")
    assert len(downloads.partial_files()) == 1
    downloads.act("remove", index=0, delete_partial=True)
    assert list(downloads.folder.iterdir()) == []


def test_what_is_no_link_is_an_error(downloads: Downloads, server: Server) -> None:
    url, _ = start_held(downloads, server)
    for wrong, error in WRONG_LINKS.items():
        with pytest.raises(BlenderError, match=error) as caught:
            downloads.act("replace_link", index=0, url=wrong)
        assert "secret" not in str(caught.value).partition("\nin: ")[0].rpartition("Error:")[2]
    assert downloads.statuses() == ["RUNNING"]
    assert url.startswith(downloads.rows()[0].url)


WRONG_LINKS = {
    "": "Give one link",
    "http://a/1 http://a/2": "Give one link",
    "ftp://a/1": "No link found. Copy a link that begins with https://",
    "http://user:secret@a:b/": "its server or its port cannot be read",
}


def test_the_link_of_another_row_is_not_taken(downloads: Downloads, server: Server) -> None:
    start_held(downloads, server)
    other, _ = held(server, "/other.bin")
    downloads.start(other)
    with pytest.raises(BlenderError, match="This link is in the list already"):
        downloads.act("replace_link", index=0, url=other)


def test_a_finished_row_has_no_link_to_replace(downloads: Downloads, server: Server) -> None:
    downloads.start(add_new(server))
    downloads.wait_over("FINISHED")
    with pytest.raises(BlenderError, match="there is no link to replace"):
        downloads.act("replace_link", index=0, url="http://a/1")


# The list on disk.


UNINSTALL = """
number = [repo.module for repo in bpy.context.preferences.extensions.repos].index("user_default")
with in_view3d():
    bpy.ops.extensions.package_uninstall(repo_index=number, pkg_id="background_downloads")
"""
REINSTALL = """
with in_view3d():
    result = bpy.ops.extensions.package_install_files(
        repo={repo!r}, filepath={path!r}, enable_on_install=True)
assert result == {{"FINISHED"}}, result
"""


def check_resumes(d: Downloads, server: Server, gate: Gate) -> None:
    """The row that was found again goes on where it was."""
    gate.open()
    d.act("resume")
    d.wait_over("FINISHED")
    assert server.requests[-1].range_start == HELD - OVERLAP
    assert [path.read_bytes() for path in d.folder.iterdir()] == [BODY]


def newer(zip_path: Path, folder: Path, version: str) -> Path:
    """The extension under a later version's number."""
    path = folder / f"{version}.zip"
    with zipfile.ZipFile(zip_path) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename.endswith("blender_manifest.toml"):
                data = re.sub(rb'(?m)^version = ".*"', f'version = "{version}"'.encode(), data)
            new.writestr(info, data)
    return path


@pytest.mark.parametrize("host", list(HOSTS))
def test_the_extension_is_updated_during_a_run_and_again_while_a_row_is_paused(
    blender: Blender, server: Server, extension_zip: Path, tmp_path: Path, host: str
) -> None:
    d = Downloads(blender, tmp_path / "files", host)
    url, gate = start_held(d, server)
    for version in ("1.0.1", "1.0.2") if host == "threads" else ("1.0.3", "1.0.4"):
        d.b.run(REINSTALL.format(repo="user_default", path=str(newer(extension_zip, tmp_path, version))))
        assert d.b.eval("workers()") == []
        assert d.children() == []
        d = Downloads(d.b, d.folder, d.host)
        d.b.wait("len(session().rows)")
        d.wait("PAUSED")
        assert d.b.eval("session().rows.at(0).url") == url
    assert "/background_downloads/" not in d.b.console  # no trace of ours
    check_resumes(d, server, gate)


def test_the_extension_is_uninstalled_during_a_run_and_installed_again(
    blender_factory: BlenderFactory, server: Server, extension_zip: Path, tmp_path: Path
) -> None:
    """Its operator lives until the next event, when nothing of the extension can be imported any more."""
    b = blender_factory(online=True)
    d = Downloads(b, tmp_path / "files", "threads")
    _, gate = start_held(d, server)
    b.run(UNINSTALL)
    b.wait("not hasattr(bpy.types, 'DOWNLOADS_OT_start')")
    wait_no_timer(b)
    b.run(REINSTALL.format(repo="user_default", path=str(extension_zip)))
    gate.open()
    d = Downloads(b, d.folder, d.host)
    d.start(server.url(OLD))
    d.wait_over("FINISHED")
    assert "Traceback" not in b.console


def test_during_a_run_another_repositorys_copy_takes_over_until_it_is_disabled(
    blender_factory: Callable[..., Blender], server: Server, extension_zip: Path, tmp_path: Path
) -> None:
    """Blender withholds its data from scripts while it enables one; each repository has a list of its own."""
    b = blender_factory(online=True)
    d = Downloads(b, tmp_path / "files", "threads")
    _, gate = start_held(d, server)
    b.run(SECOND.format(folder=str(b.folder / "second")))
    b.run(REINSTALL.format(repo="second", path=str(extension_zip)))
    b.wait("second in getattr(getattr(bpy.types, 'DOWNLOADS_OT_start', None), '__module__', '')")
    assert b.eval("[workers(), modal(), statuses(), part('session').peek()]") == [[], [], [], None]
    b.run(f"import addon_utils; addon_utils.disable({SECOND_MODULE!r})")
    d = Downloads(b, d.folder, d.host)
    d.wait("PAUSED")
    assert "/background_downloads/" not in b.console  # no trace of ours
    check_resumes(d, server, gate)


def test_what_runs_goes_on_after_the_saved_preferences_were_loaded(
    blender_factory: Callable[..., Blender], server: Server, tmp_path: Path
) -> None:
    """Blender disables and enables all add-ons in one go. Nobody moves the mouse, which ends the operator."""
    b = blender_factory(online=True)
    b.run("bpy.ops.wm.save_userpref()")
    d = Downloads(b, tmp_path / "files", "threads")
    _, gate = start_held(d, server)
    b.run("with in_view3d():\n    bpy.ops.wm.read_userpref()")
    gate.open()
    d = Downloads(b, d.folder, d.host)
    d.wait_over("FINISHED")
    b.wait("not bpy.app.timers.is_registered(part('operators')._with_dialogs._removing)")
    assert b.eval("part('operators')._with_dialogs._events") == []
    assert "/background_downloads/" not in b.console  # no trace of ours


SECOND_MODULE = "bl_ext.second.background_downloads"
SECOND = f"""
second = {SECOND_MODULE!r}
repository = bpy.context.preferences.extensions.repos.new(
    name="Second", module="second", custom_directory={{folder!r}})
repository.use_custom_directory = True
"""


def test_two_blenders_at_once_and_the_rows_of_the_one_that_dies(
    mortal_blender: Callable[..., Blender], server: Server, tmp_path: Path
) -> None:
    first = Downloads(mortal_blender(), tmp_path / "files", "threads")
    url, gate = start_held(first, server)
    wait_until(lambda: first.listed_on_disk() == [url], what="the list")
    second = Downloads(mortal_blender(first.b.folder), first.folder, "threads")
    assert second.rows() == []
    second.start(url)
    second.wait("FAILED")
    assert second.rows()[0].error == "Another Blender or add-on is downloading this"
    second.act("remove", index=0, delete_partial=True)
    assert first.statuses() == ["RUNNING"]
    assert len(first.partial_files()) == 1
    first.b.kill()
    first.b.join()
    second.b.run(f"with in_view3d(): bpy.ops.preferences.addon_disable(module={MODULE!r})")
    second.b.run(f"with in_view3d(): bpy.ops.preferences.addon_enable(module={MODULE!r})")
    second.b.wait("len(session().rows)")
    second.wait("PAUSED")
    assert second.b.eval("session().rows.at(0).url") == url
    gate.open()
    second.act("resume")
    second.wait_over("FINISHED")
    assert [path.read_bytes() for path in first.folder.iterdir()] == [BODY]
    assert "/background_downloads/" not in second.b.console  # no trace of ours


def test_resumed_at_start_is_what_ran_and_not_what_a_person_paused(
    mortal_blender: Callable[..., Blender], server: Server, tmp_path: Path
) -> None:
    d = Downloads(mortal_blender(), tmp_path / "files", "threads")
    gates = [held(server, path)[1] for path in ("/paused.bin", "/ran.bin")]
    d.start(server.url("/paused.bin"), server.url("/ran.bin"))
    for index, gate in enumerate(gates):
        gate.wait_reached()
        d.wait_progress(HELD / SIZE, index)
    d.act("pause", index=0)
    d.wait("PAUSED", "RUNNING")
    d.b.run(f"bpy.context.preferences.addons[{MODULE!r}].preferences.resume_at_start = True")
    d.b.run("bpy.ops.wm.save_userpref()")
    assert d.b.quit() == 0
    for gate in gates:
        gate.open()
    for statuses in (["PAUSED", "FINISHED"], ["PAUSED"]):
        d = Downloads(mortal_blender(d.b.folder), d.folder, None)
        d.wait_over(*statuses)
        assert set(d.files()) == {"ran.bin"}
        assert d.b.quit() == 0


# A list that is gone.

ASKING = """
asked, asking = [], {name: getattr(os, name) for name in ("stat", "lstat", "scandir", "open")}

def note(name):
    def asks(path, *more, **named):
        asked.append(str(path))
        return asking[name](path, *more, **named)
    setattr(os, name, asks)
"""


@pytest.mark.parametrize("is_killed", [False, True], ids=["closed", "killed"])
def test_no_start_asks_a_folder_since_its_disk_may_not_answer(
    downloads: Downloads, server: Server, *, is_killed: bool
) -> None:
    """Where the list may lack something a child process asks it."""
    start_held(downloads, server)
    downloads.act("pause")
    downloads.wait_over()
    downloads.b.run(f"with in_view3d(): bpy.ops.preferences.addon_disable(module={MODULE!r})")
    if is_killed:
        for lock in downloads.b.folder.rglob("queue-*.lock"):
            lock.write_bytes(b"")  # as it is while downloads run
    downloads.b.run(f"{ASKING}\nfor name in asking: note(name)")
    try:
        downloads.b.run(f"with in_view3d(): bpy.ops.preferences.addon_enable(module={MODULE!r})")
        downloads.b.wait("len(state().items) and not session().store.has_gaps")
    finally:
        downloads.b.run("for name, real in asking.items(): setattr(os, name, real)")
    assert downloads.statuses() == ["PAUSED"]
    assert downloads.rows()[0].progress == pytest.approx(HELD / SIZE)
    assert downloads.b.eval("any('queue-' in path for path in asked)")
    assert not downloads.b.eval(f"[path for path in asked if path.startswith({str(downloads.folder)!r})]")


def test_folders_that_do_not_answer_after_a_kill_hold_up_neither_the_list_nor_a_run(
    downloads: Downloads, server: Server
) -> None:
    _, gate = start_held(downloads, server)
    downloads.act("pause")
    downloads.wait_over()
    downloads.b.run(f"with in_view3d(): bpy.ops.preferences.addon_disable(module={MODULE!r})")
    for lock in downloads.b.folder.rglob("queue-*.lock"):
        lock.write_bytes(b"")
    downloads.b.run("spawn = part('hosts.spawn'); boot = spawn._BOOT")
    downloads.b.run("spawn._BOOT = 'import time; time.sleep(1000)'")
    try:
        downloads.b.run(f"with in_view3d(): bpy.ops.preferences.addon_enable(module={MODULE!r})")
        downloads.wait("PAUSED")
        wait_until(downloads.children, what="who looks into the folders")
    finally:
        downloads.b.run("spawn._BOOT = boot")
    gate.open()
    downloads.act("resume")
    downloads.wait("FINISHED")
    downloads.wait_over()


SILENCE = """
import threading
answers, waiting = threading.Event(), []
asking = {name: getattr(os, name) for name in ("stat", "lstat", "scandir", "open", "access")}

def silence(name):
    def asks(path, *more, **named):
        if str(path).startswith(SILENT):
            waiting.append(name)
            answers.wait()
        return asking[name](path, *more, **named)
    setattr(os, name, asks)

for name in asking:
    silence(name)
"""


def test_a_folder_that_does_not_answer_holds_up_no_click(downloads: Downloads, server: Server) -> None:
    """What was to be done there is done once it answers."""
    start_held(downloads, server)
    downloads.act("pause")
    downloads.wait_over("PAUSED")
    downloads.b.run(f"SILENT = {str(downloads.folder)!r}\n{SILENCE}")
    try:
        with pytest.raises(BlenderError, match="does not answer"):
            downloads.act("open_folder", index=0)
        downloads.act("find_leftovers")
        assert downloads.b.eval("session().silent") == [str(downloads.folder)]
        downloads.b.run(f"part('session.dialog').show([], {str(downloads.folder)!r}, 'RENAME')")
        assert "does not answer" in downloads.b.eval("session().ahead.silence")
        downloads.act("remove", index=0, delete_partial=True)
        assert downloads.rows() == []
        assert list(downloads.folder.glob("*.part"))
    finally:
        downloads.b.run("answers.set()\nfor name, real in asking.items(): setattr(os, name, real)")
    wait_until(lambda: not list(downloads.folder.iterdir()), what="what was to go")
    downloads.b.wait("not [each for each in threading.enumerate() if each.name == 'downloads-disk']")


def test_a_folder_that_does_not_answer_holds_up_no_disabling(downloads: Downloads, server: Server) -> None:
    """Nor a start; its worker is left behind, and ends once the folder answers."""
    downloads.b.run(f"SILENT = {str(downloads.folder)!r}\n{SILENCE}")
    downloads.b.run("threads = part('hosts.threads'); patience = threads.DISK_PATIENCE")
    downloads.b.run("threads.DISK_PATIENCE = 0.1")
    ours = "[each.name for each in threading.enumerate() if each.name.startswith('downloads-')]"
    try:
        downloads.start(server.add("/a.bin", body=BODY))
        downloads.b.wait("waiting")
        downloads.b.run(f"with in_view3d(): bpy.ops.preferences.addon_disable(module={MODULE!r})")
        assert len(downloads.b.eval(ours)) == 1
    finally:
        downloads.b.run("answers.set()\nfor name, real in asking.items(): setattr(os, name, real)")
        downloads.b.run("threads.DISK_PATIENCE = patience")
    downloads.b.wait(f"not {ours}")
    downloads.b.run(f"with in_view3d(): bpy.ops.preferences.addon_enable(module={MODULE!r})")
    downloads.wait("PAUSED")
    downloads.act("resume")
    downloads.wait_over("FINISHED")


def test_a_lost_list_is_found_again_in_the_folders_that_were_used(
    mortal_blender: Callable[..., Blender], server: Server, tmp_path: Path
) -> None:
    d = Downloads(mortal_blender(), tmp_path / "files", "threads")
    gates = [held(server, path)[1] for path in ("/known.bin", "/old.bin", "/removed.bin")]
    d.start(server.url("/known.bin"), server.url(OLD), server.url("/removed.bin"))
    for index, gate in enumerate(gates):
        gate.wait_reached()
        d.wait_progress(HELD / SIZE, index)
    d.act("pause")
    d.wait_over("PAUSED")
    d.act("remove", index=2)
    assert d.b.quit() == 0
    for path in d.b.folder.rglob("queue-*.json"):
        path.unlink()
    d = Downloads(mortal_blender(d.b.folder), d.folder, "threads")
    d.b.wait("len(state().items) == 2")
    known, cut = d.rows()
    assert [known.status, known.url, cut.status, cut.url] == [
        "PAUSED",
        server.url("/known.bin"),
        "FAILED",
        server.url("/old.bin"),
    ]
    assert [known.progress, cut.progress] == pytest.approx([HELD / SIZE] * 2)
    assert "Press Replace Link" in cut.error
    asked = len(server.requests)
    d.act("retry")
    assert d.statuses() == ["PAUSED", "FAILED"]
    assert len(server.requests) == asked
    d.act("replace_link", uid=cut.uid, url=add_new(server))
    d.wait("PAUSED", "FINISHED")
    gates[0].open()
    d.act("resume")
    d.wait_over("FINISHED")
    assert [request.range_start for request in server.requests[asked:]] == [HELD - OVERLAP] * 2
    assert sorted(d.files()) == ["known.bin", "new.bin"]
    assert set(d.files().values()) == {BODY}
    assert [name.partition(".")[0] for name in d.partial_files()] == ["removed"]
    assert "/background_downloads/" not in d.b.console  # no trace of ours


# Blender's own limit of connections.


@pytest.mark.parametrize("host", HOSTS)
def test_a_limit_of_connections_that_is_changed_holds_at_once_and_costs_nothing(
    blender: Blender, host: str, server: Server, tmp_path: Path
) -> None:
    """Also while a file is paused that only its open connection brings to its end."""
    d, gate = Downloads(blender, tmp_path / "files", host), server.gate()
    options = {"body": BODY, "ranges": False, "etag": None, "last_modified": None}
    urls = [server.add(f"/{n}.bin", stall_after(HELD, gate), **options) for n in range(4)]
    before = blender.eval("bpy.context.preferences.system.network_connection_limit")
    try:
        set_limit(blender, 2)
        d.start(*urls)
        d.wait("RUNNING", "RUNNING", "QUEUED", "QUEUED")
        set_limit(blender, 4)
        d.wait("RUNNING")
        gate.wait_reached(4)
        if host == "threads":  # a child ends with its run
            d.act("pause")
            d.wait("PAUSED")
            d.wait_over()
            set_limit(blender, 5)
            d.act("resume")
            d.wait("RUNNING")
        gate.open()
        d.wait("FINISHED")
        d.wait_over()
    finally:
        set_limit(blender, before)
    assert all(len(server.requests_for(f"/{n}.bin")) == 1 for n in range(4))


def set_limit(b: Blender, number: int) -> None:
    b.run(f"bpy.context.preferences.system.network_connection_limit = {number}")
