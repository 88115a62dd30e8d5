"""What strangers write, and what must hold for any of it: seven targets, each takes bytes and asserts.

A fuzzer that sees which code runs calls them (run.py), and so does the test that replays the corpus.
Whatever a target raises is a finding.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import shutil
import sys
import tempfile
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from rules import is_safe

from background_downloads.transfer import answers, job, lists, names, part, ranges, retry
from background_downloads.transfer.fetch import Transfer
from background_downloads.transfer.job import Digest, Job, Settings, TransferError

NOW = 1_700_000_000.0  # seconds since 1970
SECRET = "Q7sEcReT7Q"
SHA256 = "a" * 64
FOLDER_URL = "https://files.example/a.bin"
ON_DISK = 1000  # bytes of a partial file


class Source:
    """Takes an input apart: texts and numbers, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._pieces = data.split(b"\x1f")

    def text(self) -> str:
        """Any text, lone surrogates too."""
        piece = self._pieces.pop(0) if self._pieces else b""
        try:
            return piece.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return piece.decode("utf-8", "surrogateescape")

    def header(self) -> str:
        """A header as http.client gives it."""
        return (self._pieces.pop(0) if self._pieces else b"").decode("latin-1")


# -- Names.


def fuzz_names(data: bytes) -> None:
    """Names stay in their folder, fit, and are stable."""
    source = Source(data)
    text, directory = source.text(), source.text()
    assert _is_safe_or_empty(names.safe(text))
    assert _is_safe_or_empty(names.from_url(text))
    assert _is_safe_or_empty(names.from_url(f"https://files.example/{text}"))
    for number in (1, 999_999):
        assert is_safe(names.numbered(names.safe(text) or names.FALLBACK, number))
    for url in (text, f"https://files.example/{text}"):
        partial = names.part_name(url, f"/{directory}")
        assert is_safe(partial + names.SIDECAR + names.UNFINISHED)
        assert names.safe(partial) == partial


def _is_safe_or_empty(name: str) -> bool:
    return name == "" or (is_safe(name) and names.safe(name) == name)


# -- Headers.


def fuzz_headers(data: bytes) -> None:
    """What a server says of a file never raises anything but an answer."""
    source = Source(data)
    text = source.header()
    assert _is_safe_or_empty(names.from_disposition(text))
    name = names.choose(
        disposition=text, asked=source.text(), final=source.text(), content_type=source.header()
    )
    assert is_safe(name)
    _check_content_range(text)
    _check_times(text)
    _check_redirect(text)


def _check_content_range(text: str) -> None:
    for header in (text, f"bytes {text}"):
        answered = ranges.parse_content_range(header)
        if answered:
            start, end, size = answered
            assert 0 <= start < end <= (end if size is None else size)
            again = f"bytes {start}-{end - 1}/{'*' if size is None else size}"
            assert ranges.parse_content_range(again) == answered


def _check_times(text: str) -> None:
    wait = retry.retry_after(text, NOW)
    assert wait is None or 0 <= wait <= retry.LONGEST_ASKED
    moment = retry.timestamp(text)
    assert moment is None or math.isfinite(moment)
    tries = retry.Tries()
    delay, sentence = _answer(lambda: tries.delay("The server is busy", wait))
    assert math.isfinite(delay or 0)
    assert len(tries.text) + len(sentence) < 200


def _check_redirect(location: str) -> None:
    """User and password go nowhere else, and what is fetched next can be asked for."""
    old = f"https://me:{SECRET}@files.example/dir/a.bin?token={SECRET}"
    target, sentence = _answer(lambda: answers.redirected(old, location))
    assert SECRET not in sentence
    if target is None:
        return
    new = urlsplit(target)
    assert new.scheme in ("http", "https")
    assert names.quoted(target) == target
    if (new.scheme, new.hostname, new.port) != ("https", "files.example", None) and SECRET not in location:
        assert SECRET not in new.netloc


def _answer(call: Callable[[], Any]) -> tuple[Any, str]:
    """What it returns, or the sentence that it raises."""
    try:
        return call(), ""
    except TransferError as error:
        return None, str(error)


# -- Links.


