"""make run: three files, made by Blender, come from a server of our own through the extension.

With a screen and a Blender it opens the window instead, everything filled in.
URLS="…" and DIRECTORY=… take your own.
"""

import functools
import hashlib
import json
import os
import shlex
import signal
import socket
import socketserver
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

from blenders import Blender, build, module_blender, program_blender
from common import INTERRUPTED, ROOT, TOOLS, Trouble, clean_environment, main, say

PORT = 8000  # the manual's example
FILES = ("file-1.blend", "file-2.blend", "file-3.blend")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the scripts inside Blender are told."""

    zip: str
    urls: str
    directory: str
    if_exists: str
    outcome: str


def tool() -> int:
    directory = Path(os.environ.get("DIRECTORY") or ROOT / "downloads").absolute()
    window = _window_blender()
    blender = window or module_blender()
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="background-downloads-")))
        environment = clean_environment(
            BLENDER_USER_RESOURCES=str(temporary / "profile"),
            BACKGROUND_DOWNLOADS_PROGRESS="1",  # also where our output is not a terminal
        )
        (temporary / "profile").mkdir()
        urls = os.environ.get("URLS", "").strip()
        digests: dict[str, str] = {}
        if not urls:
            digests = _make_files(blender, temporary / "files", environment)
            port = stack.enter_context(_serving(temporary / "files"))
            urls = " ".join(_url(port, name, digest) for name, digest in digests.items())
            environment |= _without_proxy_to_ourselves(environment)
        task = Task(
            zip=str(build(blender, temporary / "zip")),
            urls=urls,
            directory=str(directory),
            # The example's own files may be written again, a user's may not.
            if_exists="OVERWRITE" if digests else "RENAME",
            outcome=str(temporary / "outcome.json"),
        )
        (temporary / "task.json").write_text(json.dumps(vars(task)))
        if window:
            return _open_window(window, temporary / "task.json", task, environment)
        return _download(blender, temporary / "task.json", task, environment, digests)


def _window_blender() -> Blender | None:
    has_screen = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if not has_screen:
        if os.environ.get("BLENDER"):
            say("There is no screen: downloading in the terminal, with Blender as a module.")
        return None
    found = program_blender()
    if not found:
        say("There is a screen but no Blender (BLENDER= or on the PATH): downloading in the terminal.")
    return found


def _make_files(blender: Blender, folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """The example's files, and the SHA-256 of each."""
    say(f"{blender.name} makes {', '.join(FILES)} …")
    folder.mkdir()
    command = blender.script(TOOLS / "inside" / "make_files.py", folder)
    code, said = _run(command, environment, shown=False)
    if not all((folder / name).exists() for name in FILES):
        raise Trouble(f"{blender.name} could not make the example's files (exit code {code}):\n{said}")
    return {name: _sha256(folder / name) for name in FILES}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _url(port: int, name: str, digest: str) -> str:
    return f"http://{_our_name()}:{port}/{name}#sha256={digest}"


def _our_name() -> str:
    """The manual says localhost; a bare container may not know that name."""
    try:
        socket.getaddrinfo("localhost", None, socket.AF_INET)
    except OSError:
        return "127.0.0.1"
    return "localhost"


def _without_proxy_to_ourselves(environment: dict[str, str]) -> dict[str, str]:
    """A proxy that the environment names has no way to this machine's localhost."""
    exempt = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    exempt = ",".join(filter(None, [exempt, "localhost", "127.0.0.1"]))
    return {"no_proxy": exempt, "NO_PROXY": exempt}


class _Server(socketserver.ThreadingTCPServer):
    # http.server's own would ask the name service who we are, and wait for it where there is no network.
    allow_reuse_address = True
    daemon_threads = True


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Says nothing: the terminal is for the download's progress."""


@contextmanager
def _serving(folder: Path) -> Iterator[int]:
    """Serve the folder on localhost, on port 8000 if it is free; yields the port."""
    handler = functools.partial(_Handler, directory=str(folder))
    with _bind(handler) as server:
        port: int = server.server_address[1]
        if port != PORT:
            say(f"Port {PORT} is taken, so the example is served on port {port}.")
        thread = threading.Thread(target=server.serve_forever, name="example-server")
        thread.start()
        try:
            yield port
        finally:
            server.shutdown()
            thread.join()


