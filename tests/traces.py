"""What an add-on can leave behind in Blender, listed so that before and after can be compared."""

from __future__ import annotations

import functools
import gc
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import bpy
from leaks import children, descriptors


@dataclass(frozen=True, kw_only=True)
class Traces:
    """Names only: objects of a class that was registered anew are equal to those before."""

    handlers: list[str]
    timers: list[str]
    classes: list[str]
    properties: list[str]
    draw_functions: list[str]
    keymap_items: list[str]
    threads: list[str]
    children: list[int]
    descriptors: list[str]

    @classmethod
    def now(cls) -> Traces:
        gc.collect()
        return cls(
            handlers=sorted(_handlers()),
            timers=sorted(_timers()),
            classes=sorted(_classes()),
            properties=sorted(_properties()),
            draw_functions=sorted(_draw_functions()),
            keymap_items=sorted(_keymap_items()),
            threads=sorted(thread.name for thread in threading.enumerate() if not _is_a_tests(thread)),
            children=sorted(children()),
            descriptors=sorted(descriptors().values()),
        )

    def more_than(self, before: Traces) -> list[str]:
        """What is here and was not there, once for each time too many."""
        found = []
        for field in fields(self):
            left = list(getattr(self, field.name))
            for thing in getattr(before, field.name):
                if thing in left:
                    left.remove(thing)
            found += [f"{field.name}: {thing}" for thing in left]
        return found


def _handlers() -> Iterator[str]:
    for event in dir(bpy.app.handlers):
        functions = getattr(bpy.app.handlers, event)
        if isinstance(functions, list):
            yield from (f"{event} {_name(function)}" for function in functions)


def _timers() -> Iterator[str]:
    """Blender lists no timers, but says of a function whether it is one."""
    kinds = (types.FunctionType, types.MethodType, functools.partial)
    for thing in gc.get_objects():
        if isinstance(thing, kinds) and bpy.app.timers.is_registered(thing):
            yield _name(thing)


def _classes() -> Iterator[str]:
    yield from dir(bpy.types)
    for name in dir(bpy.ops):
        yield from (f"bpy.ops.{name}.{operator}" for operator in dir(getattr(bpy.ops, name)))


def _properties() -> Iterator[str]:
    owners = (bpy.types.WindowManager, bpy.types.Scene, bpy.types.Object, bpy.types.Screen)
    for owner in owners:
        yield from (f"{owner.__name__}.{name}" for name in dir(owner))


def _draw_functions() -> Iterator[str]:
    """What was appended to menus, headers and panels. Blender keeps their own draw in the same list."""
    for name in dir(bpy.types):
        draw = getattr(getattr(bpy.types, name), "draw", None)
        for function in getattr(draw, "_draw_funcs", ()):
            if getattr(function, "__qualname__", "") != f"{name}.draw":
                yield f"{name} {_name(function)}"


def _keymap_items() -> Iterator[str]:
    for configuration in bpy.context.window_manager.keyconfigs:
        for keymap in configuration.keymaps:
            yield from (f"{configuration.name} {keymap.name} {item.idname}" for item in keymap.keymap_items)


def _name(function: Callable[..., object]) -> str:
    plain = function.func if isinstance(function, functools.partial) else function
    module = getattr(plain, "__module__", None) or "?"
    return f"{module}.{getattr(plain, '__qualname__', repr(plain))}"


def _is_a_tests(thread: threading.Thread) -> bool:
    """Where a test's deadline is a thread, as on Windows."""
    return thread.name.startswith("pytest_timeout")
