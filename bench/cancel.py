"""P9: from the click on Cancel until no worker is left, whatever the workers are doing.

Every download is stuck in some phase when all are cancelled; the operator that a button would call
is the click. Threads are looked for from outside, by the names that the system has of them: in
Blender and, where the workers live in a child process, there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from figures import Row, percentile
from window import window
from workbench import Bench

from downloading import Downloads  # isort: skip
from server import Server, pattern, stall_after, stall_before_headers, status, unreachable_port  # isort: skip

BAR = 50.0  # ms
TIMES = 20  # cancels
STUCK = 0.5  # seconds after which they are stuck for sure
EACH = 3  # downloads in each phase
OTHERS = 10_000 - 16  # rows that wait
HELD = 100_000  # bytes that came before a body stalls
LOOK = 0.0005  # seconds
GIVE_UP = 30.0


CLICK = """
def click():
    global clicked
    clicked = time.monotonic()
    act("cancel")
"""


def rows(bench: Bench, bar: str) -> Iterator[Row]:
    for tree in bench.trees:
        for host in ("threads", "child"):
            for others in (0, OTHERS):
                with ExitStack() as stack:
                    yield _measure(bench, bar, tree, host, others, stack)


def _measure(bench: Bench, bar: str, tree: str, host: str, others: int, stack: ExitStack) -> Row:
    folder = stack.enter_context(bench.folder(bar))
    urls = _stuck(stack)
    waiting = [f"{urls[0]}&n={number}" for number in range(others)]
    d = stack.enter_context(window(bench, bench.trees[tree], folder, host))
    d.b.run(CLICK)
    d.b.run(f"set_limit({len(urls)}); bpy.context.preferences.system.network_timeout = 60")
    times = [_cancel(d, urls, waiting) for _ in range(TIMES)]
    among = f", {others} more wait" if others else ""
    return Row(
        bar=bar,
        work=f"cancel {len(urls)} in 5 phases{among}, {host}" + ("" if tree == "ours" else f", {tree}"),
        ours=times,
        unit="ms",
        value=percentile(times, 0.99),
        value_unit="ms (p99)",
        at_most=BAR if tree == "ours" else None,
    )


def _stuck(stack: ExitStack) -> list[str]:
    """Links whose downloads get stuck: a few in each phase. What they received is of no use later."""
    server, shy = stack.enter_context(Server()), stack.enter_context(Server())
    shy.stall_in_handshake()
    dead = stack.enter_context(unreachable_port())
    once = {"body": pattern(2 * HELD), "etag": None, "last_modified": None}
    places = [
        server.add("/headers", stall_before_headers(server.gate())),
        server.add("/body", stall_after(HELD, server.gate()), **once),
        server.add("/busy", status(503, {"Retry-After": "200"})),
        f"http://127.0.0.1:{dead}/connecting",
        f"https://127.0.0.1:{shy.port}/handshake",
    ]
    return [f"{place}?{number}" for place in places for number in range(EACH)]


def _cancel(d: Downloads, urls: list[str], waiting: list[str]) -> float:
    """Start, let all get stuck, cancel; milliseconds until no worker is left."""
    d.b.run(f"invoke({chr(10).join(urls + waiting)!r}, directory={str(d.folder)!r})")
    d.b.wait(f"statuses().count('RUNNING') == {len(urls)}")
    time.sleep(STUCK)
    pids = [d.b.pid, *(pid for pid, words in d.b.children().items() if words in d.children())]
    d.b.run("bpy.app.timers.register(click, first_interval=0.01)")
    end = _end_of_workers(pids)
    took = (end - float(d.b.eval("globals().pop('clicked')"))) * 1000
    d.wait_over()
    return took


def _end_of_workers(pids: list[int]) -> float:
    """When none was left, in seconds of `time.monotonic`, which is the same for every process."""
    give_up = time.monotonic() + GIVE_UP
    while any(name.startswith("downloads-") for pid in pids for name in _threads(pid)):
        if time.monotonic() > give_up:
            raise SystemExit("a worker is left")
        time.sleep(LOOK)
    return time.monotonic()


def _threads(pid: int) -> Iterator[str]:
    """The system's names of a process's threads, which are Python's from 3.14 on."""
    for path in Path(f"/proc/{pid}/task").glob("*/comm"):
        with suppress(OSError):  # it has just ended
            yield path.read_text()
