"""Whatever is pressed in whatever order, several times before a worker has let go: the list stays right.

A seed gives an order again: BACKGROUND_DOWNLOADS_PRESSED="7 8 9" picks seeds, and _PRESSES how many.
"""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import bpy
import pytest
from server import Exchange, Generated, Server, cut_after, drip, limit_connections, reset_after, status

if TYPE_CHECKING:
    from conftest import Extension

SEEDS = os.environ.get("BACKGROUND_DOWNLOADS_PRESSED", "1").split()
PRESSES = int(os.environ.get("BACKGROUND_DOWNLOADS_PRESSES", "60"))
FILES = 20
ROUND = 30  # presses after which all comes to rest, and is looked at
MIB = 1 << 20
DEADLINE = 60.0  # seconds, only so that what hangs fails
SMALL = 60  # files, many more than connections
UNDER_WAY = ("QUEUED", "RUNNING")
_MEANT = {
    "pause": ("",),
    "resume": ("PAUSED",),
    "cancel": ("", "PAUSED"),
    "retry": ("FAILED", "CANCELLED"),
}
"""The last wishes for rows to which each applies."""
_BECOMES = {"pause": "PAUSED", "resume": "", "cancel": "CANCELLED", "retry": ""}


class Files:
    """What a server has, under two links each, each answered in any way, the next time in another."""

    def __init__(self, server: Server, chance: Random) -> None:
        self._chance, self._lock = chance, threading.Lock()
        self.bodies = {f"f{n}.bin": Generated(self._size(), seed=n) for n in range(FILES)}
        self.links = [
            server.add(f"/{name}", self._behave, body=body) + query
            for name, body in self.bodies.items()
            for query in ("?v=1", "?v=2")
        ]

    def _size(self) -> int:
        return self._chance.choice([self._chance.randrange(1, 70_000), self._chance.randrange(3 * MIB)])

    def _behave(self, exchange: Exchange) -> None:
        with self._lock:
            behaviours = self._chance.choices(
                [
                    (),
                    (drip(64 << 10, 0.02),),
                    (cut_after(self._chance.randrange(MIB)),),
                    (reset_after(self._chance.randrange(MIB)), drip(128 << 10, 0.01)),
                    (status(503, {"Retry-After": "0"}),),
                    (status(self._chance.choice([403, 404, 429])),),
                    (limit_connections(2, 503), drip(32 << 10, 0.02)),
                ],
                [6, 6, 2, 2, 1, 1, 1],
            )[0]
        exchange._behaviours[:0] = behaviours
        exchange.go_on()

    def is_right(self, row: Any) -> bool:
        """Whether the file of a row that has ended well is that of its link."""
        body = self.bodies[row.url.rpartition("/")[2].partition("?")[0]]
        return Path(row.filepath).read_bytes() == body.read(0, body.size)


