"""Imports go one way: ui → operators → session → workers → hosts → transfer.

Nothing below session knows Blender.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).resolve().parents[2]
STOREYS = ("ui", "operators", "session", "workers", "hosts", "transfer")  # each may import those after it
BLENDERS_OWN = {"bpy", "addon_utils", "bl_ui", "bl_operators", "bpy_extras", "gpu", "blf", "mathutils"}
IMPORTED_ON_FIRST_USE = {"requests", "urllib3", "certifi"}

MODULES = sorted([*ROOT.glob("*.py"), *(path for room in STOREYS for path in (ROOT / room).rglob("*.py"))])


def _modules(*storeys: str) -> pytest.MarkDecorator:
    found = [path for path in MODULES if _storey(path) in storeys]
    return pytest.mark.parametrize("path", found, ids=[str(path.relative_to(ROOT)) for path in found])


def _storey(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


every_module = _modules("__init__", *STOREYS)


def test_the_page_on_the_house_names_every_module_and_no_other() -> None:
    named, room = set(), ""
    for row in (ROOT / "docs" / "architecture.md").read_text("utf-8").splitlines():
        for name in re.findall(r"`([\w/]+\.py)`", row.split("|")[1] if row.startswith("| `") else ""):
            room = name.rpartition("/")[0] or ("" if (ROOT / name).exists() else room)
            named.add(ROOT / room / name.rpartition("/")[2])
    assert named == {path for path in MODULES if path.name != "__init__.py"}


def test_top_level_holds_only_the_known_modules() -> None:
    known = {"__init__.py", "operators.py", "workers.py", "ui.py"}
    assert {path.name for path in ROOT.glob("*.py")} <= known


@_modules(*STOREYS)  # __init__ may see everything
def test_imports_go_one_way(path: Path) -> None:
    below = set(STOREYS[STOREYS.index(_storey(path)) :])
    assert [name for name in _own_imports(path) if name not in below] == []


@_modules("workers", "hosts", "transfer")
def test_only_what_is_above_workers_knows_blender(path: Path) -> None:
    assert BLENDERS_OWN & set(_foreign_imports(_tree(path), everywhere=True)) == set()


@_modules("__init__", *STOREYS[:-1])
def test_requests_is_imported_on_first_use_only(path: Path) -> None:
    """The transfer may import it at the top of a module that nobody imports before it is needed."""
    found = set(_foreign_imports(_tree(path), everywhere=_storey(path) == "ui"))
    assert IMPORTED_ON_FIRST_USE & found == set()


def test_what_enabling_imports_does_not_import_requests() -> None:
    guilty = [
        str(path.relative_to(ROOT))
        for path in _imported_at_once(ROOT / "__init__.py", set())
        if IMPORTED_ON_FIRST_USE & set(_foreign_imports(_tree(path), everywhere=False))
    ]
    assert guilty == []


@every_module
def test_imports_of_our_own_are_relative(path: Path) -> None:
    """Blender knows the package by a longer name, and a user may have it in any repository."""
    assert "background_downloads" not in set(_foreign_imports(_tree(path), everywhere=True))


@every_module
def test_one_module_alone_knows_the_systems(path: Path) -> None:
    """What differs is named there, with its reason, and a test can play another system."""
    text = ast.unparse(_tree(path))
    asks = re.findall(r"\b(os\.name|sys\.platform|platform\.system|os\.uname|hasattr\(os,)", text)
    assert bool(asks) is (path.name == "portable.py")


# -- Nothing grows back: a rule has one owner, and an owner can be read in one sitting.

MOST_LINES = 40  # of a function
CLASS_LINES = 450
ATTRIBUTES = 15  # of a class that is no record
CONDUCTOR = {"lines": 500, "methods": 50, "attributes": 12, "booleans": 1}
"""`Transfer` had 805, 76, 26 and 7 once: nobody could say which combinations there are."""


@pytest.mark.parametrize("room", ["session", "hosts", "transfer"])
def test_no_modules_import_each_other_in_a_circle(room: str) -> None:
    """Also not for the sake of types."""
    modules = {path.resolve() for path in (ROOT / room).glob("*.py")}
    needs = {path: set(_neighbours(path)) & modules for path in modules}
    while free := {path for path, needed in needs.items() if not needed & needs.keys()}:
        needs = {path: needed for path, needed in needs.items() if path not in free}
    assert sorted(path.name for path in needs) == []


def _neighbours(path: Path) -> Iterator[Path]:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names = [node.module.partition(".")[0]] if node.module else [alias.name for alias in node.names]
            yield from (path.parent.resolve() / f"{name}.py" for name in names)


@every_module
def test_functions_can_be_read_without_a_fold(path: Path) -> None:
    functions = (node for node in ast.walk(_tree(path)) if isinstance(node, ast.FunctionDef))
    assert [f.name for f in functions if _lines(f) > MOST_LINES] == []


@_modules("hosts", "transfer")
def test_classes_have_few_attributes_and_lines(path: Path) -> None:
    classes = [node for node in ast.walk(_tree(path)) if isinstance(node, ast.ClassDef)]
    assert [c.name for c in classes if _lines(c) > _most(c)] == []
    assert [c.name for c in classes if len(_attributes(c)) > ATTRIBUTES] == []


def test_the_conductor_of_a_download_keeps_its_measure() -> None:
    (transfer,) = (c for c in _tree(ROOT / "transfer" / "fetch.py").body if _is_class(c, "Transfer"))
    attributes = _attributes(transfer)
    found = {
        "lines": _lines(transfer),
        "methods": sum(isinstance(node, ast.FunctionDef) for node in transfer.body),
        "attributes": len(attributes),
        "booleans": sum(value in ("True", "False") for value in attributes.values()),
    }
    assert {what: count for what, count in found.items() if count > CONDUCTOR[what]} == {}


def _most(node: ast.ClassDef) -> int:
    return CONDUCTOR["lines"] if node.name == "Transfer" else CLASS_LINES


def _is_class(node: ast.AST, name: str) -> TypeGuard[ast.ClassDef]:
    return isinstance(node, ast.ClassDef) and node.name == name


def _lines(node: ast.FunctionDef | ast.ClassDef) -> int:
    return (node.end_lineno or 0) - node.lineno + 1


def _attributes(node: ast.ClassDef) -> dict[str, str]:
    """What its methods set on it, with the last value as it is written."""
    found = {}
    for statement in ast.walk(node):
        match statement:
            case ast.Assign(targets=targets, value=value):
                found |= {name: ast.unparse(value) for target in targets for name in _set_by(target)}
            case ast.AnnAssign(target=target, value=value):
                found |= {name: ast.unparse(value) if value else "" for name in _set_by(target)}
    return found


def _set_by(target: ast.AST) -> Iterator[str]:
    for node in ast.walk(target):
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                yield name


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def _statements(node: ast.AST, everywhere: bool) -> Iterator[ast.AST]:
    """Statements that run when the module is imported, or all of them."""
    for child in ast.iter_child_nodes(node):
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if (later and not everywhere) or _is_for_type_checkers(child):
            continue
        yield child
        yield from _statements(child, everywhere)


def _is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _foreign_imports(tree: ast.AST, *, everywhere: bool) -> Iterator[str]:
    for statement in _statements(tree, everywhere):
        match statement:
            case ast.Import(names=names):
                yield from (alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(level=0, module=str(module)):
                yield module.partition(".")[0]


def _own_targets(path: Path, *, everywhere: bool) -> Iterator[Path]:
    """The files or folders of ours that a module imports, `from . import a` being a."""
    for statement in _statements(_tree(path), everywhere):
        if isinstance(statement, ast.ImportFrom) and statement.level:
            folder = path.parents[statement.level - 1].joinpath(*(statement.module or "").split("."))
            for alias in statement.names:
                modules = (folder / f"{alias.name}.py", folder / alias.name)
                yield next((module for module in modules if module.exists()), folder)


def _own_imports(path: Path) -> Iterator[str]:
    for target in _own_targets(path, everywhere=True):
        if target != ROOT:
            yield _storey(target)


def _imported_at_once(path: Path, seen: set[Path]) -> set[Path]:
    """All modules of ours that come with importing this one."""
    file = next((f for f in (path, path.with_suffix(".py"), path / "__init__.py") if f.is_file()), None)
    if file is None or file in seen:
        return seen
    seen.add(file)
    for target in _own_targets(file, everywhere=False):
        package = target if target.is_dir() else target.parent
        for needed in (package / "__init__.py", target):
            if needed != ROOT / "__init__.py":
                _imported_at_once(needed, seen)
    return seen
