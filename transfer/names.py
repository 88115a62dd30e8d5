"""Links and file names: what may be fetched, how it is shown, and where it may be written.

Both come from strangers. A name made here is one component that stays in its folder on every
system; a text made here for people holds no user, password or query.
"""

from __future__ import annotations

import functools
import hashlib
import os.path
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, quote, unquote, unquote_to_bytes, urlsplit

from .digest import parse_fragment
from .job import Digest, TransferError

NAME_SIZE = 255  # bytes of UTF-8; what ext4, APFS and (in UTF-16 units, which are fewer) NTFS take
URL_LENGTH = 8192  # characters; servers take about as much (RFC 9110, section 4.1, asks for 8000)
LED_LENGTH = 1 << 16  # characters of a link that a server leads to: it knows what the next one takes
SHOWN_LENGTH = 200  # characters of a text that is no link, or of a link in a sentence
FALLBACK = "download"
"""The name where neither the server nor a link gives one."""
SIDECAR = ".json"
"""What a partial file's sidecar is called, after the name of the partial file."""
UNFINISHED = "~"
"""What a small file is called while it is written, after its own name."""
PART_TAIL = r"\.[0-9a-f]{8}\.part"
"""How a partial file's name ends: a regular expression."""


@dataclass(frozen=True, slots=True)
class Link:
    """One file to fetch."""

    url: str = field(repr=False)
    """Without fragment; with user, password and query, so it has no place in a log."""
    digest: Digest | None = None
    """What the link's fragment says about the content."""


# --- Links -------------------------------------------------------------------------------------

