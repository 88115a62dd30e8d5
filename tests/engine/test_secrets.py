"""User, password and query of a link, and the proxy's password, are used and never shown.

Each way in which a download can end is walked with a link full of secrets; then whatever it left or
said is searched for them: sentences, logs at their finest, the terminal, names of files, sidecars,
what another server was sent.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from driving import Driver, Failed, Fetcher, Outcome, Settings, new_job, opened
from server import (
    Behaviour,
    Certificates,
    Proxy,
    Server,
    cut_after,
    cut_before_headers,
    cut_in_headers,
    first,
    html_instead,
    long_header,
    pattern,
    raw,
    redirect,
    refused_port,
    reset_before_headers,
    stall_after,
    stall_before_headers,
    status,
    with_headers,
)

from background_downloads.transfer import portable

DATA = pattern(200_000)
USER, PASSWORD, TOKEN = "u5er", "p4ss/w0rd", "t0ken"
PROXY_USER, PROXY_PASSWORD = "pr0xy", "pr0xyp4ss"
SECRETS = (USER, PASSWORD, quote(PASSWORD, safe=""), TOKEN, PROXY_USER, PROXY_PASSWORD)
LOGIN = f"{USER}:{quote(PASSWORD, safe='')}"
QUERY = f"?token={TOKEN}"
IMPATIENT = Settings(timeout=0.2, connections=4, first_delay=0.0)
LOGGERS = ("urllib3", "requests", "background_downloads", "charset_normalizer", "asyncio")


class Surfaces:
    """Where a secret could be seen."""

    def __init__(
        self, folder: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self.folder = folder
        self._caplog, self._capfd = caplog, capfd
        self._said: list[str] = []

    def add(self, *things: object) -> None:
        self._said += map(str, things)
        self._said += map(repr, things)

    def check(self) -> None:
        said = [*self._said, *self._capfd.readouterr()]
        said += map(logging.Formatter().format, self._caplog.get_records("call"))
        for path in self.folder.rglob("*"):
            said.append(path.name)
            if path.suffix == ".json":
                said.append(path.read_text())
        assert len(self._said) > 1
        for secret in SECRETS:
            assert [text for text in said if secret in text] == []


@pytest.fixture
def surfaces(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[Surfaces]:
    caplog.set_level(logging.DEBUG)
    for name in LOGGERS:
        caplog.set_level(logging.DEBUG, logger=name)
    surfaces = Surfaces(tmp_path / "files", caplog, capfd)
    yield surfaces
    surfaces.check()


@pytest.fixture
def bystander() -> Iterator[Server]:
    """Another server, which must not learn anything."""
    with Server() as server:
        server.add("/b.bin", body=DATA)
        yield server


def run(driver: Driver, surfaces: Surfaces, url: str, **options: Any) -> Outcome:
    job = new_job(url, surfaces.folder, **options)
    driver.submit(job)
    driver.until(lambda: driver.ended.get(job.uid) or driver.progress.get(job.uid))
    surfaces.add(job, driver.progress)
    outcome = driver.outcome(job)
    surfaces.add(outcome, driver.progress, driver.ended)
    return outcome


@pytest.fixture
def fails(new_thread_driver: Callable[..., Driver], surfaces: Surfaces) -> Callable[..., None]:
    """Downloads a link by threads, which is to fail."""

    def check(url: str, **options: Any) -> None:
        assert isinstance(run(new_thread_driver(IMPATIENT), surfaces, url, **options), Failed)

    return check


def told_to(server: Server) -> list[str]:
    """All that was sent to a server."""
    return [f"{request.target} {request.headers!r} {list(request.headers)!r}" for request in server.requests]


# -- What a server does.


@pytest.mark.parametrize(
    "behaviour",
    [
        cut_after(1000),
        status(401, {"WWW-Authenticate": "Basic realm=x"}),
        status(403),
        status(404),
        status(416),
        status(429, {"Retry-After": "9999"}),
        status(503),
        redirect(f"/a.blend{QUERY}"),
        redirect("ftp://files.example/x"),
        redirect("http://[::1%25lo]/"),
        redirect(f"ftp://{LOGIN}@127.0.0.1/{QUERY}"),
        redirect(f"http://{LOGIN}@[bad/{QUERY}"),
        html_instead(),
        raw(b"nonsense\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nbad header line\r\nContent-Length: x\r\n\r\n"),
        cut_before_headers,
        reset_before_headers,
        cut_in_headers(),
        long_header(),
        with_headers({"Content-Encoding": "br"}),
        with_headers({"Content-Length": "-5"}),
        first(9, with_headers({"Location": f"http://x/{QUERY}", "ETag": "\x01"}), cut_after(1000)),
        stall_before_headers,
        stall_after,
    ],
)
def test_what_a_server_does(fails: Callable[..., None], server: Server, behaviour: Behaviour) -> None:
    if behaviour is stall_before_headers:
        behaviour = stall_before_headers(server.gate())
    elif behaviour is stall_after:
        behaviour = stall_after(1000, server.gate())
    server.add("/a.blend", behaviour, body=DATA)
    fails(server.url(f"/a.blend{QUERY}", user=LOGIN))


def test_another_digest(fails: Callable[..., None], server: Server) -> None:
    server.add("/a.bin", body=DATA)
    url = server.url(f"/a.bin{QUERY}", user=LOGIN)
    fails(url, sha256="0" * 64)


@pytest.mark.parametrize("to", ["localhost", "127.0.0.1"])
def test_another_server_learns_nothing(
    new_driver: Callable[..., Driver], server: Server, bystander: Server, surfaces: Surfaces, to: str
) -> None:
    server.add("/a.bin", redirect(bystander.url("/b.bin", host=to)))
    run(new_driver(IMPATIENT), surfaces, server.url(f"/a.bin{QUERY}", user=LOGIN))
    assert len(bystander.requests) == 1
    surfaces.add(*told_to(bystander))
    assert "Authorization" in server.requests[0].headers


# -- What stands in the way.


def test_nobody_listens(fails: Callable[..., None]) -> None:
    with refused_port() as port:
        url = f"http://{LOGIN}@127.0.0.1:{port}/a.bin{QUERY}"
        fails(url)


def test_no_tls_there(fails: Callable[..., None], server: Server) -> None:
    url = server.url(f"/a.bin{QUERY}", user=LOGIN).replace("http:", "https:")
    fails(url)


@pytest.mark.parametrize("kind", ["self_signed", "wrong_host", "expired"])
def test_a_bad_certificate(fails: Callable[..., None], certificates: Certificates, kind: str) -> None:
    with Server(tls=getattr(certificates, kind)) as server:
        url = server.url(f"/a.bin{QUERY}", user=LOGIN)
        fails(url)
        assert server.requests == []


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("code", [200, 403, 407, 502])
def test_a_proxy_that_refuses(
    fails: Callable[..., None], monkeypatch: pytest.MonkeyPatch, scheme: str, code: int
) -> None:
    """With 200 it lets the connection through, to where nobody listens."""
    wanted = "other" if code == 407 else PROXY_PASSWORD
    with Proxy(user=PROXY_USER, password=wanted, connect_status=200 if code == 407 else code) as proxy:
        origin = proxy.origin.replace("//", f"//{PROXY_USER}:{PROXY_PASSWORD}@")
        monkeypatch.setenv(f"{scheme}_proxy", origin)
        url = f"{scheme}://{LOGIN}@127.0.0.1:1/a.bin{QUERY}"
        fails(url)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_down(
    new_driver: Callable[..., Driver], surfaces: Surfaces, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    with refused_port() as port:
        monkeypatch.setenv("all_proxy", f"http://{PROXY_USER}:{PROXY_PASSWORD}@127.0.0.1:{port}")
        url = f"{scheme}://{LOGIN}@files.example/a.bin{QUERY}"
        assert isinstance(run(new_driver(IMPATIENT), surfaces, url), Failed)


@pytest.mark.parametrize(
    "url",
    [
        f"http://{LOGIN}@/a{QUERY}",
        f"http://{LOGIN}@h:99999/a{QUERY}",
        f"http://{LOGIN}@[::1/a{QUERY}",
        f"http://{USER}:{PASSWORD}@h/a{QUERY}",
        f"ftp://{LOGIN}@h/a{QUERY}",
        f"http://{LOGIN}@h/a b{QUERY}",
        f"http://{LOGIN}@h/a#sha256=1{TOKEN}",
        f"http://{LOGIN}@{'a' * 8192}/{QUERY}",
    ],
)
def test_a_link_that_is_none(fails: Callable[..., None], url: str) -> None:
    fails(url)


# -- What the system says, and what nobody foresaw; patched, so in threads.


@pytest.mark.parametrize(
    "error",
    [socket.gaierror(-2, f"unknown {TOKEN}"), UnicodeError(TOKEN), RuntimeError(f"{PASSWORD} {TOKEN}")],
    ids=lambda error: type(error).__name__,
)
def test_a_name_look_up_that_fails(
    fails: Callable[..., None], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def getaddrinfo(*args: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    url = f"http://{LOGIN}@files.example/a.bin{QUERY}"
    fails(url)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_disk_that_fails(
    fails: Callable[..., None], server: Server, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def pwrite(*args: Any) -> int:
        raise OSError(number, os.strerror(number), f"/x/{TOKEN}")

    monkeypatch.setattr(portable, "pwrite", pwrite)
    server.add("/a.bin", body=DATA)
    url = server.url(f"/a.bin{QUERY}", user=LOGIN)
    fails(url)


def test_a_partial_file_that_somebody_else_has(fetch: Fetcher, server: Server, surfaces: Surfaces) -> None:
    server.add("/a.bin", body=DATA)
    url = server.url(f"/a.bin{QUERY}", user=LOGIN)
    surfaces.folder.mkdir()
    other = opened(url, str(surfaces.folder), None)
    try:
        outcome = fetch(url, surfaces.folder)
    finally:
        other.close()
    assert isinstance(outcome, Failed)
    surfaces.add(outcome, other)
