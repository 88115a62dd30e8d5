"""Links as people have them: every http(s) link in a text, whatever stands around it.

For what people paste, type and drop; scripts give exact links, which `names.parse_links` reads.
Knows no Blender. Takes time in proportion to the text, however hostile it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from ..transfer import lists, names
from ..transfer.job import TransferError

NOT_FOUND = "No link found. Copy a link that begins with https://"
LINK_LENGTH = 8192  # characters; a longer one cannot be downloaded
WRAPPED_FROM = 60  # characters of a line that a mail program may have broken
SOFT_BREAKS = range(72, 77)  # characters of a line that quoted-printable breaks (RFC 2045: at most 76)
HTTPS = "https://"
LIST_SIZE = 10 << 20  # bytes of a list that are read
FILE_SIZE = 4 << 20  # bytes of such a file that are looked at

# Regular expressions are compiled on first use: enabling the add-on must not pay for them.
_SCHEME = r"(?i)https?://"
_WITH_HOST = r"(?i)https?://(?:[^/?#@]*+@)?[\w\[]"
# What no link and no name of a host has in it.
_RUN = '[^\\s\\x00-\\x20\\x7f-\\x9f\\ud800-\\udfff<>"`“”„‟«»‹›‘‚…•。，、；：！？｡､]+'  # noqa: RUF001
_INVISIBLE = "[\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]"
_LONE_JOINER = r"(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"  # no letters to join
_BRACKETS = dict(zip(")]}）］｝＞」』】〉》〕〗", "([{（［｛＜「『【〈《〔〖", strict=True))  # noqa: RUF001
_BRACKET = r"[()\[\]{}（）［］｛｝＜＞「」『』【】〈〉《》〔〕〖〗]"  # noqa: RUF001
_ENDS = {"'": r"'(?!\w)", "‘": "’", "|": r"\|", "[": r"\|", "<": r"\|", ",": ",", ";": ";"}  # noqa: RUF001
"""What ends a link behind this. In Slack's and Jira's brackets a name follows it, in a table a value."""
_EMPHASIS = "_*~"  # Markdown's, on both sides of a link
_TRAILING = frozenset(".,;:!?'*|\\")
_LINK_WITHIN = "/?=:&#%"  # before a second link that is a part of the first, as web.archive.org has it
_EXTENSIONS = (
    "7z|abc|avif|blend|bmp|bz2|csv|doc|docx|exe|exr|fbx|gif|glb|gltf|gz|hdr|html?|jpe?g|json|jxl|mkv|mp[34]"
    "|mtl|obj|ogg|otf|pdf|php|ply|png|psd|rar|stl|svg|tar|tga|tgz|tiff?|ttf|txt|usd[acz]?|vdb|wav|webm|webp"
    "|xlsx?|xml|xz|ya?ml|zip|zst"
)
# The name of a file ends, and something else follows.
_COMPLETE = rf"(?i)\.(?:{_EXTENSIONS})(?=[,|]|;(?!\w+=)|\((?!\S{{0,99}}\))|[^\x00-\x7f])"
_CODE = r"c|cpp|h|js|md|pl|py|rs|sh|ts"  # some are countries, but `main.py:12` is a line of a file
_WORD = (  # a host, if it is one, its port, and a slash
    r"(?<![\w.@/\\:~$%&#?+-])(?://)?((?i:(www\.)?)(?:[\w-]{1,63}+\.){0,9}[\w-]{1,63}+)(?(2)|(?=[:/]))"
    r"(?::(\d{1,5})(?![\w:]|\.\w))?(/?)"
)
_HAS_HOST = r"(?i)[\w-][:/]|www\."  # what a scheme and a `_WORD` have, and seldom a text's other words
_AT_HOME = r"(?i)(?:[\w-]+|[\d.]+|[\w.-]+\.local(?:host)?)(?![\w.-])"
"""Hosts that seldom have a certificate: browsers, too, ask them by plain http where nothing is said."""
_IN_LINK = r"[\w%~+.,;:@!$&'()*=/?#\[\]-]"
_OF_LINK = r"[./?&=%]\w"  # seldom in a word
_SIGNATURE = r"(?m)^-- ?$"  # before whatever somebody's mails all end with (RFC 3676, section 4.3)
_GOES_ON = r"…(?:[^\s…<]*[/.]\w|</a>)"  # a link that was shortened to be shown: nobody knows the whole
_HOME = r"[^/?#:]+/?"  # somebody's home page, and no file
_MAIL_QUOTE = r"\s{0,3}(?:>\s?)+"
_ENCODED = r"=[0-9A-F]{2}"  # quoted-printable (RFC 2045, section 6.7): all but lines' ends is so
_NOT_ENCODED = r"=(?![0-9A-F]{2}|\r?\n|\Z)|=\r?\n(?:[Hh][Tt]{2}[Pp]|\r?\n|\Z)"
_ESCAPED = r"(?<!\\)\\+(?:u([0-9a-fA-F]{4})|([nrt])|([^\w\s\\]|_))"  # JSON's, Markdown's, LaTeX's
_ENTITY = r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});"
_NAMES = (
    r"""(?i)<!DOCTYPE[^<>]*+|(?<![\w:-])xmlns[\w:-]*+\s*+=\s*+(?:"[^"<>]*+"|'[^'<>]*+')"""
    r"""|(?<![\w?&;])(?:referr?er|origin(?=\W{1,9}https?://[^/\s"']*+["']))"""
    r"""["'^\s]{0,4}[:=]["'^\s]{0,4}https?:[^\s"']*+"""
)
"""What looks like links and names only where something comes from: in a page's or a drawing's source, and
in the command that a browser copies for a download."""
_SHORTCUT = r"(?m)^\ufeff?[ \t]*\[(?:InternetShortcut|Desktop Entry)\]"  # Windows', Linux'
_SHORTCUTS_LINK = r"(?mi)^[ \t]*URL(?:\[[^\]\n]*\])?[ \t]*=(.*)$"  # not the icon's
_BARE = (
    r"(?i)(?=[!-~]+\Z)https?://(?!.*(?:[^/?=:&#%]https?:|&amp;|,[\w-]+(?:\.[\w-]+)+/))"
    r"[^<>\"'`\\(){}\[\]]*[^<>\"'`\\(){}\[\],;.:!?*&|]"
)
"""A link between white space with nothing that may be a sentence's, a list's or a language's around it."""
_PLAIN = r"(?:https?://[a-z0-9.-]++(?::\d++)?/[\w./%=&~?+#-]*+(?<![.?&])(?:\s++|\Z))++"
"""Nothing but such links, of letters that need no look at each: most of ten thousand are."""


