"""Lists that others publish of their files: checksums, Metalink 4, Blender's asset listings, plain links.

A list is a stranger's text. What it names stays below the folder that was chosen, and each file is held
to the digest that the list gives.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urljoin
from xml.etree import ElementTree

from . import names
from .digest import LENGTHS
from .job import Digest, Entry, TransferError

MOST = 10_000  # entries of one list
_METALINK = "{urn:ietf:params:xml:ns:metalink}"
_HASHES = {"sha-256": "sha256", "sha-512": "sha512", "sha-384": "sha384", "sha-1": "sha1", "md5": "md5"}
_GNU = r"(\\?)([0-9A-Fa-f]{32,128}) [ *](.+)"  # as sha256sum writes it
_BSD = r"([A-Z]+[0-9]+) \((.+)\) = ([0-9A-Fa-f]{32,128})"  # as sha256sum --tag does
_LONE = r"[0-9A-Fa-f]{32,128}"
_SUMS = r"(?:md5|sha-?(?:1|256|384|512))"
_LIST_NAME = rf"(?i){_SUMS}(?:sums?)?(?:\.txt)?|checksums?(?:\.txt)?|.*\.(?:{_SUMS}(?:sums?)?|meta4|txt)"
_LIST_NAME += r"|_?asset-(?:library-meta|index)\.json"
_HINTS = ("md5", "sha", "checksum", "meta4", "txt", "asset", "%")
"""Every such name has one of these, as it stands in a link; most of ten thousand links have none."""
_IS_LINK = r"\W*[A-Za-z][A-Za-z0-9+.-]*://.*"  # or is meant to be one
_LAST = 999_999  # the lowest priority (RFC 5854, section 4.2.16.2)


def is_list(url: str) -> bool:
    """Whether a link is, by its name, to a list and not to a file that is wanted for itself."""
    last = url.partition("#")[0].partition("?")[0].rpartition("/")[2].lower()
    if not any(hint in last for hint in _HINTS):
        return False
    return re.fullmatch(_LIST_NAME, names.from_url(url)) is not None


def is_text(name: str) -> bool:
    """Whether a file may be a list or a text that is read by people, as its name goes."""
    return name.lower().endswith(".txt")


class NoListError(TransferError):
    """The text is none of the lists that can be read."""


@dataclass(slots=True)
class Listing:
    """What a list says."""

    entries: list[Entry] = field(default_factory=list)
    more: list[str] = field(default_factory=list)
    """Further parts of the list, to be fetched and read likewise."""
    problems: list[str] = field(default_factory=list)
    """A sentence for each line that names no file, and each part that cannot be had."""

    def add(self, make: Callable[[], Entry]) -> None:
        """Take an entry, or say why it is none."""
        if len(self.entries) + len(self.problems) >= MOST:
            raise NoListError(f"This list names more than {MOST:,} files, which is too many to choose from")
        with self._noting():
            self.entries.append(make())

    def follow(self, make: Callable[[], str]) -> None:
        """Take the address of a further part, if it is not empty, or say why it is none."""
        with self._noting():
            self.more += filter(None, [make()])

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except TransferError as error:
            self.problems.append(str(error))


def read(data: bytes, url: str) -> Listing:
    """Read a list that was fetched from, or is dropped with, a `url`; addresses in it are relative to that.

    Any thread; no I/O. Raises NoListError, in a sentence, where it is none.
    """
    text = data.decode(_encoding(data), "replace")
    listing = Listing()
    for reader in (_read_json, _read_metalink, _read_checksums, _read_links):
        if reader(text, url, listing):
            break
    else:
        raise NoListError("This is no list of files that can be read: it names no links and no checksums")
    if len(listing.entries) > MOST:
        raise NoListError(f"This list names more than {MOST:,} files, which is too many to choose from")
    return listing


def _encoding(data: bytes) -> str:
    """UTF-8, unless a mark at the beginning says UTF-16, as Windows writes it."""
    return "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"


def _entry(url: str, path: str, **more: Any) -> Entry:
    names.check(url)
    return Entry(url=url, path=_inside(path), **more)


def _join(base: str, where: str, *, is_path: bool = False) -> str:
    """An address as a list has it, from the list's own; a path may have whatever characters.

    Raises TransferError where it is none.
    """
    try:
        found = urljoin(base, quote(where) if is_path else where)
        found.encode()  # half a character, which JSON can have, is in no address
    except ValueError:
        raise TransferError(f"The list has an address that is none: {names.shown(where)}") from None
    return found


def _inside(path: str) -> str:
    """A path of a list, below the folder whatever it says. Raises TransferError where it would leave."""
    parts = [part for part in re.split(r"[/\\]", path) if part not in ("", ".")]
    if not parts or ".." in parts or re.match(r"[/\\]|[A-Za-z]:", path):
        raise TransferError(f"The list names a file outside of its folder: {names.shown(path)}")
    return "/".join(names.safe(part) or names.FALLBACK for part in parts)


def _digest(algorithm: str, digits: str) -> Digest | None:
    """None where the digest says nothing: an algorithm that nobody knows, or no digest at all."""
    digits = digits.strip().lower()
    known = LENGTHS.get(algorithm) == len(digits) and re.fullmatch("[0-9a-f]+", digits)
    return Digest(algorithm, digits) if known else None


# -- Checksums, as sha256sum and its kin write them.


def _read_checksums(text: str, url: str, listing: Listing) -> bool:
    """Every line that is not empty or a comment names a file, or the only one is a digest."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(("#", ";"))]
    if len(lines) == 1 and re.fullmatch(_LONE, lines[0].strip()):
        name = names.from_url(url).rpartition(".")[0]
        lines = [f"{lines[0].strip()}  {name}"]
    found = [parts for line in lines if (parts := _checksum(line))]
    if not found or len(found) < len(lines):
        return False
    for digest, path in found:
        listing.add(lambda d=digest, p=path: _entry(_beside(url, p), p, digest=d))  # type: ignore[misc]
    return True


