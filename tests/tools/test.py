"""make test: every suite that can run here, then what ran, what could not and why, then one line of counts.

SUITE="engine wheel window windows" picks some of them, PYTEST_ARGS="-k name" is handed to each pytest;
SUITE=matrix, which is not among them, tests imports in more versions of Blender. Where SUITE names nothing,
only what differs there is tested of Windows, and of the engine with the oldest requests. SUITE=played is that
part of Windows' suite which plays its rules for files on Linux, SUITE=windows-3.11 the engine's on the Python
of Blender 4.2 to 5.0. Under Wine a file has a Python of its own; what each came to is said at once, and in a
table.

Suites run side by side, long ones in parts: a lane that is free takes the next one, so that all end at about
one time. What is ready begins while the rest is being set up.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from textwrap import shorten

from common import ROOT, Trouble, apt_ensure, cache_folder, clean_environment, main, say

sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "window")]
import journal
from roots import wanted_labels
from venvs import BLENDER_VERSIONS, MATRIX, blender_venv, engine_venv, find_python, matrix_venv
from wine import BLENDERS, own_windows
from wine import set_up as set_up_wine

KINDS = ("engine", "wheel", "window", "windows")
ALSO = ("matrix", "played", "windows-3.11")  # whole only where they are asked for
ENGINE_TESTS = ("tests/engine", "tests/fuzz", "tests/test_server.py")
ALIKE = (  # files to which the version of Python and requests makes little difference; SUITE=engine runs all
    *("test_catalogs", "test_chaos", "test_content", "test_crash", "test_hosts", "test_house", "test_kill"),
    *(
        "test_links",
        "test_lists",
        "test_model",
        "test_names",
        "test_properties",
        "test_segments",
        "test_server",
    ),
    *("test_store", "test_words"),
)
SYSTEM_TESTS = (
    "tests/engine/test_windows.py tests/engine/test_portable.py"
    " tests/engine/test_child.py::test_it_starts_from_any_folder_and_whichever_program_blender_names"
    " tests/engine/test_child.py::test_a_child_that_is_still_starting_ends_with_blender"
)
WINDOWS_PART = {  # by Python
    "3.13": (
        f"{SYSTEM_TESTS} tests/engine/test_part.py tests/engine/test_survey.py",
        "tests/wheel/test_executed.py tests/wheel/test_folders.py",
    ),
    "3.11": (SYSTEM_TESTS,),
}
WINDOWS_PYTHONS = {"3.13": "windows", "3.11": "windows-3.11"}  # each with the suite that is all of it
LONG = ("test_faults", "test_hosts", "test_segments")  # under Wine
LANES = 4  # parts of suites run side by side, on two cores: much of it is waiting
PARTS = {  # the files of a suite that are taken out of it to run beside it; together what shares a Blender
    "engine": (LONG,),
    "window": (("test_autosave", "test_clicks", "test_dialog", "test_import", "test_panel"),),
}
PLAYED_PART = (
    *("tests/engine/test_part.py", "tests/engine/test_resume.py", "tests/engine/test_store.py"),
    *("tests/engine/test_crash.py::test_any_operation_may_fail", "tests/engine/test_survey.py"),
)

# Seconds after which a suite hangs for sure; each test has a deadline of its own in pyproject.toml.
# Under Wine for each file.
DEADLINE = {"engine": 2400, "wheel": 1200, "window": 4200, "matrix": 1200, "played": 2400, "wine": 1800}
ROOTS_DEADLINE = 1200  # seconds; the first time it fetches two Debian systems
LAST_WORDS = 10  # seconds for a killed suite to say where it hung

PLAYED_NAME = "engine, Windows' rules for files played on Linux"
OLD_REQUESTS = "Python 3.11 with requests 2.27, as in Blender 4.2"
HARNESS_TESTS = "tests/window/test_harness.py"
PEERS = {  # the package by its command
    "curl": "curl",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.exfat": "exfatprogs",
    "mkfs.ext4": "e2fsprogs",
    "mount.exfat-fuse": "exfat-fuse",
    "nginx": "nginx-light",
    "openssl": "openssl",
    "setpriv": "util-linux",
    "squid": "squid",
}

NOTHING_MORE: Mapping[str, str] = {}
FAILURE_SHOWN = 300  # characters
NOTHING_COLLECTED = 5  # pytest's exit code


@dataclass(frozen=True, kw_only=True)
class Suite:
    kind: str
    name: str
    python: Path
    tests: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    windows: str = ""
    """Which of Windows' Pythons runs it under Wine."""


