"""The record of one download, which the main thread keeps."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..transfer import names
from ..transfer.job import Digest, IfExists, Progress
from .status import Status

_NOTHING_YET = Progress()


@dataclass(slots=True, kw_only=True, eq=False)
class Download:
    """The record of one download. The main thread writes it; everything shown is derived from it."""

    uid: int
    url: str
    """With secrets: never show it; `transfer.names.shown` is for people."""
    directory: str
    if_exists: IfExists = IfExists.RENAME
    when_done: str = "NOTHING"
    catalog: str = ""
    """Of the asset library that `directory` is in: where its marked assets go. Empty: they keep theirs."""
    wanted: str = ""
    """What the file is to be called, as a list said; safe."""
    mirrors: tuple[str, ...] = field(default=(), repr=False)
    """Where it can be had besides, the best first, what was asked already last. With secrets."""
    missed: int = 0
    """How many of these places have failed it since somebody asked for it last."""
    digest: Digest | None = None
    partial: str = ""
    """The name of the partial file of an earlier link, which this one goes on with."""
    is_cut: bool = False
    """Whether `url` lost its user, password or query: then nothing can be fetched with it."""
    status: Status = Status.QUEUED
    stays_paused: bool = False
    """Whether a person paused it: then it is not resumed at start."""
    filepath: str = ""
    error: str = ""
    note: str = ""
    verified: str = ""
    """Once it is finished: the kind of digest that it was compared with."""
    progress: Progress = _NOTHING_YET
    """How far it is, as its worker told last."""
    speed: float = 0.0
    """Bytes a second, smoothed."""
    measured: float = 0.0
    """Seconds that it was measured over."""
    _part: tuple[str, str, str] = field(default=("", "", ""), init=False, repr=False)
    """The link and the folder that `part` was made of, and it: whole lists are looked through for one."""

    _named: tuple[str, str] = field(default=("", ""), init=False, repr=False)
    """Likewise the link, and what it says the file is called: lists are searched for names."""

    @property
    def is_unfinished(self) -> bool:
        """Whether there is something left to do, now or when asked."""
        return self.status not in (Status.FINISHED, Status.SKIPPED)

    @property
    def name(self) -> str:
        """What the file is, or will be, called; until that is known, what its link says."""
        return self.progress.name or self.wanted or self._name_in_url()

    def _name_in_url(self) -> str:
        url, name = self._named
        if url is not self.url:
            name = names.from_url(self.url) or names.FALLBACK
            self._named = self.url, name
        return name

    @property
    def part(self) -> str:
        """What its partial file is called, if it has one; of half a link that is another one's."""
        url, directory, name = self._part
        if url is not self.url or directory is not self.directory:
            name = names.part_name(self.url, self.directory)
            self._part = self.url, self.directory, name
        return name

    @property
    def received(self) -> int:
        """Bytes on the disk."""
        return self.progress.received

    @property
    def size(self) -> int | None:
        """Bytes, where known."""
        return self.progress.size

    @property
    def fraction(self) -> float:
        """How much of it is there, 0 to 1."""
        if not self.is_unfinished:
            return 1.0
        return min(1.0, self.received / self.size) if self.size else 0.0
