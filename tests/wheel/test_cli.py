"""`blender --command downloads`, as Blender calls it: what is printed where, and the exit code."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import bpy
import pytest
from leaks import LeakCheck
from server import Server, pattern

if TYPE_CHECKING:
    from conftest import Extension

Run = Callable[..., int]
BODY = pattern(100_000)


@pytest.fixture
def run(extension: Extension) -> Iterator[Run]:
    cli = importlib.import_module(f"{extension.package}.session.cli")
    with LeakCheck():
        yield lambda *arguments: cli.run([str(argument) for argument in arguments])
    assert [thread.name for thread in threading.enumerate() if "downloads-" in thread.name] == []


def test_paths_go_to_the_output_and_the_exit_code_is_0(
    run: Run, server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    urls = [server.add(f"/{name}", body=BODY) for name in ("a.bin", "b.bin")]
    assert run("--directory", tmp_path, *urls) == 0
    out, err = capfd.readouterr()
    assert sorted(out.splitlines()) == [str(tmp_path / "a.bin"), str(tmp_path / "b.bin")]
    assert err == ""
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_what_failed_is_told_without_secrets_and_the_exit_code_is_1(
    run: Run, server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good = server.add("/a.bin", body=BODY)
    missing = server.url("/missing.bin?key=secret")
    assert run("--directory", tmp_path, good, missing) == 1
    out, err = capfd.readouterr()
    assert out.splitlines() == [str(tmp_path / "a.bin")]
    assert "/missing.bin: There is no file at this link (404)" in err
    assert "secret" not in out + err


def test_json_tells_each_end_in_a_line(
    run: Run, server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good = server.add("/gr%C3%B6%C3%9Fe.bin", body=BODY)
    assert run("--json", "--directory", tmp_path, good, server.url("/missing.bin")) == 1
    out, _ = capfd.readouterr()
    told = [json.loads(line) for line in out.splitlines()]
    ends = {event["event"]: event for event in told if event["event"] != "progress"}
    assert ends["finished"]["path"] == str(tmp_path / "größe.bin")
    assert ends["finished"]["size"] == len(BODY)
    assert "404" in ends["failed"]["error"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])  # the others as on Windows
def test_a_dash_reads_links_from_the_input(
    run: Run, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    digest = hashlib.sha256(BODY).hexdigest()
    urls = [server.add("/a.bin", body=BODY) + f"#sha256={digest}", server.add("/b.bin", body=BODY)]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(urls).encode(encoding))))
    assert run("--directory", tmp_path, "-") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "b.bin"]


def test_what_is_no_text_spoils_its_own_link_alone(
    run: Run, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = f"{server.url('/')}r".encode() + b"\xf6ck.bin\n" + server.add("/a.bin", body=BODY).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given), encoding="utf-8"))
    assert run("--directory", tmp_path, "-") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_what_is_there_already_counts_as_there(run: Run, server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"mine")
    url = server.add("/a.bin", body=BODY)
    assert run("--directory", tmp_path, "--if-exists", "skip", url) == 0
    assert (tmp_path / "a.bin").read_bytes() == b"mine"


def test_no_more_connections_than_jobs(run: Run, server: Server, tmp_path: Path) -> None:
    urls = [server.add(f"/{number}.bin", body=BODY) for number in range(6)]
    assert run("--directory", tmp_path, "--jobs", 1, *urls) == 0
    assert server.connections.peak == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "Exit code: 0 if all are there"),
        ([], 2, "URL"),
        (["--jobs", "0", "http://a/b"], 2, "a number from 1 to 256"),
        (["--limit", "fast", "http://a/b"], 2, "bytes a second, such as 500k"),
        (["--limit", "0", "http://a/b"], 2, "bytes a second, such as 500k"),
        (["--if-exists", "never", "http://a/b"], 2, "invalid choice"),
        (["ftp://example.org/a"], 1, "ftp://example.org/a"),
        (["http://localhost/a#sha256=12"], 1, "checksum"),
        (["--directory", "relative", "http://localhost/a"], 1, "no whole path"),
    ],
)
def test_wrong_use_is_said_and_asks_nobody(
    run: Run, arguments: list[str], code: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == code
    assert said in " ".join("".join(capfd.readouterr()).split())


@pytest.mark.parametrize(
    ("rate", "expected"), [("500", 500), ("500k", 500_000), ("2M", 2_000_000), ("1.5MiB/s", 1_572_864)]
)
def test_a_rate_is_written_as_people_write_it(extension: Extension, rate: str, expected: int) -> None:
    cli = importlib.import_module(f"{extension.package}.session.cli")
    options = cli._parser().parse_args(["--limit", rate, "http://a/b"])
    assert cli._settings(options).speed_limit == expected


def test_offline_it_names_the_option(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    system = bpy.context.preferences.system
    system.use_online_access = False
    try:
        assert run("http://localhost/a.bin") == 1
    finally:
        system.use_online_access = True
    assert "--online-mode" in capfd.readouterr().err
