"""Every path of a run in a real window: section 3 of the design, one row after the other."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from blender import Blender, BlenderError, wait_until
from downloading import HOSTS, MODULE, OVERLAP, SOON, Downloads, wait_no_timer, wait_open
from server import Gate, Server, pattern, stall_after, stall_before_headers

SIZE = 200_000  # bytes of a file
HELD = 100_000  # bytes of an answer before the gate; what is left is not worth another connection
PAUSED = "Downloads were paused: something unforeseen went wrong"
CHILD_LEAVES = 5.0  # seconds after Blender's death
OURS = "background_downloads/"  # in a traceback that concerns us; Blender has its own


@pytest.fixture(params=list(HOSTS))
def host(request: pytest.FixtureRequest) -> str:
    """Where the workers live."""
    return str(request.param)


@pytest.fixture
def downloads(blender: Blender, host: str, tmp_path: Path) -> Iterator[Downloads]:
    """The module's Blender with an empty list; whatever a test did, nothing of it may be left."""
    d = Downloads(blender, tmp_path / "files", host)
    yield d
    d.act_if_any("cancel")
    d.wait_over()


def serve(server: Server, *names: str) -> list[str]:
    """Files that come at once."""
    return [server.add(f"/{name}", body=body(name)) for name in names]


def hold(server: Server, name: str = "held.bin") -> tuple[str, Gate]:
    """A file whose answers stop in the middle until the gate opens."""
    gate = server.gate()
    return server.add(f"/{name}", stall_after(HELD, gate), body=body(name)), gate


def body(name: str) -> bytes:
    return pattern(SIZE, seed=sum(name.encode()))


def start_held(d: Downloads, server: Server, *more: str) -> tuple[str, Gate]:
    """A run that has one file in mid body."""
    url, gate = hold(server)
    assert d.start(url, *more) == ["RUNNING_MODAL"]
    gate.wait_reached()
    d.wait_progress(HELD / SIZE)
    return url, gate


def blender_limit(d: Downloads) -> int:
    """How many connections Blender's preferences allow."""
    return int(d.b.eval("bpy.context.preferences.system.network_connection_limit")) or 16


def check_files(d: Downloads, *names: str) -> None:
    """Under final names there is this, whole, and nothing else."""
    found = d.files()
    assert sorted(found) == sorted(names)
    for name in names:
        assert found[name] == body(name), f"{name} is not what was sent"
    assert d.partial_files() == []


# All done.


def test_all_done(downloads: Downloads, server: Server) -> None:
    names = ["a.bin", "b.bin", "c.bin"]
    assert downloads.start(*serve(server, *names)) == ["RUNNING_MODAL"]
    assert [row.name for row in downloads.rows()] == names
    downloads.wait_over("FINISHED")
    downloads.check_reported_once("3 downloaded")
    check_files(downloads, *names)
    assert {row.filepath for row in downloads.rows()} == {str(downloads.folder / name) for name in names}


def test_all_done_with_a_failure_says_so_once(downloads: Downloads, server: Server) -> None:
    (url,) = serve(server, "a.bin")
    downloads.start(url, server.url("/missing.bin"))
    downloads.wait_over("FINISHED", "FAILED")
    downloads.check_reported_once("1 downloaded, 1 failed: missing.bin: There is no file at this link (404)")


# Cancel.


def test_cancel_one(downloads: Downloads, server: Server) -> None:
    start_held(downloads, server)
    (other,) = serve(server, "a.bin")
    assert downloads.start(other) == ["FINISHED"]
    uid = downloads.rows()[0].uid
    assert downloads.act("cancel", uid=uid) == ["FINISHED"]
    downloads.wait_over("CANCELLED", "FINISHED")
    downloads.check_reported_once("1 downloaded, 1 cancelled")
    assert list(downloads.files()) == ["a.bin"]
    assert len(downloads.partial_files()) == 1


def test_cancel_all(downloads: Downloads, server: Server, gate: Gate) -> None:
    urls = [server.add(f"/{n}.bin", stall_after(HELD, gate), body=body(f"{n}.bin")) for n in range(20)]
    downloads.start(*urls)
    gate.wait_reached(blender_limit(downloads))
    assert downloads.act("cancel") == ["FINISHED"]
    downloads.wait_over("CANCELLED")
    downloads.check_reported_once("20 cancelled")
    server.wait_open(0)
    assert downloads.files() == {}


