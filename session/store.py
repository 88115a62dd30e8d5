"""The list on disk, and the ETags of finished files: private files in the extension's user folder.

Each Blender keeps one list, `queue-<pid>.json`, and locks `queue-<pid>.lock` beside it while it
lives. A list that nobody holds is adopted by the next Blender.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bpy

from ..transfer import portable
from ..transfer.job import Digest, Have, IfExists
from ..transfer.part import write_atomically
from ..workers import PRIVATE, Download, Host, Status

log = logging.getLogger(__name__)

VERSION = 1
INTERVAL = 1.0  # seconds between two writes of a list that keeps changing


def user_folder() -> Path:
    """The extension's own folder. Raises OSError, ValueError where it cannot be had."""
    package = __package__.rpartition(".")[0]
    try:
        return Path(bpy.utils.extension_path_user(package, create=True))
    except ValueError:  # enabled as an old-style add-on
        return Path(bpy.utils.user_resource("CONFIG", path="background_downloads", create=True))


class Store:
    """Keeps the unfinished rows on disk, one line each, rewritten only for rows that changed."""

    def __init__(self) -> None:
        self._lines: dict[int, str] = {}
        self._is_changed = False
        self._lock = -1
        self._path: Path | None = None
        self._written = float("-inf")

    def open(self) -> None:
        """Claim this process's list. Without a folder to write to the list lives in memory only."""
        try:
            folder = user_folder()
            self._lock = _locked(folder / f"queue-{os.getpid()}.lock")
            self._path = folder / f"queue-{os.getpid()}.json"
        except (OSError, ValueError):
            log.warning("The list of downloads cannot be kept on the disk", exc_info=True)

    def touch(self, row: Download) -> None:
        """A row has changed; finished ones are not kept."""
        if not row.is_unfinished:
            self.forget(row.uid)
            return
        line = _line(row)
        if self._lines.get(row.uid) != line:
            self._lines[row.uid] = line
            self._is_changed = True

    def forget(self, uid: int) -> None:
        """A row is finished or gone."""
        if self._lines.pop(uid, None) is not None:
            self._is_changed = True

    def reorder(self, rows: Iterable[Download]) -> None:
        """The rows have another order."""
        self._lines = {row.uid: self._lines[row.uid] for row in rows if row.uid in self._lines}
        self._is_changed = True

    def flush(self, now: float, host: Host | None) -> None:
        """Write the list if it changed: through `host` while one runs, else here."""
        if not self._is_changed or not self._path or now - self._written < INTERVAL:
            return
        self._is_changed = False
        self._written = now
        if host:
            host.store(str(self._path), self._data())
        else:
            self._write(self._path)

    def save(self) -> None:
        """Write the list now, if it changed."""
        if self._is_changed and self._path:
            self._is_changed = False
            self._write(self._path)

    def _data(self) -> bytes:
        head = json.dumps({"version": VERSION})
        return "\n".join([head, *self._lines.values(), ""]).encode()

    def _write(self, path: Path) -> None:
        try:
            if self._lines:
                write_atomically(path, self._data(), PRIVATE)
            else:
                path.unlink(missing_ok=True)
        except OSError:
            log.warning("The list of downloads cannot be written to the disk", exc_info=True)

    def adopt(self, fresh_uid: Callable[[], int]) -> list[Download]:
        """The rows of lists that no Blender holds, PAUSED; they are ours from now on."""
        rows: list[Download] = []
        if not self._path:
            return rows
        for path in sorted(self._path.parent.glob("queue-*.json")):
            with contextlib.suppress(OSError):
                rows += self._adopt(path, fresh_uid)
        return rows

    def _adopt(self, path: Path, fresh_uid: Callable[[], int]) -> list[Download]:
        lock = _locked(path.with_suffix(".lock")) if path != self._path else -1
        if lock < 0 and path != self._path:
            return []
        try:
            rows = _rows(path.read_text("utf-8"), fresh_uid)
            for row in rows:
                self.touch(row)
            if path != self._path:
                self._write(self._path or path)
                path.unlink()
                path.with_suffix(".lock").unlink(missing_ok=True)
            return rows
        except ValueError:
            path.replace(path.with_suffix(".unreadable"))
            log.warning("A list of downloads could not be read and was set aside: %s.unreadable", path.stem)
            return []
        finally:
            _unlock(lock)

    def close(self) -> None:
        """Write the list and give it up."""
        if self._path:
            self._write(self._path)
            if not self._lines:
                self._path.with_suffix(".lock").unlink(missing_ok=True)
        _unlock(self._lock)
        self._lock, self._path = -1, None


def _locked(path: Path) -> int:
    """An open, locked descriptor, or -1 where somebody else holds the lock. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | portable.NO_FOLLOW, PRIVATE)
    if portable.lock_file(fd):
        return fd
    os.close(fd)
    return -1


def _unlock(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def _line(row: Download) -> str:
    return json.dumps(
        {
            "url": row.url,
            "directory": row.directory,
            "if_exists": row.if_exists.value,
            "when_done": row.when_done,
            "digest": [row.digest.algorithm, row.digest.hex] if row.digest else None,
            "status": row.status.value,
            "name": row.name,
            "error": row.error,
            "received": row.received if row.status is not Status.RUNNING else 0,
            "size": row.size,
        }
    )


def _rows(text: str, fresh_uid: Callable[[], int]) -> list[Download]:
    """Read a list. Raises ValueError where it is not one."""
    try:
        head, *lines = text.splitlines()
        if json.loads(head)["version"] != VERSION:
            raise ValueError("another version")
        return [_row(json.loads(line), fresh_uid()) for line in lines]
    except (KeyError, TypeError) as error:
        raise ValueError("not a list") from error


def _row(values: dict[str, Any], uid: int) -> Download:
    status = Status(values["status"])
    return Download(
        uid=uid,
        url=str(values["url"]),
        directory=str(values["directory"]),
        if_exists=IfExists(values["if_exists"]),
        when_done=str(values["when_done"]),
        digest=Digest(*values["digest"]) if values["digest"] else None,
        status=Status.PAUSED if status in (Status.QUEUED, Status.RUNNING) else status,
        name=str(values["name"]),
        error=str(values["error"]),
        received=int(values["received"]),
        size=None if values["size"] is None else int(values["size"]),
    )


class Etags:
    """What servers said of finished files, for UPDATE. Links are kept as hashes: they may hold secrets."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Any]] | None = None

    def find(self, url: str, directory: str) -> Have | None:
        """What is known of the file that this link left in this folder."""
        with contextlib.suppress(TypeError, KeyError):
            return Have(**self._load()[_key(url, directory)])
        return None

    def keep(self, url: str, directory: str, have: Have) -> None:
        """Remember a finished file."""
        known = self._load()
        known[_key(url, directory)] = asdict(have)
        with contextlib.suppress(OSError, ValueError):
            write_atomically(user_folder() / "etags.json", json.dumps(known).encode(), PRIVATE)

    def _load(self) -> dict[str, dict[str, Any]]:
        if self._known is None:
            self._known = {}
            with contextlib.suppress(OSError, ValueError):
                loaded = json.loads((user_folder() / "etags.json").read_bytes())
                self._known = loaded if isinstance(loaded, dict) else {}
        return self._known


def _key(url: str, directory: str) -> str:
    return hashlib.sha256(f"{url}\n{directory}".encode("utf-8", "surrogatepass")).hexdigest()
