"""Runs inside Blender: installs the extension's zip into the profile that BLENDER_USER_RESOURCES names."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

import bpy


def install(zip_file: str) -> None:
    with quiet():
        bpy.context.preferences.system.use_online_access = True
        bpy.ops.extensions.package_install_files(
            repo="user_default", filepath=zip_file, enable_on_install=True
        )
    if not hasattr(bpy.context.window_manager, "downloads"):
        raise SystemExit("The extension was installed but did not enable; what Blender says is above.")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Blender's own lines about an installation, C's included, are shown only if it fails."""
    sys.stdout.flush()
    with tempfile.TemporaryFile() as kept:
        out, err = os.dup(1), os.dup(2)
        os.dup2(kept.fileno(), 1)
        os.dup2(kept.fileno(), 2)
        failed = True
        try:
            yield
            failed = not hasattr(bpy.context.window_manager, "downloads")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(out, 1)
            os.dup2(err, 2)
            os.close(out)
            os.close(err)
            if failed:
                kept.seek(0)
                sys.stderr.write(kept.read().decode(errors="replace"))
