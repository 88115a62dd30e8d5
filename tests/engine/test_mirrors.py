"""Through a studio's mirror: what it brings, what it is not told, and what happens where it does not."""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from driving import Driver, Fetcher, IfExists, Outcome, Settings, failed, finished, new_job, part_of, skipped
from driving import names as names_in
from server import (
    Behaviour,
    Certificates,
    Exchange,
    Server,
    add_headers,
    basic_auth,
    content_range,
    cut_after,
    cut_before_headers,
    first,
    html_instead,
    ignore_range,
    ignores_if_range,
    on_range,
    pattern,
    redirect,
    refused_port,
    stall_after,
    stall_before_headers,
    status,
)

from background_downloads.transfer import mirrors, names
from background_downloads.transfer.asking import MAX_REDIRECTS
from background_downloads.transfer.job import Finished, Seen, TransferError

DATA = pattern(300_000)
OTHER = pattern(300_000, seed=1)
NAME, PASSWORD, TOKEN = "u5er", "p4ss", "t0ken"
FIELDS = "/{scheme}/{host}/{path}"


def place(url: str) -> str:
    """The path under which a mirror has a link."""
    return "/" + url.replace("://", "/", 1)


class Mirror(Server):
    """A server that has what other servers have, under their links."""

    @property
    def template(self) -> str:
        return self.origin + FIELDS

    def have(self, url: str, *behaviours: Behaviour, body: bytes = DATA, **options: Any) -> None:
        self.add(place(url), *behaviours, body=body, **options)

    def asked(self, url: str) -> int:
        return len(self.requests_for(place(url)))


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror() as running:
        yield running


@pytest.fixture
def new_fetch(tmp_path: Path) -> Iterator[Callable[..., Fetcher]]:
    made: list[Fetcher] = []

    def make(template: str, **options: Any) -> Fetcher:
        options = {"timeout": 90.0, "connections": 4, "first_delay": 0.0} | options
        made.append(Fetcher(Settings(mirror=template, **options), tmp_path))
        return made[-1]

    yield make
    for fetcher in made:
        fetcher.close()


@pytest.fixture
def fetch(new_fetch: Callable[..., Fetcher], mirror: Mirror) -> Fetcher:
    return new_fetch(mirror.template)


@pytest.fixture
def no_netrc(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("home") / "netrc"
    monkeypatch.setenv("NETRC", str(path))
    return path


def cut_at(position: int) -> Behaviour:
    """No byte of the file behind this one, whatever is asked for."""

    def behave(exchange: Exchange) -> None:
        exchange.at_body(position - (exchange.request.range_start or 0), exchange.cut)
        exchange.go_on()

    return behave


def note_of(outcome: Outcome) -> str:
    assert isinstance(outcome, Finished), outcome
    return outcome.note


# -- What it brings.


@pytest.mark.parametrize(
    "path",
    ["/a.bin", "/%2fa%2Fb%20c.bin", "//a///b.bin", "/a.bin?v=1&w=%2f", "/a.bin?", "/x/../a.bin", "/[a]|.bin"],
)
def test_it_is_asked_in_the_servers_place_by_the_link_as_it_is_written(
    fetch: Fetcher, server: Server, mirror: Mirror, path: str
) -> None:
    url = server.origin + path
    mirror.have(url.removesuffix("?"))
    assert finished(fetch(url)).read_bytes() == DATA
    assert [request.target for request in mirror.requests] == [place(url)]
    assert server.requests == []


def test_the_file_is_called_as_the_link_says(
    fetch: Fetcher, server: Server, mirror: Mirror, tmp_path: Path
) -> None:
    for url in (server.url("/rocks.blend"), server.url("/get.php?file=trees.zip")):
        mirror.have(url, body=b"BLENDER-v405")
        assert finished(fetch(url, tmp_path))
    assert names_in(tmp_path) == ["rocks.blend", "trees.zip"]


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("https://example.org/a.bin", "http://m/https/example.org/a.bin"),
        ("HTTPS://Example.ORG:8443/A.bin?b=C", "http://m/https/example.org:8443/A.bin?b=C"),
        ("http://example.org", "http://m/http/example.org/"),
        ("http://[::1]:80/a", "http://m/http/[::1]:80/a"),
        ("http://bücher.example/ä", "http://m/http/xn--bcher-kva.example/%C3%A4"),
        ("http://me:pw@example.org/a#sha256=x", "http://m/http/example.org/a"),
    ],
)
def test_a_link_fills_the_template(link: str, expected: str) -> None:
    assert mirrors.Mirror("http://m" + FIELDS).link(link) == expected


@pytest.mark.parametrize("template", ["http://m/{host}/{path}", "  https://m:8/x/{host}/{scheme}/{path} "])
def test_templates_may_differ(template: str) -> None:
    assert mirrors.Mirror(template).takes("https://example.org/a")


