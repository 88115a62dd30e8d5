"""Enabling the add-on must cost nothing: modules that are imported when something of them is first used."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Lazy:
    """Stands for a module of ours; `Lazy(".words", __package__).size` imports it."""

    def __init__(self, name: str, package: str | None) -> None:
        self._name = importlib.util.resolve_name(name, package)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


@contextmanager
def uncollected() -> Iterator[None]:
    """What is made meanwhile stays, and is no reason to look for garbage among all that Blender has made.

    That takes 6 ms in Blender 5.2 and 40 in 4.5, where it falls into the enabling by chance; to look at
    what is new alone takes 1.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # else somebody else keeps what is frozen
            gc.freeze()  # all that is new
            gc.unfreeze()  # is old now, without a look at it
        if was_enabled:
            gc.enable()
