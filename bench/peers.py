"""What the extension is measured beside: curl, aria2c and Blender's own downloader, as whole processes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from serving import TINY, File, Site

Command = list[str]
NEWS = 0.01  # seconds between two looks at what Blender's downloader tells


@dataclass(frozen=True, kw_only=True)
class Work:
    """Files to fetch, and how."""

    bar: str
    text: str
    files: Sequence[File]
    limit: int = 16
    """Connections at once, in all."""
    each: int = 1
    """Connections for one file, where a program has to be told."""
    place: str = ""
    tls: bool = False
    digest: str = ""
    """The SHA-256 that the one file has."""
    at_most: dict[str, float] = field(default_factory=dict)
    """The bar beside each peer: how many times as long ours may take."""

    def urls(self, site: Site) -> list[str]:
        return [site.url(file.name, self.place, tls=self.tls) for file in self.files]


def curl(work: Work, site: Site, out: Path) -> Command:
    config = out.with_suffix(".curl")
    config.write_text("".join(f'url = "{url}"\nremote-name\n' for url in work.urls(site)))
    parallel = ["--parallel", "--parallel-max", str(work.limit)] if len(work.files) > 1 else []
    options = ["--silent", "--fail", "--cacert", str(site.certificate), *parallel]
    return ["curl", *options, "--output-dir", str(out), "--config", str(config)]


def curl_then_sum(work: Work, site: Site, out: Path) -> Command:
    paths = [str(out / file.name) for file in work.files]
    return ["sh", "-c", '"$0" "$@" && sha256sum ' + " ".join(paths), *curl(work, site, out)]


def aria2c(work: Work, site: Site, out: Path) -> Command:
    links = out.with_suffix(".aria2")
    links.write_text("\n".join(work.urls(site)))
    options = ["--quiet", "--file-allocation=none", f"-j{work.limit}", "--allow-overwrite=true"]
    options += [f"-x{work.each}", f"-s{work.each}", "-k1M", f"--ca-certificate={site.certificate}"]
    return ["aria2c", *options, f"--dir={out}", f"--input-file={links}"]


def blenders(work: Work, site: Site, out: Path) -> Command:
    """Blender's own downloader, with `limit` threads in the child process that it has."""
    links = out.with_suffix(".blender")
    links.write_text("\n".join([site.url(TINY.name), *work.urls(site)]))
    return [sys.executable, __file__, str(links), str(out), str(work.limit)]


Measure = Callable[[Work, Site, Path, Sequence[str]], float]
"""Seconds for some work; the last are the words of a command that runs another one."""


def _less_its_start(command: Callable[[Work, Site, Path], Command]) -> Measure:
    """Seconds that a program takes, less those in which it only says its version."""

    def measure(work: Work, site: Site, out: Path, within: Sequence[str]) -> float:
        words = command(work, site, out)
        name = "curl" if words[0] == "sh" else words[0]
        return _seconds([*within, *words]) - _seconds([*within, name, "--version"])

    return measure


def _seconds(command: Command) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def _as_it_says(work: Work, site: Site, out: Path, within: Sequence[str]) -> float:
    """Blender's says itself how long it took once its child process was up."""
    words = [*within, *blenders(work, site, out)]
    return float(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)


PEERS: dict[str, Measure] = {
    "curl": _less_its_start(curl),
    "curl + sha256sum": _less_its_start(curl_then_sum),
    "aria2c": _less_its_start(aria2c),
    "Blender's": _as_it_says,
}


def is_here(name: str) -> bool:
    """Whether a peer can be had on this machine."""
    if name == "Blender's":
        return (_blenders_modules() / "_bpy_internal/http/downloader.py").exists()
    return bool(shutil.which(name.split()[0]))


# -- Inside a process of its own: Blender's downloader, without the rest of Blender.


def _blenders_modules() -> Path:
    import importlib.util

    spec = importlib.util.find_spec("bpy")
    found = sorted(Path(spec.origin).parent.glob("*/scripts/modules")) if spec and spec.origin else []
    return found[-1] if found else Path("/nonexistent")


def fetch(links: str, out: str, limit: int) -> float:
    """Seconds in which it fetches what a file lists, after the first. It is asked for news as by a timer."""
    sys.path.append(str(_blenders_modules()))
    from _bpy_internal.http import downloader as theirs

    def failed(*what: object) -> None:
        raise SystemExit(f"failed: {what}")

    options = theirs.DownloaderOptions(
        metadata_provider=theirs.MetadataProviderFilesystem(cache_location=Path(f"{out}.metadata")),
        timeout=60,
        http_headers={"user-agent": "Blender"},
        num_parallel_downloads=limit,
    )
    background = theirs.BackgroundDownloader(options, failed)
    background.start()
    first, *others = Path(links).read_text().split()
    for urls in [first], others:
        began = time.perf_counter()
        for url in urls:
            background.queue_download(url, Path(out) / url.rpartition("/")[2])
        while not background.all_downloads_done:
            background.update()
            time.sleep(NEWS)
    if background.num_downloads_error:
        raise SystemExit("not all are there")
    took = time.perf_counter() - began
    background.shutdown()
    return took


if __name__ == "__main__":
    print(fetch(sys.argv[1], sys.argv[2], int(sys.argv[3])))