def _bind(handler: Any) -> _Server:
    if not _answers(PORT):
        try:
            return _Server(("127.0.0.1", PORT), handler)
        except OSError:
            pass  # taken, by someone who does not answer
    return _Server(("127.0.0.1", 0), handler)


def _answers(port: int) -> bool:
    """Someone else may have the port on localhost's other address only."""
    try:
        socket.create_connection(("localhost", port), timeout=1).close()
    except OSError:
        return False
    return True


def _open_window(blender: Blender, task_file: Path, task: Task, environment: dict[str, str]) -> int:
    say(f"Opening {blender.name} with a profile of its own. Click Download in the sidebar's Downloads tab.")
    script = TOOLS / "inside" / "window.py"
    command = [str(blender.program), "--python", str(script), "--", str(task_file)]
    try:
        code, _ = _run(command, environment, interrupt=signal.SIGTERM)  # a window ignores SIGINT
    except KeyboardInterrupt:
        say("\nBlender was closed.")
        return INTERRUPTED
    say(f"Blender has ended. What was downloaded is in {task.directory}.")
    return 1 if code else 0


def _download(
    blender: Blender, task_file: Path, task: Task, environment: dict[str, str], digests: dict[str, str]
) -> int:
    say(f"{blender.name} downloads {_counted(task.urls.split())} to {task.directory} …")
    command = blender.script(TOOLS / "inside" / "download.py", task_file)
    try:
        code, _ = _run(command, environment)
    except KeyboardInterrupt:
        say(f"\nCancelled. What can be resumed is kept in {task.directory}.")
        return INTERRUPTED
    if not Path(task.outcome).exists():
        raise Trouble(f"{blender.name} ended with code {code} before it could say what was downloaded.")
    outcome = json.loads(Path(task.outcome).read_text())
    items = outcome["items"]
    for item in items:
        say(f"  {item['status'].lower():9} {item['filepath'] or item['name']}")
    # Why each one failed has been said by Blender itself, above.
    if failed := [item for item in items if item["status"] == "FAILED"]:
        raise Trouble(f"{len(failed)} of {_counted(items)} could not be downloaded.")
    if outcome["error"]:
        raise Trouble(outcome["error"])
    return _check(Path(task.directory), digests) if digests else 0


def _check(directory: Path, digests: dict[str, str]) -> int:
    """Looks at the files themselves: the extension is not asked whether it was right."""
    for name, digest in digests.items():
        path = directory / name
        if not path.is_file():
            raise Trouble(f"{path} is not there, although the download ended well.")
        if _sha256(path) != digest:
            raise Trouble(f"{path} is not what the server has: its SHA-256 differs.")
    say(f"{', '.join(digests)} are in {directory}, and their SHA-256 digests hold.")
    say("To open one: blender " + shlex.quote(str(directory / FILES[0])))
    return 0


def _counted(things: Sequence[str]) -> str:
    return "1 file" if len(things) == 1 else f"{len(things)} files"


def _run(
    command: list[str],
    environment: dict[str, str],
    *,
    shown: bool = True,
    interrupt: signal.Signals = signal.SIGINT,
) -> tuple[int, str]:
    """Run it in a process group of its own, so that Ctrl-C reaches it exactly once: through us.

    A second SIGINT would kill Blender before it could leave in good order.
    """
    output = None if shown else subprocess.PIPE
    child = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if shown else subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    try:
        said, _ = child.communicate()
    except BaseException as stopped:
        _end(child, interrupt if isinstance(stopped, KeyboardInterrupt) else signal.SIGTERM)
        raise
    return child.returncode, said or ""


def _end(child: subprocess.Popen[str], word: signal.Signals) -> None:
    for asked in (word, word, signal.SIGKILL):
        child.send_signal(asked)
        try:
            child.wait()
            return
        except KeyboardInterrupt:
            continue  # asked once more
    child.wait()


if __name__ == "__main__":
    main(tool)
