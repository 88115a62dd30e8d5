"""The child process: what it leaves behind, how it ends, and what happens when it does not."""

from __future__ import annotations

import ast
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from driving import Clock, Driver, Halted, Phase, Settings, failed, finished, names, new_job, part_of
from leaks import children, describe, descriptors, freeze, kill, thaw, wait_gone
from server import DEADLINE, Gate, Server, after, first, pattern, stall_after, stall_before_headers, status

from background_downloads.hosts import process, spawn
from background_downloads.transfer import portable
from background_downloads.transfer.job import Failed, Job
from background_downloads.workers import ProcessHost

DATA = pattern(300_000)
OVERLAP = 64 << 10
ROOT = Path(__file__).resolve().parents[2]


def the_child() -> int:
    (pid,) = children()
    return pid


def crash(driver: Driver) -> None:
    """Kill the child, and look until its end was noticed."""
    child = the_child()
    kill(child)
    driver.until(lambda: child not in children())


def until_sent(driver: Driver) -> None:
    """Until the child has been given all that was submitted."""
    host = driver.host
    assert isinstance(host, ProcessHost)
    driver.until(lambda: not host._has_work, "the child to have all")


# -- What it takes with it.


def test_one_process_one_pipe_and_nothing_else(
    process_driver: Driver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    job = new_job(server.add("/a.bin", stall_before_headers(gate), body=DATA), tmp_path)
    before = descriptors()
    process_driver.submit(job)
    process_driver.until_reached(gate)
    ours = {number for number in descriptors() if number not in before}
    served = server.connections.open
    assert len(ours) - served == 1
    child = the_child()
    assert "resource_tracker" not in describe(child)
    targets = [os.readlink(link) for link in Path(f"/proc/{child}/fd").iterdir()]
    assert len([target for target in targets if target.startswith("pipe:")]) <= 1  # stderr, when captured
    gate.open()
    finished(process_driver.outcome(job))


def test_it_does_not_import_what_knows_blender(
    process_driver: Driver, server: Server, tmp_path: Path
) -> None:
    finished(process_driver.run(new_job(server.add("/a.bin", body=DATA), tmp_path)))
    maps = Path(f"/proc/{the_child()}/maps").read_text()
    assert "/bpy" not in maps


def test_it_starts_where_main_has_a_file(
    process_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a Blender that runs a script: spawned by multiprocessing the child would run it again."""
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit('the script ran again')")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
    job = new_job(server.add("/a.bin", body=DATA), tmp_path / "files")
    assert finished(process_driver.run(job)).read_bytes() == DATA


@pytest.mark.parametrize("named", ["python", "blender"])
def test_it_starts_from_any_folder_and_whichever_program_blender_names(
    process_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """`sys.executable` is Blender's own Python, in official builds, or Blender."""
    blender = tmp_path / "Blender Foundation (x86)" / "Blender für Zoë" / "blender.exe"
    python = _copy_python(blender.parent / "5.2" / "python" / "bin")
    monkeypatch.setattr(sys, "executable", str(python if named == "python" else blender))
    monkeypatch.setattr(sys, "prefix", str(python.parent.parent))
    assert portable.python() == str(python)
    job = new_job(server.add("/a.bin", body=DATA), tmp_path / "files")
    assert finished(process_driver.run(job)).read_bytes() == DATA


def _copy_python(folder: Path) -> Path:
    """A Python there, as Blender brings one."""
    if sys.platform == "win32":
        shutil.copytree(Path(sys.executable).parent, folder)
        return folder / "python.exe"
    folder.mkdir(parents=True)
    python = folder / "python{}.{}".format(*sys.version_info)
    python.symlink_to(Path(sys.executable).resolve())
    return python


def test_it_starts_where_the_environment_would_mislead_python(
    process_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('not the standard library')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    job = new_job(server.add("/a.bin", body=DATA), tmp_path / "files")
    assert finished(process_driver.run(job)).read_bytes() == DATA


def test_it_starts_and_hears_all_whatever_other_add_ons_have_done(
    process_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They put folders into `sys.path` that are no texts, and give every socket a time-out."""
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path, None])
    if sys.platform != "win32":  # whose pipes are no sockets; of one byte they would stop both ends
        monkeypatch.setattr(portable, "_UNREAD", 1)  # no message fits
    socket.setdefaulttimeout(60.0)
    try:
        jobs = [new_job(server.add(f"/{n}.bin", body=DATA), tmp_path / "files") for n in range(100)]
        process_driver.submit(*jobs)
        for job in jobs:
            assert finished(process_driver.outcome(job)).read_bytes() == DATA
    finally:
        socket.setdefaulttimeout(None)
    assert not process_driver.host._crashes  # type: ignore[attr-defined]


def test_ctrl_c_in_the_terminal_is_not_for_it(process_driver: Driver, server: Server, tmp_path: Path) -> None:
    gate = server.gate()
    url = server.add("/a.bin", stall_after(100_000, gate), body=DATA)
    job = process_driver.begun(url, tmp_path, 100_000)
    os.kill(the_child(), signal.SIGINT)
    gate.open()
    assert finished(process_driver.outcome(job)).read_bytes() == DATA
    assert len(server.requests) == 1


# -- Crashes.


def test_what_a_crashed_child_did_is_resumed_in_a_new_one(
    process_driver: Driver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    url = server.add("/a.bin", first(1, stall_after(200_000, gate)), body=DATA)
    job = process_driver.begun(url, tmp_path, 200_000)
    child = the_child()
    kill(child)
    assert finished(process_driver.outcome(job)).read_bytes() == DATA
    assert the_child() != child
    assert names(tmp_path) == ["a.bin"]


def test_what_a_crashed_child_had_finished_is_not_downloaded_again(
    process_driver: Driver, server: Server, tmp_path: Path
) -> None:
    note, folder = tmp_path / "note", tmp_path / "files"
    job = new_job(server.add("/a.bin", body=DATA), folder, done=str(note))
    process_driver.submit(job)
    until_sent(process_driver)  # and not asked how it is getting on
    deadline = time.monotonic() + DEADLINE
    while not (note.exists() and note.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.001)
    kill(the_child())
    assert finished(process_driver.outcome(job)).read_bytes() == DATA
    assert names(folder) == ["a.bin"]
    assert len(server.requests) == 1


def test_what_waited_in_a_crashed_child_is_downloaded(
    new_process_driver: Callable[..., Driver], server: Server, gate: Gate, tmp_path: Path
) -> None:
    driver = new_process_driver(Settings(timeout=90.0, connections=1))
    jobs = [
        new_job(server.add(f"/{n}.bin", first(1, stall_before_headers(gate)), body=DATA), tmp_path)
        for n in range(4)
    ]
    driver.submit(*jobs)
    driver.until_reached(gate)
    kill(the_child())
    gate.open()
    for job in jobs:
        assert finished(driver.outcome(job)).read_bytes() == DATA


def test_a_stop_survives_a_crash(process_driver: Driver, server: Server, gate: Gate, tmp_path: Path) -> None:
    job = new_job(server.add("/a.bin", stall_before_headers(gate), body=DATA), tmp_path)
    process_driver.submit(job)
    process_driver.until_reached(gate)
    child = the_child()
    freeze(child)
    process_driver.host.stop(job.uid)
    kill(child)
    assert process_driver.outcome(job) == Halted()
    assert len(server.requests) == 1


def test_a_child_that_crashes_in_the_gap_is_not_replaced(
    process_driver: Driver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    url = server.add("/a.bin", first(1, stall_after(200_000, gate)), body=DATA)
    job = process_driver.begun(url, tmp_path, 200_000)
    child = the_child()
    freeze(child)
    process_driver.host.dismiss(keep=True)
    kill(child)
    assert process_driver.outcome(job) == Halted()
    process_driver.until(process_driver.host.is_quiet)
    assert children() == []
    assert finished(process_driver.run(job)).read_bytes() == DATA


def test_three_crashes_in_a_minute_are_the_end(
    new_process_driver: Callable[..., Driver], server: Server, gate: Gate, tmp_path: Path
) -> None:
    driver = new_process_driver(Settings(timeout=90.0, connections=1))
    killer = new_job(server.add("/killer.bin", stall_before_headers(gate)), tmp_path)
    harmless = new_job(server.add("/a.bin", body=DATA), tmp_path)
    driver.submit(killer, harmless)
    for turn in range(3):
        driver.until_reached(gate, turn + 1)
        driver.until_phase(killer, Phase.REQUEST)
        crash(driver)
    assert "keeps crashing" in failed(driver.outcome(killer))
    assert finished(driver.outcome(harmless)).read_bytes() == DATA


def test_a_child_that_cannot_start_is_a_failure(
    process_driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    jobs = [new_job(f"http://127.0.0.1:9/{n}.bin", tmp_path) for n in range(3)]
    process_driver.submit(*jobs)
    for job in jobs:
        assert "cannot be started. Ask your virus scanner" in failed(process_driver.outcome(job))


def test_a_child_that_dies_at_once_is_a_failure(
    process_driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawn, "_BOOT", "raise SystemExit")
    assert "keeps crashing" in failed(process_driver.run(new_job("http://127.0.0.1:9/a.bin", tmp_path)))


def test_the_list_is_stored_though_the_child_crashed(
    process_driver: Driver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    job = new_job(server.add("/a.bin", stall_before_headers(gate), body=DATA), tmp_path / "files")
    process_driver.submit(job)
    process_driver.until_reached(gate)
    child = the_child()
    freeze(child)
    path = tmp_path / "queue.json"
    process_driver.host.store(str(path), b"x" * 500_000)
    for _ in range(5):
        process_driver.look()
    kill(child)
    process_driver.until(lambda: path.exists() and path.read_bytes() == b"x" * 500_000)
    process_driver.stop(job)


def test_a_long_list_that_changes_all_the_time_is_stored_all_the_same(
    process_driver: Driver, tmp_path: Path
) -> None:
    """It is on its way for some seconds, and another one comes each second."""
    path, numbers = tmp_path / "queue.json", itertools.count()

    def is_stored() -> bool:
        process_driver.host.store(str(path), b"%4d" % next(numbers) * 50_000)
        return path.exists()

    process_driver.until(is_stored, "one of them")
    content = path.read_bytes()
    assert content == content[:4] * 50_000
    process_driver.host.store(str(path), b"last" * 50_000)
    process_driver.until(lambda: path.read_bytes() == b"last" * 50_000, "the last one")


# -- Hanging.


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHILD_PATIENCE", "LOOKUP_PATIENCE"):
        monkeypatch.setattr(process, name, 0.1)


@pytest.mark.usefixtures("short_patience")
def test_a_child_that_hangs_is_killed_when_it_should_leave(
    process_driver: Driver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    url = server.add("/a.bin", first(1, stall_after(200_000, gate)), body=DATA)
    job = process_driver.begun(url, tmp_path, 200_000)
    freeze(the_child())
    path = tmp_path / "queue.json"
    process_driver.host.store(str(path), b"x" * 3_000_000)
    process_driver.close()
    assert process_driver.ended[job.uid] == [Halted()]
    assert children() == []
    assert path.read_bytes() == b"x" * 3_000_000
    path.unlink()
    assert finished(process_driver.run(job)).read_bytes() == DATA


@pytest.mark.usefixtures("short_patience")
def test_a_child_that_hangs_is_killed_while_ticks_go_on(
    process_driver: Driver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    job = new_job(server.add("/a.bin", stall_before_headers(gate)), tmp_path)
    process_driver.submit(job)
    process_driver.until_reached(gate)
    freeze(the_child())
    process_driver.host.dismiss()
    process_driver.until(process_driver.host.is_quiet)
    assert children() == []


@pytest.mark.usefixtures("short_patience")
def test_a_child_that_a_dead_drive_holds_is_not_waited_for(
    process_driver: Driver, server: Server, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed, and ends when the system lets it."""
    killed: list[Any] = []
    monkeypatch.setattr(portable.Child, "kill", lambda child: killed.append(child))  # and it sleeps on
    monkeypatch.setattr(spawn, "KILLED", 0.0)
    job = process_driver.begun(server.add("/a.bin", stall_after(1000, gate), body=DATA), tmp_path, 1000)
    held = the_child()
    freeze(held)
    try:
        process_driver.close()
        assert process_driver.ended[job.uid] == [Halted()]
    finally:
        kill(held)
        killed[0].wait()


def test_a_child_that_stands_still_is_not_given_the_time_that_one_at_work_has(
    process_driver: Driver, server: Server, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "CHILD_PATIENCE", 1000.0)
    monkeypatch.setattr(spawn, "HEED", 0.1)
    job = new_job(server.add("/a.bin", stall_before_headers(gate)), tmp_path)
    process_driver.submit(job)
    process_driver.until_reached(gate)
    freeze(the_child())
    process_driver.close()
    assert process_driver.ended[job.uid] == [Halted()]
    assert children() == []


def test_a_child_that_has_heard_has_time_to_leave(
    process_driver: Driver, server: Server, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.add("/a.bin", first(1, stall_after(200_000, gate)), body=DATA)
    job = process_driver.begun(url, tmp_path, 200_000)
    child = the_child()
    process_driver.host.dismiss()
    process_driver.until(lambda: process_driver.host._child._open < 2)  # type: ignore[attr-defined]
    monkeypatch.setattr(spawn, "HEED", 0.0)
    process_driver.close()
    assert child not in children()
    assert finished(process_driver.run(job)).read_bytes() == DATA
    assert server.requests[1].range_start == 200_000 - OVERLAP


# -- Beginning.


def test_a_stop_does_not_wait_until_the_child_has_begun(
    process_driver: Driver, server: Server, tmp_path: Path
) -> None:
    job = new_job(server.add("/a.bin", body=DATA), tmp_path)
    process_driver.submit(job)
    child = the_child()
    freeze(child)
    process_driver.host.stop(job.uid)
    process_driver.look()
    assert process_driver.ended[job.uid] == [Halted()]
    thaw(child)
    assert finished(process_driver.run(job)).read_bytes() == DATA
    assert len(server.requests) == 1


def test_a_child_that_has_not_begun_is_gone_once_it_is_dismissed(
    process_driver: Driver, server: Server, tmp_path: Path
) -> None:
    job = new_job(server.add("/a.bin", body=DATA), tmp_path)
    process_driver.submit(job)
    freeze(the_child())
    process_driver.host.dismiss()
    assert children() == []
    assert process_driver.host.is_quiet()
    assert process_driver.outcome(job) == Halted()
    assert finished(process_driver.run(job)).read_bytes() == DATA


def test_a_child_that_hangs_does_not_block_whoever_stops_many(
    process_driver: Driver, server: Server, gate: Gate, tmp_path: Path
) -> None:
    server.add("/a.bin", stall_before_headers(gate))
    jobs = [new_job(server.url(f"/a.bin?{n}"), tmp_path) for n in range(3000)]
    process_driver.submit(*jobs)
    process_driver.until_reached(gate)
    until_sent(process_driver)
    child = the_child()
    freeze(child)
    for job in jobs:
        process_driver.host.stop(job.uid)
        process_driver.look()
    thaw(child)
    process_driver.until(lambda: len(process_driver.ended) == len(jobs))


def test_a_silent_child_is_replaced(
    process_driver: Driver, server: Server, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new_job(server.add("/a.bin", first(1, stall_before_headers(gate)), body=DATA), tmp_path)
    process_driver.submit(job)
    process_driver.until_reached(gate)
    child = the_child()
    freeze(child)
    process_driver.look()
    monkeypatch.setattr(spawn, "SILENCE", 0.1)
    process_driver.until(lambda: child not in children())
    monkeypatch.undo()
    assert finished(process_driver.outcome(job)).read_bytes() == DATA


def test_it_leaves_though_its_disk_does_not_answer(
    process_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network drive that went away, when Blender has gone and nobody is left who could kill it."""
    serves = 'importlib.import_module(package + ".hosts." + room)'
    hangs = f"{serves}.portable.sync_data = lambda fd: __import__('time').sleep(1000)\n{serves}.LAST = 0.1\n"
    url = server.add("/a.bin", first(1, stall_after(200_000, server.gate())), body=DATA)
    with monkeypatch.context() as patch:
        assert serves in spawn._BOOT
        patch.setattr(spawn, "_BOOT", spawn._BOOT.replace(serves, hangs + serves))
        job = process_driver.begun(url, tmp_path, 200_000)
    child = process_driver.host._child  # type: ignore[attr-defined]
    child._connection.close()
    child._process.wait(DEADLINE)
    assert finished(process_driver.outcome(job)).read_bytes() == DATA


@contextmanager
def standing_still(
    driver: Driver, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Job, Gate, Clock, int]]:
    """A download under way, its gate, Blender's clock, and its child, which stands still.

    Windows' clock goes on while a machine sleeps, and Blender may wake first.
    """
    gate = server.gate()
    job = driver.begun(server.add("/a.bin", stall_after(100_000, gate), body=DATA), folder, 100_000)
    clock, child = Clock(), the_child()
    with monkeypatch.context() as patch:
        patch.setattr(spawn, "time", clock)
        driver.look()
        freeze(child)
        yield job, gate, clock, child


def test_a_machine_that_slept_does_not_miss_its_child(
    process_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with standing_still(process_driver, server, tmp_path, monkeypatch) as (job, gate, clock, child):
        process_driver.look()
        clock.now += 8 * 3600
        process_driver.look()
        assert the_child() == child
        thaw(child)
        gate.open()
        assert finished(process_driver.outcome(job)).read_bytes() == DATA
    assert len(server.requests) == 1


def test_a_machine_that_slept_lets_its_child_leave(
    process_driver: Driver, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps what it has received, which is lost where it is killed."""
    with standing_still(process_driver, server, tmp_path, monkeypatch) as (job, _, clock, child):
        process_driver.host.dismiss()
        clock.now += 8 * 3600
        process_driver.look()
        thaw(child)
        assert process_driver.outcome(job) == Halted()
        process_driver.until(lambda: not children(), "the child to leave")
    assert len(list(tmp_path.glob("*.part.json"))) == 1


# -- The end of Blender.

PACKAGE = """
import sys, types
package = types.ModuleType("background_downloads")
package.__path__ = [sys.argv[1]]
sys.modules["background_downloads"] = package
"""
STARTING = """
from background_downloads.hosts import spawn
spawn._BOOT = "import time; time.sleep(1000)"
child = spawn.ChildProcess()
print(0, child._process.pid, flush=True)
sys.stdin.readline()
"""
# As Windows makes a process; it is let run last, which one that was killed does no more.
STANDING_STILL = (
    """
from background_downloads.transfer import portable
portable.CREATION |= 4  # CREATE_SUSPENDED
"""
    + STARTING
)
PARENT = """
from background_downloads import workers
from background_downloads.transfer.job import Job, Settings
if __name__ == "__main__":
    host = getattr(workers, sys.argv[2])(Settings(timeout=90.0))
    host.submit(Job(uid=1, url=sys.argv[3], directory=sys.argv[4]))
    while True:
        report = host.poll()
        for progress in report.progress.values():
            if progress.received:
                print(progress.received, host._child._process.pid, flush=True)
                sys.stdin.readline()
        host.wait(0.01)
"""


def _start_blender(
    url: str, folder: Path, tmp_path: Path, what_it_does: str = PARENT
) -> subprocess.Popen[str]:
    script = tmp_path / "blender.py"
    script.write_text(PACKAGE + what_it_does)
    return subprocess.Popen(
        [sys.executable, str(script), str(ROOT), "ProcessHost", url, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("busy", [False, True])
def test_the_child_leaves_when_blender_is_killed_and_keeps_what_it_has(
    server: Server, gate: Gate, tmp_path: Path, busy: bool, driver: Driver
) -> None:
    folder = tmp_path / "files"
    url = server.add("/a.bin", first(1, stall_after(200_000, gate)), body=DATA)
    with _start_blender(url, folder, tmp_path) as blender:
        assert blender.stdout
        child = int(blender.stdout.readline().split()[1])
        if busy:  # with something else when it happens
            freeze(child)
        blender.kill()
        blender.communicate()
        if busy:
            thaw(child)
    assert wait_gone(child, DEADLINE)
    assert part_of(folder).stat().st_size >= 200_000
    assert finished(driver.run(new_job(url, folder))).read_bytes() == DATA
    assert server.requests[1].range_start == 200_000 - OVERLAP


@pytest.mark.skipif(sys.platform != "win32", reason="only Windows ends a child with its parent at once")
@pytest.mark.parametrize("before", [STARTING, STANDING_STILL], ids=["starting", "being made"])
def test_a_child_that_is_still_starting_ends_with_blender(tmp_path: Path, before: str) -> None:
    """It may take many seconds, where a virus scanner looks at each module."""
    with _start_blender("", tmp_path, tmp_path, before) as blender:
        assert blender.stdout
        child = int(blender.stdout.readline().split()[1])
        assert not wait_gone(child, 0)
        blender.kill()
        blender.communicate()
    assert wait_gone(child, DEADLINE)


def test_a_child_whose_blender_is_gone_leaves_though_somebody_holds_the_pipe() -> None:
    """As when another add-on forks: the child then sees no end of its connection."""
    theirs, ours = _pipe()
    code = spawn._BOOT.replace("serve(handle, parent)", "serve(handle, 1 << 30)")
    options = [spawn._EXTENSION, str(ROOT), sys.path, theirs.fileno(), os.getpid(), "child"]
    import json

    with subprocess.Popen(
        [sys.executable, "-I", "-c", code, json.dumps(options)], pass_fds=[theirs.fileno()]
    ) as child:
        ours.send(Settings())
        assert child.wait(DEADLINE) == 0
    ours.close()
    theirs.close()


def _pipe() -> Any:
    from multiprocessing.connection import Pipe

    return Pipe()


# -- A defect in the child.


def test_a_failure_in_the_child_names_no_url(
    process_driver: Driver, server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.add("/a.bin", after(0, status(503, {"Retry-After": "9999"})))
    url = server.url("/a.bin?token=t0ken", user="me:s3cret")
    outcome = process_driver.run(new_job(url, tmp_path))
    process_driver.close()
    assert isinstance(outcome, Failed)
    said = "".join([str(outcome), *capfd.readouterr()])
    assert "t0ken" not in said
    assert "s3cret" not in said


def test_the_boot_code_is_python() -> None:
    ast.parse(spawn._BOOT)
