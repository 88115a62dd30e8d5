"""Cancelling, quitting and dying while workers are stuck, in every phase of a transfer at once.

No gate opens and no time-out passes: what frees a worker is that it is interrupted. The name look-up
is blocked by a patch inside Blender, so only with threads: a child's modules are out of reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from blender import Blender, wait_until
from downloading import HOSTS, OVERLAP, SOON, Downloads
from server import Gate, Server, pattern, stall_after, stall_before_headers, status, unreachable_port
from test_lifecycle import ENDS, HELD, check_ended, disable, enable, resume_held, serve, start_held

PATIENT = "bpy.context.preferences.system.network_timeout = 60"


@pytest.fixture(params=list(HOSTS))
def host(request: pytest.FixtureRequest) -> str:
    """Where the workers live."""
    return str(request.param)


class Stuck:
    """A link for each phase, and the wait until a worker is stuck there."""

    def __init__(self, stack: ExitStack) -> None:
        server = stack.enter_context(Server())
        shy = stack.enter_context(Server())
        self.handshake = shy.stall_in_handshake()
        self.headers, self.body = server.gate(), server.gate()
        dead = stack.enter_context(unreachable_port())
        self.servers = server, shy
        self.urls = {
            "CONNECT": f"http://127.0.0.1:{dead}/connecting",
            "handshake": f"https://127.0.0.1:{shy.port}/handshake",
            "REQUEST": server.add("/headers", stall_before_headers(self.headers)),
            "BODY": server.add("/body", stall_after(100_000, self.body), body=pattern(200_000)),
            "BACKOFF": server.add("/busy", status(503, {"Retry-After": "200"})),
        }

    def wait(self, d: Downloads) -> None:
        """Until every worker is where it shall be."""
        gates: list[Gate] = [self.handshake, self.headers, self.body]
        for gate in gates:
            gate.wait_reached()
        for phase, url in self.urls.items():
            if phase.isupper():
                phases = f"[row.progress.phase.name for row in session().rows if row.url == {url!r}]"
                d.b.wait(f"{phases} == [{phase!r}]")


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    with ExitStack() as stack:
        yield Stuck(stack)


@pytest.fixture
def patient(blender: Blender) -> Iterator[None]:
    """Nothing of this module ends by a time-out."""
    old = blender.eval("bpy.context.preferences.system.network_timeout")
    blender.run(PATIENT)
    yield
    blender.run(f"bpy.context.preferences.system.network_timeout = {old}")


def test_cancel_frees_a_worker_in_each_phase(
    blender: Blender, patient: None, stuck: Stuck, host: str, tmp_path: Path
) -> None:
    d = Downloads(blender, tmp_path / "files", host)
    d.start(*stuck.urls.values())
    stuck.wait(d)
    expected = ["RUNNING"] * len(stuck.urls)
    d.wait(*expected)
    for index in range(len(expected)):
        d.act("cancel", index=index)
        expected[index] = "CANCELLED"
        d.wait(*expected)
    d.wait_over()
    d.check_reported_once(f"{len(expected)} cancelled")
    for server in stuck.servers:
        server.wait_open(0)
    assert d.files() == {}


def test_cancel_all_at_once(blender: Blender, patient: None, stuck: Stuck, host: str, tmp_path: Path) -> None:
    d = Downloads(blender, tmp_path / "files", host)
    d.start(*stuck.urls.values())
    stuck.wait(d)
    d.act("cancel")
    d.wait_over("CANCELLED")
    d.check_reported_once(f"{len(stuck.urls)} cancelled")


@pytest.mark.parametrize("end", ENDS)
def test_blender_ended_in_every_phase_and_started_again(
    mortal_blender: Callable[..., Blender], stuck: Stuck, server: Server, host: str, tmp_path: Path, end: str
) -> None:
    d = Downloads(mortal_blender(), tmp_path / "files", host)
    d.b.run(f"{PATIENT}; bpy.context.preferences.system.network_connection_limit = {len(stuck.urls) + 2}")
    url, gate = start_held(d, server, *serve(server, "a.bin"), *stuck.urls.values())
    stuck.wait(d)
    d.wait("RUNNING", "FINISHED", *["RUNNING"] * len(stuck.urls))
    unfinished = [url, *stuck.urls.values()]
    wait_until(lambda: d.listed_on_disk() == unfinished, SOON, d.listed_on_disk)
    check_ended(d.b, end)
    for each in (server, *stuck.servers):
        each.wait_open(0)
    assert list(d.files()) == ["a.bin"]
    assert d.listed_on_disk() == unfinished
    asked = len(server.requests)
    d = Downloads(mortal_blender(d.b.folder), d.folder, host)
    d.b.wait("len(session().rows)")
    d.wait("PAUSED")
    assert [row.url for row in d.rows()] == unfinished
    assert len(server.requests) == asked, "it was started without being asked"
    for row in d.rows()[1:]:
        d.act("remove", uid=row.uid, delete_partial=True)
    resume_held(d, server, gate, "a.bin")
    if end in ("quit", "window_manager") or host == "child":
        assert server.requests[-1].range_start == HELD - OVERLAP


# The name look-up, which nothing can interrupt.


BLOCK_LOOKUP = """
import socket
looking, answer, real = threading.Semaphore(0), threading.Event(), socket.getaddrinfo
def getaddrinfo(*arguments, **options):
    looking.release()
    answer.wait()
    return real(*arguments, **options)
