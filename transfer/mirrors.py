"""A mirror: a studio's own server, asked first, which keeps what it fetches for everybody.

It gets a link's address and nothing else. User and password, tokens, cookies and what ``~/.netrc`` has
are the server's own, and stay here; an address that is itself a secret is not shown to it either.
"""

from __future__ import annotations

import hashlib
import re
import time
from urllib.parse import unquote

from . import names
from .job import TransferError, TryAgain

EXAMPLE = "https://mirror.example/{scheme}/{host}/{path}"
CONNECT = 5.0  # seconds; it is near
REST = 300.0  # seconds for which nobody asks a mirror that did not answer
_FIELD = r"\{(scheme|host|path)\}"
_BRACES = r"\{[^{}]{0,20}\}|[{}]"
# Of a parameter's name: a word that makes an address a secret, and what may be a part of one.
_SECRET_WORD = (
    r"(?:auth|bearer|code|cookie|cred|exp|expir(?:es|y)|hash|hdnea|hdnts|hmac|jwt|key|licen[cs]e|md5|nonce|oauth|otp"
    r"|pass|policy|pwd?|session|sid|sig|sign|signed|ticket|verify)"
)
_SECRET_PART = (
    r"token|secret|signature|passw|passphrase|credential|authori|(?:api|access|auth|private|resource|rl)-?key"
    r"|sess(?:ion)?-?id"
)
_SECRET = rf"(?<![a-z0-9]){_SECRET_WORD}(?![a-z0-9])|{_SECRET_PART}"
# What looks like one, whatever it is called: letters and digits in one long piece, or a link in a link.
_SECRET_FORM = r"(?i)(?=.*[a-z])(?=.*[0-9]).{16}|.*://"


class NotThere(TryAgain):
    """A mirror does not bring it. ``str()`` is a sentence for a person that says why."""


class Mirror:
    """Where a studio keeps files, and whether it answers. One for all workers; any thread may call."""

    def __init__(self, template: str) -> None:
        """
        :param template: a link with ``{scheme}``, ``{host}`` (with a port where a link has one) and, at its
            end, ``{path}`` (with the query), none of them in its own host; empty: there is no mirror.
        :raises TransferError: it is not such a link; the sentence shows no password.
        """
        self._template = template.strip()
        self.place = _place(self._template) if self._template else ""
        """Scheme, user, password, host and port of its own; empty if there is none."""
        self._shown = self.place.rpartition("//")[2].rpartition("@")[2]
        self.mark = hashlib.sha256(self._shown.encode()).hexdigest()[:8]
        """By which what it brought is known again; it says nothing else."""
        self._rests_until = float("-inf")
        self._stumbles = 0  # in a row

    @property
    def rests(self) -> bool:
        """Whether it is left alone for a while."""
        return time.monotonic() < self._rests_until

    def rest(self) -> None:
        """It did not answer: nobody has to wait for it soon again."""
        self._rests_until, self._stumbles = time.monotonic() + REST, 0

    def stumble(self) -> None:
        """It cut an answer for good, or says that somebody else is late: twice in a row is no chance."""
        self._stumbles += 1
        if self._stumbles > 1:
            self.rest()

    def stands(self) -> None:
        """It brought a whole file, or said that it does not."""
        self._stumbles = 0

    def takes(self, url: str) -> bool:
        """Whether it is to be asked for a link: not for its own, nor for one that is a secret."""
        if not self.place:
            return False
        path, _, query = _parts(url)[2].partition("?")
        return not (self.owns(url) or _is_secret(";".join((query, *re.findall(r";([^/]*)", unquote(path))))))

    def owns(self, url: str) -> bool:
        """Whether a link leads to the mirror itself, whatever user and password it has."""
        return bool(self.place) and names.origin(url) == names.origin(self.place)

    def link(self, url: str) -> str:
        """Where it has what a link leads to."""
        fields = dict(zip(("scheme", "host", "path"), _parts(url), strict=True))
        return re.sub(_FIELD, lambda match: fields[match[1]], self._template)

    def why(self, what: str) -> NotThere:
        """What to say where it did not do."""
        return NotThere(f"The mirror {self._shown} {what}, so the server itself was asked")


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme, host with port, and path with query, in the form in which they are sent."""
    scheme, _, rest = names.quoted(url).partition("://")
    netloc, _, path = rest.partition("/")
    return scheme, netloc.rpartition("@")[2], path


def _place(template: str) -> str:
    """The part of a template that is the mirror's own. Raises TransferError."""
    plain = re.sub(_FIELD, "x", template)
    if unknown := re.search(_BRACES, plain):
        raise _unusable(f"{unknown[0]} means nothing in it")
    if "{host}" not in template or not template.endswith("/{path}"):
        raise _unusable("it has to have {host} in it, and /{path} at its end")
    if "{" in names.server(template):
        raise _unusable("its own server has to be the same for every link")
    try:
        names.check(plain)
        return names.server(names.quoted(plain))
    except TransferError as error:
        raise _unusable("it is no link that begins with https:// or http://") from error


def _unusable(why: str) -> TransferError:
    return TransferError(f"This mirror cannot be used: {why}. Write it as {EXAMPLE}")


def _hyphened(name: str) -> str:
    """A parameter's name in lower case, its words parted: userKey, user_key."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "-", name).lower().replace("_", "-")


def _is_secret(query: str) -> bool:
    """Whether a query lets whoever has it fetch what others may not: a signature, a token, a password."""
    pieces = [piece.partition("=") for piece in re.split("[&;?]", unquote(unquote(query)))]
    if any(re.search(_SECRET, _hyphened(name)) for name, _, _ in pieces):
        return True
    return any(re.match(_SECRET_FORM, text) for name, _, value in pieces for text in (name, value))
