"""Resuming, explored whole as a model, and the same traces on the real engine: no file is mixed.

`make model` replays every trace with one cut, and COUNT of those with two; a test run replays some.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from driving import Failed, Fetcher, Finished, Job, Outcome, Settings, Transfer, new_job
from resume_model import (
    BLOCKS,
    GAP,
    VERSIONS,
    Client,
    End,
    Life,
    Next,
    Ranges,
    Rule,
    State,
    Trace,
    Validator,
    World,
    cannot_be_told,
    is_mixed,
    traces,
    worlds,
)
from server import (
    Data,
    Exchange,
    Resource,
    Response,
    Server,
    drops_range_when_if_range,
    ignore_range,
    ignores_if_range,
    pattern,
    status_416,
)

from background_downloads.transfer import names

BLOCK = 64 << 10  # bytes; as much as a resume fetches again
LOOK = 16 << 10  # bytes in which blocks differ, if they do
STARTS = {"nothing": State(), "two ends": GAP}
TOLD_APART = (Next.RUN, Next.STALE)  # of who goes on, those that the model tells apart
SEED = int(os.environ.get("BACKGROUND_DOWNLOADS_SEED") or 0)
COUNT = int(os.environ.get("BACKGROUND_DOWNLOADS_COUNT") or 60)
ALL = "BACKGROUND_DOWNLOADS_MODEL" in os.environ
"""Whether all that are small are replayed, and not only some."""
SETTINGS = Settings(timeout=90.0, connections=1, first_delay=0.0)


# The model.


def _all(then: tuple[Next, ...] = TOLD_APART) -> Iterator[tuple[World, State, Trace]]:
    yield from itertools.product(worlds(), STARTS.values(), traces(then))


def test_with_all_rules_no_trace_ends_in_a_mixed_file() -> None:
    for world, start, trace in _all():
        end = Client(world).play(trace, start)
        assert not is_mixed(end) or cannot_be_told(world, trace), (world, start, trace, end)


@pytest.mark.parametrize("rule", Rule)
def test_without_any_one_of_the_rules_some_file_is_mixed(rule: Rule) -> None:
    assert any(
        is_mixed(Client(world, rule).play(trace, start))
        for world, start, trace in _all()
        if not cannot_be_told(world, trace)
    )


# The engine.

CONTENT = {name: pattern(BLOCK, seed=n) for n, name in enumerate(sorted({b for v in VERSIONS for b in v}))}
BODIES = [b"".join(CONTENT[block] for block in blocks) for blocks in VERSIONS]
SHA256 = hashlib.sha256(BODIES[0]).hexdigest()
LONG_AGO = "Mon, {:02} Jan 2024 00:00:00 GMT"
BEHAVIOURS = {
    Ranges.BLIND: ignores_if_range,
    Ranges.NEVER: ignore_range,
    Ranges.REFUSED: status_416,
    Ranges.NOT_IF: drops_range_when_if_range,
}


class Script:
    """What the server does while a trace is replayed."""

    def __init__(self, world: World, trace: Trace, part: Path) -> None:
        self._world, self._part = world, part
        self._now = time.time()
        self.lives = list(trace)
        self.was_cut = False

    def resource(self, version: int) -> Resource:
        told = 0 if self._world.lies else version
        etag = {Validator.STRONG_ETAG: f'"{told}"', Validator.WEAK_ETAG: f'W/"{told}"'}
        weak = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(self._now + told))
        date = {Validator.STRONG_DATE: LONG_AGO.format(told + 1), Validator.WEAK_DATE: weak}
        validator = self._world.validator
        return Resource(Data(BODIES[version]), etag.get(validator), date.get(validator))

    def answer(self, exchange: Exchange) -> None:
        """The version of this life; after its cut, another life's in the same run, or a refusal."""
        if self.was_cut and self.lives[0].then is not Next.RUN:
            exchange.reply(403)
            return
        if self.was_cut:
            self.end_life()
        exchange.resource = self.resource(self.lives[0].version)
        if behaviour := BEHAVIOURS.get(self._world.ranges):
            exchange._behaviours.insert(0, behaviour)
        if not self._is_asked_again(exchange):
            exchange.alter(lambda response: self._cut(exchange, response))
        exchange.go_on()

    def _is_asked_again(self, exchange: Exchange) -> bool:
        """A 200 under the very validator that was named: nobody reads its body."""
        named = exchange.request.headers["If-Range"]
        known = exchange.resource.etag, exchange.resource.last_modified
        return self._world.ranges is Ranges.NOT_IF and named is not None and named in known

    def end_life(self) -> None:
        del self.lives[0]
        self.was_cut = False

    def _cut(self, exchange: Exchange, response: Response) -> None:
        """After so many blocks that are new: what is fetched again for a comparison does not count."""
        life, is_part = self.lives[0], response.status == 206
        if life.new >= BLOCKS or (is_part and not self._fits(life, response.start)):
            return  # nobody reads on in what does not fit, so it could only be cut by chance
        at = (is_part + life.new) * BLOCK
        if at < response.stop - response.start:
            exchange.at_body(at, lambda: self._hang_up(exchange))

    def _fits(self, life: Life, start: int) -> bool:
        """Whether what comes again for a comparison is what is on the disk."""
        end = start + LOOK
        with self._part.open("rb") as file:
            return file.read(end)[start:] == BODIES[life.version][start:end]

    def _hang_up(self, exchange: Exchange) -> None:
        self.was_cut = True
        exchange.cut()


