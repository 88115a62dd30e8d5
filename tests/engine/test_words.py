"""The words that people read of a download, from records alone."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from driving import record
from hypothesis import given
from hypothesis import strategies as st

from background_downloads.session import words
from background_downloads.session.tally import SPEED_SECONDS, Tally, smoothed
from background_downloads.session.words import Room
from background_downloads.transfer.job import Failed, Phase, Progress
from background_downloads.transfer.space import amount
from background_downloads.workers import Download, Status

MIB = 1 << 20


def row(status: Status = Status.RUNNING, **values: object) -> Download:
    return record(url="http://h/f", directory="/d", status=status, **values)


@pytest.fixture
def queue() -> Any:
    """The one room behind the words that calls back, by a timer of Blender's."""
    pytest.importorskip("bpy", reason="a queue wants Blender, and there is none in this Python")
    return importlib.import_module("background_downloads.session.queue").Queue()


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
    assert amount(count) == text


def test_a_portion_says_the_unit_once() -> None:
    assert words.portion(34 * MIB, 100 * MIB) == "34.0 of 100 MiB"
    assert words.portion(5000, 100 * MIB) == "4.9 KiB of 100 MiB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "5 s"),
        (5.1, "10 s"),
        (54, "55 s"),
        (56, "1 min"),
        (7.4 * 60, "7 min"),
        (90 * 60, "90 min"),
        (91 * 60, "2 h"),
        (35.6 * 3600, "36 h"),
        (1e6, "12 days"),
        (999 * 86400, "999 days"),
        (1000 * 86400, "3 years"),
    ],
)
def test_the_time_left_is_told_as_people_say_it(seconds: float, text: str) -> None:
    assert words.left(seconds) == text


@pytest.mark.parametrize(("share", "text"), [(0.0, "0%"), (0.426, "42%"), (0.9999, "99%"), (1.0, "100%")])
def test_only_what_is_whole_is_a_hundred_per_cent(share: float, text: str) -> None:
    assert words.percent(share) == text


@pytest.mark.parametrize(
    ("room", "text"),
    [
        (Room.FULL, "34.0 of 100 MiB, 4.5 MiB/s, 15 s left"),
        (Room.PACE, "34%, 4.5 MiB/s, 15 s left"),
        (Room.LEFT, "34%, 15 s left"),
        (Room.SHARE, "34%"),
    ],
)
def test_a_body_that_comes_in_says_as_much_as_there_is_room_for(room: Room, text: str) -> None:
    download = receiving(received=34 * MIB, size=100 * MIB, speed=4.5 * MIB, measured=3.0)
    assert words.line(download, room) == (text,)


def test_every_row_says_the_same_at_one_width() -> None:
    rooms = [words.room(width, len) for width in range(60)]
    assert rooms == sorted(rooms, reverse=True)
    assert set(rooms) == set(Room)


def test_a_speed_that_was_measured_for_a_moment_is_not_told() -> None:
    download = receiving(received=34 * MIB, size=100 * MIB, speed=4.5 * MIB, measured=1.0)
    assert words.line(download, Room.PACE) == ("34%",)


def test_a_size_that_nobody_knows_is_not_made_up() -> None:
    download = receiving(received=3 * MIB, speed=MIB, measured=3.0)
    assert words.line(download) == ("3.0 MiB, 1.0 MiB/s",)
    assert words.line(download, Room.SHARE) == ("3.0 MiB",)


def test_a_speed_forgets_what_was_ten_seconds_ago() -> None:
    speed = measured = 0.0
    for _ in range(40):
        speed, measured = smoothed(speed, measured, MIB, 0.25)
    assert (speed, measured) == (pytest.approx(4 * MIB), 10.0)
    for _ in range(400):
        speed, measured = smoothed(speed, measured, 0, 0.25)
    assert speed < 0.001 * MIB
    assert smoothed(speed, measured, MIB, 0.0) == (speed, measured)
    assert smoothed(4 * MIB, 10.0, MIB, 60.0) == (0.0, 0.0)  # the computer slept meanwhile, perhaps