def test_cancelled_is_retried(downloads: Downloads, server: Server) -> None:
    _, gate = start_held(downloads, server)
    downloads.act("cancel")
    downloads.wait_over("CANCELLED")
    gate.open()
    downloads.act("retry")
    downloads.wait("FINISHED")
    check_files(downloads, "held.bin")
    assert server.requests[-1].range_start == HELD - OVERLAP


# Exceptions.


@pytest.fixture
def patches(blender: Blender) -> Iterator[None]:
    """Undoes what a test patched in Blender with `patch(owner, name, value)`."""
    blender.run(PATCH)
    yield
    blender.run("while patched: setattr(*patched.pop())")


PATCH = """
patched = []
def patch(owner, name, value):
    patched.append((owner, name, getattr(owner, name)))
    setattr(owner, name, value)

def raising_once(function, error):
    left = [error]
    def raise_once(self):
        if left:
            raise left.pop()
        return function(self)
    return raise_once
"""


def test_exception_in_modal(downloads: Downloads, server: Server, patches: None) -> None:
    _, gate = start_held(downloads, server)
    downloads.b.run("Run = part('session.run').Run")
    downloads.b.run("patch(Run, 'tick', raising_once(Run.tick, ZeroDivisionError('a defect')))")
    downloads.wait_over("PAUSED")
    downloads.check_reported_once(f"{PAUSED} (ZeroDivisionError)")
    gate.open()
    downloads.act("resume")
    downloads.wait_over("FINISHED")
    downloads.check_reported_once("1 downloaded")
    check_files(downloads, "held.bin")


def test_online_access_is_withdrawn(downloads: Downloads, server: Server, patches: None) -> None:
    _, gate = start_held(downloads, server)
    downloads.b.run("patch(part('session.online'), 'offline_reason', lambda: 'Online access required')")
    downloads.wait_over("PAUSED")
    downloads.check_reported_once("Downloads were paused. Online access required")
    downloads.b.run("setattr(*patched.pop())")
    gate.open()
    downloads.act("resume")
    downloads.wait_over("FINISHED")
    check_files(downloads, "held.bin")


def test_online_access_is_withdrawn_while_the_run_is_aside_for_an_autosave(
    downloads: Downloads, server: Server, patches: None
) -> None:
    _, gate = start_held(downloads, server)
    downloads.b.run("watch = part('session.watch'); patch(watch, 'AGAIN', 100.0)")
    downloads.b.run("session().run.step_aside()")
    downloads.b.wait("session().run is None and modal() == []")
    downloads.b.run("patch(part('session.online'), 'offline_reason', lambda: 'Online access required')")
    downloads.b.run("bpy.app.timers.unregister(watch._again); watch.invoke()")
    downloads.wait_over("PAUSED")
    downloads.b.run("setattr(*patched.pop()); setattr(*patched.pop())")
    gate.open()
    downloads.act("resume")
    downloads.wait_over("FINISHED")
    check_files(downloads, "held.bin")


@pytest.mark.parametrize("where", ["__init__", "begin"])
def test_exception_as_the_run_begins(
    downloads: Downloads, server: Server, patches: None, where: str
) -> None:
    _, gate = start_held(downloads, server)
    downloads.act("pause")
    downloads.wait_over("PAUSED")
    downloads.b.run(f"patch(part('session.run').Run, {where!r}, lambda *_: 1 / 0)")
    why = downloads.b.eval("[session().queue(session().rows.at(0)), part('session.watch').invoke()][1]")
    downloads.b.run("setattr(*patched.pop())")
    assert str(why).startswith("Something unforeseen went wrong")
    downloads.wait_over("PAUSED")
    assert "ZeroDivisionError" in downloads.b.console
    gate.open()
    downloads.act("resume")
    downloads.wait_over("FINISHED")


def test_exception_in_a_worker_fails_only_its_download(
    blender: Blender, server: Server, patches: None, tmp_path: Path
) -> None:
    d = Downloads(blender, tmp_path / "files", "threads")  # a child's modules are out of reach
    d.b.run(BROKEN_TRANSFER)
    d.start(*serve(server, "a.bin", "broken.bin", "c.bin"))
    d.wait_over("FINISHED", "FAILED", "FINISHED")
    d.check_reported_once("2 downloaded, 1 failed: broken.bin: Something unforeseen went wrong")
    assert "ZeroDivisionError" in d.b.console
    check_files(d, "a.bin", "c.bin")


