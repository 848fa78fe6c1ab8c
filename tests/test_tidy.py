"""The rules of the house, as tests: who may import whom, sizes, names, and lists that go stale in silence."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from payment_service.adapters.settings import Settings, environment_names

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "payment_service"
FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 400

ROOMS = ("core", "codecs", "adapters", "tables", "agents", "web", "cli", "migrations")
ROOT_FILES = {"app", "services", "offline", "worker"}
EVERYTHING = {*ROOMS, *ROOT_FILES}
MAY_IMPORT: dict[str, set[str]] = {
    "core": {"core"},
    "codecs": {"core", "codecs"},
    "adapters": {"core", "codecs", "adapters"},
    "tables": {"core", "codecs", "tables"},
    "agents": {"core", "codecs", "tables", "agents"},
    "web": {"core", "codecs", "tables", "web"},
    "cli": {"core", "codecs", "tables", "cli", "app", "offline", "worker"},
    "migrations": set(),
    "app": EVERYTHING,
    "services": EVERYTHING,
    "offline": EVERYTHING,
    "worker": EVERYTHING,
    "__init__": set(),
}
"""agents, web and cli take no adapter, and nothing of each other; the cli starts what app and worker put together."""

CORE_STDLIB = {
    *("abc", "base64", "binascii", "bisect", "collections", "contextlib", "dataclasses", "decimal", "enum"),
    *("fractions", "functools", "hashlib", "hmac", "heapq", "itertools", "json", "math", "operator", "re"),
    *("string", "types", "typing", "unicodedata"),
}
"""core decides and touches nothing: no clock, chance, system, loop or log is in this list."""

USE_CASES_STDLIB = {"asyncio", "contextvars"}
"""What waits for others keeps apart in whose name it does."""

ONLY_IN_ADAPTERS = {"aiopg", "psycopg2", "stripe", "redis", "oci"}
NAMES_WITHOUT_MEANING = {"util", "utils", "helper", "helpers", "manager", "base", "common", "misc"}
NOT_OURS = {"build", "dist", "node_modules", "htmlcov", "__pycache__"}

pytestmark = pytest.mark.filterwarnings("error")


def _is_ours(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return not any(part in NOT_OURS or part.startswith(".") or part.endswith(".egg-info") for part in parts[:-1])


@cache
def files(pattern: str) -> tuple[Path, ...]:
    return tuple(sorted(path for path in ROOT.rglob(pattern) if path.is_file() and _is_ours(path)))


def product_files() -> list[Path]:
    return [path for path in files("*.py") if path.relative_to(ROOT).parts[0] != "tests"]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every imported module with its line, `from . import x` as `.`; function bodies included."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                yield node.lineno, "." * node.level + module
            elif module == PACKAGE:
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module


def room_of(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def import_faults(path: Path) -> Iterator[str]:
    room = room_of(path)
    in_use_cases = path.relative_to(ROOT).parts[:2] == ("core", "use_cases")
    for line, module in imports_of(path):
        top, _, rest = module.partition(".")
        place = f"{where(path, line)}: {module}"
        if module.startswith(".") or top in EVERYTHING:
            yield f"{place}: write the full name, {PACKAGE}...."
        elif top == PACKAGE:
            if rest.partition(".")[0] not in MAY_IMPORT[room]:
                yield f"{place}: {room} may not import it"
            elif room == "core" and not in_use_cases and rest.startswith("core.use_cases"):
                yield f"{place}: core decides; use cases call it, never the other way"
        elif room == "core" and top not in CORE_STDLIB and not (in_use_cases and top in USE_CASES_STDLIB):
            yield f"{place}: core is pure"
        elif top in ONLY_IN_ADAPTERS and room not in ("adapters", *ROOT_FILES):
            yield f"{place}: only an adapter talks to it"


def test_every_room_imports_only_what_it_may() -> None:
    rooms = {room_of(path) for path in product_files()}
    assert rooms <= MAY_IMPORT.keys(), f"a new room needs its rule here: {rooms - MAY_IMPORT.keys()}"
    assert [fault for path in product_files() for fault in import_faults(path)] == []


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("core/x.py", "import asyncio"),
        ("core/x.py", "from payment_service.core.use_cases import execute"),
        ("core/use_cases/x.py", "import time"),
        ("core/x.py", "def f():\n    from payment_service.adapters import clock"),
        ("web/x.py", "from payment_service.adapters import clock"),
        ("agents/x.py", "from payment_service import web"),
        ("cli/x.py", "from payment_service.adapters import settings"),
        ("web/x.py", "import psycopg2"),
        ("codecs/x.py", "from .events import y"),
        ("app.py", "import core.payment"),
    ],
)
def test_a_wrong_import_is_seen(place: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "tree_of", lambda path: ast.parse(line))
    assert len(list(import_faults(ROOT / place))) == 1


def test_tests_use_full_names_too() -> None:
    faults = [
        f"{where(path, line)}: {module}"
        for path in files("*.py")
        for line, module in imports_of(path)
        if module.startswith(".") or module.partition(".")[0] in EVERYTHING
    ]
    assert faults == []


def test_functions_and_files_are_short() -> None:
    faults = []
    for path in files("*.py"):
        lines = len(path.read_text("utf-8").splitlines())
        if lines > FILE_LINES_MAX:
            faults.append(f"{where(path, 1)}: {lines} lines")
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                length = node.end_lineno - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    faults.append(f"{where(path, node.lineno)}: {node.name} has {length} lines")
    assert faults == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        where(path, 1) for path in product_files() if path.stat().st_size and not ast.get_docstring(tree_of(path))
    ]
    assert silent == []


def test_names_mean_something() -> None:
    faults = [
        str(path.relative_to(ROOT))
        for path in files("*.py")
        for part in path.relative_to(ROOT).parts
        if NAMES_WITHOUT_MEANING & set(part.removesuffix(".py").lower().split("_"))
    ]
    assert faults == []


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|HA" + r"CK)\b")
    texts = [path for kind in ("*.py", "*.sql", "*.toml", "*.y*ml", "Makefile", "Dockerfile") for path in files(kind)]
    faults = [
        where(path, number)
        for path in texts
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if marks.search(line)
    ]
    assert faults == []


def test_the_package_list_is_what_is_on_disk() -> None:
    """A folder that is missing from it works here and is missing from the wheel."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for path in product_files() if path.parent != ROOT}
    on_disk = {PACKAGE, *(".".join((PACKAGE, *folder.parts)) for folder in folders)}
    assert set(listed) == on_disk
    assert len(listed) == len(set(listed))
    without = [str(folder) for folder in folders if not (ROOT / folder / "__init__.py").exists()]
    assert without == [], "a folder of code without __init__.py"


