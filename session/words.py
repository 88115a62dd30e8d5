"""Words for people, derived from the records. Knows no Blender and keeps nothing.

What a draw method shows comes from here; it only has to choose what fits.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from ..transfer.job import Phase
from ..transfer.space import amount, scaled
from ..workers import Download, Status

if TYPE_CHECKING:
    from .tally import Tally

Measure = Callable[[str], float]
"""How wide a text is, in pixels."""
STALLED = 3.0  # seconds without a byte after which a body counts as stalled
GUESSED = 10  # times as many files as those whose size is known may be thought to be as large
FILLED = 0.7  # of the room for a text that is cut between two words, at least
SEEN = 0.45  # of the room: what Blender, which cuts in the middle, shows of each end of a text
HEAD = 4  # characters of a name that are shown at least before what tells it from others
MEASURED = 2.0  # seconds after which a speed is worth telling
# Seconds up to which a length of time is told in a unit, the unit's seconds, and its name.
LENGTHS = (
    (55, 1, "s"),
    (90 * 60, 60, "min"),
    (36 * 3600, 3600, "h"),
    (999 * 86400, 86400, "days"),
    (math.inf, 365 * 86400, "years"),
)
NAMES = {
    Status.RUNNING: "running",
    Status.QUEUED: "waiting",
    Status.PAUSED: "paused",
    Status.FAILED: "failed",
    Status.FINISHED: "finished",
    Status.SKIPPED: "skipped",
    Status.CANCELLED: "cancelled",
}

TEXT_LENGTH = 2000  # characters of a sentence

FILE_ICONS = {
    "FILE_BLEND": "blend",
    "FILE_IMAGE": "png jpg jpeg webp exr hdr tif tiff tga bmp gif psd svg",
    "FILE_3D": "glb gltf fbx obj stl ply usd usda usdc usdz abc dae 3ds x3d",
    "FILE_ARCHIVE": "zip 7z rar tar gz bz2 xz zst tgz",
    "FILE_MOVIE": "mp4 mov mkv avi webm",
    "FILE_SOUND": "wav mp3 flac ogg aiff m4a",
    "FILE_VOLUME": "vdb",
    "FILE_FONT": "ttf otf woff woff2",
    "FILE_TEXT": "txt md json csv xml html pdf",
    "FILE_SCRIPT": "py",
}
ICON_OF = {extension: icon for icon, extensions in FILE_ICONS.items() for extension in extensions.split()}
"""The icon for each type of file, as the file browser has it."""


def file_icon(name: str) -> str:
    """The name of Blender's icon for this type of file."""
    return ICON_OF.get(name.rpartition(".")[2].lower(), "FILE")


# -- Numbers.


def portion(received: int, whole: int) -> str:
    """How many bytes of how many: ``34.1 of 100 MiB``, the unit said once."""
    (some, unit), all_of_it = scaled(received), amount(whole)
    return f"{some} of {all_of_it}" if all_of_it.endswith(f" {unit}") else f"{some} {unit} of {all_of_it}"


def readable(text: str) -> str:
    """A text that Blender can show and hold: a path need not be Unicode."""
    if text.isascii() and text.isprintable():
        return text[:TEXT_LENGTH]
    shown = re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text[:TEXT_LENGTH])
    return "".join(letter if letter.isprintable() else " " for letter in shown)


def counted(number: int, one: str, several: str) -> str:
    """``1 file``, ``1,000 files``."""
    return f"{number:,} {one if number == 1 else several}"


def percent(share: float) -> str:
    """A share of 0 to 1; 100 % is only what is whole."""
    return f"{100 if share >= 1.0 else min(99, int(share * 100))}%"


def left(seconds: float) -> str:
    """A length of time as people say it: ``20 s``, ``7 min``, ``3 h``, ``2 days``."""
    unit, word = next((unit, word) for most, unit, word in LENGTHS if seconds <= most)
    number = max(1, round(seconds / unit)) if unit > 1 else max(5, 5 * math.ceil(seconds / 5))
    return f"{number} {word}"


# -- One download.


class Room(IntEnum):
    """How much is said of each download: the same in all rows of a list, so that nothing jumps."""

    FULL = 0
    """``34.1 of 100 MiB, 4.5 MiB/s, 7 min left``"""
    PACE = 1
    """``34%, 4.5 MiB/s, 7 min left``"""
    LEFT = 2
    """``34%, 7 min left``"""
    SHARE = 3
    """``34%``"""


