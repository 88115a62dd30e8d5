"""What is tried again and when; no test waits."""

from __future__ import annotations

import itertools
import pickle
import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from background_downloads.transfer import retry
from background_downloads.transfer.job import TransferError
from background_downloads.transfer.retry import Tries

NOW = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the date in RFC 9110
CUT = "The server closed the connection before the file was complete"


def test_only_passing_failures_are_tried_again() -> None:
    assert [status for status in range(500) if retry.retryable(status)] == [202, 408, 425, 429]
    final = [status for status in range(500, 1000) if not retry.retryable(status)]
    assert final == [501, 505, 506, 507, 508, 509, 510, 511, 526]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("-5", 0.0),
        ("1.5", 1.5),
        ("9" * 400, 366 * 86400.0),
        ("Sun, 06 Nov 1994 08:51:37 GMT", 120.0),
        ("Sunday, 06-Nov-94 08:51:37 GMT", 120.0),
        ("Sun Nov  6 08:51:37 1994", 120.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sat, 05 Nov 1994 08:49:37 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("12 minutes", None),
        ("1e9", None),
        ("nan", None),
        ("inf", None),
        ("Sun, 06 Nov 10000 08:49:37 GMT", None),
        ("Sun, 06 Nov 99999999999999999999 08:49:37 GMT", None),
        ("١٢", None),
    ],
)
def test_retry_after(header: str, seconds: float | None) -> None:
    assert retry.retry_after(header, NOW) == seconds


