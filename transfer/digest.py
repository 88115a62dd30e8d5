"""Expected digests: read from a link's fragment, computed, compared."""

from __future__ import annotations

import hashlib
import re
from typing import Protocol

from .job import Digest, TransferError

LENGTHS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
"""The algorithms a link may name, with the length of their digests in hexadecimal digits."""


class Hash(Protocol):
    """The part of :mod:`hashlib`'s objects that a download uses."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


def parse_fragment(fragment: str) -> Digest | None:
    """Read ``sha256=<hex>`` (or md5, sha1, sha512) from what follows the ``#`` of a link.

    As in Python package indexes (PyPA's simple repository API), other ``&``-separated fields may
    stand beside it; the first digest counts. Other fragments mean nothing to a download: None.

    :raises TransferError: a known algorithm with something that is no digest of its length.
    """
    for field in fragment.split("&"):
        algorithm, equals, digits = field.lower().partition("=")
        if equals and algorithm in LENGTHS:
            return _digest(algorithm, digits)
    return None


def new_hash(algorithm: str) -> Hash:
    """Start a digest; `algorithm` is one of `LENGTHS`."""
    # MD5 and SHA-1 only tell damage here; without this, systems in FIPS mode refuse them.
    return hashlib.new(algorithm, usedforsecurity=False)


def matches(computed: Hash, expected: Digest) -> bool:
    """Whether the data seen so far has the digest that was expected."""
    return computed.hexdigest() == expected.hex


def _digest(algorithm: str, digits: str) -> Digest:
    length = LENGTHS[algorithm]
    if len(digits) != length:
        raise TransferError(f"This link's {algorithm} digest should have {length} digits, not {len(digits)}")
    if not re.fullmatch("[0-9a-f]*", digits):
        raise TransferError(f"This link's {algorithm} digest has other characters than 0-9 and a-f")
    return Digest(algorithm, digits)
