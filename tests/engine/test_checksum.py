"""A file that is not what its checksum says: it is kept, for a checksum that is right."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driving import Digest, Driver, Failed, Fetcher, Job, failed, finished, names, new_job, part_of
from server import Server, add_headers, html_instead, ignore_range, pattern, status

from background_downloads.transfer.names import part_name
from background_downloads.transfer.segments import OVERLAP

pytestmark = pytest.mark.usefixtures("no_delays")

DATA = pattern(200_000)
RIGHT = Digest("sha256", hashlib.sha256(DATA).hexdigest())
WRONG = Digest("sha256", "0" * 64)
DIFFERS = "its checksum differs. Retry downloads it again. If the checksum was wrong, press Replace Link"


class Scene:
    """A link with a wrong checksum: the file has come, and is kept."""

    def __init__(self, new_driver: Callable[..., Driver], server: Server, folder: Path) -> None:
        self._new_driver, self._server, self._folder = new_driver, server, folder
        self.url = server.add("/a.bin", body=DATA)
        self.driver = new_driver()
        self.asked = 0

    def fail(self) -> None:
        outcome = self.driver.run(self.job(WRONG))
        assert isinstance(outcome, Failed)
        assert DIFFERS in outcome.error
        assert (outcome.kept, part_of(self._folder).read_bytes()) == (len(DATA), DATA)
        self.asked = len(self._server.requests)

    def job(self, digest: Digest | None, *, url: str = "", called: str = "a.bin", partial: str = "") -> Job:
        """As a row has it that was downloaded before: with the name that the server gave."""
        return new_job(url or self.url, self._folder, uid=1, digest=digest, called=called, partial=partial)

    def restart(self) -> None:
        """Blender is started anew."""
        self.driver.shut()
        self.driver = self._new_driver()

    def finish(self, job: Job) -> list[str | None]:
        """The file is right; which ranges were asked for."""
        assert finished(self.driver.run(job)).read_bytes() == DATA
        assert names(self._folder) == ["a.bin"]
        return [request.range for request in self._server.requests[self.asked :]]


@pytest.fixture
def scene(new_driver: Callable[..., Driver], server: Server, tmp_path: Path) -> Scene:
    return Scene(new_driver, server, tmp_path)


@pytest.fixture(params=["goes on", "is started anew"])
def blender(request: pytest.FixtureRequest, scene: Scene) -> Iterator[Scene]:
    """After the failure Blender goes on, or is started anew."""
    scene.fail()
    if request.param == "is started anew":
        scene.restart()
    return scene


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_with_the_right_one_nothing_is_asked(blender: Scene, algorithm: str) -> None:
    assert blender.finish(blender.job(Digest(algorithm, hashlib.new(algorithm, DATA).hexdigest()))) == []


def test_without_one_its_end_is_asked_for_once_more(blender: Scene) -> None:
    assert blender.finish(blender.job(None)) == [f"bytes={len(DATA) - OVERLAP}-"]


def test_the_same_again_fetches_it_anew(blender: Scene, server: Server) -> None:
    assert DIFFERS in failed(blender.driver.run(blender.job(WRONG)))
    assert [request.range for request in server.requests] == [None, None]
    assert blender.finish(blender.job(RIGHT)) == [None]


def test_a_server_that_has_mended_its_file_brings_it(
    new_driver: Callable[..., Driver], server: Server, tmp_path: Path
) -> None:
    driver, job = new_driver(), new_job(server.add("/a.bin", body=DATA[::-1]), tmp_path, digest=RIGHT)
    assert DIFFERS in failed(driver.run(job))
    server.add("/a.bin", body=DATA)
    assert finished(driver.run(job)).read_bytes() == DATA
    assert names(tmp_path) == ["a.bin"]


def test_a_server_that_is_gone_meanwhile_costs_nothing(blender: Scene, server: Server) -> None:
    server.add("/a.bin", status(404))
    for _ in range(2):
        assert "404" in failed(blender.driver.run(blender.job(WRONG)))
    blender.asked += 2
    assert blender.finish(blender.job(RIGHT)) == []


def test_a_server_without_ranges_is_not_asked(scene: Scene, server: Server) -> None:
    server.add("/a.bin", ignore_range, body=DATA, etag=None, last_modified=None)
    scene.fail()
    assert scene.finish(scene.job(RIGHT)) == []


def test_what_came_packed_is_kept_too(scene: Scene, server: Server) -> None:
    server.add("/a.bin", body=DATA, encoding="gzip")
    scene.fail()
    assert scene.finish(scene.job(RIGHT)) == []


def test_its_name_is_the_servers_to_say(scene: Scene, server: Server) -> None:
    url = server.add("/a.php", add_headers(("Content-Disposition", "filename=a.bin")), body=DATA)
    scene.url = url
    scene.fail()
    assert scene.finish(scene.job(RIGHT, called="")) == [f"bytes={len(DATA) - OVERLAP}-"]


def test_another_link_with_the_right_one_needs_no_server(scene: Scene, server: Server) -> None:
    scene.fail()
    old = part_of(Path(scene.job(None).directory)).name
    assert scene.finish(scene.job(RIGHT, url=server.url("/gone.bin"), partial=old)) == []


def test_another_link_with_the_same_brings_its_own_file(scene: Scene, server: Server) -> None:
    """That of the old link stays until the row goes on without it."""
    server.add("/a.bin", body=DATA[::-1])
    outcome = scene.driver.run(scene.job(RIGHT))
    assert DIFFERS in failed(outcome)
    folder = Path(scene.job(None).directory)
    old, url = part_of(folder).name, server.add("/b.bin", body=DATA)
    assert finished(scene.driver.run(scene.job(RIGHT, url=url, partial=old))).read_bytes() == DATA
    assert (folder / old).read_bytes() == DATA[::-1]
    assert not (folder / part_name(url, str(folder))).exists()
    assert [request.range for request in server.requests] == [None, None]


def test_a_page_to_sign_in_on_is_told_as_such_and_not_kept(
    fetch: Fetcher, server: Server, tmp_path: Path
) -> None:
    url = server.add("/a.blend", html_instead())
    assert "you may need to sign in" in failed(fetch(url, tmp_path, digest=RIGHT))
    assert names(tmp_path) == []
