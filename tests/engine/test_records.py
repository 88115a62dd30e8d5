"""The list and the used folders as they stand in files: what is read back, and what is not believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from driving import record
from hypothesis import given
from hypothesis import strategies as st
from rules import TOP

from background_downloads.session import records, words
from background_downloads.transfer import names
from background_downloads.transfer.digest import LENGTHS
from background_downloads.transfer.job import Digest, IfExists
from background_downloads.transfer.part import Leftover
from background_downloads.workers import Download, Status

URL = "https://me:password@files.example/a.bin?signature=1"
OLD_PART = "a.bin.0123abcd.part"
HOME = f"{TOP}home"
WAITING = (Status.QUEUED, Status.RUNNING)


def row(**values: Any) -> Download:
    return record(**{"url": URL, "directory": f"{TOP}home", "name": "a.bin"} | values)


def encoded(*rows: Download) -> bytes:
    return records.encode_list(map(records.encode_row, rows))


def decoded(data: bytes) -> list[Download]:
    rows, bad = read(data)
    assert bad == 0
    return rows


def read(data: bytes) -> tuple[list[Download], int]:
    """The rows, and how many lines are none."""
    found = list(records.decode_list(data))
    return list(filter(None, found)), found.count(None)


def facts(download: Download) -> dict[str, Any]:
    """All that the list keeps, but for the uid, which another Blender gives anew."""
    return dict(json.loads(records.encode_row(download))) | {"uid": None}


digests = st.sampled_from(sorted(LENGTHS)).flatmap(
    lambda name: st.builds(
        Digest, st.just(name), st.text("0123456789abcdef", min_size=LENGTHS[name], max_size=LENGTHS[name])
    )
)
downloads = st.builds(
    row,
    url=st.text(min_size=1),
    directory=st.text(st.characters(codec="utf-8", exclude_characters="\0")).map(TOP.__add__),
    if_exists=st.sampled_from(IfExists),
    when_done=st.sampled_from(["NOTHING", "IMPORT"]),
    digest=st.none() | digests,
    status=st.sampled_from([status for status in Status if row(status=status).is_unfinished]),
    error=st.text().filter(str.isprintable),
    received=st.integers(0, 1 << 60),
    size=st.none() | st.integers(0, 1 << 60),
    partial=st.sampled_from(["", OLD_PART]),
    wanted=st.sampled_from(["", "rock.blend"]),
    mirrors=st.lists(st.text(min_size=1), max_size=2).map(tuple),
    is_cut=st.booleans(),
    stays_paused=st.booleans(),
)


@given(st.lists(downloads, max_size=3))
def test_what_was_written_is_read_again(rows: list[Download]) -> None:
    for before, after in zip(rows, decoded(encoded(*rows)), strict=True):
        expected = facts(before)
        if before.status in WAITING:
            expected["status"] = "PAUSED"
        assert facts(after) == expected


def test_a_running_rows_line_stands_still() -> None:
    lines = {records.encode_row(row(status=Status.RUNNING, received=n)) for n in (1, 1000, 100_000)}
    assert len(lines) == 1


def test_finished_rows_are_not_in_it() -> None:
    assert decoded(encoded(row(status=Status.FINISHED), row(status=Status.SKIPPED))) == []


@pytest.mark.parametrize("cut", [1, 10, 50, 100])
def test_a_list_that_was_cut_costs_the_cut_line_only(cut: int) -> None:
    data = encoded(row(), row(url=URL + "2"))
    rows, bad = read(data[:-cut])
    assert (len(rows), bad) == (2, 0) if cut == 1 else (1, 1)
    assert rows[0].url == URL


BAD = {
    "status": ["RUN", None, [], 1],
    "directory": ["", "relative", "/a\0b", "/\ud800", None, 5],
    "url": ["", None, 5],
    "if_exists": ["", None, {}],
    "digest": ["sha256", ["sha256", "0"], ["crc", "00"], [[], []], 7, {}],
    "received": [-1, 1.5, "1", None, True, 1 << 64, float("inf"), float("nan")],
    "size": [-1, 1.5, "1", True, 1 << 64],
    "name": [None, 3],
    "error": [None, 3],
    "partial": [None, 3],
}


@pytest.mark.parametrize("key", BAD)
def test_a_bad_line_does_not_lose_the_good_ones(key: str) -> None:
    good = records.encode_row(row())
    for value in BAD[key]:
        bad = json.dumps(facts(row()) | {key: value})
        rows, count = read(records.encode_list([good, bad, good]))
        assert (len(rows), count) == (2, 1), f"{key} = {value!r}"


NO_LISTS = {
    "empty": b"",
    "spaces": b"   \n  ",
    "another version": b'{"version": 2}\n',
    "no version": b"{}\n",
    "a number": b"1\n",
    "bytes": bytes(range(256)),
    "deep": b"[" * 100_000,
    "utf-16": '{"version": 1}'.encode("utf-16"),
    "nulls": bytes(1000),
}


@pytest.mark.parametrize("kind", NO_LISTS)
def test_what_is_no_list_of_this_version_is_a_value_error(kind: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        read(NO_LISTS[kind])


def test_lines_that_are_no_rows_are_counted() -> None:
    lines = ["7", "[]", "null", "{}", "{", "\x00", "[" * 100_000, '"' + "a" * 100_000]
    assert read(records.encode_list(lines)) == ([], len(lines))


def test_a_list_of_an_earlier_kind_is_read() -> None:
    """Before links could be replaced its rows had no word of that, nor of who had paused them."""
    values = records._DEFAULTS | facts(row())
    del values["partial"], values["is_cut"], values["stays_paused"]
    (read,) = decoded(records.encode_list([json.dumps(values)]))
    assert (read.partial, read.is_cut, read.stays_paused) == ("", False, False)


@pytest.mark.parametrize("partial", ["scene.blend", f"../{OLD_PART}", f"/etc/{OLD_PART}", "x.part"])
def test_only_a_partial_file_in_the_folder_is_gone_on_with(partial: str) -> None:
    (read,) = decoded(encoded(row(partial=partial)))
    assert read.partial == ""


def test_texts_can_be_shown_by_blender() -> None:
    (read,) = decoded(encoded(row(name="../\ud800\0a.bin", error="no\0\ud800\n good" + "!" * 10_000)))
    assert read.name == names.safe(read.name)
    assert read.error.isprintable()
    read.error.encode()
    assert len(read.error) <= words.TEXT_LENGTH


def test_a_row_that_is_known_is_not_there_twice() -> None:
    here, there, elsewhere = row(), row(uid=0), row(directory=f"{TOP}other")
    assert records.unknown([there, elsewhere, row(directory=f"{TOP}other")], [here]) == [elsewhere]


def test_halves_of_two_links_are_two_rows() -> None:
    halves = [row(url="https://h/a", is_cut=True, partial=f"a.0123abc{n}.part") for n in (1, 2)]
    assert records.unknown(halves, []) == halves


# Leftovers.


def leftover(**values: Any) -> Leftover:
    url = "https://files.example/a.bin"
    return Leftover(
        **{
            "name": names.part_name(url, f"{TOP}home"),
            "url": url,
            "is_cut": False,
            "digest": Digest("md5", "0" * 32),
            "received": 10,
            "size": 20,
        }
        | values
    )


def test_a_partial_file_whose_link_is_known_becomes_a_paused_row() -> None:
    found = records.row_of(leftover(), f"{TOP}home")
    assert (found.status, found.error, found.partial) == (Status.PAUSED, "", "")
    assert (found.name, found.received, found.size) == ("a.bin", 10, 20)
    assert found.digest == Digest("md5", "0" * 32)


def test_a_partial_file_whose_link_was_cut_asks_for_a_new_one() -> None:
    found = records.row_of(leftover(is_cut=True, name=OLD_PART), f"{TOP}home")
    assert (found.status, found.is_cut, found.partial) == (Status.FAILED, True, OLD_PART)
    assert "Replace Link" in found.error
    assert records.part_names(found) == (OLD_PART,)


def test_a_partial_file_of_a_folder_that_has_moved_goes_on_under_its_new_name() -> None:
    found = records.row_of(leftover(), "/elsewhere")
    assert (found.status, found.partial) == (Status.PAUSED, leftover().name)


def test_rows_stand_for_their_files_whatever_the_folder_is_called(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    claimed = dict(records.claimed([row(directory=str(link), partial=OLD_PART)], {}))
    assert set(claimed) == {(str(real), names.part_name(URL, str(link))), (str(real), OLD_PART)}


# Folders.


def test_folders_are_read_again_in_their_order() -> None:
    folders = {f"{TOP}b": [OLD_PART], f"{TOP}a": []}
    assert list(records.decode_folders(records.encode_folders(folders)).items()) == list(folders.items())


def test_the_last_used_folders_are_kept() -> None:
    folders = {f"{TOP}{n}": [f"{n}.0123abcd.part" for n in range(2000)] for n in range(200)}
    read = records.decode_folders(records.encode_folders(folders))
    assert list(read) == list(folders)[-records.FOLDERS :]
    assert read[f"{TOP}199"] == folders[f"{TOP}199"][-records.REMOVED :]


@pytest.mark.parametrize("folders", [None, 1, [1], [[HOME]], [[HOME, 1]], [[HOME, [1]]], [[1, []]]])
def test_what_is_no_list_of_folders_is_a_value_error(folders: Any) -> None:
    data = json.dumps({"version": records.VERSION, "folders": folders}).encode()
    with pytest.raises(ValueError):  # noqa: PT011
        records.decode_folders(data)


def test_folders_that_the_system_cannot_be_asked_about_are_dropped() -> None:
    folders = {"relative": [], f"{TOP}a\0b": [], f"{TOP}\ud800": [], f"{TOP}ok": [OLD_PART, "../" + OLD_PART]}
    assert records.decode_folders(records.encode_folders(folders)) == {f"{TOP}ok": [OLD_PART]}
