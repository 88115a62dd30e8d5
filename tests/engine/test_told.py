"""Digests that servers send by themselves: each damaged byte is seen, and a note says what was checked."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driving import Driver, Fetcher, Finished, Settings, failed, finished, names, new_job
from hypothesis import given
from hypothesis import strategies as st
from server import Garbled, Response, Server, after, alters, cut_after, drip, first, pattern, status

from background_downloads.transfer import digest
from background_downloads.transfer.connect import Headers
from background_downloads.transfer.job import Digest

pytestmark = pytest.mark.usefixtures("no_delays")

DATA = pattern(200_000)
DAMAGED = "The file is damaged or another one: its checksum differs"


def packed(algorithm: str, data: bytes = DATA) -> str:
    return base64.b64encode(hashlib.new(algorithm, data).digest()).decode()


SHA256 = hashlib.sha256(DATA).hexdigest()
WAYS = {
    "Repr-Digest": ({"Repr-Digest": f"sha-256=:{packed('sha256')}:"}, "sha256"),
    "Repr-Digest, several": ({"Repr-Digest": f"md5=:AAAA:, sha-512=:{packed('sha512')}:"}, "sha512"),
    "Digest": ({"Digest": f"SHA-256={packed('sha256')}"}, "sha256"),
    "Digest, several": ({"Digest": f"MD5={packed('md5')},SHA={packed('sha1')}"}, "sha1"),
    "Content-Digest": ({"Content-Digest": f"sha-512=:{packed('sha512')}:;x=1"}, "sha512"),
    "Content-MD5": ({"Content-MD5": packed("md5")}, "md5"),
    "x-goog-hash": ({"x-goog-hash": f"crc32c=AAAAAA==,md5={packed('md5')}"}, "md5"),
    "X-Linked-Etag": ({"X-Linked-Etag": f'"{SHA256}"'}, "sha256"),
}


@alters
def flipped(response: Response, position: int) -> None:
    """One byte is another."""
    response.body = Garbled(response.body, position, position + 1)


@pytest.fixture(params=WAYS)
def told(request: pytest.FixtureRequest) -> tuple[dict[str, str], str]:
    return WAYS[request.param]


def note(outcome: Any) -> str:
    assert isinstance(outcome, Finished), outcome
    return outcome.note


def test_the_note_says_by_what_it_was_verified(
    fetch: Fetcher, server: Server, told: tuple[dict[str, str], str]
) -> None:
    headers, algorithm = told
    outcome = fetch(server.add("/a.bin", body=DATA, headers=headers))
    assert finished(outcome).read_bytes() == DATA
    assert note(outcome) == f"Verified by the {algorithm} that the server sent"
    assert len(server.requests) == 1


@pytest.mark.parametrize("position", [0, 77_777, len(DATA) - 1])
def test_a_damaged_byte_is_seen(
    fetch: Fetcher, server: Server, tmp_path: Path, told: tuple[dict[str, str], str], position: int
) -> None:
    """Once it is fetched again, and is right; twice nothing is published."""
    url = server.add("/a.bin", first(1, flipped(position)), body=DATA, headers=told[0])
    assert finished(fetch(url, tmp_path)).read_bytes() == DATA
    url = server.add("/b.bin", flipped(position), body=DATA, headers=told[0])
    assert failed(fetch(url, tmp_path)).startswith(DAMAGED)
    assert names(tmp_path) == ["a.bin"]
    assert len(server.requests) == 4


def test_a_resumed_file_is_checked_whole(
    fetch: Fetcher, server: Server, told: tuple[dict[str, str], str]
) -> None:
    headers, algorithm = told
    url = server.add("/a.bin", first(1, cut_after(150_000)), body=DATA, headers=headers)
    outcome = fetch(url)
    assert finished(outcome).read_bytes() == DATA
    assert note(outcome) == f"Verified by the {algorithm} that the server sent"
    assert server.requests[1].range


def test_a_file_resumed_by_another_process_is_checked_by_what_the_range_says(
    fetch: Fetcher, server: Server
) -> None:
    refused = first(1, cut_after(150_000)), after(1, first(2, status(410)))
    headers = {"Repr-Digest": f"sha-256=:{packed('sha256')}:"}
    url = server.add("/a.bin", *refused, body=DATA, headers=headers)
    failed(fetch(url))
    outcome = fetch(url)
    assert finished(outcome).read_bytes() == DATA
    assert note(outcome) == "Verified by the sha256 that the server sent"


def test_a_file_in_segments_is_checked_whole(
    new_driver: Callable[..., Driver], server: Server, tmp_path: Path
) -> None:
    headers = {"Repr-Digest": f"sha-256=:{packed('sha256')}:"}
    url = server.add("/a.bin", drip(16 << 10, 0.01), body=DATA, headers=headers)
    driver = new_driver(Settings(timeout=90.0, connections=4, split_seconds=0.0))
    outcome = driver.run(new_job(url, tmp_path))
    assert finished(outcome).read_bytes() == DATA
    assert note(outcome) == "Verified by the sha256 that the server sent"


def test_what_a_redirect_says_of_the_file_counts(fetch: Fetcher, server: Server) -> None:
    server.add("/blob", flipped(5), body=DATA)
    url = server.add("/a.bin", status(302, {"Location": "/blob", "X-Linked-Etag": f'"{SHA256}"'}))
    assert failed(fetch(url)).startswith(DAMAGED)
    server.add("/blob", body=DATA)
    assert "sha256" in note(fetch(url))


def test_the_links_own_digest_counts_more(fetch: Fetcher, server: Server) -> None:
    wrong = {"Content-MD5": packed("md5", b"other")}
    outcome = fetch(server.add("/a.bin", body=DATA, headers=wrong), sha256=SHA256)
    assert finished(outcome).read_bytes() == DATA
    assert note(outcome) == ""


@pytest.mark.parametrize(
    "headers", [{"Content-MD5": packed("md5")}, {"Digest": f"sha-256={packed('sha256')}"}]
)
def test_what_comes_encoded_is_not_what_the_header_speaks_of(
    fetch: Fetcher, server: Server, headers: dict[str, str]
) -> None:
    outcome = fetch(server.add("/a.bin", body=DATA, encoding="gzip", headers=headers))
    assert finished(outcome).read_bytes() == DATA
    assert note(outcome) == ""


HEX = "0f" * 32


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"digest": f"sha-256={HEX}"}, Digest("sha256", HEX)),
        ({"repr-digest": "sha-256=:AAAA:"}, None),
        (
            {"repr-digest": f"sha-256=:{packed('sha256')}:;x=1, md5=:{packed('md5')}:"},
            Digest("sha256", SHA256),
        ),
        ({"x-linked-etag": '"0123456789012345678901234567890123456789"'}, None),
        ({"x-linked-etag": f'W/"{HEX}"'}, None),
        ({"etag": f'"{HEX}"'}, None),
        ({"content-md5": "nonsense"}, None),
        ({"x-goog-hash": f"md5={packed('md5')}", "x-goog-stored-content-encoding": "gzip"}, None),
        ({"digest": "unixsum=30637, crc32c=AAAAAA=="}, None),
    ],
)
def test_what_is_told(headers: dict[str, str], expected: Digest | None) -> None:
    assert digest.told(Headers(headers.items()), is_whole=True) == expected


def test_what_is_said_of_a_body_says_nothing_of_a_range() -> None:
    assert digest.told({"content-md5": packed("md5")}, is_whole=False) is None
    assert digest.told({"digest": f"md5={packed('md5')}"}, is_whole=False)


@given(st.text(max_size=200), st.text('sha-256md5=:",; AZaz09+/', max_size=200))
def test_told_never_raises(some: str, others: str) -> None:
    for text in (some, others):
        for name in ("repr-digest", "digest", "content-md5", "x-goog-hash", "x-linked-etag"):
            digest.told({name: text}, is_whole=True)