class Hand:
    """Presses, ticks as Blender's timer would, and counts."""

    def __init__(self, package: str, folder: Path, files: Files, chance: Random) -> None:
        def room(name: str) -> Any:
            return importlib.import_module(f"{package}.{name}")

        self.session = room("session").current()
        self._run, self._names, self._job = map(room, ("session.run", "transfer.names", "transfer.job"))
        self._part_names = room("session.records").part_names
        self.folder, self.files, self._chance = folder, files, chance
        self.is_rendering = False
        self.submitted, self.ended = Counter[int](), Counter[int]()
        self.pressed: list[str] = []
        self.wishes: dict[int, str] = {}
        """The last one for each row, by its uid; nothing is wished of one that shall go on."""

    # -- What a run needs of a window.

    def begin(self) -> bool:
        """As `watch.invoke`: have what waits run."""
        if self.session.wants_run:
            run = self._run.Run(self.session, bpy.context.window_manager.windows[0])
            submit, ended = run.host.submit, self.session.ended
            if not hasattr(submit, "counts"):
                run.host.submit = self._counted(submit, self.submitted, lambda job: job.uid)
            if not hasattr(ended, "counts"):
                self.session.ended = self._counted(ended, self.ended, lambda uid, outcome: uid)
        return True

    def _counted(self, call: Any, counts: Counter[int], uid_of: Any) -> Any:
        def counted(*arguments: Any) -> Any:
            counts[uid_of(*arguments)] += 1
            return call(*arguments)

        counted.counts = True  # type: ignore[attr-defined]
        return counted

    def tick(self, times: int) -> None:
        for _ in range(times):
            self.begin()
            if not (run := self.session.run):
                return
            if not run.tick() and not run.is_interrupted:
                self.session.end_tally()
            time.sleep(0.004)

    def until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, f"{self.statuses()} after {self.pressed[-40:]}"
            self.tick(1)
            time.sleep(0.001)

    def statuses(self) -> list[str]:
        return [row.status.value for row in self.session.rows]

    # -- What is pressed.

    def press(self) -> None:
        """Something, on some row or all."""
        kinds = {
            self.add: 6, self.operate: 20, self.remove: 2, self.replace: 4, self.move: 2, self.load: 1,
            self.step_aside: 1, self.render: 2, self.limit: 1,
        }  # fmt: skip
        (action,) = self._chance.choices(list(kinds), list(kinds.values()))
        self.pressed.append(action.__name__)
        action()

    def _row(self) -> Any:
        """Most often one at work: there is more to go wrong."""
        rows = list(self.session.rows)
        running = list(self.session.rows.running.values())
        rows = running if running and self._chance.random() < 0.7 else rows
        return self._chance.choice(rows) if rows else None

    def _link(self) -> Any:
        (link,), _ = self._names.parse_links(self._chance.choice(self.files.links))
        return link

    def add(self) -> None:
        some = (self._link() for _ in range(self._chance.randrange(1, 9)))
        links = {link.url: link for link in some}.values()
        if_exists = self._job.IfExists(self._chance.choice(["RENAME", "RENAME", "RENAME", "UPDATE"]))
        self.session.add(links, directory=str(self.folder), if_exists=if_exists, when_done="NOTHING")

    def operate(self) -> None:
        row = self._row()
        for _ in range(self._chance.randrange(1, 4)):
            (name,) = self._chance.choices(["pause", "resume", "cancel", "retry"], [4, 5, 1, 4])
            uid = row.uid if row and row in self.session.rows and self._chance.random() < 0.95 else 0
            self._wish(name, uid)
            getattr(bpy.ops.downloads, name)("EXEC_DEFAULT", uid=uid)

    def _wish(self, name: str, uid: int = 0) -> None:
        """What is wished of rows from now on: of that one, or of all."""
        self.pressed.append(f"{name} {uid}")
        for row in self.session.rows:
            status = row.status.value
            wish = self.wishes.get(row.uid, "")
            if status in ("FINISHED", "SKIPPED", "FAILED"):
                wish = status
            if uid in (0, row.uid) and wish in _MEANT[name]:
                self.wishes[row.uid] = _BECOMES[name]

    def remove(self) -> None:
        if row := self._row():
            bpy.ops.downloads.remove("EXEC_DEFAULT", uid=row.uid, delete_partial=True)

    def replace(self) -> None:
        if row := self._row():
            name = row.url.rpartition("/")[2].partition("?")[0]
            same = [link for link in self.files.links if f"/{name}?" in link]
            links, _ = self._names.parse_links(self._chance.choice(same + self.files.links[:2]))
            try:
                self.session.replace_link(row, links[0])
                self.wishes[row.uid] = ""
            except self._job.TransferError:
                self.pressed.append("refused")

    def move(self) -> None:
        if row := self._row():
            direction = self._chance.choice(["TOP", "UP", "DOWN", "BOTTOM"])
            bpy.ops.downloads.move("EXEC_DEFAULT", uid=row.uid, direction=direction)

    def load(self) -> None:
        """As where another file is opened."""
        if run := self.session.run:
            run.close(forced=True)
            self.session.interrupted(type(self.session.rows.at(0).status)("QUEUED"))

    def step_aside(self) -> None:
        if run := self.session.run:
            run.step_aside()

    def render(self) -> None:
        self.is_rendering = not self.is_rendering

    def limit(self) -> None:
        if host := self.session.host:
            host.change(speed_limit=self._chance.choice([0, 4 * MIB]))

    # -- What holds.

    def rest(self) -> None:
        """Everything comes to an end, and is looked at."""
        self.is_rendering = False
        if self._chance.random() < 0.3:
            self._wish("cancel")
            bpy.ops.downloads.cancel("EXEC_DEFAULT")
        self.until(lambda: not set(self.statuses()) & set(UNDER_WAY) and not self.session.run)
        assert self.ended == self.submitted, self.pressed[-40:]
        names = [thread.name for thread in threading.enumerate() if thread.name.startswith("downloads-")]
        assert names == [], self.pressed[-40:]
        rows = list(self.session.rows)
        for row in rows:
            if row.status.value in ("PAUSED", "CANCELLED"):
                assert row.status.value == self.wishes.get(row.uid, ""), (row.uid, self.pressed[-60:])
        if os.environ.get("EYES"):
            print(len(self.pressed), sum(self.submitted.values()), Counter(self.statuses()))
        for row in (row for row in rows if row.status.value == "FINISHED"):
            assert self.files.is_right(row), (row.name, row.url, self.pressed[-40:])
        kept = {name for row in rows if row.is_unfinished for name in self._part_names(row)}
        parts = {path.name for path in self.folder.glob("*.part")}
        assert parts <= kept, (parts - kept, self.pressed[-40:])


