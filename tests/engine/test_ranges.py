"""Sets of byte ranges, and what Content-Range says."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from background_downloads.transfer.ranges import Ranges, parse_content_range

SIZE = 60
spans = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(sorted).map(tuple))


@given(spans)
def test_ranges_are_a_set_of_positions(added: list[tuple[int, int]]) -> None:
    ranges = Ranges(added)
    positions = {position for start, end in added for position in range(start, end)}
    listed = [tuple(pair) for pair in ranges.as_list()]
    assert {p for start, end in listed for p in range(start, end)} == positions
    assert all(a[1] < b[0] for a, b in itertools.pairwise(listed))  # sorted, and not even touching
    assert ranges.total() == len(positions)
    assert ranges.end() == max(positions, default=-1) + 1
    assert ranges.head() == next(p for p in range(SIZE + 1) if p not in positions)


@given(spans)
def test_what_is_missing_is_the_rest(added: list[tuple[int, int]]) -> None:
    ranges = Ranges(added)
    missing = {p for start, end in ranges.missing(SIZE) for p in range(start, end)}
    there = {p for start, end in added for p in range(start, end)}
    assert missing == set(range(SIZE)) - there


@given(spans, st.integers(0, SIZE), st.integers(0, SIZE))
def test_a_span_in_pieces(added: list[tuple[int, int]], start: int, end: int) -> None:
    start, end = min(start, end), max(start, end)
    there = {p for a, b in added for p in range(a, b)}
    pieces = Ranges(added).pieces(start, end)
    assert [p for a, b, _ in pieces for p in range(a, b)] == list(range(start, end))
    assert all((p in there) is is_there for a, b, is_there in pieces for p in range(a, b))


@given(spans)
def test_each_position_is_in_the_set_or_not_and_so_much_of_it_lies_before(
    added: list[tuple[int, int]],
) -> None:
    ranges, there = Ranges(added), {p for a, b in added for p in range(a, b)}
    for position in range(SIZE + 5):
        assert ranges.has(position) == (position in there)
        if position not in there:
            gap = next((p for p in range(position - 1, -1, -1) if p not in there), -1)
            assert ranges.before(position) == position - gap - 1


@given(spans)
def test_ranges_survive_json(added: list[tuple[int, int]]) -> None:
    ranges = Ranges(added)
    assert Ranges(json.loads(json.dumps(ranges.as_list()))).as_list() == ranges.as_list()


@given(st.lists(st.integers(1, 1000), max_size=50))
def test_chunks_one_after_the_other_stay_one_range(counts: list[int]) -> None:
    ranges = Ranges()
    for count in counts:
        ranges.add(ranges.end(), ranges.end() + count)
    assert ranges.as_list() == ([[0, sum(counts)]] if counts else [])
    assert ranges.total() == sum(counts)


@pytest.mark.parametrize("at", [0, 7, 10, 15, 20, 10**9])
def test_nothing_added_anywhere_changes_nothing(at: int) -> None:
    ranges = Ranges([(10, 20)])
    ranges.add(at, int(str(at)))
    assert ranges.as_list() == [[10, 20]]
    assert ranges.total() == 10


def test_a_chunk_that_fills_a_gap_joins_its_neighbours() -> None:
    ranges = Ranges([(0, 10), (20, 30), (10, 20)])
    assert ranges.as_list() == [[0, 30]]
    ranges = Ranges([(20, 30), (0, 20)])
    assert ranges.as_list() == [[0, 30]]
    assert ranges.total() == 30


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 4)])
def test_what_is_no_range_is_refused(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="not a range"):
        Ranges().add(start, end)


def test_the_head_ends_at_the_first_gap() -> None:
    assert Ranges([(0, 10), (20, 30)]).head() == 10
    assert Ranges([(20, 30)]).head() == 0


def test_what_is_empty() -> None:
    ranges = Ranges()
    assert ranges.as_list() == []
    assert ranges.head() == ranges.end() == ranges.total() == 0
    assert not ranges.meets(0, 10)


@pytest.mark.parametrize("start", range(0, 45, 5))
@pytest.mark.parametrize("count", [1, 5, 10, 30])
def test_meeting_and_adding_are_as_of_a_set_of_numbers(start: int, count: int) -> None:
    there = {*range(10, 20), *range(30, 40)}
    ranges, more = Ranges([(10, 20), (30, 40)]), set(range(start, start + count))
    assert ranges.meets(start, start + count) == bool(there & more)
    ranges.add(start, start + count)
    assert ranges.total() == len(there | more)
    assert {n for a, b in ranges.as_list() for n in range(a, b)} == there | more
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ranges.as_list()))


@pytest.mark.parametrize(
    ("header", "parsed"),
    [
        ("bytes 5-9/100", (5, 10, 100)),
        (" BYTES 0-0/1 ", (0, 1, 1)),
        ("bytes 5-9/*", (5, 10, None)),
        ("bytes  5-9/100", (5, 10, 100)),
        (f"bytes {5:05000}-{9:05000}/{100:05000}", (5, 10, 100)),
        ("bytes 5-4/100", None),
        ("bytes 5-100/100", None),
        ("bytes 5-200/100", None),
        ("bytes */100", None),
        ("bytes 5-9", None),
        ("lines 5-9/100", None),
        ("bytes -5-9/100", None),
        ("bytes 5-9/100, 20-30/100", None),
        ("bytes \u0665-\u0669/100", None),
        ("bytes 5-" + "9" * 30 + "/*", None),
        ("", None),
    ],
)
def test_content_range(header: str, parsed: tuple[int, int, int | None] | None) -> None:
    assert parse_content_range(header) == parsed


@given(st.text())
def test_any_text_may_come_as_a_content_range(header: str) -> None:
    parse_content_range(header)
