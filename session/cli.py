"""`blender --command downloads`: files for scripts and render farms, without a window.

https://docs.blender.org/api/current/bpy.utils.html#bpy.utils.register_cli_command
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..transfer import lists, names
from ..transfer.job import IfExists, TransferError
from . import current, terminal
from .blocking import download
from .settings import folder, settings

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND = "downloads"
ALL_THERE, NOT_ALL, WRONG_USE, INTERRUPTED = 0, 1, 2, 130  # exit codes; the last one as a shell has it
OFFLINE = "Online access required to download. Start Blender with --online-mode"
RATE = r"(\d{1,9}(?:\.\d{1,9})?)([kmg]?)(i?)(?:b(?:/s)?)?"  # 500k, 2M, 1.5MiB/s


def run(arguments: Sequence[str]) -> int:
    """The command: returns the exit code, 0 only if all files are there. Blocks."""
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as leaving:  # it has said why
        return leaving.code if isinstance(leaving.code, int) else WRONG_USE
    import bpy

    if not bpy.app.online_access:
        return _complain(OFFLINE)
    links, problems = names.parse_links(_read(options.urls))
    try:
        directory = folder(options.directory)
    except TransferError as error:
        return _complain(str(error))
    for problem in problems or (() if links else ("No link found. Give one that begins with https://",)):
        _complain(problem)
    return _download(links, options, directory, is_all=bool(links) and not problems)


def _download(links: list[names.Link], options: argparse.Namespace, directory: str, *, is_all: bool) -> int:
    teller = terminal.Json if options.json else terminal.Lines
    if_exists = IfExists(options.if_exists.upper())
    rows = current().new_rows(links, directory=directory, if_exists=if_exists)
    if not download(current(), rows, teller=teller, settings=_settings(options)):
        return INTERRUPTED
    return NOT_ALL if not is_all or any(row.is_unfinished for row in rows) else ALL_THERE


def _settings(options: argparse.Namespace) -> Any:
    chosen = {"connections": options.jobs, "speed_limit": options.limit}
    return replace(settings(), **{name: value for name, value in chosen.items() if value})


def _read(words: Sequence[str]) -> str:
    """The links as they were given; a dash stands for what is written to the command."""
    return "\n".join(lists.decoded(sys.stdin.buffer.read()) if word == "-" else word for word in words)


def _complain(sentence: str) -> int:
    print(sentence, file=sys.stderr, flush=True)
    return NOT_ALL


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"blender --online-mode --command {COMMAND}",
        description="Download files. Each appears whole and verified, or not at all; what was received"
        " of one that failed is kept, and the same command goes on with it.",
        epilog="Paths of files that are there go to the standard output, all else to the standard error."
        " Exit code: 0 if all are there, 1 if not, 2 for wrong use, 130 after Ctrl-C.",
    )
    add = parser.add_argument
    add("urls", metavar="URL", nargs="+", help="a link, which may end in #sha256=…; - reads them")
    add("--directory", default="", metavar="DIR", help="where the files go (default: as in the preferences)")
    add("--jobs", type=_count, metavar="N", help="connections at once (default: Blender's own limit)")
    choices = [choice.value.lower() for choice in IfExists]
    add("--if-exists", choices=choices, default="rename", type=str.lower, help="(default: %(default)s)")
    add("--limit", type=_rate, metavar="RATE", help="bytes a second for all together, as 500k or 1.5MiB")
    add("--json", action="store_true", help="tell what happens in lines of JSON")
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:4]) <= 256:
        raise argparse.ArgumentTypeError("a number from 1 to 256")
    return int(text)


def _rate(text: str) -> int:
    match = re.fullmatch(RATE, text.strip().lower())
    power = "kmg".find(match[2]) + 1 if match and match[2] else 0
    rate = round(float(match[1]) * (1024 if match[3] else 1000) ** power) if match else 0
    if rate < 1:
        raise argparse.ArgumentTypeError("bytes a second, such as 500k, 2M or 1.5MiB")
    return rate
