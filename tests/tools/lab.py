"""make lab: the experiments behind docs/threads-in-blender.md, in real Blenders, as the page's table.

CLAIMS="quit timer" picks, RUNS=5 repeats, SECONDS=30 waits longer for what comes by chance.
"""

import datetime
import os
import platform
import sys

from common import ROOT, Trouble, main, say
from venvs import BLENDER_VERSIONS, blender_pythons, blender_venv

sys.path += [str(ROOT / "tests" / name) for name in ("lab", "window", "")]
from claims import CLAIMS, Claim, Lab
from roots import find, wanted_labels

RUNS, SECONDS = 1, 8.0


def tool() -> int:
    lab = _lab()
    runs = int(os.environ.get("RUNS") or RUNS)
    say(f"| Claim | Blender | with the cure | without it: {runs} of each | |\n|---|---|---|---|---|")
    verdicts = [_tell(lab, claim, runs) for claim in _chosen()]
    found = [f"Blender {version} as a module" for version in lab.modules]
    found += [f"Blender {version} in a window" for version in lab.windows]
    say(f"\n{datetime.date.today()}, {platform.system()}: {', '.join(found)}.")
    false = verdicts.count("FALSE")
    say(f"{len(verdicts)} claims, {false} false, {verdicts.count('not tried')} not tried")
    return 1 if false else 0


def _chosen() -> list[Claim]:
    names = os.environ.get("CLAIMS", "").split()
    known = {claim.name: claim for claim in CLAIMS}
    if unknown := set(names) - set(known):
        raise Trouble(f"CLAIMS={' '.join(sorted(unknown))} is unknown; there are {', '.join(known)}.")
    return [known[name] for name in names] or CLAIMS


def _lab() -> Lab:
    installations, notes = find()
    for sentence in notes.values():
        say(sentence)
    return Lab(
        modules={BLENDER_VERSIONS[version]: blender_venv(version) for version in blender_pythons()},
        windows={label: installations[label] for label in wanted_labels() if label in installations},
        seconds=float(os.environ.get("SECONDS") or SECONDS),
    )


def _tell(lab: Lab, claim: Claim, runs: int) -> str:
    """The lines of a claim, one for each Blender; whether it holds in all."""
    verdicts = []
    for where, attempt in claim.tries(lab, claim):
        cured, uncured = ([attempt(is_cured) for _ in range(runs)] for is_cured in (True, False))
        verdicts.append("holds" if claim.holds(cured, uncured) else "FALSE")
        say(f"| {claim.text} | {where} | {claim.cure}: {_all(cured)} | {_all(uncured)} | {verdicts[-1]} |")
    if not verdicts:
        say(f"| {claim.text} | | | | not tried |")
        return "not tried"
    return "FALSE" if "FALSE" in verdicts else "holds"


def _all(words: list[str]) -> str:
    """What happened each time, once where it was the same."""
    return ", ".join(dict.fromkeys(words))


if __name__ == "__main__":
    main(tool)
