"""Lists that others publish: what is read from them, and that nothing in them leads out of the folder."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from background_downloads.transfer.job import Digest
from background_downloads.transfer.lists import Entry, Listing, NoListError, is_list, read

BASE = "https://example.org/rocks/"
SHA256 = hashlib.sha256(b"").hexdigest()
SHA512 = hashlib.sha512(b"").hexdigest()
MD5 = hashlib.md5(b"").hexdigest()
IS_SHA256 = Digest("sha256", SHA256)


def listed(text: str | bytes, name: str = "SHA256SUMS") -> Listing:
    return read(text.encode() if isinstance(text, str) else text, BASE + name)


def only(text: str | bytes, name: str = "SHA256SUMS") -> Entry:
    (entry,) = listed(text, name).entries
    return entry


# Checksums.


@pytest.mark.parametrize(
    ("line", "name", "path", "url"),
    [
        (f"{SHA256}  rock.zip", "SHA256SUMS", "rock.zip", "rock.zip"),
        (f"{SHA256} *rock.zip\r", "SHA256SUMS", "rock.zip", "rock.zip"),
        (f"{SHA256.upper()}  rock.zip", "SHA256SUMS", "rock.zip", "rock.zip"),
        (f"{SHA256}  ./maps/a b#c?.png", "SHA256SUMS", "maps/a b#c_.png", "maps/a%20b%23c%3F.png"),
        (f"\ufeff{SHA256}  größe.zip", "SHA256SUMS", "größe.zip", "gr%C3%B6%C3%9Fe.zip"),
        (f"SHA256 (rock.zip) = {SHA256}", "CHECKSUM", "rock.zip", "rock.zip"),
        (f"{SHA256}", "rock.zip.sha256", "rock.zip", "rock.zip"),
        (f"# made today\n\n{SHA256}  rock.zip\n", "SHA256SUMS", "rock.zip", "rock.zip"),
        (f"\\{SHA256}  ro\\\\ck.zip", "SHA256SUMS", "ro/ck.zip", "ro%5Cck.zip"),
        (f"{SHA256}  host:8.zip", "SHA256SUMS", "host_8.zip", "host%3A8.zip"),
        (f"{SHA256} rock.zip", "SHA256SUMS", "rock.zip", "rock.zip"),
        (f"{SHA256}\trock one.zip  ", "SHA256SUMS", "rock one.zip", "rock%20one.zip"),
        (f"{SHA256} ^rock.zip", "SHA256SUMS", "rock.zip", "rock.zip"),  # shasum
        (f"   {SHA256}  rock.zip\n  # indented", "SHA256SUMS", "rock.zip", "rock.zip"),
        (f"SHA2-256(a (1).png)= {SHA256}", "CHECKSUM", "a (1).png", "a%20%281%29.png"),  # openssl
        (f"sha256 (rock.zip) = {SHA256}", "CHECKSUM", "rock.zip", "rock.zip"),
        (f"\\SHA256 (ro\\\\ck.zip) = {SHA256}", "CHECKSUM", "ro/ck.zip", "ro%5Cck.zip"),
        (f"{SHA256} *maps\\rock.png", "SHA256SUMS", "maps/rock.png", "maps/rock.png"),  # Windows
        (f"{SHA256}  -", "rock.zip.sha256", "rock.zip", "rock.zip"),
        (f"SHA256: {SHA256}", "rock.zip.sha256", "rock.zip", "rock.zip"),
        (f"SHA256 hash of rock.zip:\r\n{SHA256}\r\nCertUtil: done.\r\n", "a.zip.sha256", "a.zip", "a.zip"),
        (f"Algorithm : SHA256\nHash : {SHA256.upper()}\nPath : C:\\x.zip", "a.zip.sha256", "a.zip", "a.zip"),
        (f"{SHA256}  dist/rock.zip", "rock.zip.sha256", "rock.zip", "rock.zip"),
        (f"{SHA256} *C:\\build\\rock.zip", "rock.zip.sha256", "rock.zip", "rock.zip"),
        (f"{SHA256}  dist/rock.zip", "all.sha256", "dist/rock.zip", "dist/rock.zip"),
    ],
)
def test_a_line_of_checksums_names_the_file_beside_it(line: str, name: str, path: str, url: str) -> None:
    entry = only(line, name)
    assert (entry.path, entry.url, entry.digest) == (path, BASE + url, IS_SHA256)


@pytest.mark.parametrize(
    ("digits", "algorithm"), [(MD5, "md5"), ("0" * 40, "sha1"), (SHA256, "sha256"), (SHA512, "sha512")]
)
def test_the_length_of_a_checksum_tells_its_algorithm(digits: str, algorithm: str) -> None:
    assert only(f"{digits}  rock.zip").digest == Digest(algorithm, digits)


SIGNED = """-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

