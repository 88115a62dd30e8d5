"""The mirror that docs/studio.md describes, run from that page: a real nginx before a server of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driving import Driver, Fetcher, IfExists, Settings, finished, new_job, skipped
from server import Certificates, Exchange, Server, add_headers, basic_auth, changed, pattern, redirect
from services import StudioMirror, find, private_folder

from background_downloads.transfer.job import Finished

pytestmark = pytest.mark.skipif(
    not (find("nginx") and find("setpriv")), reason="nginx is not installed (Debian: nginx, util-linux)"
)

DATA = pattern(20 << 20)  # more than two pieces
SHORT = DATA[: 1 << 20]
LINK = "https://files.example"
CDN = "https://cdn.files.example"


@pytest.fixture
def origin(certificates: Certificates) -> Iterator[Server]:
    """It is known to the mirror alone: whoever asks it by its name goes through that."""
    with Server(tls=certificates.good) as running:
        yield running


@pytest.fixture
def cdn(certificates: Certificates) -> Iterator[Server]:
    with Server(tls=certificates.good) as running:
        yield running


@pytest.fixture
def mirror(
    origin: Server, cdn: Server, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StudioMirror]:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.ca))
    with (
        private_folder() as folder,
        StudioMirror(
            folder, certificates, {"files.example": origin.port, "cdn.files.example": cdn.port}
        ) as mirror,
    ):
        yield mirror


@pytest.fixture
def seat(mirror: StudioMirror) -> Iterator[Callable[[], Fetcher]]:
    """Computers of the studio."""
    made: list[Fetcher] = []

    def make() -> Fetcher:
        made.append(Fetcher(Settings(timeout=90.0, connections=4, first_delay=0.0, mirror=mirror.template)))
        return made[-1]

    yield make
    for fetcher in made:
        fetcher.close()


def test_the_second_seat_costs_the_server_nothing(
    seat: Callable[[], Fetcher], origin: Server, tmp_path: Path
) -> None:
    origin.add("/a%20b%2Fc.bin?v=1", body=DATA)
    url = f"{LINK}/a%20b%2Fc.bin?v=1"
    for folder in (tmp_path / "one", tmp_path / "two"):
        assert finished(seat()(url, folder)).read_bytes() == DATA
    assert sorted(request.range or "" for request in origin.requests) == [
        "bytes=0-8388607",
        "bytes=16777216-25165823",
        "bytes=8388608-16777215",
    ]
    assert {request.target for request in origin.requests} == {"/a%20b%2Fc.bin?v=1"}
    assert origin.body_sent("/a%20b%2Fc.bin") == len(DATA)


def test_what_a_link_redirects_to_is_kept_under_the_link(
    seat: Callable[[], Fetcher], origin: Server, cdn: Server, tmp_path: Path
) -> None:
    """Signed anew for each who asks; over two hops, the second one relative."""

    def sign(exchange: Exchange) -> None:
        exchange.reply(302, {"Location": f"{CDN}/get?X-Amz-Signature={exchange.number}"})

    origin.add("/models/4711", sign)
    cdn.add("/get", redirect("/x/rocks.zip"))
    cdn.add("/x/rocks.zip", body=b"PK\3\4" + DATA)
    for folder in (tmp_path / "one", tmp_path / "two"):
        path = finished(seat()(f"{LINK}/models/4711", folder))
        assert (path.name, path.stat().st_size) == ("rocks.zip", len(DATA) + 4)
    assert cdn.body_sent("/x/rocks.zip") == len(DATA) + 4


def test_an_interrupted_seat_goes_on_by_range(
    new_thread_driver: Callable[..., Driver], mirror: StudioMirror, origin: Server, tmp_path: Path
) -> None:
    gate = origin.gate()

    def hold_second_piece(exchange: Exchange) -> None:
        if exchange.request.range_start:
            exchange.wait(gate)
        exchange.go_on()

    origin.add("/a.bin", hold_second_piece, body=DATA)
    settings = Settings(timeout=90.0, connections=4, mirror=mirror.template)
    first = new_thread_driver(settings)
    first.halted(f"{LINK}/a.bin", tmp_path, 6 << 20)
    first.shut()
    gate.open()
    job = new_job(f"{LINK}/a.bin", tmp_path)
    assert finished(new_thread_driver(settings).run(job)).read_bytes() == DATA
    assert origin.body_sent("/a.bin") <= len(DATA) + (8 << 20)


def test_a_password_stays_with_the_seat(
    seat: Callable[[], Fetcher], mirror: StudioMirror, origin: Server, tmp_path: Path
) -> None:
    """The mirror does not get the file; so the server itself is asked, with it."""
    origin.add("/a.bin", basic_auth("u5er", "p4ss"), body=SHORT)
    outcome = seat()(f"https://u5er:p4ss@localhost:{origin.port}/a.bin", tmp_path)
    assert isinstance(outcome, Finished)
    assert "so the server itself was asked" in outcome.note
    assert origin.requests[-1].headers["Authorization"]
    log = (mirror.folder / "requests").read_text()
    assert f"/https/localhost:{origin.port}/a.bin" in log
    assert "p4ss" not in log


def test_digests_and_conditions_pass(seat: Callable[[], Fetcher], origin: Server, tmp_path: Path) -> None:
    origin.add("/a.bin", add_headers(("Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA==")), body=SHORT)
    outcome = seat()(f"{LINK}/a.bin", tmp_path, if_exists=IfExists.UPDATE)
    assert isinstance(outcome, Finished)
    assert outcome.note == ""
    skipped(seat()(f"{LINK}/a.bin", tmp_path, if_exists=IfExists.UPDATE, have=outcome.have))
    assert len(origin.requests) == 1


def test_versions_are_not_mixed_where_the_file_changes_between_two_pieces(
    seat: Callable[[], Fetcher], origin: Server, tmp_path: Path
) -> None:
    """nginx cuts its answer. Nobody else has the file here, so the download fails, or comes whole later."""
    other = pattern(20 << 20, seed=1)
    origin.add("/a.bin", changed(1, body=other), body=DATA)
    outcome = seat()(f"{LINK}/a.bin", tmp_path)
    assert not isinstance(outcome, Finished) or finished(outcome).read_bytes() in (DATA, other)
