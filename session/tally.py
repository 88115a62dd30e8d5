"""How the downloads of a run ended, how fast they come, and since when it goes on. Knows no Blender."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from ..transfer.job import Progress
from ..workers import Download, Status

SPEED_SECONDS = 10.0  # over which a speed is measured, so that the time left does not jump


@dataclass(slots=True)
class Tally:
    """The counts of a run; one that is interrupted and goes on keeps counting."""

    finished: int = 0
    skipped: int = 0
    cancelled: int = 0
    failed: int = 0
    stopped: dict[int, str] = field(default_factory=dict)
    """By its uid, what failed, and why; what was cancelled has no word. Each may be tried again."""
    bytes: int = 0
    """In the files that are finished."""
    fetched: int = 0
    """Bytes that came in since the speed was last measured."""
    speed: float = 0.0
    """Bytes a second, all downloads together."""
    measured: float = 0.0
    """Seconds that the speed was measured over."""
    was_held: bool = False
    """Whether all downloads were held up when it was last measured."""
    paused: int = 0
    """Rows that have not ended, and wait to be resumed."""
    began: float = 0.0
    """When Blender could last autosave: the run first began, a file was loaded, or the run was
    interrupted for that. In seconds of `time.monotonic`; 0 while no run goes on."""

    @property
    def goes_on(self) -> bool:
        """Whether a run has begun and not come to its end, interrupted though it may be."""
        return self.began > 0.0

    @property
    def ended(self) -> int:
        """How many there were."""
        return self.finished + self.skipped + self.cancelled + self.failed

    @property
    def sentence(self) -> str:
        """The report at the end of a run."""
        counts = {
            "downloaded": self.finished,
            "skipped": self.skipped,
            "cancelled": self.cancelled,
            "paused": self.paused,
            "failed": self.failed,
        }
        text = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
        last_error = next(filter(None, reversed(self.stopped.values())), "")
        return f"{text}: {last_error}" if last_error else text or "Nothing left to download"

    def count(self, row: Download) -> None:
        """A download has another status; one that is tried again counts once."""
        self.forget(row.uid)
        match row.status:
            case Status.FINISHED:
                self.finished += 1
                self.bytes += row.size or 0
            case Status.SKIPPED:
                self.skipped += 1
            case Status.CANCELLED:
                self.cancelled += 1
                self.stopped[row.uid] = ""
            case Status.FAILED:
                self.failed += 1
                self.stopped[row.uid] = f"{row.name}: {row.error}"

    def forget(self, uid: int) -> None:
        """What failed or was cancelled is tried again, or another takes its place."""
        why = self.stopped.pop(uid, None)
        if why:
            self.failed -= 1
        elif why is not None:
            self.cancelled -= 1

    def measure(self, seconds: float, *, is_held: bool) -> None:
        """Look at what was fetched, so long after the last time; where all was held up since then, or
        is, it begins anew.
        """
        self.speed, self.measured = smoothed(self.speed, self.measured, self.fetched, seconds)
        if is_held or self.was_held:
            self.speed = self.measured = 0.0
        self.was_held = is_held
        self.fetched = 0

    def end(self, paused: int) -> Tally:
        """The counts of the run that has ended; the next one counts anew."""
        ended = replace(self, paused=paused)
        self.go_on_from(Tally())
        return ended

    def go_on_from(self, other: Tally) -> None:
        """Say what another one says."""
        for each in fields(self):
            setattr(self, each.name, getattr(other, each.name))


def is_held_up(progress: Progress) -> bool:
    """Whether nothing comes in, or has not for so long that a speed with that in it says nothing."""
    return bool(progress.text) or progress.idle >= SPEED_SECONDS


def smoothed(speed: float, measured: float, count: int, seconds: float) -> tuple[float, float]:
    """A speed, and for how long it was measured, when `count` bytes more have come in `seconds`."""
    if seconds <= 0:
        return speed, measured
    if seconds > SPEED_SECONDS:  # nobody looked: Blender stood still, or the computer slept
        return 0.0, 0.0
    measured = min(SPEED_SECONDS, measured + seconds)
    return speed + (count / seconds - speed) * min(1.0, seconds / measured), measured
