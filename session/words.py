"""Words for people, derived from the records. Knows no Blender and keeps nothing.

What a draw method shows comes from here; it only has to choose what fits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ..transfer.job import Phase
from ..workers import Download, Status

STALLED = 3.0  # seconds without a byte after which a body counts as stalled
# In an error: what servers say of signed links that have expired, or what we say ourselves.
EXPIRED = r"\((?:401|403|404|410)\)|Ask for a new link"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
NAMES = {
    Status.RUNNING: "running",
    Status.QUEUED: "waiting",
    Status.PAUSED: "paused",
    Status.FAILED: "failed",
    Status.FINISHED: "finished",
    Status.SKIPPED: "skipped",
    Status.CANCELLED: "cancelled",
}


# -- Numbers.


def size(count: float) -> str:
    """Bytes as Blender writes them: ``12.3 MiB``."""
    number, unit = _scaled(count)
    return f"{number} {unit}"


def portion(received: int, whole: int) -> str:
    """How many bytes of how many: ``34.1 of 100 MiB``, the unit said once."""
    (some, unit), all_of_it = _scaled(received), size(whole)
    return f"{some} of {all_of_it}" if all_of_it.endswith(f" {unit}") else f"{some} {unit} of {all_of_it}"


def clock(seconds: float) -> str:
    """A length of time as a clock shows it: ``1:05``, ``1:02:05``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 100:
        return f"{hours // 24} days"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _scaled(count: float) -> tuple[str, str]:
    for unit in UNITS:
        if count < 999.5 or unit == UNITS[-1]:
            break
        count /= 1024
    digits = 0 if unit == "B" or count >= 99.95 else 1
    return f"{count:.{digits}f}", unit


# -- One download.


def fraction(row: Download) -> float:
    """How much of a download is there, 0 to 1."""
    if row.status in (Status.FINISHED, Status.SKIPPED):
        return 1.0
    return min(1.0, row.received / row.size) if row.size else 0.0


def state(row: Download) -> str:
    """What a download is doing; of a running one the finer word, empty while bytes come in."""
    if row.status is not Status.RUNNING:
        return NAMES[row.status]
    if row.progress.text:
        return row.progress.text
    phase, idle = row.progress.phase, row.progress.idle
    if phase is Phase.BODY:
        return f"stalled for {idle:.0f} s" if idle >= STALLED else ""
    return "starting" if phase is Phase.IDLE else phase.value


def asks_for_link(row: Download) -> bool:
    """Whether another link would help a download that failed more than another try."""
    return row.status is Status.FAILED and (row.is_cut or bool(re.search(EXPIRED, row.error)))


def line(row: Download) -> tuple[str, ...]:
    """A download in a line, in several lengths, the longest first."""
    if row.status in (Status.FINISHED, Status.SKIPPED):
        known = row.size or row.received
        return (f"{state(row)}, {size(known)}", state(row)) if known else (state(row),)
    words = state(row)
    if words:
        lengths = [*(f"{words}, {some}" for some in _amounts(row)), words, words.replace(" for ", " ")]
        return tuple(dict.fromkeys(lengths))
    return tuple(_with_pace(row)) + ((f"{fraction(row):.0%}",) if row.size else ())


def _amounts(row: Download) -> list[str]:
    if not row.received:
        return []
    return [portion(row.received, row.size), f"{fraction(row):.0%}"] if row.size else [size(row.received)]


def _with_pace(row: Download) -> list[str]:
    pace = f"{size(row.speed)}/s"
    if not row.size:
        return [f"{size(row.received)}, {pace}", size(row.received)]
    amount, share = portion(row.received, row.size), f"{fraction(row):.0%}"
    if row.speed < 1.0:
        return [amount]
    left = clock(max(0, row.size - row.received) / row.speed)
    return [f"{amount}, {pace}, {left} left", f"{share}, {pace}, {left}", f"{share}, {pace}"]


# -- All of them.


def totals(counts: Mapping[Status, int]) -> str:
    """What the list holds: ``5 downloads: 1 running, 4 finished``."""
    parts = [f"{counts[status]} {name}" for status, name in NAMES.items() if counts.get(status)]
    number = sum(counts.values())
    return f"{number} download{'s' if number != 1 else ''}: {', '.join(parts)}"


@dataclass(frozen=True, slots=True)
class Pace:
    """How far a run is."""

    share: float
    """0 to 1; every file counts the same, since the sizes of those that wait are not known."""
    text: str
    """``2 of 5, 43%, 12.3 MiB/s``"""


def pace(ended: int, counts: Mapping[Status, int], running: Iterable[Download]) -> Pace:
    """How far a run is that has ended so many downloads."""
    speed = parts = 0.0
    for row in running:
        speed += row.speed
        parts += fraction(row)
    number = ended + counts.get(Status.QUEUED, 0) + counts.get(Status.RUNNING, 0)
    share = min(1.0, (ended + parts) / number) if number else 0.0
    return Pace(share, f"{ended} of {number}, {share:.0%}, {size(speed)}/s")


# -- What fits.


def fitting(texts: Iterable[str], width: float, measure: Callable[[str], float]) -> str:
    """The first of several texts that is not too wide, else the last one."""
    text = ""
    for text in texts:
        if measure(text) <= width:
            break
    return text


def wrapped(text: str, width: float, measure: Callable[[str], float]) -> list[str]:
    """A text in lines that are not too wide; a word that is too wide by itself is cut."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        so_far = ""
        for word in paragraph.split():
            longer = f"{so_far} {word}" if so_far else word
            if measure(longer) <= width:
                so_far = longer
                continue
            if so_far:
                lines.append(so_far)
            *full, so_far = _cut(word, width, measure)
            lines += full
        lines.append(so_far)
    return lines


def _cut(word: str, width: float, measure: Callable[[str], float]) -> list[str]:
    pieces = []
    while measure(word) > width and len(word) > 1:
        end = max(1, int(len(word) * width / measure(word)))
        while end > 1 and measure(word[:end]) > width:
            end -= 1
        pieces.append(word[:end])
        word = word[end:]
    return [*pieces, word]