# Rocks: 14 bytes
{}
- - SHA256 (-a.zip) = 00
-----BEGIN PGP SIGNATURE-----

iQIzBAEBCAAdFiEE
-----END PGP SIGNATURE-----
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_of_a_signed_list_what_was_signed_is_read(end: str) -> None:
    line = f"SHA256 (rock.zip) = {SHA256}"
    entry = only(SIGNED.replace("- - SHA256 (-a.zip) = 00\n", "").format(line).replace("\n", end), "CHECKSUM")
    assert (entry.path, entry.digest) == ("rock.zip", IS_SHA256)
    text = f"- {SHA256}  a.zip\n{SHA256}  b.zip"
    assert len(listed(SIGNED.replace("- - SHA256 (-a.zip) = 00", text).format("#")).entries) == 2


def test_a_file_with_several_checksums_is_listed_once_with_the_best() -> None:
    text = f"MD5 (a.zip) = {MD5}\nSHA256 (a.zip) = {SHA256}\nBLAKE2b (a.zip) = {SHA512}\nSIZE (a.zip) = 14"
    assert only(text).digest == IS_SHA256
    assert [entry.digest for entry in listed(f"{MD5}  a.zip\n{SHA256}  a.zip\n{MD5}  b.zip").entries] == [
        IS_SHA256,
        Digest("md5", MD5),
    ]


def test_of_two_checksums_of_one_kind_the_first_counts_and_it_is_said() -> None:
    listing = listed(f"{SHA256}  a.zip\n{'0' * 64}  a.zip")
    assert [entry.digest for entry in listing.entries] == [IS_SHA256]
    assert "two checksums" in listing.problems[0]


@pytest.mark.parametrize(
    "line", [f"{SHA256[:-2]}  a.zip", f"SHA3-256 (a.zip) = {SHA256}", "SIZE (a.zip) = 3"]
)
def test_a_file_without_a_checksum_that_can_be_read_is_left_out_and_said(line: str) -> None:
    listing = listed(f"{line}\n{SHA256}  b.zip")
    assert [entry.path for entry in listing.entries] == ["b.zip"]
    assert listing.problems == ["The list has no checksum that can be read for a.zip"]


@pytest.mark.parametrize(
    "text",
    [
        f"<html><body id={SHA256}>",
        f"was {SHA256}\nis {'0' * 64}",
        f"{SHA256}\n" + "more\n" * 5,
        f"x{SHA256}",
        "none",
    ],
)
def test_what_only_mentions_a_checksum_is_no_list(text: str) -> None:
    with pytest.raises(NoListError):
        listed(text, "rock.zip.sha256")
    with pytest.raises(NoListError):
        listed(f"SHA256 of rock.zip\n{SHA256}", "README.txt")
    with pytest.raises(NoListError):
        listed(SHA256, "SHA256SUMS")  # of which file?


def test_a_checksum_may_be_of_a_link() -> None:
    entry = only(f"{SHA256}  https://e.org/get/rock.zip?v=2")
    assert (entry.url, entry.path) == ("https://e.org/get/rock.zip?v=2", "rock.zip")


def test_a_list_is_known_by_its_name() -> None:
    names = "SHA256SUMS sha512sum MD5SUMS rock.zip.sha256 rock.zip.md5 a.sha256sum sha256 CHECKSUMS a%2Emeta4"
    names += " SHASUMS256.txt tool_1.2_SHA256SUMS Rocks-39-x86_64-CHECKSUM"
    assert [name for name in names.split() if not is_list(f"{BASE}{name}?x=1#y")] == []
    others = "rock.zip sha256.zip checksum.py rock-sha256 asset.json"
    assert [name for name in others.split() if is_list(BASE + name)] == []


# Metalink.

METALINK = """<?xml version="1.0" encoding="UTF-8"?>
<metalink xmlns="urn:ietf:params:xml:ns:metalink">{}</metalink>"""


def test_a_metalink_gives_size_best_digest_and_mirrors_by_priority() -> None:
    file = f"""<file name="maps/rock.zip"><size>14</size>
      <hash type="md5">{MD5}</hash><hash type="sha-256">{SHA256.upper()}</hash>
      <url priority="9">https://c.example/r.zip</url><url>https://d.example/r.zip</url>
      <url priority="1">https://a.example/r.zip?x=1&amp;y=2</url><url priority="2">ftp://b.example/r</url></file>"""
    assert only(METALINK.format(file), "all.meta4") == Entry(
        url="https://a.example/r.zip?x=1&y=2",
        path="maps/rock.zip",
        size=14,
        digest=IS_SHA256,
        mirrors=("https://c.example/r.zip", "https://d.example/r.zip"),
    )


