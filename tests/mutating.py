"""How good are the tests? Changes a module of the engine in one place, and sees whether its tests notice.

Run by `make mutants` as `mutating.py MODULE COUNT SEED`. The changes are cosmic-ray's. Each is tried in a
fork of this process, which has imported everything but the engine: nothing is written to the disk.
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
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import cosmic_ray.plugins
import cryptography.x509  # noqa: F401 (the forks need not import it)
import hypothesis
import pytest
import requests  # noqa: F401
from cosmic_ray.mutating import mutate_code

ROOT = Path(__file__).resolve().parents[1]
TESTS = {
    "ranges": ["test_ranges.py"],
    "retry": ["test_retry.py"],
    "names": ["test_names.py"],
    "answers": ["test_answers.py", "test_resume.py"],
    "part": ["test_part.py", "test_resume.py", "test_disk.py"],
}
EXAMPLES = 30  # of each property; the usual 100 take three times as long and find little more
PATIENCE = 5  # times as long as the tests take on the code as it is; a mutant may hang
WANT_ARGUMENTS = ("VariableReplacer", "VariableInserter")


@dataclass(frozen=True)
class Mutant:
    """The module's text with one change in it."""

    text: str
    line: int
    was: str
    becomes: str


def mutants(text: str) -> Iterator[Mutant]:
    """All that change what the module does: annotations and docstrings do nothing."""
    seen = {_meaning(text)}
    for name in cosmic_ray.plugins.operator_names():
        if name.endswith(WANT_ARGUMENTS):
            continue
        operator, number = cosmic_ray.plugins.get_operator(name)(), 0
        while (changed := mutate_code(text, operator, number)) is not None:
            number += 1
            meaning = _meaning(changed)
            if meaning not in seen:
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
    return ast.dump(tree)


class Nursery:
    """Runs a module's tests in forks."""

    def __init__(self, module: str) -> None:
        self.path = ROOT / "transfer" / f"{module}.py"
        self.text = self.path.read_text("utf-8")
        tests = [ROOT / "tests" / "engine" / name for name in TESTS[module]]
        self._arguments = ["-x", "-q", "-p", "no:cacheprovider", *map(str, tests)]
        began = time.monotonic()
        if not self.passes(self.text, 600):
            raise SystemExit(f"{module}: its tests fail as it is")
        self._deadline = 10 + PATIENCE * (time.monotonic() - began)

    def passes(self, text: str, deadline: float = 0) -> bool:
        """Whether the tests see nothing wrong with this text."""
        child = os.fork()
        if not child:
            os.setsid()
            os._exit(self._run(text))
        end = time.monotonic() + (deadline or self._deadline)
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return status == 0
            time.sleep(0.02)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return False

    def _run(self, text: str) -> int:
        path, compiled = str(self.path), importlib.machinery.SourceFileLoader.get_code

        def get_code(loader: importlib.machinery.SourceFileLoader, name: str) -> object:
            return compile(text, path, "exec") if loader.path == path else compiled(loader, name)

        importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[assignment, method-assign]
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            return int(pytest.main(self._arguments))


def main() -> None:
    module, count, seed = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    nursery = Nursery(module)
    found = list(mutants(nursery.text))
    chosen = found if not count else random.Random(seed).sample(found, min(count, len(found)))
    survivors = [mutant for mutant in chosen if nursery.passes(mutant.text)]
    told = [f"transfer/{module}.py:{m.line}: {m.was} -> {m.becomes}" for m in survivors]
    print(json.dumps({"all": len(found), "tried": len(chosen), "survivors": sorted(told)}))


if __name__ == "__main__":
    os.chdir(ROOT)
    # The same examples each time, and what is wrong with those is no news of a mutant.
    hypothesis.settings.register_profile(
        "mutants",
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    hypothesis.settings.load_profile("mutants")
    main()
