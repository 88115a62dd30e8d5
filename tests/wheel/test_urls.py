"""Whatever stands in `urls`: an answer, files in the folder and nowhere else, no secret shown."""

from __future__ import annotations

import importlib
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import bpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rules import is_safe
from server import Proxy, Request, Resource, Route, Server, as_body, pattern

if TYPE_CHECKING:
    from conftest import Extension
    from server import Certificates

DATA = pattern(3000)
SECRET = "Q7sEcReT7Q"
# Blender's texts are UTF-8 and end at a NUL.
text = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=30)
# Nearly all links are ones that can be asked for, or nothing would be written.
visible = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zs")), max_size=30)
within = visible.map(lambda words: re.sub(r"[/?#\[\]\\\s]", "", words))
paths = (
    st.sampled_from(["a.bin", "../b", "%2e%2e%2f", "..%5Cc", "CON", "%00", ".d", "~", "a" * 300]) | visible
)
hosts = st.sampled_from(["files.example", "[::1]", "127.0.0.1:80", "ü.example", "a..b"])
link = st.builds(
    "{}://{}{}/{}{}".format,
    st.sampled_from(["http"] * 8 + ["HTTP", "ftp", "file"]),
    st.just("") | within.map(lambda user: f"{user}:{SECRET}@"),
    hosts,
    paths.map(lambda path: re.sub(r"[?#\s]", "", path)),
    st.just("") | visible.map(lambda query: "?" + re.sub(r"[#\s]", "", query) + SECRET),
)


class Everything(Server):
    """Has a file at every path."""

    def _register(self, request: Request) -> tuple[Route, int]:
        resource = Resource(as_body(DATA), None, None)
        return Route(resource, ()), 0


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The one server that every name leads to: nothing leaves this machine."""
    with Everything() as server:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
        yield server


@given(st.lists(link | link | link | text, max_size=4), st.sampled_from([" ", "\n", "\t"]))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_in_urls(
    extension: Extension, everywhere: Server, tmp_path: Path, entries: list[str], separator: str
) -> None:
    folder = tmp_path / "outer" / "files"
    folder.mkdir(parents=True)
    bpy.ops.downloads.clear()
    said = ""
    try:
        assert bpy.ops.downloads.start(urls=separator.join(entries), directory=str(folder)) == {"FINISHED"}
    except RuntimeError as refused:
        said = str(refused)
    rows = bpy.context.window_manager.downloads.items
    shown = [
        said,
        *(field for row in rows for field in (row.name, row.url, row.error, row.note, row.filepath)),
    ]
    assert not any(SECRET in words for words in shown)
    assert [path.name for path in folder.parent.iterdir()] == ["files"]
    assert all(is_safe(path.name) and path.is_file() for path in folder.iterdir())
    assert all(path.read_bytes() == DATA for path in folder.iterdir())
    shutil.rmtree(folder.parent)


@pytest.fixture(params=["http", "https"])
def proxied_url(
    request: pytest.FixtureRequest, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Behind a proxy that wants a password and knows a name that nobody else does."""
    scheme = request.param
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.ca))
    with Server(tls=certificates.good if scheme == "https" else None) as server:
        server.add("/a.bin", body=DATA)
        known = {"files.example": ("127.0.0.1", server.port)}
        with Proxy(user="me", password="p4ss", hosts=known) as proxy:
            monkeypatch.setenv(f"{scheme}_proxy", proxy.url)
            yield f"{scheme}://files.example/a.bin"
            (asked,) = proxy.requests
            assert asked.method == ("GET" if scheme == "http" else "CONNECT")


def test_executed_through_a_proxy_from_the_environment(
    extension: Extension, proxied_url: str, tmp_path: Path
) -> None:
    assert bpy.ops.downloads.start(urls=proxied_url, directory=str(tmp_path)) == {"FINISHED"}
    assert (tmp_path / "a.bin").read_bytes() == DATA


@pytest.mark.parametrize("kind", ["ThreadHost", "ProcessHost"])
def test_hosts_of_an_invoked_run_through_a_proxy_from_the_environment(
    extension: Extension, proxied_url: str, tmp_path: Path, kind: str
) -> None:
    """A child of Blender has its environment."""
    workers = importlib.import_module(f"{extension.package}.workers")
    job = importlib.import_module(f"{extension.package}.transfer.job")
    host = getattr(workers, kind)(job.Settings())
    try:
        host.submit(job.Job(uid=1, url=proxied_url, directory=str(tmp_path)))
        ended = [None]
        while not isinstance(ended[-1], workers.Ended):
            host.wait(1.0)
            ended += host.poll().events
    finally:
        host.shut()
    assert isinstance(ended[-1].outcome, job.Finished), ended
    assert (tmp_path / "a.bin").read_bytes() == DATA