BROKEN_TRANSFER = """
Transfer = part("transfer.fetch").Transfer
def run(self, control, client, buffer, run=Transfer.run, **options):
    if self.job.url.endswith("broken.bin"):
        raise ZeroDivisionError("a defect")
    return run(self, control, client, buffer, **options)
patch(Transfer, "run", run)
"""


def test_sigint(downloads: Downloads, server: Server, patches: None) -> None:
    """While the operator ticks: where Blender leaves it to Python it ends the operator."""
    _, gate = start_held(downloads, server)
    is_pythons = downloads.b.eval("callable(signal.getsignal(signal.SIGINT))")
    downloads.b.run(SIGINT_IN_TICK)
    downloads.b.wait("struck")
    if is_pythons:
        downloads.wait_over("PAUSED")
        downloads.check_reported_once(f"{PAUSED} (KeyboardInterrupt)")
        downloads.act("resume")
    gate.open()
    downloads.wait_over("FINISHED")
    downloads.check_reported_once("1 downloaded")
    check_files(downloads, "held.bin")


SIGINT_IN_TICK = """
struck = []
Run = part("session.run").Run
def tick(self, tick=Run.tick):
    if not struck:
        struck.append(True)
        os.kill(os.getpid(), signal.SIGINT)
    return tick(self)
patch(Run, "tick", tick)
"""


# File loads.


LOADS = {
    "new": "bpy.ops.wm.read_homefile()",
    "factory": "bpy.ops.wm.read_homefile(use_factory_startup=True)",
    "open": "bpy.ops.wm.open_mainfile(filepath=saved)",
    "revert": "bpy.ops.wm.revert_mainfile()",
    "recover_last": "bpy.ops.wm.recover_last_session()",
    "recover_autosave": "bpy.ops.wm.recover_auto_save(filepath=saved)",
}


@pytest.fixture
def saved(blender: Blender, tmp_path: Path) -> None:
    """A saved file is open, and an older session can be recovered."""
    blender.run(f"saved = {str(tmp_path / 'scene.blend')!r}")
    blender.run("with in_view3d(): bpy.ops.wm.save_as_mainfile(filepath=saved)")
    blender.run("quit_file = os.path.join(bpy.app.tempdir, '..', 'quit.blend')")
    blender.run("with in_view3d(): bpy.ops.wm.save_as_mainfile(filepath=quit_file, copy=True)")


@pytest.mark.parametrize("load", LOADS)
def test_file_load(downloads: Downloads, server: Server, saved: None, load: str) -> None:
    url, gate = start_held(downloads, server)
    (later,) = serve(server, "later.bin")
    downloads.b.run("state().urls = 'http://kept.example/'")
    downloads.b.run(f"with in_view3d(): assert {LOADS[load]} == {{'FINISHED'}}")
    assert [row.url for row in downloads.rows()] == [url]
    downloads.wait("RUNNING")
    assert downloads.start(later) == ["FINISHED"]
    downloads.wait("RUNNING", "FINISHED")
    gate.open()
    downloads.wait_over("FINISHED")
    downloads.check_reported_once("2 downloaded")
    check_files(downloads, "held.bin", "later.bin")
    assert downloads.b.eval("state().urls") == "http://kept.example/"
    check_nothing_twice(downloads, server)


def test_a_run_goes_on_where_new_links_would_have_no_folder(downloads: Downloads, server: Server) -> None:
    """The preferences say that files go beside the .blend file, and the one that is open now is not saved."""
    _, gate = start_held(downloads, server)
    preferences = f"bpy.context.preferences.addons[{MODULE!r}].preferences"
    downloads.b.run(f"{preferences}.directory = '//'")
    try:
        downloads.b.run(f"with in_view3d(): {LOADS['new']}")
        downloads.wait("RUNNING")
        downloads.act("pause")
        downloads.wait_over("PAUSED")
        downloads.act("resume")
        downloads.wait("RUNNING")
    finally:
        downloads.b.run(f"{preferences}.directory = ''")
    gate.open()
    downloads.wait_over("FINISHED")
    check_files(downloads, "held.bin")


