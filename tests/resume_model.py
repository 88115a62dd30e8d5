"""How a download is resumed, as a model small enough to be explored whole.

A file has four blocks; the server has one version of it after the other. A life of a download ends when
its connection is cut after so many new blocks; the next one goes on from what the last one left. The
client keeps the rules of DESIGN's section on resuming; a rule can be left out, and then some trace
must end in a file that is mixed of two versions: so none is there for nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

BLOCKS = 4
VERSIONS = (
    ("a0", "a1", "a2", "a3"),
    ("b0", "b1", "b2", "b3"),
    ("c0", "a1", "c2", "c3"),  # one block as in the first: what is compared may be equal by chance
)


class Validator(Enum):
    """What the server says to tell versions apart."""

    STRONG_ETAG = "strong ETag"
    WEAK_ETAG = "weak ETag"
    STRONG_DATE = "strong date"
    WEAK_DATE = "weak date"
    NONE = "no validator"


class Ranges(Enum):
    """What the server makes of a request for a range."""

    HONEST = "as RFC 9110 has it"
    BLIND = "ignores If-Range"
    NEVER = "a 200 with everything"
    REFUSED = "a 416"
    NOT_IF = "a 200 where If-Range is given"


class Rule(Enum):
    """What keeps versions apart."""

    SAME_VALIDATOR = "the answer's validator is the one known"
    OVERLAP = "the last block that is there is fetched again and compared"
    JOINT = "so is the first one behind a gap"
    DIGEST = "the whole is compared with the digest that was expected"


class Next(Enum):
    """Who goes on after the connection was cut."""

    RUN = "the same run, which tries again"
    TRANSFER = "the same transfer, run again after it failed"
    PROCESS = "a new process, from the sidecar"
    STALE = "a new process, from the sidecar that was there before this life"


@dataclass(frozen=True)
class World:
    """A server, and how the download was asked for."""

    validator: Validator
    ranges: Ranges
    lies: bool
    """The validator stays, though the file changes."""
    digest: bool
    """The digest of the first version is expected."""


@dataclass(frozen=True)
class Life:
    """One connection's worth of a download."""

    version: int
    new: int
    """Blocks that it brings until it is cut; `BLOCKS`: it is not."""
    then: Next


Trace = tuple[Life, ...]


@dataclass(frozen=True)
class State:
    """What a client has."""

    kept: tuple[str, ...] = ("",) * BLOCKS
    known: int | None = None
    """The version whose validator it has."""
    is_pieced: bool = False
    """Whether several answers brought it."""

    @property
    def is_whole(self) -> bool:
        return all(self.kept)


@dataclass(frozen=True)
class End:
    """How a trace ends: the file's blocks, or why there is none."""

    blocks: tuple[str, ...] = ()
    error: str = ""