def fuzz_urls(data: bytes) -> None:
    """What is put into `urls`: links that can be asked for, sentences for the rest, no secrets."""
    text = Source(data).text()
    links, problems = names.parse_links(text)
    assert len(links) + len(problems) <= max(1, len(text.split()))
    assert len({link.url for link in links}) == len(links)
    for link in links:
        _check_link(link)
    for problem in problems:
        assert len(problem) < 2 * names.SHOWN_LENGTH + 200
        assert problem.isprintable()
    assert names.parse_links("\n".join(link.url for link in links))[1] == []
    _check_secrets(data)


def _check_link(link: names.Link) -> None:
    names.check(link.url)
    sent = names.quoted(link.url)
    assert sent.isascii()
    assert sent.isprintable()
    assert " " not in sent
    assert names.quoted(sent) == sent
    names.check(sent)
    _check_asked_host(sent)
    shown = names.shown(link.url)
    assert shown.isprintable()
    assert not re.search(r"[?#\s]", shown)
    assert names.shown(shown) == shown
    assert "@" not in urlsplit(shown).netloc
    assert is_safe(names.part_name(link.url, "/folder"))


def _check_asked_host(sent: str) -> None:
    """urllib3 must connect to the server that we have looked at."""
    from urllib3.util import parse_url

    ours, theirs = urlsplit(sent), parse_url(sent)
    assert (theirs.host or "").strip("[]").partition("%")[0] == (ours.hostname or "").partition("%")[0]
    assert theirs.port == ours.port
    assert theirs.scheme == ours.scheme


def _check_secrets(data: bytes) -> None:
    """A user's password, query and fragment in a link that is as odd as the input makes it."""
    source = Source(data)
    # What ends the authority, or the entry, would make a path of the password: nobody could tell.
    user, host = (re.sub(r"[/?#\\\s]", "", source.text()) for _ in range(2))
    path, query = (re.sub(r"[?#\s]", "", source.text()) for _ in range(2))
    schemes = ("https", "ftp", re.sub(r"[/?#\s]", "", source.text()) or "x")
    if SECRET in "".join([*schemes, user, host, path, query]):
        return  # a fuzzer that sees comparisons finds the word
    for scheme in schemes:
        entry = f"{scheme}://{user}:{SECRET}@{host}/{path}?{query}{SECRET}#{SECRET}"
        said = [names.shown(entry), *names.parse_links(entry)[1]]
        assert not any(SECRET in text for text in said)


# -- The sidecar.


def fuzz_sidecar(data: bytes) -> None:
    """Any bytes may stand beside a partial file; what is believed of them can be true and be sent."""
    kind, content = data[:1], data[1:]
    digest = Digest("sha256", SHA256) if kind > b"\x7f" else None
    folder = _folder()
    opened = part.Part(FOLDER_URL, str(folder), None)
    opened.open()
    try:
        os.ftruncate(opened.file.fd, ON_DISK)  # which makes it
        _sidecar(opened).write_bytes(content)
        opened.release()
        _check_leftovers(part.leftovers(str(folder)))
        _check_received(part.Part(FOLDER_URL, str(folder), digest))
        earlier = names.part_name(FOLDER_URL, str(folder))
        _check_received(part.Part(f"{FOLDER_URL}?new", str(folder), digest, earlier=earlier))
        assert all(re.fullmatch(r"a\.bin\.[0-9a-f]{8}\.part(\.json)?", name) for name in os.listdir(folder))
    finally:
        for path in folder.iterdir():
            path.unlink()


def _sidecar(opened: part.Part) -> Path:
    return Path(f"{opened.file.place}.json")


def _check_received(opened: part.Part) -> None:
    """It holds together, and is read as it was written."""
    opened.open()
    received = opened.received
    try:
        assert received.ranges.end() <= ON_DISK
        assert received.size is None or received.ranges.end() <= received.size < 1 << 63
        edges = [edge for pair in received.ranges.as_list() for edge in pair]
        assert edges == sorted(set(edges))
        assert all(type(number) is int for number in (*edges, received.size or 0))
        validator = received.validator
        for value in (validator.etag, validator.last_modified):
            assert len(value) <= job.VALIDATOR_SIZE
            assert not re.search(r"[\r\n\u0100-\U0010ffff]", value)
        opened.checkpoint()
        again = part._parse(json.loads(_sidecar(opened).read_bytes()), None, ON_DISK)
        assert again.ranges.as_list() == received.ranges.as_list()
        assert (again.size, again.validator) == (received.size, validator)
    finally:
        opened.release()


