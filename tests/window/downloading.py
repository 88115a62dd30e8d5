"""The extension in a Blender's window, as a test uses it and sees it.

`Downloads` starts, asks and waits; `INSIDE` is what it leaves in Blender for that.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blender import Blender, wait_until

MODULE = "bl_ext.user_default.background_downloads"
HOSTS = {"threads": "AUTOMATIC", "child": "PROCESS"}
OVERLAP = 64 << 10  # bytes that a resume fetches again
SOON = 30.0  # seconds for what takes none
LISTENED = 0.06  # seconds in which a timer that was left behind ticks, twice at its pace

INSIDE = f"""
import importlib, os, random, signal, sys, threading

def part(name):
    return importlib.import_module("{MODULE}." + name)

def session():
    return part("session").current()

def state():
    return bpy.data.window_managers[0].downloads

def invoke(urls, win=None, **options):
    with in_view3d(win):
        return sorted(bpy.ops.downloads.start("INVOKE_DEFAULT", urls=urls, **options))

def act(name, **options):
    with in_view3d():
        return sorted(getattr(bpy.ops.downloads, name)(**options))

def rows():
    names = "uid", "name", "url", "filepath", "status", "error", "note", "progress"
    return [{{name: getattr(item, name) for name in names}} for item in state().items]

def statuses():
    return [item.status for item in state().items]

def workers():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("downloads-")]

def modal():
    windows = bpy.data.window_managers[0].windows
    return [getattr(operator, "bl_idname", None) for w in windows for operator in w.modal_operators]

def set_workers(kind):
    bpy.context.preferences.addons["{MODULE}"].preferences.workers = kind


class TEST_OT_listen(bpy.types.Operator):
    bl_idname = "test.listen"
    bl_label = "Listen"
    heard, listening = 0, False

    def invoke(self, context, event):
        TEST_OT_listen.heard, TEST_OT_listen.listening = 0, True
        context.window_manager.modal_handler_add(self)
        return {{"RUNNING_MODAL"}}

    def modal(self, context, event):
        TEST_OT_listen.heard += event.type == "TIMER"
        return {{"PASS_THROUGH"}} if TEST_OT_listen.listening else {{"FINISHED"}}


def take_reports():
    'The lines of the info log, which is empty then.'
    area = view3d()
    area.type = "INFO"
    kept = bpy.data.window_managers[0].clipboard
    try:
        with bpy.context.temp_override(window=window(), area=area, region=region_of(area)):
            bpy.ops.info.select_all(action="SELECT")
            bpy.ops.info.report_copy()
            bpy.ops.info.report_delete()
        return bpy.data.window_managers[0].clipboard.splitlines()
    finally:
        area.type = "VIEW_3D"
        bpy.data.window_managers[0].clipboard = kept

def timers_heard(seconds):
    'How often a timer ticks while nothing of ours runs.'
    if not hasattr(bpy.types, "TEST_OT_listen"):
        bpy.utils.register_class(TEST_OT_listen)
    with in_view3d():
        bpy.ops.test.listen("INVOKE_DEFAULT")
    yield from pause(seconds)
    heard, TEST_OT_listen.listening = TEST_OT_listen.heard, False
    manager = bpy.data.window_managers[0]
    timer = manager.event_timer_add(0.005, window=window())  # it ends with its next event
    while "TEST_OT_listen" in modal():
        yield
    manager.event_timer_remove(timer)
    return heard
"""

_END = re.compile(r"\d+ (downloaded|skipped|cancelled|failed)\b|Nothing left to download|were paused")


@dataclass(frozen=True)
class Row:
    """A row of the list, as scripts see it."""

    uid: int
    name: str
    url: str
    filepath: str
    status: str
    error: str
    note: str
    progress: float


def wait_open(b: Blender) -> None:
    """Until the extension has its list open, a moment after somebody has asked for it."""
    b.run(f"import importlib; importlib.import_module('{MODULE}.session').current()")
    wait_until(lambda: any("queue-" in path for path in b.fds()), what="the list's lock")


def wait_no_timer(b: Blender) -> None:
    """Until no timer ticks: one of Blender's own, as for a hint, stops by itself, one left behind never."""
    wait_until(lambda: b.steps(f"timers_heard({LISTENED})") == 0, SOON, "a timer was left behind")


