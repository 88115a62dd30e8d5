"""`fetch` where Blender is a module: it waits, and calls back before it returns."""

from __future__ import annotations

import hashlib
import importlib
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
import pytest
from leaks import LeakCheck
from server import Gate, Server, pattern, stall_after, status

if TYPE_CHECKING:
    from conftest import Extension

DATA = pattern(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def fetching(extension: Extension) -> Any:
    """The module that has it."""
    return importlib.import_module(f"{extension.package}.session.fetching")


def test_each_link_has_a_result_in_the_order_in_which_they_were_given(
    fetching: Any, server: Server, tmp_path: Path
) -> None:
    good = server.add("/good.bin", body=DATA) + f"#sha256={SHA256}"
    plain = server.add("/plain.bin", body=DATA)
    damaged = server.add("/damaged.bin", body=DATA) + "#sha256=" + "0" * 64
    missing = server.url("/missing.bin?key=secret")
    urls = [missing, "ftp://example.org/x", good, damaged, plain, good]
    with LeakCheck():
        handle = fetching.fetch(urls, tmp_path / "got")
    assert handle.is_done
    results = handle.results
    assert [result.status for result in results] == [
        "FAILED", "FAILED", "FINISHED", "FAILED", "FINISHED", "FINISHED"
    ]
    assert [result.url for result in results] == urls
    assert [result.verified for result in results] == ["", "", "sha256", "", "", "sha256"]
    assert results[2].path == results[5].path == str(tmp_path / "got" / "good.bin")
    assert "404" in results[0].error
    assert "checksum differs" in results[3].error
    assert "secret" not in repr(results)
    assert sorted(path.name for path in (tmp_path / "got").glob("*.bin")) == ["good.bin", "plain.bin"]


def test_done_is_called_once_on_the_main_thread_with_the_handle(
    fetching: Any, server: Server, tmp_path: Path
) -> None:
    calls = []

    def done(handle: Any) -> None:
        calls.append((handle, threading.current_thread(), handle.results[0].path))

    handle = fetching.fetch(server.add("/a.bin", body=DATA), str(tmp_path), done=done)
    assert calls == [(handle, threading.main_thread(), str(tmp_path / "a.bin"))]


def test_nothing_to_fetch_is_done_at_once(fetching: Any, tmp_path: Path) -> None:
    calls: list[Any] = []
    handle = fetching.fetch([], tmp_path, done=calls.append)
    assert (handle.results, handle.fraction, calls) == ([], 1.0, [handle])


def test_what_the_server_says_of_its_file_is_told(fetching: Any, server: Server, tmp_path: Path) -> None:
    digest = importlib.import_module("base64").b64encode(hashlib.sha256(DATA).digest()).decode()
    url = server.add("/a.bin", body=DATA, headers={"Repr-Digest": f"sha-256=:{digest}:"})
    (result,) = fetching.fetch(url, tmp_path).results
    assert result.verified == "sha256 (server)"


@pytest.mark.parametrize("folder", ["relative/folder", "//beside"])
def test_a_folder_that_is_no_whole_path_is_an_error(fetching: Any, folder: str) -> None:
    with pytest.raises(ValueError, match=r"whole path|Save the"):
        fetching.fetch("https://example.org/a.bin", folder)


@pytest.mark.parametrize("folder", ["//", "//textures", ' "//" '])
def test_beside_the_file_means_nothing_while_blender_starts(
    fetching: Any, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It enables add-ons before it opens a file, and hides what it has until then."""
    with monkeypatch.context() as restricted:
        restricted.setattr(bpy, "data", object())
        with pytest.raises(ValueError, match="Blender has no file open yet"):
            fetching.fetch("https://example.org/a.bin", folder)
    with pytest.raises(ValueError, match=r"Save the \.blend file first"):
        fetching.fetch("https://example.org/a.bin", folder)


def test_what_callbacks_raise_is_logged_once_and_changes_nothing(
    fetching: Any, server: Server, gate: Gate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.add("/a.bin", stall_after(100_000, gate), body=DATA)

    def progress(handle: Any) -> None:
        gate.open()
        raise ZeroDivisionError("in progress")

    def done(handle: Any) -> None:
        raise SystemExit("in done")

    with caplog.at_level(logging.ERROR):
        handle = fetching.fetch(url, tmp_path, done=done, progress=progress)
    assert handle.results[0].status == "FINISHED"
    raised = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert raised == [ZeroDivisionError, SystemExit]


def test_progress_may_cancel_and_what_came_is_used_the_next_time(
    fetching: Any, server: Server, gate: Gate, tmp_path: Path
) -> None:
    url = server.add("/a.bin", stall_after(100_000, gate), body=DATA)
    seen: list[tuple[bool, int]] = []

    def progress(handle: Any) -> None:
        seen.append((handle.is_done, handle.received))
        if handle.received == 100_000:
            handle.cancel()

    with LeakCheck():
        handle = fetching.fetch(url, tmp_path, progress=progress)
    assert handle.results[0].status == "CANCELLED"
    assert (False, 100_000) in seen
    gate.open()
    (result,) = fetching.fetch(url, tmp_path).results
    assert result.status == "FINISHED"
    assert Path(result.path).read_bytes() == DATA
    assert server.requests_for("/a.bin")[-1].headers["Range"].startswith("bytes=")


def test_offline_every_link_fails_and_says_why(
    fetching: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "offline_reason", lambda: "Online access required")
    calls: list[Any] = []
    handle = fetching.fetch(["https://example.org/a", "ftp://x/y"], tmp_path, done=calls.append)
    assert [result.status for result in handle.results] == ["FAILED", "FAILED"]
    assert handle.results[0].error == "Online access required"
    assert calls == [handle]


def test_existing_files_are_treated_as_asked(fetching: Any, server: Server, tmp_path: Path) -> None:
    url = server.add("/a.bin", body=DATA)
    names = [
        Path(fetching.fetch(url, tmp_path, if_exists=choice).results[0].path).name
        for choice in ("RENAME", "RENAME", "SKIP", "OVERWRITE", "UPDATE")
    ]
    assert names == ["a.bin", "a (1).bin", "a.bin", "a.bin", "a.bin"]
    with pytest.raises(ValueError, match="NEVER"):
        fetching.fetch(url, tmp_path, if_exists="NEVER")


def test_the_operators_put_what_was_fetched_into_the_list(
    fetching: Any, server: Server, tmp_path: Path
) -> None:
    """One way in: what `fetch` brings is in the extension's list like everything else."""
    fetching.fetch([server.add("/a.bin", body=DATA), server.add("/b.bin", status(404))], tmp_path)
    items = bpy.context.window_manager.downloads.items
    assert [(item.name, item.status) for item in items][-2:] == [("a.bin", "FINISHED"), ("b.bin", "FAILED")]


# What only a window does, whose timers and runs a module has not.


@pytest.fixture
def queue(extension: Extension) -> Any:
    """The one that is asked."""
    return importlib.import_module(f"{extension.package}.session").current()


def begin(fetching: Any, queue: Any, folder: Path, **callbacks: Any) -> Any:
    """A fetch of nothing, as in a window."""
    handle = fetching.Handle(queue, entries=[], **callbacks)
    handle.begin([], wait=False, directory=str(folder))
    return handle


def test_nothing_to_fetch_is_told_in_a_window_too(fetching: Any, queue: Any, tmp_path: Path) -> None:
    calls: list[Any] = []
    handle = begin(fetching, queue, tmp_path, done=calls.append)
    assert calls == []
    queue.calls._look()
    assert calls == [handle]


def test_a_row_that_is_removed_is_told_without_a_look_at_all_others(
    fetching: Any, queue: Any, extension: Extension, tmp_path: Path
) -> None:
    names = importlib.import_module(f"{extension.package}.transfer.names")
    links: dict[str, Any] = {}
    entries = list(names.read([f"https://files.example/{name}.bin" for name in "abc"], links))
    handle = fetching.Handle(queue, entries=entries)
    handle.begin(links.values(), wait=False, directory=str(tmp_path))
    handle._rows = Unwalked(handle._rows)
    queue.remove(handle.rows[1], delete=False)
    assert [result.status for result in handle.results] == ["QUEUED", "CANCELLED", "QUEUED"]
    handle.cancel()
    assert [result.status for result in handle.results] == ["CANCELLED"] * 3
    assert handle.is_done


class Unwalked(dict[Any, Any]):
    """Knows where each is."""

    def items(self) -> Any:
        raise AssertionError("all were looked at")


def test_without_a_window_it_waits_whatever_is_asked(fetching: Any, server: Server, tmp_path: Path) -> None:
    calls: list[Any] = []
    handle = fetching.fetch(server.add("/a.bin", body=DATA), tmp_path, done=calls.append, wait=False)
    assert (handle.results[0].status, calls) == ("FINISHED", [handle])


def test_a_callback_that_disables_the_add_on_is_the_last(
    fetching: Any, queue: Any, extension: Extension, tmp_path: Path
) -> None:
    calls: list[Any] = []

    def disable(handle: Any) -> None:
        calls.append(handle)
        extension.disable()

    first = begin(fetching, queue, tmp_path, progress=disable, done=calls.append)
    begin(fetching, queue, tmp_path, done=calls.append)
    queue.calls._look()
    assert calls == [first]


def test_disabling_the_add_on_ends_a_fetch_that_waits(
    fetching: Any, extension: Extension, server: Server, gate: Gate, tmp_path: Path
) -> None:
    url = server.add("/a.bin", stall_after(100_000, gate), body=DATA)
    calls: list[Any] = []

    def disable(handle: Any) -> None:
        if extension.is_enabled:
            extension.disable()
        calls.append(handle.is_done)

    handle = fetching.fetch(url, tmp_path, progress=disable, done=calls.append)
    assert (handle.is_done, handle.results[0].status, calls) == (True, "CANCELLED", [False])


def test_each_callback_is_called_whatever_goes_wrong_with_another(
    fetching: Any, queue: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    overrides: list[int] = []
    module = importlib.import_module(type(queue.calls).__module__)

    def broken() -> None:
        overrides.append(len(calls))
        raise TypeError("the window has gone")

    monkeypatch.setattr(module, "_in_window", broken)
    queue.calls.post(lambda: 1 / 0)
    second = begin(fetching, queue, tmp_path, done=calls.append)
    queue.calls._look()
    assert (calls, overrides) == ([second], [0, 0])


def test_before_its_operator_is_there_a_run_is_put_off(
    fetching: Any, queue: Any, extension: Extension, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in `register` while Blender starts, whose context is restricted, or beside another run."""
    watch = importlib.import_module(f"{extension.package}.session.watch")
    monkeypatch.setattr(watch, "_ours", lambda: "NOT_THERE_OT_yet")
    assert watch.invoke() == ""
    assert bpy.app.timers.is_registered(watch._again)
    assert watch._again() == watch.AGAIN
    bpy.app.timers.unregister(watch._again)
