"""How good are the tests? Changes a module of the engine in one place, and sees whether its tests notice.

Run by `make mutants` as `mutating.py MODULE COUNT SEED`. The changes are cosmic-ray's. Each is tried in a
fork of this process, which has imported everything but the engine: nothing is written to the disk. What
became of each is told at once; interrupted, it sums up what it knows.
"""

from __future__ import annotations

import ast
import importlib.machinery
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import CodeType

import cosmic_ray.plugins
import cryptography.x509  # noqa: F401 (the forks need not import it)
import hypothesis
import pytest
import requests  # noqa: F401
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator

ROOT = Path(__file__).resolve().parents[1]
TESTS = {
    "ranges": ["test_ranges.py"],
    "retry": ["test_retry.py"],
    "names": ["test_names.py"],
    "answers": ["test_answers.py", "test_resume.py"],
    "part": ["test_part.py", "test_leftovers.py", "test_resume.py"],
}
ENOUGH = 0.85  # of the changes are to be noticed
EXAMPLES = 30  # of each property; the usual 100 take three times as long and find little more
PATIENCE, GRACE = 3, 5.0  # a change may hang: so many times as long as without it, and so many seconds
WANT_ARGUMENTS = ("VariableReplacer", "VariableInserter")


# -- The changes.


@dataclass(frozen=True)
class Mutant:
    """The module's text with one change in it."""

    text: str
    line: int
    was: str
    becomes: str


def places(text: str) -> list[tuple[Operator, int]]:
    """Where it can be changed: each way to change it, with the number of the place."""
    nodes = list(ast_nodes(get_ast(text)))
    names = (name for name in cosmic_ray.plugins.operator_names() if not name.endswith(WANT_ARGUMENTS))
    operators = [cosmic_ray.plugins.get_operator(name)() for name in names]
    counts = [sum(len(list(operator.mutation_positions(node))) for node in nodes) for operator in operators]
    return [(operator, n) for operator, count in zip(operators, counts, strict=True) for n in range(count)]


def mutants(text: str, found: Iterable[tuple[Operator, int]]) -> Iterator[Mutant]:
    """Those that change what the module does, each once: to annotations and `slots` no test is due."""
    seen = {_meaning(text)}
    for operator, number in found:
        changed = mutate_code(text, operator, number)
        if changed and (meaning := _meaning(changed)) not in seen:
            seen.add(meaning)
            yield _mutant(text, changed)


def _mutant(text: str, changed: str) -> Mutant:
    pairs = zip(text.splitlines(), changed.splitlines(), strict=False)
    line, (was, becomes) = next((n, pair) for n, pair in enumerate(pairs, 1) if pair[0] != pair[1])
    return Mutant(changed, line, was.strip(), becomes.strip())


def _meaning(text: str) -> str:
    """The code without what does nothing; what is no code at all means nothing of its own."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return ""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        elif isinstance(node, ast.Call):
            node.keywords = [each for each in node.keywords if each.arg != "slots"]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.test = ast.Constant(False)
    return ast.dump(tree)


def _body(text: str, line: int) -> range:
    """The lines of the innermost function that a line is in; of none: all, since they run at the import."""
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
    spans = (range(node.body[0].lineno, (node.end_lineno or 0) + 1) for node in functions)
    everything = range(len(text.splitlines()) + 2)
    return min((span for span in spans if line in span), key=len, default=everything)


# -- The tests.


@dataclass
class Run:
    """What one test did on the code as it is."""

    name: str
    seconds: float = 0.0
    lines: list[int] = field(default_factory=list)
    """Of the module, that it ran."""


class Sampler:
    """Has pytest try the same examples of a property each time; the tests' own profile would take others."""

    def pytest_collectstart(self) -> None:
        hypothesis.settings.load_profile("mutants")


class Recorder(Sampler):
    """Has pytest note which lines of a file each test runs, in whatever thread, and how long it takes."""

    def __init__(self, path: str) -> None:
        self.runs: list[Run] = []
        self._path = path
        self._lines: set[int] = set()
        tool, line = sys.monitoring.COVERAGE_ID, sys.monitoring.events.LINE
        sys.monitoring.use_tool_id(tool, "mutants")
        sys.monitoring.register_callback(tool, line, self._ran)
        sys.monitoring.set_events(tool, line)

    def _ran(self, code: CodeType, line: int) -> object:
        if code.co_filename == self._path:
            self._lines.add(line)
        return sys.monitoring.DISABLE  # once a test is enough

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._lines.clear()
        sys.monitoring.restart_events()
        began = time.monotonic()
        done = yield
        self.runs.append(Run(item.nodeid, time.monotonic() - began, sorted(self._lines)))
        return done


