"""What is told in a terminal never stands in the way of downloads, whatever became of the terminal."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from background_downloads.session.terminal import Counter
from background_downloads.transfer.job import Halted
from background_downloads.workers import Ended, Report


class OnlyWrites:
    """What add-ons put in the place of `sys.stderr`, to show in Blender what Python says."""

    def write(self, text: str) -> int:
        return len(text)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(Terminal):
    """One that was closed while Blender goes on."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def closed() -> io.StringIO:
    stream = Terminal()
    stream.close()
    return stream


def show(monkeypatch: pytest.MonkeyPatch, stream: Any) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    counter = Counter(1)
    counter.show(Report(), 1.0)
    counter.show(Report(events=[Ended(1, Halted())]), 2.0)


def test_progress_is_one_line_that_is_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    show(monkeypatch, terminal)
    assert terminal.getvalue().split("\r") == ["", f"{'0 of 1 done':<79}", f"{'1 of 1 done':<79}\n"]


@pytest.mark.parametrize("stream", [None, OnlyWrites(), Gone(), closed()])
def test_downloads_go_on_without_a_terminal(monkeypatch: pytest.MonkeyPatch, stream: Any) -> None:
    show(monkeypatch, stream)


def test_a_terminal_that_is_closed_meanwhile_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    counter = Counter(1)
    terminal.close()
    counter.show(Report(), 1.0)
