"""P13: how fast four downloads are while Blender renders, and after, beside their speed before it.

The render lasts as long as it takes to measure: a handler in it waits.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from figures import Row
from serving import MIB, File, Site
from window import window
from workbench import Bench

from downloading import Downloads  # isort: skip

BAR = 0.9
FILES = [File(f"{number}.bin", 256 * MIB, like="" if number == 0 else "0.bin") for number in range(4)]
PLACE = "at-2048k/"  # of each connection
LIMITS = (4, 16)
SETTLED, SECONDS = 2.0, 5.0

RENDER = """
over = threading.Event()
scene = bpy.context.scene
scene.render.engine = "CYCLES"
scene.cycles.samples, scene.cycles.use_denoising = 1, False
scene.render.resolution_x = scene.render.resolution_y = 16
bpy.context.preferences.view.render_display_type = "NONE"

def wait_in_render(*_):
    over.wait(60)

bpy.app.handlers.render_pre.append(wait_in_render)

def begin_render():
    over.clear()
    with in_view3d():
        bpy.ops.render.render("INVOKE_DEFAULT")

def received():
    'When, in seconds, and how much of the files is there, in files.'
    return time.monotonic(), sum(item.progress for item in state().items)
"""


def rows(bench: Bench, bar: str) -> Iterator[Row]:
    for tree in bench.trees:
        for limit in LIMITS:
            times = [_speeds(bench, bar, tree, limit) for _ in range(max(1, bench.rounds // 2))]
            before, during, after = ([speeds[number] for speeds in times] for number in range(3))
            what = f"{{}}, limit of {limit} connections" + ("" if tree == "ours" else f", {tree}")
            for name, speeds in (("in a render", during), ("after it", after)):
                yield Row(
                    bar=bar, work=what.format(name), ours=speeds, unit="MB/s",
                    peer="before it", theirs=before,
                    value=statistics.median(speeds) / statistics.median(before),
                    at_least=BAR if tree == "ours" else None,
                )  # fmt: skip


def _speeds(bench: Bench, bar: str, tree: str, limit: int) -> tuple[float, float, float]:
    """Before, in and after a render, in MB/s of all four together."""
    with bench.folder(bar) as folder, Site(folder / "site").open() as site:
        site.make(FILES)
        with window(bench, bench.trees[tree], folder) as d:
            d.b.run(RENDER)
            d.b.run(f"set_limit({limit})")
            d.start(*(site.url(file.name, PLACE) for file in FILES))
            d.wait("RUNNING")
            before = _speed(d)
            d.b.run("begin_render()")
            d.b.wait("bpy.app.is_job_running('RENDER') and not workers()")
            during = _speed(d)
            d.b.run("over.set()")
            d.b.wait("not bpy.app.is_job_running('RENDER')")
            after = _speed(d)
            d.act("cancel")
            d.wait_over()
    return before, during, after


def _speed(d: Downloads) -> float:
    time.sleep(SETTLED)
    began, first = d.b.eval("received()")
    time.sleep(SECONDS)
    ended, last = d.b.eval("received()")
    return float(last - first) * FILES[0].size / 1e6 / (ended - began)