class Downloads:
    """One Blender's downloads into one folder."""

    def __init__(self, b: Blender, folder: Path, host: str | None) -> None:
        """`host` is where the workers live; None leaves that to what the extension was built with."""
        self.b = b
        self.folder = folder
        self.host = host
        b.run(INSIDE)
        if host:
            b.run(f"set_workers({HOSTS[host]!r})")
        wait_open(b)
        b.run("take_reports()")

    # What people do.

    def start(self, *urls: str, **options: Any) -> list[str]:
        """Invoke `downloads.start`; what it returned."""
        options = {"directory": str(self.folder)} | options
        words = "".join(f", {name}={value!r}" for name, value in options.items())
        return list(self.b.eval(f"invoke({chr(10).join(urls)!r}{words})"))

    def act(self, name: str, **options: Any) -> list[str]:
        """Execute one of the other operators; what it returned."""
        words = "".join(f", {key}={value!r}" for key, value in options.items())
        return list(self.b.eval(f"act({name!r}{words})"))

    def children(self) -> list[str]:
        """The extension's child processes; the fixture `blender` looks for all others."""
        return [line for line in self.b.children().values() if MODULE in line]

    def act_if_any(self, name: str) -> None:
        """The same on a list that may be empty."""
        if self.b.eval("len(state().items)"):
            self.act(name)

    def execute(self, *urls: str, deadline: float = 60.0, **options: Any) -> list[str]:
        """Execute `downloads.start` as a script does."""
        options = {"directory": str(self.folder)} | options
        call = f"bpy.ops.downloads.start(urls={chr(10).join(urls)!r}, **{options!r})"
        return list(self.b.eval(f"sorted({call})", deadline))

    # What they see.

    def rows(self) -> list[Row]:
        """The list."""
        return [Row(**values) for values in self.b.eval("rows()")]

    def statuses(self) -> list[str]:
        """The list's statuses, in its order."""
        return list(self.b.eval("statuses()"))

    def wait(self, *statuses: str) -> None:
        """Until the rows have these statuses; one that stands alone is for all."""
        expected = f"[{statuses[0]!r}] * len(state().items)" if len(statuses) == 1 else repr(list(statuses))
        wait_until(
            lambda: self.b.eval(f"state().items and statuses() == {expected}"),
            SOON,
            lambda: f"{self._told()} instead of {expected}",
        )

    def _told(self) -> list[str]:
        return [f"{row.status} {row.error or row.note}".strip() for row in self.rows()]

    def wait_progress(self, fraction: float, index: int = 0) -> None:
        """Until so much of a file is there."""
        self.b.wait(f"state().items[{index}].progress >= {fraction - 1e-4}")

    def new_reports(self) -> list[str]:
        """How runs ended, as Blender's info log has it, since it was last asked."""
        return [line for line in self.b.eval("take_reports()") if _END.search(line)]

    # What must hold when a run is over.

    def wait_over(self, *statuses: str) -> None:
        """Until no run, no operator, no worker and no child is left; then no timer ticks either.

        The rows are waited for first, where their `statuses` are given.
        """
        if statuses:
            self.wait(*statuses)
        left = "[modal(), workers(), session().run is not None]"
        wait_until(lambda: self.b.eval(left) == [[], [], False], SOON, lambda: str(self.b.eval(left)))
        wait_until(lambda: not self.children(), SOON, lambda: str(self.children()))
        wait_no_timer(self.b)

    def check_reported_once(self, words: str) -> None:
        """Exactly one report since it was last asked, with these words."""
        reports = self.new_reports()
        assert len(reports) == 1, f"{reports}"
        assert words in reports[0]

    def files(self) -> dict[str, bytes]:
        """What stands under a final name."""
        paths = [path for path in sorted(self.folder.glob("*")) if not is_partial(path)]
        return {path.name: path.read_bytes() for path in paths}

    def listed_on_disk(self) -> list[str]:
        """The links in the list that is kept for the next start."""
        files = sorted(self.b.folder.rglob("queue-*.json"))
        lines = [line for file in files for line in file.read_text("utf-8").splitlines()[1:]]
        return [json.loads(line)["url"] for line in lines]

    def partial_files(self) -> list[str]:
        """The data of what is unfinished."""
        return sorted(path.name for path in self.folder.glob("*.part"))


def is_partial(path: Path) -> bool:
    return path.name.endswith((".part", ".part.json"))
