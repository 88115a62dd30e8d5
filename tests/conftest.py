"""What all tests share: the package without Blender, the server, the leak check.

Helpers beside this file are imported by their plain name: `from server import Server`.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent

if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

from journal import Journal  # noqa: E402
from leaks import LeakCheck  # noqa: E402
from server import Certificates, Gate, Server, make_certificates  # noqa: E402
from systems import skip_what_cannot_run  # noqa: E402

PLAYS_WINDOWS = bool(os.environ.get("PLAY_WINDOWS"))


def _stub_package() -> None:
    """Make `from background_downloads.transfer import names` work without Blender.

    The project's folder may have any name, and its `__init__.py` imports bpy: so the package is an
    empty one that only knows where its modules are. So is `session`, of which some modules need no bpy.
    """
    for name, folder in (("background_downloads", ROOT), ("background_downloads.session", ROOT / "session")):
        if name not in sys.modules:
            package = types.ModuleType(name)
            package.__path__ = [str(folder)]
            sys.modules[name] = package


_stub_package()


def _is_checked(path: Path) -> bool:
    """The tests of the engine and of the server; tests in a window or a wheel look for leaks inside."""
    return path.parent.name in ("engine", "fuzz") or path == TESTS / "test_server.py"


def pytest_configure(config: pytest.Config) -> None:
    if journal := os.environ.pop("TEST_JOURNAL", ""):  # not for a pytest that a test starts
        config.pluginmanager.register(Journal(Path(journal)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip_what_cannot_run(items, plays_windows=PLAYS_WINDOWS)


@pytest.fixture(autouse=True)
def leak_check(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing may be left behind, and nothing around us may change where a request goes."""
    if not _is_checked(request.path):
        yield
        return
    _forget_environment(monkeypatch)
    if PLAYS_WINDOWS:
        import windows_rules

        windows_rules.play(monkeypatch)
    with LeakCheck():
        yield


def _forget_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"):
            monkeypatch.delenv(name)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def gate(server: Server) -> Gate:
    """Where the server's answers wait until the test lets them go on; it opens when the server ends."""
    return server.gate()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if made := os.environ.get("TEST_CERTIFICATES"):  # where cryptography does not run
        return Certificates.in_folder(Path(made))
    pytest.importorskip("cryptography", reason="cryptography makes the certificates of the tests")
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def tls_server(certificates: Certificates) -> Iterator[Server]:
    """For https; clients trust `certificates.ca`."""
    with Server(tls=certificates.good) as running:
        yield running