@dataclass(kw_only=True)
class Result:
    name: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0
    failures: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def fail(self, why: str) -> None:
        self.failed += 1
        self.failures.append(why)

    def add(self, other: "Result") -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.seconds += other.seconds
        self.failures += other.failures
        self.reasons += other.reasons

    @property
    def counts(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


class Report:
    """What is known so far. Parts of suites run side by side; each prints its output whole."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self.results: list[Result] = []
        self.could_not: list[str] = []

    def add(self, result: Result, output: str) -> None:
        """What a suite came to, or one of its parts."""
        with self._lock:
            whole = next((each for each in self.results if each.name == result.name), None)
            if whole:
                whole.add(result)
            else:
                self.results.append(result)
            say(f"\n════ {result.name} ════\n{output.rstrip()}")

    def add_missing(self, sentences: Iterable[str]) -> None:
        with self._lock:
            self.could_not += sentences

    def finish(self) -> int:
        """The summary; its last line is the counts."""
        total = Result(name="all")
        if not self.results:
            total.fail("No suite could run.")
        say("\n════ Summary ════\nWhat ran:")
        for result in self.results:
            say(f"  {result.name}: {result.counts} ({result.seconds:.0f} s)")
        _list("What could not run:", self.could_not)
        skips = [(reason, n, r.name) for r in self.results for reason, n in r.reasons.items()]
        _list("Skipped:", [f"{reason}{_times(n)} ({name})" for reason, n, name in skips])
        failures = [f"{why} ({r.name})" for r in self.results for why in r.failures]
        _list("Failed:", [*total.failures, *failures])
        for result in self.results:
            total.passed += result.passed
            total.failed += result.failed
            total.skipped += result.skipped
        if not total.passed and not total.failed:
            total.fail("No test ran.")
            say("No test ran.")
        if summary_file := os.environ.get("SUMMARY_FILE"):
            Path(summary_file).write_text(total.counts + "\n")
        say(f"It took {time.monotonic() - self._began:.0f} s.")
        say(total.counts)
        return 1 if total.failed else 0


def _list(title: str, sentences: Sequence[str]) -> None:
    if sentences:
        say(title, *sentences, sep="\n  ")


def _times(number: int) -> str:
    return f" ({number} times)" if number > 1 else ""


def tool() -> int:
    report, running, work = Report(), Running(), Work()
    lanes = [threading.Thread(target=_run_lane, args=(work, running, report)) for _ in range(LANES)]
    idle = iter(lanes)
    try:
        for suites in _suites(_chosen_kinds(), running, report):
            work.add(suites)
            for lane in islice(idle, LANES // 2):  # the others are for what is being set up yet
                lane.start()
        work.close()
        for lane in idle:
            lane.start()
        for lane in lanes:
            lane.join()
    finally:
        # Also on Ctrl-C: nothing that was started here goes on.
        running.stop()
        work.close()
        for lane in lanes:
            if lane.ident:  # it was started
                lane.join()
    return report.finish()


class Work:
    """Parts of suites that wait to be run, while more are being set up."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[tuple[bool, int], Suite]] = []
        self._is_whole = False

    def add(self, suites: Iterable[Suite]) -> None:
        """A part of each suite, the longest first, then another of each; those in one part come last."""
        parts = [_parts(suite) for suite in suites]
        with self._changed:
            self._waiting += [((len(each) == 1, at), part) for each in parts for at, part in enumerate(each)]
            self._waiting.sort(key=lambda pair: pair[0])
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing will be added any more."""
        with self._changed:
            self._is_whole = True
            self._changed.notify_all()

    def take(self) -> Suite | None:
        """The next one, when there is one; nothing once all were taken."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_whole)
            return self._waiting.pop(0)[1] if self._waiting else None


def _parts(suite: Suite) -> list[Suite]:
    """What of it may run side by side: most of its files, and those that were taken out."""
    taken = PARTS.get(suite.kind)
    if not taken:
        return [suite]
    files = [file for name in suite.tests for file in _files(ROOT / name)]
    apart = [[file for file in files if file.stem in stems] for stems in taken]
    rest = [file for file in files if not any(file in part for part in apart)]
    tests = [[str(file.relative_to(ROOT)) for file in part] for part in (rest, *apart)]
    return [replace(suite, tests=part) for part in tests if part]


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("test_*.py")) if path.is_dir() else [path]