def test_a_link_of_its_own_is_not_asked_of_it_twice(fetch: Fetcher, mirror: Mirror) -> None:
    assert finished(fetch(mirror.add("/tools/a.bin", body=DATA)))
    assert [request.target for request in mirror.requests] == ["/tools/a.bin"]


def test_an_https_server_is_asked_through_it(
    new_fetch: Callable[..., Fetcher], trusted: Server, certificates: Certificates
) -> None:
    with Mirror(tls=certificates.good) as mirror:
        url = trusted.url("/a.bin")
        mirror.have(url)
        assert finished(new_fetch(mirror.template)(url)).read_bytes() == DATA
        assert (mirror.asked(url), trusted.requests) == (1, [])


def test_what_is_cut_goes_on_there_by_range(fetch: Fetcher, server: Server, mirror: Mirror) -> None:
    url = server.url("/a.bin")
    mirror.have(url, first(1, cut_after(200_000)))
    assert finished(fetch(url)).read_bytes() == DATA
    again = mirror.requests[1]
    assert again.range_start == 200_000 - (64 << 10)
    assert again.headers["If-Range"]
    assert server.requests == []


@pytest.mark.parametrize("begins", ["server", "mirror"])
def test_what_one_began_the_other_ends(
    new_fetch: Callable[..., Fetcher], server: Server, mirror: Mirror, begins: str
) -> None:
    """Both tell the same ETag, as a mirror does that passes it on."""
    url = server.add("/a.bin", *([cut_at(200_000)] if begins == "server" else [status(403)]), body=DATA)
    mirror.have(url, *([cut_at(200_000)] if begins == "mirror" else []))
    templates = ["", mirror.template] if begins == "server" else [mirror.template, ""]
    failed(new_fetch(templates[0])(url))
    server.add("/a.bin", body=DATA)
    assert finished(new_fetch(templates[1])(url)).read_bytes() == DATA
    last = (mirror if begins == "server" else server).requests[-1]
    assert last.range_start == 200_000 - (64 << 10)
    assert last.headers["If-Range"]


def test_versions_are_never_mixed(fetch: Fetcher, server: Server, mirror: Mirror) -> None:
    """The mirror has an older one, and not all of it."""
    url = server.add("/a.bin", body=DATA)
    mirror.have(url, first(1, cut_after(200_000)), on_range(status(503)), body=OTHER)
    assert finished(fetch(url)).read_bytes() == DATA


# What both have looks the same where they are put together: 64 KiB are compared there.
NEWER = pattern(1_000_000)
OLDER = pattern(100_000, seed=5) + NEWER[100_000:700_000] + pattern(300_000, seed=5)


@pytest.mark.parametrize(
    ("behaviours", "body", "told"),
    [
        ([ignores_if_range], OLDER, {"etag": None, "last_modified": None}),
        ([ignores_if_range], OLDER, {"etag": None}),
        ([ignores_if_range], OLDER, {"etag": '"older"'}),
        ([], OLDER, {"etag": '"older"'}),
        ([], NEWER, {"etag": '"other"'}),
        ([ignore_range], NEWER, {}),
        ([content_range("bytes 0-1/2")], NEWER, {}),
        ([content_range("bytes 0-999999/1000000")], NEWER, {}),
        ([content_range(None)], NEWER, {}),
    ],
)
def test_what_its_server_began_it_goes_on_with_only_where_it_has_that_very_version(
    new_fetch: Callable[..., Fetcher],
    server: Server,
    mirror: Mirror,
    behaviours: list[Behaviour],
    body: bytes,
    told: dict[str, Any],
) -> None:
    url = server.add("/a.bin", cut_at(500_000), body=NEWER)
    failed(new_fetch("")(url))
    server.add("/a.bin", body=NEWER)
    mirror.have(url, *behaviours, body=body, **told)
    outcome = new_fetch(mirror.template)(url)
    assert finished(outcome).read_bytes() == NEWER
    assert "the server itself was asked" in note_of(outcome)
    assert server.requests[-1].range_start == 500_000 - (64 << 10)  # what came is kept
    assert mirror.asked(url) == 1


@pytest.mark.parametrize("how", [[cut_at(500_000)], [first(1, cut_at(500_000)), status(503)]])
@pytest.mark.parametrize("of_server", [{"etag": None}, {}, {"etag": None, "last_modified": None}])
def test_with_a_date_alone_what_it_began_is_not_gone_on_with_by_its_server(
    fetch: Fetcher, server: Server, mirror: Mirror, how: list[Behaviour], of_server: dict[str, Any]
) -> None:
    url = server.add("/a.bin", body=NEWER, **of_server)
    mirror.have(url, *how, body=OLDER, etag=None)
    outcome = fetch(url)
    assert finished(outcome).read_bytes() == NEWER
    assert "the server itself was asked" in note_of(outcome)