def test_a_file_load_and_a_script_that_clears_the_copy_change_no_row(
    downloads: Downloads, server: Server
) -> None:
    urls = serve(server, "a.bin", "b.bin", "c.bin")
    downloads.start(*urls)
    downloads.wait_over("FINISHED")
    downloads.b.run("state().active_index = 1")
    downloads.b.run("with in_view3d(): bpy.ops.wm.read_homefile()")
    assert downloads.b.eval("state().active_index") == 1
    downloads.b.run("state().items.clear()")
    (another,) = serve(server, "d.bin")
    downloads.start(another)
    downloads.wait("FINISHED")
    assert [row.url for row in downloads.rows()] == [*urls, another]


def check_nothing_twice(d: Downloads, server: Server) -> None:
    """With threads the connection went on; a new child asks for what is missing."""
    requests = server.requests_for("/held.bin")
    if d.host == "threads":
        assert len(requests) == 1
    else:
        assert [request.range_start for request in requests] == [None, HELD - OVERLAP]


def test_a_file_fails_to_open(downloads: Downloads, server: Server, tmp_path: Path) -> None:
    _, gate = start_held(downloads, server)
    broken = tmp_path / "broken.blend"
    broken.write_bytes(b"not a file of Blender's")
    with pytest.raises(BlenderError, match="RuntimeError"):
        downloads.b.run(f"with in_view3d(): bpy.ops.wm.open_mainfile(filepath={str(broken)!r})")
    assert downloads.statuses() == ["RUNNING"]
    finish_in_one_go(downloads, server, gate)


def finish_in_one_go(d: Downloads, server: Server, gate: Gate) -> None:
    """What happened has not touched the downloads."""
    gate.open()
    d.wait_over("FINISHED")
    d.check_reported_once("1 downloaded")
    check_files(d, "held.bin")
    assert len(server.requests) == 1


# What leaves a run alone.


UNDO = """
with in_view3d():
    bpy.ops.mesh.primitive_cube_add()
    bpy.ops.ed.undo_push(message="Add Cube")
    count = len(bpy.data.objects)
    bpy.ops.ed.undo()
    assert len(bpy.data.objects) == count - 1
"""
REDO = """
with in_view3d():
    bpy.ops.ed.redo()
    assert len(bpy.data.objects) == count
"""
AROUND = {
    "workspace": "window().workspace = next(w for w in bpy.data.workspaces if w != window().workspace)",
    "full_screen": "with in_view3d(): bpy.ops.screen.screen_full_area()",
    "area_closed": """
area = next(area for area in window().screen.areas if area.type == "OUTLINER")
with bpy.context.temp_override(window=window(), area=area, region=region_of(area)):
    assert bpy.ops.screen.area_close() == {"FINISHED"}
""",
}


def test_undo_and_redo(downloads: Downloads, server: Server) -> None:
    _, gate = start_held(downloads, server)
    row = downloads.rows()
    downloads.b.run(UNDO)
    assert downloads.rows() == row
    downloads.b.run(REDO)
    assert downloads.rows() == row
    assert downloads.b.eval("modal()") == ["DOWNLOADS_OT_start"]
    finish_in_one_go(downloads, server, gate)


@pytest.mark.parametrize("change", AROUND)
def test_screen_changes(downloads: Downloads, server: Server, change: str) -> None:
    _, gate = start_held(downloads, server)
    downloads.b.run(AROUND[change])
    downloads.b.steps("pause(0)")
    finish_in_one_go(downloads, server, gate)


# Windows.


def test_another_window_closed(downloads: Downloads, server: Server) -> None:
    downloads.b.new_window(main=True)
    _, gate = start_held(downloads, server)
    downloads.b.close_window(1)
    downloads.b.wait("len(bpy.context.window_manager.windows) == 1")
    finish_in_one_go(downloads, server, gate)


def test_its_own_window_closed(downloads: Downloads, server: Server) -> None:
    downloads.b.new_window(main=True)
    _, gate = start_held(downloads, server)
    downloads.b.close_window(0)
    downloads.b.wait("len(bpy.context.window_manager.windows) == 1")
    downloads.wait("RUNNING")
    gate.open()
    downloads.wait_over("FINISHED")
    downloads.check_reported_once("1 downloaded")
    check_files(downloads, "held.bin")
    check_nothing_twice(downloads, server)


