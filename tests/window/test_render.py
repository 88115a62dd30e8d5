"""Downloads beside renders: no thread of ours in a Blender that renders, and nothing lost by it.

A render lasts as long as a test wants: a handler of the test waits in it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blender import Blender, BlenderFactory, wait_until
from downloading import HOSTS, OVERLAP, SOON, Downloads
from server import Gate, Generated, Server, after, drip, first, stall_after, stall_before_headers
from test_lifecycle import HELD, SIZE, body, check_files, hold, serve, start_held
from x11 import ESCAPE, N

RENDER_SECONDS = float(os.environ.get("BACKGROUND_DOWNLOADS_RENDERS", "5"))
SHORT_RENDERS = int(os.environ.get("BACKGROUND_DOWNLOADS_SHORT_RENDERS", "5"))

RENDERS = """
go_on, rendered, seen = threading.Event(), [], []

def wait(*_):
    seen.append(workers())
    go_on.wait(60)

def until_no_thread(*_):
    end = time.monotonic() + 30
    while workers() and time.monotonic() < end:
        time.sleep(0.005)
    seen.append(workers())

def complete(*_): rendered.append("complete")
def cancelled(*_): rendered.append("cancelled")

scene = bpy.context.scene
scene.render.engine = "CYCLES"
scene.cycles.samples, scene.cycles.use_denoising = 1, False
scene.render.resolution_x = scene.render.resolution_y = 16
scene.render.filepath = folder + "/frame"
scene.frame_start, scene.frame_end = 1, 2
bpy.context.preferences.view.render_display_type = "NONE"
handlers = bpy.app.handlers
waited_for = handlers.render_pre, handlers.render_complete, handlers.render_cancel
handlers.render_complete.append(complete)
handlers.render_cancel.append(cancelled)

def begin(during, **options):
    handlers.render_pre.append(during)
    with in_view3d():
        return bpy.ops.render.render("INVOKE_DEFAULT", **options)

def renders():
    return bpy.app.is_job_running("RENDER")

def events_until_it_is_over():
    'Its operator ends at an event after the render.'
    while "RENDER_OT_render" in modal():
        yield from move(*middle(region_of(view3d())))
        yield from move(5, 5)
