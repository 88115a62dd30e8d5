"""What became of each test, written down as it goes, so that a run which a test ends is known up to there.

The variable TEST_JOURNAL names the file. A run that finds one there does the tests that are not in it.
Each line is JSON: a test, what became of it, and why; `BEGAN` is what it reads of one that never came back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

BEGAN, PASSED, FAILED, SKIPPED = "began", "passed", "failed", "skipped"
_RANK = (BEGAN, PASSED, SKIPPED, FAILED)  # the worst counts: what passed may fail when it clears away


class Journal:
    """A plugin of pytest."""

    def __init__(self, path: Path) -> None:
        self._known = read(path)
        self._of_this: list[tuple[str, str, str]] = []
        self._file = path.open("a", encoding="utf-8")

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        known = [item for item in items if item.nodeid in self._known]
        config.hook.pytest_deselected(items=known)
        items[:] = [item for item in items if item.nodeid not in self._known]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write(nodeid, BEGAN)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != PASSED or report.when == "call":
            self._of_this.append((report.nodeid, report.outcome, _why(report)))

    def pytest_runtest_logfinish(self) -> None:
        """Now it has cleared away, too, which may have hung."""
        for told in self._of_this:
            self._write(*told)
        self._of_this.clear()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.outcome != PASSED:
            self._write(report.nodeid, report.outcome, _why(report))

    def pytest_unconfigure(self) -> None:
        self._file.close()

    def _write(self, nodeid: str, outcome: str, why: str = "") -> None:
        self._file.write(json.dumps([nodeid, outcome, why]) + "\n")
        self._file.flush()


def _why(report: pytest.TestReport | pytest.CollectReport) -> str:
    """In a line or two."""
    match report.longrepr:
        case (_, _, str(reason)):
            return reason.removeprefix("Skipped: ")
        case None:
            return ""
        case told:
            crash = getattr(told, "reprcrash", None)
            return str(crash.message if crash else told)


def read(path: Path) -> dict[str, tuple[str, str]]:
    """What became of each test that is in the journal, and why."""
    found: dict[str, tuple[str, str]] = {}
    for nodeid, outcome, why in _lines(path):
        before = found.get(nodeid, (BEGAN, ""))
        if _RANK.index(outcome) >= _RANK.index(before[0]):
            found[nodeid] = outcome, why
    return found


def _lines(path: Path) -> Iterable[tuple[str, str, str]]:
    text = path.read_text("utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("]")]
