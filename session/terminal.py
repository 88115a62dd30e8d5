"""What whoever waits in a terminal, or a script that reads lines, is told of downloads. Knows no Blender."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Protocol, TextIO

from ..transfer import names
from ..transfer.job import Failed, Finished, Progress, Skipped
from ..transfer.space import amount
from ..workers import Download, Ended, Report
from .words import readable

INTERVAL = 0.2  # seconds between two lines of progress


class Teller(Protocol):
    """Is told what happens, between two looks at the workers; must not touch bpy."""

    def show(self, report: Report, now: float) -> None:
        """What `poll` found, at a time of `time.monotonic`."""


class Counter:
    """Progress for whoever started Blender in a terminal: one line, written over; silent elsewhere."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._ended = 0
        self._shown = 0.0
        self._overwrites = _is_terminal(sys.stderr)
        self._is_on = self._overwrites or "BACKGROUND_DOWNLOADS_PROGRESS" in os.environ

    def show(self, report: Report, now: float) -> None:
        """Write a line over the last one, a few times a second."""
        self._ended += sum(isinstance(event, Ended) for event in report.events)
        is_last = self._ended == self._count
        if not self._is_on or (now - self._shown < INTERVAL and not is_last):
            return
        self._shown = now
        running = ", ".join(_running(progress) for progress in report.progress.values())
        line = f"{self._ended:,} of {self._count:,} done" + (f": {running}" if running else "")
        with suppress(OSError, ValueError):  # somebody has closed the terminal: the downloads go on
            if self._overwrites:
                _write(sys.stderr, f"\r{line:<79.79}", end="\n" if is_last else "")
            else:
                _write(sys.stderr, line)


def _is_terminal(stream: Any) -> bool:
    """Of a stream that may be closed, or what another add-on has put in its place."""
    try:
        return bool(stream.isatty())
    except (AttributeError, OSError, ValueError):
        return False


def _running(progress: Progress) -> str:
    size = f" of {amount(progress.size)}" if progress.size else ""
    return f"{progress.name} {amount(progress.received)}{size}"


class Lines:
    """A line for each download that has ended: where it is, or why it is not."""

    def __init__(self, rows: Iterable[Download]) -> None:
        self._rows = {row.uid: row for row in rows}
        self._counter = Counter(len(self._rows))

    def show(self, report: Report, now: float) -> None:
        """Paths to the standard output, all else to the other one."""
        for event in report.events:
            if isinstance(event, Ended):
                self._tell(self._rows[event.uid], event.outcome)
        self._counter.show(report, now)

    def _tell(self, row: Download, outcome: Any) -> None:
        match outcome:
            case Finished(filepath=path) | Skipped(filepath=path):
                _write_path(path)
            case Failed(error=error):
                _write(sys.stderr, f"{names.shown(row.url)}: {error}")


class Json:
    """An object in a line for each thing that happens, for scripts. Links are shown without secrets."""

    def __init__(self, rows: Iterable[Download]) -> None:
        self._rows = {row.uid: row for row in rows}
        self._shown = 0.0

    def show(self, report: Report, now: float) -> None:
        """Progress a few times a second, every end at once."""
        if report.progress and now - self._shown >= INTERVAL:
            self._shown = now
            for uid, progress in report.progress.items():
                self._say(uid, "progress", received=progress.received, size=progress.size)
        for event in report.events:
            if isinstance(event, Ended):
                self._say(event.uid, type(event.outcome).__name__.lower(), **_told(event.outcome))

    def _say(self, uid: int, event: str, **more: Any) -> None:
        url = names.shown(self._rows[uid].url)
        _write(sys.stdout, json.dumps({"event": event, "url": url, **more}))


def _told(outcome: Any) -> dict[str, Any]:
    match outcome:
        case Finished(filepath=path, size=size, note=note):
            return {"path": readable(path), "size": size, "note": note}
        case Skipped(filepath=path, note=note):
            return {"path": readable(path), "note": note}
        case Failed(error=error):
            return {"error": error}
        case _:
            return {}


def _write(stream: TextIO | None, text: str, end: str = "\n") -> None:
    """Names may hold what the terminal cannot write."""
    if stream:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        shown = text.encode(encoding, "backslashreplace").decode(encoding)
        print(shown, end=end, file=stream, flush=True)


def _write_path(path: str) -> None:
    """As the system has it, for another program to use."""
    if raw := getattr(sys.stdout, "buffer", None):
        sys.stdout.flush()
        raw.write(os.fsencode(path) + b"\n")
        raw.flush()
    else:
        _write(sys.stdout, path)