"""


def prepare(b: Blender, folder: Path) -> None:
    b.run(f"import threading, time; folder = {str(folder)!r}")
    b.run(RENDERS)


@pytest.fixture
def b(blender: Blender, tmp_path: Path) -> Iterator[Blender]:
    """A Blender that has something to render."""
    prepare(blender, tmp_path)
    yield blender
    blender.run("go_on.set()")
    blender.wait("not renders()")
    blender.run("for each in waited_for: each.clear()")


@pytest.fixture(params=list(HOSTS))
def host(request: pytest.FixtureRequest) -> str:
    """Where the workers live."""
    return str(request.param)


@pytest.fixture
def threads(b: Blender, tmp_path: Path) -> Iterator[Downloads]:
    d = Downloads(b, tmp_path / "files", "threads")
    yield d
    d.act_if_any("cancel")
    d.wait_over()


def hold_once(server: Server, name: str = "held.bin", **options: object) -> tuple[str, Gate]:
    """A file whose first answer stops in the middle."""
    gate = server.gate()
    return server.add(f"/{name}", first(1, stall_after(HELD, gate)), body=body(name), **options), gate


def start_and_render(d: Downloads, url: str, gate: Gate, **options: object) -> None:
    """A run in mid body, and a render that has begun and waits."""
    d.start(url)
    gate.wait_reached()
    d.wait_progress(HELD / SIZE)
    d.b.run(f"begin(wait, **{options!r})")
    d.b.wait("seen and renders()")


def finish_render(b: Blender, end: str = "complete") -> None:
    b.run("go_on.set()")
    b.wait("not renders()")
    assert b.eval("rendered") == [end]


@pytest.mark.parametrize("animation", [False, True], ids=["still", "animation"])
def test_downloads_go_on_in_a_child(threads: Downloads, server: Server, animation: bool) -> None:
    url, gate = hold_once(server)
    start_and_render(threads, url, gate, animation=animation)
    threads.b.wait("not workers()")
    wait_until(lambda: len(threads.children()) == 1, SOON)
    (later,) = serve(server, "later.bin")
    assert threads.start(later) == ["FINISHED"]
    threads.wait("FINISHED")
    assert threads.b.eval("renders() and not workers()"), "it was to render, with no thread of ours"
    finish_render(threads.b)
    threads.wait_over()
    threads.check_reported_once("2 downloaded")
    check_files(threads, "held.bin", "later.bin")
    assert [r.range_start for r in server.requests_for("/held.bin")] == [None, HELD - OVERLAP]


def test_four_downloads_have_four_connections_while_blender_renders(
    b: Blender, server: Server, host: str, tmp_path: Path
) -> None:
    """A server may give each connection so much: with fewer of them all would come down slower."""
    d = Downloads(b, tmp_path / "files", host)
    held, moved = server.gate(), server.gate()
    files = {f"{n}.bin": body(f"{n}.bin") for n in range(4)}
    for name, data in files.items():
        at_first, later = first(1, stall_after(HELD, held)), after(1, stall_before_headers(moved))
        server.add(f"/{name}", at_first, later, body=data)
    d.start(*(server.url(f"/{name}") for name in files))
    held.wait_reached(4)
    for index in range(4):
        d.wait_progress(HELD / SIZE, index)
    b.run("begin(wait)")
    b.wait("seen and renders()")
    if host == "threads":
        moved.wait_reached(4)
    assert server.connections.open == 4
    assert d.statuses() == ["RUNNING"] * 4
    moved.open()
    held.open()
    d.wait("FINISHED")
    finish_render(b)
    d.wait_over()
    check_files(d, *files)


def test_what_waits_beside_a_render_says_so_and_shows_no_speed(threads: Downloads, server: Server) -> None:
    gate, data = server.gate(), body("fixed.bin")
    threads.start(server.add("/fixed.bin", drip(50_000, gate), body=data, etag=None, last_modified=None))
    threads.wait_progress(50_000 / SIZE)
    gate.step()  # a speed is what comes after the first bytes were seen
    threads.b.wait("session().rows.at(0).speed > 0")
    threads.b.run("begin(wait)")
    threads.b.wait("session().rows.at(0).progress.text == 'held while rendering'")
    assert threads.b.eval("session().rows.at(0).speed") == 0
    finish_render(threads.b)
    gate.open()
    threads.wait_over("FINISHED")
    check_files(threads, "fixed.bin")


def test_what_cannot_move_is_held_and_goes_on_after(threads: Downloads, server: Server) -> None:
    url, gate = hold_once(server, etag=None, last_modified=None)
    start_and_render(threads, url, gate)
    threads.b.wait("not workers()")
    threads.b.wait("session().rows.at(0).progress.text == 'held while rendering'")
    assert threads.statuses() == ["RUNNING"]
    gate.open()
    finish_render(threads.b)
    threads.wait_over("FINISHED")
    threads.check_reported_once("1 downloaded")
    check_files(threads, "held.bin")
    assert len(server.requests) == 1
    assert threads.children() == []


def test_escape_cancels_the_render_and_nothing_of_ours(
    blender_factory: BlenderFactory, server: Server, host: str, tmp_path: Path
) -> None:
    """A key of the screen's: one that is made up cancels no render."""
    b = blender_factory(online=True, simulate=False)
    prepare(b, tmp_path)
    d = Downloads(b, tmp_path / "files", host)
    url, gate = hold(server)
    start_and_render(d, url, gate)
    is_shown = b.eval("view3d().spaces.active.show_region_ui")
    b.display.press_key(ESCAPE)
    b.display.press_key(N)  # once this has been read, so has the other
    b.wait(f"view3d().spaces.active.show_region_ui is not {is_shown}")
    finish_render(b, "cancelled")
    gate.open()
    d.wait("FINISHED")
    b.wait("not modal() and not workers()")
    d.check_reported_once("1 downloaded")
    check_files(d, "held.bin")
    assert b.quit() == 0


