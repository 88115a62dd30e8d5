"""make soak: hours of use in minutes, in real windows side by side, then whether anything was left.

MINUTES=30 is the time of mixed use, RUNS=1000 the runs of start and cancel before it, SEED= gives
the order of an earlier soak again, WINDOWS="5.2 4.3" picks the Blenders.
"""

import math
import os
import secrets
import sys
import tempfile
import threading
import time
import traceback
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, Trouble, main, say

sys.path += [str(ROOT / "tests" / "window"), str(ROOT / "tests")]
from blender import Blender, build_extension, extension_id, prepare_profile, wait_until
from downloading import Downloads
from roots import Installation, find, wanted_labels
from server import Server
from soaking import BAD_WORDS, Soak

MINUTES = 30.0
RUNS = 1000
SIZE = (800, 600)  # of the window, in pixels


@dataclass(kw_only=True)
class Plan:
    """What was asked for."""

    seconds: float
    runs: int
    seed: str


@dataclass(kw_only=True)
class Result:
    """How one Blender fared."""

    line: str = ""
    failed: bool = False


def tool() -> int:
    plan = Plan(
        seconds=60 * _number("MINUTES", MINUTES),
        runs=int(_number("RUNS", RUNS)),
        seed=os.environ.get("SEED") or secrets.token_hex(4),
    )
    say(f"SEED={plan.seed}: {plan.runs} runs of start and cancel, then {plan.seconds / 60:g} minutes of use")
    installations = _installations()
    results = {installation.label: Result() for installation in installations}
    threads = [
        threading.Thread(target=_soak, args=(installation, plan, results[installation.label]), daemon=True)
        for installation in installations
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _report(plan, results)


def _number(name: str, otherwise: float) -> float:
    given = os.environ.get(name, "").strip()
    try:
        number = float(given or otherwise)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise Trouble(f"{name}={given} is no number.")
    return number


def _installations() -> list[Installation]:
    found, notes = find()
    for sentence in notes.values():
        say(sentence)
    chosen = [found[label] for label in wanted_labels() if label in found]
    if not chosen:
        raise Trouble("There is no Blender to open a window of.")
    return chosen


def _report(plan: Plan, results: dict[str, Result]) -> int:
    say()
    for label, result in results.items():
        say(f"Blender {label}: {'FAILED' if result.failed else result.line}")
    failed = [label for label, result in results.items() if result.failed]
    verdict = f"{len(failed)} failed ({', '.join(failed)})" if failed else "nothing left behind"
    say(f"{len(results)} Blenders soaked, SEED={plan.seed}: {verdict}")
    return 1 if failed else 0


def _soak(installation: Installation, plan: Plan, result: Result) -> None:
    try:
        result.line = _soaked(installation, plan)
    except BaseException:  # whatever it was; the other goes on
        result.failed = True
        say(f"\nBlender {installation.label} FAILED\n{traceback.format_exc()}")


def _soaked(installation: Installation, plan: Plan) -> str:
    """A whole day of one Blender, from its start to its quit."""
    began = time.monotonic()

    def tell(words: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        say(f"Blender {installation.label} {minutes:3}:{seconds:02} {words}")

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        server = stack.enter_context(Server())
        zip_path = build_extension(installation, ROOT, folder / "zip")
        profile = prepare_profile(installation, folder / "profile", zip_path)
        enable = [extension_id(zip_path)]
        options = {"profile": profile, "enable": enable, "online": True, "size": SIZE}
        with Blender(installation, folder / "b", simulate=False, **options) as b:
            soak = Soak(Downloads(b, folder / "files", "threads"), server, seed=plan.seed, say=tell)
            soak.start_and_cancel(plan.runs)
            soak.use(plan.seconds)
            _quit(b)
    return f"{_counted(soak)}; memory {soak.memory[0]} MiB at first, {soak.memory[-1]} at last; quit with 0"


def _quit(b: Blender) -> None:
    code = b.quit()
    assert code == 0, f"exit code {code}"
    wait_until(lambda: not b.children(), what=lambda: f"left: {b.children()}")
    assert not BAD_WORDS.search(b.console), b.console


def _counted(soak: Soak) -> str:
    return ", ".join(f"{count} {what}" for what, count in soak.counts.items())


if __name__ == "__main__":
    main(tool)
