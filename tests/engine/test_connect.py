"""Connecting: certificates, proxies, several addresses, the name look-up, time-outs of each phase."""

from __future__ import annotations

import errno
import importlib
import socket
import ssl
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from driving import Clock, Driver, Fetcher, Halted, Phase, Settings, failed, finished, names, new_job
from faults import says
from server import (
    DEADLINE,
    Certificates,
    Connection,
    Exchange,
    Gate,
    Proxy,
    Server,
    SocketServer,
    cut_after,
    cut_before_headers,
    drip,
    first,
    pattern,
    redirect,
    refused_port,
    stall_after,
    status,
    unreachable_port,
)

from background_downloads.hosts import threads
from background_downloads.transfer import connect, part, portable, retry
from background_downloads.transfer import control as control_module
from background_downloads.transfer.control import Control, Waker
from background_downloads.transfer.job import Stopped

DATA = pattern(200_000)
UNTRUSTED = {
    "expired": "it has expired",
    "not_yet_valid": "it is not valid yet",
    "wrong_host": "it is for another server",
    "self_signed": "nobody whom this computer knows vouches for it",
}
IMPATIENT = Settings(timeout=0.2, connections=4)


# -- Links as written, judged by the line that reaches the server.


TARGETS = [
    "/a%2fb.bin",
    "/a%2Fb%2D%5f%7e%c3%bC.bin",
    "//key.bin",
    "/a//b///c.bin",
    "/a/./b/../c.bin",
    "/%2e%2e/a.bin",
    "/a.bin?",
    "/a.bin?a=%2B+%20&b;c=[1]|d&e='f'",
    "/a.bin?sig=aB%2b%2F%3d&x=//y/../z",
    "/a;b=1,c@d:e!$&'()*.bin",
]
WRITTEN = [*((target, target) for target in TARGETS), ("/ü%.bin?ß%&%zz", "/%C3%BC%25.bin?%C3%9F%25&%25zz")]


@pytest.mark.parametrize(("written", "target"), WRITTEN)
@pytest.mark.parametrize("way", ["link", "kept connection", "Location", "relative Location"])
def test_a_link_reaches_the_server_as_it_is_written(
    fetch: Fetcher, server: Server, tmp_path: Path, written: str, target: str, way: str
) -> None:
    server.add(target.partition("?")[0], body=DATA)
    link = location = server.origin + written
    if way == "kept connection":
        finished(fetch(server.add("/first.bin"), tmp_path / "first"))
    if way == "relative Location" and not written.startswith("//"):  # which would be another host
        location = written
    if "Location" in way:
        link = server.add("/there", redirect(location.encode().decode("latin-1")))  # UTF-8, byte by byte
    assert finished(fetch(link, tmp_path)).read_bytes() == DATA
    assert server.requests[-1].target == target


@pytest.mark.parametrize(("written", "target"), WRITTEN)
@pytest.mark.parametrize("tls", [False, True])
def test_a_link_reaches_the_proxy_as_it_is_written(
    fetch: Fetcher,
    server: Server,
    trusted: Server,
    monkeypatch: pytest.MonkeyPatch,
    written: str,
    target: str,
    tls: bool,
) -> None:
    origin = trusted if tls else server
    origin.add(target.partition("?")[0], body=DATA)
    with Proxy(hosts={"files.example": ("127.0.0.1", origin.port)}) as proxy:
        monkeypatch.setenv("all_proxy", proxy.url)
        scheme = "https" if tls else "http"
        assert finished(fetch(f"{scheme}://me:pw@files.example{written}")).read_bytes() == DATA
        if tls:
            assert origin.requests[0].target == target
        else:
            assert proxy.requests[0].target == f"http://files.example{target}"
        assert origin.requests[0].headers["Host"] == "files.example"


# -- Certificates.


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_an_authority_from_the_environment_is_trusted(
    fetch: Fetcher,
    tls_server: Server,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    host: str,
) -> None:
    monkeypatch.setenv(variable, str(certificates.ca))
    tls_server.add("/a.bin", body=DATA)
    assert finished(fetch(tls_server.url("/a.bin", host=host))).read_bytes() == DATA


