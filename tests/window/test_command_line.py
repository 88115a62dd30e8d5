"""`blender --command downloads …` by real Blenders: output, exit code, Ctrl-C."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from blender import PROJECT, profile_environment, wait_until
from roots import Installation, cache_folder
from server import Gate, Server, pattern, stall_after

BODY = pattern(300_000)
HELD = 200_000  # bytes of an answer that then stalls
Command = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def command(installation: Installation, prepared_profile: Path, tmp_path: Path) -> Command:
    """Starts Blender's command in a profile that has the extension."""
    profile = tmp_path / "profile"
    shutil.copytree(prepared_profile, profile, symlinks=True)

    def start(*words: object) -> subprocess.Popen[str]:
        line = [installation.program, "--online-mode", "--command", "downloads", *map(str, words)]
        return subprocess.Popen(
            installation.command(line, [tmp_path, profile, PROJECT, cache_folder()]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=profile_environment(profile),
        )

    return start


def test_files_come_and_the_exit_code_says_so(command: Command, server: Server, tmp_path: Path) -> None:
    url = server.add("/a.bin", body=BODY)
    blender = command("--directory", tmp_path / "files", url)
    out, err = blender.communicate(timeout=100)
    assert blender.returncode == 0, err
    assert str(tmp_path / "files" / "a.bin") in out.splitlines()
    assert (tmp_path / "files" / "a.bin").read_bytes() == BODY
    blender = command("--directory", tmp_path / "files", server.url("/missing.bin"))
    _, err = blender.communicate(timeout=100)
    assert blender.returncode == 1
    assert "There is no file at this link (404)" in err


def test_ctrl_c_keeps_what_was_received(command: Command, server: Server, gate: Gate, tmp_path: Path) -> None:
    url = server.add("/a.bin", stall_after(HELD, gate), body=BODY)
    blender = command("--directory", tmp_path / "files", url)
    gate.wait_reached()
    wait_until(lambda: _written(tmp_path / "files") >= HELD, what="what was sent, on the disk")
    blender.send_signal(signal.SIGINT)
    blender.communicate(timeout=100)
    assert blender.returncode == 130
    assert [path.suffix for path in sorted((tmp_path / "files").iterdir())] == [".part", ".json"]


def _written(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.part"))
