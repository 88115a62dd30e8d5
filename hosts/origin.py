"""Which copy of the engine this is. `make vendor` writes another one into an add-on that takes it along."""

from __future__ import annotations

NAME = "downloads"
"""What its threads are called, with a number."""
VERSION = ""
"""Of the extension that a copy was taken from; the extension's own is in its manifest."""
