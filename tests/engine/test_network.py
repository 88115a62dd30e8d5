"""Through real servers: Squid, nginx over TLS, passwords, IPv6. What they ask of us is theirs to say."""

from __future__ import annotations

import gzip
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from driving import Driver, Fetcher, Halted, IfExists, Settings, failed, finished, names, new_job, skipped
from server import Certificates, Gate, Proxy, Server, drip, first, pattern, stall_after, unreachable_port
from services import Nginx, Squid, find, has_ipv6, htpasswd, private_folder

from background_downloads.transfer import connect

DATA = pattern(3 << 20)
PLAIN = b"o rock.001\n" * 100_000  # what gzip makes smaller
EAGER = Settings(timeout=90.0, connections=4, split_seconds=0.0)
SLOW_AFTER = 512 << 10  # bytes, as nginx.conf has it
USER, PASSWORD = "me", "p4ss"
TOKEN = "t0ken"


def needs(program: str, package: str) -> pytest.MarkDecorator:
    missing = not (find(program) and find("setpriv"))
    return pytest.mark.skipif(missing, reason=f"{program} is not installed (Debian: {package}, util-linux)")


needs_squid = needs("squid", "squid")
needs_openssl = needs("openssl", "openssl")
needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6, not even ::1")
pytestmark = needs("nginx", "nginx-light")

LOCATIONS = """
    location /private/ { auth_basic "tests"; auth_basic_user_file passwords; }
    location /slow/ { limit_rate_after 512k; limit_rate $pace; }
    location /paced/ { limit_rate 1m; }
    location /squeezed/ { gzip on; gzip_types *; gzip_proxied any; gzip_min_length 1; }
    location /always/ { gzip_static always; }
    location = /to-private { return 302 /private/a.bin; }
    location = /private/away { auth_basic off; return 302 $arg_to; }
"""
FILES = ("a.bin", "private/a.bin", "slow/a.bin", "paced/a.bin", "squeezed/a.bin")


@pytest.fixture(scope="module")
def nginx(certificates: Certificates) -> Iterator[Nginx]:
    with private_folder() as folder:
        (folder / "passwords").write_text(htpasswd(USER, PASSWORD) + htpasswd("jürgen", "grün: @/?#"))
        nginx = Nginx(folder, certificates.good, LOCATIONS)
        for name in FILES:
            nginx.add(name, DATA)
        nginx.add("always/a.bin.gz", gzip.compress(PLAIN))
        with nginx:
            yield nginx


@pytest.fixture(scope="module")
def squid() -> Iterator[Squid]:
    """The only one here that knows where files.example is."""
    with (
        private_folder() as folder,
        Squid(folder, user=USER, password=PASSWORD, hosts="127.0.0.1 files.example\n") as squid,
    ):
        yield squid


@pytest.fixture
def proxied(squid: Squid, monkeypatch: pytest.MonkeyPatch) -> Squid:
    """Squid for everything, without a password."""
    monkeypatch.setenv("http_proxy", squid.url())
    monkeypatch.setenv("https_proxy", squid.url())
    return squid


# -- Through Squid.


@needs_squid
@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("variable", ["http_proxy", "HTTPS_PROXY", "all_proxy"])
@pytest.mark.parametrize("user", ["", f"{USER}:{PASSWORD}"])
def test_through_squid(
    fetch: Fetcher, nginx: Nginx, squid: Squid, monkeypatch: pytest.MonkeyPatch, variable: str, user: str
) -> None:
    """Plain it is asked itself, for TLS it makes a tunnel (CONNECT)."""
    monkeypatch.setenv(variable, squid.url(user=user))
    tls = variable != "http_proxy"
    url = nginx.url(f"/a.bin?{variable}{bool(user)}", host="files.example", tls=tls)
    assert finished(fetch(url)).read_bytes() == DATA
    (request,) = nginx.requests(f"/a.bin?{variable}{bool(user)}")
    assert ("squid" in request["via"]) is not tls
    assert request["authorization"] == ""


