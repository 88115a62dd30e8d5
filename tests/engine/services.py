"""Real servers for the tests: nginx and Squid, each in a private folder, ended for certain.

Both run as one process in the foreground, a child of ours that dies with us, whatever happens to the
tests. Squid's helpers leave when it does.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from server import DEADLINE, Certificates

PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
SQUIDS_USER = "proxy"  # Debian's; as root Squid insists on another one than root
TIMES = 5  # that a server is started, each time with other ports: somebody may take one on the way
LOOK = 0.01  # seconds between two looks at a server that starts


def find(program: str) -> str | None:
    """Where a program is, also one that is not for everyone."""
    return shutil.which(program, path=PATH)


class Service:
    """A server that runs until the block ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = self.other_port = 0

    def command(self) -> Sequence[str | Path]:
        """Write the configuration for these ports, and say how to start it."""
        raise NotImplementedError

    user: str | None = None

    def __enter__(self) -> Self:
        for _ in range(TIMES):
            self.port, self.other_port = _free_ports()
            self._start()
            until(lambda: self._has_ended() or self._answers(), self.said)
            if not self._has_ended():
                return self
            self._stop()
        raise OSError(f"it does not start: {self.said()}")

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        guard = [find("setpriv") or "setpriv", "--pdeathsig", "KILL"]
        if self.user:
            guard += ["--reuid", self.user, "--regid", self.user, "--clear-groups"]
        with open(self.folder / "output", "ab") as output:
            self._process = subprocess.Popen(
                [*guard, *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=self.folder,
            )

    def _has_ended(self) -> bool:
        return self._process.poll() is not None

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.other_port)):
            return True
        return False

    def _stop(self) -> None:
        """It and every process that it started; nothing is lost with them."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def said(self) -> str:
        return (self.folder / "output").read_text(errors="replace")


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def until(condition: Callable[[], Any], what: Callable[[], str]) -> Any:
    """Look until the condition holds; the deadline only keeps a failing test from hanging."""
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(what())
        time.sleep(LOOK)
    return value


# -- nginx.

NGINX = """
daemon off; master_process off; pid nginx.pid; error_log output notice;
events {{ worker_connections 256; }}
http {{
    log_format facts escape=json '{{"path": "$request_uri", "status": $status, "sent": $body_bytes_sent,'
        '"range": "$http_range", "if_range": "$http_if_range", "authorization": "$http_authorization",'
        '"proxy_authorization": "$http_proxy_authorization",'
        '"encoding": "$http_accept_encoding", "agent": "$http_user_agent", "via": "$http_via",'
        '"referer": "$http_referer", "host": "$http_host", "address": "$server_addr"}}';
    access_log requests facts;
    client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
    default_type application/octet-stream;
    root www;
    # Slow after half a mebibyte, to whoever asks for the whole file: such a download can be caught at work.
    map $http_range $pace {{ "" 64k; default 0; }}
    server {{
        {listens}
        ssl_certificate {certificate}; ssl_certificate_key {certificate};
        {locations}
    }}
}}
"""


def _nginx(configuration: Path) -> Sequence[str | Path]:
    folder = configuration.parent
    return [find("nginx") or "nginx", "-p", folder, "-c", configuration, "-e", folder / "output"]


class Nginx(Service):
    """One nginx on 127.0.0.1 and, where there is one, ::1; plain and, on its other port, TLS."""

    def __init__(self, folder: Path, certificate: Path, locations: str) -> None:
        super().__init__(folder)
        self.www = folder / "www"
        self.www.mkdir()
        self._log = folder / "requests"
        self._certificate, self._locations = certificate, locations

    def command(self) -> Sequence[str | Path]:
        hosts = ["127.0.0.1", *["[::1]"] * has_ipv6()]
        ports = [f"{self.port}", f"{self.other_port} ssl"]
        configuration = self.folder / "nginx.conf"
        configuration.write_text(
            NGINX.format(
                listens="\n".join(f"listen {host}:{port};" for host in hosts for port in ports),
                certificate=self._certificate,
                locations=self._locations,
            )
        )
        return _nginx(configuration)

    def url(self, path: str, *, host: str = "127.0.0.1", user: str = "", tls: bool = False) -> str:
        login = f"{user}@" if user else ""
        return f"http{'s' * tls}://{login}{host}:{self.other_port if tls else self.port}{path}"

    def add(self, name: str, data: bytes) -> None:
        (self.www / name).parent.mkdir(parents=True, exist_ok=True)
        (self.www / name).write_bytes(data)

    def requests(self, path: str, n: int = 1) -> list[dict[str, Any]]:
        """Those that it has answered, once there are `n` in its log."""

        def found() -> list[dict[str, Any]] | None:
            lines = self._log.read_text().splitlines(keepends=True)
            facts = [json.loads(line) for line in lines if line.endswith("\n")]
            ours = [fact for fact in facts if fact["path"] == path]
            return ours if len(ours) >= n else None

        found_now: list[dict[str, Any]] = until(found, lambda: f"{path} was not asked for {n} times")
        return found_now


MIRROR = """
daemon off; master_process off; pid nginx.pid; error_log output notice;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
    {upstreams}
    {page}
}}
"""


class StudioMirror(Service):
    """The mirror of docs/studio.md, as it stands there but for names that are this machine's own."""

    def __init__(self, folder: Path, certificates: Certificates, servers: Mapping[str, int]) -> None:
        """`servers`: names that exist nowhere, and the ports where they are."""
        super().__init__(folder)
        self._certificates = certificates
        self._upstreams = [
            f"upstream {name} {{ server 127.0.0.1:{port}; }}" for name, port in servers.items()
        ]

    def command(self) -> Sequence[str | Path]:
        page = _page_of_studios()
        for theirs, ours in (
            ("/var/cache/nginx/downloads", "cache"),
            ("listen 443 ssl;", f"listen 127.0.0.1:{self.other_port} ssl;"),
            ("/etc/ssl/mirror.example.pem", self._certificates.good),
            ("/var/log/nginx/downloads.log", "requests"),
            ("/etc/ssl/certs/ca-certificates.crt", self._certificates.ca),
        ):
            assert theirs in page
            page = page.replace(theirs, str(ours))
        configuration = self.folder / "nginx.conf"
        configuration.write_text(MIRROR.format(upstreams="\n".join(self._upstreams), page=page))
        return _nginx(configuration)

    @property
    def template(self) -> str:
        return f"https://127.0.0.1:{self.other_port}/{{scheme}}/{{host}}/{{path}}"


