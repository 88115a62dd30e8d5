"""What systems do differently, and what is the same for all of them."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from background_downloads.hosts.process import BATCH
from background_downloads.transfer import portable
from background_downloads.transfer.control import Wire

if sys.platform == "win32":
    import msvcrt

TESTS = Path(__file__).resolve().parents[1]

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux' desktops write user-dirs.dirs")
on_windows = pytest.mark.skipif(sys.platform != "win32", reason="only Windows has it")


# -- The user's own Downloads folder.


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("XDG_DOWNLOAD_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".config").mkdir()
    return tmp_path


@on_linux
@pytest.mark.parametrize(
    ("said", "is_meant"),
    [
        ('XDG_DOWNLOAD_DIR="$HOME/Téléchargements"', "{home}/Téléchargements"),
        ('XDG_DOWNLOAD_DIR="/data/My files"', "/data/My files"),
        ('# XDG_DOWNLOAD_DIR="/no"\n  XDG_DOWNLOAD_DIR="/a"\nXDG_DOWNLOAD_DIR="/b"\n', "/b"),
        (r'XDG_DOWNLOAD_DIR="/a/\"quoted\" \$5 \\ \`"', '/a/"quoted" $5 \\ `'),
        ('XDG_DOWNLOAD_DIR="$HOMELY/files"', "{home}/Downloads"),
        ('XDG_DOWNLOAD_DIR="$HOME/"', "{home}/Downloads"),  # the desktop's way to say: none
        ('XDG_DOWNLOAD_DIR="$HOME"', "{home}/Downloads"),
        ('XDG_DOWNLOAD_DIR="files"', "{home}/Downloads"),
        ('XDG_DOWNLOAD_DIR=""', "{home}/Downloads"),
        ("", "{home}/Downloads"),
    ],
)
def test_the_downloads_folder_is_what_the_desktop_calls_it(home: Path, said: str, is_meant: str) -> None:
    (home / ".config" / "user-dirs.dirs").write_text(f'XDG_DESKTOP_DIR="$HOME/Desk"\n{said}\n')
    assert portable.downloads_folder() == is_meant.format(home=home)


@on_linux
def test_a_folder_that_the_desktop_cannot_spell_in_utf8_is_found(home: Path) -> None:
    (home / ".config" / "user-dirs.dirs").write_bytes(b'XDG_DOWNLOAD_DIR="$HOME/T\xe9l\xe9"\n')
    assert os.fsencode(portable.downloads_folder()) == os.fsencode(home) + b"/T\xe9l\xe9"


@on_linux
def test_the_environment_wins_over_the_desktops_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".config" / "user-dirs.dirs").write_text('XDG_DOWNLOAD_DIR="/desktop"\n')
    monkeypatch.setenv("XDG_DOWNLOAD_DIR", "/environment")
    assert portable.downloads_folder() == "/environment"


@on_linux
def test_the_desktops_file_is_looked_for_where_its_settings_are(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "settings").mkdir()
    (home / "settings" / "user-dirs.dirs").write_text('XDG_DOWNLOAD_DIR="/elsewhere"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "settings"))
    assert portable.downloads_folder() == "/elsewhere"


@on_linux
def test_without_a_desktop_it_is_downloads_in_the_home_folder(home: Path) -> None:
    assert portable.downloads_folder() == str(home / "Downloads")
    (home / ".config" / "user-dirs.dirs").mkdir()
    assert portable.downloads_folder() == str(home / "Downloads")


@on_windows
@pytest.mark.parametrize(
    "moved", ["{folder}\\OneDrive ünï\\Downloads", "{folder}\\gone 🎨", "Q:\\", "q:\\Downloads"]
)
def test_the_downloads_folder_is_the_known_folder(tmp_path: Path, moved: str) -> None:
    """OneDrive or the user moves it: then it is not in the user's own folder; its drive may be missing."""
    import winreg

    key = r"Software\Microsoft\Windows\CurrentVersion\Explorer\User Shell Folders"
    name, moved = "{374DE290-123F-4565-9164-39C4925E467B}", moved.format(folder=tmp_path)
    with winreg.CreateKey(winreg.HKEY_CURRENT_USER, key) as folders:
        try:
            before: str | None = winreg.QueryValueEx(folders, name)[0]
        except FileNotFoundError:
            before = None
        if "OneDrive" in moved:
            os.makedirs(moved)
        winreg.SetValueEx(folders, name, 0, winreg.REG_SZ, moved)
        try:
            assert portable.downloads_folder() == moved
        finally:
            if before is None:
                winreg.DeleteValue(folders, name)
            else:
                winreg.SetValueEx(folders, name, 0, winreg.REG_SZ, before)


