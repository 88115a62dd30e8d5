"""The partial file: lock, sidecar, publication."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from driving import DEADLINE, Clock, Fetcher, failed, names, opened, place, sidecar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server import Server, cut_after, first, pattern

from background_downloads.transfer import part as part_module
from background_downloads.transfer import portable
from background_downloads.transfer.control import Control
from background_downloads.transfer.disk import explained, write_atomically
from background_downloads.transfer.fetch import BUFFER
from background_downloads.transfer.job import Digest, IfExists, TransferError, Validator
from background_downloads.transfer.part import Part
from background_downloads.transfer.ranges import Ranges

URL = "http://me:s3cret@files.example/a.bin?token=t0ken"
STRONG = Validator('"1"', "")


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Part]:
    part = opened(URL, str(tmp_path), None)
    yield part
    part.close()


def _fill(part: Part, count: int, validator: Validator = STRONG) -> None:
    part.write(memoryview(pattern(count)), 0)
    part.received.validator = validator


def _left(folder: Path) -> Part:
    """What is left of 1000 bytes and a sidecar, closed."""
    part = opened(URL, str(folder), None)
    _fill(part, 1000)
    part.close()
    return part


def _reopened(folder: Path, digest: Digest | None = None) -> list[list[int]]:
    part = opened(URL, str(folder), digest)
    ranges = part.received.ranges.as_list()
    part.close()
    return ranges


# -- The lock.


def test_a_partial_file_has_one_owner(part: Part, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match=r"^Another Blender or add-on is downloading this$"):
        opened(URL, str(tmp_path), None)


def test_another_process_that_downloads_the_same_is_noticed(
    fetch: Fetcher, server: Server, tmp_path: Path
) -> None:
    url = server.add("/a.bin", first(1, cut_after(1000)), body=pattern(5000))
    name = part_module.names.part_name(url, str(tmp_path))
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2]); import portable\n"
        "fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); assert portable.lock_file(fd)\n"
        "print('locked', flush=True); sys.stdin.read()"
    )
    arguments = [tmp_path / name, os.path.dirname(portable.__file__)]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        other.stdout.readline()
        assert failed(fetch(url, tmp_path)) == "Another Blender or add-on is downloading this"
        other.communicate()
    assert server.requests == []
    assert names(tmp_path) == [name]


def test_one_that_gave_way_is_waited_for_while_it_lets_go(part: Part, tmp_path: Path) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            part.close()

    other = Part(URL, str(tmp_path), None)
    other.open(sleep)
    assert len(waits) == 3
    assert other.write(memoryview(b"x"), 0)
    other.close()


def test_one_that_does_not_let_go_is_not_waited_for_for_ever(
    part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert part.file.is_open
    clock = Clock()
    monkeypatch.setattr(part_module, "time", clock)

    def sleep(seconds: float) -> None:
        clock.now += seconds

    with pytest.raises(TransferError, match="Another Blender"):
        Part(URL, str(tmp_path), None).open(sleep)
    assert clock.now - Clock.now == pytest.approx(part_module.LOCK_PATIENCE, abs=2 * part_module.LOCK_LOOK)


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a link"])
def test_what_is_no_file_is_not_written_to(tmp_path: Path, kind: str) -> None:
    part = Part(URL, str(tmp_path), None)
    if kind == "a folder":
        place(part).mkdir()
    elif kind == "a pipe":
        os.mkfifo(place(part))
    else:
        place(part).symlink_to("elsewhere")
    with pytest.raises(TransferError, match=r"in the way"):
        part.open()
    assert names(tmp_path) == [place(part).name]
    assert not part.file.is_open


def test_a_file_system_without_locks_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lock(fd: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(portable, "_lock", lock)
    opened(URL, str(tmp_path), None).close()


def test_a_partial_file_that_was_published_by_a_process_that_died_is_let_go(tmp_path: Path) -> None:
    """Both names lead to the finished file then: to write it would damage it."""
    part = opened(URL, str(tmp_path), None)
    _fill(part, 1000)
    os.link(place(part), tmp_path / "a.bin")
    part.release()
    again = opened(URL, str(tmp_path), None)
    again.write(memoryview(b"x" * 1000), 0)
    assert (tmp_path / "a.bin").read_bytes() == pattern(1000)
    again.discard()
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("if_exists", list(IfExists))
def test_a_file_that_is_published_between_open_and_lock_is_let_go(
    part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, if_exists: IfExists
) -> None:
    """By then its one name is the final one: to write it would damage the file."""
    _fill(part, 1000)
    lock = portable.lock_file

    def publish_first(fd: int) -> bool:
        if part.file.is_open:
            part.publish("a.bin", if_exists)
        return lock(fd)

    monkeypatch.setattr(portable, "lock_file", publish_first)
    other = opened(URL, str(tmp_path), None)
    other.write(memoryview(b"x" * 1000), 0)
    assert (tmp_path / "a.bin").read_bytes() == pattern(1000)
    other.discard()
    assert names(tmp_path) == ["a.bin"]


def test_nothing_is_removed_that_somebody_else_put_there(part: Part) -> None:
    place(part).unlink()
    place(part).write_text("of somebody else")
    sidecar(part).write_text("likewise")
    part.discard()
    assert place(part).read_text() == "of somebody else"
    assert sidecar(part).exists()


# -- Files have the mode that a user's files have.


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_modes(tmp_path: Path, mask: int) -> None:
    old = os.umask(mask)
    try:
        part = opened(URL, str(tmp_path), None)
        _fill(part, 10)
        part.checkpoint()
    finally:
        os.umask(old)
    wanted = 0o666 & ~mask
    assert [stat.S_IMODE(path.stat().st_mode) for path in (place(part), sidecar(part))] == [wanted, wanted]
    path = Path(part.publish("a.bin", IfExists.RENAME) or "")
    assert path
    assert stat.S_IMODE(path.stat().st_mode) == wanted


# -- The sidecar.

header = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=20)


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)).map(sorted).map(tuple), max_size=20),
    st.one_of(st.none(), st.integers(1000, 2000)),
    header,
    header,
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_a_sidecar_is_read_as_it_was_written(
    tmp_path: Path, spans: list[tuple[int, int]], size: int | None, etag: str, date: str
) -> None:
    part = opened(URL, str(tmp_path), None)
    os.truncate(place(part), 1000)
    part.received.ranges = Ranges(spans)
    part.received.size = size
    part.received.validator = Validator(etag, date)
    part.checkpoint()
    part.release()
    again = opened(URL, str(tmp_path), None)
    try:
        assert again.received.ranges.as_list() == part.received.ranges.as_list()
        assert again.received.size == size
        assert again.received.validator == Validator(etag, date)
    finally:
        again.discard()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["version", "url", "size", "etag", "last_modified", "ranges"]),
                inner,
                max_size=6,
            )
        ),
        max_leaves=8,
    )
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_any_json_may_stand_in_a_sidecar(tmp_path: Path, about: object) -> None:
    for content in (about, {"version": 1, "url": "http://files.example/a.bin", **_dict(about)}):
        part = opened(URL, str(tmp_path), None)
        sidecar(part).write_text(json.dumps(content))
        part.release()
        again = opened(URL, str(tmp_path), None)
        assert again.received.ranges.end() <= 0  # there is nothing on the disk
        again.discard()


def _dict(value: object) -> dict[str, object]:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {"ranges": value}


def test_a_sidecar_says_of_which_version_and_by_whom_it_began(tmp_path: Path) -> None:
    part = opened(URL, str(tmp_path), None)
    dated = Validator("", "Wed, 01 Jan 2020 00:00:00 GMT", is_date_strong=True)
    part.begin(5000, dated, "0123abcd", is_encoded=False)
    part.write(memoryview(pattern(1000)), 0)
    part.close()
    part.open()
    assert (part.received.size, part.received.via) == (5000, "0123abcd")
    assert part.received.validator == dated
    assert part.received.validator.if_range == dated.last_modified
    assert part.unsaved == 0
    part.close()


@pytest.mark.parametrize(
    "name", ["url", "cut", "digest", "version", "size", "etag", "last_modified", "ranges"]
)
def test_a_sidecar_that_lacks_something_counts_for_nothing(tmp_path: Path, name: str) -> None:
    part = _left(tmp_path)
    about = json.loads(sidecar(part).read_text())
    del about[name]
    sidecar(part).write_text(json.dumps(about))
    counts = name in ("cut", "digest")  # which are for those who find it without its link
    assert _reopened(tmp_path) == ([[0, 1000]] if counts else [])


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"url": "http://files.example/b.bin"},
        {"ranges": [[0, 2000]]},
        {"ranges": [[0, 1001]]},
        {"ranges": [[0, 10]] * 1001},
        {"ranges": [[-5, 10]]},
        {"ranges": [[10, 5]]},
        {"ranges": [[0, float("inf")]]},
        {"ranges": [["0", "10"]]},
        {"size": 1 << 63},
        {"size": 500},
        {"size": -1},
        {"size": True},
        {"size": "1000"},
        {"etag": None},
        {"etag": '"1"\r\n Evil: yes'},
        {"etag": '"€"'},
        {"last_modified": "x" * 2000},
    ],
)
def test_a_sidecar_that_does_not_fit_counts_for_nothing(tmp_path: Path, change: dict[str, object]) -> None:
    part = _left(tmp_path)
    about = json.loads(sidecar(part).read_text())
    sidecar(part).write_text(json.dumps(about | change))
    assert _reopened(tmp_path) == []


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.EACCES])
def test_a_sidecar_that_cannot_be_read_just_now_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    _left(tmp_path)

    def fail(*_: object) -> bytes:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(part_module.disk, "read_regular", fail)
        with pytest.raises(TransferError):
            opened(URL, str(tmp_path), None)
    assert _reopened(tmp_path) == [[0, 1000]]


@pytest.mark.parametrize("change", [{"ranges": [[0, 1000]] * 1000}, {"size": (1 << 63) - 1}, {"size": 1000}])
def test_a_sidecar_may_say_what_just_fits(tmp_path: Path, change: dict[str, object]) -> None:
    part = _left(tmp_path)
    sidecar(part).write_text(json.dumps(json.loads(sidecar(part).read_text()) | change))
    assert _reopened(tmp_path) == [[0, 1000]]


def test_a_sidecar_that_is_too_large_is_none_of_ours(tmp_path: Path) -> None:
    part = _left(tmp_path)
    about = sidecar(part).read_text()
    sidecar(part).write_text(about + " " * ((1 << 20) - len(about)))
    assert _reopened(tmp_path) == [[0, 1000]]
    sidecar(part).write_text(about + " " * ((1 << 20) - len(about) + 1))
    assert _reopened(tmp_path) == []


def test_a_folder_in_the_place_of_a_sidecar_vouches_for_nothing(tmp_path: Path) -> None:
    part = _left(tmp_path)
    sidecar(part).unlink()
    sidecar(part).mkdir()
    assert _reopened(tmp_path) == []


def test_what_survives_is_what_the_last_checkpoint_said(tmp_path: Path) -> None:
    part = opened(URL, str(tmp_path), None)
    _fill(part, 1000)
    part.checkpoint()
    _fill(part, 5000)
    part.release()  # as a process that is killed
    assert _reopened(tmp_path) == [[0, 1000]]


def test_what_has_the_longest_of_names_survives_too(tmp_path: Path) -> None:
    url = f"https://files.example/{'n' * 400}.bin"
    part = opened(url, str(tmp_path), None)
    _fill(part, 1000)
    part.checkpoint()
    part.release()
    part = opened(url, str(tmp_path), None)
    assert part.received.ranges.as_list() == [[0, 1000]]
    part.discard()


def test_bytes_are_made_durable_before_the_sidecar_says_that_they_are_there(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    sync, replace = portable.sync_data, os.replace

    def sync_data(fd: int) -> None:
        order.append("data" if fd == part.file.fd else "sidecar")
        sync(fd)

    def replacing(source: Path, target: Path) -> None:
        order.append("replace")
        replace(source, target)

    monkeypatch.setattr(portable, "sync_data", sync_data)
    monkeypatch.setattr(os, "replace", replacing)
    _fill(part, 1000)
    part.checkpoint()
    assert order == ["data", "sidecar", "replace"]


def test_a_checkpoint_is_due_by_bytes_and_by_time(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    assert part.checkpoint_in > 0
    os.truncate(place(part), 64 << 20)
    part.received.ranges.add(0, 64 << 20)
    assert part.checkpoint_in == 0
    part.checkpoint()
    assert part.checkpoint_in > 0
    now = part_module.time.monotonic()
    monkeypatch.setattr(part_module.time, "monotonic", lambda: now + 5.1)
    assert part.checkpoint_in == 0


# -- Closing.


@pytest.mark.parametrize(
    ("validator", "digest", "resumes"),
    [
        (STRONG, None, True),
        (Validator("", "Wed, 01 Jan 2020 00:00:00 GMT"), None, True),
        (Validator('W/"1"', ""), None, True),
        (Validator(), None, False),
        (Validator(), Digest("md5", "0" * 32), True),
    ],
)
def test_closing_keeps_what_was_received_and_only_what_can_be_trusted_is_resumed(
    tmp_path: Path, validator: Validator, digest: Digest | None, resumes: bool
) -> None:
    part = opened(URL, str(tmp_path), digest)
    _fill(part, 1000, validator)
    part.close()
    assert len(names(tmp_path)) == 2
    assert _reopened(tmp_path, digest) == [[0, 1000]]
    part = opened(URL, str(tmp_path), digest)
    assert part.can_resume is resumes
    part.close()


def test_closing_an_empty_one_leaves_nothing(part: Part, tmp_path: Path) -> None:
    part.close()
    assert names(tmp_path) == []
    part.close()
    part.discard()
    assert names(tmp_path) == []


def test_closing_keeps_nothing_of_what_came_encoded(part: Part, tmp_path: Path) -> None:
    """No byte of it has a position that a server could be asked for."""
    _fill(part, 1000)
    part.begin(None, STRONG, is_encoded=True)
    assert not part.can_resume
    assert not part.can_be_split
    part.close()
    assert names(tmp_path) == []


def test_what_was_only_let_go_of_is_made_durable_when_it_is_closed(part: Part, tmp_path: Path) -> None:
    _fill(part, 1000)
    part.release()
    assert names(tmp_path) == [place(part).name]
    part.close()
    assert _reopened(tmp_path) == [[0, 1000]]


def test_what_a_disk_says_only_as_a_file_is_closed_is_heard(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a server does on which it lies: nobody knows which of the bytes are lost."""
    _fill(part, 1000)
    part.checkpoint()
    _fill(part, 2000)
    close = os.close

    def fail_at_the_end(fd: int) -> None:
        close(fd)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", fail_at_the_end)
        part.release()
    assert not part.memory.mark
    assert not part.open()
    assert part.received.ranges.as_list() == [[0, 1000]]


