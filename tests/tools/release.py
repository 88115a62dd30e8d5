"""make release: what is published, in dist/: the zip, what is in it (SBOM) and their checksums.

make repository: besides, dist/repository/, which Blender can add as a remote repository once it is served.
"""

import hashlib
import json
import shutil
import sys
import tomllib
import zipfile
from pathlib import Path

from blenders import Blender, build, module_blender, program_blender, use
from common import ROOT, main, say

DIST = ROOT / "dist"
SUMS = "SHA256SUMS"


def tool() -> int:
    blender = program_blender() or module_blender()
    zip_file = build(blender, DIST)
    sums = release(zip_file)
    say(sums.read_text().rstrip(), f"{sums}: checked with sha256sum -c {SUMS}", sep="\n")
    if "repository" in sys.argv[1:]:
        listing = repository(blender, zip_file, DIST / "repository")
        say(f"{listing}: serve this folder, then Preferences > Get Extensions > Repositories > Add Remote.")
    return 0


def release(zip_file: Path) -> Path:
    """Write the SBOM and the checksums beside the zip; returns the checksums' file."""
    sbom = zip_file.with_suffix(".cdx.json")
    sbom.write_text(json.dumps(bill_of_materials(zip_file), indent=2) + "\n")
    sums = zip_file.with_name(SUMS)
    sums.write_text("".join(f"{_sha256(path.read_bytes())}  {path.name}\n" for path in (zip_file, sbom)))
    return sums


def bill_of_materials(zip_file: Path) -> dict[str, object]:
    """CycloneDX 1.5 (https://cyclonedx.org/docs/1.5/json/): each file is ours, and nothing else is in it."""
    with zipfile.ZipFile(zip_file) as content:
        files = {name: content.read(name) for name in content.namelist()}
    manifest = tomllib.loads(files["blender_manifest.toml"].decode())
    licence = {"license": {"id": manifest["license"][0].removeprefix("SPDX:")}}
    about = {"type": "application", "bom-ref": manifest["id"], "name": manifest["id"]}
    requests = {"type": "library", "bom-ref": "requests", "name": "requests", "scope": "excluded"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": about | {"version": manifest["version"], "licenses": [licence]}},
        "components": [
            *({"type": "file", "name": name, "hashes": _hashes(data)} for name, data in files.items()),
            requests | {"description": "Not in the zip: Blender bundles it, 2.27 or newer"},
        ],
        "dependencies": [{"ref": manifest["id"], "dependsOn": ["requests"]}],
    }


def repository(blender: Blender, zip_file: Path, folder: Path) -> Path:
    """A folder that Blender can add as a remote repository; returns its listing."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(zip_file, folder)
    use(blender.extension_tool("server-generate", "--repo-dir", folder))
    return folder / "index.json"


def _hashes(data: bytes) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": _sha256(data)}]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    main(tool)
