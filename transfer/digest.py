"""Expected digests: read from a link's fragment, computed, compared."""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import unquote

from .job import Digest, TransferError

LENGTHS = {"md5": 32, "sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}
"""The algorithms a link may name, with the length of their digests in hexadecimal digits."""
# "sha256=", "sha-256:", and as subresource integrity has it (W3C SRI, section 3.5) "sha256-".
_KNOWN = r"(?is)(md5|sha-?(?:1|256|384|512))[=:-](.*)"
# Whoever writes one of these wants the file to be checked, and so does who writes as many digits alone;
# "#sha256" alone may be a heading of a page.
_DIGITS = r"(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{56}|[0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128})"
_UNKNOWN = (
    r"(?is)(?:\w+-)?(?:sha(?:-?[0-9]|ke)|md-?[0-9]|crc-?[0-9]|blake-?[0-9]|b[23](?:sum)?(?=[=:])|xxh|ripemd"
    r"|rmd[0-9]|adler|keccak|whirlpool|tiger|checksum|digest|integrity)[\w./-]*[=:].*"
    rf"|sha[0-9]+-[a-z0-9+/]{{20,}}=*|(?:(?:sha|md5|hash|\w*sum)[\w-]*?[^0-9a-z]+(?:\w+[=:])?)?{_DIGITS}"
)


def parse_fragment(fragment: str) -> Digest | None:
    """Read ``sha256=<hex>`` (or another of `LENGTHS`) from what follows the ``#`` of a link.

    ``sha256:<hex>`` and ``sha256-<base64>`` say the same. As in Python package indexes (PyPA's
    simple repository API), other ``&``-separated fields may stand beside it; the first digest
    counts. Other fragments mean nothing to a download: None.

    :raises TransferError: it is a digest that cannot be read: nothing would be checked.
    """
    for field in unquote(fragment).split("&"):
        if match := re.fullmatch(_KNOWN, field):
            return _digest(match[1].lower().replace("-", ""), match[2])
        if re.fullmatch(_UNKNOWN, field):
            raise TransferError("The kind of checksum after # is not known: use sha256, or remove it")
    return None


_TELLING = frozenset(
    ("repr-digest", "digest", "x-goog-hash", "content-md5", "content-digest", "x-linked-etag")
)


def told(headers: Mapping[str, str], *, is_whole: bool) -> Digest | None:
    """What a server says by itself of the whole file that it sends, not encoded; None if nothing.

    Of several the one that is surest, and quick. What cannot be read is nothing.

    :param headers: by their names in lower case.
    :param is_whole: whether the answer brings all of it, and not a range.
    """
    if _TELLING.isdisjoint(headers):  # nearly always
        return None
    texts = [headers.get(name, "") for name in ("repr-digest", "digest")]  # RFC 9530, RFC 3230
    if headers.get("x-goog-stored-content-encoding", "identity").lower() in ("", "identity"):
        texts.append(headers.get("x-goog-hash", ""))  # else of what is unpacked on its way
    if is_whole and (md5 := headers.get("content-md5", "")):
        texts.append(f"md5={md5}")  # RFC 1864: of just this body
    if is_whole:
        texts.append(headers.get("content-digest", ""))  # likewise, by RFC 9530
    if linked := headers.get("x-linked-etag", ""):
        texts.append(f"sha256={linked}")  # where the file lies elsewhere, its address
    found: dict[str, str] = {}
    for match in re.finditer(_TOLD, ", ".join(filter(None, texts))):
        found.setdefault(match[1].lower().replace("-", ""), match[2])
    for name in ("sha256", "sha512", "sha384", "sha1", "sha", "md5"):
        with suppress(TransferError):
            if name in found:
                return _digest("sha1" if name == "sha" else name, found[name])
    return None


_TOLD = r"""(?i)(?:^|[,\s])(md5|sha(?:-?(?:1|256|384|512))?)=[:"]*([a-z0-9+/_-]{22,128}=*)[:"]*(?=[,;\s]|$)"""


class Sum:
    """The digest of a file, as far as its bytes came in their order, or were read again."""

    def __init__(self, expected: Digest | None) -> None:
        """None: nothing is expected, and nothing computed."""
        self.expected = expected
        self.restart()

    def restart(self) -> None:
        """From the file's beginning."""
        self.seen = 0
        """Bytes from there."""
        # MD5 and SHA-1 only tell damage here; without the flag, systems in FIPS mode refuse them.
        self._hash = self.expected and hashlib.new(self.expected.algorithm, usedforsecurity=False)

    def wants(self, offset: int) -> bool:
        """Whether it may go on with what comes there."""
        return self._hash is not None and offset <= self.seen

    def take(self, data: bytes | memoryview, offset: int) -> None:
        """Go on with what comes, where that is what comes next."""
        if self._hash and offset <= self.seen < offset + len(data):
            self._hash.update(data[self.seen - offset :])
            self.seen = offset + len(data)

    @property
    def is_right(self) -> bool:
        """All was seen: whether it is what was expected, if anything was."""
        return not (self.expected and self._hash) or self._hash.hexdigest() == self.expected.hex


def _digest(algorithm: str, text: str) -> Digest:
    length = LENGTHS[algorithm]
    if re.fullmatch(rf"[0-9A-Fa-f]{{{length}}}", text):
        return Digest(algorithm, text.lower())
    packed = text.rstrip("=").replace("-", "+").replace("_", "/")  # base64url too (RFC 4648, section 5)
    size = -(-length * 4 // 6)  # characters of base64 without its padding
    if re.fullmatch(rf"[0-9A-Za-z+/]{{{size}}}", packed):
        return Digest(algorithm, binascii.a2b_base64(packed + "=" * (-size % 4)).hex())
    if re.fullmatch(rf"[0-9A-Fa-f]{{0,{length - 1}}}", text):
        raise TransferError("The checksum after # is incomplete. Copy the whole link")
    raise TransferError(f"The checksum after # is no {algorithm}. Copy the link again, or remove it")
