"""The catalogs of an asset library, as its `blender_assets.cats.txt` has them. Knows no Blender.

https://docs.blender.org/manual/en/latest/files/asset_libraries/catalogs.html
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from uuid import UUID

from ..transfer.disk import read_regular

FILE = "blender_assets.cats.txt"
FILE_SIZE = 4 << 20  # bytes; a larger file is none of Blender's
MOST = 10_000  # catalogs that are looked at


@dataclass(frozen=True, slots=True)
class Catalog:
    path: str
    """As people read it: ``Props/Rocks``."""
    uuid: UUID
    simple_name: str
    """What Blender writes beside the UUID, for the case that this file is lost."""


def of(library: str) -> dict[str, Catalog]:
    """The catalogs of a library, by their paths, in order. Raises nothing: what is broken is left out."""
    try:
        text = read_regular(os.path.join(library, FILE), FILE_SIZE).decode(errors="replace")
    except (OSError, ValueError):
        return {}
    found: dict[str, Catalog] = {}
    for catalog in islice(_parsed(text), MOST):
        found.setdefault(catalog.path, catalog)
    return dict(sorted(found.items(), key=lambda each: each[0].casefold()))


def _parsed(text: str) -> Iterator[Catalog]:
    for line in text.splitlines():
        uuid, _, rest = line.strip().partition(":")
        path, _, name = rest.partition(":")
        path = "/".join(filter(None, (part.strip() for part in path.split("/"))))
        try:
            known = UUID(uuid)
        except ValueError:  # a comment, the version, or broken
            continue
        if path and path.isprintable() and known.int:
            yield Catalog(path, known, name.strip() or path.replace("/", "-"))
