"""Experiments inside Blender as a module: `python module.py NAME SECONDS [WITHOUT]` prints what happened.

WITHOUT takes the cure away. A crash is seen by whoever started this.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import bpy

THREADS = 4
RARE = 4  # times as long for what comes more rarely
DRIVEN = 40  # objects, each with a scripted driver
FRAMES = 24
PACE = 0.016  # seconds between two pieces of 64 KiB for each of the threads: 16 MB/s in all


@contextmanager
def threads(work: Callable[[], object], count: int = THREADS) -> Iterator[None]:
    """Threads that do a piece of work again and again, until the block ends."""
    over = threading.Event()

    def go_on() -> None:
        while not over.is_set():
            work()

    started = [threading.Thread(target=go_on, daemon=True) for _ in range(count)]
    for thread in started:
        thread.start()
    yield
    over.set()
    for thread in started:
        thread.join()


def write_bpy() -> None:
    bpy.data.meshes.remove(bpy.data.meshes.new("Prod"))


def use_blender(seconds: float) -> None:
    """What a script does all day, on the main thread."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        bpy.ops.mesh.primitive_cube_add()
        bpy.ops.object.delete()


def example(seconds: float, cured: bool) -> str:
    """The manual's example of what it supports; `url` bound to each thread, or as it stands there."""
    urls = [f"{os.environ['LAB_URL']}?{number}" for number in range(3)]
    fetched = []

    def download(url: str) -> None:
        with urllib.request.urlopen(url):
            fetched.append(url)

    if cured:
        started = [threading.Thread(target=download, args=(url,)) for url in urls]
    else:
        started = [threading.Thread(target=lambda: download(url)) for url in urls]  # noqa: B023 (shown)
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return f"{len(set(fetched))} of {len(urls)} files fetched"


def rearming(seconds: float, cured: bool) -> str:
    """The manual's unsupported Timer, a few and a hundred times as often, beside calls inside an override."""

    def my_timer() -> None:
        timer = threading.Timer(0.001, my_timer)
        timer.daemon = True
        timer.start()

    for _ in range(THREADS):
        my_timer()
    end = time.monotonic() + RARE * seconds
    while time.monotonic() < end:
        with bpy.context.temp_override(object=bpy.context.object):
            bpy.ops.object.select_all(action="TOGGLE")
    return "lived"


def joined(seconds: float, cured: bool) -> str:
    """Threads that write bpy, while the script that started them waits; or goes on."""
    with threads(write_bpy):
        if cured:
            time.sleep(seconds)
        else:
            use_blender(seconds)
    return "lived"


def make_driven_scene() -> None:
    bpy.app.driver_namespace["wave"] = lambda frame, phase: math.sin(frame / 7 + phase)
    for number in range(DRIVEN):
        bpy.ops.mesh.primitive_cube_add(location=(number % 8 - 4, number // 8 - 4, 0))
        bpy.context.object.driver_add("location", 2).driver.expression = f"wave(frame, {number})"
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples, scene.cycles.use_denoising = 4, False
    scene.render.resolution_x = scene.render.resolution_y = 32
    scene.frame_start, scene.frame_end = 1, FRAMES


own = threading.local()


def fetch() -> None:
    """Receive a piece of what LAB_URL names, at a line's speed; again from its beginning at its end."""
    if not getattr(own, "response", None):
        own.response = urllib.request.urlopen(os.environ["LAB_URL"])
    if not own.response.read(64 << 10):
        own.response = None
    time.sleep(PACE)


def cycles(seconds: float, cured: bool) -> str:
    """Cycles with scripted drivers while threads download; or while they write bpy."""
    make_driven_scene()
    with threads(fetch if cured else write_bpy):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            bpy.context.scene.frame_set(1 + int(time.monotonic() * 10) % FRAMES)
            bpy.ops.render.render()
    return "lived"


def compute() -> None:
    sum(range(1000))


def cost(seconds: float, cured: bool) -> str:
    """How many times as long scripted drivers take beside threads that download; or that compute."""
    make_driven_scene()
    play()  # the first time is another one
    alone, beside = [], []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        alone.append(play())
        with threads(fetch if cured else compute):
            beside.append(play())
    return f"{statistics.median(beside) / statistics.median(alone):.1f} times as long"


def play() -> float:
    """Seconds for some frames of the scene."""
    began = time.perf_counter()
    for frame in range(1, FRAMES + 1):
        bpy.context.scene.frame_set(frame)
    return time.perf_counter() - began


def queue(seconds: float, cured: bool) -> str:
    """What a message to a child process leaves behind in Blender, by a pipe or by a queue."""
    before = threading.active_count()
    if cured:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        sender.send("news")
        receiver.recv()
    else:
        news = multiprocessing.get_context("spawn").Queue()
        news.put("news")
        news.get()
    names = [thread.name for thread in threading.enumerate()]
    return "no thread" if len(names) == before else f"a thread: {names[-1]}"


if __name__ == "__main__":
    print(globals()[sys.argv[1]](float(sys.argv[2]), sys.argv[3:] != ["WITHOUT"]), flush=True)
    os._exit(0)  # what is left behind is no part of the experiment