class Client:
    """Lives by the rules, save those that are left out."""

    def __init__(self, world: World, without: Rule | None = None) -> None:
        self._world = world
        self._without = without

    def has(self, rule: Rule) -> bool:
        return rule is not self._without

    def play(self, trace: Trace, start: State = State()) -> End:
        state, is_last = start, False
        saved, has_restarted = start, False  # before this run, and since
        for life in trace:
            state, restarts = self._live(state, life)
            if self._is_wrong(state) and state.is_pieced and not is_last:
                state, restarts, is_last = self._whole(life), True, True  # once more, in one piece
            has_restarted |= restarts
            if state.is_whole:
                return End(error="digest") if self._is_wrong(state) else End(state.kept)
            is_last &= life.then in (Next.RUN, Next.TRANSFER)  # another process does not know of it
            if life.then is Next.STALE:
                # A sidecar that vouches for other bytes is gone before those are overwritten.
                state = State() if has_restarted else saved
            if life.then is not Next.RUN:
                saved, has_restarted = state, False
        return End(error="cut")

    def _is_wrong(self, state: State) -> bool:
        """Whether it is whole, and has another digest than was expected."""
        return state.is_whole and self._world.digest and self.has(Rule.DIGEST) and state.kept != VERSIONS[0]

    # -- One life.

    def _live(self, state: State, life: Life) -> tuple[State, bool]:
        """What is there after it, and whether it began from zero."""
        gaps = self._gaps(state)
        if not any(state.kept) or not self._may_resume(state):
            return self._whole(life), any(state.kept)
        left = life.new
        for start, stop in gaps:
            brought = self._resume(state, life, start, stop, left)
            if brought is None:
                return self._whole(life), True
            left -= sum(map(bool, brought.kept)) - sum(map(bool, state.kept))
            state = brought
            if left <= 0:
                break
        return state, False

    def _gaps(self, state: State) -> list[tuple[int, int]]:
        missing = [block for block in range(BLOCKS) if not state.kept[block]]
        groups = itertools.groupby(enumerate(missing), key=lambda pair: pair[1] - pair[0])
        runs = [[block for _, block in group] for _, group in groups]
        return [(run[0], run[-1] + 1) for run in runs]

    def _may_resume(self, state: State) -> bool:
        return self._world.validator is not Validator.NONE or self._world.digest

    def _is_same(self, one: int | None, other: int) -> bool:
        """Whether two versions have the same validator."""
        return one == other or self._world.lies or self._world.validator is Validator.NONE

    def _resume(self, state: State, life: Life, start: int, stop: int, left: int) -> State | None:
        """The blocks of a gap, from a 206 that is looked at; None: from zero."""
        strong = self._world.validator in (Validator.STRONG_ETAG, Validator.STRONG_DATE)
        is_same = self._is_same(state.known, life.version)
        match self._world.ranges:
            case Ranges.NEVER | Ranges.REFUSED:
                return None
            case Ranges.NOT_IF if strong and not is_same:
                return None  # it is asked again without If-Range only under the very same validator
            case Ranges.HONEST if strong and not is_same and self.has(Rule.SAME_VALIDATOR):
                return None  # the server itself sends the whole file
        if self.has(Rule.SAME_VALIDATOR) and not is_same:
            return None
        blocks = VERSIONS[life.version]
        if self.has(Rule.OVERLAP) and start and blocks[start - 1] != state.kept[start - 1]:
            return None
        kept = list(state.kept)
        for block in range(start, min(stop, start + left)):
            kept[block] = blocks[block]
        is_closed = all(kept[start:stop])
        if is_closed and stop < BLOCKS and self.has(Rule.JOINT) and blocks[stop] != kept[stop]:
            return None
        return replace(state, kept=tuple(kept), is_pieced=True)

    def _whole(self, life: Life) -> State:
        blocks = VERSIONS[life.version]
        kept = tuple(block if number < life.new else "" for number, block in enumerate(blocks))
        return State(kept, life.version)


# -- All of it.


def worlds() -> Iterator[World]:
    for values in itertools.product(Validator, Ranges, (False, True), (False, True)):
        world = World(*values)
        if not (world.lies and world.validator is Validator.NONE):
            yield world


def traces(then: tuple[Next, ...] = tuple(Next)) -> Iterator[Trace]:
    """Up to two cuts, before the last life, which is not cut; any version may come at any time."""
    last = [Life(version, BLOCKS, Next.RUN) for version in range(len(VERSIONS))]
    cut = [Life(v, new, how) for v, new, how in itertools.product(range(len(VERSIONS)), (1, 2), then)]
    for lives in ((), *((one,) for one in cut), *itertools.product(cut, cut)):
        for life in last:
            yield (*lives, life)


GAP = State(("a0", "a1", "", "a3"), 0, is_pieced=True)
"""What a download over two connections left that was killed."""


def cannot_be_told(world: World, trace: Trace) -> bool:
    """Nobody can see it: the validator lies, what is compared is equal by chance, and no digest is known."""
    versions = {life.version for life in trace} | {0}
    reaches_equal_block = sum(life.new for life in trace[:-1]) >= 2
    return world.lies and not world.digest and {0, 2} <= versions and reaches_equal_block


def is_mixed(end: End) -> bool:
    return bool(end.blocks) and end.blocks not in VERSIONS
