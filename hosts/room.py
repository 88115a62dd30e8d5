"""Hosts that work at the same time keep to one limit of connections, and of speed, together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from ..transfer.job import Settings


@dataclass(frozen=True, slots=True)
class Room:
    """What the others leave to a host."""

    connections: int
    hosts: int = 1
    """How many share the speed."""

    def within(self, settings: Settings) -> tuple[int, int]:
        """How many connections it may have, at least one; bytes a second, 0 for as many as come."""
        limit = settings.speed_limit
        speed = max(1, limit // self.hosts) if limit else 0
        return max(1, min(settings.connections, self.connections)), speed


class Sharing(Protocol):
    """A host, as the others see it."""

    @property
    def settings(self) -> Settings:
        """What it was made with."""

    def used(self) -> int:
        """How many connections it uses, or may begin to at any moment; a child is asked for the next time."""

    def share(self, room: Room) -> None:
        """Keep to that from now on."""


def share(hosts: Iterable[Sharing]) -> None:
    """Give each what the others leave. To be called again and again while more than one is there."""
    used = {host: host.used() for host in hosts}
    limit = max((host.settings.connections for host in used), default=0)
    for host in used:
        others = [count for other, count in used.items() if other is not host and count]
        host.share(Room(limit - sum(others), 1 + len(others)))