@pytest.mark.parametrize(("size", "mtime"), [(500, 1e9), (1500, 1e9), (1000, 1e9), (1000, 4e9), (500, 4e9)])
def test_what_somebody_touched_while_it_was_let_go_of_is_not_as_it_was_left(
    part: Part, size: int, mtime: float
) -> None:
    _fill(part, 1000)
    part.release()
    assert part.open()
    part.release()
    os.truncate(place(part), size)
    os.utime(place(part), (mtime, mtime))
    assert not part.open()
    assert not part.received.ranges.total()


def test_what_a_link_left_that_died_as_it_gave_its_file_to_another_is_tidied_up(tmp_path: Path) -> None:
    old = opened("http://files.example/old.bin", str(tmp_path), None)
    _fill(old, 1000)
    old.close()
    part = opened(URL, str(tmp_path), None, earlier=place(old).name)
    _fill(part, 2000)
    part.close()
    sidecar(old).write_text("left")
    again = opened(URL, str(tmp_path), None, earlier=place(old).name)
    assert again.received.ranges.total() == 2000
    assert names(tmp_path) == sorted([place(again).name, sidecar(again).name])
    again.close()


@pytest.mark.parametrize("stops", ["open", "forget", "closed after it"])
def test_what_another_link_left_stays_as_it_was_until_something_fits_to_it(
    tmp_path: Path, stops: str
) -> None:
    """A wrong link costs nothing of what the right one has brought."""
    old = opened("http://files.example/old.bin", str(tmp_path), None)
    _fill(old, 1000)
    old.close()
    before = {path: path.read_bytes() for path in (place(old), sidecar(old))}
    part = opened(URL, str(tmp_path), None, earlier=place(old).name)
    assert part.received.ranges.total() == 1000
    if stops != "open":
        part.forget()
        assert not part.received.ranges.total()
        _fill(part, 10)
    if stops == "closed after it":
        part.close()
    part.release()
    assert {path: path.read_bytes() for path in before} == before
    assert (place(part) == place(old)) is (stops == "open")
    other = opened(f"{URL}?other", str(tmp_path), None, earlier=place(old).name)
    _fill(other, 1001)
    assert not place(old).exists()
    assert not sidecar(old).exists()
    other.discard()


