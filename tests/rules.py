"""Rules of the design written down a second time, for the tests that hold the code to them."""

from __future__ import annotations

import ntpath
import os.path
import posixpath
import re
import unicodedata

_PATHS = (posixpath, ntpath)

TOP = os.path.abspath("/")
"""A folder whose path is whole: on Windows that begins with a drive."""


def is_safe(name: str) -> bool:
    """The rules of section 4 for a name: one component that stays in its folder on every system."""
    bare = name.split(".")[0].rstrip(" ").upper()
    return (
        0 < len(name.encode()) <= 255
        and unicodedata.is_normalized("NFC", name)
        and not re.search(
            r'[/\\<>:"|?*\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\u200e\u200f\ufeff]', name
        )
        and name[0] not in ".- "
        and name[-1] not in ". "
        and not re.fullmatch("CON|PRN|AUX|NUL|CONIN\\$|CONOUT\\$|(COM|LPT)[1-9¹²³]", bare)
        and all(path.split(path.normpath(path.join("folder", name))) == ("folder", name) for path in _PATHS)
    )
