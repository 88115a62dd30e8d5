"""The list on disk: two Blenders at once, one after the other, and one that dies anywhere.

A `Store` is all that a Blender has of it, so several in one process stand for as many Blenders:
their locks keep each other out as those of processes do.
"""

from __future__ import annotations

import errno
import importlib
import itertools
import json
import logging
import os
import stat
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from driving import leave_part, opened, record
from rules import TOP

from background_downloads.session import records
from background_downloads.transfer import names
from background_downloads.transfer.disk import write_atomically
from background_downloads.transfer.job import Digest, Have
from background_downloads.workers import Download, Found, Status, look_into

Store = Any
NewStore = Callable[[], Store]

URL = "https://files.example/a.bin"
SECRET_URL = "https://me:password@files.example/a.bin?signature=1"
ABORTED = 9  # exit code of a process that died on purpose


def _import_store() -> types.ModuleType:
    """The module without Blender: what it asks of Blender is where the folder is."""
    kept = sys.modules.get("bpy")
    sys.modules["bpy"] = types.ModuleType("bpy")
    try:
        return importlib.import_module("background_downloads.session.store")
    finally:
        del sys.modules["bpy"]
        if kept:
            sys.modules["bpy"] = kept


store_module = _import_store()


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "user"
    folder.mkdir()
    monkeypatch.setattr(store_module, "user_folder", lambda: folder)
    return folder


@pytest.fixture
def new_store(user_folder: Path) -> Iterator[NewStore]:
    """Opened stores; at the end they let go of what they hold."""
    made = []

    def make() -> Store:
        made.append(store_module.Store())
        assert made[-1].open()
        return made[-1]

    yield make
    for store in made:
        die(store)


def die(store: Store) -> None:
    """What the system does for a Blender that was killed: its locks are gone, its files are not."""
    for lock in [store._lock, *(lock for _, lock in store._adopted)]:
        if lock >= 0:
            os.close(lock)
    store._lock, store._path, store._adopted = -1, None, []


def row(uid: int = 1, **values: Any) -> Download:
    return record(**{"uid": uid, "url": f"{URL}?{uid}", "directory": TOP + "d", "name": "a.bin"} | values)


def keep(store: Store, *rows: Download) -> None:
    for each in rows:
        store.touch(each)
    store.save()


def adopt(store: Store, have: list[Download] | None = None) -> list[str]:
    """Take up what is there, as the session does; the links of all rows then."""
    rows = list(have or [])
    for each in records.unknown(store.adopt(), rows):
        each.uid = 100 + len(rows)
        rows.append(each)
        store.touch(each)
    store.save()
    return [each.url for each in rows]


def listed(folder: Path) -> list[str]:
    """The links in all lists on the disk."""
    rows = []
    for path in sorted(folder.glob("queue-*.json")):
        rows += filter(None, records.decode_list(path.read_bytes()))
    return sorted(each.url for each in rows)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def check_one_sentence(caplog: pytest.LogCaptureFixture, words: str) -> None:
    (record,) = caplog.records
    assert words in record.getMessage()
    assert "\n" not in record.getMessage()
    assert record.exc_info is None
    caplog.clear()


# Finished just before it died.


def finish(store: Store, uid: int, path: Path) -> None:
    """What a worker does as soon as a file is in place; the list on the disk does not know yet."""
    path.write_text("whole")
    with open(store.done, "a") as file:
        file.write(json.dumps([uid, str(path)]) + "\n")


def test_what_was_finished_since_the_list_was_written_does_not_come_back(
    new_store: NewStore, user_folder: Path, tmp_path: Path
) -> None:
    store = new_store()
    keep(store, row(1), row(2), row(3))
    finish(store, 2, tmp_path / "two")
    finish(store, 3, tmp_path / "three")
    (tmp_path / "three").unlink()  # by somebody, or by a power cut
    die(store)
    assert adopt(new_store()) == [row(1).url, row(3).url]
    assert not list(user_folder.glob("*.done"))


def test_numbers_that_another_process_had_mean_other_rows(new_store: NewStore, tmp_path: Path) -> None:
    store = new_store()
    keep(store, row(1))
    finish(store, 1, tmp_path / "one")
    die(store)
    store = new_store()
    assert adopt(store) == []
    keep(store, row(1))
    die(store)
    assert adopt(new_store()) == [row(1).url]


