"""User and password: as a link has them, else as a netrc does, whatever else stands in it."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driving import Driver, Fetcher, failed, finished, new_job
from hypothesis import given
from hypothesis import strategies as st
from server import Server, basic_auth, pattern, redirect, stall_before_headers

from background_downloads.transfer import logins
from background_downloads.transfer.logins import Login

DATA = pattern(2000)
OURS = "machine 127.0.0.1 login me password p4ss\n"
OTHER = "machine other.example login you password 0ther\n"
ANYWHERE = "default login any password 4ny\n"


def sent(server: Server) -> bytes | None:
    """User and password of the last request."""
    header = server.requests[-1].headers["Authorization"]
    return None if header is None else base64.b64decode(header.removeprefix("Basic "))


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HOME", "USERPROFILE"):  # the second is Windows'
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    return tmp_path / ".netrc"


# -- Of the link.


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("token", b"token:"),
        ("token:", b"token:"),
        (":pw", b":pw"),
        ("me:pw", b"me:pw"),
        ("me%40example.org:p%3A%2F%40w", b"me@example.org:p:/@w"),
        ("me:p:w", b"me:p:w"),
        ("jürgen:grün", "jürgen:grün".encode()),
        ("j%FCrgen:%00", b"j\xfcrgen:\0"),
        ("a@b", b"a@b:"),
        ("100%:x", b"100%:x"),
        ("", None),
        (":", None),
    ],
)
def test_a_links_user_is_sent_with_what_password_there_is(
    fetch: Fetcher, server: Server, netrc: Path, user: str, expected: bytes | None
) -> None:
    url = server.add("/a.bin", body=DATA).replace("://", f"://{user}@")
    assert finished(fetch(url)).read_bytes() == DATA
    assert sent(server) == expected


@pytest.mark.parametrize("user", ["token", "me:pw", ":pw"])
def test_a_links_user_stays_with_its_server(fetch: Fetcher, server: Server, netrc: Path, user: str) -> None:
    server.add("/b.bin", body=DATA)
    url = server.add("/near.bin", redirect("/b.bin")).replace("://", f"://{user}@")
    assert finished(fetch(url))
    assert sent(server) == (user if ":" in user else f"{user}:").encode()
    url = server.add("/far.bin", redirect(server.url("/b.bin", host="localhost"))).replace(
        "://", f"://{user}@"
    )
    assert finished(fetch(url))
    assert sent(server) is None


def test_a_password_that_is_not_accepted_is_said_to_be_so(
    fetch: Fetcher, server: Server, netrc: Path
) -> None:
    server.add("/a.bin", basic_auth("artist", "right"), body=DATA)
    sentence = failed(fetch(server.url("/a.bin", user="artist:wrong")))
    assert "does not accept the user name and the password (401)" in sentence
    assert "wrong" not in sentence
    assert "needs a user name" in failed(fetch(server.url("/a.bin")))


def test_a_redirect_may_bring_a_user_of_its_own(fetch: Fetcher, server: Server, netrc: Path) -> None:
    target = server.add("/b.bin", body=DATA).replace("://", "://guest@")
    url = server.add("/a.bin", redirect(target)).replace("://", "://me:pw@")
    assert finished(fetch(url))
    assert sent(server) == b"guest:"


# -- Of a netrc.


def test_what_a_netrc_says_of_a_server_is_read_once_for_all_workers_and_anew_for_the_next(
    thread_driver: Driver, server: Server, tmp_path: Path, netrc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    header = logins.header

    def counted(url: str, *args: Any, **options: Any) -> str:
        asked.append(url)
        return header(url, *args, **options)

    monkeypatch.setattr(logins, "header", counted)
    gate, host = server.gate(), thread_driver.host
    jobs = [
        new_job(server.add(f"/{n}.bin", stall_before_headers(gate), body=DATA), tmp_path) for n in range(3)
    ]
    thread_driver.submit(jobs[0])
    thread_driver.until_reached(gate)
    thread_driver.submit(*jobs[1:])
    thread_driver.until_reached(gate, 3)
    gate.open()
    for job in jobs:
        assert finished(thread_driver.outcome(job)).read_bytes() == DATA
    assert (len(asked), sent(server)) == (1, None)
    host.dismiss()
    thread_driver.until(host.is_quiet, "all workers' end")
    netrc.write_text(OURS)
    netrc.chmod(0o600)
    last = new_job(server.add("/last.bin", body=DATA), tmp_path)
    assert finished(thread_driver.run(last)).read_bytes() == DATA
    assert sent(server) == b"me:p4ss"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(OURS, id="alone"),
        pytest.param(OTHER + OURS, id="behind another"),
        pytest.param("\ufeff" + OURS, id="byte order mark"),
        pytest.param(OURS.replace("\n", "\r\n"), id="Windows' line ends"),
        pytest.param(OURS.replace(" ", "\n\t"), id="a word a line"),
        pytest.param(OURS.replace("machine", "MACHINE").replace("login", "Login"), id="upper case"),
        pytest.param('machine 127.0.0.1 login "me" password "p4ss"', id="quotes"),
        pytest.param("default login me password p4ss", id="default"),
        pytest.param("default login d password d\n" + OURS, id="default first"),
        pytest.param(OURS + "machine 127.0.0.1 login you password no", id="twice"),
        pytest.param("# machine 127.0.0.1 login no password no\n" + OURS, id="comment"),
        pytest.param(OURS.replace("\n", " # until May\n"), id="comment behind it"),
        pytest.param("machine 127.0.0.1 account x login me password p4ss", id="account"),
        pytest.param("machine 127.0.0.1 account me password p4ss", id="account for a user"),
        pytest.param("macdef init\nmachine 127.0.0.1 login no password no\n\n" + OURS, id="macro"),
        pytest.param(OTHER + "macdef init\ncd /pub\nbin\n\n" + OURS, id="macro of another"),
        pytest.param("machine other.example login\n" + OURS, id="another without a value"),
        pytest.param("machine\n" + OURS, id="machine without a name"),
        pytest.param("machine other.example login you port 80 = ?\n" + OURS, id="words that mean nothing"),
        pytest.param("login you password no\n" + OURS, id="no machine"),
        pytest.param(OURS + 'machine other.example login "you', id="a quote without an end behind it"),
    ],
)
def test_an_entry_is_found_whatever_stands_around_it(
    fetch: Fetcher, server: Server, netrc: Path, text: str
) -> None:
    netrc.write_bytes(text.encode())
    assert finished(fetch(server.add("/a.bin", body=DATA))).read_bytes() == DATA
    assert sent(server) == b"me:p4ss"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OTHER.encode().replace(b"0ther", b"\xe9\xff") + OURS.encode(), b"me:p4ss"),
        (b"# caf\xe9\n" + OURS.encode(), b"me:p4ss"),
        (OURS.encode().replace(b"p4ss", b"gr\xfcn"), b"me:gr\xfcn"),
        (OURS.encode().replace(b"p4ss", "grün".encode()), "me:grün".encode()),
        (b"machine 127.0.0.1 login me password " + rb'"a b\"c\\d\te"', b'me:a b"c\\d\te'),
        (b"machine 127.0.0.1 login me password #1", b"me:#1"),
        (
            "machine 127.0.0.1 login me password a\u00a0b\u2028c\x85d\x1fe".encode(),
            "me:a\u00a0b\u2028c\x85d\x1fe".encode(),
        ),
        (b"machine 127.0.0.1 login me", b"me:"),
        (b"machine 127.0.0.1 password p4ss", b":p4ss"),
        (b"machine 127.0.0.1\ndefault login x", None),
        (b'machine 127.0.0.1 login me password "p4ss', b"me:"),
        (b'machine other.example login "you\n' + OURS.encode(), None),
        (OTHER.encode(), None),
        (b"\0" * 100, None),
        (b"", None),
    ],
)
def test_what_can_be_read_of_a_netrc_is_used(
    fetch: Fetcher, server: Server, netrc: Path, text: bytes, expected: bytes | None
) -> None:
    netrc.write_bytes(text)
    assert finished(fetch(server.add("/a.bin", body=DATA))).read_bytes() == DATA
    assert sent(server) == expected


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("me", b"me:p4ss"),
        ("her", b"her:s3cret"),
        ("her:own", b"her:own"),
        ("nobody", b"nobody:"),
        ("you", b"you:"),  # whose password is another server's
        ("any", b"any:"),
    ],
)
def test_a_link_that_names_a_user_alone_gets_that_ones_password(
    fetch: Fetcher, server: Server, netrc: Path, user: str, expected: bytes
) -> None:
    netrc.write_text(OTHER + OURS + OURS.replace("me", "her").replace("p4ss", "s3cret") + ANYWHERE)
    assert finished(fetch(server.add("/a.bin", body=DATA).replace("://", f"://{user}@")))
    assert sent(server) == expected


@pytest.mark.parametrize("make", [folder, pipe, dangling])
def test_what_is_no_netrc_stands_in_no_downloads_way(
    fetch: Fetcher, server: Server, netrc: Path, make: Callable[[Path], None]
) -> None:
    make(netrc)
    assert finished(fetch(server.add("/a.bin", body=DATA))).read_bytes() == DATA
    assert sent(server) is None


def test_a_netrc_that_may_not_be_read(
    fetch: Fetcher, server: Server, netrc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc.write_text(OURS)
    real = os.open

    def forbidden(path: object, *args: int, **options: int) -> int:
        if os.fspath(path) == str(netrc):
            raise PermissionError(13, "Permission denied", str(netrc))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", forbidden)  # root may read everything
    assert finished(fetch(server.add("/a.bin", body=DATA))).read_bytes() == DATA
    assert sent(server) is None


@pytest.mark.parametrize(
    ("place", "expected"),
    [("~/logins", b"me:p4ss"), ("~/link", b"me:p4ss"), ("/nowhere", None), ("/dev/null", None)],
)
def test_a_netrc_may_lie_elsewhere(
    fetch: Fetcher,
    server: Server,
    tmp_path: Path,
    netrc: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    expected: bytes | None,
) -> None:
    netrc.write_text(OURS.replace("p4ss", "n0"))
    (tmp_path / "logins").write_text(OURS)
    (tmp_path / "link").symlink_to("logins")
    monkeypatch.setenv("NETRC", place)
    finished(fetch(server.add("/a.bin", body=DATA), tmp_path))
    assert sent(server) == expected


def test_the_other_name_of_a_netrc(fetch: Fetcher, server: Server, netrc: Path) -> None:
    netrc.with_name("_netrc").write_text(OURS)
    finished(fetch(server.add("/a.bin", body=DATA)))
    assert sent(server) == b"me:p4ss"


@given(
    st.binary(max_size=300) | st.text('machine default login password macdef "\\#\n\r\t é').map(str.encode)
)
def test_any_file_is_read_without_a_complaint(content: bytes) -> None:
    for entries in logins._entries(content.decode("utf-8", "surrogateescape")).values():
        assert all(isinstance(logins._login(fields), Login) for fields in entries)
