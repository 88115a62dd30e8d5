"""`bpy.ops.downloads.start(urls=…)` from a script: start, wait with the main thread blocked, join, return."""

from __future__ import annotations

import hashlib
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
import pytest
from leaks import LeakCheck
from server import Gate, Server, pattern, stall_after

if TYPE_CHECKING:
    from conftest import Extension

ROOMS = ("blocking", "mirror", "redraws", "run", "settings", "state", "watch")
MODULES = ("operators", *(f"session.{room}" for room in ROOMS))  # that use bpy
HELD = 1_000_000  # bytes that come before the gate
DEADLINE = 60  # seconds


def rows() -> list[Any]:
    return list(bpy.context.window_manager.downloads.items)


def start(folder: Path, *urls: str, **options: str) -> set[str]:
    result: set[str] = bpy.ops.downloads.start(urls="\n".join(urls), directory=str(folder), **options)
    return result


@contextmanager
def server_on(port: int) -> Iterator[Server]:
    """A server on this port, or on another where it is taken."""
    try:
        server = Server(host="localhost", port=port)
    except OSError:
        server = Server(host="localhost")
    with server:
        yield server


def test_three_blend_files_as_in_the_manual(extension: Extension, tmp_path: Path) -> None:
    sent = {}
    with LeakCheck(), server_on(8000) as server:
        for number in (1, 2, 3):
            name = f"file-{number}.blend"
            bpy.data.libraries.write(str(tmp_path / name), {bpy.data.meshes.new(f"Mesh {number}")})
            sent[name] = (tmp_path / name).read_bytes()
            server.add(f"/{name}", body=sent[name])
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in sent.items()}
        urls = [f"{server.url(f'/{name}')}#sha256={digest}" for name, digest in digests.items()]
        assert start(tmp_path / "got", *urls) == {"FINISHED"}
    assert {path.name: path.read_bytes() for path in (tmp_path / "got").iterdir()} == sent
    assert [(item.name, item.status, item.progress) for item in rows()[-3:]] == [
        (name, "FINISHED", 1.0) for name in sent
    ]


@pytest.mark.parametrize("name", ["start", "cancel", "clear"])
def test_a_thread_of_somebodys_is_refused(extension: Extension, name: str) -> None:
    """Blender bears no change from one: it would crash, sooner or later."""
    said: list[str] = []
    urls = {"urls": "https://files.example/a.bin"} if name == "start" else {}

    def call() -> None:
        try:
            getattr(bpy.ops.downloads, name)(**urls)
        except RuntimeError as error:
            said.append(str(error))

    listed = len(rows())
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert len(said) == 1
    assert "main thread only" in said[0]
    assert len(rows()) == listed


INSTALLED = """
import sys
import bpy
bpy.ops.extensions.package_install_files(repo="user_default", filepath=sys.argv[1], enable_on_install=False)
"""
# A service that works off its jobs on a thread, which has Blender as a module and is its main thread.
ON_A_THREAD = """
import os, sys, threading
def work():
    import bpy, addon_utils
    bpy.context.preferences.system.use_online_access = True
    addon_utils.enable("bl_ext.user_default.background_downloads", default_set=True)
    print("SAID", bpy.ops.downloads.start(urls=sys.argv[1], directory=sys.argv[2]), flush=True)
thread = threading.Thread(target=work)
thread.start()
thread.join()
os._exit(0)  # Blender itself does not bear the usual end then
"""


def test_blender_need_not_be_on_the_first_thread_of_python(
    zip_file: Path, server: Server, tmp_path: Path, fresh_blender: Callable[..., str]
) -> None:
    fresh_blender(INSTALLED, zip_file)
    url = server.add("/a.bin", body=b"a")
    assert "SAID {'FINISHED'}" in fresh_blender(ON_A_THREAD, url, tmp_path / "files")
    assert (tmp_path / "files" / "a.bin").read_bytes() == b"a"