@pytest.mark.parametrize(
    "text", ["", "[", "7", "[1]", '["1", "/"]', '[true, "/"]', '[1, "\0"]', "\udcff" * 3]
)
def test_a_garbled_note_of_what_was_finished_takes_no_row(new_store: NewStore, text: str) -> None:
    store = new_store()
    keep(store, row(1))
    Path(store.done).write_bytes(text.encode("utf-8", "surrogateescape"))
    die(store)
    assert adopt(new_store()) == [row(1).url]


def test_in_good_order_no_note_is_left(new_store: NewStore, user_folder: Path, tmp_path: Path) -> None:
    store = new_store()
    keep(store, row(1), row(2))
    finish(store, 2, tmp_path / "two")
    store.forget(2)
    store.close()
    assert not list(user_folder.glob("*.done"))
    assert listed(user_folder) == [row(1).url]


# One Blender after the other.


def test_the_rows_of_a_blender_that_is_gone_are_adopted_once(new_store: NewStore, user_folder: Path) -> None:
    first = new_store()
    keep(first, row(1), row(2, status=Status.FAILED, error="no"), row(3, status=Status.FINISHED))
    die(first)
    second = new_store()
    assert adopt(second) == [row(1).url, row(2).url]
    assert adopt(new_store()) == []
    assert listed(user_folder) == [row(1).url, row(2).url]


def test_the_list_is_private(new_store: NewStore, user_folder: Path) -> None:
    keep(new_store(), row(url=SECRET_URL))
    for path in user_folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_list_that_is_empty_leaves_no_file(new_store: NewStore, user_folder: Path) -> None:
    store = new_store()
    keep(store, row(1))
    store.forget(1)
    store.save()
    assert listed(user_folder) == []
    store.close()
    assert names_in(user_folder) == []


def test_a_blender_that_quit_leaves_its_list_to_the_next(new_store: NewStore, user_folder: Path) -> None:
    first = new_store()
    keep(first, row(1))
    first.close()
    second = new_store()  # the same process: an extension that was enabled again
    assert adopt(second) == [row(1).url]
    second.close()
    assert len(names_in(user_folder)) == 2
    assert adopt(new_store()) == [row(1).url]


def test_what_a_killed_blender_was_writing_is_removed(new_store: NewStore, user_folder: Path) -> None:
    for name in ("queue-7.json~", "queue-7.lock", "queue-8.lock"):
        (user_folder / name).write_text("half")
    store = new_store()
    adopt(store)
    keep(store, row(1))
    assert names_in(user_folder) == [f"queue-{os.getpid()}.json", f"queue-{os.getpid()}.lock"]


# Somebody has a list open, a virus scanner say: Windows does not delete it then.


@pytest.mark.parametrize("end", [die, lambda store: store.close()], ids=["killed", "closed"])
def test_a_list_that_somebody_has_open_as_it_is_adopted_does_not_come_twice(
    windows: None, new_store: Callable[[], Store], user_folder: Path, end: Callable[[Store], None]
) -> None:
    (user_folder / "queue-7.json").write_bytes(records.encode_list(map(records.encode_row, [row(1), row(2)])))
    first = new_store()
    with (user_folder / "queue-7.json").open("rb"):
        assert adopt(first) == [row(1).url, row(2).url]
        first.forget(100)  # it is downloaded, and not to be again
        first.save()
        end(first)
        second = new_store()
        assert adopt(second) == [row(2).url]
        second.flush(100.0, None)
    second.flush(200.0, None)
    assert names_in(user_folder) == [f"queue-{os.getpid()}.json", f"queue-{os.getpid()}.lock"]


def test_the_list_of_rows_that_are_done_does_not_come_back_though_somebody_has_it_open(
    windows: None, new_store: Callable[[], Store], user_folder: Path
) -> None:
    first = new_store()
    keep(first, row(1))
    with (user_folder / f"queue-{os.getpid()}.json").open("rb"):
        first.forget(1)
        first.close()
        second = new_store()  # of the same process
        assert adopt(second) == []
    second.close()
    assert names_in(user_folder) == []


def test_the_list_of_an_earlier_process_outlives_a_blender_that_is_closed_before_it_looks(
    new_store: Callable[[], Store], user_folder: Path
) -> None:
    first = new_store()
    keep(first, row(1))
    die(first)
    new_store().close()
    assert adopt(new_store()) == [row(1).url]