# The widest that each says, save for the moment in which a large file has but few bytes.
WIDEST = {
    Room.FULL: "88.8 of 88.8 MiB, 88.8 MiB/s, 88 min left",
    Room.PACE: "88%, 88.8 MiB/s, 88 min left",
    Room.LEFT: "88%, 88 min left",
}


def room(width: float, measure: Measure) -> Room:
    """How much there is room for in a bar of so many pixels."""
    return next((room for room, widest in WIDEST.items() if measure(widest) <= width), Room.SHARE)


def state(row: Download) -> str:
    """What a download is doing; of a running one the finer word, empty while bytes come in."""
    if row.status is not Status.RUNNING:
        return NAMES[row.status]
    phase, idle = row.progress.phase, row.progress.idle
    if row.progress.text and phase not in (Phase.TURN, Phase.AWAY):
        return row.progress.text
    if phase is Phase.BODY:
        return f"stalled for {idle:.0f} s" if idle >= STALLED else ""
    return phase.value


def line(row: Download, room: Room = Room.FULL) -> tuple[str, ...]:
    """A download in a line: what to say, and what else where that does not fit.

    Numbers have one form for each `room`; of words and numbers the numbers may be left out.
    """
    if row.status in (Status.FINISHED, Status.SKIPPED):
        known = row.size or row.received
        return (f"{state(row)}, {amount(known)}", state(row)) if known else (state(row),)
    words = state(row)
    if not words:
        return (_pace_of(row, room),)
    shorter = (words, words.replace(" for ", " "))
    tells = row.received and row.status is not Status.FAILED  # at 100 %, perhaps: why it failed says more
    lengths = (f"{words}, {_amount(row, room)}", *shorter) if tells else shorter
    return tuple(dict.fromkeys(lengths))


def received(row: Download) -> str:
    """What is there of an unfinished download; empty where it failed and nothing is."""
    if not row.received:
        return "" if row.status is Status.FAILED else "Nothing was received yet"
    return f"{portion(row.received, row.size) if row.size else amount(row.received)} received"


def _amount(row: Download, room: Room) -> str:
    if not row.size:
        return amount(row.received)
    return portion(row.received, row.size) if room is Room.FULL else percent(row.fraction)


def _pace_of(row: Download, room: Room) -> str:
    """What comes in. Without a size there is no time left to tell, and room for the speed."""
    parts = [_amount(row, room)]
    if row.measured >= MEASURED:
        if room <= (Room.PACE if row.size else Room.LEFT):
            parts.append(f"{amount(row.speed)}/s")
        if room <= Room.LEFT and (seconds := _left_of(row)) is not None:
            parts.append(f"{left(seconds)} left")
    return ", ".join(parts)


def first_sentence(text: str) -> str:
    """As much of an error or a note as a row has room for."""
    return re.split(r"(?<=[\w)”])[.;]\s|\n", text, maxsplit=1)[0].rstrip(".")


# -- All of them.


def totals(counts: Mapping[Status, int]) -> str:
    """What the list holds: ``1 running, 2 paused, 4 finished``."""
    return ", ".join(f"{counts[status]:,} {name}" for status, name in NAMES.items() if counts.get(status))


def sentence(text: str) -> str:
    """With a capital at its beginning."""
    return text[:1].upper() + text[1:]


class Pace(NamedTuple):
    """How far a run is."""

    share: float
    """0 to 1; every file counts the same, since the sizes of those that wait are not known."""
    done: int
    """Files that are there."""
    number: int
    """Files that this run was to fetch."""
    failed: int
    left: float | None
    """Seconds that the rest will take, about; None: that is not known yet."""

    @property
    def texts(self) -> tuple[str, ...]:
        """``34%, 2 of 5, 1 failed, 7 min left``, in several lengths, the longest first."""
        share, count = percent(self.share), f"{self.done:,} of {self.number:,}"
        failed = f"{self.failed:,} failed" if self.failed else ""
        rest = f"{left(self.left)} left" if self.left is not None else ""
        lengths = (share, count, failed, rest), (count, failed, rest), (count, failed), (count,)
        return tuple(", ".join(filter(None, parts)) for parts in lengths)

    def text(self, width: float, measure: Measure) -> str:
        """The longest of them that has room for whatever the numbers become: so its form stays as it is."""
        widest = self._replace(share=0.88, done=self.number, left=88 * 60.0).texts
        fits = (text for text, most in zip(self.texts, widest, strict=True) if measure(most) <= width)
        return next(fits, self.texts[-1])