def test_start_from_a_second_window(downloads: Downloads, server: Server) -> None:
    downloads.b.new_window(main=True)
    url, gate = hold(server)
    result = downloads.b.eval(f"invoke({url!r}, window(1), directory={str(downloads.folder)!r})")
    assert result == ["RUNNING_MODAL"]
    gate.wait_reached()
    finish_in_one_go(downloads, server, gate)


# The add-on goes.


def disable(d: Downloads) -> None:
    d.b.run(f"with in_view3d(): bpy.ops.preferences.addon_disable(module={MODULE!r})")


def enable(d: Downloads) -> None:
    d.b.run(f"with in_view3d(): assert bpy.ops.preferences.addon_enable(module={MODULE!r}) == {{'FINISHED'}}")
    d.b.run(f"set_workers({HOSTS[d.host]!r})")


def resume_held(d: Downloads, server: Server, gate: Gate, *others: str) -> None:
    """The row that was found again goes on where it was."""
    d.b.wait("len(session().rows)")
    d.wait("PAUSED")
    assert [row.url for row in d.rows()] == [server.url("/held.bin")]
    asked = len(server.requests)
    gate.open()
    assert d.act("resume") == ["FINISHED"]
    d.wait_over("FINISHED")
    d.check_reported_once("1 downloaded")
    check_files(d, "held.bin", *others)
    assert len(server.requests) == asked + 1


def test_addon_disabled_and_enabled_again(downloads: Downloads, server: Server) -> None:
    _, gate = start_held(downloads, server)
    disable(downloads)
    assert downloads.b.eval("workers()") == []
    assert downloads.children() == []
    wait_no_timer(downloads.b)
    enable(downloads)
    resume_held(downloads, server, gate)
    assert server.requests[-1].range_start == HELD - OVERLAP


def test_what_is_done_is_not_there_again_when_the_addon_is_enabled_again(
    downloads: Downloads, server: Server
) -> None:
    """Blender keeps the values of a property that is gone, for the next one with its name."""
    downloads.start(*serve(server, "a.bin"))
    downloads.wait_over("FINISHED")
    disable(downloads)
    enable(downloads)
    assert downloads.rows() == []
    wait_open(downloads.b)
    assert downloads.rows() == []


@pytest.fixture
def rough(rough_blender: Blender, host: str, tmp_path: Path) -> Downloads:
    """A Blender in which things may happen that change it."""
    return Downloads(rough_blender, tmp_path / "files", host)


def test_scripts_reloaded(rough: Downloads, server: Server) -> None:
    """From 5.2 on this starts Blender's own downloader."""
    _, gate = start_held(rough, server)
    with pytest.raises(BlenderError, match="running modal operators"):
        rough.b.run("with in_view3d(): bpy.ops.script.reload()")
    assert rough.statuses() == ["RUNNING"]
    rough.act("pause")
    rough.wait_over("PAUSED")
    rough.new_reports()
    rough.b.run("with in_view3d(): assert bpy.ops.script.reload() == {'FINISHED'}")
    rough.b.run(f"set_workers({HOSTS[rough.host]!r})")
    resume_held(rough, server, gate)
    assert server.requests[-1].range_start == HELD - OVERLAP


def test_class_unregistered_by_someone_else(rough: Downloads, server: Server) -> None:
    _, gate = start_held(rough, server)
    rough.b.run("bpy.utils.unregister_class(bpy.types.DOWNLOADS_OT_start)")
    rough.wait("PAUSED")
    wait_until(lambda: rough.b.eval("[workers(), session().run is not None]") == [[], False], SOON)
    wait_until(lambda: not rough.children(), SOON)
    wait_no_timer(rough.b)
    disable(rough)
    enable(rough)
    resume_held(rough, server, gate)


def test_with_nothing_to_take_up_there_is_no_list_until_somebody_has_need_of_one(
    rough: Downloads, server: Server
) -> None:
    """Enabled at each start of Blender: what it imports for nobody keeps everybody waiting."""
    enable_with_nothing_left(rough)
    _, gate = start_held(rough, server)
    wait_until(lambda: rough.listed_on_disk() == [server.url("/held.bin")], what="the list on the disk")
    rough.act("pause")
    rough.wait_over()
    disable(rough)
    enable(rough)
    resume_held(rough, server, gate)


