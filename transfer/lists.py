"""Lists that others publish of their files: checksums, Metalink 4, Blender's asset listings, plain links.

A list is a stranger's text. What it names stays below the folder that was chosen, and each file is held
to the digest that the list gives.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import dropwhile
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin

from . import names
from .digest import LENGTHS
from .job import Digest, Entry, TransferError

if TYPE_CHECKING:
    from xml.etree import ElementTree

MOST = 10_000  # entries of one list
FEW = 5  # lines that certutil or PowerShell write of one file
_METALINK = "{urn:ietf:params:xml:ns:metalink}"
_SUREST = ("sha256", "sha512", "sha384", "sha1", "md5")  # and of the sure ones the quickest
_HEX = r"[0-9A-Fa-f]{32,128}"
_SUMS = r"(?:md5|sha2?-?(?:1|256|384|512))"
_GNU = rf"(\\?)({_HEX})[ \t]+[*^?]?(.+)"  # as sha256sum and shasum write it, and people with other blanks
_BSD = rf"(\\?)({_SUMS}) ?\((.+)\) ?= ?({_HEX})"  # as sha256sum --tag and openssl do
_OTHER = r"[\w/-]+ ?\((.+)\) ?= ?.+"  # a size, or a digest of a kind that is not known
_LONE = rf"(?i)(?:{_SUMS}[:=]\s*)?{_HEX}"
_SIGNED, _SIGNATURE = "-----BEGIN PGP SIGNED MESSAGE-----", "-----BEGIN PGP SIGNATURE-----"
_LIST_NAME = rf"(?i)(?:.*[-_])?(?:{_SUMS}sums?|checksums?)|{_SUMS}|.*\.(?:{_SUMS}(?:sums?)?|meta4|txt)"
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
    text = decoded(data)
    listing = Listing()
    for reader in (_read_json, _read_metalink, _read_checksums, _read_links):
        if reader(text, url, listing):
            break
    else:
        raise NoListError("This is no list of files that can be read: it names no links and no checksums")
    return listing


def decoded(data: bytes) -> str:
    """The text of a file: UTF-8, unless a mark at its beginning says UTF-16, as Windows writes it.

    What cannot be read spoils no more than its own word.
    """
    return data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig", "replace")


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


def _plain(algorithm: str) -> str:
    """As `LENGTHS` has it: of ``SHA2-256``, as openssl writes it, ``sha-256`` and the like."""
    return re.sub("^sha2?-", "sha", algorithm.lower())


def _surest(known: Mapping[str, Digest]) -> Digest | None:
    """The best of the digests of a file, by their algorithms."""
    return next((known[algorithm] for algorithm in _SUREST if algorithm in known), None)


# -- Checksums, as sha256sum and its kin write them.


def _read_checksums(text: str, url: str, listing: Listing) -> bool:
    """Every line that is not empty or a comment says something of a file, or the only one is a digest."""
    lines = list(_lines(text))
    said = [_checksum(line) for line in lines]
    if None in said and (digits := _lone(lines, url)):
        said = [_checksum(f"{digits}  -")]
    if None in said or not any(digest for digest, _ in filter(None, said)):
        return False
    found = _by_path(filter(None, said), listing)
    if len(found) == 1:
        found = {_its_place(path, url): digest for path, digest in found.items()}
    for path, digest in found.items():
        listing.add(partial(_checked, url, path, digest))
    return True


def _lines(text: str) -> Iterator[str]:
    """Those that say something; of a signed text (RFC 9580, section 7) what was signed."""
    before, mark, signed = text.partition(_SIGNED)
    lines = text.splitlines()
    if mark and not before.strip():
        lines = signed.partition(_SIGNATURE)[0].splitlines()[1:]
        lines = [line.removeprefix("- ") for line in dropwhile(str.strip, lines)]
    return (line for line in map(str.strip, lines) if line and line[0] not in "#;")


def _lone(lines: list[str], url: str) -> str:
    """The digest of a list that is called after its file: alone, or as Windows' tools tell it."""
    is_told = len(lines) <= FEW and re.fullmatch(rf"(?i).*\.{_SUMS}(?:sums?)?", names.from_url(url))
    if not (is_told or (len(lines) == 1 and re.fullmatch(_LONE, lines[0]))):
        return ""
    found = re.findall(rf"(?<!\w){_HEX}(?!\w)", "\n".join(lines))
    return found[0] if len(found) == 1 and _named_after(url) and "<" not in "".join(lines) else ""