def _checksum(line: str) -> tuple[Digest, str] | None:
    by_length = {length: algorithm for algorithm, length in LENGTHS.items()}
    if match := re.fullmatch(_GNU, line.rstrip("\r")):
        escaped, digits, path = match.groups()
        digest = _digest(by_length.get(len(digits), ""), digits)
        path = re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), path) if escaped else path
    elif match := re.fullmatch(_BSD, line.rstrip("\r")):
        digest, path = _digest(match[1].lower(), match[3]), match[2]
    else:
        return None
    return (digest, path) if digest else None


def _beside(url: str, path: str) -> str:
    """The address of a file that lies beside the list, whatever characters its name has."""
    return _join(url, "./" + path.removeprefix("./"), is_path=True)


# -- Metalink 4 (RFC 5854).


def _read_metalink(text: str, url: str, listing: Listing) -> bool:
    if _METALINK[1:-1] not in text:
        return False
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # nobody needs them, and they can be bombs
        raise NoListError("This Metalink has a document type of its own, which cannot be read safely")
    try:
        root = ElementTree.fromstring(re.sub(r"\A\s*<\?xml[^>]*\?>", "", text))
    except ElementTree.ParseError:
        raise NoListError("This Metalink is damaged. Get it again") from None
    for file in root.iter(f"{_METALINK}file"):
        listing.add(lambda f=file: _metalink_file(f, url))  # type: ignore[misc]
    return True


def _metalink_file(file: ElementTree.Element, base: str) -> Entry:
    path = file.get("name", "")
    urls = list(_metalink_urls(file, base))
    if not urls:
        raise TransferError(f"The list gives no link for {names.shown(path)}")
    return _entry(urls[0], path, size=_size(file), digest=_best_hash(file), mirrors=tuple(urls[1:]))


def _metalink_urls(file: ElementTree.Element, base: str) -> Iterator[str]:
    """Those that can be fetched, the best first: a bad one spoils no other."""
    for element in sorted(file.iter(f"{_METALINK}url"), key=_priority):
        where = (element.text or "").strip()
        with suppress(TransferError):
            url = _join(base, where)
            names.check(url)
            if where:  # else it is the list's own
                yield url


def _priority(element: ElementTree.Element) -> int:
    text = element.get("priority", "")
    return int(text) if re.fullmatch("[0-9]{1,6}", text) else _LAST


def _size(file: ElementTree.Element) -> int | None:
    text = (file.findtext(f"{_METALINK}size") or "").strip()
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def _best_hash(file: ElementTree.Element) -> Digest | None:
    given = {element.get("type", ""): element.text or "" for element in file.findall(f"{_METALINK}hash")}
    digests = (_digest(algorithm, given.get(kind, "")) for kind, algorithm in _HASHES.items())
    return next(filter(None, digests), None)


# -- A remote asset library's listing, as Blender 5.2 writes it.


def _read_json(text: str, url: str, listing: Listing) -> bool:
    """Its three kinds of files: which versions there are, the index of one, a page of that."""
    if not text.lstrip().startswith("{"):
        return False
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return False
    root = url.partition("/_v1/")[0] + "/" if "/_v1/" in url else _join(url, ".")
    version = _dict(_dict(said, "api_versions"), "v1")
    for page in (version, *_list(said, "pages")):
        listing.follow(lambda p=page: _page(p, root))  # type: ignore[misc]
    for file in _list(said, "files"):
        listing.add(lambda f=file: _asset_file(f, root))  # type: ignore[misc]
    return bool(listing.more or listing.entries or listing.problems)


def _page(page: Any, root: str) -> str:
    """The address of another part, which its hash tells apart from earlier ones; empty: there is none."""
    if not isinstance(page, dict) or not isinstance(page.get("url"), str) or not page["url"]:
        return ""
    digits = str(page.get("hash", "")).rpartition(":")[2]
    url = _join(root, page["url"])
    names.check(url)
    return f"{url}{'&' if '?' in url else '?'}hash={quote(digits, errors='replace')}" if digits else url


def _asset_file(file: Any, root: str) -> Entry:
    path = file.get("path") if isinstance(file, dict) else None
    if not isinstance(path, str):
        raise TransferError("The list has a file without a path")
    algorithm, _, digits = str(file.get("hash", "")).partition(":")
    size, where = file.get("size_in_bytes"), file.get("url")
    is_given = isinstance(where, str) and bool(where)
    url = _join(root, where if is_given else path, is_path=not is_given)
    known = size if isinstance(size, int) and 0 <= size < 10**18 else None
    return _entry(url, path, size=known, digest=_digest(algorithm.lower(), digits))


def _dict(said: Any, key: str) -> dict[str, Any]:
    found = said.get(key) if isinstance(said, dict) else None
    return found if isinstance(found, dict) else {}


def _list(said: Any, key: str) -> list[Any]:
    found = said.get(key) if isinstance(said, dict) else None
    return found if isinstance(found, list) else []


# -- A plain text of links.


def _read_links(text: str, url: str, listing: Listing) -> bool:
    """Nothing but links, one a line or many; comments begin with #. A text that mentions some is no list."""
    words = " ".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    if not all(re.match(_IS_LINK, word) for word in words.split()):
        return False
    links, listing.problems = names.parse_links(words)
    for link in links:
        path = names.from_url(link.url) or names.FALLBACK
        listing.entries.append(Entry(url=link.url, path=path, digest=link.digest))
    return bool(links)