def test_a_script_that_is_the_first_to_need_a_list_has_it_open_before_it_waits(
    rough: Downloads, server: Server
) -> None:
    """Else used folders are looked into afterwards, as if it had been in background mode: one may sleep."""
    enable_with_nothing_left(rough)
    (url,) = serve(server, "a.bin")
    rough.b.run(f"bpy.ops.downloads.start(urls={url!r}, directory={str(rough.folder)!r})")
    assert rough.b.eval("session().store.is_open")
    assert list(rough.b.folder.rglob("queue-0.lock")) == []
    check_files(rough, "a.bin")


def test_who_opens_the_panel_does_not_wait_for_a_list_at_the_first_click(rough: Downloads) -> None:
    enable_with_nothing_left(rough)
    rough.b.steps("show_tab(view3d(), 'Downloads')")
    rough.b.wait("part('session').peek() is not None")


def enable_with_nothing_left(d: Downloads) -> None:
    d.b.run("view3d().spaces.active.show_region_ui = False")
    d.act("remove_all", delete_partial=True)
    disable(d)
    for path in d.b.folder.rglob("queue-0.lock"):
        path.unlink()
    enable(d)
    d.b.wait(f"not bpy.app.timers.is_registered(sys.modules[{MODULE!r}]._look)")
    assert d.b.eval("part('session').peek() is None")


def test_factory_settings_loaded(rough: Downloads, server: Server) -> None:
    """They disable every extension: what was unfinished is there when it is enabled again."""
    _, gate = start_held(rough, server)
    said = len(rough.b.console)
    rough.b.run("with in_view3d(): bpy.ops.wm.read_factory_settings()")
    assert OURS not in rough.b.console[said:]
    assert rough.b.eval("workers()") == []
    assert rough.children() == []
    enable(rough)
    resume_held(rough, server, gate)
    assert server.requests[-1].range_start == HELD - OVERLAP


def test_another_template_disables_the_addon_for_a_moment(rough: Downloads, server: Server) -> None:
    """As with any other new file the list stays, what ran goes on, and the run's one report tells of all."""
    (done,) = serve(server, "done.bin")
    rough.start(done)
    rough.wait_over("FINISHED")
    other, other_gate = hold(server, "other.bin")
    (early,) = serve(server, "early.bin")
    _, gate = start_held(rough, server, other, early)
    other_gate.wait_reached()
    rough.act("pause", uid=rough.rows()[2].uid)
    listed = "FINISHED", "RUNNING", "PAUSED", "FINISHED"
    rough.wait(*listed)
    rough.new_reports()
    uids = [row.uid for row in rough.rows()]
    said = len(rough.b.console)
    rough.b.run("state().active_index = 2")
    for template in ("Sculpting", ""):
        rough.b.run("opened = session()")
        rough.b.run("state().urls, state().directory = 'http://kept.example/', '/kept'")
        rough.b.run(f"with in_view3d(): bpy.ops.wm.read_homefile(app_template={template!r})")
        rough.b.wait("session() is not opened and len(session().rows) == 4")
        rough.wait(*listed)
        kept = rough.b.eval("[state().urls, state().directory, state().active_index]")
        assert kept == ["http://kept.example/", "/kept", 2]
        assert [row.uid for row in rough.rows()] == uids
    rough.b.run("state().urls = state().directory = ''")
    assert OURS not in rough.b.console[said:]
    gate.open()
    other_gate.open()
    rough.wait_over("FINISHED", "FINISHED", "PAUSED", "FINISHED")
    rough.check_reported_once("2 downloaded, 1 paused")
    rough.act("remove_all", delete_partial=True)
    check_files(rough, "done.bin", "held.bin", "early.bin")
    assert rough.b.eval("part('session.watch')._forget in bpy.app.handlers.load_post") is False


def test_another_template_while_nothing_is_unfinished(rough: Downloads, server: Server) -> None:
    """No list is on the disk then, and nobody asks for one."""
    (done,) = serve(server, "done.bin")
    rough.start(done)
    rough.wait_over("FINISHED")
    rough.b.run("with in_view3d(): bpy.ops.wm.read_homefile(app_template='Sculpting')")
    rough.wait("FINISHED")
    assert [row.url for row in rough.rows()] == [done]