# What mail programs, web pages and RFC 3986, appendix C, put around links.
_AROUND_LINKS = (
    '<>"“”\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff'
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
# Regular expressions are compiled on first use: enabling the add-on must not pay for them.
_OWN = rf"(?i){PART_TAIL}(\.json~?)?\Z"  # partial files, sidecars, and those that are being written
_NOT_IN_LINKS = r"[\s\x00-\x20\x7f-\x9f\ud800-\udfff]"
_PLACE = r"(\[[0-9A-Fa-f:.]+(?:%[0-9A-Za-z_.~-]+)?\]|[^\[\]:]*)(?::([0-9]{0,5}))?"
_HOST = r"(?=.{1,254}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?"
# No user, query, escape, capital in the host or odd port: in most links there is nothing to be mended.
_BARE = (
    r"(?a)https?://(?=[^/]{1,250}/)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*"
    r"(?::(?:[1-5][0-9]|[1-9])[0-9]{0,3})?/[\w.~/-]*"
)
_LONE_PERCENT = r"%(?![0-9A-Fa-f]{2})"
_DOTS = r"(\.\.?)(?:/|(?=[?#])|\Z)"
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*:"
_LOGIN_SAFE = "%:!$&'()*+,;="
# What browsers leave raw, which is a little more than RFC 3986 allows: links may be signed as they are.
_PATH_SAFE = _LOGIN_SAFE + "@/[]|"
_QUERY_SAFE = _PATH_SAFE + "?\\^`{}"


def parse_links(text: str) -> tuple[list[Link], list[str]]:
    """Split a text at white space into links without duplicates, in their order.

    :return: the links, and a sentence for each entry that is none; those spoil no other.
    """
    links: dict[str, Link] = {}
    entries = list(read(text.split(), links))
    problems = [f"{shown(entry)[:SHOWN_LENGTH]}: {what}" for entry, _, what in entries if what]
    return list(links.values()), problems


def read(entries: Iterable[str], links: dict[str, Link]) -> Iterator[tuple[str, str, str]]:
    """Read one link out of each entry, and add it to `links`, by its URL.

    :return: each entry that is not empty, the URL that it stands for, or else what is wrong with it.
    """
    for entry in filter(None, (word.strip(_AROUND_LINKS) for word in entries)):
        try:
            link = _link(entry)
            links[link.url] = _merged(links.get(link.url), link)
            yield entry, link.url, ""
        except TransferError as error:
            yield entry, "", str(error)


def check(url: str) -> None:
    """See whether a link can be fetched, before anything is.

    :raises TransferError: it cannot; the sentence names neither user nor password nor query.
    """
    if _is_bare(url):
        return
    if not url:
        raise TransferError("This link is empty")
    if re.search(_NOT_IN_LINKS, url):
        raise TransferError("This link has a space or a control character in it")
    parts = _split(url)
    if parts.scheme not in ("http", "https"):
        raise TransferError(_wrong_scheme(url, parts))
    _place(parts)
    parse_fragment(parts.fragment)


def shown(url: str) -> str:
    """A link as people may see it: without user, password, query and fragment. Never raises.

    Characters that cannot be seen are percent-encoded, so it still leads to the same place.
    """
    if _PLAIN.fullmatch(url):
        return url.partition("?")[0]
    try:
        parts = _split(url)
        if not parts.netloc:
            return _shown_junk(url)
        if "@" in url:
            _place(parts)  # a broken one may be half a password that has "/", "?" or "#" in it
        text = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except TransferError:
        return _shown_junk(url)
    return "".join(map(_visible, text))


def quoted(url: str) -> str:
    """A link as it goes on the wire: all ASCII, its fragment dropped (RFC 3986, RFC 3987 3.1).

    Path and query keep their escapes, slashes and dots as they were written: a signature may be of
    just that. Only what may not stand raw is escaped, as browsers do it (WHATWG URL, section 1.3),
    and a ``%`` that begins no escape. User and password stay in it.

    :raises TransferError: it is too long, or its host or port cannot be read.
    """
    if _is_bare(url):
        return url
    parts = _split(url, LED_LENGTH)
    login, at, _ = parts.netloc.rpartition("@")
    netloc = _escaped(login, _LOGIN_SAFE) + at + _place(parts)
    path = _escaped(parts.path, _PATH_SAFE) or "/"
    query = "?" + _escaped(parts.query, _QUERY_SAFE) if "?" in url.partition("#")[0] else ""
    return f"{parts.scheme}://{netloc}{path}{query}"


def server(url: str) -> str:
    """The beginning of a link that was `quoted`, up to its path: scheme, user, password, host, port."""
    return "/".join(url.split("/", 3)[:3])


def origin(url: str) -> str:
    """Scheme and host of a link, with its port unless that is the scheme's own (RFC 3986, section 6.2.3).

    Raises as `quoted`.
    """
    scheme, _, place = server(quoted(url)).partition("://")
    own_port = ":80" if scheme == "http" else ":443"
    return f"{scheme}://{place.rpartition('@')[2].removesuffix(own_port)}"


def resolved(base: str, reference: str) -> str:
    """Where a reference leads from a link that was `quoted` (RFC 3986, section 5.2).

    Unlike `urllib.parse.urljoin` it keeps slashes and dots of both as they were written; only the
    dots that a relative path begins with are followed.
    """
    if re.match(_SCHEME, reference):
        return reference
    if reference.startswith("//"):
        return base.partition(":")[0] + ":" + reference
    root = server(base)
    if reference.startswith("/"):
        return root + reference
    page = base.partition("?")[0]
    if not reference or reference[0] in "?#":
        return (page if reference.startswith("?") else base) + reference
    folder = page.rpartition("/")[0]
    while dots := re.match(_DOTS, reference):
        reference = reference[dots.end() :]
        if dots[1] == ".." and folder != root:
            folder = folder.rpartition("/")[0]
    return f"{folder}/{reference}"


_LABEL = "[a-z](?:[a-z0-9-]{,30}[a-z0-9])?"
_PLAIN = re.compile(
    rf"https?://(?:{_LABEL}(?:\.{_LABEL}){{,5}}|[0-9]{{1,3}}(?:\.[0-9]{{1,3}}){{3}})"
    r"(?::(?:[1-9][0-9]{,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}))?/[!$%&'()*+,./:;=?@\w~-]{,2000}+",
    re.ASCII,
)
"""Links that need no closer look; most of ten thousand are."""


@functools.lru_cache(maxsize=64)  # of one link it is asked several times
def _is_bare(url: str) -> bool:
    """Whether a link is shown and sent as it stands."""
    return len(url) <= URL_LENGTH and re.fullmatch(_BARE, url) is not None


def _link(entry: str) -> Link:
    if _PLAIN.fullmatch(entry):
        return Link(entry)
    check(entry)
    url, _, fragment = entry.partition("#")
    return Link(url, parse_fragment(fragment))


def _merged(first: Link | None, second: Link) -> Link:
    if first is None or first.digest is None:
        return second
    if second.digest is not None and second.digest != first.digest:
        raise TransferError("This link is there twice, with two digests; the first one counts")
    return first


def _split(url: str, longest: int = URL_LENGTH) -> SplitResult:
    if len(url) > longest:
        raise TransferError(f"This link is longer than {longest} characters")
    try:
        return urlsplit(url)
    except ValueError:  # its message may quote the password
        raise TransferError("This link is broken: its server cannot be read") from None


def _wrong_scheme(url: str, parts: SplitResult) -> str:
    if not parts.scheme or "." in parts.scheme or ("@" in url and not parts.netloc):
        # "example.com:80/file" and "user:password@example.com/file" have no scheme, whatever RFC 3986 says.
        return "A link begins with “https://” or “http://”, this one does not"
    return f"Only http and https links can be downloaded, this one starts with “{parts.scheme}:”"


def _place(parts: SplitResult) -> str:
    """Host and port, in ASCII."""
    match = re.fullmatch(_PLACE, parts.netloc.rpartition("@")[2])
    if match is None or (match[2] and not 0 < int(match[2]) < 65536):
        raise TransferError("This link is broken: its server or its port cannot be read")
    if not match[1]:
        raise TransferError("This link names no server")
    return _ascii_host(match[1]) + (f":{int(match[2])}" if match[2] else "")


def _ascii_host(host: str) -> str:
    if not host.isascii():
        # Python's own codec is IDNA 2003: it would send "ß" to another server than browsers and requests.
        import idna  # comes with requests; a slow import, for few links

        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except UnicodeError:
            raise TransferError("This link is broken: there can be no server of that name") from None
    host = host.lower()
    if not (_is_address(host) if host.startswith("[") else re.fullmatch(_HOST, host)):
        raise TransferError("This link is broken: there can be no server of that name")
    return host


def _is_address(host: str) -> bool:
    """Whether an IPv6 address stands in the brackets. A zone (RFC 6874) would be one machine's own."""
    from ipaddress import AddressValueError, IPv6Address  # for few links, too

    if "%" in host:
        raise TransferError("This link has a “%” in its address, which leads nowhere from another machine")
    try:
        IPv6Address(host[1:-1])
    except AddressValueError:
        return False
    return True


def _escaped(text: str, safe: str) -> str:
    return quote(re.sub(_LONE_PERCENT, "%25", text), safe=safe, errors="replace")


def _shown_junk(text: str) -> str:
    if "@" in text:
        return "(a text that is not shown, it may hold a password)"
    return "".join(map(_visible, re.split(r"[?#]", text)[0][:SHOWN_LENGTH]))


def _visible(character: str) -> str:
    if character.isprintable() and character != " ":
        return character
    return quote(character, safe="", errors="replace")


# --- Names -------------------------------------------------------------------------------------

_DROPPED = (  # controls, line ends, and what is invisible or turns the text round
    r"[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f]"
)
_FORBIDDEN = r'[<>:"|?*/\\\ud800-\udfff]'  # Windows' (and everyone's), and no Unicode
_STAND_IN = "_"
# Joiners are needed within words (Persian, Hindi, emoji), but say nothing at an end.
_SPACES = (
    " \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
    "\u200c\u200d"
)
_NOT_FIRST = _SPACES + ".-"
_NOT_LAST = _SPACES + "."
_RESERVED = frozenset(
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"]
    + [f"{port}{digit}" for port in ("COM", "LPT") for digit in "123456789¹²³"]
)
_PLAIN_DEVICE = r"(?i:CON|PRN|AUX|NUL|(?:COM|LPT)[0-9])(?:\.|\Z)"
_SAFE = rf"(?!{_PLAIN_DEVICE})[A-Za-z0-9][A-Za-z0-9_-]{{0,199}}(?:\.[A-Za-z0-9]{{1,20}})?"
_EXTENSION = r"(?is)(?<=.)(?:\.tar)?\.[^.\s]{1,20}\Z"
_TOKEN = r"[\w!#$%&'*+.^`|~-]+"
_QUOTED = r'"(?:[^"\\]|\\.)*"(?=[\s,]*(?:;|\Z))'
# Some servers forget the quotes, or to escape those within: up to what can be the next parameter.
_LENIENT = rf"[^;]*(?:;(?!\s*{_TOKEN}\s*=)[^;]*)*"
_PARAMETER = rf"(?as)(?:^|;)\s*({_TOKEN})\s*=\s*({_QUOTED}|{_LENIENT})"
_ENCODED_WORD = r"(?i)=\?[\w-]+(?:\*[\w-]*)?\?[bq]\?[^?]*\?="  # RFC 2047
# RFC 8187 asks for UTF-8 alone; browsers take whatever pages may be written in.
_CHARSETS = r"(?i)utf-?8|(?:iso-|windows|koi8|gb|big5|shift_jis|euc-|us-)[\w-]*"

_NAMED_ALIKE = {
    "application": "json pdf wasm x-tar x-xz x-zip xml zip",
    "audio": "flac ogg wav x-wav",
    "image": "avif bmp exr gif heic jxl png webp x-exr x-tga",
    "model": "3mf mtl obj stl",
    "text": "css csv html xml",
    "video": "mp4 webm",
}
"""Types whose files have the type's own word as extension, without its ``x-``."""
_EXTENSIONS = {
    f"{kind}/{word}": "." + word.removeprefix("x-")
    for kind, words in _NAMED_ALIKE.items()
    for word in words.split()
} | {
    "application/epub+zip": ".epub",
    "application/gzip": ".gz",
    "application/msword": ".doc",
    "application/postscript": ".eps",
    "application/vnd.rar": ".rar",
    "application/x-7z-compressed": ".7z",
    "application/x-blender": ".blend",
    "application/x-bzip2": ".bz2",
    "application/x-gzip": ".gz",
    "application/x-rar-compressed": ".rar",
    "application/x-zip-compressed": ".zip",
    "application/xhtml+xml": ".html",
    "application/zstd": ".zst",
    "audio/mpeg": ".mp3",
    "image/jpeg": ".jpg",
    "image/svg+xml": ".svg",
    "image/tiff": ".tif",
    "image/vnd.adobe.photoshop": ".psd",
    "image/vnd.radiance": ".hdr",
    "model/gltf+json": ".gltf",
    "model/gltf-binary": ".glb",
    "model/vnd.collada+xml": ".dae",
    "model/vnd.usdz+zip": ".usdz",
    "model/x.stl-ascii": ".stl",
    "model/x.stl-binary": ".stl",
    "text/plain": ".txt",
    "text/x-python": ".py",
    "video/quicktime": ".mov",
    "video/x-matroska": ".mkv",
}
"""Extensions by content type. Not :mod:`mimetypes`, which reads the system's files."""
_FILE_EXTENSION = r"(?is).*[^.\s]\.{1,2}([a-z][a-z0-9]{0,14}|3(?:dm|ds|gp|mf)|7z)\Z"  # not a version
_SCRIPT = "action ashx asmx asp aspx axd cfm cgi dll do fcgi jsf jsp jspx php php3 php4 php5 php7 phtml pl"
_SCRIPTS = frozenset(_SCRIPT.split())
"""Extensions that say nothing about the file which such a program sends."""
_NAMING = "(?i)file|name|file[_-]?name"
"""What programs call the file that they shall send."""


def choose(*, disposition: str, asked: str, final: str, content_type: str) -> str:
    """The name of a download; never empty, always safe, and not that of a partial file of ours.

    :param disposition: the ``Content-Disposition`` header, empty if there was none.
    :param asked: the URL that was asked for.
    :param final: the URL that answered, after redirects.
    :param content_type: the header, empty if there was none.
    """
    found = (find(link) for find in (_file_in_path, _file_in_query) for link in (asked, final))
    name = disposition and from_disposition(disposition)
    name = name or next(filter(None, found), "") or _completed(from_url(asked), content_type)
    return _fit(name + _STAND_IN, NAME_SIZE) if re.search(_OWN, name) else name


def extension_in(url: str) -> str:
    """The extension of the file that a link names, in lower case; empty if it names none, or a script."""
    return _file_extension(_file_in_path(url))


@functools.lru_cache(maxsize=64)  # likewise
def _file_extension(name: str) -> str:
    """Without its dot; empty for a script's, which says nothing about the file that it sends."""
    match = re.match(_FILE_EXTENSION, name)
    extension = match[1].lower() if match else ""
    return "" if extension in _SCRIPTS else extension


def _file_in_path(url: str) -> str:
    """The last path segment, if it is the name of a file; parameters (RFC 3986, section 3.3) may follow."""
    name = from_url(url)
    if _file_extension(name):
        return name
    name = safe(name.partition(";")[0])
    return name if _file_extension(name) else ""


def _file_in_query(url: str) -> str:
    """The first value of a query that is the name of a file."""
    try:
        fields = parse_qsl(_split(url, LED_LENGTH).query, errors="strict")
    except (ValueError, TransferError):
        return ""
    values = (_last_component(value) for key, value in fields if re.fullmatch(_NAMING, key))
    return next(filter(_file_extension, values), "")


def _completed(name: str, content_type: str) -> str:
    """A name that is none of a file's, with an extension by the type; that of a script gives way to it."""
    extension = _EXTENSIONS.get(content_type.partition(";")[0].strip().lower(), "")
    if extension and re.match(_FILE_EXTENSION, name):
        name = safe(name.rpartition(".")[0])
    return _fit((name or FALLBACK) + extension, NAME_SIZE)


def safe(name: str) -> str:
    """Make a name that stays in its folder and can be written on every system.

    One component in NFC of at most `NAME_SIZE` bytes: no separators, no control characters, none of
    the names and characters Windows keeps for itself, no dot, dash or space first, no dot or space
    last. Empty if nothing is left. Safe names stay as they are.
    """
    if not name or re.fullmatch(_SAFE, name):
        return name
    if len(name) > 2 * NAME_SIZE:  # normalizing takes quadratic time, and the middle is cut anyway
        name = name[:NAME_SIZE] + name[-NAME_SIZE:]
    name = re.sub(_DROPPED, "", unicodedata.normalize("NFC", name))
    # What was dropped may have kept two characters apart that are one.
    name = unicodedata.normalize("NFC", re.sub(_FORBIDDEN, _STAND_IN, name))
    name = _fit(name.lstrip(_NOT_FIRST).rstrip(_NOT_LAST), NAME_SIZE)
    if _is_reserved(name):
        name = _fit(_STAND_IN + name, NAME_SIZE)
    return name if name.strip(_STAND_IN) else ""


def from_disposition(header: str) -> str:
    """The name in a ``Content-Disposition`` header (RFC 6266; ``filename*``: RFC 8187).

    Like browsers it takes only the last component of a path, is lenient about quotes, and reads what
    mail libraries write (RFC 2047), which has no place there. Never raises.

    :param header: as `http.client` gives it: bytes read as ISO-8859-1, even if they were UTF-8.
    :return: a safe name, or an empty string.
    """
    parameters: dict[str, str] = {}
    for match in re.finditer(_PARAMETER, _utf8(header)):
        parameters.setdefault(match[1].lower(), match[2].strip())
    extended = _extended_value(parameters.get("filename*", ""))
    return _last_component(extended) or _last_component(_value(parameters.get("filename", "")))


@functools.lru_cache(maxsize=64)  # likewise
def from_url(url: str) -> str:
    """The last path segment of a URL, decoded and safe; empty if there is none. Never raises."""
    try:
        path = url.partition("?")[0] if _PLAIN.fullmatch(url) else _split(url, LED_LENGTH).path
    except TransferError:
        return ""
    try:
        segment = path.rpartition("/")[2]
        return safe(unquote(segment, errors="strict"))
    except UnicodeError:
        return safe(segment)  # escapes of an unknown encoding are better than wrong letters


def numbered(name: str, number: int) -> str:
    """``name (1).ext`` for a safe name, still of at most `NAME_SIZE` bytes."""
    stem, extension = _parts(name)
    tail = f" ({number}){extension}"
    return _cut(stem, NAME_SIZE - _size(tail)) + tail


def part_name(url: str, directory: str) -> str:
    """What a partial file is called: the same for the same URL (query included) and folder.

    Its sidecar (`SIDECAR`) fits within `NAME_SIZE` bytes too, also while it is written (`UNFINISHED`).

    :param directory: an absolute path.
    """
    tail = part_tail(url, directory)
    return _fit(from_url(url) or FALLBACK, NAME_SIZE - _size(tail + SIDECAR + UNFINISHED)) + tail


def part_tail(url: str, directory: str) -> str:
    """How that ends: it tells the link and the folder, and is cheaper than the whole."""
    whole = url.partition("#")[0] + "\0" + _folder(directory)
    mark = hashlib.sha256(whole.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()[:8]
    return f".{mark}.part"


@functools.lru_cache(maxsize=16)
def _folder(directory: str) -> str:
    """Where a folder goes by several names, as on Windows, they are one."""
    return os.path.normcase(os.path.normpath(directory))


def part_tails(names: Iterable[str]) -> set[str]:
    """How those of them end that may be partial files."""
    return {name[-len(".01234567.part") :] for name in names if name.endswith(".part")}


def parts_among(names: Iterable[str], urls: Iterable[str], directory: str) -> set[str]:
    """Which of these names are those of some of these URLs' partial files. Cheap for thousands of URLs."""
    found = set(names)
    tails = part_tails(found)
    likely = (url for url in urls if part_tail(url, directory) in tails) if tails else ()
    return found.intersection([part_name(url, directory) for url in likely])


def _is_reserved(name: str) -> bool:
    """Whether Windows takes it for a device, which it does with any extension too."""
    return name.partition(".")[0].rstrip(" ").upper() in _RESERVED


def _parts(name: str) -> tuple[str, str]:
    """Stem and extension, of at most 20 characters; ``.tar.gz`` and its kin are one."""
    match = re.search(_EXTENSION, name)
    return (name[: match.start()], match[0]) if match else (name, "")


def _fit(name: str, size: int) -> str:
    """Shorten a name to `size` bytes, from the end of its stem."""
    if _size(name) <= size:
        return name
    stem, extension = _parts(name)
    return _cut(stem, size - _size(extension)) + extension


def _cut(text: str, size: int) -> str:
    """At most `size` bytes of a text, without half a character or an open end."""
    if _size(text) <= size:
        return text
    return text.encode()[:size].decode(errors="ignore").rstrip(_NOT_LAST)


def _size(text: str) -> int:
    return len(text.encode())


def _utf8(header: str) -> str:
    """The header as the server meant it: most that send more than ASCII send UTF-8."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeError:
        return header


def _value(text: str) -> str:
    """A token or a quoted-string (RFC 9110, section 5.6.4)."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = re.sub(r"(?s)\\(.)", r"\1", text[1:-1])
    elif len(text) > 1 and text[0] == text[-1] == "'":  # no quotes by the RFC, but meant so
        text = text[1:-1]
    return (_decoded(text) if re.search(_ENCODED_WORD, text) else text).strip('"')


def _decoded(text: str) -> str:
    """What encoded words stand for (RFC 2047, section 2); empty if they cannot be read."""
    from email.errors import HeaderParseError
    from email.header import decode_header  # for few links

    try:
        parts: list[tuple[bytes, str | None]] = decode_header(text)
        texts = [
            _text(data, charset.partition("*")[0]) if charset else data.decode("raw-unicode-escape")
            for data, charset in parts
        ]
    except (HeaderParseError, ValueError):
        return ""
    return "".join(texts) if all(texts) else ""


def _extended_value(text: str) -> str:
    """``charset'language'percent-encoded`` (RFC 8187, section 3.2); empty if it is not that."""
    charset, *rest = _value(text).split("'", 2)
    return _text(unquote_to_bytes(rest[1].encode(errors="replace")), charset) if len(rest) == 2 else ""


def _text(data: bytes, charset: str) -> str:
    """Empty if it cannot be read."""
    if not re.fullmatch(_CHARSETS, charset):
        return ""
    try:
        return data.decode(charset)
    except (UnicodeError, LookupError):
        return ""


def _last_component(path: str) -> str:
    return safe(re.split(r"[/\\]", path)[-1])