DATED: dict[str, Any] = {"etag": None}  # told apart by a date alone, which versions may share


@pytest.mark.parametrize("then", ["none", "another", "lost", "silent", "the same"])
def test_what_another_process_began_through_it_with_a_date_alone_only_it_goes_on_with(
    new_thread_driver: Callable[..., Driver],
    new_fetch: Callable[..., Fetcher],
    server: Server,
    mirror: Mirror,
    tmp_path: Path,
    then: str,
) -> None:
    url = server.add("/a.bin", body=NEWER, **DATED)
    mirror.have(url, stall_after(500_000), body=OLDER, **DATED)
    driver = new_thread_driver(Settings(timeout=90.0, connections=1, mirror=mirror.template))
    driver.halted(url, tmp_path, 500_000)
    driver.host.shut()
    gone = {"lost": [status(404)], "silent": [cut_before_headers]}
    mirror.have(url, *gone.get(then, []), body=OLDER, **DATED)
    with Mirror() as other:
        other.have(url, body=NEWER, **DATED)
        templates = {"none": "", "another": other.template}
        outcome = new_fetch(templates.get(then, mirror.template))(url, tmp_path)
    assert finished(outcome).read_bytes() == (OLDER if then == "the same" else NEWER)
    if then == "the same":
        assert mirror.requests[-1].range_start == 500_000 - (64 << 10)


@pytest.mark.parametrize("strong", [False, True])
def test_what_its_server_began_with_a_date_alone_it_is_not_asked_for(
    new_fetch: Callable[..., Fetcher], server: Server, mirror: Mirror, strong: bool
) -> None:
    told = {} if strong else DATED
    url = server.add("/a.bin", cut_at(500_000), body=NEWER, **told)
    failed(new_fetch("")(url))
    server.add("/a.bin", body=NEWER, **told)
    mirror.have(url, body=NEWER if strong else OLDER, **told)
    assert finished(new_fetch(mirror.template)(url)).read_bytes() == NEWER
    assert mirror.asked(url) == strong
    assert (mirror if strong else server).requests[-1].range_start == 500_000 - (64 << 10)


@pytest.mark.parametrize("options", [{}, {"etag": None}])
def test_what_has_not_changed_its_server_says(
    fetch: Fetcher, server: Server, mirror: Mirror, options: dict[str, Any]
) -> None:
    """A mirror may not know yet that it has."""
    url = server.add("/a.bin", body=DATA, **options)
    mirror.have(url, **options)
    outcome = fetch(url, if_exists=IfExists.UPDATE)
    assert isinstance(outcome, Finished)
    skipped(fetch(url, if_exists=IfExists.UPDATE, have=outcome.have))
    assert (mirror.asked(url), len(server.requests)) == (1, 1)
    server.add("/a.bin", body=OTHER, etag='"new"', last_modified="Mon, 01 Jan 2125 00:00:00 GMT")
    again = fetch(url, if_exists=IfExists.UPDATE, have=outcome.have)
    assert finished(again).read_bytes() == OTHER
    assert note_of(again) == ""


def test_what_it_says_of_the_file_is_checked(fetch: Fetcher, server: Server, mirror: Mirror) -> None:
    digest = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
    url = server.url("/a.bin")
    mirror.have(url, add_headers(("Repr-Digest", f"sha-256=:{digest}:")))
    assert note_of(fetch(url)) == "Verified by the sha256 that the server sent"
    assert server.requests == []


def test_several_connections_go_through_it(
    new_thread_driver: Callable[..., Driver], server: Server, mirror: Mirror, tmp_path: Path
) -> None:
    gate, data = mirror.gate(), pattern(4 << 20)
    url = server.url("/a.bin")

    def slow_whole(exchange: Exchange) -> None:
        if not exchange.request.range:
            exchange.at_body(1 << 20, lambda: exchange.wait(gate))
        exchange.go_on()

    mirror.have(url, slow_whole, body=data)
    driver = new_thread_driver(
        Settings(timeout=90.0, connections=4, split_seconds=0.0, mirror=mirror.template)
    )
    job = new_job(url, tmp_path)
    driver.submit(job)
    driver.until(lambda: any(request.range for request in mirror.requests), "a range")
    gate.open()
    assert finished(driver.outcome(job)).read_bytes() == data
    assert server.requests == []


