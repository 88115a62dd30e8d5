"""Access tokens, one for each server: in a private file of the extension's user folder, and nowhere else.

Not in the preferences: `userpref.blend` would hold them. What is read may be garbled, and is then none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from ..transfer import portable
from ..transfer.disk import PRIVATE, may_be_right, read_regular, write_atomically
from ..transfer.job import TransferError

FILE = "tokens.json"
FILE_SIZE = 1 << 20  # bytes; a larger file is none of ours
LONGEST = 8000  # characters of a token; servers take no longer headers
_HOST = r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]*[a-z0-9])?|\[[0-9a-f:.]+\]"


class Tokens:
    """The tokens; `folder` gives the extension's user folder, and may raise OSError or ValueError."""

    def __init__(self, folder: Callable[[], Path]) -> None:
        self._folder = folder
        self._known: dict[str, str] | None = None  # not read yet

    def __repr__(self) -> str:
        return f"Tokens({', '.join(self.known)})"

    @property
    def known(self) -> tuple[str, ...]:
        """The servers that have one, for what draws, which reads no file: none until somebody has read it."""
        return tuple(sorted(self._known or ()))

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """For the workers: server, token; the file is read once. Never show it."""
        return tuple(sorted(self._read().items()))

    def add(self, host: str, token: str) -> str:
        """Keep a server's token in place of an earlier one. Returns the server's name.

        Raises TransferError in a sentence, without the token.
        """
        host, token = host_of(host), token.strip()
        if not token or len(token) > LONGEST or not token.isascii() or not token.isprintable():
            raise TransferError("This is not a token. Copy it again from your account's page on the server")
        self._write(self._read_anew() | {host: token})
        return host

    def remove(self, host: str) -> None:
        """Forget a server's token. Raises TransferError."""
        self._write({other: token for other, token in self._read_anew().items() if other != host})

    def _read(self) -> dict[str, str]:
        if self._known is None:
            try:
                self._known = self._read_anew()
            except TransferError:  # it may be had the next time
                return {}
        return self._known

    def _read_anew(self) -> dict[str, str]:
        """Before a change: another Blender may have changed the file, and what it did stays.

        Raises TransferError where it is there and cannot be had just now: a change would lose it.
        """
        try:
            about = json.loads(read_regular(self._folder() / FILE, FILE_SIZE))
            return {host_of(host): str(token) for host, token in about.items()}
        except OSError as error:
            if may_be_right(error):
                raise _unreachable() from error
            return {}
        except (ValueError, AttributeError, TypeError, RecursionError, TransferError):
            return {}

    def _write(self, known: dict[str, str]) -> None:
        try:
            path = self._folder() / FILE
            if known:
                write_atomically(path, json.dumps(known).encode(), PRIVATE)
            else:
                portable.remove(path)
        except (OSError, ValueError) as error:
            raise _unreachable() from error
        self._known = known


def host_of(text: str) -> str:
    """``example.org``, with a port if it is not 443, of a name or a link. Raises TransferError."""
    text = text.strip()
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        host, port = (parts.hostname or "").rstrip("."), parts.port
        host = host if ":" not in host else f"[{host}]"
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError as error:
        raise _no_server() from error
    if parts.scheme != "https" or not re.fullmatch(_HOST, host):
        raise _no_server()
    return f"{host}:{port}" if port not in (None, 443) else host


def _unreachable() -> TransferError:
    return TransferError("The extension's own folder cannot be read or written to. Nothing changed")


def _no_server() -> TransferError:
    return TransferError("Give the server's name, as example.org. It has to be one that speaks https")