def test_a_run_that_starts_while_blender_renders_is_a_childs(threads: Downloads, server: Server) -> None:
    threads.b.run("begin(wait)")
    threads.b.wait("seen and renders()")
    _, gate = start_held(threads, server)
    assert threads.b.eval("workers()") == []
    assert len(threads.children()) == 1
    finish_render(threads.b)
    gate.open()
    threads.wait_over("FINISHED")
    check_files(threads, "held.bin")


def test_what_is_executed_while_blender_renders_is_a_childs(threads: Downloads, server: Server) -> None:
    threads.b.run("begin(wait)")
    threads.b.wait("seen and renders()")
    url, gate = hold(server)
    with ThreadPoolExecutor() as pool:
        executed = pool.submit(threads.execute, url)
        gate.wait_reached()
        assert len(threads.children()) == 1
        assert not any("downloads-" in name for name in threads.b.system_threads())
        gate.open()
        assert executed.result() == ["FINISHED"]
    finish_render(threads.b)
    threads.b.steps("events_until_it_is_over()")
    check_files(threads, "held.bin")


def test_a_blocking_render_holds_the_threads(threads: Downloads, server: Server) -> None:
    """No tick in it, so nothing moves; the connections stay."""
    _, gate = start_held(threads, server)
    threads.b.run("handlers.render_pre.append(until_no_thread)")
    threads.b.run("assert bpy.ops.render.render() == {'FINISHED'}")
    assert threads.b.eval("seen") == [[]]
    gate.open()
    threads.wait_over("FINISHED")
    threads.check_reported_once("1 downloaded")
    check_files(threads, "held.bin")
    assert len(server.requests) == 1


def test_a_script_fetches_what_a_render_needs_as_it_begins(
    b: Blender, server: Server, tmp_path: Path
) -> None:
    """Its handler is called on the render's thread."""
    d = Downloads(b, tmp_path / "files", "threads")
    b.run(f"url, where = {server.add('/a.bin', body=body('a.bin'))!r}, {str(d.folder)!r}")
    b.run(FETCH)
    b.run("begin(fetch)")
    b.wait("rendered and not renders()")
    assert b.eval("seen") == [["FINISHED"]]
    check_files(d, "a.bin")


FETCH = """
def fetch(*_):
    assert threading.current_thread() is not threading.main_thread()
    seen.append([*bpy.ops.downloads.start(urls=url, directory=where)])
"""


def test_a_child_goes_on_beside_a_blocking_render(b: Blender, server: Server, tmp_path: Path) -> None:
    d = Downloads(b, tmp_path / "files", "child")
    _, gate = start_held(d, server)
    gate.open()
    b.run(f"whole = {str(d.folder / 'held.bin')!r}")
    b.run(UNTIL_WHOLE)
    b.run("assert bpy.ops.render.render() == {'FINISHED'}")
    assert b.eval("seen") == [True]
    d.wait_over("FINISHED")
    check_files(d, "held.bin")


UNTIL_WHOLE = """
def until_whole(*_):
    end = time.monotonic() + 30
    while not os.path.exists(whole) and time.monotonic() < end:
        time.sleep(0.005)
    seen.append(os.path.exists(whole))
handlers.render_pre.append(until_whole)
"""


# The case of which Blender's manual says that it crashes.


