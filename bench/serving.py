"""What is fetched: files of noise on tmpfs, from nginx on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
STARTS = 10.0  # seconds until a server answers for sure

# /at-781k/ sends so many KiB a second on each connection, in small pieces as a line does;
# /slow/ in large ones; /many/ has as many files as one asks for.
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    log_format wire '$body_bytes_sent $uri';
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; etag on;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    server {{
        listen {address}:{port}; listen {address}:{tls_port} ssl; root {folder}/www;
        ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
        location /slow/ {{ alias {folder}/www/; limit_rate 4m; }}
        location /many/ {{ try_files /tiny.bin =404; }}
        location ~ ^/at-(?<rate>[0-9]+)k/(?<name>.*)$ {{
            alias {folder}/www/$name; limit_rate ${{rate}}k; sendfile_max_chunk 16k;
            access_log {folder}/wire.log wire;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class File:
    """A file of noise; several may be one on the disk."""

    name: str
    size: int
    like: str = ""


TINY = File("tiny.bin", 1000)


class Site:
    """nginx and its files; `url` says where one of them is."""

    def __init__(self, folder: Path, address: str = "127.0.0.1", within: Sequence[str] = ()) -> None:
        """`within` is a command that runs another one where the address is."""
        self.folder = folder
        self.address = address
        self.port, self.tls_port = _free_ports(2)
        self.within = within
        (folder / "www").mkdir(parents=True)
        _open_to_all(folder)  # nginx's workers are another user when we are root
        self.make([TINY])

    @property
    def www(self) -> Path:
        return self.folder / "www"

    @property
    def certificate(self) -> Path:
        return self.folder / "cert.pem"

    def url(self, name: str, place: str = "", *, tls: bool = False) -> str:
        scheme, port = ("https", self.tls_port) if tls else ("http", self.port)
        return f"{scheme}://{self.address}:{port}/{place}{name}"

    def make(self, files: Iterable[File]) -> None:
        """Files that are not there yet."""
        for file in files:
            path = self.www / file.name
            if path.exists():
                continue
            if file.like:
                path.hardlink_to(self.www / file.like)
                continue
            with open(path, "wb") as out:
                for start in range(0, file.size, MIB):
                    out.write(os.urandom(min(file.size - start, MIB)))

    def drop(self, files: Iterable[File]) -> None:
        """Give their memory back."""
        for file in files:
            (self.www / file.name).unlink(missing_ok=True)

    def sent(self, name: str) -> list[int]:
        """Bytes of a body that each answer brought for a file under `/at-…/`, and forget them.

        nginx tells of an answer when it has ended, a moment later where the client hung up.
        """
        log = self.folder / "wire.log"
        lines = [line.split(" ", 1) for line in log.read_text().splitlines()] if log.exists() else []
        return [int(count) for count, uri in lines if uri.endswith("/" + name)]

    @contextlib.contextmanager
    def open(self) -> Iterator[Site]:
        """Serve until the block ends."""
        _make_certificate(self.folder, self.address)
        configuration = self.folder / "nginx.conf"
        values = {"folder": self.folder, "address": self.address}
        configuration.write_text(NGINX.format(port=self.port, tls_port=self.tls_port, **values))
        program = shutil.which("nginx", path=PATH) or "nginx"
        command = [*self.within, program, "-c", configuration, "-e", self.folder / "error.log"]
        server = subprocess.Popen(command)
        try:
            self._wait(server)
            yield self
        finally:
            server.terminate()
            server.wait()

    def _wait(self, server: subprocess.Popen[bytes]) -> None:
        """Its process file is there once it listens."""
        end = time.monotonic() + STARTS
        while server.poll() is None and time.monotonic() < end:
            if (self.folder / "nginx.pid").exists():
                return
            time.sleep(0.01)
        raise SystemExit(f"nginx does not start: {(self.folder / 'error.log').read_text()}")


def is_equal(one: Path, other: Path) -> bool:
    """Whether two files have the same bytes."""
    with open(one, "rb") as first, open(other, "rb") as second:
        while True:
            a, b = first.read(MIB), second.read(MIB)
            if a != b:
                return False
            if not a:
                return True


def _make_certificate(folder: Path, address: str) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=bench"]
    command += ["-addext", f"subjectAltName=IP:{address}"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _open_to_all(folder: Path) -> None:
    for each in (folder, *folder.parents):
        if each.owner() == folder.owner() and each.stat().st_mode & 0o055 != 0o055 and each != Path("/"):
            each.chmod(0o755)
