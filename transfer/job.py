"""What a transfer is asked to do, and the words it answers with."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

VALIDATOR_SIZE = 1024  # characters; a longer one is not worth its way back and forth
_ONE_LINE = re.compile(r"[^\r\n\u0100-\U0010ffff]*")  # of a header, for http.client Latin-1


class IfExists(StrEnum):
    """What to do when the final name is taken."""

    RENAME = "RENAME"
    """Publish as ``name (1).ext``; the number is picked when the file is published."""
    OVERWRITE = "OVERWRITE"
    """Replace the file in one atomic step."""
    SKIP = "SKIP"
    """Leave the file alone and fetch nothing."""
    UPDATE = "UPDATE"
    """Ask the server whether it changed (RFC 9110, section 13.1) and replace it if so."""


class Phase(StrEnum):
    """Where a transfer is, for its supervisor and for people."""

    IDLE = "waiting"
    LOOKUP = "looking up the server"
    CONNECT = "connecting"
    REQUEST = "waiting for the server"
    AWAY = "waiting for the network"
    TURN = "waiting, since the server takes few at a time"
    BODY = "receiving"
    BACKOFF = "retrying"
    VERIFY = "verifying"
    PUBLISH = "saving"


@dataclass(frozen=True, slots=True)
class Digest:
    """An expected digest."""

    algorithm: str
    """One of ``md5``, ``sha1``, ``sha256``, ``sha384``, ``sha512``."""
    hex: str
    """Lower case."""


@dataclass(frozen=True, slots=True)
class Validator:
    """What tells two versions of a resource apart (RFC 9110, section 8.8). Empty: not known."""

    etag: str = ""
    last_modified: str = ""
    is_date_strong: bool = field(default=False, compare=False)
    """Whether the file cannot have changed twice in the second that `last_modified` names."""

    @classmethod
    def told(cls, etag: str, last_modified: str, *, is_date_strong: bool = False) -> Validator:
        """Of what a server said: what cannot go back to it as it came is as good as nothing."""
        return cls(_sane(etag), _sane(last_modified), is_date_strong)

    @property
    def pair(self) -> tuple[str, str]:
        """For comparing each with each."""
        return self.etag, self.last_modified

    @property
    def is_strong(self) -> bool:
        """Whether there is an ETag that two servers do not share by chance, as they may a date."""
        return bool(self.etag) and not self.etag.upper().startswith("W/")

    def __bool__(self) -> bool:
        """Whether there is any, be it a weak one."""
        return bool(self.etag or self.last_modified)

    @property
    def if_range(self) -> str:
        """The value for ``If-Range`` (RFC 9110, section 13.1.5): a strong ETag, or where there is none a
        strong date; else empty.
        """
        if self.etag:
            return self.etag if self.is_strong else ""
        return self.last_modified if self.is_date_strong else ""


def _sane(value: str) -> str:
    return value if len(value) <= VALIDATOR_SIZE and _ONE_LINE.fullmatch(value) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One download as it was asked for. Holds secrets: never show it."""

    uid: int
    url: str
    """With user, password and query, without the fragment."""
    directory: str
    if_exists: IfExists = IfExists.RENAME
    digest: Digest | None = None
    have: Have | None = None
    """For UPDATE: the file that an earlier download of this URL left here."""
    partial: str = field(default="", compare=False)
    """The name of an earlier partial file in `directory` that this download goes on with.

    Not compared: once it was taken over it says nothing any more.
    """
    name: str = ""
    """What the file is to be called, safe, whatever the server calls it; empty: as that does."""
    called: str = field(default="", compare=False)
    """What the server called the file when it was last asked; it counts until the server says it again."""
    size: int | None = field(default=None, compare=False)
    """Likewise how many bytes it has."""
    looks: int | None = None
    """Only to look what it is, and to write nothing: it ends with `Seen`. So many bytes of it may be read,
    as a list, 0: none; None: it is a download.
    """
    done: str = field(default="", compare=False)
    """A private file that is told when the download is in place, since the list on the disk is late."""

    def __repr__(self) -> str:
        return f"Job({self.uid})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Have:
    """A finished file and what the server said of it, kept for conditional requests."""

    name: str
    size: int
    """Bytes."""
    mtime: float
    """Seconds since the epoch, as the file system had it when the file was published."""
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Frozen at the start of a run and handed to the workers, who read no preferences."""

    timeout: float = 60.0
    """Seconds without progress after which a phase is ended."""
    connections: int = 16
    """Connections open at once, over all downloads."""
    user_agent: str = "background_downloads"
    speed_limit: int = 0
    """Bytes a second, over all connections; 0: as many as come. May change while a host lives."""
    split_seconds: float = 2.0
    """The rest of a segment that would take longer is worth another connection."""
    tokens: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Servers (``example.org``, with a port if not 443) and the token that each gets, over https alone."""
    mirror: str = field(default="", repr=False)
    """Where to ask in a server's place, a link with fields in it: see `mirrors.Mirror`. Empty: nowhere."""
    first_delay: float | None = None
    """Seconds before the first try again; None: as `retry` has it."""


class Progress(NamedTuple):
    """Counters of one transfer. Many are made and sent in each tick: a tuple takes a fifth of the time."""

    name: str = ""
    received: int = 0
    """Bytes of the file that are on the disk."""
    size: int | None = None
    """Bytes, where the server told."""
    phase: Phase = Phase.IDLE
    idle: float = 0.0
    """Seconds since something last moved."""
    text: str = ""
    """Words for the phase where there are finer ones: "retrying 2 of 5"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The file is whole, verified, and stands under its final name."""

    filepath: str
    size: int = 0
    """Bytes."""
    note: str = ""
    have: Have | None = None
    verified: str = ""
    """The kind of digest that it was compared with; of one that the server sent: ``md5 (server)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Nothing had to be fetched."""

    filepath: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file that a list names."""

    url: str = field(repr=False)
    path: str
    """Where it goes below the folder: safe names, joined by slashes."""
    size: int | None = None
    """Bytes, where the list tells."""
    digest: Digest | None = None
    mirrors: tuple[str, ...] = field(default=(), repr=False)
    """Where it can be had besides, the best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a server says of a file that nobody has asked it to send."""

    name: str
    """Safe, as that of a download."""
    size: int | None = None
    """Bytes, where it tells."""
    content_type: str = ""
    """The header as it came."""
    entries: tuple[Entry, ...] | None = None
    """What it lists, if it was read and is a list."""
    more: tuple[str, ...] = field(default=(), repr=False)
    """Where the list goes on."""
    left_out: int = 0
    """Entries that name no file, or one outside of the folder."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It cannot be done; what was received is kept."""

    error: str
    """One sentence for a person, without secrets."""
    kept: int | None = field(default=None, compare=False)
    """Bytes that are there; none where they were of no use. None: as many as were told of last."""


@dataclass(frozen=True, slots=True)
class Halted:
    """It was asked to stop, and did; what was received is kept."""


Outcome = Finished | Skipped | Seen | Failed | Halted


class TransferError(Exception):
    """A download cannot be done. ``str()`` is one sentence for a person, and holds no secret."""


class TryAgain(TransferError):
    """It did not work this time; another request may (a cut connection, a busy server)."""

    def __init__(self, sentence: str, *, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after
        """Seconds that the server asks to wait (RFC 9110, section 10.2.3)."""


class Busy(TryAgain):
    """The server has too much to do, maybe for us alone (RFC 6585, section 4; RFC 9110, section 15.6.4)."""


class LateError(TryAgain):
    """Nothing came for too long."""


class Stopped(Exception):
    """The transfer was asked to stop; what it has is kept."""
