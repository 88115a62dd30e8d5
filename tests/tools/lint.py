"""make lint: ruff over everything, mypy --strict over what knows no Blender."""

import subprocess
import tempfile
from pathlib import Path

from common import EXTENSION_ID, ROOT, cache_folder, clean_environment, main, say
from venvs import lint_venv


def tool() -> int:
    python = lint_venv()
    failed = [name for name, check in (("ruff", _ruff), ("mypy", _mypy)) if not check(python)]
    say(f"Failed: {', '.join(failed)}." if failed else "ruff and mypy have nothing to say.")
    return 1 if failed else 0


def _ruff(python: Path) -> bool:
    cache = cache_folder() / "ruff"
    command = [python, "-m", "ruff", "check", "--cache-dir", cache, "."]
    return not subprocess.run(command, cwd=ROOT, env=clean_environment()).returncode


def _mypy(python: Path) -> bool:
    """The top folder is the package, whatever the clone is called: a link gives it its name."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / EXTENSION_ID).symlink_to(ROOT)
        modules = ["-m", f"{EXTENSION_ID}.workers"]
        modules += ["-p", f"{EXTENSION_ID}.hosts", "-p", f"{EXTENSION_ID}.transfer"]
        settings = ["--config-file", ROOT / "pyproject.toml", "--cache-dir", cache_folder() / "mypy"]
        command = [python, "-m", "mypy", "--strict", *settings, *modules]
        return not subprocess.run(command, cwd=folder, env=clean_environment()).returncode


if __name__ == "__main__":
    main(tool)
