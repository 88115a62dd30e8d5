"""Fixtures of the tests in a real window; each runs once for every Blender version."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import roots
from blender import (
    PROJECT,
    Blender,
    BlenderFactory,
    build_extension,
    extension_id,
    prepare_profile,
)
from roots import Installation

LIVE = pytest.StashKey[list[Blender]]()

# Cancels what runs and empties the list, where the extension has one.
CLEAN = """
def clean_downloads():
    downloads = getattr(bpy.context.window_manager, "downloads", None)
    while downloads and len(downloads.items):
        with in_view3d():
            if bpy.ops.downloads.cancel.poll():
                bpy.ops.downloads.cancel(uid=downloads.items[0].uid)
            bpy.ops.downloads.remove(uid=downloads.items[0].uid, delete_partial=True)
        yield
"""


@pytest.fixture(scope="session", params=roots.wanted_labels())
def installation(request: pytest.FixtureRequest) -> Installation:
    """A Blender of this version, or a skip that says why there is none."""
    found, notes = roots.find()
    if request.param not in found:
        pytest.skip(notes.get(request.param, f"Blender {request.param} is not here"))
    return found[request.param]


@pytest.fixture(scope="session")
def extension_zip(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension under test; a module may have one of its own."""
    given = os.environ.get("BACKGROUND_DOWNLOADS_ZIP")
    if given:
        return Path(given).resolve()
    return build_extension(installation, PROJECT, tmp_path_factory.mktemp("zip"))


@pytest.fixture(scope="module")
def prepared_profile(
    installation: Installation, extension_zip: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A profile that has the extension installed and enabled, to be copied."""
    return prepare_profile(installation, tmp_path_factory.mktemp("profile"), extension_zip)


@pytest.fixture(scope="module")
def start_blender(
    installation: Installation,
    extension_zip: Path,
    prepared_profile: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> BlenderFactory:
    """Starts a Blender that has the extension enabled; the caller closes it."""
    shared = [Path(tempfile.gettempdir()), tmp_path_factory.getbasetemp(), extension_zip.parent]

    def start(folder: Path | None = None, *, extension: bool = True, **options: object) -> Blender:
        if extension:
            options = {"profile": prepared_profile, "enable": [extension_id(extension_zip)]} | options
        folder = folder or tmp_path_factory.mktemp("b")
        return Blender(installation, folder, folders=shared, **options).start()  # type: ignore[arg-type]

    return start


@pytest.fixture
def blender_factory(
    request: pytest.FixtureRequest, start_blender: BlenderFactory
) -> Iterator[BlenderFactory]:
    """`blender_factory(**options)` starts a Blender for this test alone.

    The options are those of `Blender`; `folder=b.folder` starts again in the
    profile of one that ended, `extension=False` leaves the extension out.
    """
    with ExitStack() as stack:

        def start(folder: Path | None = None, **options: object) -> Blender:
            b = start_blender(folder, **options)
            stack.callback(b.close)
            _watch(request, b)
            return b

        yield start


@pytest.fixture(scope="module")
def shared_blender(start_blender: BlenderFactory) -> Iterator[Blender]:
    """A Blender that is online and that all tests of a module use; see `blender`."""
    b = start_blender(online=True)
    b.run(CLEAN)
    yield b
    b.close()


@pytest.fixture
def blender(request: pytest.FixtureRequest, shared_blender: Blender) -> Iterator[Blender]:
    """The module's Blender as if new, and a check that the test leaves nothing in it."""
    b = shared_blender
    _watch(request, b)
    b.reset()
    before = b.fds()
    yield b
    b.steps("clean_downloads()")
    b.check_nothing_left(before)


# A failed test shows what Blender wrote and how it looked.


def _watch(request: pytest.FixtureRequest, b: Blender) -> None:
    request.node.stash.setdefault(LIVE, []).append(b)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.failed:
        for b in item.stash.get(LIVE, []):
            title = f"Blender {b.installation.label}, {call.when}"
            report.sections.append((title, f"{b.console}\n{_last_picture(b)}"))
    return report


def _last_picture(b: Blender) -> str:
    try:
        return f"picture: {b.picture(b.folder / 'failed.png')}"
    except Exception as error:  # The picture is a help, not a test.
        return f"no picture: {error}"