def test_blender_takes_the_operator_away_after_the_addon_was_disabled(
    rough: Downloads, server: Server
) -> None:
    """The operator's class stays until then; its run is closed, and its session gone."""
    _, gate = start_held(rough, server)
    said = len(rough.b.console)
    disable_it = f"bpy.ops.preferences.addon_disable(module={MODULE!r})"
    rough.b.run(f"with in_view3d(): {disable_it}; bpy.ops.wm.read_homefile()")
    enable(rough)
    resume_held(rough, server, gate)
    assert OURS not in rough.b.console[said:]


# Blender goes.


def end_by_quitting(b: Blender) -> int:
    return b.quit()


def end_by_the_window_manager(b: Blender) -> int:
    b.close_window()
    return b.join()


def end_by_sigterm(b: Blender) -> int:
    b.terminate()
    return b.join() + signal.SIGTERM


def end_by_sigkill(b: Blender) -> int:
    b.kill()
    return b.join() + signal.SIGKILL


ENDS = {
    "quit": end_by_quitting,
    "window_manager": end_by_the_window_manager,
    "sigterm": end_by_sigterm,
    "sigkill": end_by_sigkill,
}


def check_ended(b: Blender, end: str) -> None:
    """It ends as it should, without a word of a crash, and its children with it."""
    code = ENDS[end](b)
    assert code == 0, f"exit code {code}\n{b.console}"
    wait_until(lambda: not b.children(), CHILD_LEAVES, lambda: f"left: {b.children()}")
    for word in ("Traceback", "Segmentation", "crash", "Fatal"):
        assert word not in b.console


# Starting while a run goes on.


def test_a_second_start_joins_the_run(downloads: Downloads, server: Server) -> None:
    url, gate = start_held(downloads, server)
    (other,) = serve(server, "a.bin")
    assert downloads.start(url, other) == ["FINISHED"]
    assert [row.url for row in downloads.rows()] == [url, other]
    assert downloads.b.eval("modal()") == ["DOWNLOADS_OT_start"]
    downloads.wait("RUNNING", "FINISHED")
    assert downloads.b.eval("modal()") == ["DOWNLOADS_OT_start"]
    gate.open()
    downloads.wait_over("FINISHED")
    downloads.check_reported_once("2 downloaded")
    check_files(downloads, "held.bin", "a.bin")


def test_executed_leaves_the_run_alone(downloads: Downloads, server: Server) -> None:
    url, gate = start_held(downloads, server)
    (other,) = serve(server, "a.bin")
    with pytest.raises(BlenderError, match=r"held\.bin: It is already being downloaded"):
        downloads.execute(other, url)
    assert downloads.statuses() == ["RUNNING", "FINISHED"]
    assert downloads.b.eval("modal()") == ["DOWNLOADS_OT_start"]
    gate.open()
    downloads.wait_over("FINISHED")
    downloads.check_reported_once("1 downloaded")
    check_files(downloads, "held.bin", "a.bin")
    assert len(server.requests) == 2


def test_executed_has_as_many_connections_as_the_run_leaves(downloads: Downloads, server: Server) -> None:
    limit = "bpy.context.preferences.system.network_connection_limit"
    downloads.b.run(f"{limit} = 3")
    try:
        (first, gate), (second, other) = (hold(server, f"{n}.bin") for n in range(2))
        downloads.start(first, second)
        for held in (gate, other):
            held.wait_reached()
        names = [f"x{n}.bin" for n in range(6)]
        assert downloads.execute(*serve(server, *names)) == ["FINISHED"]
        assert server.connections.peak == 3
        gate.open()
        other.open()
        downloads.wait("FINISHED")
        check_files(downloads, "0.bin", "1.bin", *names)
    finally:
        downloads.b.run(f"{limit} = 0")


def test_executed_takes_over_a_paused_row_of_the_run(downloads: Downloads, server: Server) -> None:
    _, gate = start_held(downloads, server)
    other, other_gate = hold(server, "other.bin")
    downloads.start(other)
    other_gate.wait_reached()
    downloads.wait_progress(HELD / SIZE, 1)
    downloads.act("pause", index=1)
    downloads.wait("RUNNING", "PAUSED")
    other_gate.open()
    assert downloads.execute(other) == ["FINISHED"]
    assert downloads.statuses() == ["RUNNING", "FINISHED"]
    gate.open()
    downloads.wait_over("FINISHED")
    check_files(downloads, "held.bin", "other.bin")