def _check_leftovers(found: list[part.Leftover]) -> None:
    """What is found in a folder without its list can be shown, and asked for where its link is whole."""
    for leftover in found:
        assert names.shown(leftover.url) == leftover.url
        names.check(leftover.url)
        assert type(leftover.is_cut) is bool
        assert 0 <= leftover.received <= ON_DISK
        assert leftover.size is None or leftover.received <= leftover.size < 1 << 63
        if leftover.digest:
            assert re.fullmatch("[0-9a-f]{32,128}", leftover.digest.hex)


@cache
def _folder() -> Path:
    """A folder of this process alone, in memory where that can be had."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(dir=memory))
    import atexit

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


# -- The list file.


def fuzz_list(data: bytes) -> None:
    """A list is read, or set aside for a ValueError; its rows can be run, shown and written again."""
    records = _records()
    try:
        rows = list(filter(None, records.decode_list(data)))
    except ValueError:
        return
    for row in rows:
        _check_row(row)
    again = list(records.decode_list(records.encode_list(map(records.encode_row, rows))))
    assert None not in again
    assert list(map(records.encode_row, again)) == list(map(records.encode_row, rows))


def _check_row(row: Any) -> None:
    assert row.received >= 0
    assert row.size is None or row.size >= 0
    assert all(type(text) is str for text in (row.url, row.directory, row.when_done, row.name, row.error))
    assert is_safe(row.name)
    assert row.error.isprintable()
    assert os.path.isabs(row.directory)
    assert row.partial == os.path.basename(row.partial)
    names.shown(row.url)
    if row.digest:
        assert names.parse_links(f"{FOLDER_URL}#{row.digest.algorithm}={row.digest.hex}")[1] == []
    job = Job(uid=row.uid, url=row.url, directory=row.directory, digest=row.digest, partial=row.partial)
    Transfer(job, Settings()).close()


def fuzz_folders(data: bytes) -> None:
    """The used folders are read, or set aside for a ValueError, and written again."""
    records = _records()
    try:
        folders = records.decode_folders(data)
    except ValueError:
        return
    assert all(os.path.isabs(path) for path in folders)
    assert all(os.path.basename(name) == name for removed in folders.values() for name in removed)
    again = records.decode_folders(records.encode_folders(folders))
    assert list(again.items()) == [
        (path, removed[-records.REMOVED :]) for path, removed in list(folders.items())[-records.FOLDERS :]
    ]


@cache
def _records() -> ModuleType:
    """The module that reads the list; its folder's own module is Blender's."""
    import background_downloads

    session = types.ModuleType("background_downloads.session")
    session.__path__ = [str(Path(background_downloads.__path__[0], "session"))]
    sys.modules.setdefault("background_downloads.session", session)
    return importlib.import_module("background_downloads.session.records")


def load() -> None:
    """Import what targets import on first use, so that it is watched too."""
    _records()
    importlib.import_module("urllib3.util.url")
    importlib.import_module("idna")


# -- Lists that others publish.


def fuzz_listing(data: bytes) -> None:
    """Whatever it names stays below its folder, can be asked for, and has a digest that there can be."""
    try:
        listing = lists.read(data, f"{FOLDER_URL}/SHA256SUMS")
    except lists.NoListError:
        return
    assert len(listing.entries) + len(listing.problems) <= lists.MOST
    for entry in listing.entries:
        assert all(map(is_safe, entry.path.split("/")))
        for url in (entry.url, *entry.mirrors):
            names.check(url)
        assert entry.size is None or entry.size >= 0
        if digest := entry.digest:
            assert names.parse_links(f"{FOLDER_URL}#{digest.algorithm}={digest.hex}")[1] == []


TARGETS: dict[str, Callable[[bytes], None]] = {
    "names": fuzz_names,
    "headers": fuzz_headers,
    "urls": fuzz_urls,
    "sidecar": fuzz_sidecar,
    "list": fuzz_list,
    "folders": fuzz_folders,
    "listing": fuzz_listing,
}
