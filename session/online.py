"""Whether Blender may use the network, and why not, said as its own extensions client does."""

from __future__ import annotations

from typing import Any

import bpy


def offline_reason() -> str:
    """Empty where it may."""
    if bpy.app.online_access:
        return ""
    if is_offline_forced():
        return "Online access required to download. Launch Blender without --offline-mode"
    return "Online access required to download. Enable online access in System preferences"


def is_offline_forced() -> bool:
    """Whether the command line said so, and no preference can change it."""
    app = bpy.app
    name = "online_access_override" if hasattr(app, "online_access_override") else "online_access_overriden"
    return not app.online_access and bool(getattr(app, name, False))


def is_online(operator: Any) -> bool:
    """Whether Blender may use the network; where not, the operator's button says why."""
    if reason := offline_reason():
        operator.poll_message_set(reason)
    return not reason
