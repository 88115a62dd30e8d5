"""P10, P11, P12 and P14: what is taken and what is wasted of memory, of the wire and of time."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from figures import Row
from seat import MODULE, Seat
from serving import MIB, File, Site, is_equal
from window import window
from workbench import Bench

KIB = 1 << 10
OVERLAP = 64 * KIB  # bytes that a resume or a joint may fetch twice


def rows(bench: Bench, bar: str) -> Iterator[Row]:
    measure = {"P10": _memory, "P11": _killed, "P12": _paused, "P14": _many}[bar]
    for tree in bench.trees:
        yield from measure(bench, bar, tree)


def _named(text: str, tree: str) -> str:
    return text if tree == "ours" else f"{text}, {tree}"


# -- P10: memory at full speed.


def _memory(bench: Bench, bar: str, tree: str) -> Iterator[Row]:
    first = File("0.bin", 1024 * MIB)
    files = [first, *(File(f"{number}.bin", first.size, like=first.name) for number in range(1, 16))]
    with (
        bench.folder(bar) as folder,
        bench.folder(bar, on_disk=True) as out,  # all of them are more than most machines' memory
        Site(folder / "site").open() as site,
        Seat(bench.trees[tree], folder / "profile") as seat,
    ):
        site.make(files)
        seat.ask("enable", MODULE)
        seat.ask("download", site.url(first.name), str(out / "first"), 16)
        before = seat.ask("forget_peak")
        seat.ask("download", "\n".join(site.url(file.name) for file in files), str(out / "all"), 16)
        peak = seat.ask("memory")
        _check(out / "all", site, files)
    yield Row(
        bar=bar, work=_named("16 files of 1 GiB at once, to a disk", tree), ours=[peak], unit="MiB",
        peer="after the first", theirs=[before], value=peak - before, value_unit="MiB more",
        at_most=24.0 if tree == "ours" else None,
    )  # fmt: skip


def _check(out: Path, site: Site, files: list[File]) -> None:
    for file in files:
        if not is_equal(out / file.name, site.www / file.name):
            raise SystemExit(f"{file.name} is not what it should be")


# -- P11: what a killed Blender fetches again.

SPEEDS = {  # KiB/s of each file: MiB of it
    100 * KIB: 1024,
    2 * KIB: 32,
}
LIFE = (4.0, 8.0)  # seconds until it is killed


def _killed(bench: Bench, bar: str, tree: str) -> Iterator[Row]:
    for speed, size in SPEEDS.items():
        again = [share for _ in range(bench.rounds) for share in _again(bench, bar, tree, speed, size)]
        seconds = 5 * speed / KIB  # MiB that five seconds bring
        yield Row(
            bar=bar, work=_named(f"4 files at {speed / KIB:.0f} MiB/s each, killed: fetched again", tree),
            ours=again, unit="MiB", value=max(again), value_unit="MiB at most",
            at_most=min(64.0, seconds) if tree == "ours" else None,
        )  # fmt: skip


def _again(bench: Bench, bar: str, tree: str, speed: int, size: int) -> list[float]:
    """MiB of each file that a second life fetches although the first had received them."""
    first = File("0.bin", size * MIB)
    files = [first, *(File(f"{number}.bin", first.size, like=first.name) for number in range(1, 4))]
    with bench.folder(bar) as folder, Site(folder / "site").open() as site:
        site.make(files)
        out = folder / "out"
        links = "\n".join(site.url(file.name, f"at-{speed}k/") for file in files)
        with Seat(bench.trees[tree], folder / "profile") as seat:
            seat.ask("enable", MODULE)
            seat.tell("download", links, str(out), len(files))
            time.sleep(random.uniform(*LIFE))
        had = {file: _on_disk(out, file) for file in files}
        time.sleep(1.0)  # nginx notes the first life's answers
        before = {file: sum(site.sent(file.name)) for file in files}
        with Seat(bench.trees[tree], folder / "profile") as seat:
            seat.ask("enable", MODULE)
            seat.ask("download", links, str(out), len(files))
        _check(out, site, files)
        time.sleep(0.5)
        sent = {file: sum(site.sent(file.name)) - before[file] for file in files}
        return [(had[file] + sent[file] - file.size) / MIB for file in files]


def _on_disk(out: Path, file: File) -> int:
    """Bytes of a partial file that are there."""
    return sum(path.stat().st_blocks * 512 for path in out.glob(f"{file.name}.*.part"))


# -- P12: bytes on the wire.

PAUSES = (0.3, 0.6)  # of the file


def _paused(bench: Bench, bar: str, tree: str) -> Iterator[Row]:
    for size, place, limit in ((128 * MIB, "at-2048k/", 8), (1600 * 1000, "at-200k/", 8)):
        for host in ("threads", "child"):
            times = range(max(1, bench.rounds // 2))
            shares = [_wire(bench, bar, tree, host, size, place, limit) for _ in times]
            yield Row(
                bar=bar,
                work=_named(f"{size / 1e6:.1f} MB, {limit} connections, paused twice, {host}", tree),
                ours=shares, unit="sizes", value=max(shares), value_unit="sizes at most",
                at_most=1.1 if tree == "ours" else None,
            )  # fmt: skip


def _wire(bench: Bench, bar: str, tree: str, host: str, size: int, place: str, limit: int) -> float:
    """What came over the wire for a file of size 1, less 64 KiB for each request."""
    file = File("file.bin", size)
    with bench.folder(bar) as folder, Site(folder / "site").open() as site:
        site.make([file])
        with window(bench, bench.trees[tree], folder, host) as d:
            d.b.run(f"set_limit({limit})")
            d.start(site.url(file.name, place))
            for share in PAUSES:
                d.wait_progress(share)
                d.act("pause")
                d.wait("PAUSED")
                d.wait_over()
                d.act("resume")
            d.b.wait("statuses() == ['FINISHED']")
            d.wait_over()
            _check(d.folder, site, [file])
        answers = site.sent(file.name)
    return (sum(answers) - OVERLAP * len(answers)) / size


# -- P14: many.

COUNTS = (1000, 100, 10_000, 100_000)
MOST = 100_000


def _many(bench: Bench, bar: str, tree: str) -> Iterator[Row]:
    times = _times(bench, bar, tree)
    usual = times.pop(COUNTS[0])
    for count, values in times.items():
        yield Row(
            bar=bar, work=_named(f"{count} files of 1 kB, CPU a file", tree), ours=values, unit="ms",
            peer=f"{COUNTS[0]} files", theirs=usual,
            value=statistics.median(values) / statistics.median(usual),
            at_most=1.2 if tree == "ours" else None,
        )  # fmt: skip
    queued = _queued(bench, bar, tree)
    yield Row(
        bar=bar, work=_named(f"memory of each of {MOST} that wait in a window", tree),
        ours=[queued], unit="KiB", value=queued, value_unit="KiB", at_most=2.0 if tree == "ours" else None,
    )  # fmt: skip


def _times(bench: Bench, bar: str, tree: str) -> dict[int, list[float]]:
    """Milliseconds of a processor a file, by how many there are; the large ones once, the others in turn."""
    found: dict[int, list[float]] = {count: [] for count in COUNTS}
    with (
        bench.folder(bar) as folder,
        Site(folder / "site").open() as site,
        Seat(bench.trees[tree], folder / "profile") as seat,
    ):
        seat.ask("enable", MODULE)
        for turn in range(bench.rounds + 1):
            for count in COUNTS:
                if count < 10_000 or turn == 1:
                    out = folder / f"{turn}-{count}"
                    links = "\n".join(site.url(f"{number}.bin", "many/") for number in range(count))
                    before = seat.ask("cpu_seconds")
                    seat.ask("download", links, str(out), 16)
                    took = (seat.ask("cpu_seconds") - before) * 1000 / count
                    if len(list(out.iterdir())) != count:
                        raise SystemExit("some are missing")
                    if turn:
                        found[count].append(took)
    return found


def _queued(bench: Bench, bar: str, tree: str) -> float:
    """KiB of Blender's memory for each row that waits, the panel's copy of it included."""
    with bench.folder(bar) as folder, Site(folder / "site").open() as site:
        first = File("big.bin", 64 * MIB)
        site.make([first])
        with window(bench, bench.trees[tree], folder) as d:
            d.b.run("set_limit(1)")
            d.start(site.url(first.name, "at-100k/"))
            d.wait_progress(0.01)
            before = _resident(d.b.pid)
            place = site.url("", "many/")
            d.b.run(f"urls = chr(10).join(f'{place}{{n}}.bin' for n in range({MOST}))")
            d.b.run(f"invoke(urls, directory={str(d.folder)!r})", deadline=300)
            d.b.run("del urls")
            d.b.wait(f"len(state().items) == {MOST} + 1", deadline=300)
            return (_resident(d.b.pid) - before) / MOST


def _resident(pid: int) -> float:
    """KiB of memory that a process has in use."""
    words = Path(f"/proc/{pid}/status").read_text().split()
    return float(words[words.index("VmRSS:") + 1])
