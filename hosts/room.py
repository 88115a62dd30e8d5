"""Hosts that work at the same time keep to one limit of connections, and of speed, together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ..transfer.job import Settings


@dataclass(frozen=True, slots=True)
class Room:
    """What the others leave to a host."""

    taken: int = 0
    """Connections that they use."""
    hosts: int = 1
    """How many share the speed."""

    def within(self, settings: Settings) -> Settings:
        """What it may go by of its settings: one connection, if it is to have any, and some speed."""
        limit, speed = settings.connections, settings.speed_limit
        limit = max(min(1, limit), limit - self.taken)
        return replace(settings, connections=limit, speed_limit=speed and max(1, speed // self.hosts))


class Sharing(Protocol):
    """A host, as the others see it."""

    settings: Settings
    room: Room = Room()

    def used(self) -> int:
        """How many connections it uses, or may begin to at any moment; a child is asked for the next time."""

    def go_by(self, settings: Settings) -> None:
        """Have so many connections, so much speed and these tokens from now on; no download is cut short."""

    def change(self, **settings: Any) -> None:
        """Have other `connections`, `speed_limit` or `tokens`; nothing else of them changes in a host."""
        self.settings = replace(self.settings, **settings)
        self.go_by(self.room.within(self.settings))

    def share(self, room: Room) -> None:
        """Leave so much to the others from now on."""
        if room != self.room:
            self.room = room
            self.go_by(room.within(self.settings))


def share(hosts: Iterable[Sharing]) -> None:
    """Give each what the others leave. To be called again and again while more than one is there."""
    used = {host: host.used() for host in hosts}
    for host in used:
        others = [count for other, count in used.items() if other is not host and count]
        host.share(Room(sum(others), 1 + len(others)))
