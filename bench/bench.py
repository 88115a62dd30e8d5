"""Times the extension against other downloaders, in one interleaved run. Runs inside Blender as a module.

Ours is timed from `downloads.start` (executed: workers start, download, are joined) to its return;
the others as whole processes, less the time in which the same program does nothing. Files come from
nginx on loopback and go to memory (/dev/shm), so that neither network nor disk hides a difference.

    make bench                                  all
    make bench BENCH_ARGS="--rounds 3 P1"       one of them
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import bpy

ROOT = Path(__file__).resolve().parents[1]
PORT = 8377
MIB = 1 << 20
CONNECTIONS = 16

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    server {{
        listen 127.0.0.1:{port}; root {folder}/www;
        location /slow/ {{ alias {folder}/www/; limit_rate 4m; }}
    }}
}}
"""


class Work:
    """Files to fetch, and how each program is asked to fetch them."""

    def __init__(
        self,
        name: str,
        text: str,
        count: int,
        size: int,
        *,
        place: str = "",
        each: int = 1,
        limit: int = CONNECTIONS,
    ) -> None:
        """At most `limit` connections at once; of these, at most `each` for one file, where one asks that."""
        self.name = name
        self.text = text
        self.place = place
        self.each = each
        self.limit = limit
        self.files = [(f"{name}-{number}.bin", size) for number in range(count)]

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{PORT}/{self.place}{name}" for name, _ in self.files]

    def make(self, folder: Path) -> None:
        for name, size in self.files:
            with open(folder / name, "wb") as file:
                for _ in range(max(1, size // MIB)):
                    file.write(os.urandom(min(size, MIB)))

    def is_done(self, folder: Path) -> bool:
        return all((folder / name).stat().st_size == size for name, size in self.files)


WORKS = {
    "P1": Work("P1", "one file of 1 GiB", 1, 1024 * MIB),
    "P3": Work("P3", "2000 files of 16 KiB", 2000, 16 << 10),
    "P4": Work("P4", "256 MiB, 4 MiB/s a connection", 1, 256 * MIB, place="slow/", each=8, limit=8),
}


def ours(work: Work, out: Path) -> float:
    """Seconds that `downloads.start` takes."""
    urls = "\n".join(work.urls)
    bpy.context.preferences.system.network_connection_limit = work.limit
    began = time.perf_counter()
    bpy.ops.downloads.start(urls=urls, directory=str(out))
    took = time.perf_counter() - began
    bpy.ops.downloads.clear()
    return took


def process(command: Callable[[Work, Path], list[str]], idle: list[str]) -> Callable[[Work, Path], float]:
    """Seconds that a program takes, less those of `idle`."""

    def measure(work: Work, out: Path) -> float:
        return _seconds(command(work, out)) - _seconds(idle)

    return measure


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def curl(work: Work, out: Path) -> list[str]:
    config = out.with_suffix(".curl")
    config.write_text("".join(f'url = "{url}"\nremote-name\n' for url in work.urls))
    parallel = ["--parallel", "--parallel-max", str(work.limit)] if len(work.files) > 1 else []
    return ["curl", "--silent", "--fail", *parallel, "--output-dir", str(out), "--config", str(config)]


def aria2c(work: Work, out: Path) -> list[str]:
    links = out.with_suffix(".aria2")
    links.write_text("\n".join(work.urls))
    options = ["--quiet", "--file-allocation=none", f"-j{work.limit}", "--allow-overwrite=true"]
    options += [f"-x{work.each}", f"-s{work.each}", "-k1M"]
    return ["aria2c", *options, f"--dir={out}", f"--input-file={links}"]


PEERS = {
    "ours": ours,
    "curl": process(curl, ["curl", "--version"]),
    "aria2c": process(aria2c, ["aria2c", "--version"]),
}


def compare(work: Work, folder: Path, rounds: int) -> None:
    """Each program in turn, `rounds` times after one that does not count; medians and ratios."""
    work.make(folder / "www")
    peers = {name: measure for name, measure in PEERS.items() if name == "ours" or shutil.which(name)}
    times: dict[str, list[float]] = {name: [] for name in peers}
    for number in range(rounds + 1):
        for name, measure in peers.items():
            took = _run(work, folder / f"{name}-out", measure)
            if number:
                times[name].append(took)
    print(f"{work.name}  {work.text}, median of {rounds}")
    for name, values in times.items():
        ratio = statistics.median(times["ours"]) / statistics.median(values)
        line = f"    {name:8} {statistics.median(values):7.3f} s   ({min(values):.3f} to {max(values):.3f})"
        print(line, "" if name == "ours" else f"  ours takes {ratio:.2f} times as long", flush=True)


def _run(work: Work, out: Path, measure: Callable[[Work, Path], float]) -> float:
    out.mkdir()
    try:
        took = measure(work, out)
        if not work.is_done(out):
            raise SystemExit(f"{out.name}: the files are not what they should be")
        return took
    finally:
        shutil.rmtree(out)


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[None]:
    """nginx on loopback, serving `folder`/www."""
    (folder / "www").mkdir()
    folder.chmod(0o755)  # its workers are another user when we are root
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, port=PORT))
    server = subprocess.Popen(["nginx", "-c", configuration, "-e", folder / "error.log"])
    try:
        _wait_for_server(server)
        yield
    finally:
        server.terminate()
        server.wait()


def _wait_for_server(server: subprocess.Popen[bytes]) -> None:
    import socket

    while server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", PORT), 1):
            return
        time.sleep(0.02)
    raise SystemExit("nginx does not start")


@contextlib.contextmanager
def extension(folder: Path) -> Iterator[None]:
    """The extension as it is in this tree, registered in this process."""
    (folder / "background_downloads").symlink_to(ROOT)
    sys.path.insert(0, str(folder))
    bpy.context.preferences.system.use_online_access = True
    import background_downloads

    background_downloads.register()
    try:
        yield
    finally:
        background_downloads.unregister()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("which", nargs="*", default=[*WORKS, "cancel"])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="bench-", dir=memory) as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        stack.enter_context(nginx(folder))
        stack.enter_context(extension(folder))
        print(f"Blender {bpy.app.version_string}, Python {sys.version.split()[0]}, {os.cpu_count()} cores")
        for which in options.which:
            if which == "cancel":
                import cancel

                cancel.report()
            else:
                compare(WORKS[which], folder, options.rounds)


if __name__ == "__main__":
    main()
