"""Access tokens: where they are kept, and whom they are sent to."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from driving import Driver, Failed, Settings, failed, finished, is_private, new_job
from server import (
    Certificates,
    Server,
    after,
    cut_after,
    first,
    pattern,
    redirect,
    stall_before_headers,
    status,
)

from background_downloads.session import tokens as tokens_module
from background_downloads.session.tokens import Tokens, host_of
from background_downloads.transfer.job import TransferError

TOKEN = "s3cr3t-t0ken_~+/="
DATA = pattern(100_000)


@pytest.fixture
def secure(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server that speaks TLS, and that this machine trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    with Server(tls=certificates.good) as server:
        yield server


def settings(*servers: Server, **options: object) -> Settings:
    tokens = tuple((f"127.0.0.1:{server.port}", TOKEN) for server in servers)
    return Settings(timeout=5.0, connections=2, first_delay=0.0, tokens=tokens, **options)  # type: ignore[arg-type]


def hosts_of(tokens: Tokens) -> tuple[str, ...]:
    """Whose tokens are known, once they were read."""
    return tuple(host for host, _ in tokens.pairs)


def authorizations(server: Server) -> list[str | None]:
    return [request.headers["Authorization"] for request in server.requests]


# -- On the wire.


def test_a_token_goes_to_its_server(
    new_driver: Callable[..., Driver], secure: Server, tmp_path: Path
) -> None:
    url = secure.add("/a.bin", first(1, cut_after(1000)), body=DATA)
    assert finished(new_driver(settings(secure)).run(new_job(url, tmp_path))).read_bytes() == DATA
    assert set(authorizations(secure)) == {f"Bearer {TOKEN}"}


def test_a_token_is_not_sent_over_http(
    new_thread_driver: Callable[..., Driver], server: Server, tmp_path: Path
) -> None:
    url = server.add("/a.bin", body=DATA)
    finished(new_thread_driver(settings(server)).run(new_job(url, tmp_path)))
    assert authorizations(server) == [None]


@pytest.mark.parametrize("to", ["localhost", "127.0.0.1"])
def test_a_redirect_takes_no_token_to_another_server(
    new_driver: Callable[..., Driver], secure: Server, certificates: Certificates, tmp_path: Path, to: str
) -> None:
    with Server(tls=certificates.good) as other:
        other.add("/b.bin", body=DATA)
        url = secure.add("/a.bin", redirect(other.url("/b.bin", host=to)), body=DATA)
        finished(new_driver(settings(secure)).run(new_job(url, tmp_path)))
        assert authorizations(other) == [None]


def test_a_redirect_takes_no_token_to_the_same_server_over_http(
    new_thread_driver: Callable[..., Driver], secure: Server, server: Server, tmp_path: Path
) -> None:
    server.add("/b.bin", body=DATA)
    url = secure.add("/a.bin", redirect(server.url("/b.bin")), body=DATA)
    finished(new_thread_driver(settings(secure, server)).run(new_job(url, tmp_path)))
    assert authorizations(server) == [None]


def test_a_link_with_a_user_of_its_own_counts_more(
    new_thread_driver: Callable[..., Driver], secure: Server, tmp_path: Path
) -> None:
    secure.add("/a.bin", body=DATA)
    url = secure.url("/a.bin", user="me:p4ss")
    finished(new_thread_driver(settings(secure)).run(new_job(url, tmp_path)))
    assert [text.split()[0] for text in authorizations(secure) if text] == ["Basic"]


def test_a_retry_shows_a_token_that_was_added_while_others_run(
    new_driver: Callable[..., Driver], secure: Server, tmp_path: Path
) -> None:
    gate = secure.gate()
    other = new_job(secure.add("/other.bin", stall_before_headers(gate), body=DATA), tmp_path)
    job = new_job(secure.add("/a.bin", first(1, status(401)), body=DATA), tmp_path)
    driver = new_driver(settings())
    driver.submit(other)
    assert "token" in failed(driver.run(job))
    driver.host.change(tokens=settings(secure).tokens)
    finished(driver.run(job))
    asked = [request.headers["Authorization"] for request in secure.requests if "/a.bin" in request.target]
    assert asked == [None, f"Bearer {TOKEN}"]
    assert driver.host.settings == settings(secure)
    gate.open()
    finished(driver.outcome(other))


@pytest.mark.parametrize("code", [401, 403])
def test_who_needs_a_token_is_told_where_to_add_one(
    new_thread_driver: Callable[..., Driver], secure: Server, tmp_path: Path, code: int
) -> None:
    url = secure.add("/a.bin", status(code))
    sentence = failed(new_thread_driver(settings()).run(new_job(url, tmp_path)))
    assert f"({code})" in sentence
    assert f"add one for 127.0.0.1:{secure.port} in the preferences" in sentence


@pytest.mark.parametrize("code", [401, 403, 404, 503])
def test_a_token_is_never_shown(
    new_driver: Callable[..., Driver],
    secure: Server,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    code: int,
) -> None:
    for name in ("", "urllib3", "requests", "background_downloads"):
        caplog.set_level(logging.DEBUG, logger=name)
    url = secure.add("/a.bin", first(1, cut_after(50_000)), after(1, status(code)), body=DATA)
    with_token = settings(secure)
    driver = new_driver(with_token)
    job = new_job(url, tmp_path)
    outcome = driver.run(job)
    assert isinstance(outcome, Failed)
    said = [repr(with_token), str(with_token), repr(outcome), repr(driver.progress), caplog.text]
    said += [*capfd.readouterr(), *(path.read_bytes().decode("latin-1") for path in tmp_path.iterdir())]
    assert [text for text in said if TOKEN in text] == []
    if code in (401, 403):
        assert "does not accept the token in the preferences" in outcome.error


# -- In its file.


def test_tokens_are_kept_in_a_private_file(tmp_path: Path) -> None:
    assert Tokens(lambda: tmp_path).add(" https://Example.org:443/files?x ", f" {TOKEN}\n") == "example.org"
    (file,) = tmp_path.iterdir()
    assert is_private(file)
    again = Tokens(lambda: tmp_path)
    assert (again.pairs, again.known) == ((("example.org", TOKEN),), ("example.org",))
    assert TOKEN not in repr(again)


def test_a_token_that_is_removed_is_gone_from_the_disk(tmp_path: Path) -> None:
    tokens = Tokens(lambda: tmp_path)
    tokens.add("a.example", TOKEN)
    tokens.add("b.example", "other")
    tokens.remove("a.example")
    assert TOKEN not in (tmp_path / "tokens.json").read_text()
    tokens.remove("b.example")
    assert list(tmp_path.iterdir()) == []
    assert hosts_of(tokens) == ()


@pytest.mark.parametrize("token", ["", " ", "two words\n\x00", "tök€n", "x" * 9000])
def test_what_is_no_token_is_refused_without_repeating_it(tmp_path: Path, token: str) -> None:
    with pytest.raises(TransferError) as caught:
        Tokens(lambda: tmp_path).add("example.org", token)
    assert token.strip() == "" or token not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("example.org", "example.org"),
        ("EXAMPLE.org.", "example.org"),
        ("https://me@example.org/a/b?c", "example.org"),
        ("example.org:8443", "example.org:8443"),
        ("https://example.org:443", "example.org"),
        ("[::1]:8000", "[::1]:8000"),
        ("bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_a_server_is_named_or_linked_to(text: str, host: str) -> None:
    assert host_of(text) == host


@pytest.mark.parametrize("text", ["", "http://example.org", "a b", "example.org:x", "ftp://a", "*", "/etc"])
def test_what_names_no_server_is_a_sentence(text: str) -> None:
    with pytest.raises(TransferError, match=r"^Give the server's name"):
        host_of(text)


@pytest.mark.parametrize("garbage", [b"", b"[1]", b"{", b'{"a b": "x"}', b'"text"', b"\xff", b"[" * 100_000])
def test_a_file_that_cannot_be_read_holds_no_token(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "tokens.json").write_bytes(garbage)
    assert hosts_of(Tokens(lambda: tmp_path)) == ()


def test_what_another_blender_did_to_the_tokens_stays(tmp_path: Path) -> None:
    ours, theirs = Tokens(lambda: tmp_path), Tokens(lambda: tmp_path)
    ours.add("a.example", TOKEN)
    assert hosts_of(theirs) == ("a.example",)
    ours.add("b.example", TOKEN)
    ours.remove("a.example")
    theirs.add("c.example", TOKEN)
    assert hosts_of(Tokens(lambda: tmp_path)) == hosts_of(theirs) == ("b.example", "c.example")


@pytest.mark.parametrize("what", ["add", "remove"])
def test_a_file_that_cannot_be_read_just_now_loses_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """As one that a scanner has open, under Windows: it could be replaced all the same."""

    def refuse(*_: object) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    tokens = Tokens(lambda: tmp_path)
    tokens.add("a.example", TOKEN)
    with monkeypatch.context() as patch:
        patch.setattr(tokens_module, "read_regular", refuse)
        with pytest.raises(TransferError, match="Nothing changed"):
            tokens.add("b.example", TOKEN) if what == "add" else tokens.remove("b.example")
    assert hosts_of(Tokens(lambda: tmp_path)) == hosts_of(tokens) == ("a.example",)


def test_tokens_that_the_disk_does_not_give_just_now_are_there_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Tokens(lambda: tmp_path).add("example.org", TOKEN)
    tokens = Tokens(lambda: tmp_path)

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(tokens_module, "read_regular", fail)
        assert tokens.pairs == ()
    assert tokens.pairs == (("example.org", TOKEN),)


def test_a_folder_that_cannot_be_had_is_a_sentence() -> None:
    def folder() -> Path:
        raise FileNotFoundError

    tokens = Tokens(folder)
    assert hosts_of(tokens) == ()
    with pytest.raises(TransferError, match="folder"):
        tokens.add("example.org", TOKEN)
    assert hosts_of(tokens) == ()