def documented_settings() -> dict[str, str]:
    """Name -> default of env.txt, where each group of settings stands under a line that says why."""
    found: dict[str, str] = {}
    explained = False
    for number, line in enumerate((ROOT / "env.txt").read_text("utf-8").splitlines(), start=1):
        setting = re.fullmatch(r"#([A-Z][A-Z0-9_]*)=(.*)", line)
        if setting:
            assert explained, f"env.txt:{number}: no line above says why"
            assert setting[1] not in found, f"env.txt:{number}: twice"
            found[setting[1]] = setting[2]
        else:
            explained = line.startswith("# ") and not line.startswith("# ---")
    return found


def test_every_setting_is_documented_and_nothing_else() -> None:
    in_code = {name for field in Settings.model_fields for name in environment_names(field)}
    assert set(documented_settings()) == in_code


def test_the_documented_default_is_the_one_in_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        for name in environment_names(field):
            monkeypatch.delenv(name, raising=False)
    documented = documented_settings()
    bare = Settings(_env_file=None)
    for name, value in documented.items():
        monkeypatch.setenv(name, value)
    assert Settings(_env_file=None) == bare
    empty = [
        name
        for field, info in Settings.model_fields.items()
        for name in environment_names(field)
        if getattr(bare, field) not in (None, (), "") and not documented[name] and info.validation_alias is None
    ]
    assert empty == [], "has a default that env.txt does not tell"