@needs_squid
@pytest.mark.usefixtures("no_delays", "trusted")
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("user", ["", "me:wr0ng"])
def test_squid_refuses_a_wrong_password(
    fetch: Fetcher, nginx: Nginx, squid: Squid, monkeypatch: pytest.MonkeyPatch, user: str, tls: bool
) -> None:
    proxy = squid.url(user=user) if user else squid.url(user=USER).replace(f"{USER}@", "")
    monkeypatch.setenv("all_proxy", proxy)
    sentence = failed(fetch(nginx.url(f"/a.bin?{TOKEN}", host="files.example", tls=tls)))
    assert sentence.startswith("The proxy asks for a user name and a password (407). ")


@needs_squid
@pytest.mark.usefixtures("no_delays")
@pytest.mark.parametrize("tls", [False, True])
def test_squid_cannot_reach_the_server(fetch: Fetcher, proxied: Squid, tls: bool) -> None:
    sentence = failed(fetch(f"http{'s' * tls}://u:p4ss@files.example:1/a.bin?{TOKEN}"))
    assert "503" in sentence
    assert TOKEN not in sentence
    assert "p4ss" not in sentence


@needs_squid
@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize("value", ["*", "localhost", "other.example,localhost:{port}", ".example, localhost"])
def test_hosts_that_are_asked_without_squid(
    fetch: Fetcher, nginx: Nginx, proxied: Squid, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value.format(port=nginx.port))
    path = f"/a.bin?{variable}{value[:1]}"
    assert finished(fetch(nginx.url(path, host="localhost")))
    assert [request["via"] for request in nginx.requests(path)] == [""]
    # Others still go through it: this name is known to it alone.
    path = f"/a.bin?{variable}{value[:1]}other"
    if value == "*" or value.startswith(".example"):
        return
    assert finished(fetch(nginx.url(path, host="files.example")))
    assert "squid" in nginx.requests(path)[0]["via"]