@pytest.mark.parametrize(
    ("download", "text"),
    [
        (row(), "waiting"),
        (row(phase=Phase.CONNECT), "connecting"),
        (row(phase=Phase.VERIFY), "verifying"),
        (row(phase=Phase.BACKOFF, text="retrying 2 of 5"), "retrying 2 of 5"),
        (row(phase=Phase.AWAY, text="retrying 2 of 5"), "waiting for the network"),
        (row(phase=Phase.TURN, text="retrying 2 of 5"), "waiting, since the server takes few at a time"),
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
    assert words.line(paused) == ("paused, 25.0 of 100 MiB", "paused")
    assert words.line(paused, Room.LEFT) == ("paused, 25%", "paused")
    assert words.line(row(Status.FINISHED, size=3 * MIB)) == ("finished, 3.0 MiB", "finished")


@given(
    st.sampled_from(Status),
    st.sampled_from(Phase),
    st.sampled_from(Room),
    st.integers(0, 1 << 50),
    st.none() | st.integers(0, 1 << 50),
    st.floats(0, 1e15),
    st.floats(0, 1e6),
)
def test_every_record_has_words(
    status: Status, phase: Phase, room: Room, received: int, size: int | None, speed: float, idle: float
) -> None:
    download = row(status, phase=phase, received=received, size=size, speed=speed, measured=idle, idle=idle)
    assert all(words.line(download, room))
    assert 0.0 <= download.fraction <= 1.0


def test_totals_count_what_there_is_and_nothing_else() -> None:
    counts = {Status.RUNNING: 1, Status.PAUSED: 0, Status.FINISHED: 4}
    assert words.totals(counts) == "1 running, 4 finished"
    assert words.totals({Status.PAUSED: 2, Status.FAILED: 1}) == "2 paused, 1 failed"


def test_the_pace_of_a_run_counts_ended_running_and_waiting() -> None:
    running = [receiving(received=MIB, size=2 * MIB), receiving()]
    tally = Tally(finished=1, bytes=4 * MIB, failed=1, speed=MIB, measured=5.0)
    pace = words.pace(tally, {Status.RUNNING: 2, Status.QUEUED: 1, Status.PAUSED: 7}, running)
    assert (pace.share, pace.done, pace.failed, pace.number) == (0.5, 1, 1, 5)
    assert pace.left == 7.0  # one MiB of the one that runs, and two whose size is thought to be the mean
    assert pace.texts[0] == "50%, 1 of 5, 1 failed, 10 s left"
    assert pace.texts[-1] == "1 of 5"


@given(
    st.integers(1, 45),
    st.integers(0, 30),
    st.floats(0, 1),
    st.none() | st.floats(0, 80 * 60),
    st.none() | st.floats(0, 80 * 60),
)
def test_what_is_said_of_all_has_one_form_whatever_the_numbers_become(
    width: int, done: int, share: float, left: float | None, later: float | None
) -> None:
    paces = [
        words.Pace(share=share, done=count, number=30, failed=2, left=rest)
        for count, rest in ((0, left), (done, later))
    ]
    texts = [pace.text(width, len) for pace in paces]
    forms = {pace.texts.index(text) for pace, text in zip(paces, texts, strict=True) if pace.left is not None}
    assert len(forms) <= 1
    assert [("%" in text) for text in texts] == [width >= len("88%, 30 of 30, 2 failed, 88 min left")] * 2


def test_a_download_that_failed_says_what_is_kept_and_no_more(queue: Any) -> None:
    download = receiving(received=8 * MIB, size=8 * MIB)
    queue.settle(download, Failed("Busy"))
    assert words.received(download) == "8.0 of 8.0 MiB received"
    failed = row(Status.FAILED, received=8 * MIB, size=8 * MIB)  # its folder is gone, say
    assert [words.line(failed, room) for room in Room] == [("failed",)] * len(Room)
    queue.rows.append(download)
    queue.rows.put(download, queue.settle(download, Failed("The file is damaged", kept=0)))
    assert (words.line(download)[0], words.received(download)) == ("failed", "")
    assert words.received(row(Status.PAUSED)) == "Nothing was received yet"


def test_what_an_earlier_blender_received_is_said_until_somebody_has_seen_what_there_is(queue: Any) -> None:
    download = row(Status.PAUSED, received=3 * MIB, size=8 * MIB)
    queue.adopt([download])
    queue.progressed(download.uid, Progress(name="f"), 1.0)
    assert words.received(download) == "3.0 of 8.0 MiB received"
    queue.settle(download, Failed("Another Blender or add-on is downloading this"))
    assert words.received(download) == "3.0 of 8.0 MiB received"
    queue.progressed(download.uid, Progress(name="f", phase=Phase.CONNECT), 1.0)
    assert words.received(download) == "Nothing was received yet"


def test_all_of_them_take_no_less_time_than_the_one_that_takes_longest() -> None:
    slow = receiving(received=0, size=60 * MIB, speed=MIB, measured=5.0)
    quick = receiving(received=MIB, size=2 * MIB, speed=4 * MIB, measured=5.0)
    tally = Tally(speed=5 * MIB, measured=10.0)
    assert words.pace(tally, {Status.RUNNING: 2}, [slow, quick]).left == 60.0
    slow.measured = 0.5  # too short a time to go by it
    assert words.pace(tally, {Status.RUNNING: 2}, [slow, quick]).left == pytest.approx(61 / 5)


@pytest.mark.parametrize(
    "held",
    [
        {"phase": Phase.IDLE, "text": "waiting for its turn"},
        {"phase": Phase.BODY, "text": "catching up"},
        {"phase": Phase.BACKOFF, "text": "retrying 2 of 5"},
        {"phase": Phase.BODY, "idle": SPEED_SECONDS},
    ],
)
def test_a_speed_is_measured_anew_after_a_time_in_which_nothing_new_came(
    queue: Any, held: dict[str, Any]
) -> None:
    download = receiving(size=100 * MIB)
    queue.adopt([download])

    def come(received: int, **progress: Any) -> None:
        told = {"name": "f", "size": 100 * MIB, "phase": Phase.BODY} | progress
        queue.progressed(download.uid, Progress(received=received, **told), 1.0)

    come(0)
    come(10 * MIB)
    for _ in range(9):
        come(10 * MIB, **held)
    assert (download.speed, download.measured) == (0.0, 0.0)
    come(10 * MIB)
    come(12 * MIB)
    assert (download.speed, download.measured) in ((MIB, 2.0), (2 * MIB, 1.0))  # of what came since


def test_the_speed_of_all_is_measured_anew_where_all_were_held_up() -> None:
    tally = Tally(fetched=4 * MIB)
    tally.measure(1.0, is_held=False)
    assert tally.speed == 4 * MIB
    tally.measure(1.0, is_held=True)
    assert (tally.speed, tally.measured, tally.fetched) == (0.0, 0.0, 0)
    tally.fetched = MIB
    tally.measure(30.0, is_held=False)  # they were, most of that time
    assert (tally.speed, tally.measured) == (0.0, 0.0)
    tally.fetched = 8 * MIB
    tally.measure(2.0, is_held=False)
    assert (tally.speed, tally.measured) == (4 * MIB, 2.0)


def test_large_numbers_have_their_commas_wherever_files_are_counted() -> None:
    assert words.totals({Status.FAILED: 12_345}) == "12,345 failed"
    pace = words.Pace(share=0.5, done=6_000, number=12_345, failed=1_234, left=None)
    assert pace.texts[0] == "50%, 6,000 of 12,345, 1,234 failed"
    assert Tally(finished=12_345, paused=2_000).sentence == "12,345 downloaded, 2,000 paused"


def test_the_time_left_is_not_told_before_anything_is_known_of_it() -> None:
    pace = words.pace(Tally(), {Status.QUEUED: 3}, [])
    assert (pace.share, pace.left, pace.texts[0]) == (0.0, None, "0%, 0 of 3")
    assert words.pace(Tally(), {}, []).share == 0.0


def test_the_end_of_a_run_names_what_failed() -> None:
    tally = Tally(finished=1, paused=5)
    assert tally.sentence == "1 downloaded, 5 paused"
    tally.count(row(Status.FAILED, name="paid.zip", error="The link has expired"))
    assert tally.sentence == "1 downloaded, 5 paused, 1 failed: paid.zip: The link has expired"


@pytest.mark.parametrize("stopped", [Status.FAILED, Status.CANCELLED])
def test_a_download_that_is_tried_again_counts_once(stopped: Status) -> None:
    tally, download, other = Tally(), row(stopped, error="Busy"), row(Status.FAILED, name="b", error="Lost")
    other.uid = download.uid + 1
    tally.count(other)
    tally.count(download)
    for status in (Status.QUEUED, Status.RUNNING, Status.FINISHED):
        download.status = status
        tally.count(download)
    assert tally.sentence == "1 downloaded, 1 failed: b: Lost"
    assert (tally.ended, tally.end(0).ended, tally.ended) == (2, 2, 0)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("The server does not allow this (403). Ask for a new link", "The server does not allow this (403)"),
        ("This does not look like a .png file", "This does not look like a .png file"),
        ("example.org did not answer. Try later.", "example.org did not answer"),
        ("Saved.", "Saved"),
        ("", ""),
    ],
)
def test_a_row_says_the_first_sentence(text: str, first: str) -> None:
    assert words.first_sentence(text) == first