socket.getaddrinfo = getaddrinfo
"""


def look_up(b: Blender, server: Server, folder: Path) -> Downloads:
    """Have a worker be inside the name look-up."""
    d = Downloads(b, folder, "threads")
    d.b.run(BLOCK_LOOKUP)
    url = server.add("/file.bin", body=pattern(100_000))
    d.start(url.replace("127.0.0.1", "localhost"))
    d.b.wait("looking.acquire(blocking=False)")
    d.wait("RUNNING")
    return d


@pytest.fixture
def looking(blender: Blender, server: Server, tmp_path: Path) -> Iterator[Downloads]:
    """A Blender whose worker is there; in the end all are free again."""
    yield look_up(blender, server, tmp_path / "files")
    blender.run("answer.set(); socket.getaddrinfo = real")
    wait_until(lambda: blender.eval("workers()") == [], SOON)


def test_quit_leaves_a_name_lookup_behind(
    mortal_blender: Callable[..., Blender], server: Server, tmp_path: Path
) -> None:
    check_ended(look_up(mortal_blender(), server, tmp_path / "files").b, "quit")


def test_cancel_waits_for_a_name_lookup_with_the_window_usable(looking: Downloads) -> None:
    looking.act("cancel")
    looking.b.key("TAB")
    looking.b.wait("bpy.context.mode == 'EDIT_MESH'")
    assert looking.b.eval("modal()") == ["DOWNLOADS_OT_start"]
    looking.b.run("answer.set()")
    looking.wait_over("CANCELLED")
    looking.check_reported_once("1 cancelled")


def test_a_file_load_leaves_a_name_lookup_behind(looking: Downloads) -> None:
    looking.b.run("with in_view3d(): bpy.ops.wm.read_homefile()")
    looking.b.wait("looking.acquire(blocking=False)")  # the run that went on looks too
    assert len(looking.rows()) == 1
    looking.b.run("answer.set()")
    looking.wait_over("FINISHED")
    looking.check_reported_once("1 downloaded")
    assert list(looking.files()) == ["file.bin"]


def test_disabling_leaves_a_name_lookup_behind(looking: Downloads) -> None:
    disable(looking)
    assert len(looking.b.eval("workers()")) == 1
    looking.b.run("answer.set()")
    wait_until(lambda: looking.b.eval("workers()") == [], SOON)
    assert looking.files() == {}
    enable(looking)
    looking.b.wait("len(session().rows)")
    looking.wait("PAUSED")
