"""How a download asks, and what it trusts: each step from state to state is taken here, and no other is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest
from driving import Driver, Fetcher, Job, Settings, finished
from server import (
    Server,
    after,
    changed,
    cut_after,
    drops_range_when_if_range,
    first,
    garble_at,
    ignore_range,
    lying_content_range,
    on_range,
    pattern,
    status,
    status_416,
    when,
)

from background_downloads.transfer.answers import Ask, Trust
from background_downloads.transfer.asking import Asking
from background_downloads.transfer.fetch import Transfer

pytestmark = pytest.mark.usefixtures("no_delays")

DATA, OTHER = pattern(300_000), pattern(300_000, seed=1)
SHA256 = hashlib.sha256(DATA).hexdigest()
KEPT = 200_000
ALIKE = DATA[:KEPT] + OTHER[KEPT:]
ETAG = '"1"'
CUT = first(1, cut_after(KEPT))

Step = tuple[Enum, Enum]
RANGE, BARE, WHOLE = Ask
ONE, SEVERAL, PROVEN, ALONE = Trust


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> set[Step]:
    """All that are taken."""
    taken: set[Step] = set()

    def note(owner: Transfer | Asking, name: str, value: Any) -> None:
        old = owner.__dict__.get(name)
        if isinstance(old, (Ask, Trust)) and old is not value:
            taken.add((old, value))
        object.__setattr__(owner, name, value)

    for owner in (Transfer, Asking):
        monkeypatch.setattr(owner, "__setattr__", note, raising=False)
    return taken


def is_bare(exchange: Any) -> bool:
    return exchange.request.range is not None and not exchange.request.headers["If-Range"]


# One worker: what the server does, whether a digest is expected, and the steps.
ALONE_WITH: dict[str, tuple[tuple[Any, ...], str | None, set[Step]]] = {
    "goes on": ((CUT,), None, {(ONE, SEVERAL)}),
    "drops the range because of If-Range": (
        (CUT, after(1, drops_range_when_if_range)),
        None,
        {(RANGE, BARE), (ONE, SEVERAL)},
    ),
    "refuses ranges": ((CUT, after(1, status_416)), None, {(RANGE, WHOLE), (WHOLE, RANGE)}),
    "refuses them without If-Range too": (
        (CUT, after(1, drops_range_when_if_range, when(is_bare, status_416))),
        None,
        {(RANGE, BARE), (BARE, WHOLE), (WHOLE, RANGE)},
    ),
    "gives others without If-Range": (
        (CUT, after(1, drops_range_when_if_range, when(is_bare, lying_content_range()))),
        None,
        {(RANGE, BARE), (BARE, WHOLE), (WHOLE, RANGE)},
    ),
    "has another one without If-Range": (
        (CUT, after(1, drops_range_when_if_range, when(is_bare, ignore_range)), changed(2, body=OTHER)),
        None,
        {(RANGE, BARE), (BARE, WHOLE), (WHOLE, RANGE)},
    ),
    "has one that begins alike without If-Range": (
        (CUT, after(1, drops_range_when_if_range, when(is_bare, ignore_range)), changed(2, body=ALIKE)),
        None,
        {(RANGE, BARE), (BARE, RANGE)},
    ),
    "gives a wrong range later": (
        (CUT, when(lambda e: e.number == 1, cut_after(80_000)), after(2, lying_content_range())),
        None,
        {(ONE, SEVERAL), (RANGE, WHOLE), (WHOLE, RANGE)},
    ),
    "has another one later": (
        (CUT, when(lambda e: e.number == 1, cut_after(80_000)), changed(2, body=OTHER)),
        None,
        {(ONE, SEVERAL), (SEVERAL, ONE)},
    ),
    "has a wrong byte in a range": (
        (CUT, when(lambda e: e.number == 1, garble_at(KEPT + 1))),
        SHA256,
        {(ONE, SEVERAL), (SEVERAL, ALONE)},
    ),
    "has another file under the same validator": (
        (CUT, after(1, on_range(status(400))), changed(2, body=OTHER, etag=ETAG, last_modified=None)),
        None,
        {(RANGE, WHOLE), (WHOLE, RANGE), (ONE, ALONE)},
    ),
}


@pytest.mark.parametrize("server_that", ALONE_WITH)
def test_with_one_worker(fetch: Fetcher, server: Server, server_that: str, steps: set[Step]) -> None:
    behaviours, digest, expected = ALONE_WITH[server_that]
    url = server.add("/a.bin", *behaviours, body=DATA, etag=ETAG, last_modified=None)
    finished(fetch(url, sha256=digest))
    assert steps == expected


# Two workers, of which the first gives its answer up, since the other's fits; then the other's breaks.
BESIDE: dict[str, tuple[Any, set[Step]]] = {
    "goes on": (cut_after(10 << 20), {(ONE, SEVERAL), (SEVERAL, PROVEN)}),
    "refuses ranges then": (
        on_range(status(410)),
        {(ONE, SEVERAL), (SEVERAL, PROVEN), (PROVEN, ALONE), (RANGE, WHOLE), (WHOLE, RANGE)},
    ),
    "has another file then": (changed(2, body=OTHER), {(ONE, SEVERAL), (SEVERAL, PROVEN), (PROVEN, ONE)}),
}


@pytest.mark.parametrize("server_that", BESIDE)
def test_with_two(
    new_thread_driver: Callable[..., Driver],
    until_given_up: Callable[..., Job],
    server_that: str,
    steps: set[Step],
) -> None:
    driver = new_thread_driver(Settings(timeout=90.0, connections=2, split_seconds=0.0, first_delay=0.0))
    then, expected = BESIDE[server_that]
    job = until_given_up(driver, pattern(4 << 20), then)
    finished(driver.outcome(job))
    assert expected - {(PROVEN, ONE)} <= steps
    assert steps <= expected | {(ONE, SEVERAL), (SEVERAL, ONE)}


def test_no_step_is_left_out() -> None:
    taken = set[Step]().union(*(steps for _, _, steps in ALONE_WITH.values()))
    taken = taken.union(*(steps for _, steps in BESIDE.values()))
    assert taken == {
        (RANGE, BARE),
        (RANGE, WHOLE),
        (BARE, WHOLE),
        (BARE, RANGE),
        (WHOLE, RANGE),
        (ONE, SEVERAL),
        (ONE, ALONE),
        (SEVERAL, PROVEN),
        (SEVERAL, ALONE),
        (SEVERAL, ONE),
        (PROVEN, ALONE),
        (PROVEN, ONE),
    }