def test_hosts_of_either_kind_ask_it(
    new_driver: Callable[..., Driver], server: Server, mirror: Mirror, tmp_path: Path
) -> None:
    urls = [server.url(f"/{n}.bin") for n in range(3)]
    for url in urls:
        mirror.have(url)
    driver = new_driver(Settings(timeout=90.0, connections=4, mirror=mirror.template))
    jobs = [new_job(url, tmp_path) for url in urls]
    driver.submit(*jobs)
    assert {finished(driver.outcome(job)).read_bytes() for job in jobs} == {DATA}
    assert server.requests == []


def test_a_look_ahead_goes_through_it(
    new_thread_driver: Callable[..., Driver], server: Server, mirror: Mirror, tmp_path: Path
) -> None:
    url = server.url("/a.bin")
    mirror.have(url)
    driver = new_thread_driver(Settings(timeout=90.0, connections=4, mirror=mirror.template))
    job = new_job(url, tmp_path, looks=0)
    driver.submit(job)
    outcome = driver.outcome(job)
    assert isinstance(outcome, Seen)
    assert (outcome.name, outcome.size) == ("a.bin", len(DATA))
    assert server.requests == []


# -- Where it does not.


def circle(exchange: Exchange) -> None:
    exchange.reply(302, {"Location": f"http://{exchange.request.headers['Host']}{exchange.request.target}"})


def huge(exchange: Exchange) -> None:
    exchange.head(200, {"Content-Length": str(1 << 50), "Content-Type": "application/octet-stream"})
    exchange.cut()


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        *((status(code), f"answered {code}") for code in (202, 204, 400, 401, 403, 404, 407, 410, 416)),
        *((status(code, {"Retry-After": "1000"}), f"answered {code}") for code in (429, 500, 502, 503, 504)),
        (html_instead(), "sent a web page"),
        (cut_before_headers, "does not answer"),
        (circle, "leads nowhere"),
        (redirect("ftp://example.org/a"), "leads nowhere"),
        (redirect("http://nowhere.invalid:0/"), "leads nowhere"),
        (lambda exchange: exchange.reply(206, {"Content-Range": "bytes 0-9/99"}, b"x" * 10), "answered 206"),
        (status(304), "answered 304"),
        (add_headers(("Content-Encoding", "br")), "does not bring all of it"),
        (huge, "does not bring all of it"),
    ],
)
def test_whatever_it_answers_the_server_itself_has_the_last_word(
    fetch: Fetcher, server: Server, mirror: Mirror, behaviour: Behaviour, why: str
) -> None:
    url = server.add("/a.bin", body=DATA)
    mirror.have(url, behaviour)
    outcome = fetch(url)
    assert finished(outcome).read_bytes() == DATA
    assert note_of(outcome) == f"The mirror 127.0.0.1:{mirror.port} {why}, so the server itself was asked"
    assert (mirror.asked(url), len(server.requests)) == (1 + (behaviour is circle) * MAX_REDIRECTS, 1)


def test_where_it_refuses_connections_the_server_is_asked(
    new_fetch: Callable[..., Fetcher], server: Server
) -> None:
    with refused_port() as port:
        fetch = new_fetch(f"http://127.0.0.1:{port}{FIELDS}")
        outcome = fetch(server.add("/a.bin", body=DATA))
    assert note_of(outcome) == f"The mirror 127.0.0.1:{port} does not answer, so the server itself was asked"


@pytest.mark.parametrize("behaviour", [cut_before_headers, status(502), status(504)])
def test_nobody_waits_soon_again_for_one_that_did_not_answer(
    fetch: Fetcher, server: Server, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour
) -> None:
    """What is cut once, or twice with something that comes in between, may be chance."""
    urls = [server.add(f"/{n}.bin", body=DATA) for n in range(7)]
    fails = [True, False, True, True, False, False]
    for url, does_fail in zip(urls, [*fails, False], strict=True):
        mirror.have(url, *([behaviour] if does_fail else []))
    assert [bool(note_of(fetch(url))) for url in urls[:6]] == [True, False, True, True, True, True]
    assert [mirror.asked(url) > 0 for url in urls] == [True] * 4 + [False] * 3
    monkeypatch.setattr(mirrors, "REST", 0.0)
    fetch.client.mirror.rest()
    assert note_of(fetch(urls[6])) == ""


@pytest.mark.usefixtures("no_delays")
@pytest.mark.parametrize("behaviour", [stall_before_headers(), stall_after(100_000)])
def test_one_that_stalls_is_left_at_once_and_rests(
    new_driver: Callable[..., Driver], server: Server, mirror: Mirror, tmp_path: Path, behaviour: Behaviour
) -> None:
    urls = [server.add(f"/{n}.bin", body=DATA) for n in range(2)]
    for url in urls:
        mirror.have(url, behaviour)
    driver = new_driver(Settings(timeout=1.0, connections=1, mirror=mirror.template))
    outcomes = [driver.run(new_job(url, tmp_path)) for url in urls]
    assert [finished(outcome).read_bytes() for outcome in outcomes] == [DATA, DATA]
    assert ["the server itself was asked" in note_of(outcome) for outcome in outcomes] == [True, True]
    assert [mirror.asked(url) for url in urls] == [1, 0]


