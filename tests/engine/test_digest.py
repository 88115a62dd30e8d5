"""Expected digests."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from background_downloads.transfer import digest
from background_downloads.transfer.job import Digest, TransferError


@pytest.mark.parametrize(("algorithm", "length"), digest.LENGTHS.items())
def test_fragment_gives_the_digest_in_lower_case(algorithm: str, length: int) -> None:
    expected = Digest(algorithm, "0f" * (length // 2))
    assert digest.parse_fragment(f"{algorithm}={expected.hex}") == expected
    assert digest.parse_fragment(f"{algorithm}={expected.hex}".upper()) == expected
    assert digest.parse_fragment(f"egg=x&{algorithm}={expected.hex}&subdirectory=y") == expected


@pytest.mark.parametrize("fragment", ["", "top", "sha256", "page=2", "sha3=12", "xsha256=12", "&&="])
def test_other_fragments_mean_nothing(fragment: str) -> None:
    assert digest.parse_fragment(fragment) is None


@pytest.mark.parametrize("digits", ["", "12", "a" * 63, "a" * 65, "g" * 64, "٣" * 64, "a" * 63 + "\n"])
def test_a_wrong_digest_is_an_error_with_a_sentence(digits: str) -> None:
    with pytest.raises(TransferError, match="This link's sha256 digest"):
        digest.parse_fragment(f"sha256={digits}")


@given(st.text())
def test_parse_fragment_raises_nothing_else(fragment: str) -> None:
    for text in (fragment, f"md5={fragment}"):
        try:
            found = digest.parse_fragment(text)
        except TransferError:
            continue
        assert found is None or len(found.hex) == digest.LENGTHS[found.algorithm]


@pytest.mark.parametrize("algorithm", digest.LENGTHS)
def test_matches_compares_what_was_hashed(algorithm: str) -> None:
    computed = digest.new_hash(algorithm)
    computed.update(b"Suz")
    computed.update(memoryview(b"anne"))
    assert digest.matches(computed, Digest(algorithm, hashlib.new(algorithm, b"Suzanne").hexdigest()))
    assert not digest.matches(computed, Digest(algorithm, hashlib.new(algorithm, b"Cube").hexdigest()))