class Chooser(Sampler):
    """Has pytest run these tests alone, in this order."""

    def __init__(self, names: Iterable[str]) -> None:
        self._places = {name: place for place, name in enumerate(names)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in self._places]
        items[:] = sorted(chosen, key=lambda item: self._places[item.nodeid])


class Nursery:
    """Runs a module's tests in forks."""

    def __init__(self, module: str) -> None:
        self.path = ROOT / "transfer" / f"{module}.py"
        self.text = self.path.read_text("utf-8")
        tests = [ROOT / "tests" / "engine" / name for name in TESTS[module]]
        self._arguments = ["-x", "-q", "-p", "no:cacheprovider", *map(str, tests)]
        self.runs = sorted(self._recorded(), key=lambda run: run.seconds)
        began = time.monotonic()  # once more: it sees that the order does not matter, and how long it takes
        if not self.runs or self._passes(self.text, self.runs, 600) is not True:
            raise SystemExit(f"{module}: its tests fail as it is")
        self.seconds = time.monotonic() - began
        self._start = max(0.0, self.seconds - sum(run.seconds for run in self.runs))

    def try_out(self, mutant: Mutant) -> str:
        """What became of it: noticed, hung (which is that, too), or survived; the quickest tests first."""
        body = _body(self.text, mutant.line)
        reached = [run for run in self.runs if any(line in body for line in run.lines)]
        seconds = self._start + sum(run.seconds for run in reached)
        passed = self._passes(mutant.text, reached, PATIENCE * seconds + GRACE) if reached else True
        return {True: "SURVIVED", False: "noticed", None: "hung"}[passed]

    def _recorded(self) -> list[Run]:
        """What the tests do on the code as it is."""
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            recorder = Recorder(str(self.path))
            self._pytest(self.text, recorder)
            with open(writer, "w") as file:
                json.dump([vars(run) for run in recorder.runs], file)
            os._exit(0)
        os.close(writer)
        try:
            with open(reader) as file:
                return [Run(**run) for run in json.load(file)]
        finally:
            _end(child)

    def _passes(self, text: str, runs: list[Run], deadline: float) -> bool | None:
        """Whether these tests see nothing wrong with this text; None: they did not end in time."""
        child = os.fork()
        if not child:
            os._exit(self._pytest(text, Chooser(run.name for run in runs)))
        end = time.monotonic() + deadline
        try:
            while time.monotonic() < end:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    child = 0
                    return status == 0
                time.sleep(0.02)
            return None
        finally:
            _end(child)

    def _pytest(self, text: str, plugin: object) -> int:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        path, compiled = str(self.path), importlib.machinery.SourceFileLoader.get_code

        def get_code(loader: importlib.machinery.SourceFileLoader, name: str) -> object:
            return compile(text, path, "exec") if loader.path == path else compiled(loader, name)

        importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[assignment, method-assign]
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            return int(pytest.main(self._arguments, [plugin]))


def _end(child: int) -> None:
    """End a fork, and what it started; 0: it has ended."""
    if child:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)


# -- What is told.


def main() -> int:
    module, count, seed = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    nursery = Nursery(module)
    found = places(nursery.text)
    random.Random(seed).shuffle(found)
    tests = f"{len(nursery.runs)} tests, {nursery.seconds:.0f} s"
    say(f"{module}: {count or 'all'} of some {len(found)} changes, seed {seed}; {tests}")
    told: list[tuple[str, str]] = []
    try:
        for number, mutant in enumerate(islice(mutants(nursery.text, found), count or None), 1):
            where = f"transfer/{module}.py:{mutant.line}: {mutant.was} -> {mutant.becomes}"
            told.append((nursery.try_out(mutant), where))
            say(f"  {number:3} {told[-1][0]:8} {where}")
    except KeyboardInterrupt:
        say("Interrupted.")
    return _sum_up(module, told)


def _sum_up(module: str, told: list[tuple[str, str]]) -> int:
    survivors = sorted(where for outcome, where in told if outcome == "SURVIVED")
    hung = sum(outcome == "hung" for outcome, _ in told)
    share = 1 - len(survivors) / len(told) if told else 0.0
    noticed = f"{len(told) - len(survivors)} of {len(told)} noticed ({share:.0%})"
    say(f"{module}: {noticed}, {hung} of them since they hung")
    say(*(f"    {line}" for line in survivors), sep="\n")
    return 0 if share >= ENOUGH else 1


def say(*words: str, sep: str = " ") -> None:
    if words:
        print(*words, sep=sep, flush=True)


def _interrupt(number: int, frame: object) -> None:
    """Once: what is known is told then, and a second signal would cut that."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    os.chdir(ROOT)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _interrupt)
    # What is wrong with these examples is no news of a mutant.
    hypothesis.settings.register_profile(
        "mutants",
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    sys.exit(main())