def test_where_its_name_is_unknown_the_server_is_asked(
    new_fetch: Callable[..., Fetcher], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = socket.getaddrinfo

    def look_up(host: str, *args: Any, **options: Any) -> Any:
        if host == "mirror.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "nobody of that name")
        return known(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    outcome = new_fetch("https://mirror.invalid" + FIELDS)(server.add("/a.bin", body=DATA))
    assert note_of(outcome) == "The mirror mirror.invalid does not answer, so the server itself was asked"


def test_where_its_certificate_is_not_good_the_server_is_asked(
    new_fetch: Callable[..., Fetcher], server: Server, certificates: Certificates
) -> None:
    with Mirror(tls=certificates.self_signed) as mirror:
        fetch = new_fetch(mirror.template)
        outcome = fetch(server.add("/a.bin", body=DATA))
        assert fetch.client.mirror.rests
    assert "cannot be used" in note_of(outcome)


def test_what_it_cuts_twice_at_one_place_the_server_brings_to_its_end(
    fetch: Fetcher, server: Server, mirror: Mirror
) -> None:
    """A file that is cut is soon left; one that does so with two in a row rests."""
    urls = [server.add(f"/{n}.bin", body=DATA) for n in range(6)]
    cuts = [True, False, True, True, False, False]
    for url, is_cut in zip(urls, cuts, strict=True):
        mirror.have(url, *([cut_at(200_000)] if is_cut else []))
    outcomes = [fetch(url) for url in urls]
    assert {finished(outcome).read_bytes() for outcome in outcomes} == {DATA}
    assert ["does not bring all of it" in note_of(outcome) for outcome in outcomes[:4]] == cuts[:4]
    assert [mirror.asked(url) for url in urls] == [2, 1, 2, 2, 0, 0]
    assert all((request.range_start or 0) > 0 for request in server.requests[:3])


def test_nobody_is_asked_in_the_servers_place_because_it_names_him(
    fetch: Fetcher, server: Server, mirror: Mirror
) -> None:
    """Where it says that it was led gives a file its name, and no more."""
    url = server.add("/a.bin", body=DATA)
    with Server() as other:
        mirror.have(url, add_headers(("Content-Location", other.add("/b.bin", body=DATA))), cut_at(200_000))
        assert finished(fetch(url)).read_bytes() == DATA
        assert other.requests == []
    (request,) = server.requests
    assert (request.range_start or 0) > 0


def test_a_damaged_copy_is_fetched_from_the_server(fetch: Fetcher, server: Server, mirror: Mirror) -> None:
    url = server.add("/a.bin", body=DATA)
    mirror.have(url, body=OTHER)
    outcome = fetch(url, sha256=hashlib.sha256(DATA).hexdigest())
    assert finished(outcome).read_bytes() == DATA
    assert "sent a damaged file" in note_of(outcome)
    assert (mirror.asked(url), len(server.requests)) == (1, 1)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/a.blend", b""),
        ("/a", b""),
        ("/a.zip", b'{"error": "not found"}'),
        ("/a.blend", b"<?xml version='1.0'?><Error/>"),
        ("/a.blend", b"<!DOCTYPE html><html>Sign in</html>"),
        ("/download/42", b"<!DOCTYPE html><html>Sign in</html>"),
    ],
)
def test_what_looks_like_no_file_is_not_taken_from_it(
    fetch: Fetcher, server: Server, mirror: Mirror, path: str, body: bytes
) -> None:
    url = server.add(path, body=DATA)
    mirror.have(url, body=body)
    outcome = fetch(url)
    assert finished(outcome).read_bytes() == DATA
    assert "sent something else" in note_of(outcome)


@pytest.mark.parametrize(
    ("path", "body"), [("/a.json", b'{"a": 1}'), ("/a.blend", DATA), ("/a", b'{"a": 1}')]
)
def test_what_may_be_a_file_is_taken_from_it(
    fetch: Fetcher, server: Server, mirror: Mirror, path: str, body: bytes
) -> None:
    url = server.url(path)
    mirror.have(url, body=body)
    assert finished(fetch(url)).read_bytes() == body
    assert server.requests == []


def test_what_the_server_refuses_too_is_its_refusal(fetch: Fetcher, server: Server, mirror: Mirror) -> None:
    assert failed(fetch(server.url("/none.bin"))).startswith("There is no file at this link (404)")
    assert (len(mirror.requests), len(server.requests)) == (1, 1)