def _page_of_studios() -> str:
    text = (Path(__file__).parents[2] / "docs" / "studio.md").read_text("utf-8")
    return text.partition("```nginx\n")[2].partition("```")[0]


def has_ipv6() -> bool:
    """Whether this machine has ::1."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def htpasswd(user: str, password: str) -> str:
    """A line that nginx understands."""
    digest = base64.b64encode(hashlib.sha1(password.encode(), usedforsecurity=False).digest()).decode()
    return f"{user}:{{SHA}}{digest}\n"


# -- Squid.

SQUID = """
http_port 127.0.0.1:{port} name=open
http_port 127.0.0.1:{other_port} name=locked
acl from_locked myportname locked
auth_param basic program {helper} {folder}/passwords
auth_param basic children 1 startup=1
auth_param basic realm tests
acl known proxy_auth REQUIRED
http_access deny from_locked !known
http_access allow all
hosts_file {folder}/hosts
dns_nameservers 127.0.0.1
cache_mem 64 MB
memory_cache_shared off
maximum_object_size 64 MB
maximum_object_size_in_memory 64 MB
shutdown_lifetime 0 seconds
pid_filename none
coredump_dir {folder}
cache_log {folder}/cache.log
access_log stdio:{folder}/access.log
cache_store_log none
visible_hostname squid.example
pinger_enable off
"""


class Squid(Service):
    """One Squid that caches in memory: a port for everybody, and another that asks for a password."""

    HELPERS = ("/usr/lib/squid/basic_ncsa_auth", "/usr/lib64/squid/basic_ncsa_auth")

    def __init__(self, folder: Path, *, user: str, password: str, hosts: str) -> None:
        super().__init__(folder)
        self._shared = f"tests{os.getpid()}"  # the name of the memory that its processes share
        digest = hashlib.md5(password.encode(), usedforsecurity=False).hexdigest()
        (folder / "passwords").write_text(f"{user}:{digest}\n")
        (folder / "hosts").write_text(hosts)
        if os.geteuid() == 0:
            self.user = SQUIDS_USER
            import pwd

            owner = pwd.getpwnam(self.user)
            os.chown(folder, owner.pw_uid, owner.pw_gid)

    def command(self) -> Sequence[str | Path]:
        helper = next(filter(os.path.exists, self.HELPERS))
        configuration = self.folder / "squid.conf"
        ports = {"port": self.port, "other_port": self.other_port}
        configuration.write_text(SQUID.format(folder=self.folder, helper=helper, **ports))
        return [find("squid") or "squid", "-N", "-n", self._shared, "-f", configuration]

    def _stop(self) -> None:
        super()._stop()
        for shared in Path("/dev/shm").glob(f"{self._shared}-*.shm"):
            shared.unlink(missing_ok=True)

    def url(self, *, user: str = "") -> str:
        """For everybody, or for this user."""
        return f"http://{user}@127.0.0.1:{self.other_port}" if user else f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that other users than ours may enter."""
    with tempfile.TemporaryDirectory(prefix="downloads-tests-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)
