"""Runs inside Blender, in the background: downloads until all is there, and measures memory. -- TASK.json

The task names zip, host, links, directory and the file where the outcome is told.
"""

import ctypes
import gc
import importlib
import itertools
import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import bpy

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]
from installing import install  # noqa: E402
from leaks import children  # noqa: E402

TIMEOUT = 2  # seconds
CONNECTIONS = 16
BATCH = 100  # downloads given at once
LOOK = 200  # downloads after which memory is measured, again and again
ROUNDS = 20  # of Retry, each for what failed in the one before

PACKAGE = "bl_ext.user_default.background_downloads"

Batch = Callable[[list[str]], list[str]]
"""Downloads links, and returns those that failed."""


def main() -> None:
    task = json.loads(Path(sys.argv[-1]).read_text())
    install(task["zip"])
    host = by_operator(task["directory"])
    if task["host"] in HOSTS:
        host = by_host(HOSTS[task["host"]], task["directory"])
    download = next(host)
    retried, sizes = 0, defaultdict[str, list[int]](list)
    for at in range(0, len(task["links"]), BATCH):
        links = task["links"][at : at + BATCH]
        for _ in range(ROUNDS):
            if not (links := download(links)):
                break
            retried += len(links)
        if (at + BATCH) % LOOK == 0:
            for name, size in memory().items():
                sizes[name].append(size)
    host.close()
    told = {"retried": retried, "memory": sizes}
    Path(task["outcome"]).write_text(json.dumps(told))


def by_operator(directory: str) -> Iterator[Batch]:
    """As a script of a user's would: `downloads.start` waits, its workers are threads."""
    system = bpy.context.preferences.system
    system.network_timeout, system.network_connection_limit = TIMEOUT, CONNECTIONS

    def download(links: list[str]) -> list[str]:
        with suppress(RuntimeError):  # it names what failed; the rows say it too
            bpy.ops.downloads.start(urls="\n".join(links), directory=directory)
        items = bpy.context.window_manager.downloads.items
        done = {item.url for item in items if item.status == "FINISHED"}
        bpy.ops.downloads.clear()
        return [link for link in links if link.partition("#")[0] not in done]

    yield download


HOSTS = {"threads": "ThreadHost", "process": "ProcessHost"}


def by_host(name: str, directory: str) -> Iterator[Batch]:
    """Split into as many connections as may be."""
    job = importlib.import_module(f"{PACKAGE}.transfer.job")
    names = importlib.import_module(f"{PACKAGE}.transfer.names")
    workers = importlib.import_module(f"{PACKAGE}.workers")
    host = getattr(workers, name)(
        job.Settings(timeout=TIMEOUT, connections=CONNECTIONS, split_seconds=0.05, first_delay=0.1)
    )
    jobs: dict[str, Any] = {}
    numbers = itertools.count(1)

    def download(texts: list[str]) -> list[str]:
        for text in texts:
            (link,), _ = names.parse_links(text)
            uid = next(numbers)
            jobs.setdefault(text, job.Job(uid=uid, url=link.url, directory=directory, digest=link.digest))
            host.submit(jobs[text])
        outcomes = _until_ended(host, workers, [jobs[text].uid for text in texts])
        done = {text for text in texts if isinstance(outcomes[jobs[text].uid], job.Finished)}
        for text in done:
            del jobs[text]
        return [text for text in texts if text not in done]

    try:
        yield download
    finally:
        host.shut()


def _until_ended(host: Any, workers: Any, uids: Iterable[int]) -> dict[int, Any]:
    missing, outcomes = set(uids), {}
    while missing:
        for event in host.poll().events:
            if isinstance(event, workers.Ended):
                outcomes[event.uid] = event.outcome
                missing.discard(event.uid)
        time.sleep(0.02)
    return outcomes


def memory() -> dict[str, int]:
    """Of this process: bytes, bytes in use, Python's own blocks; and bytes of the child, if there is one."""
    gc.collect()
    sizes = {"Blender": _resident("self"), "in use": _in_use(), "blocks": sys.getallocatedblocks()}
    for pid in children():
        sizes["the child"] = _resident(str(pid))
    return sizes


def _in_use() -> int:
    """Bytes that C code has got from glibc and not given back; 0 where there is no such counter."""
    try:
        count = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return 0
    count.restype = _Counts
    counts = count()
    return int(counts.uordblks + counts.hblkhd)


class _Counts(ctypes.Structure):
    """What `mallinfo2` returns."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]


def _resident(process: str) -> int:
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert match
    return int(match[1]) << 10


main()