def test_the_list_of_an_earlier_process_is_read_before_it_is_written_over(
    new_store: Callable[[], Store], user_folder: Path
) -> None:
    first = new_store()
    keep(first, row(1))
    die(first)
    (user_folder / "queue-7.json").write_bytes(records.encode_list(map(records.encode_row, map(row, (2, 3)))))
    store = new_store()
    rows = store.adopt()
    found = [next(rows)]  # the others come later
    keep(store, row(4))
    assert sorted(each.url for each in [*found, *rows]) == [row(uid).url for uid in (1, 2, 3)]


# Two at once.


def test_a_list_that_is_held_is_left_alone(new_store: NewStore, user_folder: Path) -> None:
    first, second = new_store(), new_store()
    keep(first, row(1))
    assert adopt(second) == []
    keep(second, row(2))
    keep(first, row(3))
    assert listed(user_folder) == [row(1).url, row(2).url, row(3).url]
    assert [each.url for each in second._rows_of_others()] == [row(1).url, row(3).url]


def test_two_blenders_of_one_number_have_two_lists(new_store: NewStore, user_folder: Path) -> None:
    """On two machines, or in two containers, that share a home."""
    first, second = new_store(), new_store()
    keep(first, row(1))
    keep(second, row(2))
    assert len(list(user_folder.glob("queue-*.json"))) == 2


