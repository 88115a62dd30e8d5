"""A Blender with a window on a screen of its own, driven by a test from outside.

    with Blender(installation, folder) as b:
        b.install(zip_path)
        b.press_button("downloads.start", tab="Downloads")
        b.wait("not bpy.context.window_manager.downloads.items[0].error")

Every call returns when Blender has done what it says. Waits have deadlines
only so that a failure ends.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from roots import Installation, cache_folder
from x11 import Display, write_png

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
SCREEN = (1600, 900)  # pixels
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
REPOSITORY = "user_default"
DEADLINE = 60.0  # s for anything that a busy machine may take long for
LEAK_DEADLINE = 15.0  # s until what a test used must be gone
START_DEADLINE = 180.0  # s; a cold disk and software GL are slow
SHOWN_CONSOLE = 6000  # characters
DRIVER_FAILED = 97  # exit code
NO_PIXELS = {"LP_NO_RAST": "1"}  # Mesa's llvmpipe then rasterizes nothing


class BlenderError(Exception):
    """Python code failed inside Blender; the message is its traceback."""


class BlenderEndedError(Exception):
    """Blender ended while something was asked of it."""


BlenderFactory = Callable[..., "Blender"]
"""What the fixture `blender_factory` gives."""


def wait_until(
    check: Callable[[], Any],
    deadline: float = DEADLINE,
    what: Callable[[], str] | str = "",
    period: float = 0.02,
) -> Any:
    """Asks again and again until the answer is true, and returns it."""
    end = time.monotonic() + deadline
    while not (answer := check()):
        if time.monotonic() > end:
            said = what() if callable(what) else what
            raise AssertionError(f"not within {deadline:g} s: {said or check}")
        time.sleep(period)
    return answer


class Blender:
    """One Blender process with its screen; a context manager that leaves nothing behind."""

    def __init__(
        self,
        installation: Installation,
        folder: Path,
        *,
        profile: Path | None = None,
        enable: Sequence[str] = (),
        online: bool | None = None,
        factory: bool = True,
        arguments: Sequence[str | Path] = (),
        environment: Mapping[str, str] | None = None,
        folders: Sequence[Path] = (),
        simulate: bool = True,
        size: tuple[int, int] = SCREEN,
        pixels: bool = True,
    ) -> None:
        """`folder` holds its home, settings and temporary files; use it again to start again.

        `profile` is a prepared folder to copy into a new one; `enable` names its
        extensions that are to be enabled; `online` is Blender's own switch, None
        leaves it to the preferences. `factory=False` is a start as users have
        it, with the preferences that were saved in the folder. `simulate=False`:
        it takes the screen's events, not those that a test makes up. `size` is the
        window's, in pixels. `pixels=False`: Blender draws as ever, but software GL
        works out no pixel of it, which is most of what drawing costs: the screen stays black.
        """
        self.installation = installation
        self.folder = folder
        self.enable = list(enable)
        self._size = size
        self._options = _options(factory, online, size) + [str(argument) for argument in arguments]
        self._options += ["--enable-event-simulate"] * simulate
        self._simulate = simulate
        self.pixels = pixels
        self._environment = ({} if pixels else NO_PIXELS) | dict(environment or {})
        self._folders = [folder, PROJECT, cache_folder(), *folders]
        self._stack = ExitStack()
        self._number = 0
        self._told = 0
        self._received = bytearray()
        make_profile(folder, profile)

    # Life.

    def __enter__(self) -> Blender:
        return self.start()

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(self.last_words)
        self.close()

    def start(self) -> Blender:
        """Opens screen and window; when it returns the 3D View is there and no splash."""
        try:
            self._open_screen()
            self._start_process()
            self._settle()
        except BaseException as error:
            error.add_note(self.last_words)
            self.close()
            raise
        return self

    def close(self) -> None:
        """Kills and joins whatever is left of it: Blender, its children, its screen."""
        self._stack.close()

    def quit(self, deadline: float = DEADLINE) -> int:
        """Quits as the menu does, without a question about unsaved changes; the exit code."""
        with suppress(BlenderEndedError):
            self.run("with in_view3d(): bpy.ops.wm.quit_blender()", deadline)
        return self.join(deadline)

    def terminate(self, number: int = signal.SIGTERM) -> None:
        """Sends Blender itself a signal."""
        self._process.send_signal(number)

    def rest(self) -> None:
        """Stands still until `wake`: one that nobody asks anything would still use a processor."""
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Goes on after `rest`."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kills Blender itself, and only it."""
        self._process.kill()

    def join(self, deadline: float = DEADLINE) -> int:
        """Waits for Blender's end; the exit code, negative for a signal."""
        try:
            return self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            state = f"threads: {self.system_threads()}\n{self.last_words}"
            raise AssertionError(f"Blender did not end within {deadline:g} s; {state}") from None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    # Python in Blender.

    def eval(self, expression: str, deadline: float = DEADLINE) -> Any:
        """The value of a Python expression in Blender, as JSON can carry it."""
        return self._ask("eval", expression, deadline)

    def run(self, source: str, deadline: float = DEADLINE) -> None:
        """Runs Python source on Blender's main thread; what it defines stays."""
        self._ask("run", source, deadline)

    def steps(self, expression: str, deadline: float = DEADLINE) -> Any:
        """Runs a generator, one `yield` a turn of Blender's main loop; its return value."""
        return self._ask("steps", expression, deadline)

    def wait(self, expression: str, deadline: float = DEADLINE) -> Any:
        """Waits until an expression is true in Blender, and returns its value."""

        def said() -> str:
            return f"{expression}\n{self.last_words}"

        return wait_until(lambda: self.eval(expression, max(deadline, DEADLINE)), deadline, said)

    # Extensions.

    def install(self, zip_path: Path) -> str:
        """Installs an extension and enables it; returns its module's name."""
        self.run(
            f"""
before = set(bpy.context.preferences.addons.keys())
with in_view3d():
    result = bpy.ops.extensions.package_install_files(
        repo={REPOSITORY!r}, filepath={str(zip_path)!r}, enable_on_install=True)
assert result == {{'FINISHED'}}, result
added = sorted(set(bpy.context.preferences.addons.keys()) - before)
"""
        )
        added = self.eval("added")
        assert len(added) == 1, f"not enabled: {zip_path}\n{self.last_words}"
        return str(added[0])

    def enable_extension(self, identifier: str) -> None:
        """Enables an extension that is installed in the profile."""
        module = f"bl_ext.{REPOSITORY}.{identifier}"
        self.run(
            "with in_view3d():\n"
            f" assert bpy.ops.preferences.addon_enable(module={module!r}) == {{'FINISHED'}}"
        )

    def reset(self) -> None:
        """Back to one window with Blender's own start file; add-ons and preferences stay."""
        self.run("with in_view3d(): bpy.ops.wm.read_homefile(use_factory_startup=True)\ndraw_little()")
        self._show()

    def set_online(self, online: bool) -> None:
        """The preference; without effect where the command line has said it."""
        self.run(f"bpy.context.preferences.system.use_online_access = {online}")

    # The user.

    def move(self, x: float, y: float) -> None:
        self.steps(f"move({x}, {y})")

    def click(self, x: float, y: float, button: str = "LEFTMOUSE") -> None:
        self.steps(f"click({x}, {y}, {button!r})")

    def key(self, kind: str, **modifiers: bool) -> None:
        """Presses and releases a key: `b.key("Z", ctrl=True)`."""
        self.steps(f"key({kind!r}, **{modifiers!r})")

    def type(self, text: str) -> None:
        self.steps(f"type_text({text!r})")

    def f3(self, text: str) -> None:
        """Searches the menus and takes the first match."""
        self.steps(f"f3({text!r})")

    def press_button(self, idname: str, tab: str | None = None, having: str = "") -> str:
        """Clicks an operator's button in the 3D View's sidebar; the Python command behind it.

        `having` must occur in that command: `having="index=2"`.
        """
        return str(self.steps(f"press_button({idname!r}, {tab!r}, {having!r})", DEADLINE * 3))

    def buttons(self, tab: str | None = None) -> list[str]:
        """The Python commands behind all operator buttons of the sidebar (slow)."""
        return list(self.steps(f"list_buttons({tab!r})", DEADLINE * 5))

    @property
    def clipboard(self) -> str:
        return str(self.eval("bpy.context.window_manager.clipboard"))

    @clipboard.setter
    def clipboard(self, text: str) -> None:
        self.run(f"bpy.context.window_manager.clipboard = {text!r}")

    # Windows.

    def windows(self) -> int:
        return int(self.eval("len(bpy.context.window_manager.windows)"))

    def new_window(self, main: bool = False) -> int:
        """Opens another window, a child of the first or one of its own; its index."""
        count = self.windows()
        operator = "window_new_main" if main else "window_new"
        self.run(f"with in_view3d(): bpy.ops.wm.{operator}()")
        self.wait(f"len(bpy.context.window_manager.windows) == {count + 1}")
        self.steps("pause(0)")
        wait_until(lambda: len(self.display.windows()) == count + 1, what="the second X window")
        return count

    def close_window(self, index: int = 0) -> None:
        """Closes a window as a window manager does; the last one quits Blender."""
        self.run("bpy.context.preferences.view.use_save_prompt = False")
        self.display.ask_to_close(self.display.windows()[index])

    def screenshot(self, path: Path) -> Path:
        """A picture (PNG) of the screen, once Blender has drawn what is new."""
        self.steps("pause(0)")
        return self.picture(path)

    def picture(self, path: Path) -> Path:
        """A picture of the screen as it is, also of a Blender that is busy."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, *self.display.picture())
        return path

    # What it is made of; all but `threads` also while Blender is busy.

    def threads(self) -> list[str]:
        """The names of the Python threads in Blender."""
        return list(self.eval("[t.name for t in __import__('threading').enumerate()]"))

    def system_threads(self) -> list[str]:
        """The names of all threads; from Python 3.14 on with Python's own names, cut to 15."""
        names = []
        for task in Path(f"/proc/{self.pid}/task").glob("*/comm"):
            with suppress(OSError):
                names.append(task.read_text().strip())
        return sorted(names)

    def children(self) -> dict[int, str]:
        """The living processes that Blender started, with command lines; also after its end."""
        return {pid: _command_line(pid) for pid in self._processes() if pid != self.pid}

    def fds(self) -> list[str]:
        """What Blender's open descriptors stand for."""
        targets = []
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(OSError):
                targets.append(os.readlink(link))
        return sorted(targets)

    def check_nothing_left(self, fds_before: Sequence[str], deadline: float = LEAK_DEADLINE) -> None:
        """Fails if a worker thread, a child or a new descriptor does not go away."""

        def left() -> list[str]:
            threads = [name for name in self.threads() if name.startswith("downloads-")]
            fds = self.fds()
            new = set(fds) - set(fds_before) if len(fds) > len(fds_before) else set()
            return threads + list(self.children().values()) + sorted(new)

        wait_until(lambda: not left(), deadline, lambda: f"left behind in Blender: {left()}")

    @property
    def console(self) -> str:
        """What Blender wrote to stdout and stderr, since `forget_console`."""
        return self.whole_console[self._told :]

    @property
    def whole_console(self) -> str:
        """What Blender wrote so far, in earlier starts with this folder too."""
        return _text_of(self._console)

    def forget_console(self) -> None:
        """What was written until now is no part of `console`: an earlier test did it."""
        self._told = len(self.whole_console)

    @property
    def last_words(self) -> str:
        """The end of the console, and the report of a crash, if there is one."""
        text = self.console
        cut = "…" if len(text) > SHOWN_CONSOLE else ""
        said = f"Blender {self.installation.label} wrote:\n{cut}{text[-SHOWN_CONSOLE:]}"
        crashes = [_text_of(path) for path in self.folder.glob("tmp/**/*.crash.txt")]
        return "\n".join([said, *crashes])

    # How it is done.

    @property
    def _console(self) -> Path:
        return self.folder / "console.txt"

    def _open_screen(self) -> None:
        new_screen = screen(self.installation, self.folder, self._size)
        self._screen_number = self._stack.enter_context(new_screen)
        self.display = Display(self._screen_number)
        self._stack.callback(self.display.close)

    def _start_process(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._received.clear()
        self._stack.callback(self._socket.close)
        environment = profile_environment(self.folder) | self._environment
        environment["DISPLAY"] = f":{self._screen_number}"
        environment["BLENDER_TEST_SOCKET"] = str(theirs.fileno())
        with theirs, self._console.open("ab") as console:
            self._process = subprocess.Popen(
                self.installation.command(self._command(), self._folders),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._stack.callback(self._end_processes)

    def _command(self) -> list[str | Path]:
        # Not `--python`: that leaves `__main__.__file__` set, which users' Blenders
        # do not have and which changes how child processes start.
        start = f"import runpy; runpy.run_path({str(HERE / 'driver.py')!r}, run_name='driver')"
        failing = ["--python-exit-code", str(DRIVER_FAILED)]
        return [self.installation.program, *self._options, *failing, "--python-expr", start]

    def _settle(self) -> None:
        self.wait("bool(bpy.context.window_manager.windows)", START_DEADLINE)
        self.run("draw_little()", START_DEADLINE)
        self.steps("pause(0)", START_DEADLINE)
        for identifier in self.enable:
            self.enable_extension(identifier)
        self._show()

    def _show(self) -> None:
        """Until all is drawn, with the mouse in the 3D View."""
        if self._simulate:
            self.steps("move(*middle(region_of(view3d())))", START_DEADLINE)
        self.steps("pause(0)", START_DEADLINE)

    def _end_processes(self) -> None:
        """Also what was orphaned: it is still in the session that Blender led."""
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        for pid in self._processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self._processes(), what=lambda: f"left over: {self._processes()}")

    def _processes(self) -> list[int]:
        return [pid for pid, session in _sessions() if session == self.pid]

    def _ask(self, kind: str, source: str, deadline: float) -> Any:
        self._number += 1
        request = json.dumps({"number": self._number, "kind": kind, "source": source}).encode()
        end = time.monotonic() + deadline
        try:
            self._socket.settimeout(deadline)
            self._socket.sendall(struct.pack("<I", len(request)) + request)
            answer = self._answer(end)
        except TimeoutError:
            text = f"no answer within {deadline:g} s to: {source}\n{self.last_words}"
            raise AssertionError(text) from None
        except OSError:
            raise self._gone() from None
        if "error" in answer:
            raise BlenderError(f"{answer['error']}\nin: {source}")
        return answer["value"] if kind != "run" else None

    def _answer(self, end: float) -> dict[str, Any]:
        """The answer to the last request; one that an earlier wait gave up on is dropped."""
        while True:
            size = struct.unpack("<I", self._read(4, end))[0]
            answer: dict[str, Any] = json.loads(self._read(size, end))
            if answer["number"] == self._number:
                return answer

    def _read(self, count: int, end: float) -> bytes:
        # What came stays in the buffer when the deadline passes in between.
        while len(self._received) < count:
            self._socket.settimeout(max(end - time.monotonic(), 0.001))
            piece = self._socket.recv(65536)
            if not piece:
                raise ConnectionError
            self._received += piece
        data = bytes(self._received[:count])
        del self._received[:count]
        return data

    def _gone(self) -> BlenderEndedError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(DEADLINE)
        code = self._process.poll()
        return BlenderEndedError(f"Blender has ended (exit code {code})\n{self.last_words}")


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


# Screens.


@contextmanager
def screen(installation: Installation, folder: Path, size: tuple[int, int] = SCREEN) -> Iterator[int]:
    """An X server without a picture tube; yields its number."""
    theirs, ours = os.pipe()
    width, height = size
    command: list[str | Path] = ["Xvfb", "-displayfd", str(ours), "-noreset", "+extension", "GLX"]
    command += ["-nolisten", "tcp", "-screen", "0", f"{width}x{height}x24"]
    with (folder / "xvfb.txt").open("ab") as log:
        process = subprocess.Popen(
            installation.command(command, [folder]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[ours],
            env={"PATH": PATH if installation.root else os.environ["PATH"]},
            start_new_session=True,
        )
    os.close(ours)
    try:
        yield _read_number(theirs, folder / "xvfb.txt")
    finally:
        os.close(theirs)
        process.terminate()
        _join_or_kill(process)


def _read_number(descriptor: int, log: Path) -> int:
    """The number that Xvfb writes, with a line end, once it accepts clients."""
    text = b""
    while not text.endswith(b"\n"):
        readable, _, _ = select.select([descriptor], [], [], START_DEADLINE)
        piece = os.read(descriptor, 16) if readable else b""
        if not piece:
            raise AssertionError(f"no X server: {log.read_text('utf-8', 'replace')}")
        text += piece
    return int(text)


def _join_or_kill(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# Profiles.


def make_profile(folder: Path, prepared: Path | None = None) -> None:
    """Makes the folders of a profile, or a copy of a prepared one; one that exists stays."""
    if prepared and not (folder / "home").exists():
        shutil.copytree(prepared, folder, dirs_exist_ok=True, symlinks=True)
    for name in ("home", "tmp", "blender"):
        (folder / name).mkdir(parents=True, exist_ok=True)


def profile_environment(folder: Path) -> dict[str, str]:
    """The environment of a Blender that has nothing to do with the user's own."""
    home = folder / "home"
    return {
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_DATA_HOME": str(home / ".local/share"),
        "TMPDIR": str(folder / "tmp"),
        "BLENDER_USER_RESOURCES": str(folder / "blender"),
        "LIBGL_ALWAYS_SOFTWARE": "1",
        # Compiling the shaders is most of a first start: 8 of 12 seconds.
        "MESA_SHADER_CACHE_DIR": str(cache_folder() / "shaders"),
    }


def run_command(
    installation: Installation, folder: Path, arguments: Sequence[str | Path], folders: Sequence[Path] = ()
) -> str:
    """Runs `blender --command …` without a window in this profile; what it wrote."""
    make_profile(folder)
    command = [installation.program, "--command", *arguments]
    done = subprocess.run(
        installation.command(command, [folder, PROJECT, cache_folder(), *folders]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=profile_environment(folder),
        timeout=START_DEADLINE,
    )
    assert done.returncode == 0, f"{command} gave {done.returncode}:\n{done.stdout}"
    return done.stdout


def build_extension(installation: Installation, source: Path, output: Path) -> Path:
    """Builds an extension's zip with Blender's own tool."""
    output.mkdir(parents=True, exist_ok=True)
    words: list[str | Path] = ["extension", "build", "--source-dir", source, "--output-dir", output]
    run_command(installation, output / "profile", words, [source, output])
    (built,) = output.glob("*.zip")
    return built


def extension_id(zip_path: Path) -> str:
    """The id that an extension's manifest gives it."""
    with zipfile.ZipFile(zip_path) as archive:
        return str(tomllib.loads(archive.read("blender_manifest.toml").decode())["id"])


def prepare_profile(installation: Installation, folder: Path, zip_path: Path) -> Path:
    """A profile in which an extension is installed and enabled, for `Blender(profile=…)`."""
    words: list[str | Path] = ["extension", "install-file", "-r", REPOSITORY, "--enable", zip_path]
    run_command(installation, folder, words, [zip_path.parent])
    return folder


def _options(factory: bool, online: bool | None, size: tuple[int, int]) -> list[str]:
    width, height = size
    options = ["--factory-startup"] if factory else []
    options += ["--gpu-backend", "opengl", "-setaudio", "None"]
    options += ["--window-geometry", "0", "0", str(width), str(height)]
    if online is not None:
        options.append("--online-mode" if online else "--offline-mode")
    return options


# Processes, from /proc: Blender need not be able to answer.


def _sessions() -> Iterator[tuple[int, int]]:
    """Every living process and the session that it is in."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # The name in brackets may hold anything; the numbers follow it.
            fields = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            if fields[0] not in "ZX":
                yield int(folder.name), int(fields[3])


def _command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""
