"""A Blender in a real window with the extension of a tree, and what is looked at in there."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from workbench import ROOT, Bench

sys.path += [str(ROOT / "tests" / "window"), str(ROOT / "tests")]
import roots
from blender import Blender, build_extension, extension_id, prepare_profile
from downloading import Downloads

SIZE = (800, 600)  # pixels: without a GPU, drawing is most of what a window does
LABEL = "5.2"
SWEEP = 0.2  # seconds between two looks for what is done

# Somebody else's timer, and how long our own parts take. All in milliseconds.
INSIDE = """
import gc, sys, threading, time

PERIOD = 1 / 60
beats, undrawn, ticks, draws, collections = [], [], [], [], []
is_measuring = is_drawn = False
last_beat = None

def beat():
    global last_beat, is_drawn
    now = time.perf_counter()
    if last_beat is not None:
        beats.append((now - last_beat - PERIOD) * 1000)
        if not is_drawn:
            undrawn.append(beats[-1])
    last_beat, is_drawn = now, False
    if is_measuring:
        return PERIOD

def measure():
    global is_measuring, last_beat
    for figures in (beats, undrawn, ticks, draws, collections):
        figures.clear()
    is_measuring, last_beat = True, None
    bpy.app.timers.register(beat, first_interval=PERIOD)

def measured():
    global is_measuring
    is_measuring = False
    return {"beats": beats, "undrawn": undrawn, "ticks": ticks, "draws": draws, "collections": collections}

def timed(function, figures):
    def call(self, context):
        global is_drawn
        is_drawn, began = True, time.perf_counter()
        try:
            return function(self, context)
        finally:
            figures.append((time.perf_counter() - began) * 1000)
    return call

def timed_tick(function):
    def call(self):
        began = time.perf_counter()
        try:
            return function(self)
        finally:
            ticks.append((time.perf_counter() - began) * 1000)
    return call

def collecting(phase, info):
    global collection_began
    if phase == "start":
        collection_began = time.perf_counter()
    else:
        collections.append((time.perf_counter() - collection_began) * 1000)

def watch():
    gc.callbacks.append(collecting)
    run = part("session.run").Run
    run.tick = timed_tick(run.tick)
    panel = bpy.types.DOWNLOADS_PT_panel
    panel.draw = timed(panel.draw, draws)

def redraw_often(seconds, pause):
    'What drawing alone costs: the sidebar as often as a run has it drawn.'
    end = time.monotonic() + seconds
    def again():
        region_of(view3d(), "UI").tag_redraw()
        return pause if time.monotonic() < end else None
    bpy.app.timers.register(again)

def set_limit(number):
    bpy.context.preferences.system.network_connection_limit = number
"""


@contextlib.contextmanager
def window(
    bench: Bench, tree: Path, folder: Path, host: str = "threads", *, simulate: bool = False
) -> Iterator[Downloads]:
    """A window of Blender, online, its sidebar open at the extension's tab."""
    installation = installed()
    zip_file = build_extension(installation, tree, folder / "zip")
    profile = prepare_profile(installation, folder / "profile", zip_file)
    options = {"profile": profile, "enable": [extension_id(zip_file)], "online": True, "size": SIZE}
    with Blender(installation, folder / "blender", folders=[folder], simulate=simulate, **options) as b:  # type: ignore[arg-type]
        downloads = Downloads(b, folder / "files", host)
        b.run(INSIDE)
        b.run("watch()")
        if not simulate:  # Blender's own loop sleeps then
            b.run("window.__globals__['IDLE'] = 0.0")
        b.steps("show_tab(view3d(), 'Downloads')")
        yield downloads


def installed() -> roots.Installation:
    """The Blender of which a window is opened: BLENDER=, or the newest that there is."""
    found, notes = roots.find()
    if not found:
        raise SystemExit("; ".join(notes.values()) or "There is no Blender to open a window of")
    return found.get(os.environ.get("WINDOWS", LABEL)) or found[max(found)]


@contextlib.contextmanager
def swept(folder: Path) -> Iterator[None]:
    """What is whole in a folder goes at once: at full speed memory would not last."""
    is_over = threading.Event()

    def sweep() -> None:
        while not is_over.wait(SWEEP):
            for path in folder.glob("*.bin"):
                path.unlink(missing_ok=True)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        yield
    finally:
        is_over.set()
        sweeper.join()