def test_a_lock_that_was_removed_meanwhile_is_none(
    new_store: NewStore, user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = user_folder / "queue-5.lock"
    lock_file = store_module.portable.lock_file
    once = iter([path.unlink])

    def removed_before_it_is_locked(fd: int) -> bool:
        next(once, lambda: None)()
        return bool(lock_file(fd))

    monkeypatch.setattr(store_module.portable, "lock_file", removed_before_it_is_locked)
    fd = store_module._locked(path)
    assert os.path.samestat(os.fstat(fd), path.stat())
    os.close(fd)


# One that dies.

CALLS = ("open", "fdatasync", "replace", "unlink")  # each may be the last one


def die_at(number: int) -> None:
    """In a process of its own: end it at this call to the system."""
    count = itertools.count(1)

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(count) == number:
                os._exit(ABORTED)
            return function(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, dying(getattr(os, name)))


def in_a_process(work: Callable[[], object]) -> int:
    """How a process of its own, which does this, ended."""
    pid = os.fork()
    if not pid:
        code = 1
        with suppress(BaseException):
            work()
            code = 0
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def take_over(uid: int, last_call: int = 0) -> None:
    """A Blender starts, has a row of its own, takes up what is there, and is killed, earlier or later."""
    die_at(last_call)
    store = store_module.Store()
    assert store.open()
    own = row(uid)
    store.touch(own)
    store.save()
    adopt(store, [own])


@pytest.mark.parametrize("again", [False, True], ids=["once", "and the next one too"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_dying_anywhere_while_adopting_loses_no_row_and_doubles_none(user_folder: Path, again: bool) -> None:
    """Rows 1 and 4 must be there in the end; 2 and 3 may have died before they were written down."""
    for call in itertools.count(1):
        for path in user_folder.iterdir():
            path.unlink()
        assert in_a_process(lambda: take_over(1)) == 0
        end = in_a_process(lambda last=call: take_over(2, last))  # type: ignore[misc]
        if again:
            in_a_process(lambda last=call: take_over(3, last))  # type: ignore[misc]
        assert in_a_process(lambda: take_over(4)) == 0
        rows = listed(user_folder)
        assert len(set(rows)) == len(rows), f"doubled when it died at {call}: {rows}"
        assert {row(1).url, row(4).url} <= set(rows), f"lost when it died at {call}: {rows}"
        assert {path.suffix for path in user_folder.iterdir()} == {".json", ".lock"}
        if end == 0:
            break
    assert call > 10


# What cannot be read.


def unreadable(kind: str, path: Path) -> None:
    match kind:
        case "garbled":
            path.write_bytes(os.urandom(10_000))
        case "empty":
            path.write_bytes(b"")
        case "another version":
            path.write_text('{"version": 99}\n{}\n')
        case "huge":
            with path.open("wb") as file:
                file.truncate(store_module.LIST_SIZE + 1)
        case "a folder":
            path.mkdir()
        case "a link":
            path.symlink_to("/etc/passwd")
        case "a pipe":
            os.mkfifo(path)


KINDS = ["garbled", "empty", "another version", "huge", "a folder", "a link", "a pipe"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_unreadable_list_is_set_aside_with_a_sentence(
    new_store: NewStore, user_folder: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    for number in (1, 2):
        unreadable(kind, user_folder / "queue-7.json")
        store = new_store()
        assert adopt(store) == []
        check_one_sentence(caplog, "could not be read and was set aside: queue-7")
        assert len(list(user_folder.glob("*.unreadable"))) == number
        assert not os.path.lexists(user_folder / "queue-7.json")


def unreadable_just_now(patch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, most: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    patch.setattr(store_module, "read_regular", fail)


def test_a_list_that_the_disk_does_not_give_just_now_is_there_for_the_next_blender(
    new_store: NewStore, user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (user_folder / "queue-7.json").write_bytes(records.encode_list([records.encode_row(row(1))]))
    with monkeypatch.context() as patch:
        unreadable_just_now(patch)
        assert adopt(new_store()) == []
    assert adopt(new_store()) == [row(1).url]


def test_folders_that_the_disk_does_not_give_just_now_are_there_the_next_time(
    new_store: NewStore, user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = new_store().folders
    folders.use(TOP + "before", [URL])
    folders.save()
    with monkeypatch.context() as patch:
        unreadable_just_now(patch)
        folders.use(TOP + "meanwhile", [URL])
        folders.save()
    with folders.held() as known:
        assert list(known or ()) == [TOP + "before", TOP + "meanwhile"]
    assert [path.name for path in user_folder.glob("*.unreadable")] == []


def test_etags_that_the_disk_does_not_give_just_now_are_there_the_next_time(
    user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have = Have(name="a.bin", size=1, mtime=1.5, etag='"1"')
    before, etags = store_module.Etags(), store_module.Etags()
    before.keep(URL, TOP + "before", have)
    before.save()
    with monkeypatch.context() as patch:
        unreadable_just_now(patch)
        assert etags.find(URL, TOP + "before") is None
        etags.keep(URL, TOP + "meanwhile", have)
        etags.save()
        assert etags.find(URL, TOP + "meanwhile") == have
    etags.save()
    found = store_module.Etags()
    assert [found.find(URL, TOP + name) for name in ("before", "meanwhile")] == [have, have]


@pytest.mark.parametrize("kind", KINDS)
def test_an_unreadable_list_of_our_own_number_is_in_nobodys_way(
    new_store: NewStore, user_folder: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    unreadable(kind, user_folder / f"queue-{os.getpid()}.json")
    store = new_store()
    assert adopt(store) == []
    check_one_sentence(caplog, "set aside")
    keep(store, row(1))
    assert listed(user_folder) == [row(1).url]


def test_a_bad_line_loses_no_good_one(
    new_store: NewStore, user_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = records.encode_list([records.encode_row(row(1)), "garbled", records.encode_row(row(2))])
    (user_folder / "queue-7.json").write_bytes(data)
    assert adopt(new_store()) == [row(1).url, row(2).url]
    check_one_sentence(caplog, "1 download in a list could not be read")
    assert (user_folder / "queue-7.unreadable").read_bytes() == data
    assert listed(user_folder) == [row(1).url, row(2).url]


def test_a_lock_that_cannot_be_had_keeps_the_list_for_whoever_can(
    new_store: NewStore, user_folder: Path
) -> None:
    (user_folder / "queue-7.json").write_bytes(records.encode_list([records.encode_row(row(1))]))
    (user_folder / "queue-7.lock").mkdir()
    assert adopt(new_store()) == []
    assert listed(user_folder) == [row(1).url]


# A full disk.


class Disk:
    """Takes the place of `write_atomically`: full until there is room."""

    def __init__(self) -> None:
        self.is_full = True
        self.tried = 0

    def __call__(self, *arguments: Any) -> None:
        self.tried += 1
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_atomically(*arguments)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(store_module, "write_atomically", disk)
    return disk


def test_a_full_disk_is_said_once_and_tried_again(
    new_store: NewStore, user_folder: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    store = new_store()
    store.touch(row(1))
    for now in range(30):
        store.flush(float(now), None)
    assert disk.tried == 3
    check_one_sentence(caplog, "cannot be kept on the disk now (No space left on device)")
    disk.is_full = False
    store.flush(31.0, None)
    assert listed(user_folder) == [row(1).url]


def test_lists_are_kept_until_their_rows_are_in_ours(
    new_store: NewStore, user_folder: Path, disk: Disk
) -> None:
    (user_folder / "queue-7.json").write_bytes(records.encode_list([records.encode_row(row(1))]))
    first = new_store()
    assert adopt(first) == [row(1).url]
    assert listed(user_folder) == [row(1).url]
    assert adopt(new_store()) == [], "it is the first one's"
    die(first)
    disk.is_full = False
    assert adopt(new_store()) == [row(1).url]
    assert listed(user_folder) == [row(1).url]
    assert not (user_folder / "queue-7.json").exists()


def test_closing_with_a_full_disk_leaves_adopted_lists_to_the_next(
    new_store: NewStore, user_folder: Path, disk: Disk
) -> None:
    (user_folder / "queue-7.json").write_bytes(records.encode_list([records.encode_row(row(1))]))
    first = new_store()
    adopt(first)
    first.close()
    assert listed(user_folder) == [row(1).url]
    assert adopt(new_store()) == [row(1).url]


class Worker:
    """A host whose worker writes the list, or cannot."""

    def __init__(self) -> None:
        self.works = False
        self.told = 0

    def store(self, path: str, data: bytes) -> None:
        self.told += 1
        if self.works:
            write_atomically(Path(path), data)


def test_what_a_worker_could_not_write_is_told_it_again(new_store: NewStore, user_folder: Path) -> None:
    store, worker = new_store(), Worker()
    store.touch(row(1))
    for now in range(10):
        store.flush(float(now), worker)
    assert worker.told == 2
    worker.works = True
    for now in range(10, 30):
        store.flush(float(now), worker)
    assert worker.told == 3
    assert listed(user_folder) == [row(1).url]


def test_once_the_disk_takes_the_list_again_it_is_written_as_often_as_before(
    new_store: NewStore, disk: Disk
) -> None:
    store, worker = new_store(), Worker()
    worker.works = True
    store.touch(row(1))
    store.flush(0.0, None)
    disk.is_full = False
    for now in range(1, 20):
        store.flush(float(now), worker)
    assert worker.told == 1
    store.touch(row(2))
    store.flush(19.5, worker)
    assert worker.told == 2


def test_what_a_worker_could_not_write_is_written_when_the_run_is_over(
    new_store: NewStore, user_folder: Path
) -> None:
    store = new_store()
    store.touch(row(1))
    store.flush(0.0, Worker())
    store.save()
    assert listed(user_folder) == [row(1).url]


def test_an_empty_list_that_a_worker_wrote_is_no_file_in_the_end(
    new_store: NewStore, user_folder: Path
) -> None:
    store, worker = new_store(), Worker()
    worker.works = True
    keep(store, row(1))
    store.forget(1)
    store.flush(0.0, worker)
    store.close()
    assert names_in(user_folder) == []


def test_without_a_folder_the_list_waits_for_one(
    user_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing() -> Path:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "user_folder", missing)
        store = store_module.Store()
        store.touch(row(1))
        assert not store.open()
        assert not store.open()
        store.flush(0.0, None)
        store.save()
        store.folders.use(TOP + "d", [URL])
        store.folders.save()
    check_one_sentence(caplog, "cannot be kept on the disk now (Read-only file system)")
    assert store.open()
    assert adopt(store) == []
    assert listed(user_folder) == [row(1).url]
    store.close()


# A list that is gone.


def finish_all(store: Store) -> None:
    keep(store, row())
    store.forget(1)
    store.save()


def add_more(store: Store) -> None:
    keep(store, row())
    store.touch(row(2))


def add_more_that_a_worker_writes(store: Store) -> None:
    add_more(store)
    store.flush(1e9, types.SimpleNamespace(store=lambda path, data: Path(path).write_bytes(data)))


def touch_for_nothing(store: Store) -> None:
    keep(store, row())
    store.touch(row())
    store.save()


LIVES: dict[str, tuple[Callable[[Store], object], bool]] = {
    "opened": (lambda store: None, True),  # it might have begun a download
    "idle": (adopt, False),
    "with rows": (lambda store: keep(store, row()), False),
    "touched for nothing": (touch_for_nothing, False),
    "finished": (finish_all, False),
    "at work": (add_more, True),
    "at work, by a worker": (add_more_that_a_worker_writes, True),
}
"""What a Blender did, and whether a used folder may have what no list has if it was killed then."""


@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "closed"])
@pytest.mark.parametrize("is_same_process", [True, False], ids=["this process", "another"])
@pytest.mark.parametrize("life", LIVES)
def test_only_after_a_kill_at_work_used_folders_may_have_what_no_list_has(
    new_store: NewStore, user_folder: Path, life: str, is_same_process: bool, is_killed: bool
) -> None:
    live, may_lack = LIVES[life]
    store = new_store()
    live(store)
    if is_killed:
        die(store)
    else:
        store.close()
    if not is_same_process:
        for path in user_folder.glob("queue-*"):
            path.rename(user_folder / f"queue-7{path.suffix}")
    store = new_store()
    adopt(store)
    assert store.has_gaps == (may_lack and is_killed)


SPOILED: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "garbled": lambda path: path.write_bytes(b"{"),
    "a line garbled": lambda path: path.write_bytes(path.read_bytes() + b"{\n"),
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_where_a_list_is_lost_used_folders_may_have_more_until_somebody_looked(
    new_store: NewStore, user_folder: Path, folder: Path, spoil: str
) -> None:
    store = new_store()
    keep(store, row())
    store.close()
    (path,) = user_folder.glob("queue-*.json")
    SPOILED[spoil](path)
    leave_part(folder)
    for _ in range(2):
        store = new_store()
        adopt(store)
        assert store.has_gaps
        store.close()  # another Blender had the folders all the time
    store = new_store()
    adopt(store)
    (again,) = found(used(store, folder))
    assert again.url == URL
    keep(store, again)
    store.close()
    store = new_store()
    adopt(store)
    assert not store.has_gaps


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


def found(store: Store, *have: Download, folders: tuple[Path, ...] = ()) -> list[Download]:
    with store.folders.held() as known:
        assert known is not None
        known |= {str(folder): [] for folder in folders}
        return list(store.find_lost(have, known, {each: look_into(each) for each in known}))


def used(store: Store, folder: Path, *urls: str) -> Store:
    store.folders.use(str(folder), list(urls))
    store.folders.save()
    return store


def test_a_row_is_found_again_in_a_folder_that_was_used(new_store: NewStore, folder: Path) -> None:
    digest = Digest("md5", "0" * 32)
    leave_part(folder, digest=digest)
    (again,) = found(used(new_store(), folder))
    assert (again.url, again.directory, again.status) == (URL, str(folder), Status.PAUSED)
    assert (again.name, again.received, again.size, again.digest) == ("a.bin", 1000, 5000, digest)


def test_a_link_with_secrets_cannot_be_had_back(new_store: NewStore, folder: Path) -> None:
    name = leave_part(folder, SECRET_URL)
    (again,) = found(new_store(), folders=(folder,))
    assert (again.url, again.status, again.is_cut) == (URL, Status.FAILED, True)
    assert (again.partial, again.received, again.size) == (name, 1000, 5000)
    assert "Replace Link" in again.error


def test_what_a_row_stands_for_is_not_found_but_tells_what_is_there(
    new_store: NewStore, folder: Path
) -> None:
    leave_part(folder)
    paused = row(url=URL, directory=str(folder), status=Status.PAUSED)
    assert found(used(new_store(), folder), paused) == []
    assert (paused.received, paused.size) == (1000, 5000)


def test_the_part_of_a_replaced_link_belongs_to_its_row(new_store: NewStore, folder: Path) -> None:
    name = leave_part(folder, SECRET_URL)
    replaced = row(directory=str(folder), status=Status.PAUSED, partial=name)
    assert found(used(new_store(), folder), replaced) == []
    assert replaced.received == 1000


def test_what_another_blender_has_in_its_list_is_not_found(new_store: NewStore, folder: Path) -> None:
    leave_part(folder)
    keep(new_store(), row(url=URL, directory=str(folder), status=Status.PAUSED))
    assert found(used(new_store(), folder)) == []


def test_what_another_blender_downloads_is_not_found(new_store: NewStore, folder: Path) -> None:
    leave_part(folder)
    part = opened(URL, str(folder), None)
    assert found(used(new_store(), folder)) == []
    part.close()
    assert len(found(new_store(), folders=(folder,))) == 1


def test_a_removed_row_does_not_come_back(new_store: NewStore, folder: Path) -> None:
    name = leave_part(folder)
    first = used(new_store(), folder)
    first.folders.remove(str(folder), [name])
    first.close()
    second = new_store()
    assert found(second) == []
    used(second, folder, URL)  # the link was added again, and then the list was lost
    assert len(found(new_store())) == 1


def test_a_removed_part_is_forgotten_once_it_is_gone(
    new_store: NewStore, folder: Path, user_folder: Path
) -> None:
    name = leave_part(folder)
    store = used(new_store(), folder)
    store.folders.remove(str(folder), [name])
    assert found(store) == []
    (folder / name).unlink()
    assert found(store) == []
    assert name not in (user_folder / "folders.json").read_text()
    leave_part(folder)
    assert len(found(store)) == 1


def test_an_unplugged_disk_forgets_nothing(new_store: NewStore, folder: Path, user_folder: Path) -> None:
    name = leave_part(folder)
    store = used(new_store(), folder)
    store.folders.remove(str(folder), [name])
    store.folders.save()
    folder.rename(folder.with_name("unplugged"))
    assert found(store) == []
    folder.with_name("unplugged").rename(folder)
    assert found(store) == []


def test_a_folder_that_does_not_answer_forgets_nothing_and_is_looked_into_by_the_next_blender(
    new_store: NewStore, folder: Path
) -> None:
    store, silent = new_store(), str(folder / "silent")
    known = {str(folder): [], silent: ["x.00000000.part"]}
    name = leave_part(folder)
    (row,) = store.find_lost([], known, {str(folder): look_into(str(folder)), silent: Found(silent)})
    assert row.part == name
    assert known[silent] == ["x.00000000.part"]
    assert store.has_gaps


def test_removed_and_added_again_at_once_is_added(new_store: NewStore, folder: Path) -> None:
    name = leave_part(folder)
    store = new_store()
    store.folders.remove(str(folder), [name])
    store.folders.use(str(folder), [URL])
    store.folders.save()
    assert len(found(store)) == 1


def test_a_folder_by_two_names_is_one(new_store: NewStore, folder: Path, tmp_path: Path) -> None:
    leave_part(folder)
    (tmp_path / "link").symlink_to(folder)
    store = used(new_store(), tmp_path / "link")
    assert len(found(used(store, folder))) == 1
    assert found(store, row(url=URL, directory=str(folder), status=Status.PAUSED)) == []


def test_one_blender_looks_at_a_time(new_store: NewStore, folder: Path) -> None:
    first, second = used(new_store(), folder), new_store()
    with first.folders.held(), second.folders.held() as known:
        assert known is None


def test_what_people_do_while_the_folders_are_held_is_kept(new_store: NewStore) -> None:
    folders = new_store().folders
    with folders.held():
        folders.use(TOP + "used", [URL])
        folders.remove(TOP + "used", ["a.01234567.part"])
    with new_store().folders.held() as known:
        assert known == {TOP + "used": ["a.01234567.part"]}


def test_the_folders_are_private_and_few(new_store: NewStore, user_folder: Path) -> None:
    store = new_store()
    for number in range(records.FOLDERS + 10):
        store.folders.use(f"{TOP}folder-{number}", [URL])
    store.folders.save()
    path = user_folder / "folders.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(json.loads(path.read_bytes())["folders"]) == records.FOLDERS


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "huge"])
def test_unreadable_folders_are_set_aside_with_a_sentence(
    new_store: NewStore, user_folder: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    unreadable(kind, user_folder / "folders.json")
    store = used(new_store(), Path(TOP, "a"))
    check_one_sentence(caplog, "could not be read and was set aside: folders.unreadable")
    with store.folders.held() as known:
        assert known == {f"{TOP}a": []}


def test_a_full_disk_keeps_the_folders_in_mind(new_store: NewStore, disk: Disk, folder: Path) -> None:
    store = used(new_store(), folder)
    disk.is_full = False
    store.folders.flush(1.0)
    with new_store().folders.held() as known:
        assert known == {str(folder): []}


# ETags.


@pytest.mark.parametrize("kind", KINDS)
def test_unreadable_etags_are_as_good_as_none(user_folder: Path, kind: str) -> None:
    unreadable(kind, user_folder / "etags.json")
    assert store_module.Etags().find(URL, TOP + "d") is None


def test_etags_of_a_long_run_are_written_now_and_then_the_last_ones(
    user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with each file: that took the longer the more there were, and the window stood still for it."""
    written: list[Path] = []
    monkeypatch.setattr(store_module, "ETAGS", 3)
    monkeypatch.setattr(
        store_module, "write_atomically", lambda *args: written.append(args[0]) or write_atomically(*args)
    )
    etags = store_module.Etags()
    for number in range(5):
        etags.keep(f"{URL}?{number}", TOP, Have(name="a.bin", size=number, mtime=1.5, etag='"1"'))
        etags.flush(1000.0 + number)
    etags.save()
    assert len(written) == 2
    found = [store_module.Etags().find(f"{URL}?{number}", TOP) for number in range(5)]
    assert [have and have.size for have in found] == [None, None, 2, 3, 4]


def test_names_of_lists_are_as_other_tools_know_them(
    new_store: NewStore, user_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    keep(new_store(), row(1))
    assert (user_folder / f"queue-{os.getpid()}.json").exists()
    assert (user_folder / f"queue-{os.getpid()}.lock").exists()
    assert caplog.records == []
    assert names.part_name(URL, TOP + "d") not in (user_folder / f"queue-{os.getpid()}.json").read_text()


def test_a_disk_that_is_really_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a small disk of its own where that can be had."""
    folder = tmp_path / "small"
    folder.mkdir()
    monkeypatch.setattr(store_module, "user_folder", lambda: folder)
    options = ["-t", "tmpfs", "-o", "size=64k", "none"]
    if subprocess.run(["mount", *options, folder], check=False, capture_output=True).returncode:
        pytest.skip("no disk of its own can be mounted here (root)")
    try:
        store = store_module.Store()
        assert store.open()
        keep(store, row(1))
        (folder / "ballast").write_bytes(bytes(48 << 10))
        keep(store, *(row(uid, error="e" * 1000) for uid in range(2, 50)))
        check_one_sentence(caplog, "cannot be kept on the disk now (No space left on device)")
        assert listed(folder) == [row(1).url], "what was there stays whole"
        assert names_in(folder) == ["ballast", store._path.name, f"{store._path.stem}.lock"]
        (folder / "ballast").unlink()
        store.flush(100.0, None)
        assert len(listed(folder)) == 49
        store.close()
    finally:
        subprocess.run(["umount", folder], check=True)


# -- What lies about.


def leftovers(store: Store, *rows: Download) -> list[records.Lying]:
    with store.folders.held() as known:
        return store.leftovers(list(rows), {folder: look_into(folder) for folder in known or ()})


def test_partial_files_that_no_list_has_are_listed_with_size_and_age(
    new_store: NewStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = used(new_store(), folder), new_store()
    removed = leave_part(folder, "https://files.example/removed.blend", 4_000)
    for url in (URL, "https://files.example/of-another.bin"):
        leave_part(folder, url)
    keep(other, row(directory=str(folder), url="https://files.example/of-another.bin"))
    later = time.time() + 2 * 86400
    monkeypatch.setattr(store_module, "time", types.SimpleNamespace(time=lambda: later))
    (lying,) = leftovers(store, row(directory=str(folder), url=URL))
    assert (lying.title, lying.name, lying.directory) == ("removed.blend", removed, str(folder))
    assert lying.size >= 4_000
    assert round(lying.age / 86400) == 2


def test_what_is_in_anothers_list_is_no_leftover_for_one_that_keeps_none(
    new_store: NewStore, folder: Path
) -> None:
    """In background mode: it could be deleted there, while the other means to go on with it."""
    other = used(new_store(), folder)
    leave_part(folder, URL)
    keep(other, row(directory=str(folder), url=URL))
    other.folders.save()
    assert leftovers(store_module.Store()) == []
    other.forget(1)
    other.save()
    assert len(leftovers(store_module.Store())) == 1


@pytest.mark.parametrize("is_there", [True, False])
def test_a_file_that_a_killed_blender_has_finished_is_found_as_windows_reaches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    far = os.path.abspath("far")
    monkeypatch.setattr(store_module.portable, "reach", lambda path: str(path).replace(far, str(tmp_path)))
    if is_there:
        (tmp_path / "a.bin").touch()
    assert store_module._in_place({1: os.path.join(far, "a.bin")}) == ({1} if is_there else set())
