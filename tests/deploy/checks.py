"""`make check-deploy`: each file under deploy/, the Dockerfile and the compose file, judged by its own tool.

Whatever could not be run is named, with the reason. Exit codes: 0 nothing is wrong with what was run; 1 something is;
3 with --all, nothing is wrong, but something was not run.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from servers.deploy_tools import KUBERNETES, crd_models, install, program, schemas
from servers.tools import found

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "payment-service"
VALUES = Path(__file__).with_name("values")
CRDS = {"ServiceMonitor", "PrometheusRule"}
RUN_S = 120.0
WRONG, NOT_RUN = 1, 3
MODELS = """
import { readFileSync } from "node:fs";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
const kinds = { ServiceMonitor, PrometheusRule };
for (const it of JSON.parse(readFileSync(0, "utf8"))) new kinds[it.kind](it).validate();
"""


class Failed(Exception):
    """With what the tool said."""


class NotRun(Exception):
    """With the reason."""


@dataclass(frozen=True)
class Check:
    name: str
    run: Callable[[], object]


def tool(name: str, *arguments: str, given: str | None = None, env: dict[str, str] | None = None) -> str:
    """What it said. Raises Failed, NotRun."""
    path = program(name)
    if path is None:
        raise NotRun(f"no {name} here")
    done = subprocess.run(
        [path, *arguments], input=given, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **(env or {})},
        timeout=RUN_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise Failed(f"{done.stdout}{done.stderr}".strip())
    return done.stdout


def sets_of_values(chart: Path = CHART) -> dict[str, Path]:
    """The example that people copy, and what turns on and off every part of the templates."""
    return {it.stem: it for it in (*sorted((chart / "examples").glob("*.yaml")), *sorted(VALUES.glob("*.yaml")))}


def rendered(given: Path, chart: Path = CHART, version: str = KUBERNETES[0]) -> list[dict[str, Any]]:
    """Raises Failed (a value that is refused, too), NotRun."""
    text = tool(
        "helm",
        "template",
        "payment-service",
        str(chart),
        "--namespace",
        "payments",
        "--kube-version",
        version,
        "-f",
        str(given),
    )
    return [it for it in yaml.safe_load_all(text) if it]


def helm_lint(given: Path, chart: Path = CHART) -> None:
    tool("helm", "lint", "--strict", "--quiet", str(chart), "-f", str(given))


def kubeconform(given: Path, version: str, chart: Path = CHART) -> None:
    place = schemas()
    if place is None:
        raise NotRun("no schemas of Kubernetes here")
    objects = yaml.safe_dump_all(rendered(given, chart, version))
    asked = ["-strict", "-kubernetes-version", version, "-schema-location", place, "-skip", ",".join(CRDS)]
    tool("kubeconform", *asked, "-", given=objects)


def custom_resources(given: Path, chart: Path = CHART) -> None:
    models, node = crd_models(), found("node")
    if models is None or node is None:
        raise NotRun("no models of prometheus-operator here")
    objects = json.dumps([it for it in rendered(given, chart) if it["kind"] in CRDS])
    done = subprocess.run(
        [str(node), "--input-type=module", "-e", MODELS], input=objects, capture_output=True, text=True, cwd=models,
        timeout=RUN_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise Failed(done.stderr.strip())


def compose() -> None:
    tool("docker-compose", "-f", "docker-compose.yml", "config", "--quiet", env={"DOCKER_HOST": "unix:///nowhere"})


def prometheus() -> None:
    folder = ROOT / "deploy" / "prometheus"
    tool("promtool", "check", "rules", str(folder / "alerts.yaml"))
    tool("promtool", "test", "rules", str(folder / "alerts_test.yaml"))


def terraform_format() -> None:
    tool("terraform", "fmt", "-check", "-diff", str(ROOT / "deploy" / "oci"), env={"TF_CLI_CONFIG_FILE": os.devnull})


def terraform_validate() -> None:
    if program("terraform") is None:
        raise NotRun("no terraform here")
    with tempfile.TemporaryDirectory() as folder:
        for file in (ROOT / "deploy" / "oci").glob("*.tf"):
            shutil.copy(file, folder)
        try:
            tool("terraform", f"-chdir={folder}", "init", "-backend=false", "-input=false", "-no-color")
        except Failed:
            raise NotRun("OCI's provider cannot be fetched; its arguments are checked by tests/deploy") from None
        tool("terraform", f"-chdir={folder}", "validate", "-no-color")


def image() -> None:
    try:
        tool("docker", "info", "--format", "{{.ServerVersion}}")
    except Failed:
        raise NotRun("no container engine answers") from None
    tool("docker", "build", "--quiet", ".")


def cluster() -> None:
    raise NotRun("no Kubernetes here: helm install, the hook's order, NetworkPolicy and probes were never seen at work")


def checks() -> Iterator[Check]:
    for name, given in sets_of_values().items():
        yield Check(f"helm lint, {name}", lambda given=given: helm_lint(given))
        for version in KUBERNETES:
            yield Check(
                f"kubeconform {version}, {name}", lambda given=given, version=version: kubeconform(given, version)
            )
        yield Check(f"prometheus-operator's models, {name}", lambda given=given: custom_resources(given))
    yield Check("hadolint Dockerfile", lambda: tool("hadolint", "Dockerfile"))
    yield Check("docker compose config", compose)
    yield Check("shellcheck .ci/run", lambda: tool("shellcheck", ".ci/run"))
    yield Check("promtool, rules and their tests", prometheus)
    yield Check("terraform fmt", terraform_format)
    yield Check("terraform validate", terraform_validate)
    yield Check("docker build", image)
    yield Check("helm install", cluster)


def main(arguments: list[str]) -> int:
    for line in install():
        sys.stdout.write(f"cannot be got here: {line}\n")
    wrong, left = 0, 0
    for check in checks():
        try:
            check.run()
        except NotRun as reason:
            left += 1
            sys.stdout.write(f"NOT RUN  {check.name}: {reason}\n")
        except (Failed, subprocess.TimeoutExpired) as error:
            wrong += 1
            sys.stdout.write(f"WRONG    {check.name}\n{error}\n")
        else:
            sys.stdout.write(f"ok       {check.name}\n")
    sys.stdout.write(f"{wrong} wrong, {left} not run\n")
    if wrong:
        return WRONG
    return NOT_RUN if left and "--all" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