@needs_squid
@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("tls", [False, True])
def test_squid_and_the_server_get_each_its_own_password(
    fetch: Fetcher, nginx: Nginx, squid: Squid, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    monkeypatch.setenv("all_proxy", squid.url(user=f"{USER}:{PASSWORD}"))
    url = nginx.url(f"/private/a.bin?{tls}", host="files.example", user=f"{USER}:{PASSWORD}", tls=tls)
    assert finished(fetch(url)).read_bytes() == DATA
    (request,) = nginx.requests(f"/private/a.bin?{tls}")
    assert request["authorization"]
    assert request["proxy_authorization"] == ""


@needs_squid
def test_squids_password_is_not_sent_to_where_a_redirect_leads_without_it(
    fetch: Fetcher, nginx: Nginx, squid: Squid, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", squid.url(user=f"{USER}:{PASSWORD}"))
    monkeypatch.setenv("no_proxy", "localhost")
    target = server.add("/b.bin", body=DATA).replace("127.0.0.1", "localhost")
    url = nginx.url(f"/private/away?to={target}", host="files.example")
    assert finished(fetch(url)).read_bytes() == DATA
    assert {"Authorization", "Proxy-Authorization", "Via"}.isdisjoint(
        name for name, _ in server.requests[0].headers
    )


# -- What Squid keeps.


@pytest.mark.usefixtures("proxied")
@needs_squid
def test_a_second_machine_costs_the_origin_nothing(
    server: Server, new_driver: Callable[..., Driver], fetch: Fetcher, tmp_path: Path
) -> None:
    """How a studio of hundreds is served: each has a profile and a folder of its own."""
    server.add("/a.bin", body=DATA)
    url = server.url("/a.bin", host="files.example")
    assert finished(new_driver().run(new_job(url, tmp_path / "one"))).read_bytes() == DATA
    assert server.body_sent("/a.bin") == len(DATA)
    assert finished(fetch(url, tmp_path / "two")).read_bytes() == DATA
    assert finished(fetch(url, tmp_path / "three", if_exists=IfExists.UPDATE)).read_bytes() == DATA
    assert skipped(fetch(url, tmp_path / "three", if_exists=IfExists.UPDATE))
    assert len(server.requests) == 1
    assert server.body_sent("/a.bin") == len(DATA)


@pytest.mark.usefixtures("proxied")
@needs_squid
def test_what_squid_may_keep_is_asked_for_whole(
    server: Server, new_driver: Callable[..., Driver], fetch: Fetcher, tmp_path: Path
) -> None:
    """Segments would end the one answer that it can keep: it keeps no part of a file."""
    server.add("/a.bin", drip(64 << 10, 0.005), body=DATA)
    url = server.url("/a.bin", host="files.example")
    assert finished(new_driver(EAGER).run(new_job(url, tmp_path / "one"))).read_bytes() == DATA
    assert finished(fetch(url, tmp_path / "two")).read_bytes() == DATA
    assert [request.range for request in server.requests] == [None]


@pytest.mark.parametrize("place", ["http://127.0.0.1", "HTTP://127.0.0.1", "127.0.0.1", "socks.example"])
def test_what_a_proxy_may_keep_is_asked_for_whole_however_its_address_is_written(
    server: Server,
    new_thread_driver: Callable[..., Driver],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    found = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *args, **kind: found("127.0.0.1", *args, **kind))
    server.add("/a.bin", drip(64 << 10, 0.005), body=DATA)
    with Proxy(hosts={"files.example": ("127.0.0.1", server.port)}) as proxy:
        monkeypatch.setenv("http_proxy", f"{place}:{proxy.port}")
        url = server.url("/a.bin", host="files.example")
        assert finished(new_thread_driver(EAGER).run(new_job(url, tmp_path))).read_bytes() == DATA
        assert [request.range for request in proxy.requests] == [None]


@pytest.mark.parametrize("why", ["Cache-Control", "password"])
def test_what_a_proxy_may_not_keep_is_fetched_in_segments(
    server: Server,
    new_thread_driver: Callable[..., Driver],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    why: str,
) -> None:
    headers = {"Cache-Control": "max-age=60, Private"} if why == "Cache-Control" else {}
    user = None if headers else f"{USER}:{PASSWORD}"
    server.add("/a.bin", drip(64 << 10, 0.005), body=DATA, headers=headers)
    with Proxy(hosts={"files.example": ("127.0.0.1", server.port)}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        url = server.url("/a.bin", host="files.example", user=user)
        assert finished(new_thread_driver(EAGER).run(new_job(url, tmp_path))).read_bytes() == DATA
        assert any(request.range for request in proxy.requests)


@pytest.mark.usefixtures("no_delays", "proxied")
@needs_squid
def test_a_resume_of_what_squid_keeps_costs_the_origin_nothing(
    server: Server, gate: Gate, thread_driver: Driver, fetch: Fetcher, tmp_path: Path
) -> None:
    """As after another machine has fetched it; Squid takes the range out of what it keeps."""
    server.add("/a.bin", first(1, stall_after(len(DATA) // 2, gate)), body=DATA)
    url = server.url("/a.bin", host="files.example")
    job = new_job(url, tmp_path / "two")
    thread_driver.submit(job)
    thread_driver.until_received(job, len(DATA) // 3)
    assert thread_driver.stop(job) == Halted()
    thread_driver.host.hang_up(job.uid)
    server.wait_open(0)
    assert finished(fetch(url, tmp_path / "one")).read_bytes() == DATA
    assert finished(fetch(url, tmp_path / "two")).read_bytes() == DATA
    assert [request.range for request in server.requests] == [None, None]


# -- Certificates, from where this machine has them.


@pytest.fixture
def hashed(tmp_path: Path, certificates: Certificates) -> Path:
    """A folder as OpenSSL wants it: certificates under the hashes of their names."""
    folder = tmp_path / "certs"
    folder.mkdir()
    shutil.copy(certificates.ca, folder / "ours.pem")
    subprocess.run(["openssl", "rehash", folder], check=True, capture_output=True)
    return folder


@needs_openssl
@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_DIR"])
def test_a_folder_of_authorities(
    fetch: Fetcher, nginx: Nginx, hashed: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    monkeypatch.setenv(variable, str(hashed))
    assert finished(fetch(nginx.url("/a.bin", tls=True))).read_bytes() == DATA


@pytest.mark.parametrize("content", ["", "README", "ca-certificates.crt"])
def test_a_folder_without_hashed_certificates_holds_nothing(
    fetch: Fetcher,
    nginx: Nginx,
    tmp_path: Path,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    content: str,
) -> None:
    """OpenSSL finds none there, whatever else lies in it: then the first known bundle is used."""
    (tmp_path / "certs").mkdir()
    if content:
        (tmp_path / "certs" / content).write_text("not under its hash")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "certs"))
    monkeypatch.setattr(connect, "SYSTEM_BUNDLES", ("/nowhere.pem", str(certificates.ca)))
    assert finished(fetch(nginx.url("/a.bin", tls=True), tmp_path / "files")).read_bytes() == DATA


ON_A_MACHINE_WITHOUT_DEFAULTS = """
import ssl, sys, types
from pathlib import Path
from urllib.parse import urlsplit
package = types.ModuleType("background_downloads")
package.__path__ = [sys.argv[1]]
sys.modules["background_downloads"] = package
sys.path[:0] = [sys.argv[1] + "/tests", sys.argv[1] + "/tests/engine"]
assert ssl.create_default_context().get_ca_certs() == [], "the default paths hold something"
from driving import PATIENT, Fetcher, finished
fetch = Fetcher(PATIENT)
print(finished(fetch(sys.argv[2], Path(sys.argv[3]))).stat().st_size)
fetch.close()
"""


def test_on_a_machine_whose_default_paths_hold_nothing(
    nginx: Nginx, tmp_path: Path, certificates: Certificates
) -> None:
    """Nothing patched: in a view of the disk of its own OpenSSL finds nothing where it looks."""
    import ssl

    paths = ssl.get_default_verify_paths()
    places = {os.path.dirname(path) for path in (paths.openssl_cafile, paths.openssl_capath)}
    bundle = connect.SYSTEM_BUNDLES[0]
    hide = [f"mount -t tmpfs none {place}" for place in sorted({*places, "/etc/ssl"}) if os.path.isdir(place)]
    put = [f"mkdir -p {os.path.dirname(bundle)}", f"cp {tmp_path}/ca.pem {bundle}"]
    shutil.copy(certificates.ca, tmp_path / "ca.pem")
    root = Path(connect.__file__).parents[1]
    url = nginx.url("/a.bin", tls=True)
    run = ["sh", "-ec", " && ".join([*hide, *put, 'exec "$@"']), "-", sys.executable, "-c"]
    done = subprocess.run(
        ["unshare", "--mount", *run, ON_A_MACHINE_WITHOUT_DEFAULTS, root, url, tmp_path / "files"],
        env={name: value for name, value in os.environ.items() if not name.startswith("SSL_")},
        capture_output=True,
        text=True,
    )
    if any(words in done.stderr for words in ("unshare failed", "permission denied", "unshare: cannot")):
        pytest.skip("a view of the disk of its own cannot be had here (unshare)")
    assert (done.stdout, done.returncode) == (f"{len(DATA)}\n", 0), done.stderr


# -- User and password.


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


def write_netrc(home: Path, *lines: str) -> None:
    (home / ".netrc").write_text("\n".join(lines) + "\n")
    (home / ".netrc").chmod(0o600)


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("user", [f"{USER}:{PASSWORD}", "j%C3%BCrgen:gr%C3%BCn%3A%20%40%2F%3F%23"])
def test_basic_auth_from_the_link(fetch: Fetcher, nginx: Nginx, tmp_path: Path, user: str, tls: bool) -> None:
    assert finished(fetch(nginx.url("/private/a.bin", user=user, tls=tls), tmp_path)).read_bytes() == DATA
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize(
    "lines", [("machine 127.0.0.1 login me password p4ss",), ("default login me password p4ss",)]
)
def test_basic_auth_from_netrc(
    fetch: Fetcher, nginx: Nginx, tmp_path: Path, home: Path, lines: tuple[str, ...]
) -> None:
    write_netrc(home, "machine elsewhere.example login you password other", *lines)
    assert finished(fetch(nginx.url("/private/a.bin"), tmp_path / "files")).read_bytes() == DATA


def test_the_link_counts_more_than_netrc(fetch: Fetcher, nginx: Nginx, tmp_path: Path, home: Path) -> None:
    write_netrc(home, "machine 127.0.0.1 login me password wr0ng")
    assert finished(fetch(nginx.url("/private/a.bin", user="me:p4ss"), tmp_path / "files"))


NEEDED = "This download needs a user name and a password (401). "
WRONG = "The server {host} does not accept the user name and the password (401). Check both"


@pytest.mark.parametrize(
    ("user", "beginning"), [("", NEEDED), ("me:wr0ng", WRONG), ("me:", WRONG), ("p4ss", WRONG)]
)
def test_a_wrong_password_is_a_sentence(
    fetch: Fetcher, nginx: Nginx, tmp_path: Path, home: Path, user: str, beginning: str
) -> None:
    link = nginx.url("/private/a.bin", user=user)
    sentence = failed(fetch(link, tmp_path / "files"))
    assert sentence.startswith(beginning.format(host=urlsplit(link).netloc.rpartition("@")[2]))


def test_a_netrc_that_cannot_be_read_is_none(
    fetch: Fetcher, nginx: Nginx, tmp_path: Path, home: Path
) -> None:
    write_netrc(home, "machine 127.0.0.1 password", '"')
    assert "(401)" in failed(fetch(nginx.url("/private/a.bin"), tmp_path / "files"))


@pytest.mark.parametrize("source", ["link", "netrc"])
@pytest.mark.parametrize("target", ["http://localhost:{port}/b.bin?x", "http://127.0.0.1:{port}/b.bin?x"])
def test_user_and_password_never_follow_a_redirect_to_another_server(
    fetch: Fetcher, nginx: Nginx, server: Server, tmp_path: Path, home: Path, source: str, target: str
) -> None:
    """Another port is another server for a link's password; a netrc knows hosts only, as curl has it."""
    if source == "netrc":
        write_netrc(home, "machine 127.0.0.1 login me password p4ss")
    server.add("/b.bin", body=DATA)
    to = target.format(port=server.port)
    url = nginx.url(f"/private/away?to={to}", user="me:p4ss" if source == "link" else "")
    assert finished(fetch(url, tmp_path / "files")).read_bytes() == DATA
    (request,) = server.requests
    knows = source == "netrc" and "127.0.0.1" in target
    assert ("Authorization" in request.headers) is knows
    assert "Referer" not in request.headers
    assert nginx.requests(f"/private/away?to={to}")[-1]["authorization"] != ""


# -- Addresses.


@needs_ipv6
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.usefixtures("trusted")
def test_an_ipv6_address(fetch: Fetcher, nginx: Nginx, tls: bool) -> None:
    path = f"/a.bin?six{tls}"
    assert finished(fetch(nginx.url(path, host="[::1]", tls=tls))).read_bytes() == DATA
    (request,) = nginx.requests(path)
    assert request["host"] == f"[::1]:{nginx.other_port if tls else nginx.port}"
    assert request["address"] == "::1"


@pytest.mark.parametrize("host", ["[::1%25lo]", "[fe80::1%lo]"])
def test_an_address_with_a_zone_is_refused_at_once(fetch: Fetcher, nginx: Nginx, host: str) -> None:
    assert "“%” in its address" in failed(fetch(nginx.url("/a.bin", host=host)))


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """What the resolver says of every name."""
    found = [
        (socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))
        for host, port in addresses
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)


@needs_ipv6
@pytest.mark.parametrize("first_host", ["::1", "127.0.0.1"])
def test_a_host_with_both_families_is_asked_where_it_answers(
    fetch: Fetcher, nginx: Nginx, monkeypatch: pytest.MonkeyPatch, first_host: str
) -> None:
    resolve(monkeypatch, (first_host, nginx.port), ("::1", nginx.port), ("127.0.0.1", nginx.port))
    path = f"/a.bin?both{first_host}"
    assert finished(fetch(nginx.url(path, host="files.example"))).read_bytes() == DATA
    assert nginx.requests(path)[0]["address"] == first_host


@needs_ipv6
@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("tls", [False, True])
def test_a_host_with_dead_addresses_of_both_families(
    fetch: Fetcher, nginx: Nginx, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    """Two that never answer and one that refuses come first; the time-out is 90 s, the deadline less."""
    live = nginx.other_port if tls else nginx.port
    with unreachable_port() as dead, unreachable_port() as other:
        resolve(monkeypatch, ("::1", 1), ("127.0.0.1", dead), ("127.0.0.1", other), ("127.0.0.1", live))
        url = nginx.url("/a.bin", host="files.example", tls=tls)
        assert finished(fetch(url)).read_bytes() == DATA


# -- Parts of files.


@needs_squid
@pytest.mark.parametrize("way", ["nginx", "nginx over TLS", "Squid", "a tunnel through Squid"])
@pytest.mark.usefixtures("trusted")
def test_a_resume(
    request: pytest.FixtureRequest,
    new_driver: Callable[..., Driver],
    fetch: Fetcher,
    nginx: Nginx,
    squid: Squid,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    way: str,
) -> None:
    """nginx is slow after half a mebibyte to whoever asks for the whole file."""
    if "Squid" in way:
        monkeypatch.setenv("all_proxy", squid.url())
    path = f"/slow/a.bin?{request.node.callspec.id.replace(' ', '-')}"
    url = nginx.url(path, host="files.example" if "Squid" in way else "localhost",
                    tls="TLS" in way or "tunnel" in way)  # fmt: skip
    driver, job = new_driver(), new_job(url, tmp_path)
    driver.submit(job)
    driver.until_received(job, SLOW_AFTER)
    received = driver.progress[job.uid].received
    assert driver.stop(job) == Halted()
    driver.shut()
    assert finished(fetch(url, tmp_path)).read_bytes() == DATA
    resumed = next(r for r in nginx.requests(path, 2) if r["range"])
    assert resumed["status"] == 206
    assert resumed["if_range"]
    assert resumed["sent"] <= len(DATA) - received + (64 << 10)


@needs_squid
@pytest.mark.parametrize("way", ["nginx", "a tunnel through Squid"])
@pytest.mark.usefixtures("trusted")
def test_segments(
    request: pytest.FixtureRequest,
    new_driver: Callable[..., Driver],
    nginx: Nginx,
    squid: Squid,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    way: str,
) -> None:
    """nginx gives each connection 1 MiB/s."""
    if "Squid" in way:
        monkeypatch.setenv("all_proxy", squid.url())
    path = f"/paced/a.bin?{request.node.callspec.id.replace(' ', '-')}"
    url = nginx.url(path, host="files.example" if "Squid" in way else "localhost", tls="Squid" in way)
    eager = Settings(timeout=90.0, connections=4, split_seconds=0.2)
    assert finished(new_driver(eager).run(new_job(url, tmp_path))).read_bytes() == DATA
    answered = nginx.requests(path, 3)
    assert {r["status"] for r in answered if r["range"]} == {206}
    assert sum(r["sent"] for r in answered) < 2 * len(DATA)


# -- Encoding.


def test_identity_is_asked_for_and_nginx_squeezes_nothing(fetch: Fetcher, nginx: Nginx) -> None:
    assert finished(fetch(nginx.url("/squeezed/a.bin"))).read_bytes() == DATA
    (request,) = nginx.requests("/squeezed/a.bin")
    assert (request["encoding"], request["sent"]) == ("identity", len(DATA))


def test_what_nginx_sends_squeezed_all_the_same_is_undone(fetch: Fetcher, nginx: Nginx) -> None:
    assert finished(fetch(nginx.url("/always/a.bin"))).read_bytes() == PLAIN
    (request,) = nginx.requests("/always/a.bin")
    assert 0 < request["sent"] < len(PLAIN)
