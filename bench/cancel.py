"""How long a cancel takes in each phase, from the stop to the worker being free. In milliseconds."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import server as servers

from background_downloads.transfer.job import Job, Phase, Settings
from background_downloads.workers import Ended, ProcessHost, ThreadHost

TIMES = 20


@contextmanager
def _connecting() -> Iterator[str]:
    with servers.unreachable_port() as port:
        yield f"http://127.0.0.1:{port}/file"


@contextmanager
def _handshake() -> Iterator[str]:
    with servers.Server() as server:
        server.stall_in_handshake()
        yield server.url("/file").replace("http:", "https:")


@contextmanager
def _headers() -> Iterator[str]:
    with servers.Server() as server:
        yield server.add("/file", servers.stall_before_headers(server.gate()), body=b"x" * 1000)


@contextmanager
def _body() -> Iterator[str]:
    with servers.Server() as server:
        yield server.add("/file", servers.stall_after(500, server.gate()), body=b"x" * 1000)


@contextmanager
def _backoff() -> Iterator[str]:
    with servers.Server() as server:
        yield server.add("/file", servers.fail_times(1000, 503, {"Retry-After": "100"}))


PHASES: dict[str, tuple[Callable[[], object], Phase]] = {
    "connecting": (_connecting, Phase.CONNECT),
    "TLS handshake": (_handshake, Phase.REQUEST),
    "waiting for headers": (_headers, Phase.REQUEST),
    "stalled body": (_body, Phase.BODY),
    "waiting to retry": (_backoff, Phase.BACKOFF),
}


def report() -> None:
    """Print the median and the longest of each phase, for threads and a child process."""
    print(f"cancel, ms from the stop to the worker being free, median and longest of {TIMES}")
    for kind in (ThreadHost, ProcessHost):
        for name, (place, phase) in PHASES.items():
            with ExitStack() as stack:
                url = stack.enter_context(place())
                times = _measure(kind, url, phase)
            figures = f"{statistics.median(times):6.1f} {max(times):6.1f}"
            print(f"    {kind.__name__:12} {name:20} {figures}", flush=True)


def _measure(kind: type, url: str, phase: Phase) -> list[float]:
    times = []
    with tempfile.TemporaryDirectory() as folder:
        host = kind(Settings())
        for uid in range(1, TIMES + 1):
            host.submit(Job(uid=uid, url=url, directory=folder))
            _until(host, lambda found, uid=uid: uid in found.progress and found.progress[uid].phase is phase)
            began = time.perf_counter()
            host.stop(uid)
            _until(host, lambda found: any(isinstance(event, Ended) for event in found.events))
            times.append((time.perf_counter() - began) * 1000)
            host.forget(uid)
        host.shut()
    return times


def _until(host: object, is_so: Callable[[object], bool]) -> None:
    """Look without pause, so that it is the host that is measured."""
    while not is_so(host.poll()):  # type: ignore[attr-defined]
        host.wait(0.001)  # type: ignore[attr-defined]
