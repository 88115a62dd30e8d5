"""Blenders with a window are killed in mid download; `make kill` has more of these, and hundreds without."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from blender import Blender, BlenderFactory, wait_until
from downloading import HOSTS, Downloads
from killing import CHILD_LEAVES, REAL, Found, Home, Round
from server import Server

KILLS = int(os.environ.get("BACKGROUND_DOWNLOADS_WINDOW_KILLS", "1"))
SEED = int(os.environ.get("BACKGROUND_DOWNLOADS_KILL_SEED", "0"))
PACE = replace(REAL, large=6 << 20, life=0.0, step=(64 << 10, 0.01))


@dataclass(frozen=True, kw_only=True)
class Profile(Home):
    """Of a Blender that the test starts."""

    @property
    def user_folder(self) -> Path:
        return next(self.folder.rglob("queue-*.lock"), self.folder / "none").parent


@pytest.mark.timeout(120 + 60 * KILLS)
@pytest.mark.parametrize("host", list(HOSTS) if KILLS > 1 else ["child"])
def test_killed_in_a_window_nothing_is_lost(
    blender_factory: BlenderFactory, server: Server, tmp_path: Path, host: str
) -> None:
    b, rng, found = blender_factory(online=True), random.Random(SEED), Found()
    home = Profile(python=Path(), folder=b.folder, has_blender=True, pace=PACE)
    playing = Round(home, server, rng, tmp_path / "files", number=SEED, found=found)
    d = Downloads(b, playing.folder, host)
    d.start(*[item.link for item in playing.items])
    sent = bytes_sent(server, playing)
    total = sum(item.body.size for item in playing.items)
    for _ in range(KILLS):
        target = sent() + rng.randint(1, total // (KILLS + 1))
        wait_until(lambda target=target: sent() >= target or finished(playing), what="so many bytes")
        die(b)
        playing.losses += 1
        found.kills[f"Blender's window with {host}"] += 1
        playing.look()
        b = blender_factory(folder=b.folder, online=True)
        d = Downloads(b, playing.folder, host)
        if d.rows():
            d.act("resume")
    wait_until(lambda: all(s == "FINISHED" for s in d.statuses()), 60.0, lambda: str(d.rows()))
    d.wait_over()
    b.quit()
    playing.look_at_the_end()
    print(found.text())


def bytes_sent(server: Server, playing: Round) -> Callable[[], int]:
    return lambda: sum(server.body_sent("/" + item.name) for item in playing.items)


def finished(playing: Round) -> bool:
    return all((playing.folder / item.name).exists() for item in playing.items)


def die(b: Blender) -> None:
    b.kill()
    b.join()
    wait_until(lambda: not b.children(), CHILD_LEAVES, lambda: f"left: {b.children()}")
