"""The simulator judges the service, so it knows nothing of it."""

import ast
import sys
from pathlib import Path

import payment_service.cli.provider_sim as provider_sim

FOLDER = Path(provider_sim.__file__).parent
OTHERS = {"aiohttp", "orjson", "click", "cryptography", "uvloop"}


def test_it_imports_nothing_of_the_service() -> None:
    faults = []
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import)
                else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            )  # fmt: skip
            for name in names:
                ours = name.startswith("payment_service.cli.provider_sim")
                if not ours and name.partition(".")[0] not in OTHERS | sys.stdlib_module_names:
                    faults.append(f"{path.name}: {name}")
    assert faults == []