DRIVEN = """
import math
bpy.app.driver_namespace["wave"] = lambda frame, phase: math.sin(frame / 7 + phase)
for number in range(40):
    bpy.ops.mesh.primitive_ico_sphere_add(location=(number % 8 - 4, number // 8 - 4, 0))
    curve = bpy.context.object.driver_add("location", 2)
    curve.driver.expression = f"wave(frame, {number})"
scene.frame_end = 24
scene.render.resolution_x = scene.render.resolution_y = 64
scene.cycles.samples = 8

def driven():
    return scene.objects["Icosphere"].location.z

def play(seconds):
    with in_view3d():
        bpy.ops.screen.animation_play()
    yield from pause(seconds)
    with in_view3d():
        bpy.ops.screen.animation_cancel()
"""


@pytest.mark.timeout(RENDER_SECONDS + 240)
def test_cycles_renders_scripted_drivers_while_files_come_down(
    blender_factory: BlenderFactory, server: Server, host: str, tmp_path: Path
) -> None:
    """Interactive renders, blocking ones and playback in turn, beside downloads that never pause."""
    b = blender_factory(online=True, pixels=True)
    prepare(b, tmp_path)
    b.run(DRIVEN)
    d = Downloads(b, tmp_path / "files", host)
    files = [Generated(16 << 20, seed) for seed in range(3)]
    urls = [server.add(f"/{n}.bin", drip(128 << 10, 0.01), body=file) for n, file in enumerate(files)]
    end, fetched = time.monotonic() + RENDER_SECONDS, 0
    while not fetched or time.monotonic() < end:
        d.start(*urls, if_exists="OVERWRITE")
        b.run("with in_view3d(): bpy.ops.render.render('INVOKE_DEFAULT', animation=True)")
        b.wait("not renders()")
        b.steps("play(1.0)")
        b.run("bpy.ops.render.render()")
        assert b.eval("abs(driven()) <= 1 and driven() != 0")
        d.wait_over("FINISHED")
        for number, file in enumerate(files):
            assert (d.folder / f"{number}.bin").read_bytes() == file.read(0, file.size)
        d.act("clear")
        fetched += len(files)
    assert set(b.eval("rendered")) == {"complete"}
    assert b.quit() == 0
    for word in ("Traceback", "Segmentation", "crash"):
        assert word not in b.console


SHORT = """
def render_often(count):
    'Writes to the scene after each: Blender 4.3 forbids it for good once a panel was drawn too often.'
    for number in range(count):
        with in_view3d():
            bpy.ops.render.render("INVOKE_DEFAULT")
        while renders():
            yield
        yield from events_until_it_is_over()
        scene["renders"] = number + 1
"""


@pytest.mark.timeout(SHORT_RENDERS * 10 + 240)
def test_short_renders_beside_the_open_list_leave_python_able_to_write(
    blender_factory: BlenderFactory, server: Server, tmp_path: Path
) -> None:
    """BACKGROUND_DOWNLOADS_SHORT_RENDERS=300 is what a plain panel does not outlive in Blender 4.3.

    An import in the middle of a drawing would have other threads in: the first one is during a render.
    """
    b = blender_factory(online=True, size=(1000, 700), pixels=True)
    prepare(b, tmp_path)
    b.run(SHORT)
    d = Downloads(b, tmp_path / "files", "threads")
    b.run("begin(wait)")
    b.wait("seen and renders()")
    b.run("import sys; known = set(sys.modules)")
    b.steps("show_tab(view3d(), 'Downloads')")
    assert b.eval("[name for name in sys.modules if 'downloads' in name and name not in known]") == []
    b.run("go_on.set()")
    b.wait("not renders()")
    b.run("handlers.render_pre.clear()")
    d.start(server.add("/a.bin", drip(16 << 10, 0.02), body=Generated(1 << 34, 1)))
    d.wait("RUNNING")
    b.steps(f"render_often({SHORT_RENDERS})", deadline=SHORT_RENDERS * 10 + 120)
    assert b.eval("scene['renders']") == SHORT_RENDERS
    assert "Writing to ID classes" not in b.console
    d.act("cancel")
    d.wait("CANCELLED")