def test_a_paused_row_gives_way_to_a_new_start(downloads: Downloads, server: Server) -> None:
    url, gate = start_held(downloads, server)
    other, other_gate = hold(server, "other.bin")
    downloads.start(other)
    other_gate.wait_reached()
    downloads.wait_progress(HELD / SIZE, 1)
    old = downloads.rows()[1].uid
    downloads.act("pause", uid=old)
    downloads.wait("RUNNING", "PAUSED")
    assert downloads.start(other) == ["FINISHED"]
    assert [row.url for row in downloads.rows()] == [url, other]
    assert downloads.rows()[1].uid != old
    downloads.wait("RUNNING")
    gate.open()
    other_gate.open()
    downloads.wait_over("FINISHED")
    downloads.check_reported_once("2 downloaded")
    check_files(downloads, "held.bin", "other.bin")


@pytest.mark.parametrize("stopped", ["pause", "cancel", "remove"])
def test_what_was_stopped_a_moment_ago_gives_way_too(
    downloads: Downloads, server: Server, stopped: str
) -> None:
    """No worker has let go of it yet."""
    url, gate = start_held(downloads, server)
    options = ", delete_partial=True" if stopped == "remove" else ""
    folder = str(downloads.folder)
    downloads.b.run(f"act({stopped!r}, index=0{options})\ninvoke({url!r}, directory={folder!r})")
    downloads.wait("RUNNING")  # the worker has let go: until then the first one could still be finished
    gate.open()
    downloads.wait_over("FINISHED")
    check_files(downloads, "held.bin")
    assert len(downloads.rows()) == 1


def test_executed_names_what_failed_and_why(downloads: Downloads, server: Server) -> None:
    urls = [*serve(server, "a.bin"), server.url("/x.bin?key=secret"), server.url("/y.bin")]
    with pytest.raises(BlenderError) as caught:
        downloads.execute(*urls)
    for path in ("x.bin", "y.bin"):
        assert f"{server.url('/' + path)}: There is no file at this link (404)" in str(caught.value)
    assert "secret" not in str(caught.value).partition("\nin: ")[0].rpartition("Error:")[2]
    assert downloads.b.eval("workers()") == []
    assert downloads.statuses() == ["FINISHED", "FAILED", "FAILED"]
    check_files(downloads, "a.bin")


def test_ten_thousand_lines(downloads: Downloads, server: Server, gate: Gate) -> None:
    url = server.add("/file", stall_before_headers(gate))
    downloads.b.steps("show_tab(view3d(), 'Downloads')")
    downloads.b.run(ROWS_AT_ONCE)
    downloads.b.run(f"many = chr(10).join({url!r} + f'?n={{n}}' for n in range(10_000))")
    downloads.b.run(f"assert invoke(many, directory={str(downloads.folder)!r}) == ['RUNNING_MODAL']")
    assert downloads.b.eval("at_once") == 1000
    downloads.b.wait("len(state().items) == 10_000")
    gate.wait_reached(blender_limit(downloads))
    downloads.b.key("TAB")
    downloads.b.wait("bpy.context.mode == 'EDIT_MESH'")
    downloads.act("cancel")
    downloads.wait_over("CANCELLED")
    downloads.check_reported_once("10,000 cancelled")
    downloads.b.run("session().drop(*session().rows)")  # all at once: one by one takes seconds
    downloads.b.wait("not state().items")


ROWS_AT_ONCE = """
def invoke(*arguments, invoke=invoke, **options):
    global at_once
    result = invoke(*arguments, **options)
    at_once = len(state().items)
    return result
"""


# Blender was started with a script.


def test_a_child_beside_a_script(rough_blender: Blender, server: Server, tmp_path: Path) -> None:
    """`blender --python script.py` leaves `__main__.__file__` set: `multiprocessing` fails then."""
    d = Downloads(rough_blender, tmp_path / "files", "child")
    d.b.run("__import__('__main__').__file__ = '/tmp/script.py'")  # what the driver's own start takes away
    _, gate = start_held(d, server)
    assert len(d.children()) == 1
    assert d.b.eval("__import__('__main__').__file__")
    finish_in_one_go(d, server, gate)
    d.b.run("del __import__('__main__').__file__")