def _checksum(line: str) -> tuple[Digest | None, str] | None:
    """A digest, if its kind is known, and the path that it is of. None: the line says nothing of a file."""
    by_length = {length: algorithm for algorithm, length in LENGTHS.items()}
    if match := re.fullmatch(_GNU, line):
        escaped, digits, path = match.groups()
        algorithm = by_length.get(len(digits), "")
    elif match := re.fullmatch(_BSD, line, re.IGNORECASE):
        escaped, algorithm, path, digits = match.groups()
    elif match := re.fullmatch(_OTHER, line):
        return None, _unescaped(match[1], "")
    else:
        return None
    return _digest(_plain(algorithm), digits), _unescaped(path, escaped)


def _unescaped(path: str, escaped: str) -> str:
    """A path as it is on the disk; a backslash that is not escaped was written on Windows."""
    if not escaped:
        return path.replace("\\", "/")
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), path)


def _by_path(said: Iterable[tuple[Digest | None, str]], listing: Listing) -> dict[str, Digest | None]:
    """Each file once, with the best of its digests."""
    found: dict[str, dict[str, Digest]] = {}
    for digest, path in said:
        known = found.setdefault(path, {})
        if digest and known.setdefault(digest.algorithm, digest) != digest:
            what = f"{names.shown(path)} is in the list twice, with two checksums; the first one counts"
            listing.problems.append(what)
    return {path: _surest(known) for path, known in found.items()}


def _named_after(url: str) -> str:
    """Of which file a list tells that is called after it: ``rock.zip.sha256``."""
    return names.from_url(url).rpartition(".")[0]


def _its_place(path: str, url: str) -> str:
    """Where a list's only file lies: beside it if it has its name, or none (``-``), wherever it was made."""
    named = _named_after(url)
    return named if named and re.split(r"[/\\]", path)[-1] in (named, "-") else path


def _checked(url: str, path: str, digest: Digest | None) -> Entry:
    """The file beside the list, whatever characters its name has; or where a link in its place leads.

    Raises TransferError where nothing would be checked.
    """
    if not digest:
        raise TransferError(f"The list has no checksum that can be read for {names.shown(path)}")
    if re.match("(?i)https?://", path):
        return _entry(path, names.from_url(path) or names.FALLBACK, digest=digest)
    return _entry(_join(url, "./" + path.removeprefix("./"), is_path=True), path, digest=digest)


# -- Metalink 4 (RFC 5854).


def _read_metalink(text: str, url: str, listing: Listing) -> bool:
    if _METALINK[1:-1] not in text:
        return False
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # nobody needs them, and they can be bombs
        raise NoListError("This Metalink has a document type of its own, which cannot be read safely")
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(re.sub(r"\A\s*<\?xml[^>]*\?>", "", text))
    except ElementTree.ParseError:
        raise NoListError("This Metalink is damaged. Get it again") from None
    for file in root.iter(f"{_METALINK}file"):
        listing.add(partial(_metalink_file, file, url))
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
    hashes = file.findall(f"{_METALINK}hash")
    told = (_digest(_plain(each.get("type", "")), each.text or "") for each in hashes)
    return _surest({digest.algorithm: digest for digest in filter(None, told)})


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
    version = _get(_get(said, "api_versions", dict), "v1", dict)
    for page in (version, *_get(said, "pages", list)):
        listing.follow(partial(_page, page, root))
    for file in _get(said, "files", list):
        listing.add(partial(_asset_file, file, root))
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


def _get(said: Any, key: str, kind: Callable[[], Any]) -> Any:
    """What is said there, if it is of that kind; else an empty one."""
    found = said.get(key) if isinstance(said, dict) else None
    return found if type(found) is kind else kind()


# -- A plain text of links.


def _read_links(text: str, url: str, listing: Listing) -> bool:
    """Nothing but links, one a line or many, and comments. A text that mentions some is no list."""
    words = " ".join(re.sub(r"\s#(\s.*)?$", "", line) for line in _lines(text))
    if not all(re.match(_IS_LINK, word) for word in words.split()):
        return False
    links, listing.problems = names.parse_links(words)
    for link in links:
        path = names.from_url(link.url) or names.FALLBACK
        listing.add(partial(Entry, url=link.url, path=path, digest=link.digest))
    return bool(links)