def _chosen_kinds() -> list[str]:
    chosen = os.environ.get("SUITE", "").replace(",", " ").split() or list(KINDS)
    for kind in chosen:
        if kind not in KINDS + ALSO:
            raise Trouble(f"SUITE={kind} is unknown; there are {', '.join(KINDS + ALSO)}.")
    return chosen


def _suites(kinds: Sequence[str], running: "Running", report: Report) -> Iterator[list[Suite]]:
    """All suites that can run here, some as soon as they can: windows and Wine take minutes to set up.

    What is missing is noted, what cannot be set up has failed.
    """
    environments = _environments(kinds, report)
    _ensure_peers(report)
    python = next(iter(environments.values()), None)
    yield [*_without_windows(kinds, environments), *(_matrix(report) if "matrix" in kinds else [])]
    if "window" in kinds and python:
        _prepare_windows(running, report)
        yield _windows(python)
    for version in WINDOWS_PYTHONS:
        if python and (WINDOWS_PYTHONS[version] in kinds or not _is_whole()):
            yield _under_wine(python, version, report)


def _without_windows(kinds: Sequence[str], environments: Mapping[str, Path]) -> list[Suite]:
    suites = []
    if "engine" in kinds:
        suites += [
            Suite(kind="engine", name=f"engine, {name}", python=python, tests=_engine_tests(name))
            for name, python in environments.items()
            # Both Pythons and both requests are covered without their third combination.
            if not (name == "Python 3.11" and OLD_REQUESTS in environments and "Python 3.13" in environments)
        ]
    if "wheel" in kinds:
        suites += [
            Suite(
                kind="wheel",
                name=f"wheel, Blender {blender} (Python {version})",
                python=environments[f"Python {version}"],
                tests=["tests/wheel"],
            )
            for version, blender in BLENDER_VERSIONS.items()
            if f"Python {version}" in environments
        ]
    if environments and not {"windows", "played"}.isdisjoint(kinds):
        python = next(iter(environments.values()))
        tests = ENGINE_TESTS[:1] if _is_whole() else PLAYED_PART
        rules = {"PLAY_WINDOWS": "1"}
        suites.append(Suite(kind="played", name=PLAYED_NAME, python=python, tests=tests, environment=rules))
    return suites


def _engine_tests(name: str) -> Sequence[str]:
    """All, but once where the versions make no difference."""
    if _is_whole() or name != OLD_REQUESTS:
        return ENGINE_TESTS
    files = (file for tests in ENGINE_TESTS for file in _files(ROOT / tests))
    return [str(file.relative_to(ROOT)) for file in files if file.stem not in ALIKE]


def _is_whole() -> bool:
    """Whether suites were asked for by name: not a part of them, then."""
    return bool(os.environ.get("SUITE"))


def _under_wine(python: Path, version: str, report: Report) -> list[Suite]:
    """Windows' own Python."""
    blender = f" and Blender {BLENDERS[version]}" if BLENDERS[version] else ""
    name = f"windows, Python {version}{blender} under Wine"
    try:
        set_up_wine(python, version)
    except Trouble as trouble:
        report.add_missing([f"{name}: {trouble}"])
        return []
    files = _files_for_windows() if _is_whole() else WINDOWS_PART[version]
    tests = files if blender else [file for file in files if file != "tests/wheel"]
    return [Suite(kind="wine", name=name, python=python, tests=tests, windows=version)]


def _matrix(report: Report) -> list[Suite]:
    """Imports in every other Blender that can be had as a module."""
    suites = []
    for blender, version in MATRIX.items():
        name = f"imports, Blender {blender} (Python {version})"
        try:
            python = matrix_venv(blender)
        except Trouble as trouble:
            report.add_missing([f"{name}: {trouble}"])
        else:
            suites.append(
                Suite(kind="matrix", name=name, python=python, tests=["tests/wheel/test_import.py"])
            )
    return suites