def test_an_authority_as_virus_scanners_make_theirs_is_trusted(
    fetch: Fetcher, tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Python 3.13 on `requests` alone refuses it."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.loose_ca))
    with Server(tls=certificates.loose) as server:
        assert finished(fetch(server.add("/a.bin", body=DATA), tmp_path)).read_bytes() == DATA


@pytest.mark.usefixtures("no_delays", "trusted")
@pytest.mark.parametrize(("kind", "why"), UNTRUSTED.items())
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_bad_certificate_is_refused_at_once(
    fetch: Fetcher, certificates: Certificates, kind: str, why: str, host: str
) -> None:
    with Server(tls=getattr(certificates, kind)) as server:
        server.add("/a.bin", body=DATA)
        sentence = failed(fetch(server.url("/a.bin", host=host, user="me:s3cret")))
        assert sentence.startswith(f"The certificate of {host} cannot be trusted: {why}")
        assert server.requests == []
        assert server.connections.accepted == 1


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_wants_a_certificate_of_ours_is_asked_once(
    fetch: Fetcher, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.good)
    context.load_verify_locations(certificates.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    with Server(tls=context) as server:
        sentence = failed(fetch(server.url("/a.bin")))
        assert "may want a certificate of yours" in sentence
        assert server.connections.accepted == 1


def test_without_the_authority_nothing_is_fetched(fetch: Fetcher, tls_server: Server) -> None:
    sentence = failed(fetch(tls_server.url("/a.bin")))
    assert "cannot be trusted: nobody whom this computer knows vouches for it" in sentence
    assert tls_server.requests == []


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize(
    ("bundle", "what"),
    [
        ("none.pem", "The certificate bundle that {} names cannot be read"),
        (".", "The folder that {} names has no certificates that can be used"),
    ],
)
def test_a_bundle_that_holds_nothing_is_named(
    fetch: Fetcher,
    tls_server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    bundle: str,
    what: str,
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / bundle))
    assert failed(fetch(tls_server.url("/a.bin"), tmp_path)).startswith(what.format(variable))
    assert tls_server.connections.accepted == 0


def test_where_the_default_paths_hold_nothing_the_system_bundle_is_used(
    fetch: Fetcher,
    tls_server: Server,
    tmp_path: Path,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Blender's own builds look in a folder of the machine that they were built on."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "empty"))
    monkeypatch.setattr(connect, "SYSTEM_BUNDLES", ("/nowhere.pem", str(certificates.ca)))
    tls_server.add("/a.bin", body=DATA)
    assert finished(fetch(tls_server.url("/a.bin"), tmp_path / "files")).read_bytes() == DATA


def test_where_the_default_paths_hold_certificates_no_other_bundle_is_used(
    fetch: Fetcher, tls_server: Server, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    import certifi

    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    monkeypatch.setattr(connect, "SYSTEM_BUNDLES", (str(certificates.ca),))
    assert "cannot be trusted" in failed(fetch(tls_server.url("/a.bin")))


def test_certifis_authorities_are_trusted_beside_the_systems(
    monkeypatch: pytest.MonkeyPatch, certificates: Certificates
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    assert len(connect.Environment().context().get_ca_certs()) > 50


# -- Proxies.


def test_a_proxy_from_the_environment(
    fetch: Fetcher, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add("/a.bin", body=DATA)
    with Proxy(user="me", password="p4ss", hosts={"files.example": ("127.0.0.1", server.port)}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert finished(fetch("http://files.example/a.bin?q=1")).read_bytes() == DATA
        assert [request.method for request in proxy.requests] == ["GET"]
        assert server.requests[0].query == "q=1"
        assert server.requests[0].headers["Proxy-Authorization"] is None


@pytest.mark.parametrize("start", ["http://", ""], ids=["whole", "without a scheme"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("me", b"me:"),
        ("me:", b"me:"),
        ("j%C3%BCrgen:gr%C3%BCn%3A%20%40", "jürgen:grün: @".encode()),
        ("%E2%82%AC:p", "€:p".encode()),  # no letter of Latin-1
    ],
)
def test_a_proxy_gets_user_and_password_as_a_server_would(
    fetch: Fetcher, monkeypatch: pytest.MonkeyPatch, start: str, scheme: str, written: str, sent: bytes
) -> None:
    with Proxy(connect_status=403) as proxy:
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url.replace("http://", f"{start}{written}@"))
        failed(fetch(f"{scheme}://nowhere.invalid/a.bin"))
        assert proxy.requests[0].headers["Proxy-Authorization"] == f"Basic {b64encode(sent).decode()}"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("without", ["{host}", "x, {host}:{port}", "{HOST}:{port}"])
def test_hosts_without_proxy(
    fetch: Fetcher, server: Server, monkeypatch: pytest.MonkeyPatch, host: str, without: str
) -> None:
    url = server.add("/a.bin", body=DATA).replace("127.0.0.1", host)
    with refused_port() as port:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("no_proxy", without.format(host=host, HOST=host.upper(), port=server.port))
        assert finished(fetch(url)).read_bytes() == DATA


@pytest.mark.parametrize(
    ("host", "network", "is_direct"),
    [
        ("127.0.0.1", "127.0.0.0/8", True),
        ("127.0.0.1", "0.0.0.0/0", True),
        ("127.0.0.1", "10.0.0.0/8,127.0.0.1/32", True),
        ("127.0.0.1", "128.0.0.0/8", False),
        ("127.0.0.1", "::/0 127.0.0.0/8/8 x/y", False),
        ("[::1]", "::1/128", True),
        ("[::1]", "fd00::/8, ::/64", True),
        ("[::1]", "fd00::/8,127.0.0.0/8", False),
        ("files.example", "::/0,0.0.0.0/0", False),
    ],
)
def test_networks_without_proxy(
    monkeypatch: pytest.MonkeyPatch, host: str, network: str, is_direct: bool
) -> None:
    monkeypatch.setenv("all_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", network)
    adapter = connect._Adapter(connect.Environment())
    known = connect._Host(adapter, f"http://{host}:8000/", {}, is_mirror=False)
    assert known.proxy == ("" if is_direct else "proxy.example:3128")


@pytest.mark.usefixtures("no_delays")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_asks_for_a_password_is_named(
    fetch: Fetcher, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    with Proxy(user="me", password="right") as proxy:
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url.replace("right", "wr0ng"))
        sentence = failed(fetch(f"{scheme}://files.example/a.bin?token=t0ken"))
        assert sentence.startswith("The proxy asks for a user name and a password (407). ")
        assert "wr0ng" not in sentence
        assert len(proxy.requests) == 1


@pytest.mark.usefixtures("no_delays")
@pytest.mark.parametrize(("code", "times"), [(403, 1), (502, 5)])
def test_a_proxy_that_refuses_to_connect(
    fetch: Fetcher, monkeypatch: pytest.MonkeyPatch, code: int, times: int
) -> None:
    with Proxy(connect_status=code) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        sentence = failed(fetch("https://files.example/a.bin"))
        name = f"The proxy 127.0.0.1:{proxy.port}"
        assert sentence.startswith(f"{name} does not let this connection through ({code})")
        assert len(proxy.requests) == times


CHECK = "Check the proxy settings of this computer"
FAR = ["http://files.example/a.bin", "https://files.example/a.bin"]


@pytest.mark.parametrize("url", FAR)
@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (
            "socks5://u:s3cret@p.example:1080",
            "The proxy p.example:1080 is a SOCKS proxy, which Blender cannot use",
        ),
        ("socks4://p.example", "The proxy p.example is a SOCKS proxy, which Blender cannot use"),
        ("SOCKS5H://u:s3cret@[::1]:1080", "The proxy [::1]:1080 is a SOCKS proxy, which Blender cannot use"),
        (
            "ftp://u:s3cret@p.example:21",
            "The proxy p.example:21 is of an unknown kind, neither HTTP nor SOCKS. ",
        ),
        ("quic://p.example:21", "The proxy p.example:21 is of an unknown kind, neither HTTP nor SOCKS. "),
        *(
            (setting, "The address of this computer's proxy cannot be read. ")
            for setting in (
                *("http://u:s3cret@p.example:99999", "http://u:s3cret@p.example:http", "p.example:-1", "https://"),
                *("http://u:s3cret@p.example:0", "http://", "http://:3128", "http://u:s3cret@", "http://[::1"),
                *("http:/p.example:1", "http:p.example:1", "p.example:", " ", "http:// p.example", "p "),
                *("http://p.example :1", "\thttp://p.example", "PROXY p.example:1", "p.exam\x01ple", "http://."),
                *("http://" + "a" * 64, "http://p.example;https://p.example", "://p.example", "http://u:s3/ret@p"),
            )
        ),
    ],
)
def test_a_proxy_setting_that_cannot_be_used_is_said_of_the_proxy_at_once(
    fetch: Fetcher, monkeypatch: pytest.MonkeyPatch, url: str, setting: str, sentence: str
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", None)
    monkeypatch.setitem(sys.modules, "socks", None)
    monkeypatch.setenv("all_proxy", setting)
    said = failed(fetch(url))
    assert said.startswith(sentence)
    assert "s3cret" not in said
    assert said.endswith(CHECK) or "Set an HTTP proxy" in said


def test_where_pysocks_is_there_several_files_come_through_it(
    fetch: Fetcher, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def create_connection(target: tuple[str, int], **options: Any) -> socket.socket:
        asked.append(target[0])
        return socket.create_connection(("127.0.0.1", server.port), options["timeout"])

    socks: Any = ModuleType("socks")
    socks.__spec__ = ModuleSpec("socks", None)
    socks.PROXY_TYPE_SOCKS4, socks.PROXY_TYPE_SOCKS5 = 1, 2
    socks.ProxyError, socks.create_connection = OSError, create_connection
    monkeypatch.setitem(sys.modules, "socks", socks)
    monkeypatch.setitem(sys.modules, "urllib3.contrib.socks", None)
    del sys.modules["urllib3.contrib.socks"]  # made anew, and gone afterwards
    manager = importlib.import_module("urllib3.contrib.socks").SOCKSProxyManager
    monkeypatch.setattr("requests.adapters.SOCKSProxyManager", manager)
    monkeypatch.setenv("all_proxy", "socks5h://p.example:1080")
    for number, host in enumerate(["one.example", "one.example", "two.example", "one.example"]):
        server.add(f"/{number}.bin", body=DATA)
        assert finished(fetch(f"http://{host}/{number}.bin")).read_bytes() == DATA
        assert server.requests[-1].headers["Host"] == host
    assert asked == ["one.example", "two.example", "one.example"]


@pytest.mark.parametrize("url", FAR)
@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9\r\n", b"\x05\xff", b"HTTP/1.1 999999 x\r\n\r\n"])
def test_what_is_no_proxy_is_said_of_the_proxy(
    fetch: Fetcher, server: Server, monkeypatch: pytest.MonkeyPatch, url: str, answer: bytes
) -> None:
    server.hijack = says(answer)
    monkeypatch.setenv("all_proxy", f"http://127.0.0.1:{server.port}")
    monkeypatch.setattr(retry, "FIRST_DELAY", 0.0)
    assert failed(fetch(url)).startswith(f"The proxy 127.0.0.1:{server.port} ")


@pytest.mark.parametrize("url", FAR)
@pytest.mark.parametrize("scheme", ["http://me:s3cret@", "https://", ""])
def test_a_proxy_that_is_not_there_is_said_at_once(
    fetch: Fetcher, monkeypatch: pytest.MonkeyPatch, url: str, scheme: str
) -> None:
    with refused_port() as port:
        monkeypatch.setenv("all_proxy", f"{scheme}127.0.0.1:{port}")
        assert failed(fetch(url)) == f"The proxy 127.0.0.1:{port} cannot be reached. {CHECK}"


@pytest.mark.parametrize("url", FAR)
def test_a_proxy_whose_name_nobody_knows(fetch: Fetcher, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    def getaddrinfo(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setenv("all_proxy", "http://me:s3cret@proxy.example:3128")
    assert failed(fetch(url)) == f"The proxy proxy.example:3128 cannot be reached. {CHECK}"


@pytest.mark.usefixtures("no_delays")
@pytest.mark.parametrize("url", FAR)
def test_a_proxy_that_does_not_answer_is_named(
    new_thread_driver: Callable[..., Driver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    with unreachable_port() as port:
        monkeypatch.setenv("all_proxy", f"http://127.0.0.1:{port}")
        sentence = failed(new_thread_driver(IMPATIENT).run(new_job(url, tmp_path)))
        assert sentence == f"The proxy 127.0.0.1:{port} did not answer in time. Tried 5 times. {CHECK}"


@pytest.mark.usefixtures("no_delays")
def test_a_proxy_that_has_answered_before_is_tried_again(
    fetch: Fetcher, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add("/a.bin", body=DATA)
    with Proxy(hosts={"files.example": ("127.0.0.1", server.port)}) as proxy:
        monkeypatch.setenv("all_proxy", proxy.url)
        finished(fetch(FAR[0]))
    sentence = failed(fetch(FAR[0]))
    assert sentence == f"The proxy 127.0.0.1:{proxy.port} cannot be reached. Tried 5 times. {CHECK}"


@pytest.mark.parametrize("url", FAR)
def test_a_proxy_over_tls_is_verified_against_the_same_authorities(
    fetch: Fetcher,
    server: Server,
    trusted: Server,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
) -> None:
    """Also where it makes a tunnel."""
    origin = trusted if url.startswith("https") else server
    origin.add("/a.bin", body=DATA)
    with Proxy(tls=certificates.good, hosts={"files.example": ("127.0.0.1", origin.port)}) as proxy:
        monkeypatch.setenv("all_proxy", f"https://localhost:{proxy.port}")
        assert finished(fetch(url)).read_bytes() == DATA


@pytest.mark.usefixtures("no_delays", "trusted")
@pytest.mark.parametrize("kind", ["wrong_host", "self_signed", "expired"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_over_tls_with_a_bad_certificate_gets_nothing(
    fetch: Fetcher, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, scheme: str, kind: str
) -> None:
    with Proxy(tls=getattr(certificates, kind)) as proxy:
        monkeypatch.setenv(f"{scheme}_proxy", f"https://localhost:{proxy.port}")
        sentence = failed(fetch(f"{scheme}://files.example/a.bin"))
        assert sentence.startswith(f"The certificate of the proxy localhost:{proxy.port} cannot be trusted: ")
        assert UNTRUSTED[kind] in sentence
        assert proxy.requests == []


class PlainProxy(SocketServer):
    def handle(self, connection: Connection) -> None:
        connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.usefixtures("no_delays")
@pytest.mark.parametrize("url", FAR)
def test_a_proxy_that_does_not_speak_tls(fetch: Fetcher, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with PlainProxy() as proxy:
        monkeypatch.setenv("all_proxy", f"https://127.0.0.1:{proxy.port}")
        sentence = failed(fetch(url))
    assert sentence.startswith(f"A secure connection to the proxy 127.0.0.1:{proxy.port} could not be made")


# -- Addresses.


def test_a_dead_address_costs_little(fetch: Fetcher, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of two addresses never answers; the time-out is 90 s."""
    with unreachable_port() as port:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", p)) for p in (port, server.port)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
        server.add("/a.bin", body=DATA)
        assert finished(fetch("http://files.example/a.bin")).read_bytes() == DATA


@pytest.mark.usefixtures("no_delays")
def test_a_disk_that_fails_while_a_connection_is_made_is_no_fault_of_the_network(
    fetch: Fetcher, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was received is saved while a worker waits, whatever it waits for."""
    url, lookup, calls = server.add("/a.bin", first(1, cut_after(50_000)), body=DATA), socket.getaddrinfo, []

    def sync(fd: int) -> None:
        raise OSError(28, "No space left on device")

    def getaddrinfo(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) > 1:  # now all that there is of the file is to be saved
            monkeypatch.setattr(part, "CHECKPOINT_SECONDS", 0.0)
            monkeypatch.setattr(portable, "sync_data", sync)
        return lookup(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert failed(fetch(url, tmp_path)).startswith(f"The disk is full: make room in the folder “{tmp_path}”")
    assert len(calls) == 2


def test_an_address_that_refuses_costs_nothing(
    fetch: Fetcher, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "ATTEMPT_DELAY", 90.0)
    with refused_port() as port:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", p)) for p in (port, server.port)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
        server.add("/a.bin", body=DATA)
        assert finished(fetch("http://files.example/a.bin")).read_bytes() == DATA


def test_all_addresses_share_one_time_out(
    new_thread_driver: Callable[..., Driver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_delays: None
) -> None:
    with unreachable_port() as port:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))] * 50
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
        monkeypatch.setattr(connect, "ATTEMPT_DELAY", 0.01)
        sentence = failed(new_thread_driver(IMPATIENT).run(new_job("http://files.example/a.bin", tmp_path)))
        assert "did not answer in time" in sentence


@pytest.mark.usefixtures("no_delays")
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(-2, "Name or service not known"), "cannot be found"),
        (OSError("odd"), "failed"),
        (UnicodeError("label too long"), ""),
    ],
)
def test_a_name_that_cannot_be_found(
    fetch: Fetcher, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def getaddrinfo(*args: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert words in failed(fetch("http://files.example/a.bin?token=t0ken"))


@pytest.mark.usefixtures("no_delays")
@pytest.mark.parametrize("number", [errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH])
def test_without_a_network_it_is_what_is_to_be_checked(
    fetch: Fetcher, server: Server, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    class Unplugged(socket.socket):
        def connect(self, address: Any) -> None:
            raise OSError(number, "no way")

    url = server.add("/a.bin", body=DATA)
    with monkeypatch.context() as patch:
        patch.setattr(connect.socket, "socket", Unplugged)
        sentence = failed(fetch(url))
    assert sentence == "The server 127.0.0.1 cannot be reached. Tried 5 times. Check the network"
    assert finished(fetch(url)).read_bytes() == DATA


class Away:
    """This computer's network: away as often as it is asked to connect, or to look up a name."""

    def __init__(self, error: OSError, times: int) -> None:
        self.error, self.left = error, times

    def dial(self, *args: Any, **options: Any) -> socket.socket:
        self.left -= 1
        if self.left >= 0:
            raise self.error
        return DIAL(*args, **options)


DIAL = connect.dial
UNREACHABLE = OSError(errno.ENETUNREACH, "Network is unreachable")
NO_NAMES = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@pytest.fixture
def begins_and_ends(server: Server) -> str:
    """A link whose first answer is cut."""
    return server.add("/a.bin", first(1, cut_after(150_000)), body=DATA)


@pytest.mark.usefixtures("no_delays")
@pytest.mark.parametrize(("error", "is_routed"), [(UNREACHABLE, True), (NO_NAMES, False)])
def test_a_network_that_is_away_is_waited_for_once_the_server_has_answered(
    fetch: Fetcher, begins_and_ends: str, monkeypatch: pytest.MonkeyPatch, error: OSError, is_routed: bool
) -> None:
    away = Away(error, 10)
    phases: list[Phase] = []
    monkeypatch.setattr(Control, "sleep", lambda control, seconds: phases.append(control.phase))
    monkeypatch.setattr(connect, "_is_routed", lambda place: is_routed)
    assert finished(fetch(begins_and_ends)).read_bytes() == DATA
    monkeypatch.setattr(connect, "dial", away.dial)
    fetch.client.hang_up()
    phases.clear()
    assert finished(fetch(begins_and_ends)).read_bytes() == DATA
    assert phases == [Phase.AWAY] * 10


@pytest.mark.usefixtures("no_delays")
@pytest.mark.parametrize(
    ("error", "is_new", "is_routed"),
    [
        (UNREACHABLE, True, False),  # nobody knows whether it was ever there
        (NO_NAMES, True, False),
        (NO_NAMES, False, True),  # it is the name, or its server, that is gone
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), False, False),
        (OSError(errno.EHOSTUNREACH, "No route to host"), False, False),
        (TimeoutError("no address answered"), False, False),
    ],
)
def test_what_is_no_network_of_ours_that_is_away_is_tried_five_times(
    fetch: Fetcher,
    begins_and_ends: str,
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
    is_new: bool,
    is_routed: bool,
) -> None:
    away = Away(error, 1000)
    if not is_new:
        finished(fetch(begins_and_ends))
        fetch.client.hang_up()
    monkeypatch.setattr(connect, "_is_routed", lambda place: is_routed)
    monkeypatch.setattr(connect, "dial", away.dial)
    assert "Tried 5 times" in failed(fetch(begins_and_ends))
    assert away.left == 995


@pytest.mark.usefixtures("no_delays")
def test_a_network_that_stays_away_ends_the_download(
    fetch: Fetcher, begins_and_ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(fetch(begins_and_ends))
    fetch.client.hang_up()
    clock, away = Clock(), Away(UNREACHABLE, 10**9)
    monkeypatch.setattr(connect, "time", clock)
    monkeypatch.setattr(connect, "dial", away.dial)

    def sleep(control: Control, seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr(Control, "sleep", sleep)
    assert "Tried 5 times" in failed(fetch(begins_and_ends))
    waits = connect.AWAY * fetch.settings.timeout // connect.AWAY_LOOK
    assert 10**9 - away.left == waits + 6  # and then as where nobody has answered yet


@pytest.mark.usefixtures("no_delays")
def test_a_point_behind_a_name_does_not_end_the_sentence(
    fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: [])
    sentence = failed(fetch("http://files.example./a.bin"))
    assert sentence == "The connection to files.example failed. Tried 5 times, try again later"


@pytest.mark.usefixtures("no_delays")
@pytest.mark.parametrize("times", [1, 99])
def test_a_connection_that_is_reset_as_soon_as_it_is_made(
    fetch: Fetcher, server: Server, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """As by a network that is just coming back: urllib3 would go on, with no socket."""
    url, handle, start = server.add("/file.bin", body=DATA), server.handle, connect._Race._start
    resets = [threading.Event() for _ in range(times)]
    left = iter(resets)

    def reset(connection: Connection) -> None:
        if is_over := next(left, None):
            connection.reset()
            is_over.set()
        else:
            handle(connection)

    waited_for = iter(resets)

    def start_and_be_reset(race: connect._Race, address: Any) -> None:
        start(race, address)
        if is_over := next(waited_for, None):
            assert is_over.wait(DEADLINE)

    monkeypatch.setattr(server, "handle", reset)
    monkeypatch.setattr(connect._Race, "_start", start_and_be_reset)
    done = fetch(url)
    if times == 1:
        assert finished(done).read_bytes() == DATA
    else:
        assert "The connection to 127.0.0.1 was reset. Tried 5 times" in failed(done)


def test_a_family_that_the_machine_does_not_have(
    fetch: Fetcher, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(9999, socket.SOCK_STREAM, 6, "", ("x", 1)), (socket.AF_INET, socket.SOCK_STREAM, 6, "",
              ("127.0.0.1", server.port))]  # fmt: skip
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
    server.add("/a.bin", body=DATA)
    assert finished(fetch("http://files.example/a.bin")).read_bytes() == DATA


# -- The name look-up, which nothing can interrupt.


LOOK_UP = socket.getaddrinfo


class Lookup:
    """A name look-up that hangs until the test lets it go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.threads: list[threading.Thread] = []

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.threads.append(threading.current_thread())
        self.begun.set()
        self.gate.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 9))]


@pytest.fixture
def lookup(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lookup]:
    lookup = Lookup()
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    yield lookup
    lookup.gate.set()


def test_a_stop_waits_for_the_look_up(thread_driver: Driver, tmp_path: Path, lookup: Lookup) -> None:
    job = new_job("http://files.example/a.bin", tmp_path)
    thread_driver.submit(job)
    thread_driver.until_phase(job, Phase.LOOKUP)
    thread_driver.host.stop(job.uid)
    thread_driver.look()
    assert job.uid not in thread_driver.ended
    lookup.gate.set()
    assert thread_driver.outcome(job) == Halted()


def test_closing_waits_for_the_look_up(
    thread_driver: Driver, tmp_path: Path, lookup: Lookup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "LOOKUP_PATIENCE", 0.0)
    job = new_job("http://files.example/a.bin", tmp_path)
    thread_driver.submit(job)
    thread_driver.until_phase(job, Phase.LOOKUP)
    opener = threading.Timer(0.1, lookup.gate.set)
    opener.start()
    thread_driver.close()
    assert lookup.gate.is_set()
    opener.join()
    assert thread_driver.ended[job.uid] == [Halted()]


def test_a_forced_close_leaves_the_look_up_behind(
    thread_driver: Driver, tmp_path: Path, lookup: Lookup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "LOOKUP_PATIENCE", 0.05)
    job = new_job("http://files.example/a.bin", tmp_path)
    thread_driver.submit(job)
    thread_driver.until_phase(job, Phase.LOOKUP)
    thread_driver.take(thread_driver.host.close(forced=True).events)
    assert thread_driver.ended[job.uid] == [Halted()]
    assert thread_driver.host.is_quiet()
    assert lookup.threads[0].daemon
    before = names(tmp_path)
    lookup.gate.set()
    lookup.threads[0].join()
    thread_driver.look()
    assert thread_driver.ended[job.uid] == [Halted()]
    assert names(tmp_path) == before == []


def test_what_was_left_behind_can_be_downloaded_again(
    thread_driver: Driver, server: Server, tmp_path: Path, lookup: Lookup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "LOOKUP_PATIENCE", 0.0)
    job = new_job(server.add("/a.bin", body=DATA), tmp_path)
    thread_driver.submit(job)
    thread_driver.until_phase(job, Phase.LOOKUP)
    thread_driver.take(thread_driver.host.close(forced=True).events)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *a, **o: [(2, 1, 6, "", ("127.0.0.1", server.port))])
        assert finished(thread_driver.run(job)).read_bytes() == DATA
    lookup.gate.set()
    lookup.threads[0].join()
    assert names(tmp_path) == ["a.bin"]


def test_a_helper_that_is_left_behind_takes_nothing_from_the_worker_that_writes(
    new_thread_driver: Callable[..., Driver],
    server: Server,
    tmp_path: Path,
    lookup: Lookup,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, disk, writes = server.gate(), threading.Event(), threading.Event()
    data, write = pattern(1_000_000), portable.pwrite
    url = server.add("/a.bin", first(1, stall_after(100_000, gate)), body=data)
    driver = new_thread_driver(Settings(timeout=90.0, connections=2, split_seconds=0.0))
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", LOOK_UP)
        job = driver.begun(url, tmp_path, 100_000)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lookup)
        driver.until(lookup.begun.is_set)

        def pwrite(fd: int, some: memoryview, offset: int) -> int:
            writes.set()
            disk.wait()
            return write(fd, some, offset)

        patch.setattr(portable, "pwrite", pwrite)
        gate.open()
        driver.until(writes.is_set)
        driver.host.dismiss()
        helper = lookup.threads[0]
        driver.host._abandon(helper)  # type: ignore[attr-defined]
        driver.look()
        has_ended = job.uid in driver.ended
        disk.set()
        assert not has_ended
        assert driver.outcome(job) == Halted()
        assert driver.host.is_quiet()
        lookup.gate.set()
        helper.join()
    received = driver.host._transfers[job.uid].received  # type: ignore[attr-defined]
    assert received > 100_000
    assert finished(driver.run(job)).read_bytes() == data


# -- Time-outs, by whoever supervises. In which phase they end what is in the table of faults.


def test_a_slow_body_goes_on(
    new_thread_driver: Callable[..., Driver],
    server: Server,
    tmp_path: Path,
    supervisors_clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In all it takes three times as long as the time-out."""
    monkeypatch.setattr(control_module, "time", supervisors_clock)
    driver, gate = new_thread_driver(Settings(timeout=90.0, connections=1)), server.gate()
    job = new_job(server.add("/a.bin", drip(50_000, gate), body=DATA), tmp_path)
    driver.submit(job)
    for count in (50_000, 100_000, 150_000):
        driver.until_received(job, count)
        supervisors_clock.now += 89.0
        driver.look()
        gate.step()
    assert finished(driver.outcome(job)).read_bytes() == DATA
    assert len(server.requests) == 1


def test_waiting_to_try_again_has_no_time_out(
    new_thread_driver: Callable[..., Driver], server: Server, tmp_path: Path, supervisors_clock: Clock
) -> None:
    driver = new_thread_driver(Settings(timeout=90.0, connections=1))
    job = new_job(server.add("/a.bin", first(1, status(503, {"Retry-After": "1"})), body=DATA), tmp_path)
    driver.submit(job)
    driver.until_phase(job, Phase.BACKOFF)
    supervisors_clock.now += 1000
    driver.look()
    supervisors_clock.now -= 1000
    assert finished(driver.outcome(job)).read_bytes() == DATA
    assert len(server.requests) == 2


def test_openssl_is_not_told_to_trust_anybody() -> None:
    environment = connect.Environment()
    for context in (environment.context(), environment.proxy_context()):
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert environment.proxy_context().check_hostname


# -- What comes over a kept connection.


@pytest.mark.parametrize("is_tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("before", [1, 2])
def test_a_connection_that_closes_just_when_it_is_asked_again_is_no_failure(
    monkeypatch: pytest.MonkeyPatch,
    fetch: Fetcher,
    server: Server,
    trusted: Server,
    is_tls: bool,
    before: int,
) -> None:
    monkeypatch.setattr(retry, "TRIES", 1)
    server = trusted if is_tls else server
    for number in range(before):
        finished(fetch(server.add(f"/{number}.bin", body=DATA)))
    url = server.add("/last.bin", first(1, cut_before_headers), body=DATA)
    assert finished(fetch(url)).read_bytes() == DATA
    assert server.connections.accepted == 2


@pytest.mark.parametrize("times", [1, 2])
def test_a_kept_connection_that_the_server_has_waited_too_long_for_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, fetch: Fetcher, server: Server, times: int
) -> None:
    monkeypatch.setattr(retry, "TRIES", 1)
    finished(fetch(server.add("/1.bin", body=DATA)))
    url = server.add("/2.bin", first(times, status(408, {"Connection": "close"})), body=DATA)
    ended = fetch(url)
    assert server.connections.accepted == 2
    if times == 1:
        assert finished(ended).read_bytes() == DATA
    else:  # over a new one it is the server's trouble
        assert "(408)" in failed(ended)


@pytest.mark.parametrize("way", ["server", "proxy", "tunnel"])
def test_a_kept_connection_is_asked_in_the_very_words_of_its_first_request(
    monkeypatch: pytest.MonkeyPatch, fetch: Fetcher, server: Server, trusted: Server, way: str
) -> None:
    with Proxy() as proxy:
        if way == "tunnel":
            server = trusted
            monkeypatch.setenv("all_proxy", proxy.url)
        if way == "proxy":  # which keeps what it is asked for itself
            monkeypatch.setenv("all_proxy", server.origin.replace("://", "://us:pw@"))
        asked_for = "http://files.example" if way == "proxy" else server.origin
        login = asked_for.replace("://", "://me:pw@")
        for number in range(3):
            server.add(f"/{number}.bin", body=DATA)
            finished(fetch(f"{login}/{number}.bin"))
    first, *others = server.requests
    root = asked_for if way == "proxy" else ""
    assert [each.target for each in server.requests] == [f"{root}/{number}.bin" for number in range(3)]
    assert bool(first.headers["Proxy-Authorization"]) is (way == "proxy")
    assert first.headers["Host"] == asked_for.partition("://")[2]
    assert first.headers["Authorization"]
    assert [list(other.headers) for other in others] == [list(first.headers)] * 2
    assert server.connections.accepted == 1


def test_a_cookie_in_two_lines_goes_back_in_one(fetch: Fetcher, server: Server) -> None:
    def behave(exchange: Exchange) -> None:
        head = b"HTTP/1.1 302 Found\r\nLocation: /b.bin\r\nSet-Cookie: a=one\r\n two; Path=/\r\n"
        exchange.send(head + b"Content-Length: 0\r\n\r\n")

    server.add("/b.bin", body=DATA)
    assert finished(fetch(server.add("/a.bin", behave))).read_bytes() == DATA
    assert server.requests[-1].headers["Cookie"] == "a=one two"
    assert server.connections.accepted == 1


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_cookie_for_nobody_is_its_servers(fetch: Fetcher, server: Server, host: str) -> None:
    fields = {"Location": "/b.bin", "Set-Cookie": "seen=1; Domain=; Path=/"}
    url = server.add("/a.bin", status(302, fields))
    server.add("/b.bin", body=DATA)
    assert finished(fetch(url.replace("127.0.0.1", host))).read_bytes() == DATA
    assert [request.headers["Cookie"] for request in server.requests] == [None, "seen=1"]


@pytest.mark.parametrize("domain", ["localhost", ".LocalHost"])
def test_a_cookie_goes_back_to_a_server_that_names_itself_and_has_no_dot(
    fetch: Fetcher, server: Server, domain: str
) -> None:
    cookie = f"seen=1; Path=/; Domain={domain}"
    url = server.add("/a.bin", status(302, {"Location": "/b.bin", "Set-Cookie": cookie}))
    server.add("/b.bin", status(302, {"Location": server.add("/c.bin", body=DATA)}))
    assert finished(fetch(url.replace("127.0.0.1", "localhost"))).read_bytes() == DATA
    assert [request.headers["Cookie"] for request in server.requests] == [None, "seen=1", None]


def test_a_cookie_is_of_its_server_whoever_asks(fetch: Fetcher, server: Server) -> None:
    with Server() as other:  # of the same name: cookies know no ports (RFC 6265, section 8.5)
        target = other.add("/b.bin", body=DATA)
        cookies = [("Set-Cookie", "a=1; Path=/; Domain=127.0.0.1"), ("Set-Cookie", "b=2; Path=/")]
        server.add("/a.bin", status(302, [("Location", target), *cookies]))
        assert finished(fetch(server.url("/a.bin", user="me:s3cret"))).read_bytes() == DATA
        assert other.requests[0].headers["Cookie"] == "a=1; b=2"
        assert other.requests[0].headers["Authorization"] is None


def test_one_that_was_asked_to_stop_just_before_leaves_no_connection_open(
    fetch: Fetcher, server: Server, tmp_path: Path
) -> None:
    finished(fetch(server.add("/1.bin", body=DATA), tmp_path))
    transfer = fetch.transfer(new_job(server.add("/2.bin", body=DATA), tmp_path))
    waker = Waker()
    control = Control(waker)
    control.stop()
    with pytest.raises(Stopped):
        transfer.run(control, fetch.client, memoryview(bytearray(1000)))
    waker.close()
    server.wait_open(0)
    assert [request.path for request in server.requests] == ["/1.bin"]


def with_another(gate: Gate) -> Callable[[Exchange], None]:
    """A body that is longer than was said, by a whole answer of its own."""

    def behave(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        exchange.wait(gate)
        exchange.send(b"body" + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother")

    return behave


@pytest.mark.parametrize("is_tls", [False, True], ids=["http", "https"])
def test_what_follows_a_body_is_not_taken_for_the_next_answer(
    thread_driver: Driver, server: Server, gate: Gate, trusted: Server, tmp_path: Path, is_tls: bool
) -> None:
    server = trusted if is_tls else server
    job = new_job(server.add("/1.bin", with_another(gate)), tmp_path)
    thread_driver.submit(job)
    thread_driver.until_phase(job, Phase.BODY)
    gate.open()
    assert finished(thread_driver.outcome(job)).read_bytes() == b"body"
    job = new_job(server.add("/2.bin", body=DATA), tmp_path)
    assert finished(thread_driver.run(job)).read_bytes() == DATA