@pytest.fixture
def _in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where the system can be told so: Windows goes by where it is."""
    set_zone = getattr(time, "tzset", lambda: None)
    monkeypatch.setenv("TZ", "JST-9")
    set_zone()
    yield
    monkeypatch.undo()
    set_zone()


@pytest.mark.usefixtures("_in_tokyo")
@pytest.mark.parametrize(
    "date", ["Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 -0000", "Sun Nov  6 08:49:37 1994"]
)
def test_a_date_without_a_zone_is_gmt_wherever_blender_is(date: str) -> None:
    """It tells whether a validator is strong, and is the time of an updated file."""
    retry.timestamp.cache_clear()
    assert retry.timestamp(date) == NOW


@given(st.integers(0, 10**6))
def test_retry_after_reads_every_date(seconds: int) -> None:
    assert retry.retry_after(formatdate(NOW + seconds, usegmt=True), NOW) == seconds


@given(st.text() | st.text("SunMor,: -+0123456789GT", max_size=40))
def test_retry_after_never_raises(header: str) -> None:
    seconds = retry.retry_after(header, NOW)
    assert seconds is None or 0 <= seconds <= retry.LONGEST_ASKED


def test_delays_double_with_jitter() -> None:
    for _ in range(50):
        tries = Tries()
        for base in (1, 2, 4, 8):
            assert base / 2 <= tries.delay(CUT) <= base


@pytest.mark.parametrize(("value", "delay"), [(0.0, 1.5), (0.5, 2.25), (1.0, 3.0)])
def test_jitter_is_anything_from_half_the_delay_to_all_of_it(
    monkeypatch: pytest.MonkeyPatch, value: float, delay: float
) -> None:
    monkeypatch.setattr(retry.dice, "random", lambda: value)
    assert Tries().delay(CUT, first_delay=3.0) == delay
    assert Tries().delay(CUT, 0.0, first_delay=3.0) == delay


def test_delays_are_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "TRIES", 100)
    monkeypatch.setattr(retry.dice, "random", lambda: 1.0)
    tries = Tries()
    assert max(tries.delay(CUT) for _ in range(99)) == 30.0


def test_the_fifth_failure_without_progress_is_the_end_and_says_why() -> None:
    tries = Tries()
    for _ in range(4):
        tries.delay("The connection was refused")
    with pytest.raises(TransferError) as caught:
        tries.delay(CUT + ".")
    assert str(caught.value) == f"{CUT}. Tried 5 times, try again later"


def test_what_to_do_next_stands_at_the_end() -> None:
    tries = Tries(failures=4)
    with pytest.raises(TransferError) as caught:
        tries.delay("The server did not answer. Raise the time-out. Or wait")
    assert str(caught.value) == "The server did not answer. Tried 5 times. Raise the time-out. Or wait"


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("The server stopped sending", "The server stopped sending. Retry continues at 9.0 MiB"),
        ("It is late. Raise the time-out", "It is late. Retry continues at 9.0 MiB. Raise the time-out"),
    ],
)
def test_whoever_gives_up_says_where_it_will_go_on(reason: str, sentence: str) -> None:
    tries = Tries(failures=4)
    with pytest.raises(TransferError) as caught:
        tries.delay(reason, kept=9 << 20)
    assert str(caught.value) == sentence
    with pytest.raises(TransferError, match="Tried 5 times"):  # a little is not worth a word
        Tries(failures=4).delay(reason, kept=1000)


def test_text_counts_the_tries() -> None:
    tries = Tries()
    texts = [tries.text]
    for _ in range(4):
        tries.delay(CUT)
        texts.append(tries.text)
    assert texts == ["", "retrying 2 of 5", "retrying 3 of 5", "retrying 4 of 5", "retrying 5 of 5"]


def test_only_new_ground_is_progress() -> None:
    tries = Tries()
    tries.progress(1000)
    for offset in (0, 500, 1000, 1):
        tries.delay(CUT)
        tries.progress(offset)  # starting again from zero is no progress
    with pytest.raises(TransferError):
        tries.delay(CUT)


def test_the_first_byte_is_progress_and_none_is_not() -> None:
    tries = Tries()
    tries.delay(CUT)
    tries.progress(0)
    assert tries.failures == 1
    tries.progress(1)
    assert tries.failures == 0


def test_one_new_byte_resets_the_counts() -> None:
    tries = Tries(furthest=10)
    for offset in range(11, 200):
        for _ in range(4):
            tries.request()
            tries.delay(CUT)
        tries.progress(offset)
        assert tries.text == ""


def test_a_wait_that_the_server_asked_for_uses_up_no_try() -> None:
    tries = Tries()
    for _ in range(10):
        assert tries.delay("The server is busy", 30.0) == 30.0
        assert tries.text == "waiting 30 seconds as the server asks"
    assert 0.5 <= tries.delay(CUT) <= 1.0
    assert tries.text == "retrying 2 of 5"


def test_waits_of_more_than_five_minutes_in_all_are_refused() -> None:
    tries = Tries()
    for offset in (1, 2, 3):
        tries.delay("The server is busy", 100.0)
        tries.progress(offset)  # the limit is for the whole download
    with pytest.raises(TransferError, match=r"^The server asks to wait 2 seconds\. Try again later$"):
        tries.delay("The server is busy", 2.0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (301, "6 minutes"),
        (720, "12 minutes"),
        (3600, "1 hour"),
        (86400, "1 day"),
        (7201, "3 hours"),
        (90000, "2 days"),
        (retry.LONGEST_ASKED, "366 days"),
    ],
)
def test_a_long_wait_is_an_error_that_says_how_long(seconds: float, words: str) -> None:
    with pytest.raises(TransferError, match=rf"^The server asks to wait {words}\. Try again later$"):
        Tries().delay("The server is busy", seconds)


def test_a_wait_of_no_time_at_all_is_called_a_second() -> None:
    with pytest.raises(TransferError, match=r"^The server asks to wait 1 second\. Try again later$"):
        Tries(waited=300.0).delay("The server is busy", 0.0)


def test_no_wait_at_all_still_leaves_the_server_a_moment() -> None:
    tries = Tries()
    assert 0.5 <= tries.delay("The server is busy", 0.0) <= 1.0
    assert tries.failures == 0


def test_the_first_delay_may_be_set() -> None:
    assert [Tries().delay("The server is busy", wait, first_delay=0.0) for wait in (None, 0.0, 2.0)] == [
        0.0,
        0.0,
        2.0,
    ]


def test_without_progress_there_are_forty_requests_at_most() -> None:
    tries = Tries()
    for _ in range(40):
        tries.request()
        tries.delay("The server is busy", 0.0)
    with pytest.raises(TransferError, match=r"^The server is busy\. Tried 40 times, try again later$"):
        tries.request()


@given(st.lists(st.none() | st.floats(0, 400), min_size=1))
def test_every_download_ends(answers: list[float | None]) -> None:
    tries = Tries()
    with pytest.raises(TransferError):
        _fail_again_and_again(tries, answers)
    assert tries.requests <= 40
    assert tries.waited <= 300


def _fail_again_and_again(tries: Tries, answers: list[float | None]) -> None:
    for answer in itertools.cycle(answers):
        tries.request()
        tries.delay("The server is busy", answer)


# -- How long: 20 times the time-out for one phase, here 7 seconds.

BEGAN, LIMIT, TIMEOUT = 50.0, 140.0, 7.0


def check_that_just_so_much_is_left(tries: Tries, now: float, left: float) -> None:
    tries.check(now + left / 2, TIMEOUT)
    tries.check(now + left, TIMEOUT)
    with pytest.raises(TransferError, match=r"^The server keeps the connection busy"):
        tries.check(now + left + 0.25, TIMEOUT)


def test_time_on_the_network_without_progress_is_limited() -> None:
    tries = Tries()
    check_that_just_so_much_is_left(tries, 0.0, LIMIT)
    tries.begin(BEGAN)
    check_that_just_so_much_is_left(tries, BEGAN, LIMIT)


def test_what_is_new_begins_that_time_anew() -> None:
    tries = Tries()
    tries.begin(BEGAN)
    tries.came(BEGAN + 100.0)
    check_that_just_so_much_is_left(tries, BEGAN + 100.0, LIMIT)


def test_waits_on_purpose_do_not_count() -> None:
    tries = Tries()
    tries.begin(BEGAN)
    for seconds in (30.0, 12.5):
        with tries.waiting(iter((1000.0, 1000.0 + seconds)).__next__):
            pass
    check_that_just_so_much_is_left(tries, BEGAN, LIMIT + 42.5)


def test_pauses_do_not_count_and_what_went_before_them_does() -> None:
    tries = Tries()
    tries.begin(BEGAN)
    tries.pause(BEGAN + 60.0)
    tries.begin(BEGAN + 5000.0)
    check_that_just_so_much_is_left(tries, BEGAN + 5000.0, LIMIT - 60.0)
    tries.pause(BEGAN + 5030.0)
    tries.begin(BEGAN + 9000.0)
    check_that_just_so_much_is_left(tries, BEGAN + 9000.0, LIMIT - 90.0)


def test_tries_travel_with_their_transfer() -> None:
    tries = Tries(furthest=5)
    tries.request()
    tries.delay(CUT)
    tries.delay(CUT, 20.0)
    assert pickle.loads(pickle.dumps(tries)) == tries