def parse(text: str) -> tuple[list[names.Link], list[str]]:
    """The links of what a person wrote, pasted or dropped, and a sentence for each that cannot be used."""
    found = find_links(text)
    return names.parse_links("\n".join(found)) if found or not text.strip() else ([], [NOT_FOUND])


def find_links(text: str) -> list[str]:
    """Every http(s) link of a text, once each, in their order; with its query and its fragment."""
    words = text.split()
    if words and (_are_plain(text) or all(re.fullmatch(_BARE, word) for word in words)):
        return list(dict.fromkeys(words))  # a list that needs no reading: odd links stay as they are
    if re.search(_SHORTCUT, text):
        text = "\n".join(re.findall(_SHORTCUTS_LINK, text))
    text = _plain(_unwrapped(text))
    signed = _until(text, _SIGNATURE, 0, len(text))
    links: dict[str, None] = {}
    end = 0  # of the last link
    has_host = re.compile(_HAS_HOST).search
    for run in re.finditer(_RUN, text):
        if not has_host(run[0]):
            continue
        for piece in _pieces(run):
            spans = list(_spans(text, end, *piece))
            for start, end in spans:
                link = text[start:end]
                if re.compile(_GOES_ON).match(text, end) or (
                    links and start > signed and re.fullmatch(_HOME, link)
                ):
                    continue
                link = link if "://" in link[:8] else _with_scheme(link.lstrip("/"))
                if re.match(_WITH_HOST, link):  # whatever was cut off
                    links[link] = None
    return list(links)


@lru_cache(maxsize=4)
def count_links(text: str) -> int:
    """How many downloads the links of a text are. Cheap while the text stays the same."""
    return len({link.partition("#")[0] for link in find_links(text)})


@lru_cache(maxsize=4)
def names_list(text: str) -> bool:
    """Whether a text has a link to a list of files, by its name. A .txt may be one, or be wanted itself."""
    return any(lists.is_list(link) and not link.lower().endswith(".txt") for link in find_links(text))


def add_links(text: str, more: str) -> str:
    """A text of links with those of another text that it does not have yet."""
    have = set(find_links(text))
    return " ".join(filter(None, [text.strip(), *(link for link in find_links(more) if link not in have)]))


def plain_links(text: str) -> list[str]:
    """What `find_links` finds, where it is quick: no two of them are the same download. Else nothing."""
    return list(dict.fromkeys(text.split())) if "#" not in text and _are_plain(text) else []


def _are_plain(text: str) -> bool:
    return re.compile(_PLAIN, re.ASCII).fullmatch(text.strip()) is not None


