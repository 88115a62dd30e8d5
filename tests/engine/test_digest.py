"""Expected digests."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import quote

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


@pytest.mark.parametrize("algorithm", digest.LENGTHS)
@pytest.mark.parametrize("data", [b"Suzanne", b"Cube", b"5"])
def test_a_digest_may_be_written_in_several_forms(algorithm: str, data: bytes) -> None:
    computed = hashlib.new(algorithm, data)
    packed = base64.b64encode(computed.digest()).decode()
    url_safe = base64.urlsafe_b64encode(computed.digest()).decode()
    dashed = algorithm.replace("sha", "sha-")
    for text in (
        f"{algorithm}:{computed.hexdigest()}",
        f"{algorithm}-{computed.hexdigest()}",
        f"{dashed}={computed.hexdigest()}",
        f"{algorithm}-{packed}",
        f"{algorithm}-{packed.rstrip('=')}",
        f"{algorithm}={packed}",
        f"{dashed}-{url_safe}",
        f"{algorithm.upper()}-{quote(packed, safe='')}",
        f"{algorithm}%3D{computed.hexdigest()}",
        f"egg=x&{algorithm}-{packed}&md5=x",
    ):
        assert digest.parse_fragment(text) == Digest(algorithm, computed.hexdigest()), text


@pytest.mark.parametrize(
    "fragment",
    [
        *("", "top", "sha256", "page=2", "xsha256=12", "&&=", "share=1", "shape:cube", "mdx=1", "md=1"),
        *("sha-what-it-is", "checksums", "crcs=1", "L10-L20", "egg=a&subdirectory=b", ":~:text=sha256"),
        *("a" * 63, "b3", "hash", "hash=top", "key=" + "a" * 64, "summary-of-b2", "p" + "a" * 32),
    ],
)
def test_other_fragments_mean_nothing(fragment: str) -> None:
    assert digest.parse_fragment(fragment) is None


@pytest.mark.parametrize("digits", ["", "12", "a" * 63])
def test_an_incomplete_digest_is_an_error(digits: str) -> None:
    for form in ("sha256={}", "sha256:{}", "sha-256-{}", "egg=a&sha256={}&x=y"):
        with pytest.raises(TransferError, match=r"incomplete\. Copy the whole link"):
            digest.parse_fragment(form.format(digits))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a" * 65,
            "g" * 64,
            "٣" * 64,
            "a" * 63 + "\n",
            "xyz",
            "a" * 42,
            "a" * 42 + "%3D",
            "a" * 44,
            " " + "a" * 64,
        ),
        *("0x" + "a" * 62, "a" * 32 + " " + "a" * 31, "a" * 42 + "!", "a" * 128, "checksums"),
    ],
)
def test_a_digest_that_cannot_be_read_is_an_error(text: str) -> None:
    for form in ("sha256={}", "sha256:{}", "sha256-{}"):
        with pytest.raises(TransferError, match="The checksum after #"):
            digest.parse_fragment(form.format(text))


@pytest.mark.parametrize(
    "fragment",
    [
        *(
            "sha999=aa",
            "sha3-256=" + "a" * 64,
            "sha3=12",
            "sha224:" + "a" * 56,
            "crc32=cbf43926",
            "CRC32C=yZRlqg==",
        ),
        *("blake2b=aa", "blake3:aa", "xxh64=1", "md4=aa", "sha512/256=aa", "sha512_256=aa", "adler32=1"),
        *("checksum=sha256:aa", "digest=sha-256=aa", "integrity=sha384-aa", "sha224-" + "a" * 38),
        *("egg=a&crc32=1", "sha256/" + "a" * 64, "sha-" + "a" * 64, "sha256_" + "a" * 64),
        *("sha256%20" + "a" * 64, "sha256+" + "a" * 64),
        *("a" * 64, "B" * 128, "1" * 40, "hash=" + "a" * 32, "hash=sha256:" + "a" * 64, "b2sum=" + "a" * 128),
        *("repr-digest=sha-256=:aa:", "content-md5=aa==", "sha:" + "a" * 40, "sum-" + "a" * 96),
    ],
)
def test_a_digest_of_an_unknown_kind_is_an_error(fragment: str) -> None:
    with pytest.raises(TransferError, match="The kind of checksum after # is not known"):
        digest.parse_fragment(fragment)


@given(st.text())
def test_parse_fragment_raises_nothing_else(fragment: str) -> None:
    for text in (fragment, f"md5={fragment}"):
        try:
            found = digest.parse_fragment(text)
        except TransferError:
            continue
        assert found is None or len(found.hex) == digest.LENGTHS[found.algorithm]


@pytest.mark.parametrize("algorithm", digest.LENGTHS)
@pytest.mark.parametrize(("text", "is_right"), [(b"Suzanne", True), (b"Cube", False)])
def test_a_sum_is_of_what_comes_in_its_order(algorithm: str, text: bytes, is_right: bool) -> None:
    seen = digest.Sum(Digest(algorithm, hashlib.new(algorithm, text).hexdigest()))
    seen.take(b"Suz", 0)
    seen.take(b"nne", 4)  # not yet
    seen.take(memoryview(b"zanne"), 2)
    assert (seen.seen, seen.is_right) == (7, is_right)