def test_of_a_metalink_only_what_is_said_of_the_whole_file_counts() -> None:
    file = f"""<m:file name="rock.zip"><m:size> 14 </m:size><m:pieces length="4" type="sha-256">
      <m:hash>{"0" * 64}</m:hash></m:pieces><m:hash type="sha-512">{SHA512}</m:hash>
      <m:hash type="sha256"> {SHA256} </m:hash><m:metaurl mediatype="torrent">http://a/b.torrent</m:metaurl>
      <m:url location="de" priority="many">rock.zip</m:url></m:file>"""
    text = re.sub("(</?)(?=m)", r"\1m:", METALINK.replace("xmlns=", "xmlns:m="))
    assert only("\ufeff" + text.format(file), "all.meta4") == Entry(
        url=BASE + "rock.zip", path="rock.zip", size=14, digest=IS_SHA256
    )


@pytest.mark.parametrize(
    "file",
    [
        '<file name="a.zip"/>',
        '<file name="a.zip"><metaurl mediatype="torrent">http://a/b</metaurl></file>',
        '<file name="a.zip"><url>ftp://a/b</url></file>',
        '<file name="a.zip"><url> </url></file>',
        "<file><url>http://a/b</url></file>",
    ],
)
def test_what_a_metalink_cannot_give_is_said_and_spoils_no_other(file: str) -> None:
    listing = listed(METALINK.format(file + '<file name="b.zip"><url>http://a/b.zip</url></file>'))
    assert [entry.path for entry in listing.entries] == ["b.zip"]
    assert len(listing.problems) == 1


@pytest.mark.parametrize(
    "text",
    ['<!DOCTYPE m [<!ENTITY a "b">]>' + METALINK.format("").partition("?>")[2], METALINK.format("<file")],
)
def test_a_metalink_that_is_a_bomb_or_damaged_is_refused(text: str) -> None:
    with pytest.raises(NoListError):
        listed(text)


# Blender's asset listings.


def test_the_parts_of_an_asset_listing_lead_to_its_files() -> None:
    version = {"url": "_v1/asset-index.json", "hash": f"SHA256:{SHA256}"}
    meta = {"name": "Rocks", "api_versions": {"v1": version}}
    index_url = f"{BASE}_v1/asset-index.json?hash={SHA256}"
    assert listed(json.dumps(meta), "_asset-library-meta.json").more == [index_url]
    index = {"pages": [{"url": "_v1/assets-1.json", "hash": f"SHA256:{MD5}"}, {"url": ""}, 7]}
    page_url = f"{BASE}_v1/assets-1.json?hash={MD5}"
    assert read(json.dumps(index).encode(), index_url).more == [page_url]
    page = {
        "assets": [],
        "files": [
            {"path": "a/rock one.blend", "size_in_bytes": 3, "hash": f"SHA256:{SHA256}"},
            {"path": "b.blend", "size_in_bytes": "3", "hash": "", "url": "https://cdn.example/b?v=1"},
        ],
    }
    assert read(json.dumps(page).encode(), page_url).entries == [
        Entry(url=BASE + "a/rock%20one.blend", path="a/rock one.blend", size=3, digest=IS_SHA256),
        Entry(url="https://cdn.example/b?v=1", path="b.blend"),
    ]


# One bad address spoils no other.

BAD_ADDRESSES = [
    "http://[",
    "http://[::1]x/a",
    "http://a b/c",
    "//[/a",
    "http://e.org:99999/a",
    "http://\u2100/a",
]


@pytest.mark.parametrize("bad", BAD_ADDRESSES)
def test_a_bad_address_is_a_problem_of_its_own_entry(bad: str) -> None:
    good = '<url>http://a/b</url></file><file name="c.zip"><url>http://a/c</url></file>'
    metalink = listed(METALINK.format(f'<file name="a.zip"><url>{bad}</url></file><file name="b.zip">{good}'))
    files = [{"path": "a.zip", "url": bad}, {"path": "b.zip"}, {"path": "c.zip"}]
    for listing in (metalink, listed(json.dumps({"files": files}))):
        assert [entry.path for entry in listing.entries] == ["b.zip", "c.zip"]
        assert len(listing.problems) == 1


@pytest.mark.parametrize("bad", BAD_ADDRESSES)
def test_a_bad_mirror_leaves_the_others(bad: str) -> None:
    urls = f'<url priority="1">{bad}</url><url priority="2">http://a/b</url><url>{bad}</url>'
    entry = only(METALINK.format(f'<file name="a.zip">{urls}</file>'))
    assert (entry.url, entry.mirrors) == ("http://a/b", ())


