"""Links on their way into the list: the first ones come at once, thousands more some at a time.

So the window stays usable while they come. Whoever needs all of them has them come at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..transfer import names
from ..workers import Download, Status
from .words import counted

if TYPE_CHECKING:
    from .ahead import File
    from .queue import Options

AT_ONCE = 1000  # links whose rows are there when whoever adds them goes on
Finder = Callable[[names.Link], Download | None]
"""Finds the row that has something left to do for a link."""


@dataclass(slots=True)
class Batch:
    """Links for one folder."""

    links: Sequence[names.Link | str]
    """Or words that are read once they come; no two of them are the same link."""
    directory: str
    options: Options
    known: Mapping[str, File] = field(default_factory=dict)
    """What a dialog has found out of their files, by link."""
    finder: Finder | None = None
    """Of the rows that were there when the first of them came."""
    done: int = 0


class Intake:
    """The batches that have not come whole. `add` puts one there, `take` has it come."""

    def __init__(self, make: Callable[[Batch, list[names.Link], bool], list[Download]]) -> None:
        """`make` puts rows of some of a batch's links into the list, the first of them or further ones.

        It returns what `Queue.new_rows` does.
        """
        self._make = make
        self._batches: deque[Batch] = deque()
        self._problems: list[str] = []

    @property
    def is_waiting(self) -> bool:
        """Whether links are on their way."""
        return bool(self._batches)

    def add(self, batch: Batch) -> None:
        """Have links come after those that are on their way."""
        if batch.links:
            self._batches.append(batch)

    def take(self, most: int | None = None) -> list[Download]:
        """Have `most` links come, or all that are left. Returns the rows that came into the list."""
        came: list[Download] = []
        left = most
        while self._batches and left != 0:
            batch = self._batches[0]
            part = batch.links[batch.done : None if left is None else batch.done + left]
            is_first, batch.done = not batch.done, batch.done + len(part)
            if batch.done == len(batch.links):  # before they are made: what goes wrong is not tried again
                self._batches.popleft()
            rows = self._make(batch, self._read(part), is_first)
            came += (row for row in rows if row.uid)
            self.complain(failures(rows))
            left = None if left is None else left - len(part)
        return came

    def _read(self, part: Sequence[names.Link | str]) -> list[names.Link]:
        links, problems = names.parse_links("\n".join(word for word in part if isinstance(word, str)))
        self.complain(problems)
        return [*(link for link in part if not isinstance(link, str)), *links]

    def complain(self, problems: Iterable[str]) -> None:
        """Something cannot be added, as sentences say."""
        self._problems += problems

    def problems(self) -> list[str]:
        """What could not be added, told once, when nothing is on its way any more."""
        if self._batches:
            return []
        told, self._problems = self._problems, []
        return told


def shortened(problems: list[str]) -> str:
    """The first one, and how many more there are: a start has one report."""
    more = len(problems) - 1
    if not more:
        return problems[0]
    count = counted(more, "more link", "more links")
    return f"{problems[0].rstrip('.')}. {count} cannot be used either"


def failures(rows: Iterable[Download]) -> list[str]:
    """A sentence for each row that has failed."""
    return [f"{names.shown(row.url)}: {row.error}" for row in rows if row.status is Status.FAILED]
