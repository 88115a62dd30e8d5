"""The list and the used folders as they stand in files. Knows no Blender.

What is read may be cut, garbled or another version's, and it says where files are written: each
line is looked at by itself, and nothing is taken on trust.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..transfer import names, portable
from ..transfer.digest import LENGTHS, parse_fragment
from ..transfer.job import Digest, IfExists, Progress, TransferError
from ..transfer.part import Leftover, byte_count, is_part_name, tails
from ..workers import Download, Status, ask
from .words import readable

VERSION = 1
FOLDERS = 100  # that are remembered, the last used ones
MANY = 100  # rows of which it is quicker to see whose partial files there are than to ask for each
REMOVED = 1000  # partial files in a folder that are not to come back

LINK_LOST = (
    "Only a part of this link is known: its password or its query is lost. "
    "Press Replace Link and give the whole link; what was received is kept"
)
Place = tuple[str, str]
"""A folder's real path, and the name of a partial file in it."""


# -- The list.


def encode_list(lines: Iterable[str]) -> bytes:
    """The file that holds these lines, one for each row."""
    return "\n".join([json.dumps({"version": VERSION}), *lines, ""]).encode()


_ALWAYS = ("uid", "url", "directory", "status")


def _values(row: Download) -> dict[str, Any]:
    """What a line says. What changes all the time is left out while it does."""
    return {
        "uid": row.uid,
        "url": row.url,
        "directory": row.directory,
        "status": row.status.value,
        "if_exists": row.if_exists.value,
        "when_done": row.when_done,
        "catalog": row.catalog,
        "wanted": row.wanted,
        "mirrors": list(row.mirrors),
        "digest": [row.digest.algorithm, row.digest.hex] if row.digest else None,
        "name": row.progress.name,
        "error": row.error,
        "received": row.received if row.status is not Status.RUNNING else 0,
        "size": row.size,
        "partial": row.partial,
        "is_cut": row.is_cut,
        "stays_paused": row.stays_paused,
    }


_NEW = _values(Download(uid=0, url="", directory=""))
_DEFAULTS = {key: value for key, value in _NEW.items() if key not in _ALWAYS}
"""Left out: ten thousand rows that wait are kept in memory as lines, too."""


def encode_row(row: Download) -> str:
    values = _values(row).items()
    told = {key: value for key, value in values if key in _ALWAYS or value != _DEFAULTS[key]}
    return _to_line(told)


_to_line = json.JSONEncoder(separators=(",", ":")).encode


def decode_list(data: bytes, done: Collection[Any] = ()) -> Iterator[Download | None]:
    """The unfinished rows of a list, one after the other; None for a line that cannot be read.

    Rows have no uid yet; those that ran or waited are PAUSED, and those that were `done` since it was
    written, by their uids, are left out. Raises ValueError: it is not a list of this version.
    """
    head, *lines = data.split(b"\n")
    if not isinstance(about := _parsed(head), dict) or about.get("version") != VERSION:
        raise ValueError("not a list of this version")
    for line in filter(None, lines):
        try:
            values = _DEFAULTS | _parsed(line)
            row, is_done = _row(values), values.get("uid") in done
        except (ValueError, TypeError, KeyError, TransferError):
            yield None
        else:
            if row.is_unfinished and not is_done:
                yield row


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.decode())
    except RecursionError as error:
        raise ValueError("too deep") from error


def _row(values: Any) -> Download:
    status, partial = Status(values["status"]), _text(values.get("partial", ""))
    directory, url = _text(values["directory"]), _text(values["url"])
    if not _is_folder(directory) or not url:
        raise ValueError("no place, or no link")
    return Download(
        uid=0,
        url=url,
        directory=directory,
        if_exists=IfExists(values["if_exists"]),
        when_done="IMPORT" if values["when_done"] == "IMPORT" else "NOTHING",
        catalog=_text(values["catalog"]),
        wanted=names.safe(_text(values["wanted"])),
        mirrors=tuple(map(_text, values["mirrors"])),
        digest=_digest(values["digest"]),
        status=Status.PAUSED if status in (Status.QUEUED, Status.RUNNING) else status,
        progress=Progress(
            name=names.safe(_text(values["name"])),
            received=byte_count(values["received"]),
            size=None if values["size"] is None else byte_count(values["size"]),
        ),
        error=readable(_text(values["error"])),
        partial=partial if is_part_name(partial) else "",
        is_cut=values.get("is_cut") is True,
        stays_paused=values.get("stays_paused") is True,
    )


