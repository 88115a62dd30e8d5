"""The targets under hypothesis, which knows how the formats are built and shows the least that trips."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from rules import TOP

sys.path.insert(0, str(Path(__file__).parent))

from targets import SHA256, TARGETS

any_text = st.text(st.characters(exclude_categories=()), max_size=40)
NASTY = (None, True, -1, 0.5, 1 << 63, 10**30, float("inf"), float("nan"), "", [], {}, ["sha0", "0"])
number = st.integers(-1, 2000) | st.sampled_from([1 << 63, 10**30, float("inf"), 0.5, True])
junk = st.sampled_from(NASTY) | st.integers() | any_text

SIDECAR = {
    "version": 1,
    "url": "https://files.example/a.bin",
    "cut": False,
    "digest": None,
    "size": 2000,
    "etag": '"1"',
    "last_modified": "Wed, 21 Oct 2015 07:28:00 GMT",
    "ranges": [[0, 500], [600, 700]],
}


ROW = {
    "url": "https://u:p@files.example/a.bin?t=1",
    "directory": f"{TOP}home",
    "if_exists": "RENAME",
    "when_done": "NOTHING",
    "digest": ["sha256", SHA256],
    "status": "QUEUED",
    "name": "a.bin",
    "error": "",
    "received": 10,
    "size": 2000,
    "partial": "a.bin.0123abcd.part",
    "is_cut": False,
}


def changed(good: dict[str, Any], more: st.SearchStrategy[Any] = junk) -> st.SearchStrategy[dict[str, Any]]:
    """As it is written, save for some fields; some may be missing."""
    changes = st.dictionaries(st.sampled_from(sorted(good)), more, max_size=3)
    missing = st.sets(st.sampled_from(sorted(good)), max_size=1)
    return st.builds(
        lambda new, gone: {k: v for k, v in (good | new).items() if k not in gone}, changes, missing
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def separated(*pieces: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    return st.tuples(*pieces).map(lambda texts: "\x1f".join(texts).encode("utf-8", "surrogatepass"))


@settings(deadline=None)
@given(separated(any_text, any_text) | st.binary(max_size=300))
def test_names(data: bytes) -> None:
    TARGETS["names"](data)


ranges = st.builds("bytes {}-{}/{}".format, number, number, number | st.just("*"))
days, months = st.sampled_from(["Wed", "X"]), st.sampled_from(["Oct", "Foo"])
zones = st.sampled_from(["GMT", "+9999", ""])
dates = st.builds("{}, {} {} {} {}:{}:60 {}".format, days, number, months, number, number, number, zones)
schemes = st.sampled_from(["", "http:", "HTTPS:", "x:"])
ports = st.sampled_from(["", ":80", "[::1]", "@[::1]", "@h:99999"])
places = st.builds("{}//{}{}/{}".format, schemes, any_text, ports, any_text)


@settings(deadline=None)
@given(separated(any_text | ranges | dates | places, any_text, any_text, any_text) | st.binary(max_size=300))
def test_headers(data: bytes) -> None:
    TARGETS["headers"](data)


@settings(deadline=None)
@given(separated(any_text | places, *[any_text] * 5) | st.binary(max_size=300))
def test_urls(data: bytes) -> None:
    TARGETS["urls"](data)


spans = st.lists(st.lists(number, min_size=2, max_size=2), max_size=5)
sidecars = changed(SIDECAR, junk | spans).map(lambda about: json.dumps(about).encode())


@given(st.sampled_from([b"\0", b"\xff"]), sidecars | st.binary(max_size=300))
@settings(deadline=None, max_examples=300)
def test_sidecars(kind: bytes, content: bytes) -> None:
    TARGETS["sidecar"](kind + content)


heads = st.just({"version": 1}) | changed({"version": 1})
lists = st.tuples(heads, st.lists(changed(ROW) | junk, max_size=3)).map(
    lambda parts: "\n".join(json.dumps(part) for part in (parts[0], *parts[1])).encode()
)


@given(lists | st.binary(max_size=300))
@settings(deadline=None, max_examples=300)
def test_lists(data: bytes) -> None:
    TARGETS["list"](data)


removed = st.lists(st.sampled_from(["a.bin.0123abcd.part", "../x.0123abcd.part", "x"]) | junk, max_size=3)
used = st.lists(st.tuples(st.sampled_from(["/a", "/b", "c"]) | junk, removed | junk) | junk, max_size=4)
folders = changed({"version": 1, "folders": []}, junk | used).map(lambda about: json.dumps(about).encode())


@given(folders | st.binary(max_size=300))
@settings(deadline=None, max_examples=300)
def test_folders(data: bytes) -> None:
    TARGETS["folders"](data)


digests = st.sampled_from([SHA256, "a" * 32, "b" * 40, "c" * 31, "x"])
lines = st.tuples(digests, st.sampled_from(["  ", " *", " "]), any_text | places).map("".join)
listed = st.fixed_dictionaries(
    {"path": any_text | junk},
    optional={
        "url": places | junk,
        "hash": digests.map("SHA256:{}".format) | junk,
        "size_in_bytes": number | junk,
    },
)
pages = st.fixed_dictionaries({"url": places | junk, "hash": digests | junk}) | junk
listings = st.fixed_dictionaries(
    {"files": st.lists(listed | junk, max_size=3)},
    optional={"pages": st.lists(pages, max_size=2) | junk, "api_versions": st.just({"v1": 1}) | junk},
).map(json.dumps)


@given((st.lists(lines | places, max_size=4).map("\n".join) | listings).map(_bytes) | st.binary(max_size=300))
@settings(deadline=None, max_examples=300)
def test_listings(data: bytes) -> None:
    TARGETS["listing"](data)
