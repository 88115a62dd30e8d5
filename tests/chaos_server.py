"""A server of whose answers a share is faulty, as a seed chooses, and what its files must be in the end."""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path

from faults import FAULTS, leftovers, only_part, redirect_to_itself, several_ranges
from server import (
    Behaviour,
    Exchange,
    Generated,
    Server,
    close_unannounced,
    content_range,
    drip,
    drip_headers,
    drops_range_when_if_range,
    garble_overlap,
    gzip_body,
    html_instead,
    ignore_range,
    informational,
    long_header,
    lying_content_range,
    on_range,
    other_size_on_range,
    status,
    status_416,
    with_headers,
    wrong_length,
)

SHARE = 0.3  # of the answers that are faulty
SLOW = 0.03  # of those that are waited for until the time-out
LARGEST = 2_000_000  # bytes of a file
PACED = 0.1  # share of the files that come slowly, so that several connections fetch them
PACE = drip(64 << 10, 0.02)


def _somewhere(exchange: Exchange) -> int:
    """A position in the body, by the request's number: no lock is needed for it."""
    size = exchange.resource.body.size
    return random.Random(exchange.number * 7919 + size).randrange(size) if size else 0


def cut_somewhere(exchange: Exchange) -> None:
    exchange.at_body(_somewhere(exchange), exchange.cut)
    exchange.go_on()


def reset_somewhere(exchange: Exchange) -> None:
    exchange.at_body(_somewhere(exchange), exchange.reset)
    exchange.go_on()


def stall_somewhere(exchange: Exchange) -> None:
    exchange.at_body(_somewhere(exchange), lambda: exchange.wait(None))
    exchange.go_on()


QUICK: dict[str, tuple[Behaviour, ...]] = {
    **{fault.name: fault.behaviours for fault in FAULTS if fault.is_passing and not fault.is_slow},
    "cut somewhere": (cut_somewhere,),
    "cut somewhere else": (cut_somewhere,),
    "reset somewhere": (reset_somewhere,),
    "garbled range": (garble_overlap(),),
    "no Content-Range": (content_range(None),),
    "wrong Content-Range": (lying_content_range(),),
    "another size": (on_range(other_size_on_range()),),
    "416": (status_416,),
    "range ignored": (ignore_range,),
    "range dropped because of If-Range": (drops_range_when_if_range,),
    "several ranges": (on_range(several_ranges),),
    "part of a range": (only_part(100_000),),
    "range as gzip": (on_range(gzip_body),),
    "gzip": (gzip_body,),
    "encoding nobody asked for": (with_headers({"Content-Encoding": "br"}),),
    "too much announced": (wrong_length(5),),
    "redirect": (redirect_to_itself(),),
    "informational answers": (informational(100, 102, 103, times=5),),
    "header of 1 MiB": (long_header(),),
    "slow headers": (drip_headers(0.001, 20),),
    "closes unannounced": (close_unannounced,),
    "second answer": (leftovers(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"),),
    "page": (html_instead(),),
    "403": (status(403),),
    "404": (status(404),),
}
"""Answers after which the next one may be right, for a retry of ours or of the user's."""

WAITED: dict[str, tuple[Behaviour, ...]] = {
    **{fault.name: fault.behaviours for fault in FAULTS if fault.is_passing and fault.is_slow},
    "stall somewhere": (stall_somewhere,),
}


class Chaos:
    """Files under a server, each `Generated` by its number."""

    def __init__(self, server: Server, seed: int) -> None:
        self.seed = seed
        self.met: Counter[str] = Counter()
        """How often each fault was."""
        self.answers = 0
        self._server = server
        self._random = random.Random(seed)
        self._lock = threading.Lock()  # each connection has a thread
        self._bodies: dict[str, Generated] = {}
        self._story: dict[str, list[str]] = {}  # of each file: its answers

    def add(self, number: int) -> str:
        """Put a file there and return its link, every other one with the digest that it must have."""
        rng = random.Random(f"{self.seed} {number}")
        body = Generated(int(LARGEST ** rng.random()) - 1, number)
        name = f"{number}.blend"
        self._bodies[name] = body
        pace = [PACE] if rng.random() < PACED else []
        url = self._server.add(f"/{name}", *pace, self._behave, body=body)
        return url if number % 2 else f"{url}#sha256={body.digest()}"

    def _behave(self, exchange: Exchange) -> None:
        with self._lock:
            self.answers += 1
            name = self._choose()
            self.met[name] += bool(name)
            self._story.setdefault(exchange.request.path, []).append(f"{exchange.request.range} {name}")
        exchange._behaviours[:0] = {**QUICK, **WAITED}.get(name, ())
        exchange.go_on()

    def _choose(self) -> str:
        if self._random.random() >= SHARE:
            return ""
        return self._random.choice(sorted(WAITED if self._random.random() < SLOW else QUICK))

    def problems(self, folder: Path) -> list[str]:
        """What is missing, wrong, or should not be there."""
        there = {path.name for path in folder.iterdir()}
        found = [f"missing: {name}" for name in sorted(self._bodies.keys() - there)]
        found += [f"left: {name}" for name in sorted(there - self._bodies.keys())]
        for name in sorted(there & self._bodies.keys()):
            body = self._bodies[name]
            if (data := (folder / name).read_bytes()) != body.read(0, body.size):
                story = self._story[f"/{name}"]
                found.append(f"wrong: {name}, {len(data)} bytes for {body.size}, {data[:40]!r}; {story}")
        return found