def test_where_neither_answers_both_are_named(fetch: Fetcher, mirror: Mirror) -> None:
    with refused_port() as port:
        sentence = failed(fetch(f"http://127.0.0.1:{port}/a.bin"))
    assert sentence == (
        "The server 127.0.0.1 refuses connections. Tried 5 times."
        f" The mirror 127.0.0.1:{mirror.port} answered 404, so the server itself was asked"
    )
    assert len(mirror.requests) == 1


def test_a_retry_by_hand_asks_it_again(
    fetch: Fetcher, server: Server, mirror: Mirror, tmp_path: Path
) -> None:
    url = server.url("/a.bin")
    transfer = fetch.transfer(new_job(url, tmp_path))
    failed(fetch.run(transfer))
    mirror.have(url)
    assert note_of(fetch.run(transfer)) == ""


# -- Redirects.


@pytest.mark.parametrize("is_relative", [False, True])
def test_where_the_server_redirects_it_is_asked_too(
    fetch: Fetcher, server: Server, mirror: Mirror, is_relative: bool
) -> None:
    url, target = server.url("/x/latest"), server.url("/x/rocks-1.bin")
    also = add_headers(("Content-Location", "/elsewhere/latest.en"))  # which is no base (RFC 9110, 10.2.2)
    mirror.have(url, also, redirect("rocks-1.bin" if is_relative else target))
    mirror.have(target)
    assert finished(fetch(url)).name == "rocks-1.bin"
    assert (mirror.asked(url), mirror.asked(target), server.requests) == (1, 1, [])


def test_its_own_redirect_is_followed(fetch: Fetcher, server: Server, mirror: Mirror) -> None:
    url = server.url("/rocks.bin")
    mirror.have(url, redirect(mirror.add("/store/5ad1", body=DATA)))
    assert finished(fetch(url)).name == "rocks.bin"
    assert server.requests == []


@pytest.mark.parametrize("login", ["", f"{NAME}:{PASSWORD}@"])
def test_where_it_leads_back_its_server_is_asked_at_once(
    fetch: Fetcher, server: Server, mirror: Mirror, login: str
) -> None:
    """As nginx may do with what it does not want to keep."""
    url = server.add("/a%20b.bin", body=DATA)
    mirror.have(url, redirect(url))
    assert note_of(fetch(url.replace("://", f"://{login}"))) == ""
    assert (len(mirror.requests), len(server.requests)) == (1, 1)


@pytest.mark.parametrize("led", ["http://[", "http://[x]/b.zip", "ftp://h/b.zip", "//:x/b.zip", "\xff b.zip"])
@pytest.mark.parametrize("code", [200, 302])
def test_where_it_says_that_it_was_led_may_be_anything(
    fetch: Fetcher, server: Server, mirror: Mirror, led: str, code: int
) -> None:
    url, target = server.url("/latest"), server.url("/c.bin")
    mirror.have(url, add_headers(("Content-Location", led)), *([redirect("c.bin")] if code == 302 else []))
    mirror.have(target, add_headers(("Content-Location", led)))
    assert finished(fetch(url)).read_bytes() == DATA
    assert mirror.asked(target) == (code == 302)
    assert server.requests == []


def test_where_it_followed_one_the_file_is_called_after_its_place(
    fetch: Fetcher, server: Server, mirror: Mirror
) -> None:
    url = server.url("/models/4711")
    mirror.have(url, add_headers(("Content-Location", "https://cdn.example/x/rocks.zip")))
    assert finished(fetch(url)).name == "rocks.zip"


def test_where_a_redirect_that_it_kept_has_expired_the_server_gives_a_new_one(
    fetch: Fetcher, server: Server, mirror: Mirror
) -> None:
    server.add("/cdn/a.bin?sig=old", status(403))
    new = server.add("/cdn/a.bin?sig=new", body=DATA)
    url = server.add("/a.bin", redirect(new))
    mirror.have(url, redirect(server.url("/cdn/a.bin?sig=old")))
    assert finished(fetch(url)).read_bytes() == DATA
    assert not any("sig" in request.target for request in mirror.requests)


# -- What it is not told.


def told(mirror: Mirror) -> str:
    """All that it was ever sent."""
    return repr([(request.target, list(request.headers)) for request in mirror.requests])


def secrets() -> list[str]:
    login = base64.b64encode(f"{NAME}:{PASSWORD}".encode()).decode()
    return [NAME, PASSWORD, TOKEN, login, "Authorization", "Cookie"]


def check_silence(mirror: Mirror) -> None:
    assert mirror.requests
    assert [secret for secret in secrets() if secret in told(mirror)] == []