@pytest.mark.parametrize("is_open", [True, False])
def test_what_is_discarded_is_gone_with_all_that_it_knew(part: Part, tmp_path: Path, is_open: bool) -> None:
    _fill(part, 1000)
    part.checkpoint()
    if not is_open:
        part.release()
    part.discard()
    assert names(tmp_path) == []
    assert not part.received.ranges.total()
    assert not part.memory.mark
    assert not part.open()


def test_closing_on_a_full_disk_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = opened(URL, str(tmp_path), None)
    _fill(part, 1000)
    part.checkpoint()
    _fill(part, 2000)

    def write(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(part_module.disk, "write_atomically", write)
    part.close()
    monkeypatch.undo()
    assert _reopened(tmp_path) == [[0, 1000]]


def test_closing_raises_nothing_where_its_worker_wakes_and_lets_go_of_it(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was left behind in a name look-up, while its transfer is closed in its place."""
    _fill(part, 1000)
    describe = part_module.Sidecar.describe

    def let_go(*args: Any) -> Any:
        part.release()
        return describe(*args)

    with monkeypatch.context() as patch:
        patch.setattr(part_module.Sidecar, "describe", let_go)
        part.close()
    assert part.memory.mark
    assert part.open()
    assert part.received.ranges.total() == 1000


# -- Who may go on with it.

DATED = Validator("", "Wed, 01 Jan 2020 00:00:00 GMT")


@pytest.mark.parametrize(
    ("validator", "digest", "count", "tie"),
    [
        (DATED, None, 10, "mirror"),
        (DATED, None, 0, None),
        (DATED, Digest("md5", "0" * 32), 10, None),
        (STRONG, None, 10, None),
        (STRONG, Digest("md5", "0" * 32), 10, None),
        (Validator('W/"1"', ""), None, 10, "mirror"),
    ],
)
def test_what_only_a_date_proves_whoever_began_it_has_to_end(
    tmp_path: Path, validator: Validator, digest: Digest | None, count: int, tie: str | None
) -> None:
    part = opened(URL, str(tmp_path), digest)
    part.begin(5000, validator, "mirror", is_encoded=False)
    part.write(memoryview(pattern(count)), 0)
    assert part.tie == tie
    assert part.can_be_split == bool(digest or validator is STRONG)
    part.discard()


# -- Bytes.


def test_what_a_system_writes_in_small_pieces_is_written_whole(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = portable.pwrite
    monkeypatch.setattr(portable, "pwrite", lambda fd, data, at: pwrite(fd, data[:300], at))
    assert part.write(memoryview(pattern(1000)), 0)
    assert part.write(memoryview(pattern(1000, seed=1)), 1000)
    assert part.file.read(0, 3000) == pattern(1000) + pattern(1000, seed=1)


def test_what_is_there_is_not_written_again(part: Part) -> None:
    part.write(memoryview(pattern(400)), 300)
    part.write(memoryview(pattern(400)), 900)
    assert part.write(memoryview(bytes(1000)), 100)
    assert not part.write(memoryview(bytes(range(100)) * 10), 100)
    assert part.file.read(0, 2000) == bytes(300) + pattern(400) + bytes(200) + pattern(400)
    assert part.received.ranges.as_list() == [[100, 1300]]


def test_only_what_is_there_has_to_fit(part: Part) -> None:
    part.write(memoryview(pattern(400)), 300)
    fitting = bytes(300) + pattern(400) + bytes(300)
    assert part.fits(memoryview(fitting), 0)
    assert part.fits(memoryview(fitting[500:]), 500)
    assert part.fits(memoryview(b"x" * 300), 0)
    assert part.fits(memoryview(b"x" * 300), 700)
    for at in (300, 699):
        assert not part.fits(memoryview(fitting[:at] + b"?" + fitting[at + 1 :]), 0)


def test_only_so_much_is_sure_and_the_rest_counts_for_nothing(part: Part, tmp_path: Path) -> None:
    _fill(part, 1000)
    part.checkpoint()
    part.doubt(400)
    assert part.received.ranges.as_list() == [[0, 400]]
    part.release()
    assert _reopened(tmp_path) == []  # until the next checkpoint


# -- The digest.

CONTENT = pattern(3000)
SHA256 = Digest("sha256", hashlib.sha256(CONTENT).hexdigest())


def _holds(part: Part, fetch: Fetcher) -> bool:
    """Whether the digest holds, by a buffer smaller than the file."""
    return part.is_expected(Control(fetch._waker), memoryview(bytearray(700)))


@pytest.mark.parametrize("order", [[0, 1000, 2000], [1000, 0, 2000], [2000, 1000, 0], [0, 2000, 1000]])
def test_a_digest_is_of_the_whole_file_in_whatever_order_it_comes(
    tmp_path: Path, fetch: Fetcher, order: list[int]
) -> None:
    for content in (CONTENT, CONTENT[:-1] + b"?"):
        part = opened(URL, str(tmp_path), SHA256)
        part.begin(3000, STRONG, is_encoded=False)
        for start in order:
            part.write(memoryview(content)[start : start + 1000], start)
        assert part.sum.seen == 3000 or order != sorted(order)  # then it is not read again
        assert _holds(part, fetch) is (content == CONTENT)
        part.discard()


def test_what_comes_twice_is_in_the_digest_once(tmp_path: Path, fetch: Fetcher) -> None:
    part = opened(URL, str(tmp_path), SHA256)
    part.begin(3000, STRONG, is_encoded=False)
    for start, end in ((0, 2000), (500, 1500), (1500, 3000)):
        part.write(memoryview(CONTENT)[start:end], start)
    assert part.sum.seen == 3000
    assert _holds(part, fetch)
    part.discard()


@pytest.mark.parametrize("kept", [1000, 2000, 0])
def test_what_is_doubted_leaves_the_digest(tmp_path: Path, fetch: Fetcher, kept: int) -> None:
    part = opened(URL, str(tmp_path), SHA256)
    part.begin(3000, STRONG, is_encoded=False)
    part.write(memoryview(CONTENT[:kept] + bytes(2000 - kept)), 0)
    part.doubt(kept)
    part.write(memoryview(CONTENT)[kept:], kept)
    assert _holds(part, fetch)
    part.discard()


def test_a_file_that_was_longer_once_ends_where_it_should(part: Part, fetch: Fetcher) -> None:
    _fill(part, 1000)
    os.truncate(place(part), 5000)
    part.received.size = 1000
    assert _holds(part, fetch)
    assert Path(part.publish("b.bin", IfExists.RENAME) or "").read_bytes() == pattern(1000)


def test_what_a_server_says_of_its_file_counts_where_nobody_asks_for_more(part: Part, fetch: Fetcher) -> None:
    part.begin(3000, STRONG, is_encoded=False)
    part.expect(SHA256)
    assert part.told == SHA256
    part.expect(Digest("md5", "0" * 32))
    assert part.told == SHA256
    part.write(memoryview(CONTENT), 0)
    assert _holds(part, fetch)
    part.forget()
    assert part.told is None
    part.begin(None, Validator(), is_encoded=True)
    part.expect(SHA256)
    assert part.told is None


def test_what_was_asked_for_counts_whatever_a_server_says(tmp_path: Path, fetch: Fetcher) -> None:
    part = opened(URL, str(tmp_path), SHA256)
    part.expect(Digest("md5", "0" * 32))
    part.forget()
    assert part.told is None
    part.begin(3000, STRONG, is_encoded=False)
    part.write(memoryview(CONTENT), 0)
    assert _holds(part, fetch)
    part.forget()
    part.begin(3000, STRONG, is_encoded=False)
    part.write(memoryview(bytes(3000)), 0)
    assert not _holds(part, fetch)
    part.discard()


# -- When it is saved.


def test_no_more_than_64_mib_can_be_lost() -> None:
    """With what 16 workers have in their hands."""
    assert part_module.CHECKPOINT_BYTES < part_module.MOST_UNSAVED
    assert part_module.MOST_UNSAVED + 16 * BUFFER == 64 << 20


def _unsaved(part: Part, count: int) -> None:
    os.truncate(place(part), count)
    part.received.ranges.add(0, count)


@pytest.mark.parametrize(("count", "waits"), [(48 << 20, True), ((48 << 20) - 1, False)])
def test_a_worker_waits_for_another_that_saves_only_where_too_much_could_be_lost(
    part: Part, monkeypatch: pytest.MonkeyPatch, count: int, waits: bool
) -> None:
    _unsaved(part, count)
    monkeypatch.setattr(part, "_saving", lock := Mock(**{"acquire.return_value": False}))
    part.save()
    lock.acquire.assert_called_once_with(blocking=waits)
    assert part.unsaved == count


def test_what_another_worker_has_saved_meanwhile_is_not_saved_again(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    _unsaved(part, 48 << 20)
    acquire = part._saving.acquire

    def after_another(*, blocking: bool) -> bool:
        part.checkpoint()
        monkeypatch.setattr(part, "checkpoint", Mock(side_effect=AssertionError))
        return acquire(blocking=blocking)

    monkeypatch.setattr(part, "_saving", Mock(acquire=after_another, release=part._saving.release))
    part.save()
    assert part.unsaved == 0


def test_who_waits_for_bytes_saves_when_it_is_time(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    assert part.save_meanwhile() is None
    monkeypatch.setattr(part_module, "time", clock := Clock())
    part.checkpoint()
    _fill(part, 1000)
    assert part.save_meanwhile() == part_module.CHECKPOINT_SECONDS
    clock.now += part_module.CHECKPOINT_SECONDS - 0.1
    assert part.save_meanwhile() == part_module.SAVE_LOOK
    assert part.unsaved == 1000
    clock.now += 0.2
    assert part.save_meanwhile() == part_module.CHECKPOINT_SECONDS
    assert part.unsaved == 0
    assert part.save_meanwhile() is None
    _fill(part, 2000)
    part.release()
    assert part.save_meanwhile() is None


# -- Publishing.


def test_a_name_is_never_taken_from_somebody(part: Part, tmp_path: Path) -> None:
    _fill(part, 1000)
    for number in range(3):
        name = "b.bin" if not number else f"b ({number}).bin"
        (tmp_path / name).write_text("mine")
    assert part.publish("b.bin", IfExists.SKIP) is None
    (tmp_path / "b (1).bin").unlink()
    (tmp_path / "b (2).bin").rename(tmp_path / "b (1).bin")
    assert part.publish("b.bin", IfExists.RENAME) == str(tmp_path / "b (2).bin")
    assert [(tmp_path / name).read_text() for name in ("b.bin", "b (1).bin")] == ["mine", "mine"]


@pytest.mark.parametrize("mtime", [None, 1_600_000_000.0, 1e300])
def test_a_published_file_has_the_time_of_its_server_if_the_system_knows_it(
    part: Part, mtime: float | None
) -> None:
    _fill(part, 1000)
    told: list[str] = []
    before = place(part).stat().st_mtime
    path = part.publish("b.bin", IfExists.RENAME, mtime=mtime, placed=told.append)
    assert told == [path]
    found = os.stat(path or "").st_mtime
    assert found == mtime if mtime == 1_600_000_000.0 else found >= before
    assert not part.file.is_open


def test_who_finds_the_name_taken_is_told_nothing_and_keeps_what_came(part: Part, tmp_path: Path) -> None:
    _fill(part, 1000)
    part.checkpoint()
    (tmp_path / "b.bin").write_text("mine")
    told: list[str] = []
    assert part.publish("b.bin", IfExists.SKIP, placed=told.append) is None
    assert told == []
    assert part.file.is_in_place()
    part.close()
    assert _reopened(tmp_path) == [[0, 1000]]


@pytest.mark.parametrize(
    ("is_moved", "error", "said"), [(False, TransferError, "virus scanner"), (True, OSError, "No such file")]
)
def test_what_is_taken_away_as_it_is_published_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_moved: bool, error: type[Exception], said: str
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    part = opened(URL, str(folder), None)
    _fill(part, 1000)

    def scanned(*_: object, **__: object) -> None:
        place(part).unlink()
        if is_moved:
            folder.rename(tmp_path / "moved")
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(portable, "rename_new", scanned)
    with pytest.raises(error, match=said):
        part.publish("b.bin", IfExists.RENAME)
    part.release()


@pytest.mark.parametrize("if_exists", [IfExists.OVERWRITE, IfExists.UPDATE])
def test_a_folder_under_the_name_is_not_replaced(part: Part, tmp_path: Path, if_exists: IfExists) -> None:
    (tmp_path / "b.bin").mkdir()
    with pytest.raises(TransferError, match=r"A folder named “b\.bin” is in the way"):
        part.publish("b.bin", if_exists)
    assert part.file.is_in_place()


def fail(*args: object, **options: object) -> None:
    raise OSError(5, "Input/output error")


def test_when_publishing_fails_nothing_stands_under_the_name(
    part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(part, 1000)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", fail)
        with pytest.raises(OSError, match="error"):
            part.publish("b.bin", IfExists.RENAME)
    assert names(tmp_path) == [place(part).name]
    assert part.publish("b.bin", IfExists.RENAME) == str(tmp_path / "b.bin")


class Told:
    """A lock that says so when somebody wants it."""

    def __init__(self, wanted: threading.Event) -> None:
        self._lock, self._wanted = threading.Lock(), wanted
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def __enter__(self) -> None:
        self._wanted.set()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_sidecar_that_is_written_just_then_does_not_vouch_for_what_was_cut(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker saves while another finds out that somebody else has cut the file."""
    syncing, found_out = threading.Event(), threading.Event()
    disown = part._sidecar.remove

    def sync_data(fd: int) -> None:
        syncing.set()
        found_out.wait(DEADLINE)

    def disowned(path: str) -> None:
        disown(path)
        found_out.set()

    _fill(part, 1000)
    monkeypatch.setattr(part, "_saving", Told(found_out))
    monkeypatch.setattr(part._sidecar, "remove", disowned)
    monkeypatch.setattr(portable, "sync_data", sync_data)
    monkeypatch.setattr(part_module, "CHECKPOINT_BYTES", 1)
    saver = threading.Thread(target=part.save)
    saver.start()
    assert syncing.wait(DEADLINE)
    os.truncate(place(part), 0)
    with pytest.raises(TransferError, match="was cut by something else"):
        part.write(memoryview(b"x"), 1000)
    saver.join()
    assert not sidecar(part).exists()


def test_what_is_durable_is_not_made_so_again(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blender quits with a list of failed downloads, each of which was kept when it failed."""
    _fill(part, 1000)
    part.close()
    part.open()
    part.release()
    monkeypatch.setattr(portable, "sync_data", refuse := Mock(side_effect=OSError))
    part.close()
    assert not refuse.called
    part.open()
    part.write(memoryview(b"more"), 1000)
    part.close()
    assert refuse.called


def test_no_sidecar_is_written_while_another_is_taken_away(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker saves while another finds out that what came does not fit: nobody would know of that one."""
    saver = threading.Thread(target=part.save)

    def sync_folder(path: object) -> None:
        if saver.ident is None:
            saver.start()
            saver.join()

    _fill(part, 1000)
    part.checkpoint()
    monkeypatch.setattr(portable, "sync_folder", sync_folder)
    monkeypatch.setattr(part_module, "CHECKPOINT_SECONDS", 0.0)
    part.doubt(500)
    part.forget()
    assert not sidecar(part).exists()


def test_what_was_cut_when_all_was_there_is_not_expected_nor_remembered(
    part: Part, tmp_path: Path, fetch: Fetcher
) -> None:
    _fill(part, 1000)
    part.received.size = 1000
    part.checkpoint()
    os.truncate(place(part), 500)
    with pytest.raises(TransferError, match="cut by something else"):
        part.is_expected(Control(fetch._waker), memoryview(bytearray(10)))
    part.close()
    assert _reopened(tmp_path) == []


@pytest.mark.parametrize("call", ["checkpoint", "publish"])
def test_after_the_disk_lost_bytes_only_the_last_checkpoint_counts(
    part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Systems tell only once that they could not write, and then take the bytes for written."""
    _fill(part, 1000)
    part.checkpoint()
    _fill(part, 2000)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        patch.setattr(portable, "sync_data", fail)
        with pytest.raises(OSError, match="error"):
            part.checkpoint() if call == "checkpoint" else part.publish("b.bin", IfExists.RENAME)
    with pytest.raises(OSError, match="error"):
        part.publish("b.bin", IfExists.RENAME)
    part.close()
    assert names(tmp_path) == [place(part).name, sidecar(part).name]
    assert _reopened(tmp_path) == [[0, 1000]]


def test_what_is_written_while_a_checkpoint_waits_for_the_disk_belongs_to_the_next_one(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync_data(fd: int) -> None:
        if fd == part.file.fd:
            part.received.ranges.add(1000, 1000 + part_module.CHECKPOINT_BYTES)

    monkeypatch.setattr(portable, "sync_data", sync_data)
    _fill(part, 1000)
    part.checkpoint()
    assert part.checkpoint_in == 0


@pytest.mark.parametrize("is_there", [False, True])
def test_what_somebody_put_in_place_of_the_partial_file_is_not_published(
    part: Part, tmp_path: Path, is_there: bool
) -> None:
    _fill(part, 1000)
    place(part).unlink()
    if is_there:
        place(part).write_text("evil")
    with pytest.raises(TransferError, match="taken away"):
        part.publish("b.bin", IfExists.RENAME)
    assert not (tmp_path / "b.bin").exists()


@pytest.mark.parametrize("is_touched", [False, True])
def test_where_no_open_file_is_renamed_what_is_not_published_is_ours_again_unless_it_was_touched(
    part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_touched: bool
) -> None:
    _fill(part, 1000)
    part.checkpoint()
    monkeypatch.setattr(portable, "moves_open_files", False)

    def taken(*_: object) -> None:
        assert not part.file.is_open
        if is_touched:
            place(part).write_text("of somebody else")
        raise FileExistsError

    with monkeypatch.context() as patch:
        patch.setattr(portable, "rename_new", taken)
        assert part.publish("b.bin", IfExists.SKIP) is None
    assert part.file.is_open is not is_touched
    if not is_touched:
        assert part.publish("b.bin", IfExists.RENAME) == str(tmp_path / "b.bin")
        assert names(tmp_path) == ["b.bin"]


# -- Without a name until its last.


def _come_whole(folder: Path, data: bytes = pattern(5000)) -> Part:
    """A part all of which has come with the first read."""
    part = Part(URL, str(folder), None)
    part.open()
    part.begin(len(data), STRONG, is_encoded=False)
    part.write(memoryview(data), 0)
    return part


@pytest.fixture
def nameless(tmp_path: Path) -> None:
    """Where the system has files without a name."""
    if (fd := portable.open_nameless(tmp_path, 0o600)) < 0:
        pytest.skip("there are none here")
    os.close(fd)


def test_there_is_no_file_before_something_comes(tmp_path: Path) -> None:
    part = Part(URL, str(tmp_path), None)
    assert not part.file.is_open
    part.close()
    assert not part.open()
    assert not part.file.is_open
    part.forget()
    part.begin(5000, STRONG, is_encoded=False)
    assert names(tmp_path) == []
    part.write(memoryview(pattern(1000)), 4000)  # its end, which is not all of it
    assert names(tmp_path) == [place(part).name]
    part.discard()
    assert names(tmp_path) == []


@pytest.mark.parametrize("count", [1, 1000])
def test_an_old_sidecar_vouches_for_nothing_of_a_file_that_is_late(tmp_path: Path, count: int) -> None:
    part = opened(URL, str(tmp_path), None)
    _fill(part, count)
    part.close()
    place(part).unlink()
    part = Part(URL, str(tmp_path), None)
    part.open()
    assert not part.received.ranges.total()
    assert names(tmp_path) == []


def test_who_was_there_first_has_it_once_something_comes(part: Part, tmp_path: Path) -> None:
    part.discard()
    late = Part(URL, str(tmp_path), None)
    late.open()
    first = opened(URL, str(tmp_path), None)
    with pytest.raises(TransferError, match=r"^Another Blender or add-on is downloading this$"):
        late.write(memoryview(b"x"), 0)
    first.close()


def test_what_somebody_began_meanwhile_and_left_is_gone_on_with_by_the_next_try(tmp_path: Path) -> None:
    late = Part(URL, str(tmp_path), None)
    late.open()
    other = opened(URL, str(tmp_path), None)
    _fill(other, 1000)
    other.close()
    with pytest.raises(TransferError, match=r"^Another Blender or add-on is downloading this$"):
        late.write(memoryview(b"x"), 0)
    late.close()
    again = opened(URL, str(tmp_path), None)
    assert again.received.ranges.total() == 1000
    again.close()


@pytest.mark.usefixtures("nameless")
@pytest.mark.parametrize("if_exists", [IfExists.RENAME, IfExists.SKIP])
def test_what_comes_whole_has_no_name_before_its_last(tmp_path: Path, if_exists: IfExists) -> None:
    part = _come_whole(tmp_path)
    assert names(tmp_path) == []
    assert part.publish("a.bin", if_exists) == str(tmp_path / "a.bin")
    assert names(tmp_path) == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == pattern(5000)
    assert (tmp_path / "a.bin").stat().st_nlink == 1


@pytest.mark.parametrize("lacks", ["files without a name", "names for them", "both"])
@pytest.mark.parametrize("if_exists", list(IfExists))
def test_where_the_system_has_no_such_files_nothing_else_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str, if_exists: IfExists
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EACCES, "not here")

    if lacks != "names for them":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    if lacks != "files without a name":
        monkeypatch.setattr(portable, "give_name", refuse)
    part = _come_whole(tmp_path)
    assert part.publish("a.bin", if_exists) == str(tmp_path / "a.bin")
    assert names(tmp_path) == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == pattern(5000)


@pytest.mark.parametrize("if_exists", list(IfExists))
def test_a_file_without_a_name_goes_by_what_is_there(tmp_path: Path, if_exists: IfExists) -> None:
    (tmp_path / "a.bin").write_bytes(b"old")
    part = _come_whole(tmp_path)
    path = part.publish("a.bin", if_exists)
    part.discard()
    replaces = if_exists in (IfExists.OVERWRITE, IfExists.UPDATE)
    assert (tmp_path / "a.bin").read_bytes() == (pattern(5000) if replaces else b"old")
    assert path == {IfExists.RENAME: str(tmp_path / "a (1).bin"), IfExists.SKIP: None}.get(
        if_exists, str(tmp_path / "a.bin")
    )
    if path:
        assert Path(path).read_bytes() == pattern(5000)
    assert not [name for name in names(tmp_path) if ".part" in name]


@pytest.mark.parametrize("end", ["release", "close"])
def test_what_came_whole_and_was_not_published_is_kept(tmp_path: Path, end: str) -> None:
    part = _come_whole(tmp_path)
    getattr(part, end)()
    assert part.open()
    assert part.received.is_whole
    assert part.file.read(0, 5000) == pattern(5000)
    part.close()
    assert _reopened(tmp_path) == [[0, 5000]]


@pytest.mark.usefixtures("nameless")
def test_a_file_without_a_name_takes_none_that_another_has(part: Part, tmp_path: Path) -> None:
    part.discard()
    late = _come_whole(tmp_path)
    first = opened(URL, str(tmp_path), None)
    with pytest.raises(TransferError, match=r"^Another Blender or add-on is downloading this$"):
        late.checkpoint()
    first.write(memoryview(b"of the other"), 0)
    late.close()
    assert first.file.read(0, 5000) == b"of the other"
    first.close()


@pytest.mark.usefixtures("nameless")
@pytest.mark.parametrize("if_exists", list(IfExists))
def test_where_two_come_whole_at_once_it_is_as_if_one_had_come_after_the_other(
    tmp_path: Path, if_exists: IfExists
) -> None:
    """Nothing stands in the folder yet that the one could keep from the other."""
    first, second = _come_whole(tmp_path), _come_whole(tmp_path)
    assert first.publish("a.bin", if_exists) == str(tmp_path / "a.bin")
    path = second.publish("a.bin", if_exists)
    second.discard()
    numbered = {IfExists.RENAME: str(tmp_path / "a (1).bin"), IfExists.SKIP: None}
    assert path == numbered.get(if_exists, str(tmp_path / "a.bin"))
    assert names(tmp_path) == (["a (1).bin", "a.bin"] if if_exists is IfExists.RENAME else ["a.bin"])
    assert {(tmp_path / name).read_bytes() for name in names(tmp_path)} == {pattern(5000)}


@pytest.mark.usefixtures("nameless")
def test_what_came_whole_and_does_not_hold_begins_anew(tmp_path: Path) -> None:
    part = _come_whole(tmp_path)
    part.forget()
    part.begin(7000, STRONG, is_encoded=False)
    part.write(memoryview(pattern(6000)), 0)
    assert names(tmp_path) == [place(part).name]
    part.discard()


# -- Small files.


def test_a_small_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "list.json"
    write_atomically(path, b"one")

    def replace(*args: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="error"):
        write_atomically(path, b"two")
    assert path.read_bytes() == b"one"
    assert names(tmp_path) == ["list.json"]


@pytest.mark.parametrize("planted", ["list.json", "list.json~"])
def test_a_small_file_is_not_written_through_a_link(tmp_path: Path, planted: str) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / planted).symlink_to(tmp_path / "victim")
    write_atomically(tmp_path / "list.json", b"data", mode=0o600)
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "list.json").is_symlink()
    assert (tmp_path / "list.json").read_bytes() == b"data"


def test_only_what_is_written_far_behind_the_end_leaves_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There Windows would write zeros first."""
    gaps: list[int] = []
    part = opened(URL, str(tmp_path), None)
    monkeypatch.setattr(portable, "allow_gap", lambda fd: gaps.append(part.received.ranges.end()))
    for offset in (0, 10, 5000, 20, 5010):
        part.write(memoryview(bytes(10)), offset)
    assert gaps == [20]
    part.close()


# -- Words.


def test_whom_macos_keeps_out_of_a_folder_is_told_where_to_allow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portable, "keeps_folders_private", True)
    with pytest.raises(TransferError, match="Privacy & Security"), explained("/Users/me/Downloads"):
        raise PermissionError(errno.EPERM, "Operation not permitted")
    with pytest.raises(TransferError, match="not allowed to write"), explained("/Users/me/Downloads"):
        raise PermissionError(errno.EACCES, "Permission denied")



@pytest.mark.parametrize("number", [1, 5, 13, 20, 21, 27, 28, 30, 36, 40, 116, 122, 99])
def test_what_the_system_says_becomes_a_sentence(number: int) -> None:
    with pytest.raises(TransferError, match="folder") as caught, explained("/some/folder"):
        raise OSError(number, os.strerror(number), "/some/folder/a.bin?token=t0ken")
    assert "t0ken" not in str(caught.value)


@pytest.mark.parametrize(("count", "is_ours"), [(0, True), (1, True), (2, False)])
def test_a_file_is_ours_where_names_are_not_counted_and_is_not_where_it_has_two(
    tmp_path: Path, count: int, is_ours: bool
) -> None:
    path = tmp_path / "a.part"
    path.touch()
    fields = list(os.lstat(path))
    fields[stat.ST_NLINK] = count
    assert part_module._is_ours(os.stat_result(fields), path) is is_ours
