"""The words that people read of a download, from records alone."""

from __future__ import annotations

import pytest
from driving import record
from hypothesis import given
from hypothesis import strategies as st

from background_downloads.session import words
from background_downloads.transfer.job import Phase
from background_downloads.workers import Download, Status

MIB = 1 << 20


def row(status: Status = Status.RUNNING, **values: object) -> Download:
    return record(url="http://h/f", directory="/d", status=status, **values)


def receiving(**values: object) -> Download:
    return row(phase=Phase.BODY, **values)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (12.3 * MIB, "12.3 MiB"),
        (99.96 * MIB, "100 MiB"),
        (999.7 * MIB, "1.0 GiB"),
        (5 << 40, "5.0 TiB"),
        (5000 << 40, "5000 TiB"),
    ],
)
def test_sizes_are_written_as_blender_writes_them(count: float, text: str) -> None:
    assert words.size(count) == text


def test_a_portion_says_the_unit_once() -> None:
    assert words.portion(34 * MIB, 100 * MIB) == "34.0 of 100 MiB"
    assert words.portion(5000, 100 * MIB) == "4.9 KiB of 100 MiB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (5.4, "0:05"), (65, "1:05"), (3599.6, "1:00:00"), (3725, "1:02:05"), (1e6, "11 days")],
)
def test_the_time_left_is_a_clock(seconds: float, text: str) -> None:
    assert words.clock(seconds) == text


def test_a_body_that_comes_in_shows_size_speed_and_time_left() -> None:
    line = words.line(receiving(received=34 * MIB, size=100 * MIB, speed=4.5 * MIB))
    assert line[0] == "34.0 of 100 MiB, 4.5 MiB/s, 0:15 left"
    assert line[-1] == "34%"


def test_a_size_that_nobody_knows_is_not_made_up() -> None:
    assert words.line(receiving(received=3 * MIB, speed=MIB)) == ("3.0 MiB, 1.0 MiB/s", "3.0 MiB")


@pytest.mark.parametrize(
    ("download", "text"),
    [
        (row(), "starting"),
        (row(phase=Phase.CONNECT), "connecting"),
        (row(phase=Phase.VERIFY), "verifying"),
        (row(phase=Phase.BACKOFF, text="retrying 2 of 5"), "retrying 2 of 5"),
        (receiving(idle=12.3), "stalled for 12 s"),
        (receiving(idle=1.0), ""),
        (row(Status.QUEUED), "waiting"),
        (row(Status.FAILED), "failed"),
    ],
)
def test_the_finer_word_is_the_one_that_helps(download: Download, text: str) -> None:
    assert words.state(download) == text


def test_a_stopped_download_says_what_it_has() -> None:
    paused = row(Status.PAUSED, received=25 * MIB, size=100 * MIB)
    assert words.line(paused) == ("paused, 25.0 of 100 MiB", "paused, 25%", "paused")
    assert words.line(row(Status.FINISHED, size=3 * MIB)) == ("finished, 3.0 MiB", "finished")


@given(
    st.sampled_from(Status),
    st.sampled_from(Phase),
    st.integers(0, 1 << 50),
    st.none() | st.integers(0, 1 << 50),
    st.floats(0, 1e15),
    st.floats(0, 1e6),
)
def test_every_record_has_words(
    status: Status, phase: Phase, received: int, size: int | None, speed: float, idle: float
) -> None:
    download = row(status, phase=phase, received=received, size=size, speed=speed, idle=idle)
    line = words.line(download)
    assert all(line)
    assert 0.0 <= words.fraction(download) <= 1.0


def test_totals_count_what_there_is_and_nothing_else() -> None:
    counts = {Status.RUNNING: 1, Status.PAUSED: 0, Status.FINISHED: 4}
    assert words.totals(counts) == "5 downloads: 1 running, 4 finished"
    assert words.totals({Status.FAILED: 1}) == "1 download: 1 failed"


def test_the_pace_of_a_run_counts_ended_running_and_waiting() -> None:
    running = [receiving(received=MIB, size=2 * MIB, speed=MIB), receiving(speed=MIB)]
    pace = words.pace(1, {Status.RUNNING: 2, Status.QUEUED: 1, Status.PAUSED: 7}, running)
    assert (pace.share, pace.text) == (0.375, "1 of 4, 38%, 2.0 MiB/s")
    assert words.pace(0, {}, []).share == 0.0


@given(st.text(), st.integers(1, 30))
def test_wrapped_lines_fit_and_lose_nothing(text: str, width: int) -> None:
    lines = words.wrapped(text, width, len)
    assert all(len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == "".join(text.split())


def test_the_longest_text_that_fits_is_taken() -> None:
    texts = ("12345", "123", "1")
    assert words.fitting(texts, 4, len) == "123"
    assert words.fitting(texts, 0, len) == "1"
