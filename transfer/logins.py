"""User and password for a server: a link's own, else those that ``~/.netrc`` has, as for curl."""

from __future__ import annotations

import base64
import os
import re
import stat
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

from . import portable

NETRC_SIZE = 1 << 20  # bytes; what lies beyond is not read
_PLACES = ("~/.netrc", "~/_netrc")
_WORD = r'"((?:[^"\\]|\\.)*)"|([^\s"]\S*)|(")'  # curl takes words in quotes
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_BEGIN = ("machine", "default")
BEARER = "Bearer "


class Login(NamedTuple):
    """In bytes as they are sent (RFC 7617), since nobody knows in which encoding a server has them."""

    user: bytes
    password: bytes


def header(url: str, tokens: Mapping[str, str], *, by_name: bool = False) -> str:
    """The ``Authorization`` for a link, empty if there is none (RFC 6750, section 2.1, and RFC 7617).

    `by_name`: nothing that is for any host that has no entry of its own.
    """
    if token := token_of(url, tokens):
        return f"{BEARER}{token}"
    return basic(of(url, by_name=by_name))


def basic(login: Login | None) -> str:
    """What is sent of a login, empty if there is none (RFC 7617)."""
    return f"Basic {base64.b64encode(b':'.join(login)).decode()}" if login else ""


def of(url: str, *, by_name: bool = False) -> Login | None:
    """Those of a link, else of its host in ``~/.netrc`` or the file that NETRC names. Never raises.

    So is the password alone, of a user whom the link names without one.
    """
    login = own(url)
    if login and (login.password or not login.user):
        return login
    host = (urlsplit(url).hostname or "").lower()
    return _of_host(host, login.user if login else b"", by_name=by_name) or login


def own(url: str) -> Login | None:
    """Those that are written in a link, or in a proxy's address; a password may be missing."""
    user, _, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
    login = Login(unquote_to_bytes(user), unquote_to_bytes(password))
    return login if any(login) else None


def token_of(url: str, tokens: Mapping[str, str]) -> str:
    """The access token for a link: of its very host and port, over https, and not where it has a user."""
    parts = urlsplit(url)
    if parts.scheme != "https" or "@" in parts.netloc:
        return ""
    return tokens.get(parts.netloc.lower().removesuffix(":443"), "")


def wanted(status: int, url: str, sent: str, challenge: str) -> str:
    """What to say where a server wants to know who asks (401), or lets nobody like us in (403).

    :param sent: the ``Authorization`` that it was sent.
    :param challenge: its ``WWW-Authenticate``, empty if it says nothing.
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    if sent.startswith(BEARER):
        return f"The server {host} does not accept the token in the preferences ({status}). Add a new one"
    if sent and challenge and not re.search(r"(?i)\b(?:basic|bearer)\b", challenge):  # Digest, NTLM and such
        return f"The server {host} wants another kind of login than Blender can give it. Use your browser"
    if sent and status == 401:
        return f"The server {host} does not accept the user name and the password (401). Check both"
    sentence, otherwise = WANTED[status]
    if parts.scheme != "https":
        return f"{sentence}. {otherwise[:1].upper()}{otherwise[1:]}"
    return f"{sentence}. If it needs a token, add one for {host} in the preferences; or {otherwise}"


WANTED = {
    401: (
        "This download needs a user name and a password (401)",
        "copy a link from the page where you are signed in",
    ),
    403: ("The server does not allow this download (403)", "get a new link: this one may have expired"),
}


def _of_host(host: str, user: bytes, *, by_name: bool) -> Login | None:
    named = os.environ.get("NETRC")
    for place in [named] if named else _PLACES:
        path = os.path.expanduser(place)
        if os.path.lexists(path):
            entries = _entries(_read(path))
            known = map(_login, entries.get(host, [] if by_name else entries.get(None, [])))
            return next((login for login in known if any(login) and user in (b"", login.user)), None)
    return None


def _read(path: str) -> str:
    """Bytes that are no UTF-8 come back as they are; nothing where no file can be read."""
    try:
        fd = portable.open_file(os.path.realpath(path), os.O_RDONLY)
    except OSError:
        return ""
    try:
        data = os.read(fd, NETRC_SIZE) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        return data.decode("utf-8-sig", "surrogateescape")
    except OSError:
        return ""
    finally:
        os.close(fd)


def _login(fields: Mapping[str, str]) -> Login:
    user = fields.get("login") or fields.get("account", "")
    return Login(*(text.encode("utf-8", "surrogateescape") for text in (user, fields.get("password", ""))))


def _entries(text: str) -> dict[str | None, list[dict[str, str]]]:
    """The entries of each host, None for any other host. What is no entry is passed over."""
    entries: dict[str | None, list[dict[str, str]]] = {}
    fields: dict[str, str] = {}
    words = list(_words(text))[::-1]
    while words:
        word = words.pop().strip("\n").lower()
        if word in _BEGIN:
            fields = {}
            host = _value(words).lower() if word == "machine" else None
            entries.setdefault(host, []).append(fields)
        elif word in ("login", "account", "password"):
            fields.setdefault(word, _value(words))
        elif word == "macdef":
            while words and words.pop() != "\n":  # up to an empty line
                pass
    return entries


def _value(words: list[str]) -> str:
    """The next word, unless something else begins there."""
    return words.pop() if words and not words[-1].startswith("\n") else ""


def _words(text: str) -> Iterator[str]:
    """Those of lines that are no comments; a line end for an empty line, and before what begins an entry."""
    for line in text.split("\n"):
        words = list(re.finditer(_WORD, line, re.ASCII))  # other white space may be a password's
        if not words:
            yield "\n"
            continue
        first = words[0][0]
        if first.startswith("#"):
            continue
        mark = "\n" if first.lower() in _BEGIN else ""
        for match in words:
            if match[3]:
                return  # nobody can tell where it ends
            yield mark + (match[2] or re.sub(r"\\(.)", _unescaped, match[1]))
            mark = ""


def _unescaped(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[1], match[1])