def test_failures_are_named_and_the_others_finish(
    extension: Extension, server: Server, tmp_path: Path
) -> None:
    good = server.add("/good.bin", body=pattern(100_000))
    changed = server.add("/changed.bin", body=pattern(1000)) + "#sha256=" + "0" * 64
    missing = server.url("/missing.bin?key=secret")
    with pytest.raises(RuntimeError) as caught:
        start(tmp_path, good, changed, missing, "ftp://example.org/x")
    said = str(caught.value)
    assert f"{server.url('/missing.bin')}: There is no file at this link (404)" in said
    assert f"{server.url('/changed.bin')}: The file is damaged or another one" in said
    assert "ftp://example.org/x" in said
    assert "secret" not in said
    assert [path.name for path in tmp_path.glob("*.bin")] == ["good.bin"]
    assert [item.status for item in rows()[-3:]] == ["FINISHED", "FAILED", "FAILED"]


def test_no_links_are_an_error(extension: Extension, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Nothing to download"):
        start(tmp_path, " ")


def test_bpy_is_not_touched_between_start_and_join(
    extension: Extension, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not by what is done with each file that ends: UPDATE keeps what the server said of it."""
    watch = Watch()
    for name in MODULES:
        monkeypatch.setattr(importlib.import_module(f"{extension.package}.{name}"), "bpy", watch)
    host = importlib.import_module(f"{extension.package}.workers").ThreadHost
    submit, shut = host.submit, host.shut

    def submit_watched(self: Any, job: Any) -> None:
        watch.is_forbidden = True
        submit(self, job)

    def shut_watched(self: Any, **options: bool) -> Any:
        report = shut(self, **options)
        watch.is_forbidden = False
        return report

    monkeypatch.setattr(host, "submit", submit_watched)
    monkeypatch.setattr(host, "shut", shut_watched)
    urls = [server.add(f"/{number}.bin", body=pattern(300_000, number)) for number in range(5)]
    assert start(tmp_path, *urls, if_exists="UPDATE") == {"FINISHED"}
    assert watch.touched == []


class Watch:
    """`bpy`, and when it is touched while it must not be."""

    def __init__(self) -> None:
        self.is_forbidden = False
        self.touched: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if self.is_forbidden:
            self.touched.append(name)
        return getattr(bpy, name)


# Ctrl-C.

INTERRUPTED = """
import sys, threading
import bpy
bpy.context.preferences.system.use_online_access = True
bpy.ops.extensions.package_install_files(repo="user_default", filepath=sys.argv[1], enable_on_install=True)
try:
    bpy.ops.downloads.start(urls=sys.argv[2], directory=sys.argv[3])
    print("WENT ON")
finally:
    print("THREADS", [thread.name for thread in threading.enumerate()], flush=True)
"""


# What a window's Blender does soon after it was enabled.
AFTERWARDS = """
import sys, time
import bpy, addon_utils
addon_utils.enable("bl_ext.user_default.background_downloads", default_set=True)
session = sys.modules["bl_ext.user_default.background_downloads.session"].current()
assert session.open([])
for pause in session.coming:
    time.sleep(pause)
session.mirror.flush()
for item in bpy.context.window_manager.downloads.items:
    print("ROW", item.status, item.url, item.progress, flush=True)
"""


def wait_for_bytes(folder: Path, count: int) -> None:
    """Until a partial file has so many."""
    end = time.monotonic() + DEADLINE
    while not any(path.stat().st_size >= count for path in folder.glob("*.part")):
        assert time.monotonic() < end, "too little was received"
        time.sleep(0.01)


def test_ctrl_c_cancels_joins_and_leaves_what_the_next_blender_finds(
    zip_file: Path, server: Server, gate: Gate, tmp_path: Path, fresh_blender: Callable[..., str]
) -> None:
    url = server.add("/held.bin", stall_after(HELD, gate), body=pattern(3 * HELD))
    (tmp_path / "profile").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(zip_file), url, str(tmp_path / "files")],
        env=os.environ | {"BLENDER_USER_RESOURCES": str(tmp_path / "profile")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            gate.wait_reached(timeout=DEADLINE)
            wait_for_bytes(tmp_path / "files", HELD)
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=DEADLINE)[0]
        finally:
            process.kill()
    assert process.returncode != 0, said
    assert "WENT ON" not in said
    assert "downloads-" not in said.partition("THREADS")[2]
    assert "Segmentation" not in said
    names = sorted(path.name for path in (tmp_path / "files").iterdir())
    assert [name.rpartition(".")[2] for name in names] == ["part", "json"]
    assert f"ROW PAUSED {url} 0.3" in fresh_blender(AFTERWARDS)
    server.wait_open(0)
