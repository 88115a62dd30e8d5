"""The process that `killing.py` kills: the extension's session, with its list and a host, driven by hand.

Nothing ticks in a Blender without a window, so this feeds the host as a run does, from the real list.
In a Python without Blender a stand-in for the few names of `bpy` that the session asks for must do.
It says what it does in lines on its standard output, and ends when every download is finished.

Started with no order but a package, it becomes a Blender that others are forked from, one for each line
on its standard input: an order, and where to write to. That saves each of them Blender's own start.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
import traceback
import types
from typing import Any
from unittest import mock

TICK = 0.01  # seconds


def blender(package: str) -> None:
    """Enable the extension, which lies in the profile."""
    import bpy

    # isort: split
    import addon_utils

    bpy.context.preferences.system.use_online_access = True
    if not addon_utils.enable(package, default_set=True):
        raise SystemExit("it could not be enabled")


def no_blender(package: str, root: str, user_folder: str) -> None:
    """The package without its `__init__.py`, and what the session asks Blender for."""
    module = types.ModuleType(package)
    module.__path__ = [root]
    sys.modules[package] = module
    bpy = mock.MagicMock(name="bpy")
    bpy.types = types.SimpleNamespace(PropertyGroup=object, Operator=object, UIList=mock.MagicMock())
    bpy.app.version = (5, 2, 0)
    bpy.utils.extension_path_user = lambda *args, **options: user_folder
    for name, part in (("bpy", bpy), ("bpy.app", bpy.app), ("bpy.app.handlers", bpy.app.handlers)):
        sys.modules[name] = part
    importlib.import_module(package + ".session").open_session()


class Life:
    """One process: takes up the list, goes on with all of it."""

    def __init__(self, package: str, host: str, settings: dict[str, Any]) -> None:
        self.session = importlib.import_module(package + ".session").current()
        self._workers = importlib.import_module(package + ".workers")
        job = importlib.import_module(package + ".transfer.job")
        self.host = self.session.host = getattr(self._workers, host)(job.Settings(**settings))
        self._submitted: set[int] = set()
        self._child = 0

    def begin(self, package: str, links: list[str], directory: str) -> None:
        self.session.open([])
        for pause in self.session.coming:
            time.sleep(pause)
        known = [(row.url, row.directory) for row in self.session.rows]
        say("adopted", *sorted(row.name for row in self.session.rows))
        if len(set(known)) < len(known):
            say("twice")
        names = importlib.import_module(package + ".transfer.names")
        parsed, problems = names.parse_links("\n".join(links))
        assert not problems, problems
        rename = importlib.import_module(package + ".transfer.job").IfExists.RENAME
        self.session.add(parsed, directory=directory, if_exists=rename, when_done="NOTHING")

    def tick(self) -> bool:
        """As a run's; False when there is nothing left to do."""
        report = self.host.poll()
        self._tell_child()
        for event in report.events:
            if isinstance(event, self._workers.Started):
                self.session.started(event.uid)
            else:
                self._submitted.discard(event.uid)
                say("ended", event.uid, event.outcome)
                self.session.ended(event.uid, event.outcome)
        for uid, progress in report.progress.items():
            self.session.progressed(uid, progress, TICK)
        for row in [row for row in self.session.rows if row.is_unfinished]:
            if row.uid not in self._submitted:
                self.session.queue(row)
                self.host.submit(self.session.job(row))
                self._submitted.add(row.uid)
        self.session.store.flush(time.monotonic(), self.host)
        return bool(self._submitted)

    def _tell_child(self) -> None:
        child = getattr(self.host, "_child", None)
        if child and child._process.pid != self._child:
            self._child = child._process.pid
            say("child", self._child)

    def end(self) -> None:
        self.host.shut()
        self.session.host = None
        self.session.close()


def say(*words: object) -> None:
    print(*words, flush=True)


def live(order: dict[str, Any]) -> None:
    package = order["package"]
    life = Life(package, order["host"], order["settings"])
    life.begin(package, order["links"], order["directory"])
    say("ready")
    while life.tick():
        life.host.wait(TICK)
    life.end()
    say("done")


def be_forked(package: str) -> None:
    """Fork a process for each order; tell its number."""
    blender(package)
    importlib.import_module("requests")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that are killed
    say("ready")
    for line in sys.stdin:
        order = json.loads(line)
        if pid := os.fork():
            say(pid)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        out = os.open(order["output"], os.O_WRONLY)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.close(out)
        status = 1
        try:
            live(order)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)


def main() -> None:
    order = json.loads(sys.argv[1])
    if "settings" not in order:
        be_forked(order["package"])
        return
    if order["root"]:
        no_blender(order["package"], order["root"], order["user_folder"])
    else:
        blender(order["package"])
    live(order)


main()