@pytest.mark.parametrize("has_it", [True, False])
@pytest.mark.parametrize("of", ["link", "netrc", "default"])
def test_a_servers_password_never_goes_there(
    fetch: Fetcher, server: Server, mirror: Mirror, no_netrc: Path, of: str, has_it: bool
) -> None:
    url = server.add("/a.bin", basic_auth(NAME, PASSWORD), body=DATA)
    no_netrc.write_text(
        {
            "link": "",
            "netrc": f"machine 127.0.0.1 login {NAME} password {PASSWORD}",
            "default": f"default login {NAME} password {PASSWORD}",
        }[of]
    )
    if of == "netrc":  # which knows no ports: the mirror has to have another name
        fetch.client.mirror = mirrors.Mirror(mirror.template.replace("127.0.0.1", "localhost"))
    mirror.have(url, *([] if has_it else [status(401)]))
    link = url.replace("://", f"://{NAME}:{PASSWORD}@") if of == "link" else url
    assert finished(fetch(link)).read_bytes() == DATA
    check_silence(mirror)
    assert len(server.requests) == (not has_it)


@pytest.mark.usefixtures("no_netrc")
@pytest.mark.parametrize("has_it", [True, False])
def test_a_servers_token_never_goes_there(
    new_fetch: Callable[..., Fetcher], trusted: Server, mirror: Mirror, has_it: bool
) -> None:
    url = trusted.add("/a.bin", body=DATA)
    mirror.have(url, *([] if has_it else [status(401)]))
    fetch = new_fetch(mirror.template, tokens=((f"127.0.0.1:{trusted.port}", TOKEN),))
    assert finished(fetch(url)).read_bytes() == DATA
    check_silence(mirror)
    sent = [request.headers["Authorization"] for request in trusted.requests]
    assert sent == ([] if has_it else [f"Bearer {TOKEN}"])


def test_a_servers_cookie_never_goes_there(fetch: Fetcher, server: Server, mirror: Mirror) -> None:
    """Also one that came through it; the server itself gets it where it is asked."""
    target = server.url("/b.bin")

    def with_cookie(exchange: Exchange) -> None:
        exchange.reply(302, {"Location": target, "Set-Cookie": f"pass={TOKEN}; Path=/"})

    url = server.add("/a.bin", with_cookie)
    server.add("/b.bin", body=DATA)
    mirror.have(url, with_cookie)
    assert finished(fetch(url)).read_bytes() == DATA
    assert mirror.asked(target) == 1
    check_silence(mirror)
    assert server.requests[-1].headers["Cookie"] == f"pass={TOKEN}"


@pytest.mark.parametrize(
    "query",
    [
        "token=x",
        "access_token=x",
        "X-Amz-Credential=a&X-Amz-Signature=x",
        "X-Goog-Signature=x",
        "sv=2020&sig=x",
        "Expires=1&Signature=x&Key-Pair-Id=K",
        "v=1;auth=x",
        "api_key=x",
        "apikey=x",
        "password=x",
        "md5=x&e=1",
        "%74oken=x",
        "TOKEN",
        "hmac=x",
        "userPwd=1&pwd=x",
        "userKey=x",
        "user=me&passphrase=x",
        "rlkey=x",
        "resourcekey=x",
        "PHPSESSID=x",
        "verify=x",
        "oauth_nonce=x",
        "next=%2Fa%3Ftoken%3Dx",
        "next=%252Fa%253Ftoken%253Dx",
        "url=https%3A%2F%2Fu%3Ap%40example.org%2F",
        "a=abcdefghijklmno1",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.x",
        "550e8400-e29b-41d4-a716-446655440000",
    ],
)
def test_a_link_that_is_a_secret_itself_is_not_shown_to_it(
    fetch: Fetcher, server: Server, mirror: Mirror, query: str
) -> None:
    server.add("/a.bin", body=DATA)
    outcome = fetch(f"{server.url('/a.bin')}?{query}")
    assert note_of(outcome) == ""
    assert (len(server.requests), mirror.requests) == (1, [])


@pytest.mark.parametrize(
    "query",
    [
        *("", "v=3", "file=a.bin", "author=me", "design=x", "monkey=1", "expand=1", "tokyo=1", "key1word=2"),
        "id=1234567890123456",
    ],
)
def test_other_queries_are_part_of_the_address(query: str) -> None:
    assert mirrors.Mirror("http://m" + FIELDS).takes(f"http://example.org/a?{query}")


@pytest.mark.parametrize("path", ["a;jsessionid=x/b", "a;v=1;token=x", "a%3Bjsessionid%3Dx"])
def test_nor_is_one_with_a_secret_beside_its_path(path: str) -> None:
    assert not mirrors.Mirror("http://m" + FIELDS).takes(f"http://example.org/{path}")
    assert mirrors.Mirror("http://m" + FIELDS).takes("http://example.org/a;v=1/b")