@lru_cache(maxsize=64)  # most rows of a list have the one before theirs
def _is_folder(path: str) -> bool:
    """Whether the system may be asked about a folder of this name."""
    try:
        return portable.is_absolute(path) and b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _digest(value: Any) -> Digest | None:
    if value is None:
        return None
    algorithm, digits = value
    if algorithm not in LENGTHS:
        raise ValueError("no digest that we know")
    return parse_fragment(f"{algorithm}={digits}")


def unknown(rows: Iterable[Download], known: Iterable[Download]) -> list[Download]:
    """Those rows that no known one stands for, each once: a list may have been copied half way."""
    seen, fresh = {_identity(row) for row in known}, dict[tuple[str, ...], Download]()
    for row in rows:
        fresh.setdefault(_identity(row), row)
    return [row for identity, row in fresh.items() if identity not in seen]


def _identity(row: Download) -> tuple[str, str, str]:
    return row.url, row.directory, row.partial if row.is_cut else ""


# -- Partial files, and the rows that stand for them.


def part_names(row: Download) -> tuple[str, ...]:
    """What the partial files of a row are called: its own, and that of an earlier link."""
    own = () if row.is_cut else (row.part,)
    return (*own, row.partial) if row.partial else own


def with_parts(rows: Collection[Download]) -> Iterable[Download]:
    """Those of some rows that may have a partial file. Where they are many, each folder is looked at once."""
    if len(rows) < MANY:
        return rows
    try:
        lying = ask(tails, {row.directory for row in rows})
    except OSError:  # nobody knows
        return rows
    return [row for row in rows if row.partial or _is_among(row, lying.get(row.directory))]


def _is_among(row: Download, tails: Collection[str] | None) -> bool:
    """None: nobody knows."""
    return tails is None or (bool(tails) and names.part_tail(row.url, row.directory) in tails)


def claimed(rows: Iterable[Download], known: Mapping[str, str]) -> Iterator[tuple[Place, Download]]:
    """The places that rows stand for; the real paths of some folders are `known`."""
    rows = list(rows)
    folders = ask(os.path.realpath, {row.directory for row in rows} - known.keys()) | dict(known)
    for row in rows:
        for name in part_names(row):
            yield (folders.get(row.directory, row.directory), name), row


def row_of(leftover: Leftover, directory: str) -> Download:
    """A row for a partial file that no list knows. With half a link it cannot go on by itself."""
    own = names.part_name(leftover.url, directory)
    return Download(
        uid=0,
        url=leftover.url,
        directory=directory,
        digest=leftover.digest,
        status=Status.FAILED if leftover.is_cut else Status.PAUSED,
        error=LINK_LOST if leftover.is_cut else "",
        progress=Progress(received=leftover.received, size=leftover.size),
        partial=leftover.name if leftover.is_cut or leftover.name != own else "",
        is_cut=leftover.is_cut,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lying:
    """A partial file that no list has."""

    directory: str
    name: str
    """Of the file itself, which ends in ``.part``."""
    title: str
    """What the download was called."""
    size: int
    """Bytes on the disk."""
    age: float
    """Seconds since something was written to it."""


# -- The folders.


def encode_folders(folders: Mapping[str, Iterable[str]]) -> bytes:
    """The file that holds the used folders, the last used one last, with what was removed there."""
    kept = [[path, list(removed)[-REMOVED:]] for path, removed in list(folders.items())[-FOLDERS:]]
    return json.dumps({"version": VERSION, "folders": kept}).encode()


def decode_folders(data: bytes) -> dict[str, list[str]]:
    """The used folders, and the partial files in each that are not to come back. Raises ValueError."""
    about = _parsed(data)
    try:
        if about["version"] != VERSION:
            raise ValueError("another version")
        return {
            path: [name for name in removed if is_part_name(_text(name))]
            for path, removed in about["folders"]
            if _is_folder(_text(path))
        }
    except (TypeError, KeyError) as error:
        raise ValueError("no list of folders") from error
