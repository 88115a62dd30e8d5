"""How much longer the invoked path takes than the executed one, in one window, with threads and a child.

Both from `downloads.start` to the last file in place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from figures import Row, in_turn, ratio
from peers import Work
from serving import Site
from speed import checked, links, prepared
from window import window
from workbench import Bench

from downloading import Downloads  # isort: skip

AT_MOST = 1.2
WORKS = ("P1", "P2", "P3", "P4", "P6")  # P5 needs a certificate that this window would have to know
PATHS = ("INVOKE_DEFAULT", "EXEC_DEFAULT")
LONGEST = 120.0  # seconds


def rows(bench: Bench, bar: str) -> Iterator[Row]:
    for host in ("threads", "child"):
        for name in WORKS:
            with bench.folder(bar) as folder, Site(folder / "site").open() as site:
                work = prepared(name, site)
                with window(bench, bench.trees["ours"], folder, host) as d:
                    yield _row(bench, bar, work, site, d)


def _row(bench: Bench, bar: str, work: Work, site: Site, d: Downloads) -> Row:
    d.b.run(f"set_limit({work.limit})")
    d.b.run(f"urls = {links(work, site)!r}")
    times = in_turn(
        {path: checked(work, site, d.folder.with_name(path), partial(_seconds, d, path)) for path in PATHS},
        bench.rounds,
    )
    what = f"{work.text}, invoked, {d.host}"
    return ratio(bar, what, times[PATHS[0]], "executed", times[PATHS[1]], at_most=AT_MOST)


def _seconds(d: Downloads, path: str, out: Path) -> float:
    start = f"bpy.ops.downloads.start({path!r}, urls=urls, directory={str(out)!r})"
    d.b.run(f"began = time.time()\nwith in_view3d(): {start}", LONGEST)
    d.b.wait("session().run is None and not workers()", LONGEST)
    last = max(os.lstat(file).st_ctime for file in out.iterdir())
    took = last - float(d.b.eval("began"))
    d.act("clear")
    return took
