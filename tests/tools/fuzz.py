"""make fuzz: what strangers write, under a fuzzer that is guided by which code runs (atheris, libFuzzer).

TARGET="names headers" picks some of the targets, all otherwise; MINUTES=10 is the time for each. What
reaches new code is kept in the cache folder and is where the next run begins. An input that trips a
target is saved there too: mend what it shows, and commit it under tests/fuzz/corpus with a name.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, Trouble, cache_folder, clean_environment, main, say
from venvs import fuzz_venv

FUZZ = ROOT / "tests" / "fuzz"
TARGETS = ("names", "headers", "urls", "sidecar", "list", "folders", "listing")
SLOW = 20  # seconds for one input, after which it counts as found
MEMORY = 2048  # MiB


@dataclass(frozen=True, kw_only=True)
class Result:
    target: str
    findings: list[Path]
    last_words: str


def tool() -> int:
    targets = os.environ.get("TARGET", "").replace(",", " ").split() or list(TARGETS)
    for target in targets:
        if target not in TARGETS:
            raise Trouble(f"TARGET={target} is unknown; there are {', '.join(TARGETS)}.")
    seconds = _seconds(os.environ.get("MINUTES") or "10")
    python = fuzz_venv()
    results = [_fuzz(python, target, seconds) for target in targets]
    say("\n════ Summary ════")
    for result in results:
        say(f"{result.target}: {result.last_words}")
        say(*(f"  found: {path}" for path in result.findings), sep="\n")
    return 1 if any(result.findings for result in results) else 0


def _seconds(minutes: str) -> int:
    try:
        return max(1, round(60 * float(minutes)))
    except ValueError:
        raise Trouble(f"MINUTES={minutes} is no number.") from None


def _fuzz(python: Path, target: str, seconds: int) -> Result:
    kept = cache_folder() / "fuzz" / target
    kept.mkdir(parents=True, exist_ok=True)
    found = kept.with_name(f"{target}-found")
    found.mkdir(exist_ok=True)
    before = set(found.iterdir())
    say(f"Fuzzing {target} for {seconds} s …")
    options = {
        "max_total_time": seconds,
        "timeout": SLOW,
        "rss_limit_mb": MEMORY,
        "dict": FUZZ / "words.dict",
        "artifact_prefix": f"{found}/",
    }
    flags = [f"-{name}={value}" for name, value in options.items()]
    command = [python, FUZZ / "run.py", target, *flags, kept, FUZZ / "corpus" / target]
    log = kept.with_name(f"{target}.log")
    with open(log, "w") as file:
        code = subprocess.run(command, stdout=file, stderr=file, cwd=kept, env=clean_environment()).returncode
    findings = sorted(set(found.iterdir()) - before)
    if code and not findings:
        raise Trouble(f"The fuzzer itself failed with code {code}; its words are in {log}.")
    return Result(target=target, findings=findings, last_words=_last_words(log))


def _last_words(log: Path) -> str:
    """How often it ran and how much it reached, in libFuzzer's words."""
    lines = [line.split("exec/s")[0] for line in log.read_text(errors="replace").splitlines()]
    return next((line.strip() for line in reversed(lines) if " cov: " in line), f"see {log}")


if __name__ == "__main__":
    main(tool)