@pytest.fixture
def hand(
    request: pytest.FixtureRequest,
    extension: Extension,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Hand]:
    user, folder = tmp_path / "user", tmp_path / "files"
    user.mkdir()
    folder.mkdir()
    room = f"{extension.package}.session"
    monkeypatch.setattr(importlib.import_module(f"{room}.store"), "user_folder", lambda: user)
    preferences = bpy.context.preferences.addons[extension.package].preferences
    workers, seed = request.param
    preferences.workers = workers
    chance = Random(seed)
    hand = Hand(extension.package, folder, Files(server, chance), chance)
    monkeypatch.setattr(importlib.import_module(f"{room}.watch"), "invoke", hand.begin)
    monkeypatch.setattr(importlib.import_module(f"{room}.run"), "is_rendering", lambda: hand.is_rendering)
    system = bpy.context.preferences.system
    kept, system.network_connection_limit = system.network_connection_limit, 5
    yield hand
    system.network_connection_limit = kept
    preferences.workers = "AUTOMATIC"


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "hand",
    [(workers, seed) for seed in SEEDS for workers in ("AUTOMATIC", "PROCESS")],
    indirect=True,
    ids=str,
)
def test_whatever_is_pressed_the_list_stays_right(hand: Hand) -> None:
    for number in range(1, PRESSES + 1):
        for _ in range(hand._chance.choice([1, 1, 2, 4])):
            hand.press()
        hand.tick(hand._chance.choice([0, 0, 1, 2, 5, 20]))
        if number % ROUND == 0:
            hand.rest()
    hand.rest()


@pytest.mark.parametrize("hand", [("AUTOMATIC", 1), ("PROCESS", 1)], indirect=True, ids=str)
def test_small_files_go_on_while_nobody_ticks(hand: Hand, server: Server) -> None:
    place = "/small.bin"
    server.add(place, body=b"small")
    links, _ = hand._names.parse_links(" ".join(f"{server.url(place)}?{number}" for number in range(SMALL)))
    hand.session.add(links, directory=str(hand.folder), when_done="NOTHING")
    hand.until(lambda: set(hand.statuses()) != {"QUEUED"})
    server.wait_requests(place, SMALL)
    hand.until(lambda: set(hand.statuses()) == {"FINISHED"} and not hand.session.run)