class Replay:
    """One trace on the real engine, in a folder of its own."""

    def __init__(self, server: Server, world: World, start: State, trace: Trace, folder: Path) -> None:
        self._folder, self._world = folder, world
        part = folder / names.part_name(server.url("/a.bin"), str(folder))
        self._sidecar = part.with_name(part.name + names.SIDECAR)
        self._script = Script(world, trace, part)
        self._url = server.add("/a.bin", self._script.answer, body=BODIES[0])
        if start.known is not None:
            self._leave(start)

    def _leave(self, state: State) -> None:
        """What a killed process left."""
        resource = self._script.resource(state.known or 0)
        spans = [[n * BLOCK, (n + 1) * BLOCK] for n, block in enumerate(state.kept) if block]
        ranges = [spans[0]]
        for span in spans[1:]:
            if span[0] == ranges[-1][1]:
                ranges[-1] = [ranges[-1][0], span[1]]
            else:
                ranges.append(span)
        about = {
            "version": 1,
            "url": self._url,
            "cut": False,
            "digest": ["sha256", SHA256] if self._world.digest else None,
            "size": BLOCKS * BLOCK,
            "etag": resource.etag or "",
            "last_modified": resource.last_modified or "",
            "ranges": ranges,
        }
        content = b"".join(CONTENT[block] if block else bytes(BLOCK) for block in state.kept)
        self._sidecar.with_suffix("").write_bytes(content)
        self._sidecar.write_text(json.dumps(about))

    def play(self, fetch: Fetcher) -> End:
        transfer: Transfer | None = None
        try:
            while True:
                transfer = transfer or fetch.transfer(self._job())
                before = self._vouched()
                outcome = fetch.run(transfer)
                if not self._script.was_cut:
                    return self._end(outcome)
                then = self._script.lives[0].then
                if then is not Next.TRANSFER:
                    transfer.close()
                    transfer = None
                if then is Next.STALE:
                    self._go_back(*before)
                self._script.end_life()
        finally:
            if transfer:
                transfer.close()

    def _job(self) -> Job:
        return new_job(self._url, self._folder, **({"sha256": SHA256} if self._world.digest else {}))

    def _vouched(self) -> tuple[bytes, bytes]:
        """The sidecar, and the bytes that it vouches for."""
        if not self._sidecar.exists():
            return b"", b""
        said, content = self._sidecar.read_bytes(), self._sidecar.with_suffix("").read_bytes()
        return said, b"".join(content[start:end] for start, end in json.loads(said)["ranges"])

    def _go_back(self, said: bytes, content: bytes) -> None:
        """The sidecar as it was, unless this life began from zero: then that one was deleted for good."""
        now = json.loads(self._sidecar.read_text()) if self._sidecar.exists() else {}
        if said and now.get("ranges") and _covers(now, json.loads(said)):
            self._sidecar.write_bytes(said)
            if self._vouched() == (said, content):
                return
        self._sidecar.unlink(missing_ok=True)

    def _end(self, outcome: Outcome) -> End:
        if isinstance(outcome, Finished):
            body = Path(outcome.filepath).read_bytes()
            by_content = {content: name for name, content in CONTENT.items()}
            assert len(body) == BLOCKS * BLOCK
            return End(tuple(by_content.get(body[at : at + BLOCK], "?") for at in range(0, len(body), BLOCK)))
        assert isinstance(outcome, Failed), outcome
        return End(error=outcome.error)


def _covers(now: dict[str, object], before: dict[str, object]) -> bool:
    """Whether it is the same file, of which more is there."""
    same = all(now[key] == before[key] for key in ("etag", "last_modified", "size"))
    return same and now["ranges"][0][1] >= before["ranges"][0][1]  # type: ignore[index]


def _name(case: tuple[World, str, Trace]) -> str:
    world, start, trace = case
    lives = " · ".join(f"{VERSIONS[life.version][0][0]}{life.new} {life.then.name}" for life in trace)
    flags = " lies" * world.lies + " digest" * world.digest
    return f"{world.validator.value}, {world.ranges.value}{flags}, {start}: {lives}"


def _cases() -> list[tuple[World, str, Trace]]:
    """All with one cut at most where they are asked for, and a sample of those, and of those with two."""
    rng = random.Random(SEED)
    cases = list(itertools.product(worlds(), STARTS, traces()))
    small = [case for case in cases if len(case[2]) <= 2]
    large = [case for case in cases if len(case[2]) > 2]
    return (small if ALL else rng.sample(small, COUNT)) + rng.sample(large, COUNT)


def test_the_engine_ends_each_trace_as_the_model_does(server: Server, tmp_path: Path) -> None:
    wrong = []
    fetcher = Fetcher(SETTINGS)
    try:
        for number, (world, start, trace) in enumerate(_cases()):
            folder = tmp_path / str(number)
            folder.mkdir()
            expected = Client(world).play(trace, STARTS[start])
            told = Replay(server, world, STARTS[start], trace, folder).play(fetcher)
            is_right = told.blocks == expected.blocks if expected.blocks else bool(told.error)
            if (is_mixed(told) and not cannot_be_told(world, trace)) or not is_right:
                wrong.append(f"{_name((world, start, trace))}\n    {told} instead of {expected}")
            shutil.rmtree(folder)
    finally:
        fetcher.close()
    print(f"{number + 1} traces replayed, {len(wrong)} of them otherwise than in the model")
    assert not wrong, f"{len(wrong)} traces:\n" + "\n".join(wrong[:20])