@given(st.text(), st.integers(1, 30))
def test_what_is_clipped_fits(text: str, width: int) -> None:
    clipped = words.clipped(text, width, len)
    assert len(clipped) <= width
    assert clipped == text or clipped.endswith("…")


def test_a_text_is_cut_between_words_or_in_one_where_much_room_would_be_left() -> None:
    assert words.clipped("There is no file at this link", 22, len) == "There is no file at…"
    assert words.clipped("The server example-with-a-long-name.org cannot be found", 22, len) == (
        "The server example-wi…"
    )
    assert words.clipped("unbreakable", 5, len) == "unbr…"


WALL = "Castle_Wall_Stone_{}_Albedo_8k.png"


@pytest.mark.parametrize(
    ("name", "others", "shown"),
    [
        (WALL.format("003"), [WALL.format("002"), WALL.format("004")], "Castl…003_Albedo_8k.png"),
        (WALL.format("003b"), [WALL.format("003a")], "Cast…003b_Albedo_8k.png"),
        (f"Castle{'x' * 40}1{'y' * 40}", [f"Castle{'x' * 40}2"], f"Cast…{'x' * 8}1{'y' * 8}…"),
        ("rock.png", ["rock.jpg"], "rock.png"),
        (WALL.format("003"), [], WALL.format("003")),
        (WALL.format("003"), [WALL.format("003")], WALL.format("003")),
        (WALL.format("003"), ["Tower_Wall_Stone_003_Albedo_8k.png"], WALL.format("003")),
        (WALL.format("003"), [WALL.format("003").replace("8k", "4k")], WALL.format("003")),
    ],
)
def test_what_tells_a_long_name_from_its_neighbours_is_seen(name: str, others: list[str], shown: str) -> None:
    assert words.told_apart(name, others, 23, len) == shown


@given(st.text(), st.lists(st.text()), st.integers(-5, 30))
def test_a_name_that_is_told_apart_fits_or_is_whole(name: str, others: list[str], width: int) -> None:
    shown = words.told_apart(name, others, width, len)
    assert shown == name or len(shown) <= max(width, 1)


@given(st.text(), st.integers(1, 30))
def test_wrapped_lines_fit_and_lose_nothing(text: str, width: int) -> None:
    lines = words.wrapped(text, width, len)
    assert all(len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == "".join(text.split())


def test_the_longest_text_that_fits_is_taken() -> None:
    texts = ("12345", "123", "1")
    assert words.fitting(texts, 4, len) == "123"
    assert words.fitting(texts, 0, len) == "1"