def _files_for_windows() -> list[str]:
    """Every file of the engine's and the wheel's suites, long ones first; the wheel's share a Blender."""
    folders = ("engine", "fuzz")
    files = [path for folder in folders for path in (ROOT / "tests" / folder).glob("test_*.py")]
    files.sort(key=lambda path: (path.stem not in LONG, path.stem))
    return ["tests/wheel", *(str(path.relative_to(ROOT)) for path in files), "tests/test_server.py"]


def _ensure_peers(report: Report) -> None:
    """Programs that some tests compare with; those skip without them."""
    try:
        apt_ensure(PEERS)
    except Trouble as trouble:
        report.add_missing([f"Tests that use {', '.join(PEERS)}: {trouble}"])


def _environments(kinds: Sequence[str], report: Report) -> dict[str, Path]:
    """The environments' Pythons by name, made if need be."""
    makers = {f"Python {version}": (version, blender_venv) for version in BLENDER_VERSIONS}
    if "engine" in kinds:
        makers[OLD_REQUESTS] = ("3.11", lambda _: engine_venv())
    found = {}
    for name, (version, make) in makers.items():
        if not find_python(version):
            why = f"no Python {version} on the PATH or under pyenv"
            report.add_missing([f"The suites on {name}: {why}"])
            continue
        try:
            found[name] = make(version)
        except Trouble as trouble:
            result = Result(name=name)
            result.fail(str(trouble))
            report.add(result, str(trouble))
    return found


def _run_lane(work: Work, running: "Running", report: Report) -> None:
    while (suite := work.take()) and not running.stopped:
        say(f"Running: {suite.name} …")
        try:
            result, output = _run_suite(suite, running)
        except Exception as error:  # a lane that ends early would look like one with nothing to say
            result, output = Result(name=suite.name), repr(error)
            result.fail(f"the test tool itself failed: {error!r}")
        if not running.stopped:
            report.add(result, output)


def _prepare_windows(running: "Running", report: Report) -> None:
    """Blenders for the windows are found or made, and it is said which could not be had."""
    say("Preparing Blenders to open windows of (the first time this fetches some GB) …")
    _, said = running.run([sys.executable, "-B", "tests/window/roots.py"], ROOTS_DEADLINE)
    lines = said.strip().splitlines()
    there = tuple(f"Blender {version}: " for version in ("4", "5"))
    say("\n".join(f"  {line}" for line in lines))
    report.add_missing(line for line in lines if "in a window:" in line and not line.startswith(there))


def _windows(python: Path) -> list[Suite]:
    """Windows of each Blender are a suite of their own. The harness tests itself with one of them."""
    files = [str(file.relative_to(ROOT)) for file in _files(ROOT / "tests" / "window")]
    labels = wanted_labels()
    return [
        Suite(
            kind="window",
            name=f"window, Blender {label}",
            python=python,
            tests=[file for file in files if label == labels[-1] or file != HARNESS_TESTS],
            environment={"WINDOWS": label},
        )
        for label in labels
    ]


def _run_suite(suite: Suite, running: "Running") -> tuple[Result, str]:
    started = time.monotonic()
    if suite.kind == "wine":
        result, output = _run_under_wine(suite, running)
    else:
        result, output = _run_pytest(suite, [str(suite.python)], running)
    result.seconds = time.monotonic() - started
    return result, output


def _run_under_wine(suite: Suite, running: "Running") -> tuple[Result, str]:
    """Each file in a Python of its own, in two Windows side by side if it is the whole suite."""
    files, parts, outputs = deque(suite.tests), [], []

    def run_all() -> None:
        with own_windows(suite.python, suite.windows) as (windows, environment):
            while files and not running.stopped:
                tests = files.popleft()
                started = time.monotonic()
                one = replace(suite, tests=tests.split(), environment=environment)
                part, output = _run_pytest(one, windows.command(), running)
                part.name, part.seconds = tests, time.monotonic() - started
                parts.append(part)
                outputs.append(f"{tests}\n{output.strip()}")
                say(f"  Wine, {tests}: {part.counts} ({part.seconds:.0f} s)", *part.failures, sep="\n    ")

    count = 2 if _is_whole() else 1
    with ThreadPoolExecutor(count) as pool:
        lanes = [pool.submit(run_all) for _ in range(count)]
    for lane in lanes:
        lane.result()
    result = Result(name=suite.name)
    for part in parts:
        result.add(part)
    return result, "\n".join([*outputs, *_table(parts, result)])