def test_the_default_of_netrc_does_not_go_there_where_it_leads_to_itself(
    new_fetch: Callable[..., Fetcher], server: Server, mirror: Mirror, no_netrc: Path
) -> None:
    no_netrc.write_text(f"default login x{NAME} password x{PASSWORD}")
    url = server.url("/a.bin")
    mirror.have(url, redirect(mirror.add("/store/1", body=DATA)))
    template = mirror.template.replace("://", f"://{NAME}:{PASSWORD}@")
    assert finished(new_fetch(template)(url)).read_bytes() == DATA
    assert [request.headers["Authorization"] is None for request in mirror.requests] == [False, True]


@pytest.mark.parametrize(
    ("template", "url"),
    [
        ("https://m:443", "https://m/a"),
        ("https://m", "https://M:443/a"),
        ("http://me:pw@m:80", "http://m/a"),
        ("http://m:8080", "http://M:8080/a"),
    ],
)
def test_its_own_links_are_told_by_scheme_host_and_port(template: str, url: str) -> None:
    assert not mirrors.Mirror(template + FIELDS).takes(url)
    assert mirrors.Mirror(template + FIELDS).takes(url.replace("//", "//x."))


def test_it_has_a_password_of_its_own(
    new_fetch: Callable[..., Fetcher], server: Server, mirror: Mirror, no_netrc: Path
) -> None:
    no_netrc.write_text(f"machine localhost login {NAME} password {PASSWORD}")
    url = server.url("/a.bin")
    mirror.have(url, basic_auth(NAME, PASSWORD))
    assert finished(new_fetch(mirror.template.replace("127.0.0.1", "localhost"))(url))
    assert server.requests == []


@pytest.mark.usefixtures("no_netrc", "trusted")
def test_it_has_a_token_of_its_own_which_no_server_gets(
    new_fetch: Callable[..., Fetcher], server: Server, certificates: Certificates
) -> None:
    url = server.add("/a.bin", body=DATA)
    with Mirror(tls=certificates.good) as mirror:
        mirror.have(url, status(503))
        fetch = new_fetch(mirror.template, tokens=((f"127.0.0.1:{mirror.port}", TOKEN),))
        assert finished(fetch(url))
        assert mirror.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"
    assert server.requests[0].headers["Authorization"] is None


def test_the_sidecar_knows_the_server_alone(
    fetch: Fetcher, server: Server, mirror: Mirror, tmp_path: Path
) -> None:
    url = server.add("/a.bin", status(403))
    mirror.have(url, cut_at(200_000))
    failed(fetch(url, tmp_path))
    sidecar = part_of(tmp_path).with_name(part_of(tmp_path).name + names.SIDECAR).read_text()
    assert url in sidecar
    assert str(mirror.port) not in sidecar


# -- Templates that are none.


@pytest.mark.parametrize(
    "template",
    [
        "http://m/",
        "http://m/{scheme}/{host}",
        "http://m/{path}",
        "http://m/{host}/{path}/x",
        "http://m/{host}/x{path}",
        "http://m/{host}/{path}?x={query}",
        "http://m/{server}/{path}",
        "http://m/{host}/{/{path}",
        "http://{host}/{path}",
        "{scheme}://m/{host}/{path}",
        "m/{host}/{path}",
        "ftp://m/{host}/{path}",
        "http:///{host}/{path}",
        "http://m:x/{host}/{path}",
        "http://m m/{host}/{path}",
        "https://me:p4ss@/{host}/{path}",
    ],
)
def test_a_template_that_cannot_be_used_is_a_sentence(template: str) -> None:
    with pytest.raises(TransferError, match=r"^This mirror cannot be used: ") as caught:
        mirrors.Mirror(template)
    assert str(caught.value).endswith(f". Write it as {mirrors.EXAMPLE}")
    assert PASSWORD not in str(caught.value)


def test_a_template_that_cannot_be_used_fails_downloads_and_asks_nobody(
    new_driver: Callable[..., Driver], server: Server, tmp_path: Path
) -> None:
    driver = new_driver(Settings(timeout=90.0, connections=4, mirror="https://mirror"))
    job = new_job(server.add("/a.bin", body=DATA), tmp_path)
    driver.submit(job)
    assert failed(driver.outcome(job)).startswith("This mirror cannot be used: ")
    assert server.requests == []


def test_nobody_sees_the_password_in_a_template() -> None:
    mirror = mirrors.Mirror(f"https://{NAME}:{PASSWORD}@m" + FIELDS)
    assert PASSWORD not in f"{mirror} {mirror!r} {mirror.why('x')} {Settings(mirror=f'http://{PASSWORD}@m')}"
