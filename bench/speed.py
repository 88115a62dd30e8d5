"""P1 to P6: how long the executed path takes, beside others that fetch the same."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from figures import Row, in_turn, ratio
from peers import PEERS, Work, is_here
from seat import MODULE, Seat
from serving import MIB, File, Site, is_equal
from workbench import Bench

GIB = [File("1g.bin", 1024 * MIB)]

WORKS = {
    work.bar: work
    for work in [
        Work(
            bar="P1",
            text="one file of 1 GiB",
            files=GIB,
            at_most={"curl": 1.0, "aria2c": 0.55, "Blender's": 0.2},
        ),
        Work(
            bar="P2",
            text="20 files of 50 MiB, 4 at a time",
            files=[File(f"50m-{number}.bin", 50 * MIB) for number in range(20)],
            limit=4,
            at_most={"curl": 0.8},
        ),
        Work(
            bar="P3",
            text="2000 files of 16 KiB",
            files=[File(f"16k-{number}.bin", 16 << 10) for number in range(2000)],
            at_most={"aria2c": 4.0, "Blender's": 0.25},
        ),
        Work(
            bar="P4",
            text="256 MiB, 4 MiB/s a connection, 8 connections",
            files=[File("256m.bin", 256 * MIB)],
            limit=8,
            each=8,
            place="slow/",
            at_most={"aria2c": 1.1},
        ),
        Work(bar="P5", text="1 GiB over TLS", files=GIB, tls=True, at_most={"curl": 1.1}),
        Work(bar="P6", text="1 GiB with #sha256=", files=GIB, at_most={"curl + sha256sum": 0.4}),
    ]
}


def rows(bench: Bench, bar: str) -> list[Row]:
    """One bar's lines."""
    with bench.folder(bar) as folder, Site(folder / "site").open() as site:
        return compare(bench, prepared(bar, site), site, folder)


def prepared(bar: str, site: Site) -> Work:
    """A bar's work, whose files are there."""
    work = WORKS[bar]
    site.make(work.files)
    if bar != "P6":
        return work
    with open(site.www / work.files[0].name, "rb") as file:
        return replace(work, digest=hashlib.file_digest(file, "sha256").hexdigest())


def compare(
    bench: Bench, work: Work, site: Site, folder: Path, *, within: Sequence[str] = (), rounds: int = 0
) -> list[Row]:
    """Ours, as it was at other commits, and each peer that has a bar, in turn."""
    with ExitStack() as stack:
        measures: dict[str, Callable[[], float]] = {}
        for name, tree in bench.trees.items():
            seat = stack.enter_context(_ready(tree, folder / f"profile-{name}", site, within))
            measures[name] = checked(work, site, folder / f"{name}-out", _ours(work, site, seat))
        for name in filter(is_here, work.at_most):
            peer = PEERS[name]
            measures[name] = checked(
                work, site, folder / f"{name.split()[0]}-out", lambda out, p=peer: p(work, site, out, within)
            )
        times = in_turn(measures, rounds or bench.rounds)
    return list(_lines(work, times))


@contextmanager
def _ready(tree: Path, profile: Path, site: Site, within: Sequence[str]) -> Iterator[Seat]:
    with Seat(tree, profile, within=within, REQUESTS_CA_BUNDLE=str(site.certificate)) as seat:
        seat.ask("enable", MODULE)
        yield seat


def _ours(work: Work, site: Site, seat: Seat) -> Callable[[Path], float]:
    return lambda out: float(seat.ask("download", links(work, site), str(out), work.limit))


def links(work: Work, site: Site) -> str:
    """What a person would paste."""
    digest = f"#sha256={work.digest}" if work.digest else ""
    return "\n".join(url + digest for url in work.urls(site))


def checked(work: Work, site: Site, out: Path, measure: Callable[[Path], float]) -> Callable[[], float]:
    """The measure in a folder of its own, which has every byte afterwards and is gone then."""

    def run() -> float:
        out.mkdir()
        try:
            took = measure(out)
            wrong = [file.name for file in work.files if not is_equal(out / file.name, site.www / file.name)]
            if wrong:
                raise SystemExit(f"{out.name}: {wrong[0]} is not what it should be")
            return took
        finally:
            shutil.rmtree(out)

    return run


def _lines(work: Work, times: Mapping[str, Sequence[float]]) -> Iterator[Row]:
    for name, theirs in times.items():
        if name != "ours":
            yield ratio(work.bar, work.text, times["ours"], name, theirs, at_most=work.at_most.get(name))