# -- Where links begin and end.


def _pieces(run: re.Match[str]) -> Iterator[tuple[int, int]]:
    """What stands together, cut where another link begins."""
    start, is_link = run.start(), False
    for scheme in re.finditer(_SCHEME, run[0]):
        at = run.start() + scheme.start()
        if is_link and run.string[at - 1] in _LINK_WITHIN:
            continue
        yield start, at
        start, is_link = at, True
    yield start, run.end()


def _spans(text: str, before: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The links in a piece; `before` is where the last link ended."""
    has_scheme = re.compile(_WITH_HOST).match(text, start, stop)
    if has_scheme:
        end = _end(text, before, start, stop)
        yield start, end
        if text[start - 1 : start] in ("<", "[", "("):  # what follows is this link's name
            return
        before = start = end
    for word in re.compile(_WORD).finditer(text, start, stop):
        if word.start() >= before and _is_host(word):
            end = _end(text, before, word.start(), stop)
            yield word.start(), end
            before = end


def _is_host(word: re.Match[str]) -> bool:
    """Whether a link without a scheme begins here: no name of a file, number, time or mail address."""
    labels, port, slash = word[1].lower().split("."), word[3] or "", word[4]
    after = word.string[word.end() : word.end() + 3]
    last = labels[-1]
    if last.isdecimal():
        is_address = len(labels) == 4 and all(part.isdecimal() and int(part) < 256 for part in labels)
        return is_address and bool(port or (slash and not re.match(r"\d{1,2}\b", after)))
    if len(labels) == 1:
        return bool(slash and (last == "localhost" or (len(port) >= 4 and after[:1].isalpha()))) or (
            last == "localhost" and bool(port)
        )
    if not re.fullmatch(r"[^\W\d_]{2,24}|xn--[\w-]+", last) or re.fullmatch(_EXTENSIONS, last):
        return False
    if labels[0] == "www" and len(labels) > 2:
        return after[:1] != "@"
    return bool((slash and last != "js") or (len(port) >= 2 and not re.fullmatch(_CODE, last)))


def _end(text: str, before: int, start: int, stop: int) -> int:
    """Where a link ends that begins at `start`: what belongs to it stays, what surrounds it goes."""
    gap = text[before:start]
    opener = gap[-1:]
    if opener in _ENDS and not (gap in (",", ";") and before):  # those between two links are no table's
        stop = _until(text, _ENDS[opener], start, stop)
    stop = _until(text, r"\[/", start, stop)  # BBCode
    path_end = _until(text, "[?#]", start, stop)
    if whole := re.compile(_COMPLETE).search(text, start, path_end + 1):
        stop = whole.end()
    stop, closers = _balanced(text, start, stop, is_enclosed=opener == "(" or gap.count("(") > gap.count(")"))
    while stop > start and (
        text[stop - 1] in _TRAILING
        or stop - 1 in closers
        or (opener in _EMPHASIS and text[stop - 1] == opener)
        or _is_foreign_punctuation(text[stop - 1])
    ):
        stop -= 1
    return stop


def _with_scheme(host: str) -> str:
    return f"http://{host}" if re.match(_AT_HOME, host) else HTTPS + host


def _until(text: str, mark: str, start: int, stop: int) -> int:
    found = re.compile(mark).search(text, start, stop)
    return found.start() if found else stop


def _balanced(text: str, start: int, stop: int, *, is_enclosed: bool) -> tuple[int, set[int]]:
    """Up to the bracket that closes one outside of the link, and the round ones that may do so.

    Round ones may stand raw in a link (RFC 3986, section 2.2), so elsewhere than at the end they
    close only where one was opened before the link.
    """
    opened: list[re.Match[str]] = []
    closers: set[int] = set()
    for bracket in re.compile(_BRACKET).finditer(text, start, stop):
        opener = _BRACKETS.get(bracket[0])
        if opener is None:
            opened.append(bracket)
        elif opened and opened[-1][0] == opener:
            opened.pop()
        elif bracket[0] == ")" and not is_enclosed:
            closers.add(bracket.start())
        else:
            return bracket.start(), closers
    cut = [bracket.start() for bracket in opened if bracket[0] != "("]
    return min([stop, *cut]), closers


def _is_foreign_punctuation(character: str) -> bool:
    return character > "\x7f" and unicodedata.category(character)[0] == "P"


# -- The text without what is only its dress.


def _plain(text: str) -> str:
    """Escapes undone, what cannot be seen and what links are called left out."""
    import html

    if re.match(r'\s*curl [-\w ]*\^?"', text):  # as browsers on Windows copy a download
        text = re.sub(r"\^(.)", r"\1", text)
    text = re.sub(_ESCAPED, _unescaped, text)
    text = re.sub(_ENTITY, lambda entity: html.unescape(entity[0]), text)
    text = re.sub(_NAMES, " ", text)
    text = re.sub(rf"(?i){_INVISIBLE}(?=https?:)", " ", text)
    text = re.sub(_LONE_JOINER, "", re.sub(_INVISIBLE, "", text))
    text = re.sub(r"\[[^\[\]]*+\]\((?=\s{0,9}<?https?:)", "(", text)
    text = re.sub(r"(?i)(\[url=[^\[\]]*+\])[^\[\]]*+(?=\[/url)", r"\1", text)
    return re.sub(r"(?i)(<a\s[^<>]*+>)[^<>]*+(?=</a)", _without_name, text)


def _unescaped(escape: re.Match[str]) -> str:
    code, space, character = escape.groups()
    return chr(int(code, 16)) if code else " " if space else str(character)


def _without_name(anchor: re.Match[str]) -> str:
    return anchor[1] if "http" in anchor[1].lower() else anchor[0]


def _unwrapped(text: str) -> str:
    """With links in one piece that a mail program or a page broke over lines."""
    if re.search(r"=\r?\n", text) and re.search(_ENCODED, text) and not re.search(_NOT_ENCODED, text):
        import quopri

        text = quopri.decodestring(text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
    lines: list[str] = []
    without_quote = re.compile(rf"^{_MAIL_QUOTE}").sub
    for line in text.splitlines():
        line = without_quote("", line)
        if lines and _goes_on(lines[-1], line):
            lines[-1] = lines[-1].rstrip().removesuffix("=") + line.lstrip()
        else:
            lines.append(line)
    text = "\n".join(lines)
    # RFC 3986, appendix C
    text = re.sub(r"(?i)<(?:URL:)?https?://[^<>]*+>", lambda found: _in_one_line(found[0]), text)
    return re.sub(r"""(?i)\b((?:href|src)\s*+=\s*+)("[^"<>]*+"|'[^'<>]*+')""", _attribute, text)


