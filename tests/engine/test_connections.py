"""Never more connections than the limit, and which of those that nobody uses is closed first."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from background_downloads.transfer.connections import Connections


class Holder:
    """An answer, or a client; `closed` tells whether somebody has closed its connection."""

    def __init__(self) -> None:
        self.closed = 0

    def hang_up(self) -> None:
        self.closed += 1


def holders(count: int) -> list[Holder]:
    return [Holder() for _ in range(count)]


def kept(connections: Connections, count: int) -> list[Holder]:
    """So many stopped downloads, the longest stopped first."""
    made = holders(count)
    for answer in made:
        connections.begin(answer, Holder())
        connections.keep(answer)
    return made


def test_what_was_stopped_longest_is_closed_first() -> None:
    connections = Connections(3)
    first, second, third = kept(connections, 3)
    connections.begin(Holder(), Holder())
    assert [first.closed, second.closed, third.closed] == [1, 0, 0]
    connections.begin(Holder(), Holder())
    assert [first.closed, second.closed, third.closed] == [1, 1, 0]


def test_what_waits_for_a_next_request_is_closed_before_what_a_download_goes_on_with() -> None:
    connections = Connections(2)
    (stopped,) = kept(connections, 1)
    answer, client = holders(2)
    connections.begin(answer, client)
    connections.hand_back(answer, client)
    connections.begin(Holder(), Holder())
    assert (stopped.closed, client.closed) == (0, 1)


def test_a_client_goes_on_with_its_own_connection() -> None:
    connections = Connections(1)
    client = Holder()
    for _ in range(3):
        answer = Holder()
        connections.begin(answer, client)
        connections.hand_back(answer, client)
    assert client.closed == 0


def test_what_was_closed_cannot_be_taken_up() -> None:
    connections = Connections(1)
    (stopped,) = kept(connections, 1)
    assert connections.take_up(stopped)
    connections.keep(stopped)
    connections.begin(Holder(), Holder())
    assert stopped.closed == 1
    assert not connections.take_up(stopped)


def test_a_lower_limit_closes_what_nobody_uses() -> None:
    connections = Connections(4)
    used, stopped = Holder(), kept(connections, 2)
    connections.begin(used, Holder())
    assert connections.busy == 3
    connections.limit = 1
    assert [holder.closed for holder in (used, *stopped)] == [0, 1, 1]
    assert connections.busy == 1


@pytest.mark.parametrize("how", ["hand_back", "keep"])
def test_what_is_too_much_under_a_lower_limit_is_closed_when_nobody_uses_it_any_more(how: str) -> None:
    connections = Connections(2)
    answer, client = holders(2)
    connections.begin(answer, client)
    connections.begin(Holder(), Holder())
    connections.limit = 1
    if how == "keep":
        connections.keep(answer)
    else:
        connections.hand_back(answer, client)
    assert answer.closed + client.closed == 1


@settings(max_examples=50, deadline=None)
class Machine(RuleBasedStateMachine):
    """As many workers as the limit, each with a client; answers are begun, kept, taken up, ended."""

    LIMIT = 3

    def __init__(self) -> None:
        super().__init__()
        self.connections = Connections(self.LIMIT)
        self.clients = holders(self.LIMIT)
        self.reads: list[Holder | None] = [None] * self.LIMIT
        self.kept: list[Holder] = []

    @rule(n=st.integers(0, LIMIT - 1))
    def ask(self, n: int) -> None:
        if not self.reads[n]:
            self.reads[n] = answer = Holder()
            self.connections.begin(answer, self.clients[n])

    @rule(n=st.integers(0, LIMIT - 1), how=st.sampled_from(["keep", "hand_back", "end"]))
    def leave(self, n: int, how: str) -> None:
        answer, self.reads[n] = self.reads[n], None
        if not answer:
            return
        if how == "keep":
            self.connections.keep(answer)
            self.kept.append(answer)
        elif how == "hand_back":
            self.connections.hand_back(answer, self.clients[n])
        else:
            self.connections.end(answer)

    @rule(n=st.integers(0, LIMIT - 1), data=st.data())
    def take_up(self, n: int, data: st.DataObject) -> None:
        if self.kept and not self.reads[n]:
            answer = self.kept.pop(data.draw(st.integers(0, len(self.kept) - 1)))
            if self.connections.take_up(answer):
                assert not answer.closed
                self.reads[n] = answer
            else:
                assert answer.closed

    @invariant()
    def never_more_than_the_limit(self) -> None:
        used = [answer for answer in self.reads if answer]
        assert not any(answer.closed for answer in used), "somebody reads it"
        assert len(used) + sum(not answer.closed for answer in self.kept) <= self.LIMIT


TestAnyOrder = pytest.mark.filterwarnings("ignore::pytest.PytestCollectionWarning")(Machine.TestCase)
