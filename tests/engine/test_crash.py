"""Killed anywhere: the engine dies at any operation on its folder, and the disk with it.

For every N: a transfer dies at its Nth operation, the power cut drops or damages what was not durable,
the next one dies at some Mth in the same way, and the last one, which lives, must finish. Never does
anything damaged stand under a final name, and nothing but the file is left at the end.
`make crash` tries every M, and other seeds.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from driving import (
    Failed,
    Fetcher,
    Finished,
    IfExists,
    Job,
    Outcome,
    Settings,
    Skipped,
    TransferError,
    new_job,
)
from mortal import Died, Disk
from server import Request, Server, after, cut_after, drip, first, pattern, status, when

from background_downloads.transfer import fetch as fetch_module
from background_downloads.transfer import part as part_module
from background_downloads.transfer import segments
from background_downloads.transfer.control import Control, Waker
from background_downloads.transfer.disk import write_atomically
from background_downloads.transfer.fetch import Transfer
from background_downloads.transfer.names import part_name
from background_downloads.transfer.ranges import Ranges
from background_downloads.workers import Ended, ThreadHost

SEED = int(os.environ.get("BACKGROUND_DOWNLOADS_CRASH_SEED", "0"))
IS_LONG = "BACKGROUND_DOWNLOADS_CRASH_LONG" in os.environ
AFTER_EACH = 4  # power cuts that are looked at for each death

CHECKPOINT = 24_000  # bytes
OVERLAP = 4_000  # bytes
BUFFER = 8_000  # bytes
NEW = pattern(100_000, seed=1)
OTHER = pattern(90_000, seed=2)
OLD = b"what was there before"
NAME = "a.bin"


@pytest.fixture(autouse=True)
def small_steps(no_delays: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_module, "CHECKPOINT_BYTES", CHECKPOINT)
    monkeypatch.setattr(part_module, "CHECKPOINT_SECONDS", 3600.0)
    monkeypatch.setattr(fetch_module, "OVERLAP", OVERLAP)
    tell = threading.excepthook
    monkeypatch.setattr(threading, "excepthook", lambda args: args.exc_type is Died or tell(args))


@dataclass(kw_only=True)
class Scene:
    """What is downloaded, where, and what may stand there."""

    fetch: Fetcher
    server: Server
    disk: Disk
    if_exists: IfExists = IfExists.RENAME
    has_old: bool = False
    bodies: tuple[bytes, ...] = (NEW,)
    """What the server may send."""
    options: dict[str, Any] = field(default_factory=dict)
    path: str = "/" + NAME
    partial: str = ""
    before: dict[str, bytes] = field(default_factory=dict)
    """What else is there at the start."""
    error: Callable[[int, str], OSError | None] = lambda count, name: None
    """What the disk answers."""
    lives: int = 0
    waker: Waker = field(default_factory=Waker)

    @property
    def url(self) -> str:
        return self.server.url(self.path)

    def begin(self) -> None:
        """An empty folder, or one with an older file."""
        self.lives = 0
        _restore(self.disk.folder, self.before | ({NAME: OLD} if self.has_old else {}))

    def job(self) -> Job:
        return new_job(
            self.url, self.disk.folder, if_exists=self.if_exists, partial=self.partial, **self.options
        )

    def live(self, *, dies_at: int = 0) -> Outcome | None:
        """One process from its start to its end in good order, or to its death."""
        self.lives += 1
        transfer = Transfer(self.job(), self.fetch.settings)
        with self.disk.powered(dies_at=dies_at, error=self.error):
            try:
                outcome = self.run(transfer)
                transfer.close()
                return outcome
            except Died:
                return None
            finally:
                transfer.hang_up()

    def run(self, transfer: Transfer) -> Outcome:
        control = Control(self.waker)
        try:
            return transfer.run(control, self.fetch.client, memoryview(bytearray(BUFFER)))
        except TransferError as error:
            return Failed(str(error))

    # -- What must hold.

    def check(self, files: dict[str, bytes]) -> None:
        """Nothing damaged stands under a final name, and what was there is there."""
        for name, content in files.items():
            if is_partial(name):
                continue
            assert content in self.allowed(name), f"“{name}” is damaged"
        assert not self.has_old or NAME in files, "the old file is gone"

    def allowed(self, name: str) -> tuple[bytes, ...]:
        if not self.has_old or name != NAME:
            return self.bodies
        if self.if_exists in (IfExists.OVERWRITE, IfExists.UPDATE):
            return (OLD, *self.bodies)
        return (OLD,)

    def look(self) -> None:
        self.check({path.name: path.read_bytes() for path in self.disk.folder.iterdir()})

    def saved(self) -> Ranges:
        """What the sidecar vouches for."""
        return _ranges(next(self.disk.folder.glob("*.part.json"), None))

    def promised(self) -> Ranges:
        """What was sure to survive the power cut, and did; nothing once the file was given its name."""
        for name, content in self.disk.durable().items():
            path = self.disk.folder / name
            part = path.with_suffix("")
            if name.endswith(".json") and path.exists() and part.exists() and part.stat().st_nlink == 1:
                return _ranges(content)
        return Ranges()

    def check_end(self, outcome: Outcome | None) -> None:
        assert isinstance(outcome, (Finished, Skipped)), outcome
        files = {path.name: path.read_bytes() for path in self.disk.folder.iterdir()}
        self.check(files)
        assert not [name for name in files if is_partial(name)], sorted(files)
        assert Path(outcome.filepath).exists()
        wanted = (OLD,) if self.has_old and self.if_exists is IfExists.SKIP else self.bodies
        assert files[os.path.basename(outcome.filepath)] in wanted


def _ranges(sidecar: Path | bytes | None) -> Ranges:
    if isinstance(sidecar, Path):
        sidecar = sidecar.read_bytes()
    return Ranges((start, end) for start, end in json.loads(sidecar)["ranges"]) if sidecar else Ranges()


def check_asked(requests: list[Request], kept: Ranges) -> None:
    """Of what was kept only the overlap is asked for again."""
    for request in requests:
        start, _, last = (request.range or "bytes=0-").removeprefix("bytes=").partition("-")
        end = int(last) + 1 if last else len(NEW)
        again = sum(max(0, min(b, end) - max(a, int(start))) for a, b in kept.as_list())
        assert again <= OVERLAP, f"{request.range} is asked for, {kept.as_list()} was kept"


def is_partial(name: str) -> bool:
    return name.endswith((".part", ".part.json", ".part.json~"))


@pytest.fixture
def new_scene(fetch: Fetcher, server: Server, tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(*behaviours: Any, kind: type[Scene] = Scene, body: bytes = NEW, **options: Any) -> Scene:
        folder = tmp_path / "files"
        folder.mkdir()
        server.add("/" + NAME, *behaviours, body=body)
        options.setdefault("bodies", (body,))
        made.append(kind(fetch=fetch, server=server, disk=Disk(folder), **options))
        return made[-1]

    yield make
    for scene in made:
        scene.waker.close()


def hammer(scene: Scene, *, step: int = 1, salt: int = 0) -> int:
    """Die at every `step`th operation, and again, and finish. Returns how many operations there are."""
    scene.disk.look = scene.look
    for n in itertools.count(1 + SEED % step, step):
        rng = random.Random(f"{SEED} {n} {salt}")
        try:
            if not _die_twice(scene, n, rng):
                return n - 1
        except BaseException as error:
            error.add_note(f"seed {SEED}, first death at {n}; the last one did: {' '.join(scene.disk.log)}")
            raise
    raise AssertionError


def _die_twice(scene: Scene, n: int, rng: random.Random) -> bool:
    """False: it lived, having less than `n` operations."""
    scene.begin()
    outcome = scene.live(dies_at=n)
    if outcome:
        check_durable(scene, outcome, rng)
        return False
    check_cuts(scene, rng)
    scene.disk.cut_power(rng)
    if not IS_LONG:
        die_again_and_finish(scene, rng.randint(1, 12), rng)
        return True
    state = {path.name: path.read_bytes() for path in scene.disk.folder.iterdir()}
    for m in itertools.count(1):
        _restore(scene.disk.folder, state)
        if not die_again_and_finish(scene, m, rng):
            return True
    raise AssertionError


def _restore(folder: Path, state: dict[str, bytes]) -> None:
    """Two names of one file become two files, which only makes it harder."""
    for path in folder.iterdir():
        path.unlink()
    for name, content in state.items():
        (folder / name).write_bytes(content)
        os.utime(folder / name, (1e9, 1e9))


def die_again_and_finish(scene: Scene, m: int, rng: random.Random) -> bool:
    """False: it did not die."""
    promised = scene.promised()
    asked = len(scene.server.requests)
    outcome = scene.live(dies_at=m)
    if len(scene.bodies) == 1:
        check_asked(scene.server.requests[asked:], promised)
    check_cuts(scene, rng)
    scene.disk.cut_power(rng)
    scene.look()
    scene.check_end(scene.live())
    return outcome is None


def check_cuts(scene: Scene, rng: random.Random) -> None:
    """Whatever the disk may hold after the power is cut now."""
    for how in ("all", "none", *[""] * AFTER_EACH):
        left = scene.disk.survivors(rng, how=how)
        scene.check({name: content for name, (content, _) in left.items()})


def check_durable(scene: Scene, outcome: Outcome, rng: random.Random) -> None:
    """What was said to be finished is there after any power cut."""
    scene.check_end(outcome)
    assert isinstance(outcome, (Finished, Skipped))
    for how in ("none", *[""] * AFTER_EACH):
        left = scene.disk.survivors(rng, how=how)
        scene.check({name: content for name, (content, _) in left.items()})
        name = os.path.basename(outcome.filepath)
        assert name in left, f"“{name}” was finished, and is gone"
        assert left[name][0] == (scene.disk.folder / name).read_bytes()


# -- Death.


@pytest.mark.parametrize("digest", [False, True], ids=["", "digest"])
@pytest.mark.parametrize("if_exists", list(IfExists))
@pytest.mark.parametrize("has_old", [False, True], ids=["free", "taken"])
def test_small(new_scene: Callable[..., Scene], if_exists: IfExists, has_old: bool, digest: bool) -> None:
    body = NEW[:5000]
    options = {"sha256": hashlib.sha256(body).hexdigest()} if digest else {}
    hammer(new_scene(body=body, if_exists=if_exists, has_old=has_old, options=options))


@pytest.mark.parametrize("digest", [False, True], ids=["", "digest"])
@pytest.mark.parametrize("if_exists", [IfExists.RENAME, IfExists.OVERWRITE])
def test_with_checkpoints(new_scene: Callable[..., Scene], if_exists: IfExists, digest: bool) -> None:
    options = {"sha256": hashlib.sha256(NEW).hexdigest()} if digest else {}
    count = hammer(new_scene(if_exists=if_exists, has_old=True, options=options))
    assert count > 30


def test_with_a_connection_that_breaks(new_scene: Callable[..., Scene]) -> None:
    hammer(new_scene(cut_after(45_000)))


def test_where_there_are_no_hard_links(new_scene: Callable[..., Scene]) -> None:
    def error(count: int, name: str) -> OSError | None:
        return OSError(errno.EPERM, "no links here") if name == "link" else None

    hammer(new_scene(body=NEW[:5000], has_old=True, error=error))


class Changing(Scene):
    """Every other life the server has another file, as servers have that are not updated at once."""

    def live(self, *, dies_at: int = 0) -> Outcome | None:
        self.server.add(self.path, body=self.bodies[self.lives % len(self.bodies)])
        return super().live(dies_at=dies_at)


@pytest.mark.parametrize("seed", range(4))
def test_with_a_file_that_changes_and_changes_back(new_scene: Callable[..., Scene], seed: int) -> None:
    """What the sidecar vouches for must not be written over while it does."""
    hammer(new_scene(kind=Changing, bodies=(NEW, OTHER)), salt=seed, step=1 if IS_LONG else 2)


def replace_link(scene: Scene, fetch: Fetcher) -> None:
    """An earlier link has brought some of it."""
    old = scene.server.add("/old.bin", cut_after(60_000), after(1, status(403)), body=NEW)
    assert isinstance(fetch(old, scene.disk.folder), Failed)
    scene.before = {path.name: path.read_bytes() for path in scene.disk.folder.iterdir()}
    assert len(scene.before) == 2
    scene.partial = part_name(old, str(scene.disk.folder))


def test_with_a_link_that_was_replaced(new_scene: Callable[..., Scene], fetch: Fetcher) -> None:
    scene = new_scene()
    replace_link(scene, fetch)
    hammer(scene)
    scene.begin()
    scene.check_end(scene.live())
    assert (scene.server.requests[-1].range_start or 0) >= 60_000 - OVERLAP


class Segmented(Scene):
    """Several workers on one file."""

    def live(self, *, dies_at: int = 0) -> Outcome | None:
        host = ThreadHost(Settings(timeout=90.0, connections=4, split_seconds=0.0, first_delay=0.0))
        with self.disk.powered(dies_at=dies_at, error=self.error):
            try:
                host.submit(self.job())
                return self._wait(host)
            finally:
                with contextlib.suppress(Died):
                    host.shut(forced=True)

    def _wait(self, host: ThreadHost) -> Outcome | None:
        while True:
            ended = [event.outcome for event in host.poll().events if isinstance(event, Ended)]
            if self.disk.is_dead:
                return None
            if ended:
                return ended[0]
            host.wait(0.001)


def test_with_segments(new_scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "MEASURE_SECONDS", 0.0)
    monkeypatch.setattr(segments, "SPLIT_BYTES", 8_000)
    for module in (segments, fetch_module):
        monkeypatch.setattr(module, "JOINT", OVERLAP // 4)
    scene = new_scene(drip(4_000, 0.001), kind=Segmented, has_old=True)
    hammer(scene, step=1 if IS_LONG else 3)
    starts = {request.range_start for request in scene.server.requests}
    assert len(starts) > 10


# -- What was received.


def test_what_a_failed_one_received_survives_a_power_cut(new_scene: Callable[..., Scene]) -> None:
    scene = new_scene(first(1, cut_after(45_000)), when(lambda e: e.number == 1, status(410)))
    assert isinstance(scene.live(), Failed)
    scene.disk.cut_power(random.Random(SEED), how="none")
    scene.check_end(scene.live())
    assert scene.server.requests[-1].range_start == 45_000 - OVERLAP


# -- Errors instead of death.

ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES)


@pytest.mark.parametrize("lasts", [False, True], ids=["once", "for a while"])
@pytest.mark.parametrize("case", ["", "digest", "replaced link"])
def test_any_operation_may_fail(
    new_scene: Callable[..., Scene], fetch: Fetcher, lasts: bool, case: str
) -> None:
    options = {"sha256": hashlib.sha256(NEW).hexdigest()} if case == "digest" else {}
    scene = new_scene(if_exists=IfExists.OVERWRITE, has_old=True, options=options)
    if case == "replaced link":
        replace_link(scene, fetch)
    scene.disk.look = scene.look
    for n in itertools.count(1):
        rng = random.Random(f"{SEED} {n}")
        for number in ERRORS if IS_LONG else [rng.choice(ERRORS)]:
            try:
                if not _fails_and_goes_on(scene, n, number, lasts=lasts):
                    return
            except BaseException as error:
                error.add_note(f"{errno.errorcode[number]} at {n}; the last did: {' '.join(scene.disk.log)}")
                raise


def _fails_and_goes_on(scene: Scene, n: int, number: int, *, lasts: bool) -> bool:
    """False: there are less than `n` operations."""

    def error(count: int, name: str) -> OSError | None:
        if count == n or (lasts and count > n):
            met.append(name)
            return OSError(number, os.strerror(number))
        return None

    met: list[str] = []
    scene.begin()
    transfer = Transfer(scene.job(), scene.fetch.settings)
    with scene.disk.powered(error=error):
        outcome = scene.run(transfer)
        if isinstance(outcome, Finished):  # what failed was tidying up
            scene.look()
            transfer.close()
            assert lasts or met in ([], ["unlink"], ["open"], ["fsync"], ["close"]), met
            return bool(met)
    assert isinstance(outcome, Failed), outcome
    assert "folder" in outcome.error
    kept, asked = transfer.received, len(scene.server.requests)
    with scene.disk.powered():
        scene.check_end(scene.run(transfer))
        transfer.close()
    requests = scene.server.requests[asked:]
    check_asked(requests, Ranges([(0, kept)]))
    if requests and (n > 1 or not scene.partial):  # else nothing could be opened
        assert (requests[0].range_start or 0) <= kept, "more is there than is said"
    return True


# -- Small files.


@pytest.mark.parametrize("old", [None, b"old"], ids=["new", "replaced"])
def test_a_small_file_is_replaced_whole_and_durably(tmp_path: Path, old: bytes | None) -> None:
    new, path = pattern(3000), tmp_path / "list.json"
    disk = Disk(tmp_path)
    for n, again in itertools.product(range(1, 10), range(1, 10)):
        rng = random.Random(f"{SEED} {n} {again}")
        _restore(tmp_path, {path.name: old} if old else {})
        for dies_at in (n, again):
            is_written = _write_or_die(disk, path, new, dies_at)
            for how in ("all", "none", *[""] * AFTER_EACH):
                left = disk.survivors(rng, how=how)
                assert path.name in left or not (old or is_written)
                assert path.name not in left or left[path.name][0] in ((new,) if is_written else (old, new))
            disk.cut_power(rng)
        assert _write_or_die(disk, path, new, 0)
        assert [left.name for left in tmp_path.iterdir()] == [path.name]
        assert path.read_bytes() == new


def _write_or_die(disk: Disk, path: Path, data: bytes, dies_at: int) -> bool:
    with disk.powered(dies_at=dies_at):
        try:
            write_atomically(path, data, 0o600)
        except Died:
            return False
    return True