def _table(parts: Sequence[Result], total: Result) -> list[str]:
    """By file: passed, failed, left out, seconds; and the share that passed."""
    lines = [
        f"  {part.passed:5} {part.failed:3} {part.skipped:4} {part.seconds:5.0f} s  {part.name}"
        for part in sorted(parts, key=lambda part: part.name)
    ]
    tests = total.passed + total.failed + total.skipped
    share = f"{100 * total.passed / max(1, tests):.1f} % of {tests} tests passed: {total.counts}"
    return ["By file: passed, failed, skipped, seconds", *lines, share]


def _run_pytest(suite: Suite, python: Sequence[str], running: "Running") -> tuple[Result, str]:
    arguments = shlex.split(os.environ.get("PYTEST_ARGS", ""))
    cache = cache_folder() / "pytest" / suite.name.replace(" ", "-")
    own = ["-q", "--color=no", "-o", f"cache_dir={cache}"]
    found, code, output = _run_to_the_end(
        suite, [*python, "-m", "pytest", *own, *suite.tests, *arguments], running
    )
    result = _result(suite.name, found)
    if code == NOTHING_COLLECTED and (found or arguments):
        return result, output  # chosen by hand: not every suite has what was asked for
    if code == NOTHING_COLLECTED:
        result.fail("no test was collected")
    elif code is None:
        result.fail(f"hung, and was killed after {DEADLINE[suite.kind]} s")
    elif code not in (0, 1) or (code == 1 and not result.failed):
        result.fail(f"pytest ended with code {code} ({_meaning(code)})")
    return result, output


def _run_to_the_end(
    suite: Suite, command: Sequence[str], running: "Running"
) -> tuple[dict[str, tuple[str, str]], int | None, str]:
    """What became of each test, how pytest ended, what it said.

    A test may take Python along, as one that hangs does on Windows: another Python does the rest.
    """
    outputs: list[str] = []
    ended: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        while True:
            environment = {**suite.environment, "TEST_JOURNAL": str(path)}
            code, output = running.run(command, DEADLINE[suite.kind], environment)
            outputs.append(output)
            found, before = journal.read(path), ended
            ended = {test for test, (outcome, _) in found.items() if outcome == journal.BEGAN}
            if code is None or ended == before:
                return found, code, "\n".join(outputs)


def _meaning(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return {2: "interrupted", 3: "internal error", 4: "wrong usage"}.get(code, "unknown")


def _result(name: str, found: Mapping[str, tuple[str, str]]) -> Result:
    result = Result(name=name)
    for test, (outcome, why) in found.items():
        if outcome == journal.PASSED:
            result.passed += 1
        elif outcome == journal.SKIPPED:
            result.skipped += 1
            result.reasons[why or "no reason given"] += 1
        else:
            why = why or "it hung, or took its Python along"
            result.fail(f"{test}: {shorten(why, FAILURE_SHOWN, placeholder=' …')}")
    return result


class Running:
    """The process groups that were started here, so that none outlives us."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: set[subprocess.Popen[str]] = set()
        self.stopped = False

    def run(
        self, command: Sequence[str], deadline: float, environment: Mapping[str, str] = NOTHING_MORE
    ) -> tuple[int | None, str]:
        """Its exit code (None: it hung and was killed) and everything it printed."""
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            with self._lock:
                if self.stopped:
                    return None, ""
                child = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    # What it printed before it was killed has to be there.
                    env=clean_environment(PYTHONUNBUFFERED="1", **environment),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    text=True,
                    start_new_session=True,
                )
                self._children.add(child)
            code = _wait(child, deadline)
            with self._lock:
                self._children.remove(child)
            output.seek(0)
            return code, output.read()

    def stop(self) -> None:
        with self._lock:
            self.stopped = True
            for child in self._children:
                _kill_group(child, signal.SIGKILL)


def _wait(child: subprocess.Popen[str], deadline: float) -> int | None:
    try:
        return child.wait(deadline)
    except subprocess.TimeoutExpired:
        # pytest answers SIGABRT with what every thread was doing.
        child.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(LAST_WORDS)
        return None
    finally:
        # What a suite started and left behind goes with it.
        _kill_group(child, signal.SIGKILL)
        child.wait()


def _kill_group(child: subprocess.Popen[str], word: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, word)


if __name__ == "__main__":
    main(tool)
