"""Runs one target under atheris, which sees the code that runs: run.py TARGET [libFuzzer's options] FOLDER…

The first folder grows with what reaches new code. `make fuzz` calls this.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

import atheris

TESTS = Path(__file__).resolve().parents[1]
READ_BY_STRANGERS = [
    "background_downloads.transfer",
    "background_downloads.session",
    "email._parseaddr",
    "email.utils",
    "json",
    "urllib.parse",
]


def main() -> None:
    package = types.ModuleType("background_downloads")
    package.__path__ = [str(TESTS.parent)]
    sys.modules["background_downloads"] = package
    sys.path[:0] = [str(TESTS), str(TESTS / "fuzz")]
    with atheris.instrument_imports(include=READ_BY_STRANGERS):
        import targets

        targets.load()
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, targets.TARGETS[name], enable_python_coverage=True)
    atheris.Fuzz()


main()