def pace(tally: Tally, counts: Mapping[Status, int], running: Collection[Download]) -> Pace:
    """How far a run is."""
    sized = [row for row in running if row.size]
    waiting = counts.get(Status.QUEUED, 0) + len(running) - len(sized)
    number = tally.ended + waiting + len(sized)
    share = min(1.0, (tally.ended + sum(row.fraction for row in running)) / number) if number else 0.0
    return Pace(
        share=share,
        done=tally.finished + tally.skipped,
        number=number,
        failed=tally.failed,
        left=_left(tally, sized, waiting),
    )


def _left(tally: Tally, sized: Collection[Download], waiting: int) -> float | None:
    """Seconds, if the files that wait are as large as those that are known, on the average."""
    known = tally.finished + len(sized)
    comes_in = any(not state(row) for row in sized)
    if tally.measured < MEASURED or tally.speed < 1.0 or not comes_in or waiting > GUESSED * known:
        return None
    mean = (tally.bytes + sum(row.size or 0 for row in sized)) / known
    rest = sum(max(0, (row.size or 0) - row.received) for row in sized)
    each = (left for row in sized if (left := _left_of(row)) is not None)  # the last one ends it
    return max((rest + waiting * mean) / tally.speed, *each, 0.0)


def _left_of(row: Download) -> float | None:
    """Seconds that the rest of a download will take; None: that is not known."""
    if not row.size or row.measured < MEASURED or row.speed < 1.0:
        return None
    return max(0, row.size - row.received) / row.speed


# -- What fits.


def _fits(text: str, width: float, measure: Measure, rest: str = "") -> int:
    """How many characters of a text that is too wide have room, and `rest` after them."""
    return bisect_right(range(1, len(text)), width, key=lambda end: measure(text[:end] + rest))


def clipped(text: str, width: float, measure: Measure) -> str:
    """A text, or as many of its words as fit and an ellipsis: Blender's own would be in the middle.

    A word is cut where too much room would be left without it.
    """
    if not text or measure(text) <= width:
        return text
    end = _fits(text, width, measure, "…")
    between = end if text[end] == " " else text.rfind(" ", 0, end)
    if between > 0 and measure(f"{text[:between]}…") >= width * FILLED:
        end = between
    return f"{text[:end].rstrip(' ,:')}…"


def told_apart(name: str, others: Iterable[str], width: float, measure: Measure) -> str:
    """A name, or where it has no room that of it in which it differs from its neighbours'.

    Blender cuts in the middle, which is where files of one set differ.
    """
    if measure(name) <= width:
        return name
    alike = max((_alike(name, other) for other in others), default=0)
    begin = len(re.sub(r"[^\W_]{1,8}\Z", "", name[:alike]))  # of the word, or number, in which they differ
    if min(measure(name[: alike + 1]), measure(name[begin:])) <= width * SEEN:
        return name
    rest = f"…{name[begin:]}"
    head = max(HEAD, _fits(name[:begin], width, measure, rest))
    return clipped(f"{name[:head]}{rest}", width, measure)


def _alike(text: str, other: str) -> int:
    """How many characters two texts begin with in common."""
    pairs = enumerate(zip(text, other, strict=False))
    return next((place for place, (one, two) in pairs if one != two), min(len(text), len(other)))


def fitting(texts: Iterable[str], width: float, measure: Measure) -> str:
    """The first of several texts that is not too wide, else the last one."""
    text = ""
    for text in texts:
        if measure(text) <= width:
            break
    return text


def wrapped(text: str, width: float, measure: Measure) -> list[str]:
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


def _cut(word: str, width: float, measure: Measure) -> list[str]:
    pieces = []
    while measure(word) > width and len(word) > 1:
        end = max(1, _fits(word, width, measure))
        pieces.append(word[:end])
        word = word[end:]
    return [*pieces, word]