def _attribute(attribute: re.Match[str]) -> str:
    """Of a page, whose links may have spaces in them: browsers write them as they are sent."""
    value = _in_one_line(attribute[2])
    return attribute[1] + value[0] + value[1:-1].strip().replace(" ", "%20") + value[-1]


def _in_one_line(quoted: str) -> str:
    is_one = len(re.findall(_SCHEME, quoted)) == 1
    return re.sub(r"[ \t]*+\n[ \t]*+", "", quoted) if is_one else quoted


def _goes_on(line: str, next_line: str) -> bool:
    """Whether the link that ends a line has its rest on the next one."""
    if "://" not in line:
        return False
    link, rest = line.rpartition(" ")[2], next_line.strip()
    if not rest or len(line) > LINK_LENGTH or not re.search(_SCHEME, link):
        return False
    more = re.match(rf"{_IN_LINK}*+", rest)[0]  # type: ignore[index]  # it matches nothing, too
    if re.search(_SCHEME, more):
        return False
    if link.endswith("=") and not next_line[0].isspace():  # a soft line break, or a value that is empty
        is_soft = not re.search("[?#]", link) or (len(line) in SOFT_BREAKS and more == rest)
        return bool(re.search(r"\w" if is_soft else _OF_LINK, more))
    if len(line) < WRAPPED_FROM or more != rest or re.search(rf"(?i)\.(?:{_EXTENSIONS})\W*\Z", link[-10:]):
        return False
    return bool(re.search(_OF_LINK, more)) and not any(map(_is_host, re.finditer(_WORD, more)))


# -- Files that hold links.


def read_links(path: str) -> str:
    """The links of a file, each in a line: a text, an internet shortcut, a Mac's or a Linux desktop's link.

    :raises TransferError: it cannot be read.
    """
    data = read(path, FILE_SIZE)
    is_webloc = path.lower().endswith(".webloc")
    return "\n".join(find_links(_from_webloc(data) if is_webloc else lists.decoded(data)))


def read(path: str, most: int) -> bytes:
    """So many bytes of a file. Raises TransferError in a sentence."""
    try:
        with open(path, "rb") as file:
            return file.read(most)
    except OSError as error:
        raise TransferError(f"The file cannot be read: {error.strerror}") from error


def _from_webloc(data: bytes) -> str:
    import plistlib

    try:
        found = plistlib.loads(data)
    except Exception:  # it is a stranger's, and plistlib names no errors
        return ""
    link = found.get("URL") if isinstance(found, dict) else None
    return link if isinstance(link, str) else ""