# -- Locks.


def test_a_lock_leaves_all_bytes_readable_and_is_given_back_on_close(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    held, other = (os.open(path, os.O_RDWR) for _ in range(2))
    try:
        assert portable.lock_file(held)
        assert not portable.lock_file(other)
        assert os.read(other, 100) == b"content"
        assert os.write(other, b"more") == 4
    finally:
        os.close(held)
    assert portable.lock_file(other)
    os.close(other)


# -- Bytes at a place.


def test_bytes_are_written_and_read_at_a_place(tmp_path: Path) -> None:
    fd = portable.open_file(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        assert portable.pwrite(fd, memoryview(b"later"), 5 << 30) == 5
        assert portable.pwrite(fd, memoryview(bytearray(b"-first-"))[1:6], 0) == 5
        assert portable.pwrite(fd, memoryview(b""), 3) == 0
        assert portable.pread(fd, 100, 5 << 30) == b"later"
        assert portable.pread(fd, 3, 0) == b"fir"
        assert portable.pread(fd, 100, 6 << 30) == b""
        assert portable.pread(fd, 0, 0) == b""
    finally:
        os.close(fd)


def test_a_gap_that_is_left_reads_as_zeros(tmp_path: Path) -> None:
    fd = portable.open_file(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        portable.allow_gap(fd)
        portable.pwrite(fd, memoryview(b"x"), 1 << 20)
        assert portable.pread(fd, 2 << 20, 0) == bytes(1 << 20) + b"x"
    finally:
        os.close(fd)


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    fd = portable.open_file(tmp_path / "file", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match=r".") as caught:
            portable.pwrite(fd, memoryview(b"x"), 0)
        assert caught.value.errno in (errno.EBADF, errno.EACCES)
        assert portable.pread(fd, 100, 0) == b"content"
    finally:
        os.close(fd)


def test_where_no_large_file_can_be_is_known(tmp_path: Path) -> None:
    assert not portable.is_fat(portable.reach(str(tmp_path)))
    assert not portable.is_fat(portable.reach(str(tmp_path / "missing")))


# -- The pipe to the child.


def test_a_pipe_holds_two_batches_that_nobody_reads() -> None:
    """Else Blender would wait while its child does something else."""
    ours, theirs = portable.pipe()
    batches = [os.urandom(2 * BATCH), os.urandom(BATCH)]
    with ours, theirs:
        for end, other in ((ours, theirs), (theirs, ours)):
            for batch in batches:
                end.send(batch)
            assert [other.recv(), other.recv()] == batches
            assert not other.poll(0)


# -- What a child inherits.


def told_by_a_child(code: str) -> Any:
    """What a child of ours says: `code` puts it into `told`."""
    ours, theirs = portable.pipe()
    end = (
        f"import sys; sys.path[:] = {[str(TESTS), *sys.path]!r}\n"
        "from multiprocessing import connection\n"
        f"end = getattr(connection, 'PipeConnection', connection.Connection)({theirs.fileno()})\n"
    )
    command = [portable.python(), "-I", "-c", f"{end}{code}\nend.send(told)"]
    with ours:
        child = portable.Child(command, theirs.fileno())
        theirs.close()
        told = ours.recv()
        child.wait()
        return told


def test_a_child_inherits_its_end_of_the_pipe_and_nothing_else(tmp_path: Path) -> None:
    with (tmp_path / "open for all children").open("wb") as file:
        os.set_inheritable(file.fileno(), True)
        if sys.platform == "win32":
            os.set_handle_inheritable(msvcrt.get_osfhandle(file.fileno()), True)
        told = told_by_a_child("import leaks; told = list(leaks.descriptors().values())")
    assert [path for path in told if "open for all children" in path] == []
    assert len([path for path in told if "socket" in path]) == 1


@on_windows
def test_a_child_has_no_console_window() -> None:
    assert told_by_a_child("import ctypes; told = ctypes.windll.kernel32.GetConsoleWindow()") == 0


@on_windows
def test_windows_ends_a_child_after_blender_where_it_shuts_down() -> None:
    code = """
import ctypes, importlib.util, os
spec = importlib.util.spec_from_file_location("portable", {file!r})
portable = importlib.util.module_from_spec(spec)
spec.loader.exec_module(portable)
def level():
    values = ctypes.c_ulong(), ctypes.c_ulong()
    ctypes.windll.kernel32.GetProcessShutdownParameters(*map(ctypes.byref, values))
    return values[0].value
told = [level(), portable.watch(os.getppid())(), level()]
"""
    before, lives, after = told_by_a_child(code.format(file=portable.__file__))
    assert (lives, after < before) == (True, True)


@on_windows
def test_a_child_is_made_though_windows_knows_no_such_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As before Windows 10."""
    monkeypatch.setattr(portable, "_JOBS", 0x200FF)
    assert told_by_a_child("told = sys.platform") == "win32"


@on_windows
def test_a_program_that_is_missing_is_an_error(tmp_path: Path) -> None:
    ours, theirs = portable.pipe()
    with ours, theirs, pytest.raises(FileNotFoundError):
        portable.Child([str(tmp_path / "no program.exe")], theirs.fileno())


# -- Waits on a connection.


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs = listener.accept()[0]
    with ours, theirs:
        yield ours, theirs


def receive(sock: socket.socket) -> None:
    sock.recv(1)


def receive_in_time(sock: socket.socket) -> None:
    sock.settimeout(90)
    sock.recv(1)


def send(sock: socket.socket) -> None:
    sock.sendall(bytes(50_000_000))


@pytest.mark.parametrize("wait", [receive, receive_in_time, send])
def test_who_waits_in_a_connection_is_free_when_it_is_interrupted(
    connection: tuple[socket.socket, socket.socket], wait: Callable[[socket.socket], None]
) -> None:
    sock = connection[0]
    wire = Wire(sock)

    def run() -> None:
        with suppress(OSError):
            wait(sock)

    thread = threading.Thread(target=run, name="downloads-waits")
    thread.start()
    while thread.is_alive():  # it may begin to wait just then
        wire.shutdown()
        thread.join(0.01)
    wire.close()


@on_windows
@pytest.mark.parametrize("filepath", ["C:\\a b, c.bin", ""])
def test_the_file_manager_is_windows_own(filepath: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no program of that name beside the .blend file."""
    commands: list[str] = []
    monkeypatch.setattr(portable.subprocess, "Popen", lambda command, **options: commands.append(command))
    assert portable.show(filepath, "C:\\")
    (command,) = commands
    assert os.path.samefile(command.split('"')[1], Path(os.environ["SYSTEMROOT"], "explorer.exe"))


@on_windows
def test_what_an_add_on_says_of_windows_functions_is_not_for_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    function = vars(ctypes)["windll"].shell32.SHGetKnownFolderPath
    monkeypatch.setattr(function, "argtypes", [ctypes.POINTER(ctypes.c_int), *[ctypes.c_void_p] * 3])
    with pytest.raises(ctypes.ArgumentError):
        function(b"", 0, None, None)
    assert portable.is_absolute(portable.downloads_folder())