@pytest.mark.parametrize("bad", [*BAD_ADDRESSES, "http://e.org/\ud800"])
def test_a_part_whose_address_is_bad_leaves_the_others(bad: str) -> None:
    listing = listed(json.dumps({"pages": [{"url": bad, "hash": "SHA256:00"}, {"url": "p-1.json"}]}))
    assert (listing.more, len(listing.problems)) == ([BASE + "p-1.json"], 1)


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ({"path": "\ud800.blend"}, ["b.blend"]),
        ({"path": "a.blend", "url": "\udfff"}, ["b.blend"]),
        ({"path": "a.blend", "hash": "SHA256:\ud800"}, ["a.blend", "b.blend"]),
        ({"path": "a.blend", "size_in_bytes": 10**400}, ["a.blend", "b.blend"]),
    ],
)
def test_half_a_character_or_an_endless_number_spoils_no_other(
    file: dict[str, Any], names: list[str]
) -> None:
    listing = listed(json.dumps({"files": [file, {"path": "b.blend"}]}))
    assert [entry.path for entry in listing.entries] == names
    assert [entry.size for entry in listing.entries] == [None] * len(names)


def test_a_part_keeps_its_address_whatever_its_hash_is() -> None:
    listing = listed(json.dumps({"pages": [{"url": "p.json", "hash": "SHA256:\ud800"}]}))
    assert listing.more == [BASE + "p.json?hash=%3F"]


# Plain links, and what is no list.


def test_a_text_of_links_is_a_list_too() -> None:
    text = f"# rocks\nhttps://a.example/rock.zip#sha256={SHA256}\n\nhttp://b.example/\n"
    assert listed(text, "links.txt").entries == [
        Entry(url="https://a.example/rock.zip", path="rock.zip", digest=IS_SHA256),
        Entry(url="http://b.example/", path="download"),
    ]


@pytest.mark.parametrize(
    "text", ["https://e.org/a.zip # the grey one\r\n; nothing\n", "  # first\n\thttps://e.org/a.zip   #\n"]
)
def test_comments_may_stand_between_and_behind_links(text: str) -> None:
    assert only(text, "links.txt").url == "https://e.org/a.zip"


@pytest.mark.parametrize(
    "text", ["", "# nothing", "<html><body>Sign in</body></html>", "{}", "[1]", '{"files": 3}', "{" * 50_000]
)
def test_what_is_no_list_is_said(text: str) -> None:
    with pytest.raises(NoListError, match="no list of files"):
        listed(text)


@pytest.mark.parametrize(
    "text",
    [
        "Licence: see https://creativecommons.org/publicdomain/zero/1.0/",
        "https://e.org/rock.zip is the newest one",
        "https://e.org/rock.zip\nthanks",
        "Rocks <https://e.org/rock.zip>",
        "- https://e.org/rock.zip",
        f"https://e.org/rock.zip #sha256={SHA256}",  # would be fetched, and not be checked
    ],
)
def test_a_text_that_mentions_a_link_is_no_list(text: str) -> None:
    with pytest.raises(NoListError, match="no list of files"):
        listed(text, "README.txt")


def test_a_link_that_cannot_be_used_leaves_the_others_of_a_text() -> None:
    listing = listed("<https://e.org/rock.zip>\nhttp://[\nftp://e.org/tree.zip", "links.txt")
    assert ([entry.path for entry in listing.entries], len(listing.problems)) == (["rock.zip"], 2)


# Nothing leaves the folder.

LEADING_OUT = ["../rock.zip", "a/../../r.zip", "/etc/passwd", "\\\\server\\a", "C:rock", "..\\rock", ".."]


@pytest.mark.parametrize("path", LEADING_OUT)
def test_a_name_that_leads_out_of_the_folder_is_refused_in_every_kind(path: str) -> None:
    kinds = [
        f"{SHA256}  {path}",
        METALINK.format(f'<file name="{path}"><url>http://a/b</url></file>'),
        json.dumps({"files": [{"path": path}]}),
    ]
    for text in kinds:
        listing = listed(text)
        assert listing.entries == []
        assert "outside of its folder" in listing.problems[0]


@given(st.text(min_size=1).filter(lambda text: text.splitlines() == [text]))
def test_whatever_a_list_names_stays_below_the_folder(path: str) -> None:
    try:
        listing = listed(f"{SHA256}  {path}\n{SHA256}  sound.zip")
    except NoListError:
        return
    for entry in listing.entries:
        parts = entry.path.split("/")
        assert all(parts), entry
        assert not {".", ".."} & set(parts), entry
        assert not any(set(part) & set('\\:<>"|?*\0') for part in parts), entry


@given(st.binary())
def test_no_bytes_raise_anything_but_a_sentence(data: bytes) -> None:
    with suppress(NoListError):
        read(data, BASE + "list")
