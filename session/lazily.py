"""Modules that are imported when something of them is first used: enabling the add-on must cost nothing."""

from __future__ import annotations

import importlib.util
from typing import Any


class Lazy:
    """Stands for a module of ours; `Lazy(".words", __package__).size` imports it."""

    def __init__(self, name: str, package: str | None) -> None:
        self._name = importlib.util.resolve_name(name, package)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)
