"""Fixtures of the tests in a real window; each runs once for every Blender version."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import roots
from blender import PROJECT, Blender, BlenderFactory, build_extension, extension_id, prepare_profile
from downloading import MODULE, wait_open
from roots import Installation

LIVE = pytest.StashKey[list[Blender]]()
FAILED = pytest.StashKey[bool]()
SMALL = (800, 600)  # pixels; tests that look at the sidebar want more
PIXELS = bool(os.environ.get("PIXELS"))
"""Whether Blenders work out the pixels that they draw; otherwise those do whose test looks at them."""

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


@pytest.fixture(scope="session")
def profiles() -> dict[tuple[str, Path], Path]:
    """Profiles that are prepared, by Blender's version and the extension that is in them."""
    return {}


@pytest.fixture(scope="module")
def prepared_profile(
    installation: Installation,
    extension_zip: Path,
    profiles: dict[tuple[str, Path], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A profile that has the extension installed and enabled, to be copied."""
    key = installation.label, extension_zip
    if key not in profiles:
        profiles[key] = prepare_profile(installation, tmp_path_factory.mktemp("profile"), extension_zip)
    return profiles[key]


@pytest.fixture(scope="module")
def window_size() -> tuple[int, int]:
    """Small, where a module wants no other."""
    return SMALL


@pytest.fixture(scope="module")
def start_blender(
    installation: Installation,
    extension_zip: Path,
    prepared_profile: Path,
    window_size: tuple[int, int],
    tmp_path_factory: pytest.TempPathFactory,
) -> BlenderFactory:
    """Starts a Blender that has the extension enabled; the caller closes it."""
    shared = [Path(tempfile.gettempdir()), tmp_path_factory.getbasetemp(), extension_zip.parent]

    def start(folder: Path | None = None, *, extension: bool = True, **options: object) -> Blender:
        if extension:
            options = {"profile": prepared_profile, "enable": [extension_id(extension_zip)]} | options
        options = {"folders": shared, "size": window_size, "pixels": PIXELS} | options
        folder = folder or tmp_path_factory.mktemp("b")
        return Blender(installation, folder, **options).start()  # type: ignore[arg-type]

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


class Lent:
    """Blenders that one test after the other has; a failed test's, or one that ended, is not lent again."""

    def __init__(self) -> None:
        self._blenders: dict[Hashable, Blender] = {}

    @contextmanager
    def lend(
        self,
        request: pytest.FixtureRequest,
        key: Hashable,
        start: Callable[[], Blender],
        *,
        new: bool = False,
    ) -> Iterator[Blender]:
        """One that was lent with this key before, or a new one."""
        b = (None if new else self._blenders.pop(key, None)) or start()
        with ExitStack() as closing:
            closing.callback(b.close)
            b.wake()
            _watch(request, b)
            yield b
            if b.alive and not has_failed(request):
                b.rest()
                closing.pop_all()
                self._blenders[key] = b

    def close(self) -> None:
        """After its day each of them quits in good order."""
        with ExitStack() as closing:
            for b in self._blenders.values():
                closing.callback(b.close)
                closing.callback(_quit, b)


def _quit(b: Blender) -> None:
    b.wake()
    assert b.quit() == 0, b.last_words


@pytest.fixture(scope="session")
def lent() -> Iterator[Lent]:
    lent = Lent()
    yield lent
    lent.close()


@pytest.fixture
def blender(
    request: pytest.FixtureRequest,
    lent: Lent,
    installation: Installation,
    extension_zip: Path,
    window_size: tuple[int, int],
    start_blender: BlenderFactory,
) -> Iterator[Blender]:
    """A Blender that is online, as if new, and a check that the test leaves nothing in it."""
    key = installation.label, extension_zip, window_size
    with lent.lend(request, key, lambda: start_blender(online=True)) as b:
        if MODULE in b.eval("bpy.context.preferences.addons.keys()"):
            wait_open(b)
        b.reset()
        b.run(CLEAN)
        before = b.fds()
        yield b
        if not has_failed(request):
            b.steps("clean_downloads()")
            b.check_nothing_left(before)


@pytest.fixture
def rough_blender(
    request: pytest.FixtureRequest, lent: Lent, installation: Installation, start_blender: BlenderFactory
) -> Iterator[Blender]:
    """One for what the others are spared: tests that leave something of Blender's own in it."""
    key = installation.label, "rough"
    with lent.lend(request, key, lambda: start_blender(online=True)) as b:
        b.reset()
        b.run(CLEAN)
        yield b
        if not has_failed(request):
            b.steps("clean_downloads()")


@pytest.fixture
def mortal_blender(
    request: pytest.FixtureRequest, lent: Lent, installation: Installation, start_blender: BlenderFactory
) -> Iterator[Callable[..., Blender]]:
    """`mortal_blender()` is one that a test may end, started as users do; `mortal_blender(b.folder)`
    is it again. The one that lives at the end is the next test's.
    """
    with ExitStack() as stack:

        def start(folder: Path | None = None) -> Blender:
            def anew() -> Blender:
                return start_blender(folder, online=True, factory=False, enable=[])

            key = installation.label, "mortal"
            b = stack.enter_context(lent.lend(request, key, anew, new=folder is not None))
            if not folder:
                b.run(CLEAN)
                b.steps("clean_downloads()")
                b.reset()
            return b

        yield start


# A failed test shows what Blender wrote meanwhile and how it looked.


def _watch(request: pytest.FixtureRequest, b: Blender) -> None:
    b.forget_console()
    request.node.stash.setdefault(LIVE, []).append(b)


def has_failed(request: pytest.FixtureRequest) -> bool:
    """Whether a test has, so far; what it leaves is no news then."""
    return request.node.stash.get(FAILED, False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
        for b in item.stash.get(LIVE, []):
            title = f"Blender {b.installation.label}, {call.when}"
            report.sections.append((title, f"{b.last_words}\n{_last_picture(b)}"))
    return report


def _last_picture(b: Blender) -> str:
    if not b.pixels:
        return "no picture; with PIXELS=1 there is one"
    try:
        return f"picture: {b.picture(b.folder / 'failed.png')}"
    except Exception as error:  # The picture is a help, not a test.
        return f"no picture: {error}"
